/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rig for tests of the allocator. */
#include "alloc_rig.h"

#include <stdio.h>
#include <stdlib.h>

#include "journal/journal.h"

/* The rig stands for btrees and journal: their calls carry its address. */
static struct rig *rig_of(struct ter_btrees *bt)
{
	return (struct rig *)bt;
}

/* --- a sorted array --- */

static unsigned lower(const struct fake_btree *bt, struct ter_pos pos)
{
	unsigned lo = 0, hi = bt->nr;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (ter_pos_cmp(bt->keys[mid].key.pos, pos) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct fake_key *find(struct fake_btree *bt, struct ter_pos pos)
{
	unsigned at = lower(bt, pos);

	return at < bt->nr && !ter_pos_cmp(bt->keys[at].key.pos, pos) ? &bt->keys[at] : NULL;
}

static void fake_copy(struct fake_key *dst, const struct ter_key *src)
{
	assert_true(src->val_bytes <= sizeof(dst->val));
	memset(dst->val, 0, sizeof(dst->val));
	dst->key = *src;
	if (src->val_bytes)
		memcpy(dst->val, src->val, src->val_bytes);
	dst->key.val = dst->val;
}

static void put(struct fake_btree *bt, const struct ter_key *key)
{
	struct fake_key *there = find(bt, key->pos);
	unsigned at;

	if (!there) {
		if (bt->nr == bt->max) {
			bt->max = bt->max ? bt->max * 2 : 64;
			bt->keys = realloc(bt->keys, bt->max * sizeof(bt->keys[0]));
			assert_non_null(bt->keys);
		}
		at = lower(bt, key->pos);
		memmove(&bt->keys[at + 1], &bt->keys[at], (bt->nr++ - at) * sizeof(bt->keys[0]));
		there = &bt->keys[at];
	}
	fake_copy(there, key);
}

static void del(struct fake_btree *bt, struct ter_pos pos)
{
	struct fake_key *there = find(bt, pos);
	unsigned at;

	if (!there)
		return;
	at = (unsigned)(there - bt->keys);
	memmove(there, there + 1, (--bt->nr - at) * sizeof(bt->keys[0]));
}

static void key_view(struct fake_key *k, struct ter_key *ret)
{
	*ret = k->key;
	ret->val = k->val;
}

/* --- transactions --- */

struct fake_update {
	enum ter_btree_id btree;
	struct ter_pos pos;
	enum { OLD_ANY, OLD_ABSENT, OLD_KEY } old_kind;
	struct fake_key old, new_key;
	bool deleted, add;
	int64_t deltas[TER_COUNTERS_MAX];
	unsigned nr;
};
struct fake_read {
	struct fake_read *next;
	struct fake_key key;
};
struct fake_trans {
	struct fake_update *u;
	unsigned nr, max;
	struct fake_read *reads;
};

const struct ter_key ter_key_absent_, ter_key_any_;

void ter_trans_init(struct ter_trans *trans, struct ter_btrees *bt, unsigned flags)
{
	memset(trans, 0, offsetof(struct ter_trans, arena_inline));
	trans->bt = bt;
	trans->flags = flags;
	trans->arena_more = calloc(1, sizeof(struct fake_trans));
	assert_non_null(trans->arena_more);
}

void ter_trans_exit(struct ter_trans *trans)
{
	struct fake_trans *ft = trans->arena_more;

	while (ft->reads) {
		struct fake_read *next = ft->reads->next;

		free(ft->reads);
		ft->reads = next;
	}
	free(ft->u);
	free(ft);
	trans->arena_more = NULL;
}

void ter_trans_reset(struct ter_trans *trans)
{
	struct ter_btrees *bt = trans->bt;
	unsigned flags = trans->flags;

	ter_trans_exit(trans);
	ter_trans_init(trans, bt, flags);
}

static struct fake_update *staged(struct fake_trans *ft, enum ter_btree_id btree, struct ter_pos pos)
{
	for (unsigned i = 0; i < ft->nr; i++)
		if (ft->u[i].btree == btree && !ter_pos_cmp(ft->u[i].pos, pos))
			return &ft->u[i];
	return NULL;
}

static int deliver(struct fake_trans *ft, const struct fake_key *k, struct ter_key *ret)
{
	struct fake_read *read = calloc(1, sizeof(*read));

	assert_non_null(read);
	fake_copy(&read->key, &k->key);
	memcpy(read->key.val, k->val, sizeof(k->val));
	read->next = ft->reads;
	ft->reads = read;
	key_view(&read->key, ret);
	return 0;
}

int ter_trans_get(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, struct ter_key *ret)
{
	return ter_trans_next(trans, btree, pos, pos, ret);
}

int ter_trans_next(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret)
{
	struct rig *rig = rig_of(trans->bt);
	struct fake_trans *ft = trans->arena_more;
	struct fake_update *best = NULL;
	struct fake_key tree;
	bool found = false;

	if (rig->before_read)
		rig->before_read(rig, btree);
	for (unsigned i = 0; i < ft->nr; i++) {
		struct fake_update *u = &ft->u[i];

		if (u->btree != btree || u->deleted || u->add || ter_pos_cmp(u->pos, from) < 0 || ter_pos_cmp(u->pos, to) > 0)
			continue;
		if (!best || ter_pos_cmp(u->pos, best->pos) < 0)
			best = u;
	}
	ter_lock_acquire(&rig->lock);
	for (unsigned i = lower(&rig->btree[btree], from); i < rig->btree[btree].nr && !found; i++) {
		struct fake_key *k = &rig->btree[btree].keys[i];

		if (ter_pos_cmp(k->key.pos, to) > 0)
			break;
		if (staged(ft, btree, k->key.pos))
			continue;
		found = true;
		tree = *k;
	}
	ter_lock_release(&rig->lock);
	if (best && (!found || ter_pos_cmp(best->pos, tree.key.pos) < 0)) {
		best->new_key.key.val = best->new_key.val;
		return deliver(ft, &best->new_key, ret);
	}
	if (!found)
		return -ENOENT;
	tree.key.val = tree.val;
	return deliver(ft, &tree, ret);
}

static struct fake_update *new_update(struct fake_trans *ft, enum ter_btree_id btree, struct ter_pos pos)
{
	if (ft->nr == ft->max) {
		ft->max = ft->max ? ft->max * 2 : 16;
		ft->u = realloc(ft->u, ft->max * sizeof(ft->u[0]));
		assert_non_null(ft->u);
	}
	ft->u[ft->nr] = (struct fake_update){ .btree = btree, .pos = pos };
	return &ft->u[ft->nr++];
}

int ter_trans_update(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key)
{
	struct fake_trans *ft = trans->arena_more;
	struct fake_update *u = staged(ft, btree, pos);

	if (!u) {
		u = new_update(ft, btree, pos);
		u->old_kind = old == TER_KEY_ANY ? OLD_ANY : old == TER_KEY_ABSENT ? OLD_ABSENT : OLD_KEY;
		if (u->old_kind == OLD_KEY)
			fake_copy(&u->old, old);
	}
	u->deleted = !new_key;
	if (new_key) {
		fake_copy(&u->new_key, new_key);
		u->new_key.key.pos = pos;
	}
	return 0;
}

int ter_trans_add(struct ter_trans *trans, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct fake_trans *ft = trans->arena_more;
	struct fake_update *u = staged(ft, TER_BTREE_ACCOUNTING, pos);

	if (!u) {
		u = new_update(ft, TER_BTREE_ACCOUNTING, pos);
		u->add = true;
	}
	u->nr = ter_max(u->nr, nr);
	for (unsigned i = 0; i < nr; i++)
		u->deltas[i] += deltas[i];
	return 0;
}

static bool matches(struct fake_btree *bt, const struct fake_update *u)
{
	const struct fake_key *there = find(bt, u->pos);

	switch (u->old_kind) {
	case OLD_ABSENT:
		return !there;
	case OLD_KEY:
		return there && there->key.size == u->old.key.size && there->key.type == u->old.key.type && there->key.val_bytes == u->old.key.val_bytes &&
		       !memcmp(there->val, u->old.val, sizeof(there->val));
	default:
		return true;
	}
}

/* B1 and B2 of every change of an alloc key. */
static void watch_bucket(struct rig *rig, const struct fake_update *u)
{
	const struct ter_dev *dev = ter_member(rig->members, (unsigned)u->pos.inode);
	struct ter_bucket_value v;
	struct ter_key key = u->new_key.key;

	assert_false(u->deleted); /* it would forget the generation */
	key.val = u->new_key.val;
	assert_int_equal(ter_bucket_decode(&key, dev, &v), 0);
	assert_true(v.gen >= rig->seen_gen[dev->idx][u->pos.offset]);
	if (v.gen > rig->seen_gen[dev->idx][u->pos.offset]) {
		assert_int_equal(ter_bucket_state(&v), TER_BUCKET_FREE);
		assert_true(rig->emptied_seq[dev->idx][u->pos.offset] != 0);
		assert_true(rig->emptied_seq[dev->idx][u->pos.offset] <= rig->durable_seq);
	}
	rig->seen_gen[dev->idx][u->pos.offset] = v.gen;
	rig->emptied_seq[dev->idx][u->pos.offset] = ter_bucket_state(&v) == TER_BUCKET_EMPTY ? rig->open_seq : 0;
}

static void apply_add(struct rig *rig, const struct fake_update *u)
{
	struct fake_btree *bt = &rig->btree[TER_BTREE_ACCOUNTING];
	struct fake_key *there = find(bt, u->pos);
	ter_le64 val[TER_COUNTERS_MAX] = { 0 };
	unsigned nr = ter_max(u->nr, there ? there->key.val_bytes / 8 : 0);
	struct ter_key key = { .pos = u->pos, .type = TER_KEY_COUNTERS, .val = val, .val_bytes = nr * 8 };
	bool zero = true;

	if (there)
		memcpy(val, there->val, there->key.val_bytes);
	for (unsigned i = 0; i < nr; i++) {
		val[i] = ter_le64_make(ter_le64_get(val[i]) + (uint64_t)u->deltas[i]);
		zero &= ter_le64_get(val[i]) == 0;
	}
	if (zero)
		del(bt, u->pos);
	else
		put(bt, &key);
	ter_alloc_on_counters(rig->alloc, u->pos, u->deltas, u->nr);
}

int ter_trans_commit(struct ter_trans *trans)
{
	struct rig *rig = rig_of(trans->bt);
	struct fake_trans *ft = trans->arena_more;
	int r = 0;

	ter_lock_acquire(&rig->lock);
	rig->commits++;
	if (rig->restart_every && rig->commits % rig->restart_every == 0)
		r = -ERESTART;
	for (unsigned i = 0; i < ft->nr && !r; i++)
		if (!ft->u[i].add && !matches(&rig->btree[ft->u[i].btree], &ft->u[i]))
			r = -ERESTART;
	for (unsigned i = 0; i < ft->nr && !r; i++) {
		struct fake_update *u = &ft->u[i];

		if (u->add) {
			apply_add(rig, u);
			continue;
		}
		if (u->btree == TER_BTREE_ALLOC)
			watch_bucket(rig, u);
		u->new_key.key.val = u->new_key.val;
		if (u->deleted)
			del(&rig->btree[u->btree], u->pos);
		else
			put(&rig->btree[u->btree], &u->new_key.key);
	}
	trans->seq = rig->open_seq;
	ter_lock_release(&rig->lock);
	return r;
}

int ter_trans_run(struct ter_btrees *bt, unsigned flags, int (*fn)(struct ter_trans *trans, void *arg), void *arg, uint64_t *ret_seq)
{
	struct ter_trans trans;
	int r = -EBUSY;

	ter_trans_init(&trans, bt, flags);
	for (unsigned i = 0; i < TER_TRANS_RESTARTS_MAX; i++) {
		r = fn(&trans, arg);
		if (r >= 0)
			r = ter_trans_commit(&trans);
		if (r != -ERESTART)
			break;
		ter_trans_reset(&trans);
		r = -EBUSY;
	}
	if (!r && ret_seq)
		*ret_seq = trans.seq;
	ter_trans_exit(&trans);
	return r;
}

int ter_btree_scan(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, unsigned flags,
		   int (*cb)(void *arg, const struct ter_key *key), void *arg, struct ter_pos *ret_resume)
{
	struct rig *rig = rig_of(bt);
	int r = 0;

	ter_lock_acquire(&rig->lock);
	for (unsigned i = lower(&rig->btree[btree], from); i < rig->btree[btree].nr && !r; i++) {
		struct ter_key key;

		if (ter_pos_cmp(rig->btree[btree].keys[i].key.pos, to) > 0)
			break;
		key_view(&rig->btree[btree].keys[i], &key);
		r = cb(arg, &key);
	}
	ter_lock_release(&rig->lock);
	return r;
}

/* --- journal and superblock --- */

uint64_t ter_journal_open_seq(struct ter_journal *journal)
{
	struct rig *rig = (struct rig *)journal;
	uint64_t seq;

	ter_lock_acquire(&rig->lock);
	seq = rig->open_seq;
	ter_lock_release(&rig->lock);
	return seq;
}

int ter_journal_flush(struct ter_journal *journal, uint64_t seq)
{
	struct rig *rig = (struct rig *)journal;
	int r = 0;

	ter_lock_acquire(&rig->lock);
	if (rig->journal_broken) {
		r = -EIO;
	} else if (seq > rig->durable_seq) {
		rig->durable_seq = seq;
		rig->open_seq = ter_max(rig->open_seq, seq + 1);
		rig->flushes++;
	}
	ter_lock_release(&rig->lock);
	return r;
}

/* There is always room. */
void ter_journal_pace(struct ter_journal *journal)
{
	(void)journal;
}

int ter_sb_replicas_ensure(struct ter_sb_handle *handle, const struct ter_replicas_entry *entry, bool nowait)
{
	struct rig *rig = ter_container_of(handle, struct rig, handle);
	int r = 0;

	ter_lock_acquire(&rig->handle.lock);
	if (!ter_sb_replicas_has(rig->sb, entry)) {
		if (nowait)
			r = -EAGAIN;
		else
			r = ter_sb_replicas_add(rig->sb, entry);
		rig->replicas_writes += !nowait;
	}
	ter_lock_release(&rig->handle.lock);
	return r;
}

/* --- devices: only discards come --- */

static void io_submit(struct ter_bio *bio)
{
	struct rig *rig = ter_container_of(bio->bdev->io, struct rig, io);
	unsigned dev_idx = (unsigned)(bio->bdev - rig->bdev);
	uint64_t bucket_bytes = (uint64_t)rig->members->dev[dev_idx].bucket_sectors * TER_SECTOR_BYTES;

	assert_int_equal(bio->op, TER_BIO_DISCARD);
	ter_lock_acquire(&rig->lock);
	rig->discards++;
	for (uint64_t b = bio->offset_bytes / bucket_bytes; b < (bio->offset_bytes + bio->bytes) / bucket_bytes; b++) {
		assert_true(rig->emptied_seq[dev_idx][b] != 0);
		assert_true(rig->emptied_seq[dev_idx][b] <= rig->durable_seq);
	}
	ter_lock_release(&rig->lock);
	bio->result = 0;
	bio->done(bio);
}

static const struct ter_io_ops io_ops = { .submit = io_submit };

/* --- rig --- */

struct rig *rig_new(const struct rig_params *params)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	const char *seed = getenv("TER_TEST_SEED");
	struct ter_alloc_config config;

	assert_non_null(rig);
	rig->seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)(uintptr_t)rig ^ 0x1234567;
	printf("seed %llu\n", (unsigned long long)rig->seed);
	rig->exec = ter_exec_new_threads();
	rig->sb = calloc(1, sizeof(*rig->sb));
	rig->members = calloc(1, sizeof(*rig->members));
	assert_true(rig->exec && rig->sb && rig->members);
	ter_options_default(&rig->sb->options);
	rig->sb->options.data_replicas = (uint8_t)params->data_replicas;
	rig->sb->options.metadata_replicas = (uint8_t)params->metadata_replicas;
	rig->sb->options.btree_node_size = 16384;
	rig->sb->options.journal_flush_ms = 1;
	rig->handle = (struct ter_sb_handle){ .exec = rig->exec, .sb = rig->sb, .members = rig->members };
	ter_lock_init(&rig->handle.lock, TER_RANK_SB);
	ter_lock_init(&rig->lock, TER_RANK_BTREE_NODE);
	rig->open_seq = 1;
	rig->io = (struct ter_io){ .ops = &io_ops, .exec = rig->exec, .name = "rig" };
	rig->members->nr_slots = params->nr;
	for (unsigned i = 0; i < params->nr; i++) {
		struct ter_dev *dev = &rig->members->dev[i];

		*dev = (struct ter_dev){
			.idx = i, .used = true, .state = TER_DEV_RW, .durability = 1, .discard = true,
			.bytes = params->buckets[i] * params->bucket_sectors * TER_SECTOR_BYTES,
			.bucket_sectors = params->bucket_sectors, .buckets_nr = params->buckets[i], .first_bucket = 2, .bdev = &rig->bdev[i],
			.journal = { { 10, 4 }, { 4, 3 } },
		};
		rig->bdev[i] = (struct ter_bdev){ .io = &rig->io, .info = { .bytes = dev->bytes, .can_discard = true } };
		rig->emptied_seq[i] = calloc(params->buckets[i], sizeof(uint64_t));
		rig->seen_gen[i] = calloc(params->buckets[i], sizeof(uint32_t));
	}
	rig->bt = (struct ter_btrees *)rig;
	config = (struct ter_alloc_config){ .exec = rig->exec, .sb = &rig->handle, .members = rig->members, .btrees = rig->bt,
					    .journal = (struct ter_journal *)rig };
	assert_int_equal(ter_alloc_new(&config, &rig->alloc), 0);
	for (unsigned i = 0; i < params->nr; i++)
		assert_int_equal(ter_alloc_init_member(rig->alloc, i), 0);
	if (!params->no_worker)
		assert_int_equal(ter_alloc_start(rig->alloc), 0);
	return rig;
}

void rig_free(struct rig *rig)
{
	ter_alloc_stop(rig->alloc);
	ter_alloc_free(rig->alloc);
	for (unsigned i = 0; i < RIG_DEVS_MAX; i++) {
		free(rig->emptied_seq[i]);
		free(rig->seen_gen[i]);
	}
	for (unsigned i = 0; i < TER_BTREE_NR; i++)
		free(rig->btree[i].keys);
	ter_lock_destroy(&rig->lock);
	ter_lock_destroy(&rig->handle.lock);
	free(rig->members);
	free(rig->sb);
	ter_exec_free(rig->exec);
	free(rig);
}

uint64_t rig_random(struct rig *rig, uint64_t below)
{
	uint64_t z = (rig->seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

struct sentences {
	char *text;
	size_t bytes, used;
};

static void collect(void *arg, const char *sentence)
{
	struct sentences *s = arg;

	if (s->used < s->bytes)
		s->used += (size_t)snprintf(s->text + s->used, s->bytes - s->used, "%s\n", sentence);
}

int rig_check(struct rig *rig, char *text, size_t bytes)
{
	struct sentences s = { .text = text, .bytes = bytes };

	text[0] = '\0';
	return ter_alloc_check(rig->alloc, collect, &s);
}

void rig_assert_sound(struct rig *rig)
{
	char text[4096];
	int r = rig_check(rig, text, sizeof(text));

	if (r)
		fail_msg("ter_alloc_check: %d\n%s", r, text);
}

void rig_put(struct rig *rig, enum ter_btree_id btree, const struct ter_key *key)
{
	put(&rig->btree[btree], key);
}

void rig_delete(struct rig *rig, enum ter_btree_id btree, struct ter_pos pos)
{
	del(&rig->btree[btree], pos);
}

const struct ter_key *rig_get(struct rig *rig, enum ter_btree_id btree, struct ter_pos pos)
{
	struct fake_key *k = find(&rig->btree[btree], pos);

	if (!k)
		return NULL;
	k->key.val = k->val;
	return &k->key;
}

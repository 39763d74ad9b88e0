/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Btrees of memory: sorted arrays, transactions that compare what they read (T3). */
#include <stdio.h>

#include "fs_fake.h"
#include "journal/journal_encode.h"

struct ter_update {
	enum ter_btree_id btree;
	struct ter_pos pos;
	bool any, absent;
	struct ter_key_disk *old; /* NULL with any or absent */
	struct ter_key_disk *fresh; /* NULL: delete */
	bool add;
	int64_t delta[TER_COUNTERS_MAX];
	unsigned delta_nr;
};

struct block {
	struct block *next;
	uint64_t mem[];
};

const struct ter_key ter_key_absent_, ter_key_any_;

struct fake_btrees *fake_btrees_new(void)
{
	struct fake_btrees *fb = calloc(1, sizeof(*fb));

	pthread_mutex_init(&fb->mutex, NULL);
	fb->fail_in = fb->again_in = -1;
	return fb;
}

void fake_btrees_free(struct fake_btrees *fb)
{
	for (unsigned b = 0; b < TER_BTREE_NR; b++) {
		for (size_t i = 0; i < fb->tree[b].nr; i++)
			free(fb->tree[b].key[i]);
		free(fb->tree[b].key);
	}
	pthread_mutex_destroy(&fb->mutex);
	free(fb);
}

static struct fake_btrees *fake_of(struct ter_btrees *bt)
{
	return (struct fake_btrees *)bt;
}

static struct ter_key_disk *encode(const struct ter_key *key)
{
	struct ter_key_disk *disk = malloc(ter_key_disk_bytes(key->val_bytes));

	ter_key_encode(key, disk);
	return disk;
}

static size_t lower(struct fake_btrees *fb, enum ter_btree_id b, struct ter_pos pos)
{
	size_t lo = 0, hi = fb->tree[b].nr;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (ter_pos_cmp(ter_key_disk_pos(fb->tree[b].key[mid]), pos) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct ter_key_disk *find(struct fake_btrees *fb, enum ter_btree_id b, struct ter_pos pos)
{
	size_t at = lower(fb, b, pos);

	return at < fb->tree[b].nr && !ter_pos_cmp(ter_key_disk_pos(fb->tree[b].key[at]), pos) ? fb->tree[b].key[at] : NULL;
}

static void set(struct fake_btrees *fb, enum ter_btree_id b, struct ter_pos pos, struct ter_key_disk *key)
{
	size_t at = lower(fb, b, pos);
	bool there = at < fb->tree[b].nr && !ter_pos_cmp(ter_key_disk_pos(fb->tree[b].key[at]), pos);

	if (there) {
		free(fb->tree[b].key[at]);
		if (key)
			fb->tree[b].key[at] = key;
		else
			memmove(&fb->tree[b].key[at], &fb->tree[b].key[at + 1], (--fb->tree[b].nr - at) * sizeof(key));
		return;
	}
	if (!key)
		return;
	if (fb->tree[b].nr == fb->tree[b].max) {
		fb->tree[b].max = fb->tree[b].max * 2 + 64;
		fb->tree[b].key = realloc(fb->tree[b].key, fb->tree[b].max * sizeof(key));
	}
	memmove(&fb->tree[b].key[at + 1], &fb->tree[b].key[at], (fb->tree[b].nr++ - at) * sizeof(key));
	fb->tree[b].key[at] = key;
}

size_t fake_keys_nr(struct fake_btrees *fb, enum ter_btree_id btree)
{
	return fb->tree[btree].nr;
}

void fake_poke(struct fake_btrees *fb, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *key)
{
	set(fb, btree, pos, key ? encode(key) : NULL);
}

static bool would_wait(struct fake_btrees *fb, unsigned flags)
{
	if (fb->again_in == 0 && !(flags & TER_TRANS_NOWAIT))
		fb->waited++;
	if (fb->again_in < 0 || !(flags & TER_TRANS_NOWAIT))
		return false;
	if (fb->again_in == 0)
		return true;
	fb->again_in--;
	return false;
}

/* --- transactions --- */

void ter_trans_init(struct ter_trans *trans, struct ter_btrees *bt, unsigned flags)
{
	memset(trans, 0, offsetof(struct ter_trans, arena_inline));
	trans->bt = bt;
	trans->flags = flags;
}

void ter_trans_reset(struct ter_trans *trans)
{
	for (unsigned i = 0; i < trans->updates_nr; i++) {
		free(trans->updates[i].old);
		free(trans->updates[i].fresh);
	}
	free(trans->updates);
	trans->updates = NULL;
	trans->updates_nr = trans->updates_max = 0;
	while (trans->arena_more) {
		struct block *b = trans->arena_more;

		trans->arena_more = b->next;
		free(b);
	}
}

void ter_trans_exit(struct ter_trans *trans)
{
	ter_trans_reset(trans);
}

static void give(struct ter_trans *trans, const struct ter_key_disk *disk, struct ter_key *ret)
{
	size_t bytes = ter_key_disk_bytes(ter_le32_get(disk->val_bytes));
	struct block *b = malloc(sizeof(*b) + bytes);

	b->next = trans->arena_more;
	trans->arena_more = b;
	memcpy(b->mem, disk, bytes);
	ter_key_decode((struct ter_key_disk *)b->mem, ret);
}

static struct ter_update *staged(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos)
{
	for (unsigned i = 0; i < trans->updates_nr; i++)
		if (trans->updates[i].btree == btree && !trans->updates[i].add && !ter_pos_cmp(trans->updates[i].pos, pos))
			return &trans->updates[i];
	return NULL;
}

int ter_trans_get(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, struct ter_key *ret)
{
	struct fake_btrees *fb = fake_of(trans->bt);
	struct ter_update *u = staged(trans, btree, pos);
	const struct ter_key_disk *disk;
	int r = 0;

	pthread_mutex_lock(&fb->mutex);
	fb->reads++;
	if (would_wait(fb, trans->flags)) {
		r = -EAGAIN;
	} else {
		disk = u ? u->fresh : find(fb, btree, pos);
		if (disk)
			give(trans, disk, ret);
		else
			r = -ENOENT;
	}
	pthread_mutex_unlock(&fb->mutex);
	return r;
}

int ter_trans_next(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret)
{
	struct fake_btrees *fb = fake_of(trans->bt);
	const struct ter_key_disk *best = NULL;
	int r = 0;

	pthread_mutex_lock(&fb->mutex);
	fb->reads++;
	if (would_wait(fb, trans->flags)) {
		pthread_mutex_unlock(&fb->mutex);
		return -EAGAIN;
	}
	for (size_t at = lower(fb, btree, from); at < fb->tree[btree].nr; at++) {
		struct ter_update *u = staged(trans, btree, ter_key_disk_pos(fb->tree[btree].key[at]));

		best = u ? u->fresh : fb->tree[btree].key[at];
		if (best)
			break;
	}
	for (unsigned i = 0; i < trans->updates_nr; i++) {
		struct ter_update *u = &trans->updates[i];

		if (u->btree == btree && u->fresh && ter_pos_cmp(u->pos, from) >= 0 && (!best || ter_pos_cmp(u->pos, ter_key_disk_pos(best)) < 0))
			best = u->fresh;
	}
	if (best && ter_pos_cmp(ter_key_disk_pos(best), to) <= 0)
		give(trans, best, ret);
	else
		r = -ENOENT;
	pthread_mutex_unlock(&fb->mutex);
	return r;
}

static struct ter_update *new_update(struct ter_trans *trans)
{
	if (trans->updates_nr == trans->updates_max) {
		trans->updates_max = trans->updates_max * 2 + 8;
		trans->updates = realloc(trans->updates, trans->updates_max * sizeof(trans->updates[0]));
	}
	memset(&trans->updates[trans->updates_nr], 0, sizeof(trans->updates[0]));
	return &trans->updates[trans->updates_nr++];
}

int ter_trans_update(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key)
{
	struct ter_update *u = staged(trans, btree, pos);

	if (!u) {
		u = new_update(trans);
		u->btree = btree;
		u->pos = pos;
		u->any = old == TER_KEY_ANY;
		u->absent = old == TER_KEY_ABSENT;
		if (!u->any && !u->absent)
			u->old = encode(old);
	}
	free(u->fresh);
	u->fresh = new_key ? encode(new_key) : NULL;
	return 0;
}

int ter_trans_add(struct ter_trans *trans, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct ter_update *u = new_update(trans);

	u->btree = TER_BTREE_ACCOUNTING;
	u->pos = pos;
	u->add = true;
	memcpy(u->delta, deltas, nr * sizeof(deltas[0]));
	u->delta_nr = nr;
	return 0;
}

int ter_trans_log(struct ter_trans *trans, enum ter_jrec_type type, const struct iovec *iov, unsigned iov_nr)
{
	struct fake_btrees *fb = fake_of(trans->bt);
	struct ter_jrec rec = { .type = type, .bytes = (uint32_t)iov->iov_len, .payload = iov->iov_base };
	struct ter_jrec_clock clock;

	assert(iov_nr == 1);
	pthread_mutex_lock(&fb->mutex);
	if (type == TER_JREC_CLOCK && ter_jrec_clock_decode(&rec, &clock) == 0)
		fb->clock_inum = ter_max(fb->clock_inum, clock.next_inum);
	if (type == TER_JREC_REQUEST)
		fb->requests++;
	pthread_mutex_unlock(&fb->mutex);
	return 0;
}

static bool matches(struct fake_btrees *fb, const struct ter_update *u)
{
	const struct ter_key_disk *now = find(fb, u->btree, u->pos);

	if (u->any || u->add)
		return true;
	if (u->absent || !now)
		return u->absent && !now;
	return ter_le32_get(now->val_bytes) == ter_le32_get(u->old->val_bytes) &&
	       !memcmp(now, u->old, ter_key_disk_bytes(ter_le32_get(now->val_bytes)));
}

static void apply_add(struct fake_btrees *fb, const struct ter_update *u)
{
	const struct ter_key_disk *now = find(fb, u->btree, u->pos);
	ter_le64 val[TER_COUNTERS_MAX] = { 0 };
	struct ter_key key = { .pos = u->pos, .type = TER_KEY_COUNTERS, .val_bytes = u->delta_nr * 8, .val = val };
	bool zero = true;

	if (now)
		memcpy(val, now + 1, u->delta_nr * 8);
	for (unsigned i = 0; i < u->delta_nr; i++) {
		val[i] = ter_le64_make(ter_le64_get(val[i]) + (uint64_t)u->delta[i]);
		zero = zero && !ter_le64_get(val[i]);
	}
	set(fb, u->btree, u->pos, zero ? NULL : encode(&key));
}

/* After each commit: whoever owns keys of an inode goes before it, or with it. */
static void assert_no_leftovers(struct fake_btrees *fb, const struct ter_update *u)
{
	static const enum ter_btree_id of_inode[] = { TER_BTREE_EXTENTS, TER_BTREE_DIRENTS, TER_BTREE_XATTRS };

	if (u->add || (u->btree != TER_BTREE_INODES && u->btree != TER_BTREE_EXTENTS) || find(fb, TER_BTREE_INODES, TER_POS(u->pos.inode, 0, u->pos.snapshot)))
		return;
	for (unsigned i = 0; i < 3; i++) {
		size_t at = lower(fb, of_inode[i], TER_POS(u->pos.inode, 0, 0));

		assert(at == fb->tree[of_inode[i]].nr || ter_key_disk_pos(fb->tree[of_inode[i]].key[at]).inode != u->pos.inode);
	}
}

int ter_trans_commit(struct ter_trans *trans)
{
	struct fake_btrees *fb = fake_of(trans->bt);
	int r = 0;

	pthread_mutex_lock(&fb->mutex);
	if (trans->updates_nr) {
		if (would_wait(fb, trans->flags))
			r = -EAGAIN;
		else if (fb->fail_in == 0)
			r = fb->fail_r;
		else if (fb->restart_every && ++fb->commits % fb->restart_every == 0)
			r = -ERESTART;
	}
	for (unsigned i = 0; i < trans->updates_nr && r >= 0; i++)
		if (!matches(fb, &trans->updates[i]))
			r = -ERESTART;
	if (r >= 0) {
		if (trans->updates_nr) {
			fb->seq++;
			if (fb->fail_in > 0)
				fb->fail_in--;
		}
		trans->seq = fb->seq;
		for (unsigned i = 0; i < trans->updates_nr; i++) {
			struct ter_update *u = &trans->updates[i];

			if (u->add)
				apply_add(fb, u);
			else
				set(fb, u->btree, u->pos, TAKE_PTR(u->fresh));
		}
		for (unsigned i = 0; i < trans->updates_nr; i++)
			assert_no_leftovers(fb, &trans->updates[i]);
	}
	pthread_mutex_unlock(&fb->mutex);
	return r;
}

int ter_trans_run(struct ter_btrees *bt, unsigned flags, int (*fn)(struct ter_trans *trans, void *arg), void *arg, uint64_t *ret_seq)
{
	struct ter_trans trans;
	int r = -EBUSY;

	ter_trans_init(&trans, bt, flags);
	for (unsigned i = 0; i < TER_TRANS_RESTARTS_MAX; i++) {
		ter_trans_reset(&trans);
		r = fn(&trans, arg);
		if (r >= 0)
			r = ter_trans_commit(&trans);
		if (r != -ERESTART)
			break;
		r = -EBUSY;
	}
	if (r >= 0 && ret_seq)
		*ret_seq = trans.seq;
	if (r >= 0 && fake_of(bt)->after_commit)
		TAKE_PTR(fake_of(bt)->after_commit)(fake_of(bt)->after_commit_arg);
	ter_trans_exit(&trans);
	return r < 0 ? r : 0;
}

int ter_btree_scan(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, unsigned flags,
		   int (*cb)(void *arg, const struct ter_key *key), void *arg, struct ter_pos *ret_resume)
{
	struct fake_btrees *fb = fake_of(bt);
	int r = 0;

	pthread_mutex_lock(&fb->mutex);
	if (would_wait(fb, flags))
		r = -EAGAIN;
	for (size_t at = lower(fb, btree, from); r == 0 && at < fb->tree[btree].nr; at++) {
		struct ter_key key;

		ter_key_decode(fb->tree[btree].key[at], &key);
		if (ter_pos_cmp(key.pos, to) > 0)
			break;
		r = cb(arg, &key);
	}
	pthread_mutex_unlock(&fb->mutex);
	return r;
}

void ter_btree_prefetch(struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to)
{
	assert(bt && btree < TER_BTREE_NR && ter_pos_cmp(from, to) <= 0);
}

/* --- the journal: durable at once --- */

uint64_t ter_journal_open_seq(struct ter_journal *journal)
{
	return ((struct fake_btrees *)journal)->seq + 1;
}

void ter_journal_want_roots(struct ter_journal *journal)
{
	assert(journal); /* every entry says all here */
}

int ter_journal_flush(struct ter_journal *journal, uint64_t seq)
{
	assert(seq <= ter_journal_open_seq(journal));
	return 0;
}

void ter_journal_flush_async(struct ter_journal *journal, uint64_t seq, struct ter_journal_waiter *waiter)
{
	waiter->seq = seq;
	waiter->fn(waiter, ter_journal_flush(journal, seq));
}

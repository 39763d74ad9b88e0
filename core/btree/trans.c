/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Transactions: memory, staging, and reading through what is staged. commit.c makes it true. */
#include "btree/btree_priv.h"

const struct ter_key ter_key_absent_, ter_key_any_;

#define UPDATES_MIN 16u
#define BLOCK_BYTES 16384u

struct arena_block {
	struct arena_block *next;
	uint64_t data[];
};

/* --- memory --- */

void ter_trans_init(struct ter_trans *trans, struct ter_btrees *bt, unsigned flags)
{
	trans->bt = bt;
	trans->flags = flags;
	trans->updates = NULL;
	trans->updates_nr = trans->updates_max = 0;
	trans->arena = (uint8_t *)trans->arena_inline;
	trans->arena_used = 0;
	trans->arena_bytes = sizeof(trans->arena_inline);
	trans->arena_more = NULL;
	trans->on_commit = NULL;
	trans->on_commit_arg = NULL;
	trans->seq = 0;
	trans->logs = NULL;
	trans->logs_tail = &trans->logs;
	trans->structure = NULL;
}

void ter_trans_exit(struct ter_trans *trans)
{
	struct arena_block *block = trans->arena_more, *next;

	for (; block; block = next) {
		next = block->next;
		free(block);
	}
	trans->arena_more = NULL;
}

void ter_trans_reset(struct ter_trans *trans)
{
	ter_trans_exit(trans);
	trans->updates = NULL;
	trans->updates_nr = trans->updates_max = 0;
	trans->arena = (uint8_t *)trans->arena_inline;
	trans->arena_used = 0;
	trans->arena_bytes = sizeof(trans->arena_inline);
	trans->logs = NULL;
	trans->logs_tail = &trans->logs;
}

static void *alloc_slowly(struct ter_trans *trans, size_t bytes)
{
	size_t data_bytes = ter_max(bytes, (size_t)BLOCK_BYTES);
	struct arena_block *block = ter_malloc(sizeof(*block) + data_bytes);

	if (!block)
		return NULL;
	block->next = trans->arena_more;
	trans->arena_more = block;
	trans->arena = (uint8_t *)block->data;
	trans->arena_bytes = data_bytes;
	trans->arena_used = bytes;
	return block->data;
}

void *ter_trans_alloc(struct ter_trans *trans, size_t bytes)
{
	void *p = trans->arena + trans->arena_used;

	bytes = ter_round_up(bytes, 8);
	if (ter_unlikely(bytes > trans->arena_bytes - trans->arena_used))
		return alloc_slowly(trans, bytes);
	trans->arena_used += bytes;
	return p;
}

static struct ter_key_disk *copy_key(struct ter_trans *trans, const struct ter_key *key)
{
	struct ter_key_disk *disk = ter_trans_alloc(trans, ter_key_disk_bytes(key->val_bytes));

	if (disk)
		ter_key_encode(key, disk);
	return disk;
}

/* --- staging --- */

static int update_cmp(const struct ter_update *u, unsigned btree, unsigned level, struct ter_pos pos)
{
	if (u->btree != btree)
		return u->btree < btree ? -1 : 1;
	if (u->level != level)
		return u->level > level ? -1 : 1; /* parents first */
	return ter_pos_cmp(u->pos, pos);
}

/* Updates are kept in order of btree, level (the highest first) and position: the place of this one. */
unsigned ter_trans_find(const struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos pos, bool *ret_found)
{
	unsigned lo = 0, hi = trans->updates_nr, mid;
	int cmp = 1;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		cmp = update_cmp(&trans->updates[mid], btree, level, pos);
		if (cmp == 0) {
			*ret_found = true;
			return mid;
		}
		if (cmp < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_found = false;
	return lo;
}

static int grow_updates(struct ter_trans *trans)
{
	unsigned max = trans->updates_max ? trans->updates_max * 2 : UPDATES_MIN;
	struct ter_update *updates;

	if (trans->updates_nr >= TER_TRANS_UPDATES_MAX)
		return -E2BIG;
	updates = ter_trans_alloc(trans, max * sizeof(*updates));
	if (!updates)
		return -ENOMEM;
	if (trans->updates_nr)
		memcpy(updates, trans->updates, trans->updates_nr * sizeof(*updates));
	trans->updates = updates;
	trans->updates_max = max;
	return 0;
}

static int insert_update(struct ter_trans *trans, unsigned at, const struct ter_update *update)
{
	int r;

	if (trans->updates_nr == trans->updates_max) {
		r = grow_updates(trans);
		if (r < 0)
			return r;
	}
	memmove(&trans->updates[at + 1], &trans->updates[at], (trans->updates_nr - at) * sizeof(*update));
	trans->updates[at] = *update;
	trans->updates_nr++;
	return 0;
}

static int encode_new(struct ter_trans *trans, struct ter_pos pos, const struct ter_key *new_key, struct ter_key_disk **ret_disk)
{
	struct ter_key key = new_key ? *new_key : (struct ter_key){ .type = TER_KEY_DELETED };

	key.pos = pos;
	if (key.val_bytes > TER_VAL_BYTES_MAX || ter_key_disk_bytes(key.val_bytes) > ter_node_key_bytes_max(&trans->bt->geo))
		return -E2BIG;
	*ret_disk = copy_key(trans, &key);
	return *ret_disk ? 0 : -ENOMEM;
}

static int encode_old(struct ter_trans *trans, struct ter_update *update, const struct ter_key *old)
{
	if (old == TER_KEY_ANY) {
		update->old_kind = TER_OLD_ANY;
	} else if (old == TER_KEY_ABSENT) {
		update->old_kind = TER_OLD_ABSENT;
	} else {
		update->old_kind = TER_OLD_KEY;
		update->old = copy_key(trans, old);
		if (!update->old)
			return -ENOMEM;
	}
	return 0;
}

int ter_trans_stage(struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key)
{
	struct ter_update update = { .pos = pos, .btree = (uint8_t)btree, .level = (uint8_t)level };
	struct ter_key_disk *disk;
	bool found;
	unsigned at;
	int r;

	r = encode_new(trans, pos, new_key, &disk);
	if (r < 0)
		return r;
	at = ter_trans_find(trans, btree, level, pos, &found);
	if (found && trans->updates[at].kind == TER_UPDATE_ADD)
		return -EINVAL;
	if (found && trans->updates[at].kind != TER_UPDATE_LOCK) {
		trans->updates[at].kind = new_key ? TER_UPDATE_SET : TER_UPDATE_DELETE;
		trans->updates[at].key = disk;
		return 0;
	}
	r = encode_old(trans, &update, old);
	if (r < 0)
		return r;
	update.kind = new_key ? TER_UPDATE_SET : TER_UPDATE_DELETE;
	update.key = disk;
	if (!found)
		return insert_update(trans, at, &update);
	trans->updates[at] = update;
	return 0;
}

int ter_trans_update(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key)
{
	return ter_trans_stage(trans, btree, 0, pos, old, new_key);
}

int ter_trans_stage_lock(struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos pos)
{
	struct ter_update update = { .pos = pos, .btree = (uint8_t)btree, .level = (uint8_t)level, .kind = TER_UPDATE_LOCK };
	bool found;
	unsigned at = ter_trans_find(trans, btree, level, pos, &found);

	return found ? 0 : insert_update(trans, at, &update);
}

int ter_trans_stage_ptrs(struct ter_trans *trans, unsigned btree, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct ter_btree_ptr_disk disk;
	struct ter_key key = { .pos = max, .type = TER_KEY_BTREE_PTR, .val_bytes = ter_node_ptrs_encode(ptrs, &disk), .val = &disk };

	return ter_trans_stage(trans, btree, level, max, TER_KEY_ANY, &key);
}

int ter_trans_add(struct ter_trans *trans, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct ter_update update = { .pos = pos, .btree = TER_BTREE_ACCOUNTING, .kind = TER_UPDATE_ADD };
	bool found;
	unsigned at;

	if (!nr || nr > TER_COUNTERS_MAX)
		return -EINVAL;
	at = ter_trans_find(trans, TER_BTREE_ACCOUNTING, 0, pos, &found);
	if (found && trans->updates[at].kind == TER_UPDATE_LOCK) {
		found = false;
		memmove(&trans->updates[at], &trans->updates[at + 1], (trans->updates_nr - at - 1) * sizeof(update));
		trans->updates_nr--; /* the counters lock the same node */
	}
	if (!found) {
		int r;

		update.deltas = ter_trans_alloc(trans, TER_COUNTERS_MAX * sizeof(int64_t));
		update.key = ter_trans_alloc(trans, ter_key_disk_bytes(TER_COUNTERS_MAX * 8));
		if (!update.deltas || !update.key)
			return -ENOMEM;
		memset(update.deltas, 0, TER_COUNTERS_MAX * sizeof(int64_t));
		r = insert_update(trans, at, &update);
		if (r < 0)
			return r;
	}
	if (trans->updates[at].kind != TER_UPDATE_ADD)
		return -EINVAL;
	for (unsigned i = 0; i < nr; i++)
		trans->updates[at].deltas[i] = (int64_t)((uint64_t)trans->updates[at].deltas[i] + (uint64_t)deltas[i]);
	trans->updates[at].deltas_nr = (uint8_t)ter_max((unsigned)trans->updates[at].deltas_nr, nr);
	return 0;
}

static int add_log(struct ter_trans *trans, enum ter_jrec_type type, unsigned btree, unsigned level, const struct iovec *iov, unsigned iov_nr)
{
	struct ter_trans_log *log = ter_trans_alloc(trans, sizeof(*log) + iov_nr * sizeof(*iov));
	uint64_t bytes = 0;

	if (!log)
		return -ENOMEM;
	for (unsigned i = 0; i < iov_nr; i++) {
		log->iov[i] = iov[i];
		bytes += iov[i].iov_len;
	}
	if (bytes > TER_JOURNAL_ENTRY_MAX)
		return -E2BIG;
	log->next = NULL;
	log->type = type;
	log->btree = (uint8_t)btree;
	log->level = (uint8_t)level;
	log->bytes = (uint32_t)bytes;
	log->iov_nr = iov_nr;
	*trans->logs_tail = log;
	trans->logs_tail = &log->next;
	return 0;
}

int ter_trans_log(struct ter_trans *trans, enum ter_jrec_type type, const struct iovec *iov, unsigned iov_nr)
{
	if (iov_nr > TER_BIO_IOV_MAX)
		return -E2BIG;
	return add_log(trans, type, 0, 0, iov, iov_nr);
}

int ter_trans_log_key(struct ter_trans *trans, unsigned btree, unsigned level, const struct ter_key_disk *key)
{
	struct iovec iov = { .iov_base = (void *)key, .iov_len = ter_key_whole_bytes(key) };

	return add_log(trans, TER_JREC_KEY, btree, level, &iov, 1);
}

/* --- reading --- */

static unsigned descend_flags(const struct ter_trans *trans)
{
	return trans->flags & TER_TRANS_NOWAIT ? TER_DESCEND_NOWAIT : 0;
}

static int copy_out(struct ter_trans *trans, const struct ter_keyset *keys, uint32_t idx, struct ter_key *ret)
{
	const struct ter_key_disk *disk = ter_keyset_at(keys, idx);
	uint32_t whole = ter_key_whole_bytes(disk);
	void *copy = ter_trans_alloc(trans, whole);

	if (ter_unlikely(!copy))
		return -ENOMEM;
	memcpy(copy, disk, whole);
	ter_key_decode(copy, ret);
	return 0;
}

static int tree_get(struct ter_trans *trans, unsigned btree, struct ter_pos pos, struct ter_key *ret)
{
	struct ter_node *node;
	uint32_t idx;
	int r;

	r = ter_descend(&trans->bt->tree[btree], 0, pos, descend_flags(trans), NULL, &node, NULL);
	if (ter_unlikely(r < 0))
		return r;
	idx = ter_keyset_lower(&node->keys, pos);
	r = -ENOENT;
	if (ter_keyset_is(&node->keys, idx, pos) && ter_keyset_live(&node->keys, idx))
		r = copy_out(trans, &node->keys, idx, ret);
	ter_node_unlock_read(node);
	return r;
}

static int tree_next(struct ter_trans *trans, unsigned btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret)
{
	struct ter_node *node;
	struct ter_pos max;
	uint32_t idx;
	int r;

	for (;;) {
		r = ter_descend(&trans->bt->tree[btree], 0, from, descend_flags(trans), NULL, &node, NULL);
		if (r < 0)
			return r;
		idx = ter_keyset_skip(&node->keys, ter_keyset_lower(&node->keys, from));
		max = node->max;
		r = -ENOENT;
		if (idx < node->keys.nr && ter_pos_cmp(ter_keyset_pos(&node->keys, idx), to) <= 0)
			r = copy_out(trans, &node->keys, idx, ret);
		if (idx < node->keys.nr)
			max = TER_POS_MAX; /* no further leaf can have it */
		ter_node_unlock_read(node);
		if (r != -ENOENT || ter_pos_cmp(max, to) >= 0)
			return r;
		from = ter_pos_next(max);
	}
}

static int tree_prev(struct ter_trans *trans, unsigned btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret)
{
	struct ter_node *node;
	struct ter_pos min;
	uint32_t idx;
	bool some;
	int r;

	for (;;) {
		r = ter_descend(&trans->bt->tree[btree], 0, from, descend_flags(trans), NULL, &node, NULL);
		if (r < 0)
			return r;
		idx = ter_keyset_lower(&node->keys, from);
		idx += ter_keyset_is(&node->keys, idx, from);
		while (idx > 0 && !ter_keyset_live(&node->keys, idx - 1))
			idx--;
		some = idx > 0;
		min = node->min;
		r = -ENOENT;
		if (some && ter_pos_cmp(ter_keyset_pos(&node->keys, idx - 1), to) >= 0)
			r = copy_out(trans, &node->keys, idx - 1, ret);
		ter_node_unlock_read(node);
		if (r != -ENOENT || some || ter_pos_cmp(min, to) <= 0)
			return r;
		from = ter_pos_prev(min);
	}
}

/* Counters as they will be: what is there (@r from the tree) and what is added. */
static int add_up(struct ter_trans *trans, const struct ter_update *u, int r, const struct ter_key *there, struct ter_key *ret)
{
	ter_le64 val[TER_COUNTERS_MAX] = { 0 };
	struct ter_key key = { .pos = u->pos, .type = TER_KEY_COUNTERS, .val = val };
	struct ter_key_disk *disk;
	unsigned nr = u->deltas_nr;
	uint64_t any = 0, sum;

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && (there->type != TER_KEY_COUNTERS || there->val_bytes > sizeof(val) || there->val_bytes % 8))
		return -EUCLEAN;
	if (r == 0) {
		memcpy(val, there->val, there->val_bytes);
		nr = ter_max(nr, there->val_bytes / 8);
	}
	for (unsigned i = 0; i < nr; i++) {
		sum = ter_le64_get(val[i]) + (i < u->deltas_nr ? (uint64_t)u->deltas[i] : 0);
		val[i] = ter_le64_make(sum);
		any |= sum;
	}
	if (!any)
		return -ENOENT;
	key.val_bytes = nr * 8;
	disk = copy_key(trans, &key);
	if (!disk)
		return -ENOMEM;
	ter_key_decode(disk, ret);
	return 0;
}

static int staged_get(struct ter_trans *trans, const struct ter_update *u, struct ter_key *ret)
{
	struct ter_key there;
	int r;

	switch (u->kind) {
	case TER_UPDATE_SET:
		ter_key_decode(u->key, ret);
		return 0;
	case TER_UPDATE_DELETE:
		return -ENOENT;
	case TER_UPDATE_ADD:
		r = tree_get(trans, u->btree, u->pos, &there);
		return add_up(trans, u, r, &there, ret);
	default:
		return tree_get(trans, u->btree, u->pos, ret);
	}
}

int ter_trans_get(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos pos, struct ter_key *ret)
{
	bool found = false;
	unsigned at = trans->updates_nr ? ter_trans_find(trans, btree, 0, pos, &found) : 0;

	if (found)
		return staged_get(trans, &trans->updates[at], ret);
	return tree_get(trans, btree, pos, ret);
}

static bool staged_here(const struct ter_trans *trans, unsigned at, unsigned btree)
{
	return at < trans->updates_nr && trans->updates[at].btree == btree && trans->updates[at].level == 0;
}

int ter_trans_next(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret)
{
	struct ter_pos upto;
	unsigned at = 0;
	bool found, staged = false;
	int r;

	for (;;) {
		upto = to;
		if (trans->updates_nr) {
			at = ter_trans_find(trans, btree, 0, from, &found);
			staged = staged_here(trans, at, btree) && ter_pos_cmp(trans->updates[at].pos, to) <= 0;
		}
		/* The tree is asked up to what is staged; a key at that very place is the staged one's to answer. */
		if (staged)
			upto = trans->updates[at].pos;
		r = tree_next(trans, btree, from, upto, ret);
		if (r < 0 && r != -ENOENT)
			return r;
		if (!staged || (r == 0 && ter_pos_cmp(ret->pos, upto) < 0))
			return r;
		r = staged_get(trans, &trans->updates[at], ret);
		if (r != -ENOENT || ter_pos_cmp(upto, to) >= 0)
			return r;
		from = ter_pos_next(upto);
	}
}

int ter_trans_prev(struct ter_trans *trans, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, struct ter_key *ret)
{
	struct ter_pos downto;
	unsigned at = 0;
	bool found, staged = false;
	int r;

	for (;;) {
		downto = to;
		if (trans->updates_nr) {
			at = ter_trans_find(trans, btree, 0, from, &found);
			staged = found || (at > 0 && staged_here(trans, at - 1, btree));
			at -= !found && staged;
			staged = staged && ter_pos_cmp(trans->updates[at].pos, to) >= 0;
		}
		if (staged)
			downto = trans->updates[at].pos;
		r = tree_prev(trans, btree, from, downto, ret);
		if (r < 0 && r != -ENOENT)
			return r;
		if (!staged || (r == 0 && ter_pos_cmp(ret->pos, downto) > 0))
			return r;
		r = staged_get(trans, &trans->updates[at], ret);
		if (r != -ENOENT || ter_pos_cmp(downto, to) <= 0)
			return r;
		from = ter_pos_prev(downto);
	}
}

/* --- running --- */

int ter_trans_run(struct ter_btrees *bt, unsigned flags, int (*fn)(struct ter_trans *trans, void *arg), void *arg, uint64_t *ret_seq)
{
	struct ter_trans trans;
	int r = -EBUSY;

	ter_trans_init(&trans, bt, flags);
	for (unsigned tries = 0; tries < TER_TRANS_RESTARTS_MAX; tries++) {
		r = fn(&trans, arg);
		if (r >= 0)
			r = ter_trans_commit(&trans);
		if (r != -ERESTART)
			break;
		atomic_fetch_add_explicit(&bt->restarts, 1, memory_order_relaxed);
		ter_trans_reset(&trans);
		trans.on_commit = NULL;
		r = -EBUSY;
	}
	if (r >= 0 && ret_seq)
		*ret_seq = trans.seq;
	ter_trans_exit(&trans);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commit of a transaction: lock all nodes, compare, reserve in the journal, and only then change anything
 *
 * Nodes are locked by try-lock in order. What cannot be had at once (locked by others, or not in memory) is waited for with nothing held but nodes of higher levels of the same
 * btree, one a level, and is kept while the others are tried again. So whoever waits for a node holds only nodes above it, and no cycle can form.
 *
 * Two who keep taking from each other what the other needs next could go on so for ever: who had to begin again often goes through the turnstile, which lets one of such
 * through at a time.
 */
#include "btree/btree_priv.h"

#define FIRST_NONE UINT32_MAX
#define FIRST_ROOT (UINT32_MAX - 1)
#define TRIES_BEFORE_TURNSTILE 4
#define TRIES_BEFORE_BACKOFF 8
#define TRIES_OF_NOWAIT 64
#define BACKOFF_STEP_NS 10000ull
#define BACKOFF_MAX_NS TER_NS_PER_MS
#define TRIES_BEFORE_NO_EVICT 8 /* a commit that had to begin again so often may be losing its nodes to eviction */

struct commit {
	struct ter_trans *trans;
	struct ter_btrees *bt;
	uint32_t first;     /* the update whose node is waited for */
	uint32_t nodes_nr;
	bool root_locked, no_evict, in_turnstile;
	bool no_chain;      /* wait for first alone */
	struct ter_btree *wait_tree; /* a leaf of it is over its limit (T5) */
	uint64_t wait_change;
	uint32_t journal_bytes;
};

/* --- locking --- */

static void unlock_all(struct commit *c)
{
	struct ter_update *u;

	for (unsigned i = 0; i < c->trans->updates_nr; i++) {
		u = &c->trans->updates[i];
		if (u->locked)
			ter_node_unlock_write(u->node);
		u->locked = false;
		u->node = NULL;
	}
	if (c->root_locked)
		ter_root_unlock_write(c->trans->structure->tree);
	c->root_locked = false;
	c->nodes_nr = 0;
}

static bool is_in(const struct ter_update *u, const struct ter_node *node)
{
	return node && node->tree->id == u->btree && node->level == u->level && ter_node_covers(node, u->pos);
}

static int locked(struct commit *c, struct ter_update *u, struct ter_node *node, bool held)
{
	u->node = node;
	u->locked = !held;
	c->nodes_nr += u->locked;
	return c->nodes_nr <= TER_COMMIT_NODES_MAX ? 0 : -E2BIG;
}

static int lock_one(struct commit *c, uint32_t i, bool try)
{
	struct ter_update *u = &c->trans->updates[i];
	unsigned flags = TER_DESCEND_WRITE | (try ? TER_DESCEND_TRY : 0) | (c->trans->flags & TER_TRANS_NOWAIT ? TER_DESCEND_NOWAIT : 0);
	struct ter_node *node;
	bool held;
	int r;

	r = ter_descend(&c->bt->tree[u->btree], u->level, u->pos, flags, c->trans, &node, &held);
	return r < 0 ? r : locked(c, u, node, held);
}

static int lock_below(struct commit *c, uint32_t i, struct ter_node *above)
{
	struct ter_update *u = &c->trans->updates[i];
	struct ter_node *node;
	bool held;
	int r;

	r = ter_descend_below(above, u->level, u->pos, c->trans, &node, &held);
	return r < 0 ? r : locked(c, u, node, held);
}

/*
 * Update @first's node is waited for, but before it the nodes above it that are wanted, too, from the top down: going down from one that is held nobody waits for what is above
 * it. Were it the other way round, who waits for the lower one would in the meantime hold the upper one on his way down.
 */
static int lock_chain(struct commit *c, uint32_t first)
{
	struct ter_trans *trans = c->trans;
	struct ter_structure *st = trans->structure;
	struct ter_update *u = &trans->updates[first];
	struct ter_node *above = NULL;
	unsigned at;
	bool found;
	int r = 0;

	if (st && st->root && st->tree->id == u->btree) {
		r = ter_root_lock_write(st->tree, trans, false);
		c->root_locked = r == 0;
	}
	for (int level = TER_BTREE_DEPTH_MAX - 1; level > u->level && r == 0; level--) {
		at = ter_trans_find(trans, u->btree, (unsigned)level, u->pos, &found);
		if (at == trans->updates_nr || trans->updates[at].btree != u->btree || trans->updates[at].level != level)
			continue;
		if (!above)
			r = lock_one(c, at, false);
		else if (ter_node_covers(above, trans->updates[at].pos))
			r = lock_below(c, at, above);
		else
			continue;
		if (r == 0)
			above = trans->updates[at].node;
	}
	if (r < 0)
		return r;
	if (!above)
		return lock_one(c, first, false);
	return ter_node_covers(above, u->pos) ? lock_below(c, first, above) : -EDEADLK;
}

/* What was in the way is waited for. */
static int lock_first(struct commit *c)
{
	uint32_t first = c->first;
	bool chain = !c->no_chain;
	int r;

	c->first = FIRST_NONE;
	c->no_chain = false;
	if (first == FIRST_NONE)
		return 0;
	if (first == FIRST_ROOT) {
		r = ter_root_lock_write(c->trans->structure->tree, c->trans, false);
		c->root_locked = r == 0;
		return r;
	}
	if (!chain)
		return lock_one(c, first, false);
	r = lock_chain(c, first);
	if (r == -EDEADLK) { /* a node below is not in memory, or what was taken for being above is not: wait with nothing held */
		c->first = first;
		c->no_chain = true;
	}
	return r;
}

static int lock_all(struct commit *c)
{
	struct ter_trans *trans = c->trans;
	uint32_t first = c->first;
	struct ter_node *last = NULL, *waited;
	struct ter_update *u;
	int r;

	r = lock_first(c);
	if (r < 0)
		return r;
	waited = first < trans->updates_nr ? trans->updates[first].node : NULL;
	if (trans->structure && trans->structure->root && !c->root_locked) {
		r = ter_root_lock_write(trans->structure->tree, trans, true);
		if (r < 0) {
			c->first = FIRST_ROOT;
			return r;
		}
		c->root_locked = true;
	}
	for (uint32_t i = 0; i < trans->updates_nr; i++) {
		u = &trans->updates[i];
		if (!u->node && is_in(u, last))
			u->node = last;
		else if (!u->node && is_in(u, waited))
			u->node = waited;
		else if (!u->node) {
			r = lock_one(c, i, true);
			if (r < 0) {
				c->first = i;
				return r;
			}
		}
		last = u->node;
	}
	return 0;
}

/* T5 */
static int check_overflow(struct commit *c)
{
	struct ter_trans *trans = c->trans;
	struct ter_node *node;

	if (trans->flags & TER_TRANS_RECLAIM)
		return 0;
	for (uint32_t i = 0; i < trans->updates_nr; i++) {
		node = trans->updates[i].node;
		if (ter_likely(node->keys.used - node->keys.garbage <= c->bt->overflow_bytes))
			continue;
		ter_change_queue(node);
		if (trans->flags & TER_TRANS_NOWAIT)
			return -EAGAIN;
		ter_lock_acquire(&c->bt->cache_lock);
		c->wait_tree = node->tree;
		c->wait_change = node->tree->changes;
		ter_lock_release(&c->bt->cache_lock);
		return -EOVERFLOW;
	}
	return 0;
}

/* --- comparing --- */

static bool same_key(const struct ter_key_disk *a, const struct ter_key_disk *b)
{
	uint32_t whole = ter_key_whole_bytes(a);

	return whole == ter_key_whole_bytes(b) && !memcmp(a, b, whole);
}

/* The absolute values of counters, from those that are there. */
static int sum_counters(struct ter_update *u, const struct ter_key_disk *there)
{
	ter_le64 *val = (ter_le64 *)(u->key + 1);
	uint32_t nr = u->deltas_nr, there_nr = 0;
	uint64_t any = 0, moved = 0, sum;

	if (there) {
		there_nr = ter_le32_get(there->val_bytes) / 8;
		if (there->type != TER_KEY_COUNTERS || ter_le32_get(there->val_bytes) % 8 || there_nr > TER_COUNTERS_MAX)
			return -EUCLEAN;
		nr = ter_max(nr, there_nr);
	}
	for (uint32_t i = 0; i < nr; i++) {
		sum = i < there_nr ? ter_le64_get(((const ter_le64 *)(there + 1))[i]) : 0;
		if (i < u->deltas_nr) {
			sum += (uint64_t)u->deltas[i];
			moved |= (uint64_t)u->deltas[i];
		}
		val[i] = ter_le64_make(sum);
		any |= sum;
	}
	u->skip = !moved;
	*u->key = (struct ter_key_disk){
		.inode = ter_le64_make(u->pos.inode),
		.offset = ter_le64_make(u->pos.offset),
		.snapshot = ter_le32_make(u->pos.snapshot),
		.val_bytes = ter_le32_make(any ? nr * 8 : 0),
		.type = any ? TER_KEY_COUNTERS : TER_KEY_DELETED,
	};
	return 0;
}

static int compare_one(struct ter_update *u)
{
	const struct ter_keyset *keys = &u->node->keys;
	const struct ter_key_disk *there = NULL;
	int r;

	u->skip = u->kind == TER_UPDATE_LOCK;
	if (u->skip)
		return 0;
	u->idx = ter_keyset_lower(keys, u->pos);
	u->found = ter_keyset_is(keys, u->idx, u->pos);
	if (u->found && ter_keyset_live(keys, u->idx))
		there = ter_keyset_at(keys, u->idx);
	if (u->kind == TER_UPDATE_ADD) {
		r = sum_counters(u, there);
		if (r < 0)
			return r;
	} else if (u->old_kind == TER_OLD_ABSENT ? there != NULL : u->old_kind == TER_OLD_KEY && (!there || !same_key(there, u->old))) {
		return -ERESTART;
	}
	u->skip |= u->key->type == TER_KEY_DELETED && !there;
	return 0;
}

static int compare_all(struct commit *c)
{
	struct ter_trans *trans = c->trans;
	int r;

	c->journal_bytes = 0;
	for (uint32_t i = 0; i < trans->updates_nr; i++) {
		r = compare_one(&trans->updates[i]);
		if (r < 0)
			return r;
		if (!trans->updates[i].skip)
			c->journal_bytes += ter_jrec_bytes(ter_key_whole_bytes(trans->updates[i].key));
	}
	for (const struct ter_trans_log *log = trans->logs; log; log = log->next)
		c->journal_bytes += ter_jrec_bytes(log->bytes);
	return 0;
}

/* Memory for what will be put, so that nothing can fail later. */
static int reserve_memory(struct commit *c)
{
	struct ter_trans *trans = c->trans;
	struct ter_update *u, *end = trans->updates_nr ? trans->updates + trans->updates_nr : NULL; /* only records for the journal: no updates */
	uint32_t nr, bytes, whole;
	struct ter_node *node;
	int r;

	for (u = trans->updates; u < end;) {
		node = u->node;
		nr = bytes = 0;
		for (; u < end && u->node == node; u++) {
			if (u->skip || u->key->type == TER_KEY_DELETED)
				continue;
			whole = ter_key_whole_bytes(u->key);
			nr += !u->found;
			if (!u->found || ter_key_whole_bytes(ter_keyset_at(&node->keys, u->idx)) != whole)
				bytes += whole;
		}
		r = ter_keyset_reserve(&node->keys, nr, bytes);
		if (r < 0)
			return r;
	}
	return trans->structure ? ter_structure_reserve(trans->structure, trans) : 0;
}

/* --- changing --- */

static void write_records(struct commit *c, struct ter_journal_res *res)
{
	struct ter_trans *trans = c->trans;
	uint8_t *at;

	for (uint32_t i = 0; i < trans->updates_nr; i++) {
		const struct ter_update *u = &trans->updates[i];
		uint32_t whole;

		if (u->skip)
			continue;
		whole = ter_key_whole_bytes(u->key);
		memcpy(ter_journal_add(res, TER_JREC_KEY, u->btree, u->level, whole), u->key, whole);
	}
	for (const struct ter_trans_log *log = trans->logs; log; log = log->next) {
		if (log->type == TER_JREC_DATA)
			ter_journal_mark_data(res);
		at = ter_journal_add(res, log->type, log->btree, log->level, log->bytes);
		for (unsigned n = 0; n < log->iov_nr; n++) {
			if (log->iov[n].iov_len)
				memcpy(at, log->iov[n].iov_base, log->iov[n].iov_len);
			at += log->iov[n].iov_len;
		}
	}
}

static void apply(struct commit *c, uint64_t seq)
{
	struct ter_trans *trans = c->trans;
	struct ter_node *node = NULL;
	uint32_t shift = 0;

	for (uint32_t i = 0; i < trans->updates_nr; i++) {
		struct ter_update *u = &trans->updates[i];

		if (u->node != node)
			shift = 0;
		node = u->node;
		if (u->skip)
			continue;
		/* Earlier updates of this node moved what lies behind them. */
		if (u->key->type == TER_KEY_DELETED) {
			shift -= ter_keyset_remove(&node->keys, u->idx + shift);
		} else {
			ter_keyset_put(&node->keys, u->idx + shift, u->found, u->key);
			shift += !u->found;
		}
		ter_node_set_dirty(node, seq);
		if (u->kind == TER_UPDATE_ADD && c->bt->config.on_counters)
			c->bt->config.on_counters(c->bt->config.on_arg, u->pos, u->deltas, u->deltas_nr);
	}
}

/* Nodes that ought to be split or merged are noted while they are locked. */
static bool look_after(struct commit *c)
{
	struct ter_trans *trans = c->trans;
	bool any = false;

	for (uint32_t i = 0; i < trans->updates_nr; i++) {
		struct ter_node *node = trans->updates[i].node;

		if (!trans->updates[i].locked)
			continue;
		ter_cache_account(node);
		if (!node->dead && ter_node_wants_change(node)) {
			ter_change_queue(node);
			any = true;
		}
	}
	return any;
}

static unsigned journal_flags(const struct ter_trans *trans)
{
	return (trans->flags & TER_TRANS_RECLAIM ? TER_JOURNAL_RECLAIM : 0) | (trans->structure && trans->structure->root ? TER_JOURNAL_ROOTS : 0);
}

/* All or nothing. -EDEADLK: again, c->first says what to wait for. -ENOBUFS: the journal has no room now. */
static int commit_once(struct commit *c, bool *ret_look)
{
	struct ter_trans *trans = c->trans;
	struct ter_journal_res res;
	int r;

	r = lock_all(c);
	if (r < 0)
		return r;
	r = check_overflow(c);
	if (r < 0)
		return r;
	r = compare_all(c);
	if (r < 0)
		return r;
	r = reserve_memory(c);
	if (r < 0)
		return r;
	r = ter_journal_reserve(c->bt->journal, c->journal_bytes, journal_flags(trans) | TER_JOURNAL_NOWAIT, &res);
	if (r < 0)
		return r == -EAGAIN ? -ENOBUFS : r;

	/* From here on nothing fails. */
	trans->seq = res.seq;
	write_records(c, &res);
	if (trans->structure)
		ter_structure_unlink(trans->structure);
	apply(c, res.seq);
	if (trans->structure)
		ter_structure_switch(trans->structure, res.seq);
	if (trans->on_commit)
		trans->on_commit(trans->on_commit_arg, c->bt->journal, res.seq);
	ter_journal_put(&res);
	*ret_look = look_after(c);
	return 0;
}

/* --- waiting --- */

/* T5: until a structure change was tried in that btree. */
static int wait_change(struct commit *c)
{
	struct ter_btrees *bt = c->bt;
	struct ter_btree *tree = c->wait_tree;
	int r;

	ter_lock_acquire(&bt->cache_lock);
	while (bt->started && tree->changes == c->wait_change)
		ter_waitq_wait(&bt->claim_wq, &bt->cache_lock);
	r = tree->changes != c->wait_change ? tree->change_result : 1;
	ter_lock_release(&bt->cache_lock);
	if (r == 1) { /* no tasks run: it is up to us */
		ter_change_run_pending(bt);
		ter_lock_acquire(&bt->cache_lock);
		r = tree->change_result;
		ter_lock_release(&bt->cache_lock);
	}
	return ter_min(r, 0);
}

/* 0: try again. */
static int wait_for_cause(struct commit *c, int r)
{
	if (r == -EDEADLK)
		return 0;
	if (r == -EOVERFLOW)
		return wait_change(c);
	if (r != -ENOBUFS)
		return r;
	if (c->trans->flags & TER_TRANS_NOWAIT)
		return -EAGAIN;
	return ter_journal_wait_space(c->bt->journal, c->journal_bytes, journal_flags(c->trans));
}

static void finish(struct commit *c, bool look)
{
	struct ter_btrees *bt = c->bt;

	atomic_fetch_add_explicit(&bt->commits, 1, memory_order_relaxed);
	ter_writeback_wake(bt);
	if (ter_unlikely(look) && !bt->started && !(c->trans->flags & (TER_TRANS_NOWAIT | TER_TRANS_RECLAIM)))
		ter_change_run_pending(bt);
}

/* Means for those who had to begin again often. The turnstile is never held in a wait for the journal or for a structure change, which need commits of others. */
static int persist(struct commit *c, unsigned tries)
{
	if (tries == TRIES_BEFORE_NO_EVICT) {
		atomic_fetch_add(&c->bt->no_evict, 1);
		c->no_evict = true;
	}
	if (tries < TRIES_BEFORE_TURNSTILE)
		return 0;
	if (tries >= TRIES_OF_NOWAIT && (c->trans->flags & TER_TRANS_NOWAIT))
		return -EAGAIN;
	if (!(c->trans->flags & TER_TRANS_NOWAIT))
		ter_lock_acquire(&c->bt->turnstile);
	else if (!ter_lock_try(&c->bt->turnstile)) /* who has it may be reading a node */
		return -EAGAIN;
	c->in_turnstile = true;
	/* A lock may have been handed to a thread that has no processor yet. A try does not get it then, and trying again would only keep that thread from running. */
	if (tries >= TRIES_BEFORE_BACKOFF && (c->trans->flags & TER_TRANS_NOWAIT))
		c->bt->config.exec->ops->yield(c->bt->config.exec);
	else if (tries >= TRIES_BEFORE_BACKOFF)
		ter_sleep_ns(c->bt->config.exec, ter_min((uint64_t)(tries - TRIES_BEFORE_BACKOFF + 1) * BACKOFF_STEP_NS, BACKOFF_MAX_NS));
	return 0;
}

static void leave_turnstile(struct commit *c)
{
	if (c->in_turnstile)
		ter_lock_release(&c->bt->turnstile);
	c->in_turnstile = false;
}

int ter_trans_commit(struct ter_trans *trans)
{
	struct commit c = { .trans = trans, .bt = trans->bt, .first = FIRST_NONE };
	bool look = false;
	int r = -EROFS;

	if (!c.bt->journal)
		return -EROFS;
	if (!trans->updates_nr && !trans->logs) {
		trans->seq = ter_journal_open_seq(c.bt->journal);
		return ter_journal_error(c.bt->journal);
	}
	for (unsigned tries = 0; tries < TER_TRANS_RESTARTS_MAX; tries++) {
		r = persist(&c, tries);
		if (r < 0)
			break;
		r = commit_once(&c, &look);
		unlock_all(&c);
		leave_turnstile(&c);
		if (r == 0)
			break;
		r = wait_for_cause(&c, r);
		if (r < 0)
			break;
		r = -ERESTART;
	}
	if (c.no_evict)
		atomic_fetch_sub(&c.bt->no_evict, 1);
	if (r == 0)
		finish(&c, look);
	return r;
}

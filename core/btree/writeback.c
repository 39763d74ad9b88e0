/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tasks of the room: structure changes that were noticed, dirty nodes when there are too many, journal reclaim, and flushing everything. */
#include "btree/btree_priv.h"

/* --- structure changes --- */

/* cache_lock held */
static bool change_pop(struct ter_btrees *bt, struct ter_node_ref *ret_ref)
{
	struct ter_node *node;

	if (ter_list_empty(&bt->changes))
		return false;
	node = ter_list_first(&bt->changes, struct ter_node, change_link);
	ter_list_del(&node->change_link);
	*ret_ref = (struct ter_node_ref){ .tree = node->tree, .level = node->level, .pos = node->max };
	return true;
}

static void change_work(struct ter_work *work)
{
	struct ter_kick *kick = ter_container_of(work, struct ter_kick, work);
	struct ter_btrees *bt = kick->bt;
	struct ter_node_ref ref;

	ter_lock_acquire(&bt->cache_lock);
	while (!bt->stopping && change_pop(bt, &ref)) {
		ter_lock_release(&bt->cache_lock);
		ter_journal_begin_work(bt->journal);
		(void)ter_node_change(ref.tree, ref.level, ref.pos, 0); /* told to on_error, and to who waits for it */
		ter_journal_end_work(bt->journal);
		ter_lock_acquire(&bt->cache_lock);
	}
	kick->busy = false;
	ter_lock_release(&bt->cache_lock);
}

void ter_change_init(struct ter_btrees *bt)
{
	for (unsigned i = 0; i < TER_CHANGE_WORKERS; i++) {
		bt->kick[i].bt = bt;
		bt->kick[i].work.fn = change_work;
	}
}

static void kick_worker(struct ter_btrees *bt)
{
	for (unsigned i = 0; i < TER_CHANGE_WORKERS; i++) {
		if (bt->kick[i].busy)
			continue;
		bt->kick[i].busy = true;
		ter_workq_add(bt->change_wq, &bt->kick[i].work);
		return;
	}
}

void ter_change_queue(struct ter_node *node)
{
	struct ter_btrees *bt = node->tree->bt;

	ter_lock_acquire(&bt->cache_lock);
	if (!node->dead && ter_list_empty(&node->change_link)) {
		ter_list_add_tail(&bt->changes, &node->change_link);
		if (bt->started)
			kick_worker(bt);
	}
	ter_lock_release(&bt->cache_lock);
}

void ter_change_run_pending(struct ter_btrees *bt)
{
	struct ter_node_ref ref;
	bool some;

	if (!bt->journal || !bt->hooks.node_alloc)
		return;
	for (;;) {
		ter_lock_acquire(&bt->cache_lock);
		some = change_pop(bt, &ref);
		ter_lock_release(&bt->cache_lock);
		if (!some)
			return;
		(void)ter_node_change(ref.tree, ref.level, ref.pos, 0); /* as above */
	}
}

/* --- dirty nodes --- */

/* Up to a batch of dirty nodes with pins up to @seq, the oldest first. */
static unsigned collect(struct ter_btrees *bt, int level, uint64_t seq, struct ter_node_ref refs[TER_WRITE_BATCH_MAX])
{
	struct ter_node *node;
	unsigned nr = 0;

	ter_lock_acquire(&bt->cache_lock);
	ter_list_for_each(node, &bt->dirty, dirty_link) {
		if (nr == TER_WRITE_BATCH_MAX || (node->pinned && node->pin_seq > seq))
			break; /* T8: the list is in order */
		if (node->claimed || (level >= 0 && node->level != level))
			continue;
		refs[nr++] = (struct ter_node_ref){ .tree = node->tree, .level = node->level, .pos = node->max };
	}
	ter_lock_release(&bt->cache_lock);
	return nr;
}

/* Leaves first; their writes dirty parents, with newer pins. */
static int write_levels(struct ter_btrees *bt, uint64_t seq)
{
	struct ter_node_ref refs[TER_WRITE_BATCH_MAX];
	int r, done = 0;
	unsigned nr;

	for (int level = 0; level < TER_BTREE_DEPTH_MAX; level++)
		while ((nr = collect(bt, level, seq, refs)) > 0) {
			r = ter_node_write_batch(bt, refs, nr);
			if (r < 0)
				return r;
			done += r;
			if (r == 0)
				break; /* others have them */
		}
	return done;
}

/* cache_lock held. A node that holds a pin up to @seq; *ret_busy: someone is writing it. */
static bool any_pinned(struct ter_btrees *bt, uint64_t seq, bool *ret_busy)
{
	struct ter_node *node;

	ter_list_for_each(node, &bt->writing, write_link)
		if (ter_node_pinned_to(node, seq)) {
			*ret_busy = true;
			return true;
		}
	ter_list_for_each(node, &bt->dirty, dirty_link) {
		if (!ter_node_pinned_to(node, seq))
			continue;
		*ret_busy = node->claimed;
		return true;
	}
	return false;
}

/* The journal's reclaim: no pin up to @seq remains. */
static int reclaim(void *arg, uint64_t seq)
{
	struct ter_btrees *bt = arg;
	bool busy, some;
	int r;

	for (;;) {
		r = write_levels(bt, seq);
		if (r < 0)
			return r;
		ter_lock_acquire(&bt->cache_lock);
		some = any_pinned(bt, seq, &busy);
		if (some && busy)
			ter_waitq_wait(&bt->claim_wq, &bt->cache_lock);
		ter_lock_release(&bt->cache_lock);
		if (!some)
			return 0;
		r = ter_journal_error(bt->journal);
		if (r < 0)
			return r;
	}
}

int ter_btrees_flush(struct ter_btrees *bt)
{
	struct ter_workq *changes;
	int r;

	/* Structure changes that wait or are going on dirty nodes: they come first, so that a flush that finds nothing is the last word. */
	ter_lock_acquire(&bt->cache_lock);
	changes = bt->started ? bt->change_wq : NULL;
	ter_lock_release(&bt->cache_lock);
	if (changes)
		ter_workq_drain(changes);
	/* What is dirty now: writing nodes dirties others, which are the next call's. */
	r = write_levels(bt, bt->journal ? ter_journal_open_seq(bt->journal) : UINT64_MAX);
	if (r < 0)
		return r;
	ter_lock_acquire(&bt->cache_lock);
	while (!ter_list_empty(&bt->writing)) {
		r += !r; /* others were at it: not clean yet */
		ter_waitq_wait(&bt->claim_wq, &bt->cache_lock);
	}
	ter_lock_release(&bt->cache_lock);
	return r;
}

/* --- the write-back task --- */

static bool too_much_dirty(struct ter_btrees *bt)
{
	size_t dirty = atomic_load_explicit(&bt->dirty_bytes, memory_order_relaxed);

	return dirty > bt->config.cache_bytes / 2;
}

static bool too_much_cached(struct ter_btrees *bt)
{
	return atomic_load_explicit(&bt->cached_bytes, memory_order_relaxed) > bt->config.cache_bytes;
}

void ter_writeback_wake(struct ter_btrees *bt)
{
	if (ter_likely(!too_much_dirty(bt) && !too_much_cached(bt)))
		return;
	if (atomic_load_explicit(&bt->writer_asked, memory_order_relaxed) || atomic_exchange(&bt->writer_asked, true))
		return;
	ter_lock_acquire(&bt->cache_lock);
	ter_waitq_wake_all(&bt->writer_wq);
	ter_lock_release(&bt->cache_lock);
}

/* True: there is more to do. */
static bool write_some(struct ter_btrees *bt)
{
	struct ter_node_ref refs[TER_WRITE_BATCH_MAX];
	unsigned nr;
	int r = 0;

	ter_cache_evict(bt);
	if (!too_much_dirty(bt) && !(too_much_cached(bt) && atomic_load(&bt->dirty_nodes)))
		return false;
	nr = collect(bt, -1, UINT64_MAX, refs);
	if (nr) {
		ter_journal_begin_work(bt->journal);
		r = ter_node_write_batch(bt, refs, nr);
		ter_journal_end_work(bt->journal);
	}
	ter_cache_evict(bt);
	return r > 0;
}

static void writer_task(void *arg)
{
	struct ter_btrees *bt = arg;
	bool more = false;

	ter_lock_acquire(&bt->cache_lock);
	while (!bt->stopping) {
		if (!more && !atomic_load(&bt->writer_asked)) {
			ter_waitq_wait(&bt->writer_wq, &bt->cache_lock);
			continue;
		}
		atomic_store(&bt->writer_asked, false);
		ter_lock_release(&bt->cache_lock);
		more = write_some(bt);
		ter_lock_acquire(&bt->cache_lock);
	}
	ter_lock_release(&bt->cache_lock);
}

/* --- start and stop --- */

static int start_queues(struct ter_btrees *bt)
{
	int r;

	r = ter_workq_new(bt->config.exec, "btree-read", TER_READ_WORKERS, &bt->read_wq);
	if (r == 0)
		r = ter_workq_new(bt->config.exec, "btree-change", TER_CHANGE_WORKERS, &bt->change_wq);
	if (r == 0)
		r = bt->config.exec->ops->spawn(bt->config.exec, "btree-write", writer_task, bt, &bt->writer);
	return r;
}

static void end_queues(struct ter_btrees *bt)
{
	bt->config.exec->ops->join(bt->config.exec, bt->writer);
	bt->writer = NULL;
	ter_workq_free(bt->read_wq);
	ter_workq_free(bt->change_wq);
	bt->read_wq = bt->change_wq = NULL;
}

int ter_btrees_start(struct ter_btrees *bt)
{
	int r;

	if (!bt->journal)
		return -EINVAL;
	if (bt->registered != bt->journal) {
		r = ter_journal_register_reclaimer(bt->journal, "btree", reclaim, bt);
		if (r < 0)
			return r;
		bt->registered = bt->journal;
	}
	bt->stopping = false;
	r = start_queues(bt);
	if (r < 0) {
		ter_btrees_stop(bt);
		return r;
	}
	ter_lock_acquire(&bt->cache_lock);
	bt->started = true;
	if (!ter_list_empty(&bt->changes)) /* noticed during replay */
		kick_worker(bt);
	ter_lock_release(&bt->cache_lock);
	return 0;
}

void ter_btrees_stop(struct ter_btrees *bt)
{
	ter_lock_acquire(&bt->cache_lock);
	bt->started = false;
	bt->stopping = true;
	ter_waitq_wake_all(&bt->writer_wq);
	ter_waitq_wake_all(&bt->claim_wq);
	ter_lock_release(&bt->cache_lock);
	end_queues(bt);
	bt->stopping = false;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty segments: writing into them, and taking ranges out
 *
 * A write is planned first (which segments it overwrites, grows or makes; buffers and space for that are taken), then applied; so it happens whole or not at all. New
 * buffers are aligned to their size in the file, each next one of a stream twice as large as the one before: no buffer crosses a block, and streams end up in
 * buffers of 1 MiB.
 */
#include "data/data_priv.h"

enum step_kind { STEP_OVER, STEP_GROW_END, STEP_GROW_START, STEP_NEW };

struct step {
	enum step_kind kind;
	struct ter_seg *seg;
	uint64_t to;
	uint32_t hint; /* NEW: a buffer at least this large, if there is */
};

struct cursor {
	const struct iovec *iov;
	unsigned nr;
	size_t skip;
};

struct write_plan {
	uint64_t from, to;
	struct ter_seg *fresh; /* in order of offset, through ->next */
	uint64_t sectors;      /* more to reserve */
	uint8_t replicas;
	uint64_t frees;        /* data->frees when memory ran out */
};

uint32_t ter_seg_span_sectors(const struct ter_data *data, const struct ter_seg *seg)
{
	return (uint32_t)((ter_file_block_up(data, seg->end) - ter_file_block_down(data, seg->start)) >> TER_SECTOR_SHIFT);
}

static uint32_t span_sectors(const struct ter_data *data, uint64_t from, uint64_t to)
{
	return (uint32_t)((ter_file_block_up(data, to) - ter_file_block_down(data, from)) >> TER_SECTOR_SHIFT);
}

void ter_seg_mark_new(struct ter_seg *seg, uint64_t from, uint64_t to)
{
	struct ter_file *file = seg->file;

	if (seg->new_from == seg->new_to) {
		seg->new_from = from;
		seg->new_to = to;
		ter_list_add_tail(&file->unsynced, &seg->new_link);
		file->unsynced_bytes += to - from;
		return;
	}
	from = ter_min(from, seg->new_from);
	to = ter_max(to, seg->new_to);
	file->unsynced_bytes += (to - from) - (seg->new_to - seg->new_from);
	seg->new_from = from;
	seg->new_to = to;
}

void ter_seg_clear_new(struct ter_seg *seg)
{
	seg->file->unsynced_bytes -= seg->new_to - seg->new_from;
	seg->new_from = seg->new_to = 0;
	ter_list_del(&seg->new_link);
}

/* Keep the new bytes of a segment in [start, end). */
static void clip_new(struct ter_seg *seg)
{
	uint64_t from = ter_max(seg->new_from, seg->start), to = ter_min(seg->new_to, seg->end);

	if (seg->new_from == seg->new_to)
		return;
	ter_seg_clear_new(seg);
	if (from < to)
		ter_seg_mark_new(seg, from, to);
}

/* --- writing --- */

static struct step step_at(struct ter_file *file, uint64_t pos, uint64_t to, uint8_t replicas)
{
	struct ter_seg *x = ter_segtree_first(file->segs, pos), *p;
	uint64_t gap_end;
	bool touches;

	if (x && x->start <= pos)
		return (struct step){ .kind = STEP_OVER, .seg = x, .to = ter_min(x->end, to) };
	gap_end = x ? ter_min(x->start, to) : to;
	p = ter_segtree_prev(file->segs, pos);
	touches = p && p->end == pos;
	if (touches && pos < p->base + p->cap && !p->shared && p->replicas == replicas)
		return (struct step){ .kind = STEP_GROW_END, .seg = p, .to = ter_min(gap_end, p->base + p->cap) };
	if (x && x->start == gap_end && x->base <= pos && !x->shared && x->replicas == replicas)
		return (struct step){ .kind = STEP_GROW_START, .seg = x, .to = gap_end };
	return (struct step){ .kind = STEP_NEW, .to = gap_end, .hint = touches ? p->cap * 2 : 0 };
}

static unsigned order_for(uint64_t base, uint64_t bytes)
{
	unsigned order = 0;
	uint64_t pages = (bytes + TER_PAGE_BYTES - 1) >> TER_PAGE_SHIFT;

	if (pages > 1)
		order = ter_log2(pages - 1) + 1;
	if (base)
		order = ter_min(order, (unsigned)__builtin_ctzll(base) - TER_PAGE_SHIFT);
	return ter_min(order, TER_BUF_ORDERS - 1u);
}

/* A segment with a buffer for the front of [pos, to). */
static struct ter_seg *seg_new(struct ter_data *data, struct ter_file *file, uint64_t pos, uint64_t to, uint32_t hint)
{
	uint64_t base = ter_round_down(pos, TER_PAGE_BYTES);
	unsigned order = order_for(base, ter_max(to - base, (uint64_t)hint));
	struct ter_seg *seg;

	ter_lock_acquire(&data->lock);
	seg = ter_pool_seg_get(&data->pool);
	if (seg) {
		seg->page = ter_pool_get(&data->pool, order, &order);
		if (seg->page == TER_PAGE_NONE) {
			ter_pool_seg_put(&data->pool, seg);
			seg = NULL;
		} else {
			seg->gen = data->gen + 1;
		}
	}
	/* Half of it used: write-back begins. */
	if (data->idle_tasks && data->pool.free_pages < data->pool.pages_nr / 2)
		ter_waitq_wake_one(&data->wb_wq);
	ter_lock_release(&data->lock);
	if (!seg)
		return NULL;
	seg->file = file;
	seg->base = base;
	seg->cap = TER_PAGE_BYTES << order;
	seg->mem = data->pool.mem + ((size_t)seg->page << TER_PAGE_SHIFT);
	seg->start = pos;
	seg->end = ter_min(to, base + seg->cap);
	return seg;
}

/* What step_at() says of each position is the same now and when the plan is carried out: the lock is held all the while. */
static int plan_write(struct ter_data *data, struct ter_file *file, struct write_plan *plan)
{
	struct ter_seg **tail = &plan->fresh;
	uint64_t pos = plan->from;
	uint32_t hint = 0;

	plan->frees = __atomic_load_n(&data->frees, __ATOMIC_ACQUIRE);
	while (pos < plan->to) {
		struct step step = step_at(file, pos, plan->to, plan->replicas);
		struct ter_seg *seg = step.seg;

		if (step.kind == STEP_NEW) {
			seg = seg_new(data, file, pos, step.to, ter_max(step.hint, hint));
			if (!seg)
				return -EAGAIN;
			*tail = seg;
			tail = &seg->next;
			step.to = seg->end;
			plan->sectors += span_sectors(data, seg->start, seg->end);
			hint = seg->cap * 2;
		} else if (step.kind != STEP_OVER) {
			uint32_t span = span_sectors(data, ter_min(pos, seg->start), ter_max(step.to, seg->end));

			plan->sectors += span > seg->reserved_sectors ? span - seg->reserved_sectors : 0;
			hint = seg->cap * 2;
		}
		pos = step.to;
	}
	return 0;
}

static void copy_in(struct cursor *cursor, uint8_t *dst, size_t bytes)
{
	if (!cursor->iov) {
		memset(dst, 0, bytes);
		return;
	}
	while (bytes) {
		size_t n = ter_min(cursor->iov->iov_len - cursor->skip, bytes);

		if (n)
			memcpy(dst, (const uint8_t *)cursor->iov->iov_base + cursor->skip, n);
		dst += n;
		bytes -= n;
		cursor->skip += n;
		if (cursor->skip == cursor->iov->iov_len) {
			cursor->iov++;
			cursor->nr--;
			cursor->skip = 0;
		}
	}
}

static void take_reservation(struct ter_data *data, struct ter_seg *seg, struct write_plan *plan)
{
	uint32_t span = ter_seg_span_sectors(data, seg);
	uint32_t more = span > seg->reserved_sectors ? span - seg->reserved_sectors : 0;

	more = (uint32_t)ter_min((uint64_t)more, plan->sectors);
	seg->reserved_sectors += more;
	plan->sectors -= more;
}

static void apply_write(struct ter_data *data, struct ter_file *file, struct write_plan *plan, struct cursor *cursor)
{
	uint64_t pos = plan->from, more = 0;

	while (pos < plan->to) {
		struct step step = step_at(file, pos, plan->to, plan->replicas);
		struct ter_seg *seg = step.seg;

		if (step.kind == STEP_NEW) {
			seg = plan->fresh;
			assert(seg && seg->start == pos);
			plan->fresh = seg->next;
			seg->next = NULL;
			seg->replicas = plan->replicas;
			ter_segtree_insert(&file->segs, seg);
			step.to = seg->end;
			more += seg->end - seg->start;
		} else if (step.kind != STEP_OVER) {
			more += step.to - pos;
			seg->start = ter_min(seg->start, pos);
			seg->end = ter_max(seg->end, step.to);
		}
		if (step.kind != STEP_OVER)
			take_reservation(data, seg, plan);
		copy_in(cursor, seg->mem + (pos - seg->base), step.to - pos);
		ter_seg_mark_new(seg, pos, step.to);
		pos = step.to;
	}
	file->dirty_bytes += more;
	if (more)
		atomic_fetch_add_explicit(&data->dirty_bytes, more, memory_order_relaxed);
}

/*
 * Whoever is refused because so much could not be written has that tried again, now and then: who owns what failed may never call a sync, and the cause (a full disk under a
 * file) may be gone. data->lock is held.
 */
static void try_failed_again(struct ter_data *data)
{
	const uint64_t now = ter_mono_ns(data->exec), gen = ++data->gen;
	struct ter_file *file;

	if (now < data->failed_retry_ns)
		return;
	data->failed_retry_ns = now + TER_FAILED_RETRY_NS;
	ter_list_for_each(file, &data->all, all_link) {
		file->wanted_gen = ter_max(file->wanted_gen, gen);
		ter_file_list_(data, file, TER_LIST_WANTED); /* who takes from it finds out whether there is anything */
	}
}

/* Until something became free since the plan was given up. */
static int wait_for_memory(struct ter_data *data, uint64_t frees)
{
	int r = 0;

	ter_lock_acquire(&data->lock);
	data->space_waiters++;
	ter_waitq_wake_all(&data->wb_wq);
	for (;;) {
		/* What can never be written back is not waited for (D8). Looked at first: writers who give up their plans wake each other without end. */
		if (!data->started || data->stopping)
			r = -EBUSY;
		else if (data->failed_bytes >= (uint64_t)data->pool.pages_nr * TER_PAGE_BYTES / 2)
			r = -EIO;
		if (r == -EIO)
			try_failed_again(data);
		if (r < 0 || data->frees != frees)
			break;
		ter_waitq_wait(&data->space_wq, &data->lock);
	}
	data->space_waiters--;
	ter_lock_release(&data->lock);
	return r;
}

/* @budget: sectors reserved beforehand, NULL: reserve here. */
static int write_part(struct ter_data *data, struct ter_file *file, struct cursor *cursor, uint64_t from, uint64_t to, unsigned flags, uint8_t replicas,
		      uint64_t *budget)
{
	struct write_plan plan = { .from = from, .to = to, .replicas = replicas };
	bool gone, settled;
	int r;

	for (;;) {
		plan.sectors = 0;
		ter_lock_acquire(&file->lock);
		r = plan_write(data, file, &plan);
		if (r >= 0)
			break;
		ter_lock_release(&file->lock);
		plan.frees += plan.fresh != NULL; /* what this plan gives back is not what it waits for */
		ter_segs_free(data, TAKE_PTR(plan.fresh));
		if (flags & TER_WRITE_NOWAIT)
			return -EAGAIN;
		r = wait_for_memory(data, plan.frees);
		if (r < 0)
			return r;
	}
	if (budget) {
		plan.sectors = ter_min(plan.sectors, *budget);
		*budget -= plan.sectors;
	} else if (plan.sectors) {
		r = ter_alloc_reserve(data->config.alloc, plan.sectors, replicas);
		if (r < 0 && !(flags & TER_WRITE_FORCE)) {
			ter_lock_release(&file->lock);
			ter_segs_free(data, TAKE_PTR(plan.fresh));
			return r;
		}
		if (r < 0)
			plan.sectors = 0;
	}
	apply_write(data, file, &plan, cursor);
	if (!(flags & TER_WRITE_NO_SIZE))
		file->size = ter_max(file->size, to); /* before anybody may take the segments: their commit stages the size */
	settled = file->has_segs && (atomic_load_explicit(&file->dirty_list, memory_order_relaxed) == TER_LIST_UNSYNCED ||
				     atomic_load_explicit(&file->dirty_list, memory_order_relaxed) == TER_LIST_WANTED);
	gone = settled ? false : ter_file_account(data, file);
	assert(!gone);
	if (file->unsynced_bytes >= TER_STREAM_BYTES)
		ter_writeback_stream(data, file);
	ter_lock_release(&file->lock);
	if (plan.sectors) /* neighbours shared a block */
		ter_alloc_unreserve(data->config.alloc, plan.sectors, replicas);
	return 0;
}

int ter_file_write_(struct ter_data *data, struct ter_file *file, uint64_t offset, const struct iovec *iov, unsigned iov_nr, size_t bytes, unsigned flags)
{
	struct cursor cursor = { .iov = iov, .nr = iov_nr };
	uint64_t part_max = ter_round_down((uint64_t)data->pool.pages_nr * TER_PAGE_BYTES / 4, TER_PAGE_BYTES), budget;
	uint8_t replicas = ter_data_opt(data, data_replicas);
	uint64_t pos = offset, end = offset + bytes;
	int r;

	if (bytes <= part_max || (flags & TER_WRITE_NOWAIT)) {
		r = write_part(data, file, &cursor, pos, end, flags, replicas, NULL);
		if (r != -ENOSPC)
			return r;
	} else {
		/* More than may be dirty at once: in parts, whose space is reserved before the first is copied. */
		budget = span_sectors(data, offset, end) + (bytes / part_max + 1) * data->block_sectors;
		r = ter_alloc_reserve(data->config.alloc, budget, replicas);
	}
	if (r == -ENOSPC && atomic_load(&data->promised_sectors)) {
		if (flags & TER_WRITE_NOWAIT)
			return -EAGAIN;
		r = ter_file_draw_promise_(data, file, offset, end, replicas, span_sectors(data, offset, end), &budget);
	}
	if (r < 0)
		return r;
	while (r >= 0 && pos < end) {
		uint64_t to = ter_min(end, ter_round_down(pos + part_max, TER_PAGE_BYTES));

		r = write_part(data, file, &cursor, pos, to, flags, replicas, &budget);
		pos = to;
	}
	if (budget)
		ter_alloc_unreserve(data->config.alloc, budget, replicas);
	return r;
}

int ter_file_write(struct ter_data *data, struct ter_file *file, uint64_t offset, const struct iovec *iov, unsigned iov_nr, bool nowait)
{
	struct ter_journal *journal = ter_data_journal(data);
	size_t bytes = 0;
	int r;

	for (unsigned i = 0; i < iov_nr; i++)
		bytes += iov[i].iov_len;
	if (!bytes)
		return 0;
	if (!journal || ter_journal_error(journal) < 0)
		return -EROFS;
	ter_file_hold(file);
	r = ter_file_write_(data, file, offset, iov, iov_nr, bytes, nowait ? TER_WRITE_NOWAIT : 0);
	ter_file_release(file);
	return r;
}

/* --- taking out --- */

/* Segments of `wb` keep which of their bytes are new, but stand in no list and are not counted (batch.c). */
static void split_new(struct ter_seg *seg, struct ter_seg *right, uint64_t new_from, uint64_t new_to)
{
	if (new_from == new_to)
		return;
	if (!seg->failed) {
		clip_new(seg);
		if (new_to > right->start)
			ter_seg_mark_new(right, ter_max(new_from, right->start), new_to);
		return;
	}
	right->new_from = ter_max(new_from, right->start);
	right->new_to = ter_max(new_to, right->start);
	seg->new_from = ter_min(new_from, seg->end);
	seg->new_to = ter_min(new_to, seg->end);
	seg->file->wb_unsynced_nr += (right->new_from < right->new_to) + (seg->new_from < seg->new_to) - 1;
}

static struct ter_seg *split_heap(struct ter_data *data, struct ter_seg *seg)
{
	struct ter_seg *right = ter_new(struct ter_seg);

	if (!right)
		return NULL;
	right->heap = true;
	ter_list_init(&right->new_link);
	ter_list_init(&right->pin_link);
	ter_lock_acquire(&data->lock);
	if (seg->loose)
		seg->loose->refs++;
	else
		ter_pool_ref(&data->pool, seg->page);
	ter_lock_release(&data->lock);
	return right;
}

/* The part of @seg from @at on becomes a segment of its own in the same buffer. NULL: no free segment. */
static struct ter_seg *split(struct ter_data *data, struct ter_seg **root, struct ter_seg *seg, uint64_t at)
{
	struct ter_seg *right;
	uint64_t new_from = seg->new_from, new_to = seg->new_to;
	uint32_t reserved = seg->reserved_sectors;

	ter_lock_acquire(&data->lock);
	right = ter_pool_seg_get(&data->pool);
	if (right && seg->loose)
		seg->loose->refs++;
	else if (right)
		ter_pool_ref(&data->pool, seg->page);
	if (right && seg->failed)
		data->failed_bytes += seg->cap;
	ter_lock_release(&data->lock);
	if (!right && !data->started) /* replay: there is no bound but the journal's size */
		right = split_heap(data, seg);
	if (!right)
		return NULL;
	right->file = seg->file;
	right->page = seg->page;
	right->loose = seg->loose;
	right->mem = seg->mem;
	right->base = seg->base;
	right->cap = seg->cap;
	right->replicas = seg->replicas;
	right->gen = seg->gen;
	right->seq = seg->seq;
	right->failed = seg->failed;
	seg->shared = right->shared = true;
	right->start = at;
	right->end = seg->end;
	seg->end = at;
	if (seg->failed)
		seg->file->wb_failed_nr++;
	split_new(seg, right, new_from, new_to);
	seg->reserved_sectors = ter_min(reserved, ter_seg_span_sectors(data, seg));
	right->reserved_sectors = reserved - seg->reserved_sectors;
	if (seg->pin_seq)
		ter_seg_set_pin(data, right, seg->pin_seq, false);
	ter_segtree_insert(root, right);
	return right;
}

static void uncount(struct ter_data *data, struct ter_file *file, uint64_t bytes)
{
	file->dirty_bytes -= bytes;
	atomic_fetch_sub_explicit(&data->dirty_bytes, bytes, memory_order_relaxed);
}

int ter_segs_cut(struct ter_data *data, struct ter_file *file, struct ter_seg **root, uint64_t from, uint64_t to, uint64_t upto, struct ter_seg **dropped)
{
	struct ter_seg *seg, *next;

	if (from >= to)
		return 0;
	for (seg = ter_segtree_first(*root, from); seg && seg->start < to; seg = next) {
		next = ter_segtree_next(*root, seg);
		if (seg->in_flight || seg->seq > upto)
			continue;
		if (seg->start < from) {
			seg = split(data, root, seg, from);
			if (!seg)
				return -EAGAIN;
		}
		if (seg->end > to && !split(data, root, seg, to))
			return -EAGAIN;
		if (seg->new_from < seg->new_to && !seg->failed)
			ter_seg_clear_new(seg);
		if (seg->failed) {
			file->wb_failed_nr--;
			file->wb_unsynced_nr -= seg->new_from < seg->new_to;
		}
		ter_segtree_remove(root, seg);
		uncount(data, file, seg->end - seg->start);
		seg->next = *dropped;
		*dropped = seg;
	}
	return 0;
}

void ter_segs_trim(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, struct ter_seg **dropped)
{
	struct ter_seg *seg, *next;

	for (seg = ter_segtree_first(file->segs, from); seg && seg->start < to; seg = next) {
		next = ter_segtree_next(file->segs, seg);
		if (seg->start >= from && seg->end <= to) {
			(void)ter_segs_cut(data, file, &file->segs, seg->start, seg->end, UINT64_MAX, dropped); /* as a whole: cannot fail */
			continue;
		}
		assert(seg->start >= from || seg->end <= to);
		ter_segtree_remove(&file->segs, seg);
		if (seg->start < from) {
			uncount(data, file, seg->end - from);
			seg->end = from;
		} else {
			uncount(data, file, to - seg->start);
			seg->start = to;
		}
		clip_new(seg);
		ter_segtree_insert(&file->segs, seg);
	}
}

void ter_segs_put_back(struct ter_data *data, struct ter_file *file, struct ter_seg *list)
{
	struct ter_seg *next;

	for (struct ter_seg *seg = list; seg; seg = next) {
		next = seg->next;
		seg->next = NULL;
		if (seg->failed) {
			file->wb_failed_nr++;
			file->wb_unsynced_nr += seg->new_from < seg->new_to;
			ter_segtree_insert(&file->wb, seg);
		} else {
			ter_segtree_insert(&file->segs, seg);
			ter_seg_mark_new(seg, seg->start, seg->end); /* what of it was new is not known any more */
		}
		file->dirty_bytes += seg->end - seg->start;
		atomic_fetch_add_explicit(&data->dirty_bytes, seg->end - seg->start, memory_order_relaxed);
	}
}

void ter_segs_free(struct ter_data *data, struct ter_seg *list)
{
	struct ter_journal *journal = ter_data_journal(data);
	struct ter_seg *next, *seg;

	for (seg = list; seg; seg = seg->next) {
		if (seg->pin_seq && data->started)
			ter_journal_unpin(journal, seg->pin_seq);
		if (seg->reserved_sectors)
			ter_alloc_unreserve(data->config.alloc, seg->reserved_sectors, seg->replicas);
	}
	if (!list)
		return;
	ter_lock_acquire(&data->lock);
	for (seg = list; seg; seg = next) {
		next = seg->next;
		ter_list_del(&seg->pin_link);
		if (seg->failed)
			data->failed_bytes -= seg->cap;
		if (!seg->loose)
			(void)ter_pool_put(&data->pool, seg->page);
		else if (--seg->loose->refs == 0) {
			free(seg->loose->mem);
			free(seg->loose);
		}
		ter_pool_seg_put(&data->pool, seg);
	}
	__atomic_store_n(&data->frees, data->frees + 1, __ATOMIC_RELEASE);
	if (data->space_waiters)
		ter_waitq_wake_all(&data->space_wq);
	ter_lock_release(&data->lock);
}

void ter_seg_set_pin(struct ter_data *data, struct ter_seg *seg, uint64_t seq, bool whole)
{
	struct ter_journal *journal = ter_data_journal(data);
	struct ter_list *at;
	uint64_t old = seg->pin_seq;

	seg->seq = ter_max(seg->seq, seq);
	if (old && !whole)
		return; /* the oldest pin keeps all newer entries, too */
	if (data->started)
		ter_journal_pin(journal, seq);
	ter_lock_acquire(&data->lock);
	ter_list_del(&seg->pin_link);
	for (at = data->pinned.prev; at != &data->pinned; at = at->prev)
		if (ter_list_entry(at, struct ter_seg, pin_link)->pin_seq <= seq)
			break;
	seg->pin_seq = seq;
	ter_list_add(at, &seg->pin_link);
	ter_lock_release(&data->lock);
	if (old && data->started)
		ter_journal_unpin(journal, old);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The allocator's life, and giving out space: choice of members, watermarks, waiting for discards. */
#include "alloc/alloc.h"

#include "alloc/alloc_priv.h"

int ter_alloc_new(const struct ter_alloc_config *config, struct ter_alloc **ret_alloc)
{
	struct ter_alloc *alloc = ter_new(struct ter_alloc);

	if (!alloc)
		return -ENOMEM;
	alloc->exec = config->exec;
	alloc->sb = config->sb;
	alloc->members = config->members;
	alloc->btrees = config->btrees;
	atomic_store(&alloc->journal, config->journal);
	atomic_store(&alloc->cap_stale, true);
	ter_lock_init(&alloc->lock, TER_RANK_ALLOC);
	ter_waitq_init(&alloc->wq);
	ter_lock_init(&alloc->kick_lock, TER_RANK_LEAF);
	ter_waitq_init(&alloc->kick_wq);
	for (unsigned i = 0; i < TER_OPEN_BUCKETS_MAX; i++) {
		alloc->open_pool[i].next = alloc->open_unused;
		alloc->open_unused = &alloc->open_pool[i];
	}
	*ret_alloc = alloc;
	return 0;
}

void ter_alloc_free(struct ter_alloc *alloc)
{
	if (!alloc)
		return;
	ter_alloc_stop(alloc);
	ter_alloc_guard_free_(alloc);
	ter_waitq_destroy(&alloc->kick_wq);
	ter_lock_destroy(&alloc->kick_lock);
	ter_waitq_destroy(&alloc->wq);
	ter_lock_destroy(&alloc->lock);
	free(alloc);
}

void ter_alloc_set_journal(struct ter_alloc *alloc, struct ter_journal *journal)
{
	atomic_store(&alloc->journal, journal);
}

void ter_alloc_set_btrees(struct ter_alloc *alloc, struct ter_btrees *btrees)
{
	alloc->btrees = btrees;
}

int ter_alloc_start(struct ter_alloc *alloc)
{
	return ter_discard_start(alloc);
}

void ter_alloc_stop(struct ter_alloc *alloc)
{
	ter_discard_stop(alloc);
	ter_open_close_all(alloc);
}

uint64_t ter_alloc_reuse_epoch(struct ter_alloc *alloc)
{
	return atomic_load(&alloc->reuse_epoch);
}

/* --- choice of members --- */

enum room {
	ROOM_NONE,    /* not to be used, or not there */
	ROOM_FULL,    /* below the watermark, also when what is empty is discarded */
	ROOM_PENDING, /* there will be space when empty buckets are discarded */
	ROOM_YES,
};

/* One ter_alloc_get(): what it learned in earlier rounds. */
struct attempt {
	const struct ter_alloc_request *req;
	struct ter_wp *wp;
	uint64_t searched_devs; /* FREESPACE had nothing more */
	bool discard_futile;    /* nothing could be discarded */
	unsigned need_refill_dev;
	enum room room[TER_DEVS_MAX];
	int64_t weight[TER_DEVS_MAX]; /* sectors there are above the watermark, open buckets included */
	bool tight; /* what is promised leaves little choice of members */
};
#define GET_REFILL 1
#define GET_DISCARD 2

static uint32_t left(const struct ter_alloc *alloc, const struct ter_open_bucket *bucket)
{
	return bucket ? alloc->members->dev[bucket->dev].bucket_sectors - bucket->filled_sectors : 0;
}

/* The open bucket of this write point; for users, short of free buckets, of another one. */
static struct ter_open_bucket *open_with_room(struct ter_alloc *alloc, const struct attempt *at, unsigned dev_idx, bool any)
{
	struct ter_open_bucket *b = at->wp->open[dev_idx];

	if (left(alloc, b) >= at->req->sectors_min)
		return b;
	if (!any || at->req->write_point >= TER_WRITE_POINTS_USER)
		return NULL;
	for (unsigned i = 0; i < TER_WRITE_POINTS_USER; i++) {
		b = alloc->wp[i].open[dev_idx];
		if (left(alloc, b) >= at->req->sectors_min)
			return b;
	}
	return NULL;
}

/* Free buckets that must remain: now, and counting those to be discarded. */
static void watermark_lines(struct ter_alloc *alloc, const struct attempt *at, const struct ter_dev *dev, int64_t *ret_now, int64_t *ret_line)
{
	*ret_now = *ret_line = at->req->watermark == TER_WATERMARK_BTREE ? 0 : (int64_t)ter_reserve_nodes(dev);
	if (at->req->watermark == TER_WATERMARK_USER)
		*ret_line += (int64_t)ter_reserve_move(alloc, dev) / 2; /* promises end at the whole of it: reserve.c */
}

static enum room bucket_room(struct ter_alloc *alloc, const struct attempt *at, const struct ter_dev *dev)
{
	int64_t free_nr = ter_alloc_free_nr(alloc, dev->idx) - alloc->dev[dev->idx].unsettled_nr;
	int64_t pending = at->discard_futile ? 0 : ter_alloc_need_discard_nr(alloc, dev->idx);
	int64_t now_line, line;

	watermark_lines(alloc, at, dev, &now_line, &line);
	if (at->searched_devs >> dev->idx & 1 && !alloc->dev[dev->idx].batch_nr && !ter_open_set_aside(alloc, dev->idx))
		free_nr = 0;
	if (free_nr > now_line && free_nr + pending > line)
		return ROOM_YES;
	return pending > 0 && free_nr + pending > line ? ROOM_PENDING : ROOM_FULL;
}

static int64_t dev_weight(struct ter_alloc *alloc, const struct attempt *at, const struct ter_dev *dev)
{
	int64_t nr = ter_alloc_free_nr(alloc, dev->idx) - alloc->dev[dev->idx].unsettled_nr + ter_alloc_need_discard_nr(alloc, dev->idx), now_line, line;

	watermark_lines(alloc, at, dev, &now_line, &line);
	nr = ter_max(nr - line, (int64_t)0) * dev->bucket_sectors;
	if (at->req->write_point >= TER_WRITE_POINTS_USER || !at->tight)
		return nr + left(alloc, at->wp->open[dev->idx]);
	for (unsigned i = 0; i < TER_WRITE_POINTS_USER; i++)
		nr += left(alloc, alloc->wp[i].open[dev->idx]);
	return nr;
}

static void look_at_members(struct ter_alloc *alloc, struct attempt *at, unsigned *ret_present, bool *ret_pending)
{
	*ret_present = 0;
	*ret_pending = false;
	at->tight = ter_reserve_tight(alloc);
	for (unsigned i = 0; i < alloc->members->nr_slots; i++) {
		const struct ter_dev *dev = &alloc->members->dev[i];
		enum room room = ROOM_NONE;

		if (ter_alloc_dev_present(dev) && !(at->req->avoid_devs >> i & 1)) {
			++*ret_present;
			at->weight[i] = dev_weight(alloc, at, dev);
			room = bucket_room(alloc, at, dev);
			if (room != ROOM_YES && open_with_room(alloc, at, i, true))
				room = ROOM_YES;
			*ret_pending |= room == ROOM_PENDING;
		}
		at->room[i] = room;
	}
}

/* When it is tight the largest first: as long as demands can be met at all (reserve.c), they can be met after that too. Else by stride. */
static bool better(const struct attempt *at, unsigned a, unsigned b)
{
	if (at->tight && at->weight[a] != at->weight[b])
		return at->weight[a] > at->weight[b];
	return at->wp->stride[a] < at->wp->stride[b];
}

static bool sticky_usable(const struct attempt *at, unsigned nr)
{
	uint64_t devs = at->wp->sticky_devs;

	if (!at->wp->sticky_left_sectors || __builtin_popcountll(devs) != (int)nr)
		return false;
	for (; devs; devs &= devs - 1)
		if (at->room[__builtin_ctzll(devs)] != ROOM_YES)
			return false;
	return true;
}

/* @nr members; returns how many there are. */
static unsigned choose(const struct ter_alloc *alloc, struct attempt *at, unsigned nr, unsigned chosen[TER_REPLICAS_MAX])
{
	uint64_t devs = 0;
	unsigned got = 0;

	if (!at->tight && sticky_usable(at, nr)) {
		for (devs = at->wp->sticky_devs; devs; devs &= devs - 1)
			chosen[got++] = (unsigned)__builtin_ctzll(devs);
		return got;
	}
	for (; got < nr; got++) {
		int best = -1;

		for (unsigned i = 0; i < alloc->members->nr_slots; i++)
			if (at->room[i] == ROOM_YES && !(devs >> i & 1) && (best < 0 || better(at, i, (unsigned)best)))
				best = (int)i;
		if (best < 0)
			break;
		chosen[got] = (unsigned)best;
		devs |= 1ull << best;
	}
	if (got == nr) {
		at->wp->sticky_devs = devs;
		at->wp->sticky_left_sectors = ter_min(TER_STICKY_SECTORS, 4 * alloc->members->dev[chosen[0]].bucket_sectors);
	}
	return got;
}

/* B7: a member's counter advances by what it was given over what it has free. */
static uint64_t stride_step(const struct attempt *at, unsigned dev_idx, uint32_t sectors)
{
	return ((uint64_t)sectors << 32) / (uint64_t)ter_max(at->weight[dev_idx], (int64_t)1);
}

static void advance_strides(struct ter_alloc *alloc, struct attempt *at, const unsigned *chosen, unsigned nr, uint32_t sectors)
{
	uint64_t *stride = at->wp->stride, devs = 0, least = UINT64_MAX, most = 0, least_other = UINT64_MAX, lag = 0;

	for (unsigned i = 0; i < nr; i++) {
		devs |= 1ull << chosen[i];
		stride[chosen[i]] += stride_step(at, chosen[i], sectors);
	}
	at->wp->sticky_left_sectors -= ter_min(at->wp->sticky_left_sectors, sectors);
	for (unsigned i = 0; i < alloc->members->nr_slots; i++) {
		if (at->room[i] != ROOM_YES)
			continue;
		lag = ter_max(lag, 2 * stride_step(at, i, TER_STICKY_SECTORS));
		least = ter_min(least, stride[i]);
		most = ter_max(most, stride[i]);
		if (!(devs >> i & 1))
			least_other = ter_min(least_other, stride[i]);
	}
	/* Who is chosen every time anyway (copies need distinct members), or was away, must not save up turns: it is at most two turns of the smallest behind. */
	for (unsigned i = 0; i < nr; i++)
		if (least_other != UINT64_MAX && least_other > lag)
			stride[chosen[i]] = ter_max(stride[chosen[i]], least_other - lag);
	if (most >> 62)
		for (unsigned i = 0; i < TER_DEVS_MAX; i++)
			stride[i] -= ter_min(stride[i], least);
}

/* The bucket that serves member @dev_idx now, opened if need be. */
static int find_bucket(struct ter_alloc *alloc, struct attempt *at, unsigned dev_idx, struct ter_open_bucket **ret)
{
	bool may_open = bucket_room(alloc, at, &alloc->members->dev[dev_idx]) == ROOM_YES;
	struct ter_open_bucket *b = open_with_room(alloc, at, dev_idx, !may_open);
	int r;

	if (!b) {
		ter_open_close(alloc, at->wp, dev_idx);
		r = ter_open_next(alloc, at->wp, dev_idx, at->searched_devs >> dev_idx & 1);
		if (r == -ENODATA) {
			at->need_refill_dev = dev_idx;
			return GET_REFILL;
		}
		if (r < 0)
			return r;
		b = at->wp->open[dev_idx];
	}
	*ret = b;
	return 0;
}

static void close_if_full(struct ter_alloc *alloc, struct ter_open_bucket *bucket)
{
	if (left(alloc, bucket))
		return;
	for (unsigned i = 0; i < TER_WP_NR; i++)
		if (alloc->wp[i].open[bucket->dev] == bucket)
			ter_open_close(alloc, &alloc->wp[i], bucket->dev);
}

/* 0, GET_REFILL, GET_DISCARD, -EBUSY: too many open, -ENOSPC, -EROFS. Lock held. */
static int try_get(struct ter_alloc *alloc, struct attempt *at, struct ter_space *ret)
{
	const struct ter_alloc_request *req = at->req;
	const struct ter_alloc_guard *guard = atomic_load(&alloc->guard);
	unsigned present, nr, chosen[TER_REPLICAS_MAX];
	struct ter_space space = { .sectors = req->sectors_want };
	bool pending;
	int r;

	if (guard && !guard->open)
		return -EBUSY; /* a repair looks for what may be given out */
	look_at_members(alloc, at, &present, &pending);
	nr = ter_min(req->replicas, present);
	if (!present || nr < req->replicas_required)
		return -EROFS;
	/* A member that has space once its empty buckets are discarded must not be left out now: what it has could find no other for the second copy later. */
	if (pending && nr > 1 && !req->nowait)
		return GET_DISCARD;
	if (choose(alloc, at, nr, chosen) < nr)
		return pending ? GET_DISCARD : -ENOSPC;

	for (; space.nr < nr; space.nr++) {
		struct ter_open_bucket *b;

		r = find_bucket(alloc, at, chosen[space.nr], &b);
		if (r) {
			while (space.nr)
				ter_open_put(alloc, space.ptr[--space.nr].bucket);
			return r;
		}
		ter_open_get(b);
		space.ptr[space.nr].bucket = b;
		space.sectors = ter_min(space.sectors, left(alloc, b));
	}
	for (unsigned i = 0; i < nr; i++) {
		struct ter_open_bucket *b = space.ptr[i].bucket;

		space.ptr[i].dev = b->dev;
		space.ptr[i].gen = b->gen;
		space.ptr[i].sector = b->bucket * alloc->members->dev[b->dev].bucket_sectors + b->filled_sectors;
		b->filled_sectors += space.sectors;
		close_if_full(alloc, b);
	}
	advance_strides(alloc, at, chosen, nr, space.sectors);
	*ret = space;
	return 0;
}

/* Lock held; dropped meanwhile. */
static int discard_and_look_again(struct ter_alloc *alloc, struct attempt *at)
{
	int r;

	if (at->req->nowait) {
		ter_discard_kick(alloc, true);
		return -EAGAIN;
	}
	ter_lock_release(&alloc->lock);
	r = ter_discard_run(alloc);
	ter_lock_acquire(&alloc->lock);
	if (r < 0)
		return r;
	if (r > 0)
		at->searched_devs = 0;
	else
		at->discard_futile = true;
	return 0;
}

int ter_alloc_get(struct ter_alloc *alloc, const struct ter_alloc_request *request, struct ter_space *ret_space)
{
	struct attempt at = { .req = request, .wp = &alloc->wp[request->write_point] };
	int r = 0;

	assert(request->write_point < TER_WP_NR);
	assert(request->replicas && request->replicas <= TER_REPLICAS_MAX && request->replicas_required <= request->replicas);
	assert(request->sectors_min && request->sectors_min <= request->sectors_want);

	ter_lock_acquire(&alloc->lock);
	for (unsigned round = 0; round < TER_ALLOC_ROUNDS_MAX; round++) {
		r = try_get(alloc, &at, ret_space);
		if (r == GET_REFILL) {
			r = ter_open_refill(alloc, at.need_refill_dev, request->nowait);
			if (!r)
				at.searched_devs |= 1ull << at.need_refill_dev;
		} else if (r == GET_DISCARD) {
			r = discard_and_look_again(alloc, &at);
		} else if (r == -EBUSY) {
			/* Who writes puts its spaces when it is done. */
			if (request->nowait) {
				r = -EAGAIN;
				break;
			}
			ter_waitq_wait(&alloc->wq, &alloc->lock);
			r = 0;
		} else {
			break;
		}
		if (r < 0)
			break;
		r = -ENOSPC; /* others took what we found, again and again */
	}
	ter_lock_release(&alloc->lock);
	return r;
}

void ter_alloc_put(struct ter_alloc *alloc, struct ter_space *space)
{
	ter_lock_acquire(&alloc->lock);
	for (unsigned i = 0; i < space->nr; i++) {
		struct ter_open_bucket *b = TAKE_PTR(space->ptr[i].bucket);

		if (!b)
			continue;
		if (!b->settled) {
			b->settled = true;
			alloc->dev[b->dev].unsettled_nr--;
		}
		ter_open_put(alloc, b);
	}
	ter_lock_release(&alloc->lock);
	space->nr = 0;
}

void ter_space_replicas(const struct ter_space *space, enum ter_data_type type, unsigned nr_required, struct ter_replicas_entry *ret)
{
	struct ter_replicas_entry e = { .data_type = (uint8_t)type, .nr_devs = (uint8_t)space->nr };

	assert(space->nr && space->nr <= TER_REPLICAS_MAX && nr_required);
	e.nr_required = (uint8_t)ter_min(nr_required, space->nr);
	for (unsigned i = 0; i < space->nr; i++) {
		unsigned at = i;

		for (; at > 0 && e.devs[at - 1] > space->ptr[i].dev; at--)
			e.devs[at] = e.devs[at - 1];
		e.devs[at] = space->ptr[i].dev;
	}
	*ret = e;
}

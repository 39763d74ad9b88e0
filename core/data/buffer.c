/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the dirty buffer: a buddy allocator over the region, and segment structs
 *
 * A buffer is 4 KiB << order, aligned to its size within the region. One struct ter_page a page, set aside at start; no other allocation. The caller holds the pool lock.
 */
#include "data/data_priv.h"

static void list_add(struct ter_pool *pool, uint32_t p, unsigned order)
{
	struct ter_page *page = &pool->page[p];
	uint32_t first = pool->free[order];

	*page = (struct ter_page){ .next = first, .prev = TER_PAGE_NONE, .order = (uint8_t)order, .free = true };
	if (first != TER_PAGE_NONE)
		pool->page[first].prev = p;
	pool->free[order] = p;
}

static void list_del(struct ter_pool *pool, uint32_t p)
{
	struct ter_page *page = &pool->page[p];

	if (page->prev != TER_PAGE_NONE)
		pool->page[page->prev].next = page->next;
	else
		pool->free[page->order] = page->next;
	if (page->next != TER_PAGE_NONE)
		pool->page[page->next].prev = page->prev;
	page->free = false;
}

static void carve(struct ter_pool *pool)
{
	uint32_t p = 0;

	while (p < pool->pages_nr) {
		unsigned order = pool->order_max;

		while ((p & ((1u << order) - 1)) || p + (1u << order) > pool->pages_nr)
			order--;
		list_add(pool, p, order);
		p += 1u << order;
	}
	pool->free_pages = pool->pages_nr;
}

int ter_pool_init(struct ter_pool *pool, void *region, size_t bytes)
{
	size_t pages = bytes / TER_PAGE_BYTES;

	if (pages < 16 || pages >= TER_PAGE_NONE || (uintptr_t)region % TER_PAGE_BYTES)
		return -EINVAL;
	*pool = (struct ter_pool){ .mem = region, .pages_nr = (uint32_t)pages };
	for (unsigned i = 0; i < TER_BUF_ORDERS; i++)
		pool->free[i] = TER_PAGE_NONE;
	/* One buffer never is more than an eighth of the region, so that others get something, too. */
	pool->order_max = ter_min(TER_BUF_ORDERS - 1u, ter_log2(pages / 8));
	pool->segs_nr = pool->pages_nr + pool->pages_nr / 8 + 64;
	pool->page = ter_new_array(struct ter_page, pages);
	pool->segs = ter_new_array(struct ter_seg, pool->segs_nr);
	if (!pool->page || !pool->segs) {
		ter_pool_destroy(pool);
		return -ENOMEM;
	}
	carve(pool);
	pool->free_segs_nr = pool->segs_nr;
	return 0;
}

void ter_pool_destroy(struct ter_pool *pool)
{
	free(pool->page);
	free(pool->segs);
	pool->page = NULL;
	pool->segs = NULL;
}

static uint32_t take_from(struct ter_pool *pool, unsigned from, unsigned order)
{
	uint32_t p = pool->free[from];

	list_del(pool, p);
	while (from > order) {
		from--;
		list_add(pool, p + (1u << from), from);
	}
	pool->page[p] = (struct ter_page){ .refs = 1, .order = (uint8_t)order };
	pool->free_pages -= 1u << order;
	return p;
}

uint32_t ter_pool_get(struct ter_pool *pool, unsigned order, unsigned *ret_order)
{
	order = ter_min(order, pool->order_max);
	for (unsigned from = order; from <= pool->order_max; from++)
		if (pool->free[from] != TER_PAGE_NONE) {
			*ret_order = order;
			return take_from(pool, from, order);
		}
	while (order-- > 0)
		if (pool->free[order] != TER_PAGE_NONE) {
			*ret_order = order;
			return take_from(pool, order, order);
		}
	return TER_PAGE_NONE;
}

void ter_pool_ref(struct ter_pool *pool, uint32_t p)
{
	assert(pool->page[p].refs && pool->page[p].refs < UINT16_MAX);
	pool->page[p].refs++;
}

bool ter_pool_put(struct ter_pool *pool, uint32_t p)
{
	unsigned order = pool->page[p].order;

	assert(pool->page[p].refs && !pool->page[p].free);
	if (--pool->page[p].refs)
		return false;
	pool->free_pages += 1u << order;
	while (order < pool->order_max) {
		uint32_t buddy = p ^ (1u << order);

		if (buddy + (1u << order) > pool->pages_nr || !pool->page[buddy].free || pool->page[buddy].order != order)
			break;
		list_del(pool, buddy);
		p = ter_min(p, buddy);
		order++;
	}
	list_add(pool, p, order);
	return true;
}

struct ter_seg *ter_pool_seg_get(struct ter_pool *pool)
{
	struct ter_seg *seg = pool->free_segs;

	if (seg)
		pool->free_segs = seg->next;
	else if (pool->segs_begun < pool->segs_nr)
		seg = &pool->segs[pool->segs_begun++];
	else
		return NULL;
	pool->free_segs_nr--;
	*seg = (struct ter_seg){ .page = TER_PAGE_NONE };
	ter_list_init(&seg->new_link);
	ter_list_init(&seg->pin_link);
	return seg;
}

void ter_pool_seg_put(struct ter_pool *pool, struct ter_seg *seg)
{
	if (seg->heap) {
		free(seg);
		return;
	}
	seg->next = pool->free_segs;
	pool->free_segs = seg;
	pool->free_segs_nr++;
}

bool ter_pool_check(const struct ter_pool *pool)
{
	uint32_t free_pages = 0, p = 0;

	for (unsigned order = 0; order < TER_BUF_ORDERS; order++)
		for (uint32_t i = pool->free[order]; i != TER_PAGE_NONE; i = pool->page[i].next) {
			if (!pool->page[i].free || pool->page[i].order != order || i & ((1u << order) - 1))
				return false;
			free_pages += 1u << order;
		}
	while (p < pool->pages_nr) {
		if (!pool->page[p].free && !pool->page[p].refs)
			return false;
		p += 1u << pool->page[p].order;
	}
	return p == pool->pages_nr && free_pages == pool->free_pages;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Segments by offset: a treap
 *
 * The priority comes from the segment's address, mixed: the shape is that of a random tree, O(log n) expected, with nothing to draw. Segments in one tree do not overlap (D1),
 * so the order of starts is the order of ends, and a segment may grow or shrink in place while it stays between its neighbours.
 */
#include "data/data_priv.h"

static uint32_t mix(const struct ter_seg *seg)
{
	uint64_t x = (uint64_t)(uintptr_t)seg / sizeof(*seg) * 0x9e3779b97f4a7c15ull;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return (uint32_t)(x >> 32);
}

void ter_segtree_insert(struct ter_seg **root, struct ter_seg *seg)
{
	struct ter_seg **at = root, **less = &seg->left, **more = &seg->right, *t;

	seg->prio = mix(seg);
	while (*at && (*at)->prio >= seg->prio)
		at = (*at)->start < seg->start ? &(*at)->right : &(*at)->left;
	/* what lay here is split by offset between the two sides */
	for (t = *at; t;) {
		if (t->start < seg->start) {
			*less = t;
			less = &t->right;
			t = t->right;
		} else {
			*more = t;
			more = &t->left;
			t = t->left;
		}
	}
	*less = *more = NULL;
	*at = seg;
}

void ter_segtree_remove(struct ter_seg **root, struct ter_seg *seg)
{
	struct ter_seg **at = root, *a, *b;

	while (*at != seg) {
		assert(*at);
		at = (*at)->start < seg->start ? &(*at)->right : &(*at)->left;
	}
	a = seg->left;
	b = seg->right;
	while (a && b) {
		if (a->prio >= b->prio) {
			*at = a;
			at = &a->right;
			a = a->right;
		} else {
			*at = b;
			at = &b->left;
			b = b->left;
		}
	}
	*at = a ? a : b;
	seg->left = seg->right = NULL;
}

struct ter_seg *ter_segtree_first(struct ter_seg *t, uint64_t pos)
{
	struct ter_seg *found = NULL;

	while (t) {
		if (t->end > pos) {
			found = t;
			t = t->left;
		} else {
			t = t->right;
		}
	}
	return found;
}

struct ter_seg *ter_segtree_prev(struct ter_seg *t, uint64_t pos)
{
	struct ter_seg *found = NULL;

	while (t) {
		if (t->end <= pos) {
			found = t;
			t = t->right;
		} else {
			t = t->left;
		}
	}
	return found;
}

struct ter_seg *ter_segtree_next(struct ter_seg *t, const struct ter_seg *seg)
{
	return ter_segtree_first(t, seg->end);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of btrees: nodes that are lost get the content that is found for them on the members. */
#include <stdio.h>

#include "alloc/alloc_repair.h"
#include "data/extent.h"
#include "recovery/node_scan.h"
#include "recovery/repair_ptrs.h"
#include "recovery/space_refs.h"
#include "util/mem.h"

#define PASS "nodes"
#define LOST_MAX 65536u   /* of one repair; the rest is the next one's */
#define ROUNDS_MAX 16u    /* what is put in place may be damaged itself */

struct btrees {
	const struct ter_fsck_config *config;
	struct ter_repair *repair;
	struct ter_lost_node *lost;
	size_t nr, max;
	bool missing; /* a node that is not lost, but on a member that is not there */
	uint64_t memory_bytes;
	struct ter_node_scan scan;
};

/* --- finding --- */

static bool on_missing_member(const struct btrees *b, const struct ter_lost_node *lost)
{
	for (unsigned i = 0; i < lost->ptrs.nr; i++) {
		const struct ter_dev *dev = ter_member(b->config->members, lost->ptrs.ptr[i].dev);

		if (dev && !ter_dev_online(dev))
			return true;
	}
	return false;
}

static int on_lost(void *arg, const struct ter_lost_node *lost)
{
	struct btrees *b = arg;

	if (on_missing_member(b, lost)) {
		b->missing = true;
		return 0;
	}
	if (b->nr == LOST_MAX)
		return 0;
	if (b->nr == b->max) {
		struct ter_lost_node *bigger = ter_realloc_array(b->lost, 2 * b->max + 16, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		b->lost = bigger;
		b->max = 2 * b->max + 16;
	}
	b->lost[b->nr++] = *lost;
	return 0;
}

static int find_lost(struct btrees *b)
{
	const struct ter_node_walk walk = { .lost = on_lost, .arg = b };
	int r = 0;

	b->nr = 0;
	for (unsigned i = 0; i < TER_BTREE_NR && r >= 0; i++) {
		do
			r = ter_btree_walk_lost(b->config->btrees, (enum ter_btree_id)i, &walk);
		while (r == -ERESTART);
		if (r >= 0)
			r = ter_repair_step(b->repair, PASS, i + 1, TER_BTREE_NR);
	}
	return r;
}

/* What a node holds that stays lost tells what is in use: nothing can be given out without knowing. */
static bool hides_pointers(const struct ter_lost_node *lost)
{
	return lost->level > 0 || lost->btree == TER_BTREE_EXTENTS;
}

/* Those that are not to be replaced go from the list. */
static int ask(struct btrees *b, size_t *ret_left, bool *ret_blind)
{
	char min[64], max[64];
	size_t kept = 0;

	*ret_left = 0;
	*ret_blind = false;
	for (size_t i = 0; i < b->nr; i++) {
		const struct ter_lost_node *lost = &b->lost[i];
		const int r = ter_repair_want(b->repair, PASS, "Btree '%s': no copy of the node of level %u from %s to %s can be read: what is found of it on the members takes its place.",
					      ter_btree_names[lost->btree], lost->level, ter_pos_text(lost->min, min), ter_pos_text(lost->max, max));

		if (r < 0)
			return r;
		if (r) {
			b->lost[kept++] = *lost;
		} else {
			++*ret_left;
			*ret_blind |= hides_pointers(lost);
		}
	}
	b->nr = kept;
	if (*ret_blind) { /* no space to put anything in */
		b->repair->done_nr -= kept;
		b->repair->left_nr += kept;
	}
	return 0;
}

/* --- what must not be overwritten --- */

static int mark_node(void *arg, enum ter_btree_id btree, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct btrees *b = arg;

	(void)btree;
	(void)level;
	(void)max;
	for (unsigned i = 0; i < ptrs->nr; i++)
		ter_alloc_repair_mark(b->config->alloc, ptrs->ptr[i].dev, ptrs->ptr[i].sector, b->config->sb->sb->options.btree_node_size >> TER_SECTOR_SHIFT);
	return 0;
}

static int not_again(void *arg, const struct ter_lost_node *lost)
{
	(void)arg;
	(void)lost;
	return 0;
}

static int mark_extent(void *arg, const struct ter_key *key)
{
	struct btrees *b = arg;
	struct ter_extent e;

	if (key->type == TER_KEY_EXTENT && ter_extent_decode(key, b->config->sb->sb, &e) == 0)
		for (unsigned i = 0; i < e.nr_ptrs; i++)
			ter_alloc_repair_mark(b->config->alloc, e.ptr[i].dev, e.ptr[i].sector, e.stored_sectors);
	return 0;
}

/* What the allocator reads goes first: as long as it is lost, generations and counters of what is written are not known. */
static unsigned rank_of(unsigned btree)
{
	return btree == TER_BTREE_ALLOC ? 0 : btree >= TER_BTREE_FREESPACE && btree <= TER_BTREE_BACKPOINTERS ? 1 : btree == TER_BTREE_ACCOUNTING ? 2 : 3 + btree;
}

static int cmp_min(const void *pa, const void *pb)
{
	const struct ter_lost_node *a = pa, *b = pb;

	if (a->btree != b->btree)
		return rank_of(a->btree) * TER_BTREE_NR + a->btree < rank_of(b->btree) * TER_BTREE_NR + b->btree ? -1 : 1;
	return ter_pos_cmp(a->min, b->min);
}

/* All that can be read: between the lost ranges, which are in order. */
static int mark_extents(struct btrees *b)
{
	struct ter_pos from = TER_POS_MIN;
	bool rest = true;
	int r = 0;

	for (size_t i = 0; i < b->nr && r >= 0; i++) {
		const struct ter_lost_node *lost = &b->lost[i];

		if (lost->btree != TER_BTREE_EXTENTS)
			continue;
		if (ter_pos_cmp(from, lost->min) < 0)
			r = ter_btree_scan(b->config->btrees, TER_BTREE_EXTENTS, from, ter_pos_prev(lost->min), 0, mark_extent, b, NULL);
		rest = ter_pos_cmp(lost->max, TER_POS_MAX) < 0;
		if (rest)
			from = ter_pos_next(lost->max);
	}
	if (r >= 0 && rest)
		r = ter_btree_scan(b->config->btrees, TER_BTREE_EXTENTS, from, TER_POS_MAX, 0, mark_extent, b, NULL);
	return r;
}

/* Every leaf that was found, and in those of EXTENTS what they point to: any of it may be all that is left. */
static int mark_found(struct btrees *b)
{
	int r = 0;

	for (size_t i = 0; i < b->scan.nr && r >= 0; i++) {
		const struct ter_found_node *node = &b->scan.found[i];
		uint8_t *keys;
		uint32_t bytes;

		ter_alloc_repair_mark(b->config->alloc, node->dev, node->sector, b->config->sb->sb->options.btree_node_size >> TER_SECTOR_SHIFT);
		if (node->btree != TER_BTREE_EXTENTS)
			continue;
		r = ter_btree_load_found(b->config->btrees, node, &keys, &bytes);
		for (uint32_t at = 0; r >= 0 && at < bytes;) {
			struct ter_key key;

			ter_key_decode((const struct ter_key_disk *)(keys + at), &key);
			at += ter_key_disk_bytes(key.val_bytes);
			(void)mark_extent(b, &key);
		}
		if (r >= 0)
			free(keys);
	}
	return r;
}

static int open_guard(struct btrees *b)
{
	const struct ter_node_walk walk = { .lost = not_again, .ptrs = mark_node, .arg = b };
	int r;

	if (ter_alloc_repair_is_open(b->config->alloc))
		return 0;
	r = ter_alloc_repair_mark_begin(b->config->alloc, b->memory_bytes / 8);
	for (unsigned i = 0; i < TER_BTREE_NR && r >= 0; i++) {
		do
			r = ter_btree_walk_lost(b->config->btrees, (enum ter_btree_id)i, &walk);
		while (r == -ERESTART);
	}
	if (r >= 0)
		r = mark_extents(b);
	if (r >= 0)
		r = mark_found(b);
	if (r >= 0)
		ter_alloc_repair_open(b->config->alloc);
	return r;
}

/* Nodes stay lost: what they point to is not known, so nothing is given out. Who waits for space is told that there is none. */
static int close_guard(struct btrees *b)
{
	int r;

	if (ter_alloc_repair_is_open(b->config->alloc))
		return 0;
	r = ter_alloc_repair_mark_begin(b->config->alloc, b->memory_bytes / 8);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		ter_alloc_repair_mark(b->config->alloc, i, 0, UINT64_MAX);
	ter_alloc_repair_open(b->config->alloc);
	return 0;
}

/* --- replacing --- */

/* Of what is derived, ALLOC alone has something that nothing else tells: generations. */
static bool worth_a_search(unsigned btree)
{
	return btree != TER_BTREE_FREESPACE && btree != TER_BTREE_NEED_DISCARD && btree != TER_BTREE_BACKPOINTERS && btree != TER_BTREE_ACCOUNTING;
}

static int search(struct btrees *b)
{
	bool any = false;

	ter_node_scan_release(&b->scan);
	b->scan = (struct ter_node_scan){ .config = b->config, .repair = b->repair, .lost = b->lost, .lost_nr = b->nr };
	for (size_t i = 0; i < b->nr; i++) {
		any |= worth_a_search(b->lost[i].btree);
		b->scan.alloc_lost |= b->lost[i].btree == TER_BTREE_ALLOC;
	}
	return any ? ter_node_scan_run(&b->scan, b->memory_bytes / 4) : 0;
}

static int replace_one(struct btrees *b, const struct ter_lost_node *lost)
{
	struct ter_scan_keys keys = { 0 };
	int r = 0;

	if (worth_a_search(lost->btree))
		r = ter_scan_keys_init(&keys, &b->scan, lost->btree, lost->min, lost->max);
	if (r >= 0)
		r = ter_btree_replace_lost(b->config->btrees, lost, ter_scan_keys_next, &keys);
	ter_scan_keys_release(&keys);
	return r;
}

static int replace_all(struct btrees *b)
{
	int r;

	if (b->nr) /* else there is no array */
		qsort(b->lost, b->nr, sizeof(b->lost[0]), cmp_min);
	r = search(b);
	if (r >= 0)
		r = open_guard(b);
	for (size_t i = 0; i < b->nr && r >= 0; i++) {
		r = replace_one(b, &b->lost[i]);
		if (r >= 0)
			r = ter_repair_step(b->repair, PASS, i + 1, b->nr);
	}
	return r;
}

static int all_rounds(struct btrees *b)
{
	size_t left;
	bool blind;
	int r;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		r = find_lost(b);
		if (r < 0)
			return r;
		if (b->missing)
			return -ENODEV;
		r = ask(b, &left, &blind);
		if (r >= 0)
			r = blind ? close_guard(b) : replace_all(b); /* of none: nothing but the guard */
		if (r < 0 || !b->nr || left)
			return r;
	}
	return -EUCLEAN;
}

int ter_repair_btrees(const struct ter_fsck_config *config, struct ter_repair *repair)
{
	struct btrees b = { .config = config, .repair = repair, .memory_bytes = ter_repair_memory(repair) };
	int r;

	r = ter_alloc_repair_begin(config->alloc);
	if (r >= 0)
		r = all_rounds(&b);
	ter_node_scan_release(&b.scan);
	free(b.lost);
	return r;
}

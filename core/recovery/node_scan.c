/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Searching the members for leaves, and which of them counts where. */
#include "recovery/node_scan.h"

#include "alloc/alloc_repair.h"
#include "util/mem.h"

#define PASS "nodes"
#define FOUND_MIN 1024u
#define RUN_BYTES (1u << 20) /* of one read; a multiple of every size of node */

/* --- search --- */

static bool wanted(const struct ter_node_scan *scan, const struct ter_found_node *node)
{
	for (size_t i = 0; i < scan->lost_nr; i++) {
		const struct ter_lost_node *lost = &scan->lost[i];

		if (lost->btree == node->btree && ter_pos_cmp(node->min, lost->max) <= 0 && ter_pos_cmp(lost->min, node->max) <= 0)
			return true;
	}
	return false;
}

/* @bytes: of it, if they could be read along with others. */
static int look_at(struct ter_node_scan *scan, unsigned dev_idx, uint64_t sector, void *bytes)
{
	struct ter_found_node node;
	int r = bytes ? ter_btree_look_at_node(scan->config->btrees, dev_idx, sector, bytes, &node) : ter_btree_look_for_node(scan->config->btrees, dev_idx, sector, &node);

	if (r == -ENODATA || (r >= 0 && !wanted(scan, &node)))
		return 0;
	if (r < 0)
		return r;
	if (scan->nr == scan->max)
		return -E2BIG;
	scan->found[scan->nr++] = node;
	return 0;
}

/* May there be a node? */
static int look_for_nodes(struct ter_node_scan *scan, struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket, bool *ret)
{
	struct ter_bucket_value v;
	struct ter_key key;
	int r;

	*ret = ter_bucket_fixed_type(dev, bucket) == TER_DATA_FREE;
	if (!*ret || scan->alloc_lost)
		return 0;
	ter_trans_reset(trans);
	r = ter_trans_get(trans, TER_BTREE_ALLOC, ter_bucket_pos(dev->idx, bucket), &key);
	if (r == -ENOENT) {
		*ret = false; /* nothing was ever written there */
		return 0;
	}
	if (r >= 0 && ter_bucket_decode(&key, dev, &v) == 0)
		*ret = v.data_type != TER_DATA_USER || ter_bucket_state(&v) != TER_BUCKET_USED;
	return ter_min(r, 0);
}

/* Sectors of one member, one after the other, that are looked at with one read. */
struct run {
	struct ter_node_scan *scan;
	const struct ter_dev *dev;
	uint64_t sector;
	uint32_t sectors, sectors_max, node_sectors; /* max: a multiple of the node */
	uint8_t *mem;
};

/* A run that cannot be read as a whole is read node by node: what lies beside a bad sector is wanted. */
static int look_at_run(struct run *run)
{
	struct ter_dev *dev = ter_member(run->scan->config->members, run->dev->idx);
	int r;

	if (!run->sectors)
		return 0;
	r = ter_dev_read(dev, run->sector << TER_SECTOR_SHIFT, run->mem, (size_t)run->sectors << TER_SECTOR_SHIFT);
	if (r == -ENOMEM)
		return r;
	for (uint32_t at = 0; at < run->sectors; at += run->node_sectors) {
		const int one = look_at(run->scan, dev->idx, run->sector + at, r < 0 ? NULL : run->mem + ((size_t)at << TER_SECTOR_SHIFT));

		if (one < 0)
			return one;
	}
	run->sectors = 0;
	return 0;
}

static int add_to_run(struct run *run, uint64_t sector)
{
	int r;

	if (run->sectors && (run->sector + run->sectors != sector || run->sectors == run->sectors_max)) {
		r = look_at_run(run);
		if (r < 0)
			return r;
	}
	if (!run->sectors)
		run->sector = sector;
	run->sectors += run->node_sectors;
	return 0;
}

static int scan_buckets(struct run *run)
{
	struct ter_node_scan *scan = run->scan;
	struct ter_trans trans;
	int r = 0;

	ter_trans_init(&trans, scan->config->btrees, 0);
	for (uint64_t bucket = 0; bucket < run->dev->buckets_nr && r >= 0; bucket++) {
		bool look;

		r = look_for_nodes(scan, &trans, run->dev, bucket, &look);
		for (uint32_t at = 0; r >= 0 && look && at + run->node_sectors <= run->dev->bucket_sectors; at += run->node_sectors)
			r = add_to_run(run, bucket * run->dev->bucket_sectors + at);
		if (r >= 0 && bucket % 256 == 0)
			r = ter_repair_step(scan->repair, PASS, bucket, run->dev->buckets_nr);
	}
	ter_trans_exit(&trans);
	return r < 0 ? r : look_at_run(run);
}

static int scan_member(struct ter_node_scan *scan, const struct ter_dev *dev)
{
	const uint32_t node_bytes = scan->config->sb->sb->options.btree_node_size, run_bytes = (uint32_t)ter_max(RUN_BYTES, node_bytes);
	struct run run = { .scan = scan, .dev = dev, .sectors_max = run_bytes >> TER_SECTOR_SHIFT, .node_sectors = node_bytes >> TER_SECTOR_SHIFT };
	int r;

	run.mem = ter_malloc_aligned(run_bytes, ter_max(scan->config->sb->sb->options.block_size, (uint32_t)TER_KIB(4)));
	r = run.mem ? scan_buckets(&run) : -ENOMEM;
	free(run.mem);
	return r;
}

/* The newest first; of one node's copies the one with most in it. */
static int cmp_found(const void *pa, const void *pb)
{
	const struct ter_found_node *a = pa, *b = pb;

	if (a->btree != b->btree)
		return a->btree < b->btree ? -1 : 1;
	if (a->node_seq != b->node_seq)
		return a->node_seq > b->node_seq ? -1 : 1;
	return a->written_bytes == b->written_bytes ? 0 : a->written_bytes > b->written_bytes ? -1 : 1;
}

int ter_node_scan_run(struct ter_node_scan *scan, uint64_t memory_bytes)
{
	int r = 0;

	scan->nr = 0;
	scan->max = (size_t)ter_max(memory_bytes / sizeof(scan->found[0]), (uint64_t)FOUND_MIN);
	scan->found = ter_calloc(scan->max, sizeof(scan->found[0]));
	if (!scan->found)
		return -ENOMEM;
	for (unsigned i = 0; i < TER_DEVS_MAX && r >= 0; i++) {
		const struct ter_dev *dev = ter_member(scan->config->members, i);

		if (dev && ter_dev_online(dev))
			r = scan_member(scan, dev);
	}
	if (r >= 0)
		qsort(scan->found, scan->nr, sizeof(scan->found[0]), cmp_found);
	return r;
}

void ter_node_scan_release(struct ter_node_scan *scan)
{
	free(scan->found);
	scan->found = NULL;
}

/* --- the keys of a range --- */

static int insert_piece(struct ter_scan_keys *k, size_t at, struct ter_pos min, struct ter_pos max, const struct ter_found_node *node)
{
	if (k->nr == k->max) {
		struct ter_scan_piece *bigger = ter_realloc_array(k->piece, 2 * k->max + 16, sizeof(*bigger)); /* at most one more than twice the leaves found */

		if (!bigger)
			return -ENOMEM;
		k->piece = bigger;
		k->max = 2 * k->max + 16;
	}
	memmove(&k->piece[at + 1], &k->piece[at], (k->nr - at) * sizeof(k->piece[0]));
	k->piece[at] = (struct ter_scan_piece){ min, max, node };
	k->nr++;
	return 0;
}

/* What of [min, max] nothing newer covers. */
static int add_node(struct ter_scan_keys *k, struct ter_pos min, struct ter_pos max, const struct ter_found_node *node)
{
	size_t at = 0;
	int r;

	for (;;) {
		while (at < k->nr && ter_pos_cmp(k->piece[at].max, min) < 0)
			at++;
		if (at == k->nr || ter_pos_cmp(k->piece[at].min, max) > 0)
			return insert_piece(k, at, min, max, node);
		if (ter_pos_cmp(min, k->piece[at].min) < 0) {
			r = insert_piece(k, at, min, ter_pos_prev(k->piece[at].min), node);
			if (r < 0)
				return r;
			at++;
		}
		if (ter_pos_cmp(k->piece[at].max, max) >= 0)
			return 0;
		min = ter_pos_next(k->piece[at].max);
	}
}

int ter_scan_keys_init(struct ter_scan_keys *keys, const struct ter_node_scan *scan, unsigned btree, struct ter_pos min, struct ter_pos max)
{
	int r = 0;

	*keys = (struct ter_scan_keys){ .bt = scan->config->btrees };
	for (size_t i = 0; i < scan->nr && r >= 0; i++) {
		const struct ter_found_node *node = &scan->found[i];

		if (node->btree != btree || ter_pos_cmp(node->min, max) > 0 || ter_pos_cmp(min, node->max) > 0)
			continue;
		r = add_node(keys, ter_pos_cmp(node->min, min) > 0 ? node->min : min, ter_pos_cmp(node->max, max) < 0 ? node->max : max, node);
	}
	if (r < 0)
		ter_scan_keys_release(keys);
	return r;
}

void ter_scan_keys_release(struct ter_scan_keys *keys)
{
	free(keys->piece);
	free(keys->keys);
	*keys = (struct ter_scan_keys){ 0 };
}

int ter_scan_keys_next(void *arg, const struct ter_key_disk **ret)
{
	struct ter_scan_keys *k = arg;
	int r;

	for (;;) {
		while (k->keys && k->off < k->bytes) {
			const struct ter_key_disk *key = (const struct ter_key_disk *)(k->keys + k->off);
			const struct ter_pos pos = ter_key_disk_pos(key);

			k->off += ter_key_disk_bytes(ter_le32_get(key->val_bytes));
			if (ter_pos_cmp(pos, k->piece[k->at].max) > 0)
				break;
			if (ter_pos_cmp(pos, k->piece[k->at].min) < 0)
				continue;
			k->keys_nr++;
			*ret = key;
			return 1;
		}
		if (k->keys) {
			free(TAKE_PTR(k->keys));
			k->at++;
		}
		if (k->at == k->nr)
			return 0;
		r = ter_btree_load_found(k->bt, k->piece[k->at].node, &k->keys, &k->bytes);
		if (r < 0)
			return r == -ENODATA ? -EIO : r; /* it was there a moment ago */
		k->off = 0;
	}
}

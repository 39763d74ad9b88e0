/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsck: pointers against back references
 *
 * Each pointer's back reference is looked up and compared; then back references are counted. As many as pointers, each found: so none is left over.
 */
#include "recovery/fsck_ptrs.h"

#include <stdarg.h>
#include <stdio.h>

#include "alloc/accounting.h"
#include "alloc/alloc_format.h"
#include "util/mem.h"

#define BATCH_KEYS 256
#define VAL_MAX TER_EXTENT_VAL_MAX

/* Sums per device set are kept for as many sets as a superblock can name. */
struct set_sum {
	struct ter_pos pos;
	int64_t sectors;
};

struct pass {
	const struct ter_fsck_config *config;
	ter_fsck_found_fn found;
	void *found_arg;
	ter_fsck_step_fn step;
	void *step_arg;
	int64_t contradictions;
	uint64_t pointers, backs;
	struct set_sum *sums;
	unsigned sums_nr;
	struct { int64_t extents, raw, stored; } compression[TER_ALGO_SLOTS_MAX + 1];
	int64_t reserved, btree[TER_BTREE_NR][2];
	int r; /* what stopped a callback */
	bool structure; /* what is said is of nodes, not of pointers */
	/* the batch of extents being looked at */
	struct ter_extent extent[BATCH_KEYS];
	struct ter_pos pos[BATCH_KEYS];
	unsigned batch_nr;
	struct ter_pos last_end;
};

static void complain(struct pass *p, const char *fmt, ...) TER_PRINTF(2, 3);
static void complain(struct pass *p, const char *fmt, ...)
{
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	p->contradictions++;
	if (p->found)
		p->found(p->found_arg, p->structure ? "nodes" : "pointers", text);
}

static int add_sum(struct pass *p, const struct ter_replicas_entry *entry, int64_t sectors)
{
	const struct ter_pos pos = ter_counter_replicas(entry);

	for (unsigned i = 0; i < p->sums_nr; i++)
		if (ter_pos_cmp(p->sums[i].pos, pos) == 0) {
			p->sums[i].sectors += sectors;
			return 0;
		}
	if (p->sums_nr == TER_REPLICAS_ENTRIES_MAX)
		return -E2BIG;
	p->sums[p->sums_nr++] = (struct set_sum){ .pos = pos, .sectors = sectors };
	return 0;
}

static void sort_devs(struct ter_replicas_entry *entry)
{
	for (unsigned i = 1; i < entry->nr_devs; i++)
		for (unsigned k = i; k > 0 && entry->devs[k - 1] > entry->devs[k]; k--) {
			const uint8_t dev = entry->devs[k];

			entry->devs[k] = entry->devs[k - 1];
			entry->devs[k - 1] = dev;
		}
}

/* One pointer: is there a member, a bucket with this generation, and a back reference to @who? */
static int check_ptr(struct pass *p, struct ter_trans *trans, const struct ter_bp_target *who, unsigned dev_idx, uint64_t sector, uint32_t gen,
		     uint32_t sectors, uint32_t live_offset)
{
	const struct ter_dev *dev = ter_member(p->config->members, dev_idx);
	struct ter_bucket_value bucket = { 0 };
	struct ter_backpointer back;
	struct ter_key key;
	char at[64];
	int r;

	p->pointers++;
	ter_pos_text(who->pos, at);
	if (!dev) {
		complain(p, "The key of btree '%s' at %s points to member %u, which is none.", ter_btree_names[who->btree], at, dev_idx);
		return 0;
	}
	r = ter_trans_get(trans, TER_BTREE_ALLOC, ter_bucket_pos(dev_idx, sector / dev->bucket_sectors), &key);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r >= 0 && ter_bucket_decode(&key, dev, &bucket) < 0)
		return 0; /* the allocator's check says it */
	if (bucket.gen != gen)
		complain(p, "The key of btree '%s' at %s points to member %u, sector %llu with generation %u; its bucket has %u.",
			 ter_btree_names[who->btree], at, dev_idx, (unsigned long long)sector, gen, bucket.gen);

	r = ter_trans_get(trans, TER_BTREE_BACKPOINTERS, ter_backpointer_pos(dev_idx, sector, live_offset), &key);
	if (r == -ENOENT) {
		complain(p, "The key of btree '%s' at %s points to member %u, sector %llu, where no back reference is.", ter_btree_names[who->btree], at,
			 dev_idx, (unsigned long long)sector);
		return 0;
	}
	if (r < 0)
		return r;
	if (ter_backpointer_decode(&key, dev, &back) < 0)
		return 0; /* likewise */
	if (back.btree != who->btree || back.level != who->level || ter_pos_cmp(back.pos, who->pos) || back.sectors != sectors)
		complain(p, "The back reference at member %u, sector %llu does not lead to the key of btree '%s' at %s that points there.", dev_idx,
			 (unsigned long long)sector, ter_btree_names[who->btree], at);
	return 0;
}

/* --- extents --- */

static int take_extent(void *arg, const struct ter_key *key)
{
	struct pass *p = arg;
	char at[64];

	if (key->pos.inode == p->last_end.inode && ter_key_start(key) < p->last_end.offset)
		complain(p, "The extent at %s overlaps the one before it.", ter_pos_text(key->pos, at));
	p->last_end = key->pos;
	if (key->type == TER_KEY_RESERVATION)
		p->reserved += key->size;
	if (key->type != TER_KEY_EXTENT)
		return 0;
	if (ter_extent_decode(key, p->config->sb->sb, &p->extent[p->batch_nr]) < 0) {
		complain(p, "The extent at %s cannot be valid.", ter_pos_text(key->pos, at));
		return 0;
	}
	p->extent[p->batch_nr].csums = NULL; /* not ours beyond this call */
	p->pos[p->batch_nr] = key->pos;
	return ++p->batch_nr == BATCH_KEYS;
}

static int check_extent(struct pass *p, struct ter_trans *trans, const struct ter_extent *e, struct ter_pos pos)
{
	const struct ter_bp_target who = { .btree = TER_BTREE_EXTENTS, .level = 0, .pos = pos };
	struct ter_replicas_entry entry = { .data_type = TER_DATA_USER, .nr_required = e->nr_required };
	const uint32_t sectors = ter_extent_ptr_sectors(e);
	int r;

	for (unsigned i = 0; i < e->nr_ptrs; i++) {
		r = check_ptr(p, trans, &who, e->ptr[i].dev, e->ptr[i].sector, e->ptr[i].gen, sectors, e->live_offset);
		if (r < 0)
			return r;
		if (!(e->ptr[i].flags & TER_PTR_CACHED))
			entry.devs[entry.nr_devs++] = e->ptr[i].dev;
	}
	sort_devs(&entry);
	if (e->compression_slot <= TER_ALGO_SLOTS_MAX && e->compression_slot) {
		p->compression[e->compression_slot].extents++;
		p->compression[e->compression_slot].raw += e->sectors;
		p->compression[e->compression_slot].stored += sectors;
	}
	return add_sum(p, &entry, e->sectors);
}

static int check_extents(struct pass *p)
{
	struct ter_pos from = TER_POS_MIN;
	struct ter_trans trans;
	int more = 1, r = 0;

	ter_trans_init(&trans, p->config->btrees, 0);
	while (more == 1 && r >= 0) {
		p->batch_nr = 0;
		more = ter_btree_scan(p->config->btrees, TER_BTREE_EXTENTS, from, TER_POS_MAX, 0, take_extent, p, NULL);
		if (more < 0)
			r = more;
		for (unsigned i = 0; i < p->batch_nr && r >= 0; i++) {
			ter_trans_reset(&trans);
			r = check_extent(p, &trans, &p->extent[i], p->pos[i]);
		}
		if (p->batch_nr)
			from = ter_pos_next(p->pos[p->batch_nr - 1]);
		if (r >= 0 && p->step)
			r = p->step(p->step_arg, "extents", p->pointers, 0);
	}
	ter_trans_exit(&trans);
	return r;
}

/* --- nodes --- */

struct node_arg {
	struct pass *pass;
	enum ter_btree_id btree;
};

static int take_node(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct node_arg *n = arg;
	struct pass *p = n->pass;
	const struct ter_options *options = &p->config->sb->sb->options;
	const uint32_t sectors = options->btree_node_size >> TER_SECTOR_SHIFT;
	const struct ter_bp_target who = { .btree = n->btree, .level = (uint8_t)(level + 1), .pos = max };
	struct ter_replicas_entry entry = { .data_type = TER_DATA_BTREE, .nr_required = 1 };
	struct ter_trans trans;
	int r = 0;

	ter_trans_init(&trans, p->config->btrees, 0);
	for (unsigned i = 0; i < ptrs->nr && r >= 0; i++) {
		r = check_ptr(p, &trans, &who, ptrs->ptr[i].dev, ptrs->ptr[i].sector, ptrs->ptr[i].gen, sectors, 0);
		entry.devs[entry.nr_devs++] = ptrs->ptr[i].dev;
	}
	ter_trans_exit(&trans);
	sort_devs(&entry);
	p->btree[n->btree][0] += ptrs->nr > 0;
	p->btree[n->btree][1] += ptrs->nr ? sectors : 0;
	if (r >= 0 && ptrs->nr)
		r = add_sum(p, &entry, sectors);
	return r;
}

static int check_nodes(struct pass *p)
{
	for (unsigned b = 0; b < TER_BTREE_NR; b++) {
		struct node_arg arg = { .pass = p, .btree = (enum ter_btree_id)b };
		const int r = ter_btree_walk_nodes(p->config->btrees, (enum ter_btree_id)b, take_node, &arg);

		if (r == -EUCLEAN || r == -EBADMSG) {
			p->structure = true;
			complain(p, r == -EUCLEAN ? "The structure of btree '%s' is damaged." : "A node of btree '%s' cannot be read.", ter_btree_names[b]);
			p->structure = false;
		} else if (r < 0)
			return r;
		if (p->step && p->step(p->step_arg, "nodes", b + 1, TER_BTREE_NR) < 0)
			return -ECANCELED;
	}
	return 0;
}

/* --- what the sums say --- */

static int count_back(void *arg, const struct ter_key *key)
{
	struct pass *p = arg;

	(void)key;
	p->backs++;
	return 0;
}

static int read_counter(struct pass *p, struct ter_pos pos, int64_t counters[TER_COUNTERS_MAX])
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	memset(counters, 0, sizeof(int64_t) * TER_COUNTERS_MAX);
	ter_trans_init(&trans, p->config->btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_ACCOUNTING, pos, &key);
	if (r >= 0 && key.type == TER_KEY_COUNTERS)
		for (unsigned i = 0; i < TER_COUNTERS_MAX && (i + 1) * 8 <= key.val_bytes; i++)
			counters[i] = (int64_t)ter_le64_get(((const ter_le64 *)key.val)[i]);
	ter_trans_exit(&trans);
	return r == -ENOENT ? 0 : r;
}

static int take_row(void *arg, const struct ter_key *key)
{
	struct pass *p = arg;
	char at[64];

	if (ter_counter_kind(key->pos) != TER_COUNT_REPLICAS)
		return 0;
	for (unsigned i = 0; i < p->sums_nr; i++)
		if (ter_pos_cmp(p->sums[i].pos, key->pos) == 0)
			return 0;
	complain(p, "The counter of copies at %s counts what no key holds.", ter_pos_text(key->pos, at));
	return 0;
}

static bool has_set(struct ter_sb_handle *sb, struct ter_pos pos)
{
	struct ter_replicas_entry entry;
	bool has;

	if (!ter_counter_parse_replicas(pos, &entry))
		return false;
	ter_lock_acquire(&sb->lock);
	has = ter_sb_replicas_has(sb->sb, &entry);
	ter_lock_release(&sb->lock);
	return has;
}

/* Btrees, promised space, and the superblock's table of sets. */
static int check_other_sums(struct pass *p)
{
	int64_t counters[TER_COUNTERS_MAX];
	char at[64];
	int r;

	for (unsigned i = 0; i < p->sums_nr; i++)
		if (p->sums[i].sectors && !has_set(p->config->sb, p->sums[i].pos))
			complain(p, "The superblock does not name the set of members at %s, which holds %lld sectors.", ter_pos_text(p->sums[i].pos, at),
				 (long long)p->sums[i].sectors);
	for (unsigned b = 0; b < TER_BTREE_NR; b++) {
		r = read_counter(p, ter_counter_btree((enum ter_btree_id)b), counters);
		if (r < 0)
			return r;
		if (counters[0] != p->btree[b][0] || counters[1] != p->btree[b][1])
			complain(p, "The counters of btree '%s' say %lld nodes and %lld sectors; there are %lld and %lld.", ter_btree_names[b], (long long)counters[0],
				 (long long)counters[1], (long long)p->btree[b][0], (long long)p->btree[b][1]);
	}
	r = read_counter(p, ter_counter_reserved(), counters);
	if (r >= 0 && counters[0] != p->reserved)
		complain(p, "The counter of promised space says %lld sectors; the keys hold %lld.", (long long)counters[0], (long long)p->reserved);
	return r;
}

static int check_sums(struct pass *p)
{
	int64_t counters[TER_COUNTERS_MAX];
	char at[64];
	int r;

	r = ter_btree_scan(p->config->btrees, TER_BTREE_BACKPOINTERS, TER_POS_MIN, TER_POS_MAX, 0, count_back, p, NULL);
	if (r < 0)
		return r;
	if (p->backs != p->pointers)
		complain(p, "There are %llu back references for %llu pointers.", (unsigned long long)p->backs, (unsigned long long)p->pointers);
	r = ter_btree_scan(p->config->btrees, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX, 0, take_row, p, NULL);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < p->sums_nr; i++) {
		r = read_counter(p, p->sums[i].pos, counters);
		if (r < 0)
			return r;
		if (counters[0] != p->sums[i].sectors)
			complain(p, "The counter of copies at %s says %lld sectors; the keys hold %lld.", ter_pos_text(p->sums[i].pos, at),
				 (long long)counters[0], (long long)p->sums[i].sectors);
	}
	for (unsigned slot = 1; slot <= TER_ALGO_SLOTS_MAX; slot++) {
		r = read_counter(p, ter_counter_compression(slot), counters);
		if (r < 0)
			return r;
		if (counters[0] != p->compression[slot].extents || counters[1] != p->compression[slot].raw || counters[2] != p->compression[slot].stored)
			complain(p, "The counters of compression %u say %lld extents, %lld and %lld sectors; the keys hold %lld, %lld and %lld.", slot,
				 (long long)counters[0], (long long)counters[1], (long long)counters[2], (long long)p->compression[slot].extents,
				 (long long)p->compression[slot].raw, (long long)p->compression[slot].stored);
	}
	return check_other_sums(p);
}

int64_t ter_fsck_pointers(const struct ter_fsck_config *config, ter_fsck_found_fn found, void *found_arg, ter_fsck_step_fn step, void *step_arg)
{
	struct pass *p = ter_new(struct pass);
	int64_t r;

	if (!p)
		return -ENOMEM;
	*p = (struct pass){ .config = config, .found = found, .found_arg = found_arg, .step = step, .step_arg = step_arg };
	p->sums = ter_calloc(TER_REPLICAS_ENTRIES_MAX, sizeof(p->sums[0]));
	r = p->sums ? check_nodes(p) : -ENOMEM;
	if (!config->passes || config->passes & TER_PASS_BIT(POINTERS)) {
		if (r >= 0)
			r = check_extents(p);
		if (r >= 0)
			r = check_sums(p);
	}
	if (r >= 0)
		r = p->contradictions;
	free(p->sums);
	free(p);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of space: the rounds, windows of buckets, and sums. */
#include "recovery/repair_ptrs.h"

#include <stdio.h>

#include "alloc/accounting.h"
#include "recovery/space_judge.h"
#include "util/mem.h"

#define PASS "pointers"
#define ROUNDS_MAX 64u
#define DECLINED_NR 65536u /* sentences that were answered with no, and are not asked again */

/* --- rounds ask once --- */

struct memo {
	struct ter_repair *outer;
	uint64_t *declined; /* hashes, open addressing */
	unsigned nr;
};

static int memo_want(void *arg, const char *pass, const char *sentence)
{
	struct memo *m = arg;
	uint64_t h = 0xcbf29ce484222325ull;
	unsigned at;
	int r;

	for (const char *s = sentence; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3ull;
	h += !h;
	for (at = (unsigned)(h % DECLINED_NR); m->declined[at]; at = (at + 1) % DECLINED_NR)
		if (m->declined[at] == h)
			return 0;
	r = ter_repair_want(m->outer, pass, "%s", sentence);
	if (r == 0 && m->nr < DECLINED_NR / 4 * 3) {
		m->declined[at] = h;
		m->nr++;
	}
	return r;
}

static int memo_step(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct memo *m = arg;

	return ter_repair_step(m->outer, phase, done, total);
}

/* --- one repair --- */

struct space {
	const struct ter_fsck_config *config;
	struct memo memo;
	struct ter_repair repair; /* asks by memo */
	struct ter_space_refs refs;
	struct ter_fixes fixes;
	struct ter_space_sums *sums;
	uint64_t memory_bytes, done;
	bool more;
};

/* Applies what was found. */
static int apply(struct space *s)
{
	int r;

	s->fixes.applied_nr = 0;
	s->fixes.raced = false;
	r = ter_fixes_apply(&s->fixes);
	s->done += s->fixes.applied_nr;
	s->more |= s->fixes.raced || s->fixes.full;
	s->fixes.full = false;
	return r;
}

static int repair_window(struct space *s)
{
	struct ter_space_refs *refs = &s->refs;
	size_t at = 0;
	int r = 0;

	for (unsigned i = refs->from.dev; i < TER_DEVS_MAX && i <= refs->to.dev && r >= 0; i++) {
		const struct ter_dev *dev = ter_member(s->config->members, i);
		const uint64_t from = i == refs->from.dev ? refs->from.bucket : 0;
		uint64_t to;
		size_t nr = 0;

		if (!dev)
			continue;
		to = i == refs->to.dev ? refs->to.bucket : dev->buckets_nr;
		while (at + nr < refs->nr && refs->ref[at + nr].dev == i)
			nr++;
		if (from < to)
			r = ter_alloc_repair_buckets(s->config->alloc, &s->fixes, dev, from, to, &refs->ref[at], nr);
		at += nr;
	}
	return r;
}

static int repair_buckets(struct space *s)
{
	int r;

	ter_space_refs_first(&s->refs);
	do {
		r = ter_repair_settle_btrees(s->config->btrees);
		if (r >= 0)
			r = ter_space_refs_collect(&s->refs);
		if (r >= 0)
			r = repair_window(s);
		if (r >= 0)
			r = apply(s);
	} while (r >= 0 && ter_space_refs_next(&s->refs));
	return r;
}

/* --- sums --- */

struct rows {
	struct space *s;
	struct ter_pos pos[TER_REPLICAS_ENTRIES_MAX]; /* REPLICAS rows that count what is not there */
	unsigned nr;
};

static int take_row(void *arg, const struct ter_key *key)
{
	struct rows *rows = arg;
	const struct ter_space_sums *sums = rows->s->sums;

	if (ter_counter_kind(key->pos) != TER_COUNT_REPLICAS)
		return 0;
	for (unsigned i = 0; i < sums->sets_nr; i++)
		if (!ter_pos_cmp(sums->set[i].pos, key->pos))
			return 0;
	rows->pos[rows->nr++] = key->pos;
	rows->s->more |= rows->nr == TER_REPLICAS_ENTRIES_MAX;
	return rows->nr == TER_REPLICAS_ENTRIES_MAX;
}

static int compare_sets(struct space *s)
{
	struct rows *rows = ter_new(struct rows);
	static const int64_t none[1];
	char what[128], at[64];
	int r;

	if (!rows)
		return -ENOMEM;
	rows->s = s;
	r = ter_btree_scan(s->config->btrees, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX, 0, take_row, rows, NULL);
	for (unsigned i = 0; i < rows->nr && r >= 0; i++) {
		snprintf(what, sizeof(what), "copies at %s", ter_pos_text(rows->pos[i], at));
		r = ter_fixes_counters(&s->fixes, rows->pos[i], none, 1, what);
	}
	for (unsigned i = 0; i < s->sums->sets_nr && r >= 0; i++) {
		snprintf(what, sizeof(what), "copies at %s", ter_pos_text(s->sums->set[i].pos, at));
		r = ter_fixes_counters(&s->fixes, s->sums->set[i].pos, &s->sums->set[i].sectors, 1, what);
	}
	free(rows);
	return ter_min(r, 0);
}

static int compare_sums(struct space *s)
{
	const struct ter_space_sums *sums = s->sums;
	char what[64];
	int r;

	r = compare_sets(s);
	for (unsigned slot = 1; slot <= TER_ALGO_SLOTS_MAX && r >= 0; slot++) {
		snprintf(what, sizeof(what), "compression %u", slot);
		r = ter_fixes_counters(&s->fixes, ter_counter_compression(slot), sums->compression[slot], 3, what);
	}
	for (unsigned b = 0; b < TER_BTREE_NR && r >= 0; b++) {
		snprintf(what, sizeof(what), "btree '%s'", ter_btree_names[b]);
		r = ter_fixes_counters(&s->fixes, ter_counter_btree((enum ter_btree_id)b), sums->btree[b], 2, what);
	}
	if (r >= 0)
		r = ter_fixes_counters(&s->fixes, ter_counter_inodes(), &sums->inodes, 1, "inodes");
	if (r >= 0)
		r = ter_fixes_counters(&s->fixes, ter_counter_reserved(), &sums->reserved, 1, "promised space");
	return ter_min(r, 0);
}

static bool has_entry(struct ter_sb_handle *sb, const struct ter_replicas_entry *entry)
{
	bool has;

	ter_lock_acquire(&sb->lock);
	has = ter_sb_replicas_has(sb->sb, entry);
	ter_lock_release(&sb->lock);
	return has;
}

static int repair_entries(struct space *s)
{
	int r = 0;

	for (unsigned i = 0; i < s->sums->sets_nr && r >= 0; i++) {
		const struct ter_replicas_entry *entry = &s->sums->set[i].entry;

		if (has_entry(s->config->sb, entry))
			continue;
		r = ter_repair_want(&s->repair, PASS, "The superblock does not name the set of %u members from member %u on, which holds %s: it is added.", entry->nr_devs,
				    entry->devs[0], ter_data_type_names[entry->data_type]);
		if (r > 0)
			r = ter_sb_replicas_ensure(s->config->sb, entry, false);
	}
	return r;
}

static int repair_sums(struct space *s)
{
	int r;

	r = ter_repair_settle_btrees(s->config->btrees);
	if (r < 0)
		return r;
	ter_space_refs_first(&s->refs);
	s->refs.sums = s->sums;
	s->refs.to = s->refs.from; /* an empty window: only sums are wanted */
	r = ter_space_refs_collect(&s->refs);
	s->refs.sums = NULL;
	if (r >= 0)
		r = repair_entries(s);
	if (r >= 0)
		r = compare_sums(s);
	return r < 0 ? r : apply(s);
}

/* --- rounds --- */

static int one_round(struct space *s)
{
	int r;

	s->done = 0;
	s->more = false;
	r = ter_alloc_repair_counter_keys(s->config->alloc, &s->fixes);
	if (r >= 0)
		r = apply(s);
	if (r >= 0)
		r = ter_repair_settle_btrees(s->config->btrees);
	if (r >= 0)
		r = ter_space_judge(&s->refs, &s->repair, s->memory_bytes / 8, &s->done, &s->more);
	if (r >= 0)
		r = repair_buckets(s);
	if (r >= 0)
		r = ter_repair_settle_btrees(s->config->btrees);
	if (r >= 0)
		r = ter_alloc_repair_indexes(s->config->alloc, &s->fixes);
	if (r >= 0)
		r = apply(s);
	return r < 0 ? r : repair_sums(s);
}

static int all_rounds(struct space *s)
{
	int r;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		r = one_round(s);
		if (r < 0)
			return r;
		if (!s->done && !s->more)
			return 0;
	}
	return -EBUSY;
}

static int open_guard(struct space *s)
{
	int r;

	if (ter_alloc_repair_is_open(s->config->alloc)) /* by the repair of btrees */
		return 0;
	r = ter_alloc_repair_mark_begin(s->config->alloc, s->memory_bytes / 8);
	if (r < 0)
		return r;
	s->refs.mark = true;
	r = ter_space_refs_collect(&s->refs);
	s->refs.mark = false;
	if (r >= 0)
		ter_alloc_repair_open(s->config->alloc);
	return r;
}

int ter_repair_space(const struct ter_fsck_config *config, struct ter_repair *repair)
{
	struct space *s = ter_new(struct space);
	int r, end;

	if (!s)
		return -ENOMEM;
	s->config = config;
	s->memo.outer = repair;
	s->repair = (struct ter_repair){ .want = memo_want, .step = memo_step, .arg = &s->memo, .memory_bytes = repair->memory_bytes };
	s->memory_bytes = ter_repair_memory(repair);
	s->memo.declined = ter_calloc(DECLINED_NR, sizeof(uint64_t));
	s->sums = ter_new(struct ter_space_sums);
	r = s->memo.declined && s->sums ? ter_space_refs_init(&s->refs, config, s->memory_bytes / 2) : -ENOMEM;
	if (r >= 0)
		r = ter_fixes_init(&s->fixes, config->btrees, &s->repair, s->memory_bytes / 4);
	if (r >= 0)
		r = ter_alloc_repair_begin(config->alloc); /* P1 */
	if (r >= 0)
		r = open_guard(s);
	if (r >= 0)
		r = all_rounds(s);
	end = r == -EUCLEAN ? 0 : ter_alloc_repair_end(config->alloc); /* nodes are damaged: nothing is given out */
	ter_fixes_release(&s->fixes);
	ter_space_refs_release(&s->refs);
	free(s->sums);
	free(s->memo.declined);
	free(s);
	return r < 0 ? r : end;
}

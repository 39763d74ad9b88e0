/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checking: five btrees read side by side. */
#include "alloc/alloc_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "alloc/alloc_priv.h"

#define CURSOR_KEYS 64
#define CURSOR_VAL_MAX 32

/* A btree in order, a few keys at a time. */
struct cursor {
	struct ter_btrees *bt;
	enum ter_btree_id btree;
	struct ter_pos from, to;
	struct ter_key key[CURSOR_KEYS];
	uint64_t val[CURSOR_KEYS][CURSOR_VAL_MAX / 8];
	unsigned nr, at;
	bool end;
};

struct check {
	struct ter_alloc *alloc;
	ter_alloc_report report;
	void *arg;
	int found;
	const struct ter_dev *dev;
	struct cursor keys, ranges, empties, backs;
	int64_t rows[TER_DATA_NR][3];
	uint64_t free_from; /* end of the last bucket that is not free */
};

static void complain(struct check *c, const char *fmt, ...) TER_PRINTF(2, 3);
static void complain(struct check *c, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->found < INT32_MAX)
		c->found++;
	if (c->report)
		c->report(c->arg, text);
}

static int cursor_add(void *arg, const struct ter_key *key)
{
	struct cursor *cur = arg;
	struct ter_key *k = &cur->key[cur->nr];

	*k = *key;
	k->val = cur->val[cur->nr];
	/* A longer value is one that no decoder here accepts: its length is kept, its bytes do not matter. */
	if (key->val_bytes)
		memcpy(cur->val[cur->nr], key->val, ter_min(key->val_bytes, CURSOR_VAL_MAX));
	return ++cur->nr == CURSOR_KEYS;
}

static void cursor_init(struct cursor *cur, struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to)
{
	*cur = (struct cursor){ .bt = bt, .btree = btree, .from = from, .to = to };
}

/* The key now at; NULL at the end. */
static int cursor_peek(struct cursor *cur, const struct ter_key **ret)
{
	int r;

	if (cur->at == cur->nr && !cur->end) {
		cur->at = cur->nr = 0;
		r = ter_btree_scan(cur->bt, cur->btree, cur->from, cur->to, 0, cursor_add, cur, NULL);
		if (r < 0)
			return r;
		cur->end = r == 0;
		if (cur->nr) {
			cur->from = ter_pos_next(cur->key[cur->nr - 1].pos);
			cur->end |= ter_pos_cmp(cur->key[cur->nr - 1].pos, cur->to) == 0;
		}
	}
	*ret = cur->at < cur->nr ? &cur->key[cur->at] : NULL;
	return 0;
}

static void cursor_step(struct cursor *cur)
{
	cur->at++;
}

/* --- free ranges --- */

static int range_now(struct check *c, const struct ter_key **ret)
{
	for (;;) {
		int r = cursor_peek(&c->ranges, ret);

		if (r < 0 || !*ret || !ter_free_range_check(*ret, c->dev))
			return r;
		complain(c, "Member %u: the free range that ends at bucket %" PRIu64 " is malformed.", c->dev->idx, (*ret)->pos.offset);
		cursor_step(&c->ranges);
	}
}

/* By the alloc keys exactly [start, end) is free, and what is left and right of it is not. */
static int expect_free(struct check *c, uint64_t start, uint64_t end)
{
	const struct ter_key *range;
	bool met = false;
	int r;

	if (start >= end)
		return 0;
	for (;;) {
		r = range_now(c, &range);
		if (r < 0)
			return r;
		/* Ranges that begin later belong to what comes; wrong ones are told of once. */
		if (!range || ter_key_start(range) >= end)
			break;
		if (ter_key_start(range) == start && range->pos.offset == end)
			met = true;
		else
			complain(c, "Member %u: buckets %" PRIu64 " to %" PRIu64 " are indexed as a free range, but by their keys the free ones are %" PRIu64 " to %" PRIu64 ".",
				 c->dev->idx, ter_key_start(range), range->pos.offset - 1, start, end - 1);
		cursor_step(&c->ranges);
	}
	if (!met)
		complain(c, "Member %u: buckets %" PRIu64 " to %" PRIu64 " are free, but not indexed as one free range.", c->dev->idx, start, end - 1);
	return 0;
}

/* Bucket @bucket is not free: what is between the last such one and this is. */
static int not_free(struct check *c, uint64_t bucket)
{
	int r = expect_free(c, c->free_from, bucket);

	c->free_from = bucket + 1;
	return r;
}

/* --- empty buckets --- */

/* Steps over the index up to @bucket; *ret_listed: it is there. */
static int empty_listed(struct check *c, uint64_t bucket, bool *ret_listed)
{
	const struct ter_key *key;
	int r;

	*ret_listed = false;
	for (;; cursor_step(&c->empties)) {
		r = cursor_peek(&c->empties, &key);
		if (r < 0)
			return r;
		if (!key || key->pos.offset > bucket)
			return 0;
		if (ter_need_discard_check(key, c->dev) < 0)
			complain(c, "Member %u: the need_discard key of bucket %" PRIu64 " is malformed.", c->dev->idx, key->pos.offset);
		else if (key->pos.offset == bucket)
			*ret_listed = true;
		else
			complain(c, "Member %u: bucket %" PRIu64 " is listed as to be discarded, but it is free.", c->dev->idx, key->pos.offset);
	}
}

/* --- back references --- */

/* Sums up to the end of @bucket. Those of buckets before it belong to free ones. */
static int sum_backs(struct check *c, uint64_t bucket, uint64_t *ret_sectors)
{
	const struct ter_key *key;
	int r;

	*ret_sectors = 0;
	for (;; cursor_step(&c->backs)) {
		struct ter_backpointer bp;
		uint64_t sector;

		r = cursor_peek(&c->backs, &key);
		if (r < 0)
			return r;
		sector = key ? key->pos.offset >> TER_BACKPOINTER_SHIFT : 0;
		if (!key || sector / c->dev->bucket_sectors > bucket)
			return 0;
		if (ter_backpointer_decode(key, c->dev, &bp) < 0)
			complain(c, "Member %u: the back reference at sector %" PRIu64 " is malformed.", c->dev->idx, sector);
		else if (sector / c->dev->bucket_sectors < bucket)
			complain(c, "Member %u: there is a back reference at sector %" PRIu64 ", but bucket %" PRIu64 " is free.", c->dev->idx, sector,
				 sector / c->dev->bucket_sectors);
		else
			*ret_sectors += bp.sectors;
	}
}

/* --- buckets --- */

static uint8_t fixed_type(const struct ter_dev *dev, uint64_t bucket)
{
	if (bucket < dev->first_bucket)
		return TER_DATA_SB;
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++)
		if (bucket - dev->journal[i].first < dev->journal[i].nr)
			return TER_DATA_JOURNAL;
	return TER_DATA_FREE;
}

static int check_bucket(struct check *c, uint64_t bucket, const struct ter_bucket_value *v)
{
	static const char *const state_names[] = { [TER_BUCKET_FREE] = "free", [TER_BUCKET_USED] = "in use", [TER_BUCKET_EMPTY] = "empty" };
	enum ter_bucket_state state = ter_bucket_state(v);
	uint8_t fixed = fixed_type(c->dev, bucket), type = v->data_type;
	uint64_t sectors;
	bool listed;
	int r;

	if (state != TER_BUCKET_FREE) {
		r = not_free(c, bucket);
		if (r < 0)
			return r;
	}
	r = empty_listed(c, bucket, &listed);
	if (r < 0)
		return r;
	if (listed != (state == TER_BUCKET_EMPTY))
		complain(c, "Member %u: bucket %" PRIu64 " is %s, but %s as to be discarded.", c->dev->idx, bucket, state_names[state], listed ? "listed" : "not listed");
	r = sum_backs(c, bucket, &sectors);
	if (r < 0)
		return r;

	if (fixed != TER_DATA_FREE || type == TER_DATA_SB || type == TER_DATA_JOURNAL) {
		if (type != fixed)
			complain(c, "Member %u: bucket %" PRIu64 " is of type %s, but by the superblock of type %s.", c->dev->idx, bucket, ter_data_type_names[type],
				 ter_data_type_names[fixed]);
		if (v->need_discard)
			complain(c, "Member %u: bucket %" PRIu64 " of type %s is marked as to be discarded.", c->dev->idx, bucket, ter_data_type_names[type]);
		if (v->live_sectors != c->dev->bucket_sectors || sectors)
			complain(c, "Member %u: bucket %" PRIu64 " of type %s has %" PRIu32 " live sectors and back references for %" PRIu64 ".", c->dev->idx, bucket,
				 ter_data_type_names[type], v->live_sectors, sectors);
	} else if (sectors != v->live_sectors) {
		complain(c, "Member %u: bucket %" PRIu64 " has %" PRIu32 " live sectors, but back references for %" PRIu64 ".", c->dev->idx, bucket, v->live_sectors, sectors);
	}
	if (state == TER_BUCKET_USED) {
		c->rows[type][0]++;
		c->rows[type][1] += v->live_sectors;
		c->rows[type][2] += v->live_sectors < c->dev->bucket_sectors ? c->dev->bucket_sectors - v->live_sectors : 0;
	} else if (state == TER_BUCKET_EMPTY) {
		c->rows[TER_DATA_NEED_DISCARD][0]++;
	}
	return 0;
}

/* Superblock and journal buckets must have keys: those that lack one in [from, to). */
static void check_fixed_without_key(struct check *c, uint64_t from, uint64_t to)
{
	const struct ter_dev *dev = c->dev;

	if (from < ter_min(to, dev->first_bucket))
		complain(c, "Member %u: bucket %" PRIu64 " holds a superblock, but has no alloc key.", dev->idx, from);
	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++) {
		uint64_t first = ter_max(from, dev->journal[i].first);

		if (first < ter_min(to, dev->journal[i].first + dev->journal[i].nr))
			complain(c, "Member %u: bucket %" PRIu64 " belongs to the journal, but has no alloc key.", dev->idx, first);
	}
}

static int check_buckets(struct check *c)
{
	uint64_t next = 0, sectors;
	bool listed;
	int r;

	c->free_from = 0;
	for (;; cursor_step(&c->keys)) {
		struct ter_bucket_value v;
		const struct ter_key *key;

		r = cursor_peek(&c->keys, &key);
		if (r < 0)
			return r;
		if (!key)
			break;
		if (ter_bucket_decode(key, c->dev, &v) < 0) {
			complain(c, "Member %u: the alloc key of bucket %" PRIu64 " is malformed.", c->dev->idx, key->pos.offset);
			continue;
		}
		check_fixed_without_key(c, next, key->pos.offset);
		next = key->pos.offset + 1;
		r = check_bucket(c, key->pos.offset, &v);
		if (r < 0)
			return r;
	}
	check_fixed_without_key(c, next, c->dev->buckets_nr);
	r = not_free(c, c->dev->buckets_nr);
	if (r < 0)
		return r;
	for (;; cursor_step(&c->ranges)) {
		const struct ter_key *range;

		r = range_now(c, &range);
		if (r < 0)
			return r;
		if (!range)
			break;
		complain(c, "Member %u: buckets %" PRIu64 " to %" PRIu64 " are indexed as a free range, but are not free.", c->dev->idx, ter_key_start(range),
			 range->pos.offset - 1);
	}
	/* What is left in these two lies behind the last alloc key. */
	r = empty_listed(c, UINT64_MAX, &listed);
	if (r < 0)
		return r;
	return sum_backs(c, UINT64_MAX, &sectors);
}

/* --- counters --- */

static int read_row(struct check *c, enum ter_data_type type, int64_t ret[3])
{
	struct ter_pos pos = ter_counter_dev(type, c->dev->idx);
	const struct ter_key *key;
	struct cursor *cur = &c->keys; /* at its end, used again */
	int r;

	memset(ret, 0, 3 * sizeof(ret[0]));
	cursor_init(cur, c->alloc->btrees, TER_BTREE_ACCOUNTING, pos, pos);
	r = cursor_peek(cur, &key);
	if (r < 0 || !key)
		return r;
	if (key->type != TER_KEY_COUNTERS || !key->val_bytes || key->val_bytes % 8 || key->val_bytes > 24) {
		complain(c, "Member %u: its counters of type %s are malformed.", c->dev->idx, ter_data_type_names[type]);
		return 0;
	}
	for (unsigned i = 0; i < key->val_bytes / 8; i++)
		ret[i] = (int64_t)ter_le64_get(((const ter_le64 *)key->val)[i]);
	return 0;
}

static int check_rows(struct check *c)
{
	for (unsigned t = TER_DATA_SB; t < TER_DATA_NR; t++) {
		struct ter_dev_counts *m = &c->alloc->dev[c->dev->idx].counts[t];
		int64_t row[3], memory[3] = { atomic_load(&m->buckets), atomic_load(&m->sectors), atomic_load(&m->fragmented) };
		const int64_t *sum = c->rows[t];
		int r = read_row(c, (enum ter_data_type)t, row);

		if (r < 0)
			return r;
		if (memcmp(row, sum, sizeof(row)))
			complain(c, "Member %u: counters of type %s say %" PRId64 " buckets, %" PRId64 " live and %" PRId64 " fragmented sectors; its buckets add up to %" PRId64
				 ", %" PRId64 " and %" PRId64 ".", c->dev->idx, ter_data_type_names[t], row[0], row[1], row[2], sum[0], sum[1], sum[2]);
		if (memcmp(row, memory, sizeof(row)))
			complain(c, "Member %u: counters of type %s in memory (%" PRId64 ", %" PRId64 ", %" PRId64 ") are not those stored (%" PRId64 ", %" PRId64 ", %" PRId64
				 ").", c->dev->idx, ter_data_type_names[t], memory[0], memory[1], memory[2], row[0], row[1], row[2]);
	}
	return 0;
}

static int check_counter_keys(struct check *c)
{
	struct cursor *cur = &c->keys;

	cursor_init(cur, c->alloc->btrees, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX);
	for (;; cursor_step(cur)) {
		struct ter_replicas_entry entry;
		const struct ter_key *key;
		enum ter_counter_kind kind;
		char text[64];
		int r = cursor_peek(cur, &key);

		if (r < 0 || !key)
			return r;
		kind = ter_counter_kind(key->pos);
		if (!kind || key->type != TER_KEY_COUNTERS || !key->val_bytes || key->val_bytes % 8 || key->val_bytes > 8 * TER_COUNTERS_MAX) {
			complain(c, "The counters at %s are of no known kind.", ter_pos_text(key->pos, text));
			continue;
		}
		for (unsigned i = 0; i < key->val_bytes / 8; i++)
			if ((int64_t)ter_le64_get(((const ter_le64 *)key->val)[i]) < 0)
				complain(c, "Counter %u at %s is negative.", i, ter_pos_text(key->pos, text));
		if (kind == TER_COUNT_REPLICAS && !ter_counter_parse_replicas(key->pos, &entry))
			complain(c, "The counters at %s name no set of members.", ter_pos_text(key->pos, text));
		if (kind == TER_COUNT_DEV && !ter_member(c->alloc->members, (unsigned)(key->pos.inode >> 40 & 0xff)))
			complain(c, "The counters at %s name a member that is not there.", ter_pos_text(key->pos, text));
	}
}

/* --- all --- */

static int check_member(struct check *c, const struct ter_dev *dev)
{
	struct ter_btrees *bt = c->alloc->btrees;
	struct ter_pos from = TER_POS(dev->idx, 0, 0), to = TER_POS(dev->idx, UINT64_MAX, UINT32_MAX);
	int r;

	c->dev = dev;
	memset(c->rows, 0, sizeof(c->rows));
	cursor_init(&c->keys, bt, TER_BTREE_ALLOC, from, to);
	cursor_init(&c->ranges, bt, TER_BTREE_FREESPACE, from, to);
	cursor_init(&c->empties, bt, TER_BTREE_NEED_DISCARD, from, to);
	cursor_init(&c->backs, bt, TER_BTREE_BACKPOINTERS, from, to);
	r = check_buckets(c);
	if (r < 0)
		return r;
	return check_rows(c);
}

static int no_member(void *arg, const struct ter_key *key)
{
	*(struct ter_pos *)arg = key->pos;
	return 1;
}

/* Keys of slots that no member has. */
static int check_no_member(struct check *c, uint64_t from, uint64_t to)
{
	static const enum ter_btree_id btrees[] = { TER_BTREE_ALLOC, TER_BTREE_FREESPACE, TER_BTREE_NEED_DISCARD, TER_BTREE_BACKPOINTERS };

	for (unsigned i = 0; i < ARRAY_SIZE(btrees); i++) {
		struct ter_pos pos;
		int r = ter_btree_scan(c->alloc->btrees, btrees[i], TER_POS(from, 0, 0), TER_POS(to, UINT64_MAX, UINT32_MAX), 0, no_member, &pos, NULL);

		if (r < 0)
			return r;
		if (r == 1)
			complain(c, "Btree %s has keys of member %" PRIu64 ", which does not exist.", ter_btree_names[btrees[i]], pos.inode);
	}
	return 0;
}

static int check_all(struct check *c)
{
	uint64_t next = 0;
	int r;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = ter_member(c->alloc->members, i);

		if (!dev)
			continue;
		r = next < i ? check_no_member(c, next, i - 1) : 0;
		if (r < 0)
			return r;
		next = i + 1;
		r = check_member(c, dev);
		if (r < 0)
			return r;
	}
	r = check_no_member(c, next, UINT64_MAX);
	if (r < 0)
		return r;
	return check_counter_keys(c);
}

int ter_alloc_check(struct ter_alloc *alloc, ter_alloc_report report, void *arg)
{
	struct check *c = ter_new(struct check);
	int r;

	if (!c)
		return -ENOMEM;
	c->alloc = alloc;
	c->report = report;
	c->arg = arg;
	r = check_all(c);
	if (!r)
		r = c->found;
	free(c);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: what ALLOC, its indexes, back references and the members' counters should be, and what is to be changed for it. */
#include "alloc/alloc_repair.h"

#include <inttypes.h>
#include <stdio.h>

#include "alloc/alloc_priv.h"

#define CURSOR_BYTES TER_KIB(64)
#define PASS "alloc"

uint32_t ter_bucket_raw_gen_(const struct ter_key *key)
{
	return key->type == TER_KEY_ALLOC && key->val_bytes >= 4 ? ter_le32_get(*(const ter_le32 *)key->val) : 0;
}

/* --- a btree in order, some keys at a time --- */

struct cursor {
	struct ter_btrees *bt;
	enum ter_btree_id btree;
	struct ter_pos from, to;
	uint8_t *keys; /* CURSOR_BYTES */
	size_t used, at;
	struct ter_key key; /* at @at */
	bool end;
};

static int cursor_add(void *arg, const struct ter_key *key)
{
	struct cursor *cur = arg;
	const uint32_t bytes = ter_key_disk_bytes(key->val_bytes);

	if (cur->used && bytes > CURSOR_BYTES - cur->used)
		return 1;
	if (bytes > CURSOR_BYTES) { /* no key of ours: longer than the longest by far; its head is enough to be told and deleted */
		struct ter_key head = *key;

		head.val_bytes = (uint32_t)(CURSOR_BYTES / 2);
		ter_key_encode(&head, cur->keys);
		cur->used = ter_key_disk_bytes(head.val_bytes);
		return 1;
	}
	ter_key_encode(key, cur->keys + cur->used);
	cur->used += bytes;
	return 0;
}

static int cursor_init(struct cursor *cur, struct ter_btrees *bt, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to)
{
	*cur = (struct cursor){ .bt = bt, .btree = btree, .from = from, .to = to };
	cur->keys = ter_malloc(CURSOR_BYTES);
	return cur->keys ? 0 : -ENOMEM;
}

static void cursor_release(struct cursor *cur)
{
	free(cur->keys);
}

static void cursor_decode(struct cursor *cur)
{
	if (cur->at < cur->used)
		ter_key_decode((const struct ter_key_disk *)(cur->keys + cur->at), &cur->key);
}

/* The key now at; NULL at the end. */
static int cursor_peek(struct cursor *cur, const struct ter_key **ret)
{
	int r;

	if (cur->at == cur->used && !cur->end) {
		cur->at = cur->used = 0;
		r = ter_btree_scan(cur->bt, cur->btree, cur->from, cur->to, 0, cursor_add, cur, NULL);
		if (r < 0)
			return r;
		cur->end = r == 0;
		cursor_decode(cur);
	}
	*ret = cur->at < cur->used ? &cur->key : NULL;
	return 0;
}

static void cursor_step(struct cursor *cur)
{
	const struct ter_pos pos = cur->key.pos;

	cur->at += ter_key_disk_bytes(cur->key.val_bytes);
	if (cur->at == cur->used && ter_pos_cmp(pos, cur->to) >= 0)
		cur->end = true;
	else
		cur->from = ter_pos_next(pos);
	cursor_decode(cur);
}

/* --- back references --- */

struct window {
	struct ter_fixes *fixes;
	const struct ter_dev *dev;
	const struct ter_space_ref *refs;
	size_t nr, at;
	struct cursor cur;
};

static struct ter_pos ref_bp_pos(const struct ter_space_ref *ref)
{
	return ter_backpointer_pos(ref->dev, ref->sector, ref->live_offset);
}

static bool back_is(const struct ter_key *key, const struct ter_dev *dev, const struct ter_space_ref *ref)
{
	struct ter_backpointer bp;

	return ter_backpointer_decode(key, dev, &bp) == 0 && !ter_pos_cmp(bp.pos, ref->pos) && bp.btree == ref->btree && bp.level == ref->level && bp.sectors == ref->counts;
}

static int drop_back(struct window *w, const struct ter_key *key)
{
	const uint64_t sector = key->pos.offset >> TER_BACKPOINTER_SHIFT;
	int r = ter_repair_want(w->fixes->repair, PASS, "Member %u: the back reference at sector %" PRIu64 "+%u belongs to no pointer: it is removed.", w->dev->idx, sector,
				(unsigned)(key->pos.offset & ((1u << TER_BACKPOINTER_SHIFT) - 1)));

	if (r > 0)
		ter_fixes_set(w->fixes, TER_BTREE_BACKPOINTERS, key->pos, key, NULL);
	return r;
}

static int set_back(struct window *w, const struct ter_key *old, const struct ter_space_ref *ref)
{
	const struct ter_backpointer bp = { .pos = ref->pos, .sectors = ref->counts, .btree = ref->btree, .level = ref->level };
	struct ter_backpointer_disk d;
	const struct ter_key key = { .pos = ref_bp_pos(ref), .val_bytes = sizeof(d), .type = TER_KEY_BACKPOINTER, .val = &d };
	char at[64];
	int r;

	r = ter_repair_want(w->fixes->repair, PASS, "Member %u: the key of btree '%s' at %s points to sector %" PRIu64 ", %s: it is %s.", w->dev->idx, ter_btree_names[ref->btree],
			    ter_pos_text(ref->pos, at), ref->sector, old ? "whose back reference says something else" : "which has no back reference", old ? "corrected" : "added");
	if (r <= 0)
		return r;
	ter_backpointer_encode(&bp, &d);
	ter_fixes_set(w->fixes, TER_BTREE_BACKPOINTERS, key.pos, old, &key);
	return r;
}

static int compare_backs(struct window *w, uint64_t from, uint64_t to)
{
	const uint64_t bucket_sectors = w->dev->bucket_sectors;
	/* The last bucket's references, and whatever lies behind it, is the last window's. */
	const uint64_t last = to >= w->dev->buckets_nr ? UINT64_MAX : (to * bucket_sectors << TER_BACKPOINTER_SHIFT) - 1;
	const struct ter_key *key;
	int r;

	r = cursor_init(&w->cur, w->fixes->bt, TER_BTREE_BACKPOINTERS, TER_POS(w->dev->idx, from * bucket_sectors << TER_BACKPOINTER_SHIFT, 0),
			TER_POS(w->dev->idx, last, UINT32_MAX));
	if (r < 0)
		return r;
	for (;;) {
		const struct ter_space_ref *ref = w->at < w->nr ? &w->refs[w->at] : NULL;
		int cmp;

		if (ref && w->at && !ter_pos_cmp(ref_bp_pos(ref), ref_bp_pos(ref - 1))) {
			w->at++; /* two that claim the same place, and it was to stay so */
			continue;
		}
		r = cursor_peek(&w->cur, &key);
		if (r < 0 || (!key && !ref) || ter_fixes_full(w->fixes))
			break;
		cmp = !key ? 1 : !ref ? -1 : ter_pos_cmp(key->pos, ref_bp_pos(ref));
		if (cmp < 0)
			r = drop_back(w, key);
		else if (cmp > 0)
			r = set_back(w, NULL, ref);
		else if (!back_is(key, w->dev, ref))
			r = set_back(w, key, ref);
		if (r < 0)
			break;
		if (cmp <= 0)
			cursor_step(&w->cur);
		if (cmp >= 0)
			w->at++;
	}
	cursor_release(&w->cur);
	return ter_min(r, 0);
}

/* --- alloc keys --- */

/* The first bucket at or after @bucket that superblock or journal have; UINT64_MAX: none. */
static uint64_t next_fixed(const struct ter_dev *dev, uint64_t bucket)
{
	uint64_t next = bucket < dev->first_bucket ? bucket : UINT64_MAX;

	for (unsigned i = 0; i < TER_JOURNAL_RANGES_MAX && dev->journal[i].nr; i++)
		if (bucket < dev->journal[i].first + dev->journal[i].nr)
			next = ter_min(next, ter_max(bucket, dev->journal[i].first));
	return next;
}

/* What the key of @bucket should be, from the pointers and from what it says now (valid or not). */
static struct ter_bucket_value right_value(const struct ter_dev *dev, uint64_t bucket, const struct ter_space_ref *refs, size_t nr, const struct ter_bucket_value *now)
{
	struct ter_bucket_value v = { .gen = now->gen };
	uint64_t live = 0;

	v.data_type = ter_bucket_fixed_type(dev, bucket);
	if (v.data_type != TER_DATA_FREE) {
		v.live_sectors = dev->bucket_sectors;
		return v;
	}
	if (!nr) {
		if (ter_bucket_state(now) == TER_BUCKET_FREE)
			return v;
		v.need_discard = true; /* written to, and nothing is left: B2 takes it from here */
		v.data_type = now->data_type >= TER_DATA_BTREE && now->data_type < TER_DATA_NEED_DISCARD ? now->data_type : TER_DATA_USER;
		return v;
	}
	v.gen = refs[0].gen;
	for (size_t i = 0; i < nr; i++) {
		live += refs[i].counts;
		if (refs[i].gen == now->gen)
			v.gen = now->gen;
		if (refs[i].data_type == TER_DATA_BTREE || !v.data_type)
			v.data_type = refs[i].data_type;
	}
	v.gen = ter_max(v.gen, now->gen); /* B1 */
	v.live_sectors = (uint32_t)ter_min(live, TER_ALLOC_LIVE_MAX(dev->bucket_sectors));
	v.need_discard = true;
	return v;
}

static bool value_is(const struct ter_bucket_value *a, const struct ter_bucket_value *b)
{
	return a->gen == b->gen && a->live_sectors == b->live_sectors && a->data_type == b->data_type && a->need_discard == b->need_discard;
}

static int fix_bucket(struct window *w, uint64_t bucket, const struct ter_key *key, const struct ter_space_ref *refs, size_t nr)
{
	static const struct ter_bucket_value none;
	struct ter_bucket_value now = { 0 }, right;
	bool valid = true;
	struct ter_alloc_disk d;
	const struct ter_key new_key = { .pos = ter_bucket_pos(w->dev->idx, bucket), .val_bytes = sizeof(d), .type = TER_KEY_ALLOC, .val = &d };
	int r;

	if (key && ter_bucket_decode(key, w->dev, &now) < 0) {
		valid = false;
		/* Not known what it was: as if written to. */
		now = (struct ter_bucket_value){ .gen = ter_bucket_raw_gen_(key), .need_discard = true, .data_type = TER_DATA_USER };
	}
	right = right_value(w->dev, bucket, refs, nr, &now);
	if (valid && value_is(&right, &now))
		return 0;
	if (!valid)
		r = ter_repair_want(w->fixes->repair, PASS, "Member %u: the alloc key of bucket %" PRIu64 " is malformed: it is made anew (%s, %" PRIu32 " live sectors, generation %" PRIu32 ").",
				    w->dev->idx, bucket, ter_data_type_names[right.data_type], right.live_sectors, right.gen);
	else
		r = ter_repair_want(w->fixes->repair, PASS, "Member %u: bucket %" PRIu64 " is said to be of type %s with %" PRIu32 " live sectors and generation %" PRIu32
				    "; by what points there it is %s, %" PRIu32 ", %" PRIu32 ": corrected.", w->dev->idx, bucket, ter_data_type_names[now.data_type],
				    now.live_sectors, now.gen, ter_data_type_names[right.data_type], right.live_sectors, right.gen);
	if (r <= 0)
		return r;
	ter_bucket_encode(&right, &d);
	ter_fixes_set(w->fixes, TER_BTREE_ALLOC, new_key.pos, key, value_is(&right, &none) ? NULL : &new_key);
	return 0;
}

/* The next key of a bucket that there is; others are removed. */
static int peek_bucket(struct window *w, const struct ter_key **ret)
{
	int r;

	for (;; cursor_step(&w->cur)) {
		r = cursor_peek(&w->cur, ret);
		if (r < 0 || !*ret || ter_fixes_full(w->fixes) || ((*ret)->pos.offset < w->dev->buckets_nr && !(*ret)->pos.snapshot))
			return r;
		r = ter_repair_want(w->fixes->repair, PASS, "Member %u has no bucket %" PRIu64 ".%" PRIu32 ": its alloc key is removed.", w->dev->idx, (*ret)->pos.offset,
				    (*ret)->pos.snapshot);
		if (r < 0)
			return r;
		if (r > 0)
			ter_fixes_set(w->fixes, TER_BTREE_ALLOC, (*ret)->pos, *ret, NULL);
	}
}

static int compare_buckets(struct window *w, uint64_t from, uint64_t to)
{
	const uint64_t bucket_sectors = w->dev->bucket_sectors, end = to >= w->dev->buckets_nr ? UINT64_MAX : to;
	const struct ter_key *key;
	int r;

	r = cursor_init(&w->cur, w->fixes->bt, TER_BTREE_ALLOC, ter_bucket_pos(w->dev->idx, from), TER_POS(w->dev->idx, end == UINT64_MAX ? end : end - 1, UINT32_MAX));
	w->at = 0;
	for (uint64_t bucket = from; r >= 0; bucket++) {
		const size_t first = w->at;

		r = peek_bucket(w, &key);
		if (r < 0 || ter_fixes_full(w->fixes))
			break;
		bucket = next_fixed(w->dev, bucket);
		if (bucket >= end)
			bucket = UINT64_MAX;
		if (key)
			bucket = ter_min(bucket, key->pos.offset);
		if (first < w->nr)
			bucket = ter_min(bucket, w->refs[first].sector / bucket_sectors);
		if (bucket == UINT64_MAX)
			break;
		while (w->at < w->nr && w->refs[w->at].sector / bucket_sectors == bucket)
			w->at++;
		if (key && key->pos.offset != bucket)
			key = NULL;
		r = fix_bucket(w, bucket, key, &w->refs[first], w->at - first);
		if (key)
			cursor_step(&w->cur);
	}
	cursor_release(&w->cur);
	return ter_min(r, 0);
}

int ter_alloc_repair_buckets(struct ter_alloc *alloc, struct ter_fixes *fixes, const struct ter_dev *dev, uint64_t from, uint64_t to, const struct ter_space_ref *refs, size_t nr)
{
	struct window w = { .fixes = fixes, .dev = dev, .refs = refs, .nr = nr };
	int r;

	(void)alloc;
	r = compare_backs(&w, from, to);
	return r < 0 ? r : compare_buckets(&w, from, to);
}

/* --- indexes and rows, from ALLOC --- */

struct member {
	struct ter_alloc *alloc;
	struct ter_fixes *fixes;
	const struct ter_dev *dev;
	struct cursor keys, ranges, empties;
	int64_t rows[TER_DATA_NR][3];
	uint64_t free_from;
};

static int drop_range(struct member *m, const struct ter_key *key)
{
	int r = ter_repair_want(m->fixes->repair, PASS, "Member %u: the free range of %" PRIu32 " buckets that ends at %" PRIu64 " is not what is free: it is removed.", m->dev->idx, key->size,
				key->pos.offset);

	if (r > 0)
		ter_fixes_set(m->fixes, TER_BTREE_FREESPACE, key->pos, key, NULL);
	return r;
}

static int set_range(struct member *m, const struct ter_key *old, uint64_t start, uint64_t end)
{
	const struct ter_key key = { .pos = ter_bucket_pos(m->dev->idx, end), .size = (uint32_t)(end - start), .type = TER_KEY_FREE_RANGE };
	int r = ter_repair_want(m->fixes->repair, PASS, "Member %u: buckets %" PRIu64 " to %" PRIu64 " are free, but not indexed as one free range: corrected.", m->dev->idx, start, end - 1);

	if (r > 0)
		ter_fixes_set(m->fixes, TER_BTREE_FREESPACE, key.pos, old, &key);
	return r;
}

/* By ALLOC [start, end) is free, what is left and right of it is not: the index holds exactly this one up to here. */
static int expect_range(struct member *m, uint64_t start, uint64_t end)
{
	const struct ter_pos pos = ter_bucket_pos(m->dev->idx, end);
	const struct ter_key *key;
	int r, cmp;

	for (;;) {
		r = cursor_peek(&m->ranges, &key);
		if (r < 0 || ter_fixes_full(m->fixes))
			return r;
		cmp = key ? ter_pos_cmp(key->pos, pos) : 1;
		if (cmp >= 0)
			break;
		r = drop_range(m, key);
		if (r < 0)
			return r;
		cursor_step(&m->ranges);
	}
	if (start >= end)
		return 0;
	if (cmp == 0 && (ter_free_range_check(key, m->dev) < 0 || ter_key_start(key) != start))
		r = set_range(m, key, start, end);
	else if (cmp > 0)
		r = set_range(m, NULL, start, end);
	if (cmp == 0)
		cursor_step(&m->ranges);
	return r;
}

/* NEED_DISCARD holds nothing up to @bucket, which it holds if @empty. */
static int expect_empty(struct member *m, uint64_t bucket, bool empty)
{
	const struct ter_pos pos = ter_bucket_pos(m->dev->idx, bucket);
	const struct ter_key set = { .pos = pos, .type = TER_KEY_SET }, *key;
	int r, cmp;

	for (;;) {
		r = cursor_peek(&m->empties, &key);
		if (r < 0 || ter_fixes_full(m->fixes))
			return r;
		cmp = key ? ter_pos_cmp(key->pos, pos) : 1;
		if (cmp > 0 || (cmp == 0 && empty))
			break;
		r = ter_repair_want(m->fixes->repair, PASS, "Member %u: bucket %" PRIu64 " is listed as to be discarded, but it is not empty: it is taken off the list.", m->dev->idx,
				    key->pos.offset);
		if (r > 0)
			ter_fixes_set(m->fixes, TER_BTREE_NEED_DISCARD, key->pos, key, NULL);
		if (r < 0)
			return r;
		cursor_step(&m->empties);
	}
	if (!empty)
		return 0;
	if (cmp == 0 && ter_need_discard_check(key, m->dev) == 0) {
		cursor_step(&m->empties);
		return 0;
	}
	r = ter_repair_want(m->fixes->repair, PASS, "Member %u: bucket %" PRIu64 " is empty, but not listed as to be discarded: it is listed.", m->dev->idx, bucket);
	if (r > 0)
		ter_fixes_set(m->fixes, TER_BTREE_NEED_DISCARD, pos, cmp == 0 ? key : NULL, &set);
	if (cmp == 0)
		cursor_step(&m->empties);
	return r;
}

static int walk_buckets(struct member *m)
{
	const struct ter_key *key;
	int r;

	for (;; cursor_step(&m->keys)) {
		struct ter_bucket_value v;
		enum ter_bucket_state state;

		r = cursor_peek(&m->keys, &key);
		if (r < 0 || !key || ter_fixes_full(m->fixes))
			break;
		if (ter_bucket_decode(key, m->dev, &v) < 0)
			v = (struct ter_bucket_value){ .live_sectors = m->dev->bucket_sectors, .data_type = TER_DATA_FREE }; /* it was to stay so: nobody gets it */
		state = ter_bucket_state(&v);
		if (state != TER_BUCKET_FREE && key->pos.offset < m->dev->buckets_nr) {
			r = expect_range(m, m->free_from, key->pos.offset);
			if (r < 0)
				return r;
			m->free_from = key->pos.offset + 1;
		}
		r = expect_empty(m, key->pos.offset, state == TER_BUCKET_EMPTY);
		if (r < 0)
			return r;
		if (state == TER_BUCKET_USED && v.data_type) {
			m->rows[v.data_type][0]++;
			m->rows[v.data_type][1] += v.live_sectors;
			m->rows[v.data_type][2] += v.live_sectors < m->dev->bucket_sectors ? m->dev->bucket_sectors - v.live_sectors : 0;
		} else if (state == TER_BUCKET_EMPTY) {
			m->rows[TER_DATA_NEED_DISCARD][0]++;
		}
	}
	if (r >= 0)
		r = expect_range(m, m->free_from, m->dev->buckets_nr);
	if (r >= 0)
		r = expect_range(m, UINT64_MAX, UINT64_MAX);
	return r < 0 ? r : expect_empty(m, UINT64_MAX, false);
}

static int read_counters(struct ter_btrees *bt, struct ter_pos pos, int64_t ret[TER_COUNTERS_MAX])
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	memset(ret, 0, TER_COUNTERS_MAX * sizeof(ret[0]));
	ter_trans_init(&trans, bt, 0);
	r = ter_trans_get(&trans, TER_BTREE_ACCOUNTING, pos, &key);
	for (unsigned i = 0; r >= 0 && i < TER_COUNTERS_MAX && (i + 1) * 8 <= key.val_bytes; i++)
		ret[i] = (int64_t)ter_le64_get(((const ter_le64 *)key.val)[i]);
	ter_trans_exit(&trans);
	return r == -ENOENT ? 0 : r;
}

int ter_fixes_counters(struct ter_fixes *fixes, struct ter_pos pos, const int64_t *right, unsigned nr, const char *what)
{
	int64_t now[TER_COUNTERS_MAX], deltas[TER_COUNTERS_MAX] = { 0 };
	bool wrong = false;
	int r;

	if (ter_fixes_full(fixes))
		return 0;
	r = read_counters(fixes->bt, pos, now);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < TER_COUNTERS_MAX; i++) {
		deltas[i] = (i < nr ? right[i] : 0) - now[i];
		wrong |= deltas[i] != 0;
	}
	if (!wrong)
		return 0;
	r = ter_repair_want(fixes->repair, PASS, "The counters of %s say %" PRId64 ", %" PRId64 ", %" PRId64 "; it adds up to %" PRId64 ", %" PRId64 ", %" PRId64 ": corrected.", what, now[0],
			    now[1], now[2], right[0], nr > 1 ? right[1] : 0, nr > 2 ? right[2] : 0);
	if (r > 0)
		ter_fixes_add(fixes, pos, deltas, deltas[3] || now[3] ? 4 : nr);
	return r;
}

static int compare_rows(struct member *m)
{
	char what[96];
	int r = 0;

	for (unsigned t = TER_DATA_FREE; t < TER_DATA_NR && r >= 0; t++) {
		static const int64_t none[3];

		snprintf(what, sizeof(what), "member %u, type %s,", m->dev->idx, ter_data_type_names[t]);
		r = ter_fixes_counters(m->fixes, ter_counter_dev((enum ter_data_type)t, m->dev->idx), t == TER_DATA_FREE ? none : m->rows[t], 3, what);
	}
	return ter_min(r, 0);
}

static int repair_member(struct ter_alloc *alloc, struct ter_fixes *fixes, const struct ter_dev *dev)
{
	struct member *m = ter_new(struct member);
	struct ter_pos from = TER_POS(dev->idx, 0, 0), to = TER_POS(dev->idx, UINT64_MAX, UINT32_MAX);
	int r;

	if (!m)
		return -ENOMEM;
	m->alloc = alloc;
	m->fixes = fixes;
	m->dev = dev;
	r = cursor_init(&m->keys, alloc->btrees, TER_BTREE_ALLOC, from, to);
	if (r >= 0)
		r = cursor_init(&m->ranges, alloc->btrees, TER_BTREE_FREESPACE, from, to);
	if (r >= 0)
		r = cursor_init(&m->empties, alloc->btrees, TER_BTREE_NEED_DISCARD, from, to);
	if (r >= 0)
		r = walk_buckets(m);
	if (r >= 0 && !fixes->full)
		r = compare_rows(m);
	cursor_release(&m->keys);
	cursor_release(&m->ranges);
	cursor_release(&m->empties);
	free(m);
	return r;
}

/* --- keys of no member --- */

static int drop_no_member(struct ter_fixes *fixes, enum ter_btree_id btree, uint64_t from, uint64_t to)
{
	struct cursor cur;
	const struct ter_key *key;
	int r = cursor_init(&cur, fixes->bt, btree, TER_POS(from, 0, 0), TER_POS(to, UINT64_MAX, UINT32_MAX));

	while (r >= 0) {
		r = cursor_peek(&cur, &key);
		if (r < 0 || !key || ter_fixes_full(fixes))
			break;
		r = ter_repair_want(fixes->repair, PASS, "Btree '%s' has a key of member %" PRIu64 ", which does not exist: it is removed.", ter_btree_names[btree], key->pos.inode);
		if (r > 0)
			ter_fixes_set(fixes, btree, key->pos, key, NULL);
		cursor_step(&cur);
	}
	cursor_release(&cur);
	return ter_min(r, 0);
}

static int drop_no_members(struct ter_fixes *fixes, uint64_t from, uint64_t to)
{
	static const enum ter_btree_id btrees[] = { TER_BTREE_ALLOC, TER_BTREE_FREESPACE, TER_BTREE_NEED_DISCARD, TER_BTREE_BACKPOINTERS };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(btrees) && r >= 0; i++)
		r = drop_no_member(fixes, btrees[i], from, to);
	return r;
}

int ter_alloc_repair_indexes(struct ter_alloc *alloc, struct ter_fixes *fixes)
{
	uint64_t next = 0;
	int r = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX && r >= 0; i++) {
		const struct ter_dev *dev = ter_member(alloc->members, i);

		if (!dev)
			continue;
		r = next < i ? drop_no_members(fixes, next, i - 1) : 0;
		next = i + 1;
		if (r >= 0)
			r = repair_member(alloc, fixes, dev);
	}
	return r < 0 ? r : drop_no_members(fixes, next, UINT64_MAX);
}

/* --- counters that cannot be valid --- */

static bool counter_valid(struct ter_alloc *alloc, const struct ter_key *key)
{
	const enum ter_counter_kind kind = ter_counter_kind(key->pos);
	struct ter_replicas_entry entry;

	if (!kind || key->type != TER_KEY_COUNTERS || key->val_version || key->size || !key->val_bytes || key->val_bytes % 8 || key->val_bytes > 8 * TER_COUNTERS_MAX)
		return false;
	if (kind == TER_COUNT_REPLICAS && !ter_counter_parse_replicas(key->pos, &entry))
		return false;
	if (kind == TER_COUNT_COMPRESSION && (!(key->pos.inode >> 48 & 0xff) || (key->pos.inode >> 48 & 0xff) > TER_ALGO_SLOTS_MAX))
		return false;
	return kind != TER_COUNT_DEV || ter_member(alloc->members, (unsigned)(key->pos.inode >> 40 & 0xff));
}

int ter_alloc_repair_counter_keys(struct ter_alloc *alloc, struct ter_fixes *fixes)
{
	struct cursor cur;
	const struct ter_key *key;
	char at[64];
	int r = cursor_init(&cur, alloc->btrees, TER_BTREE_ACCOUNTING, TER_POS_MIN, TER_POS_MAX);

	while (r >= 0) {
		r = cursor_peek(&cur, &key);
		if (r < 0 || !key || ter_fixes_full(fixes))
			break;
		if (!counter_valid(alloc, key)) {
			r = ter_repair_want(fixes->repair, PASS, "The counters at %s cannot be valid: they are removed.", ter_pos_text(key->pos, at));
			if (r > 0)
				ter_fixes_set(fixes, TER_BTREE_ACCOUNTING, key->pos, key, NULL);
		}
		cursor_step(&cur);
	}
	cursor_release(&cur);
	return ter_min(r, 0);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair: judging pointers, a bucket at a time
 *
 * First what is wrong is noted for all windows, then it is changed, a key at a time in order of keys, as long as the key is still what it was. Derived keys are not touched here: they follow.
 */
#include "recovery/space_judge.h"

#include "btree/salvage.h"
#include "util/mem.h"

#define PASS "pointers"
#define PIECES_MAX 256 /* what is left of a lost range between other extents */

enum verdict {
	GOOD,
	STRAY,      /* to no bucket */
	STALE,      /* another generation */
	MIXED,      /* data in a bucket of nodes, or the other way round */
	CLAIMED,    /* what is there is somebody else's */
	OLD_GEN,    /* the bucket's generation was damaged (P3) */
	UNREADABLE, /* of a node: it is not there */
};
static const char *const reasons[] = {
	[GOOD] = "", [STRAY] = "where no data can be", [STALE] = "with a generation that its bucket does not have", [MIXED] = "into a bucket of another kind",
	[CLAIMED] = "to what another pointer has", [OLD_GEN] = "with a generation older than its bucket's", [UNREADABLE] = "to where the node is not",
};

struct bad_ptr {
	struct ter_pos pos;
	uint64_t sector;
	uint32_t gen; /* the pointer's, or for OLD_GEN what it is to be */
	uint8_t dev, btree, level, verdict;
};

struct judge {
	struct ter_space_refs *refs;
	struct ter_repair *repair;
	struct bad_ptr *bad;
	size_t nr, max;
	bool more;
	uint64_t done;
};

static int note(struct judge *j, const struct ter_space_ref *ref, enum verdict verdict, uint32_t gen)
{
	if (j->nr == j->max) {
		j->more = true;
		return 0;
	}
	j->bad[j->nr++] = (struct bad_ptr){
		.pos = ref->pos, .sector = ref->sector, .gen = gen, .dev = ref->dev, .btree = ref->btree, .level = ref->level, .verdict = (uint8_t)verdict,
	};
	return 0;
}

static int on_stray(void *arg, const struct ter_space_ref *ref, const char *why)
{
	struct judge *j = arg;

	(void)why;
	/* Each window's scan meets them all. */
	return j->refs->from.dev || j->refs->from.bucket ? 0 : note(j, ref, STRAY, ref->gen);
}

/* --- one bucket --- */

/* The generation that most pointers have; of as many the higher. */
static uint32_t majority_gen(const struct ter_space_ref *ref, size_t nr)
{
	uint32_t best = 0;
	size_t best_nr = 0;

	for (size_t i = 0; i < nr; i++) {
		size_t same = 0;

		if (best_nr && ref[i].gen == best)
			continue;
		for (size_t k = i; k < nr; k++)
			same += ref[k].gen == ref[i].gen;
		if (same > best_nr || (same == best_nr && ref[i].gen > best)) {
			best = ref[i].gen;
			best_nr = same;
		}
		if (best_nr > nr / 2)
			break;
	}
	return best;
}

static void judge_gens(struct ter_space_ref *ref, size_t nr, bool known, const struct ter_bucket_value *bucket)
{
	uint32_t most = majority_gen(ref, nr), gen = most;
	bool match = false, regen = false;

	for (size_t i = 0; i < nr; i++)
		match |= ref[i].gen == bucket->gen;
	if (known && (match || most < bucket->gen)) {
		gen = bucket->gen;
		regen = !match && ter_bucket_state(bucket) == TER_BUCKET_USED; /* P3 */
	}
	for (size_t i = 0; i < nr; i++)
		if (ref[i].gen != gen)
			ref[i].verdict = regen && ref[i].gen == most ? OLD_GEN : STALE;
}

/* Is the copy of this node where the pointer says? Only asked where something else claims to be there, too. */
static bool node_is_there(struct judge *j, const struct ter_space_ref *ref)
{
	return ter_btree_node_is_at(j->refs->config->btrees, (enum ter_btree_id)ref->btree, ref->level - 1u, ref->pos, ref->dev, ref->sector);
}

static bool wrong(const struct ter_space_ref *ref)
{
	return ref->verdict != GOOD && ref->verdict != OLD_GEN;
}

static void judge_types(struct judge *j, struct ter_space_ref *ref, size_t nr)
{
	bool nodes = false, data = false, user = false;

	for (size_t i = 0; i < nr; i++) {
		nodes |= !wrong(&ref[i]) && ref[i].data_type == TER_DATA_BTREE;
		data |= !wrong(&ref[i]) && ref[i].data_type != TER_DATA_BTREE;
	}
	if (nodes && data) {
		nodes = false;
		for (size_t i = 0; i < nr; i++) {
			if (wrong(&ref[i]) || ref[i].data_type != TER_DATA_BTREE)
				continue;
			if (node_is_there(j, &ref[i]))
				nodes = true;
			else
				ref[i].verdict = UNREADABLE;
		}
	}
	for (size_t i = 0; i < nr && nodes; i++)
		if (!wrong(&ref[i]) && ref[i].data_type != TER_DATA_BTREE)
			ref[i].verdict = MIXED;
	for (size_t i = 0; i < nr; i++)
		user |= !wrong(&ref[i]) && ref[i].data_type == TER_DATA_USER;
	for (size_t i = 0; i < nr && user; i++)
		if (!wrong(&ref[i]) && ref[i].data_type == TER_DATA_CACHED)
			ref[i].verdict = MIXED;
}

static bool ranges_meet(uint64_t a, uint64_t a_nr, uint64_t b, uint64_t b_nr)
{
	return a < b + b_nr && b < a + a_nr;
}

/* Pieces of one stored extent share its sectors, but no part of the raw data; beside that nothing is shared. */
static bool in_conflict(const struct ter_space_ref *a, const struct ter_space_ref *b)
{
	const bool a_packed = a->raw_sectors != a->stored_sectors, b_packed = b->raw_sectors != b->stored_sectors;

	if (a->data_type == TER_DATA_BTREE || b->data_type == TER_DATA_BTREE)
		return ranges_meet(a->sector, a->stored_sectors, b->sector, b->stored_sectors);
	if (a_packed && b_packed && a->sector == b->sector && a->stored_sectors == b->stored_sectors && a->raw_sectors == b->raw_sectors)
		return ranges_meet(a->live_offset, a->live_sectors, b->live_offset, b->live_sectors);
	if (!a_packed && !b_packed)
		return ranges_meet(a->sector + a->live_offset, a->live_sectors, b->sector + b->live_offset, b->live_sectors);
	return ranges_meet(a->sector, a->stored_sectors, b->sector, b->stored_sectors);
}

/* 1: the back reference names it. */
static int has_witness(struct judge *j, const struct ter_space_ref *ref)
{
	const struct ter_dev *dev = ter_member(j->refs->config->members, ref->dev);
	struct ter_backpointer bp;
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, j->refs->config->btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_BACKPOINTERS, ter_backpointer_pos(ref->dev, ref->sector, ref->live_offset), &key);
	if (r >= 0)
		r = ter_backpointer_decode(&key, dev, &bp) == 0 && !ter_pos_cmp(bp.pos, ref->pos) && bp.btree == ref->btree && bp.level == ref->level;
	ter_trans_exit(&trans);
	return r == -ENOENT ? 0 : r;
}

static int judge_two(struct judge *j, struct ter_space_ref *a, struct ter_space_ref *b)
{
	int wa, wb;

	if (a->data_type == TER_DATA_BTREE && !node_is_there(j, a))
		a->verdict = UNREADABLE;
	if (b->data_type == TER_DATA_BTREE && !node_is_there(j, b))
		b->verdict = UNREADABLE;
	if (wrong(a) || wrong(b))
		return 0;
	wa = has_witness(j, a);
	wb = wa < 0 ? wa : has_witness(j, b);
	if (wb < 0)
		return wb;
	/* Neither or both: the first in order of keys keeps it. */
	(wa > wb ? b : wb > wa ? a : ter_pos_cmp(a->pos, b->pos) <= 0 ? b : a)->verdict = CLAIMED;
	return 0;
}

static int judge_claims(struct judge *j, struct ter_space_ref *ref, size_t nr)
{
	int r = 0;

	for (size_t i = 0; i < nr && r >= 0; i++)
		for (size_t k = i + 1; k < nr && r >= 0 && !wrong(&ref[i]) && ref[k].sector < ref[i].sector + ref[i].stored_sectors; k++)
			if (!wrong(&ref[k]) && in_conflict(&ref[i], &ref[k]))
				r = judge_two(j, &ref[i], &ref[k]);
	return r;
}

static int judge_bucket(struct judge *j, struct ter_trans *trans, struct ter_space_ref *ref, size_t nr)
{
	const struct ter_dev *dev = ter_member(j->refs->config->members, ref->dev);
	struct ter_bucket_value bucket = { 0 };
	struct ter_key key;
	bool known;
	int r;

	ter_trans_reset(trans);
	r = ter_trans_get(trans, TER_BTREE_ALLOC, ter_bucket_pos(ref->dev, ref->sector / dev->bucket_sectors), &key);
	if (r < 0 && r != -ENOENT)
		return r;
	known = r == 0 && ter_bucket_decode(&key, dev, &bucket) == 0;
	judge_gens(ref, nr, known, &bucket);
	judge_types(j, ref, nr);
	r = judge_claims(j, ref, nr);
	for (size_t i = 0; i < nr && r >= 0; i++)
		if (ref[i].verdict != GOOD)
			r = note(j, &ref[i], (enum verdict)ref[i].verdict, ref[i].verdict == OLD_GEN ? bucket.gen : ref[i].gen);
	return r;
}

static int judge_window(struct judge *j)
{
	struct ter_space_ref *ref = j->refs->ref;
	struct ter_trans trans;
	int r = 0;

	ter_trans_init(&trans, j->refs->config->btrees, 0);
	for (size_t at = 0, nr; at < j->refs->nr && r >= 0; at += nr) {
		const uint32_t bucket_sectors = j->refs->config->members->dev[ref[at].dev].bucket_sectors;

		for (nr = 1; at + nr < j->refs->nr && ref[at + nr].dev == ref[at].dev && ref[at + nr].sector / bucket_sectors == ref[at].sector / bucket_sectors;)
			nr++;
		r = judge_bucket(j, &trans, &ref[at], nr);
	}
	ter_trans_exit(&trans);
	return r;
}

/* --- changing extents --- */

struct change {
	struct judge *j;
	const struct bad_ptr *bad;
	size_t nr;
	struct ter_extent old;
	uint8_t drop, regen; /* bits of pointers */
	uint32_t gen[TER_REPLICAS_MAX];
	uint64_t hash;       /* of the key that was asked about */
	bool changed;
};

/* What is wrong with the extent as it is now. */
static void match_ptrs(struct change *c, const struct ter_extent *e)
{
	c->drop = c->regen = 0;
	for (size_t i = 0; i < c->nr; i++)
		for (unsigned k = 0; k < e->nr_ptrs; k++) {
			if (e->ptr[k].dev != c->bad[i].dev || e->ptr[k].sector != c->bad[i].sector)
				continue;
			if (c->bad[i].verdict == OLD_GEN) {
				c->regen |= (uint8_t)(1u << k);
				c->gen[k] = c->bad[i].gen;
			} else if (e->ptr[k].gen == c->bad[i].gen) {
				c->drop |= (uint8_t)(1u << k);
			}
		}
}

/* The parts of the key's range that no other key of the file has: known to be lost. The rest is not lost. */
static int stage_lost(struct ter_trans *trans, const struct ter_key *key)
{
	struct { uint64_t start, end; } piece[PIECES_MAX];
	const struct ter_pos to = TER_POS(key->pos.inode, UINT64_MAX, UINT32_MAX);
	struct ter_pos from = TER_POS(key->pos.inode, ter_key_start(key) + 1, 0);
	uint64_t at = ter_key_start(key);
	const uint64_t end = key->pos.offset;
	unsigned nr = 0;
	bool own = false;
	int r;

	while (at < end && nr < PIECES_MAX - 1) {
		struct ter_key other;

		r = ter_trans_next(trans, TER_BTREE_EXTENTS, from, to, &other);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		from = ter_pos_next(other.pos);
		if (!ter_pos_cmp(other.pos, key->pos) || other.size > other.pos.offset || other.pos.snapshot != key->pos.snapshot)
			continue;
		if (ter_key_start(&other) >= end)
			break;
		if (ter_key_start(&other) > at) {
			piece[nr].start = at;
			piece[nr++].end = ter_key_start(&other);
		}
		at = ter_max(at, other.pos.offset);
	}
	if (at < end) {
		piece[nr].start = at;
		piece[nr++].end = end;
	}
	for (unsigned i = 0; i < nr; i++) {
		const struct ter_key lost = {
			.pos = TER_POS(key->pos.inode, piece[i].end, key->pos.snapshot), .size = (uint32_t)(piece[i].end - piece[i].start), .type = TER_KEY_ERROR,
		};
		const bool same = piece[i].end == end;

		own |= same;
		r = ter_trans_update(trans, TER_BTREE_EXTENTS, lost.pos, same ? key : TER_KEY_ABSENT, &lost);
		if (r < 0)
			return r;
	}
	return own ? 0 : ter_trans_update(trans, TER_BTREE_EXTENTS, key->pos, key, NULL);
}

static int stage_extent(struct ter_trans *trans, void *arg)
{
	struct change *c = arg;
	const struct ter_fsck_config *config = c->j->refs->config;
	uint64_t val[TER_EXTENT_VAL_MAX / 8];
	struct ter_extent e;
	struct ter_key key, new_key;
	unsigned nr = 0;
	int r;

	c->changed = false;
	r = ter_trans_get(trans, TER_BTREE_EXTENTS, c->bad->pos, &key);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (ter_key_hash(&key) != c->hash || ter_extent_decode(&key, config->sb->sb, &e) < 0)
		return 0; /* changed meanwhile: next round */
	c->changed = true;
	for (unsigned i = 0; i < e.nr_ptrs; i++) {
		if (c->drop >> i & 1)
			continue;
		e.ptr[nr] = e.ptr[i];
		if (c->regen >> i & 1)
			e.ptr[nr].gen = c->gen[i];
		nr++;
	}
	if (!nr) {
		r = ter_vfs_stage_lost(config->vfs, trans, key.pos, ter_key_start(&key));
		return r < 0 ? r : stage_lost(trans, &key);
	}
	e.nr_ptrs = (uint8_t)nr;
	e.nr_required = (uint8_t)ter_min(e.nr_required, e.nr_ptrs);
	new_key = key;
	new_key.val_bytes = ter_extent_encode(&e, val);
	new_key.val = val;
	return ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, &key, &new_key);
}

/* S5: the set of what is left. */
static int ensure_set(struct change *c)
{
	struct ter_replicas_entry entry;
	struct ter_extent e = c->old;
	unsigned nr = 0;

	for (unsigned i = 0; i < c->old.nr_ptrs; i++)
		if (!(c->drop >> i & 1))
			e.ptr[nr++] = c->old.ptr[i];
	e.nr_ptrs = (uint8_t)nr;
	e.nr_required = (uint8_t)ter_min((unsigned)e.nr_required, nr);
	ter_extent_replicas(&e, &entry);
	return entry.nr_devs && nr < c->old.nr_ptrs ? ter_sb_replicas_ensure(c->j->refs->config->sb, &entry, false) : 0;
}

static int read_extent(struct change *c)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, c->j->refs->config->btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_EXTENTS, c->bad->pos, &key);
	if (r >= 0 && ter_extent_decode(&key, c->j->refs->config->sb->sb, &c->old) < 0)
		r = -ENOENT;
	if (r >= 0) {
		c->hash = ter_key_hash(&key);
		match_ptrs(c, &c->old);
	}
	ter_trans_exit(&trans);
	return r;
}

static int change_extent(struct judge *j, const struct bad_ptr *bad, size_t nr)
{
	struct change c = { .j = j, .bad = bad, .nr = nr };
	unsigned dropped, all;
	char at[64];
	int r;

	r = read_extent(&c);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!c.drop && !c.regen)
		return 0;
	dropped = (unsigned)__builtin_popcount(c.drop);
	all = c.old.nr_ptrs;
	ter_pos_text(bad->pos, at);
	if (!dropped)
		r = ter_repair_want(j->repair, PASS, "The extent at %s points to member %u, sector %llu, %s: it gets the bucket's.", at, bad->dev, (unsigned long long)bad->sector,
				    reasons[bad->verdict]);
	else
		r = ter_repair_want(j->repair, PASS, "The extent at %s points to member %u, sector %llu, %s: %s.", at, bad->dev, (unsigned long long)bad->sector,
				    reasons[bad->verdict], dropped == all ? "its data is lost, and reading it says so" : "this copy is given up");
	if (r <= 0)
		return r;
	r = ensure_set(&c);
	if (r >= 0)
		r = ter_trans_run(j->refs->config->btrees, 0, stage_extent, &c, NULL);
	if (r >= 0)
		j->done++;
	return r;
}

/* --- changing nodes --- */

static int change_node(struct judge *j, const struct bad_ptr *bad)
{
	char at[64];
	int r;

	r = ter_repair_want(j->repair, PASS, "The node of level %u of btree '%s' up to %s is pointed to on member %u, sector %llu, %s: it is written anew elsewhere.", bad->level - 1u,
			    ter_btree_names[bad->btree], ter_pos_text(bad->pos, at), bad->dev, (unsigned long long)bad->sector, reasons[bad->verdict]);
	if (r <= 0)
		return r;
	r = ter_btree_rewrite_node(j->refs->config->btrees, (enum ter_btree_id)bad->btree, bad->level - 1u, bad->pos);
	if (r >= 0)
		j->done++;
	return r;
}

static int cmp_bad(const void *pa, const void *pb)
{
	const struct bad_ptr *a = pa, *b = pb;
	int c;

	if (a->btree != b->btree)
		return a->btree < b->btree ? -1 : 1;
	if (a->level != b->level)
		return a->level < b->level ? -1 : 1;
	c = ter_pos_cmp(a->pos, b->pos);
	return c ? c : (int)a->dev - b->dev;
}

static int change_all(struct judge *j)
{
	int r = 0;

	if (j->nr) /* else there may be no array */
		qsort(j->bad, j->nr, sizeof(j->bad[0]), cmp_bad);
	for (size_t at = 0, nr; at < j->nr && r >= 0; at += nr) {
		const struct bad_ptr *b = &j->bad[at];

		for (nr = 1; at + nr < j->nr && b[nr].btree == b->btree && b[nr].level == b->level && !ter_pos_cmp(b[nr].pos, b->pos);)
			nr++;
		r = b->level ? change_node(j, b) : change_extent(j, b, nr);
		if (r >= 0)
			r = ter_repair_step(j->repair, PASS, at, j->nr);
	}
	return r;
}

int ter_space_judge(struct ter_space_refs *refs, struct ter_repair *repair, uint64_t memory_bytes, uint64_t *ret_done, bool *ret_more)
{
	struct judge j = { .refs = refs, .repair = repair, .max = (size_t)ter_max(memory_bytes / sizeof(struct bad_ptr), (uint64_t)1024) };
	int r;

	j.bad = ter_calloc(j.max, sizeof(j.bad[0]));
	if (!j.bad)
		return -ENOMEM;
	refs->stray = on_stray;
	refs->arg = &j;
	ter_space_refs_first(refs);
	do {
		r = ter_space_refs_collect(refs);
		if (r >= 0)
			r = judge_window(&j);
		if (r >= 0)
			r = ter_repair_step(repair, PASS, 0, 0);
	} while (r >= 0 && ter_space_refs_next(refs));
	refs->stray = NULL;
	if (r >= 0)
		r = change_all(&j);
	free(j.bad);
	*ret_done += j.done;
	*ret_more |= j.more;
	return r;
}

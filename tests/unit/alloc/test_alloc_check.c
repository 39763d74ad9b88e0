/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The check finds each contradiction that is planted, and the decoders refuse what is malformed. */
#include "alloc_model.h"

#include <stdio.h>

#define BUCKET 128u

static struct rig *populated(struct model *m)
{
	struct rig_params params = { .nr = 2, .buckets = { 150, 150 }, .bucket_sectors = BUCKET, .data_replicas = 1, .metadata_replicas = 1, .no_worker = true };
	struct rig *rig = rig_new(&params);

	model_init(m, rig);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(model_write(m, 64, 64, 2, false), 64);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(model_delete(m, 2), 0); /* takes from both ends: some buckets are empty, some half */
	rig_assert_sound(rig);
	return rig;
}

/* --- what is planted --- */

static struct fake_key *first_of(struct rig *rig, enum ter_btree_id btree, unsigned nth)
{
	assert_true(nth < rig->btree[btree].nr);
	return &rig->btree[btree].keys[nth];
}

static struct ter_alloc_disk *alloc_key(struct rig *rig, enum ter_bucket_state state, uint8_t type)
{
	struct fake_btree *bt = &rig->btree[TER_BTREE_ALLOC];

	for (unsigned i = 0; i < bt->nr; i++) {
		struct ter_bucket_value v;
		struct ter_key key = bt->keys[i].key;

		key.val = bt->keys[i].val;
		assert_int_equal(ter_bucket_decode(&key, &rig->members->dev[key.pos.inode], &v), 0);
		if (ter_bucket_state(&v) == state && (!type || v.data_type == type))
			return (struct ter_alloc_disk *)bt->keys[i].val;
	}
	fail_msg("no such bucket");
	return NULL;
}

static void plant_live_more(struct rig *rig)
{
	struct ter_alloc_disk *d = alloc_key(rig, TER_BUCKET_USED, TER_DATA_USER);

	d->live_sectors = ter_le32_make(ter_le32_get(d->live_sectors) + 8);
}
static void plant_live_zero(struct rig *rig)
{
	alloc_key(rig, TER_BUCKET_USED, TER_DATA_USER)->live_sectors = ter_le32_make(0);
}
static void plant_unknown_flag(struct rig *rig)
{
	alloc_key(rig, TER_BUCKET_USED, TER_DATA_USER)->flags |= 2;
}
static void plant_sb_as_user(struct rig *rig)
{
	struct ter_alloc_disk *d = alloc_key(rig, TER_BUCKET_USED, TER_DATA_SB);

	d->data_type = TER_DATA_USER;
	d->flags = TER_ALLOC_NEED_DISCARD;
}
static void plant_no_alloc_key(struct rig *rig)
{
	rig_delete(rig, TER_BTREE_ALLOC, ter_bucket_pos(0, 5)); /* journal */
}
static void plant_no_alloc_key_sb(struct rig *rig)
{
	rig_delete(rig, TER_BTREE_ALLOC, ter_bucket_pos(1, 1));
}
static void plant_no_range(struct rig *rig)
{
	rig_delete(rig, TER_BTREE_FREESPACE, first_of(rig, TER_BTREE_FREESPACE, 0)->key.pos);
}
static void plant_no_last_range(struct rig *rig)
{
	rig_delete(rig, TER_BTREE_FREESPACE, ter_bucket_pos(1, 150));
}
static void plant_range_split(struct rig *rig)
{
	struct fake_key *last = first_of(rig, TER_BTREE_FREESPACE, rig->btree[TER_BTREE_FREESPACE].nr - 1);
	struct ter_key left = { .pos = ter_bucket_pos(1, 149), .size = last->key.size - 1, .type = TER_KEY_FREE_RANGE };

	assert_true(last->key.size > 1 && last->key.pos.offset == 150);
	last->key.size = 1;
	rig_put(rig, TER_BTREE_FREESPACE, &left);
}
static void plant_range_longer(struct rig *rig)
{
	first_of(rig, TER_BTREE_FREESPACE, rig->btree[TER_BTREE_FREESPACE].nr - 1)->key.size++;
}
static void plant_range_beyond(struct rig *rig)
{
	struct ter_key key = { .pos = ter_bucket_pos(1, 151), .size = 1, .type = TER_KEY_FREE_RANGE };

	rig_put(rig, TER_BTREE_FREESPACE, &key);
}
static void plant_no_need_discard(struct rig *rig)
{
	rig_delete(rig, TER_BTREE_NEED_DISCARD, first_of(rig, TER_BTREE_NEED_DISCARD, 0)->key.pos);
}
static void plant_need_discard_of_free(struct rig *rig)
{
	struct ter_key key = { .pos = ter_bucket_pos(1, 149), .type = TER_KEY_SET };

	rig_put(rig, TER_BTREE_NEED_DISCARD, &key);
}
static void plant_need_discard_of_used(struct rig *rig)
{
	struct ter_key key = { .pos = ter_bucket_pos(0, 0), .type = TER_KEY_SET };

	rig_put(rig, TER_BTREE_NEED_DISCARD, &key);
}
static void plant_no_backpointer(struct rig *rig)
{
	rig_delete(rig, TER_BTREE_BACKPOINTERS, first_of(rig, TER_BTREE_BACKPOINTERS, 3)->key.pos);
}
static void plant_backpointer_into_free(struct rig *rig)
{
	struct fake_key copy = *first_of(rig, TER_BTREE_BACKPOINTERS, 0);

	copy.key.val = copy.val;
	copy.key.pos = ter_backpointer_pos(1, 149 * BUCKET, 0);
	rig_put(rig, TER_BTREE_BACKPOINTERS, &copy.key);
}
static void plant_backpointer_malformed(struct rig *rig)
{
	((struct ter_backpointer_disk *)first_of(rig, TER_BTREE_BACKPOINTERS, 0)->val)->btree = TER_BTREE_NR;
}
static void plant_row(struct rig *rig)
{
	struct fake_key *k = (struct fake_key *)rig_get(rig, TER_BTREE_ACCOUNTING, ter_counter_dev(TER_DATA_USER, 0));

	k->val[2] += 8;
}
static void plant_negative(struct rig *rig)
{
	ter_le64 val = ter_le64_make((uint64_t)-3);
	struct ter_key key = { .pos = ter_counter_inodes(), .type = TER_KEY_COUNTERS, .val_bytes = 8, .val = &val };

	rig_put(rig, TER_BTREE_ACCOUNTING, &key);
}
static void plant_unknown_counter(struct rig *rig)
{
	ter_le64 val = ter_le64_make(1);
	struct ter_key key = { .pos = TER_POS(9ull << 56, 0, 0), .type = TER_KEY_COUNTERS, .val_bytes = 8, .val = &val };

	rig_put(rig, TER_BTREE_ACCOUNTING, &key);
}
static void plant_no_member(struct rig *rig)
{
	struct ter_key key = { .pos = ter_bucket_pos(17, 3), .type = TER_KEY_SET };

	rig_put(rig, TER_BTREE_NEED_DISCARD, &key);
}
static void plant_memory(struct rig *rig)
{
	atomic_fetch_add(&rig->alloc->dev[0].counts[TER_DATA_USER].sectors, 1);
}

static void each_contradiction_is_found(void **state)
{
	static const struct {
		void (*plant)(struct rig *rig);
		const char *sentence; /* part of one that must come */
	} plants[] = {
		{ plant_live_more, "but back references for" },
		{ plant_live_zero, "not listed as to be discarded" },
		{ plant_unknown_flag, "is malformed" },
		{ plant_sb_as_user, "by the superblock of type sb" },
		{ plant_no_alloc_key, "bucket 5 belongs to the journal, but has no alloc key" },
		{ plant_no_alloc_key_sb, "bucket 1 holds a superblock, but has no alloc key" },
		{ plant_no_range, "are free, but not indexed" },
		{ plant_no_last_range, "are free, but not indexed" },
		{ plant_range_split, "are indexed as a free range, but by their keys" },
		{ plant_range_longer, "are indexed as a free range, but by their keys" },
		{ plant_range_beyond, "ends at bucket 151 is malformed" },
		{ plant_no_need_discard, "is empty, but not listed" },
		{ plant_need_discard_of_free, "bucket 149 is listed as to be discarded, but it is free" },
		{ plant_need_discard_of_used, "bucket 0 is in use, but listed" },
		{ plant_no_backpointer, "but back references for" },
		{ plant_backpointer_into_free, "but bucket 149 is free" },
		{ plant_backpointer_malformed, "the back reference at sector" },
		{ plant_row, "counters of type user say" },
		{ plant_negative, "is negative" },
		{ plant_unknown_counter, "of no known kind" },
		{ plant_no_member, "has keys of member 17" },
		{ plant_memory, "in memory" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(plants); i++) {
		static char text[65536];
		struct model m;
		struct rig *rig = populated(&m);
		int r;

		plants[i].plant(rig);
		r = rig_check(rig, text, sizeof(text));
		if (r <= 0 || !strstr(text, plants[i].sentence))
			fail_msg("plant %u: %d, '%s' is not in:\n%s", i, r, plants[i].sentence, text);
		model_free(&m);
		rig_free(rig);
	}
}

/* --- staging over what is wrong: an error, and nothing committed --- */

static void staging_meets_contradictions(void **state)
{
	struct ter_alloc_request request = { .replicas = 1, .replicas_required = 1, .sectors_min = 8, .sectors_want = 8 };
	struct ter_space space;
	struct model m;
	struct rig *rig = populated(&m);

	/* The back reference of an extent is gone. */
	rig_delete(rig, TER_BTREE_BACKPOINTERS, ter_backpointer_pos(m.extent[0].ptr[0].dev, m.extent[0].ptr[0].sector, 0));
	assert_int_equal(model_delete(&m, 0), -EUCLEAN);
	/* A stale pointer. */
	m.extent[1].ptr[1].gen++;
	assert_int_equal(model_delete(&m, 1), -EUCLEAN);
	m.extent[1].ptr[1].gen--;
	assert_int_equal(model_delete(&m, 1), 0);
	/* A pointer outside of every bucket. */
	m.extent[1].ptr[0].sector = 150 * BUCKET;
	assert_int_equal(model_delete(&m, 1), -EUCLEAN);
	/* A bucket that no range holds. */
	ter_alloc_stop(rig->alloc);
	assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
	while (rig->btree[TER_BTREE_FREESPACE].nr)
		rig_delete(rig, TER_BTREE_FREESPACE, first_of(rig, TER_BTREE_FREESPACE, 0)->key.pos);
	assert_int_equal(model_link(&m, &space, 0, 8), -EUCLEAN);
	ter_alloc_put(rig->alloc, &space);
	model_free(&m);
	rig_free(rig);
}

/* An index that says that a used bucket is free must not lead to writing there. */
static void used_buckets_indexed_as_free_are_not_given_out(void **state)
{
	struct ter_alloc_request request = { .replicas = 1, .replicas_required = 1, .sectors_min = BUCKET, .sectors_want = BUCKET };
	struct ter_space space;
	struct model m;
	struct rig *rig = populated(&m);

	ter_alloc_stop(rig->alloc);
	for (unsigned i = 0; i < 2; i++) {
		struct ter_key key = { .pos = ter_bucket_pos(i, 150), .size = 150, .type = TER_KEY_FREE_RANGE };

		while (rig->btree[TER_BTREE_FREESPACE].nr > i)
			rig_delete(rig, TER_BTREE_FREESPACE, first_of(rig, TER_BTREE_FREESPACE, i)->key.pos);
		rig_put(rig, TER_BTREE_FREESPACE, &key);
	}
	for (unsigned i = 0; i < 400; i++) { /* round each member more than once */
		assert_int_equal(ter_alloc_get(rig->alloc, &request, &space), 0);
		model_assert_space_dead(&m, &space);
		assert_true(space.ptr[0].sector / BUCKET >= 14 || (space.ptr[0].sector / BUCKET >= 2 && space.ptr[0].sector / BUCKET < 4) ||
			    (space.ptr[0].sector / BUCKET >= 7 && space.ptr[0].sector / BUCKET < 10));
		ter_alloc_put(rig->alloc, &space);
	}
	model_free(&m);
	rig_free(rig);
}

/* --- decoding --- */

static void each_field_is_checked(void **state)
{
	const struct ter_dev dev = { .idx = 1, .used = true, .bucket_sectors = BUCKET, .buckets_nr = 150 };
	const struct ter_bucket_value good = { .gen = 3, .live_sectors = 8, .data_type = TER_DATA_USER, .need_discard = true };
	const struct ter_backpointer good_bp = { .pos = TER_POS(1, 2, 3), .sectors = 8, .btree = TER_BTREE_EXTENTS, .level = 0 };
	struct ter_bucket_value v;
	struct ter_backpointer bp;
	union {
		struct ter_alloc_disk alloc;
		struct ter_backpointer_disk bp;
		uint8_t bytes[32];
	} d;
	struct ter_key key = { .pos = ter_bucket_pos(1, 149), .type = TER_KEY_ALLOC, .val_bytes = sizeof(d.alloc), .val = &d };
	struct ter_key bad;

	ter_bucket_encode(&good, &d.alloc);
	assert_int_equal(ter_bucket_decode(&key, &dev, &v), 0);
	assert_true(v.gen == 3 && v.live_sectors == 8 && v.data_type == TER_DATA_USER && v.need_discard);
	for (unsigned i = 0; i < sizeof(d.alloc); i++) {
		/* gen (0..3) is free to be anything; type and the low bytes of live sectors have other valid values */
		bool may_pass = i < 4 || i == 4 || i == 8 || i == 9;

		ter_bucket_encode(&good, &d.alloc);
		d.bytes[i] ^= 0x80;
		if (!may_pass)
			assert_int_equal(ter_bucket_decode(&key, &dev, &v), -EUCLEAN);
	}
	ter_bucket_encode(&good, &d.alloc);
	d.alloc.flags = 0; /* live, yet never written to */
	assert_int_equal(ter_bucket_decode(&key, &dev, &v), -EUCLEAN);
	ter_bucket_encode(&good, &d.alloc);
	d.alloc.data_type = TER_DATA_FREE;
	assert_int_equal(ter_bucket_decode(&key, &dev, &v), -EUCLEAN);
	d.alloc.data_type = TER_DATA_NEED_DISCARD;
	assert_int_equal(ter_bucket_decode(&key, &dev, &v), -EUCLEAN);
	ter_bucket_encode(&good, &d.alloc);
#define BAD(field, value)                                                                                              \
	do {                                                                                                           \
		bad = key;                                                                                             \
		bad.field = (value);                                                                                   \
		assert_int_equal(ter_bucket_decode(&bad, &dev, &v), -EUCLEAN);                                         \
	} while (0)
	BAD(type, TER_KEY_SET);
	BAD(val_version, 1);
	BAD(val_bytes, sizeof(d.alloc) - 1);
	BAD(size, 1);
	BAD(pos.snapshot, 1);
	BAD(pos.offset, 150);
	BAD(pos.inode, 0);
#undef BAD

	ter_backpointer_encode(&good_bp, &d.bp);
	key = (struct ter_key){ .pos = ter_backpointer_pos(1, 150 * BUCKET - 1, 4095), .type = TER_KEY_BACKPOINTER, .val_bytes = sizeof(d.bp), .val = &d };
	assert_int_equal(ter_backpointer_decode(&key, &dev, &bp), 0);
	assert_int_equal(ter_pos_cmp(bp.pos, good_bp.pos), 0);
	assert_int_equal(bp.sectors, 8);
	for (unsigned i = 0x16; i < sizeof(d.bp); i++) {
		ter_backpointer_encode(&good_bp, &d.bp);
		d.bytes[i] ^= 0x80;
		if (i != 0x19)
			assert_int_equal(ter_backpointer_decode(&key, &dev, &bp), -EUCLEAN);
	}
	ter_backpointer_encode(&good_bp, &d.bp);
	d.bp.sectors = ter_le32_make(0);
	assert_int_equal(ter_backpointer_decode(&key, &dev, &bp), -EUCLEAN);
	ter_backpointer_encode(&good_bp, &d.bp);
	key.pos.offset++; /* the first sector beyond */
	assert_int_equal(ter_backpointer_decode(&key, &dev, &bp), -EUCLEAN);

	key = (struct ter_key){ .pos = ter_bucket_pos(1, 150), .size = 150, .type = TER_KEY_FREE_RANGE };
	assert_int_equal(ter_free_range_check(&key, &dev), 0);
	key.size = 151;
	assert_int_equal(ter_free_range_check(&key, &dev), -EUCLEAN);
	key.size = 0;
	assert_int_equal(ter_free_range_check(&key, &dev), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_contradiction_is_found),
		cmocka_unit_test(staging_meets_contradictions),
		cmocka_unit_test(used_buckets_indexed_as_free_are_not_given_out),
		cmocka_unit_test(each_field_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Content of nodes in memory and its bytes on disk: against a plain sorted array, and against damage. No I/O. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "btree/node_codec.h"
#include "util/crc32c.h"
#include "util/mem.h"

#define KEYS_MAX 600
#define VAL_MAX 200

/* --- a pool without devices --- */

static void crc_digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < n; i++)
		crc = ter_crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	memcpy(out, &crc, sizeof(crc));
}
static const struct terrace_checksum crc_algo = {
	.algo = { .size = sizeof(crc_algo), .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 },
	.digest_len = 4, .digest = crc_digest,
};

static struct ter_sb *sb_new(void)
{
	struct ter_sb *sb = calloc(1, sizeof(*sb));

	memcpy(sb->uuid, "pool-uuid-bytes", 16);
	ter_options_default(&sb->options);
	sb->options.block_size = 512;
	sb->options.btree_node_size = 32768;
	sb->algos.slot[1] = (struct ter_algo_slot){ .algo = &crc_algo.algo, .kind = TERRACE_CHECKSUM, .uuid = { 1 }, .name = "crc32c", .format = 1 };
	return sb;
}

static uint64_t rng(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t test_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20241125;

	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* --- the model --- */

struct entry {
	struct ter_pos pos;
	uint32_t val_bytes;
	uint8_t val[VAL_MAX];
};
struct model {
	struct entry *e[KEYS_MAX + 1];
	unsigned nr;
};

static unsigned model_find(const struct model *m, struct ter_pos pos, bool *ret_found)
{
	unsigned i = 0;

	while (i < m->nr && ter_pos_cmp(m->e[i]->pos, pos) < 0)
		i++;
	*ret_found = i < m->nr && !ter_pos_cmp(m->e[i]->pos, pos);
	return i;
}

static void model_set(struct model *m, const struct entry *e)
{
	bool found;
	unsigned at = model_find(m, e->pos, &found);

	if (!found) {
		memmove(&m->e[at + 1], &m->e[at], (m->nr++ - at) * sizeof(m->e[0]));
		m->e[at] = malloc(sizeof(*e));
	}
	*m->e[at] = *e;
}

static void model_delete(struct model *m, struct ter_pos pos)
{
	bool found;
	unsigned at = model_find(m, pos, &found);

	if (!found)
		return;
	free(m->e[at]);
	memmove(&m->e[at], &m->e[at + 1], (--m->nr - at) * sizeof(m->e[0]));
}

static void model_free(struct model *m)
{
	while (m->nr)
		free(m->e[--m->nr]);
}

/* Few positions, so that they meet; some share inodes, some offsets. */
static struct ter_pos random_pos(uint64_t *seed, unsigned shape)
{
	switch (shape % 6) {
	case 3: /* names' hashes in a few directories */
		return TER_POS(1000 + rng(seed) % 5, rng(seed) % 100 * 0x28f5c28f5c28f5cull, UINT32_MAX);
	case 4: /* all bits of inode numbers */
		return TER_POS(rng(seed) % 40 * (UINT64_MAX / 40), rng(seed) % 8, UINT32_MAX);
	case 0:
		return TER_POS(7, rng(seed) % 500, UINT32_MAX);
	case 1:
		return TER_POS(rng(seed) % 500, 0, UINT32_MAX);
	case 2:
		return TER_POS(rng(seed) % 20, rng(seed) % 25, UINT32_MAX - (uint32_t)(rng(seed) % 2));
	default:
		return TER_POS(rng(seed) % 3 * (UINT64_MAX / 2), rng(seed) % 3 * (UINT64_MAX / 2) + rng(seed) % 50, UINT32_MAX);
	}
}

static void check_equal(const struct ter_keyset *ks, const struct model *m)
{
	unsigned n = 0;
	struct ter_key key;

	assert_int_equal(ter_keyset_verify(ks), 0);
	assert_int_equal(ks->live_nr, m->nr);
	for (uint32_t i = 0; i < ks->nr; i++) {
		if (!ter_keyset_live(ks, i))
			continue;
		ter_key_decode(ter_keyset_at(ks, i), &key);
		assert_int_equal(ter_pos_cmp(key.pos, m->e[n]->pos), 0);
		assert_int_equal(key.val_bytes, m->e[n]->val_bytes);
		assert_memory_equal(key.val, m->e[n]->val, key.val_bytes);
		n++;
	}
}

static void keyset_set(struct ter_keyset *ks, const struct entry *e)
{
	uint64_t raw[(32 + VAL_MAX + 8) / 8];
	struct ter_key key = { .pos = e->pos, .type = TER_KEY_XATTR, .val_bytes = e->val_bytes, .val = e->val };
	uint32_t idx;

	ter_key_encode(&key, raw);
	assert_int_equal(ter_keyset_reserve(ks, 1, ter_key_disk_bytes(e->val_bytes)), 0);
	idx = ter_keyset_lower(ks, e->pos);
	ter_keyset_put(ks, idx, ter_keyset_is(ks, idx, e->pos), (struct ter_key_disk *)raw);
}

static void keyset_delete(struct ter_keyset *ks, struct ter_pos pos)
{
	uint32_t idx = ter_keyset_lower(ks, pos);

	if (ter_keyset_is(ks, idx, pos) && ter_keyset_live(ks, idx))
		(void)ter_keyset_remove(ks, idx);
}

/* A node's space, as its writes leave it. */
struct disk {
	uint8_t *space;
	uint32_t sectors;
	uint64_t journal_seq;
};
static const struct ter_node_id node_id = { .btree = TER_BTREE_XATTRS, .node_seq = 4711, .max = { UINT64_MAX, UINT64_MAX, UINT32_MAX } };

static void append_to(struct ter_node_geo *geo, struct disk *disk, uint32_t keys_bytes, uint32_t keys_nr, const uint8_t *keys)
{
	bool first = !disk->sectors;
	uint8_t *at = disk->space + disk->sectors * 512;

	memcpy(at + (first ? TER_NODE_HEAD_BYTES : sizeof(struct ter_bset_disk)), keys, keys_bytes);
	ter_bset_finish(geo, at, first ? &node_id : NULL, node_id.node_seq, ++disk->journal_seq, keys_bytes, keys_nr);
	disk->sectors += ter_bset_sectors(geo, first, keys_bytes);
}

static void write_node(struct ter_node_geo *geo, struct ter_keyset *ks, struct disk *disk)
{
	uint8_t *keys;
	uint32_t bytes = ks->dirty_bytes, nr;

	if (disk->sectors && disk->sectors + ter_bset_sectors(geo, false, bytes) <= geo->node_bytes / 512) {
		keys = malloc(bytes + 1);
		nr = ter_keyset_snap_dirty(ks, keys);
	} else {
		bytes = ks->live_bytes;
		keys = malloc(bytes + 1);
		nr = ter_keyset_snap_live(ks, keys);
		memset(disk->space, 0xee, geo->node_bytes);
		disk->sectors = 0;
	}
	append_to(geo, disk, bytes, nr, keys);
	free(keys);
}

static int read_node(struct ter_node_geo *geo, const struct disk *disk, struct ter_node_content *ret)
{
	uint8_t *buf = malloc(disk->sectors * 512);
	const char *why;
	int r;

	memcpy(buf, disk->space, disk->sectors * 512);
	r = ter_node_decode(geo, buf, disk->sectors * 512, &node_id, UINT64_MAX, ret, &why);
	free(buf);
	return r;
}

static void random_change(struct ter_keyset *ks, struct model *m, uint64_t *seed, unsigned shape)
{
	struct entry e = { .pos = random_pos(seed, shape), .val_bytes = rng(seed) % 4 ? 24 : (uint32_t)(rng(seed) % 60) };

	if (m->nr < 250 && rng(seed) % 5 < 3) {
		for (unsigned i = 0; i < e.val_bytes; i++)
			e.val[i] = (uint8_t)rng(seed);
		keyset_set(ks, &e);
		model_set(m, &e);
	} else {
		keyset_delete(ks, e.pos);
		model_delete(m, e.pos);
	}
}

static void random_changes_equal_a_sorted_array_in_memory_and_read_back(void **state)
{
	uint64_t seed = test_seed();
	struct ter_sb *sb = sb_new();
	struct ter_node_content read;
	struct ter_node_geo geo;

	assert_int_equal(ter_node_geo_init(&geo, sb), 0);
	assert_int_equal(geo.csum_slot, 1);
	for (unsigned round = 0; round < 60; round++) {
		struct disk disk = { .space = calloc(1, geo.node_bytes) };
		struct ter_keyset ks;
		struct model m = { 0 };

		ter_keyset_init(&ks, false);
		for (unsigned i = 0; i < 400; i++) {
			random_change(&ks, &m, &seed, round);
			if (i % 29)
				continue;
			/* A write during which more changes come, and which fails now and then. */
			if (rng(&seed) % 4 == 0) {
				uint8_t *lost = malloc(ks.dirty_bytes + 1);

				(void)ter_keyset_snap_dirty(&ks, lost);
				free(lost);
				for (unsigned n = 0; n < 10; n++)
					random_change(&ks, &m, &seed, round);
				ter_keyset_snap_end(&ks, false);
				check_equal(&ks, &m);
			}
			write_node(&geo, &ks, &disk);
			assert_int_equal(read_node(&geo, &disk, &read), 0);
			check_equal(&read.keys, &m);
			assert_true(read.newest_seq == disk.journal_seq && !read.truncated);
			for (unsigned n = 0; n < 10; n++)
				random_change(&ks, &m, &seed, round);
			ter_keyset_snap_end(&ks, true);
			check_equal(&ks, &m);
			if (rng(&seed) % 3) {
				ter_keyset_free(&read.keys);
				continue;
			}
			/* Go on with what was read: what came during the write is lost to it. */
			ter_keyset_free(&ks);
			ks = read.keys;
			model_free(&m);
			for (uint32_t n = 0; n < ks.nr; n++) {
				struct entry e = { .pos = ter_keyset_pos(&ks, n), .val_bytes = ter_le32_get(ter_keyset_at(&ks, n)->val_bytes) };

				memcpy(e.val, ter_keyset_at(&ks, n) + 1, e.val_bytes);
				model_set(&m, &e);
			}
		}
		check_equal(&ks, &m);
		ter_keyset_free(&ks);
		model_free(&m);
		free(disk.space);
	}
	free(sb);
}

static void searches_find_the_first_slot_at_or_after(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned shape = 0; shape < 6; shape++) {
		struct ter_keyset ks;

		ter_keyset_init(&ks, false);
		for (unsigned i = 0; i < 300; i++) {
			struct entry e = { .pos = random_pos(&seed, shape), .val_bytes = 8 };

			keyset_set(&ks, &e);
		}
		for (unsigned i = 0; i < 2000; i++) {
			struct ter_pos pos = random_pos(&seed, shape + (i % 5 == 0));
			uint32_t want = 0;

			while (want < ks.nr && ter_pos_cmp(ter_keyset_pos(&ks, want), pos) < 0)
				want++;
			assert_int_equal(ter_keyset_lower(&ks, pos), want);
		}
		ter_keyset_free(&ks);
	}
}

static void neighbours_of_positions_carry(void **state)
{
	assert_int_equal(ter_pos_cmp(ter_pos_next(TER_POS(1, UINT64_MAX, UINT32_MAX)), TER_POS(2, 0, 0)), 0);
	assert_int_equal(ter_pos_cmp(ter_pos_next(TER_POS(1, 5, UINT32_MAX)), TER_POS(1, 6, 0)), 0);
	assert_int_equal(ter_pos_cmp(ter_pos_next(TER_POS_MAX), TER_POS_MAX), 0);
	assert_int_equal(ter_pos_cmp(ter_pos_prev(TER_POS(2, 0, 0)), TER_POS(1, UINT64_MAX, UINT32_MAX)), 0);
	assert_int_equal(ter_pos_cmp(ter_pos_prev(TER_POS_MIN), TER_POS_MIN), 0);
}

/* --- damage --- */

static void make_sample(struct ter_node_geo *geo, uint64_t *seed, struct disk *disk, struct model *m)
{
	struct ter_keyset ks;

	ter_keyset_init(&ks, false);
	for (unsigned i = 0; i < 150; i++) {
		random_change(&ks, m, seed, 2);
		if (i % 50 == 49) {
			write_node(geo, &ks, disk);
			ter_keyset_snap_end(&ks, true);
		}
	}
	ter_keyset_free(&ks);
}

static void any_flipped_bit_is_noticed(void **state)
{
	uint64_t seed = test_seed();
	struct ter_sb *sb = sb_new();
	struct disk disk = { 0 };
	struct ter_node_content read;
	struct ter_node_geo geo;
	struct model m = { 0 };

	assert_int_equal(ter_node_geo_init(&geo, sb), 0);
	disk.space = calloc(1, geo.node_bytes);
	make_sample(&geo, &seed, &disk, &m);
	for (uint32_t i = 0; i < disk.sectors * 512; i++) {
		int r;

		disk.space[i] ^= (uint8_t)(1u << (i % 8));
		r = read_node(&geo, &disk, &read);
		if (r == 0) { /* only in the padding between bsets */
			check_equal(&read.keys, &m);
			assert_true(disk.space[i] == (uint8_t)(1u << (i % 8)));
			ter_keyset_free(&read.keys);
		}
		disk.space[i] ^= (uint8_t)(1u << (i % 8));
	}
	assert_int_equal(read_node(&geo, &disk, &read), 0);
	ter_keyset_free(&read.keys);
	model_free(&m);
	free(disk.space);
	free(sb);
}

/* "None", with the digest that none has: whoever damages a node could write just that. */
static void a_bset_without_checksum_is_refused(void **state)
{
	uint64_t seed = test_seed();
	struct ter_sb *sb = sb_new();
	struct disk disk = { 0 };
	struct ter_node_content read;
	struct ter_node_id id;
	struct ter_node_geo geo;
	struct model m = { 0 };
	uint32_t at, second, bytes;
	uint8_t *found;

	assert_int_equal(ter_node_geo_init(&geo, sb), 0);
	disk.space = calloc(1, geo.node_bytes);
	found = malloc(geo.node_bytes);
	make_sample(&geo, &seed, &disk, &m);
	at = (uint32_t)sizeof(struct ter_node_disk);
	second = ter_bset_sectors(&geo, true, ter_le32_get(((struct ter_bset_disk *)(disk.space + at))->keys_bytes)) * 512;
	assert_true(second < disk.sectors * 512);
	for (unsigned i = 0; i < 2; i++, at = second) {
		struct ter_bset_disk *bset = (struct ter_bset_disk *)(disk.space + at), keep = *bset;

		assert_int_equal(bset->csum_slot, 1);
		bset->csum_slot = 0;
		memset(bset->csum, 0, sizeof(bset->csum));
		assert_int_equal(read_node(&geo, &disk, &read), -EUCLEAN);
		/* Of a node that nothing points to, what stands before it counts. */
		memcpy(found, disk.space, geo.node_bytes);
		assert_int_equal(ter_node_decode_found(&geo, found, UINT64_MAX, &id, &bytes, &read), i ? 0 : -EUCLEAN);
		if (i) {
			assert_int_equal(bytes, second);
			ter_keyset_free(&read.keys);
		}
		*bset = keep;
	}
	assert_int_equal(read_node(&geo, &disk, &read), 0);
	ter_keyset_free(&read.keys);
	model_free(&m);
	free(found);
	free(disk.space);
	free(sb);
}

static void blacklisted_bsets_and_those_after_are_left_out(void **state)
{
	struct ter_sb *sb = sb_new();
	struct disk disk = { 0 };
	struct ter_node_content read;
	struct ter_node_geo geo;
	struct ter_keyset ks;
	const char *why;

	assert_int_equal(ter_node_geo_init(&geo, sb), 0);
	disk.space = calloc(1, geo.node_bytes);
	ter_keyset_init(&ks, false);
	for (unsigned i = 0; i < 4; i++) { /* journal_seq 1..4 */
		struct entry e = { .pos = TER_POS(i, 0, 0), .val_bytes = 8 };

		keyset_set(&ks, &e);
		write_node(&geo, &ks, &disk);
		ter_keyset_snap_end(&ks, true);
	}
	sb->blacklist[0].first = sb->blacklist[0].last = 3;
	sb->blacklist_nr = 1;
	assert_int_equal(read_node(&geo, &disk, &read), 0);
	assert_true(read.truncated);
	assert_int_equal(read.keys.live_nr, 2);
	assert_int_equal(read.newest_seq, 2);
	ter_keyset_free(&read.keys);
	/* Newer than the journal: not of this history. */
	sb->blacklist_nr = 0;
	assert_int_equal(ter_node_decode(&geo, disk.space, disk.sectors * 512, &node_id, 3, &read, &why), -EUCLEAN);
	ter_keyset_free(&ks);
	free(disk.space);
	free(sb);
}

/* Makes checksums right again, so that what is behind them is reached. */
static void repair(struct ter_node_geo *geo, uint8_t *buf, uint32_t bytes)
{
	uint32_t at = 0, skip, head, len;
	uint8_t csum[TER_DIGEST_MAX];

	while (at < bytes) {
		struct ter_bset_disk *bset;

		skip = at ? 0 : (uint32_t)sizeof(struct ter_node_disk);
		head = skip + (uint32_t)sizeof(*bset);
		if (bytes - at < head)
			return;
		bset = (struct ter_bset_disk *)(buf + at + skip);
		len = head + ter_le32_get(bset->keys_bytes);
		if (len > bytes - at || len < head)
			return;
		if (bset->csum_slot > 1)
			return;
		memset(bset->csum, 0, sizeof(bset->csum));
		ter_algos_digest(&geo->sb->algos, bset->csum_slot, buf + at, len, csum);
		memcpy(bset->csum, csum, sizeof(bset->csum));
		at += (uint32_t)ter_round_up(len, geo->block_bytes);
	}
}

static void make_interior_sample(struct ter_node_geo *geo, struct disk *disk, struct ter_node_id *id)
{
	struct ter_pos min = TER_POS_MIN;
	struct ter_keyset ks;
	uint8_t *keys;
	uint32_t bytes, nr;

	ter_keyset_init(&ks, true);
	for (unsigned i = 0; i < 60; i++) {
		uint64_t raw[32];
		struct ter_node_ptrs ptrs = { .node_seq = 100 + i, .sectors_written = 8, .nr = 1 + i % 4, .min = min };
		struct ter_btree_ptr_disk val;
		struct ter_key key = { .pos = i == 59 ? TER_POS_MAX : TER_POS(i, i, i), .type = TER_KEY_BTREE_PTR, .val = &val };

		key.val_bytes = ter_node_ptrs_encode(&ptrs, &val);
		ter_key_encode(&key, raw);
		assert_int_equal(ter_keyset_reserve(&ks, 1, ter_key_disk_bytes(key.val_bytes)), 0);
		ter_keyset_put(&ks, ks.nr, false, (struct ter_key_disk *)raw);
		min = ter_pos_next(key.pos);
	}
	*id = node_id;
	id->level = 1;
	bytes = ks.live_bytes;
	keys = malloc(bytes);
	nr = ter_keyset_snap_live(&ks, keys);
	memcpy(disk->space + TER_NODE_HEAD_BYTES, keys, bytes);
	ter_bset_finish(geo, disk->space, id, id->node_seq, 1, bytes, nr);
	disk->sectors = ter_bset_sectors(geo, true, bytes);
	free(keys);
	ter_keyset_free(&ks);
}

static void hostile_bytes_are_refused_or_read_but_never_trusted(void **state)
{
	uint64_t seed = test_seed();
	struct ter_sb *sb = sb_new();
	struct disk disk[2] = { 0 };
	struct ter_node_id id[2] = { node_id };
	struct ter_node_geo geo;
	struct model m = { 0 };
	unsigned good = 0, bad = 0;

	assert_int_equal(ter_node_geo_init(&geo, sb), 0);
	for (unsigned i = 0; i < 2; i++)
		disk[i].space = calloc(1, geo.node_bytes);
	make_sample(&geo, &seed, &disk[0], &m);
	make_interior_sample(&geo, &disk[1], &id[1]);
	for (unsigned round = 0; round < 100000; round++) {
		unsigned which = rng(&seed) % 2;
		uint32_t bytes = disk[which].sectors * 512;
		uint8_t *buf;
		struct ter_node_content read;
		const char *why = NULL;
		int r;

		if (rng(&seed) % 16 == 0)
			bytes = (uint32_t)(rng(&seed) % (disk[which].sectors + 1)) * 512;
		buf = malloc(bytes + 1);
		memcpy(buf, disk[which].space, bytes);
		for (unsigned n = rng(&seed) % 4 + 1; n && bytes; n--) {
			uint32_t at = (uint32_t)(rng(&seed) % bytes);

			if (rng(&seed) % 3 == 0)
				at %= 400; /* the headers and first keys more often */
			if (at >= bytes)
				continue;
			switch (rng(&seed) % 3) {
			case 0:
				buf[at] ^= (uint8_t)(1u << (rng(&seed) % 8));
				break;
			case 1:
				buf[at] = (uint8_t)rng(&seed);
				break;
			default:
				memset(buf + at, rng(&seed) % 2 ? 0 : 0xff, ter_min(bytes - at, (uint32_t)(rng(&seed) % 16)));
			}
		}
		repair(&geo, buf, bytes);
		r = ter_node_decode(&geo, buf, bytes, &id[which], UINT64_MAX, &read, &why);
		if (r == 0) {
			assert_int_equal(ter_keyset_verify(&read.keys), 0);
			ter_keyset_free(&read.keys);
			good++;
		} else {
			assert_true(r == -EUCLEAN || r == -EBADMSG);
			assert_non_null(why);
			bad++;
		}
		free(buf);
	}
	print_message("%u read, %u refused\n", good, bad);
	assert_true(good > 1000 && bad > 1000);
	model_free(&m);
	free(disk[0].space);
	free(disk[1].space);
	free(sb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(neighbours_of_positions_carry),
		cmocka_unit_test(searches_find_the_first_slot_at_or_after),
		cmocka_unit_test(random_changes_equal_a_sorted_array_in_memory_and_read_back),
		cmocka_unit_test(any_flipped_bit_is_noticed),
		cmocka_unit_test(a_bset_without_checksum_is_refused),
		cmocka_unit_test(blacklisted_bsets_and_those_after_are_left_out),
		cmocka_unit_test(hostile_bytes_are_refused_or_read_but_never_trusted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes on disk of inodes, directory entries, extended attributes and access control lists: what is written is read back, what is damaged is refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <dirent.h>
#include <stdio.h>

#include <cmocka.h>

#include "fs/acl.h"
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"
#include "fs/xattr_value.h"
#include "fs_rig.h"

/* --- directory entries --- */

static struct ter_key dirent_key(const void *val, int bytes)
{
	return (struct ter_key){ .pos = TER_POS(1, 0x120, TER_SNAPSHOT_ROOT), .type = TER_KEY_DIRENT, .val = val, .val_bytes = (uint32_t)bytes };
}

static void names_of_one_hash_share_a_key_and_keep_their_slots(void **state)
{
	uint64_t a[TER_DIRENTS_VAL_MAX / 8 + 1], b[TER_DIRENTS_VAL_MAX / 8 + 1];
	char name[TER_NAME_MAX + 1];
	struct ter_dent dent;
	struct ter_key key;
	int bytes = 0;

	(void)state;
	for (unsigned i = 0; i < TER_DIRENT_SLOTS; i++) {
		int n = snprintf(name, sizeof(name), "%0*u", TER_NAME_MAX, i); /* the longest names fit, all of them */

		bytes = ter_dirents_insert(a, (uint32_t)bytes, name, (size_t)n, 100 + i, DT_REG, b);
		assert_true(bytes > 0);
		memcpy(a, b, (size_t)bytes);
		key = dirent_key(a, bytes);
		assert_int_equal(ter_dirents_check(&key), 0);
		assert_int_equal(ter_dirents_insert(a, (uint32_t)bytes, name, (size_t)n, 7, DT_REG, b), -EEXIST);
	}
	assert_int_equal(bytes, TER_DIRENTS_VAL_MAX);
	assert_int_equal(ter_dirents_insert(a, (uint32_t)bytes, "one more", 8, 7, DT_REG, b), -ENOSPC);

	snprintf(name, sizeof(name), "%0*u", TER_NAME_MAX, 5);
	bytes = ter_dirents_remove(a, (uint32_t)bytes, name, TER_NAME_MAX, b);
	assert_int_equal(ter_dirents_remove(b, (uint32_t)bytes, name, TER_NAME_MAX, a), -ENOENT);
	for (unsigned i = 0; i < TER_DIRENT_SLOTS; i++) {
		snprintf(name, sizeof(name), "%0*u", TER_NAME_MAX, i);
		if (i == 5)
			continue;
		assert_int_equal(ter_dirents_find(b, (uint32_t)bytes, name, TER_NAME_MAX, &dent), 0);
		assert_int_equal(dent.slot, i);
		assert_int_equal(dent.inum, 100 + i);
	}
	bytes = ter_dirents_insert(b, (uint32_t)bytes, "new", 3, 9, DT_DIR, a);
	assert_int_equal(ter_dirents_find(a, (uint32_t)bytes, "new", 3, &dent), 0);
	assert_int_equal(dent.slot, 5);
	key = dirent_key(a, bytes);
	assert_int_equal(ter_dirents_check(&key), 0);
	bytes = ter_dirents_replace(a, (uint32_t)bytes, "new", 3, 11, DT_FIFO, b);
	assert_int_equal(ter_dirents_find(b, (uint32_t)bytes, "new", 3, &dent), 0);
	assert_int_equal(dent.slot, 5);
	assert_int_equal(dent.inum, 11);
	assert_int_equal(dent.type, DT_FIFO);
}

static void the_last_name_of_a_key_leaves_nothing(void **state)
{
	uint64_t a[64], b[64];
	int bytes;

	(void)state;
	bytes = ter_dirents_insert(NULL, 0, "x", 1, 5, DT_REG, a);
	assert_int_equal(bytes, 13);
	assert_int_equal(ter_dirents_remove(a, 13, "x", 1, b), 0);
	assert_int_equal(ter_dirents_remove(a, 13, "X", 1, b), -ENOENT);
}

static void damaged_directory_entries_are_refused(void **state)
{
	static const struct { size_t at; uint8_t value; } damage[] = {
		{ 0, 0 },        /* inode 0 */
		{ 5, 1 },        /* a number beyond 40 bits */
		{ 8, 3 },        /* no such type */
		{ 9, 16 },       /* no such slot */
		{ 10, 0 }, { 10, 5 }, { 10, 3 }, { 10, 255 }, /* lengths */
		{ 11, 1 },       /* must be zero */
		{ 12, '/' }, { 13, 0 },
	};
	uint8_t good[16], bad[16];
	struct ter_key key;

	(void)state;
	assert_int_equal(ter_dirents_insert(NULL, 0, "abcd", 4, 5, DT_REG, good), 16);
	key = dirent_key(good, 16);
	assert_int_equal(ter_dirents_check(&key), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(damage); i++) {
		memcpy(bad, good, sizeof(bad));
		bad[damage[i].at] = damage[i].value;
		key = dirent_key(bad, 16);
		if (ter_dirents_check(&key) != -EUCLEAN)
			fprintf(stderr, "damage %u passes\n", i);
		assert_int_equal(ter_dirents_check(&key), -EUCLEAN);
	}
	for (int bytes = 0; bytes < 16; bytes++) {
		key = dirent_key(good, bytes);
		assert_int_equal(ter_dirents_check(&key), -EUCLEAN);
	}
	key = dirent_key(good, 16);
	key.pos.offset |= 1;
	assert_int_equal(ter_dirents_check(&key), -EUCLEAN);
	key = dirent_key(good, 16);
	key.type = TER_KEY_XATTR;
	assert_int_equal(ter_dirents_check(&key), -EUCLEAN);
}

/* --- inodes --- */

static void inodes_are_read_back_as_they_were_written(void **state)
{
	const struct ter_inode_attr in = {
		.mode = S_IFREG | 06755, .uid = 1, .gid = 0xffffffff, .nlink = 3, .rdev = 0, .generation = 4, .flags = TER_INODE_APPEND | TER_IFLAG_XATTRS,
		.project = 9, .size = INT64_MAX, .sectors = 1234, .atime_ns = -1, .mtime_ns = INT64_MIN, .ctime_ns = INT64_MAX, .btime_ns = 7,
		.parent_inum = TER_INUM_MAX, .parent_offset = 0x120,
	};
	struct ter_inode_attr out;
	struct ter_inode_disk disk;
	struct ter_key key = { .pos = TER_POS(77, 0, TER_SNAPSHOT_ROOT), .type = TER_KEY_INODE, .val = &disk, .val_bytes = sizeof(disk) };
	struct ter_attr attr;

	(void)state;
	ter_inode_encode(&in, &disk);
	assert_int_equal(ter_inode_decode(&key, &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	ter_inode_to_attr(&out, 77, 1, 4096, &attr);
	assert_int_equal(attr.atime.tv_sec, -1);
	assert_int_equal(attr.atime.tv_nsec, 999999999);
	assert_int_equal(ter_ns_of(attr.atime), -1);
	assert_int_equal(ter_ns_of(attr.mtime), INT64_MIN);
	assert_int_equal(ter_ns_of(attr.ctime), INT64_MAX);
	assert_int_equal(ter_ns_of((struct timespec){ .tv_sec = INT64_MAX }), INT64_MAX);
	assert_int_equal(ter_ns_of((struct timespec){ .tv_sec = INT64_MIN }), INT64_MIN);
	assert_int_equal(attr.blocks, 1235);
	assert_int_equal(attr.flags, TER_INODE_APPEND);
}

static void damaged_inodes_are_refused(void **state)
{
	static const struct { size_t at; uint8_t value; } damage[] = {
		{ 1, 0xf0 }, { 1, 0x00 }, { 2, 1 }, /* types and modes that do not exist */
		{ 0x0f, 0xff },                     /* links */
		{ 0x1b, 0x80 }, { 0x18, 0x01 },     /* unknown flags */
		{ 0x27, 0x80 }, { 0x2f, 0x80 },     /* size, sectors */
		{ 0x55, 1 },                        /* parent's number */
		{ 0x60, 1 }, { 0x7f, 1 },           /* reserved */
	};
	const struct ter_inode_attr in = { .mode = S_IFREG | 0644, .nlink = 1 };
	struct ter_inode_attr out;
	struct ter_inode_disk good, bad;
	struct ter_key key = { .pos = TER_POS(77, 0, TER_SNAPSHOT_ROOT), .type = TER_KEY_INODE, .val = &bad, .val_bytes = sizeof(bad) };

	(void)state;
	ter_inode_encode(&in, &good);
	for (unsigned i = 0; i < ARRAY_SIZE(damage); i++) {
		bad = good;
		((uint8_t *)&bad)[damage[i].at] = damage[i].value;
		if (ter_inode_decode(&key, &out) != -EUCLEAN)
			fprintf(stderr, "damage %u passes\n", i);
		assert_int_equal(ter_inode_decode(&key, &out), -EUCLEAN);
	}
	bad = good;
	assert_int_equal(ter_inode_decode(&key, &out), 0);
	key.val_bytes--;
	assert_int_equal(ter_inode_decode(&key, &out), -EUCLEAN);
	key.val_bytes++;
	key.val_version = 1;
	assert_int_equal(ter_inode_decode(&key, &out), -EUCLEAN);
	key.val_version = 0;
	key.pos.offset = 1;
	assert_int_equal(ter_inode_decode(&key, &out), -EUCLEAN);
}

/* --- extended attributes --- */

static struct ter_xattr named(const char *name, const char *value)
{
	struct ter_xattr x;

	assert_int_equal(ter_xattr_name_parse(name, &x), 0);
	x.value = value;
	x.value_bytes = value ? (uint32_t)strlen(value) : 0;
	return x;
}

static void attributes_of_one_hash_share_a_key(void **state)
{
	const struct ter_xattr a = named("user.a", "one"), b = named("trusted.a", ""), c = named("security.a", "three"), a2 = named("user.a", "another");
	uint8_t v1[256], v2[256];
	struct ter_xattr x;
	int n;

	(void)state;
	n = ter_xattrs_set(NULL, 0, &a, &a, v1);
	n = ter_xattrs_set(v1, (uint32_t)n, &b, &b, v2);
	n = ter_xattrs_set(v2, (uint32_t)n, &c, &c, v1);
	assert_int_equal(ter_xattrs_find(v1, (uint32_t)n, &b, &x), 0);
	assert_int_equal(x.value_bytes, 0);
	n = ter_xattrs_set(v1, (uint32_t)n, &a, &a2, v2);
	assert_int_equal(ter_xattrs_find(v2, (uint32_t)n, &a, &x), 0);
	assert_int_equal(x.value_bytes, 7);
	assert_memory_equal(x.value, "another", 7);
	n = ter_xattrs_set(v2, (uint32_t)n, &c, NULL, v1);
	assert_int_equal(ter_xattrs_find(v1, (uint32_t)n, &c, &x), -ENODATA);
	assert_int_equal(ter_xattrs_find(v1, (uint32_t)n, &a, &x), 0);
	n = ter_xattrs_set(v1, (uint32_t)n, &a, NULL, v2);
	assert_int_equal(ter_xattrs_set(v2, (uint32_t)n, &b, NULL, v1), 0);
}

static void names_of_attributes_are_checked(void **state)
{
	struct ter_xattr x;
	char name[300] = "user.";

	(void)state;
	assert_int_equal(ter_xattr_name_parse("", &x), -ERANGE);
	assert_int_equal(ter_xattr_name_parse("user.", &x), -EINVAL);
	assert_int_equal(ter_xattr_name_parse("other.x", &x), -EOPNOTSUPP);
	assert_int_equal(ter_xattr_name_parse("system.x", &x), -EOPNOTSUPP);
	assert_int_equal(ter_xattr_name_parse("system.posix_acl_access", &x), 0);
	memset(name + 5, 'n', 250);
	assert_int_equal(ter_xattr_name_parse(name, &x), 0);
	assert_int_equal(x.name_bytes, 250);
	name[255] = 'n';
	assert_int_equal(ter_xattr_name_parse(name, &x), -ERANGE);
}

/* --- anything at all --- */

static void random_damage_is_refused_or_read_within_bounds(void **state)
{
	uint64_t seed = rig_seed(), rand = seed;

	(void)state;
	printf("seed: TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned bytes = rnd_below(&rand, 200);
		uint8_t *val = malloc(bytes + 1), dst[TER_DIRENTS_VAL_MAX];
		struct ter_key key = { .pos = TER_POS(5, 0x10, TER_SNAPSHOT_ROOT), .val = val, .val_bytes = bytes };
		struct ter_dent dent;
		struct ter_inode_attr attr;
		uint32_t perm;
		int n = 0;

		/* Half of them begin as something valid. */
		memset(val, 0, bytes + 1);
		if (bytes > 60 && rnd_below(&rand, 2)) {
			n = ter_dirents_insert(NULL, 0, "name", 4, 5, DT_REG, val);
			n = ter_dirents_insert(val, (uint32_t)n, "nombre", 6, 6, DT_DIR, dst);
			memcpy(val, dst, (size_t)n);
			key.val_bytes = bytes = (unsigned)n;
		}
		for (unsigned i = rnd_below(&rand, 4); bytes && i; i--)
			val[rnd_below(&rand, bytes)] = (uint8_t)rnd(&rand);
		key.type = TER_KEY_DIRENT;
		if (ter_dirents_check(&key) == 0) {
			uint32_t pos = 0;

			while (ter_dirents_next(val, bytes, &pos, &dent) > 0)
				assert_true(dent.name >= (char *)val && dent.name + dent.name_bytes <= (char *)val + bytes);
			assert_int_equal(pos, bytes);
		}
		(void)ter_dirents_insert(val, bytes, "fresh", 5, 9, DT_REG, dst);
		(void)ter_dirents_remove(val, bytes, "name", 4, dst);
		key.type = TER_KEY_XATTR;
		(void)ter_xattrs_check(&key);
		key.type = TER_KEY_INODE;
		(void)ter_inode_decode(&key, &attr);
		(void)ter_acl_to_mode(val, bytes, &perm);
		free(val);
	}
}

/* --- access control lists --- */

struct acl {
	ter_le32 version;
	struct { ter_le16 tag, perm; ter_le32 id; } e[6];
};
#define E(t, p) { { t }, { p }, { 0xffffffff } }

static void lists_follow_the_mode_and_the_mode_follows_lists(void **state)
{
	struct acl full = { { 2 }, { E(1, 7), E(2, 7), E(4, 5), E(8, 6), E(0x10, 7), E(0x20, 5) } };
	struct acl plain = { { 2 }, { E(1, 6), E(4, 4), E(0x20, 0) } };
	uint32_t mode;

	(void)state;
	assert_int_equal(ter_acl_to_mode(&plain, 4 + 3 * 8, &mode), 1);
	assert_int_equal(mode, 0640);
	assert_int_equal(ter_acl_to_mode(&full, sizeof(full), &mode), 0);
	assert_int_equal(mode, 0775); /* the mask stands for the group */

	mode = S_IFREG | 0640;
	assert_int_equal(ter_acl_inherit(&full, sizeof(full), &mode), 0);
	assert_int_equal(mode, S_IFREG | 0640);
	assert_int_equal(ter_le16_get(full.e[0].perm), 6);
	assert_int_equal(ter_le16_get(full.e[1].perm), 7); /* named ones stay, the mask narrows them */
	assert_int_equal(ter_le16_get(full.e[4].perm), 4);
	assert_int_equal(ter_le16_get(full.e[5].perm), 0);

	assert_int_equal(ter_acl_chmod(&full, sizeof(full), 0751), 0);
	assert_int_equal(ter_le16_get(full.e[0].perm), 7);
	assert_int_equal(ter_le16_get(full.e[2].perm), 5); /* the owning group's entry stays */
	assert_int_equal(ter_le16_get(full.e[4].perm), 5);
	assert_int_equal(ter_le16_get(full.e[5].perm), 1);

	mode = S_IFDIR | 0777;
	assert_int_equal(ter_acl_inherit(&plain, 4 + 3 * 8, &mode), 1);
	assert_int_equal(mode, S_IFDIR | 0640);
}

static void malformed_lists_are_refused(void **state)
{
	struct acl good = { { 2 }, { E(1, 7), E(2, 7), E(4, 5), E(8, 6), E(0x10, 7), E(0x20, 5) } }, bad;

	(void)state;
	assert_int_equal(ter_acl_check(&good, sizeof(good)), 0);
	assert_int_equal(ter_acl_check(&good, sizeof(good) - 1), -EINVAL);
	assert_int_equal(ter_acl_check(&good, sizeof(good) - 8), -EINVAL); /* nobody else */
	assert_int_equal(ter_acl_check(&good, 4), -EINVAL);
	assert_int_equal(ter_acl_check(&good, 3), -EINVAL);
	bad = good;
	bad.version = ter_le32_make(1);
	assert_int_equal(ter_acl_check(&bad, sizeof(bad)), -EOPNOTSUPP);
	bad = good;
	bad.e[1].perm = ter_le16_make(8);
	assert_int_equal(ter_acl_check(&bad, sizeof(bad)), -EINVAL);
	bad = good;
	bad.e[4] = bad.e[5]; /* named entries without a mask */
	assert_int_equal(ter_acl_check(&bad, sizeof(bad) - 8), -EINVAL);
	bad = good;
	bad.e[3].tag = ter_le16_make(4); /* the owning group twice */
	assert_int_equal(ter_acl_check(&bad, sizeof(bad)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_one_hash_share_a_key_and_keep_their_slots),
		cmocka_unit_test(the_last_name_of_a_key_leaves_nothing),
		cmocka_unit_test(damaged_directory_entries_are_refused),
		cmocka_unit_test(inodes_are_read_back_as_they_were_written),
		cmocka_unit_test(damaged_inodes_are_refused),
		cmocka_unit_test(attributes_of_one_hash_share_a_key),
		cmocka_unit_test(names_of_attributes_are_checked),
		cmocka_unit_test(random_damage_is_refused_or_read_within_bounds),
		cmocka_unit_test(lists_follow_the_mode_and_the_mode_follows_lists),
		cmocka_unit_test(malformed_lists_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

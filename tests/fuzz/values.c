/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every value decoder, and use of what it accepted. */
#include "values.h"

#include "alloc/accounting.h"
#include "alloc/alloc_format.h"
#include "btree/node_codec.h"
#include "data/extent.h"
#include "fs/acl.h"
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"
#include "fs/xattr_value.h"
#include "fuzz.h"
#include "real_codecs.h"

static void extent(const struct ter_key *key)
{
	static uint8_t val[TER_EXTENT_VAL_MAX];
	const struct ter_sb *sb = fuzz_sb();
	struct ter_extent e;
	struct ter_replicas_entry entry;

	if (ter_extent_decode(key, sb, &e) < 0)
		return;
	fuzz_check(ter_extent_encode(&e, val) == key->val_bytes && !memcmp(val, key->val, key->val_bytes));
	ter_extent_replicas(&e, &entry);
	(void)ter_extent_ptr_sectors(&e);
	if (e.sectors > 2) {
		struct ter_extent part = e;
		uint64_t middle = e.start + e.sectors / 2;

		ter_extent_cut(&part, e.start, middle);
		fuzz_check(ter_extent_encode(&part, val) <= TER_EXTENT_VAL_MAX);
		part = e;
		ter_extent_cut(&part, middle, e.start + e.sectors);
		fuzz_check(part.live_offset < part.raw_sectors && part.sectors <= part.raw_sectors - part.live_offset);
		(void)ter_extent_ptr_sectors(&part);
		fuzz_check(ter_extent_encode(&part, val) <= TER_EXTENT_VAL_MAX);
	}
}

static void inode(const struct ter_key *key)
{
	struct ter_inode_attr attr;
	struct ter_inode_disk disk;
	struct ter_attr out;

	if (ter_inode_decode(key, &attr) < 0)
		return;
	ter_inode_encode(&attr, &disk);
	fuzz_check(!memcmp(&disk, key->val, sizeof(disk)));
	ter_inode_to_attr(&attr, key->pos.inode, 4096, 4096, &out);
	fuzz_check(out.atime.tv_nsec >= 0 && out.atime.tv_nsec < 1000000000);
}

static void dirents(const struct ter_key *key)
{
	static uint8_t val[TER_DIRENTS_VAL_MAX];
	struct ter_dent dent;
	uint32_t pos = 0;
	unsigned nr = 0;
	int valid = ter_dirents_check(key), r;

	while ((r = ter_dirents_next(key->val, key->val_bytes, &pos, &dent)) > 0) {
		fuzz_check(dent.name >= (const char *)key->val && dent.name + dent.name_bytes <= (const char *)key->val + key->val_bytes);
		fuzz_check(++nr <= TER_DIRENT_SLOTS || valid < 0);
		if (valid < 0)
			continue;
		r = ter_dirents_remove(key->val, key->val_bytes, dent.name, dent.name_bytes, val);
		fuzz_check(r >= 0 && (uint32_t)r < key->val_bytes);
		r = ter_dirents_replace(key->val, key->val_bytes, dent.name, dent.name_bytes, 77, dent.type, val);
		fuzz_check(r == (int)key->val_bytes);
	}
	fuzz_check(valid < 0 || r == 0);
	(void)ter_dirents_find(key->val, key->val_bytes, "no such name", 12, &dent);
	r = ter_dirents_insert(key->val, key->val_bytes, "another name", 12, 5, 8, val);
	fuzz_check(r <= (int)TER_DIRENTS_VAL_MAX);
}

static void acl(const struct ter_xattr *x)
{
	uint8_t *copy = malloc(x->value_bytes + 1);
	uint32_t perm = 0, mode = 0644;

	if (!copy)
		abort();
	memcpy(copy, x->value, x->value_bytes);
	(void)ter_acl_check(copy, x->value_bytes);
	(void)ter_acl_to_mode(copy, x->value_bytes, &perm);
	(void)ter_acl_chmod(copy, x->value_bytes, 0751);
	(void)ter_acl_inherit(copy, x->value_bytes, &mode);
	free(copy);
}

static void xattrs(const struct ter_key *key)
{
	uint8_t *val = malloc(key->val_bytes + 64);
	struct ter_xattr x, other;
	uint32_t pos = 0;
	int valid = ter_xattrs_check(key), r;

	if (!val)
		abort();
	while ((r = ter_xattrs_next(key->val, key->val_bytes, &pos, &x)) > 0) {
		fuzz_check((const uint8_t *)x.value + x.value_bytes <= (const uint8_t *)key->val + key->val_bytes);
		acl(&x);
		if (valid < 0)
			continue;
		(void)ter_xattr_prefix(x.ns);
		fuzz_check(ter_xattrs_find(key->val, key->val_bytes, &x, &other) == 0);
		fuzz_check(ter_xattrs_set(key->val, key->val_bytes, &x, NULL, val) < (int)key->val_bytes);
	}
	fuzz_check(valid < 0 || r == 0);
	if (ter_xattr_name_parse("user.other", &x) == 0 && valid == 0) {
		x.value = "12345";
		x.value_bytes = 5;
		fuzz_check(ter_xattrs_set(key->val, key->val_bytes, &x, &x, val) <= (int)key->val_bytes + 64);
	}
	free(val);
}

static void space(const struct ter_key *key)
{
	const struct ter_dev *dev = fuzz_dev();
	struct ter_backpointer_disk bp_disk;
	struct ter_alloc_disk alloc_disk;
	struct ter_bucket_value value;
	struct ter_backpointer bp;

	if (ter_bucket_decode(key, dev, &value) == 0) {
		(void)ter_bucket_state(&value);
		ter_bucket_encode(&value, &alloc_disk);
		fuzz_check(!memcmp(&alloc_disk, key->val, sizeof(alloc_disk)));
	}
	if (ter_backpointer_decode(key, dev, &bp) == 0) {
		ter_backpointer_encode(&bp, &bp_disk);
		fuzz_check(!memcmp(&bp_disk, key->val, sizeof(bp_disk)));
	}
	if (ter_free_range_check(key, dev) == 0)
		fuzz_check(ter_key_start(key) + key->size <= dev->buckets_nr);
	(void)ter_need_discard_check(key, dev);
}

static void counters(const struct ter_key *key)
{
	struct ter_replicas_entry entry;

	if (ter_counter_kind(key->pos) == TER_COUNT_REPLICAS && ter_counter_parse_replicas(key->pos, &entry))
		fuzz_check(ter_pos_cmp(ter_counter_replicas(&entry), TER_POS(key->pos.inode, 0, 0)) == 0);
}

void fuzz_value(const struct ter_key_disk *disk)
{
	struct ter_node_geo geo;
	struct ter_node_ptrs ptrs;
	struct ter_btree_ptr_disk ptr_disk;
	struct ter_key key;
	char text[64];

	ter_key_decode(disk, &key);
	(void)ter_pos_text(key.pos, text);
	fuzz_check(ter_node_geo_init(&geo, fuzz_sb()) == 0);
	/* Each decoder gets keys of every type: it is its own business to refuse those of others. */
	extent(&key);
	inode(&key);
	space(&key);
	counters(&key);
	(void)ter_damage_check(&key);
	if (ter_node_ptrs_decode(&geo, disk, &ptrs) == 0)
		fuzz_check(ter_node_ptrs_encode(&ptrs, &ptr_disk) == key.val_bytes);
	dirents(&key);
	xattrs(&key);
}

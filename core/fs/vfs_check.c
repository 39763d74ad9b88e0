/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsck's pass over files: inodes, directory entries, attributes, extents' owners, notes of damage, counters
 *
 * One record an inode, in order of number; then each btree is read, in order, a buffer of keys at a time, and what it says is counted on the records; at the end the records are
 * compared with themselves.
 *
 * Memory is bounded: where there are more inodes than records fit, a *window* of numbers is done after the other. Each sentence is about one number, and is said in that one's window; of entries that is
 * the directory's for what they are, and the target's for where they lead. Directory entries are read for each window, other keys once.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "data/extent.h"
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"
#include "fs/xattr_value.h"

#define KEYS_BYTES TER_KIB(512) /* of keys between two steps; the longest key fits */
#define SENTENCE_MAX 512
#define RECS_MIN 4 /* of a window */

enum {
	REC_MARKED = 1,      /* in DELETED_INODES */
	REC_XATTRS = 2,      /* says that it has attributes */
	REC_PARENT_SEEN = 4, /* a directory with an entry somewhere */
	REC_ENTRIES = 8,     /* a directory with entries */
	REC_ROOTED = 16,     /* a directory from which parents lead to the root */
	REC_TARGET = 32,     /* a symbolic link with its text */
};

struct rec {
	uint64_t inum : 40, type : 4, flags : 20;
	uint32_t nlink, found; /* claimed; entries (directories: subdirectories) found */
	union {
		uint64_t parent; /* directories: as the inode says */
		int64_t sectors; /* regular files: claimed minus found */
	};
};
_Static_assert(sizeof(struct rec) == 24, "memory of a check");

struct check {
	struct ter_vfs *vfs;
	ter_vfs_check_report report;
	void *report_arg;
	ter_vfs_check_step step;
	void *step_arg;
	int64_t found;

	struct rec *recs;
	size_t nr, max, most;
	uint64_t from, to; /* the window, inclusive */
	uint64_t inodes;   /* of windows before */

	/* the directory or file that keys belong to now */
	uint64_t owner;
	uint64_t owner_entries;
	struct ter_inode_attr owner_attr;
	bool owner_read;

	uint8_t *keys;
	size_t keys_used;
};

static void TER_PRINTF(3, 4) say(struct check *c, const char *pass, const char *fmt, ...)
{
	char sentence[SENTENCE_MAX];
	va_list ap;

	c->found++;
	if (!c->report)
		return;
	va_start(ap, fmt);
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	va_end(ap);
	c->report(c->report_arg, pass, sentence);
}

static struct rec *rec_of(struct check *c, uint64_t inum)
{
	size_t lo = 0, hi = c->nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (c->recs[mid].inum < inum)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->nr && c->recs[lo].inum == inum ? &c->recs[lo] : NULL;
}

static bool in_window(const struct check *c, uint64_t inum)
{
	return inum >= c->from && inum <= c->to;
}

/* --- reading a btree, a buffer of keys at a time --- */

static int copy_key(void *arg, const struct ter_key *key)
{
	struct check *c = arg;
	const uint32_t bytes = ter_key_disk_bytes(key->val_bytes);

	if (bytes > KEYS_BYTES - c->keys_used)
		return 1;
	ter_key_encode(key, c->keys + c->keys_used);
	c->keys_used += bytes;
	return 0;
}

/* @fn: 1 ends it. Keys of inodes from @from_inum to @to_inum. */
static int each_key(struct check *c, enum ter_btree_id btree, uint64_t from_inum, uint64_t to_inum, int (*fn)(struct check *c, const struct ter_key *key))
{
	struct ter_pos from = TER_POS(from_inum, 0, 0);
	const struct ter_pos to = TER_POS(to_inum, UINT64_MAX, UINT32_MAX);
	uint64_t done = 0;
	int r, more;

	do {
		c->keys_used = 0;
		more = ter_btree_scan(c->vfs->config.btrees, btree, from, to, 0, copy_key, c, NULL);
		if (more < 0)
			return more;
		for (size_t at = 0; at < c->keys_used;) {
			struct ter_key key;

			ter_key_decode((const struct ter_key_disk *)(c->keys + at), &key);
			at += ter_key_disk_bytes(key.val_bytes);
			from = ter_pos_next(key.pos);
			done++;
			r = fn(c, &key);
			if (r)
				return ter_min(r, 0);
		}
		if (c->step && c->step(c->step_arg, ter_btree_names[btree], done, 0) < 0)
			return -ECANCELED;
	} while (more == 1);
	return 0;
}

/* --- inodes --- */

static int add_rec(struct check *c, const struct rec *rec)
{
	if (c->nr == c->max) {
		size_t max = ter_min(c->most, c->max + c->max / 2 + 1024);
		struct rec *recs = ter_realloc_array(c->recs, max, sizeof(*recs));

		if (!recs)
			return -ENOMEM;
		c->recs = recs;
		c->max = max;
	}
	c->recs[c->nr++] = *rec;
	return 0;
}

static int check_inode(struct check *c, const struct ter_key *key)
{
	struct ter_inode_attr a;
	struct rec rec;

	if (c->nr == c->most) { /* one key of an inode makes a record */
		c->to = key->pos.inode - 1;
		return 1;
	}
	if (key->pos.offset || key->pos.snapshot != TER_SNAPSHOT_ROOT || ter_inode_decode(key, &a) < 0) {
		say(c, "inodes", "Inode %" PRIu64 " is damaged.", key->pos.inode);
		return 0;
	}
	if (key->pos.inode >= ter_vfs_next_inum(c->vfs))
		say(c, "inodes", "Inode %" PRIu64 " has a number that was not given out yet.", key->pos.inode);
	rec = (struct rec){
		.inum = key->pos.inode, .type = ter_mode_type(a.mode), .nlink = a.nlink, .flags = a.flags & TER_IFLAG_XATTRS ? REC_XATTRS : 0,
	};
	if (S_ISDIR(a.mode))
		rec.parent = a.parent_inum;
	else if (S_ISREG(a.mode))
		rec.sectors = (int64_t)a.sectors;
	if (!S_ISREG(a.mode) && a.sectors)
		say(c, "inodes", "Inode %" PRIu64 " counts %" PRIu64 " sectors, but cannot have any.", key->pos.inode, a.sectors);
	return add_rec(c, &rec);
}

static int check_mark(struct check *c, const struct ter_key *key)
{
	struct rec *rec = rec_of(c, key->pos.inode);

	if (key->type != TER_KEY_SET || key->pos.offset || key->pos.snapshot != TER_SNAPSHOT_ROOT || !rec)
		say(c, "inodes", "The list of deleted inodes has %" PRIu64 ", which does not exist.", key->pos.inode);
	else
		rec->flags |= REC_MARKED;
	return 0;
}

/* --- what belongs to one inode after the other --- */

/* Attributes of the inode that keys belong to; *ret NULL: it has none that can be read. */
static int own(struct check *c, uint64_t inum, const struct ter_inode_attr **ret)
{
	int r;

	if (c->owner != inum || !c->owner_read) {
		r = ter_inode_read_key(c->vfs, TER_POS(inum, 0, TER_SNAPSHOT_ROOT), 0, &c->owner_attr);
		if (r < 0 && r != -ESTALE && r != -EUCLEAN)
			return r;
		c->owner = inum;
		c->owner_read = true;
		c->owner_entries = 0;
		if (r < 0)
			c->owner_attr = (struct ter_inode_attr){ 0 };
	}
	*ret = c->owner_attr.mode ? &c->owner_attr : NULL;
	return 0;
}

static void end_of_dir(struct check *c)
{
	if (c->owner_read && in_window(c, c->owner) && S_ISDIR(c->owner_attr.mode) && c->owner_entries != c->owner_attr.size)
		say(c, "dirents", "Directory %" PRIu64 " counts %" PRIu64 " entries, but has %" PRIu64 ".", c->owner, c->owner_attr.size, c->owner_entries);
}

static void check_entry_of_dir(struct check *c, const struct ter_dent *dent, uint64_t dir, struct rec *target)
{
	if (target->flags & REC_PARENT_SEEN || target->inum == TER_ROOT_INUM)
		say(c, "dirents", "Directory %" PRIu64 " has more than one entry; one is '%.*s' in directory %" PRIu64 ".", dent->inum, (int)dent->name_bytes,
		    dent->name, dir);
	target->flags |= REC_PARENT_SEEN;
	if (target->parent != dir)
		say(c, "dirents", "Directory %" PRIu64 " stands in directory %" PRIu64 ", but says that its parent is %" PRIu64 ".", dent->inum,
		    dir, target->parent);
}

/* Where it leads. */
static void check_target_of(struct check *c, const struct ter_dent *dent, uint64_t dir)
{
	struct rec *target = rec_of(c, dent->inum);

	if (!target) {
		say(c, "dirents", "Entry '%.*s' in directory %" PRIu64 " leads to inode %" PRIu64 ", which does not exist.", (int)dent->name_bytes, dent->name,
		    dir, dent->inum);
		return;
	}
	if (target->type != dent->type)
		say(c, "dirents", "Entry '%.*s' in directory %" PRIu64 " says that inode %" PRIu64 " is of type %u, but it is of type %u.", (int)dent->name_bytes,
		    dent->name, dir, dent->inum, dent->type, (unsigned)target->type);
	if (target->type == ter_mode_type(S_IFDIR))
		check_entry_of_dir(c, dent, dir, target);
	else
		target->found++;
}

/* Of a target in another window, that it is what the entry says: if not, it is told there. */
static bool is_subdirectory(struct check *c, const struct ter_dent *dent)
{
	const struct rec *target = in_window(c, dent->inum) ? rec_of(c, dent->inum) : NULL;

	return target ? target->type == ter_mode_type(S_IFDIR) : !in_window(c, dent->inum) && dent->type == ter_mode_type(S_IFDIR);
}

/* @dir NULL: of another window. */
static void check_entry(struct check *c, const struct ter_dent *dent, uint64_t dir_inum, struct rec *dir, uint64_t hash)
{
	if (dir) {
		c->owner_entries++;
		dir->found += is_subdirectory(c, dent);
		if (ter_dirent_hash(c->vfs->config.sb->sb->hash_key, dent->name, dent->name_bytes) != hash)
			say(c, "dirents", "Entry '%.*s' in directory %" PRIu64 " stands at the place of another name.", (int)dent->name_bytes, dent->name, dir_inum);
	}
	if (in_window(c, dent->inum))
		check_target_of(c, dent, dir_inum);
}

static void check_doubles(struct check *c, const struct ter_key *key)
{
	struct ter_dent a, b;
	uint32_t pos = 0, other;

	while (ter_dirents_next(key->val, key->val_bytes, &pos, &a) > 0) {
		other = pos;
		while (ter_dirents_next(key->val, key->val_bytes, &other, &b) > 0)
			if (a.name_bytes == b.name_bytes && !memcmp(a.name, b.name, a.name_bytes))
				say(c, "dirents", "Entry '%.*s' is twice in directory %" PRIu64 ".", (int)a.name_bytes, a.name, key->pos.inode);
	}
}

static int check_dirents(struct check *c, const struct ter_key *key)
{
	const bool mine = in_window(c, key->pos.inode);
	struct rec *dir = mine ? rec_of(c, key->pos.inode) : NULL;
	const struct ter_inode_attr *attr;
	struct ter_dent dent;
	uint32_t pos = 0;
	int r;

	if (key->pos.inode != c->owner)
		end_of_dir(c);
	r = own(c, key->pos.inode, &attr);
	if (r < 0)
		return r;
	if (key->pos.snapshot != TER_SNAPSHOT_ROOT || ter_dirents_check(key) < 0) {
		if (mine)
			say(c, "dirents", "Directory %" PRIu64 " has damaged entries at %" PRIx64 ".", key->pos.inode, key->pos.offset);
		return 0;
	}
	if (mine ? !dir || dir->type != ter_mode_type(S_IFDIR) : !attr || !S_ISDIR(attr->mode)) {
		if (mine)
			say(c, "dirents", "Inode %" PRIu64 " has directory entries, but is not a directory.", key->pos.inode);
		return 0;
	}
	if (dir) {
		dir->flags |= REC_ENTRIES;
		check_doubles(c, key);
	}
	while (ter_dirents_next(key->val, key->val_bytes, &pos, &dent) > 0)
		check_entry(c, &dent, key->pos.inode, dir, key->pos.offset);
	return 0;
}

static int check_xattrs(struct check *c, const struct ter_key *key)
{
	struct rec *rec = rec_of(c, key->pos.inode);
	struct ter_xattr x;
	uint32_t pos = 0;

	if (key->pos.snapshot != TER_SNAPSHOT_ROOT || ter_xattrs_check(key) < 0) {
		say(c, "xattrs", "Inode %" PRIu64 " has damaged attributes.", key->pos.inode);
		return 0;
	}
	if (!rec || !(rec->flags & REC_XATTRS)) {
		say(c, "xattrs", rec ? "Inode %" PRIu64 " has attributes, but says that it has none." : "Inode %" PRIu64 " has attributes, but does not exist.",
		    key->pos.inode);
		return 0;
	}
	while (ter_xattrs_next(key->val, key->val_bytes, &pos, &x) > 0) {
		char name[TER_NAME_MAX + 1];

		snprintf(name, sizeof(name), "%s%.*s", ter_xattr_prefix(x.ns), (int)x.name_bytes, x.name);
		if (ter_xattr_hash(c->vfs->config.sb->sb->hash_key, name) != key->pos.offset)
			say(c, "xattrs", "Attribute '%s' of inode %" PRIu64 " stands at the place of another name.", name, key->pos.inode);
	}
	return 0;
}

static void check_target(struct check *c, const struct ter_key *key, const struct ter_inode_attr *attr, struct rec *rec)
{
	rec->flags |= REC_TARGET;
	if (c->owner_entries++ || key->type != TER_KEY_INLINE_DATA || key->val_bytes != attr->size || memchr(key->val, '\0', key->val_bytes))
		say(c, "files", "The target of symbolic link %" PRIu64 " is damaged.", key->pos.inode);
}

int ter_file_key_check(struct ter_vfs *vfs, const struct ter_key *key)
{
	const uint32_t align = (vfs->config.sb->sb->options.block_size >> TER_SECTOR_SHIFT) - 1;
	struct ter_extent extent;

	if (!key->size || key->pos.offset < key->size || key->pos.offset > TER_FILE_END >> TER_SECTOR_SHIFT || (key->size | key->pos.offset) & align)
		return -EUCLEAN;
	switch (key->type) {
	case TER_KEY_EXTENT:
		return ter_extent_decode(key, vfs->config.sb->sb, &extent);
	case TER_KEY_INLINE_DATA:
		return key->val_bytes && key->val_bytes <= (uint64_t)key->size << TER_SECTOR_SHIFT ? 0 : -EUCLEAN;
	case TER_KEY_RESERVATION:
	case TER_KEY_ERROR:
		return 0;
	default:
		return -EUCLEAN;
	}
}

static int check_extent(struct check *c, const struct ter_key *key)
{
	const uint32_t block = c->vfs->config.sb->sb->options.block_size;
	struct rec *rec = rec_of(c, key->pos.inode);
	const struct ter_inode_attr *attr;
	int r;

	r = own(c, key->pos.inode, &attr);
	if (r < 0)
		return r;
	if (!attr || !rec || key->pos.snapshot != TER_SNAPSHOT_ROOT || (!S_ISREG(attr->mode) && !S_ISLNK(attr->mode))) {
		say(c, "files", "Inode %" PRIu64 " has extents, but is not a file.", key->pos.inode);
		return 0;
	}
	if (S_ISLNK(attr->mode)) {
		check_target(c, key, attr, rec);
		return 0;
	}
	if (ter_file_key_check(c->vfs, key) < 0) {
		if (key->type != TER_KEY_EXTENT) /* those are told with their pointers */
			say(c, "files", "File %" PRIu64 " has a key up to byte %" PRIu64 " that cannot be valid.", key->pos.inode, key->pos.offset << TER_SECTOR_SHIFT);
		return 0;
	}
	rec->sectors -= ter_extent_key_sectors(key);
	/* What fallocate promised may lie beyond the end; so may anything while a truncation is not finished. */
	if (key->type != TER_KEY_RESERVATION && !(rec->flags & REC_MARKED) && key->pos.offset > ter_round_up(attr->size, block) >> TER_SECTOR_SHIFT)
		say(c, "files", "File %" PRIu64 " has an extent up to byte %" PRIu64 ", beyond its end at %" PRIu64 ".", key->pos.inode,
		    key->pos.offset << TER_SECTOR_SHIFT, attr->size);
	return 0;
}

static int check_damaged(struct check *c, const struct ter_key *key)
{
	const struct rec *rec = rec_of(c, key->pos.inode);

	if (key->pos.snapshot != TER_SNAPSHOT_ROOT || ter_damage_check(key) < 0)
		say(c, "damaged", "The list of damaged files has a record for inode %" PRIu64 " that cannot be valid.", key->pos.inode);
	else if (!rec || rec->type != ter_mode_type(S_IFREG))
		say(c, "damaged", "The list of damaged files has inode %" PRIu64 ", which is not a file.", key->pos.inode);
	return 0;
}

/* --- records with themselves --- */

/* The directory above; 0: the root, or one that is told as an entry or a parent that does not exist, or from which the root is known to be reached. */
static int parent_of(struct check *c, uint64_t inum, uint64_t *ret)
{
	struct ter_inode_attr attr;
	const struct rec *rec;
	int r;

	*ret = 0;
	if (inum == TER_ROOT_INUM)
		return 0;
	if (in_window(c, inum)) {
		rec = rec_of(c, inum);
		*ret = rec && !(rec->flags & REC_ROOTED) && rec->type == ter_mode_type(S_IFDIR) ? rec->parent : 0;
		return 0;
	}
	r = ter_inode_read_key(c->vfs, TER_POS(inum, 0, TER_SNAPSHOT_ROOT), 0, &attr);
	if (r < 0)
		return r == -ESTALE || r == -EUCLEAN ? 0 : r;
	*ret = S_ISDIR(attr.mode) ? attr.parent_inum : 0;
	return 0;
}

/* Told once, and walked once as far as it lies in the window. A loop is met again where the walk stood at some power of two (Brent). */
static int check_loop(struct check *c, struct rec *from)
{
	uint64_t at = from->inum, mark = 0, steps = 0, until = 1, next;
	struct rec *rec;
	int r;

	do {
		if (steps == until) {
			mark = at;
			until *= 2;
		}
		r = parent_of(c, at, &next);
		if (r < 0)
			return r;
		at = next;
		steps++;
	} while (at && at != mark);
	if (at)
		say(c, "dirents", "Directory %" PRIu64 " is below itself, or below one that is.", (uint64_t)from->inum);
	for (at = from->inum; steps--; at = next) {
		rec = in_window(c, at) ? rec_of(c, at) : NULL;
		r = parent_of(c, at, &next);
		if (r < 0)
			return r;
		if (rec)
			rec->flags |= REC_ROOTED;
		if (!next)
			break;
	}
	return 0;
}

static int check_dir_rec(struct check *c, struct rec *rec)
{
	const struct ter_inode_attr *attr;
	const bool root = rec->inum == TER_ROOT_INUM;
	int r;

	if (rec->nlink && !(rec->flags & REC_PARENT_SEEN) && !root)
		say(c, "inodes", "Directory %" PRIu64 " stands in no directory.", (uint64_t)rec->inum);
	if (!rec->nlink && (rec->flags & REC_PARENT_SEEN || rec->found || root))
		say(c, "inodes", "Directory %" PRIu64 " is marked as deleted, but has an entry or entries.", (uint64_t)rec->inum);
	if (rec->nlink && rec->nlink != rec->found + 2)
		say(c, "inodes", "Directory %" PRIu64 " has link count %" PRIu32 ", but %" PRIu32 " subdirectories.", (uint64_t)rec->inum, rec->nlink, rec->found);
	if (rec->nlink) {
		r = check_loop(c, rec);
		if (r < 0)
			return r;
	}
	if (rec->flags & REC_ENTRIES)
		return 0; /* counted when they were read */
	c->owner_read = false;
	r = own(c, rec->inum, &attr);
	if (r >= 0 && attr && attr->size)
		say(c, "dirents", "Directory %" PRIu64 " counts %" PRIu64 " entries, but has none.", (uint64_t)rec->inum, attr->size);
	return r;
}

static int check_recs(struct check *c)
{
	for (size_t i = 0; i < c->nr; i++) {
		struct rec *rec = &c->recs[i];
		const bool dir = rec->type == ter_mode_type(S_IFDIR), reg = rec->type == ter_mode_type(S_IFREG);
		int r;

		if (!rec->nlink && !(rec->flags & REC_MARKED))
			say(c, "inodes", "Inode %" PRIu64 " has no name, and is not in the list of deleted ones.", (uint64_t)rec->inum);
		if (rec->nlink && rec->flags & REC_MARKED && !reg)
			say(c, "inodes", "Inode %" PRIu64 " has a name, and is in the list of deleted ones.", (uint64_t)rec->inum);
		if (reg && rec->sectors)
			say(c, "files", "File %" PRIu64 " counts %" PRId64 " sectors %s than its extents have.", (uint64_t)rec->inum,
			    rec->sectors < 0 ? -rec->sectors : rec->sectors, rec->sectors < 0 ? "less" : "more");
		if (rec->type == ter_mode_type(S_IFLNK) && !(rec->flags & REC_TARGET))
			say(c, "files", "Symbolic link %" PRIu64 " has no target.", (uint64_t)rec->inum);
		if (!dir && rec->nlink != rec->found)
			say(c, "inodes", "Inode %" PRIu64 " has link count %" PRIu32 ", but %" PRIu32 " entries.", (uint64_t)rec->inum, rec->nlink, rec->found);
		if (!dir)
			continue;
		r = check_dir_rec(c, rec);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_counter(struct check *c)
{
	struct ter_trans trans;
	struct ter_key key;
	int64_t counted = 0;
	int r;

	ter_trans_init(&trans, c->vfs->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_ACCOUNTING, ter_counter_inodes(), &key);
	if (r >= 0 && key.type == TER_KEY_COUNTERS && key.val_bytes >= 8)
		counted = (int64_t)ter_le64_get(*(const ter_le64 *)key.val);
	ter_trans_exit(&trans);
	if (r < 0 && r != -ENOENT)
		return r;
	if (counted != (int64_t)c->inodes)
		say(c, "inodes", "The pool counts %" PRId64 " inodes, but has %" PRIu64 ".", counted, c->inodes);
	return 0;
}

static int check_window(struct check *c)
{
	struct rec *root;
	int r;

	c->nr = 0;
	c->to = UINT64_MAX;
	c->owner = c->owner_entries = 0;
	c->owner_read = false;
	r = each_key(c, TER_BTREE_INODES, c->from, UINT64_MAX, check_inode);
	if (r < 0)
		return r;
	root = in_window(c, TER_ROOT_INUM) ? rec_of(c, TER_ROOT_INUM) : NULL;
	if (in_window(c, TER_ROOT_INUM) && (!root || root->type != ter_mode_type(S_IFDIR)))
		say(c, "inodes", "There is no root directory.");
	r = each_key(c, TER_BTREE_DELETED_INODES, c->from, c->to, check_mark);
	if (r < 0)
		return r;
	r = each_key(c, TER_BTREE_DIRENTS, 0, UINT64_MAX, check_dirents);
	if (r < 0)
		return r;
	end_of_dir(c);
	r = each_key(c, TER_BTREE_XATTRS, c->from, c->to, check_xattrs);
	if (r < 0)
		return r;
	c->owner_read = false; /* counts symbolic links' keys from here */
	r = each_key(c, TER_BTREE_EXTENTS, c->from, c->to, check_extent);
	if (r < 0)
		return r;
	r = each_key(c, TER_BTREE_DAMAGED, c->from, c->to, check_damaged);
	c->inodes += c->nr;
	return r < 0 ? r : check_recs(c);
}

static int check_all(struct check *c)
{
	int r;

	do {
		r = check_window(c);
		c->from = c->to + 1;
	} while (r >= 0 && c->to < UINT64_MAX);
	return r < 0 ? r : check_counter(c);
}

int64_t ter_vfs_check(struct ter_vfs *vfs, uint64_t memory_bytes, ter_vfs_check_report report, void *report_arg, ter_vfs_check_step step, void *step_arg)
{
	/* Half of it: while the table grows there are two. */
	const size_t most = ter_max((size_t)(memory_bytes ? memory_bytes : TER_CHECK_MEMORY_DEFAULT) / 2 / sizeof(struct rec), (size_t)RECS_MIN);
	struct check c = { .vfs = vfs, .report = report, .report_arg = report_arg, .step = step, .step_arg = step_arg, .most = most };
	int r;

	c.keys = ter_malloc(KEYS_BYTES);
	r = c.keys ? check_all(&c) : -ENOMEM;
	free(c.keys);
	free(c.recs);
	return r < 0 ? r : c.found;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of extents as files see them: each of a file, possible, none over another; then sizes and sectors of files
 *
 * An extent that goes takes its derived keys along; where these contradict it, it goes alone and the repair of space, which is run again after files changed, sets them right.
 */
#include "alloc/alloc_format.h"
#include "data/extent.h"
#include "fs/vfs_repair_priv.h"

/* --- one key --- */

enum cure { CURE_NOTHING, CURE_DELETE, CURE_TRIM, CURE_ERROR };

struct extent_fix {
	struct ter_fixer *f;
	struct ter_pos pos;
	enum cure cure;
	uint64_t start; /* CURE_TRIM: what is before goes */
	bool alone;     /* derived keys are not touched, but for the counter of promises */
	bool lost;      /* the file is listed as damaged */
};

static int extent_fn(struct ter_trans *trans, void *arg)
{
	const struct extent_fix *x = arg;
	const struct ter_vfs_config *config = &x->f->vfs->config;
	struct ter_key old, key;
	int r;

	r = ter_trans_get(trans, TER_BTREE_EXTENTS, x->pos, &old);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (x->lost) {
		r = ter_vfs_stage_lost(x->f->vfs, trans, old.pos, old.pos.offset > old.size ? ter_key_start(&old) : 0);
		if (r < 0)
			return r;
	}
	if (x->cure == CURE_ERROR) {
		key = (struct ter_key){ .pos = old.pos, .size = old.size, .type = TER_KEY_ERROR };
		return ter_trans_update(trans, TER_BTREE_EXTENTS, old.pos, &old, &key);
	}
	if (x->alone) {
		const int64_t promise = -(int64_t)old.size;

		/* What is promised is a sum of these very keys (TER_COUNT_RESERVED), whatever else is wrong with one. */
		r = old.type == TER_KEY_RESERVATION ? ter_trans_add(trans, ter_counter_reserved(), &promise, 1) : 0;
		return r < 0 ? r : ter_trans_update(trans, TER_BTREE_EXTENTS, old.pos, &old, NULL);
	}
	return ter_extents_stage_trim(config->alloc, trans, config->sb->sb, &old, x->cure == CURE_DELETE ? old.pos.offset : x->start);
}

static int do_fix(struct ter_fixer *f, struct extent_fix *x)
{
	int r;

	r = ter_fix_run(f, extent_fn, x);
	if (r == -EUCLEAN && !x->alone) {
		x->alone = true;
		r = ter_fix_run(f, extent_fn, x);
	}
	return r < 0 ? r : 0;
}

/* --- which of two is right --- */

/* 1: there is data, and every pointer to it has its back reference to this very key. 0: lost or promised, or a key that nothing refers to. */
static int is_backed(struct ter_fixer *f, struct ter_pos pos)
{
	struct ter_extent e = { 0 };
	struct ter_trans trans;
	struct ter_key key;
	int r, backed;

	ter_trans_init(&trans, f->vfs->config.btrees, 0);
	r = ter_trans_get(&trans, TER_BTREE_EXTENTS, pos, &key);
	backed = r >= 0 && (key.type == TER_KEY_EXTENT || key.type == TER_KEY_INLINE_DATA);
	if (r >= 0 && key.type == TER_KEY_EXTENT && ter_extent_decode(&key, f->vfs->config.sb->sb, &e) < 0)
		backed = 0;
	for (unsigned i = 0; i < e.nr_ptrs && r >= 0 && backed; i++) {
		const struct ter_backpointer_disk *back;

		r = ter_trans_get(&trans, TER_BTREE_BACKPOINTERS, ter_backpointer_pos(e.ptr[i].dev, e.ptr[i].sector, e.compression_slot ? e.live_offset : 0), &key);
		back = key.val;
		if (r == -ENOENT || key.type != TER_KEY_BACKPOINTER || key.val_bytes != sizeof(*back) || back->btree != TER_BTREE_EXTENTS || back->level ||
		    ter_le64_get(back->inode) != pos.inode || ter_le64_get(back->offset) != pos.offset)
			backed = r < 0 && r != -ENOENT ? r : 0;
		if (r == -ENOENT)
			r = 0;
	}
	ter_trans_exit(&trans);
	return r < 0 && r != -ENOENT ? r : backed;
}

static int before(struct ter_fixer *f, struct ter_pos pos, uint64_t start, struct ter_pos *ret)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, f->vfs->config.btrees, 0);
	r = ter_trans_prev(&trans, TER_BTREE_EXTENTS, ter_pos_prev(pos), TER_POS(pos.inode, start + 1, 0), &key);
	if (r >= 0)
		*ret = key.pos;
	ter_trans_exit(&trans);
	return r;
}

/* @key reaches into what ends before it. */
static int fix_overlap(struct ter_fixer *f, const struct ter_key *key)
{
	struct extent_fix x = { .f = f, .pos = key->pos };
	const uint64_t start = ter_key_start(key);
	int r, here, there;

	here = is_backed(f, key->pos);
	if (here < 0)
		return here;
	for (;;) {
		struct ter_pos other;

		r = before(f, key->pos, start, &other);
		if (r < 0)
			return r == -ENOENT ? 0 : r; /* all are gone */
		there = is_backed(f, other);
		if (there < 0)
			return there;
		x.alone = false; /* derived keys that are not there, or another's, make it go alone */
		x.cure = CURE_DELETE;
		if (here && !there) {
			x.pos = other;
		} else if (!here && there) {
			x.pos = key->pos;
		} else {
			x.pos = key->pos;
			x.cure = CURE_TRIM;
			x.start = other.offset;
		}
		r = ter_repair_want(f->repair, "files", x.cure == CURE_TRIM ?
				    "File %" PRIu64 " has an extent up to byte %" PRIu64 " that begins within the one before it: it is cut." :
				    "File %" PRIu64 " has an extent up to byte %" PRIu64 " over another that has its data: it is removed.",
				    x.pos.inode, x.pos.offset << TER_SECTOR_SHIFT);
		if (r <= 0)
			return r;
		r = do_fix(f, &x);
		if (r < 0 || ter_pos_cmp(x.pos, key->pos) == 0)
			return r;
	}
}

/* --- all keys --- */

struct walk {
	uint64_t inum, end; /* of the key before */
	unsigned texts;
};

static int fix_impossible(struct ter_fixer *f, const struct ter_key *key)
{
	const uint32_t align = (f->vfs->config.sb->sb->options.block_size >> TER_SECTOR_SHIFT) - 1;
	struct extent_fix x = { .f = f, .pos = key->pos, .cure = CURE_DELETE, .alone = true, .lost = key->type == TER_KEY_EXTENT || key->type == TER_KEY_INLINE_DATA };
	int r;

	if (key->type == TER_KEY_EXTENT && key->size && key->pos.offset >= key->size && !(key->size & align) && !(key->pos.offset & align) &&
	    key->size <= TER_EXTENT_SECTORS_MAX)
		x.cure = CURE_ERROR;
	r = ter_repair_want(f->repair, "files", x.cure == CURE_ERROR ?
			    "File %" PRIu64 " has an extent up to byte %" PRIu64 " that cannot be valid: its data is lost, and reading it says so." :
			    "File %" PRIu64 " has an extent up to byte %" PRIu64 " that cannot be valid: it is removed.",
			    key->pos.inode, key->pos.offset << TER_SECTOR_SHIFT);
	return r <= 0 ? r : do_fix(f, &x);
}

static int remove_stray(struct ter_fixer *f, const struct ter_key *key, const char *why)
{
	struct extent_fix x = { .f = f, .pos = key->pos, .cure = CURE_DELETE };
	int r;

	r = ter_repair_want(f->repair, "files", "%s %" PRIu64 ": an extent up to byte %" PRIu64 " is removed.", why, key->pos.inode,
			    key->pos.offset << TER_SECTOR_SHIFT);
	return r <= 0 ? r : do_fix(f, &x);
}

static int fix_key(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct walk *w = arg;
	struct ter_inode_attr attr;
	int r;

	if (!ter_fix_pos_valid(key->pos))
		return remove_stray(f, key, "There can be no file");
	if (w->inum != key->pos.inode)
		*w = (struct walk){ .inum = key->pos.inode };
	r = ter_fix_read_inode(f, key->pos.inode, &attr);
	if (r < 0)
		return r == -ESTALE || r == -EUCLEAN ? 0 : r; /* left as it is: with data it would have been made anew */
	if (S_ISLNK(attr.mode))
		return w->texts++ ? remove_stray(f, key, "A second target of symbolic link") : 0;
	if (!S_ISREG(attr.mode))
		return remove_stray(f, key, "Not a file is inode");
	if (ter_file_key_check(f->vfs, key) < 0)
		return fix_impossible(f, key); /* a range that reads as an error cannot overlap less than what was there */
	/* Data beyond the end moves the end; lost data does not. */
	if (key->type == TER_KEY_ERROR && ter_key_start(key) >= ter_round_up(attr.size, f->vfs->config.sb->sb->options.block_size) >> TER_SECTOR_SHIFT)
		return remove_stray(f, key, "Lost data beyond the end of file");
	if (ter_key_start(key) < w->end) {
		r = fix_overlap(f, key);
		if (r < 0)
			return r;
	}
	w->end = key->pos.offset;
	return 0;
}

int ter_fix_extents(struct ter_fixer *f)
{
	struct walk w = { 0 };

	return ter_fix_each(f, TER_BTREE_EXTENTS, TER_POS_MIN, TER_POS_MAX, fix_key, &w);
}

/* --- sizes and sectors --- */

struct sums {
	uint64_t inum;
	uint64_t sectors, data_end, size; /* data_end: of the last key with data, in sectors; size: of the file with it */
};

static int take_sums(void *arg, const struct ter_key *key)
{
	struct sums *s = arg;

	if (key->pos.snapshot != TER_SNAPSHOT_ROOT || key->pos.offset < key->size)
		return 0;
	s->sectors += ter_extent_key_sectors(key);
	if (key->type == TER_KEY_RESERVATION || key->pos.offset <= s->data_end)
		return 0;
	s->data_end = key->pos.offset;
	s->size = key->type == TER_KEY_INLINE_DATA ? (ter_key_start(key) << TER_SECTOR_SHIFT) + key->val_bytes : key->pos.offset << TER_SECTOR_SHIFT;
	return 0;
}

static void change_sums(struct ter_inode_attr *attr, void *arg)
{
	const struct sums *s = arg;

	attr->size = s->size;
	attr->sectors = s->sectors;
}

static int sums_fn(struct ter_trans *trans, void *arg)
{
	struct sums *s = arg;

	return ter_fix_stage_inode(trans, s->inum, change_sums, s);
}

static int fix_text_size(struct ter_fixer *f, struct sums *s, const struct ter_inode_attr *attr)
{
	int r;

	if (attr->size == s->size && !attr->sectors)
		return 0;
	if (!s->size || s->size > TER_SYMLINK_MAX)
		return 0; /* a link without text that nobody wanted removed */
	r = ter_repair_want(f->repair, "files", "The target of symbolic link %" PRIu64 " has %" PRIu64 " bytes, but it counts %" PRIu64 ": it is told.", s->inum,
			    s->size, attr->size);
	s->sectors = 0;
	return r <= 0 ? r : ter_fix_run(f, sums_fn, s);
}

static int fix_sums(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	const uint32_t block = f->vfs->config.sb->sb->options.block_size;
	struct sums s = { .inum = key->pos.inode };
	struct ter_inode_attr attr;
	bool beyond, marked = false;
	int r;

	(void)arg;
	if (!ter_fix_pos_valid(key->pos) || ter_inode_decode(key, &attr) < 0)
		return 0;
	if (S_ISREG(attr.mode) || S_ISLNK(attr.mode)) {
		r = ter_btree_scan(f->vfs->config.btrees, TER_BTREE_EXTENTS, TER_POS(s.inum, 0, 0), TER_POS(s.inum, UINT64_MAX, UINT32_MAX), 0, take_sums, &s, NULL);
		if (r < 0)
			return r;
	}
	if (S_ISLNK(attr.mode))
		return fix_text_size(f, &s, &attr);
	if (!S_ISREG(attr.mode))
		s.size = attr.size;
	beyond = S_ISREG(attr.mode) && s.data_end > ter_round_up(attr.size, block) >> TER_SECTOR_SHIFT;
	if (beyond) {
		r = ter_fix_is_marked(f, s.inum);
		if (r < 0)
			return r;
		marked = r;
	}
	if (!beyond || marked)
		s.size = attr.size;
	if (s.size != attr.size)
		r = ter_repair_want(f->repair, "files", "File %" PRIu64 " has data up to byte %" PRIu64 ", beyond its end at %" PRIu64 ": its end is moved there.",
				    s.inum, s.size, attr.size);
	else if (s.sectors != attr.sectors)
		r = ter_repair_want(f->repair, "files", "File %" PRIu64 " counts %" PRIu64 " sectors, but its extents have %" PRIu64 ": it is told.", s.inum,
				    attr.sectors, s.sectors);
	else
		return 0;
	return r <= 0 ? r : ter_fix_run(f, sums_fn, &s);
}

int ter_fix_sizes(struct ter_fixer *f)
{
	return ter_fix_each(f, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, fix_sums, NULL);
}

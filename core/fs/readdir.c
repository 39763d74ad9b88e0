/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Listing a directory
 *
 * Entries come in order of hash, a batch at a time: one scan of DIRENTS, then (if attributes are wanted) what is in memory, then one scan of INODES over the numbers that are left where these
 * are neighbours. Then the caller's function sees them, with no lock held.
 */
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"

#define BATCH_ENTRIES 128u
#define BATCH_NAME_BYTES (BATCH_ENTRIES * 24u) /* or fewer entries; at least TER_DIRENTS_VAL_MAX fits in what is left */
/* Numbers between the first and the last that are read in one go, per inode that is wanted. */
#define NEIGHBOURS_PER_INODE 8u
#define PREFETCH_BATCHES 4u

struct entry {
	uint64_t inum, cookie;
	uint32_t name_at;
	uint8_t name_bytes, type;
	bool have_attr;
	struct ter_attr attr;
};

struct batch {
	struct ter_vfs *vfs;
	uint32_t snapshot;
	uint64_t after;  /* cookie: entries beyond it */
	unsigned nr;
	uint32_t names_used;
	struct entry entry[BATCH_ENTRIES];
	char names[BATCH_NAME_BYTES + TER_DIRENTS_VAL_MAX + TER_DIRENT_SLOTS];
	/* with attributes */
	uint16_t by_inum[BATCH_ENTRIES]; /* entries whose attributes are not in memory, by number */
	unsigned missing, next;
};

static void add_entry(struct batch *b, uint64_t hash, const struct ter_dent *dent)
{
	struct entry *e = &b->entry[b->nr++];

	*e = (struct entry){
		.inum = dent->inum, .cookie = ter_dirent_cookie(hash, dent->slot), .name_at = b->names_used, .name_bytes = (uint8_t)dent->name_bytes,
		.type = dent->type,
	};
	memcpy(b->names + b->names_used, dent->name, dent->name_bytes);
	b->names[b->names_used + dent->name_bytes] = '\0';
	b->names_used += dent->name_bytes + 1;
}

static int add_key(void *arg, const struct ter_key *key)
{
	struct batch *b = arg;
	struct ter_dent dent;
	uint32_t pos = 0;
	int r;

	r = ter_dirents_check(key);
	if (r < 0)
		return r;
	if (b->nr + TER_DIRENT_SLOTS > BATCH_ENTRIES || b->names_used > BATCH_NAME_BYTES)
		return 1; /* there might be no room for all of this key */
	while ((r = ter_dirents_next(key->val, key->val_bytes, &pos, &dent)) > 0)
		if (ter_dirent_cookie(key->pos.offset, dent.slot) > b->after)
			add_entry(b, key->pos.offset, &dent);
	return r;
}

/* 1: there may be more; 0: that was the last. */
static int fill(struct batch *b, const struct ter_op *op, uint64_t dir, uint64_t cookie)
{
	const uint64_t hash = cookie < 3 ? 0 : (cookie - 3) & ~(uint64_t)(TER_DIRENT_SLOTS - 1);
	int r;

	b->after = ter_max(cookie, (uint64_t)2);
	b->nr = 0;
	b->names_used = 0;
	r = ter_btree_scan(b->vfs->config.btrees, TER_BTREE_DIRENTS, TER_POS(dir, hash, b->snapshot), TER_POS(dir, UINT64_MAX, b->snapshot),
			   ter_op_trans_flags(op), add_key, b, NULL);
	if (r == -EAGAIN && b->nr)
		return 1; /* what is there is given; the next call waits */
	return r;
}

/* Hashes are even: what the next batches need can be guessed from the number of entries. */
static void prefetch(struct batch *b, struct ter_inode *dir)
{
	const uint64_t entries = ter_inode_attr(dir).size;
	uint64_t step, last;

	if (!b->nr || entries <= BATCH_ENTRIES)
		return;
	step = TER_DIRENT_HASH_MAX / entries * BATCH_ENTRIES * PREFETCH_BATCHES;
	last = b->entry[b->nr - 1].cookie;
	ter_btree_prefetch(b->vfs->config.btrees, TER_BTREE_DIRENTS, TER_POS(dir->file.inum, last, b->snapshot),
			   TER_POS(dir->file.inum, ter_min(last + step, TER_DIRENT_HASH_MAX), b->snapshot));
}

/* --- attributes --- */

static bool attr_from_memory(struct batch *b, struct entry *e)
{
	struct ter_inode *inode = ter_inode_find(b->vfs, e->inum, b->snapshot);

	if (!inode)
		return false;
	ter_inode_fill(inode, &e->attr);
	e->have_attr = true;
	ter_inode_put(inode);
	return true;
}

static int attr_from_key(void *arg, const struct ter_key *key)
{
	struct batch *b = arg;
	struct ter_inode_attr attr;
	int r;

	while (b->next < b->missing && b->entry[b->by_inum[b->next]].inum < key->pos.inode)
		b->next++; /* no such inode */
	if (b->next == b->missing)
		return 1;
	if (b->entry[b->by_inum[b->next]].inum != key->pos.inode || key->pos.snapshot != b->snapshot)
		return 0;
	r = ter_inode_decode(key, &attr);
	if (r < 0)
		return r;
	for (; b->next < b->missing && b->entry[b->by_inum[b->next]].inum == key->pos.inode; b->next++) {
		struct entry *e = &b->entry[b->by_inum[b->next]];

		ter_inode_to_attr(&attr, e->inum, 0, b->vfs->config.sb->sb->options.block_size, &e->attr);
		e->have_attr = true;
	}
	return 0;
}

static void sort_missing(struct batch *b)
{
	/* Runs of numbers mostly: insertion is quick on what is nearly sorted, and there are few. */
	for (unsigned i = 1; i < b->missing; i++) {
		const uint16_t idx = b->by_inum[i];
		unsigned at = i;

		for (; at && b->entry[b->by_inum[at - 1]].inum > b->entry[idx].inum; at--)
			b->by_inum[at] = b->by_inum[at - 1];
		b->by_inum[at] = idx;
	}
}

static int read_attrs(struct batch *b, const struct ter_op *op)
{
	unsigned first = 0;

	b->missing = 0;
	for (unsigned i = 0; i < b->nr; i++)
		if (!attr_from_memory(b, &b->entry[i]))
			b->by_inum[b->missing++] = (uint16_t)i;
	sort_missing(b);
	while (first < b->missing) {
		const uint64_t from = b->entry[b->by_inum[first]].inum;
		uint64_t to = from;
		unsigned end = first + 1;
		int r;

		for (; end < b->missing && b->entry[b->by_inum[end]].inum - to <= NEIGHBOURS_PER_INODE; end++)
			to = b->entry[b->by_inum[end]].inum;
		b->next = first;
		r = ter_btree_scan(b->vfs->config.btrees, TER_BTREE_INODES, TER_POS(from, 0, b->snapshot), TER_POS(to, 0, b->snapshot),
				   ter_op_trans_flags(op), attr_from_key, b, NULL);
		if (r < 0)
			return r;
		first = end;
	}
	/* One that came into memory meanwhile may have changed there since its key was read. */
	for (unsigned i = 0; i < b->missing; i++)
		(void)attr_from_memory(b, &b->entry[b->by_inum[i]]);
	return 0;
}

/* --- giving --- */

static int give_dots(struct ter_inode *dir, uint64_t *cookie, int (*cb)(void *arg, const struct ter_dirent *dirent), void *arg)
{
	const struct ter_inode_attr attr = ter_inode_attr(dir);

	for (; *cookie < 2; ++*cookie) {
		const struct ter_dirent d = {
			.name = *cookie ? ".." : ".", .name_bytes = *cookie ? 2 : 1, .type = ter_mode_type(S_IFDIR), .cookie = *cookie + 1,
			.node = TER_NODE(1, *cookie ? attr.parent_inum : dir->file.inum),
		};
		int r = cb(arg, &d);

		if (r)
			return r;
	}
	return 0;
}

static int give(struct batch *b, bool attrs, bool *given, int (*cb)(void *arg, const struct ter_dirent *dirent), void *arg)
{
	for (unsigned i = 0; i < b->nr; i++) {
		const struct entry *e = &b->entry[i];
		const struct ter_dirent d = {
			.name = b->names + e->name_at, .name_bytes = e->name_bytes, .node = TER_NODE(1, e->inum), .type = e->type, .cookie = e->cookie,
			.attr = attrs ? &e->attr : NULL,
		};
		int r;

		if (attrs && !e->have_attr)
			continue; /* its inode vanished */
		r = cb(arg, &d);
		if (r)
			return r;
		*given = true;
	}
	return 0;
}

static int list(struct batch *b, const struct ter_op *op, struct ter_inode *dir, uint64_t cookie, bool attrs,
		int (*cb)(void *arg, const struct ter_dirent *dirent), void *arg)
{
	bool given = cookie < 2, more;
	int r;

	r = give_dots(dir, &cookie, cb, arg);
	if (r)
		return r < 0 ? r : 0;
	do {
		r = fill(b, op, dir->file.inum, cookie);
		if (r == -EAGAIN && given)
			return 0; /* not the end: the next call, which goes on from here, is told to wait */
		if (r < 0)
			return r;
		more = r > 0;
		if (!b->nr)
			break;
		if (more)
			prefetch(b, dir);
		cookie = b->entry[b->nr - 1].cookie;
		r = attrs ? read_attrs(b, op) : 0;
		if (r == -EAGAIN && given)
			return 0;
		if (r < 0)
			return r;
		r = give(b, attrs, &given, cb, arg);
		if (r)
			return r < 0 ? r : 0;
	} while (more);
	return 0;
}

int ter_vfs_readdir(struct ter_vfs *vfs, const struct ter_op *op, uint64_t dir, uint64_t cookie, bool attrs,
		    int (*cb)(void *arg, const struct ter_dirent *dirent), void *arg)
{
	_cleanup_(ter_inode_putp) struct ter_inode *inode = NULL;
	_cleanup_free_ struct batch *b = NULL;
	int r;

	r = ter_inode_get_node(vfs, dir, op->nowait, &inode);
	if (r < 0)
		return r;
	if (!S_ISDIR(inode->type))
		return -ENOTDIR;
	b = ter_malloc(sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->vfs = vfs;
	b->snapshot = inode->file.snapshot;
	r = list(b, op, inode, cookie, attrs, cb, arg);
	if (r >= 0 && !op->noatime)
		ter_inode_touch_atime(inode);
	return r;
}

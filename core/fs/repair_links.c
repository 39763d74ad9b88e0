/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of link counts, and of the list of deleted inodes. As many inodes in one turn as memory allows; each turn reads all directory entries. */
#include "fs/vfs_repair_priv.h"

struct links {
	uint64_t inum;
	uint32_t nlink, found;
};
_Static_assert(sizeof(struct links) == 16, "memory of a repair");

struct turn {
	struct links *list;
	size_t nr, room, max;
	uint64_t from, last; /* last: greatest that was taken; 0: none */
	bool more;
};

static int take_inode(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct turn *t = arg;
	struct ter_inode_attr attr;

	(void)f;
	if (!ter_fix_pos_valid(key->pos) || ter_inode_decode(key, &attr) < 0 || ter_attr_is_dir(&attr))
		return 0;
	if (t->nr == t->max) {
		t->more = true;
		return 1;
	}
	if (t->nr == t->room) {
		const size_t room = ter_min(t->max, t->room + t->room / 2 + 1024);
		struct links *list = ter_realloc_array(t->list, room, sizeof(*list));

		if (!list)
			return -ENOMEM;
		t->list = list;
		t->room = room;
	}
	t->list[t->nr++] = (struct links){ .inum = key->pos.inode, .nlink = attr.nlink };
	t->last = key->pos.inode;
	return 0;
}

static int take_entries(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct turn *t = arg;
	struct ter_dent dent;
	uint32_t pos = 0;

	(void)f;
	if (!ter_fix_pos_valid(key->pos) || ter_dirents_check(key) < 0)
		return 0;
	while (ter_dirents_next(key->val, key->val_bytes, &pos, &dent) > 0) {
		size_t lo = 0, hi = t->nr;

		while (lo < hi) {
			const size_t mid = lo + (hi - lo) / 2;

			if (t->list[mid].inum < dent.inum)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo < t->nr && t->list[lo].inum == dent.inum)
			t->list[lo].found++;
	}
	return 0;
}

static void change_nlink(struct ter_inode_attr *attr, void *arg)
{
	const struct links *l = arg;

	attr->nlink = l->found;
	attr->flags &= ~(uint32_t)TER_IFLAG_LINKABLE;
}

static int nlink_fn(struct ter_trans *trans, void *arg)
{
	const struct links *l = arg;
	const int r = ter_fix_stage_inode(trans, l->inum, change_nlink, arg);

	/* Where a deletion had begun; of a truncation there is nothing left to finish then but what the next repair of sizes sees. */
	return r < 0 || l->nlink ? r : ter_fix_stage_unmark(trans, l->inum);
}

static int fix_links(struct ter_fixer *f, struct links *l)
{
	int r;

	if (l->found) {
		if (l->found == l->nlink)
			return 0;
		r = ter_repair_want(f->repair, "inodes", "Inode %" PRIu64 " has link count %" PRIu32 ", but %" PRIu32 " entries: it is told.", l->inum, l->nlink,
				    l->found);
		return r <= 0 ? r : ter_fix_run(f, nlink_fn, l);
	}
	if (!l->nlink) {
		r = ter_fix_is_marked(f, l->inum);
		if (r)
			return r < 0 ? r : 0; /* is being deleted */
	}
	r = ter_repair_want(f->repair, "inodes", "Inode %" PRIu64 " has no name: it is put into /lost+found.", l->inum);
	return r <= 0 ? r : ter_fix_connect(f, l->inum);
}

/* --- DELETED_INODES --- */

static int fix_mark(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct ter_inode_attr attr;
	bool valid;
	int r;

	(void)arg;
	valid = key->type == TER_KEY_SET && !key->pos.offset && ter_fix_pos_valid(key->pos);
	if (valid) {
		r = ter_fix_read_inode(f, key->pos.inode, &attr);
		if (r >= 0 && (S_ISREG(attr.mode) || !attr.nlink || ter_attr_is_dir(&attr)))
			return 0; /* directories: with their counts */
		if (r < 0 && r != -ESTALE)
			return r == -EUCLEAN ? 0 : r;
		valid = r >= 0;
	}
	r = ter_repair_want(f->repair, "inodes", valid ? "Inode %" PRIu64 " has a name, and is in the list of deleted inodes: it is taken off." :
			    "The list of deleted inodes has %" PRIu64 ", which does not exist: it is taken off.", key->pos.inode);
	if (r > 0)
		r = ter_fix_delete_key(f, TER_BTREE_DELETED_INODES, key->pos);
	return r < 0 ? r : 0;
}

int ter_fix_links(struct ter_fixer *f)
{
	struct turn t = { .from = 1, .max = ter_max(f->memory_bytes / 2 / sizeof(struct links), (size_t)4) };
	int r;

	do {
		t.nr = 0;
		t.more = false;
		r = ter_fix_each(f, TER_BTREE_INODES, TER_POS(t.from, 0, 0), TER_POS_MAX, take_inode, &t);
		if (r >= 0)
			r = ter_fix_each(f, TER_BTREE_DIRENTS, TER_POS_MIN, TER_POS_MAX, take_entries, &t);
		for (size_t i = 0; r >= 0 && i < t.nr; i++)
			r = fix_links(f, &t.list[i]);
		t.from = t.last + 1;
	} while (r >= 0 && t.more);
	free(t.list);
	return r < 0 ? r : ter_fix_each(f, TER_BTREE_DELETED_INODES, TER_POS_MIN, TER_POS_MAX, fix_mark, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the steps of the repair of files share. */
#ifndef TER_VFS_REPAIR_PRIV_H
#define TER_VFS_REPAIR_PRIV_H

#include <inttypes.h>

#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"
#include "fs/vfs_repair.h"

struct ter_fixer {
	struct ter_vfs *vfs;
	struct ter_repair *repair;
	uint64_t lost_found; /* 0: not made or found yet */
	size_t memory_bytes;
	/* The inode asked for last: keys of one come together. */
	uint64_t seen_inum;
	int seen_r;
	struct ter_inode_attr seen_attr;
};

static inline struct ter_pos ter_fix_pos(uint64_t inum)
{
	return TER_POS(inum, 0, TER_SNAPSHOT_ROOT);
}
static inline bool ter_fix_inum_valid(uint64_t inum)
{
	return inum && inum <= TER_INUM_MAX;
}
static inline bool ter_fix_pos_valid(struct ter_pos pos)
{
	return ter_fix_inum_valid(pos.inode) && pos.snapshot == TER_SNAPSHOT_ROOT;
}

/* --- vfs_repair.c: reading and staging --- */

/* Every key from @from to @to, a buffer at a time, while @fn changes what it likes at and before the key that it is given. @fn: 1 stops, < 0 fails. */
int ter_fix_each(struct ter_fixer *f, enum ter_btree_id btree, struct ter_pos from, struct ter_pos to, int (*fn)(struct ter_fixer *f, const struct ter_key *key, void *arg),
		 void *arg);
/* -ESTALE: none; -EUCLEAN: cannot be read. */
int ter_fix_read_inode(struct ter_fixer *f, uint64_t inum, struct ter_inode_attr *ret);
int ter_fix_run(struct ter_fixer *f, int (*fn)(struct ter_trans *trans, void *arg), void *arg);
int ter_fix_has_keys(struct ter_fixer *f, enum ter_btree_id btree, uint64_t inum); /* 1, 0 */
int ter_fix_is_marked(struct ter_fixer *f, uint64_t inum);                          /* in DELETED_INODES: 1, 0 */
int ter_fix_delete_key(struct ter_fixer *f, enum ter_btree_id btree, struct ter_pos pos);

/* Within a transaction. */
int ter_fix_stage_inode(struct ter_trans *trans, uint64_t inum, void (*change)(struct ter_inode_attr *attr, void *arg), void *arg);
int ter_fix_stage_new(struct ter_trans *trans, uint64_t inum, const struct ter_inode_attr *attr); /* in place of whatever key there is; not counted: one that was lost still is */
int ter_fix_stage_unmark(struct ter_trans *trans, uint64_t inum);
/* An entry comes (+1) to or goes (-1) from a directory: its counts. */
int ter_fix_stage_count(struct ter_trans *trans, uint64_t dir, bool is_dir, int sign);
/* 1: @dir has an entry for @inum in the key at @offset; 0: none that can be read. */
int ter_fix_leads_to(struct ter_fixer *f, uint64_t dir, uint64_t offset, uint64_t inum);
/* The inode, which no entry leads to, becomes #<inum> in /lost+found. */
int ter_fix_connect(struct ter_fixer *f, uint64_t inum);

/* --- steps, one file each --- */
int ter_fix_names(struct ter_fixer *f);   /* repair_names.c */
int ter_fix_inodes(struct ter_fixer *f);  /* repair_inodes.c */
int ter_fix_entries(struct ter_fixer *f); /* repair_entries.c */
int ter_fix_tree(struct ter_fixer *f);    /* repair_tree.c */
int ter_fix_counts(struct ter_fixer *f);
int ter_fix_links(struct ter_fixer *f);   /* repair_links.c */
int ter_fix_xattrs(struct ter_fixer *f);  /* repair_xattrs.c */
int ter_fix_extents(struct ter_fixer *f); /* repair_extents.c */
int ter_fix_sizes(struct ter_fixer *f);
int ter_fix_damaged(struct ter_fixer *f); /* repair_damaged.c */

#endif

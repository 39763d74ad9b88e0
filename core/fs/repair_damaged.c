/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair of the list of damaged files: it has files that exist; a record that cannot be read still says that its file was noted. */
#include "fs/vfs_repair_priv.h"

struct renote {
	struct ter_fixer *f;
	struct ter_pos pos;
};

static int renote_fn(struct ter_trans *trans, void *arg)
{
	const struct renote *n = arg;

	return ter_vfs_stage_lost(n->f->vfs, trans, n->pos, 0); /* where is not known any more */
}

static int fix_key(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct renote n = { f, key->pos };
	struct ter_inode_attr attr;
	int r;

	(void)arg;
	r = ter_fix_pos_valid(key->pos) && !key->pos.offset ? ter_fix_read_inode(f, key->pos.inode, &attr) : -ESTALE;
	if (r == -EUCLEAN)
		return 0; /* left as it is */
	if (r < 0 && r != -ESTALE)
		return r;
	if (r == -ESTALE || !S_ISREG(attr.mode)) {
		r = ter_repair_want(f->repair, "damaged", "The list of damaged files has inode %" PRIu64 ", which is not a file: it is taken off.", key->pos.inode);
		return r <= 0 ? r : ter_fix_delete_key(f, TER_BTREE_DAMAGED, key->pos);
	}
	if (ter_damage_check(key) >= 0)
		return 0;
	r = ter_repair_want(f->repair, "damaged", "The list of damaged files has a record for inode %" PRIu64 " that cannot be valid: it is made anew.", key->pos.inode);
	return r <= 0 ? r : ter_fix_run(f, renote_fn, &n);
}

int ter_fix_damaged(struct ter_fixer *f)
{
	return ter_fix_each(f, TER_BTREE_DAMAGED, TER_POS_MIN, TER_POS_MAX, fix_key, NULL);
}

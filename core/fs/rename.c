/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rename, with all its flags
 *
 * Who is concerned: two directories, the inode that moves, and the one whose name it takes (replaced or exchanged). The names are looked up, the inodes locked in order of number, and the
 * transaction looks the names up again; if they lead elsewhere by then, all is done again. A directory that gets another parent is moved under the RENAME lock, so that no two moves
 * together make a loop.
 */
#include <linux/fs.h>

#include "fs/vfs_priv.h"

enum { OLD_DIR, NEW_DIR, SOURCE, TARGET, ROLES_NR };

struct end { /* one of the two names */
	struct ter_pos pos;
	const char *name;
	size_t name_bytes;
	uint64_t inum; /* as looked up; 0: no such name */
	uint8_t type;
};

struct rename {
	struct ter_vfs *vfs;
	const struct ter_op *op;
	unsigned flags;
	struct ter_inode *inode[ROLES_NR];    /* OLD_DIR and NEW_DIR may be one; TARGET may be NULL */
	struct ter_inode_attr *attr[ROLES_NR]; /* likewise */
	struct ter_inode_attr attrs[ROLES_NR];
	struct ter_key key[ROLES_NR];
	struct end from, to;
	int64_t now;
	struct ter_new_inode whiteout;
	struct ter_request_stage request;
};

static bool is_exchange(const struct rename *n)
{
	return n->flags & RENAME_EXCHANGE;
}

static bool moves_dir(const struct rename *n)
{
	if (n->inode[OLD_DIR] == n->inode[NEW_DIR])
		return false;
	return S_ISDIR(n->inode[SOURCE]->type) || (is_exchange(n) && n->inode[TARGET] && S_ISDIR(n->inode[TARGET]->type));
}

/* --- the transaction --- */

static int read_roles(struct ter_trans *trans, struct rename *n)
{
	for (unsigned i = 0; i < ROLES_NR; i++) {
		int r;

		n->attr[i] = &n->attrs[i];
		if (!n->inode[i])
			continue;
		if (i == NEW_DIR && n->inode[NEW_DIR] == n->inode[OLD_DIR]) {
			n->attr[NEW_DIR] = n->attr[OLD_DIR];
			continue;
		}
		r = ter_inode_stage_begin(trans, n->inode[i], &n->key[i], n->attr[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_name(struct ter_trans *trans, const struct end *e)
{
	uint64_t inum = 0;
	uint8_t type;
	int r;

	r = ter_dirent_find(trans, e->pos, e->name, e->name_bytes, &inum, &type);
	if (r < 0 && r != -ENOENT)
		return r;
	return inum == e->inum ? 0 : TER_NAMES_CHANGED;
}

static int check_kinds(const struct rename *n)
{
	const struct ter_inode_attr *target = n->attr[TARGET];
	const bool source_dir = S_ISDIR(n->attr[SOURCE]->mode);
	int r;

	r = ter_dir_may_change(n->attr[OLD_DIR], true);
	if (r >= 0)
		r = ter_dir_may_change(n->attr[NEW_DIR], n->inode[TARGET] != NULL);
	if (r < 0)
		return r;
	if (n->attr[SOURCE]->flags & (TER_INODE_IMMUTABLE | TER_INODE_APPEND))
		return -EPERM;
	if (!n->inode[TARGET])
		return 0;
	if (target->flags & (TER_INODE_IMMUTABLE | TER_INODE_APPEND))
		return -EPERM;
	if (!n->attr[SOURCE]->nlink || !target->nlink)
		return -EUCLEAN;
	if (is_exchange(n))
		return 0;
	if (source_dir && !S_ISDIR(target->mode))
		return -ENOTDIR;
	if (!source_dir && S_ISDIR(target->mode))
		return -EISDIR;
	return 0;
}

static int stage_names(struct ter_trans *trans, struct rename *n)
{
	const uint64_t source = n->inode[SOURCE]->file.inum;
	const uint8_t source_type = ter_mode_type(n->attr[SOURCE]->mode);
	const struct end *from = &n->from, *to = &n->to;
	int r;

	if (is_exchange(n))
		r = ter_dirent_replace(trans, from->pos, from->name, from->name_bytes, n->inode[TARGET]->file.inum, ter_mode_type(n->attr[TARGET]->mode));
	else if (n->flags & RENAME_WHITEOUT)
		r = ter_dirent_replace(trans, from->pos, from->name, from->name_bytes, n->whiteout.inode->file.inum, ter_mode_type(S_IFCHR));
	else
		r = ter_dirent_remove(trans, from->pos, from->name, from->name_bytes);
	if (r < 0)
		return r == -ENOENT ? -EUCLEAN : r; /* it was there a moment ago in this transaction */
	if (n->inode[TARGET])
		return ter_dirent_replace(trans, to->pos, to->name, to->name_bytes, source, source_type);
	return ter_dirent_add(trans, to->pos, to->name, to->name_bytes, source, source_type);
}

static int change_nlink(struct ter_inode_attr *dir, int by)
{
	if (by < 0 && dir->nlink <= 2)
		return -EUCLEAN;
	if (by > 0 && dir->nlink >= TER_LINK_MAX)
		return -EMLINK;
	dir->nlink += (uint32_t)by;
	return 0;
}

static void set_parent(struct ter_inode_attr *attr, const struct end *at)
{
	attr->parent_inum = at->pos.inode;
	attr->parent_offset = at->pos.offset;
}

/* The target loses the name it had. */
static int drop_target(struct ter_trans *trans, struct rename *n)
{
	struct ter_inode_attr *target = n->attr[TARGET];
	int r;

	target->ctime_ns = n->now;
	if (S_ISDIR(target->mode)) {
		r = ter_dir_is_empty(trans, n->inode[TARGET]);
		if (r <= 0)
			return r < 0 ? r : -ENOTEMPTY;
		r = change_nlink(n->attr[NEW_DIR], -1);
		if (r < 0)
			return r;
		target->nlink = 0;
	} else {
		target->nlink--;
		if (target->parent_inum == n->to.pos.inode && target->parent_offset == n->to.pos.offset)
			target->parent_inum = target->parent_offset = 0;
	}
	return target->nlink ? 0 : ter_orphan_stage(trans, n->inode[TARGET], true);
}

/* Subdirectories are counted where they are; what was not there before is new there. */
static int count_dirs(struct rename *n)
{
	struct ter_inode_attr *old_dir = n->attr[OLD_DIR], *new_dir = n->attr[NEW_DIR];
	int r = 0;

	if (old_dir == new_dir)
		return 0;
	if (S_ISDIR(n->attr[SOURCE]->mode)) {
		r = change_nlink(old_dir, -1);
		if (r >= 0)
			r = change_nlink(new_dir, 1);
	}
	if (r >= 0 && is_exchange(n) && S_ISDIR(n->attr[TARGET]->mode)) {
		r = change_nlink(new_dir, -1);
		if (r >= 0)
			r = change_nlink(old_dir, 1);
	}
	return r;
}

static int change_attrs(struct ter_trans *trans, struct rename *n)
{
	struct ter_inode_attr *old_dir = n->attr[OLD_DIR], *new_dir = n->attr[NEW_DIR];
	int r;

	if (n->inode[TARGET] && !is_exchange(n)) {
		r = drop_target(trans, n);
		if (r < 0)
			return r;
	}
	r = count_dirs(n);
	if (r < 0)
		return r;
	set_parent(n->attr[SOURCE], &n->to);
	n->attr[SOURCE]->ctime_ns = n->now;
	if (is_exchange(n)) {
		set_parent(n->attr[TARGET], &n->from);
		n->attr[TARGET]->ctime_ns = n->now;
	} else {
		if (!(n->flags & RENAME_WHITEOUT)) {
			if (!old_dir->size)
				return -EUCLEAN;
			old_dir->size--;
		}
		if (!n->inode[TARGET])
			new_dir->size++;
	}
	old_dir->mtime_ns = old_dir->ctime_ns = n->now;
	new_dir->mtime_ns = new_dir->ctime_ns = n->now;
	return 0;
}

static int stage_roles(struct ter_trans *trans, struct rename *n)
{
	for (unsigned i = 0; i < ROLES_NR; i++) {
		int r;

		if (!n->inode[i] || n->attr[i] != &n->attrs[i])
			continue;
		r = ter_inode_stage_end(trans, n->inode[i], &n->key[i], n->attr[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int rename_fn(struct ter_trans *trans, void *arg)
{
	struct rename *n = arg;
	int r;

	r = read_roles(trans, n);
	if (r >= 0)
		r = check_name(trans, &n->from);
	if (r >= 0)
		r = check_name(trans, &n->to);
	if (r >= 0)
		r = check_kinds(n);
	if (r >= 0)
		r = stage_names(trans, n);
	if (r >= 0)
		r = change_attrs(trans, n);
	if (r >= 0)
		r = stage_roles(trans, n);
	if (r >= 0 && n->whiteout.inode) {
		set_parent(&n->whiteout.attr, &n->from);
		r = ter_new_inode_stage(trans, &n->whiteout);
	}
	return r < 0 ? r : ter_request_stage(trans, n->op, &n->request);
}

/* --- around it --- */

static int run(struct rename *n, uint64_t *ret_orphan)
{
	struct ter_vfs *vfs = n->vfs;
	uint64_t seq;
	int r;

	n->now = ter_vfs_now(vfs);
	if (n->flags & RENAME_WHITEOUT) {
		r = ter_new_inode_init(n->inode[OLD_DIR], n->op, S_IFCHR, 0, n->now, &n->whiteout);
		if (r < 0)
			return r;
	}
	r = ter_trans_run(vfs->config.btrees, ter_op_trans_flags(n->op), rename_fn, n, &seq);
	if (n->whiteout.inode) {
		/* Found by its key when somebody asks for it. */
		if (r >= 0)
			ter_inum_committed(vfs, &n->whiteout.inum);
		n->whiteout.inode->unhashed = true;
		ter_inode_put(TAKE_PTR(n->whiteout.inode));
	}
	if (r < 0)
		return r;
	for (unsigned i = 0; i < ROLES_NR; i++)
		if (n->inode[i])
			ter_inode_committed(n->inode[i], n->attr[i], false, seq);
	if (n->inode[TARGET] && !n->attr[TARGET]->nlink) {
		ter_orphan_pin(n->inode[TARGET]);
		if (ret_orphan)
			*ret_orphan = ter_inode_node(n->inode[TARGET]);
	}
	return 0;
}

/* Is @inum @dir, or above it? With the RENAME lock, so that nobody's parent changes. 1, 0, or a negative errno. */
static int is_ancestor(struct ter_vfs *vfs, const struct ter_op *op, uint64_t inum, const struct ter_inode *dir)
{
	const uint32_t snapshot = dir->file.snapshot;
	uint64_t at = dir->file.inum;

	for (unsigned depth = 0; depth < TER_DIR_DEPTH_MAX; depth++) {
		struct ter_inode *inode;
		int r;

		if (at == inum)
			return 1;
		if (at == TER_ROOT_INUM)
			return 0;
		r = ter_inode_get(vfs, at, snapshot, op->nowait, &inode);
		if (r < 0)
			return r == -ESTALE ? -ENOENT : r; /* a directory on the way was removed */
		at = ter_inode_attr(inode).parent_inum;
		ter_inode_put(inode);
	}
	return -EUCLEAN;
}

static int check_loops(struct rename *n)
{
	int r;

	if (S_ISDIR(n->inode[SOURCE]->type)) {
		r = is_ancestor(n->vfs, n->op, n->inode[SOURCE]->file.inum, n->inode[NEW_DIR]);
		if (r)
			return r < 0 ? r : -EINVAL;
	}
	if (!n->inode[TARGET] || !S_ISDIR(n->inode[TARGET]->type))
		return 0;
	r = is_ancestor(n->vfs, n->op, n->inode[TARGET]->file.inum, n->inode[OLD_DIR]);
	if (r)
		return r < 0 ? r : is_exchange(n) ? -EINVAL : -ENOTEMPTY;
	return 0;
}

static int look_up(struct rename *n, struct ter_inode *dir, struct end *e, struct ter_inode **ret_inode)
{
	int r;

	e->inum = 0;
	r = ter_dir_lookup(n->vfs, n->op, dir, e->name, e->name_bytes, &e->inum, &e->type);
	if (r < 0)
		return r;
	r = ter_inode_get(n->vfs, e->inum, dir->file.snapshot, n->op->nowait, ret_inode);
	return r == -ESTALE ? TER_NAMES_CHANGED : r;
}

static int look_up_both(struct rename *n)
{
	int r;

	r = look_up(n, n->inode[OLD_DIR], &n->from, &n->inode[SOURCE]);
	if (r < 0)
		return r;
	r = look_up(n, n->inode[NEW_DIR], &n->to, &n->inode[TARGET]);
	if (r == -ENOENT)
		return is_exchange(n) ? -ENOENT : 0;
	if (r < 0)
		return r;
	return n->flags & RENAME_NOREPLACE ? -EEXIST : 0;
}

static int rename_locked(struct rename *n, bool have_rename_lock, bool *ret_want_rename_lock, uint64_t *ret_orphan)
{
	struct ter_inode *locked[ROLES_NR];
	unsigned locked_nr = ROLES_NR;
	int r;

	if (n->inode[SOURCE] == n->inode[TARGET])
		return 0; /* two names of one inode: nothing is to be done */
	if (moves_dir(n)) {
		if (!have_rename_lock) {
			*ret_want_rename_lock = true;
			return TER_NAMES_CHANGED;
		}
		r = check_loops(n);
		if (r < 0)
			return r;
	} else if (n->inode[SOURCE] == n->inode[NEW_DIR]) {
		return -EINVAL;
	}
	memcpy(locked, n->inode, sizeof(locked));
	r = ter_inodes_lock(locked, &locked_nr, n->op->nowait);
	if (r < 0)
		return r == -ESTALE ? TER_NAMES_CHANGED : r;
	r = run(n, ret_orphan);
	ter_inodes_unlock(locked, locked_nr);
	return r;
}

static int rename_once(struct rename *n, bool *want_rename_lock, uint64_t *ret_orphan)
{
	const bool have = *want_rename_lock;
	int r;

	if (have) {
		if (!n->op->nowait)
			ter_lock_acquire(&n->vfs->rename_lock);
		else if (!ter_lock_try(&n->vfs->rename_lock))
			return -EAGAIN;
	}
	r = look_up_both(n);
	if (r >= 0)
		r = rename_locked(n, have, want_rename_lock, ret_orphan);
	if (have)
		ter_lock_release(&n->vfs->rename_lock);
	ter_inode_put(TAKE_PTR(n->inode[SOURCE]));
	ter_inode_put(TAKE_PTR(n->inode[TARGET]));
	return r;
}

static int check_args(struct rename *n)
{
	int r;

	if (n->flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if (is_exchange(n) && n->flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))
		return -EINVAL;
	r = ter_name_check(n->from.name, &n->from.name_bytes);
	if (r < 0)
		return r == -EEXIST ? -EBUSY : r;
	r = ter_name_check(n->to.name, &n->to.name_bytes);
	if (r < 0)
		return r == -EEXIST ? n->flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY : r;
	return 0;
}

int ter_vfs_rename(struct ter_vfs *vfs, const struct ter_op *op, uint64_t old_parent, const char *old_name, uint64_t new_parent, const char *new_name,
		   unsigned flags, uint64_t *ret_orphan)
{
	_cleanup_(ter_inode_putp) struct ter_inode *old_dir = NULL;
	_cleanup_(ter_inode_putp) struct ter_inode *new_dir = NULL;
	struct rename n = { .vfs = vfs, .op = op, .flags = flags, .from.name = old_name, .to.name = new_name };
	bool want_rename_lock = false;
	int r;

	if (ret_orphan)
		*ret_orphan = 0;
	r = check_args(&n);
	if (r < 0)
		return r;
	TER_VFS_ENTER(vfs);
	r = ter_inode_get_node(vfs, old_parent, op->nowait, &old_dir);
	if (r >= 0)
		r = ter_inode_get_node(vfs, new_parent, op->nowait, &new_dir);
	if (r < 0)
		return r;
	if (!S_ISDIR(old_dir->type) || !S_ISDIR(new_dir->type))
		return -ENOTDIR;
	n.inode[OLD_DIR] = old_dir;
	n.inode[NEW_DIR] = new_dir;
	n.from.pos = ter_dirent_pos(vfs, old_dir, old_name, n.from.name_bytes);
	n.to.pos = ter_dirent_pos(vfs, new_dir, new_name, n.to.name_bytes);
	for (unsigned i = 0; i < TER_NAMES_RETRIES_MAX; i++) {
		r = rename_once(&n, &want_rename_lock, ret_orphan);
		if (r != TER_NAMES_CHANGED)
			return r;
	}
	return -EUCLEAN; /* an entry whose inode does not exist: fsck tells which */
}

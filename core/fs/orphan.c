/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inodes without a name, and truncations not finished: DELETED_INODES
 *
 * The last name goes in a transaction that also puts the inode into DELETED_INODES. Its data and keys go when the caller says that nobody holds it (ter_vfs_forget()), in the background, or at the
 * next start. Small inodes go several to a transaction; large ones in as many as they need: the mark stands until the last.
 */
#include "data/extent.h"
#include "fs/vfs_priv.h"

#define REAP_BATCH 16u          /* inodes in one transaction; at most TER_INODE_LOCKS_MAX */
#define REAP_KEYS_MAX 4u        /* extents (and attributes) of one inode in a shared transaction, which has to fit the smallest journal entry */
#define XATTRS_PER_TRANS 64u
#define SCAN_BATCH 256u         /* marks read at once at start */
#define TER_REAP_BIG (-EFBIG)   /* internal: this one needs transactions of its own */

int ter_orphan_stage(struct ter_trans *trans, struct ter_inode *inode, bool add)
{
	const struct ter_key key = { .pos = ter_inode_pos(inode), .type = TER_KEY_SET };
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, TER_BTREE_DELETED_INODES, key.pos, &old);
	if (r == -ENOENT)
		return add ? ter_trans_update(trans, TER_BTREE_DELETED_INODES, key.pos, TER_KEY_ABSENT, &key) : 0;
	if (r < 0)
		return r;
	return add ? 0 : ter_trans_update(trans, TER_BTREE_DELETED_INODES, key.pos, &old, NULL);
}

void ter_orphan_pin(struct ter_inode *inode)
{
	struct ter_vfs *vfs = inode->vfs;
	bool pin;

	ter_lock_acquire(&vfs->reap_lock);
	pin = !inode->orphan;
	inode->orphan = true;
	ter_lock_release(&vfs->reap_lock);
	if (pin)
		ter_inode_ref(inode);
}

void ter_orphan_unpin(struct ter_inode *inode)
{
	struct ter_vfs *vfs = inode->vfs;
	bool put;

	ter_lock_acquire(&vfs->reap_lock);
	put = inode->orphan && !inode->reap_queued; /* queued: the reaper drops it */
	inode->orphan = inode->orphan && !put;
	ter_lock_release(&vfs->reap_lock);
	if (put)
		ter_inode_put(inode);
}

void ter_vfs_forget(struct ter_vfs *vfs, uint64_t node)
{
	_cleanup_(ter_vfs_leavep) struct ter_inside_ref inside = ter_vfs_enter(vfs);
	struct ter_inode *inode;
	bool work = false;
	uint64_t inum;
	uint32_t snapshot;

	if (ter_node_parse(node, &inum, &snapshot) < 0)
		return;
	inode = ter_inode_find(vfs, inum, snapshot);
	if (!inode)
		return; /* one without a name would be in memory (N4) */
	ter_lock_acquire(&vfs->reap_lock);
	if (inode->orphan && !inode->reap_queued) {
		inode->reap_queued = true;
		ter_list_add_tail(&vfs->reap_list, &inode->reap_link);
		/* Read-only: it waits in the list until that is over, or for the next start. */
		work = inside.at && !vfs->reap_work_queued;
		vfs->reap_work_queued |= work;
	}
	ter_lock_release(&vfs->reap_lock);
	ter_inode_put(inode);
	if (work)
		ter_workq_add(vfs->wq, &vfs->reap_work);
}

void ter_vfs_reap_queued(struct ter_vfs *vfs)
{
	bool work;

	ter_lock_acquire(&vfs->reap_lock);
	work = !ter_list_empty(&vfs->reap_list) && !vfs->reap_work_queued;
	vfs->reap_work_queued |= work;
	ter_lock_release(&vfs->reap_lock);
	if (work)
		ter_workq_add(vfs->wq, &vfs->reap_work);
}

/* Of one without a name: is it held by somebody outside, or queued already? */
static bool is_in_hands(struct ter_inode *inode)
{
	bool orphan;

	ter_lock_acquire(&inode->vfs->reap_lock);
	orphan = inode->orphan;
	ter_lock_release(&inode->vfs->reap_lock);
	return orphan;
}

/* --- reaping --- */

static int stage_gone(struct ter_trans *trans, struct ter_inode *inode)
{
	const int64_t minus_one = -1;
	struct ter_key key;
	int r;

	r = ter_trans_get(trans, TER_BTREE_INODES, ter_inode_pos(inode), &key);
	if (r < 0)
		return r == -ENOENT ? -EUCLEAN : r;
	r = ter_trans_update(trans, TER_BTREE_INODES, key.pos, &key, NULL);
	if (r >= 0)
		r = ter_orphan_stage(trans, inode, false);
	if (r >= 0)
		r = ter_damage_stage_gone(trans, ter_inode_pos(inode));
	return r < 0 ? r : ter_trans_add(trans, ter_counter_inodes(), &minus_one, 1);
}

static int stage_symlink_gone(struct ter_trans *trans, struct ter_inode *inode)
{
	const struct ter_pos pos = ter_inode_pos(inode);
	struct ter_key key;
	int r;

	r = ter_trans_next(trans, TER_BTREE_EXTENTS, pos, TER_POS(pos.inode, UINT64_MAX, pos.snapshot), &key);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, &key, NULL);
}

struct reap {
	struct ter_vfs *vfs;
	struct ter_inode *inode[REAP_BATCH];
	unsigned nr;
	struct ter_inode *big; /* result with TER_REAP_BIG */
};

static int stage_small(struct ter_trans *trans, struct ter_vfs *vfs, struct ter_inode *inode)
{
	const struct ter_pos pos = ter_inode_pos(inode);
	const uint64_t end = TER_FILE_END >> TER_SECTOR_SHIFT;
	struct ter_key key;
	uint64_t done_to = end;
	int64_t sectors;
	int r = 0;

	if (S_ISLNK(inode->type)) {
		r = stage_symlink_gone(trans, inode);
	} else if (S_ISREG(inode->type)) {
		r = ter_trans_next(trans, TER_BTREE_EXTENTS, pos, TER_POS(pos.inode, UINT64_MAX, pos.snapshot), &key);
		if (r >= 0)
			r = ter_extents_stage_punch(vfs->config.alloc, trans, vfs->config.sb->sb, pos.inode, pos.snapshot, 0, end, REAP_KEYS_MAX, &done_to,
						    &sectors);
		if (r == -ENOENT)
			r = 0;
	}
	if (r < 0)
		return r;
	if (done_to < end)
		return TER_REAP_BIG;
	if (ter_inode_attr(inode).flags & TER_IFLAG_XATTRS) {
		r = ter_xattrs_stage_delete(trans, pos, REAP_KEYS_MAX);
		if (r < 0)
			return r;
		if (r == (int)REAP_KEYS_MAX)
			return TER_REAP_BIG;
	}
	return stage_gone(trans, inode);
}

static int reap_fn(struct ter_trans *trans, void *arg)
{
	struct reap *b = arg;

	for (unsigned i = 0; i < b->nr; i++) {
		int r;

		if (!b->inode[i])
			continue;
		r = stage_small(trans, b->vfs, b->inode[i]);
		if (r == TER_REAP_BIG)
			b->big = b->inode[i];
		if (r < 0)
			return r;
	}
	return 0;
}

/* The inode is no more: with its lock held. The reference of N4 goes. */
static void reaped(struct ter_inode *inode)
{
	struct ter_vfs *vfs = inode->vfs;
	bool put;

	ter_lock_acquire(&inode->attr_lock);
	inode->gone = true;
	inode->lazy = false;
	ter_lock_release(&inode->attr_lock);
	ter_inode_unhash(inode);
	ter_lock_acquire(&vfs->reap_lock);
	put = inode->orphan;
	inode->orphan = inode->reap_queued = false;
	ter_lock_release(&vfs->reap_lock);
	if (put)
		ter_inode_put(inode); /* never the last one: the caller has its own */
}

struct reap_big {
	struct ter_inode *inode;
	int deleted; /* attributes in this transaction */
};

static int xattrs_fn(struct ter_trans *trans, void *arg)
{
	struct reap_big *b = arg;

	b->deleted = ter_xattrs_stage_delete(trans, ter_inode_pos(b->inode), XATTRS_PER_TRANS);
	return b->deleted < 0 ? b->deleted : 0;
}

static int gone_fn(struct ter_trans *trans, void *arg)
{
	struct reap_big *b = arg;
	int r = S_ISLNK(b->inode->type) ? stage_symlink_gone(trans, b->inode) : 0;

	return r < 0 ? r : stage_gone(trans, b->inode);
}

static int reap_big(struct ter_vfs *vfs, struct ter_inode *inode)
{
	struct reap_big b = { .inode = inode, .deleted = XATTRS_PER_TRANS };
	int r;

	while (ter_inode_attr(inode).flags & TER_IFLAG_XATTRS && b.deleted == (int)XATTRS_PER_TRANS) {
		r = ter_trans_run(vfs->config.btrees, 0, xattrs_fn, &b, NULL);
		if (r < 0)
			return r;
	}
	if (S_ISREG(inode->type))
		r = ter_file_punch(vfs->config.data, &inode->file, 0, TER_FILE_END, NULL, gone_fn, &b);
	else
		r = ter_trans_run(vfs->config.btrees, 0, gone_fn, &b, NULL);
	if (r >= 0)
		reaped(inode);
	return r;
}

/* Locked, without names, in order of number; those with dirty data have gone before. */
static int reap_small(struct reap *b)
{
	int r;

	for (;;) {
		b->big = NULL;
		r = ter_trans_run(b->vfs->config.btrees, 0, reap_fn, b, NULL);
		if (r != TER_REAP_BIG)
			break;
		r = reap_big(b->vfs, b->big);
		if (r < 0)
			return r;
		for (unsigned i = 0; i < b->nr; i++)
			if (b->inode[i] == b->big)
				b->inode[i] = NULL;
	}
	if (r < 0)
		return r;
	for (unsigned i = 0; i < b->nr; i++)
		if (b->inode[i])
			reaped(b->inode[i]);
	return 0;
}

/* A batch of referenced inodes. One that got a name again is left alone. */
static int reap_batch(struct ter_vfs *vfs, struct ter_inode **inodes, unsigned nr)
{
	struct ter_inode *locked[REAP_BATCH];
	struct reap b = { .vfs = vfs };
	unsigned locked_nr = nr;
	int r;

	memcpy(locked, inodes, nr * sizeof(locked[0]));
	r = ter_inodes_lock(locked, &locked_nr, false);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < locked_nr && r >= 0; i++) {
		struct ter_inode *inode = locked[i];

		if (ter_inode_attr(inode).nlink)
			continue;
		if (atomic_load(&inode->dirty_nr))
			r = reap_big(vfs, inode); /* the buffer lets go of its data, waiting for what is being written */
		else
			b.inode[b.nr++] = inode;
	}
	if (r >= 0 && b.nr)
		r = reap_small(&b);
	ter_inodes_unlock(locked, locked_nr);
	return r;
}

static unsigned take_queued(struct ter_vfs *vfs, struct ter_inode **inodes)
{
	unsigned nr = 0;

	ter_lock_acquire(&vfs->reap_lock);
	while (nr < REAP_BATCH && !ter_list_empty(&vfs->reap_list)) {
		struct ter_inode *inode = ter_list_first(&vfs->reap_list, struct ter_inode, reap_link);

		ter_list_del(&inode->reap_link);
		inodes[nr++] = inode;
	}
	if (!nr)
		vfs->reap_work_queued = false;
	ter_lock_release(&vfs->reap_lock);
	for (unsigned i = 0; i < nr; i++)
		ter_inode_ref(inodes[i]); /* N4's keeps it until here */
	return nr;
}

/* What was not reaped (a name again, or an error) is no longer queued; named ones lose the reference of N4. */
static void requeue_none(struct ter_vfs *vfs, struct ter_inode **inodes, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		struct ter_inode *inode = inodes[i];
		bool named = ter_inode_attr(inode).nlink != 0, put = false;

		ter_lock_acquire(&vfs->reap_lock);
		if (inode->reap_queued) {
			inode->reap_queued = false;
			put = inode->orphan && named;
			inode->orphan = inode->orphan && !named;
		}
		ter_lock_release(&vfs->reap_lock);
		if (put)
			ter_inode_put(inode);
		ter_inode_put(inode);
	}
}

void ter_vfs_reap_work(struct ter_work *work)
{
	struct ter_vfs *vfs = ter_container_of(work, struct ter_vfs, reap_work);
	struct ter_inode *inodes[REAP_BATCH];
	unsigned nr;

	while ((nr = take_queued(vfs, inodes)) > 0) {
		/* After an error (the journal stopped, a member failed) they are found at the next start. */
		(void)reap_batch(vfs, inodes, nr);
		requeue_none(vfs, inodes, nr);
	}
}

/* --- at start --- */

struct marks {
	struct ter_pos pos[SCAN_BATCH];
	unsigned nr;
};

static int note_mark(void *arg, const struct ter_key *key)
{
	struct marks *m = arg;

	if (key->type != TER_KEY_SET || key->pos.offset || key->pos.inode > TER_INUM_MAX)
		return -EUCLEAN;
	m->pos[m->nr++] = key->pos;
	return m->nr == SCAN_BATCH;
}

static int unmark_fn(struct ter_trans *trans, void *arg)
{
	return ter_orphan_stage(trans, arg, false);
}

/* A truncation that was cut: the size is the new one already. */
static int finish_truncate(struct ter_vfs *vfs, struct ter_inode *inode)
{
	int r;

	if (!S_ISREG(inode->type))
		return -EUCLEAN;
	r = ter_inode_lock(inode, false);
	if (r < 0)
		return r;
	r = ter_file_punch(vfs->config.data, &inode->file, ter_inode_attr(inode).size, TER_FILE_END, NULL, unmark_fn, inode);
	ter_inode_unlock(inode);
	return r;
}

static int reap_marks(struct ter_vfs *vfs, const struct marks *m)
{
	struct ter_inode *batch[REAP_BATCH];
	unsigned nr = 0;
	int r = 0;

	for (unsigned i = 0; i < m->nr && r >= 0; i++) {
		struct ter_inode *inode;

		r = ter_inode_get(vfs, m->pos[i].inode, m->pos[i].snapshot, false, &inode);
		if (r < 0)
			return r == -ESTALE ? -EUCLEAN : r;
		if (ter_inode_attr(inode).nlink || is_in_hands(inode)) {
			/* After a time read-only some without a name are still open: their time comes when they are forgotten. */
			r = ter_inode_attr(inode).nlink ? finish_truncate(vfs, inode) : 0;
			ter_inode_put(inode);
			continue;
		}
		batch[nr++] = inode;
		if (nr == REAP_BATCH) {
			r = reap_batch(vfs, batch, nr);
			while (nr)
				ter_inode_put(batch[--nr]);
		}
	}
	if (r >= 0 && nr)
		r = reap_batch(vfs, batch, nr);
	while (nr)
		ter_inode_put(batch[--nr]);
	return r;
}

int ter_vfs_reap_orphans(struct ter_vfs *vfs)
{
	_cleanup_free_ struct marks *m = ter_malloc(sizeof(*m));
	struct ter_pos from = TER_POS_MIN;
	bool more;
	int r;

	if (!m)
		return -ENOMEM;
	do {
		m->nr = 0;
		r = ter_btree_scan(vfs->config.btrees, TER_BTREE_DELETED_INODES, from, TER_POS_MAX, 0, note_mark, m, NULL);
		if (r < 0)
			return r;
		if (m->nr)
			from = ter_pos_next(m->pos[m->nr - 1]);
		more = r == 1;
		r = reap_marks(vfs, m);
		if (r < 0)
			return r;
	} while (more);
	return 0;
}

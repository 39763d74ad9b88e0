/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inode's key: staging it, and the lazy fields that live in memory until somebody does (vfs_priv.h, N1..N3). */
#include "fs/vfs_priv.h"

#define RELATIME_NS (24 * 3600 * (int64_t)TER_NS_PER_S)

static int read_key(struct ter_trans *trans, struct ter_inode *inode, struct ter_key *ret_key, struct ter_inode_attr *ret_attr)
{
	int r = ter_trans_get(trans, TER_BTREE_INODES, ter_inode_pos(inode), ret_key);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	return ter_inode_decode(ret_key, ret_attr);
}

/* Times from memory where they are newer there; returns the size in memory, what a write is about to make of it included. */
static uint64_t take_lazy(struct ter_inode *inode, struct ter_inode_attr *attr)
{
	uint64_t size;

	ter_lock_acquire(&inode->attr_lock);
	if (inode->lazy) {
		attr->atime_ns = inode->attr.atime_ns;
		attr->mtime_ns = inode->attr.mtime_ns;
		attr->ctime_ns = inode->attr.ctime_ns;
	}
	size = ter_max(inode->attr.size, inode->size_pending);
	ter_lock_release(&inode->attr_lock);
	return size;
}

/*
 * Without the inode's lock: an operation's times may be in the key already and in memory only soon. Every change moves ctime on: a key's that is newer than any that memory had is
 * such a one; one that memory had before the clock was set back is not.
 */
static uint64_t take_lazy_of_now(struct ter_inode *inode, struct ter_inode_attr *attr)
{
	uint64_t size;
	bool kept;

	ter_lock_acquire(&inode->attr_lock);
	kept = inode->lazy && attr->ctime_ns > ter_max(inode->attr.ctime_ns, inode->ctime_before_ns);
	inode->times_kept |= kept;
	size = ter_max(inode->attr.size, inode->size_pending);
	ter_lock_release(&inode->attr_lock);
	return kept ? size : take_lazy(inode, attr);
}

int ter_inode_stage_begin(struct ter_trans *trans, struct ter_inode *inode, struct ter_key *ret_old, struct ter_inode_attr *ret_attr)
{
	int r = read_key(trans, inode, ret_old, ret_attr);

	if (r < 0)
		return r;
	(void)take_lazy(inode, ret_attr); /* the size on disk is write-back's */
	return 0;
}

int ter_inode_stage_end(struct ter_trans *trans, struct ter_inode *inode, const struct ter_key *old, const struct ter_inode_attr *attr)
{
	struct ter_inode_disk disk;
	struct ter_key key = { .pos = ter_inode_pos(inode), .type = TER_KEY_INODE, .val_bytes = sizeof(disk), .val = &disk };

	ter_inode_encode(attr, &disk);
	if (old->val_bytes == sizeof(disk) && !memcmp(old->val, &disk, sizeof(disk)))
		return 0;
	return ter_trans_update(trans, TER_BTREE_INODES, key.pos, old, &key);
}

void ter_inode_note_seq(struct ter_inode *inode, uint64_t seq)
{
	ter_lock_acquire(&inode->file.lock);
	inode->file.last_seq = ter_max(inode->file.last_seq, seq);
	ter_lock_release(&inode->file.lock);
}

void ter_inode_set_size(struct ter_inode *inode, uint64_t size)
{
	ter_lock_acquire(&inode->file.lock);
	inode->file.size = size;
	ter_lock_acquire(&inode->attr_lock);
	inode->attr.size = size;
	ter_lock_release(&inode->attr_lock);
	ter_lock_release(&inode->file.lock);
}

void ter_inode_committed(struct ter_inode *inode, const struct ter_inode_attr *attr, bool with_size, uint64_t seq)
{
	ter_lock_acquire(&inode->file.lock);
	inode->file.last_seq = ter_max(inode->file.last_seq, seq);
	ter_lock_acquire(&inode->attr_lock);
	{
		const uint64_t sectors = inode->attr.sectors;
		const uint64_t size = with_size || !S_ISREG(attr->mode) ? attr->size : inode->attr.size;

		inode->attr = *attr;
		inode->attr.sectors = sectors;
		inode->attr.size = size;
		if (S_ISREG(attr->mode))
			inode->file.size = size;
		/* Still lazy if it was: of the lazy fields only the times were staged for certain. */
		inode->changes++;
	}
	ter_lock_release(&inode->attr_lock);
	ter_lock_release(&inode->file.lock);
}

/* --- what the dirty buffer calls --- */

static int file_stage(struct ter_file *file, struct ter_trans *trans, uint64_t size_to, int64_t sectors)
{
	struct ter_inode *inode = ter_inode_of(file);
	struct ter_inode_attr attr;
	struct ter_key old;
	uint64_t size;
	int r;

	r = read_key(trans, inode, &old, &attr);
	if (r < 0)
		return r;
	size = take_lazy_of_now(inode, &attr);
	size = ter_min(size, size_to); /* D4 */
	attr.size = ter_max(attr.size, size);
	if (sectors < 0 && attr.sectors < (uint64_t)-sectors)
		return -EUCLEAN;
	attr.sectors += (uint64_t)sectors;
	return ter_inode_stage_end(trans, inode, &old, &attr);
}

static void file_committed(struct ter_file *file, uint64_t size_to, int64_t sectors, uint64_t seq)
{
	struct ter_inode *inode = ter_inode_of(file);

	(void)size_to; /* whether the size on disk is that in memory is asked of the key, ter_inode_write() */
	ter_inode_note_seq(inode, seq);
	if (!sectors)
		return;
	ter_lock_acquire(&inode->attr_lock);
	inode->attr.sectors += (uint64_t)sectors;
	ter_lock_release(&inode->attr_lock);
}

static void file_ref(struct ter_file *file, int delta)
{
	struct ter_inode *inode = ter_inode_of(file);

	if (delta > 0) {
		ter_inode_ref(inode);
		atomic_fetch_add(&inode->dirty_nr, 1);
	} else {
		atomic_fetch_sub(&inode->dirty_nr, 1);
		ter_inode_put(inode);
	}
}

const struct ter_file_ops ter_vfs_file_ops = {
	.stage = file_stage,
	.committed = file_committed,
	.ref = file_ref,
};

/* --- lazy inodes --- */

void ter_inode_mark_lazy(struct ter_inode *inode)
{
	struct ter_vfs *vfs = inode->vfs;
	bool added = false, work = false;

	ter_lock_acquire(&vfs->lazy_lock);
	if (!inode->on_lazy) {
		added = inode->on_lazy = true;
		ter_list_add_tail(&vfs->lazy_list, &inode->lazy_link);
		vfs->lazy_nr++;
		/* Each holds its inode in memory: they may not be the whole cache. */
		if (vfs->lazy_nr > vfs->shard_inodes_max * TER_INODE_SHARDS / 2 && !vfs->lazy_work_queued)
			work = vfs->lazy_work_queued = true;
	}
	ter_lock_release(&vfs->lazy_lock);
	if (added)
		ter_inode_ref(inode);
	if (work)
		ter_workq_add(vfs->wq, &vfs->lazy_work);
}

void ter_inode_touch_atime(struct ter_inode *inode)
{
	_cleanup_(ter_vfs_leavep) struct ter_inside_ref inside = ter_vfs_enter(inode->vfs);
	const int64_t now = ter_vfs_now(inode->vfs);
	struct ter_inode_attr *a = &inode->attr;
	bool touched = false;

	if (!inside.at)
		return;
	ter_lock_acquire(&inode->attr_lock);
	if (!(a->flags & TER_INODE_NOATIME) && !inode->gone &&
	    (a->atime_ns <= a->mtime_ns || a->atime_ns <= a->ctime_ns || now - a->atime_ns >= RELATIME_NS)) {
		touched = true;
		a->atime_ns = now;
		inode->lazy = true;
		inode->changes++;
	}
	ter_lock_release(&inode->attr_lock);
	if (touched)
		ter_inode_mark_lazy(inode);
}

struct write_inode {
	struct ter_inode *inode;
	uint64_t changes;
	bool lazy, whole; /* whole: nothing in memory is newer than what was staged */
};

static int write_fn(struct ter_trans *trans, void *arg)
{
	struct write_inode *w = arg;
	struct ter_inode *inode = w->inode;
	struct ter_inode_attr attr;
	struct ter_key old;
	uint64_t size;
	bool data;
	int r;

	r = read_key(trans, inode, &old, &attr);
	if (r < 0)
		return r;
	ter_lock_acquire(&inode->attr_lock);
	w->changes = inode->changes;
	w->lazy = inode->lazy;
	ter_lock_release(&inode->attr_lock);
	if (!w->lazy)
		return 0;
	size = take_lazy(inode, &attr);
	/* No write can come while we hold the inode's lock, so the buffer empty means that all of the file is in extents. */
	data = atomic_load(&inode->dirty_nr) != 0;
	if (S_ISREG(attr.mode) && !data && attr.size < size)
		attr.size = size;
	w->whole = !S_ISREG(attr.mode) || attr.size == size;
	return ter_inode_stage_end(trans, inode, &old, &attr);
}

int ter_inode_write(struct ter_inode *inode, unsigned flags)
{
	struct write_inode w = { .inode = inode };
	uint64_t seq = 0;
	int r;

	r = ter_inode_lock_shared(inode, flags & TER_TRANS_NOWAIT);
	if (r < 0)
		return r == -ESTALE ? 0 : r;
	r = ter_trans_run(inode->vfs->config.btrees, flags, write_fn, &w, &seq);
	if (r >= 0 && w.lazy) {
		ter_inode_note_seq(inode, seq);
		ter_lock_acquire(&inode->attr_lock);
		inode->times_kept = false; /* under the lock memory is right */
		if (w.whole && w.changes == inode->changes)
			inode->lazy = false;
		ter_lock_release(&inode->attr_lock);
	}
	ter_inode_unlock_shared(inode);
	return r == -ESTALE ? 0 : r;
}

static struct ter_inode *pop_lazy(struct ter_vfs *vfs)
{
	struct ter_inode *inode = NULL;

	ter_lock_acquire(&vfs->lazy_lock);
	if (!ter_list_empty(&vfs->lazy_list)) {
		inode = ter_list_first(&vfs->lazy_list, struct ter_inode, lazy_link);
		ter_list_del(&inode->lazy_link);
		inode->on_lazy = false;
		vfs->lazy_nr--;
	}
	ter_lock_release(&vfs->lazy_lock);
	return inode;
}

int ter_vfs_write_inodes(struct ter_vfs *vfs)
{
	size_t nr;
	int ret = 0;

	/* One that another pass has taken from the list is not written yet: who does not see it would be done too early. */
	ter_lock_acquire(&vfs->lazy_pass_lock);
	ter_lock_acquire(&vfs->lazy_lock);
	nr = vfs->lazy_nr; /* those of now: others may come as fast as we go */
	ter_lock_release(&vfs->lazy_lock);
	while (nr--) {
		struct ter_inode *inode = pop_lazy(vfs);
		bool lazy;
		int r;

		if (!inode)
			break;
		r = ter_inode_write(inode, 0);
		if (r < 0 && ret >= 0)
			ret = r;
		ter_lock_acquire(&inode->attr_lock);
		lazy = inode->lazy && !inode->gone;
		ter_lock_release(&inode->attr_lock);
		if (lazy)
			ter_inode_mark_lazy(inode); /* data not written back yet, or changed again, or failed */
		ter_inode_put(inode);
		if (r == -EROFS || r == -EIO)
			break; /* the journal stopped: the others would not fare better */
	}
	ter_lock_release(&vfs->lazy_pass_lock);
	return ret;
}

void ter_vfs_lazy_work(struct ter_work *work)
{
	struct ter_vfs *vfs = ter_container_of(work, struct ter_vfs, lazy_work);

	ter_lock_acquire(&vfs->lazy_lock);
	vfs->lazy_work_queued = false;
	ter_lock_release(&vfs->lazy_lock);
	(void)ter_vfs_write_inodes(vfs); /* a failure is met again by sync and stop, which tell it */
}

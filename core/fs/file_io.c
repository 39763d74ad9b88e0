/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File contents: reading, writing, syncing, allocating, seeking. */
#include <linux/falloc.h>
#include <unistd.h>

#include "fs/vfs_priv.h"

static int get_regular(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, int not_regular, struct ter_inode **ret)
{
	struct ter_inode *inode;
	int r;

	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	if (!S_ISREG(inode->type)) {
		r = S_ISDIR(inode->type) ? -EISDIR : not_regular;
		ter_inode_put(inode);
		return r;
	}
	*ret = inode;
	return 0;
}

/* --- write --- */

static int iov_bytes(const struct iovec *iov, unsigned iov_nr, uint64_t *ret)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < iov_nr; i++)
		if (__builtin_add_overflow(bytes, (uint64_t)iov[i].iov_len, &bytes))
			return -EINVAL;
	*ret = bytes;
	return 0;
}

static int check_write(const struct ter_inode_attr *attr, uint64_t offset, uint64_t bytes, bool append)
{
	uint64_t end;

	if (attr->flags & TER_INODE_IMMUTABLE || (attr->flags & TER_INODE_APPEND && !append && offset != attr->size))
		return -EPERM;
	if (__builtin_add_overflow(offset, bytes, &end) || end > (uint64_t)TER_FILE_SIZE_MAX)
		return -EFBIG;
	return 0;
}

/* Write-back may commit the bytes before we come to set the size: it must know how far that will be. */
static void set_pending(struct ter_inode *inode, uint64_t end)
{
	ter_lock_acquire(&inode->attr_lock);
	inode->size_pending = end;
	ter_lock_release(&inode->attr_lock);
}

/* Size and times live in memory until write-back stages them (N2). */
static void written(struct ter_inode *inode, uint64_t end, int64_t now)
{
	struct ter_inode_attr *a = &inode->attr;
	bool was_lazy;

	ter_lock_acquire(&inode->file.lock);
	ter_lock_acquire(&inode->attr_lock);
	if (a->size < end)
		a->size = inode->file.size = end;
	inode->size_pending = 0;
	if (now < a->ctime_ns)
		inode->ctime_before_ns = ter_max(inode->ctime_before_ns, a->ctime_ns);
	a->mtime_ns = a->ctime_ns = now;
	was_lazy = inode->lazy;
	inode->lazy = true;
	inode->changes++;
	ter_lock_release(&inode->attr_lock);
	ter_lock_release(&inode->file.lock);
	if (!was_lazy)
		ter_inode_mark_lazy(inode);
}

/* A long one that failed in the middle has grown the file by what it did. */
static void write_failed(struct ter_inode *inode)
{
	uint64_t size;

	ter_lock_acquire(&inode->file.lock);
	size = inode->file.size;
	ter_lock_release(&inode->file.lock);
	if (size > ter_inode_attr(inode).size)
		written(inode, size, ter_vfs_now(inode->vfs));
	set_pending(inode, 0);
}

static int write_locked(struct ter_vfs *vfs, const struct ter_op *op, struct ter_inode *inode, uint64_t offset, const struct iovec *iov,
			unsigned iov_nr, uint64_t bytes, bool append)
{
	const struct ter_inode_attr attr = ter_inode_attr(inode);
	int r;

	if (append)
		offset = attr.size;
	r = check_write(&attr, offset, bytes, append);
	if (r < 0)
		return r;
	if (op->kill_priv && ter_inode_has_priv(&attr)) {
		if (op->nowait)
			return -EAGAIN; /* two changes: the second might have to wait */
		r = ter_inode_kill_priv(inode, 0);
		if (r < 0)
			return r;
	}
	set_pending(inode, offset + bytes);
	r = ter_file_write(vfs->config.data, &inode->file, offset, iov, iov_nr, op->nowait);
	if (r < 0) {
		write_failed(inode);
		return r;
	}
	written(inode, offset + bytes, ter_vfs_now(vfs));
	return attr.flags & TER_INODE_SYNC ? 1 : 0;
}

int ter_vfs_write(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, uint64_t offset, const struct iovec *iov, unsigned iov_nr, bool append)
{
	struct ter_inode *inode;
	uint64_t bytes;
	int r;

	TER_VFS_ENTER(vfs);
	r = iov_bytes(iov, iov_nr, &bytes);
	if (r < 0)
		return r;
	r = get_regular(vfs, op, node, -EINVAL, &inode);
	if (r < 0)
		return r;
	if (bytes) {
		r = ter_inode_lock(inode, op->nowait);
		if (r >= 0) {
			r = write_locked(vfs, op, inode, offset, iov, iov_nr, bytes, append);
			ter_inode_unlock(inode);
		}
	}
	ter_inode_put(inode);
	return r;
}

/* --- read --- */

static void read_done(struct ter_read *read)
{
	struct ter_inode *inode = ter_inode_of(read->file);

	read->done = read->outer_done;
	ter_inode_put(inode);
	read->done(read);
}

int ter_vfs_read(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, struct ter_read *read, bool atime)
{
	struct ter_inode *inode;
	int r;

	r = get_regular(vfs, op, node, -EINVAL, &inode);
	if (r < 0)
		return r;
	r = ter_inode_lock_shared(inode, op->nowait);
	if (r < 0) {
		ter_inode_put(inode);
		return r;
	}
	ter_inode_ref(inode); /* ours: read_done() may drop the other before ter_file_read() returns */
	read->file = &inode->file;
	read->nowait = op->nowait;
	read->outer_done = read->done;
	read->done = read_done; /* holds the file's reference until then */
	r = ter_file_read(vfs->config.data, read);
	if (r < 0)
		read->done = read->outer_done;
	ter_inode_unlock_shared(inode);
	if (r < 0)
		ter_inode_put(inode);
	else if (atime && !op->noatime)
		ter_inode_touch_atime(inode);
	ter_inode_put(inode);
	return r;
}

/* --- sync --- */

int ter_vfs_fsync_async(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, bool datasync, struct ter_journal_waiter *waiter)
{
	struct ter_journal *journal;
	struct ter_inode *inode;
	uint64_t seq;
	bool lazy, kept;
	int r;

	(void)datasync; /* times cost nothing more: the inode's key travels with the size, or alone */
	TER_VFS_ENTER(vfs);
	journal = atomic_load(&vfs->journal);
	if (!journal)
		return -EROFS;
	r = ter_inode_get_node(vfs, node, op->nowait, &inode);
	if (r < 0)
		return r;
	ter_lock_acquire(&inode->attr_lock);
	lazy = inode->lazy;
	kept = inode->times_kept;
	ter_lock_release(&inode->attr_lock);
	/* With dirty data the inode's key is staged by the data's transaction; without, or when that left the times out, by us. */
	if (lazy && (kept || !atomic_load(&inode->dirty_nr))) {
		r = ter_inode_write(inode, ter_op_trans_flags(op));
		if (r < 0)
			goto out;
	}
	if (S_ISREG(inode->type)) {
		r = ter_file_sync_async(vfs->config.data, &inode->file, op->nowait, waiter);
	} else {
		ter_lock_acquire(&inode->file.lock);
		seq = inode->file.last_seq;
		ter_lock_release(&inode->file.lock);
		ter_journal_flush_async(journal, seq, waiter);
		r = 0;
	}
out:
	ter_inode_put(inode);
	return r;
}

/* --- fallocate --- */

struct falloc {
	struct ter_inode *inode;
	uint64_t size; /* at least this */
	int64_t now;
	struct ter_inode_attr attr; /* result */
};

static int falloc_fn(struct ter_trans *trans, void *arg)
{
	struct falloc *f = arg;
	struct ter_key old;
	int r;

	r = ter_inode_stage_begin(trans, f->inode, &old, &f->attr);
	if (r < 0)
		return r;
	f->attr.size = ter_max(f->attr.size, f->size);
	f->attr.mtime_ns = f->attr.ctime_ns = f->now;
	return ter_inode_stage_end(trans, f->inode, &old, &f->attr);
}

static int falloc_locked(struct ter_vfs *vfs, struct ter_inode *inode, int mode, uint64_t from, uint64_t to)
{
	const struct ter_inode_attr attr = ter_inode_attr(inode);
	const bool grow = !(mode & FALLOC_FL_KEEP_SIZE) && to > attr.size;
	struct falloc f = { .inode = inode, .size = grow ? to : 0, .now = ter_vfs_now(vfs) };
	struct ter_data *data = vfs->config.data;
	uint64_t seq;
	int r = 0;

	if (attr.flags & TER_INODE_IMMUTABLE || (attr.flags & TER_INODE_APPEND && mode & ~FALLOC_FL_KEEP_SIZE))
		return -EPERM;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		r = ter_file_punch(data, &inode->file, from, to, NULL, NULL, NULL);
	if (r >= 0 && !(mode & FALLOC_FL_PUNCH_HOLE))
		r = ter_file_reserve_range(data, &inode->file, from, to);
	if (r < 0)
		return r;
	r = ter_trans_run(vfs->config.btrees, 0, falloc_fn, &f, &seq);
	if (r >= 0)
		ter_inode_committed(inode, &f.attr, grow, seq);
	return r;
}

int ter_vfs_fallocate(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, int mode, uint64_t offset, uint64_t bytes)
{
	struct ter_inode *inode;
	uint64_t end;
	int r;

	TER_VFS_ENTER(vfs);
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (!bytes)
		return -EINVAL;
	if (__builtin_add_overflow(offset, bytes, &end) || end > (uint64_t)TER_FILE_SIZE_MAX)
		return -EFBIG;
	if (op->nowait)
		return -EAGAIN; /* rare, and in several steps */
	r = get_regular(vfs, op, node, -ENODEV, &inode);
	if (r < 0)
		return r;
	r = ter_inode_lock(inode, false);
	if (r >= 0) {
		r = falloc_locked(vfs, inode, mode, offset, end);
		ter_inode_unlock(inode);
	}
	ter_inode_put(inode);
	return r < 0 ? r : 0;
}

/* --- seek --- */

int ter_vfs_lseek(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, uint64_t offset, int whence, uint64_t *ret_offset)
{
	struct ter_inode *inode;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (op->nowait)
		return -EAGAIN; /* may read many extents */
	r = get_regular(vfs, op, node, -EINVAL, &inode);
	if (r < 0)
		return r;
	r = ter_inode_lock_shared(inode, false);
	if (r >= 0) {
		r = offset >= ter_inode_attr(inode).size ? -ENXIO : ter_file_seek(vfs->config.data, &inode->file, offset, whence == SEEK_HOLE, ret_offset);
		ter_inode_unlock_shared(inode);
	}
	ter_inode_put(inode);
	return r < 0 ? r : 0;
}

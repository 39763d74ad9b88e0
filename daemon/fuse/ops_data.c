/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Contents: read and fsync answered from completions, write, fallocate, lseek. */
#include <fcntl.h>
#include <sys/mman.h>

#include "fuse/ops_util.h"

/* --- buffers for replies, recycled --- */

#define BUF_SMALL TER_KIB(128)
#define BUF_LARGE TER_MIB(1)
#define BUF_KEEP 24 /* of each size */

struct buf_class {
	pthread_mutex_t mutex;
	size_t bytes;
	void *free[BUF_KEEP];
	unsigned nr;
};
/* Of the process: memory that is touched already, for whichever session needs it next. */
static struct buf_class buf_classes[] = {
	{ .mutex = PTHREAD_MUTEX_INITIALIZER, .bytes = BUF_SMALL },
	{ .mutex = PTHREAD_MUTEX_INITIALIZER, .bytes = BUF_LARGE },
};

static struct buf_class *class_of(size_t bytes)
{
	return bytes <= BUF_SMALL ? &buf_classes[0] : bytes <= BUF_LARGE ? &buf_classes[1] : NULL;
}

static void *buf_get(size_t bytes)
{
	struct buf_class *c = class_of(bytes);
	void *buf = NULL;

	if (!c)
		return NULL;
	pthread_mutex_lock(&c->mutex);
	if (c->nr)
		buf = c->free[--c->nr];
	pthread_mutex_unlock(&c->mutex);
	if (!buf && posix_memalign(&buf, 4096, c->bytes) != 0)
		return NULL;
	return buf;
}

static void buf_put(void *buf, size_t bytes)
{
	struct buf_class *c = class_of(bytes);

	if (!buf)
		return;
	pthread_mutex_lock(&c->mutex);
	if (c->nr < BUF_KEEP)
		c->free[c->nr++] = TAKE_PTR(buf);
	pthread_mutex_unlock(&c->mutex);
	free(buf);
}

/* --- read --- */

struct read_op {
	struct ter_read read;
	struct td_session *session;
	struct td_ring_entry *entry;
	fuse_req_t req;
	void *buf; /* ours; NULL: the ring entry's payload */
	size_t bytes;
};

static void read_free(struct read_op *ro)
{
	buf_put(ro->buf, ro->bytes);
	free(ro);
}

static void read_done(struct ter_read *read)
{
	struct read_op *ro = read->priv;
	struct td_session *s = ro->session;

	td_reply_to(ro->entry);
	if (read->result < 0)
		fuse_reply_err(ro->req, td_errno(read->result));
	else
		fuse_reply_buf(ro->req, read->buf, read->bytes_done);
	td_reply_to(NULL);
	read_free(ro);
	td_late_end(s);
}

void td_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct td_session *s = td_req_session(req);
	struct read_op *ro = calloc(1, sizeof(*ro));
	struct ter_op op;
	int r;

	if (!ro) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	td_op_init(req, &op);
	op.noatime |= fi->flags & O_NOATIME;
	*ro = (struct read_op){ .session = s, .entry = td_call->entry, .req = req, .bytes = size };
	ro->read = (struct ter_read){
		.offset = (uint64_t)off, .bytes = size, .nowait = op.nowait, .done = read_done, .priv = ro,
		.buf = ro->entry ? td_ring_payload(ro->entry, size) : NULL,
	};
	if (!ro->read.buf)
		ro->read.buf = ro->buf = buf_get(size);
	if (!ro->read.buf) {
		fuse_reply_err(req, ENOMEM);
		read_free(ro);
		return;
	}
	td_late_begin(s);
	r = ter_vfs_read(s->vfs, &op, td_node(ino), &ro->read, true);
	if (r < 0) {
		td_reply_err(req, r);
		read_free(ro);
		td_late_end(s);
	}
}

/* --- fsync, write --- */

struct sync_op {
	struct ter_journal_waiter waiter;
	struct td_session *session;
	struct td_ring_entry *entry;
	fuse_req_t req;
	size_t written; /* the answer of a write; 0: none */
};

static void sync_done(struct ter_journal_waiter *waiter, int r)
{
	struct sync_op *so = ter_container_of(waiter, struct sync_op, waiter);
	struct td_session *s = so->session;

	td_reply_to(so->entry);
	if (r >= 0 && so->written)
		fuse_reply_write(so->req, so->written);
	else
		fuse_reply_err(so->req, r < 0 ? td_errno(r) : 0);
	td_reply_to(NULL);
	free(so);
	td_late_end(s);
}

static void sync_and_reply(fuse_req_t req, fuse_ino_t ino, const struct ter_op *op, bool datasync, size_t written)
{
	struct td_session *s = td_req_session(req);
	struct sync_op *so = calloc(1, sizeof(*so));
	int r;

	if (!so) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*so = (struct sync_op){ .waiter.fn = sync_done, .session = s, .entry = td_call->entry, .req = req, .written = written };
	td_late_begin(s);
	r = ter_vfs_fsync_async(s->vfs, op, td_node(ino), datasync, &so->waiter);
	if (r < 0) {
		td_reply_err(req, r); /* told to wait, a write is done again: the same bytes at the same place */
		free(so);
		td_late_end(s);
	}
}

void td_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct ter_op op;

	(void)fi;
	td_op_init(req, &op);
	sync_and_reply(req, ino, &op, datasync, 0);
}

void td_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	const struct fuse_write_in *raw = (const void *)(td_call->in + 1);
	const struct iovec iov = { .iov_base = (char *)buf, .iov_len = size };
	struct ter_op op;
	int r;

	(void)fi;
	td_op_init(req, &op);
	op.kill_priv = raw->write_flags & FUSE_WRITE_KILL_SUIDGID;
	r = ter_vfs_write(td_req_session(req)->vfs, &op, td_node(ino), (uint64_t)off, &iov, 1, false);
	if (r < 0)
		td_reply_err(req, r);
	else if (r == 1)
		sync_and_reply(req, ino, &op, true, size);
	else
		fuse_reply_write(req, size);
}

/* --- ranges --- */

void td_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct ter_op op;

	(void)fi;
	td_op_init(req, &op);
	td_reply_err(req, ter_vfs_fallocate(td_req_session(req)->vfs, &op, td_node(ino), mode, (uint64_t)offset, (uint64_t)length));
}

void td_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	uint64_t found = 0;
	struct ter_op op;
	int r;

	(void)fi;
	td_op_init(req, &op);
	/* With the kernel's writeback cache we may not have seen all data: a hole of ours is no answer. */
	r = td_req_session(req)->config.writeback_cache ? -ENOSYS :
							  ter_vfs_lseek(td_req_session(req)->vfs, &op, td_node(ino), (uint64_t)off, whence, &found);
	if (r < 0)
		td_reply_err(req, r);
	else
		fuse_reply_lseek(req, (off_t)found);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls of the engine that wait, and which errors are none. */
#include "stress.h"

const struct ter_op st_root;

int st_write(struct ter_vfs *vfs, uint64_t node, uint64_t offset, const void *buf, size_t bytes)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = bytes };

	return ter_vfs_write(vfs, &st_root, node, offset, &iov, 1, false);
}

static void read_done(struct ter_read *read)
{
	ter_event_set(read->priv, read->result);
}

int64_t st_read(struct ter_vfs *vfs, uint64_t node, uint64_t offset, void *buf, size_t bytes)
{
	struct ter_event event;
	struct ter_read read = { .buf = buf, .offset = offset, .bytes = bytes, .done = read_done, .priv = &event };
	int r;

	ter_event_init(&event);
	r = ter_vfs_read(vfs, &st_root, node, &read, true);
	if (r >= 0)
		r = ter_event_wait(&event);
	ter_event_destroy(&event);
	return r < 0 ? r : (int64_t)read.bytes_done;
}

struct sync_wait {
	struct ter_journal_waiter waiter;
	struct ter_event event;
};

static void sync_done(struct ter_journal_waiter *waiter, int r)
{
	ter_event_set(&ter_container_of(waiter, struct sync_wait, waiter)->event, r);
}

int st_fsync(struct ter_vfs *vfs, uint64_t node)
{
	struct sync_wait w = { .waiter.fn = sync_done };
	int r;

	ter_event_init(&w.event);
	r = ter_vfs_fsync_async(vfs, &st_root, node, false, &w.waiter);
	if (r >= 0)
		r = ter_event_wait(&w.event);
	ter_event_destroy(&w.event);
	return r;
}

int st_truncate(struct ter_vfs *vfs, uint64_t node, uint64_t size)
{
	const struct ter_attr attr = { .size = size };

	return ter_vfs_setattr(vfs, &st_root, node, &attr, TER_SET_SIZE, NULL);
}

bool st_allowed(int r)
{
	bool allowed = r == -ENOSPC;

	if (r == -ENOSPC)
		atomic_fetch_add(&st->enospc, 1);
	if (r == -EROFS)
		allowed = atomic_load(&st->ro) || atomic_load(&st->faulty);
	if (r == -EIO || r == -ENOMEM || r == -EAGAIN)
		allowed = atomic_load(&st->faulty);
	if (allowed)
		atomic_fetch_add(&st->refused, 1);
	return allowed;
}

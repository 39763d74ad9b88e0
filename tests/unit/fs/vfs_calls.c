/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Short forms of vfs calls. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>

#include "vfs_calls.h"

const struct ter_op root_op, nowait_op = { .nowait = true };

int write_at(struct ter_vfs *vfs, uint64_t node, uint64_t offset, const void *buf, size_t bytes)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = bytes };

	return ter_vfs_write(vfs, &root_op, node, offset, &iov, 1, false);
}

static void read_done(struct ter_read *read)
{
	ter_event_set(read->priv, read->result);
}

int64_t read_all(struct ter_vfs *vfs, uint64_t node, void *buf, size_t bytes)
{
	struct ter_event event;
	struct ter_read read = { .buf = buf, .bytes = bytes, .done = read_done, .priv = &event };
	int r;

	ter_event_init(&event);
	r = ter_vfs_read(vfs, &root_op, node, &read, true);
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

int fsync_wait(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node)
{
	struct sync_wait w = { .waiter.fn = sync_done };
	int r;

	ter_event_init(&w.event);
	r = ter_vfs_fsync_async(vfs, op, node, false, &w.waiter);
	if (r >= 0)
		r = ter_event_wait(&w.event);
	ter_event_destroy(&w.event);
	return r;
}

int truncate_to(struct ter_vfs *vfs, uint64_t node, uint64_t size)
{
	const struct ter_attr attr = { .size = size };

	return ter_vfs_setattr(vfs, &root_op, node, &attr, TER_SET_SIZE, NULL);
}

uint64_t must_create(struct ter_vfs *vfs, uint64_t dir, const char *name, uint32_t mode)
{
	struct ter_attr attr;

	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, name, mode, 0, NULL, &attr), 0);
	return attr.node;
}

struct ter_attr must_stat(struct ter_vfs *vfs, uint64_t node)
{
	struct ter_attr attr;

	assert_int_equal(ter_vfs_getattr(vfs, &root_op, node, &attr), 0);
	return attr;
}

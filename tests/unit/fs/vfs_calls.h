/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Short forms of vfs calls for tests. */
#ifndef VFS_CALLS_H
#define VFS_CALLS_H

#include "fs/vfs.h"

extern const struct ter_op root_op, nowait_op;

int write_at(struct ter_vfs *vfs, uint64_t node, uint64_t offset, const void *buf, size_t bytes);
/* From byte 0; returns bytes, or a negative errno. Waits. */
int64_t read_all(struct ter_vfs *vfs, uint64_t node, void *buf, size_t bytes);
int fsync_wait(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node);
int truncate_to(struct ter_vfs *vfs, uint64_t node, uint64_t size);
/* Make a regular file or directory; returns its node. Asserts. */
uint64_t must_create(struct ter_vfs *vfs, uint64_t dir, const char *name, uint32_t mode);
struct ter_attr must_stat(struct ter_vfs *vfs, uint64_t node);

#endif

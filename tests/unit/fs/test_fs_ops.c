/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each operation by itself: what Linux promises of it, across remounts and crashes. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "fs/acl.h"
#include "fs_rig.h"
#include "vfs_calls.h"

#define WITH_RIG(name)                                                                                                 \
	static void name##_in(struct rig *rig, void *arg);                                                             \
	static void name(void **state)                                                                                 \
	{                                                                                                              \
		(void)state;                                                                                           \
		rig_run(rig_seed(), TER_MIB(4), name##_in, NULL);                                                      \
	}                                                                                                              \
	static void name##_in(struct rig *rig, void *arg)

static uint64_t lookup(struct rig *rig, uint64_t dir, const char *name)
{
	struct ter_attr attr;
	int r = ter_vfs_lookup(rig->vfs, &root_op, dir, name, &attr);

	return r < 0 ? 0 : attr.node;
}

/* Until the background has reaped the node. */
static void wait_reaped(struct rig *rig, uint64_t node)
{
	while (ter_vfs_getattr(rig->vfs, &root_op, node, NULL) != -ESTALE)
		rig->exec->ops->yield(rig->exec);
}

WITH_RIG(errors_are_those_of_linux)
{
	struct ter_vfs *vfs = rig->vfs;
	uint64_t dir = must_create(vfs, TER_NODE_ROOT, "dir", S_IFDIR | 0755), file = must_create(vfs, TER_NODE_ROOT, "file", S_IFREG | 0644);
	char longest[TER_NAME_MAX + 2];
	struct ter_attr attr = { 0 };
	char target[TER_SYMLINK_MAX + 1];

	(void)arg;
	memset(longest, 'x', sizeof(longest));
	longest[TER_NAME_MAX + 1] = '\0';
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, longest, S_IFREG, 0, NULL, NULL), -ENAMETOOLONG);
	assert_int_equal(ter_vfs_lookup(vfs, &root_op, dir, longest, NULL), -ENAMETOOLONG);
	longest[TER_NAME_MAX] = '\0';
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, longest, S_IFREG, 0, NULL, NULL), 0);
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, "", S_IFREG, 0, NULL, NULL), -ENOENT);
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, "a/b", S_IFREG, 0, NULL, NULL), -EINVAL);
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, ".", S_IFDIR, 0, NULL, NULL), -EEXIST);
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, "k", S_IFMT, 0, NULL, NULL), -EINVAL);
	assert_int_equal(ter_vfs_create(vfs, &root_op, file, "x", S_IFREG, 0, NULL, NULL), -ENOTDIR);
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, "l", S_IFLNK, 0, "", NULL), -ENOENT);
	assert_int_equal(ter_vfs_rmdir(vfs, &root_op, dir, ".", NULL), -EINVAL);
	assert_int_equal(ter_vfs_rmdir(vfs, &root_op, dir, "..", NULL), -ENOTEMPTY);
	/* A handle of anything is opened by looking up "." in it. */
	assert_int_equal(ter_vfs_lookup(vfs, &root_op, file, ".", &attr), 0);
	assert_int_equal(attr.node, file);
	assert_int_equal(ter_vfs_lookup(vfs, &root_op, file, "..", &attr), -ENOTDIR);
	assert_int_equal(ter_vfs_lookup(vfs, &root_op, file, "x", &attr), -ENOTDIR);
	assert_int_equal(ter_vfs_tmpfile(vfs, &root_op, dir, 0644, &attr), 0);
	assert_int_equal(ter_vfs_lookup(vfs, &root_op, attr.node, ".", &attr), -ESTALE);
	assert_int_equal(ter_vfs_unlink(vfs, &root_op, dir, ".", NULL), -EISDIR);
	assert_int_equal(ter_vfs_unlink(vfs, &root_op, TER_NODE_ROOT, "dir", NULL), -EISDIR);
	assert_int_equal(ter_vfs_rmdir(vfs, &root_op, TER_NODE_ROOT, "file", NULL), -ENOTDIR);
	assert_int_equal(ter_vfs_rmdir(vfs, &root_op, TER_NODE_ROOT, "dir", NULL), -ENOTEMPTY);
	assert_int_equal(ter_vfs_rename(vfs, &root_op, TER_NODE_ROOT, "dir", dir, "in", 0, NULL), -EINVAL);
	assert_int_equal(ter_vfs_rename(vfs, &root_op, TER_NODE_ROOT, "dir", TER_NODE_ROOT, "x", 1 << 7, NULL), -EINVAL);
	assert_int_equal(ter_vfs_rename(vfs, &root_op, TER_NODE_ROOT, ".", TER_NODE_ROOT, "x", 0, NULL), -EBUSY);
	assert_int_equal(ter_vfs_link(vfs, &root_op, dir, TER_NODE_ROOT, "hard", NULL), -EPERM);
	assert_int_equal(ter_vfs_readlink(vfs, &root_op, file, target), -EINVAL);
	assert_int_equal(write_at(vfs, dir, 0, "x", 1), -EISDIR);
	assert_int_equal(write_at(vfs, file, INT64_MAX, "x", 1), -EFBIG);
	assert_int_equal(read_all(vfs, dir, target, 1), -EISDIR);
	attr.size = (uint64_t)INT64_MAX + 1;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_SIZE, NULL), -EFBIG);
	assert_int_equal(ter_vfs_getattr(vfs, &root_op, TER_NODE(1, 99), NULL), -ESTALE);
	assert_int_equal(ter_vfs_getattr(vfs, &root_op, TER_NODE(2, 1), NULL), -ESTALE);
	assert_int_equal(ter_vfs_getattr(vfs, &root_op, 0, NULL), -ESTALE);
	assert_int_equal(ter_vfs_fallocate(vfs, &root_op, file, 0, 0, 0), -EINVAL);
	assert_int_equal(ter_vfs_fallocate(vfs, &root_op, file, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	assert_int_equal(ter_vfs_fallocate(vfs, &root_op, file, 0, INT64_MAX, 1), -EFBIG);
	assert_int_equal(ter_vfs_fallocate(vfs, &root_op, dir, 0, 0, 1), -EISDIR);
}

WITH_RIG(targets_of_links_may_be_as_long_as_linux_allows)
{
	char target[TER_SYMLINK_MAX + 2], got[TER_SYMLINK_MAX + 1];
	struct ter_attr attr;

	(void)arg;
	for (unsigned i = 0; i < sizeof(target) - 1; i++)
		target[i] = (char)('a' + i % 26);
	target[TER_SYMLINK_MAX + 1] = '\0';
	assert_int_equal(ter_vfs_create(rig->vfs, &root_op, TER_NODE_ROOT, "long", S_IFLNK, 0, target, NULL), -ENAMETOOLONG);
	target[TER_SYMLINK_MAX] = '\0';
	assert_int_equal(ter_vfs_create(rig->vfs, &root_op, TER_NODE_ROOT, "long", S_IFLNK, 0, target, &attr), 0);
	assert_int_equal(attr.size, TER_SYMLINK_MAX);
	assert_int_equal(attr.mode, S_IFLNK | 0777);
	rig_remount(rig);
	assert_int_equal(ter_vfs_readlink(rig->vfs, &root_op, attr.node, got), 0);
	assert_string_equal(got, target);
}

WITH_RIG(immutable_and_append_only_inodes_are_left_alone)
{
	struct ter_vfs *vfs = rig->vfs;
	uint64_t dir = must_create(vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755), file = must_create(vfs, dir, "f", S_IFREG | 0644);
	struct ter_attr attr = { .flags = TER_INODE_IMMUTABLE, .mode = 0600 };
	struct iovec iov = { "tail", 4 };

	(void)arg;
	assert_int_equal(write_at(vfs, file, 0, "data", 4), 0);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_FLAGS, NULL), 0);
	assert_int_equal(must_stat(vfs, file).flags, TER_INODE_IMMUTABLE);
	assert_int_equal(write_at(vfs, file, 0, "x", 1), -EPERM);
	assert_int_equal(truncate_to(vfs, file, 0), -EPERM);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MODE, NULL), -EPERM);
	assert_int_equal(ter_vfs_unlink(vfs, &root_op, dir, "f", NULL), -EPERM);
	assert_int_equal(ter_vfs_rename(vfs, &root_op, dir, "f", dir, "g", 0, NULL), -EPERM);
	assert_int_equal(ter_vfs_link(vfs, &root_op, file, dir, "g", NULL), -EPERM);
	assert_int_equal(ter_vfs_setxattr(vfs, &root_op, file, "user.a", "v", 1, 0), -EPERM);
	attr.flags = TER_INODE_APPEND;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_FLAGS, NULL), 0);
	assert_int_equal(write_at(vfs, file, 0, "x", 1), -EPERM);
	assert_int_equal(ter_vfs_write(vfs, &root_op, file, 0, &iov, 1, true), 0);
	assert_int_equal(truncate_to(vfs, file, 0), -EPERM);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MTIME, NULL), -EPERM);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MTIME | TER_SET_MTIME_NOW, NULL), 0);
	attr.flags = TER_INODE_SYNC;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_FLAGS, NULL), 0);
	assert_int_equal(write_at(vfs, file, 0, "x", 1), 1); /* to be synced */
	attr.flags = 0;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_FLAGS, NULL), 0);
	assert_int_equal(write_at(vfs, file, 0, "x", 1), 0);
	attr.flags = TER_INODE_APPEND;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, dir, &attr, TER_SET_FLAGS, NULL), 0);
	must_create(vfs, dir, "more", S_IFREG);
	assert_int_equal(ter_vfs_unlink(vfs, &root_op, dir, "f", NULL), -EPERM);
	attr.flags = TER_INODE_IMMUTABLE;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, dir, &attr, TER_SET_FLAGS, NULL), 0);
	assert_int_equal(ter_vfs_create(vfs, &root_op, dir, "no", S_IFREG, 0, NULL, NULL), -EPERM);
	rig_remount(rig);
	assert_int_equal(must_stat(rig->vfs, dir).flags, TER_INODE_IMMUTABLE);
}

/* --- ownership and lists --- */

WITH_RIG(new_inodes_take_after_their_directory)
{
	struct ter_vfs *vfs = rig->vfs;
	const struct ter_op op = { .uid = 5, .gid = 6, .umask = 077 };
	uint64_t dir = must_create(vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755);
	struct ter_attr attr = { .mode = 02775, .gid = 42 };

	(void)arg;
	assert_int_equal(ter_vfs_create(vfs, &op, dir, "before", S_IFREG | 0666, 0, NULL, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0600);
	assert_int_equal(attr.uid, 5);
	assert_int_equal(attr.gid, 6);
	attr = (struct ter_attr){ .mode = 02775, .gid = 42 };
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, dir, &attr, TER_SET_MODE | TER_SET_GID, NULL), 0);
	assert_int_equal(ter_vfs_create(vfs, &op, dir, "file", S_IFREG | 0666, 0, NULL, &attr), 0);
	assert_int_equal(attr.gid, 42);
	assert_int_equal(attr.mode, S_IFREG | 0600);
	assert_int_equal(ter_vfs_create(vfs, &op, dir, "sub", S_IFDIR | 0777, 0, NULL, &attr), 0);
	assert_int_equal(attr.gid, 42);
	assert_int_equal(attr.mode, S_IFDIR | 02700);
	assert_int_equal(attr.nlink, 2);
	assert_int_equal(must_stat(vfs, dir).nlink, 3);
}

struct acl {
	ter_le32 version;
	struct { ter_le16 tag, perm; ter_le32 id; } e[5];
};
#define E(t, p) { { htole16(t) }, { htole16(p) }, { 0xffffffff } }

WITH_RIG(default_lists_are_inherited_instead_of_the_umask)
{
	struct ter_vfs *vfs = rig->vfs;
	const struct ter_op op = { .umask = 077 };
	const struct acl list = { { htole32(2) }, { E(1, 7), E(2, 7), E(4, 5), E(0x10, 7), E(0x20, 0) } };
	uint64_t dir = must_create(vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755);
	struct ter_attr attr;
	struct acl got;

	(void)arg;
	assert_int_equal(ter_vfs_setxattr(vfs, &root_op, dir, TER_ACL_DEFAULT, &list, sizeof(list), 0), 0);
	assert_int_equal(ter_vfs_create(vfs, &op, dir, "f", S_IFREG | 0666, 0, NULL, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0660);
	assert_int_equal(ter_vfs_getxattr(vfs, &root_op, attr.node, TER_ACL_ACCESS, &got, sizeof(got)), sizeof(got));
	assert_int_equal(ter_le16_get(got.e[0].perm), 6);
	assert_int_equal(ter_le16_get(got.e[3].perm), 6);
	assert_int_equal(ter_vfs_getxattr(vfs, &root_op, attr.node, TER_ACL_DEFAULT, &got, sizeof(got)), -ENODATA);

	/* chmod moves the list's mask. */
	attr.mode = 0640;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, attr.node, &attr, TER_SET_MODE, NULL), 0);
	assert_int_equal(ter_vfs_getxattr(vfs, &root_op, attr.node, TER_ACL_ACCESS, &got, sizeof(got)), sizeof(got));
	assert_int_equal(ter_le16_get(got.e[3].perm), 4);

	assert_int_equal(ter_vfs_create(vfs, &op, dir, "s", S_IFDIR | 0777, 0, NULL, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 0770);
	assert_int_equal(ter_vfs_getxattr(vfs, &root_op, attr.node, TER_ACL_DEFAULT, &got, sizeof(got)), sizeof(got));
	assert_memory_equal(&got, &list, sizeof(got));
	rig_remount(rig);
	assert_int_equal(ter_vfs_create(rig->vfs, &op, attr.node, "deep", S_IFREG | 0666, 0, NULL, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0660);
	assert_int_equal(ter_vfs_create(rig->vfs, &op, dir, "l", S_IFLNK, 0, "t", &attr), 0);
	assert_int_equal(ter_vfs_listxattr(rig->vfs, &root_op, attr.node, NULL, 0), 0);
}

WITH_RIG(an_access_list_sets_the_mode_and_one_that_says_no_more_is_not_kept)
{
	const struct acl list = { { htole32(2) }, { E(1, 6), E(2, 7), E(4, 4), E(0x10, 5), E(0x20, 1) } };
	const struct { ter_le32 version; struct { ter_le16 tag, perm; ter_le32 id; } e[3]; } plain = { { htole32(2) }, { E(1, 7), E(4, 5), E(0x20, 4) } };
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0600);

	(void)arg;
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, TER_ACL_ACCESS, &list, sizeof(list), 0), 0);
	assert_int_equal(must_stat(rig->vfs, file).mode, S_IFREG | 0651);
	assert_int_equal(ter_vfs_getxattr(rig->vfs, &root_op, file, TER_ACL_ACCESS, NULL, 0), sizeof(list));
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, TER_ACL_ACCESS, &plain, sizeof(plain), 0), 0);
	assert_int_equal(must_stat(rig->vfs, file).mode, S_IFREG | 0754);
	assert_int_equal(ter_vfs_getxattr(rig->vfs, &root_op, file, TER_ACL_ACCESS, NULL, 0), -ENODATA);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, TER_ACL_ACCESS, "junk", 4, 0), -EOPNOTSUPP);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, TER_ACL_DEFAULT, &list, sizeof(list), 0), -EACCES);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, TER_ACL_ACCESS, NULL, 0, 0), 0);
	assert_int_equal(ter_vfs_removexattr(rig->vfs, &root_op, file, TER_ACL_ACCESS), 0);
}

WITH_RIG(set_id_bits_and_capabilities_go_when_asked)
{
	const struct ter_op kill = { .kill_priv = true };
	struct ter_vfs *vfs = rig->vfs;
	uint64_t file = must_create(vfs, TER_NODE_ROOT, "f", S_IFREG | 06755);
	struct iovec iov = { "data", 4 };
	struct ter_attr attr = { .mode = 06755, .uid = 3 };

	(void)arg;
	assert_int_equal(ter_vfs_setxattr(vfs, &root_op, file, "security.capability", "cap", 3, 0), 0);
	assert_int_equal(ter_vfs_write(vfs, &root_op, file, 0, &iov, 1, false), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFREG | 06755);
	assert_int_equal(ter_vfs_write(vfs, &kill, file, 0, &iov, 1, false), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFREG | 0755);
	assert_int_equal(ter_vfs_getxattr(vfs, &root_op, file, "security.capability", NULL, 0), -ENODATA);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MODE, NULL), 0);
	assert_int_equal(ter_vfs_setattr(vfs, &kill, file, &attr, TER_SET_UID, NULL), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFREG | 0755);
	attr.mode = 02644; /* set-gid without group execution is not a privilege */
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MODE, NULL), 0);
	attr.size = 1;
	assert_int_equal(ter_vfs_setattr(vfs, &kill, file, &attr, TER_SET_SIZE, NULL), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFREG | 02644);
	/* Nothing but that, as before an fallocate; of what is no file, too. */
	attr.mode = 06755;
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MODE, NULL), 0);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, 0, NULL), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFREG | 06755);
	assert_int_equal(ter_vfs_setattr(vfs, &kill, file, &attr, 0, NULL), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFREG | 0755);
	file = must_create(vfs, TER_NODE_ROOT, "fifo", S_IFIFO | 06755);
	assert_int_equal(ter_vfs_setattr(vfs, &kill, file, &attr, TER_SET_UID, NULL), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFIFO | 0755);
	file = must_create(vfs, TER_NODE_ROOT, "dir", S_IFDIR | 06755);
	assert_int_equal(ter_vfs_setattr(vfs, &kill, file, &attr, TER_SET_UID, NULL), 0);
	assert_int_equal(must_stat(vfs, file).mode, S_IFDIR | 06755);
}

/* --- times --- */

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

WITH_RIG(times_change_as_linux_changes_them)
{
	uint64_t dir = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755), file = must_create(rig->vfs, dir, "f", S_IFREG | 0644);
	struct ter_attr d0 = must_stat(rig->vfs, dir), f0 = must_stat(rig->vfs, file), d, f;
	char byte;

	(void)arg;
	ter_sleep_ns(rig->exec, TER_NS_PER_MS);
	assert_int_equal(write_at(rig->vfs, file, 0, "x", 1), 0);
	f = must_stat(rig->vfs, file);
	assert_true(later(f.mtime, f0.mtime) && later(f.ctime, f0.ctime) && !later(f.atime, f0.atime));
	d = must_stat(rig->vfs, dir);
	assert_false(later(d.mtime, d0.mtime));

	ter_sleep_ns(rig->exec, TER_NS_PER_MS);
	assert_int_equal(read_all(rig->vfs, file, &byte, 1), 1);
	f0 = must_stat(rig->vfs, file);
	assert_true(later(f0.atime, f.mtime)); /* it was older than the change */
	assert_int_equal(read_all(rig->vfs, file, &byte, 1), 1);
	f = must_stat(rig->vfs, file);
	assert_false(later(f.atime, f0.atime)); /* relatime: younger than the change already */

	ter_sleep_ns(rig->exec, TER_NS_PER_MS);
	assert_int_equal(ter_vfs_rename(rig->vfs, &root_op, dir, "f", dir, "g", 0, NULL), 0);
	f0 = must_stat(rig->vfs, file);
	d0 = must_stat(rig->vfs, dir);
	assert_true(later(f0.ctime, f.ctime) && !later(f0.mtime, f.mtime) && later(d0.mtime, d.mtime) && later(d0.ctime, d.ctime));

	ter_sleep_ns(rig->exec, TER_NS_PER_MS);
	f = (struct ter_attr){ .atime = { -5, 7 }, .mtime = { 1, 999999999 } };
	assert_int_equal(ter_vfs_setattr(rig->vfs, &root_op, file, &f, TER_SET_ATIME | TER_SET_MTIME, NULL), 0);
	rig_remount(rig);
	f = must_stat(rig->vfs, file);
	assert_int_equal(f.atime.tv_sec, -5);
	assert_int_equal(f.atime.tv_nsec, 7);
	assert_int_equal(f.mtime.tv_nsec, 999999999);
	assert_true(later(f.ctime, f0.ctime));
	assert_memory_equal(&f.btime, &f0.btime, sizeof(f.btime));
}

WITH_RIG(what_lives_in_memory_survives_a_remount)
{
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644);
	struct ter_attr before, after;
	char byte;

	(void)arg;
	for (unsigned round = 0; round < 2; round++) {
		ter_sleep_ns(rig->exec, TER_NS_PER_MS);
		if (!round)
			assert_int_equal(write_at(rig->vfs, file, 5000, "x", 1), 0);
		else
			assert_int_equal(ter_vfs_setattr(rig->vfs, &root_op, file, &(struct ter_attr){ 0 }, TER_SET_ATIME, NULL), 0);
		ter_sleep_ns(rig->exec, TER_NS_PER_MS);
		assert_int_equal(read_all(rig->vfs, file, &byte, 1), 1); /* in the second round nothing but the time of access is in memory only */
		before = must_stat(rig->vfs, file);
		assert_int_equal(before.size, 5001);
		assert_true(before.atime.tv_sec > 0);
		assert_true(before.blocks > 0); /* dirty data counts */
		rig_remount(rig);
		after = must_stat(rig->vfs, file);
		assert_int_equal(after.size, 5001);
		assert_memory_equal(&before.mtime, &after.mtime, sizeof(after.mtime));
		assert_memory_equal(&before.atime, &after.atime, sizeof(after.atime));
		assert_memory_equal(&before.ctime, &after.ctime, sizeof(after.ctime));
	}
}

WITH_RIG(what_was_synced_survives_a_crash)
{
	uint64_t dir = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755), file = must_create(rig->vfs, dir, "f", S_IFREG | 0644);
	struct ter_attr before, after;
	char got[6001] = "";

	(void)arg;
	assert_int_equal(write_at(rig->vfs, file, 6000, "x", 1), 0);
	assert_int_equal(write_at(rig->vfs, file, 10, "early", 5), 0);
	before = must_stat(rig->vfs, file);
	assert_int_equal(fsync_wait(rig->vfs, &root_op, file), 0);
	rig_crash(rig);
	assert_int_equal(lookup(rig, dir, "f"), file);
	after = must_stat(rig->vfs, file);
	assert_int_equal(after.size, 6001);
	assert_memory_equal(&before.mtime, &after.mtime, sizeof(after.mtime));
	assert_int_equal(read_all(rig->vfs, file, got, sizeof(got)), 6001);
	assert_memory_equal(got + 10, "early", 5);
	assert_int_equal(got[6000], 'x');
	assert_int_equal(got[5999], 0);

	must_create(rig->vfs, dir, "later", S_IFREG);
	assert_int_equal(fsync_wait(rig->vfs, &root_op, dir), 0);
	rig_crash(rig);
	assert_true(lookup(rig, dir, "later"));
}

/* --- without a name --- */

WITH_RIG(an_unlinked_file_lives_until_it_is_forgotten)
{
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644), other = must_create(rig->vfs, TER_NODE_ROOT, "g", S_IFREG), orphan;
	char got[8] = "";

	(void)arg;
	assert_int_equal(write_at(rig->vfs, file, 0, "hello", 5), 0);
	assert_int_equal(ter_vfs_link(rig->vfs, &root_op, file, TER_NODE_ROOT, "second", NULL), 0);
	assert_int_equal(ter_vfs_unlink(rig->vfs, &root_op, TER_NODE_ROOT, "f", &orphan), 0);
	assert_int_equal(orphan, 0);
	assert_int_equal(ter_vfs_rename(rig->vfs, &root_op, TER_NODE_ROOT, "g", TER_NODE_ROOT, "second", 0, &orphan), 0);
	assert_int_equal(orphan, file);
	assert_int_equal(lookup(rig, TER_NODE_ROOT, "second"), other);
	assert_int_equal(must_stat(rig->vfs, file).nlink, 0);
	assert_int_equal(ter_vfs_link(rig->vfs, &root_op, file, TER_NODE_ROOT, "back", NULL), -ENOENT);
	assert_int_equal(write_at(rig->vfs, file, 5, "!", 1), 0);
	assert_int_equal(fsync_wait(rig->vfs, &root_op, file), 0);
	assert_int_equal(read_all(rig->vfs, file, got, sizeof(got)), 6);
	assert_string_equal(got, "hello!");
	assert_int_equal(rig_check(rig), 0);
	ter_vfs_forget(rig->vfs, file);
	wait_reaped(rig, file);
	assert_int_equal(write_at(rig->vfs, file, 0, "x", 1), -ESTALE);
	ter_vfs_forget(rig->vfs, file);
	ter_vfs_forget(rig->vfs, other); /* has a name: nothing */
	assert_int_equal(must_stat(rig->vfs, other).nlink, 1);
	assert_int_equal(rig_check(rig), 0);
}

WITH_RIG(what_nobody_forgot_is_reaped_at_the_next_start)
{
	uint64_t node[40], orphan;
	char name[16];
	uint8_t *data = calloc(1, 300000);

	(void)arg;
	for (unsigned i = 0; i < ARRAY_SIZE(node); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		node[i] = must_create(rig->vfs, TER_NODE_ROOT, name, i % 4 == 3 ? S_IFDIR : S_IFREG);
		if (i % 4 == 1)
			assert_int_equal(write_at(rig->vfs, node[i], 0, "small", 5), 0);
		if (i % 4 == 2) {
			assert_int_equal(write_at(rig->vfs, node[i], i * 100000, data, 300000), 0);
			assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, node[i], "user.x", "y", 1, 0), 0);
		}
	}
	assert_int_equal(ter_vfs_sync(rig->vfs), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(node); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		if (i % 4 == 3)
			assert_int_equal(ter_vfs_rmdir(rig->vfs, &root_op, TER_NODE_ROOT, name, &orphan), 0);
		else
			assert_int_equal(ter_vfs_unlink(rig->vfs, &root_op, TER_NODE_ROOT, name, &orphan), 0);
		assert_int_equal(orphan, node[i]);
	}
	assert_int_equal(ter_vfs_sync(rig->vfs), 0);
	rig_crash(rig);
	for (unsigned i = 0; i < ARRAY_SIZE(node); i++)
		assert_int_equal(ter_vfs_getattr(rig->vfs, &root_op, node[i], NULL), -ESTALE);
	assert_int_equal(must_stat(rig->vfs, TER_NODE_ROOT).nlink, 2);
	free(data);
}

WITH_RIG(a_file_made_without_a_name_may_get_one)
{
	struct ter_attr attr;

	(void)arg;
	assert_int_equal(ter_vfs_tmpfile(rig->vfs, &root_op, TER_NODE_ROOT, 0600, &attr), 0);
	assert_int_equal(attr.nlink, 0);
	assert_int_equal(write_at(rig->vfs, attr.node, 0, "x", 1), 0);
	assert_int_equal(ter_vfs_link(rig->vfs, &root_op, attr.node, TER_NODE_ROOT, "named", &attr), 0);
	assert_int_equal(attr.nlink, 1);
	ter_vfs_forget(rig->vfs, attr.node);
	assert_int_equal(ter_vfs_sync(rig->vfs), 0);
	rig_crash(rig);
	assert_int_equal(lookup(rig, TER_NODE_ROOT, "named"), attr.node);
	assert_int_equal(must_stat(rig->vfs, attr.node).size, 1);
	/* And only once: what lost that name again has had it. */
	assert_int_equal(ter_vfs_unlink(rig->vfs, &root_op, TER_NODE_ROOT, "named", NULL), 0);
	assert_int_equal(ter_vfs_link(rig->vfs, &root_op, attr.node, TER_NODE_ROOT, "again", NULL), -ENOENT);
}

WITH_RIG(a_removed_directory_takes_nothing_new)
{
	uint64_t dir = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755), file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG);

	(void)arg;
	assert_int_equal(ter_vfs_rmdir(rig->vfs, &root_op, TER_NODE_ROOT, "d", NULL), 0);
	assert_int_equal(ter_vfs_create(rig->vfs, &root_op, dir, "x", S_IFREG, 0, NULL, NULL), -ENOENT);
	assert_int_equal(ter_vfs_link(rig->vfs, &root_op, file, dir, "x", NULL), -ENOENT);
	assert_int_equal(ter_vfs_rename(rig->vfs, &root_op, TER_NODE_ROOT, "f", dir, "x", 0, NULL), -ENOENT);
	assert_int_equal(ter_vfs_tmpfile(rig->vfs, &root_op, dir, 0600, NULL), -ENOENT);
}

WITH_RIG(numbers_are_never_given_out_twice)
{
	uint64_t last = 0;

	(void)arg;
	for (unsigned round = 0; round < 6; round++) {
		uint64_t orphan;

		for (unsigned i = 0; i < 70; i++) {
			uint64_t node = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG);

			assert_true(node > last);
			last = node;
			assert_int_equal(ter_vfs_unlink(rig->vfs, &root_op, TER_NODE_ROOT, "f", &orphan), 0);
			ter_vfs_forget(rig->vfs, orphan);
		}
		assert_int_equal(ter_vfs_sync(rig->vfs), 0);
		if (round % 2)
			rig_crash(rig);
		else
			rig_remount(rig);
	}
}

/* --- listing --- */

#define ENTRIES 50000u

struct lister {
	uint8_t *seen;
	unsigned budget;
	uint64_t cookie, last;
	bool attrs;
	unsigned nr;
};

static int see(void *arg, const struct ter_dirent *d)
{
	struct lister *l = arg;

	if (!l->budget)
		return 1;
	l->budget--;
	assert_true(d->cookie > l->last || !l->last);
	l->last = l->cookie = d->cookie;
	if (d->name[0] == 'n') {
		l->seen[strtoul(d->name + 1, NULL, 10)]++;
		l->nr++;
		assert_true(!l->attrs || (d->attr && d->attr->node == d->node));
	}
	return 0;
}

WITH_RIG(each_entry_is_listed_once_while_others_come_and_go)
{
	uint64_t dir = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755), rand = rig->seed | 1;
	struct lister l = { .seen = calloc(1, ENTRIES) };
	char name[32];

	(void)arg;
	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(ter_vfs_create(rig->vfs, &root_op, dir, name, S_IFREG | 0644, 0, NULL, NULL), 0);
	}
	assert_int_equal(must_stat(rig->vfs, dir).size, ENTRIES * 32);
	for (unsigned round = 0;; round++) {
		uint64_t before = l.cookie;

		l.budget = 1 + rnd_below(&rand, 700);
		l.attrs = rnd_below(&rand, 3) == 0;
		assert_int_equal(ter_vfs_readdir(rig->vfs, &root_op, dir, l.cookie, l.attrs, see, &l), 0);
		if (l.cookie == before)
			break;
		for (unsigned i = 0; i < 5; i++) {
			snprintf(name, sizeof(name), "other%u", rnd_below(&rand, 50));
			if (ter_vfs_create(rig->vfs, &root_op, dir, name, S_IFREG, 0, NULL, NULL) == -EEXIST)
				assert_int_equal(ter_vfs_unlink(rig->vfs, &root_op, dir, name, NULL), 0);
		}
		if (round == 10)
			rig_remount(rig);
	}
	assert_int_equal(l.nr, ENTRIES);
	for (unsigned i = 0; i < ENTRIES; i++)
		assert_int_equal(l.seen[i], 1);
	free(l.seen);
}

/* --- attributes --- */

WITH_RIG(attributes_are_bounded_as_linux_bounds_them)
{
	const struct ter_op user = { .uid = 1000 };
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644);
	uint8_t *big = calloc(1, 70000), *got = calloc(1, 70000);
	char list[64];

	(void)arg;
	memset(big, 7, 70000);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "user.big", big, 65537, 0), -E2BIG);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "user.big", big, 65536, 0), -ENOSPC);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "user.big", big, 3000, 0), 0);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "user.empty", NULL, 0, XATTR_CREATE), 0);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "user.empty", NULL, 0, XATTR_CREATE), -EEXIST);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "user.none", NULL, 0, XATTR_REPLACE), -ENODATA);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, file, "trusted.t", "t", 1, 0), 0);
	rig_remount(rig);
	assert_int_equal(ter_vfs_getxattr(rig->vfs, &root_op, file, "user.big", got, 2999), -ERANGE);
	assert_int_equal(ter_vfs_getxattr(rig->vfs, &root_op, file, "user.big", got, 3000), 3000);
	assert_memory_equal(got, big, 3000);
	assert_int_equal(ter_vfs_getxattr(rig->vfs, &root_op, file, "user.empty", got, 10), 0);
	assert_int_equal(ter_vfs_getxattr(rig->vfs, &root_op, file, "user.none", got, 10), -ENODATA);
	assert_int_equal(ter_vfs_listxattr(rig->vfs, &root_op, file, NULL, 0), 9 + 11 + 10);
	assert_int_equal(ter_vfs_listxattr(rig->vfs, &user, file, NULL, 0), 9 + 11);
	assert_int_equal(ter_vfs_listxattr(rig->vfs, &user, file, list, 19), -ERANGE);
	assert_int_equal(ter_vfs_listxattr(rig->vfs, &user, file, list, 20), 20);
	assert_int_equal(ter_vfs_removexattr(rig->vfs, &root_op, file, "user.none"), -ENODATA);
	free(big);
	free(got);
}

/* --- contents --- */

WITH_RIG(holes_are_found_and_made)
{
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644), at;
	uint8_t *data = calloc(1, 100000), *got = calloc(1, 300000);

	(void)arg;
	memset(data, 1, 100000);
	assert_int_equal(write_at(rig->vfs, file, 100000, data, 100000), 0);
	assert_int_equal(ter_vfs_sync(rig->vfs), 0);
	assert_int_equal(ter_vfs_lseek(rig->vfs, &root_op, file, 0, SEEK_DATA, &at), 0);
	assert_true(at > 90000 && at <= 100000);
	assert_int_equal(ter_vfs_lseek(rig->vfs, &root_op, file, 150000, SEEK_HOLE, &at), 0);
	assert_true(at >= 200000 || at == must_stat(rig->vfs, file).size);
	assert_int_equal(ter_vfs_lseek(rig->vfs, &root_op, file, 200000, SEEK_DATA, &at), -ENXIO);
	assert_int_equal(ter_vfs_fallocate(rig->vfs, &root_op, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 120000, 40001), 0);
	assert_int_equal(must_stat(rig->vfs, file).size, 200000);
	assert_int_equal(ter_vfs_fallocate(rig->vfs, &root_op, file, FALLOC_FL_KEEP_SIZE, 200000, 50000), 0);
	assert_int_equal(must_stat(rig->vfs, file).size, 200000);
	assert_int_equal(ter_vfs_fallocate(rig->vfs, &root_op, file, 0, 240000, 10000), 0);
	assert_int_equal(must_stat(rig->vfs, file).size, 250000);
	rig_remount(rig);
	assert_int_equal(read_all(rig->vfs, file, got, 300000), 250000);
	for (unsigned i = 0; i < 250000; i++)
		assert_int_equal(got[i], i >= 100000 && i < 200000 && (i < 120000 || i >= 160001));
	free(data);
	free(got);
}

WITH_RIG(what_is_cut_off_does_not_come_back)
{
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644);
	uint8_t *data = calloc(1, 60000);

	(void)arg;
	memset(data, 9, 60000);
	for (unsigned round = 0; round < 4; round++) {
		assert_int_equal(write_at(rig->vfs, file, 0, data, 60000), 0);
		if (round & 1)
			assert_int_equal(ter_vfs_sync(rig->vfs), 0);
		assert_int_equal(truncate_to(rig->vfs, file, 10001), 0);
		assert_int_equal(must_stat(rig->vfs, file).size, 10001);
		if (round & 2)
			rig_remount(rig);
		assert_int_equal(truncate_to(rig->vfs, file, 60000), 0);
		memset(data, 0, 60000);
		assert_int_equal(read_all(rig->vfs, file, data, 60000), 60000);
		for (unsigned i = 0; i < 60000; i++)
			assert_int_equal(data[i], i < 10001 ? 9 : 0);
		memset(data, 9, 60000);
	}
	free(data);
}

WITH_RIG(nothing_is_changed_read_only)
{
	struct ter_vfs *vfs = rig->vfs;
	uint64_t file = must_create(vfs, TER_NODE_ROOT, "f", S_IFREG | 0644);
	struct ter_attr attr = { 0 };
	char byte;

	(void)arg;
	assert_int_equal(write_at(vfs, file, 0, "x", 1), 0);
	assert_int_equal(ter_vfs_sync(vfs), 0);
	ter_vfs_set_journal(vfs, NULL, true);
	assert_int_equal(ter_vfs_create(vfs, &root_op, TER_NODE_ROOT, "x", S_IFREG, 0, NULL, NULL), -EROFS);
	assert_int_equal(ter_vfs_tmpfile(vfs, &root_op, TER_NODE_ROOT, 0600, NULL), -EROFS);
	assert_int_equal(ter_vfs_link(vfs, &root_op, file, TER_NODE_ROOT, "x", NULL), -EROFS);
	assert_int_equal(ter_vfs_unlink(vfs, &root_op, TER_NODE_ROOT, "f", NULL), -EROFS);
	assert_int_equal(ter_vfs_rename(vfs, &root_op, TER_NODE_ROOT, "f", TER_NODE_ROOT, "g", 0, NULL), -EROFS);
	assert_int_equal(write_at(vfs, file, 0, "y", 1), -EROFS);
	assert_int_equal(ter_vfs_setattr(vfs, &root_op, file, &attr, TER_SET_MODE, NULL), -EROFS);
	assert_int_equal(ter_vfs_setxattr(vfs, &root_op, file, "user.a", "b", 1, 0), -EROFS);
	assert_int_equal(ter_vfs_removexattr(vfs, &root_op, file, "user.a"), -EROFS);
	assert_int_equal(ter_vfs_fallocate(vfs, &root_op, file, 0, 0, 1), -EROFS);
	assert_int_equal(fsync_wait(vfs, &root_op, file), -EROFS);
	assert_int_equal(read_all(vfs, file, &byte, 1), 1);
	assert_int_equal(ter_vfs_sync(vfs), 0);
	rig_unfreeze(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_are_those_of_linux),
		cmocka_unit_test(targets_of_links_may_be_as_long_as_linux_allows),
		cmocka_unit_test(immutable_and_append_only_inodes_are_left_alone),
		cmocka_unit_test(new_inodes_take_after_their_directory),
		cmocka_unit_test(default_lists_are_inherited_instead_of_the_umask),
		cmocka_unit_test(an_access_list_sets_the_mode_and_one_that_says_no_more_is_not_kept),
		cmocka_unit_test(set_id_bits_and_capabilities_go_when_asked),
		cmocka_unit_test(times_change_as_linux_changes_them),
		cmocka_unit_test(what_lives_in_memory_survives_a_remount),
		cmocka_unit_test(what_was_synced_survives_a_crash),
		cmocka_unit_test(an_unlinked_file_lives_until_it_is_forgotten),
		cmocka_unit_test(what_nobody_forgot_is_reaped_at_the_next_start),
		cmocka_unit_test(a_file_made_without_a_name_may_get_one),
		cmocka_unit_test(a_removed_directory_takes_nothing_new),
		cmocka_unit_test(numbers_are_never_given_out_twice),
		cmocka_unit_test(each_entry_is_listed_once_while_others_come_and_go),
		cmocka_unit_test(attributes_are_bounded_as_linux_bounds_them),
		cmocka_unit_test(holes_are_found_and_made),
		cmocka_unit_test(what_is_cut_off_does_not_come_back),
		cmocka_unit_test(nothing_is_changed_read_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

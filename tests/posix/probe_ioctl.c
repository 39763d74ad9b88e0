/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ioctls: flags of inodes and what they forbid, label, trimming. */
#include "probe.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#define SHOWN (FS_SYNC_FL | FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL)
#define XSHOWN (FS_XFLAG_SYNC | FS_XFLAG_IMMUTABLE | FS_XFLAG_APPEND | FS_XFLAG_NODUMP | FS_XFLAG_NOATIME)

static int get_flags(const char *path, int *ret)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK), r = ioctl(fd, FS_IOC_GETFLAGS, ret), err = errno;

	close(fd);
	errno = err;
	return r;
}

static int set_flags(const char *path, int flags)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK), now = 0, r = ioctl(fd, FS_IOC_GETFLAGS, &now), err;

	now = (now & ~SHOWN) | flags;
	r = r < 0 ? r : ioctl(fd, FS_IOC_SETFLAGS, &now);
	err = errno;
	close(fd);
	errno = err;
	return r;
}

static void see_flags(struct probe *p, const char *key, const char *path)
{
	int flags = 0;

	if (get_flags(path, &flags) < 0)
		probe_try(p, key, -1);
	else
		SEE(key, "%x", flags & SHOWN);
}

static void ioctl_flags(struct probe *p)
{
	static const struct { const char *name; int flag; } each[] = {
		{ "sync", FS_SYNC_FL }, { "nodump", FS_NODUMP_FL }, { "noatime", FS_NOATIME_FL }, { "append", FS_APPEND_FL }, { "immutable", FS_IMMUTABLE_FL },
	};
	char key[64];

	make(p, "f", "f");
	make_dir(p, "d", 0755, 0, 0);
	see_flags(p, "none", "f");
	for (size_t i = 0; i < NR(each); i++) {
		snprintf(key, sizeof(key), "%s_file", each[i].name);
		TRY(key, set_flags("f", each[i].flag));
		see_flags(p, each[i].name, "f");
		TRY("clear", set_flags("f", 0));
		snprintf(key, sizeof(key), "%s_dir", each[i].name);
		TRY(key, set_flags("d", each[i].flag));
		see_flags(p, key, "d");
		TRY("clear_dir", set_flags("d", 0));
	}
	TRY("inherit_set", set_flags("d", FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL));
	make(p, "d/f", "x");
	make_dir(p, "d/d", 0755, 0, 0);
	see_flags(p, "inherited_f", "d/f");
	see_flags(p, "inherited_d", "d/d");
	make_mode(p, "own", 0644, USER_ID, USER_ID);
	AS(USER) {
		TRY("user_own", set_flags("own", FS_NODUMP_FL));
		see_flags(p, "user_flags", "own");
		TRY("user_immutable", set_flags("own", FS_IMMUTABLE_FL));
		TRY("user_append", set_flags("own", FS_APPEND_FL));
		TRY("user_other", set_flags("f", FS_NODUMP_FL));
		see_flags(p, "user_reads", "f");
	}
	{
		const struct statx *sx = &(struct statx){ 0 };

		NEED(set_flags("f", FS_NODUMP_FL | FS_APPEND_FL) == 0 || errno);
		NEED(statx(AT_FDCWD, "f", 0, STATX_ALL, (struct statx *)sx) == 0);
		SEE("statx", "%llx", (unsigned long long)sx->stx_attributes & (STATX_ATTR_APPEND | STATX_ATTR_IMMUTABLE | STATX_ATTR_NODUMP));
		(void)set_flags("f", 0);
	}
}

static void ioctl_immutable(struct probe *p)
{
	char buf[8];
	int fd;

	make_mode(p, "f", 0644, 0, 0);
	make(p, "g", "g");
	make_dir(p, "d", 0755, 0, 0);
	make(p, "d/in", "in");
	fd = open_file(p, "f", O_RDWR);
	TRY("set", set_flags("f", FS_IMMUTABLE_FL));
	TRY("set_dir", set_flags("d", FS_IMMUTABLE_FL));
	TRY("open_read", open("f", O_RDONLY));
	TRY("read", pread(fd, buf, 1, 0));
	TRY("open_write", open("f", O_WRONLY));
	TRY("open_trunc", open("f", O_WRONLY | O_TRUNC));
	TRY("truncate", truncate("f", 0));
	TRY("chmod", chmod("f", 0600));
	TRY("chown", chown("f", 1, 1));
	TRY("utimens", utimensat(AT_FDCWD, "f", NULL, 0));
	TRY("link", link("f", "f2"));
	TRY("unlink", unlink("f"));
	TRY("rename", rename("f", "f2"));
	TRY("rename_over", rename("g", "f"));
	TRY("setxattr", setxattr("f", "user.x", "1", 1, 0));
	TRY("removexattr", removexattr("f", "user.x"));
	TRY("fallocate", fallocate(fd, 0, 0, 10));
	TRY("access", access("f", W_OK));
	TRY("dir_create", open("d/new", O_CREAT | O_WRONLY, 0644));
	TRY("dir_unlink", unlink("d/in"));
	TRY("dir_rename", rename("d/in", "d/out"));
	TRY("dir_write_inside", open("d/in", O_WRONLY));
	TRY("dir_chmod", chmod("d", 0700));
	TRY("dir_rmdir", rmdir("d"));
	TRY("rename_in", rename("g", "d/g"));
	TRY("clear", set_flags("f", 0));
	TRY("clear_dir", set_flags("d", 0));
	TRY("after", unlink("f"));
	see_content(p, "kept", "g");
}

static void ioctl_immutable_open(struct probe *p)
{
	int fd;

	make_mode(p, "f", 0644, 0, 0);
	fd = open_file(p, "f", O_RDWR);
	NEED(set_flags("f", FS_IMMUTABLE_FL) == 0);
	TRY("write_by_old_fd", pwrite(fd, "x", 1, 0)); /* Linux lets descriptors of before go on */
	NEED(set_flags("f", 0) == 0);
}

static void ioctl_append(struct probe *p)
{
	int fd;

	make(p, "f", "12345");
	make_dir(p, "d", 0755, 0, 0);
	make(p, "d/in", "in");
	TRY("set", set_flags("f", FS_APPEND_FL));
	TRY("set_dir", set_flags("d", FS_APPEND_FL));
	TRY("open_write", open("f", O_WRONLY));
	fd = (int)TRY("open_append", open("f", O_WRONLY | O_APPEND));
	TRY("append", write(fd, "678", 3));
	TRY("open_trunc", open("f", O_WRONLY | O_APPEND | O_TRUNC));
	TRY("truncate", truncate("f", 0));
	TRY("truncate_longer", truncate("f", 100));
	TRY("chmod", chmod("f", 0600));
	TRY("utimens_now", utimensat(AT_FDCWD, "f", NULL, 0));
	TRY("utimens_set", utimensat(AT_FDCWD, "f", (const struct timespec[2]){ { 1, 1 }, { 1, 1 } }, 0));
	TRY("setxattr", setxattr("f", "user.x", "1", 1, 0));
	TRY("unlink", unlink("f"));
	TRY("rename", rename("f", "g"));
	TRY("link", link("f", "g"));
	TRY("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3));
	TRY("clear_append", fcntl(fd, F_SETFL, 0));
	TRY("dir_create", mkdir("d/new", 0755));
	TRY("dir_unlink", unlink("d/in"));
	TRY("dir_rename", rename("d/in", "d/out"));
	TRY("dir_rmdir", rmdir("d/new"));
	TRY("clear", set_flags("f", 0));
	TRY("clear_dir", set_flags("d", 0));
	see_content(p, "content", "f");
}

static void ioctl_xattr(struct probe *p)
{
	struct fsxattr x = { 0 };
	int fd;

	make(p, "f", "f");
	fd = open_file(p, "f", O_RDONLY);
	TRY("get", ioctl(fd, FS_IOC_FSGETXATTR, &x));
	SEE("flags", "%x:%u", x.fsx_xflags & XSHOWN, x.fsx_projid);
	x.fsx_xflags |= FS_XFLAG_NODUMP | FS_XFLAG_NOATIME;
	TRY("set", ioctl(fd, FS_IOC_FSSETXATTR, &x));
	memset(&x, 0, sizeof(x));
	TRY("get2", ioctl(fd, FS_IOC_FSGETXATTR, &x));
	SEE("flags2", "%x", x.fsx_xflags & XSHOWN);
	see_flags(p, "both_ways", "f");
	NEED(set_flags("f", FS_SYNC_FL) == 0 || errno);
	TRY("get3", ioctl(fd, FS_IOC_FSGETXATTR, &x));
	SEE("flags3", "%x", x.fsx_xflags & XSHOWN);
	make_mode(p, "own", 0644, USER_ID, USER_ID);
	AS(USER) {
		fd = open_file(p, "own", O_RDONLY);
		TRY("user_get", ioctl(fd, FS_IOC_FSGETXATTR, &x));
		x.fsx_xflags = FS_XFLAG_NODUMP;
		x.fsx_projid = 0;
		TRY("user_set", ioctl(fd, FS_IOC_FSSETXATTR, &x));
		x.fsx_xflags = FS_XFLAG_IMMUTABLE;
		TRY("user_immutable", ioctl(fd, FS_IOC_FSSETXATTR, &x));
		fd = open_file(p, "f", O_RDONLY);
		TRY("user_other", ioctl(fd, FS_IOC_FSSETXATTR, &x));
	}
}

static void ioctl_project(struct probe *p)
{
	struct fsxattr x = { 0 };
	int fd;

	make(p, "f", "f");
	fd = open_file(p, "f", O_RDONLY);
	NEED(ioctl(fd, FS_IOC_FSGETXATTR, &x) == 0);
	x.fsx_projid = 7;
	TRY("set", ioctl(fd, FS_IOC_FSSETXATTR, &x));
}

static void ioctl_noatime(struct probe *p)
{
	static const struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
	char buf[8];
	int fd;

	make_bytes(p, "f", 'x', 300000);
	drop_pages(p, "f");
	NEED(utimensat(AT_FDCWD, "f", old, 0) == 0);
	TRY("set", set_flags("f", FS_NOATIME_FL));
	fd = open_file(p, "f", O_RDONLY);
	NEED(pread(fd, buf, 1, 200000) == 1);
	SEE("atime", "%lld", (long long)stat_of(p, "f").st_atim.tv_sec);
}

static void ioctl_label(struct probe *p)
{
	char label[FSLABEL_MAX] = "", old[FSLABEL_MAX] = "";
	int fd = open_file(p, ".", O_RDONLY | O_DIRECTORY);

	TRY("get", ioctl(fd, FS_IOC_GETFSLABEL, old));
	AS(USER) {
		int f = open_file(p, ".", O_RDONLY | O_DIRECTORY);

		strcpy(label, "stolen");
		TRY("user_set", ioctl(f, FS_IOC_SETFSLABEL, label));
		TRY("user_get", ioctl(f, FS_IOC_GETFSLABEL, label));
	}
	memset(label, 0, sizeof(label));
	strcpy(label, "probe-label");
	TRY("set", ioctl(fd, FS_IOC_SETFSLABEL, label));
	memset(label, 0, sizeof(label));
	TRY("get2", ioctl(fd, FS_IOC_GETFSLABEL, label));
	SEE("label", "%s", label);
	memset(label, 'x', sizeof(label));
	TRY("too_long", ioctl(fd, FS_IOC_SETFSLABEL, label));
	TRY("restore", ioctl(fd, FS_IOC_SETFSLABEL, old));
}

static void ioctl_others(struct probe *p)
{
	struct fstrim_range trim = { .len = UINT64_MAX };
	int fd = open_file(p, ".", O_RDONLY | O_DIRECTORY), n = -1, f;

	TRY("fitrim", ioctl(fd, FITRIM, &trim));
	AS(USER) {
		trim = (struct fstrim_range){ .len = UINT64_MAX };
		TRY("user_fitrim", ioctl(open_file(p, ".", O_RDONLY | O_DIRECTORY), FITRIM, &trim));
	}
	trim = (struct fstrim_range){ .start = UINT64_MAX - 1, .len = 1 };
	TRY("fitrim_far", ioctl(fd, FITRIM, &trim));
	make(p, "f", "12345");
	f = open_file(p, "f", O_RDONLY);
	lseek(f, 2, SEEK_SET);
	TRY("fionread", ioctl(f, FIONREAD, &n));
	SEE("readable", "%d", n);
	TRY("unknown", ioctl(f, _IOR('~', 99, int), &n));
	TRY("unknown_dir", ioctl(fd, _IOR('~', 99, int), &n));
	TRY("tcgets", isatty(f) ? 0 : -1);
	TRY("path", ioctl(open("f", O_PATH), FS_IOC_GETFLAGS, &n));
	TRY("cloexec", ioctl(f, FIOCLEX));
}

const struct probe_case ioctl_cases[] = {
	{ "ioctl_flags", ioctl_flags, "" },
	{ "ioctl_immutable", ioctl_immutable, "" },
	{ "ioctl_immutable_open", ioctl_immutable_open, "" },
	{ "ioctl_append", ioctl_append, "" },
	{ "ioctl_xattr", ioctl_xattr, "" },
	{ "ioctl_project", ioctl_project, "" },
	{ "ioctl_noatime", ioctl_noatime, "" },
	{ "ioctl_label", ioctl_label, "" },
	{ "ioctl_others", ioctl_others, "" },
	{ 0 },
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Times: which call moves which, to the nanosecond, far back and far ahead, and who may set them. */
#include "probe.h"

#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

static bool moved(struct statx_timestamp a, struct statx_timestamp b)
{
	return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
}

static struct statx look(struct probe *p, const char *path)
{
	struct statx sx;

	NEED(statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_ALL, &sx) == 0);
	return sx;
}

static void see_moved(struct probe *p, const char *key, const struct statx *a, const struct statx *b)
{
	SEE(key, "%s%s%s%s", moved(a->stx_atime, b->stx_atime) ? "a" : "", moved(a->stx_mtime, b->stx_mtime) ? "m" : "",
	    moved(a->stx_ctime, b->stx_ctime) ? "c" : "", moved(a->stx_btime, b->stx_btime) ? "b" : "");
}

/* Of the file @f, and its directory: what the call moved. */
#define MOVES(key, f, call)                                   \
	do {                                                  \
		struct statx f0 = look(p, f), d0 = look(p, "."), f1, d1; \
		tick();                                       \
		TRY(key "_r", call);                          \
		f1 = look(p, f);                              \
		d1 = look(p, ".");                            \
		see_moved(p, key, &f0, &f1);                  \
		see_moved(p, key "_dir", &d0, &d1);           \
	} while (0)

static void times_file_calls(struct probe *p)
{
	const struct timespec omit[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
	const struct timespec now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
	const struct timespec mtime_only[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 5 } };
	char buf[8];
	void *map;
	int fd;

	make(p, "f", "0123456789");
	fd = open_file(p, "f", O_RDWR);
	MOVES("write", "f", pwrite(fd, "x", 1, 0));
	MOVES("write_nothing", "f", pwrite(fd, "x", 0, 0));
	MOVES("write_longer", "f", pwrite(fd, "x", 1, 20));
	MOVES("ftruncate_shorter", "f", ftruncate(fd, 15));
	MOVES("ftruncate_longer", "f", ftruncate(fd, 30));
	MOVES("ftruncate_same", "f", ftruncate(fd, 30));
	MOVES("truncate_same", "f", truncate("f", 30));
	MOVES("truncate_shorter", "f", truncate("f", 29));
	MOVES("open_trunc", "f", close(open("f", O_WRONLY | O_TRUNC)));
	MOVES("open_trunc_empty", "f", close(open("f", O_WRONLY | O_TRUNC)));
	NEED(pwrite(fd, "0123456789", 10, 0) == 10);
	MOVES("open_read", "f", close(open("f", O_RDONLY)));
	MOVES("read_nothing", "f", pread(fd, buf, 0, 0));
	MOVES("read_at_end", "f", pread(fd, buf, 1, 1000));
	MOVES("fallocate", "f", fallocate(fd, 0, 0, 100000));
	MOVES("fallocate_keep", "f", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 200000));
	MOVES("punch", "f", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	MOVES("zero", "f", fallocate(fd, FALLOC_FL_ZERO_RANGE, 4096, 4096));
	MOVES("fsync", "f", fsync(fd));
	MOVES("chmod", "f", fchmod(fd, 0600));
	MOVES("chmod_same", "f", fchmod(fd, 0600));
	MOVES("chown", "f", fchown(fd, 1, 1));
	MOVES("chown_same", "f", fchown(fd, 1, 1));
	MOVES("chown_none", "f", fchown(fd, (uid_t)-1, (gid_t)-1));
	MOVES("setxattr", "f", setxattr("f", "user.x", "1", 1, 0));
	MOVES("removexattr", "f", removexattr("f", "user.x"));
	MOVES("utimens_omit", "f", utimensat(AT_FDCWD, "f", omit, 0));
	MOVES("utimens_now", "f", utimensat(AT_FDCWD, "f", now, 0));
	MOVES("utimens_null", "f", utimensat(AT_FDCWD, "f", NULL, 0));
	MOVES("utimens_mtime", "f", utimensat(AT_FDCWD, "f", mtime_only, 0));
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 8192);
	NEED(map != MAP_FAILED);
	MOVES("mmap_write", "f", (*(volatile char *)map = 1, msync(map, 4096, MS_SYNC)));
	munmap(map, 4096);
	MOVES("stat", "f", access("f", F_OK));
}

static void times_atime(struct probe *p)
{
	static const struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
	static const struct timespec past_m[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1000000000 } };
	char buf[64];
	int fd;

	/* relatime: moved when it is not newer than mtime or ctime, or a day old. */
	make_bytes(p, "f", 'x', 300000);
	drop_pages(p, "f");
	NEED(utimensat(AT_FDCWD, "f", old, 0) == 0);
	fd = open_file(p, "f", O_RDONLY);
	MOVES("first_read", "f", pread(fd, buf, 10, 200000));
	tick();
	drop_pages(p, "f");
	MOVES("second_read", "f", pread(fd, buf, 10, 100000));
	drop_pages(p, "f");
	NEED(utimensat(AT_FDCWD, "f", past_m, 0) == 0);
	MOVES("read_after_ctime", "f", pread(fd, buf, 10, 100));
	close(fd);
	make_bytes(p, "g", 'x', 300000);
	drop_pages(p, "g");
	NEED(utimensat(AT_FDCWD, "g", old, 0) == 0);
	fd = open_file(p, "g", O_RDONLY | O_NOATIME);
	MOVES("o_noatime", "g", pread(fd, buf, 10, 0));
	AS(USER) {
		TRY("user_noatime", open("g", O_RDONLY | O_NOATIME));
	}
	make(p, "cached", "cached bytes");
	fd = open_file(p, "cached", O_RDONLY);
	NEED(pread(fd, buf, 10, 0) == 10);
	NEED(utimensat(AT_FDCWD, "cached", old, 0) == 0);
	MOVES("cached_read", "cached", pread(fd, buf, 10, 0));
	NEED(symlink("f", "s") == 0);
	NEED(utimensat(AT_FDCWD, "s", old, AT_SYMLINK_NOFOLLOW) == 0);
	MOVES("readlink", "s", readlink("s", buf, 10));
	make_dir(p, "d", 0755, 0, 0);
	make(p, "d/x", "x");
	NEED(utimensat(AT_FDCWD, "d", old, 0) == 0);
	{
		char big[4096];
		int d = open_file(p, "d", O_RDONLY | O_DIRECTORY);

		MOVES("getdents", "d", syscall(SYS_getdents64, d, big, sizeof(big)));
	}
}

static void times_dir_calls(struct probe *p)
{
	make_dir(p, "other", 0755, 0, 0);
	make(p, "f", "f");
	make(p, "g", "g");
	make_dir(p, "d", 0755, 0, 0);
	MOVES("create", "f", close(open("new", O_CREAT | O_WRONLY, 0644)));
	MOVES("create_exists", "f", close(open("new", O_CREAT | O_WRONLY, 0644)));
	MOVES("mkdir", "d", mkdir("d/x", 0755));
	MOVES("rmdir", "d", rmdir("d/x"));
	MOVES("mknod", "d", mknod("d/p", S_IFIFO | 0644, 0));
	MOVES("symlink", "d", symlink("x", "d/s"));
	MOVES("unlink", "d", unlink("d/s"));
	MOVES("link", "f", link("f", "f2"));
	MOVES("unlink_link", "f", unlink("f2"));
	MOVES("rename", "f", rename("g", "h"));
	MOVES("rename_of", "h", rename("h", "d/h") || rename("d/h", "h"));
	MOVES("rename_dirs", "d", rename("h", "other/h"));
	MOVES("rename_into", "other", rename("f", "other/f"));
	MOVES("rename_over", "other", rename("new", "other/f"));
	MOVES("rename_dir", "d", rename("d", "other/d") || rename("other/d", "d"));
	MOVES("failed_mkdir", "d", mkdir("d", 0755));
	MOVES("failed_unlink", "d", unlink("none"));
	MOVES("tmpfile", "d", close(open("d", O_TMPFILE | O_WRONLY, 0600)));
	make(p, "a", "a");
	tick(); /* two files with times of their own: the name leads to the other afterwards */
	make(p, "b", "b");
	MOVES("exchange", "a", syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
	MOVES("chmod_dir", "d", chmod("d", 0700));
	MOVES("setxattr_dir", "d", setxattr("d", "user.x", "1", 1, 0));
	{
		const struct statx a = look(p, "a"), d = look(p, ".");

		/* A new file's times are one moment. */
		tick();
		make(p, "fresh", "");
		SEE("fresh", "%d%d%d", moved(look(p, "fresh").stx_mtime, look(p, "fresh").stx_ctime), moved(look(p, "fresh").stx_atime, look(p, "fresh").stx_mtime),
		    moved(look(p, "fresh").stx_btime, look(p, "fresh").stx_mtime));
		SEE("fresh_later", "%d%d", moved(a.stx_mtime, look(p, "fresh").stx_mtime), moved(d.stx_mtime, look(p, ".").stx_mtime));
	}
}

static void times_copy(struct probe *p)
{
	off_t in = 0, out = 0;
	int a, b;

	make(p, "a", "0123456789");
	make(p, "b", "x");
	a = open_file(p, "a", O_RDONLY);
	b = open_file(p, "b", O_RDWR);
	MOVES("to", "b", copy_file_range(a, &in, b, &out, 10, 0));
}

static void set_time(struct probe *p, const char *key, int64_t sec, long nsec)
{
	const struct timespec ts[2] = { { .tv_sec = sec, .tv_nsec = nsec }, { .tv_sec = sec, .tv_nsec = nsec } };
	struct stat st;

	if (TRY(key, utimensat(AT_FDCWD, "f", ts, 0)) < 0)
		return;
	NEED(stat("f", &st) == 0);
	SEE(key, "%lld.%09ld:%lld.%09ld", (long long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void times_range(struct probe *p)
{
	make(p, "f", "f");
	set_time(p, "zero", 0, 0);
	set_time(p, "one_ns", 0, 1);
	set_time(p, "before_1970", -1, 999999999);
	set_time(p, "year_1902", -2145916800, 123456789);
	set_time(p, "year_2038", 2147483648, 1);
	set_time(p, "year_2106", 4294967296, 999999999);
	set_time(p, "year_2200", 7258118400, 5);
	set_time(p, "bad_ns", 0, 1000000000);
	set_time(p, "negative_ns", 0, -1);
	set_time(p, "year_3000", 32503680000, 0);
	set_time(p, "year_1600", -11676096000, 0);
}

static void times_birth(struct probe *p)
{
	const struct timespec ts[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	struct statx a, b;

	make(p, "f", "f");
	a = look(p, "f");
	SEE("mask", "%x", a.stx_mask & STATX_BTIME);
	tick();
	NEED(utimensat(AT_FDCWD, "f", ts, 0) == 0 && chmod("f", 0600) == 0 && rename("f", "g") == 0 && truncate("g", 0) == 0);
	b = look(p, "g");
	SEE("moved", "%d", moved(a.stx_btime, b.stx_btime));
	tick();
	make_dir(p, "d", 0755, 0, 0);
	SEE("dir_later", "%d", look(p, "d").stx_btime.tv_sec > a.stx_btime.tv_sec || look(p, "d").stx_btime.tv_nsec != a.stx_btime.tv_nsec);
}

static void times_rights(struct probe *p)
{
	const struct timespec set[2] = { { .tv_sec = 5 }, { .tv_sec = 5 } }, now[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_NOW } };
	const struct timespec half[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } }, omit[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };

	make_mode(p, "own", 0400, USER_ID, USER_ID);
	make_mode(p, "writable", 0666, 0, 0);
	make_mode(p, "readable", 0644, 0, 0);
	NEED(symlink("own", "s") == 0);
	AS(USER) {
		TRY("own_set", utimensat(AT_FDCWD, "own", set, 0));
		TRY("own_now", utimensat(AT_FDCWD, "own", now, 0));
		TRY("own_null", utimensat(AT_FDCWD, "own", NULL, 0));
		TRY("writable_set", utimensat(AT_FDCWD, "writable", set, 0));
		TRY("writable_now", utimensat(AT_FDCWD, "writable", now, 0));
		TRY("writable_null", utimensat(AT_FDCWD, "writable", NULL, 0));
		TRY("writable_half", utimensat(AT_FDCWD, "writable", half, 0));
		TRY("writable_omit", utimensat(AT_FDCWD, "writable", omit, 0));
		TRY("readable_set", utimensat(AT_FDCWD, "readable", set, 0));
		TRY("readable_now", utimensat(AT_FDCWD, "readable", now, 0));
		TRY("readable_null", utimensat(AT_FDCWD, "readable", NULL, 0));
		TRY("readable_omit", utimensat(AT_FDCWD, "readable", omit, 0));
		TRY("link_nofollow", utimensat(AT_FDCWD, "s", set, AT_SYMLINK_NOFOLLOW));
		TRY("link_follow", utimensat(AT_FDCWD, "s", set, 0));
	}
	SEE("own", "%lld", (long long)stat_of(p, "own").st_mtim.tv_sec);
}

const struct probe_case time_cases[] = {
	{ "times_file_calls", times_file_calls, "" },
	{ "times_atime", times_atime, "" },
	{ "times_dir_calls", times_dir_calls, "" },
	{ "times_copy", times_copy, "" },
	{ "times_range", times_range, "" },
	{ "times_birth", times_birth, "" },
	{ "times_rights", times_rights, "" },
	{ 0 },
};

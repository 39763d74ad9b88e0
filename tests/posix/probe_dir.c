/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listing directories that change meanwhile, kinds of files in them, link counts, and directories that are gone. */
#include "probe.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define BIG 3000

static void fill(struct probe *p, const char *dir, int nr)
{
	char name[64];

	for (int i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "%s/f%05d", dir, i);
		NEED(mknod(name, S_IFREG | 0644, 0) == 0);
	}
}

/* Which of the numbered names were given: counts, and how many twice. */
struct seen {
	uint8_t nr[BIG];
	unsigned other;
};

static bool note(struct seen *s, const char *name)
{
	int i;

	if (sscanf(name, "f%d", &i) == 1 && i < BIG) {
		s->nr[i]++;
		return true;
	}
	s->other++;
	return false;
}

static void see_seen(struct probe *p, const char *key, const struct seen *s, int from, int to)
{
	unsigned once = 0, twice = 0, never = 0;

	for (int i = from; i < to; i++)
		if (s->nr[i] == 1)
			once++;
		else if (s->nr[i])
			twice++;
		else
			never++;
	SEE(key, "%u:%u:%u", once, twice, never);
}

static unsigned list_rest(DIR *d, struct seen *s)
{
	struct dirent *e;
	unsigned nr = 0;

	while ((e = readdir(d))) {
		note(s, e->d_name);
		nr++;
	}
	return nr;
}

static void dir_big(struct probe *p)
{
	struct seen s = { 0 };
	DIR *d;

	make_dir(p, "d", 0755, 0, 0);
	fill(p, "d", BIG);
	d = opendir("d");
	NEED(d);
	SEE("entries", "%u", list_rest(d, &s));
	see_seen(p, "all", &s, 0, BIG);
	memset(&s, 0, sizeof(s));
	rewinddir(d);
	SEE("rewound", "%u", list_rest(d, &s));
	see_seen(p, "all_again", &s, 0, BIG);
	TRY("new", mknod("d/new", S_IFREG | 0644, 0));
	rewinddir(d);
	SEE("with_new", "%u", list_rest(d, &s));
}

/* The place told after k entries leads to the (k+1)th, whatever comes and goes before and behind. */
static void dir_seek(struct probe *p)
{
	struct seen before = { 0 }, after = { 0 };
	char name[64], next[64] = "";
	struct dirent *e;
	long place;
	DIR *d;

	make_dir(p, "d", 0755, 0, 0);
	fill(p, "d", BIG);
	d = opendir("d");
	for (int i = 0; i < 1000; i++) {
		e = readdir(d);
		NEED(e);
		note(&before, e->d_name);
	}
	place = telldir(d);
	e = readdir(d);
	NEED(e);
	snprintf(next, sizeof(next), "%.60s", e->d_name);
	list_rest(d, &after);
	seekdir(d, place);
	e = readdir(d);
	SEE("back", "%d", e && !strcmp(e->d_name, next));
	/* Every second name goes but those seen just here; as many others come. */
	for (int i = 0; i < BIG; i += 2) {
		snprintf(name, sizeof(name), "d/f%05d", i);
		NEED(unlink(name) == 0);
		snprintf(name, sizeof(name), "d/g%05d", i);
		NEED(mknod(name, S_IFREG | 0644, 0) == 0);
	}
	memset(&after, 0, sizeof(after));
	seekdir(d, place);
	list_rest(d, &after);
	{
		unsigned both = 0, neither = 0;

		for (int i = 1; i < BIG; i += 2) {
			both += before.nr[i] && after.nr[i];
			neither += !before.nr[i] && !after.nr[i];
		}
		SEE("both_neither", "%u:%u", both, neither);
	}
	closedir(d);
}

/* The entry at which a stream stands is deleted, another stream lists everything; the first goes on. */
static void dir_two_streams(struct probe *p)
{
	struct seen a = { 0 }, b = { 0 };
	char name[300];
	unsigned missed = 0, twice = 0;
	int fd;
	DIR *d2;
	/* Small reads: the kernel's own stream stands where we think it does. */
	char buf[512];
	long n;

	make_dir(p, "d", 0755, 0, 0);
	fill(p, "d", BIG);
	fd = open_file(p, "d", O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < 60; i++) {
		char last[256] = "";

		n = syscall(SYS_getdents64, fd, buf, sizeof(buf));
		NEED(n > 0);
		for (long at = 0; at < n;) {
			struct dirent64 *de = (struct dirent64 *)(void *)(buf + at);

			note(&a, de->d_name);
			snprintf(last, sizeof(last), "%.255s", de->d_name);
			at += de->d_reclen;
		}
		if (i % 10 == 9 && last[0] == 'f') {
			snprintf(name, sizeof(name), "d/%s", last);
			NEED(unlink(name) == 0);
			d2 = opendir("d");
			memset(&b, 0, sizeof(b));
			list_rest(d2, &b);
			closedir(d2);
		}
	}
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			struct dirent64 *de = (struct dirent64 *)(void *)(buf + at);

			note(&a, de->d_name);
			at += de->d_reclen;
		}
	for (int i = 0; i < BIG; i++) {
		missed += !a.nr[i];
		twice += a.nr[i] > 1;
	}
	SEE("missed", "%u", missed);
	SEE("twice", "%u", twice);
}

/* What rm -r does: delete what was just listed, in one pass. */
static void dir_delete_while_listing(struct probe *p)
{
	char name[300];
	struct dirent *e;
	unsigned nr = 0;
	DIR *d, *d2;

	make_dir(p, "d", 0755, 0, 0);
	fill(p, "d", BIG);
	d = opendir("d");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "d/%s", e->d_name);
		NEED(unlink(name) == 0);
		if (++nr % 500 == 0) { /* somebody looks */
			d2 = opendir("d");
			while (readdir(d2))
				;
			closedir(d2);
		}
	}
	SEE("deleted", "%u", nr);
	TRY("rmdir", rmdir("d"));
}

static void dir_kinds(struct probe *p)
{
	static const struct { const char *name; mode_t mode; unsigned maj, min; } nodes[] = {
		{ "chr", S_IFCHR, 1, 3 }, { "blk", S_IFBLK, 7, 200 }, { "chr_big", S_IFCHR, 4095, 1048575 }, { "chr_0", S_IFCHR, 0, 0 },
		{ "chr_min", S_IFCHR, 259, 256 }, { "fifo", S_IFIFO, 0, 0 }, { "sock", S_IFSOCK, 0, 0 }, { "reg", S_IFREG, 0, 0 },
		{ "fifo_dev", S_IFIFO, 9, 9 },
	};
	struct dirent *e;
	char key[64];
	DIR *d;

	make_dir(p, "d", 0755, 0, 0);
	NEED(chdir("d") == 0);
	for (size_t i = 0; i < NR(nodes); i++) {
		TRY(nodes[i].name, mknod(nodes[i].name, nodes[i].mode | 0640, makedev(nodes[i].maj, nodes[i].min)));
		if (type_of(nodes[i].name) != '.') {
			struct stat st = stat_of(p, nodes[i].name);
			struct statx sx;

			snprintf(key, sizeof(key), "%s_stat", nodes[i].name);
			SEE(key, "%o:%u:%u:%lld", st.st_mode, major(st.st_rdev), minor(st.st_rdev), (long long)st.st_size);
			NEED(statx(AT_FDCWD, nodes[i].name, AT_SYMLINK_NOFOLLOW, STATX_ALL, &sx) == 0);
			snprintf(key, sizeof(key), "%s_statx", nodes[i].name);
			SEE(key, "%u:%u", sx.stx_rdev_major, sx.stx_rdev_minor);
		}
	}
	TRY("mknod_dir", mknod("x", S_IFDIR | 0755, 0));
	TRY("mknod_link", mknod("x", S_IFLNK | 0755, 0));
	NEED(symlink("x", "lnk") == 0);
	NEED(mkdir("dir", 0755) == 0);
	d = opendir(".");
	while ((e = readdir(d))) {
		snprintf(key, sizeof(key), "%.40s_d_type", e->d_name);
		SEE(key, "%d:%d", e->d_type, e->d_name[0] == '.' || e->d_ino == stat_of(p, e->d_name).st_ino);
	}
	TRY("open_fifo", open("fifo", O_WRONLY | O_NONBLOCK));
	TRY("open_sock", open("sock", O_RDONLY));
	TRY("open_null", open("chr", O_RDWR));
	AS(USER) {
		TRY("user_fifo", mknod("../ufifo", S_IFIFO | 0666, 0));
		TRY("user_chr", mknod("../uchr", S_IFCHR | 0666, makedev(1, 3)));
		TRY("user_whiteout", mknod("../uwh", S_IFCHR | 0666, makedev(0, 0)));
	}
}

static unsigned long links(struct probe *p, const char *path)
{
	return (unsigned long)stat_of(p, path).st_nlink;
}

static void dir_links(struct probe *p)
{
	struct stat st;

	make_dir(p, "d", 0755, 0, 0);
	SEE("empty", "%lu", links(p, "d"));
	make_dir(p, "d/a", 0755, 0, 0);
	make_dir(p, "d/b", 0755, 0, 0);
	make(p, "d/f", "f");
	NEED(symlink("a", "d/s") == 0);
	SEE("two", "%lu", links(p, "d"));
	NEED(rmdir("d/a") == 0);
	SEE("one", "%lu", links(p, "d"));
	TRY("not_empty", rmdir("d"));
	NEED(rmdir("d/b") == 0);
	SEE("none", "%lu", links(p, "d"));
	NEED(unlink("d/f") == 0 && unlink("d/s") == 0);
	NEED(stat("d/..", &st) == 0);
	SEE("dotdot", "%d", st.st_ino == stat_of(p, ".").st_ino);
	TRY("rmdir", rmdir("d"));
}

static void dir_gone(struct probe *p)
{
	char buf[PATH_MAX];
	struct stat st;
	DIR *d;
	unsigned nr = 0;

	make_dir(p, "d", 0755, 0, 0);
	make(p, "outside", "x");
	NEED(chdir("d") == 0);
	TRY("rmdir_dot", rmdir("."));
	TRY("rmdir", rmdir("../d"));
	NEED(stat(".", &st) == 0);
	SEE("nlink", "%lu", (unsigned long)st.st_nlink);
	TRY("getcwd", syscall(SYS_getcwd, buf, sizeof(buf)));
	TRY("create", open("x", O_CREAT | O_WRONLY, 0644));
	TRY("mkdir", mkdir("x", 0755));
	TRY("symlink", symlink("x", "y"));
	TRY("tmpfile", open(".", O_TMPFILE | O_RDWR, 0600));
	TRY("link_in", link("../outside", "x"));
	TRY("rename_in", rename("../outside", "x"));
	TRY("stat_dotdot", access("..", F_OK));
	TRY("chmod", chmod(".", 0700));
	TRY("lookup", access("x", F_OK));
	d = opendir(".");
	while (d && readdir(d))
		nr++;
	SEE("entries", "%u", nr);
	TRY("rmdir_again", rmdir("../d"));
	TRY("fsync", fsync(open(".", O_RDONLY)));
}

static void dir_reads(struct probe *p)
{
	char buf[4096];
	int fd;

	make_dir(p, "d", 0755, 0, 0);
	make(p, "f", "f");
	fd = open("d", O_RDONLY);
	TRY("read", read(fd, buf, 16));
	TRY("pread", pread(fd, buf, 16, 0));
	TRY("write", write(fd, buf, 16));
	TRY("truncate", truncate("d", 0));
	TRY("ftruncate", ftruncate(fd, 0));
	TRY("fallocate", fallocate(fd, 0, 0, 1));
	TRY("mmap", mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
	TRY("fsync", fsync(fd));
	TRY("fdatasync", fdatasync(fd));
	TRY("getdents_file", syscall(SYS_getdents64, open("f", O_RDONLY), buf, sizeof(buf)));
	TRY("getdents_small", syscall(SYS_getdents64, fd, buf, 8));
	TRY("getdents", syscall(SYS_getdents64, fd, buf, sizeof(buf)));
	TRY("exec", access("d", X_OK));
}

const struct probe_case dir_cases[] = {
	{ "dir_big", dir_big, "" },
	{ "dir_seek", dir_seek, "" },
	{ "dir_two_streams", dir_two_streams, "" },
	{ "dir_delete_while_listing", dir_delete_while_listing, "" },
	{ "dir_kinds", dir_kinds, "" },
	{ "dir_links", dir_links, "" },
	{ "dir_gone", dir_gone, "" },
	{ "dir_reads", dir_reads, "" },
	{ 0 },
};

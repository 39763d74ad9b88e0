/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hard links, and files that get their first name late or lose their last one early. */
#include "probe.h"

#define MANY 2000

static int link_fd(int fd, const char *to)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
}

static unsigned long nlink_of_fd(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 999999 : st.st_nlink;
}

static void link_kinds(struct probe *p)
{
	make(p, "f", "f");
	make_dir(p, "d", 0755, 0, 0);
	NEED(symlink("f", "s") == 0);
	NEED(mkfifo("p", 0644) == 0);
	TRY("file", link("f", "f2"));
	SEE("same", "%d:%lu", stat_of(p, "f").st_ino == stat_of(p, "f2").st_ino, (unsigned long)stat_of(p, "f2").st_nlink);
	TRY("dir", link("d", "d2"));
	TRY("symlink", linkat(AT_FDCWD, "s", AT_FDCWD, "s2", 0));
	SEE("symlink_type", "%c:%lu", type_of("s2"), (unsigned long)stat_of(p, "s").st_nlink);
	TRY("followed", linkat(AT_FDCWD, "s", AT_FDCWD, "s3", AT_SYMLINK_FOLLOW));
	SEE("followed_type", "%c:%lu", type_of("s3"), (unsigned long)stat_of(p, "f").st_nlink);
	TRY("fifo", link("p", "p2"));
	TRY("exists", link("f", "f2"));
	TRY("over_dir", link("f", "d"));
	TRY("missing", link("none", "x"));
	TRY("into_missing", link("f", "none/x"));
	TRY("through_file", link("f", "f2/x"));
	TRY("slash", link("f/", "x"));
	TRY("bad_flags", linkat(AT_FDCWD, "f", AT_FDCWD, "x", 0x8));
	TRY("unlink", unlink("f"));
	SEE("left", "%lu", (unsigned long)stat_of(p, "f2").st_nlink);
	TRY("unlink2", unlink("f2"));
	see_content(p, "content", "s3");
}

static void link_many(struct probe *p)
{
	char name[32];
	int made = 0;

	make(p, "f", "f");
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		if (link("f", name) < 0)
			break;
		made++;
	}
	SEE("made", "%d:%lu", made, (unsigned long)stat_of(p, "f").st_nlink);
	for (int i = 0; i < made; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		NEED(unlink(name) == 0);
	}
	SEE("left", "%lu", (unsigned long)stat_of(p, "f").st_nlink);
}

static void link_tmpfile(struct probe *p)
{
	char buf[16] = { 0 };
	struct stat st;
	int fd;

	make(p, "exists", "x");
	umask(027);
	fd = (int)TRY("open", open(".", O_TMPFILE | O_RDWR, 0666));
	NEED(fd >= 0);
	NEED(fstat(fd, &st) == 0);
	SEE("mode", "%o:%lu:%lld", st.st_mode, (unsigned long)st.st_nlink, (long long)st.st_size);
	SEE("write", "%zd", write(fd, "hello", 5));
	TRY("link_exists", link_fd(fd, "exists"));
	TRY("link", link_fd(fd, "named"));
	SEE("nlink", "%lu", nlink_of_fd(fd));
	see_content(p, "content", "named");
	see_mode(p, "named_mode", "named");
	TRY("link_again", link_fd(fd, "named2"));
	SEE("nlink2", "%lu", nlink_of_fd(fd));
	NEED(unlink("named") == 0 && unlink("named2") == 0);
	SEE("nlink0", "%lu", nlink_of_fd(fd));
	TRY("link_after_unlink", link_fd(fd, "back"));
	SEE("read", "%zd:%s", pread(fd, buf, 15, 0), buf);
	close(fd);
	fd = (int)TRY("exclusive", open(".", O_TMPFILE | O_RDWR | O_EXCL, 0644));
	TRY("link_exclusive", link_fd(fd, "never"));
	close(fd);
	fd = open(".", O_TMPFILE | O_WRONLY, 0600);
	TRY("empty_path", linkat(fd, "", AT_FDCWD, "by-fd", AT_EMPTY_PATH));
	SEE("by_fd", "%c", type_of("by-fd"));
	TRY("read_only", open(".", O_TMPFILE | O_RDONLY, 0600));
	TRY("in_file", open("exists", O_TMPFILE | O_RDWR, 0600));
	TRY("in_missing", open("none", O_TMPFILE | O_RDWR, 0600));
	make_dir(p, "shut", 0755, 0, 0);
	make_dir(p, "setgid", 02777, 0, GROUP_ID);
	AS(USER) {
		TRY("user_shut", open("shut", O_TMPFILE | O_RDWR, 0600));
		fd = (int)TRY("user", open("setgid", O_TMPFILE | O_RDWR, 02755));
		NEED(fstat(fd, &st) == 0);
		SEE("user_owner", "%u:%u:%o", st.st_uid, st.st_gid, st.st_mode & 07777);
		TRY("user_link", link_fd(fd, "setgid/mine"));
		TRY("user_empty_path", linkat(fd, "", AT_FDCWD, "setgid/mine2", AT_EMPTY_PATH));
	}
}

static void link_unlinked_open(struct probe *p)
{
	char buf[32] = { 0 };
	struct stat st;
	int fd, fd2;

	make(p, "f", "before");
	fd = open_file(p, "f", O_RDWR);
	TRY("unlink", unlink("f"));
	SEE("nlink", "%lu", nlink_of_fd(fd));
	SEE("read", "%zd:%s", pread(fd, buf, 31, 0), buf);
	SEE("write", "%zd", pwrite(fd, "AFTER", 5, 6));
	TRY("truncate", ftruncate(fd, 8));
	TRY("chmod", fchmod(fd, 0600));
	TRY("fsync", fsync(fd));
	memset(buf, 0, sizeof(buf));
	SEE("read2", "%zd:%s", pread(fd, buf, 31, 0), buf);
	TRY("link", link_fd(fd, "back"));
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
	fd2 = (int)TRY("reopen", open(buf, O_RDWR));
	SEE("write2", "%zd", pwrite(fd2, "x", 1, 0));
	memset(buf, 0, sizeof(buf));
	SEE("read3", "%zd:%s", pread(fd, buf, 31, 0), buf);
	NEED(fstat(fd2, &st) == 0);
	SEE("stat", "%o:%lld:%lu", st.st_mode, (long long)st.st_size, (unsigned long)st.st_nlink);
	make(p, "f", "new");
	NEED(fstat(fd, &st) == 0);
	SEE("other_inode", "%d", st.st_ino != stat_of(p, "f").st_ino);
}

static void link_rights(struct probe *p)
{
	make_dir(p, "shut", 0755, 0, 0);
	make_mode(p, "mine", 0644, USER_ID, USER_ID);
	make_mode(p, "roots", 0666, 0, 0);
	AS(USER) {
		TRY("own", link("mine", "mine2"));
		TRY("into_shut", link("mine", "shut/x"));
		TRY("unlink_other", unlink("roots")); /* the directory is everybody's */
	}
}

const struct probe_case link_cases[] = {
	{ "link_kinds", link_kinds, "" },
	{ "link_many", link_many, "" },
	{ "link_tmpfile", link_tmpfile, "" },
	{ "link_unlinked_open", link_unlinked_open, "" },
	{ "link_rights", link_rights, "" },
	{ 0 },
};

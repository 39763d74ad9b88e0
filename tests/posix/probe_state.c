/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* States of the whole filesystem: read-only, full, mounted without access times. Whoever runs these sets brings the state about. */
#include "probe.h"

#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

/* In set "prepare": files that the later sets look at. */
static void state_read_only_prepare(struct probe *p)
{
	make_dir(p, "../state_read_only", 0777, 0, 0); /* later it cannot be made */
	make(p, "f", "content");
	make_dir(p, "d", 0755, 0, 0);
	make_mode(p, "user", 0644, USER_ID, USER_ID);
	NEED(symlink("f", "s") == 0 && mkfifo("p", 0644) == 0);
	NEED(setxattr("f", "user.x", "1", 1, 0) == 0);
}

static void state_read_only(struct probe *p)
{
	char buf[8] = { 0 };
	int fd;

	NEED(chdir("../state_read_only_prepare") == 0);
	fd = (int)TRY("open_read", open("f", O_RDONLY));
	SEE("read", "%zd:%.7s", pread(fd, buf, 7, 0), buf);
	TRY("fsync", fsync(fd));
	TRY("fdatasync", fdatasync(fd));
	TRY("fsync_dir", fsync(open(".", O_RDONLY)));
	TRY("open_write", open("f", O_WRONLY));
	TRY("open_trunc", open("f", O_RDONLY | O_TRUNC));
	TRY("create", open("new", O_CREAT | O_WRONLY, 0644));
	TRY("create_exists", open("f", O_CREAT | O_RDONLY, 0644));
	TRY("excl_exists", open("f", O_CREAT | O_EXCL | O_RDONLY, 0644));
	TRY("tmpfile", open(".", O_TMPFILE | O_RDWR, 0600));
	TRY("mkdir", mkdir("new", 0755));
	TRY("mkdir_exists", mkdir("d", 0755));
	TRY("unlink", unlink("f"));
	TRY("unlink_missing", unlink("none"));
	TRY("rmdir", rmdir("d"));
	TRY("rename", rename("f", "g"));
	TRY("link", link("f", "g"));
	TRY("symlink", symlink("f", "g"));
	TRY("mknod", mknod("g", S_IFIFO | 0644, 0));
	TRY("chmod", chmod("f", 0600));
	TRY("chown", chown("f", 1, 1));
	TRY("truncate", truncate("f", 0));
	TRY("utimens", utimensat(AT_FDCWD, "f", NULL, 0));
	TRY("setxattr", setxattr("f", "user.x", "2", 1, 0));
	TRY("removexattr", removexattr("f", "user.x"));
	TRY("getxattr", getxattr("f", "user.x", buf, 8));
	TRY("access_write", access("f", W_OK));
	TRY("open_fifo", open("p", O_RDWR));
	TRY("readlink", readlink("s", buf, 8));
	AS(USER) {
		TRY("user_write_other", open("f", O_WRONLY));
		TRY("user_write_own", open("user", O_WRONLY));
	}
}

static void state_noatime(struct probe *p)
{
	static const struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
	char buf[4096];
	int fd;

	make_bytes(p, "f", 'x', 300000);
	make_dir(p, "d", 0755, 0, 0);
	make(p, "d/x", "x");
	NEED(symlink("f", "s") == 0);
	drop_pages(p, "f");
	NEED(utimensat(AT_FDCWD, "f", old, 0) == 0 && utimensat(AT_FDCWD, "d", old, 0) == 0 && utimensat(AT_FDCWD, "s", old, AT_SYMLINK_NOFOLLOW) == 0);
	fd = open_file(p, "f", O_RDONLY);
	NEED(pread(fd, buf, 1, 200000) == 1);
	SEE("file", "%lld", (long long)stat_of(p, "f").st_atim.tv_sec);
	NEED(syscall(SYS_getdents64, open_file(p, "d", O_RDONLY | O_DIRECTORY), buf, sizeof(buf)) > 0);
	SEE("dir", "%lld", (long long)stat_of(p, "d").st_atim.tv_sec);
	NEED(readlink("s", buf, sizeof(buf)) == 1);
	SEE("link", "%lld", (long long)stat_of(p, "s").st_atim.tv_sec);
}

/* Until nothing more fits; what is there stays readable, room comes back, overwriting what is allocated goes on. */
static void state_full(struct probe *p)
{
	static char buf[1 << 20];
	struct statfs st;
	off_t written = 0;
	int fd, reserved, err = 0;
	ssize_t n = 0;

	reserved = open_file(p, "reserved", O_RDWR | O_CREAT);
	TRY("reserve", fallocate(reserved, 0, 0, 4 << 20));
	fd = open_file(p, "fill", O_RDWR | O_CREAT);
	for (size_t i = 0; i < sizeof(buf); i += 8)
		*(uint64_t *)(void *)(buf + i) = (uint64_t)random() * 0x9e3779b97f4a7c15ull;
	for (int i = 0; i < 2000; i++) {
		n = write(fd, buf, sizeof(buf));
		err = n < 0 ? errno : 0;
		if (n > 0)
			written += n;
		if (n <= 0 || fsync(fd) < 0)
			break;
	}
	SEE("full", "%s", probe_errno(err));
	TRY("fallocate_too_much", fallocate(fd, 0, written, 1 << 30));
	SEE("some", "%d", written > 8 << 20);
	SEE("reserved_writes", "%zd", pwrite(reserved, buf, sizeof(buf), 1 << 20));
	TRY("reserved_synced", fsync(reserved));
	{
		off_t right = 0;
		static char back[1 << 20];

		for (off_t at = 0; at < written; at += n) {
			n = pread(fd, back, sizeof(back), at);
			if (n <= 0)
				break;
			right += memcmp(back, buf + at % (1 << 20), (size_t)n) == 0 ? n : 0;
		}
		SEE("content", "%d", right == written);
	}
	TRY("truncate", ftruncate(fd, 0));
	TRY("unlink", unlink("fill"));
	close(fd);
	for (int i = 0; i < 1000; i++) {
		NEED(statfs(".", &st) == 0);
		if ((off_t)st.f_bavail * st.f_bsize > written / 2)
			break;
		tick();
	}
	SEE("came_back", "%d", (off_t)st.f_bavail * st.f_bsize > written / 2);
	fd = open_file(p, "again", O_RDWR | O_CREAT);
	SEE("again", "%zd", write(fd, buf, sizeof(buf)));
	TRY("again_synced", fsync(fd));
}

const struct probe_case state_cases[] = {
	{ "state_read_only_prepare", state_read_only_prepare, "prepare" },
	{ "state_read_only", state_read_only, "ro" },
	{ "state_noatime", state_noatime, "noatime" },
	{ "state_full", state_full, "full" },
	{ 0 },
};

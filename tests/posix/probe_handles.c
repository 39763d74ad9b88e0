/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles: names for inodes that outlive caches, and die with the inode. */
#include "probe.h"

struct handle {
	struct file_handle head;
	unsigned char bytes[MAX_HANDLE_SZ];
};

static int get(const char *path, struct handle *h, int flags)
{
	int mount_id;

	h->head.handle_bytes = MAX_HANDLE_SZ;
	return name_to_handle_at(AT_FDCWD, path, &h->head, &mount_id, flags);
}

/* Unused dentries and inodes go: the filesystem must find the file by its number. */
static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd >= 0) {
		(void)!write(fd, "2", 1);
		close(fd);
	}
}

static void handle_open(struct probe *p)
{
	struct handle file, dir, link, deep, fifo, gone;
	struct stat st;
	char buf[16] = { 0 };
	int mnt, fd;

	make(p, "f", "content");
	make_dir(p, "d", 0755, 0, 0);
	make_dir(p, "d/e", 0755, 0, 0);
	make(p, "d/e/deep", "deep");
	NEED(symlink("f", "s") == 0 && mkfifo("p", 0644) == 0);
	mnt = open_file(p, ".", O_RDONLY | O_DIRECTORY);
	TRY("file", get("f", &file, 0));
	TRY("dir", get("d", &dir, 0));
	TRY("link", get("s", &link, 0));
	TRY("deep", get("d/e/deep", &deep, 0));
	TRY("fifo", get("p", &fifo, 0));
	TRY("missing", get("none", &gone, 0));
	gone.head.handle_bytes = 0;
	TRY("small", name_to_handle_at(AT_FDCWD, "f", &gone.head, &(int){ 0 }, 0));
	for (int dropped = 0; dropped < 2; dropped++) {
		snprintf(p->scope, sizeof(p->scope), dropped ? "dropped" : "cached");
		fd = (int)TRY("open_file", open_by_handle_at(mnt, &file.head, O_RDWR));
		SEE("read", "%zd:%.7s", pread(fd, buf, 7, 0), buf);
		close(fd);
		fd = (int)TRY("open_dir", open_by_handle_at(mnt, &dir.head, O_RDONLY | O_DIRECTORY));
		TRY("through_dir", faccessat(fd, "e/deep", F_OK, 0));
		NEED(fd < 0 || fstatat(fd, "..", &st, 0) == 0);
		SEE("dotdot", "%d", fd >= 0 && st.st_ino == stat_of(p, ".").st_ino);
		close(fd);
		fd = (int)TRY("open_deep", open_by_handle_at(mnt, &deep.head, O_RDONLY));
		SEE("read_deep", "%zd:%.4s", pread(fd, buf, 4, 0), buf);
		close(fd);
		fd = (int)TRY("open_link", open_by_handle_at(mnt, &link.head, O_PATH | O_NOFOLLOW));
		SEE("readlink", "%zd", readlinkat(fd, "", buf, sizeof(buf)));
		close(fd);
		fd = (int)TRY("open_fifo", open_by_handle_at(mnt, &fifo.head, O_RDWR | O_NONBLOCK));
		close(fd);
		drop_caches();
	}
	p->scope[0] = 0;
	NEED(rename("f", "d/renamed") == 0);
	drop_caches();
	fd = (int)TRY("renamed", open_by_handle_at(mnt, &file.head, O_RDONLY));
	close(fd);
	NEED(unlink("d/renamed") == 0 && unlink("d/e/deep") == 0 && rmdir("d/e") == 0 && rmdir("d") == 0);
	drop_caches();
	TRY("gone", open_by_handle_at(mnt, &file.head, O_RDONLY));
	TRY("gone_deep", open_by_handle_at(mnt, &deep.head, O_RDONLY));
	TRY("gone_dir", open_by_handle_at(mnt, &dir.head, O_RDONLY));
	make(p, "f", "another");
	TRY("still_gone", open_by_handle_at(mnt, &file.head, O_RDONLY));
	memset(file.head.f_handle, 0x7e, file.head.handle_bytes);
	TRY("nonsense", open_by_handle_at(mnt, &file.head, O_RDONLY) < 0 && errno == ESTALE ? 0 : -1);
	TRY("bad_mount", open_by_handle_at(-1, &link.head, O_PATH));
	AS(USER) {
		TRY("user_get", get("s", &file, 0));
		TRY("user_open", open_by_handle_at(mnt, &link.head, O_PATH));
	}
}

/* Unlinked but open: the handle works as long as somebody holds the file. */
static void handle_unlinked(struct probe *p)
{
	struct handle h;
	char buf[16] = { 0 };
	struct stat st;
	int mnt, fd, fd2;

	make(p, "f", "content");
	NEED(get("f", &h, 0) == 0);
	mnt = open_file(p, ".", O_RDONLY | O_DIRECTORY);
	fd = open_file(p, "f", O_RDWR);
	NEED(unlink("f") == 0);
	drop_caches();
	fd2 = (int)TRY("open", open_by_handle_at(mnt, &h.head, O_RDONLY));
	SEE("read", "%zd:%.7s", pread(fd2, buf, 7, 0), buf);
	NEED(fd2 < 0 || fstat(fd2, &st) == 0);
	SEE("nlink", "%d", fd2 < 0 ? -1 : (int)st.st_nlink);
	close(fd2);
	close(fd);
	drop_caches();
	for (int i = 0; i < 100; i++) {
		fd2 = open_by_handle_at(mnt, &h.head, O_RDONLY);
		if (fd2 < 0)
			break;
		close(fd2);
		drop_caches();
		tick();
	}
	TRY("after_close", fd2);
}

/* In two runs, with the filesystem unmounted between them: what a server of NFS keeps while it is restarted. */
static void handle_saved_make(struct probe *p)
{
	struct handle h[2];
	int fd;

	make_dir(p, "../handle_saved_open", 0777, 0, 0);
	make(p, "kept", "saved");
	make(p, "gone", "gone");
	NEED(get("kept", &h[0], 0) == 0 && get("gone", &h[1], 0) == 0);
	NEED(unlink("gone") == 0);
	fd = open_file(p, "handles", O_WRONLY | O_CREAT);
	NEED(write(fd, h, sizeof(h)) == sizeof(h));
}

static void handle_saved_open(struct probe *p)
{
	char buf[16] = { 0 };
	struct handle h[2];
	int fd, mnt = open_file(p, ".", O_RDONLY | O_DIRECTORY);

	NEED(read(open("../handle_saved_make/handles", O_RDONLY), h, sizeof(h)) == sizeof(h));
	fd = (int)TRY("open", open_by_handle_at(mnt, &h[0].head, O_RDONLY));
	SEE("read", "%zd:%.5s", pread(fd, buf, 5, 0), buf);
	TRY("gone", open_by_handle_at(mnt, &h[1].head, O_RDONLY));
}

const struct probe_case handle_cases[] = {
	{ "handle_open", handle_open, "" },
	{ "handle_unlinked", handle_unlinked, "" },
	{ "handle_saved_make", handle_saved_make, "handle-make" },
	{ "handle_saved_open", handle_saved_open, "handle-open" },
	{ 0 },
};

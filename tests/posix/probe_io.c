/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading and writing: appending, syncing, per-call flags, vectors. */
#include "probe.h"

#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static void io_append(struct probe *p)
{
	char buf[64] = { 0 };
	int fd = open_file(p, "f", O_RDWR | O_CREAT | O_APPEND), plain, status;

	NEED(write(fd, "one", 3) == 3);
	SEE("pwrite", "%zd", pwrite(fd, "two", 3, 0)); /* Linux appends all the same */
	see_content(p, "pwritten", "f");
	lseek(fd, 0, SEEK_SET);
	SEE("write_after_seek", "%zd:%lld", write(fd, "three", 5), (long long)lseek(fd, 0, SEEK_CUR));
	plain = open_file(p, "f", O_RDWR);
	NEED(pwrite(plain, "four", 4, 20) == 4);
	NEED(write(fd, "five", 4) == 4);
	SEE("after_hole", "%zd", pread(plain, buf, 63, 0));
	see_content(p, "content", "f");
	NEED(fcntl(plain, F_SETFL, O_APPEND) == 0);
	SEE("set_later", "%zd", pwrite(plain, "six", 3, 0));
	see_content(p, "content2", "f");
	/* Two writers: nothing is lost. */
	make(p, "two", "");
	for (int child = 0; child < 2; child++)
		if (fork() == 0) {
			int a = open("two", O_WRONLY | O_APPEND);
			char line[16];

			memset(line, 'a' + child, sizeof(line));
			for (int i = 0; i < 500; i++)
				if (write(a, line, sizeof(line)) != sizeof(line))
					_exit(1);
			_exit(0);
		}
	for (int child = 0; child < 2; child++) {
		NEED(wait(&status) > 0);
		SEE("writer", "%d", status);
	}
	{
		static char all[20000];
		int a = open_file(p, "two", O_RDONLY), torn = 0, of[2] = { 0, 0 };
		ssize_t n = read(a, all, sizeof(all));

		for (ssize_t i = 0; i + 16 <= n; i += 16) {
			for (int j = 1; j < 16; j++)
				torn += all[i + j] != all[i];
			of[all[i] == 'b']++;
		}
		SEE("two_writers", "%zd:%d:%d:%d", n, torn, of[0], of[1]);
	}
}

static void io_sync(struct probe *p)
{
	int fd;

	TRY("o_sync", write(open_file(p, "a", O_WRONLY | O_CREAT | O_SYNC), "x", 1));
	TRY("o_dsync", write(open_file(p, "b", O_WRONLY | O_CREAT | O_DSYNC), "x", 1));
	fd = open_file(p, "c", O_RDWR | O_CREAT);
	NEED(write(fd, "x", 1) == 1);
	TRY("fsync", fsync(fd));
	TRY("fdatasync", fdatasync(fd));
	TRY("sync_file_range", sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
	TRY("syncfs", syncfs(fd));
	TRY("fsync_read_only_fd", fsync(open("c", O_RDONLY)));
	TRY("fsync_dir", fsync(open(".", O_RDONLY | O_DIRECTORY)));
	TRY("fsync_path", fsync(open("c", O_PATH)));
	NEED(mkfifo("p", 0644) == 0);
	TRY("fsync_fifo", fsync(open("p", O_RDWR)));
	TRY("fsync_bad", fsync(-1));
	TRY("fadvise", (errno = posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED)) ? -1 : 0);
	TRY("readahead", readahead(fd, 0, 4096));
}

static void io_flags(struct probe *p)
{
	char buf[16] = { 0 };
	const struct iovec iov = { "abc", 3 }, in = { buf, 8 };
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	NEED(write(fd, "0123456789", 10) == 10);
	SEE("plain", "%zd", pwritev2(fd, &iov, 1, 2, 0));
	SEE("append", "%zd", pwritev2(fd, &iov, 1, 0, RWF_APPEND));
	see_content(p, "appended", "f");
	SEE("sync", "%zd", pwritev2(fd, &iov, 1, 0, RWF_SYNC));
	SEE("dsync", "%zd", pwritev2(fd, &iov, 1, 0, RWF_DSYNC));
	SEE("hipri", "%zd", pwritev2(fd, &iov, 1, 0, RWF_HIPRI));
	TRY("unknown", pwritev2(fd, &iov, 1, 0, 0x40000000));
	SEE("read", "%zd:%.8s", preadv2(fd, &in, 1, 0, 0), buf);
	TRY("read_nowait", preadv2(fd, &in, 1, 0, RWF_NOWAIT));
	TRY("write_nowait", pwritev2(fd, &iov, 1, 0, RWF_NOWAIT));
	lseek(fd, 4, SEEK_SET);
	SEE("current", "%zd:%lld", pwritev2(fd, &iov, 1, -1, 0), (long long)lseek(fd, 0, SEEK_CUR));
	see_content(p, "content", "f");
}

static void *volatile nowhere = (void *)16; /* no address of ours */

static void io_vectors(struct probe *p)
{
	static struct iovec many[IOV_MAX + 1];

	char a[5] = "", b[7] = "", buf[64] = { 0 };
	const struct iovec out[] = { { "one", 3 }, { "", 0 }, { "twotwo", 6 } }, in[] = { { a, 4 }, { b, 6 } };
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	SEE("writev", "%zd", writev(fd, out, 3));
	SEE("pwritev", "%zd", pwritev(fd, out, 3, 5000));
	SEE("preadv", "%zd:%s:%s", preadv(fd, in, 2, 0), a, b);
	TRY("too_many", writev(fd, many, IOV_MAX + 1));
	TRY("none", writev(fd, out, 0));
	TRY("fault", write(fd, nowhere, 10));
	TRY("read_fault", pread(fd, nowhere, 10, 0));
	TRY("read_of_write_only", pread(open("f", O_WRONLY), buf, 1, 0));
	TRY("write_of_read_only", pwrite(open("f", O_RDONLY), buf, 1, 0));
	TRY("path", read(open("f", O_PATH), buf, 1));
	TRY("closed", read(1000, buf, 1));
	see_content(p, "content", "f");
}

/* Sizes and places around blocks and pages, before and after a sync. */
static void io_overwrite(struct probe *p)
{
	static const struct { off_t at; size_t bytes; } writes[] = {
		{ 0, 1 }, { 4095, 2 }, { 100, 5000 }, { 8192, 4096 }, { 12287, 4098 }, { 65530, 20 }, { 131072, 65536 }, { 131071, 1 }, { 1000000, 7 }, { 3, 300000 },
		{ 1048570, 1000000 },
	};
	static char buf[1 << 20];
	int fd = open_file(p, "f", O_RDWR | O_CREAT);
	char key[32];

	for (size_t i = 0; i < NR(writes); i++) {
		memset(buf, 'A' + (int)i, writes[i].bytes);
		NEED(pwrite(fd, buf, writes[i].bytes, writes[i].at) == (ssize_t)writes[i].bytes);
		if (i % 3 == 2)
			NEED(fsync(fd) == 0);
		snprintf(key, sizeof(key), "after%zu", i);
		see_content(p, key, "f");
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	see_content(p, "dropped", "f");
}

static int aio(aio_context_t context, int fd, uint16_t opcode, void *data, size_t bytes, off_t at)
{
	struct iocb cb = { .aio_fildes = (uint32_t)fd, .aio_lio_opcode = opcode, .aio_buf = (uintptr_t)data, .aio_nbytes = bytes, .aio_offset = at }, *list = &cb;
	struct io_event event;

	if (syscall(SYS_io_submit, context, 1, &list) != 1 || syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
		return -errno;
	return (int)event.res;
}

/* Asynchronous and direct, beside what the page cache holds. */
static void io_aio(struct probe *p)
{
	static char page[4096] __attribute__((aligned(4096))), back[8192] __attribute__((aligned(4096)));
	aio_context_t context = 0;
	int fd, direct;

	NEED(syscall(SYS_io_setup, 4, &context) == 0);
	make_bytes(p, "f", 'x', 16384);
	fd = open_file(p, "f", O_RDWR);
	direct = open_file(p, "f", O_RDWR | O_DIRECT);
	NEED(pread(fd, back, 8192, 0) == 8192); /* cached from here on */
	memset(page, 'd', sizeof(page));
	SEE("write", "%d", aio(context, direct, IOCB_CMD_PWRITE, page, 4096, 4096));
	SEE("cache_sees", "%zd:%c%c", pread(fd, back, 8192, 0), back[4095], back[4096]);
	NEED(pwrite(fd, "cached", 6, 100) == 6);
	SEE("read_sees", "%d:%.6s", aio(context, direct, IOCB_CMD_PREAD, back, 4096, 0), back + 100);
	SEE("write_longer", "%d:%lld", aio(context, direct, IOCB_CMD_PWRITE, page, 4096, 16384), (long long)stat_of(p, "f").st_size);
	SEE("read_past", "%d", aio(context, direct, IOCB_CMD_PREAD, back, 8192, 16384));
	SEE("read_end", "%d", aio(context, direct, IOCB_CMD_PREAD, back, 4096, 20480));
	SEE("buffered", "%d", aio(context, fd, IOCB_CMD_PWRITE, page, 10, 5));
	SEE("fsync", "%d", aio(context, fd, IOCB_CMD_FSYNC, NULL, 0, 0));
	SEE("bad_fd", "%d", aio(context, -1, IOCB_CMD_PREAD, back, 10, 0));
	see_content(p, "content", "f");
}

const struct probe_case io_cases[] = {
	{ "io_append", io_append, "" },
	{ "io_sync", io_sync, "" },
	{ "io_flags", io_flags, "" },
	{ "io_vectors", io_vectors, "" },
	{ "io_overwrite", io_overwrite, "" },
	{ "io_aio", io_aio, "" },
	{ 0 },
};

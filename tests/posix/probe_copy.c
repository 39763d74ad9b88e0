/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy_file_range, sendfile and splice: what arrives, and that both sides are their own afterwards. */
#include "probe.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

#define BYTES 200000

static void make_pattern(struct probe *p, const char *path)
{
	static uint8_t buf[BYTES];
	int fd = open_file(p, path, O_WRONLY | O_CREAT | O_TRUNC);

	for (size_t i = 0; i < BYTES; i++)
		buf[i] = (uint8_t)(i * 7 + i / 256);
	NEED(write(fd, buf, BYTES) == BYTES);
	close(fd);
}

/* Until nothing more comes: how much did? A copy may stop early. */
static void copy(struct probe *p, const char *key, int in, off_t from, int out, off_t to, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = copy_file_range(in, &from, out, &to, bytes - done, 0);

		if (n < 0) {
			probe_try(p, key, -1);
			return;
		}
		if (!n)
			break;
		done += (size_t)n;
	}
	SEE(key, "%zu", done);
}

static void copy_ranges(struct probe *p)
{
	int a, b;

	make_pattern(p, "a");
	a = open_file(p, "a", O_RDWR);
	b = open_file(p, "b", O_RDWR | O_CREAT);
	copy(p, "all", a, 0, b, 0, BYTES);
	see_content(p, "all_b", "b");
	copy(p, "middle", a, 4096, b, 65536, 32768);
	see_content(p, "middle_b", "b");
	copy(p, "odd", a, 1, b, 100001, 33333);
	see_content(p, "odd_b", "b");
	copy(p, "past_end", a, BYTES - 100, b, 0, 1000);
	copy(p, "at_end", a, BYTES, b, 0, 1000);
	copy(p, "beyond_end", a, BYTES + 5000, b, 0, 1000);
	copy(p, "grow", a, 0, b, 300000, 50000);
	see_content(p, "grow_b", "b");
	/* Each side its own. */
	NEED(pwrite(b, "BBBB", 4, 5000) == 4 && pwrite(a, "AAAA", 4, 5000) == 4);
	see_content(p, "own_a", "a");
	see_content(p, "own_b", "b");
	NEED(ftruncate(a, 0) == 0);
	see_content(p, "source_gone_b", "b");
	/* A hole copied. */
	NEED(ftruncate(a, 1 << 20) == 0);
	copy(p, "hole", a, 0, b, 0, 100000);
	see_content(p, "hole_b", "b");
	/* Dirty and synced parts. */
	make_pattern(p, "c");
	{
		int c = open_file(p, "c", O_RDWR);

		NEED(fsync(c) == 0 && pwrite(c, "dirty", 5, 777) == 5);
		copy(p, "mixed", c, 0, b, 0, 1000);
		see_content(p, "mixed_b", "b");
		NEED(fsync(b) == 0);
		see_content(p, "mixed_b_synced", "b");
	}
}

static void copy_same_file(struct probe *p)
{
	off_t from = 0, to = 100;
	int fd;

	make_pattern(p, "f");
	fd = open_file(p, "f", O_RDWR);
	copy(p, "apart", fd, 0, fd, 100000, 50000);
	see_content(p, "apart_f", "f");
	TRY("overlap", copy_file_range(fd, &from, fd, &to, 1000, 0));
	to = 0;
	from = 100;
	TRY("overlap_down", copy_file_range(fd, &from, fd, &to, 1000, 0));
	from = to = 0;
	TRY("same", copy_file_range(fd, &from, fd, &to, 1000, 0));
	copy(p, "append", fd, 0, fd, BYTES, 5000);
	see_content(p, "append_f", "f");
}

static void copy_errors(struct probe *p)
{
	off_t from = 0, to = 0, huge = INT64_MAX - 10;
	int a, b, d, fifo;

	make_pattern(p, "a");
	make(p, "b", "b");
	make_dir(p, "d", 0755, 0, 0);
	NEED(mkfifo("p", 0644) == 0);
	a = open_file(p, "a", O_RDONLY);
	b = open_file(p, "b", O_RDWR);
	d = open_file(p, "d", O_RDONLY | O_DIRECTORY);
	fifo = open("p", O_RDWR);
	TRY("flags", copy_file_range(a, &from, b, &to, 10, 1));
	TRY("nothing", copy_file_range(a, &from, b, &to, 0, 0));
	TRY("to_read_only", copy_file_range(b, &from, a, &to, 10, 0));
	TRY("from_write_only", copy_file_range(open("b", O_WRONLY), &from, b, &to, 10, 0));
	TRY("dir", copy_file_range(d, &from, b, &to, 10, 0));
	TRY("fifo", copy_file_range(fifo, NULL, b, &to, 10, 0));
	TRY("append", copy_file_range(a, &from, open("b", O_WRONLY | O_APPEND), &to, 10, 0));
	from = 0;
	TRY("far", copy_file_range(a, &from, b, &huge, 100, 0));
	TRY("bad_fd", copy_file_range(-1, &from, b, &to, 10, 0));
	from = 5;
	to = 3;
	SEE("moves", "%zd:%lld:%lld", copy_file_range(a, &from, b, &to, 20, 0), (long long)from, (long long)to);
	lseek(a, 7, SEEK_SET);
	lseek(b, 9, SEEK_SET);
	SEE("moves_files", "%zd:%lld:%lld", copy_file_range(a, NULL, b, NULL, 20, 0), (long long)lseek(a, 0, SEEK_CUR), (long long)lseek(b, 0, SEEK_CUR));
}

static void copy_other_ways(struct probe *p)
{
	off_t off = 100;
	int a, b, fds[2];

	make_pattern(p, "a");
	a = open_file(p, "a", O_RDONLY);
	b = open_file(p, "b", O_RDWR | O_CREAT);
	SEE("sendfile", "%zd:%lld", sendfile(b, a, &off, 50000), (long long)off);
	see_content(p, "sendfile_b", "b");
	NEED(pipe(fds) == 0);
	off = 0;
	SEE("splice_in", "%zd", splice(a, &off, fds[1], NULL, 5000, 0));
	SEE("splice_out", "%zd", splice(fds[0], NULL, b, NULL, 5000, 0));
	see_content(p, "splice_b", "b");
}

static void copy_clone(struct probe *p)
{
	struct file_clone_range range = { 0 };
	int a, b;

	make_pattern(p, "a");
	a = open_file(p, "a", O_RDONLY);
	b = open_file(p, "b", O_RDWR | O_CREAT);
	range.src_fd = a;
	range.src_length = 4096;
	TRY("clone", ioctl(b, FICLONE, a));
	TRY("clone_range", ioctl(b, FICLONERANGE, &range));
}

const struct probe_case copy_cases[] = {
	{ "copy_ranges", copy_ranges, "" },
	{ "copy_same_file", copy_same_file, "" },
	{ "copy_errors", copy_errors, "" },
	{ "copy_other_ways", copy_other_ways, "" },
	{ "copy_clone", copy_clone, "" },
	{ 0 },
};

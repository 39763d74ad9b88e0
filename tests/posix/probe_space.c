/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes, holes and room: truncate, fallocate, seeking data, limits of size. */
#include "probe.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#define KIB(n) ((off_t)(n) << 10)

static void see_zeros(struct probe *p, const char *key, int fd, off_t from, size_t bytes)
{
	char *buf = malloc(bytes);
	size_t zeros = 0;
	ssize_t n;

	NEED(buf);
	n = pread(fd, buf, bytes, from);
	for (ssize_t i = 0; i < n; i++)
		zeros += buf[i] == 0;
	SEE(key, "%zd:%zu", n, zeros);
	free(buf);
}

static void space_truncate(struct probe *p)
{
	/* from, to, back up: what lies between must be zeros, whatever lay there. */
	static const off_t corners[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 65535, 65536, 131072, 200000 };
	char key[64];
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	for (size_t i = 0; i < NR(corners); i++)
		for (int sync = 0; sync < 3; sync++) {
			char *buf = malloc(300000);

			NEED(buf && ftruncate(fd, 0) == 0);
			memset(buf, 'x', 300000);
			NEED(pwrite(fd, buf, 300000, 0) == 300000);
			if (sync)
				NEED(fsync(fd) == 0);
			NEED(ftruncate(fd, corners[i]) == 0);
			if (sync == 2)
				NEED(fsync(fd) == 0);
			NEED(ftruncate(fd, 300000) == 0);
			snprintf(key, sizeof(key), "at%lld_%d", (long long)corners[i], sync);
			NEED(pread(fd, buf, 300000, 0) == 300000);
			{
				off_t x = 0, rest = 0;

				while (x < 300000 && buf[x] == 'x')
					x++;
				for (off_t j = x; j < 300000; j++)
					rest += buf[j] != 0;
				SEE(key, "%lld:%lld", (long long)x, (long long)rest);
			}
			free(buf);
		}
	TRY("negative", ftruncate(fd, -1));
	TRY("path_negative", truncate("f", -1));
	TRY("missing", truncate("none", 0));
	TRY("read_only_fd", ftruncate(open("f", O_RDONLY), 0));
	NEED(mkfifo("p", 0644) == 0);
	TRY("fifo", truncate("p", 0));
	AS(USER) {
		TRY("not_mine", truncate("f", 0));
	}
}

static void space_holes(struct probe *p)
{
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	NEED(pwrite(fd, "end", 3, KIB(10240)) == 3);
	see_zeros(p, "hole", fd, KIB(5120), 65536);
	see_zeros(p, "last", fd, KIB(10240) - 10, 100);
	SEE("sparse", "%d", stat_of(p, "f").st_blocks * 512 < KIB(5120));
	NEED(pwrite(fd, "middle", 6, KIB(5120) + 100) == 6);
	see_zeros(p, "around", fd, KIB(5120), 4096);
	NEED(fsync(fd) == 0);
	see_zeros(p, "around_synced", fd, KIB(5120) - 4096, 12288);
	SEE("at_end", "%zd", pread(fd, (char[8]){ 0 }, 8, KIB(10240) + 3));
	SEE("beyond", "%zd", pread(fd, (char[8]){ 0 }, 8, KIB(20480)));
}

static void see_seek(struct probe *p, const char *key, int fd, off_t from, int whence)
{
	off_t at = lseek(fd, from, whence);

	if (at < 0)
		probe_try(p, key, -1);
	else
		SEE(key, "%lld", (long long)at);
}

static void space_seek(struct probe *p)
{
	char *buf = calloc(1, 65536);
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	NEED(buf);
	memset(buf, 'x', 65536);
	see_seek(p, "empty_data", fd, 0, SEEK_DATA);
	see_seek(p, "empty_hole", fd, 0, SEEK_HOLE);
	NEED(ftruncate(fd, KIB(1024)) == 0);
	see_seek(p, "all_hole_data", fd, 0, SEEK_DATA);
	see_seek(p, "all_hole_hole", fd, 100, SEEK_HOLE);
	NEED(pwrite(fd, buf, 65536, KIB(256)) == 65536);
	for (int synced = 0; synced < 2; synced++) {
		snprintf(p->scope, sizeof(p->scope), synced ? "synced" : "dirty");
		see_seek(p, "data", fd, 0, SEEK_DATA);
		see_seek(p, "data_in", fd, KIB(256) + 5000, SEEK_DATA);
		see_seek(p, "hole", fd, 0, SEEK_HOLE);
		see_seek(p, "hole_in", fd, KIB(256) + 5000, SEEK_HOLE);
		see_seek(p, "data_after", fd, KIB(320), SEEK_DATA);
		see_seek(p, "hole_after", fd, KIB(320), SEEK_HOLE);
		see_seek(p, "data_end", fd, KIB(1024), SEEK_DATA);
		see_seek(p, "hole_end", fd, KIB(1024), SEEK_HOLE);
		see_seek(p, "hole_last", fd, KIB(1024) - 1, SEEK_HOLE);
		see_seek(p, "beyond", fd, KIB(2048), SEEK_DATA);
		see_seek(p, "negative", fd, -1, SEEK_DATA);
		NEED(fsync(fd) == 0);
	}
	p->scope[0] = 0;
	NEED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, KIB(272), KIB(16)) == 0);
	see_seek(p, "punched_hole", fd, KIB(256), SEEK_HOLE);
	see_seek(p, "punched_data", fd, KIB(272), SEEK_DATA);
	see_seek(p, "cur", fd, 5, SEEK_SET);
	see_seek(p, "cur_plus", fd, 5, SEEK_CUR);
	see_seek(p, "end_minus", fd, -5, SEEK_END);
	see_seek(p, "set_negative", fd, -5, SEEK_SET);
	see_seek(p, "bad_whence", fd, 0, 9);
	NEED(pwrite(fd, "tail", 4, KIB(1024) - 4) == 4);
	see_seek(p, "tail_hole", fd, KIB(1024) - 4, SEEK_HOLE);
}

static long long left(struct probe *p)
{
	struct statfs st;

	NEED(statfs(".", &st) == 0);
	return (long long)st.f_bfree * st.f_bsize;
}

static void space_fallocate(struct probe *p)
{
	int fd = open_file(p, "f", O_RDWR | O_CREAT);
	long long free_before;

	TRY("plain", fallocate(fd, 0, 0, 100000));
	SEE("size", "%lld:%d", (long long)stat_of(p, "f").st_size, stat_of(p, "f").st_blocks * 512 >= 100000);
	see_zeros(p, "zeros", fd, 0, 100000);
	TRY("keep", fallocate(fd, FALLOC_FL_KEEP_SIZE, 100000, 1000000));
	SEE("keep_size", "%lld:%d", (long long)stat_of(p, "f").st_size, stat_of(p, "f").st_blocks * 512 >= 1000000);
	NEED(ftruncate(fd, 200000) == 0);
	see_zeros(p, "grown", fd, 90000, 110000);
	make_bytes(p, "f", 'x', 200000);
	TRY("over_data", fallocate(fd, 0, 50000, 100000));
	see_content(p, "kept", "f");
	TRY("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 100000));
	see_content(p, "punched", "f");
	NEED(fsync(fd) == 0);
	see_content(p, "punched_synced", "f");
	TRY("zero", fallocate(fd, FALLOC_FL_ZERO_RANGE, 150001, 10001));
	see_content(p, "zeroed", "f");
	TRY("zero_beyond", fallocate(fd, FALLOC_FL_ZERO_RANGE, 190000, 50000));
	see_content(p, "zeroed_beyond", "f");
	TRY("zero_keep_beyond", fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 230000, 50000));
	see_content(p, "zeroed_keep_beyond", "f");
	TRY("punch_beyond", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 235000, 500000));
	see_content(p, "punched_beyond", "f");
	TRY("punch_one_byte", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 500, 1));
	see_content(p, "punched_one_byte", "f");
	TRY("punch_no_keep", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
	TRY("bad_mode", fallocate(fd, 0x400, 0, 4096));
	TRY("zero_length", fallocate(fd, 0, 0, 0));
	TRY("negative", fallocate(fd, 0, -1, 10));
	TRY("too_far", fallocate(fd, 0, INT64_MAX - 5, 10));
	TRY("read_only_fd", fallocate(open("f", O_RDONLY), 0, 0, 10));
	NEED(mkfifo("p", 0644) == 0);
	TRY("fifo", fallocate(open("p", O_RDWR), 0, 0, 10));
	TRY("collapse", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096));
	TRY("insert", fallocate(fd, FALLOC_FL_INSERT_RANGE, 4096, 4096));
	NEED(ftruncate(fd, 0) == 0);
	TRY("posix", (errno = posix_fallocate(fd, 0, 70000)) ? -1 : 0);
	close(fd);
	free_before = left(p);
	fd = open_file(p, "room", O_RDWR | O_CREAT);
	TRY("room", fallocate(fd, 0, 0, KIB(8192)));
	SEE("room_taken", "%d", free_before - left(p) >= KIB(8000));
	TRY("too_much", fallocate(fd, 0, 0, (off_t)1 << 42));
	NEED(ftruncate(fd, 0) == 0);
}

static void space_limits(struct probe *p)
{
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	TRY("grow_1tib", ftruncate(fd, (off_t)1 << 40));
	TRY("write_1tib", pwrite(fd, "x", 1, ((off_t)1 << 40) - 1));
	see_zeros(p, "read_1tib", fd, ((off_t)1 << 40) - 100, 200);
	TRY("grow_8eib", ftruncate(fd, INT64_MAX));
	TRY("write_8eib", pwrite(fd, "x", 1, INT64_MAX - 1));
	TRY("write_beyond_8eib", pwrite(fd, "xy", 2, INT64_MAX - 1));
	TRY("write_at_8eib", pwrite(fd, "x", 1, INT64_MAX));
	TRY("write_negative", pwrite(fd, "x", 1, -1));
	TRY("read_negative", pread(fd, (char[1]){ 0 }, 1, -1));
	TRY("shrink", ftruncate(fd, 10));
	SEE("size", "%lld", (long long)stat_of(p, "f").st_size);
}

static void space_rlimit(struct probe *p)
{
	int fd = open_file(p, "f", O_RDWR | O_CREAT);
	const struct rlimit limit = { .rlim_cur = 10000, .rlim_max = RLIM_INFINITY };

	make_bytes(p, "longer", 'x', 20000);
	NEED(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	SEE("up_to", "%zd", pwrite(fd, calloc(1, 20000), 20000, 0));
	TRY("at", pwrite(fd, "x", 1, 10000));
	TRY("beyond", pwrite(fd, "x", 1, 50000));
	SEE("last", "%zd", pwrite(fd, "xyz", 3, 9999));
	TRY("truncate", ftruncate(fd, 10001));
	TRY("fallocate", fallocate(fd, 0, 0, 10001));
	TRY("fallocate_keep", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000));
	TRY("shrink_longer", truncate("longer", 15000));
	TRY("append", write(open("f", O_WRONLY | O_APPEND), "x", 1));
	SEE("size", "%lld", (long long)stat_of(p, "f").st_size);
}

static void space_statfs(struct probe *p)
{
	struct statfs st;
	long long before, with, after = 0;
	int fd;

	NEED(statfs(".", &st) == 0);
	SEE("names", "%ld", (long)st.f_namelen);
	SEE("sane", "%d%d%d", st.f_blocks >= st.f_bfree, st.f_bfree >= st.f_bavail, st.f_files >= st.f_ffree);
	before = left(p);
	fd = open_file(p, "f", O_RDWR | O_CREAT);
	for (int i = 0; i < 16; i++) {
		char *buf = malloc(1 << 20);

		NEED(buf);
		for (int j = 0; j < 1 << 20; j += 8)
			*(uint64_t *)(void *)(buf + j) = (uint64_t)random() * 0x9e3779b97f4a7c15ull;
		NEED(pwrite(fd, buf, 1 << 20, (off_t)i << 20) == 1 << 20);
		free(buf);
	}
	NEED(fsync(fd) == 0);
	with = left(p);
	SEE("taken", "%d", before - with >= KIB(15 * 1024) && before - with < KIB(24 * 1024));
	close(fd);
	NEED(unlink("f") == 0);
	for (int i = 0; i < 2000; i++) { /* what goes may go in the background */
		after = left(p);
		if (after - with >= KIB(15 * 1024))
			break;
		tick();
	}
	SEE("given_back", "%d", after - with >= KIB(15 * 1024));
}

static void space_blocks(struct probe *p)
{
	blkcnt_t before, now = 0;
	int fd = open_file(p, "f", O_RDWR | O_CREAT);

	SEE("empty", "%lld", (long long)stat_of(p, "f").st_blocks);
	make_bytes(p, "f", 'x', 1 << 20);
	SEE("written", "%d", stat_of(p, "f").st_blocks > 0);
	NEED(fsync(fd) == 0);
	SEE("synced", "%d", stat_of(p, "f").st_blocks > 0);
	/* Overwritten, it takes as much as before, once that is written. */
	before = stat_of(p, "f").st_blocks;
	NEED(pwrite(fd, calloc(1, 1 << 19), 1 << 19, 0) == 1 << 19);
	for (int i = 0; i < 2000; i++) {
		now = stat_of(p, "f").st_blocks;
		if (now == before)
			break;
		tick();
	}
	SEE("overwritten", "%d", now == before);
	NEED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0);
	SEE("punched", "%lld:%lld", (long long)stat_of(p, "f").st_blocks, (long long)stat_of(p, "f").st_size);
	NEED(ftruncate(fd, 0) == 0);
	SEE("truncated", "%lld", (long long)stat_of(p, "f").st_blocks);
}

const struct probe_case space_cases[] = {
	{ "space_truncate", space_truncate, "" },
	{ "space_holes", space_holes, "" },
	{ "space_seek", space_seek, "" },
	{ "space_fallocate", space_fallocate, "" },
	{ "space_limits", space_limits, "" },
	{ "space_rlimit", space_rlimit, "" },
	{ "space_statfs", space_statfs, "" },
	{ "space_blocks", space_blocks, "" },
	{ 0 },
};

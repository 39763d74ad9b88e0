/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mappings: one content with read, write, truncate and direct I/O; the end of the file. */
#include "probe.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define PAGE 4096
#define PAGES 8

static sigjmp_buf jump;

static void caught(int sig)
{
	siglongjmp(jump, sig);
}

/* 0, or the signal that touching the byte gave. */
static int touch(volatile char *at, bool write)
{
	int sig;

	signal(SIGBUS, caught);
	signal(SIGSEGV, caught);
	sig = sigsetjmp(jump, 1);
	if (!sig) {
		if (write)
			*at = 'w';
		else
			(void)*at;
	}
	return sig;
}

static char *map(struct probe *p, int fd, int prot, int flags, size_t pages)
{
	char *m = mmap(NULL, pages * PAGE, prot, flags, fd, 0);

	NEED(m != MAP_FAILED);
	return m;
}

static void mmap_shared(struct probe *p)
{
	char buf[64] = { 0 };
	char *m, *m2, *priv;
	int fd, fd2;

	make_bytes(p, "f", 'x', PAGES * PAGE);
	fd = open_file(p, "f", O_RDWR);
	fd2 = open_file(p, "f", O_RDWR);
	m = map(p, fd, PROT_READ | PROT_WRITE, MAP_SHARED, PAGES);
	m2 = map(p, fd2, PROT_READ, MAP_SHARED, PAGES);
	priv = map(p, fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGES);
	memcpy(m + 100, "mapped", 6);
	SEE("read", "%zd:%.8s", pread(fd2, buf, 8, 99), buf);
	SEE("other_map", "%.8s", m2 + 99);
	SEE("private_sees", "%.8s", priv + 99);
	NEED(pwrite(fd2, "written", 7, 5000) == 7);
	SEE("map_sees_write", "%.9s", m + 4999);
	memcpy(priv + 200, "private", 7);
	SEE("private_hidden", "%zd:%.8s", pread(fd, buf, 8, 199), buf);
	memcpy(m + 3 * PAGE, "third", 5);
	TRY("msync", msync(m, PAGES * PAGE, MS_SYNC));
	TRY("msync_async", msync(m, PAGES * PAGE, MS_ASYNC));
	TRY("msync_invalidate", msync(m, PAGES * PAGE, MS_INVALIDATE));
	TRY("msync_unaligned", msync(m + 1, PAGE, MS_SYNC));
	TRY("fsync", fsync(fd));
	munmap(m, PAGES * PAGE);
	see_content(p, "content", "f");
	close(fd);
	close(fd2);
	posix_fadvise(open("f", O_RDONLY), 0, 0, POSIX_FADV_DONTNEED);
	see_content(p, "content_again", "f");
	TRY("write_map_of_read_only", mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, open("f", O_RDONLY), 0) == MAP_FAILED ? -1 : 0);
	TRY("private_write_map_of_read_only", mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE, open("f", O_RDONLY), 0) == MAP_FAILED ? -1 : 0);
	TRY("map_of_write_only", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, open("f", O_WRONLY), 0) == MAP_FAILED ? -1 : 0);
	TRY("unaligned", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, open("f", O_RDONLY), 100) == MAP_FAILED ? -1 : 0);
}

static void mmap_end(struct probe *p)
{
	char buf[32] = { 0 };
	char *m;
	int fd;

	make_bytes(p, "f", 'x', PAGE + 100);
	fd = open_file(p, "f", O_RDWR);
	m = map(p, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 4);
	SEE("inside", "%d", touch(m + PAGE, false));
	SEE("rest_of_page", "%d:%d", touch(m + PAGE + 200, false), m[PAGE + 200]);
	SEE("past", "%d", touch(m + 2 * PAGE, false) == SIGBUS);
	SEE("past_write", "%d", touch(m + 3 * PAGE, true) == SIGBUS);
	NEED(ftruncate(fd, 4 * PAGE) == 0);
	SEE("grown", "%d:%d", touch(m + 2 * PAGE, false), m[2 * PAGE]);
	m[3 * PAGE] = 'z';
	SEE("grown_written", "%zd:%.1s", pread(fd, buf, 1, 3 * PAGE), buf);
	NEED(ftruncate(fd, 10) == 0);
	SEE("shrunk", "%d", touch(m + PAGE, false) == SIGBUS);
	SEE("shrunk_rest", "%d:%d", touch(m + 20, false), m[20]);
	NEED(ftruncate(fd, 4 * PAGE) == 0);
	SEE("regrown", "%d%d%d", m[20], m[PAGE], m[3 * PAGE]);
	see_content(p, "content", "f");
	TRY("empty", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, open_file(p, "e", O_RDWR | O_CREAT), 0) == MAP_FAILED ? -1 : 0);
}

/* What is punched out or truncated is gone from mappings, too; what is mapped dirty comes into the file. */
static void mmap_holes(struct probe *p)
{
	char *m;
	int fd;

	make_bytes(p, "f", 'x', PAGES * PAGE);
	fd = open_file(p, "f", O_RDWR);
	m = map(p, fd, PROT_READ | PROT_WRITE, MAP_SHARED, PAGES);
	memset(m, 'm', PAGES * PAGE);
	NEED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE + 10, 2 * PAGE) == 0);
	SEE("punched", "%c%d%d%c", m[PAGE + 9], m[PAGE + 10], m[3 * PAGE + 9], m[3 * PAGE + 10]);
	NEED(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5 * PAGE, PAGE) == 0);
	SEE("zeroed", "%c%d%c", m[5 * PAGE - 1], m[5 * PAGE], m[6 * PAGE]);
	m[PAGE + 100] = 'h';
	see_content(p, "content", "f");
	NEED(ftruncate(fd, 0) == 0);
	NEED(ftruncate(fd, PAGES * PAGE) == 0);
	SEE("refilled", "%d", touch(m + 4 * PAGE, true));
	NEED(msync(m, PAGES * PAGE, MS_SYNC) == 0);
	see_content(p, "refilled_content", "f");
	{
		int sparse = open_file(p, "s", O_RDWR | O_CREAT);
		char *s;

		NEED(ftruncate(sparse, 1 << 20) == 0);
		s = map(p, sparse, PROT_READ | PROT_WRITE, MAP_SHARED, 256);
		SEE("sparse", "%d", s[1000]);
		s[200 * PAGE + 5] = 's';
		NEED(msync(s, 1 << 20, MS_SYNC) == 0);
		see_content(p, "sparse_content", "s");
	}
}

static void mmap_direct(struct probe *p)
{
	static char buf[2 * PAGE] __attribute__((aligned(PAGE)));
	char *m;
	int fd, direct;

	make_bytes(p, "f", 'x', PAGES * PAGE);
	fd = open_file(p, "f", O_RDWR);
	direct = (int)TRY("open", open("f", O_RDWR | O_DIRECT));
	if (direct < 0)
		return;
	m = map(p, fd, PROT_READ | PROT_WRITE, MAP_SHARED, PAGES);
	m[10] = 'm';
	SEE("read_sees_map", "%zd:%c", pread(direct, buf, PAGE, 0), buf[10]);
	NEED(pwrite(fd, "buffered", 8, PAGE) == 8);
	SEE("read_sees_write", "%zd:%.8s", pread(direct, buf, PAGE, PAGE), buf);
	memset(buf, 'd', sizeof(buf));
	SEE("write", "%zd", pwrite(direct, buf, 2 * PAGE, 2 * PAGE));
	SEE("map_sees_write", "%c%c%c%c", m[2 * PAGE - 1], m[2 * PAGE], m[4 * PAGE - 1], m[4 * PAGE]);
	SEE("buffered_sees", "%zd:%c", pread(fd, buf, 1, 3 * PAGE), buf[0]);
	SEE("grow", "%zd:%lld", pwrite(direct, buf, PAGE, PAGES * PAGE), (long long)stat_of(p, "f").st_size);
	see_content(p, "content", "f");
	NEED(ftruncate(fd, PAGES * PAGE + 100) == 0);
	SEE("short_read", "%zd", pread(direct, buf, PAGE, PAGES * PAGE));
	SEE("end_read", "%zd", pread(direct, buf, PAGE, (PAGES + 1) * PAGE));
	/* From and into a mapping of the same file. */
	SEE("from_own_map", "%zd", pwrite(direct, m, PAGE, 4 * PAGE));
	SEE("from_own_map_seen", "%c", m[4 * PAGE + 10]);
}

static void mmap_direct_unaligned(struct probe *p)
{
	static char buf[2 * PAGE] __attribute__((aligned(PAGE)));
	int direct;

	make_bytes(p, "f", 'x', PAGES * PAGE);
	direct = open("f", O_RDWR | O_DIRECT);
	NEED(direct >= 0);
	TRY("offset", pread(direct, buf, PAGE, 1));
	TRY("length", pread(direct, buf, 100, 0));
	TRY("memory", pread(direct, buf + 1, PAGE, 0));
}

static void mmap_exec(struct probe *p)
{
	char *m;
	int fd;

	copy_program(p, "/proc/self/exe", "prog");
	fd = open_file(p, "prog", O_RDONLY);
	TRY("map_exec", (m = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0)) == MAP_FAILED ? -1 : 0);
	fd = open_file(p, "script", O_WRONLY | O_CREAT);
	NEED(write(fd, "#!/bin/sh\nexit 7\n", 17) == 17 && fchmod(fd, 0755) == 0);
	close(fd);
	SEE("script", "%d", system("./script") >> 8);
	SEE("prog", "%d", system("./prog --list > listed") >> 8);
	SEE("listed", "%d", stat_of(p, "listed").st_size > 100);
}

const struct probe_case mmap_cases[] = {
	{ "mmap_shared", mmap_shared, "" },
	{ "mmap_end", mmap_end, "" },
	{ "mmap_holes", mmap_holes, "" },
	{ "mmap_direct", mmap_direct, "" },
	{ "mmap_direct_unaligned", mmap_direct_unaligned, "" },
	{ "mmap_exec", mmap_exec, "" },
	{ 0 },
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File contents against a model in memory
 *
 * Two files, an array for each. Operations in an order made of a seed: write, read, truncate, through a mapping, punch, zero range, fallocate, copy_file_range within and between, direct I/O,
 * fsync, close and open again, drop from the page cache. What a read or a mapping shows, and the size, must be what the model has; every so often all of it is compared. A difference prints
 * where, the last operations, and the command that does it all again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (512u << 10)
#define IO_MAX_BYTES (96u << 10)
#define BLOCK 4096u
#define FILES 2
#define LOG_LINES 40
#define COMPARE_EVERY 500

struct file {
	char path[4096];
	int fd, direct;
	uint8_t model[SIZE_MAX_BYTES + BLOCK];
	uint64_t size;
};

static struct file files[FILES];
static uint8_t buf[SIZE_MAX_BYTES + 2 * BLOCK] __attribute__((aligned(4096)));
static char log_lines[LOG_LINES][160];
static uint64_t seed, state, op_nr, ops = 20000, seconds;
static const char *dir;
static bool verbose;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dull >> 11;
}

static uint64_t below(uint64_t n)
{
	return n ? rnd() % n : 0;
}

static void note(const char *fmt, ...)
{
	char *line = log_lines[op_nr % LOG_LINES];
	int n = snprintf(line, sizeof(log_lines[0]), "%llu ", (unsigned long long)op_nr);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(log_lines[0]) - (size_t)n, fmt, ap);
	va_end(ap);
	if (verbose)
		puts(line);
}

static void fail(const char *what, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *what, ...)
{
	const uint64_t from = op_nr >= LOG_LINES ? op_nr - LOG_LINES + 1 : 0;
	va_list ap;

	for (uint64_t i = from; i <= op_nr; i++)
		printf("%s\n", log_lines[i % LOG_LINES]);
	va_start(ap, what);
	vprintf(what, ap);
	va_end(ap);
	printf("\nFAIL at operation %llu; again with: posix-fsx %s --seed %llu --ops %llu\n", (unsigned long long)op_nr, dir, (unsigned long long)seed,
	       (unsigned long long)op_nr + 1);
	exit(1);
}

static void must(bool ok, const char *what)
{
	if (!ok)
		fail("%s: %s", what, strerror(errno));
}

static void open_file(struct file *f, int flags)
{
	f->fd = open(f->path, O_RDWR | flags, 0600);
	must(f->fd >= 0, "open");
	f->direct = open(f->path, O_RDWR | O_DIRECT);
	if (f->direct < 0 && errno != EINVAL)
		must(false, "open O_DIRECT");
}

static void same(const struct file *f, const uint8_t *got, uint64_t from, uint64_t bytes, const char *how)
{
	for (uint64_t i = 0; i < bytes; i++)
		if (got[i] != f->model[from + i])
			fail("file %d, %s of %llu bytes at %llu: byte %llu is %02x and should be %02x (size %llu)", (int)(f - files), how,
			     (unsigned long long)bytes, (unsigned long long)from, (unsigned long long)(from + i), got[i], f->model[from + i],
			     (unsigned long long)f->size);
}

static void check_size(const struct file *f)
{
	struct stat st;

	must(fstat(f->fd, &st) == 0, "fstat");
	if ((uint64_t)st.st_size != f->size)
		fail("file %d: size %lld instead of %llu", (int)(f - files), (long long)st.st_size, (unsigned long long)f->size);
}

/* The model's side. */
static void model_grow(struct file *f, uint64_t to)
{
	if (to > f->size) {
		memset(f->model + f->size, 0, to - f->size);
		f->size = to;
	}
}

static void fresh_bytes(uint64_t bytes)
{
	const uint8_t tag = (uint8_t)(op_nr % 255 + 1); /* never zero: a hole would look right */

	for (uint64_t i = 0; i < bytes; i++)
		buf[i] = below(4) ? tag : (uint8_t)(rnd() | 1);
}

static void range(uint64_t limit, uint64_t *ret_from, uint64_t *ret_bytes)
{
	*ret_bytes = 1 + (below(3) ? below(IO_MAX_BYTES) : below(300));
	*ret_from = below(limit);
	if (!below(3))
		*ret_from &= ~(uint64_t)(BLOCK - 1);
	if (!below(3))
		*ret_bytes = (*ret_bytes + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	if (*ret_from + *ret_bytes > SIZE_MAX_BYTES)
		*ret_bytes = SIZE_MAX_BYTES - *ret_from;
}

/* --- operations --- */

static void op_write(struct file *f)
{
	uint64_t from, bytes;

	range(SIZE_MAX_BYTES, &from, &bytes);
	if (!below(8))
		from = f->size < SIZE_MAX_BYTES - bytes ? f->size : from; /* at the end */
	note("write %d %llu+%llu", (int)(f - files), (unsigned long long)from, (unsigned long long)bytes);
	fresh_bytes(bytes);
	must(pwrite(f->fd, buf, bytes, (off_t)from) == (ssize_t)bytes, "write");
	model_grow(f, from + bytes);
	memcpy(f->model + from, buf, bytes);
}

static void read_back(struct file *f, int fd, uint64_t from, uint64_t bytes, const char *how)
{
	const uint64_t want = from >= f->size ? 0 : f->size - from < bytes ? f->size - from : bytes;
	ssize_t n = pread(fd, buf, bytes, (off_t)from);

	if (n != (ssize_t)want)
		fail("file %d, %s of %llu bytes at %llu gave %zd instead of %llu (size %llu)", (int)(f - files), how, (unsigned long long)bytes,
		     (unsigned long long)from, n, (unsigned long long)want, (unsigned long long)f->size);
	same(f, buf, from, want, how);
}

static void op_read(struct file *f)
{
	uint64_t from, bytes;

	range(SIZE_MAX_BYTES, &from, &bytes);
	note("read %d %llu+%llu", (int)(f - files), (unsigned long long)from, (unsigned long long)bytes);
	read_back(f, f->fd, from, bytes, "read");
}

static void op_direct_write(struct file *f)
{
	uint64_t from, bytes;

	if (f->direct < 0)
		return;
	range(SIZE_MAX_BYTES, &from, &bytes);
	from &= ~(uint64_t)(BLOCK - 1);
	bytes = (bytes + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	if (from + bytes > SIZE_MAX_BYTES)
		return;
	note("direct write %d %llu+%llu", (int)(f - files), (unsigned long long)from, (unsigned long long)bytes);
	fresh_bytes(bytes);
	must(pwrite(f->direct, buf, bytes, (off_t)from) == (ssize_t)bytes, "direct write");
	model_grow(f, from + bytes);
	memcpy(f->model + from, buf, bytes);
}

static void op_direct_read(struct file *f)
{
	uint64_t from, bytes;

	if (f->direct < 0)
		return;
	range(SIZE_MAX_BYTES, &from, &bytes);
	from &= ~(uint64_t)(BLOCK - 1);
	bytes = (bytes + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	note("direct read %d %llu+%llu", (int)(f - files), (unsigned long long)from, (unsigned long long)bytes);
	read_back(f, f->direct, from, bytes, "direct read");
}

static void op_truncate(struct file *f)
{
	uint64_t to = below(4) ? below(SIZE_MAX_BYTES) : below(2) ? 0 : f->size & ~(uint64_t)(BLOCK - 1);

	if (!below(4))
		to &= ~(uint64_t)(BLOCK - 1);
	note("truncate %d %llu -> %llu", (int)(f - files), (unsigned long long)f->size, (unsigned long long)to);
	must(ftruncate(f->fd, (off_t)to) == 0, "truncate");
	if (to < f->size)
		f->size = to;
	model_grow(f, to);
}

/* A range drawn inside the file, and whole pages around it mapped. */
struct mapping {
	uint64_t from, bytes;
	uint8_t *at, *base;
	size_t length;
};

/* False: the range lies behind the end. */
static bool map(struct file *f, const char *what, struct mapping *ret)
{
	uint64_t begin;
	void *base;

	range(f->size, &ret->from, &ret->bytes);
	if (ret->from >= f->size)
		return false;
	ret->bytes = ret->from + ret->bytes > f->size ? f->size - ret->from : ret->bytes;
	begin = ret->from & ~(uint64_t)(BLOCK - 1);
	ret->length = (size_t)(ret->from - begin + ret->bytes);
	base = mmap(NULL, ret->length, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, (off_t)begin);
	must(base != MAP_FAILED, "mmap");
	ret->base = base;
	ret->at = ret->base + (ret->from - begin);
	note("map %s %d %llu+%llu", what, (int)(f - files), (unsigned long long)ret->from, (unsigned long long)ret->bytes);
	return true;
}

static void op_map_write(struct file *f)
{
	struct mapping m;

	if (!map(f, "write", &m))
		return;
	fresh_bytes(m.bytes);
	memcpy(m.at, buf, m.bytes);
	memcpy(f->model + m.from, buf, m.bytes);
	if (!below(3))
		must(msync(m.base, m.length, MS_SYNC) == 0, "msync");
	munmap(m.base, m.length);
}

static void op_map_read(struct file *f)
{
	struct mapping m;

	if (!map(f, "read", &m))
		return;
	same(f, m.at, m.from, m.bytes, "map");
	/* Behind the end of the file the page is zeros. */
	if (m.from + m.bytes == f->size)
		for (uint64_t i = f->size; i % BLOCK; i++)
			if (m.at[i - m.from])
				fail("file %d: byte %llu behind the end (%llu) is %02x in a mapping", (int)(f - files), (unsigned long long)i,
				     (unsigned long long)f->size, m.at[i - m.from]);
	munmap(m.base, m.length);
}

static void op_fallocate(struct file *f)
{
	static const struct { int mode; const char *name; } modes[] = {
		{ 0, "fallocate" }, { FALLOC_FL_KEEP_SIZE, "fallocate keep" }, { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch" },
		{ FALLOC_FL_ZERO_RANGE, "zero" }, { FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero keep" },
	};
	const unsigned m = (unsigned)below(sizeof(modes) / sizeof(modes[0]));
	uint64_t from, bytes, end;

	range(SIZE_MAX_BYTES, &from, &bytes);
	note("%s %d %llu+%llu", modes[m].name, (int)(f - files), (unsigned long long)from, (unsigned long long)bytes);
	must(fallocate(f->fd, modes[m].mode, (off_t)from, (off_t)bytes) == 0, modes[m].name);
	if (!(modes[m].mode & FALLOC_FL_KEEP_SIZE))
		model_grow(f, from + bytes);
	end = from + bytes < f->size ? from + bytes : f->size;
	if (modes[m].mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && from < end)
		memset(f->model + from, 0, end - from);
}

static void op_copy(struct file *f)
{
	struct file *to = &files[below(FILES)];
	uint64_t from, bytes, at, done = 0;

	range(f->size, &from, &bytes);
	if (from >= f->size)
		return;
	if (from + bytes > f->size)
		bytes = f->size - from;
	at = below(SIZE_MAX_BYTES - bytes + 1);
	if (!below(3))
		at &= ~(uint64_t)(BLOCK - 1);
	if (to == f && at < from + bytes && from < at + bytes)
		return; /* refused by the kernel */
	note("copy %d %llu+%llu to %d %llu", (int)(f - files), (unsigned long long)from, (unsigned long long)bytes, (int)(to - files), (unsigned long long)at);
	while (done < bytes) {
		off_t in = (off_t)(from + done), out = (off_t)(at + done);
		ssize_t n = copy_file_range(f->fd, &in, to->fd, &out, bytes - done, 0);

		must(n >= 0, "copy_file_range");
		if (!n)
			fail("copy_file_range ended %llu bytes early", (unsigned long long)(bytes - done));
		done += (uint64_t)n;
	}
	model_grow(to, at + bytes);
	memmove(to->model + at, f->model + from, bytes);
}

static void op_sync(struct file *f)
{
	note("sync %d", (int)(f - files));
	must((below(2) ? fsync(f->fd) : fdatasync(f->fd)) == 0, "fsync");
}

static void op_reopen(struct file *f)
{
	note("reopen %d", (int)(f - files));
	close(f->fd);
	if (f->direct >= 0)
		close(f->direct);
	open_file(f, 0);
}

static void op_drop(struct file *f)
{
	note("drop %d", (int)(f - files));
	must(fsync(f->fd) == 0, "fsync");
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* Data that SEEK_HOLE leaves out must be zeros. */
static void op_seek(struct file *f)
{
	off_t at = 0, size = (off_t)f->size;

	note("seek %d", (int)(f - files));
	while (at < size) {
		off_t data = lseek(f->fd, at, SEEK_DATA), hole;

		if (data < 0 && errno != ENXIO)
			must(false, "SEEK_DATA");
		if (data < 0)
			data = size;
		if (data < at || data > size)
			fail("file %d: SEEK_DATA from %lld gives %lld (size %lld)", (int)(f - files), (long long)at, (long long)data, (long long)size);
		for (off_t i = at; i < data; i++)
			if (f->model[i])
				fail("file %d: byte %lld is %02x and lies in a hole, %lld to %lld", (int)(f - files), (long long)i, f->model[i], (long long)at,
				     (long long)data);
		if (data == size)
			break;
		hole = lseek(f->fd, data, SEEK_HOLE);
		must(hole >= 0, "SEEK_HOLE");
		if (hole <= data)
			fail("file %d: SEEK_HOLE from data at %lld gives %lld", (int)(f - files), (long long)data, (long long)hole);
		at = hole;
	}
}

static const struct { void (*fn)(struct file *f); unsigned weight; } table[] = {
	{ op_write, 20 }, { op_read, 15 }, { op_direct_write, 6 }, { op_direct_read, 6 }, { op_truncate, 8 }, { op_map_write, 10 }, { op_map_read, 8 },
	{ op_fallocate, 10 }, { op_copy, 10 }, { op_sync, 3 }, { op_reopen, 2 }, { op_drop, 4 }, { op_seek, 2 },
};

static void compare_all(const char *how)
{
	for (int i = 0; i < FILES; i++) {
		check_size(&files[i]);
		read_back(&files[i], files[i].fd, 0, files[i].size + 1, how);
	}
}

static void one(void)
{
	unsigned total = 0, at = 0;
	uint64_t pick;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		total += table[i].weight;
	for (pick = below(total); pick >= table[at].weight; at++)
		pick -= table[at].weight;
	note("nothing");
	{
		struct file *f = &files[below(FILES)];

		table[at].fn(f);
		check_size(f);
	}
	if (op_nr % COMPARE_EVERY == COMPARE_EVERY - 1)
		compare_all("comparison");
}

static int usage(void)
{
	fprintf(stderr, "Usage: posix-fsx DIR [--seed N] [--ops N] [--seconds N] [--verbose]\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct timespec begin, now;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	seed = (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--ops") && i + 1 < argc)
			ops = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--verbose"))
			verbose = true;
		else if (argv[i][0] != '-' && !dir)
			dir = argv[i];
		else
			return usage();
	}
	if (!dir)
		return usage();
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	for (int i = 0; i < FILES; i++) {
		snprintf(files[i].path, sizeof(files[i].path), "%s/fsx-%d", dir, i);
		(void)unlink(files[i].path);
		open_file(&files[i], O_CREAT | O_EXCL);
	}
	for (; op_nr < ops; op_nr++) {
		one();
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (seconds && (uint64_t)(now.tv_sec - begin.tv_sec) >= seconds && op_nr % COMPARE_EVERY == 0)
			break;
	}
	compare_all("last comparison");
	/* As the server has it, not as the kernel remembers it. */
	for (int i = 0; i < FILES; i++)
		op_drop(&files[i]);
	compare_all("comparison after dropping pages");
	printf("seed=%llu: %llu operations\n", (unsigned long long)seed, (unsigned long long)op_nr);
	for (int i = 0; i < FILES; i++)
		unlink(files[i].path);
	return 0;
}

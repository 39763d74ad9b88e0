/* SPDX-License-Identifier: LGPL-2.1-or-later */
// fsload: the client side of the benchmark. One small tool so that the cost
// of the load generator is the same for every file system measured.
//
//   fsload seqw  FILE BYTES BS CAP_S rand|SRCFILE   write, fsync, close
//   fsload seqr  FILE BS CAP_S                      read to the end
//   fsload sync4k FILE SECS SEED                    4k pwrite + fsync each
//   fsload syncmt DIR SECS THREADS                  the same, a file per thread
//   fsload ow4k  FILE OPS SEED CAP_S                4k overwrites, one fsync
//   fsload create DIR N THREADS CAP_S BYTES         small files in a tree
//   fsload stat|list|unlink DIR C0[,C1..] THREADS   over what create made
//   fsload opstat FILE SECS THREADS                 fstatat of one path
//
// Every command prints one JSON object.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PER_DIR = 100 };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	fprintf(stderr, "fsload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t rng_state = 88172645463325252ull;
static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static void *pages(size_t n)
{
	void *p;
	if (posix_memalign(&p, 4096, n))
		die("memory");
	return p;
}

static int cmp_f(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return x < y ? -1 : x > y;
}

static int seqw(char **a)
{
	const char *file = a[0];
	uint64_t want = strtoull(a[1], 0, 0);
	size_t bs = strtoull(a[2], 0, 0);
	double cap = atof(a[3]);
	size_t n = 64u << 20;
	char *src;
	if (strcmp(a[4], "rand")) {
		int s = open(a[4], O_RDONLY);
		struct stat st;
		if (s < 0 || fstat(s, &st))
			die(a[4]);
		n = st.st_size / bs * bs;
		if (n > (256u << 20))
			n = (256u << 20) / bs * bs;
		src = pages(n + 1);
		for (size_t at = 0; at < n;) {
			ssize_t r = read(s, src + at, n - at);
			if (r <= 0)
				die("read source");
			at += r;
		}
		close(s);
	} else {
		src = pages(n);
		for (size_t i = 0; i < n / 8; i++)
			((uint64_t *)src)[i] = rng();
	}
	if (n < bs)
		die("source shorter than a block");
	int fd = open(file, O_CREAT | O_WRONLY | O_TRUNC, 0644);
	if (fd < 0)
		die(file);
	double t0 = now();
	uint64_t done = 0;
	while (done < want) {
		char *p = src + done % n;
		*(uint64_t *)p += 0x9e3779b97f4a7c15ull; // no two blocks alike
		ssize_t r = write(fd, p, bs);
		if (r <= 0)
			die("write");
		done += r;
		if (now() - t0 > cap)
			break;
	}
	if (fsync(fd))
		die("fsync");
	double t = now() - t0;
	close(fd);
	printf("{\"bytes\":%llu,\"secs\":%.6f}\n", (unsigned long long)done, t);
	return 0;
}

static int seqr(char **a)
{
	size_t bs = strtoull(a[1], 0, 0);
	double cap = atof(a[2]);
	char *buf = pages(bs);
	memset(buf, 1, bs);
	int fd = open(a[0], O_RDONLY);
	if (fd < 0)
		die(a[0]);
	double t0 = now();
	uint64_t done = 0;
	ssize_t r;
	while ((r = read(fd, buf, bs)) > 0) {
		done += r;
		if (now() - t0 > cap)
			break;
	}
	if (r < 0)
		die("read");
	printf("{\"bytes\":%llu,\"secs\":%.6f}\n", (unsigned long long)done,
	       now() - t0);
	return 0;
}

static int sync4k(char **a)
{
	double secs = atof(a[1]);
	rng_state += strtoull(a[2], 0, 0) * 7919;
	int fd = open(a[0], O_RDWR);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) || st.st_size < 4096)
		die(a[0]);
	char *buf = pages(4096);
	static float lat[1000000];
	size_t n = 0;
	double t0 = now(), t = t0;
	while (t - t0 < secs && n < 1000000) {
		for (int i = 0; i < 512; i++)
			((uint64_t *)buf)[i] = rng();
		double s = now();
		if (pwrite(fd, buf, 4096, rng() % (st.st_size / 4096) * 4096) != 4096)
			die("pwrite");
		if (fsync(fd))
			die("fsync");
		t = now();
		lat[n++] = (t - s) * 1e6;
	}
	qsort(lat, n, sizeof *lat, cmp_f);
	printf("{\"ops\":%zu,\"secs\":%.6f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", n,
	       t - t0, lat[n / 2], lat[n * 99 / 100]);
	return 0;
}

struct sjob {
	const char *dir;
	int id;
	double secs;
	size_t n;
};

static void *sync_worker(void *arg)
{
	struct sjob *j = arg;
	char path[4096], *buf = pages(4096);
	memset(buf, 'a' + j->id, 4096);
	snprintf(path, sizeof path, "%s/sync%d", j->dir, j->id);
	int fd = open(path, O_CREAT | O_RDWR, 0644);
	if (fd < 0)
		die(path);
	for (int i = 0; i < 256; i++)
		if (write(fd, buf, 4096) != 4096)
			die("write");
	if (fsync(fd))
		die("fsync");
	double t0 = now();
	for (uint64_t x = j->id + 1; now() - t0 < j->secs; j->n++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		*(uint64_t *)buf = x;
		if (pwrite(fd, buf, 4096, (x >> 40) % 256 * 4096) != 4096)
			die("pwrite");
		if (fsync(fd))
			die("fsync");
	}
	close(fd);
	unlink(path);
	return 0;
}

static int syncmt(char **a)
{
	int threads = atoi(a[2]);
	pthread_t th[64];
	struct sjob j[64];
	size_t sum = 0;
	if (threads < 1 || threads > 64)
		die("threads");
	for (int i = 0; i < threads; i++) {
		j[i] = (struct sjob){ a[0], i, atof(a[1]), 0 };
		pthread_create(&th[i], 0, sync_worker, &j[i]);
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(th[i], 0);
		sum += j[i].n;
	}
	printf("{\"ops\":%zu,\"secs\":%.6f}\n", sum, atof(a[1]));
	return 0;
}

static int ow4k(char **a)
{
	size_t ops = strtoull(a[1], 0, 0), n = 0;
	rng_state += strtoull(a[2], 0, 0) * 7919;
	double cap = atof(a[3]);
	int fd = open(a[0], O_RDWR);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) || st.st_size < 4096)
		die(a[0]);
	char *buf = pages(4096);
	for (int i = 0; i < 512; i++)
		((uint64_t *)buf)[i] = rng();
	double t0 = now();
	for (; n < ops; n++) {
		*(uint64_t *)buf = rng();
		if (pwrite(fd, buf, 4096, rng() % (st.st_size / 4096) * 4096) != 4096)
			die("pwrite");
		if ((n & 63) == 0 && now() - t0 > cap)
			break;
	}
	if (fsync(fd))
		die("fsync");
	printf("{\"ops\":%zu,\"secs\":%.6f}\n", n, now() - t0);
	return 0;
}

struct job {
	const char *phase, *dir;
	int id;
	size_t n, done, bytes;
	double cap, t0;
};

static void *worker(void *arg)
{
	struct job *j = arg;
	char path[4096], *body = calloc(1, j->bytes + 1);
	memset(body, 'a' + j->id, j->bytes);
	int create = !strcmp(j->phase, "create"), list = !strcmp(j->phase, "list");
	int unl = !strcmp(j->phase, "unlink");
	struct stat st;
	for (size_t i = 0; i < j->n; i++) {
		size_t d = i / PER_DIR;
		if (create && i % PER_DIR == 0) {
			if (i == 0) {
				snprintf(path, sizeof path, "%s/t%d", j->dir, j->id);
				if (mkdir(path, 0755) && errno != EEXIST)
					die(path);
			}
			snprintf(path, sizeof path, "%s/t%d/d%05zu", j->dir, j->id, d);
			if (mkdir(path, 0755))
				die(path);
		}
		if (list) {
			snprintf(path, sizeof path, "%s/t%d/d%05zu", j->dir, j->id, d);
			DIR *dp = opendir(path);
			if (!dp)
				die(path);
			struct dirent *e;
			while ((e = readdir(dp))) {
				if (e->d_name[0] == '.')
					continue;
				if (fstatat(dirfd(dp), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
					die(e->d_name);
				j->done++;
			}
			closedir(dp);
			i = (d + 1) * PER_DIR - 1;
			continue;
		}
		snprintf(path, sizeof path, "%s/t%d/d%05zu/f%06zu", j->dir, j->id, d, i);
		if (create) {
			int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
			if (fd < 0)
				die(path);
			if (j->bytes && write(fd, body, j->bytes) != (ssize_t)j->bytes)
				die("write");
			if (close(fd))
				die("close");
		} else if (unl) {
			if (unlink(path))
				die(path);
			if (i % PER_DIR == PER_DIR - 1 || i == j->n - 1) {
				snprintf(path, sizeof path, "%s/t%d/d%05zu", j->dir, j->id, d);
				if (rmdir(path))
					die(path);
			}
		} else if (stat(path, &st))
			die(path);
		j->done++;
		if (create && (i & 15) == 15 && now() - j->t0 > j->cap)
			break;
	}
	if (unl) {
		snprintf(path, sizeof path, "%s/t%d", j->dir, j->id);
		rmdir(path);
	}
	free(body);
	return 0;
}

static int tree(const char *phase, char **a, int argc)
{
	int threads = atoi(a[2]);
	struct job j[64];
	pthread_t th[64];
	if (threads < 1 || threads > 64)
		die("threads");
	char *list = a[1];
	double t0 = now();
	for (int i = 0; i < threads; i++) {
		size_t n = strtoull(list, &list, 0);
		if (*list == ',')
			list++;
		if (!strcmp(phase, "create")) {
			n = strtoull(a[1], 0, 0) / threads;
			list = a[1];
		}
		j[i] = (struct job){ phase, a[0], i, n, 0,
				     argc > 4 ? strtoull(a[4], 0, 0) : 0,
				     argc > 3 ? atof(a[3]) : 1e9, t0 };
	}
	for (int i = 0; i < threads; i++)
		pthread_create(&th[i], 0, worker, &j[i]);
	size_t sum = 0;
	for (int i = 0; i < threads; i++) {
		pthread_join(th[i], 0);
		sum += j[i].done;
	}
	double t = now() - t0;
	printf("{\"ops\":%zu,\"secs\":%.6f,\"counts\":\"", sum, t);
	for (int i = 0; i < threads; i++)
		printf("%s%zu", i ? "," : "", j[i].done);
	printf("\"}\n");
	return 0;
}

static const char *op_path;
static _Atomic int op_stop;
static void *op_worker(void *arg)
{
	size_t *n = arg;
	struct stat st;
	while (!atomic_load_explicit(&op_stop, memory_order_relaxed)) {
		if (stat(op_path, &st))
			die(op_path);
		(*n)++;
	}
	return 0;
}

static int opstat(char **a)
{
	int threads = atoi(a[2]);
	pthread_t th[64];
	size_t n[64] = { 0 }, sum = 0;
	op_path = a[0];
	double t0 = now();
	for (int i = 0; i < threads; i++)
		pthread_create(&th[i], 0, op_worker, &n[i]);
	usleep(atof(a[1]) * 1e6);
	op_stop = 1;
	for (int i = 0; i < threads; i++) {
		pthread_join(th[i], 0);
		sum += n[i];
	}
	printf("{\"ops\":%zu,\"secs\":%.6f}\n", sum, now() - t0);
	return 0;
}

int main(int c, char **v)
{
	const char *m = c > 1 ? v[1] : "";
	if (!strcmp(m, "seqw") && c == 7)
		return seqw(v + 2);
	if (!strcmp(m, "seqr") && c == 5)
		return seqr(v + 2);
	if (!strcmp(m, "sync4k") && c == 5)
		return sync4k(v + 2);
	if (!strcmp(m, "syncmt") && c == 5)
		return syncmt(v + 2);
	if (!strcmp(m, "ow4k") && c == 6)
		return ow4k(v + 2);
	if (!strcmp(m, "opstat") && c == 5)
		return opstat(v + 2);
	if ((!strcmp(m, "create") && c == 7) || (!strcmp(m, "stat") && c == 5) ||
	    (!strcmp(m, "list") && c == 5) || (!strcmp(m, "unlink") && c == 5))
		return tree(m, v + 2, c - 2);
	fprintf(stderr, "usage: see the top of fsload.c\n");
	return 2;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the probe's cases share: notes, identities, files. */
#include "probe.h"

#include <grp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define TICK_NS 12000000 /* three jiffies at 250 Hz */

/* --- notes --- */

const char *probe_errno(int err)
{
	const char *name = err ? strerrorname_np(err) : "ok";

	return name ? name : "unknown";
}

void probe_see(struct probe *p, const char *key, const char *fmt, ...)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "%s%s%s=", p->scope, p->scope[0] ? "." : "", key);
	va_list ap;

	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	for (int i = 0; i < n; i++)
		if (line[i] == ' ' || line[i] == '\n' || line[i] == '"' || line[i] == '\\')
			line[i] = '_';
	line[n++] = '\n';
	if (write(p->out, line, (size_t)n) != n)
		_exit(9);
}

long probe_try(struct probe *p, const char *key, long r)
{
	const int err = errno;

	probe_see(p, key, "%s", r < 0 ? probe_errno(err) : "ok");
	errno = err;
	return r;
}

void probe_need(struct probe *p, bool ok, const char *what)
{
	const int err = errno;

	if (ok)
		return;
	probe_see(p, "FAILED", "%s:%s", what, probe_errno(err));
	_exit(3);
}

/* --- tools --- */

bool probe_become(struct probe *p, enum probe_who who)
{
	const uid_t uid = who == USER ? USER_ID : STRANGER_ID;
	const gid_t groups[] = { uid, GROUP_ID };
	pid_t pid;
	int status;

	if (geteuid() != 0 && who != ROOT)
		return false;
	pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		if (who == ROOT)
			return true;
		NEED(setgroups(who == USER ? 2 : 1, groups) == 0);
		NEED(setresgid(uid, uid, uid) == 0);
		NEED(setresuid(uid, uid, uid) == 0);
		return true;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		probe_see(p, "DIED", "%s_%d", WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	return false;
}

void make(struct probe *p, const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	const size_t bytes = strlen(content);

	NEED(fd >= 0);
	NEED(write(fd, content, bytes) == (ssize_t)bytes);
	close(fd);
}

void make_bytes(struct probe *p, const char *path, char byte, size_t nr)
{
	char buf[65536];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	NEED(fd >= 0);
	memset(buf, byte, sizeof(buf));
	while (nr) {
		ssize_t n = write(fd, buf, nr < sizeof(buf) ? nr : sizeof(buf));

		NEED(n > 0);
		nr -= (size_t)n;
	}
	close(fd);
}

void make_mode(struct probe *p, const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	make(p, path, "content");
	NEED(chown(path, uid, gid) == 0 || geteuid());
	NEED(chmod(path, mode) == 0);
}

void make_dir(struct probe *p, const char *path, mode_t mode, uid_t uid, gid_t gid)
{
	NEED(mkdir(path, 0755) == 0);
	NEED(chown(path, uid, gid) == 0 || geteuid());
	NEED(chmod(path, mode) == 0);
}

int open_file(struct probe *p, const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	NEED(fd >= 0);
	return fd;
}

struct stat stat_of(struct probe *p, const char *path)
{
	struct stat st;

	NEED(lstat(path, &st) == 0);
	return st;
}

char type_of(const char *path)
{
	static const char types[] = "?pc?d?b?-?l?s???";
	struct stat st;

	return lstat(path, &st) < 0 ? '.' : types[st.st_mode >> 12 & 15];
}

void see_mode(struct probe *p, const char *key, const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		probe_try(p, key, -1);
	else
		probe_see(p, key, "%04o", st.st_mode & 07777);
}

void see_owner(struct probe *p, const char *key, const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		probe_try(p, key, -1);
	else
		probe_see(p, key, "%u:%u", st.st_uid, st.st_gid);
}

uint64_t sum_of(const void *data, size_t bytes)
{
	uint64_t sum = 14695981039346656037ull; /* FNV-1a */

	for (size_t i = 0; i < bytes; i++)
		sum = (sum ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
	return sum;
}

void see_content(struct probe *p, const char *key, const char *path)
{
	struct stat st;
	void *buf;
	int fd = open(path, O_RDONLY);

	NEED(fd >= 0);
	NEED(fstat(fd, &st) == 0);
	NEED(st.st_size <= 64 << 20);
	buf = calloc(1, (size_t)st.st_size + 1);
	NEED(buf);
	for (off_t at = 0; at < st.st_size;) {
		ssize_t n = pread(fd, (char *)buf + at, (size_t)(st.st_size - at), at);

		NEED(n > 0);
		at += n;
	}
	probe_see(p, key, "%lld:%016llx", (long long)st.st_size, (unsigned long long)sum_of(buf, (size_t)st.st_size));
	free(buf);
	close(fd);
}

void copy_program(struct probe *p, const char *from, const char *to)
{
	int in = open_file(p, from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT, 0755);
	char buf[65536];
	ssize_t n;

	NEED(out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		NEED(write(out, buf, (size_t)n) == n);
	close(in);
	close(out);
}

void drop_pages(struct probe *p, const char *path)
{
	static unsigned char in_core[1024];
	int fd = open_file(p, path, O_RDONLY);
	struct stat st;
	bool any = true;
	void *map;

	NEED(fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= (off_t)sizeof(in_core) * 4096);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	NEED(map != MAP_FAILED);
	for (int i = 0; i < 200 && any; i++) { /* those being read ahead stay */
		NEED(fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0 && mincore(map, (size_t)st.st_size, in_core) == 0);
		any = memchr(in_core, 1, ((size_t)st.st_size + 4095) / 4096) != NULL;
		if (any)
			tick();
	}
	probe_need(p, !any, "pages_dropped");
	munmap(map, (size_t)st.st_size);
	close(fd);
}

void tick(void)
{
	const struct timespec ts = { .tv_nsec = TICK_NS };

	nanosleep(&ts, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two processes at once: what must hold at every moment. */
#include "probe.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

#define STABLE 200
#define TURNS 300

static pid_t start(struct probe *p)
{
	pid_t pid = fork();

	NEED(pid >= 0);
	return pid;
}

static int finish(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return status;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	finish(pid);
}

/* Others come and go while it is listed: these are in every listing, once. */
static void race_listing(struct probe *p)
{
	unsigned missed = 0, twice = 0, broken = 0;
	char name[64];
	pid_t pid;

	make_dir(p, "d", 0755, 0, 0);
	for (int i = 0; i < STABLE; i++) {
		snprintf(name, sizeof(name), "d/s%03d", i);
		NEED(mknod(name, S_IFREG | 0644, 0) == 0);
	}
	pid = start(p);
	if (!pid)
		for (unsigned i = 0;; i++) {
			snprintf(name, sizeof(name), "d/x%u", i % 50);
			if (mknod(name, S_IFREG | 0644, 0) < 0)
				unlink(name);
		}
	for (int turn = 0; turn < 100; turn++) {
		unsigned seen[STABLE] = { 0 };
		DIR *d = opendir("d");
		struct dirent *e;
		int i;

		NEED(d);
		for (errno = 0; (e = readdir(d)); errno = 0)
			if (sscanf(e->d_name, "s%d", &i) == 1)
				seen[i]++;
		broken += errno != 0;
		closedir(d);
		for (i = 0; i < STABLE; i++) {
			missed += !seen[i];
			twice += seen[i] > 1;
		}
	}
	stop(pid);
	SEE("missed", "%u", missed);
	SEE("twice", "%u", twice);
	SEE("broken", "%u", broken);
}

/* A name that is replaced again and again leads to one whole file or another. */
static void race_replace(struct probe *p)
{
	unsigned missing = 0, torn = 0;
	char buf[5000];
	pid_t pid;

	make_bytes(p, "target", 'a', 4096);
	pid = start(p);
	if (!pid)
		for (unsigned i = 0;; i++) {
			make_bytes(p, "new", (char)('a' + i % 26), 4096);
			if (rename("new", "target") < 0)
				_exit(1);
		}
	for (int turn = 0; turn < TURNS; turn++) {
		int fd = open("target", O_RDONLY);
		ssize_t n;

		if (fd < 0) {
			missing++;
			continue;
		}
		n = read(fd, buf, sizeof(buf));
		for (ssize_t i = 1; i < n; i++)
			torn += buf[i] != buf[0];
		torn += n != 4096;
		close(fd);
	}
	stop(pid);
	SEE("missing", "%u", missing);
	SEE("torn", "%u", torn);
}

/* Of two that make a name, one has made it. */
static void race_exclusive(struct probe *p)
{
	int fds[2], won = 0, others = 0;
	char name[32];
	pid_t pid;

	NEED(pipe(fds) == 0);
	pid = start(p);
	for (int i = 0; i < TURNS; i++) {
		int fd;

		snprintf(name, sizeof(name), "f%d", i);
		fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0 && errno != EEXIST)
			_exit(1);
		won += fd >= 0;
		close(fd);
	}
	if (!pid)
		_exit(write(fds[1], &won, sizeof(won)) != sizeof(won));
	NEED(read(fds[0], &others, sizeof(others)) == sizeof(others));
	SEE("ended", "%d", finish(pid));
	SEE("made", "%d", won + others);
}

/* Moved back and forth between two directories, it has one name at every moment, or the two of a moment between. */
static void race_move(struct probe *p)
{
	unsigned lost = 0;
	pid_t pid;

	make_dir(p, "a", 0755, 0, 0);
	make_dir(p, "b", 0755, 0, 0);
	make_dir(p, "a/m", 0755, 0, 0);
	make(p, "a/m/in", "in");
	pid = start(p);
	if (!pid)
		for (;;)
			if (rename("a/m", "b/m") < 0 || rename("b/m", "a/m") < 0)
				_exit(1);
	for (int turn = 0; turn < TURNS; turn++) {
		int tries = 0;

		/* It may move between the two looks, but not for ever. */
		while (access("a/m/in", F_OK) < 0 && access("b/m/in", F_OK) < 0 && tries < 100)
			tries++;
		lost += tries == 100;
	}
	stop(pid);
	SEE("lost", "%u", lost);
	SEE("links", "%lu", (unsigned long)(stat_of(p, "a").st_nlink + stat_of(p, "b").st_nlink));
}

/* One writes a block of one letter, and another; a reader never sees both in what was written by one call within a page. */
static void race_pages(struct probe *p)
{
	unsigned torn = 0, wrong_size = 0;
	char buf[4096];
	int fd;
	pid_t pid;

	make_bytes(p, "f", 'a', 4096);
	fd = open_file(p, "f", O_RDWR);
	pid = start(p);
	if (!pid)
		for (unsigned i = 0;; i++) {
			memset(buf, 'a' + (int)(i % 26), sizeof(buf));
			if (pwrite(fd, buf, sizeof(buf), 0) != sizeof(buf))
				_exit(1);
		}
	for (int turn = 0; turn < TURNS; turn++) {
		int d = open("f", O_RDONLY | O_DIRECT);
		static char page[4096] __attribute__((aligned(4096)));

		NEED(d >= 0);
		wrong_size += pread(d, page, sizeof(page), 0) != sizeof(page);
		for (size_t i = 1; i < sizeof(page); i++)
			torn += page[i] != page[0];
		close(d);
	}
	stop(pid);
	SEE("torn", "%u", torn);
	SEE("wrong_size", "%u", wrong_size);
}

const struct probe_case race_cases[] = {
	{ "race_listing", race_listing, "" },
	{ "race_replace", race_replace, "" },
	{ "race_exclusive", race_exclusive, "" },
	{ "race_move", race_move, "" },
	{ "race_pages", race_pages, "" },
	{ 0 },
};

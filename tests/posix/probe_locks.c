/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flock, POSIX and OFD locks between processes, and leases. */
#include "probe.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

static int lock(int fd, int cmd, short type, off_t from, off_t bytes)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = bytes };

	return fcntl(fd, cmd, &l);
}

/* In another process, with a descriptor of its own. */
#define OTHER(key, call)                                 \
	do {                                             \
		pid_t pid_ = fork();                     \
		NEED(pid_ >= 0);                         \
		if (!pid_) {                             \
			int fd = open("f", O_RDWR);      \
			NEED(fd >= 0);                   \
			TRY(key, call);                  \
			_exit(0);                        \
		}                                        \
		waitpid(pid_, NULL, 0);                  \
	} while (0)

static void lock_flock(struct probe *p)
{
	int mine, again;

	make(p, "f", "f");
	mine = open_file(p, "f", O_RDWR);
	again = open_file(p, "f", O_RDWR);
	TRY("exclusive", flock(mine, LOCK_EX | LOCK_NB));
	TRY("same_process", flock(again, LOCK_EX | LOCK_NB));
	OTHER("other_ex", flock(fd, LOCK_EX | LOCK_NB));
	OTHER("other_sh", flock(fd, LOCK_SH | LOCK_NB));
	OTHER("inherited", flock(mine + (fd & 0), LOCK_SH | LOCK_NB));
	TRY("downgrade", flock(mine, LOCK_SH | LOCK_NB));
	OTHER("other_sh2", flock(fd, LOCK_SH | LOCK_NB));
	OTHER("other_ex2", flock(fd, LOCK_EX | LOCK_NB));
	TRY("unlock", flock(mine, LOCK_UN));
	OTHER("other_ex3", flock(fd, LOCK_EX | LOCK_NB));
	TRY("posix_beside", lock(mine, F_SETLK, F_WRLCK, 0, 0));
	OTHER("flock_beside_posix", flock(fd, LOCK_EX | LOCK_NB));
	close(mine);
	OTHER("after_close", flock(fd, LOCK_EX | LOCK_NB));
	TRY("on_dir", flock(open(".", O_RDONLY), LOCK_EX | LOCK_NB));
	TRY("on_read_only", flock(open("f", O_RDONLY), LOCK_EX | LOCK_NB));
	TRY("bad", flock(again, 99));
}

static void see_blocker(struct probe *p, const char *key, int fd, off_t from, off_t bytes, pid_t parent)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = bytes };

	if (fcntl(fd, F_GETLK, &l) < 0)
		probe_try(p, key, -1);
	else if (l.l_type == F_UNLCK)
		SEE(key, "free");
	else
		SEE(key, "%d:%lld:%lld:%d", l.l_type, (long long)l.l_start, (long long)l.l_len, l.l_pid == parent);
}

static void lock_posix(struct probe *p)
{
	const pid_t me = getpid();
	pid_t pid;
	int mine;

	make(p, "f", "0123456789");
	mine = open_file(p, "f", O_RDWR);
	TRY("write", lock(mine, F_SETLK, F_WRLCK, 10, 10));
	TRY("read", lock(mine, F_SETLK, F_RDLCK, 30, 10));
	OTHER("other_overlap", lock(fd, F_SETLK, F_RDLCK, 15, 1));
	OTHER("other_beside", lock(fd, F_SETLK, F_WRLCK, 0, 10));
	OTHER("other_after", lock(fd, F_SETLK, F_WRLCK, 20, 10));
	OTHER("other_read_read", lock(fd, F_SETLK, F_RDLCK, 35, 1));
	OTHER("other_write_read", lock(fd, F_SETLK, F_WRLCK, 35, 1));
	OTHER("other_to_end", lock(fd, F_SETLK, F_RDLCK, 5, 0));
	pid = fork();
	if (!pid) {
		int fd = open_file(p, "f", O_RDWR);

		see_blocker(p, "getlk", fd, 0, 0, me);
		see_blocker(p, "getlk_free", fd, 100, 10, me);
		see_blocker(p, "getlk_read", fd, 32, 1, me);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	TRY("split", lock(mine, F_SETLK, F_UNLCK, 13, 2));
	OTHER("in_split", lock(fd, F_SETLK, F_WRLCK, 13, 2));
	OTHER("beside_split", lock(fd, F_SETLK, F_WRLCK, 12, 1));
	/* Closing any descriptor of the file drops the process' locks. */
	close(open("f", O_RDONLY));
	OTHER("after_any_close", lock(fd, F_SETLK, F_WRLCK, 0, 0));
	TRY("write_on_read_only", lock(open("f", O_RDONLY), F_SETLK, F_WRLCK, 0, 1));
	TRY("read_on_write_only", lock(open("f", O_WRONLY), F_SETLK, F_RDLCK, 0, 1));
	TRY("negative", lock(mine, F_SETLK, F_WRLCK, -1, 1));
	TRY("bad_type", lock(mine, F_SETLK, 77, 0, 1));
	TRY("backward", lock(mine, F_SETLK, F_WRLCK, 10, -5));
	OTHER("backward_9", lock(fd, F_SETLK, F_WRLCK, 9, 1));
	OTHER("backward_10", lock(fd, F_SETLK, F_WRLCK, 10, 1));
}

static bool sleeps(pid_t pid)
{
	char path[64], state = '?';

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (int i = 0; i < 500 && state != 'S'; i++) {
		FILE *f = fopen(path, "r");

		tick();
		if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = '?';
		if (f)
			fclose(f);
	}
	return state == 'S';
}

/* One waits until the other lets go, and a circle is noticed. */
static void lock_waits(struct probe *p)
{
	int to_child[2], to_parent[2], fd, r, status;
	char c = 0;
	pid_t pid;

	make(p, "f", "f");
	NEED(pipe(to_child) == 0 && pipe(to_parent) == 0);
	fd = open_file(p, "f", O_RDWR);
	TRY("mine", lock(fd, F_SETLK, F_WRLCK, 0, 1));
	pid = fork();
	NEED(pid >= 0);
	if (!pid) {
		int f = open_file(p, "f", O_RDWR);

		r = lock(f, F_SETLK, F_WRLCK, 1, 1);
		NEED(r == 0 && write(to_parent[1], "1", 1) == 1);
		r = lock(f, F_SETLKW, F_WRLCK, 0, 1); /* waits for the parent */
		_exit(r < 0 ? errno : 0);
	}
	NEED(read(to_parent[0], &c, 1) == 1);
	NEED(sleeps(pid)); /* in the call: nothing else of it can wait */
	TRY("circle", lock(fd, F_SETLKW, F_WRLCK, 1, 1));
	SEE("waiting", "%d", waitpid(pid, &status, WNOHANG) == 0);
	TRY("let_go", lock(fd, F_SETLK, F_UNLCK, 0, 1));
	waitpid(pid, &status, 0);
	SEE("got_it", "%s", probe_errno(WEXITSTATUS(status)));
}

static void lock_ofd(struct probe *p)
{
	int a, b;

	make(p, "f", "f");
	a = open_file(p, "f", O_RDWR);
	b = open_file(p, "f", O_RDWR);
	TRY("a", lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	TRY("b_same_process", lock(b, F_OFD_SETLK, F_WRLCK, 5, 1));
	TRY("b_beside", lock(b, F_OFD_SETLK, F_WRLCK, 10, 1));
	TRY("posix_conflicts", lock(b, F_SETLK, F_WRLCK, 0, 1));
	OTHER("other", lock(fd, F_OFD_SETLK, F_WRLCK, 0, 1));
	OTHER("shared_description", lock(a + (fd & 0), F_OFD_SETLK, F_WRLCK, 0, 10));
	close(open("f", O_RDONLY));
	OTHER("kept_after_other_close", lock(fd, F_OFD_SETLK, F_WRLCK, 0, 1));
	close(a);
	TRY("after_close", lock(b, F_OFD_SETLK, F_WRLCK, 0, 10));
}

static void lock_leases(struct probe *p)
{
	int fd;

	make(p, "f", "f");
	signal(SIGIO, SIG_IGN);
	fd = open_file(p, "f", O_RDONLY);
	TRY("read", fcntl(fd, F_SETLEASE, F_RDLCK));
	SEE("get", "%d", fcntl(fd, F_GETLEASE));
	TRY("unlock", fcntl(fd, F_SETLEASE, F_UNLCK));
	close(fd);
	fd = open_file(p, "f", O_RDWR);
	TRY("write", fcntl(fd, F_SETLEASE, F_WRLCK));
	TRY("read_while_writer", fcntl(fd, F_SETLEASE, F_RDLCK));
}

const struct probe_case lock_cases[] = {
	{ "lock_flock", lock_flock, "" },
	{ "lock_posix", lock_posix, "" },
	{ "lock_waits", lock_waits, "" },
	{ "lock_ofd", lock_ofd, "" },
	{ "lock_leases", lock_leases, "" },
	{ 0 },
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parent: pools and rounds by a seed; kills, damages members, watches that everything goes on, and says what it was. */
#include <fcntl.h>
#include <dirent.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define ROUNDS_A_POOL 10
#define SB_BYTES TER_KIB(256)
#define LAST_BYTES TER_KIB(64)

struct st_shared *st;

static struct {
	uint64_t seed, rnd;
	unsigned seconds, members, round, pools, kills, stops, exits, emergencies, damaged;
	char dir[96];
	uint64_t fired;
	int only_mode;
	bool tiny;
} run = { .seconds = 60, .dir = "/tmp", .only_mode = -1 };

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void summary(const char *verdict)
{
	uint64_t attempts = 0;

	for (unsigned i = 0; i < ST_THREADS_MAX; i++)
		attempts += atomic_load(&st->thread[i].attempts);
	printf("%s: seed %llu, %u rounds, %u pools: %llu operations (%llu in shared directories, %llu syncs, %llu refused, %llu of these for space), %u kills, %u clean stops, "
	       "%u abrupt ends, %u emergencies, %llu recoveries, %llu flips, %llu checks, %llu faults fired, %llu degraded writes, %llu unsynced operations lost, "
	       "%u blocks damaged, %llu repaired\n",
	       verdict, (unsigned long long)run.seed, run.round, run.pools, (unsigned long long)attempts, (unsigned long long)st->wild, (unsigned long long)st->syncs,
	       (unsigned long long)st->refused, (unsigned long long)st->enospc, run.kills, run.stops, run.exits, run.emergencies, (unsigned long long)st->replays,
	       (unsigned long long)st->flips, (unsigned long long)st->fscks, (unsigned long long)st->faults, (unsigned long long)st->degraded,
	       (unsigned long long)st->lost_ops, run.damaged, (unsigned long long)st->repaired);
}

static void repeat_line(void)
{
	printf("again: stress --seconds %u --seed %llu", run.seconds, (unsigned long long)run.seed);
	if (run.members)
		printf(" --members %u", run.members);
	if (run.tiny)
		printf(" --tiny-journal");
	if (run.only_mode >= 0)
		printf(" --mode %s", st_mode_names[run.only_mode]);
	printf(" --dir %s\n", run.dir);
}

static void remove_pool(void)
{
	for (unsigned i = 0; i < ST_MEMBERS_MAX; i++)
		if (st->pool.path[i][0])
			unlink(st->pool.path[i]);
}

static void failed(const char *what) __attribute__((noreturn));
static void failed(const char *what)
{
	const struct st_pool *p = &st->pool;

	fflush(stderr);
	printf("%s in round %u, pool %u (%s, %u members, victim %u%s, %u threads, blocks %u, buckets %u, nodes %u, journal %llu), backend %s; was doing: %s\n", what,
	       run.round, run.pools, st_mode_names[p->mode], p->members, p->victim, st->round.absent ? " absent" : "", p->threads, p->block, p->bucket, p->node,
	       (unsigned long long)p->journal, st->round.uring ? "uring" : "threads", st->doing);
	for (unsigned i = 0; i < p->threads; i++)
		printf("  thread %u: %s\n", i, st->thread[i].doing);
	for (unsigned i = 0; i < p->members; i++)
		printf("  kept: %s\n", p->path[i]);
	summary("FAILED");
	repeat_line();
	fflush(stdout);
	_exit(1);
}

/* --- pools --- */

static void init_locks(void)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	for (unsigned i = 0; i < ST_THREADS_MAX; i++)
		pthread_mutex_init(&st->thread[i].lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

static void choose_pool(void)
{
	static const uint32_t blocks[] = { 4096, 4096, 4096, 1024, 512, 8192 }, buckets[] = { 65536, 65536, 131072, 262144 }, nodes[] = { 16384, 16384, 32768, 65536 };
	static const unsigned journal_buckets[] = { 8, 16, 32, 64 };
	static const uint32_t flush_ms[] = { 20, 100, 1000 };
	struct st_pool *p = &st->pool;

	remove_pool();
	memset(p, 0, sizeof(*p));
	memset(st->filler, 0, sizeof(st->filler));
	p->tag = st_rnd(&run.rnd);
	p->members = run.members ? run.members : ST_MEMBERS_MIN + st_below(&run.rnd, ST_MEMBERS_MAX - ST_MEMBERS_MIN + 1);
	p->threads = 3 + st_below(&run.rnd, ST_THREADS_MAX - 2);
	p->victim = st_below(&run.rnd, p->members);
	p->mode = (enum st_mode)st_below(&run.rnd, ST_MODES);
	if (run.only_mode >= 0)
		p->mode = (enum st_mode)run.only_mode;
	p->block = blocks[st_below(&run.rnd, 6)];
	p->bucket = buckets[st_below(&run.rnd, 4)];
	p->node = nodes[st_below(&run.rnd, 4)];
	p->journal = (uint64_t)journal_buckets[st_below(&run.rnd, 4)] * p->bucket;
	if (run.tiny)
		p->journal = 8 * p->bucket;
	p->journal_ms = flush_ms[st_below(&run.rnd, 3)];
	for (unsigned i = 0; i < p->members; i++) {
		int fd;

		p->bytes[i] = TER_MIB(33) + (uint64_t)st_below(&run.rnd, 65) * TER_MIB(1);
		snprintf(p->path[i], sizeof(p->path[i]), "%s/stress-%d-member%u", run.dir, (int)getpid(), i);
		fd = open(p->path[i], O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, (off_t)p->bytes[i]) < 0)
			failed("a member's file cannot be made");
		close(fd);
	}
	for (unsigned i = 0; i < ST_THREADS_MAX; i++) {
		struct st_thread *t = &st->thread[i];

		memset(&t->m, 0, sizeof(t->m));
		t->first = t->nr = t->floor = 0;
		t->first_end = 0;
		memset(t->live, 0, sizeof(t->live));
	}
	run.pools++;
}

/* A few blocks anywhere on the victim, but where its superblocks are. */
static void damage(void)
{
	const struct st_pool *p = &st->pool;
	const unsigned nr = 1 + st_below(&run.rnd, st_below(&run.rnd, 2) ? 10 : 400);
	const int fd = open(p->path[p->victim], O_WRONLY | O_CLOEXEC);
	uint8_t buf[4096];

	for (unsigned i = 0; i < nr; i++) {
		const uint64_t blocks = (p->bytes[p->victim] - SB_BYTES - LAST_BYTES) / sizeof(buf);
		const uint64_t at = SB_BYTES + st_rnd(&run.rnd) % blocks * sizeof(buf);
		const unsigned bytes = st_below(&run.rnd, 2) ? sizeof(buf) : 1 + st_below(&run.rnd, sizeof(buf));

		for (unsigned k = 0; k < bytes; k += 8) {
			const uint64_t word = st_rnd(&run.rnd);

			memcpy(buf + k, &word, ter_min(bytes - k, 8u));
		}
		if (pwrite(fd, buf, bytes, (off_t)at) != (ssize_t)bytes)
			failed("damaging a member");
	}
	close(fd);
	run.damaged += nr;
}

/* --- watching --- */

struct watch {
	uint64_t seen[ST_THREADS_MAX + 1];
	double since[ST_THREADS_MAX + 1];
};

static void dump(pid_t pid)
{
	char path[64], line[256];
	struct dirent *d;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	while (tasks && (d = readdir(tasks))) {
		char file[400];
		FILE *f;

		if (d->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s/comm", path, d->d_name);
		f = fopen(file, "r");
		if (f && fgets(line, sizeof(line), f))
			fprintf(stderr, "-- task %s: %s", d->d_name, line);
		if (f)
			fclose(f);
		syscall(SYS_tgkill, pid, atoi(d->d_name), ST_DUMP_SIGNAL);
		st_sleep_ms(30);
	}
	if (tasks)
		closedir(tasks);
}

/* T: nothing stands still for a minute: the main and control work, and each thread by itself. */
static void watch(struct watch *w, pid_t pid)
{
	const double t = now();

	for (unsigned i = 0; i <= ST_THREADS_MAX; i++) {
		const uint64_t at = i < ST_THREADS_MAX ? atomic_load(&st->thread[i].attempts) : atomic_load(&st->ticks);
		const bool idle = i < ST_THREADS_MAX && (i >= st->pool.threads || !atomic_load(&st->running) || atomic_load(&st->quiet));

		if (at != w->seen[i] || idle || !w->since[i]) {
			w->seen[i] = at;
			w->since[i] = t;
		} else if (t - w->since[i] > ST_HANG_SECONDS) {
			fprintf(stderr, "%s %u has made no progress for %d s\n", i < ST_THREADS_MAX ? "thread" : "main", i, ST_HANG_SECONDS);
			dump(pid);
			kill(pid, SIGKILL);
			failed("HANG");
		}
	}
}

/* With every lock held nobody is half-way through a change of what we keep. */
static void kill_between_changes(pid_t pid)
{
	for (unsigned i = 0; i < st->pool.threads; i++) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += ST_HANG_SECONDS;
		if (pthread_mutex_timedlock(&st->thread[i].lock, &until)) {
			dump(pid);
			kill(pid, SIGKILL);
			failed("HANG (a lock of the test is held)");
		}
	}
	kill(pid, SIGKILL);
}

/* --- rounds --- */

enum { END_KILL, END_STOP, END_EXIT, END_EMERGENCY, END_SELF };

static void run_child(int end, unsigned delay_ms, bool from_running)
{
	struct watch w = { 0 };
	double until = now() + delay_ms / 1000.0, begun = 0;
	bool told = false;
	int status;
	pid_t pid;

	init_locks();
	atomic_store(&st->request, ST_GO);
	atomic_store(&st->running, false);
	atomic_store(&st->quiet, false);
	atomic_store(&st->faulty, false);
	atomic_store(&st->ro, false);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		failed("fork");
	if (!pid)
		st_child();
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (from_running && !begun && atomic_load(&st->running)) {
			begun = now();
			until = begun + delay_ms / 1000.0;
		}
		if (!told && end != END_SELF && (!from_running || begun > 0) && now() >= until) {
			told = true;
			if (end == END_KILL)
				kill_between_changes(pid);
			else
				atomic_store(&st->request, end == END_STOP ? ST_STOP : end == END_EXIT ? ST_EXIT_NOW : ST_EMERGENCY);
		}
		watch(&w, pid);
		st_sleep_ms(2);
	}
	if (WIFSIGNALED(status)) {
		if (end == END_KILL && told && WTERMSIG(status) == SIGKILL) {
			run.kills++;
			return;
		}
		fprintf(stderr, "the child died of signal %d\n", WTERMSIG(status));
		failed("CRASH");
	}
	if (WEXITSTATUS(status) == ST_EXIT_EMERGENCY && (st->pool.mode == ST_FAULTS || end == END_EMERGENCY))
		run.emergencies++;
	else if (WEXITSTATUS(status) != ST_EXIT_OK)
		failed("FINDING");
	else if (end == END_EXIT)
		run.exits++;
	else
		run.stops++;
}

static void a_round(bool last)
{
	const unsigned how = st_below(&run.rnd, 100);
	const int end = how < 62 ? END_KILL : how < 85 ? END_STOP : how < 95 ? END_EXIT : END_EMERGENCY;
	const bool early = st_chance(&run.rnd, 25);
	const unsigned delay = early ? st_below(&run.rnd, 400) : 20 + st_below(&run.rnd, st_below(&run.rnd, 2) ? 300 : 2500);

	run.round++;
	st->round = (struct st_round){
		.seed = st_rnd(&run.rnd), .uring = st_chance(&run.rnd, 75), .look_first = st_chance(&run.rnd, 20), .load = !last,
		.absent = st->pool.mode == ST_ABSENT && st_chance(&run.rnd, 40),
	};
	if (st->pool.mode == ST_DAMAGE && st_chance(&run.rnd, 60))
		damage();
	run_child(last ? END_SELF : end, delay, !early);
}

static void a_pool(double until)
{
	choose_pool();
	st->round = (struct st_round){ .seed = st_rnd(&run.rnd), .uring = true, .format = true };
	run_child(END_SELF, 0, false);
	for (unsigned i = 0; i < ROUNDS_A_POOL && now() < until; i++)
		a_round(false);
	a_round(true);
	remove_pool();
}

static void arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' }, { "seed", required_argument, NULL, 'S' }, { "members", required_argument, NULL, 'm' },
		{ "tiny-journal", no_argument, NULL, 't' }, { "dir", required_argument, NULL, 'd' }, { "mode", required_argument, NULL, 'M' }, { NULL, 0, NULL, 0 },
	};
	int c;

	run.seed = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 's':
			run.seconds = (unsigned)atoi(optarg);
			break;
		case 'S':
			run.seed = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			run.members = (unsigned)atoi(optarg);
			break;
		case 't':
			run.tiny = true;
			break;
		case 'd':
			snprintf(run.dir, sizeof(run.dir), "%s", optarg);
			break;
		case 'M':
			for (int m = 0; m < ST_MODES; m++)
				if (!strcmp(optarg, st_mode_names[m]))
					run.only_mode = m;
			if (run.only_mode >= 0)
				break;
			/* fallthrough */
		default:
			fprintf(stderr, "stress [--seconds N] [--seed S] [--members 3..6] [--mode plain|damage|absent|faults] [--tiny-journal] [--dir D]\n");
			exit(2);
		}
	if (run.members && (run.members < ST_MEMBERS_MIN || run.members > ST_MEMBERS_MAX)) {
		fprintf(stderr, "--members takes %d to %d\n", ST_MEMBERS_MIN, ST_MEMBERS_MAX);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	double until;

	arguments(argc, argv);
	st = mmap(NULL, sizeof(*st), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (st == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	run.rnd = run.seed;
	repeat_line();
	until = now() + run.seconds;
	while (now() < until)
		a_pool(until);
	summary("fine");
	return 0;
}

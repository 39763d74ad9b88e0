/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The classic device: blocking readers, one pinned to each core, on one descriptor
 *
 * The kernel wakes one sleeping reader for each request. What decides is where: on the client's core it costs some microseconds, on another, idle one up to a hundred. Measured on
 * two cores with nothing else running, creates of small files a second with one and two clients: a reader pinned to each core 9.4 and 15 thousand, one free reader 4.5 and 10,
 * one that spins 50 us before it sleeps 8.8 and 13. (With the cores kept busy by others the free reader wins, because no core sleeps.) With the ring transport one
 * reader remains, for FORGET and INTERRUPT.
 */
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"

#define STOP_SIGNAL (SIGRTMIN + 2) /* ends a blocking read; its handler does nothing */
#define FORGET_PAUSE_NS (10 * TER_NS_PER_MS)

struct reader {
	struct td_session *session;
	unsigned idx;
};

static void no_action(int sig)
{
	(void)sig;
}

static void pin(unsigned idx)
{
	cpu_set_t allowed, one;
	unsigned nr = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nr++ == idx) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			(void)sched_setaffinity(0, sizeof(one), &one); /* a wish */
			return;
		}
}

static void serve(struct td_session *s, const uint8_t *buf, size_t bytes)
{
	const struct fuse_in_header *in = (const void *)buf;
	bool deferred;

	if (bytes < sizeof(*in))
		return;
	td_process(s, buf, bytes, NULL, true, &deferred);
	if (deferred && td_pool_add(s, buf, bytes, NULL) < 0)
		td_reply_raw(s, in->unique, ENOMEM, NULL, 0);
}

static void *reader_thread(void *arg)
{
	struct reader *reader = arg;
	struct td_session *s = reader->session;
	const unsigned idx = reader->idx;
	sigset_t stop;
	uint8_t *buf;

	free(reader);
	/* Whoever started the session may block every signal, as tasks of the engine do. */
	sigemptyset(&stop);
	sigaddset(&stop, STOP_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
	pin(idx);
	/* Touched before use: a fatal signal during a page fault inside the read would fail the request. */
	buf = mmap(NULL, TD_REQUEST_BYTES_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		return NULL;
	while (!atomic_load(&s->stop)) {
		const ssize_t n = read(s->fd, buf, TD_REQUEST_BYTES_MAX);

		if (n >= 0) {
			serve(s, buf, (size_t)n);
			if (s->init_done && (s->init_flags & TD_FUSE_OVER_IO_URING)) {
				/* Only FORGETs come here now: gathered, they cost one wake-up instead of many. */
				nanosleep(&(struct timespec){ .tv_nsec = FORGET_PAUSE_NS }, NULL);
			}
			continue;
		}
		if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
			continue; /* a signal, or the request was taken back */
		td_session_ended(s); /* ENODEV: unmounted; anything else: no way to go on */
		break;
	}
	munmap(buf, TD_REQUEST_BYTES_MAX);
	return NULL;
}

int td_classic_start(struct td_session *s)
{
	const struct sigaction action = { .sa_handler = no_action };
	const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r = 0;

	sigaction(STOP_SIGNAL, &action, NULL);
	s->readers_wanted = s->ring || cpus < 1 ? 1 : (unsigned)ter_min(cpus, (long)TD_READERS_MAX);
	while (s->readers < s->readers_wanted) {
		struct reader *reader = malloc(sizeof(*reader));

		if (!reader) {
			r = -ENOMEM;
			break;
		}
		*reader = (struct reader){ .session = s, .idx = s->readers };
		r = -pthread_create(&s->reader[s->readers], NULL, reader_thread, reader);
		if (r < 0) {
			free(reader);
			break;
		}
		s->readers++;
	}
	return s->readers ? 0 : r;
}

void td_classic_stop(struct td_session *s)
{
	while (s->readers) {
		const pthread_t thread = s->reader[s->readers - 1];
		struct timespec until;

		/* The signal may come just before the read: again until the thread has gone. */
		for (;;) {
			pthread_kill(thread, STOP_SIGNAL);
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += 20 * 1000000;
			if (until.tv_nsec >= 1000000000) {
				until.tv_sec++;
				until.tv_nsec -= 1000000000;
			}
			if (pthread_timedjoin_np(thread, NULL, &until) == 0)
				break;
		}
		s->readers--;
	}
}

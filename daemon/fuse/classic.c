/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The classic device: blocking readers, one pinned to each core, on one descriptor
 *
 * The kernel wakes one sleeping reader for each request. What decides is where: on the client's core it costs some microseconds, on another, idle one up to a hundred; duty.c keeps
 * awake those that are where clients are. Measured before it was there, on two cores with nothing else running, creates of small files a second with one and two clients: a
 * reader pinned to each core 9.4 and 15 thousand, one free reader 4.5 and 10, one that spins 50 us before it sleeps 8.8 and 13. With the ring transport one reader
 * remains, for FORGET and INTERRUPT.
 */
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"

#define STOP_SIGNAL (SIGRTMIN + 2) /* ends a blocking read; its handler does nothing */
#define FORGET_PAUSE_NS (10 * TER_NS_PER_MS)

static void no_action(int sig)
{
	(void)sig;
}

/* The @idx-th core that we may use; -1: there is none. */
static int nth_cpu(unsigned idx)
{
	cpu_set_t allowed;
	unsigned nr = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && nr++ == idx)
			return cpu;
	return -1;
}

static void pin(int cpu)
{
	cpu_set_t one;

	if (cpu < 0)
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one); /* a wish */
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
	struct td_reader *reader = arg;
	struct td_session *s = reader->session;
	sigset_t stop;
	uint8_t *buf;

	/* Whoever started the session may block every signal, as tasks of the engine do. */
	sigemptyset(&stop);
	sigaddset(&stop, STOP_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
	pin(reader->cpu);
	/* Touched before use: a fatal signal during a page fault inside the read would fail the request. */
	buf = mmap(NULL, TD_REQUEST_BYTES_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		return NULL;
	td_duty_join(s);
	while (!atomic_load(&s->stop)) {
		const ssize_t n = read(s->fd, buf, TD_REQUEST_BYTES_MAX);

		if (n >= 0) {
			serve(s, buf, (size_t)n);
			if (s->init_done && (s->init_flags & TD_FUSE_OVER_IO_URING)) {
				/* Only FORGETs come here now: gathered, they cost one wake-up instead of many. */
				nanosleep(&(struct timespec){ .tv_nsec = FORGET_PAUSE_NS }, NULL);
			} else {
				td_duty_served(s, reader, ((const struct fuse_in_header *)(const void *)buf)->pid);
			}
			continue;
		}
		if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
			continue; /* a signal, or the request was taken back */
		td_session_ended(s); /* ENODEV: unmounted; anything else: no way to go on */
		break;
	}
	td_duty_leave(s);
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
	for (unsigned i = 0; i < s->readers_wanted; i++)
		s->reader[i] = (struct td_reader){ .session = s, .cpu = nth_cpu(i) };
	td_duty_init(s);
	while (r >= 0 && s->readers < s->readers_wanted) {
		r = -pthread_create(&s->reader[s->readers].thread, NULL, reader_thread, &s->reader[s->readers]);
		if (r >= 0)
			s->readers++;
	}
	if (s->readers)
		return 0;
	td_duty_destroy(s);
	return r;
}

void td_classic_stop(struct td_session *s)
{
	td_duty_all(s); /* stop is set */
	while (s->readers) {
		const pthread_t thread = s->reader[s->readers - 1].thread;
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
	td_duty_destroy(s);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The classic device: one blocking reader on the descriptor, not pinned
 *
 * What decides is where the reader wakes up: on its client's core it costs some microseconds, on another, idle one up to a hundred. The scheduler places one reader beside
 * its client well. Measured here (2 cores, creates of small files): one reader 14 to 16 thousand a second, a reader pinned to each core 8, two that are free 6 to 12; with two
 * clients all three do the same, and so they do for streams, because nobody waits in a reader. A spin of 20 or 50 us before it sleeps takes the client's core: slower.
 * With the ring transport this reader remains for FORGET and INTERRUPT.
 */
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"

#define STOP_SIGNAL (SIGRTMIN + 2) /* ends a blocking read; its handler does nothing */
#define STOP_RETRY_NS (20 * (long)TER_NS_PER_MS)
#define FORGET_PAUSE_NS (10 * TER_NS_PER_MS)

static void no_action(int sig)
{
	(void)sig;
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
	struct td_session *s = arg;
	sigset_t stop;
	uint8_t *buf;

	/* Whoever started the session may block every signal, as tasks of the engine do. */
	sigemptyset(&stop);
	sigaddset(&stop, STOP_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
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
	int r;

	sigaction(STOP_SIGNAL, &action, NULL);
	r = -pthread_create(&s->reader, NULL, reader_thread, s);
	s->reader_runs = r == 0;
	return r;
}

void td_classic_stop(struct td_session *s)
{
	struct timespec until;

	/* The signal may come just before the read: again until the thread has gone. */
	while (s->reader_runs) {
		pthread_kill(s->reader, STOP_SIGNAL);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += STOP_RETRY_NS;
		if (until.tv_nsec >= (long)TER_NS_PER_S) {
			until.tv_sec++;
			until.tv_nsec -= (long)TER_NS_PER_S;
		}
		if (pthread_timedjoin_np(s->reader, NULL, &until) == 0)
			s->reader_runs = false;
	}
}

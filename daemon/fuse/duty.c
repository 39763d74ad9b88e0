/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Duty: which readers of the classic device take requests
 *
 * The kernel wakes the reader that has slept longest, on whichever core it is pinned to. On the client's own core that is a switch of some microseconds, to another one, asleep, an
 * interrupt of up to a hundred, twice a request. So a reader is on duty while clients run on its core, and stands aside otherwise:
 *
 *   on duty  --(CHECKS_FOREIGN clients in a row were seen on other cores)-->  aside  --(a client was seen on its core)-->  on duty
 *
 *   U1  At least one reader is on duty.
 *   U2  A look at the client (its file in /proc) comes every few requests: CHECK_MIN after something changed, doubling to CHECK_MAX while all is as it was.
 * Where a client cannot be seen (another pid namespace, hidepid) everybody stays on duty, which is what there was before. Rejected: epoll, which wakes the last sleeper first and
 * so stays with one reader, but costs two more calls a request and took twice as long; one free reader and one that spins (figures in classic.c).
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"

#define CHECK_MIN 4
#define CHECK_MAX 64
#define CHECKS_FOREIGN 4
#define STAT_CPU_FIELD 39 /* of /proc/TID/stat, from 1: the processor last run on */
#define STAT_BYTES 1024

/* -1: not to be seen. */
static int cpu_of_task(uint32_t tid)
{
	char path[32], text[STAT_BYTES];
	const char *at;
	int fd, cpu;
	ssize_t n;

	if (!tid)
		return -1;
	snprintf(path, sizeof(path), "/proc/%u/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	at = strrchr(text, ')'); /* the end of field 2, which may hold anything */
	for (unsigned field = 2; at && field < STAT_CPU_FIELD; field++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, "%d", &cpu) == 1 ? cpu : -1;
}

static struct td_reader *reader_of_cpu(struct td_session *s, int cpu)
{
	for (unsigned i = 0; i < s->readers_wanted; i++)
		if (s->reader[i].cpu == cpu)
			return &s->reader[i];
	return NULL;
}

/* duty held */
static void take_back(struct td_session *s, struct td_reader *reader)
{
	reader->aside = false;
	s->on_duty++;
	pthread_cond_signal(&reader->wanted);
}

/* duty held */
static void stand_aside(struct td_session *s, struct td_reader *reader)
{
	if (atomic_load(&s->stop))
		return;
	s->on_duty--;
	reader->aside = true;
	while (reader->aside)
		pthread_cond_wait(&reader->wanted, &s->duty);
	reader->foreign = 0;
}

/* A client was seen on another core than the reader's. */
static void call_home(struct td_session *s, struct td_reader *reader, int cpu)
{
	struct td_reader *home;

	pthread_mutex_lock(&s->duty);
	home = reader_of_cpu(s, cpu);
	if (home && home->aside)
		take_back(s, home);
	if (home && ++reader->foreign >= CHECKS_FOREIGN && s->on_duty > 1) /* U1 */
		stand_aside(s, reader);
	pthread_mutex_unlock(&s->duty);
}

void td_duty_served(struct td_session *s, struct td_reader *reader, uint32_t tid)
{
	int cpu;

	if (s->readers_wanted < 2 || ++reader->served < reader->check_every)
		return;
	reader->served = 0;
	cpu = cpu_of_task(tid);
	if (cpu >= 0 && cpu != reader->cpu) {
		reader->check_every = CHECK_MIN;
		call_home(s, reader, cpu);
		return;
	}
	reader->foreign = 0;
	reader->check_every = ter_min(reader->check_every * 2, CHECK_MAX);
}

void td_duty_join(struct td_session *s)
{
	pthread_mutex_lock(&s->duty);
	s->on_duty++;
	pthread_mutex_unlock(&s->duty);
}

void td_duty_all(struct td_session *s)
{
	pthread_mutex_lock(&s->duty);
	for (unsigned i = 0; i < s->readers_wanted; i++)
		if (s->reader[i].aside)
			take_back(s, &s->reader[i]);
	pthread_mutex_unlock(&s->duty);
}

void td_duty_leave(struct td_session *s)
{
	pthread_mutex_lock(&s->duty);
	s->on_duty--;
	pthread_mutex_unlock(&s->duty);
	td_duty_all(s);
}

void td_duty_init(struct td_session *s)
{
	pthread_mutex_init(&s->duty, NULL);
	s->on_duty = 0;
	for (unsigned i = 0; i < s->readers_wanted; i++) {
		s->reader[i].check_every = CHECK_MIN;
		pthread_cond_init(&s->reader[i].wanted, NULL);
	}
}

void td_duty_destroy(struct td_session *s)
{
	for (unsigned i = 0; i < s->readers_wanted; i++)
		pthread_cond_destroy(&s->reader[i].wanted);
	pthread_mutex_destroy(&s->duty);
}

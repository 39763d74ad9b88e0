/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random decisions, patterns, and how a finding is told. */
#include <execinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

const char *const st_mode_names[] = { "plain", "damage", "absent", "faults" };

uint64_t st_rnd(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

unsigned st_below(uint64_t *state, unsigned n)
{
	return (unsigned)(st_rnd(state) % n);
}

bool st_chance(uint64_t *state, unsigned percent)
{
	return st_below(state, 100) < percent;
}

uint64_t st_hash(uint64_t h, uint64_t x)
{
	h = (h ^ x) * 0x9ddfea08eb382d69ull;
	return h ^ h >> 47;
}

/* Odd patterns compress well, even ones do not. */
uint8_t st_byte(uint64_t pattern, uint64_t offset)
{
	const uint64_t x = (pattern + (pattern & 1 ? offset / 61 : offset)) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)(1 + (x >> 40) % 255);
}

void st_fill(uint8_t *buf, uint64_t pattern, uint64_t offset, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		buf[i] = st_byte(pattern, offset + i);
}

void st_sleep_ms(unsigned ms)
{
	const struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

void st_finding(const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "FINDING: %s\n", text);
	_exit(ST_EXIT_FINDING);
}

void st_doing(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(st->doing, sizeof(st->doing), fmt, ap);
	va_end(ap);
	atomic_fetch_add(&st->ticks, 1);
}

/* --- where a thread is --- */

static void print_where(int sig)
{
	void *frames[40];
	char head[80];
	const int n = backtrace(frames, 40);

	(void)!write(2, head, (size_t)snprintf(head, sizeof(head), "thread %d, signal %d:\n", (int)gettid(), sig));
	backtrace_symbols_fd(frames, n, 2);
	if (sig != ST_DUMP_SIGNAL) {
		signal(sig, SIG_DFL);
		raise(sig);
	}
}

void st_install_dump(void)
{
	const struct sigaction action = { .sa_handler = print_where, .sa_flags = SA_RESTART };
	void *frame;

	(void)backtrace(&frame, 1); /* loads what it needs now */
	sigaction(ST_DUMP_SIGNAL, &action, NULL);
	sigaction(SIGABRT, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGFPE, &action, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A target as a plain program: runs the inputs given as files, or as folders of files. Time is that of the processor, so that a busy machine changes nothing. */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "fuzz.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifdef SANITIZED
#define SECONDS_MAX 10
#else
#define SECONDS_MAX 1
#endif
#define WALL_SECONDS_MAX 120 /* one that sleeps for ever uses no processor */
#define INPUT_BYTES_MAX (1u << 20)

static char now_running[4096];
static unsigned inputs;

static void took_too_long(int sig)
{
	static const char text[] = "takes too long: ";

	(void)sig;
	(void)!write(2, text, sizeof(text) - 1);
	(void)!write(2, now_running, strlen(now_running));
	(void)!write(2, "\n", 1);
	signal(SIGABRT, SIG_DFL);
	abort();
}

static void died(int sig)
{
	static const char text[] = "dies of: ";

	(void)!write(2, text, sizeof(text) - 1);
	(void)!write(2, now_running, strlen(now_running));
	(void)!write(2, "\n", 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void set_clock(unsigned seconds)
{
	const struct itimerval cpu = { .it_value.tv_sec = seconds };

	setitimer(ITIMER_PROF, &cpu, NULL);
	alarm(seconds ? WALL_SECONDS_MAX : 0);
}

static size_t resident_peak(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (size_t)usage.ru_maxrss * 1024;
}

static void run_bytes(const uint8_t *data, size_t size)
{
	const size_t before = resident_peak();
	uint8_t *exact = malloc(size ? size : 1);

	if (!exact)
		abort();
	memcpy(exact, data, size);
	set_clock(SECONDS_MAX);
	LLVMFuzzerTestOneInput(exact, size);
	set_clock(0);
	free(exact);
	inputs++;
#ifndef SANITIZED
	fuzz_check(resident_peak() - before <= fuzz_memory_max);
#else
	(void)before;
#endif
}

static void run_file(const char *path)
{
	static uint8_t data[INPUT_BYTES_MAX];
	FILE *f = fopen(path, "re");
	size_t size;

	if (!f) {
		perror(path);
		exit(1);
	}
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	snprintf(now_running, sizeof(now_running), "%s", path);
	run_bytes(data, size);
}

static void run_path(const char *path)
{
	struct dirent **entries;
	struct stat st;
	char file[4096];
	int nr;

	if (stat(path, &st) < 0) {
		perror(path);
		exit(1);
	}
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	nr = scandir(path, &entries, NULL, alphasort);
	for (int i = 0; i < nr; i++) {
		if (entries[i]->d_name[0] != '.') {
			snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
			run_file(file);
		}
		free(entries[i]);
	}
	if (nr >= 0)
		free(entries);
}

int main(int argc, char **argv)
{
	static const int fatal[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };

	signal(SIGPROF, took_too_long);
	signal(SIGALRM, took_too_long);
	for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++)
		signal(fatal[i], died);
	/* What a target makes once, for all inputs, is not the first one's. */
	snprintf(now_running, sizeof(now_running), "%s", "(an empty input)");
	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	printf("%u inputs\n", inputs);
	return inputs ? 0 : 1;
}

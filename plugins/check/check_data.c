/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes the inputs and the guarded buffers for plugins under test. */
#include "check_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* splitmix64 */
uint64_t check_random(struct check_random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

size_t check_random_below(struct check_random *random, size_t limit)
{
	return (size_t)(check_random(random) % limit);
}

void check_random_fill(struct check_random *random, void *buf, size_t bytes)
{
	uint8_t *p = buf;

	while (bytes > 0) {
		uint64_t word = check_random(random);
		size_t step = bytes < sizeof(word) ? bytes : sizeof(word);

		memcpy(p, &word, step);
		p += step;
		bytes -= step;
	}
}

const char *check_character_name(enum check_character character)
{
	static const char *const names[CHECK_CHARACTERS] = { "zeros", "text", "noise", "a mixture" };

	return names[character];
}

static void fill_text(struct check_random *random, uint8_t *p, size_t bytes)
{
	static const char *const words[] = { "the ", "bucket ", "of ", "a ", "device ", "is ", "written ", "once, ", "journal ", "and ", "then ",
		"read ", "by ", "recovery; ", "extent ", "replica ", "checksum ", "0x", "int ", "return ", "(void)", "\n\t", "\n", "static " };
	size_t at = 0;

	while (at < bytes) {
		uint64_t word = check_random(random);
		char number[16];
		const char *text = words[word % (sizeof(words) / sizeof(*words))];
		size_t step;

		if (word >> 60 == 0) { /* one in sixteen is not a word yet seen */
			(void)snprintf(number, sizeof(number), "%u ", (unsigned)(word >> 20) & 0xffffff);
			text = number;
		}
		step = strlen(text);
		step = step < bytes - at ? step : bytes - at;
		memcpy(p + at, text, step);
		at += step;
	}
}

void check_data_fill(struct check_random *random, enum check_character character, void *buf, size_t bytes)
{
	uint8_t *p = buf;

	switch (character) {
	case CHECK_ZEROS:
		memset(buf, 0, bytes);
		break;
	case CHECK_TEXT:
		fill_text(random, buf, bytes);
		break;
	case CHECK_NOISE:
		check_random_fill(random, buf, bytes);
		break;
	default:
		for (size_t at = 0; at < bytes;) {
			size_t step = 1 + check_random_below(random, 3000);

			step = step < bytes - at ? step : bytes - at;
			check_data_fill(random, (enum check_character)check_random_below(random, CHECK_MIXED), p + at, step);
			at += step;
		}
	}
}

void check_guarded_new(struct check_guarded *guarded, size_t room_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t room = (room_bytes + page) / page * page; /* at least one page, also for 0 bytes */
	uint8_t *map = mmap(NULL, room + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) < 0 || mprotect(map + page + room, page, PROT_NONE) < 0) {
		perror("terrace-plugin-check: cannot get memory");
		exit(2);
	}
	*guarded = (struct check_guarded){ map, room + 2 * page };
}

void check_guarded_free(struct check_guarded *guarded)
{
	(void)munmap(guarded->map, guarded->map_bytes); /* fails only for a mapping that is not ours */
	guarded->map = NULL;
}

uint8_t *check_guarded_last(const struct check_guarded *guarded, size_t bytes)
{
	return guarded->map + guarded->map_bytes - (size_t)sysconf(_SC_PAGESIZE) - bytes;
}

uint8_t *check_guarded_first(const struct check_guarded *guarded)
{
	return guarded->map + (size_t)sysconf(_SC_PAGESIZE);
}

uint8_t *check_guarded_scratch(const struct check_guarded *guarded, size_t bytes)
{
	return (uint8_t *)((uintptr_t)check_guarded_last(guarded, bytes) & ~(uintptr_t)15);
}

double check_seconds(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock exists, the pointer is valid */
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

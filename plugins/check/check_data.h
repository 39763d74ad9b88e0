/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inputs for plugins: repeatable random numbers, data of several characters, and buffers with unreadable pages around them. */
#ifndef TER_CHECK_DATA_H
#define TER_CHECK_DATA_H

#include <stddef.h>
#include <stdint.h>

struct check_random {
	uint64_t state;
};
uint64_t check_random(struct check_random *random);
/* 0..@limit - 1; @limit > 0 */
size_t check_random_below(struct check_random *random, size_t limit);
void check_random_fill(struct check_random *random, void *buf, size_t bytes);

/* What users store. */
enum check_character { CHECK_ZEROS, CHECK_TEXT, CHECK_NOISE, CHECK_MIXED, CHECK_CHARACTERS };
const char *check_character_name(enum check_character character);
void check_data_fill(struct check_random *random, enum check_character character, void *buf, size_t bytes);

/* Memory between two pages that nobody may touch. */
struct check_guarded {
	uint8_t *map;
	size_t map_bytes;
};
void check_guarded_new(struct check_guarded *guarded, size_t room_bytes);
void check_guarded_free(struct check_guarded *guarded);
/* @bytes that end where the unreadable page begins. */
uint8_t *check_guarded_last(const struct check_guarded *guarded, size_t bytes);
/* @bytes before which the unreadable page lies. */
uint8_t *check_guarded_first(const struct check_guarded *guarded);
/* As last, but aligned down to 16 bytes as scratch is; up to 15 bytes between its end and the unreadable page. */
uint8_t *check_guarded_scratch(const struct check_guarded *guarded, size_t bytes);

double check_seconds(void);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What fuzz targets share
 *
 * A target is a file fuzz_<name>.c with LLVMFuzzerTestOneInput(). Under clang (meson -Dfuzz=true) libFuzzer calls it; otherwise fuzz_main.c runs it once for each
 * file given. A target keeps nothing from one input to the next that could change what the next one does: a file found once fails again.
 *
 * Found is: a crash, a report of a sanitizer, a fuzz_check() that fails, an input that takes longer than fuzz_main.c says, memory beyond fuzz_memory_max.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdio.h>

#include "util/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Growth of resident memory that one input may cause, in bytes. */
extern const size_t fuzz_memory_max;

#define fuzz_check(condition)                                                                                          \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                      \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* An input, taken from its front. What is beyond its end reads as zeros. */
struct fuzz_in {
	const uint8_t *at;
	size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_in *in, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		value |= (uint64_t)*in->at++ << (8 * i);
	return value;
}

/* The next @bytes (fewer at the end) in memory of exactly that size, so that reading past them is noticed. */
static inline uint8_t *fuzz_dup(struct fuzz_in *in, size_t bytes, size_t *ret_bytes)
{
	const size_t nr = ter_min(bytes, in->left);
	uint8_t *copy = malloc(nr ? nr : 1);

	if (!copy)
		abort();
	memcpy(copy, in->at, nr);
	in->at += nr;
	in->left -= nr;
	*ret_bytes = nr;
	return copy;
}

#endif

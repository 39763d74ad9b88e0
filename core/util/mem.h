/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory: every allocation of the engine goes through here, so that a test can fail the n-th one (fault point "mem.alloc").
 * All return NULL when memory is short (or a fault was asked for); callers return -ENOMEM with nothing changed.
 */
#ifndef TER_MEM_H
#define TER_MEM_H

#include "util/base.h"

void *ter_malloc(size_t bytes);
void *ter_zalloc(size_t bytes);
void *ter_calloc(size_t nr, size_t bytes);          /* zeroed; checks the product */
void *ter_realloc_array(void *old, size_t nr, size_t bytes);
void *ter_memdup(const void *src, size_t bytes);
char *ter_strdup(const char *s);
/* For O_DIRECT: @align is a power of two, at least 512. Freed with free(). */
void *ter_malloc_aligned(size_t bytes, size_t align);

#define ter_new(type) ((type *)ter_zalloc(sizeof(type)))
#define ter_new_array(type, nr) ((type *)ter_calloc((nr), sizeof(type)))

#endif

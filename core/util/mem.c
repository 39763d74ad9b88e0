/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory: the engine's allocations, each behind the fault point "mem.alloc". */
#include "util/mem.h"

#include "util/fault.h"

TER_FAULT_POINT(fault_alloc, "mem.alloc", ENOMEM, "an allocation of memory")

void *ter_malloc(size_t bytes)
{
	if (TER_FAULT(fault_alloc) < 0)
		return NULL;
	return malloc(bytes ? bytes : 1); /* never NULL for 0 bytes: NULL means failure */
}

void *ter_zalloc(size_t bytes)
{
	return ter_calloc(1, bytes ? bytes : 1);
}

/* The product, at least 1; 0: too large. Checked here, for a sanitizer's calloc() takes such a product for a bug. */
static size_t product(size_t nr, size_t bytes)
{
	size_t total;

	if (__builtin_mul_overflow(nr, bytes, &total))
		return 0;
	return total ? total : 1;
}

void *ter_calloc(size_t nr, size_t bytes)
{
	size_t total = product(nr, bytes);

	if (TER_FAULT(fault_alloc) < 0 || !total)
		return NULL;
	return calloc(1, total);
}

void *ter_realloc_array(void *old, size_t nr, size_t bytes)
{
	size_t total = product(nr, bytes);

	if (TER_FAULT(fault_alloc) < 0 || !total)
		return NULL;
	return realloc(old, total);
}

void *ter_memdup(const void *src, size_t bytes)
{
	void *copy = ter_malloc(bytes);

	if (copy && bytes)
		memcpy(copy, src, bytes);
	return copy;
}

char *ter_strdup(const char *s)
{
	return ter_memdup(s, strlen(s) + 1);
}

void *ter_malloc_aligned(size_t bytes, size_t align)
{
	void *p;

	assert(ter_is_pow2(align) && align >= TER_SECTOR_BYTES);
	if (TER_FAULT(fault_alloc) < 0)
		return NULL;
	if (posix_memalign(&p, align, bytes ? bytes : 1))
		return NULL;
	return p;
}

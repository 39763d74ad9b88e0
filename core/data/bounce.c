/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bounce buffers of reads: recycled by powers of two, since fresh memory costs more than the copy. */
#include "data/data_priv.h"

#define BOUNCE_KEPT_BYTES TER_MIB(16)
#define BOUNCE_KEPT_NR 64u

static unsigned class_of(size_t bytes)
{
	return bytes <= TER_PAGE_BYTES ? 0 : ter_log2(bytes - 1) + 1 - TER_PAGE_SHIFT;
}

void *ter_bounce_get(struct ter_data *data, size_t bytes)
{
	unsigned c = class_of(bytes);
	void *mem = NULL;

	if (c >= ARRAY_SIZE(data->bounce_free))
		return ter_malloc_aligned(ter_round_up(bytes, TER_PAGE_BYTES), TER_PAGE_BYTES);
	ter_lock_acquire(&data->bounce_lock);
	if (data->bounce_free[c]) {
		mem = data->bounce_free[c];
		data->bounce_free[c] = *(void **)mem;
		data->bounce_nr[c]--;
		data->bounce_bytes -= (uint64_t)TER_PAGE_BYTES << c;
	}
	ter_lock_release(&data->bounce_lock);
	return mem ? mem : ter_malloc_aligned((size_t)TER_PAGE_BYTES << c, TER_PAGE_BYTES);
}

void ter_bounce_put(struct ter_data *data, void *mem, size_t bytes)
{
	unsigned c = class_of(bytes);
	bool kept = false;

	if (!mem)
		return;
	if (c < ARRAY_SIZE(data->bounce_free)) {
		ter_lock_acquire(&data->bounce_lock);
		kept = data->bounce_nr[c] < BOUNCE_KEPT_NR && data->bounce_bytes + ((uint64_t)TER_PAGE_BYTES << c) <= BOUNCE_KEPT_BYTES;
		if (kept) {
			*(void **)mem = data->bounce_free[c];
			data->bounce_free[c] = mem;
			data->bounce_nr[c]++;
			data->bounce_bytes += (uint64_t)TER_PAGE_BYTES << c;
		}
		ter_lock_release(&data->bounce_lock);
	}
	if (!kept)
		free(mem);
}

void ter_bounce_drain(struct ter_data *data)
{
	for (unsigned c = 0; c < ARRAY_SIZE(data->bounce_free); c++)
		while (data->bounce_free[c]) {
			void *mem = data->bounce_free[c];

			data->bounce_free[c] = *(void **)mem;
			free(mem);
		}
}

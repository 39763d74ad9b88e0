/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lookup counts: a sharded hash of node -> how often the kernel was told of it. 16 bytes a node, open addressing with backward-shift deletion. */
#include "fuse/fuse_priv.h"

#define SHARD_CAPACITY_MIN 64u

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 33;
	return x;
}

static struct td_lookup_shard *shard_of(struct td_lookups *l, uint64_t hash)
{
	return &l->shard[hash >> 58];
}

void td_lookups_init(struct td_lookups *l)
{
	for (unsigned i = 0; i < TD_LOOKUP_SHARDS; i++) {
		l->shard[i] = (struct td_lookup_shard){ 0 };
		pthread_mutex_init(&l->shard[i].mutex, NULL);
	}
}

void td_lookups_destroy(struct td_lookups *l)
{
	for (unsigned i = 0; i < TD_LOOKUP_SHARDS; i++) {
		free(l->shard[i].slots);
		pthread_mutex_destroy(&l->shard[i].mutex);
	}
}

/* The node's slot, or the free one where it would go. */
static struct td_lookup_slot *find(struct td_lookup_shard *shard, uint64_t node, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & (shard->capacity - 1);

	while (shard->slots[i].node && shard->slots[i].node != node)
		i = (i + 1) & (shard->capacity - 1);
	return &shard->slots[i];
}

static bool grow(struct td_lookup_shard *shard)
{
	struct td_lookup_shard bigger = { .capacity = shard->capacity ? shard->capacity * 2 : SHARD_CAPACITY_MIN };

	bigger.slots = calloc(bigger.capacity, sizeof(bigger.slots[0]));
	if (!bigger.slots)
		return false;
	for (uint32_t i = 0; i < shard->capacity; i++)
		if (shard->slots[i].node)
			*find(&bigger, shard->slots[i].node, mix(shard->slots[i].node)) = shard->slots[i];
	free(shard->slots);
	shard->slots = bigger.slots;
	shard->capacity = bigger.capacity;
	return true;
}

bool td_lookups_add(struct td_lookups *l, uint64_t node)
{
	const uint64_t hash = mix(node);
	struct td_lookup_shard *shard = shard_of(l, hash);
	bool ok = true;

	pthread_mutex_lock(&shard->mutex);
	if (shard->nr >= shard->capacity / 4 * 3)
		ok = grow(shard);
	if (ok) {
		struct td_lookup_slot *slot = find(shard, node, hash);

		if (!slot->node) {
			slot->node = node;
			shard->nr++;
		}
		slot->count++;
	}
	pthread_mutex_unlock(&shard->mutex);
	return ok;
}

/* Closes the gap that a removed slot leaves, so that every chain stays unbroken. */
static void remove_slot(struct td_lookup_shard *shard, struct td_lookup_slot *slot)
{
	const uint32_t mask = shard->capacity - 1;
	uint32_t gap = (uint32_t)(slot - shard->slots), i = gap;

	for (;;) {
		uint32_t home;

		i = (i + 1) & mask;
		if (!shard->slots[i].node)
			break;
		home = (uint32_t)mix(shard->slots[i].node) & mask;
		if (((i - home) & mask) >= ((i - gap) & mask)) {
			shard->slots[gap] = shard->slots[i];
			gap = i;
		}
	}
	shard->slots[gap] = (struct td_lookup_slot){ 0 };
	shard->nr--;
}

bool td_lookups_forget(struct td_lookups *l, uint64_t node, uint64_t nr)
{
	const uint64_t hash = mix(node);
	struct td_lookup_shard *shard = shard_of(l, hash);
	bool gone = true;

	pthread_mutex_lock(&shard->mutex);
	if (shard->capacity) {
		struct td_lookup_slot *slot = find(shard, node, hash);

		if (slot->node) {
			gone = slot->count <= nr;
			if (gone)
				remove_slot(shard, slot);
			else
				slot->count -= nr;
		}
	}
	pthread_mutex_unlock(&shard->mutex);
	return gone;
}

bool td_lookups_known(struct td_lookups *l, uint64_t node)
{
	const uint64_t hash = mix(node);
	struct td_lookup_shard *shard = shard_of(l, hash);
	bool known;

	pthread_mutex_lock(&shard->mutex);
	known = shard->capacity && find(shard, node, hash)->node;
	pthread_mutex_unlock(&shard->mutex);
	return known;
}

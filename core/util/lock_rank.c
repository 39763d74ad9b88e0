/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The check of lock order: what a task holds, and what it may wait for. Compiled always, consulted by debug builds. */
#include "util/exec_priv.h"

static const char *const rank_names[TER_RANK_NR] = {[TER_RANK_NONE] = "NONE",
#define x(name) [TER_RANK_##name] = #name,
						    TER_RANKS(x)
#undef x
};

const char *ter_rank_name(enum ter_rank rank)
{
	return (unsigned)rank < TER_RANK_NR ? rank_names[rank] : "?";
}

static bool ordered_among_themselves(enum ter_rank rank)
{
	return rank == TER_RANK_BTREE_NODE || rank == TER_RANK_INODE;
}

bool ter_held_allows(const struct ter_held *held, enum ter_rank rank)
{
	if (rank == TER_RANK_NONE)
		return true;
	for (unsigned i = 0; i < held->nr; i++) {
		if (held->at[i].rank > rank)
			return false;
		if (held->at[i].rank == rank && !ordered_among_themselves(rank))
			return false;
	}
	return true;
}

void ter_held_push(struct ter_held *held, const void *lock, enum ter_rank rank)
{
	assert(held->nr < TER_HELD_MAX);
	held->at[held->nr].lock = lock;
	held->at[held->nr].rank = rank;
	held->nr++;
}

void ter_held_pop(struct ter_held *held, const void *lock)
{
	for (unsigned i = held->nr; i-- > 0;) {
		if (held->at[i].lock != lock)
			continue;
		memmove(&held->at[i], &held->at[i + 1], (held->nr - i - 1) * sizeof(held->at[0]));
		held->nr--;
		return;
	}
	assert(!"a lock is released that this task does not hold");
}

bool ter_held_has(const struct ter_held *held, const void *lock)
{
	for (unsigned i = 0; i < held->nr; i++)
		if (held->at[i].lock == lock)
			return true;
	return false;
}

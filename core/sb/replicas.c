/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The replicas table: which sets of members hold something, and what may be done without some of them. */
#include "sb/sb_format.h"

_Static_assert(sizeof(struct ter_replicas_entry) == 3 + TER_REPLICAS_MAX, "no padding: compared as bytes");

bool ter_replicas_entry_valid(const struct ter_replicas_entry *entry)
{
	switch (entry->data_type) {
	case TER_DATA_SB:
	case TER_DATA_JOURNAL:
	case TER_DATA_BTREE:
	case TER_DATA_USER:
	case TER_DATA_CACHED:
	case TER_DATA_PARITY:
	case TER_DATA_STRIPE:
		break;
	default:
		return false;
	}
	if (entry->nr_devs == 0 || entry->nr_devs > TER_REPLICAS_MAX || entry->nr_required == 0 || entry->nr_required > entry->nr_devs)
		return false;
	for (unsigned i = 0; i < TER_REPLICAS_MAX; i++) {
		if (i >= entry->nr_devs ? entry->devs[i] != 0 : entry->devs[i] >= TER_DEVS_MAX)
			return false;
		if (i && i < entry->nr_devs && entry->devs[i] <= entry->devs[i - 1])
			return false;
	}
	return true;
}

bool ter_replicas_find(const struct ter_sb *sb, const struct ter_replicas_entry *entry, unsigned *ret_idx)
{
	unsigned low = 0, high = sb->replicas_nr;

	while (low < high) {
		unsigned mid = (low + high) / 2;
		int cmp = memcmp(&sb->replicas[mid], entry, sizeof(*entry));

		if (cmp == 0) {
			*ret_idx = mid;
			return true;
		}
		if (cmp < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*ret_idx = low;
	return false;
}

bool ter_sb_replicas_has(const struct ter_sb *sb, const struct ter_replicas_entry *entry)
{
	unsigned idx;

	return ter_replicas_find(sb, entry, &idx);
}

int ter_sb_replicas_add(struct ter_sb *sb, const struct ter_replicas_entry *entry)
{
	unsigned idx;

	if (!ter_replicas_entry_valid(entry))
		return -EINVAL;
	if (ter_replicas_find(sb, entry, &idx))
		return 0;
	if (sb->replicas_nr == TER_REPLICAS_ENTRIES_MAX)
		return -ENOSPC;
	memmove(&sb->replicas[idx + 1], &sb->replicas[idx], (sb->replicas_nr - idx) * sizeof(*entry));
	sb->replicas[idx] = *entry;
	sb->replicas_nr++;
	return 0;
}

void ter_sb_replicas_check(const struct ter_sb *sb, const struct ter_members *members, uint64_t online, struct ter_replicas_answer *ret)
{
	struct ter_replicas_answer answer = { 0 };

	for (unsigned i = 0; i < sb->replicas_nr; i++) {
		const struct ter_replicas_entry *entry = &sb->replicas[i];
		bool metadata = entry->data_type < TER_DATA_USER;
		unsigned nr_online = 0, nr_failed = 0;

		for (unsigned j = 0; j < entry->nr_devs; j++) {
			nr_online += online >> entry->devs[j] & 1;
			nr_failed += members->dev[entry->devs[j]].state == TER_DEV_FAILED;
		}
		/* A set of failed members only: what it held was given up when the last of them was declared failed. */
		if (entry->data_type == TER_DATA_CACHED || nr_failed == entry->nr_devs)
			continue;
		*(metadata ? &answer.metadata_lost : &answer.data_lost) |= nr_online < entry->nr_required;
		*(metadata ? &answer.metadata_degraded : &answer.data_degraded) |= nr_online < entry->nr_devs;
	}
	*ret = answer;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pins: a count on each live sequence, without a lock; the oldest one moves on under it. */
#include "journal/journal_priv.h"

static _Atomic uint32_t *count_of(struct ter_journal *j, uint64_t seq)
{
	if (seq < j->first_seq)
		return &j->replay_pins;
	return &j->pins[seq % TER_JOURNAL_FIFO_MAX];
}

void ter_journal_pin(struct ter_journal *j, uint64_t seq)
{
	uint32_t old;

	/* The caller holds a reservation of @seq, another pin on it, or it was replayed: so the sequence is live and its slot its own. */
	assert(seq <= atomic_load_explicit(&j->open_seq, memory_order_relaxed));
	old = atomic_fetch_add_explicit(count_of(j, seq), 1, memory_order_relaxed);
	assert(old > 0 && old < UINT32_MAX);
	(void)old;
}

void ter_journal_unpin(struct ter_journal *j, uint64_t seq)
{
	uint32_t old = atomic_fetch_sub(count_of(j, seq), 1);

	assert(old > 0);
	if (ter_likely(old > 1) || !atomic_load(&j->reclaim_wants_unpin))
		return;
	ter_lock_acquire(&j->lock);
	atomic_store(&j->reclaim_wants_unpin, false);
	ter_waitq_wake_all(&j->reclaim_wq);
	ter_lock_release(&j->lock);
}

/*
 * The oldest sequence with a pin, open_seq when there is none. @skip_roots: as if the roots had moved on already. A count that is 0 stays so (taking needs one
 * to be there; an entry has one of the journal's own from opening to sealing), so what the scan passes is passed for ever, but for the one it skips.
 */
uint64_t ter_journal_oldest_(struct ter_journal *j, bool skip_roots)
{
	uint64_t end = atomic_load(&j->open_seq), seq = atomic_load(&j->pin_first);
	bool skipped = false, roots_in_replay = j->roots_seq && j->roots_seq < j->first_seq;

	for (; seq < end; seq++) {
		uint32_t count = atomic_load(count_of(j, seq));

		if (count == 1 && skip_roots && seq == j->roots_seq)
			skipped = true;
		else if (count)
			break;
		if (!skipped)
			atomic_store(&j->pin_first, seq + 1);
	}
	if (atomic_load(&j->replay_pins) > (skip_roots && roots_in_replay ? 1 : 0))
		return j->replay_oldest;
	return seq;
}

void ter_journal_move_roots_pin_(struct ter_journal *j, uint64_t seq)
{
	uint64_t old = j->roots_seq;

	assert(seq >= j->first_seq && seq > old);
	atomic_fetch_add(count_of(j, seq), 1);
	j->roots_seq = seq;
	if (old) /* 0: the first roots since a clean start */
		atomic_fetch_sub(count_of(j, old), 1);
}

uint64_t ter_journal_last_pinned(struct ter_journal *j)
{
	uint64_t seq;

	ter_lock_acquire(&j->lock);
	seq = ter_journal_oldest_(j, false);
	ter_lock_release(&j->lock);
	return seq;
}

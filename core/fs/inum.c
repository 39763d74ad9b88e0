/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inode numbers: never the same one twice
 *
 * A directory takes runs of TER_INUM_RUN numbers and gives them to what is created in it, so that siblings are neighbours. Numbers come from one counter; what is left of a run when the
 * directory leaves the cache is not used.
 *
 * After a crash the counter goes on from the largest bound in the journal's CLOCK records. The transaction that first uses a number beyond what is known to be recorded carries a record
 * with a bound BOUND_STEP further. The journal's entries with roots carry one as well (ter_vfs_next_inum()), and the newest of these is never reclaimed; so the bound is
 * raised in memory *before* the transaction commits: a roots entry that makes the transaction's own record superfluous has it already.
 */
#include "fs/vfs_priv.h"
#include "journal/journal_encode.h"

#define BOUND_STEP 65536u

static void raise_to(_Atomic uint64_t *at, uint64_t value)
{
	uint64_t old = atomic_load(at);

	while (old < value && !atomic_compare_exchange_weak(at, &old, value))
		;
}

uint64_t ter_inum_take(struct ter_inode *dir)
{
	struct ter_vfs *vfs = dir->vfs;

	if (dir->run_next == dir->run_end) {
		uint64_t first = atomic_fetch_add(&vfs->next_inum, TER_INUM_RUN);

		if (first + TER_INUM_RUN - 1 > TER_INUM_MAX) {
			atomic_fetch_sub(&vfs->next_inum, TER_INUM_RUN);
			return 0;
		}
		dir->run_next = first;
		dir->run_end = first + TER_INUM_RUN;
	}
	return dir->run_next++;
}

int ter_inum_stage(struct ter_vfs *vfs, struct ter_trans *trans, uint64_t inum, struct ter_inum_stage *stage)
{
	struct ter_jrec_clock clock = { 0 };

	_Static_assert(sizeof(stage->payload) == sizeof(struct ter_jrec_clock_disk), "room for a CLOCK record");
	stage->bound = 0;
	if (ter_likely(inum < atomic_load(&vfs->inum_logged)))
		return 0;
	stage->bound = inum + BOUND_STEP;
	raise_to(&vfs->inum_bound, stage->bound);
	clock.real_ns = (uint64_t)ter_max(ter_vfs_now(vfs), (int64_t)0);
	clock.next_inum = stage->bound;
	ter_jrec_clock_encode(&clock, stage->payload);
	stage->iov = (struct iovec){ .iov_base = stage->payload, .iov_len = sizeof(stage->payload) };
	return ter_trans_log(trans, TER_JREC_CLOCK, &stage->iov, 1);
}

void ter_inum_committed(struct ter_vfs *vfs, const struct ter_inum_stage *stage)
{
	if (stage->bound)
		raise_to(&vfs->inum_logged, stage->bound);
}

/* The next entry with roots, which is asked for, makes it durable. */
void ter_inum_raise(struct ter_vfs *vfs, uint64_t inum)
{
	struct ter_journal *journal = atomic_load(&vfs->journal);

	if (inum < ter_vfs_next_inum(vfs))
		return;
	raise_to(&vfs->next_inum, inum + 1);
	raise_to(&vfs->inum_bound, inum + 1);
	if (journal)
		ter_journal_want_roots(journal);
}

uint64_t ter_vfs_next_inum(struct ter_vfs *vfs)
{
	return ter_max(atomic_load(&vfs->inum_bound), atomic_load(&vfs->next_inum));
}

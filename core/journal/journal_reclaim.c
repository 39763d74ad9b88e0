/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reclaim: a task that has the owners of old pins let go of them, then has a flush entry written whose last_seq frees the space (and which carries the roots anew
 * if the newest copy of them was in the way).
 */
#include "journal/journal_priv.h"

static bool ring_needs(const struct ter_jring *ring)
{
	return ter_jring_used(ring) > ter_max(ring->nr < TER_JOURNAL_BUCKETS_SMALL ? ring->nr / 4 : ring->nr * 3 / 8, 1u);
}

static uint64_t fifo_live(struct ter_journal *j)
{
	return atomic_load(&j->open_seq) - atomic_load(&j->pin_first);
}

bool ter_journal_needs_reclaim_(struct ter_journal *j)
{
	if (fifo_live(j) > TER_JOURNAL_FIFO_MAX * 3 / 8)
		return true;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (ter_jring_eligible_(j->ring[i]) && ring_needs(j->ring[i]))
			return true;
	return false;
}

/* What was replayed is needed as a whole, so it has to be let go of as a whole. */
static uint64_t whole_replay(struct ter_journal *j, uint64_t target)
{
	return target && target < j->first_seq ? j->first_seq - 1 : target;
}

/* Up to which sequence pins have to go for each ring to be a quarter full (a small one: an eighth). 0: nothing to do. */
static uint64_t target_seq(struct ter_journal *j)
{
	uint64_t target = 0;

	if (fifo_live(j) > TER_JOURNAL_FIFO_MAX / 4)
		target = atomic_load(&j->open_seq) - TER_JOURNAL_FIFO_MAX / 4;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_jring *ring = j->ring[i];
		unsigned goal;

		if (!ter_jring_eligible_(ring))
			continue;
		goal = ter_max(ring->nr < TER_JOURNAL_BUCKETS_SMALL ? ring->nr / 8 : ring->nr / 4, 1u);
		for (unsigned n = 0; n + goal < ter_jring_used(ring); n++)
			target = ter_max(target, ring->max_seq[(ring->tail + n) % ring->nr]);
	}
	return whole_replay(j, target);
}

/*
 * Where so much is used that only reclaim goes on: what has to go for one more bucket. By steps, since what its owners commit meanwhile has to fit into what is left, and each step gives
 * some back. 0: none is so full.
 */
static uint64_t step_seq(struct ter_journal *j)
{
	uint64_t least = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_jring *ring = j->ring[i];

		if (!ter_jring_eligible_(ring) || ter_jring_used(ring) < ter_jring_normal(ring->nr))
			continue;
		if (!least || ring->max_seq[ring->tail] < least)
			least = ring->max_seq[ring->tail];
	}
	return whole_replay(j, least);
}

static int run_owners(struct ter_journal *j, uint64_t seq)
{
	for (unsigned i = 0; i < j->reclaimers_nr; i++) {
		int r = j->reclaimer[i].fn(j->reclaimer[i].arg, seq);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Lock held; dropped while waiting. Writes the entry that makes gone pins count, if that would free anything. True: it did. */
static bool emit(struct ter_journal *j, uint64_t target)
{
	uint64_t before = j->last_seq_ondisk, seq;

	if (before > target || ter_journal_oldest_(j, true) <= before)
		return false;
	if (j->roots_seq <= target)
		j->roots_wanted = true;
	seq = atomic_load(&j->open_seq);
	ter_journal_want_(j, seq);
	while (atomic_load(&j->durable_seq) < seq && !atomic_load(&j->error) && !j->quit)
		ter_waitq_wait(&j->durable_wq, &j->lock);
	return j->last_seq_ondisk > before;
}

/* Lock held, dropped meanwhile. Return: 1 space was freed, 0 not, or an owner's error. */
static int reclaim(struct ter_journal *j, uint64_t target)
{
	bool progress;
	int r;

	j->stats.reclaims++;
	atomic_store(&j->reclaim_wants_unpin, true); /* before the owners run: an unpin after they looked counts */
	ter_lock_release(&j->lock);
	r = run_owners(j, target);
	ter_lock_acquire(&j->lock);
	progress = emit(j, target); /* also after an error: what others let go of is free */
	return r < 0 ? r : progress;
}

/* Lock held, dropped meanwhile. */
static void answer_requests(struct ter_journal *j)
{
	uint64_t ticket = j->reclaim_asked, seq = ter_min(j->reclaim_asked_seq, atomic_load(&j->open_seq));
	int r = reclaim(j, whole_replay(j, seq));

	j->reclaim_result = r < 0 ? r : atomic_load(&j->error);
	j->reclaim_done = ticket;
	if (j->reclaim_asked == ticket)
		j->reclaim_asked_seq = 0;
	ter_waitq_wake_all(&j->reclaim_done_wq);
}

/* After a try that freed nothing: when the next one is due. */
struct pace {
	unsigned failures;
	uint64_t wait_ns, retry_at_ns; /* 0: now */
};

/* Lock held, dropped meanwhile. */
static void keep_space(struct ter_journal *j, struct pace *pace)
{
	const uint64_t step = step_seq(j);
	int r = reclaim(j, step ? step : target_seq(j));

	if (r > 0) {
		*pace = (struct pace){ 0 };
		return;
	}
	pace->failures = r < 0 ? pace->failures + 1 : 0;
	if (pace->failures >= TER_JOURNAL_RECLAIM_TRIES && j->space_waiters) {
		ter_lock_release(&j->lock);
		ter_journal_fail_(j, r, "The journal is full and what it holds cannot be written to its place.");
		ter_lock_acquire(&j->lock);
		return;
	}
	pace->wait_ns = pace->wait_ns && !j->space_waiters ? ter_min(pace->wait_ns * 2, TER_JOURNAL_RETRY_MAX_NS) : TER_JOURNAL_RETRY_NS;
	pace->retry_at_ns = ter_mono_ns(j->config.exec) + pace->wait_ns;
}

/* Failures are given their time; where only pins were still held, one that goes is reason enough to try again. */
static bool due(struct ter_journal *j, const struct pace *pace)
{
	return ter_mono_ns(j->config.exec) >= pace->retry_at_ns || (!pace->failures && !atomic_load(&j->reclaim_wants_unpin));
}

void ter_journal_reclaim_task_(void *arg)
{
	struct ter_journal *j = arg;
	struct pace pace = { 0 };

	ter_lock_acquire(&j->lock);
	while (!j->quit) {
		if (atomic_load(&j->error)) {
			j->reclaim_done = j->reclaim_asked;
			j->reclaim_result = atomic_load(&j->error);
			ter_waitq_wake_all(&j->reclaim_done_wq);
			ter_waitq_wait(&j->reclaim_wq, &j->lock);
		} else if (j->reclaim_done != j->reclaim_asked) {
			answer_requests(j);
		} else if (!ter_journal_needs_reclaim_(j)) {
			pace = (struct pace){ 0 };
			ter_waitq_wait(&j->reclaim_wq, &j->lock);
		} else if (due(j, &pace)) {
			keep_space(j, &pace);
		} else {
			(void)ter_waitq_wait_until(&j->reclaim_wq, &j->lock, pace.retry_at_ns); /* either way the loop looks again */
		}
	}
	ter_lock_release(&j->lock);
}

int ter_journal_register_reclaimer(struct ter_journal *j, const char *name, int (*fn)(void *arg, uint64_t seq), void *arg)
{
	int r = -ENOSPC;

	ter_lock_acquire(&j->lock);
	if (j->reclaimers_nr < TER_JOURNAL_RECLAIMERS_MAX) {
		j->reclaimer[j->reclaimers_nr].name = name;
		j->reclaimer[j->reclaimers_nr].fn = fn;
		j->reclaimer[j->reclaimers_nr].arg = arg;
		j->reclaimers_nr++;
		r = 0;
	}
	ter_lock_release(&j->lock);
	return r;
}

int ter_journal_reclaim_to(struct ter_journal *j, uint64_t seq)
{
	uint64_t ticket;
	int r;

	ter_lock_acquire(&j->lock);
	r = atomic_load(&j->error);
	if (r == 0) {
		ticket = ++j->reclaim_asked;
		j->reclaim_asked_seq = ter_max(j->reclaim_asked_seq, seq);
		ter_waitq_wake_all(&j->reclaim_wq);
		while (j->reclaim_done < ticket && !j->quit)
			ter_waitq_wait(&j->reclaim_done_wq, &j->lock);
		r = j->reclaim_result;
	}
	ter_lock_release(&j->lock);
	return r;
}

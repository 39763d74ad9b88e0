/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks and wait queues of the cooperative scheduler. Who gets a lock, and whether a wait ends without a wake, is up to
 * the dice. */
#include "util/exec_priv.h"

/* Waits that end at once: callers loop on their condition (X1), and this finds one that does not. */
#define SPURIOUS_ONE_IN 32

bool ter_coop_lock_try(struct ter_coop *coop, struct ter_lock *lock)
{
	ter_coop_point(coop);
	if (lock->coop_owner)
		return false;
	lock->coop_owner = ter_coop_current(coop);
	return true;
}

void ter_coop_lock_acquire(struct ter_coop *coop, struct ter_lock *lock)
{
	ter_coop_point(coop);
	while (lock->coop_owner)
		(void)ter_coop_block(coop, &lock->coop_waiters, TER_COOP_WAIT_LOCK, lock,
				     TER_COOP_FOREVER); /* looped */
	lock->coop_owner = ter_coop_current(coop);
}

static void lock_release(struct ter_coop *coop, struct ter_lock *lock)
{
	assert(lock->coop_owner == ter_coop_current(coop));
	lock->coop_owner = NULL;
	ter_coop_wake_one(coop, &lock->coop_waiters);
}

void ter_coop_lock_release(struct ter_coop *coop, struct ter_lock *lock)
{
	lock_release(coop, lock);
	ter_coop_point(coop); /* @lock may be gone now */
}

static bool can_read(const struct ter_rwlock *lock)
{
	return lock->coop_state >= 0 && !ter_coop_writer_waits(&lock->coop_waiters);
}

bool ter_coop_rwlock_try_read(struct ter_coop *coop, struct ter_rwlock *lock)
{
	ter_coop_point(coop);
	if (!can_read(lock))
		return false;
	lock->coop_state++;
	return true;
}

void ter_coop_rwlock_read(struct ter_coop *coop, struct ter_rwlock *lock)
{
	ter_coop_point(coop);
	while (!can_read(lock))
		(void)ter_coop_block(coop, &lock->coop_waiters, TER_COOP_WAIT_READ, lock,
				     TER_COOP_FOREVER); /* looped */
	lock->coop_state++;
}

bool ter_coop_rwlock_try_write(struct ter_coop *coop, struct ter_rwlock *lock)
{
	ter_coop_point(coop);
	if (lock->coop_state)
		return false;
	lock->coop_state = -1;
	return true;
}

void ter_coop_rwlock_write(struct ter_coop *coop, struct ter_rwlock *lock)
{
	ter_coop_point(coop);
	while (lock->coop_state)
		(void)ter_coop_block(coop, &lock->coop_waiters, TER_COOP_WAIT_WRITE, lock,
				     TER_COOP_FOREVER); /* looped */
	lock->coop_state = -1;
}

void ter_coop_rwlock_release(struct ter_coop *coop, struct ter_rwlock *lock)
{
	assert(lock->coop_state);
	lock->coop_state = lock->coop_state < 0 ? 0 : lock->coop_state - 1;
	if (!lock->coop_state)
		ter_coop_wake_all(coop, &lock->coop_waiters); /* each looks again */
	ter_coop_point(coop);
}

/*
 * Joins the waiters before the lock is given up, without a switch in between: no wake is lost. A lock's release wakes
 * its waiters but runs none of them.
 */
int ter_coop_waitq_wait(struct ter_coop *coop, struct ter_waitq *wq, struct ter_lock *lock, uint64_t deadline_ns)
{
	bool woken = true;

	lock_release(coop, lock);
	if (ter_coop_draw(coop, SPURIOUS_ONE_IN))
		woken = ter_coop_block(coop, &wq->coop_waiters, TER_COOP_WAIT_WAITQ, wq, deadline_ns);
	else
		ter_coop_point(coop);
	while (lock->coop_owner)
		(void)ter_coop_block(coop, &lock->coop_waiters, TER_COOP_WAIT_LOCK, lock,
				     TER_COOP_FOREVER); /* looped */
	lock->coop_owner = ter_coop_current(coop);
	return woken ? 0 : -ETIMEDOUT;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks, wait queues and sleep: pthread's on an ordinary thread, the cooperative scheduler's inside one. */
#include "util/exec_priv.h"

#include <stdio.h>
#include <time.h>

__thread struct ter_coop *ter_coop_self;

#ifdef TER_DEBUG_LOCKS
static __thread struct ter_held thread_held;

static struct ter_held *held_here(void)
{
	return ter_unlikely(ter_coop_self) ? ter_coop_held(ter_coop_self) : &thread_held;
}

static void before_wait(const void *lock, enum ter_rank rank)
{
	const struct ter_held *held = held_here();

	if (ter_held_allows(held, rank))
		return;
	fprintf(stderr, "lock order: %s (%p) is wanted while these are held:", ter_rank_name(rank), lock);
	for (unsigned i = 0; i < held->nr; i++)
		fprintf(stderr, " %s (%p)", ter_rank_name(held->at[i].rank), held->at[i].lock);
	fprintf(stderr, "\n");
	abort();
}

static void after_acquire(const void *lock, enum ter_rank rank)
{
	ter_held_push(held_here(), lock, rank);
}

static void before_release(const void *lock)
{
	ter_held_pop(held_here(), lock);
}
#else
static inline void before_wait(const void *lock, enum ter_rank rank)
{
}
static inline void after_acquire(const void *lock, enum ter_rank rank)
{
}
static inline void before_release(const void *lock)
{
}
#endif

/* pthread's calls fail only when one of our own rules is broken (destroyed, not initialised, not owned). */
static inline void must(int r)
{
	if (ter_unlikely(r))
		abort();
}

/* --- mutual exclusion --- */

void ter_lock_init(struct ter_lock *lock, enum ter_rank rank)
{
	must(pthread_mutex_init(&lock->mutex, NULL));
	lock->coop_owner = NULL;
	ter_list_init(&lock->coop_waiters);
	lock->rank = (uint8_t)rank;
}

void ter_lock_destroy(struct ter_lock *lock)
{
	assert(!lock->coop_owner && ter_list_empty(&lock->coop_waiters));
	must(pthread_mutex_destroy(&lock->mutex));
}

/*
 * Reached under the cooperative scheduler, in debug builds, and after a failure of pthread's call, which then fails
 * here again.
 */
void ter_lock_acquire_slow(struct ter_lock *lock)
{
	before_wait(lock, lock->rank);
	if (ter_coop_self)
		ter_coop_lock_acquire(ter_coop_self, lock);
	else
		must(pthread_mutex_lock(&lock->mutex));
	after_acquire(lock, lock->rank);
}

bool ter_lock_try(struct ter_lock *lock)
{
	struct ter_coop *coop = ter_coop_self;

	if (ter_likely(!coop)) {
		int r = pthread_mutex_trylock(&lock->mutex);

		if (r == EBUSY)
			return false;
		must(r);
	} else if (!ter_coop_lock_try(coop, lock)) {
		return false;
	}
	after_acquire(lock, lock->rank);
	return true;
}

void ter_lock_release_slow(struct ter_lock *lock)
{
	before_release(lock);
	if (ter_coop_self)
		ter_coop_lock_release(ter_coop_self, lock);
	else
		must(pthread_mutex_unlock(&lock->mutex));
}

void ter_lock_assert_held(struct ter_lock *lock)
{
#ifdef TER_DEBUG_LOCKS
	assert(ter_held_has(held_here(), lock));
#else
	(void)lock; /* who holds it is known in debug builds only */
#endif
}

/* --- readers and writers --- */

void ter_rwlock_init(struct ter_rwlock *lock, enum ter_rank rank)
{
	pthread_rwlockattr_t attr;

	must(pthread_rwlockattr_init(&attr));
	must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	must(pthread_rwlock_init(&lock->rwlock, &attr));
	must(pthread_rwlockattr_destroy(&attr));
	lock->coop_state = 0;
	ter_list_init(&lock->coop_waiters);
	lock->rank = (uint8_t)rank;
}

void ter_rwlock_destroy(struct ter_rwlock *lock)
{
	assert(!lock->coop_state && ter_list_empty(&lock->coop_waiters));
	must(pthread_rwlock_destroy(&lock->rwlock));
}

void ter_rwlock_read(struct ter_rwlock *lock)
{
	struct ter_coop *coop = ter_coop_self;

	before_wait(lock, lock->rank);
	if (ter_likely(!coop))
		must(pthread_rwlock_rdlock(&lock->rwlock));
	else
		ter_coop_rwlock_read(coop, lock);
	after_acquire(lock, lock->rank);
}

bool ter_rwlock_try_read(struct ter_rwlock *lock)
{
	struct ter_coop *coop = ter_coop_self;

	if (ter_likely(!coop)) {
		int r = pthread_rwlock_tryrdlock(&lock->rwlock);

		if (r == EBUSY)
			return false;
		must(r);
	} else if (!ter_coop_rwlock_try_read(coop, lock)) {
		return false;
	}
	after_acquire(lock, lock->rank);
	return true;
}

static void rwlock_release(struct ter_rwlock *lock)
{
	struct ter_coop *coop = ter_coop_self;

	before_release(lock);
	if (ter_likely(!coop))
		must(pthread_rwlock_unlock(&lock->rwlock));
	else
		ter_coop_rwlock_release(coop, lock);
}

void ter_rwlock_read_release(struct ter_rwlock *lock)
{
	rwlock_release(lock);
}

void ter_rwlock_write(struct ter_rwlock *lock)
{
	struct ter_coop *coop = ter_coop_self;

	before_wait(lock, lock->rank);
	if (ter_likely(!coop))
		must(pthread_rwlock_wrlock(&lock->rwlock));
	else
		ter_coop_rwlock_write(coop, lock);
	after_acquire(lock, lock->rank);
}

bool ter_rwlock_try_write(struct ter_rwlock *lock)
{
	struct ter_coop *coop = ter_coop_self;

	if (ter_likely(!coop)) {
		int r = pthread_rwlock_trywrlock(&lock->rwlock);

		if (r == EBUSY)
			return false;
		must(r);
	} else if (!ter_coop_rwlock_try_write(coop, lock)) {
		return false;
	}
	after_acquire(lock, lock->rank);
	return true;
}

void ter_rwlock_write_release(struct ter_rwlock *lock)
{
	rwlock_release(lock);
}

/* --- waiting --- */

void ter_waitq_init(struct ter_waitq *wq)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(&wq->cond, &attr));
	must(pthread_condattr_destroy(&attr));
	ter_list_init(&wq->coop_waiters);
}

void ter_waitq_destroy(struct ter_waitq *wq)
{
	assert(ter_list_empty(&wq->coop_waiters));
	must(pthread_cond_destroy(&wq->cond));
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / TER_NS_PER_S), .tv_nsec = (long)(ns % TER_NS_PER_S)};
}

static int wait_until(struct ter_waitq *wq, struct ter_lock *lock, uint64_t deadline_ns)
{
	struct ter_coop *coop = ter_coop_self;
	struct timespec deadline;
	int r;

	if (ter_unlikely(coop))
		return ter_coop_waitq_wait(coop, wq, lock, deadline_ns);
	if (deadline_ns == TER_COOP_FOREVER) {
		must(pthread_cond_wait(&wq->cond, &lock->mutex));
		return 0;
	}
	deadline = timespec_of(deadline_ns);
	r = pthread_cond_timedwait(&wq->cond, &lock->mutex, &deadline);
	if (r == ETIMEDOUT)
		return -ETIMEDOUT;
	must(r);
	return 0;
}

int ter_waitq_wait_until(struct ter_waitq *wq, struct ter_lock *lock, uint64_t deadline_ns)
{
	int r;

	before_release(lock);
	r = wait_until(wq, lock, deadline_ns);
	after_acquire(lock, lock->rank);
	return r;
}

void ter_waitq_wait(struct ter_waitq *wq, struct ter_lock *lock)
{
	(void)ter_waitq_wait_until(wq, lock, TER_COOP_FOREVER); /* cannot time out */
}

void ter_waitq_wake_one(struct ter_waitq *wq)
{
	if (ter_likely(!ter_coop_self))
		must(pthread_cond_signal(&wq->cond));
	else
		ter_coop_wake_one(ter_coop_self, &wq->coop_waiters);
}

void ter_waitq_wake_all(struct ter_waitq *wq)
{
	if (ter_likely(!ter_coop_self))
		must(pthread_cond_broadcast(&wq->cond));
	else
		ter_coop_wake_all(ter_coop_self, &wq->coop_waiters);
}

void ter_sleep_ns(struct ter_exec *exec, uint64_t ns)
{
	struct timespec until;

	if (ter_coop_self) {
		ter_coop_sleep(ter_coop_self, ns);
		return;
	}
	until = timespec_of(ter_mono_ns(exec) + ns);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Execution: tasks, locks, waiting, time and randomness
 *
 * Core creates no thread, reads no clock and sleeps on nothing but what stands here. Two backends:
 *
 *   threads   each task is a thread, locks are mutexes, time is the machine's.
 *   coop      one seeded cooperative scheduler: every task has a small stack of its own on one thread; each lock, wait and
 *             wake is a point where the seed may choose another task; time moves only when all tasks wait (to the next deadline) or when
 *             the test advances it. The same seed gives the same run.
 *
 * Which backend a lock uses is decided by the thread that uses it: inside a coop scheduler's run everything is cooperative. A lock must not be
 * shared between the two. Threads that were not spawned here (a test's main thread, a FUSE serving thread) count as the threads backend.
 *
 * Locks carry a rank (LOCKING.md). In debug builds (TER_DEBUG_LOCKS) acquiring a lock of a rank not greater than one already held by the task is an
 * assertion failure; TER_RANK_BTREE_NODE and TER_RANK_INODE are exempt among their own kind, and try never fails the check.
 *
 * Invariants
 *   X1  A wait returns only after a wake, at its deadline, or spuriously: callers loop on their condition.
 *   X2  A task's function returns before ter_task_join() does; after it nothing of the task remains.
 */
#ifndef TER_EXEC_H
#define TER_EXEC_H

#include <pthread.h>

#include "util/base.h"

/* Outermost first. One row a rank; LOCKING.md says what each guards. */
#define TER_RANKS(x)                                                                                                   \
	x(FS_STATE)     /* super: life cycle */                                                                        \
	x(RENAME)       /* vfs: directory moves */                                                                     \
	x(INODE)        /* vfs: one inode; several in order of number */                                               \
	x(DIRTY)        /* data: dirty segments of one inode */                                                        \
	x(BTREE_INTERIOR) /* btree: one structure change per btree */                                                  \
	x(SB_WRITE)     /* sb: one superblock write at a time; held across I/O */                                      \
	x(BTREE_NODE)   /* btree: parent before child; across btrees only by try-lock */                               \
	x(BTREE_CACHE)  /* btree: hash, LRU and dirty lists */                                                         \
	x(ALLOC)        /* alloc: open buckets, write points, reservations */                                          \
	x(JOURNAL)      /* journal: open entry, fifo of pins */                                                        \
	x(SB)           /* sb: superblock in memory */                                                                 \
	x(MEMBERS)      /* sb: member array and states */                                                              \
	x(DIRTY_POOL)   /* data: buffer memory and global lists */                                                     \
	x(DEVICE)       /* io: queues of one device */                                                                 \
	x(LEAF)         /* anything that calls nothing while held */

enum ter_rank {
	TER_RANK_NONE,
#define x(name) TER_RANK_##name,
	TER_RANKS(x)
#undef x
	TER_RANK_NR,
};

struct ter_coop_task; /* coop backend: who owns or waits */

/* Mutual exclusion. Not recursive. Zero-initialised is not valid: use ter_lock_init(). */
struct ter_lock {
	pthread_mutex_t mutex;
	struct ter_coop_task *coop_owner;
	struct ter_list coop_waiters;
	uint8_t rank;
};
void ter_lock_init(struct ter_lock *lock, enum ter_rank rank);
void ter_lock_destroy(struct ter_lock *lock);
bool ter_lock_try(struct ter_lock *lock); /* true: acquired */

/* The two that are on every hot path: pthread's call and one look at a thread-local word. The rest is in exec_lock.c. */
struct ter_coop;
extern __thread struct ter_coop *ter_coop_self __attribute__((tls_model("initial-exec"))); /* the scheduler this thread is inside of, or NULL */
void ter_lock_acquire_slow(struct ter_lock *lock);
void ter_lock_release_slow(struct ter_lock *lock);
static inline void ter_lock_acquire(struct ter_lock *lock)
{
#ifndef TER_DEBUG_LOCKS
	if (ter_likely(!ter_coop_self) && ter_likely(!pthread_mutex_lock(&lock->mutex)))
		return;
#endif
	ter_lock_acquire_slow(lock);
}
static inline void ter_lock_release(struct ter_lock *lock)
{
#ifndef TER_DEBUG_LOCKS
	if (ter_likely(!ter_coop_self) && ter_likely(!pthread_mutex_unlock(&lock->mutex)))
		return;
#endif
	ter_lock_release_slow(lock);
}
void ter_lock_assert_held(struct ter_lock *lock); /* debug builds only */

/* Many readers or one writer; writers are preferred, so a reader must not take the same lock twice. */
struct ter_rwlock {
	pthread_rwlock_t rwlock;
	int32_t coop_state; /* -1 writer, n readers */
	struct ter_list coop_waiters;
	uint8_t rank;
};
void ter_rwlock_init(struct ter_rwlock *lock, enum ter_rank rank);
void ter_rwlock_destroy(struct ter_rwlock *lock);
void ter_rwlock_read(struct ter_rwlock *lock);
bool ter_rwlock_try_read(struct ter_rwlock *lock);
void ter_rwlock_read_release(struct ter_rwlock *lock);
void ter_rwlock_write(struct ter_rwlock *lock);
bool ter_rwlock_try_write(struct ter_rwlock *lock);
void ter_rwlock_write_release(struct ter_rwlock *lock);

/* A queue of waiters, used with a ter_lock that guards the condition waited for. */
struct ter_waitq {
	pthread_cond_t cond;
	struct ter_list coop_waiters;
};
void ter_waitq_init(struct ter_waitq *wq);
void ter_waitq_destroy(struct ter_waitq *wq);
/* Drops @lock, waits, takes it again. */
void ter_waitq_wait(struct ter_waitq *wq, struct ter_lock *lock);
/* @deadline_ns on ter_mono_ns()'s clock. Return: 0 woken (or spurious), -ETIMEDOUT. */
int ter_waitq_wait_until(struct ter_waitq *wq, struct ter_lock *lock, uint64_t deadline_ns);
/* May be called with or without the lock held. */
void ter_waitq_wake_one(struct ter_waitq *wq);
void ter_waitq_wake_all(struct ter_waitq *wq);

/* --- what the caller of core hands in --- */

struct ter_exec;
struct ter_task;

struct ter_exec_ops {
	/* Starts @fn(@arg); @name (at most 15 bytes) is for debuggers. -EAGAIN or -ENOMEM: not started. */
	int (*spawn)(struct ter_exec *exec, const char *name, void (*fn)(void *arg), void *arg, struct ter_task **ret_task);
	void (*join)(struct ter_exec *exec, struct ter_task *task); /* waits for the end and frees; NULL is fine */
	uint64_t (*mono_ns)(struct ter_exec *exec);                 /* never goes back */
	int64_t (*real_ns)(struct ter_exec *exec);                  /* since 1970; may jump */
	void (*random)(struct ter_exec *exec, void *buf, size_t bytes);
	void (*yield)(struct ter_exec *exec);
};
struct ter_exec {
	const struct ter_exec_ops *ops;
	unsigned cpus; /* how many tasks can run at once; 1 under coop */
	bool coop;
};

struct ter_exec *ter_exec_new_threads(void);                 /* NULL: no memory */
void ter_exec_free(struct ter_exec *exec);                   /* every task joined before; NULL is fine */

/*
 * The cooperative scheduler. ter_coop_run() makes @main its first task and returns when all tasks have ended (0) or when every task waits without
 * a deadline (-EDEADLK: a lost wake-up; the test fails). Completions of the simulated I/O backend are tasks or timers of the same scheduler.
 */
struct ter_exec *ter_exec_new_coop(uint64_t seed);
int ter_coop_run(struct ter_exec *exec, void (*main)(void *arg), void *arg);
void ter_coop_advance(struct ter_exec *exec, uint64_t ns); /* moves time on; who waited until then can run */
/* A task that serves others for as long as they live: a run ends, and a deadlock is judged, without it. It goes on in the next run. */
void ter_coop_set_background(struct ter_exec *exec, struct ter_task *task);
bool ter_coop_inside(struct ter_exec *exec); /* is this code running in one of its tasks? Also false for the threads backend */
/* After -EDEADLK: who waits for what, a line a task, cut at @bytes; returns the length. */
size_t ter_coop_describe(struct ter_exec *exec, char *buf, size_t bytes);

static inline uint64_t ter_mono_ns(struct ter_exec *exec)
{
	return exec->ops->mono_ns(exec);
}
static inline int64_t ter_real_ns(struct ter_exec *exec)
{
	return exec->ops->real_ns(exec);
}
static inline uint64_t ter_random_u64(struct ter_exec *exec)
{
	uint64_t x;

	exec->ops->random(exec, &x, sizeof(x));
	return x;
}
/* Sleeps at least @ns. */
void ter_sleep_ns(struct ter_exec *exec, uint64_t ns);

/* A one-shot event: a completion signals it, a waiter waits. */
struct ter_event {
	struct ter_lock lock; /* rank LEAF */
	struct ter_waitq wq;
	bool set;
	int result;
};
void ter_event_init(struct ter_event *event);
void ter_event_destroy(struct ter_event *event);
void ter_event_set(struct ter_event *event, int result);
int ter_event_wait(struct ter_event *event); /* returns the result given to set */

/*
 * A work queue: up to @nr tasks that run closures in order of arrival. The queue is not bounded by itself: who adds bounds what it adds. work->fn may add again.
 */
struct ter_work {
	struct ter_list link;
	void (*fn)(struct ter_work *work);
};
struct ter_workq;
int ter_workq_new(struct ter_exec *exec, const char *name, unsigned nr, struct ter_workq **ret_wq);
void ter_workq_add(struct ter_workq *wq, struct ter_work *work); /* @work must not be queued already */
void ter_workq_drain(struct ter_workq *wq);                       /* waits until nothing is queued or running */
void ter_workq_free(struct ter_workq *wq);                        /* drains, joins; NULL is fine */

#endif

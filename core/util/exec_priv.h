/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Execution, inside util/: the cooperative scheduler as locks and waits see it, and the check of lock ranks. */
#ifndef TER_EXEC_PRIV_H
#define TER_EXEC_PRIV_H

#include "util/exec.h"

/* --- lock ranks --- */

#define TER_HELD_MAX 512 /* locks one task holds at once: the nodes of one large btree commit and a few more */

struct ter_held {
	unsigned nr;
	struct {
		const void *lock;
		enum ter_rank rank;
	} at[TER_HELD_MAX];
};

/* May a task that holds @held wait for a lock of @rank? Ranks grow inwards; nodes and inodes have an order of their own
 * among themselves. */
bool ter_held_allows(const struct ter_held *held, enum ter_rank rank);
void ter_held_push(struct ter_held *held, const void *lock, enum ter_rank rank);
void ter_held_pop(struct ter_held *held, const void *lock);
bool ter_held_has(const struct ter_held *held, const void *lock);
const char *ter_rank_name(enum ter_rank rank);

/* --- cooperative scheduler --- */

#define TER_COOP_FOREVER UINT64_MAX

struct ter_coop_task *ter_coop_current(struct ter_coop *coop);
struct ter_held *ter_coop_held(struct ter_coop *coop);
uint64_t ter_coop_draw(struct ter_coop *coop, uint64_t below); /* the scheduler's dice: 0..below-1 */

/* A point where another task may be chosen to go on. */
void ter_coop_point(struct ter_coop *coop);

enum ter_coop_wait {
	TER_COOP_WAIT_LOCK,
	TER_COOP_WAIT_READ,
	TER_COOP_WAIT_WRITE,
	TER_COOP_WAIT_WAITQ,
	TER_COOP_WAIT_JOIN,
	TER_COOP_WAIT_SLEEP
};

/* The current task waits on @waiters (may be NULL) until woken (true) or @deadline_ns (false). @on is for the
 * explanation of a deadlock. */
bool ter_coop_block(struct ter_coop *coop, struct ter_list *waiters, enum ter_coop_wait why, const void *on,
		    uint64_t deadline_ns);
void ter_coop_wake_one(struct ter_coop *coop, struct ter_list *waiters); /* one of them, by the dice */
void ter_coop_wake_all(struct ter_coop *coop, struct ter_list *waiters);
bool ter_coop_writer_waits(const struct ter_list *waiters);

void ter_coop_lock_acquire(struct ter_coop *coop, struct ter_lock *lock);
bool ter_coop_lock_try(struct ter_coop *coop, struct ter_lock *lock);
void ter_coop_lock_release(struct ter_coop *coop, struct ter_lock *lock);
void ter_coop_rwlock_read(struct ter_coop *coop, struct ter_rwlock *lock);
bool ter_coop_rwlock_try_read(struct ter_coop *coop, struct ter_rwlock *lock);
void ter_coop_rwlock_write(struct ter_coop *coop, struct ter_rwlock *lock);
bool ter_coop_rwlock_try_write(struct ter_coop *coop, struct ter_rwlock *lock);
void ter_coop_rwlock_release(struct ter_coop *coop, struct ter_rwlock *lock);
int ter_coop_waitq_wait(struct ter_coop *coop, struct ter_waitq *wq, struct ter_lock *lock, uint64_t deadline_ns);
void ter_coop_sleep(struct ter_coop *coop, uint64_t ns);

/* --- switching stacks (exec_switch.c) --- */

struct ter_stack {
	void *map; /* NULL: the thread's own stack */
	size_t map_bytes;
	void *low; /* lowest usable byte, above the guard page */
	size_t bytes;
	void *context; /* where it left off: stack pointer, or ucontext_t */
	void *asan_fake, *tsan_fiber;
};
int ter_stack_map(struct ter_stack *stack); /* -ENOMEM */
void ter_stack_unmap(struct ter_stack *stack);
/* @entry runs on @stack at the next switch to it; it must not return. @stack may have been used before. -ENOMEM. */
int ter_stack_start(struct ter_stack *stack, void (*entry)(void));
void ter_stack_adopt(struct ter_stack *stack);	 /* the calling thread's own stack */
void ter_stack_release(struct ter_stack *stack); /* undoes start or adopt; not on the stack itself */
void ter_stack_switch(struct ter_stack *from, struct ter_stack *to, bool from_ends);
void ter_stack_entered(struct ter_stack *from); /* the first thing @entry calls; @from is who switched */

/* Both backends ask it: fault point "exec.spawn". 0 or -EAGAIN. */
int ter_exec_spawn_fault(void);

#endif

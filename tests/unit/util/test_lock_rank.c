/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The order of locks: what may be waited for with what held, and that debug builds stop at a wrong order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/exec_priv.h"

static void ranks_grow_inwards(void **state)
{
	static struct ter_held held;

	for (unsigned have = TER_RANK_NONE; have < TER_RANK_NR; have++) {
		ter_held_push(&held, &have, have);
		for (unsigned want = TER_RANK_NONE; want < TER_RANK_NR; want++) {
			bool among_themselves = want == have && (want == TER_RANK_BTREE_NODE || want == TER_RANK_INODE);

			assert_int_equal(ter_held_allows(&held, want),
					 want == TER_RANK_NONE || want > have || among_themselves);
		}
		ter_held_pop(&held, &have);
	}
	assert_int_equal(held.nr, 0);
}

static void any_held_lock_counts_and_release_is_in_any_order(void **state)
{
	static struct ter_held held;
	int a = 0, b = 0, c = 0; /* only their addresses matter */

	ter_held_push(&held, &a, TER_RANK_INODE);
	ter_held_push(&held, &b, TER_RANK_JOURNAL);
	ter_held_push(&held, &c, TER_RANK_ALLOC); /* by try */
	assert_false(ter_held_allows(&held, TER_RANK_JOURNAL));
	assert_false(ter_held_allows(&held, TER_RANK_ALLOC));
	assert_true(ter_held_allows(&held, TER_RANK_SB));
	assert_true(ter_held_has(&held, &b));
	ter_held_pop(&held, &b);
	assert_false(ter_held_has(&held, &b));
	assert_true(ter_held_has(&held, &a) && ter_held_has(&held, &c));
	assert_true(ter_held_allows(&held, TER_RANK_JOURNAL));
	ter_held_pop(&held, &c);
	ter_held_pop(&held, &a);
	assert_int_equal(held.nr, 0);
	assert_string_equal(ter_rank_name(TER_RANK_BTREE_NODE), "BTREE_NODE");
	assert_string_equal(ter_rank_name(TER_RANK_NR), "?");
}

#ifdef TER_DEBUG_LOCKS
/* Whether a process that does this is stopped. */
static bool stops(void (*fn)(void *arg), bool coop)
{
	int status;
	pid_t child = fork();

	if (!child) {
		(void)!freopen("/dev/null", "w", stderr);
		signal(SIGABRT, SIG_DFL);
		if (coop)
			(void)ter_coop_run(ter_exec_new_coop(1), fn, NULL);
		else
			fn(NULL);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child)
		abort();
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void right_order(void *arg)
{
	struct ter_lock a, b;
	struct ter_rwlock node, node2;
	struct ter_waitq wq;

	ter_lock_init(&a, TER_RANK_INODE);
	ter_lock_init(&b, TER_RANK_LEAF);
	ter_rwlock_init(&node, TER_RANK_BTREE_NODE);
	ter_rwlock_init(&node2, TER_RANK_BTREE_NODE);
	ter_waitq_init(&wq);
	ter_lock_acquire(&a);
	ter_rwlock_read(&node);
	ter_rwlock_write(&node2);
	ter_lock_acquire(&b);
	ter_lock_assert_held(&b);
	while (ter_waitq_wait_until(&wq, &b, 1) != -ETIMEDOUT)
		;
	ter_lock_assert_held(&b);
	ter_lock_release(&b);
	ter_rwlock_read_release(&node);
	ter_rwlock_write_release(&node2);
	ter_lock_release(&a);
	if (!ter_lock_try(&b) || !ter_lock_try(&a)) /* try in any order */
		abort();
	ter_lock_release(&a);
	ter_lock_release(&b);
}

static void wrong_order(void *arg)
{
	struct ter_lock a, b;

	ter_lock_init(&a, TER_RANK_JOURNAL);
	ter_lock_init(&b, TER_RANK_ALLOC);
	ter_lock_acquire(&a);
	ter_lock_acquire(&b);
}

static void wrong_rwlock_order(void *arg)
{
	struct ter_rwlock a;
	struct ter_lock b;

	ter_rwlock_init(&a, TER_RANK_BTREE_NODE);
	ter_lock_init(&b, TER_RANK_BTREE_CACHE);
	ter_lock_acquire(&b);
	ter_rwlock_read(&a);
}

static void twice(void *arg)
{
	struct ter_lock a;

	ter_lock_init(&a, TER_RANK_LEAF);
	ter_lock_acquire(&a);
	ter_lock_acquire(&a);
}

static void not_held(void *arg)
{
	struct ter_lock a;

	ter_lock_init(&a, TER_RANK_LEAF);
	ter_lock_assert_held(&a);
}

static void debug_builds_stop_at_a_wrong_order(void **state)
{
	for (unsigned coop = 0; coop < 2; coop++) {
		assert_false(stops(right_order, coop));
		assert_true(stops(wrong_order, coop));
		assert_true(stops(wrong_rwlock_order, coop));
		assert_true(stops(twice, coop));
		assert_true(stops(not_held, coop));
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranks_grow_inwards),
		cmocka_unit_test(any_held_lock_counts_and_release_is_in_any_order),
#ifdef TER_DEBUG_LOCKS
		cmocka_unit_test(debug_builds_stop_at_a_wrong_order),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

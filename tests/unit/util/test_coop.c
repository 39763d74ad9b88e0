/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cooperative scheduler: the same seed gives the same run, seeds find races, deadlocks are reported, time is
 * virtual. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/exec.h"

#define SEEDS 50
#define TRACE_MAX 4096

struct world {
	struct ter_exec *exec;
	struct ter_lock a, b;
	struct ter_waitq wq;
	unsigned trace_nr;
	uint64_t trace[TRACE_MAX];
	uint64_t counter, woke_at_ns;
	bool bad;
};

static void world_init(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->exec = ter_exec_new_coop(seed);
	assert_non_null(w->exec);
	ter_lock_init(&w->a, TER_RANK_NONE);
	ter_lock_init(&w->b, TER_RANK_NONE);
	ter_waitq_init(&w->wq);
}

static void note(struct world *w, uint64_t what)
{
	if (w->trace_nr < TRACE_MAX)
		w->trace[w->trace_nr++] = what;
}

static void spawn(struct world *w, void (*fn)(void *arg), struct ter_task **ret_task)
{
	if (w->exec->ops->spawn(w->exec, "test", fn, w, ret_task) < 0)
		abort();
}

/* --- determinism --- */

static void busy(void *arg)
{
	struct world *w = arg;
	uint64_t me = w->counter++;

	for (unsigned i = 0; i < 100; i++) {
		ter_lock_acquire(&w->a);
		note(w, me << 32 | i);
		if (i % 7 == 0)
			note(w, ter_random_u64(w->exec));
		if (i % 5 == 0)
			(void)ter_waitq_wait_until(&w->wq, &w->a, ter_mono_ns(w->exec) + 1000 * me);
		ter_waitq_wake_one(&w->wq);
		ter_lock_release(&w->a);
		if (i % 11 == 0)
			ter_sleep_ns(w->exec, 777);
		note(w, ter_mono_ns(w->exec));
	}
}

static void busy_main(void *arg)
{
	struct world *w = arg;
	struct ter_task *task[6];

	for (unsigned i = 0; i < ARRAY_SIZE(task); i++)
		spawn(w, busy, &task[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(task); i++)
		w->exec->ops->join(w->exec, task[i]);
}

static void run_busy(struct world *w, uint64_t seed)
{
	world_init(w, seed);
	assert_return_code(ter_coop_run(w->exec, busy_main, w), 0);
	ter_exec_free(w->exec);
}

static void the_same_seed_gives_the_same_run(void **state)
{
	static struct world one, two;
	unsigned same = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		run_busy(&one, seed);
		run_busy(&two, seed);
		assert_true(one.trace_nr > 1000);
		assert_int_equal(one.trace_nr, two.trace_nr);
		assert_memory_equal(one.trace, two.trace, one.trace_nr * sizeof(one.trace[0]));
		run_busy(&two, seed + SEEDS);
		same += one.trace_nr == two.trace_nr &&
			!memcmp(one.trace, two.trace, one.trace_nr * sizeof(one.trace[0]));
	}
	assert_int_equal(same, 0);
}

/* --- races --- */

static void increment_badly(void *arg)
{
	struct world *w = arg;
	uint64_t seen;

	ter_lock_acquire(&w->a);
	seen = w->counter;
	ter_lock_release(&w->a);
	ter_lock_acquire(&w->a);
	w->counter = seen + 1;
	ter_lock_release(&w->a);
}

static void race_main(void *arg)
{
	struct world *w = arg;
	struct ter_task *task[2];

	spawn(w, increment_badly, &task[0]);
	spawn(w, increment_badly, &task[1]);
	w->exec->ops->join(w->exec, task[0]);
	w->exec->ops->join(w->exec, task[1]);
}

static void seeds_find_a_race(void **state)
{
	static struct world w;
	unsigned lost = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		world_init(&w, seed);
		assert_return_code(ter_coop_run(w.exec, race_main, &w), 0);
		lost += w.counter == 1;
		ter_exec_free(w.exec);
	}
	assert_in_range(lost, 1, SEEDS - 1);
}

/* --- deadlocks --- */

static void ab(void *arg)
{
	struct world *w = arg;

	ter_lock_acquire(&w->a);
	ter_lock_acquire(&w->b);
	ter_lock_release(&w->b);
	ter_lock_release(&w->a);
}

static void ba(void *arg)
{
	struct world *w = arg;

	ter_lock_acquire(&w->b);
	ter_lock_acquire(&w->a);
	ter_lock_release(&w->a);
	ter_lock_release(&w->b);
}

static void abba_main(void *arg)
{
	struct world *w = arg;
	struct ter_task *task[2];

	spawn(w, ab, &task[0]);
	spawn(w, ba, &task[1]);
	w->exec->ops->join(w->exec, task[0]);
	w->exec->ops->join(w->exec, task[1]);
}

static void a_deadlock_is_found_and_explained(void **state)
{
	static struct world w;
	unsigned found = 0;
	char text[512];

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		int r;

		world_init(&w, seed);
		r = ter_coop_run(w.exec, abba_main, &w);
		if (r == -EDEADLK) {
			found++;
			assert_true(ter_coop_describe(w.exec, text, sizeof(text)) > 0);
			assert_non_null(strstr(text, "task test waits for lock"));
			assert_non_null(strstr(text, "task main waits for end of task"));
			assert_int_equal(ter_coop_describe(w.exec, text, 10), 9);
		} else {
			assert_int_equal(r, 0);
			assert_int_equal(ter_coop_describe(w.exec, text, sizeof(text)), 0);
		}
		ter_exec_free(w.exec);
	}
	assert_in_range(found, 1, SEEDS - 1);
}

static void wait_for_ever(void *arg)
{
	struct world *w = arg;

	ter_lock_acquire(&w->a);
	for (;;)
		ter_waitq_wait(&w->wq, &w->a);
}

static void a_wake_that_never_comes_is_a_deadlock(void **state)
{
	static struct world w;

	world_init(&w, 1);
	assert_int_equal(ter_coop_run(w.exec, wait_for_ever, &w), -EDEADLK);
	ter_exec_free(w.exec);
}

/* --- time --- */

static void sleeper(void *arg)
{
	struct world *w = arg;

	ter_sleep_ns(w->exec, 3600 * TER_NS_PER_S);
	w->woke_at_ns = ter_mono_ns(w->exec);
}

static void advance_main(void *arg)
{
	struct world *w = arg;
	uint64_t begin = ter_mono_ns(w->exec);
	int64_t begin_real = ter_real_ns(w->exec);
	struct ter_task *task;

	spawn(w, sleeper, &task);
	for (unsigned i = 0; i < 100; i++)
		w->exec->ops->yield(w->exec);
	w->bad |= ter_mono_ns(w->exec) != begin || w->woke_at_ns; /* not while somebody can run */
	ter_coop_advance(w->exec, 3599 * TER_NS_PER_S);
	for (unsigned i = 0; i < 100; i++)
		w->exec->ops->yield(w->exec);
	w->bad |= w->woke_at_ns != 0;
	ter_coop_advance(w->exec, 2 * TER_NS_PER_S);
	w->exec->ops->join(w->exec, task);
	w->bad |= w->woke_at_ns != begin + 3601 * TER_NS_PER_S;
	w->bad |= ter_real_ns(w->exec) - begin_real != (int64_t)(3601 * TER_NS_PER_S);
}

static void time_moves_when_told_or_when_all_wait(void **state)
{
	static struct world w;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		world_init(&w, seed);
		assert_return_code(ter_coop_run(w.exec, advance_main, &w), 0);
		assert_false(w.bad);
		ter_exec_free(w.exec);
	}
}

static void sleep_by_turn(void *arg)
{
	struct world *w = arg;
	uint64_t ms = 1 + w->counter++ * 7 % 5, wake_ns = ter_mono_ns(w->exec) + ms * TER_NS_PER_MS;

	ter_sleep_ns(w->exec, ms * TER_NS_PER_MS);
	w->bad |= ter_mono_ns(w->exec) != wake_ns;
	note(w, ms);
}

static void sleepers_main(void *arg)
{
	struct world *w = arg;
	struct ter_task *task[5];

	for (unsigned i = 0; i < ARRAY_SIZE(task); i++)
		spawn(w, sleep_by_turn, &task[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(task); i++)
		w->exec->ops->join(w->exec, task[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(task); i++)
		w->bad |= w->trace[i] != i + 1;
}

static void sleepers_wake_at_their_time_and_in_its_order(void **state)
{
	static struct world w;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		world_init(&w, seed);
		assert_return_code(ter_coop_run(w.exec, sleepers_main, &w), 0);
		assert_false(w.bad);
		ter_exec_free(w.exec);
	}
}

static void poll_main(void *arg)
{
	struct world *w = arg;
	struct ter_task *task;

	spawn(w, sleeper, &task);
	while (!w->woke_at_ns)
		w->exec->ops->yield(w->exec);
	w->exec->ops->join(w->exec, task);
}

static void a_task_that_polls_does_not_stop_time(void **state)
{
	static struct world w;

	world_init(&w, 3);
	assert_return_code(ter_coop_run(w.exec, poll_main, &w), 0);
	ter_exec_free(w.exec);
}

/* --- runs --- */

static void count_main(void *arg)
{
	struct world *w = arg;

	w->counter++;
}

static void a_scheduler_runs_again_and_takes_tasks_before_a_run(void **state)
{
	static struct world w;
	struct ter_task *task;

	world_init(&w, 4);
	spawn(&w, count_main, &task);
	assert_int_equal(w.counter, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_return_code(ter_coop_run(w.exec, count_main, &w), 0);
	assert_int_equal(w.counter, 4);
	w.exec->ops->join(w.exec, task); /* ended, so that it need not wait */
	assert_int_equal(w.exec->cpus, 1);
	ter_exec_free(w.exec);
	ter_exec_free(NULL);
}

static void deep(unsigned depth)
{
	volatile char frame[512];

	memset((char *)frame, (int)depth, sizeof(frame));
	if (depth)
		deep(depth - 1);
	assert(frame[0] == (char)depth);
}

static void deep_main(void *arg)
{
	deep(200); /* 100 KiB and more: stacks of the stated size are usable */
}

static void a_task_has_room_on_its_stack(void **state)
{
	static struct world w;

	world_init(&w, 5);
	assert_return_code(ter_coop_run(w.exec, deep_main, &w), 0);
	ter_exec_free(w.exec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_seed_gives_the_same_run),
		cmocka_unit_test(seeds_find_a_race),
		cmocka_unit_test(a_deadlock_is_found_and_explained),
		cmocka_unit_test(a_wake_that_never_comes_is_a_deadlock),
		cmocka_unit_test(time_moves_when_told_or_when_all_wait),
		cmocka_unit_test(sleepers_wake_at_their_time_and_in_its_order),
		cmocka_unit_test(a_task_that_polls_does_not_stop_time),
		cmocka_unit_test(a_scheduler_runs_again_and_takes_tasks_before_a_run),
		cmocka_unit_test(a_task_has_room_on_its_stack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

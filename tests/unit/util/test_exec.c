/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tasks, locks, waiting and work queues, each promise kept by both backends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/exec.h"
#include "util/fault.h"

#define TASKS 4
#define ROUNDS 500
#define SEEDS 20 /* of the cooperative scheduler, a run each */

struct world {
	struct ter_exec *exec;
	struct ter_lock lock;
	struct ter_rwlock rwlock;
	struct ter_waitq wq, wq2;
	struct ter_event event;
	uint64_t counter, counter2;
	int readers, readers_max, writers;
	bool flag, bad;
	void (*body)(struct world *w);
};

static void world_init(struct world *w)
{
	ter_lock_init(&w->lock, TER_RANK_DEVICE);
	ter_rwlock_init(&w->rwlock, TER_RANK_ALLOC);
	ter_waitq_init(&w->wq);
	ter_waitq_init(&w->wq2);
	ter_event_init(&w->event);
}

static void world_destroy(struct world *w)
{
	ter_event_destroy(&w->event);
	ter_waitq_destroy(&w->wq2);
	ter_waitq_destroy(&w->wq);
	ter_rwlock_destroy(&w->rwlock);
	ter_lock_destroy(&w->lock);
}

static void run_body(void *arg)
{
	struct world *w = arg;

	world_init(w);
	w->body(w);
	world_destroy(w);
}

/* Runs @body under threads, then under the cooperative scheduler with many seeds. Cooperative bodies note failures in
 * w->bad. */
static void under_both(void (*body)(struct world *w))
{
	struct world w = {.exec = ter_exec_new_threads(), .body = body};

	assert_non_null(w.exec);
	assert_true(w.exec->cpus >= 1);
	run_body(&w);
	assert_false(w.bad);
	ter_exec_free(w.exec);

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		w = (struct world){.exec = ter_exec_new_coop(seed), .body = body};
		assert_non_null(w.exec);
		assert_return_code(ter_coop_run(w.exec, run_body, &w), 0);
		assert_false(w.bad);
		ter_exec_free(w.exec);
	}
}

#define EXPECT(w, condition)                                                                                           \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			print_error("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                    \
			__atomic_store_n(&(w)->bad, true, __ATOMIC_RELAXED);                                           \
		}                                                                                                      \
	} while (0)

static void run_tasks(struct world *w, void (*fn)(void *arg))
{
	struct ter_task *task[TASKS];

	for (unsigned i = 0; i < TASKS; i++)
		if (w->exec->ops->spawn(w->exec, "test", fn, w, &task[i]) < 0)
			abort();
	for (unsigned i = 0; i < TASKS; i++)
		w->exec->ops->join(w->exec, task[i]);
}

/* --- mutual exclusion --- */

static void count_under_lock(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t seen;

		if (i % 3 || !ter_lock_try(&w->lock))
			ter_lock_acquire(&w->lock);
		seen = w->counter;
		if (i % 16 == 0)
			w->exec->ops->yield(w->exec);
		w->counter = seen + 1;
		ter_lock_release(&w->lock);
	}
}

static void body_lock(struct world *w)
{
	run_tasks(w, count_under_lock);
	EXPECT(w, w->counter == TASKS * ROUNDS);
}

static void a_lock_excludes(void **state)
{
	under_both(body_lock);
}

static void try_it(void *arg)
{
	struct world *w = arg;

	w->flag = ter_lock_try(&w->lock);
	if (w->flag)
		ter_lock_release(&w->lock);
}

static bool tried_by_another(struct world *w)
{
	struct ter_task *task;

	if (w->exec->ops->spawn(w->exec, "try", try_it, w, &task) < 0)
		abort();
	w->exec->ops->join(w->exec, task);
	return w->flag;
}

static void body_try(struct world *w)
{
	ter_lock_acquire(&w->lock);
	EXPECT(w, !tried_by_another(w));
	ter_lock_release(&w->lock);
	EXPECT(w, tried_by_another(w));
}

static void try_fails_only_while_held(void **state)
{
	under_both(body_try);
}

/* --- readers and writers --- */

static void read_and_write(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < ROUNDS / 4; i++) {
		int readers;

		ter_rwlock_read(&w->rwlock);
		readers = __atomic_add_fetch(&w->readers, 1, __ATOMIC_RELAXED);
		if (readers > __atomic_load_n(&w->readers_max, __ATOMIC_RELAXED))
			__atomic_store_n(&w->readers_max, readers, __ATOMIC_RELAXED);
		EXPECT(w, !w->writers);
		w->exec->ops->yield(w->exec);
		EXPECT(w, !w->writers);
		__atomic_sub_fetch(&w->readers, 1, __ATOMIC_RELAXED);
		ter_rwlock_read_release(&w->rwlock);

		if (i % 2 || !ter_rwlock_try_write(&w->rwlock))
			ter_rwlock_write(&w->rwlock);
		EXPECT(w, !w->writers && !__atomic_load_n(&w->readers, __ATOMIC_RELAXED));
		w->writers = 1;
		w->exec->ops->yield(w->exec);
		w->writers = 0;
		ter_rwlock_write_release(&w->rwlock);
	}
}

static void body_rwlock(struct world *w)
{
	run_tasks(w, read_and_write);
	if (w->exec->coop)
		EXPECT(w, w->readers_max > 1);
	ter_rwlock_read(&w->rwlock);
	EXPECT(w, !ter_rwlock_try_write(&w->rwlock));
	ter_rwlock_read_release(&w->rwlock);
	EXPECT(w, ter_rwlock_try_read(&w->rwlock));
	ter_rwlock_read_release(&w->rwlock);
	ter_rwlock_write(&w->rwlock);
	EXPECT(w, !ter_rwlock_try_read(&w->rwlock));
	ter_rwlock_write_release(&w->rwlock);
}

static void a_writer_is_alone_and_readers_are_not(void **state)
{
	under_both(body_rwlock);
}

/* --- waiting --- */

static void produce(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		ter_lock_acquire(&w->lock);
		while (w->counter >= 2)
			ter_waitq_wait(&w->wq2, &w->lock);
		w->counter++;
		ter_waitq_wake_one(&w->wq);
		ter_lock_release(&w->lock);
	}
}

static void body_waitq(struct world *w)
{
	struct ter_task *task;

	if (w->exec->ops->spawn(w->exec, "produce", produce, w, &task) < 0)
		abort();
	for (unsigned i = 0; i < ROUNDS; i++) {
		ter_lock_acquire(&w->lock);
		while (!w->counter)
			ter_waitq_wait(&w->wq, &w->lock);
		EXPECT(w, w->counter <= 2);
		w->counter--;
		ter_lock_release(&w->lock);
		ter_waitq_wake_one(&w->wq2); /* without the lock: allowed too */
	}
	w->exec->ops->join(w->exec, task);
	EXPECT(w, !w->counter);
}

static void no_wake_is_lost(void **state)
{
	under_both(body_waitq);
}

static void wait_for_flag(void *arg)
{
	struct world *w = arg;

	ter_lock_acquire(&w->lock);
	w->counter++;
	ter_waitq_wake_one(&w->wq2);
	while (!w->flag)
		ter_waitq_wait(&w->wq, &w->lock);
	w->counter2++;
	ter_lock_release(&w->lock);
}

static void body_wake_all(struct world *w)
{
	struct ter_task *task[TASKS];

	for (unsigned i = 0; i < TASKS; i++)
		if (w->exec->ops->spawn(w->exec, "waiter", wait_for_flag, w, &task[i]) < 0)
			abort();
	ter_lock_acquire(&w->lock);
	while (w->counter < TASKS)
		ter_waitq_wait(&w->wq2, &w->lock);
	w->flag = true;
	ter_waitq_wake_all(&w->wq);
	ter_lock_release(&w->lock);
	for (unsigned i = 0; i < TASKS; i++)
		w->exec->ops->join(w->exec, task[i]);
	EXPECT(w, w->counter2 == TASKS);
}

static void wake_all_wakes_all(void **state)
{
	under_both(body_wake_all);
}

static void body_deadline(struct world *w)
{
	uint64_t begin = ter_mono_ns(w->exec), deadline = begin + TER_NS_PER_MS;

	ter_lock_acquire(&w->lock);
	while (ter_waitq_wait_until(&w->wq, &w->lock, deadline) != -ETIMEDOUT)
		;
	EXPECT(w, ter_mono_ns(w->exec) >= deadline);
	if (w->exec->coop)
		EXPECT(w, ter_mono_ns(w->exec) == deadline);
	EXPECT(w, !tried_by_another(w)); /* the lock is held again */
	while (ter_waitq_wait_until(&w->wq, &w->lock, begin) != -ETIMEDOUT)
		; /* in the past */
	ter_lock_release(&w->lock);
}

static void a_wait_ends_at_its_deadline(void **state)
{
	under_both(body_deadline);
}

static void body_sleep(struct world *w)
{
	uint64_t begin = ter_mono_ns(w->exec);

	ter_sleep_ns(w->exec, TER_NS_PER_MS);
	EXPECT(w, ter_mono_ns(w->exec) >= begin + TER_NS_PER_MS);
	EXPECT(w, ter_real_ns(w->exec) > 1577836800ll * (int64_t)TER_NS_PER_S);
}

static void sleep_lasts_as_long_as_asked(void **state)
{
	under_both(body_sleep);
}

/* --- events and tasks --- */

static void set_event(void *arg)
{
	struct ter_event *event = arg;

	ter_event_set(event, -EUCLEAN);
}

static void body_event(struct world *w)
{
	for (unsigned i = 0; i < 50; i++) {
		struct ter_event event;
		struct ter_task *task;

		ter_event_init(&event);
		if (w->exec->ops->spawn(w->exec, "set", set_event, &event, &task) < 0)
			abort();
		EXPECT(w, ter_event_wait(&event) == -EUCLEAN);
		ter_event_destroy(&event); /* at once: the setter must be done with it */
		w->exec->ops->join(w->exec, task);
	}
}

static void an_event_carries_its_result_and_can_go_at_once(void **state)
{
	under_both(body_event);
}

static void yield_then_count(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < 20; i++)
		w->exec->ops->yield(w->exec);
	__atomic_add_fetch(&w->counter, 1, __ATOMIC_RELAXED);
}

static void body_join(struct world *w)
{
	struct ter_task *task;

	w->exec->ops->join(w->exec, NULL);
	for (unsigned i = 1; i <= 30; i++) {
		if (w->exec->ops->spawn(w->exec, "a name of more than fifteen bytes", yield_then_count, w, &task) < 0)
			abort();
		w->exec->ops->join(w->exec, task);
		EXPECT(w, __atomic_load_n(&w->counter, __ATOMIC_RELAXED) == i);
	}
}

static void join_returns_after_the_task(void **state)
{
	under_both(body_join);
}

static void body_spawn_fault(struct world *w)
{
	struct ter_fault_rule rule = {.nth = 1, .times = 1};
	struct ter_workq *wq = NULL;

	EXPECT(w, ter_fault_arm("exec.spawn", &rule) == 0);
	EXPECT(w, ter_workq_new(w->exec, "wq", 3, &wq) == -EAGAIN);
	EXPECT(w, wq == NULL);
	ter_fault_disarm_all();
}

static void a_failed_spawn_leaves_nothing(void **state)
{
	under_both(body_spawn_fault);
}

/* --- work queues --- */

struct work_item {
	struct ter_work work;
	struct world *w;
	struct ter_workq *wq;
	unsigned idx, again;
};

static void do_work(struct ter_work *work)
{
	struct work_item *item = ter_container_of(work, struct work_item, work);

	if (item->w->writers) /* one task: order of arrival */
		EXPECT(item->w, item->idx == item->w->counter % 8);
	__atomic_add_fetch(&item->w->counter, 1, __ATOMIC_RELAXED);
	if (item->again) {
		item->again--;
		ter_workq_add(item->wq, &item->work);
	}
}

static void body_workq(struct world *w)
{
	for (unsigned nr = 1; nr <= 3; nr += 2) {
		struct work_item item[8];
		struct ter_workq *wq;

		w->counter = 0;
		w->writers = nr == 1;
		if (ter_workq_new(w->exec, "wq", nr, &wq) < 0)
			abort();
		ter_workq_drain(wq); /* empty */
		for (unsigned i = 0; i < ARRAY_SIZE(item); i++)
			item[i] = (struct work_item){.work.fn = do_work, .w = w, .wq = wq, .idx = i, .again = 0};
		for (unsigned i = 0; i < ARRAY_SIZE(item); i++)
			ter_workq_add(wq, &item[i].work);
		ter_workq_drain(wq);
		EXPECT(w, __atomic_load_n(&w->counter, __ATOMIC_RELAXED) == ARRAY_SIZE(item));

		w->writers = 0;
		for (unsigned i = 0; i < ARRAY_SIZE(item); i++) {
			item[i].again = 5;
			ter_workq_add(wq, &item[i].work);
		}
		ter_workq_free(wq); /* drains */
		EXPECT(w, w->counter == 7 * ARRAY_SIZE(item));
	}
	ter_workq_free(NULL);
}

static void a_work_queue_runs_all_in_order(void **state)
{
	under_both(body_workq);
}

#define MEETING 3

struct meeting {
	struct ter_work work[MEETING];
	struct ter_event all_here;
	struct world *w;
};
static struct meeting *meeting; /* one test at a time */

/* Ends only when as many works as the queue may have tasks run at once. */
static void meet(struct ter_work *work)
{
	if (__atomic_add_fetch(&meeting->w->counter, 1, __ATOMIC_ACQ_REL) == MEETING)
		ter_event_set(&meeting->all_here, 0);
	EXPECT(meeting->w, ter_event_wait(&meeting->all_here) == 0);
}

static void body_workq_grows(struct world *w)
{
	const struct ter_fault_rule never = {.nth = 1, .times = 0};
	struct work_item item[8];
	struct meeting m = {.w = w};
	struct ter_workq *wq;

	meeting = &m;
	w->counter = w->writers = 0;
	ter_event_init(&m.all_here);
	if (ter_workq_new(w->exec, "wq", MEETING, &wq) < 0)
		abort();
	for (unsigned i = 0; i < MEETING; i++) {
		m.work[i].fn = meet;
		ter_workq_add(wq, &m.work[i]);
	}
	ter_workq_free(wq);
	ter_event_destroy(&m.all_here);

	/* One that cannot grow does the work with the task it has. */
	w->counter = 0;
	if (ter_workq_new(w->exec, "wq", MEETING, &wq) < 0)
		abort();
	EXPECT(w, ter_fault_arm("exec.spawn", &never) == 0);
	for (unsigned i = 0; i < ARRAY_SIZE(item); i++) {
		item[i] = (struct work_item){.work.fn = do_work, .w = w, .wq = wq, .idx = i, .again = 0};
		ter_workq_add(wq, &item[i].work);
	}
	ter_workq_drain(wq);
	EXPECT(w, ter_fault_fired("exec.spawn") > 0);
	ter_fault_disarm_all();
	EXPECT(w, __atomic_load_n(&w->counter, __ATOMIC_RELAXED) == ARRAY_SIZE(item));
	ter_workq_free(wq);
}

static void a_work_queue_grows_as_far_as_it_may_and_can(void **state)
{
	under_both(body_workq_grows);
}

static void body_random(struct world *w)
{
	uint64_t x = ter_random_u64(w->exec), y = ter_random_u64(w->exec);
	uint8_t bytes[13] = {0}, zero[13] = {0};

	w->exec->ops->random(w->exec, bytes, sizeof(bytes));
	EXPECT(w, x != y);
	EXPECT(w, memcmp(bytes, zero, sizeof(zero)));
}

static void randomness_varies(void **state)
{
	under_both(body_random);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lock_excludes),
		cmocka_unit_test(try_fails_only_while_held),
		cmocka_unit_test(a_writer_is_alone_and_readers_are_not),
		cmocka_unit_test(no_wake_is_lost),
		cmocka_unit_test(wake_all_wakes_all),
		cmocka_unit_test(a_wait_ends_at_its_deadline),
		cmocka_unit_test(sleep_lasts_as_long_as_asked),
		cmocka_unit_test(an_event_carries_its_result_and_can_go_at_once),
		cmocka_unit_test(join_returns_after_the_task),
		cmocka_unit_test(a_failed_spawn_leaves_nothing),
		cmocka_unit_test(a_work_queue_runs_all_in_order),
		cmocka_unit_test(a_work_queue_grows_as_far_as_it_may_and_can),
		cmocka_unit_test(randomness_varies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

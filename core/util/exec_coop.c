/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cooperative scheduler: one thread, a stack a task, and dice.
 *
 * A task is RUNNING (one), RUNNABLE (in coop->runnable), WAITING (on somebody's list, by a deadline, or both) or ENDED.
 * Every switch goes through the scheduler loop on the stack of ter_coop_run()'s caller. The dice of the scheduler and
 * the randomness handed to the engine are two streams of one seed, so that a change of one leaves the other as it was.
 */
#include <stdio.h>

#include "util/exec_priv.h"
#include "util/mem.h"

#define START_MONO_NS TER_NS_PER_S /* not 0: somebody may take 0 for "never" */
#define START_REAL_S 1577836800ll  /* 2020-01-01 */
#define SWITCH_ONE_IN 3		   /* at a point where it may switch, it does once in so many */
/* Fruitless rounds of all runnable tasks, after which a poller is given the next deadline. */
#define YIELDS_BEFORE_TIME_MOVES 256
#define TASK_NAME_BYTES 16

enum state { RUNNABLE, RUNNING, WAITING, ENDED };

struct ter_coop_task {
	struct ter_list all;  /* coop->tasks */
	struct ter_list wait; /* a waiters' list */
	struct ter_list joiners;
	struct ter_stack stack;
	enum state state;
	unsigned runnable_idx; /* while RUNNABLE */
	bool woken, detached, background;
	enum ter_coop_wait why;
	const void *on;
	uint64_t deadline_ns;
	char name[TASK_NAME_BYTES];
	void (*fn)(void *arg);
	void *arg;
#ifdef TER_DEBUG_LOCKS
	struct ter_held held;
#endif
};

struct ter_coop {
	struct ter_exec exec;
	uint64_t dice, entropy; /* states of the two random streams */
	uint64_t now_ns;
	struct ter_list tasks;	/* all that are not freed */
	unsigned live_nr;	/* of them not ENDED */
	unsigned background_nr; /* of the live ones */
	struct ter_coop_task **runnable;
	unsigned runnable_nr, runnable_max;
	unsigned yields; /* since anything else happened */
	struct ter_coop_task *current;
	struct ter_stack main_stack;
	struct ter_list spare; /* ended tasks whose stacks can be used again */
};

static struct ter_coop *coop_of(struct ter_exec *exec)
{
	assert(exec->coop);
	return ter_container_of(exec, struct ter_coop, exec);
}

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t ter_coop_draw(struct ter_coop *coop, uint64_t below)
{
	return splitmix(&coop->dice) % below;
}

struct ter_coop_task *ter_coop_current(struct ter_coop *coop)
{
	return coop->current;
}

struct ter_held *ter_coop_held(struct ter_coop *coop)
{
#ifdef TER_DEBUG_LOCKS
	return &coop->current->held;
#else
	return NULL;
#endif
}

/* --- the set of runnable tasks --- */

static void make_runnable(struct ter_coop *coop, struct ter_coop_task *task)
{
	assert(coop->runnable_nr < coop->runnable_max); /* spawn made room for every live task */
	task->state = RUNNABLE;
	task->runnable_idx = coop->runnable_nr;
	coop->runnable[coop->runnable_nr++] = task;
}

static struct ter_coop_task *take_runnable(struct ter_coop *coop)
{
	struct ter_coop_task *task = coop->runnable[ter_coop_draw(coop, coop->runnable_nr)];
	struct ter_coop_task *last = coop->runnable[--coop->runnable_nr];

	coop->runnable[task->runnable_idx] = last;
	last->runnable_idx = task->runnable_idx;
	return task;
}

static int reserve_runnable(struct ter_coop *coop)
{
	unsigned max = coop->runnable_max ? coop->runnable_max * 2 : 16;
	void *bigger;

	if (coop->live_nr < coop->runnable_max)
		return 0;
	bigger = ter_realloc_array(coop->runnable, max, sizeof(coop->runnable[0]));
	if (!bigger)
		return -ENOMEM;
	coop->runnable = bigger;
	coop->runnable_max = max;
	return 0;
}

/* --- switching and waiting, on a task's stack --- */

static void to_scheduler(struct ter_coop *coop, bool ends)
{
	ter_stack_switch(&coop->current->stack, &coop->main_stack, ends);
}

void ter_coop_point(struct ter_coop *coop)
{
	coop->yields = 0;
	if (!coop->runnable_nr || ter_coop_draw(coop, SWITCH_ONE_IN))
		return;
	make_runnable(coop, coop->current);
	to_scheduler(coop, false);
}

bool ter_coop_block(struct ter_coop *coop, struct ter_list *waiters, enum ter_coop_wait why, const void *on,
		    uint64_t deadline_ns)
{
	struct ter_coop_task *task = coop->current;

	if (deadline_ns <= coop->now_ns) {
		ter_coop_point(coop);
		return false;
	}
	coop->yields = 0;
	task->state = WAITING;
	task->why = why;
	task->on = on;
	task->woken = false;
	task->deadline_ns = deadline_ns;
	if (waiters)
		ter_list_add_tail(waiters, &task->wait);
	to_scheduler(coop, false);
	task->deadline_ns = TER_COOP_FOREVER;
	return task->woken;
}

static void wake(struct ter_coop *coop, struct ter_coop_task *task, bool by_somebody)
{
	assert(task->state == WAITING);
	ter_list_del(&task->wait);
	task->woken = by_somebody;
	make_runnable(coop, task);
}

void ter_coop_wake_one(struct ter_coop *coop, struct ter_list *waiters)
{
	struct ter_coop_task *task, *chosen = NULL;
	uint64_t nr = 0;

	ter_list_for_each (task, waiters, wait)
		if (!ter_coop_draw(coop, ++nr))
			chosen = task;
	if (chosen)
		wake(coop, chosen, true);
}

void ter_coop_wake_all(struct ter_coop *coop, struct ter_list *waiters)
{
	while (!ter_list_empty(waiters))
		wake(coop, ter_list_first(waiters, struct ter_coop_task, wait), true);
}

bool ter_coop_writer_waits(const struct ter_list *waiters)
{
	const struct ter_coop_task *task;

	ter_list_for_each (task, waiters, wait)
		if (task->why == TER_COOP_WAIT_WRITE)
			return true;
	return false;
}

void ter_coop_sleep(struct ter_coop *coop, uint64_t ns)
{
	(void)ter_coop_block(coop, NULL, TER_COOP_WAIT_SLEEP, NULL, coop->now_ns + ns); /* nobody can wake it early */
}

/* --- time --- */

static uint64_t next_deadline(struct ter_coop *coop)
{
	uint64_t next = TER_COOP_FOREVER;
	struct ter_coop_task *task;

	ter_list_for_each (task, &coop->tasks, all)
		if (task->state == WAITING)
			next = ter_min(next, task->deadline_ns);
	return next;
}

static void expire(struct ter_coop *coop)
{
	struct ter_coop_task *task;

	ter_list_for_each (task, &coop->tasks, all)
		if (task->state == WAITING && task->deadline_ns <= coop->now_ns)
			wake(coop, task, false);
}

/* Moves time to the next deadline; false: there is none. */
static bool pass_time(struct ter_coop *coop)
{
	uint64_t next = next_deadline(coop);

	if (next == TER_COOP_FOREVER)
		return false;
	coop->now_ns = ter_max(coop->now_ns, next);
	expire(coop);
	return true;
}

void ter_coop_advance(struct ter_exec *exec, uint64_t ns)
{
	struct ter_coop *coop = coop_of(exec);

	coop->now_ns += ns;
	expire(coop);
}

/* --- tasks --- */

static void task_entry(void)
{
	struct ter_coop *coop = ter_coop_self;
	struct ter_coop_task *task = coop->current;

	ter_stack_entered(&coop->main_stack);
	task->fn(task->arg);
	task->state = ENDED;
	coop->yields = 0;
	coop->live_nr--;
	coop->background_nr -= task->background;
	ter_coop_wake_all(coop, &task->joiners);
	to_scheduler(coop, true);
	abort(); /* an ended task was resumed */
}

static struct ter_coop_task *take_spare(struct ter_coop *coop)
{
	struct ter_coop_task *task;

	if (ter_list_empty(&coop->spare))
		return NULL;
	task = ter_list_first(&coop->spare, struct ter_coop_task, all);
	ter_list_del(&task->all);
	return task;
}

static struct ter_coop_task *new_task(struct ter_coop *coop)
{
	struct ter_coop_task *task = take_spare(coop);
	struct ter_stack stack;

	if (!task) {
		task = ter_new(struct ter_coop_task);
		if (!task)
			return NULL;
		if (ter_stack_map(&task->stack) < 0) {
			free(task);
			return NULL;
		}
	}
	stack = task->stack;
	memset(task, 0, sizeof(*task));
	task->stack = stack;
	return task;
}

/* An ended task's memory: its stack is kept for the next one. */
static void put_task(struct ter_coop *coop, struct ter_coop_task *task)
{
	ter_stack_release(&task->stack);
	ter_list_del(&task->all);
	ter_list_add(&coop->spare, &task->all);
}

static int spawn(struct ter_coop *coop, const char *name, void (*fn)(void *arg), void *arg,
		 struct ter_coop_task **ret_task)
{
	struct ter_coop_task *task;
	int r;

	r = reserve_runnable(coop);
	if (r < 0)
		return r;
	task = new_task(coop);
	if (!task)
		return -ENOMEM;
	ter_list_add_tail(&coop->tasks, &task->all);
	ter_list_init(&task->wait);
	ter_list_init(&task->joiners);
	task->deadline_ns = TER_COOP_FOREVER;
	strncpy(task->name, name, sizeof(task->name) - 1);
	task->fn = fn;
	task->arg = arg;
	r = ter_stack_start(&task->stack, task_entry);
	if (r < 0) {
		put_task(coop, task);
		return r;
	}
	coop->live_nr++;
	make_runnable(coop, task);
	*ret_task = task;
	return 0;
}

static int coop_spawn(struct ter_exec *exec, const char *name, void (*fn)(void *arg), void *arg,
		      struct ter_task **ret_task)
{
	struct ter_coop *coop = coop_of(exec);
	struct ter_coop_task *task;
	int r;

	r = ter_exec_spawn_fault();
	if (r < 0)
		return r;
	r = spawn(coop, name, fn, arg, &task);
	if (r < 0)
		return r;

	*ret_task = (struct ter_task *)task;
	if (coop->current)
		ter_coop_point(coop);
	return 0;
}

static void coop_join(struct ter_exec *exec, struct ter_task *opaque)
{
	struct ter_coop_task *task = (struct ter_coop_task *)opaque;
	struct ter_coop *coop = coop_of(exec);

	if (!task)
		return;
	while (task->state != ENDED) {
		assert(coop->current && coop->current != task); /* outside of a run nothing can end */
		(void)ter_coop_block(coop, &task->joiners, TER_COOP_WAIT_JOIN, task, TER_COOP_FOREVER); /* looped */
	}
	put_task(coop, task);
}

void ter_coop_set_background(struct ter_exec *exec, struct ter_task *opaque)
{
	struct ter_coop_task *task = (struct ter_coop_task *)opaque;
	struct ter_coop *coop = coop_of(exec);

	if (task->background || task->state == ENDED)
		return;
	task->background = true;
	coop->background_nr++;
}

bool ter_coop_inside(struct ter_exec *exec)
{
	return exec->coop && coop_of(exec)->current;
}

/* --- clock and randomness --- */

static uint64_t coop_mono_ns(struct ter_exec *exec)
{
	return coop_of(exec)->now_ns;
}

static int64_t coop_real_ns(struct ter_exec *exec)
{
	return START_REAL_S * (int64_t)TER_NS_PER_S + (int64_t)coop_of(exec)->now_ns;
}

static void coop_random(struct ter_exec *exec, void *buf, size_t bytes)
{
	struct ter_coop *coop = coop_of(exec);
	uint8_t *p = buf;

	while (bytes) {
		uint64_t x = splitmix(&coop->entropy);
		size_t n = ter_min(bytes, sizeof(x));

		memcpy(p, &x, n);
		p += n;
		bytes -= n;
	}
}

static void coop_yield(struct ter_exec *exec)
{
	struct ter_coop *coop = coop_of(exec);

	if (!coop->current)
		return;
	/* A task that polls for something which another one does at a deadline would poll for ever. */
	if (++coop->yields / YIELDS_BEFORE_TIME_MOVES > coop->runnable_nr) {
		coop->yields = 0;
		(void)pass_time(coop); /* no deadline: it goes on polling, which the test's time limit ends */
	}
	make_runnable(coop, coop->current);
	to_scheduler(coop, false);
}

static const struct ter_exec_ops coop_ops = {
	.spawn = coop_spawn,
	.join = coop_join,
	.mono_ns = coop_mono_ns,
	.real_ns = coop_real_ns,
	.random = coop_random,
	.yield = coop_yield,
};

/* --- the scheduler --- */

struct ter_exec *ter_exec_new_coop(uint64_t seed)
{
	struct ter_coop *coop = ter_new(struct ter_coop);

	if (!coop)
		return NULL;
	coop->exec = (struct ter_exec){.ops = &coop_ops, .cpus = 1, .coop = true};
	coop->dice = seed;
	coop->entropy = ~seed;
	(void)splitmix(&coop->entropy);
	coop->now_ns = START_MONO_NS;
	ter_list_init(&coop->tasks);
	ter_list_init(&coop->spare);
	return &coop->exec;
}

static int schedule(struct ter_coop *coop)
{
	while (coop->live_nr > coop->background_nr) {
		struct ter_coop_task *task;

		if (!coop->runnable_nr && !pass_time(coop))
			return -EDEADLK;
		task = take_runnable(coop);
		task->state = RUNNING;
		coop->current = task;
		ter_stack_switch(&coop->main_stack, &task->stack, false);
		coop->current = NULL;
		if (task->state == ENDED && task->detached)
			put_task(coop, task);
	}
	return 0;
}

int ter_coop_run(struct ter_exec *exec, void (*main)(void *arg), void *arg)
{
	struct ter_coop *coop = coop_of(exec), *outer = ter_coop_self;
	struct ter_coop_task *task;
	int r;

	r = spawn(coop, "main", main, arg, &task);
	if (r < 0)
		return r;
	task->detached = true;

	ter_coop_self = coop;
	ter_stack_adopt(&coop->main_stack);
	r = schedule(coop);
	ter_stack_release(&coop->main_stack);
	ter_coop_self = outer;
	return r;
}

static const char *const wait_names[] = {
	[TER_COOP_WAIT_LOCK] = "lock",
	[TER_COOP_WAIT_READ] = "rwlock to read",
	[TER_COOP_WAIT_WRITE] = "rwlock to write",
	[TER_COOP_WAIT_WAITQ] = "wait queue",
	[TER_COOP_WAIT_JOIN] = "end of task",
	[TER_COOP_WAIT_SLEEP] = "clock",
};

size_t ter_coop_describe(struct ter_exec *exec, char *buf, size_t bytes)
{
	struct ter_coop *coop = coop_of(exec);
	struct ter_coop_task *task;
	size_t used = 0;

	if (bytes)
		buf[0] = 0;
	ter_list_for_each (task, &coop->tasks, all) {
		int n;

		if (task->state != WAITING || used >= bytes)
			continue;
		n = snprintf(buf + used, bytes - used, "task %s waits for %s %p\n", task->name, wait_names[task->why],
			     task->on);
		used += n > 0 ? (size_t)n : 0;
	}
	return ter_min(used, bytes ? bytes - 1 : 0);
}

static void free_tasks(struct ter_list *list)
{
	struct ter_coop_task *task, *tmp;

	ter_list_for_each_safe (task, tmp, list, all) {
		ter_stack_release(&task->stack);
		ter_stack_unmap(&task->stack);
		free(task);
	}
}

static void coop_free(struct ter_coop *coop)
{
	if (ter_coop_self == coop)
		ter_coop_self = NULL; /* a failed assertion of a test has jumped out of the run */
	free_tasks(&coop->tasks);     /* after a deadlock: those that never ended */
	free_tasks(&coop->spare);
	free(coop->runnable);
	free(coop);
}

void ter_exec_free(struct ter_exec *exec)
{
	if (exec && exec->coop)
		coop_free(coop_of(exec));
	else
		free(exec);
}

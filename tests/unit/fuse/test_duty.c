/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Duty of the classic device's readers: those without clients on their core stand aside, one always stays. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/fuse_priv.h"

#define SERVED 4096 /* more than enough checks for anything to change */

static int cpus[2];

/* A task that stays on one core, to be seen there. */
struct client {
	pthread_t thread;
	int cpu;
	_Atomic uint32_t tid;
	_Atomic bool end;
};

static void *client_main(void *arg)
{
	struct client *client = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(client->cpu, &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
	atomic_store(&client->tid, (uint32_t)gettid());
	while (!atomic_load(&client->end))
		sched_yield();
	return NULL;
}

static void client_start(struct client *client, int cpu)
{
	*client = (struct client){ .cpu = cpu };
	assert_int_equal(pthread_create(&client->thread, NULL, client_main, client), 0);
	while (!atomic_load(&client->tid))
		sched_yield();
}

static void client_stop(struct client *client)
{
	atomic_store(&client->end, true);
	pthread_join(client->thread, NULL);
}

struct server {
	struct td_session *session;
	struct td_reader *reader;
	uint32_t tid;
	pthread_t thread;
	_Atomic bool done;
};

static void *server_main(void *arg)
{
	struct server *server = arg;

	td_duty_join(server->session);
	for (unsigned i = 0; i < SERVED; i++)
		td_duty_served(server->session, server->reader, server->tid);
	atomic_store(&server->done, true);
	return NULL;
}

static bool is_aside(struct td_session *s, unsigned idx)
{
	bool aside;

	pthread_mutex_lock(&s->duty);
	aside = s->reader[idx].aside;
	pthread_mutex_unlock(&s->duty);
	return aside;
}

static void session_init(struct td_session *s, unsigned readers)
{
	*s = (struct td_session){ .readers_wanted = readers };
	for (unsigned i = 0; i < readers; i++)
		s->reader[i] = (struct td_reader){ .session = s, .cpu = cpus[i] };
	td_duty_init(s);
}

static void server_start(struct server *server, struct td_session *s, unsigned idx, uint32_t tid)
{
	*server = (struct server){ .session = s, .reader = &s->reader[idx], .tid = tid };
	assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
}

static void need_two_cores(void)
{
	if (cpus[1] >= 0)
		return;
	print_message("This process may use one core only: there is no other one to stand aside for.\n");
	skip();
}

static void a_reader_without_clients_stands_aside_until_one_comes(void **state)
{
	struct td_session s;
	struct client here, there;
	struct server a, b;

	need_two_cores();
	session_init(&s, 2);
	client_start(&here, cpus[0]);
	client_start(&there, cpus[1]);
	td_duty_join(&s); /* reader 1 is there, and has nothing to do */
	server_start(&a, &s, 0, there.tid);
	while (!is_aside(&s, 0))
		sched_yield();
	assert_false(atomic_load(&a.done));
	assert_int_equal(s.on_duty, 1);

	/* Reader 1 sees a client on reader 0's core, and calls it; alone it would not stand aside (U1). */
	server_start(&b, &s, 1, here.tid);
	while (is_aside(&s, 0) && !atomic_load(&b.done))
		sched_yield();
	atomic_store(&s.stop, 1);
	td_duty_all(&s);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	assert_int_equal(s.on_duty, 3); /* three joins: nobody was lost */
	client_stop(&here);
	client_stop(&there);
	td_duty_destroy(&s);
}

static void the_last_reader_stays(void **state)
{
	struct td_session s;
	struct client there;
	struct server a;

	need_two_cores();
	session_init(&s, 2);
	client_start(&there, cpus[1]);
	server_start(&a, &s, 0, there.tid); /* reader 1 never joins */
	pthread_join(a.thread, NULL);
	assert_true(atomic_load(&a.done));
	assert_false(is_aside(&s, 0));
	client_stop(&there);
	td_duty_destroy(&s);
}

static void one_that_leaves_calls_the_others(void **state)
{
	struct td_session s;
	struct client there;
	struct server a;

	need_two_cores();
	session_init(&s, 2);
	client_start(&there, cpus[1]);
	td_duty_join(&s);
	server_start(&a, &s, 0, there.tid);
	while (!is_aside(&s, 0))
		sched_yield();
	td_duty_leave(&s);
	pthread_join(a.thread, NULL); /* the last one now, it serves to its end */
	assert_int_equal(s.on_duty, 1);
	client_stop(&there);
	td_duty_destroy(&s);
}

static void clients_that_cannot_be_seen_change_nothing(void **state)
{
	struct td_session s;

	session_init(&s, 2);
	td_duty_join(&s);
	td_duty_join(&s);
	for (unsigned i = 0; i < SERVED; i++)
		td_duty_served(&s, &s.reader[0], i % 2 ? 0 : UINT32_MAX);
	assert_int_equal(s.on_duty, 2);
	td_duty_destroy(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_without_clients_stands_aside_until_one_comes),
		cmocka_unit_test(the_last_reader_stays),
		cmocka_unit_test(one_that_leaves_calls_the_others),
		cmocka_unit_test(clients_that_cannot_be_seen_change_nothing),
	};
	cpu_set_t set;
	unsigned nr = 0;

	cpus[0] = cpus[1] = -1;
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		for (int cpu = 0; cpu < CPU_SETSIZE && nr < 2; cpu++)
			if (CPU_ISSET(cpu, &set))
				cpus[nr++] = cpu;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

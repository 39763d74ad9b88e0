/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fault points: the registry and the decision whether a call fails. */
#include "util/fault.h"

#include <pthread.h>

#define PPM 1000000u
#define ERRNO_MAX 4095

unsigned ter_fault_armed_nr;

/* Guards all below and every point's mutable part. A plain mutex: a lock of the engine would ask a fault point in turn,
 * and be a scheduling point. */
static pthread_mutex_t fault_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct ter_fault_point *fault_points; /* in order of name */

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static bool rule_says_fail(struct ter_fault_point *point)
{
	const struct ter_fault_rule *rule = &point->rule;

	point->calls++;
	if (point->calls < rule->nth || (rule->times && point->fired >= rule->times))
		return false;
	if (rule->interval > 1 && (point->calls - ter_max(rule->nth, (uint64_t)1)) % rule->interval)
		return false;
	if (rule->probability_ppm && next_random(&point->random) % PPM >= rule->probability_ppm)
		return false;
	point->fired++;
	return true;
}

int ter_fault(struct ter_fault_point *point)
{
	int r = 0;

	pthread_mutex_lock(&fault_mutex);
	if (point->armed && rule_says_fail(point))
		r = -(point->rule.err ? point->rule.err : point->err);
	pthread_mutex_unlock(&fault_mutex);
	return r;
}

void ter_fault_register(struct ter_fault_point *point)
{
	struct ter_fault_point **at;

	pthread_mutex_lock(&fault_mutex);
	for (at = &fault_points; *at && strcmp((*at)->name, point->name) < 0; at = &(*at)->next)
		assert(*at != point);
	assert(!*at || strcmp((*at)->name, point->name)); /* names are unique */
	point->next = *at;
	*at = point;
	pthread_mutex_unlock(&fault_mutex);
}

static struct ter_fault_point *find(const char *name)
{
	for (struct ter_fault_point *point = fault_points; point; point = point->next)
		if (!strcmp(point->name, name))
			return point;
	return NULL;
}

static void set_armed(struct ter_fault_point *point, bool armed)
{
	if (point->armed == armed)
		return;
	point->armed = armed;
	__atomic_store_n(&ter_fault_armed_nr, ter_fault_armed_nr + (armed ? 1 : -1), __ATOMIC_RELAXED);
}

int ter_fault_arm(const char *name, const struct ter_fault_rule *rule)
{
	struct ter_fault_point *point;

	if (rule->probability_ppm > PPM || rule->err < 0 || rule->err > ERRNO_MAX)
		return -EINVAL;

	pthread_mutex_lock(&fault_mutex);
	point = find(name);
	if (point) {
		point->rule = *rule;
		point->calls = point->fired = 0;
		point->random = rule->seed;
		set_armed(point, true);
	}
	pthread_mutex_unlock(&fault_mutex);
	return point ? 0 : -ENOENT;
}

int ter_fault_disarm(const char *name)
{
	struct ter_fault_point *point;

	pthread_mutex_lock(&fault_mutex);
	point = find(name);
	if (point)
		set_armed(point, false);
	pthread_mutex_unlock(&fault_mutex);
	return point ? 0 : -ENOENT;
}

void ter_fault_disarm_all(void)
{
	pthread_mutex_lock(&fault_mutex);
	for (struct ter_fault_point *point = fault_points; point; point = point->next)
		set_armed(point, false);
	pthread_mutex_unlock(&fault_mutex);
}

uint64_t ter_fault_calls(const char *name)
{
	struct ter_fault_point *point;
	uint64_t calls;

	pthread_mutex_lock(&fault_mutex);
	point = find(name);
	calls = point ? point->calls : 0;
	pthread_mutex_unlock(&fault_mutex);
	return calls;
}

uint64_t ter_fault_fired(const char *name)
{
	struct ter_fault_point *point;
	uint64_t fired;

	pthread_mutex_lock(&fault_mutex);
	point = find(name);
	fired = point ? point->fired : 0;
	pthread_mutex_unlock(&fault_mutex);
	return fired;
}

void ter_fault_each(void (*fn)(void *arg, const struct ter_fault_point *point), void *arg)
{
	pthread_mutex_lock(&fault_mutex);
	for (struct ter_fault_point *point = fault_points; point; point = point->next)
		fn(arg, point);
	pthread_mutex_unlock(&fault_mutex);
}

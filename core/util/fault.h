/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault points: named places that can be told to fail
 *
 * A place declares a point and asks it; the answer is 0 or the negative errno with which to fail. While nothing is
 * armed anywhere the question costs one relaxed load of a shared word. Arming is process-wide (a test process, or a
 * daemon whose administrator allowed it) and thread-safe.
 *
 *     TER_FAULT_POINT(fault_alloc, "mem.alloc", ENOMEM, "an allocation of memory");
 *     ...
 *     r = TER_FAULT(fault_alloc);
 *     if (r < 0)
 *             return r;
 */
#ifndef TER_FAULT_H
#define TER_FAULT_H

#include "util/base.h"

struct ter_fault_rule {
	uint64_t nth;		  /* the first call that may fail: 1 is the next one; 0 counts as 1 */
	uint64_t interval;	  /* 3: each third of the calls from @nth on may fail; 0 counts as 1 */
	uint64_t times;		  /* how often it fails; 0: without end */
	int err;		  /* positive errno; 0: the point's own */
	uint32_t probability_ppm; /* of each call from @nth on; 0 counts as 1000000 (always) */
	uint64_t seed;		  /* of these draws */
};

struct ter_fault_point {
	const char *name; /* "room.what" */
	const char *help;
	int err; /* positive errno when the rule names none */
	/* fault.c's own */
	struct ter_fault_point *next;
	bool armed;
	struct ter_fault_rule rule;
	uint64_t calls, fired, random;
};

/* Defines point @var of this file and makes it known by its name. */
#define TER_FAULT_POINT(var, point_name, errno_value, help_text)                                                       \
	static struct ter_fault_point var = {.name = (point_name), .help = (help_text), .err = (errno_value)};         \
	__attribute__((constructor)) static void var##_register(void)                                                  \
	{                                                                                                              \
		ter_fault_register(&var);                                                                              \
	}

extern unsigned ter_fault_armed_nr; /* points armed now; only TER_FAULT() reads it directly */

/* 0, or the negative errno to fail with. */
#define TER_FAULT(point)                                                                                               \
	(ter_unlikely(__atomic_load_n(&ter_fault_armed_nr, __ATOMIC_RELAXED)) ? ter_fault(&(point)) : 0)

int ter_fault(struct ter_fault_point *point);
void ter_fault_register(struct ter_fault_point *point);

/* Arms the point, from zero calls on, in place of an earlier rule. -ENOENT: no such point; -EINVAL: probability above
 * 1000000 or errno out of range. */
int ter_fault_arm(const char *name, const struct ter_fault_rule *rule);
int ter_fault_disarm(const char *name); /* -ENOENT: no such point; not armed is fine */
void ter_fault_disarm_all(void);

/* Since the point was last armed (kept when disarmed); 0 for an unknown name. */
uint64_t ter_fault_calls(const char *name);
uint64_t ter_fault_fired(const char *name);

/* Calls @fn once a point, in order of name. @fn must not call back into this module. */
void ter_fault_each(void (*fn)(void *arg, const struct ter_fault_point *point), void *arg);

#endif

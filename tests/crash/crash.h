/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts, enumerated
 *
 * A *workload* runs once on simulated devices and is recorded. A *state* is what a power cut before one of its events may leave: what is durable plus some of what is
 * pending. Each distinct state is opened, compared with the history (engine_oracle.c), checked, worked on, closed and checked again; of some, the recovery is
 * recorded and cut in its turn (depth 2, and again 3). What every state is reached by is its *id*, a text that with the seed does that state alone.
 */
#ifndef CRASH_H
#define CRASH_H

#include "super/engine_rig.h"

#define CRASH_DEPTH_MAX 3
#define CRASH_STATES_MAX 8192 /* of one cut */
#define CRASH_TEXT_MAX 256

/* --- which of a cut's pending writes arrive (crash_states.c) --- */
struct crash_state {
	/*
	 * m: by the bits of a. n: none. a: all. p: the first a. d: all but number a. o: number a alone. x: numbers a and b. v: all of the devices in the bits of a.
	 * c: of each device what came before a moment of its own, drawn by seed a. r: drawn by seed a.
	 */
	char kind;
	uint32_t a, b;
	uint32_t torn, prefix; /* ter_sim_cut.torn_bytes, .torn_prefix */
	bool lies;             /* flushes did nothing */
};
unsigned crash_states(const struct ter_sim_trace *trace, uint64_t at, struct crash_state *ret, unsigned max);
int crash_state_say(const struct crash_state *s, char *text, size_t bytes);
bool crash_state_parse(const char **text, struct crash_state *ret);
/* Brings the devices into it. */
void crash_state_apply(struct ter_sim *sim, const struct ter_sim_trace *trace, uint64_t at, const struct crash_state *s);

struct crash_point {
	uint64_t at;
	struct crash_state state;
};
struct crash_path {
	unsigned nr;
	struct crash_point point[CRASH_DEPTH_MAX];
};

/* --- one process's work (crash_try.c) --- */
struct crash_set {
	uint64_t *hash, nr, max;
};
struct crash {
	uint64_t seed, goal;
	struct crash_set images, judged; /* states by their bytes; and by these together with what must be found */
	uint64_t tried, depth_nr[CRASH_DEPTH_MAX + 1];
	unsigned failures, failures_max;
	/* a replay: this state alone */
	bool one;
	char one_workload[CRASH_TEXT_MAX];
	struct crash_path one_path;
	const char *images_dir;
};
#define CRASH_FAILURES_MAX 5 /* or TER_CRASH_FAILURES */
void crash_init(struct crash *c); /* from the environment */
void crash_done(struct crash *c);
bool crash_set_add(struct crash_set *set, uint64_t hash); /* false: it is there */
bool crash_enough(const struct crash *c);

/* A workload that has run. */
struct crash_run {
	struct crash *c;
	struct eng *e;
	char name[CRASH_TEXT_MAX]; /* begins the id */
	uint64_t salt;             /* its seed */
	struct ter_sim_trace *trace;
	bool lies;
	/* while a state is tried whose layout loses a member: the devices as the cut left them, and whether only the lost one has the newest superblock */
	struct ter_sim_snapshot *stale;
	bool stale_ahead;
	/* Inside a scheduler run, with all members as the cut left them; false: e->why. NULL: the oracle of a pool that was running. */
	bool (*judge)(struct crash_run *run, uint64_t at, bool only_judge);
};
/* About @budget new states of its trace, which is used up; the whole recovery of some is cut too. */
void crash_try_all(struct crash_run *run, uint64_t budget);

/* --- workloads --- */
void crash_ace(struct crash *c);    /* crash_ace.c: short ones, all of them */
void crash_mixes(struct crash *c);  /* crash_mix.c: long ones, by seed */
void crash_format(struct crash *c); /* crash_format.c: making a pool */
void crash_lies(struct crash *c);   /* crash_mix.c: with devices that say flushed and are not */
uint64_t crash_draw(uint64_t *state, uint64_t below);
/* Is it asked for? The state of a replay, or any. */
bool crash_wanted(const struct crash *c, const char *workload);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recovery passes: what a start does, one row each, in this order
 *
 * Ids are on disk (superblock, section RECOVERY: passes required, passes with errors unfixed): never reused, rows may move. A row depends on rows above it only.
 *
 *   A1  A check pass whose bit is required, or unfixed, is run at the next start before the pool is written to.
 *   A2  Bits are cleared when the pass found nothing, and only then. An error that is found and not repaired sets both.
 *   A3  With a bit left the pool starts read-only, and says why.
 */
#ifndef TER_PASSES_H
#define TER_PASSES_H

#include "util/base.h"
#include "util/error.h"

enum {
	TER_PASS_ALWAYS = 1 << 0,
	TER_PASS_UNCLEAN = 1 << 1, /* after a stop that was none */
	TER_PASS_FSCK = 1 << 2,    /* checks, and repairs: when a bit says so, or a person */
	TER_PASS_WRITES = 1 << 3,  /* not of a read-only start */
	TER_PASS_SAFE = 1 << 4,    /* its repair loses nothing: errors=fix_safe lets a start do it */
	TER_PASS_ONLINE = 1 << 5,  /* its check may run while the pool is in use */
};
#define TER_PASS_BIT(NAME) (1ull << TER_PASS_##NAME)

/* x(id, NAME, name, when and what it is, passes it depends on, what it does) */
#define TER_PASSES(x)                                                                                                  \
	x(0, SUPERBLOCK, "superblock", TER_PASS_ALWAYS, 0, "Read which passes are required")                           \
	x(1, JOURNAL, "journal", TER_PASS_UNCLEAN, TER_PASS_BIT(SUPERBLOCK), "Read the journal of every member")       \
	x(2, ROOTS, "roots", TER_PASS_ALWAYS, TER_PASS_BIT(SUPERBLOCK) | TER_PASS_BIT(JOURNAL), "Find the btrees' roots") \
	x(3, INTERIOR, "interior", TER_PASS_UNCLEAN, TER_PASS_BIT(ROOTS), "Replay changes of interior nodes")          \
	x(4, LEAVES, "leaves", TER_PASS_UNCLEAN, TER_PASS_BIT(INTERIOR), "Replay changes of leaves")                   \
	x(5, DATA, "data", TER_PASS_UNCLEAN, TER_PASS_BIT(LEAVES), "Take back file data from the journal")             \
	x(6, COUNTERS, "counters", TER_PASS_ALWAYS, TER_PASS_BIT(ROOTS) | TER_PASS_BIT(LEAVES), "Read the counters of space") \
	x(8, NODES, "nodes", TER_PASS_FSCK | TER_PASS_ONLINE, TER_PASS_BIT(ROOTS) | TER_PASS_BIT(LEAVES), "Check the structure of every btree") \
	x(9, SPACE, "space", TER_PASS_FSCK | TER_PASS_ONLINE | TER_PASS_SAFE, TER_PASS_BIT(NODES), "Check buckets, free space and its counters") \
	x(10, POINTERS, "pointers", TER_PASS_FSCK | TER_PASS_ONLINE | TER_PASS_SAFE, TER_PASS_BIT(NODES), "Check every pointer and its back reference") \
	x(11, FILES, "files", TER_PASS_FSCK | TER_PASS_ONLINE, TER_PASS_BIT(NODES), "Check inodes, names, attributes and sizes") \
	x(7, ORPHANS, "orphans", TER_PASS_ALWAYS | TER_PASS_WRITES, TER_PASS_BIT(COUNTERS) | TER_PASS_BIT(DATA) | TER_PASS_BIT(FILES), \
	  "Finish deletions and truncations")

enum ter_pass_id {
#define x(id, NAME, ...) TER_PASS_##NAME = id,
	TER_PASSES(x)
#undef x
	TER_PASS_NR = 12, /* greater than every id */
};

struct ter_pass {
	uint8_t id;
	const char *name, *sentence;
	unsigned flags;
	uint64_t depends;
};
extern const struct ter_pass ter_passes[]; /* ends with name == NULL */
uint64_t ter_passes_with(unsigned flags); /* bits of those that have any of these flags */
const struct ter_pass *ter_pass_by_id(unsigned id); /* NULL: none */
/* Names of the passes in @mask, with commas; unknown ones as their number. Returns @buf. */
const char *ter_passes_text(uint64_t mask, char *buf, size_t bytes);

enum ter_pass_state { TER_PASS_NOT_NEEDED, TER_PASS_WAITING, TER_PASS_RUNNING, TER_PASS_DONE, TER_PASS_FOUND_ERRORS, TER_PASS_FAILED };
extern const char *const ter_pass_state_names[]; /* "not-needed", "waiting", "running", "done", "errors", "failed" */
struct ter_pass_row {
	enum ter_pass_state state;
	uint64_t us;
};

/* One start. */
struct ter_pass_run {
	struct ter_pass_row row[TER_PASS_NR]; /* by id; told to @changed */
	uint64_t ran;
	/* Does it. > 0: it found so many errors. */
	int64_t (*run)(void *arg, enum ter_pass_id id, struct ter_error *error);
	void (*changed)(void *arg, enum ter_pass_id id, const struct ter_pass_row *row);
	int (*step)(void *arg, const char *phase, uint64_t done, uint64_t total); /* of a job, with step_arg; NULL is fine */
	void *arg, *step_arg;
	uint64_t (*now_ns)(void *arg);
};
/* Those in @mask, in the table's order. 0; a negative errno of a pass. *ret_found: bits of those that found errors. */
int ter_passes_run(struct ter_pass_run *run, uint64_t mask, uint64_t *ret_found, struct ter_error *error);

#endif

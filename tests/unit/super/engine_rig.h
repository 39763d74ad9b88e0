/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole engine on simulated devices, for tests: members, a seeded workload with a model beside it, and the oracle of what may be found after a crash
 *
 * Everything runs under the cooperative scheduler: one seed, one run. A run (eng_run()) is one scheduler run; a pool lives within one.
 */
#ifndef ENGINE_RIG_H
#define ENGINE_RIG_H

#include "fs/tree_model.h"
#include "io/sim.h"
#include "super/fs.h"

#define ENG_DEVS_MAX 4
#define ENG_NODES_MAX 4000
#define ENG_OPS_MAX 4000
#define ENG_FLOORS_MAX (2 * ENG_OPS_MAX)

struct eng_layout {
	const char *name;
	unsigned devs;
	uint64_t dev_bytes[ENG_DEVS_MAX];
	unsigned replicas;
	const char *compression;
	int lost; /* this member is gone when the pool is opened again after a cut; -1: none */
	unsigned journal_buckets; /* of each ring: with TER_JOURNAL_BUCKETS_SMALL work goes on side by side, below that in turns; 0: what format makes */
};
extern const struct eng_layout eng_layouts[];
extern const unsigned eng_layouts_nr;

/* What was done to a file's bytes, for the oracle. */
struct eng_data_op {
	unsigned op;     /* when: index into eng.ops_nr */
	bool maybe;      /* it failed, and may have been done in part */
	enum eng_data_kind { ENG_WRITE, ENG_TRUNCATE, ENG_ZERO, ENG_GROW } kind;
	uint64_t from, to, size; /* size: of the file afterwards */
	bool sets_size;          /* in its own transaction */
	uint64_t pattern;
};
/* What a sync made durable. */
struct eng_base {
	unsigned op;
	bool datasync; /* says nothing of times */
	uint64_t event, size;
	uint8_t *data;
};
/* What a file's times were after an operation. */
struct eng_times {
	unsigned op;
	bool attributes; /* in the transaction of names and attributes; else they come with the data */
	uint64_t mtime_ns, ctime_ns;
};
struct eng_node {
	uint64_t node;
	unsigned born, last_ns; /* op that made it; newest op that changed its name, links or attributes */
	bool is_dir, synced;    /* synced: nothing changed since the newest base */
	struct eng_data_op *ops;
	unsigned ops_nr, ops_max;
	struct eng_base *bases;
	unsigned bases_nr;
	struct eng_times *times; /* of a regular file */
	unsigned times_nr, times_max;
};
/* A sync that nobody waits for: what it will have made durable is noted when it says so. */
#define ENG_ASYNC_MAX 8
struct eng_async {
	struct ter_journal_waiter waiter;
	struct eng *e;
	uint64_t node;
	bool busy;
	unsigned ns_op;
	struct eng_base base;
};
/* Every operation up to op is durable once event is over. */
struct eng_floor {
	uint64_t event;
	unsigned op;
};

struct eng {
	struct eng_layout layout;
	uint64_t seed, rnd;
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_sim *sim;
	struct ter_codecs codecs;
	struct ter_env env;
	struct ter_options options;
	char dir[64], path[ENG_DEVS_MAX][80];
	struct ter_error error;
	bool force; /* format over what there is */
	int absent; /* member that eng_open() leaves out; -1: none */

	/* while a pool is open */
	struct ter_fs *fs;
	struct ter_vfs *vfs;
	unsigned events[8]; /* by enum ter_event_kind */
	char last_event[256];

	/* the model and its history */
	struct tree_model *tm;
	unsigned ops_nr;
	uint64_t ns_hash[ENG_OPS_MAX + 1]; /* after so many operations */
	const char *op_name[ENG_OPS_MAX + 1];
	uint64_t started[ENG_OPS_MAX + 1]; /* event count when operation i (from 1) was issued */
	struct eng_floor floors[ENG_FLOORS_MAX];
	unsigned floors_nr;
	struct eng_node nodes[ENG_NODES_MAX];
	unsigned nodes_nr;
	struct eng_async async[ENG_ASYNC_MAX];
	const char *last_op; /* what the workload was doing, for messages */
	bool judge_times;    /* the model knows them: eng_model_root() */
	const unsigned *weights; /* of eng_step()'s operations, by enum eng_step_kind; NULL: those of every day */
	bool may_fill;       /* -ENOSPC is an answer */
	unsigned full_nr;    /* how often it was given */
	bool faulty;         /* operations may fail for what a fault point makes fail; one that failed changed nothing */
	int fault_r;         /* what the newest of these said */
	unsigned failures;   /* how many did */
	bool unsettled;      /* one failed that may have been done in part: what is there shows at the next start */

	/* a failure, said once */
	bool failed;
	char why[1024];
};

/* --- rig (engine_rig.c) --- */
uint64_t eng_seed(void); /* TER_TEST_SEED, or a fixed one; printed */
struct eng *eng_new(const struct eng_layout *layout, uint64_t seed);
void eng_free(struct eng *e);
/*
 * A scheduler and devices of their own for one crash state, so that it can be looked at again without all those before it. The devices are
 * zeros until ter_sim_apply() or so. Model and history stay.
 */
struct eng_machine {
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_sim *sim;
};
void eng_machine_enter(struct eng *e, uint64_t seed, struct eng_machine *ret_before);
void eng_machine_leave(struct eng *e, const struct eng_machine *before);
uint64_t eng_rnd(struct eng *e);
unsigned eng_below(struct eng *e, unsigned n);
/* One scheduler run. A deadlock is a failure. */
void eng_run(struct eng *e, void (*fn)(struct eng *e, void *arg), void *arg);
/* Notes a failure (the first is kept); returns false, for `return eng_fail(...)`. */
bool eng_fail(struct eng *e, const char *fmt, ...) TER_PRINTF(2, 3);
#define ENG_CHECK(e, condition)                                                                                        \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			return eng_fail(e, "%s:%d: %s", __FILE__, __LINE__, #condition);                               \
	} while (0)
/* The same for a call that returns a negative errno, with what the engine says of it; and for one that has noted its failure itself. */
#define MUST(e, call)                                                                                                  \
	do {                                                                                                           \
		const int r_ = (int)(call);                                                                            \
		if (r_ < 0)                                                                                            \
			return eng_fail(e, "%s:%d: %s: %d, %s", __FILE__, __LINE__, #call, r_, (e)->error.text);       \
	} while (0)
#define SAY(call)                                                                                                      \
	do {                                                                                                           \
		if (!(call))                                                                                           \
			return false;                                                                                  \
	} while (0)

/* Inside a run. 0 or a negative errno with e->error. */
int eng_format(struct eng *e);
int eng_open(struct eng *e, bool read_only, int degraded); /* all members but the absent one; no start */
int eng_start(struct eng *e, bool read_only, int degraded); /* open and start; closed again when that fails */
int eng_stop(struct eng *e);                               /* clean stop and close */
void eng_close(struct eng *e);                             /* whatever state it is in */
bool eng_fsck_clean(struct eng *e);                        /* says what was found */
/* What @fn says of a run's end when the process dies in it. */
void eng_guard(const char *line, unsigned seconds);

/* --- operations (engine_do.c): false when engine and model differ, or what should work fails --- */
#define ENG_XATTR_MAX 2000
void eng_model_new(struct eng *e);   /* an empty pool's */
bool eng_model_root(struct eng *e);  /* before the first operation: the times of its root directory; from now on times are judged */
void eng_model_free(struct eng *e);
/* Each operation lies between these. eng_op_next(): what follows is another that one step does. */
bool eng_op_begin(struct eng *e, const char *name);
void eng_op_next(struct eng *e);
bool eng_op_end(struct eng *e, bool ok);
bool eng_do_create(struct eng *e, struct tm_node *dir, const char *name, uint32_t mode, const char *target, struct tm_node **ret_node); /* NULL: refused */
bool eng_do_link(struct eng *e, struct tm_node *node, struct tm_node *dir, const char *name);
bool eng_do_unlink(struct eng *e, struct tm_node *dir, const char *name, bool rmdir);
bool eng_do_rename(struct eng *e, struct tm_node *from, const char *from_name, struct tm_node *to, const char *to_name, unsigned flags);
bool eng_do_write(struct eng *e, struct tm_node *node, uint64_t offset, unsigned bytes, bool append);
bool eng_do_truncate(struct eng *e, struct tm_node *node, uint64_t size);
bool eng_do_fallocate(struct eng *e, struct tm_node *node, int mode, uint64_t offset, uint64_t end);
bool eng_do_setxattr(struct eng *e, struct tm_node *node, unsigned which, size_t bytes, uint64_t pattern);
bool eng_do_removexattr(struct eng *e, struct tm_node *node, unsigned which);
bool eng_do_chmod(struct eng *e, struct tm_node *node, uint32_t mode, uint32_t uid);
bool eng_do_fsync(struct eng *e, struct tm_node *node, bool datasync);
bool eng_do_async_fsync(struct eng *e, struct tm_node *node);
bool eng_do_sync(struct eng *e);
bool eng_do_wait(struct eng *e, uint64_t ms);
bool eng_do_read_only(struct eng *e); /* and back */
bool eng_sync_all(struct eng *e);    /* an operation of its own */
void eng_all_durable(struct eng *e); /* what was done so far; something other than an operation made it so */
void eng_settle(struct eng *e);      /* before a stop: syncs that nobody waited for are over */
bool eng_stopped(struct eng *e);     /* after a clean stop: all is durable, and what had no name is gone */
bool eng_gave_up(struct eng *e, int r);
uint8_t eng_byte(uint64_t pattern, uint64_t offset);

/* --- workload (engine_ops.c) --- */
enum eng_step_kind {
	ENG_STEP_CREATE, ENG_STEP_LINK, ENG_STEP_UNLINK, ENG_STEP_RENAME, ENG_STEP_WRITE, ENG_STEP_TRUNCATE, ENG_STEP_FALLOCATE, ENG_STEP_XATTR,
	ENG_STEP_CHMOD, ENG_STEP_FSYNC, ENG_STEP_ASYNC_FSYNC, ENG_STEP_REPLACE, ENG_STEP_SYNC, ENG_STEP_WAIT, ENG_STEP_FILL, ENG_STEP_POKE, ENG_STEP_READ_ONLY, ENG_STEPS_NR,
};
bool eng_step(struct eng *e);        /* one operation by e->rnd, compared with the model */

/* --- oracle (engine_oracle.c) --- */
bool eng_compare(struct eng *e);     /* engine and model are the same now */
uint64_t eng_hash_bytes(uint64_t h, const void *bytes, size_t nr);
uint64_t eng_model_hash(struct eng *e);
/* The pool now running against the history, as of a cut before @event. */
bool eng_judge(struct eng *e, uint64_t at);
unsigned eng_floor_at(const struct eng *e, uint64_t at);
/* Names, attributes and contents of all that eng_goes_on() did not make. */
bool eng_digest(struct eng *e, uint64_t *ret_digest);
/* More work on a recovered pool that the model knows nothing of; then sync. */
bool eng_goes_on(struct eng *e, unsigned steps);

#endif

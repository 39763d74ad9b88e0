/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole engine under real threads and real I/O, killed and started again: what the parent, the child and its threads share
 *
 * The parent keeps, in memory that outlives the child, what was done and what was acknowledged; the child opens the pool, judges what it finds against that, and works on until it
 * is killed. Each thread has a directory of its own, whose history is known exactly, and takes part in shared ones, whose contents prove themselves.
 *
 *   T1  A record of an operation is in the log before the engine is called, and is ended after it returned: at most the last one of a thread is open.
 *   T2  A thread's part is changed under its lock only; the parent kills while it holds all of them. So no part is found half changed.
 *   T3  Names, links and attributes are in one order: what is found are those after some number k of the thread's operations, k not below what syncs covered; and no thread
 *       has an operation that began after one of another thread had ended which is lost.
 *   T4  Each byte of a file is as the newest sync left it or as a later operation wrote it; a truncation or hole within k has happened.
 */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "super/fs.h"

#define ST_MEMBERS_MIN 3
#define ST_MEMBERS_MAX 6
#define ST_THREADS_MAX 6
#define ST_OBJS 48            /* files, directories, links of a thread; [0] is its directory */
#define ST_NAMES 8            /* in each directory */
#define ST_LOG 8192           /* operations since the last sync */
#define ST_FILE_MAX TER_KIB(160)
#define ST_FILE_OPS_MAX 200   /* on one file, until it is synced */
#define ST_FILLERS 16
#define ST_FILLER_MAX TER_MIB(16)
#define ST_SHARED_DIRS 2
#define ST_HANG_SECONDS 60

enum { ST_EXIT_OK = 0, ST_EXIT_FINDING = 3, ST_EXIT_EMERGENCY = 4 }; /* a child's; EMERGENCY: went read-only because of faults that were armed */

enum st_kind { ST_NONE, ST_REG, ST_DIR, ST_LNK };

struct st_obj {
	uint64_t node;
	enum st_kind kind;
	bool unsure;        /* an operation failed half-way, and what is there could not be read since */
	uint16_t mode;
	uint32_t target;    /* of a symbolic link: which */
	uint32_t xattr;     /* value's number; 0: none */
	uint32_t last_ns;   /* newest operation on its name, links or attributes */
	uint32_t last_data, base_op, data_ops;
	uint64_t live_size, base_size;
};
struct st_model {
	struct st_obj obj[ST_OBJS];
	uint8_t name[ST_OBJS][ST_NAMES]; /* [directory]: object + 1; 0: no such name */
};

enum st_op { ST_OP_CREATE, ST_OP_LINK, ST_OP_UNLINK, ST_OP_RENAME, ST_OP_EXCHANGE, ST_OP_XATTR, ST_OP_MODE, ST_OP_WRITE, ST_OP_TRUNCATE, ST_OP_ZERO, ST_OP_GROW };
struct st_rec {
	enum st_op op;
	uint8_t obj, dir, name, dir2, name2;
	bool done, maybe, sets_size;      /* maybe: it failed, and may have been done in part */
	struct st_obj born;               /* CREATE: the new one */
	uint32_t value;                   /* XATTR, MODE */
	uint64_t from, to, size, pattern; /* size: of the file afterwards */
	uint64_t begin, end;              /* on shared->clock */
	uint64_t hash;                    /* of all names afterwards */
};

struct st_thread {
	pthread_mutex_t lock;
	uint64_t rnd;
	_Atomic uint64_t attempts;
	char doing[96];
	/* the model: after @nr operations; the log has those from @first on; @floor are durable */
	struct st_model m;
	uint32_t first, nr, floor;
	uint64_t first_hash, first_end; /* after operation @first; and when it had ended */
	struct st_rec log[ST_LOG];
	uint8_t live[ST_OBJS][ST_FILE_MAX], base[ST_OBJS][ST_FILE_MAX];
};

struct st_filler {
	uint64_t gen;              /* 0: none */
	uint64_t written, synced;  /* bytes */
	uint64_t reached;          /* how far it was ever written */
	bool removing;
};

enum st_mode { ST_PLAIN, ST_DAMAGE, ST_ABSENT, ST_FAULTS, ST_MODES };
extern const char *const st_mode_names[];

struct st_pool {
	unsigned members, threads, victim; /* victim: the member that is damaged or absent */
	uint64_t bytes[ST_MEMBERS_MAX];
	enum st_mode mode;
	uint32_t block, bucket, node, journal_ms;
	uint64_t journal;
	char path[ST_MEMBERS_MAX][160];
	uint64_t tag;
};
struct st_round {
	uint64_t seed;
	bool absent, uring, look_first, load, format;
};

enum { ST_GO, ST_STOP, ST_EXIT_NOW, ST_EMERGENCY };
struct st_shared {
	struct st_pool pool;
	struct st_round round;
	_Atomic uint64_t clock;
	_Atomic int request;       /* ST_GO ..., from the parent */
	_Atomic bool running, quiet, faulty, ro; /* quiet: threads end; faulty: faults were armed since the start; ro: it may be read-only */
	_Atomic uint64_t ticks;    /* of the child's main and control work */
	char doing[96];            /* and what that is */
	_Atomic uint64_t ops, refused, wild, syncs, faults, lost_ops, repaired, degraded, fscks, replays, flips, enospc;
	struct st_filler filler[ST_FILLERS];
	struct st_thread thread[ST_THREADS_MAX];
};
extern struct st_shared *st;

/* --- stress_util.c --- */
uint64_t st_rnd(uint64_t *state);
unsigned st_below(uint64_t *state, unsigned n);
bool st_chance(uint64_t *state, unsigned percent);
uint64_t st_hash(uint64_t h, uint64_t x);
uint8_t st_byte(uint64_t pattern, uint64_t offset); /* never 0 */
void st_fill(uint8_t *buf, uint64_t pattern, uint64_t offset, size_t bytes);
/* A finding: says it, and ends the process. */
void st_finding(const char *fmt, ...) TER_PRINTF(1, 2) __attribute__((noreturn));
void st_doing(const char *fmt, ...) TER_PRINTF(1, 2); /* the main work's, and counts as progress */
void st_install_dump(void);                           /* a signal prints where its thread is */
#define ST_DUMP_SIGNAL SIGUSR2
void st_sleep_ms(unsigned ms);

/* --- stress_calls.c: calls that wait --- */
extern const struct ter_op st_root;
int st_write(struct ter_vfs *vfs, uint64_t node, uint64_t offset, const void *buf, size_t bytes);
int64_t st_read(struct ter_vfs *vfs, uint64_t node, uint64_t offset, void *buf, size_t bytes);
int st_fsync(struct ter_vfs *vfs, uint64_t node);
int st_truncate(struct ter_vfs *vfs, uint64_t node, uint64_t size);
/* Is this error one that the round allows? Counts it. */
bool st_allowed(int r);

/* --- stress_model.c --- */
void st_name(unsigned nr, char buf[TER_NAME_MAX + 1]);
int st_name_nr(const char *name); /* -1: none of ours */
void st_target(unsigned nr, char buf[TER_SYMLINK_MAX + 1]);
size_t st_xattr(unsigned nr, uint8_t buf[4096]);
void st_model_apply(struct st_model *m, const struct st_rec *rec, uint32_t op);
void st_data_apply(struct st_thread *t, const struct st_rec *rec, uint32_t op);
uint64_t st_model_hash(const struct st_model *m);
unsigned st_links(const struct st_model *m, unsigned obj); /* names; a directory's nlink is 2 + subdirectories */
unsigned st_nlink(const struct st_model *m, unsigned obj);
static inline struct st_rec *st_rec(struct st_thread *t, uint32_t op)
{
	return &t->log[op % ST_LOG]; /* op in (first, nr] */
}
void st_forget_log(struct st_thread *t); /* all is durable: the log begins anew */

/* --- stress_oracle.c --- */
void st_judge_all(struct ter_vfs *vfs); /* what is there against the histories, and these begin anew from it */
void st_compare_dir(struct st_thread *t, struct ter_vfs *vfs, unsigned dir);
/* Bytes and size against the operations since the base up to @high, of which those up to @low have happened. NULL: fine; else what is wrong. */
const char *st_judge_file(struct st_thread *t, unsigned obj, const uint8_t *data, uint64_t size, uint32_t low, uint32_t high);

/* --- stress_ops.c, stress_wild.c --- */
void st_own_step(struct st_thread *t, struct ter_vfs *vfs);
void st_wild_step(struct st_thread *t, struct ter_vfs *vfs);
void st_wild_check(struct ter_vfs *vfs);
void st_filler_step(uint64_t *rnd, struct ter_vfs *vfs);
void st_filler_check(struct ter_vfs *vfs);

/* --- stress_child.c --- */
void st_child(void) __attribute__((noreturn));

#endif

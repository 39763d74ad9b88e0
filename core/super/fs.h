/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pool's life: format, probe, open, start, stop
 *
 *     (members) -> opened -> starting -> running (rw | ro | emergency-ro) -> stopping -> closed
 *
 *   L1  Each member is claimed (exclusive open) before its superblock is believed, and stays claimed until close.
 *   L2  A format, open or start that fails leaves every member as it was and closed.
 *   L3  Read-write begins with a superblock that says "not clean", durable before anything else is written.
 *   L4  Stop writes back everything, flushes nodes until two passes find nothing, stops the journal, then writes the clean section.
 *   L5  Emergency read-only: the journal halts first; what is in memory never reaches a device afterwards; the pool is never marked clean.
 * Functions here wait; call them from a job's task, never from a serving thread or a bus handler.
 */
#ifndef TER_FS_H
#define TER_FS_H

#include "alloc/alloc.h"
#include "fs/vfs.h"
#include "recovery/passes.h"
#include "sb/options.h"
#include "sb/sb.h"

struct ter_fs;

/* What the engine is handed; lives as long as anything opened with it. */
struct ter_env {
	struct ter_exec *exec;
	struct ter_io *io;
	const struct ter_codecs *codecs; /* NULL: codecs_get() is asked, once the members are open; codecs may be on their way from a disk meanwhile */
	int (*codecs_get)(void *arg, const struct ter_codecs **ret_codecs, struct ter_error *error);
	void *codecs_arg;
	/* Memory that survives a restart of the daemon (a memfd); NULL: plain anonymous memory. Zeroed, page-aligned. */
	void *(*region_get)(void *arg, const char *name, size_t bytes);
	void (*region_put)(void *arg, void *base, size_t bytes);
	void *region_arg;
};

/* Events, told from any engine task; must not block or call back in. */
enum ter_event_kind {
	TER_EVENT_STATE,          /* state or access mode changed */
	TER_EVENT_DEVICE_ERROR,   /* a member's error counter rose */
	TER_EVENT_DAMAGE,         /* damaged data or metadata; repaired or not */
	TER_EVENT_DEGRADED_WRITE, /* fewer copies than asked were written */
	TER_EVENT_EMERGENCY,      /* emergency read-only */
};
struct ter_fs_event {
	enum ter_event_kind kind;
	int dev_idx;      /* -1: none */
	uint64_t inum;    /* 0: none */
	int err;
	const char *text; /* a sentence without file names */
};
typedef void (*ter_fs_event_fn)(void *arg, struct ter_fs *fs, const struct ter_fs_event *event);

/* Once a process, before anything else: checksums, hashes and keys are what the disk's format says. INTERNAL. */
int ter_self_test(struct ter_error *error);

/* --- a step that long work calls between two transactions; NULL job is fine --- */
struct ter_job_ctl {
	/* Counts; returns -ECANCELED once somebody asked to stop. @total 0: unknown. */
	int (*step)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};

/* --- format --- */
struct ter_format_dev {
	const char *path;       /* absolute */
	const char *label;      /* member label, may be NULL */
	int durability, discard; /* -1: the option's default */
	uint64_t bytes;         /* 0: all; a regular file may be made larger (sparse) when it is smaller */
};
struct ter_format_params {
	const char *label;            /* "" or NULL: none */
	const struct ter_options *options; /* ter_options_default() with changes */
	const struct ter_format_dev *devs;
	unsigned devs_nr;
	bool force;                   /* overwrite what libblkid recognises */
	bool dry_run;
	uint8_t uuid[16];             /* user-visible; all zero: random */
};
/* Warnings (members on one physical disk, …): @warn is called with sentences. The pool is not left open. */
int ter_fs_format(const struct ter_env *env, const struct ter_format_params *params, const struct ter_job_ctl *job,
		  void (*warn)(void *arg, const char *sentence), void *warn_arg, uint8_t ret_uuid[16], struct ter_error *error);

/* --- probe --- */
struct ter_probe {
	bool is_member;
	uint8_t uuid[16], user_uuid[16], dev_uuid[16];
	unsigned dev_idx, devs_nr; /* slot of this member; members of the pool */
	char label[TER_LABEL_MAX + 1];
	uint64_t seq;
	bool clean;
	char signature[64];        /* what libblkid found: "terrace", "ext4", "", … */
	char why_not[TER_ERROR_TEXT_MAX]; /* why it could not be used, "" if it could */
	struct ter_sb *sb;         /* when is_member: newest copy; freed by ter_probe_free() */
	struct ter_members *members;
};
/* Looks without claiming (a device in use can be probed). */
int ter_fs_probe(const struct ter_env *env, const char *path, struct ter_probe *ret, struct ter_error *error);
void ter_probe_free(struct ter_probe *probe);

/* --- open, start, stop --- */
struct ter_open_params {
	const char *const *paths; /* members found */
	unsigned paths_nr;
	int degraded;             /* TER_DEGRADED_*, -1: the option */
	bool read_only;           /* nothing is written to any member, not even what a crash left to be replayed: that is done in memory */
	bool check;               /* all checks at start, before anything is written */
	uint64_t memory_limit, fsck_memory; /* 0: the option */
};
/*
 * Claims the members, reads and compares superblocks, decides whether the pool may start. Errors name members: DEVICE_IN_USE, DEVICE_FOREIGN, DEVICE_REMOVED, DEVICE_TOO_SMALL (a file
 * shrank), INCOMPLETE, DEGRADED (what is lost and the option to pass), SPLIT_BRAIN, PLUGIN_MISSING, INCOMPATIBLE_VERSION, BLOCK_SIZE_MISMATCH, CORRUPTED.
 */
int ter_fs_open(const struct ter_env *env, const struct ter_open_params *params, ter_fs_event_fn on_event, void *event_arg, struct ter_fs **ret_fs, struct ter_error *error);
/* Recovery and, unless read_only, read-write. */
int ter_fs_start(struct ter_fs *fs, const struct ter_job_ctl *job, struct ter_error *error);
/* L4. After it only ter_fs_close(). Emergency or halted: releases without writing. */
int ter_fs_stop(struct ter_fs *fs, struct ter_error *error);
void ter_fs_close(struct ter_fs *fs); /* stops if needed; NULL is fine */

/* L4 without close; back to rw refused after an emergency. One that fails leaves the pool as it was; half-way, and with no way back, it is an emergency. */
int ter_fs_set_read_only(struct ter_fs *fs, bool read_only, struct ter_error *error);
void ter_fs_emergency(struct ter_fs *fs, const char *reason);
int ter_fs_sync(struct ter_fs *fs); /* all acknowledged before is durable */

/* --- looking --- */
enum ter_fs_state { TER_FS_OPENED, TER_FS_STARTING, TER_FS_RUNNING, TER_FS_STOPPING, TER_FS_STOPPED, TER_FS_FAILED };
enum ter_access { TER_ACCESS_NONE, TER_ACCESS_RW, TER_ACCESS_RO, TER_ACCESS_EMERGENCY_RO };
extern const char *const ter_access_names[]; /* "none", "rw", "ro", "emergency-ro" */

struct ter_vfs *ter_fs_vfs(struct ter_fs *fs);  /* while running */
struct ter_fs_device {
	unsigned idx;
	uint8_t uuid[16];
	char path[256], label[TER_LABEL_MAX + 1];
	enum ter_dev_state state;
	bool online, discard, rotational, direct, is_file;
	uint8_t durability;
	uint64_t bytes, bucket_bytes, buckets_nr, journal_buckets, last_mount_ns;
	uint64_t errors[TER_DEV_ERR_NR], errors_since_ns;
	struct ter_dev_usage usage;
	uint64_t data_at_risk; /* bytes with this member as the only online copy */
};
struct ter_fs_replicas_row {
	struct ter_replicas_entry entry;
	uint64_t bytes, degraded_bytes;
};
struct ter_fs_status {
	uint8_t uuid[16], user_uuid[16];
	char label[TER_LABEL_MAX + 1];
	enum ter_fs_state state;
	enum ter_access access;
	bool degraded, clean;
	uint16_t version_major, version_minor;
	uint64_t created_ns, block_bytes, bucket_bytes;
	unsigned devs_nr, devs_online;
	struct ter_fs_usage usage;
	uint64_t errors;           /* found since start */
	char last_error[TER_ERROR_TEXT_MAX];
	char emergency_reason[TER_ERROR_TEXT_MAX]; /* while access is EMERGENCY_RO; later errors do not replace it */
	char why_read_only[TER_ERROR_TEXT_MAX]; /* "" unless it is read-only because of errors that were not repaired */
	struct ter_pass_row pass[TER_PASS_NR];  /* of the last start, by id (recovery/passes.h) */
	uint64_t passes_required, passes_unfixed;
	char recovery[256];        /* what the last start did: "clean", "replayed 123 entries (4.5 MiB) in 0.2 s", … */
	struct ter_options options;
	struct ter_journal_stats journal;
	struct ter_btree_stats btree;
	struct ter_data_stats data;
};
/* Snapshots for the bus: never wait for I/O. */
void ter_fs_get_status(struct ter_fs *fs, struct ter_fs_status *ret);
unsigned ter_fs_get_devices(struct ter_fs *fs, struct ter_fs_device *ret, unsigned max);
unsigned ter_fs_get_replicas(struct ter_fs *fs, struct ter_fs_replicas_row *ret, unsigned max);
unsigned ter_fs_get_missing(struct ter_fs *fs, struct ter_fs_device *ret, unsigned max);
struct ter_fs_compression_row { char name[TERRACE_NAME_MAX + 1]; uint64_t extents, raw_bytes, stored_bytes; };
unsigned ter_fs_get_compression(struct ter_fs *fs, struct ter_fs_compression_row *ret, unsigned max);

/* One line of the format's version and every option that is not at its default. Returns @buf. */
const char *ter_fs_describe(struct ter_fs *fs, char *buf, size_t bytes);

/* --- options at run time: checked, applied, and (persist) written to the superblock --- */
int ter_fs_set_option(struct ter_fs *fs, const char *name, const char *text, bool persist, struct ter_error *error);
int ter_fs_reset_option(struct ter_fs *fs, const char *name, struct ter_error *error);
int ter_fs_set_label(struct ter_fs *fs, const char *label, struct ter_error *error);

/* --- fsck: a read-only check of every relation; report gets one sentence per contradiction. Return: number of contradictions, or a negative errno. --- */
struct ter_fsck_report {
	void (*found)(void *arg, const char *pass, const char *sentence);
	void *arg;
	uint64_t *ret_degraded_bytes; /* of data, each counted once: what has fewer copies than option data_replicas asks, which is no contradiction; NULL is fine */
};
int64_t ter_fs_fsck(struct ter_fs *fs, const struct ter_fsck_report *report, const struct ter_job_ctl *job, struct ter_error *error);

/*
 * Repair, of a pool that was opened for writing and not started: starts it, checks, repairs btrees, space and files (recovery/passes.h), and checks again. Nobody else may use it
 * meanwhile. Afterwards it runs: end with ter_fs_stop(), which says "clean" only if nothing is left.
 */
struct ter_fs_repair_params {
	/* @sentence: what is wrong and what will be done. > 0: do it; 0: leave it; a negative errno: stop. NULL: do everything. Waits as long as it likes. */
	int (*want)(void *arg, const char *pass, const char *sentence);
	void (*found)(void *arg, const char *pass, const char *sentence); /* what the first check says; NULL is fine */
	void (*left)(void *arg, const char *pass, const char *sentence);  /* what the last one says */
	void *arg;
	uint64_t memory_bytes; /* of tables; 0: option fsck_memory */
};
struct ter_fs_repaired {
	uint64_t found, done, refused, left; /* contradictions at first; repairs done, and not wanted; contradictions at last */
	uint64_t copies_made;    /* extents that have all their copies again */
	uint64_t degraded_bytes; /* of data that has fewer copies than asked, at last: no room for more, or not wanted */
};
int ter_fs_repair(struct ter_fs *fs, const struct ter_fs_repair_params *params, const struct ter_job_ctl *job, struct ter_fs_repaired *ret, struct ter_error *error);

#endif

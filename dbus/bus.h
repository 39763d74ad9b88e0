/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bus: org.terracefs.Terrace1
 *
 * Adapters between D-Bus and a host (the daemon). Objects are shown from *views*: plain structs that the host publishes and this side keeps a copy of. A getter reads
 * its copy and nothing else; publishing a changed view emits PropertiesChanged for what differs, and nothing where nothing differs.
 *
 *   D1  One thread: every function here, and every function of the host, is called on the thread that runs the bus. None of them waits.
 *   D2  A method that needs I/O either returns a job's number at once, or is given a `struct ter_bus_call` that the host answers later, exactly once.
 *   D3  What a job changed is published before the job's own end: publishing is in order, so subscribers see the change before Completed.
 *   D4  Views are compared byte by byte: the host clears a view before it fills it.
 *   D5  Authorisation is decided before the host is asked (bus_access.c); the host trusts its caller.
 */
#ifndef TER_BUS_H
#define TER_BUS_H

#include <limits.h>
#include <systemd/sd-bus.h>

#include "super/fs.h"
#include "util/fault.h"
#include "util/uuid.h"

#define TER_BUS_NAME "org.terracefs.Terrace1"
#define TER_BUS_ROOT "/org/terracefs/Terrace1"
#define TER_BUS_PATH_MAX 192      /* of an object path of ours */
#define TER_BUS_WORD_MAX 32       /* states, phases */
#define TER_BUS_CALLS_MAX 256     /* calls that wait for an answer; more are refused */
#define TER_BUS_ROWS_MAX 64       /* replicas rows shown */
#define TER_BUS_COMPRESSIONS_MAX 16
#define TER_BUS_LINES_MAX 32      /* sentences in a job's result */
#define TER_BUS_LINE_MAX 320
#define TER_BUS_DAMAGED_MAX 256u  /* files in one answer */
#define TER_BUS_ALERTS_MAX 24     /* of one filesystem */
#define TER_BUS_ALERT_ID_MAX 64
#define TER_BUS_HARDWARE_MAX 128  /* of a model, of a serial number */
#define TER_BUS_SYMLINKS_MAX 16   /* of one device; udev may make more */
#define TER_BUS_SYMLINK_MAX 256
#define TER_BUS_RETENTION_US (600 * 1000000ull) /* how long a finished job stays */

struct ter_bus;
struct ter_bus_call; /* a method call that is answered later */

/* --- views --- */

struct ter_bus_usage {
	uint64_t capacity, used, available, reserved, inodes, hidden, cached, updated_us;
	double compression_ratio; /* 1.0: nothing is compressed */
	struct {
		uint64_t buckets[TER_DATA_NR], live[TER_DATA_NR], fragmented[TER_DATA_NR]; /* bytes but for the first */
	} by_type;
	struct {
		unsigned nr;
		struct ter_fs_replicas_row row[TER_BUS_ROWS_MAX];
		char device[TER_DEVS_MAX][TER_UUID_TEXT_BYTES]; /* by member index */
	} by_replicas;
	struct {
		unsigned nr;
		struct ter_fs_compression_row row[TER_BUS_COMPRESSIONS_MAX];
	} by_compression;
};

struct ter_bus_plugin_need {
	char kind[TER_BUS_WORD_MAX], name[TERRACE_NAME_MAX + 1];
	uint8_t slot;
	bool available;
};

/* What somebody should know, and do something about. No file names: everyone can read it. */
struct ter_bus_alert {
	char id[TER_BUS_ALERT_ID_MAX]; /* the same while it stands; unique in its filesystem */
	char severity[TER_BUS_WORD_MAX], message[TER_ERROR_TEXT_MAX];
	uint64_t since_us;
};
struct ter_bus_alerts {
	unsigned nr;
	struct ter_bus_alert alert[TER_BUS_ALERTS_MAX];
};

struct ter_bus_fs {
	char uuid[TER_UUID_TEXT_BYTES];
	char label[TER_LABEL_MAX + 1];
	char state[TER_BUS_WORD_MAX];
	char state_message[TER_ERROR_TEXT_MAX];
	char access[TER_BUS_WORD_MAX];
	char access_reason[TER_ERROR_TEXT_MAX];
	char requested_mode[TER_BUS_WORD_MAX];
	char health[TER_BUS_WORD_MAX];
	bool degraded, clean;
	char format_version[16], compatible_version[16];
	uint64_t created_us, last_opened_us;
	uint32_t opened_by;
	uint32_t devices_expected;
	struct {
		unsigned nr;
		char uuid[TER_DEVS_MAX][TER_UUID_TEXT_BYTES];
	} devices, missing;
	struct {
		unsigned nr;
		struct ter_bus_plugin_need need[TER_ALGO_SLOTS_MAX];
	} plugins;
	struct {
		bool mounted;
		char where[PATH_MAX], options[128];
		bool rw;
	} mount;
	uint32_t mounted_by;
	char recovery_phase[TER_ERROR_TEXT_MAX];
	struct {
		struct ter_pass_row row[TER_PASS_NR]; /* by id */
	} passes;
	uint64_t error_count, dropped;
	char last_error[TER_ERROR_TEXT_MAX];
	struct ter_bus_alerts alerts;
	struct ter_options options;
	struct {
		char word[TER_OPTION_ID_MAX][12]; /* by option id: default, superblock, runtime */
	} sources;
	struct ter_bus_usage usage;
};

/* What the machine knows of the device; all empty for a file, or where nobody knows. */
struct ter_bus_hardware {
	char model[TER_BUS_HARDWARE_MAX], serial[TER_BUS_HARDWARE_MAX];
	bool rotational;
	struct {
		unsigned nr;
		char path[TER_BUS_SYMLINKS_MAX][TER_BUS_SYMLINK_MAX]; /* absolute, sorted */
	} symlinks;
};

struct ter_bus_device {
	char uuid[TER_UUID_TEXT_BYTES], fs[TER_UUID_TEXT_BYTES];
	uint32_t index;
	char path[PATH_MAX];
	char state[TER_BUS_WORD_MAX];
	bool online, present, discard;
	char label[TER_LABEL_MAX + 1];
	uint8_t durability;
	uint64_t size, bucket_size, buckets, journal_buckets, last_seen_us;
	uint64_t read_errors, write_errors, checksum_errors, flush_errors, errors_since_us, data_at_risk;
	struct ter_bus_hardware hardware;
	struct ter_bus_usage usage;
};

struct ter_bus_plugin {
	char kind[TER_BUS_WORD_MAX], name[TERRACE_NAME_MAX + 1];
	char uuid[TER_UUID_TEXT_BYTES];
	char version[64], state[TER_BUS_WORD_MAX], error[TER_ERROR_TEXT_MAX], file[PATH_MAX], licence[64];
	uint32_t abi_major;
	int32_t level_min, level_max;
	char self_test[TER_BUS_WORD_MAX], implementation[64];
	struct {
		unsigned nr;
		char fs[TER_BUS_ROWS_MAX][TER_UUID_TEXT_BYTES];
	} used_by;
};

enum ter_bus_job_state {
	TER_BUS_JOB_QUEUED, TER_BUS_JOB_RUNNING, TER_BUS_JOB_CANCELLING, TER_BUS_JOB_SUCCEEDED, TER_BUS_JOB_FAILED, TER_BUS_JOB_CANCELLED,
};
struct ter_bus_job_result {
	char fs[TER_UUID_TEXT_BYTES];     /* "filesystem": an object; "" absent */
	bool has_found;
	uint64_t found;                   /* "errors": contradictions that fsck found */
	unsigned lines_nr;
	char lines_key[TER_BUS_WORD_MAX]; /* what the sentences are: "warnings", "messages" */
	char line[TER_BUS_LINES_MAX][TER_BUS_LINE_MAX];
};
struct ter_bus_job {
	uint64_t id;
	char operation[TER_BUS_WORD_MAX], description[128];
	enum ter_bus_job_state state;
	char phase[TER_BUS_WORD_MAX];
	double progress;
	bool progress_valid, cancelable;
	struct {
		uint64_t done;   /* in all phases so far: paths, pointers, btrees … */
		uint64_t errors; /* contradictions that fsck found */
		bool has_errors;
	} counters;
	uint64_t start_us, end_us, expected_end_us;
	uint32_t uid;
	char fs[TER_UUID_TEXT_BYTES]; /* what it works on; "" nothing yet */
	struct ter_bus_job_result result;
	enum ter_error_kind error_kind;
	char error_message[TER_ERROR_TEXT_MAX];
	struct {
		unsigned missing_nr;
		char missing[TER_DEVS_MAX][TER_UUID_TEXT_BYTES];
		char option[TER_BUS_WORD_MAX], value[TER_BUS_WORD_MAX]; /* what to pass to go on all the same */
	} details;
};

struct ter_bus_damaged {
	uint64_t node;       /* st_ino */
	char path[PATH_MAX]; /* "": not known */
	char what[128];
};

/* --- what a method hands to the host --- */

struct ter_bus_who {
	uint32_t uid;
	const char *reason; /* "" when none was given */
};
struct ter_bus_create {
	const struct ter_format_dev *devs;
	unsigned devs_nr;
	const char *label;
	const struct ter_options *options;
	bool force, dry_run;
};
struct ter_bus_start {
	int degraded; /* TER_DEGRADED_*, -1: the option */
	bool read_only;
	bool check;       /* everything, before anything is written */
	bool no_recovery; /* what a crash left is replayed in memory only */
	uint32_t wait_missing_s;
};
struct ter_bus_mount {
	const char *where; /* "": chosen */
	const char *const *options;
	unsigned options_nr;
};
struct ter_bus_attach {
	int fuse_fd; /* borrowed: duplicate it */
	const char *where;
	bool read_only, writeback_cache;
	const char *transport; /* auto, classic, ring */
};
struct ter_bus_option {
	const struct ter_option_info *info;
	char text[TER_OPT_ALGO_MAX];
};

/*
 * Functions that return int: 0 with *ret_job (a number; 0: nothing to do), or a negative errno with @error explained. Filesystems are named by their UUID as text, which
 * was published. Functions with a call answer it, at once or later (D2).
 */
struct ter_bus_host {
	void *arg;
	bool system;         /* the system bus: polkit decides; else the bus's owner may do everything */
	bool debug;          /* the interface Debug is offered; only in builds that have it */
	const char *version; /* the program's */
	const struct ter_codecs *codecs;

	int (*create)(void *arg, const struct ter_bus_who *who, const struct ter_bus_create *create, uint64_t *ret_job, struct ter_error *error);
	int (*rescan)(void *arg, const struct ter_bus_who *who, const char *const *paths, unsigned paths_nr, uint64_t *ret_job, struct ter_error *error);
	int (*start)(void *arg, const struct ter_bus_who *who, const char *fs, const struct ter_bus_start *start, uint64_t *ret_job, struct ter_error *error);
	int (*stop)(void *arg, const struct ter_bus_who *who, const char *fs, bool force, uint64_t *ret_job, struct ter_error *error);
	int (*set_access)(void *arg, const struct ter_bus_who *who, const char *fs, bool read_only, uint64_t *ret_job, struct ter_error *error);
	int (*fsck)(void *arg, const struct ter_bus_who *who, const char *fs, bool repair, uint64_t *ret_job, struct ter_error *error);
	int (*force_read_only)(void *arg, const struct ter_bus_who *who, const char *fs, const char *reason, struct ter_error *error);
	int (*set_fault)(void *arg, const struct ter_bus_who *who, const char *point, const struct ter_fault_rule *rule, struct ter_error *error);
	void (*clear_faults)(void *arg, const struct ter_bus_who *who);
	int (*job_cancel)(void *arg, uint64_t job, struct ter_error *error);
	int (*job_dismiss)(void *arg, uint64_t job, struct ter_error *error);

	void (*probe)(void *arg, const char *path, struct ter_bus_call *call);
	void (*resolve_fs)(void *arg, const char *spec, struct ter_bus_call *call);
	void (*resolve_device)(void *arg, const char *spec, struct ter_bus_call *call);
	void (*sync)(void *arg, const char *fs, struct ter_bus_call *call);
	void (*set_label)(void *arg, const char *fs, const char *label, struct ter_bus_call *call);
	void (*set_options)(void *arg, const char *fs, const struct ter_bus_option *options, unsigned nr, bool persist, struct ter_bus_call *call);
	void (*reset_options)(void *arg, const char *fs, const struct ter_option_info *const *options, unsigned nr, struct ter_bus_call *call);
	void (*read_superblock)(void *arg, const char *fs, struct ter_bus_call *call);
	void (*list_damaged)(void *arg, const char *fs, uint64_t from_inum, unsigned limit, struct ter_bus_call *call); /* limit <= TER_BUS_DAMAGED_MAX */
	void (*clear_damage)(void *arg, const char *fs, unsigned dev_major, unsigned dev_minor, uint64_t inum, struct ter_bus_call *call);
	void (*wait_ready)(void *arg, const char *fs, uint32_t timeout_s, struct ter_bus_call *call);
	void (*wait_job)(void *arg, uint64_t job, uint32_t timeout_s, struct ter_bus_call *call);
	void (*mount)(void *arg, const struct ter_bus_who *who, const char *fs, const struct ter_bus_mount *mount, struct ter_bus_call *call);
	void (*unmount)(void *arg, const char *fs, const char *where, bool lazy, struct ter_bus_call *call);
	void (*attach)(void *arg, const struct ter_bus_who *who, const char *fs, const struct ter_bus_attach *attach, struct ter_bus_call *call);
	void (*detach)(void *arg, const char *fs, const char *where, struct ter_bus_call *call);
};

/* --- life --- */

/* Adds the manager's objects to @sd_bus, which the caller connects and drives. @host is copied. */
int ter_bus_new(sd_bus *sd_bus, const struct ter_bus_host *host, struct ter_bus **ret_bus);
/* Calls that still wait are answered with Cancelled. NULL is fine. */
void ter_bus_free(struct ter_bus *bus);
sd_bus *ter_bus_sd(struct ter_bus *bus);

/* --- publishing (D3, D4): adds the object when it is new. The number of objects is the host's to bound. --- */
int ter_bus_publish_fs(struct ter_bus *bus, const struct ter_bus_fs *view);
int ter_bus_publish_device(struct ter_bus *bus, const struct ter_bus_device *view);
int ter_bus_publish_plugin(struct ter_bus *bus, unsigned idx, const struct ter_bus_plugin *view); /* @idx: the host's number of it */
int ter_bus_publish_job(struct ter_bus *bus, const struct ter_bus_job *view);                      /* also says Completed */
void ter_bus_remove_fs(struct ter_bus *bus, const char *uuid);
void ter_bus_remove_device(struct ter_bus *bus, const char *uuid);
void ter_bus_remove_job(struct ter_bus *bus, uint64_t id);
/* The signal ErrorDetected. */
void ter_bus_error_detected(struct ter_bus *bus, const char *fs, const char *class, const char *device, uint64_t inum, const char *message);

/* --- answers (D2); each frees @call --- */
void ter_bus_answer(struct ter_bus_call *call, const struct ter_error *error); /* NULL or TER_ERR_NONE: done, with nothing to return */
void ter_bus_answer_text(struct ter_bus_call *call, const char *text);
void ter_bus_answer_bytes(struct ter_bus_call *call, const void *bytes, size_t nr);
void ter_bus_answer_fs(struct ter_bus_call *call, const char *uuid);     /* the object of a filesystem */
void ter_bus_answer_device(struct ter_bus_call *call, const char *uuid); /* of a member */
void ter_bus_answer_probe(struct ter_bus_call *call, const struct ter_probe *probe);
void ter_bus_answer_damaged(struct ter_bus_call *call, const struct ter_bus_damaged *rows, unsigned nr, uint64_t next_inum); /* 0: that was all */
void ter_bus_answer_job(struct ter_bus_call *call, uint64_t job);        /* state and result of a published job */

/* --- names --- */
void ter_bus_fs_path(const char *uuid, char ret[TER_BUS_PATH_MAX]);
void ter_bus_device_path(const char *uuid, char ret[TER_BUS_PATH_MAX]);
void ter_bus_job_path(uint64_t id, char ret[TER_BUS_PATH_MAX]);
/* @text as valid UTF-8: other bytes become \xNN. Cut at @ret_bytes, between characters. */
void ter_bus_utf8(const char *text, char *ret, size_t ret_bytes);
extern const char *const ter_bus_job_states[];

#endif

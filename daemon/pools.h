/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pools: every filesystem of which a member was seen
 *
 *     incomplete <-> stopped -> starting -> running -> stopping -> stopped          failed: a start or a stop went wrong; it can be started again
 *
 *   W1  A pool belongs to the main thread. Job threads get what they need handed over: members' paths, the open filesystem.
 *   W2  `fs` is there while it is running or being changed. It leaves the pool before the job begins that stops it, so nothing new can use it.
 *   W3  `users` counts jobs and mounts at work on `fs`; whoever stops it or changes its mode waits until there is none.
 *   W4  One life job (start, stop, access mode, a check of a stopped pool) at a time; the next is refused.
 *   W5  A path is a member of one pool only; two different devices that claim the same member are both kept out.
 *   W6  The daemon never looks at a path below its own mounts.
 */
#ifndef TD_POOLS_H
#define TD_POOLS_H

#include "dbus/bus.h"
#include "engine.h"
#include "fuse/session.h"
#include "job.h"
#include "members_file.h"
#include "sampler.h"
#include "scan.h"

#define TD_POOLS_MAX 256
#define TD_EVENTS_PENDING_MAX 256 /* told by the engine and not yet looked at; the rest is counted */
#define TD_EVENTS_PER_S 10        /* logged and signalled */

enum td_pool_state { TD_POOL_INCOMPLETE, TD_POOL_STOPPED, TD_POOL_STARTING, TD_POOL_RUNNING, TD_POOL_STOPPING, TD_POOL_FAILED };

struct td_member {
	char *path; /* NULL: not found */
	struct ter_bdev_node node;
	uint64_t seq;
	bool conflict;
	char *other; /* the path that claims the same member */
	struct ter_bus_hardware *hardware; /* NULL: not known */
};
void td_member_clear(struct td_member *member); /* as not found */

struct td_mount {
	struct td_pool *pool;
	struct td_post end_post; /* told by the session, once */
	char where[PATH_MAX], options[128];
	bool read_only, ending;
	uint32_t uid;
	struct td_session *session;
	struct ter_bus_call *unmount_call; /* waits for the end */
	guint unmount_timer;
};
void td_mount_free(struct td_mount *mount); /* NULL is fine */

struct td_pool {
	struct ter_list link;
	struct td_pools *pools;
	uint8_t uuid[16]; /* the internal one */
	char text[TER_UUID_TEXT_BYTES]; /* the one that people see */
	struct ter_sb *sb;          /* newest seen while not running */
	struct ter_members *table;
	struct td_member member[TER_DEVS_MAX];
	enum td_pool_state state;
	char message[TER_ERROR_TEXT_MAX];
	bool conflict;          /* message is about one */
	struct ter_error error; /* of the last start */

	struct ter_fs *fs;
	struct td_job *life, *check; /* check: fsck while running */
	uint32_t opened_by;
	bool asked_read_only;
	uint64_t runtime_options; /* bit per option id: set without being stored */
	struct td_sample *sample;

	struct td_mount *mount;
	bool attaching; /* a mount is being made */

	pthread_mutex_t users_lock; /* a leaf */
	pthread_cond_t users_cond;
	unsigned users;

	struct ter_bus_alerts alerts; /* as shown last: what stands on keeps its time */
	bool damaged;                 /* files lost data, as far as is known */
	bool looking;                 /* for such files */
	guint look_timer;

	_Atomic unsigned events_pending;
	_Atomic uint64_t events_dropped;
	uint64_t events_second, events_this_second;
};

/* Continues when a pool has settled: is neither starting nor stopping. */
struct td_settle {
	struct ter_list link;
	struct td_pool *pool;
	void (*fn)(struct td_settle *settle, struct td_pool *pool); /* owns @settle; @pool NULL: it has gone, or time is up */
	guint timer;
	void *arg;
};

struct td_pools {
	struct td_engine *engine;
	struct td_main_queue *queue;
	struct td_jobs *jobs;
	struct td_sampler *sampler;
	struct td_members_file *members;
	struct ter_bus *bus;
	bool debug_interface;
	bool system, by_systemd; /* by_systemd: mounts are units */
	bool quitting, scanned;
	struct ter_list list, settles;
	unsigned nr;
};

/* --- the registry (pools.c) --- */
int td_pools_init(struct td_pools *pools);
void td_pools_destroy(struct td_pools *pools); /* none runs */
struct td_pool *td_pools_by_text(struct td_pools *pools, const char *uuid);
/* What a job found, applied: new pools, members that moved, pools that went. */
void td_pools_merge(struct td_pools *pools, struct td_scan *scan);
/* "UUID=", "LABEL=", "terrace:", a UUID, a label, a member's path, a mount point, an object. AMBIGUOUS_NAME, NOT_FOUND. */
int td_pools_resolve(struct td_pools *pools, const char *spec, struct td_pool **ret_pool, struct ter_error *error);
int td_pools_resolve_device(struct td_pools *pools, const char *spec, char ret_uuid[TER_UUID_TEXT_BYTES], struct ter_error *error);
const char *td_pool_label(const struct td_pool *pool);
bool td_pools_below_mount(struct td_pools *pools, const char *path); /* W6 */
void td_pool_set_state(struct td_pool *pool, enum td_pool_state state, const char *message);
void td_pool_settled_state(struct td_pool *pool, const char *message); /* stopped or incomplete, by what was found */
bool td_pool_complete(const struct td_pool *pool);
extern const char *const td_pool_states[];

/* --- views (pool_view.c) --- */
void td_pool_publish(struct td_pool *pool);
void td_pool_unpublish(struct td_pool *pool);
void td_pools_publish_plugins(struct td_pools *pools);
void td_pools_deliver(void *pools, struct td_sample *sample); /* for td_sampler_new() */
void td_pool_fill_alerts(struct td_pool *pool, struct ter_bus_fs *view); /* pool_alerts.c; the rest of @view is filled */

/* --- life (pool_life.c): *ret_job is the job's number --- */
int td_pool_start_job(struct td_pool *pool, uint32_t uid, const struct ter_bus_start *start, uint64_t *ret_job, struct ter_error *error);
int td_pool_stop_job(struct td_pool *pool, uint32_t uid, bool force, uint64_t *ret_job, struct ter_error *error);
int td_pool_set_access(struct td_pool *pool, uint32_t uid, bool read_only, uint64_t *ret_job, struct ter_error *error);
/* @timeout_s 0: no limit. Calls @fn at once when it has settled already. */
int td_pool_when_settled(struct td_pool *pool, uint32_t timeout_s, void (*fn)(struct td_settle *settle, struct td_pool *pool), void *arg);
void td_pool_run_settles(struct td_pool *pool);
/* W3. Refused (with @error) unless it is running and nothing changes its life. */
int td_pool_use(struct td_pool *pool, struct ter_error *error);
void td_pool_hold(struct td_pool *pool);  /* the same without asking: for ends that must not be refused */
void td_pool_unuse(struct td_pool *pool); /* any thread */
void td_pool_wait_unused(struct td_pool *pool); /* job threads */

/* --- finding (pool_scan.c) --- */
int td_pools_rescan(struct td_pools *pools, uint32_t uid, const char *const *paths, unsigned nr, bool hidden, uint64_t *ret_job, struct ter_error *error);
int td_pools_create(struct td_pools *pools, uint32_t uid, const struct ter_bus_create *create, uint64_t *ret_job, struct ter_error *error);
/* The paths where members may be, main thread's part and job's part. */
int td_pools_known_paths(struct td_pools *pools, struct td_paths *paths);
int td_scan_more_paths(struct td_members_file *members, bool system, struct td_paths *paths);
/* Job threads: remembers members, forgets paths that certainly are none. */
void td_scan_remember(struct td_members_file *members, const struct td_scan *scan);

/* --- work on a running pool (pool_work.c) --- */
void td_pool_sync(struct td_pool *pool, struct ter_bus_call *call);
void td_pool_set_label(struct td_pool *pool, const char *label, struct ter_bus_call *call);
void td_pool_set_options(struct td_pool *pool, const struct ter_bus_option *options, unsigned nr, bool persist, struct ter_bus_call *call);
void td_pool_reset_options(struct td_pool *pool, const struct ter_option_info *const *options, unsigned nr, struct ter_bus_call *call);
void td_pool_read_superblock(struct td_pool *pool, struct ter_bus_call *call);
int td_pool_fsck(struct td_pool *pool, uint32_t uid, bool repair, uint64_t *ret_job, struct ter_error *error);
void td_pool_list_damaged(struct td_pool *pool, uint64_t from_inum, unsigned limit, struct ter_bus_call *call); /* pool_damage.c */
void td_pool_clear_damage(struct td_pool *pool, unsigned dev_major, unsigned dev_minor, uint64_t inum, struct ter_bus_call *call);
/* Are there files that lost data? Looks by a job, and again as long as there are some, for they may be deleted; a running pool only. */
void td_pool_look_for_damage(struct td_pool *pool);
void td_pool_damage_told(struct td_pool *pool); /* one was met; its note is on its way to the record */
void td_pool_forget_damage(struct td_pool *pool); /* it does not run any more */
void td_pool_on_event(void *pool, struct ter_fs *fs, const struct ter_fs_event *event); /* ter_fs_event_fn */

/* --- mounts (pool_mount.c, mount_unit.c) --- */
void td_pool_mount(struct td_pool *pool, const struct ter_bus_who *who, const struct ter_bus_mount *mount, struct ter_bus_call *call);
void td_pool_unmount(struct td_pool *pool, const char *where, bool lazy, struct ter_bus_call *call);
void td_pool_attach(struct td_pool *pool, const struct ter_bus_who *who, const struct ter_bus_attach *attach, struct ter_bus_call *call);
void td_pool_detach(struct td_pool *pool, const char *where, struct ter_bus_call *call);
/* After a successful unmount: answers when MountPoints is right, or after a few seconds. */
void td_pools_answer_unmounted(struct td_pools *pools, const char *uuid, const char *where, struct ter_bus_call *call);
/* systemd's units; each answers @call. */
void td_mount_unit_start(struct td_pool *pool, const char *where, const char *options, struct ter_bus_call *call);
void td_mount_unit_stop(struct td_pool *pool, const char *where, struct ter_bus_call *call);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool object, for the files of this room only. */
#ifndef TER_SUPER_PRIV_H
#define TER_SUPER_PRIV_H

#include <stdatomic.h>

#include "recovery/fsck.h"
#include "super/fs.h"
#include "util/repair.h"

#define TER_EVENT_TEXT_MAX 512

struct ter_region {
	void *base;
	size_t bytes;
};

/* A change in the journal that could not be replayed, because its node cannot be read. */
struct ter_super_late_key {
	struct ter_list link;
	enum ter_btree_id btree;
	uint64_t key[]; /* as on disk */
};

struct ter_fs {
	struct ter_env env;
	ter_fs_event_fn on_event;
	void *event_arg;

	struct ter_lock life;   /* rank FS_STATE: start, stop, read-only, options: one at a time */
	struct ter_lock status; /* rank LEAF; guards what follows */
	enum ter_fs_state state;
	enum ter_access access;
	char last_error[TER_ERROR_TEXT_MAX], emergency_reason[TER_ERROR_TEXT_MAX];
	char last_dev_error[TER_EVENT_TEXT_MAX]; /* a sentence that names the member */
	char recovery[256];
	uint64_t errors;

	struct ter_pass_row pass[TER_PASS_NR];
	char why_read_only[TER_ERROR_TEXT_MAX]; /* "": because it was asked to be */

	bool check_first;        /* all checks before it is written to, whatever the superblock says */
	bool repairing;          /* started for ter_fs_repair(): bits do not count, damage does not end it, nothing is reaped */
	struct ter_repair *repair;  /* then: who is asked; NULL: nobody */
	struct ter_list late_keys; /* for ter_super_replay_late() */
	bool guarded;            /* goes read-write with the allocator guarded */
	_Atomic bool found_running; /* damage in metadata was met, and is not in the bits yet */
	struct ter_workq *wq;       /* while the rooms stand */
	struct ter_work note_work;  /* brings the bits to the members */
	_Atomic bool note_queued;
	bool degraded;           /* members missing since open */
	bool format;             /* first start, from format */
	bool read_only;          /* as it runs now */
	bool opened_read_only;   /* the devices cannot be written */
	_Atomic bool emergency;
	uint64_t memory_limit;
	uint64_t fsck_memory;   /* as asked at open; 0: the option */
	uint64_t fsck_memory_most; /* of what the option asks */

	struct ter_sb_handle sb;
	struct ter_members *members;
	struct ter_journal *journal;
	struct ter_btrees *btrees;
	struct ter_alloc *alloc;
	struct ter_data *data;
	struct ter_vfs *vfs;
	struct ter_region journal_region, data_region;
	bool btrees_run, alloc_run, data_run;
};

/* events.c */
void ter_super_set_state(struct ter_fs *fs, enum ter_fs_state state, enum ter_access access);
void ter_super_event(struct ter_fs *fs, enum ter_event_kind kind, int dev_idx, uint64_t inum, int err, const char *fmt, ...) TER_PRINTF(6, 7);
void ter_super_on_dev_error(void *arg, struct ter_dev *dev, enum ter_dev_errkind kind, int r);
void ter_super_on_btree_error(void *arg, int r, const char *text);
void ter_super_on_journal_error(void *arg, int r, const char *text);
void ter_super_on_degraded(void *arg, uint64_t seq, unsigned copies, unsigned wanted);
void ter_super_on_damage(void *arg, unsigned dev_idx, uint64_t inum, uint64_t offset_bytes, bool repaired);

/* recover.c */
struct ter_recovery_numbers;
int ter_super_recover(struct ter_fs *fs, const struct ter_job_ctl *job, struct ter_error *error);
struct ter_fsck_config ter_super_fsck_config(struct ter_fs *fs);
/* Bits of passes in the superblock in memory: of those @checked, @found are left. */
void ter_super_note_passes(struct ter_fs *fs, uint64_t checked, uint64_t found);
bool ter_super_note_running_errors(struct ter_fs *fs); /* true: there are new bits */
void ter_super_note_work(struct ter_work *work);
void ter_super_queue_note(struct ter_fs *fs); /* from any task; never waits */
int ter_super_replay_late(struct ter_fs *fs); /* once nodes are repaired */
void ter_super_forget_late(struct ter_fs *fs);

/* start.c */
int ter_super_build_rooms(struct ter_fs *fs, const struct ter_recovery_numbers *numbers, struct ter_error *error);
int ter_super_build_upper_rooms(struct ter_fs *fs, const struct ter_recovery_numbers *numbers, struct ter_error *error);
int ter_super_go_read_write(struct ter_fs *fs, const struct ter_journal_replay *replay, uint64_t next_seq, struct ter_error *error);
int ter_super_end_writing(struct ter_fs *fs, struct ter_error *error); /* L4, the rooms stay for reading */

/* open.c */
struct ter_fs *ter_super_new(const struct ter_env *env, struct ter_sb *sb, struct ter_members *members);
uint64_t ter_super_online_mask(const struct ter_members *members);

/* signature.c: what libblkid sees on an open path. Return: 0 with an empty or filled @type; negative errno. */
int ter_super_signature(const char *path, char *type, size_t type_bytes, struct ter_error *error);

#endif

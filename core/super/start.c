/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Start: build the rooms, recover, go read-write. Stop: the reverse. */
#include <stdio.h>
#include <sys/mman.h>

#include "alloc/alloc_repair.h"
#include "recovery/recovery.h"
#include "super/super_priv.h"
#include "util/fault.h"

/* How memory_limit is divided; the rest is for request buffers and what has no cache of its own. */
#define BTREE_CACHE_PERCENT 38
#define DIRTY_PERCENT 28
#define INODE_CACHE_PERCENT 8

#define FLUSH_PASSES_MAX 100

TER_FAULT_POINT(fault_region, "mem.region", ENOMEM, "a region for buffers that survive a restart of the daemon")
TER_FAULT_POINT(fault_start, "super.start", EIO, "the start of an opened filesystem")
TER_FAULT_POINT(fault_read_write, "super.read_write", EIO, "going read-write, the superblock written")
TER_FAULT_POINT(fault_read_only, "super.read_only", EIO, "going read-only, before anything is written back")
TER_FAULT_POINT(fault_stop, "super.stop", EIO, "a clean stop, before anything is written back")

/* 0, or -EIO with a sentence. */
static int fail_on_request(struct ter_fault_point *point, struct ter_error *error)
{
	if (TER_FAULT(*point) < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "A test asked for the failure of %s.", point->help);
	return 0;
}

static uint64_t percent_of(uint64_t bytes, unsigned percent)
{
	return bytes / 100 * percent;
}

static int region_get(struct ter_fs *fs, const char *name, size_t bytes, struct ter_region *ret)
{
	void *base;

	if (TER_FAULT(fault_region) < 0)
		return -ENOMEM;
	bytes = ter_round_up(bytes, TER_KIB(4));
	if (fs->env.region_get)
		base = fs->env.region_get(fs->env.region_arg, name, bytes);
	else
		base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!base || base == MAP_FAILED)
		return -ENOMEM;
	*ret = (struct ter_region){ .base = base, .bytes = bytes };
	return 0;
}

static void region_put(struct ter_fs *fs, struct ter_region *region)
{
	if (!region->base)
		return;
	ter_io_unregister_region(fs->env.io, region->base);
	if (fs->env.region_put)
		fs->env.region_put(fs->env.region_arg, region->base, region->bytes);
	else
		munmap(region->base, region->bytes);
	*region = (struct ter_region){ 0 };
}

/* --- callbacks between rooms --- */

static void on_counters(void *arg, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct ter_fs *fs = arg;

	ter_alloc_on_counters(fs->alloc, pos, deltas, nr);
}

static unsigned get_roots(void *arg, struct ter_root *roots, unsigned max)
{
	struct ter_fs *fs = arg;

	return ter_btrees_get_roots(fs->btrees, roots, max);
}

static void get_clock(void *arg, uint64_t *ret_next_node_seq, uint64_t *ret_next_inum)
{
	struct ter_fs *fs = arg;

	*ret_next_node_seq = ter_btrees_next_node_seq(fs->btrees);
	*ret_next_inum = ter_vfs_next_inum(fs->vfs);
}

/* --- the rooms, bottom up --- */

int ter_super_build_rooms(struct ter_fs *fs, const struct ter_recovery_numbers *numbers, struct ter_error *error)
{
	const struct ter_sb *sb = fs->sb.sb;
	const struct ter_btrees_config btrees = {
		.exec = fs->env.exec, .sb = &fs->sb, .members = fs->members,
		.cache_bytes = percent_of(fs->memory_limit, BTREE_CACHE_PERCENT),
		.next_node_seq = ter_max(numbers->next_node_seq, sb->next_node_seq),
		.on_counters = on_counters, .on_error = ter_super_on_btree_error, .on_arg = fs,
	};
	struct ter_btree_hooks hooks;
	int r;

	fs->note_work.fn = ter_super_note_work;
	r = ter_workq_new(fs->env.exec, "ter-notes", 1, &fs->wq);
	if (r >= 0)
		r = ter_btrees_new(&btrees, &fs->btrees);
	if (r < 0)
		return ter_fail_errno(error, r, "The btrees cannot be set up: %s.", strerror(-r));

	r = ter_alloc_new(&(struct ter_alloc_config){ .exec = fs->env.exec, .sb = &fs->sb, .members = fs->members, .btrees = fs->btrees },
			  &fs->alloc);
	if (r < 0)
		return ter_fail_errno(error, r, "The allocator cannot be set up: %s.", strerror(-r));
	ter_alloc_hooks(fs->alloc, &hooks);
	ter_btrees_set_hooks(fs->btrees, &hooks);

	r = region_get(fs, "dirty", percent_of(fs->memory_limit, DIRTY_PERCENT), &fs->data_region);
	if (r < 0)
		return ter_fail_errno(error, r, "There is no memory for the dirty buffer: %s.", strerror(-r));
	return 0;
}

int ter_super_build_upper_rooms(struct ter_fs *fs, const struct ter_recovery_numbers *numbers, struct ter_error *error)
{
	const uint64_t next_inum = ter_max(numbers->next_inum, fs->sb.sb->next_inum);
	const struct ter_data_config data = {
		.exec = fs->env.exec, .sb = &fs->sb, .members = fs->members, .btrees = fs->btrees, .alloc = fs->alloc, .journal = fs->journal,
		.codecs = fs->env.codecs, .region = fs->data_region.base, .region_bytes = fs->data_region.bytes,
		.on_damage = ter_super_on_damage, .on_arg = fs,
	};
	int r;

	r = ter_data_new(&data, &fs->data);
	if (r < 0)
		return ter_fail_errno(error, r, "The data path cannot be set up: %s.", strerror(-r));
	r = ter_vfs_new(&(struct ter_vfs_config){
				.exec = fs->env.exec, .sb = &fs->sb, .btrees = fs->btrees, .alloc = fs->alloc, .data = fs->data,
				.journal = fs->journal,
				.next_inum = ter_max(TER_INUM_FIRST, next_inum),
				.cache_bytes = percent_of(fs->memory_limit, INODE_CACHE_PERCENT),
				.read_only = fs->read_only,
			}, &fs->vfs);
	if (r < 0)
		return ter_fail_errno(error, r, "The file layer cannot be set up: %s.", strerror(-r));
	return 0;
}

/* --- read-write --- */

/* Sequences beyond the last durable entry never were (journal.h, J7): said in the superblock before a new one is written. */
static void blacklist(struct ter_fs *fs, const struct ter_journal_replay *replay)
{
	struct ter_sb *sb = fs->sb.sb;

	if (!replay || replay->blacklist_first > replay->blacklist_last)
		return;
	ter_lock_acquire(&fs->sb.lock);
	/* Rows of earlier starts that came to nothing: the new one begins no later and reaches as far. */
	while (sb->blacklist_nr && sb->blacklist[sb->blacklist_nr - 1].first >= replay->blacklist_first)
		sb->blacklist_nr--;
	if (sb->blacklist_nr == TER_BLACKLIST_MAX) {
		/* A node never holds a change that was not durable (btree.h, T7): a row is a second line of defence, and the oldest can go. */
		memmove(&sb->blacklist[0], &sb->blacklist[1], sizeof(sb->blacklist[0]) * (TER_BLACKLIST_MAX - 1));
		sb->blacklist_nr--;
	}
	sb->blacklist[sb->blacklist_nr].first = replay->blacklist_first;
	sb->blacklist[sb->blacklist_nr].last = replay->blacklist_last;
	sb->blacklist_nr++;
	ter_lock_release(&fs->sb.lock);
}

static int mark_dirty(struct ter_fs *fs, struct ter_error *error)
{
	const int64_t now = ter_real_ns(fs->env.exec);

	ter_lock_acquire(&fs->sb.lock);
	fs->sb.sb->clean = false;
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		if (fs->members->dev[i].bdev)
			fs->members->dev[i].last_mount_ns = now > 0 ? (uint64_t)now : 0;
	ter_lock_release(&fs->sb.lock);
	return ter_sb_write(&fs->sb, error);
}

static int start_journal(struct ter_fs *fs, const struct ter_journal_replay *replay, uint64_t next_seq, struct ter_error *error)
{
	int r;

	r = region_get(fs, "journal", ter_journal_region_bytes(fs->sb.sb, fs->members), &fs->journal_region);
	if (r < 0)
		return ter_fail_errno(error, r, "There is no memory for the journal's buffers: %s.", strerror(-r));
	r = ter_journal_start(&(struct ter_journal_config){
				      .exec = fs->env.exec, .sb = &fs->sb, .members = fs->members,
				      .region = fs->journal_region.base, .region_bytes = fs->journal_region.bytes,
				      .get_roots = get_roots, .get_roots_arg = fs, .get_clock = get_clock, .get_clock_arg = fs,
				      .on_error = ter_super_on_journal_error, .on_degraded = ter_super_on_degraded, .on_arg = fs,
				      .replay = replay,
			      }, next_seq, &fs->journal, error);
	if (r < 0)
		return ter_fail_errno(error, r, "The journal cannot be started: %s.", strerror(-r));
	/* Every commit writes from here, in one part. Data goes out in many parts, which pinned memory does not help. */
	(void)ter_io_register_region(fs->env.io, fs->journal_region.base, fs->journal_region.bytes);
	ter_btrees_set_journal(fs->btrees, fs->journal);
	ter_alloc_set_journal(fs->alloc, fs->journal);
	ter_data_set_journal(fs->data, fs->journal);
	/* Of a pool in use, writers come in when all that they need runs. */
	ter_vfs_set_journal(fs->vfs, fs->journal, fs->state == TER_FS_RUNNING);
	return 0;
}

/* Those that do not run. */
static int start_tasks(struct ter_fs *fs, struct ter_error *error)
{
	int r;

	r = fs->btrees_run ? 0 : ter_btrees_start(fs->btrees);
	if (r < 0)
		return ter_fail_errno(error, r, "The btrees' tasks cannot be started: %s.", strerror(-r));
	fs->btrees_run = true;
	r = fs->alloc_run ? 0 : ter_alloc_start(fs->alloc);
	if (r < 0)
		return ter_fail_errno(error, r, "The allocator's task cannot be started: %s.", strerror(-r));
	fs->alloc_run = true;
	r = fs->data_run ? 0 : ter_data_start(fs->data);
	if (r < 0)
		return ter_fail_errno(error, r, "The write-back tasks cannot be started: %s.", strerror(-r));
	fs->data_run = true;
	return 0;
}

static int init_fresh(struct ter_fs *fs, struct ter_error *error)
{
	int r;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		if (!fs->members->dev[i].used)
			continue;
		r = ter_alloc_init_member(fs->alloc, i);
		if (r < 0)
			return ter_fail_errno(error, r, "Member %u cannot be set up: %s.", i, strerror(-r));
	}
	r = ter_vfs_format(fs->vfs);
	return r < 0 ? ter_fail_errno(error, r, "The root directory cannot be made: %s.", strerror(-r)) : 0;
}

int ter_super_go_read_write(struct ter_fs *fs, const struct ter_journal_replay *replay, uint64_t next_seq, struct ter_error *error)
{
	int r;

	blacklist(fs, replay);
	r = mark_dirty(fs, error); /* L3 */
	if (r < 0)
		return ter_fail_errno(error, r, "The superblock cannot be written: %s.", strerror(-r));
	r = fail_on_request(&fault_read_write, error);
	if (r < 0)
		return r;
	r = start_journal(fs, replay, next_seq, error);
	if (r < 0)
		return r;
	ter_journal_want_roots(fs->journal);
	if (replay)
		ter_btrees_replay_done(fs->btrees, replay->entry[0].seq);
	if (fs->guarded) {
		r = ter_alloc_repair_begin(fs->alloc); /* what free space says may be wrong: nothing is given out by it */
		if (r < 0)
			return ter_fail_errno(error, r, "The allocator cannot be made ready for repair: %s.", strerror(-r));
	}
	r = start_tasks(fs, error);
	if (r < 0)
		return r;
	if (replay)
		ter_journal_replay_done(fs->journal);
	return fs->format ? init_fresh(fs, error) : 0;
}

int ter_fs_start(struct ter_fs *fs, const struct ter_job_ctl *job, struct ter_error *error)
{
	int r;

	ter_lock_acquire(&fs->life);
	if (fs->state != TER_FS_OPENED) {
		ter_lock_release(&fs->life);
		return ter_fail(error, TER_ERR_ALREADY_RUNNING, "The filesystem was started already.");
	}
	ter_super_set_state(fs, TER_FS_STARTING, TER_ACCESS_NONE);
	r = fail_on_request(&fault_start, error);
	if (r >= 0)
		r = ter_super_recover(fs, job, error);
	if (r < 0)
		ter_super_set_state(fs, TER_FS_FAILED, TER_ACCESS_NONE);
	else
		ter_super_set_state(fs, TER_FS_RUNNING, fs->read_only ? TER_ACCESS_RO : TER_ACCESS_RW);
	if (r >= 0 && atomic_load(&fs->found_running))
		ter_super_queue_note(fs); /* by the start itself */
	ter_lock_release(&fs->life);
	return r;
}

/* --- stop --- */

/* L4: nothing dirty is left, twice in a row. 1: it did not settle (tiny nodes, whose writing always dirties another); what is left stands in the journal. */
static int flush_everything(struct ter_fs *fs)
{
	unsigned idle = 0;
	int r;

	for (unsigned pass = 0; pass < FLUSH_PASSES_MAX && idle < 2; pass++) {
		r = ter_data_flush_all(fs->data);
		if (r < 0)
			return r;
		r = ter_vfs_write_inodes(fs->vfs);
		if (r < 0)
			return r;
		r = ter_btrees_flush(fs->btrees);
		if (r < 0)
			return r;
		idle = r == 0 ? idle + 1 : 0;
	}
	return idle >= 2 ? 0 : 1;
}

static int write_clean_section(struct ter_fs *fs, uint64_t last_seq, struct ter_error *error)
{
	struct ter_root roots[TER_BTREE_ROOTS_MAX] = { 0 };
	const unsigned nr = ter_btrees_get_roots(fs->btrees, roots, TER_BTREE_ROOTS_MAX);
	struct ter_sb *sb = fs->sb.sb;
	int r;

	ter_lock_acquire(&fs->sb.lock);
	memset(sb->roots, 0, sizeof(sb->roots));
	for (unsigned i = 0; i < nr; i++)
		sb->roots[i] = roots[i];
	sb->journal_seq_clean = last_seq;
	sb->next_node_seq = ter_btrees_next_node_seq(fs->btrees);
	sb->next_inum = ter_vfs_next_inum(fs->vfs);
	sb->clean = true;
	sb->initialized = true;
	ter_lock_release(&fs->sb.lock);
	r = ter_sb_write(&fs->sb, error);
	if (r < 0) {
		ter_lock_acquire(&fs->sb.lock);
		sb->clean = false; /* as it stands on the members */
		ter_lock_release(&fs->sb.lock);
	}
	return r;
}

static void flush_members(struct ter_fs *fs)
{
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_dev *dev = &fs->members->dev[i];

		if (dev->used && ter_dev_writable(dev))
			(void)ter_dev_flush(dev); /* counted there; a member that fails is seen as degraded at the next open */
	}
}

/* Everything is durable in the journal, and the superblock goes on saying "not clean": the next start replays it. */
static int stop_with_journal(struct ter_fs *fs, struct ter_error *error)
{
	const int r = ter_journal_flush(fs->journal, ter_journal_open_seq(fs->journal));

	if (r < 0)
		return ter_fail_errno(error, r, "The journal cannot be closed: %s.", strerror(-r));
	ter_journal_halt(fs->journal, -ESHUTDOWN);
	if (fs->sb.sb->initialized && !fs->sb.sb->passes_required && !fs->sb.sb->passes_unfixed)
		return 0;
	ter_lock_acquire(&fs->sb.lock);
	fs->sb.sb->initialized = true;
	ter_lock_release(&fs->sb.lock);
	return ter_sb_write(&fs->sb, error);
}

static int stop_clean(struct ter_fs *fs, struct ter_error *error)
{
	uint64_t last_seq;
	int r;

	ter_vfs_close_writes(fs->vfs); /* new writers get EROFS; those inside finish, and so does reaping */
	r = flush_everything(fs);
	if (r < 0)
		return ter_fail_errno(error, r, "What is in memory cannot be written: %s.", strerror(-r));
	ter_data_stop(fs->data);
	fs->data_run = false;
	ter_alloc_stop(fs->alloc);
	fs->alloc_run = false;
	r = flush_everything(fs); /* what the allocator's last work dirtied */
	if (r < 0)
		return ter_fail_errno(error, r, "What is in memory cannot be written: %s.", strerror(-r));
	ter_btrees_stop(fs->btrees);
	fs->btrees_run = false;
	ter_workq_drain(fs->wq);
	/* What was found damaged and not repaired is checked before the next writing; until then nothing is called clean (passes.h, A1). */
	(void)ter_super_note_running_errors(fs); /* what is written below has the bits */
	if (r == 1 || fs->sb.sb->passes_required || fs->sb.sb->passes_unfixed)
		return stop_with_journal(fs, error);
	r = ter_journal_stop(fs->journal, &last_seq);
	if (r < 0)
		return ter_fail_errno(error, r, "The journal cannot be closed: %s.", strerror(-r));
	flush_members(fs);
	r = write_clean_section(fs, last_seq, error);
	return r < 0 ? ter_fail_errno(error, r, "The superblock cannot be written: %s.", strerror(-r)) : 0;
}

int ter_super_end_writing(struct ter_fs *fs, struct ter_error *error)
{
	const int r = stop_clean(fs, error);

	if (r >= 0)
		ter_vfs_closed(fs->vfs);
	return r;
}

static void halt_tasks(struct ter_fs *fs)
{
	uint64_t seq;

	if (fs->journal) {
		ter_journal_halt(fs->journal, -ESHUTDOWN);
		/* Its reclaim may be at work in the rooms below: it ends while they, and their tasks, are there. */
		(void)ter_journal_stop(fs->journal, &seq);
	}
	if (fs->data_run)
		ter_data_stop(fs->data);
	if (fs->alloc_run)
		ter_alloc_stop(fs->alloc);
	if (fs->btrees_run)
		ter_btrees_stop(fs->btrees);
	fs->data_run = fs->alloc_run = fs->btrees_run = false;
}

static void free_rooms(struct ter_fs *fs)
{
	/* Nobody reaps any more; what is dirty (replayed by a read-only start, or halted) goes while its inodes are there. */
	if (fs->vfs)
		ter_vfs_set_journal(fs->vfs, NULL, true);
	ter_data_free(TAKE_PTR(fs->data));
	ter_vfs_free(TAKE_PTR(fs->vfs));
	ter_alloc_free(TAKE_PTR(fs->alloc));
	ter_btrees_free(TAKE_PTR(fs->btrees));
	ter_journal_free(TAKE_PTR(fs->journal));
	ter_workq_free(TAKE_PTR(fs->wq)); /* those above may have told of damage until now */
	region_put(fs, &fs->data_region);
	region_put(fs, &fs->journal_region);
}

int ter_fs_stop(struct ter_fs *fs, struct ter_error *error)
{
	int r = 0;

	ter_lock_acquire(&fs->life);
	if (fs->state == TER_FS_RUNNING) {
		ter_super_set_state(fs, TER_FS_STOPPING, fs->access);
		if (fs->access == TER_ACCESS_RW && !fs->emergency)
			r = fail_on_request(&fault_stop, error);
		if (r >= 0 && fs->access == TER_ACCESS_RW && !fs->emergency)
			r = stop_clean(fs, error);
		if (r >= 0 && fs->vfs)
			ter_vfs_closed(fs->vfs);
		else if (fs->vfs)
			ter_vfs_refuse_writes(fs->vfs); /* a sync that waits is told that it was not */
	}
	if (fs->state != TER_FS_STOPPED) {
		if (fs->wq)
			ter_workq_drain(fs->wq);
		halt_tasks(fs);
		ter_super_set_state(fs, r < 0 ? TER_FS_FAILED : TER_FS_STOPPED, TER_ACCESS_NONE);
	}
	ter_lock_release(&fs->life);
	return r;
}

void ter_fs_close(struct ter_fs *fs)
{
	if (!fs)
		return;
	(void)ter_fs_stop(fs, NULL); /* who wants to know calls stop first */
	free_rooms(fs);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++)
		ter_bdev_close(TAKE_PTR(fs->members->dev[i].bdev));
	ter_sb_free(fs->sb.sb);
	free(fs->members);
	ter_lock_destroy(&fs->sb.lock);
	ter_lock_destroy(&fs->sb.write_lock);
	ter_super_forget_late(fs);
	ter_lock_destroy(&fs->status);
	ter_lock_destroy(&fs->life);
	free(fs);
}

int ter_fs_sync(struct ter_fs *fs)
{
	if (fs->access == TER_ACCESS_RO)
		return 0;
	if (fs->emergency)
		return -EROFS;
	return fs->state == TER_FS_RUNNING ? ter_vfs_sync(fs->vfs) : -EINVAL;
}

/* --- read-only and back: everything is written and the superblock says clean, the rooms stay for reading; then as at start, without replay --- */

static void drop_journal(struct ter_fs *fs)
{
	ter_btrees_set_journal(fs->btrees, NULL);
	ter_alloc_set_journal(fs->alloc, NULL);
	ter_data_set_journal(fs->data, NULL);
	ter_vfs_set_journal(fs->vfs, NULL, true);
	ter_journal_free(TAKE_PTR(fs->journal));
	region_put(fs, &fs->journal_region);
}

/* A way to read-only that failed is gone back, as far as the journal still runs. */
static void stay_read_write(struct ter_fs *fs)
{
	if (fs->emergency)
		return; /* the journal failed, and has said so */
	if (ter_journal_stopped(fs->journal) || start_tasks(fs, NULL) < 0) {
		ter_fs_emergency(fs, "Going read-only failed half-way. What was acknowledged is safe. Stop it and start it again.");
		return;
	}
	ter_vfs_set_journal(fs->vfs, fs->journal, false);
}

static int to_read_only(struct ter_fs *fs, struct ter_error *error)
{
	int r;

	r = fail_on_request(&fault_read_only, error);
	if (r < 0)
		return r;
	r = stop_clean(fs, error);
	if (r < 0) {
		stay_read_write(fs);
		return r;
	}
	ter_vfs_closed(fs->vfs);
	fs->read_only = true;
	ter_super_set_state(fs, TER_FS_RUNNING, TER_ACCESS_RO);
	return 0;
}

/* A way to read-write that failed: nothing was written but the superblock, which may be written again; or else. */
static void stay_read_only(struct ter_fs *fs)
{
	if (fs->emergency)
		return;
	if (fs->journal) {
		ter_fs_emergency(fs, "Going read-write failed half-way. Stop it and start it again.");
		halt_tasks(fs);
		return;
	}
	ter_lock_acquire(&fs->sb.lock);
	fs->sb.sb->clean = true; /* the roots in it are those of now */
	ter_lock_release(&fs->sb.lock);
}

static int to_read_write(struct ter_fs *fs, struct ter_error *error)
{
	const uint64_t next_seq = fs->sb.sb->journal_seq_clean + 1;
	int r;

	if (fs->sb.sb->passes_required || fs->sb.sb->passes_unfixed)
		return ter_fail(error, TER_ERR_FSCK_REQUIRED, "%s", fs->why_read_only[0] ? fs->why_read_only :
				"Errors were found and not repaired. Stop it, and repair it: terracectl fsck --repair");
	if (!fs->sb.sb->clean)
		return ter_fail(error, TER_ERR_NOT_SUPPORTED,
				"The filesystem was started read-only after a crash. Stop it and start it again to write to it.");
	if (fs->opened_read_only)
		return ter_fail(error, TER_ERR_NOT_SUPPORTED,
				"The filesystem's members were opened read-only. Stop it and start it again to write to it.");
	drop_journal(fs);
	r = ter_super_go_read_write(fs, NULL, next_seq, error);
	if (r >= 0) {
		r = ter_vfs_reap_orphans(fs->vfs);
		if (r < 0)
			ter_fail_errno(error, r, "Deleted files left by the last run cannot be removed: %s.", strerror(-r));
	}
	if (r < 0) {
		stay_read_only(fs);
		return r;
	}
	ter_vfs_set_journal(fs->vfs, fs->journal, false);
	fs->read_only = false;
	ter_super_set_state(fs, TER_FS_RUNNING, TER_ACCESS_RW);
	return 0;
}

int ter_fs_set_read_only(struct ter_fs *fs, bool read_only, struct ter_error *error)
{
	int r = 0;

	ter_lock_acquire(&fs->life);
	if (fs->state != TER_FS_RUNNING)
		r = ter_fail(error, TER_ERR_WRONG_STATE, "The filesystem is not running.");
	else if (fs->emergency)
		r = read_only ? 0 : ter_fail(error, TER_ERR_EMERGENCY_READ_ONLY,
					     "The filesystem went read-only after an error: %s Stop it, check it, and start it again.",
					     fs->emergency_reason);
	else if (read_only && fs->access == TER_ACCESS_RW)
		r = to_read_only(fs, error);
	else if (!read_only && fs->access == TER_ACCESS_RO)
		r = to_read_write(fs, error);
	ter_lock_release(&fs->life);
	return r;
}

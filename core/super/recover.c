/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recovery of one start: the passes of recovery/passes.h, what each does here, and whether the pool may be written to afterwards
 *
 * A check that a bit of the superblock asks for looks at what was replayed in memory: nothing was written yet. When it finds errors, option `errors` decides: fix_safe goes read-write for the
 * repairs that lose nothing, and stays so if nothing is left; otherwise the pool stays read-only.
 */
#include <stdio.h>

#include "alloc/alloc_repair.h"
#include "recovery/recovery.h"
#include "recovery/repair_ptrs.h"
#include "super/super_priv.h"
#include "util/fault.h"
#include "util/mem.h"

TER_FAULT_POINT(fault_recovered, "super.recovered", EIO, "the end of recovery, before anything is written")

struct start {
	struct ter_fs *fs;
	const struct ter_job_ctl *job;
	struct ter_recovery_numbers numbers;
	struct ter_journal_replay *replay; /* NULL after a clean stop */
	struct ter_recovery_keys *keys;
	uint64_t next_seq;
	uint64_t start_ns;
};

static uint64_t checks(void)
{
	return ter_passes_with(TER_PASS_FSCK);
}

struct ter_fsck_config ter_super_fsck_config(struct ter_fs *fs)
{
	return (struct ter_fsck_config){
		.sb = &fs->sb, .members = fs->members, .btrees = fs->btrees, .alloc = fs->alloc, .data = fs->data, .vfs = fs->vfs,
		.memory_bytes = fs->fsck_memory ? fs->fsck_memory : ter_min(fs->sb.sb->options.fsck_memory, fs->fsck_memory_most),
	};
}

/* --- passes --- */

/* Nobody can tell whether the journal goes on where it cannot be read; who repairs may say that it does not. @r: what reading it said. */
static int end_journal(struct start *s, int r, struct ter_error *error)
{
	struct ter_fs *fs = s->fs;
	struct ter_journal_replay *replay;
	int want = 1;

	if (ter_journal_read_to_newest(fs->env.exec, fs->sb.sb, fs->members, &replay, NULL) < 0)
		return r;
	if (replay->unread_dev >= 0)
		want = ter_repair_want(fs->repair, "journal", "The journal on %s cannot be read behind entry %llu, the newest that is found: it is taken to end there. What was "
				       "acknowledged later, if anything was, is lost.", fs->members->dev[replay->unread_dev].bdev->path,
				       (unsigned long long)(replay->nr ? replay->entry[replay->nr - 1].seq : 0));
	if (want <= 0) {
		ter_journal_replay_free(replay);
		return want < 0 ? want : r;
	}
	ter_error_clear(error);
	s->replay = replay;
	return 0;
}

static int read_journal(struct start *s, struct ter_error *error)
{
	struct ter_fs *fs = s->fs;
	int r;

	r = ter_journal_read(fs->env.exec, fs->sb.sb, fs->members, &s->replay, error);
	if (r < 0 && fs->repair)
		r = end_journal(s, r, error);
	if (r < 0)
		return ter_fail_errno(error, r, "The journal cannot be read: %s.", strerror(-r));
	if (!s->replay->nr)
		return ter_fail(error, TER_ERR_CORRUPTED, "The filesystem was not stopped cleanly, and no member has a journal entry that is valid.");
	s->next_seq = s->replay->next_seq;
	return ter_recovery_read_clock(s->replay, &s->numbers, error);
}

static int set_clean_roots(struct ter_fs *fs, struct ter_error *error)
{
	const struct ter_sb *sb = fs->sb.sb;
	int r;

	for (unsigned i = 0; i < TER_BTREE_ROOTS_MAX; i++) {
		if (!sb->roots[i].present)
			continue;
		r = ter_btrees_set_root(fs->btrees, &sb->roots[i]);
		if (r < 0)
			return ter_fail_errno(error, r, "The superblock's root of btree %u is not usable.", sb->roots[i].btree);
	}
	ter_btrees_read_roots(fs->btrees);
	return 0;
}

static int find_roots(struct start *s, struct ter_error *error)
{
	int r;

	r = ter_super_build_rooms(s->fs, &s->numbers, error);
	if (r < 0 || s->fs->format)
		return r;
	ter_btrees_set_seq_max(s->fs->btrees, s->next_seq - 1);
	if (s->replay)
		return ter_recovery_replay_roots(s->fs->btrees, s->replay, &s->numbers, &s->keys, error);
	return set_clean_roots(s->fs, error);
}

/* --- replay into what is damaged: a repair goes on, and does it again when nodes are whole --- */

static int keep_key(void *arg, unsigned btree, unsigned level, const struct ter_key_disk *key)
{
	const uint32_t bytes = ter_key_disk_bytes(ter_le32_get(key->val_bytes));
	struct ter_super_late_key *late;
	struct ter_fs *fs = arg;

	if (level)
		return 0; /* where nodes are is found out by looking at them */
	late = ter_malloc(sizeof(*late) + bytes); /* as many as the journal holds */
	if (!late)
		return -ENOMEM;
	late->btree = (enum ter_btree_id)btree;
	memcpy(late->key, key, bytes);
	ter_list_add_tail(&fs->late_keys, &late->link);
	return 0;
}

static void on_lost_data(void *arg, uint64_t inum, int r)
{
	ter_super_event(arg, TER_EVENT_DAMAGE, -1, inum, r, "The newest data of inode %llu is in the journal, but the inode cannot be read: it is lost.",
			(unsigned long long)inum);
}

static int replay_keys(struct start *s, unsigned least_level, struct ter_error *error)
{
	return ter_recovery_replay_keys(s->fs->btrees, s->keys, least_level, s->fs->repairing ? keep_key : NULL, s->fs, error);
}

static int late_fn(struct ter_trans *trans, void *arg)
{
	const struct ter_super_late_key *late = arg;
	struct ter_key key;

	ter_key_decode((const struct ter_key_disk *)late->key, &key);
	return ter_trans_update(trans, late->btree, key.pos, TER_KEY_ANY, key.type == TER_KEY_DELETED ? NULL : &key);
}

int ter_super_replay_late(struct ter_fs *fs)
{
	while (!ter_list_empty(&fs->late_keys)) {
		struct ter_super_late_key *late = ter_list_first(&fs->late_keys, struct ter_super_late_key, link);
		int r;

		r = ter_trans_run(fs->btrees, 0, late_fn, late, NULL);
		if (r < 0)
			return r;
		ter_list_del(&late->link);
		free(late);
	}
	return 0;
}

void ter_super_forget_late(struct ter_fs *fs)
{
	while (!ter_list_empty(&fs->late_keys)) {
		struct ter_super_late_key *late = ter_list_first(&fs->late_keys, struct ter_super_late_key, link);

		ter_list_del(&late->link);
		free(late);
	}
}

static int load_counters(struct ter_fs *fs, struct ter_error *error)
{
	const int r = ter_alloc_load(fs->alloc);

	/* A repair reads them again when they can be read. */
	return r < 0 && !fs->repairing ? ter_fail_errno(error, r, "The counters of space cannot be read: %s.", strerror(-r)) : 0;
}

static void on_found(void *arg, const char *pass, const char *sentence)
{
	struct ter_fs *fs = arg;

	(void)pass;
	ter_super_event(fs, TER_EVENT_DAMAGE, -1, 0, -EUCLEAN, "%s", sentence);
}

#define FOUND_TOLD_MAX 10

struct told {
	struct ter_fs *fs;
	unsigned nr;
};

static void on_found_some(void *arg, const char *pass, const char *sentence)
{
	struct told *told = arg;

	if (told->nr++ < FOUND_TOLD_MAX)
		on_found(told->fs, pass, sentence);
}

static int64_t check(struct start *s, uint64_t pass)
{
	struct ter_fsck_config config = ter_super_fsck_config(s->fs);
	struct told told = { s->fs, 0 };

	config.passes = pass;
	return ter_fsck_run(&config, on_found_some, &told, s->job ? s->job->step : NULL, s->job ? s->job->arg : NULL);
}

static int64_t run_pass(void *arg, enum ter_pass_id id, struct ter_error *error)
{
	struct start *s = arg;
	struct ter_fs *fs = s->fs;
	int64_t r;

	switch (id) {
	case TER_PASS_SUPERBLOCK:
		s->next_seq = fs->sb.sb->journal_seq_clean + 1;
		return 0;
	case TER_PASS_JOURNAL:
		return read_journal(s, error);
	case TER_PASS_ROOTS:
		return find_roots(s, error);
	case TER_PASS_INTERIOR:
		return replay_keys(s, 1, error);
	case TER_PASS_LEAVES:
		return replay_keys(s, 0, error);
	case TER_PASS_DATA:
		return ter_recovery_replay_data(fs->vfs, fs->data, s->replay, &s->numbers, fs->repairing ? on_lost_data : NULL, fs, error);
	case TER_PASS_COUNTERS:
		return load_counters(fs, error);
	case TER_PASS_NODES:
	case TER_PASS_SPACE:
	case TER_PASS_POINTERS:
	case TER_PASS_FILES:
		r = check(s, 1ull << id);
		return r < 0 ? ter_fail_errno(error, (int)r, "What is stored cannot be checked: %s.", strerror((int)-r)) : r;
	case TER_PASS_ORPHANS:
		r = ter_vfs_reap_orphans(fs->vfs);
		return r < 0 ? ter_fail_errno(error, (int)r, "Deleted files left by the last run cannot be removed: %s.", strerror((int)-r)) : 0;
	case TER_PASS_NR:
		break;
	}
	return ter_fail_errno(error, -EINVAL, "There is no recovery pass %u.", id);
}

static void pass_changed(void *arg, enum ter_pass_id id, const struct ter_pass_row *row)
{
	struct start *s = arg;

	ter_lock_acquire(&s->fs->status);
	s->fs->pass[id] = *row;
	ter_lock_release(&s->fs->status);
}

static uint64_t now_ns(void *arg)
{
	struct start *s = arg;

	return ter_mono_ns(s->fs->env.exec);
}

/* --- what errors mean --- */

void ter_super_note_passes(struct ter_fs *fs, uint64_t checked, uint64_t found)
{
	struct ter_sb *sb = fs->sb.sb;

	ter_lock_acquire(&fs->sb.lock);
	sb->passes_required = (sb->passes_required & ~checked) | found;
	sb->passes_unfixed = (sb->passes_unfixed & ~checked) | found;
	ter_lock_release(&fs->sb.lock);
}

/* A node that was damaged while the pool ran: all that is checked may depend on it. */
bool ter_super_note_running_errors(struct ter_fs *fs)
{
	bool news;

	if (!atomic_exchange(&fs->found_running, false))
		return false;
	ter_lock_acquire(&fs->sb.lock);
	news = (fs->sb.sb->passes_required & checks()) != checks();
	fs->sb.sb->passes_required |= checks();
	ter_lock_release(&fs->sb.lock);
	return news;
}

void ter_super_queue_note(struct ter_fs *fs)
{
	if (fs->wq && !atomic_exchange(&fs->note_queued, true))
		ter_workq_add(fs->wq, &fs->note_work);
}

/*
 * The bits are brought to the members when damage is met, not at a stop that may never be. Only by a pool that runs read-write, or did until this damage ended it (L5: the superblock is the
 * last thing that is written). What cannot be written stays in memory, for the next time.
 */
void ter_super_note_work(struct ter_work *work)
{
	struct ter_fs *fs = ter_container_of(work, struct ter_fs, note_work);
	enum ter_access access;

	atomic_store(&fs->note_queued, false);
	ter_lock_acquire(&fs->status);
	access = fs->access;
	ter_lock_release(&fs->status);
	if ((access == TER_ACCESS_RW || access == TER_ACCESS_EMERGENCY_RO) && !fs->read_only && !fs->repairing && ter_super_note_running_errors(fs))
		(void)ter_sb_write(&fs->sb, NULL); /* a member that fails is told of where it fails */
	if (atomic_load(&fs->emergency))
		fs->sb.emergency = true;
}

static void stay_read_only(struct ter_fs *fs)
{
	char passes[128];

	fs->read_only = true;
	ter_vfs_set_journal(fs->vfs, fs->journal, true);
	ter_lock_acquire(&fs->status);
	snprintf(fs->why_read_only, sizeof(fs->why_read_only),
		 "It is read-only because errors were found and not repaired (%s). To repair it, stop it and run: terracectl fsck --repair %s",
		 ter_passes_text(fs->sb.sb->passes_required | fs->sb.sb->passes_unfixed, passes, sizeof(passes)),
		 fs->sb.sb->label[0] ? fs->sb.sb->label : "NAME");
	ter_lock_release(&fs->status);
	ter_super_event(fs, TER_EVENT_DAMAGE, -1, 0, -EUCLEAN, "%s", fs->why_read_only);
}

static uint64_t bits(const struct ter_fs *fs)
{
	return fs->sb.sb->passes_required | fs->sb.sb->passes_unfixed;
}

/* The bits, written where a read-only start may write nothing else: the members were opened for writing. */
static int write_bits(struct ter_fs *fs, uint64_t before_required, uint64_t before_unfixed, struct ter_error *error)
{
	if (fs->opened_read_only || (fs->sb.sb->passes_required == before_required && fs->sb.sb->passes_unfixed == before_unfixed))
		return 0;
	return ter_sb_write(&fs->sb, error);
}

/* Safe repairs of a pool that has just gone read-write. 0 also when something is left: the bits say so. */
static int fix_safe(struct start *s, struct ter_error *error)
{
	struct ter_fsck_config config = ter_super_fsck_config(s->fs);
	struct ter_repair repair = { .step = s->job ? s->job->step : NULL, .arg = s->job ? s->job->arg : NULL, .memory_bytes = config.memory_bytes };
	uint64_t found = 0;
	int64_t r;

	r = ter_repair_space(&config, &repair);
	if (r < 0 && r != -EUCLEAN)
		return ter_fail_errno(error, (int)r, "Free space cannot be repaired: %s.", strerror((int)-r));
	for (const struct ter_pass *p = ter_passes; p->name; p++) {
		if (!(p->flags & TER_PASS_FSCK))
			continue;
		r = check(s, 1ull << p->id);
		if (r < 0)
			return ter_fail_errno(error, (int)r, "What is stored cannot be checked: %s.", strerror((int)-r));
		found |= r ? 1ull << p->id : 0;
	}
	ter_super_note_passes(s->fs, checks(), found);
	if (found)
		return 0;
	ter_super_event(s->fs, TER_EVENT_DAMAGE, -1, 0, 0, "Errors in the accounting of space were repaired (%llu changes).",
			(unsigned long long)repair.done_nr);
	return ter_sb_write(&s->fs->sb, error);
}

/* --- the whole --- */

static void note_recovery(struct start *s)
{
	const double seconds = (double)(ter_mono_ns(s->fs->env.exec) - s->start_ns) / 1e9;
	const struct ter_recovery_numbers *n = &s->numbers;
	struct ter_fs *fs = s->fs;

	ter_lock_acquire(&fs->status);
	if (s->replay)
		snprintf(fs->recovery, sizeof(fs->recovery), "replayed %llu journal entries (%llu keys, %.1f MiB) in %.2f s",
			 (unsigned long long)n->entries, (unsigned long long)n->keys, (double)n->bytes / (1 << 20), seconds);
	else
		snprintf(fs->recovery, sizeof(fs->recovery), "was stopped cleanly");
	ter_lock_release(&fs->status);
}

static int replay(struct start *s, struct ter_pass_run *run, uint64_t todo, struct ter_error *error)
{
	const uint64_t before_rooms = TER_PASS_BIT(SUPERBLOCK) | TER_PASS_BIT(JOURNAL) | TER_PASS_BIT(ROOTS) | TER_PASS_BIT(INTERIOR) | TER_PASS_BIT(LEAVES);
	int r;

	r = ter_passes_run(run, todo & before_rooms, NULL, error);
	if (r >= 0)
		r = ter_super_build_upper_rooms(s->fs, &s->numbers, error);
	if (r >= 0)
		r = ter_passes_run(run, todo & (TER_PASS_BIT(DATA) | TER_PASS_BIT(COUNTERS)), NULL, error);
	if (r >= 0 && TER_FAULT(fault_recovered) < 0)
		r = ter_fail(error, TER_ERR_FAULT_INJECTED, "A test asked for the failure of %s.", fault_recovered.help);
	return r;
}

/* *ret_fix: go read-write, for safe repairs. */
static int check_before_writing(struct start *s, struct ter_pass_run *run, uint64_t todo, bool *ret_fix, struct ter_error *error)
{
	struct ter_fs *fs = s->fs;
	const uint64_t required = fs->sb.sb->passes_required, unfixed = fs->sb.sb->passes_unfixed;
	const uint64_t safe = ter_passes_with(TER_PASS_SAFE);
	uint64_t found = 0;
	int r;

	*ret_fix = false;
	r = ter_passes_run(run, todo & checks(), &found, error);
	if (r < 0)
		return r;
	ter_super_note_passes(fs, todo & checks(), found);
	if (!bits(fs) || fs->read_only || fs->repairing)
		return write_bits(fs, required, unfixed, error);
	if (fs->sb.sb->options.errors == TER_ERRORS_FIX_SAFE && !(bits(fs) & ~safe)) {
		*ret_fix = true;
		return 0;
	}
	stay_read_only(fs);
	return write_bits(fs, required, unfixed, error);
}

static int go_read_write(struct start *s, struct ter_pass_run *run, uint64_t todo, bool fix, struct ter_error *error)
{
	struct ter_fs *fs = s->fs;
	int r;

	run->step = NULL; /* the superblock says "not clean" from here on: a start that is cancelled now would leave it so */
	fs->guarded = fix || fs->repairing;
	r = ter_super_go_read_write(fs, s->replay, s->next_seq, error);
	if (r >= 0 && fix)
		r = fix_safe(s, error);
	if (r < 0 || !fix || !bits(fs))
		return r < 0 ? r : ter_passes_run(run, todo & TER_PASS_BIT(ORPHANS), NULL, error);
	stay_read_only(fs);
	return ter_super_end_writing(fs, error);
}

int ter_super_recover(struct ter_fs *fs, const struct ter_job_ctl *job, struct ter_error *error)
{
	struct start s = { .fs = fs, .job = job, .start_ns = ter_mono_ns(fs->env.exec) };
	struct ter_pass_run run = {
		.run = run_pass, .changed = pass_changed, .now_ns = now_ns, .arg = &s, .step = job ? job->step : NULL, .step_arg = job ? job->arg : NULL,
	};
	const bool unclean = !fs->sb.sb->clean && !fs->format;
	uint64_t todo = ter_passes_with(TER_PASS_ALWAYS) | (unclean ? ter_passes_with(TER_PASS_UNCLEAN) : 0);
	bool fix = false;
	int r;

	if (fs->check_first)
		todo |= checks();
	if (bits(fs) && !fs->repairing)
		todo |= checks(); /* all of them: what one is about may be the cause of another */
	if (fs->read_only || fs->format || fs->repairing)
		todo &= ~TER_PASS_BIT(ORPHANS);
	r = replay(&s, &run, todo, error);
	if (r >= 0)
		r = check_before_writing(&s, &run, todo, &fix, error);
	if (r >= 0 && !fs->read_only)
		r = go_read_write(&s, &run, todo, fix, error);
	note_recovery(&s);
	/* A read-only start keeps replayed keys in its cache only; their bytes were copied into nodes and the dirty buffer. */
	ter_recovery_keys_free(s.keys);
	ter_journal_replay_free(s.replay);
	return r < 0 ? ter_fail_errno(error, r, "The filesystem cannot be started: %s.", strerror(-r)) : 0;
}

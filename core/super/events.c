/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happens in a pool, told to whoever opened it, and remembered for status. */
#include <stdarg.h>
#include <stdio.h>

#include "super/super_priv.h"

#define EMERGENCY_TEXT "The filesystem went read-only to protect what it holds: %s"

const char *const ter_access_names[] = { "none", "rw", "ro", "emergency-ro" };

void ter_super_event(struct ter_fs *fs, enum ter_event_kind kind, int dev_idx, uint64_t inum, int err, const char *fmt, ...)
{
	char text[TER_ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);

	if (kind != TER_EVENT_STATE) {
		ter_lock_acquire(&fs->status);
		fs->errors++;
		snprintf(fs->last_error, sizeof(fs->last_error), "%s", text);
		ter_lock_release(&fs->status);
	}
	if (fs->on_event) {
		const struct ter_fs_event event = {
			.kind = kind, .dev_idx = dev_idx, .inum = inum, .err = err, .text = text,
		};

		fs->on_event(fs->event_arg, fs, &event);
	}
}

void ter_super_set_state(struct ter_fs *fs, enum ter_fs_state state, enum ter_access access)
{
	ter_lock_acquire(&fs->status);
	fs->state = state;
	fs->access = fs->emergency && access != TER_ACCESS_NONE ? TER_ACCESS_EMERGENCY_RO : access;
	access = fs->access;
	ter_lock_release(&fs->status);
	ter_super_event(fs, TER_EVENT_STATE, -1, 0, 0, "The filesystem is now %s.", ter_access_names[access]);
}

static const char *dev_path(const struct ter_dev *dev)
{
	return dev->bdev ? dev->bdev->path : "a missing member";
}

void ter_super_on_dev_error(void *arg, struct ter_dev *dev, enum ter_dev_errkind kind, int r)
{
	static const char *const what[TER_DEV_ERR_NR] = {
		[TER_DEV_ERR_READ] = "a read failed",
		[TER_DEV_ERR_WRITE] = "a write failed",
		[TER_DEV_ERR_CHECKSUM] = "data with a wrong checksum came back",
		[TER_DEV_ERR_FLUSH] = "a flush failed",
	};

	struct ter_fs *fs = arg;
	char text[TER_EVENT_TEXT_MAX];
	const char *advice = "If this repeats, replace the device.";

	if (r == -ENOSPC && dev->bdev && dev->bdev->info.is_file)
		advice = "Make room on the filesystem where this file lies, then sync.";
	snprintf(text, sizeof(text), "%s: %s (%s). %s", dev_path(dev), what[kind], strerror(-r), advice);
	ter_lock_acquire(&fs->status);
	memcpy(fs->last_dev_error, text, sizeof(text));
	ter_lock_release(&fs->status);
	ter_super_event(fs, TER_EVENT_DEVICE_ERROR, (int)dev->idx, 0, r, "%s", text);
}

/* L5. The first caller reports and halts the journal; what follows fails on its own. @note: the superblock is written once more, with what was found. */
static void emergency(struct ter_fs *fs, const char *reason, bool note)
{
	bool expected = false;

	if (!atomic_compare_exchange_strong(&fs->emergency, &expected, true))
		return;
	if (!note)
		fs->sb.emergency = true;
	if (fs->journal)
		ter_journal_halt(fs->journal, -EROFS);
	if (fs->vfs)
		ter_vfs_refuse_writes(fs->vfs); /* the journal goes on saying what stopped it */
	ter_lock_acquire(&fs->status);
	if (fs->access != TER_ACCESS_NONE)
		fs->access = TER_ACCESS_EMERGENCY_RO;
	snprintf(fs->emergency_reason, sizeof(fs->emergency_reason), EMERGENCY_TEXT, reason);
	ter_lock_release(&fs->status);
	ter_super_event(fs, TER_EVENT_EMERGENCY, -1, 0, -EROFS, EMERGENCY_TEXT, reason);
}

void ter_fs_emergency(struct ter_fs *fs, const char *reason)
{
	emergency(fs, reason, false);
}

/* Damage in metadata: what the pool does about it is the option `errors`. */
void ter_super_on_btree_error(void *arg, int r, const char *text)
{
	struct ter_fs *fs = arg;

	ter_super_event(fs, TER_EVENT_DAMAGE, -1, 0, r, "%s", text);
	atomic_store(&fs->found_running, true);
	if (fs->sb.sb->options.errors == TER_ERRORS_RO && !fs->repairing)
		emergency(fs, text, true);
	ter_super_queue_note(fs);
}

/* The journal's text says what it cannot do; the last device error before it is why. */
void ter_super_on_journal_error(void *arg, int r, const char *text)
{
	char why[TER_EVENT_TEXT_MAX], reason[2 * TER_EVENT_TEXT_MAX];
	struct ter_fs *fs = arg;

	(void)r; /* the text says it */
	ter_lock_acquire(&fs->status);
	snprintf(why, sizeof(why), "%s", fs->last_dev_error);
	ter_lock_release(&fs->status);
	snprintf(reason, sizeof(reason), "%s%s%s", text, why[0] ? " " : "", why);
	ter_fs_emergency(fs, reason);
}

void ter_super_on_degraded(void *arg, uint64_t seq, unsigned copies, unsigned wanted)
{
	ter_super_event(arg, TER_EVENT_DEGRADED_WRITE, -1, 0, 0, "Journal entry %llu was written to %u members instead of %u.",
			(unsigned long long)seq, copies, wanted);
}

void ter_super_on_damage(void *arg, unsigned dev_idx, uint64_t inum, uint64_t offset_bytes, bool repaired)
{
	struct ter_fs *fs = arg;
	const struct ter_dev *dev = ter_member(fs->members, dev_idx);

	ter_super_event(fs, TER_EVENT_DAMAGE, (int)dev_idx, inum, repaired ? 0 : -EIO,
			repaired ? "%s: damaged data of inode %llu at byte %llu; another copy was used." :
				   "%s: damaged data of inode %llu at byte %llu; no good copy is left there.",
			dev ? dev_path(dev) : "a missing member", (unsigned long long)inum, (unsigned long long)offset_bytes);
	if (!repaired && fs->vfs)
		ter_vfs_note_damage(fs->vfs, inum, offset_bytes);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing the superblock to all online members (S1 to S5 of sb.h).
 *
 * Members are worked on side by side: a step (read a copy, write a copy, flush) is submitted to all of them, then all are waited for.
 */
#include "sb/sb_format.h"
#include "util/fault.h"
#include "util/mem.h"

TER_FAULT_POINT(fault_write, "sb.write", EIO, "the writing of the superblock to all members")

struct target {
	struct ter_dev *dev;
	uint64_t offset_bytes[TER_SB_COPIES];
	uint64_t old_seen_seq;
	unsigned good;   /* bit per copy that is known to be valid on the device: old or new */
	unsigned landed; /* bit per copy that is new and flushed */
	unsigned order[TER_SB_COPIES]; /* in which the copies are written */
	void *buf;       /* TER_SB_BYTES_MAX */
	/* of the step in flight */
	struct ter_dev_bio dbio;
	struct ter_event event;
	bool taking_part;
	int r;
};

struct writer {
	struct ter_sb_handle *handle;
	struct ter_error *error;
	struct target *target;
	unsigned targets_nr;
	void *image;    /* the encoded superblock, for whichever member and copy it was last made */
	size_t bytes;   /* of it, rounded up to TER_SB_ALIGN */
	uint64_t seq;
};

/* --- steps --- */

static void step_done(struct ter_dev_bio *dbio)
{
	struct target *t = ter_container_of(dbio, struct target, dbio);

	ter_event_set(&t->event, dbio->bio.result);
}

static void submit_step(struct target *t, enum ter_bio_op op, uint64_t offset_bytes, size_t bytes)
{
	struct ter_bio *bio = &t->dbio.bio;

	t->dbio = (struct ter_dev_bio){ .done = step_done };
	bio->op = op;
	bio->offset_bytes = offset_bytes;
	bio->bytes = bytes;
	if (bytes) {
		bio->iov1 = (struct iovec){ .iov_base = t->buf, .iov_len = bytes };
		bio->iov = &bio->iov1;
		bio->iov_nr = 1;
	}
	ter_event_init(&t->event);
	ter_dev_submit(t->dev, &t->dbio);
}

/* Waits for those that take part; t->r is what came of it. */
static void wait_step(struct writer *w)
{
	for (unsigned i = 0; i < w->targets_nr; i++) {
		struct target *t = &w->target[i];

		if (!t->taking_part)
			continue;
		t->r = ter_event_wait(&t->event);
		ter_event_destroy(&t->event);
	}
}

/* --- what is there now (S2) --- */

static int enter_emergency(struct writer *w, const struct target *t, const char *what)
{
	ter_lock_acquire(&w->handle->lock);
	w->handle->emergency = true;
	ter_lock_release(&w->handle->lock);
	return ter_fail(w->error, TER_ERR_CORRUPTED, "%s: %s The pool is read-only until it is stopped and started again.", t->dev->bdev->path, what);
}

static int judge_copy(struct writer *w, struct target *t, unsigned idx, const struct ter_sb *found)
{
	const struct ter_sb *sb = w->handle->sb; /* uuid and seq change only under write_lock */
	bool known = t->dev->written_seq != 0;

	if (memcmp(found->uuid, sb->uuid, sizeof(sb->uuid)) != 0)
		return known ? enter_emergency(w, t, "another pool's superblock was found where this pool's should be.") : 0;
	if (found->seq > sb->seq)
		return enter_emergency(w, t, "somebody else has written a newer superblock.");
	if (idx == 0 && found->seq < t->dev->written_seq)
		return enter_emergency(w, t, "the device has lost a write of the superblock that it had confirmed.");
	t->good |= 1u << idx;
	return 0;
}

static int look_at_copy(struct writer *w, struct target *t, unsigned idx)
{
	_cleanup_free_ struct ter_members *members = NULL;
	struct ter_sb *found = NULL;
	unsigned dev_idx;
	int r;

	if (t->r < 0)
		return 0; /* counted by ter_dev_submit(); as bad as damaged */
	r = ter_sb_decode_at(t->buf, TER_SB_BYTES_MAX, t->offset_bytes[idx], &found, &members, &dev_idx, NULL);
	if (r == -ENOMEM)
		return ter_fail_errno(w->error, r, "There is not enough memory to write the superblock.");
	if (r == -EPROTONOSUPPORT && t->dev->written_seq)
		return enter_emergency(w, t, "another version of Terrace has written the superblock.");
	if (r < 0)
		return 0; /* S4: will be overwritten, first */
	r = judge_copy(w, t, idx, found);
	ter_sb_free(found);
	return r;
}

static int look_at_all(struct writer *w)
{
	int r;

	for (unsigned idx = 0; idx < TER_SB_COPIES; idx++) {
		for (unsigned i = 0; i < w->targets_nr; i++) {
			w->target[i].taking_part = true;
			submit_step(&w->target[i], TER_BIO_READ, w->target[i].offset_bytes[idx], TER_SB_BYTES_MAX);
		}
		wait_step(w);
		for (unsigned i = 0; i < w->targets_nr; i++) {
			r = look_at_copy(w, &w->target[i], idx);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* Bad copies first: while they are written, a good one stays. */
static void choose_order(struct target *t)
{
	unsigned nr = 0;

	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned idx = 0; idx < TER_SB_COPIES; idx++)
			if ((t->good >> idx & 1) == pass)
				t->order[nr++] = idx;
	assert(nr == TER_SB_COPIES);
}

/* --- making the copies --- */

/* Encodes under the lock, with a higher seq; on failure everything in memory is as before. @add may be NULL: a replicas entry to write, but not to show yet. */
static int encode_image(struct writer *w, const struct ter_replicas_entry *add)
{
	struct ter_sb_handle *handle = w->handle;
	struct ter_sb *sb = handle->sb;
	unsigned at = 0;
	bool added = false;
	int r = 0;

	ter_lock_acquire(&handle->lock);
	if (add && !ter_replicas_find(sb, add, &at)) {
		r = ter_sb_replicas_add(sb, add);
		added = r == 0;
	}
	if (r == 0) {
		w->seq = ++sb->seq;
		for (unsigned i = 0; i < w->targets_nr; i++)
			w->target[i].dev->seen_seq = w->seq;
		r = ter_sb_encode(sb, handle->members, w->target[0].dev->idx, w->image);
	}
	if (added) { /* S5: visible when it is durable */
		sb->replicas_nr--;
		memmove(&sb->replicas[at], &sb->replicas[at + 1], (sb->replicas_nr - at) * sizeof(*add));
	}
	ter_lock_release(&handle->lock);
	if (r < 0)
		return ter_fail_errno(w->error, r, "The superblock cannot take what is to be written to it.");
	w->bytes = ter_round_up((size_t)r, TER_SB_ALIGN);
	return 0;
}

static void take_back_seq(struct writer *w)
{
	ter_lock_acquire(&w->handle->lock);
	if (w->seq) {
		w->handle->sb->seq = w->seq - 1;
		for (unsigned i = 0; i < w->targets_nr; i++)
			w->target[i].dev->seen_seq = w->target[i].old_seen_seq;
	}
	ter_lock_release(&w->handle->lock);
}

/* S1: would each of them be read back? */
static int check_image(struct writer *w)
{
	for (unsigned i = 0; i < w->targets_nr; i++) {
		struct target *t = &w->target[i];

		for (unsigned idx = 0; idx < TER_SB_COPIES; idx++) {
			_cleanup_free_ struct ter_members *members = NULL;
			struct ter_error why = { 0 };
			struct ter_sb *sb = NULL;
			unsigned dev_idx;
			int r;

			ter_sb_retarget(w->image, t->dev->idx, t->offset_bytes[idx]);
			r = ter_sb_decode_at(w->image, TER_SB_BYTES_MAX, t->offset_bytes[idx], &sb, &members, &dev_idx, &why);
			if (r == -ENOMEM)
				return ter_fail_errno(w->error, r, "There is not enough memory to write the superblock.");
			if (r < 0) /* our own mistake, found before it did harm */
				return ter_fail(w->error, TER_ERR_INTERNAL, "A superblock that could not be read back was not written (%.500s)", why.text);
			ter_sb_free(sb);
		}
	}
	return 0;
}

/* --- writing --- */

/* May copy @idx be overwritten? Not when it is the last good one. */
static bool may_overwrite(const struct target *t, unsigned idx)
{
	return !(t->good >> idx & 1) || (t->good & ~(1u << idx));
}

static void write_round(struct writer *w, unsigned round)
{
	for (unsigned i = 0; i < w->targets_nr; i++) {
		struct target *t = &w->target[i];
		unsigned idx = t->order[round];

		t->taking_part = may_overwrite(t, idx);
		if (!t->taking_part)
			continue;
		t->good &= ~(1u << idx);
		ter_sb_retarget(w->image, t->dev->idx, t->offset_bytes[idx]);
		memcpy(t->buf, w->image, w->bytes);
		submit_step(t, TER_BIO_WRITE, t->offset_bytes[idx], w->bytes);
	}
	wait_step(w);
	for (unsigned i = 0; i < w->targets_nr; i++) {
		struct target *t = &w->target[i];

		t->taking_part = t->taking_part && t->r == 0;
		if (t->taking_part)
			submit_step(t, TER_BIO_FLUSH, 0, 0);
	}
	wait_step(w);
	for (unsigned i = 0; i < w->targets_nr; i++) {
		struct target *t = &w->target[i];

		if (t->taking_part && t->r == 0) {
			t->good |= 1u << t->order[round];
			t->landed |= 1u << t->order[round];
		}
	}
}

/* S3 */
static int conclude(struct writer *w)
{
	bool enough = false;

	ter_lock_acquire(&w->handle->lock);
	for (unsigned i = 0; i < w->targets_nr; i++) {
		struct target *t = &w->target[i];

		if (t->landed & 1)
			t->dev->written_seq = w->seq;
		enough |= t->landed && t->dev->state == TER_DEV_RW;
	}
	ter_lock_release(&w->handle->lock);
	if (!enough)
		return ter_fail(w->error, TER_ERR_IO, "The superblock could not be written to any member. See the error counters of the devices.");
	return 0;
}

/* --- the whole --- */

static void writer_clear(struct writer *w)
{
	for (unsigned i = 0; i < w->targets_nr; i++)
		free(w->target[i].buf);
	free(w->target);
	free(w->image);
}

static int add_target(struct writer *w, struct ter_dev *dev)
{
	struct target *t = &w->target[w->targets_nr];

	t->dev = dev;
	t->old_seen_seq = dev->seen_seq;
	ter_sb_copy_offsets(dev->bytes, t->offset_bytes);
	t->buf = ter_malloc_aligned(TER_SB_BYTES_MAX, TER_SB_ALIGN);
	if (!t->buf)
		return -ENOMEM;
	w->targets_nr++;
	return 0;
}

static int collect_targets(struct writer *w)
{
	struct ter_members *members = w->handle->members;
	int r;

	w->image = ter_malloc(TER_SB_BYTES_MAX);
	w->target = ter_new_array(struct target, TER_DEVS_MAX);
	r = w->image && w->target ? 0 : -ENOMEM;
	for (unsigned i = 0; r == 0 && i < TER_DEVS_MAX; i++)
		if (members->dev[i].used && ter_dev_online(&members->dev[i]))
			r = add_target(w, &members->dev[i]);
	if (r < 0)
		return ter_fail_errno(w->error, r, "There is not enough memory to write the superblock.");
	if (w->targets_nr == 0)
		return ter_fail(w->error, TER_ERR_IO, "The superblock cannot be written: no member is online.");
	return 0;
}

static int prepare(struct writer *w, const struct ter_replicas_entry *add)
{
	int r;

	r = collect_targets(w);
	if (r < 0)
		return r;
	r = look_at_all(w);
	if (r < 0)
		return r;
	r = encode_image(w, add);
	if (r == 0)
		r = check_image(w);
	if (r < 0)
		take_back_seq(w);
	return r;
}

/* write_lock held. */
static int write_locked(struct ter_sb_handle *handle, const struct ter_replicas_entry *add, struct ter_error *error)
{
	struct writer w = { .handle = handle, .error = error };
	bool emergency;
	int r;

	ter_lock_acquire(&handle->lock);
	emergency = handle->emergency;
	ter_lock_release(&handle->lock);
	if (emergency)
		return ter_fail(error, TER_ERR_EMERGENCY_READ_ONLY, "The superblock is not written: the pool is read-only after an error.");
	if (TER_FAULT(fault_write) < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "Writing the superblock failed because a test asked for it.");

	r = prepare(&w, add);
	if (r == 0) {
		for (unsigned i = 0; i < w.targets_nr; i++)
			choose_order(&w.target[i]);
		for (unsigned round = 0; round < TER_SB_COPIES; round++)
			write_round(&w, round);
		r = conclude(&w);
	}
	writer_clear(&w);
	return r;
}

int ter_sb_write(struct ter_sb_handle *handle, struct ter_error *error)
{
	int r;

	ter_lock_acquire(&handle->write_lock);
	r = write_locked(handle, NULL, error);
	ter_lock_release(&handle->write_lock);
	return r;
}

/* --- replicas --- */

static bool has_entry(struct ter_sb_handle *handle, const struct ter_replicas_entry *entry)
{
	bool has;

	ter_lock_acquire(&handle->lock);
	has = ter_sb_replicas_has(handle->sb, entry);
	ter_lock_release(&handle->lock);
	return has;
}

static int add_entry(struct ter_sb_handle *handle, const struct ter_replicas_entry *entry)
{
	int r;

	if (has_entry(handle, entry))
		return 0; /* somebody was faster */
	r = write_locked(handle, entry, NULL);
	if (r < 0)
		return r;
	ter_lock_acquire(&handle->lock);
	r = ter_sb_replicas_add(handle->sb, entry);
	ter_lock_release(&handle->lock);
	return r;
}

int ter_sb_replicas_ensure(struct ter_sb_handle *handle, const struct ter_replicas_entry *entry, bool nowait)
{
	int r;

	if (!ter_replicas_entry_valid(entry))
		return -EINVAL;
	if (has_entry(handle, entry)) /* what is in the table is durable */
		return 0;
	if (nowait)
		return -EAGAIN;
	ter_lock_acquire(&handle->write_lock);
	r = add_entry(handle, entry);
	ter_lock_release(&handle->write_lock);
	return r;
}

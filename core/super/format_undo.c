/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device that remembers what was overwritten. */
#include "super/format_undo.h"

#include "util/mem.h"

#define ALIGN_BYTES TER_KIB(4)
#define PUT_BACK_TRIES 3 /* a device that failed a write now and then shall not be left half formatted */

/* What one write replaced; the read of it comes before the write. */
struct saved {
	struct ter_list link; /* newest first */
	struct ter_undo *undo;
	struct ter_bio bio;
	struct ter_bio *write;
	void *mem;
};

struct ter_undo {
	struct ter_io io; /* io.ops only: nothing else is asked of a device's backend */
	struct ter_bdev bdev, *inner;
	struct ter_lock lock; /* rank LEAF; guards what follows */
	struct ter_list saves, refused;
	struct saved spare;   /* to get into a completion when there is no memory to save with: a write is refused there, not in the submission */
	bool spare_busy;
};

static struct ter_undo *undo_of(struct ter_bdev *bdev)
{
	return ter_container_of(bdev, struct ter_undo, bdev);
}

static void submit_read(struct saved *saved, uint64_t offset_bytes, uint64_t bytes)
{
	saved->bio.op = TER_BIO_READ;
	saved->bio.bdev = saved->undo->inner;
	saved->bio.offset_bytes = offset_bytes;
	saved->bio.bytes = bytes;
	saved->bio.iov1 = (struct iovec){ .iov_base = saved->mem, .iov_len = bytes };
	saved->bio.iov = &saved->bio.iov1;
	saved->bio.iov_nr = 1;
	ter_bio_submit(&saved->bio);
}

static void finish(struct ter_bio *write, int r)
{
	write->result = r;
	write->done(write);
}

/* --- without memory --- */

static void refuse(struct ter_undo *undo, struct ter_bio *write)
{
	bool begin;

	ter_lock_acquire(&undo->lock);
	ter_list_add_tail(&undo->refused, &write->link);
	begin = !undo->spare_busy;
	undo->spare_busy = true;
	ter_lock_release(&undo->lock);
	if (begin)
		submit_read(&undo->spare, 0, ALIGN_BYTES);
}

static void spare_done(struct ter_bio *bio)
{
	struct ter_undo *undo = ter_container_of(bio, struct saved, bio)->undo;
	struct ter_list refused;

	ter_list_init(&refused);
	ter_lock_acquire(&undo->lock);
	while (!ter_list_empty(&undo->refused)) {
		struct ter_bio *write = ter_list_first(&undo->refused, struct ter_bio, link);

		ter_list_del(&write->link);
		ter_list_add_tail(&refused, &write->link);
	}
	undo->spare_busy = false;
	ter_lock_release(&undo->lock);
	while (!ter_list_empty(&refused)) { /* when the last is told, undo may be gone */
		struct ter_bio *write = ter_list_first(&refused, struct ter_bio, link);

		ter_list_del(&write->link);
		finish(write, -ENOMEM);
	}
}

/* --- writing --- */

static void read_done(struct ter_bio *bio)
{
	struct saved *saved = ter_container_of(bio, struct saved, bio);
	struct ter_undo *undo = saved->undo;
	struct ter_bio *write = saved->write;
	const int r = bio->result;

	if (r < 0) { /* what cannot be read cannot be put back */
		free(saved->mem);
		free(saved);
		finish(write, r);
		return;
	}
	ter_lock_acquire(&undo->lock);
	ter_list_add(&undo->saves, &saved->link);
	ter_lock_release(&undo->lock);
	write->bdev = undo->inner;
	ter_bio_submit(write);
}

static void undo_submit(struct ter_bio *bio)
{
	struct ter_undo *undo = undo_of(bio->bdev);
	struct saved *saved;

	if (bio->op != TER_BIO_WRITE) {
		bio->bdev = undo->inner;
		ter_bio_submit(bio);
		return;
	}
	saved = ter_new(struct saved);
	if (saved)
		saved->mem = ter_malloc_aligned(bio->bytes, ALIGN_BYTES);
	if (!saved || !saved->mem) {
		free(saved);
		refuse(undo, bio);
		return;
	}
	saved->undo = undo;
	saved->write = bio;
	saved->bio.done = read_done;
	submit_read(saved, bio->offset_bytes, bio->bytes);
}

static const struct ter_io_ops undo_ops = { .submit = undo_submit };

/* --- the whole --- */

struct ter_undo *ter_undo_new(struct ter_bdev *inner)
{
	struct ter_undo *undo = ter_new(struct ter_undo);

	if (!undo)
		return NULL;
	undo->spare.mem = ter_malloc_aligned(ALIGN_BYTES, ALIGN_BYTES);
	if (!undo->spare.mem) {
		free(undo);
		return NULL;
	}
	undo->spare.undo = undo;
	undo->spare.bio.done = spare_done;
	undo->inner = inner;
	undo->io = (struct ter_io){ .ops = &undo_ops, .exec = inner->io->exec, .name = inner->io->name };
	undo->bdev = *inner;
	undo->bdev.io = &undo->io;
	undo->bdev.info.can_discard = false;
	ter_lock_init(&undo->lock, TER_RANK_LEAF);
	ter_list_init(&undo->saves);
	ter_list_init(&undo->refused);
	return undo;
}

struct ter_bdev *ter_undo_bdev(struct ter_undo *undo)
{
	return &undo->bdev;
}

int ter_undo_put_back(struct ter_undo *undo)
{
	struct saved *saved;
	int r = 0, r2;

	ter_list_for_each(saved, &undo->saves, link) {
		r2 = -EIO;
		for (unsigned i = 0; i < PUT_BACK_TRIES && r2 < 0; i++)
			r2 = ter_bdev_write(undo->inner, saved->bio.offset_bytes, saved->mem, saved->bio.bytes, 0);
		r = r < 0 ? r : r2;
	}
	r2 = ter_list_empty(&undo->saves) ? 0 : ter_bdev_flush(undo->inner);
	return r < 0 ? r : r2;
}

void ter_undo_free(struct ter_undo *undo)
{
	if (!undo)
		return;
	while (!ter_list_empty(&undo->saves)) {
		struct saved *saved = ter_list_first(&undo->saves, struct saved, link);

		ter_list_del(&saved->link);
		free(saved->mem);
		free(saved);
	}
	free(undo->spare.mem);
	ter_lock_destroy(&undo->lock);
	free(undo);
}

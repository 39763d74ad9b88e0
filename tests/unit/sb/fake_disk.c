/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device in memory that does as the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fake_disk.h"

static struct fake_disk *disk_of(struct ter_bio *bio)
{
	return ter_container_of(bio->bdev, struct fake_disk, bdev);
}

static bool at_place(const uint64_t places[FAKE_PLACES_MAX], uint64_t offset_bytes)
{
	for (unsigned i = 0; i < FAKE_PLACES_MAX; i++)
		if (places[i] && places[i] == offset_bytes)
			return true;
	return false;
}

static int do_read(struct fake_disk *disk, const struct ter_bio *bio)
{
	uint64_t at = bio->offset_bytes;

	if (at + bio->bytes > disk->bdev.info.bytes)
		return -EINVAL;
	if (at_place(disk->fail_read, at))
		return -EIO;
	for (unsigned i = 0; i < bio->iov_nr; at += bio->iov[i++].iov_len)
		memcpy(bio->iov[i].iov_base, disk->data + at, bio->iov[i].iov_len);
	return 0;
}

static void land(struct fake_disk *disk, const struct ter_bio *bio)
{
	uint64_t at = bio->offset_bytes;

	for (unsigned i = 0; i < bio->iov_nr; at += bio->iov[i++].iov_len)
		memcpy(disk->data + at, bio->iov[i].iov_base, bio->iov[i].iov_len);
	for (uint64_t sector = bio->offset_bytes / 512; sector < at / 512; sector++)
		disk->dirty[sector] = true;
}

static int do_write(struct fake_disk *disk, const struct ter_bio *bio)
{
	if (bio->offset_bytes + bio->bytes > disk->bdev.info.bytes)
		return -EINVAL;
	if (disk->fail_all_writes || at_place(disk->fail_write, bio->offset_bytes))
		return -EIO;
	if (!at_place(disk->lose_write, bio->offset_bytes))
		land(disk, bio);
	return 0;
}

static int do_flush(struct fake_disk *disk)
{
	if (disk->fail_flush)
		return -EIO;
	for (uint64_t sector = 0; sector < disk->bdev.info.bytes / 512; sector++)
		if (disk->dirty[sector]) {
			memcpy(disk->stable + sector * 512, disk->data + sector * 512, 512);
			disk->dirty[sector] = false;
		}
	return 0;
}

static int perform(struct fake_disk *disk, struct ter_bio *bio)
{
	struct fake_machine *fm = ter_container_of(disk->bdev.io, struct fake_machine, io);
	bool counts = bio->op == TER_BIO_WRITE || bio->op == TER_BIO_FLUSH;
	unsigned op = counts ? __atomic_add_fetch(&fm->ops, 1, __ATOMIC_RELAXED) : fm->ops + 1;

	disk->reads += bio->op == TER_BIO_READ;
	disk->writes += bio->op == TER_BIO_WRITE;
	disk->flushes += bio->op == TER_BIO_FLUSH;
	if (fm->cut_at && op >= fm->cut_at) {
		if (op == fm->cut_at && bio->op == TER_BIO_WRITE)
			land(disk, bio); /* in part: see fake_power_on() */
		return -EIO;
	}
	switch (bio->op) {
	case TER_BIO_READ:
		return do_read(disk, bio);
	case TER_BIO_WRITE:
		return do_write(disk, bio);
	case TER_BIO_FLUSH:
		return do_flush(disk);
	default:
		return -EOPNOTSUPP;
	}
}

static void fake_submit(struct ter_bio *bio)
{
	struct fake_disk *disk = disk_of(bio);

	pthread_mutex_lock(&disk->mutex);
	if (disk->hold) {
		assert_true(disk->held_nr < FAKE_HELD_MAX);
		disk->held[disk->held_nr++] = bio;
		pthread_mutex_unlock(&disk->mutex);
		return;
	}
	bio->result = perform(disk, bio);
	pthread_mutex_unlock(&disk->mutex);
	bio->done(bio);
}

void fake_complete(struct fake_disk *disk, unsigned nth, int result)
{
	struct ter_bio *bio = disk->held[nth];

	assert_true(nth < disk->held_nr);
	memmove(&disk->held[nth], &disk->held[nth + 1], (--disk->held_nr - nth) * sizeof(bio));
	bio->result = result;
	bio->done(bio);
}

void fake_cut_after(struct fake_machine *fm, unsigned ops)
{
	fm->ops = 0;
	fm->cut_at = ops + 1;
}

void fake_power_on(struct fake_machine *fm, struct sb_rng *rng)
{
	for (unsigned i = 0; i < fm->disks_nr; i++) {
		struct fake_disk *disk = &fm->disk[i];

		for (uint64_t sector = 0; sector < disk->bdev.info.bytes / 512; sector++) {
			uint8_t *data = disk->data + sector * 512, *stable = disk->stable + sector * 512;

			if (!disk->dirty[sector])
				continue;
			if (sb_rng_below(rng, 2))
				memcpy(data, stable, 512);
			else
				memcpy(stable, data, 512);
			disk->dirty[sector] = false;
		}
	}
	fm->cut_at = 0;
}

static const struct ter_io_ops fake_ops = { .submit = fake_submit };

struct fake_machine *fake_machine_new(struct ter_exec *exec, unsigned disks_nr, uint64_t disk_bytes)
{
	struct fake_machine *fm = calloc(1, sizeof(*fm));

	assert_non_null(fm);
	assert_true(disks_nr <= FAKE_DISKS_MAX);
	fm->io = (struct ter_io){ .ops = &fake_ops, .exec = exec, .name = "fake" };
	fm->disks_nr = disks_nr;
	for (unsigned i = 0; i < disks_nr; i++) {
		static char paths[FAKE_DISKS_MAX][16] = { "/dev/fake0", "/dev/fake1", "/dev/fake2", "/dev/fake3" };
		struct fake_disk *disk = &fm->disk[i];

		pthread_mutex_init(&disk->mutex, NULL);
		disk->bdev.io = &fm->io;
		disk->bdev.path = paths[i];
		disk->bdev.info.bytes = disk_bytes;
		disk->bdev.info.logical_block_bytes = 512;
		disk->data = calloc(1, disk_bytes);
		disk->stable = calloc(1, disk_bytes);
		disk->dirty = calloc(disk_bytes / 512, sizeof(bool));
		assert_true(disk->data && disk->stable && disk->dirty);
	}
	return fm;
}

void fake_machine_free(struct fake_machine *fm)
{
	for (unsigned i = 0; i < fm->disks_nr; i++) {
		pthread_mutex_destroy(&fm->disk[i].mutex);
		free(fm->disk[i].data);
		free(fm->disk[i].stable);
		free(fm->disk[i].dirty);
	}
	free(fm);
}

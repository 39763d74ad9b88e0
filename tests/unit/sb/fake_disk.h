/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device in memory that does as the test says: fails, loses, tears or holds requests. Requests complete within the submit, unless held.
 *
 * Writes land in `data` and become stable by a flush. After a cut (fake_cut_after()) every request fails; fake_power_on() then leaves of each sector that
 * was not flushed either its old or its new content, as the seed says.
 */
#ifndef FAKE_DISK_H
#define FAKE_DISK_H

#include <pthread.h>

#include "io/io.h"
#include "sb_random.h"

#define FAKE_DISKS_MAX 4
#define FAKE_HELD_MAX 8
#define FAKE_PLACES_MAX 3

struct fake_disk {
	struct ter_bdev bdev;
	pthread_mutex_t mutex;
	uint8_t *data, *stable;
	bool *dirty; /* per sector */
	/* requests that begin at one of these bytes: */
	uint64_t fail_read[FAKE_PLACES_MAX], fail_write[FAKE_PLACES_MAX], lose_write[FAKE_PLACES_MAX]; /* 0: none */
	bool fail_all_writes, fail_flush;
	bool hold; /* requests wait for fake_complete() */
	struct ter_bio *held[FAKE_HELD_MAX];
	unsigned held_nr;
	unsigned reads, writes, flushes; /* that were submitted */
};

struct fake_machine {
	struct ter_io io;
	struct fake_disk disk[FAKE_DISKS_MAX];
	unsigned disks_nr;
	unsigned ops; /* writes and flushes so far */
	unsigned cut_at; /* the op that finds no power any more, and is torn if it is a write; 0: never. Counted from 1. */
};

struct fake_machine *fake_machine_new(struct ter_exec *exec, unsigned disks_nr, uint64_t disk_bytes);
void fake_machine_free(struct fake_machine *fm);
void fake_cut_after(struct fake_machine *fm, unsigned ops); /* from now on */
void fake_power_on(struct fake_machine *fm, struct sb_rng *rng);
/* Completes the @nth request held. */
void fake_complete(struct fake_disk *disk, unsigned nth, int result);

#endif

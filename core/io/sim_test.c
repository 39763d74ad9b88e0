/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a test does to simulated devices: look, change, snapshot, make fail. */
#include "io/sim_priv.h"

struct ter_bdev_info *ter_sim_info(struct ter_sim *sim, const char *path)
{
	struct sim_dev *dev;

	ter_lock_acquire(&sim->lock);
	dev = sim_dev_find(sim, path);
	ter_lock_release(&sim->lock);
	return dev ? &dev->info : NULL;
}

static int find_range(struct ter_sim *sim, const char *path, uint64_t offset, uint64_t bytes, struct sim_dev **ret_dev)
{
	struct sim_dev *dev = sim_dev_find(sim, path);

	if (!dev)
		return -ENOENT;
	if (offset > ter_sim_image_bytes(dev->image) || bytes > ter_sim_image_bytes(dev->image) - offset)
		return -EINVAL;
	*ret_dev = dev;
	return 0;
}

int ter_sim_peek(struct ter_sim *sim, const char *path, uint64_t offset_bytes, void *buf, size_t bytes)
{
	struct sim_dev *dev;
	int r;

	ter_lock_acquire(&sim->lock);
	r = find_range(sim, path, offset_bytes, bytes, &dev);
	if (r == 0)
		ter_sim_image_read(dev->image, offset_bytes, buf, bytes);
	ter_lock_release(&sim->lock);
	return r;
}

int ter_sim_poke(struct ter_sim *sim, const char *path, uint64_t offset_bytes, const void *buf, size_t bytes)
{
	struct sim_dev *dev;
	int r;

	ter_lock_acquire(&sim->lock);
	r = find_range(sim, path, offset_bytes, bytes, &dev);
	if (r == 0)
		ter_sim_image_write(dev->image, offset_bytes, buf, bytes);
	ter_lock_release(&sim->lock);
	return r;
}

uint64_t ter_sim_hash(struct ter_sim *sim)
{
	uint64_t hash = 0;

	ter_lock_acquire(&sim->lock);
	for (unsigned i = 0; i < sim->dev_nr; i++)
		hash = hash * 0x100000001b3ull + ter_sim_image_hash(sim->dev[i]->image);
	ter_lock_release(&sim->lock);
	return hash;
}

void ter_sim_get_stats(struct ter_sim *sim, struct ter_sim_stats *ret)
{
	ter_lock_acquire(&sim->lock);
	*ret = sim->stats;
	ter_lock_release(&sim->lock);
}

/* --- snapshots --- */

struct ter_sim_snapshot *sim_snapshot(struct ter_sim *sim)
{
	struct ter_sim_snapshot *snapshot = ter_sim_alloc(sizeof(*snapshot));

	snapshot->nr = sim->dev_nr;
	for (unsigned i = 0; i < sim->dev_nr; i++)
		snapshot->image[i] = ter_sim_image_clone(sim->dev[i]->image);
	return snapshot;
}

struct ter_sim_snapshot *ter_sim_snapshot_take(struct ter_sim *sim)
{
	struct ter_sim_snapshot *snapshot;

	ter_lock_acquire(&sim->lock);
	snapshot = sim_snapshot(sim);
	ter_lock_release(&sim->lock);
	return snapshot;
}

void ter_sim_snapshot_free(struct ter_sim_snapshot *snapshot)
{
	if (!snapshot)
		return;
	for (unsigned i = 0; i < snapshot->nr; i++)
		ter_sim_image_free(snapshot->image[i]);
	free(snapshot);
}

void sim_kill(struct ter_sim *sim, struct sim_dev *dev)
{
	dev->epoch++;
	dev->claimed = false;
	ter_waitq_wake_all(&sim->more); /* requests that hung are due */
}

void ter_sim_restore(struct ter_sim *sim, const struct ter_sim_snapshot *snapshot, const char *path)
{
	ter_lock_acquire(&sim->lock);
	assert(snapshot->nr <= sim->dev_nr);
	for (unsigned i = 0; i < snapshot->nr; i++) {
		struct sim_dev *dev = sim->dev[i];

		if (path && strcmp(path, dev->path))
			continue;
		ter_sim_image_free(dev->image);
		dev->image = ter_sim_image_clone(snapshot->image[i]);
		sim_kill(sim, dev);
	}
	if (sim->trace)
		sim_trace_begin(sim);
	ter_lock_release(&sim->lock);
}

/* --- faults --- */

int ter_sim_fail(struct ter_sim *sim, const char *path, enum ter_bio_op op, uint64_t nth, bool persistent)
{
	struct sim_dev *dev;

	assert((unsigned)op < SIM_OPS_NR && nth > 0);
	ter_lock_acquire(&sim->lock);
	dev = sim_dev_find(sim, path);
	if (dev)
		dev->fault[op] = (struct sim_fault){.nth = nth, .persistent = persistent};
	ter_lock_release(&sim->lock);
	return dev ? 0 : -ENOENT;
}

void ter_sim_fail_none(struct ter_sim *sim)
{
	ter_lock_acquire(&sim->lock);
	for (unsigned i = 0; i < sim->dev_nr; i++)
		memset(sim->dev[i]->fault, 0, sizeof(sim->dev[i]->fault));
	ter_lock_release(&sim->lock);
}

int ter_sim_bad_range(struct ter_sim *sim, const char *path, uint64_t offset_bytes, uint64_t bytes)
{
	struct sim_dev *dev;
	int r;

	ter_lock_acquire(&sim->lock);
	r = find_range(sim, path, offset_bytes, bytes, &dev);
	if (r == 0) {
		dev->bad_from = offset_bytes;
		dev->bad_to = offset_bytes + bytes;
	}
	ter_lock_release(&sim->lock);
	return r;
}

int ter_sim_corrupt(struct ter_sim *sim, const char *path, uint64_t offset_bytes, uint64_t bytes)
{
	struct sim_dev *dev;
	int r;

	ter_lock_acquire(&sim->lock);
	r = find_range(sim, path, offset_bytes, bytes, &dev);
	for (uint64_t i = 0; r == 0 && i < bytes; i++) {
		uint8_t byte;

		ter_sim_image_read(dev->image, offset_bytes + i, &byte, 1);
		byte ^= (uint8_t)(1 + ter_sim_draw(&sim->dice, 255));
		ter_sim_image_write(dev->image, offset_bytes + i, &byte, 1);
	}
	ter_lock_release(&sim->lock);
	return r;
}

static int set_vanished(struct ter_sim *sim, const char *path, bool vanished)
{
	struct sim_dev *dev;

	ter_lock_acquire(&sim->lock);
	dev = sim_dev_find(sim, path);
	if (dev && dev->vanished != vanished) {
		dev->vanished = vanished;
		sim_kill(sim, dev);
	}
	ter_lock_release(&sim->lock);
	return dev ? 0 : -ENOENT;
}

int ter_sim_vanish(struct ter_sim *sim, const char *path)
{
	return set_vanished(sim, path, true);
}

int ter_sim_come_back(struct ter_sim *sim, const char *path)
{
	return set_vanished(sim, path, false);
}

int ter_sim_latency(struct ter_sim *sim, const char *path, uint64_t ns)
{
	struct sim_dev *dev;

	ter_lock_acquire(&sim->lock);
	dev = sim_dev_find(sim, path);
	if (dev) {
		dev->latency_ns = ns;
		ter_waitq_wake_all(&sim->more);
	}
	ter_lock_release(&sim->lock);
	return dev ? 0 : -ENOENT;
}

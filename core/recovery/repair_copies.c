/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: copies of data that are missing are made again. */
#include "recovery/repair_copies.h"

#define PASS "copies"
#define BATCH_NR 256u
#define RESTARTS_MAX 1000u /* a btree changed its height while it was read */

struct batch {
	const struct ter_fsck_config *config;
	struct ter_pos pos[BATCH_NR];
	uint64_t start[BATCH_NR];
	unsigned nr, wanted;
};

static unsigned wanted_copies(const struct ter_fsck_config *config)
{
	return config->sb->sb->options.data_replicas;
}

uint64_t ter_degraded_sectors(const struct ter_fsck_config *config)
{
	uint64_t sectors = 0;

	ter_lock_acquire(&config->sb->lock);
	for (unsigned i = 0; i < config->sb->sb->replicas_nr; i++) {
		const struct ter_replicas_entry *e = &config->sb->sb->replicas[i];

		if (e->data_type == TER_DATA_USER && e->nr_devs < wanted_copies(config))
			sectors += ter_alloc_replicas_sectors(config->alloc, e);
	}
	ter_lock_release(&config->sb->lock);
	return sectors;
}

static int take_degraded(void *arg, const struct ter_key *key)
{
	struct batch *b = arg;
	struct ter_extent e;

	if (key->type != TER_KEY_EXTENT || ter_extent_decode(key, b->config->sb->sb, &e) < 0 || e.nr_ptrs >= b->wanted)
		return 0;
	b->start[b->nr] = e.start;
	b->pos[b->nr++] = key->pos;
	return b->nr == BATCH_NR;
}

/* Members that can take a copy: more copies than these are not to be had. */
static unsigned writable_members(const struct ter_fsck_config *config)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		const struct ter_dev *dev = &config->members->dev[i];

		nr += dev->used && ter_dev_writable(dev) && dev->durability > 0;
	}
	return nr;
}

/* 1: no more of it. */
static int add_to_batch(struct batch *b, struct ter_repaired_copies *done)
{
	for (unsigned i = 0; i < b->nr; i++) {
		const int r = ter_data_add_copies(b->config->data, b->pos[i], b->wanted);

		if (r == -EIO) {
			done->bad++;
			ter_vfs_note_damage(b->config->vfs, b->pos[i].inode, b->start[i] << TER_SECTOR_SHIFT);
		} else if (r == -ENOSPC || r == -EROFS) {
			done->no_room = true;
			return 1;
		} else if (r < 0 && r != -ENOENT && r != -ENODEV) {
			return r;
		}
		done->made += r >= (int)b->wanted;
	}
	return 0;
}

static int all_batches(struct batch *b, struct ter_repair *repair, struct ter_repaired_copies *done)
{
	struct ter_pos from = TER_POS_MIN;
	unsigned restarts = 0;
	int r, more;

	do {
		b->nr = 0;
		more = ter_btree_scan(b->config->btrees, TER_BTREE_EXTENTS, from, TER_POS_MAX, 0, take_degraded, b, NULL);
		if (more == -ERESTART && restarts++ < RESTARTS_MAX)
			more = 1;
		if (more < 0)
			return more;
		r = add_to_batch(b, done);
		if (r)
			return ter_min(r, 0);
		if (b->nr)
			from = ter_pos_next(b->pos[b->nr - 1]);
		r = ter_repair_step(repair, PASS, done->made, 0);
	} while (r >= 0 && more == 1);
	return r;
}

int ter_repair_copies(const struct ter_fsck_config *config, struct ter_repair *repair, struct ter_repaired_copies *ret)
{
	struct batch b = { .config = config, .wanted = ter_min(wanted_copies(config), writable_members(config)) };
	const uint64_t sectors = ter_degraded_sectors(config);
	int r;

	*ret = (struct ter_repaired_copies){ 0 };
	if (!sectors)
		return 0;
	r = ter_repair_want(repair, PASS, "%.1f MiB of data have fewer copies than the %u of option data_replicas: the missing ones are made.", (double)sectors / 2048,
			    wanted_copies(config));
	return r <= 0 ? r : all_batches(&b, repair, ret);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What several threads do to the same names, and files that fill the pool
 *
 * In the shared directories nobody knows what should be there; but every 512 bytes of a file there say which file and which place they were written to, and
 * hold a hash: whoever reads finds such a unit, or zeros.
 */
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>

#include "stress.h"

#define WILD_NAMES 10
#define WILD_DEPTH 6
#define UNIT 512u
#define UNIT_MAGIC 0x7469756e646c6977ull
#define WILD_BYTES TER_KIB(256)

struct unit {
	uint64_t magic, node, offset, tag, body[(UNIT - 40) / 8], hash;
};

static uint64_t unit_hash(const struct unit *u)
{
	uint64_t h = UNIT_MAGIC;
	const uint64_t *word = &u->magic;

	for (unsigned i = 0; i < UNIT / 8 - 1; i++)
		h = st_hash(h, word[i]);
	return h;
}

static void make_unit(struct unit *u, uint64_t node, uint64_t offset, uint64_t rnd)
{
	*u = (struct unit){ .magic = UNIT_MAGIC, .node = node, .offset = offset, .tag = st->pool.tag };
	for (unsigned i = 0; i < sizeof(u->body) / 8; i++)
		u->body[i] = rnd & 1 ? rnd : st_rnd(&rnd);
	u->hash = unit_hash(u);
}

static void check_units(const uint8_t *data, int64_t bytes, uint64_t node, uint64_t offset)
{
	static const struct unit zeros;

	for (int64_t i = 0; i + UNIT <= bytes; i += UNIT) {
		struct unit u;

		memcpy(&u, data + i, UNIT);
		if (!memcmp(&u, &zeros, UNIT))
			continue;
		if (u.magic != UNIT_MAGIC || u.node != node || u.offset != offset + (uint64_t)i || u.tag != st->pool.tag || u.hash != unit_hash(&u))
			st_finding("shared file %llx at %llu: these are not its bytes (magic %llx, node %llx, offset %llu, hash %s)", (unsigned long long)node,
				   (unsigned long long)offset + (uint64_t)i, (unsigned long long)u.magic, (unsigned long long)u.node,
				   (unsigned long long)u.offset, u.hash == unit_hash(&u) ? "right" : "wrong");
	}
}

/* --- shared directories --- */

static void shared_name(unsigned nr, char buf[32])
{
	snprintf(buf, 32, "w%u", nr);
}

/* What others may have done meanwhile. */
static bool raced(int r)
{
	return r == -ENOENT || r == -EEXIST || r == -ENOTDIR || r == -EISDIR || r == -ENOTEMPTY || r == -ESTALE || r == -EINVAL || r == -ELOOP;
}

/* A directory among the shared ones: down from a top one as far as chance goes. */
static int some_dir(struct st_thread *t, struct ter_vfs *vfs, uint64_t *ret)
{
	struct ter_attr attr;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "s%u", st_below(&t->rnd, ST_SHARED_DIRS));
	r = ter_vfs_lookup(vfs, &st_root, TER_NODE_ROOT, name, &attr);
	if (r < 0)
		return r;
	*ret = attr.node;
	for (unsigned depth = 0; depth < WILD_DEPTH && st_below(&t->rnd, 2); depth++) {
		shared_name(st_below(&t->rnd, WILD_NAMES), name);
		r = ter_vfs_lookup(vfs, &st_root, *ret, name, &attr);
		if (r < 0 || !S_ISDIR(attr.mode))
			return r == -ENOENT ? 0 : raced(r) ? 0 : ter_min(r, 0);
		*ret = attr.node;
	}
	return 0;
}

static int wild_create(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	return ter_vfs_create(vfs, &st_root, dir, name, st_below(&t->rnd, 3) ? S_IFREG | 0644 : S_IFDIR | 0755, 0, NULL, NULL);
}

static int wild_remove(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	uint64_t orphan = 0;
	int r = (st_below(&t->rnd, 3) ? ter_vfs_unlink : ter_vfs_rmdir)(vfs, &st_root, dir, name, &orphan);

	if (r >= 0 && orphan)
		ter_vfs_forget(vfs, orphan);
	return r == -EPERM ? 0 : r;
}

static int wild_rename(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	static const unsigned flags[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	uint64_t to_dir, orphan = 0;
	char to[32];
	int r = some_dir(t, vfs, &to_dir);

	if (r < 0)
		return r;
	shared_name(st_below(&t->rnd, WILD_NAMES), to);
	r = ter_vfs_rename(vfs, &st_root, dir, name, to_dir, to, flags[st_below(&t->rnd, 5)], &orphan);
	if (r >= 0 && orphan)
		ter_vfs_forget(vfs, orphan);
	return r;
}

static int wild_link(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	struct ter_attr attr;
	uint64_t to_dir;
	char to[32];
	int r = ter_vfs_lookup(vfs, &st_root, dir, name, &attr);

	if (r >= 0)
		r = some_dir(t, vfs, &to_dir);
	if (r < 0)
		return r;
	shared_name(st_below(&t->rnd, WILD_NAMES), to);
	r = ter_vfs_link(vfs, &st_root, attr.node, to_dir, to, NULL);
	return r == -EPERM && S_ISDIR(attr.mode) ? 0 : r;
}

static int wild_write(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	struct ter_attr attr;
	unsigned units = 1 + st_below(&t->rnd, st_below(&t->rnd, 2) ? 8 : 128);
	const uint64_t offset = (uint64_t)st_below(&t->rnd, WILD_BYTES / UNIT) * UNIT;
	struct unit *buf;
	int r = ter_vfs_lookup(vfs, &st_root, dir, name, &attr);

	if (r < 0 || !S_ISREG(attr.mode))
		return ter_min(r, 0);
	buf = malloc(units * sizeof(*buf));
	if (!buf)
		abort();
	for (unsigned i = 0; i < units; i++)
		make_unit(&buf[i], attr.node, offset + i * UNIT, st_rnd(&t->rnd));
	r = st_write(vfs, attr.node, offset, buf, units * sizeof(*buf));
	free(buf);
	if (r >= 0 && !st_below(&t->rnd, 6))
		r = st_fsync(vfs, attr.node);
	return r;
}

static int wild_truncate(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	struct ter_attr attr;
	int r = ter_vfs_lookup(vfs, &st_root, dir, name, &attr);

	if (r < 0 || !S_ISREG(attr.mode))
		return ter_min(r, 0);
	return st_truncate(vfs, attr.node, (uint64_t)st_below(&t->rnd, WILD_BYTES / UNIT) * UNIT);
}

static int wild_read(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name)
{
	const uint64_t offset = (uint64_t)st_below(&t->rnd, WILD_BYTES / UNIT) * UNIT;
	struct ter_attr attr;
	uint8_t *data;
	int64_t got;
	int r = ter_vfs_lookup(vfs, &st_root, dir, name, &attr);

	if (r < 0 || !S_ISREG(attr.mode))
		return ter_min(r, 0);
	data = malloc(WILD_BYTES);
	if (!data)
		abort();
	got = st_read(vfs, attr.node, offset, data, WILD_BYTES);
	check_units(data, got, attr.node, offset);
	free(data);
	return (int)ter_min(got, (int64_t)0);
}

void st_wild_step(struct st_thread *t, struct ter_vfs *vfs)
{
	static const struct {
		const char *name;
		int (*fn)(struct st_thread *t, struct ter_vfs *vfs, uint64_t dir, const char *name);
	} ops[] = {
		{ "create", wild_create }, { "create", wild_create }, { "remove", wild_remove }, { "rename", wild_rename }, { "rename", wild_rename },
		{ "link", wild_link }, { "write", wild_write }, { "write", wild_write }, { "truncate", wild_truncate }, { "read", wild_read },
	};
	const unsigned op = st_below(&t->rnd, 10);
	char name[32];
	uint64_t dir;
	int r;

	snprintf(t->doing, sizeof(t->doing), "shared: %s", ops[op].name);
	shared_name(st_below(&t->rnd, WILD_NAMES), name);
	r = some_dir(t, vfs, &dir);
	if (r >= 0)
		r = ops[op].fn(t, vfs, dir, name);
	if (r < 0 && !raced(r) && !st_allowed(r))
		st_finding("%s in a shared directory: %d, which nothing accounts for", ops[op].name, r);
	atomic_fetch_add(&st->wild, 1);
}

/* --- all of it, at a start --- */

#define WILD_LIST 4096
struct list {
	struct ter_attr attr[WILD_LIST];
	unsigned nr;
};

static int on_entry(void *arg, const struct ter_dirent *d)
{
	struct list *list = arg;

	if (!strcmp(d->name, ".") || !strcmp(d->name, "..") || !d->attr)
		return 0;
	if (list->nr < WILD_LIST)
		list->attr[list->nr++] = *d->attr;
	return 0;
}

void st_wild_check(struct ter_vfs *vfs)
{
	struct list *list = calloc(1, sizeof(*list));
	uint8_t *data = malloc(2 * WILD_BYTES);
	char name[32];

	if (!list || !data)
		abort();
	for (unsigned i = 0; i < ST_SHARED_DIRS; i++) {
		int r;

		snprintf(name, sizeof(name), "s%u", i);
		r = ter_vfs_lookup(vfs, &st_root, TER_NODE_ROOT, name, &list->attr[list->nr++]);
		if (r < 0)
			st_finding("directory %s: %d", name, r);
	}
	for (unsigned i = 0; i < list->nr; i++) {
		const struct ter_attr *a = &list->attr[i];

		if (S_ISDIR(a->mode)) {
			const int r = ter_vfs_readdir(vfs, &st_root, a->node, 0, true, on_entry, list);

			if (r < 0)
				st_finding("readdir of shared %llx: %d", (unsigned long long)a->node, r);
		} else {
			const int64_t got = st_read(vfs, a->node, 0, data, 2 * WILD_BYTES);

			if (got != (int64_t)a->size)
				st_finding("shared file %llx of %llu bytes: reading gives %lld", (unsigned long long)a->node, (unsigned long long)a->size,
					   (long long)got);
			check_units(data, got, a->node, 0);
		}
		atomic_fetch_add(&st->ticks, 1);
	}
	free(data);
	free(list);
}

/* --- fillers: large files, one writer (the control thread), made from front to back --- */

#define FILL_STEP TER_KIB(256)

static void filler_name(unsigned i, uint64_t gen, char buf[48])
{
	snprintf(buf, 48, "fill%u-%llu", i, (unsigned long long)gen);
}

static int filler_node(struct ter_vfs *vfs, unsigned i, struct ter_attr *ret)
{
	char name[48];

	filler_name(i, st->filler[i].gen, name);
	return ter_vfs_lookup(vfs, &st_root, TER_NODE_ROOT, name, ret);
}

static void filler_remove(struct ter_vfs *vfs, unsigned i)
{
	struct st_filler *f = &st->filler[i];
	uint64_t orphan = 0;
	char name[48];
	int r;

	filler_name(i, f->gen, name);
	f->removing = true;
	r = ter_vfs_unlink(vfs, &st_root, TER_NODE_ROOT, name, &orphan);
	if (r < 0) {
		if (!st_allowed(r))
			st_finding("unlink of %s: %d", name, r);
		return;
	}
	if (orphan)
		ter_vfs_forget(vfs, orphan);
	f->gen = 0;
}

static void filler_grow(uint64_t *rnd, struct ter_vfs *vfs, unsigned i)
{
	struct st_filler *f = &st->filler[i];
	const uint64_t most = TER_KIB(256) << st_below(rnd, 7);
	struct ter_attr attr;
	uint8_t *buf;
	char name[48];
	int r;

	if (!f->gen) {
		f->removing = false;
		f->written = f->synced = f->reached = 0;
		f->gen = atomic_fetch_add(&st->clock, 1) + 1;
		filler_name(i, f->gen, name);
		r = ter_vfs_create(vfs, &st_root, TER_NODE_ROOT, name, S_IFREG | 0600, 0, NULL, &attr);
	} else {
		r = filler_node(vfs, i, &attr);
	}
	if (r < 0) {
		if (!st_allowed(r) && !(r == -ENOENT && atomic_load(&st->faulty)))
			st_finding("filler %u: %d", i, r);
		if (!f->written)
			f->gen = 0;
		return;
	}
	buf = malloc(FILL_STEP);
	if (!buf)
		abort();
	for (uint64_t end = ter_min(f->written + most, (uint64_t)ST_FILLER_MAX); f->written < end && r >= 0 && !atomic_load(&st->quiet);) {
		st_fill(buf, f->gen, f->written, FILL_STEP);
		f->reached = ter_max(f->reached, f->written + FILL_STEP);
		r = st_write(vfs, attr.node, f->written, buf, FILL_STEP);
		if (r >= 0)
			f->written += FILL_STEP;
		atomic_fetch_add(&st->ticks, 1);
	}
	free(buf);
	if (r < 0 && !st_allowed(r))
		st_finding("write to filler %u: %d", i, r);
	if (st_chance(rnd, 40)) {
		r = st_fsync(vfs, attr.node);
		if (r < 0 && !st_allowed(r))
			st_finding("fsync of filler %u: %d", i, r);
		if (r >= 0)
			f->synced = f->written;
	}
}

void st_filler_step(uint64_t *rnd, struct ter_vfs *vfs)
{
	const unsigned i = st_below(rnd, ST_FILLERS);

	st_doing("filler %u", i);
	if (st->filler[i].gen && (st->filler[i].removing || st_chance(rnd, 40)))
		filler_remove(vfs, i);
	else
		filler_grow(rnd, vfs, i);
}

static void check_filler(struct ter_vfs *vfs, unsigned i, uint8_t *data)
{
	struct st_filler *f = &st->filler[i];
	struct ter_attr attr;
	int64_t got;
	int r;

	r = filler_node(vfs, i, &attr);
	if (r == -ENOENT && (f->removing || !f->synced)) {
		f->gen = 0;
		return;
	}
	if (r < 0 || attr.size < f->synced || attr.size > f->reached)
		st_finding("filler %u of %llu bytes, %llu synced: %d, size %llu", i, (unsigned long long)f->written, (unsigned long long)f->synced, r,
			   (unsigned long long)(r < 0 ? 0 : attr.size));
	got = st_read(vfs, attr.node, 0, data, ST_FILLER_MAX + FILL_STEP);
	if (got != (int64_t)attr.size)
		st_finding("filler %u of %llu bytes: reading gives %lld", i, (unsigned long long)attr.size, (long long)got);
	for (uint64_t at = 0; at < attr.size; at++)
		if (data[at] != st_byte(f->gen, at) && (data[at] || at < f->synced))
			st_finding("filler %u (%llx) of %llu bytes, %llu synced: byte %llu is %02x, not %02x", i, (unsigned long long)attr.node,
				   (unsigned long long)f->written, (unsigned long long)f->synced, (unsigned long long)at, data[at], st_byte(f->gen, at));
	f->removing = false;
	f->written = f->synced = ter_round_down(ter_min(attr.size, f->synced), FILL_STEP);
}

/* Written again from where it is known to be whole. */
void st_filler_check(struct ter_vfs *vfs)
{
	uint8_t *data = malloc(ST_FILLER_MAX + FILL_STEP);

	if (!data)
		abort();
	for (unsigned i = 0; i < ST_FILLERS; i++)
		if (st->filler[i].gen) {
			st_doing("check of filler %u", i);
			check_filler(vfs, i, data);
		}
	free(data);
}

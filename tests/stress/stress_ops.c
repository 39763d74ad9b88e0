/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A thread's own directory: one random operation at a time, in the log before it is called, in the model after it returned. */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>

#include "stress.h"

static unsigned below(struct st_thread *t, unsigned n)
{
	return st_below(&t->rnd, n);
}

/* --- the log --- */

static void begin(struct st_thread *t, const struct st_rec *rec)
{
	struct st_rec *r;

	pthread_mutex_lock(&t->lock);
	r = st_rec(t, t->nr + 1);
	*r = *rec;
	r->begin = atomic_fetch_add(&st->clock, 1);
	r->done = false;
	t->nr++;
	pthread_mutex_unlock(&t->lock);
}

/* @node: of what a create made. */
static void done(struct st_thread *t, uint64_t node)
{
	struct st_rec *r;

	pthread_mutex_lock(&t->lock);
	r = st_rec(t, t->nr);
	r->born.node = node;
	st_model_apply(&t->m, r, t->nr);
	st_data_apply(t, r, t->nr);
	r->hash = st_model_hash(&t->m);
	r->end = atomic_fetch_add(&st->clock, 1);
	r->done = true;
	pthread_mutex_unlock(&t->lock);
	atomic_fetch_add(&st->ops, 1);
}

/* It changed nothing. */
static void undone(struct st_thread *t)
{
	pthread_mutex_lock(&t->lock);
	t->nr--;
	pthread_mutex_unlock(&t->lock);
}

/* What is in the file after an operation on it failed half-way. */
static bool find_out(struct st_thread *t, struct ter_vfs *vfs, unsigned obj)
{
	struct st_obj *o = &t->m.obj[obj];
	uint8_t *data = malloc(ST_FILE_MAX + 4096);
	struct ter_attr attr;
	const char *why;
	int64_t got = -EIO;

	if (!data)
		abort();
	if (ter_vfs_getattr(vfs, &st_root, o->node, &attr) >= 0)
		got = st_read(vfs, o->node, 0, data, ST_FILE_MAX + 4096);
	if (got >= 0) {
		if (got != (int64_t)attr.size)
			st_finding("file %llx: reading gives %lld, not %llu", (unsigned long long)o->node, (long long)got, (unsigned long long)attr.size);
		why = st_judge_file(t, obj, data, attr.size, t->floor, t->nr);
		if (why)
			st_finding("file %llx, after an operation failed: %s", (unsigned long long)o->node, why);
		pthread_mutex_lock(&t->lock);
		memcpy(t->live[obj], data, attr.size);
		if (o->live_size > attr.size)
			memset(t->live[obj] + attr.size, 0, o->live_size - attr.size);
		o->live_size = attr.size;
		o->unsure = false;
		pthread_mutex_unlock(&t->lock);
	}
	free(data);
	return got >= 0;
}

static void half_done(struct st_thread *t, struct ter_vfs *vfs, unsigned obj)
{
	struct st_rec *r;

	pthread_mutex_lock(&t->lock);
	r = st_rec(t, t->nr);
	r->maybe = r->done = true;
	r->hash = st_model_hash(&t->m);
	r->end = atomic_fetch_add(&st->clock, 1);
	t->m.obj[obj].unsure = true;
	t->m.obj[obj].last_data = t->nr;
	t->m.obj[obj].data_ops++;
	pthread_mutex_unlock(&t->lock);
	(void)find_out(t, vfs, obj);
}

static void refused(struct st_thread *t, int r, const char *what)
{
	undone(t);
	if (!st_allowed(r))
		st_finding("%s: %d, which nothing accounts for", what, r);
}

/* --- choosing --- */

/* An object of a kind that has a name; -1: none. */
static int any(struct st_thread *t, enum st_kind kind)
{
	int found = -1;
	unsigned seen = 0;

	for (unsigned i = 0; i < ST_OBJS; i++)
		if (t->m.obj[i].kind == kind && (!i || st_links(&t->m, i)) && !below(t, ++seen))
			found = (int)i;
	return found;
}

static int any_with_name(struct st_thread *t)
{
	int found = -1;
	unsigned seen = 0;

	for (unsigned i = 1; i < ST_OBJS; i++)
		if (t->m.obj[i].kind != ST_NONE && st_links(&t->m, i) && !below(t, ++seen))
			found = (int)i;
	return found;
}

static bool pick_name(struct st_thread *t, uint8_t *ret_dir, uint8_t *ret_name)
{
	unsigned seen = 0;

	for (unsigned d = 0; d < ST_OBJS; d++)
		for (unsigned n = 0; n < ST_NAMES; n++)
			if (t->m.name[d][n] && !below(t, ++seen)) {
				*ret_dir = (uint8_t)d;
				*ret_name = (uint8_t)n;
			}
	return seen;
}

static int free_obj(const struct st_thread *t)
{
	for (unsigned i = 1; i < ST_OBJS; i++)
		if (t->m.obj[i].kind == ST_NONE)
			return (int)i;
	return -1;
}

static uint64_t node(const struct st_thread *t, unsigned obj)
{
	return t->m.obj[obj].node;
}

static bool is_dir(const struct st_thread *t, unsigned obj)
{
	return t->m.obj[obj].kind == ST_DIR;
}

static bool is_empty(const struct st_thread *t, unsigned dir)
{
	for (unsigned n = 0; n < ST_NAMES; n++)
		if (t->m.name[dir][n])
			return false;
	return true;
}

static bool is_within(const struct st_thread *t, unsigned dir, unsigned above)
{
	for (unsigned depth = 0; depth < ST_OBJS && dir != above; depth++) {
		unsigned up = 0;

		if (!dir)
			return false;
		for (unsigned d = 0; d < ST_OBJS; d++)
			for (unsigned n = 0; n < ST_NAMES; n++)
				if (t->m.name[d][n] == dir + 1)
					up = d;
		dir = up;
	}
	return dir == above;
}

/* --- names --- */

static void sync_all(struct st_thread *t, struct ter_vfs *vfs);

static void forget(struct ter_vfs *vfs, uint64_t orphan)
{
	if (orphan)
		ter_vfs_forget(vfs, orphan);
}

static void create(struct st_thread *t, struct ter_vfs *vfs)
{
	static const enum st_kind kinds[] = { ST_REG, ST_REG, ST_REG, ST_REG, ST_DIR, ST_LNK };
	struct st_rec rec = { .op = ST_OP_CREATE, .born.kind = kinds[below(t, 6)] };
	char name[TER_NAME_MAX + 1], target[TER_SYMLINK_MAX + 1];
	const int obj = free_obj(t);
	struct ter_attr attr;
	uint32_t mode;
	int r;

	if (obj < 0) {
		sync_all(t, vfs);
		return;
	}
	rec.obj = (uint8_t)obj;
	rec.dir = (uint8_t)any(t, ST_DIR);
	rec.name = (uint8_t)below(t, ST_NAMES);
	if (t->m.name[rec.dir][rec.name])
		return;
	rec.born.mode = rec.born.kind == ST_LNK ? 0777 : (uint16_t)below(t, 01000);
	rec.born.target = rec.born.kind == ST_LNK ? below(t, 1000) : 0;
	mode = rec.born.mode | (rec.born.kind == ST_REG ? S_IFREG : rec.born.kind == ST_DIR ? S_IFDIR : S_IFLNK);
	st_name(rec.name, name);
	st_target(rec.born.target, target);
	begin(t, &rec);
	r = ter_vfs_create(vfs, &st_root, node(t, rec.dir), name, mode, 0, rec.born.kind == ST_LNK ? target : NULL, &attr);
	if (r < 0)
		refused(t, r, "create");
	else
		done(t, attr.node);
}

static void make_link(struct st_thread *t, struct ter_vfs *vfs)
{
	struct st_rec rec = { .op = ST_OP_LINK };
	const int obj = any(t, ST_REG);
	char name[TER_NAME_MAX + 1];
	int r;

	if (obj < 0)
		return;
	rec.obj = (uint8_t)obj;
	rec.dir2 = (uint8_t)any(t, ST_DIR);
	rec.name2 = (uint8_t)below(t, ST_NAMES);
	if (t->m.name[rec.dir2][rec.name2])
		return;
	st_name(rec.name2, name);
	begin(t, &rec);
	r = ter_vfs_link(vfs, &st_root, node(t, rec.obj), node(t, rec.dir2), name, NULL);
	if (r < 0)
		refused(t, r, "link");
	else
		done(t, 0);
}

static void remove_name(struct st_thread *t, struct ter_vfs *vfs)
{
	struct st_rec rec = { .op = ST_OP_UNLINK };
	char name[TER_NAME_MAX + 1];
	uint64_t orphan = 0;
	unsigned obj;
	int r;

	if (!pick_name(t, &rec.dir, &rec.name))
		return;
	obj = t->m.name[rec.dir][rec.name] - 1u;
	st_name(rec.name, name);
	if (is_dir(t, obj) && !is_empty(t, obj)) {
		r = ter_vfs_rmdir(vfs, &st_root, node(t, rec.dir), name, &orphan);
		if (r != -ENOTEMPTY && (r == 0 || !st_allowed(r)))
			st_finding("rmdir of a directory that is not empty: %d", r);
		return;
	}
	begin(t, &rec);
	r = (is_dir(t, obj) ? ter_vfs_rmdir : ter_vfs_unlink)(vfs, &st_root, node(t, rec.dir), name, &orphan);
	if (r < 0)
		refused(t, r, is_dir(t, obj) ? "rmdir" : "unlink");
	else
		done(t, 0);
	forget(vfs, r < 0 ? 0 : orphan);
}

static void rename_one(struct st_thread *t, struct ter_vfs *vfs)
{
	struct st_rec rec = { .op = ST_OP_RENAME };
	char from[TER_NAME_MAX + 1], to[TER_NAME_MAX + 1];
	uint64_t orphan = 0;
	unsigned source, target;
	int r;

	if (!pick_name(t, &rec.dir, &rec.name))
		return;
	rec.dir2 = (uint8_t)any(t, ST_DIR);
	rec.name2 = (uint8_t)below(t, ST_NAMES);
	source = t->m.name[rec.dir][rec.name] - 1u;
	target = t->m.name[rec.dir2][rec.name2];
	if (is_dir(t, source) && is_within(t, rec.dir2, source))
		return;
	if (target && !below(t, 4)) {
		if (is_dir(t, target - 1) && is_within(t, rec.dir, target - 1))
			return;
		rec.op = ST_OP_EXCHANGE;
	} else if (target && (is_dir(t, source) != is_dir(t, target - 1) || (is_dir(t, source) && !is_empty(t, target - 1)))) {
		return;
	}
	if (rec.dir == rec.dir2 && rec.name == rec.name2)
		return;
	st_name(rec.name, from);
	st_name(rec.name2, to);
	begin(t, &rec);
	r = ter_vfs_rename(vfs, &st_root, node(t, rec.dir), from, node(t, rec.dir2), to, rec.op == ST_OP_EXCHANGE ? RENAME_EXCHANGE : 0, &orphan);
	if (r < 0)
		refused(t, r, "rename");
	else
		done(t, 0);
	forget(vfs, r < 0 ? 0 : orphan);
}

static void set_xattr(struct st_thread *t, struct ter_vfs *vfs)
{
	struct st_rec rec = { .op = ST_OP_XATTR };
	const int obj = any_with_name(t);
	uint8_t value[4096];
	int r;

	if (obj < 0 || t->m.obj[obj].kind == ST_LNK)
		return;
	rec.obj = (uint8_t)obj;
	rec.value = t->m.obj[obj].xattr && !below(t, 3) ? 0 : 1 + below(t, 100000);
	begin(t, &rec);
	if (rec.value)
		r = ter_vfs_setxattr(vfs, &st_root, node(t, rec.obj), "user.st", value, st_xattr(rec.value, value), 0);
	else
		r = ter_vfs_removexattr(vfs, &st_root, node(t, rec.obj), "user.st");
	if (r < 0)
		refused(t, r, "setxattr");
	else
		done(t, 0);
}

static void set_mode(struct st_thread *t, struct ter_vfs *vfs)
{
	struct st_rec rec = { .op = ST_OP_MODE, .value = below(t, 01000) };
	const int obj = any_with_name(t);
	const struct ter_attr attr = { .mode = rec.value };
	int r;

	if (obj < 0 || t->m.obj[obj].kind == ST_LNK)
		return;
	rec.obj = (uint8_t)obj;
	begin(t, &rec);
	r = ter_vfs_setattr(vfs, &st_root, node(t, rec.obj), &attr, TER_SET_MODE, NULL);
	if (r < 0)
		refused(t, r, "setattr");
	else
		done(t, 0);
}

/* --- data --- */

static int fsync_obj(struct st_thread *t, struct ter_vfs *vfs, unsigned obj);

/* A file that can be worked on; -1: none. */
static int a_file(struct st_thread *t, struct ter_vfs *vfs)
{
	const int obj = any(t, ST_REG);

	if (obj < 0 || (t->m.obj[obj].unsure && !find_out(t, vfs, (unsigned)obj)))
		return -1;
	if (t->m.obj[obj].data_ops >= ST_FILE_OPS_MAX && fsync_obj(t, vfs, (unsigned)obj) < 0)
		return -1;
	return obj;
}

static void data_result(struct st_thread *t, struct ter_vfs *vfs, const struct st_rec *rec, int r, const char *what)
{
	if (r >= 0) {
		done(t, 0);
		return;
	}
	if (!st_allowed(r))
		st_finding("%s: %d, which nothing accounts for", what, r);
	half_done(t, vfs, rec->obj);
}

static void write_some(struct st_thread *t, struct ter_vfs *vfs)
{
	static const unsigned most[] = { 100, 5000, 5000, 30000, 150000 };
	struct st_rec rec = { .op = ST_OP_WRITE, .pattern = st_rnd(&t->rnd) };
	const int obj = a_file(t, vfs);
	uint8_t *buf;
	size_t bytes;
	int r;

	if (obj < 0)
		return;
	bytes = 1 + below(t, most[below(t, 5)]);
	rec.obj = (uint8_t)obj;
	switch (below(t, 4)) {
	case 0: /* at the end */
		rec.from = t->m.obj[obj].live_size;
		break;
	case 1:
		rec.from = 0;
		break;
	case 2: /* whole blocks */
		rec.from = ter_round_down(below(t, ST_FILE_MAX), 4096);
		bytes = ter_round_up(bytes, 4096);
		break;
	default:
		rec.from = below(t, ST_FILE_MAX);
		break;
	}
	if (rec.from >= ST_FILE_MAX)
		return;
	bytes = ter_min(bytes, (size_t)(ST_FILE_MAX - rec.from));
	rec.to = rec.from + bytes;
	rec.size = ter_max(t->m.obj[obj].live_size, rec.to);
	buf = malloc(bytes);
	if (!buf)
		abort();
	st_fill(buf, rec.pattern, rec.from, bytes);
	begin(t, &rec);
	r = st_write(vfs, node(t, rec.obj), rec.from, buf, bytes);
	data_result(t, vfs, &rec, r, "write");
	free(buf);
}

static void truncate_one(struct st_thread *t, struct ter_vfs *vfs)
{
	struct st_rec rec = { .op = ST_OP_TRUNCATE, .sets_size = true };
	const int obj = a_file(t, vfs);

	if (obj < 0)
		return;
	rec.obj = (uint8_t)obj;
	rec.from = rec.size = below(t, 3) ? below(t, (unsigned)t->m.obj[obj].live_size + 1) : below(t, ST_FILE_MAX);
	rec.to = UINT64_MAX;
	begin(t, &rec);
	data_result(t, vfs, &rec, st_truncate(vfs, node(t, rec.obj), rec.size), "truncate");
}

static void allocate(struct st_thread *t, struct ter_vfs *vfs)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0 };
	const int mode = modes[below(t, 3)];
	struct st_rec rec = { .op = mode ? ST_OP_ZERO : ST_OP_GROW };
	const int obj = a_file(t, vfs);

	if (obj < 0)
		return;
	rec.obj = (uint8_t)obj;
	rec.from = below(t, 2) ? below(t, ST_FILE_MAX) : ter_round_down(below(t, ST_FILE_MAX), 4096);
	rec.to = ter_min(rec.from + 1 + below(t, 60000), (uint64_t)ST_FILE_MAX);
	rec.size = mode ? t->m.obj[obj].live_size : ter_max(t->m.obj[obj].live_size, rec.to);
	rec.sets_size = !mode && rec.to > t->m.obj[obj].live_size;
	begin(t, &rec);
	data_result(t, vfs, &rec, ter_vfs_fallocate(vfs, &st_root, node(t, rec.obj), mode, rec.from, rec.to - rec.from), "fallocate");
}

static void read_and_compare(struct st_thread *t, struct ter_vfs *vfs)
{
	const int obj = a_file(t, vfs);
	const struct st_obj *o = &t->m.obj[obj < 0 ? 0 : obj];
	uint8_t *data;
	uint64_t from;
	size_t bytes;
	int64_t got, expected;

	if (obj < 0)
		return;
	from = below(t, 2) ? 0 : below(t, ST_FILE_MAX);
	bytes = below(t, 2) ? ST_FILE_MAX : 1 + below(t, 20000);
	expected = from >= o->live_size ? 0 : (int64_t)ter_min((uint64_t)bytes, o->live_size - from);
	data = malloc(bytes);
	if (!data)
		abort();
	got = st_read(vfs, o->node, from, data, bytes);
	if (got < 0 && !st_allowed((int)got))
		st_finding("read of file %llx: %lld", (unsigned long long)o->node, (long long)got);
	if (got >= 0 && got != expected)
		st_finding("read of file %llx at %llu: %lld bytes, not %lld", (unsigned long long)o->node, (unsigned long long)from, (long long)got,
			   (long long)expected);
	for (int64_t i = 0; i < got; i++)
		if (data[i] != t->live[obj][from + (uint64_t)i])
			st_finding("read of file %llx: byte %llu is %02x, not %02x", (unsigned long long)o->node, (unsigned long long)from + (uint64_t)i, data[i],
				   t->live[obj][from + (uint64_t)i]);
	free(data);
}

static void look_at_attributes(struct st_thread *t, struct ter_vfs *vfs)
{
	const int obj = any_with_name(t);
	const struct st_obj *o = &t->m.obj[obj < 0 ? 0 : obj];
	uint8_t value[4096], expected[4096];
	struct ter_attr attr;
	size_t bytes;
	ssize_t r;

	if (obj < 0)
		return;
	r = ter_vfs_getattr(vfs, &st_root, o->node, &attr);
	if (r < 0 && !st_allowed((int)r))
		st_finding("getattr of %llx: %zd", (unsigned long long)o->node, r);
	if (r < 0)
		return;
	if (attr.nlink != st_nlink(&t->m, (unsigned)obj) || (attr.mode & 07777) != o->mode ||
	    (o->kind == ST_REG && !o->unsure && attr.size != o->live_size))
		st_finding("node %llx has nlink %u, mode %o, size %llu, not %u, %o, %llu", (unsigned long long)o->node, attr.nlink, attr.mode,
			   (unsigned long long)attr.size, st_nlink(&t->m, (unsigned)obj), o->mode, (unsigned long long)o->live_size);
	r = ter_vfs_getxattr(vfs, &st_root, o->node, "user.st", value, sizeof(value));
	if (r < 0 && r != -ENODATA) {
		if (!st_allowed((int)r))
			st_finding("getxattr of %llx: %zd", (unsigned long long)o->node, r);
		return;
	}
	bytes = o->xattr ? st_xattr(o->xattr, expected) : 0;
	if (r == -ENODATA ? bytes : (size_t)r != bytes || memcmp(value, expected, bytes))
		st_finding("node %llx: its attribute is not value %u (%zd)", (unsigned long long)o->node, o->xattr, r);
}

/* --- making durable --- */

static int fsync_obj(struct st_thread *t, struct ter_vfs *vfs, unsigned obj)
{
	struct st_obj *o = &t->m.obj[obj];
	const int r = st_fsync(vfs, o->node);

	if (r < 0) {
		if (!st_allowed(r))
			st_finding("fsync of %llx: %d, which nothing accounts for", (unsigned long long)o->node, r);
		return r;
	}
	pthread_mutex_lock(&t->lock);
	t->floor = ter_max(t->floor, o->last_ns);
	if (o->kind == ST_REG && !o->unsure) {
		if (o->last_data > o->base_op)
			memcpy(t->base[obj], t->live[obj], ter_max(o->live_size, o->base_size));
		o->base_size = o->live_size;
		o->base_op = t->nr;
		o->data_ops = 0;
	}
	pthread_mutex_unlock(&t->lock);
	atomic_fetch_add(&st->syncs, 1);
	return 0;
}

static void sync_all(struct st_thread *t, struct ter_vfs *vfs)
{
	bool sure = true;
	int r;

	for (unsigned i = 0; i < ST_OBJS; i++)
		if (t->m.obj[i].unsure && st_links(&t->m, i) && !find_out(t, vfs, i))
			sure = false;
	r = ter_vfs_sync(vfs);
	if (r < 0) {
		if (!st_allowed(r))
			st_finding("sync: %d, which nothing accounts for", r);
		return;
	}
	pthread_mutex_lock(&t->lock);
	t->floor = t->nr;
	if (sure)
		st_forget_log(t);
	pthread_mutex_unlock(&t->lock);
	atomic_fetch_add(&st->syncs, 1);
}

static void fsync_one(struct st_thread *t, struct ter_vfs *vfs)
{
	const int obj = below(t, 4) ? any(t, ST_REG) : any(t, ST_DIR);

	if (obj >= 0)
		(void)fsync_obj(t, vfs, (unsigned)obj);
}

static void compare_a_dir(struct st_thread *t, struct ter_vfs *vfs)
{
	st_compare_dir(t, vfs, (unsigned)any(t, ST_DIR));
}

static const struct {
	const char *name;
	unsigned weight;
	void (*fn)(struct st_thread *t, struct ter_vfs *vfs);
} own_ops[] = {
	{ "create", 12, create }, { "link", 4, make_link }, { "unlink or rmdir", 6, remove_name }, { "rename", 8, rename_one }, { "setxattr", 6, set_xattr },
	{ "setattr", 3, set_mode }, { "write", 30, write_some }, { "truncate", 6, truncate_one }, { "fallocate", 6, allocate },
	{ "read", 16, read_and_compare }, { "getattr", 5, look_at_attributes }, { "readdir", 3, compare_a_dir }, { "fsync", 8, fsync_one }, { "sync", 1, sync_all },
};

void st_own_step(struct st_thread *t, struct ter_vfs *vfs)
{
	unsigned sum = 0, nr = 0;

	if (t->nr - t->first >= ST_LOG - 8) {
		snprintf(t->doing, sizeof(t->doing), "sync (log is full)");
		sync_all(t, vfs);
		if (t->nr - t->first >= ST_LOG - 8)
			return; /* faults, or read-only */
	}
	for (unsigned i = 0; i < sizeof(own_ops) / sizeof(own_ops[0]); i++)
		sum += own_ops[i].weight;
	sum = below(t, sum);
	while (sum >= own_ops[nr].weight)
		sum -= own_ops[nr++].weight;
	snprintf(t->doing, sizeof(t->doing), "%s", own_ops[nr].name);
	own_ops[nr].fn(t, vfs);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A seeded workload: each operation is done to the engine and to a model, and what the oracle needs of it is kept. */
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <linux/fs.h>

#include <cmocka.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"

#define NODES_FULL (TM_NODES_MAX - 10)

static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h", "name of some length.txt", "x.o", "y.o", "z.o" };

/* --- history --- */

static struct eng_node *history(struct eng *e, uint64_t node)
{
	for (unsigned i = e->nodes_nr; i-- > 0;)
		if (e->nodes[i].node == node)
			return &e->nodes[i];
	return NULL;
}

static void born(struct eng *e, struct tm_node *n, uint64_t node)
{
	if (e->nodes_nr == ENG_NODES_MAX)
		abort();
	n->node = node;
	e->nodes[e->nodes_nr++] = (struct eng_node){ .node = node, .born = e->ops_nr, .last_ns = e->ops_nr, .is_dir = S_ISDIR(n->mode) };
}

static void touched(struct eng *e, struct tm_node *n)
{
	struct eng_node *h = n ? history(e, n->node) : NULL;

	if (h)
		h->last_ns = e->ops_nr;
}

static void note_data(struct eng *e, struct tm_node *n, int kind, uint64_t from, uint64_t to, uint64_t pattern, bool sets_size)
{
	struct eng_node *h = history(e, n->node);

	if (h->ops_nr == h->ops_max) {
		h->ops_max = h->ops_max ? h->ops_max * 2 : 8;
		h->ops = realloc(h->ops, h->ops_max * sizeof(h->ops[0]));
		if (!h->ops)
			abort();
	}
	h->ops[h->ops_nr++] = (struct eng_data_op){ .op = e->ops_nr, .kind = kind, .from = from, .to = to, .size = n->size, .pattern = pattern,
						    .sets_size = sets_size };
	h->synced = false;
}

static uint64_t events(struct eng *e)
{
	struct ter_sim_stats stats;

	ter_sim_get_stats(e->sim, &stats);
	return stats.events;
}

static void note_floor(struct eng *e, unsigned op)
{
	e->floors[e->floors_nr++] = (struct eng_floor){ .event = events(e), .op = op };
}

static void take_base(struct eng *e, struct tm_node *n, struct eng_base *ret)
{
	*ret = (struct eng_base){ .op = e->ops_nr, .size = n->size, .data = malloc(n->size + 1) };
	if (!ret->data)
		abort();
	memcpy(ret->data, n->data, n->size);
}

static void add_base(struct eng *e, struct eng_node *h, const struct eng_base *base)
{
	h->bases = realloc(h->bases, (h->bases_nr + 1) * sizeof(h->bases[0]));
	if (!h->bases)
		abort();
	h->bases[h->bases_nr] = *base;
	h->bases[h->bases_nr++].event = events(e);
}

static void note_base(struct eng *e, struct tm_node *n)
{
	struct eng_node *h = history(e, n->node);
	struct eng_base base;

	if (!h || !S_ISREG(n->mode) || (h->synced && h->bases_nr))
		return;
	take_base(e, n, &base);
	add_base(e, h, &base);
	h->synced = true;
}

void eng_model_new(struct eng *e)
{
	e->tm = tm_new();
	e->ops_nr = e->floors_nr = e->nodes_nr = 0;
	e->nodes[e->nodes_nr++] = (struct eng_node){ .node = TER_NODE_ROOT, .is_dir = true };
	e->ns_hash[0] = eng_model_hash(e);
}

void eng_model_free(struct eng *e)
{
	for (unsigned i = 0; i < e->nodes_nr; i++) {
		for (unsigned b = 0; b < e->nodes[i].bases_nr; b++)
			free(e->nodes[i].bases[b].data);
		free(e->nodes[i].bases);
		free(e->nodes[i].ops);
	}
	tm_free(e->tm);
	e->tm = NULL;
}

uint8_t eng_byte(uint64_t pattern, uint64_t offset)
{
	const uint64_t x = (pattern + offset / 61) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)(1 + (x >> 40) % 255);
}

/* --- choosing --- */

static struct tm_node *a_node(struct eng *e, uint32_t type)
{
	struct tm_node *found = NULL;
	unsigned seen = 0;

	for (unsigned i = 0; i < TM_NODES_MAX; i++) {
		struct tm_node *n = &e->tm->nodes[i];

		if (n->used && n->nlink && (!type || (n->mode & S_IFMT) == type) && eng_below(e, ++seen) == 0)
			found = n;
	}
	return found;
}

static const char *a_name(struct eng *e)
{
	return names[eng_below(e, ARRAY_SIZE(names))];
}

/* One that is there, mostly. */
static const char *name_in(struct eng *e, struct tm_node *dir)
{
	return dir->entries_nr && eng_below(e, 5) ? dir->entry[eng_below(e, dir->entries_nr)].name : a_name(e);
}

static bool full(struct eng *e)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		nr += e->tm->nodes[i].used;
	return nr > NODES_FULL;
}

#define SAME(e, got, want)                                                                                             \
	do {                                                                                                           \
		const int got_ = (got), want_ = (want);                                                                \
		if (got_ != want_)                                                                                     \
			return eng_fail(e, "op %u, %s: %d, not %d", (e)->ops_nr, (e)->last_op, got_, want_);           \
	} while (0)

/* Did the call fail for a fault? Then the model is left as it is. What Linux says of names and kinds is never such an answer. */
static bool gave_up(struct eng *e, int r)
{
	if (!e->faulty || (r != -ENOMEM && r != -EIO && r != -EROFS && r != -EAGAIN && r != -ESHUTDOWN && r != -EBADMSG))
		return false;
	e->fault_r = r;
	e->failures++;
	return true;
}

/* --- operations --- */

static bool orphaned(struct eng *e, struct tm_node *model, uint64_t node)
{
	if (node != (model ? model->node : 0))
		return eng_fail(e, "op %u, %s: orphan %llx, not %llx", e->ops_nr, e->last_op, (unsigned long long)node,
				(unsigned long long)(model ? model->node : 0));
	if (model && eng_below(e, 4)) {
		ter_vfs_forget(e->vfs, model->node);
		tm_drop(e->tm, model);
	}
	return true;
}

static bool do_create(struct eng *e)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO };
	struct tm_node *dir = a_node(e, S_IFDIR), *node;
	const uint32_t mode = types[eng_below(e, ARRAY_SIZE(types))] | (eng_below(e, 2) ? 0644 : 0755);
	const char *name = a_name(e), *target = S_ISLNK(mode) ? a_name(e) : NULL;
	struct ter_attr attr;
	int got, want;

	if (full(e))
		return true;
	got = ter_vfs_create(e->vfs, &root_op, dir->node, name, mode, 0, target, &attr);
	if (gave_up(e, got))
		return true;
	want = tm_create(e->tm, dir, name, mode, 0, 0, 0, 0, target, &node);
	SAME(e, got, want);
	if (want == 0) {
		born(e, node, attr.node);
		touched(e, dir);
	}
	return true;
}

static bool do_link(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG), *dir = a_node(e, S_IFDIR);
	const char *name = a_name(e);
	int got, want;

	if (!node)
		return true;
	got = ter_vfs_link(e->vfs, &root_op, node->node, dir->node, name, NULL);
	if (gave_up(e, got))
		return true;
	want = tm_link(node, dir, name);
	SAME(e, got, want);
	if (want == 0) {
		touched(e, node);
		touched(e, dir);
	}
	return true;
}

static bool do_unlink(struct eng *e)
{
	struct tm_node *dir = a_node(e, S_IFDIR), *orphan, *node;
	char name[256];
	bool rmdir;
	uint64_t gone = 0;
	int got, want;

	snprintf(name, sizeof(name), "%s", name_in(e, dir));
	node = tm_lookup(dir, name);
	rmdir = node && S_ISDIR(node->mode);
	got = rmdir ? ter_vfs_rmdir(e->vfs, &root_op, dir->node, name, &gone) : ter_vfs_unlink(e->vfs, &root_op, dir->node, name, &gone);
	if (gave_up(e, got))
		return true;
	want = tm_unlink(e->tm, dir, name, rmdir, &orphan);
	SAME(e, got, want);
	if (want == 0) {
		touched(e, dir);
		touched(e, node);
	}
	return orphaned(e, orphan, gone);
}

static bool do_rename(struct eng *e)
{
	static const unsigned flags_of[] = { 0, 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	struct tm_node *from = a_node(e, S_IFDIR), *to = eng_below(e, 2) ? a_node(e, S_IFDIR) : from, *orphan, *whiteout, *moved, *other;
	const unsigned flags = flags_of[eng_below(e, ARRAY_SIZE(flags_of))];
	char from_name[256], to_name[256];
	uint64_t gone = 0;
	int got, want;

	snprintf(from_name, sizeof(from_name), "%s", name_in(e, from));
	snprintf(to_name, sizeof(to_name), "%s", eng_below(e, 2) ? name_in(e, to) : a_name(e));
	moved = tm_lookup(from, from_name);
	other = tm_lookup(to, to_name);
	got = ter_vfs_rename(e->vfs, &root_op, from->node, from_name, to->node, to_name, flags, &gone);
	if (gave_up(e, got))
		return true;
	want = tm_rename(e->tm, from, from_name, to, to_name, flags, &orphan, &whiteout);
	SAME(e, got, want);
	if (want == 0 && moved != other) {
		touched(e, moved);
		touched(e, other);
		touched(e, from);
		touched(e, to);
	}
	return orphaned(e, orphan, gone);
}

static bool write_range(struct eng *e, struct tm_node *node, uint64_t offset, unsigned bytes, bool append)
{
	static uint8_t buf[TM_FILE_MAX];
	const uint64_t pattern = eng_rnd(e);
	struct iovec iov = { buf, bytes };
	int got;

	for (unsigned i = 0; i < bytes; i++)
		buf[i] = eng_byte(pattern, offset + i);
	got = ter_vfs_write(e->vfs, &root_op, node->node, append ? 0 : offset, &iov, 1, append);
	if (gave_up(e, got))
		return true;
	SAME(e, got, 0);
	memcpy(node->data + offset, buf, bytes);
	node->size = ter_max(node->size, offset + bytes);
	note_data(e, node, ENG_WRITE, offset, offset + bytes, pattern, false);
	return true;
}

static bool do_write(struct eng *e)
{
	static const unsigned sizes[] = { 100, 3000, 9000, 40000 };
	struct tm_node *node = a_node(e, S_IFREG);
	unsigned bytes = 1 + eng_below(e, sizes[eng_below(e, ARRAY_SIZE(sizes))]);
	const bool append = eng_below(e, 3) == 0;
	uint64_t offset;

	if (!node)
		return true;
	offset = append ? node->size : eng_below(e, 3) ? eng_below(e, (unsigned)node->size + 10) : eng_below(e, TM_FILE_MAX);
	if (eng_below(e, 3) == 0)
		offset = append ? offset : offset & ~4095ull;
	if (offset >= TM_FILE_MAX)
		return true;
	bytes = ter_min(bytes, (unsigned)(TM_FILE_MAX - offset));
	return write_range(e, node, offset, bytes, append);
}

/* Of what takes several transactions some may have been committed. */
static bool done_in_part(struct eng *e, struct tm_node *n, enum eng_data_kind kind, uint64_t from, uint64_t to, uint64_t size, bool sets_size)
{
	struct eng_node *h = history(e, n->node);

	note_data(e, n, kind, from, to, 0, sets_size);
	h->ops[h->ops_nr - 1].size = size;
	h->ops[h->ops_nr - 1].maybe = true;
	e->unsettled = true;
	return true;
}

static bool do_truncate(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG);
	uint64_t size;

	int got;

	if (!node)
		return true;
	size = eng_below(e, 3) == 0 ? 0 : eng_below(e, 2) ? eng_below(e, (unsigned)node->size + 1) : eng_below(e, TM_FILE_MAX);
	got = truncate_to(e->vfs, node->node, size);
	if (gave_up(e, got))
		return done_in_part(e, node, ENG_TRUNCATE, size, size, size, true);
	SAME(e, got, 0);
	if (size < node->size)
		memset(node->data + size, 0, node->size - size);
	node->size = size;
	note_data(e, node, ENG_TRUNCATE, size, size, 0, true);
	return true;
}

static bool do_fallocate(struct eng *e)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	struct tm_node *node = a_node(e, S_IFREG);
	const int mode = modes[eng_below(e, ARRAY_SIZE(modes))];
	uint64_t offset = eng_below(e, TM_FILE_MAX - 1), end = ter_min((uint64_t)TM_FILE_MAX, offset + 1 + eng_below(e, 30000));
	const bool zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	const uint64_t size = node ? node->size : 0;
	int got;

	if (!node)
		return true;
	got = ter_vfs_fallocate(e->vfs, &root_op, node->node, mode, offset, end - offset);
	if (gave_up(e, got))
		return done_in_part(e, node, zero ? ENG_ZERO : ENG_GROW, offset, end, mode & FALLOC_FL_KEEP_SIZE ? size : ter_max(size, end),
				    !(mode & FALLOC_FL_KEEP_SIZE) && end > size);
	SAME(e, got, 0);
	if (zero)
		memset(node->data + offset, 0, end - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		node->size = ter_max(node->size, end);
	note_data(e, node, zero ? ENG_ZERO : ENG_GROW, offset, end, 0, !(mode & FALLOC_FL_KEEP_SIZE) && end > size);
	return true;
}

static bool do_xattr(struct eng *e)
{
	static const char *const xnames[] = { "user.a", "user.b", "trusted.c", "security.d" };
	struct tm_node *node = a_node(e, 0);
	const unsigned at = eng_below(e, ARRAY_SIZE(xnames));
	const size_t bytes = eng_below(e, eng_below(e, 4) ? 40 : 2000);
	uint8_t value[2000];
	const uint64_t pattern = eng_rnd(e);
	int got;

	if (S_ISLNK(node->mode) || S_ISFIFO(node->mode))
		return true;
	if (eng_below(e, 4) == 0) {
		got = ter_vfs_removexattr(e->vfs, &root_op, node->node, xnames[at]);
		if (gave_up(e, got))
			return true;
		SAME(e, got, node->xattr[at].used ? 0 : -ENODATA);
		if (node->xattr[at].used)
			touched(e, node);
		free(node->xattr[at].value);
		memset(&node->xattr[at], 0, sizeof(node->xattr[at]));
		return true;
	}
	for (size_t i = 0; i < bytes; i++)
		value[i] = eng_byte(pattern, i);
	got = ter_vfs_setxattr(e->vfs, &root_op, node->node, xnames[at], value, bytes, 0);
	if (gave_up(e, got))
		return true;
	SAME(e, got, 0);
	free(node->xattr[at].value);
	node->xattr[at].used = true;
	snprintf(node->xattr[at].name, sizeof(node->xattr[at].name), "%s", xnames[at]);
	node->xattr[at].value = malloc(bytes + 1);
	if (!node->xattr[at].value)
		abort();
	memcpy(node->xattr[at].value, value, bytes);
	node->xattr[at].bytes = bytes;
	touched(e, node);
	return true;
}

static bool do_chmod(struct eng *e)
{
	struct tm_node *node = a_node(e, 0);
	const struct ter_attr attr = { .mode = eng_below(e, 01000), .uid = eng_below(e, 3) };

	int got;

	if (S_ISLNK(node->mode))
		return true;
	got = ter_vfs_setattr(e->vfs, &root_op, node->node, &attr, TER_SET_MODE | TER_SET_UID, NULL);
	if (gave_up(e, got))
		return true;
	SAME(e, got, 0);
	node->mode = (node->mode & S_IFMT) | attr.mode;
	node->uid = attr.uid;
	touched(e, node);
	return true;
}

static bool do_fsync(struct eng *e)
{
	struct tm_node *node = a_node(e, eng_below(e, 4) ? S_IFREG : S_IFDIR);
	struct eng_node *h;
	int got;

	if (!node)
		return true;
	got = fsync_wait(e->vfs, &root_op, node->node);
	if (gave_up(e, got))
		return true;
	SAME(e, got, 0);
	h = history(e, node->node);
	note_floor(e, h->last_ns);
	note_base(e, node);
	return true;
}

static void async_done(struct ter_journal_waiter *waiter, int r)
{
	struct eng_async *a = ter_container_of(waiter, struct eng_async, waiter);

	if (r < 0) {
		free(a->base.data); /* the power is off */
	} else {
		note_floor(a->e, a->ns_op);
		add_base(a->e, history(a->e, a->node), &a->base);
	}
	a->busy = false;
}

/* The next operations go on beside its flushes. */
static bool do_async_fsync(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG);
	int got;

	for (unsigned i = 0; i < ENG_ASYNC_MAX && node; i++) {
		struct eng_async *a = &e->async[i];

		if (a->busy)
			continue;
		*a = (struct eng_async){ .waiter.fn = async_done, .e = e, .node = node->node, .busy = true, .ns_op = history(e, node->node)->last_ns };
		take_base(e, node, &a->base);
		got = ter_vfs_fsync_async(e->vfs, &root_op, node->node, true, &a->waiter);
		if (got < 0) { /* the waiter is not told */
			a->busy = false;
			free(a->base.data);
		}
		if (gave_up(e, got))
			return true;
		SAME(e, got, 0);
		break;
	}
	return true;
}

void eng_settle(struct eng *e)
{
	for (unsigned i = 0; i < ENG_ASYNC_MAX; i++)
		while (e->async[i].busy)
			ter_sleep_ns(e->exec, 1000000);
}

/* The way a careful program replaces a file. */
static bool do_replace(struct eng *e)
{
	struct tm_node *dir = a_node(e, S_IFDIR), *node, *orphan, *whiteout, *other = tm_lookup(dir, "config");
	struct ter_attr attr;
	uint64_t gone = 0;
	int got, want;

	if (full(e) || tm_lookup(dir, "config.new") || (other && S_ISDIR(other->mode)))
		return true;
	got = ter_vfs_create(e->vfs, &root_op, dir->node, "config.new", S_IFREG | 0600, 0, NULL, &attr);
	if (gave_up(e, got))
		return true;
	want = tm_create(e->tm, dir, "config.new", S_IFREG | 0600, 0, 0, 0, 0, NULL, &node);
	SAME(e, got, want);
	born(e, node, attr.node);
	touched(e, dir);
	e->ns_hash[e->ops_nr] = eng_model_hash(e);
	e->started[++e->ops_nr] = events(e);
	if (!write_range(e, node, 0, 1 + eng_below(e, 6000), false))
		return false;
	got = fsync_wait(e->vfs, &root_op, node->node);
	if (gave_up(e, got))
		return true;
	SAME(e, got, 0);
	note_floor(e, history(e, node->node)->last_ns);
	note_base(e, node);
	e->ns_hash[e->ops_nr] = eng_model_hash(e);
	e->started[++e->ops_nr] = events(e);
	got = ter_vfs_rename(e->vfs, &root_op, dir->node, "config.new", dir->node, "config", 0, &gone);
	if (gave_up(e, got))
		return true;
	want = tm_rename(e->tm, dir, "config.new", dir, "config", 0, &orphan, &whiteout);
	SAME(e, got, want);
	touched(e, node);
	touched(e, dir);
	touched(e, other);
	if (!orphaned(e, orphan, gone))
		return false;
	if (eng_below(e, 2)) {
		got = fsync_wait(e->vfs, &root_op, dir->node);
		if (gave_up(e, got))
			return true;
		SAME(e, got, 0);
		note_floor(e, e->ops_nr);
	}
	return true;
}

static void all_durable(struct eng *e)
{
	note_floor(e, e->ops_nr);
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (e->tm->nodes[i].used)
			note_base(e, &e->tm->nodes[i]);
}

static bool do_sync(struct eng *e)
{
	const int got = ter_fs_sync(e->fs);

	if (gave_up(e, got))
		return true;
	SAME(e, got, 0);
	all_durable(e);
	return true;
}

/* Background work gets its time; after the commit interval nothing needs a sync. */
static bool do_wait(struct eng *e)
{
	const uint64_t ms = eng_below(e, 4) ? eng_below(e, 400) : 3ull * e->options.journal_flush_ms;

	ter_sleep_ns(e->exec, ms * 1000000);
	if (ms >= 3ull * e->options.journal_flush_ms && !e->faulty)
		all_durable(e);
	return true;
}

bool eng_stopped(struct eng *e)
{
	all_durable(e);
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (e->tm->nodes[i].used && !e->tm->nodes[i].nlink)
			tm_drop(e->tm, &e->tm->nodes[i]);
	return true;
}

static bool run_op(struct eng *e, const char *name, bool (*fn)(struct eng *e))
{
	bool ok;

	if (e->ops_nr + 4 >= ENG_OPS_MAX)
		return eng_fail(e, "the history is full");
	e->last_op = name;
	e->started[++e->ops_nr] = events(e);
	e->ns_hash[e->ops_nr] = e->ns_hash[e->ops_nr - 1];
	ok = fn(e);
	e->ns_hash[e->ops_nr] = eng_model_hash(e);
	return ok && !e->failed;
}

bool eng_sync_all(struct eng *e)
{
	return run_op(e, "sync", do_sync);
}

bool eng_step(struct eng *e)
{
	static const struct {
		const char *name;
		bool (*fn)(struct eng *e);
		unsigned weight;
	} ops[] = {
		{ "create", do_create, 18 }, { "link", do_link, 5 }, { "unlink", do_unlink, 10 }, { "rename", do_rename, 12 }, { "write", do_write, 24 },
		{ "truncate", do_truncate, 7 }, { "fallocate", do_fallocate, 6 }, { "xattr", do_xattr, 8 }, { "chmod", do_chmod, 3 },
		{ "fsync", do_fsync, 7 }, { "async fsync", do_async_fsync, 6 }, { "replace", do_replace, 5 }, { "sync", do_sync, 2 }, { "wait", do_wait, 4 },
	};
	unsigned sum = 0, dice;

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		sum += ops[i].weight;
	dice = eng_below(e, sum);
	for (unsigned i = 0;; i++) {
		if (dice < ops[i].weight)
			return run_op(e, ops[i].name, ops[i].fn);
		dice -= ops[i].weight;
	}
}

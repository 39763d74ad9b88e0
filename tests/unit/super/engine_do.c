/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Single operations: each is done to the engine and to a model, compared, and what the oracle needs of it is kept. */
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <linux/fs.h>

#include <cmocka.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"

/* --- history --- */

static struct eng_node *history(struct eng *e, uint64_t node)
{
	for (unsigned i = e->nodes_nr; i-- > 0;)
		if (e->nodes[i].node == node)
			return &e->nodes[i];
	return NULL;
}

static uint64_t ns_of(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The engine alone knows what time it was: what it says now is what must be found later. */
static void note_times(struct eng *e, struct tm_node *n, struct eng_node *h, bool attributes)
{
	struct ter_attr attr;

	if (ter_vfs_getattr(e->vfs, &root_op, n->node, &attr) < 0)
		return;
	n->mtime_ns = ns_of(attr.mtime);
	n->ctime_ns = ns_of(attr.ctime);
	if (!S_ISREG(n->mode))
		return; /* in the hash of all names */
	if (h->times_nr == h->times_max) {
		h->times_max = h->times_max ? h->times_max * 2 : 8;
		h->times = realloc(h->times, h->times_max * sizeof(h->times[0]));
		if (!h->times)
			abort();
	}
	h->times[h->times_nr++] = (struct eng_times){ .op = e->ops_nr, .mtime_ns = n->mtime_ns, .ctime_ns = n->ctime_ns, .attributes = attributes };
}

static void born(struct eng *e, struct tm_node *n, uint64_t node)
{
	if (e->nodes_nr == ENG_NODES_MAX)
		abort();
	n->node = node;
	e->nodes[e->nodes_nr] = (struct eng_node){ .node = node, .born = e->ops_nr, .last_ns = e->ops_nr, .is_dir = S_ISDIR(n->mode) };
	note_times(e, n, &e->nodes[e->nodes_nr++], true);
}

static void touched(struct eng *e, struct tm_node *n)
{
	struct eng_node *h = n ? history(e, n->node) : NULL;

	if (!h)
		return;
	h->last_ns = e->ops_nr;
	note_times(e, n, h, true);
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
	note_times(e, n, h, false);
}

static uint64_t events(struct eng *e)
{
	struct ter_sim_stats stats;

	ter_sim_get_stats(e->sim, &stats);
	return stats.events;
}

static void note_floor(struct eng *e, unsigned op)
{
	const uint64_t event = events(e); /* another task may note something meanwhile */

	if (e->floors_nr == ENG_FLOORS_MAX)
		abort();
	e->floors[e->floors_nr++] = (struct eng_floor){ .event = event, .op = op };
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
	const uint64_t event = events(e); /* another task may note something meanwhile */

	h->bases = realloc(h->bases, (h->bases_nr + 1) * sizeof(h->bases[0]));
	if (!h->bases)
		abort();
	h->bases[h->bases_nr] = *base;
	h->bases[h->bases_nr++].event = event;
}

static void note_base(struct eng *e, struct tm_node *n, bool datasync)
{
	struct eng_node *h = history(e, n->node);
	struct eng_base base;

	if (!h || !S_ISREG(n->mode) || (h->synced && h->bases_nr))
		return;
	take_base(e, n, &base);
	base.datasync = datasync;
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

bool eng_model_root(struct eng *e)
{
	struct ter_attr attr;

	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, TER_NODE_ROOT, &attr) == 0);
	e->tm->root->mtime_ns = ns_of(attr.mtime);
	e->tm->root->ctime_ns = ns_of(attr.ctime);
	e->judge_times = true;
	e->ns_hash[e->ops_nr] = eng_model_hash(e);
	return true;
}

void eng_model_free(struct eng *e)
{
	for (unsigned i = 0; i < e->nodes_nr; i++) {
		for (unsigned b = 0; b < e->nodes[i].bases_nr; b++)
			free(e->nodes[i].bases[b].data);
		free(e->nodes[i].bases);
		free(e->nodes[i].times);
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

#define SAME(e, got, want)                                                                                             \
	do {                                                                                                           \
		const int got_ = (got), want_ = (want);                                                                \
		if (got_ != want_)                                                                                     \
			return eng_fail(e, "op %u, %s: %d, not %d", (e)->ops_nr, (e)->last_op, got_, want_);           \
	} while (0)

/* Did the call fail for a fault? Then the model is left as it is. What Linux says of names and kinds is never such an answer. */
bool eng_gave_up(struct eng *e, int r)
{
	if (!e->faulty || (r != -ENOMEM && r != -EIO && r != -EROFS && r != -EAGAIN && r != -ESHUTDOWN && r != -EBADMSG))
		return false;
	e->fault_r = r;
	e->failures++;
	return true;
}

/* Or because nothing more fits, where the workload means to get there? */
static bool full_up(struct eng *e, int r)
{
	if (!e->may_fill || r != -ENOSPC)
		return false;
	e->full_nr++;
	return true;
}

static bool refused(struct eng *e, int r)
{
	return eng_gave_up(e, r) || full_up(e, r);
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

bool eng_do_create(struct eng *e, struct tm_node *dir, const char *name, uint32_t mode, const char *target, struct tm_node **ret_node)
{
	struct ter_attr attr;
	struct tm_node *node;
	int got, want;

	if (ret_node)
		*ret_node = NULL;
	got = ter_vfs_create(e->vfs, &root_op, dir->node, name, mode, 0, target, &attr);
	if (refused(e, got))
		return true;
	want = tm_create(e->tm, dir, name, mode, 0, 0, 0, 0, target, &node);
	SAME(e, got, want);
	if (want < 0)
		return true;
	born(e, node, attr.node);
	touched(e, dir);
	if (ret_node)
		*ret_node = node;
	return true;
}

bool eng_do_link(struct eng *e, struct tm_node *node, struct tm_node *dir, const char *name)
{
	int got, want;

	got = ter_vfs_link(e->vfs, &root_op, node->node, dir->node, name, NULL);
	if (refused(e, got))
		return true;
	want = tm_link(node, dir, name);
	SAME(e, got, want);
	if (want == 0) {
		touched(e, node);
		touched(e, dir);
	}
	return true;
}

bool eng_do_unlink(struct eng *e, struct tm_node *dir, const char *name, bool rmdir)
{
	struct tm_node *orphan, *node = tm_lookup(dir, name);
	uint64_t gone = 0;
	int got, want;

	got = rmdir ? ter_vfs_rmdir(e->vfs, &root_op, dir->node, name, &gone) : ter_vfs_unlink(e->vfs, &root_op, dir->node, name, &gone);
	if (eng_gave_up(e, got))
		return true;
	want = tm_unlink(e->tm, dir, name, rmdir, &orphan);
	SAME(e, got, want);
	if (want == 0) {
		touched(e, dir);
		touched(e, node);
	}
	return orphaned(e, orphan, gone);
}

bool eng_do_rename(struct eng *e, struct tm_node *from, const char *from_name, struct tm_node *to, const char *to_name, unsigned flags)
{
	struct tm_node *moved = tm_lookup(from, from_name), *other = tm_lookup(to, to_name), *orphan, *whiteout;
	uint64_t gone = 0;
	int got, want;

	got = ter_vfs_rename(e->vfs, &root_op, from->node, from_name, to->node, to_name, flags, &gone);
	if (refused(e, got))
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

bool eng_do_write(struct eng *e, struct tm_node *node, uint64_t offset, unsigned bytes, bool append)
{
	static uint8_t buf[TM_FILE_MAX];
	const uint64_t pattern = eng_rnd(e);
	struct iovec iov = { buf, bytes };
	int got;

	for (unsigned i = 0; i < bytes; i++)
		buf[i] = eng_byte(pattern, offset + i);
	got = ter_vfs_write(e->vfs, &root_op, node->node, append ? 0 : offset, &iov, 1, append);
	if (refused(e, got))
		return true;
	SAME(e, got, 0);
	memcpy(node->data + offset, buf, bytes);
	node->size = ter_max(node->size, offset + bytes);
	note_data(e, node, ENG_WRITE, offset, offset + bytes, pattern, false);
	return true;
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

bool eng_do_truncate(struct eng *e, struct tm_node *node, uint64_t size)
{
	const int got = truncate_to(e->vfs, node->node, size);

	if (refused(e, got))
		return done_in_part(e, node, ENG_TRUNCATE, size, size, size, true);
	SAME(e, got, 0);
	if (size < node->size)
		memset(node->data + size, 0, node->size - size);
	node->size = size;
	note_data(e, node, ENG_TRUNCATE, size, size, 0, true);
	return true;
}

bool eng_do_fallocate(struct eng *e, struct tm_node *node, int mode, uint64_t offset, uint64_t end)
{
	const bool zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	const uint64_t size = node->size;
	int got;

	got = ter_vfs_fallocate(e->vfs, &root_op, node->node, mode, offset, end - offset);
	if (refused(e, got))
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

static const char *const xattr_names[TM_XATTRS_MAX] = { "user.a", "user.b", "trusted.c", "security.d" };

bool eng_do_removexattr(struct eng *e, struct tm_node *node, unsigned which)
{
	const int got = ter_vfs_removexattr(e->vfs, &root_op, node->node, xattr_names[which]);

	if (refused(e, got))
		return true;
	SAME(e, got, node->xattr[which].used ? 0 : -ENODATA);
	if (node->xattr[which].used)
		touched(e, node);
	free(node->xattr[which].value);
	memset(&node->xattr[which], 0, sizeof(node->xattr[which]));
	return true;
}

bool eng_do_setxattr(struct eng *e, struct tm_node *node, unsigned which, size_t bytes, uint64_t pattern)
{
	uint8_t value[ENG_XATTR_MAX];
	int got;

	for (size_t i = 0; i < bytes; i++)
		value[i] = eng_byte(pattern, i);
	got = ter_vfs_setxattr(e->vfs, &root_op, node->node, xattr_names[which], value, bytes, 0);
	if (refused(e, got))
		return true;
	SAME(e, got, 0);
	free(node->xattr[which].value);
	node->xattr[which].used = true;
	snprintf(node->xattr[which].name, sizeof(node->xattr[which].name), "%s", xattr_names[which]);
	node->xattr[which].value = malloc(bytes + 1);
	if (!node->xattr[which].value)
		abort();
	memcpy(node->xattr[which].value, value, bytes);
	node->xattr[which].bytes = bytes;
	touched(e, node);
	return true;
}

bool eng_do_chmod(struct eng *e, struct tm_node *node, uint32_t mode, uint32_t uid)
{
	const struct ter_attr attr = { .mode = mode, .uid = uid };
	const int got = ter_vfs_setattr(e->vfs, &root_op, node->node, &attr, TER_SET_MODE | TER_SET_UID, NULL);

	if (refused(e, got))
		return true;
	SAME(e, got, 0);
	node->mode = (node->mode & S_IFMT) | attr.mode;
	node->uid = attr.uid;
	touched(e, node);
	return true;
}

/* --- what makes durable --- */

struct datasync {
	struct ter_journal_waiter waiter;
	struct ter_event event;
};

static void datasync_done(struct ter_journal_waiter *waiter, int r)
{
	ter_event_set(&ter_container_of(waiter, struct datasync, waiter)->event, r);
}

static int fdatasync_wait(struct ter_vfs *vfs, uint64_t node)
{
	struct datasync w = { .waiter.fn = datasync_done };
	int r;

	ter_event_init(&w.event);
	r = ter_vfs_fsync_async(vfs, &root_op, node, true, &w.waiter);
	if (r >= 0)
		r = ter_event_wait(&w.event);
	ter_event_destroy(&w.event);
	return r;
}

bool eng_do_fsync(struct eng *e, struct tm_node *node, bool datasync)
{
	const int got = datasync ? fdatasync_wait(e->vfs, node->node) : fsync_wait(e->vfs, &root_op, node->node);

	if (eng_gave_up(e, got))
		return true;
	SAME(e, got, 0);
	note_floor(e, history(e, node->node)->last_ns);
	note_base(e, node, datasync);
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
bool eng_do_async_fsync(struct eng *e, struct tm_node *node)
{
	int got;

	for (unsigned i = 0; i < ENG_ASYNC_MAX; i++) {
		struct eng_async *a = &e->async[i];

		if (a->busy)
			continue;
		*a = (struct eng_async){ .waiter.fn = async_done, .e = e, .node = node->node, .busy = true, .ns_op = history(e, node->node)->last_ns };
		take_base(e, node, &a->base);
		a->base.datasync = true;
		got = ter_vfs_fsync_async(e->vfs, &root_op, node->node, true, &a->waiter);
		if (got < 0) { /* the waiter is not told */
			a->busy = false;
			free(a->base.data);
		}
		if (eng_gave_up(e, got))
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

void eng_all_durable(struct eng *e)
{
	note_floor(e, e->ops_nr);
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (e->tm->nodes[i].used)
			note_base(e, &e->tm->nodes[i], false);
}

bool eng_do_sync(struct eng *e)
{
	const int got = ter_fs_sync(e->fs);

	if (eng_gave_up(e, got))
		return true;
	SAME(e, got, 0);
	eng_all_durable(e);
	return true;
}

/* Background work gets its time; after the commit interval nothing needs a sync. */
bool eng_do_wait(struct eng *e, uint64_t ms)
{
	ter_sleep_ns(e->exec, ms * 1000000);
	if (ms >= 3ull * e->options.journal_flush_ms && !e->faulty)
		eng_all_durable(e);
	return true;
}

bool eng_do_read_only(struct eng *e)
{
	eng_settle(e);
	ter_error_clear(&e->error);
	if (ter_fs_set_read_only(e->fs, true, &e->error) < 0)
		return eng_fail(e, "op %u, read-only: %s", e->ops_nr, e->error.text);
	eng_all_durable(e);
	if (ter_fs_set_read_only(e->fs, false, &e->error) < 0)
		return eng_fail(e, "op %u, read-write again: %s", e->ops_nr, e->error.text);
	return true;
}

bool eng_stopped(struct eng *e)
{
	eng_all_durable(e);
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (e->tm->nodes[i].used && !e->tm->nodes[i].nlink)
			tm_drop(e->tm, &e->tm->nodes[i]);
	return true;
}

bool eng_op_begin(struct eng *e, const char *name)
{
	if (e->ops_nr + 4 >= ENG_OPS_MAX)
		return eng_fail(e, "the history is full");
	e->last_op = name;
	eng_op_next(e);
	return true;
}

void eng_op_next(struct eng *e)
{
	const uint64_t event = events(e);

	e->started[++e->ops_nr] = event;
	e->ns_hash[e->ops_nr] = e->ns_hash[e->ops_nr - 1];
	e->op_name[e->ops_nr] = e->last_op;
}

bool eng_op_end(struct eng *e, bool ok)
{
	e->ns_hash[e->ops_nr] = eng_model_hash(e);
	return ok && !e->failed;
}

bool eng_sync_all(struct eng *e)
{
	return eng_op_begin(e, "sync") && eng_op_end(e, eng_do_sync(e));
}

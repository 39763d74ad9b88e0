/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may be found after a crash
 *
 * Names, links and attributes are in one order: what is found equals the model after some number k of operations, at least as many as syncs completed before the cut
 * made durable, at most as many as were issued. Of a file's bytes each is as the newest sync left it, or as an operation after that (and before k + 1) wrote it; a truncation
 * or a hole that is within the k operations has happened. Where the times are judged (eng_model_root()), a directory's, symbolic link's or special file's go with its
 * attributes; a file's are those after one of its operations, no older than its newest sync or change of attributes.
 */
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"

#define LIST_MAX 1024

uint64_t eng_hash_bytes(uint64_t h, const void *bytes, size_t nr)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < nr; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h ^ h >> 29;
}

static uint64_t hash_u64(uint64_t h, uint64_t x)
{
	return eng_hash_bytes(h, &x, sizeof(x));
}

static uint64_t hash_node(uint64_t node, uint32_t mode, uint32_t uid, uint32_t nlink, const char *target, uint64_t xattrs)
{
	uint64_t h = hash_u64(0xcbf29ce484222325ull, node);

	h = hash_u64(h, (uint64_t)mode << 32 | nlink);
	h = hash_u64(h, uid);
	if (target)
		h = eng_hash_bytes(h, target, strlen(target));
	return hash_u64(h, xattrs);
}

static uint64_t hash_times(uint64_t node, uint64_t mtime_ns, uint64_t ctime_ns)
{
	return hash_u64(hash_u64(hash_u64(0x27d4eb2f165667c5ull, node), mtime_ns), ctime_ns);
}

static uint64_t ns_of(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t hash_entry(uint64_t dir, const char *name, uint64_t node)
{
	return hash_u64(eng_hash_bytes(hash_u64(0x9ddfea08eb382d69ull, dir), name, strlen(name)), node);
}

static uint64_t hash_xattr(const char *name, const void *value, size_t bytes)
{
	return hash_u64(eng_hash_bytes(eng_hash_bytes(0x2545f4914f6cdd1dull, name, strlen(name)), value, bytes), bytes);
}

/* Sums, so that no order is needed. */
uint64_t eng_model_hash(struct eng *e)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < TM_NODES_MAX; i++) {
		const struct tm_node *n = &e->tm->nodes[i];
		uint64_t xattrs = 0;

		if (!n->used || !n->nlink)
			continue;
		for (unsigned x = 0; x < TM_XATTRS_MAX; x++)
			if (n->xattr[x].used)
				xattrs += hash_xattr(n->xattr[x].name, n->xattr[x].value, n->xattr[x].bytes);
		sum += hash_node(n->node, n->mode, n->uid, n->nlink, n->target, xattrs);
		if (e->judge_times && !S_ISREG(n->mode))
			sum += hash_times(n->node, n->mtime_ns, n->ctime_ns);
		for (unsigned k = 0; k < n->entries_nr; k++)
			sum += hash_entry(n->node, n->entry[k].name, n->entry[k].node->node);
	}
	return sum;
}

/* --- what is there --- */

#define AFTER "after " /* begins the names that eng_goes_on() makes in the root directory */

struct seen {
	struct eng *e;
	uint64_t sum, dir;
	struct ter_attr list[LIST_MAX]; /* files and directories, each once */
	unsigned nr, next;
	bool too_many;
	bool but_after; /* leave out what eng_goes_on() made, and so its parent's own attributes */
};

static void see_node(struct seen *s, const struct ter_attr *attr)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (s->list[i].node == attr->node)
			return;
	if (s->nr == LIST_MAX)
		s->too_many = true;
	else
		s->list[s->nr++] = *attr;
}

static int see_entry(void *arg, const struct ter_dirent *d)
{
	struct seen *s = arg;

	if (!strcmp(d->name, ".") || !strcmp(d->name, "..") || (s->but_after && !strncmp(d->name, AFTER, strlen(AFTER))))
		return 0;
	s->sum += hash_entry(s->dir, d->name, d->node);
	if (d->attr)
		see_node(s, d->attr);
	return 0;
}

static bool hash_xattrs(struct eng *e, uint64_t node, uint64_t *ret)
{
	static char list[4096];
	static uint8_t value[70000];
	ssize_t r = ter_vfs_listxattr(e->vfs, &root_op, node, list, sizeof(list));

	*ret = 0;
	if (r < 0)
		return eng_fail(e, "listxattr of %llx: %d", (unsigned long long)node, (int)r);
	for (const char *name = list; name < list + r; name += strlen(name) + 1) {
		const ssize_t bytes = ter_vfs_getxattr(e->vfs, &root_op, node, name, value, sizeof(value));

		if (bytes < 0)
			return eng_fail(e, "getxattr of %llx, %s: %d", (unsigned long long)node, name, (int)bytes);
		*ret += hash_xattr(name, value, (size_t)bytes);
	}
	return true;
}

static bool look(struct eng *e, struct seen *s, bool but_after)
{
	struct ter_attr root;

	*s = (struct seen){ .e = e, .but_after = but_after };
	if (ter_vfs_getattr(e->vfs, &root_op, TER_NODE_ROOT, &root) < 0)
		return eng_fail(e, "there is no root directory");
	see_node(s, &root);
	for (s->next = 0; s->next < s->nr; s->next++) {
		const struct ter_attr *a = &s->list[s->next];
		char target[TER_SYMLINK_MAX + 1];
		uint64_t xattrs;
		int r;

		if (!hash_xattrs(e, a->node, &xattrs))
			return false;
		if (S_ISLNK(a->mode)) {
			r = ter_vfs_readlink(e->vfs, &root_op, a->node, target);
			if (r < 0)
				return eng_fail(e, "readlink of %llx: %d", (unsigned long long)a->node, r);
		}
		if (!but_after || a->node != TER_NODE_ROOT)
			s->sum += hash_node(a->node, a->mode, a->uid, a->nlink, S_ISLNK(a->mode) ? target : NULL, xattrs);
		if (e->judge_times && !S_ISREG(a->mode) && (!but_after || a->node != TER_NODE_ROOT))
			s->sum += hash_times(a->node, ns_of(a->mtime), ns_of(a->ctime));
		if (S_ISDIR(a->mode)) {
			s->dir = a->node;
			r = ter_vfs_readdir(e->vfs, &root_op, a->node, 0, true, see_entry, s);
			if (r < 0)
				return eng_fail(e, "readdir of %llx: %d", (unsigned long long)a->node, r);
		}
	}
	return s->too_many ? eng_fail(e, "more nodes than the oracle can hold") : true;
}

/* --- bytes --- */

struct span {
	unsigned low, high; /* k is at least low, at most high */
};

static const struct eng_node *history(struct eng *e, uint64_t node)
{
	for (unsigned i = e->nodes_nr; i-- > 0;)
		if (e->nodes[i].node == node)
			return &e->nodes[i];
	return NULL;
}

static const struct eng_base *base_at(const struct eng_node *h, uint64_t at)
{
	const struct eng_base *best = NULL;

	for (unsigned i = 0; i < h->bases_nr; i++)
		if (h->bases[i].event < at && (!best || h->bases[i].op >= best->op))
			best = &h->bases[i];
	return best;
}

static bool size_allowed(const struct eng_node *h, const struct eng_base *base, struct span k, uint64_t size)
{
	uint64_t least = base ? base->size : 0;
	bool allowed = size == least;

	for (unsigned i = 0; i < h->ops_nr && h->ops[i].op <= k.high; i++) {
		const struct eng_data_op *op = &h->ops[i];

		if (base && op->op <= base->op && !op->maybe)
			continue;
		if (op->sets_size) {
			const bool happened = op->op <= k.low && !op->maybe;

			if (happened)
				allowed = false; /* what came before is over */
			least = happened ? op->size : ter_min(least, op->size);
		}
		/* What was written may be committed in parts, of whole blocks; up to the end of the last, what no part wrote is zeros. */
		allowed = allowed || op->size == size || (op->kind == ENG_WRITE && size > least && size < op->to && size % TER_KIB(4) == 0);
	}
	return allowed;
}

static bool byte_allowed(const struct eng_node *h, const struct eng_base *base, struct span k, uint64_t at, uint8_t byte)
{
	bool allowed = byte == (base && at < base->size ? base->data[at] : 0);

	for (unsigned i = 0; i < h->ops_nr && h->ops[i].op <= k.high; i++) {
		const struct eng_data_op *op = &h->ops[i];

		if (base && op->op <= base->op && !op->maybe)
			continue;
		if (op->kind == ENG_WRITE) {
			allowed = allowed || (at >= op->from && at < op->to && byte == eng_byte(op->pattern, at));
		} else if ((op->kind == ENG_TRUNCATE && at >= op->from) || (op->kind == ENG_ZERO && at >= op->from && at < op->to)) {
			if (op->op <= k.low && !op->maybe)
				allowed = false;
			allowed = allowed || !byte;
		}
	}
	return allowed;
}

/* The size on disk never runs ahead of the data: the last byte of a file that writes alone made longer is theirs. */
static bool end_allowed(const struct eng_node *h, const struct eng_base *base, struct span k, uint64_t size, const uint8_t *data)
{
	if (!size || size <= (base ? base->size : 0) || data[size - 1])
		return true;
	for (unsigned i = 0; i < h->ops_nr && h->ops[i].op <= k.high; i++)
		if ((!base || h->ops[i].op > base->op || h->ops[i].maybe) && h->ops[i].kind != ENG_WRITE)
			return true;
	return false;
}

static bool times_allowed(const struct eng_node *h, const struct ter_attr *attr, struct span k, uint64_t at)
{
	const uint64_t mtime_ns = ns_of(attr->mtime), ctime_ns = ns_of(attr->ctime);
	bool mtime = false, ctime = false;
	unsigned from = 0, since = 0;

	/* Without a sync from its birth on: an operation may make a file and write to it, and the second need not be durable with the first. */
	for (unsigned i = 0; i < h->bases_nr; i++)
		if (h->bases[i].event < at && !h->bases[i].datasync)
			since = ter_max(since, h->bases[i].op);
	for (unsigned i = 0; i < h->times_nr && since; i++)
		if (h->times[i].op <= since)
			from = i;
	/* A sync that found nothing of the file to write promises its times, and nothing of other files: it may lie behind the moment that the names are of. */
	for (unsigned i = from; i < h->times_nr && (i == from || h->times[i].op <= k.high); i++) {
		const struct eng_times *t = &h->times[i];

		if (t->attributes && t->op <= k.low)
			ctime = false; /* what came before is over */
		mtime = mtime || t->mtime_ns == mtime_ns;
		ctime = ctime || t->ctime_ns == ctime_ns;
	}
	return mtime && ctime;
}

/* What was done to a file, for whoever looks into a failure. */
static void describe(const struct eng *e, const struct eng_node *h)
{
	static const char *const kinds[] = { "write", "truncate", "zero", "grow" };

	fprintf(stderr, "file %llx, made by op %u:\n", (unsigned long long)h->node, h->born);
	for (unsigned i = 0; i < h->ops_nr; i++)
		fprintf(stderr, "  op %u: %s %llu..%llu, size then %llu%s\n", h->ops[i].op, kinds[h->ops[i].kind], (unsigned long long)h->ops[i].from,
			(unsigned long long)h->ops[i].to, (unsigned long long)h->ops[i].size, h->ops[i].sets_size ? " (set)" : "");
	for (unsigned i = 0; i < h->times_nr; i++)
		fprintf(stderr, "  op %u: mtime %llu, ctime %llu%s\n", h->times[i].op, (unsigned long long)h->times[i].mtime_ns,
			(unsigned long long)h->times[i].ctime_ns, h->times[i].attributes ? " (attributes)" : "");
	for (unsigned i = 0; i < h->bases_nr; i++)
		fprintf(stderr, "  durable after op %u, %s (event %llu): size %llu\n", h->bases[i].op,
			e->op_name[h->bases[i].op] ? e->op_name[h->bases[i].op] : "", (unsigned long long)h->bases[i].event,
			(unsigned long long)h->bases[i].size);
}

static bool judge_file(struct eng *e, const struct ter_attr *attr, struct span k, uint64_t at)
{
	static uint8_t data[TM_FILE_MAX + 4096];
	const struct eng_node *h = history(e, attr->node);
	const struct eng_base *base = base_at(h, at);
	int64_t got;

	if (attr->size > TM_FILE_MAX)
		return eng_fail(e, "file %llx has %llu bytes", (unsigned long long)attr->node, (unsigned long long)attr->size);
	if (!size_allowed(h, base, k, attr->size)) {
		describe(e, h);
		return eng_fail(e, "file %llx: size %llu was never it since its sync (op %d, size %llu); k %u..%u", (unsigned long long)attr->node,
				(unsigned long long)attr->size, base ? (int)base->op : -1, base ? (unsigned long long)base->size : 0, k.low, k.high);
	}
	if (e->judge_times && !times_allowed(h, attr, k, at)) {
		describe(e, h);
		return eng_fail(e, "file %llx: mtime %llu and ctime %llu were never its since its sync; k %u..%u", (unsigned long long)attr->node,
				(unsigned long long)ns_of(attr->mtime), (unsigned long long)ns_of(attr->ctime), k.low, k.high);
	}
	got = read_all(e->vfs, attr->node, data, sizeof(data));
	if (got != (int64_t)attr->size)
		return eng_fail(e, "file %llx: reading gives %lld, not %llu", (unsigned long long)attr->node, (long long)got,
				(unsigned long long)attr->size);
	if (!end_allowed(h, base, k, attr->size, data)) {
		describe(e, h);
		return eng_fail(e, "file %llx: its size is %llu, but its last byte was not written; k %u..%u", (unsigned long long)attr->node,
				(unsigned long long)attr->size, k.low, k.high);
	}
	if (base && base->size == attr->size && !memcmp(base->data, data, attr->size) && (!h->ops_nr || h->ops[h->ops_nr - 1].op <= base->op))
		return true;
	for (uint64_t i = 0; i < attr->size; i++)
		if (!byte_allowed(h, base, k, i, data[i])) {
			describe(e, h);
			return eng_fail(e, "file %llx: byte %llu of %llu is %02x, which was never there since its sync (op %d: %02x); k %u..%u",
					(unsigned long long)attr->node, (unsigned long long)i, (unsigned long long)attr->size, data[i],
					base ? (int)base->op : -1, base && i < base->size ? base->data[i] : 0, k.low, k.high);
		}
	return true;
}

unsigned eng_floor_at(const struct eng *e, uint64_t at)
{
	unsigned floor = 0;

	for (unsigned i = 0; i < e->floors_nr; i++)
		if (e->floors[i].event < at)
			floor = ter_max(floor, e->floors[i].op);
	return floor;
}

static unsigned issued_at(const struct eng *e, uint64_t at)
{
	unsigned nr = 0;

	while (nr < e->ops_nr && e->started[nr + 1] < at)
		nr++;
	return nr;
}

/* What lost its last name before the crash is gone after a start that may write. */
static bool judge_orphans(struct eng *e, unsigned seen)
{
	struct ter_fs_status status;

	ter_fs_get_status(e->fs, &status);
	if (status.access == TER_ACCESS_RW && status.usage.inodes != seen)
		return eng_fail(e, "%llu inodes, but %u have a name", (unsigned long long)status.usage.inodes, seen);
	return true;
}

bool eng_judge(struct eng *e, uint64_t at)
{
	static struct seen s;
	const unsigned floor = eng_floor_at(e, at), issued = issued_at(e, at);
	struct span k = { .low = UINT32_MAX };

	if (!look(e, &s, false))
		return false;
	for (unsigned i = floor; i <= issued; i++)
		if (e->ns_hash[i] == s.sum) {
			k.low = ter_min(k.low, i);
			k.high = i;
		}
	if (k.low == UINT32_MAX) {
		for (unsigned i = 0; i <= e->ops_nr; i++)
			if (e->ns_hash[i] == s.sum)
				return eng_fail(e, "names are those after %u operations; at least %u were durable and %u issued", i, floor, issued);
		return eng_fail(e, "names are those of no moment; at least %u operations were durable and %u issued", floor, issued);
	}
	for (unsigned i = 0; i < s.nr; i++)
		if (S_ISREG(s.list[i].mode) && !judge_file(e, &s.list[i], k, at))
			return false;
	return judge_orphans(e, s.nr);
}

bool eng_compare(struct eng *e)
{
	static struct seen s;

	if (!look(e, &s, false))
		return false;
	if (s.sum != eng_model_hash(e))
		return eng_fail(e, "names differ from the model's");
	for (unsigned i = 0; i < s.nr; i++) {
		static uint8_t data[TM_FILE_MAX + 4096];
		const struct tm_node *n = NULL;

		for (unsigned k = 0; k < TM_NODES_MAX && !n; k++)
			if (e->tm->nodes[k].used && e->tm->nodes[k].node == s.list[i].node)
				n = &e->tm->nodes[k];
		if (!S_ISREG(s.list[i].mode))
			continue;
		if (s.list[i].size != n->size || read_all(e->vfs, n->node, data, sizeof(data)) != (int64_t)n->size || memcmp(data, n->data, n->size))
			return eng_fail(e, "file %llx differs from the model's", (unsigned long long)n->node);
	}
	return true;
}

bool eng_digest(struct eng *e, uint64_t *ret_digest)
{
	static uint8_t data[TM_FILE_MAX + 4096];
	static struct seen s;

	if (!look(e, &s, true))
		return false;
	*ret_digest = s.sum;
	for (unsigned i = 0; i < s.nr; i++) {
		int64_t got;

		if (!S_ISREG(s.list[i].mode))
			continue;
		got = read_all(e->vfs, s.list[i].node, data, sizeof(data));
		if (got < 0)
			return eng_fail(e, "file %llx cannot be read: %d", (unsigned long long)s.list[i].node, (int)got);
		*ret_digest += eng_hash_bytes(s.list[i].node, data, (size_t)got);
	}
	return true;
}

/* --- life after recovery --- */

static int write_all(struct eng *e, uint64_t node, uint64_t offset, uint64_t pattern, unsigned bytes)
{
	static uint8_t buf[20000];

	for (unsigned i = 0; i < bytes; i++)
		buf[i] = eng_byte(pattern, offset + i);
	return write_at(e->vfs, node, offset, buf, bytes);
}

bool eng_goes_on(struct eng *e, unsigned steps)
{
	struct ter_attr dir, attr;
	uint64_t orphan;
	char name[32], to[32];
	int r;

	snprintf(name, sizeof(name), AFTER "%llx", (unsigned long long)ter_random_u64(e->exec));
	r = ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, name, S_IFDIR | 0755, 0, NULL, &dir);
	for (unsigned i = 0; r >= 0 && i < steps; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		snprintf(to, sizeof(to), "f%u", i / 2);
		switch (i % 5) {
		case 0: case 1: case 3:
			r = ter_vfs_create(e->vfs, &root_op, dir.node, name, S_IFREG | 0644, 0, NULL, &attr);
			if (r >= 0)
				r = write_all(e, attr.node, i * 3000, i, 1 + i * 613 % 20000);
			break;
		case 2:
			r = truncate_to(e->vfs, attr.node, i * 1000);
			break;
		default:
			snprintf(name, sizeof(name), "f%u", i - 1);
			r = ter_vfs_rename(e->vfs, &root_op, dir.node, name, dir.node, to, 0, &orphan);
			if (r >= 0 && orphan)
				ter_vfs_forget(e->vfs, orphan);
			break;
		}
	}
	if (r < 0 && (r != -ENOSPC || !e->may_fill))
		return eng_fail(e, "working on after recovery: %d", r);
	r = ter_fs_sync(e->fs);
	return r < 0 ? eng_fail(e, "sync after recovery: %d", r) : true;
}

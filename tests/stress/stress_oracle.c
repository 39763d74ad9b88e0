/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What may be found at a start: T3 and T4, for each thread's directory, and all of them together. */
#include <stdio.h>
#include <stdlib.h>

#include "stress.h"

#define FOUND_MAX (ST_OBJS * ST_NAMES)

/* --- bytes --- */

static bool covers(const struct st_obj *o, const struct st_rec *rec, unsigned obj, uint32_t op)
{
	return rec->obj == obj && rec->op >= ST_OP_WRITE && op > o->base_op;
}

static bool size_allowed(struct st_thread *t, unsigned obj, uint32_t low, uint32_t high, uint64_t size)
{
	const struct st_obj *o = &t->m.obj[obj];
	uint64_t least = o->base_size;
	bool allowed = size == least;

	for (uint32_t op = ter_max(t->first, o->base_op) + 1; op <= high; op++) {
		const struct st_rec *rec = st_rec(t, op);

		if (!covers(o, rec, obj, op))
			continue;
		if (rec->sets_size) {
			const bool happened = op <= low && rec->done && !rec->maybe;

			if (happened)
				allowed = false; /* what came before is over */
			least = happened ? rec->size : ter_min(least, rec->size);
		}
		/* What was written may be committed in parts, of whole blocks; up to the end of the last, what no part wrote is zeros. */
		allowed = allowed || rec->size == size || (rec->op == ST_OP_WRITE && size > least && size < rec->to && size % st->pool.block == 0);
		/* One that failed half-way may have stopped anywhere. */
		allowed = allowed || (rec->maybe && size > least && size <= ter_max(rec->size, rec->to));
	}
	return allowed;
}

static bool byte_allowed(struct st_thread *t, unsigned obj, const struct st_rec *const *ops, unsigned nr, uint32_t low, uint64_t at, uint8_t byte)
{
	const struct st_obj *o = &t->m.obj[obj];
	bool allowed = byte == (at < o->base_size ? t->base[obj][at] : 0);

	for (unsigned i = 0; i < nr; i++) {
		const struct st_rec *rec = ops[i];

		if (rec->op == ST_OP_WRITE) {
			allowed = allowed || (at >= rec->from && at < rec->to && byte == st_byte(rec->pattern, at));
		} else if ((rec->op == ST_OP_TRUNCATE && at >= rec->from) || (rec->op == ST_OP_ZERO && at >= rec->from && at < rec->to)) {
			if (rec->value <= low && rec->done && !rec->maybe)
				allowed = false;
			allowed = allowed || !byte;
		}
	}
	return allowed;
}

static void describe(struct st_thread *t, unsigned obj, uint32_t low, uint32_t high)
{
	static const char *const kinds[] = { [ST_OP_WRITE] = "write", [ST_OP_TRUNCATE] = "truncate", [ST_OP_ZERO] = "zero", [ST_OP_GROW] = "grow" };
	const struct st_obj *o = &t->m.obj[obj];

	fprintf(stderr, "file %llx, durable after op %u with %llu bytes; k %u..%u\n", (unsigned long long)o->node, o->base_op,
		(unsigned long long)o->base_size, low, high);
	/* Those before the base, too, as far as the log still has them: of this file or of another that had its place. */
	for (uint32_t op = t->nr > ST_LOG ? t->nr - ST_LOG + 1 : 1; op <= t->nr; op++) {
		const struct st_rec *rec = st_rec(t, op);

		if (rec->obj == obj && rec->op >= ST_OP_WRITE)
			fprintf(stderr, "  op %u: %s %llu..%llu, size then %llu%s%s%s\n", op, kinds[rec->op], (unsigned long long)rec->from,
				(unsigned long long)rec->to, (unsigned long long)rec->size, rec->sets_size ? " (set)" : "", rec->maybe ? ", failed" : "",
				rec->done ? "" : ", not over");
	}
}

const char *st_judge_file(struct st_thread *t, unsigned obj, const uint8_t *data, uint64_t size, uint32_t low, uint32_t high)
{
	static __thread char why[200];
	const struct st_rec *ops[ST_LOG];
	const struct st_obj *o = &t->m.obj[obj];
	unsigned nr = 0;

	for (uint32_t op = ter_max(t->first, o->base_op) + 1; op <= high; op++) {
		struct st_rec *rec = st_rec(t, op);

		if (covers(o, rec, obj, op)) {
			if (rec->op == ST_OP_TRUNCATE || rec->op == ST_OP_ZERO)
				rec->value = op; /* free for that there */
			ops[nr++] = rec;
		}
	}
	if (size > ST_FILE_MAX || !size_allowed(t, obj, low, high, size)) {
		describe(t, obj, low, high);
		snprintf(why, sizeof(why), "size %llu was never it since its sync", (unsigned long long)size);
		return why;
	}
	if (!nr && size == o->base_size && !memcmp(data, t->base[obj], size))
		return NULL;
	for (uint64_t i = 0; i < size; i++)
		if (!byte_allowed(t, obj, ops, nr, low, i, data[i])) {
			describe(t, obj, low, high);
			snprintf(why, sizeof(why), "byte %llu of %llu is %02x, which was never there since its sync (%02x then)", (unsigned long long)i,
				 (unsigned long long)size, data[i], i < o->base_size ? t->base[obj][i] : 0);
			return why;
		}
	return NULL;
}

/* --- what is there --- */

struct found_entry {
	uint64_t dir, node;
	unsigned name;
	struct ter_attr attr;
};
struct found {
	unsigned thread;
	uint64_t dir;
	struct found_entry entry[FOUND_MAX];
	unsigned nr;
	struct st_obj obj[FOUND_MAX + 1]; /* each node once; [0] the thread's directory */
	uint32_t nlink[FOUND_MAX + 1];
	unsigned objs_nr;
};

static int on_entry(void *arg, const struct ter_dirent *d)
{
	struct found *f = arg;
	const int name = st_name_nr(d->name);

	if (!strcmp(d->name, ".") || !strcmp(d->name, ".."))
		return 0;
	if (name < 0)
		st_finding("thread %u: there is a name '%s' that was never given", f->thread, d->name);
	if (f->nr == FOUND_MAX || !d->attr)
		st_finding("thread %u: more names than were ever made, or one without attributes ('%s')", f->thread, d->name);
	f->entry[f->nr++] = (struct found_entry){ .dir = f->dir, .node = d->node, .name = (unsigned)name, .attr = *d->attr };
	return 0;
}

static void read_target(struct ter_vfs *vfs, struct st_obj *o)
{
	char buf[TER_SYMLINK_MAX + 1], expected[TER_SYMLINK_MAX + 1];
	const int r = ter_vfs_readlink(vfs, &st_root, o->node, buf);

	if (r < 0)
		st_finding("readlink of %llx: %d", (unsigned long long)o->node, r);
	o->target = (uint32_t)strtoul(buf, NULL, 10);
	st_target(o->target, expected);
	if (strcmp(buf, expected))
		st_finding("link %llx leads to '%s'", (unsigned long long)o->node, buf);
}

static void read_xattr(struct ter_vfs *vfs, struct st_obj *o)
{
	uint8_t buf[4096], expected[4096];
	const ssize_t r = ter_vfs_getxattr(vfs, &st_root, o->node, "user.st", buf, sizeof(buf));

	if (r == -ENODATA)
		return;
	if (r < (ssize_t)sizeof(o->xattr))
		st_finding("getxattr of %llx: %zd", (unsigned long long)o->node, r);
	memcpy(&o->xattr, buf, sizeof(o->xattr));
	if (st_xattr(o->xattr, expected) != (size_t)r || memcmp(buf, expected, (size_t)r))
		st_finding("the attribute of %llx has a value of %zd bytes that it was never given", (unsigned long long)o->node, r);
}

static void add_obj(struct found *f, struct ter_vfs *vfs, const struct ter_attr *attr)
{
	struct st_obj *o = &f->obj[f->objs_nr];

	for (unsigned i = 0; i < f->objs_nr; i++)
		if (f->obj[i].node == attr->node)
			return;
	*o = (struct st_obj){ .node = attr->node, .mode = (uint16_t)(attr->mode & 07777), .live_size = attr->size,
			      .kind = S_ISDIR(attr->mode) ? ST_DIR : S_ISLNK(attr->mode) ? ST_LNK : ST_REG };
	if (o->kind == ST_LNK)
		read_target(vfs, o);
	read_xattr(vfs, o);
	f->nlink[f->objs_nr++] = attr->nlink;
}

static void look(struct found *f, struct ter_vfs *vfs, uint64_t root)
{
	struct ter_attr attr;
	int r = ter_vfs_getattr(vfs, &st_root, root, &attr);

	if (r < 0)
		st_finding("thread %u: its directory: %d", f->thread, r);
	add_obj(f, vfs, &attr);
	for (unsigned i = 0; i < f->objs_nr; i++) {
		const unsigned before = f->nr;

		if (f->obj[i].kind != ST_DIR)
			continue;
		f->dir = f->obj[i].node;
		r = ter_vfs_readdir(vfs, &st_root, f->dir, 0, true, on_entry, f);
		if (r < 0)
			st_finding("thread %u: readdir of %llx: %d", f->thread, (unsigned long long)f->dir, r);
		for (unsigned k = before; k < f->nr; k++)
			add_obj(f, vfs, &f->entry[k].attr);
	}
}

static uint64_t found_hash(const struct found *f)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < f->objs_nr; i++) {
		const struct st_obj *o = &f->obj[i];

		sum += st_hash(st_hash(st_hash(o->node, (uint64_t)o->kind << 32 | o->mode), (uint64_t)f->nlink[i] << 32 | o->xattr), o->target);
	}
	for (unsigned i = 0; i < f->nr; i++)
		sum += st_hash(st_hash(f->entry[i].dir + 1, f->entry[i].name), f->entry[i].node);
	return sum;
}

/* --- which moment --- */

struct moment {
	uint32_t low, high;
};

/* An operation that was going on when the process ended: what it would have made of the names. */
static void end_open_one(struct st_thread *t, const struct found *f)
{
	struct st_rec *rec = st_rec(t, t->nr);

	if (t->nr == t->first || rec->done)
		return;
	if (rec->op == ST_OP_CREATE)
		for (unsigned i = 0; i < f->nr; i++)
			if (f->entry[i].dir == t->m.obj[rec->dir].node && f->entry[i].name == rec->name)
				rec->born.node = f->entry[i].node;
	if (rec->op < ST_OP_WRITE)
		st_model_apply(&t->m, rec, t->nr);
	rec->hash = st_model_hash(&t->m);
	rec->end = UINT64_MAX;
}

static struct moment judge_names(struct st_thread *t, const struct found *f)
{
	const uint64_t hash = found_hash(f);
	struct moment k = { .low = UINT32_MAX };

	for (uint32_t i = ter_max(t->floor, t->first); i <= t->nr; i++)
		if ((i == t->first ? t->first_hash : st_rec(t, i)->hash) == hash) {
			k.low = ter_min(k.low, i);
			k.high = i;
		}
	if (k.low != UINT32_MAX)
		return k;
	for (uint32_t i = t->first; i <= t->nr; i++)
		if ((i == t->first ? t->first_hash : st_rec(t, i)->hash) == hash)
			st_finding("thread %u: names are those after %u operations; at least %u were durable and %u issued", f->thread, i, t->floor, t->nr);
	for (unsigned i = 0; i < f->nr; i++)
		fprintf(stderr, "  %llx/%u: %llx\n", (unsigned long long)f->entry[i].dir, f->entry[i].name, (unsigned long long)f->entry[i].node);
	for (unsigned i = 0; i < f->objs_nr; i++)
		fprintf(stderr, "  node %llx kind %u mode %o nlink %u xattr %u target %u\n", (unsigned long long)f->obj[i].node, f->obj[i].kind,
			f->obj[i].mode, f->nlink[i], f->obj[i].xattr, f->obj[i].target);
	st_finding("thread %u: names are those of no moment; at least %u operations were durable and %u issued (log from %u)", f->thread, t->floor, t->nr,
		   t->first);
}

/* T3, across threads. */
static void judge_order(const struct moment *k)
{
	for (unsigned a = 0; a < st->pool.threads; a++)
		for (unsigned b = 0; b < st->pool.threads; b++) {
			struct st_thread *kept = &st->thread[a], *lost = &st->thread[b];

			if (a == b || k[a].low <= kept->first || k[b].high >= lost->nr)
				continue;
			if (st_rec(lost, k[b].high + 1)->end < st_rec(kept, k[a].low)->begin && st_rec(lost, k[b].high + 1)->op < ST_OP_WRITE)
				st_finding("thread %u has its operation %u, but %u of thread %u, which had ended before that began, is lost", a, k[a].low,
					   k[b].high + 1, b);
		}
}

static int obj_of(const struct st_thread *t, uint64_t node)
{
	for (unsigned i = 0; i < ST_OBJS; i++)
		if (t->m.obj[i].kind != ST_NONE && t->m.obj[i].node == node)
			return (int)i;
	return -1;
}

static void judge_files(struct st_thread *t, const struct found *f, struct ter_vfs *vfs, struct moment k)
{
	uint8_t *data = malloc(ST_FILE_MAX + 4096);

	if (!data)
		abort();
	for (unsigned i = 0; i < f->objs_nr; i++) {
		const int obj = obj_of(t, f->obj[i].node);
		const uint64_t size = f->obj[i].live_size;
		const char *why;
		int64_t got;

		if (obj < 0)
			st_finding("thread %u: node %llx is none that was made", f->thread, (unsigned long long)f->obj[i].node);
		if (f->obj[i].kind != ST_REG)
			continue;
		got = st_read(vfs, f->obj[i].node, 0, data, ST_FILE_MAX + 4096);
		if (got != (int64_t)size)
			st_finding("thread %u: file %llx: reading gives %lld, not %llu", f->thread, (unsigned long long)f->obj[i].node, (long long)got,
				   (unsigned long long)size);
		why = st_judge_file(t, (unsigned)obj, data, size, k.low, k.high);
		if (why)
			st_finding("thread %u: file %llx: %s", f->thread, (unsigned long long)f->obj[i].node, why);
		/* From now on this is it: nobody but us looks at these until all is judged. */
		memset(t->live[obj] + size, 0, ST_FILE_MAX - size);
		memcpy(t->live[obj], data, size);
		atomic_fetch_add(&st->ticks, 1);
	}
	free(data);
}

/* The history begins anew from what is there: one moment for all, with every lock held. */
static void adopt(struct st_thread *t, const struct found *f)
{
	struct st_model m = { 0 };

	for (unsigned i = 0; i < f->objs_nr; i++) {
		const unsigned obj = (unsigned)obj_of(t, f->obj[i].node);

		m.obj[obj] = f->obj[i];
		m.obj[obj].base_size = 0;
		m.obj[obj].last_data = UINT32_MAX; /* so that the base is taken */
		if (f->obj[i].kind != ST_REG)
			m.obj[obj].live_size = 0;
	}
	for (unsigned i = 0; i < f->nr; i++)
		m.name[obj_of(t, f->entry[i].dir)][f->entry[i].name] = (uint8_t)(obj_of(t, f->entry[i].node) + 1);
	for (unsigned i = 0; i < ST_OBJS; i++)
		if (m.obj[i].kind == ST_NONE)
			memset(t->live[i], 0, ST_FILE_MAX);
	t->m = m;
	t->first = t->nr; /* no record is of use any more */
	st_forget_log(t);
	for (unsigned i = 0; i < ST_OBJS; i++)
		t->m.obj[i].last_data = t->m.obj[i].last_ns = t->nr;
	t->first_hash = st_model_hash(&t->m);
	t->first_end = 0;
}

void st_judge_all(struct ter_vfs *vfs)
{
	struct found *f = calloc(ST_THREADS_MAX, sizeof(*f));
	struct moment k[ST_THREADS_MAX];
	uint64_t lost = 0;

	if (!f)
		abort();
	for (unsigned i = 0; i < st->pool.threads; i++) {
		f[i].thread = i;
		look(&f[i], vfs, st->thread[i].m.obj[0].node);
	}
	/* From here on the histories change: the parent waits with killing. */
	for (unsigned i = 0; i < st->pool.threads; i++)
		pthread_mutex_lock(&st->thread[i].lock);
	for (unsigned i = 0; i < st->pool.threads; i++) {
		end_open_one(&st->thread[i], &f[i]);
		k[i] = judge_names(&st->thread[i], &f[i]);
		lost += st->thread[i].nr - k[i].high;
	}
	judge_order(k);
	for (unsigned i = 0; i < st->pool.threads; i++)
		judge_files(&st->thread[i], &f[i], vfs, k[i]);
	for (unsigned i = 0; i < st->pool.threads; i++)
		adopt(&st->thread[i], &f[i]);
	atomic_fetch_add(&st->lost_ops, lost);
	for (unsigned i = st->pool.threads; i-- > 0;)
		pthread_mutex_unlock(&st->thread[i].lock);
	free(f);
}

/* --- while it runs: exactly the model --- */

struct compare {
	struct st_thread *t;
	unsigned dir, seen;
};

static int compare_entry(void *arg, const struct ter_dirent *d)
{
	struct compare *c = arg;
	const int name = st_name_nr(d->name);
	unsigned obj;

	if (!strcmp(d->name, ".") || !strcmp(d->name, ".."))
		return 0;
	obj = name < 0 ? 0 : c->t->m.name[c->dir][name];
	if (!obj || c->t->m.obj[obj - 1].node != d->node)
		st_finding("readdir of %llx gives '%s' as %llx, which is not there", (unsigned long long)c->t->m.obj[c->dir].node, d->name,
			   (unsigned long long)d->node);
	c->seen++;
	return 0;
}

void st_compare_dir(struct st_thread *t, struct ter_vfs *vfs, unsigned dir)
{
	struct compare c = { .t = t, .dir = dir };
	unsigned expected = 0;
	const int r = ter_vfs_readdir(vfs, &st_root, t->m.obj[dir].node, 0, false, compare_entry, &c);

	if (r < 0) {
		if (!st_allowed(r))
			st_finding("readdir of %llx: %d", (unsigned long long)t->m.obj[dir].node, r);
		return;
	}
	for (unsigned n = 0; n < ST_NAMES; n++)
		expected += t->m.name[dir][n] != 0;
	if (c.seen != expected)
		st_finding("readdir of %llx gives %u names, not %u", (unsigned long long)t->m.obj[dir].node, c.seen, expected);
}

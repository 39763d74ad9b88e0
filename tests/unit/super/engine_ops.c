/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A seeded workload: draws one operation after the other (engine_do.c does them). */
#include <linux/falloc.h>
#include <stdio.h>
#include <linux/fs.h>

#include "engine_rig.h"

#define NODES_FULL (TM_NODES_MAX - 10)
#define POKE_NS_MAX 400000 /* about as long as two requests take */

static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h", "name of some length.txt", "x.o", "y.o", "z.o" };

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

/* --- operations --- */

static bool do_create(struct eng *e)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO };
	struct tm_node *dir = a_node(e, S_IFDIR);
	const uint32_t mode = types[eng_below(e, ARRAY_SIZE(types))] | (eng_below(e, 2) ? 0644 : 0755);
	const char *name = a_name(e), *target = S_ISLNK(mode) ? a_name(e) : NULL;

	return full(e) || eng_do_create(e, dir, name, mode, target, NULL);
}

static bool do_link(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG), *dir = a_node(e, S_IFDIR);
	const char *name = a_name(e);

	return !node || eng_do_link(e, node, dir, name);
}

static bool do_unlink(struct eng *e)
{
	struct tm_node *dir = a_node(e, S_IFDIR), *node;
	char name[256];

	snprintf(name, sizeof(name), "%s", name_in(e, dir)); /* the model's copy goes with the entry */
	node = tm_lookup(dir, name);
	return eng_do_unlink(e, dir, name, node && S_ISDIR(node->mode));
}

static bool do_rename(struct eng *e)
{
	static const unsigned flags_of[] = { 0, 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	struct tm_node *from = a_node(e, S_IFDIR), *to = eng_below(e, 2) ? a_node(e, S_IFDIR) : from;
	const unsigned flags = flags_of[eng_below(e, ARRAY_SIZE(flags_of))];
	char from_name[256], to_name[256];

	snprintf(from_name, sizeof(from_name), "%s", name_in(e, from));
	snprintf(to_name, sizeof(to_name), "%s", eng_below(e, 2) ? name_in(e, to) : a_name(e));
	return eng_do_rename(e, from, from_name, to, to_name, flags);
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
	return eng_do_write(e, node, offset, bytes, append);
}

/* Much at once, so that space runs out. */
static bool do_fill(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG);

	if (!node)
		return true;
	return eng_below(e, 3) ? eng_do_write(e, node, 0, TM_FILE_MAX, false)
			       : eng_do_fallocate(e, node, FALLOC_FL_KEEP_SIZE, 0, TM_FILE_MAX);
}

static bool do_truncate(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG);
	uint64_t size;

	if (!node)
		return true;
	size = eng_below(e, 3) == 0 ? 0 : eng_below(e, 2) ? eng_below(e, (unsigned)node->size + 1) : eng_below(e, TM_FILE_MAX);
	return eng_do_truncate(e, node, size);
}

static bool do_fallocate(struct eng *e)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	struct tm_node *node = a_node(e, S_IFREG);
	const int mode = modes[eng_below(e, ARRAY_SIZE(modes))];
	uint64_t offset = eng_below(e, TM_FILE_MAX - 1), end = ter_min((uint64_t)TM_FILE_MAX, offset + 1 + eng_below(e, 30000));

	return !node || eng_do_fallocate(e, node, mode, offset, end);
}

static bool do_xattr(struct eng *e)
{
	struct tm_node *node = a_node(e, 0);
	const unsigned which = eng_below(e, TM_XATTRS_MAX);
	const size_t bytes = eng_below(e, eng_below(e, 4) ? 40 : ENG_XATTR_MAX);
	const uint64_t pattern = eng_rnd(e);

	if (S_ISLNK(node->mode) || S_ISFIFO(node->mode))
		return true;
	return eng_below(e, 4) == 0 ? eng_do_removexattr(e, node, which) : eng_do_setxattr(e, node, which, bytes, pattern);
}

static bool do_chmod(struct eng *e)
{
	struct tm_node *node = a_node(e, 0);
	const uint32_t mode = eng_below(e, 01000), uid = eng_below(e, 3);

	return S_ISLNK(node->mode) || eng_do_chmod(e, node, mode, uid);
}

static bool do_fsync(struct eng *e)
{
	struct tm_node *node = a_node(e, eng_below(e, 4) ? S_IFREG : S_IFDIR);

	return !node || eng_do_fsync(e, node, eng_below(e, 4) == 0);
}

static bool do_async_fsync(struct eng *e)
{
	struct tm_node *node = a_node(e, S_IFREG);

	return !node || eng_do_async_fsync(e, node);
}

/* The way a careful program replaces a file. */
static bool do_replace(struct eng *e)
{
	struct tm_node *dir = a_node(e, S_IFDIR), *node, *other = tm_lookup(dir, "config");
	const unsigned failures = e->failures + e->full_nr;

	if (full(e) || tm_lookup(dir, "config.new") || (other && S_ISDIR(other->mode)))
		return true;
	if (!eng_do_create(e, dir, "config.new", S_IFREG | 0600, NULL, &node))
		return false;
	if (!node)
		return true;
	eng_op_end(e, true);
	eng_op_next(e);
	if (!eng_do_write(e, node, 0, 1 + eng_below(e, 6000), false) || !eng_do_fsync(e, node, false))
		return false;
	if (e->failures + e->full_nr != failures)
		return true;
	eng_op_end(e, true);
	eng_op_next(e);
	if (!eng_do_rename(e, dir, "config.new", dir, "config", 0))
		return false;
	return e->failures != failures || eng_below(e, 2) == 0 || eng_do_fsync(e, dir, false);
}

/* A little into one place of one file, again and again, each at some moment of what the last one set off. */
static bool do_poke(struct eng *e)
{
	struct tm_node *node = NULL;

	for (unsigned i = 0; i < TM_NODES_MAX && !node; i++)
		if (e->tm->nodes[i].used && e->tm->nodes[i].nlink && S_ISREG(e->tm->nodes[i].mode))
			node = &e->tm->nodes[i];
	if (!node)
		return true;
	ter_sleep_ns(e->exec, eng_below(e, POKE_NS_MAX));
	if (!eng_do_write(e, node, eng_below(e, 6000), 1 + eng_below(e, 200), false))
		return false;
	return eng_below(e, 4) ? eng_do_async_fsync(e, node) : eng_do_fsync(e, node, false);
}

static bool do_wait(struct eng *e)
{
	return eng_do_wait(e, eng_below(e, 4) ? eng_below(e, 400) : 3ull * e->options.journal_flush_ms);
}

bool eng_step(struct eng *e)
{
	static const struct {
		const char *name;
		bool (*fn)(struct eng *e);
		unsigned weight;
	} ops[ENG_STEPS_NR] = {
		[ENG_STEP_CREATE] = { "create", do_create, 18 },
		[ENG_STEP_LINK] = { "link", do_link, 5 },
		[ENG_STEP_UNLINK] = { "unlink", do_unlink, 10 },
		[ENG_STEP_RENAME] = { "rename", do_rename, 12 },
		[ENG_STEP_WRITE] = { "write", do_write, 24 },
		[ENG_STEP_TRUNCATE] = { "truncate", do_truncate, 7 },
		[ENG_STEP_FALLOCATE] = { "fallocate", do_fallocate, 6 },
		[ENG_STEP_XATTR] = { "xattr", do_xattr, 8 },
		[ENG_STEP_CHMOD] = { "chmod", do_chmod, 3 },
		[ENG_STEP_FSYNC] = { "fsync", do_fsync, 7 },
		[ENG_STEP_ASYNC_FSYNC] = { "async fsync", do_async_fsync, 6 },
		[ENG_STEP_REPLACE] = { "replace", do_replace, 5 },
		[ENG_STEP_SYNC] = { "sync", eng_do_sync, 2 },
		[ENG_STEP_WAIT] = { "wait", do_wait, 4 },
		[ENG_STEP_FILL] = { "fill", do_fill, 0 },
		[ENG_STEP_POKE] = { "poke", do_poke, 0 },
		[ENG_STEP_READ_ONLY] = { "read-only and back", eng_do_read_only, 0 },
	};
	unsigned sum = 0, dice;

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		sum += e->weights ? e->weights[i] : ops[i].weight;
	dice = eng_below(e, sum);
	for (unsigned i = 0;; i++) {
		const unsigned weight = e->weights ? e->weights[i] : ops[i].weight;

		if (dice < weight)
			return eng_op_begin(e, ops[i].name) && eng_op_end(e, ops[i].fn(e));
		dice -= weight;
	}
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long random runs of operations, compared with a plain tree after each step and in whole at remounts and crashes. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "fs_rig.h"
#include "tree_model.h"
#include "vfs_calls.h"

struct run {
	struct rig *rig;
	struct tree_model *tm;
	uint64_t state;
	unsigned steps;
};

struct plan {
	unsigned steps, restart_every;
};

static const char *const names[] = {
	"a", "b", "c", "d", "e", "f", "a longer name.txt", "x.o", "y.o", "z.o", "\xc3\xa4\xc3\xb6\xc3\xbc", "UPPER", "upper",
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
	"0123456789012345678901234567890123456789012345678901234",
};

static const char *a_name(struct run *t)
{
	return names[rnd_below(&t->state, ARRAY_SIZE(names))];
}

static struct tm_node *a_node(struct run *t, uint32_t type)
{
	struct tm_node *found = NULL;
	unsigned seen = 0;

	for (unsigned i = 0; i < TM_NODES_MAX; i++) {
		struct tm_node *n = &t->tm->nodes[i];

		if (n->used && (!type || (n->mode & S_IFMT) == type) && rnd_below(&t->state, ++seen) == 0)
			found = n;
	}
	return found;
}

static struct tm_node *a_dir(struct run *t)
{
	if (rnd_below(&t->state, 30) == 0)
		return a_node(t, 0);
	return a_node(t, S_IFDIR);
}

static bool full(struct run *t)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		nr += t->tm->nodes[i].used;
	return nr > TM_NODES_MAX - 10;
}

/* Most of the time nobody holds what lost its name. */
static void orphaned(struct run *t, struct tm_node *model, uint64_t node)
{
	assert_int_equal(node, model ? model->node : 0);
	if (!model)
		return;
	if (rnd_below(&t->state, 4)) {
		ter_vfs_forget(t->rig->vfs, model->node);
		tm_drop(t->tm, model);
	}
}

static void do_create(struct run *t)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK };
	struct tm_node *dir = a_dir(t), *node;
	const char *name = a_name(t);
	uint32_t mode = types[rnd_below(&t->state, ARRAY_SIZE(types))] | (rnd_below(&t->state, 010000));
	const struct ter_op op = { .uid = rnd_below(&t->state, 3), .gid = rnd_below(&t->state, 3), .umask = rnd_below(&t->state, 2) ? 022 : 0 };
	uint32_t rdev = rnd_below(&t->state, 100);
	const char *target = S_ISLNK(mode) ? names[rnd_below(&t->state, ARRAY_SIZE(names))] : NULL;
	struct ter_attr attr;
	int want;

	if (full(t))
		return;
	want = tm_create(t->tm, dir, name, mode, op.uid, op.gid, op.umask, rdev, target, &node);
	assert_int_equal(ter_vfs_create(t->rig->vfs, &op, dir->node, name, mode, rdev, target, &attr), want);
	if (want == 0) {
		node->node = attr.node;
		assert_int_equal(attr.mode, node->mode);
		assert_int_equal(attr.size, S_ISDIR(mode) ? 0 : node->size);
	}
}

static void do_tmpfile(struct run *t)
{
	struct tm_node *dir = a_dir(t), *node;
	struct ter_attr attr;
	int want;

	if (full(t))
		return;
	want = tm_create(t->tm, dir, NULL, S_IFREG | 0600, 0, 0, 0, 0, NULL, &node);
	assert_int_equal(ter_vfs_tmpfile(t->rig->vfs, &root_op, dir->node, 0600, &attr), want);
	if (want == 0)
		node->node = attr.node;
}

static void do_link(struct run *t)
{
	struct tm_node *node = a_node(t, 0), *dir = a_dir(t);
	const char *name = a_name(t);

	assert_int_equal(ter_vfs_link(t->rig->vfs, &root_op, node->node, dir->node, name, NULL), tm_link(node, dir, name));
}

static void do_unlink(struct run *t)
{
	struct tm_node *dir = a_dir(t), *orphan;
	const char *name = a_name(t);
	bool rmdir = rnd_below(&t->state, 3) == 0;
	uint64_t node = 0;
	int want, got;

	if (dir->entries_nr && rnd_below(&t->state, 2))
		name = dir->entry[rnd_below(&t->state, dir->entries_nr)].name;
	name = strdup(name);
	want = tm_unlink(t->tm, dir, name, rmdir, &orphan);
	got = rmdir ? ter_vfs_rmdir(t->rig->vfs, &root_op, dir->node, name, &node) : ter_vfs_unlink(t->rig->vfs, &root_op, dir->node, name, &node);
	assert_int_equal(got, want);
	free((char *)(uintptr_t)name);
	orphaned(t, orphan, node);
}

static void do_rename(struct run *t)
{
	static const unsigned flags_of[] = { 0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, RENAME_WHITEOUT, RENAME_WHITEOUT | RENAME_NOREPLACE,
					     RENAME_EXCHANGE | RENAME_NOREPLACE };
	struct tm_node *from = a_dir(t), *to = rnd_below(&t->state, 3) ? a_dir(t) : from, *orphan, *whiteout;
	char *from_name = strdup(from->entries_nr && rnd_below(&t->state, 4) ? from->entry[rnd_below(&t->state, from->entries_nr)].name : a_name(t));
	char *to_name = strdup(to->entries_nr && rnd_below(&t->state, 2) ? to->entry[rnd_below(&t->state, to->entries_nr)].name : a_name(t));
	unsigned flags = flags_of[rnd_below(&t->state, ARRAY_SIZE(flags_of))];
	uint64_t node = 0;
	int want, got;

	if (full(t))
		flags &= ~(unsigned)RENAME_WHITEOUT;
	want = tm_rename(t->tm, from, from_name, to, to_name, flags, &orphan, &whiteout);
	got = ter_vfs_rename(t->rig->vfs, &root_op, from->node, from_name, to->node, to_name, flags, &node);
	if (got != want)
		fprintf(stderr, "rename flags %x: %d, not %d\n", flags, got, want);
	assert_int_equal(got, want);
	if (whiteout) {
		struct ter_attr attr;

		assert_int_equal(ter_vfs_lookup(t->rig->vfs, &root_op, from->node, from_name, &attr), 0);
		whiteout->node = attr.node;
	}
	free(from_name);
	free(to_name);
	orphaned(t, orphan, node);
}

static void do_forget(struct run *t)
{
	struct tm_node *node = a_node(t, 0);

	ter_vfs_forget(t->rig->vfs, node->node);
	if (!node->nlink)
		tm_drop(t->tm, node);
}

static void do_write(struct run *t)
{
	struct tm_node *node = a_node(t, S_IFREG);
	uint8_t buf[9000];
	unsigned bytes = 1 + rnd_below(&t->state, rnd_below(&t->state, 4) ? 200 : sizeof(buf));
	struct iovec iov[2] = { { buf, bytes / 2 }, { buf + bytes / 2, bytes - bytes / 2 } };
	bool append = rnd_below(&t->state, 3) == 0;
	uint64_t offset;

	if (!node)
		return;
	offset = append ? node->size : rnd_below(&t->state, 3) ? rnd_below(&t->state, (unsigned)node->size + 10) : rnd_below(&t->state, TM_FILE_MAX);
	if (offset + bytes > TM_FILE_MAX)
		return;
	for (unsigned i = 0; i < bytes; i++)
		buf[i] = (uint8_t)rnd(&t->state);
	assert_int_equal(ter_vfs_write(t->rig->vfs, &root_op, node->node, append ? 12345 : offset, iov, 2, append), 0);
	memcpy(node->data + offset, buf, bytes);
	node->size = ter_max(node->size, offset + bytes);
}

static void do_truncate(struct run *t)
{
	struct tm_node *node = a_node(t, rnd_below(&t->state, 10) ? S_IFREG : 0);
	uint64_t size = rnd_below(&t->state, TM_FILE_MAX);

	if (!node)
		return;
	if (S_ISREG(node->mode) && rnd_below(&t->state, 2))
		size = rnd_below(&t->state, (unsigned)node->size + 1);
	assert_int_equal(truncate_to(t->rig->vfs, node->node, size), S_ISREG(node->mode) ? 0 : S_ISDIR(node->mode) ? -EISDIR : -EINVAL);
	if (!S_ISREG(node->mode))
		return;
	if (size < node->size)
		memset(node->data + size, 0, node->size - size);
	node->size = size;
}

static void do_fallocate(struct run *t)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
	struct tm_node *node = a_node(t, S_IFREG);
	int mode = modes[rnd_below(&t->state, ARRAY_SIZE(modes))];
	uint64_t offset = rnd_below(&t->state, TM_FILE_MAX), bytes = 1 + rnd_below(&t->state, TM_FILE_MAX), end;

	if (!node)
		return;
	end = ter_min((uint64_t)TM_FILE_MAX, offset + bytes);
	assert_int_equal(ter_vfs_fallocate(t->rig->vfs, &root_op, node->node, mode, offset, end - offset), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(node->data + offset, 0, end - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		node->size = ter_max(node->size, end);
}

static void do_chmod(struct run *t)
{
	struct tm_node *node = a_node(t, 0);
	const struct ter_attr attr = { .mode = rnd_below(&t->state, 010000), .uid = rnd_below(&t->state, 3), .gid = rnd_below(&t->state, 3) };
	unsigned valid = 1 + rnd_below(&t->state, 7);

	if (S_ISLNK(node->mode))
		valid &= ~(unsigned)TER_SET_MODE;
	assert_int_equal(ter_vfs_setattr(t->rig->vfs, &root_op, node->node, &attr, valid, NULL), 0);
	if (valid & TER_SET_MODE)
		node->mode = (node->mode & S_IFMT) | attr.mode;
	if (valid & TER_SET_UID)
		node->uid = attr.uid;
	if (valid & TER_SET_GID)
		node->gid = attr.gid;
}

static void do_xattr(struct run *t)
{
	static const char *const xnames[] = { "user.a", "user.b", "trusted.overlay.x", "security.selinux", "user.c", "user.d" };
	struct tm_node *node = a_node(t, 0);
	const char *name = xnames[rnd_below(&t->state, ARRAY_SIZE(xnames))];
	uint8_t value[3000];
	size_t bytes = rnd_below(&t->state, rnd_below(&t->state, 5) ? 50 : sizeof(value));
	int flags = rnd_below(&t->state, 3); /* 0, CREATE, REPLACE */
	int at = -1, room = -1, want = 0;

	for (int i = 0; i < TM_XATTRS_MAX; i++) {
		if (node->xattr[i].used && !strcmp(node->xattr[i].name, name))
			at = i;
		if (!node->xattr[i].used)
			room = i;
	}
	if (rnd_below(&t->state, 3) == 0) {
		assert_int_equal(ter_vfs_removexattr(t->rig->vfs, &root_op, node->node, name), at < 0 ? -ENODATA : 0);
		if (at >= 0) {
			free(node->xattr[at].value);
			memset(&node->xattr[at], 0, sizeof(node->xattr[at]));
		}
		return;
	}
	if (at < 0 && room < 0)
		return;
	for (size_t i = 0; i < bytes; i++)
		value[i] = (uint8_t)rnd(&t->state);
	if (flags == XATTR_CREATE && at >= 0)
		want = -EEXIST;
	if (flags == XATTR_REPLACE && at < 0)
		want = -ENODATA;
	assert_int_equal(ter_vfs_setxattr(t->rig->vfs, &root_op, node->node, name, value, bytes, flags), want);
	if (want < 0)
		return;
	at = at < 0 ? room : at;
	free(node->xattr[at].value);
	node->xattr[at].used = true;
	strcpy(node->xattr[at].name, name);
	node->xattr[at].value = malloc(bytes + 1);
	memcpy(node->xattr[at].value, value, bytes);
	node->xattr[at].bytes = bytes;
}

static void do_look(struct run *t)
{
	struct tm_node *dir = a_dir(t), *found = NULL;
	const char *name = a_name(t);
	struct ter_attr attr;
	int want = 0, got;

	if (!S_ISDIR(dir->mode))
		want = -ENOTDIR;
	else if (!(found = tm_lookup(dir, name)))
		want = -ENOENT;
	got = ter_vfs_lookup(t->rig->vfs, &root_op, dir->node, name, &attr);
	assert_int_equal(got, want);
	if (found)
		assert_int_equal(attr.node, found->node);
}

static void do_sync(struct run *t)
{
	struct tm_node *node = a_node(t, 0);

	assert_int_equal(fsync_wait(t->rig->vfs, &root_op, node->node), 0);
}

static void drop_held(struct run *t)
{
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (t->tm->nodes[i].used && !t->tm->nodes[i].nlink)
			tm_drop(t->tm, &t->tm->nodes[i]);
}

static void step(struct run *t)
{
	static void (*const ops[])(struct run *t) = {
		do_create, do_create, do_create, do_create, do_tmpfile, do_link, do_link, do_unlink, do_unlink, do_rename, do_rename, do_rename, do_forget,
		do_write, do_write, do_write, do_write, do_truncate, do_truncate, do_fallocate, do_chmod, do_xattr, do_xattr, do_look, do_look, do_sync,
	};

	ops[rnd_below(&t->state, ARRAY_SIZE(ops))](t);
}

static void run_model(struct rig *rig, void *arg)
{
	const struct plan *plan = arg;
	struct run t = { .rig = rig, .tm = tm_new(), .state = rig->seed | 1, .steps = plan->steps };

	rig_restarts(rig, plan->restart_every);
	for (unsigned i = 1; i <= t.steps; i++) {
		step(&t);
		if (i % 500 == 0) {
			tm_compare(t.tm, rig->vfs);
			assert_int_equal(rig_check(rig), 0);
		}
		if (i % 1500 == 0) {
			if (rnd_below(&t.state, 2)) {
				assert_int_equal(ter_vfs_sync(rig->vfs), 0);
				rig_crash(rig);
			} else {
				rig_remount(rig);
			}
			drop_held(&t);
			tm_compare(t.tm, rig->vfs);
			assert_int_equal(rig_check(rig), 0);
		}
	}
	tm_free(t.tm);
}

static void random_operations_do_what_a_plain_tree_does(void **state)
{
	struct plan plan = { .steps = rig_is_real ? 15000 : 20000 };

	(void)state;
	rig_run(rig_seed(), TER_MIB(8), run_model, &plan);
}

static void random_operations_do_so_with_almost_no_cache(void **state)
{
	struct plan plan = { .steps = rig_is_real ? 6000 : 10000 };

	(void)state;
	rig_run(rig_seed() * 3, 1, run_model, &plan);
}

static void random_operations_do_so_when_transactions_restart(void **state)
{
	struct plan plan = { .steps = rig_is_real ? 100 : 10000, .restart_every = 2 };

	(void)state;
	rig_run(rig_seed() * 5, TER_MIB(1), run_model, &plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_do_what_a_plain_tree_does),
		cmocka_unit_test(random_operations_do_so_with_almost_no_cache),
		cmocka_unit_test(random_operations_do_so_when_transactions_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

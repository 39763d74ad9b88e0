/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Eight tasks at once, in one directory and across several: nothing deadlocks, nothing is torn, every relation holds afterwards. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <linux/fs.h>

#include <cmocka.h>

#include "fs_rig.h"
#include "vfs_calls.h"

#define TASKS 8u
#define NAMES 12u

struct shared {
	struct rig *rig;
	uint64_t dir[5];
	unsigned dirs_nr, steps;
	_Atomic unsigned done, failed, succeeded;
};
struct worker {
	struct shared *s;
	uint64_t rand;
	struct ter_task *task;
	bool nowait;
};

static bool expected(int r)
{
	switch (r) {
	case 0:
	case -ENOENT:
	case -EEXIST:
	case -ENOTEMPTY:
	case -EISDIR:
	case -ENOTDIR:
	case -EINVAL:
	case -ESTALE:
	case -EPERM:
	case -ENODATA:
	case -EAGAIN:
		return true;
	default:
		return false;
	}
}

static void check(struct worker *w, const char *what, int r)
{
	if (r == 0)
		atomic_fetch_add(&w->s->succeeded, 1);
	if (expected(r))
		return;
	fprintf(stderr, "%s: %d\n", what, r);
	atomic_fetch_add(&w->s->failed, 1);
}

static int see(void *arg, const struct ter_dirent *d)
{
	unsigned *nr = arg;

	return ++*nr > 40 || !d->node;
}

static void forget(struct worker *w, uint64_t orphan)
{
	if (orphan)
		ter_vfs_forget(w->s->rig->vfs, orphan);
}

static void work_on_file(struct worker *w, const struct ter_op *op, uint64_t node)
{
	struct ter_vfs *vfs = w->s->rig->vfs;
	uint8_t buf[3000];
	struct iovec iov = { buf, 1 + rnd_below(&w->rand, sizeof(buf)) };

	memset(buf, (int)rnd(&w->rand), sizeof(buf));
	switch (rnd_below(&w->rand, 7)) {
	case 0:
	case 1:
		check(w, "write", ter_vfs_write(vfs, op, node, rnd_below(&w->rand, 30000), &iov, 1, rnd_below(&w->rand, 2)));
		break;
	case 2: {
		int64_t r = read_all(vfs, node, buf, sizeof(buf));

		check(w, "read", r < 0 ? (int)r : 0);
		break;
	}
	case 3:
		check(w, "truncate", truncate_to(vfs, node, rnd_below(&w->rand, 30000)));
		break;
	case 4:
		check(w, "fsync", fsync_wait(vfs, op, node));
		break;
	case 5:
		check(w, "setxattr", ter_vfs_setxattr(vfs, op, node, "user.x", buf, iov.iov_len / 8, 0));
		break;
	default: {
		ssize_t r = ter_vfs_getxattr(vfs, op, node, "user.x", buf, sizeof(buf));

		check(w, "getxattr", r < 0 ? (int)r : 0);
	}
	}
}

static void one_step(struct worker *w)
{
	struct ter_vfs *vfs = w->s->rig->vfs;
	struct ter_op op = { .nowait = w->nowait };
	uint64_t a = w->s->dir[rnd_below(&w->rand, w->s->dirs_nr)], b = w->s->dir[rnd_below(&w->rand, w->s->dirs_nr)], orphan = 0;
	char name[16], other[16];
	struct ter_attr attr;
	unsigned nr = 0;
	int r;

	snprintf(name, sizeof(name), "n%u", rnd_below(&w->rand, NAMES));
	snprintf(other, sizeof(other), "n%u", rnd_below(&w->rand, NAMES));
	switch (rnd_below(&w->rand, 10)) {
	case 0:
	case 1:
		check(w, "create", ter_vfs_create(vfs, &op, a, name, rnd_below(&w->rand, 4) ? S_IFREG : S_IFDIR, 0, NULL, NULL));
		break;
	case 2:
		check(w, "unlink", ter_vfs_unlink(vfs, &op, a, name, &orphan));
		forget(w, orphan);
		break;
	case 3:
		check(w, "rmdir", ter_vfs_rmdir(vfs, &op, a, name, &orphan));
		forget(w, orphan);
		break;
	case 4:
	case 5:
		check(w, "rename", ter_vfs_rename(vfs, &op, a, name, b, other, rnd_below(&w->rand, 3) ? 0 : RENAME_EXCHANGE, &orphan));
		forget(w, orphan);
		break;
	case 6:
		check(w, "readdir", ter_vfs_readdir(vfs, &op, a, 0, rnd_below(&w->rand, 2), see, &nr));
		break;
	case 7:
		r = ter_vfs_lookup(vfs, &op, a, name, &attr);
		check(w, "lookup", r);
		if (r == 0)
			check(w, "link", ter_vfs_link(vfs, &op, attr.node, b, other, NULL));
		break;
	default:
		r = ter_vfs_lookup(vfs, &op, a, name, &attr);
		check(w, "lookup", r);
		if (r == 0 && S_ISREG(attr.mode))
			work_on_file(w, &op, attr.node);
	}
}

static void worker_task(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->s->steps; i++) {
		one_step(w);
		if (i % 100 == 99)
			check(w, "write inodes", ter_vfs_write_inodes(w->s->rig->vfs));
	}
	atomic_fetch_add(&w->s->done, 1);
}

static void run_workers(struct shared *s)
{
	struct worker w[TASKS];
	struct ter_exec *exec = s->rig->exec;

	for (unsigned i = 0; i < TASKS; i++) {
		w[i] = (struct worker){ .s = s, .rand = s->rig->seed * (2 * i + 3) | 1, .nowait = i % 3 == 2 };
		assert_int_equal(exec->ops->spawn(exec, "worker", worker_task, &w[i], &w[i].task), 0);
	}
	for (unsigned i = 0; i < TASKS; i++)
		exec->ops->join(exec, w[i].task);
	assert_int_equal(atomic_load(&s->done), TASKS);
	assert_int_equal(atomic_load(&s->failed), 0);
	assert_true(atomic_load(&s->succeeded) > s->steps * TASKS / 4); /* it was about something */
	assert_int_equal(rig_check(s->rig), 0);
}

static void in_one_directory_run(struct rig *rig, void *arg)
{
	struct shared s = { .rig = rig, .dirs_nr = 1, .steps = *(unsigned *)arg };

	s.dir[0] = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755);
	run_workers(&s);
}

static void across_directories_run(struct rig *rig, void *arg)
{
	struct shared s = { .rig = rig, .dirs_nr = ARRAY_SIZE(s.dir), .steps = *(unsigned *)arg };

	/* Directories that are themselves among the names, so that they are moved, exchanged and removed under the others. */
	for (unsigned i = 0; i < s.dirs_nr; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		s.dir[i] = must_create(rig->vfs, i ? s.dir[i / 2] : TER_NODE_ROOT, name, S_IFDIR | 0755);
	}
	run_workers(&s);
}

static void in_one_directory(void **state)
{
	unsigned steps = 1500;

	(void)state;
	rig_run_threads(rig_seed(), TER_MIB(1), in_one_directory_run, &steps);
}

static void across_directories_that_move(void **state)
{
	unsigned steps = 1500;

	(void)state;
	rig_run_threads(rig_seed() * 3, 1, across_directories_run, &steps);
}

static void in_any_order_of_a_cooperative_scheduler(void **state)
{
	unsigned steps = 120;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		rig_run(rig_seed() * (2 * i + 5), 1, across_directories_run, &steps);
		rig_run(rig_seed() * (2 * i + 7), TER_MIB(1), in_one_directory_run, &steps);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_one_directory),
		cmocka_unit_test(across_directories_that_move),
		cmocka_unit_test(in_any_order_of_a_cooperative_scheduler),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A clock that was set back, to before the pool's last write, before 1970 and forth again: times say what the clock says, order comes from sequences alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "engine_rig.h"
#include "fs/vfs_calls.h"

#define TEST_SECONDS 250
#define FILE_BYTES 30000
#define SECOND 1000000000ll
#define THEN (1750000000ll * SECOND)

/* The clock stands still while a test does not move it. */
static struct ter_exec_ops ops;
static int64_t now_ns;

static int64_t clock_ns(struct ter_exec *exec)
{
	(void)exec;
	return now_ns;
}

static const int64_t clocks[] = {
	THEN - 1, THEN - SECOND, THEN - 10 * 365 * 86400ll * SECOND, 1, 0, -1, -5 * SECOND, THEN - 1, THEN + 100 * SECOND, THEN,
};

struct run {
	bool (*fn)(struct eng *e, unsigned i);
	unsigned i;
};

static void run_main(struct eng *e, void *arg)
{
	const struct run *r = arg;

	(void)r->fn(e, r->i);
	eng_close(e);
}

static void run(struct eng *e, bool (*fn)(struct eng *e, unsigned i), unsigned i)
{
	struct run r = { fn, i };

	eng_run(e, run_main, &r);
	if (e->failed)
		fail_msg("clock %u (%lld): %s (%s)", i, (long long)now_ns, e->why, e->error.text);
}

static bool is_now(struct timespec t)
{
	return (int64_t)t.tv_sec * SECOND + t.tv_nsec == now_ns;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void fill(uint8_t *buf, unsigned i)
{
	for (unsigned k = 0; k < FILE_BYTES; k++)
		buf[k] = eng_byte(i + 77, k);
}

static uint64_t find(struct eng *e, const char *name)
{
	struct ter_attr attr;

	return ter_vfs_lookup(e->vfs, &root_op, TER_NODE_ROOT, name, &attr) < 0 ? 0 : attr.node;
}

static bool holds(struct eng *e, unsigned i)
{
	uint8_t want[FILE_BYTES], got[FILE_BYTES];
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	ENG_CHECK(e, find(e, name));
	fill(want, i);
	ENG_CHECK(e, read_all(e->vfs, find(e, name), got, sizeof(got)) == FILE_BYTES && memcmp(want, got, FILE_BYTES) == 0);
	return true;
}

static bool write_new(struct eng *e, unsigned i)
{
	uint8_t buf[FILE_BYTES];
	struct ter_attr attr, root;
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	fill(buf, i);
	ENG_CHECK(e, ter_vfs_create(e->vfs, &root_op, TER_NODE_ROOT, name, S_IFREG | 0600, 0, NULL, &attr) == 0);
	ENG_CHECK(e, write_at(e->vfs, attr.node, 0, buf, FILE_BYTES) == 0 && fsync_wait(e->vfs, &root_op, attr.node) == 0);
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, attr.node, &attr) == 0);
	ENG_CHECK(e, is_now(attr.mtime) && is_now(attr.ctime) && is_now(attr.btime));
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, TER_NODE_ROOT, &root) == 0 && is_now(root.mtime) && is_now(root.ctime));
	return true;
}

/* The superblock's sequence as @member has it. */
static uint64_t seq_of(struct eng *e, unsigned member)
{
	struct ter_probe probe;
	uint64_t seq;

	if (ter_fs_probe(&e->env, e->path[member], &probe, &e->error) < 0 || !probe.is_member) {
		eng_fail(e, "member %u cannot be looked at", member);
		return 0;
	}
	seq = probe.seq;
	ter_probe_free(&probe);
	return seq;
}

static bool format(struct eng *e, unsigned i)
{
	(void)i;
	ENG_CHECK(e, eng_format(e) == 0 && eng_start(e, false, -1) == 0);
	ENG_CHECK(e, write_new(e, 0));
	ENG_CHECK(e, eng_stop(e) == 0);
	return true;
}

/* Writes, and dies: what was synced is in the journal, in entries that the clock says are older than those before them. */
static bool write_and_die(struct eng *e, unsigned i)
{
	const uint64_t seq = seq_of(e, 0);
	struct ter_attr first, again;

	ENG_CHECK(e, eng_start(e, false, -1) == 0);
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, find(e, "f0"), &first) == 0);
	ENG_CHECK(e, write_new(e, i));
	for (unsigned k = 0; k <= i; k++)
		ENG_CHECK(e, holds(e, k));
	/* An older file that nobody touched keeps its times; one that is written to takes the clock's, also when that is earlier. */
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, find(e, "f0"), &again) == 0 && same_time(first.mtime, again.mtime) &&
			     same_time(first.ctime, again.ctime));
	ENG_CHECK(e, write_at(e->vfs, again.node, 0, &(uint8_t){ eng_byte(77, 0) }, 1) == 0 && fsync_wait(e->vfs, &root_op, again.node) == 0);
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, again.node, &again) == 0 && is_now(again.mtime) && is_now(again.ctime) &&
			     same_time(first.btime, again.btime));
	ter_fs_emergency(e->fs, "The test says so.");
	eng_close(e);
	ENG_CHECK(e, seq_of(e, 0) > seq);
	return true;
}

static bool replay_and_stop(struct eng *e, unsigned i)
{
	const uint64_t seq = seq_of(e, 0);
	struct ter_fs_status status;
	struct ter_attr attr;
	char name[16];

	ENG_CHECK(e, eng_start(e, false, -1) == 0);
	ter_fs_get_status(e->fs, &status);
	ENG_CHECK(e, strstr(status.recovery, "replayed"));
	for (unsigned k = 0; k <= i; k++)
		ENG_CHECK(e, holds(e, k));
	snprintf(name, sizeof(name), "f%u", i);
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, find(e, name), &attr) == 0 && is_now(attr.mtime) && is_now(attr.btime));
	ENG_CHECK(e, ter_vfs_getattr(e->vfs, &root_op, find(e, "f0"), &attr) == 0 && is_now(attr.mtime));
	ENG_CHECK(e, eng_fsck_clean(e) && eng_stop(e) == 0 && seq_of(e, 0) > seq);
	return true;
}

static struct eng *fresh(unsigned layout, const char *name)
{
	struct eng *e = eng_new(&eng_layouts[layout], eng_seed());

	eng_guard(name, TEST_SECONDS);
	ops = *e->exec->ops;
	ops.real_ns = clock_ns;
	e->exec->ops = &ops;
	now_ns = THEN;
	run(e, format, 0);
	return e;
}

static void times_are_the_clock_s_and_replay_is_by_sequence(void **state)
{
	struct eng *e = fresh(0, "times_are_the_clock_s_and_replay_is_by_sequence");

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(clocks); i++) {
		now_ns = clocks[i];
		run(e, write_and_die, i + 1);
		run(e, replay_and_stop, i + 1);
	}
	eng_guard("", 0);
	eng_free(e);
}

static bool write_degraded(struct eng *e, unsigned i)
{
	ENG_CHECK(e, eng_start(e, false, TER_DEGRADED_YES) == 0);
	ENG_CHECK(e, write_new(e, i) && eng_stop(e) == 0);
	return true;
}

static unsigned away; /* the member that is, or was */

/* The member that was away was written later, says the clock, and is older all the same. */
static bool both_again(struct eng *e, unsigned i)
{
	ENG_CHECK(e, seq_of(e, !away) > seq_of(e, away));
	ENG_CHECK(e, eng_start(e, false, -1) == 0);
	for (unsigned k = 0; k <= i; k++)
		ENG_CHECK(e, holds(e, k));
	ENG_CHECK(e, eng_fsck_clean(e) && eng_stop(e) == 0 && seq_of(e, 0) == seq_of(e, 1));
	return true;
}

static void the_newest_member_is_the_one_with_the_highest_sequence(void **state)
{
	(void)state;
	for (away = 0; away < 2; away++) { /* what is written without it has one copy, so that the other cannot be away later */
		struct eng *e = fresh(1, "the_newest_member_is_the_one_with_the_highest_sequence");

		assert_int_equal(e->layout.devs, 2);
		for (unsigned i = 0; i < ARRAY_SIZE(clocks); i++) {
			now_ns = clocks[i];
			e->absent = (int)away;
			assert_int_equal(ter_sim_vanish(e->sim, e->path[away]), 0);
			run(e, write_degraded, i + 1);
			e->absent = -1;
			assert_int_equal(ter_sim_come_back(e->sim, e->path[away]), 0);
			now_ns = THEN;
			run(e, both_again, i + 1);
		}
		eng_guard("", 0);
		eng_free(e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_the_clock_s_and_replay_is_by_sequence),
		cmocka_unit_test(the_newest_member_is_the_one_with_the_highest_sequence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

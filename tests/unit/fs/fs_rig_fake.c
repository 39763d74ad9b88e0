/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rig of memory. Its clock is one of its own: a microsecond passes at each look. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "fs_rig_fake.h"

const bool rig_is_real = false;

static struct ter_exec_ops clock_ops;
static _Atomic int64_t clock_ns = 1700000000ll * 1000000000;

static int64_t clock_real_ns(struct ter_exec *exec)
{
	(void)exec;
	return atomic_fetch_add(&clock_ns, 1000);
}

void rig_fake_start(struct rig_fake *rf, bool orphans)
{
	const struct ter_vfs_config config = {
		.exec = rf->rig.exec, .sb = &rf->handle, .btrees = fake_bt(rf->fb), .data = (struct ter_data *)rf->fd, .journal = (struct ter_journal *)rf->fb,
		.next_inum = rf->fb->clock_inum, .cache_bytes = rf->rig.cache_bytes,
	};

	assert_int_equal(ter_vfs_new(&config, &rf->rig.vfs), 0);
	if (orphans)
		assert_int_equal(ter_vfs_reap_orphans(rf->rig.vfs), 0);
}

void rig_fake_stop(struct rig_fake *rf, bool clean)
{
	if (clean) {
		assert_int_equal(ter_vfs_sync(rf->rig.vfs), 0);
		ter_vfs_set_journal(rf->rig.vfs, (struct ter_journal *)rf->fb, true);
	} else {
		/* The background stops where it is: later commits fail. */
		rf->fb->fail_in = 0;
		rf->fb->fail_r = -ESHUTDOWN;
		ter_vfs_set_journal(rf->rig.vfs, (struct ter_journal *)rf->fb, true);
		fake_data_drop_dirty(rf->fd);
		rf->fb->fail_in = -1;
	}
	ter_vfs_free(rf->rig.vfs);
	rf->rig.vfs = NULL;
}

void rig_remount(struct rig *rig)
{
	rig_fake_stop(rig_fake(rig), true);
	rig_fake_start(rig_fake(rig), true);
}

void rig_crash(struct rig *rig)
{
	rig_fake_stop(rig_fake(rig), false);
	rig_fake_start(rig_fake(rig), true);
}

void rig_unfreeze(struct rig *rig)
{
	ter_vfs_set_journal(rig->vfs, (struct ter_journal *)rig_fake(rig)->fb, false);
}

void rig_restarts(struct rig *rig, unsigned every)
{
	rig_fake(rig)->fb->restart_every = every;
}

void rig_run(uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg)
{
	struct rig_fake *rf = calloc(1, sizeof(*rf));

	printf("seed: TER_TEST_SEED=%llu\n", (unsigned long long)seed);
	rf->rig.seed = seed;
	rf->rig.cache_bytes = cache_bytes;
	rf->rig.exec = ter_exec_new_threads();
	clock_ops = *rf->rig.exec->ops;
	clock_ops.real_ns = clock_real_ns;
	rf->rig.exec->ops = &clock_ops;
	ter_options_default(&rf->sb.options);
	memcpy(rf->sb.hash_key, "0123456789abcdef", 16);
	rf->handle.exec = rf->rig.exec;
	rf->handle.sb = &rf->sb;
	rf->fb = fake_btrees_new();
	rf->rig.btrees = fake_bt(rf->fb);
	rf->fd = fake_data_new(rf->fb);
	rig_fake_start(rf, false);
	assert_int_equal(ter_vfs_format(rf->rig.vfs), 0);
	fn(&rf->rig, arg);
	assert_int_equal(rig_check(&rf->rig), 0);
	rig_fake_stop(rf, true);
	fake_data_free(rf->fd);
	fake_btrees_free(rf->fb);
	ter_exec_free(rf->rig.exec);
	free(rf);
}

void rig_run_threads(uint64_t seed, size_t cache_bytes, void (*fn)(struct rig *rig, void *arg), void *arg)
{
	rig_run(seed, cache_bytes, fn, arg);
}

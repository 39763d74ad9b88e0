/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The superblock on simulated devices, under the cooperative scheduler: several tasks need replicas entries at once, requests complete in any order, and the power is cut
 * at every event of the run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "io/sim.h"
#include "sb_random.h"

#define SEEDS 6
#define TASKS 3
#define ENTRIES_EACH 3
#define MEMBERS 3
#define LATENCY_NS 100000
#define WRITE_NS (9 * LATENCY_NS) /* one write of the superblock: read three copies, write and flush three */

static const unsigned slots[MEMBERS] = { 0, 1, 5 }; /* of the sample */

struct acked {
	struct ter_replicas_entry entry;
	uint64_t event; /* the last one before ter_sb_replicas_ensure() returned */
};

struct run {
	uint64_t seed;
	struct ter_exec *exec;
	struct ter_sim *sim;
	struct ter_io *io;
	struct sb_pair pair;
	struct ter_sb_handle handle;
	struct acked acked[TASKS * ENTRIES_EACH];
	unsigned acked_nr;
	struct ter_sim_trace *trace;
	char failure[256]; /* the first; asserting in a task would leave its stack */
	unsigned cuts, newest_seqs;
};

#define expect(run, cond, fmt, ...)                                                                                    \
	do {                                                                                                           \
		if (!(cond) && !(run)->failure[0])                                                                     \
			(void)snprintf((run)->failure, sizeof((run)->failure), "%s: " fmt, #cond, ##__VA_ARGS__);              \
	} while (0)

static const char *path_of(unsigned i)
{
	static const char *const paths[MEMBERS] = { "/sim/a", "/sim/b", "/sim/c" };

	return paths[i];
}

static void open_members(struct run *run)
{
	for (unsigned i = 0; i < MEMBERS; i++) {
		struct ter_dev *dev = &run->pair.members->dev[slots[i]];
		int r = ter_bdev_open(run->io, path_of(i), 0, &dev->bdev, NULL);

		expect(run, r == 0, "%d", r);
	}
}

static void close_members(struct run *run)
{
	for (unsigned i = 0; i < MEMBERS; i++) {
		ter_bdev_close(run->pair.members->dev[slots[i]].bdev);
		run->pair.members->dev[slots[i]].bdev = NULL;
	}
}

struct worker {
	struct run *run;
	unsigned nr;
	struct ter_task *task;
};

static void work(void *arg)
{
	struct worker *worker = arg;
	struct run *run = worker->run;

	for (unsigned i = 0; i < ENTRIES_EACH; i++) {
		/* Tasks want some of the same: whoever comes second may not go on earlier. */
		unsigned n = (worker->nr + i) % (TASKS + 1);
		struct ter_replicas_entry entry = { TER_DATA_STRIPE, 1, 1, { n == 3 ? 5 : (uint8_t)(n % 2) } };
		struct ter_sim_stats stats;
		int r;

		/* Virtual time: to come at any moment of another one's write. */
		ter_sleep_ns(run->exec, ter_random_u64(run->exec) % (2 * WRITE_NS));
		if (n == 2)
			entry = (struct ter_replicas_entry){ TER_DATA_PARITY, 2, 2, { 1, 5 } };
		r = ter_sb_replicas_ensure(&run->handle, &entry, false);
		expect(run, r == 0, "%d", r);
		ter_sim_get_stats(run->sim, &stats);
		run->acked[run->acked_nr++] = (struct acked){ entry, stats.events };
	}
}

static void run_tasks(struct run *run)
{
	struct worker workers[TASKS];

	for (unsigned i = 0; i < TASKS; i++) {
		workers[i] = (struct worker){ .run = run, .nr = i };
		expect(run, run->exec->ops->spawn(run->exec, "ensure", work, &workers[i], &workers[i].task) == 0, "task %u", i);
	}
	for (unsigned i = 0; i < TASKS; i++)
		run->exec->ops->join(run->exec, workers[i].task);
}

/* Every member has a valid copy of before or after; the newest knows all that was acknowledged before the cut. */
static void check_state(struct run *run, uint64_t at, uint64_t seq_before, uint64_t seq_after)
{
	struct ter_sb *newest = NULL;

	open_members(run);
	for (unsigned i = 0; i < MEMBERS; i++) {
		struct ter_sb_read_result result = { 0 };
		struct ter_error why = { 0 };
		int r = ter_sb_read(run->exec, run->pair.members->dev[slots[i]].bdev, &result, &why);

		expect(run, r == 0, "cut at %llu, member %u: %.150s", (unsigned long long)at, i, why.text);
		if (r < 0)
			continue;
		expect(run, result.dev_idx == slots[i] && result.sb->seq >= seq_before && result.sb->seq <= seq_after, "cut at %llu", (unsigned long long)at);
		free(result.members);
		if (newest && newest->seq >= result.sb->seq) {
			ter_sb_free(result.sb);
			continue;
		}
		ter_sb_free(newest);
		newest = result.sb;
	}
	for (unsigned i = 0; newest && i < run->acked_nr; i++)
		expect(run, run->acked[i].event >= at || ter_sb_replicas_has(newest, &run->acked[i].entry),
		       "cut at %llu: entry %u, acknowledged at %llu", (unsigned long long)at, i, (unsigned long long)run->acked[i].event);
	if (newest)
		run->newest_seqs |= 1u << (newest->seq - seq_before);
	ter_sb_free(newest);
	close_members(run);
	run->cuts++;
}

static void cut_everywhere(struct run *run, uint64_t seq_before, uint64_t seq_after)
{
	static const enum ter_sim_keep keeps[] = { TER_SIM_KEEP_NONE, TER_SIM_KEEP_ALL, TER_SIM_KEEP_RANDOM, TER_SIM_KEEP_RANDOM };

	for (uint64_t at = run->trace->first_event; at <= run->trace->last_event + 1 && !run->failure[0]; at++)
		for (unsigned i = 0; i < ARRAY_SIZE(keeps); i++) {
			struct ter_sim_cut cut = { .at = at, .keep = keeps[i], .seed = run->seed + at * 4 + i, .torn_bytes = i == 0 ? 0 : 512 };

			ter_sim_apply(run->sim, run->trace, &cut);
			check_state(run, at, seq_before, seq_after);
		}
}

static void run_main(void *arg)
{
	struct run *run = arg;
	uint64_t seq_before;

	for (unsigned i = 0; i < MEMBERS; i++) {
		expect(run, ter_sim_add(run->sim, path_of(i), TER_MIB(64), 512) == 0, "device %u", i);
		expect(run, ter_sim_latency(run->sim, path_of(i), LATENCY_NS) == 0, "device %u", i);
	}
	ter_sim_record(run->sim, true);
	open_members(run);
	expect(run, ter_sb_write(&run->handle, NULL) == 0, "first write");
	ter_sim_trace_free(ter_sim_trace_take(run->sim)); /* all of it is flushed */

	seq_before = run->pair.sb->seq;
	run_tasks(run);
	run->trace = ter_sim_trace_take(run->sim);
	close_members(run);
	expect(run, run->trace->entry_nr >= 4 * 3 * MEMBERS * 2, "%u", run->trace->entry_nr); /* four entries, three copies, write and flush */
	cut_everywhere(run, seq_before, run->pair.sb->seq);
}

static void run_seed(uint64_t seed)
{
	struct run run = { .seed = seed, .exec = ter_exec_new_coop(seed), .pair = sb_sample_new() };

	run.sim = ter_sim_new(run.exec, seed, &run.io);
	run.handle = (struct ter_sb_handle){ .exec = run.exec, .sb = run.pair.sb, .members = run.pair.members };
	ter_lock_init(&run.handle.lock, TER_RANK_SB);
	ter_lock_init(&run.handle.write_lock, TER_RANK_SB_WRITE);
	assert_int_equal(ter_coop_run(run.exec, run_main, &run), 0);
	if (run.failure[0])
		fail_msg("seed %llu: %s", (unsigned long long)seed, run.failure);
	assert_int_equal(run.acked_nr, TASKS * ENTRIES_EACH);
	assert_int_equal(run.newest_seqs, 0x1f); /* cuts met each of the five superblocks */
	assert_true(run.cuts > 4 * 4 * 3 * MEMBERS * 2);

	ter_sim_trace_free(run.trace);
	ter_lock_destroy(&run.handle.lock);
	ter_lock_destroy(&run.handle.write_lock);
	ter_io_free(run.io);
	ter_exec_free(run.exec);
	sb_pair_free(&run.pair);
}

static void at_any_cut_entries_acknowledged_are_on_disk_and_every_member_is_valid(void **state)
{
	uint64_t seed = sb_test_seed();

	for (unsigned i = 0; i < SEEDS; i++)
		run_seed(seed + i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_any_cut_entries_acknowledged_are_on_disk_and_every_member_is_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

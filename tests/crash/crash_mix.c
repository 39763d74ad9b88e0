/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long seeded workloads, each of a kind that drives one part of the engine to its limits. */
#include "crash.h"

#include <stdio.h>

#define GOAL 20000
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 12
#else
#define SLOWER 1
#endif
#define STATES_PER_RUN 150
#define LIVES 2 /* clean stop and start between them */
#define LIE_GOAL 1000

static const struct mix {
	const char *name;
	unsigned ops; /* of each life */
	unsigned weights[ENG_STEPS_NR];
	uint32_t journal_bytes, journal_data_max; /* 0: the rig's */
	uint32_t flush_ms;
	uint64_t dev_bytes;                       /* of each member; 0: the layout's */
	bool may_fill;                            /* it begins with as much as fits */
	unsigned ballast;                         /* or with so many large files */
} mixes[] = {
	{ "everyday", 80,
	  { [ENG_STEP_CREATE] = 18, [ENG_STEP_LINK] = 5, [ENG_STEP_UNLINK] = 10, [ENG_STEP_RENAME] = 12, [ENG_STEP_WRITE] = 24, [ENG_STEP_TRUNCATE] = 7,
	    [ENG_STEP_FALLOCATE] = 6, [ENG_STEP_XATTR] = 8, [ENG_STEP_CHMOD] = 3, [ENG_STEP_FSYNC] = 7, [ENG_STEP_ASYNC_FSYNC] = 6, [ENG_STEP_REPLACE] = 5,
	    [ENG_STEP_SYNC] = 2, [ENG_STEP_WAIT] = 4 } },
	/* The smallest nodes: splits, new roots, merges. */
	{ "nodes split and merge", 260,
	  { [ENG_STEP_CREATE] = 50, [ENG_STEP_LINK] = 10, [ENG_STEP_UNLINK] = 22, [ENG_STEP_RENAME] = 10, [ENG_STEP_XATTR] = 60, [ENG_STEP_FSYNC] = 2,
	    [ENG_STEP_SYNC] = 1, [ENG_STEP_WAIT] = 3 } },
	/* The smallest ring: it wraps several times. */
	{ "journal wraps", 160,
	  { [ENG_STEP_CREATE] = 10, [ENG_STEP_UNLINK] = 6, [ENG_STEP_RENAME] = 8, [ENG_STEP_WRITE] = 20, [ENG_STEP_XATTR] = 20, [ENG_STEP_FSYNC] = 25,
	    [ENG_STEP_ASYNC_FSYNC] = 12, [ENG_STEP_REPLACE] = 12, [ENG_STEP_SYNC] = 4, [ENG_STEP_WAIT] = 1 },
	  .journal_bytes = 512 << 10 },
	/* The same, and nobody syncs: nodes have to be written that hold what is not durable yet. */
	{ "journal wraps by itself", 330,
	  { [ENG_STEP_CREATE] = 20, [ENG_STEP_UNLINK] = 8, [ENG_STEP_RENAME] = 12, [ENG_STEP_LINK] = 4, [ENG_STEP_CHMOD] = 10, [ENG_STEP_XATTR] = 90,
	    [ENG_STEP_WRITE] = 4 },
	  .journal_bytes = 512 << 10 },
	/* Write-back comes every few operations, and beside it what is journaled of the same blocks. */
	{ "write-back beside fsync", 220,
	  { [ENG_STEP_CREATE] = 4, [ENG_STEP_WRITE] = 8, [ENG_STEP_TRUNCATE] = 1, [ENG_STEP_CHMOD] = 3, [ENG_STEP_FSYNC] = 4, [ENG_STEP_ASYNC_FSYNC] = 4,
	    [ENG_STEP_REPLACE] = 1, [ENG_STEP_POKE] = 80 },
	  .flush_ms = 4 },
	/* What is freed is soon used again. */
	{ "little space", 110,
	  { [ENG_STEP_CREATE] = 8, [ENG_STEP_UNLINK] = 4, [ENG_STEP_WRITE] = 6, [ENG_STEP_TRUNCATE] = 12, [ENG_STEP_FSYNC] = 1, [ENG_STEP_WAIT] = 14,
	    [ENG_STEP_FILL] = 55 },
	  .dev_bytes = TER_KIB(8448), .may_fill = true, .ballast = 40 },
	{ "space runs out", 80,
	  { [ENG_STEP_CREATE] = 20, [ENG_STEP_UNLINK] = 9, [ENG_STEP_WRITE] = 10, [ENG_STEP_TRUNCATE] = 6, [ENG_STEP_FALLOCATE] = 5, [ENG_STEP_XATTR] = 3,
	    [ENG_STEP_FSYNC] = 4, [ENG_STEP_REPLACE] = 3, [ENG_STEP_SYNC] = 2, [ENG_STEP_WAIT] = 4, [ENG_STEP_FILL] = 40 },
	  .dev_bytes = TER_KIB(8448), .may_fill = true },
	{ "read-only and back", 70,
	  { [ENG_STEP_CREATE] = 15, [ENG_STEP_UNLINK] = 8, [ENG_STEP_RENAME] = 8, [ENG_STEP_WRITE] = 20, [ENG_STEP_TRUNCATE] = 5, [ENG_STEP_XATTR] = 5,
	    [ENG_STEP_FSYNC] = 3, [ENG_STEP_ASYNC_FSYNC] = 3, [ENG_STEP_WAIT] = 2, [ENG_STEP_READ_ONLY] = 6 } },
	/* No synced data in the journal: every fsync is extents. */
	{ "data", 90,
	  { [ENG_STEP_CREATE] = 6, [ENG_STEP_UNLINK] = 4, [ENG_STEP_WRITE] = 40, [ENG_STEP_TRUNCATE] = 16, [ENG_STEP_FALLOCATE] = 18, [ENG_STEP_FSYNC] = 8,
	    [ENG_STEP_ASYNC_FSYNC] = 8, [ENG_STEP_REPLACE] = 4, [ENG_STEP_SYNC] = 1, [ENG_STEP_WAIT] = 6 },
	  .journal_data_max = 4096 },
};
#define MIXES_NR ((unsigned)ARRAY_SIZE(mixes))

static void format_main(struct eng *e, void *arg)
{
	(void)arg;
	if (eng_format(e) < 0)
		eng_fail(e, "format: %s", e->error.text);
}

/* @files, or until nothing more fits. */
static bool fill_up(struct eng *e, unsigned files)
{
	for (unsigned i = 0; !e->full_nr && i < (files ? files : TM_ENTRIES_MAX); i++) {
		struct tm_node *node;
		char name[32];

		snprintf(name, sizeof(name), "ballast%u", i);
		if (!eng_op_begin(e, "ballast") || !eng_do_create(e, e->tm->root, name, S_IFREG | 0644, NULL, &node) ||
		    (node && !eng_do_write(e, node, 0, TM_FILE_MAX, false)) || !eng_op_end(e, true))
			return false;
	}
	return files || e->full_nr || eng_fail(e, "space never ran out");
}

static void workload_main(struct eng *e, void *arg)
{
	const struct mix *mix = arg;

	for (unsigned life = 0; life < LIVES && !e->failed; life++) {
		if (eng_start(e, false, -1) < 0) {
			eng_fail(e, "start: %s", e->error.text);
			return;
		}
		if (!life)
			eng_model_root(e);
		if (!life && mix->may_fill)
			fill_up(e, mix->ballast);
		for (unsigned i = 0; i < mix->ops && !e->failed && eng_step(e); i++)
			;
		if (!e->failed)
			(void)((e->unsettled || eng_compare(e)) && eng_fsck_clean(e));
		if (eng_stop(e) < 0)
			eng_fail(e, "stop: %s", e->error.text);
		eng_stopped(e);
	}
}

static void one_run(struct crash *c, unsigned layout_nr, unsigned mix_nr, unsigned nr, uint64_t budget, bool lies)
{
	const struct mix *mix = &mixes[mix_nr];
	struct eng_layout layout = eng_layouts[layout_nr];
	struct crash_run run = { .c = c, .lies = lies, .salt = ((c->seed * 64 + layout_nr) * 64 + mix_nr) * 1000003 + nr };
	struct eng *e;

	snprintf(run.name, sizeof(run.name), "%s,%u,%u,%u", lies ? "lies" : "mix", layout_nr, mix_nr, nr);
	if (!crash_wanted(c, run.name))
		return;
	for (unsigned d = 0; d < layout.devs && mix->dev_bytes; d++)
		layout.dev_bytes[d] = mix->dev_bytes;
	if (nr % 2)
		layout.journal_buckets = 0; /* a small ring: reclaim is at work all the time, and in turns */
	e = eng_new(&layout, run.salt);
	e->seed = c->seed;
	e->weights = mix->weights;
	e->may_fill = mix->may_fill;
	if (mix->journal_bytes)
		e->options.journal_size = mix->journal_bytes;
	if (mix->flush_ms)
		e->options.journal_flush_ms = mix->flush_ms;
	if (mix->journal_data_max)
		e->options.journal_data_max = mix->journal_data_max;
	eng_guard(run.name, 120);
	eng_run(e, format_main, NULL);
	eng_model_new(e);
	ter_sim_record(e->sim, true);
	if (!e->failed)
		eng_run(e, workload_main, (void *)(uintptr_t)mix);
	eng_guard("", 0);
	if (e->failed) {
		fprintf(stderr, "TER_TEST_SEED=%llu %s: the workload itself, op %u (%s): %s\n", (unsigned long long)c->seed, run.name, e->ops_nr,
			e->last_op ? e->last_op : "start", e->why);
		c->failures++;
	} else {
		run.e = e;
		run.trace = ter_sim_trace_take(e->sim);
		crash_try_all(&run, budget);
		ter_sim_trace_free(run.trace);
	}
	eng_free(e);
}

static void rounds(struct crash *c, uint64_t goal, bool lies)
{
	const uint64_t before = c->images.nr;
	unsigned layout, mix, nr;

	if (c->one) {
		if (sscanf(c->one_workload, lies ? "lies,%u,%u,%u" : "mix,%u,%u,%u", &layout, &mix, &nr) == 3 && layout < eng_layouts_nr && mix < MIXES_NR)
			one_run(c, layout, mix, nr, 0, lies);
		return;
	}
	/* In a run of any length each kind has its turn, on every layout as far as it comes. */
	for (unsigned i = 0; c->images.nr - before < goal && c->failures < c->failures_max; i++)
		one_run(c, (i + i / MIXES_NR) % eng_layouts_nr, i % MIXES_NR, i, ter_max((uint64_t)STATES_PER_RUN, goal / 2000), lies);
}

void crash_mixes(struct crash *c)
{
	c->goal = c->goal ? c->goal : GOAL / SLOWER;
	rounds(c, c->goal, false);
}

void crash_lies(struct crash *c)
{
	c->goal = c->goal ? c->goal : LIE_GOAL / SLOWER;
	rounds(c, c->goal, true);
}

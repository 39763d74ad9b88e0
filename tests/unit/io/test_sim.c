/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Simulated devices: sparse memory, what a power cut may leave and may not, snapshots, faults, order by seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/sim.h"

#define UNIT 4096u
#define DEVICE_BYTES TER_MIB(1)
#define SEEDS 200

struct rig {
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_sim *sim;
	struct ter_bdev *a, *b;
	uint8_t *memory; /* UNIT bytes for helpers that wait */
};

static void open_both(struct rig *rig)
{
	assert_return_code(ter_bdev_open(rig->io, "/sim/a", 0, &rig->a, NULL), 0);
	assert_return_code(ter_bdev_open(rig->io, "/sim/b", 0, &rig->b, NULL), 0);
}

static void close_both(struct rig *rig)
{
	ter_bdev_close(rig->a);
	ter_bdev_close(rig->b);
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->exec = ter_exec_new_threads();
	rig->sim = ter_sim_new(rig->exec, 1, &rig->io);
	rig->memory = aligned_alloc(UNIT, UNIT);
	assert_return_code(ter_sim_add(rig->sim, "/sim/a", DEVICE_BYTES, 512), 0);
	assert_return_code(ter_sim_add(rig->sim, "/sim/b", DEVICE_BYTES, UNIT), 0);
	open_both(rig);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	close_both(rig);
	ter_io_free(rig->io);
	ter_exec_free(rig->exec);
	free(rig->memory);
	free(rig);
	return 0;
}

static int put(struct rig *rig, struct ter_bdev *bdev, unsigned unit, uint8_t value, unsigned flags)
{
	memset(rig->memory, value, UNIT);
	return ter_bdev_write(bdev, unit * UNIT, rig->memory, UNIT, flags);
}

static int get(struct rig *rig, struct ter_bdev *bdev, unsigned unit)
{
	int r = ter_bdev_read(bdev, unit * UNIT, rig->memory, UNIT);

	return r < 0 ? r : rig->memory[UNIT / 2];
}

/* What device @path holds, past everything: all bytes of the unit must agree. */
static int held(struct rig *rig, const char *path, unsigned unit)
{
	uint8_t memory[UNIT];

	assert_return_code(ter_sim_peek(rig->sim, path, unit * UNIT, memory, UNIT), 0);
	for (unsigned i = 1; i < UNIT; i++)
		if (memory[i] != memory[0])
			return -1;
	return memory[0];
}

/* A request of its own that need not be waited for. */
struct request {
	struct ter_bio bio;
	struct ter_event event;
	uint8_t *memory;
};

static void tell(struct ter_bio *bio)
{
	ter_event_set(bio->priv, bio->result);
}

static struct request *start(struct ter_bdev *bdev, enum ter_bio_op op, unsigned unit, uint8_t value)
{
	struct request *q = calloc(1, sizeof(*q));

	q->memory = aligned_alloc(UNIT, UNIT);
	memset(q->memory, value, UNIT);
	ter_event_init(&q->event);
	q->bio = (struct ter_bio){.op = op,
				  .bdev = bdev,
				  .iov1 = {q->memory, UNIT},
				  .iov = &q->bio.iov1,
				  .iov_nr = 1,
				  .done = tell,
				  .priv = &q->event};
	if (op != TER_BIO_FLUSH) {
		q->bio.offset_bytes = unit * UNIT;
		q->bio.bytes = UNIT;
	}
	ter_bio_submit(&q->bio);
	return q;
}

static int finish(struct request *q)
{
	int r = ter_event_wait(&q->event);

	ter_event_destroy(&q->event);
	free(q->memory);
	free(q);
	return r;
}

/* --- memory --- */

static void a_hundred_large_devices_cost_nothing(void **state)
{
	struct rig *rig = *state;
	uint64_t bytes = TER_GIB(16), hash;
	char path[32];

	for (unsigned i = 0; i < 100; i++) {
		struct ter_bdev *bdev;

		snprintf(path, sizeof(path), "/sim/large%u", i);
		assert_return_code(ter_sim_add(rig->sim, path, bytes, UNIT), 0);
		assert_return_code(ter_bdev_open(rig->io, path, 0, &bdev, NULL), 0);
		assert_int_equal(bdev->info.bytes, bytes);
		memset(rig->memory, (int)i + 1, UNIT);
		assert_return_code(ter_bdev_write(bdev, bytes - UNIT, rig->memory, UNIT, 0), 0);
		memset(rig->memory, 0, UNIT);
		assert_return_code(ter_bdev_read(bdev, bytes - UNIT, rig->memory, UNIT), 0);
		assert_int_equal(rig->memory[0], i + 1);
		assert_return_code(ter_bdev_read(bdev, bytes / 2, rig->memory, UNIT), 0);
		assert_int_equal(rig->memory[0], 0);
		ter_bdev_close(bdev);
	}
	hash = ter_sim_hash(rig->sim);
	assert_return_code(ter_sim_poke(rig->sim, "/sim/large7", 12345, "x", 1), 0);
	assert_true(ter_sim_hash(rig->sim) != hash);
	assert_return_code(ter_sim_poke(rig->sim, "/sim/large7", 12345, "", 1), 0);
	assert_true(ter_sim_hash(rig->sim) == hash); /* zeros never written are zeros written */
	assert_int_equal(ter_sim_add(rig->sim, path, bytes, UNIT), -EEXIST);
	assert_int_equal(ter_sim_add(rig->sim, "/sim/odd", 1000, 512), -EINVAL);
	assert_int_equal(ter_sim_add(rig->sim, "/sim/odd", 3000, 1000), -EINVAL);
	assert_int_equal(ter_sim_add(rig->sim, "/sim/odd", 0, 512), -EINVAL);
}

static void a_device_has_one_owner(void **state)
{
	struct rig *rig = *state;
	struct ter_error error = {0};
	struct ter_bdev *again;

	assert_int_equal(ter_bdev_open(rig->io, "/sim/a", 0, &again, &error), -EBUSY);
	assert_int_equal(error.kind, TER_ERR_DEVICE_IN_USE);
	ter_error_clear(&error);
	assert_int_equal(ter_bdev_open(rig->io, "/sim/none", 0, &again, &error), -ENOENT);
	assert_int_equal(error.kind, TER_ERR_NOT_FOUND);
	ter_error_clear(&error);
	assert_int_equal(ter_bdev_open(rig->io, "sim/a", 0, &again, &error), -EINVAL);
	assert_int_equal(error.kind, TER_ERR_INVALID_ARGUMENT);
	ter_bdev_close(rig->a);
	ter_sim_info(rig->sim, "/sim/a")->rotational = true;
	assert_return_code(ter_bdev_open(rig->io, "/sim/a", 0, &rig->a, NULL), 0);
	assert_true(rig->a->info.rotational);
	assert_int_not_equal(rig->a->info.rdev, rig->b->info.rdev);
	assert_null(ter_sim_info(rig->sim, "/sim/none"));
}

static void misaligned_requests_are_refused(void **state)
{
	struct rig *rig = *state;

	assert_return_code(ter_bdev_read(rig->a, 512, rig->memory, 512), 0);
	assert_int_equal(ter_bdev_read(rig->b, 512, rig->memory, UNIT), -EINVAL);
	assert_int_equal(ter_bdev_read(rig->b, 0, rig->memory, 512), -EINVAL);
	assert_int_equal(ter_bdev_read(rig->a, 0, rig->memory + 8, 512), -EINVAL);
	assert_int_equal(ter_bdev_discard(rig->b, 512, UNIT), -EINVAL);
}

/* --- recording --- */

static void a_recording_tells_what_was_done_and_when(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace;
	struct ter_sim_stats stats;

	assert_null(ter_sim_trace(rig->sim));
	assert_null(ter_sim_trace_take(rig->sim));
	put(rig, rig->a, 0, 1, 0);
	ter_sim_record(rig->sim, true);
	put(rig, rig->b, 3, 2, TER_BIO_FUA);
	get(rig, rig->b, 3);
	assert_return_code(ter_bdev_flush(rig->a), 0);
	assert_return_code(ter_bdev_discard(rig->a, 0, UNIT), 0);
	assert_int_equal(ter_sim_trace(rig->sim)->entry_nr, 3);
	trace = ter_sim_trace_take(rig->sim);
	assert_int_equal(ter_sim_trace(rig->sim)->entry_nr, 0);
	assert_int_equal(trace->entry_nr, 3);
	assert_int_equal(trace->entry[0].op, TER_BIO_WRITE);
	assert_int_equal(trace->entry[0].device_idx, 1);
	assert_int_equal(trace->entry[0].flags, TER_BIO_FUA);
	assert_int_equal(trace->entry[0].offset_bytes, 3 * UNIT);
	assert_int_equal(trace->entry[0].bytes, UNIT);
	assert_int_equal(((uint8_t *)trace->entry[0].data)[UNIT - 1], 2);
	assert_int_equal(trace->entry[1].op, TER_BIO_FLUSH);
	assert_int_equal(trace->entry[2].op, TER_BIO_DISCARD);
	assert_int_equal(trace->entry[0].submit, trace->first_event);
	assert_int_equal(trace->entry[0].complete, trace->first_event + 1);
	assert_int_equal(trace->entry[1].submit, trace->first_event + 4); /* the read was two events */
	assert_int_equal(trace->entry[2].complete, trace->last_event);
	assert_int_equal(ter_sim_pending_nr(trace, TER_SIM_NOW), 1);
	assert_int_equal(ter_sim_pending_nr(trace, trace->first_event + 1), 1);
	assert_int_equal(ter_sim_pending_nr(trace, trace->first_event + 2), 0);
	ter_sim_trace_free(trace);
	ter_sim_trace_free(NULL);
	ter_sim_record(rig->sim, false);
	assert_null(ter_sim_trace(rig->sim));

	ter_sim_get_stats(rig->sim, &stats);
	assert_int_equal(stats.writes, 2);
	assert_int_equal(stats.reads, 1);
	assert_int_equal(stats.flushes, 1);
	assert_int_equal(stats.discards, 1);
	assert_int_equal(stats.write_bytes, 2 * UNIT);
	assert_int_equal(stats.events, 10);
}

/* --- power cuts --- */

/* Unit 0: flushed. 1: written. 2: FUA. 3: in flight. 4 was 9 before and is discarded. On b, unit 0: written, never
 * flushed. */
static struct ter_sim_trace *standard_trace(struct rig *rig)
{
	struct ter_sim_trace *trace;
	struct request *q;

	put(rig, rig->a, 4, 9, 0);
	ter_sim_record(rig->sim, true);
	put(rig, rig->a, 0, 1, 0);
	assert_return_code(ter_bdev_flush(rig->a), 0);
	put(rig, rig->a, 1, 2, 0);
	put(rig, rig->a, 2, 3, TER_BIO_FUA);
	assert_return_code(ter_bdev_discard(rig->a, 4 * UNIT, UNIT), 0);
	put(rig, rig->b, 0, 5, 0);
	assert_return_code(ter_sim_latency(rig->sim, "/sim/a", UINT64_MAX), 0);
	q = start(rig->a, TER_BIO_WRITE, 3, 4);
	trace = ter_sim_trace_take(rig->sim);
	assert_return_code(ter_sim_latency(rig->sim, "/sim/a", 0), 0);
	assert_return_code(finish(q), 0);
	return trace;
}

static void a_cut_keeps_what_is_durable_and_may_keep_the_rest(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace = standard_trace(rig);
	unsigned seen[32] = {0}, subsets = 0;

	assert_int_equal(ter_sim_pending_nr(trace, TER_SIM_NOW), 4);
	ter_sim_apply(rig->sim, trace, &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE});
	assert_int_equal(held(rig, "/sim/a", 0), 1);
	assert_int_equal(held(rig, "/sim/a", 1), 0);
	assert_int_equal(held(rig, "/sim/a", 2), 3);
	assert_int_equal(held(rig, "/sim/a", 3), 0);
	assert_int_equal(held(rig, "/sim/a", 4), 9);
	assert_int_equal(held(rig, "/sim/b", 0), 0);
	ter_sim_apply(rig->sim, trace, &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL});
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(held(rig, "/sim/a", i), i + 1);
	assert_int_equal(held(rig, "/sim/a", 4), 0);
	assert_int_equal(held(rig, "/sim/b", 0), 5);

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		ter_sim_apply(rig->sim, trace,
			      &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = seed});
		assert_int_equal(held(rig, "/sim/a", 0), 1);
		assert_int_equal(held(rig, "/sim/a", 2), 3);
		assert_true(held(rig, "/sim/a", 1) == 2 || held(rig, "/sim/a", 1) == 0);
		assert_true(held(rig, "/sim/a", 3) == 4 || held(rig, "/sim/a", 3) == 0);
		seen[(held(rig, "/sim/a", 1) == 2) | (held(rig, "/sim/a", 3) == 4) << 1 |
		     (held(rig, "/sim/a", 4) != 9) << 2 | (held(rig, "/sim/b", 0) == 5) << 3 |
		     (held(rig, "/sim/a", 4) == -1) << 4]++;
	}
	for (unsigned i = 0; i < 16; i++)
		subsets += seen[i] || seen[i + 16];
	assert_int_equal(subsets, 16);
	for (unsigned i = 16; i < 32; i++)
		subsets += seen[i]; /* discards that left garbage */
	assert_true(subsets > 16);
	ter_sim_trace_free(trace);
	close_both(rig);
	open_both(rig);
}

static bool keep_unit(void *arg, const struct ter_sim_entry *entry)
{
	return entry->offset_bytes == *(unsigned *)arg * UNIT && entry->device_idx == 0;
}

static void a_cut_asks_entry_by_entry(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace = standard_trace(rig);

	for (unsigned unit = 0; unit < 5; unit++) {
		ter_sim_apply(rig->sim, trace,
			      &(struct ter_sim_cut){
				      .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ASK, .keep_fn = keep_unit, .arg = &unit});
		assert_int_equal(held(rig, "/sim/a", 0), 1);
		assert_int_equal(held(rig, "/sim/a", 1), unit == 1 ? 2 : 0);
		assert_int_equal(held(rig, "/sim/a", 2), 3);
		assert_int_equal(held(rig, "/sim/a", 3), unit == 3 ? 4 : 0);
		assert_int_equal(held(rig, "/sim/a", 4), unit == 4 ? 0 : 9);
		assert_int_equal(held(rig, "/sim/b", 0), 0);
	}
	ter_sim_trace_free(trace);
	close_both(rig);
	open_both(rig);
}

#define FOLD_CUTS 64

static void folding_changes_no_later_state(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace = standard_trace(rig);
	const unsigned entries = trace->entry_nr;
	uint64_t hash[FOLD_CUTS][3];

	assert_true(trace->last_event + 1 - trace->first_event < FOLD_CUTS);
	for (unsigned pass = 0; pass < 2; pass++) {
		for (uint64_t at = trace->first_event; at <= trace->last_event + 1; at++) {
			uint64_t *want = hash[at - trace->first_event];

			if (pass)
				ter_sim_trace_fold(trace, at);
			for (unsigned v = 0; v < 3; v++) {
				ter_sim_apply(rig->sim, trace,
					      &(struct ter_sim_cut){
						      .at = at,
						      .keep = v == 0   ? TER_SIM_KEEP_NONE
							      : v == 1 ? TER_SIM_KEEP_ALL
								       : TER_SIM_KEEP_RANDOM,
						      .torn_bytes = 512,
						      .seed = at});
				if (pass)
					assert_true(ter_sim_hash(rig->sim) == want[v]);
				else
					want[v] = ter_sim_hash(rig->sim);
			}
		}
	}
	assert_true(trace->entry_nr < entries);
	ter_sim_trace_free(trace);
	close_both(rig);
	open_both(rig);
}

static void a_flush_that_lies_keeps_nothing(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace = standard_trace(rig);
	unsigned pending[16];

	assert_int_equal(ter_sim_pending(trace, TER_SIM_NOW, pending, ARRAY_SIZE(pending)), 4);
	for (unsigned i = 1; i < 4; i++)
		assert_true(pending[i - 1] < pending[i] && trace->entry[pending[i]].op != TER_BIO_FLUSH);
	ter_sim_apply(rig->sim, trace,
		      &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE, .flush_lies = true});
	assert_int_equal(held(rig, "/sim/a", 0), 0);
	assert_int_equal(held(rig, "/sim/a", 2), 0);
	ter_sim_trace_free(trace);
	close_both(rig);
	open_both(rig);
}

static void a_cut_at_each_event_knows_only_the_past(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace = standard_trace(rig);
	unsigned kept_before = 0, durable_before = 0;

	for (uint64_t at = trace->first_event; at <= trace->last_event + 1; at++) {
		unsigned kept = 0, durable = 0;

		ter_sim_apply(rig->sim, trace, &(struct ter_sim_cut){.at = at, .keep = TER_SIM_KEEP_ALL});
		for (unsigned i = 0; i < 4; i++)
			kept += held(rig, "/sim/a", i) == (int)i + 1;
		ter_sim_apply(rig->sim, trace, &(struct ter_sim_cut){.at = at, .keep = TER_SIM_KEEP_NONE});
		for (unsigned i = 0; i < 4; i++)
			durable += held(rig, "/sim/a", i) == (int)i + 1;
		assert_true(kept >= kept_before && durable >= durable_before && durable <= kept);
		if (at == trace->first_event)
			assert_int_equal(kept, 0);
		if (at == trace->first_event + 3) /* write completed, flush submitted */
			assert_true(kept == 1 && durable == 0);
		if (at == trace->first_event + 4) /* flush completed, which is not before its own event */
			assert_true(kept == 1 && durable == 1);
		kept_before = kept;
		durable_before = durable;
	}
	assert_int_equal(kept_before, 4);
	assert_int_equal(durable_before, 2);
	ter_sim_trace_free(trace);
	close_both(rig);
	open_both(rig);
}

static void a_flush_covers_only_what_completed_before_it(void **state)
{
	struct rig *rig = *state;
	struct request *write, *flush;

	ter_sim_record(rig->sim, true);
	ter_sim_latency(rig->sim, "/sim/a", UINT64_MAX);
	write = start(rig->a, TER_BIO_WRITE, 0, 1);
	flush = start(rig->a, TER_BIO_FLUSH, 0, 0);
	ter_sim_latency(rig->sim, "/sim/a", 0);
	assert_return_code(finish(write), 0);
	assert_return_code(finish(flush), 0);
	assert_int_equal(get(rig, rig->a, 0), 1);
	ter_sim_cut(rig->sim, &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE});
	assert_int_equal(held(rig, "/sim/a", 0), 0);
}

static void a_failed_flush_covers_nothing(void **state)
{
	struct rig *rig = *state;

	ter_sim_record(rig->sim, true);
	put(rig, rig->a, 0, 1, 0);
	assert_return_code(ter_sim_fail(rig->sim, "/sim/a", TER_BIO_FLUSH, 1, false), 0);
	assert_int_equal(ter_bdev_flush(rig->a), -EIO);
	assert_return_code(ter_bdev_flush(rig->b), 0); /* another device's */
	ter_sim_cut(rig->sim, &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE});
	assert_int_equal(held(rig, "/sim/a", 0), 0);
}

static void overlapping_writes_keep_the_order_the_device_saw(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace;
	unsigned seen[3] = {0};

	ter_sim_record(rig->sim, true);
	put(rig, rig->a, 0, 1, 0);
	put(rig, rig->a, 0, 2, 0);
	trace = ter_sim_trace_take(rig->sim);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		ter_sim_apply(rig->sim, trace,
			      &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL, .seed = seed});
		assert_int_equal(held(rig, "/sim/a", 0), 2);
		ter_sim_apply(rig->sim, trace,
			      &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_RANDOM, .seed = seed});
		seen[held(rig, "/sim/a", 0)]++;
	}
	assert_true(seen[0] && seen[1] && seen[2]);
	ter_sim_trace_free(trace);
}

static void overlapping_writes_in_flight_take_any_order(void **state)
{
	struct rig *rig = *state;
	struct request *one, *two;
	struct ter_sim_trace *trace;
	unsigned seen[3] = {0};

	ter_sim_record(rig->sim, true);
	ter_sim_latency(rig->sim, "/sim/a", UINT64_MAX);
	one = start(rig->a, TER_BIO_WRITE, 0, 1);
	two = start(rig->a, TER_BIO_WRITE, 0, 2);
	trace = ter_sim_trace_take(rig->sim);
	ter_sim_latency(rig->sim, "/sim/a", 0);
	finish(one);
	finish(two);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		ter_sim_apply(rig->sim, trace,
			      &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL, .seed = seed});
		seen[held(rig, "/sim/a", 0)]++;
	}
	assert_int_equal(seen[0], 0);
	assert_true(seen[1] && seen[2]);
	ter_sim_trace_free(trace);
}

static void only_the_last_pending_write_is_torn(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_trace *trace;
	unsigned prefixes[9] = {0}, others = 0;

	ter_sim_record(rig->sim, true);
	put(rig, rig->a, 0, 1, 0);
	put(rig, rig->a, 1, 2, 0);
	trace = ter_sim_trace_take(rig->sim);
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		uint8_t memory[UNIT];
		unsigned sectors = 0, prefix = 0;

		ter_sim_apply(rig->sim, trace,
			      &(struct ter_sim_cut){
				      .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL, .seed = seed, .torn_bytes = 512});
		assert_int_equal(held(rig, "/sim/a", 0), 1);
		assert_return_code(ter_sim_peek(rig->sim, "/sim/a", UNIT, memory, UNIT), 0);
		for (unsigned i = 0; i < 8; i++) {
			assert_true(memory[i * 512] == memory[i * 512 + 511] &&
				    (memory[i * 512] == 0 || memory[i * 512] == 2));
			sectors += memory[i * 512] == 2;
			prefix += prefix == i && memory[i * 512] == 2;
		}
		if (prefix == sectors)
			prefixes[prefix]++;
		else
			others++;
	}
	for (unsigned i = 0; i < 8; i++)
		assert_true(prefixes[i] > 0);
	assert_true(others > 0);

	for (unsigned n = 1; n <= 8; n++) {
		uint8_t memory[UNIT];

		ter_sim_apply(
			rig->sim, trace,
			&(struct ter_sim_cut){
				.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL, .torn_bytes = 512, .torn_prefix = n});
		assert_return_code(ter_sim_peek(rig->sim, "/sim/a", UNIT, memory, UNIT), 0);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(memory[i * 512], i < n ? 2 : 0);
	}
	ter_sim_trace_free(trace);
}

static void after_a_cut_old_openings_are_dead(void **state)
{
	struct rig *rig = *state;
	struct request *q;

	ter_sim_record(rig->sim, true);
	put(rig, rig->a, 0, 1, TER_BIO_FUA);
	ter_sim_latency(rig->sim, "/sim/a", UINT64_MAX);
	q = start(rig->a, TER_BIO_WRITE, 1, 2);
	ter_sim_cut(rig->sim, &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_NONE});
	assert_int_equal(finish(q), -EIO);
	assert_int_equal(get(rig, rig->a, 0), -EIO);
	assert_int_equal(put(rig, rig->b, 0, 1, 0), -EIO);
	ter_sim_latency(rig->sim, "/sim/a", 0);
	assert_int_equal(held(rig, "/sim/a", 1), 0);
	close_both(rig);
	open_both(rig);
	assert_int_equal(get(rig, rig->a, 0), 1);
	assert_int_equal(ter_sim_trace(rig->sim)->entry_nr, 0); /* began anew */
}

static void power_goes_off_after_so_many_writes(void **state)
{
	struct rig *rig = *state;

	ter_sim_record(rig->sim, true);
	ter_sim_power_off_after(rig->sim, 3);
	assert_int_equal(put(rig, rig->a, 0, 1, 0), 0);
	assert_int_equal(get(rig, rig->a, 0), 1);
	assert_int_equal(ter_bdev_flush(rig->a), 0);
	assert_false(ter_sim_power_is_off(rig->sim));
	assert_int_equal(put(rig, rig->a, 1, 2, 0), -EIO); /* submitted, then dark */
	assert_true(ter_sim_power_is_off(rig->sim));
	assert_int_equal(get(rig, rig->a, 0), -EIO);
	assert_int_equal(put(rig, rig->b, 0, 3, 0), -EIO);
	assert_int_equal(ter_sim_trace(rig->sim)->entry_nr, 3);
	ter_sim_cut(rig->sim, &(struct ter_sim_cut){.at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL});
	assert_false(ter_sim_power_is_off(rig->sim));
	assert_int_equal(held(rig, "/sim/a", 0), 1);
	assert_int_equal(held(rig, "/sim/a", 1), 2);
	assert_int_equal(held(rig, "/sim/b", 0), 0);
	close_both(rig);
	open_both(rig);
	assert_int_equal(put(rig, rig->b, 0, 3, 0), 0);
	ter_sim_power_off_after(rig->sim, 0);
	assert_int_equal(get(rig, rig->b, 0), -EIO);
	ter_sim_cut(rig->sim, &(struct ter_sim_cut){.at = TER_SIM_NOW});
}

/* --- snapshots --- */

static void a_snapshot_brings_back_all_or_one(void **state)
{
	struct rig *rig = *state;
	struct ter_sim_snapshot *one, *two;
	uint64_t hash;

	put(rig, rig->a, 0, 1, 0);
	put(rig, rig->b, 0, 1, 0);
	one = ter_sim_snapshot_take(rig->sim);
	hash = ter_sim_hash(rig->sim);
	put(rig, rig->a, 0, 2, 0);
	put(rig, rig->a, 20, 2, 0);
	put(rig, rig->b, 0, 2, 0);
	two = ter_sim_snapshot_take(rig->sim);
	ter_sim_restore(rig->sim, one, NULL);
	assert_true(ter_sim_hash(rig->sim) == hash);
	assert_int_equal(held(rig, "/sim/a", 20), 0);
	ter_sim_restore(rig->sim, two, "/sim/a");
	assert_int_equal(held(rig, "/sim/a", 0), 2);
	assert_int_equal(held(rig, "/sim/b", 0), 1); /* stale */
	ter_sim_snapshot_free(two);
	ter_sim_restore(rig->sim, one, NULL);
	assert_true(ter_sim_hash(rig->sim) == hash);
	ter_sim_snapshot_free(one);
	ter_sim_snapshot_free(NULL);
	close_both(rig);
	open_both(rig);
}

/* --- faults --- */

static void the_nth_request_fails(void **state)
{
	struct rig *rig = *state;

	assert_return_code(ter_sim_fail(rig->sim, "/sim/a", TER_BIO_WRITE, 2, false), 0);
	assert_int_equal(put(rig, rig->a, 0, 1, 0), 0);
	assert_int_equal(put(rig, rig->b, 0, 1, 0), 0);
	assert_int_equal(put(rig, rig->a, 0, 2, 0), -EIO);
	assert_int_equal(put(rig, rig->a, 0, 3, 0), 0);
	assert_return_code(ter_sim_fail(rig->sim, "/sim/a", TER_BIO_READ, 1, true), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(get(rig, rig->a, 0), -EIO);
	assert_int_equal(put(rig, rig->a, 0, 4, 0), 0);
	ter_sim_fail_none(rig->sim);
	assert_int_equal(get(rig, rig->a, 0), 4);
	assert_int_equal(ter_sim_fail(rig->sim, "/sim/none", TER_BIO_READ, 1, true), -ENOENT);
}

static void corruption_changes_every_byte_of_the_range_only(void **state)
{
	struct rig *rig = *state;
	uint8_t memory[UNIT];

	put(rig, rig->a, 0, 7, 0);
	assert_return_code(ter_sim_corrupt(rig->sim, "/sim/a", 100, 50), 0);
	assert_return_code(ter_sim_peek(rig->sim, "/sim/a", 0, memory, UNIT), 0);
	for (unsigned i = 0; i < UNIT; i++)
		assert_true((memory[i] == 7) == (i < 100 || i >= 150));
	assert_int_equal(ter_sim_corrupt(rig->sim, "/sim/a", DEVICE_BYTES, 1), -EINVAL);
	assert_int_equal(ter_sim_corrupt(rig->sim, "/sim/none", 0, 1), -ENOENT);
	assert_int_equal(ter_sim_peek(rig->sim, "/sim/a", DEVICE_BYTES - 1, memory, 2), -EINVAL);
	assert_int_equal(ter_sim_poke(rig->sim, "/sim/none", 0, memory, 2), -ENOENT);
}

static void a_device_vanishes_and_comes_back(void **state)
{
	struct rig *rig = *state;
	struct ter_bdev *again;

	put(rig, rig->a, 0, 7, 0);
	assert_return_code(ter_sim_vanish(rig->sim, "/sim/a"), 0);
	assert_int_equal(get(rig, rig->a, 0), -EIO);
	assert_int_equal(ter_bdev_flush(rig->a), -EIO);
	assert_int_equal(ter_bdev_open(rig->io, "/sim/a", 0, &again, NULL), -ENOENT);
	assert_int_equal(get(rig, rig->b, 0), 0);
	assert_return_code(ter_sim_come_back(rig->sim, "/sim/a"), 0);
	assert_int_equal(get(rig, rig->a, 0), -EIO); /* an opening from before */
	assert_return_code(ter_bdev_open(rig->io, "/sim/a", 0, &again, NULL), 0);
	assert_int_equal(get(rig, again, 0), 7);
	ter_bdev_close(rig->a);
	assert_int_equal(get(rig, again, 0), 7); /* whose closing does not release the new one */
	rig->a = again;
	assert_int_equal(ter_bdev_open(rig->io, "/sim/a", 0, &again, NULL), -EBUSY);
	assert_int_equal(ter_sim_vanish(rig->sim, "/sim/none"), -ENOENT);
}

static void changing_memory_in_flight_is_found(void **state)
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct ter_exec *exec = ter_exec_new_threads();
		struct ter_io *io;
		struct ter_sim *sim = ter_sim_new(exec, 1, &io);
		struct rig rig = {.exec = exec, .io = io, .sim = sim};
		struct request *q;

		(void)!freopen("/dev/null", "w", stderr);
		signal(SIGABRT, SIG_DFL);
		ter_sim_add(sim, "/sim/a", DEVICE_BYTES, 512);
		ter_sim_add(sim, "/sim/b", DEVICE_BYTES, 512);
		open_both(&rig);
		ter_sim_record(sim, true);
		ter_sim_latency(sim, "/sim/a", UINT64_MAX);
		q = start(rig.a, TER_BIO_WRITE, 0, 1);
		q->memory[5] = 2;
		ter_sim_latency(sim, "/sim/a", 0);
		finish(q);
		_exit(0);
	}
	assert_return_code(child, 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* --- under the cooperative scheduler --- */

#define ORDER_NR 40

struct order {
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_sim *sim;
	unsigned nr;
	uint8_t done[ORDER_NR];
	uint64_t took_ns;
	struct ter_event all;
	struct ter_bdev *bdev;
};

static void note_order(struct ter_bio *bio)
{
	struct order *order = bio->priv;

	order->done[order->nr++] = (uint8_t)(bio->offset_bytes / UNIT);
	if (order->nr == ORDER_NR)
		ter_event_set(&order->all, 0);
}

static void order_main(void *arg)
{
	struct order *order = arg;
	struct ter_bio bio[ORDER_NR];
	uint8_t *memory = aligned_alloc(UNIT, UNIT);
	struct ter_bdev *bdev;
	uint64_t begin = ter_mono_ns(order->exec);

	ter_event_init(&order->all);
	if (ter_bdev_open(order->io, "/sim/a", 0, &bdev, NULL) < 0)
		abort();
	for (unsigned i = 0; i < ORDER_NR; i++) {
		bio[i] = (struct ter_bio){.op = TER_BIO_READ,
					  .bdev = bdev,
					  .offset_bytes = i * UNIT,
					  .bytes = UNIT,
					  .iov1 = {memory, UNIT},
					  .iov = &bio[i].iov1,
					  .iov_nr = 1,
					  .done = note_order,
					  .priv = order};
		ter_bio_submit(&bio[i]);
	}
	ter_event_wait(&order->all);
	ter_event_destroy(&order->all);
	order->took_ns = ter_mono_ns(order->exec) - begin;
	ter_bdev_close(bdev);
	free(memory);
}

static void run_order(struct order *order, uint64_t seed, uint64_t latency_ns)
{
	*order = (struct order){.exec = ter_exec_new_coop(seed)};
	order->sim = ter_sim_new(order->exec, seed, &order->io);
	assert_return_code(ter_sim_add(order->sim, "/sim/a", DEVICE_BYTES, UNIT), 0);
	assert_return_code(ter_sim_latency(order->sim, "/sim/a", latency_ns), 0);
	assert_return_code(ter_coop_run(order->exec, order_main, order), 0);
	order->nr = 0;
	assert_return_code(ter_coop_run(order->exec, order_main, order), 0); /* the sim serves run after run */
	ter_io_free(order->io);
	ter_exec_free(order->exec);
}

static void the_seed_decides_the_order_of_completion(void **state)
{
	struct order one, two, other;
	unsigned differ = 0, in_order = 0;

	for (uint64_t seed = 0; seed < 20; seed++) {
		run_order(&one, seed, 0);
		run_order(&two, seed, 0);
		assert_memory_equal(one.done, two.done, sizeof(one.done));
		run_order(&other, seed + 1000, 0);
		differ += memcmp(one.done, other.done, sizeof(one.done)) != 0;
		in_order += 1;
		for (unsigned i = 0; i < ORDER_NR; i++)
			if (one.done[i] != i) {
				in_order--;
				break;
			}
	}
	assert_int_equal(differ, 20);
	assert_true(in_order < 3);
}

static void latency_passes_on_the_virtual_clock(void **state)
{
	struct order order;

	run_order(&order, 1, 0);
	assert_int_equal(order.took_ns, 0);
	run_order(&order, 1, 5 * TER_NS_PER_S);
	assert_in_range(order.took_ns, 5 * TER_NS_PER_S, 6 * TER_NS_PER_S);
}

static void hang_main(void *arg)
{
	struct order *order = arg;

	if (ter_bdev_open(order->io, "/sim/a", 0, &order->bdev, NULL) < 0)
		abort();
	(void)ter_bdev_flush(order->bdev); /* what matters is whether it returns */
	ter_bdev_close(order->bdev);
}

static void a_device_that_hangs_shows_as_a_deadlock(void **state)
{
	struct order order = {.exec = ter_exec_new_coop(1)};

	order.sim = ter_sim_new(order.exec, 1, &order.io);
	assert_return_code(ter_sim_add(order.sim, "/sim/a", DEVICE_BYTES, UNIT), 0);
	assert_return_code(ter_sim_latency(order.sim, "/sim/a", UINT64_MAX), 0);
	assert_int_equal(ter_coop_run(order.exec, hang_main, &order), -EDEADLK);
	ter_io_free(order.io);
	ter_exec_free(order.exec);
}

#define sim_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		sim_test(a_hundred_large_devices_cost_nothing),
		sim_test(a_device_has_one_owner),
		sim_test(misaligned_requests_are_refused),
		sim_test(a_recording_tells_what_was_done_and_when),
		sim_test(a_cut_keeps_what_is_durable_and_may_keep_the_rest),
		sim_test(a_cut_asks_entry_by_entry),
		sim_test(a_cut_at_each_event_knows_only_the_past),
		sim_test(folding_changes_no_later_state),
		sim_test(a_flush_that_lies_keeps_nothing),
		sim_test(a_flush_covers_only_what_completed_before_it),
		sim_test(a_failed_flush_covers_nothing),
		sim_test(overlapping_writes_keep_the_order_the_device_saw),
		sim_test(overlapping_writes_in_flight_take_any_order),
		sim_test(only_the_last_pending_write_is_torn),
		sim_test(after_a_cut_old_openings_are_dead),
		sim_test(power_goes_off_after_so_many_writes),
		sim_test(a_snapshot_brings_back_all_or_one),
		sim_test(the_nth_request_fails),
		sim_test(corruption_changes_every_byte_of_the_range_only),
		sim_test(a_device_vanishes_and_comes_back),
		cmocka_unit_test(changing_memory_in_flight_is_found),
		cmocka_unit_test(the_seed_decides_the_order_of_completion),
		cmocka_unit_test(latency_passes_on_the_virtual_clock),
		cmocka_unit_test(a_device_that_hangs_shows_as_a_deadlock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files against byte arrays: any writes, reads, truncations, holes and syncs, with write-back at any moment, under every kind of options. */
#include "data_rig.h"

#define FILE_BYTES_MAX (1500u << 10)
#define FILES 4u

struct model {
	struct rig *rig;
	uint8_t *bytes[FILES], *buf;
	uint64_t size[FILES];
};

static struct model *model_new(struct rig *rig)
{
	struct model *m = calloc(1, sizeof(*m));

	m->rig = rig;
	for (unsigned i = 0; i < FILES; i++)
		m->bytes[i] = calloc(1, FILE_BYTES_MAX);
	m->buf = malloc(FILE_BYTES_MAX);
	return m;
}

static void model_free(struct model *m)
{
	for (unsigned i = 0; i < FILES; i++)
		free(m->bytes[i]);
	free(m->buf);
	free(m);
}

static uint64_t pick_offset(struct model *m, unsigned i)
{
	uint64_t at = rig_random(m->rig, 4) ? rig_random(m->rig, m->size[i] + 1) : rig_random(m->rig, FILE_BYTES_MAX);

	return rig_random(m->rig, 2) ? at & ~4095ull : at;
}

static uint64_t pick_bytes(struct model *m, uint64_t at)
{
	static const uint32_t sizes[] = { 100, 4096, 8000, 65536, 300000 };
	uint64_t bytes = 1 + rig_random(m->rig, sizes[rig_random(m->rig, 5)]);

	if (rig_random(m->rig, 2))
		bytes = ter_round_up(bytes, 4096);
	return ter_min(bytes, FILE_BYTES_MAX - at);
}

static void fill(struct model *m, uint8_t *dst, uint64_t bytes)
{
	uint64_t pos = 0;

	/* runs, so that some of it shrinks */
	while (pos < bytes) {
		uint64_t n = ter_min(1 + rig_random(m->rig, rig_random(m->rig, 2) ? 3 : 9000), bytes - pos);

		memset(dst + pos, (int)rig_random(m->rig, 256), n);
		pos += n;
	}
}

static void do_write(struct model *m, unsigned i)
{
	uint64_t at = pick_offset(m, i), bytes = pick_bytes(m, at);

	if (!bytes)
		return;
	fill(m, m->bytes[i] + at, bytes);
	rig_write(m->rig, i, at, m->bytes[i] + at, bytes);
	m->size[i] = ter_max(m->size[i], at + bytes);
}

static void check_range(struct model *m, unsigned i, uint64_t at, uint64_t bytes)
{
	size_t want = at < m->size[i] ? ter_min(bytes, m->size[i] - at) : 0;

	memset(m->buf, 0xee, bytes);
	assert_int_equal(rig_read(m->rig, i, at, m->buf, bytes), want);
	if (memcmp(m->buf, m->bytes[i] + at, want) != 0)
		for (size_t k = 0; k < want; k++)
			if (m->buf[k] != m->bytes[i][at + k]) {
				rig_dump(m->rig, i);
				fail_msg("file %u: byte %llu is %02x, not %02x (read %llu at %llu, size %llu)", i, (unsigned long long)(at + k), m->buf[k],
					 m->bytes[i][at + k], (unsigned long long)bytes, (unsigned long long)at, (unsigned long long)m->size[i]);
			}
}

static void do_truncate(struct model *m, unsigned i)
{
	uint64_t size = rig_random(m->rig, 4) ? rig_random(m->rig, m->size[i] + 1) : rig_random(m->rig, FILE_BYTES_MAX);

	if (rig_random(m->rig, 8) == 0)
		size = rig_random(m->rig, 3000);
	assert_int_equal(rig_truncate(m->rig, i, size), 0);
	if (size < m->size[i])
		memset(m->bytes[i] + size, 0, FILE_BYTES_MAX - size);
	m->size[i] = size;
}

static void do_punch(struct model *m, unsigned i)
{
	uint64_t at = pick_offset(m, i), bytes = pick_bytes(m, at);

	assert_int_equal(ter_file_punch(m->rig->data, rig_file(m->rig, i), at, at + bytes, NULL, NULL, NULL), 0);
	memset(m->bytes[i] + at, 0, bytes);
}

static void do_seek(struct model *m, unsigned i)
{
	uint64_t at = pick_offset(m, i), hole, data_at;
	int r;

	r = ter_file_seek(m->rig->data, rig_file(m->rig, i), at, true, &hole);
	if (at >= m->size[i]) {
		assert_int_equal(r, -ENXIO);
		return;
	}
	assert_int_equal(r, 0);
	assert_true(hole >= at && hole <= m->size[i]);
	r = ter_file_seek(m->rig->data, rig_file(m->rig, i), at, false, &data_at);
	assert_true(r == 0 || r == -ENXIO);
	/* What is said to be a hole reads as zeros. */
	for (uint64_t k = at; k < (r == 0 ? data_at : m->size[i]); k++)
		assert_int_equal(m->bytes[i][k], 0);
}

static void step(struct model *m, bool with_reserve)
{
	unsigned i = rig_random(m->rig, FILES), what = rig_random(m->rig, 100);
	uint64_t at;

	if (what < 50) {
		do_write(m, i);
	} else if (what < 70) {
		at = pick_offset(m, i);
		check_range(m, i, at, pick_bytes(m, at));
	} else if (what < 77) {
		do_truncate(m, i);
	} else if (what < 84) {
		do_punch(m, i);
	} else if (what < 90) {
		assert_int_equal(ter_file_sync(m->rig->data, rig_file(m->rig, i)), 0);
	} else if (what < 94) {
		assert_int_equal(ter_file_writeback(m->rig->data, rig_file(m->rig, i)), 0);
	} else if (what < 96) {
		assert_int_equal(ter_data_flush_all(m->rig->data), 0);
	} else if (what < 98) {
		do_seek(m, i);
	} else if (with_reserve) {
		at = pick_offset(m, i);
		assert_int_equal(ter_file_reserve_range(m->rig->data, rig_file(m->rig, i), at, at + pick_bytes(m, at)), 0);
	}
}

static void check_all(struct model *m)
{
	for (unsigned i = 0; i < FILES; i++)
		check_range(m, i, 0, FILE_BYTES_MAX);
}

static void run_model(struct ter_exec *exec, const struct rig_params *params, uint64_t seed, unsigned steps)
{
	struct rig *rig = rig_new(exec, params, seed);
	struct model *m = model_new(rig);

	rig_start(rig);
	for (unsigned s = 0; s < steps; s++) {
		step(m, true);
		if (getenv("TER_TEST_EVERY"))
			check_all(m); /* finds the step that broke it */
		if (s % 200 == 199) {
			check_all(m);
			assert_int_equal(ter_data_flush_all(rig->data), 0);
			rig_check(rig);
			check_all(m);
		}
		if (s % 700 == 699) {
			rig_stop(rig);
			rig_start(rig);
			check_all(m);
		}
	}
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	for (unsigned i = 0; i < FILES; i++)
		assert_int_equal(rig_truncate(rig, i, 0), 0);
	rig_check(rig);
	rig_stop(rig);
	rig_free(rig);
	model_free(m);
}

struct run {
	struct ter_exec *exec;
	struct rig_params params;
	uint64_t seed;
	unsigned steps;
};

static void run_main(void *arg)
{
	struct run *run = arg;

	run_model(run->exec, &run->params, run->seed, run->steps);
}

static void run(struct rig_params params, unsigned steps, bool coop)
{
	struct run r = { .params = params, .seed = rig_seed(), .steps = steps };

	r.exec = coop ? ter_exec_new_coop(r.seed) : ter_exec_new_threads();
	assert_non_null(r.exec);
	if (coop)
		assert_int_equal(ter_coop_run(r.exec, run_main, &r), 0);
	else
		run_main(&r);
	ter_exec_free(r.exec);
}

#define STEPS 1500
static const struct rig_params defaults = RIG_DEFAULTS;

static void files_hold_what_was_written(void **state)
{
	run(defaults, STEPS, false);
}

static void so_they_do_under_any_schedule(void **state)
{
	run(defaults, STEPS / 2, true);
}

static void so_they_do_with_compression(void **state)
{
	struct rig_params p = defaults;

	p.compression = "rle:3";
	run(p, STEPS, false);
}

static void so_they_do_with_wide_checksums_over_large_blocks(void **state)
{
	struct rig_params p = defaults;

	p.checksum = "wide";
	p.csum_block = 32768;
	p.compression = "rle";
	run(p, STEPS, false);
}

static void so_they_do_without_checksums(void **state)
{
	struct rig_params p = defaults;

	p.checksum = "none";
	run(p, STEPS, false);
}

static void so_they_do_with_tiny_buffers_and_extents(void **state)
{
	struct rig_params p = defaults;

	p.region_bytes = 256 << 10;
	p.extent_max = 8192;
	p.inline_max = 0;
	p.flush_ms = 2;
	run(p, STEPS, false);
}

static void so_they_do_with_small_blocks_and_large_extents(void **state)
{
	struct rig_params p = defaults;

	p.block_bytes = 512;
	p.extent_max = 1 << 20;
	p.inline_max = 8192;
	p.data_replicas = 1;
	run(p, STEPS, false);
}

static void so_they_do_with_large_blocks(void **state)
{
	struct rig_params p = defaults;

	p.block_bytes = 65536;
	p.csum_block = 65536;
	p.extent_max = 131072;
	p.compression = "rle";
	p.flush_ms = 10;
	run(p, STEPS, false);
}

static void so_they_do_on_three_members_one_thread(void **state)
{
	struct rig_params p = defaults;

	p.devs = 3;
	p.region_bytes = 512 << 10;
	p.compression = "rle";
	run(p, STEPS / 2, true);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_hold_what_was_written),
		cmocka_unit_test(so_they_do_under_any_schedule),
		cmocka_unit_test(so_they_do_with_compression),
		cmocka_unit_test(so_they_do_with_wide_checksums_over_large_blocks),
		cmocka_unit_test(so_they_do_without_checksums),
		cmocka_unit_test(so_they_do_with_tiny_buffers_and_extents),
		cmocka_unit_test(so_they_do_with_small_blocks_and_large_extents),
		cmocka_unit_test(so_they_do_with_large_blocks),
		cmocka_unit_test(so_they_do_on_three_members_one_thread),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What fallocate promised is kept when nothing else is left; no more, and once. */
#include "data_rig.h"

#define BLOCK 4096u
#define RESERVED_BYTES (1u << 20)
#define PART (64u << 10)
#define LARGE (256u << 10)

static const struct rig_params defaults = RIG_DEFAULTS;

enum { RESERVED, FILLER, OTHER };

static void random_bytes(struct rig *rig, uint8_t *buf, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		buf[i] = (uint8_t)rig_random(rig, 256);
}

static int write_to(struct rig *rig, unsigned i, uint64_t offset, const void *buf, size_t bytes, bool nowait)
{
	const struct iovec iov = { (void *)buf, bytes };

	return ter_file_write(rig->data, rig_file(rig, i), offset, &iov, 1, nowait);
}

/* Until not one block more is taken. */
static void fill_up(struct rig *rig, const uint8_t *buf)
{
	uint64_t at = 0;

	for (size_t bytes = LARGE; bytes >= BLOCK; bytes /= 4) {
		int r;

		while ((r = write_to(rig, FILLER, at, buf, bytes, false)) == 0)
			at += bytes;
		assert_int_equal(r, -ENOSPC);
	}
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	/* Writing back may have freed what was reserved for more than was needed. */
	while (write_to(rig, FILLER, at, buf, BLOCK, false) == 0)
		at += BLOCK;
	assert_int_equal(ter_data_flush_all(rig->data), 0);
}

static void a_full_pool_keeps_its_promise(void **state)
{
	struct rig_params params = defaults;
	struct ter_exec *exec = ter_exec_new_threads();
	uint8_t *want = malloc(RESERVED_BYTES), *got = malloc(RESERVED_BYTES);
	struct rig *rig;

	params.region_bytes = 512 << 10; /* a write of LARGE goes in parts */
	rig = rig_new(exec, &params, rig_seed());
	rig_start(rig);
	random_bytes(rig, want, RESERVED_BYTES);
	assert_int_equal(ter_file_reserve_range(rig->data, rig_file(rig, RESERVED), 0, RESERVED_BYTES), 0);
	fill_up(rig, want);

	/* Who would have to wait is told so; who waits gets it, within a block, in one part and in several. */
	assert_int_equal(write_to(rig, RESERVED, 0, want, 100, true), -EAGAIN);
	assert_int_equal(write_to(rig, RESERVED, 0, want, 100, false), 0);
	assert_int_equal(write_to(rig, RESERVED, PART, want + PART, PART, false), 0);
	assert_int_equal(write_to(rig, RESERVED, LARGE, want + LARGE, LARGE, false), 0);
	/* Nothing was promised there, or for a part only. */
	assert_int_equal(write_to(rig, OTHER, 0, want, BLOCK, false), -ENOSPC);
	assert_int_equal(write_to(rig, RESERVED, RESERVED_BYTES, want, BLOCK, false), -ENOSPC);
	assert_int_equal(write_to(rig, RESERVED, RESERVED_BYTES - BLOCK, want, 64 * BLOCK, false), -ENOSPC);
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	rig_check(rig);
	/* What was refused left the promise as it was. */
	assert_int_equal(write_to(rig, RESERVED, RESERVED_BYTES - BLOCK, want + RESERVED_BYTES - BLOCK, BLOCK, false), 0);
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	/* And it holds after a restart, when the pool gets full again. */
	assert_int_equal(rig_truncate(rig, FILLER, 0), 0);
	rig_stop(rig);
	rig_start(rig);
	fill_up(rig, want);
	assert_int_equal(write_to(rig, RESERVED, 2 * PART, want + 2 * PART, PART, false), 0);
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	rig_check(rig);
	assert_int_equal(rig_read(rig, RESERVED, 0, got, RESERVED_BYTES), RESERVED_BYTES);
	assert_memory_equal(got, want, 100);
	assert_memory_equal(got + PART, want + PART, 2 * PART);
	assert_memory_equal(got + LARGE, want + LARGE, LARGE);
	assert_memory_equal(got + RESERVED_BYTES - BLOCK, want + RESERVED_BYTES - BLOCK, BLOCK);
	for (unsigned i = 100; i < PART; i++)
		assert_int_equal(got[i], 0);
	/* Truncated, all of it is free again. */
	assert_int_equal(rig_truncate(rig, RESERVED, 0), 0);
	assert_int_equal(rig_truncate(rig, FILLER, 0), 0);
	rig_check(rig);
	rig_stop(rig);
	rig_free(rig);
	ter_exec_free(exec);
	free(want);
	free(got);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_pool_keeps_its_promise),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

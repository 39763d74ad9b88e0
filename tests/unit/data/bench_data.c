/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How fast the data room is on simulated members: prints, decides nothing. Arguments: none. */
#include "data_rig.h"

#define FILE_MIB 256u

static double seconds_since(struct ter_exec *exec, uint64_t start_ns)
{
	return (double)(ter_mono_ns(exec) - start_ns) / 1e9;
}

static void stream(struct rig *rig, const uint8_t *buf)
{
	struct iovec iov = { (void *)buf, 1 << 20 };
	uint64_t start = ter_mono_ns(rig->exec), t;
	double copy_s;

	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(ter_file_write(rig->data, rig_file(rig, 0), (uint64_t)i << 20, &iov, 1, false), 0);
	copy_s = seconds_since(rig->exec, start);
	t = ter_mono_ns(rig->exec);
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	printf("write 1 MiB: %.1f us; write-back of 16 MiB: %.2f GiB/s\n", copy_s / 16 * 1e6, 16.0 / 1024 / seconds_since(rig->exec, t));
	start = ter_mono_ns(rig->exec);
	for (unsigned i = 0; i < FILE_MIB; i++)
		assert_int_equal(ter_file_write(rig->data, rig_file(rig, 1), (uint64_t)i << 20, &iov, 1, false), 0);
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	printf("stream of %u MiB: %.2f GiB/s\n", FILE_MIB, FILE_MIB / 1024.0 / seconds_since(rig->exec, start));
}

static void overwrite(struct rig *rig, const uint8_t *buf)
{
	struct iovec iov = { (void *)buf, 4096 };
	uint64_t start, seed = 1;

	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(ter_file_write(rig->data, rig_file(rig, 2), (uint64_t)(i * 2654435761u % 4096) << 12, &iov, 1, false), 0);
	start = ter_mono_ns(rig->exec);
	for (unsigned i = 0; i < 100000; i++) {
		seed = seed * 6364136223846793005ull + 1;
		assert_int_equal(ter_file_write(rig->data, rig_file(rig, 2), seed >> 52 << 12, &iov, 1, false), 0);
	}
	printf("4 KiB overwrite of a dirty block: %.2f us\n", seconds_since(rig->exec, start) / 100000 * 1e6);
	start = ter_mono_ns(rig->exec);
	assert_int_equal(ter_data_flush_all(rig->data), 0);
	printf("write-back of 4096 scattered blocks: %.1f ms\n", seconds_since(rig->exec, start) * 1e3);
}

static void sync_page(struct rig *rig, const uint8_t *buf)
{
	struct iovec iov = { (void *)buf, 4096 };
	uint64_t start = ter_mono_ns(rig->exec);

	for (unsigned i = 0; i < 2000; i++) {
		assert_int_equal(ter_file_write(rig->data, rig_file(rig, 3), (uint64_t)(i % 64) << 12, &iov, 1, false), 0);
		assert_int_equal(ter_file_sync(rig->data, rig_file(rig, 3)), 0);
	}
	printf("4 KiB write and sync: %.1f us\n", seconds_since(rig->exec, start) / 2000 * 1e6);
}

static void read_back(struct rig *rig, uint8_t *buf)
{
	uint64_t start = ter_mono_ns(rig->exec), seed = 1;

	for (unsigned i = 0; i < FILE_MIB; i++)
		assert_int_equal(rig_read(rig, 1, (uint64_t)i << 20, buf, 1 << 20), 1 << 20);
	printf("read in 1 MiB: %.2f GiB/s\n", FILE_MIB / 1024.0 / seconds_since(rig->exec, start));
	start = ter_mono_ns(rig->exec);
	for (unsigned i = 0; i < 20000; i++) {
		seed = seed * 6364136223846793005ull + 1;
		assert_int_equal(rig_read(rig, 1, seed % (FILE_MIB << 8) << 12, buf, 4096), 4096);
	}
	printf("read of 4 KiB: %.1f us\n", seconds_since(rig->exec, start) / 20000 * 1e6);
}

int main(void)
{
	struct rig_params params = RIG_DEFAULTS;
	struct ter_exec *exec = ter_exec_new_threads();
	uint8_t *buf = aligned_alloc(4096, 1 << 20);
	struct rig *rig;

	params.dev_bytes = 2ull << 30;
	params.region_bytes = 64 << 20;
	params.bucket_bytes = 1 << 20;
	rig = rig_new(exec, &params, 1);
	for (unsigned i = 0; i < 1 << 20; i++)
		buf[i] = (uint8_t)(i * 2654435761u >> 13);
	memset(rig->data_region, 1, params.region_bytes); /* fresh memory is not what is measured */
	rig_start(rig);
	stream(rig, buf);
	overwrite(rig, buf);
	sync_page(rig, buf);
	read_back(rig, buf);
	rig_stop(rig);
	rig_free(rig);
	ter_exec_free(exec);
	free(buf);
	return 0;
}

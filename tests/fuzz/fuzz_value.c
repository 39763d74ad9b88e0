/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Values of keys
 *
 * Input: the type (1 byte, of enum ter_key_type), version (1), the position (8 inode, 8 offset, 4 snapshot), size (4), and the value.
 */
#include "fuzz.h"
#include "values.h"

const size_t fuzz_memory_max = 16 << 20;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	struct ter_key key = { .type = (uint8_t)(fuzz_take(&in, 1) % TER_KEY_TYPE_NR), .val_version = (uint8_t)fuzz_take(&in, 1) };
	struct ter_key_disk *disk;
	uint32_t whole;

	key.pos.inode = fuzz_take(&in, 8);
	key.pos.offset = fuzz_take(&in, 8);
	key.pos.snapshot = (uint32_t)fuzz_take(&in, 4);
	key.size = (uint32_t)fuzz_take(&in, 4);
	key.val = in.at;
	key.val_bytes = (uint32_t)ter_min(in.left, (size_t)TER_VAL_BYTES_MAX);
	whole = ter_key_disk_bytes(key.val_bytes);
	disk = malloc(whole);
	if (!disk)
		abort();
	ter_key_encode(&key, disk);
	if (ter_key_check(disk, whole) == (int)whole)
		fuzz_value(disk);
	free(disk);
	return 0;
}

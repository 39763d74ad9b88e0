/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A superblock copy
 *
 * Input: the bytes of a copy. They are decoded as they are, and once more with length and checksum made right, because else nothing behind the checksum is reached. What is
 * accepted must bear use: its algorithms bound, its members asked about, encoded again for each member; and what was encoded must decode to what encodes alike.
 */
#include "fuzz.h"
#include "real_codecs.h"
#include "sb/sb_format.h"

const size_t fuzz_memory_max = 16 << 20;

static void use(struct ter_sb *sb, struct ter_members *members)
{
	static uint8_t first[TER_SB_BYTES_MAX], second[TER_SB_BYTES_MAX];
	struct ter_replicas_answer answer;
	struct ter_error error = { 0 };
	int bytes;

	if (ter_sb_bind_algos(sb, fuzz_codecs(), &error) < 0)
		fuzz_check(error.text[0]);
	ter_sb_replicas_check(sb, members, UINT64_MAX, &answer);
	ter_sb_replicas_check(sb, members, 0, &answer);
	for (unsigned i = 0; i < TER_DEVS_MAX; i++) {
		struct ter_members *again_members;
		struct ter_sb *again;
		unsigned idx;

		if (!ter_member(members, i))
			continue;
		bytes = ter_sb_encode(sb, members, i, first);
		fuzz_check(bytes > 0 && bytes <= (int)TER_SB_BYTES_MAX);
		fuzz_check(ter_sb_decode(first, sizeof(first), &again, &again_members, &idx, NULL) == 0 && idx == i);
		fuzz_check(ter_sb_encode(again, again_members, i, second) == bytes && !memcmp(first, second, (size_t)bytes));
		ter_sb_free(again);
		free(again_members);
	}
}

static void decode(const void *buf, size_t size, uint64_t at)
{
	struct ter_members *members = NULL;
	struct ter_error error = { 0 };
	struct ter_sb *sb = NULL;
	unsigned idx = TER_DEVS_MAX;
	int r;

	r = ter_sb_decode_at(buf, size, at, &sb, &members, &idx, &error);
	if (r < 0) {
		fuzz_check(error.text[0] && !sb && !members);
		return;
	}
	fuzz_check(idx < TER_DEVS_MAX && ter_member(members, idx));
	use(sb, members);
	ter_sb_free(sb);
	free(members);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	uint8_t *buf = fuzz_dup(&in, TER_SB_BYTES_MAX, &size);
	struct ter_sb_disk *header = (void *)buf;

	decode(buf, size, TER_SB_SLOT0_BYTES);
	if (size >= sizeof(*header)) {
		memcpy(header->magic, TER_SB_MAGIC, sizeof(header->magic));
		if (ter_le32_get(header->bytes) > size || ter_le32_get(header->bytes) < sizeof(*header) || ter_le32_get(header->bytes) % 8)
			header->bytes = ter_le32_make((uint32_t)ter_round_down(size, 8));
		header->crc32c = ter_le32_make(ter_sb_checksum(buf));
		decode(buf, size, ter_le64_get(header->copy_offset_bytes));
	}
	free(buf);
	return 0;
}

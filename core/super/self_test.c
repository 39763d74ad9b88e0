/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What everything on disk hangs on, tried once a process: a build or a machine that gets it wrong must not touch a pool. Takes microseconds. */
#include "btree/key.h"
#include "super/fs.h"
#include "util/crc32c.h"
#include "util/siphash.h"

static bool crc32c_right(void)
{
	static const uint8_t zeros[4096];

	/* The second is long enough for the path that uses the machine's own instructions. */
	return ter_crc32c(0, "123456789", 9) == 0xe3069283u && ter_crc32c(ter_crc32c(0, zeros, 1000), zeros, 3096) == ter_crc32c(0, zeros, 4096) &&
	       ter_crc32c(0, zeros, 32) == 0x8a9136aau;
}

/* The vector of SipHash's authors for 15 bytes: key 00..0f, input 00..0e. */
static bool siphash_right(void)
{
	uint8_t key[16], input[15];

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	memcpy(input, key, sizeof(input));
	return ter_siphash(key, input, sizeof(input)) == 0xa129ca6149be45e5ull;
}

static bool keys_right(void)
{
	static const uint8_t bytes[40] = {
		0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21,
		0x34, 0x33, 0x32, 0x31, 0x03, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 'a',  'b',  'c',  0x00, 0x00, 0x00, 0x00, 0x00,
	};
	const struct ter_key key = {
		.pos = TER_POS(0x0102030405060708ull, 0x1112131415161718ull, 0x21222324), .size = 0x31323334, .val_bytes = 3, .type = TER_KEY_EXTENT, .val = "abc",
	};
	uint64_t buf[5];
	struct ter_key back;

	ter_key_encode(&key, buf);
	if (memcmp(buf, bytes, sizeof(bytes)) || ter_key_check(buf, sizeof(buf)) != (int)sizeof(bytes))
		return false;
	ter_key_decode((const struct ter_key_disk *)buf, &back);
	return ter_pos_cmp(back.pos, key.pos) == 0 && back.size == key.size && back.val_bytes == key.val_bytes && back.type == key.type &&
	       !memcmp(back.val, key.val, key.val_bytes);
}

int ter_self_test(struct ter_error *error)
{
	const char *what = !crc32c_right() ? "the checksum of superblocks" : !siphash_right() ? "the hash of names" : !keys_right() ? "the encoding of keys" : NULL;

	if (!what)
		return 0;
	return ter_fail(error, TER_ERR_INTERNAL, "This program computes %s wrongly on this machine: no filesystem is touched. Report this.", what);
}

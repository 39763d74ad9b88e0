/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UUIDs: make, print, parse. */
#include "util/uuid.h"

static bool hyphen_before_byte(unsigned i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

void ter_uuid_random(struct ter_exec *exec, uint8_t ret_uuid[TER_UUID_BYTES])
{
	exec->ops->random(exec, ret_uuid, TER_UUID_BYTES);
	ret_uuid[6] = (ret_uuid[6] & 0x0f) | 0x40; /* version 4 */
	ret_uuid[8] = (ret_uuid[8] & 0x3f) | 0x80; /* variant of RFC 4122 */
}

void ter_uuid_format(const uint8_t uuid[TER_UUID_BYTES], char out[TER_UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < TER_UUID_BYTES; i++) {
		if (hyphen_before_byte(i))
			*out++ = '-';
		*out++ = digits[uuid[i] >> 4];
		*out++ = digits[uuid[i] & 15];
	}
	*out = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int ter_uuid_parse(const char *text, uint8_t ret_uuid[TER_UUID_BYTES])
{
	uint8_t uuid[TER_UUID_BYTES];

	for (unsigned i = 0; i < TER_UUID_BYTES; i++) {
		int high, low;

		if (hyphen_before_byte(i) && *text++ != '-')
			return -EINVAL;
		high = hex_digit(*text);
		if (high < 0)
			return -EINVAL; /* also at the end of the text, which is not passed */
		low = hex_digit(text[1]);
		if (low < 0)
			return -EINVAL;
		uuid[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text)
		return -EINVAL;

	memcpy(ret_uuid, uuid, sizeof(uuid));
	return 0;
}

bool ter_uuid_is_null(const uint8_t uuid[TER_UUID_BYTES])
{
	static const uint8_t null_uuid[TER_UUID_BYTES];

	return !memcmp(uuid, null_uuid, sizeof(null_uuid));
}

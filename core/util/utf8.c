/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UTF-8 validation after table 3-7 of the Unicode standard: only the second byte's range depends on the first. */
#include "util/utf8.h"

static bool in(uint8_t c, uint8_t low, uint8_t high)
{
	return c >= low && c <= high;
}

/* Length of the character whose first two bytes are @c0 and @c1 (0 past the end), or 0 when they begin none. */
static size_t character_bytes(uint8_t c0, uint8_t c1)
{
	if (in(c0, 0xc2, 0xdf))
		return in(c1, 0x80, 0xbf) ? 2 : 0;
	if (in(c0, 0xe0, 0xef))
		return in(c1, c0 == 0xe0 ? 0xa0 : 0x80, c0 == 0xed ? 0x9f : 0xbf) ? 3 : 0;
	if (in(c0, 0xf0, 0xf4))
		return in(c1, c0 == 0xf0 ? 0x90 : 0x80, c0 == 0xf4 ? 0x8f : 0xbf) ? 4 : 0;
	return 0;
}

bool ter_utf8_valid(const char *text, size_t bytes)
{
	const uint8_t *p = (const uint8_t *)text, *end = p + bytes;

	while (p < end) {
		size_t n;

		if (*p < 0x80) {
			p++;
			continue;
		}
		n = character_bytes(*p, end - p > 1 ? p[1] : 0);
		if (!n || n > (size_t)(end - p))
			return false;
		for (size_t i = 2; i < n; i++)
			if (!in(p[i], 0x80, 0xbf))
				return false;
		p += n;
	}
	return true;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRC-32C bit by bit: slow, and short enough to be believed. */
#include "crc32c_plain.h"

#define POLYNOMIAL_REFLECTED 0x82f63b78u

uint32_t crc32c_plain(uint32_t crc, const void *buf, size_t bytes)
{
	const unsigned char *p = buf;

	for (size_t i = 0; i < bytes; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (POLYNOMIAL_REFLECTED & (0u - (crc & 1)));
	}
	return crc;
}

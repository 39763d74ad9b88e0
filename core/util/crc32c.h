/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CRC-32C (Castagnoli), built in: superblocks must be readable before plugins are loaded. All else is checksummed
 * through codec.h.
 *
 * @seed is 0, or the result for the bytes before these: crc(crc(0, a), b) == crc(0, ab). crc(0, "123456789") ==
 * 0xe3069283.
 */
#ifndef TER_CRC32C_H
#define TER_CRC32C_H

#include "util/base.h"

uint32_t ter_crc32c(uint32_t seed, const void *buf, size_t n);
uint32_t ter_crc32c_table(uint32_t seed, const void *buf,
			  size_t n); /* the plain C twin, for the test that compares them */

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRC-32C (Castagnoli) in plain C: the twin that the fast one is compared with. */
#ifndef TERRACE_CRC32C_PLAIN_H
#define TERRACE_CRC32C_PLAIN_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from the register @crc, neither inverted before nor after: begin with ~0 and invert the end. */
uint32_t crc32c_plain(uint32_t crc, const void *buf, size_t bytes);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SipHash-2-4: a keyed hash for tables that strangers fill (names in a directory). The same on every machine: results
 * may stand on disk. */
#ifndef TER_SIPHASH_H
#define TER_SIPHASH_H

#include "util/base.h"

uint64_t ter_siphash(const uint8_t key[16], const void *buf, size_t n);

#endif

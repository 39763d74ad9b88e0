/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Algorithms for tests of the data room: a checksum and a run-length compression. */
#ifndef FAKE_ALGOS_H
#define FAKE_ALGOS_H

#include "plugins/terrace-plugin.h"

extern const struct terrace_checksum fake_crc, fake_wide;
extern const struct terrace_compression fake_rle;

#endif

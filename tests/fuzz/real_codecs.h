/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The real plugins, linked in, so that they are instrumented like the rest; and a superblock as the decoders of one structure want it. */
#ifndef FUZZ_REAL_CODECS_H
#define FUZZ_REAL_CODECS_H

#include "sb/sb.h"
#include "util/codec.h"

#ifdef FUZZ_ZSTD
#define FUZZ_COMPRESSION "zstd"
#else
#define FUZZ_COMPRESSION "none"
#endif

const struct ter_codecs *fuzz_codecs(void);
/* Blocks of 512 bytes, nodes of 16 KiB, slots for crc32c and every compression; a member with index 0 and room for a journal. One for all inputs: not to be changed. */
const struct ter_sb *fuzz_sb(void);
const struct ter_dev *fuzz_dev(void);

#endif

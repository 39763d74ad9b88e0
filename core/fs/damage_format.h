/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Btree DAMAGED, type DAMAGE, at (inode, 0, snapshot): a file of which data is known to be lost. */
#ifndef TER_DAMAGE_FORMAT_H
#define TER_DAMAGE_FORMAT_H

#include "util/base.h"

struct ter_damage_disk {
	ter_le64 offset_bytes; /* 0x00  lowest place that was found lost */
	ter_le64 first_ns;     /* 0x08  when it was found first: nanoseconds since 1970, two's complement */
	ter_le64 last_ns;      /* 0x10  and last; not before the first but by a clock set back */
	ter_le32 times;        /* 0x18  how often, at least 1, saturating; a burst of reads counts once a second */
	uint8_t zero[4];       /* 0x1c  0 */
};
TER_DISK_SIZE(struct ter_damage_disk, 0x20);
TER_DISK_OFFSET(struct ter_damage_disk, times, 0x18);

#endif

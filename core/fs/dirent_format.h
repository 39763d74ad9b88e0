/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directory entries: bytes on disk
 *
 * Btree DIRENTS, position (directory, hash, snapshot), key type DIRENT; hash = (lowest 58 bits of SipHash-2-4 of the name's bytes under the superblock's hash_key) << 4. The value is every
 * entry whose name has that hash, one behind the other without filling: this header and the name (1..255 bytes, no '/', no NUL, not "." or ".."; case counts). At least one.
 *
 * An entry's place in a listing is its cookie: hash + slot + 3. Slots are given out once: an entry keeps its own while others of the same hash come and go.
 */
#ifndef TER_DIRENT_FORMAT_H
#define TER_DIRENT_FORMAT_H

#include "util/base.h"

struct ter_dirent_disk {
	ter_le64 inum;      /* 0x00 */
	uint8_t type;       /* 0x08  DT_* of <dirent.h>: the inode's type */
	uint8_t slot;       /* 0x09  0..15, different from the others of this key; ascending in the value */
	uint8_t name_bytes; /* 0x0a  1..255 */
	uint8_t zero;       /* 0x0b  0 */
};
TER_DISK_SIZE(struct ter_dirent_disk, 12);
TER_DISK_OFFSET(struct ter_dirent_disk, slot, 9);

#define TER_DIRENT_HASH_SHIFT 4
#define TER_DIRENT_SLOTS 16u
#define TER_DIRENT_HASH_MAX (((1ull << 58) - 1) << TER_DIRENT_HASH_SHIFT)
#define TER_DIRENTS_VAL_MAX (TER_DIRENT_SLOTS * (12u + 255u))

#endif

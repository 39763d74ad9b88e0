/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Journal: bytes on disk
 *
 * An entry is this header and `payload_bytes` of records, written at a multiple of the pool's block_size inside one journal bucket; up to the next such multiple
 * it is filled with zeroes that no checksum covers. A record is an 8-byte header and its payload, filled with zeroes to a multiple of 8.
 * Of a bucket used before, the rest may hold older entries: the sequence number tells.
 */
#ifndef TER_JOURNAL_FORMAT_H
#define TER_JOURNAL_FORMAT_H

#include "sb/sb_format.h"
#include "util/base.h"

#define TER_JENTRY_MAGIC 0x4c4e524a52524554ull /* "TERRJRNL" */

enum {
	TER_JENTRY_FLUSH = 1 << 0,    /* everything before it was flushed first, and it was acknowledged only after a flush of its own */
	TER_JENTRY_HAS_DATA = 1 << 1, /* has DATA records: copies as of data */
};
#define TER_JENTRY_FLAGS_KNOWN (TER_JENTRY_FLUSH | TER_JENTRY_HAS_DATA)

struct ter_jentry_disk {
	ter_le64 magic;         /* 0x00  TER_JENTRY_MAGIC xor the first 8 bytes of the pool's internal UUID */
	ter_le64 seq;           /* 0x08  1 and up, one more than the entry before (but for blacklisted ones), never reused */
	ter_le64 last_seq;      /* 0x10  oldest entry that replay still needs; 1..seq */
	ter_le32 payload_bytes; /* 0x18  multiple of 8; header and payload are at most a bucket and at most TER_JOURNAL_ENTRY_MAX */
	uint8_t csum_slot;      /* 0x1c  slot of the checksum algorithm in the superblock; never 0 */
	uint8_t flags;          /* 0x1d  TER_JENTRY_*; an unknown bit: not replayed */
	uint8_t zero[2];        /* 0x1e  0 */
	uint8_t csum[32];       /* 0x20  of header and payload with this field as 0; a shorter digest is followed by zeroes */
};
TER_DISK_SIZE(struct ter_jentry_disk, 0x40);
TER_DISK_OFFSET(struct ter_jentry_disk, last_seq, 0x10);
TER_DISK_OFFSET(struct ter_jentry_disk, payload_bytes, 0x18);
TER_DISK_OFFSET(struct ter_jentry_disk, csum_slot, 0x1c);
TER_DISK_OFFSET(struct ter_jentry_disk, flags, 0x1d);
TER_DISK_OFFSET(struct ter_jentry_disk, csum, 0x20);

struct ter_jrec_disk {
	ter_le32 payload_bytes; /* 0x00  without the filling to 8 */
	uint8_t type;           /* 0x04  enum ter_jrec_type; an unknown type: the entry is not replayed */
	uint8_t btree;          /* 0x05  KEY, ROOT: btree id, else 0 */
	uint8_t level;          /* 0x06  KEY, ROOT: 0 is a leaf, else 0 */
	uint8_t zero;           /* 0x07  0 */
};
TER_DISK_SIZE(struct ter_jrec_disk, 8);

/* ROOT: struct ter_root_disk of sb/sb_format.h, whose btree and level stand in the record's header too. */

/* DATA; @bytes of file data follow at once. */
struct ter_jrec_data_disk {
	ter_le64 inum;         /* 0x00 */
	ter_le64 offset_bytes; /* 0x08 */
	ter_le32 bytes;        /* 0x10  at least 1 */
};
TER_DISK_SIZE(struct ter_jrec_data_disk, 0x14);
TER_DISK_OFFSET(struct ter_jrec_data_disk, bytes, 0x10);

/* DATA_DONE: DATA of the inode in from <= byte < to, in entries up to upto_seq, is obsolete. */
struct ter_jrec_data_done_disk {
	ter_le64 inum;       /* 0x00 */
	ter_le64 from_bytes; /* 0x08 */
	ter_le64 to_bytes;   /* 0x10  > from_bytes */
	ter_le64 upto_seq;   /* 0x18  <= seq of the entry */
};
TER_DISK_SIZE(struct ter_jrec_data_done_disk, 0x20);

struct ter_jrec_clock_disk {
	ter_le64 real_ns;       /* 0x00  since 1970, when the entry was closed */
	ter_le64 next_node_seq; /* 0x08  lower bounds of what may be given out next */
	ter_le64 next_inum;     /* 0x10 */
};
TER_DISK_SIZE(struct ter_jrec_clock_disk, 0x18);

struct ter_jrec_request_disk {
	ter_le64 incarnation; /* 0x00  of the mount */
	ter_le64 unique;      /* 0x08  of the request */
	ter_le32 result;      /* 0x10  two's complement */
	ter_le32 zero;        /* 0x14  0 */
};
TER_DISK_SIZE(struct ter_jrec_request_disk, 0x18);

#endif

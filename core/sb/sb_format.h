/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Superblock: bytes on disk (the reference; ../FORMAT.md tells the same in order)
 *
 * A copy is a header of 0x100 bytes and sections, one after the other, up to `bytes`. All integers are little endian. What is named `zero` is written 0 and
 * checked 0. Strings are UTF-8, padded with NULs, not terminated when they fill their field.
 */
#ifndef TER_SB_FORMAT_H
#define TER_SB_FORMAT_H

#include "sb/sb.h"
#include "util/base.h"

/* Like PNG's: shows a file that passed through a text conversion. */
#define TER_SB_MAGIC "\x8aTerracefs\r\n\x1a\n\0"
_Static_assert(sizeof(TER_SB_MAGIC) - 1 == 15, "with the literal's own NUL 16 bytes");

#define TER_SB_ALIGN 4096 /* copies begin at multiples of this and are written in them; larger logical blocks cannot be members */

#define TER_SB_FEATURES_INCOMPAT_KNOWN UINT64_C(0) /* bits of features_incompat that this code understands */

enum {
	TER_SB_FLAG_CLEAN = 1 << 0,       /* stopped cleanly: the section CLEAN is there and true; never without it, nor it without the flag */
	TER_SB_FLAG_INITIALIZED = 1 << 1, /* the first start has made the root directory */
	TER_SB_FLAGS_KNOWN = TER_SB_FLAG_CLEAN | TER_SB_FLAG_INITIALIZED,
};

/* Offsets 0x00 to 0x27 are the same in every major version. */
struct ter_sb_disk {
	uint8_t magic[16];            /* 0x00  TER_SB_MAGIC */
	ter_le32 bytes;               /* 0x10  of the whole copy, this header included; multiple of 8; 0x100..TER_SB_BYTES_MAX */
	ter_le32 crc32c;              /* 0x14  of the first `bytes` bytes with this field 0; CRC-32C, start and final xor 0xffffffff */
	ter_le16 version_major;       /* 0x18  TER_FORMAT_MAJOR; another one: do not open */
	ter_le16 version_minor;       /* 0x1a  any */
	uint8_t dev_idx;              /* 0x1c  the member that this copy lies on; has a record in MEMBERS */
	uint8_t devs_nr;              /* 0x1d  records in MEMBERS, 1..TER_DEVS_MAX */
	uint8_t flags;                /* 0x1e  TER_SB_FLAG_*; an unknown bit means: damaged */
	uint8_t zero1;                /* 0x1f */
	ter_le64 copy_offset_bytes;   /* 0x20  byte of the member at which this copy lies; elsewhere it is not valid */
	ter_le64 seq;                 /* 0x28  of this write, 1 and up; the newest valid copy wins */
	ter_le64 features_incompat;   /* 0x30  an unknown bit means: do not open */
	ter_le64 features_compat;     /* 0x38  unknown bits are kept */
	ter_le64 created_ns;          /* 0x40  real time of format, since 1970 */
	uint8_t uuid[16];             /* 0x48  of the pool, internal; not all 0 */
	uint8_t user_uuid[16];        /* 0x58  of the pool, shown to people */
	uint8_t hash_key[16];         /* 0x68  SipHash key for names */
	uint8_t label[TER_LABEL_MAX]; /* 0x78  of the pool; may be empty */
	uint8_t zero2[0x68];          /* 0x98 */
};
TER_DISK_SIZE(struct ter_sb_disk, 0x100);
TER_DISK_OFFSET(struct ter_sb_disk, bytes, 0x10);
TER_DISK_OFFSET(struct ter_sb_disk, crc32c, 0x14);
TER_DISK_OFFSET(struct ter_sb_disk, version_major, 0x18);
TER_DISK_OFFSET(struct ter_sb_disk, version_minor, 0x1a);
TER_DISK_OFFSET(struct ter_sb_disk, dev_idx, 0x1c);
TER_DISK_OFFSET(struct ter_sb_disk, devs_nr, 0x1d);
TER_DISK_OFFSET(struct ter_sb_disk, flags, 0x1e);
TER_DISK_OFFSET(struct ter_sb_disk, copy_offset_bytes, 0x20);
TER_DISK_OFFSET(struct ter_sb_disk, seq, 0x28);
TER_DISK_OFFSET(struct ter_sb_disk, features_incompat, 0x30);
TER_DISK_OFFSET(struct ter_sb_disk, features_compat, 0x38);
TER_DISK_OFFSET(struct ter_sb_disk, created_ns, 0x40);
TER_DISK_OFFSET(struct ter_sb_disk, uuid, 0x48);
TER_DISK_OFFSET(struct ter_sb_disk, user_uuid, 0x58);
TER_DISK_OFFSET(struct ter_sb_disk, hash_key, 0x68);
TER_DISK_OFFSET(struct ter_sb_disk, label, 0x78);
TER_DISK_OFFSET(struct ter_sb_disk, zero2, 0x98);

/* --- sections --- */

/* Ids persistent, never reused. A known type at most once; an unknown one is kept as it is (S6). */
enum ter_sb_section_type {
	TER_SB_SECTION_MEMBERS = 1,   /* required */
	TER_SB_SECTION_OPTIONS = 2,   /* required */
	TER_SB_SECTION_ALGOS = 3,     /* this one and those below: absent means empty */
	TER_SB_SECTION_REPLICAS = 4,
	TER_SB_SECTION_JOURNAL = 5,
	TER_SB_SECTION_CLEAN = 6,     /* exactly with TER_SB_FLAG_CLEAN */
	TER_SB_SECTION_BLACKLIST = 7,
	TER_SB_SECTION_RECOVERY = 8,
	TER_SB_SECTION_NR,
};

struct ter_sb_section_disk {
	ter_le16 type;  /* 0x00  enum ter_sb_section_type; not 0 */
	ter_le16 zero;  /* 0x02 */
	ter_le32 bytes; /* 0x04  this header included; multiple of 8; 8 and up */
};
TER_DISK_SIZE(struct ter_sb_section_disk, 8);
TER_DISK_OFFSET(struct ter_sb_section_disk, bytes, 4);

enum {
	TER_SB_MEMBER_DISCARD = 1 << 0, /* option `discard` */
	TER_SB_MEMBER_FLAGS_KNOWN = TER_SB_MEMBER_DISCARD,
};

/* MEMBERS: one for each slot in use, ascending idx. */
struct ter_sb_member_disk {
	uint8_t uuid[16];             /* 0x00  of the member; not all 0; no two the same */
	uint8_t idx;                  /* 0x10  slot, 0..TER_DEVS_MAX - 1 */
	uint8_t state;                /* 0x11  enum ter_dev_state */
	uint8_t durability;           /* 0x12  copies that one on it counts for, 0..TER_REPLICAS_MAX */
	uint8_t flags;                /* 0x13  TER_SB_MEMBER_* */
	uint8_t zero1[4];             /* 0x14 */
	ter_le64 bytes;               /* 0x18  size; the third copy's place follows from it */
	ter_le64 buckets_nr;          /* 0x20  TER_MEMBER_BUCKETS_MIN and up; all end before the third copy */
	ter_le64 first_bucket;        /* 0x28  begins at TER_SB_AREA_BYTES or later; below buckets_nr */
	ter_le64 last_mount_ns;       /* 0x30  real time, since 1970; 0: never */
	ter_le64 seen_seq;            /* 0x38  highest seq of a superblock that this pool tried to write to, or saw on, the member */
	ter_le64 errors[TER_DEV_ERR_NR]; /* 0x40  read, write, checksum, flush: since errors_since_ns */
	ter_le64 errors_since_ns;     /* 0x60  real time, since 1970 */
	uint8_t label[TER_LABEL_MAX]; /* 0x68  may be empty */
	ter_le32 journal_at;          /* 0x88  where its journal ended: place in the ring, from 1, of the bucket written last; 0: not known. True while the superblock is clean */
	uint8_t zero2[4];             /* 0x8c */
};
TER_DISK_SIZE(struct ter_sb_member_disk, 0x90);
TER_DISK_OFFSET(struct ter_sb_member_disk, idx, 0x10);
TER_DISK_OFFSET(struct ter_sb_member_disk, state, 0x11);
TER_DISK_OFFSET(struct ter_sb_member_disk, durability, 0x12);
TER_DISK_OFFSET(struct ter_sb_member_disk, flags, 0x13);
TER_DISK_OFFSET(struct ter_sb_member_disk, bytes, 0x18);
TER_DISK_OFFSET(struct ter_sb_member_disk, buckets_nr, 0x20);
TER_DISK_OFFSET(struct ter_sb_member_disk, first_bucket, 0x28);
TER_DISK_OFFSET(struct ter_sb_member_disk, last_mount_ns, 0x30);
TER_DISK_OFFSET(struct ter_sb_member_disk, seen_seq, 0x38);
TER_DISK_OFFSET(struct ter_sb_member_disk, errors, 0x40);
TER_DISK_OFFSET(struct ter_sb_member_disk, errors_since_ns, 0x60);
TER_DISK_OFFSET(struct ter_sb_member_disk, label, 0x68);
TER_DISK_OFFSET(struct ter_sb_member_disk, journal_at, 0x88);
TER_DISK_OFFSET(struct ter_sb_member_disk, zero2, 0x8c);

/*
 * OPTIONS: one for each option, ascending id, each followed by its value: a number as le64 (sizes in bytes, words as their index, switches 0 or 1), or text padded with NULs to
 * a multiple of 8. An absent option has its default, but block_size, bucket_size and btree_node_size are required. An id that is not known is kept.
 */
enum { TER_SB_OPTION_NUMBER = 0, TER_SB_OPTION_TEXT = 1 };
struct ter_sb_option_disk {
	ter_le16 id;         /* 0x00  of the options table, 1..TER_OPTION_ID_MAX - 1 */
	uint8_t kind;        /* 0x02  TER_SB_OPTION_* */
	uint8_t value_bytes; /* 0x03  of the value, without padding: 8 for a number; 1..TER_OPT_ALGO_MAX - 1 for a text */
	uint8_t zero[4];     /* 0x04 */
};
TER_DISK_SIZE(struct ter_sb_option_disk, 8);
TER_DISK_OFFSET(struct ter_sb_option_disk, kind, 2);
TER_DISK_OFFSET(struct ter_sb_option_disk, value_bytes, 3);

/* ALGOS: one for each slot in use, ascending slot. */
struct ter_sb_algo_disk {
	uint8_t slot;                       /* 0x00  1..TER_ALGO_SLOTS_MAX; what extents, nodes and journal entries store */
	uint8_t kind;                       /* 0x01  enum terrace_kind */
	uint8_t zero[2];                    /* 0x02 */
	ter_le32 format;                    /* 0x04  highest revision that was written */
	uint8_t uuid[16];                   /* 0x08  identity; no two of one kind the same */
	uint8_t name[TERRACE_NAME_MAX + 1]; /* 0x18  [a-z0-9-]{1,31}, not "none", then NULs: for messages */
};
TER_DISK_SIZE(struct ter_sb_algo_disk, 0x38);
TER_DISK_OFFSET(struct ter_sb_algo_disk, kind, 1);
TER_DISK_OFFSET(struct ter_sb_algo_disk, format, 4);
TER_DISK_OFFSET(struct ter_sb_algo_disk, uuid, 8);
TER_DISK_OFFSET(struct ter_sb_algo_disk, name, 0x18);

/* REPLICAS: one for each set of members that holds something, strictly ascending when compared byte by byte; at most TER_REPLICAS_ENTRIES_MAX. */
struct ter_sb_replicas_disk {
	uint8_t data_type;              /* 0x00  enum ter_data_type: sb, journal, btree, user, cached, parity or stripe */
	uint8_t nr_devs;                /* 0x01  1..TER_REPLICAS_MAX */
	uint8_t nr_required;            /* 0x02  members needed to read it, 1..nr_devs */
	uint8_t devs[TER_REPLICAS_MAX]; /* 0x03  slots in use, strictly ascending; those beyond nr_devs are 0 */
	uint8_t zero;                   /* 0x07 */
};
TER_DISK_SIZE(struct ter_sb_replicas_disk, 8);
TER_DISK_OFFSET(struct ter_sb_replicas_disk, nr_devs, 1);
TER_DISK_OFFSET(struct ter_sb_replicas_disk, nr_required, 2);
TER_DISK_OFFSET(struct ter_sb_replicas_disk, devs, 3);
TER_DISK_OFFSET(struct ter_sb_replicas_disk, zero, 7);

/* JOURNAL: runs of buckets, by ascending member and within it in ring order; at most TER_JOURNAL_RANGES_MAX a member; none overlap. */
struct ter_sb_journal_disk {
	uint8_t dev_idx; /* 0x00  a slot in use */
	uint8_t zero[7]; /* 0x01 */
	ter_le64 first;  /* 0x08  first bucket, at least the member's first_bucket */
	ter_le64 nr;     /* 0x10  buckets, 1 and up; the last below the member's buckets_nr */
};
TER_DISK_SIZE(struct ter_sb_journal_disk, 0x18);
TER_DISK_OFFSET(struct ter_sb_journal_disk, first, 8);
TER_DISK_OFFSET(struct ter_sb_journal_disk, nr, 0x10);

/* Where a btree's root is. Also the payload of the journal's record ROOT. */
#define TER_ROOT_LEVEL_MAX 7
enum { TER_ROOT_FLAG_PRESENT = 1 << 0 }; /* not set: the btree is empty, all other fields but `btree` are 0 */
struct ter_root_ptr_disk {
	ter_le64 sector; /* 0x00  of the member */
	ter_le32 gen;    /* 0x08  generation of the bucket */
	uint8_t dev;     /* 0x0c  member, 0..TER_DEVS_MAX - 1 */
	uint8_t zero[3]; /* 0x0d */
};
TER_DISK_SIZE(struct ter_root_ptr_disk, 0x10);
TER_DISK_OFFSET(struct ter_root_ptr_disk, gen, 8);
TER_DISK_OFFSET(struct ter_root_ptr_disk, dev, 0xc);
struct ter_root_disk {
	uint8_t btree;            /* 0x00  id, 0..TER_BTREE_ROOTS_MAX - 1 */
	uint8_t level;            /* 0x01  0: the root is a leaf; ..TER_ROOT_LEVEL_MAX */
	uint8_t nr_ptrs;          /* 0x02  1..TER_BTREE_PTR_MAX when present */
	uint8_t flags;            /* 0x03  TER_ROOT_FLAG_* */
	ter_le32 sectors_written; /* 0x04  of the node */
	ter_le64 node_seq;        /* 0x08  of the node */
	struct ter_root_ptr_disk ptr[TER_BTREE_PTR_MAX]; /* 0x10  copies, on different members; those beyond nr_ptrs are 0 */
};
TER_DISK_SIZE(struct ter_root_disk, 0x50);
TER_DISK_OFFSET(struct ter_root_disk, level, 1);
TER_DISK_OFFSET(struct ter_root_disk, nr_ptrs, 2);
TER_DISK_OFFSET(struct ter_root_disk, flags, 3);
TER_DISK_OFFSET(struct ter_root_disk, sectors_written, 4);
TER_DISK_OFFSET(struct ter_root_disk, node_seq, 8);
TER_DISK_OFFSET(struct ter_root_disk, ptr, 0x10);

/* CLEAN: this, then its roots: only btrees that are present, ascending btree. */
struct ter_sb_clean_disk {
	ter_le64 journal_seq;   /* 0x00  of the last journal entry */
	ter_le64 next_node_seq; /* 0x08  first not used by a btree node */
	ter_le64 next_inum;     /* 0x10  first inode number to try */
};
TER_DISK_SIZE(struct ter_sb_clean_disk, 0x18);
TER_DISK_OFFSET(struct ter_sb_clean_disk, next_node_seq, 8);
TER_DISK_OFFSET(struct ter_sb_clean_disk, next_inum, 0x10);

/* BLACKLIST: journal sequences that never were; ascending, not overlapping; at most TER_BLACKLIST_MAX. */
struct ter_sb_blacklist_disk {
	ter_le64 first; /* 0x00  1 and up */
	ter_le64 last;  /* 0x08  first and up */
};
TER_DISK_SIZE(struct ter_sb_blacklist_disk, 0x10);
TER_DISK_OFFSET(struct ter_sb_blacklist_disk, last, 8);

/* RECOVERY: one; there only when a bit is set. Bits are ids of recovery passes (recovery/passes.h). */
struct ter_sb_recovery_disk {
	ter_le64 required; /* 0x00  passes to be run, and to find nothing, before the pool is written to again */
	ter_le64 unfixed;  /* 0x08  passes that found errors which were not repaired */
	uint8_t zero[48];  /* 0x10 */
};
TER_DISK_SIZE(struct ter_sb_recovery_disk, 0x40);
TER_DISK_OFFSET(struct ter_sb_recovery_disk, unfixed, 8);
TER_DISK_OFFSET(struct ter_sb_recovery_disk, zero, 0x10);

/* The largest superblock without unknown parts fits. */
_Static_assert(sizeof(struct ter_sb_disk) + 8 * sizeof(struct ter_sb_section_disk) + TER_DEVS_MAX * sizeof(struct ter_sb_member_disk) +
		       TER_OPTION_ID_MAX * (sizeof(struct ter_sb_option_disk) + TER_OPT_ALGO_MAX) +
		       TER_ALGO_SLOTS_MAX * sizeof(struct ter_sb_algo_disk) + TER_REPLICAS_ENTRIES_MAX * sizeof(struct ter_sb_replicas_disk) +
		       TER_DEVS_MAX * TER_JOURNAL_RANGES_MAX * sizeof(struct ter_sb_journal_disk) + sizeof(struct ter_sb_clean_disk) +
		       TER_BTREE_ROOTS_MAX * sizeof(struct ter_root_disk) + TER_BLACKLIST_MAX * sizeof(struct ter_sb_blacklist_disk) +
		       sizeof(struct ter_sb_recovery_disk) <=
	       TER_SB_BYTES_MAX, "room");

/* --- for this room and the journal --- */

void ter_root_encode(const struct ter_root *root, struct ter_root_disk *ret);
/* Checks the shape only, not that the places exist: -EUCLEAN. */
int ter_root_decode(const struct ter_root_disk *disk, struct ter_root *ret);

/* Of @buf's first `bytes` bytes, as the field crc32c should be. The header's `bytes` must have been checked. */
uint32_t ter_sb_checksum(const void *buf);
/* Makes an encoded copy that of another member or place, and sums it again. */
void ter_sb_retarget(void *buf, unsigned dev_idx, uint64_t copy_offset_bytes);

/* ter_sb_decode() of what was read at byte @offset_bytes of a member: a copy that belongs elsewhere is -ENODATA. */
int ter_sb_decode_at(const void *buf, size_t bytes, uint64_t offset_bytes, struct ter_sb **ret_sb, struct ter_members **ret_members, unsigned *ret_dev_idx,
		     struct ter_error *error);

/* Is the entry well-formed (types, numbers, order)? */
bool ter_replicas_entry_valid(const struct ter_replicas_entry *entry);
/* The entry's place in the sorted table; *ret_idx is where it is or belongs. */
bool ter_replicas_find(const struct ter_sb *sb, const struct ter_replicas_entry *entry, unsigned *ret_idx);

#endif

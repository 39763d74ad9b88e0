/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Superblock
 *
 * One logical superblock per pool; every member carries three copies: at bytes 8 KiB and 128 KiB, and one in the last 64 KiB (aligned down to 4 KiB). A copy is
 * a fixed header and typed, length-prefixed sections (sb_format.h), at most TER_SB_BYTES_MAX, under crc32c (built in: it is read before any plugin is loaded).
 * `seq` rises with each write; the newest valid copy wins.
 *
 *   S1  Writing: seq + 1; every copy is encoded and decoded back before the first is written; slot 0 of all members, flush, then slot 1, flush, then the last, flush.
 *       A member that has bad copies gets those first; its valid ones are overwritten only while another copy of it is valid. So at any cut each member that had a valid
 *       copy has one. A copy says where it lies, and is valid nowhere else (the end of a partition may be the end of its disk).
 *   S2  Before a write the seq on disk is read back: higher than ours means that someone else wrote, lower than what we had written that the device lost a write which it had
 *       confirmed: -EUCLEAN, and the pool goes read-only (`emergency`).
 *   S3  A write succeeds when at least one copy landed on at least one rw member, and counts errors on the others.
 *   S4  A bad copy found while a good one exists is rewritten at the next write.
 *   S5  A superblock is never smaller in truth than on disk: replicas entries are added and written before the commit that needs them.
 *   S6  Unknown sections are kept and written back; unknown incompatible feature bits refuse the open.
 */
#ifndef TER_SB_H
#define TER_SB_H

#include "sb/members.h"
#include "sb/options.h"
#include "util/base.h"
#include "util/codec.h"

#define TER_FORMAT_MAJOR 1 /* incompatible */
#define TER_FORMAT_MINOR 0 /* readable by older code */

#define TER_SB_BYTES_MAX 65536u
#define TER_SB_COPIES 3
#define TER_SB_SLOT0_BYTES 8192u
#define TER_SB_SLOT1_BYTES 131072u
#define TER_SB_AREA_BYTES 262144u /* start of a member up to here: buckets of type sb */
#define TER_SB_TAIL_BYTES 65536u  /* end of a member from here: not in any bucket */
#define TER_MEMBER_BUCKETS_MIN 128

#define TER_REPLICAS_ENTRIES_MAX 1024
#define TER_BLACKLIST_MAX 64
#define TER_BTREE_ROOTS_MAX 24
#define TER_BTREE_PTR_MAX 4 /* replicas of a node */

/* One device set that holds data of one kind. devs sorted ascending. */
struct ter_replicas_entry {
	uint8_t data_type; /* enum ter_data_type */
	uint8_t nr_devs, nr_required;
	uint8_t devs[TER_REPLICAS_MAX];
};

/* Where a btree's root is; also in journal entries. Encoded in sb_format.h. */
struct ter_root {
	uint8_t btree, level;
	bool present;
	uint64_t node_seq;
	uint32_t sectors_written;
	uint8_t nr_ptrs;
	struct {
		uint8_t dev;
		uint32_t gen;
		uint64_t sector; /* on the member */
	} ptr[TER_BTREE_PTR_MAX];
};

/* An option of a later minor version, kept as it came. */
struct ter_sb_unknown_option {
	uint16_t id;
	uint8_t kind, value_bytes;
	uint8_t value[TER_OPT_ALGO_MAX];
};

struct ter_sb {
	uint8_t uuid[16];      /* internal: ties members together */
	uint8_t user_uuid[16]; /* what people see */
	char label[TER_LABEL_MAX + 1];
	uint16_t version_major, version_minor;
	uint64_t seq;
	uint64_t features_incompat, features_compat;
	uint64_t created_ns;
	uint64_t journal_seq_clean; /* clean: the last entry's sequence */
	uint8_t hash_key[16];       /* siphash of names */
	bool clean;                 /* stopped cleanly: roots and the clean section are the truth */
	bool initialized;
	uint64_t next_node_seq, next_inum; /* in the clean section; else derived at recovery */
	struct ter_options options;
	struct ter_algos algos;
	struct ter_root roots[TER_BTREE_ROOTS_MAX]; /* valid when clean */
	struct ter_replicas_entry replicas[TER_REPLICAS_ENTRIES_MAX]; /* sorted: ter_sb_replicas_add() */
	unsigned replicas_nr;
	struct { uint64_t first, last; } blacklist[TER_BLACKLIST_MAX]; /* journal sequences that never were */
	unsigned blacklist_nr;
	/* Bits by the ids of recovery passes (recovery/passes.h); those that are not known are kept. */
	uint64_t passes_required; /* to be run before the next read-write */
	uint64_t passes_unfixed;  /* found errors that are still there */
	/* sections of kinds we do not know, kept as they came (S6) */
	void *unknown;
	size_t unknown_bytes;
	struct ter_sb_unknown_option unknown_options[TER_OPTION_ID_MAX];
	unsigned unknown_options_nr;
};

/* In memory, shared: the superblock, members and the lock over both (ranks SB, MEMBERS inside). */
struct ter_sb_handle {
	struct ter_exec *exec;
	struct ter_lock lock;        /* rank SB; guards sb; held across nothing that waits for I/O */
	struct ter_lock write_lock;  /* rank SB_WRITE: one writer at a time, held across the write; a structure change of a btree may wait for it */
	struct ter_sb *sb;
	struct ter_members *members; /* records live here, not in struct ter_sb */
	bool emergency;              /* S2 struck: no further writes */
};

/* --- bytes --- */
/* @dev_idx: whose copy. Return bytes used, or -E2BIG. @buf of TER_SB_BYTES_MAX, zeroed by us. */
int ter_sb_encode(const struct ter_sb *sb, const struct ter_members *members, unsigned dev_idx, void *buf);
/*
 * Validate and decode hostile bytes. Fills member records in @ret_members (used, uuid, sizes, …; no bdev). *ret_dev_idx: which member the copy is of. Algorithms come
 * with algo == NULL: bind them with ter_sb_bind_algos().
 * Errors: -ENODATA no superblock magic; -EBADMSG checksum; CORRUPTED; INCOMPATIBLE_VERSION.
 */
int ter_sb_decode(const void *buf, size_t bytes, struct ter_sb **ret_sb, struct ter_members **ret_members, unsigned *ret_dev_idx, struct ter_error *error);
void ter_sb_free(struct ter_sb *sb);

/* --- a member --- */
struct ter_sb_read_result {
	struct ter_sb *sb;           /* newest valid copy */
	struct ter_members *members; /* its records; allocated */
	unsigned dev_idx;
	unsigned bad_copies;         /* bit per copy that was not valid, older, or of something else */
};
/*
 * Reads all copies of one open device. -ENODATA: not a member of anything. A copy of an incompatible version refuses the device, whatever its other copies say.
 * Of copies of different pools (left by a format that was cut off, or found where an earlier pool had its end) the one formatted last counts.
 * The caller owns sb (ter_sb_free()) and members (free()).
 */
int ter_sb_read(struct ter_exec *exec, struct ter_bdev *bdev, struct ter_sb_read_result *ret, struct ter_error *error);

/* Slots become algorithms; K2 of codec.h: PLUGIN_MISSING names what is missing and what there is. */
int ter_sb_bind_algos(struct ter_sb *sb, const struct ter_codecs *codecs, struct ter_error *error);
/* The slot of an algorithm, adding one if needed (the superblock must be written before the slot is used). 0 for "none". -ENOSPC: table full. */
int ter_sb_algo_slot(struct ter_sb *sb, const struct ter_codecs *codecs, enum terrace_kind kind, const char *name);

/* --- writing --- */
/* Write to all online members (S1..S4). Must not be called with any lock of rank RENAME or later held. */
int ter_sb_write(struct ter_sb_handle *handle, struct ter_error *error);
/*
 * Make sure the table has @entry, writing the superblock if it was new (S5). Fast when present: one lock. Never from under a node lock.
 * @nowait: -EAGAIN instead of writing.
 */
int ter_sb_replicas_ensure(struct ter_sb_handle *handle, const struct ter_replicas_entry *entry, bool nowait);

/* In memory only (format, recovery), keeping the order: 0 also when it was there; -EINVAL malformed; -ENOSPC table full. Locks are the caller's. */
int ter_sb_replicas_add(struct ter_sb *sb, const struct ter_replicas_entry *entry);
bool ter_sb_replicas_has(const struct ter_sb *sb, const struct ter_replicas_entry *entry);

/* --- what may be done with which members: computed answers --- */
struct ter_replicas_answer {
	bool metadata_degraded, data_degraded, metadata_lost, data_lost;
};
/* @online: bit per member index that is (or would be) there. */
void ter_sb_replicas_check(const struct ter_sb *sb, const struct ter_members *members, uint64_t online, struct ter_replicas_answer *ret);

/* Where copies lie on a member of @bytes. */
void ter_sb_copy_offsets(uint64_t bytes, uint64_t ret_offset[TER_SB_COPIES]);

bool ter_label_valid(const char *label, struct ter_error *error); /* pool label: up to 32 bytes, UTF-8, no '/', no control characters; INVALID_ARGUMENT */

#endif

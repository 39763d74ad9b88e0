/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The FUSE protocol where the distribution's headers end: constants and structs of newer kernels, defined here if they are missing.
 * Source: the kernel's include/uapi/linux/fuse.h, protocol 7.36 to 7.42. Each is used only after INIT offered it.
 */
#ifndef TD_FUSE_WIRE_H
#define TD_FUSE_WIRE_H

#include <linux/fuse.h>
#include <stdint.h>

#define TD_FUSE_STATX 52      /* opcode, 7.39 */
#define TD_FUSE_OVER_IO_URING (1ull << 41)
#define TD_FUSE_HAS_RESEND (1ull << 39)

struct td_fuse_statx_in {
	uint32_t getattr_flags;
	uint32_t reserved;
	uint64_t fh;
	uint32_t sx_flags;
	uint32_t sx_mask;
};
struct td_fuse_sx_time {
	int64_t tv_sec;
	uint32_t tv_nsec;
	int32_t reserved;
};
struct td_fuse_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct td_fuse_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};
struct td_fuse_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct td_fuse_statx stat;
};

/* FUSE over io_uring. */
#define TD_URING_REGISTER 1u
#define TD_URING_COMMIT_AND_FETCH 2u
struct td_uring_ent_in_out {
	uint64_t flags;
	uint64_t commit_id;
	uint32_t payload_sz;
	uint32_t padding;
	uint64_t reserved;
};
struct td_uring_headers {
	char in_out[128]; /* fuse_in_header, or fuse_out_header in the reply */
	char op_in[128];  /* the operation's own header */
	struct td_uring_ent_in_out ent;
};
_Static_assert(sizeof(struct td_uring_headers) == 288, "headers of a ring entry");
struct td_uring_cmd {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint8_t padding[6];
};

#endif

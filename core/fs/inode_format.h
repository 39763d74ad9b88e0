/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inodes: bytes on disk
 *
 * Btree INODES, position (inode number, 0, snapshot), key type INODE. The value is this struct, whole. DELETED_INODES holds a key of type SET without a value at the same position
 * while the inode has no link (nlink is 0), or while a truncation is not finished (nlink is not 0: bytes beyond `size` may still have extents).
 */
#ifndef TER_INODE_FORMAT_H
#define TER_INODE_FORMAT_H

#include "util/base.h"

struct ter_inode_disk {
	ter_le32 mode;          /* 0x00  type and permission bits as in st_mode; the type is one of the seven */
	ter_le32 uid;           /* 0x04 */
	ter_le32 gid;           /* 0x08 */
	ter_le32 nlink;         /* 0x0c  directories: 2 + subdirectories, 0 when removed; others: directory entries */
	ter_le32 rdev;          /* 0x10  devices: as Linux' new_encode_dev(); else 0 */
	ter_le32 generation;    /* 0x14  for handles; 0 */
	ter_le32 flags;         /* 0x18  TER_INODE_* of vfs.h, TER_IFLAG_* below; unknown bits: not valid */
	ter_le32 project;       /* 0x1c  project id, 0 */
	ter_le64 size;          /* 0x20  regular: bytes; symbolic link: bytes of the target; directory: number of entries; else 0. At most 2^63 - 1 */
	ter_le64 sectors;       /* 0x28  regular: allocated, 512 bytes each, copies not counted; else 0 */
	ter_le64 atime_ns;      /* 0x30  times: nanoseconds since 1970, two's complement */
	ter_le64 mtime_ns;      /* 0x38 */
	ter_le64 ctime_ns;      /* 0x40 */
	ter_le64 btime_ns;      /* 0x48 */
	ter_le64 parent_inum;   /* 0x50  directory that has an entry for this inode (directories: the parent; the root: itself); 0: not known */
	ter_le64 parent_offset; /* 0x58  offset of that entry's key */
	uint8_t zero[32];       /* 0x60  0; for options of an inode in a later version */
};
TER_DISK_SIZE(struct ter_inode_disk, 0x80);
TER_DISK_OFFSET(struct ter_inode_disk, rdev, 0x10);
TER_DISK_OFFSET(struct ter_inode_disk, flags, 0x18);
TER_DISK_OFFSET(struct ter_inode_disk, size, 0x20);
TER_DISK_OFFSET(struct ter_inode_disk, atime_ns, 0x30);
TER_DISK_OFFSET(struct ter_inode_disk, btime_ns, 0x48);
TER_DISK_OFFSET(struct ter_inode_disk, parent_inum, 0x50);
TER_DISK_OFFSET(struct ter_inode_disk, zero, 0x60);

enum {
	TER_IFLAG_XATTRS = 1u << 24,   /* may have keys in XATTRS; without it there are none */
	TER_IFLAG_LINKABLE = 1u << 25, /* made without a name, and may get one (O_TMPFILE) */
};
#define TER_IFLAGS (TER_IFLAG_XATTRS | TER_IFLAG_LINKABLE)

#endif

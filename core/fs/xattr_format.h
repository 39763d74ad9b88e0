/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended attributes: bytes on disk
 *
 * Btree XATTRS, position (inode, hash, snapshot), key type XATTR; hash = SipHash-2-4 of the whole name ("user.x") under the superblock's hash_key. The value is every attribute with that
 * hash, one behind the other without filling: this header, the name without its prefix, the attribute's value. The inode has TER_IFLAG_XATTRS.
 * Access control lists are stored as the system call gives them (version 2 of posix_acl_xattr.h).
 */
#ifndef TER_XATTR_FORMAT_H
#define TER_XATTR_FORMAT_H

#include "util/base.h"

/* x(id, prefix) */
#define TER_XATTR_NAMESPACES(x) \
	x(1, "user.")           \
	x(2, "trusted.")        \
	x(3, "security.")       \
	x(4, "system.")

struct ter_xattr_disk {
	uint8_t ns;           /* 0x00  id above */
	uint8_t name_bytes;   /* 0x01  without the prefix, 1.. */
	uint8_t zero[2];      /* 0x02  0 */
	ter_le32 value_bytes; /* 0x04 */
};
TER_DISK_SIZE(struct ter_xattr_disk, 8);

#endif

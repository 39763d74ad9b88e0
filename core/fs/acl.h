/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * POSIX access control lists, in the form of the system call (posix_acl_xattr.h, version 2)
 *
 * The bytes are checked by ter_acl_check() when set; what is read back from a btree is checked again by each function.
 */
#ifndef TER_ACL_H
#define TER_ACL_H

#include "util/base.h"

#define TER_ACL_ACCESS "system.posix_acl_access"
#define TER_ACL_DEFAULT "system.posix_acl_default"
#define TER_ACL_ENTRIES_MAX 1024u
#define TER_ACL_BYTES_MAX (4 + TER_ACL_ENTRIES_MAX * 8)

/* 0, or -EINVAL (malformed, out of order, parts missing) or -EOPNOTSUPP (version). */
int ter_acl_check(const void *acl, size_t bytes);
/* The permission bits that the list stands for. 1: it says no more than they do; 0: it says more; negative errno. */
int ter_acl_to_mode(const void *acl, size_t bytes, uint32_t *ret_perm);
/* A new inode under a directory with default list @acl: narrows the list by *mode, in place, and *mode by the list. Return as ter_acl_to_mode(). */
int ter_acl_inherit(void *acl, size_t bytes, uint32_t *mode);
/* chmod: the list's owner, mask (or group) and other entries become those of @mode, in place. */
int ter_acl_chmod(void *acl, size_t bytes, uint32_t mode);

#endif

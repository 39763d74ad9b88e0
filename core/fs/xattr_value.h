/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended attributes: names, and the value of an XATTR key (xattr_format.h), taken apart and put together
 *
 * Values are hostile: -EUCLEAN for what cannot be.
 */
#ifndef TER_XATTR_VALUE_H
#define TER_XATTR_VALUE_H

#include "btree/key.h"
#include "fs/xattr_format.h"

struct ter_xattr {
	uint8_t ns;
	unsigned name_bytes;
	uint32_t value_bytes;
	const char *name; /* without the prefix; not terminated */
	const void *value;
};

/* "user.x" into namespace and rest. -EOPNOTSUPP: no such namespace (in system: but the two access control lists); -EINVAL: nothing after the prefix; -ERANGE: empty or too long. */
int ter_xattr_name_parse(const char *name, struct ter_xattr *ret);
const char *ter_xattr_prefix(uint8_t ns); /* NULL: unknown */
uint64_t ter_xattr_hash(const uint8_t hash_key[16], const char *name);

/* The attribute at *pos (0 at first), which moves on. 1; 0 at the end; -EUCLEAN. */
int ter_xattrs_next(const void *val, uint32_t val_bytes, uint32_t *pos, struct ter_xattr *ret);
int ter_xattrs_check(const struct ter_key *key);
/* -ENODATA */
int ter_xattrs_find(const void *val, uint32_t val_bytes, const struct ter_xattr *name, struct ter_xattr *ret);
/* The list without @name, and with @x at its end if that is not NULL, into @dst (@val_bytes and the size of @x long). Returns bytes. */
int ter_xattrs_set(const void *val, uint32_t val_bytes, const struct ter_xattr *name, const struct ter_xattr *x, void *dst);
static inline size_t ter_xattr_bytes(const struct ter_xattr *x)
{
	return sizeof(struct ter_xattr_disk) + x->name_bytes + x->value_bytes;
}

#endif

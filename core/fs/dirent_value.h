/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directory entries: the value of a DIRENT key (dirent_format.h), taken apart and put together
 *
 * Values are hostile: every function checks what it walks over and returns -EUCLEAN for what cannot be. No function allocates.
 */
#ifndef TER_DIRENT_VALUE_H
#define TER_DIRENT_VALUE_H

#include "btree/key.h"
#include "fs/dirent_format.h"

struct ter_dent {
	uint64_t inum;
	uint8_t type, slot;
	unsigned name_bytes;
	const char *name; /* not terminated */
};

uint64_t ter_dirent_hash(const uint8_t hash_key[16], const char *name, size_t bytes);

static inline uint64_t ter_dirent_cookie(uint64_t hash, unsigned slot)
{
	return hash + slot + 3;
}

/* The entry at *pos (0 at first), which moves on. 1; 0 at the end; -EUCLEAN. */
int ter_dirents_next(const void *val, uint32_t val_bytes, uint32_t *pos, struct ter_dent *ret);
int ter_dirents_check(const struct ter_key *key);
/* -ENOENT */
int ter_dirents_find(const void *val, uint32_t val_bytes, const char *name, size_t bytes, struct ter_dent *ret);
/* @val with one more entry in the lowest free slot, into @dst (TER_DIRENTS_VAL_MAX). Returns bytes; -EEXIST; -ENOSPC: all slots are taken. */
int ter_dirents_insert(const void *val, uint32_t val_bytes, const char *name, size_t bytes, uint64_t inum, uint8_t type, void *dst);
/* Without one. Returns bytes (0: none left); -ENOENT. */
int ter_dirents_remove(const void *val, uint32_t val_bytes, const char *name, size_t bytes, void *dst);
/* The name leads to another inode. Returns bytes; -ENOENT. */
int ter_dirents_replace(const void *val, uint32_t val_bytes, const char *name, size_t bytes, uint64_t inum, uint8_t type, void *dst);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directory entries: values of DIRENT keys. */
#include <dirent.h>

#include "fs/dirent_value.h"
#include "fs/vfs.h"
#include "util/siphash.h"

uint64_t ter_dirent_hash(const uint8_t hash_key[16], const char *name, size_t bytes)
{
	return ter_siphash(hash_key, name, bytes) << (64 - 58) >> (64 - 58) << TER_DIRENT_HASH_SHIFT;
}

static bool type_valid(uint8_t type)
{
	switch (type) {
	case DT_FIFO:
	case DT_CHR:
	case DT_DIR:
	case DT_BLK:
	case DT_REG:
	case DT_LNK:
	case DT_SOCK:
		return true;
	default:
		return false;
	}
}

static bool name_valid(const char *name, unsigned bytes)
{
	if (!bytes || (bytes == 1 && name[0] == '.') || (bytes == 2 && name[0] == '.' && name[1] == '.'))
		return false;
	return !memchr(name, '/', bytes) && !memchr(name, '\0', bytes);
}

int ter_dirents_next(const void *val, uint32_t val_bytes, uint32_t *pos, struct ter_dent *ret)
{
	struct ter_dirent_disk disk;

	if (*pos >= val_bytes)
		return *pos == val_bytes ? 0 : -EUCLEAN;
	if (val_bytes - *pos < sizeof(disk))
		return -EUCLEAN;
	memcpy(&disk, (const uint8_t *)val + *pos, sizeof(disk));
	if (val_bytes - *pos - sizeof(disk) < disk.name_bytes || disk.zero || disk.slot >= TER_DIRENT_SLOTS || !type_valid(disk.type))
		return -EUCLEAN;
	*ret = (struct ter_dent){
		.inum = ter_le64_get(disk.inum),
		.type = disk.type,
		.slot = disk.slot,
		.name_bytes = disk.name_bytes,
		.name = (const char *)val + *pos + sizeof(disk),
	};
	if (!ret->inum || ret->inum > TER_INUM_MAX || !name_valid(ret->name, ret->name_bytes))
		return -EUCLEAN;
	*pos += (uint32_t)sizeof(disk) + ret->name_bytes;
	return 1;
}

int ter_dirents_check(const struct ter_key *key)
{
	struct ter_dent dent;
	uint32_t pos = 0;
	int last_slot = -1, r;

	if (key->type != TER_KEY_DIRENT || key->val_version || !key->val_bytes || key->pos.offset > TER_DIRENT_HASH_MAX ||
	    key->pos.offset & (TER_DIRENT_SLOTS - 1))
		return -EUCLEAN;
	while ((r = ter_dirents_next(key->val, key->val_bytes, &pos, &dent)) > 0) {
		if ((int)dent.slot <= last_slot)
			return -EUCLEAN;
		last_slot = dent.slot;
	}
	return r;
}

int ter_dirents_find(const void *val, uint32_t val_bytes, const char *name, size_t bytes, struct ter_dent *ret)
{
	struct ter_dent dent;
	uint32_t pos = 0;
	int r;

	while ((r = ter_dirents_next(val, val_bytes, &pos, &dent)) > 0)
		if (dent.name_bytes == bytes && !memcmp(dent.name, name, bytes)) {
			*ret = dent;
			return 0;
		}
	return r < 0 ? r : -ENOENT;
}

static uint32_t put(void *dst, uint32_t at, const struct ter_dent *dent)
{
	struct ter_dirent_disk disk = {
		.inum = ter_le64_make(dent->inum),
		.type = dent->type,
		.slot = dent->slot,
		.name_bytes = (uint8_t)dent->name_bytes,
	};

	memcpy((uint8_t *)dst + at, &disk, sizeof(disk));
	memcpy((uint8_t *)dst + at + sizeof(disk), dent->name, dent->name_bytes);
	return at + (uint32_t)sizeof(disk) + dent->name_bytes;
}

static int lowest_free_slot(const void *val, uint32_t val_bytes)
{
	struct ter_dent dent;
	uint32_t pos = 0, used = 0;
	int r;

	while ((r = ter_dirents_next(val, val_bytes, &pos, &dent)) > 0)
		used |= 1u << dent.slot;
	if (r < 0)
		return r;
	return used == (1u << TER_DIRENT_SLOTS) - 1 ? -ENOSPC : __builtin_ctz(~used);
}

int ter_dirents_insert(const void *val, uint32_t val_bytes, const char *name, size_t bytes, uint64_t inum, uint8_t type, void *dst)
{
	struct ter_dent fresh = { .inum = inum, .type = type, .name = name, .name_bytes = (unsigned)bytes }, dent;
	uint32_t pos = 0, at = 0;
	bool placed = false;
	int r;

	r = ter_dirents_find(val, val_bytes, name, bytes, &dent);
	if (r != -ENOENT)
		return r < 0 ? r : -EEXIST;
	r = lowest_free_slot(val, val_bytes);
	if (r < 0)
		return r;
	fresh.slot = (uint8_t)r;
	/* Slots differ and are below TER_DIRENT_SLOTS, names below 256: it fits TER_DIRENTS_VAL_MAX, unless a damaged value repeats slots. */
	if (val_bytes + sizeof(struct ter_dirent_disk) + bytes > TER_DIRENTS_VAL_MAX)
		return -EUCLEAN;
	while ((r = ter_dirents_next(val, val_bytes, &pos, &dent)) > 0) {
		if (!placed && dent.slot > fresh.slot) {
			at = put(dst, at, &fresh);
			placed = true;
		}
		at = put(dst, at, &dent);
	}
	if (!placed)
		at = put(dst, at, &fresh);
	return (int)at;
}

int ter_dirents_remove(const void *val, uint32_t val_bytes, const char *name, size_t bytes, void *dst)
{
	struct ter_dent dent;
	uint32_t pos = 0, at = 0;
	bool found = false;
	int r;

	if (val_bytes > TER_DIRENTS_VAL_MAX)
		return -EUCLEAN;
	while ((r = ter_dirents_next(val, val_bytes, &pos, &dent)) > 0) {
		if (dent.name_bytes == bytes && !memcmp(dent.name, name, bytes))
			found = true;
		else
			at = put(dst, at, &dent);
	}
	if (r < 0)
		return r;
	return found ? (int)at : -ENOENT;
}

int ter_dirents_replace(const void *val, uint32_t val_bytes, const char *name, size_t bytes, uint64_t inum, uint8_t type, void *dst)
{
	struct ter_dent dent;
	uint32_t pos = 0, at = 0;
	bool found = false;
	int r;

	if (val_bytes > TER_DIRENTS_VAL_MAX)
		return -EUCLEAN;
	while ((r = ter_dirents_next(val, val_bytes, &pos, &dent)) > 0) {
		if (dent.name_bytes == bytes && !memcmp(dent.name, name, bytes)) {
			dent.inum = inum;
			dent.type = type;
			found = true;
		}
		at = put(dst, at, &dent);
	}
	if (r < 0)
		return r;
	return found ? (int)at : -ENOENT;
}

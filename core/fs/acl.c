/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* POSIX access control lists: checking, inheriting, following chmod. */
#include "fs/acl.h"

enum { TAG_USER_OBJ = 0x01, TAG_USER = 0x02, TAG_GROUP_OBJ = 0x04, TAG_GROUP = 0x08, TAG_MASK = 0x10, TAG_OTHER = 0x20 };

struct acl_header {
	ter_le32 version;
};
struct acl_entry {
	ter_le16 tag, perm;
	ter_le32 id;
};
_Static_assert(sizeof(struct acl_entry) == 8, "entry of a list");

static unsigned entries_nr(size_t bytes)
{
	return (unsigned)((bytes - sizeof(struct acl_header)) / sizeof(struct acl_entry));
}

static struct acl_entry *entries_of(void *acl)
{
	return (struct acl_entry *)((uint8_t *)acl + sizeof(struct acl_header));
}

/* One entry after another, in the order that posix_acl_valid() of Linux asks for. */
static int next_state(unsigned state, unsigned tag, bool *needs_mask)
{
	switch (tag) {
	case TAG_USER_OBJ:
		return state == TAG_USER_OBJ ? TAG_USER : -EINVAL;
	case TAG_USER:
		*needs_mask = true;
		return state == TAG_USER ? TAG_USER : -EINVAL;
	case TAG_GROUP_OBJ:
		return state == TAG_USER ? TAG_GROUP : -EINVAL;
	case TAG_GROUP:
		*needs_mask = true;
		return state == TAG_GROUP ? TAG_GROUP : -EINVAL;
	case TAG_MASK:
		return state == TAG_GROUP ? TAG_OTHER : -EINVAL;
	case TAG_OTHER:
		return state == TAG_OTHER || (state == TAG_GROUP && !*needs_mask) ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

int ter_acl_check(const void *acl, size_t bytes)
{
	const struct acl_entry *e = entries_of((void *)(uintptr_t)acl);
	bool needs_mask = false;
	int state = TAG_USER_OBJ;

	if (bytes < sizeof(struct acl_header) || bytes > TER_ACL_BYTES_MAX || (bytes - sizeof(struct acl_header)) % sizeof(*e))
		return -EINVAL;
	if (ter_le32_get(((const struct acl_header *)acl)->version) != 2)
		return -EOPNOTSUPP;
	for (unsigned i = 0; i < entries_nr(bytes); i++) {
		if (!state || ter_le16_get(e[i].perm) & ~7u)
			return -EINVAL;
		state = next_state((unsigned)state, ter_le16_get(e[i].tag), &needs_mask);
		if (state < 0)
			return state;
	}
	return state ? -EINVAL : 0;
}

int ter_acl_to_mode(const void *acl, size_t bytes, uint32_t *ret_perm)
{
	const struct acl_entry *e = entries_of((void *)(uintptr_t)acl);
	uint32_t perm = 0, mask = 0;
	bool more = false, masked = false;
	int r;

	r = ter_acl_check(acl, bytes);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < entries_nr(bytes); i++) {
		uint32_t p = ter_le16_get(e[i].perm);

		switch (ter_le16_get(e[i].tag)) {
		case TAG_USER_OBJ:
			perm |= p << 6;
			break;
		case TAG_GROUP_OBJ:
			perm |= p << 3;
			break;
		case TAG_OTHER:
			perm |= p;
			break;
		case TAG_MASK:
			masked = true;
			mask = p;
			more = true;
			break;
		default:
			more = true;
		}
	}
	if (masked)
		perm = (perm & ~070u) | mask << 3;
	*ret_perm = perm;
	return more ? 0 : 1;
}

static void narrow(struct acl_entry *e, uint32_t *mode, unsigned shift)
{
	uint32_t p = ter_le16_get(e->perm) & (*mode >> shift);

	e->perm = ter_le16_make((uint16_t)p);
	*mode &= ~(7u << shift) | p << shift;
}

int ter_acl_inherit(void *acl, size_t bytes, uint32_t *mode)
{
	struct acl_entry *e = entries_of(acl), *group = NULL, *mask = NULL;
	bool more = false;
	int r;

	r = ter_acl_check(acl, bytes);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < entries_nr(bytes); i++) {
		switch (ter_le16_get(e[i].tag)) {
		case TAG_USER_OBJ:
			narrow(&e[i], mode, 6);
			break;
		case TAG_GROUP_OBJ:
			group = &e[i];
			break;
		case TAG_OTHER:
			narrow(&e[i], mode, 0);
			break;
		case TAG_MASK:
			mask = &e[i];
			more = true;
			break;
		default:
			more = true;
		}
	}
	narrow(mask ? mask : group, mode, 3); /* group: checked to be there */
	return more ? 0 : 1;
}

int ter_acl_chmod(void *acl, size_t bytes, uint32_t mode)
{
	struct acl_entry *e = entries_of(acl), *group = NULL, *mask = NULL;
	int r;

	r = ter_acl_check(acl, bytes);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < entries_nr(bytes); i++) {
		switch (ter_le16_get(e[i].tag)) {
		case TAG_USER_OBJ:
			e[i].perm = ter_le16_make(mode >> 6 & 7);
			break;
		case TAG_GROUP_OBJ:
			group = &e[i];
			break;
		case TAG_MASK:
			mask = &e[i];
			break;
		case TAG_OTHER:
			e[i].perm = ter_le16_make(mode & 7);
			break;
		default:
			break;
		}
	}
	(mask ? mask : group)->perm = ter_le16_make(mode >> 3 & 7);
	return 0;
}

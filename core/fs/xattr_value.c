/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes: names and values of XATTR keys. */
#include "fs/acl.h"
#include "fs/vfs.h"
#include "fs/xattr_value.h"
#include "util/siphash.h"

#define NS_SYSTEM 4

static const struct {
	uint8_t ns;
	const char *prefix;
} namespaces[] = {
#define x(id, text) { id, text },
	TER_XATTR_NAMESPACES(x)
#undef x
};

const char *ter_xattr_prefix(uint8_t ns)
{
	for (unsigned i = 0; i < ARRAY_SIZE(namespaces); i++)
		if (namespaces[i].ns == ns)
			return namespaces[i].prefix;
	return NULL;
}

int ter_xattr_name_parse(const char *name, struct ter_xattr *ret)
{
	size_t bytes = strnlen(name, TER_NAME_MAX + 1);

	if (!bytes || bytes > TER_NAME_MAX)
		return -ERANGE;
	for (unsigned i = 0; i < ARRAY_SIZE(namespaces); i++) {
		size_t prefix = strlen(namespaces[i].prefix);

		if (strncmp(name, namespaces[i].prefix, prefix))
			continue;
		if (bytes == prefix)
			return -EINVAL;
		if (namespaces[i].ns == NS_SYSTEM && strcmp(name, TER_ACL_ACCESS) && strcmp(name, TER_ACL_DEFAULT))
			return -EOPNOTSUPP;
		*ret = (struct ter_xattr){ .ns = namespaces[i].ns, .name = name + prefix, .name_bytes = (unsigned)(bytes - prefix) };
		return 0;
	}
	return -EOPNOTSUPP;
}

uint64_t ter_xattr_hash(const uint8_t hash_key[16], const char *name)
{
	return ter_siphash(hash_key, name, strlen(name));
}

int ter_xattrs_next(const void *val, uint32_t val_bytes, uint32_t *pos, struct ter_xattr *ret)
{
	struct ter_xattr_disk disk;
	uint32_t left;

	if (*pos >= val_bytes)
		return *pos == val_bytes ? 0 : -EUCLEAN;
	left = val_bytes - *pos;
	if (left < sizeof(disk))
		return -EUCLEAN;
	memcpy(&disk, (const uint8_t *)val + *pos, sizeof(disk));
	left -= sizeof(disk);
	*ret = (struct ter_xattr){
		.ns = disk.ns,
		.name_bytes = disk.name_bytes,
		.value_bytes = ter_le32_get(disk.value_bytes),
		.name = (const char *)val + *pos + sizeof(disk),
	};
	if (!ter_xattr_prefix(disk.ns) || disk.zero[0] || disk.zero[1] || !disk.name_bytes || disk.name_bytes > left ||
	    ret->value_bytes > left - disk.name_bytes)
		return -EUCLEAN;
	if (memchr(ret->name, '\0', ret->name_bytes) || strlen(ter_xattr_prefix(disk.ns)) + ret->name_bytes > TER_NAME_MAX)
		return -EUCLEAN;
	ret->value = ret->name + ret->name_bytes;
	*pos += (uint32_t)ter_xattr_bytes(ret);
	return 1;
}

int ter_xattrs_check(const struct ter_key *key)
{
	struct ter_xattr x;
	uint32_t pos = 0;
	int r;

	if (key->type != TER_KEY_XATTR || key->val_version || !key->val_bytes)
		return -EUCLEAN;
	while ((r = ter_xattrs_next(key->val, key->val_bytes, &pos, &x)) > 0)
		;
	return r;
}

static bool same_name(const struct ter_xattr *a, const struct ter_xattr *b)
{
	return a->ns == b->ns && a->name_bytes == b->name_bytes && !memcmp(a->name, b->name, a->name_bytes);
}

int ter_xattrs_find(const void *val, uint32_t val_bytes, const struct ter_xattr *name, struct ter_xattr *ret)
{
	struct ter_xattr x;
	uint32_t pos = 0;
	int r;

	while ((r = ter_xattrs_next(val, val_bytes, &pos, &x)) > 0)
		if (same_name(&x, name)) {
			*ret = x;
			return 0;
		}
	return r < 0 ? r : -ENODATA;
}

static uint32_t put(void *dst, uint32_t at, const struct ter_xattr *x)
{
	struct ter_xattr_disk disk = { .ns = x->ns, .name_bytes = (uint8_t)x->name_bytes, .value_bytes = ter_le32_make(x->value_bytes) };
	uint8_t *p = (uint8_t *)dst + at;

	memcpy(p, &disk, sizeof(disk));
	memcpy(p + sizeof(disk), x->name, x->name_bytes);
	if (x->value_bytes)
		memcpy(p + sizeof(disk) + x->name_bytes, x->value, x->value_bytes);
	return at + (uint32_t)ter_xattr_bytes(x);
}

int ter_xattrs_set(const void *val, uint32_t val_bytes, const struct ter_xattr *name, const struct ter_xattr *x, void *dst)
{
	struct ter_xattr other;
	uint32_t pos = 0, at = 0;
	int r;

	while ((r = ter_xattrs_next(val, val_bytes, &pos, &other)) > 0)
		if (!same_name(&other, name))
			at = put(dst, at, &other);
	if (r < 0)
		return r;
	if (x)
		at = put(dst, at, x);
	return (int)at;
}

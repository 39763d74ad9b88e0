/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The plain tree. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <linux/fs.h>

#include <cmocka.h>

#include "tree_model.h"
#include "vfs_calls.h"

struct tree_model *tm_new(void)
{
	struct tree_model *tm = calloc(1, sizeof(*tm));

	tm->root = &tm->nodes[0];
	*tm->root = (struct tm_node){ .used = true, .node = TER_NODE_ROOT, .mode = S_IFDIR | 0755, .nlink = 2, .parent = tm->root };
	return tm;
}

static void release(struct tm_node *node)
{
	free(node->data);
	free(node->target);
	for (unsigned i = 0; i < TM_XATTRS_MAX; i++)
		free(node->xattr[i].value);
	for (unsigned i = 0; i < node->entries_nr; i++)
		free(node->entry[i].name);
	memset(node, 0, sizeof(*node));
}

void tm_free(struct tree_model *tm)
{
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		release(&tm->nodes[i]);
	free(tm);
}

void tm_drop(struct tree_model *tm, struct tm_node *node)
{
	(void)tm;
	assert_int_equal(node->nlink, 0);
	release(node);
}

static int find(struct tm_node *dir, const char *name)
{
	for (unsigned i = 0; i < dir->entries_nr; i++)
		if (!strcmp(dir->entry[i].name, name))
			return (int)i;
	return -1;
}

struct tm_node *tm_lookup(struct tm_node *dir, const char *name)
{
	int at = find(dir, name);

	return at < 0 ? NULL : dir->entry[at].node;
}

static void add(struct tm_node *dir, const char *name, struct tm_node *node)
{
	assert_true(dir->entries_nr < TM_ENTRIES_MAX);
	dir->entry[dir->entries_nr].name = strdup(name);
	dir->entry[dir->entries_nr].node = node;
	dir->entries_nr++;
	if (S_ISDIR(node->mode)) {
		dir->nlink++;
		node->parent = dir;
	}
}

static void take(struct tm_node *dir, const char *name)
{
	int at = find(dir, name);

	assert_true(at >= 0);
	if (S_ISDIR(dir->entry[at].node->mode))
		dir->nlink--;
	free(dir->entry[at].name);
	dir->entry[at] = dir->entry[--dir->entries_nr];
}

static int dir_ok(struct tm_node *dir)
{
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	return dir->nlink ? 0 : -ENOENT;
}

static struct tm_node *fresh(struct tree_model *tm)
{
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (!tm->nodes[i].used) {
			tm->nodes[i].used = true;
			return &tm->nodes[i];
		}
	return NULL;
}

int tm_create(struct tree_model *tm, struct tm_node *dir, const char *name, uint32_t mode, uint32_t uid, uint32_t gid, uint32_t umask_bits, uint32_t rdev,
	      const char *target, struct tm_node **ret)
{
	struct tm_node *node;
	int r = dir_ok(dir);

	if (r < 0)
		return r;
	if (name && tm_lookup(dir, name))
		return -EEXIST;
	node = fresh(tm);
	assert_non_null(node);
	node->mode = S_ISLNK(mode) ? S_IFLNK | 0777 : mode & ~umask_bits;
	if (dir->mode & S_ISGID && S_ISDIR(mode))
		node->mode |= S_ISGID;
	node->uid = uid;
	node->gid = dir->mode & S_ISGID ? dir->gid : gid;
	node->rdev = S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0;
	node->nlink = S_ISDIR(mode) ? 2 : name ? 1 : 0;
	if (target) {
		node->target = strdup(target);
		node->size = strlen(target);
	}
	if (S_ISREG(mode))
		node->data = calloc(1, TM_FILE_MAX);
	if (name)
		add(dir, name, node);
	else
		node->held = true;
	*ret = node;
	return 0;
}

int tm_link(struct tm_node *node, struct tm_node *dir, const char *name)
{
	int r = dir_ok(dir);

	if (r == -ENOTDIR)
		return r;
	if (S_ISDIR(node->mode))
		return -EPERM;
	if (r < 0)
		return r;
	if (tm_lookup(dir, name))
		return -EEXIST;
	if (!node->nlink && !node->held)
		return -ENOENT;
	add(dir, name, node);
	node->nlink++;
	node->held = false;
	return 0;
}

static void lost(struct tm_node *node, struct tm_node **ret_orphan)
{
	if (S_ISDIR(node->mode))
		node->nlink = 0;
	else
		node->nlink--;
	*ret_orphan = node->nlink ? NULL : node;
}

int tm_unlink(struct tree_model *tm, struct tm_node *dir, const char *name, bool rmdir, struct tm_node **ret_orphan)
{
	struct tm_node *node;

	(void)tm;
	*ret_orphan = NULL;
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	node = tm_lookup(dir, name);
	if (!node)
		return -ENOENT;
	if (rmdir != S_ISDIR(node->mode))
		return rmdir ? -ENOTDIR : -EISDIR;
	if (rmdir && node->entries_nr)
		return -ENOTEMPTY;
	take(dir, name);
	lost(node, ret_orphan);
	return 0;
}

static bool below(struct tm_node *node, struct tm_node *above, struct tm_node *root)
{
	for (;; node = node->parent) {
		if (node == above)
			return true;
		if (node == root)
			return false;
	}
}

int tm_rename(struct tree_model *tm, struct tm_node *from, const char *from_name, struct tm_node *to, const char *to_name, unsigned flags,
	      struct tm_node **ret_orphan, struct tm_node **ret_whiteout)
{
	struct tm_node *source, *target;

	*ret_orphan = *ret_whiteout = NULL;
	if (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))
		return -EINVAL;
	if (!S_ISDIR(from->mode) || !S_ISDIR(to->mode))
		return -ENOTDIR;
	source = tm_lookup(from, from_name);
	target = tm_lookup(to, to_name);
	if (!source)
		return -ENOENT;
	if (!target && flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (target && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (source == target)
		return 0;
	if (S_ISDIR(source->mode) && below(to, source, tm->root))
		return -EINVAL;
	if (target && S_ISDIR(target->mode) && below(from, target, tm->root) && (flags & RENAME_EXCHANGE || S_ISDIR(source->mode)))
		return flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	if (!to->nlink)
		return -ENOENT;
	if (flags & RENAME_EXCHANGE) {
		take(from, from_name);
		take(to, to_name);
		add(from, from_name, target);
		add(to, to_name, source);
		return 0;
	}
	if (target) {
		if (S_ISDIR(source->mode) != S_ISDIR(target->mode))
			return S_ISDIR(source->mode) ? -ENOTDIR : -EISDIR;
		if (S_ISDIR(target->mode) && target->entries_nr)
			return -ENOTEMPTY;
		take(to, to_name);
		lost(target, ret_orphan);
	}
	take(from, from_name);
	add(to, to_name, source);
	if (flags & RENAME_WHITEOUT)
		return tm_create(tm, from, from_name, S_IFCHR, 0, 0, 0, 0, NULL, ret_whiteout);
	return 0;
}

/* --- comparing --- */

struct listing {
	struct tm_node *dir;
	unsigned entries, dots;
};

static int see_entry(void *arg, const struct ter_dirent *d)
{
	struct listing *l = arg;
	struct tm_node *node;

	assert_int_equal(strlen(d->name), d->name_bytes);
	assert_true(d->cookie < 1ull << 63);
	if (!strcmp(d->name, ".") || !strcmp(d->name, "..")) {
		/* The parent of one that was removed may be no more. */
		if (!d->name[1] || l->dir->nlink)
			assert_int_equal(d->node, d->name[1] ? l->dir->parent->node : l->dir->node);
		l->dots++;
		return 0;
	}
	node = tm_lookup(l->dir, d->name);
	if (!node)
		fprintf(stderr, "'%s' should not be there\n", d->name);
	assert_non_null(node);
	assert_int_equal(d->node, node->node);
	assert_int_equal(d->type, (node->mode & S_IFMT) >> 12);
	if (d->attr) {
		assert_int_equal(d->attr->mode, node->mode);
		assert_int_equal(d->attr->nlink, node->nlink);
		if (!S_ISDIR(node->mode))
			assert_int_equal(d->attr->size, node->size);
	}
	l->entries++;
	return 0;
}

static void compare_attr(struct tm_node *node, const struct ter_attr *attr)
{
	assert_int_equal(attr->node, node->node);
	assert_int_equal(attr->mode, node->mode);
	assert_int_equal(attr->uid, node->uid);
	assert_int_equal(attr->gid, node->gid);
	assert_int_equal(attr->nlink, node->nlink);
	assert_int_equal(attr->rdev, node->rdev);
	if (!S_ISDIR(node->mode))
		assert_int_equal(attr->size, node->size);
}

static void compare_xattrs(struct tm_node *node, struct ter_vfs *vfs)
{
	char list[1024];
	size_t bytes = 0;
	ssize_t r;

	for (unsigned i = 0; i < TM_XATTRS_MAX; i++) {
		static uint8_t value[70000];

		if (!node->xattr[i].used)
			continue;
		bytes += strlen(node->xattr[i].name) + 1;
		r = ter_vfs_getxattr(vfs, &root_op, node->node, node->xattr[i].name, value, sizeof(value));
		assert_int_equal(r, node->xattr[i].bytes);
		assert_memory_equal(value, node->xattr[i].value, node->xattr[i].bytes);
		assert_int_equal(ter_vfs_getxattr(vfs, &root_op, node->node, node->xattr[i].name, NULL, 0), r);
	}
	r = ter_vfs_listxattr(vfs, &root_op, node->node, list, sizeof(list));
	assert_int_equal(r, bytes);
	assert_int_equal(ter_vfs_listxattr(vfs, &root_op, node->node, NULL, 0), bytes);
}

static void compare_node(struct tm_node *node, struct ter_vfs *vfs)
{
	struct ter_attr attr;
	char target[TER_SYMLINK_MAX + 1];

	assert_int_equal(ter_vfs_getattr(vfs, &root_op, node->node, &attr), 0);
	compare_attr(node, &attr);
	compare_xattrs(node, vfs);
	if (S_ISREG(node->mode)) {
		static uint8_t data[TM_FILE_MAX + 10];

		assert_int_equal(read_all(vfs, node->node, data, sizeof(data)), node->size);
		if (memcmp(data, node->data, node->size))
			for (uint64_t i = 0; i < node->size; i++)
				if (data[i] != node->data[i]) {
					fprintf(stderr, "node %llx differs first at %llu of %llu: %02x, not %02x\n", (unsigned long long)node->node,
						(unsigned long long)i, (unsigned long long)node->size, data[i], node->data[i]);
					break;
				}
		assert_memory_equal(data, node->data, node->size);
	} else if (S_ISLNK(node->mode)) {
		assert_int_equal(ter_vfs_readlink(vfs, &root_op, node->node, target), 0);
		assert_string_equal(target, node->target);
	} else if (S_ISDIR(node->mode)) {
		for (unsigned with_attrs = 0; with_attrs < 2; with_attrs++) {
			struct listing l = { .dir = node };

			assert_int_equal(ter_vfs_readdir(vfs, &root_op, node->node, 0, with_attrs, see_entry, &l), 0);
			assert_int_equal(l.dots, 2);
			assert_int_equal(l.entries, node->entries_nr);
		}
		for (unsigned i = 0; i < node->entries_nr; i++) {
			assert_int_equal(ter_vfs_lookup(vfs, &root_op, node->node, node->entry[i].name, &attr), 0);
			assert_int_equal(attr.node, node->entry[i].node->node);
		}
	}
}

void tm_compare(struct tree_model *tm, struct ter_vfs *vfs)
{
	for (unsigned i = 0; i < TM_NODES_MAX; i++)
		if (tm->nodes[i].used)
			compare_node(&tm->nodes[i], vfs);
}

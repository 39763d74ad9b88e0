/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A Unix tree in plain memory, which does each operation the simple way and says what Linux would answer: the truth that the engine is compared with
 */
#ifndef TREE_MODEL_H
#define TREE_MODEL_H

#include "fs/vfs.h"

#define TM_NODES_MAX 600
#define TM_ENTRIES_MAX 200
#define TM_XATTRS_MAX 4
#define TM_FILE_MAX 70000

struct tm_node {
	bool used;
	uint64_t node;  /* the engine's */
	uint32_t mode, uid, gid, nlink, rdev;
	uint8_t *data;  /* regular: TM_FILE_MAX bytes */
	uint64_t size;
	uint64_t mtime_ns, ctime_ns; /* for whoever keeps them: the model has no clock */
	char *target;
	struct { char name[32]; uint8_t *value; size_t bytes; bool used; } xattr[TM_XATTRS_MAX];
	/* directories */
	struct { char *name; struct tm_node *node; } entry[TM_ENTRIES_MAX];
	unsigned entries_nr;
	struct tm_node *parent;
	bool held;      /* unlinked, not forgotten */
};
struct tree_model {
	struct tm_node nodes[TM_NODES_MAX];
	struct tm_node *root;
};

struct tree_model *tm_new(void);
void tm_free(struct tree_model *tm);
struct tm_node *tm_lookup(struct tm_node *dir, const char *name);
/* Each returns 0 or what Linux says. */
int tm_create(struct tree_model *tm, struct tm_node *dir, const char *name, uint32_t mode, uint32_t uid, uint32_t gid, uint32_t umask_bits, uint32_t rdev,
	      const char *target, struct tm_node **ret);
int tm_link(struct tm_node *node, struct tm_node *dir, const char *name);
int tm_unlink(struct tree_model *tm, struct tm_node *dir, const char *name, bool rmdir, struct tm_node **ret_orphan);
int tm_rename(struct tree_model *tm, struct tm_node *from, const char *from_name, struct tm_node *to, const char *to_name, unsigned flags,
	      struct tm_node **ret_orphan, struct tm_node **ret_whiteout);
void tm_drop(struct tree_model *tm, struct tm_node *node); /* forgotten */
/* The engine's tree is this one: names, kinds, attributes, contents, extended attributes. Asserts. */
void tm_compare(struct tree_model *tm, struct ter_vfs *vfs);

#endif

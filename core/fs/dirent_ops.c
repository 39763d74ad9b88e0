/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directory entries within transactions: finding, adding, taking away. */
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"
#include "journal/journal_encode.h"

int ter_name_check(const char *name, size_t *ret_bytes)
{
	size_t bytes = strnlen(name, TER_NAME_MAX + 1);

	if (!bytes)
		return -ENOENT;
	if (bytes > TER_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(name, '/', bytes))
		return -EINVAL;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return -EEXIST;
	*ret_bytes = bytes;
	return 0;
}

struct ter_pos ter_dirent_pos(struct ter_vfs *vfs, const struct ter_inode *dir, const char *name, size_t bytes)
{
	return TER_POS(dir->file.inum, ter_dirent_hash(vfs->config.sb->sb->hash_key, name, bytes), dir->file.snapshot);
}

/* The key with the name's hash, checked. -ENOENT: there is none (and @ret is set to stage over: absent). */
static int get_key(struct ter_trans *trans, struct ter_pos pos, struct ter_key *ret)
{
	int r = ter_trans_get(trans, TER_BTREE_DIRENTS, pos, ret);

	return r < 0 ? r : ter_dirents_check(ret);
}

int ter_dirent_find(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes, uint64_t *ret_inum, uint8_t *ret_type)
{
	struct ter_dent dent;
	struct ter_key key;
	int r;

	r = get_key(trans, pos, &key);
	if (r < 0)
		return r;
	r = ter_dirents_find(key.val, key.val_bytes, name, bytes, &dent);
	if (r < 0)
		return r;
	*ret_inum = dent.inum;
	*ret_type = dent.type;
	return 0;
}

static int put_key(struct ter_trans *trans, struct ter_pos pos, const struct ter_key *old, const void *val, int val_bytes)
{
	struct ter_key key = { .pos = pos, .type = TER_KEY_DIRENT, .val = val, .val_bytes = (uint32_t)val_bytes };

	return ter_trans_update(trans, TER_BTREE_DIRENTS, pos, old, val_bytes ? &key : NULL);
}

int ter_dirent_add(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes, uint64_t inum, uint8_t type)
{
	uint64_t val[TER_DIRENTS_VAL_MAX / 8 + 1];
	struct ter_key key;
	int r;

	r = get_key(trans, pos, &key);
	if (r == -ENOENT) {
		r = ter_dirents_insert(NULL, 0, name, bytes, inum, type, val);
		return r < 0 ? r : put_key(trans, pos, TER_KEY_ABSENT, val, r);
	}
	if (r < 0)
		return r;
	r = ter_dirents_insert(key.val, key.val_bytes, name, bytes, inum, type, val);
	return r < 0 ? r : put_key(trans, pos, &key, val, r);
}

int ter_dirent_remove(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes)
{
	uint64_t val[TER_DIRENTS_VAL_MAX / 8 + 1];
	struct ter_key key;
	int r;

	r = get_key(trans, pos, &key);
	if (r < 0)
		return r;
	r = ter_dirents_remove(key.val, key.val_bytes, name, bytes, val);
	return r < 0 ? r : put_key(trans, pos, &key, val, r);
}

int ter_dirent_replace(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes, uint64_t inum, uint8_t type)
{
	uint64_t val[TER_DIRENTS_VAL_MAX / 8 + 1];
	struct ter_key key;
	int r;

	r = get_key(trans, pos, &key);
	if (r < 0)
		return r;
	r = ter_dirents_replace(key.val, key.val_bytes, name, bytes, inum, type, val);
	return r < 0 ? r : put_key(trans, pos, &key, val, r);
}

int ter_dir_is_empty(struct ter_trans *trans, const struct ter_inode *dir)
{
	const struct ter_file *f = &dir->file;
	struct ter_key key;
	int r = ter_trans_next(trans, TER_BTREE_DIRENTS, TER_POS(f->inum, 0, f->snapshot), TER_POS(f->inum, UINT64_MAX, f->snapshot), &key);

	return r == -ENOENT ? 1 : r < 0 ? r : 0;
}

int ter_dir_may_change(const struct ter_inode_attr *dir, bool removing)
{
	if (!ter_attr_is_dir(dir))
		return -ENOTDIR;
	if (!dir->nlink)
		return -ENOENT;
	if (dir->flags & TER_INODE_IMMUTABLE || (removing && dir->flags & TER_INODE_APPEND))
		return -EPERM;
	return 0;
}

int ter_dir_lookup(struct ter_vfs *vfs, const struct ter_op *op, struct ter_inode *dir, const char *name, size_t bytes, uint64_t *ret_inum, uint8_t *ret_type)
{
	struct ter_trans trans;
	int r;

	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	ter_trans_init(&trans, vfs->config.btrees, ter_op_trans_flags(op));
	r = ter_dirent_find(&trans, ter_dirent_pos(vfs, dir, name, bytes), name, bytes, ret_inum, ret_type);
	ter_trans_exit(&trans);
	return r;
}

int ter_request_stage(struct ter_trans *trans, const struct ter_op *op, struct ter_request_stage *stage)
{
	struct ter_jrec_request request = { .incarnation = op->request[0], .unique = op->request[1], .result = 0 };

	_Static_assert(sizeof(stage->payload) == sizeof(struct ter_jrec_request_disk), "room for a REQUEST record");
	if (!op->request[0] && !op->request[1])
		return 0;
	ter_jrec_request_encode(&request, stage->payload);
	stage->iov = (struct iovec){ .iov_base = stage->payload, .iov_len = sizeof(stage->payload) };
	return ter_trans_log(trans, TER_JREC_REQUEST, &stage->iov, 1);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of directory entries' values: readable, each name once, each at its hash
 *
 * What a damaged value still says is kept where the name's hash confirms it: a name that was cut or changed with its neighbours would be believed otherwise. In a value of sound structure a
 * name at the wrong place is moved to its own: the name itself is all there is.
 */
#include "fs/vfs_repair_priv.h"

#define ENTRIES_MAX 64 /* of one damaged value that are looked at */

struct entry {
	const char *name;
	uint64_t inum, hash;
	unsigned name_bytes;
	uint8_t type;
	bool keep; /* here; else it is moved, unless its name is there already */
	bool drop;
};

struct names {
	struct ter_fixer *f;
	struct ter_pos pos;
	bool broken;    /* the value's structure, or the key's position */
	struct entry entry[ENTRIES_MAX];
	unsigned nr, doubles, strays;
};

/* The entry at *at as far as it can be read; 0: no more. An unknown type is made a file's: the inode says which it is. */
static int lenient_next(const struct ter_key *key, uint32_t *at, struct entry *ret)
{
	struct ter_dirent_disk disk;
	uint8_t copy[sizeof(disk) + 256];
	struct ter_dent dent;
	uint32_t pos = 0;

	if (*at > key->val_bytes || key->val_bytes - *at < sizeof(disk))
		return 0;
	memcpy(&disk, (const uint8_t *)key->val + *at, sizeof(disk));
	if (key->val_bytes - *at - sizeof(disk) < disk.name_bytes)
		return 0;
	*ret = (struct entry){ .name = (const char *)key->val + *at + sizeof(disk), .name_bytes = disk.name_bytes };
	*at += (uint32_t)sizeof(disk) + disk.name_bytes;
	disk.slot = disk.zero = 0;
	for (unsigned i = 0; i < 2; i++) {
		memcpy(copy, &disk, sizeof(disk));
		memcpy(copy + sizeof(disk), ret->name, ret->name_bytes);
		if (ter_dirents_next(copy, (uint32_t)sizeof(disk) + ret->name_bytes, &pos, &dent) > 0) {
			ret->inum = dent.inum;
			ret->type = dent.type;
			return 1;
		}
		disk.type = ter_mode_type(S_IFREG);
	}
	ret->drop = true;
	return 1;
}

static void look(struct names *n, const struct ter_key *key)
{
	const uint8_t *hash_key = n->f->vfs->config.sb->sb->hash_key;
	uint32_t at = 0;

	n->pos = key->pos;
	n->broken = ter_dirents_check(key) < 0 || !ter_fix_pos_valid(key->pos);
	if (key->type != TER_KEY_DIRENT || key->val_version)
		return;
	while (n->nr < ENTRIES_MAX && lenient_next(key, &at, &n->entry[n->nr])) {
		struct entry *e = &n->entry[n->nr++];

		e->hash = e->drop ? 0 : ter_dirent_hash(hash_key, e->name, e->name_bytes);
		e->keep = !e->drop && e->hash == key->pos.offset;
		for (unsigned i = 0; i + 1 < n->nr && !e->drop; i++)
			if (!n->entry[i].drop && n->entry[i].name_bytes == e->name_bytes && !memcmp(n->entry[i].name, e->name, e->name_bytes)) {
				e->drop = true;
				e->keep = false;
				n->doubles++;
			}
		if (n->broken && !e->keep)
			e->drop = true;
		n->strays += !e->keep && !e->drop;
	}
}

static int stage_here(struct ter_trans *trans, struct names *n, const struct ter_key *old)
{
	uint64_t val[2][TER_DIRENTS_VAL_MAX / 8 + 1];
	struct ter_key key = { .pos = n->pos, .type = TER_KEY_DIRENT, .val = val[0] };

	for (unsigned i = 0; ter_fix_pos_valid(n->pos) && i < n->nr; i++) {
		const struct entry *e = &n->entry[i];
		int r;

		if (!e->keep)
			continue;
		r = ter_dirents_insert(key.val, key.val_bytes, e->name, e->name_bytes, e->inum, e->type, key.val == val[0] ? val[1] : val[0]);
		if (r < 0)
			continue; /* no slot is left: the inode is found without a name */
		key.val = key.val == val[0] ? val[1] : val[0];
		key.val_bytes = (uint32_t)r;
	}
	return ter_trans_update(trans, TER_BTREE_DIRENTS, n->pos, old, key.val_bytes ? &key : NULL);
}

static int put_fn(struct ter_trans *trans, void *arg)
{
	struct names *n = arg;
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, TER_BTREE_DIRENTS, n->pos, &old);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = stage_here(trans, n, &old);
	for (unsigned i = 0; i < n->nr && r >= 0; i++) {
		const struct entry *e = &n->entry[i];

		/* A right place under a wrong snapshot counts as a stray, too. */
		if (e->drop || (e->keep && ter_fix_pos_valid(n->pos)) || !ter_fix_inum_valid(n->pos.inode))
			continue;
		r = ter_dirent_add(trans, TER_POS(n->pos.inode, e->hash, TER_SNAPSHOT_ROOT), e->name, e->name_bytes, e->inum, e->type);
		if (r == -EEXIST || r == -ENOSPC || r == -EUCLEAN)
			r = 0; /* the name is there, or its place comes later and is damaged: the inode is found without a name */
	}
	return r;
}

static int fix_key(struct ter_fixer *f, const struct ter_key *key, void *arg)
{
	struct names *n = arg;
	int r;

	*n = (struct names){ .f = f };
	look(n, key);
	if (n->broken)
		r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " has damaged entries at %" PRIx64 ": those that can still be read are kept.",
				    key->pos.inode, key->pos.offset);
	else if (n->strays)
		r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " has %u entries at the place of another name: they are put where they belong.",
				    key->pos.inode, n->strays);
	else if (n->doubles)
		r = ter_repair_want(f->repair, "dirents", "Directory %" PRIu64 " has a name twice: the first entry stays.", key->pos.inode);
	else
		return 0;
	if (r > 0)
		r = ter_fix_run(f, put_fn, n);
	return r < 0 ? r : 0;
}

int ter_fix_names(struct ter_fixer *f)
{
	_cleanup_free_ struct names *n = ter_new(struct names);

	return n ? ter_fix_each(f, TER_BTREE_DIRENTS, TER_POS_MIN, TER_POS_MAX, fix_key, n) : -ENOMEM;
}

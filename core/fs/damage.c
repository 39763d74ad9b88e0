/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Damaged files: which files lost data is remembered, so that it can be asked later: "what did I lose?"
 *
 * A read that finds no good copy notes its file. The note is made in the background, from a short list in memory: what does not fit is noted when it is read again. The record stands
 * under the inode's number, so it survives renames and restarts; it goes with the inode, or when somebody says that the file is good again.
 */
#include "fs/damage_format.h"
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"

#define AGAIN_NS ((int64_t)TER_NS_PER_S) /* a file found damaged again within this time is not written down again */
#define PATH_DEPTH_MAX 2048              /* PATH_MAX holds no more names */

/* --- the record --- */

static int damage_decode(const struct ter_key *key, struct ter_damage *ret)
{
	const struct ter_damage_disk *disk = key->val;
	static const uint8_t zero[sizeof(disk->zero)];

	if (key->type != TER_KEY_DAMAGE || key->val_bytes != sizeof(*disk) || key->pos.offset || memcmp(disk->zero, zero, sizeof(zero)) ||
	    !ter_le32_get(disk->times) || ter_le64_get(disk->offset_bytes) > INT64_MAX)
		return -EUCLEAN;
	*ret = (struct ter_damage){
		.inum = key->pos.inode, .offset_bytes = ter_le64_get(disk->offset_bytes), .first_ns = (int64_t)ter_le64_get(disk->first_ns),
		.last_ns = (int64_t)ter_le64_get(disk->last_ns), .times = ter_le32_get(disk->times),
	};
	return 0;
}

int ter_damage_check(const struct ter_key *key)
{
	struct ter_damage damage;

	return damage_decode(key, &damage);
}

int ter_damage_stage_gone(struct ter_trans *trans, struct ter_pos pos)
{
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, TER_BTREE_DAMAGED, pos, &old);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return ter_trans_update(trans, TER_BTREE_DAMAGED, pos, &old, NULL);
}

/* --- noting --- */

static int stage_note(struct ter_trans *trans, struct ter_pos pos, uint64_t offset_bytes, int64_t now)
{
	struct ter_damage damage = { .offset_bytes = offset_bytes, .first_ns = now };
	struct ter_damage_disk disk = { 0 };
	const struct ter_key key = { .pos = pos, .type = TER_KEY_DAMAGE, .val = &disk, .val_bytes = sizeof(disk) };
	struct ter_key old;
	int r;

	r = ter_trans_get(trans, TER_BTREE_DAMAGED, pos, &old);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r >= 0 && damage_decode(&old, &damage) >= 0 && damage.offset_bytes <= offset_bytes && now >= damage.last_ns && now - damage.last_ns < AGAIN_NS)
		return 0;
	disk.offset_bytes = ter_le64_make(ter_min(damage.offset_bytes, offset_bytes));
	disk.first_ns = ter_le64_make((uint64_t)damage.first_ns);
	disk.last_ns = ter_le64_make((uint64_t)now);
	disk.times = ter_le32_make(damage.times == UINT32_MAX ? damage.times : damage.times + 1);
	return ter_trans_update(trans, TER_BTREE_DAMAGED, pos, r < 0 ? TER_KEY_ABSENT : &old, &key);
}

int ter_vfs_stage_lost(struct ter_vfs *vfs, struct ter_trans *trans, struct ter_pos pos, uint64_t start_sector)
{
	if (pos.snapshot != TER_SNAPSHOT_ROOT || !pos.inode || pos.inode > TER_INUM_MAX)
		return 0;
	return stage_note(trans, TER_POS(pos.inode, 0, TER_SNAPSHOT_ROOT), ter_min(start_sector, (uint64_t)TER_FILE_SIZE_MAX >> TER_SECTOR_SHIFT) << TER_SECTOR_SHIFT,
			  ter_vfs_now(vfs));
}

struct note {
	struct ter_vfs *vfs;
	const struct ter_damage_note *what;
};

static int note_fn(struct ter_trans *trans, void *arg)
{
	const struct note *n = arg;
	const struct ter_pos pos = TER_POS(n->what->inum, 0, TER_SNAPSHOT_ROOT);
	struct ter_key inode;
	int r;

	r = ter_trans_get(trans, TER_BTREE_INODES, pos, &inode);
	if (r < 0)
		return r == -ENOENT ? 0 : r; /* deleted meanwhile */
	return stage_note(trans, pos, n->what->offset_bytes, ter_vfs_now(n->vfs));
}

static bool take_note(struct ter_vfs *vfs, struct ter_damage_note *ret)
{
	bool some;

	ter_lock_acquire(&vfs->damage_lock);
	some = vfs->damage_nr > 0;
	if (some)
		*ret = vfs->damage[--vfs->damage_nr];
	else
		vfs->damage_work_queued = false;
	ter_lock_release(&vfs->damage_lock);
	return some;
}

void ter_vfs_damage_work(struct ter_work *work)
{
	struct ter_vfs *vfs = ter_container_of(work, struct ter_vfs, damage_work);
	struct ter_damage_note what;

	while (take_note(vfs, &what)) {
		struct note n = { .vfs = vfs, .what = &what };

		if (!ter_vfs_is_read_only(vfs))
			(void)ter_trans_run(vfs->config.btrees, 0, note_fn, &n, NULL); /* what could not be noted is noted when it is read again */
	}
}

void ter_vfs_note_damage(struct ter_vfs *vfs, uint64_t inum, uint64_t offset_bytes)
{
	_cleanup_(ter_vfs_leavep) struct ter_inside_ref inside = ter_vfs_enter(vfs);
	bool queue = false;
	unsigned i;

	if (!inside.at)
		return;
	ter_lock_acquire(&vfs->damage_lock);
	for (i = 0; i < vfs->damage_nr && vfs->damage[i].inum != inum; i++)
		;
	if (i < vfs->damage_nr) {
		vfs->damage[i].offset_bytes = ter_min(vfs->damage[i].offset_bytes, offset_bytes);
	} else if (i < TER_DAMAGE_NOTES_MAX) {
		vfs->damage[vfs->damage_nr++] = (struct ter_damage_note){ inum, offset_bytes };
		queue = !vfs->damage_work_queued;
		vfs->damage_work_queued = true;
	}
	ter_lock_release(&vfs->damage_lock);
	if (queue)
		ter_workq_add(vfs->wq, &vfs->damage_work);
}

/* --- asking --- */

static int first_damage(void *arg, const struct ter_key *key)
{
	struct ter_damage *ret = arg;

	if (damage_decode(key, ret) < 0)
		*ret = (struct ter_damage){ .inum = key->pos.inode }; /* that it was noted is what counts */
	return 1;
}

int ter_vfs_next_damaged(struct ter_vfs *vfs, uint64_t from_inum, struct ter_damage *ret)
{
	const int r = ter_btree_scan(vfs->config.btrees, TER_BTREE_DAMAGED, TER_POS(from_inum, 0, 0), TER_POS_MAX, 0, first_damage, ret, NULL);

	return r < 0 ? r : r == 1 ? 0 : -ENOENT;
}

static int clear_fn(struct ter_trans *trans, void *arg)
{
	return ter_damage_stage_gone(trans, TER_POS(*(const uint64_t *)arg, 0, TER_SNAPSHOT_ROOT));
}

int ter_vfs_clear_damage(struct ter_vfs *vfs, uint64_t inum)
{
	TER_VFS_ENTER(vfs);
	return ter_trans_run(vfs->config.btrees, 0, clear_fn, &inum, NULL);
}

/* --- a file's name --- */

struct name {
	uint64_t inum;
	char text[TER_NAME_MAX + 1];
	bool found;
};

static int find_name(void *arg, const struct ter_key *key)
{
	struct name *name = arg;
	struct ter_dent dent;
	uint32_t pos = 0;

	while (ter_dirents_next(key->val, key->val_bytes, &pos, &dent) > 0)
		if (dent.inum == name->inum && dent.name_bytes <= TER_NAME_MAX) {
			memcpy(name->text, dent.name, dent.name_bytes);
			name->text[dent.name_bytes] = 0;
			name->found = true;
			return 1;
		}
	return 1;
}

int ter_vfs_path_of(struct ter_vfs *vfs, uint64_t inum, char *buf, size_t bytes)
{
	size_t at = bytes;
	int r;

	if (bytes < 2)
		return -ENAMETOOLONG;
	buf[--at] = 0;
	for (unsigned depth = 0; inum != TER_ROOT_INUM; depth++) {
		struct name name = { .inum = inum };
		struct ter_inode_attr attr;
		struct ter_pos pos;
		size_t n;

		r = ter_inode_read_key(vfs, TER_POS(inum, 0, TER_SNAPSHOT_ROOT), 0, &attr);
		if (r < 0)
			return r == -ESTALE ? -ENOENT : r;
		if (!attr.parent_inum || depth == PATH_DEPTH_MAX)
			return -ENOENT;
		pos = TER_POS(attr.parent_inum, attr.parent_offset, TER_SNAPSHOT_ROOT);
		r = ter_btree_scan(vfs->config.btrees, TER_BTREE_DIRENTS, pos, pos, 0, find_name, &name, NULL);
		if (r < 0)
			return r;
		if (!name.found)
			return -ENOENT;
		n = strlen(name.text);
		if (at < n + 1)
			return -ENAMETOOLONG;
		at -= n;
		memcpy(buf + at, name.text, n);
		buf[--at] = '/';
		inum = attr.parent_inum;
	}
	if (at == bytes - 1)
		buf[--at] = '/';
	memmove(buf, buf + at, bytes - at);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inodes: to and from bytes on disk, and to what a caller is told. */
#include "fs/vfs_priv.h"

void ter_inode_encode(const struct ter_inode_attr *attr, struct ter_inode_disk *ret)
{
	*ret = (struct ter_inode_disk){
		.mode = ter_le32_make(attr->mode),
		.uid = ter_le32_make(attr->uid),
		.gid = ter_le32_make(attr->gid),
		.nlink = ter_le32_make(attr->nlink),
		.rdev = ter_le32_make(attr->rdev),
		.generation = ter_le32_make(attr->generation),
		.flags = ter_le32_make(attr->flags),
		.project = ter_le32_make(attr->project),
		.size = ter_le64_make(attr->size),
		.sectors = ter_le64_make(attr->sectors),
		.atime_ns = ter_le64_make((uint64_t)attr->atime_ns),
		.mtime_ns = ter_le64_make((uint64_t)attr->mtime_ns),
		.ctime_ns = ter_le64_make((uint64_t)attr->ctime_ns),
		.btime_ns = ter_le64_make((uint64_t)attr->btime_ns),
		.parent_inum = ter_le64_make(attr->parent_inum),
		.parent_offset = ter_le64_make(attr->parent_offset),
	};
}

static bool type_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return true;
	default:
		return false;
	}
}

static bool plausible(const struct ter_inode_attr *a)
{
	if (!type_known(a->mode) || a->mode & ~(uint32_t)(S_IFMT | 07777))
		return false;
	if (a->nlink > TER_LINK_MAX + 2 || a->flags & ~(uint32_t)(TER_INODE_FLAGS_SETTABLE | TER_IFLAGS))
		return false;
	if (a->size > (uint64_t)TER_FILE_SIZE_MAX || a->sectors > (uint64_t)TER_FILE_SIZE_MAX >> TER_SECTOR_SHIFT)
		return false;
	if (S_ISLNK(a->mode) && (a->size == 0 || a->size > TER_SYMLINK_MAX))
		return false;
	if (!S_ISREG(a->mode) && !S_ISDIR(a->mode) && !S_ISLNK(a->mode) && a->size)
		return false;
	return a->parent_inum <= TER_INUM_MAX;
}

int ter_inode_decode(const struct ter_key *key, struct ter_inode_attr *ret)
{
	const struct ter_inode_disk *disk = key->val;
	struct ter_inode_attr a;

	if (key->type != TER_KEY_INODE || key->val_version || key->val_bytes != sizeof(*disk) || key->pos.offset || !key->pos.inode ||
	    key->pos.inode > TER_INUM_MAX)
		return -EUCLEAN;
	for (unsigned i = 0; i < sizeof(disk->zero); i++)
		if (disk->zero[i])
			return -EUCLEAN;
	a = (struct ter_inode_attr){
		.mode = ter_le32_get(disk->mode),
		.uid = ter_le32_get(disk->uid),
		.gid = ter_le32_get(disk->gid),
		.nlink = ter_le32_get(disk->nlink),
		.rdev = ter_le32_get(disk->rdev),
		.generation = ter_le32_get(disk->generation),
		.flags = ter_le32_get(disk->flags),
		.project = ter_le32_get(disk->project),
		.size = ter_le64_get(disk->size),
		.sectors = ter_le64_get(disk->sectors),
		.atime_ns = (int64_t)ter_le64_get(disk->atime_ns),
		.mtime_ns = (int64_t)ter_le64_get(disk->mtime_ns),
		.ctime_ns = (int64_t)ter_le64_get(disk->ctime_ns),
		.btime_ns = (int64_t)ter_le64_get(disk->btime_ns),
		.parent_inum = ter_le64_get(disk->parent_inum),
		.parent_offset = ter_le64_get(disk->parent_offset),
	};
	if (!plausible(&a))
		return -EUCLEAN;
	*ret = a;
	return 0;
}

static struct timespec timespec_of(int64_t ns)
{
	int64_t s = ns / (int64_t)TER_NS_PER_S, rest = ns % (int64_t)TER_NS_PER_S;

	if (rest < 0) {
		rest += (int64_t)TER_NS_PER_S;
		s--;
	}
	return (struct timespec){ .tv_sec = s, .tv_nsec = rest };
}

int64_t ter_ns_of(struct timespec ts)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)ts.tv_sec, (int64_t)TER_NS_PER_S, &ns) || __builtin_add_overflow(ns, (int64_t)ts.tv_nsec, &ns))
		return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

void ter_inode_to_attr(const struct ter_inode_attr *attr, uint64_t inum, uint64_t dirty_bytes, uint32_t blksize, struct ter_attr *ret)
{
	*ret = (struct ter_attr){
		.node = TER_NODE(1, inum),
		.generation = attr->generation,
		.mode = attr->mode,
		.nlink = attr->nlink,
		.uid = attr->uid,
		.gid = attr->gid,
		.rdev = attr->rdev,
		.size = ter_attr_is_dir(attr) ? attr->size * TER_DIR_ENTRY_BYTES : attr->size,
		.blocks = attr->sectors + ter_round_up(dirty_bytes, TER_SECTOR_BYTES) / TER_SECTOR_BYTES,
		.blksize = blksize,
		.atime = timespec_of(attr->atime_ns),
		.mtime = timespec_of(attr->mtime_ns),
		.ctime = timespec_of(attr->ctime_ns),
		.btime = timespec_of(attr->btime_ns),
		.flags = attr->flags & TER_INODE_FLAGS_SETTABLE,
	};
}

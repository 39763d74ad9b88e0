/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files and directories: what a kernel's VFS asks of a filesystem
 *
 * An inode in memory (`struct ter_inode`) is a cache entry: attributes, the inode lock, dirty data. Node ids are stateless: subvolume << 40 | inode number; the root is
 * TER_NODE_ROOT. Numbers are never reused; siblings get neighbouring ones (a directory reserves runs of TER_INUM_RUN).
 *
 *   V1  Every operation is one transaction (truncate and the reaping of big files are several, resumable through DELETED_INODES).
 *   V2  Inode locks are taken in order of inode number, RENAME lock first where a directory moves; held across the transaction. With NOWAIT a contended one is -EAGAIN.
 *   V3  nlink equals the directory entries (directories: 2 + subdirectories). An inode with nlink 0 is in DELETED_INODES until reaped.
 *   V4  An unlinked inode is reaped when ter_vfs_forget() said that nobody outside holds it, or at the next start.
 *   V5  ctime and mtime change as Linux has them: mtime of a file by write and truncate, of a directory by entries; ctime by all and by attributes.
 *   V6  A directory entry's cookie is stable while other entries come and go.
 * Permission checks are the kernel's (default_permissions); what the kernel does not check (sticky directories are; ownership of new inodes, set-gid inheritance,
 * clearing of set-id bits on write/chown/truncate when asked by flags) is done here.
 */
#ifndef TER_VFS_H
#define TER_VFS_H

#include <sys/stat.h>

#include "data/data.h"

#define TER_ROOT_INUM 1ull
#define TER_INUM_FIRST 4096ull
#define TER_INUM_RUN 32u
#define TER_INUM_MAX ((1ull << 40) - 1)
#define TER_NODE(subvol, inum) ((uint64_t)(subvol) << 40 | (inum))
#define TER_NODE_ROOT TER_NODE(1, TER_ROOT_INUM)
#define TER_NAME_MAX 255
#define TER_SYMLINK_MAX 4095
#define TER_LINK_MAX 1000000000u
#define TER_FILE_SIZE_MAX ((int64_t)INT64_MAX)

struct ter_vfs;

/* Who asks. */
struct ter_op {
	uint32_t uid, gid;
	uint32_t umask;
	bool nowait;     /* -EAGAIN before anything was changed where it would wait */
	bool noatime;    /* looking moves no access time */
	bool kill_priv;  /* this write/truncate/chown must clear set-id bits and security.capability */
	uint64_t request[2]; /* mount incarnation and unique: recorded with changes that cannot be repeated; 0: none */
};

struct ter_attr {
	uint64_t node;
	uint32_t generation;
	uint32_t mode, nlink, uid, gid, rdev;
	uint64_t size, blocks /* 512 bytes */;
	uint32_t blksize;
	struct timespec atime, mtime, ctime, btime;
	uint32_t flags; /* TER_INODE_* */
	bool dirty;     /* data waits to be written back: blocks is a guess, to be asked again soon */
};

/* Flags that people set (chattr): the numbers of FS_*_FL in linux/fs.h. */
enum {
	TER_INODE_SYNC = 0x08,
	TER_INODE_IMMUTABLE = 0x10, /* no change at all, no links: -EPERM */
	TER_INODE_APPEND = 0x20,    /* writing at the end only; a directory: no entry goes */
	TER_INODE_NODUMP = 0x40,
	TER_INODE_NOATIME = 0x80,
};
#define TER_INODE_FLAGS_SETTABLE (TER_INODE_SYNC | TER_INODE_IMMUTABLE | TER_INODE_APPEND | TER_INODE_NODUMP | TER_INODE_NOATIME)

struct ter_vfs_config {
	struct ter_exec *exec;
	struct ter_sb_handle *sb;
	struct ter_btrees *btrees;
	struct ter_alloc *alloc;
	struct ter_data *data;
	struct ter_journal *journal;
	uint64_t next_inum;  /* first number not used by anything durable */
	size_t cache_bytes;  /* inodes in memory */
	bool read_only;
};
int ter_vfs_new(const struct ter_vfs_config *config, struct ter_vfs **ret_vfs);
void ter_vfs_free(struct ter_vfs *vfs); /* everything written back before; NULL is fine */
void ter_vfs_set_journal(struct ter_vfs *vfs, struct ter_journal *journal, bool read_only);
/*
 * On the way to read-only: new writers get -EROFS, those inside have finished when this returns, and a sync waits until it is known that all was written (ter_vfs_closed(), from whoever
 * writes it) or that writing goes on (ter_vfs_set_journal(), ter_vfs_refuse_writes()).
 */
void ter_vfs_close_writes(struct ter_vfs *vfs);
void ter_vfs_closed(struct ter_vfs *vfs);
void ter_vfs_refuse_writes(struct ter_vfs *vfs);   /* after an error: every change, and sync, is -EROFS from now on. From any task; never waits */
int ter_vfs_format(struct ter_vfs *vfs);           /* fresh pool: the root directory */
uint64_t ter_vfs_next_inum(struct ter_vfs *vfs);   /* bound below which every number in use lies (for clean stop and CLOCK records) */
int ter_vfs_write_inodes(struct ter_vfs *vfs);     /* commits attributes that are only in memory (lazy times, sizes) */
int ter_vfs_reap_orphans(struct ter_vfs *vfs);     /* at start, after replay, and after a time read-only: finish truncates and deletions of what nobody holds */
/* Recovery: the file whose data the journal holds (referenced until ter_vfs_replay_put()). -ENOENT: no such inode (any more). */
int ter_vfs_replay_file(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot, struct ter_file **ret_file);
void ter_vfs_replay_put(struct ter_vfs *vfs, struct ter_file *file);
void ter_vfs_replay_put(struct ter_vfs *vfs, struct ter_file *file); /* gives the reference back; dirty data keeps the file by itself */

/* --- operations. All return 0 or a negative errno as Linux has it. @ret_attr may be NULL. --- */
/* Also "." (of any inode: how a handle is opened; -ESTALE: it has no name any more) and ".." (of directories). */
int ter_vfs_lookup(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, struct ter_attr *ret_attr);
int ter_vfs_getattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, struct ter_attr *ret_attr);
enum {
	TER_SET_MODE = 1 << 0, TER_SET_UID = 1 << 1, TER_SET_GID = 1 << 2, TER_SET_SIZE = 1 << 3, TER_SET_ATIME = 1 << 4, TER_SET_MTIME = 1 << 5,
	TER_SET_ATIME_NOW = 1 << 6, TER_SET_MTIME_NOW = 1 << 7, TER_SET_CTIME = 1 << 8, TER_SET_FLAGS = 1 << 9,
};
/* @valid 0, or TER_SET_CTIME, with kill_priv: only that, and ctime. */
int ter_vfs_setattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const struct ter_attr *attr, unsigned valid, struct ter_attr *ret_attr);
/* Any kind by the type bits of @mode: regular, directory, symlink (@target), fifo, socket, device (@rdev). */
int ter_vfs_create(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, uint32_t mode, uint32_t rdev, const char *target,
		   struct ter_attr *ret_attr);
int ter_vfs_tmpfile(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, uint32_t mode, struct ter_attr *ret_attr); /* nlink 0 until linked */
int ter_vfs_link(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, uint64_t parent, const char *name, struct ter_attr *ret_attr);
/* *ret_orphan (may be NULL): the node whose last link went, to be forgotten by the caller when nobody holds it; 0: none. */
int ter_vfs_unlink(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, uint64_t *ret_orphan);
int ter_vfs_rmdir(struct ter_vfs *vfs, const struct ter_op *op, uint64_t parent, const char *name, uint64_t *ret_orphan);
/* @flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT (linux/fs.h); others -EINVAL. */
int ter_vfs_rename(struct ter_vfs *vfs, const struct ter_op *op, uint64_t old_parent, const char *old_name, uint64_t new_parent, const char *new_name,
		   unsigned flags, uint64_t *ret_orphan);
int ter_vfs_readlink(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, char buf[TER_SYMLINK_MAX + 1]);
/*
 * Entries after @cookie (0: from the start, "." and ".." first). cb returns 1 when its buffer is full (that entry will be given again). @attrs: each with attributes (readdirplus), read in
 * runs of neighbouring inodes; an entry whose inode vanished is left out. cb runs with no lock of core held.
 */
struct ter_dirent {
	const char *name; /* name_bytes long, NUL-terminated */
	unsigned name_bytes;
	uint64_t node;
	uint8_t type;     /* DT_* */
	uint64_t cookie;  /* where to go on after this entry; < 2^63 */
	const struct ter_attr *attr; /* NULL unless asked for; NULL for "." and ".." */
};
int ter_vfs_readdir(struct ter_vfs *vfs, const struct ter_op *op, uint64_t dir, uint64_t cookie, bool attrs, int (*cb)(void *arg, const struct ter_dirent *dirent), void *arg);

/* 1: written, and the file is one to be synced before the caller answers (TER_INODE_SYNC). */
int ter_vfs_write(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, uint64_t offset, const struct iovec *iov, unsigned iov_nr, bool append);
/* read->file is filled here; see data.h. relatime/noatime rules apply as @atime says. */
int ter_vfs_read(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, struct ter_read *read, bool atime);
int ter_vfs_fsync_async(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, bool datasync, struct ter_journal_waiter *waiter); /* directories too */
int ter_vfs_fallocate(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, int mode, uint64_t offset, uint64_t bytes); /* 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others -EOPNOTSUPP */
int ter_vfs_lseek(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, uint64_t offset, int whence, uint64_t *ret_offset);

/* Names with their prefix ("user.x"); namespaces user, trusted, security, system (posix_acl_access/default stored as given). @size 0: ask for the length. -ERANGE, -ENODATA, -EEXIST, -E2BIG. */
int ter_vfs_setxattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const char *name, const void *value, size_t size, int flags);
ssize_t ter_vfs_getxattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const char *name, void *value, size_t size);
ssize_t ter_vfs_listxattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, char *list, size_t size); /* trusted.* only for uid 0 */
/* -ENODATA; an ACL that is not there is removed all the same, as Linux has it. */
int ter_vfs_removexattr(struct ter_vfs *vfs, const struct ter_op *op, uint64_t node, const char *name);

/* Nobody outside holds @node any more: if it is unlinked it is reaped (in the background when big). Never waits. */
void ter_vfs_forget(struct ter_vfs *vfs, uint64_t node);

/*
 * Files of which data is known to be lost. A read that found no good copy notes its file, in the background and not when read-only; the file stays noted, through restarts and
 * renames, until it is deleted or somebody says that it is good again.
 */
struct ter_damage {
	uint64_t inum;
	uint64_t offset_bytes;     /* lowest place found lost */
	int64_t first_ns, last_ns; /* when it was found, since 1970 */
	uint32_t times;            /* 0: the note itself is damaged */
};
/* Repair: into the transaction that gives up data of the file that @pos is of, from @start_sector on. The inode may be made later; a note of none that exists is removed by ter_vfs_repair(). */
int ter_vfs_stage_lost(struct ter_vfs *vfs, struct ter_trans *trans, struct ter_pos pos, uint64_t start_sector);
void ter_vfs_note_damage(struct ter_vfs *vfs, uint64_t inum, uint64_t offset_bytes); /* from any task; never waits */
int ter_vfs_next_damaged(struct ter_vfs *vfs, uint64_t from_inum, struct ter_damage *ret); /* the first with a number >= @from_inum; -ENOENT */
int ter_vfs_clear_damage(struct ter_vfs *vfs, uint64_t inum); /* fine if it is not noted; -EROFS */
/* A path that leads to the inode, from the root ("/a/b"). -ENOENT: none is known (unlinked, or found only under another name); -ENAMETOOLONG. */
int ter_vfs_path_of(struct ter_vfs *vfs, uint64_t inum, char *buf, size_t bytes);

/* Data and inodes of everything acknowledged before are committed and durable when waiter is told. */
int ter_vfs_sync(struct ter_vfs *vfs);

/*
 * fsck: every relation between inodes, directory entries, attributes, extents and counters, as the btrees hold them. What changes meanwhile is seen as of
 * different moments: a sentence counts when a second check says it again. @report (pass, sentence) is called once a contradiction, @step between two batches of keys (-ECANCELED from it ends the check); both may be NULL.
 * Memory: 24 bytes an inode, half of @memory_bytes at most (0: of the default): more inodes are done in turns. Return: number of contradictions, or a negative errno.
 */
#define TER_CHECK_MEMORY_DEFAULT TER_MIB(128)
typedef void (*ter_vfs_check_report)(void *arg, const char *pass, const char *sentence);
typedef int (*ter_vfs_check_step)(void *arg, const char *phase, uint64_t done, uint64_t total);
int64_t ter_vfs_check(struct ter_vfs *vfs, uint64_t memory_bytes, ter_vfs_check_report report, void *report_arg, ter_vfs_check_step step, void *step_arg);

#endif

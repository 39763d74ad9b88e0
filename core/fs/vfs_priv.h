/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inodes in memory and what the files of this room share
 *
 * Who owns which field of an inode. The INODE key in the btree is the truth for everything but the *lazy* fields: atime, mtime, ctime and (regular files) size, which may be newer in memory;
 * `lazy` says so, and then the inode is in the vfs' list of lazy inodes, which holds a reference.
 *
 *   N1  An operation that changes an inode holds its lock for writing over its transaction; in it, it starts from the key (lazy fields: from memory) and puts the result into memory
 *       when the transaction is committed. So under the lock memory is the key, but for lazy fields.
 *   N2  Write-back stages the key without the inode's lock. It takes lazy fields from memory and everything else from the key as its own transaction read it: it can lose no
 *       operation's change, whichever commits first. Only ter_vfs_write_inodes() (under the inode's lock) says that an inode is not lazy any more.
 *   N3  sectors is changed by deltas only, on disk (stage) and in memory (committed).
 *   N4  An inode whose nlink is 0 has one reference of its own until it is reaped, linked again, or the vfs is freed.
 * Locks: RENAME, then inodes in order of number, then file->lock (DIRTY), then LEAF ones: attr_lock, a shard's, lazy_lock, reap_lock.
 */
#ifndef TER_VFS_PRIV_H
#define TER_VFS_PRIV_H

#include <stdatomic.h>

#include "alloc/accounting.h"
#include "fs/inode_format.h"
#include "fs/vfs.h"
#include "util/mem.h"

#define TER_INODE_SHARDS 64u
#define TER_INODE_LOCKS_MAX 16u       /* inodes locked together */
#define TER_NAMES_RETRIES_MAX 1000u   /* how often an operation looks names up again that changed before it had the locks */
#define TER_DIR_DEPTH_MAX (1u << 24)
#define TER_DIR_ENTRY_BYTES 32u       /* st_size of a directory, per entry */
#define TER_FILE_END (1ull << 63)     /* beyond every byte of a file, a multiple of every block */
#define TER_NAMES_CHANGED (-ENOTUNIQ) /* internal: look up again */

struct ter_inode_attr {
	uint32_t mode, uid, gid, nlink, rdev, generation;
	uint32_t flags; /* TER_INODE_*, TER_IFLAG_* */
	uint32_t project;
	uint64_t size, sectors;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint64_t parent_inum, parent_offset;
};

struct ter_inode {
	struct ter_vfs *vfs;
	struct ter_file file; /* inum, snapshot, dirty data */
	uint32_t type;        /* S_IFMT bits of the mode; never changes once others can see it */

	/* the shard's lock */
	struct ter_list hash_link, clock_link;
	uint32_t refs;
	bool hot;      /* used since the clock's hand passed */
	bool loading;  /* being read: wait on the shard's queue */
	bool unhashed; /* not to be found any more; freed with the last reference */
	int load_error;

	struct ter_rwlock lock;       /* rank INODE */
	struct ter_lock attr_lock;    /* rank LEAF; guards what follows against those without `lock` */
	struct ter_inode_attr attr;
	bool lazy;                    /* lazy fields in memory are newer than the key */
	bool gone;                    /* reaped: the key is deleted; set with `lock` held, too */
	uint64_t changes;             /* counts changes of lazy fields */
	int64_t ctime_before_ns;      /* newest ctime that memory had before the clock was set back */
	bool times_kept;              /* write-back left the key's times as they were, since they looked newer */
	uint64_t size_pending;        /* how far a write in progress reaches; 0: none */

	uint64_t run_next, run_end;   /* `lock`; numbers reserved for what is created in this directory */
	_Atomic unsigned dirty_nr;    /* references of the dirty buffer: it holds data */

	struct ter_list lazy_link;    /* lazy_lock */
	bool on_lazy;
	struct ter_list reap_link;    /* reap_lock */
	bool orphan;                  /* has the reference of N4 */
	bool reap_queued;
};

struct ter_inode_shard {
	struct ter_lock lock; /* rank LEAF */
	struct ter_waitq wq;  /* a load has ended */
	struct ter_list *buckets;
	struct ter_list clock;
	size_t nr;
};

#define TER_DAMAGE_NOTES_MAX 32 /* more are noted when they are read again */
struct ter_damage_note {
	uint64_t inum, offset_bytes;
};

/*
 * Operations that may change something are counted from their look at `read_only` to their end: who goes read-only waits for those inside, since what they do after
 * everything was written back would be in no journal. By thread, so that threads do not share a cache line.
 */
#define TER_INSIDE_SHARDS 16
struct ter_inside {
	_Atomic uint32_t nr;
	uint8_t pad[60];
};

struct ter_vfs {
	struct ter_vfs_config config;
	_Atomic(struct ter_journal *) journal;
	_Atomic bool read_only;
	_Atomic bool refused;       /* ter_vfs_refuse_writes() */
	_Atomic bool closing;       /* read-only, but not all is written yet */
	struct ter_inside inside[TER_INSIDE_SHARDS];
	struct ter_lock inside_lock; /* rank LEAF */
	struct ter_waitq inside_wq;  /* somebody left while it is read-only */
	struct ter_lock rename_lock; /* rank RENAME: where directories get another parent */

	struct ter_inode_shard shard[TER_INODE_SHARDS];
	unsigned bucket_bits;        /* per shard */
	size_t shard_inodes_max;
	_Atomic uint64_t evicted_seq; /* newest journal sequence of any inode that left the cache */

	_Atomic uint64_t next_inum;   /* not given out yet */
	_Atomic uint64_t inum_bound;  /* what CLOCK records say: above every number in use */
	_Atomic uint64_t inum_logged; /* what is known to stand in the journal */

	struct ter_lock lazy_pass_lock; /* rank RENAME: one ter_vfs_write_inodes() at a time; held while it waits */
	struct ter_lock lazy_lock; /* rank LEAF */
	struct ter_list lazy_list;
	size_t lazy_nr;
	bool lazy_work_queued;
	struct ter_work lazy_work;

	struct ter_lock reap_lock; /* rank LEAF */
	struct ter_list reap_list;
	bool reap_work_queued;
	struct ter_work reap_work;

	struct ter_lock damage_lock; /* rank LEAF */
	struct ter_damage_note damage[TER_DAMAGE_NOTES_MAX];
	unsigned damage_nr;
	bool damage_work_queued;
	struct ter_work damage_work;
	struct ter_workq *wq; /* what has time: lazy attributes, reaping, notes of damage */
};

static inline bool ter_vfs_is_read_only(struct ter_vfs *vfs)
{
	return atomic_load_explicit(&vfs->read_only, memory_order_relaxed) || atomic_load_explicit(&vfs->refused, memory_order_relaxed);
}
/* Enter and leave; NULL: read-only, nothing to leave. Never waits. */
struct ter_inside_ref {
	struct ter_vfs *vfs;
	struct ter_inside *at;
};
void ter_vfs_wake_drain(struct ter_vfs *vfs);
static inline void ter_vfs_leavep(struct ter_inside_ref *ref)
{
	if (!ref->at)
		return;
	atomic_fetch_sub(&ref->at->nr, 1);
	if (ter_unlikely(atomic_load(&ref->vfs->read_only)))
		ter_vfs_wake_drain(ref->vfs);
}
static inline struct ter_inside_ref ter_vfs_enter(struct ter_vfs *vfs)
{
	struct ter_inside_ref ref = { .vfs = vfs };

	/* Stacks of threads lie far apart. */
	ref.at = &vfs->inside[((uint64_t)(uintptr_t)__builtin_frame_address(0) >> 16) * 0x9e3779b97f4a7c15ull >> 60];
	atomic_fetch_add(&ref.at->nr, 1);
	if (ter_unlikely(atomic_load(&vfs->read_only) || atomic_load(&vfs->refused))) {
		ter_vfs_leavep(&ref);
		ref.at = NULL;
	}
	return ref;
}
/* At the head of an operation: -EROFS, or inside until the function returns. */
#define TER_VFS_ENTER(vfs)                                                                                             \
	_cleanup_(ter_vfs_leavep) struct ter_inside_ref inside_ref_ = ter_vfs_enter(vfs);                        \
	if (!inside_ref_.at)                                                                                           \
		return -EROFS
static inline int64_t ter_vfs_now(struct ter_vfs *vfs)
{
	return ter_real_ns(vfs->config.exec);
}
static inline unsigned ter_op_trans_flags(const struct ter_op *op)
{
	return op->nowait ? TER_TRANS_NOWAIT : 0;
}
static inline struct ter_inode *ter_inode_of(struct ter_file *file)
{
	return ter_container_of(file, struct ter_inode, file);
}
static inline struct ter_pos ter_inode_pos(const struct ter_inode *inode)
{
	return TER_POS(inode->file.inum, 0, inode->file.snapshot);
}
static inline uint64_t ter_inode_node(const struct ter_inode *inode)
{
	return TER_NODE(1, inode->file.inum);
}
static inline uint8_t ter_mode_type(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12); /* DT_* */
}
static inline bool ter_attr_is_dir(const struct ter_inode_attr *attr)
{
	return S_ISDIR(attr->mode);
}

/* --- inode_disk.c --- */
void ter_inode_encode(const struct ter_inode_attr *attr, struct ter_inode_disk *ret);
int ter_inode_decode(const struct ter_key *key, struct ter_inode_attr *ret); /* hostile: -EUCLEAN */
void ter_inode_to_attr(const struct ter_inode_attr *attr, uint64_t inum, uint64_t dirty_bytes, uint32_t blksize, struct ter_attr *ret);
int64_t ter_ns_of(struct timespec ts); /* clamped to what the disk holds */

/* --- inode.c --- */
int ter_inodes_init(struct ter_vfs *vfs);
void ter_inodes_destroy(struct ter_vfs *vfs);
void ter_inodes_drop(struct ter_vfs *vfs); /* forgets all that nobody holds: keys were changed behind them */
int ter_node_parse(uint64_t node, uint64_t *ret_inum, uint32_t *ret_snapshot); /* -ESTALE */
/* Takes a reference. -ESTALE: no such inode; -EAGAIN with @nowait. */
int ter_inode_get(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot, bool nowait, struct ter_inode **ret);
int ter_inode_get_node(struct ter_vfs *vfs, uint64_t node, bool nowait, struct ter_inode **ret);
struct ter_inode *ter_inode_find(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot); /* only what is in memory */
void ter_inode_ref(struct ter_inode *inode);
void ter_inode_put(struct ter_inode *inode); /* NULL is fine; may be called from completions */
void ter_inode_putp(struct ter_inode **inode);
/* A new one that nobody can find yet, with one reference; then known to all. If the key was read by somebody meanwhile, that inode is used and returned. */
struct ter_inode *ter_inode_new(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot);
struct ter_inode *ter_inode_publish(struct ter_inode *inode);
void ter_inode_unhash(struct ter_inode *inode);
/* The lock. -EAGAIN (nowait and contended), -ESTALE (gone). */
int ter_inode_lock(struct ter_inode *inode, bool nowait);
void ter_inode_unlock(struct ter_inode *inode);
int ter_inode_lock_shared(struct ter_inode *inode, bool nowait);
void ter_inode_unlock_shared(struct ter_inode *inode);
/* Several for writing, in order of number; @inodes is sorted, doubles and NULLs are dropped from it, *nr is adjusted. */
int ter_inodes_lock(struct ter_inode **inodes, unsigned *nr, bool nowait);
void ter_inodes_unlock(struct ter_inode **inodes, unsigned nr);
struct ter_inode_attr ter_inode_attr(struct ter_inode *inode); /* a copy as of one moment */
void ter_inode_fill(struct ter_inode *inode, struct ter_attr *ret);
int ter_inode_read_key(struct ter_vfs *vfs, struct ter_pos pos, unsigned flags, struct ter_inode_attr *ret);

/* --- inode_stage.c --- */
extern const struct ter_file_ops ter_vfs_file_ops;
/* The key as the transaction sees it, and what a change starts from (N1). -ESTALE: no key. */
int ter_inode_stage_begin(struct ter_trans *trans, struct ter_inode *inode, struct ter_key *ret_old, struct ter_inode_attr *ret_attr);
int ter_inode_stage_end(struct ter_trans *trans, struct ter_inode *inode, const struct ter_key *old, const struct ter_inode_attr *attr);
/* After the commit, with the lock held: @attr into memory (but sectors; size of a regular file only with @with_size). */
void ter_inode_committed(struct ter_inode *inode, const struct ter_inode_attr *attr, bool with_size, uint64_t seq);
void ter_inode_set_size(struct ter_inode *inode, uint64_t size);
void ter_inode_note_seq(struct ter_inode *inode, uint64_t seq);
/* Lazy fields were changed in memory (attr_lock not held). */
void ter_inode_mark_lazy(struct ter_inode *inode);
void ter_inode_touch_atime(struct ter_inode *inode); /* relatime; only in memory */
int ter_inode_write(struct ter_inode *inode, unsigned flags); /* commits lazy fields; takes the lock for reading */
void ter_vfs_lazy_work(struct ter_work *work);

/* --- damage.c --- */
void ter_vfs_damage_work(struct ter_work *work);
int ter_damage_stage_gone(struct ter_trans *trans, struct ter_pos pos); /* @pos: the inode's; fine if there is none */
int ter_damage_check(const struct ter_key *key);                       /* hostile: -EUCLEAN */

/* --- inum.c --- */
uint64_t ter_inum_take(struct ter_inode *dir); /* the directory's lock is held for writing; 0: all numbers are used up */
/* A transaction that brings @inum into use. */
struct ter_inum_stage {
	uint64_t bound;
	uint8_t payload[24];
	struct iovec iov;
};
int ter_inum_stage(struct ter_vfs *vfs, struct ter_trans *trans, uint64_t inum, struct ter_inum_stage *stage);
void ter_inum_committed(struct ter_vfs *vfs, const struct ter_inum_stage *stage);
void ter_inum_raise(struct ter_vfs *vfs, uint64_t inum); /* repair: @inum is in use */

/* --- dirent_ops.c: entries within transactions --- */
int ter_name_check(const char *name, size_t *ret_bytes); /* -ENOENT empty, -ENAMETOOLONG, -EINVAL, -EEXIST for "." and ".." */
struct ter_pos ter_dirent_pos(struct ter_vfs *vfs, const struct ter_inode *dir, const char *name, size_t bytes);
/* -ENOENT */
int ter_dirent_find(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes, uint64_t *ret_inum, uint8_t *ret_type);
int ter_dirent_add(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes, uint64_t inum, uint8_t type);     /* -EEXIST */
int ter_dirent_remove(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes);                               /* -ENOENT */
int ter_dirent_replace(struct ter_trans *trans, struct ter_pos pos, const char *name, size_t bytes, uint64_t inum, uint8_t type); /* -ENOENT */
int ter_dir_is_empty(struct ter_trans *trans, const struct ter_inode *dir); /* 1, 0, or a negative errno */
/* Outside a transaction: what @name in @dir is now. -ENOENT, -ENOTDIR, -ESTALE. */
int ter_dir_lookup(struct ter_vfs *vfs, const struct ter_op *op, struct ter_inode *dir, const char *name, size_t bytes, uint64_t *ret_inum, uint8_t *ret_type);
int ter_dir_may_change(const struct ter_inode_attr *dir, bool removing); /* -ENOTDIR, -ENOENT (removed), -EPERM */
struct ter_request_stage {
	uint8_t payload[24];
	struct iovec iov;
};
int ter_request_stage(struct ter_trans *trans, const struct ter_op *op, struct ter_request_stage *stage);

/* --- namei.c: a new inode, for create, tmpfile and whiteouts --- */
struct ter_new_inode {
	struct ter_inode *inode;
	struct ter_inode_attr attr;
	struct ter_inum_stage inum;
};
int ter_new_inode_init(struct ter_inode *dir, const struct ter_op *op, uint32_t mode, uint32_t rdev, int64_t now, struct ter_new_inode *ret);
int ter_new_inode_stage(struct ter_trans *trans, struct ter_new_inode *new_inode);

/* --- xattr.c --- */
/* In a transaction: one attribute's value; valid until the transaction is reset. -ENODATA. */
int ter_xattr_read(struct ter_trans *trans, struct ter_inode *inode, const char *name, const void **ret_value, size_t *ret_bytes);
/* Stage setting (value NULL: removing, -ENODATA if not there). @flags XATTR_CREATE, XATTR_REPLACE. Does not touch the inode's key. */
int ter_xattr_stage(struct ter_trans *trans, struct ter_inode *inode, const char *name, const void *value, size_t bytes, int flags);
/* Stage deleting at most @max keys; returns how many, or a negative errno. */
int ter_xattrs_stage_delete(struct ter_trans *trans, struct ter_pos inode, unsigned max);

/* --- orphan.c --- */
int ter_orphan_stage(struct ter_trans *trans, struct ter_inode *inode, bool add); /* DELETED_INODES key; either way fine if it is so already */
void ter_orphan_pin(struct ter_inode *inode);   /* N4, after the commit */
void ter_orphan_unpin(struct ter_inode *inode); /* linked again */
void ter_vfs_reap_work(struct ter_work *work);
void ter_vfs_reap_queued(struct ter_vfs *vfs); /* what was forgotten while read-only */

/* --- vfs_check.c --- */
/* A key in the extents btree: can it be a file's? -EUCLEAN. */
int ter_file_key_check(struct ter_vfs *vfs, const struct ter_key *key);

/* --- attr.c --- */
int ter_inode_kill_priv(struct ter_inode *inode, unsigned flags); /* with the lock: set-id bits and security.capability go, if there are any */
bool ter_inode_has_priv(const struct ter_inode_attr *attr);

#endif

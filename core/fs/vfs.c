/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files and directories: life of the room, syncing all, and what recovery asks. */
#include "fs/vfs_priv.h"

void ter_vfs_free(struct ter_vfs *vfs)
{
	if (!vfs)
		return;
	ter_workq_free(vfs->wq);
	/* After a halt some are left whose attributes were never written; those deleted meanwhile are held by this list only. */
	while (!ter_list_empty(&vfs->lazy_list)) {
		struct ter_inode *inode = ter_list_first(&vfs->lazy_list, struct ter_inode, lazy_link);

		ter_list_del(&inode->lazy_link);
		ter_inode_put(inode);
	}
	ter_inodes_destroy(vfs);
	ter_lock_destroy(&vfs->rename_lock);
	ter_lock_destroy(&vfs->lazy_pass_lock);
	ter_lock_destroy(&vfs->lazy_lock);
	ter_lock_destroy(&vfs->reap_lock);
	ter_lock_destroy(&vfs->damage_lock);
	ter_waitq_destroy(&vfs->inside_wq);
	ter_lock_destroy(&vfs->inside_lock);
	free(vfs);
}

int ter_vfs_new(const struct ter_vfs_config *config, struct ter_vfs **ret_vfs)
{
	struct ter_vfs *vfs = ter_new(struct ter_vfs);
	int r;

	if (!vfs)
		return -ENOMEM;
	vfs->config = *config;
	atomic_init(&vfs->journal, config->journal);
	atomic_init(&vfs->read_only, config->read_only);
	atomic_init(&vfs->next_inum, ter_max((uint64_t)TER_INUM_FIRST, config->next_inum));
	ter_lock_init(&vfs->rename_lock, TER_RANK_RENAME);
	ter_lock_init(&vfs->lazy_pass_lock, TER_RANK_RENAME);
	ter_lock_init(&vfs->lazy_lock, TER_RANK_LEAF);
	ter_lock_init(&vfs->reap_lock, TER_RANK_LEAF);
	ter_lock_init(&vfs->damage_lock, TER_RANK_LEAF);
	ter_lock_init(&vfs->inside_lock, TER_RANK_LEAF);
	ter_waitq_init(&vfs->inside_wq);
	ter_list_init(&vfs->lazy_list);
	ter_list_init(&vfs->reap_list);
	vfs->lazy_work.fn = ter_vfs_lazy_work;
	vfs->reap_work.fn = ter_vfs_reap_work;
	vfs->damage_work.fn = ter_vfs_damage_work;
	r = ter_inodes_init(vfs);
	if (r >= 0)
		r = ter_workq_new(config->exec, "ter-vfs", 1, &vfs->wq);
	if (r < 0) {
		ter_vfs_free(vfs);
		return r;
	}
	*ret_vfs = vfs;
	return 0;
}

void ter_vfs_wake_drain(struct ter_vfs *vfs)
{
	ter_lock_acquire(&vfs->inside_lock);
	ter_waitq_wake_all(&vfs->inside_wq);
	ter_lock_release(&vfs->inside_lock);
}

static void drain_inside(struct ter_vfs *vfs)
{
	ter_lock_acquire(&vfs->inside_lock);
	for (unsigned i = 0; i < TER_INSIDE_SHARDS; i++)
		while (atomic_load(&vfs->inside[i].nr)) /* those who come now leave at once */
			ter_waitq_wait(&vfs->inside_wq, &vfs->inside_lock);
	ter_lock_release(&vfs->inside_lock);
}

void ter_vfs_set_journal(struct ter_vfs *vfs, struct ter_journal *journal, bool read_only)
{
	atomic_store(&vfs->journal, journal);
	atomic_store(&vfs->read_only, read_only);
	if (read_only) {
		drain_inside(vfs);
		ter_workq_drain(vfs->wq); /* what was forgotten before is reaped */
	} else {
		ter_vfs_closed(vfs);
		ter_vfs_reap_queued(vfs); /* what was forgotten meanwhile */
	}
}

void ter_vfs_close_writes(struct ter_vfs *vfs)
{
	atomic_store(&vfs->closing, true);
	ter_vfs_set_journal(vfs, atomic_load(&vfs->journal), true);
}

void ter_vfs_closed(struct ter_vfs *vfs)
{
	atomic_store(&vfs->closing, false);
	ter_vfs_wake_drain(vfs);
}

static void wait_closed(struct ter_vfs *vfs)
{
	ter_lock_acquire(&vfs->inside_lock);
	while (atomic_load(&vfs->closing) && !atomic_load(&vfs->refused))
		ter_waitq_wait(&vfs->inside_wq, &vfs->inside_lock);
	ter_lock_release(&vfs->inside_lock);
}

void ter_vfs_refuse_writes(struct ter_vfs *vfs)
{
	atomic_store(&vfs->refused, true);
	ter_vfs_wake_drain(vfs);
}

/* --- the root --- */

struct format {
	struct ter_vfs *vfs;
	struct ter_new_inode root;
};

static int format_fn(struct ter_trans *trans, void *arg)
{
	struct format *f = arg;

	return ter_new_inode_stage(trans, &f->root);
}

int ter_vfs_format(struct ter_vfs *vfs)
{
	const int64_t now = ter_vfs_now(vfs);
	struct format f = { .vfs = vfs };
	int r;

	f.root = (struct ter_new_inode){
		.inode = ter_inode_new(vfs, TER_ROOT_INUM, TER_SNAPSHOT_ROOT),
		.attr = {
			.mode = S_IFDIR | 0755, .nlink = 2, .parent_inum = TER_ROOT_INUM,
			.atime_ns = now, .mtime_ns = now, .ctime_ns = now, .btime_ns = now,
		},
	};
	if (!f.root.inode)
		return -ENOMEM;
	r = ter_trans_run(vfs->config.btrees, 0, format_fn, &f, NULL);
	if (r >= 0)
		ter_inum_committed(vfs, &f.root.inum);
	f.root.inode->unhashed = true; /* found by its key from now on */
	ter_inode_put(f.root.inode);
	return r < 0 ? r : 0;
}

/* --- all of it --- */

static int sync_inside(struct ter_vfs *vfs)
{
	_cleanup_(ter_vfs_leavep) struct ter_inside_ref inside = ter_vfs_enter(vfs);
	struct ter_journal *journal = atomic_load(&vfs->journal);
	int r;

	if (atomic_load(&vfs->refused))
		return -EROFS; /* what was changed before will never be durable */
	if (!inside.at && atomic_load(&vfs->closing))
		return -EINPROGRESS;
	if (!inside.at || !journal)
		return 0; /* nothing was changed, or all was written */
	r = ter_data_flush_all(vfs->config.data);
	if (r < 0)
		return r;
	r = ter_vfs_write_inodes(vfs);
	if (r < 0)
		return r;
	return ter_journal_flush(journal, ter_journal_open_seq(journal));
}

int ter_vfs_sync(struct ter_vfs *vfs)
{
	int r;

	while ((r = sync_inside(vfs)) == -EINPROGRESS)
		wait_closed(vfs);
	return r;
}

/* --- recovery --- */

int ter_vfs_replay_file(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot, struct ter_file **ret_file)
{
	struct ter_inode *inode;
	int r;

	r = ter_inode_get(vfs, inum, snapshot, false, &inode);
	if (r < 0)
		return r == -ESTALE ? -ENOENT : r;
	if (!S_ISREG(inode->type)) {
		ter_inode_put(inode);
		return -EUCLEAN;
	}
	*ret_file = &inode->file;
	return 0;
}

void ter_vfs_replay_put(struct ter_vfs *vfs, struct ter_file *file)
{
	(void)vfs;
	ter_inode_put(ter_inode_of(file));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cache of inodes: finding, loading, referencing, locking and dropping them. */
#include "fs/vfs_priv.h"

/* Looked at for dropping, each time an inode goes in or is let go. */
#define CLOCK_STEPS 8

static uint64_t hash_of(uint64_t inum, uint32_t snapshot)
{
	/* Neighbouring numbers go to different shards. */
	return (inum + ((uint64_t)snapshot << 40)) * 0x9e3779b97f4a7c15ull;
}

static struct ter_inode_shard *shard_of(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot)
{
	return &vfs->shard[hash_of(inum, snapshot) >> 58];
}

static struct ter_list *bucket_of(struct ter_vfs *vfs, struct ter_inode_shard *shard, uint64_t inum, uint32_t snapshot)
{
	return &shard->buckets[hash_of(inum, snapshot) << 6 >> (64 - vfs->bucket_bits)];
}

int ter_inodes_init(struct ter_vfs *vfs)
{
	_Static_assert(TER_INODE_SHARDS == 64, "hash_of() >> 58");
	const size_t max = ter_max(vfs->config.cache_bytes / sizeof(struct ter_inode) / TER_INODE_SHARDS, (size_t)4);

	vfs->shard_inodes_max = max;
	vfs->bucket_bits = ter_max(ter_log2(max), 1u);
	for (unsigned i = 0; i < TER_INODE_SHARDS; i++) {
		struct ter_inode_shard *shard = &vfs->shard[i];

		ter_lock_init(&shard->lock, TER_RANK_LEAF);
		ter_waitq_init(&shard->wq);
		ter_list_init(&shard->clock);
	}
	for (unsigned i = 0; i < TER_INODE_SHARDS; i++) {
		struct ter_inode_shard *shard = &vfs->shard[i];

		shard->buckets = ter_new_array(struct ter_list, (size_t)1 << vfs->bucket_bits);
		if (!shard->buckets)
			return -ENOMEM;
		for (size_t b = 0; b < (size_t)1 << vfs->bucket_bits; b++)
			ter_list_init(&shard->buckets[b]);
	}
	return 0;
}

static void inode_free(struct ter_inode *inode)
{
	ter_file_destroy(&inode->file);
	ter_rwlock_destroy(&inode->lock);
	ter_lock_destroy(&inode->attr_lock);
	free(inode);
}

void ter_inodes_destroy(struct ter_vfs *vfs)
{
	for (unsigned i = 0; i < TER_INODE_SHARDS; i++) {
		struct ter_inode_shard *shard = &vfs->shard[i];

		while (!ter_list_empty(&shard->clock)) {
			struct ter_inode *inode = ter_list_first(&shard->clock, struct ter_inode, clock_link);

			ter_list_del(&inode->clock_link);
			inode_free(inode);
		}
		free(shard->buckets);
		ter_waitq_destroy(&shard->wq);
		ter_lock_destroy(&shard->lock);
	}
}

static void note_evicted(struct ter_vfs *vfs, uint64_t seq)
{
	uint64_t old = atomic_load(&vfs->evicted_seq);

	while (old < seq && !atomic_compare_exchange_weak(&vfs->evicted_seq, &old, seq))
		;
}

void ter_inodes_drop(struct ter_vfs *vfs)
{
	for (unsigned i = 0; i < TER_INODE_SHARDS; i++) {
		struct ter_inode_shard *shard = &vfs->shard[i];
		struct ter_inode *inode, *next;

		ter_lock_acquire(&shard->lock);
		for (inode = ter_list_first(&shard->clock, struct ter_inode, clock_link); &inode->clock_link != &shard->clock; inode = next) {
			next = ter_list_entry(inode->clock_link.next, struct ter_inode, clock_link);
			if (inode->refs)
				continue;
			ter_list_del(&inode->clock_link);
			ter_list_del(&inode->hash_link);
			shard->nr--;
			note_evicted(vfs, inode->file.last_seq);
			inode_free(inode);
		}
		ter_lock_release(&shard->lock);
	}
}

int ter_node_parse(uint64_t node, uint64_t *ret_inum, uint32_t *ret_snapshot)
{
	if (node >> 40 != 1 || !(node & TER_INUM_MAX))
		return -ESTALE;
	*ret_inum = node & TER_INUM_MAX;
	*ret_snapshot = TER_SNAPSHOT_ROOT;
	return 0;
}

/* --- finding --- */

static struct ter_inode *find_locked(struct ter_vfs *vfs, struct ter_inode_shard *shard, uint64_t inum, uint32_t snapshot)
{
	struct ter_list *bucket = bucket_of(vfs, shard, inum, snapshot);
	struct ter_inode *inode;

	ter_list_for_each(inode, bucket, hash_link)
		if (inode->file.inum == inum && inode->file.snapshot == snapshot)
			return inode;
	return NULL;
}

/* The clock's hand: takes one inode that nobody uses out of the shard, or none. The shard's lock is held. */
static struct ter_inode *evict_locked(struct ter_vfs *vfs, struct ter_inode_shard *shard)
{
	for (unsigned i = 0; i < CLOCK_STEPS && shard->nr > vfs->shard_inodes_max && !ter_list_empty(&shard->clock); i++) {
		struct ter_inode *inode = ter_list_entry(shard->clock.prev, struct ter_inode, clock_link);

		ter_list_del(&inode->clock_link);
		if (inode->refs || inode->hot) {
			inode->hot = false;
			ter_list_add(&shard->clock, &inode->clock_link);
			continue;
		}
		ter_list_del(&inode->hash_link);
		shard->nr--;
		/* Before the key can be read again, so that a sync of the next copy waits for what this one did. */
		note_evicted(vfs, inode->file.last_seq);
		return inode;
	}
	return NULL;
}

static void insert_locked(struct ter_vfs *vfs, struct ter_inode_shard *shard, struct ter_inode *inode)
{
	ter_list_add(bucket_of(vfs, shard, inode->file.inum, inode->file.snapshot), &inode->hash_link);
	ter_list_add(&shard->clock, &inode->clock_link);
	shard->nr++;
}

struct ter_inode *ter_inode_new(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot)
{
	struct ter_inode *inode = ter_new(struct ter_inode);

	if (!inode)
		return NULL;
	inode->vfs = vfs;
	inode->refs = 1;
	ter_file_init(&inode->file, &ter_vfs_file_ops, inum, snapshot, 0);
	ter_list_init(&inode->hash_link);
	ter_list_init(&inode->clock_link);
	ter_list_init(&inode->lazy_link);
	ter_list_init(&inode->reap_link);
	ter_rwlock_init(&inode->lock, TER_RANK_INODE);
	ter_lock_init(&inode->attr_lock, TER_RANK_LEAF);
	return inode;
}

int ter_inode_read_key(struct ter_vfs *vfs, struct ter_pos pos, unsigned flags, struct ter_inode_attr *ret)
{
	struct ter_trans trans;
	struct ter_key key;
	int r;

	ter_trans_init(&trans, vfs->config.btrees, flags);
	r = ter_trans_get(&trans, TER_BTREE_INODES, pos, &key);
	if (r >= 0)
		r = ter_inode_decode(&key, ret);
	ter_trans_exit(&trans);
	return r == -ENOENT ? -ESTALE : r;
}

/* Fills an inode that stands in the cache as `loading`, and tells who waits for it. */
static int load(struct ter_vfs *vfs, struct ter_inode_shard *shard, struct ter_inode *inode, bool nowait)
{
	int r = ter_inode_read_key(vfs, ter_inode_pos(inode), nowait ? TER_TRANS_NOWAIT : 0, &inode->attr);

	ter_lock_acquire(&shard->lock);
	inode->loading = false;
	inode->load_error = r;
	if (r < 0) {
		ter_list_del(&inode->hash_link);
		ter_list_del(&inode->clock_link);
		shard->nr--;
		inode->unhashed = true;
	} else {
		inode->type = inode->attr.mode & S_IFMT;
		inode->file.size = inode->attr.size;
		inode->file.last_seq = atomic_load(&vfs->evicted_seq);
	}
	ter_waitq_wake_all(&shard->wq);
	ter_lock_release(&shard->lock);
	if (r < 0)
		ter_inode_put(inode);
	return r;
}

/* With the shard's lock, and a reference. Returns without the lock. */
static int wait_loaded(struct ter_inode_shard *shard, struct ter_inode *inode, bool nowait)
{
	int r = 0;

	if (inode->loading && nowait)
		r = -EAGAIN;
	while (inode->loading && !nowait)
		ter_waitq_wait(&shard->wq, &shard->lock);
	if (r >= 0)
		r = inode->load_error;
	ter_lock_release(&shard->lock);
	if (r < 0)
		ter_inode_put(inode);
	return r;
}

int ter_inode_get(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot, bool nowait, struct ter_inode **ret)
{
	struct ter_inode_shard *shard = shard_of(vfs, inum, snapshot);
	struct ter_inode *inode, *fresh, *evicted = NULL;
	int r;

again:
	ter_lock_acquire(&shard->lock);
	inode = find_locked(vfs, shard, inum, snapshot);
	if (ter_likely(inode)) {
		inode->refs++;
		inode->hot = true;
		if (ter_likely(!inode->loading)) {
			ter_lock_release(&shard->lock);
			*ret = inode;
			return 0;
		}
		r = wait_loaded(shard, inode, nowait);
		if (r == -EAGAIN && !nowait)
			goto again; /* it was loaded by one who would not wait */
		if (r >= 0)
			*ret = inode;
		return r;
	}
	ter_lock_release(&shard->lock);

	fresh = ter_inode_new(vfs, inum, snapshot);
	if (!fresh)
		return -ENOMEM;
	fresh->loading = true;
	ter_lock_acquire(&shard->lock);
	if (find_locked(vfs, shard, inum, snapshot)) {
		ter_lock_release(&shard->lock);
		inode_free(fresh);
		goto again;
	}
	insert_locked(vfs, shard, fresh);
	evicted = evict_locked(vfs, shard);
	ter_lock_release(&shard->lock);
	if (evicted)
		inode_free(evicted);

	r = load(vfs, shard, fresh, nowait);
	if (r < 0)
		return r;
	*ret = fresh;
	return 0;
}

int ter_inode_get_node(struct ter_vfs *vfs, uint64_t node, bool nowait, struct ter_inode **ret)
{
	uint64_t inum;
	uint32_t snapshot;
	int r = ter_node_parse(node, &inum, &snapshot);

	return r < 0 ? r : ter_inode_get(vfs, inum, snapshot, nowait, ret);
}

struct ter_inode *ter_inode_find(struct ter_vfs *vfs, uint64_t inum, uint32_t snapshot)
{
	struct ter_inode_shard *shard = shard_of(vfs, inum, snapshot);
	struct ter_inode *inode;

	ter_lock_acquire(&shard->lock);
	inode = find_locked(vfs, shard, inum, snapshot);
	if (inode && inode->loading)
		inode = NULL;
	if (inode)
		inode->refs++;
	ter_lock_release(&shard->lock);
	return inode;
}

struct ter_inode *ter_inode_publish(struct ter_inode *inode)
{
	struct ter_vfs *vfs = inode->vfs;
	struct ter_inode_shard *shard = shard_of(vfs, inode->file.inum, inode->file.snapshot);
	struct ter_inode *other, *evicted = NULL;

	for (;;) {
		ter_lock_acquire(&shard->lock);
		other = find_locked(vfs, shard, inode->file.inum, inode->file.snapshot);
		if (!other) {
			insert_locked(vfs, shard, inode);
			evicted = evict_locked(vfs, shard);
			ter_lock_release(&shard->lock);
			if (evicted)
				inode_free(evicted);
			return inode;
		}
		other->refs++;
		if (wait_loaded(shard, other, false) >= 0)
			break;
		/* A load that failed is out of the cache again: ours goes in. */
	}
	ter_inode_note_seq(other, inode->file.last_seq);
	inode_free(inode);
	return other;
}

/* --- references --- */

void ter_inode_ref(struct ter_inode *inode)
{
	struct ter_inode_shard *shard = shard_of(inode->vfs, inode->file.inum, inode->file.snapshot);

	ter_lock_acquire(&shard->lock);
	inode->refs++;
	ter_lock_release(&shard->lock);
}

void ter_inode_put(struct ter_inode *inode)
{
	struct ter_inode_shard *shard;
	struct ter_inode *drop = NULL;

	if (!inode)
		return;
	shard = shard_of(inode->vfs, inode->file.inum, inode->file.snapshot);
	ter_lock_acquire(&shard->lock);
	assert(inode->refs);
	if (--inode->refs == 0) {
		if (inode->unhashed)
			drop = inode;
		else
			drop = evict_locked(inode->vfs, shard);
	}
	ter_lock_release(&shard->lock);
	if (drop)
		inode_free(drop);
}

void ter_inode_putp(struct ter_inode **inode)
{
	ter_inode_put(*inode);
}

void ter_inode_unhash(struct ter_inode *inode)
{
	struct ter_inode_shard *shard = shard_of(inode->vfs, inode->file.inum, inode->file.snapshot);

	ter_lock_acquire(&shard->lock);
	if (!inode->unhashed) {
		ter_list_del(&inode->hash_link);
		ter_list_del(&inode->clock_link);
		shard->nr--;
		inode->unhashed = true;
	}
	ter_lock_release(&shard->lock);
}

/* --- the lock --- */

int ter_inode_lock(struct ter_inode *inode, bool nowait)
{
	if (!nowait)
		ter_rwlock_write(&inode->lock);
	else if (!ter_rwlock_try_write(&inode->lock))
		return -EAGAIN;
	if (ter_unlikely(inode->gone)) {
		ter_rwlock_write_release(&inode->lock);
		return -ESTALE;
	}
	return 0;
}

void ter_inode_unlock(struct ter_inode *inode)
{
	ter_rwlock_write_release(&inode->lock);
}

int ter_inode_lock_shared(struct ter_inode *inode, bool nowait)
{
	if (!nowait)
		ter_rwlock_read(&inode->lock);
	else if (!ter_rwlock_try_read(&inode->lock))
		return -EAGAIN;
	if (ter_unlikely(inode->gone)) {
		ter_rwlock_read_release(&inode->lock);
		return -ESTALE;
	}
	return 0;
}

void ter_inode_unlock_shared(struct ter_inode *inode)
{
	ter_rwlock_read_release(&inode->lock);
}

static unsigned sort_inodes(struct ter_inode **inodes, unsigned nr)
{
	unsigned out = 0;

	for (unsigned i = 0; i < nr; i++) {
		struct ter_inode *inode = inodes[i];
		unsigned at = out;

		if (!inode)
			continue;
		while (at && inodes[at - 1]->file.inum > inode->file.inum)
			at--;
		if (at && inodes[at - 1] == inode)
			continue;
		memmove(&inodes[at + 1], &inodes[at], (out - at) * sizeof(inodes[0]));
		inodes[at] = inode;
		out++;
	}
	return out;
}

int ter_inodes_lock(struct ter_inode **inodes, unsigned *nr, bool nowait)
{
	*nr = sort_inodes(inodes, *nr);
	for (unsigned i = 0; i < *nr; i++) {
		int r = ter_inode_lock(inodes[i], nowait);

		if (r < 0) {
			ter_inodes_unlock(inodes, i);
			return r;
		}
	}
	return 0;
}

void ter_inodes_unlock(struct ter_inode **inodes, unsigned nr)
{
	while (nr--)
		ter_inode_unlock(inodes[nr]);
}

struct ter_inode_attr ter_inode_attr(struct ter_inode *inode)
{
	struct ter_inode_attr attr;

	ter_lock_acquire(&inode->attr_lock);
	attr = inode->attr;
	ter_lock_release(&inode->attr_lock);
	return attr;
}

void ter_inode_fill(struct ter_inode *inode, struct ter_attr *ret)
{
	struct ter_inode_attr attr = ter_inode_attr(inode);
	uint64_t dirty_bytes = 0;

	if (atomic_load_explicit(&inode->dirty_nr, memory_order_relaxed)) {
		ter_lock_acquire(&inode->file.lock);
		dirty_bytes = inode->file.dirty_bytes;
		ter_lock_release(&inode->file.lock);
	}
	ter_inode_to_attr(&attr, inode->file.inum, dirty_bytes, inode->vfs->config.sb->sb->options.block_size, ret);
	ret->dirty = dirty_bytes != 0;
}

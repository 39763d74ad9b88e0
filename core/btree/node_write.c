/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing dirty nodes: appending what changed to where they are
 *
 * A batch: under each node's lock, encode its dirty keys; with no lock, have the journal flushed up to the newest of them, write all bsets to all replicas in parallel; then
 * one transaction tells the parents, and the old pins go. A node to which nothing can be appended is written anew (interior.c).
 *
 * Where a replica misses a bset, one of an append that was never told of may lie: right in its checksum and node_seq, so nothing would show that it is not the one meant. A crash
 * leaves such bsets behind nodes of the run before; hence of those an append is told of only if no replica missed it. A failed append leaves one behind its node;
 * hence nothing is appended there any more.
 */
#include "btree/btree_priv.h"

struct write_op {
	struct ter_node *node;
	struct ter_node_ptrs ptrs; /* as they will be */
	struct ter_node_write_io io;
	uint64_t newest_seq;
	uint32_t keys_bytes, keys_nr;
	bool is_root, good;
	struct ter_node_ref ref;
};

struct batch {
	struct ter_btrees *bt;
	struct write_op op[TER_WRITE_BATCH_MAX];
	unsigned nr;
	struct ter_node_ref again[TER_WRITE_BATCH_MAX]; /* to be written anew */
	unsigned again_nr;
};

/* --- snapshot --- */

static bool appendable(const struct ter_node *node)
{
	const struct ter_btrees *bt = node->tree->bt;

	if (!node->ptrs.nr || node->must_rewrite || (node->keys.live_bytes > bt->split_bytes && node->keys.live_nr > 1))
		return false;
	return node->ptrs.sectors_written + ter_bset_sectors(&bt->geo, false, node->keys.dirty_bytes) <= bt->geo.node_bytes >> TER_SECTOR_SHIFT;
}

/* The node's lock is held. */
static int snapshot(struct batch *b, struct ter_node *node, const struct ter_node_ref *ref)
{
	struct write_op *op = &b->op[b->nr];
	uint32_t sectors = node->keys.dirty_nr ? ter_bset_sectors(&b->bt->geo, false, node->keys.dirty_bytes) : 0;

	*op = (struct write_op){ .node = node, .ptrs = node->ptrs, .newest_seq = node->newest_seq, .keys_bytes = node->keys.dirty_bytes,
				 .ref = *ref };
	op->io = (struct ter_node_write_io){ .ptrs = &op->ptrs, .offset_sectors = node->ptrs.sectors_written, .sectors = sectors };
	op->ptrs.sectors_written += sectors;
	if (sectors) {
		op->io.buf = ter_malloc_aligned(sectors << TER_SECTOR_SHIFT, ter_node_buf_align(b->bt));
		if (!op->io.buf)
			return -ENOMEM;
		op->keys_nr = ter_keyset_snap_dirty(&node->keys, (uint8_t *)op->io.buf + sizeof(struct ter_bset_disk));
	}
	b->nr++;
	return 0;
}

static int begin(struct batch *b, const struct ter_node_ref *ref)
{
	struct ter_btrees *bt = b->bt;
	struct ter_node *node;
	bool ours, append;
	int r;

	r = ter_descend(ref->tree, ref->level, ref->pos, TER_DESCEND_WRITE, NULL, &node, NULL);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	append = appendable(node);
	ter_lock_acquire(&bt->cache_lock);
	ours = node->dirty && !node->claimed;
	if (ours && append) {
		node->claimed = true;
		ter_node_snap_begin(node);
	}
	ter_lock_release(&bt->cache_lock);
	if (ours && append) {
		r = snapshot(b, node, ref);
		if (r < 0) {
			ter_node_snap_end(node, false);
			ter_node_unclaim(node);
		}
	} else if (ours) {
		b->again[b->again_nr++] = *ref;
	}
	ter_node_unlock_write(node);
	return r;
}

/* --- disk --- */

static int write_bsets(struct batch *b)
{
	struct ter_node_write_io ios[TER_WRITE_BATCH_MAX];
	uint64_t newest_seq = 0;
	unsigned nr = 0;
	bool enough;
	char pos[64];
	int r;

	for (unsigned i = 0; i < b->nr; i++)
		if (b->op[i].io.sectors)
			newest_seq = ter_max(newest_seq, b->op[i].newest_seq);
	r = newest_seq ? ter_journal_flush(b->bt->journal, newest_seq) : 0; /* T7 */
	if (r < 0)
		return r;
	for (unsigned i = 0; i < b->nr; i++) {
		struct write_op *op = &b->op[i];

		if (!op->io.sectors)
			continue;
		ter_bset_finish(&b->bt->geo, op->io.buf, NULL, op->ptrs.node_seq, op->newest_seq, op->keys_bytes, op->keys_nr);
		ios[nr++] = op->io;
	}
	r = ter_node_write_all(b->bt, ios, nr);
	if (r < 0)
		return r;
	nr = 0;
	for (unsigned i = 0; i < b->nr; i++) {
		struct write_op *op = &b->op[i];

		if (op->io.sectors)
			op->io.landed = ios[nr++].landed;
		enough = !op->io.sectors || ter_node_landed(b->bt, &op->io);
		op->good = enough && (op->io.landed == op->ptrs.nr || !op->io.sectors || op->ptrs.node_seq >= b->bt->sure_node_seq);
		if (op->good) {
			atomic_fetch_add_explicit(&b->bt->writes, 1, memory_order_relaxed);
			atomic_fetch_add_explicit(&b->bt->write_bytes, (uint64_t)op->io.sectors << TER_SECTOR_SHIFT, memory_order_relaxed);
			continue;
		}
		if (enough) {
			b->again[b->again_nr++] = op->ref; /* there is room: each ref is an op or here */
			continue;
		}
		r = -EIO;
		ter_btrees_error(b->bt, r, "Btree %s: the node of level %u up to %s could be written to no more than %u of its %u members.",
				 ter_btree_names[op->node->tree->id], op->node->level, ter_pos_text(op->node->max, pos), op->io.landed, op->ptrs.nr);
	}
	return r;
}

/* --- parents --- */

static int stage_parents(struct batch *b, struct ter_trans *trans)
{
	int r = 0;

	for (unsigned i = 0; i < b->nr && r == 0; i++) {
		const struct write_op *op = &b->op[i];

		if (op->good && op->io.sectors && !op->is_root)
			r = ter_trans_stage_ptrs(trans, op->node->tree->id, op->node->level + 1u, op->node->max, &op->ptrs);
	}
	return r;
}

static int tell_parents(struct batch *b)
{
	struct ter_trans trans;
	int r = -EBUSY;

	ter_trans_init(&trans, b->bt, TER_TRANS_RECLAIM);
	for (unsigned tries = 0; tries < TER_TRANS_RESTARTS_MAX; tries++) {
		r = stage_parents(b, &trans);
		if (r == 0)
			r = ter_trans_commit(&trans);
		if (r != -ERESTART)
			break;
		ter_trans_reset(&trans);
		r = -EBUSY;
	}
	ter_trans_exit(&trans);
	return r;
}

static void end(struct batch *b, struct write_op *op, bool written)
{
	struct ter_node *node = op->node;
	bool publish = written && op->is_root && op->io.sectors;

	if (publish)
		(void)ter_root_lock_write(node->tree, NULL, false); /* waits: cannot fail */
	ter_rwlock_write(&node->lock);
	if (op->io.sectors) {
		if (written)
			node->ptrs.sectors_written = op->ptrs.sectors_written;
		/* A replica without this bset is of no use any more. (One that a new node did not get to is left to repair: to try again at each write would never end.) */
		node->must_rewrite |= !written || op->io.landed < op->ptrs.nr;
	}
	if (publish) {
		ter_root_publish(node->tree);
		ter_journal_want_roots(b->bt->journal); /* before the pin goes: the entry that frees it, or one before, carries the new root */
	}
	ter_node_snap_end(node, written);
	ter_cache_account(node);
	ter_rwlock_write_release(&node->lock);
	if (publish)
		ter_root_unlock_write(node->tree);
	ter_node_unclaim(node);
	free(op->io.buf);
}

static int append_all(struct batch *b)
{
	int r, done = 0, result = 0;

	if (!b->nr)
		return 0;
	for (unsigned i = 0; i < b->nr; i++)
		b->op[i].is_root = ter_node_is_root(b->op[i].node);
	result = write_bsets(b);
	r = tell_parents(b);
	for (unsigned i = 0; i < b->nr; i++) {
		end(b, &b->op[i], b->op[i].good && r == 0);
		done += b->op[i].good && r == 0;
	}
	return result < 0 ? result : r < 0 ? r : done;
}

int ter_node_write_batch(struct ter_btrees *bt, const struct ter_node_ref *refs, unsigned nr)
{
	struct batch *b;
	int r = 0, result, done = 0;

	if (!bt->journal)
		return -EROFS;
	b = ter_new(struct batch);
	if (!b)
		return -ENOMEM;
	b->bt = bt;
	for (unsigned i = 0; i < nr && i < TER_WRITE_BATCH_MAX && r == 0; i++)
		r = begin(b, &refs[i]);
	result = append_all(b);
	if (result >= 0)
		done = result;
	for (unsigned i = 0; i < b->again_nr; i++) {
		int r2 = ter_node_change(b->again[i].tree, b->again[i].level, b->again[i].pos, TER_CHANGE_REWRITE);

		if (r2 < 0)
			result = r2;
		else
			done += r2;
	}
	free(b);
	return r < 0 ? r : result < 0 ? result : done;
}

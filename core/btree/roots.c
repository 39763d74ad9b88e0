/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Roots: where each btree begins, as told at start, published for the journal, and read side by side. */
#include "btree/btree_priv.h"

void ter_node_seq_seen(struct ter_btrees *bt, uint64_t seq)
{
	if (seq >= atomic_load(&bt->next_node_seq) && seq < UINT64_MAX / 2)
		atomic_store(&bt->next_node_seq, seq + 1);
}

static int root_ptrs_of(struct ter_btrees *bt, const struct ter_root *root, struct ter_node_ptrs *ret)
{
	uint64_t raw[(sizeof(struct ter_key_disk) + sizeof(struct ter_btree_ptr_disk)) / 8];
	struct ter_node_ptrs ptrs = { .node_seq = root->node_seq, .sectors_written = root->sectors_written, .nr = root->nr_ptrs };
	struct ter_btree_ptr_disk disk;
	struct ter_key key = { .pos = TER_POS_MAX, .type = TER_KEY_BTREE_PTR, .val = &disk };

	if (root->nr_ptrs > TER_NODE_PTRS_MAX)
		return -EUCLEAN;
	for (unsigned i = 0; i < ptrs.nr; i++) {
		ptrs.ptr[i].dev = root->ptr[i].dev;
		ptrs.ptr[i].gen = root->ptr[i].gen;
		ptrs.ptr[i].sector = root->ptr[i].sector;
	}
	/* The same checks as for any other pointer. */
	key.val_bytes = ter_node_ptrs_encode(&ptrs, &disk);
	ter_key_encode(&key, raw);
	return ter_node_ptrs_decode(&bt->geo, (const struct ter_key_disk *)raw, ret);
}

int ter_btrees_set_root(struct ter_btrees *bt, const struct ter_root *root)
{
	struct ter_node_ptrs ptrs;
	struct ter_btree *tree;
	int r;

	if (root->btree >= TER_BTREE_NR || root->level >= TER_BTREE_DEPTH_MAX)
		return -EUCLEAN;
	if (!root->present)
		return 0;
	r = root_ptrs_of(bt, root, &ptrs);
	if (r < 0)
		return r;
	tree = &bt->tree[root->btree];
	if (tree->root) {
		if (tree->root->dirty || tree->root->children_nr)
			return -EBUSY;
		ter_lock_acquire(&bt->cache_lock);
		ter_cache_remove(tree->root);
		ter_lock_release(&bt->cache_lock);
		ter_node_free(tree->root);
		tree->root = NULL;
	}
	tree->root_ptrs = ptrs;
	tree->root_level = root->level;
	ter_root_publish(tree);
	ter_node_seq_seen(bt, ptrs.node_seq);
	return 0;
}

unsigned ter_btrees_get_roots(struct ter_btrees *bt, struct ter_root *roots, unsigned max)
{
	unsigned nr = 0;

	ter_lock_acquire(&bt->roots_lock);
	for (unsigned id = 0; id < TER_BTREE_NR && nr < max; id++)
		if (bt->roots[id].present)
			roots[nr++] = bt->roots[id];
	ter_lock_release(&bt->roots_lock);
	return nr;
}

uint64_t ter_btrees_next_node_seq(struct ter_btrees *bt)
{
	return atomic_load(&bt->next_node_seq);
}

/* --- reading them all --- */

struct root_read {
	struct ter_dev_bio dbio;
	struct ter_event event;
	const struct ter_node_ptr *ptr; /* NULL: nothing to read */
	void *buf;
};

static void root_read_done(struct ter_dev_bio *dbio)
{
	ter_event_set(dbio->priv, dbio->bio.result);
}

static void submit_root_read(struct ter_btree *tree, struct root_read *rd)
{
	struct ter_btrees *bt = tree->bt;
	const uint32_t bytes = tree->root_ptrs.sectors_written << TER_SECTOR_SHIFT;
	struct ter_bio *bio = &rd->dbio.bio;

	rd->ptr = ter_node_best_replica(bt, &tree->root_ptrs);
	if (!rd->ptr)
		return;
	rd->buf = ter_malloc_aligned(bytes, ter_node_buf_align(bt));
	if (!rd->buf) {
		rd->ptr = NULL;
		return;
	}
	rd->dbio = (struct ter_dev_bio){
		.bio = { .op = TER_BIO_READ, .offset_bytes = rd->ptr->sector << TER_SECTOR_SHIFT, .bytes = bytes, .iov_nr = 1,
			 .iov1 = { .iov_base = rd->buf, .iov_len = bytes } },
		.done = root_read_done, .priv = &rd->event,
	};
	bio->iov = &bio->iov1;
	ter_event_init(&rd->event);
	ter_dev_submit(ter_member(bt->config.members, rd->ptr->dev), &rd->dbio);
}

static void finish_root_read(struct ter_btree *tree, struct root_read *rd)
{
	struct ter_btrees *bt = tree->bt;
	const struct ter_node_ptrs *ptrs = &tree->root_ptrs;
	const struct ter_node_id id = {
		.btree = tree->id, .level = tree->root_level, .min = TER_POS_MIN, .max = TER_POS_MAX, .node_seq = ptrs->node_seq
	};
	struct ter_node_content content;
	const char *why;
	int r = ter_event_wait(&rd->event);

	ter_event_destroy(&rd->event);
	if (r == 0)
		r = ter_node_decode(&bt->geo, rd->buf, ptrs->sectors_written << TER_SECTOR_SHIFT, &id, bt->seq_max, &content, &why);
	if (r == 0)
		(void)ter_node_install(tree, &id, ptrs, &content, false); /* whoever needs it reads it then */
	free(rd->buf);
}

void ter_btrees_read_roots(struct ter_btrees *bt)
{
	struct root_read *reads = ter_calloc(TER_BTREE_NR, sizeof(*reads));

	if (!reads)
		return;
	for (unsigned id = 0; id < TER_BTREE_NR; id++)
		if (!bt->tree[id].root)
			submit_root_read(&bt->tree[id], &reads[id]);
	for (unsigned id = 0; id < TER_BTREE_NR; id++)
		if (reads[id].ptr)
			finish_root_read(&bt->tree[id], &reads[id]);
	free(reads);
}

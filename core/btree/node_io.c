/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes from and to the members: any good replica is read, all are written. */
#include <stdarg.h>
#include <stdio.h>

#include "btree/btree_priv.h"

#define IO_ALIGN 4096u

void ter_btrees_error(struct ter_btrees *bt, int r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!bt->config.on_error)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	bt->config.on_error(bt->config.on_arg, r, text);
}

size_t ter_node_buf_align(struct ter_btrees *bt)
{
	return ter_max(bt->geo.block_bytes, IO_ALIGN);
}

/* --- reading --- */

static void replica_error(struct ter_btrees *bt, const struct ter_node_id *id, const struct ter_node_ptr *ptr, int r, const char *why)
{
	char pos[64];

	ter_btrees_error(bt, r, "Btree %s: the copy of the node of level %u up to %s on member %u, sector %llu, is bad: %s.", ter_btree_names[id->btree], id->level,
			 ter_pos_text(id->max, pos), ptr->dev, (unsigned long long)ptr->sector, why);
}

static int read_replica(struct ter_btrees *bt, const struct ter_node_id *id, const struct ter_node_ptrs *ptrs, const struct ter_node_ptr *ptr, void *buf,
			struct ter_node_content *ret)
{
	struct ter_dev *dev = ter_member(bt->config.members, ptr->dev);
	uint64_t seq_max = bt->journal ? ter_journal_open_seq(bt->journal) : bt->seq_max;
	uint32_t bytes = ptrs->sectors_written << TER_SECTOR_SHIFT;
	const char *why = "it cannot be read";
	int r;

	if (!dev || !ter_dev_online(dev))
		return -ENODEV;
	if (dev->bytes && (ptr->sector << TER_SECTOR_SHIFT) + bytes > dev->bytes) {
		replica_error(bt, id, ptr, -EUCLEAN, "it lies beyond the end of the member");
		return -EUCLEAN;
	}
	r = ter_dev_read(dev, ptr->sector << TER_SECTOR_SHIFT, buf, bytes);
	if (r == 0)
		r = ter_node_decode(&bt->geo, buf, bytes, id, seq_max, ret, &why);
	if (r < 0 && r != -ENOMEM && r != -ENODEV)
		replica_error(bt, id, ptr, r, why);
	if (r == -EUCLEAN || r == -EBADMSG)
		ter_dev_error(bt->config.members, dev, TER_DEV_ERR_CHECKSUM, r);
	return r;
}

/* Replicas in the order in which to try them: online ones with less latency first. */
static void order_replicas(struct ter_btrees *bt, const struct ter_node_ptrs *ptrs, uint8_t order[TER_NODE_PTRS_MAX])
{
	uint64_t cost[TER_NODE_PTRS_MAX];
	unsigned at;

	for (unsigned i = 0; i < ptrs->nr; i++) {
		struct ter_dev *dev = ter_member(bt->config.members, ptrs->ptr[i].dev);

		cost[i] = dev && ter_dev_online(dev) ? atomic_load_explicit(&dev->read_latency_ns, memory_order_relaxed) : UINT64_MAX;
		for (at = i; at > 0 && cost[order[at - 1]] > cost[i]; at--)
			order[at] = order[at - 1];
		order[at] = (uint8_t)i;
	}
}

const struct ter_node_ptr *ter_node_best_replica(struct ter_btrees *bt, const struct ter_node_ptrs *ptrs)
{
	uint8_t order[TER_NODE_PTRS_MAX];
	const struct ter_node_ptr *ptr;
	struct ter_dev *dev;

	if (!ptrs->nr)
		return NULL;
	order_replicas(bt, ptrs, order);
	ptr = &ptrs->ptr[order[0]];
	dev = ter_member(bt->config.members, ptr->dev);
	if (!dev || !ter_dev_online(dev) || (dev->bytes && ((ptr->sector + ptrs->sectors_written) << TER_SECTOR_SHIFT) > dev->bytes))
		return NULL;
	return ptr;
}

int ter_node_read(struct ter_btrees *bt, const struct ter_node_id *id, const struct ter_node_ptrs *ptrs, struct ter_node_content *ret, bool *ret_heal)
{
	_cleanup_free_ void *buf = ter_malloc_aligned(ptrs->sectors_written << TER_SECTOR_SHIFT, ter_node_buf_align(bt));
	uint8_t order[TER_NODE_PTRS_MAX];
	int r, worst = -EIO;
	bool heal = false;
	char pos[64];

	if (!buf)
		return -ENOMEM;
	order_replicas(bt, ptrs, order);
	for (unsigned i = 0; i < ptrs->nr; i++) {
		r = read_replica(bt, id, ptrs, &ptrs->ptr[order[i]], buf, ret);
		if (r == 0) {
			*ret_heal = heal;
			return 0;
		}
		if (r == -ENOMEM)
			return r;
		if (r == -EUCLEAN || r == -EBADMSG)
			worst = -EUCLEAN;
		heal |= r != -ENODEV; /* a member that is away has its own kind of repair */
	}
	ter_btrees_error(bt, worst, "Btree %s: no good copy of the node of level %u up to %s is left.", ter_btree_names[id->btree], id->level,
			 ter_pos_text(id->max, pos));
	return worst;
}

/* --- writing --- */

struct write_one {
	struct ter_dev_bio dbio;
	struct write_all *all;
	struct ter_node_write_io *io;
};

struct write_all {
	struct ter_lock lock; /* LEAF */
	struct ter_waitq wq;
	unsigned left;
};

static void write_done(struct ter_dev_bio *dbio)
{
	struct write_one *one = dbio->priv;
	struct write_all *all = one->all;

	ter_lock_acquire(&all->lock);
	if (dbio->bio.result == 0)
		one->io->landed++;
	if (--all->left == 0)
		ter_waitq_wake_all(&all->wq);
	ter_lock_release(&all->lock);
}

static void write_submit(struct ter_btrees *bt, struct write_one *one, const struct ter_node_ptr *ptr)
{
	struct ter_node_write_io *io = one->io;
	struct ter_bio *bio = &one->dbio.bio;

	bio->op = TER_BIO_WRITE;
	bio->offset_bytes = (ptr->sector + io->offset_sectors) << TER_SECTOR_SHIFT;
	bio->bytes = (uint64_t)io->sectors << TER_SECTOR_SHIFT;
	bio->iov1 = (struct iovec){ .iov_base = io->buf, .iov_len = bio->bytes };
	bio->iov = &bio->iov1;
	bio->iov_nr = 1;
	one->dbio.done = write_done;
	one->dbio.priv = one;
	ter_dev_submit(ter_member(bt->config.members, ptr->dev), &one->dbio);
}

static bool can_write(struct ter_btrees *bt, const struct ter_node_ptr *ptr)
{
	struct ter_dev *dev = ter_member(bt->config.members, ptr->dev);

	return dev && ter_dev_writable(dev);
}

int ter_node_write_all(struct ter_btrees *bt, struct ter_node_write_io *ios, unsigned nr)
{
	struct write_all all = { 0 };
	const struct ter_node_ptr **where;
	struct write_one *ones;

	for (unsigned i = 0; i < nr; i++)
		ios[i].landed = 0;
	ones = ter_calloc((size_t)nr * TER_NODE_PTRS_MAX, sizeof(*ones));
	where = ter_calloc((size_t)nr * TER_NODE_PTRS_MAX, sizeof(*where));
	if (!ones || !where) {
		free(ones);
		free(where);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < nr; i++)
		for (unsigned n = 0; n < ios[i].ptrs->nr; n++)
			if (can_write(bt, &ios[i].ptrs->ptr[n])) {
				ones[all.left].all = &all;
				ones[all.left].io = &ios[i];
				where[all.left++] = &ios[i].ptrs->ptr[n];
			}
	ter_lock_init(&all.lock, TER_RANK_LEAF);
	ter_waitq_init(&all.wq);
	for (unsigned i = 0, total = all.left; i < total; i++)
		write_submit(bt, &ones[i], where[i]);
	ter_lock_acquire(&all.lock);
	while (all.left)
		ter_waitq_wait(&all.wq, &all.lock);
	ter_lock_release(&all.lock);
	ter_waitq_destroy(&all.wq);
	ter_lock_destroy(&all.lock);
	free(where);
	free(ones);
	return 0;
}

bool ter_node_landed(struct ter_btrees *bt, const struct ter_node_write_io *io)
{
	return io->landed >= ter_max(1u, (unsigned)bt->geo.sb->options.metadata_replicas_required);
}

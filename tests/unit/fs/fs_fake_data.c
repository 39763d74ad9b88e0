/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File data of memory: blocks that are dirty, and INLINE_DATA keys of one block each. */
#include "alloc/accounting.h"
#include "data/extent.h"
#include "fs_fake.h"

#define BLOCK 4096u
#define SECTORS 8u

struct dirty {
	struct dirty *next;
	uint64_t block;
	uint8_t mem[BLOCK];
};

struct fake_data {
	struct fake_btrees *fb;
	pthread_mutex_t io;    /* one write-back or punch at a time */
	pthread_mutex_t mutex; /* guards files */
	struct ter_list files; /* with dirty blocks, by dirty_link */
};

struct fake_data *fake_data_new(struct fake_btrees *fb)
{
	struct fake_data *fd = calloc(1, sizeof(*fd));

	fd->fb = fb;
	pthread_mutex_init(&fd->io, NULL);
	pthread_mutex_init(&fd->mutex, NULL);
	ter_list_init(&fd->files);
	return fd;
}

void fake_data_free(struct fake_data *fd)
{
	assert(ter_list_empty(&fd->files));
	pthread_mutex_destroy(&fd->io);
	pthread_mutex_destroy(&fd->mutex);
	free(fd);
}

static struct fake_data *fake_of(struct ter_data *data)
{
	return (struct fake_data *)data;
}

void ter_file_init(struct ter_file *file, const struct ter_file_ops *ops, uint64_t inum, uint32_t snapshot, uint64_t size)
{
	*file = (struct ter_file){ .ops = ops, .inum = inum, .snapshot = snapshot, .size = size };
	ter_lock_init(&file->lock, TER_RANK_DIRTY);
	ter_list_init(&file->dirty_link);
}

void ter_file_destroy(struct ter_file *file)
{
	assert(!file->priv);
	ter_lock_destroy(&file->lock);
}

static struct ter_pos block_pos(struct ter_file *file, uint64_t block)
{
	return TER_POS(file->inum, (block + 1) * SECTORS, file->snapshot);
}

static struct dirty *find_dirty(struct ter_file *file, uint64_t block)
{
	for (struct dirty *d = file->priv; d; d = d->next)
		if (d->block == block)
			return d;
	return NULL;
}

static void read_key(struct fake_data *fd, struct ter_file *file, uint64_t block, uint8_t *mem)
{
	struct ter_trans trans;
	struct ter_key key;

	memset(mem, 0, BLOCK);
	ter_trans_init(&trans, fake_bt(fd->fb), 0);
	if (ter_trans_get(&trans, TER_BTREE_EXTENTS, block_pos(file, block), &key) == 0 && key.type == TER_KEY_INLINE_DATA)
		memcpy(mem, key.val, key.val_bytes);
	ter_trans_exit(&trans);
}

/* file->lock held. *first: the file became dirty. */
static struct dirty *get_dirty(struct fake_data *fd, struct ter_file *file, uint64_t block, bool *first)
{
	struct dirty *d = find_dirty(file, block);

	if (d)
		return d;
	d = malloc(sizeof(*d));
	d->block = block;
	read_key(fd, file, block, d->mem);
	*first = *first || !file->priv;
	d->next = file->priv;
	file->priv = d;
	file->dirty_bytes += BLOCK;
	return d;
}

static void now_dirty(struct fake_data *fd, struct ter_file *file)
{
	file->ops->ref(file, +1);
	pthread_mutex_lock(&fd->mutex);
	ter_list_add_tail(&fd->files, &file->dirty_link);
	pthread_mutex_unlock(&fd->mutex);
}

static void now_clean(struct fake_data *fd, struct ter_file *file)
{
	pthread_mutex_lock(&fd->mutex);
	ter_list_del(&file->dirty_link);
	pthread_mutex_unlock(&fd->mutex);
	file->ops->ref(file, -1);
}

int ter_file_write(struct ter_data *data, struct ter_file *file, uint64_t offset, const struct iovec *iov, unsigned iov_nr, bool nowait)
{
	struct fake_data *fd = fake_of(data);
	bool first = false;

	if (nowait && fd->fb->again_in == 0)
		return -EAGAIN;
	ter_lock_acquire(&file->lock);
	for (unsigned i = 0; i < iov_nr; i++)
		for (size_t at = 0; at < iov[i].iov_len;) {
			struct dirty *d = get_dirty(fd, file, offset / BLOCK, &first);
			size_t n = ter_min(iov[i].iov_len - at, (size_t)(BLOCK - offset % BLOCK));

			memcpy(d->mem + offset % BLOCK, (const uint8_t *)iov[i].iov_base + at, n);
			at += n;
			offset += n;
		}
	file->size = ter_max(file->size, offset);
	ter_lock_release(&file->lock);
	if (first)
		now_dirty(fd, file);
	return fd->fb->eager ? ter_file_writeback(data, file) : 0;
}

int ter_file_read(struct ter_data *data, struct ter_read *read)
{
	struct fake_data *fd = fake_of(data);
	struct ter_file *file = read->file;
	uint8_t mem[BLOCK];
	uint64_t end;

	if (read->nowait && fd->fb->again_in == 0)
		return -EAGAIN;
	ter_lock_acquire(&file->lock);
	end = ter_min(file->size, read->offset + read->bytes);
	read->bytes_done = 0;
	for (uint64_t at = read->offset; at < end;) {
		struct dirty *d = find_dirty(file, at / BLOCK);
		size_t n = ter_min(end - at, (uint64_t)(BLOCK - at % BLOCK));

		if (!d)
			read_key(fd, file, at / BLOCK, mem);
		memcpy((uint8_t *)read->buf + read->bytes_done, (d ? d->mem : mem) + at % BLOCK, n);
		read->bytes_done += n;
		at += n;
	}
	ter_lock_release(&file->lock);
	read->result = 0;
	read->done(read);
	return 0;
}

/* --- write-back: one transaction --- */

struct writeback {
	struct ter_file *file;
	struct dirty *list;
	uint64_t size_to;
	int64_t sectors;
};

static int writeback_fn(struct ter_trans *trans, void *arg)
{
	struct writeback *w = arg;
	int r;

	w->sectors = 0;
	w->size_to = 0;
	for (struct dirty *d = w->list; d; d = d->next) {
		struct ter_key key = {
			.pos = block_pos(w->file, d->block), .size = SECTORS, .type = TER_KEY_INLINE_DATA, .val = d->mem, .val_bytes = BLOCK,
		};
		struct ter_key old;

		r = ter_trans_get(trans, TER_BTREE_EXTENTS, key.pos, &old);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == -ENOENT)
			w->sectors += SECTORS;
		r = ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, r == -ENOENT ? TER_KEY_ABSENT : &old, &key);
		if (r < 0)
			return r;
		w->size_to = ter_max(w->size_to, (d->block + 1) * BLOCK);
	}
	return w->file->ops->stage(w->file, trans, w->size_to, w->sectors);
}

static int writeback_locked(struct fake_data *fd, struct ter_file *file)
{
	struct writeback w = { .file = file };
	uint64_t seq;
	int r;

	ter_lock_acquire(&file->lock);
	w.list = file->priv; /* the tests' writers hold the inode's lock, or are the only ones */
	ter_lock_release(&file->lock);
	if (!w.list)
		return 0;
	r = ter_trans_run(fake_bt(fd->fb), 0, writeback_fn, &w, &seq);
	if (r < 0)
		return r;
	file->ops->committed(file, w.size_to, w.sectors, seq);
	ter_lock_acquire(&file->lock);
	file->priv = NULL;
	file->dirty_bytes = 0;
	ter_lock_release(&file->lock);
	while (w.list) {
		struct dirty *d = w.list;

		w.list = d->next;
		free(d);
	}
	now_clean(fd, file);
	return 0;
}

int ter_file_writeback(struct ter_data *data, struct ter_file *file)
{
	struct fake_data *fd = fake_of(data);
	int r;

	pthread_mutex_lock(&fd->io);
	r = writeback_locked(fd, file);
	pthread_mutex_unlock(&fd->io);
	return r;
}

int ter_data_flush_all(struct ter_data *data)
{
	struct fake_data *fd = fake_of(data);
	bool more = true;
	int r = 0;

	while (more && r >= 0) {
		struct ter_file *file = NULL;

		pthread_mutex_lock(&fd->io); /* nobody takes the last block of the file meanwhile, so that it stays */
		pthread_mutex_lock(&fd->mutex);
		more = !ter_list_empty(&fd->files);
		if (more)
			file = ter_list_first(&fd->files, struct ter_file, dirty_link);
		pthread_mutex_unlock(&fd->mutex);
		if (file)
			r = writeback_locked(fd, file);
		pthread_mutex_unlock(&fd->io);
	}
	return r;
}

int ter_file_sync_async(struct ter_data *data, struct ter_file *file, bool nowait, struct ter_journal_waiter *waiter)
{
	int r;

	if (nowait && file->priv && fake_of(data)->fb->again_in == 0)
		return -EAGAIN;
	r = ter_file_writeback(data, file);
	if (r < 0)
		return r;
	waiter->fn(waiter, 0);
	return 0;
}

static void drop_range(struct fake_data *fd, struct ter_file *file, uint64_t from, uint64_t to)
{
	bool was_dirty, is_dirty;

	ter_lock_acquire(&file->lock);
	was_dirty = file->priv;
	for (struct dirty **p = (struct dirty **)&file->priv; *p;) {
		struct dirty *d = *p;
		uint64_t start = d->block * BLOCK, end = start + BLOCK;

		if (start >= from && end <= to) {
			*p = d->next;
			free(d);
			file->dirty_bytes -= BLOCK;
			continue;
		}
		if (start < to && end > from)
			memset(d->mem + (ter_max(from, start) - start), 0, ter_min(to, end) - ter_max(from, start));
		p = &d->next;
	}
	is_dirty = file->priv;
	ter_lock_release(&file->lock);
	if (was_dirty && !is_dirty)
		now_clean(fd, file);
}

void fake_data_drop_dirty(struct fake_data *fd)
{
	while (!ter_list_empty(&fd->files))
		drop_range(fd, ter_list_first(&fd->files, struct ter_file, dirty_link), 0, UINT64_MAX);
}

/* --- punch: the first transaction, one for every two keys, the last --- */

struct punch {
	struct ter_file *file;
	uint64_t from, to;
	int64_t sectors;
	bool more;
};

static int punch_fn(struct ter_trans *trans, void *arg)
{
	struct punch *p = arg;
	struct ter_file *f = p->file;
	uint64_t start = ter_round_up(p->from, BLOCK) / 512, end = p->to / BLOCK * BLOCK / 512;
	struct ter_key key;
	int r = 0;

	p->sectors = 0;
	p->more = false;
	for (unsigned i = 0; start < end; i++) {
		r = ter_trans_next(trans, TER_BTREE_EXTENTS, TER_POS(f->inum, start + 1, 0), TER_POS(f->inum, end, UINT32_MAX), &key);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
		if (i == 2) {
			p->more = true;
			break;
		}
		r = ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, &key, NULL);
		if (r < 0)
			return r;
		p->sectors -= key.size;
	}
	return f->ops->stage(f, trans, 0, p->sectors);
}

static int zero_edge(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to)
{
	static const uint8_t zeros[BLOCK];
	struct iovec iov = { .iov_base = (void *)zeros, .iov_len = to - from };
	uint64_t size = file->size;
	int r;

	if (from >= to || from >= size)
		return 0;
	iov.iov_len = ter_min(iov.iov_len, size - from);
	r = ter_file_write(data, file, from, &iov, 1, false);
	return r;
}

static int punch_keys(struct fake_data *fd, struct punch *p)
{
	uint64_t seq;
	int r = ter_trans_run(fake_bt(fd->fb), 0, punch_fn, p, &seq);

	if (r >= 0)
		p->file->ops->committed(p->file, 0, p->sectors, seq);
	return r;
}

static int punch_locked(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, int (*first)(struct ter_trans *trans, void *arg),
		   int (*last)(struct ter_trans *trans, void *arg), void *arg)
{
	struct fake_data *fd = fake_of(data);
	struct punch p = { .file = file, .from = from, .to = to, .more = true };
	uint64_t from_up = ter_round_up(from, BLOCK), to_down = to / BLOCK * BLOCK;
	int r;

	drop_range(fd, file, from, to);
	r = zero_edge(data, file, from, ter_min(from_up, to));
	if (r >= 0 && to_down >= from_up)
		r = zero_edge(data, file, to_down, to);
	if (r >= 0 && first)
		r = ter_trans_run(fake_bt(fd->fb), 0, first, arg, NULL);
	while (r >= 0 && p.more)
		r = punch_keys(fd, &p);
	if (r >= 0 && last)
		r = ter_trans_run(fake_bt(fd->fb), 0, last, arg, NULL);
	return r;
}

int ter_file_punch(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, int (*first)(struct ter_trans *trans, void *arg),
		   int (*last)(struct ter_trans *trans, void *arg), void *arg)
{
	struct fake_data *fd = fake_of(data);
	int r;

	pthread_mutex_lock(&fd->io);
	r = punch_locked(data, file, from, to, first, last, arg);
	pthread_mutex_unlock(&fd->io);
	return r;
}

int ter_file_reserve_range(struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to)
{
	struct fake_data *fd = fake_of(data);

	for (uint64_t block = from / BLOCK; block * BLOCK < to; block++) {
		struct ter_key key = { .pos = block_pos(file, block), .size = SECTORS, .type = TER_KEY_RESERVATION }, old;
		struct ter_trans trans;
		int r;

		ter_trans_init(&trans, fake_bt(fd->fb), 0);
		r = ter_trans_get(&trans, TER_BTREE_EXTENTS, key.pos, &old);
		if (r == -ENOENT) {
			r = ter_trans_update(&trans, TER_BTREE_EXTENTS, key.pos, TER_KEY_ABSENT, &key);
			if (r >= 0)
				r = file->ops->stage(file, &trans, 0, SECTORS);
			if (r >= 0)
				r = ter_trans_commit(&trans);
			if (r >= 0)
				file->ops->committed(file, 0, SECTORS, trans.seq);
		}
		ter_trans_exit(&trans);
		if (r == -ERESTART)
			block--; /* again */
		else if (r < 0)
			return r;
	}
	return 0;
}

int ter_file_seek(struct ter_data *data, struct ter_file *file, uint64_t offset, bool hole, uint64_t *ret_offset)
{
	struct fake_data *fd = fake_of(data);

	for (uint64_t at = offset; at < file->size; at = (at / BLOCK + 1) * BLOCK) {
		struct ter_trans trans;
		struct ter_key key;
		bool is_data = find_dirty(file, at / BLOCK);

		ter_trans_init(&trans, fake_bt(fd->fb), 0);
		if (ter_trans_get(&trans, TER_BTREE_EXTENTS, block_pos(file, at / BLOCK), &key) == 0)
			is_data = is_data || key.type == TER_KEY_INLINE_DATA;
		ter_trans_exit(&trans);
		if (is_data != hole) {
			*ret_offset = at;
			return 0;
		}
	}
	if (!hole)
		return -ENXIO;
	*ret_offset = file->size;
	return 0;
}

/* --- extents --- */

uint32_t ter_extent_key_sectors(const struct ter_key *key)
{
	return key->size;
}

/* The fake's data lies in keys of other types only. */
int ter_extent_decode(const struct ter_key *key, const struct ter_sb *sb, struct ter_extent *ret)
{
	assert(sb && ret);
	return key->type == TER_KEY_EXTENT ? 0 : -EUCLEAN;
}

int ter_extents_stage_punch(struct ter_alloc *alloc, struct ter_trans *trans, const struct ter_sb *sb, uint64_t inum, uint32_t snapshot, uint64_t start,
			    uint64_t end, unsigned keys_max, uint64_t *ret_done_to, int64_t *ret_sectors)
{
	struct ter_key key;
	unsigned keys = 0;
	int r;

	assert(sb && !alloc);
	*ret_sectors = 0;
	*ret_done_to = end;
	while ((r = ter_trans_next(trans, TER_BTREE_EXTENTS, TER_POS(inum, start + 1, 0), TER_POS(inum, end, snapshot), &key)) == 0) {
		if (keys++ == keys_max) {
			*ret_done_to = ter_key_start(&key);
			return 0;
		}
		*ret_sectors -= key.size;
		r = ter_trans_update(trans, TER_BTREE_EXTENTS, key.pos, &key, NULL);
		if (r < 0)
			return r;
	}
	return r == -ENOENT ? 0 : r;
}

struct ter_pos ter_counter_inodes(void)
{
	return TER_POS((uint64_t)TER_COUNT_INODES << 56, 0, 0);
}

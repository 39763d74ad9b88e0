/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SEEK_DATA and SEEK_HOLE. Dirty segments first, extents second: what is committed in between is seen in one of them. */
#include "data/data_priv.h"

struct seek_scan {
	uint64_t pos;  /* bytes */
	uint64_t start, end; /* of the first data that ends after pos; start == UINT64_MAX: none */
	uint32_t snapshot;
};

static int scan_cb(void *arg, const struct ter_key *key)
{
	struct seek_scan *s = arg;

	if (key->pos.snapshot != s->snapshot || key->type == TER_KEY_RESERVATION)
		return 0;
	s->start = ter_key_start(key) << TER_SECTOR_SHIFT;
	s->end = key->pos.offset << TER_SECTOR_SHIFT;
	return 1;
}

static void dirty_at(struct ter_seg *root, uint64_t pos, uint64_t *start, uint64_t *end)
{
	const struct ter_seg *seg = ter_segtree_first(root, pos);

	if (seg && seg->start < *start) {
		*start = seg->start;
		*end = seg->end;
	}
}

/* The first data that ends after @pos: its part that lies together in one place. */
static int next_data(struct ter_data *data, struct ter_file *file, uint64_t pos, uint64_t *ret_start, uint64_t *ret_end)
{
	struct seek_scan s = { .pos = pos, .start = UINT64_MAX, .end = UINT64_MAX, .snapshot = file->snapshot };
	uint64_t start = UINT64_MAX, end = UINT64_MAX;
	int r;

	ter_lock_acquire(&file->lock);
	dirty_at(file->segs, pos, &start, &end);
	dirty_at(file->wb, pos, &start, &end);
	ter_lock_release(&file->lock);
	if (start > pos) {
		r = ter_btree_scan(data->config.btrees, TER_BTREE_EXTENTS, TER_POS(file->inum, (pos >> TER_SECTOR_SHIFT) + 1, 0),
				   TER_POS(file->inum, UINT64_MAX, UINT32_MAX), 0, scan_cb, &s, NULL);
		if (r < 0)
			return r;
		if (s.start < start) {
			start = s.start;
			end = s.end;
		}
	}
	*ret_start = start;
	*ret_end = end;
	return 0;
}

int ter_file_seek(struct ter_data *data, struct ter_file *file, uint64_t offset, bool hole, uint64_t *ret_offset)
{
	uint64_t size, start, end;
	int r;

	ter_lock_acquire(&file->lock);
	size = file->size;
	ter_lock_release(&file->lock);
	while (offset < size) {
		r = next_data(data, file, offset, &start, &end);
		if (r < 0)
			return r;
		if (!hole) {
			if (start >= size)
				return -ENXIO;
			*ret_offset = ter_max(offset, start);
			return 0;
		}
		if (start > offset) {
			*ret_offset = offset;
			return 0;
		}
		offset = end;
		if (offset >= size) {
			*ret_offset = size; /* the end is a hole */
			return 0;
		}
	}
	return -ENXIO;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extents: values from and to disk, and cutting them. */
#include "data/extent.h"

#define VAL_HEAD ((uint32_t)sizeof(struct ter_extent_disk))
#define VAL_PTR ((uint32_t)sizeof(struct ter_extent_ptr_disk))
#define SECTOR_MAX (1ull << 54) /* keeps byte offsets within 63 bits */

static uint32_t csums_of(uint32_t stored_sectors, unsigned csum_block_log2)
{
	return (uint32_t)((((uint64_t)stored_sectors << TER_SECTOR_SHIFT) + (1ull << csum_block_log2) - 1) >> csum_block_log2);
}

static bool sizes_valid(const struct ter_key *key, const struct ter_extent *e, uint32_t block_sectors)
{
	uint32_t align = block_sectors - 1;

	if (!key->size || key->size > TER_EXTENT_SECTORS_MAX || key->pos.offset < key->size || key->pos.offset > SECTOR_MAX)
		return false;
	if ((key->size & align) || (key->pos.offset & align) || (e->stored_sectors & align) || (e->raw_sectors & align) || (e->live_offset & align))
		return false;
	if (!e->stored_sectors || e->stored_sectors > TER_EXTENT_SECTORS_MAX || !e->raw_sectors || e->raw_sectors > TER_EXTENT_SECTORS_MAX)
		return false;
	if (e->compression_slot ? e->stored_sectors >= e->raw_sectors : e->stored_sectors != e->raw_sectors)
		return false;
	return e->live_offset < e->raw_sectors && key->size <= e->raw_sectors - e->live_offset;
}

static bool checksums_valid(const struct ter_extent *e, const struct ter_sb *sb)
{
	const struct terrace_checksum *sum;

	if (e->compression_slot && !ter_algos_compression(&sb->algos, e->compression_slot))
		return false;
	if (e->csum_block_log2 < TER_SECTOR_SHIFT || e->csum_block_log2 > 21)
		return false;
	if (!e->csum_slot)
		return !e->csums_nr && !e->digest_bytes;
	sum = ter_algos_checksum(&sb->algos, e->csum_slot);
	if (!sum || sum->digest_len != e->digest_bytes || e->digest_bytes > TER_DIGEST_MAX)
		return false;
	return e->csums_nr == (e->compression_slot ? 1 : csums_of(e->stored_sectors, e->csum_block_log2)) && e->csums_nr <= TER_EXTENT_CSUMS_MAX;
}

static int decode_ptrs(const struct ter_extent_ptr_disk *disk, uint32_t block_sectors, struct ter_extent *e)
{
	for (unsigned i = 0; i < e->nr_ptrs; i++) {
		e->ptr[i].sector = ter_le64_get(disk[i].sector);
		e->ptr[i].gen = ter_le32_get(disk[i].gen);
		e->ptr[i].dev = disk[i].dev;
		e->ptr[i].flags = disk[i].flags;
		if (disk[i].zero[0] || disk[i].zero[1] || (disk[i].flags & ~TER_PTR_CACHED) || disk[i].dev >= TER_DEVS_MAX)
			return -EUCLEAN;
		if (e->ptr[i].sector > SECTOR_MAX || e->ptr[i].sector % block_sectors)
			return -EUCLEAN;
		for (unsigned j = 0; j < i; j++)
			if (e->ptr[j].dev == e->ptr[i].dev)
				return -EUCLEAN; /* B7 */
	}
	return 0;
}

int ter_extent_decode(const struct ter_key *key, const struct ter_sb *sb, struct ter_extent *ret)
{
	const struct ter_extent_disk *disk = key->val;
	uint32_t block_sectors = sb->options.block_size >> TER_SECTOR_SHIFT;
	struct ter_extent e = { 0 };
	int r;

	if (key->type != TER_KEY_EXTENT || key->val_version != 0 || key->val_bytes < VAL_HEAD)
		return -EUCLEAN;
	e.nr_ptrs = disk->nr_ptrs;
	e.nr_required = disk->nr_required;
	e.csum_slot = disk->csum_slot;
	e.compression_slot = disk->compression_slot;
	e.csum_block_log2 = disk->csum_block_log2;
	e.digest_bytes = disk->digest_bytes;
	e.csums_nr = ter_le16_get(disk->csums_nr);
	e.stored_sectors = ter_le32_get(disk->stored_sectors);
	e.raw_sectors = ter_le32_get(disk->raw_sectors);
	e.live_offset = ter_le32_get(disk->live_offset);
	if (ter_le32_get(disk->zero) || !e.nr_ptrs || e.nr_ptrs > TER_REPLICAS_MAX || !e.nr_required || e.nr_required > e.nr_ptrs)
		return -EUCLEAN;
	if (!sizes_valid(key, &e, block_sectors) || !checksums_valid(&e, sb))
		return -EUCLEAN;
	if (key->val_bytes != VAL_HEAD + e.nr_ptrs * VAL_PTR + (uint32_t)e.csums_nr * e.digest_bytes)
		return -EUCLEAN;
	r = decode_ptrs((const void *)((const uint8_t *)key->val + VAL_HEAD), block_sectors, &e);
	if (r < 0)
		return r;
	e.start = ter_key_start(key);
	e.sectors = key->size;
	e.csums = (const uint8_t *)key->val + VAL_HEAD + e.nr_ptrs * VAL_PTR;
	*ret = e;
	return 0;
}

uint32_t ter_extent_encode(const struct ter_extent *e, void *val)
{
	struct ter_extent_disk *disk = val;
	struct ter_extent_ptr_disk *ptr = (void *)((uint8_t *)val + VAL_HEAD);
	uint32_t csum_bytes = (uint32_t)e->csums_nr * e->digest_bytes;

	assert(e->nr_ptrs >= 1 && e->nr_ptrs <= TER_REPLICAS_MAX && e->csums_nr <= TER_EXTENT_CSUMS_MAX && e->digest_bytes <= TER_DIGEST_MAX);
	*disk = (struct ter_extent_disk){
		.nr_ptrs = e->nr_ptrs,
		.nr_required = e->nr_required,
		.csum_slot = e->csum_slot,
		.compression_slot = e->compression_slot,
		.csum_block_log2 = e->csum_block_log2,
		.digest_bytes = e->digest_bytes,
		.csums_nr = ter_le16_make(e->csums_nr),
		.stored_sectors = ter_le32_make(e->stored_sectors),
		.raw_sectors = ter_le32_make(e->raw_sectors),
		.live_offset = ter_le32_make(e->live_offset),
	};
	for (unsigned i = 0; i < e->nr_ptrs; i++)
		ptr[i] = (struct ter_extent_ptr_disk){
			.sector = ter_le64_make(e->ptr[i].sector),
			.gen = ter_le32_make(e->ptr[i].gen),
			.dev = e->ptr[i].dev,
			.flags = e->ptr[i].flags,
		};
	if (csum_bytes)
		memmove(ptr + e->nr_ptrs, e->csums, csum_bytes);
	return VAL_HEAD + e->nr_ptrs * VAL_PTR + csum_bytes;
}

/* Drop whole checksum blocks of an uncompressed extent that are not live any more (E2). */
static void shrink_stored(struct ter_extent *e)
{
	uint32_t unit = 1u << (e->csum_block_log2 - TER_SECTOR_SHIFT);
	uint32_t head = (uint32_t)ter_round_down(e->live_offset, unit);
	uint32_t end = (uint32_t)ter_round_up(e->live_offset + e->sectors, unit);

	end = ter_min(end, e->stored_sectors);
	for (unsigned i = 0; i < e->nr_ptrs; i++)
		e->ptr[i].sector += head;
	e->live_offset -= head;
	e->stored_sectors = e->raw_sectors = end - head;
	if (e->csum_slot) {
		e->csums += (size_t)(head / unit) * e->digest_bytes;
		e->csums_nr = (uint16_t)csums_of(e->stored_sectors, e->csum_block_log2);
	}
}

void ter_extent_cut(struct ter_extent *e, uint64_t start, uint64_t end)
{
	assert(start >= e->start && end <= e->start + e->sectors && start < end);
	e->live_offset += (uint32_t)(start - e->start);
	e->start = start;
	e->sectors = (uint32_t)(end - start);
	if (!e->compression_slot)
		shrink_stored(e);
}

uint32_t ter_extent_ptr_sectors(const struct ter_extent *e)
{
	if (!e->compression_slot)
		return e->stored_sectors;
	return (uint32_t)(((uint64_t)e->stored_sectors * e->sectors + e->raw_sectors - 1) / e->raw_sectors);
}

uint32_t ter_extent_key_sectors(const struct ter_key *key)
{
	return key->type == TER_KEY_ERROR ? 0 : key->size;
}

void ter_extent_replicas(const struct ter_extent *e, struct ter_replicas_entry *ret)
{
	*ret = (struct ter_replicas_entry){ .data_type = TER_DATA_USER, .nr_required = e->nr_required };
	for (unsigned i = 0; i < e->nr_ptrs; i++) {
		unsigned at = ret->nr_devs;

		if (e->ptr[i].flags & TER_PTR_CACHED)
			continue;
		for (; at > 0 && ret->devs[at - 1] > e->ptr[i].dev; at--)
			ret->devs[at] = ret->devs[at - 1];
		ret->devs[at] = e->ptr[i].dev;
		ret->nr_devs++;
	}
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding a device's superblock among its copies. */
#include "sb/sb_format.h"
#include "util/fault.h"
#include "util/mem.h"

TER_FAULT_POINT(fault_read, "sb.read", EIO, "the reading of one member's superblock")

void ter_sb_copy_offsets(uint64_t bytes, uint64_t ret_offset[TER_SB_COPIES])
{
	ret_offset[0] = TER_SB_SLOT0_BYTES;
	ret_offset[1] = TER_SB_SLOT1_BYTES;
	ret_offset[2] = ter_round_down(bytes - TER_SB_TAIL_BYTES, TER_SB_ALIGN);
}

int ter_sb_decode_at(const void *buf, size_t bytes, uint64_t offset_bytes, struct ter_sb **ret_sb, struct ter_members **ret_members, unsigned *ret_dev_idx,
		     struct ter_error *error)
{
	const struct ter_sb_disk *header = buf;

	/* Before anything else is believed, even its version: it may be another device's. */
	if (bytes >= sizeof(*header) && !memcmp(header->magic, TER_SB_MAGIC, sizeof(header->magic)) &&
	    ter_le64_get(header->copy_offset_bytes) != offset_bytes)
		return ter_fail_errno(error, -ENODATA, "The superblock found at byte %llu belongs elsewhere.", (unsigned long long)offset_bytes);
	return ter_sb_decode(buf, bytes, ret_sb, ret_members, ret_dev_idx, error);
}

struct reader {
	struct ter_bdev *bdev;
	uint8_t *buf; /* TER_SB_BYTES_MAX for each copy: all are read at once */
	struct {
		struct ter_bio bio;
		struct ter_event event;
	} io[TER_SB_COPIES];
	struct ter_sb_read_result best; /* sb NULL: none yet */
	struct {
		bool valid;
		uint64_t seq;
		uint8_t uuid[16];
		unsigned dev_idx;
	} copy[TER_SB_COPIES];
	int r; /* why the first copy that is more than absent was not valid */
	struct ter_error why;
};

/* Of one pool the higher sequence; of two pools the one formatted later. */
static bool is_newer(const struct ter_sb *a, const struct ter_sb *b)
{
	if (!memcmp(a->uuid, b->uuid, sizeof(a->uuid)))
		return a->seq > b->seq;
	return a->created_ns > b->created_ns;
}

static void result_free(struct ter_sb_read_result *result)
{
	ter_sb_free(result->sb);
	free(result->members);
}

static void consider(struct reader *rd, unsigned idx, struct ter_sb_read_result *found)
{
	rd->copy[idx].valid = true;
	rd->copy[idx].seq = found->sb->seq;
	rd->copy[idx].dev_idx = found->dev_idx;
	memcpy(rd->copy[idx].uuid, found->sb->uuid, sizeof(rd->copy[idx].uuid));

	if (rd->best.sb && !is_newer(found->sb, rd->best.sb)) {
		result_free(found);
		return;
	}
	result_free(&rd->best);
	rd->best = *found;
}

static void read_done(struct ter_bio *bio)
{
	ter_event_set(bio->priv, bio->result);
}

static void submit_read(struct reader *rd, unsigned idx, uint64_t offset_bytes)
{
	struct ter_bio *bio = &rd->io[idx].bio;

	*bio = (struct ter_bio){
		.op = TER_BIO_READ, .bdev = rd->bdev, .offset_bytes = offset_bytes, .bytes = TER_SB_BYTES_MAX, .iov_nr = 1,
		.iov1 = { .iov_base = rd->buf + (size_t)idx * TER_SB_BYTES_MAX, .iov_len = TER_SB_BYTES_MAX },
		.done = read_done, .priv = &rd->io[idx].event,
	};
	bio->iov = &bio->iov1;
	ter_event_init(&rd->io[idx].event);
	ter_bio_submit(bio);
}

/* Return: 0, whether the copy is valid or not; or what ends the search. */
static int look_at_read(struct reader *rd, unsigned idx)
{
	const uint64_t offset_bytes = rd->io[idx].bio.offset_bytes;
	struct ter_sb_read_result found = { 0 };
	struct ter_error why = { 0 };
	int r = rd->io[idx].bio.result;

	if (r < 0)
		(void)ter_fail_errno(&why, r, "%s: cannot read the superblock at byte %llu.", rd->bdev->path, (unsigned long long)offset_bytes);
	else
		r = ter_sb_decode_at(rd->io[idx].bio.iov1.iov_base, TER_SB_BYTES_MAX, offset_bytes, &found.sb, &found.members, &found.dev_idx, &why);
	if (r < 0) {
		if (r != -ENODATA && (rd->r == 0 || rd->r == -ENODATA)) {
			rd->r = r;
			rd->why = why;
		}
		return r == -EPROTONOSUPPORT || r == -ENOMEM ? r : 0;
	}
	consider(rd, idx, &found);
	return 0;
}

static void wait_read(struct reader *rd, unsigned idx)
{
	(void)ter_event_wait(&rd->io[idx].event); /* the result stands in the bio */
	ter_event_destroy(&rd->io[idx].event);
}

static int read_copies(struct reader *rd)
{
	const unsigned last = TER_SB_COPIES - 1;
	uint64_t offset[TER_SB_COPIES], end;
	int r = 0;

	ter_sb_copy_offsets(rd->bdev->info.bytes, offset);
	for (unsigned i = 0; i < TER_SB_COPIES; i++)
		submit_read(rd, i, offset[i]);
	for (unsigned i = 0; i < TER_SB_COPIES; i++)
		wait_read(rd, i);
	for (unsigned i = 0; r >= 0 && i < last; i++)
		r = look_at_read(rd, i);
	if (r < 0)
		return r;
	/* The device may have grown since: the last copy is where the member ends. */
	end = offset[last];
	if (rd->best.sb)
		ter_sb_copy_offsets(rd->best.members->dev[rd->best.dev_idx].bytes, offset);
	if (offset[last] != end) {
		submit_read(rd, last, offset[last]);
		wait_read(rd, last);
	}
	return look_at_read(rd, last);
}

static unsigned bad_copies(const struct reader *rd)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < TER_SB_COPIES; i++)
		if (!rd->copy[i].valid || rd->copy[i].seq != rd->best.sb->seq || rd->copy[i].dev_idx != rd->best.dev_idx ||
		    memcmp(rd->copy[i].uuid, rd->best.sb->uuid, sizeof(rd->best.sb->uuid)) != 0)
			bad |= 1u << i;
	return bad;
}

static int fail_read(struct reader *rd, int r, struct ter_error *error)
{
	result_free(&rd->best);
	if (r == -ENODATA)
		return ter_fail_errno(error, r, "%s is not a member of a Terrace pool.", rd->bdev->path);
	return ter_fail(error, rd->why.kind, "%s: %s", rd->bdev->path, rd->why.text);
}

int ter_sb_read(struct ter_exec *exec, struct ter_bdev *bdev, struct ter_sb_read_result *ret, struct ter_error *error)
{
	struct reader rd = { .bdev = bdev };
	int r;

	if (TER_FAULT(fault_read) < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "%s: reading the superblock failed because a test asked for it.", bdev->path);
	if (bdev->info.bytes < TER_SB_AREA_BYTES + TER_SB_TAIL_BYTES + TER_SB_ALIGN)
		return ter_fail_errno(error, -ENODATA, "%s is too small to be a member of a Terrace pool.", bdev->path);
	if (bdev->info.logical_block_bytes > TER_SB_ALIGN)
		return ter_fail(error, TER_ERR_NOT_SUPPORTED, "%s has logical blocks of %u bytes; Terrace works with up to %u.", bdev->path,
				bdev->info.logical_block_bytes, TER_SB_ALIGN);

	rd.buf = ter_malloc_aligned((size_t)TER_SB_COPIES * TER_SB_BYTES_MAX, TER_SB_ALIGN);
	if (!rd.buf)
		return ter_fail_errno(error, -ENOMEM, "There is not enough memory to read the superblock.");
	r = read_copies(&rd);
	free(rd.buf);
	if (r < 0)
		return fail_read(&rd, r, error);
	if (!rd.best.sb)
		return fail_read(&rd, rd.r ? rd.r : -ENODATA, error);

	rd.best.bad_copies = bad_copies(&rd);
	*ret = rd.best;
	return 0;
}

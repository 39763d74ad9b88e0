/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of one batch share: its context, set aside per task. Theory in batch.c. */
#ifndef TER_BATCH_PRIV_H
#define TER_BATCH_PRIV_H

#include "data/data_priv.h"

#define SPACE_NONE UINT16_MAX
#define WRITE_ATTEMPTS_MAX 2 /* D8: elsewhere once */

struct frag { /* whole blocks in memory */
	uint64_t pos; /* in the file */
	uint32_t bytes;
	uint8_t *mem;
};

struct partial { /* a block that is completed */
	uint64_t pos;
	const struct ter_seg *seg; /* first that reaches into it */
	uint8_t *mem;
	bool read;
	struct ter_below below;
};

struct piece { /* becomes an extent */
	uint64_t start; /* sector of the file */
	uint32_t raw_sectors, stored_sectors;
	unsigned frag;
	const uint8_t *out; /* compressed */
	const uint8_t *csums;
	uint16_t csums_nr;
	uint16_t space;        /* SPACE_NONE: not written yet */
	uint32_t space_offset; /* sectors */
	uint8_t attempts;
	bool done;
};

struct write_space {
	struct ter_space space;
	uint32_t used_sectors;
	unsigned first, nr;    /* in ctx->order */
	_Atomic unsigned failed; /* bit per copy */
	unsigned good;         /* when all is written */
};

struct write_bio {
	struct ter_dev_bio dbio;
	struct ter_batch_ctx *ctx;
	struct write_space *space;
	unsigned copy;
};

struct batch_algos {
	char checksum_text[TER_OPT_ALGO_MAX], compression_text[TER_OPT_ALGO_MAX];
	bool valid;
	uint8_t csum_slot, digest_bytes, csum_block_log2, compression_slot;
	int level;
	const struct terrace_compression *compression; /* NULL: none */
};

struct ter_batch_ctx {
	struct ter_data *data;
	unsigned idx; /* also the write point */
	struct batch_algos algos;
	struct ter_event event;
	_Atomic unsigned pending;
	unsigned blocks_max, iov_max, bios_max;
	uint8_t *bounce, *out, *gather;
	size_t out_used;
	void *scratch;
	size_t scratch_bytes;
	struct frag *frags;
	unsigned frags_nr;
	struct partial *partials;
	unsigned partials_nr;
	struct piece *pieces;
	unsigned pieces_nr;
	uint8_t *csums;
	size_t csums_used;
	struct iovec *iov;
	unsigned iov_nr;
	unsigned *order;
	unsigned order_nr;
	struct write_space *spaces;
	unsigned spaces_nr;
	struct write_bio *bios;
	unsigned bios_nr;
	struct ter_extent *extents;
	struct ter_commit_mem *commit;
};

/* batch.c */
void ter_ctx_begin_(struct ter_batch_ctx *ctx); /* pending is 1: ours */
void ter_ctx_wait_(struct ter_batch_ctx *ctx);  /* for all but ours */
unsigned ter_piece_iov_(const struct ter_batch_ctx *ctx, const struct piece *piece, uint64_t skip_bytes, uint64_t bytes, struct iovec *iov);
/* batch_algos.c: what options say now; slots are in the superblock on disk. */
int ter_batch_algos_(struct ter_batch_ctx *ctx);
/* batch_write.c */
int ter_batch_write_(struct ter_batch_ctx *ctx, struct ter_batch *batch);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the read path share. Theory in read.c. */
#ifndef TER_READ_PRIV_H
#define TER_READ_PRIV_H

#include "data/data_priv.h"

#define RD_INLINE_GAPS 8
#define RD_INLINE_PIECES 8
#define RD_INLINE_CSUM_BYTES 1024

struct rd_gap { /* bytes that dirty segments do not cover */
	uint64_t from, to;
};

struct rd_piece { /* what one extent has of a gap */
	struct ter_extent extent; /* csums: those of [stored_from, stored_from + stored_bytes), at csum_at in op->csums */
	uint64_t from, to;        /* bytes of the file */
	uint8_t *dst;             /* where the byte at `from` goes */
	uint32_t stored_from, stored_bytes; /* what must be read of a copy: whole checksum blocks, or all if compressed */
	uint32_t csum_at;
	uint32_t bounce_at;       /* in op->bounce, where not direct */
	bool direct;
	uint8_t copy;             /* chosen pointer */
	int result;
};

struct rd_op {
	struct ter_data *data;
	struct ter_file *file;
	uint64_t from, to;        /* wanted */
	uint8_t *buf;             /* for the byte at `from` */
	bool below;               /* without dirty segments */
	struct rd_gap *gaps;
	unsigned gaps_nr, gaps_max, gap; /* gap: cursor of the scan */
	uint64_t filled_to;       /* within the current gap: bytes before are there or have a piece */
	struct rd_piece *pieces;
	unsigned pieces_nr, pieces_max;
	uint8_t *csums;
	size_t csums_used, csums_max;
	uint8_t *bounce;
	size_t bounce_bytes;
	void *bios;               /* struct rd_bio, then their iovecs */
	_Atomic unsigned pending;
	_Atomic bool again;       /* some piece needs the slow path */
	int result;               /* of what needs no device */
	uint64_t bad_from;        /* first byte that cannot be read */
	void (*done)(struct rd_op *op);
	void *arg;
	struct ter_work work;
	struct rd_gap gaps_inline[RD_INLINE_GAPS];
	struct rd_piece pieces_inline[RD_INLINE_PIECES];
	uint8_t csums_inline[RD_INLINE_CSUM_BYTES];
};

/* read.c */
void ter_rd_init_(struct rd_op *op, struct ter_data *data, struct ter_file *file, uint64_t from, uint64_t to, void *buf, bool below);
void ter_rd_exit_(struct rd_op *op);
/* Dirty segments, holes and inline data are copied; pieces are what must be read. -EAGAIN with @nowait. */
int ter_rd_gather_(struct rd_op *op, bool nowait);
/* Check what was read of a piece (its stored bytes at @mem), decompress, copy to its place. -EBADMSG. */
int ter_rd_finish_piece_(struct rd_op *op, struct rd_piece *piece, uint8_t *mem);
/* The best online copy of those not in @tried; -1: none. */
int ter_rd_choose_(struct ter_data *data, const struct ter_extent *extent, unsigned tried);
/* read_slow.c: blocking; pieces whose result is negative. */
void ter_rd_slow_(struct ter_work *work);
/* repair.c */
void ter_repair_queue_(struct ter_data *data, struct ter_file *file, const struct ter_extent *extent, unsigned bad_copy);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Payloads of journal records, to and from disk
 *
 * Encoders write to what ter_journal_add() returned for a record of the *_bytes() given; they cannot fail. Decoders take hostile bytes and validate all of them:
 * 0, or -EUCLEAN with nothing set. A DATA decoder points into the payload.
 */
#ifndef TER_JOURNAL_ENCODE_H
#define TER_JOURNAL_ENCODE_H

#include "journal/journal.h"
#include "journal/journal_format.h"

/* --- ROOT (the record's header: btree, and level if present, else 0) --- */
#define TER_JREC_ROOT_BYTES ((uint32_t)sizeof(struct ter_root_disk))
void ter_jrec_root_encode(const struct ter_root *root, void *payload);
int ter_jrec_root_decode(const struct ter_jrec *rec, struct ter_root *ret);

/* --- DATA --- */
struct ter_jrec_data {
	uint64_t inum, offset_bytes;
	uint32_t bytes;
	const void *data;
};
static inline uint32_t ter_jrec_data_bytes(uint32_t bytes)
{
	return sizeof(struct ter_jrec_data_disk) + bytes;
}
void *ter_jrec_data_encode(uint64_t inum, uint64_t offset_bytes, uint32_t bytes, void *payload); /* returns where the bytes go */
int ter_jrec_data_decode(const struct ter_jrec *rec, struct ter_jrec_data *ret);

/* --- DATA_DONE --- */
struct ter_jrec_data_done {
	uint64_t inum, from_bytes, to_bytes, upto_seq;
};
#define TER_JREC_DATA_DONE_BYTES ((uint32_t)sizeof(struct ter_jrec_data_done_disk))
void ter_jrec_data_done_encode(const struct ter_jrec_data_done *done, void *payload);
int ter_jrec_data_done_decode(const struct ter_jrec *rec, struct ter_jrec_data_done *ret);

/* --- CLOCK --- */
struct ter_jrec_clock {
	uint64_t real_ns, next_node_seq, next_inum;
};
#define TER_JREC_CLOCK_BYTES ((uint32_t)sizeof(struct ter_jrec_clock_disk))
void ter_jrec_clock_encode(const struct ter_jrec_clock *clock, void *payload);
int ter_jrec_clock_decode(const struct ter_jrec *rec, struct ter_jrec_clock *ret);

/* --- REQUEST --- */
struct ter_jrec_request {
	uint64_t incarnation, unique;
	int32_t result;
};
#define TER_JREC_REQUEST_BYTES ((uint32_t)sizeof(struct ter_jrec_request_disk))
void ter_jrec_request_encode(const struct ter_jrec_request *request, void *payload);
int ter_jrec_request_decode(const struct ter_jrec *rec, struct ter_jrec_request *ret);

/* What can be said of a record without knowing btrees: its type is known, its payload decodes. */
int ter_jrec_check(const struct ter_jrec *rec, uint64_t entry_seq);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Payloads of journal records: encoding, and decoding of hostile bytes. */
#include "journal/journal_encode.h"

#include "sb/sb_format.h"

void ter_jrec_root_encode(const struct ter_root *root, void *payload)
{
	assert(!root->present || (root->nr_ptrs > 0 && root->nr_ptrs <= TER_BTREE_PTR_MAX));
	memset(payload, 0, sizeof(struct ter_root_disk));
	ter_root_encode(root, payload);
}

int ter_jrec_root_decode(const struct ter_jrec *rec, struct ter_root *ret)
{
	struct ter_root root;
	int r;

	if (rec->type != TER_JREC_ROOT || rec->bytes != TER_JREC_ROOT_BYTES)
		return -EUCLEAN;
	r = ter_root_decode(rec->payload, &root);
	if (r < 0)
		return r;
	if (root.btree != rec->btree || root.level != rec->level)
		return -EUCLEAN;
	*ret = root;
	return 0;
}

void *ter_jrec_data_encode(uint64_t inum, uint64_t offset_bytes, uint32_t bytes, void *payload)
{
	struct ter_jrec_data_disk *disk = payload;

	*disk = (struct ter_jrec_data_disk){
		.inum = ter_le64_make(inum), .offset_bytes = ter_le64_make(offset_bytes), .bytes = ter_le32_make(bytes),
	};
	return disk + 1;
}

int ter_jrec_data_decode(const struct ter_jrec *rec, struct ter_jrec_data *ret)
{
	const struct ter_jrec_data_disk *disk = rec->payload;
	struct ter_jrec_data data;

	if (rec->type != TER_JREC_DATA || rec->bytes <= sizeof(*disk))
		return -EUCLEAN;
	data.inum = ter_le64_get(disk->inum);
	data.offset_bytes = ter_le64_get(disk->offset_bytes);
	data.bytes = ter_le32_get(disk->bytes);
	data.data = disk + 1;
	if (data.bytes != rec->bytes - sizeof(*disk) || data.offset_bytes > (uint64_t)INT64_MAX - data.bytes)
		return -EUCLEAN;
	*ret = data;
	return 0;
}

void ter_jrec_data_done_encode(const struct ter_jrec_data_done *done, void *payload)
{
	struct ter_jrec_data_done_disk *disk = payload;

	assert(done->from_bytes < done->to_bytes);
	*disk = (struct ter_jrec_data_done_disk){
		.inum = ter_le64_make(done->inum),
		.from_bytes = ter_le64_make(done->from_bytes),
		.to_bytes = ter_le64_make(done->to_bytes),
		.upto_seq = ter_le64_make(done->upto_seq),
	};
}

int ter_jrec_data_done_decode(const struct ter_jrec *rec, struct ter_jrec_data_done *ret)
{
	const struct ter_jrec_data_done_disk *disk = rec->payload;
	struct ter_jrec_data_done done;

	if (rec->type != TER_JREC_DATA_DONE || rec->bytes != sizeof(*disk))
		return -EUCLEAN;
	done.inum = ter_le64_get(disk->inum);
	done.from_bytes = ter_le64_get(disk->from_bytes);
	done.to_bytes = ter_le64_get(disk->to_bytes);
	done.upto_seq = ter_le64_get(disk->upto_seq);
	if (done.from_bytes >= done.to_bytes)
		return -EUCLEAN;
	*ret = done;
	return 0;
}

void ter_jrec_clock_encode(const struct ter_jrec_clock *clock, void *payload)
{
	struct ter_jrec_clock_disk *disk = payload;

	*disk = (struct ter_jrec_clock_disk){
		.real_ns = ter_le64_make(clock->real_ns),
		.next_node_seq = ter_le64_make(clock->next_node_seq),
		.next_inum = ter_le64_make(clock->next_inum),
	};
}

int ter_jrec_clock_decode(const struct ter_jrec *rec, struct ter_jrec_clock *ret)
{
	const struct ter_jrec_clock_disk *disk = rec->payload;

	if (rec->type != TER_JREC_CLOCK || rec->bytes != sizeof(*disk))
		return -EUCLEAN;
	*ret = (struct ter_jrec_clock){
		.real_ns = ter_le64_get(disk->real_ns),
		.next_node_seq = ter_le64_get(disk->next_node_seq),
		.next_inum = ter_le64_get(disk->next_inum),
	};
	return 0;
}

void ter_jrec_request_encode(const struct ter_jrec_request *request, void *payload)
{
	struct ter_jrec_request_disk *disk = payload;

	*disk = (struct ter_jrec_request_disk){
		.incarnation = ter_le64_make(request->incarnation),
		.unique = ter_le64_make(request->unique),
		.result = ter_le32_make((uint32_t)request->result),
	};
}

int ter_jrec_request_decode(const struct ter_jrec *rec, struct ter_jrec_request *ret)
{
	const struct ter_jrec_request_disk *disk = rec->payload;

	if (rec->type != TER_JREC_REQUEST || rec->bytes != sizeof(*disk) || ter_le32_get(disk->zero))
		return -EUCLEAN;
	*ret = (struct ter_jrec_request){
		.incarnation = ter_le64_get(disk->incarnation),
		.unique = ter_le64_get(disk->unique),
		.result = (int32_t)ter_le32_get(disk->result),
	};
	return 0;
}

int ter_jrec_check(const struct ter_jrec *rec, uint64_t entry_seq)
{
	struct ter_root root;
	struct ter_jrec_data data;
	struct ter_jrec_data_done done;
	struct ter_jrec_clock clock;
	struct ter_jrec_request request;
	int r;

	switch (rec->type) {
	case TER_JREC_KEY:
		return rec->bytes ? 0 : -EUCLEAN;
	case TER_JREC_ROOT:
		return ter_jrec_root_decode(rec, &root);
	case TER_JREC_DATA:
		return ter_jrec_data_decode(rec, &data);
	case TER_JREC_DATA_DONE:
		r = ter_jrec_data_done_decode(rec, &done);
		return r < 0 ? r : done.upto_seq > entry_seq ? -EUCLEAN : 0;
	case TER_JREC_CLOCK:
		return ter_jrec_clock_decode(rec, &clock);
	case TER_JREC_REQUEST:
		return ter_jrec_request_decode(rec, &request);
	case TER_JREC_PAD:
	case TER_JREC_LOG:
		return 0;
	}
	return -EUCLEAN;
}

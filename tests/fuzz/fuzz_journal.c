/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A member's journal, read back
 *
 * Input: flags (1 byte: bit 0 magics and checksums are made right), then pieces that are put into a ring of RING_BUCKETS buckets: the block where it begins (2), its length (2), its
 * bytes. Whatever is read back is in order and within its memory, and each record decodes or is refused.
 */
#include "fuzz.h"
#include "real_codecs.h"
#include "io/sim.h"
#include "journal/journal_priv.h"
#include "values.h"

const size_t fuzz_memory_max = 64 << 20;

#define BLOCK_BYTES 512u
#define RING_BUCKETS 8u
#define RING_FIRST 4u
#define PIECES_MAX 64u
#define PATH "/member"

struct run {
	struct fuzz_in in;
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_sim *sim;
	struct ter_members *members;
};

static void make_right(uint8_t *bytes, size_t nr)
{
	const struct ter_sb *sb = fuzz_sb();
	struct ter_jentry_disk *head = (void *)bytes;
	uint32_t payload;

	if (nr < sizeof(*head))
		return;
	head->magic = ter_le64_make(ter_journal_magic_(sb));
	payload = ter_le32_get(head->payload_bytes);
	if (payload > nr - sizeof(*head)) {
		payload = (uint32_t)ter_round_down(nr - sizeof(*head), 8);
		head->payload_bytes = ter_le32_make(payload);
	}
	if (!ter_algos_checksum(&sb->algos, head->csum_slot))
		head->csum_slot = 1;
	memset(head->csum, 0, sizeof(head->csum));
	ter_algos_digest(&sb->algos, head->csum_slot, bytes, sizeof(*head) + payload, head->csum);
}

static void put_pieces(struct run *run)
{
	const uint64_t bucket_bytes = (uint64_t)fuzz_dev()->bucket_sectors * TER_SECTOR_BYTES, blocks = RING_BUCKETS * bucket_bytes / BLOCK_BYTES;
	const bool right = fuzz_take(&run->in, 1) & 1;

	for (unsigned i = 0; i < PIECES_MAX && run->in.left; i++) {
		uint64_t at = fuzz_take(&run->in, 2) % blocks * BLOCK_BYTES;
		size_t bytes = fuzz_take(&run->in, 2);
		uint8_t *piece = fuzz_dup(&run->in, ter_min(bytes, (size_t)(blocks * BLOCK_BYTES - at)), &bytes);

		if (right)
			make_right(piece, bytes);
		fuzz_check(ter_sim_poke(run->sim, PATH, RING_FIRST * bucket_bytes + at, piece, bytes) == 0);
		free(piece);
	}
}

static void use_record(const struct ter_jrec *rec)
{
	struct ter_jrec_request request;
	struct ter_jrec_data_done done;
	struct ter_jrec_clock clock;
	struct ter_jrec_data data;
	struct ter_root root;

	if (ter_jrec_root_decode(rec, &root) == 0)
		fuzz_check(!root.present || root.nr_ptrs <= TER_BTREE_PTR_MAX);
	if (ter_jrec_data_decode(rec, &data) == 0)
		fuzz_check(data.bytes && (const uint8_t *)data.data + data.bytes == (const uint8_t *)rec->payload + rec->bytes);
	if (ter_jrec_data_done_decode(rec, &done) == 0)
		fuzz_check(done.from_bytes < done.to_bytes);
	(void)ter_jrec_clock_decode(rec, &clock);
	(void)ter_jrec_request_decode(rec, &request);
	if (rec->type == TER_JREC_KEY && ter_key_check(rec->payload, rec->bytes) == (int)rec->bytes)
		fuzz_value(rec->payload);
}

static void use(const struct ter_journal_replay *replay)
{
	const uint8_t *memory = replay->memory;
	size_t total = 0;

	for (unsigned i = 0; i < replay->nr; i++) {
		const struct ter_journal_entry *entry = &replay->entry[i];
		struct ter_jrec rec;
		uint32_t pos = 0;

		fuzz_check(!i || entry->seq > replay->entry[i - 1].seq);
		fuzz_check(entry->seq < replay->next_seq && entry->last_seq <= entry->seq && entry->recs == memory + total);
		while (ter_jrec_next(entry, &pos, &rec)) {
			fuzz_check((const uint8_t *)rec.payload + rec.bytes <= entry->recs + entry->bytes);
			use_record(&rec);
		}
		fuzz_check(pos == entry->bytes);
		total += entry->bytes;
	}
}

static void read_back(void *arg)
{
	struct run *run = arg;
	struct ter_dev *dev = &run->members->dev[0];
	struct ter_journal_replay *replay = NULL;
	struct ter_error error = { 0 };
	int r;

	fuzz_check(ter_bdev_open(run->io, PATH, 0, &dev->bdev, NULL) == 0);
	r = ter_journal_read(run->exec, (struct ter_sb *)fuzz_sb(), run->members, &replay, &error);
	if (r == 0)
		use(replay);
	else
		fuzz_check(error.text[0] && !replay);
	ter_journal_replay_free(replay);
	ter_bdev_close(dev->bdev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint64_t bytes = (uint64_t)(RING_FIRST + RING_BUCKETS) * fuzz_dev()->bucket_sectors * TER_SECTOR_BYTES;
	struct run run = { .in = { data, size }, .exec = ter_exec_new_coop(1), .members = calloc(1, sizeof(*run.members)) };

	fuzz_check(run.exec && run.members);
	run.sim = ter_sim_new(run.exec, 1, &run.io);
	fuzz_check(run.sim && ter_sim_add(run.sim, PATH, bytes, BLOCK_BYTES) == 0);
	run.members->nr_slots = 1;
	run.members->dev[0] = *fuzz_dev();
	run.members->dev[0].journal[0] = (struct ter_bucket_range){ RING_FIRST, RING_BUCKETS };
	put_pieces(&run);
	fuzz_check(ter_coop_run(run.exec, read_back, &run) == 0);
	ter_io_free(run.io);
	ter_exec_free(run.exec);
	free(run.members);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading back what is damaged, and bytes of records. */
#include "journal_rig.h"

#include "journal/journal_format.h"

#define ENTRIES 12

/* Two members with the same ENTRIES entries, each flushed, all needed. */
static struct rig *rig_with_entries(struct ter_exec *exec)
{
	struct rig *rig = rig_new(exec, 2, 8, 65536);
	uint64_t seq;

	rig->sb->options.metadata_replicas = 2;
	rig_start(rig, 1, NULL);
	for (unsigned i = 1; i <= ENTRIES; i++) {
		assert_int_equal(rig_tx(rig, i, 600, 0, i == 1, &seq, NULL), 0);
		assert_int_equal(seq, i);
		assert_int_equal(ter_journal_flush(rig->journal, seq), 0);
	}
	ter_journal_unpin(rig->journal, 1);
	rig_free_journal(rig);
	return rig;
}

/* Byte of the device at which the entry of @seq begins. */
static uint8_t *entry_at(struct rig *rig, unsigned dev, uint64_t seq)
{
	for (uint64_t at = 0; at + 4096 <= rig->dev[dev].bdev.info.bytes; at += 4096) {
		struct ter_jentry_disk *disk = (void *)(rig->dev[dev].image + at);

		if ((ter_le64_get(disk->magic) ^ TER_JENTRY_MAGIC) == *(uint64_t *)rig->sb->uuid && ter_le64_get(disk->seq) == seq)
			return (uint8_t *)disk;
	}
	fail_msg("no entry %llu", (unsigned long long)seq);
	return NULL;
}

static void expect_all(struct rig *rig, unsigned nr, unsigned bad_copies)
{
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };

	if (rig_read(rig, &replay, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(replay->nr, nr);
	assert_int_equal(replay->bad_copies, bad_copies);
	for (unsigned i = 0; i < nr; i++) {
		struct ter_jrec rec;
		uint32_t pos = 0;

		assert_int_equal(replay->entry[i].seq, i + 1);
		assert_true(replay->entry[i].flush);
		assert_true(ter_jrec_next(&replay->entry[i], &pos, &rec));
		assert_int_equal(rig_tx_id(&rec), i + 1);
		assert_false(ter_jrec_next(&replay->entry[i], &pos, &rec));
	}
	ter_journal_replay_free(replay);
}

static void expect_lost(struct rig *rig, enum ter_error_kind kind, const char *text)
{
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };

	assert_true(rig_read(rig, &replay, &error) < 0);
	assert_int_equal(error.kind, kind);
	if (!strstr(error.text, text))
		fail_msg("'%s' does not name '%s'", error.text, text);
}

static void damage_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_with_entries(exec);
	uint8_t *bad;

	expect_all(rig, ENTRIES, 0);

	/* One copy of one entry, in its payload: the other serves, the member is counted. */
	bad = entry_at(rig, 0, 5) + 100;
	*bad ^= 1;
	expect_all(rig, ENTRIES, 1);
	assert_int_equal(atomic_load(&rig->members->dev[0].errors[TER_DEV_ERR_CHECKSUM]), 1);
	assert_int_equal(atomic_load(&rig->members->dev[1].errors[TER_DEV_ERR_CHECKSUM]), 0);

	/* And other ones on the other member. */
	*(entry_at(rig, 1, 6) + 200) ^= 0x80;
	memset(entry_at(rig, 1, 7), 0, 4096); /* not even a header */
	expect_all(rig, ENTRIES, 2);

	/* Both copies. */
	*(entry_at(rig, 1, 5) + 101) ^= 1;
	expect_lost(rig, TER_ERR_CORRUPTED, "entry 5,");
	*(entry_at(rig, 1, 5) + 101) ^= 1;
	expect_all(rig, ENTRIES, 2);

	/* Neither header. */
	memset(entry_at(rig, 0, 7), 0, 64);
	expect_lost(rig, TER_ERR_CORRUPTED, "entry 7,");

	/* Entry 6 is good on the first member only, which may come back. */
	rig->members->dev[0].bdev = NULL;
	expect_lost(rig, TER_ERR_DEGRADED, "entry 6 ");
	rig_free(rig);
}

static void a_good_copy_serves_and_a_lost_entry_is_named(void **state)
{
	rig_run(true, rig_seed(), damage_main, NULL);
}

static void torn_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_with_entries(exec);
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };

	/* The newest entry torn on both: it never was; its number is not used again. */
	for (unsigned i = 0; i < 2; i++)
		memset(entry_at(rig, i, ENTRIES) + 512, 0xff, 512);
	expect_all(rig, ENTRIES - 1, 0);
	assert_int_equal(rig_read(rig, &replay, &error), 0);
	assert_int_equal(replay->next_seq, ENTRIES + 1);
	assert_int_equal(replay->blacklist_first, ENTRIES);
	assert_int_equal(replay->blacklist_last, ENTRIES);
	ter_journal_replay_free(replay);
	assert_int_equal(atomic_load(&rig->members->dev[0].errors[TER_DEV_ERR_CHECKSUM]), 0);

	/* Unless it was the last of a clean stop, which had to be there. */
	rig->sb->journal_seq_clean = ENTRIES;
	expect_lost(rig, TER_ERR_CORRUPTED, "entry 12,");
	rig->sb->journal_seq_clean = 0;

	/* A blacklisted sequence is neither believed nor missed. */
	rig->sb->blacklist[0].first = 4;
	rig->sb->blacklist[0].last = 6;
	rig->sb->blacklist_nr = 1;
	assert_int_equal(rig_read(rig, &replay, &error), 0);
	assert_int_equal(replay->nr, ENTRIES - 1 - 3);
	assert_int_equal(replay->entry[2].seq, 3);
	assert_int_equal(replay->entry[3].seq, 7);
	ter_journal_replay_free(replay);
	for (unsigned i = 0; i < 2; i++)
		memset(entry_at(rig, i, 5), 0, 4096);
	assert_int_equal(rig_read(rig, &replay, &error), 0);
	assert_int_equal(replay->nr, ENTRIES - 1 - 3);
	ter_journal_replay_free(replay);
	/* And the newest flush entry is not one of them. */
	rig->sb->blacklist[0].first = 9;
	rig->sb->blacklist[0].last = 99;
	for (unsigned i = 0; i < 2; i++)
		memset(entry_at(rig, i, 4), 0, 4096);
	expect_lost(rig, TER_ERR_CORRUPTED, "entry 4,");
	rig_free(rig);
}

static void torn_entries_never_were_and_blacklisted_ones_are_skipped(void **state)
{
	rig_run(true, rig_seed(), torn_main, NULL);
}

static void fresh_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_new(exec, 2, 8, 65536);
	struct ter_journal_replay *replay;
	struct ter_error error = { 0 };

	assert_int_equal(rig_read(rig, &replay, &error), 0);
	assert_int_equal(replay->nr, 0);
	assert_int_equal(replay->next_seq, 1);
	assert_true(replay->blacklist_first > replay->blacklist_last);
	ter_journal_replay_free(replay);
	rig_free(rig);
}

static void a_fresh_ring_is_empty(void **state)
{
	rig_run(true, rig_seed(), fresh_main, NULL);
}

/* Recompute the checksum after a field was changed: as someone would who means harm. */
static void resign(struct rig *rig, uint8_t *entry)
{
	struct ter_jentry_disk *disk = (void *)entry;
	uint32_t payload = ter_le32_get(disk->payload_bytes);

	memset(disk->csum, 0, sizeof(disk->csum));
	if (payload <= 4096 - sizeof(*disk) && ter_algos_checksum(&rig->sb->algos, disk->csum_slot)) {
		uint8_t csum[TER_DIGEST_MAX];

		ter_algos_digest(&rig->sb->algos, disk->csum_slot, disk, sizeof(*disk) + payload, csum);
		memcpy(disk->csum, csum, sizeof(csum));
	}
}

static void hostile_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_with_entries(exec);
	uint64_t seed = rig_seed();
	uint8_t keep[4096], *entry;
	unsigned refused = 0;

	rig->members->dev[1].bdev = NULL; /* one copy only */
	for (unsigned n = 0; n < 4000; n++) {
		struct ter_journal_replay *replay;
		struct ter_error error = { 0 };
		unsigned nr = 1 + rig_random(&seed) % 3;

		entry = entry_at(rig, 0, 1 + rig_random(&seed) % ENTRIES);
		memcpy(keep, entry, sizeof(keep));
		while (nr--) /* in header and record header mostly */
			entry[8 + rig_random(&seed) % 76] = (uint8_t)(rig_random(&seed) % 4 ? rig_random(&seed) : 0xff);
		if (rig_random(&seed) % 4)
			resign(rig, entry);
		if (rig_read(rig, &replay, &error) == 0)
			ter_journal_replay_free(replay);
		else
			refused++;
		memcpy(entry, keep, sizeof(keep));
	}
	assert_in_range(refused, 1000, 4000);
	rig->members->dev[1].bdev = &rig->dev[1].bdev;
	expect_all(rig, ENTRIES, 0);
	rig_free(rig);
}

static void record_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_with_entries(exec);
	struct ter_jrec_disk *rec = (void *)(entry_at(rig, 0, 3) + sizeof(struct ter_jentry_disk));
	struct ter_jrec_disk keep = *rec;

	rig->members->dev[1].bdev = NULL; /* one copy only */
	for (unsigned i = 0; i < 5; i++) {
		switch (i) {
		case 0: rec->type = 99; break;
		case 1: rec->zero = 1; break;
		case 2: rec->payload_bytes = ter_le32_make(601); break; /* beyond the entry */
		case 3: rec->payload_bytes = ter_le32_make(UINT32_MAX); break;
		case 4: rec->type = TER_JREC_CLOCK; break; /* which is not that long */
		}
		resign(rig, (uint8_t *)rec - sizeof(struct ter_jentry_disk));
		expect_lost(rig, TER_ERR_CORRUPTED, "entry 3 ");
		*rec = keep;
	}
	resign(rig, (uint8_t *)rec - sizeof(struct ter_jentry_disk));
	expect_all(rig, ENTRIES, 0);
	rig->members->dev[1].bdev = &rig->dev[1].bdev;
	rig_free(rig);
}

/* "None", with the digest that none has. */
static void unsummed_main(struct ter_exec *exec, void *arg)
{
	struct rig *rig = rig_with_entries(exec);
	struct ter_jentry_disk *disk = (void *)entry_at(rig, 0, 5), keep = *disk;

	disk->csum_slot = 0;
	memset(disk->csum, 0, sizeof(disk->csum));
	expect_all(rig, ENTRIES, 1);
	rig->members->dev[1].bdev = NULL; /* one copy only */
	expect_lost(rig, TER_ERR_DEGRADED, "entry 5 ");
	rig->members->dev[1].bdev = &rig->dev[1].bdev;
	*disk = keep;
	expect_all(rig, ENTRIES, 0);
	rig_free(rig);
}

static void hostile_bytes_are_refused_not_believed(void **state)
{
	rig_run(true, 0, record_main, NULL);
	rig_run(true, 0, unsummed_main, NULL);
	rig_run(false, 0, hostile_main, NULL);
}

/* --- payloads --- */

static void payloads_come_back_and_damaged_ones_do_not(void **state)
{
	uint64_t buf[32] = { 0 };
	struct ter_root root = { .btree = 5, .level = 2, .present = true, .node_seq = 7, .sectors_written = 9, .nr_ptrs = 2 }, root2;
	struct ter_jrec rec = { .type = TER_JREC_ROOT, .btree = 5, .level = 2, .payload = buf };
	struct ter_jrec_data_done done = { .inum = 1, .from_bytes = 2, .to_bytes = 3, .upto_seq = 4 }, done2;
	struct ter_jrec_request request = { .incarnation = 1, .unique = 2, .result = -5 }, request2;
	struct ter_jrec_clock clock = { .real_ns = 1, .next_node_seq = 2, .next_inum = 3 }, clock2;
	struct ter_jrec_data data;

	root.ptr[0].dev = 1, root.ptr[0].gen = 2, root.ptr[0].sector = 3;
	root.ptr[1].dev = 63, root.ptr[1].gen = UINT32_MAX, root.ptr[1].sector = UINT64_MAX;
	ter_jrec_root_encode(&root, buf);
	rec.bytes = TER_JREC_ROOT_BYTES;
	assert_int_equal(ter_jrec_root_decode(&rec, &root2), 0);
	assert_memory_equal(&root, &root2, sizeof(root));
	((uint8_t *)buf)[2] = TER_BTREE_PTR_MAX + 1; /* nr_ptrs */
	assert_int_equal(ter_jrec_root_decode(&rec, &root2), -EUCLEAN);
	((uint8_t *)buf)[2] = 2;
	((uint8_t *)buf)[16 + 12] = TER_DEVS_MAX;
	assert_int_equal(ter_jrec_root_decode(&rec, &root2), -EUCLEAN);
	((uint8_t *)buf)[16 + 12] = 1;
	rec.btree = 4; /* not the payload's */
	assert_int_equal(ter_jrec_root_decode(&rec, &root2), -EUCLEAN);

	memcpy(ter_jrec_data_encode(11, 4096, 5, buf), "bytes", 5);
	rec = (struct ter_jrec){ .type = TER_JREC_DATA, .bytes = ter_jrec_data_bytes(5), .payload = buf };
	assert_int_equal(ter_jrec_data_decode(&rec, &data), 0);
	assert_true(data.inum == 11 && data.offset_bytes == 4096 && data.bytes == 5);
	assert_memory_equal(data.data, "bytes", 5);
	rec.bytes--;
	assert_int_equal(ter_jrec_data_decode(&rec, &data), -EUCLEAN);
	rec.bytes++;
	buf[1] = htole64(INT64_MAX - 4);
	assert_int_equal(ter_jrec_data_decode(&rec, &data), -EUCLEAN);

	ter_jrec_data_done_encode(&done, buf);
	rec = (struct ter_jrec){ .type = TER_JREC_DATA_DONE, .bytes = TER_JREC_DATA_DONE_BYTES, .payload = buf };
	assert_int_equal(ter_jrec_data_done_decode(&rec, &done2), 0);
	assert_memory_equal(&done, &done2, sizeof(done));
	assert_int_equal(ter_jrec_check(&rec, 4), 0);
	assert_int_equal(ter_jrec_check(&rec, 3), -EUCLEAN);
	buf[2] = buf[1];
	assert_int_equal(ter_jrec_data_done_decode(&rec, &done2), -EUCLEAN);

	ter_jrec_clock_encode(&clock, buf);
	rec = (struct ter_jrec){ .type = TER_JREC_CLOCK, .bytes = TER_JREC_CLOCK_BYTES, .payload = buf };
	assert_int_equal(ter_jrec_clock_decode(&rec, &clock2), 0);
	assert_memory_equal(&clock, &clock2, sizeof(clock));
	rec.bytes -= 8;
	assert_int_equal(ter_jrec_clock_decode(&rec, &clock2), -EUCLEAN);

	ter_jrec_request_encode(&request, buf);
	rec = (struct ter_jrec){ .type = TER_JREC_REQUEST, .bytes = TER_JREC_REQUEST_BYTES, .payload = buf };
	assert_int_equal(ter_jrec_request_decode(&rec, &request2), 0);
	assert_true(request2.incarnation == 1 && request2.unique == 2 && request2.result == -5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_copy_serves_and_a_lost_entry_is_named),
		cmocka_unit_test(torn_entries_never_were_and_blacklisted_ones_are_skipped),
		cmocka_unit_test(a_fresh_ring_is_empty),
		cmocka_unit_test(hostile_bytes_are_refused_not_believed),
		cmocka_unit_test(payloads_come_back_and_damaged_ones_do_not),
	};

	setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure may be on another task's stack */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

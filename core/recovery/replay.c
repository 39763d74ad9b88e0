/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Replay: the journal's records into btrees and the dirty buffer. Theory in recovery.h. */
#include <stdio.h>

#include "journal/journal_encode.h"
#include "recovery/recovery.h"
#include "util/mem.h"

/* One key record, by reference. */
struct replay_key {
	const struct ter_key_disk *key;
	uint32_t order; /* of records in the journal: later is newer */
	uint8_t btree, level;
};

struct ter_recovery_keys {
	struct replay_key *keys;
	size_t nr, at; /* at: done before */
};

void ter_recovery_keys_free(struct ter_recovery_keys *list)
{
	if (list)
		free(list->keys);
	free(list);
}

static int corrupt(const struct ter_journal_entry *entry, const char *what, struct ter_error *error)
{
	return ter_fail(error, TER_ERR_CORRUPTED, "The journal's entry %llu holds %s that cannot be valid.", (unsigned long long)entry->seq, what);
}

static int check_key_record(const struct ter_jrec *rec)
{
	int r = ter_key_check(rec->payload, rec->bytes);

	if (r < 0)
		return r;
	return rec->btree < TER_BTREE_NR && rec->level < TER_BTREE_DEPTH_MAX ? 0 : -EUCLEAN;
}

static int count_records(const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers, struct ter_error *error)
{
	for (unsigned i = 0; i < replay->nr; i++) {
		const struct ter_journal_entry *entry = &replay->entry[i];
		struct ter_jrec rec;
		uint32_t pos = 0;

		numbers->entries++;
		numbers->bytes += entry->bytes;
		while (ter_jrec_next(entry, &pos, &rec)) {
			if (rec.type == TER_JREC_KEY) {
				if (check_key_record(&rec) < 0)
					return corrupt(entry, "a key", error);
				numbers->keys++;
			} else if (rec.type == TER_JREC_DATA) {
				numbers->data_records++;
			}
		}
	}
	return 0;
}

static int set_roots(struct ter_btrees *btrees, const struct ter_journal_replay *replay, struct ter_error *error)
{
	struct ter_root roots[TER_BTREE_NR];
	bool seen[TER_BTREE_NR] = { 0 };
	int r;

	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;
		uint32_t pos = 0;

		while (ter_jrec_next(&replay->entry[i], &pos, &rec)) {
			struct ter_root root;

			if (rec.type != TER_JREC_ROOT)
				continue;
			if (ter_jrec_root_decode(&rec, &root) < 0 || root.btree >= TER_BTREE_NR)
				return corrupt(&replay->entry[i], "a btree root", error);
			roots[root.btree] = root;
			seen[root.btree] = true;
		}
	}
	for (unsigned b = 0; b < TER_BTREE_NR; b++) {
		if (!seen[b])
			continue;
		r = ter_btrees_set_root(btrees, &roots[b]);
		if (r < 0)
			return ter_fail_errno(error, r, "The root of btree '%s' in the journal is not usable.", ter_btree_names[b]);
	}
	return 0;
}

static int collect_keys(const struct ter_journal_replay *replay, uint64_t nr, struct ter_recovery_keys *list)
{
	list->keys = nr ? ter_new_array(struct replay_key, nr) : NULL;
	if (nr && !list->keys)
		return -ENOMEM;
	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;
		uint32_t pos = 0;

		while (ter_jrec_next(&replay->entry[i], &pos, &rec)) {
			if (rec.type != TER_JREC_KEY)
				continue;
			list->keys[list->nr] = (struct replay_key){
				.key = rec.payload, .order = (uint32_t)list->nr, .btree = rec.btree, .level = rec.level,
			};
			list->nr++;
		}
	}
	return 0;
}

/* Highest level first, then btree, position, and age. */
static int cmp_keys(const void *pa, const void *pb)
{
	const struct replay_key *a = pa, *b = pb;
	int c;

	if (a->level != b->level)
		return a->level > b->level ? -1 : 1;
	if (a->btree != b->btree)
		return a->btree < b->btree ? -1 : 1;
	c = ter_pos_cmp(ter_key_disk_pos(a->key), ter_key_disk_pos(b->key));
	if (c)
		return c;
	return a->order < b->order ? -1 : a->order > b->order;
}

static bool same_place(const struct replay_key *a, const struct replay_key *b)
{
	return a->level == b->level && a->btree == b->btree && ter_pos_cmp(ter_key_disk_pos(a->key), ter_key_disk_pos(b->key)) == 0;
}

int ter_recovery_replay_roots(struct ter_btrees *btrees, const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers,
			      struct ter_recovery_keys **ret_keys, struct ter_error *error)
{
	struct ter_recovery_keys *list;
	int r;

	r = count_records(replay, numbers, error);
	if (r < 0)
		return r;
	r = set_roots(btrees, replay, error);
	if (r < 0)
		return r;
	ter_btrees_read_roots(btrees);
	list = ter_new(struct ter_recovery_keys);
	r = list ? collect_keys(replay, numbers->keys, list) : -ENOMEM;
	if (r < 0) {
		ter_recovery_keys_free(list);
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to replay %llu keys of the journal.",
				(unsigned long long)numbers->keys);
	}
	if (list->nr)
		qsort(list->keys, list->nr, sizeof(list->keys[0]), cmp_keys);
	*ret_keys = list;
	return 0;
}

int ter_recovery_replay_keys(struct ter_btrees *btrees, struct ter_recovery_keys *list, unsigned least_level, ter_recovery_skipped skipped, void *arg,
			     struct ter_error *error)
{
	int r;

	for (; list->at < list->nr && list->keys[list->at].level >= least_level; list->at++) {
		const struct replay_key *k = &list->keys[list->at];
		char text[64];

		if (list->at + 1 < list->nr && same_place(k, &list->keys[list->at + 1]))
			continue; /* a newer one follows */
		r = ter_btrees_replay_key(btrees, k->btree, k->level, k->key);
		if (skipped && (r == -EUCLEAN || r == -EBADMSG || r == -EIO))
			r = skipped(arg, k->btree, k->level, k->key);
		if (r < 0)
			return ter_fail_errno(error, r, "The journal's change of btree '%s' at %s cannot be applied: %s.",
					      ter_btree_names[k->btree], ter_pos_text(ter_key_disk_pos(k->key), text), strerror(-r));
	}
	return 0;
}

int ter_recovery_read_clock(const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers, struct ter_error *error)
{
	for (unsigned i = 0; i < replay->nr; i++) {
		struct ter_jrec rec;
		uint32_t pos = 0;

		while (ter_jrec_next(&replay->entry[i], &pos, &rec)) {
			struct ter_jrec_clock clock;

			if (rec.type != TER_JREC_CLOCK)
				continue;
			if (ter_jrec_clock_decode(&rec, &clock) < 0)
				return corrupt(&replay->entry[i], "a clock record", error);
			numbers->next_node_seq = ter_max(numbers->next_node_seq, clock.next_node_seq);
			numbers->next_inum = ter_max(numbers->next_inum, clock.next_inum);
		}
	}
	return 0;
}

struct lost {
	void (*fn)(void *arg, uint64_t inum, int r);
	void *arg;
};

static int not_readable(uint64_t inum, int r, const struct lost *lost, struct ter_error *error)
{
	if (!lost->fn || (r != -EUCLEAN && r != -EBADMSG && r != -EIO))
		return ter_fail_errno(error, r, "Inode %llu, whose data is in the journal, cannot be read.", (unsigned long long)inum);
	lost->fn(lost->arg, inum, r);
	return 0;
}

static int replay_one_data(struct ter_vfs *vfs, struct ter_data *data, const struct ter_journal_entry *entry, const struct ter_jrec *rec,
			   const struct lost *lost, struct ter_error *error)
{
	struct ter_jrec_data d;
	struct ter_file *file;
	int r;

	if (ter_jrec_data_decode(rec, &d) < 0)
		return corrupt(entry, "file data", error);
	r = ter_vfs_replay_file(vfs, d.inum, TER_SNAPSHOT_ROOT, &file);
	if (r == -ENOENT)
		return 0; /* deleted by a later entry */
	if (r < 0)
		return not_readable(d.inum, r, lost, error);
	r = ter_file_replay_data(data, file, entry->seq, d.offset_bytes, d.data, d.bytes);
	ter_vfs_replay_put(vfs, file);
	return r < 0 ? ter_fail_errno(error, r, "Data of inode %llu in the journal cannot be taken back.", (unsigned long long)d.inum) : 0;
}

static int replay_one_done(struct ter_vfs *vfs, struct ter_data *data, const struct ter_journal_entry *entry, const struct ter_jrec *rec,
			   const struct lost *lost, struct ter_error *error)
{
	struct ter_jrec_data_done d;
	struct ter_file *file;
	int r;

	if (ter_jrec_data_done_decode(rec, &d) < 0)
		return corrupt(entry, "a record of file data written", error);
	r = ter_vfs_replay_file(vfs, d.inum, TER_SNAPSHOT_ROOT, &file);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return not_readable(d.inum, r, lost, error);
	ter_file_replay_done(data, file, d.from_bytes, d.to_bytes, d.upto_seq);
	ter_vfs_replay_put(vfs, file);
	return 0;
}

int ter_recovery_replay_data(struct ter_vfs *vfs, struct ter_data *data, const struct ter_journal_replay *replay, struct ter_recovery_numbers *numbers,
			     void (*lost)(void *arg, uint64_t inum, int r), void *arg, struct ter_error *error)
{
	const struct lost told = { lost, arg };
	int r = 0;

	if (!numbers->data_records)
		return 0;
	for (unsigned i = 0; i < replay->nr; i++) {
		const struct ter_journal_entry *entry = &replay->entry[i];
		struct ter_jrec rec;
		uint32_t pos = 0;

		while (r >= 0 && ter_jrec_next(entry, &pos, &rec)) {
			if (rec.type == TER_JREC_DATA)
				r = replay_one_data(vfs, data, entry, &rec, &told, error);
			else if (rec.type == TER_JREC_DATA_DONE)
				r = replay_one_done(vfs, data, entry, &rec, &told, error);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

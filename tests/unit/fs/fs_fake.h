/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Btrees, journal and file data of memory, for tests of the room fs alone
 *
 * Transactions keep T1 and T3; what is committed is durable at once. File data lies in EXTENTS as INLINE_DATA keys of one block each, and in blocks of memory before write-back. The test can make
 * transactions restart, wait and fail.
 */
#ifndef FAKE_H
#define FAKE_H

#include "data/data.h"

struct fake_btrees {
	pthread_mutex_t mutex;
	struct { struct ter_key_disk **key; size_t nr, max; } tree[TER_BTREE_NR];
	uint64_t seq;
	/* faults */
	unsigned restart_every;  /* each nth commit is -ERESTART; 0: none */
	unsigned commits, reads;
	int64_t fail_in;         /* that many commits from now fail with fail_r, and all later ones; < 0: none */
	int fail_r;
	int64_t again_in;        /* that many reads and commits from now, those that may not wait are -EAGAIN; < 0: none */
	void (*after_commit)(void *arg); /* called once, after the next commit and before its author knows */
	void *after_commit_arg;
	bool eager;              /* data is written back before ter_file_write() returns */
	unsigned waited;         /* reads and commits that would have waited, and might, while again_in was 0 */
	uint64_t clock_inum;     /* largest bound in a CLOCK record */
	unsigned requests;       /* REQUEST records */
};
struct fake_btrees *fake_btrees_new(void);
void fake_btrees_free(struct fake_btrees *fb);
static inline struct ter_btrees *fake_bt(struct fake_btrees *fb)
{
	return (struct ter_btrees *)fb;
}
size_t fake_keys_nr(struct fake_btrees *fb, enum ter_btree_id btree);
/* Set (val NULL: delete) a key behind everyone's back. */
void fake_poke(struct fake_btrees *fb, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *key);

struct fake_data;
struct fake_data *fake_data_new(struct fake_btrees *fb);
void fake_data_drop_dirty(struct fake_data *fd); /* as a crash does: before the vfs goes */
void fake_data_free(struct fake_data *fd);

#endif

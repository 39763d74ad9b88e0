/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records of a running pool, found and changed behind its back: for tests of checking and repairing. */
#ifndef ENGINE_DAMAGE_H
#define ENGINE_DAMAGE_H

#include "btree/btree.h"
#include "engine_rig.h"

#define ENG_VAL_MAX 16384
struct eng_key {
	struct ter_key key; /* its value is val */
	uint64_t val[ENG_VAL_MAX / 8];
};

/* The first key of @btree for which @is says so (NULL: any). */
bool eng_find_key(struct eng *e, enum ter_btree_id btree, bool (*is)(const struct ter_key *key, void *arg), void *arg, struct eng_key *ret);
/* Puts (@key NULL: deletes) one key, whatever was there, with nothing derived from it. */
int eng_put_key(struct eng *e, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *key);
int eng_add_counter(struct eng *e, struct ter_pos pos, int64_t delta);
/* Of all keys of a btree: the same exactly when none differs. */
uint64_t eng_hash_btree(struct eng *e, enum ter_btree_id btree);

/* What a check says: how many, and the first few sentences. */
struct eng_report {
	int64_t nr;
	char text[2048];
};
int64_t eng_check(struct eng *e, struct eng_report *ret); /* a negative errno: it cannot run */

#endif

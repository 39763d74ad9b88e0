/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: a list of changes that were found, and making them where nothing changed meanwhile. */
#include "alloc/alloc_priv.h"
#include "alloc/alloc_repair.h"

#define TRANS_FIXES_MAX 128 /* of one transaction: it fits the smallest journal entry */

int ter_fixes_init(struct ter_fixes *f, struct ter_btrees *bt, struct ter_repair *repair, uint64_t memory_bytes)
{
	*f = (struct ter_fixes){ .bt = bt, .repair = repair, .max = (size_t)ter_max(memory_bytes / sizeof(struct ter_fix), (uint64_t)TRANS_FIXES_MAX) };
	f->fix = ter_calloc(f->max, sizeof(f->fix[0]));
	return f->fix ? 0 : -ENOMEM;
}

void ter_fixes_release(struct ter_fixes *f)
{
	free(f->fix);
	f->fix = NULL;
}

uint64_t ter_key_hash(const struct ter_key *key)
{
	const uint8_t *val = key->val;
	uint64_t h = 0xcbf29ce484222325ull ^ ((uint64_t)key->type << 56 | (uint64_t)key->val_version << 48 | key->val_bytes);

	h = (h ^ key->size) * 0x100000001b3ull;
	for (uint32_t i = 0; i < key->val_bytes; i++)
		h = (h ^ val[i]) * 0x100000001b3ull;
	return h ? h : 1;
}

void ter_fixes_set(struct ter_fixes *f, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *old, const struct ter_key *new_key)
{
	struct ter_fix *fix = &f->fix[f->nr++];

	assert(f->nr <= f->max);
	*fix = (struct ter_fix){ .pos = pos, .old_hash = old ? ter_key_hash(old) : 0, .btree = (uint8_t)btree, .type = TER_KEY_DELETED };
	if (!new_key)
		return;
	assert(new_key->val_bytes <= TER_FIX_VAL_MAX);
	fix->type = new_key->type;
	fix->size = new_key->size;
	fix->val_bytes = (uint8_t)new_key->val_bytes;
	if (new_key->val_bytes)
		memcpy(fix->val, new_key->val, new_key->val_bytes);
}

void ter_fixes_add(struct ter_fixes *f, struct ter_pos pos, const int64_t *deltas, unsigned nr)
{
	struct ter_fix *fix = &f->fix[f->nr++];

	assert(f->nr <= f->max && nr <= TER_COUNTERS_MAX);
	*fix = (struct ter_fix){ .pos = pos, .btree = TER_BTREE_ACCOUNTING, .add = true, .val_bytes = (uint8_t)(nr * 8) };
	memcpy(fix->val, deltas, nr * sizeof(deltas[0]));
}

/* 1: staged; 0: what is there is not what was seen. */
static int stage_fix(struct ter_trans *trans, const struct ter_fix *fix)
{
	struct ter_key old, key = { .pos = fix->pos, .size = fix->size, .val_bytes = fix->val_bytes, .type = fix->type, .val = fix->val };
	int r;

	if (fix->add)
		r = ter_trans_add(trans, fix->pos, (const int64_t *)fix->val, fix->val_bytes / 8u);
	else {
		r = ter_trans_get(trans, (enum ter_btree_id)fix->btree, fix->pos, &old);
		if (r < 0 && r != -ENOENT)
			return r;
		if (fix->old_hash != (r < 0 ? 0 : ter_key_hash(&old)))
			return 0;
		r = ter_trans_update(trans, (enum ter_btree_id)fix->btree, fix->pos, r < 0 ? TER_KEY_ABSENT : &old, fix->type == TER_KEY_DELETED ? NULL : &key);
	}
	return r < 0 ? r : 1;
}

static int apply_some(struct ter_fixes *f, struct ter_trans *trans, size_t at, size_t nr)
{
	unsigned staged = 0;
	int r;

	for (size_t i = at; i < at + nr; i++) {
		r = stage_fix(trans, &f->fix[i]);
		if (r < 0)
			return r;
		staged += (unsigned)r;
		f->raced |= r == 0;
	}
	r = ter_trans_commit(trans);
	if (r == -ERESTART) {
		f->raced = true;
		return 0;
	}
	if (r >= 0)
		f->applied_nr += staged;
	return r;
}

int ter_fixes_apply(struct ter_fixes *f)
{
	struct ter_trans trans;
	int r = 0;

	ter_trans_init(&trans, f->bt, 0);
	for (size_t at = 0; at < f->nr && r >= 0; at += TRANS_FIXES_MAX) {
		ter_trans_reset(&trans);
		r = apply_some(f, &trans, at, ter_min(f->nr - at, (size_t)TRANS_FIXES_MAX));
		if (r >= 0)
			r = ter_repair_step(f->repair, "repair", at, f->nr);
	}
	ter_trans_exit(&trans);
	f->nr = 0;
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records of a running pool, found and changed behind its back. */
#include "engine_damage.h"

#include <stdio.h>

#include "super/super_priv.h"

struct find {
	bool (*is)(const struct ter_key *key, void *arg);
	void *arg;
	struct eng_key *ret;
	bool found;
};

static int find_cb(void *arg, const struct ter_key *key)
{
	struct find *f = arg;

	if (key->val_bytes > ENG_VAL_MAX || (f->is && !f->is(key, f->arg)))
		return 0;
	f->ret->key = *key;
	if (key->val_bytes)
		memcpy(f->ret->val, key->val, key->val_bytes);
	f->ret->key.val = f->ret->val;
	f->found = true;
	return 1;
}

bool eng_find_key(struct eng *e, enum ter_btree_id btree, bool (*is)(const struct ter_key *key, void *arg), void *arg, struct eng_key *ret)
{
	struct find f = { is, arg, ret, false };

	return ter_btree_scan(e->fs->btrees, btree, TER_POS_MIN, TER_POS_MAX, 0, find_cb, &f, NULL) >= 0 && f.found;
}

struct put {
	enum ter_btree_id btree;
	struct ter_pos pos;
	const struct ter_key *key;
	int64_t delta;
};

static int put_fn(struct ter_trans *trans, void *arg)
{
	struct put *p = arg;

	if (p->delta)
		return ter_trans_add(trans, p->pos, &p->delta, 1);
	return ter_trans_update(trans, p->btree, p->pos, TER_KEY_ANY, p->key);
}

int eng_put_key(struct eng *e, enum ter_btree_id btree, struct ter_pos pos, const struct ter_key *key)
{
	struct put p = { .btree = btree, .pos = pos, .key = key };

	return ter_trans_run(e->fs->btrees, 0, put_fn, &p, NULL);
}

int eng_add_counter(struct eng *e, struct ter_pos pos, int64_t delta)
{
	struct put p = { .pos = pos, .delta = delta };

	return ter_trans_run(e->fs->btrees, 0, put_fn, &p, NULL);
}

static int hash_cb(void *arg, const struct ter_key *key)
{
	const uint64_t head[4] = { key->pos.inode, key->pos.offset, (uint64_t)key->pos.snapshot << 32 | key->size, (uint64_t)key->type << 32 | key->val_bytes };
	uint64_t *h = arg;

	*h = eng_hash_bytes(*h, head, sizeof(head));
	if (key->val_bytes)
		*h = eng_hash_bytes(*h, key->val, key->val_bytes);
	return 0;
}

uint64_t eng_hash_btree(struct eng *e, enum ter_btree_id btree)
{
	uint64_t h = 1;

	(void)ter_btree_scan(e->fs->btrees, btree, TER_POS_MIN, TER_POS_MAX, 0, hash_cb, &h, NULL);
	return h;
}

static void on_found(void *arg, const char *pass, const char *sentence)
{
	struct eng_report *r = arg;
	const size_t used = strlen(r->text);

	snprintf(r->text + used, sizeof(r->text) - used, "%s%s: %s", used ? "\n  " : "", pass, sentence);
}

int64_t eng_check(struct eng *e, struct eng_report *ret)
{
	const struct ter_fsck_report report = { .found = on_found, .arg = ret };

	*ret = (struct eng_report){ 0 };
	ter_error_clear(&e->error);
	ret->nr = ter_fs_fsck(e->fs, &report, NULL, &e->error);
	return ret->nr;
}

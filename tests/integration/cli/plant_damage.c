/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* plant-damage entry|space MEMBER…: takes away a directory entry (not one of the root), or shortens a free range, behind the filesystem's back, and stops it cleanly. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "super/super_priv.h"

struct plant {
	struct ter_key key;
	bool space, found;
};

static int find(void *arg, const struct ter_key *key)
{
	struct plant *p = arg;

	if (!p->space && key->pos.inode == TER_ROOT_INUM)
		return 0;
	p->key = *key;
	p->found = true;
	return 1;
}

static int plant(struct ter_trans *trans, void *arg)
{
	const struct plant *p = arg;
	struct ter_key shorter = { .pos = p->key.pos, .size = p->key.size - 1, .type = TER_KEY_FREE_RANGE };
	int r;

	if (!p->space)
		return ter_trans_update(trans, TER_BTREE_DIRENTS, p->key.pos, TER_KEY_ANY, NULL);
	shorter.pos.offset--;
	r = ter_trans_update(trans, TER_BTREE_FREESPACE, p->key.pos, TER_KEY_ANY, NULL);
	return r < 0 ? r : ter_trans_update(trans, TER_BTREE_FREESPACE, shorter.pos, TER_KEY_ANY, &shorter);
}

int main(int argc, char **argv)
{
	const struct ter_open_params open = { .paths = (const char *const *)argv + 2, .paths_nr = (unsigned)argc - 2, .degraded = -1 };
	struct plant p = { .space = argc > 1 && !strcmp(argv[1], "space") };
	struct ter_error error = { 0 };
	struct td_engine engine;
	struct ter_fs *fs;
	int r;

	if (argc < 3)
		return 2;
	r = td_engine_init(&engine, &(struct td_engine_params){ .allow_plugin_path = true }, &error);
	if (r >= 0)
		r = ter_fs_open(&engine.env, &open, NULL, NULL, &fs, &error);
	if (r >= 0)
		r = ter_fs_start(fs, NULL, &error);
	if (r >= 0)
		r = ter_btree_scan(fs->btrees, p.space ? TER_BTREE_FREESPACE : TER_BTREE_DIRENTS, TER_POS_MIN, TER_POS_MAX, 0, find, &p, NULL);
	if (r >= 0)
		r = p.found ? ter_trans_run(fs->btrees, 0, plant, &p, NULL) : -ENOENT;
	if (r >= 0)
		r = ter_fs_stop(fs, &error);
	if (r < 0) {
		fprintf(stderr, "plant-damage: %s (%s)\n", error.text, strerror(-r));
		return 1;
	}
	ter_fs_close(fs);
	td_engine_destroy(&engine);
	return 0;
}

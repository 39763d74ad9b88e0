/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What both rigs share. */
#include <stdio.h>
#include <time.h>

#include "fs_rig.h"

uint64_t rig_seed(void)
{
	const char *text = getenv("TER_TEST_SEED");

	return text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull | 1;
}

static void print_sentence(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	fprintf(stderr, "check, pass %s: %s\n", pass, sentence);
}

/* What the background is reaping meanwhile may be seen half: a contradiction is one that stays. */
#define LOOKS 50

int64_t rig_check(struct rig *rig)
{
	int64_t found = -1;

	for (unsigned i = 0; i < LOOKS && found; i++) {
		int r = ter_vfs_sync(rig->vfs);

		if (r < 0)
			return r;
		found = ter_vfs_check(rig->vfs, 0, i == LOOKS - 1 ? print_sentence : NULL, NULL, NULL, NULL);
		if (found)
			rig->exec->ops->yield(rig->exec);
	}
	return found;
}

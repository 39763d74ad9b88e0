/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long a get of a cached key and a commit of four updates take. Not a test: prints numbers. */
#include "btree_rig.h"

#include <time.h>

#define KEYS 20000u
#define GETS 2000000u
#define COMMITS 300000u

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts); /* what other tasks of the machine do is not our matter */
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static struct ter_pos pos_at(uint64_t i)
{
	return TER_POS(4096 + i / 16, i % 16 * 256, UINT32_MAX);
}

struct commit_arg {
	uint64_t *seed;
	bool fresh, by_old;
	uint64_t next;
};

static int four(struct ter_trans *trans, void *arg)
{
	struct commit_arg *c = arg;
	uint8_t val[96];
	int r = 0;

	memset(val, (int)*c->seed, sizeof(val));
	for (unsigned n = 0; n < 4 && r == 0; n++) {
		struct ter_pos pos = pos_at(c->fresh ? KEYS + c->next++ * 7919 % 4000000 : btree_rig_random(c->seed) % KEYS);
		struct ter_key key = { .pos = pos, .type = TER_KEY_XATTR, .val = val, .val_bytes = sizeof(val) }, old;

		if (c->by_old) {
			r = ter_trans_get(trans, n % 2 ? RIG_KEY : TER_BTREE_INODES, pos, &old);
			if (r < 0)
				return r;
		}
		r = ter_trans_update(trans, n % 2 ? RIG_KEY : TER_BTREE_INODES, pos, c->by_old ? &old : TER_KEY_ANY, &key);
	}
	return r;
}

static void fill(struct btree_rig *rig)
{
	uint8_t val[96] = { 1 };
	int r;

	for (unsigned i = 0; i < KEYS; i += 32) {
		struct ter_trans trans;

		ter_trans_init(&trans, rig->bt, 0);
		for (unsigned n = i; n < i + 32 && n < KEYS; n++)
			for (unsigned t = 0; t < 2; t++) {
				struct ter_key key = { .type = TER_KEY_XATTR, .val = val, .val_bytes = sizeof(val) };

				(void)ter_trans_update(&trans, t ? RIG_KEY : TER_BTREE_INODES, pos_at(n), TER_KEY_ANY, &key);
			}
		r = ter_trans_commit(&trans);
		if (r < 0) {
			fprintf(stderr, "commit: %d (%s)\n", r, rig->last_error);
			abort();
		}
		ter_trans_exit(&trans);
	}
}

static void gets(struct btree_rig *rig)
{
	uint64_t seed = 1;
	double start;

	start = now_s();
	for (unsigned i = 0; i < GETS; i += 8) {
		struct ter_trans trans;
		struct ter_key key;

		ter_trans_init(&trans, rig->bt, TER_TRANS_NOWAIT);
		for (unsigned n = 0; n < 8; n++)
			if (ter_trans_get(&trans, RIG_KEY, pos_at(btree_rig_random(&seed) % KEYS), &key) < 0)
				abort();
		ter_trans_exit(&trans);
	}
	printf("get of a cached key          %7.0f ns\n", (now_s() - start) / GETS * 1e9);
}

static void commits(struct btree_rig *rig, const char *what, struct commit_arg *c)
{
	double start = now_s();

	for (unsigned i = 0; i < COMMITS; i++)
		if (ter_trans_run(rig->bt, 0, four, c, NULL) < 0)
			abort();
	printf("%-28s %7.0f ns\n", what, (now_s() - start) / COMMITS * 1e9);
}

static void run(struct ter_exec *exec, void *arg)
{
	struct btree_rig_config config = {
		.devs = 1, .replicas = 1, .node_bytes = 262144, .block_bytes = 4096, .bucket_bytes = 1 << 20, .journal_buckets = 1024, .cache_bytes = 1u << 30, .slots = 8000,
	};
	struct btree_rig *rig = btree_rig_new(exec, 1, &config);
	uint64_t seed = 2;
	struct commit_arg c = { .seed = &seed };

	if (btree_rig_open(rig, true) < 0)
		abort();
	fill(rig);
	gets(rig);
	commits(rig, "commit of 4 overwrites", &c);
	c.by_old = true;
	commits(rig, "4 gets, commit of 4", &c);
	c.by_old = false;
	c.fresh = true;
	commits(rig, "commit of 4 new keys", &c);
	btree_rig_crash(rig);
	btree_rig_free(rig);
}

int main(void)
{
	btree_rig_run(false, 1, run, NULL);
	return 0;
}

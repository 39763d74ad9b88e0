/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools to begin from: formatted, filled with one of everything, stopped or cut off. */
#include "seed_pool.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"
#include "real_codecs.h"
#include "sb/sb_format.h"

#define FILES_NR 160u /* enough for leaves to have been split */

static const struct ter_op op;

const char *seed_path(unsigned dev)
{
	return dev ? "/fuzz-member1" : "/fuzz-member0";
}

/* --- what is in it --- */

static uint64_t make(struct ter_vfs *vfs, uint64_t dir, const char *name, uint32_t mode, const char *target)
{
	struct ter_attr attr;

	fuzz_check(ter_vfs_create(vfs, &op, dir, name, mode, 0, target, &attr) == 0);
	return attr.node;
}

static void put(struct ter_vfs *vfs, uint64_t node, uint64_t offset, size_t bytes, unsigned pattern)
{
	uint8_t *buf = malloc(bytes);
	const struct iovec iov = { buf, bytes };

	if (!buf)
		abort();
	for (size_t i = 0; i < bytes; i++)
		buf[i] = (uint8_t)(pattern + i / 64 + (i % 7) * 3);
	fuzz_check(ter_vfs_write(vfs, &op, node, offset, &iov, 1, false) == 0);
	free(buf);
}

static void fill(struct ter_fs *fs)
{
	static const uint8_t acl[] = { 2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255 };
	struct ter_vfs *vfs = ter_fs_vfs(fs);
	const uint64_t root = TER_NODE_ROOT, dir = make(vfs, root, "dir", S_IFDIR | 0755, NULL);
	uint64_t big, sparse, synced, orphan;
	char name[32];

	make(vfs, dir, "below", S_IFDIR | 0700, NULL);
	make(vfs, root, "link", S_IFLNK | 0777, "dir/file1");
	make(vfs, root, "fifo", S_IFIFO | 0644, NULL);
	for (unsigned i = 0; i < FILES_NR; i++) {
		uint64_t node;

		snprintf(name, sizeof(name), "file%u", i);
		node = make(vfs, dir, name, S_IFREG | 0644, NULL);
		if (i % 4 == 0)
			put(vfs, node, 0, 10 + i, i); /* inline */
	}
	fuzz_check(ter_vfs_link(vfs, &op, make(vfs, root, "two-names", S_IFREG | 0600, NULL), dir, "second", NULL) == 0);
	big = make(vfs, root, "big", S_IFREG | 0644, NULL);
	put(vfs, big, 0, 300000, 1);
	sparse = make(vfs, root, "sparse", S_IFREG | 0644, NULL);
	put(vfs, sparse, 65536, 10000, 2);
	put(vfs, sparse, 1 << 20, 5000, 3);
	fuzz_check(ter_vfs_fallocate(vfs, &op, sparse, 0, 200000, 100000) == 0);
	fuzz_check(ter_vfs_setxattr(vfs, &op, big, "user.some", "value", 5, 0) == 0);
	fuzz_check(ter_vfs_setxattr(vfs, &op, dir, "system.posix_acl_default", acl, sizeof(acl), 0) == 0);
	fuzz_check(ter_fs_sync(fs) == 0);
	put(vfs, big, 100000, 50000, 9); /* cuts extents */
	fuzz_check(ter_vfs_fallocate(vfs, &op, big, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 20000, 30000) == 0);
	fuzz_check(ter_vfs_unlink(vfs, &op, dir, "file7", &orphan) == 0);
	fuzz_check(ter_vfs_rename(vfs, &op, dir, "file8", root, "moved", 0, &orphan) == 0);
	fuzz_check(ter_fs_sync(fs) == 0);
	synced = make(vfs, root, "synced", S_IFREG | 0644, NULL);
	put(vfs, synced, 5000, 3000, 4); /* small: goes through the journal when it is synced */
}

struct sync_wait {
	struct ter_journal_waiter waiter;
	struct ter_event event;
};

static void sync_done(struct ter_journal_waiter *waiter, int r)
{
	ter_event_set(&ter_container_of(waiter, struct sync_wait, waiter)->event, r);
}

static void sync_file(struct ter_vfs *vfs, const char *name)
{
	struct sync_wait w = { .waiter.fn = sync_done };
	struct ter_attr attr;

	fuzz_check(ter_vfs_lookup(vfs, &op, TER_NODE_ROOT, name, &attr) == 0);
	ter_event_init(&w.event);
	fuzz_check(ter_vfs_fsync_async(vfs, &op, attr.node, false, &w.waiter) == 0);
	fuzz_check(ter_event_wait(&w.event) == 0);
	ter_event_destroy(&w.event);
}

/* --- machines --- */

void seed_machine_new(const struct seed_pool *pool, struct seed_machine *ret)
{
	*ret = (struct seed_machine){ .devs = pool->devs, .exec = ter_exec_new_coop(1) };
	fuzz_check(ret->exec);
	ret->sim = ter_sim_new(ret->exec, 1, &ret->io);
	fuzz_check(ret->sim);
	ret->env = (struct ter_env){ .exec = ret->exec, .io = ret->io, .codecs = fuzz_codecs() };
	for (unsigned i = 0; i < pool->devs; i++)
		fuzz_check(ter_sim_add(ret->sim, seed_path(i), SEED_DEV_BYTES, 512) == 0);
	for (unsigned i = 0; i < pool->blocks_nr; i++)
		fuzz_check(ter_sim_poke(ret->sim, seed_path(pool->blocks[i].dev), pool->blocks[i].offset_bytes, pool->blocks[i].bytes, SEED_BLOCK_BYTES) == 0);
}

void seed_machine_free(struct seed_machine *m)
{
	ter_io_free(m->io);
	ter_exec_free(m->exec);
}

void seed_run(struct seed_machine *m, void (*fn)(void *arg), void *arg)
{
	static char text[8192];

	if (ter_coop_run(m->exec, fn, arg) == 0)
		return;
	ter_coop_describe(m->exec, text, sizeof(text));
	fprintf(stderr, "everybody waits:\n%s\n", text);
	abort();
}

static void on_event(void *arg, struct ter_fs *fs, const struct ter_fs_event *event)
{
	(void)arg;
	(void)fs;
	fuzz_check(event->kind == TER_EVENT_STATE || (event->text && event->text[0]));
}

int seed_start(struct seed_machine *m, bool read_only, struct ter_fs **ret_fs)
{
	const char *paths[SEED_DEVS_MAX] = { seed_path(0), seed_path(1) };
	/* The limit is ours: up to a terabyte of it would be a superblock's good right to ask for. */
	const struct ter_open_params params = {
		.paths = paths, .paths_nr = m->devs, .degraded = TER_DEGRADED_VERY, .read_only = read_only, .memory_limit = TER_MIB(64),
	};
	struct ter_error error = { 0 };
	struct ter_fs *fs = NULL;
	int r;

	r = ter_fs_open(&m->env, &params, on_event, NULL, &fs, &error);
	if (r >= 0) {
		r = ter_fs_start(fs, NULL, &error);
		if (r < 0)
			ter_fs_close(fs);
	}
	if (r < 0) {
		fuzz_check(error.text[0]);
		return r;
	}
	*ret_fs = fs;
	return 0;
}

struct read_wait {
	struct ter_read read;
	struct ter_event event;
};

static void read_done(struct ter_read *read)
{
	ter_event_set(&ter_container_of(read, struct read_wait, read)->event, read->result);
}

int seed_read(struct ter_vfs *vfs, uint64_t node, uint64_t offset, void *buf, size_t bytes)
{
	struct read_wait w = { .read = { .offset = offset, .bytes = bytes, .buf = buf, .done = read_done } };
	int r;

	ter_event_init(&w.event);
	r = ter_vfs_read(vfs, &op, node, &w.read, true);
	if (r >= 0)
		r = ter_event_wait(&w.event);
	ter_event_destroy(&w.event);
	fuzz_check(r < 0 || w.read.bytes_done <= bytes);
	return r;
}

/* --- making one --- */

struct making {
	struct seed_machine *m;
	unsigned which, devs;
	char dir[64], path[SEED_DEVS_MAX][80];
};

static void format(void *arg)
{
	struct making *making = arg;
	struct ter_format_dev devs[SEED_DEVS_MAX];
	struct ter_options options;
	const struct ter_format_params params = { .label = "fuzz", .options = &options, .devs = devs, .devs_nr = making->devs };
	struct ter_error error = { 0 };
	uint8_t uuid[16];

	ter_options_default(&options);
	options.bucket_size = TER_KIB(64);
	options.btree_node_size = SEED_NODE_BYTES;
	options.metadata_replicas = options.data_replicas = (uint8_t)making->devs;
	options.memory_limit = TER_MIB(64);
	snprintf(options.compression.s, sizeof(options.compression.s), "%s", FUZZ_COMPRESSION);
	if (making->which == SEED_UNSUMMED)
		snprintf(options.data_checksum.s, sizeof(options.data_checksum.s), "none");
	for (unsigned i = 0; i < making->devs; i++)
		devs[i] = (struct ter_format_dev){ .path = making->path[i], .durability = -1, .discard = -1 };
	if (ter_fs_format(&making->m->env, &params, NULL, NULL, NULL, uuid, &error) < 0) {
		fprintf(stderr, "%s\n", error.text);
		abort();
	}
}

static void use(void *arg)
{
	struct making *making = arg;
	const char *paths[SEED_DEVS_MAX] = { making->path[0], making->path[1] };
	const struct ter_open_params params = { .paths = paths, .paths_nr = making->devs, .degraded = -1 };
	struct ter_fs *fs;

	fuzz_check(ter_fs_open(&making->m->env, &params, on_event, NULL, &fs, NULL) == 0);
	fuzz_check(ter_fs_start(fs, NULL, NULL) == 0);
	fill(fs);
	if (making->which == SEED_CRASHED || making->which == SEED_MIRROR) {
		sync_file(ter_fs_vfs(fs), "synced");
		ter_sim_power_off_after(making->m->sim, 0);
	} else {
		fuzz_check(ter_fs_stop(fs, NULL) == 0);
	}
	ter_fs_close(fs);
}

static void keep(const struct making *making, struct seed_pool *pool)
{
	uint8_t block[SEED_BLOCK_BYTES];
	static const uint8_t zeros[SEED_BLOCK_BYTES];

	for (unsigned dev = 0; dev < making->devs; dev++)
		for (uint64_t at = 0; at < SEED_DEV_BYTES; at += SEED_BLOCK_BYTES) {
			fuzz_check(ter_sim_peek(making->m->sim, making->path[dev], at, block, sizeof(block)) == 0);
			if (!memcmp(block, zeros, sizeof(block)))
				continue;
			if (!(pool->blocks_nr & (pool->blocks_nr + 1))) {
				pool->blocks = realloc(pool->blocks, (2 * pool->blocks_nr + 2) * sizeof(*pool->blocks));
				fuzz_check(pool->blocks);
			}
			pool->blocks[pool->blocks_nr++] = (struct seed_block){ at, dev, malloc(sizeof(block)) };
			fuzz_check(pool->blocks[pool->blocks_nr - 1].bytes);
			memcpy(pool->blocks[pool->blocks_nr - 1].bytes, block, sizeof(block));
		}
}

static void read_sb(const struct making *making, struct seed_pool *pool)
{
	uint8_t *buf = malloc(TER_SB_BYTES_MAX);
	struct ter_members *members;
	unsigned idx;

	fuzz_check(buf && ter_sim_peek(making->m->sim, making->path[0], TER_SB_SLOT0_BYTES, buf, TER_SB_BYTES_MAX) == 0);
	fuzz_check(ter_sb_decode(buf, TER_SB_BYTES_MAX, &pool->sb, &members, &idx, NULL) == 0);
	fuzz_check(ter_sb_bind_algos(pool->sb, fuzz_codecs(), NULL) == 0);
	free(members);
	free(buf);
}

/* Whether a path is a file that holds something is asked of the system: empty files say no. */
static void make_pool(unsigned which, struct seed_pool *pool)
{
	struct seed_machine m = { .exec = ter_exec_new_coop(which + 1) };
	struct making making = { .m = &m, .which = which, .devs = which == SEED_MIRROR ? 2 : 1, .dir = "/tmp/ter-fuzz-XXXXXX" };
	const struct ter_sim_cut cut = { .at = TER_SIM_NOW, .keep = TER_SIM_KEEP_ALL };

	m.sim = ter_sim_new(m.exec, which, &m.io);
	m.env = (struct ter_env){ .exec = m.exec, .io = m.io, .codecs = fuzz_codecs() };
	fuzz_check(m.sim && mkdtemp(making.dir));
	for (unsigned i = 0; i < making.devs; i++) {
		int fd;

		snprintf(making.path[i], sizeof(making.path[i]), "%s/member%u", making.dir, i);
		fd = open(making.path[i], O_CREAT | O_RDWR | O_CLOEXEC, 0600);
		fuzz_check(fd >= 0 && ter_sim_add(m.sim, making.path[i], SEED_DEV_BYTES, 512) == 0);
		close(fd);
	}
	seed_run(&m, format, &making);
	ter_sim_record(m.sim, true);
	seed_run(&m, use, &making);
	ter_sim_cut(m.sim, &cut);
	pool->devs = making.devs;
	keep(&making, pool);
	read_sb(&making, pool);
	for (unsigned i = 0; i < making.devs; i++)
		unlink(making.path[i]);
	rmdir(making.dir);
	seed_machine_free(&m);
}

const struct seed_pool *seed_pool(unsigned which)
{
	static struct seed_pool pools[SEED_NR];

	if (!pools[which].devs)
		make_pool(which, &pools[which]);
	return &pools[which];
}

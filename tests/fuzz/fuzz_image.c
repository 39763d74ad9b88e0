/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole pool
 *
 * Input: which seed pool (1 byte, seed_pool.h), how it is looked at (1: LOOK_*), then edits (seed_places.h), at most EDITS_MAX. The edited pool is opened and started read-only, and
 * read-write; each time everything is listed and read, and fsck run; read-write some work is done. Errors are fine when they say what is wrong. A read-only start writes nothing;
 * listings end.
 */
#include <fcntl.h>

#include "fuzz.h"
#include "seed_places.h"

const size_t fuzz_memory_max = 10 * SEED_DEV_BYTES;

#define EDITS_MAX 16u
#define NODES_MAX 300u
#define ENTRIES_MAX 5000u /* of one listing; a pool has fewer than that */
#define READ_BYTES 65536u

enum { LOOK_NOT_RO = 1, LOOK_NOT_RW = 2, LOOK_NO_FSCK = 4 };

static const struct ter_op op;

struct looking {
	struct seed_machine m;
	unsigned how;
	struct ter_fs *fs;
	struct ter_vfs *vfs;
	bool read_only;
	uint64_t node[NODES_MAX];
	unsigned nodes_nr;
	/* of one listing */
	uint64_t dir, cookie;
	unsigned entries;
	char name[8][TER_NAME_MAX + 1]; /* some of what was seen there */
	unsigned names_nr;
};

/* --- looking --- */

static void remember(struct looking *l, uint64_t node)
{
	for (unsigned i = 0; i < l->nodes_nr; i++)
		if (l->node[i] == node)
			return;
	if (l->nodes_nr < NODES_MAX)
		l->node[l->nodes_nr++] = node;
}

static int on_entry(void *arg, const struct ter_dirent *d)
{
	struct looking *l = arg;

	fuzz_check(d->name_bytes && d->name_bytes <= TER_NAME_MAX && d->name[d->name_bytes] == '\0');
	fuzz_check(d->cookie > l->cookie && d->cookie < 1ull << 63);
	fuzz_check(++l->entries < ENTRIES_MAX);
	l->cookie = d->cookie;
	remember(l, d->node);
	if (l->names_nr < ARRAY_SIZE(l->name) && d->cookie > 2)
		memcpy(l->name[l->names_nr++], d->name, d->name_bytes + 1);
	return l->entries % 37 == 0; /* now and then it has to begin again in the middle */
}

static void list(struct looking *l, uint64_t dir, bool attrs)
{
	unsigned before;
	int r;

	l->cookie = l->entries = l->names_nr = 0;
	do {
		before = l->entries;
		r = ter_vfs_readdir(l->vfs, &op, dir, l->cookie, attrs, on_entry, l);
	} while (r >= 0 && l->entries > before);
}

static void look_up(struct looking *l, uint64_t dir)
{
	struct ter_attr attr;

	for (unsigned i = 0; i < l->names_nr; i++)
		(void)ter_vfs_lookup(l->vfs, &op, dir, l->name[i], &attr);
	(void)ter_vfs_lookup(l->vfs, &op, dir, "no such name", &attr);
	(void)ter_vfs_lookup(l->vfs, &op, dir, "..", &attr);
}

static void read_file(struct looking *l, uint64_t node, uint64_t size)
{
	static uint8_t buf[READ_BYTES];
	uint64_t at = 0, found;

	for (unsigned i = 0; i < 8 && at < size; i++, at += READ_BYTES)
		(void)seed_read(l->vfs, node, at, buf, READ_BYTES);
	if (size > READ_BYTES)
		(void)seed_read(l->vfs, node, size - READ_BYTES + 1, buf, READ_BYTES);
	(void)seed_read(l->vfs, node, 1ull << 20, buf, READ_BYTES);
	at = 0;
	for (unsigned i = 0; i < 16; i++) {
		if (ter_vfs_lseek(l->vfs, &op, node, at, i % 2 ? SEEK_HOLE : SEEK_DATA, &found) < 0)
			break;
		fuzz_check(found >= at);
		at = found;
	}
}

static void read_xattrs(struct looking *l, uint64_t node)
{
	static char names[65536], value[65536];
	const ssize_t bytes = ter_vfs_listxattr(l->vfs, &op, node, names, sizeof(names));

	for (ssize_t at = 0; at < bytes; at += (ssize_t)strlen(names + at) + 1) {
		fuzz_check(memchr(names + at, 0, (size_t)(bytes - at)));
		(void)ter_vfs_getxattr(l->vfs, &op, node, names + at, value, sizeof(value));
	}
}

static void look_at(struct looking *l, uint64_t node)
{
	char target[TER_SYMLINK_MAX + 1];
	struct ter_attr attr;

	if (ter_vfs_getattr(l->vfs, &op, node, &attr) < 0)
		return;
	if (ter_vfs_readlink(l->vfs, &op, node, target) == 0)
		fuzz_check(strlen(target) <= TER_SYMLINK_MAX);
	if (S_ISDIR(attr.mode)) {
		list(l, node, false);
		list(l, node, true);
		look_up(l, node);
	}
	if (S_ISREG(attr.mode))
		read_file(l, node, attr.size);
	read_xattrs(l, node);
}

static void look_everywhere(struct looking *l)
{
	l->nodes_nr = 0;
	remember(l, TER_NODE_ROOT);
	for (unsigned i = 0; i < l->nodes_nr; i++)
		look_at(l, l->node[i]);
}

static void on_found(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	fuzz_check(pass[0] && sentence[0]);
}

static void check(struct looking *l)
{
	const struct ter_fsck_report report = { .found = on_found };
	struct ter_error error = { 0 };

	if (ter_fs_fsck(l->fs, &report, NULL, &error) < 0)
		fuzz_check(error.text[0]);
}

static void ask(struct looking *l)
{
	static struct ter_fs_device devices[TER_DEVS_MAX];
	static struct ter_fs_replicas_row rows[TER_REPLICAS_ENTRIES_MAX];
	static struct ter_fs_compression_row compression[TER_ALGO_SLOTS_MAX];
	static struct ter_fs_status status;

	ter_fs_get_status(l->fs, &status);
	fuzz_check(ter_fs_get_devices(l->fs, devices, TER_DEVS_MAX) <= TER_DEVS_MAX);
	fuzz_check(ter_fs_get_missing(l->fs, devices, TER_DEVS_MAX) <= TER_DEVS_MAX);
	(void)ter_fs_get_replicas(l->fs, rows, ARRAY_SIZE(rows));
	(void)ter_fs_get_compression(l->fs, compression, ARRAY_SIZE(compression));
}

/* --- working --- */

static void write_some(struct looking *l, uint64_t node, uint64_t offset, size_t bytes)
{
	static uint8_t buf[200000];
	const struct iovec iov = { buf, bytes };

	memset(buf, 0x77, bytes);
	(void)ter_vfs_write(l->vfs, &op, node, offset, &iov, 1, false);
}

static void work_in(struct looking *l, uint64_t dir)
{
	struct ter_attr attr;
	uint64_t orphan = 0;

	list(l, dir, false);
	if (ter_vfs_create(l->vfs, &op, dir, "new", S_IFREG | 0644, 0, NULL, &attr) == 0) {
		write_some(l, attr.node, 0, 100);
		write_some(l, attr.node, 50000, 150000);
		(void)ter_vfs_link(l->vfs, &op, attr.node, dir, "newer", NULL);
	}
	(void)ter_vfs_create(l->vfs, &op, dir, "newdir", S_IFDIR | 0755, 0, NULL, &attr);
	for (unsigned i = 0; i < l->names_nr; i++) {
		orphan = 0;
		if (i % 3 == 0 && ter_vfs_unlink(l->vfs, &op, dir, l->name[i], &orphan) == 0 && orphan)
			ter_vfs_forget(l->vfs, orphan);
		else if (i % 3 == 1)
			(void)ter_vfs_rename(l->vfs, &op, dir, l->name[i], TER_NODE_ROOT, "renamed", 0, &orphan);
		else if (i % 3 == 2)
			(void)ter_vfs_rmdir(l->vfs, &op, dir, l->name[i], &orphan);
	}
}

static void work_on(struct looking *l, uint64_t node)
{
	struct ter_attr attr = { .size = 77777 };

	(void)ter_vfs_setxattr(l->vfs, &op, node, "user.some", "other", 5, 0);
	(void)ter_vfs_removexattr(l->vfs, &op, node, "user.some");
	write_some(l, node, 30000, 70000);
	(void)ter_vfs_setattr(l->vfs, &op, node, &attr, TER_SET_SIZE, NULL);
	(void)ter_vfs_fallocate(l->vfs, &op, node, 0, 100000, 100000);
	(void)ter_vfs_fallocate(l->vfs, &op, node, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 60000);
	attr.mode = 0751;
	(void)ter_vfs_setattr(l->vfs, &op, node, &attr, TER_SET_MODE, NULL);
}

static void work(struct looking *l)
{
	unsigned files = 0, dirs = 0;
	struct ter_attr attr;

	for (unsigned i = 0; i < l->nodes_nr; i++) {
		if (ter_vfs_getattr(l->vfs, &op, l->node[i], &attr) < 0)
			continue;
		if (S_ISDIR(attr.mode) && dirs++ < 3)
			work_in(l, l->node[i]);
		else if (!S_ISDIR(attr.mode) && files++ < 12)
			work_on(l, l->node[i]);
	}
	(void)ter_fs_sync(l->fs);
}

/* --- a run --- */

static void run(void *arg)
{
	struct looking *l = arg;
	struct ter_error error = { 0 };

	if (seed_start(&l->m, l->read_only, &l->fs) < 0)
		return;
	l->vfs = ter_fs_vfs(l->fs);
	ask(l);
	look_everywhere(l);
	if (!(l->how & LOOK_NO_FSCK))
		check(l);
	if (!l->read_only) {
		work(l);
		look_everywhere(l);
		if (!(l->how & LOOK_NO_FSCK))
			check(l);
	}
	ask(l);
	if (ter_fs_stop(l->fs, &error) < 0)
		fuzz_check(error.text[0]);
	ter_fs_close(l->fs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	const unsigned which = (unsigned)fuzz_take(&in, 1) % SEED_NR;
	struct looking *l = calloc(1, sizeof(*l));
	struct ter_sim_stats stats;

	fuzz_check(l);
	l->how = (unsigned)fuzz_take(&in, 1);
	seed_machine_new(seed_pool(which), &l->m);
	for (unsigned i = 0; i < EDITS_MAX && in.left; i++)
		seed_edit(&l->m, which, &in);
	if (!(l->how & LOOK_NOT_RO)) {
		l->read_only = true;
		seed_run(&l->m, run, l);
		ter_sim_get_stats(l->m.sim, &stats);
		fuzz_check(!stats.writes && !stats.discards);
	}
	if (!(l->how & LOOK_NOT_RW)) {
		l->read_only = false;
		seed_run(&l->m, run, l);
	}
	seed_machine_free(&l->m);
	free(l);
	return 0;
}

#ifdef FUZZ_LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static uint32_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 32);
}

/* Mostly whole edits, anywhere: bytes changed one by one would mostly move the same edit about. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	uint64_t state = seed;
	unsigned edits, at;

	if (max_size < 2 + SEED_EDIT_BYTES || size < 2 || draw(&state) % 4 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	if (draw(&state) % 2)
		data[0] = (uint8_t)draw(&state);
	data[1] = (uint8_t)(draw(&state) % 8 ? 1 + draw(&state) % 2 : 0);
	edits = (unsigned)(size - 2) / SEED_EDIT_BYTES;
	at = draw(&state) % (edits + 1);
	if (draw(&state) % 2)
		edits = at; /* the rest goes */
	if (at == edits && (edits == EDITS_MAX || 2 + (edits + 1) * SEED_EDIT_BYTES > max_size))
		at = 0;
	edits = ter_max(edits, at + 1);
	for (unsigned i = 0; i < SEED_EDIT_BYTES; i++)
		data[2 + at * SEED_EDIT_BYTES + i] = (uint8_t)draw(&state);
	data[2 + at * SEED_EDIT_BYTES + 1] &= draw(&state) % 16 ? (uint8_t)~(SEED_EDIT_UNSUMMED | SEED_EDIT_ONE) : 0xff;
	/* A small number, or one of the table. */
	if (draw(&state) % 4)
		memset(data + 2 + at * SEED_EDIT_BYTES + 7, 0, 3);
	return 2 + edits * SEED_EDIT_BYTES;
}
#endif

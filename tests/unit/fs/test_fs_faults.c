/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where transactions fail, wait or are cut, and what the check says of trees that are wrong. Btrees and data of memory. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <dirent.h>
#include <stdio.h>
#include <linux/falloc.h>

#include <cmocka.h>

#include "alloc/accounting.h"
#include "fs/dirent_value.h"
#include "fs/vfs_priv.h"
#include "fs_rig_fake.h"
#include "vfs_calls.h"

#define POINTS_MAX 200

/* Everything that is in the btrees. */
static uint64_t digest(struct rig *rig)
{
	struct fake_btrees *fb = rig_fake(rig)->fb;
	uint64_t h = 14695981039346656037ull;

	for (unsigned b = 0; b < TER_BTREE_NR; b++)
		for (size_t i = 0; i < fb->tree[b].nr; i++) {
			const uint8_t *p = (const uint8_t *)fb->tree[b].key[i];

			for (uint32_t k = 0; k < ter_key_disk_bytes(ter_le32_get(fb->tree[b].key[i]->val_bytes)); k++)
				h = (h ^ p[k]) * 1099511628211ull;
		}
	return h;
}

/* --- not waiting --- */

struct scene {
	uint64_t dir, sub, file, other;
};

static void set_up(struct rig *rig, struct scene *s)
{
	s->dir = must_create(rig->vfs, TER_NODE_ROOT, "dir", S_IFDIR | 0755);
	s->sub = must_create(rig->vfs, s->dir, "sub", S_IFDIR | 0755);
	s->file = must_create(rig->vfs, s->dir, "file", S_IFREG | 04755);
	assert_int_equal(ter_vfs_create(rig->vfs, &root_op, s->dir, "link", S_IFLNK, 0, "target", NULL), 0);
	assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, s->file, "user.a", "b", 1, 0), 0);
	s->other = must_create(rig->vfs, s->sub, "other", S_IFREG);
	assert_int_equal(write_at(rig->vfs, s->file, 0, "hello", 5), 0);
}

typedef int (*op_fn)(struct ter_vfs *vfs, const struct scene *s);

static int op_create(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_create(vfs, &nowait_op, s->dir, "new", S_IFREG, 0, NULL, NULL);
}
static int op_symlink(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_create(vfs, &nowait_op, s->dir, "new", S_IFLNK, 0, "somewhere", NULL);
}
static int op_tmpfile(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_tmpfile(vfs, &nowait_op, s->dir, 0600, NULL);
}
static int op_link(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_link(vfs, &nowait_op, s->file, s->sub, "hard", NULL);
}
static int op_unlink(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_unlink(vfs, &nowait_op, s->dir, "file", NULL);
}
static int op_rmdir(struct ter_vfs *vfs, const struct scene *s)
{
	int r = ter_vfs_rmdir(vfs, &nowait_op, s->dir, "sub", NULL);

	return r == -ENOTEMPTY ? 0 : r;
}
static int op_rename(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_rename(vfs, &nowait_op, s->dir, "file", s->sub, "other", 0, NULL);
}
static int op_rename_dir(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_rename(vfs, &nowait_op, s->dir, "sub", TER_NODE_ROOT, "up", 0, NULL);
}
static int op_chmod(struct ter_vfs *vfs, const struct scene *s)
{
	const struct ter_attr attr = { .mode = 0600 };

	return ter_vfs_setattr(vfs, &nowait_op, s->file, &attr, TER_SET_MODE, NULL);
}
static int op_grow(struct ter_vfs *vfs, const struct scene *s)
{
	const struct ter_attr attr = { .size = 10000 };

	return ter_vfs_setattr(vfs, &nowait_op, s->file, &attr, TER_SET_SIZE, NULL);
}
static int op_setxattr(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_setxattr(vfs, &nowait_op, s->file, "user.b", "c", 1, 0);
}
static int op_removexattr(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_removexattr(vfs, &nowait_op, s->file, "user.a");
}
static int op_readlink(struct ter_vfs *vfs, const struct scene *s)
{
	char buf[TER_SYMLINK_MAX + 1];
	struct ter_attr attr;
	int r = ter_vfs_lookup(vfs, &nowait_op, s->dir, "link", &attr);

	return r < 0 ? r : ter_vfs_readlink(vfs, &nowait_op, attr.node, buf);
}
static int op_getxattr(struct ter_vfs *vfs, const struct scene *s)
{
	char value[4];
	ssize_t r = ter_vfs_getxattr(vfs, &nowait_op, s->file, "user.a", value, sizeof(value));

	return r < 0 ? (int)r : (int)ter_vfs_listxattr(vfs, &nowait_op, s->file, NULL, 0);
}
static int op_getattr(struct ter_vfs *vfs, const struct scene *s)
{
	return ter_vfs_getattr(vfs, &nowait_op, s->sub, NULL);
}
static int op_fsync(struct ter_vfs *vfs, const struct scene *s)
{
	return fsync_wait(vfs, &nowait_op, s->file);
}

static const op_fn nowait_ops[] = {
	op_create, op_symlink, op_tmpfile, op_link, op_unlink, op_rmdir, op_rename, op_rename_dir, op_chmod, op_grow, op_setxattr, op_removexattr, op_readlink,
	op_getxattr, op_getattr, op_fsync,
};

static void one_nowait(struct rig *rig, void *arg)
{
	op_fn fn = *(op_fn *)arg;
	struct scene s;
	unsigned waits = 0;
	int r = -EAGAIN;

	set_up(rig, &s);
	rig_remount(rig); /* nothing in the cache */
	for (int64_t n = 0; r == -EAGAIN; n++) {
		uint64_t before = digest(rig);

		assert_true(n < POINTS_MAX);
		rig_fake(rig)->fb->again_in = n;
		r = fn(rig->vfs, &s);
		rig_fake(rig)->fb->again_in = -1;
		if (r == -EAGAIN) {
			assert_true(digest(rig) == before);
			waits++;
		}
	}
	assert_true(r >= 0);
	assert_true(waits > 0);
	assert_int_equal(rig_fake(rig)->fb->waited, 0);
}

static void an_operation_that_would_wait_changes_nothing(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(nowait_ops); i++) {
		op_fn fn = nowait_ops[i];

		rig_run(1, 1, one_nowait, &fn);
	}
}

static void held_locks(struct rig *rig, void *arg)
{
	struct ter_inode *inode;
	const struct ter_attr attr = { .size = 1 };
	struct ter_read read = { .bytes = 1, .buf = &read };
	struct scene s;
	struct iovec iov = { "x", 1 };
	uint64_t before;

	(void)arg;
	set_up(rig, &s);
	assert_int_equal(ter_vfs_sync(rig->vfs), 0);
	assert_int_equal(ter_inode_get_node(rig->vfs, s.file, false, &inode), 0);
	before = digest(rig);
	assert_int_equal(ter_inode_lock(inode, false), 0);
	assert_int_equal(ter_vfs_write(rig->vfs, &nowait_op, s.file, 0, &iov, 1, false), -EAGAIN);
	assert_int_equal(ter_vfs_read(rig->vfs, &nowait_op, s.file, &read, false), -EAGAIN);
	assert_int_equal(op_unlink(rig->vfs, &s), -EAGAIN);
	assert_int_equal(op_link(rig->vfs, &s), -EAGAIN);
	assert_int_equal(op_rename(rig->vfs, &s), -EAGAIN);
	assert_int_equal(op_chmod(rig->vfs, &s), -EAGAIN);
	assert_int_equal(op_setxattr(rig->vfs, &s), -EAGAIN);
	assert_int_equal(ter_vfs_getattr(rig->vfs, &nowait_op, s.file, NULL), 0); /* attributes are told under any lock */
	ter_inode_unlock(inode);
	ter_inode_put(inode);
	assert_int_equal(ter_vfs_setattr(rig->vfs, &nowait_op, s.file, &attr, TER_SET_SIZE, NULL), -EAGAIN);
	assert_int_equal(ter_vfs_fallocate(rig->vfs, &nowait_op, s.file, 0, 0, 1), -EAGAIN);
	assert_true(digest(rig) == before);
}

static void an_operation_does_not_wait_for_a_lock_either(void **state)
{
	(void)state;
	rig_run(1, TER_MIB(1), held_locks, NULL);
}

/* --- cut anywhere --- */

static void cut_at(struct rig *rig, void *arg)
{
	struct rig_fake *rf = rig_fake(rig);
	bool *ret_all = arg;

	*ret_all = false;
	for (int64_t n = 0; !*ret_all; n++) {
		static uint8_t data[100000], got[100001];
		uint64_t dir, big, node, orphan;
		struct ter_attr attr;
		char value[40];
		int64_t bytes;
		int r;

		assert_true(n < POINTS_MAX);
		memset(data, 5, sizeof(data));
		dir = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755);
		big = must_create(rig->vfs, dir, "big", S_IFREG | 0644);
		node = must_create(rig->vfs, dir, "gone", S_IFREG | 0644);
		assert_int_equal(write_at(rig->vfs, big, 0, data, sizeof(data)), 0);
		assert_int_equal(write_at(rig->vfs, node, 0, data, sizeof(data)), 0);
		for (unsigned i = 0; i < 70; i++) {
			snprintf(value, sizeof(value), "user.%u", i);
			assert_int_equal(ter_vfs_setxattr(rig->vfs, &root_op, node, value, value, sizeof(value), 0), 0);
		}
		assert_int_equal(ter_vfs_sync(rig->vfs), 0);
		rf->fb->fail_r = -EIO;
		rf->fb->fail_in = n;
		r = truncate_to(rig->vfs, big, 7);
		/* Told or not, memory says what a crash would leave. */
		attr = must_stat(rig->vfs, big);
		assert_true(attr.size == 7 || (r < 0 && attr.size == sizeof(data)));
		if (r == 0)
			r = ter_vfs_unlink(rig->vfs, &root_op, dir, "gone", &orphan);
		if (r == 0)
			ter_vfs_forget(rig->vfs, node);
		ter_vfs_set_journal(rig->vfs, (struct ter_journal *)rf->fb, true); /* the background has tried */
		*ret_all = rf->fb->fail_in > 0;
		rf->fb->fail_in = -1;
		rig_crash(rig);
		assert_int_equal(rig_check(rig), 0);
		bytes = read_all(rig->vfs, big, got, sizeof(got));
		assert_true(bytes == 7 || bytes == sizeof(data));
		assert_memory_equal(got, data, (size_t)bytes);
		assert_int_equal(fake_keys_nr(rf->fb, TER_BTREE_DELETED_INODES), 0);
		if (*ret_all)
			assert_int_equal(ter_vfs_getattr(rig->vfs, &root_op, node, NULL), -ESTALE);
		r = ter_vfs_unlink(rig->vfs, &root_op, dir, "gone", NULL);
		assert_true(r == 0 || r == -ENOENT);
		assert_int_equal(ter_vfs_unlink(rig->vfs, &root_op, dir, "big", NULL), 0);
		assert_int_equal(ter_vfs_rmdir(rig->vfs, &root_op, TER_NODE_ROOT, "d", NULL), 0);
		rig_crash(rig); /* reaps them */
		assert_int_equal(fake_keys_nr(rf->fb, TER_BTREE_XATTRS), 0);
		assert_int_equal(fake_keys_nr(rf->fb, TER_BTREE_EXTENTS), 0);
		assert_int_equal(fake_keys_nr(rf->fb, TER_BTREE_INODES), 1);
	}
}

static void truncating_and_reaping_may_be_cut_anywhere(void **state)
{
	bool all;

	(void)state;
	rig_run(1, TER_MIB(1), cut_at, &all);
	assert_true(all);
}

/* --- write-back that is faster than the write --- */

static void write_back_at_once(struct rig *rig, void *arg)
{
	uint64_t file = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644);
	static uint8_t data[4096], got[9000];

	(void)arg;
	memset(data, 3, sizeof(data));
	rig_fake(rig)->fb->eager = true;
	assert_int_equal(write_at(rig->vfs, file, 4096, data, sizeof(data)), 0);
	rig_fake(rig)->fb->eager = false;
	/* The sync of this one says nothing of the end, which was committed before the size was known. */
	assert_int_equal(write_at(rig->vfs, file, 0, data, sizeof(data)), 0);
	assert_int_equal(fsync_wait(rig->vfs, &root_op, file), 0);
	rig_crash(rig);
	assert_int_equal(read_all(rig->vfs, file, got, sizeof(got)), 8192);
	assert_memory_equal(got + 4096, data, sizeof(data));
}

static void the_size_is_durable_though_write_back_came_first(void **state)
{
	(void)state;
	rig_run(1, TER_MIB(1), write_back_at_once, NULL);
}

struct meanwhile {
	struct rig_fake *rf;
	struct ter_file *file;
};

static void write_back_now(void *arg)
{
	struct meanwhile *m = arg;

	assert_int_equal(ter_file_writeback((struct ter_data *)m->rf->fd, m->file), 0);
}

static void write_back_between(struct rig *rig, void *arg)
{
	struct rig_fake *rf = rig_fake(rig);
	uint64_t node = must_create(rig->vfs, TER_NODE_ROOT, "f", S_IFREG | 0644);
	const struct ter_attr attr = { .mode = 0600, .uid = 77, .mtime = { 5, 6 } };
	struct meanwhile m = { .rf = rf };
	struct ter_inode *inode;
	struct ter_attr got;

	(void)arg;
	assert_int_equal(write_at(rig->vfs, node, 0, "data", 4), 0);
	assert_int_equal(ter_inode_get_node(rig->vfs, node, false, &inode), 0);
	m.file = &inode->file;
	rf->fb->after_commit_arg = &m;
	rf->fb->after_commit = write_back_now;
	assert_int_equal(ter_vfs_setattr(rig->vfs, &root_op, node, &attr, TER_SET_MODE | TER_SET_UID | TER_SET_MTIME, NULL), 0);
	assert_null(rf->fb->after_commit);
	ter_inode_put(inode);
	rig_crash(rig);
	got = must_stat(rig->vfs, node);
	assert_int_equal(got.mode, S_IFREG | 0600);
	assert_int_equal(got.uid, 77);
	assert_int_equal(got.size, 4);

	/* Times in memory were newer, so that write-back may have put back an old one: it does not stay. */
	assert_int_equal(write_at(rig->vfs, node, 0, "date", 4), 0);
	assert_int_equal(ter_inode_get_node(rig->vfs, node, false, &inode), 0);
	m.file = &inode->file;
	rf->fb->after_commit = write_back_now;
	assert_int_equal(ter_vfs_setattr(rig->vfs, &root_op, node, &attr, TER_SET_MTIME, NULL), 0);
	ter_inode_put(inode);
	assert_int_equal(fsync_wait(rig->vfs, &root_op, node), 0);
	rig_crash(rig);
	got = must_stat(rig->vfs, node);
	assert_int_equal(got.mtime.tv_sec, 5);
	assert_int_equal(got.mtime.tv_nsec, 6);
}

static void write_back_in_the_middle_of_a_change_undoes_nothing(void **state)
{
	(void)state;
	rig_run(1, TER_MIB(1), write_back_between, NULL);
}

/* --- names of one hash --- */

static int count_names(void *arg, const struct ter_dirent *d)
{
	unsigned *seen = arg;

	if (d->name[0] == 'c')
		*seen |= 1u << (d->name[1] - 'a');
	return 0;
}

static int stop_after_one(void *arg, const struct ter_dirent *d)
{
	struct ter_dirent *last = arg;

	if (last->name)
		return 1;
	*last = *d;
	return 0;
}

static void collide(struct rig *rig, void *arg)
{
	struct rig_fake *rf = rig_fake(rig);
	uint64_t dir = must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFDIR | 0755), val[2][TER_DIRENTS_VAL_MAX / 8 + 1], node, cookie = 2, given = 0;
	struct ter_key key = { .type = TER_KEY_DIRENT };
	unsigned seen = 0, which = 0;
	int bytes = 0;

	(void)arg;
	/* "ca" at its own place, and with it others that would be there if their hash were the same. */
	node = must_create(rig->vfs, dir, "ca", S_IFREG);
	key.pos = TER_POS(dir & TER_INUM_MAX, ter_dirent_hash(rf->sb.hash_key, "ca", 2), TER_SNAPSHOT_ROOT);
	for (unsigned i = 0; i < 10; i++) {
		char name[3] = { 'c', (char)('a' + i), 0 };

		bytes = ter_dirents_insert(val[which], (uint32_t)bytes, name, 2, node & TER_INUM_MAX, DT_REG, val[!which]);
		assert_true(bytes > 0);
		which = !which;
	}
	key.val = val[which];
	key.val_bytes = (uint32_t)bytes;
	fake_poke(rf->fb, TER_BTREE_DIRENTS, key.pos, &key);

	assert_int_equal(ter_vfs_readdir(rig->vfs, &root_op, dir, 0, false, count_names, &seen), 0);
	assert_int_equal(seen, (1 << 10) - 1);
	/* One at a time; the name that is listed first goes after the third: the others keep their places. */
	for (;; given++) {
		struct ter_dirent last = { 0 };

		assert_int_equal(ter_vfs_readdir(rig->vfs, &root_op, dir, cookie, false, stop_after_one, &last), 0);
		if (!last.name)
			break;
		cookie = last.cookie;
		if (given == 3)
			assert_int_equal(ter_vfs_rename(rig->vfs, &root_op, dir, "ca", TER_NODE_ROOT, "out", 0, NULL), 0);
	}
	assert_int_equal(given, 10);
	/* Back: it takes the free place. */
	assert_int_equal(ter_vfs_rename(rig->vfs, &root_op, TER_NODE_ROOT, "out", dir, "ca", 0, NULL), 0);
	seen = 0;
	assert_int_equal(ter_vfs_readdir(rig->vfs, &root_op, dir, 0, true, count_names, &seen), 0);
	assert_int_equal(seen, (1 << 10) - 1);
	/* As it was, for the check at the end. */
	bytes = ter_dirents_insert(NULL, 0, "ca", 2, node & TER_INUM_MAX, DT_REG, val[0]);
	key.val = val[0];
	key.val_bytes = (uint32_t)bytes;
	fake_poke(rf->fb, TER_BTREE_DIRENTS, key.pos, &key);
}

static void names_of_one_hash_are_listed_and_keep_their_cookies(void **state)
{
	(void)state;
	rig_run(1, TER_MIB(1), collide, NULL);
}

/* --- records --- */

static void note_records(struct rig *rig, void *arg)
{
	struct fake_btrees *fb = rig_fake(rig)->fb;
	const struct ter_op op = { .request = { 11, 12 } };
	uint64_t node;

	(void)arg;
	node = must_create(rig->vfs, TER_NODE_ROOT, "a", S_IFREG) & TER_INUM_MAX;
	assert_true(fb->clock_inum > node); /* durable before the number is in use */
	assert_true(ter_vfs_next_inum(rig->vfs) >= fb->clock_inum);
	assert_int_equal(fb->requests, 0);
	assert_int_equal(ter_vfs_create(rig->vfs, &op, TER_NODE_ROOT, "b", S_IFREG, 0, NULL, NULL), 0);
	assert_int_equal(ter_vfs_rename(rig->vfs, &op, TER_NODE_ROOT, "b", TER_NODE_ROOT, "c", 0, NULL), 0);
	assert_int_equal(ter_vfs_unlink(rig->vfs, &op, TER_NODE_ROOT, "c", NULL), 0);
	assert_int_equal(fb->requests, 3);
	rig_crash(rig);
	assert_true((must_create(rig->vfs, TER_NODE_ROOT, "d", S_IFREG) & TER_INUM_MAX) >= fb->clock_inum - 65536 - 64);
}

static void numbers_and_requests_are_recorded(void **state)
{
	(void)state;
	rig_run(1, TER_MIB(1), note_records, NULL);
}

/* --- the check --- */

static struct ter_inode_attr get_inode(struct rig *rig, uint64_t node)
{
	struct ter_inode_attr attr;

	assert_int_equal(ter_inode_read_key(rig->vfs, TER_POS(node & TER_INUM_MAX, 0, TER_SNAPSHOT_ROOT), 0, &attr), 0);
	return attr;
}

static void put_inode(struct rig *rig, uint64_t node, const struct ter_inode_attr *attr)
{
	struct ter_inode_disk disk;
	struct ter_key key = { .pos = TER_POS(node & TER_INUM_MAX, 0, TER_SNAPSHOT_ROOT), .type = TER_KEY_INODE, .val = &disk, .val_bytes = sizeof(disk) };

	if (attr)
		ter_inode_encode(attr, &disk);
	fake_poke(rig_fake(rig)->fb, TER_BTREE_INODES, key.pos, attr ? &key : NULL);
}

static void put_entry(struct rig *rig, uint64_t dir, const char *name, uint64_t node, uint8_t type)
{
	uint64_t val[8];
	struct ter_key key = { .type = TER_KEY_DIRENT, .val = val };

	key.pos = TER_POS(dir & TER_INUM_MAX, ter_dirent_hash(rig_fake(rig)->sb.hash_key, name, strlen(name)), TER_SNAPSHOT_ROOT);
	if (node)
		key.val_bytes = (uint32_t)ter_dirents_insert(NULL, 0, name, strlen(name), node & TER_INUM_MAX, type, val);
	fake_poke(rig_fake(rig)->fb, TER_BTREE_DIRENTS, key.pos, node ? &key : NULL);
}

static void set_mark(struct rig *rig, uint64_t node, bool on)
{
	const struct ter_key key = { .pos = TER_POS(node & TER_INUM_MAX, 0, TER_SNAPSHOT_ROOT), .type = TER_KEY_SET };

	fake_poke(rig_fake(rig)->fb, TER_BTREE_DELETED_INODES, key.pos, on ? &key : NULL);
}

struct expect {
	const char *pass, *text;
	bool found;
};

static void see_sentence(void *arg, const char *pass, const char *sentence)
{
	struct expect *e = arg;

	if (!strcmp(pass, e->pass) && strstr(sentence, e->text))
		e->found = true;
}

static void must_find(struct rig *rig, const char *pass, const char *text)
{
	struct expect e = { .pass = pass, .text = text };

	assert_true(ter_vfs_check(rig->vfs, 0, see_sentence, &e, NULL, NULL) > 0);
	if (!e.found)
		fail_msg("nothing of '%s' in pass %s", text, pass);
}

static int stop_step(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)phase;
	(void)done;
	(void)total;
	return -ECANCELED;
}

static void damage(struct rig *rig, void *arg)
{
	struct scene s;
	struct ter_inode_attr good, bad;
	struct ter_key key;

	(void)arg;
	set_up(rig, &s);
	assert_int_equal(ter_vfs_sync(rig->vfs), 0);
	assert_int_equal(ter_vfs_check(rig->vfs, 0, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(ter_vfs_check(rig->vfs, 0, NULL, NULL, stop_step, NULL), -ECANCELED);

	bad = good = get_inode(rig, s.file);
	bad.nlink = 2;
	put_inode(rig, s.file, &bad);
	must_find(rig, "inodes", "has link count 2, but 1 entries");
	bad.nlink = 0;
	put_inode(rig, s.file, &bad);
	must_find(rig, "inodes", "has no name, and is not in the list");
	bad = good;
	bad.sectors += 8;
	put_inode(rig, s.file, &bad);
	must_find(rig, "files", "counts 8 sectors more");
	bad = good;
	bad.flags &= ~(uint32_t)TER_IFLAG_XATTRS;
	put_inode(rig, s.file, &bad);
	must_find(rig, "xattrs", "says that it has none");
	bad = good;
	bad.size = 0;
	put_inode(rig, s.file, &bad);
	must_find(rig, "files", "beyond its end");
	put_inode(rig, s.file, NULL);
	must_find(rig, "dirents", "which does not exist");
	must_find(rig, "files", "has extents, but is not a file");
	must_find(rig, "xattrs", "has attributes, but does not exist");
	must_find(rig, "inodes", "The pool counts");
	put_inode(rig, s.file, &good);

	put_entry(rig, s.dir, "file", s.file, DT_DIR);
	must_find(rig, "dirents", "is of type");
	put_entry(rig, s.dir, "file", 0, 0);
	must_find(rig, "dirents", "counts 3 entries, but has 2");
	put_entry(rig, s.dir, "file", s.file, DT_REG);
	put_entry(rig, s.sub, "other", 0, 0);
	must_find(rig, "dirents", "counts 1 entries, but has none");
	put_entry(rig, s.sub, "up", s.dir, DT_DIR);
	must_find(rig, "dirents", "has more than one entry");
	put_entry(rig, s.sub, "up", 0, 0);
	put_entry(rig, s.file, "x", s.dir, DT_DIR);
	must_find(rig, "dirents", "has directory entries, but is not a directory");
	put_entry(rig, s.file, "x", 0, 0);
	{
		struct ter_dirent_disk d = { .inum = ter_le64_make(s.file & TER_INUM_MAX), .type = DT_REG, .name_bytes = 1 };
		uint8_t val[13];

		memcpy(val, &d, 12);
		val[12] = 'q';
		key = (struct ter_key){ .pos = TER_POS(s.dir & TER_INUM_MAX, 0x10, TER_SNAPSHOT_ROOT), .type = TER_KEY_DIRENT, .val = val, .val_bytes = 13 };
		fake_poke(rig_fake(rig)->fb, TER_BTREE_DIRENTS, key.pos, &key);
		must_find(rig, "dirents", "stands at the place of another name");
		key.val_bytes = 12;
		fake_poke(rig_fake(rig)->fb, TER_BTREE_DIRENTS, key.pos, &key);
		must_find(rig, "dirents", "has damaged entries");
		fake_poke(rig_fake(rig)->fb, TER_BTREE_DIRENTS, key.pos, NULL);
	}

	/* A ring of directories apart from the root: dir in sub, sub in dir. */
	put_entry(rig, TER_NODE_ROOT, "dir", 0, 0);
	put_entry(rig, s.sub, "dir", s.dir, DT_DIR);
	bad = good = get_inode(rig, s.dir);
	bad.parent_inum = s.sub & TER_INUM_MAX;
	put_inode(rig, s.dir, &bad);
	must_find(rig, "dirents", "is below itself");
	put_inode(rig, s.dir, &good);
	must_find(rig, "dirents", "but says that its parent is");
	put_entry(rig, s.sub, "dir", 0, 0);
	must_find(rig, "inodes", "stands in no directory");
	put_entry(rig, TER_NODE_ROOT, "dir", s.dir, DT_DIR);

	set_mark(rig, s.dir, true);
	must_find(rig, "inodes", "has a name, and is in the list");
	set_mark(rig, s.dir, false);
	set_mark(rig, TER_NODE(1, 5), true);
	must_find(rig, "inodes", "The list of deleted inodes has 5");
	set_mark(rig, TER_NODE(1, 5), false);
	put_entry(rig, s.sub, "other", s.file, DT_REG);
	must_find(rig, "inodes", "has link count");
	{
		struct ter_attr attr;

		put_entry(rig, s.sub, "other", 0, 0);
		assert_int_equal(ter_vfs_lookup(rig->vfs, &root_op, s.dir, "link", &attr), 0);
		key = (struct ter_key){ .pos = TER_POS(attr.node & TER_INUM_MAX, 16, TER_SNAPSHOT_ROOT), .size = 8, .type = TER_KEY_RESERVATION };
		fake_poke(rig_fake(rig)->fb, TER_BTREE_EXTENTS, key.pos, &key);
		must_find(rig, "files", "The target of symbolic link");
		fake_poke(rig_fake(rig)->fb, TER_BTREE_EXTENTS, key.pos, NULL);
	}
	put_entry(rig, s.sub, "other", s.other, DT_REG);
	assert_int_equal(ter_vfs_check(rig->vfs, 0, NULL, NULL, NULL, NULL), 0);
}

static void each_contradiction_is_found(void **state)
{
	(void)state;
	rig_run(1, TER_MIB(1), damage, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_operation_that_would_wait_changes_nothing),
		cmocka_unit_test(an_operation_does_not_wait_for_a_lock_either),
		cmocka_unit_test(truncating_and_reaping_may_be_cut_anywhere),
		cmocka_unit_test(the_size_is_durable_though_write_back_came_first),
		cmocka_unit_test(write_back_in_the_middle_of_a_change_undoes_nothing),
		cmocka_unit_test(names_of_one_hash_are_listed_and_keep_their_cookies),
		cmocka_unit_test(numbers_and_requests_are_recorded),
		cmocka_unit_test(each_contradiction_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

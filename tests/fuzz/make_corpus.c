/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes the corpus of every target into the folder given, from pools that the engine makes: real superblocks, entries, nodes, values, requests. The same each time. */
#include <linux/fuse.h>
#include <sys/stat.h>

#include "btree/node_format.h"
#include "fuzz.h"
#include "real_codecs.h"
#include "journal/journal_format.h"
#include "seed_places.h"

#define NODE_FILE_MAX 5000u /* the whole shall stay small */
#define ENTRY_MAX 6000u
#define VALUE_MAX 700u
#define OF_EACH_TYPE 3u

static const char *top;

/* --- a file being made --- */

struct out {
	uint8_t bytes[65536];
	size_t nr;
};

static void put(struct out *out, const void *bytes, size_t nr)
{
	fuzz_check(nr <= sizeof(out->bytes) - out->nr);
	if (nr)
		memcpy(out->bytes + out->nr, bytes, nr);
	out->nr += nr;
}

static void put_int(struct out *out, uint64_t value, unsigned bytes)
{
	const uint64_t le = htole64(value);

	put(out, &le, bytes);
}

static void save(struct out *out, const char *target, const char *name, unsigned idx)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", top, target);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/%s/%s-%u", top, target, name, idx);
	f = fopen(path, "we");
	if (!f || fwrite(out->bytes, 1, out->nr, f) != out->nr || fclose(f) != 0) {
		perror(path);
		exit(1);
	}
	out->nr = 0;
}

/* --- from pools --- */

static void superblocks(unsigned which, struct out *out)
{
	const struct seed_places *p = seed_places(which);
	const struct seed_sum *sum = &p->sums[p->place[SEED_AT_SB][0].sum];
	const uint8_t *bytes = seed_bytes(which, sum);

	put(out, bytes, sum->bytes);
	save(out, "sb", "copy", which);
	free((void *)bytes);
}

/* Entries one behind the other, as they lie on a member. */
static void entries(unsigned which, struct out *out)
{
	const struct seed_places *p = seed_places(which);
	unsigned block = 0;

	put_int(out, 1, 1);
	for (unsigned i = 0; i < p->nr[SEED_AT_JENTRY]; i++) {
		const struct seed_sum *sum = &p->sums[p->place[SEED_AT_JENTRY][i].sum];
		const uint8_t *bytes = seed_bytes(which, sum);

		if (sum->bytes <= ENTRY_MAX && sum->dev == 0 && out->nr < 4 * ENTRY_MAX) {
			put_int(out, block, 2);
			put_int(out, sum->bytes, 2);
			put(out, bytes, sum->bytes);
			block += sum->bytes / 512 + 1;
		}
		free((void *)bytes);
	}
	save(out, "journal", "ring", which);
}

/* A bset too long for a file of the corpus: its first keys. */
static void put_cut(const uint8_t *bytes, const struct seed_sum *sum, struct out *out)
{
	const uint32_t skip = sum->node_head ? (uint32_t)sizeof(struct ter_node_disk) : 0;
	struct ter_bset_disk bset;
	uint32_t keys = skip + (uint32_t)sizeof(bset), at = keys, nr = 0;

	memcpy(&bset, bytes + skip, sizeof(bset));
	for (; at < NODE_FILE_MAX / 2; nr++)
		at += ter_key_disk_bytes(ter_le32_get(((const struct ter_key_disk *)(bytes + at))->val_bytes));
	bset.keys_bytes = ter_le32_make(at - keys);
	bset.keys_nr = ter_le32_make(nr);
	put(out, bytes, skip);
	put(out, &bset, sizeof(bset));
	put(out, bytes + keys, at - keys);
}

/* The bsets of a node; it begins with place @first. */
static void put_node(unsigned which, unsigned first, struct out *out)
{
	const struct seed_places *p = seed_places(which);

	put_int(out, 1, 1);
	for (unsigned i = first; i < p->nr[SEED_AT_BSET]; i++) {
		const struct seed_sum *sum = &p->sums[p->place[SEED_AT_BSET][i].sum];
		const uint8_t *bytes = seed_bytes(which, sum);
		const bool other = i > first && (sum->node_head || out->nr > NODE_FILE_MAX);

		if (!other) {
			if (sum->bytes <= NODE_FILE_MAX)
				put(out, bytes, sum->bytes);
			else
				put_cut(bytes, sum, out);
			while ((out->nr - 1) % 512)
				put_int(out, 0, 1);
		}
		free((void *)bytes);
		if (other)
			break;
	}
}

/* One of each btree and level. */
static void nodes(unsigned which, struct out *out)
{
	const struct seed_places *p = seed_places(which);
	bool have[TER_BTREE_NR][4] = { 0 };

	for (unsigned i = 0; i < p->nr[SEED_AT_BSET]; i++) {
		const struct seed_sum *sum = &p->sums[p->place[SEED_AT_BSET][i].sum];
		const uint8_t *bytes = seed_bytes(which, sum);
		const struct ter_node_disk *node = (const void *)bytes;
		bool *had = sum->node_head && node->btree < TER_BTREE_NR && node->level < 4 ? &have[node->btree][node->level] : NULL;

		if (had && !*had) {
			*had = true;
			put_node(which, i, out);
			save(out, "node", ter_btree_names[node->btree], node->level);
		}
		free((void *)bytes);
	}
}

static void values(unsigned which, struct out *out)
{
	const struct seed_places *p = seed_places(which);
	unsigned nr[TER_KEY_TYPE_NR] = { 0 };

	for (unsigned i = 0; i < p->nr[SEED_AT_KEY]; i++) {
		const struct seed_place *place = &p->place[SEED_AT_KEY][i];
		const uint8_t *bytes = seed_bytes(which, &p->sums[place->sum]);
		const struct ter_key_disk *disk = (const void *)(bytes + place->at);
		struct ter_key key;

		ter_key_decode(disk, &key);
		if (key.val_bytes <= VALUE_MAX && nr[key.type] < OF_EACH_TYPE) {
			put_int(out, key.type, 1);
			put_int(out, key.val_version, 1);
			put_int(out, key.pos.inode, 8);
			put_int(out, key.pos.offset, 8);
			put_int(out, key.pos.snapshot, 4);
			put_int(out, key.size, 4);
			put(out, key.val, key.val_bytes);
			save(out, "value", ter_key_type_names[key.type], nr[key.type]++);
		}
		free((void *)bytes);
	}
}

static void edit(struct out *out, unsigned kind, unsigned op, unsigned idx, unsigned offset, uint32_t n)
{
	put_int(out, kind, 1);
	put_int(out, op, 1);
	put_int(out, idx, 2);
	put_int(out, offset, 2);
	put_int(out, n, 4);
}

/* The pool as it is, and an edit of the first of each kind and type. */
static void images(unsigned which, struct out *out)
{
	const struct seed_places *p = seed_places(which);

	put_int(out, which, 1);
	put_int(out, 0, 1);
	save(out, "image", "as-is", which);
	for (unsigned kind = 0; kind < SEED_KIND_NR; kind++) {
		bool had[256] = { 0 };

		put_int(out, which, 1);
		put_int(out, 0, 1);
		for (unsigned i = 0; i < p->nr[kind]; i++) {
			const struct seed_place *place = &p->place[kind][i];
			const unsigned what = kind == SEED_AT_JREC ? place->type : kind == SEED_AT_KEY ? place->type * 16u + place->btree % 16u : 0;

			if (had[what % 256] || out->nr > 2 + 12 * SEED_EDIT_BYTES)
				continue;
			had[what % 256] = true;
			edit(out, kind, i % 2 ? SEED_XOR8 : SEED_ADD32, i, place->bytes / 2, 1 + i % 3);
		}
		save(out, "image", "kind", which * 16 + kind);
	}
}

/* --- made up --- */

static void codecs(struct out *out)
{
	const struct ter_codecs *all = fuzz_codecs();
	static uint8_t text[1000], packed[2000];

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)("terrace keeps what it is given, "[i % 32] + i / 300);
	for (unsigned i = 0; i < all->nr; i++) {
		const struct terrace_compression *c = (const void *)all->algo[i];
		size_t bytes;
		void *scratch;

		put_int(out, i, 1);
		put_int(out, sizeof(text), 3);
		if (all->algo[i]->kind == TERRACE_COMPRESSION) {
			scratch = malloc(c->scratch_bytes(c->level_def, sizeof(text)));
			fuzz_check(scratch);
			bytes = c->compress(packed, sizeof(packed), text, sizeof(text), c->level_def, scratch);
			fuzz_check(bytes);
			put(out, packed, bytes);
			free(scratch);
		} else {
			put(out, text, 100);
		}
		save(out, "codec", all->algo[i]->name, 0);
	}
}

static void texts(struct out *out)
{
	static const char *const others[] = { "64K", "zstd:3", "zstd:-1", "none", "yes", "1048576", "user.some", "12345678-9abc-def0-1234-56789abcdef0", "18446744073709551616", "16EiB" };
	struct ter_options opts;
	char text[256];
	unsigned i = 0;

	ter_options_default(&opts);
	for (; ter_option_table[i].name; i++) {
		fuzz_check(ter_option_get_text(&opts, &ter_option_table[i], text, sizeof(text)) >= 0);
		put_int(out, i, 1);
		put_int(out, 1 + i % 4, 1);
		put(out, text, strlen(text));
		save(out, "text", "option", i);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		put_int(out, 255, 1);
		put_int(out, 1, 1);
		put(out, "compression", 12);
		put(out, others[i], strlen(others[i]));
		save(out, "text", "other", i);
	}
}

/* A request: its header of @head zeros but for @number at @at, then @name with its NUL. */
static void request(struct out *out, unsigned opcode, unsigned node, size_t head, size_t at, uint64_t number, const char *name)
{
	const size_t name_bytes = name ? strlen(name) + 1 : 0;
	uint8_t zeros[256] = { 0 };
	const uint64_t le = htole64(number);

	if (head)
		memcpy(zeros + at, &le, ter_min(sizeof(le), head - at));
	put_int(out, opcode, 2);
	put_int(out, node, 1);
	put_int(out, head + name_bytes, 2);
	put(out, zeros, head);
	put(out, name, name_bytes);
}

static void requests(struct out *out)
{
	put_int(out, 4, 1);
	request(out, FUSE_LOOKUP, 0, 0, 0, 0, "dir");
	request(out, FUSE_GETATTR, 1, sizeof(struct fuse_getattr_in), 0, 0, NULL);
	request(out, FUSE_READDIR, 1, sizeof(struct fuse_read_in), offsetof(struct fuse_read_in, size), 4096, NULL);
	request(out, FUSE_READDIRPLUS, 1, sizeof(struct fuse_read_in), offsetof(struct fuse_read_in, size), 65536, NULL);
	request(out, FUSE_READ, 2, sizeof(struct fuse_read_in), offsetof(struct fuse_read_in, size), 65536, NULL);
	request(out, FUSE_READLINK, 4, 0, 0, 0, NULL);
	request(out, FUSE_GETXATTR, 2, sizeof(struct fuse_getxattr_in), 0, 100, "user.some");
	request(out, FUSE_LISTXATTR, 2, sizeof(struct fuse_getxattr_in), 0, 1000, NULL);
	request(out, FUSE_STATFS, 0, 0, 0, 0, NULL);
	request(out, 52, 2, 32, 0, 0, NULL);
	save(out, "fuse", "look", 0);

	put_int(out, 0, 1);
	request(out, FUSE_CREATE, 0, sizeof(struct fuse_create_in), offsetof(struct fuse_create_in, mode), S_IFREG | 0644, "new");
	request(out, FUSE_MKNOD, 1, sizeof(struct fuse_mknod_in), 0, S_IFREG | 0644, "made");
	request(out, FUSE_MKDIR, 0, sizeof(struct fuse_mkdir_in), 0, 0755, "newdir");
	request(out, FUSE_WRITE, 2, sizeof(struct fuse_write_in), offsetof(struct fuse_write_in, size), 6, "12345");
	request(out, FUSE_SETATTR, 2, sizeof(struct fuse_setattr_in), 0, FATTR_SIZE, NULL);
	request(out, FUSE_FSYNC, 2, sizeof(struct fuse_fsync_in), 0, 0, NULL);
	request(out, FUSE_FALLOCATE, 3, sizeof(struct fuse_fallocate_in), offsetof(struct fuse_fallocate_in, length), 50000, NULL);
	request(out, FUSE_LSEEK, 3, sizeof(struct fuse_lseek_in), offsetof(struct fuse_lseek_in, whence), 4, NULL);
	request(out, FUSE_UNLINK, 0, 0, 0, 0, "big");
	request(out, FUSE_RMDIR, 0, 0, 0, 0, "newdir");
	request(out, FUSE_REMOVEXATTR, 2, 0, 0, 0, "user.some");
	request(out, FUSE_SYNCFS, 0, sizeof(struct fuse_syncfs_in), 0, 0, NULL);
	save(out, "fuse", "change", 0);

	put_int(out, 2, 1);
	request(out, FUSE_RENAME2, 0, sizeof(struct fuse_rename2_in), 0, FUSE_ROOT_ID, "fifo");
	put_int(out, FUSE_SYMLINK, 2);
	put_int(out, 0, 1);
	put_int(out, 8, 2);
	put(out, "sym\0tgt", 8);
	request(out, FUSE_LINK, 0, sizeof(struct fuse_link_in), 0, FUSE_ROOT_ID, "hard");
	request(out, FUSE_FORGET, 1, sizeof(struct fuse_forget_in), 0, 1, NULL);
	request(out, FUSE_BATCH_FORGET, 0, sizeof(struct fuse_batch_forget_in) + sizeof(struct fuse_forget_one), 0, 1, NULL);
	request(out, FUSE_INTERRUPT, 0, sizeof(struct fuse_interrupt_in), 0, 3, NULL);
	request(out, FUSE_SETXATTR, 2, 8, 0, 5, "user.x");
	request(out, FUSE_TMPFILE, 0, sizeof(struct fuse_create_in), offsetof(struct fuse_create_in, mode), S_IFREG | 0600, "/");
	request(out, FUSE_COPY_FILE_RANGE, 2, sizeof(struct fuse_copy_file_range_in), 0, 0, NULL);
	request(out, FUSE_IOCTL, 2, sizeof(struct fuse_ioctl_in), 0, 0, NULL);
	request(out, FUSE_DESTROY, 0, 0, 0, 0, NULL);
	request(out, FUSE_GETATTR, 0, sizeof(struct fuse_getattr_in), 0, 0, NULL);
	save(out, "fuse", "rest", 0);
}

int main(int argc, char **argv)
{
	static struct out out;

	if (argc != 2) {
		fprintf(stderr, "Usage: make-corpus FOLDER\n");
		return 2;
	}
	top = argv[1];
	for (unsigned which = 0; which < SEED_NR; which++) {
		superblocks(which, &out);
		entries(which, &out);
		images(which, &out);
	}
	nodes(SEED_CLEAN, &out);
	values(SEED_CLEAN, &out);
	codecs(&out);
	texts(&out);
	requests(&out);
	return 0;
}

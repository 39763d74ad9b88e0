/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding superblock copies, journal entries, nodes, keys and data in a seed pool, and editing them. */
#include "seed_places.h"

#include "btree/node_format.h"
#include "real_codecs.h"
#include "journal/journal_format.h"
#include "sb/sb_format.h"

#define SEQS_MAX 4096u
#define BLOCKS_PER_NODE (SEED_NODE_BYTES / SEED_BLOCK_BYTES)

struct finding {
	struct seed_places *places;
	const struct seed_pool *pool;
	uint64_t uuid_xor;
	uint8_t *dev_bytes;
	unsigned dev;
	uint64_t seqs[SEQS_MAX]; /* of nodes that something points to */
	unsigned seqs_nr;
	bool collecting;
	uint8_t taken[SEED_DEV_BYTES / SEED_BLOCK_BYTES];
};

static void *grow(void *array, unsigned nr, size_t bytes)
{
	if (nr & (nr + 1))
		return array;
	array = realloc(array, (2 * (size_t)nr + 2) * bytes);
	fuzz_check(array);
	return array;
}

static unsigned add_sum(struct finding *f, enum seed_kind kind, uint64_t offset, uint32_t bytes, bool node_head)
{
	struct seed_places *p = f->places;

	p->sums = grow(p->sums, p->sums_nr, sizeof(*p->sums));
	p->sums[p->sums_nr] = (struct seed_sum){ offset, bytes, (uint8_t)f->dev, (uint8_t)kind, node_head };
	return p->sums_nr++;
}

static void add_place(struct finding *f, enum seed_kind kind, struct seed_place place)
{
	struct seed_places *p = f->places;

	p->place[kind] = grow(p->place[kind], p->nr[kind], sizeof(place));
	p->place[kind][p->nr[kind]++] = place;
}

/* --- which nodes are in use --- */

static void note_seq(struct finding *f, uint64_t seq)
{
	if (f->seqs_nr < SEQS_MAX)
		f->seqs[f->seqs_nr++] = seq;
}

static bool seq_used(const struct finding *f, uint64_t seq)
{
	for (unsigned i = 0; i < f->seqs_nr; i++)
		if (f->seqs[i] == seq)
			return true;
	return false;
}

static void note_key(struct finding *f, const struct ter_key_disk *key)
{
	const struct ter_btree_ptr_disk *ptr = (const void *)(key + 1);

	if (key->type == TER_KEY_BTREE_PTR)
		note_seq(f, ter_le64_get(ptr->node_seq));
}

/* --- superblocks, journal, nodes --- */

static void find_sbs(struct finding *f)
{
	uint64_t offset[TER_SB_COPIES];

	ter_sb_copy_offsets(SEED_DEV_BYTES, offset);
	for (unsigned i = 0; i < TER_SB_COPIES; i++) {
		const struct ter_sb_disk *header = (const void *)(f->dev_bytes + offset[i]);
		const uint32_t bytes = ter_le32_get(header->bytes);

		fuzz_check(!memcmp(header->magic, TER_SB_MAGIC, sizeof(header->magic)));
		add_place(f, SEED_AT_SB, (struct seed_place){ .sum = add_sum(f, SEED_AT_SB, offset[i], bytes, false), .bytes = bytes });
	}
	memset(f->taken, 1, TER_SB_AREA_BYTES / SEED_BLOCK_BYTES);
	memset(f->taken + (SEED_DEV_BYTES - TER_SB_TAIL_BYTES) / SEED_BLOCK_BYTES, 1, TER_SB_TAIL_BYTES / SEED_BLOCK_BYTES);
}

static void find_records(struct finding *f, uint64_t offset, uint32_t payload, unsigned sum)
{
	const uint32_t end = (uint32_t)sizeof(struct ter_jentry_disk) + payload;
	uint32_t at = sizeof(struct ter_jentry_disk);

	while (at < end) {
		const struct ter_jrec_disk *rec = (const void *)(f->dev_bytes + offset + at);
		const uint32_t bytes = 8 + (uint32_t)ter_round_up(ter_le32_get(rec->payload_bytes), 8);

		fuzz_check(bytes <= end - at);
		if (f->collecting && rec->type == TER_JREC_KEY)
			note_key(f, (const void *)(rec + 1));
		if (f->collecting && rec->type == TER_JREC_ROOT)
			note_seq(f, ter_le64_get(((const struct ter_root_disk *)(rec + 1))->node_seq));
		if (!f->collecting && rec->type != TER_JREC_PAD)
			add_place(f, SEED_AT_JREC, (struct seed_place){ sum, at, bytes, rec->btree, rec->type });
		at += bytes;
	}
}

static void find_entry(struct finding *f, uint64_t offset)
{
	const struct ter_jentry_disk *head = (const void *)(f->dev_bytes + offset);
	const uint32_t payload = ter_le32_get(head->payload_bytes), bytes = (uint32_t)sizeof(*head) + payload;
	unsigned sum = 0;

	if (ter_le64_get(head->magic) != (TER_JENTRY_MAGIC ^ f->uuid_xor))
		return;
	memset(f->taken + offset / SEED_BLOCK_BYTES, 1, ter_round_up(bytes, SEED_BLOCK_BYTES) / SEED_BLOCK_BYTES);
	if (!f->collecting) {
		sum = add_sum(f, SEED_AT_JENTRY, offset, bytes, false);
		add_place(f, SEED_AT_JENTRY, (struct seed_place){ .sum = sum, .bytes = bytes });
	}
	find_records(f, offset, payload, sum);
}

static void find_keys(struct finding *f, uint64_t offset, uint32_t head, uint32_t keys_bytes, uint8_t btree, unsigned sum)
{
	uint32_t at = head;

	while (at < head + keys_bytes) {
		const struct ter_key_disk *key = (const void *)(f->dev_bytes + offset + at);
		const uint32_t bytes = ter_key_disk_bytes(ter_le32_get(key->val_bytes));

		fuzz_check(bytes <= head + keys_bytes - at);
		if (f->collecting)
			note_key(f, key);
		else
			add_place(f, SEED_AT_KEY, (struct seed_place){ sum, at, bytes, btree, key->type });
		at += bytes;
	}
}

static void find_node(struct finding *f, uint64_t offset)
{
	const struct ter_node_disk *node = (const void *)(f->dev_bytes + offset);
	uint32_t at = 0;

	if (ter_le64_get(node->magic) != (TER_NODE_MAGIC ^ f->uuid_xor))
		return;
	memset(f->taken + offset / SEED_BLOCK_BYTES, 1, BLOCKS_PER_NODE);
	if (!f->collecting && !seq_used(f, ter_le64_get(node->node_seq)))
		return;
	while (at < SEED_NODE_BYTES) {
		const uint32_t skip = at ? 0 : (uint32_t)sizeof(*node), head = skip + (uint32_t)sizeof(struct ter_bset_disk);
		const struct ter_bset_disk *bset = (const void *)(f->dev_bytes + offset + at + skip);
		const uint32_t keys_bytes = ter_le32_get(bset->keys_bytes);
		unsigned sum = 0;

		if (ter_le64_get(bset->magic) != (TER_BSET_MAGIC ^ f->uuid_xor) || ter_le64_get(bset->node_seq) != ter_le64_get(node->node_seq))
			return;
		if (!f->collecting) {
			sum = add_sum(f, SEED_AT_BSET, offset + at, head + keys_bytes, !at);
			add_place(f, SEED_AT_BSET, (struct seed_place){ .sum = sum, .bytes = head, .btree = node->btree });
		}
		find_keys(f, offset + at, head, keys_bytes, node->btree, sum);
		at += (uint32_t)ter_round_up(head + keys_bytes, SEED_BLOCK_BYTES);
	}
}

static void find_data(struct finding *f)
{
	for (unsigned i = 0; i < f->pool->blocks_nr; i++) {
		const struct seed_block *b = &f->pool->blocks[i];

		if (b->dev == f->dev && !f->taken[b->offset_bytes / SEED_BLOCK_BYTES])
			add_place(f, SEED_AT_DATA,
				  (struct seed_place){ .sum = add_sum(f, SEED_AT_DATA, b->offset_bytes, SEED_BLOCK_BYTES, false), .bytes = SEED_BLOCK_BYTES });
	}
}

static void scan(struct finding *f)
{
	for (f->dev = 0; f->dev < f->pool->devs; f->dev++) {
		memset(f->dev_bytes, 0, SEED_DEV_BYTES);
		memset(f->taken, 0, sizeof(f->taken));
		for (unsigned i = 0; i < f->pool->blocks_nr; i++)
			if (f->pool->blocks[i].dev == f->dev)
				memcpy(f->dev_bytes + f->pool->blocks[i].offset_bytes, f->pool->blocks[i].bytes, SEED_BLOCK_BYTES);
		if (!f->collecting)
			find_sbs(f);
		for (uint64_t at = TER_SB_AREA_BYTES; at + SEED_NODE_BYTES <= SEED_DEV_BYTES - TER_SB_TAIL_BYTES; at += SEED_BLOCK_BYTES) {
			find_entry(f, at);
			find_node(f, at);
		}
		if (!f->collecting)
			find_data(f);
	}
}

const struct seed_places *seed_places(unsigned which)
{
	static struct seed_places places[SEED_NR];
	struct seed_places *p = &places[which];
	struct finding *f;
	ter_le64 first;

	if (p->sums_nr)
		return p;
	f = calloc(1, sizeof(*f));
	fuzz_check(f);
	f->places = p;
	f->pool = seed_pool(which);
	f->dev_bytes = malloc(SEED_DEV_BYTES);
	fuzz_check(f->dev_bytes);
	memcpy(&first, f->pool->sb->uuid, sizeof(first));
	f->uuid_xor = ter_le64_get(first);
	for (unsigned i = 0; i < TER_BTREE_ROOTS_MAX; i++)
		if (f->pool->sb->roots[i].present)
			note_seq(f, f->pool->sb->roots[i].node_seq);
	f->collecting = true;
	scan(f);
	f->collecting = false;
	scan(f);
	free(f->dev_bytes);
	free(f);
	fuzz_check(p->nr[SEED_AT_SB] && p->nr[SEED_AT_JREC] && p->nr[SEED_AT_KEY] && p->nr[SEED_AT_DATA]);
	return p;
}

const uint8_t *seed_bytes(unsigned which, const struct seed_sum *sum)
{
	const struct seed_pool *pool = seed_pool(which);
	uint8_t *bytes = calloc(1, sum->bytes);

	fuzz_check(bytes);
	for (unsigned i = 0; i < pool->blocks_nr; i++) {
		const struct seed_block *b = &pool->blocks[i];
		const uint64_t from = ter_max(b->offset_bytes, sum->offset_bytes);
		const uint64_t to = ter_min(b->offset_bytes + SEED_BLOCK_BYTES, sum->offset_bytes + sum->bytes);

		if (b->dev == sum->dev && from < to)
			memcpy(bytes + (from - sum->offset_bytes), b->bytes + (from - b->offset_bytes), to - from);
	}
	return bytes;
}

/* --- editing --- */

static const uint64_t numbers[] = {
	0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 511, 512, 4095, 4096, 65535, 65536, 1u << 20, INT32_MAX, 1ull << 31, UINT32_MAX, 1ull << 32, (1ull << 40) - 1, 1ull << 40,
	1ull << 54, (1ull << 62) - 1, 1ull << 62, INT64_MAX - 1, INT64_MAX, 1ull << 63, UINT64_MAX - 4095, UINT64_MAX - 1, UINT64_MAX,
};

/* @n: an index of the table of numbers, or, with its top bit set, the number itself. */
static uint64_t number(uint32_t n)
{
	return n >> 31 ? n & INT32_MAX : numbers[n % ARRAY_SIZE(numbers)];
}

static void store(uint8_t *at, size_t room, uint64_t value, size_t bytes)
{
	const uint64_t le = htole64(value);

	memcpy(at, &le, ter_min(room, bytes));
}

static uint64_t load(const uint8_t *at, size_t room, size_t bytes)
{
	uint64_t le = 0;

	memcpy(&le, at, ter_min(room, bytes));
	return le64toh(le);
}

static void change(uint8_t *at, size_t room, unsigned op, uint32_t n, const uint8_t *other, size_t other_bytes)
{
	switch (op % SEED_OP_NR) {
	case SEED_XOR8:
		*at ^= (uint8_t)(n ? n : 1);
		break;
	case SEED_SET16:
		store(at, room, number(n), 2);
		break;
	case SEED_SET32:
		store(at, room, number(n), 4);
		break;
	case SEED_SET64:
		store(at, room, number(n), 8);
		break;
	case SEED_ADD32:
		store(at, room, load(at, room, 4) + (uint64_t)(int32_t)n, 4);
		break;
	case SEED_ADD64:
		store(at, room, load(at, room, 8) + (uint64_t)(int32_t)n, 8);
		break;
	case SEED_ZERO:
		memset(at, 0, ter_min(room, (size_t)n % 64 + 1));
		break;
	case SEED_COPY:
		memcpy(at, other, ter_min(room, other_bytes));
		break;
	}
}

/* An edit may name an algorithm that there is not: then there is nothing right. */
static bool slot_known(const struct ter_sb *sb, unsigned slot)
{
	return !slot || ter_algos_checksum(&sb->algos, slot);
}

/* Lengths as the edited bytes say, where they still are within what was there. */
static void make_right(const struct ter_sb *sb, const struct seed_sum *sum, uint8_t *bytes)
{
	const uint32_t skip = sum->node_head ? (uint32_t)sizeof(struct ter_node_disk) : 0;
	struct ter_bset_disk *bset = (void *)(bytes + skip);
	struct ter_jentry_disk *entry = (void *)bytes;
	struct ter_sb_disk *header = (void *)bytes;
	uint32_t len;

	switch (sum->kind) {
	case SEED_AT_SB:
		len = ter_le32_get(header->bytes);
		if (len >= sizeof(*header) && len <= sum->bytes)
			header->crc32c = ter_le32_make(ter_sb_checksum(bytes));
		break;
	case SEED_AT_JENTRY:
		len = ter_le32_get(entry->payload_bytes);
		if (len > sum->bytes - sizeof(*entry) || !slot_known(sb, entry->csum_slot))
			break;
		memset(entry->csum, 0, sizeof(entry->csum));
		ter_algos_digest(&sb->algos, entry->csum_slot, bytes, sizeof(*entry) + len, entry->csum);
		break;
	case SEED_AT_BSET:
		len = ter_le32_get(bset->keys_bytes);
		if (len > sum->bytes - skip - sizeof(*bset) || !slot_known(sb, bset->csum_slot))
			break;
		memset(bset->csum, 0, sizeof(bset->csum));
		ter_algos_digest(&sb->algos, bset->csum_slot, bytes, skip + sizeof(*bset) + len, bset->csum);
		break;
	}
}

static void edit_one(struct seed_machine *m, unsigned which, enum seed_kind kind, unsigned op, unsigned idx, uint32_t offset, uint32_t n)
{
	const struct seed_places *p = seed_places(which);
	const struct seed_place *place = &p->place[kind][idx % p->nr[kind]], *other = &p->place[kind][n % p->nr[kind]];
	const struct seed_sum *sum = &p->sums[place->sum];
	const uint8_t *from = seed_bytes(which, &p->sums[other->sum]);
	uint8_t *bytes = malloc(sum->bytes);

	offset %= place->bytes;
	fuzz_check(bytes && ter_sim_peek(m->sim, seed_path(sum->dev), sum->offset_bytes, bytes, sum->bytes) == 0);
	change(bytes + place->at + offset, place->bytes - offset, op, n, from + other->at, other->bytes);
	if (!(op & SEED_EDIT_UNSUMMED))
		make_right(seed_pool(which)->sb, sum, bytes);
	fuzz_check(ter_sim_poke(m->sim, seed_path(sum->dev), sum->offset_bytes, bytes, sum->bytes) == 0);
	free(bytes);
	free((void *)from);
}

void seed_edit(struct seed_machine *m, unsigned which, struct fuzz_in *in)
{
	const struct seed_places *p = seed_places(which);
	const enum seed_kind kind = fuzz_take(in, 1) % SEED_KIND_NR;
	const unsigned op = (unsigned)fuzz_take(in, 1), idx = (unsigned)fuzz_take(in, 2);
	const uint32_t offset = (uint32_t)fuzz_take(in, 2), n = (uint32_t)fuzz_take(in, 4);

	if (kind == SEED_AT_SB && !(op & SEED_EDIT_ONE)) {
		for (unsigned i = 0; i < p->nr[SEED_AT_SB]; i++)
			edit_one(m, which, kind, op & 0x7f, i, offset, n);
		return;
	}
	edit_one(m, which, kind, op & 0x7f, idx, offset, n);
}

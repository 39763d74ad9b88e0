/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: collecting pointers from extents and nodes. */
#include "recovery/space_refs.h"

#include "alloc/accounting.h"
#include "util/mem.h"

#define REFS_MIN 64u
#define RESTARTS_MAX 16 /* a btree changed its height while it was walked */
#define SETTLE_PASSES_MAX 50

int ter_repair_settle_btrees(struct ter_btrees *btrees)
{
	unsigned idle = 0;

	for (unsigned i = 0; i < SETTLE_PASSES_MAX && idle < 2; i++) {
		const int r = ter_btrees_flush(btrees);

		if (r < 0)
			return r;
		idle = r == 0 ? idle + 1 : 0;
	}
	return 0;
}

int ter_space_refs_init(struct ter_space_refs *refs, const struct ter_fsck_config *config, uint64_t memory_bytes)
{
	*refs = (struct ter_space_refs){ .config = config, .max = (size_t)ter_max(memory_bytes / sizeof(struct ter_space_ref), (uint64_t)REFS_MIN) };
	refs->ref = ter_calloc(refs->max, sizeof(refs->ref[0]));
	return refs->ref ? 0 : -ENOMEM;
}

void ter_space_refs_release(struct ter_space_refs *refs)
{
	free(refs->ref);
	refs->ref = NULL;
}

void ter_space_refs_first(struct ter_space_refs *refs)
{
	refs->from = (struct ter_bucket_at){ 0, 0 };
	refs->to = (struct ter_bucket_at){ TER_DEVS_MAX, 0 };
}

bool ter_space_refs_next(struct ter_space_refs *refs)
{
	refs->from = refs->to;
	refs->to = (struct ter_bucket_at){ TER_DEVS_MAX, 0 };
	return refs->from.dev < TER_DEVS_MAX;
}

const char *ter_space_ref_stray(const struct ter_members *members, const struct ter_space_ref *ref)
{
	const struct ter_dev *dev = ref->dev < TER_DEVS_MAX ? &members->dev[ref->dev] : NULL;
	uint64_t bucket;

	if (!dev || !dev->used)
		return "on a member that does not exist";
	bucket = ref->sector / dev->bucket_sectors;
	if (bucket >= dev->buckets_nr)
		return "beyond the member's end";
	if (ter_bucket_fixed_type(dev, bucket) != TER_DATA_FREE)
		return "where superblock or journal are";
	if (ref->sector % dev->bucket_sectors + ref->stored_sectors > dev->bucket_sectors)
		return "beyond its bucket's end";
	return NULL;
}

/* --- windows --- */

static struct ter_bucket_at bucket_of(const struct ter_space_refs *refs, const struct ter_space_ref *ref)
{
	return (struct ter_bucket_at){ ref->dev, ref->sector / refs->config->members->dev[ref->dev].bucket_sectors };
}

static bool before(struct ter_bucket_at a, struct ter_bucket_at b)
{
	return a.dev != b.dev ? a.dev < b.dev : a.bucket < b.bucket;
}

static int cmp_refs(const void *pa, const void *pb)
{
	const struct ter_space_ref *a = pa, *b = pb;

	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	if (a->sector != b->sector)
		return a->sector < b->sector ? -1 : 1;
	if (a->live_offset != b->live_offset)
		return a->live_offset < b->live_offset ? -1 : 1;
	if (a->btree != b->btree)
		return a->btree < b->btree ? -1 : 1;
	return ter_pos_cmp(a->pos, b->pos);
}

/* The window ends where half of what is there lies before; one bucket that alone does not fit gets more memory. */
static int shrink(struct ter_space_refs *refs)
{
	size_t at = refs->nr / 2;
	struct ter_bucket_at cut;

	qsort(refs->ref, refs->nr, sizeof(refs->ref[0]), cmp_refs);
	cut = bucket_of(refs, &refs->ref[at]);
	while (at > 0 && !before(bucket_of(refs, &refs->ref[at - 1]), cut))
		at--;
	if (!at) { /* the first bucket reaches beyond the middle: the window is that bucket alone */
		cut.bucket++;
		while (at < refs->nr && before(bucket_of(refs, &refs->ref[at]), cut))
			at++;
	}
	refs->to = cut;
	if (at > refs->max / 8 * 7) {
		struct ter_space_ref *bigger = ter_realloc_array(refs->ref, 2 * refs->max, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		refs->ref = bigger;
		refs->max *= 2;
	}
	refs->nr = at;
	return 0;
}

static int add_ref(struct ter_space_refs *refs, const struct ter_space_ref *ref)
{
	const char *why = ter_space_ref_stray(refs->config->members, ref);
	struct ter_bucket_at at;

	if (refs->mark) {
		ter_alloc_repair_mark(refs->config->alloc, ref->dev, ref->sector, ref->stored_sectors);
		return 0;
	}
	if (why)
		return refs->stray ? refs->stray(refs->arg, ref, why) : 0;
	at = bucket_of(refs, ref);
	if (before(at, refs->from) || !before(at, refs->to))
		return 0;
	if (refs->nr == refs->max) {
		int r = shrink(refs);

		if (r < 0)
			return r;
		if (!before(at, refs->to))
			return 0;
	}
	refs->ref[refs->nr++] = *ref;
	return 0;
}

/* --- sums --- */

static int add_set(struct ter_space_sums *sums, const struct ter_replicas_entry *entry, int64_t sectors)
{
	const struct ter_pos pos = ter_counter_replicas(entry);

	for (unsigned i = 0; i < sums->sets_nr; i++)
		if (!ter_pos_cmp(sums->set[i].pos, pos)) {
			sums->set[i].sectors += sectors;
			return 0;
		}
	if (sums->sets_nr == TER_REPLICAS_ENTRIES_MAX)
		return -E2BIG;
	sums->set[sums->sets_nr++] = (struct ter_set_sum){ .pos = pos, .entry = *entry, .sectors = sectors };
	return 0;
}

static int sum_extent(struct ter_space_sums *sums, const struct ter_extent *e)
{
	struct ter_replicas_entry entry;

	if (e->compression_slot) {
		sums->compression[e->compression_slot][0]++;
		sums->compression[e->compression_slot][1] += e->sectors;
		sums->compression[e->compression_slot][2] += ter_extent_ptr_sectors(e);
	}
	ter_extent_replicas(e, &entry);
	return entry.nr_devs ? add_set(sums, &entry, e->sectors) : 0;
}

/* --- reading --- */

static int take_extent(void *arg, const struct ter_key *key)
{
	struct ter_space_refs *refs = arg;
	struct ter_extent e;
	int r = 0;

	if (key->type == TER_KEY_RESERVATION && refs->sums)
		refs->sums->reserved += key->size;
	if (key->type != TER_KEY_EXTENT || ter_extent_decode(key, refs->config->sb->sb, &e) < 0)
		return 0;
	for (unsigned i = 0; i < e.nr_ptrs && r >= 0; i++) {
		const struct ter_space_ref ref = {
			.sector = e.ptr[i].sector, .pos = key->pos, .gen = e.ptr[i].gen, .counts = ter_extent_ptr_sectors(&e), .stored_sectors = e.stored_sectors,
			.raw_sectors = e.raw_sectors, .live_sectors = e.sectors, .live_offset = e.live_offset, .dev = e.ptr[i].dev, .btree = TER_BTREE_EXTENTS,
			.data_type = e.ptr[i].flags & TER_PTR_CACHED ? TER_DATA_CACHED : TER_DATA_USER, .ptr_idx = (uint8_t)i,
		};

		r = add_ref(refs, &ref);
	}
	if (r >= 0 && refs->sums)
		r = sum_extent(refs->sums, &e);
	return r;
}

struct node_arg {
	struct ter_space_refs *refs;
	enum ter_btree_id btree;
};

static int take_node(void *arg, unsigned level, struct ter_pos max, const struct ter_node_ptrs *ptrs)
{
	struct node_arg *n = arg;
	const uint32_t sectors = n->refs->config->sb->sb->options.btree_node_size >> TER_SECTOR_SHIFT;
	struct ter_replicas_entry entry = { .data_type = TER_DATA_BTREE, .nr_required = 1 };
	int r = 0;

	for (unsigned i = 0; i < ptrs->nr && r >= 0; i++) {
		const struct ter_space_ref ref = {
			.sector = ptrs->ptr[i].sector, .pos = max, .gen = ptrs->ptr[i].gen, .counts = sectors, .stored_sectors = sectors, .raw_sectors = sectors,
			.live_sectors = sectors, .dev = ptrs->ptr[i].dev, .btree = (uint8_t)n->btree, .level = (uint8_t)(level + 1), .data_type = TER_DATA_BTREE,
			.ptr_idx = (uint8_t)i,
		};
		unsigned at = entry.nr_devs++;

		for (; at > 0 && entry.devs[at - 1] > ref.dev; at--)
			entry.devs[at] = entry.devs[at - 1];
		entry.devs[at] = ref.dev;
		r = add_ref(n->refs, &ref);
	}
	if (r >= 0 && ptrs->nr && n->refs->sums) {
		n->refs->sums->btree[n->btree][0]++;
		n->refs->sums->btree[n->btree][1] += sectors;
		r = add_set(n->refs->sums, &entry, sectors);
	}
	return r;
}

static int count_inode(void *arg, const struct ter_key *key)
{
	struct ter_space_sums *sums = arg;

	sums->inodes += key->type == TER_KEY_INODE;
	return 0;
}

static int collect_once(struct ter_space_refs *refs)
{
	struct ter_btrees *bt = refs->config->btrees;
	int r = 0;

	refs->nr = 0;
	if (refs->sums)
		memset(refs->sums, 0, sizeof(*refs->sums));
	for (unsigned b = 0; b < TER_BTREE_NR && r >= 0; b++) {
		struct node_arg arg = { refs, (enum ter_btree_id)b };

		r = ter_btree_walk_nodes(bt, (enum ter_btree_id)b, take_node, &arg);
	}
	if (r >= 0)
		r = ter_btree_scan(bt, TER_BTREE_EXTENTS, TER_POS_MIN, TER_POS_MAX, 0, take_extent, refs, NULL);
	if (r >= 0 && refs->sums)
		r = ter_btree_scan(bt, TER_BTREE_INODES, TER_POS_MIN, TER_POS_MAX, 0, count_inode, refs->sums, NULL);
	return ter_min(r, 0);
}

int ter_space_refs_collect(struct ter_space_refs *refs)
{
	const struct ter_bucket_at to = refs->to;
	int r = -ERESTART;

	for (unsigned i = 0; i < RESTARTS_MAX && r == -ERESTART; i++) {
		refs->to = to;
		r = collect_once(refs);
	}
	if (r < 0)
		return r == -ERESTART ? -EBUSY : r;
	qsort(refs->ref, refs->nr, sizeof(refs->ref[0]), cmp_refs);
	return 0;
}

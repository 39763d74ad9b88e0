/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The content of a node in memory: see keyset.h. */
#include "btree/keyset.h"
#include "util/mem.h"

#define SLOTS_MIN 16u
#define ARENA_MIN 1024u

void ter_keyset_init(struct ter_keyset *ks, bool interior)
{
	*ks = (struct ter_keyset){ .interior = interior };
}

void ter_keyset_free(struct ter_keyset *ks)
{
	free(ks->slots);
	free(ks->children);
	free(ks->arena);
	ter_keyset_init(ks, ks->interior);
}

size_t ter_keyset_memory(const struct ter_keyset *ks)
{
	return (size_t)ks->max * (sizeof(struct ter_slot) + (ks->interior ? sizeof(void *) : 0)) + ks->bytes;
}

/* --- search --- */

static inline uint64_t tag_of(const struct ter_keyset *ks, uint64_t inode, uint64_t offset)
{
	unsigned shift = ks->inode_shift;
	uint64_t d = inode - ks->base_inode, o = offset >> ks->offset_shift;

	if (ter_unlikely(inode < ks->base_inode))
		return 0;
	if (ter_unlikely(!shift))
		return d;
	if (ter_unlikely(d > UINT64_MAX >> shift))
		return UINT64_MAX;
	return d << shift | ter_min(o, ((uint64_t)1 << shift) - 1);
}

static unsigned bits_of(uint64_t x)
{
	return x ? ter_log2(x) + 1 : 0;
}

/* Choose the map that tells today's keys apart best. */
static void retag(struct ter_keyset *ks)
{
	const struct ter_key_disk *key;
	uint64_t most = 0;
	unsigned bits;

	if (!ks->nr)
		return;
	for (uint32_t i = 0; i < ks->nr; i++)
		most = ter_max(most, ter_le64_get(ter_keyset_at(ks, i)->offset));
	ks->base_inode = ter_le64_get(ter_keyset_at(ks, 0)->inode);
	bits = bits_of(ter_le64_get(ter_keyset_at(ks, ks->nr - 1)->inode) - ks->base_inode) + 1; /* room for twice as many */
	ks->inode_shift = (uint8_t)(64 - ter_min(bits, 64u));
	bits = bits_of(most);
	ks->offset_shift = (uint8_t)(ks->inode_shift && bits > ks->inode_shift ? bits - ks->inode_shift : 0);
	for (uint32_t i = 0; i < ks->nr; i++) {
		key = ter_keyset_at(ks, i);
		ks->slots[i].tag = tag_of(ks, ter_le64_get(key->inode), ter_le64_get(key->offset));
	}
}

uint32_t ter_keyset_lower(const struct ter_keyset *ks, struct ter_pos pos)
{
	uint64_t tag = tag_of(ks, pos.inode, pos.offset);
	const struct ter_slot *base = ks->slots, *mid;
	uint32_t nr = ks->nr, half;
	bool less;

	while (nr) {
		half = nr / 2;
		mid = base + half;
		less = mid->tag < tag;
		if (ter_unlikely(mid->tag == tag))
			less = ter_pos_cmp(ter_key_disk_pos((const struct ter_key_disk *)(ks->arena + mid->off)), pos) < 0;
		base = less ? mid + 1 : base;
		nr = less ? nr - half - 1 : half;
	}
	return (uint32_t)(base - ks->slots);
}

/* --- change --- */

/* Add what slot @s stands for to the sums, or take it away. */
static void account(struct ter_keyset *ks, const struct ter_slot *s, int sign)
{
	uint32_t whole = ter_key_whole_bytes((const struct ter_key_disk *)(ks->arena + s->off));
	bool gone = s->flags & TER_SLOT_WHITEOUT;

	if (!gone) {
		ks->live_nr += (uint32_t)sign;
		ks->live_bytes += (uint32_t)sign * whole;
	}
	if (s->flags & TER_SLOT_DIRTY) {
		ks->dirty_nr += (uint32_t)sign;
		ks->dirty_bytes += (uint32_t)sign * (gone ? (uint32_t)sizeof(struct ter_key_disk) : whole);
	}
}

static int grow_slots(struct ter_keyset *ks, uint32_t need)
{
	uint32_t max = ter_max(ks->max, SLOTS_MIN);
	struct ter_slot *slots;
	struct ter_node **children;

	while (max < need)
		max *= 2;
	slots = ter_realloc_array(ks->slots, max, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	ks->slots = slots;
	if (ks->interior) {
		children = ter_realloc_array(ks->children, max, sizeof(*children));
		if (!children)
			return -ENOMEM; /* the longer slot array does no harm */
		ks->children = children;
	}
	ks->max = max;
	retag(ks);
	return 0;
}

/* A new arena with room for @more, without the garbage. */
static int squeeze(struct ter_keyset *ks, uint32_t more)
{
	uint32_t bytes = ARENA_MIN, used = 0, whole;
	uint8_t *arena;

	while (bytes < ks->used - ks->garbage + more)
		bytes *= 2;
	arena = ter_malloc(bytes);
	if (!arena)
		return -ENOMEM;
	for (uint32_t i = 0; i < ks->nr; i++) {
		whole = ter_key_whole_bytes(ter_keyset_at(ks, i));
		memcpy(arena + used, ks->arena + ks->slots[i].off, whole);
		ks->slots[i].off = used;
		used += whole;
	}
	free(ks->arena);
	ks->arena = arena;
	ks->bytes = bytes;
	ks->used = used;
	ks->garbage = 0;
	return 0;
}

static int grow_arena(struct ter_keyset *ks, uint32_t more)
{
	uint32_t bytes = ter_max(ks->bytes, ARENA_MIN);
	uint8_t *arena;

	if (ks->garbage > ks->used / 2)
		return squeeze(ks, more);
	while (bytes - ks->used < more)
		bytes *= 2;
	arena = ter_realloc_array(ks->arena, bytes, 1);
	if (!arena)
		return -ENOMEM;
	ks->arena = arena;
	ks->bytes = bytes;
	return 0;
}

int ter_keyset_reserve(struct ter_keyset *ks, uint32_t nr, uint32_t bytes)
{
	int r;

	if (ter_unlikely(ks->nr + nr > ks->max)) {
		r = grow_slots(ks, ks->nr + nr);
		if (r < 0)
			return r;
	}
	if (ter_unlikely(ks->bytes - ks->used < bytes))
		return grow_arena(ks, bytes);
	return 0;
}

static uint32_t arena_add(struct ter_keyset *ks, const struct ter_key_disk *key, uint32_t whole)
{
	uint32_t off = ks->used;

	assert(ks->bytes - ks->used >= whole); /* A5 */
	memcpy(ks->arena + off, key, whole);
	ks->used += whole;
	return off;
}

void ter_keyset_put(struct ter_keyset *ks, uint32_t idx, bool found, const struct ter_key_disk *key)
{
	uint32_t whole = ter_key_whole_bytes(key), old;
	struct ter_slot *s = &ks->slots[idx];

	if (found) {
		account(ks, s, -1);
		old = ter_key_whole_bytes(ter_keyset_at(ks, idx));
		if (old == whole) {
			memcpy(ks->arena + s->off, key, whole);
		} else {
			s->off = arena_add(ks, key, whole);
			ks->garbage += old;
		}
		s->flags = (s->flags & ~(uint32_t)TER_SLOT_WHITEOUT) | TER_SLOT_DIRTY;
	} else {
		assert(ks->nr < ks->max); /* A5 */
		memmove(s + 1, s, (ks->nr - idx) * sizeof(*s));
		if (ks->interior) {
			memmove(&ks->children[idx + 1], &ks->children[idx], (ks->nr - idx) * sizeof(void *));
			ks->children[idx] = NULL;
		}
		ks->nr++;
		*s = (struct ter_slot){
			.tag = tag_of(ks, ter_le64_get(key->inode), ter_le64_get(key->offset)),
			.off = arena_add(ks, key, whole),
			.flags = TER_SLOT_DIRTY,
		};
	}
	account(ks, s, 1);
}

static void drop_slot(struct ter_keyset *ks, uint32_t idx)
{
	ks->garbage += ter_key_whole_bytes(ter_keyset_at(ks, idx));
	ks->nr--;
	memmove(&ks->slots[idx], &ks->slots[idx + 1], (ks->nr - idx) * sizeof(*ks->slots));
	if (ks->interior)
		memmove(&ks->children[idx], &ks->children[idx + 1], (ks->nr - idx) * sizeof(void *));
}

bool ter_keyset_remove(struct ter_keyset *ks, uint32_t idx)
{
	struct ter_slot *s = &ks->slots[idx];

	account(ks, s, -1);
	if (!(s->flags & TER_SLOT_ONDISK)) {
		drop_slot(ks, idx);
		return true;
	}
	s->flags |= TER_SLOT_WHITEOUT | TER_SLOT_DIRTY;
	if (ks->interior)
		ks->children[idx] = NULL;
	account(ks, s, 1);
	return false;
}

/* --- disk --- */

int ter_keyset_merge(struct ter_keyset *ks, const void *keys, uint32_t bytes, uint32_t nr)
{
	uint32_t max = ter_max(ks->nr + nr, SLOTS_MIN), a = 0, out = 0, off, pos = 0;
	const struct ter_key_disk *key;
	struct ter_node **children = NULL;
	struct ter_slot *slots;
	int cmp, r;

	r = ter_keyset_reserve(ks, 0, bytes);
	if (r < 0)
		return r;
	slots = ter_calloc(max, sizeof(*slots));
	if (ks->interior)
		children = ter_calloc(max, sizeof(*children));
	if (!slots || (ks->interior && !children)) {
		free(slots);
		free(children);
		return -ENOMEM;
	}
	off = ks->used;
	if (bytes)
		memcpy(ks->arena + off, keys, bytes);
	ks->used += bytes;
	while (a < ks->nr || pos < bytes) {
		key = (const struct ter_key_disk *)(ks->arena + off + pos);
		cmp = a == ks->nr ? 1 : pos == bytes ? -1 : ter_pos_cmp(ter_keyset_pos(ks, a), ter_key_disk_pos(key));
		if (cmp < 0) {
			slots[out++] = ks->slots[a++];
			continue;
		}
		if (cmp == 0) {
			account(ks, &ks->slots[a], -1);
			ks->garbage += ter_key_whole_bytes(ter_keyset_at(ks, a++));
		}
		if (key->type == TER_KEY_DELETED) {
			ks->garbage += ter_key_whole_bytes(key);
		} else {
			slots[out] = (struct ter_slot){ .off = off + pos, .flags = TER_SLOT_ONDISK };
			account(ks, &slots[out++], 1);
		}
		pos += ter_key_whole_bytes(key);
	}
	free(ks->slots);
	free(ks->children);
	ks->slots = slots;
	ks->children = children;
	ks->nr = out;
	ks->max = max;
	retag(ks);
	return 0;
}

static uint8_t *encode_slot(const struct ter_keyset *ks, const struct ter_slot *s, uint8_t *dst)
{
	const struct ter_key_disk *key = (const struct ter_key_disk *)(ks->arena + s->off);
	struct ter_key_disk *gone = (struct ter_key_disk *)dst;
	uint32_t whole;

	if (s->flags & TER_SLOT_WHITEOUT) {
		*gone = (struct ter_key_disk){ .inode = key->inode, .offset = key->offset, .snapshot = key->snapshot };
		return dst + sizeof(*gone);
	}
	whole = ter_key_whole_bytes(key);
	memcpy(dst, key, whole);
	return dst + whole;
}

uint32_t ter_keyset_snap_dirty(struct ter_keyset *ks, uint8_t *dst)
{
	uint32_t nr = 0;
	struct ter_slot *s;

	for (uint32_t i = 0; i < ks->nr && nr < ks->dirty_nr; i++) {
		s = &ks->slots[i];
		if (!(s->flags & TER_SLOT_DIRTY))
			continue;
		dst = encode_slot(ks, s, dst);
		nr++;
		s->flags = (s->flags & ~(uint32_t)TER_SLOT_DIRTY) | TER_SLOT_WRITING | TER_SLOT_ONDISK;
	}
	ks->dirty_nr = ks->dirty_bytes = 0;
	return nr;
}

uint32_t ter_keyset_snap_before(struct ter_keyset *ks, uint32_t end, uint8_t *dst)
{
	uint32_t nr = 0;
	struct ter_slot *s;

	for (uint32_t i = 0; i < end; i++) {
		s = &ks->slots[i];
		account(ks, s, -1);
		if (s->flags & TER_SLOT_DIRTY)
			s->flags = (s->flags & ~(uint32_t)TER_SLOT_DIRTY) | TER_SLOT_WRITING;
		account(ks, s, 1);
		if (s->flags & TER_SLOT_WHITEOUT)
			continue;
		dst = encode_slot(ks, s, dst);
		nr++;
		s->flags |= TER_SLOT_ONDISK;
	}
	return nr;
}

uint32_t ter_keyset_snap_live(struct ter_keyset *ks, uint8_t *dst)
{
	return ter_keyset_snap_before(ks, ks->nr, dst);
}

uint32_t ter_keyset_fitting(const struct ter_keyset *ks, uint32_t bytes_max, uint32_t *ret_bytes)
{
	uint32_t i, bytes = 0, whole;

	for (i = 0; i < ks->nr; i++) {
		whole = ter_keyset_live(ks, i) ? ter_key_whole_bytes(ter_keyset_at(ks, i)) : 0;
		if (whole > bytes_max - bytes)
			break;
		bytes += whole;
	}
	*ret_bytes = bytes;
	return i;
}

uint32_t ter_keyset_copy_clean(const struct ter_keyset *ks, uint32_t from, uint8_t *dst, uint32_t *ret_bytes)
{
	uint32_t nr = 0, bytes = 0;

	for (uint32_t i = from; i < ks->nr; i++) {
		const struct ter_slot *s = &ks->slots[i];

		if (s->flags & (TER_SLOT_WHITEOUT | TER_SLOT_DIRTY | TER_SLOT_WRITING))
			continue;
		if (dst)
			(void)encode_slot(ks, s, dst + bytes);
		bytes += ter_key_whole_bytes(ter_keyset_at(ks, i));
		nr++;
	}
	*ret_bytes = bytes;
	return nr;
}

void ter_keyset_snap_end(struct ter_keyset *ks, bool written)
{
	uint32_t out = 0;
	struct ter_slot *s;

	for (uint32_t i = 0; i < ks->nr; i++) {
		s = &ks->slots[i];
		if (s->flags & TER_SLOT_WRITING) {
			account(ks, s, -1);
			s->flags &= ~(uint32_t)TER_SLOT_WRITING;
			if (!written) {
				s->flags |= TER_SLOT_DIRTY;
			} else if ((s->flags & (TER_SLOT_WHITEOUT | TER_SLOT_DIRTY)) == TER_SLOT_WHITEOUT) {
				ks->garbage += ter_key_whole_bytes(ter_keyset_at(ks, i));
				continue;
			}
			account(ks, s, 1);
		}
		if (out != i) {
			ks->slots[out] = *s;
			if (ks->interior)
				ks->children[out] = ks->children[i];
		}
		out++;
	}
	ks->nr = out;
}

int ter_keyset_verify(const struct ter_keyset *ks)
{
	uint32_t live_nr = 0, live_bytes = 0, dirty_nr = 0, dirty_bytes = 0, bytes = 0, whole;
	const struct ter_key_disk *key;
	const struct ter_slot *s;

	for (uint32_t i = 0; i < ks->nr; i++) {
		s = &ks->slots[i];
		key = ter_keyset_at(ks, i);
		whole = ter_key_whole_bytes(key);
		if (s->off + whole > ks->used || s->tag != tag_of(ks, ter_le64_get(key->inode), ter_le64_get(key->offset)))
			return -EUCLEAN;
		if (i && (ter_pos_cmp(ter_keyset_pos(ks, i - 1), ter_keyset_pos(ks, i)) >= 0 || s[-1].tag > s->tag))
			return -EUCLEAN;
		if ((s->flags & TER_SLOT_WHITEOUT) && !(s->flags & TER_SLOT_ONDISK))
			return -EUCLEAN;
		bytes += whole;
		if (!(s->flags & TER_SLOT_WHITEOUT)) {
			live_nr++;
			live_bytes += whole;
		}
		if (s->flags & TER_SLOT_DIRTY) {
			dirty_nr++;
			dirty_bytes += s->flags & TER_SLOT_WHITEOUT ? (uint32_t)sizeof(*key) : whole;
		}
	}
	if (live_nr != ks->live_nr || live_bytes != ks->live_bytes || dirty_nr != ks->dirty_nr || dirty_bytes != ks->dirty_bytes ||
	    bytes != ks->used - ks->garbage)
		return -EUCLEAN;
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The content of a simulated device: two levels of counted, copy-on-write pieces, absent where all is zero. */
#include "io/sim_image.h"

#include "util/siphash.h"

#define PAGE_BYTES (64u << 10)
#define LEAF_PAGES 256u
#define LEAF_BYTES ((uint64_t)LEAF_PAGES * PAGE_BYTES)

struct page {
	unsigned refs;
	bool hashed;
	uint64_t hash; /* 0 for a page of zeros */
	uint8_t data[PAGE_BYTES];
};

struct leaf {
	unsigned refs;
	struct page *page[LEAF_PAGES];
};

struct ter_sim_image {
	uint64_t bytes;
	uint64_t leaf_nr;
	struct leaf *leaf[];
};

void *ter_sim_alloc(size_t bytes)
{
	void *p = calloc(1, bytes ? bytes : 1);

	if (!p)
		abort();
	return p;
}

void *ter_sim_grow(void *old, size_t nr, size_t bytes)
{
	void *p = reallocarray(old, nr, bytes);

	if (!p)
		abort();
	return p;
}

uint64_t ter_sim_draw(uint64_t *state, uint64_t below)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

struct ter_sim_image *ter_sim_image_new(uint64_t bytes)
{
	uint64_t leaf_nr = (bytes + LEAF_BYTES - 1) / LEAF_BYTES;
	struct ter_sim_image *image = ter_sim_alloc(sizeof(*image) + leaf_nr * sizeof(image->leaf[0]));

	image->bytes = bytes;
	image->leaf_nr = leaf_nr;
	return image;
}

struct ter_sim_image *ter_sim_image_clone(const struct ter_sim_image *image)
{
	struct ter_sim_image *copy = ter_sim_image_new(image->bytes);

	for (uint64_t i = 0; i < image->leaf_nr; i++) {
		copy->leaf[i] = image->leaf[i];
		if (copy->leaf[i])
			copy->leaf[i]->refs++;
	}
	return copy;
}

static void put_page(struct page *page)
{
	if (page && !--page->refs)
		free(page);
}

static void put_leaf(struct leaf *leaf)
{
	if (!leaf || --leaf->refs)
		return;
	for (unsigned i = 0; i < LEAF_PAGES; i++)
		put_page(leaf->page[i]);
	free(leaf);
}

void ter_sim_image_free(struct ter_sim_image *image)
{
	if (!image)
		return;
	for (uint64_t i = 0; i < image->leaf_nr; i++)
		put_leaf(image->leaf[i]);
	free(image);
}

uint64_t ter_sim_image_bytes(const struct ter_sim_image *image)
{
	return image->bytes;
}

static const struct page *find_page(const struct ter_sim_image *image, uint64_t offset)
{
	const struct leaf *leaf = image->leaf[offset / LEAF_BYTES];

	return leaf ? leaf->page[offset % LEAF_BYTES / PAGE_BYTES] : NULL;
}

/* The leaf, ours alone. */
static struct leaf *own_leaf(struct ter_sim_image *image, uint64_t offset)
{
	struct leaf **at = &image->leaf[offset / LEAF_BYTES], *copy;

	if (*at && (*at)->refs == 1)
		return *at;
	copy = ter_sim_alloc(sizeof(*copy));
	copy->refs = 1;
	if (*at) {
		memcpy(copy->page, (*at)->page, sizeof(copy->page));
		for (unsigned i = 0; i < LEAF_PAGES; i++)
			if (copy->page[i])
				copy->page[i]->refs++;
		put_leaf(*at);
	}
	*at = copy;
	return copy;
}

/* The page, ours alone, about to change. */
static struct page *own_page(struct ter_sim_image *image, uint64_t offset)
{
	struct page **at = &own_leaf(image, offset)->page[offset % LEAF_BYTES / PAGE_BYTES], *copy;

	if (!*at || (*at)->refs > 1) {
		copy = ter_sim_alloc(sizeof(*copy));
		copy->refs = 1;
		if (*at)
			memcpy(copy->data, (*at)->data, PAGE_BYTES);
		put_page(*at);
		*at = copy;
	}
	(*at)->hashed = false;
	return *at;
}

static uint64_t bytes_in_page(uint64_t offset, uint64_t bytes)
{
	return ter_min(bytes, PAGE_BYTES - offset % PAGE_BYTES);
}

void ter_sim_image_read(const struct ter_sim_image *image, uint64_t offset, void *buf, uint64_t bytes)
{
	uint8_t *to = buf;

	assert(offset <= image->bytes && bytes <= image->bytes - offset);
	for (uint64_t n; bytes; bytes -= n, offset += n, to += n) {
		const struct page *page = find_page(image, offset);

		n = bytes_in_page(offset, bytes);
		if (page)
			memcpy(to, page->data + offset % PAGE_BYTES, n);
		else
			memset(to, 0, n);
	}
}

void ter_sim_image_write(struct ter_sim_image *image, uint64_t offset, const void *buf, uint64_t bytes)
{
	const uint8_t *from = buf;

	assert(offset <= image->bytes && bytes <= image->bytes - offset);
	for (uint64_t n; bytes; bytes -= n, offset += n, from += n) {
		n = bytes_in_page(offset, bytes);
		memcpy(own_page(image, offset)->data + offset % PAGE_BYTES, from, n);
	}
}

static void drop_page(struct ter_sim_image *image, uint64_t offset)
{
	struct page **at = &own_leaf(image, offset)->page[offset % LEAF_BYTES / PAGE_BYTES];

	put_page(*at);
	*at = NULL;
}

void ter_sim_image_zero(struct ter_sim_image *image, uint64_t offset, uint64_t bytes)
{
	assert(offset <= image->bytes && bytes <= image->bytes - offset);
	for (uint64_t n; bytes; bytes -= n, offset += n) {
		n = bytes_in_page(offset, bytes);
		if (!find_page(image, offset))
			continue;
		if (n == PAGE_BYTES)
			drop_page(image, offset);
		else
			memset(own_page(image, offset)->data + offset % PAGE_BYTES, 0, n);
	}
}

static uint64_t page_hash(struct page *page)
{
	static const uint8_t key[16] = "page of a sim";
	static const uint8_t zero[PAGE_BYTES];

	if (!page->hashed) {
		page->hash = memcmp(page->data, zero, PAGE_BYTES) ? ter_siphash(key, page->data, PAGE_BYTES) | 1 : 0;
		page->hashed = true;
	}
	return page->hash;
}

uint64_t ter_sim_image_hash(const struct ter_sim_image *image)
{
	static const uint8_t key[16] = "image of a sim";
	uint64_t sum = image->bytes;

	for (uint64_t l = 0; l < image->leaf_nr; l++) {
		for (unsigned p = 0; image->leaf[l] && p < LEAF_PAGES; p++) {
			uint64_t at[2] = {l * LEAF_PAGES + p,
					  image->leaf[l]->page[p] ? page_hash(image->leaf[l]->page[p]) : 0};

			if (at[1])
				sum += ter_siphash(
					key, at,
					sizeof(at)); /* a sum: order does not matter, pages of zeros add nothing */
		}
	}
	return sum;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Plugins
 *
 * Input: which algorithm (1 byte), the size before compression (3), and what is to be decompressed or summed. A decompressor fills its output or refuses; what it gave
 * can be compressed and comes back. A checksum is the same however its input is cut.
 */
#include "fuzz.h"
#include "real_codecs.h"

const size_t fuzz_memory_max = 64 << 20;

#define RAW_BYTES_MAX (2u << 20)

static void *get(size_t bytes)
{
	void *p = malloc(bytes ? bytes : 1);

	if (!p)
		abort();
	return p;
}

static void compression(const struct terrace_compression *c, size_t exact, const uint8_t *src, size_t size)
{
	const size_t scratch_bytes = c->scratch_bytes(c->level_def, ter_max(exact, size));
	uint8_t *scratch = get(scratch_bytes), *out = get(exact);
	uint8_t *packed, *back;
	size_t bytes;

	memset(scratch, 0xa5, scratch_bytes);
	if (c->decompress(out, exact, src, size, scratch) == 0) {
		packed = get(exact);
		bytes = c->compress(packed, exact, out, exact, c->level_def, scratch);
		fuzz_check(bytes <= exact);
		if (bytes) {
			back = get(exact);
			fuzz_check(c->decompress(back, exact, packed, bytes, scratch) == 0 && !memcmp(back, out, exact));
			free(back);
		}
		free(packed);
	}
	free(out);
	free(scratch);
}

static void checksum(const struct terrace_checksum *c, size_t cut, const uint8_t *src, size_t size)
{
	uint8_t whole[TER_DIGEST_MAX] = { 0 }, parts[TER_DIGEST_MAX] = { 0 };
	struct iovec iov[2] = { { (void *)src, size } };

	c->digest(whole, iov, 1, NULL, NULL);
	cut = size ? cut % size : 0;
	iov[0].iov_len = cut;
	iov[1] = (struct iovec){ (void *)(src + cut), size - cut };
	c->digest(parts, iov, 2, NULL, NULL);
	fuzz_check(!memcmp(whole, parts, sizeof(whole)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ter_codecs *codecs = fuzz_codecs();
	struct fuzz_in in = { data, size };
	const struct terrace_algo *algo = codecs->algo[fuzz_take(&in, 1) % codecs->nr];
	const size_t number = fuzz_take(&in, 3);
	uint8_t *src = fuzz_dup(&in, SIZE_MAX, &size);

	if (algo->kind == TERRACE_COMPRESSION)
		compression((const void *)algo, number % RAW_BYTES_MAX, src, size);
	else if (algo->kind == TERRACE_CHECKSUM)
		checksum((const void *)algo, number, src, size);
	free(src);
	return 0;
}

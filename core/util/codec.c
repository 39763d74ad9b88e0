/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Codecs: the registry of loaded algorithms, and what a pool's slots stand for. */
#include "util/codec.h"

#include <stdio.h>

#include "util/fault.h"

TER_FAULT_POINT(fault_add, "codec.add", ELIBBAD, "the registration of a plugin's algorithm")
TER_FAULT_POINT(fault_compress, "codec.compress", ENOSPC, "a compression, which then does not fit")
TER_FAULT_POINT(fault_decompress, "codec.decompress", EBADMSG, "a decompression")

#define LEVEL_DIGITS_MAX 9 /* fits an int whatever the digits */

/* --- registry --- */

static bool name_valid(const char *name)
{
	size_t n;

	if (!name)
		return false;
	n = strnlen(name, TERRACE_NAME_MAX + 1);
	return n > 0 && n <= TERRACE_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static bool compression_valid(const struct terrace_algo *algo)
{
	const struct terrace_compression *c = (const struct terrace_compression *)algo;

	return algo->size >= sizeof(*c) && c->scratch_bytes && c->compress && c->decompress &&
	       c->level_min <= c->level_def && c->level_def <= c->level_max;
}

static bool checksum_valid(const struct terrace_algo *algo)
{
	const struct terrace_checksum *c = (const struct terrace_checksum *)algo;

	return algo->size >= sizeof(*c) && c->digest && c->digest_len >= 1 && c->digest_len <= TER_DIGEST_MAX;
}

static bool aead_valid(const struct terrace_algo *algo)
{
	const struct terrace_aead *c = (const struct terrace_aead *)algo;

	return algo->size >= sizeof(*c) && c->setkey && c->seal && c->open && c->key_len && c->tag_len;
}

static bool erasure_valid(const struct terrace_algo *algo)
{
	const struct terrace_erasure *c = (const struct terrace_erasure *)algo;

	return algo->size >= sizeof(*c) && c->encode && c->recover && c->k_max && c->m_max && c->unit;
}

static bool algo_valid(const struct terrace_algo *algo)
{
	if (!algo || algo->size < sizeof(*algo) || !name_valid(algo->name) || !strcmp(algo->name, "none"))
		return false;
	switch (algo->kind) {
	case TERRACE_COMPRESSION:
		return compression_valid(algo);
	case TERRACE_CHECKSUM:
		return checksum_valid(algo);
	case TERRACE_AEAD:
		return aead_valid(algo);
	case TERRACE_ERASURE:
		return erasure_valid(algo);
	}
	return false;
}

int ter_codecs_add(struct ter_codecs *codecs, const struct terrace_algo *algo)
{
	int r;

	r = TER_FAULT(fault_add);
	if (r < 0)
		return r;
	if (!algo_valid(algo))
		return -EINVAL;
	if (ter_codecs_by_name(codecs, algo->kind, algo->name) || ter_codecs_by_uuid(codecs, algo->kind, algo->uuid))
		return -EEXIST;
	if (codecs->nr >= TER_CODECS_MAX)
		return -E2BIG;
	codecs->algo[codecs->nr++] = algo;
	return 0;
}

const struct terrace_algo *ter_codecs_by_name(const struct ter_codecs *codecs, enum terrace_kind kind, const char *name)
{
	for (unsigned i = 0; i < codecs->nr; i++)
		if (codecs->algo[i]->kind == kind && !strcmp(codecs->algo[i]->name, name))
			return codecs->algo[i];
	return NULL;
}

const struct terrace_algo *ter_codecs_by_uuid(const struct ter_codecs *codecs, enum terrace_kind kind,
					      const uint8_t uuid[16])
{
	for (unsigned i = 0; i < codecs->nr; i++)
		if (codecs->algo[i]->kind == kind && !memcmp(codecs->algo[i]->uuid, uuid, 16))
			return codecs->algo[i];
	return NULL;
}

/* --- slots --- */

static const struct terrace_algo *slot_algo(const struct ter_algos *algos, unsigned slot, enum terrace_kind kind)
{
	const struct terrace_algo *algo;

	if (slot < 1 || slot > TER_ALGO_SLOTS_MAX)
		return NULL;
	algo = __atomic_load_n(&algos->slot[slot].algo, __ATOMIC_ACQUIRE); /* a running pool may give out a slot */
	return algo && algo->kind == kind ? algo : NULL;
}

const struct terrace_checksum *ter_algos_checksum(const struct ter_algos *algos, unsigned slot)
{
	return (const struct terrace_checksum *)slot_algo(algos, slot, TERRACE_CHECKSUM);
}

const struct terrace_compression *ter_algos_compression(const struct ter_algos *algos, unsigned slot)
{
	return (const struct terrace_compression *)slot_algo(algos, slot, TERRACE_COMPRESSION);
}

void ter_algos_digest(const struct ter_algos *algos, unsigned slot, const void *buf, size_t bytes,
		      uint8_t out[TER_DIGEST_MAX])
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = bytes};

	ter_algos_digestv(algos, slot, &iov, 1, out);
}

void ter_algos_digestv(const struct ter_algos *algos, unsigned slot, const struct iovec *iov, unsigned iov_nr,
		       uint8_t out[TER_DIGEST_MAX])
{
	const struct terrace_checksum *checksum = ter_algos_checksum(algos, slot);

	/* Callers checked the slot when they decoded it (K2): a free one here would let damaged data pass unseen. */
	assert(checksum || slot == 0);
	memset(out, 0, TER_DIGEST_MAX);
	if (checksum)
		checksum->digest(out, iov, iov_nr, NULL, NULL);
}

size_t ter_codec_compress(const struct terrace_compression *algo, void *dst, size_t cap, const void *src, size_t n, int level, void *scratch)
{
	return TER_FAULT(fault_compress) < 0 ? 0 : algo->compress(dst, cap, src, n, level, scratch);
}

int ter_codec_decompress(const struct terrace_compression *algo, void *dst, size_t exact, const void *src, size_t n, void *scratch)
{
	int r;

	r = TER_FAULT(fault_decompress);
	return r < 0 ? r : algo->decompress(dst, exact, src, n, scratch);
}

/* --- the option "compression" --- */

static int parse_level(const char *text, int *ret_level)
{
	const char *digits = text + (*text == '-');
	size_t n = strspn(digits, "0123456789");

	if (!n || n > LEVEL_DIGITS_MAX || digits[n])
		return -EINVAL;
	*ret_level = atoi(text);
	return 0;
}

static void list_names(const struct ter_codecs *codecs, enum terrace_kind kind, char *out, size_t bytes)
{
	size_t used = (size_t)snprintf(out, bytes, "none");

	for (unsigned i = 0; i < codecs->nr && used < bytes; i++)
		if (codecs->algo[i]->kind == kind)
			used += (size_t)snprintf(out + used, bytes - used, ", %s", codecs->algo[i]->name);
}

static int plugin_missing(const struct ter_codecs *codecs, const char *name, struct ter_error *error)
{
	char names[TER_ERROR_TEXT_MAX / 2];

	list_names(codecs, TERRACE_COMPRESSION, names, sizeof(names));
	return ter_fail(error, TER_ERR_PLUGIN_MISSING,
			"No plugin for the compression '%s' is loaded. Available: %s. Install the plugin, or choose "
			"another compression.",
			name, names);
}

int ter_compression_parse(const struct ter_codecs *codecs, const char *text, struct ter_compression_spec *ret,
			  struct ter_error *error)
{
	struct ter_compression_spec spec = {0};
	const struct terrace_compression *c;
	size_t name_bytes = strcspn(text, ":");
	const char *level = text[name_bytes] ? text + name_bytes + 1 : NULL;

	if (name_bytes <= TERRACE_NAME_MAX)
		memcpy(spec.name, text, name_bytes);
	if (!name_valid(spec.name))
		return ter_fail(error, TER_ERR_INVALID_OPTION,
				"'%.64s' is not a compression. Write a name such as 'zstd', a name and a level such as "
				"'zstd:3', or 'none'.",
				text);
	if (!strcmp(spec.name, "none")) {
		if (level)
			return ter_fail(error, TER_ERR_INVALID_OPTION,
					"The compression 'none' takes no level, but '%.64s' gives one.", text);
		*ret = spec;
		return 0;
	}

	c = (const struct terrace_compression *)ter_codecs_by_name(codecs, TERRACE_COMPRESSION, spec.name);
	if (!c)
		return plugin_missing(codecs, spec.name, error);
	spec.level = c->level_def;
	if (level && (parse_level(level, &spec.level) < 0 || spec.level < c->level_min || spec.level > c->level_max))
		return ter_fail(error, TER_ERR_INVALID_OPTION,
				"'%.64s' is not a level of the compression '%s': it takes whole numbers from %d to %d.",
				level, spec.name, c->level_min, c->level_max);
	*ret = spec;
	return 0;
}

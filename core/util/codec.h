/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Codecs: the algorithms a daemon has loaded, and the slots in which one pool uses them
 *
 * The daemon loads plugins and fills a `struct ter_codecs` (a registry by kind and name or UUID). Each pool has a `struct ter_algos`: its superblock's table of
 * slots 1..TER_ALGO_SLOTS_MAX, each naming an algorithm by UUID. Extents, nodes and journal entries store the slot. Slot 0 means "none".
 *
 *   K1  A slot, once written to the superblock, keeps its algorithm for the life of the pool.
 *   K2  A pool opens only when every slot's algorithm is present in the registry.
 */
#ifndef TER_CODEC_H
#define TER_CODEC_H

#include <sys/uio.h>

#include "plugins/terrace-plugin.h"
#include "util/base.h"
#include "util/error.h"

#define TER_CODECS_MAX 64
#define TER_ALGO_SLOTS_MAX 31
#define TER_DIGEST_MAX 32

struct ter_codecs {
	unsigned nr;
	const struct terrace_algo *algo[TER_CODECS_MAX];
};
/* 0, -EEXIST (same kind and UUID, or kind and name, already there), -E2BIG, -EINVAL (malformed: kind, name, lengths). The algorithm must stay valid. */
int ter_codecs_add(struct ter_codecs *codecs, const struct terrace_algo *algo);
const struct terrace_algo *ter_codecs_by_name(const struct ter_codecs *codecs, enum terrace_kind kind, const char *name);
const struct terrace_algo *ter_codecs_by_uuid(const struct ter_codecs *codecs, enum terrace_kind kind, const uint8_t uuid[16]);

struct ter_algo_slot {
	const struct terrace_algo *algo; /* NULL: slot free */
	uint8_t kind;
	uint8_t uuid[16];
	char name[TERRACE_NAME_MAX + 1];
	uint32_t format;
};
struct ter_algos {
	struct ter_algo_slot slot[TER_ALGO_SLOTS_MAX + 1]; /* [0] unused: none */
};

/* The checksum or compression in @slot; NULL for 0, for a free slot and for one of another kind. */
const struct terrace_checksum *ter_algos_checksum(const struct ter_algos *algos, unsigned slot);
const struct terrace_compression *ter_algos_compression(const struct ter_algos *algos, unsigned slot);

/* Digest of one buffer with the checksum in @slot into @out (zero-filled to TER_DIGEST_MAX). Slot 0: all zero. */
void ter_algos_digest(const struct ter_algos *algos, unsigned slot, const void *buf, size_t bytes, uint8_t out[TER_DIGEST_MAX]);
void ter_algos_digestv(const struct ter_algos *algos, unsigned slot, const struct iovec *iov, unsigned iov_nr, uint8_t out[TER_DIGEST_MAX]);

/*
 * The calls into a plugin that can fail, behind the fault points "codec.compress" (the data does not fit, and is stored as it is) and "codec.decompress". As in
 * terrace-plugin.h; decompress: 0 or a negative errno.
 */
size_t ter_codec_compress(const struct terrace_compression *algo, void *dst, size_t cap, const void *src, size_t n, int level, void *scratch);
int ter_codec_decompress(const struct terrace_compression *algo, void *dst, size_t exact, const void *src, size_t n, void *scratch);

/*
 * "name" or "name:level" as in the option `compression`; "none" gives slot name "none". Splits and checks against the registry.
 * INVALID_OPTION (level out of range, malformed), PLUGIN_MISSING (naming it and what is there).
 */
struct ter_compression_spec {
	char name[TERRACE_NAME_MAX + 1];
	int level; /* the algorithm's default when none was given */
};
int ter_compression_parse(const struct ter_codecs *codecs, const char *text, struct ter_compression_spec *ret, struct ter_error *error);

#endif

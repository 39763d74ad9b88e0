/* SPDX-License-Identifier: MIT */
/*
 * The plugin ABI of Terrace: all that a plugin needs to know, plain C.
 *
 * A plugin is a shared object `terrace-<name>.so` that exports exactly one symbol, `terrace_plugin_1` (the major number is in the name), made with
 * TERRACE_PLUGIN(). It offers one or more algorithms. An algorithm's UUID stands on disk for ever: mint it once, never reuse it.
 *
 * Contract: functions are re-entrant, do no I/O, start no threads, keep no state beside what the host hands them, do not set errno, and are safe on hostile
 * input. Any thread may call; different threads call at once with different scratch. Structs only grow at their end: `size` says how much of one the
 * plugin knows, what lies beyond reads as 0.
 */
#ifndef TERRACE_PLUGIN_H
#define TERRACE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define TERRACE_PLUGIN_ABI_MAJOR 1
#define TERRACE_PLUGIN_ABI_MINOR 0

#define TERRACE_NAME_MAX 31 /* [a-z0-9-]{1,31} */

enum terrace_kind { TERRACE_COMPRESSION = 1, TERRACE_CHECKSUM = 2, TERRACE_AEAD = 3, TERRACE_ERASURE = 4 };

#define TERRACE_F_DETERMINISTIC (1u << 0) /* same input, same output, on every machine and version */

/* The head of every algorithm. */
struct terrace_algo {
	uint32_t size;      /* of the whole struct this head opens */
	uint32_t kind;      /* enum terrace_kind */
	uint8_t uuid[16];   /* persistent identity */
	const char *name;   /* what users type */
	uint32_t format;    /* revision of what it writes; it must read every revision up to this one */
	uint32_t flags;     /* TERRACE_F_* */
	int (*selftest)(void); /* known answers; 0 or a negative errno. The host runs it before first use. */
};

struct terrace_compression {
	struct terrace_algo algo;
	int32_t level_min, level_def, level_max;
	/*
	 * Bytes of scratch that compress (at @level) and decompress need for inputs of up to @max_in bytes. May be 0. The host aligns scratch to 16 bytes or
	 * more; what it holds at the start of a call is arbitrary, so nothing can be kept there.
	 */
	size_t (*scratch_bytes)(int level, size_t max_in);
	/* Compress @n bytes into at most @cap. Return: bytes written, or 0 when it does not fit: the data is then stored as it is. */
	size_t (*compress)(void *dst, size_t cap, const void *src, size_t n, int level, void *scratch);
	/* @src may be followed by zero padding within @n. @exact: the size before compression. Return: 0, or -EBADMSG when @src is not valid. */
	int (*decompress)(void *dst, size_t exact, const void *src, size_t n, void *scratch);
};

struct terrace_checksum {
	struct terrace_algo algo;
	uint32_t digest_len; /* 1..32 */
	uint32_t key_len;    /* 0: not keyed */
	void (*digest)(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16);
};

struct terrace_aead {
	struct terrace_algo algo;
	uint32_t key_len, nonce_len, tag_len, ctx_len;
	int (*setkey)(void *ctx, const void *key);
	int (*seal)(void *ctx, void *buf, size_t n, const void *nonce, const void *aad, size_t aad_n, void *tag);
	int (*open)(void *ctx, void *buf, size_t n, const void *nonce, const void *aad, size_t aad_n, const void *tag);
};

struct terrace_erasure {
	struct terrace_algo algo;
	uint8_t k_max, m_max;
	uint32_t unit; /* block lengths are multiples of this */
	int (*encode)(unsigned k, unsigned m, void *const *blk, size_t len, void *scratch);
	int (*recover)(unsigned k, unsigned m, void *const *blk, const uint64_t *present, size_t len, void *scratch);
};

/* What the host offers a plugin at init. */
struct terrace_host {
	uint32_t size;
	void (*log)(int priority, const char *message);
};

struct terrace_plugin {
	uint32_t abi_minor; /* TERRACE_PLUGIN_ABI_MINOR it was built with; the host accepts up to its own */
	uint32_t size;      /* sizeof(struct terrace_plugin) */
	const char *name;   /* equals the <name> in the file's name */
	const char *version, *licence, *summary;
	const char *impl;   /* "avx2", "generic", … chosen at build or init; may be NULL */
	const struct terrace_algo *const *algos; /* ends with NULL */
	int (*init)(const struct terrace_host *host); /* optional; negative errno: not usable */
};

#define TERRACE_PLUGIN(...)                                                                                            \
	__attribute__((visibility("default"))) extern const struct terrace_plugin terrace_plugin_1;                    \
	const struct terrace_plugin terrace_plugin_1 = {                                                               \
		.abi_minor = TERRACE_PLUGIN_ABI_MINOR, .size = sizeof(struct terrace_plugin), __VA_ARGS__              \
	}

#endif

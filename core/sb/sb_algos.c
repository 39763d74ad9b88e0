/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool's table of algorithms: binding its slots to what is loaded, and adding slots. */
#include <stdio.h>

#include "sb/sb.h"
#include "util/fault.h"

TER_FAULT_POINT(fault_bind, "codec.bind", ELIBBAD, "the binding of an algorithm that a pool uses")

static const char *kind_name(unsigned kind)
{
	static const char *const names[] = {
		[TERRACE_COMPRESSION] = "compression", [TERRACE_CHECKSUM] = "checksum", [TERRACE_AEAD] = "encryption", [TERRACE_ERASURE] = "erasure code"
	};

	return kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "algorithm";
}

/* "lz4, zstd", or "none"; cut short when there are many. */
static void list_names(const struct ter_codecs *codecs, unsigned kind, char *buf, size_t buf_bytes)
{
	size_t used = 0;

	(void)snprintf(buf, buf_bytes, "none");
	for (unsigned i = 0; i < codecs->nr; i++) {
		if (codecs->algo[i]->kind != kind)
			continue;
		int n = snprintf(buf + used, buf_bytes - used, "%s%s", used ? ", " : "", codecs->algo[i]->name);

		if (n < 0 || (size_t)n >= buf_bytes - used)
			return;
		used += (size_t)n;
	}
}

static int fail_missing(const struct ter_algo_slot *slot, const struct ter_codecs *codecs, struct ter_error *error)
{
	char names[256];

	list_names(codecs, slot->kind, names, sizeof(names));
	return ter_fail(error, TER_ERR_PLUGIN_MISSING,
			"The pool uses the %s '%s', which no loaded plugin offers (there are: %s). Install the plugin 'terrace-%s' and start again.",
			kind_name(slot->kind), slot->name, names, slot->name);
}

int ter_sb_bind_algos(struct ter_sb *sb, const struct ter_codecs *codecs, struct ter_error *error)
{
	for (unsigned i = 1; i <= TER_ALGO_SLOTS_MAX; i++) {
		struct ter_algo_slot *slot = &sb->algos.slot[i];
		const struct terrace_algo *algo;

		if (!slot->kind)
			continue;
		if (TER_FAULT(fault_bind) < 0)
			return ter_fail(error, TER_ERR_FAULT_INJECTED, "Using the %s '%s' failed because a test asked for it.", kind_name(slot->kind),
					slot->name);
		algo = ter_codecs_by_uuid(codecs, slot->kind, slot->uuid);
		if (!algo)
			return fail_missing(slot, codecs, error);
		if (algo->format < slot->format)
			return ter_fail(error, TER_ERR_PLUGIN_MISSING,
					"The pool holds revision %u of the %s '%s', the loaded plugin reads up to %u. Install a newer one.",
					slot->format, kind_name(slot->kind), slot->name, algo->format);
		slot->algo = algo;
	}
	return 0;
}

static void fill_slot(struct ter_algo_slot *slot, const struct terrace_algo *algo)
{
	slot->kind = (uint8_t)algo->kind;
	slot->format = algo->format;
	memcpy(slot->uuid, algo->uuid, sizeof(slot->uuid));
	(void)snprintf(slot->name, sizeof(slot->name), "%s", algo->name); /* ter_codecs_add() checked the length */
	__atomic_store_n(&slot->algo, algo, __ATOMIC_RELEASE);            /* last: from now on readers see the slot */
}

int ter_sb_algo_slot(struct ter_sb *sb, const struct ter_codecs *codecs, enum terrace_kind kind, const char *name)
{
	const struct terrace_algo *algo;
	int free_slot = 0;

	if (!strcmp(name, "none"))
		return 0;
	algo = ter_codecs_by_name(codecs, kind, name);
	if (!algo)
		return -ENOPKG;

	for (int i = 1; i <= TER_ALGO_SLOTS_MAX; i++) {
		struct ter_algo_slot *slot = &sb->algos.slot[i];

		if (!slot->kind) {
			free_slot = free_slot ? free_slot : i;
			continue;
		}
		if (slot->kind != kind || memcmp(slot->uuid, algo->uuid, sizeof(slot->uuid)) != 0)
			continue;
		if (slot->algo != algo) {
			slot->format = ter_max(slot->format, algo->format);
			__atomic_store_n(&slot->algo, algo, __ATOMIC_RELEASE); /* K1: the same UUID. Extents are read meanwhile. */
		}
		return i;
	}
	if (!free_slot)
		return -ENOSPC;
	fill_slot(&sb->algos.slot[free_slot], algo);
	return free_slot;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options: one table, from which format flags, mount options, bus properties, --help, the superblock section and the manual come.
 *
 * Ids are on disk and never reused; rows may move. Strings are algorithm names ("zstd:3") or enum words. Values are checked by ter_option_parse() only.
 */
#ifndef TER_OPTIONS_H
#define TER_OPTIONS_H

#include "util/base.h"
#include "util/codec.h"
#include "util/error.h"

#ifndef N_
#define N_(s) s /* marked for translation, translated by the client */
#endif

#define TER_REPLICAS_MAX 4
#define TER_BUCKET_BYTES_MIN 65536u /* smallest bucket_size other than 0 */

enum ter_opt_type { TER_OPT_UINT, TER_OPT_SIZE /* bytes; "64K" accepted */, TER_OPT_BOOL, TER_OPT_ENUM, TER_OPT_ALGO };
enum { TER_OPT_FS = 1, TER_OPT_DEV = 2, TER_OPT_INODE = 4 };                      /* scope */
enum { TER_OPT_FORMAT = 1, TER_OPT_OPEN = 2, TER_OPT_RUNTIME = 4, TER_OPT_POW2 = 8 }; /* when it may be set; flags */

#define TER_OPT_ALGO_MAX 40
typedef struct { char s[TER_OPT_ALGO_MAX]; } ter_opt_algo;

/*
 * x(id, name, C type, option type, scope, settable, min, max, default number, default text, choices or algorithm kind, unit, help)
 * Numbers, sizes, words and switches have a default number (and NULL as text), algorithms a default text (and 0, 0, 0 as range and number).
 */
#define TER_OPTIONS(x)                                                                                                 \
	x(1, block_size, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_POW2, 512, 65536, 4096, NULL, NULL, "bytes",                   \
	  N_("Unit of data allocation and of checksums"))                                                              \
	x(2, bucket_size, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_POW2, 0, 16 << 20, 0, NULL, NULL, "bytes",                      \
	  N_("Unit in which members are cut; 0 chooses by the largest member"))                                        \
	x(3, btree_node_size, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_POW2, 16384, 524288, 262144, NULL, NULL, "bytes",           \
	  N_("Size of a btree node on disk"))                                                                          \
	x(4, metadata_replicas, uint8_t, TER_OPT_UINT, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 1, TER_REPLICAS_MAX, 1, NULL, NULL, "copies", \
	  N_("How many members hold each piece of metadata"))                                                          \
	x(5, data_replicas, uint8_t, TER_OPT_UINT, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 1, TER_REPLICAS_MAX, 1, NULL, NULL, "copies",     \
	  N_("How many members hold each data extent"))                                                                \
	x(6, metadata_replicas_required, uint8_t, TER_OPT_UINT, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN, 1, TER_REPLICAS_MAX, 1, NULL, NULL, "copies",          \
	  N_("Copies of metadata without which a change is not acknowledged"))                                         \
	x(7, data_replicas_required, uint8_t, TER_OPT_UINT, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN, 1, TER_REPLICAS_MAX, 1, NULL, NULL, "copies",              \
	  N_("Copies of data without which a write is not acknowledged"))                                              \
	x(8, metadata_checksum, ter_opt_algo, TER_OPT_ALGO, TER_OPT_FS, TER_OPT_FORMAT, 0, 0, 0, "crc32c", "checksum", "",             \
	  N_("Checksum of btree nodes and journal entries"))                                                           \
	x(9, data_checksum, ter_opt_algo, TER_OPT_ALGO, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 0, 0, 0, "crc32c", "checksum", "",      \
	  N_("Checksum of file data"))                                                                                 \
	x(10, compression, ter_opt_algo, TER_OPT_ALGO, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 0, 0, 0, "none", "compression", "",      \
	  N_("Compression of file data: none, or an algorithm with an optional level, as in zstd:3"))                  \
	x(11, extent_max, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME | TER_OPT_POW2, 4096, 2 << 20, 131072, NULL, NULL, "bytes",  \
	  N_("Longest extent; also the unit of compression"))                                                          \
	x(12, checksum_block, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_POW2, 4096, 2 << 20, 4096, NULL, NULL, "bytes",             \
	  N_("Bytes under one checksum in uncompressed extents"))                                                      \
	x(13, inline_data_max, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 0, 8192, 4096, NULL, NULL, "bytes",   \
	  N_("Files up to this size are kept in the btree"))                                                           \
	x(14, journal_flush_ms, uint32_t, TER_OPT_UINT, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 1, 60000, 1000, NULL, NULL, "ms",  \
	  N_("Longest time until what was written is committed without a sync"))                                       \
	x(15, journal_data_max, uint32_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 0, 262144, 65536, NULL, NULL, "bytes",   \
	  N_("Synced data up to this size travels in the journal"))                                                    \
	x(16, memory_limit, uint64_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN, 64 << 20, 1ull << 40, 256 << 20, NULL, NULL, "bytes",  \
	  N_("Memory for btree cache, dirty data and request buffers together"))                                       \
	x(17, gc_reserve_percent, uint8_t, TER_OPT_UINT, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN, 5, 20, 8, NULL, NULL, "%",              \
	  N_("Share of space kept free for moving data"))                                                              \
	x(18, errors, uint8_t, TER_OPT_ENUM, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 0, 2, 1, NULL, "continue,fix_safe,ro", "",      \
	  N_("What to do when metadata is found damaged: continue, repair what loses nothing at the next start (fix_safe), or go read-only (ro)"))                                                             \
	x(19, degraded, uint8_t, TER_OPT_ENUM, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN, 0, 3, 0, NULL, "ask,yes,very,no", "",              \
	  N_("Whether to start with members missing: yes with redundancy missing, very with data missing"))            \
	x(20, journal_size, uint64_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT, 0, 256 << 20, 0, NULL, NULL, "bytes",                     \
	  N_("Journal on each member; 0 chooses 1/128 of the member, at most 256 MiB"))                                \
	x(21, fsck_memory, uint64_t, TER_OPT_SIZE, TER_OPT_FS, TER_OPT_FORMAT | TER_OPT_OPEN | TER_OPT_RUNTIME, 1 << 20, 1ull << 40, 128 << 20, NULL, NULL, "bytes",      \
	  N_("Memory for the tables of a check or a repair, beside the caches; what needs more is done in turns"))     \
	x(32, discard, uint8_t, TER_OPT_BOOL, TER_OPT_DEV, TER_OPT_FORMAT | TER_OPT_RUNTIME, 0, 1, 1, NULL, NULL, "",                     \
	  N_("Tell the device about space that became free"))                                                          \
	x(33, durability, uint8_t, TER_OPT_UINT, TER_OPT_DEV, TER_OPT_FORMAT | TER_OPT_RUNTIME, 0, TER_REPLICAS_MAX, 1, NULL, NULL, "copies", \
	  N_("How many copies a copy on this member counts for"))

enum ter_option_id {
#define x(id, name, ...) TER_OPTION_##name = id,
	TER_OPTIONS(x)
#undef x
};
#define TER_OPTION_ID_MAX 64

/* Every option's value; device options hold the default for new members. Enum words are stored as their index. */
struct ter_options {
#define x(id, name, type, ...) type name;
	TER_OPTIONS(x)
#undef x
};

enum { TER_DEGRADED_ASK, TER_DEGRADED_YES, TER_DEGRADED_VERY, TER_DEGRADED_NO };
enum { TER_ERRORS_CONTINUE, TER_ERRORS_FIX_SAFE, TER_ERRORS_RO };

struct ter_option_info {
	uint16_t id;
	const char *name;
	enum ter_opt_type type;
	unsigned scope, settable;
	uint64_t min, max, def;
	const char *def_text; /* TER_OPT_ALGO */
	const char *choices;  /* comma-separated words (ENUM), "checksum" or "compression" (ALGO) */
	const char *unit, *help;
	size_t offset, bytes; /* in struct ter_options */
};
extern const struct ter_option_info ter_option_table[]; /* ends with name == NULL */
const struct ter_option_info *ter_option_find(const char *name);  /* NULL: no such option */
const struct ter_option_info *ter_option_by_id(unsigned id);

void ter_options_default(struct ter_options *opts);

/**
 * ter_option_set_text() - parse and set one option
 * @when: TER_OPT_FORMAT, TER_OPT_OPEN or TER_OPT_RUNTIME: refused if the option is not settable then
 * @codecs: to check algorithm names; NULL: syntax only
 * Errors: INVALID_OPTION naming the option, the value and the range; PLUGIN_MISSING.
 */
int ter_option_set_text(struct ter_options *opts, const char *name, const char *text, unsigned when, const struct ter_codecs *codecs,
			struct ter_error *error);
int ter_option_set_u64(struct ter_options *opts, const char *name, uint64_t value, unsigned when, struct ter_error *error);
/* As text, as ter_option_set_text() takes it. @buf of at least TER_OPT_ALGO_MAX. */
int ter_option_get_text(const struct ter_options *opts, const struct ter_option_info *info, char *buf, size_t buf_bytes);
uint64_t ter_option_get_u64(const struct ter_options *opts, const struct ter_option_info *info);

/* Is @value (@text of at most TER_OPT_ALGO_MAX - 1 bytes) within what the table allows? Syntax only; also for what a superblock says. */
bool ter_option_valid_u64(const struct ter_option_info *info, uint64_t value);
bool ter_option_valid_text(const struct ter_option_info *info, const char *text);
/* Set without asking when or whether (the caller has checked). */
void ter_option_store_u64(struct ter_options *opts, const struct ter_option_info *info, uint64_t value);

/* Relations between options (replicas_required <= replicas, node <= bucket, block <= node, checksum_block and extent_max, metadata has a checksum). INVALID_OPTION naming both. */
int ter_options_check(const struct ter_options *opts, struct ter_error *error);

#endif

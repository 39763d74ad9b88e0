/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options table, and values to and from text. */
#include "sb/options.h"

#include <inttypes.h>
#include <stdio.h>

const struct ter_option_info ter_option_table[] = {
#define x(id_, name_, ctype, type_, scope_, settable_, min_, max_, def_, def_text_, choices_, unit_, help_)                                      \
	{                                                                                                              \
		.id = (id_), .name = #name_, .type = (type_), .scope = (scope_), .settable = (settable_), .min = (min_), .max = (max_),      \
		.def = (def_), .def_text = (def_text_), .choices = (choices_), .unit = (unit_), .help = (help_),                         \
		.offset = offsetof(struct ter_options, name_), .bytes = sizeof(ctype),                                         \
	},
	TER_OPTIONS(x)
#undef x
	{ .name = NULL },
};

#define x(id, name, ...) _Static_assert((id) > 0 && (id) < TER_OPTION_ID_MAX, "id of option " #name);
TER_OPTIONS(x)
#undef x

const struct ter_option_info *ter_option_find(const char *name)
{
	for (const struct ter_option_info *info = ter_option_table; info->name; info++)
		if (!strcmp(info->name, name))
			return info;
	return NULL;
}

const struct ter_option_info *ter_option_by_id(unsigned id)
{
	for (const struct ter_option_info *info = ter_option_table; info->name; info++)
		if (info->id == id)
			return info;
	return NULL;
}

/* --- values in struct ter_options --- */

static void *value_of(struct ter_options *opts, const struct ter_option_info *info)
{
	return (char *)opts + info->offset;
}

static void store_text(struct ter_options *opts, const struct ter_option_info *info, const char *text)
{
	ter_opt_algo *algo = value_of(opts, info);

	/* All bytes: options are compared and copied as a whole. */
	memset(algo, 0, sizeof(*algo));
	memcpy(algo->s, text, ter_min(strlen(text), sizeof(algo->s) - 1));
}

void ter_option_store_u64(struct ter_options *opts, const struct ter_option_info *info, uint64_t value)
{
	void *at = value_of(opts, info);

	switch (info->bytes) {
	case 1:
		*(uint8_t *)at = (uint8_t)value;
		break;
	case 4:
		*(uint32_t *)at = (uint32_t)value;
		break;
	case 8:
		*(uint64_t *)at = value;
		break;
	default:
		assert(!"an option of this width");
	}
}

uint64_t ter_option_get_u64(const struct ter_options *opts, const struct ter_option_info *info)
{
	const void *at = (const char *)opts + info->offset;

	switch (info->bytes) {
	case 1:
		return *(const uint8_t *)at;
	case 4:
		return *(const uint32_t *)at;
	case 8:
		return *(const uint64_t *)at;
	default:
		return 0; /* an algorithm: has no number */
	}
}

void ter_options_default(struct ter_options *opts)
{
	memset(opts, 0, sizeof(*opts));
	for (const struct ter_option_info *info = ter_option_table; info->name; info++) {
		if (info->type == TER_OPT_ALGO)
			store_text(opts, info, info->def_text);
		else
			ter_option_store_u64(opts, info, info->def);
	}
}

/* --- validity --- */

bool ter_option_valid_u64(const struct ter_option_info *info, uint64_t value)
{
	if (info->type == TER_OPT_ALGO || value < info->min || value > info->max)
		return false;
	/* 0 within the range means "choose" */
	return !(info->settable & TER_OPT_POW2) || value == 0 || ter_is_pow2(value);
}

/* [a-z0-9-]{1,31}, and for a compression optionally ":" with a level of up to four digits, maybe negative. */
bool ter_option_valid_text(const struct ter_option_info *info, const char *text)
{
	size_t name_bytes = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
	const char *level = text + name_bytes;

	if (info->type != TER_OPT_ALGO || name_bytes == 0 || name_bytes > TERRACE_NAME_MAX)
		return false;
	if (!*level)
		return true;
	if (*level++ != ':' || strcmp(info->choices, "compression") != 0)
		return false;
	if (name_bytes == 4 && !memcmp(text, "none", 4))
		return false;
	level += *level == '-';

	size_t digits = strspn(level, "0123456789");

	return digits >= 1 && digits <= 4 && !level[digits];
}

/* --- from text --- */

static bool parse_digits(const char *text, size_t bytes, uint64_t *ret)
{
	uint64_t value = 0;

	if (bytes == 0)
		return false;
	for (size_t i = 0; i < bytes; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
			return false;
	}
	*ret = value;
	return true;
}

static const char size_suffixes[] = "KMGT"; /* powers of 1024 */

/* "4096", "4K", "4KiB", "4k" */
static bool parse_size(const char *text, uint64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	const char *suffix = text + digits;
	uint64_t value;

	if (!parse_digits(text, digits, &value))
		return false;
	if (*suffix) {
		char upper = *suffix >= 'a' && *suffix <= 'z' ? *suffix - 'a' + 'A' : *suffix;
		const char *found = strchr(size_suffixes, upper);

		if (!found || (suffix[1] && strcmp(suffix + 1, "iB") != 0))
			return false;
		if (__builtin_mul_overflow(value, UINT64_C(1) << (10 * (found - size_suffixes + 1)), &value))
			return false;
	}
	*ret = value;
	return true;
}

static bool parse_bool(const char *text, uint64_t *ret)
{
	static const char *const words[2][4] = { { "no", "false", "off", "0" }, { "yes", "true", "on", "1" } };

	for (unsigned value = 0; value < 2; value++)
		for (unsigned i = 0; i < ARRAY_SIZE(words[0]); i++)
			if (!strcmp(text, words[value][i])) {
				*ret = value;
				return true;
			}
	return false;
}

/* The @idx-th of comma-separated words; NULL beyond the last. */
static const char *nth_word(const char *words, uint64_t idx, size_t *ret_bytes)
{
	for (; idx > 0; idx--) {
		words = strchr(words, ',');
		if (!words)
			return NULL;
		words++;
	}
	*ret_bytes = strcspn(words, ",");
	return words;
}

static bool parse_word(const char *words, const char *text, uint64_t *ret)
{
	const char *word;
	size_t bytes;

	for (uint64_t idx = 0; (word = nth_word(words, idx, &bytes)); idx++)
		if (strlen(text) == bytes && !memcmp(word, text, bytes)) {
			*ret = idx;
			return true;
		}
	return false;
}

static bool parse_number(const struct ter_option_info *info, const char *text, uint64_t *ret)
{
	switch (info->type) {
	case TER_OPT_UINT:
		return parse_digits(text, strlen(text), ret);
	case TER_OPT_SIZE:
		return parse_size(text, ret);
	case TER_OPT_BOOL:
		return parse_bool(text, ret);
	case TER_OPT_ENUM:
		return parse_word(info->choices, text, ret);
	case TER_OPT_ALGO:
		break;
	}
	return false;
}

/* --- to text --- */

static int print_size(uint64_t value, char *buf, size_t buf_bytes)
{
	int shift = 0;

	while (value && shift < (int)strlen(size_suffixes) && value % 1024 == 0) {
		value /= 1024;
		shift++;
	}
	return shift ? snprintf(buf, buf_bytes, "%" PRIu64 "%c", value, size_suffixes[shift - 1]) :
		       snprintf(buf, buf_bytes, "%" PRIu64, value);
}

static int print_number(const struct ter_option_info *info, uint64_t value, char *buf, size_t buf_bytes)
{
	const char *word;
	size_t word_bytes;

	switch (info->type) {
	case TER_OPT_SIZE:
		return print_size(value, buf, buf_bytes);
	case TER_OPT_BOOL:
		return snprintf(buf, buf_bytes, "%s", value ? "yes" : "no");
	case TER_OPT_ENUM:
		word = nth_word(info->choices, value, &word_bytes);
		return word ? snprintf(buf, buf_bytes, "%.*s", (int)word_bytes, word) : -1;
	default:
		return snprintf(buf, buf_bytes, "%" PRIu64, value);
	}
}

int ter_option_get_text(const struct ter_options *opts, const struct ter_option_info *info, char *buf, size_t buf_bytes)
{
	int n;

	if (info->type == TER_OPT_ALGO)
		n = snprintf(buf, buf_bytes, "%s", ((const ter_opt_algo *)((const char *)opts + info->offset))->s);
	else
		n = print_number(info, ter_option_get_u64(opts, info), buf, buf_bytes);
	return n >= 0 && (size_t)n < buf_bytes ? 0 : -EINVAL;
}

/* --- setting --- */

/* What an option takes, for a sentence: "4K to 2M, a power of two". */
static const char *describe_range(const struct ter_option_info *info, char *buf, size_t buf_bytes)
{
	char min[TER_OPT_ALGO_MAX], max[TER_OPT_ALGO_MAX];

	switch (info->type) {
	case TER_OPT_BOOL:
		return "yes or no";
	case TER_OPT_ENUM:
		(void)snprintf(buf, buf_bytes, "one of %s", info->choices); /* cut short at worst */
		return buf;
	case TER_OPT_ALGO:
		(void)snprintf(buf, buf_bytes, "the name of a %s algorithm", info->choices);
		return buf;
	default:
		(void)print_number(info, info->min, min, sizeof(min));
		(void)print_number(info, info->max, max, sizeof(max));
		(void)snprintf(buf, buf_bytes, "%s to %s%s%s%s", min, max, *info->unit ? " " : "", info->unit,
			       info->settable & TER_OPT_POW2 ? ", a power of two" : "");
		return buf;
	}
}

static int fail_value(const struct ter_option_info *info, const char *text, struct ter_error *error)
{
	char range[128];

	return ter_fail(error, TER_ERR_INVALID_OPTION, "Option '%s' cannot be '%.64s': it takes %s.", info->name, text,
			describe_range(info, range, sizeof(range)));
}

static int find_settable(const char *name, unsigned when, const struct ter_option_info **ret_info, struct ter_error *error)
{
	const struct ter_option_info *info = ter_option_find(name);

	if (!info)
		return ter_fail(error, TER_ERR_INVALID_OPTION, "There is no option '%.64s'.", name);
	if (!(info->settable & when))
		return ter_fail(error, TER_ERR_INVALID_OPTION, "Option '%s' cannot be set %s: it can be set %s%s%s.", info->name,
				when == TER_OPT_FORMAT ? "at format" : when == TER_OPT_OPEN ? "at start" : "while the pool runs",
				info->settable & TER_OPT_FORMAT ? "at format" : "",
				info->settable & TER_OPT_OPEN ? ", at start" : "", info->settable & TER_OPT_RUNTIME ? ", while it runs" : "");
	*ret_info = info;
	return 0;
}

/* Is there such an algorithm? */
static int check_algo(const struct ter_option_info *info, const char *text, const struct ter_codecs *codecs, struct ter_error *error)
{
	struct ter_compression_spec spec;

	if (!codecs || !strcmp(text, "none"))
		return 0;
	if (!strcmp(info->choices, "compression"))
		return ter_compression_parse(codecs, text, &spec, error);
	if (!ter_codecs_by_name(codecs, TERRACE_CHECKSUM, text))
		return ter_fail(error, TER_ERR_PLUGIN_MISSING,
				"Option '%s' cannot be '%s': no plugin offers this checksum. Install the one that does, or choose another.",
				info->name, text);
	return 0;
}

int ter_option_set_text(struct ter_options *opts, const char *name, const char *text, unsigned when, const struct ter_codecs *codecs,
			struct ter_error *error)
{
	const struct ter_option_info *info;
	uint64_t value;
	int r;

	r = find_settable(name, when, &info, error);
	if (r < 0)
		return r;

	if (info->type == TER_OPT_ALGO) {
		if (!ter_option_valid_text(info, text))
			return fail_value(info, text, error);
		r = check_algo(info, text, codecs, error);
		if (r < 0)
			return r;
		store_text(opts, info, text);
		return 0;
	}
	if (!parse_number(info, text, &value) || !ter_option_valid_u64(info, value))
		return fail_value(info, text, error);
	ter_option_store_u64(opts, info, value);
	return 0;
}

int ter_option_set_u64(struct ter_options *opts, const char *name, uint64_t value, unsigned when, struct ter_error *error)
{
	const struct ter_option_info *info;
	char text[24];
	int r;

	r = find_settable(name, when, &info, error);
	if (r < 0)
		return r;
	if (!ter_option_valid_u64(info, value)) {
		(void)snprintf(text, sizeof(text), "%" PRIu64, value); /* 20 digits at most */
		return fail_value(info, text, error);
	}
	ter_option_store_u64(opts, info, value);
	return 0;
}

/* --- relations --- */

struct relation {
	enum ter_option_id less, more; /* the value of less may not exceed that of more */
};
static const struct relation relations[] = {
	{ TER_OPTION_metadata_replicas_required, TER_OPTION_metadata_replicas },
	{ TER_OPTION_data_replicas_required, TER_OPTION_data_replicas },
	{ TER_OPTION_block_size, TER_OPTION_btree_node_size },
	{ TER_OPTION_block_size, TER_OPTION_checksum_block },
	{ TER_OPTION_block_size, TER_OPTION_extent_max },
	{ TER_OPTION_checksum_block, TER_OPTION_extent_max },
};

static int fail_relation(const struct ter_options *opts, enum ter_option_id less, enum ter_option_id more, struct ter_error *error)
{
	const struct ter_option_info *a = ter_option_by_id(less), *b = ter_option_by_id(more);
	char text_a[TER_OPT_ALGO_MAX], text_b[TER_OPT_ALGO_MAX];

	(void)ter_option_get_text(opts, a, text_a, sizeof(text_a)); /* numbers fit */
	(void)ter_option_get_text(opts, b, text_b, sizeof(text_b));
	return ter_fail(error, TER_ERR_INVALID_OPTION, "Option '%s' (%s) must not be greater than '%s' (%s).", a->name, text_a, b->name, text_b);
}

int ter_options_check(const struct ter_options *opts, struct ter_error *error)
{
	for (unsigned i = 0; i < ARRAY_SIZE(relations); i++) {
		const struct relation *rel = &relations[i];

		if (ter_option_get_u64(opts, ter_option_by_id(rel->less)) > ter_option_get_u64(opts, ter_option_by_id(rel->more)))
			return fail_relation(opts, rel->less, rel->more, error);
	}
	if (opts->bucket_size && opts->bucket_size < TER_BUCKET_BYTES_MIN)
		return ter_fail(error, TER_ERR_INVALID_OPTION, "Option 'bucket_size' (%u) must be 0 or at least %u bytes.", opts->bucket_size,
				TER_BUCKET_BYTES_MIN);
	if (opts->bucket_size && opts->btree_node_size > opts->bucket_size)
		return fail_relation(opts, TER_OPTION_btree_node_size, TER_OPTION_bucket_size, error);
	if (!strcmp(opts->metadata_checksum.s, "none"))
		return ter_fail(error, TER_ERR_INVALID_OPTION, "Option 'metadata_checksum' cannot be 'none': metadata is always checked.");
	return 0;
}

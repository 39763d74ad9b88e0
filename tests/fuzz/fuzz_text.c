/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Texts that people type: options, compressions, labels, UUIDs, names of extended attributes
 *
 * Input: which option (1 byte; 255: its name comes first in the text, up to a NUL), when it is set (1), and the text. What was accepted, written out, is accepted again and
 * means the same.
 */
#include "fs/xattr_value.h"
#include "fuzz.h"
#include "real_codecs.h"
#include "util/uuid.h"

const size_t fuzz_memory_max = 16 << 20;

static void option(const char *name, const char *text, unsigned when)
{
	const struct ter_option_info *info = ter_option_find(name);
	struct ter_options opts, again;
	struct ter_error error = { 0 };
	char out[256];

	ter_options_default(&opts);
	again = opts;
	if (ter_option_set_text(&opts, name, text, when, fuzz_codecs(), &error) < 0) {
		fuzz_check(error.text[0]);
		fuzz_check(!memcmp(&opts, &again, sizeof(opts)));
		return;
	}
	fuzz_check(info);
	fuzz_check(ter_option_get_text(&opts, info, out, sizeof(out)) >= 0);
	fuzz_check(ter_option_set_text(&again, name, out, when, fuzz_codecs(), NULL) == 0);
	fuzz_check(!memcmp((const char *)&opts + info->offset, (const char *)&again + info->offset, info->bytes));
	if (ter_options_check(&opts, &error) < 0)
		fuzz_check(error.text[0]);
}

static void others(const char *text)
{
	struct ter_compression_spec spec;
	struct ter_error error = { 0 };
	uint8_t uuid[TER_UUID_BYTES];
	char out[TER_UUID_TEXT_BYTES];
	struct ter_xattr x;

	if (ter_compression_parse(fuzz_codecs(), text, &spec, &error) < 0)
		fuzz_check(error.text[0]);
	ter_error_clear(&error);
	if (!ter_label_valid(text, &error))
		fuzz_check(error.text[0]);
	if (ter_uuid_parse(text, uuid) == 0) {
		ter_uuid_format(uuid, out);
		fuzz_check(!strcasecmp(out, text));
	}
	if (ter_xattr_name_parse(text, &x) == 0)
		fuzz_check(x.name_bytes && ter_xattr_prefix(x.ns));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };
	const unsigned which = (unsigned)fuzz_take(&in, 1), when = (unsigned)fuzz_take(&in, 1) % 8;
	char *text = malloc(in.left + 1), *value = text;
	const char *name = text;
	unsigned nr = 0;

	if (!text)
		abort();
	memcpy(text, in.at, in.left);
	text[in.left] = '\0';
	while (ter_option_table[nr].name)
		nr++;
	if (which < 255)
		name = ter_option_table[which % nr].name;
	else if (strlen(text) < in.left)
		value = text + strlen(text) + 1;
	option(name, value, when);
	others(value);
	free(text);
	return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UUIDs, UTF-8 and explanations of errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "util/error.h"
#include "util/utf8.h"
#include "util/uuid.h"

/* --- UUIDs --- */

static void a_uuid_survives_its_text(void **state)
{
	struct ter_exec *exec = ter_exec_new_coop(1);
	uint8_t uuid[16], other[16], back[16];
	char text[TER_UUID_TEXT_BYTES];

	for (unsigned i = 0; i < 100; i++) {
		ter_uuid_random(exec, uuid);
		ter_uuid_random(exec, other);
		assert_memory_not_equal(uuid, other, 16);
		assert_false(ter_uuid_is_null(uuid));
		assert_int_equal(uuid[6] >> 4, 4);
		assert_int_equal(uuid[8] >> 6, 2);
		ter_uuid_format(uuid, text);
		assert_int_equal(strlen(text), 36);
		assert_return_code(ter_uuid_parse(text, back), 0);
		assert_memory_equal(uuid, back, 16);
	}
	assert_return_code(ter_uuid_parse("00112233-4455-6677-8899-aABbcCdDeEfF", uuid), 0);
	ter_uuid_format(uuid, text);
	assert_string_equal(text, "00112233-4455-6677-8899-aabbccddeeff");
	assert_return_code(ter_uuid_parse("00000000-0000-0000-0000-000000000000", uuid), 0);
	assert_true(ter_uuid_is_null(uuid));
	ter_exec_free(exec);
}

static void what_is_no_uuid_is_refused(void **state)
{
	const char *good = "00112233-4455-6677-8899-aabbccddeeff";
	char text[TER_UUID_TEXT_BYTES + 1];
	uint8_t uuid[16] = {42};

	assert_int_equal(ter_uuid_parse("", uuid), -EINVAL);
	assert_int_equal(ter_uuid_parse("00112233-4455-6677-8899-aabbccddeeff0", uuid), -EINVAL);
	assert_int_equal(ter_uuid_parse(" 00112233-4455-6677-8899-aabbccddeeff", uuid), -EINVAL);
	assert_int_equal(ter_uuid_parse("001122334455-6677-8899-aabbccddeeff", uuid), -EINVAL);
	for (unsigned i = 0; i < 36; i++) {
		strcpy(text, good);
		text[i] = 'g';
		assert_int_equal(ter_uuid_parse(text, uuid), -EINVAL);
		text[i] = good[i] == '-' ? '0' : '-';
		assert_int_equal(ter_uuid_parse(text, uuid), -EINVAL);
		text[i] = 0;
		assert_int_equal(ter_uuid_parse(text, uuid), -EINVAL);
	}
	assert_int_equal(uuid[0], 42); /* untouched */
}

/* --- UTF-8 --- */

static unsigned encode(uint32_t c, unsigned bytes, char *out)
{
	static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};

	if (bytes == 1) {
		out[0] = (char)c;
		return 1;
	}
	for (unsigned i = bytes - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(first[bytes] | c);
	return bytes;
}

/* Every code point in every length that can hold it: valid exactly in the shortest form, and only if it is one. */
static void utf8_takes_shortest_forms_of_characters_only(void **state)
{
	static const uint32_t limit[] = {0, 0x80, 0x800, 0x10000, 0x200000};
	char text[8];

	for (unsigned bytes = 1; bytes <= 4; bytes++) {
		for (uint32_t c = 0; c < limit[bytes]; c++) {
			bool valid =
				c >= (bytes == 1 ? 0 : limit[bytes - 1]) && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);

			encode(c, bytes, text);
			if (ter_utf8_valid(text, bytes) != valid)
				fail_msg("U+%X in %u bytes", c, bytes);
		}
	}
}

static void utf8_notices_what_is_cut_or_broken(void **state)
{
	static const char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z";
	static const bool whole[] = {true, true, false, true, false, false, true, false, false, false, true, true};
	char broken[sizeof(text)];

	for (unsigned n = 0; n < sizeof(text); n++)
		assert_int_equal(ter_utf8_valid(text, n), whole[n]);
	for (unsigned i = 1; i < sizeof(text) - 2; i++) {
		memcpy(broken, text, sizeof(text));
		broken[i] = '?';
		assert_false(ter_utf8_valid(broken, sizeof(text) - 1));
	}
	assert_true(ter_utf8_valid("a\0b", 3));
	assert_false(ter_utf8_valid("\x80", 1));
	assert_false(ter_utf8_valid("\xff", 1));
	assert_false(ter_utf8_valid("\xf8\x88\x80\x80\x80", 5));
}

/* --- errors --- */

static void the_first_explanation_is_kept(void **state)
{
	struct ter_error error = {0};

	assert_int_equal(ter_fail(&error, TER_ERR_DEVICE_TOO_SMALL, "Device %s is %d bytes.", "/dev/x", 5), -ENOSPC);
	assert_int_equal(error.kind, TER_ERR_DEVICE_TOO_SMALL);
	assert_int_equal(error.err, -ENOSPC);
	assert_string_equal(error.text, "Device /dev/x is 5 bytes.");
	assert_int_equal(ter_fail_errno(&error, -EIO, "later"), -EIO);
	assert_int_equal(ter_fail(&error, TER_ERR_BUSY, "later"), -EBUSY);
	assert_string_equal(error.text, "Device /dev/x is 5 bytes.");
	ter_error_clear(&error);
	assert_int_equal(error.kind, TER_ERR_NONE);
	assert_int_equal(ter_fail_errno(&error, -EUCLEAN, "bad"), -EUCLEAN);
	assert_int_equal(error.kind, TER_ERR_CORRUPTED);
	assert_int_equal(ter_fail(NULL, TER_ERR_BUSY, "nobody asks"), -EBUSY);
	ter_error_clear(NULL);
}

static void a_long_sentence_is_cut(void **state)
{
	struct ter_error error = {0};

	ter_fail(&error, TER_ERR_BUSY, "%2000d", 1);
	assert_int_equal(strlen(error.text), TER_ERROR_TEXT_MAX - 1);
}

static void kinds_have_names_and_errnos_have_kinds(void **state)
{
	assert_string_equal(ter_error_name(TER_ERR_DEVICE_TOO_SMALL), "DeviceTooSmall");
	assert_string_equal(ter_error_name(TER_ERR_INTERNAL), "Internal");
	assert_string_equal(ter_error_name(TER_ERR_NR), "Failed");
	assert_string_equal(ter_error_name((enum ter_error_kind) - 1), "Failed");
	for (unsigned i = 1; i < TER_ERR_NR; i++)
		for (unsigned j = i + 1; j < TER_ERR_NR; j++)
			assert_string_not_equal(ter_error_name(i), ter_error_name(j));
	assert_int_equal(ter_error_kind_of(-ENOSPC), TER_ERR_NO_SPACE);
	assert_int_equal(ter_error_kind_of(-EBUSY), TER_ERR_BUSY);
	assert_int_equal(ter_error_kind_of(-EIO), TER_ERR_IO);
	assert_int_equal(ter_error_kind_of(-EXFULL), TER_ERR_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_uuid_survives_its_text),
		cmocka_unit_test(what_is_no_uuid_is_refused),
		cmocka_unit_test(utf8_takes_shortest_forms_of_characters_only),
		cmocka_unit_test(utf8_notices_what_is_cut_or_broken),
		cmocka_unit_test(the_first_explanation_is_kept),
		cmocka_unit_test(a_long_sentence_is_cut),
		cmocka_unit_test(kinds_have_names_and_errnos_have_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What may be a label. */
#include "sb/sb.h"
#include "util/utf8.h"

/* Of valid UTF-8: U+0000..1f, U+007f, U+0080..9f (0xc2, then 0x80..0x9f). */
static bool is_control(const unsigned char *s)
{
	return s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
}

bool ter_label_valid(const char *label, struct ter_error *error)
{
	size_t bytes = strnlen(label, TER_LABEL_MAX + 1);

	if (bytes > TER_LABEL_MAX) {
		(void)ter_fail(error, TER_ERR_INVALID_ARGUMENT, "A label has at most %u bytes.", TER_LABEL_MAX);
		return false;
	}
	if (!ter_utf8_valid(label, bytes)) {
		(void)ter_fail(error, TER_ERR_INVALID_ARGUMENT, "The label is not valid UTF-8.");
		return false;
	}
	for (size_t i = 0; i < bytes; i++) {
		if (label[i] == '/' || is_control((const unsigned char *)label + i)) {
			(void)ter_fail(error, TER_ERR_INVALID_ARGUMENT, "A label has no '/' and no control characters.");
			return false;
		}
	}
	return true;
}

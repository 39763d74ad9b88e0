/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UUIDs: 16 bytes in memory and on disk, in the order of their text. */
#ifndef TER_UUID_H
#define TER_UUID_H

#include "util/exec.h"

#define TER_UUID_BYTES 16
#define TER_UUID_TEXT_BYTES 37 /* with the final 0 */

void ter_uuid_random(struct ter_exec *exec,
		     uint8_t ret_uuid[TER_UUID_BYTES]); /* version 4, from the caller's randomness */
void ter_uuid_format(const uint8_t uuid[TER_UUID_BYTES], char out[TER_UUID_TEXT_BYTES]); /* 36 characters, lower case */
/* The 36 characters with hyphens and nothing else; either case. -EINVAL. */
int ter_uuid_parse(const char *text, uint8_t ret_uuid[TER_UUID_BYTES]);
bool ter_uuid_is_null(const uint8_t uuid[TER_UUID_BYTES]);

#endif

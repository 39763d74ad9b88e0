/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UTF-8: is this text well-formed? */
#ifndef TER_UTF8_H
#define TER_UTF8_H

#include "util/base.h"

/* Shortest form only, no surrogates, at most U+10FFFF. A zero byte is a character; 0 bytes are valid. */
bool ter_utf8_valid(const char *text, size_t bytes);

#endif

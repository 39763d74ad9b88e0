/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads a key of any type the way its owner does. */
#ifndef FUZZ_VALUES_H
#define FUZZ_VALUES_H

#include "btree/key.h"

void fuzz_value(const struct ter_key_disk *disk); /* ter_key_check() accepted it */

#endif

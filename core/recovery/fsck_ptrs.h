/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsck pass "pointers": every pointer of an extent or node has its back reference, every back reference its pointer, and the counters are their sums. */
#ifndef TER_FSCK_PTRS_H
#define TER_FSCK_PTRS_H

#include "recovery/fsck.h"

/* Return: contradictions reported, or a negative errno. */
int64_t ter_fsck_pointers(const struct ter_fsck_config *config, ter_fsck_found_fn found, void *found_arg, ter_fsck_step_fn step, void *step_arg);

#endif

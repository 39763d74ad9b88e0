/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repair: which pointers lead nowhere, and taking them away (repair_ptrs.h, P2 and P3). */
#ifndef TER_SPACE_JUDGE_H
#define TER_SPACE_JUDGE_H

#include "recovery/space_refs.h"

/* All windows once. *ret_done: changes that were made; *ret_more: there is more than fits into memory at once. @refs->sums is not used. */
int ter_space_judge(struct ter_space_refs *refs, struct ter_repair *repair, uint64_t memory_bytes, uint64_t *ret_done, bool *ret_more);

#endif

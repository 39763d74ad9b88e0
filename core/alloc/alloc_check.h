/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checking the allocator's relations (B3, B4, the members' counters)
 *
 * Reads ALLOC, FREESPACE, NEED_DISCARD, BACKPOINTERS and ACCOUNTING side by side in order of buckets; memory does not grow with the pool. Nothing may be committed meanwhile. That each
 * back reference has its pointer, and each pointer its back reference, needs the keys of the rooms above: fsck.
 */
#ifndef TER_ALLOC_CHECK_H
#define TER_ALLOC_CHECK_H

#include "alloc/alloc.h"

/* @sentence is one contradiction. */
typedef void (*ter_alloc_report)(void *arg, const char *sentence);
/* Return: how many contradictions were reported, or a negative errno where something could not be read. */
int ter_alloc_check(struct ter_alloc *alloc, ter_alloc_report report, void *arg);

#endif

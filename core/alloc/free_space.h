/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Free ranges: the FREESPACE btree
 *
 * A key at (member, end, 0) of size n: buckets [end - n, end) are free. Ranges are maximal: no two touch (B3). Taking a bucket out changes only the range it is in, which the
 * commit compares. Giving one back looks at both neighbours, and at their absence: two at once could leave ranges that touch, so only one task gives back at a time
 * (the exclusion of discard.c).
 */
#ifndef TER_FREE_SPACE_H
#define TER_FREE_SPACE_H

#include "btree/btree.h"

/* Stage. -ENODATA: the bucket is in no free range. */
int ter_free_space_take(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket);
/* Stage. -EEXIST: it is in one already. */
int ter_free_space_give(struct ter_trans *trans, const struct ter_dev *dev, uint64_t bucket);

#endif

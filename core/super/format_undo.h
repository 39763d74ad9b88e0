/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Undo: a device that remembers what was overwritten
 *
 * Stands in front of a device while it is formatted. Each write first reads what it replaces; put_back() writes that back, newest first. So a format that fails leaves every byte as it
 * was (fs.h, L2), wherever the pool's first run wrote. Memory: what is written, some MiB at most. Takes no discards: they could not be undone.
 */
#ifndef TER_FORMAT_UNDO_H
#define TER_FORMAT_UNDO_H

#include "io/io.h"

struct ter_undo;
/* @inner stays the caller's, and open until free. NULL: no memory. */
struct ter_undo *ter_undo_new(struct ter_bdev *inner);
/* What to write through; not to be closed. */
struct ter_bdev *ter_undo_bdev(struct ter_undo *undo);
/* With nothing in flight. The first error is returned, after all was tried. */
int ter_undo_put_back(struct ter_undo *undo);
void ter_undo_free(struct ter_undo *undo); /* nothing in flight; NULL is fine */

#endif

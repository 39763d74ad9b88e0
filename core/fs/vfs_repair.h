/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of files: makes true what ter_vfs_check() checks
 *
 * For a pool whose btrees and space are sound (their repairs come first), read-write, with no file in use. Each step makes one relation true, asks before each change, and can be done again:
 *
 *   names     values of directory entries can be read, each name once and at its hash
 *   inodes    every inode can be read, is of a type that what it holds agrees with, and whatever names or content there are have one
 *   entries   each leads to an inode of its type; a directory has one entry, and says where
 *   tree      every directory is reached from the root; what is not goes to /lost+found
 *   links     link counts are the entries; what has none and is not being deleted goes to /lost+found
 *   xattrs, extents, sizes
 *   damaged   the list of damaged files has files only; what is given up on the way is noted there in the same transaction
 *   counts
 *
 *   P1  No file's bytes are dropped while an inode can be made for them. Two extents that claim one range: the one with data and its back reference stays.
 *   P2  Every change is one transaction: a cut leaves the steps that were done, and the next repair does the rest.
 *   P3  What @repair->want refuses stays as it is, and nothing is built on it.
 * Memory: 24 bytes for an inode that is missing or damaged, 16 for one whose links are counted, at most memory_bytes in all: more are done in turns.
 */
#ifndef TER_VFS_REPAIR_H
#define TER_VFS_REPAIR_H

#include "fs/vfs.h"
#include "util/repair.h"

/* Return: 0; -ECANCELED, or what repair->want or a btree said. How much was done stands in @repair. */
int ter_vfs_repair(struct ter_vfs *vfs, struct ter_repair *repair);

#endif

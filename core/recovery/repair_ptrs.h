/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of btrees and of space
 *
 * What is primary: keys of files (EXTENTS, INODES, DIRENTS, XATTRS, DELETED_INODES), the pointers between nodes, and the superblock. Everything else follows from it and is made equal to it.
 *
 *   P1  Nothing that is pointed to is overwritten: until everything was read nothing is given out (alloc_repair.h).
 *   P2  A pointer that leads nowhere is dropped: beyond its member, into superblock or journal, of another generation than its bucket, or to sectors that another pointer has. Of two that claim the
 *       same the one with the back reference keeps it. Where an extent has no pointer left, its key becomes ERROR: reading it is an I/O error, never zeros.
 *   P3  A generation never falls. Where all pointers into a bucket in use carry an older one than its key says, it is the key that was damaged: the pointers get the key's.
 *   P4  Memory: ter_repair_memory(). What is pointed to is looked at a window of buckets at a time, each with a scan of all extents. A bit for each bucket is kept beside (an eighth of the bound; buckets
 *       beyond that are not given out meanwhile).
 *   P5  Rounds are repeated until one finds nothing: what a round changed, or what changed while it looked, the next one sees.
 *
 * Both are run while the pool is started and nobody is served. They are repeated after a cut.
 */
#ifndef TER_REPAIR_PTRS_H
#define TER_REPAIR_PTRS_H

#include "recovery/fsck.h"
#include "util/repair.h"

/*
 * First: every node of every btree can be read, and ranges of parents and children fit together. Return: 0 (nothing wrong, repaired, or left as @repair wished: see its counts); -ECANCELED; -ENODEV: a
 * node is not there because a member is not; another negative errno.
 */
int ter_repair_btrees(const struct ter_fsck_config *config, struct ter_repair *repair);
/* Then: pointers, alloc keys, free space, back references, all counters, replicas entries. -EUCLEAN: a btree cannot be walked. */
int ter_repair_space(const struct ter_fsck_config *config, struct ter_repair *repair);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * STATE-DIR/members: absolute paths of members seen, one a line: hints, verified by superblock, so that filesystems in files are found again
 *
 * Written as a whole beside the old one and renamed, so that there is always one whole list. Any thread; the functions do I/O.
 */
#ifndef TD_MEMBERS_FILE_H
#define TD_MEMBERS_FILE_H

#include "util/error.h"

#define TD_MEMBERS_MAX 1024 /* paths kept; the oldest goes first */

struct td_members_file;
/* Makes the directory. A file that cannot be read is an error: it would be lost with the next write. */
int td_members_file_open(const char *state_dir, struct td_members_file **ret, struct ter_error *error);
void td_members_file_close(struct td_members_file *file); /* NULL is fine */
/* Adds those that are new, drops those of @drop; writes when that changed something. A path with a line break cannot be kept and is passed over. */
int td_members_file_update(struct td_members_file *file, const char *const *add, unsigned add_nr, const char *const *drop, unsigned drop_nr, struct ter_error *error);
/* A copy: each string and the array are the caller's to free. Returns the number, or -ENOMEM. */
int td_members_file_list(struct td_members_file *file, char ***ret_paths);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One plugin file: may it be loaded, is it one, does it work
 *
 * Knows the plugin ABI only, nothing of the engine: the daemon's loader and terrace-plugin-check share it. Where a function fails, it sets *ret_why to one
 * sentence that the caller frees (NULL when memory ran out); "file" in it means the plugin's file, which the caller names.
 */
#ifndef TER_PLUGIN_OPEN_H
#define TER_PLUGIN_OPEN_H

#include <stdbool.h>

#include "plugins/terrace-plugin.h"

#define TER_PLUGIN_ALGOS_MAX 16  /* algorithms in one plugin */
#define TER_PLUGIN_DIGEST_MAX 32 /* bytes, as in the ABI */

bool ter_plugin_name_valid(const char *name);
/* The <name> in DIR/terrace-<name>.so into @ret_name. -EINVAL when the file is not called so. */
int ter_plugin_name_of_file(const char *path, char ret_name[TERRACE_NAME_MAX + 1]);

/* @path (a file or a directory) belongs to root or to the effective user, and nobody else may write to it. -EPERM, or what stat() said. */
int ter_plugin_check_owner(const char *path, char **ret_why);

/*
 * Load the plugin @path and call its init. Runs its code: call ter_plugin_check_owner() before. Never unloaded again.
 * -ELIBBAD: the dynamic linker refuses it; -EPROTONOSUPPORT: not this ABI; -EINVAL: malformed; what its init returned.
 */
int ter_plugin_open(const char *path, const struct terrace_host *host, const struct terrace_plugin **ret_plugin, char **ret_why);

/* The shape of an algorithm (-EINVAL), then its self-test (what it returned). */
int ter_plugin_check_algo(const struct terrace_algo *algo, char **ret_why);

#endif

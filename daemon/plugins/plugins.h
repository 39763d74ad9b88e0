/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Plugins: which algorithms this daemon has, and why it lacks others
 *
 * At start, before the sandbox is locked down, every terrace-*.so of a list of directories is opened, checked and self-tested. What passed goes into a
 * `struct ter_codecs` for the engine; everything found, good or not, is listed for users, with one sentence of error where there is one.
 *
 *     file -> may others write to it? -> ABI -> name -> init -> for each algorithm: shape -> self-test -> duplicates -> LOADED
 *
 *   P1  No code of a file runs that anyone but root or the daemon's own user could have written: the check comes before dlopen().
 *   P2  An algorithm is used only after its self-test passed.
 *   P3  Of one UUID one algorithm is used: the highest format, among equals the one found first. The others are listed as shadowed.
 *   P4  A plugin is never unloaded, so pointers into it stay valid for the life of the process, also after ter_plugins_free().
 *
 * Nothing here is changed after ter_plugins_load(): any thread may read. Not thread-safe: loading, freeing.
 */
#ifndef TER_PLUGINS_H
#define TER_PLUGINS_H

#include <stdbool.h>

#include "util/codec.h"

#define TER_PLUGIN_FILES_MAX 256 /* in all directories together; what lies beyond is not looked at, and that is logged */

enum ter_plugin_state {
	TER_PLUGIN_LOADED,   /* in ter_plugins_codecs() */
	TER_PLUGIN_FAILED,   /* see error */
	TER_PLUGIN_SHADOWED, /* another one provides the same algorithm; see error */
};

/* One algorithm; or one file of which no algorithm could be read: then kind is 0. Strings are never NULL. */
struct ter_plugin_entry {
	enum ter_plugin_state state;
	uint32_t kind;                   /* enum terrace_kind, or 0 */
	char name[TERRACE_NAME_MAX + 1]; /* the algorithm's; with kind 0 the file's, empty if it is not a valid name */
	uint8_t uuid[16];
	uint32_t format;
	int32_t level_min, level_def, level_max; /* compression only */
	const char *file;
	const char *version, *licence, *summary, *impl;
	const char *error;               /* a sentence; empty when loaded */
	const struct terrace_algo *algo; /* NULL when kind is 0 */
};

struct ter_plugins;

/* @priority as in syslog(3). Plugins may log from any thread, as long as they are used. */
typedef void (*ter_plugin_log_fn)(void *userdata, int priority, const char *message);

/*
 * Load all plugins of @dirs (NULL-terminated; earlier ones come first in P3; one that does not exist is passed over). @log may be NULL.
 * Return: 0, also when plugins were refused or none was found; -ENOMEM.
 */
int ter_plugins_load(struct ter_plugins **ret, const char *const *dirs, ter_plugin_log_fn log, void *userdata);
/* NULL is fine. Ends logging by plugins. */
void ter_plugins_free(struct ter_plugins *plugins);
static inline void ter_plugins_freep(struct ter_plugins **plugins)
{
	ter_plugins_free(*plugins);
}

/* What the engine may use. Lives as long as @plugins. */
const struct ter_codecs *ter_plugins_codecs(const struct ter_plugins *plugins);

unsigned ter_plugins_nr(const struct ter_plugins *plugins);
const struct ter_plugin_entry *ter_plugins_entry(const struct ter_plugins *plugins, unsigned idx);
/* "compression", "checksum", "aead", "erasure-coding"; "unknown" for anything else. */
const char *ter_plugin_kind_name(uint32_t kind);
/* "loaded", "failed", "shadowed" */
const char *ter_plugin_state_name(enum ter_plugin_state state);

/*
 * Where plugins are looked for: the plugins of the build tree when the daemon runs from one; TERRACE_PLUGIN_PATH (colons between directories), unless
 * the daemon is root's and @allow_plugin_path is false, or it gained privileges at exec; the directory of the installation.
 * Return: 0 or -ENOMEM. Free with ter_plugins_free_dirs().
 */
int ter_plugins_default_dirs(bool allow_plugin_path, char ***ret_dirs);
void ter_plugins_free_dirs(char **dirs);

#endif

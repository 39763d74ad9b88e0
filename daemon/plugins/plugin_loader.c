/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loads the plugins of several directories and decides which of their algorithms are used. */
#include "plugins.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <syslog.h>

#include "plugin_open.h"

#define ENTRIES_MAX (TER_PLUGIN_FILES_MAX * TER_PLUGIN_ALGOS_MAX)

struct ter_plugins {
	struct ter_codecs codecs;
	struct ter_plugin_entry *entries;
	unsigned entries_nr;
	unsigned files_nr;
	ter_plugin_log_fn log;
	void *log_userdata;
};

/*
 * The ABI's log() carries no context, so where plugins log is kept here: one struct, never changed once it is published, so that a thread reads function
 * and userdata that belong together. The newest load wins.
 */
static _Atomic(const struct ter_plugins *) logging_plugins;

static void host_log(int priority, const char *message)
{
	const struct ter_plugins *plugins = atomic_load(&logging_plugins);

	if (plugins && plugins->log)
		plugins->log(plugins->log_userdata, priority, message);
}

static const struct terrace_host host = { .size = sizeof(host), .log = host_log };

TER_PRINTF(3, 4) static void say(const struct ter_plugins *plugins, int priority, const char *format, ...)
{
	_cleanup_free_ char *message = NULL;
	va_list args;
	int n;

	if (!plugins->log)
		return;
	va_start(args, format);
	n = vasprintf(&message, format, args);
	va_end(args);
	if (n < 0) {
		message = NULL; /* unspecified after a failure */
		return;
	}
	plugins->log(plugins->log_userdata, priority, message);
}

const char *ter_plugin_kind_name(uint32_t kind)
{
	static const char *const names[] = {
		[TERRACE_COMPRESSION] = "compression",
		[TERRACE_CHECKSUM] = "checksum",
		[TERRACE_AEAD] = "aead",
		[TERRACE_ERASURE] = "erasure-coding",
	};

	return kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "unknown";
}

const char *ter_plugin_state_name(enum ter_plugin_state state)
{
	switch (state) {
	case TER_PLUGIN_LOADED:
		return "loaded";
	case TER_PLUGIN_FAILED:
		return "failed";
	case TER_PLUGIN_SHADOWED:
		return "shadowed";
	}
	return "unknown";
}

const struct ter_codecs *ter_plugins_codecs(const struct ter_plugins *plugins)
{
	return &plugins->codecs;
}

unsigned ter_plugins_nr(const struct ter_plugins *plugins)
{
	return plugins->entries_nr;
}

const struct ter_plugin_entry *ter_plugins_entry(const struct ter_plugins *plugins, unsigned idx)
{
	assert(idx < plugins->entries_nr);
	return &plugins->entries[idx];
}

/* A failed entry of @path, without an algorithm yet. NULL: no memory, or ENTRIES_MAX, which a bounded number of files cannot reach. */
static struct ter_plugin_entry *entry_new(struct ter_plugins *plugins, const char *path)
{
	struct ter_plugin_entry *grown, *entry;
	char *file;

	if (plugins->entries_nr >= ENTRIES_MAX)
		return NULL;
	grown = reallocarray(plugins->entries, plugins->entries_nr + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	plugins->entries = grown;
	file = strdup(path);
	if (!file)
		return NULL;

	entry = &grown[plugins->entries_nr++];
	*entry = (struct ter_plugin_entry){
		.state = TER_PLUGIN_FAILED, .file = file, .version = "", .licence = "", .summary = "", .impl = "", .error = strdup("")
	};
	(void)ter_plugin_name_of_file(path, entry->name); /* stays empty when the file's name is no plugin's */
	return entry;
}

/* @why: owned by the entry from now on; NULL when there was no memory for it. */
static int set_error(struct ter_plugins *plugins, struct ter_plugin_entry *entry, enum ter_plugin_state state, char *why)
{
	free((char *)entry->error);
	entry->state = state;
	entry->error = why ? why : strdup("out of memory");
	if (!entry->error)
		return -ENOMEM;
	if (state == TER_PLUGIN_FAILED)
		say(plugins, LOG_WARNING, "Plugin %s is not used: %s", entry->file, entry->error);
	else
		say(plugins, LOG_DEBUG, "Plugin %s: '%s' is shadowed: %s", entry->file, entry->name, entry->error);
	return 0;
}

static int add_refused(struct ter_plugins *plugins, const char *path, char *why)
{
	struct ter_plugin_entry *entry = entry_new(plugins, path);

	if (!entry || !entry->error) {
		free(why);
		return -ENOMEM;
	}
	return set_error(plugins, entry, TER_PLUGIN_FAILED, why);
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

/* An algorithm that may be used: its state stays to be decided by settle_duplicates(). */
static int add_algo(struct ter_plugins *plugins, const char *path, const struct terrace_plugin *plugin, const struct terrace_algo *algo)
{
	struct ter_plugin_entry *entry = entry_new(plugins, path);
	char *why = NULL;
	int r;

	if (!entry || !entry->error)
		return -ENOMEM;
	entry->version = or_empty(plugin->version);
	entry->licence = or_empty(plugin->licence);
	entry->summary = or_empty(plugin->summary);
	entry->impl = or_empty(plugin->impl);

	r = ter_plugin_check_algo(algo, &why);
	if (r != -EINVAL) { /* else what it says of itself cannot be relied on */
		entry->kind = algo->kind;
		(void)snprintf(entry->name, sizeof(entry->name), "%s", algo->name);
		memcpy(entry->uuid, algo->uuid, sizeof(entry->uuid));
		entry->format = algo->format;
		entry->algo = algo;
		if (algo->kind == TERRACE_COMPRESSION) {
			const struct terrace_compression *compression = (const struct terrace_compression *)algo;

			entry->level_min = compression->level_min;
			entry->level_def = compression->level_def;
			entry->level_max = compression->level_max;
		}
	}
	if (r < 0)
		return set_error(plugins, entry, TER_PLUGIN_FAILED, why);
	entry->state = TER_PLUGIN_LOADED;
	return 0;
}

/* One file that is reached twice, by two names of its directory or by a link, is one plugin. */
static bool seen(const struct ter_plugins *plugins, const struct terrace_plugin *plugin)
{
	for (unsigned i = 0; i < plugins->entries_nr; i++)
		for (unsigned a = 0; plugin->algos[a]; a++)
			if (plugins->entries[i].algo == plugin->algos[a])
				return true;
	return false;
}

/* The file itself, and the directory where a symbolic link led. */
static int check_owners(const char *path, char **ret_why)
{
	_cleanup_free_ char *resolved = realpath(path, NULL);
	int r;

	if (!resolved) {
		r = -errno;
		if (asprintf(ret_why, "cannot find it: %s", strerror(-r)) < 0)
			*ret_why = NULL;
		return r;
	}
	r = ter_plugin_check_owner(resolved, ret_why);
	if (r < 0)
		return r;
	*strrchr(resolved, '/') = '\0';
	return ter_plugin_check_owner(*resolved ? resolved : "/", ret_why);
}

/* @dir_why: why nothing of this directory may be loaded, or NULL. */
static int load_file(struct ter_plugins *plugins, const char *dir, const char *file, const char *dir_why)
{
	const struct terrace_plugin *plugin = NULL;
	_cleanup_free_ char *path = NULL;
	char *why = NULL;
	int r;

	if (asprintf(&path, "%s/%s", dir, file) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (dir_why)
		return add_refused(plugins, path, strdup(dir_why));

	r = check_owners(path, &why);
	if (r == 0)
		r = ter_plugin_open(path, &host, &plugin, &why);
	if (r < 0)
		return add_refused(plugins, path, why);
	if (seen(plugins, plugin))
		return 0;

	for (unsigned i = 0; plugin->algos[i]; i++) {
		r = add_algo(plugins, path, plugin, plugin->algos[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int is_plugin_file(const struct dirent *entry)
{
	return fnmatch("terrace-*.so", entry->d_name, 0) == 0;
}

/* By bytes, so that the order is the same in every locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_dir(struct ter_plugins *plugins, const char *dir)
{
	_cleanup_free_ char *why = NULL;
	struct dirent **files;
	int nr, r = 0;

	nr = scandir(dir, &files, is_plugin_file, by_name);
	if (nr < 0) {
		r = -errno;
		if (r == -ENOMEM)
			return r;
		say(plugins, r == -ENOENT ? LOG_DEBUG : LOG_WARNING, "No plugins are loaded from %s: %s", dir, strerror(-r));
		return 0;
	}
	(void)ter_plugin_check_owner(dir, &why); /* a failure shows in why, and each file of the directory is listed with it */
	for (int i = 0; i < nr; i++) {
		if (r == 0 && plugins->files_nr++ < TER_PLUGIN_FILES_MAX)
			r = load_file(plugins, dir, files[i]->d_name, why);
		free(files[i]);
	}
	free(files);
	return r;
}

static int shadow(struct ter_plugins *plugins, struct ter_plugin_entry *loser, const struct ter_plugin_entry *winner)
{
	char *why;

	if (asprintf(&why, "%s provides the same algorithm in format %u", winner->file, winner->format) < 0)
		why = NULL;
	return set_error(plugins, loser, TER_PLUGIN_SHADOWED, why);
}

/* P3 */
static int settle_duplicates(struct ter_plugins *plugins)
{
	int r;

	for (unsigned i = 0; i < plugins->entries_nr; i++) {
		struct ter_plugin_entry *entry = &plugins->entries[i];

		for (unsigned j = 0; j < i && entry->state == TER_PLUGIN_LOADED; j++) {
			struct ter_plugin_entry *earlier = &plugins->entries[j];

			if (earlier->state != TER_PLUGIN_LOADED || earlier->kind != entry->kind ||
			    memcmp(earlier->uuid, entry->uuid, sizeof(entry->uuid)) != 0)
				continue;
			r = entry->format > earlier->format ? shadow(plugins, earlier, entry) : shadow(plugins, entry, earlier);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int fill_codecs(struct ter_plugins *plugins)
{
	for (unsigned i = 0; i < plugins->entries_nr; i++) {
		struct ter_plugin_entry *entry = &plugins->entries[i];
		char *why;
		int r;

		if (entry->state != TER_PLUGIN_LOADED)
			continue;
		r = ter_codecs_add(&plugins->codecs, entry->algo);
		if (r == 0) {
			say(plugins, LOG_DEBUG, "Plugin %s %s: %s '%s', format %u", entry->file, entry->version,
			    ter_plugin_kind_name(entry->kind), entry->name, entry->format);
			continue;
		}
		if (r == -EEXIST)
			r = asprintf(&why, "another plugin provides a different %s of the name '%s'", ter_plugin_kind_name(entry->kind), entry->name);
		else if (r == -E2BIG)
			r = asprintf(&why, "there are more than %d algorithms", TER_CODECS_MAX);
		else
			r = asprintf(&why, "the engine cannot use '%s': %s", entry->name, strerror(-r));
		r = set_error(plugins, entry, TER_PLUGIN_FAILED, r < 0 ? NULL : why);
		if (r < 0)
			return r;
	}
	return 0;
}

int ter_plugins_load(struct ter_plugins **ret, const char *const *dirs, ter_plugin_log_fn log, void *userdata)
{
	_cleanup_(ter_plugins_freep) struct ter_plugins *plugins = calloc(1, sizeof(*plugins));
	int r;

	if (!plugins)
		return -ENOMEM;
	plugins->log = log;
	plugins->log_userdata = userdata;
	atomic_store(&logging_plugins, plugins);

	for (unsigned i = 0; dirs[i]; i++) {
		r = load_dir(plugins, dirs[i]);
		if (r < 0)
			return r;
	}
	if (plugins->files_nr > TER_PLUGIN_FILES_MAX)
		say(plugins, LOG_WARNING, "There are more than %d plugin files; %u of them were not looked at", TER_PLUGIN_FILES_MAX,
		    plugins->files_nr - TER_PLUGIN_FILES_MAX);

	r = settle_duplicates(plugins);
	if (r < 0)
		return r;
	r = fill_codecs(plugins);
	if (r < 0)
		return r;

	*ret = TAKE_PTR(plugins);
	return 0;
}

void ter_plugins_free(struct ter_plugins *plugins)
{
	const struct ter_plugins *expected = plugins;

	if (!plugins)
		return;
	(void)atomic_compare_exchange_strong(&logging_plugins, &expected, NULL); /* a newer load may log by now */
	for (unsigned i = 0; i < plugins->entries_nr; i++) {
		free((char *)plugins->entries[i].file);
		free((char *)plugins->entries[i].error);
	}
	free(plugins->entries);
	free(plugins);
}

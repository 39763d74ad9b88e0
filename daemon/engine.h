/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the daemon hands to core: threads, block devices, plugins, memory. One per process. */
#ifndef TD_ENGINE_H
#define TD_ENGINE_H

#include <pthread.h>

#include "plugins/plugins.h"
#include "super/fs.h"

struct td_engine {
	struct ter_exec *exec;
	struct ter_io *io;
	struct ter_plugins *plugins; /* NULL until td_engine_plugins() */
	struct ter_env env;

	bool allow_plugin_path;
	pthread_t loader;
	bool loading;
	int load_result;             /* the loader's, until it is joined */
	struct ter_error load_error;
};
struct td_engine_params {
	const char *io_backend;  /* "uring", "threads" or NULL: the best */
	bool allow_plugin_path;
};
/*
 * Plugins begin to load in a thread of their own: from a cold disk that takes as long as opening the members does, and both go on side by side. Opening a pool
 * waits for them; who uses engine->plugins or env.codecs itself calls td_engine_plugins() first. @engine stays where it is.
 */
int td_engine_init(struct td_engine *engine, const struct td_engine_params *params, struct ter_error *error);
int td_engine_plugins(struct td_engine *engine, struct ter_error *error); /* not thread-safe until it was called once */
void td_engine_destroy(struct td_engine *engine); /* every pool closed */
/* One log line: its name, format, options that are not at their default, and what the start did. */
void td_log_started(struct ter_fs *fs);

/* The kernel must not make this process write its own dirty pages to get memory: it is part of the way they take. Where it is permitted. */
void td_mark_io_flusher(void);

#endif

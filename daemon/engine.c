/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Composing the engine's environment. */
#include "engine.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"

static void log_plugin(void *userdata, int priority, const char *message)
{
	(void)userdata;
	td_log(priority, NULL, "%s", message);
}

/* Journal buffers and dirty data: shared memory with a name, so that it can be kept for the next daemon. */
static void *region_get(void *arg, const char *name, size_t bytes)
{
	const int fd = memfd_create(name, MFD_CLOEXEC);
	void *base;

	(void)arg;
	if (fd < 0)
		return NULL;
	if (ftruncate(fd, (off_t)bytes) < 0) {
		close(fd);
		return NULL;
	}
	base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd); /* the mapping keeps it */
	return base == MAP_FAILED ? NULL : base;
}

static void region_put(void *arg, void *base, size_t bytes)
{
	(void)arg;
	munmap(base, bytes);
}

static int load_plugins(struct td_engine *engine, struct ter_error *error)
{
	char **dirs;
	int r;

	r = ter_plugins_default_dirs(engine->allow_plugin_path, &dirs);
	if (r >= 0) {
		r = ter_plugins_load(&engine->plugins, (const char *const *)dirs, log_plugin, NULL);
		ter_plugins_free_dirs(dirs);
	}
	return r < 0 ? ter_fail_errno(error, r, "The plugins cannot be loaded: %s.", strerror(-r)) : 0;
}

static void *loader(void *arg)
{
	struct td_engine *engine = arg;

	engine->load_result = load_plugins(engine, &engine->load_error);
	return NULL;
}

int td_engine_plugins(struct td_engine *engine, struct ter_error *error)
{
	if (engine->loading) {
		pthread_join(engine->loader, NULL);
		engine->loading = false;
	}
	if (engine->load_result < 0) {
		if (error)
			*error = engine->load_error;
		return engine->load_result;
	}
	engine->env.codecs = ter_plugins_codecs(engine->plugins);
	return 0;
}

static int codecs_get(void *arg, const struct ter_codecs **ret_codecs, struct ter_error *error)
{
	struct td_engine *engine = arg;
	const int r = td_engine_plugins(engine, error);

	if (r >= 0)
		*ret_codecs = engine->env.codecs;
	return r;
}

int td_engine_init(struct td_engine *engine, const struct td_engine_params *params, struct ter_error *error)
{
	int r;

	*engine = (struct td_engine){ .allow_plugin_path = params->allow_plugin_path };
	r = ter_self_test(error);
	if (r < 0)
		return r;
	engine->loading = pthread_create(&engine->loader, NULL, loader, engine) == 0;
	if (!engine->loading)
		loader(engine);
	engine->exec = ter_exec_new_threads();
	if (!engine->exec) {
		td_engine_destroy(engine);
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to start.");
	}
	r = ter_io_new(engine->exec, params->io_backend, &engine->io, error);
	if (r < 0) {
		td_engine_destroy(engine);
		return r;
	}
	engine->env = (struct ter_env){
		.exec = engine->exec, .io = engine->io, .codecs_get = codecs_get, .codecs_arg = engine, .region_get = region_get, .region_put = region_put,
	};
	return 0;
}

void td_engine_destroy(struct td_engine *engine)
{
	if (engine->loading)
		pthread_join(engine->loader, NULL);
	ter_io_free(engine->io);
	ter_exec_free(engine->exec);
	ter_plugins_free(engine->plugins);
	*engine = (struct td_engine){ 0 };
}

void td_mark_io_flusher(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		td_log(LOG_DEBUG, NULL, "The process cannot be marked as part of the I/O path (CAP_SYS_RESOURCE is needed).");
}

void td_log_started(struct ter_fs *fs)
{
	struct ter_fs_status status;
	char text[1024];

	ter_fs_get_status(fs, &status);
	td_log(LOG_INFO, NULL, "Filesystem '%s' started %s (%s): %s.", status.label, ter_access_names[status.access], status.recovery,
	       ter_fs_describe(fs, text, sizeof(text)));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds the directories in which plugins are looked for. */
#include "plugins.h"

#include <limits.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <unistd.h>

#define DIRS_MAX 32 /* directories of one list, the installation's being the last; the rest of a longer TERRACE_PLUGIN_PATH is passed over */

/*
 * <builddir>/plugins when the running program is <builddir>/<folder>/<program>. Meson's own folder shows that it is a build tree; whether one may be
 * trusted is decided, as for all directories, by who can write to it.
 */
static char *build_tree_dir(void)
{
	char exe[PATH_MAX], path[PATH_MAX + 32];
	ssize_t bytes;

	if (getauxval(AT_SECURE))
		return NULL;
	bytes = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (bytes <= 0)
		return NULL;
	exe[bytes] = '\0';
	for (int up = 0; up < 2; up++) {
		char *slash = strrchr(exe, '/');

		if (!slash || slash == exe)
			return NULL;
		*slash = '\0';
	}
	(void)snprintf(path, sizeof(path), "%s/meson-private", exe); /* fits: exe is shorter than PATH_MAX */
	if (access(path, F_OK) < 0)
		return NULL;
	(void)snprintf(path, sizeof(path), "%s/plugins", exe);
	return strdup(path);
}

static int append(char **dirs, unsigned *nr, unsigned max, const char *dir, size_t bytes)
{
	if (bytes == 0 || dir[0] != '/' || *nr >= max) /* the working directory is nobody's promise: absolute paths only */
		return 0;
	dirs[*nr] = strndup(dir, bytes);
	if (!dirs[*nr])
		return -ENOMEM;
	(*nr)++;
	return 0;
}

int ter_plugins_default_dirs(bool allow_plugin_path, char ***ret_dirs)
{
	_cleanup_free_ char *build = build_tree_dir();
	const char *path = geteuid() == 0 && !allow_plugin_path ? NULL : secure_getenv("TERRACE_PLUGIN_PATH");
	char **dirs;
	unsigned nr = 0;
	int r = 0;

	dirs = calloc(DIRS_MAX + 1, sizeof(*dirs));
	if (!dirs)
		return -ENOMEM;

	if (build)
		r = append(dirs, &nr, DIRS_MAX - 1, build, strlen(build));
	while (r == 0 && path && *path) {
		size_t bytes = strcspn(path, ":");

		r = append(dirs, &nr, DIRS_MAX - 1, path, bytes);
		path += bytes + (path[bytes] == ':');
	}
	if (r == 0)
		r = append(dirs, &nr, DIRS_MAX, TERRACE_PLUGIN_DIR, strlen(TERRACE_PLUGIN_DIR));
	if (r < 0) {
		ter_plugins_free_dirs(dirs);
		return r;
	}
	*ret_dirs = dirs;
	return 0;
}

void ter_plugins_free_dirs(char **dirs)
{
	for (unsigned i = 0; dirs && dirs[i]; i++)
		free(dirs[i]);
	free(dirs);
}

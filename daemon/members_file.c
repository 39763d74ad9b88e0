/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of members seen. */
#include "members_file.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct td_members_file {
	pthread_mutex_t lock; /* a leaf; held across the write, so that lists reach the disk in order */
	char dir[PATH_MAX], path[PATH_MAX + 16], temp[PATH_MAX + 32];
	char *paths[TD_MEMBERS_MAX];
	unsigned nr;
};

static int make_dir(const char *dir)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", dir);
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int find(const struct td_members_file *file, const char *path)
{
	for (unsigned i = 0; i < file->nr; i++)
		if (strcmp(file->paths[i], path) == 0)
			return (int)i;
	return -1;
}

static void remove_at(struct td_members_file *file, unsigned i)
{
	free(file->paths[i]);
	memmove(&file->paths[i], &file->paths[i + 1], (--file->nr - i) * sizeof(file->paths[0]));
}

static int append(struct td_members_file *file, const char *path)
{
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	if (file->nr == TD_MEMBERS_MAX)
		remove_at(file, 0);
	file->paths[file->nr++] = copy;
	return 0;
}

static int read_list(struct td_members_file *file)
{
	char line[PATH_MAX + 2];
	FILE *f = fopen(file->path, "re");
	int r = 0;

	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (r >= 0 && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] == '/' && find(file, line) < 0)
			r = append(file, line);
	}
	if (r >= 0 && ferror(f))
		r = -EIO;
	fclose(f);
	return r;
}

int td_members_file_open(const char *state_dir, struct td_members_file **ret, struct ter_error *error)
{
	struct td_members_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to start.");
	pthread_mutex_init(&file->lock, NULL);
	snprintf(file->dir, sizeof(file->dir), "%s", state_dir);
	snprintf(file->path, sizeof(file->path), "%s/members", file->dir);
	snprintf(file->temp, sizeof(file->temp), "%s/members.new", file->dir);
	r = make_dir(state_dir);
	if (r < 0)
		ter_fail_errno(error, r, "The state directory '%s' cannot be made: %s.", state_dir, strerror(-r));
	if (r >= 0) {
		r = read_list(file);
		if (r < 0)
			ter_fail_errno(error, r, "The list of members '%s' cannot be read: %s.", file->path, strerror(-r));
	}
	if (r < 0) {
		td_members_file_close(file);
		return r;
	}
	*ret = file;
	return 0;
}

void td_members_file_close(struct td_members_file *file)
{
	if (!file)
		return;
	while (file->nr)
		remove_at(file, file->nr - 1);
	pthread_mutex_destroy(&file->lock);
	free(file);
}

static int sync_dir(const char *dir)
{
	const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int write_list(const struct td_members_file *file)
{
	FILE *f = fopen(file->temp, "we");
	int r = 0;

	if (!f)
		return -errno;
	for (unsigned i = 0; i < file->nr; i++)
		fprintf(f, "%s\n", file->paths[i]);
	if (fflush(f) != 0 || ferror(f) || fsync(fileno(f)) < 0)
		r = errno ? -errno : -EIO;
	if (fclose(f) != 0 && r >= 0)
		r = -errno;
	if (r >= 0 && rename(file->temp, file->path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlink(file->temp); /* the list before it still stands */
		return r;
	}
	return sync_dir(file->dir);
}

int td_members_file_update(struct td_members_file *file, const char *const *add, unsigned add_nr, const char *const *drop, unsigned drop_nr, struct ter_error *error)
{
	bool changed = false;
	int r = 0;

	pthread_mutex_lock(&file->lock);
	for (unsigned i = 0; i < drop_nr; i++) {
		const int at = find(file, drop[i]);

		if (at >= 0) {
			remove_at(file, (unsigned)at);
			changed = true;
		}
	}
	for (unsigned i = 0; i < add_nr && r >= 0; i++)
		if (add[i][0] == '/' && !strchr(add[i], '\n') && strlen(add[i]) < PATH_MAX && find(file, add[i]) < 0) {
			r = append(file, add[i]);
			changed = true;
		}
	if (r >= 0 && changed)
		r = write_list(file);
	pthread_mutex_unlock(&file->lock);
	return r < 0 ? ter_fail_errno(error, r, "The list of members '%s' cannot be written: %s.", file->path, strerror(-r)) : 0;
}

int td_members_file_list(struct td_members_file *file, char ***ret_paths)
{
	char **paths;
	unsigned nr;

	pthread_mutex_lock(&file->lock);
	nr = file->nr;
	paths = calloc(nr + 1, sizeof(*paths));
	for (unsigned i = 0; paths && i < nr; i++) {
		paths[i] = strdup(file->paths[i]);
		if (!paths[i]) {
			while (i)
				free(paths[--i]);
			free(paths);
			paths = NULL;
		}
	}
	pthread_mutex_unlock(&file->lock);
	if (!paths)
		return -ENOMEM;
	*ret_paths = paths;
	return (int)nr;
}

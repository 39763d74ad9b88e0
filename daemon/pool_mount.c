/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounts of a pool: made here or handed to us, served by a session, ended by whoever unmounts. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fuse/mount_fuse.h"
#include "log.h"
#include "pools.h"

#define READ_AHEAD_KIB 1024
#define CHOSEN_DIR "/run/terrace/mounts" /* where mounts go whose place is left to us */
#define FUSE_MAJOR 10
#define FUSE_MINOR 229
#define END_SECONDS_MAX 5 /* after a successful unmount: the session ends at once, unless the mount lives on in another namespace */

static void answer(struct ter_bus_call *call, enum ter_error_kind kind, const char *fmt, const char *a, const char *b)
{
	struct ter_error error = { 0 };

	ter_fail(&error, kind, fmt, a, b);
	ter_bus_answer(call, &error);
}

/* --- the end of a session --- */

void td_mount_free(struct td_mount *mount)
{
	if (!mount)
		return;
	if (mount->unmount_timer)
		g_source_remove(mount->unmount_timer);
	if (mount->unmount_call)
		ter_bus_answer(mount->unmount_call, NULL);
	free(mount);
}

struct ending {
	struct td_mount *mount;
	struct ter_bus_call *call; /* of DetachFuse; may be NULL */
};

static int end_run(struct td_job *job, struct ter_error *error)
{
	struct ending *ending = job->arg;

	(void)error;
	td_session_stop(TAKE_PTR(ending->mount->session));
	td_pool_unuse(ending->mount->pool);
	return 0;
}

static void end_done(struct td_job *job)
{
	struct ending *ending = job->arg;
	struct td_pool *pool = ending->mount->pool;

	pool->mount = NULL;
	td_pool_publish(pool); /* before those who wait for the end hear of it */
	td_mount_free(ending->mount);
	if (ending->call)
		ter_bus_answer(ending->call, NULL);
	free(ending);
}

static void end_mount(struct td_mount *mount, struct ter_bus_call *call)
{
	struct ending *ending = calloc(1, sizeof(*ending));
	struct ter_error error = { 0 };
	int r;

	if (!ending) {
		r = ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory to end the mount.");
	} else {
		*ending = (struct ending){ .mount = mount, .call = call };
		td_pool_hold(mount->pool);
		r = td_job_start(mount->pool->pools->jobs,
				 &(struct td_job_spec){ .operation = "end-mount", .hidden = true, .run = end_run, .done = end_done, .arg = ending }, NULL, &error);
		if (r < 0) {
			td_pool_unuse(mount->pool);
			free(ending);
		}
	}
	mount->ending = r >= 0;
	if (r < 0) {
		td_log(LOG_ERR, NULL, "The mount at '%s' cannot be ended: %s", mount->where, error.text);
		if (call)
			ter_bus_answer(call, &error);
	}
}

static void on_end_main(struct td_post *post)
{
	struct td_mount *mount = ter_container_of(post, struct td_mount, end_post);

	if (mount->ending)
		return; /* whoever is ending it frees it, later: posts come in order */
	td_log(LOG_INFO, &(struct td_log_about){ .fs_uuid = mount->pool->text }, "Filesystem '%s' was unmounted from '%s'.", td_pool_label(mount->pool),
	       mount->where);
	end_mount(mount, NULL);
}

static void on_session_end(void *arg, struct td_session *session)
{
	struct td_mount *mount = arg;

	(void)session;
	td_main_queue_post(mount->pool->pools->queue, &mount->end_post);
}

/* --- beginning to serve --- */

struct attaching {
	struct td_pool *pool;
	struct ter_fs *fs;
	struct ter_bus_call *call;
	struct td_mount *mount;
	struct td_session_config session;
	struct td_mount_options options;
	struct ter_bus_start start; /* how to start the pool first, by whom */
	uint32_t uid;
	struct td_pools *pools; /* these two find it again */
	char uuid[TER_UUID_TEXT_BYTES];
	bool make;     /* mount it ourselves */
	bool make_dir; /* and the directory */
	char source[TER_LABEL_MAX + 64];
};

static void attaching_free(struct attaching *a)
{
	td_mount_free(a->mount);
	free(a);
}

/* mkdir -p; only for places that we chose. */
static int make_dirs(const char *where, struct ter_error *error)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", where);
	for (char *p = path + 1;; p++) {
		const char c = *p;

		if (c && c != '/')
			continue;
		*p = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return ter_fail_errno(error, -errno, "The directory '%s' cannot be made: %s.", path, strerror(errno));
		*p = c;
		if (!c)
			return 0;
	}
}

static int attach_run(struct td_job *job, struct ter_error *error)
{
	struct attaching *a = job->arg;
	int r = 0;

	if (a->make_dir)
		r = make_dirs(a->mount->where, error);
	if (r >= 0 && a->make) {
		a->options.source = a->source;
		r = td_mount(a->mount->where, &a->options, &a->session.fuse_fd, error);
	}
	if (r >= 0) {
		r = td_session_start(&a->session, &a->mount->session, error);
		if (r < 0) {
			if (a->make)
				(void)td_unmount(a->mount->where, true, NULL); /* the first error is the one to tell */
			close(a->session.fuse_fd);
		}
	}
	if (r >= 0 && a->make)
		td_raise_read_ahead(a->mount->where, READ_AHEAD_KIB);
	td_pool_unuse(a->pool);
	return r;
}

static void attach_done(struct td_job *job)
{
	struct attaching *a = job->arg;
	struct td_pool *pool = a->pool;

	pool->attaching = false;
	if (job->r < 0) {
		ter_bus_answer(a->call, &job->error);
		attaching_free(a);
		return;
	}
	pool->mount = TAKE_PTR(a->mount);
	td_log(LOG_INFO, &(struct td_log_about){ .fs_uuid = pool->text }, "Filesystem '%s' is mounted at '%s'.", td_pool_label(pool), pool->mount->where);
	td_pool_publish(pool); /* before the answer */
	if (a->make)
		ter_bus_answer_text(a->call, pool->mount->where);
	else
		ter_bus_answer(a->call, NULL);
	attaching_free(a);
}

static int check_free(struct td_pool *pool, struct ter_error *error)
{
	if (pool->mount)
		return ter_fail(error, TER_ERR_ALREADY_MOUNTED, "Filesystem '%s' is mounted at '%s' already.", td_pool_label(pool), pool->mount->where);
	if (pool->attaching)
		return ter_fail(error, TER_ERR_BUSY, "Filesystem '%s' is being mounted already.", td_pool_label(pool));
	return 0;
}

/* Takes @a in every case. */
static void start_attaching(struct attaching *a)
{
	struct ter_error error = { 0 };
	int r;

	r = check_free(a->pool, &error);
	if (r >= 0)
		r = td_pool_use(a->pool, &error);
	if (r >= 0) {
		a->fs = a->session.fs = a->pool->fs;
		a->session.io = a->pool->pools->engine->io;
		a->session.on_end = on_session_end;
		a->session.arg = a->mount;
		r = td_job_start(a->pool->pools->jobs,
				 &(struct td_job_spec){ .operation = "mount", .hidden = true, .run = attach_run, .done = attach_done, .arg = a }, NULL, &error);
		if (r < 0)
			td_pool_unuse(a->pool);
	}
	if (r < 0) {
		if (!a->make)
			close(a->session.fuse_fd);
		ter_bus_answer(a->call, &error);
		attaching_free(a);
		return;
	}
	a->pool->attaching = true;
}

static struct attaching *new_attaching(struct td_pool *pool, uint32_t uid, const char *where, struct ter_bus_call *call)
{
	struct attaching *a = calloc(1, sizeof(*a));

	if (a)
		a->mount = calloc(1, sizeof(*a->mount));
	if (!a || !a->mount) {
		free(a);
		answer(call, TER_ERR_NO_MEMORY, "Not enough memory to mount '%s'%s.", where, "");
		return NULL;
	}
	a->pool = pool;
	a->call = call;
	a->mount->pool = pool;
	a->mount->uid = uid;
	a->mount->end_post.fn = on_end_main;
	snprintf(a->mount->where, sizeof(a->mount->where), "%s", where);
	return a;
}

/* --- a descriptor handed over by mount.terrace --- */

/* Of the descriptor, not of the mount (W6): it says that it is /dev/fuse. */
static bool is_fuse(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(FUSE_MAJOR, FUSE_MINOR);
}

static int parse_transport(const char *word, enum td_transport *ret)
{
	if (strcmp(word, "auto") == 0)
		*ret = TD_TRANSPORT_AUTO;
	else if (strcmp(word, "classic") == 0)
		*ret = TD_TRANSPORT_CLASSIC;
	else if (strcmp(word, "ring") == 0)
		*ret = TD_TRANSPORT_RING;
	else
		return -EINVAL;
	return 0;
}

void td_pool_attach(struct td_pool *pool, const struct ter_bus_who *who, const struct ter_bus_attach *attach, struct ter_bus_call *call)
{
	enum td_transport transport;
	struct attaching *a;

	if (parse_transport(attach->transport, &transport) < 0) {
		answer(call, TER_ERR_INVALID_OPTION, "There is no transport '%s'%s: auto, classic or ring.", attach->transport, "");
		return;
	}
	if (!is_fuse(attach->fuse_fd)) {
		answer(call, TER_ERR_INVALID_ARGUMENT, "What was handed over for '%s' is not a mounted /dev/fuse%s.", attach->where, "");
		return;
	}
	a = new_attaching(pool, who->uid, attach->where, call);
	if (!a)
		return;
	a->session.transport = transport;
	a->session.writeback_cache = attach->writeback_cache;
	a->mount->read_only = attach->read_only;
	a->session.fuse_fd = fcntl(attach->fuse_fd, F_DUPFD_CLOEXEC, 3);
	if (a->session.fuse_fd < 0) {
		answer(call, TER_ERR_LIMIT_EXCEEDED, "The descriptor for '%s' cannot be kept: %s.", attach->where, strerror(errno));
		attaching_free(a);
		return;
	}
	start_attaching(a);
}

void td_pool_detach(struct td_pool *pool, const char *where, struct ter_bus_call *call)
{
	if (!pool->mount || strcmp(pool->mount->where, where) != 0)
		answer(call, TER_ERR_NOT_MOUNTED, "Filesystem '%s' is not mounted at '%s'.", td_pool_label(pool), where);
	else if (pool->mount->ending)
		answer(call, TER_ERR_BUSY, "The mount of filesystem '%s' at '%s' is ending already.", td_pool_label(pool), where);
	else
		end_mount(pool->mount, call);
}

/* --- mounting by ourselves --- */

/* "ro", "noatime", "transport=classic", "degraded=yes": those that we do not know are refused by name. */
static int parse_mount_option(const char *o, struct attaching *a, struct ter_bus_start *start, struct ter_error *error)
{
	if (strcmp(o, "ro") == 0) {
		a->options.read_only = true;
	} else if (strcmp(o, "nosuid") == 0) {
		a->options.nosuid = true;
	} else if (strcmp(o, "nodev") == 0) {
		a->options.nodev = true;
	} else if (strcmp(o, "noexec") == 0) {
		a->options.noexec = true;
	} else if (strcmp(o, "noatime") == 0) {
		a->options.noatime = a->session.noatime = true;
	} else if (strcmp(o, "writeback-cache") == 0) {
		a->session.writeback_cache = true;
	} else if (strncmp(o, "transport=", 10) == 0) {
		if (parse_transport(o + 10, &a->session.transport) < 0)
			return ter_fail(error, TER_ERR_INVALID_OPTION, "There is no transport '%s': auto, classic or ring.", o + 10);
	} else if (strncmp(o, "degraded=", 9) == 0) {
		struct ter_options options;

		ter_options_default(&options);
		if (ter_option_set_text(&options, "degraded", o + 9, TER_OPT_OPEN, NULL, error) < 0)
			return -EINVAL;
		start->degraded = options.degraded;
	} else if (strcmp(o, "rw") != 0 && strcmp(o, "suid") != 0 && strcmp(o, "dev") != 0 && strcmp(o, "exec") != 0 && strcmp(o, "atime") != 0 &&
		   strcmp(o, "relatime") != 0 && strcmp(o, "defaults") != 0) {
		return ter_fail(error, TER_ERR_INVALID_OPTION, "There is no mount option '%s'.", o);
	}
	return 0;
}

/* What was given, for Mounts and for systemd. */
static int join_options(const struct ter_bus_mount *mount, bool safe, char *ret, size_t bytes, struct ter_error *error)
{
	size_t used = (size_t)snprintf(ret, bytes, "%s", safe ? "nosuid,nodev" : "");

	for (unsigned i = 0; i < mount->options_nr; i++) {
		const int n = snprintf(ret + used, bytes - used, "%s%s", used ? "," : "", mount->options[i]);

		if (n < 0 || (size_t)n >= bytes - used)
			return ter_fail(error, TER_ERR_LIMIT_EXCEEDED, "The mount options are too long: at most %zu bytes together.", bytes - 1);
		used += (size_t)n;
	}
	return 0;
}

static void choose_where(const struct td_pool *pool, char where[PATH_MAX])
{
	const char *label = td_pool_label(pool);

	/* A label has no slash and no control characters; "." and ".." are names of other directories. */
	snprintf(where, PATH_MAX, CHOSEN_DIR "/%s", label[0] && label[0] != '.' ? label : pool->text);
}

static void on_started(struct td_settle *settle, struct td_pool *pool)
{
	struct attaching *a = settle->arg;

	free(settle);
	if (!pool || !pool->fs) {
		struct ter_error gone = { 0 };

		ter_fail(&gone, TER_ERR_CANCELLED, "The start of the filesystem was given up.");
		ter_bus_answer(a->call, pool && pool->error.kind ? &pool->error : &gone);
		attaching_free(a);
		return;
	}
	start_attaching(a);
}

static void start_then_attach(struct attaching *a)
{
	struct td_pool *pool = a->pool;
	struct ter_error error = { 0 };
	int r = 0;

	if (!pool->fs && pool->state != TD_POOL_STARTING)
		r = td_pool_start_job(pool, a->uid, &a->start, NULL, &error);
	if (r >= 0) {
		r = td_pool_when_settled(pool, 0, on_started, a);
		if (r < 0)
			ter_fail(&error, TER_ERR_NO_MEMORY, "Not enough memory to mount.");
	}
	if (r < 0) {
		ter_bus_answer(a->call, &error);
		attaching_free(a);
	}
}

/* A place that cannot be mounted on is refused before the pool is started for it. Mounting looks again. */
static int look_where_run(struct td_job *job, struct ter_error *error)
{
	const struct attaching *a = job->arg;

	return td_mount_check(a->mount->where, error);
}

static void look_where_done(struct td_job *job)
{
	struct attaching *a = job->arg;

	a->pool = a->mount->pool = td_pools_by_text(a->pools, a->uuid); /* a rescan may have found it gone meanwhile */
	if (job->r >= 0 && a->pool) {
		start_then_attach(a);
		return;
	}
	if (job->r >= 0)
		ter_fail(&job->error, TER_ERR_NOT_FOUND, "There is no filesystem with the UUID %s any more.", a->uuid);
	ter_bus_answer(a->call, &job->error);
	attaching_free(a);
}

static void look_then_start(struct attaching *a)
{
	struct ter_error error = { 0 };
	int r;

	a->pools = a->pool->pools;
	snprintf(a->uuid, sizeof(a->uuid), "%s", a->pool->text);
	r = td_job_start(a->pools->jobs,
			 &(struct td_job_spec){ .operation = "look-at-mount-point", .hidden = true, .run = look_where_run, .done = look_where_done, .arg = a },
			 NULL, &error);
	if (r < 0) {
		ter_bus_answer(a->call, &error);
		attaching_free(a);
	}
}

void td_pool_mount(struct td_pool *pool, const struct ter_bus_who *who, const struct ter_bus_mount *mount, struct ter_bus_call *call)
{
	const bool safe = pool->pools->system && who->uid != 0; /* an administrator agreed to the mount, not to what its files may do */
	struct ter_error error = { 0 };
	struct attaching *a;
	int r;

	a = new_attaching(pool, who->uid, mount->where, call);
	if (!a)
		return;
	a->start.degraded = -1;
	a->uid = who->uid;
	if (!mount->where[0])
		choose_where(pool, a->mount->where);
	r = check_free(pool, &error);
	for (unsigned i = 0; i < mount->options_nr && r >= 0; i++)
		r = parse_mount_option(mount->options[i], a, &a->start, &error);
	if (r >= 0)
		r = join_options(mount, safe, a->mount->options, sizeof(a->mount->options), &error);
	if (r < 0) {
		ter_bus_answer(call, &error);
		attaching_free(a);
		return;
	}
	if (pool->pools->by_systemd) {
		td_mount_unit_start(pool, a->mount->where, a->mount->options, call);
		attaching_free(a);
		return;
	}
	a->make = true;
	a->make_dir = !mount->where[0];
	a->options.nosuid |= safe;
	a->options.nodev |= safe;
	a->mount->read_only = a->start.read_only = a->options.read_only;
	snprintf(a->source, sizeof(a->source), "terrace:%s", td_pool_label(pool)[0] ? td_pool_label(pool) : pool->text);
	if (a->make_dir || pool->fs)
		start_then_attach(a);
	else
		look_then_start(a);
}

/* --- unmounting --- */

struct unmount {
	struct td_pools *pools;
	char uuid[TER_UUID_TEXT_BYTES], where[PATH_MAX];
	bool lazy;
	struct ter_bus_call *call;
};

static int unmount_run(struct td_job *job, struct ter_error *error)
{
	const struct unmount *u = job->arg;

	return td_unmount(u->where, u->lazy, error);
}

static gboolean on_unmount_late(gpointer data)
{
	struct td_mount *mount = data;

	mount->unmount_timer = 0;
	ter_bus_answer(TAKE_PTR(mount->unmount_call), NULL);
	return G_SOURCE_REMOVE;
}

void td_pools_answer_unmounted(struct td_pools *pools, const char *uuid, const char *where, struct ter_bus_call *call)
{
	struct td_pool *pool = td_pools_by_text(pools, uuid);
	struct td_mount *mount = pool ? pool->mount : NULL;

	if (mount && strcmp(mount->where, where) == 0 && !mount->unmount_call) {
		mount->unmount_call = call;
		mount->unmount_timer = g_timeout_add_seconds(END_SECONDS_MAX, on_unmount_late, mount);
	} else {
		ter_bus_answer(call, NULL);
	}
}

static void unmount_done(struct td_job *job)
{
	struct unmount *u = job->arg;

	/* A lazy one may take for ever. */
	if (job->r < 0 || u->lazy)
		ter_bus_answer(u->call, &job->error);
	else
		td_pools_answer_unmounted(u->pools, u->uuid, u->where, u->call);
	free(u);
}

void td_pool_unmount(struct td_pool *pool, const char *where, bool lazy, struct ter_bus_call *call)
{
	struct ter_error error = { 0 };
	struct unmount *u;
	int r;

	if (!pool->mount || strcmp(pool->mount->where, where) != 0) {
		answer(call, TER_ERR_NOT_MOUNTED, "Filesystem '%s' is not mounted at '%s'.", td_pool_label(pool), where);
		return;
	}
	if (pool->pools->by_systemd) {
		td_mount_unit_stop(pool, where, call);
		return;
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		answer(call, TER_ERR_NO_MEMORY, "Not enough memory to unmount '%s'%s.", where, "");
		return;
	}
	*u = (struct unmount){ .pools = pool->pools, .lazy = lazy, .call = call };
	snprintf(u->uuid, sizeof(u->uuid), "%s", pool->text);
	snprintf(u->where, sizeof(u->where), "%s", where);
	r = td_job_start(pool->pools->jobs,
			 &(struct td_job_spec){ .operation = "unmount", .hidden = true, .run = unmount_run, .done = unmount_done, .arg = u }, NULL, &error);
	if (r < 0) {
		ter_bus_answer(call, &error);
		free(u);
	}
}

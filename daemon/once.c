/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terraced --once format [OPTION…] DEVICE…,   serve [OPTION…] DIR DEVICE…   and   fsck [OPTION…] DEVICE… */
#include "once.h"

#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fuse/mount_fuse.h"
#include "fuse/session.h"
#include "log.h"
#include "util/uuid.h"

#define READ_AHEAD_KIB 1024
#define DEVS_MAX TER_DEVS_MAX

static int fail(const struct ter_error *error)
{
	fprintf(stderr, "terraced: %s\n", error->text);
	return 1;
}

static int usage(const char *what)
{
	if (what)
		fprintf(stderr, "terraced: %s\n", what);
	fprintf(stderr, "Usage: terraced --once format [--label=NAME] [--replicas=N] [--compression=C] [--checksum=C] [--force] [--OPTION=VALUE…] DEVICE…\n"
			"       terraced --once serve [--read-only|--dry] [--check] [--degraded=ask|yes|very|no] [--memory-limit=BYTES]\n"
			"                             [--transport=auto|classic|ring] [--noatime] [--writeback-cache] DIR DEVICE…\n"
			"       terraced --once fsck [-n|-y|--ask] [--degraded=ask|yes|very|no] [--memory-limit=BYTES] [--fsck-memory=BYTES] DEVICE…\n");
	return 2;
}

static void print_warning(void *arg, const char *sentence)
{
	(void)arg;
	fprintf(stderr, "terraced: warning: %s\n", sentence);
}

/* --- format --- */

/* "--data-replicas=2": the table's name with dashes. Also the two short names that stand for several options. */
static int set_format_option(struct ter_options *options, const char *arg, const struct ter_codecs *codecs, struct ter_error *error)
{
	char name[64];
	const char *value = strchr(arg, '=');
	int r;

	if (!value || (size_t)(value - arg) >= sizeof(name))
		return ter_fail(error, TER_ERR_INVALID_OPTION, "'--%s': write it as --NAME=VALUE.", arg);
	memcpy(name, arg, (size_t)(value - arg));
	name[value - arg] = 0;
	value++;
	for (char *p = name; *p; p++)
		if (*p == '-')
			*p = '_';
	if (strcmp(name, "replicas") == 0) {
		r = ter_option_set_text(options, "data_replicas", value, TER_OPT_FORMAT, codecs, error);
		return r < 0 ? r : ter_option_set_text(options, "metadata_replicas", value, TER_OPT_FORMAT, codecs, error);
	}
	if (strcmp(name, "checksum") == 0) {
		r = ter_option_set_text(options, "data_checksum", value, TER_OPT_FORMAT, codecs, error);
		return r < 0 || strcmp(value, "none") == 0 ? r : ter_option_set_text(options, "metadata_checksum", value, TER_OPT_FORMAT, codecs, error);
	}
	return ter_option_set_text(options, name, value, TER_OPT_FORMAT, codecs, error);
}

/* Members must be named absolutely; a person in a shell need not. */
static char *absolute(const char *path)
{
	char *full = realpath(path, NULL), *cwd = NULL;

	if (full || path[0] == '/' || !path[0])
		return full ? full : strdup(path);
	cwd = getcwd(NULL, 0);
	if (cwd && asprintf(&full, "%s/%s", cwd, path) < 0)
		full = NULL;
	free(cwd);
	return full ? full : strdup(path);
}

static int once_format(struct td_engine *engine, int argc, char **argv)
{
	struct ter_format_dev devs[DEVS_MAX + 1];
	struct ter_options options;
	struct ter_format_params params = { .options = &options, .devs = devs };
	struct ter_error error = { 0 };
	char text[TER_UUID_TEXT_BYTES];
	uint8_t uuid[16];
	int r;

	if (td_engine_plugins(engine, &error) < 0)
		return fail(&error);
	ter_options_default(&options);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--force") == 0) {
			params.force = true;
		} else if (strcmp(argv[i], "--dry-run") == 0) {
			params.dry_run = true;
		} else if (strncmp(argv[i], "--label=", 8) == 0) {
			params.label = argv[i] + 8;
		} else if (strncmp(argv[i], "--", 2) == 0) {
			if (set_format_option(&options, argv[i] + 2, engine->env.codecs, &error) < 0)
				return fail(&error);
		} else if (params.devs_nr <= DEVS_MAX) {
			devs[params.devs_nr++] = (struct ter_format_dev){ .path = absolute(argv[i]), .durability = -1, .discard = -1 };
		}
	}
	if (!params.devs_nr)
		return usage("Name at least one device or file.");
	r = ter_fs_format(&engine->env, &params, NULL, print_warning, NULL, uuid, &error);
	for (unsigned i = 0; i < params.devs_nr; i++)
		free((char *)devs[i].path);
	if (r < 0)
		return fail(&error);
	ter_uuid_format(uuid, text);
	printf("%s\n", text);
	return 0;
}

/* --- serve --- */

struct serve {
	struct td_engine *engine;
	struct ter_open_params open;
	struct td_session_config session;
	struct td_mount_options mount;
	char *dir;               /* ours, as are the paths */
	const char *paths[DEVS_MAX];
	int ended_fd;
};

static void serve_release(struct serve *serve)
{
	free(serve->dir);
	for (unsigned i = 0; i < serve->open.paths_nr; i++)
		free((char *)serve->paths[i]);
}

static void on_end(void *arg, struct td_session *session)
{
	struct serve *serve = arg;
	const uint64_t one = 1;

	(void)session;
	if (write(serve->ended_fd, &one, sizeof(one)) < 0)
		td_log(LOG_ERR, NULL, "The end of the mount cannot be told to the main thread.");
}

static void on_event(void *arg, struct ter_fs *fs, const struct ter_fs_event *event)
{
	(void)arg;
	(void)fs;
	td_log(event->kind == TER_EVENT_STATE ? LOG_DEBUG : LOG_WARNING, NULL, "%s", event->text);
}

/* @with_dir: the first name is a directory. */
static int parse_serve(struct serve *serve, bool with_dir, int argc, char **argv, struct ter_error *error)
{
	serve->open.degraded = -1;
	serve->open.paths = serve->paths;
	for (int i = 1; i < argc; i++) {
		struct ter_options options;

		ter_options_default(&options);
		/* --dry: what a crash left in the journal is replayed in memory, and nothing is written; a read-only start is just that. */
		if (strcmp(argv[i], "--check") == 0) {
			serve->open.check = true;
		} else if (strcmp(argv[i], "--read-only") == 0 || strcmp(argv[i], "--dry") == 0) {
			serve->open.read_only = serve->mount.read_only = true;
		} else if (strcmp(argv[i], "--noatime") == 0) {
			serve->mount.noatime = serve->session.noatime = true;
		} else if (strcmp(argv[i], "--writeback-cache") == 0) {
			serve->session.writeback_cache = true;
		} else if (strncmp(argv[i], "--degraded=", 11) == 0) {
			if (ter_option_set_text(&options, "degraded", argv[i] + 11, TER_OPT_OPEN, NULL, error) < 0)
				return -EINVAL;
			serve->open.degraded = options.degraded;
		} else if (strncmp(argv[i], "--memory-limit=", 15) == 0) {
			if (ter_option_set_text(&options, "memory_limit", argv[i] + 15, TER_OPT_OPEN, NULL, error) < 0)
				return -EINVAL;
			serve->open.memory_limit = options.memory_limit;
		} else if (strncmp(argv[i], "--fsck-memory=", 14) == 0) {
			if (ter_option_set_text(&options, "fsck_memory", argv[i] + 14, TER_OPT_OPEN, NULL, error) < 0)
				return -EINVAL;
			serve->open.fsck_memory = options.fsck_memory;
		} else if (strcmp(argv[i], "--transport=auto") == 0) {
			serve->session.transport = TD_TRANSPORT_AUTO;
		} else if (strcmp(argv[i], "--transport=classic") == 0) {
			serve->session.transport = TD_TRANSPORT_CLASSIC;
		} else if (strcmp(argv[i], "--transport=ring") == 0) {
			serve->session.transport = TD_TRANSPORT_RING;
		} else if (strncmp(argv[i], "--", 2) == 0) {
			return ter_fail(error, TER_ERR_INVALID_OPTION, "There is no option '%s'.", argv[i]);
		} else if (with_dir && !serve->dir) {
			serve->dir = absolute(argv[i]);
		} else if (serve->open.paths_nr < DEVS_MAX) {
			serve->paths[serve->open.paths_nr++] = absolute(argv[i]);
		} else {
			return ter_fail(error, TER_ERR_LIMIT_EXCEEDED, "A filesystem has at most %u members.", DEVS_MAX);
		}
	}
	return 0;
}

/* Until the mount is gone, or somebody asks us to end: then it is unmounted first, so that nothing is cut off. */
static void wait_for_end(struct serve *serve, int signal_fd)
{
	struct pollfd fds[2] = { { .fd = serve->ended_fd, .events = POLLIN }, { .fd = signal_fd, .events = POLLIN } };

	while (!(fds[0].revents & POLLIN)) {
		if (poll(fds, 2, -1) < 0)
			continue; /* EINTR */
		if (fds[1].revents & POLLIN) {
			struct signalfd_siginfo info;
			struct ter_error error = { 0 };

			if (read(signal_fd, &info, sizeof(info)) < 0)
				continue;
			if (td_unmount(serve->dir, false, &error) < 0 && td_unmount(serve->dir, true, NULL) < 0) {
				td_log(LOG_ERR, NULL, "%s", error.text);
				return;
			}
		}
	}
}

static int serve_pool(struct serve *serve, struct ter_fs *fs, int signal_fd, struct ter_error *error)
{
	struct ter_fs_status status;
	struct td_session *session;
	char source[64], uuid[TER_UUID_TEXT_BYTES];
	int fd, r;

	ter_fs_get_status(fs, &status);
	ter_uuid_format(status.user_uuid, uuid);
	snprintf(source, sizeof(source), "terrace:%s", status.label[0] ? status.label : uuid);
	serve->mount.source = source;
	r = td_mount(serve->dir, &serve->mount, &fd, error);
	if (r < 0)
		return r;
	serve->session.fs = fs;
	serve->session.io = serve->engine->io;
	serve->session.fuse_fd = fd;
	serve->session.on_end = on_end;
	serve->session.arg = serve;
	r = td_session_start(&serve->session, &session, error);
	if (r < 0) {
		(void)td_unmount(serve->dir, true, NULL); /* the first error is the one to tell */
		close(fd);
		return r;
	}
	td_raise_read_ahead(serve->dir, READ_AHEAD_KIB);
	wait_for_end(serve, signal_fd);
	td_session_stop(session);
	return 0;
}

static int once_serve(struct td_engine *engine, int argc, char **argv)
{
	_cleanup_(serve_release) struct serve serve = { .engine = engine };
	struct ter_error error = { 0 };
	struct ter_fs *fs;
	sigset_t signals;
	int signal_fd, r;

	if (parse_serve(&serve, true, argc, argv, &error) < 0)
		return fail(&error);
	if (!serve.dir || !serve.open.paths_nr)
		return usage("Name a directory and the filesystem's members.");
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	serve.ended_fd = eventfd(0, EFD_CLOEXEC);
	if (signal_fd < 0 || serve.ended_fd < 0)
		return 1;
	r = ter_fs_open(&engine->env, &serve.open, on_event, &serve, &fs, &error);
	if (r < 0)
		return fail(&error);
	r = ter_fs_start(fs, NULL, &error);
	if (r >= 0)
		td_log_started(fs);
	if (r >= 0)
		r = serve_pool(&serve, fs, signal_fd, &error);
	if (r >= 0)
		r = ter_fs_stop(fs, &error);
	ter_fs_close(fs);
	close(signal_fd);
	close(serve.ended_fd);
	return r < 0 ? fail(&error) : 0;
}

/* --- fsck --- */

static void print_finding(void *arg, const char *pass, const char *sentence)
{
	(void)arg;
	printf("%s: %s\n", pass, sentence);
}

struct asking {
	bool ask, all, end; /* all: no more questions; end: of what is typed, so nothing is done any more */
};

static int want_repair(void *arg, const char *pass, const char *sentence)
{
	struct asking *a = arg;
	char line[64];

	printf("%s: %s\n", pass, sentence);
	if (!a->ask || a->all)
		return 1;
	while (!a->end) {
		printf("Do it? (y)es, (n)o, (a)ll, (q)uit: ");
		fflush(stdout);
		if (!fgets(line, sizeof(line), stdin)) {
			a->end = true;
			printf("\n");
			break;
		}
		if (line[0] == 'q')
			return -ECANCELED;
		a->all = line[0] == 'a';
		if (line[0] == 'y' || line[0] == 'a')
			return 1;
		if (line[0] == 'n')
			return 0;
	}
	return 0;
}

static void print_degraded(uint64_t bytes)
{
	if (bytes)
		printf("Degraded: %.1f MiB of data have fewer copies than option data_replicas asks.\n", (double)bytes / TER_MIB(1));
}

/* Changes nothing: the journal is replayed in memory only. */
static int once_check(struct serve *serve)
{
	uint64_t degraded = 0;
	const struct ter_fsck_report report = { .found = print_finding, .ret_degraded_bytes = &degraded };
	struct ter_error error = { 0 };
	struct ter_fs *fs;
	int64_t found;

	serve->open.read_only = true;
	if (ter_fs_open(&serve->engine->env, &serve->open, on_event, serve, &fs, &error) < 0)
		return fail(&error);
	found = ter_fs_start(fs, NULL, &error);
	if (found >= 0)
		found = ter_fs_fsck(fs, &report, NULL, &error);
	ter_fs_close(fs);
	if (found < 0)
		return fail(&error);
	print_degraded(degraded);
	if (found)
		printf("%lld contradictions were found.\n", (long long)found);
	else
		printf("Nothing wrong was found.\n");
	return found ? 1 : 0;
}

/* Exit codes: 0 nothing wrong, or all repaired; 1 something is left, or it could not be done. */
static int once_repair(struct serve *serve, bool ask)
{
	struct asking asking = { .ask = ask };
	const struct ter_fs_repair_params params = { .want = want_repair, .left = print_finding, .arg = &asking };
	struct ter_fs_repaired repaired = { 0 };
	struct ter_error error = { 0 };
	struct ter_fs *fs;
	int r;

	if (ter_fs_open(&serve->engine->env, &serve->open, on_event, serve, &fs, &error) < 0)
		return fail(&error);
	r = ter_fs_repair(fs, &params, NULL, &repaired, &error);
	if (r >= 0)
		r = ter_fs_stop(fs, &error);
	else
		(void)ter_fs_stop(fs, NULL); /* the first error is the one to tell */
	ter_fs_close(fs);
	if (r < 0)
		return fail(&error);
	if (repaired.copies_made)
		printf("%llu extents got the copies that they were missing.\n", (unsigned long long)repaired.copies_made);
	print_degraded(repaired.degraded_bytes);
	if (!repaired.found)
		printf("Nothing wrong was found.\n");
	else if (!repaired.left)
		printf("%llu contradictions were found; %llu repairs were made, and nothing is wrong any more.\n", (unsigned long long)repaired.found,
		       (unsigned long long)repaired.done);
	else
		printf("%llu contradictions were found; %llu repairs were made, and %llu contradictions are left.\n", (unsigned long long)repaired.found,
		       (unsigned long long)repaired.done, (unsigned long long)repaired.left);
	return repaired.left ? 1 : 0;
}

static int once_fsck(struct td_engine *engine, int argc, char **argv)
{
	_cleanup_(serve_release) struct serve serve = { .engine = engine };
	bool repair = false, ask = false;
	struct ter_error error = { 0 };
	int kept = 1;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-n") == 0)
			repair = ask = false;
		else if (strcmp(argv[i], "-y") == 0 || strcmp(argv[i], "--repair") == 0)
			repair = true;
		else if (strcmp(argv[i], "--ask") == 0)
			ask = true;
		else
			argv[kept++] = argv[i];
	}
	if (repair && ask)
		return usage("-y repairs without asking, --ask asks: give one of them.");
	if (parse_serve(&serve, false, kept, argv, &error) < 0)
		return fail(&error);
	if (!serve.open.paths_nr)
		return usage("Name the filesystem's members.");
	if ((repair || ask) && serve.open.read_only)
		return usage("A repair writes: it cannot be read-only.");
	return repair || ask ? once_repair(&serve, ask) : once_check(&serve);
}

int td_once(struct td_engine *engine, int argc, char **argv)
{
	if (argc >= 1 && strcmp(argv[0], "format") == 0)
		return once_format(engine, argc, argv);
	if (argc >= 1 && strcmp(argv[0], "serve") == 0)
		return once_serve(engine, argc, argv);
	if (argc >= 1 && strcmp(argv[0], "fsck") == 0)
		return once_fsck(engine, argc, argv);
	return usage(NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon proper: one GLib main loop with the bus, the queue from other threads, signals and systemd's notifications
 *
 *     connect -> first search for members -> take the name, READY -> serve -> SIGTERM: stop every pool -> end
 *
 * The name is taken when the first search is over, so that who sees the name can resolve what was there before; but not later than NAME_WAIT_MS.
 */
#include "service.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "bus_host.h"
#include "bus_source.h"
#include "log.h"

#define NAME_WAIT_MS 10000
#define EXTEND_S 30 /* while stopping: systemd is asked for so much more, again and again */
#define EXTEND_EVERY_MS 10000

struct service {
	const struct td_service_params *params;
	GMainLoop *loop;
	sd_bus *sd;
	GSource *bus_source;
	struct ter_bus *bus;
	struct td_main_queue queue;
	struct td_jobs jobs;
	struct td_sampler *sampler;
	struct td_members_file *members;
	struct td_pools pools;
	int signal_fd, exit_code;
	guint signal_source, name_timer, watchdog_timer, extend_timer;
	bool name_asked, jobs_up, pools_up;
};

/* --- ending --- */

static gboolean on_extend(gpointer data)
{
	(void)data;
	sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu", EXTEND_S * 1000000ull);
	return G_SOURCE_CONTINUE;
}

/* Called again after each job: stops what can be stopped, and ends when nothing is left. */
static void go_on_ending(struct service *s)
{
	struct td_pool *pool, *tmp;
	bool left = false;

	ter_list_for_each_safe(pool, tmp, &s->pools.list, link) {
		struct ter_error error = { 0 };

		left |= pool->fs || pool->life || pool->mount || pool->attaching;
		if (!pool->fs || pool->life || pool->attaching)
			continue;
		if (td_pool_stop_job(pool, 0, true, NULL, &error) < 0) {
			td_log(LOG_ERR, &(struct td_log_about){ .fs_uuid = pool->text }, "%s", error.text);
			s->exit_code = 1;
		}
	}
	if (!left && !s->jobs.running_nr)
		g_main_loop_quit(s->loop);
}

static void begin_ending(struct service *s)
{
	if (s->pools.quitting)
		return;
	s->pools.quitting = true;
	sd_notify(0, "STOPPING=1\nSTATUS=Stopping filesystems");
	td_log(LOG_INFO, NULL, "Ending: filesystems are being stopped.");
	on_extend(s);
	s->extend_timer = g_timeout_add(EXTEND_EVERY_MS, on_extend, s);
	td_jobs_cancel_all(&s->jobs);
	go_on_ending(s);
}

/* --- what systemd is told --- */

static void notify_status(struct service *s)
{
	unsigned running = 0, degraded = 0;
	const struct td_pool *pool;

	ter_list_for_each(pool, &s->pools.list, link) {
		running += pool->state == TD_POOL_RUNNING;
		degraded += pool->sample && pool->sample->status.degraded;
	}
	sd_notifyf(0, "STATUS=%u of %u filesystems running, %u degraded", running, s->pools.nr, degraded);
}

static gboolean on_watchdog(gpointer data)
{
	(void)data;
	sd_notify(0, "WATCHDOG=1");
	return G_SOURCE_CONTINUE;
}

static void start_watchdog(struct service *s)
{
	uint64_t us = 0;

	if (sd_watchdog_enabled(0, &us) > 0 && us)
		s->watchdog_timer = g_timeout_add((guint)ter_max(us / 2000, 1ull), on_watchdog, s);
}

/* --- the bus --- */

static void on_bus_end(void *arg, int r)
{
	struct service *s = arg;

	if (!s->pools.quitting) {
		td_log(LOG_ERR, NULL, "The connection to the bus is gone: %s.", strerror(-r));
		s->exit_code = 1;
	}
	begin_ending(s);
}

static int on_name(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const sd_bus_error *failure = sd_bus_message_get_error(m);
	struct service *s = userdata;
	uint32_t code = 0;

	(void)ret_error;
	if (!failure && sd_bus_message_read(m, "u", &code) >= 0 && (code == 1 || code == 4)) { /* owner now, or already */
		sd_notify(0, "READY=1");
		notify_status(s);
		td_log(LOG_INFO, NULL, "Serving %s.", TER_BUS_NAME);
		return 0;
	}
	td_log(LOG_ERR, NULL, "The name %s cannot be taken: %s.", TER_BUS_NAME,
	       failure ? (failure->message ? failure->message : failure->name) : "another terraced has it");
	s->exit_code = 1;
	begin_ending(s);
	return 0;
}

static void ask_name(struct service *s)
{
	int r;

	if (s->name_asked || s->pools.quitting)
		return;
	s->name_asked = true;
	r = sd_bus_request_name_async(s->sd, NULL, TER_BUS_NAME, 0, on_name, s);
	if (r < 0) {
		td_log(LOG_ERR, NULL, "The name %s cannot be asked for: %s.", TER_BUS_NAME, strerror(-r));
		s->exit_code = 1;
		begin_ending(s);
	}
}

static gboolean on_name_late(gpointer data)
{
	struct service *s = data;

	s->name_timer = 0;
	ask_name(s);
	return G_SOURCE_REMOVE;
}

static void on_job_end(void *arg)
{
	struct service *s = arg;

	if (s->pools.scanned)
		ask_name(s);
	if (s->pools.quitting)
		go_on_ending(s);
	else
		notify_status(s);
}

static const char *default_address(bool system)
{
	const char *address = getenv(system ? "DBUS_SYSTEM_BUS_ADDRESS" : "DBUS_SESSION_BUS_ADDRESS");

	return address ? address : system ? "unix:path=/run/dbus/system_bus_socket" : NULL;
}

static int connect_bus(struct service *s)
{
	const char *address = s->params->bus_address ? s->params->bus_address : default_address(s->params->system);
	int r;

	if (!address)
		return sd_bus_open_user(&s->sd);
	r = sd_bus_new(&s->sd);
	if (r >= 0)
		r = sd_bus_set_address(s->sd, address);
	if (r >= 0)
		r = sd_bus_set_bus_client(s->sd, true);
	/* Early at boot the bus is not there yet. */
	if (r >= 0 && s->params->system && !s->params->bus_address)
		r = sd_bus_set_watch_bind(s->sd, true);
	return r < 0 ? r : sd_bus_start(s->sd);
}

/* --- signals --- */

static void reload(struct service *s)
{
	struct ter_error error = { 0 };
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
	if (td_pools_rescan(&s->pools, 0, NULL, 0, true, NULL, &error) < 0)
		td_log(LOG_WARNING, NULL, "%s", error.text);
	sd_notify(0, "READY=1");
}

static gboolean on_signal(gint fd, GIOCondition condition, gpointer data)
{
	struct signalfd_siginfo info;
	struct service *s = data;

	(void)condition;
	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return G_SOURCE_CONTINUE;
	if (info.ssi_signo == SIGHUP)
		reload(s);
	else
		begin_ending(s);
	return G_SOURCE_CONTINUE;
}

/* main() has blocked them in every thread. */
static int watch_signals(struct service *s)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return -errno;
	s->signal_source = g_unix_fd_add(s->signal_fd, G_IO_IN, on_signal, s);
	return 0;
}

/* --- life --- */

static void choose_state_dir(const struct td_service_params *params, char dir[PATH_MAX])
{
	const char *systemd = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (params->state_dir)
		snprintf(dir, PATH_MAX, "%s", params->state_dir);
	else if (params->system)
		snprintf(dir, PATH_MAX, "%.*s", systemd ? (int)strcspn(systemd, ":") : 100, systemd ? systemd : "/var/lib/terrace");
	else if (xdg && xdg[0] == '/')
		snprintf(dir, PATH_MAX, "%s/terrace", xdg);
	else
		snprintf(dir, PATH_MAX, "%s/.local/state/terrace", home ? home : "/tmp");
}

static int open_bus(struct service *s, struct ter_error *error)
{
	struct ter_bus_host host;
	int r;

	r = connect_bus(s);
	if (r < 0)
		return ter_fail_errno(error, r, "The %s bus cannot be reached: %s.", s->params->system ? "system" : "session", strerror(-r));
	td_bus_host_fill(&s->pools, &host);
	r = ter_bus_new(s->sd, &host, &s->bus);
	if (r < 0)
		return ter_fail_errno(error, r, "The objects on the bus cannot be made: %s.", strerror(-r));
	s->bus_source = td_bus_source_new(s->sd, on_bus_end, s);
	return s->bus_source ? 0 : ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to start.");
}

static int set_up(struct service *s, struct ter_error *error)
{
	struct td_engine *engine = s->params->engine;
	char dir[PATH_MAX];
	int r;

	choose_state_dir(s->params, dir);
	r = td_members_file_open(dir, &s->members, error);
	if (r < 0)
		return r;
	r = td_main_queue_init(&s->queue);
	if (r >= 0)
		r = watch_signals(s);
	if (r >= 0)
		r = td_sampler_new(engine->exec, &s->queue, td_pools_deliver, &s->pools, &s->sampler);
	if (r < 0)
		return ter_fail_errno(error, r, "The daemon cannot be set up: %s.", strerror(-r));
	td_jobs_init(&s->jobs, engine->exec, &s->queue);
	s->jobs_up = true;
	s->jobs.on_end = on_job_end;
	s->jobs.on_end_arg = s;
	s->pools = (struct td_pools){
		.engine = engine, .queue = &s->queue, .jobs = &s->jobs, .sampler = s->sampler, .members = s->members, .system = s->params->system,
		.debug_interface = s->params->debug_interface, .by_systemd = s->params->system && sd_booted() > 0,
	};
	td_pools_init(&s->pools);
	s->pools_up = true;
	r = open_bus(s, error);
	if (r < 0)
		return r;
	s->pools.bus = s->jobs.bus = s->bus;
	td_pools_publish_plugins(&s->pools);
	s->name_timer = g_timeout_add(NAME_WAIT_MS, on_name_late, s);
	start_watchdog(s);
	return td_pools_rescan(&s->pools, 0, NULL, 0, true, NULL, error);
}

static void remove_source(guint *source)
{
	if (*source)
		g_source_remove(*source);
	*source = 0;
}

static void tear_down(struct service *s)
{
	td_sampler_free(s->sampler);
	td_main_queue_destroy(&s->queue);
	ter_bus_free(s->bus);
	if (s->jobs_up)
		td_jobs_destroy(&s->jobs);
	if (s->pools_up)
		td_pools_destroy(&s->pools);
	td_members_file_close(s->members);
	if (s->bus_source) {
		g_source_destroy(s->bus_source);
		g_source_unref(s->bus_source);
	}
	sd_bus_flush_close_unref(s->sd);
	remove_source(&s->signal_source);
	remove_source(&s->name_timer);
	remove_source(&s->watchdog_timer);
	remove_source(&s->extend_timer);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
}

int td_service_run(const struct td_service_params *params)
{
	struct service s = { .params = params, .signal_fd = -1 };
	struct ter_error error = { 0 };

	s.loop = g_main_loop_new(NULL, FALSE);
	if (set_up(&s, &error) < 0) {
		td_log(LOG_ERR, NULL, "%s", error.text);
		s.exit_code = 1;
	} else {
		g_main_loop_run(s.loop);
	}
	tear_down(&s);
	g_main_loop_unref(s.loop);
	return s.exit_code;
}

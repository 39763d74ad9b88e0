/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A GSource that drives an sd-bus connection. */
#include "bus_source.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#define MESSAGES_AT_ONCE_MAX 64 /* then other sources get their turn */

struct source {
	GSource base;
	sd_bus *bus;
	gpointer tag;
	int fd; /* what tag watches: changes when the connection goes from waiting for its socket to being there */
	void (*on_end)(void *arg, int r);
	void *arg;
	bool ended;
};

static void end(struct source *s, int r)
{
	if (s->ended)
		return;
	s->ended = true;
	if (s->tag)
		g_source_remove_unix_fd(&s->base, s->tag);
	s->tag = NULL;
	g_source_set_ready_time(&s->base, -1);
	s->on_end(s->arg, r);
}

static gboolean prepare(GSource *base, gint *timeout)
{
	struct source *s = (struct source *)base;
	uint64_t until = UINT64_MAX;
	int fd, events, r;

	*timeout = -1;
	if (s->ended)
		return FALSE;
	fd = sd_bus_get_fd(s->bus);
	events = fd < 0 ? fd : sd_bus_get_events(s->bus);
	r = events < 0 ? events : sd_bus_get_timeout(s->bus, &until);
	if (r < 0)
		return TRUE; /* dispatch finds out */
	if (fd != s->fd || !s->tag) {
		if (s->tag)
			g_source_remove_unix_fd(base, s->tag);
		s->tag = g_source_add_unix_fd(base, fd, (GIOCondition)events);
		s->fd = fd;
	} else {
		g_source_modify_unix_fd(base, s->tag, (GIOCondition)events);
	}
	/* Both clocks are CLOCK_MONOTONIC in microseconds. */
	g_source_set_ready_time(base, until == UINT64_MAX ? -1 : (gint64)until);
	return until == 0;
}

static gboolean check(GSource *base)
{
	struct source *s = (struct source *)base;

	/* The ready time is looked at by GLib itself. */
	return !s->ended && (!s->tag || g_source_query_unix_fd(base, s->tag));
}

static gboolean dispatch(GSource *base, GSourceFunc callback, gpointer data)
{
	struct source *s = (struct source *)base;
	int r = 1;

	if (s->ended)
		return G_SOURCE_CONTINUE;
	for (unsigned i = 0; i < MESSAGES_AT_ONCE_MAX && r > 0; i++)
		r = sd_bus_process(s->bus, NULL);
	if (r == -ENOTCONN || r == -ECONNRESET || (r < 0 && sd_bus_is_open(s->bus) <= 0))
		end(s, r);
	return G_SOURCE_CONTINUE;
}

static void finalize(GSource *base)
{
	struct source *s = (struct source *)base;

	sd_bus_unref(s->bus);
}

GSource *td_bus_source_new(sd_bus *bus, void (*on_end)(void *arg, int r), void *arg)
{
	static GSourceFuncs funcs = { .prepare = prepare, .check = check, .dispatch = dispatch, .finalize = finalize };
	GSource *base = g_source_new(&funcs, sizeof(struct source));
	struct source *s = (struct source *)base;

	s->bus = sd_bus_ref(bus);
	s->fd = -1;
	s->on_end = on_end;
	s->arg = arg;
	g_source_attach(base, NULL);
	return base;
}

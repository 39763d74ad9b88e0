/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sd-bus on the GLib main loop. */
#ifndef TD_BUS_SOURCE_H
#define TD_BUS_SOURCE_H

#include <glib.h>
#include <systemd/sd-bus.h>

/* @on_end: the connection is gone (negative errno); called once. The source is attached; destroy and unref it. NULL: no memory. */
GSource *td_bus_source_new(sd_bus *bus, void (*on_end)(void *arg, int r), void *arg);

#endif

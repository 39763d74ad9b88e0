/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon proper: pools, jobs and the bus on one GLib main loop. */
#ifndef TD_SERVICE_H
#define TD_SERVICE_H

#include "engine.h"

struct td_service_params {
	struct td_engine *engine;
	bool system;             /* the system bus and polkit; else the session bus */
	bool debug_interface;    /* faults may be asked for over the bus */
	const char *bus_address; /* NULL: the usual one */
	const char *state_dir;   /* NULL: $STATE_DIRECTORY, /var/lib/terrace or $XDG_STATE_HOME/terrace */
};
/* Runs until SIGTERM or SIGINT: pools are stopped cleanly. Returns an exit code. */
int td_service_run(const struct td_service_params *params);

#endif

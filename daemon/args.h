/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Command line of terraced, the same for both of its programs: the one that works without a bus and the one that serves it. */
#ifndef TD_ARGS_H
#define TD_ARGS_H

#include "engine.h"
#include "service.h"

struct td_args {
	struct td_engine_params engine;
	struct td_service_params service; /* all but the engine */
	bool once;                        /* argv[first] and what follows is the command */
	int first;
};
/* >0: go on. Otherwise all was said, and -r is the exit code. */
int td_args_parse(int argc, char **argv, struct td_args *ret);
/* What both do before anything else: signals are read from descriptors, the process is part of the I/O path. */
void td_process_init(void);

#endif

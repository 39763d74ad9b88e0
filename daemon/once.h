/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One pool in the foreground, without any bus: for rescue shells, benchmarks and tests. */
#ifndef TD_ONCE_H
#define TD_ONCE_H

#include "engine.h"

/* argv[0] is "format" or "serve". Returns an exit code. */
int td_once(struct td_engine *engine, int argc, char **argv);

#endif

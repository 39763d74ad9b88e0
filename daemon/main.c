/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * terraced: one filesystem without a bus, or the program that serves the bus
 *
 * What serves the bus stands in a program of its own, terraced-bus beside this one: so `--once` runs where there is neither GLib nor libsystemd (a rescue shell),
 * and a mount does not wait for a dozen libraries that it does not need.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "log.h"
#include "once.h"

#define PATH_BYTES 4096
#define BUS_PROGRAM "terraced-bus"

/* Does not return when it succeeds. */
static int exec_bus(char **argv)
{
	char path[PATH_BYTES + sizeof(BUS_PROGRAM)];
	ssize_t n = readlink("/proc/self/exe", path, PATH_BYTES - 1);
	char *slash;

	path[n < 0 ? 0 : n] = 0;
	slash = strrchr(path, '/');
	if (slash) {
		strcpy(slash + 1, BUS_PROGRAM);
		execv(path, argv);
	}
	td_log(LOG_ERR, NULL, "%s, which belongs beside terraced, cannot be started: %m.", slash ? path : BUS_PROGRAM);
	return 1;
}

int main(int argc, char **argv)
{
	struct ter_error error = { 0 };
	struct td_engine engine;
	struct td_args args;
	int r;

	td_log_init(LOG_INFO);
	r = td_args_parse(argc, argv, &args);
	if (r <= 0)
		return -r;
	if (!args.once)
		return exec_bus(argv);

	td_process_init();
	r = td_engine_init(&engine, &args.engine, &error);
	if (r < 0) {
		td_log(LOG_ERR, NULL, "%s", error.text);
		return 1;
	}
	r = td_once(&engine, argc - args.first, argv + args.first);
	td_engine_destroy(&engine);
	return r;
}

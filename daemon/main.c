/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terraced: arguments, signals, and which of its three ways to run. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "log.h"
#include "once.h"
#include "service.h"

static void print_help(void)
{
	printf("Usage: terraced --system|--session [OPTION…]     serve the bus\n"
	       "       terraced --once format|serve …            one filesystem, without a bus\n"
	       "\n"
	       "  --system                 the system bus, polkit decides who may do what\n"
	       "  --session                the session bus: filesystems in files, for their owner\n"
	       "  --bus-address=ADDRESS    another bus\n"
	       "  --state-dir=DIR          where the list of known members is kept\n"
	       "  --io-backend=NAME        uring or threads (default: the best this machine permits)\n"
	       "  --allow-plugin-path      let root's daemon load plugins from TERRACE_PLUGIN_PATH\n"
	       "  --debug                  log more\n"
	       "  --version, --help\n");
}

int main(int argc, char **argv)
{
	enum { OPT_SYSTEM = 256, OPT_SESSION, OPT_ONCE, OPT_BUS, OPT_STATE, OPT_IO, OPT_PLUGIN_PATH, OPT_DEBUG, OPT_VERSION, OPT_HELP };
	static const struct option options[] = {
		{ "system", no_argument, NULL, OPT_SYSTEM },
		{ "session", no_argument, NULL, OPT_SESSION },
		{ "once", no_argument, NULL, OPT_ONCE },
		{ "bus-address", required_argument, NULL, OPT_BUS },
		{ "state-dir", required_argument, NULL, OPT_STATE },
		{ "io-backend", required_argument, NULL, OPT_IO },
		{ "allow-plugin-path", no_argument, NULL, OPT_PLUGIN_PATH },
		{ "debug", no_argument, NULL, OPT_DEBUG },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ "help", no_argument, NULL, OPT_HELP },
		{ 0 },
	};
	struct td_service_params service = { 0 };
	struct td_engine_params params = { 0 };
	struct ter_error error = { 0 };
	struct td_engine engine;
	bool once = false, bus = false;
	sigset_t signals;
	int c, r;

	td_log_init(LOG_INFO);
	while (!once && (c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case OPT_SYSTEM:
			service.system = bus = true;
			break;
		case OPT_SESSION:
			service.system = false;
			bus = true;
			break;
		case OPT_ONCE:
			once = true;
			break;
		case OPT_BUS:
			service.bus_address = optarg;
			break;
		case OPT_STATE:
			service.state_dir = optarg;
			break;
		case OPT_IO:
			params.io_backend = optarg;
			break;
		case OPT_PLUGIN_PATH:
			params.allow_plugin_path = true;
			break;
		case OPT_DEBUG:
			td_log_set_priority(LOG_DEBUG);
			break;
		case OPT_VERSION:
			printf("terraced %s\n", TERRACE_VERSION);
			return 0;
		case OPT_HELP:
			print_help();
			return 0;
		default:
			return 2;
		}
	}
	if (!once && !bus) {
		print_help();
		return 2;
	}

	/* Before any thread is there, so that all inherit it: signals are read from descriptors. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	td_mark_io_flusher();
	r = td_engine_init(&engine, &params, &error);
	if (r < 0) {
		td_log(LOG_ERR, NULL, "%s", error.text);
		return 1;
	}
	if (once) {
		r = td_once(&engine, argc - optind, argv + optind);
	} else {
		service.engine = &engine;
		r = td_service_run(&service);
	}
	td_engine_destroy(&engine);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line, and what a process of the daemon is before it has a thread. */
#include "args.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "log.h"

static void print_help(void)
{
	printf("Usage: terraced --system|--session [OPTION…]     serve the bus\n"
	       "       terraced --once format|serve|fsck …       one filesystem, without a bus\n"
	       "\n"
	       "  --system                 the system bus, polkit decides who may do what\n"
	       "  --session                the session bus: filesystems in files, for their owner\n"
	       "  --bus-address=ADDRESS    another bus\n"
	       "  --state-dir=DIR          where the list of known members is kept\n"
	       "  --io-backend=NAME        uring or threads (default: the best this machine permits)\n"
	       "  --allow-plugin-path      let root's daemon load plugins from TERRACE_PLUGIN_PATH\n"
	       "  --debug                  log more\n"
	       "  --debug-interface        for tests: let faults be asked for over the bus, org.terracefs.Terrace1.Debug\n"
	       "  --version, --help\n");
}

int td_args_parse(int argc, char **argv, struct td_args *ret)
{
	enum { OPT_SYSTEM = 256, OPT_SESSION, OPT_ONCE, OPT_BUS, OPT_STATE, OPT_IO, OPT_PLUGIN_PATH, OPT_DEBUG, OPT_DEBUG_INTERFACE, OPT_VERSION, OPT_HELP };
	static const struct option options[] = {
		{ "system", no_argument, NULL, OPT_SYSTEM },
		{ "session", no_argument, NULL, OPT_SESSION },
		{ "once", no_argument, NULL, OPT_ONCE },
		{ "bus-address", required_argument, NULL, OPT_BUS },
		{ "state-dir", required_argument, NULL, OPT_STATE },
		{ "io-backend", required_argument, NULL, OPT_IO },
		{ "allow-plugin-path", no_argument, NULL, OPT_PLUGIN_PATH },
		{ "debug", no_argument, NULL, OPT_DEBUG },
		{ "debug-interface", no_argument, NULL, OPT_DEBUG_INTERFACE },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ "help", no_argument, NULL, OPT_HELP },
		{ 0 },
	};
	bool bus = false;
	int c;

	*ret = (struct td_args){ 0 };
	while (!ret->once && (c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case OPT_SYSTEM:
			ret->service.system = bus = true;
			break;
		case OPT_SESSION:
			ret->service.system = false;
			bus = true;
			break;
		case OPT_ONCE:
			ret->once = true;
			break;
		case OPT_BUS:
			ret->service.bus_address = optarg;
			break;
		case OPT_STATE:
			ret->service.state_dir = optarg;
			break;
		case OPT_IO:
			ret->engine.io_backend = optarg;
			break;
		case OPT_PLUGIN_PATH:
			ret->engine.allow_plugin_path = true;
			break;
		case OPT_DEBUG:
			td_log_set_priority(LOG_DEBUG);
			break;
		case OPT_DEBUG_INTERFACE:
#ifdef TERRACE_DEBUG_INTERFACE
			ret->service.debug_interface = true;
			break;
#else
			td_log(LOG_ERR, NULL, "This build has no debug interface (meson's option debug_interface).");
			return -2;
#endif
		case OPT_VERSION:
			printf("terraced %s\n", TERRACE_VERSION);
			return 0;
		case OPT_HELP:
			print_help();
			return 0;
		default:
			return -2;
		}
	}
	if (!ret->once && !bus) {
		print_help();
		return -2;
	}
	ret->first = optind;
	return 1;
}

void td_process_init(void)
{
	sigset_t signals;

	/* Before any thread is there, so that all inherit it. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	td_mark_io_flusher();
}

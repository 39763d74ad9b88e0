/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terraced-bus: the daemon on the bus. terraced starts it, in its own place, with its own arguments. */
#include "args.h"
#include "log.h"
#include "log_journal.h"

int main(int argc, char **argv)
{
	struct ter_error error = { 0 };
	struct td_engine engine;
	struct td_args args;
	int r;

	td_log_init(LOG_INFO);
	td_log_journal_init();
	r = td_args_parse(argc, argv, &args);
	if (r <= 0)
		return -r;
	if (args.once) {
		td_log(LOG_ERR, NULL, "This program serves the bus; --once belongs to terraced.");
		return 2;
	}
	td_process_init();
	r = td_engine_init(&engine, &args.engine, &error);
	if (r >= 0) {
		r = td_engine_plugins(&engine, &error); /* before the sandbox, and before anybody asks what there is */
		if (r < 0)
			td_engine_destroy(&engine);
	}
	if (r < 0) {
		td_log(LOG_ERR, NULL, "%s", error.text);
		return 1;
	}
	args.service.engine = &engine;
	r = td_service_run(&args.service);
	td_engine_destroy(&engine);
	return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terracectl: arguments and the table of commands. */
#include "ctl.h"

#include <getopt.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command {
	const char *name, *args;
	int min, max; /* arguments; -1: any number */
	int (*fn)(struct ctl *ctl, int argc, char **argv);
	const char *help;
} commands[] = {
	{ "format", "DEVICE…", 1, -1, ctl_cmd_format, N_("Make a filesystem of devices or files") },
	{ "mount", "POOL DIR", 2, 2, ctl_cmd_mount, N_("Start a filesystem if need be and mount it") },
	{ "unmount", "DIR", 1, 1, ctl_cmd_unmount, N_("Unmount a filesystem") },
	{ "start", "POOL", 1, 1, ctl_cmd_start, N_("Start a filesystem without mounting it") },
	{ "stop", "POOL", 1, 1, ctl_cmd_stop, N_("Stop a filesystem cleanly") },
	{ "status", "[POOL]", 0, 1, ctl_cmd_status, N_("Show filesystems, their members, state and usage") },
	{ "sync", "POOL", 1, 1, ctl_cmd_sync, N_("Commit everything written so far") },
	{ "fsck", "POOL", 1, 1, ctl_cmd_fsck, N_("Check every relation a filesystem keeps, or repair it") },
	{ "damaged", "POOL [FILE…]", 1, -1, ctl_cmd_damaged, N_("List files that lost data, or say that these are good again") },
	{ "options", "POOL [NAME[=VALUE]]…", 1, -1, ctl_cmd_options, N_("Show or set options") },
};

static void print_help(void)
{
	printf(_("Usage: terracectl [OPTION…] COMMAND …\n\nPOOL is a label, a UUID or the path of a member.\n\nCommands:\n"));
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		printf("  %-8s %-22s %s\n", commands[i].name, commands[i].args, _(commands[i].help));
	printf(_("\nOptions:\n"
		 "  --system, --session    which bus (default: the one where terraced runs)\n"
		 "  --address=ADDRESS      another bus\n"
		 "  --json                 machine-readable output\n"
		 "  --quiet                no progress; with status: only the exit code\n"
		 "  --no-ask-password      do not ask for authorisation\n"
		 "  --label=NAME           format: the filesystem's label\n"
		 "  --replicas=N           format: copies of data and metadata\n"
		 "  --compression=C        format: none, lz4, zstd, zstd:LEVEL\n"
		 "  --checksum=C           format: crc32c, xxh3-64\n"
		 "  --options=N=V,N=V      format: any other option\n"
		 "  --force                format: overwrite what is there\n"
		 "  --degraded=WHEN        start, mount: ask, yes, very or no\n"
		 "  --read-only            start, mount: change nothing\n"
		 "  --check                start, mount: check everything before anything is written\n"
		 "  --dry                  start, mount: write nothing at all, not even what a crash left to be recovered\n"
		 "  --lazy                 unmount: even when in use\n"
		 "  -n                     fsck: change nothing (the default)\n"
		 "  -y, --repair           fsck: repair what is found; the filesystem must be stopped\n"
		 "\nExit codes: 0 success, 1 failed, 2 wrong usage, 3 not authorised, 4 degraded (status).\n"));
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int usage(const char *fmt, const char *what)
{
	fprintf(stderr, "terracectl: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, "\n");
	return CTL_USAGE;
}

int main(int argc, char **argv)
{
	enum { SYSTEM = 256, SESSION, ADDRESS, JSON, QUIET, NO_ASK, LABEL, REPLICAS, COMPRESSION, CHECKSUM, OPTIONS, FORCE, DEGRADED, READ_ONLY, CHECK, DRY, LAZY,
	       REPAIR, VERSION, HELP };
	static const struct option options[] = {
		{ "system", no_argument, NULL, SYSTEM },
		{ "session", no_argument, NULL, SESSION },
		{ "user", no_argument, NULL, SESSION },
		{ "address", required_argument, NULL, ADDRESS },
		{ "json", no_argument, NULL, JSON },
		{ "quiet", no_argument, NULL, QUIET },
		{ "no-ask-password", no_argument, NULL, NO_ASK },
		{ "label", required_argument, NULL, LABEL },
		{ "replicas", required_argument, NULL, REPLICAS },
		{ "compression", required_argument, NULL, COMPRESSION },
		{ "checksum", required_argument, NULL, CHECKSUM },
		{ "options", required_argument, NULL, OPTIONS },
		{ "force", no_argument, NULL, FORCE },
		{ "degraded", required_argument, NULL, DEGRADED },
		{ "read-only", no_argument, NULL, READ_ONLY },
		{ "check", no_argument, NULL, CHECK },
		{ "dry", no_argument, NULL, DRY },
		{ "lazy", no_argument, NULL, LAZY },
		{ "repair", no_argument, NULL, REPAIR },
		{ "version", no_argument, NULL, VERSION },
		{ "help", no_argument, NULL, HELP },
		{ 0 },
	};
	enum ctl_bus_choice bus = CTL_BUS_AUTO;
	const char *address = NULL;
	const struct command *command;
	struct ctl ctl = { 0 };
	unsigned long number;
	int c, code;
	char *end;

	setlocale(LC_ALL, "");
	bindtextdomain("terrace", TERRACE_LOCALE_DIR);
	textdomain("terrace");
	for (int i = 1; i < argc; i++)
		if (ctl_check_text(argv[i]) != CTL_OK)
			return CTL_FAILED;
	while ((c = getopt_long(argc, argv, "ny", options, NULL)) != -1) {
		switch (c) {
		case SYSTEM:
			bus = CTL_BUS_SYSTEM;
			break;
		case SESSION:
			bus = CTL_BUS_SESSION;
			break;
		case ADDRESS:
			address = optarg;
			break;
		case JSON:
			ctl.json = true;
			break;
		case QUIET:
			ctl.quiet = true;
			break;
		case NO_ASK:
			ctl.no_ask = true;
			break;
		case LABEL:
			ctl.label = optarg;
			break;
		case REPLICAS:
			number = strtoul(optarg, &end, 10);
			ctl.replicas = (unsigned)number;
			if (*end || !number || number > INT_MAX || optarg[0] == '-')
				return usage(_("--replicas=%s: give a number of copies."), optarg);
			break;
		case COMPRESSION:
			ctl.compression = optarg;
			break;
		case CHECKSUM:
			ctl.checksum = optarg;
			break;
		case OPTIONS:
			ctl.options = optarg;
			break;
		case FORCE:
			ctl.force = true;
			break;
		case DEGRADED:
			ctl.degraded = optarg;
			break;
		case READ_ONLY:
			ctl.read_only = true;
			break;
		case CHECK:
			ctl.check = true;
			break;
		case DRY:
			ctl.dry = true;
			break;
		case LAZY:
			ctl.lazy = true;
			break;
		case 'n':
			ctl.repair = false;
			break;
		case 'y':
		case REPAIR:
			ctl.repair = true;
			break;
		case VERSION:
			printf("terracectl %s\n", TERRACE_VERSION);
			return CTL_OK;
		case HELP:
			print_help();
			return CTL_OK;
		default:
			return CTL_USAGE;
		}
	}
	if (optind >= argc) {
		print_help();
		return CTL_USAGE;
	}
	command = find_command(argv[optind]);
	if (!command)
		return usage(_("There is no command '%s'; see terracectl --help."), argv[optind]);
	argc -= optind + 1;
	argv += optind + 1;
	if (argc < command->min || (command->max >= 0 && argc > command->max)) {
		fprintf(stderr, _("Usage: terracectl %s %s\n"), command->name, command->args);
		return CTL_USAGE;
	}
	code = ctl_connect(&ctl, bus, address);
	if (code == CTL_OK)
		code = command->fn(&ctl, argc, argv);
	sd_bus_flush_close_unref(ctl.bus);
	return code;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * terrace-plugin-check: what a plugin file offers, and whether it keeps the contract of terrace-plugin.h
 *
 * Exit status: 0 all well, 1 the plugin was refused or failed a check, 2 wrong usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check_algos.h"
#include "check_report.h"
#include "daemon/plugins/plugin_open.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

static void usage(FILE *out)
{
	fputs("Usage: terrace-plugin-check [--quick] [--seed NUMBER] FILE.so\n"
	      "\n"
	      "Loads a Terrace plugin, shows what it offers and tests it: known answers, round trips,\n"
	      "limits, damaged input, use by several threads, speed.\n"
	      "\n"
	      "  --quick        fewer rounds and shorter measurements\n"
	      "  --seed NUMBER  repeat a run with the same input\n"
	      "  --help         show this\n"
	      "\n"
	      "Exit status: 0 all well, 1 the plugin was refused or failed a check, 2 wrong usage.\n",
	      out);
}

static void plugin_log(int priority, const char *message)
{
	printf("  log (%d): %s\n", priority, message);
}

static const struct terrace_host host = { .size = sizeof(host), .log = plugin_log };

/* The daemon would refuse such a file. Here it was named on purpose, so it is only said. */
static void warn_about_owner(const char *path)
{
	char *reason = NULL;

	if (ter_plugin_check_owner(path, &reason) < 0)
		fprintf(stderr, "Warning: the daemon would not load it: %s\n", reason ? reason : "out of memory");
	free(reason);
}

static void show_algo(const struct terrace_algo *algo)
{
	static const char *const kinds[] = { "unknown", "compression", "checksum", "aead", "erasure coding" };

	printf("  %s '%s', format %u, uuid ", kinds[algo->kind <= TERRACE_ERASURE ? algo->kind : 0], algo->name, algo->format);
	for (int i = 0; i < 16; i++)
		printf("%02x%s", algo->uuid[i], i == 3 || i == 5 || i == 7 || i == 9 ? "-" : "");
	if (algo->kind == TERRACE_COMPRESSION) {
		const struct terrace_compression *compression = (const struct terrace_compression *)algo;

		printf(", levels %d to %d, default %d", compression->level_min, compression->level_max, compression->level_def);
	} else if (algo->kind == TERRACE_CHECKSUM) {
		const struct terrace_checksum *checksum = (const struct terrace_checksum *)algo;

		printf(", %u bytes%s", checksum->digest_len, checksum->key_len > 0 ? ", keyed" : "");
	}
	puts(algo->flags & TERRACE_F_DETERMINISTIC ? ", deterministic" : "");
}

static void check_algo(const struct terrace_algo *algo, const struct check_settings *settings)
{
	char *reason = NULL;
	int r;

	check_step_begin("self-test");
	r = ter_plugin_check_algo(algo, &reason);
	(void)check(r == 0, "%s", reason ? reason : "out of memory");
	free(reason);
	if (r != -EINVAL) /* else the description itself is not to be trusted */
		show_algo(algo);
	if (!check_step_end())
		return;

	switch (algo->kind) {
	case TERRACE_COMPRESSION:
		check_compression((const struct terrace_compression *)algo, settings);
		break;
	case TERRACE_CHECKSUM:
		check_checksum((const struct terrace_checksum *)algo, settings);
		break;
	default:
		printf("    this kind is not exercised beyond its self-test: the engine of ABI %u.%u does not call it\n", TERRACE_PLUGIN_ABI_MAJOR,
		       TERRACE_PLUGIN_ABI_MINOR);
	}
}

static int check_file(const char *path, const struct check_settings *settings)
{
	const struct terrace_plugin *plugin;
	char *reason = NULL;
	int r;

	warn_about_owner(path);
	check_step_begin("loading");
	r = ter_plugin_open(path, &host, &plugin, &reason);
	if (r < 0) {
		fprintf(stderr, "Refused: %s: %s.\n", path, reason ? reason : "out of memory");
		free(reason);
		return EXIT_REFUSED;
	}

	printf("%s: %s %s (%s%s%s): %s\n", path, plugin->name, plugin->version ? plugin->version : "?", plugin->licence ? plugin->licence : "?",
	       plugin->impl ? ", " : "", plugin->impl ? plugin->impl : "", plugin->summary ? plugin->summary : "");
	for (unsigned i = 0; plugin->algos[i]; i++)
		check_algo(plugin->algos[i], settings);

	if (check_failures() > 0) {
		printf("FAILED: %u checks\n", check_failures());
		return EXIT_REFUSED;
	}
	puts("All well.");
	return EXIT_SUCCESS;
}

static int parse_seed(const char *text, uint64_t *ret_seed)
{
	char *end;
	unsigned long long seed;

	errno = 0;
	seed = strtoull(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0')
		return -EINVAL;
	*ret_seed = seed;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "seed", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct check_settings settings = { .seed = (uint64_t)time(NULL) };
	char path[PATH_MAX];
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		switch (option) {
		case 'q':
			settings.quick = true;
			break;
		case 's':
			if (parse_seed(optarg, &settings.seed) < 0) {
				fprintf(stderr, "terrace-plugin-check: '%s' is not a seed: a whole number is expected.\n", optarg);
				return EXIT_USAGE;
			}
			break;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (!realpath(argv[optind], path)) { /* also: without a slash, dlopen() would search the system's libraries */
		fprintf(stderr, "terrace-plugin-check: %s: %s.\n", argv[optind], strerror(errno));
		return EXIT_USAGE;
	}

	check_report_start(settings.seed);
	printf("seed %" PRIu64 "\n", settings.seed);
	return check_file(path, &settings);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posix-probe: runs the cases and prints one line a case. */
#include "probe.h"

#include <signal.h>
#include <sys/wait.h>

#define CASE_SECONDS 120
#define SKIPS_MAX 16
#define NOTES_MAX (256 * 1024)

static const struct probe_case *const tables[] = {
	rename_cases, link_cases, name_cases, dir_cases, time_cases, xattr_cases, acl_cases, priv_cases, space_cases, copy_cases, mmap_cases, io_cases, ioctl_cases,
	lock_cases, handle_cases, race_cases, error_cases, state_cases,
};

static bool json;

static void print_notes(const char *name, char *notes)
{
	char *save = NULL;

	printf(json ? "{\"case\":\"%s\"" : "%s", name);
	for (char *line = strtok_r(notes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, '=');

		if (!json) {
			printf(" %s", line);
			continue;
		}
		*value++ = '\0';
		printf(",\"%s\":\"%s\"", line, value);
	}
	printf(json ? "}\n" : "\n");
	fflush(stdout);
}

static void child(const struct probe_case *c, const char *dir, int out)
{
	struct probe p = { .out = out };

	setpgid(0, 0);
	umask(022);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	alarm(CASE_SECONDS);
	if (chdir(dir) < 0) {
		probe_try(&p, "chdir", -1);
		_exit(4);
	}
	c->fn(&p);
	_exit(0);
}

static void run_case(const struct probe_case *c, const char *top)
{
	static char notes[NOTES_MAX];
	char dir[PATH_MAX];
	size_t used = 0;
	int fds[2], status;
	pid_t pid;

	if (snprintf(dir, sizeof(dir), "%s/%s", top, c->name) >= (int)sizeof(dir) || (mkdir(dir, 0777) < 0 && errno != EEXIST && errno != EROFS)) {
		printf("%s setup=%s\n", c->name, probe_errno(errno));
		return;
	}
	(void)chmod(dir, 0777);
	if (pipe2(fds, O_CLOEXEC) < 0)
		exit(2);
	pid = fork();
	if (pid < 0)
		exit(2);
	if (pid == 0) {
		close(fds[0]);
		child(c, dir, fds[1]);
	}
	close(fds[1]);
	for (;;) {
		ssize_t n = read(fds[0], notes + used, sizeof(notes) - 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	close(fds[0]);
	waitpid(pid, &status, 0);
	kill(-pid, SIGKILL); /* what the case left behind; usually nothing */
	notes[used] = '\0';
	if (!WIFEXITED(status) && used < sizeof(notes) - 32)
		snprintf(notes + used, sizeof(notes) - used, "DIED=signal_%d\n", WTERMSIG(status));
	print_notes(c->name, notes);
}

static void remove_tree(const char *dir)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("rm", "rm", "-rf", "--", dir, (char *)NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
}

static int usage(void)
{
	fprintf(stderr, "Usage: posix-probe DIR [--only NAME] [--skip NAME]... [--set NAME] [--json] [--keep] [--list]\n"
			"NAME of --only and --skip: a case, or the beginning of several. Some cases change the filesystem's label, trim it and ask for all of its space:\n"
			"ioctl_label, ioctl_others, space_fallocate. Sets: prepare, ro, full, noatime, handle-make, handle-open; without one the cases that need nothing special.\n");
	return 2;
}

struct choice {
	const char *only, *set, *skip[SKIPS_MAX];
	unsigned skips;
};

static bool chosen(const struct choice *choice, const struct probe_case *c)
{
	if (strcmp(c->set, choice->set) || strncmp(c->name, choice->only, strlen(choice->only)))
		return false;
	for (unsigned i = 0; i < choice->skips; i++)
		if (!strncmp(c->name, choice->skip[i], strlen(choice->skip[i])))
			return false;
	return true;
}

int main(int argc, char **argv)
{
	struct choice choice = { .only = "", .set = "" };
	const char *dir = NULL;
	bool keep = false, list = false;
	char top[PATH_MAX];
	unsigned ran = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--only") && i + 1 < argc)
			choice.only = argv[++i];
		else if (!strcmp(argv[i], "--skip") && i + 1 < argc && choice.skips < SKIPS_MAX)
			choice.skip[choice.skips++] = argv[++i];
		else if (!strcmp(argv[i], "--set") && i + 1 < argc)
			choice.set = argv[++i];
		else if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strcmp(argv[i], "--keep"))
			keep = true;
		else if (!strcmp(argv[i], "--list"))
			list = true;
		else if (argv[i][0] != '-' && !dir)
			dir = argv[i];
		else
			return usage();
	}
	if (!dir && !list)
		return usage();
	if (!list) {
		/* Sets find again what an earlier one made: a name of their own, not one of chance. */
		if (snprintf(top, sizeof(top), "%s/posix-probe", dir) >= (int)sizeof(top) || (mkdir(top, 0755) < 0 && errno != EEXIST)) {
			fprintf(stderr, "posix-probe: %s: %s\n", dir, strerror(errno));
			return 1;
		}
	}
	for (size_t t = 0; t < NR(tables); t++)
		for (const struct probe_case *c = tables[t]; c->name; c++) {
			if (!chosen(&choice, c))
				continue;
			ran++;
			if (list)
				puts(c->name);
			else
				run_case(c, top);
		}
	if (!list && !keep)
		remove_tree(top);
	return ran ? 0 : 1;
}

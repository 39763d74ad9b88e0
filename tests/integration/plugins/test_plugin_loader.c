/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loader: what it takes, what it refuses and with which sentence, and which of several wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/plugins/plugins.h"

#define DIRS 3
#define NOBODY 65534

struct state {
	char root[64];
	char dir[DIRS][80];
	struct ter_plugins *plugins;
	char log[8192];
};

static void keep_log(void *userdata, int priority, const char *message)
{
	struct state *s = userdata;
	size_t used = strlen(s->log);

	(void)snprintf(s->log + used, sizeof(s->log) - used, "<%d>%s\n", priority, message);
}

static int setup(void **state)
{
	struct state *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	umask(022);
	unsetenv("FIXTURE_RAN");
	strcpy(s->root, "/tmp/ter-plugins-XXXXXX");
	assert_non_null(mkdtemp(s->root));
	for (int i = 0; i < DIRS; i++) {
		(void)snprintf(s->dir[i], sizeof(s->dir[i]), "%s/%d", s->root, i);
		assert_int_equal(mkdir(s->dir[i], 0755), 0);
	}
	*state = s;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct state *s = *state;

	ter_plugins_free(s->plugins);
	assert_int_equal(nftw(s->root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
	free(s);
	return 0;
}

static void copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	char buf[65536];
	ssize_t n;

	assert_true(in >= 0);
	assert_true(out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	assert_int_equal(n, 0);
	close(in);
	close(out);
}

/* The fixture @fixture as terrace-@name.so in directory @dir; the path stays valid until the next call. */
static const char *place(struct state *s, int dir, const char *fixture, const char *name)
{
	static char to[256];
	char from[1024];

	(void)snprintf(from, sizeof(from), "%s/fixture-%s.so", getenv("FIXTURE_DIR"), fixture);
	(void)snprintf(to, sizeof(to), "%s/terrace-%s.so", s->dir[dir], name);
	copy(from, to);
	return to;
}

static void load(struct state *s)
{
	const char *dirs[] = { s->dir[0], s->dir[1], s->dir[2], NULL };

	assert_int_equal(ter_plugins_load(&s->plugins, dirs, keep_log, s), 0);
}

/* The entry that came from terrace-@name.so of directory @dir. */
static const struct ter_plugin_entry *entry_of(struct state *s, int dir, const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/terrace-%s.so", s->dir[dir], name);
	for (unsigned i = 0; i < ter_plugins_nr(s->plugins); i++)
		if (strcmp(ter_plugins_entry(s->plugins, i)->file, path) == 0)
			return ter_plugins_entry(s->plugins, i);
	fail_msg("%s is not listed; log:\n%s", path, s->log);
	return NULL;
}

static void assert_contains(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' does not contain '%s'", text, part);
}

static void assert_refused(struct state *s, int dir, const char *name, const char *part)
{
	const struct ter_plugin_entry *entry = entry_of(s, dir, name);

	assert_int_equal(entry->state, TER_PLUGIN_FAILED);
	assert_contains(entry->error, part);
	assert_contains(s->log, entry->error);
	assert_int_equal(ter_plugins_codecs(s->plugins)->nr, 0);
}

static void refuses(void **state, const char *fixture, const char *part)
{
	struct state *s = *state;

	place(s, 0, fixture, fixture);
	load(s);
	assert_int_equal(ter_plugins_nr(s->plugins), 1);
	assert_refused(s, 0, fixture, part);
}

static void a_good_plugin_is_loaded_and_described(void **state)
{
	struct state *s = *state;
	const struct ter_plugin_entry *entry;
	const struct terrace_algo *algo;

	place(s, 1, "good", "good");
	load(s);
	assert_int_equal(ter_plugins_nr(s->plugins), 1);
	entry = entry_of(s, 1, "good");
	assert_int_equal(entry->state, TER_PLUGIN_LOADED);
	assert_int_equal(entry->kind, TERRACE_CHECKSUM);
	assert_string_equal(entry->name, "fixture");
	assert_int_equal(entry->uuid[0], 0xd2);
	assert_int_equal(entry->uuid[15], 1);
	assert_int_equal(entry->format, 1);
	assert_string_equal(entry->version, "1.2");
	assert_string_equal(entry->licence, "MIT");
	assert_string_equal(entry->impl, "");
	assert_string_equal(entry->error, "");

	assert_int_equal(ter_plugins_codecs(s->plugins)->nr, 1);
	algo = ter_codecs_by_name(ter_plugins_codecs(s->plugins), TERRACE_CHECKSUM, "fixture");
	assert_ptr_equal(algo, entry->algo);
	assert_ptr_equal(ter_codecs_by_uuid(ter_plugins_codecs(s->plugins), TERRACE_CHECKSUM, entry->uuid), algo);
	assert_contains(s->log, "<6>hello from good\n");
	assert_string_equal(getenv("FIXTURE_RAN"), "good");
}

static void nothing_to_load_is_no_error(void **state)
{
	struct state *s = *state;
	const char *dirs[] = { "/nonexistent/terrace", s->dir[0], NULL };
	const char *none[] = { NULL };

	assert_int_equal(ter_plugins_load(&s->plugins, dirs, keep_log, s), 0);
	assert_int_equal(ter_plugins_nr(s->plugins), 0);
	ter_plugins_free(s->plugins);
	s->plugins = NULL;
	assert_int_equal(ter_plugins_load(&s->plugins, none, NULL, NULL), 0);
	assert_int_equal(ter_plugins_codecs(s->plugins)->nr, 0);
}

static void other_files_are_passed_over(void **state)
{
	struct state *s = *state;
	char to[256];

	(void)snprintf(to, sizeof(to), "%s/libsomething.so", s->dir[0]);
	copy(place(s, 1, "good", "good"), to);
	(void)snprintf(to, sizeof(to), "%s/terrace-good.so.bak", s->dir[0]);
	copy(place(s, 2, "good", "good"), to);
	load(s);
	assert_int_equal(ter_plugins_nr(s->plugins), 2);
	assert_null(strstr(s->log, "libsomething"));
}

static void a_newer_abi_is_named(void **state)
{
	refuses(state, "abi2", "built for ABI 2, this daemon speaks 1");
}

static void an_older_abi_is_named(void **state)
{
	refuses(state, "abi0", "built for ABI 0, this daemon speaks 1");
}

static void a_library_that_is_no_plugin_is_refused(void **state)
{
	refuses(state, "no-plugin", "not a Terrace plugin");
}

static void a_newer_minor_is_named(void **state)
{
	refuses(state, "minor", "built for ABI 1.7, this daemon speaks 1.0");
}

static void a_short_description_is_refused(void **state)
{
	refuses(state, "short", "malformed: its description has 8 bytes");
}

static void a_failed_init_is_told(void **state)
{
	refuses(state, "sick-init", "its initialisation failed: No such device");
}

static void a_failed_selftest_is_told(void **state)
{
	struct state *s = *state;

	refuses(state, "best-sick", "the self-test of 'fixture' failed: Input/output error");
	assert_int_equal(entry_of(s, 0, "best-sick")->kind, TERRACE_CHECKSUM);
	assert_string_equal(entry_of(s, 0, "best-sick")->name, "fixture");
}

static void a_digest_too_long_is_refused(void **state)
{
	refuses(state, "malformed", "limits that make no sense");
}

static void an_algorithm_needs_a_proper_name(void **state)
{
	struct state *s = *state;

	refuses(state, "bad-algo-name", "needs a name");
	assert_int_equal(entry_of(s, 0, "bad-algo-name")->kind, 0);
	assert_string_equal(entry_of(s, 0, "bad-algo-name")->name, "bad-algo-name");
}

static void the_files_name_must_be_the_plugins(void **state)
{
	struct state *s = *state;

	place(s, 0, "good", "evil");
	load(s);
	assert_refused(s, 0, "evil", "its name is 'good', but its file's name says 'evil'");
}

static void a_files_name_is_small_letters_digits_and_dashes(void **state)
{
	struct state *s = *state;

	place(s, 0, "good", "Good");
	place(s, 0, "good", "");
	place(s, 0, "good", "a-name-of-more-than-thirty-one-characters");
	load(s);
	assert_int_equal(ter_plugins_nr(s->plugins), 3);
	assert_refused(s, 0, "Good", "must be called terrace-<name>.so");
	assert_refused(s, 0, "", "must be called terrace-<name>.so");
	assert_refused(s, 0, "a-name-of-more-than-thirty-one-characters", "must be called terrace-<name>.so");
	assert_string_equal(entry_of(s, 0, "Good")->name, "");
	assert_null(getenv("FIXTURE_RAN"));
}

static void a_damaged_file_is_refused(void **state)
{
	struct state *s = *state;
	const char *path = place(s, 0, "good", "good");

	assert_int_equal(truncate(path, 100), 0);
	load(s);
	assert_refused(s, 0, "good", "the dynamic linker refuses it");
}

static void a_file_that_others_may_write_is_not_run(void **state)
{
	struct state *s = *state;

	assert_int_equal(chmod(place(s, 0, "good", "good"), 0775), 0);
	assert_int_equal(chmod(place(s, 1, "good", "good"), 0757), 0);
	load(s);
	assert_refused(s, 0, "good", "others than its owner may write to");
	assert_refused(s, 1, "good", "others than its owner may write to");
	assert_null(getenv("FIXTURE_RAN"));
}

static void nothing_is_run_from_a_directory_that_others_may_write(void **state)
{
	struct state *s = *state;

	place(s, 0, "good", "good");
	place(s, 1, "good", "good");
	assert_int_equal(chmod(s->dir[0], 0775), 0);
	assert_int_equal(chmod(s->dir[1], 01777), 0); /* sticky, as /tmp: others can add files all the same */
	load(s);
	assert_refused(s, 0, "good", "others than its owner may write to");
	assert_refused(s, 1, "good", "others than its owner may write to");
	assert_null(getenv("FIXTURE_RAN"));
}

static void a_link_is_judged_by_where_it_leads(void **state)
{
	struct state *s = *state;
	char link_path[256];

	assert_non_null(place(s, 1, "good", "hidden"));
	assert_int_equal(chmod(s->dir[1], 0777), 0);
	(void)snprintf(link_path, sizeof(link_path), "%s/terrace-good.so", s->dir[0]);
	assert_int_equal(symlink("../1/terrace-hidden.so", link_path), 0);
	load(s);
	assert_refused(s, 0, "good", "others than its owner may write to");
	assert_null(getenv("FIXTURE_RAN"));
}

/* Otherwise others could choose among our own files what is loaded. */
static void a_link_in_a_directory_that_others_may_write_is_not_followed(void **state)
{
	struct state *s = *state;
	const char *dirs[] = { s->dir[0], NULL };
	char link_path[256];

	assert_non_null(place(s, 1, "good", "good"));
	(void)snprintf(link_path, sizeof(link_path), "%s/terrace-good.so", s->dir[0]);
	assert_int_equal(symlink("../1/terrace-good.so", link_path), 0);
	assert_int_equal(chmod(s->dir[0], 0777), 0);
	assert_int_equal(ter_plugins_load(&s->plugins, dirs, keep_log, s), 0);
	assert_refused(s, 0, "good", "others than its owner may write to");
	assert_null(getenv("FIXTURE_RAN"));
}

static void a_strangers_file_is_not_run(void **state)
{
	struct state *s = *state;

	if (geteuid() != 0) {
		print_message("only root can give a file to somebody else\n");
		skip();
	}
	assert_int_equal(chown(place(s, 0, "good", "good"), NOBODY, NOBODY), 0);
	place(s, 1, "good", "good");
	assert_int_equal(chown(s->dir[1], NOBODY, NOBODY), 0);
	load(s);
	assert_refused(s, 0, "good", "belongs to user 65534");
	assert_refused(s, 1, "good", "belongs to user 65534");
	assert_null(getenv("FIXTURE_RAN"));
}

static void the_first_of_equals_wins(void **state)
{
	struct state *s = *state;
	const struct ter_plugin_entry *winner, *loser;

	place(s, 0, "twin", "twin");
	place(s, 1, "good", "good");
	load(s);
	winner = entry_of(s, 0, "twin");
	loser = entry_of(s, 1, "good");
	assert_int_equal(winner->state, TER_PLUGIN_LOADED);
	assert_int_equal(loser->state, TER_PLUGIN_SHADOWED);
	assert_contains(loser->error, winner->file);
	assert_int_equal(ter_plugins_codecs(s->plugins)->nr, 1);
	assert_ptr_equal(ter_plugins_codecs(s->plugins)->algo[0], winner->algo);
}

static void the_higher_format_wins_wherever_it_lies(void **state)
{
	struct state *s = *state;
	const struct ter_plugin_entry *winner;

	place(s, 0, "good", "good");
	place(s, 1, "better", "better");
	place(s, 2, "twin", "twin");
	load(s);
	winner = entry_of(s, 1, "better");
	assert_int_equal(winner->state, TER_PLUGIN_LOADED);
	assert_int_equal(entry_of(s, 0, "good")->state, TER_PLUGIN_SHADOWED);
	assert_int_equal(entry_of(s, 2, "twin")->state, TER_PLUGIN_SHADOWED);
	assert_contains(entry_of(s, 0, "good")->error, "in format 2");
	assert_int_equal(ter_plugins_codecs(s->plugins)->nr, 1);
	assert_ptr_equal(ter_plugins_codecs(s->plugins)->algo[0], winner->algo);
}

static void a_sick_plugin_shadows_nobody(void **state)
{
	struct state *s = *state;

	place(s, 0, "best-sick", "best-sick");
	place(s, 1, "good", "good");
	load(s);
	assert_int_equal(entry_of(s, 0, "best-sick")->state, TER_PLUGIN_FAILED);
	assert_int_equal(entry_of(s, 1, "good")->state, TER_PLUGIN_LOADED);
	assert_ptr_equal(ter_plugins_codecs(s->plugins)->algo[0], entry_of(s, 1, "good")->algo);
}

static void a_name_belongs_to_one_algorithm(void **state)
{
	struct state *s = *state;

	place(s, 0, "good", "good");
	place(s, 1, "namesake", "namesake");
	load(s);
	assert_int_equal(entry_of(s, 0, "good")->state, TER_PLUGIN_LOADED);
	assert_int_equal(entry_of(s, 1, "namesake")->state, TER_PLUGIN_FAILED);
	assert_contains(entry_of(s, 1, "namesake")->error, "a different checksum of the name 'fixture'");
	assert_int_equal(ter_plugins_codecs(s->plugins)->nr, 1);
}

static void a_file_reached_twice_is_one_plugin(void **state)
{
	struct state *s = *state;
	const char *dirs[] = { s->dir[0], s->dir[0], NULL };

	place(s, 0, "good", "good");
	assert_int_equal(ter_plugins_load(&s->plugins, dirs, keep_log, s), 0);
	assert_int_equal(ter_plugins_nr(s->plugins), 1);
	assert_int_equal(entry_of(s, 0, "good")->state, TER_PLUGIN_LOADED);
}

static bool listed(char **dirs, const char *dir)
{
	for (unsigned i = 0; dirs[i]; i++)
		if (strcmp(dirs[i], dir) == 0)
			return true;
	return false;
}

static void the_environment_names_directories(void **state)
{
	char **dirs;
	unsigned nr = 0;

	assert_int_equal(setenv("TERRACE_PLUGIN_PATH", "/a/b::relative:/c", 1), 0);
	assert_int_equal(ter_plugins_default_dirs(true, &dirs), 0);
	assert_true(listed(dirs, "/a/b"));
	assert_true(listed(dirs, "/c"));
	assert_false(listed(dirs, "relative"));
	assert_false(listed(dirs, ""));
	while (dirs[nr])
		nr++;
	assert_int_equal(nr, 3);
	assert_contains(dirs[nr - 1], "/terrace/plugins-1"); /* the installation's comes last */
	ter_plugins_free_dirs(dirs);
}

static void root_does_not_listen_to_the_environment(void **state)
{
	char **dirs;

	assert_int_equal(setenv("TERRACE_PLUGIN_PATH", "/a/b", 1), 0);
	assert_int_equal(ter_plugins_default_dirs(false, &dirs), 0);
	assert_int_equal(listed(dirs, "/a/b"), geteuid() != 0);
	ter_plugins_free_dirs(dirs);
}

static void a_long_path_is_cut_but_keeps_the_installation(void **state)
{
	char path[1024] = "", **dirs;
	unsigned nr = 0;

	for (int i = 0; i < 100; i++)
		strcat(path, "/d:");
	assert_int_equal(setenv("TERRACE_PLUGIN_PATH", path, 1), 0);
	assert_int_equal(ter_plugins_default_dirs(true, &dirs), 0);
	while (dirs[nr])
		nr++;
	assert_true(nr < 100);
	assert_contains(dirs[nr - 1], "/terrace/plugins-1");
	ter_plugins_free_dirs(dirs);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_good_plugin_is_loaded_and_described),
		TEST(nothing_to_load_is_no_error),
		TEST(other_files_are_passed_over),
		TEST(a_newer_abi_is_named),
		TEST(an_older_abi_is_named),
		TEST(a_library_that_is_no_plugin_is_refused),
		TEST(a_newer_minor_is_named),
		TEST(a_short_description_is_refused),
		TEST(a_failed_init_is_told),
		TEST(a_failed_selftest_is_told),
		TEST(a_digest_too_long_is_refused),
		TEST(an_algorithm_needs_a_proper_name),
		TEST(the_files_name_must_be_the_plugins),
		TEST(a_files_name_is_small_letters_digits_and_dashes),
		TEST(a_damaged_file_is_refused),
		TEST(a_file_that_others_may_write_is_not_run),
		TEST(nothing_is_run_from_a_directory_that_others_may_write),
		TEST(a_link_is_judged_by_where_it_leads),
		TEST(a_link_in_a_directory_that_others_may_write_is_not_followed),
		TEST(a_strangers_file_is_not_run),
		TEST(the_first_of_equals_wins),
		TEST(the_higher_format_wins_wherever_it_lies),
		TEST(a_sick_plugin_shadows_nobody),
		TEST(a_name_belongs_to_one_algorithm),
		TEST(a_file_reached_twice_is_one_plugin),
		cmocka_unit_test(the_environment_names_directories),
		cmocka_unit_test(root_does_not_listen_to_the_environment),
		cmocka_unit_test(a_long_path_is_cut_but_keeps_the_installation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names: object paths, text that is not UTF-8, units of systemd; and the list of members, which survives anything that a path may hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dbus/bus.h"
#include "members_file.h"
#include "unit_name.h"

static void uuids_become_object_paths(void **state)
{
	char path[TER_BUS_PATH_MAX];

	ter_bus_fs_path("01234567-89ab-cdef-0123-456789abcdef", path);
	assert_string_equal(path, "/org/terracefs/Terrace1/filesystems/01234567_89ab_cdef_0123_456789abcdef");
	assert_true(sd_bus_object_path_is_valid(path));
	ter_bus_job_path(18446744073709551615ull, path);
	assert_string_equal(path, "/org/terracefs/Terrace1/jobs/18446744073709551615");
}

static void text_that_is_not_utf8_is_escaped_and_never_cut_in_a_character(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "", "" },
		{ "/srv/\xc3\xa4", "/srv/\xc3\xa4" },
		{ "a\xff" "b", "a\\xffb" },
		{ "\xc3", "\\xc3" },
		{ "\xed\xa0\x80", "\\xed\\xa0\\x80" }, /* a surrogate */
		{ "\xf0\x9f\x8c\xb1!", "\xf0\x9f\x8c\xb1!" },
	};
	char out[64];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		ter_bus_utf8(rows[i].in, out, sizeof(out));
		assert_string_equal(out, rows[i].out);
	}
	for (size_t room = 1; room < 8; room++) {
		ter_bus_utf8("a\xc3\xa4\xff", out, room);
		assert_true(strlen(out) < room);
		assert_memory_equal(out, "a\xc3\xa4\\xff", strlen(out));
		assert_int_not_equal((unsigned char)out[strlen(out) ? strlen(out) - 1 : 0], 0xc3);
	}
}

/* The right column is what systemd-escape --path --suffix=mount prints. */
static void units_are_named_as_systemd_does(void **state)
{
	static const struct {
		const char *where, *unit;
	} rows[] = {
		{ "/", "-.mount" },
		{ "/mnt", "mnt.mount" },
		{ "/srv/media", "srv-media.mount" },
		{ "/a b/c-d", "a\\x20b-c\\x2dd.mount" },
		{ "/.hidden/x", "\\x2ehidden-x.mount" },
		{ "//srv///x/", "srv-x.mount" },
		{ "/\xc3\xbc", "\\xc3\\xbc.mount" },
	};
	char unit[256], long_path[300];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(td_mount_unit_name(rows[i].where, unit, sizeof(unit)), 0);
		assert_string_equal(unit, rows[i].unit);
	}
	memset(long_path, 'x', sizeof(long_path));
	long_path[0] = '/';
	long_path[sizeof(long_path) - 1] = 0;
	assert_int_equal(td_mount_unit_name(long_path, unit, sizeof(unit)), -ENAMETOOLONG);
}

/* --- the list of members --- */

static char folder[64];

static int make_folder(void **state)
{
	snprintf(folder, sizeof(folder), "/tmp/terrace-members-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/state/members", folder);
	(void)unlink(path); /* a test that made none */
	snprintf(path, sizeof(path), "%s/state", folder);
	(void)rmdir(path);
	return rmdir(folder);
}

static struct td_members_file *open_list(void)
{
	struct td_members_file *file = NULL;
	struct ter_error error = { 0 };
	char dir[128];

	snprintf(dir, sizeof(dir), "%s/state", folder);
	assert_int_equal(td_members_file_open(dir, &file, &error), 0);
	return file;
}

static void assert_list(struct td_members_file *file, const char *const *expected, unsigned nr)
{
	char **paths;

	assert_int_equal(td_members_file_list(file, &paths), nr);
	for (unsigned i = 0; i < nr; i++) {
		assert_string_equal(paths[i], expected[i]);
		free(paths[i]);
	}
	free(paths);
}

static void members_are_there_after_a_restart(void **state)
{
	const char *const add[] = { "/a", "/b with spaces", "/c\xff", "/broken\nline", "relative", "/a" };
	const char *const kept[] = { "/a", "/b with spaces", "/c\xff" }, *const fewer[] = { "/a", "/c\xff" };
	struct td_members_file *file = open_list();

	assert_list(file, NULL, 0);
	assert_int_equal(td_members_file_update(file, add, ARRAY_SIZE(add), NULL, 0, NULL), 0);
	assert_list(file, kept, 3);
	td_members_file_close(file);
	file = open_list();
	assert_list(file, kept, 3);
	assert_int_equal(td_members_file_update(file, NULL, 0, &add[1], 1, NULL), 0);
	td_members_file_close(file);
	file = open_list();
	assert_list(file, fewer, 2);
	td_members_file_close(file);
}

static void the_list_is_bounded_and_the_oldest_goes(void **state)
{
	struct td_members_file *file = open_list();
	char path[32], **paths;
	const char *one = path;
	int nr;

	for (unsigned i = 0; i < TD_MEMBERS_MAX + 3; i++) {
		snprintf(path, sizeof(path), "/member%u", i);
		assert_int_equal(td_members_file_update(file, &one, 1, NULL, 0, NULL), 0);
	}
	nr = td_members_file_list(file, &paths);
	assert_int_equal(nr, TD_MEMBERS_MAX);
	assert_string_equal(paths[0], "/member3");
	for (int i = 0; i < nr; i++)
		free(paths[i]);
	free(paths);
	td_members_file_close(file);
}

static void a_list_that_cannot_be_written_is_an_error_and_the_old_one_stays(void **state)
{
	struct td_members_file *file = open_list();
	struct ter_error error = { 0 };
	const char *const a = "/a", *const b = "/b";
	char temp[128];

	assert_int_equal(td_members_file_update(file, &a, 1, NULL, 0, NULL), 0);
	snprintf(temp, sizeof(temp), "%s/state/members.new", folder);
	assert_int_equal(mkdir(temp, 0700), 0); /* where the new list is written first */
	assert_true(td_members_file_update(file, &b, 1, NULL, 0, &error) < 0);
	assert_non_null(strstr(error.text, "members"));
	assert_int_equal(rmdir(temp), 0);
	td_members_file_close(file);
	file = open_list();
	assert_list(file, &a, 1);
	td_members_file_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uuids_become_object_paths),
		cmocka_unit_test(text_that_is_not_utf8_is_escaped_and_never_cut_in_a_character),
		cmocka_unit_test(units_are_named_as_systemd_does),
		cmocka_unit_test_setup_teardown(members_are_there_after_a_restart, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(the_list_is_bounded_and_the_oldest_goes, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_list_that_cannot_be_written_is_an_error_and_the_old_one_stays, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

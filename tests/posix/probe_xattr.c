/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Extended attributes: namespaces, flags, sizes, and who sees and sets what. */
#include "probe.h"

#include <sys/xattr.h>

static char value[70000];

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted and joined by commas. */
static void see_list(struct probe *p, const char *key, const char *path)
{
	static char list[65536];
	char *names[256], joined[900] = "";
	size_t nr = 0;
	ssize_t n = llistxattr(path, list, sizeof(list));

	if (n < 0) {
		probe_try(p, key, -1);
		return;
	}
	for (char *at = list; at < list + n && nr < NR(names); at += strlen(at) + 1)
		names[nr++] = at;
	qsort(names, nr, sizeof(names[0]), compare);
	for (size_t i = 0; i < nr; i++) {
		strncat(joined, names[i], sizeof(joined) - strlen(joined) - 2);
		strcat(joined, ",");
	}
	SEE(key, "%s", joined);
}

static void xattr_basics(struct probe *p)
{
	char buf[64] = "";

	make(p, "f", "f");
	TRY("get_none", getxattr("f", "user.a", buf, sizeof(buf)));
	TRY("replace_none", setxattr("f", "user.a", "1", 1, XATTR_REPLACE));
	TRY("create", setxattr("f", "user.a", "12345", 5, XATTR_CREATE));
	TRY("create_again", setxattr("f", "user.a", "1", 1, XATTR_CREATE));
	TRY("replace", setxattr("f", "user.a", "123456", 6, XATTR_REPLACE));
	TRY("both_flags", setxattr("f", "user.a", "1", 1, XATTR_CREATE | XATTR_REPLACE));
	TRY("bad_flags", setxattr("f", "user.a", "1", 1, 8));
	SEE("size", "%zd", getxattr("f", "user.a", NULL, 0));
	SEE("get", "%zd:%.6s", getxattr("f", "user.a", buf, sizeof(buf)), buf);
	TRY("range", getxattr("f", "user.a", buf, 5));
	SEE("exact", "%zd", getxattr("f", "user.a", buf, 6));
	TRY("empty_value", setxattr("f", "user.empty", "", 0, 0));
	SEE("empty_back", "%zd", getxattr("f", "user.empty", buf, sizeof(buf)));
	see_list(p, "list", "f");
	SEE("list_size", "%zd", listxattr("f", NULL, 0));
	TRY("list_range", listxattr("f", buf, 10));
	TRY("remove", removexattr("f", "user.a"));
	TRY("remove_again", removexattr("f", "user.a"));
	TRY("remove_empty", removexattr("f", "user.empty"));
	SEE("list_none", "%zd", listxattr("f", buf, sizeof(buf)));
	TRY("no_namespace", setxattr("f", "nothing", "1", 1, 0));
	TRY("unknown_namespace", setxattr("f", "strange.x", "1", 1, 0));
	TRY("prefix_only", setxattr("f", "user.", "1", 1, 0));
	TRY("empty_name", setxattr("f", "", "1", 1, 0));
	TRY("get_no_namespace", getxattr("f", "nothing", buf, 1));
	TRY("get_prefix_only", getxattr("f", "user.", buf, 1));
	TRY("system", setxattr("f", "system.something", "1", 1, 0));
	TRY("get_system", getxattr("f", "system.something", buf, 1));
	TRY("case", setxattr("f", "user.A", "1", 1, 0) + setxattr("f", "user.a", "2", 1, 0));
	see_list(p, "case_list", "f");
	TRY("by_fd", fsetxattr(open("f", O_RDONLY), "user.fd", "1", 1, 0));
	TRY("by_path_fd", fsetxattr(open("f", O_PATH), "user.fd", "1", 1, 0));
	TRY("missing", setxattr("none", "user.x", "1", 1, 0));
}

static void xattr_sizes(struct probe *p)
{
	static const size_t sizes[] = { 1, 255, 256, 1000, 3900, 4096, 10000, 16384, 32768, 60000, 65000, 65535, 65536, 65537 };
	static char back[70000];
	char name[300], key[32];

	make(p, "f", "f");
	for (size_t i = 0; i < NR(sizes); i++) {
		ssize_t n;

		memset(value, 'A' + (int)i, sizes[i]);
		snprintf(key, sizeof(key), "bytes%zu", sizes[i]);
		if (TRY(key, setxattr("f", "user.v", value, sizes[i], 0)) < 0)
			continue;
		n = getxattr("f", "user.v", back, sizeof(back));
		SEE(key, "%zd:%d", n, n == (ssize_t)sizes[i] && !memcmp(value, back, sizes[i]));
	}
	NEED(removexattr("f", "user.v") == 0);
	for (size_t len = 253; len <= 257; len++) {
		memset(name, 'n', sizeof(name));
		memcpy(name, "user.", 5);
		name[len] = 0;
		snprintf(key, sizeof(key), "name%zu", len);
		TRY(key, setxattr("f", name, "v", 1, 0));
		snprintf(key, sizeof(key), "name%zu_get", len);
		TRY(key, getxattr("f", name, back, 10));
	}
}

static void xattr_many(struct probe *p)
{
	static char list[65536];
	char name[64];
	unsigned made = 0, right = 0;
	ssize_t n;

	make(p, "f", "f");
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "user.attribute-%d", i);
		if (setxattr("f", name, &i, sizeof(i), XATTR_CREATE) == 0)
			made++;
	}
	n = listxattr("f", list, sizeof(list));
	for (int i = 0; i < 100; i++) {
		int v = -1;

		snprintf(name, sizeof(name), "user.attribute-%d", i);
		if (getxattr("f", name, &v, sizeof(v)) == sizeof(v) && v == i)
			right++;
	}
	SEE("many", "%u:%u:%zd", made, right, n);
	for (int i = 0; i < 100; i += 2) {
		snprintf(name, sizeof(name), "user.attribute-%d", i);
		(void)removexattr("f", name);
	}
	SEE("half", "%zd", listxattr("f", NULL, 0));
}

static void xattr_kinds(struct probe *p)
{
	static const char *const spaces[] = { "user.x", "trusted.x", "security.x" };
	static const char *const paths[] = { "reg", "dir", "lnk", "fifo", "chr", "sock" };
	char key[64], buf[8];

	make(p, "reg", "x");
	make_dir(p, "dir", 0755, 0, 0);
	NEED(symlink("reg", "lnk") == 0);
	NEED(mknod("fifo", S_IFIFO | 0644, 0) == 0 && mknod("chr", S_IFCHR | 0644, makedev(1, 3)) == 0 && mknod("sock", S_IFSOCK | 0644, 0) == 0);
	for (size_t i = 0; i < NR(paths); i++) {
		for (size_t j = 0; j < NR(spaces); j++) {
			snprintf(key, sizeof(key), "%s_%.4s_get", paths[i], spaces[j]);
			TRY(key, lgetxattr(paths[i], spaces[j], buf, sizeof(buf)));
			snprintf(key, sizeof(key), "%s_%.4s_set", paths[i], spaces[j]);
			TRY(key, lsetxattr(paths[i], spaces[j], "1", 1, 0));
			snprintf(key, sizeof(key), "%s_%.4s_back", paths[i], spaces[j]);
			TRY(key, lgetxattr(paths[i], spaces[j], buf, sizeof(buf)));
		}
		snprintf(key, sizeof(key), "%s_list", paths[i]);
		see_list(p, key, paths[i]);
	}
}

static void xattr_rights(struct probe *p)
{
	char buf[64];

	make_mode(p, "own", 0644, USER_ID, USER_ID);
	make_mode(p, "readable", 0644, 0, 0);
	make_mode(p, "writable", 0666, 0, 0);
	make_mode(p, "closed", 0600, 0, 0);
	make_dir(p, "sticky", 01777, 0, 0);
	make_mode(p, "ownread", 0400, USER_ID, USER_ID);
	NEED(setxattr("own", "trusted.t", "secret", 6, 0) == 0);
	NEED(setxattr("own", "user.u", "open", 4, 0) == 0);
	NEED(setxattr("own", "security.s", "mark", 4, 0) == 0);
	NEED(setxattr("readable", "user.u", "open", 4, 0) == 0);
	NEED(setxattr("closed", "user.u", "open", 4, 0) == 0);
	see_list(p, "root_list", "own");
	AS(USER) {
		see_list(p, "list", "own");
		SEE("list_size", "%zd", listxattr("own", NULL, 0));
		TRY("get_trusted", getxattr("own", "trusted.t", buf, sizeof(buf)));
		TRY("set_trusted", setxattr("own", "trusted.t", "1", 1, 0));
		TRY("remove_trusted", removexattr("own", "trusted.t"));
		TRY("get_security", getxattr("own", "security.s", buf, sizeof(buf)));
		TRY("set_security", setxattr("own", "security.s", "1", 1, 0));
		TRY("set_own", setxattr("own", "user.u", "1", 1, 0));
		TRY("get_readable", getxattr("readable", "user.u", buf, sizeof(buf)));
		TRY("set_readable", setxattr("readable", "user.u", "1", 1, 0));
		TRY("remove_readable", removexattr("readable", "user.u"));
		TRY("set_writable", setxattr("writable", "user.u", "1", 1, 0));
		TRY("get_closed", getxattr("closed", "user.u", buf, sizeof(buf)));
		see_list(p, "list_closed", "closed");
		TRY("set_sticky_dir", setxattr("sticky", "user.u", "1", 1, 0));
		TRY("set_ownread", setxattr("ownread", "user.u", "1", 1, 0));
		TRY("set_capability", setxattr("own", "security.capability", "1", 1, 0));
	}
}

const struct probe_case xattr_cases[] = {
	{ "xattr_basics", xattr_basics, "" },
	{ "xattr_sizes", xattr_sizes, "" },
	{ "xattr_many", xattr_many, "" },
	{ "xattr_kinds", xattr_kinds, "" },
	{ "xattr_rights", xattr_rights, "" },
	{ 0 },
};

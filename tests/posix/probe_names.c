/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names and paths: any byte, every length, symbolic links and their loops. */
#include "probe.h"

#include <dirent.h>

static unsigned entries(void)
{
	DIR *d = opendir(".");
	unsigned nr = 0;

	while (d && readdir(d))
		nr++;
	if (d)
		closedir(d);
	return nr;
}

static void names_bytes(struct probe *p)
{
	unsigned made = 0, found = 0;
	char name[300];

	for (int c = 1; c < 256; c++) {
		const char one[2] = { (char)c, 0 };

		if (c == '/' || c == '.')
			continue;
		if (mknod(one, S_IFREG | 0644, 0) == 0)
			made++;
		if (access(one, F_OK) == 0)
			found++;
	}
	SEE("single", "%u:%u:%u", made, found, entries());
	made = 0;
	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		memset(name, c, 255);
		name[255] = 0;
		if (mkdir(name, 0755) == 0)
			made++;
	}
	SEE("long", "%u:%u", made, entries());
	TRY("case", mkdir("CaseD", 0755));
	TRY("case2", mkdir("cAsEd", 0755));
	TRY("utf8_composed", mkdir("\xc3\xa9", 0755));
	TRY("utf8_decomposed", mkdir("e\xcc\x81", 0755));
	TRY("utf8_bad", mkdir("\xff\xfe\xc3", 0755));
	TRY("dots3", mkdir("...", 0755));
}

static void names_too_long(struct probe *p)
{
	char name[257];

	memset(name, 'n', 256);
	name[256] = 0;
	make(p, "f", "f");
	TRY("create", open(name, O_CREAT | O_WRONLY, 0644));
	TRY("open", open(name, O_RDONLY));
	TRY("mkdir", mkdir(name, 0755));
	TRY("mknod", mknod(name, S_IFIFO | 0644, 0));
	TRY("symlink", symlink("f", name));
	TRY("link", link("f", name));
	TRY("rename", rename("f", name));
	TRY("rename_from", rename(name, "g"));
	TRY("unlink", unlink(name));
	TRY("rmdir", rmdir(name));
	TRY("stat", access(name, F_OK));
	name[255] = 0;
	TRY("just_right", rename("f", name));
	SEE("type", "%c", type_of(name));
}

static void names_path_max(struct probe *p)
{
	char path[PATH_MAX + 8], part[202];
	int depth = 0;

	memset(part, 'd', 200);
	part[200] = 0;
	/* 25 levels of 200: deeper than a path reaches. */
	for (; depth < 25; depth++) {
		if (mkdir(part, 0755) < 0 || chdir(part) < 0)
			break;
	}
	SEE("depth", "%d", depth);
	make(p, "deep", "deep");
	see_content(p, "content", "deep");
	/* Paths of 4095 and 4096 bytes through "./". */
	memset(path, 0, sizeof(path));
	for (size_t i = 0; i < PATH_MAX - 6; i += 2)
		memcpy(path + i, "./", 2);
	strcpy(path + PATH_MAX - 6, "/deep");
	SEE("length", "%zu", strlen(path));
	TRY("path_4095", access(path, F_OK));
	memmove(path + 1, path, strlen(path) + 1);
	path[0] = '/';
	path[0] = '.';
	path[1] = '/';
	SEE("length2", "%zu", strlen(path));
	TRY("path_4096", access(path, F_OK));
}

static void names_symlinks(struct probe *p)
{
	static const size_t lengths[] = { 1, 2, 59, 60, 61, 127, 128, 255, 256, 1000, 4000, 4094, 4095, 4096, 5000 };
	char target[8192], got[8192], key[32];

	for (size_t i = 0; i < NR(lengths); i++) {
		ssize_t n = -1;
		int r;

		memset(target, 'a' + (int)i, lengths[i]);
		target[lengths[i]] = 0;
		r = symlink(target, "s");
		snprintf(key, sizeof(key), "bytes%zu", lengths[i]);
		if (TRY(key, r) < 0)
			continue;
		n = readlink("s", got, sizeof(got));
		strcat(key, "_back");
		SEE(key, "%zd:%d:%lld", n, n == (ssize_t)lengths[i] && !memcmp(got, target, lengths[i]), (long long)stat_of(p, "s").st_size);
		NEED(unlink("s") == 0);
	}
	TRY("empty", symlink("", "s"));
	NEED(symlink("abcdef", "s") == 0);
	SEE("cut", "%zd", readlink("s", got, 3));
	TRY("cut_zero", readlink("s", got, 0));
	TRY("not_link", readlink(".", got, 10));
	see_mode(p, "mode", "s");
	TRY("chmod", fchmodat(AT_FDCWD, "s", 0600, AT_SYMLINK_NOFOLLOW));
	TRY("chown", lchown("s", 5, 6));
	see_owner(p, "owner", "s");
	TRY("exists", symlink("x", "s"));
}

static void names_loops(struct probe *p)
{
	char a[16], b[16];

	make(p, "l0", "end");
	for (int i = 1; i <= 41; i++) {
		snprintf(a, sizeof(a), "l%d", i - 1);
		snprintf(b, sizeof(b), "l%d", i);
		NEED(symlink(a, b) == 0);
	}
	TRY("chain_39", open("l39", O_RDONLY));
	TRY("chain_40", open("l40", O_RDONLY));
	TRY("chain_41", open("l41", O_RDONLY));
	NEED(symlink("me", "me") == 0);
	TRY("self", open("me", O_RDONLY));
	TRY("self_create", open("me", O_CREAT | O_WRONLY, 0644));
	TRY("self_stat", access("me", F_OK));
	TRY("self_unlink_through", unlink("me/x"));
	NEED(symlink("dang", "dangling") == 0);
	TRY("dangling", open("dangling", O_RDONLY));
	TRY("dangling_excl", open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0644));
	TRY("dangling_create", open("dangling", O_CREAT | O_WRONLY, 0644));
	SEE("made", "%c", type_of("dang"));
	TRY("nofollow", open("l1", O_RDONLY | O_NOFOLLOW));
	TRY("path_nofollow", open("l1", O_PATH | O_NOFOLLOW));
	TRY("mkdir_on_link", mkdir("dangling", 0755));
	TRY("slash", open("l1/", O_RDONLY));
}

static void names_walk(struct probe *p)
{
	make(p, "f", "f");
	make_dir(p, "d", 0755, 0, 0);
	make_dir(p, "noexec", 0644, 0, 0);
	make_dir(p, "noread", 0711, 0, 0);
	make(p, "noexec/x", "x");
	make(p, "noread/x", "x");
	TRY("through_file", access("f/x", F_OK));
	TRY("file_dot", access("f/.", F_OK));
	TRY("missing_dir", access("none/x", F_OK));
	TRY("create_slash", open("new/", O_CREAT | O_WRONLY, 0644));
	TRY("mkdir_slash", mkdir("new/", 0755));
	TRY("mkdir_dot", mkdir("new/.", 0755));
	TRY("mkdir_dotdot", mkdir("new/..", 0755));
	TRY("mkdir_exists_file", mkdir("f", 0755));
	TRY("rmdir_dot", rmdir("d/."));
	TRY("rmdir_dotdot", rmdir("d/.."));
	TRY("rmdir_file", rmdir("f"));
	TRY("unlink_dir", unlink("d"));
	TRY("unlink_dot", unlink("."));
	TRY("empty", open("", O_RDONLY));
	TRY("open_dir_write", open("d", O_WRONLY));
	TRY("open_dir_create", open("d", O_RDONLY | O_CREAT, 0644));
	TRY("open_file_directory", open("f", O_RDONLY | O_DIRECTORY));
	TRY("open_excl", open("f", O_RDONLY | O_CREAT | O_EXCL, 0644));
	AS(USER) {
		TRY("noexec_search", access("noexec/x", F_OK));
		TRY("noexec_list", opendir("noexec") ? 0 : -1);
		TRY("noread_search", access("noread/x", F_OK));
		TRY("noread_list", opendir("noread") ? 0 : -1);
		TRY("write_other", open("f", O_WRONLY));
		TRY("read_other", open("f", O_RDONLY));
		TRY("create_in_other", open("d/x", O_CREAT | O_WRONLY, 0644));
		TRY("path", open("f", O_PATH));
	}
}

const struct probe_case name_cases[] = {
	{ "names_bytes", names_bytes, "" },
	{ "names_too_long", names_too_long, "" },
	{ "names_path_max", names_path_max, "" },
	{ "names_symlinks", names_symlinks, "" },
	{ "names_loops", names_loops, "" },
	{ "names_walk", names_walk, "" },
	{ 0 },
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Renaming: every flag with every kind, into oneself, between parents, and by people who may not. */
#include "probe.h"

#include <linux/fs.h>
#include <sys/syscall.h>

static int rename2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static const char *const kinds[] = { "file", "dir", "fulldir", "link", "fifo", "none" };

static void make_kind(struct probe *p, const char *kind, const char *path)
{
	char inside[128];

	if (!strcmp(kind, "file"))
		make(p, path, path);
	else if (!strcmp(kind, "link"))
		NEED(symlink("nowhere", path) == 0);
	else if (!strcmp(kind, "fifo"))
		NEED(mkfifo(path, 0644) == 0);
	else if (strcmp(kind, "none"))
		make_dir(p, path, 0755, 0, 0);
	if (!strcmp(kind, "fulldir")) {
		snprintf(inside, sizeof(inside), "%s/in", path);
		make(p, inside, "x");
	}
}

static void remove_kind(const char *path)
{
	char inside[128];

	snprintf(inside, sizeof(inside), "%s/in", path);
	(void)unlink(inside);
	if (unlink(path) < 0)
		(void)rmdir(path);
}

static ino_t ino_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 ? 0 : st.st_ino;
}

/* What stands at both names afterwards: a type, and whether it is the one that was at 'a' or at 'b'. */
static char which(ino_t now, ino_t a, ino_t b)
{
	return !now ? '.' : now == a ? 'A' : now == b ? 'B' : 'N';
}

static void matrix(struct probe *p, unsigned flags)
{
	for (size_t i = 0; i < NR(kinds); i++)
		for (size_t j = 0; j < NR(kinds); j++) {
			char key[64];
			ino_t a, b;
			int r, err;

			make_kind(p, kinds[i], "a");
			make_kind(p, kinds[j], "b");
			a = ino_of("a");
			b = ino_of("b");
			r = rename2("a", "b", flags);
			err = r < 0 ? errno : 0;
			snprintf(key, sizeof(key), "%s>%s", kinds[i], kinds[j]);
			SEE(key, "%s:%c%c%c%c", probe_errno(err), type_of("a"), which(ino_of("a"), a, b), type_of("b"), which(ino_of("b"), a, b));
			remove_kind("a");
			remove_kind("b");
		}
}

static void rename_plain(struct probe *p) { matrix(p, 0); }
static void rename_noreplace(struct probe *p) { matrix(p, RENAME_NOREPLACE); }
static void rename_exchange(struct probe *p) { matrix(p, RENAME_EXCHANGE); }
static void rename_whiteout(struct probe *p) { matrix(p, RENAME_WHITEOUT); }
static void rename_whiteout_noreplace(struct probe *p) { matrix(p, RENAME_WHITEOUT | RENAME_NOREPLACE); }

static void rename_bad_flags(struct probe *p)
{
	make(p, "a", "a");
	make(p, "b", "b");
	TRY("exchange_noreplace", rename2("a", "b", RENAME_EXCHANGE | RENAME_NOREPLACE));
	TRY("exchange_whiteout", rename2("a", "b", RENAME_EXCHANGE | RENAME_WHITEOUT));
	TRY("unknown", rename2("a", "c", 8));
	TRY("all", rename2("a", "c", 0xffffffff));
	see_content(p, "a", "a");
	see_content(p, "b", "b");
}

static void rename_whiteout_node(struct probe *p)
{
	struct stat st;

	make(p, "a", "a");
	TRY("rename", rename2("a", "b", RENAME_WHITEOUT));
	st = stat_of(p, "a");
	SEE("node", "%o:%u:%u:%lu", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev), (unsigned long)st.st_nlink);
	SEE("mode", "%o", st.st_mode & 07777);
	TRY("open", open("a", O_RDONLY));
	TRY("again_over_it", rename2("b", "a", RENAME_WHITEOUT));
	SEE("types", "%c%c", type_of("a"), type_of("b"));
	make_dir(p, "theirs", 0777, USER_ID, USER_ID);
	AS(USER) {
		NEED(chdir("theirs") == 0);
		make(p, "x", "x");
		TRY("user", rename2("x", "y", RENAME_WHITEOUT));
		SEE("user_types", "%c%c", type_of("x"), type_of("y"));
		see_owner(p, "user_owner", "x");
	}
}

static void rename_directories(struct probe *p)
{
	struct stat st;

	make_dir(p, "p", 0755, 0, 0);
	make_dir(p, "q", 0755, 0, 0);
	make_dir(p, "p/d", 0755, 0, 0);
	make_dir(p, "p/d/e", 0755, 0, 0);
	make(p, "q/f", "f");
	SEE("before", "%lu:%lu", (unsigned long)stat_of(p, "p").st_nlink, (unsigned long)stat_of(p, "q").st_nlink);
	TRY("into_child", rename2("p", "p/d/x", 0));
	TRY("into_itself", rename2("p", "p/x", 0));
	TRY("child_over_parent", rename2("p/d", "p", 0));
	TRY("grandchild_over", rename2("p/d/e", "p", 0));
	TRY("exchange_with_child", rename2("p", "p/d", RENAME_EXCHANGE));
	TRY("exchange_with_grandchild", rename2("p/d/e", "p", RENAME_EXCHANGE));
	TRY("to_itself", rename2("p", "p", 0));
	TRY("itself_noreplace", rename2("p", "p", RENAME_NOREPLACE));
	TRY("itself_exchange", rename2("p", "p", RENAME_EXCHANGE));
	TRY("move", rename2("p/d", "q/d", 0));
	SEE("after_move", "%lu:%lu", (unsigned long)stat_of(p, "p").st_nlink, (unsigned long)stat_of(p, "q").st_nlink);
	NEED(stat("q/d/..", &st) == 0);
	SEE("dotdot", "%d", st.st_ino == stat_of(p, "q").st_ino);
	make_dir(p, "p/z", 0755, 0, 0);
	TRY("exchange_dir_file", rename2("p/z", "q/f", RENAME_EXCHANGE));
	SEE("after_exchange", "%lu:%lu:%c%c", (unsigned long)stat_of(p, "p").st_nlink, (unsigned long)stat_of(p, "q").st_nlink, type_of("p/z"), type_of("q/f"));
	NEED(stat("q/f/..", &st) == 0);
	SEE("dotdot_exchanged", "%d", st.st_ino == stat_of(p, "q").st_ino);
	make_dir(p, "p/empty", 0755, 0, 0);
	TRY("over_empty_elsewhere", rename2("q/f", "p/empty", 0));
	SEE("after_over", "%lu:%lu", (unsigned long)stat_of(p, "p").st_nlink, (unsigned long)stat_of(p, "q").st_nlink);
	TRY("whiteout_dir", rename2("q/d", "p/d", RENAME_WHITEOUT));
	SEE("after_whiteout", "%lu:%lu:%c", (unsigned long)stat_of(p, "p").st_nlink, (unsigned long)stat_of(p, "q").st_nlink, type_of("q/d"));
	NEED(unlink("q/d") == 0);
	TRY("rmdir_q", rmdir("q"));
}

static void rename_names(struct probe *p)
{
	make(p, "f", "f");
	make_dir(p, "d", 0755, 0, 0);
	TRY("dot", rename2(".", "x", 0));
	TRY("dotdot", rename2("..", "x", 0));
	TRY("to_dot", rename2("d", ".", 0));
	TRY("to_dotdot", rename2("d", "..", 0));
	TRY("to_dot_noreplace", rename2("d", ".", RENAME_NOREPLACE));
	TRY("file_slash", rename2("f/", "g", 0));
	TRY("to_slash", rename2("f", "g/", 0));
	TRY("dir_slash", rename2("d/", "e/", 0));
	TRY("missing", rename2("none", "g", 0));
	TRY("missing_dir", rename2("f", "none/g", 0));
	TRY("through_file", rename2("e", "f/g", 0));
	TRY("empty", rename2("", "g", 0));
	TRY("to_empty", rename2("f", "", 0));
	NEED(link("f", "h") == 0);
	TRY("same_inode", rename2("f", "h", 0));
	SEE("both_there", "%c%c:%lu", type_of("f"), type_of("h"), (unsigned long)stat_of(p, "f").st_nlink);
	TRY("same_inode_exchange", rename2("f", "h", RENAME_EXCHANGE));
	TRY("same_inode_whiteout", rename2("f", "h", RENAME_WHITEOUT));
	SEE("after_whiteout", "%c%c", type_of("f"), type_of("h"));
	NEED(symlink("e", "s") == 0);
	TRY("link_slash", rename2("s/", "t", 0));
	TRY("link", rename2("s", "t", 0));
	SEE("link_moved", "%c%c", type_of("s"), type_of("t"));
	TRY("other_filesystem", rename2("f", "/proc/none", 0));
	TRY("link_other_filesystem", link("h", "/proc/none"));
}

static void rename_open_target(struct probe *p)
{
	char buf[16] = { 0 };
	struct stat st;
	int fd, d;

	make(p, "a", "new");
	make(p, "b", "old");
	fd = open_file(p, "b", O_RDWR);
	TRY("over_open", rename2("a", "b", 0));
	NEED(fstat(fd, &st) == 0);
	SEE("nlink", "%lu", (unsigned long)st.st_nlink);
	SEE("still", "%zd:%s", pread(fd, buf, 15, 0), buf);
	SEE("write", "%zd", pwrite(fd, "more", 4, 3));
	SEE("again", "%zd:%s", pread(fd, buf, 15, 0), buf);
	see_content(p, "new", "b");
	make_dir(p, "d1", 0755, 0, 0);
	make_dir(p, "d2", 0755, 0, 0);
	d = open("d2", O_RDONLY | O_DIRECTORY);
	TRY("over_open_dir", rename2("d1", "d2", 0));
	NEED(fstat(d, &st) == 0);
	SEE("dir_nlink", "%lu", (unsigned long)st.st_nlink);
	TRY("create_in_it", openat(d, "x", O_CREAT | O_WRONLY, 0644));
}

static void rename_rights(struct probe *p)
{
	make_dir(p, "sticky", 01777, 0, 0);
	make_dir(p, "open", 0777, 0, 0);
	make_dir(p, "closed", 0755, 0, 0);
	make_mode(p, "sticky/root", 0666, 0, 0);
	make_mode(p, "sticky/user", 0666, USER_ID, USER_ID);
	make_mode(p, "sticky/user2", 0666, USER_ID, USER_ID);
	make_mode(p, "closed/f", 0666, USER_ID, USER_ID);
	make_dir(p, "open/d", 0755, 0, 0);
	make_dir(p, "open/mine", 0755, USER_ID, USER_ID);
	AS(USER) {
		TRY("sticky_other", rename2("sticky/root", "sticky/x", 0));
		TRY("sticky_over_other", rename2("sticky/user", "sticky/root", 0));
		TRY("sticky_exchange_other", rename2("sticky/user", "sticky/root", RENAME_EXCHANGE));
		TRY("sticky_own", rename2("sticky/user", "sticky/x", 0));
		TRY("sticky_own_over_own", rename2("sticky/x", "sticky/user2", 0));
		TRY("sticky_unlink_other", unlink("sticky/root"));
		TRY("closed", rename2("closed/f", "open/f", 0));
		TRY("into_closed", rename2("open/mine", "closed/mine", 0));
		TRY("other_dir_new_parent", rename2("open/d", "open/mine/d", 0)); /* its ".." would change */
		TRY("other_dir_same_parent", rename2("open/d", "open/e", 0));
	}
}

const struct probe_case rename_cases[] = {
	{ "rename_plain", rename_plain, "" },
	{ "rename_noreplace", rename_noreplace, "" },
	{ "rename_exchange", rename_exchange, "" },
	{ "rename_whiteout", rename_whiteout, "" },
	{ "rename_whiteout_noreplace", rename_whiteout_noreplace, "" },
	{ "rename_bad_flags", rename_bad_flags, "" },
	{ "rename_whiteout_node", rename_whiteout_node, "" },
	{ "rename_directories", rename_directories, "" },
	{ "rename_names", rename_names, "" },
	{ "rename_open_target", rename_open_target, "" },
	{ "rename_rights", rename_rights, "" },
	{ 0 },
};

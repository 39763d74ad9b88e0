/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* POSIX access control lists, through their raw attributes. */
#include "probe.h"

#include <sys/xattr.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

struct entry {
	uint16_t tag, perm;
	uint32_t id;
};
struct acl {
	uint32_t version;
	struct entry e[16];
	unsigned nr;
};
enum { U_OBJ = 1, U = 2, G_OBJ = 4, G = 8, M = 16, O = 32 };

/* "u:6 U1001:7 g:5 G2000:4 m:7 o:4": lower-case for the owner's, upper-case for a named one's. */
static struct acl parse(const char *text)
{
	struct acl acl = { .version = 2 };

	while (*text) {
		struct entry *e = &acl.e[acl.nr++];
		const char tag = *text++;

		e->tag = tag == 'u' ? U_OBJ : tag == 'U' ? U : tag == 'g' ? G_OBJ : tag == 'G' ? G : tag == 'm' ? M : O;
		e->id = e->tag == U || e->tag == G ? (uint32_t)strtoul(text, (char **)&text, 10) : 0xffffffff;
		e->perm = (uint16_t)strtoul(text + 1, (char **)&text, 8);
		while (*text == ' ')
			text++;
	}
	return acl;
}

static int set_acl(const char *path, const char *name, const char *text)
{
	const struct acl acl = parse(text);

	return setxattr(path, name, &acl, 4 + acl.nr * sizeof(struct entry), 0);
}

static void see_acl(struct probe *p, const char *key, const char *path, const char *name)
{
	char text[512] = "";
	struct acl acl;
	ssize_t n = getxattr(path, name, &acl, 4 + sizeof(acl.e));

	if (n < 0) {
		probe_try(p, key, -1);
		return;
	}
	for (unsigned i = 0; i < ((size_t)n - 4) / sizeof(struct entry); i++) {
		const struct entry *e = &acl.e[i];
		const char tag = e->tag == U_OBJ ? 'u' : e->tag == U ? 'U' : e->tag == G_OBJ ? 'g' : e->tag == G ? 'G' : e->tag == M ? 'm' : 'o';
		size_t at = strlen(text);

		if (e->tag == U || e->tag == G)
			snprintf(text + at, sizeof(text) - at, "%c%u:%o,", tag, e->id, e->perm);
		else
			snprintf(text + at, sizeof(text) - at, "%c:%o,", tag, e->perm);
	}
	SEE(key, "%s", text);
}

static void acl_set(struct probe *p)
{
	make_mode(p, "f", 0640, 0, 0);
	make_dir(p, "d", 0755, 0, 0);
	NEED(symlink("f", "s") == 0);
	see_acl(p, "none", "f", ACCESS);
	see_acl(p, "none_default", "d", DEFAULT);
	TRY("simple", set_acl("f", ACCESS, "u:7 g:5 o:1"));
	see_mode(p, "simple_mode", "f");
	see_acl(p, "simple_acl", "f", ACCESS);
	TRY("extended", set_acl("f", ACCESS, "u:6 U1001:7 g:5 G2000:6 m:3 o:4"));
	see_mode(p, "extended_mode", "f");
	see_acl(p, "extended_acl", "f", ACCESS);
	TRY("chmod", chmod("f", 0527));
	see_mode(p, "chmod_mode", "f");
	see_acl(p, "chmod_acl", "f", ACCESS);
	TRY("back_to_simple", set_acl("f", ACCESS, "u:6 g:4 o:0"));
	see_mode(p, "back_mode", "f");
	see_acl(p, "back_acl", "f", ACCESS);
	TRY("again", set_acl("f", ACCESS, "u:6 U1001:4 g:4 m:4 o:0"));
	TRY("remove", removexattr("f", ACCESS));
	see_mode(p, "removed_mode", "f");
	see_acl(p, "removed_acl", "f", ACCESS);
	TRY("remove_again", removexattr("f", ACCESS));
	TRY("default_on_file", set_acl("f", DEFAULT, "u:7 g:5 o:1"));
	TRY("default", set_acl("d", DEFAULT, "u:7 U1001:5 g:5 m:5 o:1"));
	see_mode(p, "default_mode", "d");
	see_acl(p, "default_acl", "d", DEFAULT);
	TRY("default_empty", setxattr("d", DEFAULT, NULL, 0, 0));
	see_acl(p, "default_emptied", "d", DEFAULT);
	TRY("default_remove", removexattr("d", DEFAULT));
	TRY("on_symlink", lsetxattr("s", ACCESS, "\2\0\0\0", 4, 0));
	TRY("on_symlink_get", lgetxattr("s", ACCESS, NULL, 0));
	TRY("create_flag", setxattr("f", ACCESS, "\2\0\0\0", 4, XATTR_CREATE));
	/* What is no list. */
	TRY("no_mask", set_acl("f", ACCESS, "u:6 U1001:7 g:5 o:4"));
	TRY("no_other", set_acl("f", ACCESS, "u:6 g:5"));
	TRY("twice", set_acl("f", ACCESS, "u:6 u:6 g:5 o:4"));
	TRY("order", set_acl("f", ACCESS, "o:4 g:5 u:6"));
	TRY("bad_perm", set_acl("f", ACCESS, "u:10 g:5 o:4"));
	TRY("version", setxattr("f", ACCESS, "\1\0\0\0", 4, 0));
	TRY("short", setxattr("f", ACCESS, "\2\0\0", 3, 0));
	TRY("odd", setxattr("f", ACCESS, "\2\0\0\0abcde", 9, 0));
	TRY("header_only", setxattr("f", ACCESS, "\2\0\0\0", 4, 0));
	see_mode(p, "end_mode", "f");
}

static void acl_inherit(struct probe *p)
{
	struct stat st;
	int fd;

	make_dir(p, "d", 0755, 0, 0);
	NEED(set_acl("d", DEFAULT, "u:7 U1001:6 g:7 G2000:5 m:7 o:5") == 0);
	umask(077);
	NEED(mkdir("d/sub", 0777) == 0 && mknod("d/fifo", S_IFIFO | 0666, 0) == 0 && symlink("x", "d/lnk") == 0);
	close(open("d/f", O_CREAT | O_WRONLY, 0666));
	close(open("d/f640", O_CREAT | O_WRONLY, 0640));
	close(open("d/x", O_CREAT | O_WRONLY, 0777));
	see_mode(p, "f", "d/f");
	see_acl(p, "f_acl", "d/f", ACCESS);
	see_mode(p, "f640", "d/f640");
	see_acl(p, "f640_acl", "d/f640", ACCESS);
	see_mode(p, "x", "d/x");
	see_mode(p, "sub", "d/sub");
	see_acl(p, "sub_acl", "d/sub", ACCESS);
	see_acl(p, "sub_default", "d/sub", DEFAULT);
	see_mode(p, "fifo", "d/fifo");
	see_acl(p, "fifo_acl", "d/fifo", ACCESS);
	see_mode(p, "lnk", "d/lnk");
	fd = open("d", O_TMPFILE | O_RDWR, 0666);
	NEED(fd >= 0 && fstat(fd, &st) == 0);
	SEE("tmpfile", "%o", st.st_mode & 07777);
	close(open("d/sub/deep", O_CREAT | O_WRONLY, 0666));
	see_acl(p, "deep_acl", "d/sub/deep", ACCESS);
	/* A default list of three entries becomes permission bits. */
	make_dir(p, "e", 0755, 0, 0);
	NEED(set_acl("e", DEFAULT, "u:7 g:5 o:1") == 0);
	close(open("e/f", O_CREAT | O_WRONLY, 0666));
	see_mode(p, "minimal", "e/f");
	see_acl(p, "minimal_acl", "e/f", ACCESS);
	NEED(mkdir("e/sub", 0777) == 0);
	see_mode(p, "minimal_sub", "e/sub");
	see_acl(p, "minimal_sub_default", "e/sub", DEFAULT);
	/* Without one the umask counts. */
	close(open("plain", O_CREAT | O_WRONLY, 0666));
	see_mode(p, "plain", "plain");
	NEED(mkdir("plaind", 0777) == 0 && mknod("plainp", S_IFIFO | 0666, 0) == 0);
	see_mode(p, "plaind", "plaind");
	see_mode(p, "plainp", "plainp");
}

static void acl_enforced(struct probe *p)
{
	make_mode(p, "user", 0600, 0, 0);
	make_mode(p, "masked", 0600, 0, 0);
	make_mode(p, "group", 0600, 0, 0);
	make_mode(p, "deny", 0644, 0, 0);
	NEED(set_acl("user", ACCESS, "u:6 U1001:6 g:0 m:6 o:0") == 0);
	NEED(set_acl("masked", ACCESS, "u:6 U1001:6 g:0 m:4 o:0") == 0);
	NEED(set_acl("group", ACCESS, "u:6 g:0 G2000:4 m:4 o:0") == 0);
	NEED(set_acl("deny", ACCESS, "u:6 U1001:0 g:4 m:4 o:4") == 0);
	AS(USER) {
		TRY("user_rw", open("user", O_RDWR));
		TRY("masked_r", open("masked", O_RDONLY));
		TRY("masked_w", open("masked", O_WRONLY));
		TRY("group_r", open("group", O_RDONLY));
		TRY("group_w", open("group", O_WRONLY));
		TRY("deny_r", open("deny", O_RDONLY));
		TRY("set_other", set_acl("user", ACCESS, "u:6 g:0 o:7"));
		TRY("remove_other", removexattr("user", ACCESS));
	}
	AS(STRANGER) {
		TRY("stranger_user", open("user", O_RDONLY));
		TRY("stranger_group", open("group", O_RDONLY));
		TRY("stranger_deny", open("deny", O_RDONLY));
	}
	NEED(chmod("user", 0600) == 0); /* the mask is gone to nothing */
	AS(USER) {
		TRY("after_chmod", open("user", O_RDONLY));
	}
	/* Who sets a list on a file of a group that he is not in loses set-gid. */
	make_mode(p, "sgid", 02755, USER_ID, STRANGER_ID);
	make_mode(p, "sgid_own", 02755, USER_ID, GROUP_ID);
	AS(USER) {
		TRY("sgid_set", set_acl("sgid", ACCESS, "u:7 g:5 o:5"));
		see_mode(p, "sgid_mode", "sgid");
		TRY("sgid_own_set", set_acl("sgid_own", ACCESS, "u:7 g:5 o:5"));
		see_mode(p, "sgid_own_mode", "sgid_own");
	}
	make_mode(p, "sgid_root", 02755, 0, STRANGER_ID);
	TRY("sgid_root_set", set_acl("sgid_root", ACCESS, "u:7 g:5 o:5"));
	see_mode(p, "sgid_root_mode", "sgid_root");
}

const struct probe_case acl_cases[] = {
	{ "acl_set", acl_set, "" },
	{ "acl_inherit", acl_inherit, "" },
	{ "acl_enforced", acl_enforced, "" },
	{ 0 },
};

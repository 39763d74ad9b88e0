/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Modes and owners: who may change them, what set-id bits and file capabilities do when a file changes, who owns what is new. */
#include "probe.h"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/xattr.h>

static void priv_chmod(struct probe *p)
{
	make_mode(p, "own", 0644, USER_ID, USER_ID);
	make_mode(p, "own_group", 0644, USER_ID, GROUP_ID);
	make_mode(p, "own_other_group", 0644, USER_ID, STRANGER_ID);
	make_mode(p, "roots", 0666, 0, 0);
	make_dir(p, "dir_other_group", 0755, USER_ID, STRANGER_ID);
	AS(USER) {
		TRY("own", chmod("own", 07777));
		see_mode(p, "own_mode", "own");
		TRY("group", chmod("own_group", 02755));
		see_mode(p, "group_mode", "own_group");
		TRY("other_group", chmod("own_other_group", 06755));
		see_mode(p, "other_group_mode", "own_other_group");
		TRY("roots", chmod("roots", 0777));
		TRY("dir_other_group", chmod("dir_other_group", 03777));
		see_mode(p, "dir_other_group_mode", "dir_other_group");
	}
	TRY("root_other_group", chmod("own_other_group", 06755));
	see_mode(p, "root_other_group_mode", "own_other_group");
	TRY("type_bits", chmod("own", 0100644 | 01000000));
	see_mode(p, "type_bits_mode", "own");
}

static void priv_chown(struct probe *p)
{
	static const mode_t modes[] = { 06755, 06744, 06777, 02755, 02745, 04711, 06000 };
	char key[64];

	for (size_t i = 0; i < NR(modes); i++) {
		snprintf(key, sizeof(key), "root_%04o", modes[i]);
		make_mode(p, "f", modes[i], USER_ID, USER_ID);
		NEED(chown("f", STRANGER_ID, STRANGER_ID) == 0);
		see_mode(p, key, "f");
		NEED(unlink("f") == 0);
		snprintf(key, sizeof(key), "root_same_%04o", modes[i]);
		make_mode(p, "f", modes[i], USER_ID, USER_ID);
		NEED(chown("f", USER_ID, USER_ID) == 0);
		see_mode(p, key, "f");
		NEED(unlink("f") == 0);
		snprintf(key, sizeof(key), "none_%04o", modes[i]);
		make_mode(p, "f", modes[i], USER_ID, USER_ID);
		NEED(chown("f", (uid_t)-1, (gid_t)-1) == 0);
		see_mode(p, key, "f");
		make_mode(p, "g", modes[i], USER_ID, USER_ID);
		AS(USER) {
			snprintf(key, sizeof(key), "user_group_%04o", modes[i]);
			TRY(key, chown("g", (uid_t)-1, GROUP_ID));
			strcat(key, "_mode");
			see_mode(p, key, "g");
		}
		NEED(unlink("f") == 0 && unlink("g") == 0);
	}
	make_mode(p, "own", 0644, USER_ID, USER_ID);
	make_mode(p, "roots", 0666, 0, 0);
	make_dir(p, "d", 06755, USER_ID, USER_ID);
	AS(USER) {
		TRY("give_away", chown("own", STRANGER_ID, (gid_t)-1));
		TRY("foreign_group", chown("own", (uid_t)-1, STRANGER_ID));
		TRY("supplementary", chown("own", (uid_t)-1, GROUP_ID));
		TRY("same", chown("own", USER_ID, (gid_t)-1));
		TRY("roots", chown("roots", USER_ID, USER_ID));
		TRY("roots_none", chown("roots", (uid_t)-1, (gid_t)-1));
		TRY("dir_group", chown("d", (uid_t)-1, GROUP_ID));
		see_mode(p, "dir_mode", "d");
	}
	TRY("dir_root", chown("d", 5, 5));
	see_mode(p, "dir_root_mode", "d");
	NEED(mknod("fifo", S_IFIFO | 0644, 0) == 0 && chmod("fifo", 06755) == 0 && chown("fifo", 7, 7) == 0);
	see_mode(p, "fifo_mode", "fifo");
	see_owner(p, "fifo_owner", "fifo");
	TRY("big_ids", chown("own", 4000000000u, 4000000001u));
	see_owner(p, "big_owner", "own");
}

enum change { WRITE, WRITE_NOTHING, TRUNCATE, TRUNCATE_SAME, OPEN_TRUNC, FALLOCATE, PUNCH, ZERO, MMAP, DIRECT, COPY, APPEND };
static const char *const changes[] = { "write", "write0", "trunc", "trunc_same", "otrunc", "falloc", "punch", "zero", "mmap", "direct", "copy", "append" };

static void do_change(struct probe *p, enum change change, const char *path)
{
	static char page[4096] __attribute__((aligned(4096)));
	int fd = open(path, (change == OPEN_TRUNC ? O_TRUNC : 0) | (change == DIRECT ? O_DIRECT : 0) | (change == APPEND ? O_APPEND : 0) | O_RDWR), fd2;
	void *map;

	NEED(fd >= 0);
	switch (change) {
	case WRITE:
	case APPEND:
		NEED(write(fd, "x", 1) == 1);
		break;
	case WRITE_NOTHING:
		NEED(write(fd, "x", 0) == 0);
		break;
	case TRUNCATE:
		NEED(ftruncate(fd, 3) == 0);
		break;
	case TRUNCATE_SAME:
		NEED(ftruncate(fd, 7) == 0);
		break;
	case OPEN_TRUNC:
		break;
	case FALLOCATE:
		NEED(fallocate(fd, 0, 0, 100) == 0);
		break;
	case PUNCH:
		NEED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100) == 0);
		break;
	case ZERO:
		NEED(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 100) == 0);
		break;
	case MMAP:
		map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		NEED(map != MAP_FAILED);
		*(volatile char *)map = 'm';
		NEED(msync(map, 4096, MS_SYNC) == 0);
		munmap(map, 4096);
		break;
	case DIRECT:
		NEED(pwrite(fd, page, sizeof(page), 0) == sizeof(page));
		break;
	case COPY:
		fd2 = open("source", O_RDONLY);
		NEED(fd2 >= 0 && copy_file_range(fd2, NULL, fd, NULL, 3, 0) == 3);
		close(fd2);
		break;
	}
	close(fd);
}

static void setid(struct probe *p, enum probe_who who)
{
	static const mode_t modes[] = { 06777, 04767, 02777, 02767 };
	char key[64];

	make_mode(p, "source", 0644, 0, 0);
	for (size_t c = 0; c < NR(changes); c++)
		for (size_t m = 0; m < NR(modes); m++) {
			/* Somebody else's file; of a foreign group. */
			make_mode(p, "f", modes[m], STRANGER_ID, STRANGER_ID);
			snprintf(key, sizeof(key), "%s_%04o", changes[c], modes[m]);
			if (who == ROOT) {
				do_change(p, (enum change)c, "f");
				see_mode(p, key, "f");
			} else {
				AS(USER) {
					do_change(p, (enum change)c, "f");
					see_mode(p, key, "f");
				}
			}
			NEED(unlink("f") == 0);
		}
}

static void priv_setid_user(struct probe *p) { setid(p, USER); }
static void priv_setid_root(struct probe *p) { setid(p, ROOT); }

static void priv_setid_owner(struct probe *p)
{
	make_mode(p, "own", 06777, USER_ID, GROUP_ID);
	make_mode(p, "own_mandatory", 02766, USER_ID, GROUP_ID);
	AS(USER) {
		do_change(p, WRITE, "own");
		see_mode(p, "own", "own");
		do_change(p, WRITE, "own_mandatory");
		see_mode(p, "own_mandatory", "own_mandatory");
	}
}

static int set_capability(const char *path)
{
	/* cap_net_raw, effective */
	const struct vfs_cap_data cap = { .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, .data = { { .permitted = 1u << 13 } } };

	return setxattr(path, "security.capability", &cap, sizeof(cap), 0);
}

static void priv_capability(struct probe *p)
{
	char key[64];

	make_mode(p, "source", 0644, 0, 0);
	make_mode(p, "f", 0755, 0, 0);
	TRY("set", set_capability("f"));
	SEE("size", "%zd", getxattr("f", "security.capability", NULL, 0));
	TRY("chmod", chmod("f", 0777));
	TRY("after_chmod", getxattr("f", "security.capability", NULL, 0));
	TRY("other_xattr", setxattr("f", "user.x", "1", 1, 0));
	TRY("after_other_xattr", getxattr("f", "security.capability", NULL, 0));
	TRY("rename", rename("f", "g"));
	TRY("after_rename", getxattr("g", "security.capability", NULL, 0));
	TRY("chown", chown("g", 1, 1));
	TRY("after_chown", getxattr("g", "security.capability", NULL, 0));
	for (size_t c = 0; c < NR(changes); c++) {
		make_mode(p, "f", 0777, 0, 0);
		NEED(set_capability("f") == 0 && setxattr("f", "user.x", "1", 1, 0) == 0);
		do_change(p, (enum change)c, "f");
		snprintf(key, sizeof(key), "root_%s", changes[c]);
		TRY(key, getxattr("f", "security.capability", NULL, 0));
		NEED(unlink("f") == 0);
		make_mode(p, "f", 0777, 0, 0);
		NEED(set_capability("f") == 0);
		AS(USER) {
			do_change(p, (enum change)c, "f");
		}
		snprintf(key, sizeof(key), "user_%s", changes[c]);
		TRY(key, getxattr("f", "security.capability", NULL, 0));
		NEED(unlink("f") == 0);
	}
}

/* With both, root's write takes the capability only. */
static void priv_capability_and_setid(struct probe *p)
{
	char key[64];

	make_mode(p, "source", 0644, 0, 0);
	for (size_t c = 0; c < NR(changes); c++) {
		make_mode(p, "f", 06777, 0, 0);
		NEED(set_capability("f") == 0);
		do_change(p, (enum change)c, "f");
		snprintf(key, sizeof(key), "root_%s", changes[c]);
		see_mode(p, key, "f");
		NEED(unlink("f") == 0);
	}
}

static void see_new(struct probe *p, const char *key, const char *path)
{
	const struct stat st = stat_of(p, path);

	SEE(key, "%u:%u:%04o", st.st_uid, st.st_gid, st.st_mode & 07777);
}

static void priv_new(struct probe *p)
{
	make_dir(p, "plain", 0777, 0, 0);
	make_dir(p, "setgid", 02777, 0, GROUP_ID);
	make_dir(p, "foreign", 02777, 0, STRANGER_ID);
	make_dir(p, "setuid", 04777, STRANGER_ID, STRANGER_ID);
	AS(USER) {
		static const char *const dirs[] = { "plain", "setgid", "foreign", "setuid" };
		char key[64];

		umask(0);
		for (size_t i = 0; i < NR(dirs); i++) {
			NEED(chdir(dirs[i]) == 0);
			make(p, "f", "");
			close(open("sgid_x", O_CREAT | O_WRONLY, 02775));
			close(open("sgid_nox", O_CREAT | O_WRONLY, 02664));
			close(open("suid", O_CREAT | O_WRONLY, 04755));
			NEED(mkdir("d", 0755) == 0 && mkdir("dsgid", 02755) == 0 && mkdir("dsticky", 01777) == 0);
			NEED(symlink("x", "s") == 0 && mknod("p", S_IFIFO | 02775, 0) == 0);
			for (const char *const *n = (const char *const[]){ "f", "sgid_x", "sgid_nox", "suid", "d", "dsgid", "dsticky", "s", "p", NULL }; *n; n++) {
				snprintf(key, sizeof(key), "%s_%s", dirs[i], *n);
				see_new(p, key, *n);
			}
			NEED(chdir("..") == 0);
		}
	}
	make(p, "setgid/root", "");
	see_new(p, "root_in_setgid", "setgid/root");
	umask(0);
	close(open("bits", O_CREAT | O_WRONLY, 07777));
	see_new(p, "root_all_bits", "bits");
}

static void priv_sticky(struct probe *p)
{
	make_dir(p, "sticky", 01777, STRANGER_ID, STRANGER_ID);
	make_mode(p, "sticky/root", 0666, 0, 0);
	make_mode(p, "sticky/user", 0666, USER_ID, USER_ID);
	make_mode(p, "sticky/user2", 0666, USER_ID, USER_ID);
	make_dir(p, "sticky/rootd", 0777, 0, 0);
	make_dir(p, "sticky/userd", 0777, USER_ID, USER_ID);
	AS(USER) {
		TRY("unlink_other", unlink("sticky/root"));
		TRY("rmdir_other", rmdir("sticky/rootd"));
		TRY("rename_other", rename("sticky/root", "sticky/x"));
		TRY("write_other", open("sticky/root", O_WRONLY));
		TRY("unlink_own", unlink("sticky/user"));
		TRY("rmdir_own", rmdir("sticky/userd"));
		TRY("create", mkdir("sticky/new", 0755));
	}
	AS(STRANGER) { /* the directory's owner */
		TRY("owner_unlink", unlink("sticky/user2"));
		TRY("owner_unlink_root", unlink("sticky/root"));
	}
}

const struct probe_case priv_cases[] = {
	{ "priv_chmod", priv_chmod, "" },
	{ "priv_chown", priv_chown, "" },
	{ "priv_setid_user", priv_setid_user, "" },
	{ "priv_setid_root", priv_setid_root, "" },
	{ "priv_setid_owner", priv_setid_owner, "" },
	{ "priv_capability", priv_capability, "" },
	{ "priv_capability_and_setid", priv_capability_and_setid, "" },
	{ "priv_new", priv_new, "" },
	{ "priv_sticky", priv_sticky, "" },
	{ 0 },
};

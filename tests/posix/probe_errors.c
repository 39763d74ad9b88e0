/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Refusals that programs rely on: busy programs, wrong kinds, wrong descriptors. */
#include "probe.h"

#include <signal.h>
#include <sys/wait.h>

static void error_text_busy(struct probe *p)
{
	int fd, fds[2], hold[2];
	pid_t pid;
	char c;

	copy_program(p, "/bin/cat", "prog");
	fd = open_file(p, "prog", O_WRONLY);
	TRY("exec_while_open", execl("./prog", "prog", NULL));
	close(fd);
	NEED(pipe(fds) == 0 && pipe(hold) == 0);
	pid = fork();
	NEED(pid >= 0);
	if (!pid) {
		dup2(hold[0], 0);
		dup2(fds[1], 1);
		close(hold[1]);
		close(fds[1]);
		execl("./prog", "prog", NULL);
		_exit(9);
	}
	close(fds[1]);
	NEED(write(hold[1], "x", 1) == 1 && read(fds[0], &c, 1) == 1); /* it runs */
	TRY("open_write", open("prog", O_WRONLY));
	TRY("truncate", truncate("prog", 0));
	TRY("open_trunc", open("prog", O_WRONLY | O_TRUNC));
	TRY("open_read", open("prog", O_RDONLY));
	TRY("chmod", chmod("prog", 0700));
	TRY("rename", rename("prog", "moved"));
	TRY("unlink", unlink("moved"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	TRY("not_executable", execl("/proc/self/cwd/none", "x", NULL));
	make_mode(p, "plain", 0644, 0, 0);
	TRY("no_x", execl("./plain", "x", NULL));
	NEED(chmod("plain", 0755) == 0);
	TRY("no_format", execl("./plain", "x", NULL));
}

static void error_descriptors(struct probe *p)
{
	char buf[8];
	int d, gone;

	make(p, "f", "f");
	make_dir(p, "d", 0755, 0, 0);
	d = open_file(p, "d", O_RDONLY | O_DIRECTORY);
	gone = open_file(p, "f", O_RDONLY);
	TRY("at_file", openat(gone, "x", O_RDONLY));
	TRY("at_bad", openat(-5, "x", O_RDONLY));
	TRY("at_dir", openat(d, "x", O_CREAT | O_WRONLY, 0644));
	TRY("unlinkat_flags", unlinkat(d, "x", 0x40));
	TRY("unlinkat_rmdir_file", unlinkat(d, "x", AT_REMOVEDIR));
	TRY("unlinkat", unlinkat(d, "x", 0));
	TRY("fchdir_file", fchdir(gone));
	TRY("lseek_end", lseek(gone, 0, SEEK_END));
	TRY("fchmod_path", fchmod(open("f", O_PATH), 0600));
	TRY("fstat_path", fstat(open("f", O_PATH), &(struct stat){ 0 }));
	TRY("empty_path", fstatat(gone, "", &(struct stat){ 0 }, AT_EMPTY_PATH));
	TRY("bad_open_flags", open("f", O_TMPFILE & ~O_DIRECTORY));
	TRY("excl_without_creat", open("f", O_RDONLY | O_EXCL));
	TRY("wronly_rdwr", read(open("f", O_WRONLY | O_RDWR), buf, 1));
	TRY("chroot_file", chroot("f"));
	TRY("mknod_exists", mknod("f", S_IFREG | 0644, 0));
	TRY("fault", open((const char *)16, O_RDONLY));
}

static void error_open_modes(struct probe *p)
{
	int fd;

	/* A descriptor may write what its mode does not allow any more, and what a new file's mode never did. */
	umask(0);
	AS(USER) {
		fd = (int)TRY("create_no_rights", open("none", O_CREAT | O_RDWR, 0));
		SEE("write", "%zd", write(fd, "x", 1));
		TRY("open_again", open("none", O_RDONLY));
		TRY("truncate_fd", ftruncate(fd, 0));
		TRY("truncate_path", truncate("none", 0));
		fd = (int)TRY("create_read_only", open("ro", O_CREAT | O_RDWR | O_TRUNC, 0444));
		SEE("write_ro", "%zd", write(fd, "x", 1));
		NEED(fchmod(fd, 0) == 0);
		SEE("write_after_chmod", "%zd", write(fd, "x", 1));
		TRY("fallocate_after_chmod", fallocate(fd, 0, 0, 100));
		TRY("trunc_ro", open("ro", O_RDONLY | O_TRUNC));
		TRY("access", access("ro", R_OK));
	}
	make_mode(p, "roots", 0, 0, 0);
	TRY("root_reads_all", open("roots", O_RDWR));
	TRY("root_exec", access("roots", X_OK));
	make_mode(p, "t", 0644, 0, 0);
	TRY("rdonly_trunc", open("t", O_RDONLY | O_TRUNC));
	SEE("truncated", "%lld", (long long)stat_of(p, "t").st_size);
	TRY("create_trunc_exists", open("t", O_CREAT | O_TRUNC | O_WRONLY, 0600));
	see_mode(p, "mode_kept", "t");
}

/* statx: what is said, and what is asked for. */
static void error_statx(struct probe *p)
{
	struct statx sx;

	make(p, "f", "12345");
	TRY("basic", statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &sx));
	SEE("mask", "%x", sx.stx_mask & STATX_BASIC_STATS);
	TRY("sync", statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_ALL, &sx));
	SEE("size", "%llu:%u:%o", (unsigned long long)sx.stx_size, sx.stx_nlink, sx.stx_mode);
	TRY("no_sync", statx(AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_ALL, &sx));
	TRY("bad_mask", statx(AT_FDCWD, "f", 0, 0x80000000, &sx));
	TRY("bad_flags", statx(AT_FDCWD, "f", 0x1, STATX_ALL, &sx));
	SEE("blksize", "%d", sx.stx_blksize >= 512 && !(sx.stx_blksize & (sx.stx_blksize - 1)));
}

const struct probe_case error_cases[] = {
	{ "error_text_busy", error_text_busy, "" },
	{ "error_descriptors", error_descriptors, "" },
	{ "error_open_modes", error_open_modes, "" },
	{ "error_statx", error_statx, "" },
	{ 0 },
};

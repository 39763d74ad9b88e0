/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The probe: what a directory of a Linux filesystem does, call by call
 *
 * It judges nothing. Each case runs in a directory and a process of its own and notes what it saw as key=value; two filesystems that behave alike give the same notes. Hence: no value that two
 * correct filesystems may choose differently (sizes of directories, inode numbers, block counts), and none that depends on the hour.
 */
#ifndef POSIX_PROBE_H
#define POSIX_PROBE_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

#define NR(array) (sizeof(array) / sizeof((array)[0]))

struct probe {
	int out;        /* notes go here */
	char scope[64]; /* before each key, with a dot */
};

/* One row a case. Set "": always; the others want a state of the filesystem that whoever runs them brings about (probe_state.c). */
struct probe_case {
	const char *name;
	void (*fn)(struct probe *p);
	const char *set;
};
extern const struct probe_case rename_cases[], link_cases[], name_cases[], dir_cases[], time_cases[], xattr_cases[], acl_cases[], priv_cases[], space_cases[],
	copy_cases[], mmap_cases[], io_cases[], ioctl_cases[], lock_cases[], handle_cases[], race_cases[], error_cases[], state_cases[];

void probe_see(struct probe *p, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Notes "ok" or the errno's name; gives @r back. errno is the call's. */
long probe_try(struct probe *p, const char *key, long r);
#define TRY(key, call) probe_try(p, key, (long)(call))
#define SEE(key, ...) probe_see(p, key, __VA_ARGS__)
const char *probe_errno(int err);
/* What a case needs before it can look: ends the case with a note if it fails. */
void probe_need(struct probe *p, bool ok, const char *what);
#define NEED(what) probe_need(p, what, #what)

/* Somebody: root, the user 1001 (groups 1001, 2000), or a stranger 1002 (group 1002). */
enum probe_who { ROOT, USER, STRANGER };
#define USER_ID 1001
#define STRANGER_ID 1002
#define GROUP_ID 2000
/* AS(USER) { ... }: the block runs in a child with that identity. Without root it does not run. */
bool probe_become(struct probe *p, enum probe_who who);
#define AS(who) for (bool in_ = probe_become(p, who); in_; _exit(0))

/* Small tools; each ends the case when it cannot do its work. */
void make(struct probe *p, const char *path, const char *content);       /* a regular file, mode 0644 */
void make_bytes(struct probe *p, const char *path, char byte, size_t nr);
void make_mode(struct probe *p, const char *path, mode_t mode, uid_t uid, gid_t gid);
void make_dir(struct probe *p, const char *path, mode_t mode, uid_t uid, gid_t gid);
int open_file(struct probe *p, const char *path, int flags);              /* O_CREAT adds mode 0644 */
struct stat stat_of(struct probe *p, const char *path);                  /* lstat */
char type_of(const char *path);                                          /* - d l p s c b, or . for none */
void see_mode(struct probe *p, const char *key, const char *path);       /* permission bits, octal */
void see_owner(struct probe *p, const char *key, const char *path);
uint64_t sum_of(const void *data, size_t bytes);
void see_content(struct probe *p, const char *key, const char *path);    /* size and sum */
void copy_program(struct probe *p, const char *from, const char *to);    /* executable, by read and write */
/* The file's pages leave the cache: the next read is the filesystem's. May move access times. */
void drop_pages(struct probe *p, const char *path);
void tick(void); /* longer than the clock of any filesystem's times is coarse */

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who holds a device, read from a /proc and /sys of our own: mounts, swap, dm, md, bcache and the like, partitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "io/io_priv.h"

#define DISK makedev(250, 16) /* nothing has these numbers here */
#define PART makedev(250, 17)

struct rig {
	char dir[200], proc[220], sys[220];
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void make_dirs(char *path)
{
	for (char *p = path + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			if (mkdir(path, 0700) < 0)
				assert_int_equal(errno, EEXIST);
			*p = '/';
		}
}

/* A file below the rig, with the folders on the way; no text: a folder. */
static void put(const struct rig *rig, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s%s", rig->dir, name, text ? "" : "/");
	make_dirs(path);
	if (!text)
		return;
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	const char *tmp = getenv("TMPDIR");

	snprintf(rig->dir, sizeof(rig->dir), "%s/terrace-holder-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(rig->dir))
		return -1;
	snprintf(rig->proc, sizeof(rig->proc), "%s/proc", rig->dir);
	snprintf(rig->sys, sizeof(rig->sys), "%s/sys", rig->dir);
	*state = rig;
	put(rig, "proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	put(rig, "proc/self/mountinfo", "21 26 0:19 / /proc rw,nosuid - proc proc rw\n"
					"nonsense\n"
					"26 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n");
	put(rig, "sys/dev/block/250:16/holders", NULL);
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	nftw(rig->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(rig);
	return 0;
}

static void says(const struct rig *rig, dev_t rdev, const char *want)
{
	char text[768];

	ter_holder_describe_in(rig->proc, rig->sys, rdev, text, sizeof(text));
	assert_string_equal(text, want);
}

static void nobody_known(void **state)
{
	struct rig *rig = *state;

	says(rig, DISK, "is held by another program, perhaps another Terrace daemon");
	says(rig, makedev(250, 99), "is held by another program, perhaps another Terrace daemon"); /* not even in /sys */
	nftw(rig->proc, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	nftw(rig->sys, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	says(rig, DISK, "is held by another program, perhaps another Terrace daemon"); /* a container without them */
}

static void mounts_are_named(void **state)
{
	struct rig *rig = *state;

	put(rig, "proc/self/mountinfo", "26 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
					"30 26 250:16 / /mnt/a\\040blank rw shared:7 master:2 - xfs /dev/mapper/x rw\n");
	says(rig, DISK, "is mounted on '/mnt/a blank'");
}

/* dm has a name for people; md, bcache and drbd are known by their own. */
static void stacked_devices_are_named(void **state)
{
	struct rig *rig = *state;

	put(rig, "sys/dev/block/250:16/holders/dm-3", NULL);
	says(rig, DISK, "is part of '/dev/dm-3'");
	put(rig, "sys/class/block/dm-3/dm/name", "vg0-home\n");
	says(rig, DISK, "is part of '/dev/mapper/vg0-home'");
	put(rig, "sys/dev/block/250:17/holders/md127", NULL);
	says(rig, PART, "is part of '/dev/md127'");
	put(rig, "sys/dev/block/250:18/holders/bcache0", NULL);
	says(rig, makedev(250, 18), "is part of '/dev/bcache0'");
}

static void a_disk_is_held_by_its_partitions_holders(void **state)
{
	struct rig *rig = *state;

	put(rig, "sys/dev/block/250:16/queue/rotational", "0\n"); /* a folder that is no partition */
	put(rig, "sys/dev/block/250:16/vdb1/partition", "1\n");
	put(rig, "sys/dev/block/250:16/vdb1/dev", "250:17\n");
	put(rig, "sys/dev/block/250:17/holders", NULL);
	says(rig, DISK, "is held by another program, perhaps another Terrace daemon");
	put(rig, "sys/dev/block/250:17/holders/md0", NULL);
	says(rig, DISK, "has the partition '/dev/vdb1', which is part of '/dev/md0'");
	put(rig, "proc/self/mountinfo", "30 26 250:17 / /srv rw - ext4 /dev/vdb1 rw\n");
	says(rig, DISK, "has the partition '/dev/vdb1', which is mounted on '/srv'");
	put(rig, "sys/dev/block/250:16/vdb1/dev", "nonsense\n");
	says(rig, DISK, "is held by another program, perhaps another Terrace daemon");
}

static void swap_is_named(void **state)
{
	struct rig *rig = *state;
	char text[600], node[300];

	snprintf(node, sizeof(node), "%s/a node", rig->dir);
	if (mknod(node, S_IFBLK | 0600, DISK) < 0) {
		print_message("no device node may be made here\n");
		skip();
	}
	snprintf(text, sizeof(text), "Filename\tType\tSize\tUsed\tPriority\n/nowhere/at/all partition 1 0 -2\n%s/a\\040node partition 1048572 0 -3\n", rig->dir);
	put(rig, "proc/swaps", text);
	says(rig, DISK, "is used as swap space");
	says(rig, PART, "is held by another program, perhaps another Terrace daemon");
}

int main(void)
{
#define holder_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		holder_test(nobody_known),
		holder_test(mounts_are_named),
		holder_test(stacked_devices_are_named),
		holder_test(a_disk_is_held_by_its_partitions_holders),
		holder_test(swap_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

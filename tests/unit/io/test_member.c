/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening devices and files: what is refused and why, and that a claim keeps others out, of this process and of others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/io_priv.h"

#define MEMBER_BYTES TER_MIB(2)
#define UNIT 4096u

struct rig {
	struct ter_exec *exec;
	struct ter_io *io;
	char dir[200], path[256];
	char loop[64]; /* a block device over the file, where one may be made; else empty */
	int loop_fd;
	struct ter_error error;
};

static int setup_with(void **state, const char *backend)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	const char *tmp = getenv("TMPDIR");
	int fd;

	rig->loop_fd = -1;
	rig->exec = ter_exec_new_threads();
	if (ter_io_new(rig->exec, backend, &rig->io, NULL) < 0)
		return -1;
	snprintf(rig->dir, sizeof(rig->dir), "%s/terrace-member-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(rig->dir))
		return -1;
	snprintf(rig->path, sizeof(rig->path), "%s/member", rig->dir);
	fd = open(rig->path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, MEMBER_BYTES) < 0)
		return -1;
	close(fd);
	*state = rig;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, NULL);
}

static int setup_threads(void **state)
{
	return setup_with(state, "threads");
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	if (rig->loop_fd >= 0) {
		(void)ioctl(rig->loop_fd, LOOP_CLR_FD, 0);
		close(rig->loop_fd);
	}
	ter_io_free(rig->io);
	ter_exec_free(rig->exec);
	unlink(rig->path);
	rmdir(rig->dir);
	free(rig);
	return 0;
}

static bool make_loop(struct rig *rig)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file, nr;

	if (control < 0)
		return false;
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (nr < 0)
		return false;
	snprintf(rig->loop, sizeof(rig->loop), "/dev/loop%d", nr);
	rig->loop_fd = open(rig->loop, O_RDWR | O_CLOEXEC);
	file = open(rig->path, O_RDWR | O_CLOEXEC);
	if (rig->loop_fd < 0 || file < 0 || ioctl(rig->loop_fd, LOOP_SET_FD, file) < 0) {
		if (rig->loop_fd >= 0)
			close(rig->loop_fd);
		rig->loop_fd = -1;
	}
	close(file);
	return rig->loop_fd >= 0;
}

static void refused(struct rig *rig, const char *path, unsigned flags, enum ter_error_kind kind, const char *says)
{
	struct ter_bdev *bdev;

	ter_error_clear(&rig->error);
	assert_true(ter_bdev_open(rig->io, path, flags, &bdev, &rig->error) < 0);
	assert_string_equal(ter_error_name(rig->error.kind), ter_error_name(kind));
	if (!strstr(rig->error.text, says))
		fail_msg("'%s' is not in: %s", says, rig->error.text);
	assert_return_code(ter_bdev_open(rig->io, path, flags, &bdev, NULL) < 0 ? 0 : -1, 0);
}

/* What a process of its own gets: 0, or the errno. */
static int opened_by_another(struct rig *rig, const char *path, unsigned flags, enum ter_error_kind kind)
{
	int status;
	pid_t child = fork();

	if (!child) {
		struct ter_error error = {0};
		struct ter_member_fds fds;
		struct ter_bdev_info info;
		int r = ter_member_open(path, flags, &fds, &info, &error);

		_exit(r == 0 ? 0 : error.kind == kind ? -r : 255);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* --- what is no member --- */

static void only_devices_and_files_are_taken(void **state)
{
	struct rig *rig = *state;
	char path[300];

	refused(rig, "relative", 0, TER_ERR_INVALID_ARGUMENT, "absolute path");
	refused(rig, "/nowhere/at/all", 0, TER_ERR_NOT_FOUND, "/nowhere/at/all");
	refused(rig, rig->dir, 0, TER_ERR_INVALID_ARGUMENT, "is a directory");
	refused(rig, "/dev/null", 0, TER_ERR_INVALID_ARGUMENT, "is a character device");
	snprintf(path, sizeof(path), "%s/fifo", rig->dir);
	assert_return_code(mkfifo(path, 0600), errno);
	refused(rig, path, 0, TER_ERR_INVALID_ARGUMENT, "is a pipe");
	refused(rig, path, TER_OPEN_SHARED, TER_ERR_INVALID_ARGUMENT, "is a pipe");
	unlink(path);
	snprintf(path, sizeof(path), "%s/below", rig->path);
	refused(rig, path, 0, TER_ERR_NOT_FOUND, "There is no");
}

static void a_file_describes_itself(void **state)
{
	struct rig *rig = *state;
	struct ter_bdev *bdev;
	struct stat st;

	assert_return_code(stat(rig->path, &st), errno);
	assert_return_code(ter_bdev_open(rig->io, rig->path, 0, &bdev, NULL), 0);
	assert_true(bdev->info.is_file);
	assert_int_equal(bdev->info.bytes, MEMBER_BYTES);
	assert_int_equal(bdev->info.rdev, 0);
	assert_int_equal(bdev->info.disk, st.st_dev);
	assert_int_equal(bdev->info.file_dev, st.st_dev);
	assert_int_equal(bdev->info.file_ino, st.st_ino);
	assert_true(ter_is_pow2(bdev->info.logical_block_bytes) && bdev->info.logical_block_bytes >= 512);
	assert_true(bdev->info.physical_block_bytes >= bdev->info.logical_block_bytes);
	assert_string_equal(bdev->path, rig->path);
	ter_bdev_close(bdev);
	assert_return_code(ter_bdev_open(rig->io, rig->path, TER_OPEN_BUFFERED, &bdev, NULL), 0);
	assert_false(bdev->info.direct);
	assert_int_equal(bdev->info.logical_block_bytes, 512);
	ter_bdev_close(bdev);
}

/* The smallest block that a device claims really works, in every place where it matters. */
static void the_stated_block_size_works(void **state)
{
	struct rig *rig = *state;
	uint8_t *memory = aligned_alloc(2 * UNIT, 2 * UNIT);
	struct ter_bdev *bdev;
	uint32_t block;

	assert_return_code(ter_bdev_open(rig->io, rig->path, 0, &bdev, NULL), 0);
	block = bdev->info.logical_block_bytes;
	memset(memory, 3, 2 * UNIT);
	assert_return_code(ter_bdev_write(bdev, block, memory + block, block, 0), 0);
	assert_return_code(ter_bdev_write(bdev, 3 * block, memory + block, block, TER_BIO_FUA), 0);
	memset(memory, 0, 2 * UNIT);
	assert_return_code(ter_bdev_read(bdev, block, memory + block, block), 0);
	assert_int_equal(memory[block], 3);
	assert_int_equal(memory[2 * block - 1], 3);
	ter_bdev_close(bdev);
	free(memory);
}

/* --- claims on files --- */

static void a_claimed_file_is_nobody_elses(void **state)
{
	struct rig *rig = *state;
	struct ter_bdev *bdev, *shared;

	assert_return_code(ter_bdev_open(rig->io, rig->path, 0, &bdev, NULL), 0);
	refused(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE, "in use by another Terrace daemon");
	assert_int_equal(opened_by_another(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE), EBUSY);
	assert_int_equal(opened_by_another(rig, rig->path, TER_OPEN_RDONLY, TER_ERR_DEVICE_IN_USE), EBUSY);
	assert_int_equal(opened_by_another(rig, rig->path, TER_OPEN_SHARED, TER_ERR_NONE), 0);
	assert_return_code(ter_bdev_open(rig->io, rig->path, TER_OPEN_SHARED, &shared, NULL), 0);
	ter_bdev_close(shared);
	assert_int_equal(opened_by_another(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE),
			 EBUSY); /* a look let nothing go */
	ter_bdev_close(bdev);
	assert_int_equal(opened_by_another(rig, rig->path, 0, TER_ERR_NONE), 0);

	assert_return_code(ter_bdev_open(rig->io, rig->path, TER_OPEN_RDONLY, &bdev, NULL), 0);
	assert_int_equal(opened_by_another(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE), EBUSY);
	ter_bdev_close(bdev);
}

static void a_failed_opening_keeps_no_claim(void **state)
{
	struct rig *rig = *state;
	struct ter_bdev *bdev;

	for (unsigned i = 0; i < 300; i++) { /* more than there are slots of registered files */
		assert_return_code(ter_bdev_open(rig->io, rig->path, 0, &bdev, NULL), 0);
		refused(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE, "in use");
		ter_bdev_close(bdev);
	}
}

/* --- block devices --- */

static void a_block_device_describes_itself_and_has_one_owner(void **state)
{
	struct rig *rig = *state;
	uint8_t *memory = aligned_alloc(UNIT, UNIT);
	struct ter_bdev *bdev, *again;
	struct stat st;

	if (!make_loop(rig)) {
		free(memory);
		print_message("no loop device may be made here\n");
		skip();
	}
	assert_return_code(stat(rig->loop, &st), errno);
	assert_return_code(ter_bdev_open(rig->io, rig->loop, 0, &bdev, NULL), 0);
	assert_false(bdev->info.is_file);
	assert_int_equal(bdev->info.bytes, MEMBER_BYTES);
	assert_int_equal(bdev->info.rdev, st.st_rdev);
	assert_int_equal(bdev->info.disk, st.st_rdev);
	assert_int_equal(bdev->info.logical_block_bytes, 512);

	memset(memory, 5, UNIT);
	assert_return_code(ter_bdev_write(bdev, UNIT, memory, UNIT, TER_BIO_FUA), 0);
	assert_return_code(ter_bdev_flush(bdev), 0);
	memset(memory, 0, UNIT);
	assert_return_code(ter_bdev_read(bdev, UNIT, memory, UNIT), 0);
	assert_int_equal(memory[77], 5);
	if (bdev->info.can_discard) {
		assert_return_code(ter_bdev_discard(bdev, UNIT, UNIT), 0);
		assert_return_code(ter_bdev_read(bdev, UNIT, memory, UNIT), 0);
		assert_int_equal(memory[77], 0);
	}
	assert_int_equal(ter_bdev_discard(bdev, MEMBER_BYTES, UNIT), -EINVAL);

	refused(rig, rig->loop, 0, TER_ERR_DEVICE_IN_USE, "perhaps another Terrace daemon");
	assert_int_equal(opened_by_another(rig, rig->loop, 0, TER_ERR_DEVICE_IN_USE), EBUSY);
	assert_return_code(ter_bdev_open(rig->io, rig->loop, TER_OPEN_SHARED, &again, NULL), 0);
	ter_bdev_close(again);
	ter_bdev_close(bdev);
	for (unsigned i = 0; i < 20; i++) { /* closing gives the claim up at once */
		assert_return_code(ter_bdev_open(rig->io, rig->loop, i % 2 ? TER_OPEN_RDONLY : 0, &bdev, NULL), 0);
		ter_bdev_close(bdev);
	}
	free(memory);
}

/* Both hold the same bytes: whoever has the one keeps everybody from the other. */
static void a_loop_device_and_its_file_are_one(void **state)
{
	struct rig *rig = *state;
	struct ter_bdev_node node, other;
	struct ter_bdev *bdev;
	char link[300];

	snprintf(link, sizeof(link), "%s/link", rig->dir);
	assert_return_code(symlink(rig->path, link), errno);
	assert_return_code(ter_bdev_node_of(rig->path, &node), 0);
	assert_return_code(ter_bdev_node_of(link, &other), 0);
	unlink(link);
	assert_true(ter_bdev_node_same(&node, &other));
	assert_int_equal(ter_bdev_node_of(link, &other), -ENOENT);
	assert_return_code(ter_bdev_node_of(rig->dir, &other), 0);
	assert_false(ter_bdev_node_same(&node, &other));
	if (!make_loop(rig)) {
		print_message("no loop device may be made here\n");
		skip();
	}
	assert_return_code(ter_bdev_node_of(rig->loop, &other), 0);
	assert_true(ter_bdev_node_same(&node, &other));

	refused(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE, rig->loop); /* even though nobody has the loop device open */
	refused(rig, rig->path, TER_OPEN_RDONLY, TER_ERR_DEVICE_IN_USE, "losetup --detach");
	assert_return_code(ter_bdev_open(rig->io, rig->path, TER_OPEN_SHARED, &bdev, NULL), 0);
	ter_bdev_close(bdev);
	assert_return_code(ter_bdev_open(rig->io, rig->loop, 0, &bdev, NULL), 0);
	refused(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE, "in use by another Terrace daemon");
	assert_int_equal(opened_by_another(rig, rig->path, 0, TER_ERR_DEVICE_IN_USE), EBUSY);
	ter_bdev_close(bdev);

	assert_return_code(ioctl(rig->loop_fd, LOOP_CLR_FD, 0), errno);
	close(rig->loop_fd);
	rig->loop_fd = -1;
	assert_return_code(ter_bdev_open(rig->io, rig->path, 0, &bdev, NULL), 0); /* the file first */
	if (!make_loop(rig)) {
		ter_bdev_close(bdev);
		skip();
	}
	refused(rig, rig->loop, 0, TER_ERR_DEVICE_IN_USE, rig->path);
	ter_bdev_close(bdev);
	for (unsigned i = 0; i < 20; i++) { /* closing gives the file up, too */
		assert_return_code(ter_bdev_open(rig->io, rig->loop, i % 2 ? TER_OPEN_RDONLY : 0, &bdev, NULL), 0);
		ter_bdev_close(bdev);
	}
}

static void a_mounted_device_is_refused_with_its_mount_point(void **state)
{
	struct rig *rig = *state;
	char command[400], mount_point[300];
	struct ter_bdev *bdev;
	int another, r;
	bool terrace;
	struct stat st;

	snprintf(command, sizeof(command), "mkfs.ext4 -q -F '%s' >/dev/null 2>&1", rig->path);
	snprintf(mount_point, sizeof(mount_point), "%s/a blank", rig->dir);
	if (system(command) != 0 || !make_loop(rig)) {
		print_message("no loop device may be made here\n");
		skip();
	}
	assert_return_code(mkdir(mount_point, 0700), errno);
	if (mount(rig->loop, mount_point, "ext4", 0, NULL) < 0) {
		rmdir(mount_point);
		print_message("nothing may be mounted here\n");
		skip();
	}
	/* All is looked at first, then unmounted, then judged: a failure leaves no mount behind. */
	ter_error_clear(&rig->error);
	terrace = stat(mount_point, &st) < 0 || ter_dev_is_terrace_mount(st.st_dev);
	another = opened_by_another(rig, rig->loop, 0, TER_ERR_DEVICE_IN_USE);
	r = ter_bdev_open(rig->io, rig->loop, 0, &bdev, &rig->error);
	if (r == 0)
		ter_bdev_close(bdev);
	umount(mount_point);
	rmdir(mount_point);
	assert_false(terrace);
	assert_int_equal(another, EBUSY);
	assert_int_equal(r, -EBUSY);
	if (!strstr(rig->error.text, "is mounted on '") || !strstr(rig->error.text, "a blank'"))
		fail_msg("no mount point in: %s", rig->error.text);
}

#define member_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		member_test(only_devices_and_files_are_taken),
		member_test(a_file_describes_itself),
		member_test(the_stated_block_size_works),
		member_test(a_claimed_file_is_nobody_elses),
		member_test(a_failed_opening_keeps_no_claim),
		member_test(a_block_device_describes_itself_and_has_one_owner),
		member_test(a_loop_device_and_its_file_are_one),
		member_test(a_mounted_device_is_refused_with_its_mount_point),
		cmocka_unit_test_setup_teardown(the_stated_block_size_works, setup_threads, teardown),
		cmocka_unit_test_setup_teardown(a_claimed_file_is_nobody_elses, setup_threads, teardown),
		cmocka_unit_test_setup_teardown(a_block_device_describes_itself_and_has_one_owner, setup_threads,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

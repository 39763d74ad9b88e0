/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a device holds already, as libblkid sees it. */
#include <blkid.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "super/super_priv.h"
#include "util/fault.h"

TER_FAULT_POINT(fault_signature, "super.signature", EIO, "the look at what a device holds")

static void close_probe(blkid_probe *probe)
{
	if (*probe)
		blkid_free_probe(*probe);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

int ter_super_signature(const char *path, char *type, size_t type_bytes, struct ter_error *error)
{
	_cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_(close_probe) blkid_probe probe = NULL;
	const char *value = NULL;
	int r;

	type[0] = 0;
	if (TER_FAULT(fault_signature) < 0)
		return ter_fail(error, TER_ERR_FAULT_INJECTED, "Looking at what '%s' holds failed because a test asked for it.", path);
	if (fd < 0)
		return ter_fail_errno(error, -errno, "Cannot open '%s' to see what it holds: %s.", path, strerror(errno));
	probe = blkid_new_probe();
	if (!probe)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to look at '%s'.", path);
	if (blkid_probe_set_device(probe, fd, 0, 0) != 0)
		return 0; /* empty: nothing can be on it */

	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE);
	blkid_probe_enable_partitions(probe, 1);
	r = blkid_do_safeprobe(probe);
	if (r == -2) { /* several signatures that contradict each other */
		snprintf(type, type_bytes, "several signatures");
		return 0;
	}
	if (r < 0)
		return ter_fail(error, TER_ERR_IO, "Cannot read '%s' to see what it holds.", path);
	if (r > 0)
		return 0;
	if (blkid_probe_lookup_value(probe, "TYPE", &value, NULL) == 0 || blkid_probe_lookup_value(probe, "PTTYPE", &value, NULL) == 0)
		snprintf(type, type_bytes, "%s", value);
	return 0;
}

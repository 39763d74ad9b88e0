/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount.terrace SOURCE DIR [-o OPTIONS] [-sfnvN] [-t TYPE]: what mount(8) calls for type terrace
 *
 * Starts the filesystem if need be, opens /dev/fuse, mounts, and hands the descriptor to the daemon. SOURCE: terrace:LABEL, terrace:UUID, UUID=, LABEL=, or a member's path.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "fuse/mount_fuse.h"

#define READ_AHEAD_KIB 1024
#define OPTIONS_MAX 1024

struct request {
	struct td_mount_options mount;
	const char *degraded;
	bool fake;
};

/* Options of the kernel and of ours; those of fstab's readers (nofail, x-…, _netdev) are not for us. */
static int parse_options(char *list, struct request *request)
{
	char *at = NULL;

	for (char *o = strtok_r(list, ",", &at); o; o = strtok_r(NULL, ",", &at)) {
		if (strcmp(o, "ro") == 0)
			request->mount.read_only = true;
		else if (strcmp(o, "nosuid") == 0)
			request->mount.nosuid = true;
		else if (strcmp(o, "nodev") == 0)
			request->mount.nodev = true;
		else if (strcmp(o, "noexec") == 0)
			request->mount.noexec = true;
		else if (strcmp(o, "noatime") == 0)
			request->mount.noatime = true;
		else if (strncmp(o, "degraded=", 9) == 0)
			request->degraded = o + 9;
		else if (strcmp(o, "rw") && strcmp(o, "suid") && strcmp(o, "dev") && strcmp(o, "exec") && strcmp(o, "atime") && strcmp(o, "relatime") &&
			 strcmp(o, "auto") && strcmp(o, "noauto") && strcmp(o, "nofail") && strcmp(o, "_netdev") && strcmp(o, "user") &&
			 strcmp(o, "nouser") && strcmp(o, "defaults") && strncmp(o, "x-", 2))
			return ctl_fail(_("There is no mount option '%s'."), o);
	}
	return CTL_OK;
}

static const char *spec_of(const char *source)
{
	return strncmp(source, "terrace:", 8) == 0 ? source + 8 : source;
}

static int attach(struct ctl *ctl, const char *path, int fd, const char *where)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	int code, r;

	code = ctl_new_call(ctl, path, CTL_IFACE("Filesystem"), "AttachFuse", &m);
	if (code != CTL_OK)
		return code;
	r = sd_bus_message_append(m, "hsa{sv}", fd, where, 0);
	return r < 0 ? ctl_error(NULL, r) : ctl_call_message(ctl, m, &reply);
}

static int mount_pool(struct ctl *ctl, const char *source, const char *where, struct request *request)
{
	struct ter_error error = { 0 };
	char *path = NULL, *full = NULL;
	int fd = -1, code;

	code = ctl_resolve(ctl, spec_of(source), &path);
	if (code == CTL_OK && !(full = realpath(where, NULL)))
		code = ctl_fail(_("The mount point '%s' cannot be used: %s."), where, strerror(errno));
	if (code == CTL_OK)
		code = ctl_check_text(full);
	if (code == CTL_OK)
		code = ctl_start_pool(ctl, path);
	if (code == CTL_OK && !request->fake) {
		request->mount.source = source;
		if (td_mount(full, &request->mount, &fd, &error) < 0)
			code = ctl_fail("%s", error.text);
	}
	if (code == CTL_OK && fd >= 0) {
		code = attach(ctl, path, fd, full);
		if (code != CTL_OK)
			(void)td_unmount(full, true, NULL); /* the first error is the one to tell */
		else
			td_raise_read_ahead(full, READ_AHEAD_KIB);
	}
	if (fd >= 0)
		close(fd);
	free(full);
	free(path);
	return code;
}

int main(int argc, char **argv)
{
	char options[OPTIONS_MAX] = "";
	struct request request = { 0 };
	struct ctl ctl = { .quiet = true };
	int c, code;

	setlocale(LC_ALL, "");
	bindtextdomain("terrace", TERRACE_LOCALE_DIR);
	textdomain("terrace");
	while ((c = getopt(argc, argv, "o:sfnvN:t:")) != -1) {
		if (c == 'o' && snprintf(options, sizeof(options), "%s", optarg) >= (int)sizeof(options))
			return ctl_fail(_("The mount options are too long."));
		if (c == 'f')
			request.fake = true;
		if (c == '?')
			return CTL_USAGE;
	}
	if (argc - optind != 2) {
		fprintf(stderr, _("Usage: mount.terrace SOURCE DIR [-o OPTIONS]\n"));
		return CTL_USAGE;
	}
	code = parse_options(options, &request);
	if (code != CTL_OK)
		return code;
	ctl.degraded = request.degraded;
	ctl.read_only = request.mount.read_only;
	code = ctl_connect(&ctl, CTL_BUS_AUTO, NULL);
	if (code == CTL_OK)
		code = mount_pool(&ctl, argv[optind], argv[optind + 1], &request);
	sd_bus_flush_close_unref(ctl.bus);
	return code;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terracectl status: what a person wants to know of a filesystem, or everything as JSON. */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR_WIDTH 24
#define PATH_WIDTH 32

/* --- reading properties into memory: one GetAll for each interface --- */

static int get_all(struct ctl *ctl, const char *path, const char *interface, sd_bus_message **ret)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call_method(ctl->bus, CTL_NAME, path, "org.freedesktop.DBus.Properties", "GetAll", &error, ret, "s", interface);

	return r < 0 ? ctl_error(&error, r) : CTL_OK;
}

/* Positions @m at the property's variant content. 1 found, 0 not. */
static int seek(sd_bus_message *m, const char *name, const char *type)
{
	int r = sd_bus_message_rewind(m, 1);

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "{sv}");
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const char *key;

		r = sd_bus_message_read(m, "s", &key);
		if (r >= 0 && strcmp(key, name) == 0)
			return sd_bus_message_enter_container(m, 'v', type) > 0;
		if (r >= 0)
			r = sd_bus_message_skip(m, "v");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return 0;
}

static const char *str(sd_bus_message *m, const char *name)
{
	const char *s = "";

	return seek(m, name, "s") && sd_bus_message_read(m, "s", &s) >= 0 ? s : "";
}

static uint64_t u64(sd_bus_message *m, const char *name)
{
	uint64_t v = 0;

	return seek(m, name, "t") && sd_bus_message_read(m, "t", &v) >= 0 ? v : 0;
}

static bool boolean(sd_bus_message *m, const char *name)
{
	int v = 0;

	return seek(m, name, "b") && sd_bus_message_read(m, "b", &v) >= 0 && v;
}

static double number(sd_bus_message *m, const char *name)
{
	double v = 0;

	return seek(m, name, "d") && sd_bus_message_read(m, "d", &v) >= 0 ? v : 0;
}

/* --- for people --- */

static const char *size_text(uint64_t bytes, char buf[32])
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned i = 0;

	while (v >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		v /= 1024;
		i++;
	}
	snprintf(buf, 32, i && v < 100 ? "%.1f %s" : "%.0f %s", v, unit[i]);
	return buf;
}

static void print_bar(uint64_t used, uint64_t all)
{
	const unsigned full = all ? (unsigned)((double)used / (double)all * BAR_WIDTH + 0.5) : 0;

	putchar('[');
	for (unsigned i = 0; i < BAR_WIDTH; i++)
		putchar(i < full ? '#' : '.');
	printf("] %3.0f %%", all ? 100.0 * (double)used / (double)all : 0.0);
}

/* On one line, whatever names are in it. Returns how many bytes it took. */
static int print_text(const char *text)
{
	int nr = 0;

	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f) {
			nr += printf("\\x%02x", (unsigned char)*text);
		} else {
			putchar(*text);
			nr++;
		}
	}
	return nr;
}

static void print_sentence(const char *text)
{
	printf("  ");
	print_text(text);
	putchar('\n');
}

static int print_device(struct ctl *ctl, const char *path)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *usage = NULL;
	uint64_t errors;
	char a[32], b[32];
	bool online, present;
	int code, columns;

	code = get_all(ctl, path, CTL_IFACE("Device"), &m);
	if (code == CTL_OK)
		code = get_all(ctl, path, CTL_IFACE("Usage"), &usage);
	if (code != CTL_OK)
		return code;
	online = boolean(m, "Online");
	present = online || boolean(m, "Present");
	printf("    ");
	columns = print_text(present ? str(m, "Path") : str(m, "UUID"));
	printf("%*s %-7s ", columns < PATH_WIDTH ? PATH_WIDTH - columns : 0, "", present ? str(m, "State") : _("missing"));
	if (online) {
		printf("%10s / %-10s ", size_text(u64(usage, "Used"), a), size_text(u64(usage, "Capacity"), b));
		print_bar(u64(usage, "Used"), u64(usage, "Capacity"));
	}
	errors = u64(m, "ReadErrors") + u64(m, "WriteErrors") + u64(m, "ChecksumErrors") + u64(m, "FlushErrors");
	if (errors)
		printf(ngettext("  %llu error", "  %llu errors", (unsigned long)errors), (unsigned long long)errors);
	if (online && u64(m, "DataAtRisk"))
		printf(_("  %s lie only here"), size_text(u64(m, "DataAtRisk"), a));
	putchar('\n');
	return CTL_OK;
}

/* ByReplicas a(syyaottt): type, copies, required, devices, bytes, degraded bytes, … summed by type and number of copies. */
static int print_replicas(struct ctl *ctl, const char *path)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	struct row {
		char type[32];
		uint8_t nr;
		uint64_t bytes, degraded;
	} rows[64];
	unsigned nr = 0;
	char a[32], b[32];
	int r;

	r = sd_bus_get_property(ctl->bus, CTL_NAME, path, CTL_IFACE("Usage"), "ByReplicas", &error, &m, "a(syyaottt)");
	if (r < 0)
		return ctl_error(&error, r);
	r = sd_bus_message_enter_container(m, 'a', "(syyaottt)");
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'r', "syyaottt")) > 0) {
		uint8_t copies, required;
		uint64_t bytes, degraded, ec;
		const char *type;
		unsigned i;

		r = sd_bus_message_read(m, "syy", &type, &copies, &required);
		if (r >= 0)
			r = sd_bus_message_skip(m, "ao");
		if (r >= 0)
			r = sd_bus_message_read(m, "ttt", &bytes, &degraded, &ec);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
		if (r < 0)
			break;
		for (i = 0; i < nr; i++)
			if (rows[i].nr == copies && strcmp(rows[i].type, type) == 0)
				break;
		if (i == sizeof(rows) / sizeof(rows[0]))
			continue;
		if (i == nr) {
			rows[nr] = (struct row){ .nr = copies };
			snprintf(rows[nr++].type, sizeof(rows[0].type), "%s", type);
		}
		rows[i].bytes += bytes;
		rows[i].degraded += degraded;
	}
	if (r < 0)
		return ctl_error(NULL, r);
	printf("  %s\n", _("Data by replicas"));
	for (unsigned i = 0; i < nr; i++) {
		printf("    %-8s %u × %s", rows[i].type, rows[i].nr, size_text(rows[i].bytes, a));
		if (rows[i].degraded)
			printf(_("  (%s degraded)"), size_text(rows[i].degraded, b));
		putchar('\n');
	}
	return CTL_OK;
}

static int print_devices(struct ctl *ctl, sd_bus_message *fs)
{
	const char *path;
	int r = seek(fs, "Devices", "ao") ? sd_bus_message_enter_container(fs, 'a', "o") : 0;

	printf("  %s\n", _("Members"));
	while (r > 0 && (r = sd_bus_message_read(fs, "o", &path)) > 0) {
		const int code = print_device(ctl, path);

		if (code != CTL_OK)
			return code;
	}
	return r < 0 ? ctl_error(NULL, r) : CTL_OK;
}

/* Alerts a(ssst): each says what is wrong and what to do. */
static void print_alerts(sd_bus_message *fs)
{
	const char *id, *severity, *text;
	uint64_t since;
	int r = seek(fs, "Alerts", "a(ssst)") ? sd_bus_message_enter_container(fs, 'a', "(ssst)") : 0;

	while (r > 0 && (r = sd_bus_message_read(fs, "(ssst)", &id, &severity, &text, &since)) > 0) {
		printf("  %s: ", severity);
		print_text(text);
		putchar('\n');
	}
}

static void print_mounts(sd_bus_message *fs)
{
	const char *where;
	int r = seek(fs, "MountPoints", "as") ? sd_bus_message_enter_container(fs, 'a', "s") : 0;

	while (r > 0 && (r = sd_bus_message_read(fs, "s", &where)) > 0)
		printf("  %s %s\n", _("Mounted at"), where);
}

static int print_usage(struct ctl *ctl, const char *path)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *usage = NULL;
	char a[32], b[32], c[32];
	const int code = get_all(ctl, path, CTL_IFACE("Usage"), &usage);

	if (code != CTL_OK)
		return code;
	printf("  %s ", _("Usage"));
	print_bar(u64(usage, "Used"), u64(usage, "Capacity"));
	printf(_("  %s of %s used, %s can be written"), size_text(u64(usage, "Used"), a), size_text(u64(usage, "Capacity"), b),
	       size_text(u64(usage, "Available"), c));
	printf(_(", %llu inodes\n"), (unsigned long long)u64(usage, "Inodes"));
	if (number(usage, "CompressionRatio") > 0)
		printf(_("  Compression ratio %.2f\n"), number(usage, "CompressionRatio"));
	return CTL_OK;
}

static int print_filesystem(struct ctl *ctl, const char *path, bool *ret_degraded)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *fs = NULL;
	const char *label, *message;
	bool running;
	int code;

	code = get_all(ctl, path, CTL_IFACE("Filesystem"), &fs);
	if (code != CTL_OK)
		return code;
	*ret_degraded = *ret_degraded || boolean(fs, "Degraded") || strcmp(str(fs, "State"), "incomplete") == 0;
	if (ctl->quiet)
		return CTL_OK;
	label = str(fs, "Label");
	printf("%s%s%s  ", *label ? label : "", *label ? "  " : "", str(fs, "UUID"));
	running = strcmp(str(fs, "State"), "running") == 0;
	printf("%s", str(fs, "State"));
	if (running)
		printf(" (%s)", str(fs, "AccessMode"));
	if (boolean(fs, "Degraded"))
		printf("  %s", _("DEGRADED"));
	putchar('\n');
	message = str(fs, "StateMessage");
	if (*message)
		print_sentence(message);
	message = str(fs, "LastError");
	if (*message && strcmp(str(fs, "AccessMode"), "emergency-ro") != 0) /* what comes after that stands among the alerts */
		print_sentence(message);
	print_mounts(fs);
	print_alerts(fs);
	if (running)
		code = print_usage(ctl, path);
	if (code == CTL_OK)
		code = print_devices(ctl, fs);
	if (code == CTL_OK && running)
		code = print_replicas(ctl, path);
	return code;
}

/* --- json --- */

static int print_json_interfaces(struct ctl *ctl, const char *path, const char *const *interfaces)
{
	printf("{\"path\":");
	ctl_json_string(path);
	for (; *interfaces; interfaces++) {
		_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
		const int code = get_all(ctl, path, *interfaces, &m);
		int r;

		if (code != CTL_OK)
			return code;
		putchar(',');
		ctl_json_string(*interfaces + strlen(CTL_NAME) + 1);
		putchar(':');
		r = ctl_json_value(m);
		if (r < 0)
			return ctl_error(NULL, r);
	}
	return CTL_OK;
}

static int print_json(struct ctl *ctl, const char *path, bool *ret_degraded)
{
	static const char *const fs_interfaces[] = { CTL_IFACE("Filesystem"), CTL_IFACE("Usage"), CTL_IFACE("Options"), NULL };
	static const char *const dev_interfaces[] = { CTL_IFACE("Device"), CTL_IFACE("Usage"), NULL };
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *fs = NULL;
	bool first = true;
	const char *dev;
	int code, r;

	code = get_all(ctl, path, CTL_IFACE("Filesystem"), &fs);
	if (code == CTL_OK)
		code = print_json_interfaces(ctl, path, fs_interfaces);
	if (code != CTL_OK)
		return code;
	*ret_degraded = *ret_degraded || boolean(fs, "Degraded");
	printf(",\"devices\":[");
	r = seek(fs, "Devices", "ao") ? sd_bus_message_enter_container(fs, 'a', "o") : 0;
	while (code == CTL_OK && r > 0 && (r = sd_bus_message_read(fs, "o", &dev)) > 0) {
		printf("%s", first ? "" : ",");
		first = false;
		code = print_json_interfaces(ctl, dev, dev_interfaces);
		putchar('}');
	}
	printf("]}");
	return code;
}

/* --- the command --- */

static int list_filesystems(struct ctl *ctl, char ***ret_paths, unsigned *ret_nr)
{
	_cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	char **paths = calloc(CTL_PATHS_MAX, sizeof(*paths));
	unsigned nr = 0;
	int r;

	if (!paths)
		return ctl_error(NULL, -ENOMEM);
	r = sd_bus_call_method(ctl->bus, CTL_NAME, CTL_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &error, &reply, "");
	if (r < 0) {
		free(paths);
		return ctl_error(&error, r);
	}
	r = sd_bus_message_enter_container(reply, 'a', "{oa{sa{sv}}}");
	while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "oa{sa{sv}}")) > 0) {
		const char *path;

		r = sd_bus_message_read(reply, "o", &path);
		if (r >= 0 && nr < CTL_PATHS_MAX && strncmp(path, CTL_ROOT "/filesystems/", strlen(CTL_ROOT "/filesystems/")) == 0) {
			paths[nr] = strdup(path);
			nr += paths[nr] != NULL;
		}
		if (r >= 0)
			r = sd_bus_message_skip(reply, "a{sa{sv}}");
		if (r >= 0)
			r = sd_bus_message_exit_container(reply);
	}
	*ret_paths = paths;
	*ret_nr = nr;
	return CTL_OK;
}

int ctl_cmd_status(struct ctl *ctl, int argc, char **argv)
{
	bool degraded = false;
	char **paths = NULL;
	unsigned nr = 0;
	int code;

	if (argc) {
		paths = calloc(1, sizeof(*paths));
		code = paths ? ctl_resolve(ctl, argv[0], &paths[0]) : ctl_error(NULL, -ENOMEM);
		nr = code == CTL_OK;
	} else {
		code = list_filesystems(ctl, &paths, &nr);
	}
	if (code == CTL_OK && ctl->json)
		putchar('[');
	for (unsigned i = 0; i < nr && code == CTL_OK; i++) {
		if (i)
			putchar(ctl->json ? ',' : '\n');
		code = ctl->json ? print_json(ctl, paths[i], &degraded) : print_filesystem(ctl, paths[i], &degraded);
	}
	if (code == CTL_OK && ctl->json)
		printf("]\n");
	if (code == CTL_OK && !nr && !ctl->json && !ctl->quiet)
		printf(_("No Terrace filesystem is known. Make one with: terracectl format DEVICE…\n"));
	for (unsigned i = 0; i < nr; i++)
		free(paths[i]);
	free(paths);
	return code == CTL_OK && degraded ? CTL_DEGRADED : code;
}

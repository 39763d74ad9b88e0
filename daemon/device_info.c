/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What udev and sysfs know of a block device. */
#include "device_info.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-device.h>

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void td_device_decode(const char *text, char ret[TER_BUS_HARDWARE_MAX])
{
	size_t nr = 0;

	while (*text && nr + 1 < TER_BUS_HARDWARE_MAX) {
		unsigned char c = (unsigned char)*text;

		if (text[0] == '\\' && text[1] == 'x' && hex(text[2]) >= 0 && hex(text[3]) >= 0) {
			c = (unsigned char)(hex(text[2]) << 4 | hex(text[3]));
			text += 3;
		}
		text++;
		c = c < 0x20 || c == 0x7f ? ' ' : c;
		if (c != ' ' || nr)
			ret[nr++] = (char)c;
	}
	while (nr && ret[nr - 1] == ' ')
		nr--;
	ret[nr] = 0;
}

/* The first of these that udev's database knows; else the first that sysfs has, of the whole disk. */
static void find_text(sd_device *dev, sd_device *disk, const char *const *properties, const char *const *attributes, char ret[TER_BUS_HARDWARE_MAX])
{
	const char *value;

	for (; *properties && !ret[0]; properties++)
		if (sd_device_get_property_value(dev, *properties, &value) >= 0)
			td_device_decode(value, ret);
	for (; *attributes && !ret[0]; attributes++)
		if (sd_device_get_sysattr_value(disk, *attributes, &value) >= 0)
			td_device_decode(value, ret);
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void find_symlinks(sd_device *dev, struct ter_bus_hardware *ret)
{
	for (const char *link = sd_device_get_devlink_first(dev); link && ret->symlinks.nr < TER_BUS_SYMLINKS_MAX; link = sd_device_get_devlink_next(dev))
		if (strlen(link) < TER_BUS_SYMLINK_MAX)
			strcpy(ret->symlinks.path[ret->symlinks.nr++], link);
	qsort(ret->symlinks.path, ret->symlinks.nr, sizeof(ret->symlinks.path[0]), compare);
}

static sd_device *whole_disk(sd_device *dev)
{
	const char *type;
	sd_device *parent;

	return sd_device_get_devtype(dev, &type) >= 0 && strcmp(type, "partition") == 0 && sd_device_get_parent(dev, &parent) >= 0 ? parent : dev;
}

struct ter_bus_hardware *td_device_info(const char *path)
{
	static const char *const model_properties[] = { "ID_MODEL_ENC", "ID_MODEL", NULL }, *const model_attributes[] = { "device/model", NULL };
	static const char *const serial_properties[] = { "ID_SERIAL_SHORT", "ID_SERIAL", NULL }, *const serial_attributes[] = { "device/serial", "serial", NULL };
	struct ter_bus_hardware *ret = calloc(1, sizeof(*ret));
	sd_device *dev, *disk;
	const char *value;
	struct stat st;

	if (!ret || stat(path, &st) < 0 || !S_ISBLK(st.st_mode) || sd_device_new_from_devnum(&dev, 'b', st.st_rdev) < 0)
		return ret;
	disk = whole_disk(dev);
	find_text(dev, disk, model_properties, model_attributes, ret->model);
	find_text(dev, disk, serial_properties, serial_attributes, ret->serial);
	find_symlinks(dev, ret);
	ret->rotational = sd_device_get_sysattr_value(disk, "queue/rotational", &value) >= 0 && value[0] == '1';
	sd_device_unref(dev);
	return ret;
}

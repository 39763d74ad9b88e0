/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What udev and sysfs know of a block device: for job threads, for sysfs may make a driver ask its device. */
#ifndef TD_DEVICE_INFO_H
#define TD_DEVICE_INFO_H

#include "dbus/bus.h"

/* Of the device that @path names; NULL: no memory. All empty for a file, and what is not known stays so. The caller frees. */
struct ter_bus_hardware *td_device_info(const char *path);
/* "Good\x20Disk" as udev encodes names, without blanks around it; what is no text becomes a blank. */
void td_device_decode(const char *text, char ret[TER_BUS_HARDWARE_MAX]);

#endif

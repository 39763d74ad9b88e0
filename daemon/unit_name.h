/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TD_UNIT_NAME_H
#define TD_UNIT_NAME_H

#include <stddef.h>

/* As systemd-escape --path --suffix=mount. -ENAMETOOLONG: @bytes do not hold it. */
int td_mount_unit_name(const char *where, char *ret, size_t bytes);

#endif

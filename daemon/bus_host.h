/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the bus asks of the daemon, put to the pools and jobs. */
#ifndef TD_BUS_HOST_H
#define TD_BUS_HOST_H

#include "pools.h"

void td_bus_host_fill(struct td_pools *pools, struct ter_bus_host *host);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rig of memory, for tests that make transactions fail. */
#ifndef FS_RIG_FAKE_H
#define FS_RIG_FAKE_H

#include "fs_fake.h"
#include "fs_rig.h"

struct rig_fake {
	struct rig rig;
	struct fake_btrees *fb;
	struct fake_data *fd;
	struct ter_sb sb;
	struct ter_sb_handle handle;
};
static inline struct rig_fake *rig_fake(struct rig *rig)
{
	return ter_container_of(rig, struct rig_fake, rig);
}
void rig_fake_start(struct rig_fake *rf, bool orphans);
void rig_fake_stop(struct rig_fake *rf, bool clean);

#endif

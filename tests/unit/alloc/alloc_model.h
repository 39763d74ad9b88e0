/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A model of what users of the allocator hold: extents with copies, and which sectors are live. */
#ifndef ALLOC_MODEL_H
#define ALLOC_MODEL_H

#include "alloc_rig.h"

struct model_extent {
	uint64_t id; /* position: inode id, offset 8 */
	unsigned nr;
	uint32_t sectors;
	struct ter_ptr_ref ptr[TER_REPLICAS_MAX];
	struct ter_replicas_entry entry;
};
struct model {
	struct rig *rig;
	struct model_extent *extent;
	unsigned nr, max;
	uint64_t next_id;
	uint64_t *owner[RIG_DEVS_MAX]; /* id by sector, 0: dead */
	unsigned wp;
};
void model_init(struct model *m, struct rig *rig);
void model_free(struct model *m);
/* Space, an extent over all of it, put. Returns what ter_alloc_get() or the commit did. */
int model_write(struct model *m, uint32_t sectors_min, uint32_t sectors_want, unsigned replicas, bool nowait);
/* Links [at, at + sectors) of each copy. */
int model_link(struct model *m, const struct ter_space *space, uint32_t at, uint32_t sectors);
int model_delete(struct model *m, unsigned idx);
void model_assert_space_dead(struct model *m, const struct ter_space *space); /* nothing live is given out; copies on distinct members, each within one bucket */
void model_assert_equal(struct model *m); /* back references and counters are exactly those of the model; and the check finds nothing */
uint64_t model_used(struct model *m, unsigned dev_idx);

#endif

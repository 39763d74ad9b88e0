/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Simulated devices, inside io/: state shared by the backend (sim.c), what tests do to it (sim_test.c) and power cuts
 * (sim_cut.c). */
#ifndef TER_SIM_PRIV_H
#define TER_SIM_PRIV_H

#include "io/io_priv.h"
#include "io/sim.h"
#include "io/sim_image.h"

#define SIM_OPS_NR 4 /* of enum ter_bio_op */

struct sim_fault {
	uint64_t nth; /* 0: none armed; counts down to 1 */
	bool persistent;
};

struct sim_dev {
	char *path;
	unsigned idx;
	struct ter_bdev_info info;
	struct ter_sim_image *image;
	uint64_t epoch; /* of openings and requests; older ones are dead */
	bool claimed, vanished;
	uint64_t latency_ns;
	struct sim_fault fault[SIM_OPS_NR];
	uint64_t bad_from, bad_to; /* reads and writes that touch it fail */
};

struct sim_bdev {
	struct ter_bdev bdev;
	struct sim_dev *dev;
	uint64_t epoch;
	unsigned flags; /* TER_OPEN_* */
};

struct ter_sim {
	struct ter_io io;
	struct ter_lock lock; /* rank DEVICE; guards all below */
	struct ter_waitq more;
	struct ter_task *worker;
	bool stop;
	struct ter_list queue; /* of bios */
	uint64_t dice;
	bool power_off;
	uint64_t off_after; /* submissions still to come; UINT64_MAX: stays on */
	struct ter_sim_stats stats;
	struct ter_sim_trace *trace; /* NULL: not recording */
	unsigned entry_max;
	uint32_t trace_nr; /* how many traces there were: a request knows in which it stands */
	unsigned dev_nr;
	struct sim_dev *dev[TER_SIM_DEVICES_MAX];
};

struct ter_sim_snapshot {
	unsigned nr;
	struct ter_sim_image *image[TER_SIM_DEVICES_MAX];
};

struct sim_dev *sim_dev_find(struct ter_sim *sim, const char *path); /* NULL; with the lock held */
void sim_kill(struct ter_sim *sim, struct sim_dev *dev);	     /* openings and requests of now are dead */

/* The recording; with the lock held. */
uint64_t sim_trace_submit(struct ter_sim *sim, const struct ter_bio *bio); /* a ticket for complete; 0: not recording */
void sim_trace_complete(struct ter_sim *sim, const struct ter_bio *bio, uint64_t ticket, int result);
void sim_trace_begin(struct ter_sim *sim);
struct ter_sim_snapshot *sim_snapshot(struct ter_sim *sim);

#endif

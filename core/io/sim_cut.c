/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recording what simulated devices are told, and the states in which a power cut may leave them. */
#include <stdio.h>

#include "io/sim_priv.h"

#define QUIET_POLL_NS 1000

#define RARELY_TEAR_ONE_IN 8 /* RANDOM: of the kept writes that are not a device's last */

/* --- recording --- */

static void gather(const struct ter_bio *bio, uint8_t *to)
{
	for (unsigned i = 0; i < bio->iov_nr; i++) {
		memcpy(to, bio->iov[i].iov_base, bio->iov[i].iov_len);
		to += bio->iov[i].iov_len;
	}
}

static bool same_data(const struct ter_bio *bio, const uint8_t *data)
{
	for (unsigned i = 0; i < bio->iov_nr; i++) {
		if (memcmp(data, bio->iov[i].iov_base, bio->iov[i].iov_len))
			return false;
		data += bio->iov[i].iov_len;
	}
	return true;
}

static unsigned device_idx(const struct ter_bio *bio)
{
	return ter_container_of(bio->bdev, struct sim_bdev, bdev)->dev->idx;
}

uint64_t sim_trace_submit(struct ter_sim *sim, const struct ter_bio *bio)
{
	struct ter_sim_trace *trace = sim->trace;
	struct ter_sim_entry *entry;

	if (!trace || bio->op == TER_BIO_READ)
		return 0;
	if (trace->entry_nr == sim->entry_max) {
		sim->entry_max = sim->entry_max ? sim->entry_max * 2 : 64;
		trace->entry = ter_sim_grow(trace->entry, sim->entry_max, sizeof(trace->entry[0]));
	}
	entry = &trace->entry[trace->entry_nr++];
	*entry = (struct ter_sim_entry){
		.device_idx = device_idx(bio),
		.op = bio->op,
		.flags = bio->flags,
		.offset_bytes = bio->offset_bytes,
		.bytes = bio->bytes,
		.submit = sim->stats.events,
	};
	if (bio->op == TER_BIO_WRITE) {
		entry->data = ter_sim_alloc(bio->bytes);
		gather(bio, entry->data);
	}
	return (uint64_t)sim->trace_nr << 32 | trace->entry_nr;
}

void sim_trace_complete(struct ter_sim *sim, const struct ter_bio *bio, uint64_t ticket, int result)
{
	struct ter_sim_entry *entry;

	if (!ticket || !sim->trace || ticket >> 32 != sim->trace_nr)
		return;
	entry = &sim->trace->entry[(uint32_t)ticket - 1];
	entry->complete = sim->stats.events;
	entry->result = result;
	if (entry->op == TER_BIO_WRITE && !same_data(bio, entry->data)) {
		fprintf(stderr, "sim: the memory of a write to '%s' at byte %llu changed while it was in flight\n",
			bio->bdev->path, (unsigned long long)bio->offset_bytes);
		abort();
	}
}

void sim_trace_begin(struct ter_sim *sim)
{
	ter_sim_trace_free(sim->trace);
	sim->trace = ter_sim_alloc(sizeof(*sim->trace));
	sim->trace->base = sim_snapshot(sim);
	sim->trace->first_event = sim->stats.events + 1;
	sim->trace_nr++;
	sim->entry_max = 0;
}

void ter_sim_record(struct ter_sim *sim, bool on)
{
	ter_lock_acquire(&sim->lock);
	/* A request that is under way belongs neither to the content at the beginning nor to what is recorded: a journal entry could be lost so that no device loses. */
	while (on && !ter_list_empty(&sim->queue)) {
		ter_lock_release(&sim->lock);
		ter_sleep_ns(sim->io.exec, QUIET_POLL_NS);
		ter_lock_acquire(&sim->lock);
	}
	ter_sim_trace_free(sim->trace);
	sim->trace = NULL;
	if (on)
		sim_trace_begin(sim);
	ter_lock_release(&sim->lock);
}

const struct ter_sim_trace *ter_sim_trace(struct ter_sim *sim)
{
	ter_lock_acquire(&sim->lock);
	if (sim->trace)
		sim->trace->last_event = sim->stats.events;
	ter_lock_release(&sim->lock);
	return sim->trace;
}

struct ter_sim_trace *ter_sim_trace_take(struct ter_sim *sim)
{
	struct ter_sim_trace *trace;

	ter_lock_acquire(&sim->lock);
	trace = sim->trace;
	if (trace) {
		trace->last_event = sim->stats.events;
		sim->trace = NULL;
		sim_trace_begin(sim);
	}
	ter_lock_release(&sim->lock);
	return trace;
}

void ter_sim_trace_free(struct ter_sim_trace *trace)
{
	if (!trace)
		return;
	for (unsigned i = 0; i < trace->entry_nr; i++)
		free(trace->entry[i].data);
	free(trace->entry);
	ter_sim_snapshot_free(trace->base);
	free(trace);
}

/* --- which entries are durable, which pending --- */

/* For each device: the submission of its latest flush that completed before the cut; 0: none. */
static void find_flushes(const struct ter_sim_trace *trace, uint64_t at, uint64_t flushed[TER_SIM_DEVICES_MAX])
{
	memset(flushed, 0, TER_SIM_DEVICES_MAX * sizeof(flushed[0]));
	for (unsigned i = 0; i < trace->entry_nr; i++) {
		const struct ter_sim_entry *entry = &trace->entry[i];

		if (entry->op == TER_BIO_FLUSH && entry->complete && entry->complete < at && entry->result == 0)
			flushed[entry->device_idx] = ter_max(flushed[entry->device_idx], entry->submit);
	}
}

static bool is_data(const struct ter_sim_entry *entry, uint64_t at)
{
	return entry->op != TER_BIO_FLUSH && entry->submit < at;
}

static bool completed(const struct ter_sim_entry *entry, uint64_t at)
{
	return entry->complete && entry->complete < at;
}

static bool is_durable(const struct ter_sim_entry *entry, uint64_t at, const uint64_t flushed[TER_SIM_DEVICES_MAX])
{
	if (!completed(entry, at) || entry->result < 0)
		return false;
	return (entry->flags & TER_BIO_FUA) || entry->complete < flushed[entry->device_idx];
}

unsigned ter_sim_pending(const struct ter_sim_trace *trace, uint64_t at, unsigned *ret_index, unsigned max)
{
	uint64_t flushed[TER_SIM_DEVICES_MAX];
	unsigned nr = 0;

	find_flushes(trace, at, flushed);
	for (unsigned i = 0; i < trace->entry_nr; i++) {
		if (!is_data(&trace->entry[i], at) || is_durable(&trace->entry[i], at, flushed))
			continue;
		if (nr < max)
			ret_index[nr] = i;
		nr++;
	}
	return nr;
}

unsigned ter_sim_pending_nr(const struct ter_sim_trace *trace, uint64_t at)
{
	return ter_sim_pending(trace, at, NULL, 0);
}

/* --- the state after a cut --- */

/* An entry that arrives, and its place in the order in which the device saw them. */
struct arrival {
	const struct ter_sim_entry *entry;
	uint64_t place;
	bool pending, torn, exact, garbage;
};

/* How a device treats what is pending: it keeps one in @of with @keep's chance. */
struct habit {
	unsigned keep, of;
};

static struct habit draw_habit(uint64_t *dice)
{
	static const struct habit habits[] = {{0, 1}, {1, 8}, {1, 2}, {1, 2}, {7, 8}, {1, 1}};

	return habits[ter_sim_draw(dice, ARRAY_SIZE(habits))];
}

static bool is_kept(const struct ter_sim_cut *cut, const struct ter_sim_entry *entry, const struct habit *habit,
		    uint64_t *dice)
{
	switch (cut->keep) {
	case TER_SIM_KEEP_NONE:
		return false;
	case TER_SIM_KEEP_ALL:
		return true;
	case TER_SIM_KEEP_RANDOM:
		return ter_sim_draw(dice, habit[entry->device_idx].of) < habit[entry->device_idx].keep;
	case TER_SIM_KEEP_ASK:
		return cut->keep_fn(cut->arg, entry);
	}
	return false;
}

static int by_place(const void *a, const void *b)
{
	const struct arrival *x = a, *y = b;

	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return x->entry->submit < y->entry->submit ? -1 : 1;
}

static unsigned choose(const struct ter_sim_trace *trace, const struct ter_sim_cut *cut, uint64_t at, uint64_t *dice,
		       struct arrival *arrival)
{
	uint64_t flushed[TER_SIM_DEVICES_MAX];
	struct habit habit[TER_SIM_DEVICES_MAX];
	unsigned nr = 0;

	find_flushes(trace, at, flushed);
	for (unsigned i = 0; i < TER_SIM_DEVICES_MAX; i++)
		habit[i] = draw_habit(dice);
	for (unsigned i = 0; i < trace->entry_nr; i++) {
		const struct ter_sim_entry *entry = &trace->entry[i];
		bool durable;

		if (!is_data(entry, at))
			continue;
		durable = !cut->flush_lies && is_durable(entry, at, flushed);
		if (!durable && !is_kept(cut, entry, habit, dice))
			continue;
		arrival[nr++] = (struct arrival){
			.entry = entry,
			.pending = !durable,
			.place = completed(entry, at) ? entry->complete
						      : entry->submit + ter_sim_draw(dice, at - entry->submit + 1),
		};
	}
	qsort(arrival, nr, sizeof(arrival[0]), by_place);
	return nr;
}

static void choose_torn(const struct ter_sim_cut *cut, uint64_t *dice, struct arrival *arrival, unsigned nr)
{
	bool seen[TER_SIM_DEVICES_MAX] = {false};

	for (unsigned i = nr; i-- > 0;) {
		struct arrival *a = &arrival[i];

		if (!a->pending)
			continue;
		if (cut->keep == TER_SIM_KEEP_RANDOM && a->entry->op == TER_BIO_DISCARD)
			a->garbage = ter_sim_draw(dice, 2);
		if (!cut->torn_bytes)
			continue;
		if (!seen[a->entry->device_idx]) {
			a->torn = true;
			a->exact = cut->torn_prefix;
		} else if (cut->keep == TER_SIM_KEEP_RANDOM) {
			a->torn = !ter_sim_draw(dice, RARELY_TEAR_ONE_IN);
		}
		seen[a->entry->device_idx] = true;
	}
}

static void arrive_range(struct ter_sim_image *image, const struct arrival *a, uint64_t from, uint64_t bytes,
			 uint64_t *dice)
{
	const struct ter_sim_entry *entry = a->entry;

	if (entry->op == TER_BIO_WRITE) {
		ter_sim_image_write(image, entry->offset_bytes + from, (uint8_t *)entry->data + from, bytes);
		return;
	}
	ter_sim_image_zero(image, entry->offset_bytes + from, bytes);
	for (uint64_t i = 0; a->garbage && i < bytes; i += TER_SECTOR_BYTES) {
		uint64_t word = ter_sim_draw(dice, UINT64_MAX);

		ter_sim_image_write(image, entry->offset_bytes + from + i, &word, sizeof(word));
	}
}

static void arrive_torn(struct ter_sim_image *image, const struct arrival *a, const struct ter_sim_cut *cut,
			uint64_t *dice)
{
	uint64_t unit = cut->torn_bytes, units = (a->entry->bytes + unit - 1) / unit, prefix;
	bool any = !a->exact && ter_sim_draw(dice, 2);

	prefix = a->exact ? ter_min((uint64_t)cut->torn_prefix, units) : ter_sim_draw(dice, units);
	for (uint64_t i = 0; i < units; i++)
		if (any ? ter_sim_draw(dice, 2) : i < prefix)
			arrive_range(image, a, i * unit, ter_min(unit, a->entry->bytes - i * unit), dice);
}

void ter_sim_trace_fold(struct ter_sim_trace *trace, uint64_t at)
{
	struct arrival *arrival = ter_sim_alloc((trace->entry_nr + 1) * sizeof(*arrival));
	uint64_t flushed[TER_SIM_DEVICES_MAX];
	unsigned nr = 0, left = 0;

	find_flushes(trace, at, flushed);
	for (unsigned i = 0; i < trace->entry_nr; i++) {
		const struct ter_sim_entry *entry = &trace->entry[i];

		if (is_data(entry, at) && is_durable(entry, at, flushed) && entry->complete < flushed[entry->device_idx])
			arrival[nr++] = (struct arrival){ .entry = entry, .place = entry->complete };
	}
	qsort(arrival, nr, sizeof(arrival[0]), by_place);
	for (unsigned i = 0; i < nr; i++)
		arrive_range(trace->base->image[arrival[i].entry->device_idx], &arrival[i], 0, arrival[i].entry->bytes, NULL);
	free(arrival);
	for (unsigned i = 0; i < trace->entry_nr; i++) {
		struct ter_sim_entry *entry = &trace->entry[i];
		const bool folded = entry->op == TER_BIO_FLUSH ? completed(entry, at) && entry->submit < flushed[entry->device_idx]
							       : is_durable(entry, at, flushed) && entry->complete < flushed[entry->device_idx];

		if (folded)
			free(entry->data);
		else
			trace->entry[left++] = *entry;
	}
	trace->entry_nr = left;
}

static void set_state(struct ter_sim *sim, const struct ter_sim_trace *trace, const struct ter_sim_cut *cut)
{
	uint64_t dice = cut->seed, at = ter_min(cut->at, trace->last_event + 1);
	struct arrival *arrival = ter_sim_alloc((trace->entry_nr + 1) * sizeof(*arrival));
	unsigned nr;

	assert(!cut->torn_bytes || (ter_is_pow2(cut->torn_bytes) && cut->torn_bytes >= TER_SECTOR_BYTES));
	assert(trace->base->nr <= sim->dev_nr);
	for (unsigned i = 0; i < trace->base->nr; i++) {
		ter_sim_image_free(sim->dev[i]->image);
		sim->dev[i]->image = ter_sim_image_clone(trace->base->image[i]);
	}
	nr = choose(trace, cut, at, &dice, arrival);
	choose_torn(cut, &dice, arrival, nr);
	for (unsigned i = 0; i < nr; i++) {
		struct ter_sim_image *image = sim->dev[arrival[i].entry->device_idx]->image;

		if (arrival[i].torn)
			arrive_torn(image, &arrival[i], cut, &dice);
		else
			arrive_range(image, &arrival[i], 0, arrival[i].entry->bytes, &dice);
	}
	free(arrival);
}

static void power_on(struct ter_sim *sim)
{
	for (unsigned i = 0; i < sim->dev_nr; i++)
		sim_kill(sim, sim->dev[i]);
	sim->power_off = false;
	sim->off_after = UINT64_MAX;
	if (sim->trace)
		sim_trace_begin(sim);
}

void ter_sim_cut(struct ter_sim *sim, const struct ter_sim_cut *cut)
{
	ter_lock_acquire(&sim->lock);
	assert(sim->trace);
	sim->trace->last_event = sim->stats.events;
	set_state(sim, sim->trace, cut);
	power_on(sim);
	ter_lock_release(&sim->lock);
}

void ter_sim_apply(struct ter_sim *sim, const struct ter_sim_trace *trace, const struct ter_sim_cut *cut)
{
	ter_lock_acquire(&sim->lock);
	assert(trace != sim->trace); /* taken, or it would be gone on return */
	set_state(sim, trace, cut);
	power_on(sim);
	ter_lock_release(&sim->lock);
}

void ter_sim_power_off_after(struct ter_sim *sim, uint64_t nth)
{
	ter_lock_acquire(&sim->lock);
	sim->off_after = nth ? nth : UINT64_MAX;
	if (!nth) {
		sim->power_off = true;
		ter_waitq_wake_all(&sim->more);
	}
	ter_lock_release(&sim->lock);
}

bool ter_sim_power_is_off(struct ter_sim *sim)
{
	bool off;

	ter_lock_acquire(&sim->lock);
	off = sim->power_off;
	ter_lock_release(&sim->lock);
	return off;
}

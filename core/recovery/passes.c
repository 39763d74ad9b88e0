/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of recovery passes, and running some of it. */
#include "recovery/passes.h"

#include <stdio.h>

#define x(id_, NAME, name_, flags_, depends_, sentence_)                                                               \
	{ .id = (id_), .name = (name_), .flags = (flags_), .depends = (depends_), .sentence = (sentence_) },
const struct ter_pass ter_passes[] = { TER_PASSES(x) { 0 } };
#undef x

const char *const ter_pass_state_names[] = { "not-needed", "waiting", "running", "done", "errors", "failed" };

uint64_t ter_passes_with(unsigned flags)
{
	uint64_t mask = 0;

	for (const struct ter_pass *p = ter_passes; p->name; p++)
		if (p->flags & flags)
			mask |= 1ull << p->id;
	return mask;
}

const struct ter_pass *ter_pass_by_id(unsigned id)
{
	for (const struct ter_pass *p = ter_passes; p->name; p++)
		if (p->id == id)
			return p;
	return NULL;
}

const char *ter_passes_text(uint64_t mask, char *buf, size_t bytes)
{
	size_t used = 0;

	buf[0] = 0;
	for (unsigned id = 0; id < 64; id++) {
		const struct ter_pass *p = ter_pass_by_id(id);
		int n;

		if (!(mask >> id & 1))
			continue;
		if (p)
			n = snprintf(buf + used, bytes - used, "%s%s", used ? ", " : "", p->name);
		else
			n = snprintf(buf + used, bytes - used, "%s%u", used ? ", " : "", id);
		if (n < 0 || (size_t)n >= bytes - used)
			break;
		used += (size_t)n;
	}
	return buf;
}

static void set_state(struct ter_pass_run *run, enum ter_pass_id id, enum ter_pass_state state, uint64_t us)
{
	run->row[id] = (struct ter_pass_row){ state, us };
	if (run->changed)
		run->changed(run->arg, id, &run->row[id]);
}

int ter_passes_run(struct ter_pass_run *run, uint64_t mask, uint64_t *ret_found, struct ter_error *error)
{
	uint64_t found = 0;

	for (const struct ter_pass *p = ter_passes; p->name; p++)
		if (mask >> p->id & 1)
			set_state(run, (enum ter_pass_id)p->id, TER_PASS_WAITING, 0);
	for (const struct ter_pass *p = ter_passes; p->name; p++) {
		const enum ter_pass_id id = (enum ter_pass_id)p->id;
		uint64_t start_ns;
		int64_t r;

		if (!(mask >> id & 1))
			continue;
		assert(!(p->depends & mask & ~run->ran)); /* the table is in order */
		r = run->step ? run->step(run->step_arg, p->name, 0, 0) : 0;
		if (r < 0)
			return (int)r;
		set_state(run, id, TER_PASS_RUNNING, 0);
		start_ns = run->now_ns(run->arg);
		r = run->run(run->arg, id, error);
		set_state(run, id, r < 0 ? TER_PASS_FAILED : r ? TER_PASS_FOUND_ERRORS : TER_PASS_DONE, (run->now_ns(run->arg) - start_ns) / 1000);
		if (r < 0)
			return (int)r;
		run->ran |= 1ull << id;
		if (r)
			found |= 1ull << id;
	}
	if (ret_found)
		*ret_found = found;
	return 0;
}

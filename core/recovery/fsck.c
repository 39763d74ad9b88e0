/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsck: the passes in order, and the second look that tells a contradiction from a change under way. */
#include "recovery/fsck.h"

#include <stdio.h>

#include "alloc/alloc_check.h"
#include "recovery/fsck_ptrs.h"
#include "util/mem.h"

#define LOOKS_MAX 3
#define RESTARTS_MAX 16 /* of one look, when a btree changed its height under it */

struct finding {
	char *pass, *sentence;
};
struct findings {
	struct finding *list;
	unsigned nr;
	int64_t total;
	bool no_memory;
};

static void findings_clear(struct findings *f)
{
	for (unsigned i = 0; i < f->nr; i++) {
		free(f->list[i].pass);
		free(f->list[i].sentence);
	}
	free(f->list);
	*f = (struct findings){ 0 };
}

static void add_finding(void *arg, const char *pass, const char *sentence)
{
	struct findings *f = arg;
	struct finding *bigger;

	f->total++;
	if (f->nr >= TER_FSCK_FINDINGS_MAX || f->no_memory)
		return;
	if (!(f->nr & (f->nr + 1)) || !f->list) { /* 0, 1, 3, 7, …: room for twice as many */
		bigger = ter_realloc_array(f->list, 2 * (size_t)f->nr + 2, sizeof(*bigger));
		if (!bigger) {
			f->no_memory = true;
			return;
		}
		f->list = bigger;
	}
	f->list[f->nr].pass = ter_strdup(pass);
	f->list[f->nr].sentence = ter_strdup(sentence);
	if (f->list[f->nr].pass && f->list[f->nr].sentence) {
		f->nr++;
	} else {
		free(f->list[f->nr].pass);
		free(f->list[f->nr].sentence);
		f->no_memory = true;
	}
}

static void add_alloc_finding(void *arg, const char *sentence)
{
	add_finding(arg, "alloc", sentence);
}

static int look(const struct ter_fsck_config *config, struct findings *f, ter_fsck_step_fn step, void *step_arg)
{
	const uint64_t passes = config->passes ? config->passes : UINT64_MAX;
	int64_t r = 0;

	if (step && step(step_arg, "alloc", 0, 0) < 0)
		return -ECANCELED;
	if (passes & TER_PASS_BIT(SPACE))
		r = ter_alloc_check(config->alloc, add_alloc_finding, f);
	if (r < 0)
		return (int)r;
	if (passes & (TER_PASS_BIT(NODES) | TER_PASS_BIT(POINTERS)))
		r = ter_fsck_pointers(config, add_finding, f, step, step_arg);
	if (r < 0)
		return (int)r;
	if (passes & TER_PASS_BIT(FILES))
		r = ter_vfs_check(config->vfs, config->memory_bytes, add_finding, f, step, step_arg);
	if (r < 0)
		return (int)r;
	return f->no_memory ? -ENOMEM : 0;
}

/* A node that cannot be read is a finding like others, but what lies behind it was not looked at. */
static int look_as_far_as_can_be(const struct ter_fsck_config *config, struct findings *f, ter_fsck_step_fn step, void *step_arg)
{
	const int r = look(config, f, step, step_arg);

	if (r != -EBADMSG && r != -EUCLEAN)
		return r;
	add_finding(f, "nodes", "A node cannot be read. What it holds, and what was to be checked after it, is not known.");
	return f->no_memory ? -ENOMEM : 0;
}

uint64_t ter_fsck_pass_of(const char *pass)
{
	if (!strcmp(pass, "nodes"))
		return TER_PASS_BIT(NODES);
	if (!strcmp(pass, "alloc"))
		return TER_PASS_BIT(SPACE);
	if (!strcmp(pass, "pointers"))
		return TER_PASS_BIT(POINTERS);
	return TER_PASS_BIT(FILES);
}

static bool seen_before(const struct findings *before, const struct finding *finding)
{
	for (unsigned i = 0; i < before->nr; i++)
		if (strcmp(before->list[i].pass, finding->pass) == 0 && strcmp(before->list[i].sentence, finding->sentence) == 0)
			return true;
	return false;
}

int64_t ter_fsck_run(const struct ter_fsck_config *config, ter_fsck_found_fn found, void *found_arg, ter_fsck_step_fn step, void *step_arg)
{
	struct findings before = { 0 }, now = { 0 };
	int64_t nr = 0;
	int r = 0;

	for (unsigned i = 0; i < LOOKS_MAX; i++) {
		if (config->settle)
			r = config->settle(config->settle_arg);
		if (r >= 0)
			r = look_as_far_as_can_be(config, &now, step, step_arg);
		for (unsigned n = 0; r == -ERESTART && n < RESTARTS_MAX; n++) {
			findings_clear(&now);
			r = look_as_far_as_can_be(config, &now, step, step_arg);
		}
		if (r < 0 || !now.total || (i && now.total > TER_FSCK_FINDINGS_MAX))
			break;
		if (i == LOOKS_MAX - 1 || !config->settle)
			break;
		findings_clear(&before);
		before = now;
		now = (struct findings){ 0 };
	}
	for (unsigned i = 0; r >= 0 && i < now.nr; i++) {
		if (config->settle && !seen_before(&before, &now.list[i]))
			continue;
		nr++;
		if (found)
			found(found_arg, now.list[i].pass, now.list[i].sentence);
	}
	if (r >= 0 && now.total > now.nr)
		nr += now.total - now.nr;
	findings_clear(&before);
	findings_clear(&now);
	return r < 0 ? r : nr;
}

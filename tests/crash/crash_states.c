/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which states one cut may leave, and their names. */
#include "crash.h"

#include <stdio.h>

#define ALL_SUBSETS_UP_TO 12 /* pending writes */
#define PAIRS_UP_TO 64
#define RANDOM_SUBSETS 256
#define MOMENTS 16           /* of members cut each at its own */
#define PENDING_MAX 4096
#define TORN_AT_EVERY_SECTOR_UP_TO 32

struct list {
	struct crash_state *state;
	unsigned nr, max;
};

static void add(struct list *l, struct crash_state s)
{
	if (l->nr < l->max)
		l->state[l->nr++] = s;
}

static unsigned units_of(uint64_t bytes, uint32_t unit)
{
	return (unsigned)((bytes + unit - 1) / unit);
}

/* The last of what arrives did so in part. */
static void add_torn(struct list *l, struct crash_state s, uint64_t bytes)
{
	static const uint32_t unit[] = { 512, 4096 };

	for (unsigned u = 0; u < ARRAY_SIZE(unit); u++) {
		const unsigned units = units_of(bytes, unit[u]);

		if (units < 2)
			continue;
		s.torn = unit[u];
		s.prefix = 0;
		add(l, s);
		for (unsigned i = 1; i < units; i++) {
			if (units > TORN_AT_EVERY_SECTOR_UP_TO && i > 2 && i < units - 2 && i % (units / 8))
				continue;
			s.prefix = i;
			add(l, s);
		}
	}
}

unsigned crash_states(const struct ter_sim_trace *trace, uint64_t at, struct crash_state *ret, unsigned max)
{
	static unsigned pending[PENDING_MAX];
	const unsigned nr = ter_min(ter_sim_pending(trace, at, pending, PENDING_MAX), (unsigned)PENDING_MAX);
	struct list l = { ret, 0, max };
	uint32_t devs = 0;

	for (unsigned i = 0; i < nr; i++)
		devs |= 1u << trace->entry[pending[i]].device_idx;
	add(&l, (struct crash_state){ .kind = 'n' });
	if (!nr)
		return l.nr;
	add(&l, (struct crash_state){ .kind = 'a' });
	for (unsigned i = 1; i <= nr; i++)
		if (i == nr || i <= 4 || nr <= PAIRS_UP_TO)
			add_torn(&l, (struct crash_state){ .kind = 'p', .a = i }, trace->entry[pending[i - 1]].bytes);
	for (uint32_t v = 1; v < devs; v++)
		if ((v & devs) == v)
			add(&l, (struct crash_state){ .kind = 'v', .a = v });
	if (nr <= ALL_SUBSETS_UP_TO) {
		for (uint32_t m = 1; m + 1 < 1u << nr; m++)
			add(&l, (struct crash_state){ .kind = 'm', .a = m });
		return l.nr;
	}
	for (unsigned i = 1; i < nr; i++)
		add(&l, (struct crash_state){ .kind = 'p', .a = i });
	for (unsigned i = 0; i < nr; i++) {
		add(&l, (struct crash_state){ .kind = 'd', .a = i });
		add(&l, (struct crash_state){ .kind = 'o', .a = i });
	}
	for (unsigned i = 0; i < RANDOM_SUBSETS; i++)
		add(&l, (struct crash_state){ .kind = 'r', .a = i, .torn = i % 4 == 3 ? 512 : i % 8 == 6 ? 4096 : 0 });
	for (unsigned i = 0; i < MOMENTS && (devs & (devs - 1)); i++)
		add(&l, (struct crash_state){ .kind = 'c', .a = i });
	for (unsigned i = 0; i < nr && nr <= PAIRS_UP_TO; i++)
		for (unsigned k = i + 1; k < nr; k++)
			add(&l, (struct crash_state){ .kind = 'x', .a = i, .b = k });
	return l.nr;
}

int crash_state_say(const struct crash_state *s, char *text, size_t bytes)
{
	int n = snprintf(text, bytes, "%c%u", s->kind, s->a);

	if (s->kind == 'x')
		n += snprintf(text + n, bytes - (size_t)n, "-%u", s->b);
	if (s->torn)
		n += snprintf(text + n, bytes - (size_t)n, "/%u.%u", s->torn, s->prefix);
	if (s->lies)
		n += snprintf(text + n, bytes - (size_t)n, "!");
	return n;
}

bool crash_state_parse(const char **text, struct crash_state *ret)
{
	int n = 0;

	*ret = (struct crash_state){ 0 };
	if (sscanf(*text, "%c%u%n", &ret->kind, &ret->a, &n) < 2)
		return false;
	*text += n;
	if (ret->kind == 'x') {
		if (sscanf(*text, "-%u%n", &ret->b, &n) < 1)
			return false;
		*text += n;
	}
	if (**text == '/') {
		if (sscanf(*text, "/%u.%u%n", &ret->torn, &ret->prefix, &n) < 2)
			return false;
		*text += n;
	}
	if (**text == '!') {
		ret->lies = true;
		(*text)++;
	}
	return strchr("mnapdoxvcr", ret->kind) != NULL;
}

struct chooser {
	const struct crash_state *s;
	const struct ter_sim_trace *trace;
	uint64_t moment[ENG_DEVS_MAX]; /* c: nothing that was submitted later arrives */
	unsigned i;
};

static bool keeps(void *arg, const struct ter_sim_entry *entry)
{
	struct chooser *c = arg;
	const struct crash_state *s = c->s;
	const unsigned i = c->i++;

	switch (s->kind) {
	case 'm':
		return i < 32 && s->a >> i & 1;
	case 'a':
		return true;
	case 'p':
		return i < s->a;
	case 'd':
		return i != s->a;
	case 'o':
		return i == s->a;
	case 'x':
		return i == s->a || i == s->b;
	case 'v':
		return s->a >> entry->device_idx & 1;
	case 'c':
		return entry->submit < c->moment[entry->device_idx];
	default:
		return false;
	}
}

void crash_state_apply(struct ter_sim *sim, const struct ter_sim_trace *trace, uint64_t at, const struct crash_state *s)
{
	struct chooser chooser = { .s = s, .trace = trace };
	struct ter_sim_cut cut = {
		.at = at, .keep = s->kind == 'r' ? TER_SIM_KEEP_RANDOM : TER_SIM_KEEP_ASK, .keep_fn = keeps, .arg = &chooser, .torn_bytes = s->torn,
		.torn_prefix = s->prefix, .flush_lies = s->lies, .seed = at * 1000003 + s->a,
	};
	uint64_t dice = cut.seed;

	if (s->kind == 'c') {
		uint64_t first = at;
		unsigned i;

		if (ter_sim_pending(trace, at, &i, 1))
			first = trace->entry[i].submit;
		for (unsigned d = 0; d < ENG_DEVS_MAX; d++)
			chooser.moment[d] = first + crash_draw(&dice, at - first + 2);
	}
	ter_sim_apply(sim, trace, &cut);
}

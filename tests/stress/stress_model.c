/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a thread's directory should hold: names and attributes, and the bytes of its files. */
#include <stdio.h>
#include <stdlib.h>

#include "stress.h"

/* Of many lengths, so that entries need room and directories more than one node. */
void st_name(unsigned nr, char buf[TER_NAME_MAX + 1])
{
	const unsigned pad = nr * 23 % 180;
	const int n = snprintf(buf, TER_NAME_MAX + 1, "n%u", nr);

	memset(buf + n, 'x', pad);
	buf[n + (int)pad] = '\0';
}

int st_name_nr(const char *name)
{
	char expected[TER_NAME_MAX + 1];
	const unsigned nr = name[0] == 'n' ? (unsigned)atoi(name + 1) : ST_NAMES;

	if (nr >= ST_NAMES)
		return -1;
	st_name(nr, expected);
	return strcmp(name, expected) ? -1 : (int)nr;
}

void st_target(unsigned nr, char buf[TER_SYMLINK_MAX + 1])
{
	const unsigned pad = nr * 37 % 900;
	const int n = snprintf(buf, TER_SYMLINK_MAX + 1, "%u-", nr);

	memset(buf + n, 't', pad);
	buf[n + (int)pad] = '\0';
}

size_t st_xattr(unsigned nr, uint8_t buf[4096])
{
	const size_t bytes = sizeof(uint32_t) + nr * 41 % 3000;
	const uint32_t word = nr;

	memcpy(buf, &word, sizeof(word));
	st_fill(buf + sizeof(word), nr * 2ull, 0, bytes - sizeof(word));
	return bytes;
}

unsigned st_links(const struct st_model *m, unsigned obj)
{
	unsigned nr = 0;

	for (unsigned d = 0; d < ST_OBJS; d++)
		for (unsigned n = 0; n < ST_NAMES; n++)
			nr += m->name[d][n] == obj + 1;
	return nr;
}

unsigned st_nlink(const struct st_model *m, unsigned obj)
{
	unsigned nr = 2;

	if (m->obj[obj].kind != ST_DIR)
		return st_links(m, obj);
	for (unsigned n = 0; n < ST_NAMES; n++)
		nr += m->name[obj][n] && m->obj[m->name[obj][n] - 1].kind == ST_DIR;
	return nr;
}

static void touch(struct st_model *m, unsigned dir, unsigned name, uint32_t op)
{
	m->obj[dir].last_ns = op;
	if (m->name[dir][name])
		m->obj[m->name[dir][name] - 1].last_ns = op;
}

void st_model_apply(struct st_model *m, const struct st_rec *rec, uint32_t op)
{
	uint8_t *from = &m->name[rec->dir][rec->name], *to = &m->name[rec->dir2][rec->name2], old;

	switch (rec->op) {
	case ST_OP_CREATE:
		m->obj[rec->obj] = rec->born;
		m->obj[rec->obj].base_op = op;
		*from = (uint8_t)(rec->obj + 1);
		touch(m, rec->dir, rec->name, op);
		break;
	case ST_OP_LINK:
		*to = (uint8_t)(rec->obj + 1);
		touch(m, rec->dir2, rec->name2, op);
		break;
	case ST_OP_UNLINK:
		touch(m, rec->dir, rec->name, op);
		*from = 0;
		break;
	case ST_OP_RENAME:
	case ST_OP_EXCHANGE:
		touch(m, rec->dir, rec->name, op);
		touch(m, rec->dir2, rec->name2, op);
		old = *to;
		if (rec->op == ST_OP_RENAME && old == *from)
			break; /* two names of one file: nothing happens */
		*to = *from;
		*from = rec->op == ST_OP_EXCHANGE ? old : 0;
		break;
	case ST_OP_XATTR:
		m->obj[rec->obj].xattr = rec->value;
		m->obj[rec->obj].last_ns = op;
		break;
	case ST_OP_MODE:
		m->obj[rec->obj].mode = (uint16_t)rec->value;
		m->obj[rec->obj].last_ns = op;
		break;
	case ST_OP_WRITE:
	case ST_OP_TRUNCATE:
	case ST_OP_ZERO:
	case ST_OP_GROW:
		break;
	}
}

void st_data_apply(struct st_thread *t, const struct st_rec *rec, uint32_t op)
{
	struct st_obj *o = &t->m.obj[rec->obj];
	uint8_t *live = t->live[rec->obj];

	switch (rec->op) {
	case ST_OP_WRITE:
		st_fill(live + rec->from, rec->pattern, rec->from, rec->to - rec->from);
		break;
	case ST_OP_TRUNCATE:
		if (rec->size < o->live_size)
			memset(live + rec->size, 0, o->live_size - rec->size);
		break;
	case ST_OP_ZERO:
		if (rec->from < o->live_size)
			memset(live + rec->from, 0, ter_min(rec->to, o->live_size) - rec->from);
		break;
	case ST_OP_GROW:
		break;
	default:
		return;
	}
	o->live_size = rec->size;
	o->last_data = op;
	o->data_ops++;
}

uint64_t st_model_hash(const struct st_model *m)
{
	uint64_t sum = 0;

	for (unsigned d = 0; d < ST_OBJS; d++) {
		const struct st_obj *o = &m->obj[d];
		const unsigned nlink = o->kind == ST_NONE || (d && !st_links(m, d)) ? 0 : st_nlink(m, d);

		if (!nlink)
			continue;
		sum += st_hash(st_hash(st_hash(o->node, (uint64_t)o->kind << 32 | o->mode), (uint64_t)nlink << 32 | o->xattr), o->target);
		for (unsigned n = 0; n < ST_NAMES; n++)
			if (m->name[d][n])
				sum += st_hash(st_hash(o->node + 1, n), m->obj[m->name[d][n] - 1].node);
	}
	return sum;
}

void st_forget_log(struct st_thread *t)
{
	for (unsigned i = 0; i < ST_OBJS; i++) {
		struct st_obj *o = &t->m.obj[i];

		if (o->kind == ST_REG && (o->last_data > o->base_op || o->base_size != o->live_size)) {
			memcpy(t->base[i], t->live[i], ter_max(o->live_size, o->base_size));
			o->base_size = o->live_size;
		}
		o->base_op = t->nr;
		o->data_ops = 0;
		if (i && o->kind != ST_NONE && !st_links(&t->m, i)) {
			memset(t->live[i], 0, o->live_size);
			memset(o, 0, sizeof(*o));
		}
	}
	if (t->nr > t->first) {
		t->first_hash = st_rec(t, t->nr)->hash;
		t->first_end = st_rec(t, t->nr)->end;
	}
	t->first = t->floor = t->nr;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listing directories, with attributes (readdirplus) or without. */
#include <fcntl.h>

#include "fuse/ops_util.h"

#define LIST_BYTES_MAX TER_KIB(256)

struct listing {
	fuse_req_t req;
	struct td_session *session;
	char *buf;
	size_t used, bytes;
	bool plus;
};

static int add_entry(void *arg, const struct ter_dirent *d)
{
	struct listing *l = arg;
	const size_t room = l->bytes - l->used;
	size_t need;

	if (l->plus) {
		struct fuse_entry_param entry = { .attr.st_ino = d->node, .attr.st_mode = (mode_t)d->type << 12 };

		if (d->attr)
			td_entry(d->attr, &entry);
		need = fuse_add_direntry_plus(l->req, l->buf + l->used, room, d->name, &entry, (off_t)d->cookie);
		/* The kernel counts a lookup for each entry that carries a node id ("." and ".." do not). */
		if (need <= room && d->attr && !td_lookups_add(&l->session->lookups, d->attr->node))
			return -ENOMEM;
	} else {
		const struct stat st = { .st_ino = d->node, .st_mode = (mode_t)d->type << 12 };

		need = fuse_add_direntry(l->req, l->buf + l->used, room, d->name, &st, (off_t)d->cookie);
	}
	if (need > room)
		return 1;
	l->used += need;
	return 0;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, const struct fuse_file_info *fi, bool plus)
{
	struct listing l = { .req = req, .session = td_req_session(req), .plus = plus, .bytes = ter_min(size, (size_t)LIST_BYTES_MAX) };
	struct ter_op op;
	int r;

	l.buf = malloc(l.bytes);
	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	td_op_init(req, &op);
	op.noatime |= fi->flags & O_NOATIME;
	r = ter_vfs_readdir(l.session->vfs, &op, td_node(ino), (uint64_t)off, plus, add_entry, &l);
	/* What fits is an answer, even when going on would have to wait or failed: the kernel asks again from there. */
	if (r < 0 && !l.used)
		td_reply_err(req, r);
	else
		fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

void td_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, false);
}

void td_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, fi, true);
}

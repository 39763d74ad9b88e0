/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is agreed with the kernel at INIT: one table. A flag is answered only when it was offered. */
#include "fuse/fuse_priv.h"

enum when { ALWAYS, WRITEBACK };

static const struct {
	uint64_t flag;
	enum when when;
} wanted[] = {
	{ FUSE_ASYNC_READ, ALWAYS },
	{ FUSE_BIG_WRITES, ALWAYS },
	{ FUSE_MAX_PAGES, ALWAYS },
	{ FUSE_ASYNC_DIO, ALWAYS },
	{ FUSE_PARALLEL_DIROPS, ALWAYS },
	{ FUSE_DO_READDIRPLUS, ALWAYS },     /* without READDIRPLUS_AUTO: always plus */
	{ FUSE_EXPORT_SUPPORT, ALWAYS },     /* "." and ".." by node id */
	{ FUSE_DONT_MASK, ALWAYS },          /* the umask is applied by us, unless the parent has a default ACL */
	{ FUSE_POSIX_ACL, ALWAYS },
	{ FUSE_CACHE_SYMLINKS, ALWAYS },
	{ FUSE_EXPLICIT_INVAL_DATA, ALWAYS },
	{ FUSE_HANDLE_KILLPRIV_V2, ALWAYS }, /* no GETXATTR of security.capability before each write */
	{ FUSE_SETXATTR_EXT, ALWAYS },       /* setting an ACL may have to clear set-gid */
	{ FUSE_NO_OPEN_SUPPORT, ALWAYS },
	{ FUSE_NO_OPENDIR_SUPPORT, ALWAYS },
	{ FUSE_INIT_EXT, ALWAYS },
	{ FUSE_WRITEBACK_CACHE, WRITEBACK },
};
/*
 * Never: ATOMIC_O_TRUNC (OPEN is answered ENOSYS, an O_TRUNC in it would be lost), AUTO_INVAL_DATA (we are the only writer), HANDLE_KILLPRIV (v1),
 * READDIRPLUS_AUTO, POSIX_LOCKS and FLOCK_LOCKS (the kernel keeps locks), SPLICE_* (our transport copies once).
 */

uint64_t td_init_flags(const struct td_session *s, uint64_t offered)
{
	uint64_t flags = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
		if (wanted[i].when == ALWAYS || s->config.writeback_cache)
			flags |= wanted[i].flag;
	if (s->ring)
		flags |= TD_FUSE_OVER_IO_URING;
	return flags & offered;
}

void td_init_complete(struct td_session *s, struct fuse_init_out *out)
{
	s->init_flags = td_init_flags(s, s->init_offered);
	out->flags = (uint32_t)s->init_flags;
	out->flags2 = (uint32_t)(s->init_flags >> 32);
	out->max_write = TER_MIB(1);
	out->max_pages = TER_MIB(1) / 4096;
	out->max_background = TD_MAX_BACKGROUND;
	out->congestion_threshold = TD_MAX_BACKGROUND * 3 / 4;
	out->time_gran = 1;
	if (out->max_readahead < TER_MIB(1))
		out->max_readahead = TER_MIB(1);
}

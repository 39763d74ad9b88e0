/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Serving one mount
 *
 * A session owns a mounted /dev/fuse descriptor and answers its requests with one pool's `struct ter_vfs`. libfuse's low-level session decodes and replies; receiving is ours:
 *
 *   classic  one blocking reader a core (at most TD_READERS_MAX), pinned, on the one descriptor; those on cores where no client runs stand aside.
 *   ring     one io_uring and one pinned thread a core (kernel 6.14 or newer with fuse's enable_uring on).
 *
 *   F1  A serving thread never waits: an operation is tried with `nowait`; what answers -EAGAIN is done again, from a copy of the request, by the blocking pool.
 *   F2  Every request is answered exactly once, by whoever finishes it, or dropped when the connection is gone.
 *   F3  Node ids are stateless. What the kernel still knows is counted (lookups.h) only to tell when an unlinked inode may be reaped.
 *   F4  No thread here touches the mount itself.
 */
#ifndef TD_SESSION_H
#define TD_SESSION_H

#include "super/fs.h"

#define TD_READERS_MAX 4
#define TD_POOL_THREADS 8
#define TD_REQUEST_BYTES_MAX (TER_MIB(1) + 4096)

enum td_transport { TD_TRANSPORT_AUTO, TD_TRANSPORT_CLASSIC, TD_TRANSPORT_RING };

struct td_session;
struct td_session_config {
	struct ter_fs *fs;
	struct ter_io *io;
	int fuse_fd;                /* owned by the session from a successful start */
	enum td_transport transport;
	bool noatime;               /* mounted so: the kernel leaves access times to us */
	bool writeback_cache;       /* the kernel's; off: writes are acknowledged by our dirty buffer */
	/* The mount is gone (unmounted or aborted). Called once from a serving thread: must not block, must not call td_session_stop() itself. */
	void (*on_end)(void *arg, struct td_session *session);
	void *arg;
};
int td_session_start(const struct td_session_config *config, struct td_session **ret_session, struct ter_error *error);
/* Stops receiving, finishes what was received, frees. The pool must still run. NULL is fine. */
void td_session_stop(struct td_session *session);
const char *td_session_transport(const struct td_session *session); /* "classic" or "ring", once INIT was answered; "" before */

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A session's life, and the way of a request through libfuse. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"

#define OUT_IOV_MAX 8

_Thread_local struct td_call *td_call;
static _Thread_local struct td_ring_entry *reply_entry;

void td_reply_to(struct td_ring_entry *entry)
{
	reply_entry = entry;
}

void td_late_begin(struct td_session *s)
{
	atomic_fetch_add(&s->late, 1);
}

void td_late_end(struct td_session *s)
{
	atomic_fetch_sub(&s->late, 1);
}

void td_session_ended(struct td_session *s)
{
	bool expected = false;

	if (atomic_compare_exchange_strong(&s->ended, &expected, true) && s->config.on_end)
		s->config.on_end(s->config.arg, s);
}

/* --- libfuse writes through here --- */

static ssize_t write_init(struct td_session *s, const struct iovec *iov, int count)
{
	struct fuse_out_header head = *(const struct fuse_out_header *)iov[0].iov_base;
	struct fuse_init_out out = { 0 };
	struct iovec parts[2] = { { &head, sizeof(head) }, { &out, sizeof(out) } };
	ssize_t n;

	if (head.error || count < 2) {
		n = writev(s->fd, iov, count);
		return n < 0 ? -errno : n;
	}
	memcpy(&out, iov[1].iov_base, ter_min(iov[1].iov_len, sizeof(out)));
	td_init_complete(s, &out);
	head.len = sizeof(head) + sizeof(out);
	n = writev(s->fd, parts, 2);
	if (n < 0)
		return -errno;
	atomic_store(&s->init_done, true);
	if (s->init_flags & TD_FUSE_OVER_IO_URING)
		td_ring_register(s);
	return n;
}

static ssize_t hook_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct td_session *s = userdata;
	const struct fuse_out_header *head = iov[0].iov_base;
	ssize_t n;

	(void)fd;
	if (!s->init_done && head->unique == s->init_unique)
		return write_init(s, iov, count);
	if (reply_entry && td_ring_reply(reply_entry, iov, count, &n))
		return n;
	n = writev(s->fd, iov, count);
	return n < 0 ? -errno : n;
}

static ssize_t hook_read(int fd, void *buf, size_t bytes, void *userdata)
{
	(void)fd;
	(void)buf;
	(void)bytes;
	(void)userdata;
	return -EINVAL; /* receiving is ours */
}

ssize_t td_reply_raw(struct td_session *s, uint64_t unique, int error, const void *payload, size_t bytes)
{
	struct fuse_out_header head = { .len = (uint32_t)(sizeof(head) + bytes), .error = -error, .unique = unique };
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)payload, bytes } };

	return hook_writev(s->fd, iov, bytes ? 2 : 1, s);
}

/* --- requests --- */

static void refuse(struct td_session *s, const struct fuse_in_header *in, struct td_ring_entry *entry)
{
	if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET || in->opcode == FUSE_INTERRUPT || in->opcode == FUSE_NOTIFY_REPLY)
		return; /* has no answer */
	reply_entry = entry;
	td_reply_raw(s, in->unique, EINVAL, NULL, 0);
	reply_entry = NULL;
}

void td_process(struct td_session *s, const void *request, size_t bytes, struct td_ring_entry *entry, bool nowait, bool *ret_deferred)
{
	struct td_call call = { .session = s, .in = request, .bytes = bytes, .entry = entry, .nowait = nowait };
	const struct fuse_buf buf = { .mem = (void *)request, .size = bytes };

	*ret_deferred = false;
	if (!td_request_fits(s, call.in, bytes)) {
		refuse(s, call.in, entry);
		return;
	}
	if (call.in->opcode == FUSE_INIT && !s->init_done) {
		const struct fuse_init_in *in = (const void *)(call.in + 1);

		s->init_unique = call.in->unique;
		s->init_offered = in->flags;
		if ((in->flags & FUSE_INIT_EXT) && bytes >= sizeof(*call.in) + sizeof(*in))
			s->init_offered |= (uint64_t)in->flags2 << 32;
	}
	td_call = &call;
	reply_entry = entry;
	if (!td_ops_raw(s, call.in, bytes))
		fuse_session_process_buf(s->se, &buf);
	reply_entry = NULL;
	td_call = NULL;
	*ret_deferred = call.deferred;
}

/* --- life --- */

static int make_fuse_session(struct td_session *s, struct ter_error *error)
{
	static const struct fuse_custom_io io = { .writev = hook_writev, .read = hook_read };
	char *argv[] = { (char *)"terraced", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int r;

	s->se = fuse_session_new(&args, &td_ops, sizeof(td_ops), s);
	fuse_opt_free_args(&args);
	if (!s->se)
		return ter_fail(error, TER_ERR_FAILED, "libfuse could not make a session.");
	r = fuse_session_custom_io(s->se, &io, s->fd);
	if (r != 0) {
		fuse_session_destroy(s->se);
		s->se = NULL;
		return ter_fail(error, TER_ERR_FAILED, "libfuse could not take the mount's descriptor: %s.", strerror(r < 0 ? -r : EINVAL));
	}
	return 0;
}

static void free_session(struct td_session *s)
{
	if (s->se)
		fuse_session_destroy(s->se); /* closes the descriptor, which custom_io took */
	else
		close(s->fd);
	td_lookups_destroy(&s->lookups);
	free(s);
}

int td_session_start(const struct td_session_config *config, struct td_session **ret_session, struct ter_error *error)
{
	struct td_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return ter_fail(error, TER_ERR_NO_MEMORY, "Not enough memory to serve the mount.");
	s->config = *config;
	s->fs = config->fs;
	s->vfs = ter_fs_vfs(config->fs);
	/* A descriptor of our own, so that a failure leaves the caller's alone at every step. */
	s->fd = fcntl(config->fuse_fd, F_DUPFD_CLOEXEC, 3);
	if (s->fd < 0) {
		r = -errno;
		free(s);
		return ter_fail_errno(error, r, "The mount's descriptor cannot be kept: %s.", strerror(-r));
	}
	td_lookups_init(&s->lookups);
	r = make_fuse_session(s, error);
	if (r >= 0) {
		r = td_pool_start(s);
		if (r < 0)
			ter_fail_errno(error, r, "The threads that serve the mount cannot be started: %s.", strerror(-r));
	}
	if (r < 0) {
		free_session(s);
		return r;
	}
	if (config->transport != TD_TRANSPORT_CLASSIC) {
		r = td_ring_prepare(s);
		if (r < 0 && config->transport == TD_TRANSPORT_RING) {
			ter_fail(error, TER_ERR_NOT_SUPPORTED,
				 "This kernel does not offer FUSE over io_uring. Use the transport 'auto' or 'classic'.");
			td_pool_stop(s);
			free_session(s);
			return -EOPNOTSUPP;
		}
	}
	r = td_classic_start(s);
	if (r < 0) {
		td_ring_stop(s);
		td_pool_stop(s);
		free_session(s);
		return ter_fail_errno(error, r, "The threads that serve the mount cannot be started: %s.", strerror(-r));
	}
	close(config->fuse_fd);
	*ret_session = s;
	return 0;
}

void td_session_stop(struct td_session *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, 1);
	td_classic_stop(s);
	td_pool_stop(s);
	/* Reads and syncs under way finish by themselves: devices answer or fail. */
	while (atomic_load(&s->late))
		ter_sleep_ns(s->config.io->exec, TER_NS_PER_MS);
	td_ring_stop(s);
	free_session(s);
}

const char *td_session_transport(const struct td_session *s)
{
	if (!s->init_done)
		return "";
	return s->init_flags & TD_FUSE_OVER_IO_URING ? "ring" : "classic";
}

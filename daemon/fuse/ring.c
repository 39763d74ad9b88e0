/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * FUSE over io_uring: one ring and one pinned thread a core, under libfuse 3.14
 *
 * Each thread holds TD_RING_DEPTH entries for its core's queue. A completed command is a request: it is put together in front of the payload and decoded by libfuse; the answer is
 * copied into the entry and given back with COMMIT_AND_FETCH, which also fetches the next one.
 *
 *   G1  The ring of a thread is used by that thread only. Who answers elsewhere (the pool, the journal's task) puts the entry on the ring's ready list and wakes it by its eventfd.
 *   G2  Until every possible core's queue has an entry the kernel serves nobody: all threads register as soon as INIT was answered.
 *   G3  Device completions of requests made by this thread run in it (its own I/O context).
 */
#include <liburing.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"

#define PAYLOAD_BYTES TER_MIB(1)
#define HEAD_ROOM 4096u /* in front of the payload: where headers are put together */
#define RINGS_MAX 64u   /* cores; more: the classic device */

struct td_ring_entry {
	struct td_ring_thread *thread;
	struct td_uring_headers *headers;
	uint8_t *payload;      /* page-aligned, HEAD_ROOM before it is ours */
	struct iovec iov[2];
	uint64_t unique, commit_id;
	struct ter_list link;  /* ready list */
};

struct td_ring_thread {
	struct td_ring *parent;
	pthread_t pthread;
	bool started;
	unsigned cpu;
	struct io_uring ring;
	bool ring_up;
	int event_fd;
	uint64_t event_value;
	struct ter_io_ctx *io_ctx;
	uint64_t io_value;
	pthread_mutex_t mutex;  /* guards ready and woken */
	struct ter_list ready;
	bool woken;
	struct td_ring_entry entry[TD_RING_DEPTH];
	uint8_t *memory;
};

struct td_ring {
	struct td_session *session;
	unsigned nr, depth;
	struct td_ring_thread thread[RINGS_MAX];
};

static _Thread_local struct td_ring_thread *self;

#define ENTRY_STRIDE (TER_KIB(4) /* headers */ + HEAD_ROOM + PAYLOAD_BYTES)
#define TAG_EVENT ((void *)1)
#define TAG_IO ((void *)2)

static unsigned possible_cpus(void)
{
	FILE *f = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned first = 0, last = 0;
	int n;

	if (!f)
		return 0;
	n = fscanf(f, "%u-%u", &first, &last);
	fclose(f);
	return n == 2 ? last + 1 : n == 1 ? first + 1 : 0;
}

static bool kernel_offers(void)
{
	FILE *f = fopen("/sys/module/fuse/parameters/enable_uring", "re");
	int c;

	if (!f)
		return false;
	c = fgetc(f);
	fclose(f);
	return c == 'Y' || c == '1';
}

/* --- submitting: only in the thread itself --- */

static struct io_uring_sqe *get_sqe(struct td_ring_thread *t)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&t->ring);

	while (!sqe) {
		io_uring_submit(&t->ring);
		sqe = io_uring_get_sqe(&t->ring);
	}
	memset(sqe, 0, 2 * sizeof(*sqe)); /* SQE128 */
	return sqe;
}

static void queue_cmd(struct td_ring_entry *e, unsigned cmd)
{
	struct io_uring_sqe *sqe = get_sqe(e->thread);
	struct td_uring_cmd *req = (void *)sqe->cmd;

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = 0; /* registered */
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->cmd_op = cmd;
	if (cmd == TD_URING_REGISTER) {
		sqe->addr = (uint64_t)(uintptr_t)e->iov;
		sqe->len = 2;
	}
	req->qid = (uint16_t)e->thread->cpu;
	req->commit_id = e->commit_id;
	io_uring_sqe_set_data(sqe, e);
}

static void queue_read(struct td_ring_thread *t, int fd, uint64_t *value, void *tag)
{
	struct io_uring_sqe *sqe = get_sqe(t);

	io_uring_prep_read(sqe, fd, value, sizeof(*value), 0);
	io_uring_sqe_set_data(sqe, tag);
}

static void wake(struct td_ring_thread *t)
{
	const uint64_t one = 1;

	if (write(t->event_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* full counter: it is awake already */
}

/* --- replies --- */

static void give_back(struct td_ring_entry *e)
{
	struct td_ring_thread *t = e->thread;
	bool kick;

	if (t == self) {
		queue_cmd(e, TD_URING_COMMIT_AND_FETCH);
		return;
	}
	pthread_mutex_lock(&t->mutex);
	ter_list_add_tail(&t->ready, &e->link);
	kick = !t->woken;
	t->woken = true;
	pthread_mutex_unlock(&t->mutex);
	if (kick)
		wake(t);
}

bool td_ring_reply(struct td_ring_entry *e, const struct iovec *iov, int count, ssize_t *ret)
{
	const struct fuse_out_header *head = iov[0].iov_base;
	size_t at = 0, total = sizeof(*head);

	if (head->unique != e->unique)
		return false;
	memcpy(e->headers->in_out, head, sizeof(*head));
	/* libfuse may put payload behind the header in the first part. */
	for (int i = 0; i < count; i++) {
		const uint8_t *from = iov[i].iov_base;
		size_t n = iov[i].iov_len;

		if (i == 0) {
			from += sizeof(*head);
			n -= sizeof(*head);
		}
		if (at + n > PAYLOAD_BYTES) {
			struct fuse_out_header *out = (void *)e->headers->in_out;

			out->error = -EIO;
			at = 0;
			break;
		}
		if (from != e->payload + at)
			memmove(e->payload + at, from, n);
		at += n;
		total += n;
	}
	e->headers->ent.payload_sz = (uint32_t)at;
	e->unique = 0;
	give_back(e);
	*ret = (ssize_t)total;
	return true;
}

void *td_ring_payload(struct td_ring_entry *e, size_t bytes)
{
	return bytes <= PAYLOAD_BYTES ? e->payload : NULL;
}

/* --- requests --- */

static void serve(struct td_ring_entry *e)
{
	struct td_session *s = e->thread->parent->session;
	const struct fuse_in_header *in = (const void *)e->headers->in_out;
	const size_t payload = e->headers->ent.payload_sz;
	const size_t op = in->len > sizeof(*in) + payload ? in->len - sizeof(*in) - payload : 0;
	uint8_t *at = e->payload - op - sizeof(*in);
	bool deferred;

	e->commit_id = e->headers->ent.commit_id;
	e->unique = in->unique;
	if (op > sizeof(e->headers->op_in) || payload > PAYLOAD_BYTES || in->len < sizeof(*in)) {
		td_reply_to(e);
		td_reply_raw(s, in->unique, EINVAL, NULL, 0);
		td_reply_to(NULL);
		return;
	}
	memcpy(at, in, sizeof(*in));
	memcpy(at + sizeof(*in), e->headers->op_in, op);
	{
		const struct fuse_in_header request = *(const struct fuse_in_header *)(const void *)at;

		td_process(s, at, request.len, e, true, &deferred);
		if (deferred && td_pool_add(s, at, request.len, e) < 0) {
			td_reply_to(e);
			td_reply_raw(s, request.unique, ENOMEM, NULL, 0);
			td_reply_to(NULL);
		}
	}
}

static void commit_ready(struct td_ring_thread *t)
{
	struct ter_list ready;

	ter_list_init(&ready);
	pthread_mutex_lock(&t->mutex);
	t->woken = false;
	while (!ter_list_empty(&t->ready)) {
		struct td_ring_entry *e = ter_list_first(&t->ready, struct td_ring_entry, link);

		ter_list_del(&e->link);
		ter_list_add_tail(&ready, &e->link);
	}
	pthread_mutex_unlock(&t->mutex);
	while (!ter_list_empty(&ready)) {
		struct td_ring_entry *e = ter_list_first(&ready, struct td_ring_entry, link);

		ter_list_del(&e->link);
		queue_cmd(e, TD_URING_COMMIT_AND_FETCH);
	}
}

static void handle(struct td_ring_thread *t, struct io_uring_cqe *cqe, bool *registered)
{
	void *tag = io_uring_cqe_get_data(cqe);
	struct td_session *s = t->parent->session;

	if (tag == TAG_EVENT) {
		if (!*registered && atomic_load(&s->init_done)) {
			*registered = true;
			for (unsigned i = 0; i < t->parent->depth; i++)
				queue_cmd(&t->entry[i], TD_URING_REGISTER);
		}
		commit_ready(t);
		queue_read(t, t->event_fd, &t->event_value, TAG_EVENT);
	} else if (tag == TAG_IO) {
		ter_io_ctx_poll(t->io_ctx);
		queue_read(t, ter_io_ctx_fd(t->io_ctx), &t->io_value, TAG_IO);
	} else if (cqe->res == 0) {
		serve(tag);
	} /* else the connection is going, or REGISTER was refused: the kernel uses the device */
}

/* By the system call: Debian's liburing 2.3 declares a function for it that it does not export. */
static void enable_ring(struct td_ring_thread *t)
{
	if (syscall(__NR_io_uring_register, t->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		assert(errno == EBADFD); /* enabled already */
}

static void *ring_thread(void *arg)
{
	struct td_ring_thread *t = arg;
	struct td_session *s = t->parent->session;
	const struct sched_param param = { 0 };
	bool registered = false;
	cpu_set_t set;

	self = t;
	CPU_ZERO(&set);
	CPU_SET(t->cpu, &set);
	(void)sched_setaffinity(0, sizeof(set), &set); /* a core that is offline: served from elsewhere */
	(void)sched_setscheduler(0, SCHED_BATCH, &param);
	enable_ring(t);
	io_uring_register_ring_fd(&t->ring);
	if (t->io_ctx) {
		ter_io_ctx_enter(t->io_ctx);
		queue_read(t, ter_io_ctx_fd(t->io_ctx), &t->io_value, TAG_IO);
	}
	queue_read(t, t->event_fd, &t->event_value, TAG_EVENT);
	while (!atomic_load(&s->stop) || atomic_load(&s->late)) {
		struct io_uring_cqe *cqe;
		unsigned head, nr = 0;

		if (io_uring_submit_and_wait(&t->ring, 1) < 0 && errno != EINTR)
			continue;
		io_uring_for_each_cqe(&t->ring, head, cqe) {
			handle(t, cqe, &registered);
			nr++;
		}
		io_uring_cq_advance(&t->ring, nr);
	}
	ter_io_ctx_enter(NULL);
	self = NULL;
	return NULL;
}

/* --- life --- */

static int thread_init(struct td_ring *ring, struct td_ring_thread *t, unsigned cpu)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
		.cq_entries = 4 * TD_RING_DEPTH + 16,
	};
	const size_t bytes = ENTRY_STRIDE * ring->depth;
	int r;

	t->parent = ring;
	t->cpu = cpu;
	t->event_fd = eventfd(0, EFD_CLOEXEC);
	if (t->event_fd < 0)
		return -errno;
	pthread_mutex_init(&t->mutex, NULL);
	ter_list_init(&t->ready);
	r = io_uring_queue_init_params(2 * TD_RING_DEPTH + 8, &t->ring, &params);
	if (r < 0)
		return r;
	t->ring_up = true;
	r = io_uring_register_files(&t->ring, &ring->session->fd, 1);
	if (r < 0)
		return r;
	t->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->memory == MAP_FAILED) {
		t->memory = NULL;
		return -ENOMEM;
	}
	for (unsigned i = 0; i < ring->depth; i++) {
		struct td_ring_entry *e = &t->entry[i];

		e->thread = t;
		e->headers = (void *)(t->memory + i * ENTRY_STRIDE);
		e->payload = t->memory + i * ENTRY_STRIDE + TER_KIB(4) + HEAD_ROOM;
		e->iov[0] = (struct iovec){ e->headers, sizeof(*e->headers) };
		e->iov[1] = (struct iovec){ e->payload, PAYLOAD_BYTES };
	}
	t->io_ctx = ter_io_ctx_new(ring->session->config.io);
	return 0;
}

static void thread_destroy(struct td_ring *ring, struct td_ring_thread *t)
{
	ter_io_ctx_free(t->io_ctx);
	if (t->ring_up)
		io_uring_queue_exit(&t->ring);
	if (t->memory)
		munmap(t->memory, ENTRY_STRIDE * ring->depth);
	if (t->event_fd >= 0)
		close(t->event_fd);
}

int td_ring_prepare(struct td_session *s)
{
	const unsigned cpus = possible_cpus();
	struct td_ring *ring;
	int r = 0;

	if (!cpus || cpus > RINGS_MAX || !kernel_offers())
		return -EOPNOTSUPP;
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	ring->session = s;
	ring->nr = cpus;
	ring->depth = cpus <= 8 ? TD_RING_DEPTH : cpus <= 32 ? TD_RING_DEPTH / 2 : 1;
	for (unsigned i = 0; i < cpus; i++)
		ring->thread[i].event_fd = -1;
	s->ring = ring;
	for (unsigned i = 0; i < cpus && r >= 0; i++) {
		r = thread_init(ring, &ring->thread[i], i);
		if (r >= 0)
			r = -pthread_create(&ring->thread[i].pthread, NULL, ring_thread, &ring->thread[i]);
		ring->thread[i].started = r >= 0;
	}
	if (r < 0) {
		atomic_store(&s->stop, 1);
		td_ring_stop(s);
		atomic_store(&s->stop, 0);
		return -EOPNOTSUPP;
	}
	return 0;
}

void td_ring_register(struct td_session *s)
{
	for (unsigned i = 0; i < s->ring->nr; i++)
		wake(&s->ring->thread[i]);
}

void td_ring_stop(struct td_session *s)
{
	struct td_ring *ring = s->ring;

	if (!ring)
		return;
	for (unsigned i = 0; i < ring->nr; i++) {
		struct td_ring_thread *t = &ring->thread[i];

		if (t->started) {
			wake(t);
			pthread_join(t->pthread, NULL);
		}
		thread_destroy(ring, t);
	}
	free(ring);
	s->ring = NULL;
}

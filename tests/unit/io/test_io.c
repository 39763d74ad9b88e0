/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests on every backend: what was written is read, in any order of completion, whatever the shape; errors are
 * errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io.h"
#include "io/sim.h"
#include "util/fault.h"

#define DEVICE_BYTES TER_MIB(4)
#define SLOT_BYTES TER_KIB(64)
#define SLOTS (DEVICE_BYTES / SLOT_BYTES)
#define UNIT 4096u /* suits every logical block size met here */
#define REQUESTS 1500
#define IN_FLIGHT_MAX 48

enum backend { URING, THREADS, SIM, BACKENDS };
static const char *const backend_names[] = {"uring", "threads", "sim"};

struct world {
	enum backend backend;
	struct ter_exec *exec;
	struct ter_sim *sim;
	struct ter_io *io;
	struct ter_bdev *bdev;
	char dir[256], path[300];
	bool bad;
	void (*body)(struct world *w);
};

#define EXPECT(w, condition)                                                                                           \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			print_error("%s:%d: %s: %s\n", __FILE__, __LINE__, backend_names[(w)->backend], #condition);   \
			(w)->bad = true;                                                                               \
		}                                                                                                      \
	} while (0)

static uint64_t test_seed;
static uint64_t dice;

static uint64_t draw(uint64_t below)
{
	uint64_t z = (dice += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

static void make_file(struct world *w)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(w->dir, sizeof(w->dir), "%s/terrace-io-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(w->dir))
		abort();
	snprintf(w->path, sizeof(w->path), "%s/member", w->dir);
	fd = open(w->path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, DEVICE_BYTES) < 0)
		abort();
	close(fd);
}

static void remove_file(struct world *w)
{
	unlink(w->path);
	rmdir(w->dir);
}

static void in_world(void *arg)
{
	struct world *w = arg;

	EXPECT(w, ter_bdev_open(w->io, w->path, 0, &w->bdev, NULL) == 0);
	if (w->bad)
		return;
	w->body(w);
	ter_bdev_close(w->bdev);
}

static void run_world(enum backend backend, bool coop, void (*body)(struct world *w))
{
	struct world w = {.backend = backend, .body = body};

	dice = test_seed;
	w.exec = coop ? ter_exec_new_coop(test_seed) : ter_exec_new_threads();
	assert_non_null(w.exec);
	if (backend == SIM) {
		w.sim = ter_sim_new(w.exec, test_seed, &w.io);
		assert_non_null(w.sim);
		snprintf(w.path, sizeof(w.path), "/sim/a");
		assert_return_code(ter_sim_add(w.sim, w.path, DEVICE_BYTES, UNIT), 0);
	} else {
		make_file(&w);
		if (ter_io_new(w.exec, backend_names[backend], &w.io, NULL) < 0) {
			print_message("%s is not permitted here\n", backend_names[backend]);
			remove_file(&w);
			ter_exec_free(w.exec);
			return;
		}
		assert_string_equal(w.io->name, backend_names[backend]);
	}
	if (coop)
		assert_return_code(ter_coop_run(w.exec, in_world, &w), 0);
	else
		in_world(&w);
	ter_io_free(w.io);
	ter_exec_free(w.exec);
	if (backend != SIM)
		remove_file(&w);
	assert_false(w.bad);
}

static void on_all(void (*body)(struct world *w))
{
	for (unsigned b = 0; b < BACKENDS; b++)
		run_world(b, false, body);
	run_world(THREADS, true, body);
	for (unsigned i = 0; i < 5; i++) {
		run_world(SIM, true, body);
		test_seed++;
	}
}

/* --- random requests --- */

struct request {
	struct ter_bio bio;
	struct mix *mix;
	unsigned slot;
	uint8_t *memory;
	struct iovec iov[8];
	bool busy;
};

struct mix {
	struct world *w;
	struct ter_lock lock;
	struct ter_waitq wq;
	uint8_t *model, *memory;
	bool slot_busy[SLOTS];
	unsigned in_flight;
	uint64_t done;
	struct request request[IN_FLIGHT_MAX];
};

static void check_read(struct request *q)
{
	EXPECT(q->mix->w, !memcmp(q->memory, q->mix->model + q->bio.offset_bytes, q->bio.bytes));
}

static void request_done(struct ter_bio *bio)
{
	struct request *q = bio->priv;
	struct mix *mix = q->mix;

	ter_lock_acquire(&mix->lock);
	EXPECT(mix->w, bio->result == 0);
	if (bio->op == TER_BIO_READ)
		check_read(q);
	if (bio->op != TER_BIO_FLUSH)
		mix->slot_busy[q->slot] = false;
	q->busy = false;
	mix->in_flight--;
	mix->done++;
	ter_waitq_wake_one(&mix->wq);
	ter_lock_release(&mix->lock);
}

static void shape(struct request *q, uint64_t bytes)
{
	uint64_t at = 0;

	q->bio.iov = q->iov;
	q->bio.iov_nr = 0;
	while (at < bytes) {
		uint64_t n = (1 + draw(4)) * UNIT;

		if (n > bytes - at || q->bio.iov_nr == ARRAY_SIZE(q->iov) - 1)
			n = bytes - at;
		q->iov[q->bio.iov_nr++] = (struct iovec){q->memory + at, n};
		at += n;
	}
}

/* With the lock held. */
static void choose_request(struct mix *mix, struct request *q)
{
	uint64_t units = 1 + draw(SLOT_BYTES / UNIT), at = draw(SLOT_BYTES / UNIT - units + 1), dice4 = draw(16);

	do
		q->slot = (unsigned)draw(SLOTS);
	while (mix->slot_busy[q->slot]);
	q->bio = (struct ter_bio){
		.op = dice4 < 7	   ? TER_BIO_READ
		      : dice4 < 14 ? TER_BIO_WRITE
		      : dice4 < 15 ? TER_BIO_DISCARD
				   : TER_BIO_FLUSH,
		.flags = !draw(4) ? TER_BIO_FUA : 0,
		.bdev = mix->w->bdev,
		.offset_bytes = q->slot * SLOT_BYTES + at * UNIT,
		.bytes = units * UNIT,
		.done = request_done,
		.priv = q,
	};
	if (q->bio.op == TER_BIO_DISCARD && !mix->w->bdev->info.can_discard)
		q->bio.op = TER_BIO_FLUSH;
	if (q->bio.op == TER_BIO_FLUSH)
		q->bio.offset_bytes = q->bio.bytes = 0;
	else
		mix->slot_busy[q->slot] = true;
	shape(q, q->bio.bytes);
	if (q->bio.op == TER_BIO_WRITE) {
		memset(q->memory, (int)draw(256), q->bio.bytes);
		for (uint64_t i = 0; i < q->bio.bytes; i += 512)
			*(uint64_t *)(void *)(q->memory + i) = draw(UINT64_MAX);
		memcpy(mix->model + q->bio.offset_bytes, q->memory, q->bio.bytes);
	} else if (q->bio.op == TER_BIO_DISCARD) {
		memset(mix->model + q->bio.offset_bytes, 0, q->bio.bytes);
	}
	q->busy = true;
	mix->in_flight++;
}

static void body_mix(struct world *w)
{
	struct mix *mix = calloc(1, sizeof(*mix));

	mix->w = w;
	mix->model = calloc(1, DEVICE_BYTES);
	mix->memory = aligned_alloc(UNIT, IN_FLIGHT_MAX * SLOT_BYTES);
	ter_lock_init(&mix->lock, TER_RANK_BTREE_CACHE);
	ter_waitq_init(&mix->wq);
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *q = NULL;

		ter_lock_acquire(&mix->lock);
		while (mix->in_flight == IN_FLIGHT_MAX)
			ter_waitq_wait(&mix->wq, &mix->lock);
		for (unsigned j = 0; j < IN_FLIGHT_MAX && !q; j++)
			if (!mix->request[j].busy)
				q = &mix->request[j];
		q->mix = mix;
		q->memory = mix->memory + (size_t)(q - mix->request) * SLOT_BYTES;
		choose_request(mix, q);
		ter_lock_release(&mix->lock);
		ter_bio_submit(&q->bio);
	}
	ter_lock_acquire(&mix->lock);
	while (mix->in_flight)
		ter_waitq_wait(&mix->wq, &mix->lock);
	ter_lock_release(&mix->lock);
	EXPECT(w, mix->done == REQUESTS);

	for (unsigned i = 0; i < SLOTS; i++) {
		EXPECT(w, ter_bdev_read(w->bdev, i * SLOT_BYTES, mix->memory, SLOT_BYTES) == 0);
		EXPECT(w, !memcmp(mix->memory, mix->model + i * SLOT_BYTES, SLOT_BYTES));
	}
	ter_waitq_destroy(&mix->wq);
	ter_lock_destroy(&mix->lock);
	free(mix->memory);
	free(mix->model);
	free(mix);
}

static void what_is_written_is_read(void **state)
{
	on_all(body_mix);
}

static void short_transfers_go_on_where_they_stopped(void **state)
{
	const struct ter_fault_rule often = {.probability_ppm = 400000, .seed = test_seed};

	for (unsigned b = 0; b < SIM; b++) {
		assert_return_code(ter_fault_arm("io.short", &often), 0);
		run_world(b, false, body_mix);
		assert_true(ter_fault_fired("io.short") > 0);
		ter_fault_disarm_all();
	}
}

static void body_stall(struct world *w)
{
	const struct ter_fault_rule error = {.err = EREMOTEIO}, for_ever = {.err = EINTR};
	uint8_t *memory = aligned_alloc(UNIT, UNIT);

	EXPECT(w, ter_fault_arm("io.short", &for_ever) == 0);
	EXPECT(w, ter_bdev_read(w->bdev, 0, memory, UNIT) == -EIO); /* given up, not tried for ever */
	EXPECT(w, ter_fault_fired("io.short") > 1);
	EXPECT(w, ter_fault_arm("io.short", &error) == 0);
	memset(memory, 0, UNIT);
	EXPECT(w, ter_bdev_write(w->bdev, 0, memory, UNIT, 0) == -EREMOTEIO);
	EXPECT(w, ter_fault_fired("io.short") == 1);
	ter_fault_disarm_all();
	free(memory);
}

static void a_transfer_that_does_not_move_is_given_up(void **state)
{
	run_world(URING, false, body_stall);
	run_world(THREADS, false, body_stall);
}

/* --- many requests of one device --- */

struct flood {
	struct world *w;
	struct ter_event event;
	uint64_t left;
};

static void flood_done(struct ter_bio *bio)
{
	struct flood *flood = bio->priv;

	if (bio->result)
		flood->w->bad = true;
	if (!__atomic_sub_fetch(&flood->left, 1, __ATOMIC_ACQ_REL))
		ter_event_set(&flood->event, 0);
}

static void body_flood(struct world *w)
{
	enum { NR = 5 * TER_IO_QUEUE_DEPTH };
	struct ter_bio *bio = calloc(NR, sizeof(*bio));
	uint8_t *memory = aligned_alloc(UNIT, NR * UNIT), *back = aligned_alloc(UNIT, NR * UNIT);

	for (unsigned pass = 0; pass < 2; pass++) {
		struct flood flood = {.w = w, .left = NR};

		ter_event_init(&flood.event);
		for (unsigned i = 0; i < NR; i++) {
			bio[i] = (struct ter_bio){
				.op = pass ? TER_BIO_READ : TER_BIO_WRITE,
				.bdev = w->bdev,
				.offset_bytes = i * UNIT,
				.bytes = UNIT,
				.iov1 = {(pass ? back : memory) + i * UNIT, UNIT},
				.iov = &bio[i].iov1,
				.iov_nr = 1,
				.done = flood_done,
				.priv = &flood,
			};
			memset(memory + i * UNIT, (int)(i % 251), UNIT);
			ter_bio_submit(&bio[i]);
		}
		EXPECT(w, ter_event_wait(&flood.event) == 0);
		ter_event_destroy(&flood.event);
	}
	EXPECT(w, !memcmp(memory, back, NR * UNIT));
	free(memory);
	free(back);
	free(bio);
}

static void more_requests_than_the_queue_holds_all_complete(void **state)
{
	on_all(body_flood);
}

/* --- several tasks at once --- */

struct writer {
	struct world *w;
	unsigned idx;
};

static void write_and_read_back(void *arg)
{
	struct writer *writer = arg;
	struct world *w = writer->w;
	uint8_t *memory = aligned_alloc(UNIT, UNIT);

	for (unsigned i = 0; i < 40; i++) {
		uint64_t at = (writer->idx * 40 + i) * UNIT;

		memset(memory, (int)(writer->idx * 40 + i + 1), UNIT);
		EXPECT(w, ter_bdev_write(w->bdev, at, memory, UNIT, i % 8 ? 0 : TER_BIO_FUA) == 0);
		memset(memory, 0, UNIT);
		EXPECT(w, ter_bdev_read(w->bdev, at, memory, UNIT) == 0);
		EXPECT(w, memory[0] == (uint8_t)(writer->idx * 40 + i + 1) && memory[UNIT - 1] == memory[0]);
		if (i % 16 == 0)
			EXPECT(w, ter_bdev_flush(w->bdev) == 0);
	}
	free(memory);
}

static void body_tasks(struct world *w)
{
	struct writer writer[4];
	struct ter_task *task[4];

	for (unsigned i = 0; i < 4; i++) {
		writer[i] = (struct writer){w, i};
		if (w->exec->ops->spawn(w->exec, "writer", write_and_read_back, &writer[i], &task[i]) < 0)
			abort();
	}
	for (unsigned i = 0; i < 4; i++)
		w->exec->ops->join(w->exec, task[i]);
}

static void tasks_share_a_device(void **state)
{
	on_all(body_tasks);
}

/* --- tasks that leave --- */

#define LEAVING 64

struct leaver {
	struct flood flood;
	struct ter_bio bio[LEAVING];
	uint8_t *memory;
};

/* Submits and ends without waiting: what it left in the kernel must neither be lost nor fail. */
static void submit_and_leave(void *arg)
{
	struct leaver *leaver = arg;

	for (unsigned i = 0; i < LEAVING; i++)
		ter_bio_submit(&leaver->bio[i]);
}

static void body_leave(struct world *w)
{
	struct leaver *leaver = calloc(1, sizeof(*leaver));

	leaver->memory = aligned_alloc(UNIT, LEAVING * UNIT);
	memset(leaver->memory, 9, LEAVING * UNIT);
	for (unsigned round = 0; round < 20; round++) {
		struct ter_task *task;

		leaver->flood = (struct flood){ .w = w, .left = LEAVING };
		ter_event_init(&leaver->flood.event);
		for (unsigned i = 0; i < LEAVING; i++)
			leaver->bio[i] = (struct ter_bio){
				.op = i % 3 == 2 ? TER_BIO_FLUSH : TER_BIO_WRITE,
				.flags = i % 3 == 1 ? TER_BIO_FUA : 0,
				.bdev = w->bdev,
				.offset_bytes = i * UNIT,
				.bytes = UNIT,
				.iov1 = { leaver->memory + i * UNIT, UNIT },
				.iov = &leaver->bio[i].iov1,
				.iov_nr = 1,
				.done = flood_done,
				.priv = &leaver->flood,
			};
		if (w->exec->ops->spawn(w->exec, "leaver", submit_and_leave, leaver, &task) < 0)
			abort();
		w->exec->ops->join(w->exec, task);
		EXPECT(w, ter_event_wait(&leaver->flood.event) == 0);
		ter_event_destroy(&leaver->flood.event);
	}
	free(leaver->memory);
	free(leaver);
}

static void a_task_that_ends_takes_no_request_along(void **state)
{
	on_all(body_leave);
}

/* --- errors --- */

static void body_errors(struct world *w)
{
	uint8_t *memory = aligned_alloc(UNIT, 2 * UNIT);
	struct ter_fault_rule once = {.nth = 2, .times = 1};
	struct ter_bdev *again;

	memset(memory, 7, 2 * UNIT);
	EXPECT(w, ter_bdev_read(w->bdev, DEVICE_BYTES, memory, UNIT) == -EINVAL);
	EXPECT(w, ter_bdev_read(w->bdev, DEVICE_BYTES - UNIT, memory, 2 * UNIT) == -EINVAL);
	EXPECT(w, ter_bdev_read(w->bdev, UINT64_MAX - UNIT + 1, memory, 2 * UNIT) == -EINVAL);
	EXPECT(w, ter_bdev_write(w->bdev, DEVICE_BYTES, memory, UNIT, 0) == -EINVAL);
	EXPECT(w, ter_bdev_discard(w->bdev, DEVICE_BYTES, UNIT) == -EINVAL);
	EXPECT(w, ter_bdev_read(w->bdev, 0, memory, 0) == -EINVAL);

	EXPECT(w, ter_fault_arm("io.write", &once) == 0);
	EXPECT(w, ter_bdev_write(w->bdev, 0, memory, UNIT, 0) == 0);
	EXPECT(w, ter_bdev_write(w->bdev, 0, memory, UNIT, 0) == -EIO);
	EXPECT(w, ter_bdev_write(w->bdev, 0, memory, UNIT, 0) == 0);
	once = (struct ter_fault_rule){.err = ENODATA};
	EXPECT(w, ter_fault_arm("io.read", &once) == 0 && ter_fault_arm("io.flush", &once) == 0 &&
			  ter_fault_arm("io.discard", &once) == 0);
	EXPECT(w, ter_bdev_read(w->bdev, 0, memory, UNIT) == -ENODATA);
	EXPECT(w, ter_bdev_flush(w->bdev) == -ENODATA);
	EXPECT(w, ter_bdev_discard(w->bdev, 0, UNIT) == -ENODATA);
	EXPECT(w, ter_fault_arm("io.open", &once) == 0);
	EXPECT(w, ter_bdev_open(w->io, w->path, TER_OPEN_SHARED, &again, NULL) == -EIO);
	ter_fault_disarm_all();
	EXPECT(w, ter_bdev_read(w->bdev, 0, memory, UNIT) == 0 && memory[0] == 7);

	EXPECT(w, ter_bdev_open(w->io, w->path, 0, &again, NULL) == -EBUSY);
	EXPECT(w, ter_bdev_open(w->io, w->path, TER_OPEN_SHARED, &again, NULL) == 0);
	EXPECT(w, ter_bdev_read(again, 0, memory, UNIT) == 0 && memory[0] == 7);
	EXPECT(w, ter_bdev_read(again, UNIT, memory, UNIT) == 0 && memory[0] == 0);
	ter_bdev_close(again);
	ter_bdev_close(w->bdev);
	EXPECT(w, ter_bdev_open(w->io, w->path, TER_OPEN_RDONLY, &w->bdev, NULL) == 0);
	EXPECT(w, ter_bdev_write(w->bdev, 0, memory, UNIT, 0) == -EROFS);
	EXPECT(w, ter_bdev_discard(w->bdev, 0, UNIT) == -EROFS);
	EXPECT(w, ter_bdev_read(w->bdev, 0, memory, UNIT) == 0 && memory[0] == 7);
	free(memory);
}

static void bad_requests_and_asked_for_faults_fail(void **state)
{
	on_all(body_errors);
}

static void tell(struct ter_bio *bio)
{
	ter_event_set(bio->priv, bio->result);
}

static void body_shrink(struct world *w)
{
	struct iovec iov[4];
	uint8_t *memory = aligned_alloc(UNIT, 8 * UNIT);
	struct ter_event event;
	struct ter_bio bio = {.op = TER_BIO_READ,
			      .bdev = w->bdev,
			      .bytes = 8 * UNIT,
			      .iov = iov,
			      .iov_nr = 4,
			      .done = tell,
			      .priv = &event};

	EXPECT(w, truncate(w->path, 5 * UNIT) == 0);
	EXPECT(w, ter_bdev_read(w->bdev, 4 * UNIT, memory, UNIT) == 0);
	EXPECT(w, ter_bdev_read(w->bdev, 0, memory, 8 * UNIT) == -EIO);
	EXPECT(w, ter_bdev_read(w->bdev, 16 * UNIT, memory, UNIT) == -EIO);
	for (unsigned i = 0; i < 4; i++)
		iov[i] = (struct iovec){memory + i * 2 * UNIT, 2 * UNIT};
	ter_event_init(&event);
	ter_bio_submit(&bio);
	EXPECT(w, ter_event_wait(&event) == -EIO); /* after a part that succeeded */
	ter_event_destroy(&event);
	free(memory);
}

static void a_file_that_shrank_gives_eio(void **state)
{
	run_world(URING, false, body_shrink);
	run_world(THREADS, false, body_shrink);
}

/* --- contexts and regions, which only uring has --- */

struct ctx_use {
	struct world *w;
	pthread_t owner;
	unsigned left;
};

static void ctx_done(struct ter_bio *bio)
{
	struct ctx_use *use = bio->priv;

	EXPECT(use->w, bio->result == 0);
	EXPECT(use->w, pthread_equal(pthread_self(), use->owner));
	use->left--;
}

static void body_ctx(struct world *w)
{
	enum { NR = 2 * TER_IO_QUEUE_DEPTH };
	struct ter_io_ctx *ctx = ter_io_ctx_new(w->io), *ctx2;
	struct ctx_use use = {.w = w, .owner = pthread_self(), .left = NR};
	uint8_t *memory = mmap(NULL, NR * UNIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ter_bio *bio = calloc(NR, sizeof(*bio));

	if (w->backend != URING) {
		EXPECT(w, !ctx && ter_io_register_region(w->io, memory, UNIT) == -EOPNOTSUPP);
		goto out;
	}
	EXPECT(w, ctx != NULL);
	EXPECT(w, ter_io_register_region(w->io, memory, 0) == -EINVAL);
	EXPECT(w, ter_io_register_region(w->io, memory, NR * UNIT / 2) == 0); /* half: the rest is read without */
	EXPECT(w, ter_io_register_region(w->io, memory, UNIT) == -EBUSY);
	ter_io_unregister_region(w->io, memory + UNIT); /* another's: nothing happens */
	EXPECT(w, ter_io_register_region(w->io, memory, UNIT) == -EBUSY);
	ter_io_unregister_region(w->io, memory);
	EXPECT(w, ter_io_register_region(w->io, memory, NR * UNIT / 2) == 0);
	ctx2 = ter_io_ctx_new(w->io);
	EXPECT(w, ctx2 != NULL);
	ter_io_ctx_free(ctx2);
	ter_io_ctx_free(NULL);

	ter_io_ctx_enter(ctx);
	for (unsigned i = 0; i < NR; i++) {
		bio[i] = (struct ter_bio){.op = i % 5 == 4 ? TER_BIO_FLUSH : TER_BIO_WRITE,
					  .bdev = w->bdev,
					  .offset_bytes = i * UNIT,
					  .bytes = UNIT,
					  .iov1 = {memory + i * UNIT, UNIT},
					  .iov = &bio[i].iov1,
					  .iov_nr = 1,
					  .done = ctx_done,
					  .priv = &use};
		memset(memory + i * UNIT, (int)(i % 250 + 1), UNIT);
		ter_bio_submit(&bio[i]);
	}
	while (use.left) {
		struct pollfd fd = {.fd = ter_io_ctx_fd(ctx), .events = POLLIN};

		EXPECT(w, poll(&fd, 1, 10000) == 1); /* 10 s: a limit for a hang, not a pace */
		if (w->bad)
			break;
		(void)ter_io_ctx_poll(ctx);
	}
	EXPECT(w, ter_io_ctx_poll(ctx) == 0);
	ter_io_ctx_enter(NULL);
	ter_io_ctx_free(ctx);

	memset(memory, 0, NR * UNIT);
	for (unsigned i = 0; i < NR; i++) {
		EXPECT(w, ter_bdev_read(w->bdev, i * UNIT, memory + i * UNIT, UNIT) == 0);
		EXPECT(w, memory[i * UNIT + UNIT - 1] == (i % 5 == 4 ? 0 : i % 250 + 1));
	}
out:
	free(bio);
	/* The memory outlives the backend, as a region must. */
}

static void a_context_completes_on_its_owner(void **state)
{
	run_world(URING, false, body_ctx);
	run_world(THREADS, false, body_ctx);
	run_world(SIM, false, body_ctx);
}

static void an_unknown_backend_is_refused(void **state)
{
	struct ter_exec *exec = ter_exec_new_threads();
	struct ter_exec *coop = ter_exec_new_coop(1);
	struct ter_error error = {0};
	struct ter_io *io;

	assert_int_equal(ter_io_new(exec, "tape", &io, &error), -EOPNOTSUPP);
	assert_int_equal(error.kind, TER_ERR_NOT_SUPPORTED);
	assert_int_equal(ter_io_new(coop, "uring", &io, NULL), -EOPNOTSUPP);
	assert_return_code(ter_io_new(coop, NULL, &io, NULL), 0);
	assert_string_equal(io->name, "threads");
	ter_io_free(io);
	ter_io_free(NULL);
	ter_bdev_close(NULL);
	ter_exec_free(coop);
	ter_exec_free(exec);
}

static void failed_beginnings_leave_nothing(void **state)
{
	struct ter_exec *exec = ter_exec_new_threads();
	struct ter_io *io;

	for (unsigned b = 0; b < SIM; b++) {
		for (uint64_t nth = 1;; nth++) {
			struct ter_fault_rule rule = {.nth = nth, .times = 1};
			int r;

			assert_return_code(ter_fault_arm(nth % 2 ? "mem.alloc" : "exec.spawn", &rule), 0);
			r = ter_io_new(exec, backend_names[b], &io, NULL);
			ter_fault_disarm_all();
			if (r == 0)
				ter_io_free(io);
			if (r == 0 && nth > 20)
				break;
		}
	}
	ter_exec_free(exec);
}

int main(void)
{
	const char *seed = getenv("TER_TEST_SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(short_transfers_go_on_where_they_stopped),
		cmocka_unit_test(a_transfer_that_does_not_move_is_given_up),
		cmocka_unit_test(more_requests_than_the_queue_holds_all_complete),
		cmocka_unit_test(tasks_share_a_device),
		cmocka_unit_test(a_task_that_ends_takes_no_request_along),
		cmocka_unit_test(bad_requests_and_asked_for_faults_fail),
		cmocka_unit_test(a_file_that_shrank_gives_eio),
		cmocka_unit_test(a_context_completes_on_its_owner),
		cmocka_unit_test(an_unknown_backend_is_refused),
		cmocka_unit_test(failed_beginnings_leave_nothing),
	};

	test_seed = seed ? strtoull(seed, NULL, 0) : 1;
	print_message("TER_TEST_SEED=%llu\n", (unsigned long long)test_seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

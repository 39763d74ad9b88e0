/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests to a member: what is counted, what is told, and what needs a flush. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "fake_disk.h"

#define IDX 3 /* not 0: errors must find their members by the index */

struct rig {
	struct ter_exec *exec;
	struct fake_machine *fm;
	struct fake_disk *disk;
	struct ter_members *members;
	struct ter_dev *dev;
	uint8_t buf[8192];
	/* what was told */
	unsigned errors;
	struct ter_dev *error_dev;
	enum ter_dev_errkind error_kind;
	int error_r;
};

static void on_error(void *arg, struct ter_dev *dev, enum ter_dev_errkind kind, int r)
{
	struct rig *rig = arg;

	rig->errors++;
	rig->error_dev = dev;
	rig->error_kind = kind;
	rig->error_r = r;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->exec = ter_exec_new_threads();
	rig->fm = fake_machine_new(rig->exec, 1, 65536);
	rig->disk = &rig->fm->disk[0];
	rig->members = calloc(1, sizeof(*rig->members));
	rig->members->on_error = on_error;
	rig->members->on_error_arg = rig;
	rig->dev = &rig->members->dev[IDX];
	rig->dev->idx = IDX;
	rig->dev->used = true;
	rig->dev->bdev = &rig->disk->bdev;
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_machine_free(rig->fm);
	ter_exec_free(rig->exec);
	free(rig->members);
	free(rig);
	return 0;
}

static void what_is_written_is_read_and_counted(void **state)
{
	struct rig *rig = *state;
	uint8_t back[4096];

	memset(rig->buf, 7, sizeof(rig->buf));
	assert_int_equal(ter_dev_write(rig->dev, 8192, rig->buf, 8192, 0), 0);
	assert_int_equal(ter_dev_read(rig->dev, 12288, back, 4096), 0);
	assert_memory_equal(back, rig->buf, 4096);
	assert_int_equal(atomic_load(&rig->dev->write_bytes), 8192);
	assert_int_equal(atomic_load(&rig->dev->read_bytes), 4096);
	assert_int_equal(rig->dev->write_times.count, 1);
	assert_int_equal(rig->dev->read_times.count, 1);
	assert_int_equal(rig->dev->flush_times.count, 0);
	assert_int_equal(ter_dev_flush(rig->dev), 0);
	assert_int_equal(atomic_load(&rig->dev->flushes), 1);
	assert_int_equal(rig->dev->flush_times.count, 1);
	assert_int_equal(atomic_load(&rig->dev->inflight), 0);
	assert_int_equal(rig->errors, 0);
}

static void a_write_needs_a_flush_unless_it_is_fua(void **state)
{
	struct rig *rig = *state;

	assert_false(ter_dev_unflushed(rig->dev));
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, TER_BIO_FUA), 0);
	assert_false(ter_dev_unflushed(rig->dev));
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), 0);
	assert_true(ter_dev_unflushed(rig->dev));
	assert_int_equal(ter_dev_flush(rig->dev), 0);
	assert_false(ter_dev_unflushed(rig->dev));

	rig->disk->fail_all_writes = true; /* a failed write may have landed in part */
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, TER_BIO_FUA), -EIO);
	assert_true(ter_dev_unflushed(rig->dev));
}

struct async {
	struct ter_dev_bio dbio;
	bool done;
};

static void async_done(struct ter_dev_bio *dbio)
{
	ter_container_of(dbio, struct async, dbio)->done = true;
}

static void submit(struct rig *rig, struct async *async, enum ter_bio_op op)
{
	struct ter_bio *bio = &async->dbio.bio;

	*async = (struct async){ .dbio.done = async_done };
	bio->op = op;
	if (op != TER_BIO_FLUSH) {
		bio->bytes = 512;
		bio->iov1 = (struct iovec){ rig->buf, 512 };
		bio->iov = &bio->iov1;
		bio->iov_nr = 1;
	}
	ter_dev_submit(rig->dev, &async->dbio);
}

static void nothing_counts_as_flushed_while_the_flush_is_in_flight(void **state)
{
	struct rig *rig = *state;
	struct async flush;

	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), 0);
	rig->disk->hold = true;
	submit(rig, &flush, TER_BIO_FLUSH);
	assert_int_equal(atomic_load(&rig->dev->inflight), 1);
	assert_true(ter_dev_unflushed(rig->dev)); /* somebody else's commit must still flush */
	fake_complete(rig->disk, 0, 0);
	assert_true(flush.done);
	assert_false(ter_dev_unflushed(rig->dev));
	assert_int_equal(atomic_load(&rig->dev->inflight), 0);
}

static void a_flush_covers_only_writes_completed_before_it(void **state)
{
	struct rig *rig = *state;
	struct async write, flush;

	rig->disk->hold = true;
	submit(rig, &write, TER_BIO_WRITE);
	submit(rig, &flush, TER_BIO_FLUSH);
	assert_false(ter_dev_unflushed(rig->dev)); /* not completed: nobody was promised anything */
	fake_complete(rig->disk, 0, 0); /* the write */
	fake_complete(rig->disk, 0, 0); /* the flush */
	assert_true(write.done && flush.done);
	assert_true(ter_dev_unflushed(rig->dev));
}

static void flushes_may_complete_in_any_order(void **state)
{
	struct rig *rig = *state;
	struct async early, late;

	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), 0);
	rig->disk->hold = true;
	submit(rig, &early, TER_BIO_FLUSH);
	rig->disk->hold = false;
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), 0);
	rig->disk->hold = true;
	submit(rig, &late, TER_BIO_FLUSH);
	fake_complete(rig->disk, 1, 0); /* the later one covers both writes */
	assert_false(ter_dev_unflushed(rig->dev));
	fake_complete(rig->disk, 0, 0); /* must not take that back */
	assert_false(ter_dev_unflushed(rig->dev));
}

static void a_failed_flush_leaves_the_need(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), 0);
	rig->disk->fail_flush = true;
	assert_int_equal(ter_dev_flush(rig->dev), -EIO);
	assert_true(ter_dev_unflushed(rig->dev));
	assert_int_equal(rig->error_kind, TER_DEV_ERR_FLUSH);
	rig->disk->fail_flush = false;
	assert_int_equal(ter_dev_flush(rig->dev), 0);
	assert_false(ter_dev_unflushed(rig->dev));
}

static void errors_are_counted_and_told(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(ter_dev_read(rig->dev, 1 << 20, rig->buf, 512), -EINVAL);
	assert_int_equal(rig->errors, 1);
	assert_ptr_equal(rig->error_dev, rig->dev);
	assert_int_equal(rig->error_kind, TER_DEV_ERR_READ);
	assert_int_equal(rig->error_r, -EINVAL);
	rig->disk->fail_all_writes = true;
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), -EIO);
	assert_int_equal(rig->error_kind, TER_DEV_ERR_WRITE);
	ter_dev_error(rig->members, rig->dev, TER_DEV_ERR_CHECKSUM, -EBADMSG);
	assert_int_equal(rig->errors, 3);
	for (unsigned i = 0; i < TER_DEV_ERR_NR; i++)
		assert_int_equal(atomic_load(&rig->dev->errors[i]), i != TER_DEV_ERR_FLUSH);
	assert_int_equal(atomic_load(&rig->dev->read_bytes), 0);
	assert_int_equal(atomic_load(&rig->dev->write_bytes), 0);

	rig->members->on_error = NULL; /* nobody listens */
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), -EIO);
	assert_int_equal(atomic_load(&rig->dev->errors[TER_DEV_ERR_WRITE]), 2);
}

static void an_offline_member_answers_and_counts_nothing(void **state)
{
	struct rig *rig = *state;

	rig->dev->bdev = NULL;
	assert_false(ter_dev_online(rig->dev));
	assert_int_equal(ter_dev_read(rig->dev, 0, rig->buf, 512), -ENODEV);
	assert_int_equal(ter_dev_write(rig->dev, 0, rig->buf, 512, 0), -ENODEV);
	assert_int_equal(ter_dev_flush(rig->dev), -ENODEV);
	assert_int_equal(rig->errors, 0);
	assert_int_equal(atomic_load(&rig->dev->inflight), 0);
	assert_false(ter_dev_unflushed(rig->dev));
}

/* A clock that the test moves. */
static uint64_t fake_now;

static uint64_t fake_mono_ns(struct ter_exec *exec)
{
	return fake_now;
}

static void read_latency_follows_slowly(void **state)
{
	struct rig *rig = *state;
	struct ter_exec_ops ops = { .mono_ns = fake_mono_ns };
	struct ter_exec exec = { .ops = &ops };
	static const uint64_t want[] = { 800, 800, 1500, 2113 }; /* 7/8 old + 1/8 new */
	struct async read;

	rig->fm->io.exec = &exec;
	rig->disk->hold = true;
	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		submit(rig, &read, TER_BIO_READ);
		fake_now += i < 2 ? 800 : 6400;
		fake_complete(rig->disk, 0, 0);
		assert_int_equal(atomic_load(&rig->dev->read_latency_ns), want[i]);
	}
	rig->fm->io.exec = rig->exec;
}

int main(void)
{
#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		t(what_is_written_is_read_and_counted),
		t(a_write_needs_a_flush_unless_it_is_fua),
		t(nothing_counts_as_flushed_while_the_flush_is_in_flight),
		t(a_flush_covers_only_writes_completed_before_it),
		t(flushes_may_complete_in_any_order),
		t(a_failed_flush_leaves_the_need),
		t(errors_are_counted_and_told),
		t(an_offline_member_answers_and_counts_nothing),
		t(read_latency_follows_slowly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

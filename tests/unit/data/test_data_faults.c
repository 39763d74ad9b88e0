/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The data room when things go wrong: damaged copies, failing members, full buffers, power cuts. */
#include "data_rig.h"

#include <pthread.h>

#define BYTES (256u << 10)

static const struct rig_params defaults = RIG_DEFAULTS;

static void fill(struct rig *rig, uint8_t *buf, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t x = rig_random(rig, UINT64_MAX);

		memcpy(buf + i, &x, ter_min((size_t)8, bytes - i));
	}
}

struct setup {
	struct rig *rig;
	uint8_t *want, *got;
};

static struct setup set_up(struct rig_params params)
{
	struct ter_exec *exec = ter_exec_new_threads();
	struct setup s = { .rig = rig_new(exec, &params, rig_seed()), .want = malloc(BYTES), .got = malloc(BYTES) };

	rig_start(s.rig);
	fill(s.rig, s.want, BYTES);
	return s;
}

static void tear_down(struct setup *s)
{
	struct ter_exec *exec = s->rig->exec;

	rig_stop(s->rig);
	rig_free(s->rig);
	ter_exec_free(exec);
	free(s->want);
	free(s->got);
}

static void write_out(struct setup *s)
{
	rig_write(s->rig, 0, 0, s->want, BYTES);
	assert_int_equal(ter_file_writeback(s->rig->data, rig_file(s->rig, 0)), 0);
}

/* Damages one block of copy @copy of the nth extent. */
static void corrupt(struct rig *rig, unsigned nth, unsigned copy, uint64_t offset)
{
	struct ter_extent e;
	char path[16];
	uint8_t type;

	assert_true(rig_extent(rig, 0, nth, &e, &type) && type == TER_KEY_EXTENT);
	assert_true(copy < e.nr_ptrs);
	snprintf(path, sizeof(path), "/dev%u", e.ptr[copy].dev);
	assert_int_equal(ter_sim_corrupt(rig->sim, path, e.ptr[copy].sector * 512 + offset, 512), 0);
}

/* Reads choose this member where they can. */
static void prefer(struct rig *rig, unsigned dev)
{
	for (unsigned i = 0; i < rig->params.devs; i++)
		atomic_store(&rig->members->dev[i].read_latency_ns, i == dev ? 0 : 1000000000000);
}

static uint64_t checksum_errors(struct rig *rig)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < rig->params.devs; i++)
		n += atomic_load(&rig->members->dev[i].errors[TER_DEV_ERR_CHECKSUM]);
	return n;
}

static void read_all(struct setup *s)
{
	memset(s->got, 0, BYTES);
	assert_int_equal(rig_read(s->rig, 0, 0, s->got, BYTES), BYTES);
	assert_memory_equal(s->got, s->want, BYTES);
}

static void a_damaged_copy_is_healed_and_counted(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_data_stats stats;

	write_out(&s);
	corrupt(s.rig, 0, 0, 8192);
	corrupt(s.rig, 1, 1, 0);
	for (unsigned dev = 0; dev < 2; dev++) {
		prefer(s.rig, dev);
		read_all(&s);
		ter_workq_drain(s.rig->data->slow);
	}
	ter_workq_drain(s.rig->data->slow);
	ter_data_get_stats(s.rig->data, &stats);
	assert_int_equal(stats.repaired, 2);
	assert_true(checksum_errors(s.rig) >= 2);
	assert_true(atomic_load(&s.rig->damaged) >= 2 && atomic_load(&s.rig->repaired) == atomic_load(&s.rig->damaged));
	/* Now either copy of either extent may be lost. */
	for (unsigned c = 0; c < 2; c++) {
		uint64_t before = checksum_errors(s.rig);
		char path[16];

		snprintf(path, sizeof(path), "/dev%u", c);
		assert_int_equal(ter_sim_fail(s.rig->sim, path, TER_BIO_READ, 1, true), 0);
		read_all(&s);
		ter_sim_fail_none(s.rig->sim);
		assert_int_equal(checksum_errors(s.rig), before);
		ter_workq_drain(s.rig->data->slow);
	}
	tear_down(&s);
}

static void so_it_is_compressed(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	struct ter_extent e;
	uint8_t type;

	p.compression = "rle";
	s = set_up(p);
	for (unsigned i = 0; i < BYTES; i++)
		s.want[i] = (uint8_t)(i >> 12);
	write_out(&s);
	assert_true(rig_extent(s.rig, 0, 0, &e, &type) && e.compression_slot && e.stored_sectors == 8 && e.raw_sectors == 256);
	corrupt(s.rig, 0, 0, 0);
	prefer(s.rig, e.ptr[0].dev);
	read_all(&s);
	ter_workq_drain(s.rig->data->slow);
	assert_int_equal(atomic_load(&s.rig->data->repaired), 1);
	rig_check(s.rig);
	tear_down(&s);
}

static void only_a_block_bad_in_every_copy_is_lost(void **state)
{
	struct setup s = set_up(defaults);
	size_t got;

	write_out(&s);
	corrupt(s.rig, 0, 0, 8192);
	corrupt(s.rig, 0, 1, 8192 + 512); /* the same block */
	corrupt(s.rig, 0, 0, 20480);
	corrupt(s.rig, 0, 1, 32768);      /* others, each in one */
	for (uint64_t at = 0; at < BYTES; at += 4096) {
		int r = ter_file_read_wait(s.rig->data, rig_file(s.rig, 0), at, s.got, 4096, &got);

		if (at == 8192) {
			assert_int_equal(r, -EIO);
			continue;
		}
		assert_int_equal(r, 0);
		assert_memory_equal(s.got, s.want + at, 4096);
	}
	assert_int_equal(ter_file_read_wait(s.rig->data, rig_file(s.rig, 0), 0, s.got, BYTES, &got), -EIO);
	/* Around it, blocks bad in different copies are put together. */
	assert_int_equal(ter_file_read_wait(s.rig->data, rig_file(s.rig, 0), 12288, s.got, BYTES - 12288, &got), 0);
	assert_memory_equal(s.got, s.want + 12288, BYTES - 12288);
	/* Overwritten, it is whole again. */
	rig_write(s.rig, 0, 8192, s.want, 4096);
	memcpy(s.want + 8192, s.want, 4096);
	assert_int_equal(ter_file_writeback(s.rig->data, rig_file(s.rig, 0)), 0);
	read_all(&s);
	tear_down(&s);
}

static void a_member_that_fails_reads_is_stood_in_for(void **state)
{
	struct setup s = set_up(defaults);

	write_out(&s);
	assert_int_equal(ter_sim_fail(s.rig->sim, "/dev0", TER_BIO_READ, 1, true), 0);
	prefer(s.rig, 0);
	read_all(&s);
	assert_true(atomic_load(&s.rig->members->dev[0].errors[TER_DEV_ERR_READ]) > 0);
	ter_sim_fail_none(s.rig->sim);
	ter_workq_drain(s.rig->data->slow);
	rig_check(s.rig);
	tear_down(&s);
}

static void a_copy_that_is_not_written_is_counted(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_extent e;
	uint8_t type;

	assert_int_equal(ter_sim_fail(s.rig->sim, "/dev1", TER_BIO_WRITE, 1, false), 0);
	write_out(&s);
	assert_int_equal(atomic_load(&s.rig->data->degraded), 1);
	assert_true(rig_extent(s.rig, 0, 0, &e, &type));
	assert_int_equal(e.nr_ptrs, 1);
	assert_int_equal(e.ptr[0].dev, 0);
	read_all(&s);
	rig_check(s.rig);
	tear_down(&s);
}

static void too_few_copies_are_written_elsewhere(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	struct ter_extent e;
	uint8_t type;

	p.devs = 3;
	p.required = 2;
	s = set_up(p);
	for (unsigned k = 0; k < 4; k++) { /* which members are taken is not ours to say */
		assert_int_equal(ter_sim_fail(s.rig->sim, "/dev1", TER_BIO_WRITE, 1, false), 0);
		write_out(&s);
		for (unsigned nth = 0; rig_extent(s.rig, 0, nth, &e, &type); nth++)
			assert_int_equal(e.nr_ptrs, 2);
		read_all(&s);
	}
	assert_true(atomic_load(&s.rig->members->dev[1].errors[TER_DEV_ERR_WRITE]) > 0);
	ter_sim_fail_none(s.rig->sim);
	rig_check(s.rig);
	tear_down(&s);
}

/* Another batch of the file may fail after a sync was told of the first: then that is told, too, and only after it all has been. */
static void until_all_is_told(struct rig *rig, struct ter_file *file)
{
	int later;

	ter_lock_acquire(&file->lock);
	while (file->writeback_nr)
		ter_waitq_wait(&file->wq, &file->lock);
	later = file->error;
	ter_lock_release(&file->lock);
	if (later)
		assert_true(ter_file_sync(rig->data, file) < 0);
}

/* D8. */
static void what_cannot_be_written_is_told_once_and_stays_readable(void **state)
{
	struct rig_params p = defaults;
	struct setup s;

	p.journal_data_max = 0;
	s = set_up(p);
	rig_write(s.rig, 0, 0, s.want, BYTES);
	/* No member takes data. */
	s.rig->members->dev[0].state = s.rig->members->dev[1].state = TER_DEV_RO;
	assert_true(ter_file_sync(s.rig->data, rig_file(s.rig, 0)) < 0);
	until_all_is_told(s.rig, rig_file(s.rig, 0));
	read_all(&s);
	s.rig->members->dev[0].state = s.rig->members->dev[1].state = TER_DEV_RW;
	rig_write(s.rig, 0, 4096, s.want + 4096, 4096); /* layered over what failed */
	read_all(&s);
	assert_int_equal(ter_file_sync(s.rig->data, rig_file(s.rig, 0)), 0);
	read_all(&s);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	rig_check(s.rig);
	tear_down(&s);
}

static void what_failed_can_be_truncated_away(void **state)
{
	struct rig_params p = defaults;
	struct setup s;

	p.journal_data_max = 0;
	s = set_up(p);
	rig_write(s.rig, 0, 0, s.want, BYTES);
	s.rig->members->dev[0].state = s.rig->members->dev[1].state = TER_DEV_RO;
	assert_true(ter_file_writeback(s.rig->data, rig_file(s.rig, 0)) < 0);
	s.rig->members->dev[0].state = s.rig->members->dev[1].state = TER_DEV_RW;
	rig_write(s.rig, 0, 100000, s.want, 10);
	assert_int_equal(ter_file_punch(s.rig->data, rig_file(s.rig, 0), 5000, 9000, NULL, NULL, NULL), 0);
	memset(s.want + 5000, 0, 4000);
	memcpy(s.want + 100000, s.want, 10);
	read_all(&s);
	assert_int_equal(rig_truncate(s.rig, 0, 0), 0);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	rig_check(s.rig);
	tear_down(&s);
}

/* --- D5 --- */

struct writer {
	struct rig *rig;
	unsigned i;
	uint8_t *buf;
	_Atomic bool *over;
};

static void *write_much(void *p)
{
	struct writer *w = p;

	for (unsigned n = 0; n < 400; n++) {
		struct iovec iov = { w->buf, 30000 };
		struct ter_data_stats stats;

		assert_int_equal(ter_file_write(w->rig->data, rig_file(w->rig, w->i), (uint64_t)(n * 7919 % 100) * 4096 + n, &iov, 1, false), 0);
		ter_data_get_stats(w->rig->data, &stats);
		if (stats.dirty_bytes > w->rig->params.region_bytes)
			atomic_store(w->over, true);
	}
	return NULL;
}

static void dirty_data_stays_within_its_memory(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	pthread_t threads[4];
	struct writer writers[4];
	_Atomic bool over = false;

	p.region_bytes = 256 << 10;
	s = set_up(p);
	for (unsigned i = 0; i < 4; i++)
		(void)rig_file(s.rig, i);
	for (unsigned i = 0; i < 4; i++) {
		writers[i] = (struct writer){ s.rig, i, s.want + i * 100, &over };
		assert_int_equal(pthread_create(&threads[i], NULL, write_much, &writers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_false(over);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	rig_check(s.rig);
	tear_down(&s);
}

/* Nobody syncs; when the cause is gone writers get on all the same, once the failed are tried again. */
static void refused_writers_have_the_failed_tried_again(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	struct iovec iov;
	uint64_t at = 0, since;
	int r = 0;

	p.region_bytes = 256 << 10;
	p.journal_data_max = 0;
	s = set_up(p);
	iov = (struct iovec){ s.want, 16384 };
	assert_int_equal(ter_sim_fail(s.rig->sim, "/dev0", TER_BIO_WRITE, 1, true), 0);
	assert_int_equal(ter_sim_fail(s.rig->sim, "/dev1", TER_BIO_WRITE, 1, true), 0);
	for (unsigned i = 0; r == 0 && i < 100; i++, at += 16384)
		r = ter_file_write(s.rig->data, rig_file(s.rig, i % 2), at, &iov, 1, false);
	assert_int_equal(r, -EIO);
	while (s.rig->data->failed_bytes + (uint64_t)s.rig->data->pool.free_pages * TER_PAGE_BYTES < p.region_bytes)
		ter_sleep_ns(s.rig->exec, TER_NS_PER_MS); /* until there is nothing that might still succeed */
	ter_sim_fail_none(s.rig->sim);
	since = ter_mono_ns(s.rig->exec);
	while (r == -EIO && ter_mono_ns(s.rig->exec) - since < 20 * TER_FAILED_RETRY_NS) {
		r = ter_file_write(s.rig->data, rig_file(s.rig, 0), 0, &iov, 1, false);
		ter_sleep_ns(s.rig->exec, TER_FAILED_RETRY_NS / 50);
	}
	assert_int_equal(r, 0);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	rig_check(s.rig);
	tear_down(&s);
}

static void a_writer_that_may_not_wait_is_told(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	struct iovec iov;
	unsigned written = 0;
	int r = 0;

	p.region_bytes = 256 << 10;
	s = set_up(p);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ter_sim_latency(s.rig->sim, i ? "/dev1" : "/dev0", UINT64_MAX), 0);
	iov = (struct iovec){ s.want, 16384 };
	while (r == 0 && written < 100) {
		r = ter_file_write(s.rig->data, rig_file(s.rig, 0), (uint64_t)written * 16384, &iov, 1, true);
		written += r == 0;
	}
	assert_int_equal(r, -EAGAIN);
	assert_true(written > 4 && written <= 16);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ter_sim_latency(s.rig->sim, i ? "/dev1" : "/dev0", 0), 0);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	assert_int_equal(rig_read(s.rig, 0, 0, s.got, BYTES), written * 16384);
	for (unsigned i = 0; i < written; i++)
		assert_memory_equal(s.got + i * 16384, s.want, 16384);
	tear_down(&s);
}

/* D2: what is written while the same bytes are in flight is layered above and not lost. */
static void writes_over_data_in_flight_are_layered(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_file *file = rig_file(s.rig, 0);

	for (unsigned round = 0; round < 20; round++) {
		rig_write(s.rig, 0, 0, s.want, BYTES);
		assert_int_equal(ter_sim_latency(s.rig->sim, "/dev0", 2000000), 0);
		ter_lock_acquire(&file->lock);
		ter_lock_acquire(&s.rig->data->lock);
		file->wanted_gen = s.rig->data->gen + 1;
		ter_file_relist_(s.rig->data, file);
		ter_lock_release(&s.rig->data->lock);
		while (!file->wb && file->segs) {
			ter_lock_release(&file->lock);
			ter_sleep_ns(s.rig->exec, 1000);
			ter_lock_acquire(&file->lock);
		}
		ter_lock_release(&file->lock);
		for (unsigned k = 0; k < 20; k++) {
			uint64_t at = rig_random(s.rig, BYTES - 5000);

			fill(s.rig, s.want + at, 5000);
			rig_write(s.rig, 0, at, s.want + at, 5000);
			read_all(&s);
		}
		assert_int_equal(ter_data_flush_all(s.rig->data), 0);
		read_all(&s);
	}
	rig_check(s.rig);
	tear_down(&s);
}

struct late_sync {
	struct ter_journal_waiter waiter;
	struct ter_event event;
};

static void late_synced(struct ter_journal_waiter *waiter, int r)
{
	ter_event_set(&ter_container_of(waiter, struct late_sync, waiter)->event, r);
}

static void begin_sync(struct rig *rig, unsigned i, struct late_sync *sync)
{
	*sync = (struct late_sync){ .waiter.fn = late_synced };
	ter_event_init(&sync->event);
	assert_int_equal(ter_file_sync_async(rig->data, rig_file(rig, i), false, &sync->waiter), 0);
}

/* An entry that is still open may hold bytes of a batch: what is synced next stands in another one, or replay of "done up to this entry" would take it away. */
static void what_is_synced_beside_a_batch_stands_in_a_later_entry(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_data *data = s.rig->data;
	struct ter_file *file = rig_file(s.rig, 0);
	struct late_sync sync[2];
	struct ter_batch batch;
	bool taken;

	/* The journal's task is kept busy with another file's entry, so that the next one stays open. */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ter_sim_latency(s.rig->sim, i ? "/dev1" : "/dev0", UINT64_MAX), 0);
	rig_write(s.rig, 1, 0, s.want, 100);
	begin_sync(s.rig, 1, &sync[1]);
	while (ter_journal_open_seq(s.rig->journal) == ter_journal_durable_seq(s.rig->journal) + 1)
		ter_sleep_ns(s.rig->exec, TER_NS_PER_MS);
	rig_write(s.rig, 0, 0, s.want, 100);
	begin_sync(s.rig, 0, &sync[0]);

	ter_lock_acquire(&file->lock);
	assert_int_equal(file->segs->seq, ter_journal_open_seq(s.rig->journal));
	taken = ter_batch_take(data, file, UINT64_MAX, false, &batch);
	assert_true(taken);
	assert_true(ter_journal_open_seq(s.rig->journal) > batch.seq);
	ter_file_hold(file);
	ter_lock_release(&file->lock);

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ter_sim_latency(s.rig->sim, i ? "/dev1" : "/dev0", 0), 0);
	ter_batch_end(data, &batch, ter_batch_run(data, data->ctx[TER_WB_TASKS], &batch));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ter_event_wait(&sync[i].event), 0);
		ter_event_destroy(&sync[i].event);
	}
	assert_int_equal(ter_data_flush_all(data), 0);
	rig_check(s.rig);
	tear_down(&s);
}

/* --- power cuts --- */

#define CUT_FILES 3u
#define CUT_BYTES 40000u

struct cut_file {
	uint8_t now[CUT_BYTES], synced[CUT_BYTES];
	uint64_t size, synced_size;
	/* since the last sync: what each byte ever was, as a set; a byte may be any of these after a cut */
	uint8_t (*seen)[32];
};

static void note_seen(struct cut_file *f, uint64_t from, uint64_t to)
{
	for (uint64_t k = from; k < to; k++)
		f->seen[k][f->now[k] >> 3] |= (uint8_t)(1 << (f->now[k] & 7));
}

static void note_synced(struct cut_file *f)
{
	memcpy(f->synced, f->now, CUT_BYTES);
	f->synced_size = f->size;
	memset(f->seen, 0, sizeof(f->seen[0]) * CUT_BYTES);
	note_seen(f, 0, CUT_BYTES);
}

static void cut_step(struct rig *rig, struct cut_file *files)
{
	unsigned i = rig_random(rig, CUT_FILES), what = rig_random(rig, 10);
	struct cut_file *f = &files[i];

	if (what < 5) {
		uint64_t at = rig_random(rig, ter_min(f->size + 1, (uint64_t)CUT_BYTES - 1)), n = 1 + rig_random(rig, rig_random(rig, 2) ? 200 : 9000);

		n = ter_min(n, CUT_BYTES - at);
		memset(f->now + at, (int)rig_random(rig, 256), n);
		f->size = ter_max(f->size, at + n);
		note_seen(f, at, at + n);
		rig_write(rig, i, at, f->now + at, n);
	} else if (what < 8) {
		assert_int_equal(ter_file_sync(rig->data, rig_file(rig, i)), 0);
		note_synced(f);
	} else if (what == 8) {
		assert_int_equal(ter_file_writeback(rig->data, rig_file(rig, i)), 0);
	} else {
		uint64_t size = rig_random(rig, f->size + 1);

		memset(f->now + size, 0, CUT_BYTES - size);
		note_seen(f, size, CUT_BYTES);
		f->size = size;
		assert_int_equal(rig_truncate(rig, i, size), 0);
		/* Which size it has after a cut is one of many: settled here. */
		assert_int_equal(ter_file_sync(rig->data, rig_file(rig, i)), 0);
		note_synced(f);
	}
}

static void check_after_cut(struct rig *rig, unsigned i, struct cut_file *f)
{
	uint8_t *got = calloc(1, CUT_BYTES);
	size_t n = rig_read(rig, i, 0, got, CUT_BYTES);

	assert_true(n >= f->synced_size);
	for (size_t k = 0; k < n; k++)
		if (!(f->seen[k][got[k] >> 3] & 1 << (got[k] & 7)))
			fail_msg("file %u: byte %zu is %02x, was synced as %02x (size %zu, synced %llu)", i, k, got[k], f->synced[k], n,
				 (unsigned long long)f->synced_size);
	/* Beyond the end nothing comes back when the file grows again. */
	memcpy(f->now, got, n);
	memset(f->now + n, 0, CUT_BYTES - n);
	f->size = n;
	rig_write(rig, i, CUT_BYTES - 1, "", 1);
	f->size = CUT_BYTES;
	assert_int_equal(rig_read(rig, i, 0, got, CUT_BYTES), CUT_BYTES);
	assert_memory_equal(got, f->now, CUT_BYTES);
	assert_int_equal(rig_truncate(rig, i, n), 0);
	f->size = n;
	free(got);
}

static void cut_run(struct ter_exec *exec, uint64_t seed, struct rig_params params)
{
	struct rig *rig = rig_new(exec, &params, seed);
	struct cut_file *files = calloc(CUT_FILES, sizeof(*files));

	for (unsigned i = 0; i < CUT_FILES; i++) {
		files[i].seen = calloc(CUT_BYTES, 32);
		note_synced(&files[i]);
	}
	ter_sim_record(rig->sim, true);
	rig_start(rig);
	for (unsigned round = 0; round < 12; round++) {
		unsigned steps = 1 + rig_random(rig, 60);

		while (steps-- > 0)
			cut_step(rig, files);
		rig_crash(rig);
		rig_start(rig);
		for (unsigned i = 0; i < CUT_FILES; i++) {
			check_after_cut(rig, i, &files[i]);
			assert_int_equal(ter_file_sync(rig->data, rig_file(rig, i)), 0);
			note_synced(&files[i]);
		}
		if (round % 3 == 2) {
			assert_int_equal(ter_data_flush_all(rig->data), 0);
			rig_check(rig);
		}
	}
	rig_stop(rig);
	for (unsigned i = 0; i < CUT_FILES; i++)
		free(files[i].seen);
	free(files);
	rig_free(rig);
}

struct cut_arg {
	struct ter_exec *exec;
	uint64_t seed;
	struct rig_params params;
};

static void cut_main(void *p)
{
	struct cut_arg *arg = p;

	cut_run(arg->exec, arg->seed, arg->params);
}

static void what_was_synced_survives_power_cuts(void **state)
{
	uint64_t seed = rig_seed();

	for (unsigned k = 0; k < 6; k++) {
		struct cut_arg arg = { .exec = ter_exec_new_coop(seed + k), .seed = seed + k, .params = defaults };

		arg.params.flush_ms = k % 2 ? 3 : 60000;
		arg.params.inline_max = k % 3 ? 4096 : 0;
		arg.params.compression = k % 2 ? "rle" : "none";
		arg.params.journal_data_max = k == 5 ? 4096 : 65536;
		assert_int_equal(ter_coop_run(arg.exec, cut_main, &arg), 0);
		ter_exec_free(arg.exec);
	}
}

/* --- journal and pins --- */

/* A page that is synced again and again holds one entry, not all of them; appends hold the first. */
static void pins_follow_what_is_journaled(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	uint64_t oldest;

	p.inline_max = 0;
	s = set_up(p);
	for (unsigned n = 0; n < 300; n++) {
		fill(s.rig, s.want, 4096);
		rig_write(s.rig, 0, 0, s.want, 4096);
		assert_int_equal(ter_file_sync(s.rig->data, rig_file(s.rig, 0)), 0);
	}
	ter_lock_acquire(&s.rig->data->lock);
	oldest = ter_list_first(&s.rig->data->pinned, struct ter_seg, pin_link)->pin_seq;
	ter_lock_release(&s.rig->data->lock);
	assert_true(oldest + 2 >= rig_file(s.rig, 0)->last_seq);
	/* Reclaim up to now writes it back. */
	assert_int_equal(ter_journal_reclaim_to(s.rig->journal, oldest), 0);
	assert_true(ter_list_empty(&s.rig->data->pinned));
	assert_int_equal(rig_read(s.rig, 0, 0, s.got, 4096), 4096);
	assert_memory_equal(s.got, s.want, 4096);
	tear_down(&s);
}

static void a_sync_that_may_not_wait_is_told(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_journal_waiter waiter = { 0 };

	rig_write(s.rig, 0, 0, s.want, BYTES); /* more than the journal takes */
	assert_int_equal(ter_file_sync_async(s.rig->data, rig_file(s.rig, 0), true, &waiter), -EAGAIN);
	assert_int_equal(ter_file_sync(s.rig->data, rig_file(s.rig, 0)), 0);
	tear_down(&s);
}

static void small_files_are_inline_and_grow_out_of_it(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_extent e;
	uint8_t type;

	for (unsigned i = 1; i < 200; i++)
		rig_write(s.rig, i, 0, s.want + i, 1000);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	for (unsigned i = 1; i < 200; i++) {
		assert_true(rig_extent(s.rig, i, 0, &e, &type));
		assert_int_equal(type, TER_KEY_INLINE_DATA);
		assert_int_equal(rig_read(s.rig, i, 0, s.got, 5000), 1000);
		assert_memory_equal(s.got, s.want + i, 1000);
	}
	rig_write(s.rig, 7, 1000, s.want, 20000);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	assert_true(rig_extent(s.rig, 7, 0, &e, &type));
	assert_int_equal(type, TER_KEY_EXTENT);
	assert_int_equal(rig_read(s.rig, 7, 0, s.got, 30000), 21000);
	assert_memory_equal(s.got, s.want + 7, 1000);
	assert_memory_equal(s.got + 1000, s.want, 20000);
	rig_check(s.rig);
	tear_down(&s);
}

static void scattered_blocks_are_one_write_a_copy(void **state)
{
	struct setup s = set_up(defaults);
	struct ter_sim_stats before, after;

	write_out(&s);
	for (unsigned i = 0; i < 20; i++)
		rig_write(s.rig, 0, i * 8192, s.want, 4096);
	ter_sim_get_stats(s.rig->sim, &before);
	assert_int_equal(ter_file_writeback(s.rig->data, rig_file(s.rig, 0)), 0);
	ter_sim_get_stats(s.rig->sim, &after);
	assert_int_equal(after.reads, before.reads); /* whole blocks: nothing is read */
	assert_true(after.writes - before.writes <= 4); /* two, if no bucket ends in between and no node is written */
	tear_down(&s);
}

/* --- many at once --- */

struct worker {
	struct rig *rig;
	unsigned i;
	uint64_t seed;
};

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 31);
}

/* The owner of a file writes, syncs and truncates it, and knows what it holds. */
static void *work(void *p)
{
	struct worker *w = p;
	uint8_t *want = calloc(1, BYTES), *got = malloc(BYTES);
	struct ter_file *file = rig_file(w->rig, w->i);
	uint64_t size = 0;

	for (unsigned n = 0; n < 600; n++) {
		uint64_t at = next_random(&w->seed) % (BYTES - 20000), bytes = 1 + next_random(&w->seed) % 20000;
		struct iovec iov = { want + at, bytes };
		size_t done;

		switch (next_random(&w->seed) % 8) {
		case 0:
			assert_int_equal(ter_file_sync(w->rig->data, file), 0);
			break;
		case 1:
			assert_int_equal(ter_file_punch(w->rig->data, file, at, at + bytes, NULL, NULL, NULL), 0);
			memset(want + at, 0, bytes);
			break;
		case 2:
			assert_int_equal(ter_file_writeback(w->rig->data, file), 0);
			break;
		case 3:
		case 4:
			assert_int_equal(ter_file_read_wait(w->rig->data, file, at, got, bytes, &done), 0);
			assert_int_equal(done, at < size ? ter_min(bytes, size - at) : 0);
			assert_memory_equal(got, want + at, done);
			break;
		default:
			memset(want + at, (int)next_random(&w->seed), bytes);
			assert_int_equal(ter_file_write(w->rig->data, file, at, &iov, 1, false), 0);
			size = ter_max(size, at + bytes);
		}
	}
	free(want);
	free(got);
	return NULL;
}

/* Somebody else syncs all files meanwhile, with no lock of theirs. */
static void *sync_all(void *p)
{
	struct worker *w = p;

	for (unsigned n = 0; n < 200; n++)
		assert_int_equal(ter_file_sync(w->rig->data, rig_file(w->rig, n % 4)), 0);
	return NULL;
}

static void files_stay_apart_under_load(void **state)
{
	struct rig_params p = defaults;
	struct setup s;
	pthread_t threads[5];
	struct worker workers[5];

	p.region_bytes = 1 << 20;
	p.flush_ms = 4;
	p.compression = "rle";
	s = set_up(p);
	for (unsigned i = 0; i < 4; i++)
		(void)rig_file(s.rig, i);
	for (unsigned i = 0; i < 5; i++) {
		workers[i] = (struct worker){ s.rig, i, rig_random(s.rig, UINT64_MAX) };
		assert_int_equal(pthread_create(&threads[i], NULL, i < 4 ? work : sync_all, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(ter_data_flush_all(s.rig->data), 0);
	rig_check(s.rig);
	tear_down(&s);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_damaged_copy_is_healed_and_counted),
		cmocka_unit_test(so_it_is_compressed),
		cmocka_unit_test(only_a_block_bad_in_every_copy_is_lost),
		cmocka_unit_test(a_member_that_fails_reads_is_stood_in_for),
		cmocka_unit_test(a_copy_that_is_not_written_is_counted),
		cmocka_unit_test(too_few_copies_are_written_elsewhere),
		cmocka_unit_test(what_cannot_be_written_is_told_once_and_stays_readable),
		cmocka_unit_test(what_failed_can_be_truncated_away),
		cmocka_unit_test(dirty_data_stays_within_its_memory),
		cmocka_unit_test(a_writer_that_may_not_wait_is_told),
		cmocka_unit_test(refused_writers_have_the_failed_tried_again),
		cmocka_unit_test(what_is_synced_beside_a_batch_stands_in_a_later_entry),
		cmocka_unit_test(writes_over_data_in_flight_are_layered),
		cmocka_unit_test(what_was_synced_survives_power_cuts),
		cmocka_unit_test(pins_follow_what_is_journaled),
		cmocka_unit_test(a_sync_that_may_not_wait_is_told),
		cmocka_unit_test(small_files_are_inline_and_grow_out_of_it),
		cmocka_unit_test(scattered_blocks_are_one_write_a_copy),
		cmocka_unit_test(files_stay_apart_under_load),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

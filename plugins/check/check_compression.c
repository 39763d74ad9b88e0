/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks of a compression: what goes in comes out, nothing outside the buffers is touched, and damaged input is refused. */
#include "check_algos.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_data.h"
#include "check_report.h"

#define INPUT_BYTES_MAX (1u << 20)
#define ROOM_BYTES (INPUT_BYTES_MAX + INPUT_BYTES_MAX / 8 + 4096) /* for what noise grows to, and for padding */
#define BLOCK_BYTES 4096
#define SPEED_BYTES (128u << 10)
#define STREAMS 24             /* valid streams that damage starts from */
#define STREAM_INPUT_MAX 20000 /* bytes before compression of each of them */
#define SCRATCH_FILL_MAX 65536 /* bytes of scratch that get garbage before a call: contexts have their state in front */

struct run {
	const struct terrace_compression *algo;
	struct check_random random;
	struct check_guarded src, dst, back, scratch; /* scratch.map is NULL until the first use */
	size_t scratch_room;
	uint8_t *packed;                              /* a copy of what was compressed, ROOM_BYTES */
	bool quick;
};

/* Scratch of exactly what was asked for at @level, full of garbage. */
static uint8_t *scratch(struct run *run, int level, size_t max_in)
{
	size_t bytes = run->algo->scratch_bytes(level, max_in);
	uint8_t *at;

	if (!run->scratch.map || bytes > run->scratch_room) {
		if (run->scratch.map)
			check_guarded_free(&run->scratch);
		check_guarded_new(&run->scratch, bytes + 16);
		run->scratch_room = bytes;
	}
	at = check_guarded_scratch(&run->scratch, bytes);
	check_random_fill(&run->random, at, bytes < SCRATCH_FILL_MAX ? bytes : SCRATCH_FILL_MAX);
	return at;
}

/* Compress @n bytes at @src into a buffer of @cap bytes between unreadable pages; a copy of the result lies in run->packed. */
static size_t compress(struct run *run, const void *src, size_t n, size_t cap, int level, size_t max_in)
{
	uint8_t *dst = check_guarded_last(&run->dst, cap);
	uint8_t *workspace = scratch(run, level, max_in);
	size_t bytes;
	int saved;

	errno = ELOOP; /* a value no codec would set */
	bytes = run->algo->compress(dst, cap, src, n, level, workspace);
	saved = errno;
	(void)check(saved == ELOOP, "compress changed errno");
	if (!check(bytes <= cap, "compress says it wrote %zu bytes into %zu", bytes, cap))
		return 0;
	memcpy(run->packed, dst, bytes);
	return bytes;
}

/* Decompress @n bytes at @stream, placed so that its last byte is followed by an unreadable page, or its first one preceded. The result: *ret_out. */
static int decompress(struct run *run, const void *stream, size_t n, size_t exact, bool first, uint8_t **ret_out)
{
	uint8_t *src = first ? check_guarded_first(&run->src) : check_guarded_last(&run->src, n);
	uint8_t *out = first ? check_guarded_first(&run->back) : check_guarded_last(&run->back, exact);
	uint8_t *workspace = scratch(run, run->algo->level_def, exact);
	int r, saved;

	memmove(src, stream, n);
	errno = ELOOP;
	r = run->algo->decompress(out, exact, src, n, workspace);
	saved = errno;
	(void)check(saved == ELOOP, "decompress changed errno");
	(void)check(r == 0 || r == -EBADMSG, "decompress returned %d, neither 0 nor -EBADMSG", r);
	*ret_out = out;
	return r;
}

static void comes_back(struct run *run, const uint8_t *original, size_t n, size_t packed_bytes, const char *how)
{
	uint8_t *out;
	int r = decompress(run, run->packed, packed_bytes, n, false, &out);

	if (check(r == 0, "its own output does not decompress, %s", how))
		(void)check(memcmp(out, original, n) == 0, "the data came back changed, %s", how);
}

static void round_trip(struct run *run, const uint8_t *original, size_t n, int level, enum check_character character, size_t max_in)
{
	uint8_t *src = check_guarded_last(&run->src, n);
	size_t bytes, padded;

	memcpy(src, original, n);
	bytes = compress(run, src, n, n + n / 8 + 1024, level, max_in);
	(void)check(memcmp(src, original, n) == 0, "compress changed its input");
	if (bytes > 0) {
		comes_back(run, original, n, bytes, "as it is");
		padded = (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
		memset(run->packed + bytes, 0, padded - bytes);
		comes_back(run, original, n, padded, "with zeros behind it");
	}
	if (n < BLOCK_BYTES || character != CHECK_ZEROS)
		return;
	/* As the engine calls it: only a gain counts. What gains nothing from zeros never will: scratch_bytes may be wrong. */
	memcpy(src, original, n);
	bytes = compress(run, src, n, n - 1, level, max_in);
	if (check(bytes > 0, "zeros do not become smaller"))
		comes_back(run, original, n, bytes, "with room for less than the input");
}

static void round_trips(struct run *run)
{
	static const size_t lengths[] = { 1, 2, 5, 12, 13, 64, 511, 512, 513, 4095, 4096, 16384, 65536, 131071, 131072 };
	const struct terrace_compression *algo = run->algo;
	uint8_t *original = malloc(INPUT_BYTES_MAX);

	if (!original)
		exit(2);
	check_step_begin("round trips");
	for (int64_t level = algo->level_min; level <= algo->level_max; level++) {
		for (unsigned l = 0; l < sizeof(lengths) / sizeof(*lengths); l++)
			for (enum check_character c = 0; c < CHECK_CHARACTERS; c++) {
				if (run->quick && lengths[l] > 16384 && c != CHECK_TEXT)
					continue;
				check_doing("level %d, %zu bytes of %s", (int)level, lengths[l], check_character_name(c));
				check_data_fill(&run->random, c, original, lengths[l]);
				round_trip(run, original, lengths[l], (int)level, c, lengths[l]);
				/* Scratch is made once, for the largest input. */
				if (lengths[l] <= 4096)
					round_trip(run, original, lengths[l], (int)level, c, 131072);
			}
		if (level == INT32_MAX)
			break;
	}
	for (enum check_character c = 0; c < CHECK_CHARACTERS; c++) {
		check_doing("default level, %u bytes of %s", INPUT_BYTES_MAX, check_character_name(c));
		check_data_fill(&run->random, c, original, INPUT_BYTES_MAX);
		round_trip(run, original, INPUT_BYTES_MAX, algo->level_def, c, INPUT_BYTES_MAX);
	}
	(void)check_step_end();
	free(original);
}

static void scratch_grows_with_input(struct run *run)
{
	check_step_begin("scratch sizes");
	for (int64_t level = run->algo->level_min; level <= run->algo->level_max; level++) {
		size_t before = 0;

		for (size_t n = 1; n <= INPUT_BYTES_MAX; n += 1 + n / 3) {
			size_t bytes = run->algo->scratch_bytes((int)level, n);

			check_doing("level %d, inputs of %zu bytes", (int)level, n);
			(void)check(bytes >= before, "larger inputs need less scratch (%zu bytes after %zu)", bytes, before);
			before = bytes;
		}
		if (level == INT32_MAX)
			break;
	}
	(void)check_step_end();
}

/* Room for the result from nothing to more than enough: it fits or it says no, and never writes beyond. */
static void rooms(struct run *run)
{
	static const size_t lengths[] = { 0, 1, 600, 20000 };
	uint8_t original[20000];

	check_step_begin("room for the result");
	for (unsigned l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
		size_t n = lengths[l];

		for (enum check_character c = 0; c < CHECK_CHARACTERS; c++) {
			size_t step = n > 1000 ? 37 : 1;

			check_data_fill(&run->random, c, original, n);
			for (size_t cap = 0; cap <= n + n / 8 + 64; cap += step) {
				uint8_t *src = check_guarded_last(&run->src, n);
				size_t bytes;

				check_doing("%zu bytes of %s into %zu", n, check_character_name(c), cap);
				memcpy(src, original, n);
				bytes = compress(run, src, n, cap, run->algo->level_def, n);
				if (bytes > 0)
					comes_back(run, original, n, bytes, "with little room");
			}
		}
	}
	(void)check_step_end();
}

static void refused_or_right(struct run *run, size_t bytes, const uint8_t *original, size_t n)
{
	uint8_t *out;

	if (decompress(run, run->packed, bytes, n, false, &out) == 0)
		(void)check(memcmp(out, original, n) == 0, "a stream that was cut short decompresses to something else");
}

/* A wrong size must be noticed; a stream that was cut short may not turn into other data. */
static void sizes_are_exact(struct run *run)
{
	uint8_t original[3000], *out;
	size_t bytes;

	check_step_begin("wrong sizes");
	for (enum check_character c = 0; c < CHECK_CHARACTERS; c++) {
		size_t n = sizeof(original);
		uint8_t *src = check_guarded_last(&run->src, n);
		static const int off[] = { -3000, -2999, -100, -2, -1, 1, 2, 100, 5000 };

		check_data_fill(&run->random, c, original, n);
		memcpy(src, original, n);
		bytes = compress(run, src, n, n + 1000, run->algo->level_def, n);
		if (bytes == 0)
			continue;
		for (unsigned i = 0; i < sizeof(off) / sizeof(*off); i++) {
			check_doing("%zu bytes of %s, asked for %d more", n, check_character_name(c), off[i]);
			(void)check(decompress(run, run->packed, bytes, n + (size_t)off[i], false, &out) == -EBADMSG,
				    "a wrong size of the result is not noticed");
		}
		for (size_t cut = 0; cut < bytes; cut++) {
			check_doing("%zu bytes of %s, the stream cut to %zu", n, check_character_name(c), cut);
			refused_or_right(run, cut, original, n);
		}
	}
	check_doing("an empty stream");
	(void)check(decompress(run, original, 0, 100, false, &out) == -EBADMSG, "an empty stream is not refused");
	(void)check_step_end();
}

struct stream {
	uint8_t *data;
	size_t bytes, exact;
};

static void streams_make(struct run *run, struct stream streams[STREAMS])
{
	static uint8_t original[STREAM_INPUT_MAX];
	uint64_t levels_nr = (uint64_t)((int64_t)run->algo->level_max - run->algo->level_min) + 1;

	for (unsigned i = 0; i < STREAMS; i++) {
		size_t n = 1 + check_random_below(&run->random, i % 2 ? 300 : STREAM_INPUT_MAX);
		int level = (int)(run->algo->level_min + (int64_t)(check_random(&run->random) % levels_nr));
		uint8_t *src = check_guarded_last(&run->src, n);

		check_data_fill(&run->random, i % 3 ? CHECK_MIXED : CHECK_TEXT, original, n);
		memcpy(src, original, n);
		streams[i].exact = n;
		streams[i].bytes = compress(run, src, n, n + n / 8 + 1024, level, n);
		streams[i].data = malloc(streams[i].bytes + 1); /* never 0 */
		if (!streams[i].data)
			exit(2);
		memcpy(streams[i].data, run->packed, streams[i].bytes);
	}
}

/* One damaged stream into @to (room for STREAM_INPUT_MAX * 2); returns its size. */
static size_t damage(struct check_random *random, const struct stream *from, const struct stream *other, uint8_t *to)
{
	size_t bytes = from->bytes;

	memcpy(to, from->data, bytes);
	switch (check_random_below(random, 7)) {
	case 0: /* nothing of it is valid */
		bytes = check_random_below(random, 400);
		check_random_fill(random, to, bytes);
		return bytes;
	case 1: /* the beginning is valid */
		if (bytes > 0) {
			size_t at = check_random_below(random, bytes);

			check_random_fill(random, to + at, bytes - at);
		}
		return bytes;
	case 2: /* cut, then some zeros */
		bytes = check_random_below(random, bytes + 1);
		memset(to + bytes, 0, 64);
		return bytes + check_random_below(random, 64);
	case 3: /* two streams in one */
		if (bytes > 0 && other->bytes > 0) {
			size_t at = check_random_below(random, bytes), tail = check_random_below(random, other->bytes);

			memcpy(to + at, other->data + other->bytes - tail, tail);
			return at + tail;
		}
		return bytes;
	case 4: /* its head, where lengths stand */
		if (bytes > 0) {
			size_t head = bytes < 20 ? bytes : 20;

			to[check_random_below(random, head)] = (uint8_t)check_random(random);
			to[check_random_below(random, head)] = (uint8_t)(check_random_below(random, 2) ? 0xff : 0);
		}
		return bytes;
	default: /* a few bits */
		for (size_t i = 0, flips = 1 + check_random_below(random, 8); bytes > 0 && i < flips; i++)
			to[check_random_below(random, bytes)] ^= (uint8_t)(1u << check_random_below(random, 8));
		return bytes;
	}
}

static void hostile_input(struct run *run)
{
	static uint8_t damaged[STREAM_INPUT_MAX * 2];
	struct stream streams[STREAMS];
	unsigned rounds = run->quick ? 20000 : 300000;

	check_step_begin("hostile input");
	streams_make(run, streams);
	for (unsigned round = 0; round < rounds; round++) {
		const struct stream *from = &streams[check_random_below(&run->random, STREAMS)];
		const struct stream *other = &streams[check_random_below(&run->random, STREAMS)];
		size_t bytes = damage(&run->random, from, other, damaged);
		size_t exact = from->exact;
		uint8_t *out;

		if (check_random_below(&run->random, 4) == 0)
			exact = check_random_below(&run->random, STREAM_INPUT_MAX + 1);
		check_doing("damaged stream %u, %zu bytes, to become %zu", round, bytes, exact);
		(void)decompress(run, damaged, bytes, exact, round & 1, &out); /* any answer is fine that decompress() lets pass */
	}
	for (unsigned i = 0; i < STREAMS; i++)
		free(streams[i].data);
	(void)check_step_end();
}

struct thread {
	pthread_t id;
	const struct run *run;
	uint64_t seed;
	unsigned wrong_nr;
};

static void *thread_main(void *arg)
{
	enum { BYTES = 16384 };
	struct thread *thread = arg;
	const struct terrace_compression *algo = thread->run->algo;
	struct check_random random = { thread->seed };
	size_t scratch_bytes = algo->scratch_bytes(algo->level_def, BYTES);
	uint8_t *workspace = aligned_alloc(64, (scratch_bytes + 64) / 64 * 64);
	uint8_t *original = malloc(BYTES), *packed = malloc(2 * BYTES), *back = malloc(BYTES);

	if (!workspace || !original || !packed || !back)
		exit(2);
	for (unsigned round = 0; round < (thread->run->quick ? 50u : 500u); round++) {
		size_t n = 1 + check_random_below(&random, BYTES), bytes;

		check_data_fill(&random, CHECK_MIXED, original, n);
		bytes = algo->compress(packed, 2 * BYTES, original, n, algo->level_def, workspace);
		if (bytes > 0 && (algo->decompress(back, n, packed, bytes, workspace) != 0 || memcmp(back, original, n) != 0))
			thread->wrong_nr++;
	}
	free(workspace);
	free(original);
	free(packed);
	free(back);
	return NULL;
}

static void threads_do_not_meet(struct run *run)
{
	struct thread threads[CHECK_THREADS];

	check_step_begin("threads");
	check_doing("%d threads at once", CHECK_THREADS);
	for (unsigned i = 0; i < CHECK_THREADS; i++) {
		threads[i] = (struct thread){ .run = run, .seed = check_random(&run->random) };
		if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) != 0)
			exit(2);
	}
	for (unsigned i = 0; i < CHECK_THREADS; i++) {
		(void)pthread_join(threads[i].id, NULL); /* fails only for a thread that is not ours */
		(void)check(threads[i].wrong_nr == 0, "%u wrong results while other threads worked", threads[i].wrong_nr);
	}
	(void)check_step_end();
}

/* A promise of the flag: leftovers in scratch do not show in the output. */
static void is_deterministic(struct run *run)
{
	static uint8_t first[ROOM_BYTES];
	size_t n = 60000, bytes;
	uint8_t *src = check_guarded_last(&run->src, n);

	check_step_begin("same output");
	check_data_fill(&run->random, CHECK_MIXED, src, n);
	bytes = compress(run, src, n, n + n / 8, run->algo->level_def, n);
	memcpy(first, run->packed, bytes);
	(void)check(bytes == compress(run, src, n, n + n / 8, run->algo->level_def, n) && memcmp(first, run->packed, bytes) == 0,
		    "it is called deterministic, but two results differ");
	(void)check_step_end();
}

static void speed(struct run *run)
{
	uint8_t *src = check_guarded_first(&run->src), *dst = check_guarded_first(&run->dst), *back = check_guarded_first(&run->back);
	int level = run->algo->level_def;
	uint8_t *workspace = scratch(run, level, SPEED_BYTES);
	double limit = run->quick ? 0.05 : 0.5, start, seconds;
	size_t bytes;
	uint64_t done;

	check_data_fill(&run->random, CHECK_TEXT, src, SPEED_BYTES);
	for (done = 0, start = check_seconds(), seconds = 0; seconds < limit; done += SPEED_BYTES, seconds = check_seconds() - start)
		bytes = run->algo->compress(dst, ROOM_BYTES, src, SPEED_BYTES, level, workspace);
	printf("    %-20s %.0f MB/s at level %d, %u KiB at a time", "speed", (double)done / seconds / 1e6, level, SPEED_BYTES >> 10);
	if (bytes == 0) {
		puts(", no gain");
		return;
	}
	for (done = 0, start = check_seconds(), seconds = 0; seconds < limit; done += SPEED_BYTES, seconds = check_seconds() - start)
		(void)run->algo->decompress(back, SPEED_BYTES, dst, bytes, workspace); /* its answers were checked before */
	printf("; back %.0f MB/s; ratio %.2f\n", (double)done / seconds / 1e6, (double)SPEED_BYTES / (double)bytes);
}

void check_compression(const struct terrace_compression *compression, const struct check_settings *settings)
{
	struct run run = { .algo = compression, .random = { settings->seed }, .quick = settings->quick };

	check_guarded_new(&run.src, ROOM_BYTES);
	check_guarded_new(&run.dst, ROOM_BYTES);
	check_guarded_new(&run.back, ROOM_BYTES);
	run.packed = malloc(ROOM_BYTES + BLOCK_BYTES);
	if (!run.packed)
		exit(2);

	scratch_grows_with_input(&run);
	round_trips(&run);
	rooms(&run);
	sizes_are_exact(&run);
	hostile_input(&run);
	threads_do_not_meet(&run);
	if (compression->algo.flags & TERRACE_F_DETERMINISTIC)
		is_deterministic(&run);
	speed(&run);

	free(run.packed);
	if (run.scratch.map)
		check_guarded_free(&run.scratch);
	check_guarded_free(&run.back);
	check_guarded_free(&run.dst);
	check_guarded_free(&run.src);
}

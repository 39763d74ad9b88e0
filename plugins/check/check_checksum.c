/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks of a checksum: one value however the buffer is cut, and another value for other bytes. */
#include "check_algos.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_data.h"
#include "check_report.h"

#define DIGEST_MAX 32
#define BUFFER_BYTES (256u << 10)
#define PARTS_MAX 9

struct digest {
	uint8_t bytes[DIGEST_MAX];
};

struct run {
	const struct terrace_checksum *algo;
	struct check_random random;
	struct check_guarded data, out;
	uint8_t *key;
	uint8_t nonce[16];
	bool quick;
};

static struct digest digest_parts(struct run *run, const struct iovec *iov, unsigned n)
{
	uint8_t *out = check_guarded_last(&run->out, run->algo->digest_len);
	struct digest digest = { { 0 } };
	int saved;

	check_random_fill(&run->random, out, run->algo->digest_len);
	errno = ELOOP; /* a value no codec would set */
	run->algo->digest(out, iov, n, run->key, run->nonce);
	saved = errno;
	(void)check(saved == ELOOP, "it changed errno");
	memcpy(digest.bytes, out, run->algo->digest_len);
	return digest;
}

static struct digest digest_of(struct run *run, const void *buf, size_t bytes)
{
	struct iovec iov = { (void *)buf, bytes };

	return digest_parts(run, &iov, 1);
}

static bool same(struct digest a, struct digest b)
{
	return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

static size_t some_length(struct run *run)
{
	static const size_t edges[] = { 0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 63, 64, 128, 240, 241, 255, 256, 511, 512, 1024, 4096, 65536, 131072 };

	switch (check_random_below(&run->random, 3)) {
	case 0:
		return edges[check_random_below(&run->random, sizeof(edges) / sizeof(*edges))];
	case 1:
		return check_random_below(&run->random, 300);
	default:
		return check_random_below(&run->random, 20000);
	}
}

static void splits_do_not_matter(struct run *run)
{
	check_step_begin("splits");
	for (unsigned round = 0; round < (run->quick ? 500 : 5000); round++) {
		size_t bytes = some_length(run), at = 0;
		uint8_t *buf = check_guarded_last(&run->data, bytes);
		struct iovec iov[PARTS_MAX];
		struct digest whole;

		check_doing("%zu bytes in %d parts", bytes, PARTS_MAX);
		check_random_fill(&run->random, buf, bytes);
		whole = digest_of(run, buf, bytes);
		for (unsigned part = 0; part < PARTS_MAX; part++) {
			size_t left = bytes - at;
			size_t step = part == PARTS_MAX - 1 ? left : check_random_below(&run->random, left / 2 + 1);

			iov[part] = (struct iovec){ buf + at, step };
			at += step;
		}
		(void)check(same(whole, digest_parts(run, iov, PARTS_MAX)), "a buffer in parts has another digest than as a whole");
	}
	check_doing("no parts at all");
	(void)check(same(digest_of(run, check_guarded_first(&run->data), 0), digest_parts(run, NULL, 0)),
		    "no parts have another digest than one empty part");
	(void)check_step_end();
}

static void alignment_does_not_matter(struct run *run)
{
	check_step_begin("alignment");
	for (unsigned round = 0; round < (run->quick ? 20 : 100); round++) {
		size_t bytes = some_length(run);
		uint8_t *original = malloc(bytes + 1); /* never 0 */
		uint8_t *first = check_guarded_first(&run->data);
		struct digest expected;

		if (!original)
			exit(2);
		check_random_fill(&run->random, original, bytes);
		expected = digest_of(run, original, bytes);
		for (unsigned shift = 0; shift < 64; shift++) {
			check_doing("%zu bytes, shifted by %u", bytes, shift);
			memcpy(first + shift, original, bytes);
			(void)check(same(expected, digest_of(run, first + shift, bytes)), "the digest depends on the address");
		}
		free(original);
	}
	(void)check_step_end();
}

/* Each change of one bit shows; so do an added zero, and two neighbouring blocks that changed places. */
static void changes_show(struct run *run)
{
	static const size_t lengths[] = { 1, 8, 64, 300, 4096 };

	check_step_begin("changes");
	for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
		size_t bytes = lengths[l];
		uint8_t *buf = check_guarded_first(&run->data);
		struct digest before;

		memset(buf, 0, bytes + 1);
		check_doing("%zu zeros", bytes);
		before = digest_of(run, buf, bytes);
		(void)check(!same(before, digest_of(run, buf, bytes + 1)), "one zero more has the same digest");

		check_random_fill(&run->random, buf, bytes);
		before = digest_of(run, buf, bytes);
		(void)check(same(before, digest_of(run, buf, bytes)), "the same buffer has two digests");
		for (size_t bit = 0; bit < bytes * 8; bit++) {
			check_doing("bit %zu of %zu bytes", bit, bytes);
			buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
			(void)check(!same(before, digest_of(run, buf, bytes)), "a flipped bit does not show");
			buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		if (bytes >= 64) {
			uint8_t block[32];

			check_doing("two blocks of %zu bytes exchanged", bytes);
			memcpy(block, buf, sizeof(block));
			memcpy(buf, buf + sizeof(block), sizeof(block));
			memcpy(buf + sizeof(block), block, sizeof(block));
			(void)check(!same(before, digest_of(run, buf, bytes)), "exchanged blocks do not show");
		}
	}
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
	struct thread *thread = arg;
	const struct run *run = thread->run;
	struct check_random random = { thread->seed };
	uint8_t buf[4096], first[DIGEST_MAX], again[DIGEST_MAX];

	check_random_fill(&random, buf, sizeof(buf));
	for (unsigned round = 0; round < (run->quick ? 500u : 5000u); round++) {
		size_t bytes = 1 + round % sizeof(buf);
		struct iovec whole = { buf, bytes };
		struct iovec halves[] = { { buf, bytes / 2 }, { buf + bytes / 2, bytes - bytes / 2 } };

		run->algo->digest(first, &whole, 1, run->key, run->nonce);
		run->algo->digest(again, halves, 2, run->key, run->nonce);
		if (memcmp(first, again, run->algo->digest_len) != 0)
			thread->wrong_nr++;
	}
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
		(void)check(threads[i].wrong_nr == 0, "%u wrong digests while other threads worked", threads[i].wrong_nr);
	}
	(void)check_step_end();
}

static void speed(struct run *run)
{
	static const size_t lengths[] = { 4096, 128 << 10 };
	uint8_t *buf = check_guarded_first(&run->data);

	check_random_fill(&run->random, buf, BUFFER_BYTES);
	for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
		double start = check_seconds(), now;
		uint64_t bytes = 0;
		uint8_t out[DIGEST_MAX];

		do {
			for (unsigned i = 0; i < 64; i++) {
				struct iovec iov = { buf, lengths[l] };

				run->algo->digest(out, &iov, 1, run->key, run->nonce);
				bytes += lengths[l];
			}
			now = check_seconds();
		} while (now - start < (run->quick ? 0.05 : 0.5));
		printf("    %-20s %.0f MB/s, %zu KiB at a time\n", "speed", (double)bytes / (now - start) / 1e6, lengths[l] >> 10);
	}
}

void check_checksum(const struct terrace_checksum *checksum, const struct check_settings *settings)
{
	struct run run = { .algo = checksum, .random = { settings->seed }, .quick = settings->quick };

	check_guarded_new(&run.data, BUFFER_BYTES);
	check_guarded_new(&run.out, DIGEST_MAX);
	run.key = calloc(1, checksum->key_len + 1);
	if (!run.key)
		exit(2);
	check_random_fill(&run.random, run.key, checksum->key_len);
	check_random_fill(&run.random, run.nonce, sizeof(run.nonce));

	splits_do_not_matter(&run);
	alignment_does_not_matter(&run);
	changes_show(&run);
	threads_do_not_meet(&run);
	speed(&run);

	free(run.key);
	check_guarded_free(&run.out);
	check_guarded_free(&run.data);
}

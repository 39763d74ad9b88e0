/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A checksum plugin that tests of the loader build with one thing or another wrong. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/terrace-plugin.h"

#ifndef FIXTURE_NAME
#define FIXTURE_NAME "good"
#endif
#ifndef FIXTURE_SYMBOL
#define FIXTURE_SYMBOL terrace_plugin_1
#endif
#ifndef FIXTURE_MINOR
#define FIXTURE_MINOR TERRACE_PLUGIN_ABI_MINOR
#endif
#ifndef FIXTURE_SIZE
#define FIXTURE_SIZE sizeof(struct terrace_plugin)
#endif
#ifndef FIXTURE_UUID
#define FIXTURE_UUID 1
#endif
#ifndef FIXTURE_FORMAT
#define FIXTURE_FORMAT 1
#endif
#ifndef FIXTURE_ALGO
#define FIXTURE_ALGO "fixture"
#endif
#ifndef FIXTURE_DIGEST
#define FIXTURE_DIGEST 1
#endif
#ifndef FIXTURE_SELFTEST
#define FIXTURE_SELFTEST 0
#endif
#ifndef FIXTURE_INIT
#define FIXTURE_INIT 0
#endif

/* Leaves a trace when the file's code is run, so that a test can see that it was not. */
__attribute__((constructor)) static void leave_a_trace(void)
{
	(void)setenv("FIXTURE_RAN", FIXTURE_NAME, 1); /* without memory the test that looks for it fails */
}

static void digest(void *out, const struct iovec *iov, unsigned n, const void *key, const void *nonce16)
{
	unsigned char sum = 0;

	(void)key;
	(void)nonce16;
	for (unsigned part = 0; part < n; part++)
		for (size_t i = 0; i < iov[part].iov_len; i++)
			sum = (unsigned char)(sum * 31 + ((const unsigned char *)iov[part].iov_base)[i]);
	memcpy(out, &sum, 1);
}

static int selftest(void)
{
	return FIXTURE_SELFTEST;
}

static int init(const struct terrace_host *host)
{
	host->log(6, "hello from " FIXTURE_NAME);
	return FIXTURE_INIT;
}

static const struct terrace_checksum checksum = {
	.algo = {
		.size = sizeof(struct terrace_checksum),
		.kind = TERRACE_CHECKSUM,
		.uuid = { 0xd2, 0x05, 0x67, 0x34, 0x17, 0xa1, 0x44, 0xe5, 0xb4, 0xbf, 0xcd, 0x39, 0xd7, 0x8b, 0xa8, FIXTURE_UUID },
		.name = FIXTURE_ALGO,
		.format = FIXTURE_FORMAT,
		.selftest = selftest,
	},
	.digest_len = FIXTURE_DIGEST,
	.digest = digest,
};

static const struct terrace_algo *const algos[] = { &checksum.algo, NULL };

/* Not TERRACE_PLUGIN(): the symbol is one of the things that can be wrong. */
__attribute__((visibility("default"))) extern const struct terrace_plugin FIXTURE_SYMBOL;
const struct terrace_plugin FIXTURE_SYMBOL = {
	.abi_minor = FIXTURE_MINOR,
	.size = FIXTURE_SIZE,
	.name = FIXTURE_NAME,
	.version = "1.2",
	.licence = "MIT",
	.summary = "for tests",
	.algos = algos,
	.init = init,
};

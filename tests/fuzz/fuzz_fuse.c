/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of the kernel, to the code that serves a mount, without one
 *
 * Input: flags (1 byte: bit 0 no INIT first; bit 1 the kernel's writeback cache; bit 2 extended xattrs), then requests: opcode (2 bytes; 0xffff: the next 4), which node (1: FUZZ_NODE_*), bytes
 * of the request after its header (2), these bytes. The descriptor is a file that can only be written to: the session's own readers find that and end. Each request is answered
 * at most once, and at least once unless its kind has no answer; each answer says its length truly.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuse/fuse_priv.h"
#include "fuzz.h"
#include "seed_pool.h"

const size_t fuzz_memory_max = 10 * SEED_DEV_BYTES;

#define REQUESTS_MAX 40u
#define UNIQUES_MAX (2 * REQUESTS_MAX + 2)

struct serving {
	struct fuzz_in in;
	struct seed_machine m;
	struct ter_fs *fs;
	struct td_session *session;
	int write_fd, read_fd;
	uint64_t unique;
	uint32_t opcode[UNIQUES_MAX];
	unsigned answers[UNIQUES_MAX];
	uint64_t nodes[8];
	unsigned nodes_nr;
};

static bool has_no_answer(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT || opcode == FUSE_NOTIFY_REPLY;
}

static uint64_t pick_node(struct serving *s, unsigned which)
{
	static const uint64_t odd[] = { 0, 1, 2, UINT64_MAX, 1ull << 40, TER_NODE(1, TER_INUM_MAX), TER_NODE(2, 1), 1ull << 63, INT64_MAX, TER_NODE(1, 0), TER_NODE_ROOT };

	if (which < 200)
		return s->nodes[which % s->nodes_nr];
	return odd[which % ARRAY_SIZE(odd)];
}

static void serve(struct serving *s, uint32_t opcode, uint64_t node, const uint8_t *arg, size_t arg_bytes)
{
	const size_t bytes = sizeof(struct fuse_in_header) + arg_bytes;
	struct fuse_in_header *in = malloc(bytes);
	bool deferred = false;

	fuzz_check(in && s->unique + 1 < UNIQUES_MAX);
	*in = (struct fuse_in_header){ .len = (uint32_t)bytes, .opcode = opcode, .unique = ++s->unique, .nodeid = node, .pid = 1 };
	s->opcode[s->unique] = opcode;
	if (arg_bytes)
		memcpy(in + 1, arg, arg_bytes);
	td_process(s->session, in, bytes, NULL, true, &deferred);
	if (deferred) {
		td_process(s->session, in, bytes, NULL, false, &deferred);
		fuzz_check(!deferred);
	}
	free(in);
}

static void init(struct serving *s, unsigned flags)
{
	struct fuse_init_in in = { .major = FUSE_KERNEL_VERSION, .minor = 38, .max_readahead = 131072, .flags = UINT32_MAX & ~FUSE_INIT_EXT };

	if (!(flags & 4))
		in.flags &= ~(uint32_t)FUSE_SETXATTR_EXT;
	serve(s, FUSE_INIT, 0, (const uint8_t *)&in, sizeof(in));
}

static void find_nodes(struct serving *s)
{
	static const char *const names[] = { "dir", "big", "sparse", "link", "fifo", "two-names" };
	const struct ter_op op = { 0 };
	struct ter_attr attr;

	s->nodes[s->nodes_nr++] = FUSE_ROOT_ID;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		fuzz_check(ter_vfs_lookup(ter_fs_vfs(s->fs), &op, TER_NODE_ROOT, names[i], &attr) == 0);
		s->nodes[s->nodes_nr++] = attr.node;
	}
}

static void run(void *arg)
{
	struct serving *s = arg;
	const unsigned flags = (unsigned)fuzz_take(&s->in, 1);
	struct td_session_config config = { .io = s->m.io, .fuse_fd = s->write_fd, .transport = TD_TRANSPORT_CLASSIC, .writeback_cache = flags & 2 };

	fuzz_check(seed_start(&s->m, false, &s->fs) == 0);
	find_nodes(s);
	config.fs = s->fs;
	fuzz_check(td_session_start(&config, &s->session, NULL) == 0);
	if (!(flags & 1))
		init(s, flags);
	for (unsigned i = 0; i < REQUESTS_MAX && s->in.left; i++) {
		uint32_t opcode = (uint32_t)fuzz_take(&s->in, 2);
		uint64_t node;
		uint8_t *bytes;
		size_t nr;

		if (opcode == 0xffff)
			opcode = (uint32_t)fuzz_take(&s->in, 4);
		node = pick_node(s, (unsigned)fuzz_take(&s->in, 1));
		nr = fuzz_take(&s->in, 2);
		bytes = fuzz_dup(&s->in, nr, &nr);
		serve(s, opcode, node, bytes, nr);
		free(bytes);
	}
	td_session_stop(s->session);
	fuzz_check(ter_fs_stop(s->fs, NULL) == 0);
	ter_fs_close(s->fs);
}

static void count_answers(struct serving *s)
{
	const off_t bytes = lseek(s->read_fd, 0, SEEK_END);
	uint8_t *all = malloc((size_t)bytes + 1);
	off_t at = 0;

	fuzz_check(all && pread(s->read_fd, all, (size_t)bytes, 0) == bytes);
	while (at < bytes) {
		struct fuse_out_header head;

		fuzz_check(bytes - at >= (off_t)sizeof(head));
		memcpy(&head, all + at, sizeof(head));
		fuzz_check(head.len >= sizeof(head) && head.len <= bytes - at);
		fuzz_check(head.error <= 0 && head.error > -512 && (!head.error || head.len == sizeof(head)));
		fuzz_check(head.unique && head.unique <= s->unique);
		s->answers[head.unique]++;
		at += head.len;
	}
	for (uint64_t i = 1; i <= s->unique; i++)
		fuzz_check(s->answers[i] == 1 || (!s->answers[i] && has_no_answer(s->opcode[i])));
	free(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct serving *s = calloc(1, sizeof(*s));
	char path[64];

	fuzz_check(s);
	s->in = (struct fuzz_in){ data, size };
	s->read_fd = memfd_create("answers", MFD_CLOEXEC);
	fuzz_check(s->read_fd >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->read_fd);
	s->write_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	fuzz_check(s->write_fd >= 0);
	seed_machine_new(seed_pool(SEED_CLEAN), &s->m);
	seed_run(&s->m, run, s);
	count_answers(s);
	seed_machine_free(&s->m);
	close(s->read_fd);
	free(s);
	return 0;
}

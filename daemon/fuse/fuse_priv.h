/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A session's inside, for this folder only. */
#ifndef TD_FUSE_PRIV_H
#define TD_FUSE_PRIV_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fuse/fuse_wire.h"
#include "fuse/session.h"

#define TD_CACHE_SECONDS (7 * 86400.0) /* the mount is the only writer: the kernel may keep what it was told */
#define TD_DIRTY_CACHE_SECONDS 1.0   /* blocks change when data is written back */
#define TD_MAX_BACKGROUND 64
#define TD_RING_DEPTH 8
#define TD_LOOKUP_SHARDS 64u

struct td_ring_entry;

/* The request that this thread is working on. */
struct td_call {
	struct td_session *session;
	const struct fuse_in_header *in; /* the raw request: header, operation header, payload */
	size_t bytes;
	struct td_ring_entry *entry;     /* NULL: classic */
	bool nowait;
	bool deferred; /* the handler asks for the request to be done again by the pool */
};
extern _Thread_local struct td_call *td_call;

/* lookups.c: how often the kernel has been told of a node. */
struct td_lookup_shard {
	pthread_mutex_t mutex;
	struct td_lookup_slot {
		uint64_t node; /* 0: free */
		uint64_t count;
	} *slots;
	uint32_t nr, capacity; /* capacity is a power of two */
};
struct td_lookups {
	struct td_lookup_shard shard[TD_LOOKUP_SHARDS];
};
void td_lookups_init(struct td_lookups *l);
void td_lookups_destroy(struct td_lookups *l);
bool td_lookups_add(struct td_lookups *l, uint64_t node);                  /* false: no memory */
bool td_lookups_forget(struct td_lookups *l, uint64_t node, uint64_t nr); /* true: nobody knows it any more */
bool td_lookups_known(struct td_lookups *l, uint64_t node);

/* pool.c: threads that may wait. */
struct td_pool_job {
	struct ter_list link;
	struct td_session *session;
	struct td_ring_entry *entry;
	size_t bytes;
	uint8_t *request; /* a copy, or a buffer handed over */
};
struct td_pool {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct ter_list jobs;
	pthread_t thread[TD_POOL_THREADS];
	unsigned threads;
	bool stop;
};
int td_pool_start(struct td_session *s);
void td_pool_stop(struct td_session *s); /* finishes what is queued */
int td_pool_add(struct td_session *s, const void *request, size_t bytes, struct td_ring_entry *entry);

/* A reader of the classic device. */
struct td_reader {
	struct td_session *session;
	pthread_t thread;
	int cpu;               /* pinned to; -1: nowhere */
	/* the reader's own */
	unsigned served, check_every, foreign;
	/* under td_session.duty */
	pthread_cond_t wanted;
	bool aside;
};

struct td_ring;
struct td_session {
	struct td_session_config config;
	struct ter_fs *fs;
	struct ter_vfs *vfs;
	struct fuse_session *se;
	int fd;
	uint64_t init_unique;
	uint64_t init_offered; /* flags of the kernel's INIT */
	uint64_t init_flags;   /* what we answered */
	_Atomic bool init_done;
	_Atomic int stop;
	_Atomic bool ended;    /* on_end was called */
	_Atomic uint64_t late; /* requests answered later than their handler returned: reads, syncs */
	struct td_lookups lookups;
	struct td_pool pool;
	struct td_reader reader[TD_READERS_MAX];
	unsigned readers, readers_wanted;
	pthread_mutex_t duty;
	unsigned on_duty;      /* readers that do not stand aside */
	struct td_ring *ring;
};

/* init_flags.c */
uint64_t td_init_flags(const struct td_session *s, uint64_t offered);
/* Completes libfuse's answer to INIT: flags of the table, sizes, and the ring. */
void td_init_complete(struct td_session *s, struct fuse_init_out *out);

/* ops.c */
extern const struct fuse_lowlevel_ops td_ops;
/* Requests that libfuse 3.14 does not know. True: answered (or deferred). */
bool td_ops_raw(struct td_session *s, const struct fuse_in_header *in, size_t bytes);

/* request.c */
bool td_request_fits(const struct td_session *s, const struct fuse_in_header *in, size_t bytes); /* @bytes: at least the header */

/* session.c */
void td_process(struct td_session *s, const void *request, size_t bytes, struct td_ring_entry *entry, bool nowait, bool *ret_deferred);
void td_session_ended(struct td_session *s);
ssize_t td_reply_raw(struct td_session *s, uint64_t unique, int error, const void *payload, size_t bytes);
void td_late_begin(struct td_session *s);
void td_late_end(struct td_session *s);
/* Until the next call replies of this thread with the entry's unique go to @entry. */
void td_reply_to(struct td_ring_entry *entry);

/* classic.c */
int td_classic_start(struct td_session *s);
void td_classic_stop(struct td_session *s);

/* duty.c */
void td_duty_init(struct td_session *s);    /* readers_wanted and their cores are known */
/* A request of the task @tid was served; the reader may find that it is not needed and wait here until it is. */
void td_duty_served(struct td_session *s, struct td_reader *reader, uint32_t tid);
void td_duty_join(struct td_session *s);    /* by each reader, before its first request */
void td_duty_leave(struct td_session *s);   /* by each reader, after its last: the others see for themselves why it went */
void td_duty_all(struct td_session *s);     /* nobody stands aside; nor from then on, if td_session.stop was set before */
void td_duty_destroy(struct td_session *s); /* every reader has gone */

/* ring.c */
int td_ring_prepare(struct td_session *s);  /* rings and threads stand ready; -EOPNOTSUPP */
void td_ring_register(struct td_session *s); /* after INIT was answered */
void td_ring_stop(struct td_session *s);
bool td_ring_reply(struct td_ring_entry *entry, const struct iovec *iov, int count, ssize_t *ret); /* false: not this entry's request */
void *td_ring_payload(struct td_ring_entry *entry, size_t bytes); /* where a reply's bytes may be put without a copy; NULL: too small */
struct td_ring_entry *td_ring_current(void);

#endif

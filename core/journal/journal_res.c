/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reservations: the hot path is one compare-and-swap on the open entry's state word; opening, closing and sealing of entries is under the lock. */
#include "journal/journal_priv.h"

/* --- the hot path --- */

static unsigned admit_of(unsigned flags)
{
	return flags & TER_JOURNAL_RECLAIM ? TER_JADMIT_RECLAIM : TER_JADMIT_NORMAL;
}

static bool has_room(struct ter_journal *j, uint64_t state, uint32_t bytes)
{
	return bytes <= j->room_bytes - ter_jst_offset(state) && (state & TER_JST_REFS_MASK) != TER_JST_REFS_MASK;
}

static bool try_reserve(struct ter_journal *j, uint32_t bytes, unsigned admit, struct ter_journal_res *ret_res)
{
	uint32_t idx = atomic_load_explicit(&j->open_idx, memory_order_acquire);
	struct ter_jbuf *buf = &j->bufs[idx];
	uint64_t state = atomic_load_explicit(&buf->state, memory_order_acquire);

	do {
		if ((state & TER_JST_CLOSED) || ter_jst_admit(state) < admit || !has_room(j, state, bytes))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&buf->state, &state, state + TER_JST_REF + bytes, memory_order_acq_rel,
							memory_order_acquire));
	*ret_res = (struct ter_journal_res){
		.journal = j, .seq = buf->seq, .buf_idx = idx, .offset = ter_jst_offset(state), .bytes = bytes,
	};
	return true;
}

void *ter_journal_add(struct ter_journal_res *res, enum ter_jrec_type type, uint8_t btree, uint8_t level, uint32_t payload_bytes)
{
	uint8_t *at = res->journal->bufs[res->buf_idx].data + res->offset;
	uint32_t bytes = ter_jrec_bytes(payload_bytes);

	assert(bytes <= res->bytes); /* J3: the caller reserved it */
	*(struct ter_jrec_disk *)at = (struct ter_jrec_disk){
		.payload_bytes = ter_le32_make(payload_bytes), .type = type, .btree = btree, .level = level,
	};
	if (payload_bytes % 8)
		memset(at + bytes - 8, 0, 8); /* the filling; what of it is payload the caller writes */
	res->offset += bytes;
	res->bytes -= bytes;
	return at + sizeof(struct ter_jrec_disk);
}

void ter_journal_mark_data(struct ter_journal_res *res)
{
	atomic_store_explicit(&res->journal->bufs[res->buf_idx].has_data, true, memory_order_relaxed);
}

/* What was reserved and not used: given back if nobody reserved behind it, else filled. True: given back, and with it the reservation. */
static bool give_back(struct ter_journal_res *res, struct ter_jbuf *buf)
{
	uint64_t state = atomic_load_explicit(&buf->state, memory_order_relaxed);
	uint8_t *at = buf->data + res->offset;

	while (!(state & TER_JST_CLOSED) && ter_jst_offset(state) == res->offset + res->bytes)
		if (atomic_compare_exchange_weak_explicit(&buf->state, &state, state - TER_JST_REF - res->bytes, memory_order_acq_rel,
							  memory_order_relaxed))
			return true;
	memset(at, 0, res->bytes);
	((struct ter_jrec_disk *)at)->payload_bytes = ter_le32_make(res->bytes - sizeof(struct ter_jrec_disk));
	((struct ter_jrec_disk *)at)->type = TER_JREC_PAD;
	return false;
}

void ter_journal_put(struct ter_journal_res *res)
{
	struct ter_journal *j = res->journal;
	struct ter_jbuf *buf = &j->bufs[res->buf_idx];
	uint64_t state;

	if (res->bytes && give_back(res, buf))
		goto out;
	state = atomic_fetch_sub_explicit(&buf->state, TER_JST_REF, memory_order_acq_rel);
	if (ter_unlikely((state & TER_JST_CLOSED) && (state & TER_JST_REFS_MASK) == TER_JST_REF)) {
		ter_lock_acquire(&j->lock);
		ter_journal_advance_(j);
		ter_lock_release(&j->lock);
	}
out:
	*res = (struct ter_journal_res){ 0 };
}

/* --- opening, closing, sealing; lock held --- */

static void write_header(struct ter_journal *j, struct ter_jbuf *buf, uint64_t seq)
{
	struct ter_jentry_disk *disk = (void *)buf->data;

	/* So that the region describes itself from the first record on. */
	*disk = (struct ter_jentry_disk){ .magic = ter_le64_make(j->magic), .seq = ter_le64_make(seq), .csum_slot = j->csum_slot };
}

static void try_open(struct ter_journal *j)
{
	uint64_t seq = atomic_load(&j->open_seq);
	struct ter_jbuf *buf = ter_jbuf(j, seq);
	int admit;

	if (j->is_open || j->quit || atomic_load(&j->error) || seq > j->written_seq + TER_JOURNAL_BUFS)
		return;
	/* An entry with roots is sealed before the next one opens: no root of a later entry gets into it. */
	if (j->seal_seq < seq && ter_jbuf(j, seq - 1)->roots)
		return;
	admit = ter_jring_admission_(j);
	if (admit < 0)
		return;
	write_header(j, buf, seq);
	buf->seq = seq;
	atomic_store(&buf->has_data, false);
	buf->roots = false;
	assert(atomic_load(&j->pins[seq % TER_JOURNAL_FIFO_MAX]) == 0); /* J5 */
	atomic_store(&j->pins[seq % TER_JOURNAL_FIFO_MAX], 1);
	atomic_store(&buf->state, sizeof(struct ter_jentry_disk) | ((seq << TER_JST_GEN_SHIFT) & TER_JST_GEN_MASK) |
					  ((uint64_t)admit << TER_JST_ADMIT_SHIFT));
	atomic_store(&j->open_idx, (uint32_t)(seq % TER_JOURNAL_BUFS));
	j->is_open = true;
	ter_waitq_wake_all(&j->space_wq);
	ter_waitq_wake_all(&j->writer_wq);
}

static void raise_admission(struct ter_journal *j)
{
	struct ter_jbuf *buf = ter_jbuf(j, atomic_load(&j->open_seq));
	uint64_t state = atomic_load(&buf->state);
	int admit;

	if (!j->is_open || ter_jst_admit(state) == TER_JADMIT_NORMAL)
		return;
	admit = ter_jring_admission_(j);
	while (admit > (int)ter_jst_admit(state))
		if (atomic_compare_exchange_weak(&buf->state, &state,
						 (state & ~TER_JST_ADMIT_MASK) | ((uint64_t)admit << TER_JST_ADMIT_SHIFT))) {
			ter_waitq_wake_all(&j->space_wq);
			return;
		}
}

void ter_journal_close_open_(struct ter_journal *j)
{
	uint64_t seq = atomic_load(&j->open_seq);
	struct ter_jbuf *buf = ter_jbuf(j, seq);
	uint64_t state = atomic_fetch_or(&buf->state, TER_JST_CLOSED);

	assert(j->is_open && buf->seq == seq);
	j->is_open = false;
	buf->bytes = ter_jst_offset(state);
	buf->roots = j->roots_wanted && j->config.get_roots;
	j->roots_wanted = false;
	/* J4. Now, not when it is written: what is unpinned later may be so thanks to keys in a later entry. Entries with roots: when sealed, still before the next opens. */
	if (!buf->roots)
		buf->last_seq = ter_min(ter_journal_oldest_(j, false), seq);
	atomic_store(&j->open_seq, seq + 1);
}

static void append(struct ter_jbuf *buf, enum ter_jrec_type type, uint8_t btree, uint8_t level, uint32_t payload_bytes, void **ret_payload)
{
	struct ter_jrec_disk *rec = (void *)(buf->data + buf->bytes);

	memset(rec, 0, ter_jrec_bytes(payload_bytes));
	rec->payload_bytes = ter_le32_make(payload_bytes);
	rec->type = type;
	rec->btree = btree;
	rec->level = level;
	buf->bytes += ter_jrec_bytes(payload_bytes);
	*ret_payload = rec + 1;
}

static void append_roots(struct ter_journal *j, struct ter_jbuf *buf)
{
	struct ter_jrec_clock clock = { 0 };
	unsigned nr = j->config.get_roots(j->config.get_roots_arg, j->roots, TER_BTREE_ROOTS_MAX);
	void *payload;

	assert(nr <= TER_BTREE_ROOTS_MAX);
	for (unsigned i = 0; i < nr; i++) {
		append(buf, TER_JREC_ROOT, j->roots[i].btree, j->roots[i].present ? j->roots[i].level : 0, TER_JREC_ROOT_BYTES, &payload);
		ter_jrec_root_encode(&j->roots[i], payload);
	}
	if (j->config.get_clock) {
		clock.real_ns = ter_max(ter_real_ns(j->config.exec), (int64_t)0);
		j->config.get_clock(j->config.get_clock_arg, &clock.next_node_seq, &clock.next_inum);
		append(buf, TER_JREC_CLOCK, 0, 0, TER_JREC_CLOCK_BYTES, &payload);
		ter_jrec_clock_encode(&clock, payload);
	}
	assert(buf->bytes <= j->entry_bytes);
}

static void seal(struct ter_journal *j, struct ter_jbuf *buf)
{
	if (buf->roots) {
		append_roots(j, buf);
		ter_journal_move_roots_pin_(j, buf->seq);
		buf->last_seq = ter_min(ter_journal_oldest_(j, false), buf->seq);
	}
	/* The journal's own pin. Nobody sleeps on it: whoever waits for pins looks again once the entry is durable. */
	atomic_fetch_sub(&j->pins[buf->seq % TER_JOURNAL_FIFO_MAX], 1);
	j->seal_seq++;
}

void ter_journal_advance_(struct ter_journal *j)
{
	uint64_t before = j->seal_seq;

	while (j->seal_seq < atomic_load(&j->open_seq)) {
		struct ter_jbuf *buf = ter_jbuf(j, j->seal_seq);

		if (atomic_load(&buf->state) & TER_JST_REFS_MASK)
			break;
		seal(j, buf);
	}
	try_open(j);
	raise_admission(j);
	if (j->seal_seq != before)
		ter_waitq_wake_all(&j->writer_wq);
}

bool ter_journal_open_empty_(struct ter_journal *j)
{
	return !j->is_open || ter_jst_offset(atomic_load(&ter_jbuf(j, atomic_load(&j->open_seq))->state)) == sizeof(struct ter_jentry_disk);
}

/* --- the slow path --- */

/* 0: the open entry has room for @bytes (others may be faster). -EAGAIN: not now. */
static int prepare(struct ter_journal *j, uint32_t bytes, unsigned flags)
{
	uint64_t state;
	int r = atomic_load(&j->error);

	if (r < 0)
		return r;
	if (j->quit)
		return -ESHUTDOWN;
	ter_journal_advance_(j);
	for (unsigned i = 0; i < TER_JOURNAL_BUFS && j->is_open; i++) {
		state = atomic_load(&ter_jbuf(j, atomic_load(&j->open_seq))->state);
		if (ter_jst_admit(state) < admit_of(flags)) {
			if (ter_journal_needs_reclaim_(j))
				ter_waitq_wake_all(&j->reclaim_wq);
			return -EAGAIN;
		}
		if (has_room(j, state, bytes))
			return 0;
		ter_journal_close_open_(j);
		ter_journal_advance_(j);
	}
	return -EAGAIN;
}

static int round_bytes(struct ter_journal *j, uint32_t bytes, uint32_t *ret_bytes)
{
	/* room_bytes is a multiple of 8: rounding cannot pass it. */
	if (bytes > j->room_bytes - sizeof(struct ter_jentry_disk))
		return -E2BIG;
	*ret_bytes = (uint32_t)ter_round_up(bytes, 8);
	return 0;
}

/* 0, 1: lost a race, try again; or an error. */
static int reserve_slowly(struct ter_journal *j, uint32_t bytes, unsigned flags, struct ter_journal_res *ret_res)
{
	int r;

	ter_lock_acquire(&j->lock);
	r = prepare(j, bytes, flags);
	if (r == 0 && !try_reserve(j, bytes, admit_of(flags), ret_res))
		r = 1;
	if (r == 0 && (flags & TER_JOURNAL_ROOTS))
		j->roots_wanted = true; /* closing is under the lock: the entry is still open, and knows before it closes */
	ter_lock_release(&j->lock);
	return r;
}

int ter_journal_reserve(struct ter_journal *j, uint32_t bytes, unsigned flags, struct ter_journal_res *ret_res)
{
	int r;

	r = round_bytes(j, bytes, &bytes);
	if (r < 0)
		return r;
	if (ter_likely(!(flags & TER_JOURNAL_ROOTS)) && try_reserve(j, bytes, admit_of(flags), ret_res))
		return 0;
	for (;;) {
		r = reserve_slowly(j, bytes, flags, ret_res);
		if (r == 0)
			return 0;
		if (r < 0 && (r != -EAGAIN || (flags & TER_JOURNAL_NOWAIT)))
			return r;
		if (r < 0) {
			r = ter_journal_wait_space(j, bytes, flags);
			if (r < 0)
				return r;
		}
	}
}

int ter_journal_wait_space(struct ter_journal *j, uint32_t bytes, unsigned flags)
{
	int r;

	r = round_bytes(j, bytes, &bytes);
	if (r < 0)
		return r;
	ter_lock_acquire(&j->lock);
	j->space_waiters++;
	for (bool first = true; (r = prepare(j, bytes, flags)) == -EAGAIN; first = false) {
		if (first)
			j->stats.waits++;
		ter_waitq_wake_all(&j->reclaim_wq);
		ter_waitq_wait(&j->space_wq, &j->lock);
	}
	j->space_waiters--;
	ter_lock_release(&j->lock);
	return r;
}

/* --- work with RECLAIM (J8) --- */

bool ter_journal_is_small(struct ter_journal *j)
{
	return atomic_load_explicit(&j->small, memory_order_relaxed);
}

void ter_journal_begin_work(struct ter_journal *j)
{
	int r;

	if (ter_likely(!ter_journal_is_small(j)))
		return;
	ter_lock_acquire(&j->lock);
	j->space_waiters++;
	for (bool first = true;; first = false) {
		r = prepare(j, TER_JOURNAL_WORK_BYTES, 0);
		/* A turn is taken with the room for it, not before: who waits for room holds up nobody. */
		if (r != -EAGAIN && (r < 0 || !j->working))
			break;
		if (first)
			j->stats.waits++;
		ter_waitq_wake_all(&j->reclaim_wq);
		ter_waitq_wait(&j->space_wq, &j->lock);
	}
	j->space_waiters--;
	if (r >= 0)
		j->working = true;
	ter_lock_release(&j->lock);
}

void ter_journal_end_work(struct ter_journal *j)
{
	if (!ter_journal_is_small(j))
		return;
	/* After an error several may be at it; nobody waits for a turn then. */
	ter_lock_acquire(&j->lock);
	j->working = false;
	ter_waitq_wake_all(&j->space_wq);
	ter_lock_release(&j->lock);
}

void ter_journal_pace(struct ter_journal *j)
{
	if (j && ter_journal_is_small(j))
		(void)ter_journal_wait_space(j, TER_JOURNAL_WORK_BYTES, 0);
}

/* --- asking for durability; waiters are run by the writer task --- */

void ter_journal_want_(struct ter_journal *j, uint64_t seq)
{
	if (j->flush_last <= atomic_load(&j->durable_seq)) {
		j->flush_first = j->flush_last = seq;
	} else {
		j->flush_first = ter_min(j->flush_first, seq);
		j->flush_last = ter_max(j->flush_last, seq);
	}
	ter_waitq_wake_all(&j->writer_wq);
}

/* The sequence that has to be durable for @seq to be: an open entry without content needs nothing. */
static uint64_t flush_target(struct ter_journal *j, uint64_t seq)
{
	uint64_t open_seq = atomic_load(&j->open_seq);

	assert(seq <= open_seq);
	return seq == open_seq && ter_journal_open_empty_(j) ? seq - 1 : seq;
}

void ter_journal_flush_async(struct ter_journal *j, uint64_t seq, struct ter_journal_waiter *waiter)
{
	bool queued = false;
	int r;

	ter_lock_acquire(&j->lock);
	r = atomic_load(&j->error);
	if (r == 0) {
		waiter->seq = flush_target(j, seq);
		if (waiter->seq > atomic_load(&j->durable_seq)) {
			ter_list_add_tail(&j->waiters, &waiter->link);
			ter_journal_want_(j, waiter->seq);
			queued = true;
		}
	}
	ter_lock_release(&j->lock);
	if (!queued)
		waiter->fn(waiter, r);
}

int ter_journal_flush(struct ter_journal *j, uint64_t seq)
{
	int r;

	ter_lock_acquire(&j->lock);
	r = atomic_load(&j->error);
	if (r == 0) {
		seq = flush_target(j, seq);
		if (seq > atomic_load(&j->durable_seq))
			ter_journal_want_(j, seq);
	}
	while (r == 0 && atomic_load(&j->durable_seq) < seq) {
		ter_waitq_wait(&j->durable_wq, &j->lock);
		if (atomic_load(&j->durable_seq) < seq)
			r = atomic_load(&j->error);
	}
	ter_lock_release(&j->lock);
	return r;
}

uint64_t ter_journal_open_seq(struct ter_journal *j)
{
	return atomic_load(&j->open_seq);
}

void ter_journal_close_entry(struct ter_journal *j, uint64_t seq)
{
	if (atomic_load(&j->open_seq) > seq)
		return;
	ter_lock_acquire(&j->lock);
	if (j->is_open && atomic_load(&j->open_seq) == seq && !atomic_load(&j->error)) {
		ter_journal_close_open_(j);
		ter_journal_advance_(j);
	}
	ter_lock_release(&j->lock);
}

uint64_t ter_journal_durable_seq(struct ter_journal *j)
{
	return atomic_load(&j->durable_seq);
}

int ter_journal_error(struct ter_journal *j)
{
	return atomic_load(&j->error);
}

void ter_journal_want_roots(struct ter_journal *j)
{
	ter_lock_acquire(&j->lock);
	j->roots_wanted = true;
	ter_lock_release(&j->lock);
}

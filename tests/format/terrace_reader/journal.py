# SPDX-License-Identifier: LGPL-2.1-or-later
"""After a crash: what the journal says on top of the btrees on disk."""
from collections import defaultdict, namedtuple

from . import keys, sections
from .fields import Damaged, round_up, take, want, want_zero

MAGIC = 0x4c4e524a52524554
HEADER_BYTES, ENTRY_BYTES_MAX, SEQ_MAX = 64, 1 << 20, 2**62
FLAG_FLUSH, FLAG_DATA = 1, 2
PAD, KEY, ROOT, DATA, DATA_DONE, CLOCK, LOG, REQUEST = range(8)
CSUM_OFFSET, CSUM_BYTES = 0x20, 32
LIVE_SEQS_MAX = 16384  # what a torn header says beyond that is no number of this journal
SKIP_SEQS = 1024       # that may lie where nobody can read

Entry = namedtuple("Entry", "seq last_seq flags payload")
Data = namedtuple("Data", "seq offset bytes")
Done = namedtuple("Done", "begin end upto_seq")


class Replay:
    """
    What the btrees are to be seen through.

    newest_seq  of the last entry that counts; a bset may not be newer
    dead        the sequences behind it that never became durable, a range
    roots       btree -> Root
    keys        (btree, level) -> {position: newest Key}
    file_data   inode number -> Data and Done records, in the order of the journal
    """

    def __init__(self, newest_seq, roots):
        self.newest_seq, self.roots = newest_seq, roots
        self.dead = range(0)
        self.keys = defaultdict(dict)
        self.file_data = defaultdict(list)
        self.entries_nr = 0


def load(pool):
    """Of a clean pool the superblock's roots; else what replay gives."""
    sb = pool.sb
    if sb.clean:
        return Replay(sb.clean_state.journal_seq, sb.clean_state.roots)
    if not sb.initialized:
        raise Damaged("the pool's format was interrupted")
    entries, seen = _read_rings(pool)
    return _replay(pool, entries, seen)


def _read_rings(pool):
    """Every valid entry that is not blacklisted, by seq; and the numbers in all headers."""
    entries, seen = {}, set()
    bucket_size = pool.option("bucket_size")
    for r in pool.sb.journal:
        if r.dev_idx not in pool.devices:
            continue
        for bucket in range(r.first, r.first + r.nr):
            data = pool.devices[r.dev_idx].read(bucket * bucket_size, bucket_size)
            for entry in _entries_of_bucket(pool, data, "member %d, journal bucket %d" % (r.dev_idx, bucket)):
                seen.add(entry.seq)
                if entry.payload is None or pool.blacklisted(entry.seq):
                    continue
                other = entries.setdefault(entry.seq, entry)
                if other != entry:
                    pool.problems.add("wrong", "journal entry %d" % entry.seq, "two copies differ")
    return entries, seen


def _entries_of_bucket(pool, data, where):
    block, at = pool.option("block_size"), 0
    magic = (MAGIC ^ pool.magic).to_bytes(8, "little")
    while at < len(data):
        if data[at:at + 8] != magic:
            at += block
            continue
        entry, entry_bytes = _decode_entry(pool, data, at)
        if entry is not None:
            yield entry
        at += round_up(entry_bytes, block) or block


def _decode_entry(pool, data, at):
    """
    Returns the entry and its bytes; (an entry without payload, 0) when only the header can be believed as far as its seq, (None, 0) when not
    even that. Entries of an earlier lap whose end was written over are nothing odd.
    """
    _, seq, last_seq, payload_bytes, csum_slot, flags, zero = take("QQQIBB2s", data, at)
    if not 1 <= seq <= SEQ_MAX:
        return None, 0
    torn = Entry(seq, 0, 0, None)
    end = at + HEADER_BYTES + payload_bytes
    if not (1 <= last_seq <= seq and payload_bytes % 8 == 0 and flags & ~(FLAG_FLUSH | FLAG_DATA) == 0 and zero == b"\0\0"
            and HEADER_BYTES + payload_bytes <= ENTRY_BYTES_MAX and end <= len(data)):
        return torn, 0
    try:
        digest = pool.digest(csum_slot)(data[at:at + CSUM_OFFSET] + bytes(CSUM_BYTES) + data[at + HEADER_BYTES:end])
    except Damaged:
        return torn, 0
    if digest.ljust(CSUM_BYTES, b"\0") != data[at + CSUM_OFFSET:at + HEADER_BYTES]:
        return torn, 0
    return Entry(seq, last_seq, flags, data[at + HEADER_BYTES:end]), end - at


def _replay(pool, entries, seen):
    flushes = [e for e in entries.values() if e.flags & FLAG_FLUSH]
    if not flushes:
        raise Damaged("no entry of the journal can be read")
    newest = max(flushes, key=lambda e: e.seq)
    replay = Replay(newest.seq, None)
    greatest_seen = max(seq for seq in seen if seq <= newest.seq + LIVE_SEQS_MAX)
    replay.dead = range(newest.seq + 1, greatest_seen + 1 + (SKIP_SEQS if pool.missing else 0))

    for seq in range(newest.last_seq, newest.seq + 1):
        if seq in entries:
            _apply(pool, replay, entries[seq])
        elif not pool.blacklisted(seq):
            pool.problems.add("lost", "journal entry %d" % seq, "replay needs it")
    if replay.roots is None:
        raise Damaged("no roots in the journal from %d to %d" % (newest.last_seq, newest.seq))
    return replay


def _records(payload):
    at = 0
    while at < len(payload):
        nr_bytes, kind, btree, level, zero = take("IBBBB", payload, at)
        body = payload[at + 8:at + 8 + nr_bytes]
        end = at + 8 + round_up(nr_bytes, 8)
        want(zero == 0 and end <= len(payload), "a journal record")
        want(kind in (KEY, ROOT) or btree == level == 0, "a journal record's btree or level")
        want_zero(payload[at + 8 + nr_bytes:end], "a journal record's filling")
        yield kind, btree, level, body
        at = end


def _apply(pool, replay, entry):
    roots, has_clock = {}, False
    for kind, btree, level, body in _records(entry.payload):
        if kind == PAD:
            want_zero(body, "a record's reserve")
        elif kind == KEY:
            key, end = keys.decode(body, 0, pool.option("btree_node_size"))
            want(end == round_up(len(body), 8) and btree < sections.BTREES_NR and level <= sections.LEVEL_MAX, "a journal record of a key")
            want(key.type == keys.DELETED or (key.type == keys.BTREE_PTR) == (level > 0), "a key of type %d at level %d", key.type, level)
            replay.keys[btree, level][key.pos] = key
        elif kind == ROOT:
            want(len(body) == sections.ROOT_BYTES, "a journal record of a root")
            root = sections.decode_root(body, pool.sb)
            want((root.btree, root.level) == (btree, level) and btree not in roots, "a root of another btree or level")
            roots[btree] = root
        elif kind == DATA:
            inode, offset, nr_bytes = take("QQI", body)
            want(nr_bytes >= 1 and len(body) == 20 + nr_bytes and entry.flags & FLAG_DATA, "a journal record of data")
            replay.file_data[inode].append(Data(entry.seq, offset, body[20:]))
        elif kind == DATA_DONE:
            inode, begin, end, upto = take("QQQQ", body)
            want(len(body) == 32 and begin < end, "a journal record of obsolete data")
            replay.file_data[inode].append(Done(begin, end, upto))
        elif kind == CLOCK:
            want(len(body) == 24, "a journal record of the clock")
            has_clock = True
        else:
            want(kind in (LOG, REQUEST), "a journal record of type %d", kind)
    want(not roots or has_clock, "roots without a clock in entry %d", entry.seq)
    if roots:
        replay.roots = {b: r for b, r in roots.items() if r.ptrs}
    replay.entries_nr += 1

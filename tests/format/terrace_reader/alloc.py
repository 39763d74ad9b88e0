# SPDX-License-Identifier: LGPL-2.1-or-later
"""Buckets, free ranges, back references and counters, against all that points into the members."""
from collections import Counter, defaultdict, namedtuple

from . import extents, keys
from .fields import SECTOR, Damaged, take, want, want_zero

FREE, SB, JOURNAL, BTREE, USER, CACHED, PARITY, STRIPE, NEED_DISCARD = range(9)
FLAG_NEED_DISCARD = 1
LIVE_BUCKETS_MAX = 4096
REPLICAS, DEV, COMPRESSION, INODES, BTREES, RESERVED = range(1, 7)

Bucket = namedtuple("Bucket", "gen data_type need_discard live_sectors")
BackReference = namedtuple("BackReference", "pos sectors btree level")


class Space:
    """@btrees: id -> Btree, all there are. check() reports to the pool's problems."""

    def __init__(self, pool, btrees):
        self._pool, self._problems, self._btrees = pool, pool.problems, btrees
        self._bucket_sectors = pool.option("bucket_size") // SECTOR
        self._node_sectors = pool.option("btree_node_size") // SECTOR
        self._buckets = {(k.pos[0], k.pos[1]): v for k, v in self._decoded(keys.ALLOCS, keys.ALLOC, _bucket)}
        self._references = {}  # position -> BackReference, as whatever points there wants it
        self._counters = defaultdict(Counter)

    def check(self):
        self._point_from_nodes()
        self._point_from_extents()
        self._check_references()
        self._check_buckets()
        self._check_counters()

    def _wrong(self, where, why, *args):
        self._problems.add("wrong", where, why % args)

    def _decoded(self, btree, kind, decode):
        for key in self._btrees[btree].keys if btree in self._btrees else ():
            try:
                want(key.type == kind and key.pos[2] == 0, "a key of type %d", key.type)
                yield key, decode(key)
            except Damaged as e:
                self._wrong("btree %d, key %s" % (btree, key.pos), "%s", e)

    def _count(self, kind, parameters, *counts):
        at = kind << 56
        for i, p in enumerate(parameters):
            at |= p << 48 - 8 * i
        for i, n in enumerate(counts):
            self._counters[at][i] += n

    def _count_replicas(self, data_type, nr_required, devs, sectors):
        devs = sorted(devs)
        self._count(REPLICAS, [data_type, len(devs), nr_required] + devs + [0xff] * (4 - len(devs)), sectors)
        if all((r.data_type, r.nr_required, r.devs) != (data_type, nr_required, tuple(devs)) for r in self._pool.sb.replicas):
            self._wrong("superblock", "no set of replicas for %s, type %d", devs, data_type)

    def _refer(self, ptr, live_offset, reference, data_type):
        at = (ptr.dev, ptr.sector * 4096 + live_offset)
        bucket = self._buckets.get((ptr.dev, ptr.sector // self._bucket_sectors))
        where = "key %s of btree %d" % (reference.pos, reference.btree)
        if at in self._references:
            self._wrong(where, "another key points to member %d, sector %d, too", ptr.dev, ptr.sector)
        self._references[at] = reference
        if bucket is None or bucket.gen != ptr.gen:
            self._wrong(where, "its pointer's generation is %d, its bucket's %s", ptr.gen, bucket and bucket.gen)
        elif bucket.data_type != data_type:
            self._wrong(where, "points into a bucket of type %d", bucket.data_type)

    def _point_from_nodes(self):
        for ident, btree in self._btrees.items():
            for node in btree.nodes:
                self._count(BTREES, [ident], 1, self._node_sectors)
                self._count_replicas(BTREE, 1, [p.dev for p in node.child.ptrs], self._node_sectors)
                for p in node.child.ptrs:
                    self._refer(p, 0, BackReference(node.child.max, self._node_sectors, ident, node.level + 1), BTREE)

    def _point_from_extents(self):
        for key in self._btrees[keys.EXTENTS].keys if keys.EXTENTS in self._btrees else ():
            if key.type == keys.RESERVATION:
                self._count(RESERVED, [], key.size)
            if key.type != keys.EXTENT:
                continue
            try:
                e = extents.decode(key, self._pool)
            except Damaged:
                continue  # said when the file was read
            counts_as = -(-e.stored_sectors * key.size // e.raw_sectors) if e.compression_slot else e.stored_sectors
            self._count_replicas(USER, 1, [p.dev for p in e.ptrs if not p.cached], key.size)
            if e.compression_slot:
                self._count(COMPRESSION, [e.compression_slot], 1, key.size, counts_as)
            for p in e.ptrs:
                self._refer(p, e.live_offset, BackReference(key.pos, counts_as, keys.EXTENTS, 0), CACHED if p.cached else USER)

    def _check_references(self):
        found = {k.pos[:2]: v for k, v in self._decoded(keys.BACKPOINTERS, keys.BACKPOINTER, _back_reference)}
        for at in found.keys() | self._references.keys():
            if found.get(at) != self._references.get(at):
                self._wrong("member %d, sector %d" % (at[0], at[1] // 4096), "back reference %s, pointer %s", found.get(at), self._references.get(at))

    def _check_buckets(self):
        live = Counter()
        for (dev, at), reference in self._references.items():
            live[dev, at // 4096 // self._bucket_sectors] += reference.sectors
        in_use = set()
        for slot, member in self._pool.sb.members.items():
            fixed = {b: SB for b in range(member.first_bucket)}
            fixed.update((b, JOURNAL) for r in self._pool.sb.journal if r.dev_idx == slot for b in range(r.first, r.first + r.nr))
            for b in range(member.buckets_nr):
                self._check_bucket(slot, b, fixed.get(b), live[slot, b])
            in_use |= {(slot, b) for b in range(member.buckets_nr)}
        for at in self._buckets.keys() - in_use:
            self._wrong("bucket %s" % (at,), "is not a member's")
        self._check_free()

    def _check_bucket(self, slot, b, fixed, live_sectors):
        bucket, where = self._buckets.get((slot, b), Bucket(0, FREE, False, 0)), "member %d, bucket %d" % (slot, b)
        if fixed is not None:
            if bucket.data_type != fixed or bucket.live_sectors != self._bucket_sectors or bucket.need_discard:
                self._wrong(where, "is %s, and should be of type %d", bucket, fixed)
        elif bucket.live_sectors != live_sectors:
            self._wrong(where, "%d live sectors, but pointers to %d", bucket.live_sectors, live_sectors)
        if bucket.live_sectors or bucket.need_discard:
            sectors = bucket.live_sectors
            kind = bucket.data_type if sectors else NEED_DISCARD
            self._count(DEV, [kind, slot], 1, sectors, max(self._bucket_sectors - sectors, 0) if sectors else 0)
        want_type = bool(bucket.live_sectors or bucket.need_discard)
        if want_type != bool(bucket.data_type):
            self._wrong(where, "is %s", bucket)
        if bucket.live_sectors and bucket.data_type not in (SB, JOURNAL) and not bucket.need_discard:
            self._wrong(where, "is in use without NEED_DISCARD")

    def _check_free(self):
        empty = {at for at, b in self._buckets.items() if not b.live_sectors and b.need_discard}
        noted = {k.pos[:2] for k, _ in self._decoded(keys.NEED_DISCARD, keys.SET, lambda k: want(not k.value, "a set's value"))}
        if empty != noted:
            self._wrong("NEED_DISCARD", "it and the buckets differ in %s", sorted(empty ^ noted)[:4])
        free, last = set(), (None, 0)
        for k, _ in self._decoded(keys.FREESPACE, keys.FREE_RANGE, lambda k: want(not k.value, "a range's value")):
            begin = k.pos[1] - k.size
            if k.pos[0] == last[0] and begin <= last[1]:
                self._wrong("FREESPACE", "ranges before %s touch", k.pos)
            last = k.pos[:2]
            free |= {(k.pos[0], b) for b in range(begin, k.pos[1])}
        really = {(slot, b) for slot, m in self._pool.sb.members.items() for b in range(m.buckets_nr)}
        really -= {at for at, b in self._buckets.items() if b.live_sectors or b.need_discard}
        if free != really:
            self._wrong("FREESPACE", "it and the buckets differ in %s", sorted(free ^ really)[:4])

    def _check_counters(self):
        if keys.INODES in self._btrees and self._btrees[keys.INODES].keys:
            self._count(INODES, [], len(self._btrees[keys.INODES].keys))
        found = {k.pos[0]: v for k, v in self._decoded(keys.ACCOUNTING, keys.COUNTERS, _counters)}
        for at in sorted(found.keys() | self._counters.keys()):
            mine = [self._counters[at][i] for i in range(max(self._counters[at], default=-1) + 1)]
            if found.get(at, [0] * len(mine)) != mine:
                self._wrong("counters %#018x" % at, "are %s, should be %s", found.get(at), mine)


def _bucket(key):
    gen, data_type, flags, zero, live, zero2 = take("IBB2sII", key.value)
    want(len(key.value) == 16 and zero == b"\0\0" and zero2 == 0, "a bucket's value")
    want(data_type <= STRIPE and flags & ~FLAG_NEED_DISCARD == 0, "a bucket's type or flags")
    return Bucket(gen, data_type, bool(flags), live)


def _back_reference(key):
    inode, offset, snapshot, sectors, btree, level, zero = take("QQIIBB6s", key.value)
    want(len(key.value) == 32 and sectors >= 1, "a back reference")
    want_zero(zero, "a back reference's reserve")
    return BackReference((inode, offset, snapshot), sectors, btree, level)


def _counters(key):
    want(key.pos[1] == 0 and 8 <= len(key.value) <= 32 and len(key.value) % 8 == 0, "counters")
    values = list(take("%dq" % (len(key.value) // 8), key.value))
    want(all(v >= 0 for v in values) and any(values), "counters %s", values)
    return values

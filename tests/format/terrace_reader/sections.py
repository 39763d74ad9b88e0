# SPDX-License-Identifier: LGPL-2.1-or-later
"""The superblock's sections."""
import unicodedata
import uuid as uuidlib
from collections import namedtuple

from .fields import SECTOR, U64_MAX, is_power_of_two, take, text, want, want_zero

MEMBERS, OPTIONS, ALGORITHMS, REPLICAS, JOURNAL, CLEAN, BLACKLIST, RECOVERY = range(1, 9)
SLOTS_NR, ALGORITHM_SLOTS_NR, BTREES_NR, COPIES_MAX, LEVEL_MAX = 64, 32, 24, 4, 4
FIRST_BYTES = 256 << 10  # copies 0 and 1
ROOT_BYTES = 80
KIND_COMPRESSION, KIND_CHECKSUM = 1, 2

Member = namedtuple("Member", "uuid idx state durability bytes buckets_nr first_bucket last_mount_ns seen_seq label")
Algorithm = namedtuple("Algorithm", "slot kind format uuid name")
ReplicaSet = namedtuple("ReplicaSet", "data_type nr_required devs")
JournalRange = namedtuple("JournalRange", "dev_idx first nr")
Ptr = namedtuple("Ptr", "sector gen dev")
Root = namedtuple("Root", "btree level sectors_written node_seq ptrs")  # ptrs empty: the btree is empty
Clean = namedtuple("Clean", "journal_seq next_node_seq next_inum roots")

KIB, MIB = 1 << 10, 1 << 20
NUMBERS = {  # id: (name, least, greatest, default, power of two)
    1: ("block_size", 512, 64 * KIB, None, True),
    2: ("bucket_size", 64 * KIB, 16 * MIB, None, True),
    3: ("btree_node_size", 16 * KIB, 512 * KIB, 256 * KIB, True),
    4: ("metadata_replicas", 1, 4, 1, False),
    5: ("data_replicas", 1, 4, 1, False),
    6: ("metadata_replicas_required", 1, 4, 1, False),
    7: ("data_replicas_required", 1, 4, 1, False),
    11: ("extent_max", 4096, 2 * MIB, 128 * KIB, True),
    12: ("checksum_block", 4096, 2 * MIB, 4096, True),
    13: ("inline_data_max", 0, 8192, 4096, False),
    14: ("journal_flush_ms", 1, 60000, 1000, False),
    15: ("journal_data_max", 0, 256 * KIB, 64 * KIB, False),
    16: ("memory_limit", 64 * MIB, 1 << 40, 256 * MIB, False),
    17: ("gc_reserve_percent", 5, 20, 8, False),
    18: ("errors", 0, 2, 1, False),
    19: ("degraded", 0, 3, 0, False),
    20: ("journal_size", 0, 256 * MIB, 0, False),
    21: ("fsck_memory", MIB, 1 << 40, 128 * MIB, False),
    32: ("discard", 0, 1, 1, False),
    33: ("durability", 0, 4, 1, False),
}
TEXTS = {8: ("metadata_checksum", "crc32c"), 9: ("data_checksum", "crc32c"), 10: ("compression", "none")}


def label(data):
    s = text(data, "a label")
    want("/" not in s and not any(unicodedata.category(c) == "Cc" for c in s), "a label has '/' or control characters")
    return s


def decode_all(sb, data):
    found, at = {}, 0
    while at < len(data):
        kind, zero, nr_bytes = take("HHI", data, at)
        want(kind != 0 and zero == 0 and nr_bytes >= 8 and nr_bytes % 8 == 0 and at + nr_bytes <= len(data), "section at %d", at)
        want(kind not in found or kind > RECOVERY, "section %d stands twice", kind)
        found[kind] = data[at + 8:at + nr_bytes]
        at += nr_bytes
    want(MEMBERS in found and OPTIONS in found, "there are no members or no options")
    want((CLEAN in found) == sb.clean, "section 'clean' and flag 'clean' differ")

    sb.options = _options(found[OPTIONS])
    sb.members = _members(found[MEMBERS], sb.options, sb.clean)
    sb.algorithms = _algorithms(found.get(ALGORITHMS, b""))
    sb.replicas = _replicas(found.get(REPLICAS, b""), sb.members)
    sb.journal = _journal(found.get(JOURNAL, b""), sb.members)
    sb.clean_state = _clean(found[CLEAN], sb) if sb.clean else None
    sb.blacklist = _blacklist(found.get(BLACKLIST, b""))
    sb.recovery = _recovery(found.get(RECOVERY, b""))


def _records(data, nr_bytes, what):
    want(len(data) % nr_bytes == 0, "section '%s' is cut short", what)
    return [data[at:at + nr_bytes] for at in range(0, len(data), nr_bytes)]


def _ascending(values, what):
    want(all(a < b for a, b in zip(values, values[1:])), "%s are not in order", what)


def _members(data, options, clean):
    members = {}
    for r in _records(data, 144, "members"):
        idx, state, durability, flags, zero, nr_bytes, buckets_nr, first_bucket, mount_ns, seen_seq = take("BBBB4sQQQQQ", r, 0x10)
        (journal_at,) = take("I", r, 0x88)
        want_zero(zero + r[0x8c:], "a member's reserve")
        want(clean or journal_at == 0, "a member's journal_at without the clean flag")
        want(idx < SLOTS_NR and state <= 3 and durability <= 4 and flags <= 1, "a member's slot, state, durability or flags")
        want(not members or idx > max(members), "members are not in order")
        m = Member(uuidlib.UUID(bytes=r[:16]), idx, state, durability, nr_bytes, buckets_nr, first_bucket, mount_ns, seen_seq, label(r[0x68:0x88]))
        want(m.uuid.int != 0 and m.uuid not in [o.uuid for o in members.values()], "a member's uuid")
        bucket_size = options["bucket_size"]
        want(nr_bytes < 2**63 and buckets_nr >= 128 and first_bucket < buckets_nr, "a member's sizes")
        want(first_bucket * bucket_size >= FIRST_BYTES, "buckets of a member lie over its superblock")
        want(buckets_nr * bucket_size <= (nr_bytes - 65536) // 4096 * 4096, "buckets of a member end after its last superblock")
        members[idx] = m
    want(members, "no members")
    return members


def _options(data):
    options = {name: default for name, _, _, default, _ in NUMBERS.values()}
    options.update(TEXTS.values())
    at, last, ids = 0, 0, set()
    while at < len(data):
        ident, kind, value_bytes, zero = take("HBB4s", data, at)
        want_zero(zero, "an option's reserve")
        want(last < ident <= 63, "option %d", ident)
        at, last = at + 8, ident
        if kind == 0:
            want(value_bytes == 8, "a number's size")
            (value,) = take("Q", data, at)
            at += 8
        else:
            want(kind == 1 and 1 <= value_bytes <= 39, "an option's kind or size")
            padded = -(-value_bytes // 8) * 8
            want(at + padded <= len(data), "an option is cut short")
            want_zero(data[at + value_bytes:at + padded], "an option's filling")
            value = text(data[at:at + value_bytes], "an option")
            at += padded
        ids.add(ident)
        if ident in NUMBERS:
            name, least, greatest, _, power = NUMBERS[ident]
            want(kind == 0 and least <= value <= greatest and (not power or is_power_of_two(value)), "option %s is %s", name, value)
            options[name] = value
        elif ident in TEXTS:
            want(kind == 1, "option %s is a number", TEXTS[ident][0])
            options[TEXTS[ident][0]] = value
    want({1, 2, 3} <= ids, "a size is missing")
    o = options
    want(o["metadata_checksum"] != "none", "metadata without a checksum")
    want(o["btree_node_size"] <= o["bucket_size"] and o["checksum_block"] <= o["extent_max"], "sizes do not fit each other")
    want(o["block_size"] <= min(o["btree_node_size"], o["checksum_block"], o["extent_max"]), "block_size is too large")
    want(o["metadata_replicas_required"] <= o["metadata_replicas"] and o["data_replicas_required"] <= o["data_replicas"], "replicas required")
    return options


def _algorithms(data):
    algorithms = {}
    for r in _records(data, 56, "algorithms"):
        slot, kind, zero, revision = take("BB2sI", r)
        want_zero(zero, "an algorithm's reserve")
        want(1 <= slot < ALGORITHM_SLOTS_NR and 1 <= kind <= 4 and (not algorithms or slot > max(algorithms)), "an algorithm's slot or kind")
        name = text(r[0x18:], "an algorithm's name")
        want(0 < len(name) < 32 and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in name) and name != "none", "name '%s'", name)
        a = Algorithm(slot, kind, revision, str(uuidlib.UUID(bytes=r[8:0x18])), name)
        want(any(r[8:0x18]), "an algorithm's uuid is 0")
        want(all(o.kind != kind or (o.uuid != a.uuid and o.name != name) for o in algorithms.values()), "algorithm '%s' stands twice", name)
        algorithms[slot] = a
    return algorithms


def _replicas(data, members):
    records = _records(data, 8, "replicas")
    want(len(records) <= 1024, "%d sets of replicas", len(records))
    _ascending(records, "sets of replicas")
    sets = set()
    for r in records:
        data_type, nr, required, d0, d1, d2, d3, zero = take("8B", r)
        devs = (d0, d1, d2, d3)
        want(1 <= data_type <= 7 and 1 <= nr <= COPIES_MAX and 1 <= required <= nr and zero == 0, "a set of replicas")
        want(not any(devs[nr:]) and all(d in members for d in devs[:nr]), "a set of replicas names a wrong member")
        _ascending(devs[:nr], "members of a set")
        sets.add(ReplicaSet(data_type, required, devs[:nr]))
    return sets


def _journal(data, members):
    ranges = []
    for r in _records(data, 24, "journal"):
        dev, zero, first, nr = take("B7sQQ", r)
        want_zero(zero, "a journal range's reserve")
        want(dev in members and (not ranges or dev >= ranges[-1].dev_idx), "a journal range's member")
        m = members[dev]
        want(m.first_bucket <= first < m.buckets_nr and 1 <= nr <= m.buckets_nr - first, "a journal range lies outside its member")
        mine = [o for o in ranges if o.dev_idx == dev]
        want(len(mine) < 16 and all(first + nr <= o.first or o.first + o.nr <= first for o in mine), "journal ranges of a member")
        ranges.append(JournalRange(dev, first, nr))
    return ranges


def _clean(data, sb):
    seq, node_seq, inum = take("QQQ", data)
    roots = [decode_root(r, sb) for r in _records(data[24:], ROOT_BYTES, "clean")]
    _ascending([r.btree for r in roots], "roots")
    want(all(r.ptrs for r in roots), "a root that is not present")
    return Clean(seq, node_seq, inum, {r.btree: r for r in roots})


def decode_root(r, sb):
    """One root, 80 bytes, of the superblock or the journal."""
    btree, level, nr_ptrs, flags, sectors, node_seq = take("BBBBIQ", r)
    want(btree < BTREES_NR and flags <= 1, "a root's btree or flags")
    if flags == 0:
        want_zero(r[1:], "an empty root's rest")
        return Root(btree, 0, 0, 0, ())
    want(level <= LEVEL_MAX and 1 <= nr_ptrs <= COPIES_MAX, "a root's level or copies")
    want_sectors_written(sectors, sb.options)
    want_zero(r[0x10 + 16 * nr_ptrs:], "a root's unused pointers")
    ptrs = []
    for i in range(nr_ptrs):
        sector, gen, dev, zero = take("QIB3s", r, 0x10 + 16 * i)
        want_zero(zero, "a pointer's reserve")
        ptrs.append(Ptr(sector, gen, dev))
    want_node_ptrs(ptrs, sb)
    return Root(btree, level, sectors, node_seq, tuple(ptrs))


def want_sectors_written(sectors, options):
    want(0 < sectors * SECTOR <= options["btree_node_size"] and sectors * SECTOR % options["block_size"] == 0, "%d sectors of a node", sectors)


def want_node_ptrs(ptrs, sb):
    """A node lies within one bucket, its copies on different members."""
    want(len({p.dev for p in ptrs}) == len(ptrs), "two copies on one member")
    for p in ptrs:
        want_in_bucket(p, sb.options["btree_node_size"], sb)


def want_in_bucket(p, nr_bytes, sb):
    want(p.dev in sb.members, "a pointer to member %d", p.dev)
    m, bucket_size, at = sb.members[p.dev], sb.options["bucket_size"], p.sector * SECTOR
    want(at % sb.options["block_size"] == 0, "a pointer inside a block")
    want(m.first_bucket <= at // bucket_size < m.buckets_nr, "a pointer outside the member's buckets")
    want(at % bucket_size + nr_bytes <= bucket_size, "a pointer across the end of a bucket")


def _blacklist(data):
    records = _records(data, 16, "blacklist")
    want(len(records) <= 64, "%d blacklisted ranges", len(records))
    ranges, last_end = [], 0
    for r in records:
        first, last = take("QQ", r)
        want(last_end < first <= last <= U64_MAX, "blacklisted ranges")
        ranges.append((first, last))
        last_end = last
    return ranges


def _recovery(data):
    """Bits of the passes that are to be run, and of those that found what was not repaired."""
    want(len(data) in (0, 64), "section 'recovery' of %d bytes", len(data))
    want_zero(data[16:], "the recovery record's reserve")
    return take("QQ", data) if data else (0, 0)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Contents of one file: extents from whichever copies are good, holes, and what still stands in the journal."""
from collections import Counter, namedtuple

from . import codecs, journal, keys, sections
from .fields import SECTOR, Damaged, take, want, want_zero

PTR_CACHED = 1
CSUMS_MAX, STORED_SECTORS_MAX = 512, 4096
PIECE_BYTES = 1 << 20

Ptr = namedtuple("Ptr", "sector gen dev cached")
Extent = namedtuple("Extent", "ptrs csum_slot compression_slot csum_block csums stored_sectors raw_sectors live_offset")


def decode(key, pool):
    """The value of an EXTENT."""
    (nr_ptrs, nr_required, csum_slot, compression_slot, block_log2, digest_bytes, csums_nr, stored, raw, live_offset,
     zero) = take("BBBBBBHIIII", key.value)
    block = pool.option("block_size")
    want(1 <= nr_ptrs <= sections.COPIES_MAX and 1 <= nr_required <= nr_ptrs and zero == 0, "an extent's copies")
    want(9 <= block_log2 <= 21 and digest_bytes <= 32 and csums_nr <= CSUMS_MAX, "an extent's checksums")
    want(all(n * SECTOR % block == 0 and 1 <= n <= STORED_SECTORS_MAX for n in (stored, raw)), "an extent's sizes")
    want(raw > stored if compression_slot else raw == stored, "an extent's raw size")
    want(live_offset + key.size <= raw, "an extent's live part")

    csum_block = stored * SECTOR if compression_slot else 1 << block_log2
    want(csums_nr == (-(-stored * SECTOR // csum_block) if csum_slot else 0) and bool(digest_bytes) == bool(csum_slot), "an extent's checksums")
    want(len(key.value) == 0x18 + 16 * nr_ptrs + digest_bytes * csums_nr, "an extent's value")
    ptrs = []
    for i in range(nr_ptrs):
        sector, gen, dev, flags, zero = take("QIBB2s", key.value, 0x18 + 16 * i)
        want(flags & ~PTR_CACHED == 0, "a pointer's flags")
        want_zero(zero, "a pointer's reserve")
        p = Ptr(sector, gen, dev, flags == PTR_CACHED)
        sections.want_in_bucket(p, stored * SECTOR, pool.sb)
        ptrs.append(p)
    want(len({p.dev for p in ptrs}) == nr_ptrs, "two copies on one member")
    csums_at = 0x18 + 16 * nr_ptrs
    csums = [key.value[csums_at + i * digest_bytes:csums_at + (i + 1) * digest_bytes] for i in range(csums_nr)]
    return Extent(tuple(ptrs), csum_slot, compression_slot, csum_block, csums, stored, raw, live_offset)


class Reader:
    """Reads any file of a pool."""

    def __init__(self, pool, replay, extents):
        """@extents: all keys of the btree EXTENTS."""
        self._pool, self._replay = pool, replay
        self._keys = {}
        self.seen = Counter()  # of what kinds the pieces were: a test wants to know that it met all of them
        for key in extents:
            self._keys.setdefault(key.pos[0], []).append(key)

    def keys_of(self, inode):
        return self._keys.get(inode, [])

    def check_keys(self, inode):
        """Ranges do not overlap and lie on blocks."""
        block, last_end = self._pool.option("block_size"), 0
        for key in self.keys_of(inode):
            begin = key.pos[1] - key.size
            want(key.pos[2] == 2**32 - 1 and begin >= last_end, "extents of inode %d overlap", inode)
            want(begin * SECTOR % block == 0 and key.size * SECTOR % block == 0, "an extent of inode %d is not of whole blocks", inode)
            want(key.type in (keys.EXTENT, keys.INLINE_DATA, keys.RESERVATION, keys.ERROR), "a key of type %d in EXTENTS", key.type)
            last_end = key.pos[1]

    def sectors(self, inode):
        return sum(k.size for k in self.keys_of(inode) if k.type != keys.ERROR)

    def contents(self, inode, size):
        """Yields the file's bytes, in pieces. What is lost raises Damaged, after all other pieces were read for their checksums' sake."""
        self.check_keys(inode)
        at, lost, cached = 0, None, (None, None)
        for begin, end, source in self._layout(inode, size):
            yield from _zeros(begin - at)
            if cached[0] is not source:
                try:
                    cached = (source, source.bytes if isinstance(source, journal.Data) else self._read(source))
                except Damaged as e:
                    lost, cached = e, (source, None)
            if cached[1] is not None:
                yield cached[1][begin - _begin(source):end - _begin(source)]
            at = end
        yield from _zeros(size - at)
        if lost:
            raise lost

    def _layout(self, inode, size):
        """(begin, end, Key or journal.Data) in bytes, ascending, not overlapping: the keys, and over them the journal's data, newest last."""
        layout = [(_begin(k), k.pos[1] * SECTOR, k) for k in self.keys_of(inode)]
        for begin, end, data in self._journaled(inode):
            layout = _without(layout, begin, end) + [(begin, end, data)]
            self.seen["journal"] += 1
        return sorted(((b, min(e, size), s) for b, e, s in layout if b < size), key=lambda p: p[0])

    def _journaled(self, inode):
        """What of the DATA records no later DATA_DONE takes back, oldest first."""
        parts = []
        for r in self._replay.file_data.get(inode, []):
            if isinstance(r, journal.Data):
                parts.append((r.offset, r.offset + len(r.bytes), r))
            else:
                parts = [p for part in parts for p in ([part] if part[2].seq > r.upto_seq else _without([part], r.begin, r.end))]
        return parts

    def _read(self, key):
        """All bytes of a key's range."""
        self.seen[key.type] += 1
        if key.type == keys.RESERVATION:
            return bytes(key.size * SECTOR)
        if key.type == keys.INLINE_DATA:
            want(1 <= len(key.value) <= key.size * SECTOR, "inline data of %d bytes", len(key.value))
            return key.value.ljust(key.size * SECTOR, b"\0")
        where = "inode %d, sector %d" % (key.pos[0], key.pos[1] - key.size)
        try:
            want(key.type != keys.ERROR, "known to be lost")
            extent = decode(key, self._pool)
            raw = self._stored(extent, where)
            if extent.compression_slot:
                self.seen["compressed"] += 1
                raw = codecs.decompress(self._pool.compression(extent.compression_slot), raw, extent.raw_sectors * SECTOR)
        except Damaged as e:
            self._pool.problems.add("lost", where, e)
            raise
        return raw[extent.live_offset * SECTOR:(extent.live_offset + key.size) * SECTOR]

    def _stored(self, extent, where):
        """What is stored, each block of a checksum from any copy that is good there; all copies are read."""
        good, problems = {}, self._pool.problems
        for p in extent.ptrs:
            here = "%s: member %d, sector %d" % (where, p.dev, p.sector)
            if p.dev not in self._pool.devices:
                problems.add("missing copy", here, "member missing")
                continue
            stored = self._pool.devices[p.dev].read(p.sector * SECTOR, extent.stored_sectors * SECTOR)
            for i in range(0, len(stored), extent.csum_block):
                block = stored[i:i + extent.csum_block]
                if extent.csum_slot and self._pool.digest(extent.csum_slot)(block) != extent.csums[i // extent.csum_block]:
                    problems.add("damaged copy", here, "checksum of the block at byte %d" % i)
                elif good.setdefault(i, block) != block:
                    problems.add("wrong", here, "copies differ")
        wanted = range(0, extent.stored_sectors * SECTOR, extent.csum_block)
        want(all(i in good for i in wanted), "no copy can be read")
        return b"".join(good[i] for i in wanted)


def _begin(source):
    return source.offset if isinstance(source, journal.Data) else (source.pos[1] - source.size) * SECTOR


def _without(parts, begin, end):
    """@parts less a range: what sticks out on either side stays."""
    rest = []
    for b, e, source in parts:
        if e <= begin or b >= end:
            rest.append((b, e, source))
            continue
        if b < begin:
            rest.append((b, begin, source))
        if e > end:
            rest.append((end, e, source))
    return rest


def _zeros(nr_bytes):
    while nr_bytes > 0:
        piece = min(nr_bytes, PIECE_BYTES)
        yield bytes(piece)
        nr_bytes -= piece

# SPDX-License-Identifier: LGPL-2.1-or-later
"""One key, as it stands in bsets and in the journal."""
import struct
from collections import namedtuple

from . import sections
from .fields import take, want, want_zero

DELETED, BTREE_PTR, EXTENT, INLINE_DATA, RESERVATION, INODE, DIRENT, XATTR, ALLOC, FREE_RANGE, SET, BACKPOINTER, COUNTERS, ERROR = range(14)
EXTENTS, INODES, DIRENTS, XATTRS, ALLOCS, FREESPACE, NEED_DISCARD, BACKPOINTERS = range(8)
DELETED_INODES, ACCOUNTING = 15, 16

HEADER = struct.Struct("<QQIIIBB2s")
POS_MIN = (0, 0, 0)
POS_MAX = (2**64 - 1, 2**64 - 1, 2**32 - 1)

Key = namedtuple("Key", "pos size type version value")
Child = namedtuple("Child", "node_seq sectors_written ptrs min max")


def successor(pos):
    inode, offset, snapshot = pos
    if snapshot < POS_MAX[2]:
        return inode, offset, snapshot + 1
    return (inode, offset + 1, 0) if offset < POS_MAX[1] else (inode + 1, 0, 0)


def decode(data, at, btree_node_size):
    """Returns the key and where the next one begins."""
    want(at + HEADER.size <= len(data), "a key is cut short")
    inode, offset, snapshot, size, val_bytes, kind, version, zero = HEADER.unpack_from(data, at)
    begin = at + HEADER.size
    end = begin + val_bytes
    after = end + -val_bytes % 8
    want(zero == b"\0\0" and kind <= ERROR, "a key's type or reserve")
    want(val_bytes <= 65535 and after - at <= btree_node_size * 3 // 4 - 144 and after <= len(data), "a key of %d bytes", after - at)
    want(not any(data[end:after]), "a key's filling is not zero")
    if kind == DELETED:
        want(val_bytes == 0 and size == 0, "a deleted key has a value or size")
    if kind not in (EXTENT, INLINE_DATA, RESERVATION, ERROR, FREE_RANGE):
        want(size == 0, "a key of type %d has a size", kind)
    else:
        want(0 < size <= offset, "a range of %d that ends at %d", size, offset)
    want(version == 0, "a value's version %d", version)
    return Key((inode, offset, snapshot), size, kind, version, bytes(data[begin:end])), after


def child(key, sb):
    """The value of a BTREE_PTR."""
    node_seq, sectors, nr_ptrs, zero, inode, offset, snapshot, zero2 = take("QIB3sQQII", key.value)
    want_zero(zero, "a child's reserve")
    want(1 <= nr_ptrs <= sections.COPIES_MAX and zero2 == 0 and len(key.value) == 40 + 16 * nr_ptrs, "a child's pointers")
    sections.want_sectors_written(sectors, sb.options)
    ptrs = []
    for i in range(nr_ptrs):
        sector, gen, dev, zero = take("QIB3s", key.value, 40 + 16 * i)
        want_zero(zero, "a pointer's reserve")
        ptrs.append(sections.Ptr(sector, gen, dev))
    sections.want_node_ptrs(ptrs, sb)
    least = (inode, offset, snapshot)
    want(least <= key.pos, "a child's range")
    return Child(node_seq, sectors, tuple(ptrs), least, key.pos)

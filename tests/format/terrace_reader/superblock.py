# SPDX-License-Identifier: LGPL-2.1-or-later
"""One copy of the superblock: its header, and which copy of a device's counts. (Sections: sections.py.)"""
import uuid as uuidlib

from . import sections
from .codecs import crc32c
from .fields import Damaged, Unsupported, take, want, want_zero

MAGIC = bytes.fromhex("8a54657272616365" "66730d0a1a0a0000")
HEADER_BYTES, BYTES_MAX = 256, 65536
COPY_OFFSETS = (8 << 10, 128 << 10)
FLAG_CLEAN, FLAG_INITIALIZED = 1, 2


class Superblock:
    """What a valid copy says. Attributes as the fields of section 3 are called."""


def tail_offset(member_bytes):
    """Where copy 2 lies."""
    return (member_bytes - BYTES_MAX) // 4096 * 4096


def decode(data, offset):
    """@data: up to 64 KiB read at @offset. Raises Damaged, or Unsupported when this reader must not open the device."""
    sb = Superblock()
    want(data[:16] == MAGIC, "no superblock")
    (nr_bytes,) = take("I", data, 0x10)
    want(nr_bytes % 8 == 0 and HEADER_BYTES <= nr_bytes <= BYTES_MAX and nr_bytes <= len(data), "superblock of %d bytes", nr_bytes)
    data = data[:nr_bytes]
    (crc,) = take("I", data, 0x14)
    want(crc == crc32c(data[:0x14] + bytes(4) + data[0x18:]), "superblock's checksum")
    (sb.version_major, sb.version_minor, sb.dev_idx, sb.devs_nr, flags, zero, copy_offset, sb.seq, incompat, sb.features_compat,
     sb.created_ns) = take("HHBBBBQQQQQ", data, 0x18)
    want(copy_offset == offset, "a superblock's copy of %d lies at %d", copy_offset, offset)
    if sb.version_major != 1:
        raise Unsupported("format version %d.%d" % (sb.version_major, sb.version_minor))
    if incompat:
        raise Unsupported("features %#x" % incompat)

    want(flags & ~(FLAG_CLEAN | FLAG_INITIALIZED) == 0 and zero == 0, "superblock's flags")
    want_zero(data[0x98:0x100], "superblock's reserve")
    want(sb.seq >= 1, "superblock's seq is 0")
    sb.clean, sb.initialized = bool(flags & FLAG_CLEAN), bool(flags & FLAG_INITIALIZED)
    sb.uuid = uuidlib.UUID(bytes=data[0x48:0x58])
    want(sb.uuid.int != 0, "the pool's uuid is 0")
    sb.user_uuid = uuidlib.UUID(bytes=data[0x58:0x68])
    sb.hash_key = data[0x68:0x78]
    sb.label = sections.label(data[0x78:0x98])
    sections.decode_all(sb, data[HEADER_BYTES:])
    want(len(sb.members) == sb.devs_nr, "devs_nr is %d, there are %d records", sb.devs_nr, len(sb.members))
    want(sb.dev_idx in sb.members, "the copy's own member has no record")
    return sb


def read_device(read, device_bytes, problem):
    """
    The superblock of one device.

    @read(offset, nr_bytes): its bytes, fewer at its end. @problem(text): called for each damaged copy.
    """
    copies, unsupported, seen = [], None, set()

    def look(offset):
        nonlocal unsupported
        if offset in seen or offset < 0:
            return
        seen.add(offset)
        try:
            copies.append(decode(read(offset, BYTES_MAX), offset))
        except Unsupported as e:
            unsupported = e
        except Damaged as e:
            problem("the superblock's copy at %d: %s" % (offset, e))

    for offset in COPY_OFFSETS:
        look(offset)
    # The place of copy 2 follows from the member's record; from the device's size only when there is nothing else.
    if copies:
        best = _best(copies)
        look(tail_offset(best.members[best.dev_idx].bytes))
    else:
        look(tail_offset(device_bytes))
    if unsupported:
        raise unsupported
    if not copies:
        raise Damaged("no valid superblock")
    return _best(copies)


def _best(copies):
    newest_pool = max(copies, key=lambda sb: sb.created_ns)
    return max((sb for sb in copies if sb.uuid == newest_pool.uuid), key=lambda sb: sb.seq)

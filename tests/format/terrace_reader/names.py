# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values of inodes, directory entries and extended attributes."""
import stat
from collections import namedtuple

from .codecs import siphash_2_4
from .fields import take, want, want_zero

ROOT_INUM, FIRST_INUM, INUM_MAX = 1, 4096, 2**40 - 1
FLAG_HAS_XATTRS, FLAG_TMPFILE = 1 << 24, 1 << 25
FLAGS_KNOWN = 0x08 | 0x10 | 0x20 | 0x40 | 0x80 | FLAG_HAS_XATTRS | FLAG_TMPFILE
HASH_BITS, SLOTS_NR = 58, 16
XATTR_PREFIXES = {1: b"user.", 2: b"trusted.", 3: b"security.", 4: b"system."}
NAME_BYTES_MAX = 255

Inode = namedtuple("Inode", "mode uid gid nlink rdev flags size sectors atime mtime ctime btime parent_inum parent_offset")
Dirent = namedtuple("Dirent", "inum type slot name offset")


def inode(value):
    want(len(value) == 128, "an inode of %d bytes", len(value))
    mode, uid, gid, nlink, rdev, generation, flags, project = take("8I", value)
    size, sectors, atime, mtime, ctime, btime, parent, parent_offset = take("QQqqqqQQ", value, 0x20)
    want_zero(value[0x60:], "an inode's reserve")
    want(generation == 0 and project == 0 and flags & ~FLAGS_KNOWN == 0, "an inode's flags, generation or project")
    want(stat.S_IFMT(mode) in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFBLK, stat.S_IFREG, stat.S_IFLNK, stat.S_IFSOCK)
         and mode < 0x10000, "an inode's mode %o", mode)
    want(rdev == 0 or stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device number without a device")
    want(size < 2**63, "an inode's size")
    want(size == 0 or stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode), "size of what has none")
    want(sectors == 0 or stat.S_ISREG(mode), "sectors of what has none")
    return Inode(mode, uid, gid, nlink, rdev, flags, size, sectors, atime, mtime, ctime, btime, parent, parent_offset)


def device_numbers(rdev):
    """The kernel's new_encode_dev(), undone: major, minor."""
    return (rdev & 0xfff00) >> 8, rdev & 0xff | (rdev >> 12) & 0xfff00


def name_hash(hash_key, name):
    return siphash_2_4(hash_key, name)


def dirents(key, hash_key):
    """All entries of one key."""
    want(key.size == 0 and key.value, "an empty value in DIRENTS")
    at, entries = 0, []
    while at < len(key.value):
        inum, kind, slot, name_bytes, zero = take("QBBBB", key.value, at)
        at += 12
        name = key.value[at:at + name_bytes]
        at += name_bytes
        want(zero == 0 and 1 <= name_bytes == len(name) and slot < SLOTS_NR, "a directory entry")
        want(b"/" not in name and b"\0" not in name and name not in (b".", b".."), "the name %r", name)
        want(1 <= inum <= INUM_MAX and (not entries or slot > entries[-1].slot), "a directory entry's inode or slot")
        want(name not in [e.name for e in entries], "a name twice")
        want((name_hash(hash_key, name) % (1 << HASH_BITS)) << 4 == key.pos[1], "the hash of %r", name)
        entries.append(Dirent(inum, kind, slot, name, key.pos[1]))
    return entries


def xattrs(key, hash_key, btree_node_size):
    """name -> value of one key."""
    want(0 < len(key.value) <= btree_node_size // 4, "a value in XATTRS of %d bytes", len(key.value))
    at, attributes = 0, {}
    while at < len(key.value):
        ns, name_bytes, zero, value_bytes = take("BB2sI", key.value, at)
        at += 8
        want(ns in XATTR_PREFIXES and name_bytes >= 1 and zero == b"\0\0", "an extended attribute")
        want(at + name_bytes + value_bytes <= len(key.value), "an extended attribute is cut short")
        name = XATTR_PREFIXES[ns] + key.value[at:at + name_bytes]
        want(len(name) <= NAME_BYTES_MAX and name not in attributes, "an extended attribute's name")
        want(name_hash(hash_key, name) == key.pos[1], "the hash of %r", name)
        at += name_bytes
        attributes[name] = key.value[at:at + value_bytes]
        at += value_bytes
    return attributes

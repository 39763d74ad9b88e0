# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of files: what a pool holds, as a manifest."""
import hashlib
import os
import stat
from collections import Counter, defaultdict

from . import extents, keys, names
from .fields import Damaged, want
from .names import ROOT_INUM

TYPES = {stat.S_IFIFO: "fifo", stat.S_IFCHR: "char", stat.S_IFDIR: "dir", stat.S_IFBLK: "block", stat.S_IFREG: "file", stat.S_IFLNK: "symlink",
         stat.S_IFSOCK: "socket"}
SNAPSHOT = 2**32 - 1
BTREES = (keys.EXTENTS, keys.INODES, keys.DIRENTS, keys.XATTRS, keys.DELETED_INODES)


class Tree:
    """
    Inodes, names and contents of a pool.

    btrees  by id, at least BTREES
    """

    def __init__(self, pool, replay, btrees):
        self._pool, self._problems = pool, pool.problems
        self.btrees = btrees
        self.reader = extents.Reader(pool, replay, self.btrees[keys.EXTENTS].keys)
        self.inodes = {}
        for key, inode in self._decoded(keys.INODES, keys.INODE, lambda k: names.inode(k.value)):
            self.inodes[key.pos[0]] = inode
        self._dirents = defaultdict(list)
        for key, entries in self._decoded(keys.DIRENTS, keys.DIRENT, lambda k: names.dirents(k, pool.sb.hash_key)):
            self._dirents[key.pos[0]] += entries
        self._xattrs = defaultdict(dict)
        for key, found in self._decoded(keys.XATTRS, keys.XATTR, lambda k: names.xattrs(k, pool.sb.hash_key, pool.option("btree_node_size"))):
            self._xattrs[key.pos[0]].update(found)
        self._deleted = {k.pos[0] for k, _ in self._decoded(keys.DELETED_INODES, keys.SET, lambda k: want(not k.value, "a set's value"))}

    def _decoded(self, btree, kind, decode):
        for key in self.btrees[btree].keys:
            try:
                want(key.type == kind and key.pos[2] == SNAPSHOT, "a key of type %d", key.type)
                want(1 <= key.pos[0] <= names.INUM_MAX, "an inode's number")
                want(btree not in (keys.INODES, keys.DELETED_INODES) or key.pos[1] == 0, "an inode's position")
                yield key, decode(key)
            except Damaged as e:
                self._problems.add("wrong", "btree %d, key %s" % (btree, key.pos), e)

    def manifest(self):
        """One dict a path, sorted by path."""
        paths, links, digests = {}, Counter(), {}
        self._walk(ROOT_INUM, b"", paths)
        for inum in paths.values():
            links[inum] += 1
        lines = [self._line(path, inum, digests) for path, inum in [(b".", ROOT_INUM), *paths.items()]]
        self._check_links(links)
        return sorted(lines, key=lambda line: line["path"])

    def _walk(self, top, top_path, paths):
        """Every name once. Depth is bounded by the number of directories: one that is met twice is not entered."""
        entered, todo = {top}, [(top, top_path)]
        while todo:
            directory, path = todo.pop()
            for e in self._dirents.get(directory, []):
                here = path + b"/" + e.name if path else e.name
                paths[here] = e.inum
                inode = self.inodes.get(e.inum)
                if inode is None or stat.S_IFMT(inode.mode) >> 12 != e.type:
                    self._problems.add("wrong", os.fsdecode(here), "names inode %d, which is %s" % (e.inum, "not there" if not inode else "another type"))
                elif stat.S_ISDIR(inode.mode):
                    if e.inum in entered:
                        self._problems.add("wrong", os.fsdecode(here), "a directory with two names")
                        continue
                    if (inode.parent_inum, inode.parent_offset) != (directory, e.offset):
                        self._problems.add("wrong", os.fsdecode(here), "its parent is not where its name is")
                    entered.add(e.inum)
                    todo.append((e.inum, here))

    def _line(self, path, inum, digests):
        inode, line = self.inodes.get(inum), {"path": os.fsdecode(path), "inode": inum}
        if inode is None:
            return line
        kind = stat.S_IFMT(inode.mode)
        line.update(type=TYPES[kind], mode=stat.S_IMODE(inode.mode), uid=inode.uid, gid=inode.gid, nlink=inode.nlink, mtime=inode.mtime,
                    ctime=inode.ctime, xattrs={os.fsdecode(n): v.hex() for n, v in sorted(self._xattrs.get(inum, {}).items())})
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            line["device"] = list(names.device_numbers(inode.rdev))
        if kind == stat.S_IFLNK:
            line["target"] = self._target(inum, inode, line["path"])
        if kind == stat.S_IFREG:
            line.update(size=inode.size, sectors=inode.sectors)
            if inum not in digests:
                digests[inum] = self._digest(inum, inode, line["path"])
            line["sha256"] = digests[inum]
        return line

    def _digest(self, inum, inode, path):
        """None when a part of the contents is lost."""
        sha = hashlib.sha256()
        try:
            for piece in self.reader.contents(inum, inode.size):
                sha.update(piece)
        except Damaged as e:
            self._problems.add("lost", path, e)
            return None
        if self.reader.sectors(inum) != inode.sectors:
            self._problems.add("wrong", path, "its keys are %d sectors, its inode says %d" % (self.reader.sectors(inum), inode.sectors))
        return sha.hexdigest()

    def _target(self, inum, inode, path):
        found = self.reader.keys_of(inum)
        block = self._pool.option("block_size")
        try:
            want(len(found) == 1 and found[0].type == keys.INLINE_DATA, "a symbolic link without a target")
            target = found[0].value
            want(1 <= len(target) == inode.size <= 4095 and b"\0" not in target, "a symbolic link's target")
            want(found[0].size == found[0].pos[1] == -(-inode.size // block) * block // 512, "the place of a symbolic link's target")
        except Damaged as e:
            self._problems.add("wrong", path, e)
            return None
        return os.fsdecode(target)

    def _check_links(self, links):
        """Inodes against the names that were found, and against DELETED_INODES."""
        subdirectories = Counter(i.parent_inum for n, i in self.inodes.items() if stat.S_ISDIR(i.mode) and n != ROOT_INUM and i.nlink)
        for inum, inode in self.inodes.items():
            where, is_dir = "inode %d" % inum, stat.S_ISDIR(inode.mode)
            entries = self._dirents.get(inum, [])
            if is_dir:
                named = inum == ROOT_INUM or links[inum] == 1
                expected = 2 + subdirectories[inum] if named else 0
            else:
                expected = links[inum]
            if inode.nlink != expected:
                self._problems.add("wrong", where, "nlink is %d, not %d" % (inode.nlink, expected))
            if is_dir and inode.size != len(entries):
                self._problems.add("wrong", where, "a directory of size %d has %d entries" % (inode.size, len(entries)))
            if not inode.nlink and inum not in self._deleted:
                self._problems.add("wrong", where, "unlinked, and not in DELETED_INODES")
            if inode.nlink and inum in self._deleted and not stat.S_ISREG(inode.mode):
                self._problems.add("wrong", where, "linked, and in DELETED_INODES")
            if inum in self._xattrs and not inode.flags & names.FLAG_HAS_XATTRS:
                self._problems.add("wrong", where, "has extended attributes, but not their flag")
        for inum in (set(self._dirents) | set(self._xattrs) | set(self._deleted)) - set(self.inodes):
            self._problems.add("wrong", "inode %d" % inum, "has entries, attributes or a deletion, but is not there")

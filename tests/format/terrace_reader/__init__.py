# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second implementation of Terrace's format, for reading only, written from core/FORMAT.md.

It shares no code with the engine and is made to be compared with it: it checks every relation that FORMAT.md states, reads every copy, and
says what it finds wrong instead of repairing it. Layers, each knowing those above it only:

    fields      bytes and their ranges; the two exceptions
    codecs      checksums, compressions, SipHash
    superblock  one copy of the superblock and its sections
    pool        the members together: which superblock is the truth, reading from members, the list of problems
    keys        one key
    journal     after a crash: what the journal adds to the btrees
    btree       all keys of one btree
    extents     contents of one file
    names       values of inodes, directory entries and extended attributes
    files       the tree of files: the manifest
    alloc       buckets, back references and counters against what refers to them
"""
from collections import namedtuple

from . import alloc, codecs, files, journal
from .btree import Btree
from .pool import Pool

Result = namedtuple("Result", "manifest problems pool replay btrees tree")


def read_pool(paths):
    """Reads everything on these members. Raises Damaged or Unsupported when the pool cannot be opened at all."""
    codecs.selftest()
    pool = Pool(paths)
    replay = journal.load(pool)
    idents = set(replay.roots) | {btree for btree, _ in replay.keys} | set(files.BTREES)
    btrees = {b: Btree(pool, replay, b) for b in sorted(idents)}
    tree = files.Tree(pool, replay, btrees)
    manifest = tree.manifest()
    alloc.Space(pool, btrees).check()
    return Result(manifest, pool.problems, pool, replay, btrees, tree)

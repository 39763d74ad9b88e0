#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the engine writes, read by the second implementation: of several layouts, clean and after kill -9, with members missing and damaged."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../integration/mount")]

import terrace_reader
from format_images import Images, expect
from rig import Pool, check, main, need_fuse, seed
from terrace_reader import extents, keys
from terrace_reader.fields import SECTOR
from workload import Workload, differences, mount_manifest


def member_left_out(images, manifest, what):
    missed = 0
    for i in range(len(images.paths)):
        result = images.read(without=i)
        expect(manifest, result, "%s, member %d left out" % (what, i))
        missed += result.problems.missing_copies_nr
    check(missed > 0, "%s: no member had a copy of anything" % what)


def first_extent(result):
    """A key with a whole extent of two copies, and its value."""
    for key in result.btrees[keys.EXTENTS].keys:
        if key.type == keys.EXTENT:
            return key, extents.decode(key, result.pool)
    raise AssertionError("the pool has no extent")


def damaged_copies(images, manifest, what):
    """One byte of a copy: of an extent, a leaf, an inner node or root, a superblock. Said, and read from the other copy."""
    whole = images.read()
    places = []
    key, extent = first_extent(whole)
    places.append(("inode %d" % key.pos[0], extent.ptrs[0], extent.stored_sectors * SECTOR // 3))
    for node in (whole.btrees[keys.INODES].nodes[-1], whole.btrees[keys.INODES].nodes[0], whole.btrees[keys.EXTENTS].nodes[-1]):
        places.append(("btree %d" % node.btree, node.child.ptrs[-1], 200))
    for where, ptr, into in places:
        images.flip(ptr.dev, ptr.sector * SECTOR + into)
        result = images.read()
        expect(manifest, result, "%s, damaged" % what, allowed=("damaged copy",))
        said = [p["where"] for p in result.problems.of("damaged copy")]
        check(said and all("%s," % where in s and "member %d, sector %d" % (ptr.dev, ptr.sector) in s for s in said),
              "%s: damage of %s on member %d, sector %d is told as %s" % (what, where, ptr.dev, ptr.sector, said))
        images.flip(ptr.dev, ptr.sector * SECTOR + into)
    images.flip(0, (8 << 10) + 0x50)
    result = images.read()
    expect(manifest, result, "%s, superblock damaged" % what, allowed=("damaged copy",))
    check(len(result.problems.list) == 1, "%s: damage of a superblock is told as %s" % (what, result.problems.list))
    images.flip(0, (8 << 10) + 0x50)


def all_copies_damaged(images, what):
    """The reader does not call good what is not: no copy left means lost, and only what lay there."""
    whole = images.read()
    key, extent = first_extent(whole)
    for ptr in extent.ptrs:
        images.flip(ptr.dev, ptr.sector * SECTOR)
    result = images.read()
    lost = [l["inode"] for l in result.manifest if l.get("sha256", "") is None]
    check(set(lost) == {key.pos[0]}, "%s: inode %d should be lost, not %s" % (what, key.pos[0], lost))
    for ptr in extent.ptrs:
        images.flip(ptr.dev, ptr.sector * SECTOR)


def layout(what, members, mib, options, scale, has, depth=1, checksums=True):
    """
    Fill, stop, read; fill more, kill, read.

    @has:   kinds of pieces that file data must have been met in (Reader.seen)
    @depth: levels that the btree of inodes must reach
    """
    rnd = seed()
    pool = Pool(members=members, mib=mib, options=options)
    try:
        pool.format()
        fresh = terrace_reader.read_pool(pool.members)
        check([l["path"] for l in fresh.manifest] == ["."] and not fresh.problems.list, "%s: formatted, it holds %s" % (what, fresh.manifest))
        pool.start()
        work = Workload(pool.mnt, rnd, scale)
        work.fill()
        manifest = mount_manifest(pool.mnt)
        pool.stop()
        clean = Images(pool, "clean")
        result = clean.read()
        check(result.pool.sb.clean, "%s: stopped, and not clean" % what)
        expect(manifest, result, "%s, clean" % what)
        missing = set(has) - set(result.tree.reader.seen)
        check(not missing, "%s: no data of kind %s" % (what, missing))
        check(result.btrees[keys.INODES].depth >= depth, "%s: the btree of inodes has %d levels" % (what, result.btrees[keys.INODES].depth))

        pool.start()
        wrong = differences(result.manifest, mount_manifest(pool.mnt, with_sectors=True))
        check(not wrong, "%s: started again the engine has %s" % (what, wrong[:5]))
        work.change()
        work.sync()
        work.small_writes()
        manifest = mount_manifest(pool.mnt)
        pool.kill()
        work.close()
        killed = Images(pool, "killed")
        result = killed.read()
        check(not result.pool.sb.clean and result.replay.keys, "%s: killed, and nothing to replay" % what)
        check(result.tree.reader.seen["journal"], "%s: no data in the journal" % what)
        expect(manifest, result, "%s, killed" % what)

        if members > 1:
            for images, state in ((clean, "clean"), (killed, "killed")):
                if images is clean:
                    manifest_of = images.read().manifest
                else:
                    manifest_of = manifest
                member_left_out(images, manifest_of, "%s, %s" % (what, state))
                damaged_copies(images, manifest_of, "%s, %s" % (what, state))
        if checksums:
            all_copies_damaged(clean, what)
        # The engine replays the same.
        pool.start()
        wrong = differences(manifest, mount_manifest(pool.mnt))
        check(not wrong, "%s: after replay the engine has %s" % (what, wrong[:5]))
        pool.stop()
        expect(manifest, terrace_reader.read_pool(pool.members), "%s, clean again" % what)
    finally:
        pool.close()


PLAIN = (keys.EXTENT, keys.INLINE_DATA, keys.RESERVATION)


def one_member():
    layout("one member", 1, 256, ["--checksum=none"], 1, PLAIN, checksums=False)


def two_replicas_zstd():
    layout("two replicas, zstd", 2, 256, ["--replicas=2", "--compression=zstd"], 0.5, PLAIN + ("compressed",))


def three_members_lz4_xxh3():
    layout("three members, lz4, xxh3-64", 3, [128, 200, 333],
           ["--replicas=2", "--compression=lz4", "--checksum=xxh3-64", "--btree-node-size=16384"], 0.5, PLAIN + ("compressed",), depth=2)


def small_buckets():
    layout("64 KiB buckets", 1, 128, ["--bucket-size=65536", "--btree-node-size=16384", "--block-size=512"], 1.5, PLAIN, depth=2)


if __name__ == "__main__":
    need_fuse()
    main(one_member, two_replicas_zstd, three_members_lz4_xxh3, small_buckets)

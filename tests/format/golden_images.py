# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Golden images: pools as this format's version wrote them once, with what they hold.

golden/NAME/member0.img.xz …   the members, compressed with xz
golden/NAME/manifest.jsonl.xz  what terrace_reader printed of them, and the mount agreed with

`golden_images.py NAME…` makes them anew (all without a name): only for a new version of the format; the old ones stay as long as they are to be read.
"""
import json
import lzma
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../integration/mount")]

from format_images import Images, expect
from rig import Pool, check
from workload import Workload, mount_manifest

GOLDEN = os.path.join(HERE, "golden")
LAYOUTS = {  # name: (members, MiB, options, killed)
    "plain": (1, 32, ["--checksum=none", "--bucket-size=65536", "--btree-node-size=65536"], False),
    "zstd-2": (2, 32, ["--replicas=2", "--compression=zstd", "--bucket-size=65536", "--btree-node-size=16384", "--block-size=512"], False),
    "lz4-xxh3-3-killed": (3, [32, 40, 52], ["--replicas=2", "--compression=lz4", "--checksum=xxh3-64", "--bucket-size=65536",
                                            "--btree-node-size=16384"], True),
}


class GoldenWorkload(Workload):
    """The same, of bytes that compress well: the images are to be small."""

    def bytes(self, nr_bytes):
        word = self.rnd.randbytes(4) + b"terrace" * self.rnd.randrange(1, 9)
        return (word * (nr_bytes // len(word) + 1))[:nr_bytes]


def make(name):
    members, mib, options, killed = LAYOUTS[name]
    pool = Pool(members=members, mib=mib, options=options)
    try:
        pool.format()
        pool.start()
        work = GoldenWorkload(pool.mnt, random.Random(name), scale=0.25)
        work.fill()
        if killed:
            work.change()
            work.sync()
            work.small_writes()
        manifest = mount_manifest(pool.mnt)
        if killed:
            pool.kill()
        else:
            pool.stop()
        work.close()
        images = Images(pool, "golden")
        result = images.read()
        expect(manifest, result, name)
        check(bool(result.tree.reader.seen["journal"]) == killed, "%s: data in the journal" % name)
        save(name, images.paths, result.manifest)
    finally:
        pool.close()


def save(name, paths, manifest):
    where = os.path.join(GOLDEN, name)
    os.makedirs(where, exist_ok=True)
    for i, path in enumerate(paths):
        with open(path, "rb") as f, lzma.open(os.path.join(where, "member%d.img.xz" % i), "wb", preset=9 | lzma.PRESET_EXTREME) as out:
            out.write(f.read())
    with lzma.open(os.path.join(where, "manifest.jsonl.xz"), "wt", encoding="ascii") as out:
        out.writelines(json.dumps(line, sort_keys=True) + "\n" for line in manifest)


def names():
    return sorted(os.listdir(GOLDEN))


def manifest_of(name):
    with lzma.open(os.path.join(GOLDEN, name, "manifest.jsonl.xz"), "rt", encoding="ascii") as f:
        return [json.loads(line) for line in f]


def unpack(name, where):
    """The members as sparse files below @where, in the order of their slots."""
    paths = []
    for packed in sorted(n for n in os.listdir(os.path.join(GOLDEN, name)) if n.startswith("member")):
        path = os.path.join(where, packed[:-len(".img.xz")])
        with lzma.open(os.path.join(GOLDEN, name, packed)) as f, open(path, "wb") as out:
            for piece in iter(lambda: f.read(1 << 16), b""):
                if any(piece):
                    out.write(piece)
                else:
                    out.seek(len(piece), os.SEEK_CUR)
            out.truncate(out.tell())
        paths.append(path)
    return paths


if __name__ == "__main__":
    for golden in sys.argv[1:] or LAYOUTS:
        make(golden)

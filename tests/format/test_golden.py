#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools that an earlier build wrote: the second implementation and the engine of today read in them what was written then."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../integration/mount")]

import golden_images
import terrace_reader
from format_images import expect
from rig import Pool, check, main, need_fuse
from workload import differences, mount_manifest


def read_by_the_reader(name, paths, manifest):
    """As a program: what it prints is what stands in the manifest."""
    r = subprocess.run([sys.executable, "-m", "terrace_reader", *paths], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check(r.returncode == 0 and not r.stderr, "%s: exit %d\n%s" % (name, r.returncode, r.stderr[:2000]))
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    check(lines == manifest, "%s: the reader differs: %s" % (name, (differences(manifest, lines) + differences(lines, manifest))[:5]))


def read_by_the_engine(name, pool, manifest):
    pool.start()
    found = mount_manifest(pool.mnt)
    # Of these the mount says something else, or nothing: sectors while data waits in the journal.
    wrong = differences([{k: v for k, v in line.items() if k != "sectors"} for line in manifest], found)
    check(not wrong and len(found) == len(manifest), "%s: the engine differs: %s" % (name, wrong[:5]))
    with open(os.path.join(pool.mnt, "new"), "wb") as f:
        f.write(b"written today")
    pool.stop()
    pool.fsck("after the engine of today wrote to %s" % name)


def golden(name):
    def test():
        pool = Pool(members=0)
        try:
            manifest = golden_images.manifest_of(name)
            pool.members = golden_images.unpack(name, pool.dir)
            result = terrace_reader.read_pool(pool.members)
            expect(manifest, result, name)
            check(result.pool.sb.clean != name.endswith("killed"), "%s: clean is %s" % (name, result.pool.sb.clean))
            read_by_the_reader(name, pool.members, manifest)
            read_by_the_engine(name, pool, manifest)
            check("new" in [l["path"] for l in terrace_reader.read_pool(pool.members).manifest], "%s: the new file is not there" % name)
        finally:
            pool.close()
    test.__name__ = name
    return test


if __name__ == "__main__":
    need_fuse()
    check(len(golden_images.names()) >= 3, "golden images are missing")
    main(*[golden(name) for name in golden_images.names()])

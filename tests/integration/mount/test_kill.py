#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 under load, again and again: whatever fsync covered is there after the next start, and fsck-like reading finds nothing odd."""
import os
import threading
import time

from rig import *

ROUNDS = int(os.environ.get("TERRACE_TEST_KILLS", "6"))
WRITERS = 4


class Writer(threading.Thread):
    """Creates, overwrites and renames files; notes what was synced and when."""

    def __init__(self, root, n, rnd):
        super().__init__(daemon=True)
        self.dir = os.path.join(root, "w%d" % n)
        self.rnd = rnd
        self.synced = {}    # name -> bytes that fsync covered
        self.touched = set()  # names changed since (either version may be there)

    def run(self):
        try:
            i = 0
            while True:
                i += 1
                name = "f%d" % self.rnd.randrange(40)
                path = os.path.join(self.dir, name)
                data = self.rnd.randbytes(self.rnd.choice([10, 1000, 4096, 50000, 200000]))
                self.touched.add(name)
                fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    os.write(fd, data)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(path + ".new", path)
                dirfd = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(dirfd)
                finally:
                    os.close(dirfd)
                self.synced[name] = data
                self.touched.discard(name)
        except OSError:
            pass  # the daemon was killed


def what_was_synced_survives_kills():
    rnd = seed()
    p = Pool(members=3, mib=512, options=["--replicas=2"])
    known = [dict() for _ in range(WRITERS)]
    try:
        p.format()
        p.start()
        for n in range(WRITERS):
            os.mkdir(os.path.join(p.mnt, "w%d" % n))
        os.sync()
        fd = os.open(p.mnt, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        for round_nr in range(ROUNDS):
            writers = [Writer(p.mnt, n, random.Random(rnd.random())) for n in range(WRITERS)]
            for w in writers:
                w.start()
            time.sleep(rnd.uniform(0.2, 2.5))
            p.kill()
            p.fsck("after kill %d" % round_nr)
            for w in writers:
                w.join(30)
            p.start()
            for n, w in enumerate(writers):
                known[n].update(w.synced)
                for name, data in known[n].items():
                    path = os.path.join(p.mnt, "w%d" % n, name)
                    if name in w.touched:
                        check(os.path.exists(path), "round %d: %s is gone" % (round_nr, path))
                        with open(path, "rb") as f:
                            known[n][name] = f.read()
                        continue
                    with open(path, "rb") as f:
                        got = f.read()
                    check(got == data, "round %d: %s has %d bytes, %d were synced%s" % (
                        round_nr, path, len(got), len(data), "" if len(got) != len(data) else ", contents differ"))
        total = sum(len(k) for k in known)
        check(total > 20, "the writers got only %d files done" % total)
        p.stop()
    finally:
        p.close()


if __name__ == "__main__":
    need_fuse()
    main(what_was_synced_survives_kills)

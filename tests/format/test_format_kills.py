#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 in the middle of work, again and again: the reader's replay and the engine's come to the same tree. Then a member that missed some of it."""
import os
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../integration/mount")]

import terrace_reader
from format_images import Images, expect
from rig import Pool, check, main, need_fuse, seed
from workload import differences, mount_manifest

BEHIND = ("damaged copy",)  # a copy that missed a bset says so; never does it pass for whole and differ
ROUNDS = int(os.environ.get("TERRACE_TEST_KILLS", "4"))


class Churn(threading.Thread):
    """Changes of all kinds, few of them synced, until the daemon is gone."""

    def __init__(self, root, name, rnd):
        super().__init__(daemon=True)
        self.root, self.rnd = os.path.join(root, name), rnd

    def run(self):
        try:
            while True:
                self._change()
        except OSError:
            pass  # the daemon was killed

    def _change(self):
        rnd = self.rnd
        directory = os.path.join(self.root, "d%d" % rnd.randrange(4))
        path = os.path.join(directory, "f%d" % rnd.randrange(150))
        other = os.path.join(directory, "f%d" % rnd.randrange(150))
        os.makedirs(directory, exist_ok=True)
        what = rnd.randrange(10)
        if what <= 4 or not os.path.exists(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.pwrite(fd, rnd.randbytes(rnd.choice([1, 300, 5000, 80000])), rnd.choice([0, 0, 4096, 1000, rnd.randrange(1 << 20)]))
                if rnd.random() < 0.1:
                    os.fsync(fd)
            finally:
                os.close(fd)
        elif what == 5:
            os.truncate(path, rnd.choice([0, 1, 4096, rnd.randrange(1 << 20)]))
        elif what == 6:
            os.unlink(path)
        elif what == 7:
            os.rename(path, other)
        elif what == 8:
            if not os.path.exists(other):
                os.link(path, other)
        else:
            os.setxattr(path, "user.x", rnd.randbytes(rnd.randrange(200)))


def churn_and_kill(pool, rnd, threads_nr, seconds):
    threads = [Churn(pool.mnt, "t%d" % i, rnd.__class__(rnd.random())) for i in range(threads_nr)]
    for t in threads:
        t.start()
    time.sleep(seconds)
    os.kill(pool.daemon.pid, signal.SIGKILL)
    for t in threads:  # before the mount goes: they would go on in the directory below it
        t.join(30)
        check(not t.is_alive(), "a change goes on although the daemon is gone")
    pool.kill()


def kill_and_compare(what, **kw):
    rnd = seed()
    pool = Pool(**kw)
    journaled = blacklists = 0
    try:
        pool.format()
        pool.start()
        for i in range(ROUNDS):
            churn_and_kill(pool, rnd, 3, rnd.uniform(0.05, 1.2))
            images = Images(pool, "round%d" % i)
            result = images.read()
            journaled += result.tree.reader.seen["journal"]
            blacklists += bool(result.pool.sb.blacklist)
            expect(result.manifest, result, "%s, kill %d" % (what, i))
            pool.start()
            wrong = differences(mount_manifest(pool.mnt), result.manifest)
            check(not wrong, "%s, kill %d: the reader finds something else than the engine: %s" % (what, i, wrong[:5]))
            images.remove()
        check(journaled, "%s: no data in the journal" % what)
        manifest = mount_manifest(pool.mnt)
        pool.stop()
        expect(manifest, terrace_reader.read_pool(pool.members), "%s, stopped" % what)
        print("%s: %d pieces of data in the journal, %d rounds with a blacklist" % (what, journaled, blacklists))
    finally:
        pool.close()


def two_members():
    kill_and_compare("two members", members=2, mib=256, options=["--replicas=2", "--compression=lz4"])


def small_nodes():
    kill_and_compare("small nodes", members=1, mib=128, options=["--bucket-size=65536", "--btree-node-size=16384"])


def member_that_was_away():
    """What it holds is older, and never newer than the truth."""
    rnd = seed()
    pool = Pool(members=3, mib=128, options=["--replicas=2", "--btree-node-size=16384"])
    try:
        pool.format()
        pool.start()
        churn_and_kill(pool, rnd, 2, 0.5)
        present = pool.members[:2]
        pool.start(members=present, extra=["--degraded=yes"])
        churn_and_kill(pool, rnd, 2, 0.5)
        images = Images(pool, "away")
        result = images.read()
        expect(result.manifest, result, "with the member that was away", allowed=BEHIND)
        expect(result.manifest, images.read(without=2), "without the member that was away")
        pool.start(members=present, extra=["--degraded=yes"])
        wrong = differences(mount_manifest(pool.mnt), result.manifest)
        check(not wrong, "the reader finds something else than the engine: %s" % wrong[:5])
        manifest = mount_manifest(pool.mnt)
        pool.stop()
        expect(manifest, terrace_reader.read_pool(pool.members), "stopped, with the member that was away", allowed=BEHIND)
    finally:
        pool.close()


if __name__ == "__main__":
    need_fuse()
    main(two_members, small_nodes, member_that_was_away)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of a pool's members for the reader, and what it is expected to find there."""
import os
import shutil

import terrace_reader
from rig import check, run
from workload import differences


def expect(manifest, result, what, allowed=()):
    """The reader found @manifest, and no problem but of the @allowed states."""
    wrong = differences(manifest, result.manifest)
    check(not wrong, "%s: %d differences, first %s" % (what, len(wrong), wrong[:5]))
    problems = [p for p in result.problems.list if p["problem"] not in allowed]
    check(not problems, "%s: %d problems, first %s" % (what, len(problems), problems[:5]))


class Images:
    """Sparse copies of a pool's members, to be damaged at will."""

    def __init__(self, pool, name):
        self.dir = os.path.join(pool.dir, name)
        os.mkdir(self.dir)
        self.paths = [os.path.join(self.dir, os.path.basename(m)) for m in pool.members]
        for a, b in zip(pool.members, self.paths):
            run("cp", "--sparse=always", a, b)

    def read(self, without=None):
        return terrace_reader.read_pool([p for i, p in enumerate(self.paths) if i != without])

    def flip(self, member, offset):
        with open(self.paths[member], "r+b") as f:
            f.seek(offset)
            byte = f.read(1)[0]
            f.seek(offset)
            f.write(bytes([byte ^ 0x10]))

    def remove(self):
        shutil.rmtree(self.dir)

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pool of many files is checked and repaired within a bound of memory: with caches and tables as small as the options allow, where inodes are done in turns."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_cli import *

PLANT = os.environ["PLANT_DAMAGE"]
FILES = int(os.environ.get("TERRACE_TEST_FILES", "50000"))
A_DIRECTORY = 500
MAKERS = 4
LIMITS = ["--memory-limit=%d" % (64 << 20), "--fsck-memory=%d" % (1 << 20)]  # the least
BOUND_MIB = 80


def make_files(mnt, maker):
    """A part of them: most are in the btree, some have blocks of their own."""
    for d in range(maker, FILES // A_DIRECTORY, MAKERS):
        path = os.path.join(mnt, "dir%d" % d)
        os.mkdir(path)
        fd = os.open(path, os.O_RDONLY)
        for i in range(A_DIRECTORY):
            f = os.open("file-number-%d" % i, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
            os.write(f, b"%d" % i * (1500 if i % 8 == 0 else 50))
            os.close(f)
        os.close(fd)


def make_all(mnt):
    makers = []
    for maker in range(MAKERS):
        pid = os.fork()
        if not pid:
            try:
                make_files(mnt, maker)
                os._exit(0)
            finally:
                os._exit(1)
        makers.append(pid)
    for pid in makers:
        check(os.waitpid(pid, 0)[1] == 0, "a file cannot be made")


def fsck(member, *args):
    """Exit code, what it says, and the most memory it had, in MiB."""
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen([TERRACED, "--once", "fsck", *LIMITS, *args, member], stdout=out, stderr=out)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return p.returncode, out.read().decode(), usage.ru_maxrss >> 10


def many_files_are_repaired_in_little_memory():
    pool = Pool(members=1, mib=4096, options=["--checksum=crc32c"])
    try:
        pool.format()
        pool.start()
        make_all(pool.mnt)
        pool.stop()
        member = os.path.realpath(pool.members[0])
        code, text, mib = fsck(member, "-n")
        check(code == 0 and mib <= BOUND_MIB, "checked in %d MiB: %s" % (mib, text))
        print("checked in %d MiB" % mib)
        for what in "entry", "space":
            run(PLANT, what, member)
        code, text, mib = fsck(member, "-n")
        check(code == 1 and mib <= BOUND_MIB, "found in %d MiB: %s" % (mib, text))
        code, text, mib = fsck(member, "-y")
        check(code == 0 and "lost+found" in text and mib <= BOUND_MIB, "repaired in %d MiB: %s" % (mib, text))
        print("repaired in %d MiB" % mib)
        code, text, mib = fsck(member, "-n")
        check(code == 0, text)
    finally:
        pool.close()


if __name__ == "__main__":
    need_fuse()
    main(many_files_are_repaired_in_little_memory)

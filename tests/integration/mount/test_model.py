#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Long random file operations against Terrace and a plain directory side by side: same answers, same trees; with remounts in between."""
import errno
import os
import tempfile

from rig import *

OPERATIONS = int(os.environ.get("TERRACE_TEST_OPS", "6000"))
REMOUNT_EVERY = 1500
NAMES = ["a", "b", "c", "d", "long-" + "n" * 100, "\u00fc"]
SIZE_MAX = 300000


def attempt(fn, *args, **kw):
    try:
        return ("ok", fn(*args, **kw))
    except OSError as e:
        return ("error", errno.errorcode.get(e.errno, e.errno))


class Side:
    """One of the two directories; every operation takes relative paths and returns something comparable."""

    def __init__(self, root):
        self.root = root

    def path(self, rel):
        return os.path.join(self.root, rel)

    def create(self, rel):
        os.close(os.open(self.path(rel), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def write(self, rel, offset, data, sync):
        fd = os.open(self.path(rel), os.O_WRONLY)
        try:
            os.pwrite(fd, data, offset)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def append(self, rel, data):
        fd = os.open(self.path(rel), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def read(self, rel, offset, size):
        fd = os.open(self.path(rel), os.O_RDONLY)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def truncate(self, rel, size):
        os.truncate(self.path(rel), size)

    def mkdir(self, rel):
        os.mkdir(self.path(rel))

    def rmdir(self, rel):
        os.rmdir(self.path(rel))

    def unlink(self, rel):
        os.unlink(self.path(rel))

    def rename(self, a, b):
        os.rename(self.path(a), self.path(b))

    def link(self, a, b):
        os.link(self.path(a), self.path(b), follow_symlinks=False)

    def symlink(self, target, rel):
        os.symlink(target, self.path(rel))

    def chmod(self, rel, mode):
        os.chmod(self.path(rel), mode)

    def setxattr(self, rel, name, value):
        os.setxattr(self.path(rel), name, value)

    def punch(self, rel, offset, size):
        fd = os.open(self.path(rel), os.O_WRONLY)
        try:
            import ctypes
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.fallocate(fd, 3, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")
        finally:
            os.close(fd)

    def listdir(self, rel):
        return sorted(os.listdir(self.path(rel)))

    def stat(self, rel):
        st = os.lstat(self.path(rel))
        return (st.st_mode, st.st_nlink, st.st_size if not os.path.isdir(self.path(rel)) else 0)


def random_path(rnd):
    return "/".join(rnd.choice(NAMES) for _ in range(rnd.choice([1, 1, 2, 2, 3])))


def random_operation(rnd):
    p, q = random_path(rnd), random_path(rnd)
    offset, size = rnd.randrange(SIZE_MAX), rnd.choice([1, 100, 4096, 5000, 70000, 131072])
    return rnd.choice([
        ("create", p), ("create", p), ("mkdir", p), ("mkdir", p),
        ("write", p, offset, rnd.randbytes(size), rnd.random() < 0.2), ("write", p, 0, rnd.randbytes(size), False),
        ("append", p, rnd.randbytes(rnd.randrange(1, 3000))), ("append", p, rnd.randbytes(10)),
        ("read", p, offset, size), ("read", p, 0, SIZE_MAX), ("truncate", p, offset), ("truncate", p, rnd.randrange(5000)),
        ("rmdir", p), ("unlink", p), ("rename", p, q), ("rename", p, q), ("link", p, q), ("symlink", q, p),
        ("chmod", p, rnd.randrange(0o1000) | 0o600), ("setxattr", p, "user." + rnd.choice(NAMES[:4]), rnd.randbytes(rnd.randrange(300))),
        ("punch", p, offset, size), ("listdir", os.path.dirname(p)), ("stat", p),
    ])


def random_operations_match_a_plain_directory():
    rnd = seed()
    with tempfile.TemporaryDirectory() as plain, pool(members=3, mib=512, options=["--replicas=2", "--compression=zstd:1"]) as p:
        a, b = Side(plain), Side(p.mnt)
        # user.* attributes are refused by some filesystems under $TMPDIR: leave them out then, rather than compare errors.
        try:
            os.setxattr(plain, "user.test", b"1")
            os.removexattr(plain, "user.test")
            xattrs = True
        except OSError:
            xattrs = False
        for n in range(OPERATIONS):
            op = random_operation(rnd)
            if op[0] == "setxattr" and not xattrs:
                continue
            ra, rb = attempt(getattr(a, op[0]), *op[1:]), attempt(getattr(b, op[0]), *op[1:])
            check(ra == rb, "operation %d, %s %r: %r on the plain directory, %r on Terrace" % (
                n, op[0], [x if not isinstance(x, bytes) or len(x) < 40 else len(x) for x in op[1:]],
                str(ra)[:200], str(rb)[:200]))
            if n % REMOUNT_EVERY == REMOUNT_EVERY - 1:
                compare(describe_tree(plain), describe_tree(p.mnt), "before remount at %d" % n)
                p.stop()
                p.fsck("at %d" % n)
                p.start()
                compare(describe_tree(plain), describe_tree(p.mnt), "after remount at %d" % n)


if __name__ == "__main__":
    need_fuse()
    main(random_operations_match_a_plain_directory)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A random tree of files with one of everything that the format can hold, and what a mount says of it in the reader's words."""
import ctypes
import hashlib
import os
import socket
import stat
import struct

from terrace_reader.files import TYPES
from terrace_reader.names import INUM_MAX  # above it st_ino holds the subvolume

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _fallocate(fd, mode, offset, nr_bytes):
    if _libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(nr_bytes)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


class Workload:
    """@scale: 1 makes about 700 files and 20 MiB."""

    def __init__(self, root, rnd, scale=1.0):
        self.root, self.rnd, self.scale = root, rnd, scale
        self.open_fds = []

    def path(self, *names):
        return os.path.join(self.root, *names)

    def bytes(self, nr_bytes):
        """Half of it compresses well."""
        if self.rnd.random() < 0.5:
            return self.rnd.randbytes(nr_bytes)
        word = self.rnd.randbytes(self.rnd.randrange(3, 200))
        return (word * (nr_bytes // len(word) + 1))[:nr_bytes]

    def write(self, path, data, offset=0):
        with open(path, "r+b" if os.path.exists(path) else "wb") as f:
            f.seek(offset)
            f.write(data)

    def fill(self):
        os.makedirs(self.path("wide"))
        os.makedirs(self.path("data"))
        os.makedirs(self.path("kinds"))
        self._wide_and_deep()
        self._contents()
        self._kinds()
        self._xattrs()

    def _wide_and_deep(self):
        rnd = self.rnd
        for i in range(int(500 * self.scale)):
            name = "%d-%s" % (i, "x\u00e9" * rnd.randrange(60) if rnd.random() < 0.3 else "n")
            self.write(self.path("wide", name), self.bytes(rnd.choice([0, 1, 100, 600])))
        here = self.path("deep")
        for i in range(30):
            os.mkdir(here)
            self.write(os.path.join(here, "f"), b"%d" % i)
            here = os.path.join(here, "d" * rnd.choice([1, 1, 100, 1]))
        for name in rnd.sample(os.listdir(self.path("wide")), int(100 * self.scale)):
            os.unlink(self.path("wide", name))

    def _contents(self):
        rnd, size_max = self.rnd, int((1 << 20) * max(self.scale, 0.1))
        for i in range(12):
            path = self.path("data", "whole%d" % i)
            self.write(path, self.bytes(rnd.randrange(1, 2 * size_max)))
            for _ in range(rnd.randrange(4)):
                self.write(path, self.bytes(rnd.randrange(1, 100000)), rnd.randrange(size_max))
            if rnd.random() < 0.3:
                os.truncate(path, rnd.randrange(size_max))
        for i in range(5):
            path = self.path("data", "sparse%d" % i)
            with open(path, "wb") as f:
                f.truncate(rnd.randrange(1, 64 << 20))
            for _ in range(rnd.randrange(5)):
                self.write(path, self.bytes(rnd.randrange(1, 20000)), rnd.randrange(48 << 20))
        fd = os.open(self.path("data", "holes"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(fd, self.bytes(600000), 0)
            os.fsync(fd)
            _fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 100001, 200000)
            _fallocate(fd, 0, 700000, 150000)
            os.pwrite(fd, self.bytes(10000), 750000)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _kinds(self):
        rnd = self.rnd
        self.write(self.path("kinds", "f"), self.bytes(5000))
        for i in range(5):
            os.link(self.path("kinds", "f"), self.path("wide" if i % 2 else "kinds", "link%d" % i))
        for i, target in enumerate(["f", "../wide", "t" * 4000, "x/" * 300, "\u00fc\u4e2d"]):
            os.symlink(target, self.path("kinds", "symlink%d" % i))
        os.mkfifo(self.path("kinds", "fifo"), 0o640)
        os.mknod(self.path("kinds", "char"), 0o600 | stat.S_IFCHR, os.makedev(5, 70000))
        os.mknod(self.path("kinds", "block"), 0o600 | stat.S_IFBLK, os.makedev(3000, 17))
        # By way of the directory: an address holds 107 bytes.
        with socket.socket(socket.AF_UNIX) as s:
            fd = os.open(self.path("kinds"), os.O_RDONLY)
            s.bind("/proc/self/fd/%d/socket" % fd)
            os.close(fd)
        for name in os.listdir(self.path("kinds")):
            if not name.startswith("symlink"):
                os.chmod(self.path("kinds", name), rnd.randrange(0o10000))
            os.chown(self.path("kinds", name), rnd.randrange(1 << 16), rnd.randrange(1 << 16), follow_symlinks=False)
            os.utime(self.path("kinds", name), ns=(1, rnd.choice([-5, 0, 1 << 60, 3])), follow_symlinks=False)
        os.rename(self.path("deep", "f"), self.path("kinds", "moved"))

    def _xattrs(self):
        rnd = self.rnd
        for i in range(20):
            path = self.path("kinds", "f") if i == 0 else self.path("data", "whole%d" % rnd.randrange(12))
            for _ in range(rnd.randrange(1, 4)):
                name = rnd.choice(["user.", "trusted.", "security."]) + "n" * rnd.randrange(1, 100)
                os.setxattr(path, name, self.bytes(rnd.choice([0, 1, 50, 2000])))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, ident) for tag, perm, ident in [
            (1, 7, 0xffffffff), (2, 4, 1234), (4, 5, 0xffffffff), (16, 7, 0xffffffff), (32, 1, 0xffffffff)])
        os.setxattr(self.path("data"), "system.posix_acl_access", acl)
        os.setxattr(self.path("data"), "system.posix_acl_default", acl)

    def change(self):
        """More of the same on top: btrees get further bsets, extents are cut, names and files go, one file is unlinked while it is open."""
        rnd = self.rnd
        wide = os.listdir(self.path("wide"))
        for name in rnd.sample(wide, len(wide) // 4):
            os.unlink(self.path("wide", name))
        for i in range(int(200 * self.scale)):
            self.write(self.path("wide", "again%d" % i), self.bytes(rnd.choice([1, 3000, 9000])))
        for i in range(12):
            path = self.path("data", "whole%d" % i)
            self.write(path, self.bytes(rnd.randrange(1, 30000)), rnd.randrange(1 << 20))
        os.rename(self.path("deep"), self.path("kinds", "deep"))
        os.unlink(self.path("kinds", "symlink1"))
        self.write(self.path("unlinked"), self.bytes(50000))
        self.open_fds.append(os.open(self.path("unlinked"), os.O_RDONLY))
        os.unlink(self.path("unlinked"))

    def small_writes(self):
        """Synced one by one, so that they stay in the journal for a while. Some are taken back there: by a truncation, by a hole."""
        for i in range(12):
            fd = os.open(self.path("data", "whole%d" % i), os.O_RDWR)
            try:
                for _ in range(3):
                    offset = self.rnd.randrange(1 << 20)
                    os.pwrite(fd, self.bytes(3000), offset)
                    os.fsync(fd)
                    if i % 3 == 1:
                        os.ftruncate(fd, offset + 100)
                        os.ftruncate(fd, offset + 5000)
                    elif i % 3 == 2:
                        _fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, offset + 200, 1000)
                    os.fsync(fd)
            finally:
                os.close(fd)

    def sync(self):
        for here, dirs, files in os.walk(self.root):
            for path in [here] + [os.path.join(here, f) for f in files]:
                if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFDIR, stat.S_IFREG):
                    fd = os.open(path, os.O_RDONLY)
                    os.fsync(fd)
                    os.close(fd)

    def close(self):
        while self.open_fds:
            os.close(self.open_fds.pop())


def mount_manifest(root, with_sectors=False):
    """
    The tree below @root as the kernel shows it: what terrace_reader prints for the pool.

    @with_sectors: compare st_blocks, too; while data is on its way to its place they are more than the inodes say.
    """
    lines = {".": _line(root, ".", with_sectors)}
    for here, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(here, name)
            lines[os.path.relpath(path, root)] = _line(path, os.path.relpath(path, root), with_sectors)
    return [lines[path] for path in sorted(lines)]


def _line(path, shown, with_sectors):
    st = os.lstat(path)
    line = {"path": shown, "inode": st.st_ino & INUM_MAX, "type": TYPES[stat.S_IFMT(st.st_mode)], "mode": stat.S_IMODE(st.st_mode), "uid": st.st_uid,
            "gid": st.st_gid, "nlink": st.st_nlink, "mtime": st.st_mtime_ns, "ctime": st.st_ctime_ns,
            "xattrs": {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in sorted(os.listxattr(path, follow_symlinks=False))}}
    if line["type"] in ("char", "block"):
        line["device"] = [os.major(st.st_rdev), os.minor(st.st_rdev)]
    elif line["type"] == "symlink":
        line["target"] = os.readlink(path)
    elif line["type"] == "file":
        sha = hashlib.sha256()
        with open(path, "rb") as f:
            for piece in iter(lambda: f.read(1 << 20), b""):
                sha.update(piece)
        line.update(size=st.st_size, sha256=sha.hexdigest())
        if with_sectors:
            line["sectors"] = st.st_blocks
    return line


def differences(expected, found):
    """Of two manifests; empty if they are alike in all that the first one says."""
    a, b = {l["path"]: l for l in expected}, {l["path"]: l for l in found}
    texts = ["missing: %s" % p for p in sorted(a.keys() - b.keys())] + ["too much: %s" % p for p in sorted(b.keys() - a.keys())]
    for path in sorted(a.keys() & b.keys()):
        for field in sorted(a[path]):
            if a[path].get(field) != b[path].get(field):
                texts.append("%s: %s is %r, should be %r" % (path, field, b[path].get(field), a[path].get(field)))
    return texts

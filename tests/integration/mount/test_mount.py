#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mount as programs see it: what is written is there, now, after a remount, after a kill, and without one of three members."""
import errno
import mmap
import os
import shutil
import stat
import subprocess
import tempfile
import time

from rig import *

TREE = os.environ.get("TERRACE_TEST_TREE", "/usr/include")


def expect(code, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except OSError as e:
        check(e.errno == code, "%s%r: %s instead of %s" % (fn.__name__, args, errno.errorcode[e.errno], errno.errorcode[code]))
        return
    raise Failed("%s%r succeeded instead of %s" % (fn.__name__, args, errno.errorcode[code]))


def write(path, data, mode="wb"):
    with open(path, mode) as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def truncating_open_survives_a_remount():
    with pool() as p:
        path = p.mnt + "/f"
        write(path, b"x" * 100000)
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        check(os.stat(path).st_size == 0, "size after O_TRUNC")
        write(path, b"short")
        p.stop()
        p.start()
        check(read(path) == b"short", "the old tail came back")


def names_and_kinds():
    with pool() as p:
        m = p.mnt
        os.mkdir(m + "/d")
        check(os.stat(m + "/d").st_nlink == 2 and os.stat(m).st_nlink == 3, "directory link counts")
        write(m + "/d/a", b"1")
        os.link(m + "/d/a", m + "/d/b")
        check(os.stat(m + "/d/a").st_nlink == 2, "hard link count")
        os.symlink("d/a", m + "/s")
        check(os.readlink(m + "/s") == "d/a" and read(m + "/s") == b"1", "symlink")
        os.symlink("x" * 4095, m + "/longlink")
        check(len(os.readlink(m + "/longlink")) == 4095, "longest symlink")
        os.mkfifo(m + "/fifo")
        os.mknod(m + "/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        check(os.lstat(m + "/null").st_rdev == os.makedev(1, 3), "device number")
        name = "\xe4" * 127 + "z"
        write(m + "/" + name, b"long")
        check(name in os.listdir(m), "a name of 255 bytes")
        expect(errno.ENAMETOOLONG, os.mkdir, m + "/" + "n" * 256)
        expect(errno.EEXIST, os.mkdir, m + "/d")
        expect(errno.ENOTEMPTY, os.rmdir, m + "/d")
        expect(errno.ENOTDIR, os.rmdir, m + "/fifo")
        expect(errno.ENOENT, os.unlink, m + "/nothing")
        expect(errno.EISDIR, os.unlink, m + "/d")
        expect(errno.EINVAL, os.rename, m + "/d", m + "/d/sub")
        os.rename(m + "/d/a", m + "/moved")
        check(read(m + "/moved") == b"1" and not os.path.exists(m + "/d/a"), "rename")
        os.rename(m + "/moved", m + "/" + name)
        check(read(m + "/" + name) == b"1", "rename over a file")
        os.mkdir(m + "/e")
        os.rename(m + "/d", m + "/e")
        check(os.listdir(m + "/e") == ["b"], "rename over an empty directory")
        with open(m + "/gone", "w+b") as f:
            f.write(b"still here")
            f.flush()
            os.unlink(m + "/gone")
            f.seek(0)
            check(f.read() == b"still here", "an unlinked file that is open")
        before = describe_tree(m)
        p.stop()
        p.start()
        compare(before, describe_tree(m), "after a remount")


def sizes_holes_and_mappings():
    with pool() as p:
        path = p.mnt + "/f"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"end", 10 << 20)
        check(os.pread(fd, 4096, 5 << 20) == b"\0" * 4096, "a hole reads as zeros")
        os.ftruncate(fd, 100)
        os.ftruncate(fd, 1 << 20)
        check(os.pread(fd, 1 << 20, 0) == b"\0" * (1 << 20), "nothing stale after truncate")
        os.pwrite(fd, b"A" * 300000, 0)
        os.ftruncate(fd, 5000)
        os.ftruncate(fd, 9000)
        check(os.pread(fd, 9000, 0) == b"A" * 5000 + b"\0" * 4000, "truncate within a block")
        with mmap.mmap(fd, 9000) as mem:
            mem[100:104] = b"MMAP"
            mem.flush()
        check(os.pread(fd, 4, 100) == b"MMAP", "a shared mapping")
        os.ftruncate(fd, 1 << 30)
        os.close(fd)
        p.stop()
        p.start()
        check(os.stat(path).st_size == 1 << 30, "size of a sparse file")
        with open(path, "rb") as f:
            check(f.read(9000) == b"A" * 100 + b"MMAP" + b"A" * 4896 + b"\0" * 4000, "contents after a remount")


def attributes_and_xattrs():
    with pool() as p:
        path = p.mnt + "/f"
        write(path, b"x")
        os.chmod(path, 0o4755)
        os.chown(path, 1000, 1001)
        os.utime(path, ns=(1_000_000_000_123_456_789, -86_400_000_000_001))
        os.setxattr(path, "user.note", b"value")
        os.setxattr(path, "user.big", b"B" * 20000)
        os.setxattr(path, "trusted.t", b"1")
        expect(errno.EEXIST, os.setxattr, path, "user.note", b"2", os.XATTR_CREATE)
        expect(errno.ENODATA, os.setxattr, path, "user.none", b"2", os.XATTR_REPLACE)
        expect(errno.ENODATA, os.getxattr, path, "user.none")
        os.removexattr(path, "trusted.t")
        p.stop()
        p.start()
        st = os.stat(path)
        check((st.st_uid, st.st_gid) == (1000, 1001), "owner")
        check(st.st_atime_ns == 1_000_000_000_123_456_789 and st.st_mtime_ns == -86_400_000_000_001, "times to the nanosecond")
        check(os.getxattr(path, "user.note") == b"value" and os.getxattr(path, "user.big") == b"B" * 20000, "xattrs")
        check(sorted(os.listxattr(path)) == ["user.big", "user.note"], "list of xattrs")


def a_tree_survives_remount_kill_and_a_lost_member():
    options = ["--replicas=2", "--compression=zstd:1"]
    p = Pool(members=3, mib=1024, options=options)
    try:
        p.format()
        p.start()
        want = describe_tree(TREE, nlink_of_dirs=False)
        run("cp", "-a", TREE + "/.", p.mnt)
        compare(want, describe_tree(p.mnt, nlink_of_dirs=False), "just copied")
        p.stop()
        p.fsck("after a clean stop")
        p.start()
        compare(want, describe_tree(p.mnt, nlink_of_dirs=False), "after a remount")

        extra = os.urandom(3 << 20)
        fd = os.open(p.mnt + "/synced", os.O_WRONLY | os.O_CREAT)
        os.write(fd, extra)
        os.fsync(fd)
        os.close(fd)
        p.kill()
        p.fsck("after kill -9")
        p.start()
        got = describe_tree(p.mnt, nlink_of_dirs=False)
        check(read(p.mnt + "/synced") == extra, "what fsync covered was lost")
        got.pop("synced")
        compare(want, got, "after kill -9")
        p.stop()

        for lost in range(3):
            left = [m for i, m in enumerate(p.members) if i != lost]
            try:
                p.start(members=left)
                raise Failed("started degraded without being asked to")
            except Failed as e:
                check("degraded=yes" in str(e), "the refusal does not say what to do: %s" % e)
            p.start(members=left, extra=["--degraded=yes", "--read-only"])
            got = describe_tree(p.mnt, nlink_of_dirs=False)
            check(read(p.mnt + "/synced") == extra, "without member %d" % lost)
            got.pop("synced")
            compare(want, got, "without member %d" % lost)
            p.stop()
    finally:
        p.close()


def a_full_disk_says_so_and_deletes_work():
    with pool(members=2, mib=64, options=["--replicas=2"]) as p:
        block = os.urandom(1 << 20)
        written = 0
        fd = os.open(p.mnt + "/fill", os.O_WRONLY | os.O_CREAT)
        try:
            while written < 200:
                os.write(fd, block)
                os.fsync(fd)
                written += 1
        except OSError as e:
            check(e.errno == errno.ENOSPC, "a full disk gives %s" % errno.errorcode[e.errno])
        os.close(fd)
        check(20 <= written < 64, "%d MiB fitted into 64" % written)
        with open(p.mnt + "/fill", "rb") as f:
            for _ in range(written):
                check(f.read(1 << 20) == block, "contents of a full disk")
        os.unlink(p.mnt + "/fill")
        deadline = time.monotonic() + 30
        while os.statvfs(p.mnt).f_bavail * os.statvfs(p.mnt).f_frsize < (written - 4) << 20:
            check(time.monotonic() < deadline, "space did not come back after a delete")
            time.sleep(0.2)
        p.stop()
        p.fsck("after filling and emptying")
        p.start()
        write(p.mnt + "/again", block * 10)
        check(read(p.mnt + "/again") == block * 10, "writing again after a delete")


def a_second_daemon_cannot_have_the_members():
    with pool() as p:
        other = tempfile.mkdtemp()
        try:
            r = run(TERRACED, "--once", "serve", other, *p.members, ok=False)
            check(r.returncode != 0 and "in use" in r.stdout, "a second daemon: %r" % r.stdout)
            r = run(TERRACED, "--once", "format", "--force", *p.members, ok=False)
            check(r.returncode != 0, "a format of members in use")
        finally:
            os.rmdir(other)


def bad_requests_get_clear_answers():
    p = Pool(members=3, mib=[64, 64, 1])
    try:
        a, b, tiny = p.members

        def refused(text, *args):
            r = run(TERRACED, "--once", *args, ok=False)
            check(r.returncode != 0 and text in r.stdout, "%s: %r" % (" ".join(args), r.stdout))

        refused("needs at least", "format", a, tiny)
        refused("same device", "format", "--replicas=2", a, a)
        refused("4 copies", "format", "--replicas=4", a, b)
        refused("replicas", "format", "--replicas=9", a, b)
        refused("nonsense", "format", "--nonsense=1", a)
        refused("label", "format", "--label=a/b", a)
        refused("not a member", "serve", p.mnt, a)
        run("mkfs.ext4", "-q", "-F", b) if shutil.which("mkfs.ext4") else None
        if shutil.which("mkfs.ext4"):
            refused("ext4", "format", a, b)
        run(TERRACED, "--once", "format", "--force", a, b)
        refused("already holds", "format", a, b)
        refused("missing", "serve", p.mnt, a)
        refused("not a directory", "serve", a, a, b)
        write(p.mnt + "/occupied", b"")
        refused("not empty", "serve", p.mnt, a, b)
        os.unlink(p.mnt + "/occupied")
        copy = a + ".copy"
        run("cp", "--sparse=always", a, copy)
        refused("copies of one member", "serve", p.mnt, a, copy, b)
        os.truncate(b, 32 << 20)
        refused("shrank", "serve", p.mnt, a, b)
    finally:
        p.close()


if __name__ == "__main__":
    need_fuse()
    main(truncating_open_survives_a_remount, names_and_kinds, sizes_holes_and_mappings, attributes_and_xattrs,
         a_tree_survives_remount_kill_and_a_lost_member, a_full_disk_says_so_and_deletes_work,
         a_second_daemon_cannot_have_the_members, bad_requests_get_clear_answers)

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file surface of the mount beside that of ext4, in one run: what posix-probe notes must be the same, but for what stands in DIFFERENCES with its reason."""
import fcntl
import fnmatch
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration/mount"))
from rig import *  # noqa: E402

PROBE = os.environ["POSIX_PROBE"]
FSX = os.environ["POSIX_FSX"]
PROBE_SECONDS = 300
FSX_SECONDS = 25
FSX_OPS = 20000
FS_IOC_SETFLAGS, FS_SYNC_FL = 0x40086602, 8  # linux/fs.h

# case.key (may have wildcards): why. "FUSE: ..." cannot be done by any server; "ext4: ..." is ext4's own way; "not built: ..." is ours to do. README.md, Limits, tells users the first and the last.
DIFFERENCES = {
    "times_file_calls.read_at_end": "FUSE: the kernel answers a read behind the end by itself, so it does not move the access time",
    "times_atime.cached_read": "FUSE: the kernel answers a read from its cache by itself, so it does not move the access time",
    "times_file_calls.mmap_write": "FUSE: a page read for a mapping looks like any read and moves the access time",
    "priv_setid_user.*_2767": "FUSE: set-gid without group execute is not cleared by a write, as the protocol has it; the server is not told the writer's groups",
    "priv_capability_and_setid.root_*": "FUSE: a capability to be dropped and set-id bits to be dropped are told alike; both go",
    "space_fallocate.collapse": "FUSE: the kernel refuses it",
    "space_fallocate.insert": "FUSE: the kernel refuses it",
    "io_flags.read_nowait": "FUSE: the kernel refuses RWF_NOWAIT",
    "mmap_direct_unaligned.*": "FUSE: O_DIRECT of any alignment is taken",
    "ioctl_flags.statx": "FUSE: the kernel leaves out stx_attributes",
    "ioctl_immutable.open_write": "FUSE: the kernel does not know the flag; not open() is refused, but what is done with the descriptor",
    "ioctl_immutable.access": "FUSE: likewise access(2)",
    "ioctl_append.open_write": "FUSE: likewise append-only",
    "ioctl_append.clear_append": "FUSE: likewise clearing O_APPEND of a descriptor",
    "xattr_sizes.bytes6553[56]": "not built: an attribute's name and value together take at most 65527 bytes",
    "times_range.year_3000": "ext4: times end in 2446, ours in 2262",
    "times_range.year_1600": "ext4: times begin in 1901, ours in 1677",
    "space_limits.grow_8eib": "ext4: files end at 16 TiB, ours at 8 EiB",
    "space_limits.write_8eib": "ext4: likewise",
    "copy_errors.far": "ext4: likewise",
    "dir_gone.tmpfile": "ext4: EPERM for a file without a name in a directory that is gone; others say ENOENT",
}

# What is not done to a filesystem that is not ours, or depends on how it was made.
NOT_UNDERNEATH = ("ioctl_label", "ioctl_others", "space_fallocate", "space_statfs", "xattr_sizes")

# O_TMPFILE came to FUSE with kernel 6.2, birth times with 6.6: cases that cannot do without.
NOT_BEFORE_6_6 = ("acl_inherit", "dir_gone", "link_tmpfile", "times_birth", "times_dir_calls")


def skipped(is_ext4):
    version = tuple(int(n) for n in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())
    names = (() if is_ext4 else NOT_UNDERNEATH) + (NOT_BEFORE_6_6 if version < (6, 6) else ())
    if names:
        print("left out: %s" % ", ".join(names))
    return names


class Control:
    """ext4 on a loop device of its own; where that cannot be had, a directory of what lies underneath."""

    def __init__(self, mib, options):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="terrace-control-"))
        self.mnt = os.path.join(self.dir, "mnt")
        os.mkdir(self.mnt)
        image = os.path.join(self.dir, "image")
        with open(image, "wb") as f:
            f.truncate(mib << 20)
        self.ext4 = False
        if shutil.which("mkfs.ext4"):
            run("mkfs.ext4", "-q", "-F", "-O", "ea_inode", "-I", "256", "-m", "0", image)
            self.ext4 = run("mount", "-o", "loop," + options, image, self.mnt, ok=False).returncode == 0
        if not self.ext4:
            print("no ext4 on a loop device here: compared with the directory underneath", flush=True)

    def close(self):
        if self.ext4:
            subprocess.run(["umount", self.mnt])
        shutil.rmtree(self.dir, ignore_errors=True)


@contextlib.contextmanager
def control(mib, options="rw"):
    c = Control(mib, options)
    try:
        yield c
    finally:
        c.close()


def probe(where, set_name="", keep=False, skip=()):
    """{case: {key: [values in order]}}"""
    args = [PROBE, where, "--json"] + (["--set", set_name] if set_name else []) + (["--keep"] if keep else []) + [a for name in skip for a in ("--skip", name)]
    r = subprocess.run(args, stdout=subprocess.PIPE, timeout=PROBE_SECONDS)
    check(r.returncode == 0, "the probe ended with %d" % r.returncode)
    cases = {}
    for line in r.stdout.decode("utf-8", "replace").splitlines():
        pairs = json.loads(line, object_pairs_hook=list)
        notes = cases.setdefault(pairs[0][1], {})
        for key, value in pairs[1:]:
            notes.setdefault(key, []).append(value)
    return cases


def reason(name):
    return next((pattern for pattern in DIFFERENCES if fnmatch.fnmatchcase(name, pattern)), None)


def compare_notes(ours, theirs, is_ext4):
    check(ours.keys() == theirs.keys() and ours, "other cases than the control's")
    met, wrong, notes = set(), [], 0
    for case in ours:
        for key in dict.fromkeys([*theirs[case], *ours[case]]):
            name = "%s.%s" % (case, key)
            a, b = ours[case].get(key), theirs[case].get(key)
            notes += len(b or a)
            if a == b and not name.endswith((".FAILED", ".DIED", ".setup", ".chdir")):
                continue
            pattern = reason(name) if a != b else None
            if pattern:
                met.add(pattern)
            else:
                wrong.append("%s: %s, the control has %s" % (name, a, b))
    # A row of the table that is not needed any more would hide the next bug.
    if is_ext4:
        wrong += ["%s: listed as different (%s), and is not" % (pattern, why) for pattern, why in DIFFERENCES.items()
                  if pattern not in met and pattern.split(".")[0] in ours]
    print("%d cases, %d notes, %d rows of known differences" % (len(ours), notes, len(met)), flush=True)
    check(not wrong, "\n  " + "\n  ".join(wrong))


OPTIONS = ["--replicas=2", "--compression=zstd:1"]


def like_the_control():
    with control(512) as c, pool(members=2, mib=512, options=OPTIONS) as p:
        skip = skipped(c.ext4)
        compare_notes(probe(p.mnt, skip=skip), probe(c.mnt, skip=skip), c.ext4)
        p.stop()
        p.fsck("after the probe")


def read_only_like_the_control():
    with control(64) as c, pool(members=2, mib=128, options=OPTIONS) as p:
        if not c.ext4:
            print("left out: the directory underneath cannot be made read-only")
            return
        for where in (p.mnt, c.mnt):
            probe(where, "prepare", keep=True)
            run("mount", "-i", "-o", "remount,ro", where)
        try:
            compare_notes(probe(p.mnt, "ro", keep=True), probe(c.mnt, "ro", keep=True), c.ext4)
        finally:
            for where in (p.mnt, c.mnt):
                run("mount", "-i", "-o", "remount,rw", where)


def no_access_times_like_the_control():
    with control(64, "noatime") as c, pool(members=2, mib=128, options=OPTIONS, serve=["--noatime"]) as p:
        if not c.ext4:
            print("left out: the directory underneath is mounted as it is")
            return
        compare_notes(probe(p.mnt, "noatime"), probe(c.mnt, "noatime"), c.ext4)


def full_like_the_control():
    with control(64) as c, pool(members=2, mib=128, options=OPTIONS) as p:
        if not c.ext4:
            print("left out: the directory underneath is not ours to fill")
            return
        compare_notes(probe(p.mnt, "full"), probe(c.mnt, "full"), c.ext4)
        p.stop()
        p.fsck("after it was full")


def handles_live_through_a_remount():
    with pool(members=2, mib=128, options=OPTIONS) as p:
        run(PROBE, p.mnt, "--set", "handle-make", "--keep")
        p.stop()
        p.start()
        notes = probe(p.mnt, "handle-open")
        check(notes == {"handle_saved_open": {"open": ["ok"], "read": ["5:saved"], "gone": ["ESTALE"]}}, "%r" % notes)


def a_synced_file_is_synced():
    """chattr +S, and O_SYNC: a write is there after kill -9 although nothing else is committed for a minute."""
    with pool(members=2, mib=128, options=OPTIONS + ["--journal-flush-ms=60000"]) as p:
        fds = {}
        for name in ("plain", "flag", "o_sync", "o_dsync"):
            fds[name] = os.open(p.mnt + "/" + name, os.O_RDWR | os.O_CREAT | {"o_sync": os.O_SYNC, "o_dsync": os.O_DSYNC}.get(name, 0))
        fcntl.ioctl(fds["flag"], FS_IOC_SETFLAGS, struct.pack("i", FS_SYNC_FL))
        for fd in fds.values():
            os.fsync(fd)
        for turn in (1, 2):
            for fd in fds.values():
                os.pwrite(fd, b"%d" % turn * 5000, 10000 * turn)
        for fd in fds.values():
            os.close(fd)
        p.kill()
        p.start()
        for name in ("flag", "o_sync", "o_dsync"):
            with open(p.mnt + "/" + name, "rb") as f:
                check(f.read() == bytes(10000) + b"1" * 5000 + bytes(5000) + b"2" * 5000, "%s: what was written and acknowledged is lost" % name)


def contents_like_the_model():
    with pool(members=2, mib=256, options=OPTIONS) as p:
        s = seed().randrange(1 << 32)
        r = subprocess.run([FSX, p.mnt, "--seed", str(s), "--ops", str(FSX_OPS), "--seconds", str(FSX_SECONDS)], stdout=subprocess.PIPE, text=True,
                           timeout=PROBE_SECONDS)
        check(r.returncode == 0, r.stdout)
        print(r.stdout.strip())
        p.stop()
        p.fsck("after fsx")


if __name__ == "__main__":
    need_fuse()
    main(like_the_control, read_only_like_the_control, no_access_times_like_the_control, full_like_the_control, handles_live_through_a_remount,
         a_synced_file_is_synced, contents_like_the_model)

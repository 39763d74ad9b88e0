# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts over the bus: made by the daemon, handed over by AttachFuse, ended by anyone. Needs root and /dev/fuse."""
import ctypes
import os
import signal
import subprocess
import threading
import time

from bus_rig import MANAGER, SKIP, BusError, can_mount, expect_error, main
from tiny_dbus import Variant

MS_BIND = 4096
libc = ctypes.CDLL(None, use_errno=True)


def mount_point(rig, name="mnt"):
    where = os.path.join(rig.dir, name)
    os.mkdir(where)
    return where


def mounted(where):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split()[4] == where for line in f)


def options(*words):
    return {"options": Variant("as", list(words))}


def pool(rig, label="mounted", start=False):
    rig.start()
    fs = rig.create(rig.files(128, 128), label)
    if start:
        rig.run(fs, "Start")
    return fs


def mount_starts_and_unmount_ends(rig):
    fs, where = pool(rig), mount_point(rig)
    assert rig.fs(fs, "Mount", "sa{sv}", where, {}) == where
    assert rig.state(fs) == "running" and rig.get(fs, "Filesystem", "MountPoints") == [where]
    assert rig.get(fs, "Filesystem", "Mounts") == [(where, "", "", True)]
    with open(os.path.join(where, "file"), "w", encoding="utf-8") as f:
        f.write("kept")
    assert rig.manager("ResolveFilesystem", "sa{sv}", where, {}) == fs
    expect_error("Busy", rig.run, fs, "Stop", text=where)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    assert rig.get(fs, "Filesystem", "MountPoints") == [], "the caller was told before the property was right"
    assert not mounted(where)
    expect_error("NotMounted", rig.fs, fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    rig.fs(fs, "Mount", "sa{sv}", where, options("ro", "noatime"))
    assert rig.get(fs, "Filesystem", "AccessMode") == "ro"
    with open(os.path.join(where, "file"), encoding="utf-8") as f:
        assert f.read() == "kept"
    rig.fs(fs, "Unmount", "sa{sv}", where, {})


def bad_mounts_are_refused_by_name(rig):
    fs, where = pool(rig), mount_point(rig)
    full = mount_point(rig, "full")
    open(os.path.join(full, "x"), "w", encoding="utf-8").close()
    expect_error("InvalidOption", rig.fs, fs, "Mount", "sa{sv}", where, options("sparkling"), text="sparkling")
    expect_error("InvalidOption", rig.fs, fs, "Mount", "sa{sv}", where, options("transport=pigeon"), text="pigeon")
    expect_error("InvalidOption", rig.fs, fs, "Mount", "sa{sv}", where, {"subvolume": Variant("s", "a")}, text="subvolume")
    expect_error("InvalidArgument", rig.fs, fs, "Mount", "sa{sv}", "mnt", {})
    expect_error("NotFound", rig.fs, fs, "Mount", "sa{sv}", where + "/none", {})
    expect_error("Busy", rig.fs, fs, "Mount", "sa{sv}", full, {})
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    expect_error("AlreadyMounted", rig.fs, fs, "Mount", "sa{sv}", mount_point(rig, "other"), {}, text=where)
    with open(os.path.join(where, "open"), "w", encoding="utf-8"):
        expect_error("Busy", rig.fs, fs, "Unmount", "sa{sv}", where, {})
    expect_error("InvalidArgument", rig.create, [os.path.join(where, "member")], "inside")
    expect_error("InvalidArgument", rig.manager, "Probe", "sa{sv}", os.path.join(where, "member"), {})
    rig.fs(fs, "Unmount", "sa{sv}", where, {})


def bind(source, where):
    assert libc.mount(source.encode(), where.encode(), None, MS_BIND, None) == 0, os.strerror(ctypes.get_errno())


def a_place_that_holds_a_mount_is_refused_whatever_it_is_called(rig):
    fs, empty = pool(rig), mount_point(rig, "empty")
    for name in ("plain", "two words", "tab\tand\nline", "back\\slash", "\\040"):
        where = mount_point(rig, name)
        bind(empty, where)  # no type of its own, and nothing in it
        link = os.path.join(rig.dir, "link")
        os.symlink(where, link)
        try:
            for there in (where, link):
                expect_error("AlreadyMounted", rig.fs, fs, "Mount", "sa{sv}", there, {}, text=where)
            assert rig.state(fs) == "stopped", "it was started for a place that cannot be mounted on"
        finally:
            os.unlink(link)
            subprocess.run(["umount", where], check=True)
        assert rig.fs(fs, "Mount", "sa{sv}", where, {}) == where
        with open(os.path.join(where, "file"), "w", encoding="utf-8") as f:
            f.write(name)
        fd = os.open(os.path.join(where, "file"), os.O_PATH)
        rig.call(fs, "Maintenance", "ClearDamage", "ha{sv}", 0, {}, fds=[fd])  # it is found among the mounts by this name
        os.close(fd)
        rig.fs(fs, "Unmount", "sa{sv}", where, {})
        rig.run(fs, "Stop")


def what_a_killed_daemon_left_is_mounted_over(rig):
    fs, where = pool(rig), mount_point(rig)
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    with open(os.path.join(where, "f"), "w", encoding="utf-8") as f:
        f.write("kept")
    rig.fs(fs, "Sync", "a{sv}", {})
    os.stat(where)  # the kernel knows the attributes now, and would answer from them
    rig.end(signal.SIGKILL)
    assert mounted(where)
    rig.start()
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    with open(os.path.join(where, "f"), encoding="utf-8") as f:
        assert f.read() == "kept"
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    assert not mounted(where), "one was left below"


def a_place_is_chosen(rig):
    fs = pool(rig, f"chosen-{os.getpid()}")
    where = rig.fs(fs, "Mount", "sa{sv}", "", {})
    assert where == f"/run/terrace/mounts/chosen-{os.getpid()}" and mounted(where)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    os.rmdir(where)


def unmounted_by_somebody_else(rig):
    fs, where = pool(rig), mount_point(rig)
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    subprocess.run(["umount", where], check=True)
    rig.connection.wait_signal(lambda m: m.member == "PropertiesChanged" and m.path == fs and m.body[1].get("MountPoints") == [])
    assert rig.state(fs) == "running", "it stays running until Stop"
    rig.run(fs, "Stop")


def mount_fuse(where):
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions".encode()
    if libc.mount(b"terrace:test", where.encode(), b"fuse.terrace", 0, data) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    return fd


def a_descriptor_can_be_handed_over(rig):
    fs, where = pool(rig), mount_point(rig)
    fd = mount_fuse(where)
    expect_error("WrongState", rig.fs, fs, "AttachFuse", "hsa{sv}", 0, where, {}, fds=[fd])
    rig.run(fs, "Start")
    with open("/dev/null", encoding="utf-8") as null:
        expect_error("InvalidArgument", rig.fs, fs, "AttachFuse", "hsa{sv}", 0, where, {}, fds=[null.fileno()])
    expect_error("InvalidOption", rig.fs, fs, "AttachFuse", "hsa{sv}", 0, where, {"transport": Variant("s", "pigeon")}, fds=[fd])
    rig.fs(fs, "AttachFuse", "hsa{sv}", 0, where, {"transport": Variant("s", "classic")}, fds=[fd])
    expect_error("AlreadyMounted", rig.fs, fs, "AttachFuse", "hsa{sv}", 0, where, {}, fds=[fd], text=where)
    os.close(fd)
    with open(os.path.join(where, "file"), "w", encoding="utf-8") as f:
        f.write("x")
    assert os.listdir(where) == ["file"]
    expect_error("NotMounted", rig.fs, fs, "DetachFuse", "s", where + "x")
    rig.fs(fs, "DetachFuse", "s", where)
    assert rig.get(fs, "Filesystem", "MountPoints") == []
    subprocess.run(["umount", "-l", where], check=True)
    rig.run(fs, "Stop")


def force_stops_under_open_files(rig):
    fs, where = pool(rig), mount_point(rig)
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    f = open(os.path.join(where, "open"), "wb", buffering=0)
    f.write(b"acknowledged")
    os.fsync(f.fileno())
    expect_error("Busy", rig.run, fs, "Stop")
    rig.run(fs, "Stop", force=True)
    assert rig.state(fs) == "stopped" and rig.get(fs, "Filesystem", "Clean") is True and not mounted(where)
    try:
        f.write(b"too late")
    except OSError:
        pass
    else:
        raise AssertionError("a write went well after the filesystem was stopped")
    try:
        f.close()
    except OSError:
        pass
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    with open(os.path.join(where, "open"), "rb") as again:
        assert again.read() == b"acknowledged"


def sigterm_while_mounted_and_written_to(rig):
    fs, where = pool(rig), mount_point(rig)
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    stop = threading.Event()
    synced = []
    inside = os.open(where, os.O_RDONLY | os.O_DIRECTORY)  # so that nothing is written to the folder below when the mount is gone

    def write():
        n = 0
        while not stop.is_set():
            try:
                fd = os.open(f"file{n}", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=inside)
                try:
                    os.write(fd, b"%d" % n * 1000)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                synced.append(n)
                n += 1
            except OSError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    while len(synced) < 20:
        time.sleep(0.01)
    code = rig.end()
    stop.set()
    writer.join()
    os.close(inside)
    assert code == 0, rig.read_log()
    assert not mounted(where)
    rig.start()
    assert rig.get(fs, "Filesystem", "Clean") is True
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    for n in synced:
        with open(os.path.join(where, f"file{n}"), "rb") as f:
            assert f.read() == b"%d" % n * 1000, f"file{n}"
    assert rig.wait(rig.call(fs, "Maintenance", "Fsck", "a{sv}", {}))["errors"] == 0


def ping_and_sync_while_files_are_written(rig):
    fs, where = pool(rig), mount_point(rig)
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    done = threading.Event()

    def write():
        for n in range(8):
            with open(os.path.join(where, f"big{n}"), "wb") as f:
                for _ in range(8):
                    f.write(os.urandom(1 << 20))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    slowest = 0.0
    while not done.is_set():
        at = time.monotonic()
        rig.manager("Ping")
        slowest = max(slowest, time.monotonic() - at)
        rig.fs(fs, "Sync", "a{sv}", {})
        rig.call(fs, "Options", "Set", "a{sv}a{sv}", {"journal_flush_ms": Variant("u", 100)}, {})
    writer.join()
    assert slowest < 0.5, f"{slowest:.3f} s"
    for mode in ("ro", "rw"):
        rig.wait(rig.fs(fs, "SetAccessMode", "sa{sv}", mode, {}))
    rig.connection.wait_signal(lambda m: m.member == "PropertiesChanged" and m.path == fs and m.body[1].get("Used", 0) > 60 << 20, timeout=15)
    assert rig.wait(rig.call(fs, "Maintenance", "Fsck", "a{sv}", {}))["errors"] == 0


def mounts_race(rig):
    """Ten callers mount at once: one wins, the others are told why not."""
    from tiny_dbus import Connection
    fs, where = pool(rig), mount_point(rig)
    serials = [(c, c.send("org.terracefs.Terrace1", fs, "org.terracefs.Terrace1.Filesystem", "Mount", "sa{sv}", (where, {})))
               for c in [Connection(rig.address) for _ in range(10)]]
    won = 0
    for connection, serial in serials:
        try:
            assert connection.reply(serial) == where
            won += 1
        except BusError as e:
            assert e.short in ("AlreadyMounted", "Busy", "JobConflict"), e
    assert won == 1, won


if __name__ == "__main__":
    if not can_mount():
        print("needs root and /dev/fuse")
        raise SystemExit(SKIP)
    main([mount_starts_and_unmount_ends, bad_mounts_are_refused_by_name, a_place_that_holds_a_mount_is_refused_whatever_it_is_called,
          what_a_killed_daemon_left_is_mounted_over, a_place_is_chosen, unmounted_by_somebody_else, a_descriptor_can_be_handed_over,
          force_stops_under_open_files, sigterm_while_mounted_and_written_to, ping_and_sync_while_files_are_written, mounts_race])

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Members that cannot be used, are used already, are something else than they seem, or fail: refused by name with nothing changed, and what was synced stays. Needs root for most of it."""
import concurrent.futures
import errno
import os
import shutil
import signal
import subprocess
import time

from bad_rig import MIB, BusError, expect_error, held, main, read_file, skip, write_file
from bus_rig import can_mount
from tiny_dbus import Variant

FORCE = {"force": Variant("b", True)}
TWO = {"data_replicas": Variant("u", 2), "metadata_replicas": Variant("u", 2)}
SLOT0, SLOT1, TAIL = 8192, 131072, 65536  # where superblock copies are: two from the start, one from the end
PROMPT_S = 10  # longest that a writer may wait for an answer when the disk below is full


def is_root():
    return os.geteuid() == 0


def ready_loop(rig, name, mib=64, *options):
    """A loop device of its own, and the file behind it; None, None where there are none."""
    path = rig.file(name, mib)
    return rig.loop(path, *options) if is_root() else None, path


def same_contents(where, contents):
    for name, data in contents.items():
        assert read_file(os.path.join(where, name)) == data, f"{name} is not what was synced"


def fill_with_files(where, nr=20):
    contents = {f"kept{i}": os.urandom(50000 + 7001 * i) for i in range(nr)}
    for name, data in contents.items():
        write_file(os.path.join(where, name), data)
    return contents


def reads_back(rig, fs, contents, **start):
    """The filesystem starts, holds the contents, checks clean, and stops."""
    if rig.state(fs) != "running":
        rig.run(fs, "Start", **start)
    where = rig.filesystem_mount(fs)
    same_contents(where, contents)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    assert rig.wait(rig.call(fs, "Maintenance", "Fsck", "a{sv}", {}))["errors"] == 0
    rig.run(fs, "Stop")


# --- two names, or two owners ---


def one_device_under_two_names(rig):
    rig.start()
    a = rig.file("a")
    link, hard = a + "-link", a + "-hard"
    os.symlink(a, link)
    os.link(a, hard)
    rig.create_refused("InvalidArgument", [a, "Name each device once"], [a, a])
    rig.create_refused("InvalidArgument", [a, hard, "Name each device once"], [a, hard])
    expect_error("InvalidArgument", rig.create, [a, link], text=link)
    rig.once_refused([a, hard], "format", a, hard)
    one, behind = ready_loop(rig, "behind")
    two = one and rig.loop(behind)
    if not two:
        return skip("the rest needs loop devices")
    node = os.path.join(rig.dir, "node")
    os.mknod(node, 0o600 | 0o060000, os.stat(one).st_rdev)
    for other in (two, behind, node):
        rig.create_refused("InvalidArgument", [one, other, "Name each device once"], [one, other])
        rig.once_refused([one, other], "format", one, other)
    assert rig.filesystems() == []
    fs = rig.create([one], "looped")
    assert rig.get(fs, "Filesystem", "NumDevicesExpected") == 1
    for other in (two, behind):
        rig.once_refused([one, other], "serve", rig.dir, one, other)
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [two, behind])}))
    assert rig.state(fs) == "stopped", "other names of a member were taken for copies of it: " + rig.get(fs, "Filesystem", "StateMessage")
    rig.run(fs, "Start")


def a_loop_device_and_its_file_have_one_owner(rig):
    one, behind = ready_loop(rig, "behind")
    two = one and rig.loop(behind)
    if not two or not can_mount():
        return skip("needs loop devices and FUSE")
    rig.start()
    fs = rig.create([one], "held")
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where, 5)
    for path in (behind, two):  # the loop device has it
        error = expect_error("DeviceInUse", rig.create, [path], "thief", opts=FORCE, text=path)
        assert behind in error.message, error.message
        rig.ctl_refused([path, "in use"], "format", "--force", path)
    same_contents(where, contents)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    before = held(behind)
    error = expect_error("DeviceInUse", rig.create, [behind], "thief", opts=FORCE, text="is the file behind '")
    assert f"'{one}'" in error.message or f"'{two}'" in error.message, error.message  # whichever the kernel lists first
    rig.ctl_refused([behind, "losetup --detach"], "format", "--force", behind)
    assert held(behind) == before
    reads_back(rig, fs, contents)

    owned = rig.file("owned")
    rig.run(rig.create([owned], "file"), "Start")  # the file has it; the loop device comes later
    late = rig.loop(owned)
    expect_error("DeviceInUse", rig.create, [late], "thief", opts=FORCE, text=owned)
    rig.ctl_refused([late, owned, "in use"], "format", "--force", late)


def what_holds_a_device_is_named(rig):
    disk, behind = ready_loop(rig, "ext4")
    swap, swap_file = ready_loop(rig, "swap")
    if not disk or not swap or not shutil.which("mkfs.ext4") or not shutil.which("mkswap"):
        return skip("needs loop devices, mkfs.ext4 and mkswap")
    rig.command("mkfs.ext4", "-q", "-F", disk)
    rig.command("mkswap", swap)
    rig.start()
    for path, word in ((disk, "ext4"), (swap, "swap")):
        rig.create_refused("DeviceInUse", [path, word, "--force"], [path])
    where = rig.mkdir("a mount")
    if not rig.mount(where, disk):
        return skip("the rest needs mount(2)")
    write_file(os.path.join(where, "precious"), b"data")
    for path, texts in ((disk, [disk, where]), (behind, [behind, disk])):
        expect_error("DeviceInUse", rig.create, [path], opts=FORCE, text=texts[1])
        rig.ctl_refused(texts, "format", "--force", path)
        rig.once_refused(texts, "format", "--force", path)
    rig.unmount(where)
    rig.command("fsck.ext4", "-f", "-n", disk)
    if rig.command("swapon", swap, ok=False).returncode != 0:
        return skip("the rest needs swapon(2)")
    try:
        before = held(swap)
        expect_error("DeviceInUse", rig.create, [swap], opts=FORCE, text="used as swap space")
        rig.ctl_refused([swap, "used as swap space"], "format", "--force", swap)
        assert held(swap) == before
    finally:
        rig.command("swapoff", swap)
    rig.create([swap], opts=FORCE)


def a_daemon_in_another_container_keeps_its_members(rig):
    if not can_mount() or rig.command("unshare", "-m", "-p", "-f", "--mount-proc", "true", ok=False).returncode != 0:
        return skip("needs unshare(1) and FUSE")
    rig.start()
    disk, _ = ready_loop(rig, "disk")
    paths = [rig.file("a"), disk or rig.file("b")]
    fs = rig.create(paths, "shared", fs_options=TWO)
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where, 5)
    inner = rig.mkdir("inner")
    container = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]

    def serve(*args):
        return rig.command(*container, rig.terraced, "--allow-plugin-path", "--once", *args, ok=False, env=dict(os.environ, TERRACE_PLUGIN_PATH=rig.plugins))

    for nr, path in enumerate(paths):  # this daemon has them: each member by itself is refused
        rig.is_one_line(serve("serve", inner, *paths[nr:], *paths[:nr]), path, "another Terrace daemon")
        rig.is_one_line(serve("format", "--force", path), path, "another Terrace daemon")
    same_contents(where, contents)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")

    with open(os.path.join(rig.dir, "inner-log"), "wb") as log:  # now the other one has them
        outer = subprocess.Popen([*container, rig.terraced, "--allow-plugin-path", "--once", "serve", inner, *paths], stdout=log, stderr=log,
                                 env=dict(os.environ, TERRACE_PLUGIN_PATH=rig.plugins))
    rig.others.append(outer)
    end = time.monotonic() + 30
    while True:
        with open(f"/proc/{outer.pid}/task/{outer.pid}/children", encoding="ascii") as f:
            pids = f.read().split()
        try:
            with open(f"/proc/{pids[0]}/mountinfo", encoding="utf-8") as f:
                if inner in f.read():
                    break
        except (OSError, IndexError):
            pass  # not there yet
        assert outer.poll() is None and time.monotonic() < end, read_file(os.path.join(rig.dir, "inner-log"))
        time.sleep(0.02)
    expect_error("DeviceInUse", rig.run, fs, "Start", text=paths[0])
    assert rig.state(fs) == "stopped"
    rig.ctl_refused([paths[0], "another Terrace daemon"], "start", "shared")
    for path in paths:
        expect_error("DeviceInUse", rig.create, [path], "thief", opts=FORCE, text=path)
        rig.ctl_refused([path, "another Terrace daemon"], "format", "--force", path)
    outer.kill()
    outer.wait()
    end = time.monotonic() + 30
    while True:  # its container dies with it, a moment later
        try:
            rig.run(fs, "Start")
            break
        except BusError as e:
            assert e.short == "DeviceInUse" and time.monotonic() < end, e
            time.sleep(0.05)
    reads_back(rig, fs, contents)


def a_filesystem_is_not_made_of_itself(rig):
    if not can_mount():
        return skip("needs root and FUSE")
    rig.start()
    fs = rig.create([rig.file("a", 256)], "outer")
    where = rig.filesystem_mount(fs)
    inner, link, bound = os.path.join(where, "inner"), os.path.join(rig.dir, "link"), rig.mkdir("bound")
    write_file(inner, b"\0" * 8 * MIB)
    os.truncate(inner, 64 * MIB)
    os.symlink(inner, link)
    rig.create_refused("InvalidArgument", [inner, "Terrace filesystem"], [inner])
    expect_error("InvalidArgument", rig.manager, "Rescan", "a{sv}", {"paths": Variant("as", [inner])}, text=inner)
    expect_error("DeviceInUse", rig.create, [link], text="cannot be made of itself")
    rig.once_refused([inner, "cannot be made of itself"], "format", inner)
    if rig.mount(bound, "--bind", where):
        other = os.path.join(bound, "inner")
        rig.create_refused("DeviceInUse", [other, "cannot be made of itself"], [other])
        rig.unmount(bound)
    disk = rig.loop(inner)
    if disk:
        rig.create_refused("DeviceInUse", [disk, inner, "cannot be made of itself"], [disk], opts=None)
        rig.command("losetup", "--detach", disk)
    assert read_file(inner) == b"\0" * 64 * MIB
    os.unlink(inner)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})


# --- too small, too few, too many, too different ---


def numbers_and_sizes_of_members(rig):
    rig.start()
    a, b, tiny = rig.file("a"), rig.file("b"), rig.file("tiny", 4)
    empty = rig.file("empty", 0)
    rig.create_refused("DeviceTooSmall", [tiny, "at least"], [a, tiny])
    rig.create_refused("DeviceTooSmall", [empty, "at least"], [empty])
    rig.create_refused("InsufficientDevices", ["3 copies", "2 were named"], [a, b], "--replicas=3", fs_options={"data_replicas": Variant("u", 3)})
    expect_error("InsufficientDevices", rig.create, [])
    many = [f"/nowhere/{i}" for i in range(65)]
    rig.create_refused("LimitExceeded", "64", many)
    rig.once_refused("64", "format", *many)
    gone = os.path.join(rig.dir, "gone")
    rig.create_refused("NotFound", gone, [a, gone])
    rig.create_refused("NotFound", a + "/x", [a + "/x"])
    rig.create_refused("InvalidArgument", "a directory", [rig.dir])
    rig.create_refused("InvalidArgument", "a character device", ["/dev/null"])
    assert held(a) == held(b) == (64 * MIB, []) and rig.filesystems() == []


def copies_on_one_disk_are_warned_of(rig):
    rig.start()
    a, b, c = rig.file("a"), rig.file("b"), rig.file("c")
    result = rig.wait(rig.create_job([a, b], "warned", fs_options=TWO))
    warning, = result["warnings"]
    assert a in warning and b in warning and "one physical disk" in warning, result
    r = rig.ctl("format", "--force", "--replicas=2", a, b)
    assert r.stdout.startswith("terracectl: warning: ") and "one physical disk" in r.stdout and r.stdout.count("\n") == 2, r.stdout
    assert "warnings" not in rig.wait(rig.create_job([c], "single")), "one copy cannot be lost twice"


def blocks_of_different_sizes(rig):
    large, _ = ready_loop(rig, "large", 64, "--sector-size", "4096")
    small, _ = ready_loop(rig, "small", 64, "--sector-size", "512")
    if not large or not small or not can_mount():
        return skip("needs loop devices and FUSE")
    rig.start()
    rig.create_refused("BlockSizeMismatch", [large, "4096", "512"], [small, large], "--options=block_size=512", fs_options={"block_size": Variant("u", 512)})
    fs = rig.create([small, large], "mixed", fs_options=TWO)
    contents = fill_with_files(rig.filesystem_mount(fs), 5)
    rig.fs(fs, "Unmount", "sa{sv}", os.path.join(rig.dir, "mnt"), {})
    reads_back(rig, fs, contents)


# --- not what it was ---


def members_of_two_filesystems_are_not_mixed(rig):
    rig.start()
    a, b, c = rig.file("a"), rig.file("b"), rig.file("c")
    fs = rig.create([a, b], "pair", fs_options=TWO)
    rig.create([c], "stranger")
    rig.run(fs, "Start")
    rig.run(fs, "Stop")
    before = [held(p) for p in (a, b, c)]
    rig.once_refused([a, c, "different filesystems"], "serve", rig.dir, a, c)
    rig.once_refused([a, c, "different filesystems"], "fsck", a, b, c)
    os.rename(b, b + ".away")
    shutil.copyfile(c, b)  # somebody else's member where ours was
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert rig.state(fs) == "incomplete"
    missing, = rig.get(fs, "Filesystem", "MissingDevices")
    expect_error("Degraded", rig.run, fs, "Start", text=missing)
    rig.ctl_refused([missing, "--degraded=yes"], "start", "pair")
    os.rename(b + ".away", b)
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert rig.state(fs) == "stopped" and [held(p) for p in (a, b, c)] == before
    rig.run(fs, "Start")


def copies_of_a_filesystem_are_kept_out(rig):
    if not can_mount():
        return skip("needs root and FUSE")
    rig.start()
    paths = [rig.file("a"), rig.file("b")]
    fs = rig.create(paths, "original", fs_options=TWO)
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where, 5)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    copies = [p + ".copy" for p in paths]
    for path, copy in zip(paths, copies):
        rig.command("cp", "--sparse=always", path, copy)
    before = [held(p) for p in paths + copies]
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", copies)}))
    assert rig.filesystems() == [fs] and rig.state(fs) == "incomplete"
    message = rig.get(fs, "Filesystem", "StateMessage")
    assert any(p in message and c in message for p, c in zip(paths, copies)) and "Take the copy away" in message, message
    expect_error("DeviceForeign", rig.run, fs, "Start", text=".copy")
    rig.ctl_refused([".copy", "Take the copy away"], "start", "original")
    rig.once_refused([paths[0], copies[0], "copies of one member"], "serve", where, paths[0], copies[0], paths[1])
    assert [held(p) for p in paths + copies] == before, "two filesystems that are one were touched"
    for copy in copies:
        os.rename(copy, copy + ".away")
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    rig.run(fs, "Start")
    for copy in copies:  # while it runs they change nothing
        os.rename(copy + ".away", copy)
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", copies)}))
    assert rig.state(fs) == "running"
    for copy in copies:
        os.unlink(copy)
    reads_back(rig, fs, contents)


def a_member_that_shrank(rig):
    if not can_mount():
        return skip("needs root and FUSE")
    rig.start()
    a, b = rig.file("a"), rig.file("b")
    fs = rig.create([a, b], "shrunk", fs_options=TWO)
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    shutil.copyfile(b, b + ".whole")
    before = held(a)
    for size, name, text in [(32 * MIB, "DeviceTooSmall", "shrank"), (100 << 10, "DeviceForeign", "too small"), (0, "DeviceForeign", "too small")]:
        os.truncate(b, size)
        shrunk = held(b)
        error = expect_error(name, rig.run, fs, "Start", text=b)
        assert text in error.message, error.message
        assert rig.state(fs) in ("stopped", "incomplete")
        assert b in rig.get(fs, "Filesystem", "StateMessage") and b in rig.ctl("status", "shrunk", ok=False).stdout
        rig.ctl_refused([b, text], "start", "shrunk")
        assert (held(a), held(b)) == (before, shrunk), "a refused start changed a member"
    os.unlink(b)
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    reads_back(rig, fs, contents, degraded="yes")
    os.rename(b + ".whole", b)
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [b])}))
    reads_back(rig, fs, contents)


def a_member_that_shrinks_while_it_is_used(rig):
    if not can_mount():
        return skip("needs root and FUSE")
    rig.start()
    a, b = rig.file("a"), rig.file("b")
    fs = rig.create([a, b], "live", fs_options=TWO)
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")  # so that nothing is cached
    rig.run(fs, "Start")
    rig.filesystem_mount(fs)
    os.truncate(b, 300 << 10)
    same_contents(where, contents)
    write_file(os.path.join(where, "more"), b"m" * MIB)
    contents["more"] = b"m" * MIB
    end = time.monotonic() + 30
    while b not in rig.get(fs, "Filesystem", "LastError"):
        assert time.monotonic() < end, "the member is not named: " + rig.get(fs, "Filesystem", "LastError")
        rig.fs(fs, "Unmount", "sa{sv}", where, {})  # nothing cached; of many reads at once each member gets its share
        rig.filesystem_mount(fs)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda item: same_contents(where, dict([item])), contents.items()):
                pass
    assert b in rig.ctl("status", "live", ok=False).stdout
    same_contents(where, contents)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    try:
        rig.run(fs, "Stop")
    except BusError as e:
        assert len(e.message) > 10, e
    os.rename(b, b + ".broken")
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    reads_back(rig, fs, contents, degraded="yes")


def garble(path, offset, nr=4096):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(b"\xa5" * nr)


def a_bad_superblock_copy_is_replaced(rig):
    rig.start()
    a, b = rig.file("a"), rig.file("b")
    fs = rig.create([a, b], "copies", fs_options=TWO)
    offsets = [SLOT0, SLOT1, 64 * MIB - TAIL]
    for bad in offsets:
        for path in (a, b):
            garble(path, bad)
        rig.run(fs, "Start")
        rig.run(fs, "Stop")
        for path in (a, b):  # the one that was bad is now as good as the others: alone it is enough
            alone = path + ".alone"
            shutil.copyfile(path, alone)
            for other in offsets:
                if other != bad:
                    garble(alone, other)
            found = rig.manager("Probe", "sa{sv}", alone, {})
            assert found["member"] and found["clean"] and found["label"] == "copies", f"copy at {bad}: {found}"
            os.unlink(alone)
    for bad in offsets:
        garble(b, bad)
    before = held(b)
    expect_error("DeviceForeign", rig.run, fs, "Start", text=b)
    rig.ctl_refused([b, "not a member"], "start", "copies")
    assert held(b) == before
    os.unlink(b)
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    rig.run(fs, "Start", degraded="yes")


# --- a full disk below ---


def small_disk(rig, kind):
    where = rig.mkdir("small")
    if kind == "tmpfs":
        return where if rig.mount(where, "-t", "tmpfs", "-o", "size=128M", "tmpfs") else None
    disk, path = ready_loop(rig, "image", 80)
    if not disk or not shutil.which("mkfs.ext4"):
        return None
    rig.command("mkfs.ext4", "-q", "-F", disk)
    return where if rig.mount(where, disk) else None


def fill(small, leave=0):
    """The filesystem full but for some bytes."""
    path = os.path.join(small, "filler")
    with open(path, "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"\1" * 4096)
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
        f.truncate(max(0, f.seek(0, os.SEEK_END) - leave))
    return path


def write_until_refused(where, sizes, nr):
    """What was acknowledged, what was refused and how."""
    kept, refused = {}, set()
    for i in range(nr):
        name, data, begin = f"late{i}", os.urandom(sizes[i % len(sizes)]), time.monotonic()
        try:
            write_file(os.path.join(where, name), data)
            kept[name] = data
        except OSError as e:
            refused.add(e.errno)
        assert time.monotonic() - begin < PROMPT_S, f"a write took {time.monotonic() - begin:.1f} s"
    return kept, refused


def full_disk(rig, kind, members, sizes, leave, end):
    if not can_mount():
        return skip("needs root and FUSE")
    small = small_disk(rig, kind)
    if not small:
        return skip(f"needs a {kind} of its own")
    rig.start()
    paths = [rig.file(f"small/m{i}", 256) for i in range(members)]
    fs = rig.create(paths, "crowded", fs_options={"journal_size": Variant("t", 2 * MIB), **(TWO if members > 1 else {})})
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where)
    if end == "goes on":  # the journal's ring (2 MiB) has its place on the disk: only data finds none
        for _ in range(100):
            write_file(os.path.join(where, "warm"), os.urandom(60000))
        os.unlink(os.path.join(where, "warm"))
    filler = fill(small, leave)
    kept, refused = write_until_refused(where, sizes, 100)
    contents.update(kept)
    assert refused and refused <= {errno.ENOSPC, errno.EIO, errno.EROFS}, (len(kept), refused)
    same_contents(where, contents)
    till = time.monotonic() + 15
    while not any(p in rig.get(fs, "Filesystem", "LastError") for p in paths):
        assert time.monotonic() < till, "the member is not named: " + rig.get(fs, "Filesystem", "LastError")
        time.sleep(0.2)
    emergency = rig.get(fs, "Filesystem", "AccessMode") == "emergency-ro"
    told = rig.get(fs, "Filesystem", "AccessReason" if emergency else "LastError")
    assert any(p in told for p in paths) and "No space left" in told and "Make room" in told, told
    status = rig.ctl("status", "crowded", ok=False).stdout
    assert told in status and any(p in status for p in paths), status
    if emergency:  # told as it happened too, however many errors came with it
        rig.connection.wait_signal(lambda m: m.member == "ErrorDetected" and m.body[0] == "emergency-read-only")
        assert "critical" in rig.read_log()
    same_contents(where, contents)

    if end == "goes on":
        os.unlink(filler)
        try:
            rig.fs(fs, "Sync", "a{sv}", {})  # as told: what failed is written now
            write_file(os.path.join(where, "after"), b"a" * MIB)
            contents["after"] = b"a" * MIB
        except BusError as e:  # a piece of the ring was still a hole
            assert e.short == "EmergencyReadOnly", e
            rig.connection.wait_signal(lambda m: m.member == "ErrorDetected" and m.body[0] == "emergency-read-only")
        rig.fs(fs, "Unmount", "sa{sv}", where, {})
        rig.run(fs, "Stop")
    elif end == "stop":
        rig.fs(fs, "Unmount", "sa{sv}", where, {})
        try:
            rig.run(fs, "Stop")
        except BusError as e:
            assert len(e.message) > 10, e
        os.unlink(filler)
    else:
        rig.end(end)
        subprocess.run(["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)
        os.unlink(filler)
        rig.start()
    rig.run(fs, "Start")
    reads_back(rig, fs, contents)
    rig.once("fsck", *paths)
    where = rig.filesystem_mount(fs)
    write_file(os.path.join(where, "again"), b"b" * MIB)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    contents["again"] = b"b" * MIB
    reads_back(rig, fs, contents)
    rig.end()
    rig.unmount(small)
    return None


def a_full_disk_below_and_large_writes(rig):
    return full_disk(rig, "tmpfs", 1, [MIB], 0, "goes on")


def a_full_disk_below_two_members(rig):
    return full_disk(rig, "ext4", 2, [100, 4096, 30000, 200000], 1 * MIB, "stop")


def a_full_disk_below_and_a_terminated_daemon(rig):
    return full_disk(rig, "tmpfs", 2, [30000, 4096], 300 << 10, signal.SIGTERM)


def a_full_disk_below_and_a_killed_daemon(rig):
    return full_disk(rig, "ext4", 1, [4096, 100, 60000], 3 * MIB, signal.SIGKILL)


def an_emergency_is_told_among_many_errors(rig):
    """At most some errors a second are told; the one that matters is never left out."""
    small = can_mount() and small_disk(rig, "tmpfs")
    if not small:
        return skip("needs FUSE and a tmpfs of its own")
    rig.start()
    fs = rig.create([rig.file("small/m0", 256)], "noisy")
    where = rig.filesystem_mount(fs)
    for _ in range(100):
        write_file(os.path.join(where, "warm"), os.urandom(60000))
    filler = fill(small)
    for i in range(30):
        try:
            write_file(os.path.join(where, f"f{i}"), os.urandom(MIB))
        except OSError:
            pass
    rig.fs(fs, "ForceReadOnly", "sa{sv}", "The test says so.", {})  # unless it has become so by itself
    told = rig.connection.wait_signal(lambda m: m.member == "ErrorDetected" and m.body[0] == "emergency-read-only")
    assert told.path == fs and "to protect what it holds" in told.body[3], told.body
    os.unlink(filler)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    rig.end()
    rig.unmount(small)
    return None


def a_format_on_a_full_disk_leaves_nothing(rig):
    small = is_root() and small_disk(rig, "tmpfs")
    if not small:
        return skip("needs a tmpfs of its own")
    rig.start()
    for leave in (0, 100 << 10, 300 << 10, 500 << 10):
        paths = [rig.file(f"small/m{i}") for i in range(2)]
        write_file(paths[0], b"precious" * 1000)
        os.truncate(paths[0], 64 * MIB)
        before = [held(p) for p in paths]
        filler = fill(small, leave)
        error = expect_error("NoSpace", rig.create, paths, "x", text="No space left")
        assert any(p in error.message for p in paths), error.message
        rig.is_one_line(rig.ctl("format", *paths, ok=False), "No space left")
        assert [held(p) for p in paths] == before and rig.filesystems() == []
        os.unlink(filler)
        for p in paths:
            os.unlink(p)
    return None


# --- ending at the wrong moment ---


def sigterm_while_it_starts(rig):
    """terraced --once serve: terminated at any moment of its start it ends, leaves no mount, and everything is there."""
    if not can_mount():
        return skip("needs root and FUSE")
    paths = [rig.file("a"), rig.file("b")]
    rig.start()
    fs = rig.create(paths, "hasty", fs_options=TWO)
    where = rig.filesystem_mount(fs)
    contents = fill_with_files(where)
    rig.end(signal.SIGKILL)  # so that each start has a journal to replay
    subprocess.run(["umount", "-l", where], check=False)
    env = dict(os.environ, TERRACE_PLUGIN_PATH=rig.plugins)
    ended = set()
    for i in range(12):
        with open(os.path.join(rig.dir, "serve-log"), "wb") as log:
            p = subprocess.Popen([rig.terraced, "--allow-plugin-path", "--once", "serve", where, *paths], stdout=log, stderr=log, env=env)
        rig.others.append(p)
        time.sleep(0.004 * i)
        p.send_signal(signal.SIGTERM)
        ended.add(p.wait(30))
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            assert where not in f.read(), "a mount was left"
    assert ended <= {0, -signal.SIGTERM}, f"{ended}: {read_file(os.path.join(rig.dir, 'serve-log'))}"  # the latter: before it could listen
    rig.once("fsck", *paths)
    rig.start()
    reads_back(rig, fs, contents)


if __name__ == "__main__":
    main(one_device_under_two_names, a_loop_device_and_its_file_have_one_owner, what_holds_a_device_is_named,
         a_daemon_in_another_container_keeps_its_members, a_filesystem_is_not_made_of_itself, numbers_and_sizes_of_members,
         copies_on_one_disk_are_warned_of, blocks_of_different_sizes, members_of_two_filesystems_are_not_mixed, copies_of_a_filesystem_are_kept_out,
         a_member_that_shrank, a_member_that_shrinks_while_it_is_used, a_bad_superblock_copy_is_replaced, a_full_disk_below_and_large_writes,
         a_full_disk_below_two_members, a_full_disk_below_and_a_terminated_daemon, a_full_disk_below_and_a_killed_daemon,
         an_emergency_is_told_among_many_errors, a_format_on_a_full_disk_leaves_nothing, sigterm_while_it_starts)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad names, numbers, options and places: each refused by a named error on the bus and by one line of terracectl, with nothing changed. Members: test_bad_members.py."""
import os
import signal
import subprocess

from bad_rig import MIB, NAME, TERRACECTL, BusError, expect_error, held, main, skip
from bus_rig import MANAGER, can_mount
from tiny_dbus import Connection, Variant


def u(n):
    return Variant("u", n)


class Raw(str):
    """A string that goes out as these bytes, whatever they are."""

    def encode(self, *args):
        return bytes.fromhex(str(self))


def reaches_nobody(rig, member, signature, *args):
    """A bus drops whoever sends what is no UTF-8; everybody else goes on."""
    rude = Connection(rig.address)
    try:
        rude.call(NAME, MANAGER, NAME + ".Manager", member, signature, *args)
    except (BusError, OSError, EOFError, ConnectionError, AssertionError):
        pass
    else:
        raise AssertionError("text that is not UTF-8 was taken")
    rude.close()
    rig.manager("Ping")


def labels_are_checked(rig):
    rig.start()
    fresh, used = rig.file("fresh"), rig.file("used")
    fs = rig.create([used], "kept")
    rig.run(fs, "Start")
    for label, text in [("x" * 33, "32 bytes"), ("\u00e4" * 17, "32 bytes"), ("a/b", "'/'"), ("a\nb", "control"), ("\x1b[31mred", "control"),
                        ("\x7f", "control"), ("a\u0085b", "control")]:
        rig.create_refused("InvalidArgument", text, [fresh], label=label)
        rig.create_refused("InvalidArgument", text, [fresh], f"--label={label}", dev_opts={"label": Variant("s", label)})
        expect_error("InvalidArgument", rig.fs, fs, "SetLabel", "sa{sv}", label, {}, text=text)
        rig.once_refused(text, "format", f"--label={label}", fresh)
    for bad in (b"\xff", b"caf\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        rig.ctl_refused("UTF-8", "format", b"--label=" + bad, fresh)
        rig.once_refused("UTF-8", "format", b"--label=" + bad, fresh)
        reaches_nobody(rig, "CreateFilesystem", "a(sa{sv})sa{sv}a{sv}", [(fresh, {})], Raw(bad.hex()), {}, {})
    assert rig.get(fs, "Filesystem", "Label") == "kept" and held(fresh) == (64 * MIB, []), "a refused label left something"
    longest = "\u00e4" * 16
    other = rig.create([fresh], longest)
    assert rig.manager("ResolveFilesystem", "sa{sv}", longest, {}) == other
    expect_error("NotFound", rig.manager, "ResolveFilesystem", "sa{sv}", "a\nb", {})


def one_label_twice_lists_the_uuids(rig):
    rig.start()
    both = [rig.create([rig.file(name)], "twin") for name in ("a", "b")]
    uuids = [rig.get(fs, "Filesystem", "UUID") for fs in both]
    for command in (["start", "twin"], ["stop", "twin"], ["status", "twin"], ["sync", "twin"], ["fsck", "twin"], ["options", "twin"], ["mount", "twin", rig.dir]):
        rig.ctl_refused(["twin", *uuids], *command)
    for spec in ("twin", "LABEL=twin", "terrace:twin"):
        error = expect_error("AmbiguousName", rig.manager, "ResolveFilesystem", "sa{sv}", spec, {})
        assert all(uuid in error.message for uuid in uuids), error.message
    assert [rig.state(fs) for fs in both] == ["stopped", "stopped"]
    rig.ctl("start", uuids[1])
    assert [rig.state(fs) for fs in both] == ["stopped", "running"]


def numbers_are_checked(rig):
    rig.start()
    disk = rig.file("disk")
    for option, value, text in [
            ("block_size", "128K", "512 to 64K"), ("block_size", "3000", "power of two"), ("bucket_size", "1", "at least 65536"),
            ("bucket_size", "32M", "16M"), ("data_replicas", "0", "data_replicas"), ("data_replicas", "5000000000", "data_replicas"),
            ("data_replicas", "-1", "data_replicas"), ("memory_limit", "1", "64M"), ("journal_flush_ms", "0", "journal_flush_ms"),
            ("journal_flush_ms", "60001", "60000"), ("errors", "panic", "errors"), ("degraded", "perhaps", "degraded"),
            ("gc_reserve_percent", "50", "gc_reserve_percent"), ("data_replicas_required", "3", "data_replicas"), ("discard", "maybe", "discard"),
            ("journal_size", "1T", "journal_size"), ("no_such", "1", "no_such"), ("extent_max", "", "extent_max"),
            ("extent_max", "99999999999999999999999", "extent_max")]:
        rig.create_refused("InvalidOption", text, [disk], f"--options={option}={value}", fs_options={option: Variant("s", value)})
        rig.once_refused(text, "format", f"--{option.replace('_', '-')}={value}", disk)
    rig.create_refused("DeviceTooSmall", [disk, "needs at least"], [disk], "--options=bucket_size=16M", fs_options={"bucket_size": Variant("s", "16M")})
    for value in ("0", "-1", "two", "4294967298", "99999999999999999999999", ""):
        rig.ctl_refused(f"--replicas={value}", "format", f"--replicas={value}", disk, disk + "x", code=2)
    rig.ctl_refused("nonsense", "format", "--options=nonsense", disk)
    assert rig.filesystems() == [] and held(disk) == (64 * MIB, [])


def members_own_options_are_checked(rig):
    rig.start()
    disk = rig.file("disk")
    for key, value, text in [("label", u(1), "string"), ("label", Variant("as", ["x"]), "string"), ("bytes", Variant("s", "many"), "many"),
                             ("bytes", Variant("d", 1.5), "bytes"), ("durability", u(77), "durability"), ("discard", Variant("s", "x"), "discard"),
                             ("nothing", u(1), "nothing")]:
        expect_error("InvalidOption", rig.create, [disk], "x", dev_opts={key: value}, text=text)
    for size in (1 << 62, 1 << 63, (1 << 64) - 1):  # no filesystem has such files
        try:
            rig.create([disk], "x", dev_opts={"bytes": Variant("t", size)})
        except BusError as e:
            assert disk in e.message and str(size) in e.message, e
        else:
            raise AssertionError("a member larger than any file was made")
    assert held(disk) == (64 * MIB, []), "a refused format changed the file"


def a_member_is_only_made_larger_once_it_is_ours(rig):
    """A file in use, or one that holds something, keeps its size."""
    rig.start()
    larger = {"bytes": Variant("t", 128 * MIB)}
    busy, full, fresh = rig.file("busy"), rig.file("full"), rig.file("fresh")
    rig.run(rig.create([busy], "busy"), "Start")
    rig.create([full], "full")
    before = held(full)
    expect_error("DeviceInUse", rig.create, [busy], "x", dev_opts=larger, opts={"force": Variant("b", True)}, text=busy)
    expect_error("DeviceInUse", rig.create, [full], "x", dev_opts=larger, text=full)
    expect_error("DeviceInUse", rig.create, [fresh, full], "x", dev_opts=larger, text=full)
    assert (os.path.getsize(busy), held(full), held(fresh)) == (64 * MIB, before, (64 * MIB, []))
    dry = rig.create_job([fresh], "x", dev_opts=larger, opts={"dry-run": Variant("b", True)})
    rig.wait(dry)
    assert held(fresh) == (64 * MIB, []), "a dry run changed the file"
    rig.create([fresh], "x", dev_opts=larger)
    assert os.path.getsize(fresh) == 128 * MIB
    disk = rig.loop(rig.file("behind"))
    if not disk:
        skip("without a block device: no loop device may be made here")
        return
    expect_error("DeviceTooSmall", rig.create, [disk], "x", dev_opts=larger, text=disk)


def paths_are_absolute(rig):
    rig.start()
    disk = rig.file("disk")
    for path in ("disk", "./disk", "", "~/disk"):
        expect_error("InvalidArgument", rig.create, [path], "x", text="absolute")
        expect_error("InvalidArgument", rig.manager, "Probe", "sa{sv}", path, {}, text="absolute")
        expect_error("InvalidArgument", rig.manager, "Rescan", "a{sv}", {"paths": Variant("as", [disk, path])}, text="absolute")
    fs = rig.create([disk], "x")
    for path in ("mnt", "./mnt"):
        expect_error("InvalidArgument", rig.fs, fs, "Mount", "sa{sv}", path, {}, text="absolute")
    assert rig.state(fs) == "stopped", "a refused mount started the filesystem"
    # A person in a shell may be relative; what is told is the whole path.
    rig.ctl_refused(os.path.join(rig.dir, "nothing"), "format", "nothing", cwd=rig.dir)
    rig.ctl_refused(os.path.join(rig.dir, "nothing"), "mount", "x", "nothing", cwd=rig.dir)
    rig.once_refused(os.path.join(rig.dir, "nothing"), "format", "nothing", cwd=rig.dir)
    rig.ctl_refused(disk, "format", "disk", cwd=rig.dir)
    rig.ctl_refused("absolute", "format", "")
    assert rig.state(fs) == "stopped", "a refused mount started the filesystem"
    rig.ctl("format", "--force", "--label=relative", "disk", cwd=rig.dir)


def strange_names_stay_on_their_line(rig):
    rig.start()
    odd = rig.file("odd\n\x1b[2Jname")
    rig.ctl_refused("odd\\x0a\\x1b[2Jname/x", "format", odd + "/x")
    rig.ctl("format", "--label=odd", odd)
    status = rig.ctl("status", "odd").stdout
    assert "odd\\x0a\\x1b[2Jname " in status and "\x1b" not in status, status
    rig.ctl_refused("odd\\x0a", "format", odd)
    rig.ctl_refused("\\xff", "format", os.fsencode(rig.dir) + b"/\xff")
    os.symlink(os.fsencode(rig.file("plain")), os.fsencode(rig.dir) + b"/link")
    os.rename(os.fsencode(rig.dir) + b"/plain", os.fsencode(rig.dir) + b"/pl\xe4in")
    os.unlink(os.path.join(rig.dir, "link"))
    os.symlink(os.fsencode(rig.dir) + b"/pl\xe4in", os.fsencode(rig.dir) + b"/link")
    rig.ctl_refused("pl\\xe4in", "format", os.path.join(rig.dir, "link"))


def every_method_names_the_option_it_does_not_know(rig):
    import xml.etree.ElementTree as ET

    rig.start()
    fs = rig.create([rig.file("disk")], "opts")
    rig.run(fs, "Start")
    job = rig.fs(fs, "Stop", "a{sv}", {})
    rig.wait(job)
    rig.run(fs, "Start")
    sample = {"s": "opts", "b": False, "u": 0, "a{sv}": {}, "as": [], "a(sa{sv})": [(rig.file("other"), {})], "h": 0, "o": fs}
    tried = 0
    for path in (MANAGER, fs, job):
        tree = ET.fromstring(rig.connection.call(NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect"))
        for interface in tree.findall("interface"):
            if not interface.get("name").startswith(NAME):
                continue
            for method in interface.findall("method"):
                types = [a.get("type") for a in method.findall("arg") if a.get("direction") == "in"]
                if not types or types[-1] != "a{sv}" or "h" in types:
                    continue
                args = [sample[t] for t in types]
                if method.get("name") in ("Mount", "Unmount", "Probe"):
                    args[0] = "/nowhere"
                elif method.get("name") == "SetAccessMode":
                    args[0] = "rw"
                for wrong in ({"no-such-key": Variant("b", True)}, {"reason": u(1)}, {"dry-run": Variant("s", "yes")}):
                    args[-1] = wrong
                    key, = wrong
                    error = expect_error("InvalidOption", rig.connection.call, NAME, path, interface.get("name"), method.get("name"), "".join(types), *args)
                    assert key in error.message, f"{method.get('name')}: {error.message}"
                    tried += 1
    assert tried >= 40, tried
    assert rig.state(fs) == "running" and len(rig.filesystems()) == 1 and job in rig.objects()


def mount_points_are_checked(rig):
    if not can_mount():
        return skip("mounting needs root and /dev/fuse")
    rig.start()
    fs, other = rig.create([rig.file("a")], "one"), rig.create([rig.file("b")], "two")
    good, full, file = rig.mkdir("good"), rig.mkdir("full"), os.path.join(rig.dir, "a")
    with open(os.path.join(full, "x"), "wb"):
        pass
    rig.fs(other, "Mount", "sa{sv}", good, {})
    for name, where, text in [("NotFound", os.path.join(rig.dir, "none"), "No such file"), ("InvalidArgument", file, "not a directory"),
                              ("Busy", full, "not empty"), ("AlreadyMounted", good, "mounted")]:
        error = expect_error(name, rig.fs, fs, "Mount", "sa{sv}", where, {}, text=where)
        assert text in error.message, error.message
        rig.ctl_refused([where, text], "mount", "one", where)
        assert rig.get(fs, "Filesystem", "MountPoints") == []
        if name in ("NotFound", "InvalidArgument"):
            assert rig.state(fs) == "stopped", "it was started for a place that cannot be mounted on"
    assert os.listdir(full) == ["x"] and rig.get(other, "Filesystem", "MountPoints") == [good]
    spare = rig.mkdir("spare")
    expect_error("AlreadyMounted", rig.fs, other, "Mount", "sa{sv}", spare, {}, text=good)
    rig.ctl_refused(good, "mount", "two", spare)
    rig.ctl_refused(spare, "unmount", spare)
    expect_error("NotMounted", rig.fs, other, "Unmount", "sa{sv}", spare, {}, text=spare)
    rig.fs(fs, "Mount", "sa{sv}", spare, {})  # none of it was in the way
    for pool, where in ((fs, spare), (other, good)):
        with open(os.path.join(where, "f"), "wb") as f:
            f.write(b"x")
        rig.fs(pool, "Unmount", "sa{sv}", where, {})


def a_caller_that_leaves_loses_nothing(rig):
    """terracectl killed while the format runs."""
    rig.start()
    paths = [rig.file("a", 256), rig.file("b", 256)]
    ctl = subprocess.Popen([TERRACECTL, "--address=" + rig.address, "format", "--label=left", *paths], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rig.others.append(ctl)
    jobs = []
    while not jobs and ctl.poll() is None:
        jobs = [o for o in rig.objects() if "/jobs/" in o]
    ctl.send_signal(signal.SIGKILL)
    ctl.wait()
    job, = jobs or [o for o in rig.objects() if "/jobs/" in o]
    fs = rig.wait(job)["filesystem"]
    rig.run(fs, "Start")
    assert rig.state(fs) == "running"


if __name__ == "__main__":
    main(labels_are_checked, one_label_twice_lists_the_uuids, numbers_are_checked, members_own_options_are_checked,
         a_member_is_only_made_larger_once_it_is_ours, paths_are_absolute, strange_names_stay_on_their_line,
         every_method_names_the_option_it_does_not_know, mount_points_are_checked, a_caller_that_leaves_loses_nothing)

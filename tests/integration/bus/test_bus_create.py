# SPDX-License-Identifier: LGPL-2.1-or-later
"""CreateFilesystem: what it makes, and what it refuses, by name and without touching anything."""
import os

from bus_rig import MIB, ROOT, expect_error, main
from tiny_dbus import Variant


def u(n):
    return Variant("u", n)


def a_filesystem_appears_with_its_members(rig):
    rig.start()
    fs = rig.create(rig.files(64, 64, 64), "media", fs_options={
        "data_replicas": u(2), "compression": Variant("s", "zstd:3"), "block_size": Variant("s", "8K"), "checksum_block": u(8192)})
    assert rig.get(fs, "Filesystem", "Label") == "media"
    assert rig.state(fs) == "stopped"
    assert rig.get(fs, "Filesystem", "Clean") is True
    devices = rig.get(fs, "Filesystem", "Devices")
    assert len(devices) == rig.get(fs, "Filesystem", "NumDevicesExpected") == 3
    assert sorted(rig.get(d, "Device", "Path") for d in devices) == [os.path.join(rig.dir, f"disk{i}") for i in range(3)]
    assert {rig.get(d, "Device", "Filesystem") for d in devices} == {fs}
    values, sources = rig.get(fs, "Options", "Values"), rig.get(fs, "Options", "Sources")
    assert (values["data_replicas"], values["compression"], values["block_size"]) == (2, "zstd:3", 8192)
    assert (sources["data_replicas"], sources["errors"]) == ("superblock", "default")
    assert fs == ROOT + "/filesystems/" + rig.get(fs, "Filesystem", "UUID").replace("-", "_")


def device_options_reach_the_members(rig):
    rig.start()
    fs = rig.create(rig.files(1), "grown", dev_opts={"bytes": Variant("t", 96 * MIB), "label": Variant("s", "ssd.1"), "durability": u(2)})
    device, = rig.get(fs, "Filesystem", "Devices")
    got = rig.get_all(device, "Device")
    assert (got["Size"], got["Label"], got["Durability"]) == (96 * MIB, "ssd.1", 2), got


def bad_input_is_refused_by_name(rig):
    rig.start()
    disk = rig.files(64, 64)
    small, = rig.files(4, prefix="small")
    taken = rig.files(64, prefix="taken")
    rig.create(taken, "taken")
    folder = os.path.join(rig.dir, "folder")
    os.mkdir(folder)
    alias = os.path.join(rig.dir, "alias")
    os.symlink(disk[0], alias)
    foreign, = rig.files(64, prefix="foreign")
    with open(foreign, "r+b") as f:  # the magic of ext4
        f.seek(1024 + 56)
        f.write(b"\x53\xef")
        f.seek(1024)
        f.write(b"\x00\x04\x00\x00\x00\x10\x00\x00")
        f.seek(1024 + 24)
        f.write(b"\x02\x00\x00\x00\x02\x00\x00\x00\x00\x80\x00\x00")
        f.seek(1024 + 76)
        f.write(b"\x01\x00\x00\x00")

    def made(paths, label="x", **kw):
        return rig.create(paths, label, **kw)

    for name, text, paths, label, kw in [
        ("DeviceTooSmall", small, [small], "x", {}),
        ("InvalidOption", "no_such", disk, "x", {"fs_options": {"no_such": u(1)}}),
        ("InvalidOption", "no-such", disk, "x", {"opts": {"no-such": Variant("b", True)}}),
        ("InvalidOption", "no-such", disk, "x", {"dev_opts": {"no-such": u(1)}}),
        ("InvalidOption", "data_replicas", disk, "x", {"fs_options": {"data_replicas": u(9)}}),
        ("InvalidOption", "block_size", disk, "x", {"fs_options": {"block_size": u(5000)}}),
        ("InvalidOption", "block_size", disk, "x", {"fs_options": {"block_size": Variant("d", 1.5)}}),
        ("InvalidOption", "errors", disk, "x", {"fs_options": {"errors": Variant("s", "panic")}}),
        ("InvalidOption", "durability", disk, "x", {"dev_opts": {"durability": u(77)}}),
        ("PluginMissing", "snake", disk, "x", {"fs_options": {"compression": Variant("s", "snake")}}),
        ("InvalidArgument", disk[0], [disk[0], disk[0]], "x", {}),
        ("InvalidArgument", alias, [disk[0], alias], "x", {}),
        ("InvalidArgument", "32", disk, "x" * 33, {}),
        ("InvalidArgument", None, disk, "a/b", {}),
        ("InvalidArgument", "absolute", ["disk0"], "x", {}),
        ("InsufficientDevices", "3", disk, "x", {"fs_options": {"data_replicas": u(3)}}),
        ("InsufficientDevices", None, [], "x", {}),
        ("DeviceInUse", taken[0], taken, "x", {}),
        ("DeviceInUse", "ext", [foreign], "x", {}),
        ("NotFound", "nothing", [os.path.join(rig.dir, "nothing")], "x", {}),
        ("InvalidArgument", "folder", [folder], "x", {}),
        ("LimitExceeded", "64", [f"/nowhere/{i}" for i in range(65)], "x", {}),
        ("InvalidOption", "too long", disk, "x", {"fs_options": {"compression": Variant("s", "z" * 5000)}}),
    ]:
        expect_error(name, made, paths, label, text=text, **kw)
    expect_error("LimitExceeded", rig.manager, "Rescan", "a{sv}", {"paths": Variant("as", [f"/nowhere/{i}" for i in range(65)])})
    for path in disk:
        with open(path, "rb") as f:
            assert not any(f.read()), f"{path} was written although every format of it was refused"
    assert len([o for o in rig.objects() if "/filesystems/" in o]) == 1
    rig.create(disk, "x")  # and with good input they can be used


def force_makes_the_old_one_go(rig):
    rig.start()
    paths = rig.files(64)
    old = rig.create(paths, "old")
    new = rig.create(paths, "new", opts={"force": Variant("b", True)})
    assert old != new and old not in rig.objects() and new in rig.objects()


def members_of_a_running_filesystem_cannot_be_formatted(rig):
    rig.start()
    paths = rig.files(64)
    fs = rig.create(paths, "busy")
    rig.run(fs, "Start")
    try:
        rig.create(paths, "other", opts={"force": Variant("b", True)})
    except Exception as e:
        assert getattr(e, "short", "") in ("DeviceBusy", "DeviceInUse", "Busy"), e
    else:
        raise AssertionError("a member in use was formatted")
    rig.run(fs, "Stop")
    assert rig.state(fs) == "stopped"


def a_caller_that_leaves_does_not_disturb_the_format(rig):
    from tiny_dbus import Connection
    rig.start()
    paths = rig.files(256, 256)
    rude = Connection(rig.address)
    job = rude.call("org.terracefs.Terrace1", ROOT + "/Manager", "org.terracefs.Terrace1.Manager", "CreateFilesystem", "a(sa{sv})sa{sv}a{sv}",
                    [(p, {}) for p in paths], "left", {}, {})
    rude.close()
    fs = rig.wait(job)["filesystem"]
    rig.run(fs, "Start")
    assert rig.state(fs) == "running"


if __name__ == "__main__":
    main([a_filesystem_appears_with_its_members, device_options_reach_the_members, bad_input_is_refused_by_name, force_makes_the_old_one_go,
          members_of_a_running_filesystem_cannot_be_formatted, a_caller_that_leaves_does_not_disturb_the_format])

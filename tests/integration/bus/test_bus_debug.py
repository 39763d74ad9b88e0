# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults asked for over the bus: only where the daemon was told to, what a running filesystem makes of them, and that they end."""
import errno
import os

from bus_rig import MANAGER, NAME, BusError, can_mount, expect_error, main, skip
from tiny_dbus import Variant


def rule(**options):
    types = {"probability": "d", "interval": "u", "times": "u", "errno": "s"}
    return {k: Variant(types[k], v) for k, v in options.items()}


def set_fault(rig, fs, point, **options):
    rig.call(fs, "Debug", "SetFault", "sa{sv}", point, rule(**options))


def pool(rig, label, **kw):
    rig.start("--debug-interface")
    fs = rig.create(rig.files(64, 64), label, fs_options={"data_replicas": Variant("u", 2), "metadata_replicas": Variant("u", 2)}, **kw)
    rig.run(fs, "Start")
    return fs


def changed(rig, fs, check):
    rig.connection.wait_signal(lambda m: m.member == "PropertiesChanged" and m.path == fs and check(m.body[1]))


def absent_unless_the_daemon_was_told(rig):
    rig.start()
    fs = rig.create(rig.files(64), "plain")
    assert rig.get(MANAGER, "Manager", "FaultInjection") is False
    assert NAME + ".Debug" not in rig.objects()[fs]
    try:
        rig.call(fs, "Debug", "SetFault", "sa{sv}", "io.read", {})
        raise AssertionError("there is a debug interface")
    except BusError as e:
        assert "Unknown" in e.name, e


def rules_are_checked_and_shown(rig):
    fs = pool(rig, "rules")
    assert rig.get(MANAGER, "Manager", "FaultInjection") is True
    points = rig.get(fs, "Debug", "FaultPoints")
    assert {"io.read", "io.write", "io.flush"} <= set(points) and points == sorted(points)
    assert rig.get(fs, "Debug", "Faults") == {}
    expect_error("NotFound", set_fault, rig, fs, "no.such.point", text="no.such.point")
    expect_error("InvalidOption", set_fault, rig, fs, "io.read", errno="EWRONG", text="EWRONG")
    for wrong in (0.0, -1.0, 1.5, float("nan")):
        expect_error("InvalidOption", set_fault, rig, fs, "io.read", probability=wrong, text="probability")
    expect_error("InvalidOption", rig.call, fs, "Debug", "SetFault", "sa{sv}", "io.read", {"delay-us": Variant("t", 1)}, text="delay-us")
    rig.call(fs, "Debug", "SetFault", "sa{sv}", "io.read", {"dry-run": Variant("b", True)})
    assert rig.get(fs, "Debug", "Faults") == {}
    set_fault(rig, fs, "super.format", probability=0.25, interval=3, times=7, errno="ENOSPC")
    set_fault(rig, fs, "super.open")
    assert rig.get(fs, "Debug", "Faults") == {
        "super.format": {"probability": 0.25, "interval": 3, "times": 7, "errno": "ENOSPC", "calls": 0, "fired": 0},
        "super.open": {"probability": 1.0, "interval": 1, "times": 0, "errno": "EIO", "calls": 0, "fired": 0}}
    rig.call(fs, "Debug", "ClearFaults")
    assert rig.get(fs, "Debug", "Faults") == {}


def a_failed_write_is_told_and_alerted(rig):
    fs = pool(rig, "writes")
    set_fault(rig, fs, "io.write", times=1)
    rig.fs(fs, "SetLabel", "sa{sv}", "renamed", {})  # the other member and the other copies take it
    told = rig.connection.wait_signal(lambda m: m.member == "ErrorDetected" and m.path == fs)
    assert told.body[0] == "device-error" and "a write failed" in told.body[3], told.body
    device = told.body[1]
    changed(rig, fs, lambda p: any(a[0].startswith("device-errors-") for a in p.get("Alerts", [])))
    (name, severity, message, _), = rig.get(fs, "Filesystem", "Alerts")
    assert name == "device-errors-" + rig.get(device, "Device", "UUID") and severity == "warning"
    assert rig.get(device, "Device", "Path") in message and "failed writes" in message, message
    assert rig.get(device, "Device", "WriteErrors") == 1 and rig.get(fs, "Filesystem", "Health") == "at-risk"
    assert rig.get(fs, "Debug", "Faults")["io.write"]["fired"] == 1
    rig.call(fs, "Debug", "ClearFaults")
    rig.fs(fs, "SetLabel", "sa{sv}", "again", {})
    assert rig.get(device, "Device", "WriteErrors") == 1
    rig.run(fs, "Stop")
    rig.run(fs, "Start")
    assert rig.get(fs, "Filesystem", "Alerts") == [], "errors of an earlier run are counted, and no alert any more"
    assert rig.get(device, "Device", "WriteErrors") == 1


def a_failed_read_is_told_and_the_other_copy_is_read(rig):
    if not can_mount():
        return skip("needs root and /dev/fuse")
    fs, where = pool(rig, "copies"), os.path.join(rig.dir, "mnt")
    os.mkdir(where)
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    content = os.urandom(1 << 20)
    with open(os.path.join(where, "file"), "wb") as f:
        f.write(content)
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    rig.run(fs, "Start")  # nothing is cached
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    set_fault(rig, fs, "io.read", times=1)
    with open(os.path.join(where, "file"), "rb") as f:
        assert f.read() == content
    told = rig.connection.wait_signal(lambda m: m.member == "ErrorDetected" and m.path == fs and "a read failed" in m.body[3])
    changed(rig, fs, lambda p: any("failed reads" in a[2] for a in p.get("Alerts", [])))
    assert rig.get(told.body[1], "Device", "ReadErrors") == 1
    # Without end there is no other copy: the reader hears of it, and does no more once it is cleared.
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    rig.run(fs, "Stop")
    rig.run(fs, "Start")
    rig.fs(fs, "Mount", "sa{sv}", where, {})
    with open(os.path.join(where, "file"), "rb", buffering=0) as f:
        set_fault(rig, fs, "io.read")
        try:
            f.read(4096)
            raise AssertionError("a read of what cannot be read went well")
        except OSError as e:
            assert e.errno == errno.EIO, e
        rig.call(fs, "Debug", "ClearFaults")
        f.seek(0)
        assert f.read() == content
    rig.fs(fs, "Unmount", "sa{sv}", where, {})
    return None


def reads_that_fail_everywhere_fail_the_start_and_clearing_lets_it_go(rig):
    fs = pool(rig, "reads")
    rig.run(fs, "Stop")
    set_fault(rig, fs, "super.start", times=1)
    expect_error("FaultInjected", rig.run, fs, "Start")
    assert rig.state(fs) == "failed"
    (name, severity, message, _), = rig.get(fs, "Filesystem", "Alerts")
    assert (name, severity) == ("failed", "critical") and "'reads'" in message, message
    set_fault(rig, fs, "io.read")
    try:
        rig.run(fs, "Start")
        raise AssertionError("it was started although nothing can be read")
    except BusError as e:
        assert e.name.startswith(NAME + ".Error."), e
    assert rig.get(fs, "Debug", "Faults")["io.read"]["fired"] > 0
    rig.call(fs, "Debug", "ClearFaults")
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    rig.run(fs, "Start")
    assert rig.get(fs, "Filesystem", "Alerts") == [] and rig.get(fs, "Filesystem", "AccessMode") == "rw"


def writes_that_fail_everywhere_are_an_emergency(rig):
    fs = pool(rig, "dead")
    set_fault(rig, fs, "io.write", errno="EIO")
    try:
        rig.call(fs, "Options", "Set", "a{sv}a{sv}", {"errors": Variant("s", "ro")}, {})
    except BusError:
        pass
    changed(rig, fs, lambda p: sum(a[0].startswith("device-errors-") for a in p.get("Alerts", [])) == 2)
    rig.call(fs, "Debug", "ClearFaults")
    rig.run(fs, "Stop", force=True)
    rig.run(fs, "Start")
    assert rig.get(fs, "Filesystem", "AccessMode") == "rw"


if __name__ == "__main__":
    main([absent_unless_the_daemon_was_told, rules_are_checked_and_shown, a_failed_write_is_told_and_alerted, a_failed_read_is_told_and_the_other_copy_is_read,
          reads_that_fail_everywhere_fail_the_start_and_clearing_lets_it_go, writes_that_fail_everywhere_are_an_emergency])

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mount and Unmount where systemd mounts: a stand-in for it is asked for transient units. Needs root, /dev/fuse, and a mount namespace of its own."""
import ctypes
import os
import subprocess
import threading

from bus_rig import NAME, SKIP, can_mount, expect_error, main
from stand_in import StandIn
from tiny_dbus import Connection

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
MANAGER = "org.freedesktop.systemd1.Manager"
libc = ctypes.CDLL(None, use_errno=True)


class Systemd(StandIn):
    """Does what its mount unit does by calling mount.terrace: start, mount, hand the descriptor over."""

    def __init__(self, rig, result="done", refuse=None):
        self.rig, self.result, self.refuse, self.asked, self.jobs = rig, result, refuse, [], 0
        super().__init__(rig.address, "org.freedesktop.systemd1")

    def serve(self, call):
        self.asked.append((call.member, call.body))
        if self.refuse:
            self.bus.refuse(call, *self.refuse)
            return
        self.jobs += 1
        job = f"/org/freedesktop/systemd1/job/{self.jobs}"
        self.bus.answer(call, "o", job)
        # One that is not ours comes first.
        self.bus.emit("/org/freedesktop/systemd1", MANAGER, "JobRemoved", "uoss", 99, "/org/freedesktop/systemd1/job/99", "other.mount", "failed")
        if self.result == "done":
            threading.Thread(target=self.work, args=(call, job)).start()
        else:
            self.removed(job, call.body[0])

    def removed(self, job, unit):
        self.bus.emit("/org/freedesktop/systemd1", MANAGER, "JobRemoved", "uoss", self.jobs, job, unit, self.result)

    def work(self, call, job):
        where = os.path.join(self.rig.dir, "mnt")
        if call.member == "StartTransientUnit":
            fs, connection = self.fs, Connection(self.rig.address)
            connection.call(NAME, connection.call(NAME, fs, NAME + ".Filesystem", "Start", "a{sv}", {}), NAME + ".Job", "Wait", "ua{sv}", 30, {})
            fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
            data = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions".encode()
            assert libc.mount(b"terrace:test", where.encode(), b"fuse.terrace", 0, data) == 0
            connection.call(NAME, fs, NAME + ".Filesystem", "AttachFuse", "hsa{sv}", 0, where, {}, fds=[fd])
            os.close(fd)
            connection.close()
        else:
            subprocess.run(["umount", where], check=True)
        self.removed(job, call.body[0])


def units_are_asked_for(rig):
    rig.start()
    fs = rig.create(rig.files(128), "unit")
    uuid = rig.get(fs, "Filesystem", "UUID")
    where = os.path.join(rig.dir, "mnt")
    os.mkdir(where)
    systemd = Systemd(rig)
    systemd.fs = fs
    try:
        assert rig.fs(fs, "Mount", "sa{sv}", where, {}) == where
        assert rig.get(fs, "Filesystem", "MountPoints") == [where]
        expect_error("AlreadyMounted", rig.fs, fs, "Mount", "sa{sv}", where, {}, text=where)
        rig.fs(fs, "Unmount", "sa{sv}", where, {})
        assert rig.get(fs, "Filesystem", "MountPoints") == [], "the caller was told before the property was right"
    finally:
        systemd.close()
    unit = subprocess.run(["systemd-escape", "--path", "--suffix=mount", where], capture_output=True, text=True, check=True).stdout.strip()
    (start, (name, mode, properties, aux)), (stop, stop_args) = systemd.asked
    assert (start, name, mode, aux) == ("StartTransientUnit", unit, "fail", []), systemd.asked
    assert dict(properties)["What"] == "terrace:" + uuid and dict(properties)["Type"] == "terrace" and dict(properties)["Options"] == ""
    assert (stop, stop_args) == ("StopUnit", [unit, "replace"])
    rig.run(fs, "Stop")


def what_systemd_says_is_passed_on(rig):
    rig.start()
    fs = rig.create(rig.files(128), "unit")
    for kw, name, text in [({"result": "failed"}, "Failed", "journalctl"),
                           ({"refuse": ("org.freedesktop.systemd1.UnitExists", "It exists.")}, "AlreadyMounted", "It exists."),
                           ({"refuse": ("org.freedesktop.DBus.Error.AccessDenied", "No way.")}, "Failed", "No way.")]:
        systemd = Systemd(rig, **kw)
        try:
            expect_error(name, rig.fs, fs, "Mount", "sa{sv}", "/mnt", {}, text=text)
        finally:
            systemd.close()
    assert rig.get(fs, "Filesystem", "MountPoints") == []


def pretend_to_be_booted():
    """sd_booted() looks for a folder in /run; here in a namespace where nobody else sees it."""
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return False
    if libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None) != 0:
        return False
    os.makedirs("/run/systemd/system")
    return True


if __name__ == "__main__":
    if not can_mount() or not pretend_to_be_booted():
        print("needs root, /dev/fuse and a mount namespace")
        raise SystemExit(SKIP)
    main([units_are_asked_for, what_systemd_says_is_passed_on], system=True)

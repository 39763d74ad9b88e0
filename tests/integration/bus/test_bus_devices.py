# SPDX-License-Identifier: LGPL-2.1-or-later
"""What udev and sysfs know of a member: a loop device with a made-up record in udev's database. Needs root, loop devices, and a mount namespace of its own."""
import ctypes
import os
import subprocess

from bus_rig import SKIP, main, skip
from tiny_dbus import Variant

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
UDEV = "/run/udev/data"
libc = ctypes.CDLL(None, use_errno=True)


def private_run():
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return False
    if libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None) != 0:
        return False
    os.makedirs(UDEV)
    return True


def loop(path):
    done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 and os.path.exists(done.stdout.strip()) else None


def record(device, *lines):
    rdev = os.stat(device).st_rdev
    with open(f"{UDEV}/b{os.major(rdev)}:{os.minor(rdev)}", "w", encoding="utf-8") as f:
        f.write("".join(line + "\n" for line in lines))


def device_of(rig, fs, path):
    return next(rig.get_all(d, "Device") for d in rig.get(fs, "Filesystem", "Devices") if rig.get(d, "Device", "Path") == path)


def a_block_device_has_names_and_a_file_has_none(rig):
    paths = rig.files(64, 64)
    device = loop(paths[0])
    if not device:
        return skip("needs a loop device")
    try:
        record(device, "S:disk/by-label/second", "S:disk/by-id/first", "E:ID_MODEL=Good_Disk", "E:ID_MODEL_ENC=Good\\x20Disk\\x20\\xff\\x20\\x20", "E:ID_SERIAL=X_S123",
               "E:ID_SERIAL_SHORT=S123")
        rig.start()
        fs = rig.create([device, paths[1]], "mixed")
        for state in ("stopped", "running"):
            assert rig.state(fs) == state
            got, file = device_of(rig, fs, device), device_of(rig, fs, paths[1])
            assert got["Symlinks"] == ["/dev/disk/by-id/first", "/dev/disk/by-label/second"], got["Symlinks"]
            assert (got["Model"], got["Serial"]) == ("Good Disk \\xff", "S123"), got
            assert (file["Symlinks"], file["Model"], file["Serial"]) == ([], "", ""), file
            if state == "stopped":
                with open(f"/sys/class/block/{os.path.basename(device)}/queue/rotational", encoding="ascii") as f:
                    assert got["Rotational"] is (f.read().strip() == "1")
                rig.run(fs, "Start")
        # What the machine says anew is seen by a start, and by a rescan.
        rig.run(fs, "Stop")
        record(device, "E:ID_MODEL=Plain_Name")
        rig.run(fs, "Start")
        got = device_of(rig, fs, device)
        assert (got["Symlinks"], got["Model"], got["Serial"]) == ([], "Plain_Name", ""), got
        rig.run(fs, "Stop")
        os.unlink(os.path.join(UDEV, os.listdir(UDEV)[0]))
        rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [device])}))
        assert device_of(rig, fs, device)["Model"] == ""
        rig.end()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


if __name__ == "__main__":
    if os.geteuid() != 0 or not private_run():
        print("needs root and a mount namespace")
        raise SystemExit(SKIP)
    main([a_block_device_has_names_and_a_file_has_none])

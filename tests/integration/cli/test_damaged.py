#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file whose data is lost on every member: the read says EIO, terracectl lists the file by name, the rest of the pool goes on, and the note can be taken back."""
import errno
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from test_cli import *


def spoil(paths, content):
    """One byte of every block of the content, wherever a member holds it."""
    spoilt = 0
    for path in paths:
        with open(path, "r+b") as f:
            data = f.read()
            for at in range(0, len(content), 4096):
                found = data.find(content[at:at + 4096])
                if found >= 0:
                    f.seek(found + 100)
                    f.write(bytes([data[found + 100] ^ 0xff]))
                    spoilt += 1
    return spoilt


def read_fails(path):
    try:
        with open(path, "rb") as f:
            f.read()
    except OSError as e:
        return e.errno == errno.EIO
    return False


def listed(d, wanted):
    """Notes are made in the background."""
    until = time.monotonic() + 10
    while True:
        rows = json.loads(d.ctl("damaged", "--json", "media").stdout)
        if [row["path"] for row in rows] == wanted:
            return rows
        check(time.monotonic() < until, "listed %r instead of %r" % (rows, wanted))
        time.sleep(0.05)


def alerted(d, wanted):
    """In status, for people and for programs; told in the background."""
    until = time.monotonic() + 10
    while True:
        alerts = {a[0]: a for a in json.loads(d.ctl("status", "--json", "media").stdout)[0]["Filesystem"]["Alerts"]}
        if ("damaged-files" in alerts) == wanted:
            break
        check(time.monotonic() < until, "the alerts are %r" % alerts)
        time.sleep(0.05)
    check(("critical: Files of filesystem 'media' have lost data. Which ones: terracectl damaged media." in d.ctl("status", "media").stdout) == wanted, "status for people")
    if wanted:
        check(alerts["damaged-files"][1] == "critical" and "jpg" not in str(alerts), "an alert names a file: %r" % alerts)


@with_daemon
def a_lost_file_is_listed_by_name(d):
    files = [d.member("m%d" % i, 128) for i in range(2)]
    content = os.urandom(1 << 20)
    d.ctl("format", "--label=media", "--replicas=2", *files)
    d.ctl("mount", "media", d.mnt)
    os.mkdir(d.mnt + "/photos")
    for name in "a.jpg", "b.jpg":
        with open(d.mnt + "/photos/" + name, "wb") as f:
            f.write(content if name == "a.jpg" else content[::-1])
    check("No file is known" in d.ctl("damaged", "media").stdout, "something is listed from the beginning")
    d.ctl("unmount", d.mnt)
    d.ctl("stop", "media")
    check(spoil(files, content) == 512, "not every block of both copies was found on the members")

    d.ctl("mount", "media", d.mnt)
    alerted(d, False)
    lost = d.mnt + "/photos/a.jpg"
    check(read_fails(lost), "a read of lost data succeeds")
    row = listed(d, ["/photos/a.jpg"])[0]
    alerted(d, True)
    check(row["inode"] == os.stat(lost).st_ino and "no good copy" in row["errors"][0], "what is listed: %r" % row)
    check("photos/a.jpg: no good copy of byte 0" in d.ctl("damaged", "media").stdout, "the list for people")
    with open(d.mnt + "/photos/b.jpg", "rb") as f:
        check(f.read() == content[::-1], "the other file")
    os.rename(lost, d.mnt + "/moved.jpg")
    lost = d.mnt + "/moved.jpg"
    listed(d, ["/moved.jpg"])
    d.ctl("unmount", d.mnt)
    d.ctl("stop", "media")
    d.ctl("mount", "media", d.mnt)
    listed(d, ["/moved.jpg"])
    alerted(d, True)  # nobody has read it since the start
    check("Nothing wrong" in d.ctl("fsck", "media").stdout, "fsck")

    # Data put back, note taken back; a file elsewhere is not one of this filesystem.
    with open(lost, "wb") as f:
        f.write(content)
    d.refused("not one on this filesystem's mount", "damaged", "media", files[0])
    d.ctl("damaged", "media", lost)
    listed(d, [])
    alerted(d, False)
    with open(lost, "rb") as f:
        check(f.read() == content, "what was put back")
    d.ctl("unmount", d.mnt)
    d.ctl("stop", "media")


if __name__ == "__main__":
    need_fuse()
    if not shutil.which("dbus-daemon"):
        skip("there is no dbus-daemon")
    main(a_lost_file_is_listed_by_name)

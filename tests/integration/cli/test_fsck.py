#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checking and repairing from the command line: offline with terraced, and over the bus with terracectl; what a start says of errors that nobody repaired."""
import hashlib
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_cli import *

PLANT = os.environ["PLANT_DAMAGE"]


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def fsck(d, *args, answers=None):
    return subprocess.run([TERRACED, "--once", "fsck", *args], input=answers, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, env=d.env)


def make_pool(d, name):
    """A pool with /dir/file in it, stopped."""
    member = d.member(name, 64)
    d.ctl("--label=" + name, "format", member)
    d.ctl("mount", name, d.mnt)
    os.mkdir(os.path.join(d.mnt, "dir"))
    with open(os.path.join(d.mnt, "dir", "file"), "w") as f:
        f.write("hello")
    d.ctl("unmount", d.mnt)
    d.ctl("stop", name)
    return member


def offline(d, member):
    r = fsck(d, member)
    check(r.returncode == 0 and "Nothing wrong" in r.stdout, r.stdout)
    d.call(PLANT, "entry", member)
    before = digest(member)
    r = fsck(d, "-n", member)
    check(r.returncode == 1 and "has no name" not in r.stdout and "contradictions were found" in r.stdout, r.stdout)
    check(digest(member) == before, "a check wrote to the member")
    r = fsck(d, "--ask", member, answers="what\nn\nn\nn\nn\nn\nn\n")
    check(r.returncode == 1 and "Do it? (y)es" in r.stdout and "are left" in r.stdout, r.stdout)
    r = fsck(d, "--ask", member, answers="")  # nobody answers: nothing is done
    check(r.returncode == 1 and "0 repairs were made" in r.stdout, r.stdout)
    r = fsck(d, "--ask", member, answers="q\n")
    check(r.returncode == 1 and "cancelled" in r.stdout, r.stdout)
    r = fsck(d, "--ask", "-y", member)
    check(r.returncode == 2, r.stdout)


def unrepaired_is_read_only(d, name, member):
    """The errors of offline() are known, and were not repaired."""
    d.ctl("start", name)
    status = d.ctl("status", name).stdout
    check("terracectl fsck --repair " + name in status or "fsck --repair" in d.log_text(), status + d.log_text())
    d.ctl("mount", name, d.mnt)
    try:
        open(os.path.join(d.mnt, "new"), "w").close()
        written = True
    except OSError:
        written = False
    check(not written, "a filesystem with errors can be written")
    d.refused("terracectl unmount", "-y", "fsck", name)
    d.ctl("unmount", d.mnt)
    d.refused("terracectl stop " + name, "-y", "fsck", name)
    d.ctl("stop", name)
    r = d.ctl("--repair", "fsck", name)
    check("lost+found" in r.stdout and "Nothing wrong" in r.stdout, r.stdout)
    check("Nothing wrong" in d.ctl("fsck", name).stdout, "still wrong")
    d.ctl("mount", name, d.mnt)
    lost = os.listdir(os.path.join(d.mnt, "lost+found"))
    check(len(lost) == 1 and lost[0][0] == "#", str(lost))
    with open(os.path.join(d.mnt, "lost+found", lost[0])) as f:
        check(f.read() == "hello", "the file has other bytes")
    check(os.stat(os.path.join(d.mnt, "lost+found")).st_mode & 0o777 == 0o700, "mode of /lost+found")
    open(os.path.join(d.mnt, "new"), "w").close()
    d.ctl("unmount", d.mnt)
    d.ctl("stop", name)


def repair_at_once(d, member):
    d.call(PLANT, "entry", member)
    d.call(PLANT, "space", member)
    r = fsck(d, "-y", member)
    check(r.returncode == 0 and "nothing is wrong any more" in r.stdout, r.stdout)
    r = fsck(d, member)
    check(r.returncode == 0, r.stdout)


def careful_starts(d, name, member):
    """terracectl start --check and --dry."""
    before = digest(member)
    d.ctl("--dry", "start", name)
    check("running (ro)" in d.ctl("status", name).stdout, "a dry start is not read-only")
    d.refused("running already", "--check", "start", name)
    d.ctl("stop", name)
    check(digest(member) == before, "a dry start wrote to the member")
    d.call(PLANT, "entry", member)
    d.ctl("--check", "start", name)
    status = d.ctl("status", name).stdout
    check("running (ro)" in status and "critical: Filesystem '%s': It is read-only because errors were found" % name in status, status)
    d.ctl("stop", name)
    check("warning: Errors were met in filesystem '%s'" % name in d.ctl("status", name).stdout, "a stopped filesystem does not say that it has errors")
    d.ctl("-y", "fsck", name)
    d.ctl("--check", "start", name)
    status = d.ctl("status", name).stdout
    check("running (rw)" in status and "critical" not in status and "warning" not in status, status)
    d.ctl("stop", name)


def degraded(d):
    """Written while a member was away: no error, and a repair makes the missing copies."""
    members = [d.member("half%d" % i, 64) for i in range(2)]
    d.call(TERRACED, "--once", "format", "--replicas=2", *members)
    serve = subprocess.Popen([TERRACED, "--once", "serve", "--degraded=yes", d.mnt, members[0]], env=d.env, stdout=d.log, stderr=d.log)
    wait_mounted(d)
    content = os.urandom(3 << 20)
    with open(os.path.join(d.mnt, "alone"), "wb") as f:
        f.write(content)
    d.call("umount", d.mnt)
    check(serve.wait(60) == 0, d.log_text())
    r = fsck(d, "-n", *members)
    check(r.returncode == 0 and "Nothing wrong" in r.stdout and "Degraded: 3.0 MiB" in r.stdout, r.stdout)
    r = fsck(d, "--ask", *members, answers="n\n")
    check(r.returncode == 0 and "copies:" in r.stdout and "Degraded: 3.0 MiB" in r.stdout, r.stdout)
    r = fsck(d, "-y", *members)
    check(r.returncode == 0 and "got the copies" in r.stdout and "Degraded" not in r.stdout, r.stdout)
    r = fsck(d, *members)
    check(r.returncode == 0 and "Degraded" not in r.stdout, r.stdout)
    places = []
    for path in members:
        with open(path, "rb") as f:
            places.append(f.read().count(content[4096:8192]))
    check(places == [1, 1], "copies on the members: %r" % places)


def dry(d, member):
    """A crashed pool, served without a byte being written."""
    serve = subprocess.Popen([TERRACED, "--once", "serve", d.mnt, member], env=d.env, stdout=d.log, stderr=d.log)
    wait_mounted(d)
    with open(os.path.join(d.mnt, "late"), "w") as f:
        f.write("late")
        f.flush()
        os.fsync(f.fileno())
    serve.kill()
    serve.wait(60)
    subprocess.run(["umount", "-l", d.mnt])
    before = digest(member)
    serve = subprocess.Popen([TERRACED, "--once", "serve", "--dry", d.mnt, member], env=d.env, stdout=d.log, stderr=d.log)
    wait_mounted(d)
    with open(os.path.join(d.mnt, "late")) as f:
        check(f.read() == "late", "the journal was not replayed")
    serve.send_signal(signal.SIGTERM)
    check(serve.wait(60) == 0, d.log_text())
    check(digest(member) == before, "a dry start wrote to the member")
    check("format 1." in d.log_text() and "started ro" in d.log_text(), d.log_text())


def wait_mounted(d):
    until = time.monotonic() + 60
    while not os.path.ismount(d.mnt):
        check(time.monotonic() < until, "it is not mounted: " + d.log_text())
        time.sleep(0.05)


def errors_and_their_repair():
    d = Daemon()
    try:
        member = make_pool(d, "sick")
        offline(d, member)
        unrepaired_is_read_only(d, "sick", member)
        repair_at_once(d, member)
        careful_starts(d, "sick", member)
        dry(d, member)
        degraded(d)
    finally:
        d.close()


if __name__ == "__main__":
    need_fuse()
    for tool in ["dbus-daemon", "busctl"]:
        if not shutil.which(tool):
            skip("there is no %s" % tool)
    main(errors_and_their_repair)

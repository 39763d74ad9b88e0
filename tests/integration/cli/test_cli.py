#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""terracectl, mount.terrace and the bus calls of the README against a daemon on a private bus: the everyday life of a filesystem, and what it says when things go wrong."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../mount"))
from rig import *

TERRACECTL = os.environ.get("TERRACECTL", os.path.join(os.path.dirname(__file__), "../../../build/dbus/client/terracectl"))
MOUNT_TERRACE = os.environ.get("MOUNT_TERRACE", os.path.join(os.path.dirname(TERRACECTL), "mount.terrace"))
NAME = "org.terracefs.Terrace1"
MANAGER = "/org/terracefs/Terrace1/Manager"


class Daemon:
    """A private bus, a daemon on it, and a directory for members and mounts."""

    def __init__(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="terrace-cli-"))
        self.mnt = os.path.join(self.dir, "mnt")
        os.mkdir(self.mnt)
        self.bus = subprocess.Popen(["dbus-daemon", "--session", "--print-address", "--nofork"], stdout=subprocess.PIPE, text=True)
        self.address = self.bus.stdout.readline().strip()
        self.env = dict(os.environ, DBUS_SESSION_BUS_ADDRESS=self.address, DBUS_SYSTEM_BUS_ADDRESS=self.address)
        self.daemon = None
        self.start()

    def start(self):
        self.log = open(os.path.join(self.dir, "log"), "a+")
        self.daemon = subprocess.Popen([TERRACED, "--session", "--state-dir", os.path.join(self.dir, "state")],
                                       env=self.env, stdout=self.log, stderr=self.log)
        until = time.monotonic() + 30
        while self.call("busctl", "--address=" + self.address, "call", NAME, MANAGER, NAME + ".Manager", "Ping", ok=False).returncode != 0:
            check(self.daemon.poll() is None, "the daemon ended: %s" % self.log_text())
            check(time.monotonic() < until, "the daemon does not answer: %s" % self.log_text())
            time.sleep(0.05)

    def log_text(self):
        with open(os.path.join(self.dir, "log")) as f:
            return f.read()[-3000:]

    def stop(self, sig=signal.SIGTERM):
        self.daemon.send_signal(sig)
        code = self.daemon.wait(60)
        self.daemon = None
        return code

    def call(self, *args, ok=True):
        return run(*args, ok=ok, env=self.env)

    def ctl(self, *args, ok=True):
        return self.call(TERRACECTL, "--address=" + self.address, *args, ok=ok)

    def refused(self, text, *args):
        r = self.ctl(*args, ok=False)
        check(r.returncode != 0 and text in r.stdout, "terracectl %s: exit %d, %r" % (" ".join(args), r.returncode, r.stdout))
        check(r.stdout.count("\n") <= 2, "more than a line: %r" % r.stdout)

    def member(self, name, mib):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.truncate(mib << 20)
        return path

    def close(self):
        subprocess.run(["umount", "-l", self.mnt], stderr=subprocess.DEVNULL)
        for p in (self.daemon, self.bus):
            if p:
                p.terminate()
                try:
                    p.wait(30)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def with_daemon(fn):
    def test():
        d = Daemon()
        try:
            fn(d)
        finally:
            d.close()
    test.__name__ = fn.__name__
    return test


@with_daemon
def an_everyday_life(d):
    files = [d.member("m%d" % i, 256) for i in range(3)]
    d.ctl("format", "--label=media", "--replicas=2", "--compression=zstd", "--checksum=crc32c", *files)
    d.ctl("mount", "media", d.mnt)
    check(mounted(d.mnt), "mounted")
    run("cp", "-a", "/usr/include/linux", d.mnt)
    want = describe_tree("/usr/include/linux", nlink_of_dirs=False)
    d.ctl("sync", "media")
    text = d.ctl("status").stdout
    for word in ["media", "running", "rw", d.mnt, files[0], "Data by replicas", "Compression ratio"]:
        check(word in text, "status does not show %r:\n%s" % (word, text))
    status = json.loads(d.ctl("status", "--json", "media").stdout)
    check(status[0]["Filesystem"]["Label"] == "media" and len(status[0]["devices"]) == 3, "status --json")
    until = time.monotonic() + 15  # usage on the bus is at most some seconds old
    while json.loads(d.ctl("status", "--json", "media").stdout)[0]["Usage"]["CompressionRatio"] < 1.2:
        check(time.monotonic() < until, "the tree was not compressed")
        time.sleep(0.5)

    check("compression=zstd" in d.ctl("options", "media").stdout, "options")
    d.ctl("options", "media", "compression=lz4")
    check("compression=lz4" in d.ctl("options", "media", "compression").stdout, "options after setting")
    d.refused("journal_flush_ms", "options", "media", "journal_flush_ms=0")
    d.refused("nonsense", "options", "media", "nonsense=1")
    check("Nothing wrong" in d.ctl("fsck", "media").stdout, "fsck")

    compare(want, describe_tree(d.mnt + "/linux", nlink_of_dirs=False), "before unmounting")
    d.ctl("unmount", d.mnt)
    check(not mounted(d.mnt), "unmounted")
    d.ctl("stop", "media")
    check(d.stop() == 0, "SIGTERM: %s" % d.log_text())
    d.start()
    check("media" in d.ctl("status").stdout, "the pool is found again after a restart")
    d.ctl("mount", files[1], d.mnt)  # by a member's path
    compare(want, describe_tree(d.mnt + "/linux", nlink_of_dirs=False), "after a restart")
    check("compression=lz4" in d.ctl("options", "media", "compression").stdout, "a persistent option")
    check(d.stop() == 0, "SIGTERM with a mount: %s" % d.log_text())
    check(not mounted(d.mnt), "SIGTERM leaves no mount")
    run(TERRACED, "--once", "fsck", *files)


@with_daemon
def synced_files_survive_a_killed_daemon(d):
    files = [d.member("m%d" % i, 256) for i in range(3)]
    d.ctl("format", "--label=k", "--replicas=2", *files)
    d.ctl("mount", "k", d.mnt)
    run("cp", "-a", "/usr/include/linux", d.mnt)
    d.ctl("sync", "k")
    d.stop(signal.SIGKILL)
    d.start()
    d.ctl("mount", "k", d.mnt)  # removes what the dead one left there
    compare(describe_tree("/usr/include/linux", nlink_of_dirs=False), describe_tree(d.mnt + "/linux", nlink_of_dirs=False), "after kill -9")
    d.ctl("unmount", d.mnt)
    d.ctl("stop", "k")
    os.rename(files[2], files[2] + ".away")
    d.stop()
    d.start()
    d.refused("--degraded=yes", "start", "k")
    d.ctl("--degraded=yes", "mount", "k", d.mnt)
    compare(describe_tree("/usr/include/linux", nlink_of_dirs=False), describe_tree(d.mnt + "/linux", nlink_of_dirs=False), "without a member")
    check(d.ctl("--quiet", "status", "k", ok=False).returncode == 4, "exit code of a degraded status")
    text = d.ctl("status", "k", ok=False).stdout
    uuid = json.loads(d.ctl("status", "--json", "k", ok=False).stdout)[0]["Filesystem"]["MissingDevices"][0]
    check("warning: Filesystem 'k' runs without member 2 (%s)" % uuid in text and text.count("missing") == 1, "the alert of a degraded status: " + text)


@with_daemon
def mount_helper(d):
    files = [d.member("m%d" % i, 128) for i in range(2)]
    d.ctl("format", "--label=h", *files)
    d.call(MOUNT_TERRACE, "terrace:h", d.mnt, "-o", "rw,nofail,noatime")
    with open(d.mnt + "/f", "w") as f:
        f.write("x")
    other = os.path.join(d.dir, "other")
    os.mkdir(other)
    r = d.call(MOUNT_TERRACE, "terrace:h", other, ok=False)
    check(r.returncode != 0 and d.mnt in r.stdout, "a second mount must name the first: %r" % r.stdout)
    check(not mounted(other), "a refused mount is left")
    r = d.call(MOUNT_TERRACE, "terrace:h", other, "-o", "nonsense", ok=False)
    check(r.returncode != 0 and "nonsense" in r.stdout, "a wrong mount option: %r" % r.stdout)
    run("umount", d.mnt)


@with_daemon
def bus_calls_of_the_readme(d):
    files = [d.member("m%d" % i, 128) for i in range(2)]
    d.ctl("format", "--label=media", *files)
    a = "--address=" + d.address
    check("/org/terracefs/Terrace1/Manager" in d.call("busctl", a, "tree", NAME).stdout, "busctl tree")
    d.call("busctl", a, "call", NAME, MANAGER, NAME + ".Manager", "Ping")
    out = d.call("gdbus", "call", "--address", d.address, "-d", NAME, "-o", MANAGER, "-m", NAME + ".Manager.ResolveFilesystem", "media", "{}").stdout
    check("/org/terracefs/Terrace1/filesystems/" in out, "gdbus call: %r" % out)
    path = out.split("'")[1]
    out = d.call("busctl", a, "introspect", NAME, path).stdout
    for word in [".Start", ".Stop", ".Mount", ".State", ".Values", ".Fsck", ".Capacity"]:
        check(word in out, "busctl introspect does not show %s" % word)


@with_daemon
def mistakes_get_one_clear_line(d):
    a, b, tiny = d.member("a", 64), d.member("b", 64), d.member("tiny", 1)
    d.refused("needs at least", "format", tiny)
    d.refused("twice", "format", a, a)
    d.refused("3 copies", "format", "--replicas=3", a, b)
    d.refused("label", "format", "--label=a/b", a)
    d.refused("label", "format", "--label=" + "x" * 33, a)
    d.refused("nonsense", "format", "--options=nonsense=1", a)
    d.refused("journal_flush_ms", "format", "--options=journal_flush_ms=99999999", a)
    d.refused("lzfoo", "format", "--compression=lzfoo", a)
    d.refused("absent", "format", d.dir + "/absent")
    d.refused("nowhere", "mount", "nowhere", d.mnt)
    d.ctl("format", "--label=one", a)
    d.refused("--force", "format", a)
    d.refused("absent", "mount", "one", d.dir + "/absent")
    d.refused("not a directory", "mount", "one", a)
    open(d.mnt + "/occupied", "w").close()
    d.refused("not empty", "mount", "one", d.mnt)
    os.unlink(d.mnt + "/occupied")
    d.ctl("mount", "one", d.mnt)
    d.refused(d.mnt, "mount", "one", d.mnt)
    inner = d.mnt + "/member"
    with open(inner, "wb") as f:
        f.truncate(64 << 20)
    d.refused("Terrace", "format", inner)
    os.unlink(inner)
    d.ctl("unmount", d.mnt)
    d.refused("mounted", "unmount", d.mnt)
    d.ctl("format", "--label=one", b)
    d.refused("one", "start", "one")
    check(d.ctl("nonsense", ok=False).returncode == 2 and d.ctl("mount", ok=False).returncode == 2, "exit code of wrong usage")


if __name__ == "__main__":
    need_fuse()
    for tool in ["dbus-daemon", "busctl", "gdbus"]:
        if not shutil.which(tool):
            skip("there is no %s" % tool)
    main(an_everyday_life, synced_files_survive_a_killed_daemon, mount_helper, bus_calls_of_the_readme, mistakes_get_one_clear_line)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pool over files in a temporary directory, served by `terraced --once serve`, for the tests beside this file.

Everything a test makes is its own and goes away with it: the members, the mount, the daemon (ended by its pid).
"""
import contextlib
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

TERRACED = os.environ.get("TERRACED", os.path.join(os.path.dirname(__file__), "../../../build/daemon/terraced"))
START_SECONDS = 60


class Failed(Exception):
    pass


def skip(why):
    print("SKIP:", why)
    sys.exit(77)


def need_fuse():
    if os.geteuid() != 0:
        skip("mounting needs root")
    if not os.path.exists("/dev/fuse"):
        skip("this machine has no /dev/fuse")


def check(condition, text):
    if not condition:
        raise Failed(text)


def run(*args, ok=True, **kw):
    r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if ok and r.returncode != 0:
        raise Failed("%s: exit %d\n%s" % (" ".join(args), r.returncode, r.stdout))
    return r


def mounted(where):
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == where for line in f)


class Pool:
    """Members, a mount point, and the daemon that serves it."""

    def __init__(self, members=2, mib=512, options=("--replicas=2",), serve=()):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="terrace-test-"))
        self.mnt = os.path.join(self.dir, "mnt")
        os.mkdir(self.mnt)
        self.members = []
        self.serve_options = list(serve)
        self.daemon = None
        sizes = [mib] * members if isinstance(mib, int) else mib
        for i, size in enumerate(sizes):
            path = os.path.join(self.dir, "member%d" % i)
            with open(path, "wb") as f:
                f.truncate(size << 20)
            self.members.append(path)
        self.options = list(options)

    def format(self):
        run(TERRACED, "--once", "format", *self.options, *self.members)

    def start(self, members=None, extra=()):
        self.log = open(os.path.join(self.dir, "log"), "a+")
        self.daemon = subprocess.Popen(
            [TERRACED, "--once", "serve", *self.serve_options, *extra, self.mnt, *(members or self.members)],
            stdout=self.log, stderr=self.log)
        until = time.monotonic() + START_SECONDS
        while not mounted(self.mnt):
            if self.daemon.poll() is not None:
                code, self.daemon = self.daemon.returncode, None
                raise Failed("the daemon ended with %d:\n%s" % (code, self.log_text()))
            if time.monotonic() > until:
                raise Failed("not mounted after %d s" % START_SECONDS)
            time.sleep(0.01)
        os.statvfs(self.mnt)  # answered: it serves

    def log_text(self):
        with open(os.path.join(self.dir, "log")) as f:
            return f.read()[-4000:]

    def wait_end(self, seconds=120):
        try:
            code = self.daemon.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed("the daemon did not end within %d s:\n%s" % (seconds, self.log_text()))
        self.daemon = None
        return code

    def stop(self):
        run("umount", self.mnt)
        code = self.wait_end()
        check(code == 0, "the daemon ended with %d:\n%s" % (code, self.log_text()))

    def kill(self):
        """The daemon dies; what the kernel holds of the mount goes with it."""
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        self.daemon = None
        subprocess.run(["umount", "-l", self.mnt], stderr=subprocess.DEVNULL)

    def fsck(self, what):
        """Every relation holds in what the members hold now (nothing serves them)."""
        r = run(TERRACED, "--once", "fsck", *self.members, ok=False)
        check(r.returncode == 0, "fsck %s:\n%s" % (what, r.stdout[-3000:]))

    def close(self):
        if self.daemon:
            subprocess.run(["umount", self.mnt], stderr=subprocess.DEVNULL)
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        subprocess.run(["umount", "-l", self.mnt], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def rss_peak_kib(self):
        with open("/proc/%d/status" % self.daemon.pid) as f:
            return int(next(l for l in f if l.startswith("VmHWM")).split()[1])


@contextlib.contextmanager
def pool(*args, **kw):
    p = Pool(*args, **kw)
    try:
        p.format()
        p.start()
        yield p
    finally:
        p.close()


def describe(path, with_times=False):
    """What a person would compare of one file."""
    st = os.lstat(path)
    d = {"mode": st.st_mode, "uid": st.st_uid, "gid": st.st_gid}
    if stat.S_ISLNK(st.st_mode):
        d["target"] = os.readlink(path)
    elif stat.S_ISREG(st.st_mode):
        d["size"], d["nlink"] = st.st_size, st.st_nlink
        h = hashlib.blake2b(digest_size=16)
        with open(path, "rb") as f:
            for block in iter(lambda: f.read(1 << 20), b""):
                h.update(block)
        d["hash"] = h.hexdigest()
    elif stat.S_ISDIR(st.st_mode):
        d["nlink"] = st.st_nlink
    else:
        d["rdev"] = st.st_rdev
    if with_times and not stat.S_ISLNK(st.st_mode):
        d["mtime"] = st.st_mtime_ns
    return d


def describe_tree(root, nlink_of_dirs=True, with_times=False):
    tree = {}
    for here, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(here, name)
            d = describe(path, with_times)
            if not nlink_of_dirs and stat.S_ISDIR(d["mode"]):
                d.pop("nlink")
            tree[os.path.relpath(path, root)] = d
    return tree


def compare(a, b, what):
    lost, more = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    differ = sorted(k for k in a.keys() & b.keys() if a[k] != b[k])
    if lost or more or differ:
        raise Failed("%s: lost %s, more %s, differ %s" % (
            what, lost[:5], more[:5], [(k, a[k], b[k]) for k in differ[:3]]))


def seed():
    s = int(os.environ.get("TER_TEST_SEED") or random.randrange(1 << 32))
    print("TER_TEST_SEED=%d" % s, flush=True)
    return random.Random(s)


def main(*tests):
    ran = failed = 0
    only = sys.argv[1:]
    for t in tests:
        if only and t.__name__ not in only:
            continue
        ran += 1
        begin = time.monotonic()
        try:
            t()
            print("ok   %s (%.1f s)" % (t.__name__, time.monotonic() - begin), flush=True)
        except Exception as e:  # every test runs, whatever one of them met
            failed += 1
            print("FAIL %s: %s: %s" % (t.__name__, type(e).__name__, e), flush=True)
    print("%d passed, %d failed" % (ran - failed, failed))
    sys.exit(1 if failed else 0)

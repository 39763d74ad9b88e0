# SPDX-License-Identifier: LGPL-2.1-or-later
"""For the tests of bad input: a daemon on a bus of its own, terracectl beside it, devices that go away with the test, and what members held before."""
import hashlib
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../bus"))
import bus_rig
from bus_rig import NAME, SKIP, BusError, expect_error, skip

TERRACECTL = sys.argv[3]
MIB = 1 << 20
COMMAND_WITHIN_S = 60


class BadRig(bus_rig.Rig):
    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.dir = os.path.realpath(self.dir)
        self.loops, self.mounts, self.others = [], [], []

    def close(self):
        for p in self.others:
            if p.poll() is None:
                p.kill()
            p.wait()
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                pass  # killed below
        for where in reversed(self.mounts):
            subprocess.run(["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)
        for loop in self.loops:
            subprocess.run(["losetup", "--detach", loop], check=False, stderr=subprocess.DEVNULL)
        super().close()

    # --- programs ---

    def command(self, *args, ok=True, **kw):
        r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_WITHIN_S, **kw)
        r.stdout = r.stdout.decode(errors="strict")
        assert not ok or r.returncode == 0, f"{args}: exit {r.returncode}\n{r.stdout}"
        return r

    def ctl(self, *args, ok=True, **kw):
        return self.command(TERRACECTL, "--address=" + self.address, *args, ok=ok, **kw)

    def once(self, *args, ok=True, **kw):
        return self.command(self.terraced, "--allow-plugin-path", "--once", *args, ok=ok, env=dict(os.environ, TERRACE_PLUGIN_PATH=self.plugins), **kw)

    @staticmethod
    def is_one_line(r, *texts, code=1):
        line = r.stdout
        assert r.returncode == code, f"exit {r.returncode}, wanted {code}: {line!r}"
        assert line.endswith("\n") and line.count("\n") == 1, f"not one line: {line!r}"
        assert line[:-1].isprintable() and line.rstrip().endswith((".", "?")), f"not a readable sentence: {line!r}"
        for text in texts:
            assert text in line, f"{text!r} is not in {line!r}"

    def ctl_refused(self, texts, *args, code=1, **kw):
        self.is_one_line(self.ctl(*args, ok=False, **kw), *([texts] if isinstance(texts, str) else texts), code=code)

    def once_refused(self, texts, *args, **kw):
        self.is_one_line(self.once(*args, ok=False, **kw), *([texts] if isinstance(texts, str) else texts))

    def create_refused(self, name, texts, paths, *ctl_args, label="", **kw):
        """CreateFilesystem on the bus, then terracectl format: the same refusal, and what the paths lead to is as it was."""
        texts = [texts] if isinstance(texts, str) else texts
        before = [held(p) for p in paths]
        error = expect_error(name, lambda: self.create(paths, label, **kw))
        for text in texts:
            assert text in error.message, f"{text!r} is not in: {error.message}"
        self.ctl_refused(texts, "format", *ctl_args, *([f"--label={label}"] if label else []), *paths)
        assert [held(p) for p in paths] == before, f"a refused format changed one of {paths}"

    # --- things to make filesystems of ---

    def mkdir(self, name):
        path = os.path.join(self.dir, name)
        os.mkdir(path)
        return path

    def file(self, name, mib=64):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.truncate(mib * MIB)
        return path

    def loop(self, path, *options):
        r = self.command("losetup", "--find", "--show", *options, path, ok=False)
        if r.returncode != 0:
            return None
        self.loops.append(r.stdout.strip())
        return self.loops[-1]

    def mount(self, where, *args):
        ok = self.command("mount", *args, where, ok=False).returncode == 0
        if ok:
            self.mounts.append(where)
        return ok

    def unmount(self, where):
        self.command("umount", where)
        self.mounts.remove(where)

    def filesystem_mount(self, fs, name="mnt"):
        where = os.path.join(self.dir, name)
        os.makedirs(where, exist_ok=True)
        self.fs(fs, "Mount", "sa{sv}", where, {})
        return where

    def filesystems(self):
        return [o for o in self.objects() if "/filesystems/" in o]


def held(path):
    """What a device or file holds, cheaply where it is sparse; None for what cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        sums, at = [], 0
        while at < size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA) // MIB * MIB
            except OSError:
                break
            block = os.pread(fd, MIB, at)
            if any(block):  # a hole may have become zeros
                sums.append((at, hashlib.blake2b(block, digest_size=16).hexdigest()))
            at += MIB
        return size, sums
    except OSError:
        return None  # a directory, a character device
    finally:
        os.close(fd)


def write_file(path, data):
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def main(*tests):
    bus_rig.Rig = BadRig
    if not shutil.which("dbus-daemon"):
        print("SKIP: there is no dbus-daemon")
        sys.exit(SKIP)
    bus_rig.main(tests)

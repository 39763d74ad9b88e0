# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus, a daemon and members of its own for one test."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tiny_dbus import BusError, Connection, Variant

NAME = "org.terracefs.Terrace1"
ROOT = "/org/terracefs/Terrace1"
MANAGER = ROOT + "/Manager"
SKIP = 77
MIB = 1 << 20
STARTS_WITHIN_S = 30
ENDS_WITHIN_S = 60


SYSTEM_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_type="method_return"/>
    <allow send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
  </policy>
</busconfig>
"""


class Rig:
    def __init__(self, terraced, plugins, system=False):
        self.terraced, self.plugins = os.path.abspath(terraced), plugins
        self.dir = tempfile.mkdtemp(prefix="terrace-bus-")
        self.state_dir = os.path.join(self.dir, "state")
        self.log = open(os.path.join(self.dir, "log"), "w+", encoding="utf-8")
        self.daemon = None
        self.mode, self.which = "--session", "--session"
        if system:  # a bus to which other users may connect
            os.chmod(self.dir, 0o755)
            config = os.path.join(self.dir, "bus.conf")
            with open(config, "w", encoding="utf-8") as f:
                f.write(SYSTEM_BUS.format(socket=os.path.join(self.dir, "bus")))
            self.mode, self.which = "--system", f"--config-file={config}"
        self.open_bus()

    def open_bus(self):
        self.bus = subprocess.Popen(["dbus-daemon", self.which, "--nofork", "--print-address=1"], stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.address = self.bus.stdout.readline().strip()
        self.connection = Connection(self.address)
        self.connection.match(f"type='signal',sender='{NAME}'")

    # --- the daemon ---

    def start(self, *args):
        env = dict(os.environ, DBUS_SESSION_BUS_ADDRESS=self.address, TERRACE_PLUGIN_PATH=self.plugins)
        self.daemon = subprocess.Popen([self.terraced, self.mode, "--bus-address", self.address, "--allow-plugin-path", "--state-dir", self.state_dir, *args], env=env,
                                       stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + STARTS_WITHIN_S
        while not self.connection.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s", NAME):
            assert self.daemon.poll() is None, f"terraced ended at once:\n{self.read_log()}"
            assert time.monotonic() < end, f"terraced did not take its name:\n{self.read_log()}"
            time.sleep(0.02)
        return self

    def end(self, sig=signal.SIGTERM):
        self.daemon.send_signal(sig)
        code = self.daemon.wait(ENDS_WITHIN_S)
        self.daemon = None
        return code

    def read_log(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8") as f:
            return f.read()

    def close(self):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        self.connection.close()
        self.bus.terminate()
        self.bus.wait()
        for line in open("/proc/self/mountinfo", encoding="utf-8"):
            where = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
            if where.startswith(self.dir + "/"):
                subprocess.run(["umount", "-l", where], check=False)
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- calls ---

    def call(self, path, interface, member, signature="", *args, **kw):
        return self.connection.call(NAME, path, f"{NAME}.{interface}", member, signature, *args, **kw)

    def manager(self, member, signature="", *args, **kw):
        return self.call(MANAGER, "Manager", member, signature, *args, **kw)

    def get(self, path, interface, prop):
        return self.connection.call(NAME, path, "org.freedesktop.DBus.Properties", "Get", "ss", f"{NAME}.{interface}", prop)

    def get_all(self, path, interface):
        return self.connection.call(NAME, path, "org.freedesktop.DBus.Properties", "GetAll", "s", f"{NAME}.{interface}")

    def objects(self):
        return self.connection.call(NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")

    def wait(self, job, timeout_s=60):
        """The job's result; a job that did not succeed is raised as the error that it names."""
        state, result = self.call(job, "Job", "Wait", "ua{sv}", timeout_s, {}, timeout=timeout_s + 5)
        if state != "succeeded":
            raise BusError(self.get(job, "Job", "Error"), self.get(job, "Job", "ErrorMessage"))
        return result

    # --- filesystems ---

    def files(self, *sizes_mib, prefix="disk"):
        paths = []
        for i, size in enumerate(sizes_mib):
            paths.append(os.path.join(self.dir, f"{prefix}{i}"))
            with open(paths[-1], "wb") as f:
                f.truncate(size * MIB)
        return paths

    def create_job(self, paths, label="", fs_options=None, opts=None, dev_opts=None):
        return self.manager("CreateFilesystem", "a(sa{sv})sa{sv}a{sv}", [(p, dev_opts or {}) for p in paths], label, fs_options or {}, opts or {})

    def create(self, paths, label="", **kw):
        return self.wait(self.create_job(paths, label, **kw))["filesystem"]

    def fs(self, path, member, signature="", *args, **kw):
        return self.call(path, "Filesystem", member, signature, *args, **kw)

    def run(self, path, member, **opts):
        """A method that returns a job, to its end."""
        typed = {k.replace("_", "-"): Variant("b", v) if isinstance(v, bool) else Variant("s", v) for k, v in opts.items()}
        return self.wait(self.fs(path, member, "a{sv}", typed))

    def state(self, path):
        return self.get(path, "Filesystem", "State")


def expect_error(name, call, *args, text=None, **kw):
    """What must be refused, and as what."""
    try:
        got = call(*args, **kw)
    except BusError as e:
        assert e.short == name, f"wanted {name}, got {e}"
        assert e.name == f"{NAME}.Error.{name}", e.name
        assert e.message.endswith((".", "?")) and len(e.message) > 10, f"no sentence: {e.message!r}"
        if text:
            assert text in e.message, f"{text!r} is not in: {e.message}"
        return e
    raise AssertionError(f"wanted {name}, but it went well: {got!r}")


def skip(what_is_missing):
    """return skip("needs ..."): of a test that this machine lacks something for."""
    print("     " + what_is_missing, flush=True)
    return SKIP


def can_mount():
    return os.geteuid() == 0 and os.path.exists("/dev/fuse")


def main(tests, system=False):
    """Runs functions that take a rig, each with a daemon of its own. argv: terraced, the folder of plugins, and what else the tests want."""
    terraced, plugins = sys.argv[1:3]
    only = os.environ.get("TER_TEST_ONLY")
    failed, ran, skipped = [], 0, 0
    for test in tests:
        if only and only != test.__name__:
            continue
        with contextlib.closing(Rig(terraced, plugins, system)) as rig:
            try:
                if test(rig) == SKIP:
                    skipped += 1
                    print(f"skip {test.__name__}")
                else:
                    ran += 1
                    print(f"ok   {test.__name__}", flush=True)
            except Exception as e:  # every test is run and each failure shown
                import traceback
                traceback.print_exc()
                print(f"FAIL {test.__name__}: {e}\n--- log of terraced ---\n{rig.read_log()}---", flush=True)
                failed.append(test.__name__)
    print(f"{ran} passed, {len(failed)} failed, {skipped} skipped")
    sys.exit(1 if failed else SKIP if not ran else 0)

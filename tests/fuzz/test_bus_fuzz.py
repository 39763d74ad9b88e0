# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every method of the bus with values at and beyond its bounds, of its types and of others; senders that go away. The daemon answers Ping afterwards and has not grown.

argv: terraced, the folder of plugins, the folder of introspection XML. TER_TEST_SEED chooses the values, TER_FUZZ_CALLS how many calls are made.
"""
import glob
import os
import random
import sys
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration", "bus"))
from bus_rig import MANAGER, NAME, Rig  # noqa: E402
from tiny_dbus import BusError, Connection, Variant, split  # noqa: E402

XML_DIR = sys.argv[3]
SEED = int(os.environ.get("TER_TEST_SEED", "20250711"))
CALLS = int(os.environ.get("TER_FUZZ_CALLS", "1500"))
GROWTH_MAX = 0.05
GROWTH_BYTES_MIN = 1 << 20  # of a daemon at rest 5 % are less than what its heap grows by at once
ANSWER_WITHIN_S = 60  # of what does not wait by itself
KEPT_WAITING_S = 0.2  # of what does
WAITS = {"Wait", "WaitReady"}
NUMBERS = {"y": 8, "q": 16, "u": 32, "t": 64, "n": -16, "i": -32, "x": -64}
OPTION_NAMES = ["degraded", "read-only", "force", "wait-missing", "dry-run", "label", "uuid", "persist", "timeout", "discard", "durability", "size", "lazy", "all", "replicas", "compression",
                "data_replicas", "bucket_size", "no-such-option", "", "x" * 300, "ä", "no-auth", "interactive"]


class Raw(str):
    """Bytes that are no UTF-8, sent as a string."""

    def __new__(cls, raw):
        self = super().__new__(cls)
        self.raw = raw
        return self

    def encode(self, *_):
        return self.raw


class Values:
    """Random values of any type. A text never names anything outside the rig's own folder: some methods write to what they are given."""

    def __init__(self, rig, rnd):
        self.rig, self.rnd = rig, rnd
        self.paths = ["/"]

    def text(self):
        own, rnd = self.rig.dir, self.rnd
        return rnd.choice([
            "", " ", "a", "rw", "ro", "yes", "no", "very", "zstd:3", "none", "18446744073709551616", "-1", "64K", "bus-fuzz", own + "/disk0", own + "/disk1", own + "/new", own + "/nothing/here",
            own + "/mnt", own, own + "/../" + os.path.basename(own) + "/disk0", own + "/\\xff\\xfe", own + "/" + "d" * 300, "relative/path", "\\x00\\", "%s%n%s", "\u20ac\U0001f4be", "\x01\x7f\n\t",
            "l" * 33, "l" * 5000, own + "/a" * 2100, "\ufeff", str(rnd.random()), "Label", "00000000-0000-0000-0000-000000000000", "org.terracefs.Terrace1"])

    def number(self, t):
        bits = abs(NUMBERS[t])
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if NUMBERS[t] < 0 else (0, (1 << bits) - 1)
        return self.rnd.choice([low, low + 1, high, high - 1, 0, 1, high // 2, self.rnd.randint(low, high)])

    def signature(self, depth=0):
        kinds = list("ybnqiuxtdsog") + (["v", "a", "(", "{"] if depth < 3 else [])
        kind = self.rnd.choice(kinds)
        if kind == "a":
            return "a" + self.signature(depth + 1)
        if kind == "(":
            return "(" + self.signature(depth + 1) + self.signature(depth + 1) + ")"
        if kind == "{":
            return "a{s" + self.signature(depth + 1) + "}"
        return kind

    def many(self):
        return self.rnd.choice([0, 1, 1, 2, 2, 3, 10, 2000 if self.rnd.random() < 0.05 else 4])

    def value(self, t, depth=0):
        rnd = self.rnd
        if t in NUMBERS:
            return self.number(t)
        if t == "b":
            return rnd.choice([0, 1])
        if t == "d":
            return rnd.choice([0.0, -0.0, float("inf"), float("nan"), 1e308, rnd.random()])
        if t == "h":
            return rnd.choice([0, 0, 0, 1, (1 << 32) - 1])
        if t == "s":
            return self.text()
        if t == "o":
            return rnd.choice(self.paths + ["/no/such/object"])
        if t == "g":
            return rnd.choice(["", "s", "a{sv}", "(ii)"])
        if t == "v":
            inner = self.signature(depth + 1) if depth < 3 else "s"
            return Variant(inner, self.value(inner, depth + 1))
        if t.startswith("a{"):
            key, inner = split(t[2:-1])
            return {(rnd.choice(OPTION_NAMES) if key == "s" else self.value(key, depth + 1)): self.value(inner, depth + 1) for _ in range(self.many())}
        if t.startswith("a"):
            return [self.value(t[1:], depth + 1) for _ in range(min(self.many(), 50) if depth else self.many())]
        return tuple(self.value(sub, depth + 1) for sub in split(t[1:-1]))


def methods():
    found = []
    for path in sorted(glob.glob(os.path.join(XML_DIR, "*.xml"))):
        for interface in ET.parse(path).getroot().findall("interface"):
            for m in interface.findall("method"):
                found.append((interface.get("name"), m.get("name"), "".join(a.get("type") for a in m.findall("arg") if a.get("direction") == "in")))
    assert len(found) > 20, found
    return found


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="utf-8") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Fuzzer:
    def __init__(self, rig, rnd):
        self.rig, self.rnd, self.values = rig, rnd, Values(rig, rnd)
        self.methods = methods()
        self.answered = self.refused = self.gone = 0
        self.last = None

    def alive(self):
        assert self.rig.daemon.poll() is None, f"terraced ended after {self.last}:\n{self.rig.read_log()[-4000:]}"
        self.rig.manager("Ping", timeout=ANSWER_WITHIN_S)

    def objects(self):
        where = {f"{NAME}.Manager": [MANAGER]}
        for path, interfaces in self.rig.objects().items():
            for interface in interfaces:
                where.setdefault(interface, []).append(path)
        self.values.paths = ["/"] + sorted({path for paths in where.values() for path in paths})[:50]
        return where

    def arguments(self, signature):
        """As declared; or of other types; or too few or too many."""
        kind = self.rnd.random()
        if kind < 0.1:
            signature = "".join(self.values.signature() for _ in range(self.rnd.randint(0, 4)))
        elif kind < 0.15:
            signature = signature + self.values.signature()
        elif kind < 0.2 and signature:
            signature = "".join(split(signature)[:-1])
        return signature, [self.values.value(t) for t in split(signature)]

    def call(self, connection, path, interface, member, signature, args):
        self.last = f"{interface}.{member}({signature}) on {path}: {args!r:.300}"
        fds = []
        try:
            if "h" in signature:
                fds = list(os.pipe())[:self.rnd.randint(0, 2)]
            serial = connection.send(NAME, path, interface, member, signature, args, fds=fds)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            connection.reply(serial, KEPT_WAITING_S if member in WAITS else ANSWER_WITHIN_S)
            self.answered += 1
        except BusError as e:
            self.refused += 1
            assert e.message, f"an error without a text: {e.name} from {self.last}"
        except TimeoutError:
            assert member in WAITS, f"no answer to {self.last}"

    def one(self, where):
        interface, member, signature = self.rnd.choice(self.methods)
        path = self.rnd.choice(where.get(interface, ["/no/such/object"]))
        if self.rnd.random() < 0.03:
            path = self.rnd.choice(self.values.paths)
        signature, args = self.arguments(signature)
        if self.rnd.random() < 0.08:
            self.leave_in_the_middle(path, interface, member, signature, args)
        else:
            self.call(self.rig.connection, path, interface, member, signature, args)

    def properties(self, where):
        interface = self.rnd.choice(sorted(where))
        path = self.rnd.choice(where[interface])
        name = self.rnd.choice(["State", "Label", "Options", "Version", "", "NoSuch", "Devices"])
        member, signature = self.rnd.choice([("Get", "ss"), ("Set", "ssv"), ("GetAll", "s")])
        args = [interface, name, self.values.value("v")][:len(split(signature))]
        self.call(self.rig.connection, path, "org.freedesktop.DBus.Properties", member, signature, args)

    def leave_in_the_middle(self, path, interface, member, signature, args):
        """A sender that has gone before the answer, or in the middle of its message, or was sent off by the bus for what it said."""
        self.last = f"(gone) {interface}.{member}({signature}) on {path}: {args!r:.300}"
        self.gone += 1
        connection = Connection(self.rig.address)
        how = self.rnd.randint(0, 2)
        if how == 0:
            if "h" not in signature:
                connection.send(NAME, path, interface, member, signature, args)
        elif how == 1:
            connection.sock.sendall(b"l\1\0\1\xff\xff\0\0\1\0\0\0\x40\0\0\0" + b"\0" * self.rnd.randint(0, 60))
        else:
            try:
                connection.send(NAME, MANAGER, f"{NAME}.Manager", "Probe", "sa{sv}", [Raw(b"/\xff\xc0\x80"), {}])
            except OSError:
                pass  # the bus was quick to send it off
        connection.close()

    def some(self, calls):
        for i in range(calls):
            if i % 25 == 0:
                self.settle()  # or what many jobs at once take would count as growth
                self.alive()
                where = self.objects()
                self.rig.connection.signals.clear()
                self.rig.connection.replies.clear()
            if self.rnd.random() < 0.1:
                self.properties(where)
            else:
                self.one(where)
        self.settle()

    def settle(self):
        """Jobs that calls began are over and forgotten."""
        end = time.monotonic() + 120
        while True:
            jobs = [path for path, interfaces in self.rig.objects().items() if f"{NAME}.Job" in interfaces]
            if not jobs:
                return
            assert time.monotonic() < end, f"jobs that do not end: {jobs}"
            for job in jobs:
                for member in ("Cancel", "Dismiss"):
                    try:
                        self.rig.call(job, "Job", member, "a{sv}", {})
                    except BusError:
                        pass  # it is over, or not yet
            time.sleep(0.05)


    def at_rest(self):
        """Resident bytes when no pool runs: one that runs takes its share, and which calls ended it is chance."""
        self.settle()
        for path, interfaces in self.rig.objects().items():
            if f"{NAME}.Filesystem" in interfaces:
                try:
                    self.rig.run(path, "Stop", force=True)
                except BusError:
                    pass  # it does not run
        self.settle()
        self.alive()
        return resident(self.rig.daemon.pid)


def main():
    # What was freed shall leave the process, so that what remains is what is kept.
    os.environ.update(MALLOC_ARENA_MAX="1", MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
    print(f"TER_TEST_SEED={SEED}", flush=True)
    rig = Rig(*sys.argv[1:3])
    try:
        rig.start()
        fs = rig.create(rig.files(64, 64), "bus-fuzz")
        rig.run(fs, "Start")
        fuzzer = Fuzzer(rig, random.Random(SEED))
        fuzzer.some(CALLS)
        before = fuzzer.at_rest()
        fuzzer.some(CALLS)
        after = fuzzer.at_rest()
        print(f"{2 * CALLS} calls: {fuzzer.answered} answered, {fuzzer.refused} refused, {fuzzer.gone} by senders that left; memory {before >> 10} KiB, then {after >> 10} KiB")
        assert fuzzer.answered and fuzzer.refused and fuzzer.gone
        assert after <= before + max(before * GROWTH_MAX, GROWTH_BYTES_MIN), f"memory grew from {before} to {after} bytes"
        assert rig.end() == 0, rig.read_log()[-4000:]
    except BaseException:
        print(f"--- log of terraced ---\n{rig.read_log()[-6000:]}---", flush=True)
        raise
    finally:
        rig.close()


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 and restart under load, many times in a row: nothing that fsync acknowledged is lost.

The writers are processes of their own. What was acknowledged to them they say through a pipe, so the oracle is neither in the daemon nor in the mount, and outlives both.
A version of a file is its number; its bytes follow from that and the name. Each writer:
  - replaces files (write, fsync, rename, fsync of the directory): a rename shows either version whole, never less than the acknowledged one;
  - overwrites blocks in place and appends records (fsync after each): a block is the acknowledged version or a later one, whole; records are there in order.
"""
import os
import select
import signal
import subprocess
import sys
import time

from rig import *

LONG = bool(os.environ.get("TERRACE_TEST_LONG"))
ROUNDS = int(os.environ.get("TERRACE_TEST_KILLS") or (500 if LONG else 50))
WRITERS = 4
FILES = 12
BLOCK = 4096
BLOCKS = 16
RECORD = 64
APPEND_MAX = 4000
LOAD_SECONDS = (0.01, 0.3)
FSCK_EVERY = 10


def content(writer, name, version):
    """Of a length and with bytes that follow from all three."""
    rnd = random.Random("%s/%s/%d" % (writer, name, version))
    return ("%s %s %d\n" % (writer, name, version)).encode() + rnd.randbytes(rnd.choice([0, 100, 4000, 9000, 70000]))


def block(writer, nr, version):
    return (b"%s %d %08d " % (writer.encode(), nr, version)).ljust(BLOCK // 8, b".") * 8


def record(writer, nr):
    return (b"%s record %08d " % (writer.encode(), nr)).ljust(RECORD - 1, b"-") + b"\n"


# --- a writer, in its own process: never returns; its mount dies under it ---

def sync_dir(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def write_forever(root, writer, seed_nr, versions, blocks, records):
    rnd = random.Random(seed_nr)
    where = os.path.join(root, writer)
    versions, blocks = [int(v) for v in versions.split(",")], [int(v) for v in blocks.split(",")]
    records = int(records)

    def say(what, nr, version, done):
        os.write(1, b"%s %d %d %d\n" % (what, nr, version, done))

    in_place = os.open(os.path.join(where, "blocks"), os.O_RDWR)
    log = os.open(os.path.join(where, "log"), os.O_WRONLY | os.O_APPEND)
    while True:
        kind = rnd.randrange(4)
        if kind <= 1:
            nr = rnd.randrange(FILES)
            versions[nr] += 1
            path = os.path.join(where, "f%d" % nr)
            say(b"f", nr, versions[nr], 0)
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, content(writer, "f%d" % nr, versions[nr]))
            os.fsync(fd)
            os.close(fd)
            os.rename(path + ".new", path)
            sync_dir(where)
            say(b"f", nr, versions[nr], 1)
        elif kind == 2:
            nr = rnd.randrange(BLOCKS)
            blocks[nr] += 1
            say(b"b", nr, blocks[nr], 0)
            os.pwrite(in_place, block(writer, nr, blocks[nr]), nr * BLOCK)
            os.fsync(in_place)
            say(b"b", nr, blocks[nr], 1)
        elif records < APPEND_MAX:
            say(b"r", 0, records + 1, 0)
            os.write(log, record(writer, records))
            os.fsync(log)
            records += 1
            say(b"r", 0, records, 1)


# --- the oracle ---

class Known:
    """Of one writer: what was acknowledged, and what was begun after that."""

    def __init__(self, name):
        self.name = name
        self.done = {b"f": [0] * FILES, b"b": [0] * BLOCKS, b"r": [0]}
        self.begun = {b"f": [0] * FILES, b"b": [0] * BLOCKS, b"r": [0]}
        self.acknowledged = 0

    def hear(self, line):
        what, nr, version, done = line.split()
        nr, version = int(nr), int(version)
        self.begun[what][nr] = version
        if int(done):
            self.done[what][nr] = version
            self.acknowledged += 1

    def settle(self, what, nr, version):
        self.done[what][nr] = self.begun[what][nr] = version

    def verify(self, root, when):
        where = os.path.join(root, self.name)
        for nr in range(FILES):
            self.verify_file(where, nr, when)
        with open(os.path.join(where, "blocks"), "rb") as f:
            data = f.read()
        check(len(data) == BLOCK * BLOCKS, "%s: %s/blocks has %d bytes" % (when, self.name, len(data)))
        for nr in range(BLOCKS):
            self.verify_block(data[nr * BLOCK:(nr + 1) * BLOCK], nr, when)
        self.verify_log(os.path.join(where, "log"), when)

    def verify_file(self, where, nr, when):
        low, high = self.done[b"f"][nr], self.begun[b"f"][nr]
        path = os.path.join(where, "f%d" % nr)
        if not os.path.exists(path):
            check(low == 0, "%s: %s is gone, version %d of it was acknowledged" % (when, path, low))
            self.settle(b"f", nr, 0)
            return
        with open(path, "rb") as f:
            data = f.read()
        for version in range(max(low, 1), high + 1):
            if data == content(self.name, "f%d" % nr, version):
                self.settle(b"f", nr, version)
                return
        raise Failed("%s: %s has %d bytes that begin with %r: none of versions %d (acknowledged) to %d" % (when, path, len(data), data[:40], low, high))

    def verify_block(self, data, nr, when):
        low, high = self.done[b"b"][nr], self.begun[b"b"][nr]
        for version in range(low, high + 1):
            if data == block(self.name, nr, version):
                self.settle(b"b", nr, version)
                return
        raise Failed("%s: block %d of %s is %r: none of versions %d (acknowledged) to %d" % (when, nr, self.name, data[:40], low, high))

    def verify_log(self, path, when):
        low, high = self.done[b"r"][0], self.begun[b"r"][0]
        with open(path, "rb") as f:
            data = f.read()
        nr = len(data) // RECORD
        check(len(data) % RECORD == 0 and low <= nr <= high, "%s: %s has %d bytes; %d records were acknowledged and %d begun" % (when, path, len(data), low, high))
        for i in range(nr):
            check(data[i * RECORD:(i + 1) * RECORD] == record(self.name, i), "%s: %s, record %d is %r" % (when, path, i, data[i * RECORD:(i + 1) * RECORD]))
        self.settle(b"r", 0, nr)


def prepare(root, known):
    where = os.path.join(root, known.name)
    os.mkdir(where)
    with open(os.path.join(where, "blocks"), "wb") as f:
        for nr in range(BLOCKS):
            f.write(block(known.name, nr, 0))
        f.flush()
        os.fsync(f.fileno())
    with open(os.path.join(where, "log"), "wb") as f:
        os.fsync(f.fileno())
    sync_dir(where)


def start_writer(root, known, rnd):
    return subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "--writer", root, known.name, str(rnd.randrange(1 << 32)), ",".join(map(str, known.begun[b"f"])),
         ",".join(map(str, known.begun[b"b"])), str(known.begun[b"r"][0])],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


class Listener:
    """Keeps the writers' pipes empty, so that none waits for us, and hears all that was said before they died."""

    def __init__(self, writers, known):
        self.of = {w.stdout.fileno(): k for w, k in zip(writers, known)}
        self.rest = {fd: b"" for fd in self.of}
        self.open = set(self.of)
        self.heard = set()

    def listen(self, seconds):
        until = time.monotonic() + seconds
        while self.open and (left := until - time.monotonic()) > 0:
            for fd in select.select(list(self.open), [], [], left)[0]:
                data = os.read(fd, 1 << 16)
                if not data:
                    self.open.discard(fd)
                    continue
                self.heard.add(fd)
                *lines, self.rest[fd] = (self.rest[fd] + data).split(b"\n")
                for line in lines:
                    self.of[fd].hear(line)

    def wait_for_load(self):
        until = time.monotonic() + 30
        while len(self.heard) < len(self.of):
            check(time.monotonic() < until and len(self.open) == len(self.of), "a writer does not write")
            self.listen(0.005)


def end_writers(writers):
    """Their mount is gone: most have ended with an error; one that was in the middle of nothing is ended here."""
    for w in writers:
        w.kill()
    for w in writers:
        try:
            w.wait(30)
        except subprocess.TimeoutExpired:
            raise Failed("writer %d hangs in a mount whose daemon is dead" % w.pid)


def one_round(p, known, rnd):
    writers = [start_writer(p.mnt, k, rnd) for k in known]
    listener = Listener(writers, known)
    try:
        listener.wait_for_load()
        listener.listen(rnd.uniform(*LOAD_SECONDS))
        p.kill()
        end_writers(writers)
        listener.listen(30)  # until the ends of all pipes
        check(not listener.open, "a writer's pipe stays open")
    finally:
        for w in writers:
            w.kill()
            w.stdout.close()
            w.wait()


def nothing_acknowledged_is_lost():
    rnd = seed()
    p = Pool(members=3, mib=[192, 256, 320], options=["--replicas=2"])
    known = [Known("w%d" % n) for n in range(WRITERS)]
    try:
        p.format()
        p.start()
        for k in known:
            prepare(p.mnt, k)
        sync_dir(p.mnt)
        for nr in range(1, ROUNDS + 1):
            one_round(p, known, rnd)
            if nr % FSCK_EVERY == 0:
                p.fsck("after kill %d" % nr)
            p.start()
            for k in known:
                k.verify(p.mnt, "after kill %d" % nr)
        p.stop()
        p.fsck("at the end")
        total = sum(k.acknowledged for k in known)
        print("%d kills, %d acknowledged changes" % (ROUNDS, total))
        check(total > 5 * ROUNDS, "the writers got only %d changes done" % total)
    finally:
        p.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--writer"]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            write_forever(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
        except OSError:
            sys.exit(0)  # the daemon was killed
    need_fuse()
    main(nothing_acknowledged_is_lost)

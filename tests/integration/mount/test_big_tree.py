#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A big odd tree is byte for byte and attribute for attribute the one that was made: after a remount, after `terracectl sync` and a
kill at once while another writer goes on, and without each of the three members.

What must be there is known from the seed alone: it is never read back from a filesystem. Two processes make and compare one half each.
"""
import multiprocessing

from rig import *

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../cli"))
from test_cli import TERRACECTL, Daemon

FILES = int(os.environ.get("TERRACE_TEST_FILES", "50000"))
HALVES = 2
LAYERS = ("first", "second")  # what stands before the remount, and what the sync before the kill must cover
MEMBER_MIB = 1536
SOURCE_MIB = 8  # contents are cut out of this much
BLOCK = 4096
fork = multiprocessing.get_context("fork")


class Maker:
    """One process's part of the tree: makes it below `root` and says what must be there."""

    def __init__(self, root, seed_text, files):
        self.root, self.files = root, files
        self.rnd = random.Random(seed_text)
        noise = random.Random(seed_text + "noise").randbytes(SOURCE_MIB << 19)
        words = [b"%x " % self.rnd.randrange(1 << 40) for _ in range(400)]
        text = b"".join(self.rnd.choices(words, k=(SOURCE_MIB << 19) // 8))
        self.source = noise + text + noise[:5 << 20]
        self.want = {}

    def name(self, n):
        """Mostly plain, sometimes what careless programs stumble over; the number keeps names apart."""
        kind = self.rnd.randrange(40)
        if kind == 0:
            return ("%d" % n + "long-" * 60)[:255]
        if kind == 1:
            return "%d \u00fc\u4e2d\U0001f600 e\u0301" % n
        if kind == 2:
            return os.fsdecode(b"%d\xff\xfe\x80" % n)  # no UTF-8
        if kind == 3:
            return self.rnd.choice(["-rf %d", " %d ", "%d\n\t", "...%d", "%d'\"`$\\", "%d*?[]", "CON.%d"]) % n
        return self.rnd.choice(["%d", "file%d.txt", "%d.c", ".hidden%d", "IMG_%06d.JPG"]) % n

    def size(self):
        r = self.rnd
        return r.choices([0, r.randrange(1, 200), r.randrange(200, 6000), r.randrange(6000, 40000), BLOCK * r.randrange(1, 5),
                          r.randrange(40000, 300000), r.randrange(1 << 20, 5 << 20)], [40, 300, 500, 90, 50, 12, 1])[0]

    def time_ns(self):
        return self.rnd.randrange(-10**18, 4 * 10**18)  # 1938 to 2096, to the nanosecond

    def note(self, rel, mode, **more):
        self.want[rel] = dict(mode=mode, uid=self.owner[0], gid=self.owner[1], xattrs={}, **more)

    def finish(self, rel, permissions=None, follow=True):
        """Owner, mode and time, in the order in which one does not undo the other."""
        path = os.path.join(self.root, rel)
        want = self.want[rel]
        os.chown(path, *self.owner, follow_symlinks=False)
        if permissions is not None:
            os.chmod(path, permissions)
        if self.rnd.randrange(12) == 0 and follow:
            for i in range(self.rnd.randrange(1, 4)):
                key, value = "user.k%d" % i, self.rnd.randbytes(self.rnd.choice([0, 5, 100, 3000]))
                os.setxattr(path, key, value)
                want["xattrs"][key] = value
        want["mtime"] = self.time_ns()
        os.utime(path, ns=(self.time_ns(), want["mtime"]), follow_symlinks=False)

    def make_file(self, rel):
        permissions = self.rnd.choice([0o644, 0o600, 0o755, 0o444, 0o4755, 0o2711, 0o000, 0o1777])
        size = self.size()
        at = self.rnd.randrange((SOURCE_MIB << 20) + (5 << 20) - size + 1)
        data = self.source[at:at + size]
        fd = os.open(os.path.join(self.root, rel), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if size > 1000 and self.rnd.randrange(20) == 0:  # a hole in front
                data = b"\0" * (BLOCK * 3) + data
                os.pwrite(fd, data[BLOCK * 3:], BLOCK * 3)
            else:
                os.write(fd, data)
        finally:
            os.close(fd)
        self.note(rel, stat.S_IFREG | permissions, size=len(data), nlink=1, hash=hashlib.blake2b(data, digest_size=16).hexdigest())
        self.finish(rel, permissions)

    def make_link(self, rel):
        other = self.rnd.choice(self.regular)
        os.link(os.path.join(self.root, other), os.path.join(self.root, rel))
        self.want[rel] = self.want[other]  # one file: one description
        self.want[rel]["nlink"] += 1

    def make_symlink(self, rel):
        target = self.rnd.choice(["/nowhere", "../..", "x" * self.rnd.randrange(1, 4096), self.rnd.choice(self.regular)])
        os.symlink(target, os.path.join(self.root, rel))
        self.note(rel, stat.S_IFLNK | 0o777, target=target)
        self.finish(rel, follow=False)

    def make_special(self, rel):
        kind, rdev = self.rnd.choice([(stat.S_IFIFO, 0), (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(259, 70000)), (stat.S_IFSOCK, 0)])
        os.mknod(os.path.join(self.root, rel), kind | 0o600, rdev)
        self.note(rel, kind | 0o640, rdev=rdev)
        self.finish(rel, 0o640, follow=False)

    def make_dir(self, rel, parent):
        os.mkdir(os.path.join(self.root, rel))
        self.note(rel, stat.S_IFDIR, nlink=2)
        if parent:
            self.want[parent]["nlink"] += 1

    def make(self):
        dirs, deep, self.regular = ["top"], "top", []
        self.owner = (0, 0)
        self.make_dir("top", None)
        for n in range(self.files):
            r = self.rnd.randrange(1000)
            if n % 100 == 0:  # another owner for the next files; now and then deeper, down to some thousand bytes of path
                self.owner = self.rnd.choice([(0, 0), (1000, 1000), (1000, 4), (70000, 4000000000)])
                parent = deep if self.rnd.randrange(2) and len(os.fsencode(deep)) < 3000 else self.rnd.choice(dirs)
                rel = parent + "/" + self.name(self.files + n)
                if len(os.fsencode(rel)) < 3500:
                    self.make_dir(rel, parent)
                    dirs.append(rel)
                    deep = rel if parent == deep else deep
            here = dirs[-1] if r % 3 else self.rnd.choice(dirs)
            rel = here + "/" + self.name(n)
            if r < 40 and self.regular:
                self.make_link(rel)
            elif r < 80 and self.regular:
                self.make_symlink(rel)
            elif r < 85:
                self.make_special(rel)
            else:
                self.make_file(rel)
                self.regular.append(rel)
        for rel in reversed(dirs):  # times and modes of directories after all that changes them
            permissions = self.rnd.choice([0o755, 0o700, 0o2775, 0o1777])
            self.owner = (self.want[rel]["uid"], self.want[rel]["gid"])
            self.want[rel]["mode"] |= permissions
            self.finish(rel, permissions)
        return self.want


def look(root):
    """The same description, of what a filesystem shows."""
    tree = {}
    for here, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(here, name)
            d = describe(path, with_times=True)
            if "mtime" not in d:
                d["mtime"] = os.lstat(path).st_mtime_ns
            d["xattrs"] = {}
            if stat.S_ISREG(d["mode"]) or stat.S_ISDIR(d["mode"]):
                d["xattrs"] = {k: os.getxattr(path, k) for k in os.listxattr(path)}
            tree[os.path.relpath(path, root)] = d
    return tree


def part_root(mnt, layer, half):
    return os.path.join(mnt, layer, "half%d" % half)


def make_part(task):
    mnt, layer, half, seed_text = task
    root = part_root(mnt, layer, half)
    os.makedirs(root, exist_ok=True)
    return Maker(root, "%s %s %d" % (seed_text, layer, half), FILES // (HALVES * len(LAYERS))).make()


def make_layer(mnt, layer, seed_text):
    """{half: what must be there}"""
    with fork.Pool(HALVES) as workers:
        return dict(enumerate(workers.map(make_part, [(mnt, layer, half, seed_text) for half in range(HALVES)], chunksize=1)))


def compare_all(want, mnt, what):
    """want: {(layer, half): description}. Each half is compared in a process that has `want` from the fork."""
    def one(half, pipe):
        try:
            for (layer, h), tree in want.items():
                if h == half:
                    compare(tree, look(part_root(mnt, layer, half)), "%s, %s half %d" % (what, layer, half))
            pipe.send(None)
        except BaseException as e:
            pipe.send("%s: %s" % (type(e).__name__, e))

    workers = []
    for half in range(HALVES):
        here, there = fork.Pipe(duplex=False)
        p = fork.Process(target=one, args=(half, there))
        p.start()
        there.close()
        workers.append((p, here))
    said = []
    for p, here in workers:
        try:
            said.append(here.recv())
        except EOFError:
            said.append("a comparing process died")
        p.join()
    for text in said:
        check(text is None, text)


def content_of(n):
    return (b"%08d" % n) * (1 + n * 37 % 3000)


def write_on(directory, finished):
    """The other writer: file after file, some of them synced, until the daemon is gone. finished.value files are written and closed."""
    try:
        n = 0
        while True:
            with open(os.path.join(directory, "%d" % n), "wb", buffering=0) as f:
                f.write(content_of(n))
                if n % 8 == 7:
                    os.fsync(f.fileno())
            n += 1
            finished.value = n
    except OSError:
        pass


def what_the_writer_left(directory, covered):
    """Files before the sync are whole; a later one is absent or shows blocks of its own bytes or zeros, never another's."""
    there = {int(name) for name in os.listdir(directory)}
    for n in range(covered):
        check(n in there, "%d, written before the sync, is gone" % n)
    for n in sorted(there):
        with open(os.path.join(directory, "%d" % n), "rb") as f:
            got = f.read()
        want = content_of(n)
        if n < covered:
            check(got == want, "%d, written before the sync: %d bytes instead of %d, or others" % (n, len(got), len(want)))
        check(len(got) <= -(-len(want) // BLOCK) * BLOCK, "%d is longer than ever written" % n)
        for at in range(0, len(got), BLOCK):
            block = got[at:at + BLOCK]
            own = want[at:at + len(block)].ljust(len(block), b"\0")
            check(block in (own, bytes(len(block))), "%d shows bytes at %d that were never written to it" % (n, at))


def fsck_degraded(members, what):
    r = run(TERRACED, "--once", "fsck", "--degraded=yes", *members, ok=False)
    check(r.returncode == 0, "fsck %s:\n%s" % (what, r.stdout[-3000:]))


def timed(what, begin=[time.monotonic()]):
    now = time.monotonic()
    print("     %5.1f s  %s" % (now - begin[0], what), flush=True)
    begin[0] = now


def a_big_tree_stays_what_it_is():
    seed_text = str(seed().randrange(1 << 32))
    p = Pool(members=3, mib=MEMBER_MIB)
    d = Daemon()
    try:
        d.ctl("format", "--label=big", "--replicas=2", *p.members)
        d.ctl("mount", "big", p.mnt)
        timed("format, mount")
        want = {("first", half): tree for half, tree in make_layer(p.mnt, "first", seed_text).items()}
        timed("made the first layer")

        d.ctl("unmount", p.mnt)
        d.ctl("stop", "big")
        p.fsck("after unmounting")
        timed("unmounted, fsck")
        d.ctl("mount", "big", p.mnt)
        compare_all(want, p.mnt, "after a remount")
        timed("compared after a remount")

        os.mkdir(p.mnt + "/busy")
        finished = fork.Value("L", 0, lock=False)
        writer = fork.Process(target=write_on, args=(p.mnt + "/busy", finished))
        writer.start()
        want.update({("second", half): tree for half, tree in make_layer(p.mnt, "second", seed_text).items()})
        covered = finished.value
        d.ctl("sync", "big")
        d.stop(signal.SIGKILL)
        subprocess.run(["umount", "-l", p.mnt], stderr=subprocess.DEVNULL)
        writer.join(30)
        check(writer.exitcode == 0 and covered > 10, "the other writer: exit code %s, %d files before the sync" % (writer.exitcode, covered))
        timed("made the second layer, synced, killed")
        p.fsck("after the kill")
        timed("fsck")
        d.start()
        d.ctl("mount", "big", p.mnt)
        compare_all(want, p.mnt, "after sync and kill -9")
        what_the_writer_left(p.mnt + "/busy", covered)
        timed("compared after the kill; the writer had %d files covered of %d" % (covered, finished.value))
        check("Nothing wrong" in d.ctl("fsck", "big").stdout, "terracectl fsck")
        d.ctl("unmount", p.mnt)
        d.ctl("stop", "big")
        p.fsck("after stopping")
        check(d.stop() == 0, "SIGTERM: %s" % d.log_text())
        timed("fsck, unmounted, fsck")

        for lost in range(3):
            left = [m for i, m in enumerate(p.members) if i != lost]
            fsck_degraded(left, "without member %d" % lost)
            p.start(members=left, extra=["--degraded=yes", "--read-only"])
            compare_all(want, p.mnt, "without member %d" % lost)
            p.stop()
            timed("compared without member %d" % lost)
        p.fsck("with all members again")
        timed("fsck")
        names = [d for t in want.values() for d in t.values()]
        print("     %d names, %d MiB" % (len(names), sum(d.get("size", 0) / d["nlink"] for d in names if "size" in d) / (1 << 20)))
        check(len(names) >= FILES, "only %d names were made" % len(names))
    finally:
        d.close()
        p.close()


if __name__ == "__main__":
    need_fuse()
    for program in [TERRACECTL, "dbus-daemon", "busctl"]:
        if not shutil.which(program):
            skip("there is no %s" % program)
    main(a_big_tree_stays_what_it_is)

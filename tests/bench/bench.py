#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Side-by-side file system benchmark: one run, one table of ratios.

Every target gets its own loop devices over sparse files in the work
directory, all targets stay mounted together, and each workload visits every
target in turn (the order rotates) before the next workload starts. Cells are
medians over the rounds. Root is needed.

  bench.py WORKDIR                        full run, bounded by --budget
  bench.py WORKDIR --quick                small sizes, the core targets
  bench.py WORKDIR --targets btrfs-raid1,ext4 --only seqw,sync4k
  bench.py WORKDIR --target-file mine.json     these beside btrfs-raid1

A target file is a JSON list of objects with the arguments of class Target;
terrace.json, which is always read, is one. Templates know {devs} (space
separated), {devs:X} (joined by X), {devN}, {mnt}, {low} {lowN} (mounted ext4
directories, with "lower": N), {work} and {build}: Terrace's build directory,
BENCH_BUILD or build/ at the top of the source tree.
"""
import argparse, dataclasses, json, os, re, resource, shlex, shutil, signal
import statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("BENCH_BUILD") or
                        os.path.join(HERE, "..", "..", "build"))
MIB, GIB = 1 << 20, 1 << 30


def sh(cmd, timeout=60, **kw):
    p = subprocess.run(cmd, shell=isinstance(cmd, str), timeout=timeout,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, **kw)
    if p.returncode:
        raise RuntimeError(f"{cmd}: {p.stderr.strip()[-300:]}")
    return p.stdout


def mounted(path):
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == path for line in f)


# ---------------------------------------------------------------- targets

@dataclasses.dataclass
class Target:
    name: str
    ndev: int = 0                  # loop devices of its own
    lower: int = 0                 # ext4 file systems underneath (overlays)
    mkfs: list = dataclasses.field(default_factory=list)
    mount: str = ""                # a command that returns once mounted
    server: str = ""               # or a foreground FUSE server
    umount: str = "umount {mnt}"
    before: str = ""               # before the very first mkfs
    destroy: str = ""              # after the last umount
    daemon: str = ""               # a daemon shared by targets of that name
    mounts_on_mkfs: bool = False
    stateless: bool = False        # nothing to read at mount time
    needs: list = dataclasses.field(default_factory=list)
    env: dict = dataclasses.field(default_factory=dict)
    note: str = ""

    def attach(self, ctx):
        self.ctx, self.proc, self.loops, self.lows = ctx, None, [], []
        self.dir = os.path.join(ctx.work, self.name)
        self.mnt = os.path.join(self.dir, "mnt")
        os.makedirs(self.mnt)

    def missing(self):
        needs = [p.replace("{build}", BUILD) for p in self.needs]
        return [p for p in needs
                if not (shutil.which(p) or os.path.exists(p))]

    def loop(self, i):
        path = os.path.join(self.dir, f"disk{i}")
        with open(path, "wb") as f:
            f.truncate(self.ctx.dev_size)
        for dio in ("on", "off"):
            try:
                dev = sh(["losetup", "-f", "--show", f"--direct-io={dio}",
                          path]).strip()
                break
            except RuntimeError:
                continue
        os.symlink(dev, os.path.join(self.dir, f"d{i}"))
        self.loops.append(dev)
        return dev

    def fill(self, text):
        devs = self.loops[self.lower:]
        def sub(m):
            k = m.group(1)
            if k == "devs":
                return " ".join(devs)
            if k.startswith("devs:"):
                return k[5:].join(devs)
            if k.startswith("dev"):
                return devs[int(k[3:])]
            if k == "low":
                return self.lows[0]
            if k.startswith("low"):
                return self.lows[int(k[3:])]
            return {"mnt": self.mnt, "work": self.dir, "name": self.name,
                    "build": shlex.quote(BUILD)}[k]
        return re.sub(r"\{([^}]+)\}", sub, text)

    def setup(self):
        for i in range(self.lower):
            dev = self.loop(f"low{i}")
            sh(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", dev])
            low = os.path.join(self.dir, f"low{i}")
            os.makedirs(low)
            sh(["mount", "-o", "noatime", dev, low])
            self.lows.append(low)
        for i in range(self.ndev):
            self.loop(i)
        if self.daemon:
            self.ctx.start_daemon(self.daemon)
        for c in self.mkfs:
            sh(self.fill(c), env=self.ctx.environ(self))
        if not self.mounts_on_mkfs:
            self.do_mount()

    def do_mount(self):
        if self.server:
            log = os.path.join(self.dir, "server.log")
            with open(log, "w") as out:
                self.proc = subprocess.Popen(
                    shlex.split(self.fill(self.server)),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    env=self.ctx.environ(self), start_new_session=True)
            end = time.time() + 60
            while not mounted(self.mnt):
                if self.proc.poll() is not None:
                    with open(log, errors="replace") as said:
                        raise RuntimeError("server exited at once: "
                                           + said.read().strip()[-300:])
                if time.time() > end:
                    raise RuntimeError("mount timed out")
                time.sleep(0.002)
            os.stat(self.mnt)
        else:
            sh(self.fill(self.mount), env=self.ctx.environ(self))

    def do_umount(self):
        for i in range(50):
            try:
                sh(self.fill(self.umount), timeout=60,
                   env=self.ctx.environ(self))
                break
            except RuntimeError as e:
                if "busy" not in str(e) or i == 49:
                    raise
                time.sleep(0.1)
        if self.proc:
            self.proc.wait(timeout=60)
            self.proc = None

    def remount(self):
        """cold caches: unmount, drop, mount; returns the mount seconds"""
        self.keep_peak()
        self.do_umount()
        if self.lows:
            for low in self.lows:
                sh(["umount", low])
            os.sync()
        drop_caches()
        for dev, low in zip(self.loops, self.lows):
            sh(["mount", "-o", "noatime", dev, low])
        t = time.monotonic()
        self.do_mount()
        os.listdir(self.mnt)
        return time.monotonic() - t

    peak_kib = 0

    def pids(self):
        if self.proc:
            return [self.proc.pid]
        if self.daemon:
            return [self.ctx.daemons[self.daemon].pid]
        return []

    def keep_peak(self):
        for pid in self.pids():
            with open(f"/proc/{pid}/status") as f:
                m = re.search(r"VmHWM:\s+(\d+)", f.read())
            if m:
                self.peak_kib = max(self.peak_kib, int(m.group(1)))

    def server_cpu(self):
        s = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as f:
                v = f.read().rpartition(")")[2].split()
            s += int(v[11]) + int(v[12])
        return s / os.sysconf("SC_CLK_TCK")

    def teardown(self):
        try:
            self.keep_peak()
        except Exception:
            pass
        try:
            if mounted(self.mnt):
                self.do_umount()
            if self.destroy:
                sh(self.fill(self.destroy))
        except Exception as e:
            print(f"# {self.name}: teardown: {e}", file=sys.stderr)
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        for d in [self.mnt] + self.lows:
            if mounted(d):
                subprocess.run(["umount", "-l", d])
        for dev in self.loops:
            subprocess.run(["losetup", "-d", dev])


BTRFS_M = "mount -t btrfs -o noatime{opt} {dev0} {mnt}"


def builtin():
    e = os.environ.get
    ll = e("BENCH_PASSTHROUGH_LL", "passthrough_ll")
    hp = e("BENCH_PASSTHROUGH_HP", "passthrough_hp")
    bc = e("BENCH_BCACHEFS", "bcachefs")
    yield Target("btrfs-raid1", 2, needs=["mkfs.btrfs"],
                 mkfs=["mkfs.btrfs -q -f -K -d raid1 -m raid1 {devs}"],
                 mount=BTRFS_M.replace("{opt}", ",device={dev1}"))
    for lvl in (1, 3):
        yield Target(f"btrfs-raid1-zstd{lvl}", 2, needs=["mkfs.btrfs"],
                     mkfs=["mkfs.btrfs -q -f -K -d raid1 -m raid1 {devs}"],
                     mount=BTRFS_M.replace(
                         "{opt}", f",compress=zstd:{lvl},device={{dev1}}"))
    yield Target("btrfs-single", 1, needs=["mkfs.btrfs"],
                 mkfs=["mkfs.btrfs -q -f -K -d single -m single {devs}"],
                 mount=BTRFS_M.replace("{opt}", ""))
    yield Target("btrfs-raid5", 3, needs=["mkfs.btrfs"],
                 mkfs=["mkfs.btrfs -q -f -K -d raid5 -m raid1 {devs}"],
                 mount=BTRFS_M.replace("{opt}",
                                       ",device={dev1},device={dev2}"))
    yield Target("ext4", 1, needs=["mkfs.ext4"],
                 mkfs=["mkfs.ext4 -q -F -E nodiscard {dev0}"],
                 mount="mount -o noatime {dev0} {mnt}")
    yield Target("xfs", 1, needs=["mkfs.xfs"],
                 mkfs=["mkfs.xfs -q -f -K {dev0}"],
                 mount="mount -o noatime {dev0} {mnt}")
    yield Target("pt-ll", lower=1, needs=[ll], stateless=True,
                 server=ll + " -f -o source={low},cache=auto,allow_other {mnt}",
                 note="libfuse passthrough_ll, defaults, over ext4")
    yield Target("pt-ll-wb", lower=1, needs=[ll], stateless=True,
                 server=ll + " -f -o source={low},cache=always,timeout=60,"
                 "writeback,clone_fd {mnt}",
                 note="the same with writeback cache and 60 s timeouts")
    yield Target("pt-hp", lower=1, needs=[hp], stateless=True,
                 server=hp + " --foreground --nopassthrough {low} {mnt}",
                 note="passthrough_hp, data through the server")
    yield Target("pt-hp-uring", lower=1, needs=[hp], stateless=True,
                 server=hp + " --foreground --nopassthrough -o io_uring "
                 "{low} {mnt}",
                 note="the same over FUSE-io_uring (fuse.enable_uring=Y)")
    yield Target("pt-hp-kernel", lower=1, needs=[hp], stateless=True,
                 server=hp + " --foreground {low} {mnt}",
                 note="FUSE_PASSTHROUGH: kernel does the file I/O")
    yield Target("fuse2fs", 1, needs=["fuse2fs", "mkfs.ext4"],
                 mkfs=["mkfs.ext4 -q -F -E nodiscard {dev0}"],
                 server="fuse2fs -f -o fakeroot {dev0} {mnt}")
    for name, n, kind in (("zfs-fuse-mirror", 2, "mirror"),
                          ("zfs-fuse-raidz", 3, "raidz")):
        d = " ".join(f"{{work}}/d{i}" for i in range(n))
        yield Target(name, n, needs=["zfs-fuse", "zpool"], daemon="zfs-fuse",
                     mkfs=[f"zpool create -f -O mountpoint={{mnt}} "
                           f"-O atime=off {{name}} {kind} {d}"],
                     mounts_on_mkfs=True,
                     mount="zpool import -d {work} {name}",
                     umount="zpool export {name}")
    yield Target("mergerfs", lower=2, needs=["mergerfs"], stateless=True,
                 server="mergerfs -f -o cache.files=auto-full,"
                 "category.create=mfs,minfreespace=64M,allow_other,"
                 "cache.writeback=true {low0}:{low1} {mnt}",
                 note="no redundancy: pools two ext4")
    yield Target("bcachefs-fuse", 2, needs=[bc],
                 mkfs=[bc + " format -q -f --replicas=2 {devs}"],
                 server=bc + " fusemount -f {devs::} {mnt}")


def from_file(path):
    with open(path, encoding="utf-8") as f:
        return [Target(**o) for o in json.load(f)]


QUICK = "terrace-r2 btrfs-raid1 ext4 pt-ll-wb pt-hp-uring bcachefs-fuse".split()
CORE = ("terrace-r2 terrace-r2-zstd btrfs-raid1 btrfs-raid1-zstd1 ext4 pt-ll pt-ll-wb pt-hp-uring fuse2fs "
        "zfs-fuse-mirror mergerfs bcachefs-fuse").split()
PEER = "btrfs-raid1"    # what the targets of a file are compared with


# ---------------------------------------------------------------- workloads

def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


class Run:
    def __init__(self, args):
        self.a = args
        self.work = os.path.realpath(args.workdir)
        os.makedirs(self.work, exist_ok=True)
        q = args.quick
        self.dev_size = int(args.dev_gib * GIB)
        # Small enough that all targets' caches together stay well inside
        # memory: on a VM with free page reporting, memory that has to come
        # back from the host costs several CPU seconds per GiB.
        self.seq = int((args.seq_mib or (256 if q else 384)) * MIB)
        self.comp = (128 if q else 256) * MIB
        self.cap = 2.0 if q else 3.0          # seconds, per timed phase
        self.t = 0.6 if q else 0.8            # fio and fsync loops
        self.files = 6000 if q else 16000     # and twice that with 2 threads
        self.daemons = {}
        self.fsload = os.path.join(self.work, "fsload")
        sh(["cc", "-O2", "-o", self.fsload, os.path.join(HERE, "fsload.c"),
            "-pthread"])
        self.seed = 1

    def environ(self, t):
        return dict(os.environ, **t.env)

    def start_daemon(self, name):
        if name not in self.daemons:
            self.daemons[name] = subprocess.Popen(
                ["zfs-fuse", "-n"], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True)
            time.sleep(1.5)

    def load(self, *a, timeout=90):
        return json.loads(sh([self.fsload] + [str(x) for x in a],
                             timeout=timeout))

    def fio(self, path, rw, bs, depth, direct, secs, extra=()):
        out = sh(["fio", "--name=x", f"--filename={path}", f"--rw={rw}",
                  f"--bs={bs}", f"--iodepth={depth}", f"--direct={direct}",
                  "--ioengine=" + ("io_uring" if depth > 1 else "psync"),
                  "--time_based", f"--runtime={int(secs * 1000)}ms", "--randrepeat=0",
                  "--norandommap", "--fallocate=none", "--thread",
                  "--output-format=json"] + list(extra), timeout=90,
                 cwd=self.work)
        j = json.loads(out[out.index("{"):])["jobs"][0]
        s = j["read" if "read" in rw else "write"]
        p = s["clat_ns"].get("percentile", {})
        return s["iops"], s["bw_bytes"] / MIB, p.get("99.000000", 0) / 1e3

    # each returns {metric: value}

    def w_seqw(self, t):
        f = t.mnt + "/big"
        if os.path.exists(f):
            os.unlink(f)
        r = self.load("seqw", f, self.seq, MIB, self.cap, "rand")
        return {"seqw MiB/s": r["bytes"] / MIB / r["secs"]}, r["bytes"]

    def w_seqr(self, t):
        r = self.load("seqr", t.mnt + "/big", MIB, self.cap)
        return {"seqr cold MiB/s": r["bytes"] / MIB / r["secs"]}, r["bytes"]

    def w_seqrw(self, t):
        f = t.mnt + "/big"
        self.load("seqr", f, MIB, self.cap)
        r = self.load("seqr", f, MIB, self.cap)
        return {"seqr warm MiB/s": r["bytes"] / MIB / r["secs"]}, r["bytes"]

    def w_rr4kd(self, t):
        i, _, p = self.fio(t.mnt + "/big", "randread", "4k", 16, 1, self.t)
        return {"rread 4k O_DIRECT q16 IOPS": i,
                "rread 4k O_DIRECT q16 p99 us": p}, 0

    def w_rr4kb(self, t):
        drop_caches()
        i, _, p = self.fio(t.mnt + "/big", "randread", "4k", 1, 0, self.t)
        return {"rread 4k buffered q1 IOPS": i}, 0

    def w_rr128(self, t):
        _, b, _ = self.fio(t.mnt + "/big", "randread", "128k", 8, 1, self.t)
        return {"rread 128k O_DIRECT q8 MiB/s": b}, 0

    def w_rw128(self, t):
        _, b, _ = self.fio(t.mnt + "/big", "randwrite", "128k", 8, 1, self.t,
                           ["--refill_buffers"])
        return {"rwrite 128k O_DIRECT q8 MiB/s": b}, 0

    def w_sync4k(self, t):
        self.seed += 1
        r = self.load("sync4k", t.mnt + "/big", self.t, self.seed)
        return {"4k write+fsync /s": r["ops"] / r["secs"],
                "4k write+fsync p50 us": r["p50_us"],
                "4k write+fsync p99 us": r["p99_us"]}, 0

    def w_syncmt(self, t):
        r = self.load("syncmt", t.mnt, self.t, 8)
        return {"4k write+fsync, 8 files /s": r["ops"] / r["secs"]}, 0

    def w_ow4k(self, t):
        self.seed += 1
        r = self.load("ow4k", t.mnt + "/big", 16384 if not self.a.quick
                      else 4096, self.seed, self.cap)
        return {"4k overwrite then fsync IOPS": r["ops"] / r["secs"]}, 0

    def w_comp(self, t):
        f = t.mnt + "/comp"
        os.sync()
        free = lambda: os.statvfs(t.mnt).f_bfree * os.statvfs(t.mnt).f_frsize
        a = free()
        r = self.load("seqw", f, self.comp, MIB, self.cap, self.text)
        os.sync()
        m = {"text write MiB/s": r["bytes"] / MIB / r["secs"]}
        time.sleep(0.2)
        used = a - free()
        if used > MIB:
            m["text write ratio"] = r["bytes"] / used
        os.unlink(f)
        return m, r["bytes"]

    def meta(self, t, threads):
        d = t.mnt + f"/meta{threads}"
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        n = self.files * threads
        if t.lower:                   # mind the descriptors, see main()
            n = min(n, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 4 // 5)
        k = f"x{threads} /s"
        m = {}
        r = self.load("create", d, n, threads, self.cap, 1024)
        m["create 1k " + k] = r["ops"] / r["secs"]
        c = r["counts"]
        if threads == 1:
            r = self.load("stat", d, c, threads)
            m["stat warm " + k] = r["ops"] / r["secs"]
            t.remount()
            r = self.load("list", d, c, threads)
            m["ls -l cold " + k] = r["ops"] / r["secs"]
            r = self.load("list", d, c, threads)
            m["ls -l warm " + k] = r["ops"] / r["secs"]
        r = self.load("unlink", d, c, threads)
        m["unlink " + k] = r["ops"] / r["secs"]
        return m, 0

    def w_meta1(self, t):
        return self.meta(t, 1)

    def w_meta2(self, t):
        return self.meta(t, 2)

    def w_tree(self, t):
        d = t.mnt + "/tree"
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null",
                   GIT_CONFIG_SYSTEM="/dev/null", GIT_CONFIG_COUNT="1",
                   GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        m = {}
        def step(name, cmd):
            s = time.monotonic()
            sh(cmd, timeout=120, env=env)
            m[name] = time.monotonic() - s
        step("untar s", ["tar", "-xf", self.tar, "-C", d])
        step("git status (hash all) s", ["git", "-C", d, "status", "-s"])
        step("git status (stat all) s", ["git", "-C", d, "status", "-s"])
        t.remount()
        step("du cold s", ["du", "-s", d])
        step("grep -r cold s", "grep -rF zzqqxyzzy " + d + " || true")
        step("rm -rf s", ["rm", "-rf", d])
        return m, 0

    def w_sqlite(self, t):
        import sqlite3
        m = {}
        for mode in ("delete", "wal"):
            p = t.mnt + f"/db-{mode}"
            for x in ("", "-wal", "-shm", "-journal"):
                if os.path.exists(p + x):
                    os.unlink(p + x)
            try:
                c = sqlite3.connect(p, isolation_level=None)
                c.execute(f"pragma journal_mode={mode}")
                c.execute("pragma synchronous=full")
                c.execute("create table t(a integer primary key, b text)")
                n, s = 0, time.monotonic()
                while time.monotonic() - s < self.t:
                    c.execute("insert into t(b) values(?)", (str(n) * 40,))
                    n += 1
                m[f"sqlite {mode} txn/s"] = n / (time.monotonic() - s)
                c.close()
            except sqlite3.Error:
                pass
            for x in ("", "-wal", "-shm", "-journal"):
                if os.path.exists(p + x):
                    os.unlink(p + x)
        return m, 0

    def w_dbench(self, t):
        d = t.mnt + "/dbench"
        os.makedirs(d, exist_ok=True)
        out = sh(["dbench", "-t", "2", "-c",
                  "/usr/share/dbench/client.txt", "-D", d, "2"], timeout=90)
        shutil.rmtree(d, ignore_errors=True)
        return {"dbench 2 MB/s":
                float(re.search(r"Throughput ([\d.]+)", out).group(1))}, 0

    def w_mount(self, t):
        if t.stateless:
            return {}, 0
        base = t.remount()
        d = t.mnt + "/many"
        os.makedirs(d)
        r = self.load("create", d, 200000, 2, 6.0, 0)
        s = t.remount()
        t.many = r["ops"]
        return {"mount, near empty ms": base * 1e3,
                "mount, many files ms": s * 1e3,
                "  files made within 6 s, k": r["ops"] / 1e3}, 0

    # ------------------------------------------------------------ material

    def material(self):
        """a git work tree as a tarball and a text corpus, from local files"""
        src = os.path.join(self.work, "srctree")
        os.makedirs(src)
        limit = 1500 if self.a.quick else 2500
        n = size = 0
        text = open(os.path.join(self.work, "text"), "wb")
        for top in self.a.tree:
            for dp, dn, fn in os.walk(top):
                dn.sort()
                for f in sorted(fn):
                    p = os.path.join(dp, f)
                    if os.path.islink(p) or not os.path.isfile(p):
                        continue
                    s = os.path.getsize(p)
                    if s > MIB or (n >= limit and text.tell() > 64 * MIB):
                        continue
                    with open(p, "rb") as g:
                        b = g.read()
                    if text.tell() < 64 * MIB:
                        text.write(b)
                    if n < limit and size < 64 * MIB:
                        q = os.path.join(src, p.lstrip("/"))
                        os.makedirs(os.path.dirname(q), exist_ok=True)
                        with open(q, "wb") as g:
                            g.write(b)
                        n += 1
                        size += s
        text.close()
        self.text = text.name
        g = ["git", "-C", src, "-c", "user.name=b", "-c", "user.email=b@b",
             "-c", "gc.auto=0"]
        sh(g + ["init", "-q"])
        sh(g + ["add", "-A", "-f"], timeout=120)
        sh(g + ["commit", "-q", "-m", "x"], timeout=120)
        self.tar = os.path.join(self.work, "tree.tar")
        sh(["tar", "-cf", self.tar, "-C", src, "."], timeout=120)
        shutil.rmtree(src)
        try:
            with open("/sys/module/fuse/parameters/enable_uring") as f:
                ring = f.read().strip()
        except OSError:
            ring = "absent"
        print(f"# kernel {os.uname().release}, {os.cpu_count()} CPUs, "
              f"fuse.enable_uring={ring}")
        print(f"# tree: {n} files, {size / MIB:.0f} MiB; seq "
              f"{self.seq // MIB} MiB; devices {self.a.dev_gib} GiB")


#       key     rounds  needs /big
PLAN = [("seqw", 3), ("seqr", 3), ("seqrw", 3), ("rr4kd", 3), ("rr4kb", 3),
        ("rr128", 3), ("sync4k", 3), ("syncmt", 3), ("ow4k", 3), ("rw128", 3), ("comp", 3),
        ("meta1", 3), ("meta2", 3), ("tree", 3), ("sqlite", 3), ("dbench", 2),
        ("mount", 1)]
QUICK_SKIP = {"dbench", "mount", "rr128", "meta2"}
COLD = {"seqr"}


def busy():
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    # user, system, irq, softirq; niced work belongs to somebody else
    return (v[0] + v[2] + v[5] + v[6]) / os.sysconf("SC_CLK_TCK")


def settle(longest):
    """wait for a quiet moment: what ran before, or somebody else's work"""
    end = time.monotonic() + longest
    while True:
        b, t = busy(), time.monotonic()
        time.sleep(0.06)
        if busy() - b <= 0.3 * (time.monotonic() - t) or t > end:
            return


def fmt(x):
    if x >= 1e6:
        return f"{x / 1e6:.2f}M"
    if x >= 1e4:
        return f"{x / 1e3:.1f}k"
    if x >= 100:
        return f"{x:.0f}"
    return f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def lower_better(metric):
    return re.search(r" (s|us|ms|KiB|MiB RSS|s/GiB)$", metric) is not None


def ratio(samples, n, ref, m):
    """median of the per-round ratios: a round's cells are close in time"""
    v, r = samples[n].get(m), samples[ref].get(m)
    if not v or not r or not all(v) or not all(r):
        return None
    if len(v) != len(r):
        v, r = [statistics.median(v)], [statistics.median(r)]
    q = statistics.median(a / b for a, b in zip(v, r))
    return 1 / q if lower_better(m) else q


def table(title, names, metrics, samples, ref):
    print(f"\n### {title}\n")
    print("| workload | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for m in metrics:
        row = []
        for n in names:
            v = samples[n].get(m)
            q = ratio(samples, n, ref, m) if n != ref else None
            row.append("–" if not v else fmt(statistics.median(v))
                       + (f" ({q:.2f}x)" if q else ""))
        print(f"| {m} | " + " | ".join(row) + " |")


def report(order, samples, cpu, refs):
    metrics, cm = [], []
    for n in order:
        metrics += [m for m in samples[n] if m not in metrics]
        cm += [m for m in cpu[n] if m not in cm]
    for ref in [r for r in refs if r in order]:
        table(f"medians, and ratio to {ref} (above 1 is better)", order,
              metrics, samples, ref)
    if cm:
        table("CPU and memory (CPU: all busy time that is not niced)", order,
              sorted(cm), cpu, order[0])
    rounds = [len(v) for n in order for v in samples[n].values()]
    spread = sorted(max(v) / min(v) for n in order
                    for v in samples[n].values() if len(v) > 1 and min(v) > 0)
    if spread:
        print(f"\n# rounds {min(rounds)}-{max(rounds)}; max/min of a cell: "
              f"median {statistics.median(spread):.2f}, "
              f"p90 {spread[int(len(spread) * .9)]:.2f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("workdir", nargs="?",
                    help="an empty or absent directory")
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--targets", help="comma list, or 'all'; +x adds")
    ap.add_argument("--target-file", action="append", default=[])
    ap.add_argument("--only", help="comma list of workloads")
    ap.add_argument("--budget", type=float, help="seconds, soft")
    ap.add_argument("--ref", default="btrfs-raid1,pt-ll-wb")
    ap.add_argument("--tree", nargs="*", default=["/usr/lib/python3.11",
                    "/usr/lib/python3", "/usr/include", "/usr/share"])
    ap.add_argument("--dev-gib", type=float, default=4)
    ap.add_argument("--seq-mib", type=float, help="size of the big file")
    ap.add_argument("--settle", type=float, default=1.0,
                    help="longest wait for a quiet machine before a cell")
    ap.add_argument("--json", help="write every sample here")
    ap.add_argument("--report", nargs="+", metavar="JSON",
                    help="only print the tables of earlier runs, pooled")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--verbose", action="store_true", help="time every cell")
    a = ap.parse_args()
    if a.report:
        samples, cpu = {}, {}
        for f in a.report:
            with open(f) as g:
                j = json.load(g)
            for into, part in ((samples, j["samples"]), (cpu, j["cpu"])):
                for n, d in part.items():
                    for m, v in d.items():
                        into.setdefault(n, {}).setdefault(m, []).extend(v)
        names = a.targets.split(",") if a.targets else list(samples)
        report([n for n in names if n in samples], samples,
               {n: cpu.get(n, {}) for n in samples}, a.ref.split(","))
        return
    known = {t.name: t for t in builtin()}
    known.update((t.name, t)
                 for t in from_file(os.path.join(HERE, "terrace.json")))
    mine = []
    for f in a.target_file:
        for t in from_file(f):
            known[t.name] = t
            mine.append(t.name)
    if a.list:
        for t in known.values():
            print(f"{t.name:20} {t.note} "
                  + (f"[missing {t.missing()}]" if t.missing() else ""))
        return
    if not a.workdir:
        ap.error("a work directory is needed")
    names = [PEER] if mine else list(QUICK if a.quick else CORE)
    if a.targets == "all":
        names = list(known)
    elif a.targets and a.targets.startswith("+"):
        names += a.targets[1:].split(",")
    elif a.targets:
        names = a.targets.split(",")
    names += [n for n in mine if n not in names]
    if unknown := [n for n in names if n not in known]:
        ap.error("no such target: " + ", ".join(unknown))
    budget = a.budget or (170 if a.quick else 690)
    if os.path.exists(a.workdir) and os.listdir(a.workdir):
        sys.exit("the work directory is not empty")
    start = time.monotonic()
    # passthrough servers hold a descriptor per inode they know
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run = Run(a)
    run.material()
    live, samples, cpu = [], {}, {}
    plan = [(w, k) for w, k in PLAN if not (a.quick and w in QUICK_SKIP)]
    if a.only:
        want = set(a.only.split(","))
        plan = [(w, k) for w, k in PLAN if w in want or
                (w == "seqw" and want & {"seqr", "seqrw", "rr4kd", "rr4kb",
                                         "rr128", "sync4k", "ow4k", "rw128"})]
    try:
        for n in names:
            t = known[n]
            if t.missing():
                print(f"# {n}: skipped, no {', '.join(t.missing())}")
                continue
            t.attach(run)
            live.append(t)
            try:
                t.setup()
                samples[n], cpu[n] = {}, {}
            except Exception as e:
                print(f"# {n}: set-up failed: {e}")
                live.remove(t)
                t.teardown()
        print(f"# set up {len(live)} targets in "
              f"{time.monotonic() - start:.0f} s", flush=True)
        cost, dead = {}, set()
        for rnd in range(max(k for _, k in plan)):
            for w, k in plan:
                if rnd >= k:
                    continue
                todo = [t for t in live if t.name not in dead]
                todo = todo[rnd % len(todo):] + todo[:rnd % len(todo)]
                for t in todo:
                    key = (w, t.name)
                    left = budget - (time.monotonic() - start)
                    if cost.get(key) == "fail":
                        continue
                    if rnd and left < cost.get(key, 0) + 5:
                        continue
                    settle(a.settle)
                    s = time.monotonic()
                    try:
                        if w in COLD:
                            t.remount()
                        b0, c0 = busy(), t.server_cpu()
                        m, nbytes = getattr(run, "w_" + w)(t)
                        # what is still dirty is part of the cost
                        os.sync()
                        if w in ("seqw", "seqr", "seqrw", "comp") and nbytes:
                            g = nbytes / GIB
                            nm = {"seqw": "write", "seqr": "cold read",
                                  "seqrw": "warm read (2 passes)",
                                  "comp": "text write"}[w]
                            cpu[t.name].setdefault(
                                f"{nm}, machine s/GiB", []).append(
                                    (busy() - b0) / g)
                            if t.pids():
                                cpu[t.name].setdefault(
                                    f"{nm}, server s/GiB", []).append(
                                        (t.server_cpu() - c0) / g)
                        for q, v in m.items():
                            samples[t.name].setdefault(q, []).append(v)
                    except subprocess.TimeoutExpired:
                        print(f"# {t.name}: {w}: timed out", flush=True)
                        cost[key] = "fail"
                        continue
                    except Exception as e:
                        print(f"# {t.name}: {w}: {str(e)[:300]}", flush=True)
                        cost[key] = "fail"
                        try:
                            if not mounted(t.mnt) or (
                                    t.proc and t.proc.poll() is not None):
                                raise RuntimeError("gone")
                            os.statvfs(t.mnt)
                        except Exception:
                            print(f"# {t.name}: dropped", flush=True)
                            dead.add(t.name)
                        continue
                    cost[key] = time.monotonic() - s
                    if a.verbose:
                        print(f"# {time.monotonic() - start:6.1f} {w} "
                              f"{t.name} {cost[key]:.2f} s", flush=True)
        for t in live:
            try:
                t.keep_peak()
            except Exception:
                pass
    finally:
        for t in reversed(live):
            t.teardown()
        for d in run.daemons.values():
            d.send_signal(signal.SIGTERM)
            try:
                d.wait(10)
            except subprocess.TimeoutExpired:
                d.kill()
        for n in os.listdir(run.work):
            p = os.path.join(run.work, n)
            if os.path.isdir(p) and not os.path.ismount(p + "/mnt"):
                shutil.rmtree(p, ignore_errors=True)
            elif os.path.isfile(p):
                os.unlink(p)
    order = [t.name for t in live]
    for t in live:
        if t.peak_kib:
            cpu[t.name]["server peak MiB RSS"] = [t.peak_kib / 1024]
    report(order, samples, cpu, a.ref.split(","))
    print(f"# {time.monotonic() - start:.0f} s in all")
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"samples": samples, "cpu": cpu}, f, indent=1)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that know nothing of Terrace do their work on the mount, before and after a remount or a killed daemon, and their own verifiers find nothing.

A test is a generator: where it yields, the pool is unmounted, checked and mounted again; after its end it is unmounted and checked.
"""
import functools
import glob
import mmap
import multiprocessing
import pwd

try:
    import sqlite3
except ImportError:
    sqlite3 = None

from rig import *

SOURCE = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))  # a real tree: this project's
SYSTEM_TREES = ["/usr/include/linux", "/usr/share/zoneinfo", "/usr/share/perl"]
SYSTEM_FILES_MAX = 4000  # of each
POSTGRES_DIRS = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True) + ["/usr/local/bin", "/usr/bin"]
fork = multiprocessing.get_context("fork")


def needs(*programs, where=None):
    """Left out, and said so, where one of the programs is missing."""
    path = os.pathsep.join(where) if where else None

    def mark(test):
        @functools.wraps(test)
        def on_a_pool():
            with pool(members=2, mib=2048, options=["--replicas=2"]) as p:
                for _ in test(p):
                    if p.daemon:
                        p.stop()
                    p.fsck("in the middle of " + test.__name__)
                    p.start()
                p.stop()
                p.fsck("after " + test.__name__)
        on_a_pool.missing = [name for name in programs if not shutil.which(name, path=path)]
        return on_a_pool
    return mark


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def copy_sources(to, folders=("core", "daemon", "dbus", "plugins", "tests")):
    for folder in folders:
        shutil.copytree(os.path.join(SOURCE, folder), os.path.join(to, folder), symlinks=True, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__", ".*", "*.o"))


def copy_system_trees(to):
    """Some thousand files of other people, with what the trees at hand lack added: hard links, xattrs, ACLs, holes, a fifo, odd names."""
    for tree in SYSTEM_TREES:
        if not os.path.isdir(tree):
            continue
        left, made = SYSTEM_FILES_MAX, []
        for here, dirs, files in os.walk(tree):
            target = os.path.join(to, os.path.basename(tree), os.path.relpath(here, tree))
            os.makedirs(target, exist_ok=True)
            for name in files[:left]:
                shutil.copy2(os.path.join(here, name), os.path.join(target, name), follow_symlinks=False)
            left -= len(files[:left])
            made.append((here, target))
        for here, target in reversed(made):
            shutil.copystat(here, target)
    extra = os.path.join(to, "extra")
    os.mkdir(extra)
    write(extra + "/a", b"linked")
    os.link(extra + "/a", extra + "/b")
    os.symlink("nowhere", extra + "/dangling")
    os.mkfifo(extra + "/fifo")
    os.utime(extra + "/fifo", ns=(3, 1_000_000_000 * 10**9))  # whole seconds: rsync keeps no finer time of a fifo
    write(extra + "/-name with\nnewline", os.urandom(100000))
    with open(extra + "/holes", "wb") as f:
        f.seek(1 << 20)
        f.write(b"middle")
        f.truncate(5 << 20)
    os.setxattr(extra + "/a", "user.note", b"value\0binary")
    os.setxattr(extra, "user.dir", b"x" * 1000)
    if shutil.which("setfacl"):
        run("setfacl", "-m", "u:1000:rw,g:4:r", extra + "/holes")
        run("setfacl", "-d", "-m", "u:1000:rwx", extra)
    os.chown(extra + "/holes", 1000, 4)
    os.chmod(extra + "/b", 0o4711)
    os.utime(extra + "/a", ns=(1, 1_234_567_890_123_456_789))
    os.utime(extra, ns=(2, 987_654_321_987_654_321))


@needs("git", "diff")
def git_(p):
    repo, clone = p.mnt + "/repo", p.mnt + "/clone"
    env = {"PATH": os.environ["PATH"], "HOME": p.mnt, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
           "GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@t"}

    def git(where, *args):
        return run("git", "-C", where, *args, env=env).stdout

    def verify():
        for where in (repo, clone):
            said = git(where, "fsck", "--full", "--strict")
            check("error" not in said and "missing" not in said, "git fsck: %s" % said)
            check(git(where, "status", "--porcelain") == "", "git status in %s" % where)
        check(git(repo, "rev-parse", "main") == git(clone, "rev-parse", "main") == head, "the heads differ")
        run("diff", "-r", "--exclude=.git", repo, clone)

    run("git", "init", "-q", "-b", "main", repo, env=env)
    for folder in ("core", "daemon", "tests"):
        copy_sources(repo, (folder,))
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", folder)
    git(repo, "checkout", "-qb", "side", "HEAD~1")
    for n in range(5):
        write(repo + "/side.txt", b"line\n" * (n + 1))
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", "side %d" % n)
    git(repo, "checkout", "-q", "main")
    for path in glob.glob(repo + "/core/*/*.c")[::3]:
        write(path, read(path).replace(b"return", b"return  "))
    git(repo, "commit", "-qam", "edit")
    git(repo, "merge", "-q", "-m", "merge", "side")
    head = git(repo, "rev-parse", "main")
    git(p.mnt, "clone", "-q", "repo", "clone")  # by hard links
    verify()
    git(repo, "gc", "--aggressive", "--prune=now", "-q")
    verify()
    yield
    verify()
    git(p.mnt, "clone", "-q", "--no-local", "repo", "again")
    git(p.mnt + "/again", "checkout", "-q", "HEAD~3")
    git(repo, "repack", "-adfq")
    verify()


def bank_writer(path, journal, accounts, rounds):
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    db.execute("PRAGMA journal_mode=%s" % journal)
    rnd = random.Random(rounds)
    for n in range(rounds):
        a, b = rnd.sample(range(accounts), 2)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE account SET balance = balance - 7 WHERE id = ?", (a,))
        db.execute("UPDATE account SET balance = balance + 7 WHERE id = ?", (b,))
        db.execute("INSERT INTO history VALUES (?, ?)", (n, rnd.randbytes(rnd.randrange(500))))
        db.execute("COMMIT")
    db.close()


def bank_reader(path, accounts, done, seen):
    """Every snapshot that a reader gets has the same sum, and never fewer rows than the one before."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    rows = 0
    while not done.value or not seen.value:
        total, = db.execute("SELECT sum(balance) FROM account").fetchone()
        now, = db.execute("SELECT count(*) FROM history").fetchone()
        if total != accounts * 100 or now < rows:
            os._exit(3)
        rows = now
        seen.value += 1
    db.close()


def until_killed(path, journal, acknowledged):
    """Commits until the daemon is gone. What happens then, an error or a SIGBUS in the mapped index of the WAL, is its end."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    db.execute("PRAGMA journal_mode=%s" % journal)
    db.execute("PRAGMA synchronous=EXTRA")  # FULL does not sync the directory that the rollback journal leaves
    try:
        for n in range(1 << 30):
            db.execute("INSERT INTO log VALUES (?, ?)", (n, b"%d" % n * 50))
            acknowledged.value = n + 1
    except sqlite3.Error:
        os._exit(0)


def sqlite_ok(path):
    said = run("sqlite3", path, "PRAGMA integrity_check; PRAGMA foreign_key_check;").stdout
    check(said == "ok\n", "integrity_check of %s: %s" % (path, said[:1000]))


@needs("sqlite3")
def sqlite_with_wal_and_rollback_journal(p):
    accounts, rounds = 100, 150
    for journal in ("wal", "delete"):
        path = p.mnt + "/bank-" + journal
        db = sqlite3.connect(path, isolation_level=None)
        check(db.execute("PRAGMA journal_mode=%s" % journal).fetchone()[0] == journal, "journal_mode %s was refused" % journal)
        db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INT)")
        db.execute("CREATE TABLE history (id INTEGER PRIMARY KEY, data BLOB)")
        db.executemany("INSERT INTO account VALUES (?, 100)", [(n,) for n in range(accounts)])
        db.close()
        done = fork.Value("i", 0)
        seen = [fork.Value("L", 0) for _ in range(2)]
        readers = [fork.Process(target=bank_reader, args=(path, accounts, done, s)) for s in seen]
        writer = fork.Process(target=bank_writer, args=(path, journal, accounts, rounds))
        for q in readers + [writer]:
            q.start()
        writer.join()
        done.value = 1
        for q in readers:
            q.join()
        check(writer.exitcode == 0, "the writer with journal_mode %s ended with %s" % (journal, writer.exitcode))
        check([q.exitcode for q in readers] == [0, 0], "a reader with journal_mode %s saw half a transaction" % journal)
        run("sqlite3", path, "DELETE FROM history WHERE id % 3 = 0; VACUUM;")
        sqlite_ok(path)
    yield
    for journal in ("wal", "delete"):
        path = p.mnt + "/bank-" + journal
        sqlite_ok(path)
        said = run("sqlite3", path, "SELECT sum(balance), count(*) FROM account; SELECT count(*) FROM history;").stdout
        check(said == "%d|%d\n%d\n" % (accounts * 100, accounts, rounds - -(-rounds // 3)), "contents after a remount: %r" % said)

        path = p.mnt + "/log-" + journal
        run("sqlite3", path, "CREATE TABLE log (id INTEGER PRIMARY KEY, data BLOB);")
        acknowledged = fork.Value("L", 0, lock=False)
        writer = fork.Process(target=until_killed, args=(path, journal, acknowledged))
        writer.start()
        until = time.monotonic() + 30
        while acknowledged.value < 200:
            check(writer.is_alive() and time.monotonic() < until, "the writer got %d rows done" % acknowledged.value)
            time.sleep(0.01)
        p.kill()
        writer.join()
        yield
        sqlite_ok(path)
        rows, last = run("sqlite3", path, "SELECT count(*), coalesce(max(id), -1) FROM log;").stdout.strip().split("|")
        check(int(rows) == int(last) + 1 >= acknowledged.value, "%s rows up to %s, %d were acknowledged" % (rows, last, acknowledged.value))


@needs("rsync")
def rsync_(p):
    a, b = p.mnt + "/a", p.mnt + "/b"
    copy_system_trees(a)
    run("rsync", "-aHAX", a + "/", b)

    def verify():
        said = run("rsync", "-aHAXcni", "--delete", a + "/", b).stdout
        check(said == "", "rsync sees differences:\n%s" % said[:2000])
        compare(describe_tree(a, with_times=True), describe_tree(b, with_times=True), "what rsync made")

    verify()
    yield
    verify()
    for n, path in enumerate(sorted(glob.glob(b + "/*/*.h"))[:60]):
        if n % 3 == 0:
            os.unlink(path)
        elif n % 3 == 1:
            write(path, b"changed")
        else:
            os.rename(path, path + ".moved")
    check(run("rsync", "-aHAXcni", "--delete", a + "/", b).stdout != "", "rsync sees no difference where there are some")
    run("rsync", "-aHAX", "--delete", "--inplace", a + "/", b)
    verify()


@needs("tar")
def tar_(p):
    a, out = p.mnt + "/a", p.mnt + "/out"
    copy_system_trees(a)
    kinds = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]

    def verify():
        for where in (p.mnt, out):
            run("tar", *kinds, "--compare", "-f", p.mnt + "/a.tar", "-C", where)
        compare(describe_tree(a, with_times=True), describe_tree(out + "/a", with_times=True), "what tar made")
        for path in ("/extra/a", "/extra", "/extra/holes"):
            one, other = ({k: os.getxattr(root + path, k) for k in os.listxattr(root + path)} for root in (a, out + "/a"))
            check(one == other, "xattrs of %s: %r and %r" % (path, one, other))

    run("tar", *kinds, "--sparse", "-cf", p.mnt + "/a.tar", "-C", p.mnt, "a")
    os.mkdir(out)
    run("tar", *kinds, "-xpf", p.mnt + "/a.tar", "-C", out)
    verify()
    yield
    verify()
    write(out + "/a/extra/b", b"linkeD")
    check(run("tar", "--compare", "-f", p.mnt + "/a.tar", "-C", out, ok=False).returncode == 1, "tar --compare does not see a changed file")


MAKEFILE = """\
OBJECTS = $(patsubst %.c,%.o,$(wildcard util/*.c))
CFLAGS = -std=gnu17 -O1 -fPIC -D_GNU_SOURCE -I. -MMD
all: program libutil.so
libutil.a: $(OBJECTS)
\trm -f $@
\tar rcs $@ $(OBJECTS)
libutil.so: $(OBJECTS)
\t$(CC) -shared -o $@ $(OBJECTS) -lpthread
program: main.o libutil.a libutil.so
\t$(CC) -o $@ main.o -L. -lutil -Wl,-rpath,'$$ORIGIN' -lpthread
static: main.o libutil.a
\t$(CC) -o $@ main.o libutil.a -lpthread
-include $(OBJECTS:.o=.d) main.d
"""
MAIN_C = """\
#include <stdio.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/crc32c.h"
#include "util/utf8.h"
int main(void)
{
	printf("%08x %d %d\\n", ter_crc32c(0, "123456789", 9), ter_utf8_valid("x", 1), ter_utf8_valid("\\xff", 1));
	return 0;
}
"""
PROGRAM_SAYS = "e3069283 1 0\n"  # the check value of CRC-32C


@needs("gcc", "cc", "ar", "make", "cmp")
def a_compiler_and_make(p):
    here, elsewhere = p.mnt + "/build", p.dir + "/elsewhere"
    for root in (here, elsewhere):
        os.mkdir(root)
        shutil.copytree(os.path.join(SOURCE, "core/util"), root + "/util")
        os.mkdir(root + "/plugins")
        shutil.copy2(os.path.join(SOURCE, "plugins/terrace-plugin.h"), root + "/plugins")
        write(root + "/Makefile", MAKEFILE.encode())
        write(root + "/main.c", MAIN_C.encode())

    def verify():
        check(run("make", "-q", "-C", here, "all", "static", ok=False).returncode == 0, "make would build again what it has built")
        for name in ("program", "static"):
            check(run(os.path.join(here, name)).stdout == PROGRAM_SAYS, "%s says something else" % name)
        loaded = "import ctypes, sys; l = ctypes.CDLL(sys.argv[1]); print('%08x' % (l.ter_crc32c(0, b'123456789', 9) & 0xffffffff))"
        check(run(sys.executable, "-c", loaded, here + "/libutil.so").stdout == PROGRAM_SAYS.split()[0] + "\n", "a loaded library")

    run("make", "-j2", "-C", here, "all", "static")
    run("make", "-j2", "-C", elsewhere, "all", "static")
    objects = [os.path.relpath(path, here) for path in glob.glob(here + "/util/*.o")]
    check(len(objects) > 10 and sorted(run("ar", "t", here + "/libutil.a").stdout.split()) == sorted(map(os.path.basename, objects)), "members of the archive")
    for name in objects + ["main.o", "libutil.so", "program", "static"]:  # the same bytes as on another filesystem
        run("cmp", os.path.join(here, name), os.path.join(elsewhere, name))
    verify()
    yield
    verify()
    time.sleep(0.01)
    os.utime(here + "/util/crc32c.h")
    made = run("make", "-j2", "-C", here, "all", "static").stdout
    check("-o util/crc32c.o" in made and "-o main.o" in made and "-o util/siphash.o" not in made, "make after a changed header:\n%s" % made)
    verify()


class Postgres:
    """A server as an unprivileged user, its files and its socket on the mount."""

    def __init__(self, mnt):
        self.user = next((u for u in map(self.passwd, ("postgres", "nobody")) if u))
        self.home = mnt + "/pg"
        self.data = self.home + "/data"
        os.mkdir(self.home, 0o700)
        os.chown(self.home, self.user.pw_uid, self.user.pw_gid)
        self.server = None

    @staticmethod
    def passwd(name):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            return None

    def as_user(self):
        return dict(user=self.user.pw_uid, group=self.user.pw_gid, extra_groups=[], cwd="/",
                    env={"PATH": os.pathsep.join(POSTGRES_DIRS), "HOME": self.home, "LC_ALL": "C",
                         "PGHOST": self.home, "PGUSER": "t", "PGDATABASE": "postgres"})

    def do(self, *args, ok=True):
        return run(*args, ok=ok, **self.as_user())

    def start(self, log):
        self.server = subprocess.Popen(["postgres", "-D", self.data, "-k", self.home, "-c", "listen_addresses=", "-c", "shared_buffers=16MB"],
                                       stdout=log, stderr=log, **self.as_user())
        until = time.monotonic() + 60
        while self.do("psql", "-qAtc", "SELECT 1", ok=False).returncode != 0:
            check(self.server.poll() is None and time.monotonic() < until, "postgres does not start")
            time.sleep(0.05)

    def end(self, sig):
        self.server.send_signal(sig)
        self.server.wait(60)
        self.server = None

    def ask(self, query):
        return self.do("psql", "-qAtc", query).stdout.strip()

    def verify(self, acknowledged):
        sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches)," \
               " (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
        check(len(set(self.ask(sums).split("|"))) == 1, "the balances do not agree: %s" % self.ask(sums))
        rows = int(self.ask("SELECT count(*) FROM pgbench_history"))
        check(rows >= acknowledged, "%d transactions are there, %d were acknowledged" % (rows, acknowledged))
        by_index, by_heap = (self.ask("SET enable_%s = off; SELECT count(*) FROM pgbench_accounts WHERE aid > 0" % other)
                             for other in ("seqscan", "indexscan"))
        check(by_index == by_heap == "200000", "%s rows by the index, %s without" % (by_index, by_heap))

    def bench(self, seconds):
        return subprocess.Popen(["pgbench", "-n", "-c", "4", "-T", str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **self.as_user())

    @staticmethod
    def processed(text):
        """How many transactions pgbench was told are committed."""
        for line in text.splitlines():
            if line.startswith("number of transactions actually processed:"):
                return int(line.split(":")[1].split("/")[0])
        raise Failed("pgbench: %s" % text[-1000:])


@needs("initdb", "postgres", "psql", "pgbench", "pg_checksums", where=POSTGRES_DIRS)
def postgres_crashes_and_recovers(p):
    os.chmod(p.dir, 0o711)  # another user goes through
    pg = Postgres(p.mnt)
    with open(p.dir + "/pg.log", "a") as log:
        try:
            os.chmod(p.mnt, 0o755)
            pg.do("initdb", "-k", "-A", "trust", "-U", "t", "-D", pg.data)
            pg.start(log)
            pg.do("pgbench", "-i", "-q", "-s", "2")
            bench = pg.bench(3)
            acknowledged = pg.processed(bench.communicate()[0])
            check(acknowledged > 10, "pgbench got %d transactions done" % acknowledged)
            bench = pg.bench(30)
            time.sleep(1)
            pg.end(signal.SIGQUIT)  # the immediate stop: a crash, under load
            acknowledged += pg.processed(bench.communicate()[0])
            pg.start(log)
            check("interrupted" in pg_log(p), "postgres did not notice its crash")
            pg.verify(acknowledged)
            pg.end(signal.SIGINT)
            pg.do("pg_checksums", "--check", "-D", pg.data)
            yield
            pg.do("pg_checksums", "--check", "-D", pg.data)
            pg.start(log)
            pg.verify(acknowledged)
            bench = pg.bench(30)
            time.sleep(1.5)
            p.kill()  # the filesystem goes away below it
            acknowledged += pg.processed(bench.communicate()[0])
            pg.end(signal.SIGQUIT)
            yield
            pg.start(log)
            pg.verify(acknowledged)
            pg.end(signal.SIGINT)
            pg.do("pg_checksums", "--check", "-D", pg.data)
        except Failed as e:
            raise Failed("%s\n%s" % (e, pg_log(p)[-2000:]))
        finally:
            if pg.server:
                pg.end(signal.SIGQUIT)


def pg_log(p):
    with open(p.dir + "/pg.log") as f:
        return f.read()


MAPPED_MIB = 16
PAGE = 4096


def page_of(n, turn):
    return (b"%07d %07d|" % (n, turn)) * (PAGE // 16)


def map_writer(path, which, turns):
    """Every other page of the mapping, some of it flushed in between."""
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), MAPPED_MIB << 20) as mem:
        for turn in range(turns):
            for n in range(which, MAPPED_MIB << 20 >> 12, 2):
                mem[n * PAGE:(n + 1) * PAGE] = page_of(n, turn)
            mem.flush(0, (MAPPED_MIB << 20) // (turn + 1) // PAGE * PAGE)


@needs()
def mapped_files(p):
    path, turns = p.mnt + "/mapped", 3
    with open(path, "wb") as f:
        f.truncate(MAPPED_MIB << 20)
    writers = [fork.Process(target=map_writer, args=(path, which, turns)) for which in range(2)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
        check(w.exitcode == 0, "a writer through a mapping ended with %s" % w.exitcode)
    want = b"".join(page_of(n, turns - 1) for n in range(MAPPED_MIB << 20 >> 12))
    check(read(path) == want, "what two processes wrote through mappings")
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mem, mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE) as private:
        private[0:4] = b"mine"
        os.pwrite(f.fileno(), b"write", 5 * PAGE)  # write and mapping see each other
        check(mem[5 * PAGE:5 * PAGE + 5] == b"write", "a mapping does not show a write")
        mem[7 * PAGE:7 * PAGE + 5] = b"store"
        check(os.pread(f.fileno(), 5, 7 * PAGE) == b"store", "a read does not show a store into a mapping")
        check(os.pread(f.fileno(), 4, 0) == want[:4], "a private mapping leaked into the file")
        os.truncate(path, (MAPPED_MIB << 20) - 10 * PAGE - 100)
        os.truncate(path, MAPPED_MIB << 20)
    want = bytearray(want)
    want[5 * PAGE:5 * PAGE + 5], want[7 * PAGE:7 * PAGE + 5] = b"write", b"store"
    want[-(10 * PAGE + 100):] = bytes(10 * PAGE + 100)
    check(read(path) == want, "after truncating and extending")
    yield
    check(read(path) == want, "mapped contents after a remount")
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as mem:
        check(mem[:] == want, "read through a mapping after a remount")
        mem[123:128] = want[123:128] = b"again"
        mem.flush()
    p.kill()
    yield
    check(read(path) == want, "msync before a kill")


if __name__ == "__main__":
    need_fuse()
    tests = [git_, sqlite_with_wal_and_rollback_journal, rsync_, tar_, a_compiler_and_make, postgres_crashes_and_recovers, mapped_files]
    if not sqlite3:
        sqlite_with_wal_and_rollback_journal.missing.append("the sqlite3 module of Python")
    if not any(map(Postgres.passwd, ("postgres", "nobody"))):
        postgres_crashes_and_recovers.missing.append("a user for postgres")
    for t in tests:
        if t.missing:
            print("skip %s: there is no %s" % (t.__name__, ", no ".join(t.missing)))
    main(*[t for t in tests if not t.missing])

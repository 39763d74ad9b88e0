#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounting takes no longer because a pool holds many files, and not long after a kill; and the daemon stays small while they are made and mounted.

TERRACE_TEST_LONG makes the big pool 500,000 files instead of 200,000; TERRACE_TEST_FILES any number.
"""
import multiprocessing
import statistics

from rig import *

SMALL_FILES = 1000
BIG_FILES = int(os.environ.get("TERRACE_TEST_FILES") or (500000 if os.environ.get("TERRACE_TEST_LONG") else 200000))
FILES_A_DIR = 5000
FRESH_FILES = 30000       # made just before the kill
SYNCED_WITH_DATA = 300    # of them with bytes that an fsync put into the journal
MOUNTS = 9                # of each pool a round, in turns
ROUNDS = 3                # machines are noisy: the best round counts
RATIO_MAX = 2.0
PEAK_MAX_MIB = 300
REPLAY_MAX_S = 5.0
PROCESSES = 2
fork = multiprocessing.get_context("fork")


def small_content(n):
    return b"%d\n" % n * (n % 50 + 1)


def create(task):
    """Every 16th file has some bytes, the others are empty: names and inodes are what a mount could trip over."""
    root, first, count = task
    for n in range(first, first + count):
        if n % FILES_A_DIR == 0 or n == first:
            directory = os.path.join(root, "d%d" % (n // FILES_A_DIR))
            os.makedirs(directory, exist_ok=True)
        fd = os.open(os.path.join(directory, "f%d" % n), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        if n % 16 == 0:
            os.write(fd, small_content(n))
        os.close(fd)


def create_many(root, count):
    share = -(-count // PROCESSES)
    with fork.Pool(PROCESSES) as workers:
        workers.map(create, [(root, first, min(share, count - first)) for first in range(0, count, share)], chunksize=1)


def check_many(root, count, data_synced=True):
    """All names, and the bytes of some files (of which a kill may have left nothing yet where no fsync covered them)."""
    names = 0
    for d in os.listdir(root):
        if d.startswith("d"):
            names += len(os.listdir(os.path.join(root, d)))
    check(names == count, "%d names of %d" % (names, count))
    for n in range(0, count, max(16, count // 500 // 16 * 16)):
        with open(os.path.join(root, "d%d" % (n // FILES_A_DIR), "f%d" % n), "rb") as f:
            got = f.read()
        want = small_content(n)
        check(got == want or not data_synced and got in (b"", b"\0" * len(want)), "contents of f%d: %r" % (n, got[:80]))


def forget_cached(members):
    """The next mount reads from the devices: what the page cache holds of the members goes, and nothing else of this machine."""
    for path in members:
        fd = os.open(path, os.O_RDWR)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def start_timed(p):
    """From the command to the first answer of the mounted filesystem, in seconds."""
    before = os.stat(p.dir).st_dev
    log = open(os.path.join(p.dir, "log"), "a+")
    begin = time.monotonic()
    p.daemon = subprocess.Popen([TERRACED, "--once", "serve", p.mnt, *p.members], stdout=log, stderr=log)
    log.close()
    while os.stat(p.mnt).st_dev == before:
        check(p.daemon.poll() is None, "the daemon ended: %s" % p.log_text())
        check(time.monotonic() - begin < START_SECONDS, "not mounted after %d s" % START_SECONDS)
        time.sleep(0.0005)
    os.listdir(p.mnt)
    return time.monotonic() - begin


def check_peak(p, what):
    peak = p.rss_peak_kib / 1024
    print("     peak memory %s: %.0f MiB" % (what, peak), flush=True)
    check(peak < PEAK_MAX_MIB, "the daemon's peak memory %s is %.0f MiB" % (what, peak))


def make_pool(count):
    p = Pool(members=2, mib=2048)
    try:
        p.format()
        p.start()
        begin = time.monotonic()
        create_many(p.mnt, count)
        print("     %d files made in %.1f s" % (count, time.monotonic() - begin), flush=True)
        check_peak(p, "while %d files were made" % count)
        p.stop()
    except BaseException:
        p.close()
        raise
    return p


def mount_times(pools):
    """One round: {pool: [seconds]}, the pools in turns so that what else the machine does meets all of them."""
    times = {p: [] for p in pools}
    for _ in range(MOUNTS):
        for p in pools:
            forget_cached(p.members)
            times[p].append(start_timed(p))
            p.stop()
    return times


def mount_time_does_not_grow_with_the_files(small, big):
    seen = []
    for round_nr in range(ROUNDS):
        times = mount_times([small, big])
        a, b = statistics.median(times[small]), statistics.median(times[big])
        seen.append("%.1f ms with %d files, %.1f ms with %d: %.2f times" % (a * 1e3, SMALL_FILES, b * 1e3, BIG_FILES, b / a))
        print("     median " + seen[-1], flush=True)
        if b <= RATIO_MAX * a:
            break
    else:
        raise Failed("mounting takes more than %g times as long: %s" % (RATIO_MAX, "; ".join(seen)))
    start_timed(big)
    check_many(big.mnt, BIG_FILES)
    check_peak(big, "mounted, all names read")
    big.stop()


def create_until_killed(root, made):
    n = 0
    try:
        os.mkdir(root)
        while True:
            os.close(os.open(os.path.join(root, "u%d" % n), os.O_WRONLY | os.O_CREAT, 0o644))
            n += 1
            made.value = n
    except OSError:
        pass


def fresh_content(n):
    return b"fresh%08d" % n * 300


def a_mount_after_a_kill_is_bounded_and_replays(big):
    """Fresh files that an fsync covered a moment ago, others that nothing covered, and a kill between two creates."""
    p = big
    p.start()
    fresh = os.path.join(p.mnt, "fresh")
    os.mkdir(fresh)
    create_many(fresh, FRESH_FILES)
    others = [os.path.join(p.mnt, "unsynced%d" % i) for i in range(PROCESSES)]
    made = [fork.Value("L", 0, lock=False) for _ in others]
    writers = [fork.Process(target=create_until_killed, args=task) for task in zip(others, made)]
    for w in writers:
        w.start()
    until = time.monotonic() + 30
    while not all(m.value for m in made):
        check(time.monotonic() < until, "the writers do not get on")
        time.sleep(0.01)
    for n in range(SYNCED_WITH_DATA):
        fd = os.open(os.path.join(fresh, "synced%d" % n), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, fresh_content(n))
        covered = [m.value for m in made]  # older than the fsync: one journal, one order
        os.fsync(fd)
        os.close(fd)
    p.kill()  # at once
    for w in writers:
        w.join(30)
        check(w.exitcode == 0, "a writer ended with %s" % w.exitcode)
    p.fsck("after the kill")
    forget_cached(p.members)
    seconds = start_timed(p)
    print("     mounted %.0f ms after a kill" % (seconds * 1e3), flush=True)
    check_peak(p, "after replaying")
    check(seconds < REPLAY_MAX_S, "mounting after a kill took %.1f s" % seconds)
    check_many(fresh, FRESH_FILES, data_synced=False)
    for n in range(SYNCED_WITH_DATA):
        with open(os.path.join(fresh, "synced%d" % n), "rb") as f:
            check(f.read() == fresh_content(n), "contents of fresh/synced%d" % n)
    for where, least in zip(others, covered):  # in the order in which they were made, without a gap
        names = os.listdir(where)
        check(sorted(int(name[1:]) for name in names) == list(range(len(names))), "of files made one after the other, an earlier one is gone")
        check(len(names) >= least, "%d of at least %d files in %s" % (len(names), least, where))
        print("     %d files, %d of them certainly, in %s" % (len(names), least, os.path.basename(where)))
    check_many(p.mnt, BIG_FILES)
    p.stop()
    p.fsck("after replaying")


def all_of_it():
    small = big = None
    try:
        small = make_pool(SMALL_FILES)
        big = make_pool(BIG_FILES)
        mount_time_does_not_grow_with_the_files(small, big)
        a_mount_after_a_kill_is_bounded_and_replays(big)
    finally:
        for p in (small, big):
            if p:
                p.close()


if __name__ == "__main__":
    need_fuse()
    main(all_of_it)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start, stop, options, names, jobs; the daemon's own start and end."""
import os
import shutil
import signal
import threading
import time

from bus_rig import MANAGER, MIB, NAME, ROOT, BusError, expect_error, main
from tiny_dbus import Connection, Variant

PING_MAX_S = 0.5  # generous: two CPUs shared with the work


def start_and_stop(rig):
    rig.start()
    fs = rig.create(rig.files(64, 64), "one", fs_options={"data_replicas": Variant("u", 2)})
    rig.run(fs, "Start")
    got = rig.get_all(fs, "Filesystem")
    assert (got["State"], got["AccessMode"], got["Clean"], got["Health"]) == ("running", "rw", False, "ok"), got
    assert rig.get(fs, "Usage", "Capacity") > 0 and rig.get(fs, "Usage", "Updated") > 0
    expect_error("AlreadyRunning", rig.run, fs, "Start")
    rig.fs(fs, "Sync", "a{sv}", {})
    rig.fs(fs, "WaitReady", "ua{sv}", 1, {})
    rig.run(fs, "Stop")
    assert rig.state(fs) == "stopped" and rig.get(fs, "Filesystem", "Clean") is True
    expect_error("WrongState", rig.run, fs, "Stop")
    expect_error("WrongState", rig.fs, fs, "Sync", "a{sv}", {})


def access_modes(rig):
    rig.start()
    fs = rig.create(rig.files(64), "modes")
    expect_error("WrongState", rig.fs, fs, "SetAccessMode", "sa{sv}", "ro", {})
    rig.run(fs, "Start")
    expect_error("InvalidArgument", rig.fs, fs, "SetAccessMode", "sa{sv}", "wr", {})
    for mode in ("ro", "rw"):
        rig.wait(rig.fs(fs, "SetAccessMode", "sa{sv}", mode, {}))
        assert rig.get(fs, "Filesystem", "AccessMode") == mode
    rig.fs(fs, "ForceReadOnly", "sa{sv}", "The test says so.", {})
    rig.connection.wait_signal(lambda m: m.member == "ErrorDetected" and m.body[0] == "emergency-read-only")
    rig.connection.wait_signal(lambda m: m.member == "PropertiesChanged" and m.path == fs and m.body[1].get("AccessMode") == "emergency-ro")
    assert "The test says so." in rig.get(fs, "Filesystem", "AccessReason")
    expect_error("EmergencyReadOnly", lambda: rig.wait(rig.fs(fs, "SetAccessMode", "sa{sv}", "rw", {})))
    rig.run(fs, "Stop")
    rig.run(fs, "Start")
    assert rig.get(fs, "Filesystem", "AccessMode") == "rw"


def options_and_label(rig):
    rig.start()
    fs = rig.create(rig.files(64), "before")
    expect_error("WrongState", rig.call, fs, "Options", "Set", "a{sv}a{sv}", {"errors": Variant("s", "ro")}, {})
    rig.run(fs, "Start")
    rig.call(fs, "Options", "Set", "a{sv}a{sv}", {"errors": Variant("s", "ro"), "journal_flush_ms": Variant("u", 50)}, {})
    rig.call(fs, "Options", "Set", "a{sv}a{sv}", {"extent_max": Variant("s", "64K")}, {"persist": Variant("b", False)})
    values, sources = rig.get(fs, "Options", "Values"), rig.get(fs, "Options", "Sources")
    assert (values["errors"], values["journal_flush_ms"], values["extent_max"]) == ("ro", 50, 65536)
    assert (sources["errors"], sources["extent_max"]) == ("superblock", "runtime")
    expect_error("InvalidOption", rig.call, fs, "Options", "Set", "a{sv}a{sv}", {"errors": Variant("s", "x"), "journal_flush_ms": Variant("u", 60)}, {})
    assert rig.get(fs, "Options", "Values")["journal_flush_ms"] == 50, "one of the options was set although another was refused"
    expect_error("InvalidOption", rig.call, fs, "Options", "Set", "a{sv}a{sv}", {"block_size": Variant("u", 512)}, {}, text="block_size")
    expect_error("InsufficientDevices", rig.call, fs, "Options", "Set", "a{sv}a{sv}", {"data_replicas": Variant("u", 2)}, {})
    expect_error("InvalidOption", rig.call, fs, "Options", "Reset", "asa{sv}", ["nothing"], {}, text="nothing")
    rig.call(fs, "Options", "Reset", "asa{sv}", ["errors"], {})
    assert rig.get(fs, "Options", "Sources")["errors"] == "default"
    rig.fs(fs, "SetLabel", "sa{sv}", "after", {})
    assert rig.get(fs, "Filesystem", "Label") == "after"
    expect_error("InvalidArgument", rig.fs, fs, "SetLabel", "sa{sv}", "x" * 33, {})
    rig.run(fs, "Stop")
    rig.end()
    rig.start()
    assert rig.manager("ResolveFilesystem", "sa{sv}", "after", {}) == fs
    assert rig.get(fs, "Options", "Values")["journal_flush_ms"] == 50
    assert len(rig.fs(fs, "ReadSuperblock", "a{sv}", {})) == 65536


def a_start_can_check_or_write_nothing(rig):
    rig.start()
    paths = rig.files(64)
    fs = rig.create(paths, "careful")
    checks = ("nodes", "space", "pointers", "files")

    def start(**opts):
        rig.run(fs, "Start", **opts)
        passes = {name: state for name, state, _ in rig.get(fs, "Filesystem", "RecoveryPasses")}
        return [passes[c] for c in checks], rig.get(fs, "Filesystem", "AccessMode")

    assert start() == (["not-needed"] * 4, "rw")
    rig.run(fs, "Stop")
    assert start(fsck=True) == (["done"] * 4, "rw")
    rig.end(signal.SIGKILL)
    rig.start()
    with open(paths[0], "rb") as f:
        before = f.read()
    assert start(no_recovery=True) == (["not-needed"] * 4, "ro")
    assert "replayed" in rig.get(fs, "Filesystem", "RecoveryPhase") and rig.get(fs, "Filesystem", "RequestedMode") == "ro"
    rig.run(fs, "Stop")
    assert start(fsck=True, no_recovery=True) == (["done"] * 4, "ro")
    rig.run(fs, "Stop")
    with open(paths[0], "rb") as f:
        assert f.read() == before, "a start that should write nothing wrote"
    assert start() == (["not-needed"] * 4, "rw")
    expect_error("InvalidOption", rig.fs, fs, "Start", "a{sv}", {"fsck": Variant("s", "yes")}, text="fsck")


def fsck_counts_and_repairs(rig):
    rig.start()
    fs = rig.create(rig.files(64), "check")
    for _ in range(2):  # stopped, then running
        assert rig.wait(rig.call(fs, "Maintenance", "Fsck", "a{sv}", {"fix": Variant("s", "no")}))["errors"] == 0
        assert rig.state(fs) in ("stopped", "running")
        if rig.state(fs) == "stopped":
            rig.run(fs, "Start")
    expect_error("WrongState", rig.call, fs, "Maintenance", "Fsck", "a{sv}", {"fix": Variant("s", "yes")}, text="terracectl stop")
    expect_error("RepairUnsupported", rig.call, fs, "Maintenance", "Fsck", "a{sv}", {"fix": Variant("s", "ask")})
    assert dict((name, state) for name, state, _ in rig.get(fs, "Filesystem", "RecoveryPasses"))["roots"] == "done"
    rig.run(fs, "Stop")
    job = rig.call(fs, "Maintenance", "Fsck", "a{sv}", {})
    rig.wait(job)
    got = rig.get_all(job, "Job")
    assert got["Counters"]["done"] > 0 and got["Counters"]["errors"] == 0 and (got["Bytes"], got["Rate"], got["ExpectedEndTime"]) == (0, 0, 0), got
    result = rig.wait(rig.call(fs, "Maintenance", "Fsck", "a{sv}", {"fix": Variant("s", "yes")}))
    assert result["errors"] == 0 and "messages" not in result, result
    expect_error("InvalidOption", rig.call, fs, "Maintenance", "Fsck", "a{sv}", {"fix": Variant("s", "maybe")})


def names_resolve(rig):
    rig.start()
    paths = rig.files(64)
    fs = rig.create(paths, "name")
    uuid = rig.get(fs, "Filesystem", "UUID")
    for spec in ("name", "LABEL=name", uuid, uuid.upper(), "UUID=" + uuid, "terrace:name", "terrace:" + uuid, paths[0], fs):
        assert rig.manager("ResolveFilesystem", "sa{sv}", spec, {}) == fs, spec
    device, = rig.get(fs, "Filesystem", "Devices")
    for spec in (paths[0], rig.get(device, "Device", "UUID")):
        assert rig.manager("ResolveDevice", "sa{sv}", spec, {}) == device, spec
    for spec in ("nobody", "UUID=00000000-0000-0000-0000-000000000000", "/dev/null", "/nowhere"):
        expect_error("NotFound", rig.manager, "ResolveFilesystem", "sa{sv}", spec, {})
    expect_error("InvalidArgument", rig.manager, "ResolveFilesystem", "sa{sv}", "UUID=x", {})
    expect_error("InvalidArgument", rig.manager, "ResolveFilesystem", "sa{sv}", "", {})


def one_label_twice_is_ambiguous(rig):
    rig.start()
    a, b = rig.create(rig.files(64, prefix="a"), "twin"), rig.create(rig.files(64, prefix="b"), "twin")
    e = expect_error("AmbiguousName", rig.manager, "ResolveFilesystem", "sa{sv}", "twin", {})
    for fs in (a, b):
        uuid = rig.get(fs, "Filesystem", "UUID")
        assert uuid in e.message
        assert rig.manager("ResolveFilesystem", "sa{sv}", uuid, {}) == fs


def probe_tells_what_is_there(rig):
    rig.start()
    paths = rig.files(64, 64)
    rig.create(paths[:1], "probed")
    got = rig.manager("Probe", "sa{sv}", paths[0], {})
    assert got["member"] and got["label"] == "probed" and got["devices"] == 1 and got["clean"] and got["signature"] == "terrace"
    assert rig.manager("Probe", "sa{sv}", paths[1], {})["member"] is False
    expect_error("NotFound", rig.manager, "Probe", "sa{sv}", os.path.join(rig.dir, "nothing"), {})
    expect_error("InvalidArgument", rig.manager, "Probe", "sa{sv}", "disk0", {})


def a_missing_member_is_named_and_can_be_done_without(rig):
    rig.start()
    paths = rig.files(64, 64, 64)
    fs = rig.create(paths, "degraded", fs_options={"data_replicas": Variant("u", 2), "metadata_replicas": Variant("u", 2)})
    rig.run(fs, "Start")
    rig.run(fs, "Stop")
    lost = next(d for d in rig.get(fs, "Filesystem", "Devices") if rig.get(d, "Device", "Path") == paths[2])
    uuid = rig.get(lost, "Device", "UUID")
    os.rename(paths[2], paths[2] + ".away")
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert rig.state(fs) == "incomplete" and rig.get(fs, "Filesystem", "MissingDevices") == [uuid]
    assert rig.get(lost, "Device", "Present") is False
    job = rig.fs(fs, "Start", "a{sv}", {"degraded": Variant("s", "ask")})
    expect_error("Degraded", rig.wait, job, text=uuid)
    details = rig.get(job, "Job", "ErrorDetails")
    assert details["missing"] == [uuid] and details["option"] == "degraded" and details["value"] in ("yes", "very"), details
    assert rig.state(fs) == "incomplete"
    expect_error("Incomplete", rig.run, fs, "Start", degraded="no", text=uuid)
    expect_error("InvalidOption", rig.fs, fs, "Start", "a{sv}", {"degraded": Variant("s", "perhaps")})
    rig.run(fs, "Start", degraded="very")
    got = rig.get_all(fs, "Filesystem")
    assert got["Degraded"] and got["Health"] == "degraded" and got["MissingDevices"] == [uuid]
    rig.run(fs, "Stop")
    os.rename(paths[2] + ".away", paths[2])
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [paths[2]])}))
    assert rig.state(fs) == "stopped"


def a_member_pulled_since_the_last_look_is_missing_until_it_is_back(rig):
    rig.start()
    paths = rig.files(64, 64)
    fs = rig.create(paths, "pulled", fs_options={"data_replicas": Variant("u", 2), "metadata_replicas": Variant("u", 2)})
    pulled = next(d for d in rig.get(fs, "Filesystem", "Devices") if rig.get(d, "Device", "Path") == paths[1])
    os.rename(paths[1], paths[1] + ".away")
    expect_error("Degraded", rig.run, fs, "Start", degraded="ask", text=rig.get(pulled, "Device", "UUID"))
    assert rig.state(fs) == "incomplete" and rig.get(pulled, "Device", "Present") is False
    rig.run(fs, "Start", degraded="yes")
    assert rig.get(fs, "Filesystem", "Degraded") and rig.get(pulled, "Device", "Present") is False
    rig.run(fs, "Stop")
    os.rename(paths[1] + ".away", paths[1])
    rig.run(fs, "Start")
    assert not rig.get(fs, "Filesystem", "Degraded") and rig.get(pulled, "Device", "Online")
    rig.run(fs, "Stop")


def start_waits_for_missing_members(rig):
    rig.start()
    paths = rig.files(64, 64)
    fs = rig.create(paths, "late")
    os.rename(paths[1], paths[1] + ".away")
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert rig.state(fs) == "incomplete"
    job = rig.fs(fs, "Start", "a{sv}", {"wait-missing": Variant("u", 30)})
    rig.connection.wait_signal(lambda m: m.member == "PropertiesChanged" and m.path == job and m.body[1].get("Phase") == "wait")
    os.rename(paths[1] + ".away", paths[1])
    rig.wait(job)
    assert rig.state(fs) == "running" and rig.get(fs, "Filesystem", "Degraded") is False


def a_copy_of_a_member_is_kept_out(rig):
    rig.start()
    paths = rig.files(64)
    fs = rig.create(paths, "copied")
    copy = os.path.join(rig.dir, "copy")
    shutil.copyfile(paths[0], copy)
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [copy])}))
    assert rig.state(fs) == "incomplete"
    message = rig.get(fs, "Filesystem", "StateMessage")
    assert copy in message and paths[0] in message, message
    expect_error("DeviceForeign", rig.run, fs, "Start")
    os.unlink(copy)
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert rig.state(fs) == "stopped" and rig.get(fs, "Filesystem", "StateMessage") == ""
    rig.run(fs, "Start")


def changes_come_before_completed(rig):
    rig.start()
    fs = rig.create(rig.files(64), "order")
    rig.connection.signals.clear()
    job = rig.fs(fs, "Start", "a{sv}", {})
    done = rig.connection.wait_signal(lambda m: m.member == "Completed" and m.path == job)
    assert done.body == [True, ""], done.body
    order = rig.connection.signals
    running = [i for i, m in enumerate(order) if m.member == "PropertiesChanged" and m.path == fs and m.body[1].get("State") == "running"]
    over = [i for i, m in enumerate(order) if m.member == "PropertiesChanged" and m.path == job and m.body[1].get("State") == "succeeded"]
    assert running and over and running[0] < over[0] < order.index(done), [(m.member, m.path) for m in order]
    states = [m.body[1]["State"] for m in order if m.member == "PropertiesChanged" and m.path == fs and "State" in m.body[1]]
    assert states == ["starting", "running"], states
    told = set().union(*(m.body[1] for m in order if m.member == "PropertiesChanged" and m.path == fs and m.body[0] == NAME + ".Filesystem"))
    assert not told & {"Label", "Devices", "MountPoints", "Degraded"}, f"told although they are the same: {told}"


def jobs_stay_and_can_be_dismissed(rig):
    rig.start()
    fs = rig.create(rig.files(64), "jobs")
    job = rig.fs(fs, "Start", "a{sv}", {})
    rig.wait(job)
    got = rig.get_all(job, "Job")
    assert (got["Operation"], got["State"], got["Error"], got["Objects"], got["StartedByUID"]) == ("start", "succeeded", "", [fs], os.getuid()), got
    assert 0 < got["StartTime"] <= got["EndTime"]
    expect_error("NotCancelable", rig.call, job, "Job", "Cancel", "a{sv}", {})
    rig.call(job, "Job", "Dismiss", "a{sv}", {})
    assert job not in rig.objects()
    rig.connection.wait_signal(lambda m: m.member == "InterfacesRemoved" and m.body[0] == job)


def a_waiting_job_can_be_cancelled(rig):
    rig.start()
    paths = rig.files(64, 64)
    fs = rig.create(paths, "cancel")
    os.rename(paths[1], paths[1] + ".away")
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    job = rig.fs(fs, "Start", "a{sv}", {"wait-missing": Variant("u", 60)})
    expect_error("TimedOut", rig.call, job, "Job", "Wait", "ua{sv}", 0, {})
    expect_error("WrongState", rig.call, job, "Job", "Dismiss", "a{sv}", {})
    expect_error("JobConflict", rig.run, fs, "Start")
    rig.call(job, "Job", "Cancel", "a{sv}", {})
    state, _ = rig.call(job, "Job", "Wait", "ua{sv}", 10, {})
    assert state == "cancelled" and rig.get(job, "Job", "Error") == NAME + ".Error.Cancelled"
    assert rig.state(fs) == "incomplete"


def ping_answers_while_a_job_runs(rig):
    rig.start()
    paths = rig.files(1024, 1024)
    job = rig.create_job(paths, "busy", fs_options={"data_replicas": Variant("u", 2)})
    slowest, pings, running = 0.0, 0, 0
    while True:
        at = time.monotonic()
        rig.manager("Ping")
        slowest = max(slowest, time.monotonic() - at)
        pings += 1
        if rig.get(job, "Job", "State") != "running":
            break
        running += 1
    rig.wait(job)
    assert slowest < PING_MAX_S, f"{slowest:.3f} s, {pings} pings"
    fs = rig.manager("ResolveFilesystem", "sa{sv}", "busy", {})
    for member in ("Start", "Stop"):
        job = rig.fs(fs, member, "a{sv}", {})
        while rig.get(job, "Job", "State") == "running":
            at = time.monotonic()
            rig.manager("Ping")
            slowest = max(slowest, time.monotonic() - at)
        rig.wait(job)
    assert slowest < PING_MAX_S, f"{slowest:.3f} s"


def sigterm_stops_cleanly_and_a_restart_finds_it(rig):
    rig.start()
    paths = rig.files(64, 64)
    fs = rig.create(paths, "again")
    rig.run(fs, "Start")
    assert rig.end() == 0, rig.read_log()
    with open(os.path.join(rig.state_dir, "members"), encoding="utf-8") as f:
        assert sorted(f.read().split()) == sorted(paths)
    rig.start()
    assert rig.manager("ResolveFilesystem", "sa{sv}", "again", {}) == fs
    assert rig.state(fs) == "stopped" and rig.get(fs, "Filesystem", "Clean") is True
    rig.run(fs, "Start")
    assert rig.get(fs, "Filesystem", "RecoveryPhase") == "was stopped cleanly"


def sigterm_during_a_start_ends_cleanly(rig):
    rig.start()
    fs = rig.create(rig.files(64, 64), "hasty")
    for _ in range(5):
        rig.fs(fs, "Start", "a{sv}", {})
        assert rig.end() == 0, rig.read_log()
        rig.start()
        assert rig.state(fs) == "stopped" and rig.get(fs, "Filesystem", "Clean") is True
    job = rig.fs(fs, "Start", "a{sv}", {})
    rig.wait(job)


def sigterm_during_a_format_leaves_the_devices_as_they_were(rig):
    rig.start()
    paths = rig.files(256, 256)
    for path in paths:
        with open(path, "r+b") as f:
            f.write(b"precious" * 1000)
    for attempt in range(5):
        rig.create_job(paths, "cut")
        assert rig.end() == 0, rig.read_log()
        rig.start()
        made = [o for o in rig.objects() if "/filesystems/" in o]
        if made:  # it was faster
            rig.run(made[0], "Start")
            return
        for path in paths:
            with open(path, "rb") as f:
                assert f.read(8000) == b"precious" * 1000, f"attempt {attempt}: {path} was not put back"


def a_bus_that_goes_away_ends_the_daemon_cleanly(rig):
    rig.start()
    paths = rig.files(64)
    fs = rig.create(paths, "alone")
    rig.run(fs, "Start")
    rig.bus.kill()
    rig.bus.wait()
    assert rig.daemon.wait(30) == 1, "whoever watches it should start it again"
    rig.daemon = None
    rig.open_bus()
    rig.start()
    assert rig.get(fs, "Filesystem", "Clean") is True


def sigkill_is_recovered_from(rig):
    rig.start()
    fs = rig.create(rig.files(64, 64), "killed")
    rig.run(fs, "Start")
    assert rig.end(signal.SIGKILL) == -signal.SIGKILL
    rig.start()
    assert rig.state(fs) == "stopped" and rig.get(fs, "Filesystem", "Clean") is False
    rig.run(fs, "Start")
    assert "replayed" in rig.get(fs, "Filesystem", "RecoveryPhase")


def a_second_daemon_does_not_get_the_name(rig):
    rig.start()
    first = rig.daemon
    try:
        rig.start()
        assert rig.daemon.wait(30) == 1
    finally:
        rig.daemon = first
    rig.manager("Ping")


def nothing_is_emitted_for_values_that_are_the_same(rig):
    rig.start()
    fs = rig.create(rig.files(64), "quiet")
    rig.run(fs, "Start")
    rig.connection.signals.clear()
    for _ in range(3):
        rig.wait(rig.manager("Rescan", "a{sv}", {}))
        rig.fs(fs, "Sync", "a{sv}", {})
    noisy = [(m.path, m.body) for m in rig.connection.signals if m.member == "PropertiesChanged" and "/jobs/" not in m.path]
    assert len(noisy) <= 2, noisy  # usage, once in 5 s


def many_callers_at_once(rig):
    rig.start()
    fs = rig.create(rig.files(64), "crowd")
    rig.run(fs, "Start")
    problems = []

    def client():
        try:
            connection = Connection(rig.address)
            for _ in range(20):
                connection.call(NAME, fs, NAME + ".Filesystem", "Sync", "a{sv}", {})
                connection.call(NAME, MANAGER, NAME + ".Manager", "ResolveFilesystem", "sa{sv}", "crowd", {})
                connection.call(NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
            connection.close()
        except (BusError, OSError) as e:
            problems.append(e)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not problems, problems[:3]
    rig.run(fs, "Stop")


if __name__ == "__main__":
    main([start_and_stop, access_modes, options_and_label, a_start_can_check_or_write_nothing, fsck_counts_and_repairs, names_resolve, one_label_twice_is_ambiguous,
          probe_tells_what_is_there, a_missing_member_is_named_and_can_be_done_without, a_member_pulled_since_the_last_look_is_missing_until_it_is_back,
          start_waits_for_missing_members, a_copy_of_a_member_is_kept_out,
          changes_come_before_completed, jobs_stay_and_can_be_dismissed, a_waiting_job_can_be_cancelled, ping_answers_while_a_job_runs,
          sigterm_stops_cleanly_and_a_restart_finds_it, sigterm_during_a_start_ends_cleanly,
          sigterm_during_a_format_leaves_the_devices_as_they_were, a_bus_that_goes_away_ends_the_daemon_cleanly, sigkill_is_recovered_from,
          a_second_daemon_does_not_get_the_name, nothing_is_emitted_for_values_that_are_the_same, many_callers_at_once])

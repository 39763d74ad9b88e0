# SPDX-License-Identifier: LGPL-2.1-or-later
"""Alerts of a filesystem and of all: what stands, since when, told once, and gone when it is over."""
import os
import time

from bus_rig import MANAGER, NAME, main
from tiny_dbus import Variant


def alerts(rig, fs):
    """By id: (severity, message, since). The manager's list says the same."""
    rows = rig.get(fs, "Filesystem", "Alerts")
    label = rig.get(fs, "Filesystem", "Label")
    union = [(i, severity, message, since) for i, severity, message, path, name, since in rig.get(MANAGER, "Manager", "Alerts") if (path, name) == (fs, label)]
    assert union == [tuple(row) for row in rows], f"{union} differs from {rows}"
    assert len({row[0] for row in rows}) == len(rows), rows
    for _, severity, message, _ in rows:
        assert severity in ("info", "warning", "critical"), severity
        assert message.startswith(("Filesystem '", "Member ", "Errors ", "Files ", "More ")) and label in message, f"it does not say of what it is: {message}"
    return {row[0]: tuple(row[1:]) for row in rows}


def told(rig, path, interface="Filesystem"):
    """The lists that were signalled, in their order."""
    return [m.body[1]["Alerts"] for m in rig.connection.signals
            if m.member == "PropertiesChanged" and m.path == path and m.body[0] == f"{NAME}.{interface}" and "Alerts" in m.body[1]]


def a_missing_member_is_named_until_it_is_back(rig):
    rig.start()
    paths = rig.files(64, 64, 64)
    fs = rig.create(paths, "short", fs_options={"data_replicas": Variant("u", 2), "metadata_replicas": Variant("u", 2)})
    assert alerts(rig, fs) == {} and rig.get(MANAGER, "Manager", "Alerts") == []
    lost = next(d for d in rig.get(fs, "Filesystem", "Devices") if rig.get(d, "Device", "Path") == paths[1])
    uuid = rig.get(lost, "Device", "UUID")
    before = time.time_ns() // 1000
    os.rename(paths[1], paths[1] + ".away")
    rig.connection.signals.clear()
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    severity, message, since = alerts(rig, fs)["missing-members"]
    assert severity == "warning" and uuid in message and "member 1" in message and "'short'" in message and "--degraded=yes" in message, message
    assert before <= since <= time.time_ns() // 1000
    for _ in range(2):  # nothing new, so nothing is told
        rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert len(told(rig, fs)) == 1 and len(told(rig, MANAGER, "Manager")) == 1, (told(rig, fs), told(rig, MANAGER, "Manager"))
    rig.run(fs, "Start", degraded="yes")
    severity, message, again = alerts(rig, fs)["missing-members"]
    assert uuid in message and "runs without" in message and again == since, "it stands on, since the same time"
    rig.run(fs, "Stop")
    os.rename(paths[1] + ".away", paths[1])
    rig.connection.signals.clear()
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [paths[1]])}))
    assert alerts(rig, fs) == {} and told(rig, fs)[-1] == [] and told(rig, MANAGER, "Manager")[-1] == []


def a_filesystem_that_goes_takes_its_alerts_along(rig):
    rig.start()
    paths = rig.files(64, 64)
    fs = rig.create(paths, "gone")
    os.unlink(paths[0])
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert "missing-members" in alerts(rig, fs)
    os.unlink(paths[1])
    rig.connection.signals.clear()
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert rig.get(MANAGER, "Manager", "Alerts") == [] and told(rig, MANAGER, "Manager") == [[]]


def emergencies_are_critical_until_it_is_stopped(rig):
    rig.start()
    fs = rig.create(rig.files(64), "alarm")
    rig.run(fs, "Start")
    assert alerts(rig, fs) == {}
    rig.fs(fs, "ForceReadOnly", "sa{sv}", "The test says so.", {})
    rig.connection.wait_signal(lambda m: m.member == "PropertiesChanged" and m.path == fs and m.body[1].get("Alerts"))
    severity, message, _ = alerts(rig, fs)["emergency-read-only"]
    assert severity == "critical" and "The test says so." in message and "terracectl stop alarm" in message, message
    rig.run(fs, "Stop")
    assert "emergency-read-only" not in alerts(rig, fs)


def a_copied_member_is_a_conflict(rig):
    rig.start()
    paths = rig.files(64)
    fs = rig.create(paths, "twice")
    copy = os.path.join(rig.dir, "copy")
    with open(paths[0], "rb") as a, open(copy, "wb") as b:
        b.write(a.read())
    rig.wait(rig.manager("Rescan", "a{sv}", {"paths": Variant("as", [copy])}))
    (name, (severity, message, _)), = alerts(rig, fs).items()
    assert (name, severity) == ("conflict", "critical") and copy in message and paths[0] in message, message
    os.unlink(copy)
    rig.wait(rig.manager("Rescan", "a{sv}", {}))
    assert alerts(rig, fs) == {}


if __name__ == "__main__":
    main([a_missing_member_is_named_until_it_is_back, a_filesystem_that_goes_takes_its_alerts_along, emergencies_are_critical_until_it_is_stopped,
          a_copied_member_is_a_conflict])

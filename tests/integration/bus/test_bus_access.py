# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what on the system bus: polkit (a stand-in) is asked, and waited for by nobody but the caller. Needs root, to be somebody else."""
import os
import time

from bus_rig import MANAGER, NAME, SKIP, expect_error, main, skip
from stand_in import StandIn
from tiny_dbus import METHOD_CALL, Connection, Variant

NOBODY = 65534


class Polkit(StandIn):
    """Answers every question as it is told; "hang" answers none."""

    def __init__(self, address, answer):
        self.answer, self.asked, self.cancelled = answer, [], []
        super().__init__(address, "org.freedesktop.PolicyKit1")

    def serve(self, call):
        assert call.kind == METHOD_CALL
        if call.member == "CancelCheckAuthorization":
            self.cancelled.append(call.body[0])
            self.bus.answer(call)
            return
        subject, action, details, flags, cancel_id = call.body
        self.asked.append((action, details, flags, cancel_id, subject))
        if self.answer != "hang":
            yes, challenge, extra = {"yes": (True, False, {}), "no": (False, False, {}), "challenge": (False, True, {}),
                                     "dismiss": (False, True, {"polkit.dismissed": "1"})}[self.answer]
            self.bus.answer(call, "(bba{ss})", (yes, challenge, extra))


def as_nobody(rig):
    """A connection of another user: the bus looks at who connects."""
    os.seteuid(NOBODY)
    try:
        return Connection(rig.address)
    finally:
        os.seteuid(0)


def call(connection, path, interface, member, signature="", *args, **kw):
    return connection.call(NAME, path, f"{NAME}.{interface}", member, signature, *args, **kw)


def everyone_may_look_only_root_may_act_without_polkit(rig):
    rig.start()
    fs = rig.create(rig.files(64), "guarded")
    nobody = as_nobody(rig)
    call(nobody, MANAGER, "Manager", "Ping")
    assert nobody.call(NAME, fs, "org.freedesktop.DBus.Properties", "Get", "ss", NAME + ".Filesystem", "Label") == "guarded"
    assert call(nobody, MANAGER, "Manager", "ResolveFilesystem", "sa{sv}", "guarded", {}) == fs
    job = rig.fs(fs, "Start", "a{sv}", {})
    rig.wait(job)
    call(nobody, fs, "Filesystem", "Sync", "a{sv}", {})
    for path, interface, member, signature, args in [
        (MANAGER, "Manager", "CreateFilesystem", "a(sa{sv})sa{sv}a{sv}", ([("/dev/null", {})], "", {}, {})),
        (MANAGER, "Manager", "Probe", "sa{sv}", ("/dev/null", {})),
        (MANAGER, "Manager", "Rescan", "a{sv}", ({},)),
        (fs, "Filesystem", "Start", "a{sv}", ({},)),
        (fs, "Filesystem", "Stop", "a{sv}", ({},)),
        (fs, "Filesystem", "SetAccessMode", "sa{sv}", ("ro", {})),
        (fs, "Filesystem", "ForceReadOnly", "sa{sv}", ("x", {})),
        (fs, "Filesystem", "SetLabel", "sa{sv}", ("x", {})),
        (fs, "Filesystem", "Mount", "sa{sv}", ("/mnt", {})),
        (fs, "Filesystem", "Unmount", "sa{sv}", ("/mnt", {})),
        (fs, "Filesystem", "DetachFuse", "s", ("/mnt",)),
        (fs, "Filesystem", "ReadSuperblock", "a{sv}", ({},)),
        (fs, "Options", "Set", "a{sv}a{sv}", ({"errors": Variant("s", "ro")}, {})),
        (fs, "Options", "Reset", "asa{sv}", (["errors"], {})),
        (fs, "Maintenance", "Fsck", "a{sv}", ({},)),
        (job, "Job", "Cancel", "a{sv}", ({},)),
        (job, "Job", "Dismiss", "a{sv}", ({},)),
    ]:
        expect_error("NotAuthorized", call, nobody, path, interface, member, signature, *args)
    assert rig.get(fs, "Filesystem", "State") == "running" and rig.get(fs, "Filesystem", "AccessMode") == "rw"


def faults_are_for_who_may_debug(rig):
    if not os.environ.get("TER_DEBUG_INTERFACE"):
        return skip("needs a daemon built with debug_interface")
    rig.start("--debug-interface")
    fs = rig.create(rig.files(64), "faulty")
    nobody = as_nobody(rig)
    expect_error("NotAuthorized", call, nobody, fs, "Debug", "SetFault", "sa{sv}", "io.read", {})
    expect_error("NotAuthorized", call, nobody, fs, "Debug", "ClearFaults")
    assert rig.get(fs, "Debug", "Faults") == {}
    polkit = Polkit(rig.address, "yes")
    try:
        call(nobody, fs, "Debug", "SetFault", "sa{sv}", "super.format", {})
        call(nobody, fs, "Debug", "ClearFaults")
    finally:
        polkit.close()
    assert [asked[0] for asked in polkit.asked] == [NAME + ".debug"] * 2
    return None


def polkit_decides(rig):
    rig.start()
    fs = rig.create(rig.files(64), "asked")
    uuid = rig.get(fs, "Filesystem", "UUID")
    nobody = as_nobody(rig)
    for answer, name in (("no", "NotAuthorized"), ("challenge", "NotAuthorizedCanObtain"), ("dismiss", "NotAuthorizedDismissed")):
        polkit = Polkit(rig.address, answer)
        try:
            expect_error(name, call, nobody, fs, "Filesystem", "Start", "a{sv}", {})
        finally:
            polkit.close()
    polkit = Polkit(rig.address, "yes")
    try:
        rig.wait(call(nobody, fs, "Filesystem", "Start", "a{sv}", {}))
        call(nobody, fs, "Filesystem", "SetLabel", "sa{sv}", "new", {"auth.no_user_interaction": Variant("b", True)})
        expect_error("NotAuthorized", call, nobody, fs, "Filesystem", "DetachFuse", "s", "/mnt")  # root alone
    finally:
        polkit.close()
    (start, details, flags, _, subject), (label, _, quiet, _, _) = polkit.asked
    assert start == NAME + ".start-stop" and label == NAME + ".set-options"
    assert details == {"filesystem.uuid": uuid, "filesystem.label": "asked"} and flags == 1 and quiet == 0
    assert subject == ("system-bus-name", {"name": nobody.name})
    assert rig.get(fs, "Filesystem", "Label") == "new" and rig.get(fs, "Filesystem", "OpenedBy") == NOBODY


def a_polkit_that_hangs_delays_nobody_else(rig):
    rig.start()
    fs = rig.create(rig.files(64), "hangs")
    polkit = Polkit(rig.address, "hang")
    try:
        nobody = as_nobody(rig)
        nobody.send(NAME, fs, NAME + ".Filesystem", "Start", "a{sv}", ({},))
        end = time.monotonic() + 10
        while not polkit.asked:
            assert time.monotonic() < end
            time.sleep(0.01)
        at = time.monotonic()
        rig.manager("Ping")
        rig.run(fs, "Start")
        rig.run(fs, "Stop")
        assert time.monotonic() - at < 5
        nobody.close()  # polkit is told that the answer is not wanted any more
        while not polkit.cancelled:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert polkit.cancelled == [polkit.asked[0][3]]
        assert rig.get(fs, "Filesystem", "State") == "stopped"
    finally:
        polkit.close()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root")
        raise SystemExit(SKIP)
    main([everyone_may_look_only_root_may_act_without_polkit, faults_are_for_who_may_debug, polkit_decides, a_polkit_that_hangs_delays_nobody_else], system=True)

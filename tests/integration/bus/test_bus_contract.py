# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bus shows is what dbus/*.xml says, and the parts of the contract that hold for every object."""
import glob
import os
import re
import sys
import xml.etree.ElementTree as ET

from bus_rig import MANAGER, NAME, ROOT, expect_error, main
from tiny_dbus import Variant

XML_DIR = sys.argv[3]
DEBUG = ["--debug-interface"] if os.environ.get("TER_DEBUG_INTERFACE") else []  # as far as the build has it
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"
EXPLICIT = "org.freedesktop.systemd1.Explicit"


def shape(interface):
    """Everything of an interface that a client can depend on."""
    members = {}
    for m in interface:
        if m.tag not in ("method", "signal", "property"):
            continue
        args = [(a.get("name"), a.get("type"), a.get("direction") if m.tag == "method" else None) for a in m.findall("arg")]
        notes = {a.get("name"): a.get("value") for a in m.findall("annotation")}
        members[(m.tag, m.get("name"))] = (args, m.get("type"), m.get("access"), notes.get(EMITS, "true"), notes.get(EXPLICIT, "false"))
    return members


def contract():
    shapes = {}
    for path in glob.glob(os.path.join(XML_DIR, "*.xml")):
        for interface in ET.parse(path).getroot().findall("interface"):
            if DEBUG or interface.get("name") != NAME + ".Debug":
                shapes[interface.get("name")] = shape(interface)
    return shapes


def populate(rig):
    rig.start(*DEBUG)
    fs = rig.create(rig.files(64, 64), "contract")
    rig.run(fs, "Start")
    return fs


def introspect(rig, path):
    return ET.fromstring(rig.connection.call(NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect"))


def introspection_equals_the_xml(rig):
    populate(rig)
    wanted, seen = contract(), set()
    for path in [MANAGER, *rig.objects()]:
        for interface in introspect(rig, path).findall("interface"):
            name = interface.get("name")
            if not name.startswith(NAME):
                continue
            seen.add(name)
            got = shape(interface)
            different = {k for k in got.keys() | wanted[name].keys() if got.get(k) != wanted[name].get(k)}
            assert not different, f"{path} {name}: {different}"
    assert seen == set(wanted), f"never seen: {set(wanted) - seen}"


def properties_have_the_types_of_the_xml(rig):
    populate(rig)
    wanted = contract()
    for path, interfaces in rig.objects().items():
        for name, values in interfaces.items():
            if name not in wanted:
                continue
            listed = {k[1] for k, v in wanted[name].items() if k[0] == "property" and v[4] == "false"}
            assert set(values) == listed, f"{path} {name}: {set(values) ^ listed}"
            explicit = {k[1] for k, v in wanted[name].items() if k[0] == "property" and v[4] == "true"}
            assert not explicit & set(rig.get_all(path, name[len(NAME) + 1:])), f"{name}: explicit properties in GetAll"
            for prop in explicit:
                rig.get(path, name[len(NAME) + 1:], prop)


def every_level_of_the_tree_can_be_introspected(rig):
    populate(rig)
    paths, found = ["/"], []
    while paths:
        path = paths.pop()
        found.append(path)
        paths += [path.rstrip("/") + "/" + n.get("name") for n in introspect(rig, path).findall("node")]
    assert set(rig.objects()) <= set(found)
    assert MANAGER in found and ROOT in found


def every_action_that_is_asked_about_is_described_for_polkit(rig):
    with open(os.path.join(XML_DIR, "bus_priv.h"), encoding="utf-8") as f:
        asked = {NAME + "." + name for name in re.findall(r'\tx\([A-Z_]+, "([a-z-]+)"\)', f.read())}
    policy = ET.parse(os.path.join(XML_DIR, NAME + ".policy")).getroot()
    described = {a.get("id"): a for a in policy.findall("action")}
    assert asked == set(described) and len(asked) > 5, asked ^ set(described)
    for name, action in described.items():
        assert action.findtext("description") and action.findtext("message")
        allowed = [action.find("defaults").findtext(k) for k in ("allow_any", "allow_inactive", "allow_active")]
        assert allowed == ["yes"] * 3 if name.endswith("cancel-own-job") else all(a.startswith("auth_admin") for a in allowed), name


def unknown_options_are_named(rig):
    fs = populate(rig)
    wrong = {"no-such-key": Variant("b", True)}
    expect_error("InvalidOption", rig.manager, "Rescan", "a{sv}", wrong, text="no-such-key")
    expect_error("InvalidOption", rig.manager, "Probe", "sa{sv}", "/dev/null", wrong, text="no-such-key")
    for method in ("Start", "Stop", "Sync", "ReadSuperblock"):
        expect_error("InvalidOption", rig.fs, fs, method, "a{sv}", wrong, text="no-such-key")
    expect_error("InvalidOption", rig.call, fs, "Maintenance", "Fsck", "a{sv}", wrong, text="no-such-key")
    expect_error("InvalidOption", rig.call, fs, "Options", "Set", "a{sv}a{sv}", {}, wrong, text="no-such-key")
    expect_error("InvalidOption", rig.fs, fs, "Stop", "a{sv}", {"force": Variant("s", "yes")}, text="force")


def a_dry_run_changes_nothing(rig):
    fs = populate(rig)
    dry = {"dry-run": Variant("b", True)}
    assert rig.fs(fs, "Stop", "a{sv}", dry) == "/"
    assert rig.state(fs) == "running"
    rig.fs(fs, "SetLabel", "sa{sv}", "other", dry)
    assert rig.get(fs, "Filesystem", "Label") == "contract"
    fresh = rig.files(64, prefix="fresh")
    rig.wait(rig.create_job(fresh, "dry", opts=dry))
    with open(fresh[0], "rb") as f:
        assert not any(f.read(1 << 20)), "the dry run wrote"


def error_names_are_listed_once_and_schema_is_typed(rig):
    rig.start()
    names = [n for n, _ in rig.manager("ListErrorNames")]
    assert len(names) == len(set(names)) >= 50 and all(n.startswith(NAME + ".Error.") for n in names)
    schema = rig.get(MANAGER, "Manager", "OptionSchema")
    defaults = rig.get(MANAGER, "Manager", "DefaultOptions")
    assert set(schema) == set(defaults)
    for name, row in schema.items():
        assert row["type"] in ("uint", "size", "bool", "enum", "algorithm") and row["summary"] and row["scope"] and row["settable"], name
        assert row["default"] == defaults[name]
        assert ("choices" in row) == (row["type"] in ("enum", "algorithm")), name
        if "max" in row:
            assert row["min"] <= row["default"] <= row["max"], name
    assert "crc32c" in schema["data_checksum"]["choices"]
    assert schema["degraded"]["choices"] == ["ask", "yes", "very", "no"]


def plugins_are_objects(rig):
    populate(rig)
    listed = rig.manager("ListPlugins", "a{sv}", {})
    assert listed and set(listed) == {p for p in rig.objects() if p.startswith(ROOT + "/plugins/")}
    used = {p: rig.get(p, "Plugin", "UsedBy") for p in listed}
    assert used[ROOT + "/plugins/checksum_crc32c"], used
    for path in listed:
        assert rig.get(path, "Plugin", "State") == "loaded" and rig.get(path, "Plugin", "SelfTest") == "passed"


if __name__ == "__main__":
    main([introspection_equals_the_xml, properties_have_the_types_of_the_xml, every_level_of_the_tree_can_be_introspected,
          every_action_that_is_asked_about_is_described_for_polkit, unknown_options_are_named,
          a_dry_run_changes_nothing, error_names_are_listed_once_and_schema_is_typed, plugins_are_objects])

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plugin exports terrace_plugin_1 and nothing else, so that no two of them can meet by name."""
import subprocess
import sys


def exported(nm, path):
    out = subprocess.run([nm, "-D", "--defined-only", "--format=posix", path], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {line.split()[0].split("@")[0] for line in out.splitlines()}


def main():
    nm, *plugins = sys.argv[1:]
    wrong = [f"{path} exports {sorted(names)}" for path in plugins if (names := exported(nm, path)) != {"terrace_plugin_1"}]
    if not plugins:
        wrong = ["there is no plugin to look at"]
    print("\n".join(wrong) or f"{len(plugins)} plugins export one symbol each")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The example plugin builds out of tree, from the installed header and pkg-config file alone, and keeps the contract."""
import glob
import os
import subprocess
import sys
import tempfile

TIMEOUT_S = 120


def run(*args, **env):
    p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, env=dict(os.environ, **env))
    print(p.stdout)
    if p.returncode != 0:
        sys.exit(f"{' '.join(args)}: status {p.returncode}")
    return p.stdout


def main():
    build, example, tool = sys.argv[1:]
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as tmp:
        root, out = os.path.join(tmp, "root"), os.path.join(tmp, "build")
        run("meson", "install", "-C", build, "--no-rebuild", "--tags", "devel", "--destdir", root)
        found = glob.glob(root + "/**/terrace-plugin-1.pc", recursive=True)
        if len(found) != 1:
            sys.exit(f"installed pkg-config files: {found}")
        env = {"PKG_CONFIG_PATH": os.path.dirname(found[0]), "PKG_CONFIG_SYSROOT_DIR": root}
        if (abi := run("pkg-config", "--variable=abi", "terrace-plugin-1", **env).strip()) != "1":
            sys.exit(f"abi is '{abi}'")
        if not (folder := run("pkg-config", "--variable=plugindir", "terrace-plugin-1", **env).strip()).endswith("/terrace/plugins-1"):
            sys.exit(f"plugindir is '{folder}'")
        run("meson", "setup", "--werror", out, example, **env)
        run("ninja", "-C", out)
        run(tool, "--quick", os.path.join(out, "terrace-sum64.so"))


if __name__ == "__main__":
    main()

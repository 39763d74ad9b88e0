#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""terrace-plugin-check passes a sound plugin and refuses each broken one, with the sentence that tells what is broken."""
import os
import shutil
import subprocess
import sys
import tempfile

TIMEOUT_S = 120

# toy -> what must be said about it
BROKEN = {
    "overread": "touched memory outside its buffers",
    "ignores-room": "touched memory outside its buffers",
    "loses-a-byte": "the data came back changed",
    "dislikes-padding": "does not decompress, with zeros behind it",
    "wants-more-scratch": "touched memory outside its buffers",
    "any-size": "a wrong size of the result is not noticed",
    "odd-answer": "neither 0 nor -EBADMSG",
    "sum-of-parts": "a buffer in parts has another digest",
    "deaf": "a flipped bit does not show",
    "aborts": "the plugin aborted",
}


def run(tool, *args):
    p = subprocess.run([tool, "--quick", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)
    return p.returncode, p.stdout


def main():
    tool, folder = sys.argv[1:]
    failures = []

    def expect(what, got, status, *parts):
        if got[0] != status or any(part not in got[1] for part in parts):
            failures.append(f"{what}: status {got[0]}, wanted {status} and {parts}; it said:\n{got[1]}")

    def toy(name):
        return os.path.join(folder, f"terrace-toy-{name}.so")

    expect("sound", run(tool, "--seed", "1", toy("sound")), 0, "All well.", "compression 'toy-runs'", "checksum 'toy-fnv'")
    for name, sentence in BROKEN.items():
        expect(name, run(tool, "--seed", "1", toy(name)), 1, sentence)

    with tempfile.TemporaryDirectory() as tmp:
        renamed = shutil.copy(toy("sound"), os.path.join(tmp, "terrace-other.so"))
        expect("another name", run(tool, renamed), 1, "its name is 'toy-sound', but its file's name says 'other'")
        garbage = os.path.join(tmp, "terrace-garbage.so")
        with open(garbage, "wb") as f:
            f.write(b"not a library")
        expect("garbage", run(tool, garbage), 1, "the dynamic linker refuses it")
        os.chmod(renamed, 0o777)
        expect("open to all", run(tool, renamed), 1, "the daemon would not load it")
        expect("absent", run(tool, os.path.join(tmp, "terrace-absent.so")), 2, "No such file")
    expect("a bad seed", run(tool, "--seed", "x", toy("sound")), 2, "is not a seed")
    expect("no file", run(tool), 2, "Usage:")

    print("\n".join(failures) or f"{len(BROKEN)} broken toys were refused")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

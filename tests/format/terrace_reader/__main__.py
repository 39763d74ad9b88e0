# SPDX-License-Identifier: LGPL-2.1-or-later
"""
python3 -m terrace_reader IMAGE...

Prints the manifest of the pool on these members: one JSON line a path, sorted. Problems go to the standard error, one JSON line each.
Exit status: 0 all is well, 1 there were problems but everything could be read, 2 something could not.
"""
import json
import sys

from . import read_pool
from .fields import Damaged, Unsupported


def main(paths):
    if not paths or paths[0].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        result = read_pool(paths)
    except (Damaged, Unsupported, OSError) as e:
        print("cannot be opened: %s" % e, file=sys.stderr)
        return 2
    for line in result.manifest:
        print(json.dumps(line, sort_keys=True))
    for problem in result.problems.list:
        print(json.dumps(problem, sort_keys=True), file=sys.stderr)
    if result.problems.of("lost"):
        return 2
    return 1 if result.problems.list else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

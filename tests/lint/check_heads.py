#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every source says its licence, its name and what it is for.

    check_heads.py [ROOT]
"""
import os
import sys

FOLDERS = ("dax", "alloc", "fs", "tools", "tests")
LICENCE = "SPDX-License-Identifier: LGPL-2.1-or-later"


def check(path, lines):
    if not lines or LICENCE not in "".join(lines[:3]):
        yield 1, "no licence line"
    if path.endswith((".c", ".h")) and (
            len(lines) < 3 or not lines[2].startswith(f" * {path} - ")):
        yield 3, f"the comment must begin with \"{path} - \""
    for nr, line in enumerate(lines, 1):
        if line != line.rstrip() + "\n":
            yield nr, "white space at the end, or no newline"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    bad = 0
    for top in FOLDERS:
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if not name.endswith((".c", ".h", ".py")):
                    continue
                full = os.path.join(folder, name)
                path = os.path.relpath(full, root)
                with open(full, encoding="utf-8") as f:
                    for nr, text in check(path, f.readlines()):
                        print(f"{path}:{nr}: {text}")
                        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

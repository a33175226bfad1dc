#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Add up what meson test wrote down.

    summary.py "BUILD THAT RAN NO TESTS..." testlog.json...

Programs that speak TAP count once for each of their tests.  What was skipped
or failed is listed; the last line is `N passed, N failed, N skipped`.
"""
import json
import os
import re
import sys

TAP = re.compile(r"^(not ok|ok)\b(.*)$", re.M)
SKIP = re.compile(r"#\s*SKIP\S*\s*(.*)", re.I)
SKIP_ALL = re.compile(r"^1\.\.0\s*#\s*SKIP\S*\s*(.*)$", re.M | re.I)
REASON = re.compile(r"^SKIP:?\s*(.*)$", re.M)


class Sum:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def add_tap(self, name, text):
        """Lines of TAP; returns whether one of them failed."""
        bad = False
        for verdict, rest in TAP.findall(text):
            what = f"{name}: {rest.strip(' -0123456789')}"
            skip = SKIP.search(rest)
            if skip:
                self.skipped.append((what.split("#")[0].strip(),
                                     skip.group(1)))
            elif verdict == "ok":
                self.passed += 1
            else:
                self.failed.append(what)
                bad = True
        return bad

    def add(self, name, test):
        text = test.get("stdout", "")
        good = test["result"] in ("OK", "EXPECTEDFAIL")
        if test["result"] == "SKIP":
            why = SKIP_ALL.search(text) or REASON.search(text)
            self.skipped.append((name, why.group(1) if why else "no reason"))
        elif TAP.search(text):
            bad = self.add_tap(name, text)
            if not good and not bad:
                self.failed.append(f"{name}: {test['result']}")
        elif good:
            self.passed += 1
        else:
            self.failed.append(f"{name}: {test['result']}")


def main():
    total = Sum()
    for build in sys.argv[1].split():
        total.failed.append(f"{build}: no tests, see above")
    for path in sys.argv[2:]:
        if not os.path.exists(path):
            continue
        build = path.split("/")[0]
        with open(path, encoding="utf-8") as f:
            for line in f:
                test = json.loads(line)
                total.add(f"{build}: {test['name']}", test)
    print()
    for name, why in total.skipped:
        print(f"SKIPPED {name}: {why}")
    for name in total.failed:
        print(f"FAILED {name}")
    print(f"{total.passed} passed, {len(total.failed)} failed, "
          f"{len(total.skipped)} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())

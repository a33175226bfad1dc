#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs behave with libfoliofs-preload.so as without it.

    test_preload.py LIBRARY SHIM PROGRAM
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

LIBRARY, SHIM, PROGRAM = sys.argv[1:4]
failed = 0
count = 0


def check(name, ok, why=""):
    global failed, count
    count += 1
    print(f"{'ok' if ok else 'not ok'} {count} - {name}")
    if not ok:
        failed += 1
        for line in str(why).splitlines():
            print(f"# {line}")


def run(folder, preload, **env):
    env = dict(os.environ, FOLIOFS_SHIM=folder, FOLIOFS_PRELOAD_STATS="1",
               **env)
    env["LD_PRELOAD"] = ":".join(preload)
    return subprocess.run([PROGRAM, os.path.join(folder, "file")], env=env,
                          capture_output=True, text=True, timeout=120,
                          errors="replace")


def first_difference(a, b):
    a, b = a.splitlines(), b.splitlines()
    for nr, (x, y) in enumerate(zip(a, b)):
        if x != y:
            before = "\n".join(a[max(0, nr - 5):nr])
            return f"{before}\nwithout: {x}\nwith:    {y}"
    return f"{len(a)} and {len(b)} lines"


def served(text, what):
    return sum(int(n) for n in re.findall(what + r" (\d+) ", text))


def main():
    folder = tempfile.mkdtemp(prefix="foliofs-preload.", dir="/dev/shm")
    try:
        plain = run(folder, [])
        check("the program runs to its end", plain.returncode == 0 and
              plain.stdout.endswith("done 0\n"), plain)
        direct = run(folder, [LIBRARY, SHIM])
        check("and with the library", direct.returncode == 0,
              f"{direct.returncode}\n{direct.stderr}\n{direct.stdout[-300:]}")
        check("it says the same", plain.stdout == direct.stdout,
              first_difference(plain.stdout, direct.stdout))
        for what in ("reads", "writes", "mmaps", "msyncs"):
            check(f"{what} were served", served(direct.stderr, what) > 0,
                  direct.stderr)
        off = run(folder, [LIBRARY, SHIM], FOLIOFS_PRELOAD="0")
        check("it can be switched off", off.stdout == plain.stdout and
              "libfoliofs-preload" not in off.stderr, off.stderr)
        elsewhere = run(folder, [LIBRARY])
        check("other filesystems are left alone",
              elsewhere.stdout == plain.stdout and
              served(elsewhere.stderr, "reads") == 0, elsewhere.stderr)
    finally:
        shutil.rmtree(folder)
    print(f"1..{count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

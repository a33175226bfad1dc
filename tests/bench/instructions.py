#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Instructions that an operation of the DAX core costs, by callgrind.

Time depends on the machine and on who else uses it; instructions do not.  Each
stage of bench_dax's list runs over two numbers of pages, and what the
difference of the two costs more than without the stage is the stage's.

usage: instructions.py BENCH_DAX
"""
import re
import subprocess
import sys

SMALL, LARGE = 4096, 16384


def instructions(bench, pages, stages):
    out = subprocess.run(
        ['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null',
         bench, 'count', str(pages), str(stages)],
        capture_output=True, text=True, check=True)
    refs = re.search(r'refs:\s+([\d,]+)', out.stderr).group(1)
    return int(refs.replace(',', '')), out.stdout.strip()


def main():
    before, stage = 0, 0
    while True:
        try:
            large, name = instructions(sys.argv[1], LARGE, stage)
        except subprocess.CalledProcessError:
            return
        small, _ = instructions(sys.argv[1], SMALL, stage)
        cost = (large - small) / (LARGE - SMALL)
        if stage:
            print(f'{name:30} {cost - before:8.1f} instructions', flush=True)
        before, stage = cost, stage + 1
        if stage > 8:
            return


if __name__ == '__main__':
    main()

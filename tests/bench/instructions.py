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


# As bench_dax lists them.
PATTERNS = ['dense, in order', 'dense, shuffled', 'runs of 16 in 4 TiB',
            'one in each 2 MiB']
INDEX_STAGES = 3
STAGES = 8


def instructions(bench, rival, pattern, pages, stages):
    out = subprocess.run(
        ['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null',
         bench, 'count', rival, str(pattern), str(pages), str(stages)],
        capture_output=True, text=True, check=True)
    refs = re.search(r'refs:\s+([\d,]+)', out.stderr).group(1)
    return int(refs.replace(',', '')), out.stdout.strip()


def costs(bench, rival, pattern, stages):
    """Of each stage: its name, and instructions an operation."""
    before = 0
    for stage in range(stages + 1):
        large, name = instructions(bench, rival, pattern, LARGE, stage)
        small, _ = instructions(bench, rival, pattern, SMALL, stage)
        cost = (large - small) / (LARGE - SMALL)
        if stage:
            yield name, cost - before
        before = cost


def main():
    bench = sys.argv[1]
    for number, pattern in enumerate(PATTERNS):
        ours = costs(bench, 'xarray', number, INDEX_STAGES)
        judy = costs(bench, 'JudyL', number, INDEX_STAGES)
        for (name, cost), (_, theirs) in zip(ours, judy):
            print(f'{pattern:20} {name:8} {cost:8.1f} instructions, '
                  f'JudyL {theirs:8.1f}', flush=True)
    for name, cost in list(costs(bench, 'xarray', 0, STAGES))[INDEX_STAGES:]:
        print(f'{name:29} {cost:8.1f} instructions', flush=True)


if __name__ == '__main__':
    main()

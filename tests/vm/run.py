#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""foliofs in a virtual machine that has persistent memory.

    run.py BUILD-DIRECTORY [--budget=SECONDS] [--seed=N] [--cycles=N] [PART...]

Speaks TAP.  Exits with 77, and a line that says why, where there can be no
machine.  The parts are boots; they use the same NVDIMM, in this order:

    setup   namespaces by ndctl, what list and refusals say, filesystems
    fs      mount tests and direct mapping on each kind of device
    oracle  which operations wait for a page that is held, beside XFS
    domain  a platform that writes its caches back: nothing is flushed
    kill    QEMU is killed under load, and the next boot looks
"""
import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time

import vm

NVDIMM_SIZE = 1600 << 20
BOOT_SECONDS = 120
XFS = "vmload=libcrc32c,xfs,crc32c_generic,ext4"

ORACLE = ["truncate", "punch", "collapse", "clone-from", "clone-onto",
          "last-unlink", "rename-over", "unlink-open", "write-in-place"]
# Where Linux 6.15 changed what eviction does.
SINCE_6_15 = {"last-unlink", "rename-over"}
# Differences that are meant: what foliofs answers, and why.
MEANT = {
    "collapse": ("EOPNOTSUPP", "foliofs has no collapse"),
    "last-unlink": ("goes", "the blocks stay taken until the pin ends"),
    "rename-over": ("goes", "the blocks stay taken until the pin ends"),
}


class Run:
    def __init__(self, arg, kernel, top):
        self.arg = arg
        self.kernel = kernel
        self.out = os.path.join(top, "out")
        self.image = os.path.join(top, "nvdimm")
        self.random = random.Random(arg.seed)
        self.deadline = time.time() + arg.budget
        self.nr = 0
        self.bad = 0
        os.mkdir(self.out)
        with open(self.image, "wb") as f:
            f.truncate(NVDIMM_SIZE)

    def result(self, good, what):
        self.nr += 1
        self.bad += not good
        print(f"{'ok' if good else 'not ok'} {self.nr} - {what}", flush=True)

    def take(self, lines):
        """Results of the guest are ours."""
        for line in lines:
            if line.startswith(("ok - ", "not ok - ")):
                verdict, what = line.split(" - ", 1)
                self.result(verdict == "ok", what)
            elif line.startswith("#"):
                print(line, flush=True)

    def boot(self, script, until="VMEND", seconds=BOOT_SECONDS, append="",
             machine="", devices=()):
        """Run a script; the machine, or None when it did not get there."""
        begin = time.time()
        limit = min(begin + seconds, self.deadline)
        m = vm.Machine(self.kernel, self.out,
                       os.path.join(vm.HERE, "guest", script),
                       vm.nvdimm(self.image, NVDIMM_SIZE) + list(devices),
                       machine=machine,
                       append=f"{append} vmbuild={self.arg.build}")
        got = m.until(until, limit)
        self.take(got if got else m.log)
        if not got:
            m.kill()
            self.result(False, f"{script} did not end in "
                        f"{int(time.time() - begin)} s")
            for line in m.log[-15:]:
                print(f"# console: {line}")
            return None
        print(f"# {script}: {time.time() - begin:.1f} s", flush=True)
        return m

    def run(self, script, **more):
        m = self.boot(script, **more)
        if m:
            m.kill()
        return m

    def setup(self):
        self.run("setup.sh")

    def fs(self):
        self.run("fs.sh", append=XFS, seconds=180)

    def domain(self):
        self.run("domain.sh", machine=",nvdimm-persistence=cpu")

    def put(self, name, value):
        with open(os.path.join(self.out, name), "w", encoding="ascii") as f:
            f.write(f"{value}\n")

    def kill(self):
        self.put("cycles", self.arg.cycles)
        for cycle in range(self.arg.cycles + 1):
            last = cycle == self.arg.cycles
            self.put("cycle", cycle)
            m = self.boot("load.sh", append=XFS,
                          until="VMEND" if last else "LOADED")
            if not m:
                return
            if not last:
                time.sleep(self.random.uniform(0, 2))
            m.kill()

    def read(self, name):
        try:
            with open(os.path.join(self.out, name), encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def answers(self, name):
        rows = [line.split() for line in self.read(name).splitlines()]
        return {r[0]: r[1] for r in rows if len(r) == 2 and r[0] != "#"}

    def oracle(self):
        """The waiting table, side by side."""
        if not self.run("oracle.sh", append=XFS):
            return
        release = self.read("oracle.kernel").strip() or "0.0"
        version = tuple(int(n) for n in re.findall(r"\d+", release)[:2])
        xfs = self.answers("oracle.xfs")
        ours = self.answers("oracle.foliofs")
        print(f"# {'':16}{'XFS ' + release:24}{'foliofs':10}why")
        for row in ORACLE:
            x, o = xfs.get(row, "none"), ours.get(row, "none")
            want, why = MEANT.get(row, (None, ""))
            if row in SINCE_6_15 and version < (6, 15):
                good, note = o == (want or o), "not compared before 6.15"
            else:
                good = o == want if want else o == x
                note = why
            print(f"# {row:16}{x:24}{o:10}{note}")
            self.result(good and o != "none", f"oracle: {row}")


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--budget", type=float, default=600)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--cycles", type=int, default=2)
    p.add_argument("parts", nargs="*")
    arg = p.parse_intermixed_args()
    arg.build = os.path.abspath(arg.build)
    arg.parts = arg.parts or ["setup", "fs", "oracle", "domain", "kill"]
    return arg


def main():
    arg = arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    try:
        vm.check_tools()
        kernel = vm.Kernel()
    except vm.Missing as e:
        print(f"SKIP: no virtual machine: {e}")
        return 77
    # Ended from outside: what was made goes, and the machine with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"# Linux {kernel.release}, seed {arg.seed}", flush=True)
    top = tempfile.mkdtemp(prefix="foliofs-vm.")
    try:
        run = Run(arg, kernel, top)
        for part in arg.parts:
            getattr(run, part)()
        print(f"1..{run.nr}")
    finally:
        shutil.rmtree(top, ignore_errors=True)
    return 1 if run.bad else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Unmodified programs on a mount with DAX, with libfoliofs-preload.so.

    test_programs.py FOLIOFS MKFS FSCK LIBRARY

Needs root and /dev/fuse.  A program that is not installed is skipped, and
the test says so.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FOLIOFS, MKFS, FSCK, LIBRARY = map(os.path.abspath, sys.argv[1:5])
LIMIT = 120
count = failed = 0

SQL = """
create table t(a integer primary key, b blob);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
insert into t select x, randomblob(200) from c;
update t set b = randomblob(300) where a % 3 = 0;
delete from t where a % 7 = 0;
vacuum;
pragma integrity_check;
select count(*) from t;
"""

LMDB = """
import lmdb, sys, threading
env = lmdb.open(sys.argv[1], map_size=64 << 20, writemap=sys.argv[2] == "1")

def value(i):
    return (b"%d-" % i) * (1 + i % 300)

def write(first):
    for i in range(first, 2000, 2):
        with env.begin(write=True) as txn:
            txn.put(b"%08d" % i, value(i))

def read():
    for _ in range(30):
        with env.begin() as txn:
            for k, v in txn.cursor():
                assert v == value(int(k)), k

threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
threads += [threading.Thread(target=read) for n in range(2)]
for t in threads: t.start()
for t in threads: t.join()
with env.begin() as txn:
    assert txn.stat()["entries"] == 2000
    assert all(v == value(int(k)) for k, v in txn.cursor())
env.close()
print("whole")
"""


def result(name, ok, why=""):
    global count, failed
    count += 1
    print(f"{'ok' if ok else 'not ok'} {count} - {name}", flush=True)
    if not ok:
        failed += 1
        for line in str(why).splitlines()[-20:]:
            print(f"# {line}", flush=True)


def skip(name, why):
    global count
    count += 1
    print(f"ok {count} - {name} # SKIP {why}", flush=True)


def run(*args, cwd=None, text=None):
    env = dict(os.environ, LD_PRELOAD=LIBRARY, FOLIOFS_PRELOAD_STATS="1",
               GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null",
               HOME="/nonexistent")
    try:
        return subprocess.run(args, cwd=cwd, env=env, input=text, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=LIMIT, errors="replace")
    except subprocess.TimeoutExpired as e:
        return subprocess.CompletedProcess(args, -1, f"timed out: {e.output}")


def served(r, *what):
    """Did the library do something of this?"""
    return any(int(n) for w in what
               for n in re.findall(rf"\b{w} (\d+) ", r.stdout))


def fio(d, engine):
    name = f"fio {engine} with verify"
    if not shutil.which("fio"):
        return skip(name, "fio is not installed")
    engines = subprocess.run(["fio", "--enghelp"], capture_output=True,
                             text=True).stdout.split()
    if engine not in engines:
        return skip(name, f"this fio has no {engine} engine")
    for rw in ("randwrite", "randrw"):
        r = run("fio", "--name=t", f"--directory={d}", "--size=8M", "--bs=4k",
                f"--ioengine={engine}", f"--rw={rw}", "--numjobs=2",
                "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                "--verify_state_save=0", "--thread", cwd=d)
        if r.returncode or "verify: bad" in r.stdout:
            return result(name, False, r.stdout)
        for f in os.listdir(d):
            if f.startswith("t."):
                os.unlink(os.path.join(d, f))
    what = ("reads", "writes") if engine == "psync" else ("mmaps",)
    result(name, served(r, *what), r.stdout)


def sqlite(d, mode):
    name = f"sqlite3 with mmap_size, journal_mode={mode}"
    if not shutil.which("sqlite3"):
        return skip(name, "sqlite3 is not installed")
    db = os.path.join(d, f"db-{mode}")
    head = f"pragma mmap_size=268435456; pragma journal_mode={mode};"
    r = run("sqlite3", db, text=head + SQL)
    out = r.stdout.split("\n")
    result(name, r.returncode == 0 and "ok" in out and "17143" in out and
           served(r, "mmaps"), r.stdout)
    r = run("sqlite3", db, text="pragma integrity_check;")
    result(name + ", opened again", r.stdout.startswith("ok\n"), r.stdout)


def xfs_io(d):
    if not shutil.which("xfs_io"):
        return skip("xfs_io", "xfsprogs is not installed")
    r = run("xfs_io", "-f", "-c", "pwrite -S 0x61 0 64k",
            "-c", "mmap -rw 0 64k", "-c", "mwrite -S 0x62 4k 8k",
            "-c", "msync 0 64k", "x", cwd=d)
    with open(os.path.join(d, "x"), "rb") as f:
        data = f.read()
    want = b"a" * 4096 + b"b" * 8192 + b"a" * (65536 - 12288)
    result("xfs_io mmap, mwrite, msync", r.returncode == 0 and data == want
           and served(r, "mmaps") and served(r, "msyncs"), r.stdout)
    r = run("xfs_io", "-f", "-c", "reflink x", "-c", "mmap -rw 0 64k",
            "-c", "mwrite -S 0x63 0 4k", "y", cwd=d)
    with open(os.path.join(d, "x"), "rb") as f:
        x = f.read()
    with open(os.path.join(d, "y"), "rb") as f:
        y = f.read()
    result("xfs_io reflink", r.returncode == 0 and x == want and
           y == b"c" * 4096 + want[4096:] and served(r, "clones"), r.stdout)


def git(d):
    if not shutil.which("git"):
        return skip("git", "git is not installed")
    src = os.path.join(d, "src")
    os.mkdir(src)
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    ok = run("git", "init", "-q", src).returncode == 0
    for i in range(5):
        for j in range(40):
            with open(os.path.join(src, f"f{j}"), "w") as f:
                f.writelines(f"{i} {j} {k * (i + j)}\n" for k in range(500))
        ok &= run("git", "add", ".", cwd=src).returncode == 0
        ok &= run("git", *who, "commit", "-qm", str(i),
                  cwd=src).returncode == 0
    ok &= run("git", "gc", "-q", cwd=src).returncode == 0
    r = run("git", "clone", "-q", "--no-local", src, "clone", cwd=d)
    ok &= r.returncode == 0
    clone = os.path.join(d, "clone")
    fsck = run("git", "fsck", "--strict", "--full", cwd=clone)
    clean = run("git", "status", "--porcelain", cwd=clone)
    lines = [line for line in clean.stdout.splitlines()
             if "libfoliofs" not in line]
    result("git: commit, gc, clone, fsck", ok and fsck.returncode == 0 and
           clean.returncode == 0 and not lines,
           r.stdout + fsck.stdout + clean.stdout)


def lmdb(d):
    """The database of the distribution, for the distribution's python."""
    python = "/usr/bin/python3"
    probe = subprocess.run([python, "-c", "import lmdb"], capture_output=True)
    if probe.returncode:
        return skip("lmdb", "python3-lmdb is not installed")
    for writemap in "01":
        path = os.path.join(d, "lmdb" + writemap)
        r = run(python, "-c", LMDB, path, writemap)
        result(f"lmdb with four threads, writemap={writemap}",
               r.returncode == 0 and "whole" in r.stdout and
               served(r, "mmaps"), r.stdout)


def start(dev, mnt, log):
    with open(dev, "wb") as f:
        f.truncate(512 << 20)
    subprocess.run([MKFS, dev], check=True, stdout=log, stderr=log)
    daemon = subprocess.Popen([FOLIOFS, dev, mnt, "-f", "-o", "dax=always"],
                              stdin=subprocess.DEVNULL, stdout=log,
                              stderr=log)
    for _ in range(400):
        if os.path.ismount(mnt):
            return daemon
        if daemon.poll() is not None:
            break
        time.sleep(0.05)
    daemon.kill()
    raise RuntimeError("no mount")


def stop(daemon, mnt):
    subprocess.run(["umount", mnt], timeout=60)
    try:
        return daemon.wait(60)
    except subprocess.TimeoutExpired:
        daemon.send_signal(signal.SIGKILL)
        return daemon.wait()


def main():
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("1..0 # SKIP needs root and /dev/fuse")
        return 0
    work = tempfile.mkdtemp(prefix="foliofs-programs.", dir="/dev/shm")
    mnt, dev = os.path.join(work, "mnt"), os.path.join(work, "dev")
    os.mkdir(mnt)
    log = open(os.path.join(work, "log"), "w+")
    daemon = None
    try:
        daemon = start(dev, mnt, log)
        for engine in ("mmap", "psync", "libpmem"):
            fio(mnt, engine)
        for mode in ("delete", "wal"):
            sqlite(mnt, mode)
        xfs_io(mnt)
        git(mnt)
        lmdb(mnt)
        status = stop(daemon, mnt)
        log.seek(0)
        result("the daemon ended well", status == 0, log.read())
        r = subprocess.run([FSCK, "-n", dev], capture_output=True, text=True)
        result("fsck finds nothing", r.returncode == 0, r.stdout + r.stderr)
    finally:
        if daemon and daemon.poll() is None:
            daemon.kill()
            subprocess.run(["umount", "-l", mnt])
        shutil.rmtree(work)
    print(f"1..{count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

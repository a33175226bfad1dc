#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command lines of mkfs, fsck and foliofsctl: what they say and return.

    test_tools.py TOOLS-DIRECTORY MAKE_IMAGE

Speaks TAP.
"""
import json
import os
import subprocess
import sys
import tempfile

TOOLS, MAKE_IMAGE = sys.argv[1:3]
BLOCK = 4096


def run(tool, *args):
    return subprocess.run([os.path.join(TOOLS, tool), *args],
                          capture_output=True, text=True, timeout=60,
                          check=False)


def expect(result, code, *texts):
    """The exit code, and texts that must be in what was said."""
    said = result.stdout + result.stderr
    assert result.returncode == code, (result.returncode, said)
    for text in texts:
        assert text in said, (text, said)
    return result


def damage(image, offset, data):
    with open(image, "r+b") as f:
        f.seek(offset)
        f.write(data)


def read(image):
    with open(image, "rb") as f:
        return f.read()


def make_image(image, *args):
    subprocess.run([MAKE_IMAGE, image, *args], check=True, timeout=60)


def inode(image, nr):
    got = expect(run("foliofsctl", "dump", image, "inode", str(nr), "--json"),
                 0)
    return json.loads(got.stdout)


def entries(image, nr):
    got = expect(run("foliofsctl", "dump", image, "dir", str(nr), "--json"), 0)
    return {e["name"]: e for e in json.loads(got.stdout)["entries"]
            if e["inode"]}


# mkfs.foliofs

def test_mkfs_says_what_it_made(image):
    expect(run("mkfs.foliofs", "-s", "1M", "-L", "pool", image), 0,
           "1.0 MiB", "label pool")


def test_mkfs_quiet(image):
    got = expect(run("mkfs.foliofs", "-q", "-s", "1M", image), 0)
    assert got.stdout == "" and got.stderr == "", got


def test_mkfs_json(image):
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    got = expect(run("mkfs.foliofs", "--json", "-s", "2M", "-L", 'a"\n\\',
                     "-U", uuid, image), 0)
    made = json.loads(got.stdout)
    assert made["uuid"] == uuid and made["label"] == 'a"\n\\', made
    assert made["size"] == 2 << 20, made


def test_mkfs_sizes(image):
    for size, number in (("300K", 300 << 10), ("1m", 1 << 20),
                         ("1G", 1 << 30), ("2T", 2 << 40),
                         ("1048576", 1 << 20), ("1MiB", 1 << 20)):
        expect(run("mkfs.foliofs", "-q", "-f", "-s", size, image), 0)
        assert os.stat(image).st_size == number, size
        os.unlink(image)


def test_mkfs_bad_usage(image):
    for args in ((), (image, image), ("-s", "many", image),
                 ("-s", "-1", image), ("-s", "0", image),
                 ("-s", "99999999T", image), ("-U", "1-2", image),
                 ("-L", "x" * 65, "-s", "1M", image), ("-x", image)):
        expect(run("mkfs.foliofs", *args), 2, "mkfs.foliofs: ", "--help")
    assert not os.path.exists(image)


def test_mkfs_refuses(image):
    expect(run("mkfs.foliofs", image), 1, "-s SIZE")
    expect(run("mkfs.foliofs", "-s", "100K", image), 1, "at least 256 KiB")
    assert not os.path.exists(image)
    expect(run("mkfs.foliofs", "-s", "1M", image), 0)
    before = read(image)
    expect(run("mkfs.foliofs", "-s", "2M", image), 1, "holds a foliofs", "-f")
    assert read(image) == before


def test_mkfs_knows_others(image):
    with open(image, "wb") as f:
        f.truncate(16 << 20)
    try:
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "mine",
                        image], check=True, timeout=60)
    except FileNotFoundError:
        return "needs mke2fs (apt-get install e2fsprogs)"
    expect(run("mkfs.foliofs", image), 1, "ext4", "label mine", "-f")
    expect(run("mkfs.foliofs", "-f", image), 0)
    return None


# fsck.foliofs

def test_fsck_good(image):
    make_image(image)
    for option in ("-n", "-y", "-p", "-a", "-f"):
        expect(run("fsck.foliofs", option, image), 0)
    expect(run("fsck.foliofs", image), 0, "no faults")
    expect(run("fsck.foliofs", "-p", image), 0, "clean")
    expect(run("fsck.foliofs", "-pf", image), 0, "no faults")


def test_fsck_after_a_crash(image):
    make_image(image, "crash")
    before = read(image)
    expect(run("fsck.foliofs", "-n", image), 0, "to replay", "no faults")
    assert read(image) == before
    expect(run("fsck.foliofs", "-p", image), 0, "no faults")
    got = expect(run("fsck.foliofs", "-n", image), 0)
    assert "replay" not in got.stdout


def test_fsck_names_and_repairs(image):
    make_image(image)
    number = entries(image, 1)["small"]["inode"]
    damage(image, inode(image, number)["offset"] + 4, b"\x09")
    text = f"inode {number}: inode: 9 links, counted 2"
    expect(run("fsck.foliofs", "-n", image), 4, text, "fsck.foliofs -y")
    got = json.loads(expect(run("fsck.foliofs", "--json", image), 4).stdout)
    assert got["errors"] == 1 and got["exit_code"] == 4, got
    assert got["problems"][0]["inode"] == number, got
    expect(run("fsck.foliofs", "-y", image), 1, text, "all repaired")
    expect(run("fsck.foliofs", "-n", image), 0, "no faults")


def test_fsck_restores_the_superblock(image):
    make_image(image)
    damage(image, 0, bytes(BLOCK))
    expect(run("fsck.foliofs", "-n", image), 4, "its copy is good")
    expect(run("fsck.foliofs", "-y", image), 1, "[repaired]")
    expect(run("fsck.foliofs", image), 0)


def test_fsck_cannot(image):
    expect(run("fsck.foliofs", image), 8, "cannot open")
    with open(image, "wb") as f:
        f.truncate(1 << 20)
    expect(run("fsck.foliofs", image), 8, "not a foliofs")
    make_image(image)
    for offset in (0, (8 << 20) - BLOCK):
        damage(image, offset + 0x100, bytes(8))
    expect(run("fsck.foliofs", "-y", image), 4, "inode table is lost")
    damage(image, 8, b"\x02")
    damage(image, (8 << 20) - BLOCK, bytes(BLOCK))
    expect(run("fsck.foliofs", "-y", image), 4, "and so is its copy")


def test_fsck_bad_usage(image):
    for args in ((), (image, image), ("-q", image), ("-n", "-y", image)):
        expect(run("fsck.foliofs", *args), 16, "--help")


def test_no_bar_in_a_pipe(image):
    make_image(image)
    got = expect(run("fsck.foliofs", image), 0)
    assert "\r" not in got.stdout + got.stderr, got


# foliofsctl

def test_dump(image):
    make_image(image, "crash")
    for what in ([], ["super"], ["lanes"], ["inode", "1"], ["tree", "0"],
                 ["tree", "2"], ["dir", "1"]):
        expect(run("foliofsctl", "dump", image, *what), 0)
        got = expect(run("foliofsctl", "dump", image, *what, "--json"), 0)
        json.loads(got.stdout)
    names = entries(image, 1)
    assert {"small", "chunk", "dir", "second name"} <= set(names), names
    assert names["small"]["inode"] == names["second name"]["inode"]
    assert inode(image, names["small"]["inode"])["size"] == 100


def test_dump_does_not_change(image):
    make_image(image, "crash")
    before = read(image)
    for what in ("super", "lanes"):
        expect(run("foliofsctl", "dump", image, what), 0)
    assert read(image) == before


def test_dump_of_damage(image):
    make_image(image)
    damage(image, inode(image, 1)["offset"] + 16, b"\xff" * 8)
    expect(run("foliofsctl", "dump", image, "inode", "1"), 0, "(bad)")
    expect(run("foliofsctl", "dump", image, "tree", "1"), 0, "bad=")
    expect(run("foliofsctl", "dump", image, "dir", "1"), 0)


def test_ctl_bad_usage(image):
    make_image(image)
    for args in ((), ("nothing",), ("dump",), ("dump", image, "all"),
                 ("dump", image, "inode"), ("dump", image, "inode", "x"),
                 ("dump", image, "super", "1"), ("status",),
                 ("status", "/", "/"), ("status", "--waits"),
                 ("reflink",), ("reflink", image), ("reflink", *[image] * 3),
                 ("reflink", image, "b", "--length"),
                 ("reflink", image, "b", "--length", "-1"),
                 ("reflink", image, "b", "--offset", "1Q"),
                 ("reflink", image, "b", "--what"),
                 ("dedupe",), ("dedupe", image), ("unshare",),
                 ("unshare", image, image), ("unshare", image, "--dest", "1"),
                 ("map",), ("map", image, image), ("map", image, "--text"),
                 ("map", image, "--svg", "--json")):
        expect(run("foliofsctl", *args), 2, "foliofsctl")
    expect(run("foliofsctl", "dump", image, "inode", "99999999"), 1,
           "not in the table")
    expect(run("foliofsctl", "status", "/"), 1, "not a mounted foliofs")
    expect(run("foliofsctl", "status", image), 1, image)


def test_ctl_needs_a_mount(image):
    make_image(image)
    other = image + "-other"
    for args in (("status", "--waits", "/"), ("reflink", image, other),
                 ("dedupe", image, image), ("unshare", image),
                 ("map", image), ("map", "--svg", image)):
        got = expect(run("foliofsctl", *args), 1, "not ", "mounted foliofs")
        assert got.stdout == "", got
    assert not os.path.exists(other)
    for args in (("reflink", other, image), ("dedupe", other, image),
                 ("unshare", other), ("map", other)):
        expect(run("foliofsctl", *args), 1, other + ": No such file")


def test_ctl_help_of_commands(_image):
    for name in ("reflink", "dedupe", "unshare", "map", "status", "dump"):
        got = expect(run("foliofsctl", name, "--help"), 0,
                     "Usage: foliofsctl " + name)
        assert got.stderr == "", got
        expect(run("foliofsctl", "--help"), 0, "foliofsctl " + name)


def test_help_and_version(image):
    for tool in ("mkfs.foliofs", "fsck.foliofs", "foliofsctl"):
        expect(run(tool, "--help"), 0, "Usage: " + tool)
        expect(run(tool, "--version"), 0, tool)


def test_list(_):
    got = run("foliofsctl", "list", "--json")
    if got.returncode == 1 and "without libndctl" in got.stderr:
        return "built without libndctl"
    listed = json.loads(expect(got, 0).stdout)
    assert set(listed) == {"regions", "namespaces"}, listed
    expect(run("foliofsctl", "list"), 0, "egion")
    expect(run("foliofsctl", "list", "--all"), 2, "Usage")
    return None


def test_names_of_namespaces(image):
    for tool, *args in (("mkfs.foliofs",), ("foliofsctl", "dump"),
                        ("fsck.foliofs",)):
        got = run(tool, *args, "namespace999.0")
        assert got.returncode in (1, 8), got
        assert "namespace" in got.stderr and "\n" in got.stderr, got
    expect(run("mkfs.foliofs", "dax999.0"), 1, "/dev/dax999.0")
    # A file of that name goes first.
    here = os.getcwd()
    os.chdir(os.path.dirname(image))
    try:
        expect(run("mkfs.foliofs", "-q", "-s", "1M", "./namespace999.0"), 0)
        expect(run("fsck.foliofs", "namespace999.0"), 0)
    finally:
        os.chdir(here)


def main():
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_")]
    bad = 0
    print(f"1..{len(tests)}")
    for nr, (name, function) in enumerate(tests, 1):
        with tempfile.TemporaryDirectory(dir="/dev/shm",
                                         prefix="foliofs-tools-") as d:
            try:
                skip = function(os.path.join(d, "image"))
                print(f"ok {nr} - {name[5:]}" +
                      (f" # SKIP {skip}" if skip else ""))
            except Exception as e:  # pylint: disable=broad-except
                bad += 1
                print(f"not ok {nr} - {name[5:]}\n# {e!r}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may include whom: the layers of ARCHITECTURE.md, held by a test.

    check_includes.py [ROOT]

Prints one line for every include that points up or sideways, and fails.
"""
import os
import re
import sys

# Folder: what it may include of ours, folders with a slash or single files.
LAYERS = {
    "dax": {"dax/"},
    "dax/lib": {"dax/lib/", "dax/media.h", "dax/proto.h"},
    "alloc": {"alloc/", "dax/err.h", "dax/lock.h", "dax/media.h",
              "dax/pmem.h"},
    "fs": {"fs/", "alloc/", "dax/"},
    "tools": {"tools/", "fs/check.h", "fs/foliofs.h", "fs/fs.h",
              "fs/fs_format.h", "fs/ioctl.h", "alloc/alloc.h", "dax/err.h",
              "dax/lib/foliofs.h", "dax/lib/foliofs_ioctl.h", "dax/media.h",
              "dax/namespace.h", "dax/pmem.h", "dax/policy.h", "dax/proto.h"},
    "tests": {"tests/", "tools/", "fs/", "alloc/", "dax/"},
}

# Headers of libraries that one part alone may know.
FUSE = {"fs/conn.c", "fs/main.c", "fs/mount.c", "fs/ops.c", "fs/options.c",
        "fs/transport_", "fs/worker.", "tests/"}
ONLY = {
    "libpmem2.h": {"dax/pmem.c"},
    "fuse_lowlevel.h": FUSE,
    "fuse_opt.h": FUSE,
    "fuse.h": {"tests/"},
    "ndctl/libndctl.h": {"dax/namespace_ndctl.c"},
    "daxctl/libdaxctl.h": {"dax/namespace_ndctl.c"},
    "blkid.h": {"fs/probe.c"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')


def sources(root):
    for layer in LAYERS:
        for folder, below, names in os.walk(os.path.join(root, layer)):
            below[:] = [b for b in below if os.path.relpath(
                os.path.join(folder, b), root) not in LAYERS]
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    path = os.path.join(folder, name)
                    yield layer, os.path.relpath(path, root)


def matches(name, patterns):
    return any(name == p or (p[-1] in "/._" and name.startswith(p))
               for p in patterns)


def includes(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        for nr, line in enumerate(f, 1):
            m = INCLUDE.match(line)
            if m:
                yield nr, m.group(1) == '"', m.group(2)


def check_one(root, layer, path, nr, ours, name):
    if not ours:
        if name in ONLY and not matches(path, ONLY[name]):
            return f"{name} is not for this file"
        return None
    if not os.path.exists(os.path.join(root, name)):
        return f"{name}: spell the folder"
    if not matches(name, LAYERS[layer]):
        return f"{layer}/ may not know {name}"
    return None


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    bad = 0
    for layer, path in sources(root):
        found = list(includes(root, path))
        complaints = [(nr, check_one(root, layer, path, nr, ours, name))
                      for nr, ours, name in found]
        own = path[:-2] + ".h"
        if (path.endswith(".c") and os.path.exists(os.path.join(root, own))
                and (not found or found[0][2] != own)):
            complaints.append((1, f"must include {own} first"))
        for nr, text in complaints:
            if text:
                print(f"{path}:{nr}: {text}")
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

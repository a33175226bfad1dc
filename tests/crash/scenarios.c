/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/crash/scenarios.c - what is crashed, by hand
 *
 * Devices are as small as the situation allows, since every image is walked.
 * A name of 238 bytes makes a dentry of 256, of which a block holds 16.
 */
#include "tests/crash/scenarios.h"

#define SMALL  96u /* blocks: the lanes, and room for a few files */
#define MEDIUM 256u
#define CHUNKS 1536u /* two chunks that can be had whole */

#define INPLACE(group, name, blocks, setup, ops)                          \
	{                                                                 \
		group, name, blocks, DATA_INPLACE, setup, ops, NULL, 0, 0 \
	}
#define COW(group, name, blocks, setup, ops)                          \
	{                                                             \
		group, name, blocks, DATA_COW, setup, ops, NULL, 0, 0 \
	}
#define PAIR(name, setup, ops, ops2)                                   \
	{                                                              \
		"pairs", name, SMALL, DATA_COW, setup, ops, ops2, 0, 0 \
	}

/* Crash again from one image in a few; kill after one event in a few. */
#define AGAIN(name, setup, ops)                                            \
	{                                                                  \
		"recovery", name, SMALL, DATA_COW, setup, ops, NULL, 40, 0 \
	}
#define KILL(name, data, setup, ops)                                  \
	{                                                             \
		"recovery", name, SMALL, data, setup, ops, NULL, 0, 7 \
	}

const struct scenario scenarios[] = {
	/* Names. */
	INPLACE("names", "create", SMALL, "",
		"create /a 644; create /bb 4755; create /ccc*200 600"),
	INPLACE("names", "mkdir", SMALL, "",
		"mkdir /d 755; mkdir /d/e 2775; mkdir /d/e/f 700"),
	INPLACE("names", "rmdir", SMALL, "mkdir /d 755; mkdir /d/e 755",
		"rmdir /d/e; rmdir /d; mkdir /g 755"),
	INPLACE("names", "mknod", SMALL, "",
		"mknod /fifo 010644 0; mknod /null 020666 0x103; "
		"mknod /sock 0140755 0; unlink /null"),
	INPLACE("names", "symlink", SMALL, "",
		"symlink /s to; symlink /m t*128; symlink /n t*129; "
		"symlink /l t*4095"),
	INPLACE("names", "symlink-unlink", SMALL,
		"symlink /s to; symlink /l t*4095",
		"unlink /l; unlink /s; symlink /l u*1000"),
	INPLACE("names", "dentry-reuse", SMALL,
		"create /a 644; create /b 644; create /c 644",
		"unlink /b; create /d 644; unlink /a; unlink /c; "
		"create /eeeee 644"),
	INPLACE("names", "inode-reuse", SMALL,
		"create /a 4755; write /a 0 5000 1; setxattr /a user.x 300 1; "
		"create /b 644",
		"unlink /a; create /c 600; write /c 0 100 2; unlink /b; "
		"mkdir /d 755"),
	INPLACE("names", "inode-reuse-often", SMALL, "",
		"create /a 644; unlink /a; symlink /a x*100; unlink /a; "
		"mkdir /a 755; rmdir /a; create /a 600"),
	INPLACE("names", "evict-many", SMALL,
		"create /a 644; write /a 0 5000 1; symlink /l t*200; "
		"mkdir /d 755; create /b 644; setxattr /b user.x 300 1; "
		"collect",
		"unlink /a; unlink /l; rmdir /d; create /c 600; unlink /b; "
		"evict; create /x 640; write /x 0 9000 2; mkdir /y 700"),
	INPLACE("names", "directory-growth", SMALL,
		"mkdir /d 755; fill /d 15 238",
		"create /d/x*238 644; create /d/y*238 644; create /d/z 644"),
	INPLACE("names", "directory-growth-2", MEDIUM,
		"mkdir /d 755; fill /d 31 238",
		"create /d/x*238 644; create /d/y*238 644; unlink /d/x*238; "
		"mkdir /d/x*238 700"),
	INPLACE("names", "root-directory-growth", MEDIUM, "fill / 15 238",
		"create /x*238 644; create /y*238 644"),
	INPLACE("names", "inode-table-growth", MEDIUM, "fill / 14 20",
		"create /x 644; create /y 644; create /z 644"),
	/* An inode block is given back when 4096 others are free. */
	INPLACE("names", "inode-table-shrink", 512,
		"mkdir /d 755; mkdir /e 755; create /y 644; fill /d 4111 8; "
		"fill /e 30 8; drain /d 4111 8; rmdir /d; drain /e 26 8",
		"unlink /e/00000026; unlink /e/00000027; write /y 0 9000 1; "
		"create /x 644"),
	INPLACE("names", "link", SMALL, "create /a 644; mkdir /d 755",
		"link /a /b; link /a /d/c; unlink /a; unlink /b; "
		"unlink /d/c"),
	INPLACE("names", "rename", SMALL, "create /a 644; mkdir /d 755",
		"rename /a /b; rename /b /d/c; rename /d/c /a noreplace; "
		"rename /a /longer*100"),
	INPLACE("names", "rename-over", SMALL,
		"create /a 644; create /b 600; write /b 0 5000 1; "
		"link /b /c; mkdir /d 755; create /d/e 640",
		"rename /a /b; rename /b /c; rename /d/e /c"),
	INPLACE("names", "rename-over-open", SMALL,
		"create /a 644; create /b 600; write /b 0 5000 1; open 0 /b",
		"rename /a /b; write @0 0 100 2; close 0"),
	INPLACE("names", "rename-exchange", SMALL,
		"create /a 644; mkdir /d 755; mkdir /d/e 700; create /d/f 600",
		"rename /a /d/f exchange; rename /a /d/e exchange; "
		"rename /d/e /d/f exchange"),
	INPLACE("names", "rename-directory", SMALL,
		"mkdir /a 755; mkdir /b 755; mkdir /a/c 700; create /a/c/f 644",
		"rename /a/c /b/c; rename /b/c /c; mkdir /a/g 755; "
		"rename /c /a/g; !rename /c /a/g; rename /b /a/b"),
	INPLACE("names", "rename-directory-over", SMALL,
		"mkdir /a 755; mkdir /b 755; mkdir /a/c 700; mkdir /b/c 711",
		"rename /a/c /b/c; rename /b /a"),
	INPLACE("names", "rename-exchange-directories", SMALL,
		"mkdir /a 755; mkdir /b 755; mkdir /a/c 700; mkdir /b/d 711; "
		"create /a/c/f 644",
		"rename /a/c /b/d exchange; rename /a /b exchange"),
	INPLACE("names", "unlink-open", SMALL,
		"create /a 644; write /a 0 9000 1; setxattr /a user.x 10 1; "
		"open 0 /a",
		"unlink /a; write @0 100 5000 2; truncate @0 3000; close 0; "
		"create /b 644"),
	INPLACE("names", "rmdir-open", SMALL, "mkdir /a 755; open 0 /a",
		"rmdir /a; !create @0/x 644; mkdir /b 755; close 0"),
	INPLACE("names", "tmpfile", SMALL, "mkdir /d 755",
		"tmpfile 0 /d 600; write @0 0 5000 1; linkh 0 /d/a; close 0; "
		"tmpfile 1 / 644; write @1 0 100 1; close 1; create /b 644"),
	INPLACE("names", "default-acl", SMALL, "mkdir /d 755; acl /d default 5",
		"create /d/a 666; mkdir /d/e 777; symlink /d/s x; "
		"create /d/e/b 600; unlink /d/a; unlink /d/s"),

	/* Contents. */
	INPLACE("files", "write-new", SMALL, "create /a 644",
		"write /a 0 100 1; write /a 100 3996 1; write /a 4096 1 1; "
		"write /a 4097 9000 1"),
	COW("files", "write-new-cow", SMALL, "create /a 644",
	    "write /a 0 100 1; write /a 100 3996 1; write /a 4096 1 1; "
	    "write /a 4097 9000 1"),
	INPLACE("files", "write-in-place", SMALL,
		"create /a 644; write /a 0 20000 1",
		"write /a 4096 4096 2; write /a 8 8 3; write /a 4001 9007 4; "
		"write /a 3 11 5"),
	INPLACE("files", "write-without-words", SMALL,
		"create /a 644; write /a 0 20000 1; open 0 /a",
		"rewrite @0 4096 4096 2; rewrite @0 8 8 3; "
		"rewrite @0 12000 8 4; rewrite @0 64 64 5; "
		"rewrite @0 8192 300 6; close 0"),
	COW("files", "write-over-cow", SMALL,
	    "create /a 644; write /a 0 20000 1",
	    "write /a 4096 4096 2; write /a 8 8 3; write /a 4001 9007 4; "
	    "write /a 3 11 5"),
	INPLACE("files", "write-mixed", SMALL,
		"create /a 644; write /a 0 5000 1; write /a 16384 4096 1",
		"write /a 100 12000 2; write /a 4000 20000 3; "
		"write /a 23990 30 4"),
	INPLACE("files", "write-hole", SMALL, "create /a 644",
		"write /a 10000 100 1; write /a 100 100 1; "
		"write /a 5000 2000 1"),
	INPLACE("files", "write-unwritten", SMALL,
		"create /a 644; falloc /a 0 20000; keep /a 20480 8192",
		"write /a 100 100 1; write /a 4096 4096 1; "
		"write /a 7000 6000 2; write /a 19990 3000 1"),
	COW("files", "write-unwritten-cow", SMALL,
	    "create /a 644; falloc /a 0 20000",
	    "write /a 100 100 1; write /a 4096 4096 1; write /a 7000 6000 2"),
	INPLACE("files", "write-many-slots", MEDIUM,
		"create /a 644; write /a 0 12288 1; write /a 300000 1 1",
		"write /a 0 299000 2"),
	COW("files", "leaf-shadow-cow", MEDIUM,
	    "create /a 644; write /a 0 300000 1",
	    "write /a 10 290000 2; write /a 4096 4096 3"),
	INPLACE("files", "suid", SMALL,
		"create /a 644; write /a 0 100 1; chown /a 5 6; "
		"chmod /a 6755",
		"write /a 0 10 2; chmod /a 6755; write /a 100 5000 2; "
		"chmod /a 6755; truncate /a 10"),
	INPLACE("files", "root-growth", MEDIUM, "create /a 644",
		"write /a 0 100 1; write /a 4096 100 1; "
		"write /a 2097152 100 1; write /a 0x40000000 100 1; "
		"write /a 0x8000000000 100 1"),
	INPLACE("files", "root-growth-at-once", MEDIUM,
		"create /a 644; write /a 0 5 1; create /b 644",
		"write /a 0x8000000000 100 1; write /b 0x40000000 5000 1; "
		"truncate /a 5; truncate /b 0x40000001"),
	INPLACE("files", "chunk-collapse", CHUNKS,
		"create /a 644; write /a 0 2093056 1",
		"write /a 2093056 4096 1; chunk /a 0; write /a 100 10 2"),
	INPLACE("files", "chunk-collapse-growing", CHUNKS,
		"create /a 644; open 0 /a; write @0 0 131072 1; "
		"write @0 131072 1048576 1; write @0 1179648 913408 1",
		"write @0 2093056 5000 1; chunk /a 0; truncate /a 4096"),
	COW("files", "chunk-split-cow", CHUNKS,
	    "create /a 644; write /a 0 2097152 1",
	    "chunk /a 0; write /a 1000000 100 2; truncate /a 2000000"),
	INPLACE("files", "chunk-punch", CHUNKS,
		"create /a 644; write /a 0 2097152 1",
		"chunk /a 0; punch /a 40960 8192; truncate /a 100; unlink /a"),
	INPLACE("files", "chunk-unlink", CHUNKS,
		"create /a 644; write /a 0 2097152 1; create /b 644",
		"unlink /a; write /b 0 4096 2"),
	INPLACE("files", "chunk-unwritten", CHUNKS,
		"create /a 644; falloc /a 0 2097152",
		"write /a 4096 100 1; write /a 0 8192 2"),
	INPLACE("files", "truncate-down", SMALL,
		"create /a 644; write /a 0 30000 1",
		"truncate /a 20001; truncate /a 16384; truncate /a 4095; "
		"truncate /a 0"),
	INPLACE("files", "truncate-up", SMALL,
		"create /a 644; write /a 0 3000 1",
		"truncate /a 3001; truncate /a 4096; truncate /a 100000; "
		"truncate /a 0x10000000000"),
	INPLACE("files", "tail-zeroing", SMALL,
		"create /a 644; write /a 0 8000 1; create /b 644; "
		"write /b 0 8000 1",
		"truncate /a 5000; truncate /a 7000; truncate /b 4500; "
		"write /b 6000 100 2; truncate /b 100; write /b 9000 10 3"),
	COW("files", "tail-zeroing-cow", SMALL,
	    "create /a 644; write /a 0 8000 1; create /b 644; "
	    "write /b 0 8000 1",
	    "truncate /a 5000; truncate /a 7000; truncate /b 4500; "
	    "write /b 6000 100 2; truncate /b 100; write /b 9000 10 3"),
	INPLACE("files", "punch", SMALL, "create /a 644; write /a 0 30000 1",
		"punch /a 4096 4096; punch /a 10000 10000; punch /a 25000 100; "
		"punch /a 0 100000"),
	INPLACE("files", "zero-range", SMALL,
		"create /a 644; write /a 0 30000 1",
		"zero /a 4096 4096; zero /a 10000 10000; zero /a 25000 100; "
		"zero /a 29000 10000"),
	COW("files", "punch-cow", SMALL, "create /a 644; write /a 0 30000 1",
	    "punch /a 4096 4096; punch /a 10000 10000; punch /a 25000 100; "
	    "zero /a 1000 10000"),
	INPLACE("files", "fallocate", SMALL, "create /a 644; write /a 0 5000 1",
		"falloc /a 0 10000; keep /a 8192 20000; falloc /a 30000 10; "
		"write /a 8000 1000 2; truncate /a 0"),
	INPLACE("files", "copy", SMALL,
		"create /a 644; write /a 0 20000 1; create /b 644; "
		"write /b 0 9000 2",
		"copy /a 0 /b 16384 8192; copy /a 100 /b 5000 3000; "
		"copy /a 0 /a 20480 9000; copy /b 3 /a 17 50"),
	INPLACE("files", "copy-holes", SMALL,
		"create /a 644; write /a 8192 100 1; keep /a 16384 8192; "
		"truncate /a 40000; create /b 644; write /b 0 40000 2",
		"copy /a 0 /b 0 32768; copy /a 100 /b 7 30000"),
	INPLACE("files", "many-extents", MEDIUM,
		"create /a 644; write /a 0 100 1; write /a 8192 100 1; "
		"write /a 16384 100 1; write /a 24576 100 1; "
		"write /a 32768 100 1; write /a 40960 100 1; "
		"write /a 49152 100 1; write /a 57344 100 1; "
		"write /a 65536 100 1; write /a 73728 100 1; "
		"write /a 81920 100 1; write /a 90112 100 1",
		"write /a 50 98000 2"),
	COW("files", "copy-cow", SMALL,
	    "create /a 644; write /a 0 20000 1; create /b 644; "
	    "write /b 0 9000 2",
	    "copy /a 0 /b 16384 8192; copy /a 100 /b 5000 3000; "
	    "copy /a 0 /a 20480 9000"),
	INPLACE("files", "block-reuse", SMALL,
		"create /a 644; write /a 0 60000 1; create /b 644; "
		"mkdir /d 755; fill /d 17 238; drain /d 17 238",
		"rmdir /d; write /b 0 20000 2; unlink /a; "
		"mkdir /e 755; write /b 20000 60000 3"),
	INPLACE("files", "node-reuse", SMALL,
		"create /a 644; write /a 0 9000 1; write /a 2097152 9000 1; "
		"create /b 644",
		"write /a 4194304 10 1; truncate /a 100; "
		"write /b 0 30000 2; write /b 2097152 9000 2"),
	INPLACE("files", "full", 64,
		"create /a 644; create /b 644; write /b 0 30000 1; "
		"!write /a 0 100000 1; !write /a 100000 40000 1; "
		"!write /a 140000 4096 1; !write /a 144096 4096 1; "
		"!write /a 148192 4096 1; !write /a 152288 4096 1; "
		"!write /a 156384 4096 1; !write /a 160480 4096 1",
		"!write /a 0x100000 4096 1; punch /a 40000 10000; "
		"truncate /a 20000; !create /c 644; unlink /b"),

	/* Blocks that files share. */
	INPLACE("shares", "clone-whole", SMALL,
		"create /a 644; write /a 0 30000 1; create /b 644",
		"clone /a 0 /b 0 0; write /b 4000 5000 2; write /a 0 100 3; "
		"unlink /a; write /b 20000 8 4"),
	COW("shares", "clone-whole-cow", SMALL,
	    "create /a 644; write /a 0 30000 1; create /b 644",
	    "clone /a 0 /b 0 0; write /b 4000 5000 2; write /a 0 100 3; "
	    "unlink /a; write /b 20000 8 4"),
	INPLACE("shares", "clone-of-one-page", SMALL,
		"create /a 644; write /a 0 100 1; create /b 644",
		"clone /a 0 /b 0 0; write /b 50 10 2; clone /b 0 /a 0 0; "
		"write /a 100 4000 3"),
	INPLACE("shares", "clone-over", SMALL,
		"create /a 644; write /a 0 30000 1; create /b 644; "
		"write /b 0 20000 2; create /c 644; write /c 0 60000 3",
		"clone /a 0 /b 0 0; clone /b 0 /c 4096 20480; "
		"clone /a 4096 /b 8192 8192; clone /a 4096 /b 8192 8192"),
	INPLACE("shares", "clone-pages", SMALL,
		"create /a 644; write /a 0 40960 1; create /b 644; "
		"write /b 0 40960 2",
		"clone /a 8192 /b 4096 12288; clone /b 4096 /b 32768 8192; "
		"write /a 9000 4096 3; truncate /b 6000; truncate /b 9000; "
		"write /a 16384 4096 4"),
	INPLACE("shares", "clone-behind-the-end", SMALL,
		"create /a 644; write /a 0 10000 1; create /b 644; "
		"write /b 0 5000 2",
		"clone /a 0 /b 12288 10000; clone /a 8192 /b 0x40000000 1808; "
		"truncate /b 13000; truncate /b 20000"),
	INPLACE("shares", "clone-holes", SMALL,
		"create /a 644; write /a 8192 100 1; keep /a 16384 8192; "
		"truncate /a 40960; create /b 644; write /b 0 40960 2",
		"clone /a 0 /b 0 0; write /b 17000 10 3; write /a 16384 1 4; "
		"punch /b 4096 8192"),
	INPLACE("shares", "copy-edges", SMALL,
		"create /a 644; write /a 0 40000 1; create /b 644; "
		"write /b 0 40000 2",
		"copy /a 100 /b 100 20000; copy /a 4196 /b 8292 12188; "
		"write /a 5000 100 3"),
	INPLACE("shares", "copy-on-write", SMALL,
		"create /a 644; write /a 0 40960 1; create /b 644; "
		"clone /a 0 /b 0 0",
		"write /b 0 4096 2; write /b 4196 100 3; write /a 4096 4096 4; "
		"write /a 100 39000 5; write /b 40000 5000 6"),
	INPLACE("shares", "one-sharer-goes", SMALL,
		"create /a 644; write /a 0 40960 1; create /b 644; "
		"clone /a 0 /b 0 0; create /c 644; clone /a 0 /c 0 0",
		"truncate /a 20000; punch /b 8192 8192; zero /c 4096 9000; "
		"unlink /a; write /b 0 100 2; unlink /c; write /b 20480 100 3"),
	INPLACE("shares", "dedupe", SMALL,
		"create /a 644; write /a 0 20000 1; create /b 644; "
		"write /b 0 20000 1; write /b 16384 10 2",
		"dedupe /a 0 /b 0 16384; write /b 0 20000 1; "
		"dedupe /a 0 /b 0 20000; write /a 0 100 3; unlink /a; "
		"write /b 4096 100 4"),
	INPLACE("shares", "unshare", SMALL,
		"create /a 644; write /a 0 40000 1; keep /a 40960 8192; "
		"create /b 644; clone /a 0 /b 0 0",
		"unshare /b 8192 8192; write /b 9000 100 2; "
		"unshare /a 0 40000; unlink /b; write /a 0 40000 3"),
	INPLACE("shares", "chunk-clone", CHUNKS,
		"create /a 644; write /a 0 2097152 1; create /b 644",
		"chunk /a 0; clone /a 0 /b 0 0; write /b 8192 100 2; "
		"write /a 1000000 100 3; unlink /a"),
	INPLACE("shares", "chunk-range", CHUNKS,
		"create /a 644; write /a 0 2097152 1; create /b 644; "
		"write /b 0 5000 2",
		"chunk /a 0; clone /a 0 /b 2097152 2097152; "
		"clone /a 4096 /b 8192 8192; write /b 2097152 100 3; "
		"truncate /b 2200000; punch /a 0 1000000"),
	INPLACE("shares", "chunk-edges", CHUNKS,
		"create /a 644; write /a 0 2097152 1; create /b 644",
		"chunk /a 0; copy /a 1000 /b 1000 40000; "
		"clone /a 2093056 /b 4096 4096; unlink /a"),
	COW("shares", "chunk-cow", CHUNKS,
	    "create /a 644; write /a 0 2097152 1; create /b 644; "
	    "clone /a 0 /b 0 0",
	    "chunk /b 0; write /b 5000 5000 2; unlink /b; write /a 0 100 3"),
	INPLACE("shares", "kill", SMALL,
		"create /a 644; write /a 0 30000 1; create /b 644",
		"clone /a 0 /b 0 0; kill; write /b 0 100 2; kill; unlink /a; "
		"write /b 4096 100 3; kill; truncate /b 0"),

	/* Attributes, and the filesystem as a whole. */
	INPLACE("attributes", "chmod", SMALL, "create /a 644; mkdir /d 755",
		"chmod /a 4711; chmod /d 1777; chmod / 700"),
	INPLACE("attributes", "chown", SMALL, "create /a 6755; mkdir /d 755",
		"chown /a 1 2; chown /d 0xfffffffe 3; chown /a 1 3"),
	INPLACE("attributes", "utimes", SMALL, "create /a 644; mkdir /d 755",
		"utimes /a 1 2; utimes /d 3000000000000000000 -1; "
		"utimes /a 5 6"),
	INPLACE("attributes", "xattr", SMALL, "create /a 644; mkdir /d 755",
		"setxattr /a user.one 10 1; setxattr /a user.two 500 1; "
		"setxattr /a user.one 10 2; setxattr /a user.one 900 3; "
		"removexattr /a user.two; removexattr /a user.one; "
		"setxattr /d trusted.x 0 0"),
	INPLACE("attributes", "xattr-large", MEDIUM,
		"create /a 644; setxattr /a user.s 100 1",
		"setxattr /a user.big 65000 1; setxattr /a user.s 50 2; "
		"setxattr /a user.big 60000 2; removexattr /a user.big"),
	INPLACE("attributes", "xattr-unlink", SMALL,
		"create /a 644; setxattr /a user.one 3000 1; "
		"setxattr /a user.two 3000 1; create /b 644",
		"unlink /a; setxattr /b user.x 2000 2; "
		"write /b 0 9000 1"),
	INPLACE("attributes", "acl", SMALL, "create /a 644; mkdir /d 755",
		"acl /a access 5; chmod /a 700; acl /a access 7; "
		"acl /d default 1; acl /d access 5; chmod /d 711; "
		"removexattr /a system.posix_acl_access; acl /d access 8; "
		"removexattr /d system.posix_acl_default"),
	INPLACE("attributes", "flags", SMALL, "create /a 644; mkdir /d 755",
		"setflags /a 0x10; setflags /d 0x8; setflags /a 0x28"),
	INPLACE("attributes", "remount", SMALL,
		"mkdir /d 755; create /d/a 644; write /d/a 0 5000 1",
		"create /d/b 644; remount; rename /d/b /c; remount; "
		"unlink /d/a"),
	INPLACE("attributes", "kill", SMALL,
		"mkdir /d 755; create /d/a 644; write /d/a 0 5000 1",
		"create /d/b 644; kill; rename /d/b /c; write /c 0 100 1; "
		"kill; kill; unlink /d/a; create /e 644"),
	INPLACE("attributes", "kill-orphans", SMALL,
		"create /a 644; write /a 0 9000 1; create /b 644; open 0 /a; "
		"tmpfile 1 / 644; write @1 0 5000 1",
		"unlink /a; write @0 0 10 1; kill; create /c 644; "
		"write /c 0 9000 2"),

	/* Recovery itself, and who comes after it. */
	AGAIN("again-same-words", "create /a 644; kill",
	      "rename /a /b; rename /b /a; rename /a /c; create /a 600"),
	AGAIN("again-numbers", "kill",
	      "create /a 644; unlink /a; mkdir /a 755"),
	AGAIN("again-orphans",
	      "kill; create /a 644; write /a 0 5000 1; open 0 /a",
	      "unlink /a; create /b 644; write /b 0 5000 2; close 0; "
	      "write /b 5000 5000 3"),
	AGAIN("again-kill", "mkdir /d 755; create /d/a 644; kill",
	      "rename /d/a /b; kill; rename /b /d/c; kill; unlink /d/c"),
	KILL("kill-names", DATA_INPLACE, "mkdir /d 755; create /d/a 644",
	     "create /b 644; rename /b /d/c; rename /d/c /d/a; unlink /d/a; "
	     "rmdir /d; mkdir /e 755; create /e/x 600"),
	KILL("kill-same-words", DATA_INPLACE, "create /a 644",
	     "rename /a /b; rename /b /a; chmod /a 600; chmod /a 640; "
	     "unlink /a; create /a 611"),
	KILL("kill-contents", DATA_COW, "create /a 644; write /a 0 5000 1",
	     "write /a 100 9000 2; truncate /a 4000; truncate /a 5000; "
	     "punch /a 0 4096; write /a 0 100 3; unlink /a; create /b 644"),
	KILL("kill-blocks-change-hands", DATA_COW,
	     "create /a 644; write /a 0 60000 1; create /b 644",
	     "truncate /a 0; write /b 0 40000 2; unlink /b; mkdir /d 755; "
	     "create /d/x 644; write /a 0 20000 3"),

	/* Two threads. */
	PAIR("create-create", "", "create /a 644; create /b 644",
	     "create /c 644; create /d 644"),
	PAIR("same-words", "create /a 644; create /b 644",
	     "chmod /a 600; chmod /a 640; chmod /a 611; chmod /a 622; "
	     "chmod /a 633",
	     "chmod /b 600; chmod /b 640; chmod /b 611; chmod /b 622; "
	     "chmod /b 633"),
	PAIR("create-apart", "mkdir /d 755; mkdir /e 755",
	     "create /d/a 644; write /d/a 0 100 1; unlink /d/a",
	     "create /e/a 644; write /e/a 0 100 2; create /e/b 600"),
	PAIR("create-same", "", "!create /a 644; !create /b 644",
	     "!create /b 600; !create /a 600"),
	PAIR("unlink-create", "create /a 644; create /b 644; create /c 644",
	     "unlink /a; unlink /b; create /x 644",
	     "create /d 600; unlink /c; create /e 600"),
	PAIR("inode-reuse-pair", "create /a 644; create /b 644",
	     "unlink /a; create /c 640; unlink /c",
	     "unlink /b; mkdir /d 700; rmdir /d"),
	PAIR("rename-unlink", "create /a 644; create /b 600; mkdir /d 755",
	     "!rename /a /b; !rename /b /d/a; !unlink /d/a",
	     "!unlink /b; !create /b 640; !unlink /d/a"),
	PAIR("rename-rename", "mkdir /d 755; mkdir /e 755; create /d/a 644",
	     "!rename /d/a /e/a; !rename /e/b /d/b; create /x 644",
	     "!rename /e/a /e/b; !rename /d/b /d/a; create /y 644"),
	PAIR("rename-directories", "mkdir /d 755; mkdir /e 755",
	     "!rename /d /e/d; !mkdir /d 700; !rmdir /e/d",
	     "!rename /e /d/e; !create /d/x 644; !mkdir /e 711"),
	PAIR("write-write", "create /a 644; create /b 644",
	     "write /a 0 5000 1; write /a 5000 5000 1; truncate /a 100",
	     "write /b 0 9000 2; truncate /b 5000; write /b 0 10 3"),
	PAIR("write-one", "create /a 644; write /a 0 4096 1",
	     "write /a 0 4096 2; write /a 4096 100 2",
	     "write /a 100 100 3; truncate /a 50"),
	PAIR("blocks-change-hands",
	     "create /a 644; write /a 0 9000 1; create /b 644; "
	     "mkdir /d 755; create /d/x 644",
	     "truncate /a 0; write /a 0 9000 2; unlink /d/x",
	     "write /b 0 9000 3; truncate /b 0; mkdir /e 755"),
	PAIR("clone-write", "create /a 644; write /a 0 9000 1; create /b 644",
	     "clone /a 0 /b 0 0; truncate /b 5000; write /b 0 10 2",
	     "write /a 0 4096 3; write /a 100 100 4; truncate /a 0"),
	PAIR("clone-unlink",
	     "create /a 644; write /a 0 9000 1; create /b 644; "
	     "clone /a 0 /b 0 0; create /c 644",
	     "!clone /a 0 /c 0 0; write /c 0 100 2",
	     "unlink /a; unlink /b; create /d 600"),
	PAIR("clone-both-ways",
	     "create /a 644; write /a 0 8192 1; create /b 644; "
	     "write /b 0 8192 2",
	     "clone /a 0 /b 0 4096; write /a 0 100 3",
	     "clone /b 4096 /a 4096 4096; write /b 8000 100 4"),
	PAIR("link-unlink", "create /a 644; mkdir /d 755",
	     "!link /a /b; !unlink /a; !unlink /d/c",
	     "!link /a /d/c; !unlink /b; !link /d/c /a"),
	PAIR("mkdir-inside", "", "mkdir /d 755; !create /d/a 644; !rmdir /d",
	     "!create /d/b 644; !mkdir /d/e 755; !unlink /d/b"),
	PAIR("xattr-xattr", "create /a 644; create /b 644",
	     "setxattr /a user.x 10 1; chmod /a 600; removexattr /a user.x",
	     "setxattr /b user.y 500 2; chown /b 1 2; unlink /b"),
	{ 0 },
};

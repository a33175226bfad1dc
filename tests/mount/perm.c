/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/mount/perm.c - who may do what
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fops.h"
#include "tests/support/mtest.h"

MTEST(perm, of_files)
{
	put("secret", "x");
	OK(chmod("secret", 0600));
	put("readable", "x");
	OK(chmod("readable", 0644));
	put("writable", "x");
	OK(chmod("writable", 0602));
	AS_USER(NOBODY)
	{
		FAILS(EACCES, open("secret", O_RDONLY));
		FAILS(EACCES, open("secret", O_WRONLY));
		FAILS(EACCES, truncate("secret", 0));
		close_ok(open_ok("readable", O_RDONLY));
		FAILS(EACCES, open("readable", O_WRONLY));
		FAILS(EACCES, open("readable", O_RDONLY | O_TRUNC));
		FAILS(EACCES, truncate("readable", 0));
		FAILS(EACCES, open("writable", O_RDWR));
		close_ok(open_ok("writable", O_WRONLY));
		FAILS(EPERM, chmod("readable", 0777));
		FAILS(EPERM, chown("readable", NOBODY, -1u));
		FAILS(EPERM, chown("readable", -1u, NOBODY));
		FAILS(EACCES, setxattr("readable", "user.x", "y", 1, 0));
	}
	must_hold("secret", "x");
	must_hold("readable", "x");
}

MTEST(perm, of_directories)
{
	OK(mkdir("d", 0755));
	put("d/f", "x");
	OK(mkdir("d/s", 0755));
	OK(mkdir("nosearch", 0777));
	put("nosearch/f", "x");
	OK(chmod("nosearch", 0766));
	OK(mkdir("noread", 0711));
	put("noread/f", "x");
	OK(mkdir("mine", 0777));
	OK(chmod("mine", 0777));
	AS_USER(NOBODY)
	{
		struct stat st;

		FAILS(EACCES, open("d/new", O_CREAT | O_WRONLY, 0600));
		FAILS(EACCES, mkdir("d/new", 0700));
		FAILS(EACCES, symlink("x", "d/new"));
		FAILS(EACCES, mknod("d/new", S_IFIFO | 0600, 0));
		FAILS(EACCES, unlink("d/f"));
		FAILS(EACCES, rmdir("d/s"));
		FAILS(EACCES, rename("d/f", "mine/f"));
		FAILS(EACCES, rename("d/f", "d/g"));
		touch("mine/f");
		FAILS(EACCES, link("mine/f", "d/new"));
		FAILS(EACCES, rename("mine/f", "d/g"));
		FAILS(EACCES, rename("mine/f", "d/f"));
		FAILS(EACCES, stat("nosearch/f", &st));
		FAILS(EACCES, open("nosearch/f", O_RDONLY));
		FAILS(EACCES, chdir("nosearch"));
		FAILS(EACCES, open("noread", O_RDONLY | O_DIRECTORY));
		must_hold("noread/f", "x");
	}
	EQ(count_entries("d"), 2);
}

MTEST(perm, owner_bits_win_over_group_and_others)
{
	put("f", "x");
	OK(chown("f", NOBODY, NOBODY));
	OK(chmod("f", 0077));
	AS_USER(NOBODY)
	{
		FAILS(EACCES, open("f", O_RDONLY));
	}
	OK(chown("f", 1, NOBODY));
	OK(chmod("f", 0707));
	AS_USER(NOBODY)
	{
		FAILS(EACCES, open("f", O_RDONLY));
	}
	OK(chmod("f", 0040));
	AS_USER(NOBODY)
	{
		close_ok(open_ok("f", O_RDONLY));
	}
}

MTEST(perm, root_may_all_but_execute)
{
	put("f", "x");
	OK(chown("f", NOBODY, NOBODY));
	OK(chmod("f", 0));
	close_ok(open_ok("f", O_RDWR));
	FAILS(EACCES, access("f", X_OK));
	OK(access("f", R_OK | W_OK));
	OK(chmod("f", 0100));
	OK(access("f", X_OK));
}

MTEST(perm, access_uses_the_real_user)
{
	put("f", "x");
	OK(chmod("f", 0600));
	AS_USER(NOBODY)
	{
		OK(access("f", F_OK));
		FAILS(EACCES, access("f", R_OK));
		FAILS(ENOENT, access("x", F_OK));
	}
	IN_CHILD
	{
		OK(setresuid(NOBODY, 0, 0));
		FAILS(EACCES, access("f", R_OK));
		OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
	}
}

MTEST(perm, owner_may_change_what_is_theirs)
{
	put("f", "x");
	OK(chown("f", NOBODY, NOBODY));
	AS_USER(NOBODY)
	{
		struct timespec ts[2] = { { 1, 0 }, { 2, 0 } };

		OK(chmod("f", 0640));
		OK(utimensat(AT_FDCWD, "f", ts, 0));
		OK(chown("f", -1u, NOBODY));
		FAILS(EPERM, chown("f", 1, -1u));
		FAILS(EPERM, chown("f", -1u, 1));
		OK(setxattr("f", "user.x", "y", 1, 0));
	}
	EQ(mode_of("f"), 0640);
}

MTEST(perm, a_descriptor_outlives_a_chmod)
{
	put("f", "x");
	OK(chmod("f", 0666));
	AS_USER(NOBODY)
	{
		int fd = open_ok("f", O_RDWR);

		IN_CHILD
		{
			pwrite_ok(fd, "y", 1, 0);
		}
		close_ok(fd);
	}
	IN_CHILD
	{
		int fd = open_ok("f", O_RDWR);
		char c;

		OK(chmod("f", 0));
		OK(setresuid(NOBODY, NOBODY, NOBODY));
		EQ(pread(fd, &c, 1, 0), 1);
		EQ(c, 'y');
		pwrite_ok(fd, "z", 1, 0);
		FAILS(EACCES, open("f", O_RDONLY));
	}
	must_hold("f", "z");
}

MTEST(perm, execute)
{
	int status;

	put("script", "#!/bin/sh\nexit 7\n");
	OK(chmod("script", 0744));
	AS_USER(NOBODY)
	{
		FAILS(EACCES, execl("./script", "script", (char *)NULL));
	}
	OK(chmod("script", 0755));
	if (!fork()) {
		execl("./script", "script", (char *)NULL);
		_exit(1);
	}
	wait(&status);
	EQ(WEXITSTATUS(status), 7);
	OK(chmod("script", 0644));
	FAILS(EACCES, execl("./script", "script", (char *)NULL));
}

/* --- sticky
 * ---------------------------------------------------------------------- */

MTEST(sticky, protects_the_files_of_others)
{
	OK(mkdir("d", 0777));
	OK(chmod("d", 01777));
	put("d/theirs", "x");
	OK(chmod("d/theirs", 0666));
	OK(mkdir("d/dir", 0777));
	AS_USER(NOBODY)
	{
		touch("d/mine");
		FAILS(EPERM, unlink("d/theirs"));
		FAILS(EPERM, rmdir("d/dir"));
		FAILS(EPERM, rename("d/theirs", "d/other"));
		FAILS(EPERM, rename("d/mine", "d/theirs"));
		FAILS(EPERM, renameat2(AT_FDCWD, "d/mine", AT_FDCWD, "d/theirs",
				       RENAME_EXCHANGE));
		OK(rename("d/mine", "d/own"));
		OK(unlink("d/own"));
		put("d/theirs", "written");
	}
	must_hold("d/theirs", "written");
}

MTEST(sticky, lets_the_owner_of_the_directory)
{
	OK(mkdir("d", 0777));
	OK(chown("d", NOBODY, NOBODY));
	OK(chmod("d", 01777));
	put("d/f", "x");
	put("d/g", "x");
	AS_USER(NOBODY)
	{
		OK(rename("d/f", "d/h"));
		OK(unlink("d/h"));
		OK(unlink("d/g"));
	}
	EQ(count_entries("d"), 0);
}

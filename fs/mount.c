/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/mount.c - attach a FUSE session to a directory, and take it away again
 */
#include "fs/mount.h"

#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* statx(2) since Linux 6.8: stx_mnt_id is never given twice. */
#define MOUNT_ID_UNIQUE 0x4000u

static int dead_mount(const char *dir, struct errmsg *err)
{
	return err_set(err, -ENOTCONN,
		       "%s: a mount without its daemon is still here: run "
		       "umount %s first",
		       dir, dir);
}

static int check_dir(const char *dir, struct errmsg *err)
{
	struct statvfs vfs;
	struct stat st;

	if (stat(dir, &st) == -1) {
		if (errno == ENOTCONN)
			return dead_mount(dir, err);
		return err_set(err, -errno,
			       "%s: %s: give an existing directory", dir,
			       strerror(errno));
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR,
			       "%s: not a directory: give one to mount on",
			       dir);
	/* The one question that no cache of the kernel answers. */
	if (statvfs(dir, &vfs) == -1 && errno == ENOTCONN)
		return dead_mount(dir, err);
	return 0;
}

/* fusermount3 opens it with the rights of its user, too. */
static int check_device(struct errmsg *err)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd == -1)
		return err_set(
			err, -errno,
			errno == EACCES
				? "/dev/fuse: %s: mount as root, or have "
				  "its mode made 0666"
				: "/dev/fuse: %s: load the module with "
				  "modprobe fuse",
			strerror(errno));
	close(fd);
	return 0;
}

int mount_prepare(struct mount *m, const char *dir, struct errmsg *err)
{
	int ret;

	*m = (struct mount){ 0 };
	ret = check_dir(dir, err);
	if (ret)
		return ret;
	m->dir = realpath(dir, NULL);
	if (!m->dir)
		return err_set(err, -errno, "%s: %s: give another path", dir,
			       strerror(errno));
	return check_device(err);
}

void mount_free(struct mount *m)
{
	free(m->dir);
	m->dir = NULL;
}

/*
 * libfuse and fusermount3 report to standard error only.  While they work it
 * is a file in memory; -1 if there can be none, and then they are heard.
 */
static int stderr_catch(int *ret_saved)
{
	int fd = memfd_create("stderr", MFD_CLOEXEC);

	if (fd == -1)
		return -1;
	*ret_saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(fd, STDERR_FILENO);
	return fd;
}

/* Back to the old one; the first line of what was said goes to @text. */
static void stderr_release(int fd, int saved, char *text, size_t size)
{
	ssize_t len;

	text[0] = '\0';
	if (fd == -1)
		return;
	len = pread(fd, text, size - 1, 0);
	text[len > 0 ? len : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (saved != -1) {
		dup2(saved, STDERR_FILENO);
		close(saved);
	} else {
		close(STDERR_FILENO);
	}
	close(fd);
}

/* "fusermount3: option X only allowed if ..." without who says so. */
static const char *without_name(const char *text)
{
	static const char *const names[] = { "fusermount3: ", "fuse: ",
					     "mount failed: " };

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(text, names[i], strlen(names[i])) == 0)
			text += strlen(names[i]);
	return text;
}

/* Does not ask the filesystem: that may be dead. */
static void mount_identify(struct mount *m)
{
	struct statx stx;

	if (statx(AT_FDCWD, m->dir, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
		  MOUNT_ID_UNIQUE, &stx) == -1)
		return;
	m->dev_major = stx.stx_dev_major;
	m->dev_minor = stx.stx_dev_minor;
	if (stx.stx_mask & MOUNT_ID_UNIQUE)
		m->id = stx.stx_mnt_id;
}

int mount_attach(struct mount *m, struct fuse_session *se, struct errmsg *err)
{
	char said[160];
	int saved = -1, fd, ret;

	fd = stderr_catch(&saved);
	ret = fuse_session_mount(se, m->dir);
	stderr_release(fd, saved, said, sizeof(said));
	if (ret)
		return err_set(err, -EIO,
			       "%s: cannot mount: %s: mount as root, or on a "
			       "directory of your own",
			       m->dir,
			       said[0] ? without_name(said) : "refused");
	m->attached = true;
	mount_identify(m);
	return 0;
}

int mount_probe(struct mount *m, struct errmsg *err)
{
	struct stat st;

	if (stat(m->dir, &st) == -1)
		return err_set(err, -errno,
			       "%s: mounted, but does not answer: %s: see "
			       "foliofs -d",
			       m->dir, strerror(errno));
	return 0;
}

static bool mount_is_ours(const struct mount *m, bool alive)
{
	struct mount now = { .dir = m->dir };

	mount_identify(&now);
	if (m->id || !alive)
		return m->id != 0 && m->id == now.id;
	return now.dev_major == m->dev_major && now.dev_minor == m->dev_minor;
}

static void fusermount_detach(char *dir)
{
	char prog[] = "fusermount3", u[] = "-u", q[] = "-q", z[] = "-z",
	     end[] = "--";
	char *const argv[] = { prog, u, q, z, end, dir, NULL };
	extern char **environ;
	pid_t pid;

	if (posix_spawnp(&pid, prog, NULL, NULL, argv, environ) == 0)
		waitpid(pid, NULL, 0);
}

void mount_detach(struct mount *m, bool alive)
{
	if (!m->attached)
		return;
	m->attached = false;
	if (!mount_is_ours(m, alive))
		return;
	if (umount2(m->dir, MNT_DETACH | UMOUNT_NOFOLLOW) == -1 &&
	    errno == EPERM)
		fusermount_detach(m->dir);
}

void mount_read_ahead(const struct mount *m, unsigned int kb)
{
	char path[80], text[16];
	int len, fd;

	if (kb == 0)
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 m->dev_major, m->dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd == -1)
		return;
	/*
	 * Not permitted, or gone again: the mount works as well.  No dprintf(),
	 * which loses its buffer when what it writes to is gone.
	 */
	len = snprintf(text, sizeof(text), "%u\n", kb);
	(void)!write(fd, text, (size_t)len);
	close(fd);
}

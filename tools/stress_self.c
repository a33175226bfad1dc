/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools/stress_self.c - foliofs-stress --self: a filesystem in memory
 *
 * The daemon is a child that stays in the foreground, so that it is known how
 * it ended; it unmounts when we die.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/foliofs.h"
#include "tools/stress.h"

#define MOUNT_MS 60000
#define END_MS	 60000

static void nap_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static int complain(const char *what, int err)
{
	fprintf(stderr, "foliofs-stress: %s: %s\n", what, strerror(err));
	return -err;
}

/* Beside this program, in a build tree, or wherever PATH says. */
const char *find_program(const char *name, char path[256])
{
	static const char *const beside[] = { "", "../fs/", "../bin/" };
	char exe[200];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (len <= 0)
		return name;
	exe[len] = '\0';
	slash = strrchr(exe, '/');
	slash[1] = '\0';
	for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
		if (snprintf(path, 256, "%s%s%s", exe, beside[i], name) < 256 &&
		    access(path, X_OK) == 0)
			return path;
	}
	return name;
}

static void exec_daemon(const struct own_fs *fs)
{
	char options[512], path[256];
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* Not by the terminal's ^C, but by us, when the clients have ended. */
	setsid();
	fd = open(fs->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	snprintf(options, sizeof(options), "dax=always,%s",
		 fs->options ? fs->options : "rw");
	execlp(fs->daemon ? fs->daemon : find_program("foliofs", path),
	       "foliofs", "-f", fs->image, fs->dir, "-o", options,
	       (char *)NULL);
	fprintf(stderr, "foliofs: %s\n", strerror(errno));
	_exit(127);
}

static bool is_mounted(const struct own_fs *fs)
{
	struct statx stx;

	return statx(AT_FDCWD, fs->dir, 0, 0, &stx) == 0 &&
	       stx.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* True: it ended within that time. */
static bool wait_daemon(struct own_fs *fs, long ms, int *ret_status)
{
	for (; ms > 0; ms -= 10) {
		if (waitpid(fs->pid, ret_status, WNOHANG) == fs->pid) {
			fs->pid = 0;
			return true;
		}
		nap_ms(10);
	}
	return false;
}

void own_log(const struct own_fs *fs)
{
	char line[400];
	FILE *f = fopen(fs->log, "re");

	while (f && fgets(line, sizeof(line), f))
		fprintf(stderr, "daemon: %s", line);
	if (f)
		fclose(f);
}

int own_start(struct own_fs *fs)
{
	struct foliofs_mkfs mkfs = { .size = fs->size,
				     .uid = getuid(),
				     .gid = getgid() };
	struct errmsg err = { "" };
	int status;

	snprintf(fs->dir, sizeof(fs->dir), "/tmp/foliofs-stress.XXXXXX");
	if (!mkdtemp(fs->dir))
		return complain(fs->dir, errno);
	fs->made = true;
	snprintf(fs->image, sizeof(fs->image), "/dev/shm/%s", fs->dir + 5);
	snprintf(fs->log, sizeof(fs->log), "%s.log", fs->dir);
	mkfs.device = fs->image;
	if (foliofs_mkfs(&mkfs, &err)) {
		fprintf(stderr, "foliofs-stress: %s\n", err.text);
		return -EIO;
	}
	fs->pid = fork();
	if (fs->pid == 0)
		exec_daemon(fs);
	if (fs->pid < 0)
		return complain("fork", errno);
	for (long ms = 0; ms < MOUNT_MS && !is_mounted(fs); ms += 10)
		if (wait_daemon(fs, 10, &status))
			return complain("the daemon ended", EIO);
	fs->mounted = true;
	return is_mounted(fs) ? 0 : complain("the daemon does not answer", EIO);
}

static void say_problem(void *ctx, const struct check_problem *p)
{
	(void)ctx;
	fprintf(stderr, "foliofs-stress: check: inode %ju: %s\n",
		(uintmax_t)p->ino, p->text);
}

static int check_image(const struct own_fs *fs)
{
	struct check_options opt = { .device = fs->image,
				     .report = say_problem };
	struct check_result result = { 0 };
	struct errmsg err = { "" };
	int ret = foliofs_check(&opt, &result, &err);

	if (ret)
		fprintf(stderr, "foliofs-stress: check: %s\n", err.text);
	return ret || result.nr_errors;
}

/* What a daemon that was killed leaves. */
static void detach_mount(const struct own_fs *fs)
{
	pid_t pid = fork();
	int null;

	if (pid == 0) {
		null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		execlp("fusermount3", "fusermount3", "-uzq", fs->dir,
		       (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

int own_stop(struct own_fs *fs)
{
	int status = 0, ret = 0;

	if (fs->pid) {
		kill(fs->pid, SIGTERM);
		if (!wait_daemon(fs, END_MS, &status)) {
			fprintf(stderr, "foliofs-stress: the daemon does not "
					"end\n");
			kill(fs->pid, SIGKILL);
			waitpid(fs->pid, &status, 0);
			ret = 1;
		} else if (status) {
			fprintf(stderr,
				"foliofs-stress: the daemon ended with status "
				"%#x\n",
				(unsigned int)status);
			ret = 1;
		}
	}
	if (fs->mounted)
		detach_mount(fs);
	if (fs->mounted && !ret)
		ret = check_image(fs);
	if (ret)
		own_log(fs);
	if (fs->made) {
		unlink(fs->image);
		unlink(fs->log);
		rmdir(fs->dir);
	}
	return ret;
}

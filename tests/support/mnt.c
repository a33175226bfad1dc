/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/support/mnt.c - a filesystem on a file in memory, mounted for a test
 *
 * The daemon is started in the foreground and by a process that ends at once,
 * so that the supervisor inherits it: it reaps the daemon, and every process
 * of the sandbox reads in struct mnt how it ended.
 */
#include "tests/support/mnt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/sandbox.h"

/* XFS_IOC_GOINGDOWN, and ext4's shutdown: all flushed, then no more I/O. */
#define IOC_GOING_DOWN _IOR('X', 125, uint32_t)

#define MAX_MNTS 4

struct mnt_kind {
	const char *name;
	unsigned int flags;
	uint64_t min_size;
	int (*make)(struct mnt *m);
	int (*mount)(struct mnt *m, const char *opts);
	int (*kill)(struct mnt *m);
	int (*fsck)(struct mnt *m);
};

static struct mnt *mnts[MAX_MNTS];
static unsigned int nr_mnts;

static void daemon_reaped(pid_t pid, int status)
{
	for (unsigned int i = 0; i < nr_mnts; i++) {
		struct mnt *m = mnts[i];

		if (m->daemon != pid)
			continue;
		m->status = status;
		m->ended = true;
	}
}

static void nap_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static int complain(const char *what, int err)
{
	printf("# mnt: %s: %s\n", what, strerror(err));
	return -err;
}

void mnt_print_log(const struct mnt *m)
{
	char lines[40][200];
	unsigned int nr = 0;
	FILE *f = fopen(m->log, "r");

	if (!f)
		return;
	while (fgets(lines[nr % 40], sizeof(lines[0]), f))
		nr++;
	fclose(f);
	for (unsigned int i = nr > 40 ? nr - 40 : 0; i < nr; i++) {
		char *line = lines[i % 40];

		line[strcspn(line, "\n")] = '\0';
		printf("# log: %s\n", line);
	}
}

/* Is something mounted at m->dir?  Asks the kernel only, not the daemon. */
static bool is_mount_point(const struct mnt *m)
{
	struct statx stx;

	if (statx(AT_FDCWD, m->dir, AT_STATX_DONT_SYNC, 0, &stx))
		return errno == ENOTCONN;
	return stx.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* --- foliofs ------------------------------------------------------------ */

static const char *program(const char *env, const char *fallback)
{
	const char *path = getenv(env);

	return path && *path ? path : fallback;
}

static const char *foliofs_bin(void)
{
	return program("FOLIOFS_BIN", "foliofs");
}

static int run_tool(struct mnt *m, const char *const argv[])
{
	int ret = sandbox_exec(argv, m->log);

	if (!ret)
		return 0;
	printf("# mnt: %s ended with %d\n", argv[0], ret);
	return -EIO;
}

static int foliofs_make(struct mnt *m)
{
	const char *mkfs = program("FOLIOFS_MKFS", "mkfs.foliofs");

	return run_tool(m, (const char *[]){ mkfs, m->dev, NULL });
}

static int foliofs_make_on(struct mnt *m)
{
	const char *mkfs = program("FOLIOFS_MKFS", "mkfs.foliofs");
	char size[32];

	snprintf(size, sizeof(size), "%ju", (uintmax_t)m->size);
	return run_tool(
		m, (const char *[]){ mkfs, "-f", "-s", size, m->dev, NULL });
}

static void exec_daemon(struct mnt *m, const char *opts)
{
	int fd = open(m->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	setsid();
	if (fd >= 0) {
		dup2(fd, 1);
		dup2(fd, 2);
	}
	fd = open("/dev/null", O_RDONLY);
	if (fd >= 0)
		dup2(fd, 0);
	closefrom(3);
	execlp(foliofs_bin(), "foliofs", m->dev, m->dir, "-f", "-o", opts,
	       (char *)NULL);
	fprintf(stderr, "%s: %s\n", foliofs_bin(), strerror(errno));
	_exit(127);
}

/* Two forks: the daemon's parent ends, and the supervisor inherits it. */
static int start_daemon(struct mnt *m, const char *opts)
{
	int status;
	pid_t pid;

	m->ended = false;
	m->expected = false;
	m->daemon = 0;
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		pid = fork();
		if (!pid) {
			/* Known before it can end. */
			m->daemon = getpid();
			exec_daemon(m, opts);
		}
		_exit(pid < 0);
	}
	if (waitpid(pid, &status, 0) < 0 || status)
		return -EAGAIN;
	return 0;
}

static int foliofs_mount(struct mnt *m, const char *opts)
{
	unsigned int limit_ms = sandbox_secs(20) * 1000;
	struct stat st;
	int ret;

	ret = start_daemon(m, opts);
	if (ret)
		return complain("start the daemon", -ret);
	for (unsigned int ms = 0; ms < limit_ms; ms++) {
		if (is_mount_point(m))
			return stat(m->dir, &st) ? -errno : 0;
		if (m->ended)
			return complain("the daemon ended before the mount",
					ECONNABORTED);
		nap_ms(1);
	}
	return complain("wait for the mount", ETIMEDOUT);
}

static int foliofs_kill(struct mnt *m)
{
	m->expected = true;
	if (m->daemon && !m->ended && kill(m->daemon, SIGKILL) &&
	    errno != ESRCH)
		return complain("kill the daemon", errno);
	return 0;
}

/* --- what the kernel has, for comparison ---------------------------------- */

static int kernel_mount(struct mnt *m, const char *opts)
{
	char loop[300];

	snprintf(loop, sizeof(loop), "loop%s%s", *opts ? "," : "", opts);
	return run_tool(m, (const char *[]){ "mount", "-t", m->kind->name, "-o",
					     loop, m->dev, m->dir, NULL });
}

static int kernel_kill(struct mnt *m)
{
	/* FOLIOFS_TEST_LOSE: lose what is not synced; the tests must notice. */
	uint32_t flags = getenv("FOLIOFS_TEST_LOSE") ? 2 : 0;
	int fd = open(m->dir, O_RDONLY | O_DIRECTORY);
	int ret;

	/* EIO: it is down already. */
	if (fd < 0)
		return errno == EIO ? 0 : -errno;
	ret = ioctl(fd, IOC_GOING_DOWN, &flags) ? -errno : 0;
	close(fd);
	return ret;
}

static int xfs_make(struct mnt *m)
{
	return run_tool(m, (const char *[]){ "mkfs.xfs", "-q", "-m",
					     "reflink=1", m->dev, NULL });
}

static int xfs_fsck(struct mnt *m)
{
	return run_tool(m,
			(const char *[]){ "xfs_repair", "-n", m->dev, NULL });
}

static int ext4_make(struct mnt *m)
{
	return run_tool(m, (const char *[]){ "mkfs.ext4", "-q", "-F", "-b",
					     "4096", "-E", "lazy_itable_init=0",
					     "-N", "150000", m->dev, NULL });
}

static int ext4_fsck(struct mnt *m)
{
	return run_tool(m,
			(const char *[]){ "e2fsck", "-f", "-n", m->dev, NULL });
}

static int foliofs_fsck(struct mnt *m)
{
	const char *fsck = program("FOLIOFS_FSCK", "fsck.foliofs");

	return run_tool(m, (const char *[]){ fsck, "-n", m->dev, NULL });
}

static int tmpfs_mount(struct mnt *m, const char *opts)
{
	char data[300];

	snprintf(data, sizeof(data), "size=%llu%s%s",
		 (unsigned long long)m->size, *opts ? "," : "", opts);
	return mount("tmpfs", m->dir, "tmpfs", 0, data) ? -errno : 0;
}

/* --- a directory that exists ---------------------------------------------- */

static int dir_mount(struct mnt *m, const char *opts)
{
	const char *base = strrchr(sandbox_dir(), '/');

	(void)opts;
	snprintf(m->dir, sizeof(m->dir), "%s/%s", getenv("FOLIOFS_TEST_DIR"),
		 base + 1);
	if (mkdir(m->dir, 0755) && errno != EEXIST)
		return complain(m->dir, errno);
	return 0;
}

static const struct mnt_kind kinds[] = {
	{ "foliofs", MNT_FOLIOFS | MNT_REMOUNT | MNT_CRASH, 0, foliofs_make,
	  foliofs_mount, foliofs_kill, foliofs_fsck },
	{ "xfs", MNT_XFS | MNT_REMOUNT | MNT_CRASH, 320 << 20, xfs_make,
	  kernel_mount, kernel_kill, xfs_fsck },
	{ "ext4", MNT_EXT4 | MNT_REMOUNT | MNT_CRASH, 256 << 20, ext4_make,
	  kernel_mount, kernel_kill, ext4_fsck },
	{ "tmpfs", MNT_TMPFS, 0, NULL, tmpfs_mount, NULL, NULL },
	{ "dir", 0, 0, NULL, dir_mount, NULL, NULL },
};

const struct mnt_kind *mnt_kind(const char *name)
{
	if (!name && getenv("FOLIOFS_TEST_DIR"))
		name = "dir";
	if (!name)
		name = program("FOLIOFS_TEST_FS", "foliofs");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

const char *mnt_kind_name(const struct mnt_kind *kind)
{
	return kind->name;
}

unsigned int mnt_kind_flags(const struct mnt_kind *kind)
{
	return kind->flags;
}

const char *mnt_missing(const struct mnt_kind *kind)
{
	if (!(kind->flags & MNT_FOLIOFS))
		return NULL;
	if (access("/dev/fuse", R_OK | W_OK))
		return "no /dev/fuse";
	return NULL;
}

/*
 * FOLIOFS_TEST_DEVICE: a device for the foliofs that a test makes first,
 * instead of a file in memory.  What is on it is lost.
 */
static const char *device_of(const struct mnt *m)
{
	bool first = nr_mnts == 0 || mnts[0] == m;

	return first && m->kind->flags & MNT_FOLIOFS
		       ? getenv("FOLIOFS_TEST_DEVICE")
		       : NULL;
}

void mnt_init(struct mnt *m, const struct mnt_kind *kind, const char *name)
{
	const char *work = sandbox_dir();

	m->kind = kind;
	snprintf(m->dir, sizeof(m->dir), "%s/%s", work, name);
	if (device_of(m))
		snprintf(m->dev, sizeof(m->dev), "%s", device_of(m));
	else
		snprintf(m->dev, sizeof(m->dev), "%s/%s.img", work, name);
	snprintf(m->log, sizeof(m->log), "%s/%s.log", work, name);
	mkdir(m->dir, 0755);
	if (nr_mnts < MAX_MNTS)
		mnts[nr_mnts++] = m;
	sandbox_reaped = daemon_reaped;
}

int mnt_make(struct mnt *m, uint64_t size)
{
	int fd;

	m->size = size > m->kind->min_size ? size : m->kind->min_size;
	if (!m->kind->make)
		return 0;
	if (device_of(m))
		return foliofs_make_on(m);
	fd = open(m->dev, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return complain(m->dev, errno);
	if (ftruncate(fd, (off_t)m->size)) {
		close(fd);
		return complain(m->dev, errno);
	}
	close(fd);
	return m->kind->make(m);
}

static void add_opts(char *opts, size_t size, const char *more)
{
	size_t len = strlen(opts);

	if (more && *more)
		snprintf(opts + len, size - len, "%s%s", len ? "," : "", more);
}

int mnt_mount(struct mnt *m, const char *more)
{
	char opts[280] = "";
	int ret;

	if (m->kind->flags & MNT_FOLIOFS) {
		add_opts(opts, sizeof(opts), "allow_other");
		add_opts(opts, sizeof(opts), m->opts);
	}
	add_opts(opts, sizeof(opts), more);
	ret = m->kind->mount(m, opts);
	if (!ret)
		m->mounted = true;
	return ret;
}

/*
 * A mount is busy for a moment after the last user: give it a second.  With
 * that over, it is a file that the test left open.
 */
static int try_umount(const struct mnt *m)
{
	for (int i = 0; umount2(m->dir, 0); i++) {
		if (errno != EBUSY || i == 100)
			return -errno;
		nap_ms(10);
	}
	return 0;
}

static int wait_daemon(struct mnt *m)
{
	unsigned int limit_ms = sandbox_secs(20) * 1000;

	if (!m->daemon)
		return 0;
	for (unsigned int ms = 0; !m->ended; ms++) {
		if (ms == limit_ms)
			return complain("wait for the daemon's end", ETIMEDOUT);
		nap_ms(1);
	}
	m->daemon = 0;
	if (m->expected || !m->status)
		return 0;
	if (WIFSIGNALED(m->status))
		printf("# mnt: the daemon died of signal %d\n",
		       WTERMSIG(m->status));
	else
		printf("# mnt: the daemon ended with %d\n",
		       WEXITSTATUS(m->status));
	return -EIO;
}

int mnt_unmount(struct mnt *m)
{
	int ret;

	if (!m->mounted)
		return 0;
	m->mounted = false;
	if (!m->kind->kill && !(m->kind->flags & MNT_TMPFS))
		return 0;
	ret = try_umount(m);
	if (ret) {
		complain("unmount", -ret);
		umount2(m->dir, MNT_DETACH);
		if (m->daemon)
			foliofs_kill(m);
	}
	return wait_daemon(m) ?: ret;
}

int mnt_kill(struct mnt *m)
{
	return m->kind->kill ? m->kind->kill(m) : -EOPNOTSUPP;
}

int mnt_crash(struct mnt *m)
{
	int ret;

	ret = mnt_kill(m);
	if (ret)
		return ret;
	m->mounted = false;
	/* A loop device must be gone before the next mount can have it. */
	if (m->daemon ? umount2(m->dir, MNT_DETACH) : -try_umount(m))
		return complain("unmount after the crash", errno);
	return wait_daemon(m);
}

int mnt_fsck(struct mnt *m)
{
	if (m->kind->fsck && m->kind->fsck(m))
		return -EUCLEAN;
	return 0;
}

void mnt_remove(struct mnt *m)
{
	if (!device_of(m))
		unlink(m->dev);
	unlink(m->log);
	if (m->kind->mount == dir_mount)
		run_tool(m, (const char *[]){ "rm", "-rf", m->dir, NULL });
}

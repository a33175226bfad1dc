/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs/main.c - the daemon: foliofs DEVICE DIR
 *
 * The process forks before it does anything.  The child opens the device,
 * mounts, starts its threads and asks the mount a question; only then does the
 * parent end with 0.  Whatever goes wrong before that travels to the parent as
 * one line and an exit code.
 *
 * From then on the child's first thread waits for two things: a signal, which
 * takes the mount away, and the end of the connection, which comes when the
 * last open file is closed, or at once by umount -f.  A second signal does not
 * wait for open files.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/conn.h"
#include "fs/direct.h"
#include "fs/foliofs.h"
#include "fs/mount.h"
#include "fs/ops.h"
#include "fs/options.h"
#include "fs/transport.h"
#include "fs/worker.h"

/* As mount(8) has them. */
#define EXIT_USAGE 1
#define EXIT_MOUNT 32

/*
 * How long requests that still wait when the connection has ended may take to
 * notice.  Then the daemon ends as if it had crashed, which the next mount
 * recovers from.
 */
#define END_TIMEOUT_MS 10000

/* What the child tells the parent, once. */
struct report {
	int code;
	struct errmsg msg;
};

struct daemon {
	struct cmdline cl;
	struct mount mount;
	struct foliofs *fs;
	struct fuse_session *se;
	struct transport *tr;
	struct conn conn;
	struct pool *pool;
	int signal_fd;
	int report_fd; /* -1: in the foreground */
};

static void say(const char *text)
{
	fprintf(stderr, "foliofs: %s\n", text);
}

/* Descriptors 0 to 2 exist, so that nothing we open becomes one of them. */
static void fix_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void log_to_syslog(enum fuse_log_level level, const char *fmt,
			  va_list ap)
{
	vsyslog((int)level, fmt, ap);
}

/* The mount answers: tell whoever waits, and let go of the terminal. */
static void daemon_detach(struct daemon *d)
{
	const struct report ok = { .code = EXIT_SUCCESS };
	int null;

	if (d->report_fd == -1)
		return;
	setsid();
	if (chdir("/") == -1)
		say("cannot leave this directory");
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; null != -1 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	close(null);
	openlog("foliofs", LOG_PID, LOG_DAEMON);
	fuse_set_log_func(log_to_syslog);
	(void)!write(d->report_fd, &ok, sizeof(ok));
	close(d->report_fd);
	d->report_fd = -1;
}

static int signals_open(struct daemon *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	return d->signal_fd == -1 ? -errno : 0;
}

/* An -o list for libfuse, which takes its options as an argument vector. */
static int session_open(struct daemon *d, struct errmsg *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

	if (fuse_opt_add_arg(&args, "foliofs") ||
	    fuse_opt_add_arg(&args, "-o") ||
	    fuse_opt_add_arg(&args, d->cl.mount_opts) ||
	    (!strstr(d->cl.mount_opts, "subtype=") &&
	     fuse_opt_add_arg(&args, "-osubtype=foliofs")) ||
	    (d->cl.debug && fuse_opt_add_arg(&args, "-odebug"))) {
		fuse_opt_free_args(&args);
		return -ENOMEM;
	}
	d->se = fuse_session_new(&args, &foliofs_ops, sizeof(foliofs_ops),
				 d->fs);
	fuse_opt_free_args(&args);
	if (!d->se)
		return err_set(err, -EINVAL,
			       "libfuse does not take the options %s: leave "
			       "out what you added",
			       d->cl.mount_opts);
	return 0;
}

/* Everything between a mount that exists and one that answers. */
static int serve_start(struct daemon *d, struct errmsg *err)
{
	const struct pool_options opt = {
		.nr_seats = d->cl.nr_threads,
		.max_threads = d->cl.max_threads,
		.nr_waiting = foliofs_nr_waiting(d->fs),
	};
	const struct pool_handler handler = {
		.dispatch = conn_dispatch,
		.interrupt = conn_interrupt,
		.ctx = &d->conn,
	};
	int fd = fuse_session_fd(d->se);
	struct errmsg nodirect = { "" };
	int ret;

	ret = transport_dev_open(fd, &d->tr);
	if (ret)
		return ret;
	ret = conn_init(&d->conn, d->se, d->tr, fd, d->fs);
	if (ret)
		return ret;
	d->conn.debug = d->cl.debug;
	d->conn.deny_others = d->cl.allow_root;
	d->conn.interrupted = ops_interrupted;
	conn_raw_ops(&d->conn, foliofs_raw_ops, foliofs_nr_raw_ops);
	/* Files can be used without. */
	if (direct_open(d->fs, &d->cl.dax_users, &nodirect))
		say(nodirect.text);
	ret = pool_open(d->tr, &handler, &opt, &d->pool);
	if (ret)
		return err_set(err, ret,
			       "cannot start a thread: %s: raise the limit "
			       "of processes",
			       strerror(-ret));
	return mount_probe(&d->mount, err);
}

static int daemon_start(struct daemon *d, struct errmsg *err)
{
	const char *warning;
	char line[512];
	int ret;

	ret = mount_prepare(&d->mount, d->cl.mountpoint, err);
	if (ret)
		return ret;
	ret = foliofs_open(&d->cl.fs, &d->fs, err);
	if (ret || d->cl.fake)
		return ret;
	warning = foliofs_warning(d->fs);
	if (warning) {
		snprintf(line, sizeof(line), "%s: %s", d->cl.device, warning);
		say(line);
	}
	ret = session_open(d, err);
	if (ret)
		return ret;
	ret = mount_attach(&d->mount, d->se, err);
	if (ret)
		return ret;
	/* Requests can write back dirty pages: reclaim must not wait for us. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	return serve_start(d, err);
}

/* The first signal takes the mount away, the second the connection. */
static void handle_signal(struct daemon *d)
{
	struct signalfd_siginfo info;

	if (read(d->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (!d->mount.attached) {
		pool_stop(d->pool);
		return;
	}
	mount_detach(&d->mount, true);
	fuse_log(FUSE_LOG_NOTICE,
		 "foliofs: unmounted; ends when all files are closed, "
		 "or at a second signal\n");
}

static void serve(struct daemon *d)
{
	struct pollfd fds[] = {
		{ .fd = pool_fd(d->pool), .events = POLLIN },
		{ .fd = d->signal_fd, .events = POLLIN },
	};

	for (;;) {
		if (poll(fds, 2, -1) == -1)
			continue;
		if (fds[0].revents)
			return;
		if (fds[1].revents)
			handle_signal(d);
	}
}

/*
 * Unmounting in libfuse's way frees the name of the mount point, but goes by
 * that name: not while the connection lives and something else may be there.
 */
static void session_close(struct fuse_session *se)
{
	struct pollfd pfd = { .fd = fuse_session_fd(se) };

	if (poll(&pfd, 1, 0) == 1 && pfd.revents & POLLERR)
		fuse_session_unmount(se);
	fuse_session_destroy(se);
}

static void say_notice(const char *line)
{
	fuse_log(FUSE_LOG_NOTICE, "foliofs: %s\n", line);
}

/*
 * End everything, in whatever state it is.  If a request does not end, the
 * process has to, with the device as a crash would leave it.
 */
static int daemon_stop(struct daemon *d)
{
	int ret = 0;

	/* Aborted, or failed half-way: nobody is to meet a dead mount. */
	mount_detach(&d->mount, !d->pool);
	if (d->pool)
		ret = pool_close(d->pool, END_TIMEOUT_MS);
	if (ret) {
		fuse_log(FUSE_LOG_ERR,
			 "foliofs: a request does not end: giving up; the "
			 "next mount recovers\n");
		_exit(EXIT_FAILURE);
	}
	if (d->fs)
		direct_close(d->fs, say_notice);
	if (d->conn.se)
		conn_destroy(&d->conn);
	transport_close(d->tr);
	if (d->se)
		session_close(d->se);
	if (d->fs)
		foliofs_close(d->fs);
	mount_free(&d->mount);
	return EXIT_SUCCESS;
}

/* The whole life of the daemon; returns its exit code. */
static int daemon_run(struct daemon *d)
{
	struct report bad = { .code = EXIT_MOUNT };
	int ret;

	ret = signals_open(d);
	if (!ret)
		ret = daemon_start(d, &bad.msg);
	if (ret && bad.msg.text[0] == '\0')
		err_set(&bad.msg, ret, "%s: cannot mount: %s: try again",
			d->cl.device, strerror(-ret));
	if (ret || d->cl.fake) {
		daemon_stop(d);
		bad.code = ret ? EXIT_MOUNT : EXIT_SUCCESS;
		if (d->report_fd != -1)
			(void)!write(d->report_fd, &bad, sizeof(bad));
		else if (ret)
			say(bad.msg.text);
		return bad.code;
	}
	mount_read_ahead(&d->mount, d->cl.read_ahead_kb);
	daemon_detach(d);
	serve(d);
	return daemon_stop(d);
}

/* The parent's part: wait for the report, pass it on. */
static int wait_for_report(int fd)
{
	struct report rep;
	ssize_t len;

	do
		len = read(fd, &rep, sizeof(rep));
	while (len == -1 && errno == EINTR);
	if (len != (ssize_t)sizeof(rep)) {
		say("the daemon ended before the mount answered: "
		    "see what it says with -f");
		return EXIT_MOUNT;
	}
	if (rep.code != EXIT_SUCCESS)
		say(rep.msg.text);
	return rep.code;
}

static int run_in_background(struct daemon *d)
{
	int fds[2];
	int ret;

	if (pipe2(fds, O_CLOEXEC) == -1) {
		say("no descriptor for a pipe: close some");
		return EXIT_MOUNT;
	}
	switch (fork()) {
	case -1:
		say("cannot start a process: raise the limit of processes");
		return EXIT_MOUNT;
	case 0:
		close(fds[0]);
		d->report_fd = fds[1];
		return daemon_run(d);
	default:
		close(fds[1]);
		ret = wait_for_report(fds[0]);
		close(fds[0]);
		return ret;
	}
}

int main(int argc, char **argv)
{
	struct daemon d = { .signal_fd = -1, .report_fd = -1 };
	struct errmsg err = { "" };
	int ret;

	fix_stdio();
	if (cmdline_parse(argc, argv, &d.cl, &err)) {
		say(err.text[0] ? err.text : "no memory: free some");
		ret = EXIT_USAGE;
	} else if (d.cl.help) {
		cmdline_help(stdout);
		ret = EXIT_SUCCESS;
	} else if (d.cl.version) {
		printf("foliofs %s (libfuse %s)\n", FOLIOFS_RELEASE,
		       fuse_pkgversion());
		ret = EXIT_SUCCESS;
	} else if (d.cl.foreground) {
		ret = daemon_run(&d);
	} else {
		ret = run_in_background(&d);
	}
	cmdline_free(&d.cl);
	return ret;
}

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon around the filesystem, with a stub in the filesystem's place.

usage: test_daemon.py DAEMON [unittest arguments]

Needs root and /dev/fuse; exits with 77 where it has them not.
"""
import ctypes
import errno
import mmap
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

DAEMON = None
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x20000
SECONDS = 20  # how long anything may take

KILLPRIV = 1 << 19
KILLPRIV_V2 = 1 << 28
SETXATTR_EXT = 1 << 29
INIT_EXT = 1 << 30
AUTO_INVAL_DATA = 1 << 12
MAX_PAGES = 1 << 22
ALLOW_MMAP = 1 << 36


def until(what, message):
    """Ask until the answer is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(0.005)
    raise AssertionError(message)


def mountinfo(directory):
    """The fields of the topmost mount on the directory, or None."""
    found = None
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields = line.split()
            if fields[4] == directory:
                found = fields
    return found


def daemon_pid(device):
    """The process that serves the device: not the parent that forked it."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if device.encode() not in f.read().split(b"\0"):
                    continue
            if os.readlink(f"/proc/{pid}/exe") == DAEMON:
                return int(pid)
        except OSError:
            pass
    return None


def signal_pending(pid):
    with open(f"/proc/{pid}/status") as f:
        return re.search(r"ShdPnd:\s*0*[1-9a-f]", f.read())


def thread_names(pid):
    names = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/comm") as f:
                names.append(f.read().strip())
        except OSError:
            pass  # it has just ended
    return names


def nr_receivers(pid):
    return sum(name.startswith("foliofs/") for name in thread_names(pid))


def raw_read(fd, size=16):
    """pread(2) without Python's retry after a signal: bytes or an errno."""
    buf = ctypes.create_string_buffer(size)
    n = LIBC.pread(fd, buf, ctypes.c_size_t(size), ctypes.c_long(0))
    return ctypes.get_errno() if n < 0 else buf.raw[:n]


class DaemonTest(unittest.TestCase):
    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="foliofs-test-"))
        os.chmod(self.dir, 0o755)
        self.mnt = self.dir + "/mnt"
        self.dev = self.dir + "/dev"
        os.mkdir(self.mnt)
        with open(self.dev, "w"):
            pass
        self.pid = None
        # A daemon that hangs would hang us beyond the reach of any signal.
        self.watchdog = threading.Timer(2 * SECONDS, self.kill_daemon)
        self.watchdog.start()

    def kill_daemon(self):
        pid = self.pid or daemon_pid(self.dev)
        if pid:
            os.kill(pid, signal.SIGKILL)

    def tearDown(self):
        self.watchdog.cancel()
        while mountinfo(self.mnt):
            subprocess.run(["umount", "-l", self.mnt], check=False)
        pid = self.pid or daemon_pid(self.dev)
        if pid:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                pass
        shutil.rmtree(self.dir)

    def run_daemon(self, *args, **kwargs):
        return subprocess.run([DAEMON, *args], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True,
                              timeout=SECONDS, **kwargs)

    def mount(self, options=None, **kwargs):
        args = [self.dev, self.mnt] + (["-o", options] if options else [])
        done = self.run_daemon(*args, **kwargs)
        self.assertEqual((done.returncode, done.stderr, done.stdout),
                         (0, "", ""))
        self.pid = daemon_pid(self.dev)
        self.assertIsNotNone(self.pid)

    def wait_exit(self):
        """The exit status of the daemon, which must end by itself."""
        pidfd = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ended = poll.poll(SECONDS * 1000)
        os.close(pidfd)
        self.assertTrue(ended, "the daemon does not end")
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        return status

    def open(self, name, flags=os.O_RDWR):
        return os.open(f"{self.mnt}/{name}", flags)

    def info(self):
        fd = self.open("info", os.O_RDONLY)
        text = os.read(fd, 4096).decode()
        os.close(fd)
        return dict(line.split(" ", 1) for line in text.splitlines())

    def device_says(self):
        with open(self.dev) as f:
            return f.read()

    def sleepers(self, nr, name="sleep"):
        """Threads that each wait in a read; and where the results go."""
        results = []
        fd = self.open(name)

        def run():
            results.append(raw_read(fd))

        threads = [threading.Thread(target=run) for _ in range(nr)]
        for t in threads:
            t.start()
        until(lambda: int(self.info()["sleeping"]) == nr, "not all asleep")
        return threads, results, fd

    def release(self):
        fd = self.open("release")
        os.write(fd, b"x")
        os.close(fd)


class Mount(DaemonTest):
    def test_is_there_when_the_command_returns(self):
        self.mount()
        fields = mountinfo(self.mnt)
        dash = fields.index("-")
        self.assertEqual(fields[dash + 1], "fuse.foliofs")
        self.assertEqual(fields[dash + 2], self.dev)
        self.assertEqual(fields[5], "rw,relatime")  # dev and suid count
        self.assertIn("default_permissions", fields[dash + 3])
        self.assertIn("allow_other", fields[dash + 3])
        self.assertEqual(self.device_says(), "dirty")

    def test_reads_ahead_a_megabyte(self):
        self.mount()
        dev = os.stat(self.mnt).st_dev
        path = (f"/sys/class/bdi/{os.major(dev)}:{os.minor(dev)}"
                "/read_ahead_kb")
        with open(path) as f:
            self.assertEqual(f.read(), "1024\n")

    def test_leaves_directory_and_terminal(self):
        self.mount()
        self.assertEqual(os.readlink(f"/proc/{self.pid}/cwd"), "/")
        for fd in range(3):
            self.assertEqual(os.readlink(f"/proc/{self.pid}/fd/{fd}"),
                             "/dev/null")
        self.assertNotEqual(os.getsid(self.pid), os.getsid(0))

    def test_options_reach_the_mount(self):
        self.mount("ro,noatime,nodev,nosuid,noexec,fsname=a\\,b")
        fields = mountinfo(self.mnt)
        self.assertEqual(fields[5], "ro,nosuid,nodev,noexec,noatime")
        self.assertEqual(fields[fields.index("-") + 2], "a,b")

    def test_swallows_what_fstab_has(self):
        self.mount("rw,defaults,nofail,_netdev,noauto,user,x-systemd.foo=1,"
                   "comment=x,users,group,nodiratime,lazytime,relatime")

    def test_every_choice_is_taken(self):
        for opt in ("data=inplace", "data=cow", "cache=through",
                    "cache=writeback", "cache=none", "dax=never", "dax=inode",
                    "dax=always", "relatime", "strictatime", "noatime",
                    "granularity=auto", "granularity=byte",
                    "granularity=cacheline", "granularity=page",
                    "threads=2", "max_threads=9", "read_ahead_kb=0"):
            with self.subTest(opt):
                done = self.run_daemon(self.dev, self.mnt, "-o", opt, "-V")
                self.assertEqual(done.returncode, 0)
        self.mount("data=cow,cache=none,dax=never,granularity=page")

    def test_private_on_wish(self):
        self.mount("noallow_other")
        fields = mountinfo(self.mnt)
        self.assertNotIn("allow_other", fields[-1])

    def test_works_with_closed_stdio(self):
        sh = 'exec "$0" "$1" "$2" <&- >&- 2>&-'
        done = subprocess.run(["sh", "-c", sh, DAEMON, self.dev, self.mnt],
                              timeout=SECONDS, check=False)
        self.assertEqual(done.returncode, 0)
        self.pid = daemon_pid(self.dev)
        for fd in range(3):
            self.assertEqual(os.readlink(f"/proc/{self.pid}/fd/{fd}"),
                             "/dev/null")
        self.assertEqual(len(os.listdir(self.mnt + "/..")), 2)

    def test_debug_prints_requests(self):
        log = open(self.dir + "/log", "w+")
        child = subprocess.Popen([DAEMON, self.dev, self.mnt, "-d"],
                                 stdin=subprocess.DEVNULL, stderr=log)
        until(lambda: mountinfo(self.mnt), "not mounted")
        self.info()
        until(lambda: subprocess.run(["umount", self.mnt], check=False,
                                     stderr=subprocess.DEVNULL
                                     ).returncode == 0, "busy")
        self.assertEqual(child.wait(SECONDS), 0)
        log.seek(0)
        text = log.read()
        log.close()
        self.assertIn("opcode: INIT (26)", text)
        self.assertIn("opcode: READ (15)", text)

    def test_of_a_user(self):
        os.chown(self.mnt, 65534, 65534)
        os.chown(self.dev, 65534, 65534)
        args = dict(user=65534, group=65534, extra_groups=[], cwd="/")
        done = self.run_daemon(self.dev, self.mnt, **args)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.pid = daemon_pid(self.dev)
        fields = mountinfo(self.mnt)
        self.assertIn("fuse.foliofs", fields)
        self.assertEqual(fields[5], "rw,nosuid,nodev,relatime")
        self.assertNotIn("allow_other", fields[-1])
        os.kill(self.pid, signal.SIGTERM)
        self.assertEqual(self.wait_exit(), 0)
        self.assertIsNone(mountinfo(self.mnt))
        self.assertEqual(self.device_says(), "clean")


class Helpers(DaemonTest):
    """As mount(8) and mount.fuse3 call us."""

    def setUp(self):
        super().setUp()
        self.bin = self.dir + "/bin"
        os.mkdir(self.bin)
        # Copies would not be found by their executable; links are.
        os.symlink(DAEMON, self.bin + "/foliofs")
        os.symlink(DAEMON, self.bin + "/mount.foliofs")
        self.env = dict(os.environ, PATH=self.bin + ":" + os.environ["PATH"])

    def run_helper(self, *args):
        return subprocess.run([self.bin + "/mount.foliofs", *args],
                              stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=SECONDS, check=False)

    def check_mounted(self):
        self.pid = daemon_pid(self.dev)
        self.assertIn("fuse.foliofs", mountinfo(self.mnt))

    def test_mount_foliofs(self):
        done = self.run_helper(self.dev, self.mnt, "-s", "-n", "-v",
                               "-o", "rw,nofail,unheard_of")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.check_mounted()

    def test_fake_mounts_nothing(self):
        done = self.run_helper(self.dev, self.mnt, "-f")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIsNone(mountinfo(self.mnt))
        self.assertEqual(self.device_says(), "clean")

    def test_mount_8(self):
        # /sbin/mount.foliofs must exist: put it there in a namespace.
        script = (f"mount -t tmpfs t {self.bin} -o mode=755 && "
                  f"ln -s {DAEMON} {self.bin}/mount.foliofs && "
                  f"mount -t overlay o -o lowerdir={self.bin}:/usr/sbin "
                  "/usr/sbin || exit 77\n"
                  f"mount -t foliofs {self.dev} {self.mnt} -o noatime && "
                  f"findmnt -n -o FSTYPE,SOURCE {self.mnt} && "
                  f"umount {self.mnt}")
        done = subprocess.run(["unshare", "-m", "sh", "-c", script],
                              capture_output=True, text=True,
                              timeout=SECONDS, check=False)
        if done.returncode == 77:
            self.skipTest("no overlay on /usr/sbin: " + done.stderr)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.split(), ["fuse.foliofs", self.dev])
        until(lambda: self.device_says() == "clean", "not closed")

    def test_mount_fuse3(self):
        done = subprocess.run(["mount.fuse3", self.dev, self.mnt, "-o",
                               "rw,noauto,user,x-gvfs-show", "-t",
                               "fuse.foliofs"],
                              env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True,
                              timeout=SECONDS, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.check_mounted()
        self.assertEqual(mountinfo(self.mnt)[5], "rw,relatime")


class Refuses(DaemonTest):
    def check(self, args, code, text, **kwargs):
        before = self.device_says() if os.path.exists(self.dev) else None
        for extra in ([], ["-f"]):
            done = self.run_daemon(*args, *extra, **kwargs)
            self.assertEqual(done.returncode, code, done.stderr)
            lines = done.stderr.splitlines()
            self.assertEqual(len(lines), 1, done.stderr)
            self.assertRegex(lines[0], "^foliofs: .*" + text)
        self.assertIsNone(mountinfo(self.mnt))
        self.assertIsNone(daemon_pid(self.dev))
        if before is not None:
            self.assertIn(self.device_says(), (before, "clean"))

    def test_command_lines_without_sense(self):
        for args, text in (
                ([], "device missing: give DEVICE and DIR"),
                ([self.dev], "mount point missing: give"),
                ([self.dev, self.mnt, "x"], "'x' is one too many"),
                ([self.dev, self.mnt, "-x"], "flag -x: not known"),
                (["-o", self.dev, self.mnt], "option .*dev: not known"),
                ([self.dev, self.mnt, "--what"], "not known"),
                ([self.dev, self.mnt, "-o", "what"],
                 "option what: not known: see foliofs --help"),
                ([self.dev, self.mnt, "-o", "data=cows"],
                 "option data=cows: .* use one of inplace, cow$"),
                ([self.dev, self.mnt, "-o", "ro,cache"],
                 "option cache: not known"),
                ([self.dev, self.mnt, "-o", "threads=0"],
                 "option threads=0: give a number from 1 to 64"),
                ([self.dev, self.mnt, "-o", "max_threads=1x"],
                 "option max_threads=1x: give a number")):
            with self.subTest(args):
                self.check(args, 1, text)

    def test_no_device(self):
        os.unlink(self.dev)
        self.check([self.dev, self.mnt], 32, re.escape(self.dev) + ": No such"
                   " file or directory: make it")

    def test_no_directory(self):
        os.rmdir(self.mnt)
        self.check([self.dev, self.mnt], 32, "mnt: No such file .*: give an "
                   "existing directory")
        with open(self.mnt, "w"):
            pass
        self.check([self.dev, self.mnt], 32, "mnt: not a directory: give one")

    def test_no_fuse_device(self):
        # In a namespace where /dev/fuse is something that cannot be opened.
        script = ('mount -t tmpfs t "$3" && mknod "$3/none" c 10 254 && '
                  'mount --bind "$3/none" /dev/fuse && umount -l "$3" && '
                  'exec "$0" "$1" "$2"')
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, DAEMON,
                               self.dev, self.mnt, self.dir],
                              capture_output=True, text=True,
                              timeout=SECONDS, check=False)
        self.assertEqual(done.returncode, 32)
        self.assertRegex(done.stderr, "^foliofs: /dev/fuse: .*modprobe.*\n$")
        self.assertEqual(self.device_says(), "")

    def test_user_on_a_directory_of_root(self):
        os.chown(self.dev, 65534, 65534)
        args = dict(user=65534, group=65534, extra_groups=[], cwd="/")
        self.check([self.dev, self.mnt], 32, "mnt: cannot mount: user has no "
                   "write access .*: mount as root", **args)

    def test_user_with_options_of_root(self):
        os.chown(self.mnt, 65534, 65534)
        os.chown(self.dev, 65534, 65534)
        args = dict(user=65534, group=65534, extra_groups=[], cwd="/")
        self.check([self.dev, self.mnt, "-o", "allow_other"], 32,
                   "allow_other only allowed if 'user_allow_other' is set",
                   **args)

    def test_daemon_that_died(self):
        self.mount()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = None
        with self.assertRaises(OSError) as caught:
            os.statvfs(self.mnt)
        self.assertEqual(caught.exception.errno, errno.ENOTCONN)
        done = self.run_daemon(self.dev, self.mnt)
        self.assertEqual(done.returncode, 32)
        self.assertEqual(done.stderr,
                         f"foliofs: {self.mnt}: a mount without its daemon "
                         f"is still here: run umount {self.mnt} first\n")
        subprocess.run(["umount", self.mnt], check=True)
        self.mount()
        self.info()

    def test_daemon_that_dies_early(self):
        done = self.run_daemon(self.dir + "/deadly", self.mnt)
        self.assertEqual(done.returncode, 32)
        self.assertEqual(done.stderr, "foliofs: the daemon ended before the "
                         "mount answered: see what it says with -f\n")

    def test_option_without_argument(self):
        done = self.run_daemon(self.dev, self.mnt, "-o")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^foliofs: flag -o: .*argument.*\n$")

    def test_help_and_version_are_no_error(self):
        done = self.run_daemon("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Usage: foliofs DEVICE DIR", done.stdout)
        done = self.run_daemon("-V")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^foliofs \d+\.\d+\.\d+ ")


class Ends(DaemonTest):
    def test_at_umount(self):
        self.mount()
        subprocess.run(["umount", self.mnt], check=True)
        self.assertEqual(self.wait_exit(), 0)
        self.assertEqual(self.device_says(), "clean")

    def test_at_each_signal(self):
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(sig):
                self.mount()
                os.kill(self.pid, sig)
                self.assertEqual(self.wait_exit(), 0)
                self.assertIsNone(mountinfo(self.mnt))
                self.assertEqual(self.device_says(), "clean")

    def test_when_the_last_file_is_closed(self):
        self.mount()
        fd = self.open("data")
        os.pwrite(fd, b"before", 0)
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: not mountinfo(self.mnt), "still mounted")
        self.assertEqual(os.pread(fd, 6, 0), b"before")
        os.pwrite(fd, b"after!", 0)
        self.assertEqual(os.pread(fd, 6, 0), b"after!")
        self.assertEqual(self.device_says(), "dirty")
        os.close(fd)
        self.assertEqual(self.wait_exit(), 0)
        self.assertEqual(self.device_says(), "clean")

    def test_at_a_second_signal_whatever_waits(self):
        self.mount()
        threads, results, fd = self.sleepers(3)
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: not mountinfo(self.mnt), "still mounted")
        os.kill(self.pid, signal.SIGTERM)
        self.assertEqual(self.wait_exit(), 0)
        for t in threads:
            t.join(SECONDS)
        self.assertEqual(len(results), 3)
        self.assertTrue(set(results) <= {errno.EINTR, errno.ENOTCONN,
                                         errno.ECONNABORTED}, results)
        self.assertEqual(self.device_says(), "clean")
        os.close(fd)

    def test_when_the_connection_is_aborted(self):
        self.mount()
        threads, results, fd = self.sleepers(3)
        subprocess.run(["umount", "-f", self.mnt], check=False,
                       stderr=subprocess.DEVNULL)
        for t in threads:
            t.join(SECONDS)
        self.assertEqual(self.wait_exit(), 0)
        self.assertTrue(set(results) <= {errno.EINTR, errno.ENOTCONN,
                                         errno.ECONNABORTED}, results)
        self.assertEqual(len(results), 3)
        self.assertIsNone(mountinfo(self.mnt))
        self.assertEqual(self.device_says(), "clean")
        os.close(fd)

    def test_and_leaves_a_later_mount_alone(self):
        self.mount()
        fd = self.open("data")
        subprocess.run(["umount", "-l", self.mnt], check=True)
        first, self.pid = self.pid, None
        other = self.dir + "/dev2"
        with open(other, "w"):
            pass
        done = self.run_daemon(other, self.mnt)
        self.assertEqual(done.returncode, 0)
        second = daemon_pid(other)
        os.kill(first, signal.SIGTERM)
        until(lambda: not signal_pending(first), "signal not taken")
        os.kill(first, signal.SIGTERM)
        self.pid = first
        self.assertEqual(self.wait_exit(), 0)
        self.assertIn(other, mountinfo(self.mnt))
        os.close(fd)
        self.pid = second
        os.kill(self.pid, signal.SIGTERM)
        self.assertEqual(self.wait_exit(), 0)


    def test_by_force_with_auto_unmount(self):
        self.mount("auto_unmount")
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = None
        until(lambda: not mountinfo(self.mnt), "still mounted")


class Waiting(DaemonTest):
    def test_200_requests_do_not_stop_others(self):
        self.mount("noallow_other")
        before = nr_receivers(self.pid)
        threads, results, fd = self.sleepers(200)
        self.assertEqual(int(self.info()["sleeping"]), 200)
        self.assertEqual(int(self.info()["waiting"]), 200)
        data = self.open("data")
        for i in range(500):
            os.pwrite(data, b"%04d" % i, 4096 * (i % 100))
            self.assertEqual(os.pread(data, 4, 4096 * (i % 100)), b"%04d" % i)
        self.assertEqual(results, [])
        self.release()
        for t in threads:
            t.join(SECONDS)
        self.assertEqual(results, [b"awake"] * 200)
        until(lambda: nr_receivers(self.pid) == before, "spares stay")
        self.assertEqual(int(self.info()["waiting"]), 0)
        os.close(data)
        os.close(fd)

    def test_few_threads_receive_and_have_names(self):
        self.mount("threads=3")
        until(lambda: nr_receivers(self.pid) == 3, "not three")

    def test_all_seats_can_sleep(self):
        self.mount("threads=3")
        threads, results, fd = self.sleepers(10)
        time.sleep(0.01)  # sleeps are long from 2 ms
        self.info()
        self.assertEqual(nr_receivers(self.pid), 13)
        self.release()
        for t in threads:
            t.join(SECONDS)
        self.assertEqual(results, [b"awake"] * 10)
        os.close(fd)

    def test_signal_gives_eintr(self):
        self.mount()
        fd = self.open("sleep")
        result = []
        signal.signal(signal.SIGUSR1, lambda *_: None)
        t = threading.Thread(target=lambda: result.append(raw_read(fd)))
        t.start()
        until(lambda: self.info()["sleeping"] == "1", "does not sleep")
        LIBC.pthread_kill.argtypes = [ctypes.c_ulong, ctypes.c_int]
        LIBC.pthread_kill(t.ident, signal.SIGUSR1)
        t.join(SECONDS)
        self.assertEqual(result, [errno.EINTR])
        self.assertEqual(self.info()["interrupted"], "1")
        os.close(fd)

    def test_killed_reader_goes(self):
        self.mount()
        child = subprocess.Popen(["cat", self.mnt + "/sleep"])
        until(lambda: self.info()["sleeping"] == "1", "does not sleep")
        child.kill()
        self.assertEqual(child.wait(SECONDS), -signal.SIGKILL)
        until(lambda: self.info()["sleeping"] == "0", "still sleeps")

    def test_uninterruptible_request_does_not_stop_others(self):
        self.mount()
        child = subprocess.Popen(["cat", self.mnt + "/stuck"])
        until(lambda: self.info()["sleeping"] == "1", "does not sleep")
        child.terminate()
        for _ in range(100):
            self.info()
        self.release()
        child.wait(SECONDS)


class Protocol(DaemonTest):
    def flags(self):
        info = self.info()
        return int(info["flags"], 16), int(info["offered"], 16)

    def test_init_gets_what_the_kernel_offers(self):
        self.mount()
        flags, offered = self.flags()
        for flag in (KILLPRIV_V2, SETXATTR_EXT, ALLOW_MMAP, MAX_PAGES):
            self.assertEqual(flags & flag, offered & flag)
        self.assertFalse(flags & ~offered)
        self.assertFalse(flags & AUTO_INVAL_DATA)  # the stub refuses it
        if flags & KILLPRIV_V2:
            self.assertFalse(flags & KILLPRIV)
        if flags >> 32:
            self.assertTrue(flags & INIT_EXT)

    def test_megabyte_writes(self):
        self.mount()
        fd = self.open("data")
        self.assertEqual(os.pwrite(fd, b"\x5a" * (1 << 20), 0), 1 << 20)
        self.assertEqual(os.pread(fd, 1 << 20, 0), b"\x5a" * (1 << 20))
        os.close(fd)

    def test_shared_mapping_with_direct_io(self):
        self.mount()
        if not self.flags()[1] & ALLOW_MMAP:
            self.skipTest("not offered by this kernel")
        fd = self.open("data")
        os.pwrite(fd, b"mapped", 0)
        with mmap.mmap(fd, 4096, mmap.MAP_SHARED) as m:
            self.assertEqual(m[:6], b"mapped")
            m[:6] = b"stored"
            m.flush()
        self.assertEqual(os.pread(fd, 6, 0), b"stored")
        os.close(fd)

    def test_setxattr_is_parsed_with_its_extension(self):
        self.mount()
        os.setxattr(self.mnt + "/data", "user.name", b"value")
        info = self.info()
        self.assertEqual(info["xattr"], "user.name=value")
        self.assertEqual(info["setxattr"], "0")

    def test_write_says_whether_to_kill_suid(self):
        self.mount()
        if not self.flags()[1] & KILLPRIV_V2:
            self.skipTest("not offered by this kernel")
        fd = self.open("data")
        os.write(fd, b"x")
        self.assertEqual(int(self.info()["write"], 16) & 4, 0)
        os.setgid(0)
        pid = os.fork()
        if pid == 0:
            os.setresuid(65534, 65534, 65534)
            os._exit(os.pwrite(fd, b"y", 0) != 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(int(self.info()["write"], 16) & 4, 4)
        os.close(fd)

    def test_tmpfile_arrives(self):
        self.mount()
        fd = os.open(self.mnt, os.O_TMPFILE | os.O_RDWR, 0o600)
        self.assertEqual(os.fstat(fd).st_ino, 7)
        os.close(fd)

    def test_statx_has_btime(self):
        self.mount()
        out = subprocess.run(["stat", "-c", "%W", self.mnt + "/data"],
                             capture_output=True, text=True, check=True,
                             timeout=SECONDS)
        self.assertEqual(out.stdout, "1234567890\n")

    def test_unknown_requests_are_refused(self):
        self.mount()
        with self.assertRaises(OSError) as caught:
            os.symlink("x", self.mnt + "/link")
        self.assertEqual(caught.exception.errno, errno.ENOSYS)


def own_namespace():
    """Mounts that nobody else sees, and a /dev/fuse that users may open."""
    if LIBC.unshare(CLONE_NEWNS) != 0:
        return False
    # What others have mounted must be able to go while we run.
    script = ("mount --make-rprivate / && "
              "umount -l $(findmnt -rn -o FSTYPE,TARGET | "
              "sed -n 's/^fuse[^ ]* //p') 2>/dev/null; mount -t tmpfs t /mnt && "
              "mknod -m 666 /mnt/fuse c 10 229 && "
              "mount --bind /mnt/fuse /dev/fuse && umount -l /mnt")
    return subprocess.run(["sh", "-c", script], check=False).returncode == 0


def main():
    global DAEMON
    DAEMON = os.path.realpath(sys.argv.pop(1))
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        sys.exit(77)
    if not own_namespace():
        sys.exit(77)
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    unittest.main(verbosity=2)


if __name__ == "__main__":
    main()

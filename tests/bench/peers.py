# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filesystems that the benchmark compares, each mounted and unmounted.

Everything lives below one Work: a tmpfs that only this process and its
children see, so that an end of any kind, kill -9 too, takes mounts, loop
devices and files with it.  Daemons die with the process that started them.
"""

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time

LIBC = ctypes.CDLL(None, use_errno=True)
EXAMPLE = '/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c'
MIB = 1 << 20
GIB = 1 << 30
NICE = 0  # of clients and daemons


class Broken(Exception):
    """Something did not work; says what."""


class Missing(Exception):
    """This machine does not have the peer; says why."""


def is_root():
    return os.geteuid() == 0


def call(*argv, timeout=60, **more):
    """Run a program to its end; its output, or Broken with what it said."""
    argv = [str(a) for a in argv]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout,
                              check=False, **more)
    except FileNotFoundError:
        raise Missing(f'{argv[0]} is not installed') from None
    except subprocess.TimeoutExpired:
        raise Broken(f'{" ".join(argv)}: no end in {timeout} s') from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Broken(f'{" ".join(argv)}: exit {done.returncode}: '
                     f'{said[-1] if said else "no message"}')
    return done.stdout


def mount_line(mnt):
    """The last mount on a directory, as in /proc/self/mountinfo, or None."""
    with open('/proc/self/mountinfo', encoding='utf-8') as lines:
        found = [line for line in lines if line.split()[4] == str(mnt)]
    return found[-1] if found else None


def unmount(mnt):
    """Take one mount away, lazily if it is busy for long."""
    tool = ['umount'] if is_root() else ['fusermount3', '-u']
    for _ in range(30):
        if not mount_line(mnt):
            return
        try:
            call(*tool, mnt, timeout=30)
        except Broken:
            time.sleep(0.1)
    while mount_line(mnt):
        call(*tool, '-l' if is_root() else '-z', mnt)


def call_client(*argv, timeout):
    """As call(), for what is measured: scheduled as the daemons are."""
    return call(*argv, timeout=timeout, start_new_session=True,
                preexec_fn=in_child)


def compile_c(source, out):
    """For what ships as source, and for our own parts before a build."""
    flags = call('pkg-config', '--cflags', '--libs', 'fuse3').split()
    call(os.environ.get('CC', 'cc'), '-std=gnu17', '-O2', '-g', '-D_GNU_SOURCE',
         '-D_FILE_OFFSET_BITS=64', source, '-o', out, '-pthread', *flags)


def process_clock(pid):
    """clock_getcpuclockid(3): the processor time of all threads of a pid."""
    return (~pid << 3) | 2


def in_child():
    """Between fork and exec: die with the parent, and be as nice as asked.

    Where the scheduler groups processes by session, the session has a
    niceness too, and it is the one that counts.
    """
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if not NICE:
        return
    os.nice(NICE)
    try:
        with open('/proc/self/autogroup', 'w', encoding='ascii') as f:
            f.write(str(NICE))
    except OSError:
        pass


class Work:
    """A directory for everything, its tools, and the processors to use."""

    def __init__(self, source, build, cpu):
        self.source = source
        self.build = build
        self.cpus = os.sched_getaffinity(0)
        self.cpu = max(self.cpus) if cpu is None else cpu
        self.dir = None

    def __enter__(self):
        resource_raise_files()
        if is_root():
            self.dir = tempfile.mkdtemp(prefix='foliofs-bench.')
            namespace_private()
            call('mount', '-t', 'tmpfs', '-o', 'size=90%', 'foliofs-bench',
                 self.dir)
        else:
            self.dir = tempfile.mkdtemp(prefix='foliofs-bench.',
                                        dir='/dev/shm')
        return self

    def __exit__(self, *exc):
        if is_root():
            # Before the tmpfs itself, in case a peer was left behind.
            with open('/proc/self/mountinfo', encoding='utf-8') as lines:
                inside = [line.split()[4] for line in lines
                          if line.split()[4].startswith(self.dir)]
            for mnt in reversed(inside):
                unmount(mnt)
            os.rmdir(self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def tool(self, *names):
        """A built program, or None."""
        path = os.path.join(self.build, *names)
        return path if os.access(path, os.X_OK) else None

    def own(self, name):
        """A C part of the benchmark, compiled here if it was not built."""
        found = self.tool('tests', 'bench', name)
        if not found:
            found = self.path(name)
            if not os.path.exists(found):
                compile_c(os.path.join(self.source, f'{name}.c'), found)
        return found

    def image(self, name, size):
        path = self.path(name)
        with open(path, 'wb') as f:
            f.truncate(size)
        return path


def namespace_private():
    """Mounts made from here on are nobody else's."""
    ms_rec_private = 0x4000 | 0x40000
    if LIBC.unshare(0x20000) or LIBC.mount(b'none', b'/', None,
                                           ms_rec_private, None):
        raise Broken('cannot make a mount namespace: '
                     + os.strerror(ctypes.get_errno()))


def resource_raise_files():
    """passthrough_ll keeps a descriptor for every file that it met."""
    with open('/proc/sys/fs/nr_open', encoding='ascii') as f:
        most = int(f.read())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (most, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return
        except (ValueError, OSError):
            continue


class Peer:
    """One filesystem, mounted on self.mnt while it is started."""

    def __init__(self, work, name):
        self.work = work
        self.name = name
        self.mnt = work.path('mnt.' + name.replace(':', '-'))
        self.proc = None
        self.started = False
        self.nr_dirs = 0

    @property
    def pid(self):
        return self.proc.pid if self.proc else None

    def mount(self):
        """Make and mount it: for each kind of peer."""
        raise NotImplementedError

    def start(self):
        if self.started:
            return
        os.makedirs(self.mnt, exist_ok=True)
        self.started = True
        try:
            self.mount()
        except (Broken, Missing):
            self.stop()
            raise

    def stop(self):
        if not self.started:
            return
        self.started = False
        unmount(self.mnt)
        self.reap(10)

    def reap(self, seconds):
        """The daemon ends by itself after an unmount, or is ended."""
        proc, self.proc = self.proc, None
        if not proc:
            return
        try:
            proc.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()

    def crash(self):
        """As after kill -9: the dead mount is taken away."""
        self.proc.kill()
        self.reap(10)
        unmount(self.mnt)
        self.started = False

    def spawn(self, argv, timeout=60):
        """Start a daemon in the foreground; back when the mount answers."""
        log = self.work.path('log.' + os.path.basename(self.mnt))
        with open(log, 'w', encoding='utf-8') as out:
            # pylint: disable=subprocess-popen-preexec-fn
            self.proc = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True, preexec_fn=in_child)
        end = time.monotonic() + timeout
        while not mount_line(self.mnt):
            if self.proc.poll() is not None or time.monotonic() > end:
                with open(log, encoding='utf-8') as f:
                    said = f.read().strip().splitlines()
                raise Broken(f'{self.name} did not mount: '
                             + (said[-1] if said else 'no message'))
            time.sleep(0.0005)
        # Whoever mounts first and gets ready later is waited for here.
        call('stat', self.mnt, timeout=timeout)

    def pin(self, cpus):
        """Put every thread of the daemon on these processors."""
        if not self.proc:
            return
        for tid in os.listdir(f'/proc/{self.pid}/task'):
            try:
                os.sched_setaffinity(int(tid), cpus)
            except ProcessLookupError:
                pass

    def settle(self):
        """Wait until the daemon has nothing more to do."""
        if not self.proc:
            return
        clock = process_clock(self.pid)
        before = -1.0
        for _ in range(250):
            now = time.clock_gettime(clock)
            if now - before < 0.0002:
                return
            before = now
            time.sleep(0.02)

    def rss_anon(self):
        """Bytes of anonymous memory of the daemon."""
        with open(f'/proc/{self.pid}/status', encoding='ascii') as f:
            return int(re.search(r'RssAnon:\s+(\d+)', f.read())[1]) * 1024

    def data_dir(self):
        return self.mnt

    def fresh_dir(self):
        """An empty directory for a run over names."""
        self.nr_dirs += 1
        path = os.path.join(self.mnt, f'run{self.nr_dirs}')
        os.mkdir(path)
        return path


class Nulld(Peer):
    """The floor of FUSE, in one cache mode."""

    def __init__(self, work, name, mode, file_size, threads=1):
        super().__init__(work, name)
        self.argv = ['-m', mode, '-t', threads, '-n', 4,
                     '-s', file_size.bit_length() - 1]

    def mount(self):
        self.spawn([self.work.own('nulld'), *self.argv, self.mnt])

    def fresh_dir(self):
        return self.mnt


class PassthroughLl(Peer):
    """libfuse's example on tmpfs, in its fastest configuration here.

    It leaves permissions to nobody; ":checked" has the kernel check them, as
    for every other peer, which asks for the attributes of a directory anew
    after each change in it.
    """

    def mount(self):
        if not os.path.exists(EXAMPLE):
            raise Missing(f'{EXAMPLE} is not there')
        program = self.work.path('passthrough_ll')
        if not os.path.exists(program):
            compile_c(EXAMPLE, program)
        below = self.work.path('below.' + self.name.replace(':', '-'))
        os.makedirs(below, exist_ok=True)
        checked = (',default_permissions' if self.name.endswith(':checked')
                   else '')
        self.spawn([program, '-f', '-s', '-o',
                    f'source={below},cache=always' + checked, self.mnt])


class Fuse2fs(Peer):
    """ext4 in FUSE, on an image on tmpfs."""

    def mount(self):
        if not shutil.which('fuse2fs'):
            raise Missing('fuse2fs is not installed')
        image = self.work.image('img.fuse2fs', 2 * GIB)
        call('mkfs.ext4', '-q', '-F', image)
        self.spawn(['fuse2fs', '-f', image, self.mnt])


class LoopMount(Peer):
    """A filesystem of the kernel, on a loop device over tmpfs."""

    def __init__(self, work, name, size=4 * GIB):
        super().__init__(work, name)
        self.size = size

    def mount(self):
        if not is_root():
            raise Missing('a loop device needs root')
        image = self.work.image('img.' + self.name, self.size)
        force = '-f' if self.name == 'xfs' else '-F'
        call('mkfs.' + self.name, '-q', force, image)
        try:
            call('mount', '-o', 'loop', '-t', self.name, image, self.mnt)
        except Broken as e:
            raise Missing(str(e)) from None


class Tmpfs(Peer):
    """Memory and nothing else."""

    def mount(self):
        pass  # the whole Work is one


class Foliofs(Peer):
    """Ourselves, in one cache mode."""

    def __init__(self, work, name, options, size=4 * GIB):
        super().__init__(work, name)
        self.options = options
        self.size = size
        self.image = None

    @staticmethod
    def programs(work):
        return work.tool('fs', 'foliofs'), work.tool('tools', 'mkfs.foliofs')

    def mount(self):
        _, mkfs = self.programs(self.work)
        self.image = self.work.image(os.path.basename(self.mnt) + '.img',
                                     self.size)
        call(mkfs, self.image)
        self.daemon()

    def daemon(self, timeout=120):
        """Mount the image as it is."""
        self.started = True
        self.spawn([self.programs(self.work)[0], '-f', self.image, self.mnt,
                    '-o', self.options], timeout=timeout)

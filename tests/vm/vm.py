# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine with emulated NVDIMMs, and what it takes to boot one.

The guest runs a Debian kernel.  Its root is the host's, read-only over 9p with
a tmpfs above, so the programs that were built on the host run there as they
are; /out is a directory of the host's that the guest can write to.  What the
guest has to say stands on its serial console.

No machine outlives the process that started it: the kernel kills it.
"""
import ctypes
import glob
import hashlib
import lzma
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
QEMU = "qemu-system-x86_64"
TOOLS = [QEMU, "busybox", "cpio", "depmod", "modprobe", "dpkg", "ndctl",
         "mkfs.xfs", "mkfs.ext4"]
# In the order in which the guest loads them.
BASE = ["virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "overlay"]
EXTRA = ["nfit", "nd_pmem", "dax_pmem", "device_dax", "fuse", "libcrc32c",
         "xfs", "crc32c_generic", "ext4"]
PACKAGE = "linux-image-amd64"
DOWNLOAD_SECONDS = 240


class Missing(Exception):
    """Why there can be no machine here."""


def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.environ.get("FOLIOFS_VM_CACHE",
                          os.path.join(base, "foliofs", "vm"))
    os.makedirs(path, exist_ok=True)
    return path


def said(args, **more):
    return subprocess.run(args, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, **more)


def kernel_package():
    """linux-image-amd64 is empty, and names the one that is not."""
    got = said(["apt-cache", "depends", PACKAGE], timeout=60)
    found = re.search(r"Depends: (linux-image-\S+)", got.stdout)
    return found.group(1) if found else None


def download(cache):
    package = kernel_package()
    if not package:
        raise Missing(f"apt knows no {PACKAGE}; FOLIOFS_VM_KERNEL can name a "
                      "directory with an unpacked kernel package")
    if not glob.glob(os.path.join(cache, package + "_*.deb")):
        try:
            got = said(["apt-get", "-o", "APT::Sandbox::User=root",
                        "download", package],
                       cwd=cache, timeout=DOWNLOAD_SECONDS)
        except subprocess.TimeoutExpired:
            raise Missing(f"apt-get download {package} takes too long") \
                from None
        if got.returncode:
            raise Missing(f"apt-get download {package}: "
                          f"{got.stderr.strip().splitlines()[-1:]}")
    return glob.glob(os.path.join(cache, package + "_*.deb"))[0]


def unpacked_kernel(cache):
    """A directory with boot/vmlinuz-* and lib/modules/*."""
    named = os.environ.get("FOLIOFS_VM_KERNEL")
    if named:
        return named
    found = sorted(glob.glob(os.path.join(cache, "kernel-*")),
                   key=os.path.getmtime)
    if found:
        return found[-1]
    deb = download(cache)
    name = "kernel-" + os.path.basename(deb)[:-len(".deb")]
    partial = os.path.join(cache, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    subprocess.run(["dpkg", "-x", deb, partial], check=True, timeout=120)
    os.rename(partial, os.path.join(cache, name))
    return os.path.join(cache, name)


def with_dependencies(modprobe, name):
    """The files of a module, those that it needs first; [] when built in."""
    got = said(modprobe + ["--show-depends", name], timeout=20)
    return [line.split()[1] for line in got.stdout.splitlines()
            if line.startswith("insmod ")]


class Kernel:
    def __init__(self):
        cache = cache_directory()
        root = unpacked_kernel(cache)
        images = glob.glob(os.path.join(root, "boot", "vmlinu[xz]-*"))
        modules = glob.glob(os.path.join(root, "lib", "modules", "*"))
        if not modules:
            modules = glob.glob(os.path.join(root, "usr/lib/modules/*"))
        if not images or not modules:
            raise Missing(f"no kernel in {root}")
        self.image = images[0]
        self.release = os.path.basename(modules[0])
        self.modules = modules[0]
        self.initrd = os.path.join(cache, f"initrd-{self.release}-"
                                   f"{self.version_of_init()}.cpio")
        if not os.path.exists(self.initrd):
            self.make_initrd(os.path.join(cache, f"initrd.{os.getpid()}"))

    @staticmethod
    def version_of_init():
        with open(os.path.join(HERE, "init"), "rb") as f:
            text = f.read() + " ".join(BASE + EXTRA).encode()
        return hashlib.sha256(text).hexdigest()[:12]

    def modprobe(self, empty):
        root = self.modules[:-len("/lib/modules/" + self.release)]
        if not os.path.exists(os.path.join(self.modules, "modules.dep.bin")):
            said(["depmod", "-b", root, self.release], timeout=120)
        # An empty configuration: ndctl's own would run ndctl for libnvdimm.
        return ["modprobe", "-C", empty, "-d", root, "-S", self.release]

    def copy_modules(self, top):
        empty = os.path.join(top, "empty")
        os.makedirs(empty)
        modprobe = self.modprobe(empty)
        done = set()
        with open(os.path.join(top, "modules/list"), "w",
                  encoding="ascii") as f:
            for name in BASE + EXTRA:
                files = with_dependencies(modprobe, name)
                names = [self.copy_module(top, p, done) for p in files]
                f.write(" ".join([name] + names) + "\n")

    @staticmethod
    def copy_module(top, path, done):
        name = os.path.basename(path)
        if name.endswith(".xz"):
            name = name[:-len(".xz")]
        if name not in done:
            done.add(name)
            opened = lzma.open if path.endswith(".xz") else open
            with opened(path, "rb") as src, \
                    open(os.path.join(top, "modules", name), "wb") as dst:
                shutil.copyfileobj(src, dst)
        return name

    def make_initrd(self, top):
        shutil.rmtree(top, ignore_errors=True)
        for d in ("bin", "modules", "proc", "sys", "dev", "lower", "rw",
                  "new"):
            os.makedirs(os.path.join(top, d))
        shutil.copy(shutil.which("busybox"), os.path.join(top, "bin"))
        shutil.copy(os.path.join(HERE, "init"), os.path.join(top, "init"))
        os.chmod(os.path.join(top, "init"), 0o755)
        self.copy_modules(top)
        subprocess.run(f"find . | cpio -o -H newc --quiet >{self.initrd}.new",
                       shell=True, cwd=top, check=True, timeout=120)
        os.rename(self.initrd + ".new", self.initrd)
        shutil.rmtree(top)


def check_tools():
    gone = [t for t in TOOLS if not shutil.which(t, path=os.environ["PATH"] +
                                                 ":/usr/sbin:/sbin")]
    if gone:
        raise Missing("not installed: " + ", ".join(gone) +
                      " (tools/packages --tests installs them)")
    if os.geteuid():
        raise Missing("needs root, to show the guest the host's files")


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def nvdimm(path, size, nr=1, labels=True):
    """The arguments for one more NVDIMM in a file; NR is its number."""
    label = ",label-size=128K" if labels else ""
    return ["-object", f"memory-backend-file,id=m{nr},share=on,"
            f"mem-path={path},size={size},align=2M",
            "-device", f"nvdimm,id=nv{nr},memdev=m{nr}{label}"]


class Machine:
    """One boot.  Lines of the console arrive in a queue."""

    def __init__(self, kernel, out, script, devices, machine="",
                 memory="1536M", append=""):
        self.lines = queue.Queue()
        self.log = []
        self.script = script
        command = [
            QEMU, "-accel", "tcg,thread=multi",
            "-machine", "q35,nvdimm=on" + machine, "-cpu", "max",
            "-smp", "2", "-m", f"{memory},slots=4,maxmem=16G",
            "-nodefaults", "-display", "none", "-monitor", "none",
            "-serial", "stdio", "-no-reboot", "-device", "virtio-rng-pci",
            "-fsdev", "local,id=h,path=/,security_model=none,readonly=on,"
            "multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=h,mount_tag=hostroot",
            "-fsdev", f"local,id=o,path={out},security_model=none,"
            "multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=o,mount_tag=outdir",
            "-kernel", kernel.image, "-initrd", kernel.initrd,
            "-append", "console=ttyS0 quiet panic=-1 rdinit=/init "
            "mitigations=off nokaslr tsc=reliable oops=panic "
            f"softlockup_panic=1 {append} vmscript={script}",
        ] + devices
        # pylint: disable-next=consider-using-with,subprocess-popen-preexec-fn
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").strip("\r\n")
            self.log.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def until(self, word, deadline):
        """All lines up to one that begins with WORD; None: it never came."""
        got = []
        while True:
            try:
                line = self.lines.get(timeout=max(0.0,
                                                  deadline - time.time()))
            except queue.Empty:
                return None
            if line is None:
                return None
            got.append(line)
            if line.startswith(word):
                return got

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)
        self.reader.join(timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

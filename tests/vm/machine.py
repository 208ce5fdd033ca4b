"""A virtual machine with a kernel of Debian's and this machine's root file system: for what this kernel cannot show.

    python tests/vm/machine.py -- .venv/bin/python -m pytest -q tests/kernel
    python tests/vm/machine.py --processor aarch64 -- python3 -m pytest -q tests/kernel

Its purpose is a pure cgroup v2 host: the kernel command line leaves cgroup v1 out.
The other one is another processor: such a guest gets a root file system of its own (system.py), in which this
checkout is at its place, and its native programs are compiled there, as a person with such a machine would.
The guest sees the host's root read-only by 9p, with a tmpfs on top for what it writes, and an ext4 for /tmp, where
tests make bundles: neither of the others can be id-mapped. It runs one command there as root, in this checkout; its
output comes over the serial line and its exit code is ours.
The kernel comes from a Debian package that apt downloads into a cache (``~/.cache/boxship-vm``); the initramfs is
made here, from the static busybox, a few modules and ``INIT`` below.
The processor is emulated (TCG), because a nested /dev/kvm is often there and of no use;
``BOXSHIP_VM_ACCELERATOR=kvm`` uses it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))  # run as a program

from tests.vm.system import apt, system  # noqa: E402  # after the path to it


class Processor(NamedTuple):
    architecture: str  # in Debian's words
    package: str  # that has its emulator, qemu-system-...
    options: tuple[str, ...]
    cpu: str
    console: str


# By uname's word.
PROCESSORS = {
    "x86_64": Processor("amd64", "qemu-system-x86", ("-machine", "q35"), "max", "ttyS0"),
    # The architecture's own algorithm for pointer authentication takes half of an emulator's time.
    "aarch64": Processor("arm64", "qemu-system-arm", ("-machine", "virt"), "max,pauth-impdef=on", "ttyAMA0"),
}
HERE = os.uname().machine
# With what they depend on; loaded in the order of their dependencies.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk", "crc32c_generic", "ext4")
# Those that tests ask for; without them the machine starts, too.
EXTRA_MODULES = ("loop", "dummy", "veth", "bridge", "fuse", "bfq")
PROGRAMS = (("busybox", "busybox-static"), ("dpkg-deb", "dpkg"), ("mkfs.ext4", "e2fsprogs"))
MARK = "boxship-vm exit code:"
MEGABYTES = 2048
DISK = 8 << 30  # bytes of /tmp; of what the guest writes, no more is used here
EMULATED = "tcg,thread=multi"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /host /top /root
/bin/busybox mount -t proc proc /proc
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod /modules/$module || echo "insmod $module"
done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host &&
/bin/busybox mount -t tmpfs tmpfs /top && /bin/busybox mkdir /top/upper /top/work &&
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work overlay /root ||
    { echo "no root file system"; /bin/busybox poweroff -f; }
cd /root
for directory in proc sys dev tmp run var/tmp root; do /bin/busybox mkdir -p $directory; done
/bin/busybox mount -t proc proc proc
/bin/busybox mount -t sysfs sysfs sys
/bin/busybox mount -t devtmpfs devtmpfs dev
/bin/busybox mkdir -p dev/pts dev/shm dev/mqueue
/bin/busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
for directory in run dev/shm; do /bin/busybox mount -t tmpfs tmpfs $directory; done
/bin/busybox mount -t ext4 dev/vda tmp || { echo "no /tmp"; /bin/busybox poweroff -f; }
/bin/busybox chmod 1777 tmp dev/shm
path=/root$(/bin/busybox cat /checkout)
/bin/busybox mkdir -p /source /top/written /top/work2 "$path"
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 tree /source &&
/bin/busybox mount -t overlay -o lowerdir=/source,upperdir=/top/written,workdir=/top/work2 overlay "$path" ||
    { echo "no checkout"; /bin/busybox poweroff -f; }
/bin/busybox ln -sf /proc/self/fd dev/fd
/bin/busybox grep -q cgroup_no_v1 proc/cmdline && /bin/busybox mount -t cgroup2 cgroup2 sys/fs/cgroup
/bin/busybox rm -f .dockerenv # else systemd takes itself for a container, and does not read the kernel's options
/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox hostname boxship-vm
/bin/busybox cp /command /bin/busybox run/
# Not chroot: nobody who is in one may make a user namespace, and setns would lead back to where we are now.
if [ -e /service ]; then
    /bin/busybox umount sys/fs/cgroup 2>/dev/null
    /bin/busybox mkdir -p run/systemd/system
    /bin/busybox cp /service run/systemd/system/boxship-test.service
    exec /bin/busybox switch_root /root /lib/systemd/systemd --unit=boxship-test.service --show-status=no
fi
exec /bin/busybox switch_root /root /run/busybox sh /run/command
"""

# With ``--systemd`` that is process 1, and the command a service of it.
SERVICE = """\
[Unit]
DefaultDependencies=no
Requires=dbus.service
After=dbus.service
[Service]
Type=oneshot
ExecStart=/run/busybox sh /run/command
StandardOutput=tty
StandardError=tty
TTYPath=/dev/{console}
TimeoutStartSec=infinity
Delegate=yes
"""

# In a root of its own, before the command: the loader's cache, by which libraries are found; the native programs.
PREPARE = "ldconfig && python3 hatch_build.py && "


class MachineError(Exception):
    """The machine cannot be made or started here; the text says what is missing."""


def cache() -> Path:
    path = Path(os.environ.get("BOXSHIP_VM_CACHE") or Path.home() / ".cache/boxship-vm")
    path.mkdir(parents=True, exist_ok=True)
    return path


def missing(machine: str = HERE) -> str:
    """What keeps a machine with such a processor from being started here, or ""."""
    if machine not in PROCESSORS:
        return f"no guest of {machine} is described"
    for program, package in (*PROGRAMS, (f"qemu-system-{machine}", PROCESSORS[machine].package)):
        if not shutil.which(program):
            return f"{program} is not installed (apt install {package})"
    return ""


def kernel(machine: str = HERE) -> tuple[Path, Path]:
    """(kernel image, its directory of modules); downloaded at the first call."""
    own, architecture = cache() / ("" if machine == HERE else machine), PROCESSORS[machine].architecture
    unpacked, name = own / "kernel", f"linux-image-{architecture}"
    if not list(unpacked.glob("boot/vmlinuz-*")):
        environment = None if machine == HERE else apt(own / "apt", architecture)
        depends = ["apt-cache", "depends", name]
        text = subprocess.run(depends, capture_output=True, text=True, check=True, env=environment).stdout
        names = [line.split()[-1] for line in text.splitlines() if "Depends: linux-image-" in line]
        if not names:
            raise MachineError(f"apt knows no {name}: run apt-get update")
        with tempfile.TemporaryDirectory(dir=cache()) as directory:
            download = ["apt-get", "-q", "download", names[0]]
            subprocess.run(download, cwd=directory, check=True, stdout=subprocess.DEVNULL, env=environment)
            (package,) = Path(directory).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
    (image,) = unpacked.glob("boot/vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    modules = unpacked / "lib/modules" / release
    if not (modules / "modules.dep").exists():
        subprocess.run(["busybox", "depmod", "-b", str(unpacked), release], check=True)
    return image, modules


def _with_dependencies(directory: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Module files in an order in which each finds what it needs (modules.dep(5))."""
    needs = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        file, _, rest = line.partition(":")
        needs[Path(file).name.split(".ko")[0].replace("-", "_")] = [file, *rest.split()]
    found: list[str] = []
    built_in = (directory / "modules.builtin").read_text()
    for name in wanted:
        if name not in needs and (name in EXTRA_MODULES or f"/{name}.ko" in built_in):
            continue
        for file in reversed(needs[name]):
            if file not in found:
                found.append(file)
    return [directory / file for file in found]


def _cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the format "newc" (kernel: early-userspace/buffer-format.rst)."""
    out = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initramfs(modules: Path, busybox: Path, command: str, *, service: str = "") -> bytes:
    """The first file system: busybox, modules, INIT, and the command for later."""
    directory, program, text = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(("bin", "modules", "dev"), (directory, b""))
    files["bin/busybox"] = (program, busybox.read_bytes())
    files["init"] = (program, INIT.encode())
    files["command"] = (program, command.encode())
    files["checkout"] = (text, str(CHECKOUT).encode())
    if service:
        files["service"] = (text, service.encode())
    order = _with_dependencies(modules, MODULES + EXTRA_MODULES)
    for file in order:
        files[f"modules/{file.name}"] = (text, file.read_bytes())
    files["modules/order"] = (text, " ".join(file.name for file in order).encode())
    return gzip.compress(_cpio(files), 1)


def run(
    command: list[str],
    *,
    timeout: float = 1800,
    memory: int = MEGABYTES,
    kernel_options: str = "",
    systemd: bool = False,
    hybrid: bool = False,
    machine: str = HERE,
) -> int:
    """Run ``command`` in a fresh machine, its output on ours; its exit code, or 125 when the machine failed.

    With ``systemd`` that is process 1 there, and the command one of its services; with ``hybrid`` too it mounts v1
    hierarchies, and v2 beside them.

    Raises MachineError when there can be no machine here.
    """
    if reason := missing(machine):
        raise MachineError(reason)
    foreign, processor = machine != HERE, PROCESSORS[machine]
    image, modules = kernel(machine)
    root = system(cache() / machine, processor.architecture, machine) if foreign else Path("/")
    busybox = root / "bin/busybox" if foreign else Path(shutil.which("busybox") or "")
    environment = {"PATH": os.environ.get("PATH", PATH), "HOME": "/root", "LANG": "C.UTF-8", "BOXSHIP_VM": "1"}
    prepare = ""
    if foreign:
        environment |= {"PATH": PATH, "PYTHONPATH": str(CHECKOUT / "src"), "BOXSHIP_PATIENCE": "10"}
        prepare = PREPARE
    words = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    script = f"cd {shlex.quote(str(CHECKOUT))} && {prepare}/usr/bin/env -i {words} {shlex.join(command)}\n"
    script += f'echo "{MARK} $?"\n/run/busybox poweroff -f\n'
    cgroups = "systemd.unified_cgroup_hierarchy=0" if hybrid else "cgroup_no_v1=all"
    append = f"console={processor.console} quiet loglevel=3 panic=-1 swapaccount=1 {cgroups} {kernel_options}".strip()
    accelerator = EMULATED if foreign else os.environ.get("BOXSHIP_VM_ACCELERATOR", EMULATED)
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory, "initramfs")
        disk = Path(directory, "disk")
        with disk.open("wb") as file:
            file.truncate(DISK)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(disk)], check=True)
        service = SERVICE.format(console=processor.console) if systemd else ""
        archive.write_bytes(initramfs(modules, busybox, script, service=service))
        arguments = [
            f"qemu-system-{machine}", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            *processor.options, "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else processor.cpu,
            "-smp", str(os.cpu_count() or 1), "-m", str(memory),
            "-kernel", str(image), "-initrd", str(archive),
            "-append", append, "-serial", "stdio",
            "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe",
            *_shared("host", root), *_shared("tree", CHECKOUT),
        ]  # fmt: skip
        emulator = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            return _follow(emulator, timeout)
        finally:
            emulator.kill()
            emulator.wait()


def _shared(tag: str, directory: Path) -> list[str]:
    """Options for a directory that the guest mounts by its tag."""
    backend = f"local,id={tag},path={directory},security_model=passthrough,readonly=on,multidevs=remap"
    return ["-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _follow(machine: subprocess.Popen[bytes], timeout: float) -> int:
    """Copy the serial line to our output; the exit code that it ends with."""
    import threading

    watchdog = threading.Timer(timeout, machine.kill)
    watchdog.start()
    code = 125
    assert machine.stdout is not None
    try:
        for raw in machine.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            before, mark, number = line.partition(MARK)
            if mark:
                code = int(number)
                line = before
            if line or not mark:
                print(line, flush=True)
    finally:
        watchdog.cancel()
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command in a virtual machine with cgroup v2 only.")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds until it is given up")
    parser.add_argument("--memory", type=int, default=MEGABYTES, help="megabytes")
    parser.add_argument("--kernel-options", default="", help="added to the kernel's command line")
    parser.add_argument("--hybrid", action="store_true", help="with --systemd: cgroup v1 hierarchies, v2 beside them")
    parser.add_argument("--processor", default=HERE, choices=sorted(PROCESSORS), help="that it has")
    parser.add_argument("--systemd", action="store_true", help="run it as a service of systemd")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    try:
        return run(
            arguments.command,
            timeout=arguments.timeout,
            memory=arguments.memory,
            kernel_options=arguments.kernel_options,
            systemd=arguments.systemd or arguments.hybrid,
            hybrid=arguments.hybrid,
            machine=arguments.processor,
        )
    except (MachineError, subprocess.CalledProcessError) as error:
        print(f"no virtual machine: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())

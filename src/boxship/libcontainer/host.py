"""Facts of this host that plans depend on, read once.

A plan is made from a spec and a ``Host``; a test makes a Host by hand and gets the same plan on any machine.
"""

import os

from boxship.libcontainer import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.libcontainer.cgroups import Layout


class Host:
    """What the compiler may know about the machine.

    ``kernel`` is (major, minor); ``last_capability`` the highest capability number of the kernel;
    ``capabilities`` the mask of effective capabilities of this process; ``user`` its effective uid;
    ``limits`` the hard limits by resource number, -1 for none; ``oom_score_adj`` the inherited value;
    ``apparmor`` and ``selinux`` whether that security module is on.
    """

    __slots__ = (
        "_initial",
        "_kinds",
        "_limits",
        "_modules",
        "_pid",
        "capabilities",
        "cgroups",
        "kernel",
        "last_capability",
        "oom_score_adj",
        "user",
    )

    def __init__(
        self,
        *,
        kernel: "tuple[int, int]",
        last_capability: int,
        capabilities: int,
        user: int,
        cgroups: "Layout",
        limits: "dict[int, int] | None" = None,
        oom_score_adj: int = 0,
        modules: "tuple[bool, bool] | None" = None,
    ) -> None:
        self.kernel = kernel
        self.last_capability = last_capability
        self.capabilities = capabilities
        self.user = user
        self.cgroups = cgroups
        self._limits = limits
        self.oom_score_adj = oom_score_adj
        self._modules = modules
        self._kinds: dict[str, str] = {}
        self._pid: int | str = "self"
        self._initial: bool | None = None

    def seen_by(self, pid: int, cgroups: "Layout", oom_score_adj: int) -> "Host":
        """The same host for a process of the same privileges: where it is in the cgroups, and what it inherits."""
        found = Host(
            kernel=self.kernel,
            last_capability=self.last_capability,
            capabilities=self.capabilities,
            user=self.user,
            cgroups=cgroups,
            oom_score_adj=oom_score_adj,
            modules=self._modules,
        )
        found._kinds = self._kinds
        found._pid = pid
        found._initial = self._initial
        return found

    # Few containers ask for these: they are looked up when one does.

    @property
    def limits(self) -> "dict[int, int]":
        if self._limits is None:
            self._limits = _limits(self._pid)
        return self._limits

    @property
    def apparmor(self) -> bool:
        return self._security_modules()[0]

    @property
    def selinux(self) -> bool:
        return self._security_modules()[1]

    @property
    def initial_user_namespace(self) -> bool:
        """Whether our user namespace is the first one, where every id is mapped to itself (user_namespaces(7))."""
        if self._initial is None:
            self._initial = _read("/proc/self/uid_map", "").split() == ["0", "0", "4294967295"]
        return self._initial

    def _security_modules(self) -> "tuple[bool, bool]":
        if self._modules is None:
            apparmor = _read("/sys/module/apparmor/parameters/enabled", "N").startswith("Y")
            self._modules = (apparmor, os.path.exists("/sys/fs/selinux/enforce"))
        return self._modules

    def may(self, capability: int) -> bool:
        """Whether this process has the capability."""
        return bool(self.capabilities >> capability & 1)

    def same_namespace(self, path: str, file: str) -> bool:
        """Whether ``path`` is our own namespace, the one that /proc/self/ns/FILE is."""
        try:
            ours, theirs = os.stat("/proc/self/ns/" + file), os.stat(path)
        except OSError:
            return False  # the step that opens it says why
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)

    def groups(self) -> "list[int]":
        """Our supplementary groups."""
        for line in _read(f"/proc/{self._pid}/status", "").splitlines():
            if line.startswith("Groups:"):
                return [int(group) for group in line[7:].split()]
        return []

    def environment(self) -> "list[str]":
        """Our own environment: that of hooks which have none."""
        return [f"{name}={value}" for name, value in os.environ.items()]

    def network_device(self, name: str) -> "tuple[int, list[tuple[int, int, bytes]]]":
        """(index, permanent addresses) of a network device; raises NotFound."""
        from .netdevices import describe

        return describe(name)

    def link_target(self, path: str) -> str:
        """What the link at a path of the host says, "" when it is none."""
        try:
            return os.readlink(path)
        except OSError:
            return ""  # not a link, or nothing: what is there is looked at when it is opened

    def path_kind(self, path: str, *, follow: bool = True) -> str:
        """What is at a path of the host: "file" (anything but a directory), "directory", or "" for nothing."""
        try:
            mode = os.stat(path, follow_symlinks=follow).st_mode
        except OSError:
            return ""
        return "directory" if mode & 0o170000 == 0o040000 else "file"

    def mounts_of(self, *types: str) -> "list[str]":
        """Where file systems of these types are mounted, as this process sees it (proc_pid_mountinfo(5))."""
        found = []
        with open(f"/proc/{self._pid}/mountinfo") as f:
            for line in f:
                left, _, right = line.partition(" - ")
                if right.partition(" ")[0] in types:
                    point = left.split(" ")[4]
                    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                        point = point.replace(escaped, plain)
                    found.append(point)
        return found

    def kernel_path_kind(self, path: str) -> str:
        """The same for one of the kernel's own files in /proc and /sys, which do not come and go: looked up once."""
        kind = self._kinds.get(path)
        if kind is None:
            kind = self._kinds[path] = self.path_kind(path)
        return kind


def _read(path: str, default: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 65536).decode()
        finally:
            os.close(fd)
    except OSError:
        return default  # a kernel without that file: the caller's default says what follows


def _limits(pid: "int | str") -> "dict[int, int]":
    """A process's hard limits by number, from /proc/PID/limits; unlimited ones are left out."""
    order = (
        "Max cpu time,Max file size,Max data size,Max stack size,Max core file size,Max resident set,Max processes,"
        "Max open files,Max locked memory,Max address space,Max file locks,Max pending signals,Max msgqueue size,"
        "Max nice priority,Max realtime priority,Max realtime timeout"
    ).split(",")
    limits = {}
    for line in _read(f"/proc/{pid}/limits", "").splitlines()[1:]:
        name, values = line[:26].rstrip(), line[26:].split()
        if name in order and len(values) > 1 and values[1].isdigit():
            limits[order.index(name)] = int(values[1])
    return limits


def detect() -> Host:
    """The running host, as seen by this process."""
    major, _, rest = os.uname().release.partition(".")
    minor = rest.split(".")[0].split("-")[0]
    capabilities = 0
    for line in _read("/proc/self/status", "").splitlines():
        if line.startswith("CapEff:"):
            capabilities = int(line[7:], 16)
    return Host(
        kernel=(int(major), int(minor) if minor.isdigit() else 0),
        last_capability=int(_read("/proc/sys/kernel/cap_last_cap", "40")),
        capabilities=capabilities,
        user=os.geteuid(),
        cgroups=cgroups.detect(),
        oom_score_adj=int(_read("/proc/self/oom_score_adj", "0")),
    )


_host: "Host | None" = None


def host() -> Host:
    """The running host, detected once for each process."""
    global _host
    if _host is None:
        _host = detect()
    return _host

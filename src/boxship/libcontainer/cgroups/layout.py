"""Where this host keeps its cgroups: v1 hierarchies, the v2 unified one, or both (hybrid).

Read from two small files, ``/proc/self/mountinfo`` and ``/proc/self/cgroup``, whose texts can be handed in:
a test describes a host by two strings and a temporary directory.
See cgroups(7), and proc_pid_mountinfo(5) for the fields.
"""

# v1 hierarchies that hold no resource, but that processes are expected to be in, by the name in /proc/self/cgroup.
NAMED = ("name=systemd",)

V1_CONTROLLERS = (
    "cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids",
    "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc",
)  # fmt: skip


class Layout:
    """The cgroup mounts of a host.

    ``mode`` is ``"v1"``, ``"v2"``, ``"hybrid"`` (v1 hierarchies carry the resources, v2 is mounted beside them)
    or ``"none"``.
    ``v1`` maps each controller (and ``name=systemd``) to the directory its hierarchy is mounted on;
    ``unified`` is the v2 mount point or "".
    ``own`` maps the same keys (and "" for v2) to the calling process's cgroup, relative to the mount point.
    """

    __slots__ = ("mode", "own", "unified", "v1")

    def __init__(self, mode: str, v1: "dict[str, str]", unified: str, own: "dict[str, str]") -> None:
        self.mode = mode
        self.v1 = v1
        self.unified = unified
        self.own = own


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo (space, tab, newline, backslash)."""
    if "\\" not in field:
        return field
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, char)
    return field


def _relative(path: str, root: str) -> str:
    """A cgroup path as seen from a mount whose root is ``root`` (not "/" inside a cgroup namespace or bind)."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path.strip("/")


def parse(mountinfo: str, cgroup: str) -> Layout:
    """The layout that the two files' texts describe; the first mount of a hierarchy counts."""
    v1: dict[str, str] = {}
    roots: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        if " - cgroup" not in line:
            continue
        left, right = line.split(" - ", 1)
        fields = left.split(" ")
        kind, _, super_options = right.split(" ", 2)
        point, root = _unescape(fields[4]), _unescape(fields[3])
        if kind == "cgroup2" and not unified:
            unified = point
            roots[""] = root
        elif kind == "cgroup":
            for option in super_options.split(","):
                if (option in V1_CONTROLLERS or option in NAMED) and option not in v1:
                    v1[option] = point
                    roots[option] = root
    own: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in roots:
                own[name] = _relative(path, roots[name])
    resources = [name for name in v1 if name not in NAMED]
    mode = "hybrid" if resources and unified else "v1" if resources else "v2" if unified else "none"
    return Layout(mode, v1, unified, own)


def detect() -> Layout:
    """The layout of the running host."""
    with open("/proc/self/mountinfo") as f:
        mountinfo = f.read()
    with open("/proc/self/cgroup") as f:
        return parse(mountinfo, f.read())

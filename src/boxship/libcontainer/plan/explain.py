"""Plans as text: each operation as the system call that it is, and what a failure most likely means."""

from errno import EACCES, EBUSY, EINVAL, ENOENT, ENOSYS, ENOTDIR, EPERM, EROFS
from os import O_DIRECTORY, O_NOFOLLOW, O_PATH

from .ops import CWD, STDIO, Op, SetMountAttributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.libcontainer.compile import Plan

# (operation, errno): what to do about it.
_REMEDIES = {
    ("MakeMount", "ENODEV"): "this kernel has no such file system",
    ("MakeMount", "EINVAL"): "the file system does not know one of the options, or refuses its value",
    ("MakeMount", "EPERM"): "a user namespace may mount proc and sysfs only where the host's are fully visible",
    ("OpenTree", "ENOENT"): "the path does not exist on the host",
    ("OpenTree", "EACCES"): "this user may not reach that path",
    ("MoveMount", "ENOTDIR"): "source and destination must both be directories, or both files",
    ("ChDir", "ENOENT"): "make that directory in the image, or choose another working directory",
    ("Clone", "ENOSPC"): "a limit in /proc/sys/user is reached",
    ("Clone", "EPERM"): "root, or a kernel that lets users make user namespaces, is needed",
    ("Clone", "EAGAIN"): "a limit on the number of processes is reached",
    ("Clone", "EINVAL"): "this kernel lacks one of the namespaces",
    ("Write", "EACCES"): "the cgroup belongs to somebody else",
    ("Write", "ENOSPC"): "the cpuset of that cgroup is empty",
    ("Write", "EAGAIN"): "the cgroup's pids limit leaves no room",
    ("SetNs", "EINVAL"): "it is a namespace of another kind, or the user namespace that we are in",
    ("SetIds", "EINVAL"): "that id is not mapped in the user namespace",
    ("SetGroups", "EINVAL"): "a group id is not mapped in the user namespace",
    ("WriteFile", "ENOENT"): "this kernel or namespace has no such setting",
    ("WriteFile", "EINVAL"): "the kernel refuses that value",
    ("Seccomp", "EINVAL"): "the kernel refuses the filter or one of its flags",
    ("Mknod", "EPERM"): "device nodes cannot be made here: mknod needs CAP_MKNOD in the initial user namespace",
    ("PivotRoot", "EINVAL"): "on an initramfs use --no-pivot",
    ("Exec", "ENOENT"): "the program's interpreter or dynamic loader is missing in the image",
    ("Exec", "ENOEXEC"): "the program is not for this machine's architecture, or a script without #!",
    ("Hook", "ECHILD"): "the hook exited with an error",
    ("Hook", "ETIME"): "the hook ran into its timeout",
    ("Netlink", "EEXIST"): "a network device of that name is there already",
    ("Scheduler", "EPERM"): "a real-time policy needs CAP_SYS_NICE, and on cgroup v1 cpu.realtimeRuntime",
    ("CheckRoot", "EXDEV"): "something was mounted over the container's root meanwhile",
    ("WriteProc", "EXDEV"): "/proc of the container is not the kernel's, or something is mounted over that file",
    ("WriteProc", "ENOENT"): "this kernel or namespace has no such setting, or the container has no /proc",
    ("WriteProc", "EINVAL"): "the kernel refuses that value",
    (
        "CheckFile",
        "EXDEV",
    ): "it must be mounted on ordinary directory; the image has something else there",
    ("OpenTarget", "EXDEV"): "a link in the image leads into /proc: nothing may be mounted there",
    ("OpenTerminal", "EXDEV"): "/dev/pts of the container is no devpts",
    ("OpenTarget", "ELOOP"): "a link on the way is a magic link of /proc, or there are too many",
    ("SetMountAttributes", "EPERM"): "that file system cannot be id-mapped here, or its mount is locked",
    ("Rlimit", "EPERM"): "a higher hard limit needs CAP_SYS_RESOURCE",
}
_GENERAL = {
    EPERM: "root, or one more capability, is needed",
    EACCES: "check the permissions on the path",
    ENOSYS: "this kernel is too old: Linux 5.12 or newer is needed",
    EROFS: "the image is read-only and lacks that path: add it to the image",
    EBUSY: "something else is using it",
    ENOENT: "the path does not exist",
    ENOTDIR: "a part of the path is not a directory",
    EINVAL: "the kernel refuses one of the options",
}


def remedy(op: Op, number: int) -> str:
    """What a person may do about this errno of this operation; "" when we do not know."""
    from errno import errorcode

    if isinstance(op, SetMountAttributes) and op.userns >= 0 and number == EINVAL:
        return "this kernel cannot map the ids of that file system (a tmpfs: since Linux 6.3, an overlay: 5.19)"
    return _REMEDIES.get((op.NAME, errorcode.get(number, "")), _GENERAL.get(number, ""))


def _slot(value: int) -> str:
    if value == CWD:
        return "AT_FDCWD"
    if value in STDIO:
        return str(STDIO.index(value))
    return f"fd[{value}]" if value >= 0 else "-1"


def _value(kind: str, value: object) -> str:
    if kind == "Slot":
        return _slot(int(str(value)))
    if kind == "Flags":
        return f"{int(str(value)):#x}" if value else "0"
    if kind == "Bytes":
        assert isinstance(value, bytes)
        return f"<{len(value)} bytes>"
    if kind == "Texts":
        assert isinstance(value, (list, tuple))
        return "[" + ", ".join(_quote(text) for text in value) + "]"
    return _quote(value) if isinstance(value, str) else str(value)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


# The system call of each operation, with {field} in the order of the call; one without a row is shown by name.
CALLS = {
    "ResetSignals": "rt_sigaction(1..64, SIG_DFL); rt_sigprocmask(SIG_SETMASK, [])",
    "Prctl": "prctl({option:prctl}, {a}, {b}, {c})",
    "Umask": "umask({mask:o})",
    "SetSession": "setsid()",
    "JoinSessionKeyring": "keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name})",
    "Personality": "personality({persona})",
    "Rlimit": "prlimit64(0, {resource}, soft={soft}, hard={hard})",
    "Scheduler": "sched_setattr(0, {attributes})",
    "IoPriority": "ioprio_set(IOPRIO_WHO_PROCESS, 0, {priority})",
    "Affinity": "sched_setaffinity(0, {mask})",
    "MemoryPolicy": "set_mempolicy({mode}, {nodes}, {bits})",
    "Clone": "clone3(CLONE_PARENT | {flags:clone}, cgroup={cgroup}) // the plan goes on in the child",
    "Unshare": "unshare({flags:clone})",
    "SetNs": "setns({slot}, {flags:clone})",
    "UserNamespace": "{into} = openat2(/proc/PID/ns/user) of clone3(CLONE_NEWUSER) with {uids}, {gids}",
    "Netlink": "sendto(socket(AF_NETLINK), {request})",
    "SetHostname": "sethostname({name})",
    "SetDomainname": "setdomainname({name})",
    "LoopbackUp": 'ioctl(SIOCSIFFLAGS, "lo", IFF_UP | IFF_RUNNING)',
    "Await": "// wait: {name}",
    "KeepText": "// keep the text",
    "SendHandle": "sendmsg(SCM_RIGHTS [{slot}])",
    "Hook": "clone(); chdir({cwd}); execve({path}, {argv}, {env}); wait4()",
    "Open": "{into} = openat2({dir}, {path}, flags={flags:open}, resolve={resolve:resolve}, mode={mode:o})",
    "Close": "close({slot})",
    "CloseOthers": "close_range(all but the slots up to {last})",
    "Write": "write({slot}, {data})",
    "WriteFile": "write(openat2({dir}, {path}, O_WRONLY), {data})",
    "WriteProc": 'write(openat2(openat2({root}, "/proc"), {path}, RESOLVE_BENEATH | RESOLVE_NO_XDEV), {data})',
    "OpenTarget": "{into} = openat2({dir}, {path}, O_PATH, RESOLVE_IN_ROOT) // {make:target} where missing",
    "CheckFile": "fstat({slot}) // must be {type:filetype}, device {device:dev}",
    "Mkdir": "mkdirat({dir}, {path}, {mode:o})",
    "Mknod": "mknodat({dir}, {path}, {mode:o}, {device:dev})",
    "Symlink": "symlinkat({target}, {dir}, {path})",
    "Unlink": "unlinkat({dir}, {path}, {flags})",
    "Chown": "fchownat({dir}, {path}, {uid}, {gid}, {flags})",
    "Chmod": "fchmodat({dir}, {path}, {mode:o})",
    "Duplicate": "dup3({slot}, {number})",
    "MoveHandle": "{into} = {slot}",
    "MakeMount": "{into} = fsmount(fsopen({type}) with {options:pairs}, {attributes:attr}){like:like}",
    "OpenTree": "{into} = open_tree({dir}, {path}, {flags:tree})",
    "MoveMount": 'move_mount({slot}, "", {dir}, {path}, {flags:move})',
    "SetMountAttributes": "mount_setattr({dir}, {path}, {flags:tree}, "
    "set={set:attr}, clear={clear:attr}, propagation={propagation:propagation}{userns:userns})",
    "Mount": "mount({source}, {target}, {type}, {flags}, {data})",
    "Unmount": "umount2({path}, {flags:umount})",
    "Mask": "move_mount({null}, or an empty tmpfs for a directory, openat2({root}, {path}, O_PATH, RESOLVE_IN_ROOT))",
    "CopyUp": "{slot} gets a copy of what is in {dir}",
    "FchDir": "fchdir({slot})",
    "ChDir": "chdir({path})",
    "CheckCwd": "getcwd() // must be inside",
    "CheckRoot": 'statx("/"), statx("/..") // must be the same mount',
    "PivotRoot": "pivot_root({new}, {old})",
    "ChRoot": "chroot({path})",
    "OpenTerminal": "{master} = openat2({dir}, {path}, O_RDWR | O_NOCTTY); "
    "{slave} = ioctl({master}, TIOCGPTPEER); ioctl({master}, TIOCSWINSZ, {columns}x{rows})",
    "ControllingTerminal": "ioctl({slot}, TIOCSCTTY); dup3({slot}, 0..2)",
    "BoundingSet": "prctl(PR_CAPBSET_DROP, all up to {last} but {keep:caps})",
    "CapSet": "capset(effective={effective:caps}, permitted={permitted:caps}, inheritable={inheritable:caps})",
    "AmbientSet": "prctl(PR_CAP_AMBIENT, {raised:caps})",
    "SetGroups": "setgroups({groups:groups})",
    "SetIds": "setresgid({gid}); setresuid({uid})",
    "Seccomp": "seccomp(SECCOMP_SET_MODE_FILTER, {flags}, {filter:filter})",
    "SeccompNotify": "seccomp(SECCOMP_SET_MODE_FILTER, {flags}, {filter:filter}) "
    "// a thread sends its listener to {agent}",
    "FindProgram": "faccessat2({candidates}, X_OK) // the first that may be executed",
    "Exec": "execve(it, {argv}, {env})",
}

_TARGETS = ("", " (a link is not followed)", " (not in /proc)", " (a link is not followed; not in /proc)")
_TYPES = {0o020000: "a character device", 0o040000: "a directory", 0o100000: "a regular file"}
_PRCTL = {4: "PR_SET_DUMPABLE", 8: "PR_SET_KEEPCAPS", 38: "PR_SET_NO_NEW_PRIVS"}
_BITS = {
    "clone": {
        0x20000: "CLONE_NEWNS", 0x2000000: "CLONE_NEWCGROUP", 0x4000000: "CLONE_NEWUTS", 0x8000000: "CLONE_NEWIPC",
        0x10000000: "CLONE_NEWUSER", 0x20000000: "CLONE_NEWPID", 0x40000000: "CLONE_NEWNET", 0x80: "CLONE_NEWTIME",
        0x100: "CLONE_VM",
    },
    "open": {1: "O_WRONLY", 2: "O_RDWR", O_DIRECTORY: "O_DIRECTORY", O_NOFOLLOW: "O_NOFOLLOW", O_PATH: "O_PATH"},
    "resolve": {0x10: "RESOLVE_IN_ROOT"},
    "attr": {
        0x70: "MOUNT_ATTR__ATIME",
        1: "MOUNT_ATTR_RDONLY", 2: "MOUNT_ATTR_NOSUID", 4: "MOUNT_ATTR_NODEV", 8: "MOUNT_ATTR_NOEXEC",
        0x10: "MOUNT_ATTR_NOATIME", 0x20: "MOUNT_ATTR_STRICTATIME", 0x80: "MOUNT_ATTR_NODIRATIME",
        0x100000: "MOUNT_ATTR_IDMAP", 0x200000: "MOUNT_ATTR_NOSYMFOLLOW",
    },
    "tree": {1: "OPEN_TREE_CLONE", 0x100: "AT_SYMLINK_NOFOLLOW", 0x1000: "AT_EMPTY_PATH", 0x8000: "AT_RECURSIVE"},
    "umount": {2: "MNT_DETACH"},
    "move": {4: "MOVE_MOUNT_F_EMPTY_PATH", 0x40: "MOVE_MOUNT_T_EMPTY_PATH"},
    "propagation": {1 << 17: "MS_UNBINDABLE", 1 << 18: "MS_PRIVATE", 1 << 19: "MS_SLAVE", 1 << 20: "MS_SHARED"},
}  # fmt: skip


def _bits(kind: str, value: int) -> str:
    names = []
    for bits, name in _BITS[kind].items():  # those of several bits come first
        if value & bits == bits:
            names.append(name)
            value &= ~bits
    return " | ".join(names + ([f"{value:#x}"] if value else [])) or "0"


def _special(style: str, value: object) -> str:
    if isinstance(value, (list, tuple)):
        pairs = zip(value[::2], value[1::2], strict=True)
        return "[" + ", ".join(f"{key}={text}" if text else str(key) for key, text in pairs) + "]"
    if isinstance(value, bytes):
        if style == "groups":
            return str([int.from_bytes(value[i : i + 4], "little") for i in range(0, len(value), 4)])
        return f"<{len(value) // 8} instructions>"
    number = int(str(value))
    if style == "like":
        return f" // with the mode of {_slot(number)}" if number != -1 else ""
    if style == "userns":
        return f", userns={_slot(number)}" if number != -1 else ""
    if style == "target":
        return ("mkdirat, mknodat" if number & 1 else "mkdirat") + _TARGETS[number >> 1 & 3]
    if style == "filetype":
        return _TYPES.get(number, "any file")
    if style == "o":
        return f"0{number:o}" if number else "0"
    if style == "prctl":
        return _PRCTL.get(number, str(number))
    if style == "dev":
        return f"{number >> 8}:{number & 255}" if number else "0"
    if style == "caps":
        from boxship.linux.abi.process import CAPABILITIES

        names = [name for name, bit in CAPABILITIES.items() if number >> bit & 1]
        return "{" + " ".join(names) + "}"
    return _bits(style, number)


def call(op: Op) -> str:
    """One operation as a system call."""
    template = CALLS[op.NAME]
    values = dict(zip(op.FIELDS, zip(op.WIRE, op.args, strict=True), strict=True))
    text, at = "", 0
    while True:
        start = template.find("{", at)
        if start < 0:
            text += template[at:]
            break
        end = template.index("}", start)
        name, _, style = template[start + 1 : end].partition(":")
        kind, value = values[name]
        text += template[at:start] + (_special(style, value) if style else _value(kind, value))
        at = end + 1
    if op.tolerate:
        from errno import errorcode

        text += "  // " + " and ".join(errorcode.get(n, str(n)) for n in op.tolerate) + " tolerated"
    return text


def _cause(op: Op, number: int) -> "list[str]":
    """Under a step that failed: what the kernel said, and what may be done about it."""
    import os
    from errno import errorcode

    what = remedy(op, number)
    lines = [f"{'>>>':>4}  {errorcode.get(number, str(number))}: {os.strerror(number).lower()}"]
    return [*lines, f"{'>>>':>4}  likely: {what}"] if what else lines


def explain(plan: "Plan", failed: "tuple[int, int] | None" = None) -> str:
    """The whole plan: a heading for each purpose, and under it the system calls with their step numbers.

    ``failed`` is a step, from one, and the errno that it ended with: it is marked, with the cause and the remedy.
    """
    lines = []
    starts = dict(plan.purposes)
    headings: dict[int, list[str]] = {}
    for index, text in plan.purposes:
        headings.setdefault(index, []).append(text)
    for index, op in enumerate(plan.ops):
        if index in starts:
            lines.append(f"\n# {headings[index][-1]}")
        if failed is not None and failed[0] == index + 1:
            lines += [f"{'>>>':>4}  step {index + 1} failed:", f"{index + 1:4}  {call(op)}", *_cause(op, failed[1])]
        else:
            lines.append(f"{index + 1:4}  {call(op)}")
    lines += [f"\nnote: {note}" for note in plan.notes]
    return "\n".join(lines).lstrip("\n") + "\n"

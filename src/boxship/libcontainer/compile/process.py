"""The container's process: who it is, what it may do, and what it runs.

Used for init and for exec alike.
The order matters: the working directory and the credentials first, the program is looked up as the user who runs
it, and the seccomp filter is loaded last, so that it need not allow what only the runtime does.
"""

from _struct import pack
from errno import EBADF, EINVAL, ENOSYS, EPERM, EROFS

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import (
    CWD,
    STDIO,
    AmbientSet,
    Await,
    BoundingSet,
    CapSet,
    ChDir,
    CheckCwd,
    Chown,
    ControllingTerminal,
    Duplicate,
    Exec,
    FindProgram,
    JoinSessionKeyring,
    KeepText,
    OpenTarget,
    Prctl,
    Seccomp,
    SeccompNotify,
    SetGroups,
    SetIds,
    Umask,
    WriteProc,
)
from boxship.linux.abi.mount import AT_EMPTY_PATH
from boxship.linux.abi.process import (
    CAP_SYS_ADMIN,
    CAPABILITIES,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
)

from . import environment
from .context import Context, clean

DEFAULT_HOME = "/"
# crun's, too: a profile that names calls nobody knows is refused, not taken without them.
FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"
SECCOMP_AGENT = "seccomp-agent"
NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER
# crun's annotation, used by podman's --group-add keep-groups.
KEEP_GROUPS = "run.oci.keep_original_groups"


def check(c: Context) -> None:
    """What must be there (runtime-spec, Process)."""
    args = c.process.get("args")
    if not args:
        raise InvalidArgument("process.args is empty: there is no command to run")
    cwd = c.process.get("cwd") or ""
    if not cwd.startswith("/"):
        raise InvalidArgument(f"process.cwd must be an absolute path, not {cwd!r}")


def make_cwd(c: Context) -> None:
    """The working directory is made when the image lacks it, as every runtime does."""
    path = clean(c.process.get("cwd") or "/")
    if path:
        c.purpose(f"make the working directory /{path}")
        c.add(OpenTarget(c.scratch, c.root, path))


def session_keyring(c: Context) -> None:
    """A keyring of its own: the creator's would be shared by all of its containers."""
    if c.request.new_keyring:
        c.purpose("join a new session keyring")
        c.add(JoinSessionKeyring("_ses." + c.request.id, tolerate=(ENOSYS, EPERM)))


def capability_mask(c: Context, kind: str) -> int:
    """The mask of one of the five sets; a name that this kernel does not know is dropped with a note."""
    mask = 0
    # In a user namespace of its own the first process has all; else nothing that we have not can be given.
    ours = -1 if c.userns else c.host.capabilities
    for name in (c.process.get("capabilities") or {}).get(kind) or ():
        number = CAPABILITIES.get(name)
        if number is None or number > c.host.last_capability:
            text = f"process.capabilities: this kernel does not know {name}"
            if text not in c.plan.notes:
                c.note(text)
            continue
        if not ours >> number & 1:
            text = f"process.capabilities: {name} cannot be given, we do not have it"
            if text not in c.plan.notes:
                c.note(text)
            continue
        mask |= 1 << number
    return mask


def credentials(c: Context) -> None:
    """Capabilities, groups, ids; afterwards the process is the user's."""
    user = c.process.get("user") or {}
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    for descriptor in c.request.stdio_owners:
        # So that the user may open /dev/stdout again; a descriptor that cannot be given away stays as it is.
        c.add(Chown(STDIO[descriptor], "", uid, -1, AT_EMPTY_PATH, tolerate=(EPERM, EROFS)))
    if c.slave >= 0:
        c.purpose("take the terminal")
        c.add(ControllingTerminal(c.slave))
    cwd = c.process.get("cwd") or "/"
    c.purpose(f"enter the working directory {cwd}")
    c.add(ChDir(cwd))
    c.add(CheckCwd())
    last = c.host.last_capability
    c.seccomp = _seccomp(c)
    c.no_new_privileges = bool(c.process.get("noNewPrivileges"))
    c.purpose("drop capabilities")  # a process that names none has none, as with other runtimes
    c.add(BoundingSet(capability_mask(c, "bounding"), last))
    c.purpose(f"become user {uid}, group {gid}")
    c.add(Prctl(PR_SET_KEEPCAPS, 1))
    groups = user.get("additionalGids") or ()
    if (c.spec.get("annotations") or {}).get(KEEP_GROUPS) in ("1", "true"):
        groups = c.host_now.groups()
    # Without privileges only a user namespace with setgroups denied is possible: then there is nothing to set.
    refused = () if c.privileged or groups else (EPERM,)
    c.add(SetGroups(pack(f"<{len(groups)}I", *groups), tolerate=refused))
    c.add(SetIds(uid, gid))
    c.add(Prctl(PR_SET_KEEPCAPS, 0))
    c.add(Umask(user.get("umask", 0o022)))
    permitted, inheritable = capability_mask(c, "permitted"), capability_mask(c, "inheritable")
    effective = capability_mask(c, "effective")
    c.purpose("set capabilities")
    c.final_capabilities = (effective, permitted, inheritable)
    extra = 0
    if c.seccomp and not c.no_new_privileges and not effective >> CAP_SYS_ADMIN & 1:
        extra = 1 << CAP_SYS_ADMIN  # seccomp(2) needs it, or no_new_privs; dropped right after
    c.add(CapSet(effective | extra, permitted | extra, inheritable))
    # capabilities(7): only what is both permitted and inheritable can be ambient; the rest of the list is moot.
    wanted = capability_mask(c, "ambient")
    ambient = wanted & permitted & inheritable
    for name in c.process["capabilities"]["ambient"] if wanted != ambient else ():
        if name in CAPABILITIES and not ambient >> CAPABILITIES[name] & 1:
            c.note(f"can't raise ambient capability {name}: it is not both permitted and inheritable")
    c.add(AmbientSet(ambient, last, tolerate=(EINVAL,)))
    if not extra:
        c.final_capabilities = None


def meet_seccomp_agent(c: Context) -> None:
    """A filter with a listener: the creator connects to the agent, and says whose listener that will be."""
    if c.seccomp and c.seccomp[0] & NEW_LISTENER:
        c.agent = c.slot()
        c.purpose(f"connect to the seccomp agent {c.linux['seccomp']['listenerPath']}")
        c.add(Await(SECCOMP_AGENT, c.agent))
        c.add(KeepText())


def _seccomp(c: Context) -> "tuple[int, bytes] | None":
    profile = c.linux.get("seccomp")
    if not profile:
        return None
    from boxship.libcontainer import seccomp

    if (c.spec.get("annotations") or {}).get(FAIL_UNKNOWN) in ("1", "true"):
        from boxship.libcontainer.seccomp.compiler import check_names

        check_names(profile)
    compiled = seccomp.compile(profile, c.request.cache)
    return (compiled.flags, compiled.program) if compiled.program else None


def security_labels(c: Context) -> None:
    """The AppArmor profile or SELinux label of the program; only where that module is on."""
    profile = c.process.get("apparmorProfile")
    if profile and c.host.apparmor:
        c.purpose(f"set the AppArmor profile {profile}")
        c.add(WriteProc(CWD, "thread-self/attr/exec", "exec " + profile))
    elif profile and profile != "unconfined":
        c.note(f"process.apparmorProfile {profile!r}: AppArmor is not on")
    label = c.process.get("selinuxLabel")
    if label and c.host.selinux:
        c.purpose(f"set the SELinux label {label}")
        c.add(WriteProc(CWD, "thread-self/attr/exec", label))


def find_program(c: Context) -> None:
    """args[0], by the PATH of process.env, as the user who is to run it."""
    name = c.process["args"][0]
    c.purpose(f"find {name}")
    if "/" in name:
        c.add(FindProgram([name]))
        return
    path = ""
    for variable in c.process.get("env") or ():
        if variable.startswith("PATH="):
            path = variable[5:]
    directories = [directory or "." for directory in path.split(":")] if path else []
    c.add(FindProgram([directory.rstrip("/") + "/" + name for directory in directories]))


def variables(c: Context) -> "list[str]":
    """process.env as the program gets it, with HOME where it has none."""
    given = c.process.get("env") or ()
    env = environment.prepare(given)
    if not environment.has_home(given):
        env.append("HOME=" + (c.request.home or DEFAULT_HOME))
    return env


def load_filter(c: Context) -> None:
    """no_new_privs, the filter, and the last capability, which only loading it has needed."""
    if c.no_new_privileges:
        c.purpose("set no_new_privs")
        c.add(Prctl(PR_SET_NO_NEW_PRIVS, 1))
    if c.seccomp:
        c.purpose("load the seccomp filter")
        flags, program = c.seccomp
        if flags & NEW_LISTENER:
            c.add(SeccompNotify(flags, program, c.agent))
        else:
            c.add(Seccomp(flags, program))
        if c.final_capabilities:
            c.add(CapSet(*c.final_capabilities))


def hand_on(c: Context) -> None:
    """The descriptors that the program shall have besides the standard streams."""
    for n in range(c.request.preserve_fds):
        c.add(Duplicate(c.preserved + n, 3 + n, tolerate=(EBADF,)))


def execute(c: Context) -> None:
    """The program, in its environment."""
    c.purpose(f"execute {c.process['args'][0]}")
    c.add(Exec(list(c.process["args"]), variables(c)))

"""``boxship-runc explain`` says the system calls that strace(1) then sees the executor make, in that order.

What is compared of each call: its name, its texts, the names of its flags, and which handle it uses (a slot of the
plan is followed to the descriptor that the call which filled it has returned).
What is left out: how the executor talks to its creator, its own memory, closing what it has used.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.bundle_fixture import PATIENCE, Bundle, needs_root, new_bundle

RUNTIME = Path(sys.executable).parent / "boxship-runc"
pytestmark = [needs_root, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]

# The control socket, memory, time, and closing: not what a plan is about.
BOOKKEEPING = (
    "recvmsg recvfrom sendmsg accept4 ppoll sched_yield clock_gettime mmap munmap close fcntl rt_sigaction read kill "
    "wait4"
).split()
CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+|\?)(?: (\w+))?")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
WORD = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
IGNORED = re.compile(r".*_CLOEXEC$|^O_RDONLY$|^S_I|^CLONE_PARENT$|^RESOLVE_NO_MAGICLINKS$|^O_NOFOLLOW$|^MSG_")


class Call:
    """One line of strace."""

    def __init__(self, line: str) -> None:
        match = CALL.match(line)
        assert match, line
        self.line = line
        self.name, self.arguments = match[1], match[2]
        self.result = int(match[3]) if match[3].lstrip("-").isdigit() else 0  # else "?", or an address
        self.error = match[4] if self.result < 0 else ""
        self.texts = TEXT.findall(self.arguments)
        self.words = {word for word in WORD.findall(TEXT.sub("", self.arguments)) if not IGNORED.match(word)}

    def first(self) -> str:
        return self.arguments.split(",")[0].strip()


def seen_by_strace(directory: Path, command: "list[str]") -> "list[Call]":
    """The executor's calls, from its first process into the container's."""
    environment = {**os.environ, "BOXSHIP_PLAN_SERVER": ""}
    prefix = directory / "trace"
    run = ["strace", "-qq", "-ff", "-v", "-s", "70000", "-e", "signal=none", "-o", str(prefix), *command]
    null = subprocess.DEVNULL  # other streams may get another owner, which depends on whose they are
    limit = 60 * PATIENCE
    done = subprocess.run(run, env=environment, stdin=null, stdout=null, stderr=null, timeout=limit, check=False)
    assert done.returncode == 0
    texts = {path.name.rpartition(".")[2]: path.read_text() for path in directory.glob("trace.*")}
    # Hooks of the creator are started by an executor too; that of the container begins by being untraceable.
    stage = next(text for text in texts.values() if '["boxship-executor"]' in text and "PR_SET_DUMPABLE" in text)
    lines = stage.splitlines()
    lines = lines[next(n for n, line in enumerate(lines) if '["boxship-executor"]' in line) + 1 :]
    calls = [Call(line) for line in lines if not line.startswith("exit_group")]
    child = next(call for call in calls if call.name == "clone3" and "CLONE_PARENT" in call.arguments)
    for line in texts[str(child.result)].splitlines():
        calls.append(Call(line))
        if calls[-1].name == "execve":
            break
    # The executor's own first steps: its control socket out of the way, nothing else inherited.
    start = next(n for n, call in enumerate(calls) if call.name == "prctl")
    return [call for call in calls[start:] if call.name not in BOOKKEEPING]


class Comparison:
    """Walks through both lists at once."""

    def __init__(self, calls: "list[Call]") -> None:
        self.calls = calls
        self.at = 0
        self.handles: dict[str, int] = {}
        self.line = ""

    def peek(self) -> Call:
        assert self.at < len(self.calls), f"explained, but never called: {self.line}"
        return self.calls[self.at]

    def take(self, name: str, *texts: str, words: "set[str] | None" = None, slot: str = "") -> Call:
        call = self.peek()
        here = f"\nexplained: {self.line}\ncalled:    {call.line[:600]}"
        assert call.name == name, here
        if texts:
            assert tuple(call.texts[: len(texts)]) == texts, here
        if words is not None:
            assert call.words == words, f"{here}\n{sorted(call.words ^ words)}"
        if slot and slot in self.handles and call.error != "EBADF":
            assert call.first() == str(self.handles[slot]), f"{here}\n{slot} is {self.handles[slot]}"
        self.at += 1
        return call

    def maybe(self, name: str, condition: "Callable[[Call], bool]" = lambda _: True) -> bool:
        if self.at < len(self.calls) and self.calls[self.at].name == name and condition(self.calls[self.at]):
            self.at += 1
            return True
        return False

    # ── Operations that are more than one call ──

    def _fsmount(self, slot: str, text: str) -> None:
        type, pairs, attributes = re.match(r'fsmount\(fsopen\("(\w+)"\) with \[(.*)\], ([^)]*)\)', text).groups()  # type: ignore[union-attr]
        self.take("fsopen", type)
        if "with the mode of" in text and self.maybe("newfstatat"):
            self.take("fsconfig", "mode")
        for pair in pairs.split(", ") if pairs else []:
            key, equals, value = pair.partition("=")
            self.take("fsconfig", *((key, value) if equals else (key,)))
        self.take("fsconfig", words={"FSCONFIG_CMD_CREATE"})
        self.fill(slot, self.take("fsmount", words=set(WORD.findall(attributes))))

    def _target(self, slot: str, text: str) -> None:
        (path,) = TEXT.findall(text.partition("//")[0])
        name = path.rpartition("/")[2]
        call = self.take("openat2", path or ".", slot=text[text.index("(") + 1 : text.index(",")])
        while call.error == "ENOENT" or call.texts[0].rpartition("/")[2] != (name or "."):
            call = self.take(self.peek().name)
            assert call.name in ("openat2", "mkdirat", "mknodat", "readlinkat"), call.line
            if call.name != "openat2":
                call.error = "ENOENT"  # only an open ends the walk
        self.fill(slot, call)
        self.maybe("fstatfs")

    def _mask(self, text: str) -> None:
        (path,) = TEXT.findall(text)
        if self.take("openat2", path).error:
            return
        self.take("newfstatat")
        if not self.maybe("open_tree"):
            self.take("fsopen", "tmpfs")
            while self.maybe("fsconfig"):
                continue
            self.take("fsmount")
        self.take("move_mount")

    def _terminal(self, text: str) -> None:
        master, slave = re.match(r"(\S+) = openat2.*; (\S+) = ioctl", text).groups()  # type: ignore[union-attr]
        self.fill(master, self.take("openat2", "dev/pts/ptmx"))
        self.take("newfstatat")
        self.take("fstatfs")
        assert "TIOCSPTLCK" in self.take("ioctl").arguments
        self.fill(slave, self.take("ioctl"))
        while self.maybe("ioctl", lambda call: "TCSETS" in call.line or "TCGETS" in call.line):
            continue
        self.maybe("ioctl", lambda call: "TIOCSWINSZ" in call.line)

    def fill(self, slot: str, call: Call) -> None:
        if call.result >= 0:
            self.handles[slot] = call.result
        else:
            self.handles.pop(slot, None)

    # ── One line of explain ──

    def step(self, line: str) -> None:
        self.line = line
        text = re.sub(r"^\s*\d+  ", "", line)
        slot, equals, rest = text.partition(" = ")
        slot = slot if equals and re.fullmatch(r"fd\[\d+\]", slot) else ""
        body = rest if slot else text
        name = re.match(r"[a-z0-9_]*", body)[0]  # type: ignore[index]
        if body.startswith("//"):
            return
        if slot and re.fullmatch(r"fd\[\d+\]", body):
            self.handles[slot] = self.handles.pop(body)
            return
        if name == "rt_sigaction":
            self.take("rt_sigprocmask")
        elif name == "fsmount":
            self._fsmount(slot, body)
        elif name == "openat2" and "where missing" in body:
            self._target(slot, body)
        elif name == "openat2" and "TIOCGPTPEER" in body:
            self._terminal(text)
        elif body.startswith("openat2(/proc/PID/ns/user)"):
            self.take("clone3", words={"CLONE_NEWUSER"})
            for _ in range(2):
                self.take("openat2")
                self.take("write")
            self.fill(slot, self.take("openat2"))
        elif name == "move_mount" and "or an empty tmpfs" in body:
            self._mask(body)
        elif name == "fstat":
            self.take("newfstatat", "", slot=body[6 : body.index(")")])
        elif body.startswith("ioctl(SIOCSIFFLAGS"):
            self.take("socket")
            assert "SIOCSIFFLAGS" in self.take("ioctl", "lo", words={"IFF_UP", "IFF_RUNNING"}).arguments
        elif body.startswith("ioctl(fd") and "TIOCSCTTY" in body:
            self.take("ioctl")
            for _ in range(3):
                self.take("dup3")
        elif body.startswith("write(openat2("):
            path, data = TEXT.findall(body)[-2:]
            if '"/proc"' in body:
                self.take("openat2", "/proc")
                self.take("newfstatat")
                self.take("fstatfs")
            self.take("openat2", path)
            self.take("write", data)
        elif body.startswith("prctl(PR_CAPBSET_DROP"):
            kept = set(re.search(r"\{(.*)\}", body)[1].split())  # type: ignore[index]
            dropped = set()
            while self.peek().name == "prctl" and "PR_CAPBSET_DROP" in self.peek().line:
                dropped |= self.take("prctl").words - {"PR_CAPBSET_DROP"}
            assert not kept & dropped
            assert dropped
        elif body.startswith("prctl(PR_CAP_AMBIENT"):
            raised = set(re.search(r"\{(.*)\}", body)[1].split())  # type: ignore[index]
            self.take("prctl", words={"PR_CAP_AMBIENT", "PR_CAP_AMBIENT_CLEAR_ALL"})
            for _ in raised:
                assert self.take("prctl").words - {"PR_CAP_AMBIENT", "PR_CAP_AMBIENT_RAISE"} <= raised
        elif name == "statx":
            self.take("statx", "/")
            self.take("statx", "/..")
        elif name == "setresgid":
            self.take("setresgid")
            self.take("setresuid")
        elif name == "faccessat2":
            for candidate in TEXT.findall(body):
                if self.take("newfstatat", candidate).error:
                    continue
                if not self.take("faccessat2", candidate).error:
                    break
        elif name == "close_range":
            self.take("close_range")
            while self.maybe("close_range"):
                continue
        elif name == "seccomp":
            count = int(re.search(r"<(\d+) instructions>", body)[1])  # type: ignore[index]
            assert f"len={count}" in self.take("seccomp").arguments
        elif name == "execve":
            call = self.take("execve")
            assert call.texts[1:] == TEXT.findall(body), self.line
        elif name == "clone":  # a hook
            for _ in range(2):
                self.take("pipe2")
            self.take("clone")
            self.take("write")
        else:
            self._plain(slot, name, body)

    def _plain(self, slot: str, name: str, body: str) -> None:
        """One call, as it is written."""
        text = body.partition("  //")[0].partition(" //")[0]
        words = {word for word in WORD.findall(TEXT.sub("", text)) if not IGNORED.match(word)}
        if name == "clone3" and "cgroup=fd" in text:
            words.add("CLONE_INTO_CGROUP")  # cgroup v2; without a handle there is no such flag
        compared = words if name in ("open_tree", "move_mount", "clone3", "unshare", "setns", "umount2") else None
        used = re.match(r"\w+\((fd\[\d+\])", text)
        call = self.take(name, *TEXT.findall(text), words=compared, slot=used[1] if used else "")
        if name == "mount_setattr":
            # The three bits for access times have names of their own and one together.
            without_times = [{word for word in each if "ATIME" not in word} for each in (words, call.words)]
            assert without_times[0] == without_times[1], f"{self.line}\n{call.line}"
        if name == "mknodat":
            mode, device = re.search(r", (\d+), (\S+)\)$", text).groups()  # type: ignore[union-attr]
            assert f"|0{int(mode, 8) & 0o7777:o}" in call.arguments, f"{self.line}\n{call.line}"
            if ":" in device:
                major, minor = (int(n) for n in device.split(":"))
                numbers = re.search(r"makedev\((\w+), (\w+)\)", call.arguments).groups()  # type: ignore[union-attr]
                assert [int(n, 0) for n in numbers] == [major, minor]
        if slot:
            self.fill(slot, call)

    def end(self) -> None:
        rest = [call.line[:200] for call in self.calls[self.at :]]
        assert not rest, f"called, but not explained: {rest}"


# ── Twenty bundles ──


def _mounts(*entries: "dict[str, Any]") -> "Callable[[Bundle], None]":
    def prepare(bundle: Bundle) -> None:
        (bundle.path / "data").mkdir()
        (bundle.path / "file").touch()
        for entry in entries:
            bundle.spec["mounts"].append(json.loads(json.dumps(entry).replace("@", str(bundle.path))))

    return prepare


def _linux(**settings: Any) -> "Callable[[Bundle], None]":
    return lambda bundle: bundle.spec["linux"].update(settings)


def _process(**settings: Any) -> "Callable[[Bundle], None]":
    return lambda bundle: bundle.spec["process"].update(settings)


def _namespace(kind: str, **settings: Any) -> "Callable[[Bundle], None]":
    def prepare(bundle: Bundle) -> None:
        bundle.spec["linux"]["namespaces"].append({"type": kind})
        bundle.spec["linux"].update(settings)
        if kind == "user":
            bundle.path.chmod(0o755)
            os.chown(bundle.path / "rootfs", 100000, 100000)

    return prepare


def _shared(*kinds: str) -> "Callable[[Bundle], None]":
    def prepare(bundle: Bundle) -> None:
        linux = bundle.spec["linux"]
        linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] not in kinds]

    return prepare


def _few(bundle: Bundle) -> None:
    bundle.spec["mounts"] = []
    bundle.spec["linux"] = {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
    bundle.spec["hostname"] = ""


def _read_only(bundle: Bundle) -> None:
    bundle.spec["root"]["readonly"] = True
    for name in ("proc", "dev", "sys"):
        (bundle.path / "rootfs" / name).mkdir()


def _hooks(bundle: Bundle) -> None:
    hook = {"path": "/bin/true", "args": ["true", "x"], "env": ["A=b"]}
    bundle.spec["hooks"] = {"createContainer": [hook], "createRuntime": [hook]}


def _image_with_links(bundle: Bundle) -> None:
    (bundle.path / "rootfs/srv").mkdir()
    (bundle.path / "rootfs/data").symlink_to("/srv")
    bundle.spec["mounts"].append({"destination": "/data/deep/er", "type": "tmpfs", "source": "tmpfs"})


SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]
MAPS: "dict[str, Any]" = {"uidMappings": MAP, "gidMappings": MAP}
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}
BUNDLES: "dict[str, Callable[[Bundle], None]]" = {
    "as spec writes it": lambda _: None,
    "hardly anything": _few,
    "read-only root": _read_only,
    "shared cgroups and network": _shared("cgroup", "network"),
    "time namespace": _namespace("time", timeOffsets={"monotonic": {"secs": 5}}),
    "user namespace": _namespace("user", **MAPS),
    "bind mounts": _mounts(
        {"destination": "/d", "type": "bind", "source": "@/data", "options": ["rbind", "rro", "nosuid"]},
        {"destination": "/f", "type": "bind", "source": "@/file", "options": ["bind", "ro", "rslave"]},
    ),
    "id-mapped mount": _mounts({"destination": "/d", "source": "@/data", "options": ["bind", "idmap"], **MAPS}),
    "tmpfs": _mounts({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro", "size=1m", "noatime"]}),
    "mount on a link": _image_with_links,
    "devices": _linux(devices=[{"path": "/dev/x/y", "type": "c", "major": 1, "minor": 5, "uid": 3, "gid": 4}]),
    "sysctls": _linux(sysctl={"net.ipv4.ip_forward": "1", "kernel.shmmax": "65536"}),
    "shared propagation": _linux(rootfsPropagation="shared"),
    "private propagation": _linux(rootfsPropagation="rprivate"),
    "no masks": _linux(maskedPaths=[], readonlyPaths=[]),
    "seccomp": _linux(seccomp=SECCOMP),
    "another user": _process(user={"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o77}, noNewPrivileges=True),
    "limits": _process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}], oomScoreAdj=100),
    "scheduling": _process(scheduler={"policy": "SCHED_BATCH"}, ioPriority={"class": "IOPRIO_CLASS_BE"}),
    "hooks": _hooks,
    "memory policy": _linux(memoryPolicy={"mode": "MPOL_LOCAL"}, personality={"domain": "LINUX"}),
    "working directory": _process(cwd="/made/for/it"),
    "capabilities": _process(capabilities={kind: ["CAP_KILL", "CAP_CHOWN"] for kind in SETS}),
}


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


@pytest.mark.parametrize("name", BUNDLES)
def test_explain_equals_strace(bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle.spec["process"]["args"] = ["/bin/true"]
    BUNDLES[name](bundle)
    (bundle.path / "config.json").write_text(json.dumps(bundle.spec))
    command = [str(RUNTIME), "--root", bundle.root]
    explained = subprocess.run([*command, "explain", str(bundle.path)], capture_output=True, text=True, check=False)
    assert explained.returncode == 0, explained.stderr
    calls = seen_by_strace(tmp_path, [*command, "run", "-b", str(bundle.path), bundle.path.name])
    comparison = Comparison(calls)
    steps = [line for line in explained.stdout.splitlines() if re.match(r"\s*\d+  ", line)]
    for line in steps:
        comparison.step(line)
    comparison.end()
    assert len(steps) > 20

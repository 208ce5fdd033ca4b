"""Kills the runtime, or its executor, at every step that has an effect, and looks at what is left: a program.

    python -m tests.kernel.kill_everywhere BUNDLE [VERB ...]

For each of create, start, exec and delete, ``strace`` first lists the system calls of the runtime that change
something, and then lets a SIGKILL come at each of them in turn, instead of the call.
The executor's own steps are system calls that only it makes; they get theirs with ``-f``.
Nothing of this is in the runtime: it does not know that it is watched.

After each death: a process that still lives must be a container's with a state file; one ``delete --force`` must then
remove everything: processes, cgroups, mounts, state.
One JSON object a case is printed; ``wrong`` is empty when all is well.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

RUNTIME = str(Path(sys.executable).with_name("boxship-runc"))
PR_SET_CHILD_SUBREAPER = 36
# Calls of the runtime itself that change something outside of it, or wait for somebody.
OURS = (
    "mkdir rename unlink rmdir openat write sendmsg sendto recvmsg recvfrom vfork clone clone3 kill "
    "pidfd_send_signal pidfd_open wait4 waitid bind connect socketpair memfd_create sched_setaffinity poll"
).split()
# Calls that only the executor makes.
EXECUTORS = (
    "clone3 unshare setns openat2 open_tree move_mount fsopen fsconfig fsmount mount_setattr mknodat mkdirat "
    "symlinkat fchownat fchmodat pivot_root umount2 sethostname setsid setresuid setresgid setgroups capset seccomp "
    "fchdir chdir"
).split()
# What is left to the executor once it is told to start; the last of it is the exec, the calls behind that are the
# program's.
AFTER_START = "accept4 prlimit64 prctl capset seccomp close_range execve write recvmsg read".split()
VERBS = ("create", "start", "exec", "delete")
ID = "victim"


class Case(NamedTuple):
    verb: str
    who: str
    call: str
    nth: int


class Machine:
    """The runtime on one bundle and state root, this process being the parent of whoever loses his."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self.root = bundle + "/state"
        self.trace = bundle + "/trace"
        self.tracers: list[int] = []
        self.attached_tracer = 0
        self.started_process = 0
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def command(self, verb: str) -> list[str]:
        words = {
            "create": ["create", "--bundle", self.bundle, ID],
            "start": ["start", ID],
            "exec": ["exec", "-d", ID, "sleep", "100"],
            "delete": ["delete", "--force", ID],
            "state": ["state", ID],
        }[verb]
        return [RUNTIME, "--root", self.root, *words]

    def run(self, verb: str, *before: str, check: bool = False) -> int:
        # A container keeps its creator's streams, so nothing may wait for their end.
        with open(self.bundle + "/output", "wb") as output:
            running = subprocess.Popen([*before, *self.command(verb)], stdout=output, stderr=output)
        # Meanwhile we are a parent who reaps: a pid namespace ends only when everybody in it has been reaped.
        while (code := running.poll()) is None:
            self.orphans(besides=running.pid)
            time.sleep(0.002)
        for pid in self.tracers:
            if pid != self.attached_tracer:
                os.kill(pid, signal.SIGTERM)  # it lets go of whom it follows
        if check and code:
            raise AssertionError(f"{verb}: {Path(self.bundle, 'output').read_text()}")
        return code

    def prepare(self, verb: str) -> None:
        """What has to be there before a verb."""
        for earlier in {"start": ["create"], "exec": ["create", "start"], "delete": ["create", "start"]}.get(
            verb, []
        ):
            self.run(earlier, check=True)

    def strace(self, who: str, output: str = "/dev/null") -> list[str]:
        """With -D strace is beside the runtime, whose end we see ourselves, and not above it."""
        return ["strace", "-D", "-qq", *(["-f"] if who == "executor" else []), "-o", output]

    @contextmanager
    def attached(self, *options: str) -> Iterator[None]:
        """Strace follows the created container, which is nobody's child that we start."""
        pid = json.loads(Path(f"{self.root}/{ID}/state.json").read_text())["pid"]
        tracer = subprocess.Popen(["strace", "-qq", "-p", str(pid), *options], stderr=subprocess.DEVNULL)
        self.attached_tracer = tracer.pid
        self.started_process = pid
        try:
            deadline = time.monotonic() + 10
            while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.002)
            yield
        finally:
            tracer.terminate()
            tracer.wait()
            self.attached_tracer = self.started_process = 0

    # ── What is left ──

    def orphans(self, besides: int = 0) -> list[int]:
        """Live processes that have become ours, but for strace itself; dead ones are reaped.

        One that is being started is left for the starter to look at: what was reaped cannot tell whether it executed.
        """
        self.tracers = []
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == besides:
                continue
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                if fields[0] == "Z":
                    if int(name) not in (self.attached_tracer, self.started_process):
                        os.waitpid(int(name), 0)
                elif Path(f"/proc/{name}/comm").read_text() == "strace\n":
                    self.tracers.append(int(name))
                else:
                    found.append(int(name))
        return found

    def settled(self, wanted: int = 0) -> list[int]:
        """The orphans that are still there after those that are about to end have ended."""
        deadline = time.monotonic() + 3
        while len(found := self.orphans()) > wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        return found

    def has_state(self) -> bool:
        return os.path.exists(f"{self.root}/{ID}/state.json")

    def leftovers(self) -> list[str]:
        """Whatever of the container is on this machine."""
        found = [f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}" for pid in self.settled()]
        found += [str(path) for path in Path(self.root).glob("*") if path.name != ".seccomp"]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/boxship/{self.group}")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"boxship/{self.group}")]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if self.bundle in line]
        return found

    @property
    def group(self) -> str:
        return "kill-" + os.path.basename(self.bundle)

    # ── The cases ──

    def steps(self, verb: str, who: str) -> Iterator[Case]:
        """Every call that has an effect, found by watching one undisturbed run."""
        self.prepare(verb)
        calls = OURS if who == "runtime" else AFTER_START if verb == "start" else EXECUTORS
        watch = "trace=" + ",".join(f"?{call}" for call in calls)
        if verb == "start" and who == "executor":
            with self.attached("-o", self.trace, "-e", watch):
                self.run(verb, check=True)
        else:
            self.run(verb, *self.strace(who, self.trace), "-e", watch)
        self.settled(wanted=2)
        seen: dict[tuple[str, str], int] = {}
        found: dict[Case, None] = {}
        for line in Path(self.trace).read_text().splitlines():
            match = re.match(r"(\d+ +)?(\w+)\((.*)", line)
            if not match:
                continue
            pid, call, rest = match.groups()
            nth = seen[pid or "", call] = seen.get((pid or "", call), 0) + 1
            if call == "openat" and not re.search(r"O_CREAT|O_WRONLY|O_RDWR|O_DIRECTORY", rest):
                continue
            found[Case(verb, who, call, nth)] = None
            if verb == "start" and call == "execve":
                break
        self.run("delete", check=True)
        self.settled()
        yield from found

    def kill(self, case: Case) -> dict[str, object]:
        """One case: what was wrong afterwards."""
        self.prepare(case.verb)
        wrong: list[str] = []
        inject = f"inject={case.call}:signal=KILL:when={case.nth}"
        watch = f"trace={case.call}"
        if case.verb == "start" and case.who == "executor":
            with self.attached("-o", "/dev/null", "-e", watch, "-e", inject):
                code = self.run(case.verb)
        else:
            code = self.run(case.verb, *self.strace(case.who), "-e", watch, "-e", inject)
        # What is about to end, because its creator did, may do so; what stays must be known.
        if not self.has_state() and (left := self.settled()):
            wrong.append(f"without a state file: {[Path(f'/proc/{pid}/cmdline').read_bytes() for pid in left]}")
        if case.verb in ("exec", "delete") and case.who == "executor" and not self.has_state():
            wrong.append("the container itself has gone")
        # A worker of the plan server, which has lost its client, may be taking it away just now.
        if self.has_state() and self.run("state") != 0 and self.has_state():
            wrong.append(f"state: {Path(self.bundle, 'output').read_text()}")
        if self.run("delete") != 0:
            wrong.append(f"delete --force: {Path(self.bundle, 'output').read_text()}")
        wrong += self.leftovers()
        return {**case._asdict(), "code": code, "wrong": wrong}


def main() -> int:
    bundle, *verbs = sys.argv[1:]
    machine = Machine(bundle)
    stride = int(os.environ.get("BOXSHIP_KILL_STRIDE", "1"))
    for verb in ("create", "start", "exec", "delete"):
        machine.prepare(verb)
        machine.run(verb, check=True)  # warm: the seccomp filter and the modules are cached
        machine.run("delete", check=True)
    for verb in verbs or VERBS:
        for who in ("runtime", "executor"):
            if verb == "delete" and who == "executor":
                continue
            for index, case in enumerate(machine.steps(verb, who)):
                if who == "executor" and verb != "start" and index % stride:
                    continue
                print(json.dumps(machine.kill(case)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

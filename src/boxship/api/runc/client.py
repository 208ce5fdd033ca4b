"""A client of an OCI runtime's command line.

Each method is one execution of the program; errors are what it wrote as the last line of level "error" in its JSON
log (as containerd's go-runc reads it), else its standard error.
Verbs and flags are runc's, which is the common language of all runtimes (runtime-spec names the operations only).
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boxship.errors import BoxshipError, FailedPrecondition, NotFound, Unavailable

# (words in a message, the error that they stand for): runtimes have no error codes.
_KINDS: "tuple[tuple[str, type[BoxshipError]], ...]" = (
    ("does not exist", NotFound),
    ("not running", FailedPrecondition),
    ("process already finished", FailedPrecondition),
    ("cannot start", FailedPrecondition),
    ("cannot delete", FailedPrecondition),
    ("cannot exec", FailedPrecondition),
)


@dataclass(frozen=True)
class State:
    """runtime-spec's state of a container; ``raw`` has what the runtime adds."""

    id: str
    status: str
    pid: int
    bundle: str
    raw: "dict[str, Any]"


@dataclass(frozen=True)
class Runtime:
    """An OCI runtime at ``path`` with its state below ``root`` ("" for its default).

    ``create`` hands the given descriptors to the container as its streams, 0 standing for /dev/null.
    The container belongs to whoever reaps orphans here (a subreaper), because the program that made it ends.
    """

    path: str
    root: str = ""

    def create(
        self,
        id: str,
        bundle: str,
        *,
        pid_file: str = "",
        console_socket: str = "",
        stdio: "tuple[int, int, int]" = (0, 0, 0),
        flags: "Sequence[str]" = (),
    ) -> None:
        """Make the container and stop before its program. Raises what the runtime says."""
        words = ["create", "--bundle", bundle, *flags]
        if pid_file:
            words += ["--pid-file", pid_file]
        if console_socket:
            words += ["--console-socket", console_socket]
        self._run([*words, id], stdio=stdio)

    def start(self, id: str) -> None:
        """Let the created container execute its program."""
        self._run(["start", id])

    def state(self, id: str) -> State:
        """Raises NotFound."""
        found = json.loads(self._run(["state", id]))
        return State(found["id"], found["status"], int(found.get("pid", 0)), found.get("bundle", ""), found)

    def kill(self, id: str, signal: "int | str" = 15, *, all: bool = False) -> None:
        """Send a signal; raises FailedPrecondition when the container has ended."""
        self._run(["kill", *(["--all"] if all else []), id, str(signal)])

    def delete(self, id: str, *, force: bool = False) -> None:
        """Remove the container; with ``force`` also a running one, and none is no error."""
        self._run(["delete", *(["--force"] if force else []), id])

    def pause(self, id: str) -> None:
        self._run(["pause", id])

    def resume(self, id: str) -> None:
        self._run(["resume", id])

    def pids(self, id: str) -> "list[int]":
        """All processes of the container, as the host numbers them."""
        return [int(pid) for pid in json.loads(self._run(["ps", "--format", "json", id])) or []]

    def features(self) -> "dict[str, Any]":
        """What the runtime can do (runtime-spec, features.md)."""
        found: dict[str, Any] = json.loads(self._run(["features"]))
        return found

    def version(self) -> str:
        """The first line of ``--version``."""
        return self._run(["--version"], log=False).partition("\n")[0]

    def _run(
        self,
        words: "Sequence[str]",
        *,
        stdio: "tuple[int, int, int] | None" = None,
        log: bool = True,
    ) -> str:
        with tempfile.TemporaryDirectory(prefix="boxship-") as directory:
            path = os.path.join(directory, "log")
            command = [self.path, *(["--root", self.root] if self.root else [])]
            if log:
                command += ["--log", path, "--log-format", "json"]
            streams: tuple[Any, Any, Any] = (subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE)
            if stdio is not None:
                # The container keeps them: a pipe of ours would never end.
                null = subprocess.DEVNULL
                streams = (stdio[0] or null, stdio[1] or null, stdio[2] or null)
            try:
                done = subprocess.run(
                    [*command, *words], stdin=streams[0], stdout=streams[1], stderr=streams[2], check=False
                )
            except OSError as error:
                raise Unavailable(f"execute the runtime {self.path}", cause=error.strerror or str(error)) from error
            if done.returncode:
                raise _error(_logged(path) or (done.stderr or b"").decode("utf-8", "replace").strip(), words[0])
            return (done.stdout or b"").decode()


def _logged(path: str) -> str:
    """The last message of level "error" in a JSON log; "" when there is none."""
    message = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # some runtimes write a plain line among the others
                if entry.get("level") == "error":
                    message = str(entry.get("msg", ""))
    except FileNotFoundError:
        return ""
    return message


def _error(message: str, verb: str) -> BoxshipError:
    for words, kind in _KINDS:
        if words in message:
            return kind(message)
    return BoxshipError(message or f"the runtime failed to {verb}, and said nothing")

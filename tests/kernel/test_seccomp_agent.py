"""Seccomp filters with a listener: the agent gets the listener, with the container's state, and answers the calls."""

import errno
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import FailedPrecondition, InvalidArgument
from boxship.libcontainer.process import Stdio
from tests.kernel.bundle_fixture import Bundle, needs_root, new_bundle, pipe, read_all

pytestmark = needs_root

# linux/seccomp.h: sizes of struct seccomp_notif and seccomp_notif_resp are part of the numbers.
RECEIVE, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Agent:
    """Answers every call with an errno, or lets those of ``allowed`` numbers go on."""

    def __init__(self, path: Path, answer: int, allowed: "tuple[int, ...]" = ()) -> None:
        self.answer, self.allowed = answer, allowed
        self.states: list[dict[str, Any]] = []
        self.calls: list[int] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                if not data:
                    continue
                rest = connection.recv(1)
            self.states.append(json.loads(data))
            assert rest == b""  # exactly one message, then closed
            threading.Thread(target=self._answer, args=(fds[0],), daemon=True).start()

    def _answer(self, listener: int) -> None:
        while True:
            request = bytearray(80)
            try:
                fcntl.ioctl(listener, RECEIVE, request)
                id, _, _, number = struct.unpack_from("<QIIi", request)
                self.calls.append(number)
                flags, error = (CONTINUE, 0) if number in self.allowed else (0, -self.answer)
                fcntl.ioctl(listener, SEND, struct.pack("<QqiI", id, 0, error, flags))
            except OSError:
                os.close(listener)
                return

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


def profile(bundle: Bundle, *names: str) -> Path:
    path = bundle.path / "agent.sock"
    bundle.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "listenerMetadata": "for the test",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
    }
    return path


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_agent_gets_the_listener_with_the_state_and_answers(bundle: Bundle, no_new_privileges: bool) -> None:
    agent = Agent(profile(bundle, "mkdir", "mkdirat"), errno.ENOMEDIUM)
    bundle.spec["process"]["noNewPrivileges"] = no_new_privileges
    (bundle.path / "rootfs/bin/mkdir").symlink_to("busybox")
    try:
        code, text = bundle.output("sh", "-c", "mkdir /tmp-dir; ls /proc/self/fd | wc -l; echo $$")
    finally:
        agent.close()
    assert "No medium found" in text
    assert code == 0
    (state,) = agent.states
    container = bundle.made[0]
    assert state["fds"] == ["seccompFd"]
    assert state["metadata"] == "for the test"
    assert state["pid"] == state["state"]["pid"] == container.pid
    assert (state["state"]["id"], state["state"]["bundle"]) == (container.id, str(bundle.path))


def test_calls_that_the_start_itself_makes_can_be_handed_over(bundle: Bundle) -> None:
    """execve is the last call of the start: the agent must have the listener by then."""
    agent = Agent(
        profile(bundle, "execve", "close", "read", "sendmsg", "openat"), errno.EPERM, (59, 221, 3, 0, 46, 257)
    )
    try:
        assert bundle.output("echo", "there") == (0, "there\n")
    finally:
        agent.close()
    assert {59, 221} & set(agent.calls)


def test_an_exec_has_a_listener_of_its_own(bundle: Bundle) -> None:
    agent = Agent(profile(bundle, "mkdir", "mkdirat"), errno.ENOMEDIUM)
    (bundle.path / "rootfs/bin/mkdir").symlink_to("busybox")
    try:
        container = bundle.create("sleep", "100")
        container.start()
        with pipe() as (read, write):
            process = container.exec({"args": ["/bin/mkdir", "/x"], "cwd": "/"}, stdio=Stdio(-1, write, write))
            os.close(write)
            assert "No medium found" in read_all(read)
        assert process.wait() == 1
    finally:
        agent.close()
    assert [state["pid"] for state in agent.states] == [container.pid, process.pid]
    assert agent.states[1]["state"]["pid"] == container.pid


def test_without_an_agent_the_container_is_not_made(bundle: Bundle) -> None:
    profile(bundle, "mkdir")
    with pytest.raises(FailedPrecondition, match="failed to connect with seccomp agent"):
        bundle.create("true")
    assert os.listdir(bundle.root) == [".seccomp"]  # the cache; nothing of the container


def test_what_makes_no_sense_is_refused(bundle: Bundle) -> None:
    profile(bundle, "write")
    with pytest.raises(InvalidArgument, match="cannot be used for the write syscall"):
        bundle.create("true")
    profile(bundle, "mkdir")
    del bundle.spec["linux"]["seccomp"]["listenerPath"]
    with pytest.raises(InvalidArgument, match="SCMP_ACT_NOTIFY needs"):
        bundle.create("true")
    bundle.spec["linux"]["seccomp"]["syscalls"] = []
    with pytest.raises(InvalidArgument, match="Metadata is set"):
        bundle.create("true")


def test_a_listener_that_nobody_needs_is_not_asked_for(bundle: Bundle) -> None:
    profile(bundle, "mkdir")
    bundle.spec["linux"]["seccomp"]["syscalls"] = []
    assert bundle.output("echo", "there") == (0, "there\n")

"""The Task service with a pretended runtime: states, orders, failures; and the publisher of its events."""

from __future__ import annotations

import _socket
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any as Anything

import pytest

from boxship.api.task import events as ev
from boxship.api.task.options import GenericOptions, RuncOptions, ShimOptions
from boxship.api.task.task import (
    CheckpointTaskRequest,
    CreateTaskRequest,
    DeleteRequest,
    ExecProcessRequest,
    KillRequest,
    PauseRequest,
    PidsRequest,
    ResumeRequest,
    ShutdownRequest,
    StartRequest,
    StateRequest,
    UpdateTaskRequest,
    WaitRequest,
    WaitResponse,
)
from boxship.api.task.types import Mount, Status
from boxship.errors import (
    AlreadyExists,
    BoxshipError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StepFailed,
    Unimplemented,
)
from boxship.protobuf import Any, Message
from boxship.shim import bundle as bundle_files
from boxship.shim.arguments import parse
from boxship.shim.publisher import Publisher
from boxship.shim.requests import runtime_options
from boxship.shim.service import TaskService
from boxship.ttrpc.frames import RESPONSE, Frame, Response
from boxship.ttrpc.loop import Loop
from boxship.ttrpc.session import Call, ServerSession


class Child:
    """A real child process that sleeps until it is killed."""

    console = None

    def __init__(self) -> None:
        self.pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})


class FakeContainer(Child):
    own_pid_namespace = True

    def __init__(self, fake: FakeRuntime) -> None:
        super().__init__()
        self.fake = fake

    def start(self) -> None:
        self.fake.calls.append("start")
        if self.fake.start_error is not None:
            raise self.fake.start_error

    def exec(self, spec: dict[str, Anything], streams: tuple[int, int, int] | None) -> Child:
        self.fake.calls.append(f"exec {spec['args']} {'pty' if streams is None else 'pipes'}")
        return Child()

    def kill(self, signal: int, *, all: bool = False) -> None:
        self.fake.calls.append(f"kill {signal}{' all' if all else ''}")
        os.kill(self.pid, signal)

    def pause(self) -> None:
        self.fake.calls.append("pause")

    def resume(self) -> None:
        self.fake.calls.append("resume")

    def pids(self) -> list[int]:
        return [self.pid]

    def stats(self) -> Anything:
        return SimpleNamespace(memory=SimpleNamespace(oom_kill=self.fake.oom_kill))

    def update(self, resources: dict[str, Anything]) -> None:
        self.fake.calls.append(f"update {resources}")

    def delete(self, *, force: bool = False) -> None:
        self.fake.calls.append("delete")


class FakeRuntime:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.created: list[tuple[Anything, ...]] = []
        self.start_error: BoxshipError | None = None
        self.create_error: BoxshipError | None = None
        self.oom_kill = 0

    def create(self, *arguments: Anything) -> FakeContainer:
        self.created.append(arguments)
        if self.create_error is not None:
            raise self.create_error
        return FakeContainer(self)


class FakePublisher:
    def __init__(self) -> None:
        self.events: list[Message] = []

    def publish(self, event: Message) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class FakeCall:
    metadata: dict[str, str] = {}  # noqa: RUF012  never written to

    def __init__(self) -> None:
        self.answer: Message | BaseException | None = None

    def reply(self, response: Message) -> None:
        self.answer = response

    def fail(self, error: BaseException) -> None:
        self.answer = error


class Stage:
    """A service, its runtime and what it published; ``make`` creates container "c"."""

    def __init__(self, tmp_path: Path) -> None:
        self.loop = Loop()
        self.runtime = FakeRuntime()
        self.publisher = FakePublisher()
        self.shut_down = 0
        self.bundle = str(tmp_path / "bundle")
        os.makedirs(self.bundle)
        self.service: Anything = TaskService(
            self.loop, self.runtime, self.publisher, "ns", "/run/root", self._shut  # type: ignore[arg-type]
        )  # fmt: skip
        self.call: Anything = FakeCall()

    def _shut(self) -> None:
        self.shut_down += 1

    def make(self, **fields: Anything) -> int:
        request = CreateTaskRequest(id="c", bundle=self.bundle, **fields)
        return int(self.service.Create(request, self.call).pid)

    def start(self, exec_id: str = "") -> int:
        return int(self.service.Start(StartRequest(id="c", exec_id=exec_id), self.call).pid)

    def state(self, exec_id: str = "") -> Anything:
        return self.service.State(StateRequest(id="c", exec_id=exec_id), self.call)

    def add_exec(self, exec_id: str = "e") -> None:
        spec = Any(type_url="types.containerd.io/x/Process", value=json.dumps({"args": ["id"]}).encode())
        self.service.Exec(ExecProcessRequest(id="c", exec_id=exec_id, spec=spec), self.call)

    def end(self, pid: int, number: int = signal.SIGTERM) -> None:
        os.kill(pid, number)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.service.reap()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for task in stage.service.tasks.values():
        for process in task.processes():
            if process.pid and process.status != Status.STOPPED:
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
    stage.loop.close()


def test_a_life_from_create_to_shutdown(stage: Stage) -> None:
    pid = stage.make(rootfs=[Mount(type="overlay", source="o", options=["lowerdir=/l"])])
    assert stage.runtime.created[0][4] == [("overlay", "o", ["lowerdir=/l"])]
    assert (stage.state().status, stage.state().pid) == (Status.CREATED, pid)
    assert stage.start() == pid
    assert stage.state().status == Status.RUNNING
    waiting: Anything = FakeCall()
    assert stage.service.Wait(WaitRequest(id="c"), waiting) is None
    stage.end(pid)
    assert waiting.answer.exit_status == 128 + signal.SIGTERM
    assert stage.state().status == Status.STOPPED
    stage.service.Shutdown(ShutdownRequest(id="c"), stage.call)
    assert not stage.shut_down  # a container is still there
    deleted = stage.service.Delete(DeleteRequest(id="c"), stage.call)
    assert (deleted.pid, deleted.exit_status) == (pid, 143)
    stage.service.Shutdown(ShutdownRequest(id="c"), stage.call)
    assert stage.shut_down == 1
    assert stage.publisher.kinds() == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]
    assert stage.runtime.calls == ["start", "delete"]


def test_the_exit_is_on_disk_before_it_is_published(stage: Stage) -> None:
    pid = stage.make()
    stage.start()
    seen = []
    publish = stage.publisher.publish

    def spy(event: Message) -> None:
        if isinstance(event, ev.TaskExit):
            seen.append((bundle_files.read_exit(stage.bundle), stage.state().status))
        publish(event)

    stage.publisher.publish = spy  # type: ignore[method-assign]
    stage.end(pid)
    ((record, status),) = seen
    assert record is not None
    assert (record.pid, record.exit_status, status) == (pid, 143, Status.STOPPED)


def test_what_the_bundle_tells_a_stranger(stage: Stage) -> None:
    bundle_files.write(stage.bundle, "shim.pid", b"77\n/usual")
    assert bundle_files.runtime_root(stage.bundle) == "/usual"
    stage.make(options=Any.pack(ShimOptions(runtime_root="/elsewhere")))
    assert bundle_files.runtime_root(stage.bundle) == "/elsewhere"
    assert bundle_files.read_exit(stage.bundle) is None


def test_execs_have_a_life_of_their_own(stage: Stage) -> None:
    stage.make()
    stage.start()
    stage.add_exec()
    assert stage.state("e").status == Status.CREATED
    pid = stage.start("e")
    assert stage.runtime.calls == ["start", "exec ['id'] pipes"]
    with pytest.raises(AlreadyExists):
        stage.add_exec()
    with pytest.raises(FailedPrecondition):
        stage.service.Delete(DeleteRequest(id="c", exec_id="e"), stage.call)
    stage.service.Kill(KillRequest(id="c", exec_id="e", signal=9), stage.call)
    stage.end(pid, 0)
    exits = [event for event in stage.publisher.events if isinstance(event, ev.TaskExit)]
    assert [(event.id, event.exit_status) for event in exits] == [("e", 137)]
    assert stage.service.Delete(DeleteRequest(id="c", exec_id="e"), stage.call).exit_status == 137
    with pytest.raises(NotFound):
        stage.state("e")
    assert stage.state().status == Status.RUNNING


def test_execs_that_end_with_init_are_told_first(stage: Stage) -> None:
    init = stage.make()
    stage.start()
    stage.add_exec()
    other = stage.start("e")
    for pid in (init, other):
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    stage.service.reap()
    exits = [event.id for event in stage.publisher.events if isinstance(event, ev.TaskExit)]
    assert exits == ["e", "c"]


def test_an_exec_that_was_never_started_fails_its_waiters(stage: Stage) -> None:
    stage.make()
    stage.start()
    stage.add_exec()
    waiting: Anything = FakeCall()
    stage.service.Wait(WaitRequest(id="c", exec_id="e"), waiting)
    stage.service.Delete(DeleteRequest(id="c", exec_id="e"), stage.call)
    assert isinstance(waiting.answer, NotFound)


def test_pause_and_resume_are_states(stage: Stage) -> None:
    stage.make()
    with pytest.raises(FailedPrecondition, match="created"):
        stage.service.Pause(PauseRequest(id="c"), stage.call)
    stage.start()
    stage.service.Pause(PauseRequest(id="c"), stage.call)
    assert stage.state().status == Status.PAUSED
    stage.service.Resume(ResumeRequest(id="c"), stage.call)
    assert stage.state().status == Status.RUNNING
    assert stage.publisher.kinds()[-2:] == ["TaskPaused", "TaskResumed"]


def test_a_failed_start_ends_the_container_with_the_shells_code(stage: Stage) -> None:
    stage.make()
    stage.runtime.start_error = StepFailed("no such program", step=9, total=9, errno=2)
    with pytest.raises(StepFailed):
        stage.start()
    assert (stage.state().status, stage.state().exit_status) == (Status.STOPPED, 127)
    assert stage.service.Wait(WaitRequest(id="c"), stage.call).exit_status == 127
    stage.service.Delete(DeleteRequest(id="c"), stage.call)


def test_a_created_container_can_be_deleted(stage: Stage) -> None:
    stage.make()
    waiting: Anything = FakeCall()
    stage.service.Wait(WaitRequest(id="c"), waiting)
    assert stage.service.Delete(DeleteRequest(id="c"), stage.call).exit_status == 137
    assert isinstance(waiting.answer, WaitResponse)


def test_a_failed_create_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    stage.runtime.create_error = StepFailed("no", step=1, total=2, errno=1)
    fifo = str(tmp_path / "out")
    os.mkfifo(fifo)
    options = Any.pack(ShimOptions(log_driver="json-file", log_path=str(tmp_path / "log")))
    with pytest.raises(StepFailed):
        stage.make(stdout=fifo, stderr=fifo, options=options)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not stage.service.tasks
    assert not stage.publisher.events


def test_out_of_memory_is_told_before_the_exit(stage: Stage) -> None:
    pid = stage.make()
    stage.start()
    stage.runtime.oom_kill = 1
    stage.end(pid, signal.SIGKILL)
    assert stage.publisher.kinds()[-2:] == ["TaskOOM", "TaskExit"]


def test_a_shared_pid_namespace_is_swept_when_init_ends(stage: Stage) -> None:
    pid = stage.make()
    stage.start()
    container = stage.service.tasks["c"].container
    container.own_pid_namespace = False
    container.kill = lambda number, **how: stage.runtime.calls.append(f"sweep {number} {how}")
    stage.end(pid)
    assert stage.runtime.calls[-1] == "sweep 9 {'all': True}"


def test_requests_that_make_no_sense(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.state()
    stage.make()
    with pytest.raises(AlreadyExists):
        stage.make()
    with pytest.raises(Unimplemented, match="checkpoint"):
        stage.service.Checkpoint(CheckpointTaskRequest(id="c"), stage.call)
    with pytest.raises(InvalidArgument):
        stage.service.Update(
            UpdateTaskRequest(id="c", resources=Any(type_url="x", value=b"[")), stage.call
        )
    stage.service.Update(UpdateTaskRequest(id="c", resources=Any(type_url="x", value=b'{"a":1}')), stage.call)
    assert stage.runtime.calls[-1] == "update {'a': 1}"
    with pytest.raises(NotFound):
        stage.service.Kill(KillRequest(id="c", exec_id="none", signal=9), stage.call)
    (process,) = stage.service.Pids(PidsRequest(id="c"), stage.call).processes
    assert process.pid == stage.state().pid


@pytest.mark.parametrize(
    ("options", "root"),
    [
        (None, ""),
        (RuncOptions(root="/r"), "/r"),
        (ShimOptions(runtime_root="/s"), "/s"),
        (GenericOptions(type_url="containerd.runc.v1.Options", config_body=RuncOptions(root="/g").encode()), "/g"),
        (GenericOptions(type_url="some.other.Options", config_body=b"?"), ""),
    ],
)
def test_runtime_options_of_several_kinds(options: Message | None, root: str) -> None:
    packed = Any.pack(options) if options is not None else None
    assert runtime_options(packed).runtime_root == root


def test_a_call_in_a_trace_is_a_span_of_it(tmp_path: Path) -> None:
    from boxship.shim.main import traced
    from boxship.tracing import Trace

    trace = Trace("a" * 32, str(tmp_path / "trace"))
    (tmp_path / "trace").touch()
    call: Anything = SimpleNamespace(name="Create", metadata=trace.headers())
    answer = WaitResponse()
    assert traced(call, lambda: answer) is answer
    quiet: Anything = SimpleNamespace(name="State", metadata={"containerd-namespace-ttrpc": "moby"})
    assert traced(quiet, lambda: answer) is answer
    (span,) = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert (span["layer"], span["call"]) == ("shim", "Create")


def test_a_kill_that_comes_too_late_is_not_found(stage: Stage) -> None:
    stage.make()
    stage.start()

    def late(number: int, **_: bool) -> None:
        raise FailedPrecondition("not running")

    stage.service.tasks["c"].container.kill = late
    with pytest.raises(NotFound, match="has finished"):
        stage.service.Kill(KillRequest(id="c", signal=9), stage.call)


# -- the publisher


class Listener:
    """A containerd that takes events, on a loop of the test's."""

    def __init__(self, path: str, loop: Loop) -> None:
        self.path, self.loop = path, loop
        self.topics: list[str] = []
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(8)
        self.socket.setblocking(False)
        self.clients: list[_socket.socket] = []
        loop.watch(self.socket.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        fd, _ = self.socket._accept()  # type: ignore[attr-defined]  # the C socket's accept
        client = _socket.socket(fileno=fd)
        session = ServerSession()
        self.clients.append(client)

        def ready(_events: int) -> None:
            data = client.recv(65536)
            for event in session.feed(data):
                assert isinstance(event, Call)
                request = ev.ForwardRequest.decode(event.payload)
                assert request.envelope is not None
                self.topics.append(request.envelope.topic)
                client.send(Frame(event.stream, RESPONSE, 0, Response().encode()).encode())
            if not data:
                self.loop.forget(client.fileno())

        self.loop.watch(client.fileno(), ready)

    def close(self) -> None:
        for client in self.clients:
            if client.fileno() >= 0:
                self.loop.forget(client.fileno())
                client.close()
        self.loop.forget(self.socket.fileno())
        self.socket.close()
        os.unlink(self.path)


def until_idle(loop: Loop, publisher: Publisher) -> None:
    deadline = time.monotonic() + 5
    while not publisher.idle:
        assert time.monotonic() < deadline
        loop.turn(0.02)


def test_events_arrive_in_order(tmp_path: Path) -> None:
    loop = Loop()
    listener = Listener(str(tmp_path / "e"), loop)
    publisher = Publisher(loop, str(tmp_path / "e"), "ns")
    for event in (ev.TaskCreate(), ev.TaskStart(), ev.TaskExit(), ev.TaskDelete()):
        publisher.publish(event)
    until_idle(loop, publisher)
    assert listener.topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    publisher.close()
    listener.close()
    loop.close()


def test_events_wait_for_a_containerd_that_is_down(tmp_path: Path) -> None:
    loop = Loop()
    path = str(tmp_path / "e")
    listener = Listener(path, loop)
    publisher = Publisher(loop, path, "ns")
    publisher.publish(ev.TaskCreate())
    until_idle(loop, publisher)
    listener.close()
    loop.turn(0.05)
    publisher.publish(ev.TaskExit())
    loop.turn(0.05)
    assert not publisher.idle
    again = Listener(path, loop)
    until_idle(loop, publisher)
    assert again.topics == ["/tasks/exit"]
    publisher.close()
    again.close()
    loop.close()


def test_events_that_nobody_takes_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    monkeypatch.setattr("boxship.shim.publisher.GIVE_UP", 0.1)
    publisher = Publisher(loop, str(tmp_path / "none"), "ns")
    publisher.publish(ev.TaskExit())
    until_idle(loop, publisher)
    assert publisher.dropped == 1
    loop.close()


def test_without_an_address_events_go_nowhere() -> None:
    loop = Loop()
    publisher = Publisher(loop, "", "ns")
    publisher.publish(ev.TaskExit())
    assert publisher.idle
    loop.close()


# -- the command line


@pytest.mark.parametrize(
    ("words", "flags", "action"),
    [
        (["-info"], {"info": "true"}, ""),
        (
            "-namespace n -address /a -publish-binary /c -id i start".split(),
            {"namespace": "n", "address": "/a", "publish-binary": "/c", "id": "i"},
            "start",
        ),
        (
            "--namespace=n -id=i -bundle /b -debug delete".split(),
            {"namespace": "n", "id": "i", "bundle": "/b", "debug": "true"},
            "delete",
        ),
    ],
)
def test_flags_as_containerd_gives_them(words: list[str], flags: dict[str, str], action: str) -> None:
    parsed = parse(words)
    assert (parsed.flags, parsed.action) == (flags, action)


@pytest.mark.parametrize("words", [["-id"], ["-strange", "x"], ["run"]])
def test_flags_that_no_containerd_gives(words: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        parse(words)



"""``docker exec``: further processes in a running container.

An exec is made by one request and started by another; it lives in memory, as in dockerd, until its container goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any as AnyType

import msgspec

from boxship.api.containerd import Client
from boxship.api.containerd.tasks import (
    CloseIORequest,
    DeleteProcessRequest,
    ExecProcessRequest,
    ResizePtyRequest,
    StartRequest,
)
from boxship.api.task.events import TaskExit
from boxship.errors import AlreadyExists, BoxshipError, FailedPrecondition, InvalidArgument, NotFound
from boxship.http.messages import Stream
from boxship.protobuf import Any

from . import attach, rootview, spec
from .config import EngineConfig
from .lifecycle import Lifecycle
from .live import Exec, Live
from .models import words
from .names import new_id
from .stdio import STDOUT, Stdio, frame
from .tasks import exit_code_of

PROCESS_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"


class ExecRequest(msgspec.Struct):
    """The body of ``POST /containers/{id}/exec``."""

    User: str = ""
    Privileged: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None
    AttachStdin: bool = False
    AttachStderr: bool = False
    AttachStdout: bool = False
    DetachKeys: str = ""
    Env: list[str] | None = None
    WorkingDir: str = ""
    Cmd: list[str] | str | None = None


class Execs:
    def __init__(self, client: Client, lifecycle: Lifecycle, config: EngineConfig, host: spec.HostFacts) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._config = config
        self._host = host
        self._by_id: dict[str, tuple[Exec, Live]] = {}

    def create(self, live: Live, request: ExecRequest) -> Exec:
        record = live.record
        if not record.State.Running:
            raise FailedPrecondition(f"container {record.Id} is not running")
        if record.State.Paused:
            raise FailedPrecondition(f"container {record.Name} is paused, unpause the container before exec")
        args = words(request.Cmd) or []
        if not args:
            raise InvalidArgument("No exec command specified")
        id = new_id()
        process = Exec(
            id=id,
            container=record.Id,
            config={},
            args=args,
            tty=request.Tty,
            stdio=Stdio(self._config.fifo_directory(record.Id, id[:16]), tty=request.Tty, stdin=request.AttachStdin),
            wants_stdin=request.AttachStdin,
            wants_stdout=request.AttachStdout,
            wants_stderr=request.AttachStderr,
            user=request.User,
            privileged=request.Privileged,
            env=request.Env or [],
            working_dir=request.WorkingDir,
            detach_keys=request.DetachKeys,
        )
        if request.ConsoleSize and len(request.ConsoleSize) == 2:
            process.console_size = (request.ConsoleSize[0], request.ConsoleSize[1])
        self._forget_old(live)
        live.execs[id] = process
        self._by_id[id] = (process, live)
        self._lifecycle.publish(record, f"exec_create: {' '.join(args)}", execID=id)
        return process

    def _forget_old(self, live: Live) -> None:
        """Finished execs are kept for their exit codes, but not for ever."""
        finished = [id for id, process in live.execs.items() if process.exit_code is not None]
        for id in finished[:-256]:
            live.execs.pop(id)
            self._by_id.pop(id, None)

    def get(self, id: str) -> tuple[Exec, Live]:
        found = self._by_id.get(id)
        if found is None or found[1].record.Id not in (found[0].container,):
            raise NotFound(f"No such exec instance: {id}")
        return found

    async def start(
        self, id: str, stream_of: Callable[[], Stream], detach: bool, raw: bool, size: tuple[int, int]
    ) -> None:
        """Start the process. ``stream_of`` hijacks the connection once nothing can fail before the process runs.

        Whether output is ``raw`` or multiplexed is this request's word alone, also where it contradicts the exec's.
        """
        process, live = self.get(id)
        if process.started:
            raise AlreadyExists(f"exec {id} has already run")
        record = live.record
        if not record.State.Running:
            raise FailedPrecondition(f"container {record.Id} is not running")
        if size != (0, 0):
            process.console_size = size
        process.started = True
        process.stdio.create()
        process.stdio.open_input()
        wanted = attach.Wanted(
            stdin=process.wants_stdin and not detach,
            stdout=process.wants_stdout,
            stderr=process.wants_stderr and not process.tty,
            tty=process.tty,
            close_stdin=True,
            detach_keys=process.detach_keys,
            framed=not raw,
        )
        client = None if detach or not wanted.outputs else process.stdio.attach(wanted.outputs)
        stream: Stream | None = None if detach else stream_of()
        try:
            await self._run(live, process, await self._process(live, process))
        except BoxshipError as error:
            code = exit_code_of(error)
            process.exit_code = code if code in (126, 127) else 126
            process.finished.set()
            process.stdio.remove()
            if stream is None:
                raise
            # On the standard output, where dockerd writes it.
            text = f"OCI runtime exec failed: exec failed: {error}\r\n".encode()
            await stream.write(text if raw else frame(STDOUT, text))
            return
        self._lifecycle.publish(record, f"exec_start: {' '.join(process.args)}", execID=id)
        if stream is not None:
            detached = False
            if client is not None or wanted.stdin:
                detached = await attach.serve(
                    stream, process.stdio, client, wanted, lambda: self._close_stdin(process)
                )
            if not detached:
                await self._ended(process, stream)

    async def _ended(self, process: Exec, stream: Stream) -> None:
        """Wait until the exit is known or the client gone.

        The end of the stream tells the client to ask for the exit code, and the output ends before the shim has
        reaped the process.
        """
        waits = [asyncio.ensure_future(event.wait()) for event in (process.finished, stream.gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _run(self, live: Live, process: Exec, document: dict[str, AnyType]) -> None:
        record, tasks = live.record, self._client.tasks
        await tasks.Exec(
            ExecProcessRequest(
                container_id=record.Id,
                exec_id=process.id,
                stdin=process.stdio.stdin,
                stdout=process.stdio.stdout,
                stderr=process.stdio.stderr,
                terminal=process.tty,
                spec=Any(type_url=PROCESS_TYPE_URL, value=msgspec.json.encode(document)),
            )
        )
        process.running = True
        try:
            started = await tasks.Start(StartRequest(container_id=record.Id, exec_id=process.id))
        except BaseException:
            process.running = False
            try:
                await tasks.DeleteProcess(DeleteProcessRequest(container_id=record.Id, exec_id=process.id))
            except BoxshipError:
                pass  # the shim forgot it with the failed start
            raise
        process.pid = started.pid

    async def _process(self, live: Live, process: Exec) -> dict[str, AnyType]:
        record = live.record
        user = process.user or record.Config.User

        def look() -> spec.Identity:
            with rootview.of_process(record.State.Pid) as root:
                return rootview.identity(root, user)

        identity = await asyncio.to_thread(look)
        environment = spec.environment(record, identity.home)
        names = {entry.partition("=")[0] for entry in process.env}
        if process.tty and "TERM" not in names and not record.Config.Tty:
            environment.append("TERM=xterm")
        environment = [e for e in environment if e.partition("=")[0] not in names] + process.env
        if process.user and not any(e.startswith("HOME=") for e in [*(record.Config.Env or []), *process.env]):
            environment = [e for e in environment if not e.startswith("HOME=")] + [f"HOME={identity.home}"]
        document: dict[str, AnyType] = {
            "args": process.args,
            "cwd": process.working_dir or record.Config.WorkingDir or "/",
            "env": environment,
            "terminal": process.tty,
            "user": {
                "uid": identity.uid,
                "gid": identity.gid,
                "additionalGids": list(identity.groups),
            },
        }
        height, width = process.console_size
        if process.tty and height and width:
            document["consoleSize"] = {"height": height, "width": width}
        as_user = record.Config.User
        try:
            record.Config.User = user
            document["capabilities"] = spec.capabilities(record, self._host)
        finally:
            record.Config.User = as_user
        if process.privileged:
            everything = [c for c in spec.ALL_CAPABILITIES if c in self._host.capabilities]
            document["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), everything)
        document["noNewPrivileges"] = "no-new-privileges" in " ".join(record.HostConfig.SecurityOpt or [])
        return document

    async def _close_stdin(self, process: Exec) -> None:
        process.stdio.close_input()
        try:
            await self._client.tasks.CloseIO(
                CloseIORequest(container_id=process.container, exec_id=process.id, stdin=True)
            )
        except BoxshipError:
            return  # it ended meanwhile

    async def on_exit(self, event: TaskExit) -> None:
        """The shim says that an exec's process ended."""
        found = self._by_id.get(event.id)
        if found is None or not found[0].running:
            return
        process, live = found
        process.running = False
        process.exit_code = event.exit_status
        await process.stdio.finish()
        try:
            await self._client.tasks.DeleteProcess(
                DeleteProcessRequest(container_id=process.container, exec_id=process.id)
            )
        except BoxshipError:
            pass  # the container went with it
        process.stdio.remove()
        process.finished.set()
        self._lifecycle.publish(live.record, "exec_die", execID=process.id, exitCode=str(event.exit_status))

    async def resize(self, id: str, height: int, width: int) -> None:
        process, live = self.get(id)
        if not process.running:
            raise FailedPrecondition(f"exec process {id} is not running")
        await self._client.tasks.ResizePty(
            ResizePtyRequest(container_id=live.record.Id, exec_id=id, height=height, width=width)
        )

    def inspect(self, id: str) -> dict[str, AnyType]:
        process, live = self.get(id)
        return {
            "ID": process.id,
            "Running": process.running,
            "ExitCode": process.exit_code,
            "ProcessConfig": {
                "tty": process.tty,
                "entrypoint": process.args[0],
                "arguments": process.args[1:],
                "privileged": process.privileged,
                **({"user": process.user} if process.user else {}),
            },
            "OpenStdin": process.wants_stdin,
            "OpenStderr": process.wants_stderr,
            "OpenStdout": process.wants_stdout,
            "CanRemove": process.exit_code is not None,
            "ContainerID": live.record.Id,
            "DetachKeys": process.detach_keys,
            "Pid": process.pid,
        }

    def container_removed(self, live: Live) -> None:
        for id in live.execs:
            self._by_id.pop(id, None)

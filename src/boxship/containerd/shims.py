"""The shims that run tasks: started, reached over ttrpc, adopted again, and mourned.

States of a shim: *starting* (its bundle exists), *live* (connected), *ending* (its task was deleted, it was told to
shut down), *dead* (its connection broke before that). A dead one is cleaned up by its runtime's ``delete``; then
the task's exit is published as containerd does, with the status that is found on disk, or 137.
Shims outlive this process: what is needed to find them again is in the bundle before the task is answered.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from boxship import tracing
from boxship.api.containerd.context import NAMESPACE_TTRPC_HEADER
from boxship.api.task.events import TaskDelete, TaskExit
from boxship.api.task.task import DeleteResponse, ShutdownRequest, StateRequest, TaskV2, TaskV3
from boxship.containerd.bundles import Bootstrap, Bundle, Bundles
from boxship.containerd.events import Exchange
from boxship.containerd.runtimes import OURS, Runtimes, ShimLog
from boxship.errors import AlreadyExists, BoxshipError, NotFound, Unavailable
from boxship.protobuf import Any, Timestamp
from boxship.ttrpc.aio import Client

log = logging.getLogger("boxship.containerd")

_CONNECT_TIMEOUT = 10.0
_ADOPT_TIMEOUT = 5.0
_SHUTDOWN_TIMEOUT = 3.0
_LOST = 128 + 9  # the status of a task whose end nobody saw, as containerd reports it


class Shim:
    """One task's shim. ``task`` speaks to it; ``ended`` is done when it was found dead."""

    def __init__(self, bundle: Bundle, runtime: str, client: Client, version: int) -> None:
        self.bundle = bundle
        self.runtime = runtime
        self.client = client
        self.task: "TaskV2 | TaskV3" = TaskV3(client) if version == 3 else TaskV2(client)
        self.pid = 0  # of init, for the exit event of a dead shim
        self.ending = False
        self.ended: "asyncio.Future[DeleteResponse]" = asyncio.get_running_loop().create_future()
        self.log: "ShimLog | None" = None
        self.watcher: "asyncio.Task[None] | None" = None


class Known(Protocol):
    """Which containers there are: a bundle without one is rubbish."""

    def __call__(self, namespace: str, id: str) -> bool: ...


class Shims:
    """All shims of one containerd, by namespace and container id. `adopt` at start, `close` at the end; shims and
    tasks go on without us."""

    def __init__(self, bundles: Bundles, runtimes: Runtimes, exchange: Exchange) -> None:
        self._bundles = bundles
        self._runtimes = runtimes
        self._exchange = exchange
        self._shims: dict[tuple[str, str], Shim] = {}
        self._starting: set[tuple[str, str]] = set()
        self._background: set[asyncio.Task[None]] = set()

    def get(self, namespace: str, id: str) -> Shim:
        """Raises NotFound."""
        shim = self._shims.get((namespace, id))
        if shim is None:
            raise NotFound(f"task {id!r}: not found")
        return shim

    def list(self, namespace: str) -> Iterator[Shim]:
        for (shim_namespace, _), shim in sorted(self._shims.items()):
            if shim_namespace == namespace:
                yield shim

    async def start(self, namespace: str, id: str, runtime: str, spec: bytes, options: "Any | None") -> Shim:
        """A bundle and a live shim for a new task. Raises AlreadyExists, NotFound (the runtime), Internal."""
        key = (namespace, id)
        if key in self._shims or key in self._starting:
            raise AlreadyExists(f"task {id!r}: already exists")
        self._starting.add(key)
        starting = asyncio.get_running_loop().create_task(self._start(namespace, id, runtime, spec, options))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A shim that is half born cannot be called back: let it be born, then let it go.
            self._keep(asyncio.get_running_loop().create_task(self._give_up(starting)))
            raise

    async def _give_up(self, starting: "asyncio.Task[Shim]") -> None:
        try:
            shim = await starting
        except BoxshipError:
            return  # it failed by itself, and has cleaned up
        await self.abandon(shim)

    async def _start(self, namespace: str, id: str, runtime: str, spec: bytes, options: "Any | None") -> Shim:
        try:
            bundle = self._bundles.create(namespace, id, spec, work=runtime != OURS)
            shim_log = None
            try:
                if runtime != OURS:
                    shim_log = ShimLog(bundle)
                with tracing.span("containerd", "shim.start", id=id, runtime=runtime):
                    bootstrap = await self._runtimes.start(runtime, bundle, options)
                bundle.remember(bootstrap, runtime)
                shim = await self._connect(bundle, runtime, bootstrap, _CONNECT_TIMEOUT)
            except BaseException:
                if shim_log is not None:
                    shim_log.close()
                bundle.delete()
                raise
            shim.log = shim_log
            self._add(shim)
            return shim
        finally:
            self._starting.discard((namespace, id))

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def end(self, shim: Shim) -> None:
        """The task is deleted: tell the shim to go, and forget the bundle."""
        shim.ending = True
        self._shims.pop((shim.bundle.namespace, shim.bundle.id), None)
        try:
            await shim.task.Shutdown(ShutdownRequest(id=shim.bundle.id), timeout=_SHUTDOWN_TIMEOUT)
        except BoxshipError:
            pass  # it may close the connection instead of answering
        self._release(shim)
        shim.bundle.delete()

    async def abandon(self, shim: Shim) -> None:
        """A task could not be created: clean up as if its shim were dead, but publish nothing."""
        shim.ending = True
        self._shims.pop((shim.bundle.namespace, shim.bundle.id), None)
        try:
            await shim.task.Shutdown(ShutdownRequest(id=shim.bundle.id, now=True), timeout=_SHUTDOWN_TIMEOUT)
        except BoxshipError:
            pass  # as above
        self._release(shim)
        try:
            await self._runtimes.delete(shim.runtime, shim.bundle)
        except BoxshipError as error:
            log.warning("cleaning up after task %s: %s", shim.bundle.id, error)
        shim.bundle.delete()

    async def adopt(self, known: Known) -> None:
        """Find the shims of an earlier containerd again, all at once; clean up after those that died."""
        await asyncio.gather(*(self._adopt(bundle, known) for bundle in list(self._bundles)))

    async def close(self) -> None:
        await asyncio.gather(*self._background, return_exceptions=True)
        for shim in list(self._shims.values()):
            shim.ending = True
            self._release(shim)
        self._shims.clear()

    # -- inside

    async def _connect(self, bundle: Bundle, runtime: str, bootstrap: Bootstrap, timeout: float) -> Shim:
        def metadata() -> "dict[str, str]":
            trace = tracing.current.get()
            return {NAMESPACE_TTRPC_HEADER: bundle.namespace, **(trace.headers() if trace else {})}

        client = await Client.connect(bootstrap.address, timeout=timeout, metadata=metadata)
        return Shim(bundle, runtime, client, bootstrap.version)

    def _add(self, shim: Shim) -> None:
        self._shims[shim.bundle.namespace, shim.bundle.id] = shim
        shim.watcher = asyncio.get_running_loop().create_task(self._watch(shim), name=f"shim {shim.bundle.id}")

    def _release(self, shim: Shim) -> None:
        shim.client.close()
        if shim.log is not None:
            shim.log.close()
        if shim.watcher is not None and shim.watcher is not asyncio.current_task():
            shim.watcher.cancel()

    async def _watch(self, shim: Shim) -> None:
        await shim.client.closed.wait()
        if not shim.ending:
            log.warning("shim of task %s in namespace %s died", shim.bundle.id, shim.bundle.namespace)
            await self._mourn(shim.bundle, shim.runtime, shim.pid, shim)

    async def _mourn(self, bundle: Bundle, runtime: str, pid: int, shim: "Shim | None" = None) -> None:
        """Clean up after a dead shim and tell how its task ended; its waiters are answered the same."""
        try:
            response = await self._runtimes.delete(runtime, bundle)
        except BoxshipError as error:
            log.error("cleaning up after the dead shim of %s: %s", bundle.id, error)
            response = DeleteResponse(pid=pid, exit_status=_LOST)
        if response.exited_at is None:
            response.exited_at = Timestamp.from_ns(time.time_ns())
        response.pid = response.pid or pid
        if shim is not None:
            shim.ending = True
            self._shims.pop((bundle.namespace, bundle.id), None)
            self._release(shim)
            if not shim.ended.done():
                shim.ended.set_result(response)
        bundle.delete()
        publish: "Callable[[TaskExit | TaskDelete, str], None]" = self._exchange.publish_task_event
        publish(
            TaskExit(
                container_id=bundle.id,
                id=bundle.id,
                pid=response.pid,
                exit_status=response.exit_status,
                exited_at=response.exited_at,
            ),
            bundle.namespace,
        )
        publish(
            TaskDelete(
                container_id=bundle.id,
                pid=response.pid,
                exit_status=response.exit_status,
                exited_at=response.exited_at,
            ),
            bundle.namespace,
        )

    async def _adopt(self, bundle: Bundle, known: Known) -> None:
        runtime = bundle.runtime() or OURS
        try:
            bootstrap = bundle.bootstrap()
            if bootstrap is None:
                raise Unavailable("it never said where it is")
            shim = await self._connect(bundle, runtime, bootstrap, _ADOPT_TIMEOUT)
        except BoxshipError as error:
            log.info("shim of task %s is gone: %s", bundle.id, error)
            await self._mourn(bundle, runtime, 0)
            return
        try:
            state = await shim.task.State(StateRequest(id=bundle.id), timeout=_ADOPT_TIMEOUT)
        except BoxshipError as error:
            log.info("shim of task %s has no task: %s", bundle.id, error)
            await self.abandon(shim)
            return
        if not known(bundle.namespace, bundle.id):
            log.info("task %s has no container any more", bundle.id)
            await self.abandon(shim)
            return
        shim.pid = state.pid
        if runtime != OURS:
            shim.log = ShimLog(bundle)
        self._add(shim)

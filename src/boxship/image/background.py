"""Bulk work beside an event loop: layers unpacked, images loaded, pulled, pushed and saved.

Each job has a thread of its own, so that many of them (or clients that stall in the middle of an upload) never
take the loop's few worker threads from who only asks something. It runs at a lower priority: whoever asks, and the
program that asks, go first on a machine whose cores are all unpacking.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NICENESS = 5
"""What the threads of bulk work add to the niceness of the process; threads that they start inherit it."""


async def settled(work: "Awaitable[T]") -> T:
    """Wait for work in a thread, which cannot be cancelled: a cancellation is raised when it has ended.

    For work that uses what its caller closes afterwards, such as a descriptor.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: who was told of the cancellation does not ask
        raise


async def in_background(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` as `asyncio.to_thread` does, as bulk work. Raises what it raises.

    When the waiting task is cancelled the function goes on to its end, whose result nobody sees.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def tell(value: "T | None", error: "BaseException | None") -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        thread = threading.get_native_id()
        # Of this thread alone: setpriority(2), "C library/kernel differences".
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICENESS, 19))
        value: T | None = None
        error: BaseException | None = None
        try:
            value = context.run(function, *args, **kwargs)
        except BaseException as raised:  # handed on to who waits
            error = raised
        try:
            loop.call_soon_threadsafe(tell, value, error)
        except RuntimeError:
            if not loop.is_closed():
                raise

    threading.Thread(target=work, name="bulk").start()
    return await result

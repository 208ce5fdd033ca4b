"""Bulk work beside the loop: a thread of its own for each, at a lower priority, and none closed over its head."""

import asyncio
import os
import threading

import pytest

from boxship.errors import NotFound
from boxship.image.background import NICENESS, in_background, settled


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_it_goes_behind_and_so_do_the_threads_that_it_starts() -> None:
    def work(start: int, *, by: int) -> "tuple[int, int, int]":
        found: list[int] = []
        other = threading.Thread(target=lambda: found.append(niceness()))
        other.start()
        other.join()
        return start + by, niceness(), found[0]

    before = niceness()
    behind = min(before + NICENESS, 19)
    assert asyncio.run(in_background(work, 3, by=4)) == (7, behind, behind)
    assert niceness() == before


def test_what_it_raises_is_raised() -> None:
    def work() -> None:
        raise NotFound("nothing here")

    with pytest.raises(NotFound, match="nothing here"):
        asyncio.run(in_background(work))


def test_many_that_stand_still_hold_nobody_up() -> None:
    """More than the loop has worker threads: a client that stalls in the middle of an upload is one of them."""

    async def main() -> int:
        go = threading.Event()
        stalled = [asyncio.create_task(in_background(go.wait)) for _ in range(50)]
        await asyncio.sleep(0)
        answered = await asyncio.wait_for(asyncio.to_thread(lambda: 5), 10)
        more = await asyncio.wait_for(in_background(lambda: 6), 10)
        go.set()
        await asyncio.gather(*stalled)
        return answered + more

    assert asyncio.run(main()) == 11


def test_a_cancelled_wait_ends_before_the_work_and_its_end_is_no_error() -> None:
    async def main() -> "list[str]":
        go, ended = threading.Event(), threading.Event()
        said: list[str] = []

        def work() -> None:
            go.wait(10)
            ended.set()

        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context["message"]))
        task = asyncio.create_task(in_background(work))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        go.set()
        await asyncio.to_thread(ended.wait, 10)
        await asyncio.sleep(0.05)
        return said

    assert asyncio.run(main()) == []


def test_settled_work_has_ended_when_the_cancellation_comes() -> None:
    async def main() -> bool:
        go, ended = threading.Event(), threading.Event()

        def work() -> None:
            go.wait(10)
            ended.set()

        task = asyncio.create_task(settled(in_background(work)))
        await asyncio.sleep(0.01)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        return ended.is_set()

    assert asyncio.run(main())


def test_the_loop_may_be_gone_when_it_ends() -> None:
    go = threading.Event()

    async def main() -> None:
        task = asyncio.create_task(in_background(go.wait))
        await asyncio.sleep(0.01)
        task.cancel()

    before = set(threading.enumerate())
    asyncio.run(main())
    (left,) = set(threading.enumerate()) - before
    go.set()
    left.join(10)
    assert not left.is_alive()

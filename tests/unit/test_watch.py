"""Waiting for a directory to change: what it waits for, and that it leaves the loop's other descriptors alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ABANDONED = """
import asyncio, socket, sys, uvloop
from boxship.engine.watch import Watch

async def main():
    loop = asyncio.get_running_loop()
    for _ in range(50):
        with Watch(sys.argv[1]) as watch:
            waiting = asyncio.ensure_future(watch.changed())
            await asyncio.sleep(0)
            waiting.cancel()
        pair = socket.socketpair()  # one of them has the number of the descriptor that was just closed
        readable = [asyncio.Event() for _ in pair]
        for one, event in zip(pair, readable):
            loop.add_reader(one, event.set)
        await asyncio.sleep(0)
        for one in pair:
            one.send(b"x")
        for event in readable:
            await asyncio.wait_for(event.wait(), 2)
        for one in pair:
            loop.remove_reader(one)
            one.close()

(uvloop if sys.argv[2] == "uvloop" else asyncio).run(main())
"""

CHANGES = """
import asyncio, pathlib, sys
from boxship.engine.watch import Watch

async def main():
    directory = pathlib.Path(sys.argv[1])
    with Watch(str(directory)) as watch:
        for number in range(5):
            (directory / "log").open("a").write("x")
            (directory / f"other{number}").touch()
            await asyncio.wait_for(watch.changed(), 2)
            await asyncio.sleep(0.01)
            watch._changed.clear()
            try:
                await asyncio.wait_for(watch.changed(), 0.02)
            except TimeoutError:
                continue
            raise SystemExit("nothing changed, and it says so")

asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_watch_that_is_given_up_takes_no_other_descriptor_from_the_loop(tmp_path: Path, loop: str) -> None:
    command = [sys.executable, "-c", ABANDONED, str(tmp_path), loop]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_change_is_told_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHANGES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

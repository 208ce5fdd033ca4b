"""The library as a notebook uses it: streams, terminals, timeouts, asyncio, threads, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from boxship.libcontainer import (
    DEVNULL,
    INHERIT,
    PIPE,
    STDOUT,
    CommandFailed,
    Container,
    aio,
    build_resources,
    build_spec,
    run,
)  # fmt: skip

from .bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = [pytest.mark.root, needs_root]
EXAMPLES = Path(__file__).parents[2] / "examples"


class Place:
    """A root file system, a state root, and the specs of containers in them."""

    def __init__(self, bundle: Bundle) -> None:
        self.rootfs = str(bundle.path / "rootfs")
        self.root = bundle.root

    def spec(self, *args: str, **options: Any) -> dict[str, Any]:
        return build_spec(self.rootfs, args, **options)

    def create(self, *args: str, **options: Any) -> Container:
        return Container.create(self.spec(*args), root=self.root, **options)

    def left(self) -> list[str]:
        return [c.id for c in Container.list(root=self.root)]


def our_children() -> set[str]:
    """Also those that have ended and were not reaped."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@pytest.fixture
def place() -> Iterator[Place]:
    with new_bundle() as bundle:
        before, children = set(os.listdir("/proc/self/fd")), our_children()
        place = Place(bundle)
        yield place
        assert place.left() == []
        # A worker thread of a loop that was just closed may hold a descriptor for a moment more.
        deadline = time.monotonic() + 2
        while set(os.listdir("/proc/self/fd")) - before and time.monotonic() < deadline:
            time.sleep(0.01)
        left = set(os.listdir("/proc/self/fd")) - before
        assert {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in left} == {}
        assert our_children() - children == set()


def test_run_in_one_line(place: Place) -> None:
    code, out, err = run(["sh", "-c", "echo out; echo err >&2; exit 3"], place.rootfs, root=place.root)
    assert (code, out, err) == (3, b"out\n", b"err\n")
    assert run(["cat"], place.rootfs, root=place.root, input=b"x" * 300_000).stdout == b"x" * 300_000
    assert (
        run(["sh", "-c", "echo $A; id -u"], place.rootfs, root=place.root, env={"A": "b"}, user=7).output == "b\n7\n"
    )


def test_run_with_a_spec(place: Place) -> None:
    spec = place.spec("x", hostname="elsewhere")
    assert run(["cat", "/proc/sys/kernel/hostname"], spec=spec, root=place.root).output == "elsewhere\n"
    with pytest.raises(InvalidArgument, match="either a spec or the words"):
        run(["true"], spec=spec, memory="1g")


def test_a_run_that_takes_too_long_or_cannot_start_leaves_nothing(place: Place) -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        run(["sleep", "100"], place.rootfs, root=place.root, timeout=0.2)
    with pytest.raises(CommandFailed) as caught:
        run(["nosuch"], place.rootfs, root=place.root)
    assert caught.value.exit_code == 127
    with pytest.raises(InvalidArgument, match="needs a rootfs or a spec"):
        run(["true"])
    with pytest.raises(InvalidArgument, match=r"root\.path .*: no such directory"):
        run(["true"], "/no/such", root=place.root)


def test_leaving_the_with_ends_whatever_runs(place: Place) -> None:
    with place.create("sleep", "100") as container:
        container.start()
        process = container.exec(["sleep", "100"])
        pids = container.pids()
        assert container.status == "running"
        assert repr(container) == f"<Container {container.id} running>"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert (container.wait(), process.wait()) == (137, 137)
    container.delete(force=True)


def test_an_exception_inside_is_not_hidden(place: Place) -> None:
    def fail() -> None:
        with place.create("sleep", "100") as container:
            container.start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize("do", ["nothing", "start", "pause"])
def test_a_container_is_removed_in_any_state(place: Place, do: str) -> None:
    with place.create("sleep", "100") as container:
        if do != "nothing":
            container.start()
        if do == "pause":
            container.pause()


def test_pipes_are_files(place: Place) -> None:
    with place.create("sh", "-c", "read a; echo got $a; cat", stdin=PIPE) as container:
        container.start()
        assert container.stdin is not None
        assert container.stdout is not None
        container.stdin.write(b"one\n")
        assert container.stdout.read(8) == b"got one\n"
        container.stdin.write(b"rest")
        container.stdin.close()
        assert container.stdout.read() == b"rest"
        assert container.wait() == 0


def test_streams_may_be_joined_given_and_inherited(
    place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "echo out; echo err >&2"
    with place.create("sh", "-c", script, stderr=STDOUT) as container:
        container.start()
        assert container.communicate() == (b"out\nerr\n", b"")
    with (
        open(tmp_path / "log", "w+b") as log,
        place.create("sh", "-c", script, stdout=log, stderr=DEVNULL) as container,
    ):
        container.start()
        assert container.wait() == 0
        log.seek(0)
        assert log.read() == b"out\n"
    with place.create("sh", "-c", script, stdout=INHERIT, stderr=INHERIT) as container:
        container.start()
        container.wait()
    assert capfd.readouterr() == ("out\n", "err\n")
    with pytest.raises(InvalidArgument, match="stdout='nonsense' is no stream"):
        place.create("true", stdout="nonsense")


def test_a_terminal(place: Place) -> None:
    with place.create("sh", "-c", "stty size; read x; stty size; echo $x", terminal=(100, 30)) as container:
        container.start()
        assert container.terminal is not None
        first = b""
        while not first.endswith(b"\n"):
            first += container.terminal.read(64) or b""
        assert first == b"30 100\r\n"
        container.resize(80, 25)
        out, _ = container.communicate(b"typed\n")
        assert out.replace(b"\r", b"") == b"typed\n25 80\ntyped\n"
        assert container.wait() == 0
        with pytest.raises(FailedPrecondition):
            container.exec(["tty"], terminal=True)
    with place.create("true") as container, pytest.raises(FailedPrecondition, match="it has no terminal"):
        container.resize(1, 1)


def test_exec_takes_its_own_words(place: Place) -> None:
    with place.create("sleep", "100") as container:
        container.start()
        with container.exec(
            ["sh", "-c", "echo $A; pwd; id -u; cat"], env={"A": "1"}, cwd="/bin", user=5, stdin=PIPE
        ) as one:
            assert one.communicate(b"end") == (b"1\n/bin\n5\nend", b"")
            assert one.wait() == 0
        with container.exec(["tty"], terminal=(10, 10)) as two:
            assert two.communicate()[0] == b"/dev/pts/0\r\n"
        with container.exec(["sleep", "100"]) as three:
            assert three.poll() is None
            with pytest.raises(DeadlineExceeded):
                three.wait(0.05)
        assert three.wait() == 137
        with pytest.raises(CommandFailed):
            container.exec(["nosuch"])
        with pytest.raises(InvalidArgument, match="args must be a list of words"):
            container.exec("ls")


def test_limits_pause_stats_and_update(place: Place) -> None:
    with Container.create(place.spec("sleep", "100", memory="32m", pids=30), root=place.root) as container:
        container.start()
        stats = container.stats()
        assert (stats.memory.limit, stats.pids.limit) == (32 << 20, 30)
        container.update(memory="64m", pids=40)
        assert container.stats().memory.limit == 64 << 20
        with container.paused():
            assert container.status == "paused"
        assert container.status == "running"
        assert next(container.events(0.05)).kind == "stats"


def test_a_container_is_found_again_by_another_process(place: Place) -> None:
    with place.create("sleep", "100") as container:
        script = (
            "import sys; from boxship.libcontainer import Container\n"
            f"c = Container.load({container.id!r}, root={place.root!r})\n"
            "c.inner.start(); print(c.status, c.exec(['echo', 'hi']).communicate()); c.kill(9)\n"
        )
        container.inner.detach()
        text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert text == "running (b'hi\\n', b'')\n"
        assert container.wait() == 137
    with pytest.raises(NotFound):
        Container.load(container.id, root=place.root)


def test_threads_may_run_containers_at_once(place: Place) -> None:
    results: list[Any] = [None] * 8

    def one(number: int) -> None:
        results[number] = run(
            ["sh", "-c", f"cat; exit {number}"], place.rootfs, root=place.root, input=b"x" * 100_000
        )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(result.exit_code, len(result.stdout)) for result in results] == [(n, 100_000) for n in range(8)]


def test_the_words_of_a_spec() -> None:
    spec = build_spec("/r", ["x"], network="/run/netns/a", mounts=[("/data", "/d", "ro")], cpus=1.5, rootless=False)
    assert spec["root"] == {"path": "/r", "readonly": False}
    assert {"type": "network", "path": "/run/netns/a"} in spec["linux"]["namespaces"]
    mount = {"destination": "/d", "type": "bind", "source": "/data", "options": ["rbind", "rprivate", "ro"]}
    assert spec["mounts"][-1] == mount
    assert spec["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
    assert build_resources(memory="1.5g") == {"memory": {"limit": 3 << 29, "swap": 3 << 29}}
    assert build_resources(memory=-1, cpuset="0-1") == {"memory": {"limit": -1, "swap": -1}, "cpu": {"cpus": "0-1"}}
    for wrong in ({"network": "bridge"}, {"memory": "many"}, {"cpus": 0}):
        with pytest.raises(InvalidArgument):
            build_spec("/r", ["x"], **wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(InvalidArgument, match="args must be a list of words"):
        build_spec("/r", "ls -l")


# ── asyncio ──


async def test_async_run(place: Place) -> None:
    result = await aio.run(
        ["sh", "-c", "cat; echo err >&2; exit 5"], place.rootfs, root=place.root, input=b"y" * 200_000
    )
    assert (result.exit_code, len(result.stdout), result.stderr) == (5, 200_000, b"err\n")
    with pytest.raises(DeadlineExceeded):
        await aio.run(["sleep", "100"], place.rootfs, root=place.root, timeout=0.2)


async def test_async_containers_at_once_while_the_loop_goes_on(place: Place) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    results = await asyncio.gather(
        *(aio.run(["sh", "-c", f"sleep 0.2; exit {n}"], place.rootfs, root=place.root) for n in range(6))
    )
    ticking.cancel()
    assert [result.exit_code for result in results] == [0, 1, 2, 3, 4, 5]
    assert ticks >= 10


async def test_async_container(place: Place) -> None:
    async with await aio.Container.create(place.spec("cat"), root=place.root, stdin=PIPE) as container:
        await container.start()
        await container.write(b"one\ntwo\nrest")
        container.close_stdin()
        assert [line async for line in container.lines()] == [b"one\n", b"two\n", b"rest"]
        assert await container.wait() == 0
    async with await aio.Container.create(place.spec("sleep", "100"), root=place.root) as container:
        await container.start()
        async with await container.exec(["echo", "hi"]) as process:
            assert await process.communicate() == (b"hi\n", b"")
            assert await process.wait() == 0
        await container.update(pids=50)
        async with container.paused():
            assert container.status == "paused"
        async for event in container.events(0.05):
            assert event.kind == "stats"
            break
        with pytest.raises(DeadlineExceeded):
            await container.wait(0.05)
        container.kill(signal.SIGKILL)
        assert await container.wait() == 137


async def test_a_cancelled_task_leaves_no_container(place: Place) -> None:
    task = asyncio.create_task(aio.run(["sleep", "100"], place.rootfs, root=place.root))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for delay in (0.0, 0.001, 0.003, 0.006):
        task = asyncio.create_task(aio.run(["sleep", "100"], place.rootfs, root=place.root))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# ── Outside ──


def example(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_example_of_forty_lines(place: Place) -> None:
    text = example("container_in_40_lines.py")
    assert text.splitlines() == ["0 hello from box", "green 3", "running True", "0 what goes in comes out", "[]"]


def test_the_example_with_asyncio(place: Place) -> None:
    lines = example("many_with_asyncio.py", place.rootfs).splitlines()
    assert lines == [f"this is {n}" if n != 7 else "7 took too long" for n in range(20)]


def test_the_package_imports_nothing_until_a_name_is_asked_for() -> None:
    script = (
        "import sys, boxship.libcontainer as l; print(sorted(m for m in sys.modules if 'boxship' in m));"
        "assert set(l.__all__) <= set(dir(l)); [getattr(l, name) for name in l.__all__]"
    )
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert text == "['boxship', 'boxship.libcontainer']\n"


def test_a_container_starts_fast_enough_to_be_a_function_call(place: Place) -> None:
    run(["true"], place.rootfs, root=place.root)
    begin = time.monotonic()
    for _ in range(5):
        run(["true"], place.rootfs, root=place.root)
    assert time.monotonic() - begin < 2

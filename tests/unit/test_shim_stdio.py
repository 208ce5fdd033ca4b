"""The shim's copying of streams: slow readers, readers that leave and come back, inputs that end when told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boxship.errors import InvalidArgument, NotFound
from boxship.shim.logs import JsonFile
from boxship.shim.stdio import CHUNK, Input, Output, scheme_of
from boxship.ttrpc.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


def reader(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def read_all(fd: int) -> bytes:
    data = b""
    try:
        while part := os.read(fd, 1 << 20):
            data += part
    except BlockingIOError:
        pass  # that was all
    return data


def turn(loop: Loop, until: Callable[[], object], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen"
        loop.turn(0.02)


def output(loop: Loop, target: str, log: JsonFile | None = None) -> tuple[Output, int]:
    source, container = os.pipe()
    return Output(loop, source, "stdout", log, target), container


def test_output_reaches_the_reader_and_ends_with_the_process(loop: Loop, fifo: str) -> None:
    fd = reader(fifo)
    copied, container = output(loop, fifo)
    os.write(container, b"hello")
    turn(loop, lambda: read_all(fd) == b"hello")
    os.close(container)
    turn(loop, lambda: copied.ended)
    assert os.read(fd, 10) == b""  # end of file, not "try again"


def test_a_slow_reader_slows_the_container_and_loses_nothing(loop: Loop, fifo: str) -> None:
    fd = reader(fifo)
    _, container = output(loop, fifo)
    os.set_blocking(container, False)
    written = 0
    for _ in range(100):
        try:
            written += os.write(container, b"x" * 4096)
        except BlockingIOError:
            loop.turn(0.001)
    assert 0 < written < 100 * 4096  # the pipe, one piece and the FIFO are full
    seen = 0
    while seen < written:
        seen += len(read_all(fd))
        loop.turn(0.01)
    assert seen == written


def test_a_reader_that_has_gone_stops_nothing_and_may_come_back(loop: Loop, fifo: str, tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "log"))
    fd = reader(fifo)
    copied, container = output(loop, fifo, log)
    os.write(container, b"one\n")
    turn(loop, lambda: read_all(fd) == b"one\n")
    os.close(fd)
    loop.turn(0.05)
    for _ in range(100):
        os.write(container, b"unread " * 500 + b"\n")
        loop.turn(0.0)
    fd = reader(fifo)
    os.write(container, b"back\n")
    turn(loop, lambda: read_all(fd).endswith(b"back\n"))
    os.close(container)
    turn(loop, lambda: copied.ended)
    log.close()
    assert (tmp_path / "log").read_text().count("\n") == 102


def test_a_reader_that_comes_back_to_a_silent_container_gets_a_writer(loop: Loop, fifo: str) -> None:
    fd = reader(fifo)
    _, container = output(loop, fifo)
    os.close(fd)
    loop.turn(0.05)
    fd = reader(fifo)
    turn(loop, lambda: not _at_end(fd))  # "try again", where a FIFO without a writer is at its end
    os.close(container)


def test_what_comes_before_the_first_reader_is_kept_for_it(loop: Loop, fifo: str) -> None:
    copied, container = output(loop, fifo)
    os.write(container, b"early")
    os.close(container)
    turn(loop, lambda: copied.ended)
    fd = reader(fifo)
    turn(loop, lambda: read_all(fd) == b"early")


def test_no_reader_at_all_never_blocks_the_container(loop: Loop, fifo: str) -> None:
    _, container = output(loop, fifo)
    for _ in range(40):
        os.write(container, b"x" * CHUNK)  # blocks for ever if nobody copies
        loop.turn(0.0)
        loop.turn(0.0)
    os.close(container)


def test_the_last_words_are_logged_before_the_exit_is_told(loop: Loop, fifo: str, tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "log"))
    copied, container = output(loop, fifo, log)
    os.write(container, b"last\nwords")
    copied.drain()  # while another process still holds the pipe
    assert '"last\\n"' in (tmp_path / "log").read_text()
    os.close(container)
    copied.drain()
    assert copied.ended
    assert '"words"' in (tmp_path / "log").read_text()


def test_a_file_target_is_appended_to(loop: Loop, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for word in (b"a", b"b"):
        copied, container = output(loop, f"file://{target}")
        os.write(container, word)
        os.close(container)
        turn(loop, lambda: copied.ended)  # noqa: B023  called within the iteration
    assert target.read_bytes() == b"ab"


def test_closing_twice_is_fine(loop: Loop, fifo: str) -> None:
    copied, container = output(loop, fifo)
    copied.close()
    copied.close()
    os.close(container)


def test_missing_fifos_are_not_found(loop: Loop, tmp_path: Path) -> None:
    source, _ = os.pipe()
    with pytest.raises(NotFound):
        Output(loop, source, "stdout", None, str(tmp_path / "none"))
    with pytest.raises(NotFound):
        Input(loop, str(tmp_path / "none"), source, is_pty=False)


# -- input


def test_input_survives_its_writer_until_it_is_released(loop: Loop, fifo: str) -> None:
    container, target = os.pipe()
    os.set_blocking(container, False)
    given = Input(loop, fifo, target, is_pty=False)
    for word in (b"one", b"two"):
        writer = os.open(fifo, os.O_WRONLY)
        os.write(writer, word)
        os.close(writer)
        turn(loop, lambda: read_all(container) == word)  # noqa: B023  called within the iteration
    given.release()
    turn(loop, lambda: _at_end(container))


def _at_end(fd: int) -> bool:
    try:
        return os.read(fd, 1) == b""
    except BlockingIOError:
        return False


def test_released_input_still_delivers_what_was_written(loop: Loop, fifo: str) -> None:
    container, target = os.pipe()
    given = Input(loop, fifo, target, is_pty=False)
    writer = os.open(fifo, os.O_WRONLY)
    os.write(writer, b"tail")
    os.close(writer)
    given.release()
    seen = b""
    os.set_blocking(container, False)
    while not seen.endswith(b"tail"):
        loop.turn(0.02)
        seen += read_all(container)
    turn(loop, lambda: _at_end(container))


def test_a_container_that_does_not_read_holds_its_input_up(loop: Loop, fifo: str) -> None:
    container, target = os.pipe()
    given = Input(loop, fifo, target, is_pty=False)
    writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    sent = 0
    for _ in range(200):
        try:
            sent += os.write(writer, b"y" * 4096)
        except BlockingIOError:
            loop.turn(0.001)
    assert sent < 200 * 4096
    os.close(writer)
    given.release()
    os.set_blocking(container, False)
    seen = 0
    while seen < sent:
        loop.turn(0.01)
        seen += len(read_all(container))
    assert seen == sent


def test_a_container_that_closes_its_input_ends_it(loop: Loop, fifo: str) -> None:
    container, target = os.pipe()
    Input(loop, fifo, target, is_pty=False)
    os.close(container)
    loop.turn(0.05)
    with pytest.raises(OSError, match="No such device"):  # ENXIO: the shim reads no more
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)


def test_a_terminal_is_copied_both_ways(loop: Loop, tmp_path: Path) -> None:
    import pty
    import tty

    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    master, slave = pty.openpty()
    tty.setraw(slave)
    fd = reader(str(tmp_path / "out"))
    copied = Output(loop, os.dup(master), "stdout", None, str(tmp_path / "out"))
    Input(loop, str(tmp_path / "in"), master, is_pty=True)
    os.write(slave, b"prompt")
    turn(loop, lambda: read_all(fd) == b"prompt")
    writer = os.open(tmp_path / "in", os.O_WRONLY)
    os.write(writer, b"typed")
    os.set_blocking(slave, False)
    seen = b""
    while seen != b"typed":
        loop.turn(0.02)
        seen += read_all(slave)
    os.close(slave)
    turn(loop, lambda: copied.ended)  # EIO on the master is its end


@pytest.mark.parametrize(
    ("uri", "meaning"),
    [
        ("", ("", "")),
        ("/run/x", ("fifo", "/run/x")),
        ("fifo:///run/x", ("fifo", "/run/x")),
        ("file:///var/log/x", ("file", "/var/log/x")),
        ("binary:///bin/l?a=b", ("binary", "/bin/l?a=b")),
    ],
)
def test_schemes(uri: str, meaning: tuple[str, str]) -> None:
    assert scheme_of(uri) == meaning


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        scheme_of("http://x")

"""The json-file log writer: docker's lines, whatever the pieces, and rotation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxship.shim.logs import PIECE, JsonFile


def entries(path: Path, files: int = 1) -> list[dict[str, object]]:
    names = [f"{path}.{n}" for n in range(files - 1, 0, -1)] + [str(path)]
    return [json.loads(line) for name in names if os.path.exists(name) for line in open(name, encoding="utf-8")]


def texts(path: Path, files: int = 1) -> list[object]:
    return [entry["log"] for entry in entries(path, files)]


def test_a_line_is_log_stream_and_time(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"))
    log.write("stdout", b"hello\n")
    log.close()
    (entry,) = entries(tmp_path / "l")
    assert list(entry) == ["log", "stream", "time"]
    assert (entry["log"], entry["stream"]) == ("hello\n", "stdout")
    time = str(entry["time"])
    assert len(time) == len("2026-01-02T03:04:05.000000006Z")
    assert time.endswith("Z")


def test_attrs_go_into_every_line(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), attrs={"app": 'a"b', "a": "1"})
    log.write("stdout", b"x\ny\\z\n")
    log.close()
    assert [entry["attrs"] for entry in entries(tmp_path / "l")] == [{"app": 'a"b', "a": "1"}] * 2


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a\n"]),
        (b"\n\n", ["\n", "\n"]),
        (b"a\nb", ["a\n", "b"]),
        (b'quote " and \\n\n', ['quote " and \\n\n']),
        (b"back\\\nslash\n", ["back\\\n", "slash\n"]),
        (b"tab\t bell\x07 nul\0 cr\r\n", ["tab\t bell\x07 nul\0 cr\r\n"]),
        ("ünï ☃ \u2028\n".encode(), ["ünï ☃ \u2028\n"]),
        (b"bad \xff utf\n", ["bad \ufffd utf\n"]),
        (b"x" * PIECE, ["x" * PIECE]),
        (b"x" * PIECE + b"\n", ["x" * PIECE, "\n"]),
        (b"x" * (PIECE - 1) + b"\n", ["x" * (PIECE - 1) + "\n"]),
        (b"x" * (2 * PIECE + 5) + b"\ny\n", ["x" * PIECE, "x" * PIECE, "xxxxx\n", "y\n"]),
    ],
)
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_lines_are_cut_as_docker_does_whatever_the_pieces(
    tmp_path: Path, given: bytes, lines: list[str], step: int
) -> None:
    log = JsonFile(str(tmp_path / "l"))
    for at in range(0, len(given), step):
        log.write("stderr", given[at : at + step])
    log.finish("stderr")
    log.close()
    assert texts(tmp_path / "l") == lines


def test_any_bytes_come_back(tmp_path: Path) -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.binary(max_size=80), max_size=8))
    def check(pieces: list[bytes]) -> None:
        path = tmp_path / "l"
        path.unlink(missing_ok=True)
        log = JsonFile(str(path))
        for piece in pieces:
            log.write("stdout", piece)
        log.close()
        assert "".join(map(str, texts(path))) == b"".join(pieces).decode("utf-8", "replace")

    # A character cut by a newline is two broken halves for docker as well; whole lines are decoded at once.
    check()


def test_streams_do_not_mix_their_unfinished_lines(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"))
    log.write("stdout", b"out")
    log.write("stderr", b"err")
    log.write("stdout", b"1\n")
    log.close()
    assert [(e["stream"], e["log"]) for e in entries(tmp_path / "l")] == [
        ("stdout", "out1\n"),
        ("stderr", "err"),
    ]


def test_a_full_file_starts_a_new_one_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "l"
    log = JsonFile(str(path), max_size=300, max_files=3)
    for number in range(20):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["l", "l.1", "l.2"]
    kept = texts(path, 3)
    assert kept == [f"line {n}\n" for n in range(20 - len(kept), 20)]
    assert all((tmp_path / name).stat().st_size <= 300 for name in ("l", "l.1", "l.2"))


def test_one_block_is_spread_over_files(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), max_size=300, max_files=100)
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(50)))
    log.close()
    assert texts(tmp_path / "l", 100) == [f"line {n}\n" for n in range(50)]


def test_with_one_file_it_starts_over(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), max_size=200)
    for number in range(10):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert texts(tmp_path / "l")[-1] == "line 9\n"
    assert (tmp_path / "l").stat().st_size <= 200


def test_a_log_is_continued(tmp_path: Path) -> None:
    for word in (b"one\n", b"two\n"):
        log = JsonFile(str(tmp_path / "l"))
        log.write("stdout", word)
        log.close()
        log.close()
    assert texts(tmp_path / "l") == ["one\n", "two\n"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_loses_lines_and_counts_them(tmp_path: Path) -> None:
    log = JsonFile("/dev/full")
    log.write("stdout", b"a\nb\n")
    log.close()
    assert log.lost == 2

"""Threads that make containers take turns, and none of them waits for ever."""

import os
import threading
import time

import pytest

from boxship.libcontainer import making


def test_there_are_as_many_turns_as_cpus_and_who_gets_none_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "PATIENCE", 0.02)
    turns = [making._take_turn() for _ in making._turns]
    try:
        assert len({id(turn) for turn in turns}) == len(os.sched_getaffinity(0))
        begin = time.monotonic()
        assert making._take_turn() is None
        assert time.monotonic() - begin >= 0.02
    finally:
        for turn in turns:
            assert turn is not None
            turn.release()
    again = making._take_turn()
    assert again is not None
    again.release()


def test_a_turn_that_is_given_back_goes_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "PATIENCE", 10.0)
    turns = [making._take_turn() for _ in making._turns]
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(making._take_turn()))
    waiting.start()
    for turn in turns:
        assert turn is not None
        turn.release()
    waiting.join(10)
    assert got[0] in turns
    got[0].release()  # type: ignore[attr-defined]  # a lock


def test_a_fork_takes_no_turn_with_it() -> None:
    turns = [making._take_turn() for _ in making._turns]
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if all(turn.acquire(False) for turn in making._turns) else 1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        for turn in turns:
            assert turn is not None
            turn.release()

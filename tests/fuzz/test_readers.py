"""A short run of each fuzzer, always with the same damage; `tests.fuzz.run` hunts for longer."""

from __future__ import annotations

import random

import pytest

from boxship.errors import BoxshipError

from .mutate import mutate
from .targets import TARGETS

ROUNDS = {"tar": 1500, "document": 4000, "challenge": 4000, "answer": 4000}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    accepted = 0
    for seed in TARGETS[name].seeds:
        try:
            TARGETS[name].run(seed)
            accepted += 1
        except BoxshipError:
            continue  # a config is no manifest
    assert accepted


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_a_boxship_error_or_nothing(name: str) -> None:
    target, chance = TARGETS[name], random.Random(2026)
    for number in range(ROUNDS[name]):
        data = mutate(target.seeds, target.words, chance)
        try:
            target.run(data)
        except BoxshipError:
            continue
        except BaseException as error:
            raise AssertionError(f"{name}: input {number} ({data[:200]!r}...): {error!r}") from error

"""Random damage to seeds, chosen by a number, so that whatever it finds can be found again."""

from __future__ import annotations

import random
from collections.abc import Callable

Damage = Callable[[bytearray, int, random.Random], None]


def _byte(out: bytearray, at: int, chance: random.Random) -> None:
    out[at] = chance.randrange(256)


def _bit(out: bytearray, at: int, chance: random.Random) -> None:
    out[at] ^= 1 << chance.randrange(8)


def _replace(out: bytearray, at: int, chance: random.Random) -> None:
    out[at : at + chance.randint(1, 12)] = chance.randbytes(chance.randint(0, 12))


def _repeat(out: bytearray, at: int, chance: random.Random) -> None:
    out[at:at] = out[at : at + chance.choice((1, 16, 512))] * chance.randint(1, 4)


def _remove(out: bytearray, at: int, chance: random.Random) -> None:
    del out[at : at + chance.choice((1, 16, 512))]


def _cut(out: bytearray, at: int, chance: random.Random) -> None:
    del out[at:]


DAMAGES: tuple[Damage, ...] = (_byte, _byte, _bit, _replace, _repeat, _remove, _cut)


def mutate(seeds: list[bytes], words: list[bytes], chance: random.Random) -> bytes:
    """One of the seeds, sometimes with the end of another, with a few damages or words in it."""
    out = bytearray(chance.choice(seeds))
    if chance.random() < 0.1:
        other = chance.choice(seeds)
        out = out[: chance.randrange(len(out) + 1)] + other[chance.randrange(len(other)) :]
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(out) + 1)
        if words and chance.random() < 0.2:
            word = chance.choice(words)
            out[at : at + chance.choice((0, len(word)))] = word
        elif at < len(out):
            chance.choice(DAMAGES)(out, at, chance)
    return bytes(out)

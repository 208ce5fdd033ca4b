"""Fuzz one target for a while: ``python -m tests.fuzz.run --seconds 600 tar``.

Guided by coverage where atheris (libFuzzer for Python) is installed: ``pip install -e '.[fuzz]'``.  Else by chance:
seeds with random damage.  What is found is written to ``--keep`` (a directory), with the traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import time
from pathlib import Path

MODULES = (
    "boxship.image.tar", "boxship.image.registry.session", "boxship.oci.image", "boxship.oci.digest",
    "boxship.http.client", "boxship.oci.strict_json", "boxship.oci.shapes", "boxship.oci.documents",
    "boxship.image.validate", "boxship.registry.manifests", "boxship.registry.names",
)  # fmt: skip
SLOW = 10.0
"""Seconds after which one input counts as a fault."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description="Fuzz a reader of what strangers send.")
    parser.add_argument("target", choices=["tar", "document", "challenge", "answer"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where findings and the corpus go")
    parser.add_argument("--by-chance", action="store_true", help="without atheris, even where it is installed")
    options = parser.parse_args()
    corpus = options.keep / f"corpus-{options.target}"
    corpus.mkdir(parents=True, exist_ok=True)
    if not options.by_chance and importlib.util.find_spec("atheris"):
        return _guided(options.target, options.seconds, options.keep, corpus)
    return _by_chance(options.target, options.seconds, options.keep)


def _guided(name: str, seconds: int, keep: Path, corpus: Path) -> int:
    import atheris

    with atheris.instrument_imports(include=list(MODULES)):
        from .targets import TARGETS
    from boxship.errors import BoxshipError

    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = corpus.parent / f"words-{name}"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))

    def one(data: bytes) -> None:
        try:
            target.run(data)
        except BoxshipError:
            pass  # what a reader may say

    arguments = [
        sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-artifact_prefix={keep}/{name}-", f"-dict={words}",
        f"-timeout={int(SLOW)}", "-max_len=16384", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup(arguments, one)
    atheris.Fuzz()  # ends the process: 0, or 77 when something was found
    return 0


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _by_chance(name: str, seconds: int, keep: Path) -> int:
    from boxship.errors import BoxshipError

    from .mutate import mutate
    from .targets import TARGETS

    target, seed = TARGETS[name], int.from_bytes(os.urandom(4), "big")
    chance, end, rounds = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutate(target.seeds, target.words, chance)
        rounds += 1
        before = time.monotonic()
        try:
            target.run(data)
        except BoxshipError:
            pass  # what a reader may say
        except BaseException:
            (keep / f"{name}-crash-{seed}-{rounds}").write_bytes(data)
            raise
        if time.monotonic() - before > SLOW:
            (keep / f"{name}-slow-{seed}-{rounds}").write_bytes(data)
            raise TimeoutError(f"{name}: one input of {len(data)} bytes took {time.monotonic() - before:.0f} s")
    print(f"{name}: {rounds} inputs in {seconds} s (seed {seed}), nothing but BoxshipErrors")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long does the library need for create + start + wait of a static `true`, in a warm process?

The same configuration each time, most of whose plan is taken over from the one before, and one that is new each time.
Beside a bare C program that makes the same namespaces and mounts (the floor) and beside `runc run`, interleaved in an
order that is drawn anew each round (what one leaves the kernel to clean up, the next one pays for), back to back and
after 120 ms of nothing. Aims: at most 1.6 x the floor and 0.15 x runc, both ways.
Needs root, cc, a static busybox, and runc (without it only the floor is measured).
"""

import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from container_fixture import IDLE, bundle, floor, report, state_directory

from boxship.libcontainer.container import Container

ROUNDS = 40


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    runc = shutil.which("runc")
    root = state_directory()
    reached = True
    try:
        with bundle() as directory, floor(directory) as bare:
            spec = json.loads((Path(directory) / "config.json").read_text())

            def library(spec: "dict[str, Any]" = spec) -> float:
                begin = time.perf_counter()
                container = Container.create("bench", directory, root=root + "/ours", spec=spec, keep_spec=False)
                container.start()
                code = container.wait()
                end = time.perf_counter()
                container.delete()
                assert code == 0
                return (end - begin) * 1e3

            numbers = itertools.count()

            def another() -> float:
                return library({**spec, "hostname": f"bench-{next(numbers)}"})

            def peer() -> float:
                begin = time.perf_counter()
                subprocess.run([runc, "--root", root + "/runc", "run", "-b", directory, "bench"], check=True)
                return (time.perf_counter() - begin) * 1e3

            ways = {"floor": bare, "library": library, "library, new": another}
            if runc:
                ways["runc run"] = peer
            for way in ways.values():
                way()  # warm: the filter is compiled, files are cached
            for title, pause in (("back to back", 0.0), ("after 120 ms idle", IDLE)):
                times: dict[str, list[float]] = {name: [] for name in ways}
                order = random.Random(1)
                for _ in range(rounds):
                    for name, way in order.sample(list(ways.items()), len(ways)):
                        time.sleep(pause)
                        times[name].append(way())
                ratios: list[tuple[str, str, float | None]] = [("library", "floor", 1.6)]
                ratios.append(("library, new", "floor", None))
                ratios += [("library", "runc run", 0.15)] if runc else []
                reached = report(f"create + start + wait of true, {title}:", times, ratios) and reached
    finally:
        shutil.rmtree(root)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

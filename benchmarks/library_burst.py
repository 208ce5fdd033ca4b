"""How long do 100 starts by the library take, 10 at a time in threads of one process, beside `runc run`?

Each is create + start + wait + delete of a static `true`; rounds alternate. Aim: at most 0.2 of runc's wall time.
Needs root, a static busybox, and runc (or another in $RUNC).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from container_fixture import bundle, report, state_directory

from boxship.libcontainer.container import Container

ROUNDS = 5
STARTS = 100
AT_A_TIME = 10


def main() -> int:
    runc = os.environ.get("RUNC") or shutil.which("runc")
    if runc is None:
        print("needs runc")
        return 2
    root = state_directory()
    try:
        with bundle() as directory, ThreadPoolExecutor(AT_A_TIME) as pool:
            spec = json.loads((Path(directory) / "config.json").read_text())

            def library(number: int) -> int:
                id = f"bench-{number}"
                container = Container.create(id, directory, root=root + "/ours", spec=spec, keep_spec=False)
                container.start()
                code = container.wait()
                container.delete()
                return code

            def peer(number: int) -> int:
                command = [runc, "--root", root + "/runc", "run", "-b", directory, f"bench-{number}"]
                return subprocess.run(command, check=False).returncode

            def burst(way: "Callable[[int], int]") -> float:
                begin = time.perf_counter()
                codes = list(pool.map(way, range(STARTS)))
                took = (time.perf_counter() - begin) * 1e3
                assert codes == [0] * STARTS
                return took

            ways = {"library": library, "runc run": peer}
            for way in ways.values():
                way(0)
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    times[name].append(burst(way))
            title = f"{STARTS} starts, {AT_A_TIME} at a time:"
            return 0 if report(title, times, [("library", "runc run", 0.2)]) else 1
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())

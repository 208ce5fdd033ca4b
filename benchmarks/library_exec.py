"""How long does the library need to run one more process in a container, beside `runc exec`?

The same bundle, interleaved, back to back and after 120 ms of nothing: exec of a static `true` and wait for it.
Aim: at most 0.1 of runc. Needs root, a static busybox, and runc (or another in $RUNC).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from container_fixture import IDLE, bundle, report, state_directory

from boxship.libcontainer.container import Container

ROUNDS = 40


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    runc = os.environ.get("RUNC") or shutil.which("runc")
    if runc is None:
        print("needs runc")
        return 2
    root = state_directory()
    reached = True
    try:
        with bundle() as directory:
            file = Path(directory) / "config.json"
            spec = json.loads(file.read_text())
            spec["process"]["args"] = ["sleep", "1000"]
            file.write_text(json.dumps(spec))
            process = {**spec["process"], "args": ["true"]}
            base = [runc, "--root", root + "/runc"]
            container = Container.create("bench", directory, root=root + "/ours")
            null = subprocess.DEVNULL
            try:
                container.start()
                command = [*base, "run", "-d", "-b", directory, "bench"]
                subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)

                def library() -> float:
                    begin = time.perf_counter()
                    code = container.exec(process).wait()
                    assert code == 0
                    return (time.perf_counter() - begin) * 1e3

                def peer() -> float:
                    begin = time.perf_counter()
                    subprocess.run([*base, "exec", "bench", "true"], check=True)
                    return (time.perf_counter() - begin) * 1e3

                ways = {"library": library, "runc exec": peer}
                for way in ways.values():
                    way()
                for title, pause in (("back to back", 0.0), ("after 120 ms idle", IDLE)):
                    times: dict[str, list[float]] = {name: [] for name in ways}
                    for _ in range(rounds):
                        for name, way in ways.items():
                            time.sleep(pause)
                            times[name].append(way())
                    aims = [("library", "runc exec", 0.1)]
                    reached = report(f"exec + wait of true, {title}:", times, aims) and reached
            finally:
                container.delete(force=True)
                subprocess.run([*base, "delete", "-f", "bench"], check=True)
    finally:
        shutil.rmtree(root)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

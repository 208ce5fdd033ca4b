"""How long does `boxship-runc run` of a static `true` need, cold, beside `runc run`?

The same bundle, interleaved, back to back and after 120 ms of nothing. Aim: at most 0.6 of runc.
Needs root, a static busybox, runc, and boxship installed beside this Python.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from container_fixture import IDLE, bundle, report, state_directory

ROUNDS = 25


def run(program: str, root: str, directory: str) -> float:
    """Milliseconds of one whole command, by posix_spawn: subprocess would add its own work."""
    arguments = [program, "--root", root, "run", "-b", directory, "bench"]
    begin = time.perf_counter()
    pid = os.posix_spawn(program, arguments, dict(os.environ))
    _, status = os.waitpid(pid, 0)
    end = time.perf_counter()
    assert status == 0, f"{program} failed"
    return (end - begin) * 1e3


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    ours = Path(sys.executable).parent / "boxship-runc"
    runc = shutil.which("runc")
    if runc is None or not ours.exists():
        print("needs runc and an installed boxship-runc")
        return 2
    programs = {"boxship-runc run": str(ours), "runc run": runc}
    root = state_directory()
    reached = True
    try:
        with bundle() as directory:
            for name, program in programs.items():
                run(program, f"{root}/{name[:4]}", directory)
            for title, pause in (("back to back", 0.0), ("after 120 ms idle", IDLE)):
                times: dict[str, list[float]] = {name: [] for name in programs}
                for _ in range(rounds):
                    for name, program in programs.items():
                        time.sleep(pause)
                        times[name].append(run(program, f"{root}/{name[:4]}", directory))
                aims = [("boxship-runc run", "runc run", 0.6)]
                reached = report(f"the whole command, {title}:", times, aims) and reached
    finally:
        shutil.rmtree(root)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

"""How long do commands of `boxship-runc` take, cold and with a warm plan server, beside runc's?

The same bundle, interleaved, back to back and after 120 ms of nothing. Aims: `run` of a static `true` cold at most
0.45 of runc and warm 0.2; `create`, `start`, `exec` and `delete`, warm, each at most 0.5.
Needs root, a static busybox, runc (or another in $RUNC), and boxship installed beside this Python.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from container_fixture import IDLE, bundle, report, state_directory

ROUNDS = 25
COLD, WARM, RUNC = "boxship-runc cold", "boxship-runc warm", "runc"
STEPS = ("create", "start", "exec", "delete")


class Runtime:
    """One way of giving commands: a program, its state directory, and where it looks for a plan server."""

    def __init__(self, program: str, root: str, plan_server: str) -> None:
        self._program = program
        self._root = root
        self._environment = {**os.environ, "BOXSHIP_PLAN_SERVER": plan_server}
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def __call__(self, *words: str) -> float:
        """Milliseconds of one whole command, by posix_spawn: subprocess would add its own work."""
        arguments = [self._program, "--root", self._root, *words]
        # What a created container keeps open must not be ours.
        streams = [(os.POSIX_SPAWN_DUP2, self._null, number) for number in (0, 1)]
        begin = time.perf_counter()
        pid = os.posix_spawn(self._program, arguments, self._environment, file_actions=streams)
        _, status = os.waitpid(pid, 0)
        end = time.perf_counter()
        if status:
            raise SystemExit(f"failed: {' '.join(arguments)}")
        return (end - begin) * 1e3


def sleeper(directory: str) -> str:
    """A second bundle on the same root file system, of a program that stays."""
    path = directory + "/sleeper"
    os.mkdir(path)
    spec = json.loads((Path(directory) / "config.json").read_text())
    spec["process"]["args"] = ["sleep", "1000"]
    spec["root"]["path"] = directory + "/rootfs"
    (Path(path) / "config.json").write_text(json.dumps(spec))
    return path


def measure(runtimes: "dict[str, Runtime]", directory: str, sleeping: str, rounds: int, pause: float) -> bool:
    whole: dict[str, list[float]] = {f"{name} run": [] for name in runtimes}
    steps: dict[str, list[float]] = {f"{name} {step}": [] for step in STEPS for name in runtimes}
    for _ in range(rounds):
        for name, runtime in runtimes.items():
            time.sleep(pause)
            whole[f"{name} run"].append(runtime("run", "-b", directory, "bench"))
            words = {
                "create": ("create", "-b", sleeping, "steps"),
                "start": ("start", "steps"),
                "exec": ("exec", "steps", "true"),
                "delete": ("delete", "-f", "steps"),
            }
            for step in STEPS:
                time.sleep(pause)
                steps[f"{name} {step}"].append(runtime(*words[step]))
    title = f"after {pause * 1e3:.0f} ms idle" if pause else "back to back"
    reached = report(
        f"run of true, {title}:", whole, [(f"{COLD} run", f"{RUNC} run", 0.45), (f"{WARM} run", f"{RUNC} run", 0.2)]
    )
    aims = [(f"{WARM} {step}", f"{RUNC} {step}", 0.5) for step in STEPS]
    return report(f"one step each, {title}:", steps, aims) and reached


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    ours = Path(sys.executable).parent / "boxship-runc"
    runc = os.environ.get("RUNC") or shutil.which("runc")
    if runc is None or not ours.exists():
        print("needs runc and an installed boxship-runc")
        return 2
    root = state_directory()
    plans = root + "/plans.sock"
    server = subprocess.Popen([str(ours), "serve", "--socket", plans])
    reached = True
    try:
        while not os.path.exists(plans):
            time.sleep(0.01)
        runtimes = {
            COLD: Runtime(str(ours), root + "/cold", "none"),
            WARM: Runtime(str(ours), root + "/warm", plans),
            RUNC: Runtime(runc, root + "/runc", "none"),
        }
        with bundle() as directory:
            sleeping = sleeper(directory)
            for runtime in runtimes.values():
                runtime("run", "-b", directory, "bench")  # the filter is compiled, files are cached
            for pause in (0.0, IDLE):
                reached = measure(runtimes, directory, sleeping, rounds, pause) and reached
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(root)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())

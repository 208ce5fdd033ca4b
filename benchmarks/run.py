"""Every benchmark, one after the other; ``make bench``.  Each measures its baseline in the same run."""

import subprocess
import sys
from pathlib import Path

ALL = (
    "library_start",
    "library_exec",
    "library_burst",
    "runtime_cli",
    "container_memory",
    "docker_run",
    "containers_by_ctr",
    "shim_memory",
    "image_unpack",
    "image_pull",
    "image_copy",
    "new_layers",
    "answers_while_loading",
)


def main() -> int:
    missed = []
    for name in sys.argv[1:] or ALL:
        print(f"== {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        if subprocess.run([sys.executable, str(script)], check=False).returncode:
            missed.append(name)
        print(flush=True)
    if missed:
        print(f"aims missed in: {', '.join(missed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

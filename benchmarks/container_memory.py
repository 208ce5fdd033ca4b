"""How much memory does a container cost: created (only our executor waits) and running (the kernel's share too)?

Created: what its process has resident for itself, at most 100 KB. Running: what the machine has less of for each of
50 containers of a sleeping static busybox (process, namespaces, mounts, cgroups), at most 1 MB; runc's containers
beside it, which cost the kernel the same.
Needs root, a static busybox, and runc (or another in $RUNC).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from container_fixture import bundle, state_directory

from boxship.libcontainer.container import Container

COUNT = 50


def available() -> int:
    """KB that the machine could still give out, once what is being given back has been."""
    time.sleep(1)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"MemAvailable:\s+(\d+)", text)
    assert found
    return int(found.group(1))


def resident(pid: int) -> "tuple[int, int]":
    """(RSS, private) in KB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss = re.search(r"^Rss:\s+(\d+)", text, re.MULTILINE)
    assert rss
    return int(rss.group(1)), sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+)", text, re.MULTILINE))


def cost(make: "Callable[[int], None]", remove: "Callable[[int], None]") -> float:
    """KB for each of COUNT running containers."""
    before = available()
    try:
        for number in range(COUNT):
            make(number)
        return (before - available()) / COUNT
    finally:
        for number in range(COUNT):
            remove(number)


def main() -> int:
    runc = os.environ.get("RUNC") or shutil.which("runc")
    if runc is None:
        print("needs runc")
        return 2
    root = state_directory()
    try:
        with bundle() as directory:
            file = Path(directory) / "config.json"
            spec = json.loads(file.read_text())
            spec["process"]["args"] = ["sleep", "1000"]
            file.write_text(json.dumps(spec))
            made: dict[int, Container] = {}
            base = [runc, "--root", root + "/runc"]
            null = subprocess.DEVNULL

            def make(number: int) -> None:
                made[number] = Container.create(f"memory-{number}", directory, root=root + "/ours")
                made[number].start()

            def remove(number: int) -> None:
                if number in made:
                    made.pop(number).delete(force=True)

            def peer(number: int) -> None:
                command = [*base, "run", "-d", "-b", directory, f"memory-{number}"]
                subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)

            def remove_peer(number: int) -> None:
                subprocess.run([*base, "delete", "-f", f"memory-{number}"], stderr=null, check=False)

            with_created = Container.create("created", directory, root=root + "/ours")
            try:
                rss, private = resident(with_created.pid)
            finally:
                with_created.delete(force=True)
            peer(0)  # what happens once only
            remove_peer(0)
            ours, theirs = cost(make, remove), cost(peer, remove_peer)
    finally:
        shutil.rmtree(root)
    print(f"created: {rss} KB resident, {private} KB of them private (at most 100)")
    print(f"running: {ours:.0f} KB each of {COUNT} (at most 1024); runc's {theirs:.0f} KB")
    return 0 if rss <= 100 and ours <= 1024 else 1


if __name__ == "__main__":
    sys.exit(main())

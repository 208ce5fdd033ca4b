"""A container in forty lines: make it, talk to it, look into it, limit it, and leave nothing behind.

    python examples/container_in_40_lines.py [ROOTFS]

Without a root file system it makes one of the static busybox. Root or not: as a user, limits are left out.
"""

import os
import shutil
import sys
import tempfile

from boxship.libcontainer import PIPE, Container, build_spec, run


def tiny_rootfs(directory: str) -> str:
    """A root file system of one program: /bin/sh and its friends, all the static busybox."""
    os.makedirs(directory + "/bin")
    shutil.copy2(shutil.which("busybox") or "busybox", directory + "/bin/busybox")
    for name in ("sh", "cat", "echo", "hostname", "sleep"):
        os.symlink("busybox", f"{directory}/bin/{name}")
    return directory


with tempfile.TemporaryDirectory() as directory:
    os.chmod(directory, 0o755)
    rootfs = sys.argv[1] if len(sys.argv) > 1 else tiny_rootfs(directory + "/rootfs")
    limits = {"memory": "64m", "pids": 20} if os.geteuid() == 0 else {}

    code, out, err = run(["sh", "-c", "echo hello from $(hostname)"], rootfs, hostname="box", **limits)
    print(code, out.decode().strip())

    with Container.create(build_spec(rootfs, ["cat"], **limits), stdin=PIPE) as container:
        container.start()
        with container.exec(["sh", "-c", "echo $COLOUR; exit 3"], env={"COLOUR": "green"}) as process:
            print(process.communicate()[0].decode().strip(), process.wait())
        print(container.status, len(container.pids()) > 0)
        out, _ = container.communicate(b"what goes in comes out\n")
        print(container.wait(), out.decode().strip())
    print([c.id for c in Container.list() if c.id == container.id])

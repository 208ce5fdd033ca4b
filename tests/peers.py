"""Installs the real programs that the tests talk to, from Debian, when they are missing; run by ``make test``.

Nothing is installed where it is there, or where there is no apt or no root: the tests that need it then skip and say
so, and in CI an unexpected skip fails the run (see conftest.py).
"""

import os
import shutil
import subprocess
import sys

# program -> Debian package
PEERS = {
    "busybox": "busybox-static",
    "containerd": "containerd",
    "ctr": "containerd",
    "dbus-daemon": "dbus-daemon",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "nft": "nftables",
    "ip": "iproute2",
    "openssl": "openssl",
    "podman": "podman",
    "runc": "runc",
    "skopeo": "skopeo",
    "strace": "strace",
    "umoci": "umoci",
    "unsquashfs": "squashfs-tools",
}


def main() -> int:
    packages = sorted({package for program, package in PEERS.items() if shutil.which(program) is None})
    if not os.path.exists("/usr/lib/x86_64-linux-gnu/libseccomp.so.2") and shutil.which("apt-get"):
        packages.append("libseccomp2")
    if not packages:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"tests: not installed, and cannot be by this user: {' '.join(packages)}", file=sys.stderr)
        return 0
    print(f"tests: installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Daemons that come with the packages are started by the tests themselves, on directories of their own.
    policy, made = "/usr/sbin/policy-rc.d", False
    if not os.path.exists(policy):
        with open(policy, "w") as f:
            f.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
        made = True
    try:
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=True, stdout=subprocess.DEVNULL)
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
        return subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode
    finally:
        if made:
            os.unlink(policy)


if __name__ == "__main__":
    sys.exit(main())

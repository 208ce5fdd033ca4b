"""A small Debian system of another architecture, as a directory: what a virtual machine with that processor starts.

Its packages come from this machine's sources, through an apt whose state and cache are apart from this machine's;
they are unpacked and not configured, so that nothing of another architecture has to run here.
What the tests import besides comes as wheels for that processor.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "base-files base-passwd bash busybox-static coreutils dash dbus-daemon findutils gcc grep iproute2 libc-bin "
    "libseccomp2 mount passwd procps python3 sed strace usr-is-merged util-linux"
).split()
PYTHON = "3.11"  # the release's
TEST_REQUIREMENTS = ("hypothesis", "pytest", "pytest-asyncio")  # of the extra "dev"
APT = """\
Dir::State "{directory}/state";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Etc::parts "{directory}/none";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
"""


def apt(directory: Path, architecture: str) -> dict[str, str]:
    """The environment in which apt works for ``architecture`` and keeps its files in ``directory``."""
    environment = {**os.environ, "APT_CONFIG": str(directory / "apt.conf"), "LC_ALL": "C"}
    if not (directory / "apt.conf").exists():
        for name in ("state/lists/partial", "cache/archives/partial", "none"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        configuration = directory / "apt.conf.new"
        configuration.write_text(APT.format(directory=directory, architecture=architecture))
        update = ["apt-get", "-qq", "update"]
        subprocess.run(update, check=True, env={**environment, "APT_CONFIG": str(configuration)})
        configuration.rename(directory / "apt.conf")
    return environment


def requirements() -> list[str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["dev"]
    return [*project["dependencies"], *(each for each in extra if re.split(r"[<>=]", each)[0] in TEST_REQUIREMENTS)]


def system(directory: Path, architecture: str, machine: str) -> Path:
    """The root of a system for ``architecture``, ``machine`` in uname's words; made anew when its list changed."""
    root, made = directory / "root", directory / "root.made"
    wanted = "\n".join([*PACKAGES, PYTHON, *requirements()])
    if made.exists() and made.read_text() == wanted:
        return root
    made.unlink(missing_ok=True)
    if root.exists():
        shutil.rmtree(root)
    environment = apt(directory / "apt", architecture)
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", "install", *PACKAGES]
    subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)
    for name in ("bin", "sbin", "lib"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted((directory / "apt/cache/archives").glob("*.deb")):
        files = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", str(root)], stdin=files.stdout, check=True)
        if files.wait():
            raise subprocess.CalledProcessError(files.returncode, str(package))
    for name in ("passwd", "group"):
        shutil.copy2(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    _install(root / "usr/lib/python3/dist-packages", machine)
    if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON:  # else it compiles its library at each start
        compile = [sys.executable, "-m", "compileall", "-q", "-s", str(root), "-p", "/"]
        subprocess.run([*compile, str(root / f"usr/lib/python{PYTHON}")], check=False)
    made.write_text(wanted)
    return root


def _install(target: Path, machine: str) -> None:
    platforms = [f"--platform=manylinux{version}_{machine}" for version in ("2014", "_2_17", "_2_28", "_2_34")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(target),
         *platforms, "--python-version", PYTHON, "--only-binary", ":all:", *requirements()],
        check=True,
    )  # fmt: skip

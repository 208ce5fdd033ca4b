"""The build hook: compiles the native programs, makes the hello image, and puts the launchers beside Python.

Everything that it makes is data of the wheel: ``boxship/_native/executor``, ``boxship/_images/hello/``, and two
programs for the environment's bin directory, ``boxship-runc`` and ``containerd-shim-boxship-v2``, which are the
same launcher.
They are compiled without a C library, so any C compiler will do and nothing is linked against the build machine:
with a cross compiler as $CC a wheel for its machine comes out.
``python hatch_build.py`` does the same in place, for a checkout.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NATIVE, PACKAGE = ROOT / "native", ROOT / "src" / "boxship"
BUILD = NATIVE / "build"

# norelro: nothing is relocated, and aarch64's linker would fill the file up to the next 64 KB for that.
FLAGS = (
    "-std=gnu11 -Os -s -Wall -Wextra -nostdlib -static -ffreestanding -fno-builtin -fno-stack-protector -fno-pie "
    "-no-pie -fno-asynchronous-unwind-tables -fno-unwind-tables -fomit-frame-pointer -Wl,--build-id=none "
    "-Wl,-z,noseparate-code -Wl,-z,noexecstack -Wl,-z,norelro"
).split()
# gcc turns a loop into a call of memset, also inside memset; clang has other names for the same.
GCC_FLAGS = ["-fno-tree-loop-distribute-patterns"]

LAUNCHERS = ("boxship-runc", "containerd-shim-boxship-v2")


def compiler() -> str:
    """The C compiler: $CC, or the first of cc, gcc, clang that is there."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name
    raise SystemExit("boxship needs a C compiler to build (cc, gcc or clang): install one, or set CC")


def machine() -> str:
    """The machine that the compiler compiles for, in uname's words."""
    command = [*compiler().split(), "-dumpmachine"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("-")[0]


def compile_program(source: Path, target: Path, *options: str) -> Path:
    """Compile one self-contained C file (no libc) into a static program."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = compiler().split()
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    extra = [] if "clang" in version else GCC_FLAGS
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    subprocess.run([*command, *FLAGS, *extra, *options, str(source), "-o", str(temporary)], check=True)
    temporary.chmod(0o755)
    temporary.rename(target)  # a program that is running right now keeps its own file
    return target


def write_header() -> None:
    """native/ops.h from the vocabulary's declaration; written only when it changed."""
    sys.path.insert(0, str(PACKAGE.parent))
    try:
        from boxship.libcontainer.plan.header import header
    finally:
        sys.path.pop(0)
    path, text = NATIVE / "ops.h", header()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def make_hello_image() -> None:
    """The built-in image: hello.c as the one file of an OCI layout."""
    source = NATIVE / "hello.c"
    if not source.exists():
        return
    program = compile_program(source, BUILD / "hello")
    sys.path.insert(0, str(NATIVE))
    try:
        from make_hello import make_layout
    finally:
        sys.path.pop(0)
    make_layout(program, PACKAGE / "_images" / "hello", machine())


def build(*, editable: bool) -> dict[str, str]:
    """Compile everything; returns {built file: name in bin}."""
    write_header()
    for name in ("executor", "init"):
        compile_program(NATIVE / f"{name}.c", PACKAGE / "_native" / name)
    options = [f'-DPACKAGE="{PACKAGE}"'] if editable else []
    kind = "editable" if editable else "wheel"
    launcher = compile_program(NATIVE / "launcher.c", BUILD / kind / "launcher", *options)
    make_hello_image()
    scripts = {}
    for name in LAUNCHERS:
        copy = launcher.with_name(name)
        shutil.copy2(launcher, copy)
        scripts[str(copy)] = name
    return scripts


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    BuildHookInterface = object  # run as a program, in a checkout without hatchling


class NativeBuildHook(BuildHookInterface):
    """hatchling's entry; see the module."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict) -> None:
        if self.target_name != "wheel":
            return
        build_data["shared_scripts"] = build(editable=version == "editable")
        build_data["pure_python"] = False
        # Any Python 3, but one machine: the programs are static.
        build_data["tag"] = f"py3-none-linux_{machine()}"


if __name__ == "__main__":
    bin = Path(sys.executable).parent
    for built, name in build(editable=True).items():
        target = bin / name
        shutil.copy2(built, target.with_name(f".{name}"))
        target.with_name(f".{name}").rename(target)

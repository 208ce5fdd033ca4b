"""A cold start reads one file: what is in it, when it is believed, and how it grows."""

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import boxship.coldstart

# As the launcher does: from the file where there is one, else by importing (launcher.c).
LAUNCH = """
import sys, marshal
root, path, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, root)
try:
    content = marshal.loads(open(path, "rb").read())
except OSError:
    content = None
if content:
    type(lambda: 0)(content[0], {"__builtins__": __builtins__})(content, "boxship.program", arguments)
from boxship.coldstart import start
sys.exit(start(root, "boxship.program", arguments, path))
"""

PROGRAM = """
from __future__ import annotations
import sys
from . import errors

def main(argv: Unknown) -> int:
    if "extra" in argv:
        from . import extra
        extra.hello()
    print("preloaded" if "boxship.coldstart" not in sys.modules else "imported", "__future__" in sys.modules)
    return 1 if "fail" in argv else 0
"""


class Package:
    """A package by the name of ours in a directory, and its file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        package = root / "boxship"
        package.mkdir()
        for name in ("__init__", "errors"):
            (package / f"{name}.py").write_text("")
        (package / "extra.py").write_text("def hello():\n    print('extra')\n")
        (package / "program.py").write_text(PROGRAM)
        shutil.copy(boxship.coldstart.__file__, package / "coldstart.py")
        self.path = package / "__pycache__" / "cold"

    def run(self, *words: str, code: int = 0) -> "list[str]":
        command = [sys.executable, "-I", "-S", "-c", LAUNCH, str(self.root), str(self.path), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout.split("\n")[:-1]

    def modules(self) -> "list[str]":
        return [name for name, *_ in marshal.loads(self.path.read_bytes())[2]]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def test_the_first_run_imports_and_the_others_read_the_file(package: Package) -> None:
    assert package.run() == ["imported True"]
    assert package.modules() == ["boxship", "boxship.errors", "boxship.program"]
    assert package.run() == ["preloaded False"]


def test_a_source_that_changed_makes_the_file_stale(package: Package) -> None:
    package.run()
    source = package.root / "boxship" / "extra.py"
    program = package.root / "boxship" / "program.py"
    os.utime(source, ns=(1, 1))  # not in the file
    assert package.run() == ["preloaded False"]
    program.write_text(PROGRAM.replace('"preloaded"', '"anew"'))
    assert package.run() == ["imported True"]
    assert package.run() == ["anew False"]


def test_a_failed_run_writes_nothing(package: Package) -> None:
    package.run("fail", code=1)
    assert not package.path.exists()


def test_what_a_run_had_to_import_is_in_the_next_file(package: Package) -> None:
    package.run()
    assert package.run("extra") == ["extra", "preloaded False"]  # from the file, and extra by importing
    assert not package.path.exists()
    assert package.run() == ["imported True"]  # makes the file anew, with what is known to be wanted
    assert "boxship.extra" in package.modules()
    for words, said in ((("extra",), ["extra", "preloaded False"]), ((), ["preloaded False"])):
        assert package.run(*words) == said
        assert package.path.exists()


def test_a_module_that_is_gone_is_wanted_no_more(package: Package) -> None:
    package.run()
    package.run("extra")
    (package.root / "boxship" / "extra.py").unlink()
    assert package.run() == ["imported True"]
    assert package.run() == ["preloaded False"]
    assert package.path.exists()


def test_a_directory_that_cannot_be_written_is_no_failure(package: Package) -> None:
    package.path = Path("/proc/boxship-none/cold")
    assert package.run("extra") == ["extra", "imported True"]

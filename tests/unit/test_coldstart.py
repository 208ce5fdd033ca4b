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

ALWAYS = ["boxship", "boxship.errors", "boxship.program"]


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
        """What every run executes."""
        return [name for name, *_ in marshal.loads(self.path.read_bytes())[2]]

    def rest(self) -> "list[str]":
        """What waits to be imported."""
        return list(marshal.loads(self.path.read_bytes())[7])


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


def test_another_interpreter_does_not_believe_the_file(package: Package) -> None:
    """Two may share a directory: one of another machine, or one that took the other's place."""
    package.run()
    content = list(marshal.loads(package.path.read_bytes()))
    content[4] = [("_json", "/nosuch/_json.so")]
    for part in range(len(content[1])):
        other = list(content[1])
        other[part] = b"other" if part == 0 else "other"
        package.path.write_bytes(marshal.dumps((content[0], tuple(other), *content[2:])))
        assert package.run() == ["imported True"]
        assert package.run() == ["preloaded False"]


def test_a_package_that_was_moved_does_not_believe_its_file(package: Package, tmp_path: Path) -> None:
    package.run()
    copy = tmp_path / "copy"
    shutil.copytree(package.root, copy, ignore=shutil.ignore_patterns("copy"))
    package.root, package.path = copy, copy / "boxship/__pycache__/cold"
    assert package.run() == ["imported True"]
    assert package.run() == ["preloaded False"]


def test_a_module_that_is_gone_makes_the_file_stale(package: Package) -> None:
    assert package.run("extra") == ["extra", "imported True"]
    (package.root / "boxship" / "extra.py").unlink()
    assert package.run() == ["imported True"]


def test_a_failed_run_writes_nothing(package: Package) -> None:
    package.run("fail", code=1)
    assert not package.path.exists()


def test_what_some_runs_need_is_in_the_next_file_and_waits(package: Package) -> None:
    package.run()
    assert package.run("extra") == ["extra", "preloaded False"]  # from the file, and extra by importing
    assert not package.path.exists()
    assert package.run() == ["imported True"]  # makes the file anew, with what is known to be wanted
    assert (package.modules(), package.rest()) == (ALWAYS, ["boxship.extra"])
    extra = package.root / "boxship" / "extra.py"
    then = extra.stat()
    extra.write_text("!" * then.st_size)  # it is not read again
    os.utime(extra, ns=(then.st_mtime_ns, then.st_mtime_ns))
    for words, said in ((("extra",), ["extra", "preloaded False"]), ((), ["preloaded False"])):
        assert package.run(*words) == said
        assert package.path.exists()


def test_a_run_that_needs_more_does_not_make_the_file_dearer_for_the_others(package: Package) -> None:
    package.run()
    package.run("extra")
    assert package.run("extra") == ["extra", "imported True"]  # this one makes it
    assert (package.modules(), package.rest()) == (ALWAYS, ["boxship.extra"])


def test_what_waits_is_imported_as_usual_when_it_has_changed(package: Package) -> None:
    package.run()
    package.run("extra")
    package.run()
    (package.root / "boxship" / "extra.py").write_text("def hello():\n    print('changed extra')\n")
    assert package.run() == ["preloaded False"]
    assert package.run("extra") == ["changed extra", "preloaded False"]


def test_a_package_that_waits_has_its_place(package: Package) -> None:
    (package.root / "boxship" / "extra.py").unlink()
    inner = package.root / "boxship" / "extra"
    inner.mkdir()
    (inner / "deep.py").write_text("WORD = 'deep'\n")
    (inner / "__init__.py").write_text(
        "def hello():\n    from .deep import WORD\n    print(WORD, __path__ == [__file__.rpartition('/')[0]])\n"
    )
    for _ in range(2):
        package.run()
        assert package.run("extra") == ["deep True", "preloaded False"]
    assert set(package.rest()) == {"boxship.extra", "boxship.extra.deep"}


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

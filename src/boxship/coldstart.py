"""Starts a command of ours with one file read instead of forty imports.

Importing a module from its cached bytecode costs a quarter of a millisecond, mostly for finding it; a cold
``boxship-runc run`` needs forty.
So the first run of a verb records which of our modules it imported and in which order they were done, and writes
their code into one file beside the other cached bytecode, ``__pycache__/cold-PROGRAM-VERB.TAG``.
A later run checks that it is the same Python, which may not be the only one that uses this directory, and that no
source file has changed (as Python does: time and size), executes them in that order, and is where it would have been
after importing.
What only some runs need is in the file too, and left alone until it is imported, so that it costs the others nothing.
Without such a file, or when it is stale or cannot be written, everything is imported as usual.

The launcher runs ``python -I -S -c CODE ROOT ...``; CODE (in launcher.c) opens the file and executes its first
object, which is the code of ``preload`` below; failing that it imports this module and calls ``start``.
This module imports nothing that Python has not loaded at its start already.
"""

import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any


def preload(content: "tuple[Any, ...]", program: str, argv: "list[str]") -> None:
    """Run ``program`` from a file's content, and end; returns when the file is stale.

    The content is (our own code, what ``_interpreter`` says, [(module, source, is a package, time of change, size)],
    [code], [(extension module, file)], path of the file itself, LATE, {module: (source, is a package, time of change,
    size, marshalled code)}); extension modules are Python's own, and finding them takes as long as loading them. The
    last are the modules that not every run needs.
    Whoever calls us has only our code, so nothing but builtins may be used here.
    """
    import gc
    import posix
    import sys

    gc.disable()  # nothing that is made here is garbage
    _, interpreter, modules, codes, extensions, path, late, rest = content
    magic = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    machine = getattr(sys.implementation, "_multiarch", "")
    if interpreter != (magic, sys.version, machine, sys.base_exec_prefix, sys.path[0]):
        return
    for _, source, _, changed, size in modules:
        try:
            status = posix.stat(source)
        except OSError:
            return
        if status.st_mtime_ns != changed or status.st_size != size:
            return
    # os needs two names of this module, whose thirty abstract classes take a millisecond to make.
    # It gets plain stand-ins; whoever else asks for the module later gets the real one.
    if "os" not in sys.modules and "_collections_abc" not in sys.modules:
        stand_in = type(sys)("_collections_abc")

        class Mapping:
            def get(self, key: "Any", default: "Any" = None) -> "Any":
                try:
                    return self[key]  # type: ignore[index]
                except KeyError:
                    return default

            def __contains__(self, key: object) -> bool:
                return self.get(key) is not None

            def keys(self) -> "list[Any]":
                return [*self]  # type: ignore[misc]

            def items(self) -> "list[Any]":
                return [(key, self[key]) for key in self]  # type: ignore[attr-defined,index]

        stand_in.Mapping = stand_in.MutableMapping = Mapping  # type: ignore[attr-defined]
        stand_in._check_methods = lambda *_: NotImplemented  # type: ignore[attr-defined]
        sys.modules["_collections_abc"] = stand_in
        import os  # noqa: F401

        del sys.modules["_collections_abc"]
    bootstrap, external = sys.modules["_frozen_importlib"], sys.modules["_frozen_importlib_external"]
    for name, file in extensions:
        loader = external.ExtensionFileLoader(name, file)
        bootstrap._load(bootstrap.ModuleSpec(name, loader, origin=file))
    kind = type(sys)
    made = {}
    for name, source, package, _, _ in modules:
        module = kind(name)
        module.__file__ = source
        module.__package__ = name if package else name.rpartition(".")[0]
        if package:
            module.__path__ = [source.rpartition("/")[0]]
        made[name] = sys.modules[name] = module
    if rest:

        class Rest:
            """Finds and loads what the file holds for some runs; what has changed since is imported as usual."""

            def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
                if name not in rest:
                    return None
                source, package, changed, size, _ = rest[name]
                try:
                    status = posix.stat(source)
                except OSError:
                    return None
                if status.st_mtime_ns != changed or status.st_size != size:
                    return None
                spec = bootstrap.ModuleSpec(name, self, origin=source)
                spec.has_location = True
                if package:
                    spec.submodule_search_locations = [source.rpartition("/")[0]]
                return spec

            def create_module(self, spec: "Any") -> None:
                return None

            def exec_module(self, module: "Any") -> None:
                import marshal

                exec(marshal.loads(rest[module.__name__][4]), module.__dict__)

        sys.meta_path.insert(0, Rest())
    for (name, *_), body in zip(modules, codes):  # noqa: B905 - made together
        exec(body, made[name].__dict__)
        parent, _, child = name.rpartition(".")
        if parent in made:
            setattr(made[parent], child, made[name])
    gc.freeze()
    gc.enable()
    code = made[program].main(argv)
    if code == 0:
        more = [
            n
            for n in sys.modules
            if n[:8] == "boxship." and n not in made and n not in rest and not n.endswith(late)
        ]
        if more:
            from boxship.coldstart import want_more

            want_more(path, more, [*made, *(name for name, _ in extensions)])
    # End at once: taking the interpreter apart costs 2 ms, and nothing of ours waits for it.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    posix._exit(code)


class _Recorder:
    """A finder that stands before all others, and notes when each module of ours is done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, bool]] = []

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name.partition(".")[0] != "boxship":
            return None
        spec = sys.modules["_frozen_importlib_external"].PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None or not spec.origin:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: "Any") -> None:
            execute(module)
            self.done.append((name, spec.origin, spec.submodule_search_locations is not None))

        spec.loader.exec_module = exec_module
        return spec


# What they make is cached, so the first run of a verb needs them and the others do not; this module runs once, too.
LATE = ("seccomp.compiler", "seccomp.assembler", "seccomp.search", "linux.abi.syscalls", "boxship.coldstart")
RARE = ("termios",)
"""Extension modules that most runs do without: the first may have had a terminal."""


def _wanted(path: str) -> "tuple[list[str], list[str]]":
    """The modules that runs from a file had to import all the same, and those (extension modules too) that every run
    which made it needed; none when no file was made anew so far."""
    try:
        with open(path + ".more") as file:
            lines = file.read().split()
    except OSError:
        return [], []
    return [line for line in lines if line[0] != "+"], [line[1:] for line in lines if line[0] == "+"]


def want_more(path: str, names: "list[str]", main: "list[str]") -> None:
    """A run needed modules that the file lacks, as the run that made it went another way: let it be made anew.

    ``main`` is what the file has for every run, extension modules too.
    """
    import os

    known, _ = _wanted(path)
    if set(names) <= set(known):
        return  # they cannot be recorded, or somebody is about to
    temporary = f"{path}.more.{os.getpid()}"
    try:
        with open(temporary, "w") as file:
            file.write("\n".join([*sorted({*known, *names}), *("+" + name for name in main)]))
        os.replace(temporary, path + ".more")
        os.unlink(path)
    except OSError:
        return  # where nothing can be written, every run imports as usual


def _write(
    path: str, done: "list[tuple[str, str, bool]]", needed: int, extensions: "list[tuple[str, str]]"
) -> None:
    """Write the file of one verb; where that is not possible, every run imports as usual.

    ``done`` are its modules, of which this run needed the first ``needed``.
    """
    import os

    _, main = _wanted(path)
    modules, codes = [], []
    rest: dict[str, tuple[str, bool, int, int, bytes]] = {}
    for number, (name, source, package) in enumerate(done):
        if name.endswith(LATE):
            continue
        status = os.stat(source)
        with open(source, "rb") as f:
            # Without docstrings: a third of the size, and nobody asks for help() here.
            code = _compiled(f.read(), source)
        if number < needed and (not main or name in main):
            codes.append(code)
            modules.append((name, source, package, status.st_mtime_ns, status.st_size))
        else:
            rest[name] = (source, package, status.st_mtime_ns, status.st_size, marshal.dumps(code))
    extensions = [(name, file) for name, file in extensions if not main or name in main]
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as f:
            f.write(marshal.dumps((preload.__code__, _interpreter(), modules, codes, extensions, path, LATE, rest)))
        os.replace(temporary, path)
    except OSError:
        return


def _compiled(text: bytes, source: str) -> "CodeType":
    """The code of a module, without imports from ``__future__``: they are the compiler's, and would load a module."""
    import __future__

    import ast

    tree = ast.parse(text, source)
    flags = 0
    for statement in list(tree.body):
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            tree.body.remove(statement)
            for name in statement.names:
                flags |= getattr(__future__, name.name).compiler_flag
    code: CodeType = compile(tree, source, "exec", flags, dont_inherit=True, optimize=2)
    return code


def _interpreter() -> "tuple[bytes, str, str, str, str]":
    """Which Python this is and where our package is, as ``preload`` compares it: the file names extension modules by
    their paths, and sources by theirs."""
    magic: bytes = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    machine: str = getattr(sys.implementation, "_multiarch", "")
    return magic, sys.version, machine, sys.base_exec_prefix, sys.path[0]


def _extensions() -> "list[tuple[str, str]]":
    """The extension modules that are loaded now, with their files: the same interpreter has them."""
    found = []
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        if file and "." not in name and name not in RARE and isinstance(module.__loader__, _extension_loader()):
            found.append((name, file))
    return found


def _extension_loader() -> type:
    loader: type = sys.modules["_frozen_importlib_external"].ExtensionFileLoader
    return loader


def start(root: str, program: str, argv: "list[str]", path: str) -> int:
    """Run ``program`` (a module with ``main``) from the package below ``root``, and write its file; the exit code."""
    import gc

    gc.enable()  # the launcher's code has turned it off
    recorder = _Recorder()
    sys.meta_path.insert(0, recorder)
    run: Callable[[list[str]], int] = __import__(program, fromlist=["main"]).main
    try:
        status = run(argv)
        needed, extensions = len(recorder.done), _extensions()
        for name in _wanted(path)[0] if status == 0 else ():
            try:
                __import__(name)
            except ImportError:
                continue  # of another vintage
    finally:
        sys.meta_path.remove(recorder)
    if status == 0:  # a failed run may have imported half of what a good one needs
        _write(path, [("boxship", root + "/boxship/__init__.py", True), *recorder.done], needed + 1, extensions)
    return status

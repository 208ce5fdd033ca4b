"""The version of the installed distribution; read from its metadata only when asked for."""

import os
import sys


def version() -> str:
    """The version, or "unknown" when the package is used without having been installed."""
    # Beside the package, or for an editable installation beside the interpreter; -S keeps it out of sys.path.
    beside = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    prefix = os.path.dirname(os.path.dirname(sys.executable))
    library = f"{prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for parent in (beside, library):
        for name in sorted(os.listdir(parent)) if os.path.isdir(parent) else ():
            if name.startswith("boxship-") and name.endswith(".dist-info"):
                return name.removeprefix("boxship-").removesuffix(".dist-info")
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("boxship")
    except PackageNotFoundError:
        return "unknown"


def commit() -> str:
    """The short name of the commit that an editable installation stands at; "unknown" for an installed one."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    try:
        with open(root + "/.git") as f:
            directory = f.read().removeprefix("gitdir:").strip()  # a worktree's
    except IsADirectoryError:
        directory = root + "/.git"
    except OSError:
        return "unknown"
    try:
        with open(directory + "/HEAD") as f:
            head = f.read().strip()
        if head.startswith("ref: "):
            common = directory.partition("/worktrees/")[0]
            with open(f"{common}/{head[5:]}") as f:
                head = f.read().strip()
    except OSError:
        return "unknown"
    return head[:12]

"""The version of the installed distribution; read from its metadata only when asked for."""

import os


def version() -> str:
    """The version, or "unknown" when the package is used without having been installed."""
    parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for name in sorted(os.listdir(parent)):
        if name.startswith("boxship-") and name.endswith(".dist-info"):
            return name.removeprefix("boxship-").removesuffix(".dist-info")
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("boxship")
    except PackageNotFoundError:
        return "unknown"

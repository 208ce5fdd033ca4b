"""Commands that do one thing to each of several objects: print what was done, go on after a failure, exit 1."""

from __future__ import annotations

import sys

from boxship.api.engine.client import EngineError, quote_path

from .command import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def each(names: list[str], do: Callable[[str], str | None]) -> int:
    """Call ``do`` with each name; it gives what to print (None: nothing). 1 when any failed."""
    failed = 0
    for name in names:
        try:
            said = do(name)
        except EngineError as error:
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            failed = 1
            continue
        if said is not None:
            print(said, flush=True)
    return failed


def post(context: Context, name: str, action: str, **query: object) -> str:
    """``POST /containers/NAME/ACTION``; gives the name."""
    context.client.request("POST", f"/containers/{quote_path(name)}/{action}", dict(query)).read()
    return name

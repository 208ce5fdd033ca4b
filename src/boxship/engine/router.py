"""Paths to handlers: one table of ``(method, pattern, handler)`` for each route group.

A pattern is made of literal segments and ``{name}`` (one segment); ``{name*}`` takes one or more, because image
names have slashes in them.  A request's ``/v1.47`` prefix is its API version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from boxship.errors import BoxshipError, InvalidArgument, NotFound
from boxship.http.messages import Request, Response
from boxship.http.protocol import Handler

API_VERSION = "1.47"
MIN_API_VERSION = "1.24"

Route = tuple[str, str, Handler]


class MethodNotAllowed(BoxshipError):
    kind = "invalid_argument"
    http_status = 405


def version_tuple(version: str) -> tuple[int, int]:
    """``"1.47"`` as (1, 47); raises InvalidArgument for anything else."""
    major, _, minor = version.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise InvalidArgument(f"API version {version!r} must look like {API_VERSION}")
    return int(major), int(minor)


class Router:
    """Finds a request's handler and runs it; also a :data:`Handler`."""

    def __init__(self, groups: Iterable[Iterable[Route]]) -> None:
        self._routes: dict[str, list[tuple[str, re.Pattern[str], Handler]]] = {}
        self.table: list[tuple[str, str]] = []
        for group in groups:
            for method, pattern, handler in group:
                expression = re.sub(r"\{(\w+)(\*?)\}", lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", pattern)
                first = pattern.split("/")[1]
                self._routes.setdefault(first, []).append((method, re.compile(expression + r"\Z"), handler))
                self.table.append((method, pattern))

    async def __call__(self, request: Request) -> Response | None:
        path = request.path
        if path.startswith("/v") and path[2:3].isdigit():
            version, slash, rest = path[2:].partition("/")
            asked = version_tuple(version)
            if asked > version_tuple(API_VERSION):
                raise InvalidArgument(
                    f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
                )
            if asked < version_tuple(MIN_API_VERSION):
                raise InvalidArgument(
                    f"client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, "
                    "please upgrade your client to a newer version"
                )
            request.version = version
            path = slash + rest
        others = False
        method = "GET" if request.method == "HEAD" else request.method
        for allowed, pattern, handler in self._routes.get(path.split("/", 2)[1] if path[1:] else "", ()):
            match = pattern.match(path)
            if match is None:
                continue
            if allowed in (request.method, method):
                request.params = match.groupdict()
                return await handler(request)
            others = True
        if others:
            raise MethodNotAllowed(f"{request.method} is not a method of {path}")
        raise NotFound(f"page not found: {request.method} {path}")

"""The rest of the Docker Engine API: what a client may ask for and this engine does not offer yet.

Each answers 501 and says what it was, so that nobody takes a gap for a wrong address.
A call that is built moves from here to its own group.

A question that has a true answer gets it: this node is in no swarm, and has no plugins.
`docker inspect NAME` asks for each kind of object in turn and goes on only after such an answer.
"""

from __future__ import annotations

from boxship.errors import NotFound, Unavailable, Unimplemented
from boxship.http.messages import Request, Response, json_response
from boxship.http.protocol import Handler

from ..app import Engine
from ..router import Route

SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")

# (methods, pattern, what it would have been)
CALLS = (
    ("POST", "/build", "building images"),
    ("POST", "/build/cancel", "building images"),
    ("POST", "/session", "building images (BuildKit)"),
    ("POST", "/grpc", "building images (BuildKit)"),
    ("POST", "/networks/create", "user-defined networks"),
    ("POST", "/networks/prune", "user-defined networks"),
    ("POST", "/networks/{id}/connect", "user-defined networks"),
    ("POST", "/networks/{id}/disconnect", "user-defined networks"),
    ("DELETE", "/networks/{id}", "user-defined networks"),
    ("POST", "/containers/{id}/update", "changing the limits of a container"),
    ("GET PUT", "/containers/{id}/archive", "copying files into and out of a container"),
    ("GET", "/containers/{id}/attach/ws", "attaching by WebSocket"),
    ("GET POST", "/containers/{id}/checkpoints", "checkpoint and restore"),
    ("DELETE", "/containers/{id}/checkpoints/{name}", "checkpoint and restore"),
    ("PUT", "/volumes/{name}", "cluster volumes"),
    *(("POST DELETE", f"/{group}/{{rest*}}", "swarm mode") for group in SWARM),
    ("POST DELETE", "/plugins/{rest*}", "adding plugins"),
)


def refusal(what: str) -> Handler:
    """The handler that refuses a call; raises Unimplemented."""

    async def refuse(request: Request) -> Response:
        raise Unimplemented(f"{what} is not offered by this engine yet: {request.method} {request.path}")

    return refuse


async def no_manager(request: Request) -> Response:
    """What the swarm has; docker tells this answer by its first words. Raises Unavailable."""
    raise Unavailable(f"This node is not a swarm manager, and this engine has no swarm mode yet: {request.path}")


async def plugins(request: Request) -> Response:
    return json_response([])


async def plugin(request: Request) -> Response:
    """Raises NotFound."""
    raise NotFound(f'plugin "{request.params["name"]}" not found')


class MissingRoutes:
    def __init__(self, engine: Engine) -> None:
        del engine  # these calls need nothing of it

    def table(self) -> list[Route]:
        return [
            *((method, pattern, refusal(what)) for methods, pattern, what in CALLS for method in methods.split()),
            *(("GET", pattern, no_manager) for group in SWARM for pattern in (f"/{group}", f"/{group}/{{rest*}}")),
            ("GET", "/plugins", plugins),
            ("GET", "/plugins/{name*}/json", plugin),
        ]

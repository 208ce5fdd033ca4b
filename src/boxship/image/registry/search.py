"""Searching a registry for repositories: docker's ``/v1/search``, which Docker Hub and few others still answer.

The distribution-spec has no search. A registry without one says 404, and then so do we, in words.
"""

from collections.abc import Callable
from urllib.parse import urlencode

import msgspec

from boxship.errors import BoxshipError, InvalidArgument, NotFound, PeerError, Unimplemented
from boxship.oci import reference as references

from .credentials import Credential
from .hosts import Settings, endpoints
from .session import Session, Unreachable

LIMIT, MOST = 25, 100
ANSWER_LIMIT = 4 << 20


class Found(msgspec.Struct):
    """One repository, as the registry and the Engine API both write it."""

    name: str
    description: "str | None" = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Answer(msgspec.Struct):
    results: "list[Found] | None" = None


def search(
    term: str, settings: Settings, credential: "Callable[[], Credential | None]", limit: int = LIMIT
) -> "list[Found]":
    """What the registry finds for ``[REGISTRY/]WORDS``, in its order.

    Raises InvalidArgument, Unimplemented (no search there), PermissionDenied, Unavailable, PeerError.
    """
    if not term.strip():
        raise InvalidArgument("nothing to search for")
    if not 1 <= limit <= MOST:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {MOST}]")
    domain, words = _split(term)
    path = f"/v1/search?{urlencode({'q': words, 'n': limit})}"
    what = f"search {domain} for {words!r}"
    failure: BoxshipError | None = None
    for endpoint in endpoints(references.LEGACY_DOMAIN if domain == references.DEFAULT_DOMAIN else domain, settings,
                              "resolve"):  # fmt: skip
        if not endpoint.own:
            continue  # a mirror has images, not an index of them
        session = Session(endpoint, credential)
        try:
            with session.request("GET", path, headers={"Accept": "application/json"}, what=what) as response:
                data = response.all(ANSWER_LIMIT, what)
            return (msgspec.json.decode(data, type=_Answer).results or [])[:limit]
        except NotFound as error:
            cause = "this registry offers no search"
            raise Unimplemented(what, cause=cause, remedy="list its tags instead") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerError(what, cause="the answer is no list of repositories") from error
        except Unreachable as error:
            failure = failure or error  # its next address, if it has one
        finally:
            session.close()
    raise failure or InvalidArgument(what, cause="no address of it may be asked")


def _split(term: str) -> "tuple[str, str]":
    """``registry/words``: the first part is a registry when it looks like one (`boxship.oci.reference`)."""
    first, slash, rest = term.strip().partition("/")
    if slash and rest and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return references.DEFAULT_DOMAIN, term.strip()

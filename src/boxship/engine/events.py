"""The engine's events: what happened to containers, images, volumes and networks, for ``docker events``.

Past events are kept in memory, the newest 256 as dockerd does; followers get every event from when they come.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

KEPT = 256
FOLLOWER_LIMIT = 4096  # events that a follower may lag behind before it is let go

Event = dict[str, Any]


class EventBus:
    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=KEPT)
        self._followers: set[asyncio.Queue[Event | None]] = set()

    def publish(self, kind: str, action: str, id: str, attributes: dict[str, str]) -> None:
        """Tell everybody; never waits, a follower that does not read is let go."""
        ns = time.time_ns()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": id, "Attributes": attributes},
            "scope": "local",
            "time": ns // 1_000_000_000,
            "timeNano": ns,
        }
        if kind == "container":
            event = {"status": action, "id": id, "from": attributes.get("image", ""), **event}
        elif kind == "image":
            event = {"status": action, "id": id, **event}
        self._past.append(event)
        for queue in list(self._followers):
            if queue.qsize() >= FOLLOWER_LIMIT:
                self._followers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def follow(self, since: int, until: int, filters: dict[str, list[str]]) -> AsyncIterator[Event]:
        """Events from ``since`` to ``until`` (nanoseconds, 0: from now, for ever) that pass the filters."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        past = [event for event in self._past if since and event["timeNano"] >= since]
        self._followers.add(queue)
        try:
            for event in past:
                if until and event["timeNano"] > until:
                    return
                if matches(event, filters):
                    yield event
            while True:
                left = (until - time.time_ns()) / 1e9 if until else None
                if left is not None and left <= 0:
                    return
                try:
                    async with asyncio.timeout(left):
                        following = await queue.get()
                except TimeoutError:
                    return
                if following is None:
                    return
                if matches(following, filters):
                    yield following
        finally:
            self._followers.discard(queue)


def _label(attributes: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def matches(event: Event, filters: dict[str, list[str]]) -> bool:
    """Values of one key are alternatives, keys must all hold (Engine API, /events)."""
    attributes: dict[str, str] = event["Actor"]["Attributes"]
    id: str = event["Actor"]["ID"]
    for key, values in filters.items():
        if key == "type":
            held = event["Type"] in values
        elif key == "event":
            held = any(event["Action"] == v or event["Action"].split(":")[0] == v for v in values)
        elif key == "label":
            held = all(_label(attributes, v) for v in values)
        elif key in ("container", "image", "volume", "network"):
            name = attributes.get("name", "")
            if key == "image" and event["Type"] == "container":
                name = attributes.get("image", "")
                held = any(v in (name, name.split(":")[0]) for v in values)
            else:
                held = event["Type"] == key and any(id.startswith(v) or name == v.removeprefix("/") for v in values)
        elif key in ("scope", "daemon"):
            held = key == "daemon" or event["scope"] in values
        else:
            held = False
        if not held:
            return False
    return True

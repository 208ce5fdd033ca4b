"""The event exchange and the Events service, near (gRPC) and for shims (ttrpc).

Publishing never waits: every subscriber has its own queue, and one that does not keep up loses its
subscription (Unavailable) rather than the daemon its memory.
"""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator

from boxship.api.containerd.context import namespace, required_namespace
from boxship.api.containerd.events import ForwardRequest, PublishRequest, SubscribeRequest
from boxship.api.containerd.types import Envelope
from boxship.api.task.events import TOPICS
from boxship.api.task.events import ForwardRequest as ShimForwardRequest
from boxship.containerd.filters import Filter, message_lookup, parse
from boxship.errors import FailedPrecondition, InvalidArgument, Unavailable
from boxship.protobuf import Any, Empty, Message, Timestamp

_QUEUE_LIMIT = 10_000


class Exchange:
    """Where events meet their subscribers. Owned by one event loop."""

    def __init__(self) -> None:
        self._subscriptions: "weakref.WeakSet[Subscription]" = weakref.WeakSet()

    def publish(self, topic: str, event: Message, in_namespace: str = "") -> None:
        """Publish ``event`` under ``topic`` in the current call's namespace, or the one given."""
        envelope = Envelope(
            timestamp=Timestamp.from_ns(time.time_ns()),
            namespace=in_namespace or required_namespace(),
            topic=topic,
            event=Any.pack(event),
        )
        self.forward(envelope)

    def publish_task_event(self, event: Message, in_namespace: str) -> None:
        self.publish(TOPICS[type(event)], event, in_namespace)

    def forward(self, envelope: Envelope) -> None:
        """Pass an event on as it is; raises InvalidArgument when it is not complete."""
        if not envelope.namespace:
            raise InvalidArgument("event has no namespace")
        if not envelope.topic.startswith("/"):
            raise InvalidArgument(f"event topic {envelope.topic!r} must start with '/'")
        if envelope.timestamp is None or envelope.event is None:
            raise InvalidArgument("event has no timestamp or no content")
        for subscription in list(self._subscriptions):
            subscription.offer(envelope)

    def subscribe(self, filters: "list[str]") -> "Subscription":
        """Every event from now on that one of ``filters`` matches; iterate it, drop it when done."""
        subscription = Subscription(parse(filters), self._subscriptions)
        self._subscriptions.add(subscription)
        return subscription


class Subscription:
    """An async iterator of envelopes; it begins when it is made, not when it is first asked."""

    def __init__(self, matches: Filter, among: "weakref.WeakSet[Subscription]") -> None:
        self._matches = matches
        self._among = among
        self._queue: "asyncio.Queue[Envelope]" = asyncio.Queue(_QUEUE_LIMIT)
        self._lost = False

    def offer(self, envelope: Envelope) -> None:
        try:
            matches = self._matches(message_lookup(envelope))
        except FailedPrecondition:
            return  # a filter looks inside an event whose type is not known here
        if matches and not self._lost:
            try:
                self._queue.put_nowait(envelope)
            except asyncio.QueueFull:
                self._lost = True

    async def aclose(self) -> None:
        """End it. Closing twice is fine; so is dropping it without."""
        self._among.discard(self)

    def __aiter__(self) -> AsyncIterator[Envelope]:
        return self

    async def __anext__(self) -> Envelope:
        if self._lost and self._queue.empty():
            raise Unavailable(f"subscriber fell more than {_QUEUE_LIMIT} events behind")
        return await self._queue.get()


class EventsService:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Publish(self, request: PublishRequest) -> Empty:
        if request.event is None:
            raise InvalidArgument("event must not be empty")
        self._exchange.forward(
            Envelope(
                timestamp=Timestamp.from_ns(time.time_ns()),
                namespace=required_namespace(),
                topic=request.topic,
                event=request.event,
            )
        )
        return Empty()

    async def Forward(self, request: ForwardRequest) -> Empty:
        if request.envelope is None:
            raise InvalidArgument("event must not be empty")
        self._exchange.forward(request.envelope)
        return Empty()

    def Subscribe(self, request: SubscribeRequest) -> AsyncIterator[Envelope]:
        """Not a coroutine: the subscription begins with the call, before the first event is asked for."""
        return self._exchange.subscribe(list(request.filters))


class ShimEvents:
    """The ttrpc service on TTRPC_ADDRESS that shims forward their events to."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def Forward(self, request: ShimForwardRequest) -> Empty:
        if request.envelope is None:
            raise InvalidArgument("event must not be empty")
        envelope = request.envelope
        if not envelope.namespace:
            envelope.namespace = namespace.get()
        self._exchange.forward(envelope)
        return Empty()

"""The Events service (containerd, api/services/events/v1)."""

from boxship.api.containerd.types import Envelope
from boxship.protobuf import Any, Empty, Message, Service, message, repeated, server_stream, string, unary


class PublishRequest(Message, name="containerd.services.events.v1.PublishRequest"):
    topic: str = string(1)
    event: Any | None = message(2, Any)


class ForwardRequest(Message, name="containerd.services.events.v1.ForwardRequest"):
    envelope: Envelope | None = message(1, Envelope)


class SubscribeRequest(Message, name="containerd.services.events.v1.SubscribeRequest"):
    filters: list[str] = repeated(1, string)


class Events(Service, name="containerd.services.events.v1.Events"):
    Publish = unary(PublishRequest, Empty)
    Forward = unary(ForwardRequest, Empty)
    Subscribe = server_stream(SubscribeRequest, Envelope)

"""What the container services need from networking; `boxship.network` and the fakes of tests have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from .models import EndpointSettings, PortBinding, Record


@dataclass
class Attachment:
    """A container's place in its networks, as inspect shows it."""

    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)


class Networks(Protocol):
    """Lifecycle of an attachment: ``reserve`` (address and ports are this container's), ``connect`` (the running
    process's namespace is wired), ``release`` (idempotent, also after a crash in between)."""

    async def reserve(self, record: Record) -> Attachment:
        """Raises AlreadyExists for a port in use, NotFound for an unknown network."""

    async def connect(self, record: Record, attachment: Attachment, pid: int) -> None: ...

    async def release(self, record: Record) -> None: ...

    async def adopt(self, record: Record) -> None:
        """A new engine found the container running: hold its address and ports again."""

    async def close(self, *, running: bool) -> None: ...

    def documents(self, records: list[Record]) -> list[dict[str, Any]]: ...

    def document(self, reference: str, records: list[Record]) -> dict[str, Any]: ...

    def exists(self, name: str) -> bool: ...

    def nameservers(self) -> list[str]: ...

"""What every call carries beside its message: the namespace, the lease, the trace.

The keys are containerd's (pkg/namespaces, core/leases): gRPC metadata to the services, and the ttrpc spelling
to shims.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from boxship import tracing
from boxship.errors import FailedPrecondition

NAMESPACE_HEADER = "containerd-namespace"
NAMESPACE_TTRPC_HEADER = "containerd-namespace-ttrpc"
LEASE_HEADER = "containerd-lease"

namespace: ContextVar[str] = ContextVar("containerd_namespace", default="")
lease: ContextVar[str] = ContextVar("containerd_lease", default="")


@contextmanager
def using_namespace(name: str) -> Iterator[None]:
    """Calls in this block are made in the namespace ``name``."""
    token = namespace.set(name)
    try:
        yield
    finally:
        namespace.reset(token)


def required_namespace() -> str:
    """The namespace of the current call; raises FailedPrecondition when there is none, as containerd does."""
    name = namespace.get()
    if not name:
        raise FailedPrecondition("namespace is required")
    return name


def outgoing_metadata() -> "list[tuple[str, str]]":
    """The metadata of a call made now."""
    metadata = []
    if name := namespace.get():
        metadata.append((NAMESPACE_HEADER, name))
    if lease_id := lease.get():
        metadata.append((LEASE_HEADER, lease_id))
    if trace := tracing.current.get():
        metadata += trace.headers().items()
    return metadata


def accept_metadata(metadata: "dict[str, str]") -> None:
    """Make a received call's metadata current, in the context of the task that serves it."""
    namespace.set(metadata.get(NAMESPACE_HEADER, ""))
    lease.set(metadata.get(LEASE_HEADER, ""))
    tracing.current.set(tracing.from_metadata(metadata))

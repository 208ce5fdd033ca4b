"""The one error vocabulary of Boxship.

A kind says what the caller can do about it, not where it came from.
The tree, drawn once::

    BoxshipError
    ├── InvalidArgument      ask differently: the request can never work
    │   └── OutOfRange
    ├── NotFound             the named thing is not there
    ├── AlreadyExists        the name is taken
    ├── FailedPrecondition   the thing is in the wrong state for this
    ├── PermissionDenied     the caller or this process may not
    │   └── Unauthenticated
    ├── ResourceExhausted    disk, memory, pids, ports: free some, then retry
    ├── Unavailable          the other side is down: retry later
    │   └── DeadlineExceeded
    ├── Aborted / Cancelled  given up on the way; nothing was done
    ├── DataLoss             bytes are not what their digest or size says
    ├── Unimplemented        known, but not offered here
    ├── Internal             a fault of ours
    │   └── StepFailed       one step of a plan failed; it has an address
    └── PeerError            the other side broke its protocol

Every error carries what a person needs: the message names the thing and the step; ``cause`` is the short
reason (often an errno name) and ``remedy`` what to do about it, where we know.
Each edge (HTTP, gRPC, ttrpc, exit codes) keeps one table from ``kind`` to its own words.
This module imports nothing, because the runtime's cold path starts with it.
"""


class BoxshipError(Exception):
    """Base of all errors that Boxship raises on purpose.

    ``code`` is the google.rpc.Code number, which gRPC and ttrpc share.
    """

    kind = "unknown"
    code = 2

    def __init__(self, message: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.message
        if self.cause:
            text += ": " + self.cause
        if self.remedy:
            text += " (" + self.remedy + ")"
        return text


class Cancelled(BoxshipError):
    kind = "cancelled"
    code = 1


class InvalidArgument(BoxshipError):
    kind = "invalid_argument"
    code = 3


class OutOfRange(InvalidArgument):
    kind = "out_of_range"
    code = 11


class NotFound(BoxshipError):
    kind = "not_found"
    code = 5


class AlreadyExists(BoxshipError):
    kind = "already_exists"
    code = 6


class PermissionDenied(BoxshipError):
    kind = "permission_denied"
    code = 7


class Unauthenticated(PermissionDenied):
    kind = "unauthenticated"
    code = 16


class ResourceExhausted(BoxshipError):
    kind = "resource_exhausted"
    code = 8


class FailedPrecondition(BoxshipError):
    kind = "failed_precondition"
    code = 9


class Aborted(BoxshipError):
    kind = "aborted"
    code = 10


class Unimplemented(BoxshipError):
    kind = "unimplemented"
    code = 12


class Internal(BoxshipError):
    kind = "internal"
    code = 13


class Unavailable(BoxshipError):
    kind = "unavailable"
    code = 14


class DeadlineExceeded(Unavailable):
    kind = "deadline_exceeded"
    code = 4


class DataLoss(BoxshipError):
    kind = "data_loss"
    code = 15


class PeerError(BoxshipError):
    """The other side broke its protocol: malformed bytes, a wrong message, an impossible state."""

    kind = "peer"
    code = 13


class StepFailed(Internal):
    """A step of a plan failed in the executor: ``step 14 of 41: mount proc on /proc: EPERM (remedy)``.

    ``step`` and ``total`` count from one; ``errno`` is the kernel's number.
    """

    def __init__(self, message: str, *, step: int, total: int, errno: int, cause: str = "", remedy: str = "") -> None:
        super().__init__(message, cause=cause, remedy=remedy)
        self.step = step
        self.total = total
        self.errno = errno


def _subclasses(cls: type[BoxshipError]) -> list[type[BoxshipError]]:
    found = [cls]
    for sub in cls.__subclasses__():
        found += _subclasses(sub)
    return found


def by_code(code: int, message: str) -> BoxshipError:
    """The error that a peer's google.rpc.Code stands for, with the peer's message; unknown codes give the base."""
    for cls in _subclasses(BoxshipError):
        if cls.code == code and cls not in (StepFailed, PeerError):
            return cls(message)
    return BoxshipError(message)

"""The one table between our error vocabulary and HTTP, as dockerd answers (moby's httpstatus)."""

from boxship.errors import BoxshipError

BY_KIND = {
    "invalid_argument": 400,
    "out_of_range": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "failed_precondition": 409,
    "aborted": 409,
    "cancelled": 499,
    "resource_exhausted": 507,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "unimplemented": 501,
    "data_loss": 500,
    "internal": 500,
    "peer": 500,
    "unknown": 500,
}


def status_of(error: BoxshipError) -> int:
    """The status of an error; one that carries its own (``http_status``) keeps it."""
    own = getattr(error, "http_status", None)
    return own if isinstance(own, int) else BY_KIND[error.kind]

"""The distribution-spec's error codes (spec.md, Error Codes), and how an answer with one looks."""

from __future__ import annotations

from boxship.errors import BoxshipError, ResourceExhausted
from boxship.http.messages import Response, json_response
from boxship.http.status import status_of

# code -> the HTTP status that goes with it unless an error says another
CODES = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,  # as docker's registry: 404 would say that the repository is not there
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
}

# What our own errors are in the spec's words, where the code is not said.
BY_KIND = {
    "invalid_argument": "UNSUPPORTED",
    "not_found": "NAME_UNKNOWN",
    "data_loss": "DIGEST_INVALID",
    "permission_denied": "DENIED",
    "unauthenticated": "UNAUTHORIZED",
}
UNKNOWN = "UNKNOWN"
"""The code of what is no fault of the client's; the spec binds the 4xx answers only."""


class SpecError(BoxshipError):
    """An error with one of the spec's codes. ``status`` and ``headers`` are the answer's; ``detail`` is JSON."""

    kind = "invalid_argument"

    def __init__(
        self,
        spec_code: str,
        message: str,
        *,
        cause: str = "",
        remedy: str = "",
        detail: object = None,
        status: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, cause=cause, remedy=remedy)
        self.spec_code = spec_code
        self.detail = detail
        self.http_status = status or CODES[spec_code]
        self.headers = headers or {}


def answer(error: BoxshipError) -> Response:
    """The JSON body that the spec wants, for any error."""
    if isinstance(error, SpecError):
        code, detail, headers = error.spec_code, error.detail, error.headers
    else:
        code, detail, headers = BY_KIND.get(error.kind, UNKNOWN), None, {}
    one: dict[str, object] = {"code": code, "message": str(error)}
    if detail is not None:
        one["detail"] = detail
    status = 507 if isinstance(error, ResourceExhausted) else status_of(error)
    response = json_response({"errors": [one]}, status)
    response.headers.update(headers)
    return response

"""Times as the Engine API writes them: RFC 3339, UTC, nanoseconds without trailing zeros."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from boxship.errors import InvalidArgument

ZERO = "0001-01-01T00:00:00Z"


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 as ``2026-11-24T03:16:24.123456789Z``."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{text}{fraction}Z"


def now() -> str:
    return rfc3339(time.time_ns())


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; 0 for the zero time and for anything malformed."""
    if not text or text.startswith("0001-"):
        return 0
    main, _, rest = text.partition(".")
    if rest:
        digits = rest.rstrip("Z").split("+")[0].split("-")[0]
        zone = rest[len(digits) :]
    else:
        digits, zone = "", ""
        if main.endswith("Z"):
            main, zone = main[:-1], "Z"
    try:
        moment = datetime.fromisoformat(main + (zone if zone != "Z" else ""))
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int((digits + "000000000")[:9] or 0)


def query_time(text: str, what: str) -> int:
    """A ``since`` or ``until`` in nanoseconds, 0 when empty: Unix seconds with an optional fraction, or RFC 3339."""
    if text in ("", "0"):
        return 0
    seconds, _, fraction = text.partition(".")
    if seconds.lstrip("-").isdigit():
        return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
    found = parse_rfc3339(text)
    if not found:
        raise InvalidArgument(f"{what} {text!r} is neither Unix seconds nor an RFC 3339 time")
    return found

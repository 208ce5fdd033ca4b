"""What the executor reports: one packet each, ``struct report`` of executor.c.

Apart from the codec, because who starts a container that another process created reads reports and has no plan.
"""

from _struct import Struct
from os import waitstatus_to_exitcode

REPORT = Struct("<IIq")  # kind, step (from 0), value

FAILED, CLONED, AWAITING, HANDLE, TIMES, REFUSED, HOOK_ENDED = range(1, 8)


def hook_ended(status: int, said: bytes) -> str:
    """How a hook failed, in words; ``said`` is the start of its standard error."""
    code = waitstatus_to_exitcode(status)
    if code >= 0:
        text = f"exit code {code}"
    else:
        from signal import strsignal

        text = f"killed by signal {-code}: {(strsignal(-code) or '').lower()}"
    words = said.decode("utf-8", "replace").strip()
    return f"{text}, stderr: {words}" if words else text

"""What the executor reports: one packet each, ``struct report`` of executor.c.

Apart from the codec, because who starts a container that another process created reads reports and has no plan.
"""

from _struct import Struct
from os import waitstatus_to_exitcode

from boxship.errors import Internal
from boxship.libcontainer.state import stat_fields

REPORT = Struct("<IIq")  # kind, step (from 0), value

FAILED, CLONED, AWAITING, HANDLE, TIMES, REFUSED, HOOK_ENDED = range(1, 8)


def hook_ended(status: int, said: bytes) -> str:
    """How a hook failed, in words; ``said`` is the start of its standard error."""
    text = _ended(status)
    words = said.decode("utf-8", "replace").strip()
    return f"{text}, stderr: {words}" if words else text


def _ended(status: int) -> str:
    code = waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    from signal import strsignal

    return f"killed by signal {-code}: {(strsignal(-code) or '').lower()}"


# ── What the end of file means ──

FORKED_ONLY = 0x40  # PF_FORKNOEXEC, include/linux/sched.h


class NeverExecuted(Internal):
    """The executor ended before the program was executed, and reported nothing: somebody, or the kernel, killed it.

    It was at one of the steps from ``first`` to ``last``, counted from one; ``goal`` says what it was on its way to.
    """

    in_init = True

    def __init__(self, goal: str, how: str, *, first: int, last: int, total: int) -> None:
        steps = f"at step {last}" if first >= last else f"between steps {first} and {last}"
        super().__init__(
            f"the process ended {steps} of {total}, before it could {goal}",
            cause=how,
            remedy="who killed it? if nobody did, see the kernel's log",
        )
        self.first = first
        self.last = last
        self.total = total


def how_it_ended(pid: int) -> str:
    """How a process ended that was not reaped yet, in words; without any that are known, "killed"."""
    fields = stat_fields(pid)
    status = int(fields[49]) if fields else 0  # exit_code: 0 too for who may not trace the process
    return _ended(status) if status else "killed"


def never_executed(pid: int, started: int = 0) -> str:
    """After the end of file of its socket: how a process ended that never executed its program; "" when it did.

    The end of file alone does not tell: an exec closes the socket, and so does any end of the process.
    The kernel marks a process that was cloned and has executed nothing yet, for acct(5), and takes the mark away
    before an exec closes descriptors. It can be read until the process is reaped; one that its parent has reaped
    already, or whose ``started`` (proc_pid_stat(5), field 22) is another, counts as executed.
    """
    fields = stat_fields(pid)
    if not fields or not int(fields[6]) & FORKED_ONLY or started not in (0, int(fields[19])):
        return ""
    return how_it_ended(pid)

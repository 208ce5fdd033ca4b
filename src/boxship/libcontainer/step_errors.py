"""The error for a step of a plan that failed. Imported only when one did, or by whoever tells these errors apart."""

import os
from errno import EACCES, ECHILD, EISDIR, ENOENT, ENOEXEC, ETIME, errorcode

from boxship.errors import BoxshipError, StepFailed

from .plan.explain import remedy
from .plan.ops import Exec, FindProgram, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .compile import Plan


class CommandFailed(StepFailed):
    """The program that the container shall run is not there, or may not be executed.

    ``exit_code`` is what a shell and docker give then: 127 (not found) or 126 (found, but not executable).
    """

    kind = "not_found"

    @property
    def exit_code(self) -> int:
        return 127 if self.errno == ENOENT else 126


def failure(plan: "Plan", step: int, number: int, *, hook: str = "") -> BoxshipError:
    """The error for a failed step: its address, what it was for, the cause and the likely remedy.

    ``hook`` is how the hook has ended, when that was the step.
    """
    op = plan.ops[step]
    total = len(plan.ops)
    name = errorcode.get(number, str(number))
    if isinstance(op, FindProgram):
        return command_failed(plan, step, number)
    if isinstance(op, Exec):
        # The file is there and may be executed: ENOENT is its interpreter (or loader), ENOEXEC its format.
        remedy_text = {ENOENT: "the interpreter that it names is missing", ENOEXEC: "it is no program for here"}
        return CommandFailed(
            f"exec {op.argv[0]}: {os.strerror(number).lower()}",
            step=step + 1,
            total=total,
            errno=number,
            remedy=remedy_text.get(number, ""),
        )
    if isinstance(op, Hook):
        what = {ECHILD: hook or "it exited with an error", ETIME: f"no end after {op.timeout / 1000:g} s"}
        return StepFailed(
            f"error running {plan.purpose(step).removeprefix('run ')}",
            step=step + 1,
            total=total,
            errno=number,
            cause=what.get(number, os.strerror(number).lower()),
        )
    return StepFailed(
        f"step {step + 1} of {total}: {plan.purpose(step)}: {op!r}",
        step=step + 1,
        total=total,
        errno=number,
        cause=name,
        remedy=remedy(op, number),
    )


def command_failed(plan: "Plan", step: int, number: int) -> CommandFailed:
    """In the words that docker and podman look for to choose between exit codes 126 and 127."""
    purpose = plan.purpose(step)
    program = purpose.removeprefix("find ")
    if number == ENOENT or not program:
        text = (
            f'exec: "{program}": stat {program}: no such file or directory'
            if "/" in program
            else f'exec: "{program}": executable file not found in $PATH'
        )
    elif number == EISDIR:
        text = f'exec: "{program}": is a directory'
    elif number == EACCES:
        text = f'exec: "{program}": permission denied'
    else:
        text = f'exec: "{program}": {os.strerror(number).lower()}'
    return CommandFailed(text, step=step + 1, total=len(plan.ops), errno=number)

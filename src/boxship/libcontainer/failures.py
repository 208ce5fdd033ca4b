"""What is said of a start that failed, and the last one kept for ``explain``.

One file below the state root, ``.failed.json``, replaced by each failure: whoever looks does so right afterwards.
It holds the plan as text with the failing step marked, because the plan itself is gone with the container.
Imported only when something failed.
"""

import os

from boxship.errors import StepFailed
from boxship.oci import cold_json

from . import state as store
from .plan.reports import NeverExecuted

FILE = ".failed.json"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .compile import Plan
    from .container import Container


def keep(container: "Container", error: BaseException) -> None:
    """For ``explain``, which shows the plan with the step that failed; its message gets the place in config.json."""
    if isinstance(error, StepFailed):
        from .places import json_path

        plan = container.plan
        purpose = plan.purpose(error.step - 1) if plan is not None and plan.ops else ""
        place = json_path(purpose or error.message.partition(": ")[2], container.spec)
        if place and error.message.startswith(("step ", "error running ")):
            error.message = f"{place}: {error.message}"
        record(container.root, container.bundle, container.id, plan, error)


def blame_memory(container: "Container", error: BaseException) -> None:
    """Add to the error of an executor that was killed whether the container's memory limit kills."""
    if isinstance(error, NeverExecuted):
        from .cgroups.oom import kills

        times = kills(container.cgroups.oom_directory())
        if times:
            ended = "a process" if times == 1 else f"{times} processes"
            error.cause += f"; the memory limit has killed {ended} of this container"
            error.remedy = "is linux.resources.memory.limit too low?"


def record(root: str, bundle: str, id: str, plan: "Plan | None", error: StepFailed) -> None:
    """Keep it; where that is not possible it is only not there to look at, and the error itself is told anyway."""
    from .plan.explain import explain

    text = explain(plan, failed=(error.step, error.errno)) if plan is not None and plan.ops else ""
    value = {"bundle": bundle, "id": id, "time": store.timestamp(), "message": str(error), "plan": text}
    try:
        store.write(root, FILE, value)
        os.chmod(f"{root}/{FILE}", 0o644)  # explain needs no root
    except OSError:
        return


def last(root: str, bundle: str) -> "dict[str, Any] | None":
    """The last failure, with the keys of ``record``, if it was this bundle's and its config.json is older."""
    path = f"{root}/{FILE}"
    try:
        with open(path, "rb", buffering=0) as f:
            value = cold_json.loads(f.read(), path)
        if os.stat(bundle + "/config.json").st_mtime_ns > os.stat(path).st_mtime_ns:
            return None
    except OSError:
        return None
    return value if isinstance(value, dict) and value.get("bundle") == bundle else None

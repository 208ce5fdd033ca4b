"""``doctor``: what this host and user can do with containers, and what to change; exit code 1 when none runs."""

from boxship.libcontainer.doctor import diagnose

from ..main import Call


def run(call: Call) -> int:
    report = diagnose()
    print(report.to_json() if call.options.flag("json") else report)
    return 0 if report.usable else 1

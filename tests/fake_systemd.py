"""A systemd for tests: a real dbus-daemon, and behind it a service that owns org.freedesktop.systemd1.

The daemon checks every message that passes, so the client's bytes are judged by somebody who is not ours.
The service answers the handful of methods that the systemd cgroup manager calls, records them, and does what systemd
does with a scope: it makes the group and moves the given processes there.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boxship.errors import Unavailable
from boxship.libcontainer.cgroups import dbus
from boxship.libcontainer.cgroups.systemd import MANAGER, slice_path

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""


class FakeSystemd:
    """The service. ``calls`` are (method, arguments) in order; ``roots`` are the directories that scopes are made in.

    ``fail`` maps a method to the D-Bus error that it answers with once, ``always_fail`` every time.
    """

    def __init__(self, socket: str, roots: list[str], version: str = "252.38-1~deb12u1") -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.roots = roots
        self.version = version
        self.fail: dict[str, str] = {}
        self.always_fail: dict[str, str] = {}
        self.result = "done"
        self._jobs = 0
        self._bus = dbus.Bus([socket], timeout=60)
        name = ("org.freedesktop.systemd1", 4)
        self._bus.call(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", *name
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        connection = self._bus._socket
        if connection is not None:
            connection.shutdown(2)
        self._thread.join(5)
        self._bus.close()

    def properties(self, method: str) -> dict[str, Any]:
        """The properties that the last call of ``method`` brought, by name, without their types."""
        arguments = next(arguments for name, arguments in reversed(self.calls) if name == method)
        return {name: value for name, (_, value) in arguments[2]}

    def methods(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _serve(self) -> None:
        while True:
            try:
                message = self._bus._receive()
            except Unavailable:
                return
            if message.kind == dbus.CALL:
                self._answer(message)

    def _send(self, kind: int, signature: str, *values: Any, **fields: Any) -> None:
        self._bus._serial += 1
        if signature:
            fields["signature"] = signature
        self._bus._send(dbus.Message(kind, self._bus._serial, fields, values).encode())

    def _answer(self, call: dbus.Message) -> None:
        member = str(call.fields["member"])
        self.calls.append((member, call.body))
        to = {"destination": call.fields["sender"], "reply_to": call.serial}
        error = self.fail.pop(member, "") or self.always_fail.get(member, "")
        if error:
            self._send(dbus.ERROR, "s", "as the test wants it", error=error, **to)
            return
        method: Callable[..., tuple[str, tuple[Any, ...]]] | None = getattr(self, f"_do_{member}", None)
        if method is None:
            self._send(dbus.RETURN, "", **to)
            return
        signature, values = method(*call.body)
        self._send(dbus.RETURN, signature, *values, **to)
        if signature == "o":
            job = (self._jobs, values[0], call.body[0], self.result)
            self._send(
                dbus.SIGNAL, "uoss", *job, path="/org/freedesktop/systemd1", interface=MANAGER, member="JobRemoved"
            )  # fmt: skip

    def _do_Get(self, interface: str, name: str) -> tuple[str, tuple[Any, ...]]:
        return "v", (("s", {"Version": self.version, "ControlGroup": "/user.slice/user@7.service"}[name]),)

    def _job(self) -> tuple[str, tuple[Any, ...]]:
        self._jobs += 1
        return "o", (f"/org/freedesktop/systemd1/job/{self._jobs}",)

    def _do_StartTransientUnit(self, name: str, mode: str, properties: Any, aux: Any) -> tuple[str, tuple[Any, ...]]:
        given = {key: value for key, (_, value) in properties}
        parent = slice_path(given.get("Slice", "system.slice"))
        for root in self.roots if self.result == "done" else ():
            directory = Path(root, parent, name)
            directory.mkdir(parents=True, exist_ok=True)
            for pid in given.get("PIDs", ()):
                (directory / "cgroup.procs").write_text(str(pid))
        return self._job()

    def _do_StopUnit(self, name: str, mode: str) -> tuple[str, tuple[Any, ...]]:
        return self._job()


@contextmanager
def fake_systemd(directory: Path, roots: list[str], **options: Any) -> Iterator[tuple[FakeSystemd, str]]:
    """(the service, the address of its bus), for DBUS_SYSTEM_BUS_ADDRESS."""
    socket = directory / "bus"
    config = directory / "bus.conf"
    config.write_text(CONFIG.format(socket=socket))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "DBUS_VERBOSE": "0"})
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith("unix:path=")
        service = FakeSystemd(str(socket), roots, **options)
        try:
            yield service, f"unix:path={socket}"
        finally:
            service.close()
    finally:
        daemon.terminate()
        daemon.wait()

"""Starting an engine in the background, for a command that found none."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from boxship.api.engine.address import Address
from boxship.api.engine.client import Client
from boxship.errors import BoxshipError, PermissionDenied, Unavailable

LOG = "/var/log/boxship.log"
PATIENCE = 20.0  # seconds for an engine to answer its first ping


def start_engine(address: Address) -> None:
    """Start one, say so in one line, and wait until it answers; raises PermissionDenied, Unavailable."""
    if os.geteuid() != 0:
        raise PermissionDenied(
            f"no engine is running at {address.text}, and starting one needs root",
            remedy="sudo boxship engine, or name another with -H or DOCKER_HOST",
        )
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "boxship.daemon", "-H", address.text],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
    print(f"boxship: no engine was running, started one (process {process.pid}, log {LOG})", file=sys.stderr)
    client = Client(address)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            client.request("GET", "/_ping").read()
            return
        except BoxshipError:
            if process.poll() is not None:
                raise Unavailable(
                    f"the engine ended at once with exit code {process.returncode}", cause=last_line(LOG)
                ) from None
            time.sleep(0.02)
    raise Unavailable(f"the engine did not answer within {PATIENCE:.0f} s", remedy=f"see {LOG}")


def last_line(path: str) -> str:
    with open(path, "rb") as f:
        lines = f.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"

"""Errors as the callers of runc read them: a line on standard error, and one in the log that ``--log`` names.

containerd's shim and podman take the last line with level "error" of the JSON log for the cause, and docker and
podman look in it for "executable file not found" and the like to choose exit codes 127 and 126.
"""

import os
from time import gmtime, strftime

from boxship.oci import cold_json


class Log:
    """Where messages go; ``path`` "" is only standard error."""

    def __init__(self, path: str, format: str, debug: bool) -> None:
        self.path = path
        self.format = format
        self.debug_too = debug

    def error(self, message: str) -> None:
        """Into the log, and for people on standard error."""
        if self.path or self.format == "json":
            self._write("error", message)
        if not self.path and self.format == "json":
            return
        prefix = "" if message.startswith("boxship-runc ") else "boxship-runc: "
        os.write(2, f"{prefix}{message}\n".encode())

    def debug(self, message: str) -> None:
        """What was done, for --debug: into the log, or on standard error when there is none."""
        if self.debug_too:
            self._write("debug", message)

    def warning(self, message: str) -> None:
        """Into the log, or on standard error when there is none."""
        self._write("warning", message)

    def _write(self, level: str, message: str) -> None:
        now = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
        if self.format == "json":
            line = cold_json.dumps({"level": level, "msg": message, "time": now})
        else:
            line = f"time={cold_json.dumps(now)} level={level} msg={cold_json.dumps(message)}"
        if not self.path:
            os.write(2, line.encode() + b"\n")
            return
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            os.write(2, f"boxship-runc: open log {self.path}: {error.strerror}\n".encode())
            return
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

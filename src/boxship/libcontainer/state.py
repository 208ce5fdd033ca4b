"""A container's state on disk: ``<root>/<id>/state.json``, written with temp and rename.

The directory is the container's claim on its name.
It is made first and removed last, and it records what must be cleaned up (cgroups, the process) before that exists,
so a creator that is killed at any step leaves a directory from which ``delete --force`` can clean everything.
Beside it: ``start.sock``, where a created container listens for the word to start; it is gone once started.
"""

import os
from errno import EEXIST, ENOENT
from time import gmtime, strftime, time

from boxship.errors import AlreadyExists, InvalidArgument, NotFound
from boxship.oci import cold_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_ROOT = "/run/boxship/runtime"
STATE, SOCKET, CONFIG = "state.json", "start.sock", "config.json"
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def check_id(id: str) -> None:
    """Raise InvalidArgument for a name that cannot be a directory's."""
    if not id or len(id) > 1024 or not _ALLOWED.issuperset(id) or id[0] == ".":
        wrong = next((char for char in id if char not in _ALLOWED), id[:1])
        cause = f"invalid character {wrong!r}" if wrong and len(id) <= 1024 else "longer than 1024" if id else "empty"
        raise InvalidArgument(
            f"invalid container ID format: {id!r}",
            cause=cause,
            remedy="use letters, digits, and any of _ + - . (but not . first)",
        )


def directory(root: str, id: str) -> str:
    """The container's state directory."""
    check_id(id)
    return root + "/" + id


def claim(root: str, id: str) -> str:
    """Make the state directory; raises AlreadyExists when the name is taken."""
    path = directory(root, id)
    try:
        os.mkdir(path, 0o711)
    except OSError as error:
        if error.errno == ENOENT:
            os.makedirs(root, 0o711, exist_ok=True)
            return claim(root, id)
        if error.errno == EEXIST:
            remedy = "delete it, or choose another id"
            raise AlreadyExists(f"container {id!r} already exists", remedy=remedy) from error
        raise
    return path


def write(path: str, name: str, value: "dict[str, Any]") -> None:
    """Replace a JSON file atomically."""
    temporary = f"{path}/.{name}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, cold_json.dumps(value).encode())
    finally:
        os.close(fd)
    os.rename(temporary, path + "/" + name)


def read(root: str, id: str) -> "dict[str, Any]":
    """The state; raises NotFound. A directory without a state is one whose creator died at once."""
    path = directory(root, id)
    try:
        with open(path + "/" + STATE, "rb", buffering=0) as f:
            value = cold_json.loads(f.read(), f"{path}/{STATE}")
    except FileNotFoundError as error:
        if os.path.isdir(path):
            return {"id": id, "status": "creating", "pid": 0, "bundle": "", "cgroups": {}}
        raise NotFound(f"container {id!r} does not exist") from error
    assert isinstance(value, dict)
    return value


def remove(root: str, id: str) -> None:
    """Remove the state directory; one that is gone is fine."""
    _remove(directory(root, id))


def _remove(path: str) -> None:
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        return
    # The state goes last: until then the rest can still be found by it.
    for name in sorted(entries, key=lambda name: name == STATE):
        try:
            os.unlink(path + "/" + name)
        except FileNotFoundError:
            continue  # another deleter was faster
        except IsADirectoryError:
            _remove(path + "/" + name)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def ids(root: str) -> "list[str]":
    """The names that are taken under a root, sorted."""
    try:
        names = [name for name in os.listdir(root) if _ALLOWED.issuperset(name) and not name.startswith(".")]
        return sorted(name for name in names if os.path.isdir(f"{root}/{name}"))
    except FileNotFoundError:
        return []


_this: "tuple[int, int]" = (0, 0)


def this_process() -> "tuple[int, int]":
    """(pid, start time) of the calling process; looked up once, and again after a fork."""
    global _this
    pid = os.getpid()
    if _this[0] != pid:
        _this = (pid, start_time(pid)[1])
    return _this


def stat_fields(pid: "int | str") -> "list[bytes]":
    """The fields of proc_pid_stat(5) from the third on; none when the process is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 4096)  # all of it: some sixty numbers
        finally:
            os.close(fd)
    except OSError:
        return []  # ENOENT, or ESRCH while it is being reaped
    # The command may hold anything, ")" and spaces too: the fields start after its last ")".
    return text[text.rindex(b")") + 2 :].split()


def start_time(pid: int) -> "tuple[str, int]":
    """(state letter, start time in ticks) of a process; ("", 0) when there is none."""
    fields = stat_fields(pid)
    return (fields[0].decode(), int(fields[19])) if fields else ("", 0)


def timestamp() -> str:
    """Now, as RFC 3339 text with nanoseconds."""
    now = time()
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(now)) + f".{int(now * 1e9) % 1_000_000_000:09d}Z"

"""Bundles: the directory that a runtime is given, one for each task (runtime-spec, bundle.md).

``<state>/io.containerd.runtime.v2.task/<namespace>/<id>/`` holds config.json, rootfs/, what finds a live shim again:
``bootstrap.json`` (containerd 2's, with the runtime's name), ``address`` (containerd 1's, written by the shim), and
for other shims than ours the link ``work``.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from boxship.errors import AlreadyExists, PeerError
from boxship.image.rooted import describe, remove_tree
from boxship.linux.libc import detach_mount

DIRECTORY = "io.containerd.runtime.v2.task"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to reach a shim: Task service ``version`` 2 or 3 at ``address``."""

    version: int
    address: str


@dataclass(frozen=True, slots=True)
class Bundle:
    namespace: str
    id: str
    path: str

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        temporary = os.path.join(self.path, f".{name}.new")
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, os.path.join(self.path, name))

    def read(self, name: str) -> bytes:
        """A file of the bundle, or b"" when it is not there."""
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def remember(self, bootstrap: Bootstrap, runtime: str) -> None:
        """What a later containerd needs to adopt the shim; the key ``runtime`` is ours."""
        document = {"version": bootstrap.version, "address": bootstrap.address, "protocol": "ttrpc"}
        document["runtime"] = runtime
        self.write("bootstrap.json", json.dumps(document).encode())

    def bootstrap(self) -> "Bootstrap | None":
        """How the shim was reached last; None when it never got that far."""
        if text := self.read("bootstrap.json"):
            return parse_bootstrap(text)
        if address := self.read("address").decode().strip():
            return Bootstrap(2, address)
        return None

    def runtime(self) -> str:
        """The runtime's name or path; "" when its shim never got that far."""
        text = self.read("bootstrap.json")
        return str(json.loads(text).get("runtime", "")) if text else ""

    def delete(self) -> None:
        """Idempotent. A root file system that a shim left mounted is unmounted first, for what is removed
        below it would be removed from the container."""
        rootfs = os.path.join(self.path, "rootfs")
        if os.path.isdir(rootfs):
            while detach_mount(os.fsencode(rootfs)):
                pass  # one layer of mounts gone, there may be more
        work = os.path.join(self.path, "work")
        try:
            remove_tree(os.readlink(work))
        except OSError:
            pass  # no work directory was made, or it is gone
        if os.path.isdir(os.path.dirname(self.path)):
            remove_tree(self.path)


def parse_bootstrap(answer: bytes) -> Bootstrap:
    """A shim's answer to ``start``: a plain address, or JSON; raises PeerError."""
    text = answer.decode("utf-8", "replace").strip()
    version = 2
    if text.startswith("{"):
        try:
            document = json.loads(text)
            text, version = str(document["address"]), int(document.get("version", 2))
            protocol = document.get("protocol", "ttrpc")
        except (ValueError, KeyError, TypeError) as error:
            raise PeerError(f"the shim answered {answer[:200]!r}", cause="no bootstrap document") from error
        if protocol != "ttrpc":
            raise PeerError(f"the shim wants to speak {protocol}, not ttrpc")
    if version not in (2, 3) or not text.removeprefix("unix://").startswith(("/", "\0", "@")):
        raise PeerError(f"the shim answered {answer[:200]!r}", cause="no address of a Task service, version 2 or 3")
    return Bootstrap(version, text)


class Bundles:
    """All bundles below one state directory; their work directories are below ``root``."""

    def __init__(self, root: str, state: str) -> None:
        self._work = os.path.join(root, DIRECTORY)
        self._state = os.path.join(state, DIRECTORY)
        os.makedirs(self._work, mode=0o711, exist_ok=True)
        os.makedirs(self._state, mode=0o711, exist_ok=True)

    def create(self, namespace: str, id: str, spec: bytes, *, work: bool = True) -> Bundle:
        """Both names must be identifiers, which makes them safe in a path. Raises AlreadyExists.

        ``work`` makes a directory for what the shim may keep across a reboot, too: ours keeps nothing.
        """
        bundle = Bundle(namespace, id, os.path.join(self._state, namespace, id))
        directory = os.path.join(self._work, namespace, id)
        try:
            os.makedirs(os.path.dirname(bundle.path), mode=0o711, exist_ok=True)
            os.mkdir(bundle.path, 0o711)
        except FileExistsError:
            raise AlreadyExists(f"task {id!r}: already exists") from None
        try:
            os.mkdir(os.path.join(bundle.path, "rootfs"), 0o711)
            if work:
                os.makedirs(directory, mode=0o711, exist_ok=True)
                os.symlink(directory, os.path.join(bundle.path, "work"))
            with open(os.path.join(bundle.path, "config.json"), "wb") as file:
                file.write(spec)
        except OSError as error:
            bundle.delete()
            raise describe(error, f"cannot make the bundle of task {id!r}") from error
        return bundle

    def __iter__(self) -> Iterator[Bundle]:
        for namespace in sorted(os.listdir(self._state)):
            for id in sorted(os.listdir(os.path.join(self._state, namespace))):
                if not id.startswith("."):
                    yield Bundle(namespace, id, os.path.join(self._state, namespace, id))

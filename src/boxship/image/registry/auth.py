"""Containers' auth files: who we are, as podman, skopeo and buildah keep it (containers-auth.json(5)).

The same JSON as docker's ``config.json``, in other places, and with keys that may name a repository or a namespace of
it (``quay.io/team/app``): the longest that fits wins.
"""

import os

from boxship.errors import FailedPrecondition
from boxship.oci.reference import Reference

from .credentials import Credential, Credentials, default_path


def plain_key(domain: str) -> str:
    """Docker Hub's name in these files is its domain."""
    return "docker.io" if domain in ("index.docker.io", "registry-1.docker.io") else domain


def writable_path(authfile: str = "") -> str:
    """The file that ``login`` writes: --authfile, $REGISTRY_AUTH_FILE, or the one of this session."""
    named = authfile or os.environ.get("REGISTRY_AUTH_FILE", "")
    if named:
        return named
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        if not os.path.isdir(runtime):
            raise FailedPrecondition(
                f"XDG_RUNTIME_DIR is {runtime}",
                cause="no such directory",
                remedy="make it, or name a file with --authfile",
            )
        return os.path.join(runtime, "containers", "auth.json")
    return f"/run/containers/{os.getuid()}/auth.json"


def search_path(authfile: str = "") -> "list[str]":
    """Where to look, in order: a file that somebody names is the only one."""
    named = authfile or os.environ.get("REGISTRY_AUTH_FILE", "")
    if named:
        return [named]
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    session = os.path.join(runtime, "containers") if runtime else f"/run/containers/{os.getuid()}"
    return [
        os.path.join(session, "auth.json"),
        os.path.join(config, "containers", "auth.json"),
        default_path(),
    ]


class AuthFiles:
    """Answers for one repository; a `boxship.image.registry.client.Keyring`."""

    def __init__(self, reference: Reference, authfile: str = "") -> None:
        if authfile and not os.path.exists(authfile):
            raise FailedPrecondition(
                f"Checking authfile path {authfile}", cause="no such file", remedy="log in with --authfile first"
            )
        self._reference = reference
        self._files = [Credentials(path, key=plain_key) for path in search_path(authfile)]

    def get(self, domain: str) -> "Credential | None":
        keys = []
        if domain == self._reference.domain:
            keys = [self._reference.name]
            while "/" in keys[-1]:
                keys.append(keys[-1].rpartition("/")[0])
            keys.pop()  # the domain itself is asked for last, with helpers and old spellings
        for file in self._files:
            for key in keys:
                if (found := file.exactly(key)) is not None:
                    return found
            if (found := file.get(domain)) is not None:
                return found
        return None

"""Who we are at a registry: ``~/.docker/config.json``, its credential stores and helpers (docker/cli, config file).

A *helper* is a program ``docker-credential-NAME`` that is spoken to over its standard streams; ``credHelpers`` names
one for a registry, ``credsStore`` one for all.
Secrets are never logged and are not part of ``repr``.
"""

import base64
import binascii
import os
from collections.abc import Callable
from typing import Any

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument

HUB_KEY = "https://index.docker.io/v1/"
"""What docker's files call Docker Hub."""
_HELPER_TIMEOUT = 60.0


class Credential(msgspec.Struct, frozen=True):
    """A name and a secret, or an ``identity_token`` that is exchanged for access tokens."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ...)"

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token)


def key_of(domain: str) -> str:
    """Under which name a registry's credentials are filed."""
    return HUB_KEY if domain in ("docker.io", "index.docker.io", "registry-1.docker.io") else domain


def default_path() -> str:
    """``$DOCKER_CONFIG/config.json``, or the one in the home directory."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(directory, "config.json")


def _host(key: str) -> str:
    """The registry that an entry is for: entries may be URLs, as old ones are."""
    text = key.partition("://")[2] or key
    return text.partition("/")[0]


class Credentials:
    """One configuration file. Reading a missing one is fine; unknown keys are kept when it is written.

    ``key`` says under which name a registry is filed: docker's and containers' files differ for Docker Hub.
    """

    def __init__(self, path: str = "", *, key: "Callable[[str], str]" = key_of) -> None:
        self.path = path or default_path()
        self._key = key

    def _read(self) -> "dict[str, Any]":
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FailedPrecondition(f"credentials in {self.path}", cause=error.strerror or str(error)) from error
        try:
            return msgspec.json.decode(data or b"{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"{self.path}: not JSON", cause=str(error)) from error

    def get(self, domain: str) -> "Credential | None":
        """What is known for a registry; raises FailedPrecondition when its helper fails."""
        config = self._read()
        key = self._key(domain)
        helper = (config.get("credHelpers") or {}).get(domain) or config.get("credsStore")
        if helper:
            found = self._ask(helper, key)
            if found or domain not in (config.get("auths") or {}):
                return found
        auths = config.get("auths") or {}
        entry = auths.get(key) or auths.get(domain)
        if entry is None:
            entry = next((value for name, value in auths.items() if _host(name) == _host(key)), None)
        return self._decode(domain, entry) if isinstance(entry, dict) and entry else None

    def exactly(self, name: str) -> "Credential | None":
        """What is filed under this very name, which may have a path. Helpers are not asked."""
        entry = (self._read().get("auths") or {}).get(name)
        return self._decode(name, entry) if isinstance(entry, dict) and entry else None

    def names(self) -> "list[str]":
        """Every name that something is filed under in the file itself."""
        return list(self._read().get("auths") or {})

    def _decode(self, domain: str, entry: "dict[str, Any]") -> "Credential | None":
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            try:
                text = base64.b64decode(str(entry["auth"]), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise InvalidArgument(
                    f"{self.path}: auths[{domain!r}].auth", cause="not base64 of name:secret"
                ) from error
            username, _, password = text.partition(":")
            password = password.strip("\0")
        return Credential(username, password, str(entry.get("identitytoken") or "")) or None

    def store(self, domain: str, credential: Credential) -> str:
        """Remember it; says where: a path, or the helper's name. The file is replaced whole, and private."""
        config = self._read()
        key = self._key(domain)
        helper = (config.get("credHelpers") or {}).get(domain) or config.get("credsStore")
        if helper:
            secret = credential.identity_token or credential.password
            name = "<token>" if credential.identity_token else credential.username
            document = {"ServerURL": key, "Username": name, "Secret": secret}
            self._helper(helper, "store", msgspec.json.encode(document))
            return f"docker-credential-{helper}"
        entry = {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}
        if credential.identity_token:
            entry = {
                "auth": base64.b64encode(f"{credential.username}:".encode()).decode(),
                "identitytoken": credential.identity_token,
            }
        config.setdefault("auths", {})[key] = entry
        self._write(config)
        return self.path

    def erase(self, domain: str) -> bool:
        """Forget it; False when nothing was known."""
        config = self._read()
        key = self._key(domain)
        helper = (config.get("credHelpers") or {}).get(domain) or config.get("credsStore")
        known = False
        if helper:
            known = self._ask(helper, key) is not None
            if known:
                self._helper(helper, "erase", key.encode())
        auths = config.get("auths") or {}
        for name in [name for name in auths if name in (key, domain)]:
            del auths[name]
            known = True
            self._write(config)
        return known

    def _write(self, config: "dict[str, Any]") -> None:
        temporary = f"{self.path}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
            os.replace(temporary, self.path)
        except OSError as error:
            raise FailedPrecondition(f"cannot write {self.path}", cause=error.strerror or str(error)) from error

    def _ask(self, helper: str, key: str) -> "Credential | None":
        out = self._helper(helper, "get", key.encode(), missing_is_fine=True)
        if not out:
            return None
        try:
            found = msgspec.json.decode(out, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise FailedPrecondition(
                f"docker-credential-{helper} get {key}", cause="its answer is no JSON"
            ) from error
        name, secret = str(found.get("Username") or ""), str(found.get("Secret") or "")
        return Credential(identity_token=secret) if name == "<token>" else Credential(name, secret) or None

    @staticmethod
    def _helper(helper: str, verb: str, data: bytes, *, missing_is_fine: bool = False) -> bytes:
        program = f"docker-credential-{helper}"
        if "/" in helper:
            raise InvalidArgument(f"credential helper {helper!r} is no name")
        import subprocess

        try:
            done = subprocess.run(
                [program, verb], input=data, capture_output=True, timeout=_HELPER_TIMEOUT, check=False
            )
        except FileNotFoundError as error:
            remedy = "install it, or take it out of the configuration file"
            raise FailedPrecondition(
                f"credential helper {program}", cause="no such program", remedy=remedy
            ) from error
        except subprocess.TimeoutExpired as error:
            raise FailedPrecondition(f"credential helper {program} {verb}", cause="it does not answer") from error
        if done.returncode:
            said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
            if missing_is_fine and "not found" in said:
                return b""
            raise FailedPrecondition(
                f"credential helper {program} {verb}", cause=said[:500] or f"exit {done.returncode}"
            )
        return done.stdout

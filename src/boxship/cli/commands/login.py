"""``boxship login``: ask the engine whether a registry takes our name, and remember it in config.json."""

from __future__ import annotations

import sys

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..terminal import is_terminal

FLAGS = (
    Flag("password", "p", "string", "Password or Personal Access Token (PAT)"),
    Flag("password-stdin", "", "bool", "Take the Password or Personal Access Token (PAT) from stdin"),
    Flag("username", "u", "string", "Username"),
)


def server(arguments: list[str]) -> str:
    """The registry's domain: the argument without scheme and path, or Docker Hub."""
    text = arguments[0] if arguments else "docker.io"
    domain = (text.partition("://")[2] or text).partition("/")[0]
    return "docker.io" if domain in ("index.docker.io", "registry-1.docker.io") else domain


def _secrets(o: Parsed) -> tuple[str, str]:
    username, password = o.username, o.password
    if o.password_stdin:
        if password:
            raise InvalidArgument("--password and --password-stdin are mutually exclusive")
        if not username:
            raise InvalidArgument("must provide --username with --password-stdin")
        return username, sys.stdin.read().rstrip("\r\n")
    if password:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
    if (not username or not password) and not is_terminal(0):
        raise InvalidArgument("cannot perform an interactive login from a non TTY device")
    if not username:
        username = input("Username: ").strip()
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
    if not username or not password:
        raise InvalidArgument("username and password are both needed")
    return username, password


def do(context: Context, o: Parsed) -> int:
    from boxship.image.registry.credentials import Credential, Credentials, key_of

    domain = server(o.args)
    username, password = _secrets(o)
    body = {"username": username, "password": password, "serveraddress": key_of(domain)}
    answer = context.client.request("POST", "/auth", body=body).json()
    token = answer.get("IdentityToken") or ""
    where = Credentials().store(domain, Credential(username, "" if token else password, token))
    if "/" in where:
        print(f"WARNING! Your credentials are stored unencrypted in '{where}'.", file=sys.stderr)
    print(answer.get("Status", ""))
    return 0


COMMAND = Command("login", "[SERVER]", "Authenticate to a registry", do, FLAGS, most=1)

"""``logout``: forget what ``login`` remembered."""

from __future__ import annotations

from boxship.errors import NotFound
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context
from .login import auth_file, place

FLAGS = (
    Flag("all", "a", "bool", "Forget the credentials for every registry in the file"),
    Flag("authfile", "", "string", "The auth file (default: $REGISTRY_AUTH_FILE, or the session's)", value="PATH"),
    Flag("compat-auth-file", "", "string", "Change docker's config.json at PATH instead", value="PATH"),
    Flag("tls-verify", "", "bool", "Taken for skopeo's sake: no registry is asked"),
)


def do(context: Context, o: Parsed) -> int:
    file = auth_file(o)
    if o.all:
        if o.args:
            raise UsageError("--all takes no arguments")
        for name in file.names():
            file.erase(name)
        print("Remove login credentials for all registries")
        return 0
    key, _ = place(o.args)
    if not file.erase(key):
        raise NotFound(f"not logged into {key}", cause=f"{file.path} does not have it")
    print(f"Removed login credentials for {key}")
    return 0


COMMAND = Command(
    "logout", "REGISTRY", "Log out of a container registry", do, FLAGS, most=1, examples=("logout quay.io",)
)  # fmt: skip

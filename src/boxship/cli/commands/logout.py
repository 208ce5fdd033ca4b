"""``boxship logout``."""

from __future__ import annotations

from boxship.flags import Parsed

from ..command import Command, Context
from .login import server


def do(context: Context, o: Parsed) -> int:
    from boxship.image.registry.credentials import Credentials, key_of

    domain = server(o.args)
    if Credentials().erase(domain):
        print(f"Removing login credentials for {key_of(domain)}")
    else:
        print(f"Not logged in to {key_of(domain)}")
    return 0


COMMAND = Command("logout", "[SERVER]", "Log out from a registry", do, most=1, local=True)

"""``boxship version``."""

from __future__ import annotations

import os
import platform

from boxship import __version__
from boxship.errors import Unavailable
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import print_documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (Flag("format", "f", "string", "Format output using a custom template"),)


def do(context: Context, o: Parsed) -> int:
    uname = os.uname()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(uname.machine, uname.machine)
    client = {
        "Version": __version__,
        "ApiVersion": context.client.version,
        "DefaultAPIVersion": context.client.version,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": architecture,
        "Context": "default",
    }
    unavailable: Unavailable | None = None
    server: dict[str, Any] = {}
    try:
        server = context.client.request("GET", "/version").json()
    except Unavailable as error:
        unavailable = error
    if o.format:
        if unavailable is not None and "Server" in o.format:
            raise unavailable
        print_documents([{"Client": client, "Server": server}], o.format)
        return 0
    print(f"Client:\n Version:           {client['Version']}\n API version:       {client['ApiVersion']}")
    print(f" Python version:    {client['PythonVersion']}\n OS/Arch:           linux/{architecture}")
    if unavailable is not None:
        raise unavailable
    print(f"\nServer: {server['Platform']['Name']}")
    for component in server["Components"]:
        print(f" {component['Name']}:\n  Version:          {component['Version']}")
        details = component.get("Details") or {}
        if "ApiVersion" in details:
            print(f"  API version:      {details['ApiVersion']} (minimum version {details.get('MinAPIVersion', '')})")
            print(f"  OS/Arch:          {details.get('Os', '')}/{details.get('Arch', '')}")
    return 0


COMMAND = Command("version", "", "Show the version information of client and engine", do, FLAGS)

"""``boxship info``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import human_size_binary, print_documents

FLAGS = (Flag("format", "f", "string", "Format output using a custom template"),)


def do(context: Context, o: Parsed) -> int:
    info = context.client.request("GET", "/info").json()
    if o.format:
        print_documents([info], o.format)
        return 0
    print(f"Client:\n Engine:    {context.client.address.text}\n\nServer:")
    print(f" Containers: {info['Containers']}\n  Running: {info['ContainersRunning']}")
    print(f"  Paused: {info['ContainersPaused']}\n  Stopped: {info['ContainersStopped']}")
    plugins = info.get("Plugins") or {}
    rows = [
        ("Images", info["Images"]),
        ("Server Version", info["ServerVersion"]),
        ("Storage Driver", info["Driver"]),
        ("Logging Driver", info["LoggingDriver"]),
        ("Cgroup Driver", info["CgroupDriver"]),
        ("Cgroup Version", info["CgroupVersion"]),
        *((f"{kind} Plugins", " ".join(names)) for kind, names in plugins.items() if names),
        ("Runtimes", " ".join(sorted(info["Runtimes"]))),
        ("Default Runtime", info["DefaultRuntime"]),
        ("Security Options", ", ".join(info.get("SecurityOptions") or [])),
        ("Kernel Version", info["KernelVersion"]),
        ("Operating System", info["OperatingSystem"]),
        ("OSType", info["OSType"]),
        ("Architecture", info["Architecture"]),
        ("CPUs", info["NCPU"]),
        ("Total Memory", human_size_binary(info["MemTotal"])),
        ("Name", info["Name"]),
        ("ID", info["ID"]),
        ("Root Dir", info["DockerRootDir"]),
        ("Debug Mode", str(info["Debug"]).lower()),
        ("Live Restore Enabled", str(info["LiveRestoreEnabled"]).lower()),
    ]
    for key, value in rows:
        print(f" {key}: {value}")
    for warning in info.get("Warnings") or []:
        print(f"WARNING: {warning}")
    return 0


COMMAND = Command("info", "", "Display system-wide information", do, FLAGS)

"""``docker top``: the processes of a container, in ps(1)'s columns.

``-ef``, the default, is read from /proc by ourselves, because a fresh machine may have no ps; other arguments are
given to the host's ps and its rows filtered, as dockerd does.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from typing import Any

from boxship.errors import FailedPrecondition, InvalidArgument

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
TICKS = os.sysconf("SC_CLK_TCK")


async def processes(pids: list[int], arguments: str) -> dict[str, Any]:
    """``{"Titles": [...], "Processes": [[...], ...]}``; raises InvalidArgument for arguments that ps refuses."""
    if arguments in ("", "-ef"):
        rows = [row for row in (_row(pid) for pid in pids) if row]
        return {"Titles": TITLES, "Processes": rows}
    return await _by_ps(pids, arguments)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _row(pid: int) -> list[str] | None:
    """One process as ``ps -ef`` shows it (proc_pid_stat(5)); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            text = f.read()
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            command = f.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        uid = os.stat(f"/proc/{pid}").st_uid
        with open("/proc/uptime") as f:
            uptime = float(f.read().split()[0])
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    parent, terminal = fields[1], int(fields[4])
    used = (int(fields[11]) + int(fields[12])) / TICKS
    age = uptime - int(fields[19]) / TICKS
    started = time.time() - age
    form = "%H:%M" if age < 86400 else "%b%d"
    share = int(100 * used / age) if age > 0 else 0
    clock = f"{int(used) // 3600:02d}:{int(used) // 60 % 60:02d}:{int(used) % 60:02d}"
    return [
        _user(uid),
        str(pid),
        parent,
        str(min(share, 99)),
        time.strftime(form, time.localtime(started)),
        _terminal(terminal),
        clock,
        command or f"[{name}]",
    ]


def _terminal(number: int) -> str:
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    return f"tty{minor}" if major == 4 else "?"


async def _by_ps(pids: list[int], arguments: str) -> dict[str, Any]:
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *arguments.split(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"top {arguments}: this host has no ps", remedy="install procps, or use no arguments"
        ) from error
    out, err = await process.communicate()
    if process.returncode:
        first = err.decode("utf-8", "replace").strip().partition("\n")[0]
        raise InvalidArgument(f"ps: {first.removeprefix('ps: ')}")
    lines = out.decode("utf-8", "replace").splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidArgument(f"Couldn't find PID field in ps output of 'ps {arguments}'")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    wanted = {str(pid) for pid in pids}
    return {"Titles": titles, "Processes": [row for row in rows if len(row) > column and row[column] in wanted]}

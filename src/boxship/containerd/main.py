"""``boxship-containerd``: the containerd services in a process of their own."""

import argparse
import asyncio
import grp
import logging
import os
import signal
import sys
import tomllib
from collections.abc import Sequence
from typing import Any

import uvloop

from boxship.containerd.composition import open_services
from boxship.errors import BoxshipError, InvalidArgument

ROOT = "/var/lib/boxship/containerd"
STATE = "/run/boxship/containerd"
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Command line over configuration file over defaults, as containerd does it."""
    parser = argparse.ArgumentParser(
        prog="boxship-containerd", description="containerd's gRPC API, served by Boxship."
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="configuration file (TOML, containerd's keys)")
    parser.add_argument("-l", "--log-level", choices=_LEVELS, help="default: info")
    parser.add_argument("-a", "--address", metavar="SOCKET", help=f"default: {STATE}/containerd.sock")
    parser.add_argument("--root", metavar="DIR", help=f"what survives a reboot; default: {ROOT}")
    parser.add_argument("--state", metavar="DIR", help=f"what does not; default: {STATE}")
    parser.add_argument("--exec-root", metavar="DIR", help="where shims have their sockets; default: --state")
    parser.add_argument("-G", "--group", help="group that may use the socket")
    parsed = parser.parse_args(arguments)
    file = _read_config(parsed.config) if parsed.config else {}
    served = file.get("grpc", {})
    parsed.root = parsed.root or file.get("root") or ROOT
    parsed.state = parsed.state or file.get("state") or STATE
    parsed.address = parsed.address or served.get("address") or os.path.join(parsed.state, "containerd.sock")
    parsed.log_level = parsed.log_level or file.get("debug", {}).get("level") or "info"
    parsed.gid = _group_id(parsed.group) if parsed.group else int(served.get("gid", -1))
    if parsed.exec_root is None:
        parsed.exec_root = os.path.dirname(STATE) if parsed.state == STATE else parsed.state
    return parsed


def _read_config(path: str) -> "dict[str, Any]":
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"cannot read the configuration {path}", cause=str(error)) from error


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidArgument(f"no group {name!r} on this host") from None


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_services(
        arguments.root,
        arguments.state,
        arguments.address,
        exec_root=arguments.exec_root,
        group=arguments.gid,
    ):
        logging.getLogger("boxship.containerd").info("serving at %s", arguments.address)
        await stop.wait()


def main(arguments: "Sequence[str] | None" = None) -> int:
    """The exit code: 0 after a signal, 1 when it could not start."""
    try:
        parsed = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=_LEVELS[parsed.log_level], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        uvloop.run(serve(parsed))
    except BoxshipError as error:
        print(f"boxship-containerd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

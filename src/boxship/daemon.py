"""``boxship engine``: the engine, and by default the containerd services in the same process.

The one module that knows two programs.  With ``--containerd SOCKET`` the services are another process's, ours or the
real one; the engine cannot tell the difference, because it only has a `boxship.api.containerd.Client`.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from boxship.api.containerd import Client, namespace
from boxship.containerd.composition import open_services
from boxship.engine.app import Engine
from boxship.engine.config import NAMESPACE, EngineConfig
from boxship.engine.networks import EngineNetworks
from boxship.engine.options import configuration
from boxship.engine.server import Api, listen
from boxship.errors import BoxshipError, FailedPrecondition, PermissionDenied

log = logging.getLogger("boxship.daemon")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
IMAGES = Path(__file__).parent / "_images" / "hello"
INIT = Path(__file__).parent / "_native" / "init"


@asynccontextmanager
async def containerd_client(config: EngineConfig) -> AsyncIterator[Client]:
    """The embedded services, also served on their socket for ctr, or a connection to another containerd."""
    if config.containerd:
        async with Client.connect(config.containerd) as client:
            yield client
        return
    state = config.exec_root / "containerd"
    async with open_services(
        str(config.data_root / "containerd"),
        str(state),
        str(state / "containerd.sock"),
        exec_root=str(config.exec_root),
    ) as services:
        yield Client.in_process(services)


def lock_data_root(config: EngineConfig) -> int:
    """One engine for a data root: the lock goes with the process. Raises FailedPrecondition."""
    config.data_root.mkdir(parents=True, exist_ok=True, mode=0o711)
    config.exec_root.mkdir(parents=True, exist_ok=True, mode=0o711)
    fd = os.open(config.data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise FailedPrecondition(
            f"another engine uses the data root {config.data_root}", remedy="stop it, or give another --data-root"
        ) from None
    return fd


async def serve(config: EngineConfig) -> None:
    """Serve until SIGINT or SIGTERM; containers go on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    namespace.set(NAMESPACE)  # every connection's task inherits it
    async with containerd_client(config) as client:
        engine = Engine(config, client, EngineNetworks(config), IMAGES)
        await engine.start()
        servers = await listen(Api(engine), config)
        if config.pidfile:
            config.pidfile.write_text(f"{os.getpid()}\n")
        hosts = ", ".join(config.hosts) or f"unix://{config.exec_root}/engine.sock"
        log.info("serving the Docker Engine API on %s", hosts)
        # A thread that unpacks an image hands the interpreter over within a millisecond when a request comes.
        sys.setswitchinterval(0.001)
        gc.collect()
        gc.freeze()  # what start-up made stays; collections on the path of a run have little to look at
        await stop.wait()
        for server in servers:
            server.close()
        await engine.close()
    for host in config.hosts or [f"unix://{config.exec_root}/engine.sock"]:
        if host.startswith("unix://"):
            Path(host.removeprefix("unix://")).unlink(missing_ok=True)
    if config.pidfile:
        config.pidfile.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a signal, 1 when it could not start."""
    try:
        config, level = configuration(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=LEVELS[level], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("grpc").setLevel(logging.WARNING)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        if os.geteuid() != 0:
            raise PermissionDenied("boxship engine needs to be started with root privileges", remedy="use sudo")
        if not config.init_path and INIT.exists():
            config.init_path = str(INIT)
        lock = lock_data_root(config)
        try:
            import uvloop
        except ImportError:
            asyncio.run(serve(config))
        else:
            uvloop.run(serve(config))
        os.close(lock)
    except BoxshipError as error:
        print(f"boxship engine: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How one engine is set up: its directories, what it listens on, its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

NAMESPACE = "moby"  # the containerd namespace of an engine, as dockerd has it
DEFAULT_RUNTIME = "boxship"
BOXSHIP_SHIM = "io.containerd.boxship.v2"
RUNC_SHIM = "io.containerd.runc.v2"


@dataclass
class EngineConfig:
    """Directories and defaults; the flags that fill it are dockerd's (``boxship engine --help``)."""

    data_root: Path = Path("/var/lib/boxship")
    exec_root: Path = Path("/run/boxship")
    hosts: list[str] = field(default_factory=list)  # unix:// and tcp:// addresses; empty: EXEC_ROOT/engine.sock
    group: str = ""
    pidfile: Path | None = None
    containerd: str = ""  # address of a containerd in another process; empty: the embedded one
    runtimes: dict[str, str] = field(default_factory=dict)  # name -> path of an OCI runtime
    default_runtime: str = DEFAULT_RUNTIME
    cgroup_parent: str = ""
    bridge: str = ""  # name of the default bridge; empty: chosen once for the data root
    bip: str = ""  # the bridge's address with its prefix length; empty: a network that the host does not route
    log_driver: str = "json-file"
    log_opts: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    insecure_registries: list[str] = field(default_factory=list)
    registry_mirrors: list[str] = field(default_factory=list)  # asked before Docker Hub
    tls: bool = False
    tls_verify: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    debug: bool = False
    init_path: str = ""

    @property
    def containers_root(self) -> Path:
        return self.data_root / "containers"

    @property
    def volumes_root(self) -> Path:
        return self.data_root / "volumes"

    def fifo_directory(self, id: str, exec_id: str = "") -> Path:
        """Where a process's FIFOs are; short, because they end up in every shim's memory and in FIFO paths."""
        return self.exec_root / "fifo" / (f"{id}-{exec_id}" if exec_id else id)

    def log_path(self, id: str) -> Path:
        return self.containers_root / id / f"{id}-json.log"

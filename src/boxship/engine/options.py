"""The command line of ``boxship engine`` (``boxshipd``), with dockerd's flags and its configuration file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxship import __version__
from boxship.errors import InvalidArgument

from .config import EngineConfig

# keys of daemon.json that we take, and the option that each stands for
FILE_KEYS = {
    "data-root": "data_root", "exec-root": "exec_root", "hosts": "host", "group": "group", "pidfile": "pidfile",
    "containerd": "containerd", "bridge": "bridge", "bip": "bip", "default-runtime": "default_runtime",
    "log-driver": "log_driver", "debug": "debug", "dns": "dns", "labels": "label", "tls": "tls",
    "tlsverify": "tlsverify", "tlscacert": "tlscacert", "tlscert": "tlscert", "tlskey": "tlskey",
    "cgroup-parent": "cgroup_parent", "init-path": "init_path", "insecure-registries": "insecure_registry",
    "registry-mirrors": "registry_mirror",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="boxship engine", description="The Docker Engine API, served by Boxship.", allow_abbrev=False
    )
    p.add_argument(
        "-H",
        "--host",
        action="append",
        default=None,
        metavar="ADDRESS",
        help="unix:///PATH or tcp://ADDRESS:PORT to serve on; may be repeated",
    )
    p.add_argument("--data-root", metavar="DIR", help="what survives a reboot (default /var/lib/boxship)")
    p.add_argument("--exec-root", metavar="DIR", help="what does not (default /run/boxship)")
    p.add_argument("-p", "--pidfile", metavar="FILE", help="write the engine's process id here")
    p.add_argument("-G", "--group", help="group that may use the unix socket")
    p.add_argument("--containerd", metavar="SOCKET", help="use this containerd instead of the embedded one")
    p.add_argument("--config-file", metavar="FILE", help="daemon.json with these flags' names as keys")
    p.add_argument(
        "--add-runtime",
        action="append",
        default=None,
        metavar="NAME=PATH",
        help="an OCI runtime that --runtime NAME selects",
    )
    p.add_argument("--default-runtime", metavar="NAME", help="runtime of containers that name none")
    p.add_argument("--bridge", "-b", metavar="NAME", help="name of the default bridge")
    p.add_argument("--bip", metavar="CIDR", help="address of the default bridge")
    p.add_argument("--cgroup-parent", metavar="PATH", help="parent cgroup of containers")
    p.add_argument("--dns", action="append", default=None, metavar="ADDRESS", help="name server of containers")
    p.add_argument(
        "--insecure-registry",
        action="append",
        default=None,
        metavar="REGISTRY",
        help="registry that may speak plain HTTP, or has a certificate that nobody vouches for",
    )
    p.add_argument(
        "--registry-mirror", action="append", default=None, metavar="URL", help="asked before Docker Hub; repeatable"
    )
    p.add_argument("--init-path", metavar="FILE", help="the program that --init runs")
    p.add_argument("--label", action="append", default=None, metavar="KEY=VALUE", help="label of the engine")
    p.add_argument("--log-driver", choices=("json-file", "none"), help="default log driver")
    p.add_argument("--log-opt", action="append", default=None, metavar="KEY=VALUE", help="default log option")
    p.add_argument("-l", "--log-level", default="info", choices=("debug", "info", "warn", "error", "fatal"))
    p.add_argument("-D", "--debug", action="store_true", default=None)
    p.add_argument("--tls", action="store_true", default=None, help="serve tcp:// over TLS")
    p.add_argument("--tlsverify", action="store_true", default=None, help="and ask clients for a certificate")
    p.add_argument("--tlscacert", metavar="FILE")
    p.add_argument("--tlscert", metavar="FILE")
    p.add_argument("--tlskey", metavar="FILE")
    p.add_argument("-v", "--version", action="version", version=f"Boxship version {__version__}")
    return p  # fmt: skip


def _file(path: str, required: bool) -> dict[str, Any]:
    try:
        raw = json.loads(Path(path).read_text())
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"configuration file {path} does not exist") from None
        return {}
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"configuration file {path} is not valid JSON", cause=str(error)) from error
    if not isinstance(raw, dict):
        raise InvalidArgument(f"configuration file {path} must hold a JSON object")
    return raw


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise InvalidArgument(f"{option} {text!r} must look like NAME=VALUE")
        found[key] = value
    return found


def configuration(arguments: Sequence[str]) -> tuple[EngineConfig, str]:
    """Command line over configuration file over defaults; the configuration and the log level.

    Raises InvalidArgument; a wrong flag ends the program as argparse does.
    """
    parsed = parser().parse_args(arguments)
    values: dict[str, Any] = {}
    raw = _file(parsed.config_file or "/etc/boxship/daemon.json", parsed.config_file is not None)
    for key, value in raw.items():
        if key == "runtimes":
            values["runtimes"] = {name: entry.get("path", "") for name, entry in value.items()}
        elif key == "log-opts":
            values["log_opts"] = value
        elif key in FILE_KEYS:
            values[FILE_KEYS[key]] = value
        else:
            raise InvalidArgument(f"configuration file: unknown key {key!r}", remedy="see boxship engine --help")
    given = {key: value for key, value in vars(parsed).items() if value is not None}
    values.update(given)
    config = EngineConfig(
        hosts=list(values.get("host", [])),
        group=values.get("group", ""),
        containerd=values.get("containerd", ""),
        runtimes={**values.get("runtimes", {}), **_pairs(values.get("add_runtime", []), "--add-runtime")},
        bridge=values.get("bridge", ""),
        bip=values.get("bip", ""),
        cgroup_parent=values.get("cgroup_parent", ""),
        log_opts={**values.get("log_opts", {}), **_pairs(values.get("log_opt", []), "--log-opt")},
        labels=list(values.get("label", [])),
        dns=list(values.get("dns", [])),
        insecure_registries=list(values.get("insecure_registry", [])),
        registry_mirrors=list(values.get("registry_mirror", [])),
        tls=bool(values.get("tls")),
        tls_verify=bool(values.get("tlsverify")),
        tls_ca=values.get("tlscacert", ""),
        tls_cert=values.get("tlscert", ""),
        tls_key=values.get("tlskey", ""),
        debug=bool(values.get("debug")),
    )
    for key in ("data_root", "exec_root", "pidfile"):
        if values.get(key):
            setattr(config, key, Path(values[key]).absolute())
    for key in ("default_runtime", "log_driver", "init_path"):
        if values.get(key):
            setattr(config, key, values[key])
    if config.default_runtime not in {"boxship", "runc", *config.runtimes} and "." not in config.default_runtime:
        raise InvalidArgument(
            f"--default-runtime {config.default_runtime}: no such runtime", remedy="define it with --add-runtime"
        )
    return config, "debug" if config.debug else str(values.get("log_level", "info"))

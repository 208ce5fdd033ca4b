"""The three files that a container gets from its engine: /etc/hostname, /etc/hosts, /etc/resolv.conf."""

from __future__ import annotations

from pathlib import Path

from .models import Record

HOSTS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
LOOPBACK = ("127.", "::1")


def write(directory: Path, record: Record, nameservers: list[str], gateway: str) -> dict[str, str]:
    """Write them into the container's directory; gives destination -> host path for the bind mounts."""
    texts = {
        "hostname": record.Config.Hostname + "\n",
        "hosts": hosts(record, gateway),
        "resolv.conf": resolv_conf(record, nameservers),
    }
    for name, text in texts.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
    return {f"/etc/{name}": str(directory / name) for name in texts}


def hosts(record: Record, gateway: str) -> str:
    if record.HostConfig.NetworkMode == "host":
        try:
            lines = [Path("/etc/hosts").read_text().rstrip("\n")]
        except FileNotFoundError:
            lines = [f"{address}\t{names}" for address, names in HOSTS]
    else:
        lines = [f"{address}\t{names}" for address, names in HOSTS]
    for extra in record.HostConfig.ExtraHosts or []:
        name, _, address = extra.partition(":") if "=" not in extra else extra.partition("=")
        lines.append(f"{gateway if address == 'host-gateway' else address}\t{name}")
    names = record.Config.Hostname
    if record.Config.Domainname:
        names += f".{record.Config.Domainname}"
    if "." in names:
        names += " " + names.partition(".")[0]  # the full name first, as resolvers want it
    lines += [f"{endpoint.IPAddress}\t{names}" for endpoint in record.Networks.values() if endpoint.IPAddress]
    return "\n".join(lines) + "\n"


def resolv_conf(record: Record, nameservers: list[str]) -> str:
    """The host's, with what the container sets; a loopback server would be the container itself, so it goes."""
    asked = record.HostConfig
    try:
        host = Path("/etc/resolv.conf").read_text().splitlines()
    except FileNotFoundError:
        host = []
    words = [line.split() for line in host if line.split() and not line.startswith(("#", ";"))]
    shares_host = asked.NetworkMode == "host"
    servers = asked.Dns or [
        w[1] for w in words if w[0] == "nameserver" and len(w) > 1 and (shares_host or not w[1].startswith(LOOPBACK))
    ]
    search = asked.DnsSearch or [domain for w in words if w[0] in ("search", "domain") for domain in w[1:]]
    options = asked.DnsOptions or [option for w in words if w[0] == "options" for option in w[1:]]
    lines = [f"nameserver {server}" for server in servers or nameservers]
    if search and search != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"

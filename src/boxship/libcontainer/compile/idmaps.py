"""Id-mapped mounts: a user namespace for each pair of maps, set on the detached mount (mount_setattr(2), Linux 5.12).

Only who is privileged over a file system may map its ids: so this happens in the creator's namespaces, before the
container's own user namespace is there.
A source that an earlier mount of the container makes is not there yet then. In a user namespace the executor sends
its descriptor at a meeting point, and the creator has it copied and mapped (libcontainer/mapped_source.py).
"""

from boxship.errors import InvalidArgument
from boxship.libcontainer.plan.ops import CWD, Await, Open, SendHandle, SetMountAttributes, UserNamespace
from boxship.linux.abi.mount import AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_IDMAP

from .context import Context, MappedSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .options import Options


def lines(maps: "Iterable[dict[str, Any]]", step: str) -> str:
    """Maps as the text of /proc/PID/uid_map. Raises InvalidArgument naming the ``step`` of the JSON path."""
    text = ""
    for index, each in enumerate(maps):
        values = [each.get(key) or 0 for key in ("containerID", "hostID", "size")]
        for key, value in zip(("containerID", "hostID", "size"), values, strict=True):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
                raise InvalidArgument(f"{step}[{index}].{key}: must be a number from 0 to 2^32-1, not {value!r}")
        text += f"{values[0]} {values[1]} {values[2]}\n"
    return text


def _option_lines(c: Context, kind: str, text: str, where: str) -> str:
    """crun's ``idmap=uids=0-1-10#20-30-1;gids=...``: ranges of the file system, the mount, and the size.

    An ``@`` before a range says that the middle number is an id of the container.
    """
    found = ""
    for part in text.split(";"):
        key, _, ranges = part.partition("=")
        if key != kind:
            continue
        for each in ranges.split("#"):
            relative = each.startswith("@")
            numbers = each.removeprefix("@").split("-")
            if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
                raise InvalidArgument(f"{where}: {each!r} is not FROM-TO-SIZE")
            first, second, size = map(int, numbers)
            if relative:
                second = _on_host(c, "uidMappings" if kind == "uids" else "gidMappings", second)
            found += f"{first} {second} {size}\n"
    return found


def _on_host(c: Context, key: str, id: int) -> int:
    for each in c.linux.get(key) or ():
        if each["containerID"] <= id < each["containerID"] + each["size"]:
            return int(each["hostID"] + id - each["containerID"])
    return id


def prepare(c: Context, index: int, mount: "dict[str, Any]", options: "Options", inside: str) -> None:
    """Make the user namespace of a mount's id map: the mount's own, or else the container's.

    ``inside`` is where in the container the source is, "" when it is the host's.
    """
    where = f"mounts[{index}] on {mount.get('destination')}"
    if not c.privileged:
        raise InvalidArgument(f"{where}: an id-mapped mount needs root", remedy="leave idmap and the mappings away")
    if options.idmap_text:
        uids = _option_lines(c, "uids", options.idmap_text, f"{where}: options: idmap")
        gids = _option_lines(c, "gids", options.idmap_text, f"{where}: options: idmap")
    else:
        own = mount.get("uidMappings") or mount.get("gidMappings")
        source, prefix = (mount, f"mounts[{index}].") if own else (c.linux, "linux.")
        uids = lines(source.get("uidMappings") or (), prefix + "uidMappings")
        gids = lines(source.get("gidMappings") or (), prefix + "gidMappings")
    joined = not uids and not gids and "user" in c.joined  # the container's are those of the namespace that it joins
    if not joined and not (uids and gids):
        raise InvalidArgument(f"{where}: an id-mapped mount needs both uidMappings and gidMappings")
    if inside and c.userns:
        path = c.joined["user"] if joined else ""
        c.mapped_sources[index] = MappedSource(
            f"{where}: map the ids of /{inside} of the container",
            uids,
            gids,
            path,
            recursive=options.recursive,
            map_all=options.idmap == "ridmap",
        )
        return
    userns = c.id_maps.get((uids, gids))
    if userns is None:
        userns = c.id_maps[uids, gids] = c.slot()
        c.add(Open(userns, CWD, c.joined["user"], 0) if joined else UserNamespace(userns, uids, gids))
    c.mount_id_maps[index] = userns


def apply(c: Context, index: int, options: "Options", slot: int) -> None:
    """Give the detached mount in ``slot`` the id map that was prepared for it."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if options.idmap == "ridmap" else 0)
    c.add(SetMountAttributes(slot, "", flags, MOUNT_ATTR_IDMAP, 0, 0, c.mount_id_maps[index]))


def by_creator(c: Context, source: MappedSource, slot: int) -> None:
    """Have the creator copy and map what ``scratch`` is a descriptor of; the detached mount comes into ``slot``."""
    name = f"mapped-source-{len(c.plan.mapped_sources)}"
    c.plan.mapped_sources[name] = source
    c.add(SendHandle(c.scratch))
    c.add(Await(name, slot))

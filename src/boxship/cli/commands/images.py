"""``boxship images``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import filters, local_time, print_list, short_id, short_size, since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("all", "a", "bool", "Show all images (default hides intermediate images)"),
    Flag("digests", "", "bool", "Show digests"),
    Flag("filter", "f", "list", "Filter output based on conditions provided", value="filter"),
    Flag("format", "", "string", "Format output using a custom template"),
    Flag("no-trunc", "", "bool", "Don't truncate output"),
    Flag("quiet", "q", "bool", "Only show image IDs"),
)


def rows(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each tag, one for an image without."""
    found = []
    for image in images:
        digest = next((d.partition("@")[2] for d in image.get("RepoDigests") or []), "<none>")
        for tag in image.get("RepoTags") or ["<none>:<none>"]:
            repository, _, name = tag.rpartition(":")
            found.append({**image, "Repository": repository, "Tag": name, "Digest": digest})
    return found


def do(context: Context, o: Parsed) -> int:
    wanted = list(o.filter)
    if o.args:
        wanted.append(f"reference={o.args[0]}")
    images = context.client.request("GET", "/images/json", {"all": o.all, "filters": filters(wanted)}).json()
    fields: dict[str, Any] = {
        "ID": ("IMAGE ID", lambda i: i["Id"] if o.no_trunc else short_id(i["Id"])),
        "Repository": ("REPOSITORY", lambda i: i["Repository"]),
        "Tag": ("TAG", lambda i: i["Tag"]),
        "Digest": ("DIGEST", lambda i: i["Digest"]),
        "CreatedSince": ("CREATED", lambda i: since(i["Created"])),
        "CreatedAt": ("CREATED AT", lambda i: local_time(i["Created"])),
        "Size": ("SIZE", lambda i: short_size(i["Size"])),
        "Containers": ("CONTAINERS", lambda i: "N/A"),
        "SharedSize": ("SHARED SIZE", lambda i: "N/A"),
        "UniqueSize": ("UNIQUE SIZE", lambda i: "N/A"),
        "VirtualSize": ("SIZE", lambda i: short_size(i["Size"])),
    }
    columns = ["Repository", "Tag", *(["Digest"] if o.digests else []), "ID", "CreatedSince", "Size"]
    print_list(rows(images), fields, columns, o.format, quiet="ID" if o.quiet else "")
    return 0


COMMAND = Command("images", "[REPOSITORY[:TAG]]", "List images", do, FLAGS, most=1)

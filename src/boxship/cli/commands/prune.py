"""``boxship container prune`` and ``boxship image prune``."""

from __future__ import annotations

from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..output import filters, human_size
from .volume import confirm

FILTER = Flag("filter", "", "list", "Provide filter values (e.g. until=<timestamp>)", value="filter")
FORCE = Flag("force", "f", "bool", "Do not prompt for confirmation")


def containers(context: Context, o: Parsed) -> int:
    if not o.force and not confirm("This will remove all stopped containers."):
        return 0
    answer = context.client.request("POST", "/containers/prune", {"filters": filters(o.filter)}).json()
    if answer["ContainersDeleted"]:
        print("Deleted Containers:", *answer["ContainersDeleted"], "", sep="\n")
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0


def images(context: Context, o: Parsed) -> int:
    which = "all images without at least one container associated to them" if o.all else "all dangling images"
    if not o.force and not confirm(f"This will remove {which}."):
        return 0
    wanted = filters([*o.filter, f"dangling={'false' if o.all else 'true'}"])
    answer = context.client.request("POST", "/images/prune", {"filters": wanted}).json()
    if answer["ImagesDeleted"]:
        print("Deleted Images:")
        for entry in answer["ImagesDeleted"]:
            for key, value in entry.items():
                print(f"{key.lower()}: {value}")
        print()
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
    return 0


CONTAINERS = Command("prune", "", "Remove all stopped containers", containers, (FILTER, FORCE))
IMAGES = Command(
    "prune", "", "Remove unused images", images,
    (Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"), FILTER, FORCE),
)  # fmt: skip

"""``sync``: copy a repository, a directory of images, or the images of a YAML file."""

from __future__ import annotations

import os

from boxship.errors import BoxshipError
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context, Refused
from .copy import SHARED, ends, wanted
from .images import retrying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.image.copy import Options
    from boxship.image.manifests import Document
    from boxship.image.sync import Group
    from boxship.image.transports import Access, Name

FLAGS = (
    *SHARED,
    Flag("all", "a", "bool", "Copy all images of an index"),
    Flag("append-suffix", "", "string", "Append TEXT to the tags at the destination", value="TEXT"),
    Flag("dest", "d", "string", "What DESTINATION is: docker or dir", value="TRANSPORT"),
    Flag("digestfile", "", "string", "Write a digest and a name for each copied image to PATH", value="PATH"),
    Flag("dry-run", "", "bool", "Say what would be copied"),
    Flag("keep-going", "", "bool", "Go on when an image cannot be copied"),
    Flag("scoped", "", "bool", "Name images at the destination by their whole source"),
    Flag("src", "s", "string", "What SOURCE is: docker, dir or yaml", value="TRANSPORT"),
)
SOURCES, DESTINATIONS = ("docker", "dir", "yaml"), ("docker", "dir")


def do(context: Context, o: Parsed) -> int:
    from boxship.tools.files import write_file
    from boxship.tools.main import habit_of, tell

    _check(o)
    habit = habit_of(context.program)
    here, there = ends(context, o)
    options = wanted(context, o, here)
    groups = retrying(o, lambda: _groups(o, here, lambda text: tell(habit, text, "warning")))
    if o.dry_run:
        tell(habit, "Running in dry-run mode", "warning")
    count, failed, digests = 0, False, ""
    for group in groups:
        for number, image in enumerate(group.images, 1):
            destination = _destination(image, group, o)
            what = f"image ref {number}/{len(group.images)}"
            fields = {"from": str(image), "to": str(destination)}
            tell(habit, f"{'Would have copied' if o.dry_run else 'Copying'} {what}", "info", fields)
            if not o.dry_run:
                try:
                    done = _copy(image, destination, group, there, options, o)
                except BoxshipError as error:
                    error.message = f'Error copying ref "{image}": {error.message}'
                    if not o.keep_going:
                        raise
                    tell(habit, str(error), "error")
                    failed = True
                    continue
                digests += f"{done.digest} {destination}\n"
            count += 1
    if o.digestfile and not o.dry_run:
        write_file(o.digestfile, digests.encode(), "the digest file")
    tell(habit, f"{'Would have synced' if o.dry_run else 'Synced'} {count} images from {len(groups)} sources", "info")
    if failed:
        raise Refused("Sync failed due to previous reported error(s) for one or more images")
    return 0


def _check(o: Parsed) -> None:
    for flag, value, known in (("source", o.src, SOURCES), ("destination", o.dest, DESTINATIONS)):
        if not value:
            raise UsageError(f"A {flag} transport must be specified: one of {', '.join(known)}")
        if value not in known:
            raise UsageError(f'"{value}" is not a valid {flag} transport: one of {", ".join(known)}')
    if o.src == o.dest == "dir":
        raise UsageError("sync from 'dir' to 'dir' not implemented, consider using rsync instead")


def _groups(o: Parsed, here: Access, warn: object) -> list[Group]:
    from boxship.image import sync
    from boxship.tools.files import read_document

    match o.src:
        case "docker":
            return [sync.from_repository(o.args[0], here)]
        case "dir":
            return [sync.from_directory(o.args[0], here)]
    data = read_document(o.args[0], "the YAML file")
    return sync.from_yaml(data, o.args[0], here, warn)  # type: ignore[arg-type]  # a function of one text


def _destination(image: Name, group: Group, o: Parsed) -> Name:
    """Below DESTINATION: the last part of the source's name, or with --scoped all of it."""
    from boxship.image.transports import parse

    if image.transport == "docker":
        suffix = image.details.removeprefix("//")
    else:
        suffix = image.details.removeprefix(group.below).strip("/") or os.path.basename(group.below.rstrip("/"))
    if not o.scoped:
        suffix = suffix.rpartition("/")[2]
    path = f"{o.args[1].rstrip('/') or '/'}/{suffix}{o.append_suffix}"
    if o.dest == "docker":
        return parse(f"docker://{path}")
    if os.path.exists(path):
        raise UsageError(f'Refusing to overwrite destination directory "{path}"')
    return parse(f"dir:{path}")


def _copy(image: Name, destination: Name, group: Group, there: Access, options: Options, o: Parsed) -> Document:
    import msgspec

    from boxship.tools.copy import copied
    from boxship.tools.progress import report

    asked = msgspec.structs.replace(options, access=group.access)
    return retrying(o, lambda: copied(image, destination, group.access, there, asked, report(False)))


COMMAND = Command(
    "sync", "--src TRANSPORT --dest TRANSPORT SOURCE DESTINATION",
    "Copy all the images from a SOURCE (docker, dir, yaml) to a DESTINATION (docker, dir)",
    do, FLAGS, least=2, most=2,
    examples=(
        "sync --src docker --dest dir --scoped registry.example.com/busybox /media/usb",
        "sync --src yaml --dest docker images.yaml registry.example.com/mirror",
    ),
)  # fmt: skip

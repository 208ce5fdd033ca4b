"""``boxship-image create``: a bundle for a runtime, made of an image in a layout or an archive.

As umoci's unpack it applies the layers and writes config.json; it leaves nothing to pack the bundle again with.
With ``--rootfs-only`` it stops before config.json (image-tools' unpack).
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context
from .validate import selection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from boxship.image.layout import Layout
    from boxship.image.store import Image
    from boxship.oci.platform import Platform


def do(context: Context, o: Parsed) -> int:
    source, target = o.args
    if not o.rootfs or "/" in o.rootfs or o.rootfs in (".", ".."):
        raise UsageError(f"--rootfs {o.rootfs!r} is not the name of a directory in the bundle", 1)
    from boxship.oci import platform as platforms

    platform = platforms.parse(o.platform.replace(":", "/")) if o.platform else platforms.host()
    with _layout(source) as layout:
        image = _image(layout, o.ref, platform)
        _make(target)
        try:
            _fill(layout, image, target, "" if o.rootfs_only else o.rootfs)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)  # the tree in it is gone already, in its own way
            raise
    return 0


@contextmanager
def _layout(source: str) -> Iterator[Layout]:
    """The layout in a directory or an archive. Raises NotFound, InvalidArgument, DataLoss."""
    from boxship.image.layout import Layout
    from boxship.image.validate import unpacked

    if os.path.isdir(source):
        yield Layout(source)
        return
    with unpacked(source) as directory:
        yield Layout(directory)


def _image(layout: Layout, refs: list[str], platform: Platform) -> Image:
    """The one image that ``--ref`` means. Raises NotFound, FailedPrecondition, InvalidArgument, DataLoss."""
    import msgspec

    from boxship.image.store import resolve
    from boxship.oci import image as oci

    wanted = selection(refs)
    found = [
        entry.descriptor
        for entry in layout.entries()
        if entry.descriptor.media_type in oci.INDEX_TYPES | oci.MANIFEST_TYPES
        and (wanted is None or wanted(msgspec.to_builtins(entry.descriptor)))
    ]
    remedy = "name one with --ref, such as --ref name=v1.0"
    if not found:
        raise NotFound(f"{layout.path} has no such image", remedy=remedy)
    if len({one.digest for one in found}) > 1:
        raise FailedPrecondition(f"{layout.path} has {len(found)} images that fit", remedy=remedy)
    return resolve(layout, found[0], platform)


def _make(target: str) -> None:
    try:
        os.mkdir(target, 0o700)  # an image may hold set-uid programs with holes; only its owner gets at them
    except FileExistsError:
        raise AlreadyExists(f"{target} is there already", remedy="name a new directory") from None
    except OSError as error:
        raise InvalidArgument(f"cannot make {target}", cause=error.strerror or str(error)) from error


def _fill(layout: Layout, image: Image, target: str, rootfs: str) -> None:
    """``rootfs`` "" means that ``target`` is the root file system itself."""
    from boxship.image import bundle, runtime_config
    from boxship.image.idmap import IDENTITY

    path = os.path.join(target, rootfs) if rootfs else target
    bundle.unpack_rootfs(layout, image.manifest, image.config, path)
    if rootfs:
        config = runtime_config.convert(image.config, path, IDENTITY)
        config["root"] = {**config["root"], "path": rootfs}
        bundle.write_json(os.path.join(target, "config.json"), config, indent="\t")


COMMAND = Command(
    "create",
    "LAYOUT|ARCHIVE BUNDLE",
    "Make a bundle for a runtime from an image",
    do,
    (
        Flag("platform", help="The image of an index to take (default: this host's)", value="OS:ARCH"),
        Flag("ref", "", "list", "Which image of the layout: name=v1.0 or digest=sha256:...", value="KEY=VALUE"),
        Flag("rootfs", help="The root file system's name in the bundle", default="rootfs", value="NAME"),
        Flag("rootfs-only", "", "bool", "Make BUNDLE the root file system, without a config.json"),
    ),
    least=2,
    most=2,
    examples=("create --ref name=v1.0 ./layout ./bundle", "create image.tar ./bundle"),
)

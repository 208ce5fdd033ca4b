"""Bundles: an image unpacked for a runtime, and packed again with what was changed.

A bundle is a directory with ``rootfs``, ``config.json``, and two files that only these tools read: ``umoci.json``
says which manifest was unpacked and how owners were mapped, ``sha256_HEX.mtree`` what the tree looked like then. So
`repack` finds what changed without the layers. Both are umoci's files: a bundle that one unpacks the other can pack.

Layers go straight on top of each other into ``rootfs``; each blob's digest and each layer's diff ID are checked as
the bytes pass. A failed `unpack` removes what it made. An image that was repacked is named when all of it is written.
"""

import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from boxship.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from boxship.image import limits as bounds
from boxship.image import mtree, named, rooted, runtime_config, unprivileged
from boxship.image.apply import apply_layer
from boxship.image.blobs import open_blob
from boxship.image.compression import Compression
from boxship.image.diff import LayerWriter, walk
from boxship.image.idmap import IDENTITY, IdMap, mappings_from_json
from boxship.image.layout import Layout
from boxship.image.limits import Limits
from boxship.image.mtree import Delta
from boxship.image.mutate import History, Mutation, source_date_epoch
from boxship.image.named import DescriptorPath
from boxship.oci import digest as digests
from boxship.oci import image as oci

ROOTFS, CONFIG, META = "rootfs", "config.json", "umoci.json"
_META_VERSION = "2"
_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")

Say = Callable[[str], object]


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Manner:
    """How layers are unpacked, as for `apply_layer`."""

    idmap: IdMap = IDENTITY
    limits: Limits = bounds.DEFAULT
    keep_dirlinks: bool = False


@dataclass(frozen=True, slots=True)
class Meta:
    """What ``umoci.json`` says."""

    source: DescriptorPath
    idmap: IdMap

    def manifest_file(self, bundle: str) -> str:
        """The mtree manifest's path."""
        return os.path.join(bundle, self.source.manifest.digest.replace(":", "_") + ".mtree")


# ── Unpacking ──


def unpack(
    layout: Layout,
    name: str,
    bundle: str,
    manner: Manner = Manner(),
    *,
    say: Say = _silent,
) -> Meta:
    """Make ``bundle`` of the image ``name``; the directory may exist, but must have no bundle in it.

    Raises AlreadyExists, NotFound, DataLoss, InvalidArgument, ResourceExhausted; then no root file system is left.
    """
    source = named.resolve(layout, name)
    manifest = named.read_manifest(layout, source.manifest)
    image = named.read_config(layout, manifest)
    rootfs = os.path.join(bundle, ROOTFS)
    made = not os.path.lexists(bundle)
    try:
        os.makedirs(bundle, exist_ok=True)
        for path in (os.path.join(bundle, CONFIG), rootfs):
            if os.path.lexists(path):
                raise AlreadyExists(f"{path} is there already", remedy="unpack into a new directory")
        os.chmod(bundle, 0o700)  # an image may hold set-uid programs with holes; only its owner gets at them
    except OSError as error:
        raise rooted.describe(error, f"cannot make the bundle {bundle}") from error
    idmap = manner.idmap
    meta = Meta(source, idmap)
    contents: dict[int, str] = {}
    try:
        unpack_rootfs(layout, manifest, image, rootfs, manner, contents=contents, say=say)
        write_json(os.path.join(bundle, CONFIG), runtime_config.convert(image, rootfs, idmap), indent="\t")
        say("writing the manifest of the root file system")
        write_manifest(bundle, meta, contents)
        write_meta(bundle, meta)
    except BaseException:
        _discard(rootfs, idmap)
        for path in (os.path.join(bundle, CONFIG), meta.manifest_file(bundle), os.path.join(bundle, META)):
            if os.path.lexists(path):
                os.unlink(path)
        if made:
            os.rmdir(bundle)
        raise
    return meta


def unpack_rootfs(
    layout: Layout,
    manifest: oci.Manifest,
    image: oci.ImageConfig,
    rootfs: str,
    manner: Manner = Manner(),
    *,
    contents: "dict[int, str] | None" = None,
    say: Say = _silent,
) -> None:
    """Apply every layer to the directory ``rootfs``, which is made; when this raises it is gone.

    ``contents`` as for `apply_layer`.
    """
    _prepare(rootfs, manner.idmap)
    try:
        for descriptor, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
            say(f"unpacking layer {descriptor.digest}")
            if not descriptor.media_type.startswith(_LAYERS):
                raise InvalidArgument(
                    f"layer {descriptor.digest} is no file system layer", cause=f"it is {descriptor.media_type}"
                )
            with open_blob(layout, descriptor) as blob:
                apply_layer(
                    blob,
                    rootfs,
                    diff_id=digests.parse(diff_id),
                    overlay=False,
                    what=f"layer {descriptor.digest}",
                    idmap=manner.idmap,
                    limits=manner.limits,
                    keep_dirlinks=manner.keep_dirlinks,
                    contents=contents,
                )
                blob.drain()
    except BaseException:
        _discard(rootfs, manner.idmap)
        raise


def _prepare(rootfs: str, idmap: IdMap) -> None:
    try:
        os.mkdir(rootfs, 0o755)
    except FileExistsError:
        if os.listdir(rootfs):
            raise AlreadyExists(f"{rootfs} is not empty", remedy="unpack into a new directory") from None
    except OSError as error:
        raise rooted.describe(error, f"cannot make {rootfs}") from error
    try:
        os.chmod(rootfs, 0o755)
        os.chown(rootfs, *idmap.to_host(0, 0))
        os.utime(rootfs, ns=(0, 0))  # many images do not say; equal images must give equal trees
    except OSError as error:
        raise rooted.describe(error, f"cannot make {rootfs}") from error


def _discard(rootfs: str, idmap: IdMap) -> None:
    """Remove a tree, also one whose modes bar us."""
    if not os.path.isdir(rootfs):
        return
    if unprivileged.needed(idmap.rootless):
        for directory, _, _ in os.walk(rootfs):
            for entry in [
                directory,
                *(one.path for one in os.scandir(directory) if one.is_dir(follow_symlinks=False)),
            ]:
                os.chmod(entry, 0o700)
    rooted.remove_tree(os.path.abspath(rootfs))


# ── What a bundle remembers ──


def read_meta(bundle: str) -> Meta:
    """Raises NotFound (no bundle of ours or umoci's), InvalidArgument (damaged, or of another version)."""
    path = os.path.join(bundle, META)
    try:
        with open(path, "rb") as file:
            fields = json.loads(file.read(oci.DOCUMENT_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{bundle} is no bundle that can be packed", cause=f"it has no {META}", remedy="make it with 'unpack'"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"cannot read {path}", cause=str(error)) from error
    try:
        version, steps = fields["umoci_version"], fields["from_descriptor_path"]["descriptor_walk"]
        options = fields["map_options"]
        uids, gids = options.get("uid_mappings"), options.get("gid_mappings")
        rootless = bool(options.get("rootless"))
    except (KeyError, TypeError) as error:
        raise InvalidArgument(f"{path} is damaged", cause=f"{error} is missing") from error
    if version != _META_VERSION or fields.get("whiteout_mode"):
        raise InvalidArgument(f"{path} is of another version ({version})", remedy="unpack the image again")
    walked = tuple(oci.decode(oci.Descriptor, json.dumps(step).encode(), path) for step in steps)
    if not walked:
        raise InvalidArgument(f"{path} is damaged", cause="it names no manifest")
    digests.parse(walked[-1].digest)
    return Meta(DescriptorPath(walked), IdMap(mappings_from_json(uids), mappings_from_json(gids), rootless))


def write_meta(bundle: str, meta: Meta) -> None:
    options = {
        "uid_mappings": [one.to_json() for one in meta.idmap.uids] or None,
        "gid_mappings": [one.to_json() for one in meta.idmap.gids] or None,
        "rootless": meta.idmap.rootless,
    }
    steps = [json.loads(oci.encode(step)) for step in meta.source.steps]
    fields = {
        "umoci_version": _META_VERSION,
        "from_descriptor_path": {"descriptor_walk": steps},
        "map_options": options,
    }
    write_json(os.path.join(bundle, META), fields)


def write_json(path: str, document: "dict[str, Any]", indent: "str | None" = None) -> None:
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=False)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise rooted.describe(error, f"cannot write {path}") from error


def write_manifest(bundle: str, meta: Meta, contents: "dict[int, str] | None" = None) -> None:
    """Write down what the root file system looks like now; ``contents`` as for `mtree.scan`."""
    rootfs = os.path.join(bundle, ROOTFS)
    files = mtree.scan(rootfs, unprivileged=unprivileged.needed(meta.idmap.rootless), contents=contents)
    try:
        with open(meta.manifest_file(bundle), "wb") as file:
            mtree.write(files, file.write, tree=os.path.abspath(rootfs))
    except OSError as error:
        raise rooted.describe(error, f"cannot write {meta.manifest_file(bundle)}") from error


# ── Packing again ──


def changes(bundle: str, meta: Meta, masked: Collection[str] = ()) -> "list[Delta]":
    """What changed in the root file system since the bundle was unpacked, except at and below ``masked`` paths.

    Raises NotFound (no root file system, or no manifest of it), InvalidArgument (a damaged manifest).
    """
    rootfs = os.path.join(bundle, ROOTFS)
    if not os.path.isdir(rootfs):
        raise NotFound(f"the bundle {bundle} has no {ROOTFS}")
    path = meta.manifest_file(bundle)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            before = mtree.parse(file, path)
    except FileNotFoundError:
        raise NotFound(f"the bundle {bundle} has no manifest of its root file system", cause=f"no {path}") from None
    now = mtree.scan(rootfs, unprivileged=unprivileged.needed(meta.idmap.rootless))
    found = mtree.compare(before, now, mtree.UMOCI)
    gone = {delta.path for delta in found if delta.kind == "missing"}
    hidden = {path.strip("/") for path in (os.path.normpath("/" + one) for one in masked)}
    return [
        delta
        for delta in found
        if not _below(delta.path, hidden, itself=True) and not _below(delta.path, gone, itself=False)
    ]


def _below(path: str, tops: "set[str]", *, itself: bool) -> bool:
    """Whether ``path`` is below one of ``tops``, or is one of them."""
    if path == ".":
        return False
    at = path if itself else path.rpartition("/")[0]
    while at:
        if at in tops:
            return True
        at = at.rpartition("/")[0]
    return False


def repack(
    layout: Layout,
    name: str,
    bundle: str,
    *,
    history: "History | None" = None,
    compression: "Compression | None" = None,
    masked: Collection[str] = (),
    mask_volumes: bool = True,
    refresh: bool = False,
    say: Say = _silent,
) -> DescriptorPath:
    """Put what changed in ``bundle`` on top of the image that it was made of, and call the result ``name``.

    Without changes only ``history`` is added. With ``refresh`` the bundle is that of the new image afterwards.
    """
    meta = read_meta(bundle)
    mutation = Mutation(layout, meta.source)
    hidden = [*masked, *((mutation.settings.get("Volumes") or {}) if mask_volumes else ())]
    say("comparing the root file system with its manifest")
    deltas = changes(bundle, meta, hidden)
    if deltas:
        say(f"writing a layer of {len(deltas)} changes")
        with mutation.layer(history, compression) as layer:
            _write_changes(os.path.join(bundle, ROOTFS), deltas, meta.idmap, layer.write)
    else:
        mutation.add_history(history)
    made = mutation.commit()
    layout.tag(name, made.root)
    if refresh:
        old, meta = meta, Meta(made, meta.idmap)
        write_manifest(bundle, meta)
        write_meta(bundle, meta)
        if old.manifest_file(bundle) != meta.manifest_file(bundle):
            os.unlink(old.manifest_file(bundle))
    return made


def _write_changes(rootfs: str, deltas: "list[Delta]", idmap: IdMap, write: "Callable[[bytes], object]") -> None:
    layer = LayerWriter(write, idmap=idmap, epoch=source_date_epoch(), whole_seconds=True)
    with unprivileged.Unlocked(rootfs, unprivileged.needed(idmap.rootless)) as tree:
        for delta in deltas:
            if delta.kind == "missing":
                layer.whiteout(delta.path)
            else:
                path = os.path.normpath(os.path.join(rootfs, delta.path))
                with tree.reachable(delta.path) as found:
                    layer.add(delta.path, path, found)
    layer.close()


def insert(
    layout: Layout,
    source: DescriptorPath,
    name: str,
    target: str,
    content: "str | None",
    *,
    opaque: bool = False,
    history: "History | None" = None,
    compression: "Compression | None" = None,
    idmap: IdMap = IDENTITY,
) -> DescriptorPath:
    """Put the file or tree ``content`` at ``target`` on top of the image ``source``; None removes ``target``.

    With ``opaque`` nothing that the image had in the directory ``target`` stays. Raises NotFound, InvalidArgument.
    """
    place = os.path.normpath("/" + target).strip("/")
    mutation = Mutation(layout, source)
    with mutation.layer(history, compression) as new:
        layer = LayerWriter(new.write, idmap=idmap, epoch=source_date_epoch(), whole_seconds=True)
        if content is None:
            if not place:
                raise InvalidArgument("the root directory cannot be removed")
            layer.whiteout(place)
        else:
            if opaque:
                layer.opaque(place)
            _add_tree(layer, place, content)
        layer.close()
    made = mutation.commit()
    layout.tag(name, made.root)
    return made


def _add_tree(layer: LayerWriter, place: str, content: str) -> None:
    try:
        found = os.stat(content, follow_symlinks=False)
    except OSError as error:
        raise rooted.describe(error, f"cannot insert {content}") from error
    try:
        layer.add(place, content, found)
        if os.path.isdir(content) and not os.path.islink(content):
            for path, name, status in walk(content, place):
                layer.add(name, path, status)
    except PermissionError as error:
        raise FailedPrecondition(f"cannot read {error.filename}", cause="EACCES", remedy="insert as root") from error

"""``import``: the tar of a root file system becomes an image of one layer."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from boxship.errors import InvalidArgument
from boxship.image import tar
from boxship.image.apply import clean_name
from boxship.image.compression import Reader, detect, inflate
from boxship.image.load import LAYER_MEDIA, undo
from boxship.image.store import Image, Store, resolve
from boxship.image.tar import TarReader
from boxship.oci import image as oci
from boxship.oci import platform as platforms
from boxship.oci.digest import Verifier
from boxship.oci.platform import Platform


def import_rootfs(
    source: Reader,
    store: Store,
    *,
    config: "Mapping[str, Any] | None" = None,
    message: str = "",
    platform: "Platform | None" = None,
) -> Image:
    """Store ``source`` (compressed or not) as it comes, read it once through, and describe it.

    ``config`` are the image config's defaults (Cmd, Env, ...). Every name is checked as the applier will check it.
    Raises InvalidArgument, DataLoss (cut short), ResourceExhausted; then nothing is left in the store.
    """
    here = platform or platforms.host()
    with undo(store) as put:
        digest = put(source, "")
        with store.open(digest) as blob:
            compression = detect(blob.read(6))
            size = blob.seek(0, 2)
            blob.seek(0)
            diff_id = _examine(blob)
        created = datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z")
        document = oci.encode(
            oci.ImageConfig(
                architecture=here.architecture,
                os=here.os,
                variant=here.variant,
                created=created,
                config=dict(config or {}),
                rootfs=oci.RootFS(diff_ids=[diff_id]),
                history=[oci.History(created=created, comment=message)],
            )
        )
        manifest = oci.encode(
            oci.Manifest(
                2,
                oci.Descriptor(oci.MEDIA_CONFIG, put(document, ""), len(document)),
                [oci.Descriptor(LAYER_MEDIA[compression], digest, size)],
                media_type=oci.MEDIA_MANIFEST,
            )
        )
        return resolve(store, oci.Descriptor(oci.MEDIA_MANIFEST, put(manifest, ""), len(manifest)), here)


class _Tee:
    def __init__(self, source: Reader, verifier: Verifier) -> None:
        self._source = source
        self._verifier = verifier

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._verifier.update(data)
        return data


def _examine(blob: Reader) -> str:
    """The diff ID of a layer whose every header has been looked at."""
    verifier = Verifier(what="root file system")
    members = 0
    for entry in TarReader(_Tee(inflate(blob), verifier), "root file system"):
        clean_name(entry.name, "root file system")
        if entry.type == tar.LINK:
            clean_name(entry.linkname, f"root file system: hard link {entry.name!r}")
        members += 1
    if not members:
        raise InvalidArgument("root file system is empty")
    return verifier.finish()

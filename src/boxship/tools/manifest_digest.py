"""``manifest-digest``: the digest that a registry would give to the manifest in a file."""

from __future__ import annotations

import sys

from boxship.flags import Parsed

from .command import Command, Context


def do(context: Context, o: Parsed) -> int:
    from boxship.image.manifests import digest_of
    from boxship.tools.files import read_document

    data = read_document(o.args[0], "the manifest")
    sys.stdout.write(digest_of(data) + "\n")
    return 0


COMMAND = Command(
    "manifest-digest", "MANIFEST-FILE", "Compute a manifest digest of a file", do, least=1, most=1,
    examples=("manifest-digest manifest.json",),
)  # fmt: skip

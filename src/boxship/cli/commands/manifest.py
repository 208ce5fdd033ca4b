"""``boxship manifest``: annotate, create, inspect, push, rm. It talks to registries itself, as docker does."""

from __future__ import annotations

import json
import sys

from boxship.errors import BoxshipError
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from ..subcommands import group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.image.registry.client import Repository
    from boxship.image.registry.lists import Lists, Open
    from boxship.oci.reference import Reference

INSECURE = Flag("insecure", "", "bool", "Allow communication with an insecure registry")


def _lists() -> Lists:
    import os

    from boxship.image.registry.credentials import default_path
    from boxship.image.registry.lists import Lists

    return Lists(os.path.join(os.path.dirname(default_path()), "manifests"))


def _reference(text: str) -> Reference:
    from boxship.oci import reference

    return reference.parse(text).with_default_tag()


def _registries(insecure: bool) -> Open:
    from boxship.image.registry.client import Repository
    from boxship.image.registry.credentials import Credentials
    from boxship.image.registry.hosts import Settings

    known = Credentials()

    def open_(reference: Reference) -> Repository:
        settings = Settings(insecure=(reference.domain,) if insecure else ())
        return Repository(reference, settings=settings, credentials=known)

    return open_


def create(context: Context, o: Parsed) -> int:
    name, *manifests = (_reference(text) for text in o.args)
    _lists().create(name, manifests, _registries(o.insecure), amend=o.amend)
    print(f"Created manifest list {name.familiar}")
    return 0


def annotate(context: Context, o: Parsed) -> int:
    name, manifest = (_reference(text) for text in o.args)
    features = [one for text in o.os_features for one in text.split(",")]
    _lists().annotate(
        name, manifest, architecture=o.arch, os=o.os, variant=o.variant, os_version=o.os_version, os_features=features
    )
    return 0


def inspect(context: Context, o: Parsed) -> int:
    from boxship.image.registry import lists as library
    from boxship.oci import image as oci

    *name, manifest = (_reference(text) for text in o.args)
    local = _lists()
    if name:
        _show([local.find(name[0], manifest).document()], o.verbose, False)
        return 0
    found = local.get(manifest)
    if found:
        if o.verbose:
            _show([one.document() for one in found], True, True)
        else:
            print(local.document(manifest)[0].decode())
        return 0
    repository = _registries(o.insecure)(manifest)
    descriptor, data = library.resolve(manifest, repository)
    if descriptor.media_type not in oci.INDEX_TYPES:
        _show([library.describe(str(manifest), descriptor, data, repository).document()], o.verbose, False)
        return 0
    if not o.verbose:
        print(json.dumps(json.loads(data), indent=3))
        return 0
    below = []
    for child in oci.decode(oci.Index, data, f"index {descriptor.digest}").manifests or []:
        document = repository.manifest(child.digest)[1]
        below.append(library.describe(f"{manifest}@{child.digest}", child, document, repository).document())
    _show(below, True, True)
    return 0


def _show(documents: list[dict[str, object]], whole: bool, several: bool) -> None:
    """``whole`` is all that is known of a manifest; otherwise the manifest."""
    shown = documents if whole else [one.get("OCIManifest") or one["SchemaV2Manifest"] for one in documents]
    print(json.dumps(shown if several else shown[0], indent="\t"))


def push(context: Context, o: Parsed) -> int:
    name = _reference(o.args[0])
    lists = _lists()
    print(lists.push(name, _registries(o.insecure), print))
    if o.purge:
        lists.remove(name)
    return 0


def rm(context: Context, o: Parsed) -> int:
    lists, failed = _lists(), 0
    for text in o.args:
        try:
            lists.remove(_reference(text))
        except BoxshipError as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


COMMAND = group(
    "manifest",
    "Manage image manifests and manifest lists",
    {
        "annotate": Command(
            "annotate", "MANIFEST_LIST MANIFEST", "Add additional information to a local image manifest", annotate,
            (
                Flag("arch", "", "string", "Set architecture"),
                Flag("os", "", "string", "Set operating system"),
                Flag("os-features", "", "list", "Set operating system feature"),
                Flag("os-version", "", "string", "Set operating system version"),
                Flag("variant", "", "string", "Set architecture variant"),
            ),
            least=2, most=2,
        ),
        "create": Command(
            "create", "MANIFEST_LIST MANIFEST [MANIFEST...]",
            "Create a local manifest list for annotating and pushing to a registry", create,
            (Flag("amend", "a", "bool", "Amend an existing manifest list"), INSECURE), least=2, most=None,
        ),
        "inspect": Command(
            "inspect", "[MANIFEST_LIST] MANIFEST", "Display an image manifest, or manifest list", inspect,
            (INSECURE, Flag("verbose", "v", "bool", "Output additional info including layers and platform")),
            least=1, most=2,
        ),
        "push": Command(
            "push", "MANIFEST_LIST", "Push a manifest list to a repository", push,
            (INSECURE, Flag("purge", "p", "bool", "Remove the local manifest list after push")), least=1, most=1,
        ),
        "rm": Command(
            "rm", "MANIFEST_LIST [MANIFEST_LIST...]", "Delete one or more manifest lists from local storage", rm,
            least=1, most=None,
        ),
    },
    {},
    local=True,
)  # fmt: skip

"""``umoci raw mtree-validate``: whether a directory still is what an mtree manifest says."""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed, UsageError

from ..command import Command, Context, Refused
from . import options as shared

FLAGS = (
    Flag("add-keywords", "K", "string", "add keywords to those that are compared (by comma or space)", value="value"),
    Flag("use-keywords", "k", "string", "compare only these keywords", value="value"),
    Flag("umoci-keywords", "", "bool", "compare the keywords that umoci writes"),
    Flag("manifest", "f", "string", "the mtree manifest", value="value"),
    Flag("file", "", "string", "the mtree manifest", value="value"),
    Flag("path", "p", "string", "the directory", value="value"),
)


def do(context: Context, options: Parsed) -> int:
    from boxship.image import mtree, unprivileged

    manifest = options.manifest or options.file
    if not manifest or not options.path:
        raise UsageError("--manifest and --path are both needed")
    try:
        with open(manifest, encoding="utf-8", errors="surrogateescape") as file:
            before = mtree.parse(file, manifest)
    except OSError as error:
        raise InvalidArgument(f"cannot read {manifest}", cause=error.strerror or str(error)) from error
    keywords = _keywords(options, mtree.used(before))
    now = mtree.scan(options.path, keywords, unprivileged=unprivileged.needed(options.rootless))
    differences = mtree.compare(before, now, keywords)
    for one in differences:
        print(one)
    if differences:
        raise Refused(f"validation failed: {len(differences)} differences found")
    return 0


def _keywords(options: Parsed, used: list[str]) -> list[str]:
    from boxship.image import mtree

    def given(text: str) -> list[str]:
        return [mtree.keyword(word) for word in text.replace(",", " ").split()]

    if "use-keywords" in options.given:
        chosen = given(options.use_keywords)
    else:
        chosen = list(mtree.UMOCI) if options.umoci_keywords else used
    return list(dict.fromkeys(["type", *chosen, *given(options.add_keywords)]))


COMMAND = Command(
    "mtree-validate",
    "--manifest MANIFEST --path DIRECTORY",
    "validate an mtree manifest",
    do,
    (*FLAGS, *shared.ROOTLESS),
)

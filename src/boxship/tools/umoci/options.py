"""The flags that several verbs share, and what they mean once read.

An image is ``--image PATH[:NAME]``, a layout ``--layout PATH``; a path with a colon cannot be said, as in umoci.
Whoever asks for a value here gets it checked, or a UsageError that names the flag.
"""

from __future__ import annotations

import sys

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.image.bundle import Manner, Say
    from boxship.image.compression import Compression
    from boxship.image.idmap import IdMap, Mapping
    from boxship.image.layout import Layout
    from boxship.image.mutate import History

    from ..command import Context

IMAGE = (Flag("image", "", "string", "OCI image URI of the form 'path[:tag]'", value="value"),)
LAYOUT = (Flag("layout", "", "string", "path to an OCI image layout", value="value"),)
TAG = (Flag("tag", "", "string", "new tag name (if empty, overwrite --image tag)", value="value"),)
COMPRESS = (
    Flag(
        "compress", "", "string", "compression algorithm for newly created layer blobs", default="auto", value="value"
    ),
)
HISTORY = (
    Flag("no-history", "", "bool", "do not create a history entry"),
    Flag("history.author", "", "string", "author value for the history entry", value="value"),
    Flag("history.comment", "", "string", "comment for the history entry", value="value"),
    Flag("history.created", "", "string", "created value for the history entry", value="value"),
    Flag("history.created_by", "", "string", "created_by value for the history entry", value="value"),
)
ROOTLESS = (Flag("rootless", "", "bool", "enable rootless command support"),)
REMAP = (
    Flag("uid-map", "", "list", "specifies a uid mapping to use (container:host:size)", value="value"),
    Flag("gid-map", "", "list", "specifies a gid mapping to use (container:host:size)", value="value"),
    *ROOTLESS,
)
KEEP_DIRLINKS = (Flag("keep-dirlinks", "", "bool", "don't clobber underlying symlinks to directories"),)

_COMPRESSIONS: dict[str, Compression | None] = {"auto": None, "none": "", "gzip": "gzip", "zstd": "zstd"}


def image(options: Parsed) -> tuple[Layout, str]:
    """The layout and the name that ``--image`` says (the name is ``latest`` when it says none)."""
    from boxship.image.layout import Layout

    _need(options, "image")
    path, colon, name = options.values["image"].partition(":")
    if not path:
        raise UsageError("invalid --image: the path is empty")
    return Layout(path), valid_name(name if colon else "latest", "--image")


def layout_path(options: Parsed) -> str:
    """What ``--layout`` says."""
    _need(options, "layout")
    path: str = options.values["layout"]
    if not path:
        raise UsageError("invalid --layout: the path is empty")
    if ":" in path:
        raise UsageError(f"invalid --layout: {path!r} contains a colon")
    return path


def new_name(options: Parsed, name: str) -> str:
    """What ``--tag`` says, else ``name``."""
    return valid_name(options.tag, "--tag") if "tag" in options.given else name


def valid_name(name: str, flag: str) -> str:
    from boxship.image.named import is_valid_name

    if not is_valid_name(name):
        raise UsageError(f"invalid {flag}: {name!r} is no name for an image (image-spec, annotations.md)")
    return name


def argument(options: Parsed, what: str, at: int = 0) -> str:
    """A positional argument; raises UsageError when it is empty."""
    if not options.args[at]:
        raise UsageError(f"{what} is empty")
    return options.args[at]


def compression(options: Parsed) -> Compression | None:
    """None: that of the image."""
    if options.compress not in _COMPRESSIONS:
        known = ", ".join(_COMPRESSIONS)
        raise UsageError(f"invalid --compress: {options.compress!r} is unknown: choose one of {known}")
    return _COMPRESSIONS[options.compress]


def history(options: Parsed, created_by: str, author: str = "") -> History | None:
    """The history entry that the flags ask for; ``created_by`` and ``author`` stand where they say nothing."""
    from boxship.image.mutate import History, now, parse_time

    said = sorted(flag for flag in options.given if flag.startswith("history."))
    if options.values["no-history"]:
        if said:
            raise UsageError(f"--no-history and --{said[0]} may not be specified together")
        return None
    values = options.values
    created = (
        parse_time(values["history.created"], "--history.created") if "history.created" in options.given else now()
    )
    return History(
        created,
        values["history.created_by"] if "history.created_by" in options.given else created_by,
        values["history.author"] if "history.author" in options.given else author,
        values["history.comment"],
    )


def idmap(options: Parsed) -> IdMap:
    """``--rootless`` without mappings makes the container's root the user who calls."""
    import os

    from boxship.image.idmap import IdMap, Mapping, parse_mapping

    def read(flag: str, own: int) -> tuple[Mapping, ...]:
        texts = options.values[flag]
        if options.rootless and not texts:
            return (Mapping(0, own, 1),)
        return tuple(parse_mapping(text, f"--{flag}") for text in texts)

    return IdMap(read("uid-map", os.geteuid()), read("gid-map", os.getegid()), options.rootless)


def manner(options: Parsed) -> Manner:
    """What `REMAP` and `KEEP_DIRLINKS` say."""
    from boxship.image.bundle import Manner

    return Manner(idmap(options), keep_dirlinks=options.keep_dirlinks)


def key_value(text: str, flag: str) -> tuple[str, str]:
    """``NAME=value``."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidArgument(f"invalid {flag} {text!r}", cause="expected NAME=value")
    return key, value


def say(context: Context) -> Say:
    """Tells steps on standard error when they were asked for (``--verbose``, ``--log=info``, ``--debug``)."""
    values = context.options.values
    if values.get("verbose") or values.get("debug") or values.get("log") in ("info", "debug"):
        return lambda text: print(text, file=sys.stderr)
    return lambda text: None


def _need(options: Parsed, flag: str) -> None:
    if flag not in options.given:
        raise UsageError(f"missing mandatory argument: --{flag}")

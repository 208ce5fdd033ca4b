"""``umoci config``: change what an image says about itself.

`CLEARED` and the two tables below it are the flags: which field of the config each one changes, and how.
"""

from __future__ import annotations

from boxship.errors import InvalidArgument
from boxship.flags import Flag, Parsed

from ..command import Command, Context
from . import options as shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from boxship.image.mutate import Mutation

# flag -> the field of the config document that it sets
DOCUMENT = {
    "author": "author",
    "platform.os": "os",
    "os": "os",
    "platform.arch": "architecture",
    "architecture": "architecture",
    "platform.variant": "variant",
}
# flag -> the field of the document's ``config``, and what its values become there
SETTINGS = {
    "config.user": ("User", "text"),
    "config.workingdir": ("WorkingDir", "text"),
    "config.stopsignal": ("StopSignal", "text"),
    "config.entrypoint": ("Entrypoint", "words"),
    "config.cmd": ("Cmd", "words"),
    "config.exposedports": ("ExposedPorts", "set"),
    "config.volume": ("Volumes", "set"),
    "config.env": ("Env", "variables"),
    "config.label": ("Labels", "map"),
}
# what --clear takes -> the field that it empties
CLEARED = {
    "config.labels": "Labels",
    "config.exposedports": "ExposedPorts",
    "config.env": "Env",
    "config.volume": "Volumes",
    "config.cmd": "Cmd",
    "config.entrypoint": "Entrypoint",
}
FLAGS = (
    *(
        Flag(name, "", "string" if kind == "text" else "list", f"set {field} of the config", value="value")
        for name, (field, kind) in SETTINGS.items()
    ),
    *(Flag(name, "", "string", f"set {field} of the image", value="value") for name, field in DOCUMENT.items()),
    Flag("created", "", "string", "set the time at which the image was made (RFC 3339)", value="value"),
    Flag("manifest.annotation", "", "list", "add an annotation, NAME=value, to the manifest", value="value"),
    Flag("clear", "", "list", f"empty {', '.join(CLEARED)} or manifest.annotations first", value="value"),
)


def do(context: Context, options: Parsed) -> int:
    from boxship.image.mutate import Mutation
    from boxship.image.named import resolve

    layout, name = shared.image(options)
    new = shared.new_name(options, name)
    mutation = Mutation(layout, resolve(layout, name))
    for key in options.clear:
        _clear(mutation, key)
    _change(mutation, options)
    mutation.add_history(shared.history(options, "umoci config", mutation.config.get("author", "")))
    made = mutation.commit()
    layout.tag(new, made.root)
    shared.say(context)(f"made {new}: {made.manifest.digest}")
    return 0


def _clear(mutation: Mutation, key: str) -> None:
    if key == "manifest.annotations":
        mutation.annotations.clear()
    elif key in CLEARED:
        mutation.settings.pop(CLEARED[key], None)
    elif key == "rootfs.diffids":
        raise InvalidArgument("--clear=rootfs.diffids is not safe", cause="the layers could not be verified any more")
    else:
        raise InvalidArgument(f"unknown key to --clear: {key}", remedy=f"known are {', '.join(CLEARED)}")


def _change(mutation: Mutation, options: Parsed) -> None:
    from boxship.image.mutate import parse_time

    for flag, field in DOCUMENT.items():
        if flag in options.given:
            mutation.config[field] = options.values[flag]
    if "created" in options.given:
        mutation.config["created"] = parse_time(options.created, "--created")
    for flag, (field, kind) in SETTINGS.items():
        if flag in options.given:
            value = options.values[flag]
            mutation.settings[field] = _merged(mutation.settings.get(field), value, kind, f"--{flag}")
    for text in options.values["manifest.annotation"]:
        key, value = shared.key_value(text, "--manifest.annotation")
        mutation.annotations[key] = value


def _merged(old: Any, value: Any, kind: str, flag: str) -> Any:
    """What a field is after a flag: sets, maps and variables gain members, everything else is replaced."""
    match kind:
        case "set":
            return (old or {}) | {one: {} for one in value}
        case "map":
            return (old or {}) | dict(shared.key_value(one, flag) for one in value)
        case "variables":
            found = {one.partition("=")[0]: one for one in old or ()}
            for one in value:
                found[shared.key_value(one, flag)[0]] = one
            return [*found.values()]
        case _:
            return value


COMMAND = Command(
    "config",
    "--image PATH[:NAME] [--tag NEW-NAME]",
    "modifies the image configuration of an OCI image",
    do,
    (*FLAGS, *shared.HISTORY, *shared.TAG, *shared.IMAGE),
)

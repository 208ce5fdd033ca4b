"""Platforms: ``os/architecture[/variant]``, normalised as Go spells them (image-spec, image-index.md)."""

import os
from collections.abc import Sequence

from boxship.errors import InvalidArgument
from boxship.oci.value import Value

# uname's machine and other common spellings -> (GOARCH, variant).
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
}
_DEFAULT_VARIANT = {("amd64", "v1"): "", ("arm64", "v8"): "", ("arm64", "8"): ""}


class Platform(Value):
    __slots__ = ("architecture", "os", "variant")

    def __init__(self, os: str, architecture: str, variant: str = "") -> None:
        self.os = os
        self.architecture = architecture
        self.variant = variant

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, other: "Platform") -> bool:
        """Whether an image for ``other`` runs here: the same, or an older variant of the same 32-bit arm."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        if self.architecture == "arm" and self.variant and other.variant:
            return other.variant <= self.variant
        return self.variant == other.variant or not self.variant or not other.variant


def normalise(os_name: str, architecture: str, variant: str = "") -> Platform:
    arch, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
    variant = variant.lower() or implied
    variant = _DEFAULT_VARIANT.get((arch, variant), variant)
    if arch == "arm" and variant in ("", "7"):
        variant = "v7"
    return Platform(os_name.lower(), arch, variant)


def parse(text: str) -> Platform:
    """``linux/arm64/v8``, or an architecture alone for this OS; raises InvalidArgument."""
    parts = text.split("/")
    if len(parts) > 3 or not all(part and part.replace("_", "").replace("-", "").isalnum() for part in parts):
        raise InvalidArgument(f"invalid platform {text!r}", cause="expected os[/architecture[/variant]]")
    here = host()
    if len(parts) == 1:
        name = parts[0].lower()
        if name in ("linux", "windows", "darwin", "freebsd"):
            return Platform(name, here.architecture, here.variant)
        return normalise(here.os, name)
    return normalise(*parts)


def host() -> Platform:
    uname = os.uname()
    return normalise(uname.sysname, uname.machine)


def best(wanted: Platform, offered: Sequence[Platform]) -> "int | None":
    """The index of the first exact match in ``offered``, else of the newest that runs on ``wanted``."""
    if wanted in offered:
        return offered.index(wanted)
    fitting = [i for i, one in enumerate(offered) if wanted.matches(one)]
    return max(fitting, key=lambda i: offered[i].variant, default=None)

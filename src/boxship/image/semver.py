"""Constraints on versions, as sync files write them: ``>= 3.12, < 4``, ``~1.2``, ``^2``, ``1.x || 2.1 - 2.5``.

Versions are semver.org's 2.0, with what people leave out: a leading ``v``, minor and patch. A pre-release fits only a
constraint that names one itself, so that ``>= 1`` does not bring release candidates.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import total_ordering

from boxship.errors import InvalidArgument

_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_TERM = re.compile(
    r"(=|!=|>=|=>|<=|=<|>|<|~>|~|\^)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:-([0-9A-Za-z.-]+))?"
)
_RANGE = re.compile(r"(\S+)\s+-\s+(\S+)")
_WILD = ("x", "X", "*", None)


@total_ordering
@dataclass(frozen=True)
class Version:
    major: int
    minor: int
    patch: int
    pre: str = ""

    def __lt__(self, other: "Version") -> bool:
        mine, theirs = (self.major, self.minor, self.patch), (other.major, other.minor, other.patch)
        if mine != theirs:
            return mine < theirs
        if not self.pre or not other.pre:
            return bool(self.pre) and not other.pre  # a release comes after its candidates
        return _parts(self.pre) < _parts(other.pre)


def _parts(pre: str) -> "list[tuple[int, int, str]]":
    """Numbers before words, numbers by value (semver 2.0, section 11)."""
    return [(0, int(one), "") if one.isdigit() else (1, 0, one) for one in pre.split(".")]


def parse(text: str) -> "Version | None":
    """None for what is no version."""
    found = _VERSION.fullmatch(text)
    if not found:
        return None
    return Version(int(found[1]), int(found[2] or 0), int(found[3] or 0), found[4] or "")


Fits = Callable[[Version], bool]


def constraint(text: str) -> "Callable[[str], bool]":
    """Whether a tag fits; tags that are no versions never do. Raises InvalidArgument."""
    choices = [_all(part, text) for part in text.split("||")]

    def fits(tag: str) -> bool:
        version = parse(tag)
        return version is not None and any(choice(version) for choice in choices)

    return fits


def _all(text: str, whole: str) -> Fits:
    text = _RANGE.sub(r">=\1 <=\2", text.strip())
    terms, at = [], 0
    while at < len(text):
        found = _TERM.match(text, at)
        if not found:
            raise InvalidArgument(f"{whole!r} is no version constraint", cause=f"at {text[at:]!r}")
        terms.append(_term(found))
        at = found.end()
        while at < len(text) and text[at] in ", ":
            at += 1
    if not terms:
        raise InvalidArgument(f"{whole!r} is no version constraint", cause="it is empty")
    return lambda version: all(term(version) for term in terms)


def _term(found: "re.Match[str]") -> Fits:
    operator, pre = found[1] or "=", found[5] or ""
    numbers = [None if one in _WILD else int(one) for one in found.group(2, 3, 4)]
    known = next((place for place, number in enumerate(numbers) if number is None), 3)
    major, minor, patch = (number or 0 if place < known else 0 for place, number in enumerate(numbers))
    low = Version(major, minor, patch, pre)

    def above(place: int) -> Version:
        """The first version that differs from ``low`` at ``place``."""
        following = (
            Version(low.major + 1, 0, 0),
            Version(low.major, low.minor + 1, 0),
            Version(low.major, low.minor, low.patch + 1),
        )
        return following[place]

    def within(high: "Version | None") -> Fits:
        return lambda version: low <= version and (high is None or version < high)

    end = above(known - 1) if known > 0 else None  # the first that the written digits do not cover
    fits: Fits
    match operator:
        case "=":
            fits = within(end) if known < 3 else lambda version: version == low
        case "!=":
            inside = within(end) if known < 3 else lambda version: version == low
            fits = lambda version: not inside(version)  # noqa: E731 - one of a table of cases
        case ">=" | "=>":
            fits = lambda version: version >= low  # noqa: E731
        case ">":
            fits = (
                (lambda version: end is not None and version >= end) if known < 3 else lambda version: version > low
            )
        case "<=" | "=<":
            fits = (lambda version: end is None or version < end) if known < 3 else lambda version: version <= low
        case "<":
            fits = lambda version: version < low  # noqa: E731
        case "~" | "~>":
            fits = within(above(min(1, known - 1)) if known else None)
        case _:  # ^: what is left of the first digit that is not zero stays
            place = next((p for p, n in enumerate((low.major, low.minor, low.patch)[:known]) if n), max(known - 1, 0))
            fits = within(above(place) if known else None)
    if pre:
        return fits
    return lambda version: not version.pre and fits(version)

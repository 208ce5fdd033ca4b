"""mtree(5) manifests: what a tree looked like, so that what changed since can be told.

A manifest lists files with keywords, ``NAME key=value ...``; directories enclose what they hold up to a line ``..``;
``/set`` gives defaults for what follows. Names and link targets are in vis(3)'s octal form. It is go-mtree's dialect:
``xattr.NAME`` holds a value in base64, ``tar_time`` is ``time`` without its fraction. umoci keeps one beside each
bundle as ``sha256_HEX.mtree``; ours can be read by it and by gomtree, and theirs by us.

`scan` reads a tree into `Files` (path -> keywords), `parse` a manifest, `write` makes one, `compare` tells two apart.
"""

import base64
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from boxship.errors import InvalidArgument
from boxship.image.unprivileged import access

Keywords = dict[str, str]
Files = dict[str, Keywords]
"""Path (``.`` for the root, no leading ``./`` below it) -> keywords with their values."""

UMOCI = ("size", "type", "uid", "gid", "mode", "link", "nlink", "tar_time", "sha256digest", "xattr")
"""What umoci compares, in its order."""

SYNONYMS = {
    "md5": "md5digest",
    "rmd160": "ripemd160digest",
    "rmd160digest": "ripemd160digest",
    "sha1": "sha1digest",
    "sha256": "sha256digest",
    "sha384": "sha384digest",
    "sha512": "sha512digest",
    "xattrs": "xattr",
}
_HASHES = {
    "md5digest": "md5",
    "ripemd160digest": "ripemd160",
    "sha1digest": "sha1",
    "sha256digest": "sha256",
    "sha384digest": "sha384",
    "sha512digest": "sha512",
}
_NO_OPERATION = frozenset({"optional", "nochange", "ignore"})
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_CHUNK = 1 << 20
_VIS = {byte: f"\\{byte:03o}" for byte in range(256) if not 0x21 <= byte <= 0x7E or byte in b"*?[#"}
_VIS[0x5C] = "\\\\"
_UNSAFE = re.compile(r"[^!-~]|[*?\[#\\]")


@dataclass(frozen=True, slots=True)
class Delta:
    """One difference. ``keys`` (keyword, old, new) are of a modified file; a value that is not there is ``""``."""

    path: str
    kind: Literal["missing", "extra", "modified"]
    keys: "tuple[tuple[str, str, str], ...]" = ()

    def __str__(self) -> str:
        """As gomtree and umoci print it."""
        if self.kind == "modified":
            key, old, new = self.keys[0]
            return f'"{self.path}": keyword "{key}": expected {old}; got {new}'
        return f'"{self.path}": {"missing" if self.kind == "missing" else "unexpected"} path'


def keyword(name: str) -> str:
    """The one name of a keyword; raises InvalidArgument for one that is not known."""
    name = SYNONYMS.get(name, name)
    if name not in _PLAIN and name not in _HASHES and name not in _NO_OPERATION and name not in ("link", "xattr"):
        raise InvalidArgument(f'unknown keyword "{name}"', remedy=f"known are {', '.join(sorted(known()))}")
    return name


def known() -> "set[str]":
    return {*_PLAIN, *_HASHES, "link", "xattr"}


# ── Trees ──

_PLAIN: "dict[str, Callable[[os.stat_result], str]]" = {
    "type": lambda found: _TYPES[stat.S_IFMT(found.st_mode)],
    "size": lambda found: str(found.st_size),
    "uid": lambda found: str(found.st_uid),
    "gid": lambda found: str(found.st_gid),
    "mode": lambda found: f"0{stat.S_IMODE(found.st_mode):o}" if stat.S_IMODE(found.st_mode) else "0",
    "nlink": lambda found: str(found.st_nlink),
    "flags": lambda found: "none",  # those of the BSDs; Linux has nothing to tell
    "time": lambda found: f"{found.st_mtime_ns // 1_000_000_000}.{found.st_mtime_ns % 1_000_000_000:09d}",
    "tar_time": lambda found: f"{found.st_mtime_ns // 1_000_000_000}.000000000",
}


def scan(
    root: str,
    keywords: Collection[str] = UMOCI,
    *,
    unprivileged: bool = False,
    contents: "Mapping[int, str] | None" = None,
) -> Files:
    """The tree at ``root``, parents first, in each directory the files before the directories (as go-mtree).

    With ``unprivileged`` modes that bar the owner are passed (`boxship.image.unprivileged`). ``contents`` are the
    SHA-256 of files by their inode, where the caller knows them, having just written them.
    """
    return _Scan(keywords, unprivileged, contents or {}).tree(root)


class _Scan:
    def __init__(self, keywords: Collection[str], unprivileged: bool, contents: Mapping[int, str]) -> None:
        self._contents = contents
        self._known = [name for name in keywords if _HASHES.get(name)] == ["sha256digest"]
        self._plain = [(name, _PLAIN[name]) for name in keywords if name in _PLAIN]
        self._hashes = [(name, _HASHES[name]) for name in keywords if name in _HASHES]
        self._links = "link" in keywords
        self._xattrs = "xattr" in keywords
        self._unprivileged = unprivileged

    def tree(self, root: str) -> Files:
        files: Files = {}
        self._directory(os.path.abspath(root), "", os.stat(root, follow_symlinks=False), files)
        return files

    def _directory(self, path: str, name: str, found: os.stat_result, files: Files) -> None:
        with access(path, found, self._unprivileged):
            files[name or "."] = self._describe(path, found)
            below: list[tuple[str, str, os.stat_result]] = []
            for one in sorted(os.scandir(path), key=lambda entry: os.fsencode(entry.name)):
                status = one.stat(follow_symlinks=False)
                child = f"{name}/{one.name}" if name else one.name
                if stat.S_ISDIR(status.st_mode):
                    below.append((one.path, child, status))
                elif self._unprivileged:
                    with access(one.path, status, True):
                        files[child] = self._describe(one.path, status)
                else:
                    files[child] = self._describe(one.path, status)
            for directory, child, status in below:
                self._directory(directory, child, status, files)

    def _describe(self, path: str, found: os.stat_result) -> Keywords:
        keys = {name: tell(found) for name, tell in self._plain}
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFLNK:
            if self._links:
                keys["link"] = vis(os.readlink(path))
        elif kind == stat.S_IFREG:
            if self._hashes:
                known = self._contents.get(found.st_ino) if self._known else None
                keys.update({"sha256digest": known} if known else _digests(path, self._hashes))
            if self._xattrs:
                keys.update(_xattrs(path))
        elif kind == stat.S_IFDIR and self._xattrs:
            keys.update(_xattrs(path))
        return keys


def _digests(path: str, wanted: "list[tuple[str, str]]") -> "Iterator[tuple[str, str]]":
    hashes = [(name, hashlib.new(algorithm, usedforsecurity=False)) for name, algorithm in wanted]
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while data := os.read(fd, _CHUNK):
            for _, one in hashes:
                one.update(data)
    finally:
        os.close(fd)
    for name, one in hashes:
        yield name, one.hexdigest()


def _xattrs(path: str) -> "Iterator[tuple[str, str]]":
    for key in os.listxattr(path, follow_symlinks=False):
        value = os.getxattr(path, key, follow_symlinks=False)
        yield f"xattr.{vis(key)}", base64.b64encode(value).decode()


# ── Manifests ──


def write(files: Files, put: "Callable[[bytes], object]", keywords: Iterable[str] = UMOCI, tree: str = "") -> None:
    """The manifest of ``files``, which come in `scan`'s order."""
    head = {"tree": tree, "date": time.strftime("%a %b %e %H:%M:%S %Y"), "keywords": ",".join(keywords)}
    put("".join(f"#{key + ': ':>16}{value}\n" for key, value in head.items()).encode("utf-8", "surrogateescape"))
    defaults: Keywords = {}
    depth = 0
    for path, keys in files.items():
        parts = [] if path == "." else path.split("/")
        is_directory = keys.get("type") == "dir"
        lines = []
        # `..` closes each directory that this path is not in. The root is depth 1; a file's directory stays open.
        while depth and depth > len(parts):
            lines.append("..")
            depth -= 1
        if is_directory:
            depth += 1
            lines += ["", f"# {vis(path)}"]
            if any(defaults.get(key) != keys.get(key) for key in ("uid", "gid")):
                defaults = {"type": "file", "nlink": "1", "mode": "0664"}
                defaults |= {key: keys[key] for key in ("uid", "gid") if key in keys}
                defaults = {key: value for key, value in defaults.items() if key in keys}
                lines.append("/set " + " ".join(f"{key}={value}" for key, value in defaults.items()))
        own = " ".join(f"{key}={value}" for key, value in keys.items() if defaults.get(key) != value)
        name = vis(parts[-1]) if parts else "."
        lines.append(f"{'' if is_directory else '    '}{name} {own}")
        put(("\n".join(lines) + "\n").encode())
    put(b"..\n" * depth)


def parse(lines: Iterable[str], what: str = "manifest") -> Files:
    """Raises InvalidArgument, naming the line."""
    files: Files = {}
    defaults: Keywords = {}
    at: list[str] = []
    pending = ""
    for number, raw in enumerate(lines, 1):
        line = pending + raw.rstrip("\n")
        pending = ""
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if line.endswith("\\"):
            pending = line[:-1]
            continue
        name, *words = stripped.split()
        keys = _keywords(words, f"{what}: line {number}")
        if name == "/set":
            defaults = defaults | keys
        elif name == "/unset":
            defaults = {key: value for key, value in defaults.items() if key not in words}
        elif name == "..":
            at = at[:-1]
        else:
            full = "/" in name
            parts = [part for part in unvis(name, f"{what}: line {number}").split("/") if part not in ("", ".")]
            if ".." in parts:
                raise InvalidArgument(f"{what}: line {number}: {name!r} leads out of the tree")
            path = parts if full else [*at, *parts]
            files["/".join(path) or "."] = defaults | keys
            if not full and keys.get("type", defaults.get("type")) == "dir":
                at = path
    return files


def _keywords(words: "list[str]", what: str) -> Keywords:
    keys: Keywords = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            keys[SYNONYMS.get(key, key)] = value
        elif SYNONYMS.get(key, key) not in _NO_OPERATION and key != "all":
            raise InvalidArgument(f"{what}: {word!r} is not key=value")
    return keys


def used(files: Files) -> "list[str]":
    """The keywords of a manifest, each once."""
    found: dict[str, None] = {}
    for keys in files.values():
        for key in keys:
            found.setdefault("xattr" if key.startswith("xattr.") else key)
    return [*found]


# ── Differences ──


def compare(old: Files, new: Files, keywords: "Collection[str] | None" = None) -> "list[Delta]":
    """What ``new`` has otherwise than ``old``, in the order of the paths, regarding only ``keywords``."""
    found = []
    for path in sorted({**old, **new}, key=os.fsencode):
        if path not in new:
            found.append(Delta(path, "missing"))
        elif path not in old:
            found.append(Delta(path, "extra"))
        elif old[path] != new[path]:
            keys = tuple(_differences(old[path], new[path], keywords))
            if keys:
                found.append(Delta(path, "modified", keys))
    return found


def _differences(
    old: Keywords, new: Keywords, keywords: "Collection[str] | None"
) -> "Iterator[tuple[str, str, str]]":
    times = {"time", "tar_time"}
    if (times & old.keys()) and (times & new.keys()) and "tar_time" in {**old, **new}:
        old, new = _with_tar_time(old), _with_tar_time(new)
    for key in {**new, **old}:
        if old.get(key) == new.get(key):
            continue
        name = "xattr" if key.startswith("xattr.") else key
        if keywords is None or name in keywords or (name in times and times & set(keywords)):
            yield key, old.get(key, ""), new.get(key, "")


def _with_tar_time(keys: Keywords) -> Keywords:
    """An archive's times have no fraction, so a file's must not be compared with it."""
    if "time" not in keys:
        return keys
    rest = {key: value for key, value in keys.items() if key != "time"}
    rest.setdefault("tar_time", keys["time"].partition(".")[0] + ".000000000")
    return rest


# ── vis(3) ──


def vis(text: str) -> str:
    """Blanks, glob characters, backslashes and everything that is no ASCII graphic, in octal."""
    if not _UNSAFE.search(text):
        return text
    return "".join(_VIS.get(byte) or chr(byte) for byte in os.fsencode(text))


_ESCAPES = {"n": 10, "r": 13, "b": 8, "a": 7, "v": 11, "t": 9, "f": 12, "s": 32, "0": 0, "\\": 92, "#": 35}


def unvis(text: str, what: str = "manifest") -> str:
    """The other direction; raises InvalidArgument for an escape that vis(3) does not make."""
    if "\\" not in text:
        return text
    out = bytearray()
    rest = text
    while rest:
        plain, slash, rest = rest.partition("\\")
        out += os.fsencode(plain)
        if not slash:
            break
        if rest[:3].isdigit() and len(rest) >= 3 and all("0" <= digit <= "7" for digit in rest[:3]):
            out.append(int(rest[:3], 8) & 0xFF)
            rest = rest[3:]
        elif rest[:1] in _ESCAPES:
            out.append(_ESCAPES[rest[0]])
            rest = rest[1:]
        else:
            raise InvalidArgument(f"{what}: {text!r} has an unknown escape")
    return os.fsdecode(bytes(out))

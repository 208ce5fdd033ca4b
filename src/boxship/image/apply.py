"""The layer applier: a tar stream becomes the upper directory of an overlay (image-spec, layer.md).

What must stay true:

- Every look-up is rooted by descriptor (`rooted`); the parent directory of an entry is opened, then the entry
  is made by its last component, with O_EXCL or O_NOFOLLOW. No name from an archive is ever a path of the host.
- Whiteouts (`whiteouts`) hide lower layers only, never what the same layer brings.
- A parent that the layer leaves out looks as it does in the layers below (``parents``), because the overlay
  takes a directory's attributes from the topmost layer that has it.
- Directories get their times last, deepest first. In a plain directory (``overlay=False``), where layer comes upon
  layer, a directory that only its children's changes touched keeps the time that it had.
- What a layer may make is bounded (`limits`); whose files are is for an `IdMap` to say.

The caller owns the target and throws it away when this raises; a snapshot becomes visible only whole.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from boxship.errors import InvalidArgument
from boxship.image import limits as bounds
from boxship.image import rooted, tar
from boxship.image.attributes import Attributes
from boxship.image.checked import CheckedStream
from boxship.image.compression import Reader
from boxship.image.directories import FLAGS, Directories, is_whiteout, set_opaque
from boxship.image.idmap import IDENTITY, IdMap
from boxship.image.limits import Limits
from boxship.image.tar import Entry, TarReader
from boxship.image.whiteouts import PREFIX, Whiteouts
from boxship.oci.digest import Digest, Verifier

_ID_LIMIT = (1 << 32) - 2
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Applied:
    """``diff_id`` and ``size`` are of the inflated tar; ``inodes`` counts the entries."""

    diff_id: Digest
    size: int
    inodes: int


def apply_layer(
    source: Reader,
    target: str,
    *,
    parents: Sequence[str] = (),
    diff_id: "Digest | None" = None,
    overlay: bool = True,
    sync: bool = False,
    what: str = "layer",
    idmap: IdMap = IDENTITY,
    limits: Limits = bounds.DEFAULT,
    keep_dirlinks: bool = False,
    contents: "dict[int, str] | None" = None,
) -> Applied:
    """Unpack the (compressed) tar ``source`` into the directory ``target``.

    ``parents`` are the directories of the layers below, topmost first. ``diff_id`` is what the inflated bytes
    must hash to. With ``overlay=False`` the target is a plain directory and whiteouts remove; with
    ``keep_dirlinks`` a directory may then go where a symlink to a directory is. ``contents`` is told the SHA-256 of
    each file by its inode, which costs less than reading the file again.
    Raises InvalidArgument (a hostile or damaged entry), DataLoss (cut short, wrong digest),
    ResourceExhausted (disk full, or more than ``limits`` allow).
    """
    verifier = Verifier(diff_id, what=what)
    with _Applier(target, parents, overlay, what, idmap, limits, keep_dirlinks, contents) as applier:
        reader = TarReader(CheckedStream(source, verifier, limits, what), what)
        for entry in reader:
            try:
                applier.add(entry, reader)
            except OSError as error:
                raise rooted.describe(error, f"{what}: cannot unpack {entry.name!r}") from error
        found = verifier.finish()
        applier.finish(sync)
        return Applied(found, verifier.count, applier.count)


def clean_name(name: str, what: str) -> str:
    """``./a//b/`` as ``a/b``, ``""`` for the root itself; raises InvalidArgument when ``..`` leaves the root.

    A leading ``/`` means the root of the image, as for docker and GNU tar.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise InvalidArgument(f"{what}: {name!r} leads out of the root file system")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if "\0" in name:
        raise InvalidArgument(f"{what}: {name!r} contains a NUL byte")
    return "/".join(parts)


class _Applier:
    def __init__(
        self,
        target: str,
        parents: Sequence[str],
        overlay: bool,
        what: str,
        idmap: IdMap,
        limits: Limits,
        keep_dirlinks: bool,
        contents: "dict[int, str] | None",
    ) -> None:
        self._what = what
        self._overlay = overlay
        self._limits = limits
        self._rootless = idmap.rootless
        self._keep_dirlinks = keep_dirlinks
        self._contents = contents
        self._attributes = Attributes(idmap)
        unlock = idmap.rootless and os.geteuid() != 0
        self._directories = Directories(target, parents, overlay=overlay, unlock=unlock, what=what)
        self._whiteouts = Whiteouts(self._directories, overlay=overlay, what=what)
        self.count = 0

    def __enter__(self) -> "_Applier":
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.close()

    def add(self, entry: Entry, reader: TarReader) -> None:
        name = clean_name(entry.name, self._what)
        self._check(entry, name)
        if not name:
            self._root_entry(entry)
            return
        directory, _, base = name.rpartition("/")
        if base.startswith(PREFIX):
            self._whiteouts.add(directory, base)
            return
        parent = self._directories.parent(directory)
        try:
            self._make(parent, base, name, entry, reader)
        except FileExistsError:
            if entry.type == tar.DIRECTORY and self._is_dirlink(name):
                return  # what comes below it goes where the link leads
            opaque = self._make_room(parent, base, name, entry.type)
            parent = self._directories.parent(directory)  # making room may have closed the cached one
            self._make(parent, base, name, entry, reader, opaque=opaque, again=True)
        self._note(name)

    def finish(self, sync: bool) -> None:
        self._directories.finish()
        if sync:
            rooted.syncfs(self._directories.root)

    def _check(self, entry: Entry, name: str) -> None:
        self.count += 1
        self._limits.check_entries(self.count, self._what)
        if name.count("/") >= self._limits.depth:
            raise InvalidArgument(f"{self._what}: a name is more than {self._limits.depth} directories deep")
        if not 0 <= entry.uid <= _ID_LIMIT or not 0 <= entry.gid <= _ID_LIMIT:
            raise InvalidArgument(f"{self._what}: {entry.name!r} has an owner out of range")
        if not -(1 << 63) <= entry.mtime_ns < 1 << 63:
            entry.mtime_ns = 0  # as docker: a time that no clock can show is none
        if entry.xattrs:
            self._check_xattrs(entry)
        match entry.type:
            case tar.REGULAR:
                self._limits.check_file(entry.name, max(entry.size, entry.real_size), self._what)
            case tar.CHAR | tar.BLOCK_DEVICE:
                if not 0 <= entry.major < 1 << 12 or not 0 <= entry.minor < 1 << 20:
                    raise InvalidArgument(f"{self._what}: {entry.name!r} has a device number out of range")
            case tar.SYMLINK:
                self._check_symlink(entry, name)

    def _check_xattrs(self, entry: Entry) -> None:
        for key in entry.xattrs:
            # An image that sets the overlay's own marks could make it show other parts of the host's disk.
            if key.startswith("trusted.overlay."):
                raise InvalidArgument(f"{self._what}: {entry.name!r} sets the reserved xattr {key}")

    def _check_symlink(self, entry: Entry, name: str) -> None:
        if not entry.linkname or "\0" in entry.linkname:
            raise InvalidArgument(f"{self._what}: symlink {entry.name!r} has no target")
        if not entry.linkname.startswith("/"):
            # Look-ups are rooted anyway; such a link can only be meant to escape, and docker refuses it too.
            clean_name(f"{name.rpartition('/')[0]}/{entry.linkname}", f"{self._what}: symlink {entry.name!r}")

    def _note(self, name: str) -> None:
        """The layer brought ``name``, and with it the directories above."""
        made = self._directories.made
        while name and name not in made:
            made.add(name)
            name = name.rpartition("/")[0]

    # ── Making ──

    def _make(
        self,
        parent: int,
        base: str,
        name: str,
        entry: Entry,
        reader: TarReader,
        *,
        opaque: bool = False,
        again: bool = False,
    ) -> None:
        """Raises FileExistsError when the name is taken, unless ``again`` and directory meets directory."""
        match entry.type:
            case tar.REGULAR:
                self._file(parent, base, entry, reader)
            case tar.DIRECTORY:
                self._directory(parent, base, name, entry, opaque, again)
            case tar.SYMLINK:
                os.symlink(entry.linkname, base, dir_fd=parent)
                self._attributes.on_name(parent, base, entry)
            case tar.LINK:
                self._link(parent, base, entry)
            case tar.FIFO:
                os.mkfifo(base, 0o600, dir_fd=parent)
                self._attributes.on_name(parent, base, entry)
            case _:
                self._device(parent, base, entry)

    def _root_entry(self, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise InvalidArgument(f"{self._what}: {entry.name!r} would replace the root directory")
        root = self._directories.root
        if not self._overlay:
            self._attributes.clear_xattrs(root)
        self._attributes.on_descriptor(root, entry)
        self._directories.set_mode("", root, entry.mode)
        self._directories.set_time("", entry.mtime_ns)

    def _directory(self, parent: int, base: str, name: str, entry: Entry, opaque: bool, again: bool) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
            old = False
        except FileExistsError:
            if not again:
                raise
            old = True  # directory meets directory: only its attributes change
        # An old one may be open already, or need opening up.
        fd = os.dup(self._directories.parent(name)) if old else os.open(base, FLAGS | os.O_NOFOLLOW, dir_fd=parent)
        try:
            if old and not self._overlay:
                self._attributes.clear_xattrs(fd)
            self._attributes.on_descriptor(fd, entry)
            self._directories.set_mode(name, fd, entry.mode)
            if opaque:
                set_opaque(fd)
        except BaseException:
            os.close(fd)
            raise
        self._directories.set_time(name, entry.mtime_ns)
        self._directories.remember(name, fd)

    def _file(self, parent: int, base: str, entry: Entry, reader: TarReader) -> None:
        fd = os.open(base, _FILE_FLAGS, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                self._write(fd, reader)
            else:
                _write_sparse(fd, entry, reader)
            self._attributes.on_descriptor(fd, entry)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _write(self, fd: int, reader: TarReader) -> None:
        data = reader.whole()
        pieces = reader.data() if data is None else (data,) if data else ()
        if self._contents is None:
            for piece in pieces:
                _write_all(fd, piece)
            return
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
            _write_all(fd, piece)
        self._contents[os.fstat(fd).st_ino] = digest.hexdigest()

    def _device(self, parent: int, base: str, entry: Entry) -> None:
        if self._rootless:
            # Nobody but root makes devices: an empty file that nobody may read keeps the place, as by umoci.
            os.close(os.open(base, _FILE_FLAGS, 0, dir_fd=parent))
            entry.mode = 0
        else:
            kind = stat.S_IFCHR if entry.type == tar.CHAR else stat.S_IFBLK
            os.mknod(base, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        self._attributes.on_name(parent, base, entry)

    def _link(self, parent: int, base: str, entry: Entry) -> None:
        target = clean_name(entry.linkname, f"{self._what}: hard link {entry.name!r}")
        directory, _, last = target.rpartition("/")
        try:
            if not last:
                raise FileNotFoundError
            fd = rooted.open_in_root(self._directories.root, directory, os.O_PATH | os.O_DIRECTORY)
            try:
                if stat.S_ISDIR(os.stat(last, dir_fd=fd, follow_symlinks=False).st_mode):
                    raise InvalidArgument(f"{self._what}: hard link {entry.name!r} to a directory")
                os.link(last, base, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidArgument(
                f"{self._what}: hard link {entry.name!r} to {entry.linkname!r}",
                cause="no such file in the layer",
            ) from error

    # ── Replacing ──

    def _is_dirlink(self, name: str) -> bool:
        """Whether a symlink to a directory of the image is at ``name``, and such links are to be kept."""
        if not self._keep_dirlinks:
            return False
        try:
            os.close(rooted.open_in_root(self._directories.root, name, FLAGS | os.O_NOFOLLOW))
            return False
        except OSError:
            pass  # no directory itself
        try:
            os.close(rooted.open_in_root(self._directories.root, name, os.O_PATH | os.O_DIRECTORY))
            return True
        except OSError:
            return False  # no symlink, or one that leads to no directory

    def _make_room(self, parent: int, base: str, name: str, type: str) -> bool:
        """Remove what ``base`` is now, unless directory meets directory; True when it was a whiteout."""
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode) and type == tar.DIRECTORY:
            return False
        self._whiteouts.remove(parent, base, name)
        return is_whiteout(there)


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _write_sparse(fd: int, entry: Entry, reader: TarReader) -> None:
    os.ftruncate(fd, entry.real_size)
    pieces = reader.data()
    rest = b""
    for offset, length in entry.sparse or ():
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            rest = rest or next(pieces)
            _write_all(fd, rest[:length])
            taken = min(length, len(rest))
            rest, length = rest[taken:], length - taken

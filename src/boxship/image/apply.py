"""The layer applier: a tar stream becomes the upper directory of an overlay (image-spec, layer.md).

What must stay true:

- Every look-up is rooted by descriptor (`rooted`); the parent directory of an entry is opened, then the entry
  is made by its last component, with O_EXCL or O_NOFOLLOW. No name from an archive is ever a path of the host.
- Whiteouts take the overlay's form: ``.wh.NAME`` becomes the character device 0:0, ``.wh..wh..opq`` the xattr
  trusted.overlay.opaque=y (kernel, Documentation/filesystems/overlayfs.rst). They hide lower layers only,
  never what the same layer brings.
- A parent that the layer leaves out looks as it does in the layers below (``parents``), because the overlay
  takes a directory's attributes from the topmost layer that has it.
- Directories get their times last, deepest first.

The caller owns the target and throws it away when this raises; a snapshot becomes visible only whole.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from boxship.errors import InvalidArgument
from boxship.image import rooted, tar
from boxship.image.compression import Reader, inflate
from boxship.image.tar import Entry, TarReader
from boxship.oci.digest import Digest, Verifier

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."  # aufs' own bookkeeping (plnk, aufs): not content
OPAQUE_XATTR = "trusted.overlay.opaque"
_ID_LIMIT = (1 << 32) - 2
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY
_CACHE = 64


@dataclass(frozen=True, slots=True)
class Applied:
    """``diff_id`` and ``size`` are of the inflated tar; ``inodes`` counts the entries."""

    diff_id: Digest
    size: int
    inodes: int


class _Hashing:
    """Hashes the inflated bytes as the tar reader takes them."""

    def __init__(self, source: Reader, verifier: Verifier) -> None:
        self._source = source
        self._verifier = verifier

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._verifier.update(data)
        return data


def apply_layer(
    source: Reader,
    target: str,
    *,
    parents: Sequence[str] = (),
    diff_id: "Digest | None" = None,
    overlay: bool = True,
    sync: bool = False,
    what: str = "layer",
) -> Applied:
    """Unpack the (compressed) tar ``source`` into the directory ``target``.

    ``parents`` are the directories of the layers below, topmost first. ``diff_id`` is what the inflated bytes
    must hash to. With ``overlay=False`` the target is a plain directory and whiteouts remove.
    Raises InvalidArgument (a hostile or damaged entry), DataLoss (cut short, wrong digest),
    ResourceExhausted (disk full).
    """
    inflating = inflate(source)
    verifier = Verifier(diff_id, what=what)
    with _Applier(target, parents, overlay, what) as applier:
        reader = TarReader(_Hashing(inflating, verifier), what)
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
    def __init__(self, target: str, parents: Sequence[str], overlay: bool, what: str) -> None:
        self._what = what
        self._overlay = overlay
        self._root = os.open(target, _DIRECTORY_FLAGS | os.O_CLOEXEC)
        self._lowers: list[int] = []
        self._lower_paths = parents
        self._cache: dict[str, int] = {"": self._root}
        self._times: dict[str, int] = {}
        self._fresh: set[str] = set()  # what this layer brought: its own whiteouts do not hide it
        self.count = 0

    def __enter__(self) -> "_Applier":
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        for fd in (self._root, *self._lowers):
            os.close(fd)

    # -- one entry

    def add(self, entry: Entry, reader: TarReader) -> None:
        name = clean_name(entry.name, self._what)
        self._check(entry, name)
        self.count += 1
        if not name:
            self._root_entry(entry)
            return
        directory, _, base = name.rpartition("/")
        if base.startswith(_WHITEOUT):
            self._whiteout(directory, base)
            return
        parent = self._parent(directory)
        opaque = self._make_room(parent, base, name, entry.type)
        parent = self._parent(directory)  # making room may have closed the cached one
        match entry.type:
            case tar.DIRECTORY:
                self._directory(parent, base, name, entry, opaque)
            case tar.REGULAR:
                self._file(parent, base, entry, reader)
            case tar.LINK:
                self._link(parent, base, entry)
            case tar.SYMLINK:
                os.symlink(entry.linkname, base, dir_fd=parent)
                self._attributes_of_name(parent, base, entry)
            case _:
                kind = {tar.CHAR: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.type]
                os.mknod(base, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
                self._attributes_of_name(parent, base, entry)
        self._fresh.add(name)

    def finish(self, sync: bool) -> None:
        """Set the directories' times, which everything made inside them has changed."""
        for name in sorted(self._times, key=lambda n: n.count("/"), reverse=True):
            try:
                fd = rooted.open_in_root(self._root, name, _DIRECTORY_FLAGS | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it
            try:
                os.utime(fd, ns=(self._times[name], self._times[name]))
            finally:
                os.close(fd)
        if sync:
            rooted.syncfs(self._root)

    def _check(self, entry: Entry, name: str) -> None:
        if not 0 <= entry.uid <= _ID_LIMIT or not 0 <= entry.gid <= _ID_LIMIT:
            raise InvalidArgument(f"{self._what}: {entry.name!r} has an owner out of range")
        if not -(1 << 63) <= entry.mtime_ns < 1 << 63:
            entry.mtime_ns = 0  # as docker: a time that no clock can show is none
        if not 0 <= entry.major < 1 << 12 or not 0 <= entry.minor < 1 << 20:
            raise InvalidArgument(f"{self._what}: {entry.name!r} has a device number out of range")
        for key in entry.xattrs:
            # An image that sets the overlay's own marks could make it show other parts of the host's disk.
            if key.startswith("trusted.overlay."):
                raise InvalidArgument(f"{self._what}: {entry.name!r} sets the reserved xattr {key}")
        if entry.type == tar.SYMLINK:
            if not entry.linkname or "\0" in entry.linkname:
                raise InvalidArgument(f"{self._what}: symlink {entry.name!r} has no target")
            if not entry.linkname.startswith("/"):
                # Look-ups are rooted anyway; such a link can only be meant to escape, and docker refuses it too.
                clean_name(f"{name.rpartition('/')[0]}/{entry.linkname}", f"{self._what}: symlink {entry.name!r}")

    def _root_entry(self, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise InvalidArgument(f"{self._what}: {entry.name!r} would replace the root directory")
        self._attributes(self._root, entry)
        self._times[""] = entry.mtime_ns

    def _make_room(self, parent: int, base: str, name: str, type: str) -> bool:
        """Remove what ``base`` is now, unless directory meets directory; True when it was a whiteout."""
        try:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(there.st_mode) and type == tar.DIRECTORY:
            return False
        rooted.remove(parent, base)
        self._fresh.discard(name)
        self._forget()  # cached descriptors may have led through it
        return _is_whiteout(there)

    def _directory(self, parent: int, base: str, name: str, entry: Entry, opaque: bool) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            pass  # directory meets directory: only its attributes change
        fd = os.open(base, _DIRECTORY_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._attributes(fd, entry)
            if opaque:
                self._set_opaque(fd)
        except BaseException:
            os.close(fd)
            raise
        self._times[name] = entry.mtime_ns
        self._remember(name, fd)

    def _file(self, parent: int, base: str, entry: Entry, reader: TarReader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(base, flags, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                for piece in reader.data():
                    _write_all(fd, piece)
            else:
                _write_sparse(fd, entry, reader)
            self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _link(self, parent: int, base: str, entry: Entry) -> None:
        target = clean_name(entry.linkname, f"{self._what}: hard link {entry.name!r}")
        directory, _, last = target.rpartition("/")
        try:
            if not last:
                raise FileNotFoundError
            fd = rooted.open_in_root(self._root, directory, os.O_PATH | os.O_DIRECTORY)
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

    def _whiteout(self, directory: str, base: str) -> None:
        if base == _OPAQUE:
            parent = self._parent(directory)
            if self._overlay:
                self._set_opaque(parent)
            else:
                self._clear(parent, directory)
            return
        if base.startswith(_META):
            return
        name = base[len(_WHITEOUT) :]
        if name in ("", ".", ".."):
            raise InvalidArgument(f"{self._what}: whiteout {base!r} names no file")
        path = f"{directory}/{name}" if directory else name
        parent = self._parent(directory)
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is not None and (self._overlay or path in self._fresh):
            if stat.S_ISDIR(there.st_mode) and self._overlay:
                self._set_opaque(self._parent(path))  # the layer brings the directory: hide only what is below
            return
        if there is not None:
            rooted.remove(parent, name)
            self._forget()
        elif self._overlay:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _clear(self, fd: int, directory: str) -> None:
        for child in os.listdir(fd):
            path = f"{directory}/{child}" if directory else child
            if path not in self._fresh and not any(name.startswith(path + "/") for name in self._fresh):
                rooted.remove(fd, child)
        self._forget()

    def _set_opaque(self, fd: int) -> None:
        os.setxattr(fd, OPAQUE_XATTR, b"y")

    # -- attributes

    def _attributes(self, fd: int, entry: Entry) -> None:
        os.fchown(fd, entry.uid, entry.gid)
        for key, value in entry.xattrs.items():
            _set_xattr(fd, key, value)
        os.fchmod(fd, entry.mode)  # after chown, which clears the set-id bits

    def _attributes_of_name(self, parent: int, base: str, entry: Entry) -> None:
        os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            for key, value in entry.xattrs.items():
                _set_xattr(f"/proc/self/fd/{parent}/{base}", key, value)
        if entry.type != tar.SYMLINK:
            os.chmod(base, entry.mode, dir_fd=parent)  # not a symlink: it was made a moment ago by its name
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    # -- parents

    def _parent(self, directory: str) -> int:
        """A descriptor of ``directory`` inside the root; what is missing of it is made. Owned by the cache."""
        fd = self._cache.get(directory)
        if fd is not None:
            return fd
        try:
            fd = rooted.open_in_root(self._root, directory, _DIRECTORY_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make_parent(directory)
        return self._remember(directory, fd)

    def _make_parent(self, directory: str) -> int:
        above, _, base = directory.rpartition("/")
        parent = self._parent(above)
        opaque = False
        try:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if not _is_whiteout(there):
                raise InvalidArgument(f"{self._what}: {directory!r} is not a directory")
            os.unlink(base, dir_fd=parent)
            opaque = True
        os.mkdir(base, 0o755, dir_fd=parent)
        fd = os.open(base, _DIRECTORY_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.fchmod(fd, 0o755)
            if opaque:
                self._set_opaque(fd)
            else:
                self._copy_from_below(fd, directory)
        except BaseException:
            os.close(fd)
            raise
        self._fresh.add(directory)
        return fd

    def _copy_from_below(self, fd: int, directory: str) -> None:
        if len(self._lowers) < len(self._lower_paths):
            for path in self._lower_paths[len(self._lowers) :]:
                self._lowers.append(os.open(path, _DIRECTORY_FLAGS | os.O_CLOEXEC))
        for lower in self._lowers:
            try:
                found = rooted.open_in_root(lower, directory, _DIRECTORY_FLAGS)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                return  # below, it is no directory or deleted: the new one starts afresh
            try:
                below = os.stat(found)
                os.fchown(fd, below.st_uid, below.st_gid)
                for key in os.listxattr(found):
                    if not key.startswith("trusted.overlay."):
                        _set_xattr(fd, key, os.getxattr(found, key))
                os.fchmod(fd, stat.S_IMODE(below.st_mode))
                self._times.setdefault(directory, below.st_mtime_ns)
            finally:
                os.close(found)
            return

    def _remember(self, directory: str, fd: int) -> int:
        known = self._cache.get(directory)
        if known is not None:
            os.close(fd)
            return known
        if len(self._cache) >= _CACHE:
            self._forget()
        self._cache[directory] = fd
        return fd

    def _forget(self) -> None:
        for name, fd in self._cache.items():
            if name:
                os.close(fd)
        self._cache = {"": self._root}


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _set_xattr(target: "int | str", key: str, value: bytes) -> None:
    try:
        os.setxattr(target, key, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        # The file system may lack a namespace (user.* on a symlink or device, or tmpfs), as for containerd;
        # capabilities are different: a file that silently loses them is a broken image.
        if key == "security.capability" or error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


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

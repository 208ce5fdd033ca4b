"""``policy.json``: which images may be used (containers-policy.json(5)).

A policy has requirements by transport and scope, and a default. The most specific scope that is named decides; all
its
requirements must be met. Anything in the file that is not understood makes it invalid: what a policy asks for must
not be passed over.
"""

import base64
import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from boxship.errors import BoxshipError, InvalidArgument, PermissionDenied, Unimplemented
from boxship.image.manifests import Document, digest_of
from boxship.image.transports.base import Name
from boxship.oci import image as oci
from boxship.oci import reference as references
from boxship.oci.reference import Reference

from . import payload
from .identity import Match, match_of
from .lookaside import scopes
from .signatures import Signature, Sigstore, Simple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

SYSTEM = "/etc/containers/policy.json"


class Rejected(PermissionDenied):
    """The policy does not let this image be used."""


class Image(msgspec.Struct, frozen=True):
    """What is judged. ``signatures`` is asked when a requirement wants them."""

    name: Name
    document: Document
    signatures: "Callable[[], Sequence[Signature]]"

    @property
    def reference(self) -> "Reference | None":
        if self.name.transport == "docker":
            return references.parse(self.name.details.removeprefix("//")).with_default_tag()
        if self.name.transport in ("docker-daemon", "boxship") and not self.name.details.startswith("sha256:"):
            return references.parse(self.name.details).with_default_tag()
        return None


class Requirement(Protocol):
    """Raises Rejected."""

    def check(self, image: Image) -> None: ...


class AcceptAnything:
    def check(self, image: Image) -> None:
        """Every image is fine."""


class Reject:
    def check(self, image: Image) -> None:
        raise Rejected(f"Running image {image.name} is rejected by policy.")


def _any_of(image: Image, kind: type, accepts: "Callable[[Any], None]") -> None:
    """One signature of the kind must be accepted; else says why each was not."""
    reasons: list[str] = []
    for signature in image.signatures():
        if not isinstance(signature, kind):
            continue
        try:
            accepts(signature)
            return
        except BoxshipError as error:
            reasons.append(str(error))
    match reasons:
        case []:
            raise Rejected("A signature was required, but no signature exists")
        case [reason]:
            raise Rejected(reason)
    raise Rejected(f"None of the signatures were accepted, reasons: {'; '.join(reasons)}")


def _means(image: Image, found: payload.Payload, match: Match) -> None:
    """Whether a signature is for this image."""
    if not match(image.reference, found.reference):
        raise Rejected(f'Signature for identity "{found.reference}" is not accepted')
    digest = digest_of(image.document.data)
    if found.digest != digest:
        raise Rejected(f"Signature for docker digest {found.digest} does not match {digest}")


class SignedBy(msgspec.Struct, frozen=True):
    """A simple signature by one of the keys."""

    keys: "tuple[bytes, ...]"
    match: Match

    def check(self, image: Image) -> None:
        from . import gpg

        with gpg.keyring(self.keys) as (home, trusted):

            def accepts(signature: Simple) -> None:
                data, fingerprint = gpg.verify(signature.data, home)
                if fingerprint not in trusted:
                    raise Rejected(f"Signature by key {fingerprint} is not accepted")
                _means(image, payload.read(data, payload.SIMPLE_TYPE), self.match)

            _any_of(image, Simple, accepts)


class SigstoreSigned(msgspec.Struct, frozen=True):
    """A sigstore signature by one of the keys."""

    keys: "tuple[bytes, ...]"
    match: Match

    def check(self, image: Image) -> None:
        from . import sigstore

        def accepts(signature: Sigstore) -> None:
            sigstore.verify(signature, self.keys)
            _means(image, payload.read(signature.payload, payload.SIGSTORE_TYPE), self.match)

        _any_of(image, Sigstore, accepts)


class Policy(msgspec.Struct, frozen=True):
    """``transports``: transport -> scope -> requirements; the scope "" is a transport's own default."""

    default: "tuple[Requirement, ...]"
    transports: "dict[str, dict[str, tuple[Requirement, ...]]]"

    @classmethod
    def insecure(cls) -> "Policy":
        return cls((AcceptAnything(),), {})

    @classmethod
    def load(cls, path: str = "", *, must: bool = True) -> "Policy":
        """Raises InvalidArgument, which says what is missing or wrong in the file.

        Without ``must``, a machine that has no policy takes every image; a file that somebody names must be there.
        """
        found = path or _default_path()
        if not (must or path or os.path.lexists(found)):
            return cls.insecure()
        try:
            with open(found, "rb") as file:
                data = file.read(oci.DOCUMENT_LIMIT + 1)
        except OSError as error:
            raise InvalidArgument(
                f"Error loading trust policy: open {found}",
                cause=(error.strerror or str(error)).lower(),
                remedy="write one (containers-policy.json(5)), name one by --policy, or use --insecure-policy",
            ) from error
        return parse(data, found)

    def requirements(self, name: Name) -> "tuple[Requirement, ...]":
        scoped = self.transports.get(name.transport, {})
        for scope in _scopes(name):
            if scope in scoped:
                return scoped[scope]
        return scoped.get("", self.default)

    def check(self, name: Name, document: Document, signatures: "Callable[[], Sequence[Signature]]") -> None:
        """Raises Rejected."""
        image = Image(name, document, signatures)
        for requirement in self.requirements(name):
            try:
                requirement.check(image)
            except Rejected as error:
                raise Rejected(f"Source image rejected: {error}") from error


def _default_path() -> str:
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = os.path.join(config, "containers", "policy.json")
    return own if os.path.exists(own) else SYSTEM


def _scopes(name: Name) -> "list[str]":
    """The scopes of an image, the most specific first (containers-policy.json(5), "Supported transports")."""
    if name.transport == "docker":
        return scopes(references.parse(name.details.removeprefix("//")).with_default_tag())
    if name.transport in ("oci", "oci-archive", "dir", "docker-archive"):
        path, colon, entry = name.details.partition(":") if name.transport != "dir" else (name.details, "", "")
        place = os.path.realpath(path)
        found = [f"{place}:{entry}"] if colon and name.transport == "oci" else []
        while place not in ("", "/"):
            found.append(place)
            place = os.path.dirname(place)
        return found
    return []


# ── Reading the file ──


def parse(data: bytes, what: str) -> Policy:
    """Raises InvalidArgument."""
    document = oci.decode(dict[str, Any], data, f"policy {what}")
    unknown = set(document) - {"default", "transports"}
    if unknown:
        raise InvalidArgument(f"policy {what}: unknown field {sorted(unknown)[0]!r}")
    if "default" not in document:
        raise InvalidArgument(f"policy {what}: default is missing")
    transports = document.get("transports") or {}
    if not isinstance(transports, dict) or not all(isinstance(one, dict) for one in transports.values()):
        raise InvalidArgument(f"policy {what}: transports is no mapping of transports to scopes")
    return Policy(
        _requirements(document["default"], f"policy {what}: default"),
        {
            transport: {
                scope: _requirements(value, f"policy {what}: transports.{transport}[{scope!r}]")
                for scope, value in table.items()
            }
            for transport, table in transports.items()
        },
    )


def _requirements(value: Any, where: str) -> "tuple[Requirement, ...]":
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise InvalidArgument(where, cause="not a list with at least one requirement")
    return tuple(_requirement(one, where) for one in value)


def _requirement(value: "dict[str, Any]", where: str) -> Requirement:
    kind = value.get("type")
    fields = {
        "insecureAcceptAnything": set[str](),
        "reject": set[str](),
        "signedBy": {"keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"},
        "sigstoreSigned": {"keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity"},
    }
    if kind not in fields:
        raise InvalidArgument(where, cause=f"unknown type {kind!r}", remedy=f"one of {', '.join(fields)}")
    unknown = set(value) - fields[kind] - {"type"}
    if {"fulcio", "rekorPublicKeyPath", "rekorPublicKeyData", "pki"} & unknown:
        raise Unimplemented(
            where, cause="sigstore signatures are checked with a key", remedy="give keyPath or keyData"
        )
    if unknown:
        raise InvalidArgument(where, cause=f"unknown field {sorted(unknown)[0]!r}")
    match kind:
        case "insecureAcceptAnything":
            return AcceptAnything()
        case "reject":
            return Reject()
    match = match_of(value.get("signedIdentity"), where)
    if kind == "sigstoreSigned":
        return SigstoreSigned(_keys(value, where), match)
    if value.get("keyType") != "GPGKeys":
        raise InvalidArgument(where, cause=f"unknown keyType {value.get('keyType')!r}", remedy="GPGKeys")
    return SignedBy(_keys(value, where), match)


def _keys(value: "dict[str, Any]", where: str) -> "tuple[bytes, ...]":
    """The keys that exactly one of the fields gives."""
    given = [name for name in ("keyPath", "keyPaths", "keyData", "keyDatas") if name in value]
    if len(given) != 1:
        raise InvalidArgument(where, cause="exactly one of keyPath, keyPaths and keyData must be given")
    values = value[given[0]]
    items = values if isinstance(values, list) else [values]
    if not items or not all(isinstance(one, str) for one in items):
        raise InvalidArgument(where, cause=f"{given[0]} is no text")
    found = []
    for item in items:
        try:
            if given[0].startswith("keyPath"):
                with open(item, "rb") as file:
                    found.append(file.read(oci.DOCUMENT_LIMIT))
            else:
                found.append(base64.b64decode(item, validate=True))
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{where}: {given[0]}", cause=str(error)) from error
    return tuple(found)

"""Simple signatures by the ``gpg`` program: it has the person's keys, agent and smart cards, which no library has.

Signing uses the person's keyring ($GNUPGHOME). Verifying for a policy uses a keyring of its own with the policy's
keys alone, in a temporary directory, so that nothing else is trusted.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from boxship.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Unimplemented
from boxship.image.manifests import Document, digest_of

from . import payload
from .signatures import Simple

TIMEOUT = 120.0


class BadSignature(PermissionDenied):
    """It is no signature by a key that counts."""


class GpgSigner(msgspec.Struct, frozen=True):
    """A ``boxship.image.copy.Signer``: ``key`` is a fingerprint or what gpg finds a key by."""

    key: str
    passphrase: "str | None" = None

    def sign(self, document: Document, identity: str) -> Simple:
        """Raises FailedPrecondition (no such key, wrong passphrase)."""
        return Simple(
            sign(payload.make(identity, digest_of(document.data), payload.SIMPLE_TYPE), self.key, self.passphrase)
        )


def sign(data: bytes, key: str, passphrase: "str | None" = None) -> bytes:
    """An OpenPGP signed message with ``data``. Raises FailedPrecondition, InvalidArgument (a passphrase of lines)."""
    command = ["--local-user", key, "--output", "-", "--sign"]
    if passphrase is None:
        done = _gpg(command, data)
    else:
        if "\n" in passphrase:
            raise InvalidArgument("the passphrase has more than one line")
        reading, writing = os.pipe()
        try:
            os.write(writing, passphrase.encode() + b"\n")
            os.close(writing)
            done = _gpg(["--pinentry-mode", "loopback", "--passphrase-fd", str(reading), *command], data, reading)
        finally:
            os.close(reading)
    if done.returncode or not done.stdout:
        raise FailedPrecondition(f"Signing with key {key} failed", cause=_said(done))
    return done.stdout


@contextmanager
def keyring(keys: "Iterable[bytes]") -> "Iterator[tuple[str, list[str]]]":
    """A temporary keyring with these keys (armoured or not): its directory, and their fingerprints.

    Raises InvalidArgument for what is no key.
    """
    home = tempfile.mkdtemp(prefix="boxship-gpg-")
    try:
        for key in keys:
            done = _gpg(["--import"], key, home=home)
            if done.returncode:
                raise InvalidArgument("a key of the policy cannot be imported", cause=_said(done))
        listed = _gpg(["--with-colons", "--list-keys"], b"", home=home).stdout.decode("utf-8", "replace")
        yield home, [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]
    finally:
        _stop_agent(home)
        shutil.rmtree(home, ignore_errors=True)


def verify(signature: bytes, home: str = "") -> "tuple[bytes, str]":
    """What was signed, and the fingerprint of the key that did; ``home`` "" is the person's keyring.

    Raises BadSignature.
    """
    reading, writing = os.pipe()
    try:
        with os.fdopen(reading, "rb") as status:
            done = _gpg(["--status-fd", str(writing), "--output", "-", "--decrypt"], signature, writing, home=home)
            os.close(writing)
            writing = -1
            lines = status.read().decode("utf-8", "replace").splitlines()
    finally:
        if writing >= 0:
            os.close(writing)
    words = [line.removeprefix("[GNUPG:] ").split() for line in lines]
    valid = [one for one in words if one and one[0] == "VALIDSIG"]
    bad = [one for one in words if one and one[0] in ("BADSIG", "ERRSIG", "EXPKEYSIG", "REVKEYSIG", "EXPSIG")]
    if done.returncode or len(valid) != 1 or bad:
        missing = next((one[1] for one in words if one and one[0] == "NO_PUBKEY"), "")
        cause = f"no key {missing}" if missing else _said(done)
        raise BadSignature("Invalid GPG signature", cause=cause)
    found = valid[0]
    return done.stdout, found[10] if len(found) > 10 else found[1]  # the primary key's, when a subkey signed


def _gpg(words: "list[str]", data: bytes, fd: int = -1, *, home: str = "") -> "subprocess.CompletedProcess[bytes]":
    where = ["--homedir", home] if home else []
    quiet = ["--batch", "--no-tty", "--no-auto-key-retrieve", "--no-auto-key-locate", "--trust-model", "always"]
    try:
        return subprocess.run(
            ["gpg", *where, *quiet, *words],
            input=data,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            pass_fds=(fd,) if fd >= 0 else (),
        )
    except FileNotFoundError:
        raise Unimplemented("simple signatures need the gpg program", remedy="install gnupg") from None
    except subprocess.TimeoutExpired as error:
        raise FailedPrecondition(
            "gpg does not answer", remedy="give the passphrase by --sign-passphrase-file"
        ) from error


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.startswith("gpg: ")]
    text = "; ".join(line.removeprefix("gpg: ").strip() for line in lines[-3:])
    return text or f"gpg exited with {done.returncode}"


def _stop_agent(home: str) -> None:
    try:
        subprocess.run(
            ["gpgconf", "--homedir", home, "--kill", "gpg-agent"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        pass  # an agent without its directory ends by itself

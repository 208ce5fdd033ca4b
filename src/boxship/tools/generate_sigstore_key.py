"""``generate-sigstore-key``: a key pair for sigstore signatures, the private key locked with a passphrase."""

from __future__ import annotations

import os
import sys

from boxship.errors import AlreadyExists
from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context

FLAGS = (
    Flag("output-prefix", "", "string", "Write the keys to PREFIX.pub and PREFIX.private", value="PREFIX"),
    Flag("passphrase-file", "", "string", "The passphrase to lock the private key with is in PATH", value="PATH"),
)


def do(context: Context, o: Parsed) -> int:
    from boxship.image.trust.sigstore import generate
    from boxship.tools.files import read_passphrase, write_file

    if not o.output_prefix:
        raise UsageError("generate-sigstore-key needs --output-prefix PREFIX: where to write the keys")
    public, private = f"{o.output_prefix}.pub", f"{o.output_prefix}.private"
    for path in (public, private):
        if os.path.lexists(path):
            raise AlreadyExists(f'Refusing to overwrite existing "{path}"')
    passphrase = read_passphrase(o.passphrase_file)
    if passphrase is None:
        passphrase = _ask(private)
    locked, open_ = generate(passphrase)
    write_file(private, locked, "the private key", 0o600)
    write_file(public, open_, "the public key")
    print(f'Key written to "{private}" and "{public}"')
    return 0


def _ask(path: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError("cannot ask for a passphrase: the input is no terminal (use --passphrase-file)")
    from getpass import getpass

    first = getpass(f"Passphrase for key {path}: ")
    if getpass("Repeat passphrase: ") != first:
        raise UsageError("the passphrases differ")
    return first


COMMAND = Command(
    "generate-sigstore-key", "--output-prefix PREFIX", "Generate a sigstore public/private key pair", do, FLAGS
)  # fmt: skip

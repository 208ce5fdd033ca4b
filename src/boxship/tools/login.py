"""``login``: ask a registry whether it takes a name and a password, and remember them in containers' auth file."""

from __future__ import annotations

import sys

from boxship.flags import Flag, Parsed, UsageError

from .command import Command, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boxship.image.registry.credentials import Credentials
    from boxship.oci.reference import Reference

FLAGS = (
    Flag("authfile", "", "string", "The auth file (default: $REGISTRY_AUTH_FILE, or the session's)", value="PATH"),
    Flag("cert-dir", "", "string", "Certificates (*.crt, *.cert, *.key) for the registry", value="PATH"),
    Flag("compat-auth-file", "", "string", "Write docker's config.json at PATH instead", value="PATH"),
    Flag("get-login", "", "bool", "Say who is logged in"),
    Flag("password", "p", "string", "Password for registry"),
    Flag("password-stdin", "", "bool", "Take the password from stdin"),
    Flag("tls-verify", "", "bool", "Require HTTPS and verify certificates"),
    Flag("username", "u", "string", "Username for registry"),
    Flag("verbose", "v", "bool", "Say where the credentials are kept"),
)


def auth_file(o: Parsed) -> Credentials:
    """The file to read and write. Raises UsageError for two of them."""
    from boxship.image.registry.auth import plain_key, writable_path
    from boxship.image.registry.credentials import Credentials

    if o.authfile and o.compat_auth_file:
        raise UsageError(
            "options for paths to the credential file and to the Docker-compatible credential file "
            "can not be set simultaneously"
        )
    if o.compat_auth_file:
        return Credentials(o.compat_auth_file)
    return Credentials(writable_path(o.authfile), key=plain_key)


def place(arguments: list[str]) -> tuple[str, Reference]:
    """The name to file credentials under (a registry, or a repository or namespace of it), and where that is."""
    from boxship.oci import reference

    if not arguments:
        raise UsageError("please specify a registry to log in to")
    text = (arguments[0].partition("://")[2] or arguments[0]).rstrip("/")
    domain, slash, path = text.partition("/")
    if slash and path in ("v1", "v2"):
        path = ""
    parsed = reference.parse(
        f"{domain}/{path or 'any'}" if domain != "docker.io" else f"docker.io/{path or 'library/any'}"
    )
    return (f"{domain}/{path}" if path else domain), parsed


def _secrets(o: Parsed) -> tuple[str, str]:
    if o.password_stdin:
        if o.password:
            raise UsageError("Can't specify both --password-stdin and --password")
        if not o.username:
            raise UsageError("Must provide --username with --password-stdin")
        return o.username, sys.stdin.read().rstrip("\r\n")
    username, password = o.username, o.password
    if (not username or not password) and not sys.stdin.isatty():
        raise UsageError(
            "cannot ask for a username or password: the input is no terminal (use -u and --password-stdin)"
        )
    if not username:
        username = input("Username: ").strip()
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
    if not username or not password:
        raise UsageError("username and password are both needed")
    return username, password


def do(context: Context, o: Parsed) -> int:
    from boxship.errors import Unauthenticated
    from boxship.image.registry.containers_conf import Address
    from boxship.image.registry.credentials import Credential
    from boxship.image.transports import Access
    from boxship.image.transports.docker import repository_at

    key, reference = place(o.args)
    file = auth_file(o)
    if o.get_login:
        known = file.exactly(key) if "/" in key else file.get(key)
        if not known:
            from boxship.errors import NotFound

            raise NotFound(f"not logged into {key}")
        print(known.username)
        return 0
    credential = Credential(*_secrets(o))
    verify = o.tls_verify if "tls-verify" in o.given else None
    repository = repository_at(Address(reference), Access(credential, cert_dir=o.cert_dir, tls_verify=verify))
    try:
        repository.ping()
    except Unauthenticated as error:
        raise Unauthenticated(f'logging into "{key}": invalid username/password', cause=error.cause) from error
    finally:
        repository.close()
    where = file.store(key, credential)
    if o.verbose:
        print(f"Used: {where}")
    print("Login Succeeded!")
    return 0


COMMAND = Command(
    "login", "REGISTRY", "Log in to a container registry", do, FLAGS, most=1, examples=("login quay.io",)
)  # fmt: skip

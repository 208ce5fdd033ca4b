"""``containerd-shim-boxship-v2``: the binary that containerd executes for -info, start and delete.

It lives for milliseconds and imports as little as it can.  Its answer goes to standard output, and nothing else
may: containerd reads standard error through the same pipe and takes the first line for the address.
So failures are told in one line on standard error with exit status 1, which containerd shows as the reason.

Run as ``python -I -S cold.py ARGUMENTS`` or ``python -m boxship.shim ARGUMENTS``.
"""

import sys

if __name__ == "__main__":
    # -I -S leave out the package's own place; the file knows it.
    sys.path.insert(0, __file__.rpartition("/boxship/")[0])

import os

from boxship.errors import BoxshipError, InvalidArgument, PeerError
from boxship.shim.arguments import Arguments, parse

VERSION = "0.1.0"
LIMIT = 10 << 20  # bytes of standard input


def read_input() -> bytes:
    """Standard input to its end; a terminal says nothing."""
    if os.isatty(0):
        return b""
    data = b""
    while len(data) < LIMIT and (part := os.read(0, 65536)):
        data += part
    return data


def write_output(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def start(arguments: Arguments) -> None:
    """Print the address of a shim for this container, which is started by the zygote."""
    from boxship.api.task.bootstrap import BootstrapParams, StartShimRequest
    from boxship.api.task.zygote import ShimLauncher

    id, namespace = arguments.required("id"), arguments.required("namespace")
    try:
        params = BootstrapParams.decode(read_input())
    except PeerError:
        params = BootstrapParams()
    if params.instance_id != id or params.namespace != namespace:
        params = BootstrapParams()  # containerd 2.2 and older send runtime options here, which Create repeats
    launcher = ShimLauncher()
    address = launcher.request(
        StartShimRequest(
            namespace=namespace,
            id=id,
            bundle=os.getcwd(),
            address=arguments.flags.get("address") or params.containerd_grpc_address,
            ttrpc_address=os.environ.get("TTRPC_ADDRESS") or params.containerd_ttrpc_address,
            socket_dir=params.socket_dir or "",
            exec_root=launcher.exec_root,
        )
    ).address
    newest = os.environ.get("MAX_SHIM_VERSION", "")
    if newest.isdigit() and int(newest) >= 3:
        answer = '{"version":3,"address":"' + address + '","protocol":"ttrpc"}'
    else:
        answer = address  # containerd 1.x takes nothing else
    write_output(answer.encode())


def delete(arguments: Arguments) -> None:
    """Remove what a shim has left, whether it ended well, was killed, or never came to Create."""
    from boxship.shim.cleanup import clean_up

    bundle = arguments.flags.get("bundle") or os.getcwd()
    write_output(clean_up(arguments.required("id"), bundle))


def info() -> None:
    """What this shim is, as RuntimeInfo (containerd 2.0 and later ask once)."""
    from boxship.api.task.types import RuntimeInfo, RuntimeVersion

    read_input()  # the options, which change nothing in the answer
    write_output(RuntimeInfo(name="io.containerd.boxship.v2", version=RuntimeVersion(version=VERSION)).encode())


def main(words: "list[str]") -> int:
    """The exit status."""
    try:
        arguments = parse(words)
        if "info" in arguments.flags:
            info()
        elif "v" in arguments.flags or "version" in arguments.flags:
            write_output(f"containerd-shim-boxship-v2:\n  Version:  {VERSION}\n".encode())
        elif arguments.action == "start":
            start(arguments)
        elif arguments.action == "delete":
            delete(arguments)
        else:
            raise InvalidArgument("this program is run by containerd", remedy="give start, delete or -info")
    except BoxshipError as error:
        os.write(2, f"containerd-shim-boxship-v2: {error}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

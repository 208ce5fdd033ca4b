"""CRIU's RPC: its messages, and a client that runs one ``criu swrk`` for one request.

CRIU (checkpoint and restore in userspace) saves a tree of processes to files and makes it again from them.
Facts: images/rpc.proto of CRIU, and https://criu.org/RPC.
"""

from .client import Swrk, version
from .messages import CgroupMode, Features, Notify, Options, Request, RequestType, Response

__all__ = [
    "CgroupMode",
    "Features",
    "Notify",
    "Options",
    "Request",
    "RequestType",
    "Response",
    "Swrk",
    "version",
]

"""ttrpc, the small RPC protocol between containerd and its shims.

``frames`` and ``session`` are the protocol without I/O; on them stand a server for the shim's own event loop
(``server``, ``loop``), a client that blocks (``blocking``), and a client and a server for asyncio (``aio``).
The package imports none of them: a shim must not pay for asyncio.
"""

"""The shim: one small process per container (or pod) between containerd and the runtime library.

Read ``service`` for a container's life, ``stdio`` and ``logs`` for its streams, ``zygote`` for where shims come
from, ``cold`` for the binary that containerd executes; docs/layers/shim.md tells the whole story.
"""

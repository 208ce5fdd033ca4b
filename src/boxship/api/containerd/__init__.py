"""containerd's gRPC API as typed declarations, and one client for it whether the services are near or far.

``Client.in_process(services)`` calls the service objects of this process, ``Client.connect(address)`` goes over
gRPC; the same calls, the same BoxshipErrors. The containerd namespace of a call is the context variable
``namespace``, the lease that protects what it makes is ``lease``: both travel as gRPC metadata.
"""

from boxship.api.containerd.client import Client
from boxship.api.containerd.context import lease, namespace

__all__ = ["Client", "lease", "namespace"]

"""The OCI runtime command line, from the caller's side: a client for any runtime that speaks it.

runc, crun and ``boxship-runc`` take the same verbs; ``Runtime`` runs one by path.
"""

from .client import Runtime, State

__all__ = ["Runtime", "State"]

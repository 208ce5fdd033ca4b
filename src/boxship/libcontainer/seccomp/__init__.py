"""Seccomp: runtime-spec ``linux.seccomp`` compiled to the BPF program that the kernel runs on each system call.

``compile`` gives the program of a profile, from the cache where it was compiled before.
``docker_default`` is Docker's policy for a container with given capabilities.
"""

from .cache import Filter, compile  # noqa: A004 - the verb of the module, used as seccomp.compile

__all__ = ["Filter", "compile"]

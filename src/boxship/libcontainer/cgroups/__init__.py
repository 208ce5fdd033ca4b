"""Cgroups on v1, v2 and hybrid hosts, by hand or by systemd, behind one protocol.

``manager(detect(), id, cgroups_path)`` gives a :class:`~boxship.libcontainer.cgroups.manager.Manager`;
``from_paths`` finds one again from a container's state.
A controller's module decides (which file gets which text), ``tree`` does, ``v1`` and ``v2`` know which and where.
"""

from .layout import Layout, detect, parse
from .manager import NoManager, Stats, from_paths, manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .manager import Manager as Manager

__all__ = ["Layout", "NoManager", "Stats", "detect", "from_paths", "manager", "parse"]

"""Cgroups: memory, cpu, pids and the freezer on v1, v2 and hybrid hosts, behind one protocol.

``manager(detect(), id, cgroups_path)`` gives a :class:`~boxship.libcontainer.cgroups.manager.Manager`;
``from_paths`` finds one again from a container's state.
A controller's module decides (which file gets which text), the manager does.
"""

from .layout import Layout, detect, parse
from .manager import NoManager, Stats, V1Manager, V2Manager, from_paths, manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .manager import Manager as Manager

__all__ = [
    "Layout",
    "NoManager",
    "Stats",
    "V1Manager",
    "V2Manager",
    "detect",
    "from_paths",
    "manager",
    "parse",
]

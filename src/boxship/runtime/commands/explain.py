"""``explain BUNDLE``: the plan of a bundle as system calls. Needs no root and changes nothing.

After a start of that bundle failed in one of the steps it is the plan that was tried, with this step marked.
"""

import os

from boxship.libcontainer import cgroups
from boxship.libcontainer.compile import Request, compile_spec
from boxship.libcontainer.compile.home import home
from boxship.libcontainer.container import read_spec
from boxship.libcontainer.failures import last
from boxship.libcontainer.host import host
from boxship.libcontainer.plan.explain import explain
from boxship.libcontainer.resources import cgroup_path
from boxship.libcontainer.validate import check

from ..main import Call


def run(call: Call) -> int:
    operands = call.options.operands
    bundle = os.path.abspath(operands[0] if operands else call.options.text("bundle", "."))
    spec = read_spec(bundle)
    check(spec)
    failed = last(call.root, bundle)
    if failed is not None:
        print(f"container {failed['id']} at {failed['time']}: {failed['message']}\n")
        if failed["plan"]:
            print(failed["plan"], end="")
            return 0
    process = spec.get("process") or {}
    machine = host()
    # As root would run it: whoever asks need not be root.
    machine.user, machine.capabilities = 0, (1 << machine.last_capability + 1) - 1
    id = os.path.basename(bundle)
    manager = cgroups.manager(machine.cgroups, id, cgroup_path((spec.get("linux") or {}).get("cgroupsPath") or ""))
    root = (spec.get("root") or {}).get("path") or "rootfs"
    rootfs = os.path.join(bundle, root)
    request = Request(
        spec,
        id=id,
        bundle=bundle,
        rootfs=rootfs,
        tasks=len(manager.tasks_files()),
        cgroup=manager.directory(),
        cgroup_paths=manager.paths,
        terminal=bool(process.get("terminal")),
        home=home((process.get("user") or {}).get("uid", 0), rootfs),
    )
    print(explain(compile_spec(request, machine)), end="")
    return 0

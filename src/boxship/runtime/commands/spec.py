"""``spec``: a config.json to start from."""

import os

from boxship.errors import AlreadyExists, NotFound
from boxship.libcontainer.defaults import default
from boxship.oci import cold_json

from ..main import Call


def run(call: Call) -> int:
    bundle = call.options.text("bundle", ".")
    if not os.path.isdir(bundle):
        raise NotFound(f"--bundle {bundle}: no such directory")
    path = os.path.join(bundle, "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise AlreadyExists(f"file {path} exists", remedy="remove it first") from error
    # A cgroup namespace only where the whole host is on v2, as runc has it: on v1 programs expect the host's paths.
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    spec = default(rootless=call.options.flag("rootless"), cgroup_namespace=unified)
    with open(fd, "w") as f:
        f.write(cold_json.dumps_indented(spec) + "\n")
    return 0

"""Where in config.json a step of a plan comes from, for the error when the kernel refuses it.

Found again from what the step is for (``Plan.purpose``): a plan that does not fail need not carry it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How a purpose begins, and the place; "{}" is what follows up to a space or a colon.
PLACES = (
    ("set sysctl ", "linux.sysctl.{}"),
    ("set the hostname", "hostname"),
    ("set the domainname", "domainname"),
    ("set resource limits", "process.rlimits"),
    ("raise resource limits", "process.rlimits"),
    ("set oom_score_adj", "process.oomScoreAdj"),
    ("set the scheduler", "process.scheduler"),
    ("set the I/O priority", "process.ioPriority"),
    ("set the personality", "linux.personality"),
    ("set the memory policy", "linux.memoryPolicy"),
    ("set the AppArmor profile", "process.apparmorProfile"),
    ("set the SELinux label", "process.selinuxLabel"),
    ("set capabilities", "process.capabilities"),
    ("drop capabilities", "process.capabilities"),
    ("set up the network device ", "linux.netDevices.{}"),
    ("become user", "process.user"),
    ("enter the working directory", "process.cwd"),
    ("make the working directory", "process.cwd"),
    ("run on CPUs", "process.execCPUAffinity"),
    ("make device", "linux.devices"),
    ("open the host's devices", "linux.devices"),
    ("mask paths", "linux.maskedPaths"),
    ("make the read-only paths", "linux.readonlyPaths"),
    ("make the root mount", "linux.rootfsPropagation"),
    ("open the root file system", "root.path"),
    ("attach the root file system", "root.path"),
    ("pivot into the root file system", "root.path"),
    ("make the time namespace", "linux.timeOffsets"),
    ("load the seccomp filter", "linux.seccomp"),
    ("connect to the seccomp agent", "linux.seccomp.listenerPath"),
    ("execute ", "process.args[0]"),
)


def json_path(purpose: str, spec: "dict[str, Any]") -> str:
    """The JSON path in ``spec`` of a step with this purpose, "" when no single place asked for it."""
    for start, place in PLACES:
        if purpose.startswith(start):
            return place.format(purpose[len(start) :].partition(" ")[0].rstrip(":"))
    words = purpose.split(" ")
    if len(words) > 3 and words[0] == "run" and words[2] == "hook":  # run createRuntime hook #0: /path
        return f"hooks.{words[1]}[{words[3].strip('#:')}]"
    if len(words) > 3 and words[0] in ("open", "join") and words[3] == "namespace":  # open the pid namespace /path
        for index, namespace in enumerate((spec.get("linux") or {}).get("namespaces") or ()):
            if namespace.get("type") == words[2]:
                return f"linux.namespaces[{index}].path"
    if words[0] in ("mount", "bind", "open", "change", "make") and " on " in purpose + " ":
        destination = purpose.rpartition(" on ")[2]
        for index, mount in enumerate(spec.get("mounts") or ()):
            if mount.get("destination") == destination:
                return f"mounts[{index}]"
    return ""

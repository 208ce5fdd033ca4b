"""``features``: what this runtime knows, as JSON (runtime-spec, features.md), from the tables that it works by."""

from boxship.libcontainer.seccomp.compiler import ACTIONS, FLAGS, OPERATORS
from boxship.linux.abi.mount import ATTRIBUTES, NOTHING, PROPAGATION, SUPERBLOCK
from boxship.linux.abi.process import CAPABILITIES, MEMORY_POLICIES, MEMORY_POLICY_FLAGS, NAMESPACES
from boxship.linux.abi.syscalls import ARCHITECTURES
from boxship.oci import cold_json

from ..main import SPEC_VERSION, Call
from ..version import commit, version

HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
_OTHER_OPTIONS = ("bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap")


def features() -> "dict[str, object]":
    recursive = ("r" + word for word in ATTRIBUTES)
    options = {*ATTRIBUTES, *recursive, *PROPAGATION, *SUPERBLOCK, *NOTHING, *_OTHER_OPTIONS}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(ARCHITECTURES),
                "knownFlags": list(FLAGS),
                "supportedFlags": list(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": sorted(MEMORY_POLICIES), "flags": sorted(MEMORY_POLICY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {
            "org.boxship.commit": commit(),
            "org.boxship.version": version(),
            "org.opencontainers.runc.checkpoint.enabled": "true",  # the word that callers look for
        },
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
    }


def run(call: Call) -> int:
    print(cold_json.dumps_indented(features()))
    return 0

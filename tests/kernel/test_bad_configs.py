"""Broken configurations and command lines: one clear line each that names the place, runc's exit code, nothing left.

A row is what is changed in a good config.json (path, new value; ``REMOVE`` takes it out), and what the line must say.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .bundle_fixture import Bundle, needs_root, new_bundle

RUNTIME = Path(sys.executable).parent / "boxship-runc"
pytestmark = [
    pytest.mark.root,
    needs_root,
    pytest.mark.skipif(not RUNTIME.exists(), reason="needs boxship installed beside this Python"),
]

REMOVE = object()
USER_MAP = {"containerID": 0, "hostID": 100000, "size": 65536}

CONFIGS: "list[tuple[str, Any, str]]" = [
    # What types say.
    ("ociVersion", 1, "ociVersion must be a text, not 1"),
    ("ociVersion", "2.0.0", "ociVersion '2.0.0' is not supported (versions 1.x are)"),
    ("process", "sh", "process must be an object, not 'sh'"),
    ("process", [], "process must be an object, not a list"),
    ("process.terminal", "yes", "process.terminal must be true or false, not 'yes'"),
    ("process.consoleSize", {"width": -1, "height": 1}, "process.consoleSize.width must be from 0 to"),
    ("process.user", 0, "process.user must be an object, not 0"),
    ("process.user.uid", "root", "process.user.uid must be a whole number, not 'root'"),
    ("process.user.uid", -1, "process.user.uid must be from 0 to 4294967295, not -1"),
    ("process.user.gid", 1.5, "process.user.gid must be a whole number, not 1.5"),
    ("process.user.umask", 0o1777, "process.user.umask must be from 0 to 511"),
    ("process.user.additionalGids", ["wheel"], "process.user.additionalGids[0] must be a whole number"),
    ("process.args", "sh", "process.args must be a list, not 'sh'"),
    ("process.args", ["sh", 1], "process.args[1] must be a text, not 1"),
    ("process.env", {"A": "b"}, "process.env must be a list, not an object"),
    ("process.env", ["A=b", None], "process.env[1] must be a text, not null"),
    ("process.cwd", True, "process.cwd must be a text, not true or false"),
    ("process.capabilities", ["CAP_KILL"], "process.capabilities must be an object, not a list"),
    ("process.capabilities.bounding", "CAP_KILL", "process.capabilities.bounding must be a list, not 'CAP_KILL'"),
    ("process.noNewPrivileges", 1, "process.noNewPrivileges must be true or false, not 1"),
    ("process.oomScoreAdj", 5000, "process.oomScoreAdj must be from -1000 to 1000, not 5000"),
    ("process.rlimits", {"type": "RLIMIT_CORE"}, "process.rlimits must be a list, not an object"),
    ("process.rlimits[0]", {"soft": 1, "hard": 1}, "process.rlimits[0].type is missing"),
    ("process.rlimits[0].type", "RLIMIT_NOSUCH", "process.rlimits[0].type must be one of RLIMIT_AS,"),
    ("process.rlimits[0].soft", "many", "process.rlimits[0].soft must be a whole number, not 'many'"),
    ("process.apparmorProfile", 7, "process.apparmorProfile must be a text, not 7"),
    ("process.scheduler", {"nice": 1}, "process.scheduler.policy is missing"),
    ("process.scheduler", {"policy": "SCHED_BEST"}, "process.scheduler.policy must be one of SCHED_BATCH,"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}, "process.scheduler.flags[0] must be one of"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_X"}, "process.ioPriority.class must be one of IOPRIO_CLASS_BE,"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8},
     "process.ioPriority.priority must be from 0 to 7"),
    ("process.execCPUAffinity", "0-1", "process.execCPUAffinity must be an object, not '0-1'"),
    ("root", "rootfs", "root must be an object, not 'rootfs'"),
    ("root.path", 5, "root.path must be a text, not 5"),
    ("root.readonly", "no", "root.readonly must be true or false, not 'no'"),
    ("hostname", 5, "hostname must be a text, not 5"),
    ("mounts", {}, "mounts must be a list, not an object"),
    ("mounts[1]", "tmpfs", "mounts[1] must be an object, not 'tmpfs'"),
    ("mounts[1]", {"type": "tmpfs"}, "mounts[1].destination is missing"),
    ("mounts[1].options", "nosuid", "mounts[1].options must be a list, not 'nosuid'"),
    ("mounts[1].type", ["tmpfs"], "mounts[1].type must be a text, not a list"),
    ("hooks", [], "hooks must be an object, not a list"),
    ("hooks", {"prestart": {"path": "/x"}}, "hooks.prestart must be a list, not an object"),
    ("hooks", {"poststop": [{"args": []}]}, "hooks.poststop[0].path is missing"),
    ("annotations", {"a": 1}, "annotations.a must be a text, not 1"),
    ("linux", "none", "linux must be an object, not 'none'"),
    ("linux.namespaces", "pid", "linux.namespaces must be a list, not 'pid'"),
    ("linux.namespaces[0]", {"path": "/x"}, "linux.namespaces[0].type is missing"),
    ("linux.namespaces[0].type", "net", "linux.namespaces[0].type must be one of cgroup, ipc,"),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0}], "linux.uidMappings[0].size is missing"),
    ("linux.gidMappings", [{"containerID": -1, "hostID": 0, "size": 1}],
     "linux.gidMappings[0].containerID must be from 0"),
    ("linux.devices", [{"path": "/dev/x"}], "linux.devices[0].type is missing"),
    ("linux.devices", [{"path": "/dev/x", "type": "z"}], "linux.devices[0].type must be one of b, c, p, u, not 'z'"),
    ("linux.devices", [{"path": "/dev/x", "type": "c", "major": "5"}],
     "linux.devices[0].major must be a whole number"),
    ("linux.cgroupsPath", 1, "linux.cgroupsPath must be a text, not 1"),
    ("linux.sysctl", {"net.ipv4.ip_forward": 1}, "linux.sysctl.net.ipv4.ip_forward must be a text, not 1"),
    ("linux.seccomp", "default", "linux.seccomp must be an object, not 'default'"),
    ("linux.maskedPaths", "/proc/kcore", "linux.maskedPaths must be a list, not '/proc/kcore'"),
    ("linux.personality", {"domain": "BSD"}, "linux.personality.domain must be one of LINUX, LINUX32"),
    ("linux.timeOffsets", {"boottime": {"nanosecs": 1 << 30}}, "linux.timeOffsets.boottime.nanosecs must be from 0"),
    ("linux.resources", [], "linux.resources must be an object, not a list"),
    ("linux.resources.memory", {"limit": "512m"}, "linux.resources.memory.limit must be a whole number, not '512m'"),
    ("linux.resources.memory", {"swappiness": 101}, "linux.resources.memory.swappiness must be from 0 to 100"),
    ("linux.resources.cpu", {"shares": -1}, "linux.resources.cpu.shares must be from 0 to"),
    ("linux.resources.cpu", {"cpus": 0}, "linux.resources.cpu.cpus must be a text, not 0"),
    ("linux.resources.pids", {"limit": True}, "linux.resources.pids.limit must be a whole number, not true or false"),
    ("linux.resources.devices", [{"allow": "yes"}], "linux.resources.devices[0].allow must be true or false"),
    ("linux.resources.devices", [{"allow": True, "type": "d", "access": "r"}],
     "linux.resources.devices[0].type must be one"),
    ("linux.resources.devices", [{"allow": True, "access": "rx"}],
     "linux.resources.devices[0].access must be letters of rwm"),
    ("linux.resources.blockIO", {"weight": 70000}, "linux.resources.blockIO.weight must be from 0 to 65535"),
    ("linux.resources.blockIO", {"throttleReadBpsDevice": [{"major": 8}]},
     "throttleReadBpsDevice[0].minor is missing"),
    ("linux.resources.hugepageLimits", [{"limit": 1}], "linux.resources.hugepageLimits[0].pageSize is missing"),
    ("linux.resources.unified", {"memory.max": 1}, "linux.resources.unified.memory.max must be a text, not 1"),
    # What they cannot say.
    ("process", REMOVE, "process.args is empty"),
    ("process.args", [], "process.args is empty: there is no command to run"),
    ("process.args", [""], "process.args is empty: there is no command to run"),
    ("process.args", ["a\0b"], "process.args[0] contains a NUL byte"),
    ("process.cwd", "tmp", "process.cwd must be an absolute path, not 'tmp'"),
    ("process.cwd", REMOVE, "process.cwd must be an absolute path, not ''"),
    ("process.env", ["PATH"], "process.env[0]: 'PATH' has no '='"),
    ("process.env", ["A=1", "=x"], "process.env[1]: '=x' has no name"),
    ("process.rlimits[0]", {"type": "RLIMIT_CORE", "soft": 2, "hard": 1}, "process.rlimits[0].soft: 2 is above"),
    ("process.rlimits", [{"type": "RLIMIT_CORE"}] * 2, "process.rlimits[1].type: RLIMIT_CORE is there twice"),
    ("process.execCPUAffinity", {"initial": "abc"}, "process.execCPUAffinity.initial: 'abc' is not a list of CPUs"),
    ("process.execCPUAffinity", {"final": "3-1"}, "process.execCPUAffinity.final: '3-1' has an impossible range"),
    ("process.execCPUAffinity", {"final": ","}, "process.execCPUAffinity.final: ',' names no CPU"),
    ("root", REMOVE, "root.path is missing"),
    ("root.path", "nosuch", "nosuch: no such directory"),
    ("root.path", "config.json", "config.json: no such directory"),
    ("linux.namespaces[1].type", "pid", "linux.namespaces[1].type: pid is there twice"),
    ("linux.namespaces[0].path", "ns/pid", "linux.namespaces[0].path must be absolute, not 'ns/pid'"),
    ("linux.namespaces[0].path", "/nosuch", "/nosuch"),
    ("linux.uidMappings", [USER_MAP], "linux.uidMappings is set, but the container has no user namespace"),
    ("linux", {"namespaces": [{"type": "user"}], "gidMappings": [USER_MAP]},
     "linux.uidMappings is empty, but the container has a user namespace of its own (map at least its root,"),
    ("linux.namespaces[0].type", "user", "linux.uidMappings is empty, but the container has a user namespace"),
    ("linux", {"namespaces": [{"type": "user"}], "uidMappings": [], "gidMappings": []},
     "linux.uidMappings is empty, but the container has a user namespace"),
    ("linux", {"namespaces": [{"type": "user", "path": ""}], "uidMappings": [USER_MAP]},
     "linux.gidMappings is empty, but the container has a user namespace"),
    ("linux", {"namespaces": [{"type": "user"}], "uidMappings": [{**USER_MAP, "containerID": 1}],
               "gidMappings": [USER_MAP]}, "linux.uidMappings maps nothing to the container's id 0"),
    ("linux", {"namespaces": [{"type": "user"}], "uidMappings": [USER_MAP],
               "gidMappings": [USER_MAP, {"containerID": 65535, "hostID": 1, "size": 1}]},
     "linux.gidMappings[1] overlaps linux.gidMappings[0]: containerID 65535 is in both"),
    ("linux", {"namespaces": [{"type": "user"}], "gidMappings": [USER_MAP],
               "uidMappings": [{"containerID": 70000, "hostID": 165535, "size": 1}, USER_MAP]},
     "linux.uidMappings[1] overlaps linux.uidMappings[0]: hostID 165535 is in both"),
    ("linux", {"namespaces": [{"type": "user"}], "gidMappings": [USER_MAP],
               "uidMappings": [{"containerID": n, "hostID": n, "size": 1} for n in range(341)]},
     "linux.uidMappings has 341 entries: Linux takes 340 at most"),
    ("mounts", [{"destination": "/x", "type": "bind", "source": "/", "uidMappings": [USER_MAP, USER_MAP]}],
     "mounts[0].uidMappings[1] overlaps mounts[0].uidMappings[0]"),
    ("linux.timeOffsets", {"boottime": {"secs": 1}},
     "linux.timeOffsets is set, but the container has no time namespace"),
    ("linux.namespaces", [{"type": "pid"}], "linux.maskedPaths is set, but the container has no mount namespace"),
    ("linux.maskedPaths", ["proc/kcore"], "linux.maskedPaths[0] must be an absolute path, not 'proc/kcore'"),
    ("linux.devices", [{"path": "dev/x", "type": "p"}], "linux.devices[0].path must be absolute, not 'dev/x'"),
    ("linux.cgroupsPath", "/a/../../b", "linux.cgroupsPath"),
    ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation: unknown value 'sideways'"),
    ("linux.sysctl", {"vm.swappiness": "1"}, "linux.sysctl: vm.swappiness is not namespaced"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_MAYBE"}, "linux.seccomp.defaultAction"),
    ("hooks", {"prestart": [{"path": "true"}]}, "hooks.prestart[0].path must be absolute, not 'true'"),
    ("hooks", {"prestart": [{"path": "/bin/true", "timeout": 0}]}, "hooks.prestart[0].timeout must be above 0"),
    ("mounts[1].destination", "", "mounts[1].destination is empty"),
    ("mounts[1].type", "nosuchfs", "mount nosuchfs on /dev"),
    ("mounts", [{"destination": "/x", "type": "bind", "source": "/nosuch"}], "/nosuch"),
    ("hostname", "x" * 65, "hostname is longer than 64 characters"),
]  # fmt: skip

TEXTS = [
    ("", "config.json: invalid JSON"),
    ("{", "config.json: invalid JSON"),
    ("[]", "config.json: must be a JSON object"),
    ('"text"', "config.json: must be a JSON object"),
    ('{"process": {"args": [}', "config.json: invalid JSON"),
    ("\xff\xfe", "config.json"),
]

COMMANDS = [
    (["run", "a/b"], 1, "invalid container ID format: 'a/b'"),
    (["run", ".."], 1, "invalid container ID format: '..'"),
    (["run", ""], 1, "invalid container ID format: '': empty"),
    (["run", "--bundle", "/nosuch", "x"], 1, "config.json not found in /nosuch"),
    (["run", "--config", "nosuch.json", "x"], 1, "nosuch.json not found"),
    (["run", "x", "y"], 1, '"run" requires exactly 1 argument(s), not 2'),
    (["run", "--no-such-flag", "x"], 1, "flag provided but not defined: --no-such-flag"),
    (["run", "--pid-file"], 1, "flag needs an argument: --pid-file"),
    (["run", "--preserve-fds", "three", "x"], 1, "invalid value 'three' for flag --preserve-fds"),
    (["run", "--console-socket", "/nosuch", "x"], 1, "cannot use console socket"),
    (["run", "--detach=perhaps", "x"], 1, "must be true or false"),
    (["create", "--pid-file", "/nosuch/pid", "x"], 1, "write --pid-file /nosuch/pid"),
    (["create", "--pidfd-socket", "/nosuch/socket", "x"], 1, "/nosuch/socket"),
    (["exec", "nosuch", "true"], 255, "container 'nosuch' does not exist"),
    (["exec"], 1, '"exec" requires a minimum of 1 argument(s)'),
    (["start", "nosuch"], 1, "container 'nosuch' does not exist"),
    (["kill", "nosuch", "NOSIGNAL"], 1, "unknown signal 'NOSIGNAL'"),
    (["kill", "-r", "["], 1, "is no regular expression"),
    (["delete", "nosuch"], 1, "container 'nosuch' does not exist"),
    (["update", "--memory", "lots", "nosuch"], 1, "container 'nosuch' does not exist"),
    (["update", "--cpu-period", "x", "nosuch"], 1, "invalid value 'x' for flag --cpu-period"),
    (["update", "--l3-cache-schema", "L3:0=f", "nosuch"], 1, "container 'nosuch' does not exist"),
    (["events", "--interval", "soon", "nosuch"], 1, "container 'nosuch' does not exist"),
    (["list", "--format", "xml"], 1, "--format 'xml': must be table or json"),
    (["spec", "--bundle", "/nosuch"], 1, "--bundle /nosuch: no such directory"),
    (["features", "please"], 1, '"features" requires exactly 0 argument(s), not 1'),
    (["--log-format", "xml", "list"], 1, "--log-format 'xml': must be text or json"),
    (["--cgroup-manager", "mine", "list"], 1, "--cgroup-manager 'mine': must be cgroupfs, systemd or disabled"),
    (["--rootless", "perhaps", "list"], 1, "--rootless 'perhaps': must be true, false or auto"),
    (["nosuchverb"], 3, "No help topic for 'nosuchverb'"),
]


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with new_bundle() as bundle:
        bundle.spec["process"]["args"] = ["true"]
        yield bundle


def _run(bundle: Bundle, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(RUNTIME), "--root", bundle.root, *words]
    environment = {**os.environ, "BOXSHIP_PLAN_SERVER": ""}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=bundle.path, timeout=20, check=False,
        env=environment,
    )  # fmt: skip


def _one_line(done: "subprocess.CompletedProcess[str]", code: int, message: str) -> None:
    assert done.returncode == code, done
    lines = [line for line in done.stderr.splitlines() if "level=warning" not in line]
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def _nothing_left(bundle: Bundle, id: str) -> None:
    root = Path(bundle.root)
    assert [path.name for path in root.glob("*") if not path.name.startswith(".")] == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/boxship/{id}"))


def changed(spec: "dict[str, Any]", path: str, value: Any) -> "dict[str, Any]":
    """A copy of the spec with the value at a path like ``mounts[1].type``."""
    copy: dict[str, Any] = json.loads(json.dumps(spec))
    parts = path.replace("[", ".[").split(".")
    keys = [int(part[1:-1]) if part.startswith("[") else part for part in parts]
    here: Any = copy
    for key in keys[:-1]:
        here = here[key] if isinstance(key, int) else here.setdefault(key, {})
    if value is REMOVE:
        del here[keys[-1]]
    else:
        here[keys[-1]] = value
    return copy


@pytest.mark.parametrize(("path", "value", "message"), CONFIGS)
def test_a_broken_configuration_is_named(bundle: Bundle, path: str, value: Any, message: str) -> None:
    text = json.dumps(changed(bundle.spec, path, value))
    (bundle.path / "config.json").write_text(text)
    id = f"bad-{os.getpid()}"
    _one_line(_run(bundle, "run", id), 1, message)
    _nothing_left(bundle, id)


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_what_is_no_configuration_at_all_is_named(bundle: Bundle, text: str, message: str) -> None:
    (bundle.path / "config.json").write_bytes(text.encode("latin-1"))
    id = f"bad-{os.getpid()}"
    _one_line(_run(bundle, "run", id), 1, message)
    _nothing_left(bundle, id)


@pytest.mark.parametrize(("words", "code", "message"), COMMANDS)
def test_a_wrong_command_line_is_named(bundle: Bundle, words: "list[str]", code: int, message: str) -> None:
    (bundle.path / "config.json").write_text(json.dumps(bundle.spec))
    _one_line(_run(bundle, *words), code, message)
    _nothing_left(bundle, "x")


def test_unknown_properties_and_nulls_are_ignored(bundle: Bundle) -> None:
    spec = {**bundle.spec, "nosuch": {"a": [1]}, "hooks": None, "vm": 3}
    spec["process"] = {**spec["process"], "rlimits": None, "later": "x"}
    (bundle.path / "config.json").write_text(json.dumps(spec))
    done = _run(bundle, "run", f"good-{os.getpid()}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("purpose", "place"),
    [
        ("set sysctl net.core.somaxconn", "linux.sysctl.net.core.somaxconn"),
        ("run createRuntime hook #2: /bin/x", "hooks.createRuntime[2]"),
        ("join the network namespace /x", "linux.namespaces[1].path"),
        ("mount tmpfs on /b", "mounts[1]"),
        ("bind /src on /a", "mounts[0]"),
        ("open /src, to be bind-mounted on /a", "mounts[0]"),
        ("set up the network device eth1", "linux.netDevices.eth1"),
        ("wait for start", ""),
        ("mount tmpfs on /elsewhere", ""),
    ],
)
def test_a_step_that_the_kernel_refuses_names_its_place(purpose: str, place: str) -> None:
    from boxship.libcontainer.places import json_path

    namespaces = [{"type": "pid"}, {"type": "network", "path": "/x"}]
    spec = {"linux": {"namespaces": namespaces}, "mounts": [{"destination": "/a"}, {"destination": "/b"}]}
    assert json_path(purpose, spec) == place

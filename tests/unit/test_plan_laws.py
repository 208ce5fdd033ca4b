"""Compiled plans keep the laws, and a plan that breaks one is caught."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxship.errors import InvalidArgument
from boxship.libcontainer.defaults import default
from boxship.libcontainer.plan.check import check
from boxship.libcontainer.plan.ops import (
    CWD,
    CapSet,
    Clone,
    Exec,
    FchDir,
    FindProgram,
    Mkdir,
    Open,
    OpenTree,
    PivotRoot,
    Prctl,
    Seccomp,
    SetIds,
)
from boxship.linux.abi.process import CAPABILITIES

from .plan_fixture import exec_plan_of, fixed_host, plan_of

BEGIN, FIND, END = Prctl(4, 0), FindProgram(["/bin/true"]), Exec(["true"], [])

IDS = {"containerID": 0, "hostID": 100000, "size": 65536}

BROKEN = {
    "a plan ends with Exec": [BEGIN, FIND],
    "begins by making its process untraceable": [FIND, END],
    "by a process that can be traced": [Prctl(4, 1), Mkdir(CWD, "/x"), FIND, END],
    "nothing comes after exec": [BEGIN, FIND, END, END],
    "happens once": [BEGIN, Clone(0), Clone(0), FIND, END],
    "before capabilities are dropped": [BEGIN, CapSet(0, 0, 0), Mkdir(CWD, "/x"), FIND, END],
    "the filter is loaded last": [BEGIN, FIND, Seccomp(0, b""), Prctl(38, 1), END],
    "the program is looked for before": [BEGIN, END],
    "by the user who runs it": [BEGIN, FIND, SetIds(1, 1), END],
    "slot 3 is empty": [BEGIN, FchDir(3), FIND, END],
    "a lookup inside the root resolves within it": [
        BEGIN, OpenTree(1, CWD, "/r", 1), Open(2, 1, "etc", 0), PivotRoot(".", "."), FIND, END,
    ],
    "slot 1 is the host's": [BEGIN, Open(1, CWD, "/etc", 0), PivotRoot(".", "."), FchDir(1), FIND, END],
}  # fmt: skip


@pytest.mark.parametrize("law", BROKEN)
def test_a_plan_that_breaks_a_law_is_named(law: str) -> None:
    with pytest.raises(InvalidArgument, match=law):
        check(BROKEN[law])


mounts = st.sampled_from(
    [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]},
        {"destination": "/data/a/../b", "type": "bind", "source": "/data", "options": ["rbind", "ro", "rslave"]},
        {"destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["bind"]},
        {"destination": "/deep/er/still", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/inner", "type": "bind", "source": "/bundle/rootfs/deep", "options": ["rbind"]},
        {
            "destination": "/mapped",
            "type": "bind",
            "source": "/bundle/rootfs/deep",
            "options": ["rbind", "ridmap"],
            "uidMappings": [IDS],
            "gidMappings": [IDS],
        },
    ]
)
specs = st.fixed_dictionaries(
    {
        "uid": st.integers(0, 70000),
        "capabilities": st.one_of(st.none(), st.lists(st.sampled_from(sorted(CAPABILITIES)), max_size=6)),
        "no_new_privileges": st.booleans(),
        "seccomp": st.booleans(),
        "terminal": st.booleans(),
        "user": st.booleans(),
        "mounts": st.lists(mounts, max_size=4),
        "mode": st.sampled_from(["v1", "v2"]),
        "drop": st.sets(st.sampled_from(["network", "ipc", "cgroup", "pid"])),
        "hooks": st.booleans(),
        "preserve": st.integers(0, 3),
        "overlay": st.booleans(),
    }
)


@settings(max_examples=150, deadline=None)
@given(specs)
def test_compiled_plans_keep_the_laws(choice: "dict[str, object]") -> None:
    spec = default()
    spec["mounts"] = [*spec["mounts"], *copy.deepcopy(choice["mounts"])]  # type: ignore[misc]
    process, linux = spec["process"], spec["linux"]
    process["user"] = {"uid": choice["uid"], "gid": choice["uid"], "additionalGids": [5]}
    process["noNewPrivileges"] = choice["no_new_privileges"]
    names = choice["capabilities"]
    process["capabilities"] = None if names is None else dict.fromkeys(("bounding", "permitted", "effective"), names)
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] not in choice["drop"]]  # type: ignore[operator]
    if choice["user"]:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [IDS]
    if choice["seccomp"]:
        linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}  # fmt: skip
    if choice["hooks"]:
        hook = [{"path": "/bin/true"}]
        spec["hooks"] = {"prestart": hook, "createContainer": hook, "startContainer": hook}
    preserve = choice["preserve"]
    assert isinstance(preserve, int)
    overlay = [("overlay", "overlay", ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"])]
    plan = plan_of(
        spec,
        host=fixed_host(str(choice["mode"])),
        terminal=choice["terminal"],
        preserve_fds=preserve,
        rootfs_mounts=overlay if choice["overlay"] else (),
    )
    check(plan.ops, given=range(1 + preserve))
    assert plan.purposes[0][0] == 0


def test_the_plan_of_an_exec_keeps_the_laws() -> None:
    plan = exec_plan_of({"args": ["sh"], "cwd": "/", "user": {"uid": 5, "gid": 5}}, terminal=True)
    check(plan.ops, given=range(6))


def test_the_plan_of_a_user_who_is_not_root_keeps_the_laws() -> None:
    plan = plan_of(default(rootless=True), host=fixed_host(user=1000, capabilities=0), tasks=0)
    check(plan.ops, given=[0])
    clone = next(step for step, op in enumerate(plan.ops) if isinstance(op, Clone))
    assert not any(isinstance(op, OpenTree) for op in plan.ops[:clone])  # only the new namespace allows mounts

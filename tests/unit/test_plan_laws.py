"""Compiled plans keep the laws, and a plan that breaks one is caught."""

from typing import Any

import pytest
from hypothesis import given, settings

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

from .plan_fixture import choices, chosen, exec_plan_of, fixed_host, plan_of

BEGIN, FIND, END = Prctl(4, 0), FindProgram(["/bin/true"]), Exec(["true"], [])

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


@settings(max_examples=150, deadline=None)
@given(choices)
def test_compiled_plans_keep_the_laws(choice: "dict[str, Any]") -> None:
    spec, request = chosen(choice)
    plan = plan_of(spec, host=fixed_host(choice["mode"]), **request)
    check(plan.ops, given=range(1 + choice["preserve"]))
    assert plan.purposes[0][0] == 0


def test_the_plan_of_an_exec_keeps_the_laws() -> None:
    plan = exec_plan_of({"args": ["sh"], "cwd": "/", "user": {"uid": 5, "gid": 5}}, terminal=True)
    check(plan.ops, given=range(6))


def test_the_plan_of_a_user_who_is_not_root_keeps_the_laws() -> None:
    plan = plan_of(default(rootless=True), host=fixed_host(user=1000, capabilities=0), tasks=0)
    check(plan.ops, given=[0])
    clone = next(step for step, op in enumerate(plan.ops) if isinstance(op, Clone))
    assert not any(isinstance(op, OpenTree) for op in plan.ops[:clone])  # only the new namespace allows mounts

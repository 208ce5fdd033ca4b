"""A plan of which a part is taken over from an earlier one is the plan that would have been compiled."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings

from boxship.libcontainer.compile import Plan, Request, again, compile_spec, soonest
from boxship.libcontainer.defaults import default
from boxship.libcontainer.host import Host
from boxship.libcontainer.plan import codec

from .plan_fixture import V1, choices, chosen, fixed_host


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    again._kept.clear()


def compiled(spec: "dict[str, Any]", host: Host, id: str, *, recall: bool = True, **request: Any) -> Plan:
    made = Request(
        spec,
        **{
            "id": id,
            "bundle": "/bundle",
            "rootfs": "/bundle/rootfs",
            "home": f"/home/{id}",
            "tasks": len(V1) if host.cgroups.mode == "v1" else 0,
            "cgroup": "" if host.cgroups.mode == "v1" else f"/sys/fs/cgroup/{id}",
            "cgroup_paths": {name: f"{directory}/{id}" for name, directory in host.cgroups.v1.items()},
            **request,
        },
    )
    return compile_spec(made, host, again=recall)


def other_program(spec: "dict[str, Any]", name: str) -> "dict[str, Any]":
    spec = copy.deepcopy(spec)
    spec["process"]["args"] = [name, "-x"]
    spec["process"]["env"] = [f"PATH=/{name}/bin:/bin", f"WHO={name}"]
    return spec


def assert_equal(one: Plan, other: Plan) -> None:
    assert [(index, repr(op)) for index, op in enumerate(one.ops)] == [
        (i, repr(op)) for i, op in enumerate(other.ops)
    ]
    assert one.purposes == other.purposes
    assert one.notes == other.notes
    assert one.nodes_first == other.nodes_first
    assert one.mapped_sources.keys() == other.mapped_sources.keys()


def taken_over(plan: Plan) -> bool:
    return bool(plan.encoded)


@settings(max_examples=150, deadline=None)
@given(choices)
def test_it_is_what_would_have_been_compiled(choice: "dict[str, Any]") -> None:
    again._kept.clear()
    spec, request = chosen(choice)
    host = fixed_host(choice["mode"])
    for name in ("first", "second"):
        assert not taken_over(compiled(other_program(spec, name), host, name, **request))
    third = compiled(other_program(spec, "third"), host, "third", **request)
    # With hooks a plan is compiled each time; a user namespace has each source looked at.
    assert taken_over(third) is not choice["hooks"] or (choice["user"] and choice["mounts"])
    assert_equal(third, compiled(other_program(spec, "third"), host, "third", recall=False, **request))


@settings(max_examples=50, deadline=None)
@given(choices)
def test_every_plan_begins_with_what_the_executor_sets_out_with(choice: "dict[str, Any]") -> None:
    spec, request = chosen(choice)
    host = fixed_host(choice["mode"])
    plan = compiled(spec, host, "c1", **request)
    begin = soonest(spec, host)
    assert begin.ops == plan.ops[: len(begin.ops)]
    assert begin.purposes == plan.purposes[: len(begin.purposes)]
    assert begin.ops


CHANGES: "dict[str, Any]" = {
    "the user": lambda spec: spec["process"]["user"].update(uid=7),
    "true where 1 was": lambda spec: spec["process"].update(noNewPrivileges=1),
    "the working directory": lambda spec: spec["process"].update(cwd="/srv"),
    "a mount's option": lambda spec: spec["mounts"][1]["options"].append("noexec"),
    "the host name": lambda spec: spec.update(hostname="other"),
    "a masked path": lambda spec: spec["linux"]["maskedPaths"].append("/srv"),
    "an annotation": lambda spec: spec.update(annotations={"run.oci.keep_original_groups": "1"}),
    "the root": lambda spec: spec["root"].update(readonly=not spec["root"].get("readonly")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_configuration_is_compiled(what: str) -> None:
    spec, host = default(), fixed_host()
    for name in ("a", "b", "c"):
        last = compiled(spec, host, name)
    assert taken_over(last)
    CHANGES[what](spec)  # in place: what is kept must not be the caller's
    changed = compiled(spec, host, "d")
    assert not taken_over(changed)
    assert_equal(changed, compiled(spec, host, "d", recall=False))


@pytest.mark.parametrize(
    "request_",
    [
        {"rootfs": "/other"},
        {"tasks": 2},
        {"terminal": True},
        {"no_pivot": True},
        {"stdio_owners": (1,)},
        {"bundle": "/x"},
    ],
)
def test_another_request_is_compiled(request_: "dict[str, Any]") -> None:
    spec, host = default(), fixed_host()
    for name in ("a", "b"):
        compiled(spec, host, name)
    assert taken_over(compiled(spec, host, "c"))
    assert not taken_over(compiled(spec, host, "c", **request_))


def test_another_host_is_another_plan() -> None:
    spec = default()
    for name in ("a", "b"):
        compiled(spec, fixed_host(), name)
    assert not taken_over(compiled(spec, fixed_host(user=1000, capabilities=0), "c", tasks=0))
    assert not taken_over(compiled(spec, fixed_host(), "c"))


def test_a_source_that_has_become_something_else_is_seen() -> None:
    class Changing(type(fixed_host())):  # type: ignore[misc]
        kind = "file"

        def path_kind(self, path: str, *, follow: bool = True) -> str:
            return self.kind if path == "/src" else super().path_kind(path, follow=follow)  # type: ignore[no-any-return]

    plain = fixed_host()
    host = Changing(
        kernel=plain.kernel,
        last_capability=40,
        capabilities=plain.capabilities,
        user=0,
        cgroups=plain.cgroups,
        limits={},
        modules=(False, False),
    )
    spec = default()
    spec["mounts"].append({"destination": "/dst", "type": "bind", "source": "/src", "options": ["bind"]})
    for name in ("a", "b", "c"):
        last = compiled(spec, host, name)
    assert taken_over(last)
    host.kind = "directory"
    changed = compiled(spec, host, "d")
    assert not taken_over(changed)
    assert_equal(changed, compiled(spec, host, "d", recall=False))


def test_what_the_host_may_answer_otherwise_next_time_is_not_kept() -> None:
    spec = default()
    spec["annotations"] = {"run.oci.keep_original_groups": "1"}
    host = fixed_host()
    assert not any(taken_over(compiled(spec, host, name)) for name in "abcd")


def test_not_more_than_some_are_kept() -> None:
    host = fixed_host()
    for number in range(3 * again.MOST):
        spec = {**default(), "hostname": f"h{number}"}
        for name in ("a", "b", "c"):
            last = compiled(spec, host, name)
        assert taken_over(last)
    assert len(again._kept) == again.MOST


def test_a_spec_that_is_no_plain_data_is_compiled_each_time() -> None:
    class Mine(dict[str, Any]):
        pass

    spec = {**default(), "annotations": Mine(a="b")}
    assert not any(taken_over(compiled(spec, fixed_host(), name)) for name in "abcd")


def test_what_is_taken_over_is_not_encoded_again() -> None:
    spec, host = default(), fixed_host()
    for name in ("a", "b", "c"):
        plan = compiled(spec, host, name)
    segments = codec.segments(plan, 0)
    assert [op for data in segments for op in codec.decode(data)] == plan.ops
    assert all(len(data) % 8 == 0 for data in segments)
    first = plan.encoded[0][0]
    assert [op for data in codec.segments(plan, first) for op in codec.decode(data)] == plan.ops[first:]
    assert codec.segments(plan, first)[0] is plan.encoded[0][2]

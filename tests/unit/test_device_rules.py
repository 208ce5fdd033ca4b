"""Device rules: what the v1 controller holds, the changes written to it, and the v2 program, interpreted here."""

import os
from itertools import product
from struct import unpack_from
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxship.errors import InvalidArgument
from boxship.libcontainer.cgroups import device_filter
from boxship.libcontainer.cgroups.devices import ALL, ANY, MAKE, READ, WRITE, Rules, parse_list, rules, transition
from boxship.libcontainer.resources import for_cgroups

DENY_ALL = {"allow": False, "access": "rwm"}


def allowed(type: str, major: int | None, minor: int | None, access: str = "rwm") -> dict[str, object]:
    return {"allow": True, "type": type, "major": major, "minor": minor, "access": access}


def denied(type: str, major: int | None, minor: int | None, access: str = "rwm") -> dict[str, object]:
    return {**allowed(type, major, minor, access), "allow": False}


def run(program: bytes, type: str, major: int, minor: int, access: int) -> bool:
    """The program's answer: an interpreter of the eBPF instructions that device filters are made of."""
    context = [device_filter.TYPES[type] | device_filter._access(access) << 16, major, minor]
    registers = [0, 0, 0, 0, 0, 0]
    at = 0
    for _ in range(len(program)):
        code, which, offset, value = unpack_from("<BBhI", program, at * 8)
        target, source = which & 15, which >> 4
        at += 1
        match code:
            case 0x61:  # r = *(u32 *)(context + offset)
                assert source == 1
                registers[target] = context[offset // 4]
            case 0xB4:
                registers[target] = value
            case 0xBC:
                registers[target] = registers[source]
            case 0x54:
                registers[target] &= value
            case 0x74:
                registers[target] >>= value
            case 0x56:
                at += offset if registers[target] != value else 0
            case 0x16:
                at += offset if registers[target] == value else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"instruction {code:#x}")
    raise AssertionError("the program does not end")


numbers = st.sampled_from([None, 0, 1, 5, 2**31, 2**32 - 1])
rule = st.fixed_dictionaries(
    {
        "allow": st.booleans(),
        "type": st.sampled_from(["a", "b", "c", "b", "c"]),
        "major": numbers,
        "minor": numbers,
        "access": st.sampled_from(["r", "w", "rw", "rwm", "m"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.lists(rule, max_size=8))
def test_the_program_answers_as_the_rules_say(given_rules: list[dict[str, object]]) -> None:
    try:
        wanted = rules(given_rules)
    except InvalidArgument:
        return  # a hole in a wildcard
    program = device_filter.assemble(wanted)
    for type, major, minor, access in product(
        "bc", (0, 1, 2**31, 7), (0, 5, 2**32 - 1), (READ, WRITE, MAKE, READ | WRITE)
    ):
        assert run(program, type, major, minor, access) == wanted.permits(type, major, minor, access)


def test_a_device_may_be_used_only_as_its_rule_says() -> None:
    program = device_filter.assemble(
        rules([DENY_ALL, allowed("c", 1, 3), allowed("c", 1, 5, "r"), allowed("b", 8, None, "m")])
    )
    assert run(program, "c", 1, 3, READ | WRITE)
    assert run(program, "c", 1, 5, READ)
    assert not run(program, "c", 1, 5, READ | WRITE)
    assert run(program, "b", 8, 77, MAKE)
    assert not run(program, "c", 8, 77, MAKE)
    assert not run(program, "b", 8, 77, READ)


def test_where_all_is_allowed_an_exception_denies_who_wants_any_of_it() -> None:
    program = device_filter.assemble(rules([{"allow": True}, denied("c", 1, 5, "w")]))
    assert run(program, "c", 1, 5, READ)
    assert not run(program, "c", 1, 5, READ | WRITE)
    assert run(program, "b", 8, 0, READ | WRITE)


def test_without_rules_all_is_denied() -> None:
    assert not run(device_filter.assemble(rules([])), "c", 1, 3, READ)


def test_a_default_container_may_use_its_default_devices_and_make_any() -> None:
    wanted = rules(for_cgroups({})["devices"])
    assert not wanted.allow
    for minor in (3, 5, 7, 8, 9):
        assert wanted.permits("c", 1, minor, READ | WRITE)
    assert wanted.permits("c", 136, 12, READ | WRITE)
    assert wanted.permits("b", 259, 3, MAKE)
    assert not wanted.permits("b", 259, 3, READ)
    assert not wanted.permits("c", 10, 200, READ)


HELD = "c 1:3 rwm\nc 136:* rwm\nb *:* m\n"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        # A new group has its parent's rules: mostly "all". What else it denies cannot be read, so it starts over.
        ("a *:* rwm\n", [DENY_ALL, allowed("c", 1, 3)], ["deny a", "allow c 1:3 rwm"]),
        ("a *:* rwm\n", [{"allow": True}], ["allow a"]),
        ("a *:* rwm\n", [{"allow": True}, denied("c", 1, 3, "w")], ["allow a", "deny c 1:3 w"]),
        # Nothing has changed: nothing is written, and no device is away for a moment.
        (HELD, [DENY_ALL, allowed("c", 136, None), allowed("c", 1, 3), allowed("b", None, None, "m")], []),
        (HELD, [allowed("c", 1, 3, "r"), allowed("c", 136, None), allowed("b", None, None, "m")], ["deny c 1:3 wm"]),
        (
            HELD,
            [allowed("c", 1, 3), allowed("b", None, None), allowed("c", 10, 200, "rw")],
            ["deny c 136:* rwm", "allow b *:* rw", "allow c 10:200 rw"],
        ),
        (HELD, [{"allow": True}], ["allow a"]),
        # A later rule takes back what an earlier one has given.
        ("", [allowed("c", 1, 3), denied("c", 1, 3, "w")], ["allow c 1:3 rm"]),
        ("", [allowed("c", 1, 3), denied("c", 1, 3)], []),
        ("", [allowed("c", 1, 3), DENY_ALL, allowed("c", 1, 5)], ["allow c 1:5 rwm"]),
    ],
)
def test_only_what_changes_is_written_to_a_v1_group(before: str, after: Any, lines: list[str]) -> None:
    found = transition(parse_list(before), rules(after))
    assert [f"{'allow' if allow else 'deny'} {line}" for allow, line in found] == lines


@settings(max_examples=100, deadline=None)
@given(st.lists(rule, max_size=6), st.lists(rule, max_size=6))
def test_the_changes_lead_to_the_new_rules(old: list[dict[str, object]], new: list[dict[str, object]]) -> None:
    try:
        before, wanted = rules(old), rules(new)
    except InvalidArgument:
        return
    held = Rules(before.allow)
    held.exceptions = dict(before.exceptions)
    for allow, line in transition(before, wanted):
        if line == "a":
            held.add(allow, "a", ANY, ANY, ALL)
            continue
        ((key, access),) = parse_list(line).exceptions.items()
        # The controller's own way: an exception of the other kind is added, one of the same kind taken back.
        if allow != held.allow:
            held.exceptions[key] = held.exceptions.get(key, 0) | access
        else:
            held.exceptions[key] = held.exceptions.get(key, 0) & ~access
    assert held.allow == wanted.allow
    assert {key: access for key, access in held.exceptions.items() if access} == wanted.exceptions


def test_a_hole_in_a_wildcard_is_refused_because_the_kernel_would_ignore_it() -> None:
    with pytest.raises(
        InvalidArgument, match=r"linux\.resources\.devices\[1\]: cannot punch a hole in .* c 1:\* rwm"
    ):
        rules([allowed("c", 1, None), denied("c", 1, 3)])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, r"devices must be an array"),
        ([5], r"devices\[0\] must be an object"),
        ([{"type": "u"}], r"devices\[0\]\.type must be a, b or c"),
        ([{"type": "c", "major": "1"}], r"devices\[0\]\.major must be a whole number"),
        ([{"type": "c", "minor": -2}], r"devices\[0\]\.minor must be 0 to 4294967295"),
        ([{"type": "c", "access": "x"}], r"devices\[0\]\.access must be made of r, w and m"),
    ],
)
def test_a_rule_that_cannot_be_is_named(value: object, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        rules(value)


@pytest.mark.root
def test_the_kernel_verifies_the_program() -> None:
    from boxship.linux import bpf

    for value in ([], [{"allow": True}, denied("c", 1, 5, "w")], for_cgroups({})["devices"]):
        os.close(bpf.load_device_filter(device_filter.assemble(rules(value))))
    with pytest.raises(OSError, match="Invalid argument"):
        bpf.load_device_filter(b"\0" * 8)

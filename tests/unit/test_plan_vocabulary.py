"""The vocabulary of plans: one declaration, and what is derived from it agrees."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxship.errors import InvalidArgument, PeerError
from boxship.libcontainer.plan import codec, ops
from boxship.libcontainer.plan.explain import CALLS, call
from boxship.libcontainer.plan.header import header
from boxship.libcontainer.plan.ops import OPS, Await, Exec, Kind, Mkdir, Open, Prctl
from boxship.libcontainer.plan.reference import reference

ROOT = Path(__file__).parents[2]
text = st.text("az/=é\n\x7f\U0001f300", max_size=8)
number = st.one_of(st.integers(-200, 200), st.integers(-(1 << 63), (1 << 63) - 1))
WIRE = {
    "Slot": number,
    "Int": number,
    "Flags": number,
    "Text": text,
    "Bytes": st.binary(max_size=8),
    "Texts": st.lists(text, max_size=4),
}


def operation(kind: Kind) -> st.SearchStrategy[ops.Op]:
    tolerate = st.lists(st.integers(1, 133), max_size=2).map(tuple)
    fields = st.tuples(*(WIRE[wire] for wire in kind.WIRE))
    return st.builds(lambda args, tolerated: kind(*args, tolerate=tolerated), fields, tolerate)


operations = [operation(kind) for kind in OPS]
plans = st.lists(st.one_of(operations), max_size=6)


def test_the_committed_header_is_what_the_declaration_gives() -> None:
    assert (ROOT / "native" / "ops.h").read_text() == header()


def test_the_executor_handles_every_operation() -> None:
    source = (ROOT / "native" / "executor.c").read_text()
    names = set(re.findall(r"#define (OP_\w+) ", header()))
    assert len(names) == len(OPS)
    assert names == set(re.findall(r"case (OP_\w+):", source))


def test_every_operation_has_a_system_call_to_explain_it_and_a_docstring() -> None:
    assert set(CALLS) == {kind.NAME for kind in OPS}
    assert all(kind.__doc__ for kind in OPS)


def test_no_operation_has_more_fields_than_a_record_holds() -> None:
    assert all(len(kind.FIELDS) <= ops.MAX_FIELDS for kind in OPS)


@given(plans)
def test_plans_survive_the_wire(plan: "list[ops.Op]") -> None:
    assert codec.decode(codec.encode(plan)) == plan


@given(plans)
def test_every_operation_can_be_explained_whatever_its_fields(plan: "list[ops.Op]") -> None:
    pairs = [op for op in plan if op.NAME != "MakeMount" or len(op.options) % 2 == 0]  # type: ignore[attr-defined]
    assert all(call(op) for op in pairs)


@given(plans, st.data())
def test_damaged_plans_are_refused_and_nothing_else_happens(plan: "list[ops.Op]", data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(plan))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        codec.decode(bytes(encoded))
    except PeerError:
        return


def test_a_plan_of_another_vintage_is_refused() -> None:
    encoded = bytearray(codec.encode([Prctl(4, 0)]))
    encoded[0] ^= 1
    with pytest.raises(PeerError, match="another vocabulary"):
        codec.decode(bytes(encoded))


def test_a_plan_that_was_cut_short_is_refused() -> None:
    encoded = codec.encode([Mkdir(1, "proc")])
    for size in range(len(encoded)):
        with pytest.raises(PeerError):
            codec.decode(encoded[:size])


@pytest.mark.parametrize(
    "op",
    [
        Mkdir(1, "a\0b"),
        Exec(["a\0b"], []),
        Prctl(1 << 64, 0),
        Prctl("4", 0),  # type: ignore[arg-type]
        Mkdir(1, 7),  # type: ignore[arg-type]
    ],
)
def test_what_the_wire_cannot_carry_is_refused_with_its_name(op: ops.Op) -> None:
    with pytest.raises(InvalidArgument, match=op.NAME):
        codec.encode([op])


def test_equal_texts_travel_once() -> None:
    one = len(codec.encode([Mkdir(1, "x" * 100)]))
    two = len(codec.encode([Mkdir(1, "x" * 100), Mkdir(2, "x" * 100)]))
    assert two - one == codec.RECORD.size


def test_fields_are_given_by_position_or_by_name_and_have_defaults() -> None:
    assert Open(1, -100, "/", 0) == Open(into=1, dir=-100, path="/", flags=0, resolve=0, mode=0)
    assert Await("start").listener == -1
    with pytest.raises(TypeError, match="missing path"):
        Open(1, -100)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown"):
        Mkdir(1, "a", colour=3)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        _ = Mkdir(1, "a").colour  # type: ignore[attr-defined]


def test_the_committed_reference_page_is_what_the_declaration_gives() -> None:
    assert (ROOT / "docs" / "reference" / "plan-operations.md").read_text() == reference()

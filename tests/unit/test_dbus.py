"""The D-Bus client: values by their signature, variants as text, addresses, and a conversation with a real daemon."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxship.errors import InvalidArgument, PeerError, Unavailable
from boxship.libcontainer.cgroups import dbus
from tests.fake_systemd import fake_systemd

VALUES = [
    ("y", (255,), b"\xff"),
    ("b", (True,), b"\1\0\0\0"),
    ("yu", (1, 2), b"\1\0\0\0\2\0\0\0"),
    ("s", ("hi",), b"\2\0\0\0hi\0"),
    ("g", ("a{sv}",), b"\5a{sv}\0"),
    ("ay", (b"\1\2",), b"\2\0\0\0\1\2"),
    ("as", (["a", "b"],), b"\x0e\0\0\0\1\0\0\0a\0\0\0\1\0\0\0b\0"),
    ("at", ([1],), b"\x08\0\0\0\0\0\0\0" + (1).to_bytes(8, "little")),  # aligned, the padding does not count
    ("v", (("u", 7),), b"\1u\0\0\7\0\0\0"),
    ("(sb)", (("", False),), b"\0\0\0\0\0\0\0\0\0\0\0\0"),
    ("a{sv}", ({"k": ("d", 1.5)},), None),
    ("a(sv)", ([("PIDs", ("au", [1, 2])), ("DeviceAllow", ("a(ss)", [("/dev/null", "rw")]))],), None),
]


@pytest.mark.parametrize(("signature", "values", "data"), VALUES)
def test_values_and_bytes(signature: str, values: tuple[Any, ...], data: "bytes | None") -> None:
    found = dbus.marshal(signature, values)
    assert data is None or found == data
    assert dbus.unmarshal(signature, found) == values


@pytest.mark.parametrize(("signature", "values", "data"), VALUES)
def test_a_cut_off_body_is_the_peer_s_fault(signature: str, values: tuple[Any, ...], data: "bytes | None") -> None:
    whole = dbus.marshal(signature, values)
    with pytest.raises(PeerError):
        dbus.unmarshal(signature, whole[: len(whole) // 2])


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_broken_messages_raise_nothing_else(data: bytes) -> None:
    try:
        whole = dbus.size(data)
        if whole and len(data) >= whole:
            dbus.decode(data[:whole])
    except PeerError:
        return


def test_a_message_and_its_size() -> None:
    fields = {"path": "/a", "member": "M", "signature": "su"}
    data = dbus.Message(dbus.CALL, 5, fields, ("x", 9)).encode()
    assert [dbus.size(data[:n]) for n in (0, 15, 16, len(data))] == [0, 0, len(data), len(data)]
    found = dbus.decode(data)
    assert (found.kind, found.serial, found.fields, found.body) == (dbus.CALL, 5, fields, ("x", 9))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'inactive'", ("s", "inactive")),
        ('"a \\"b\\""', ("s", 'a "b"')),
        ("true", ("b", True)),
        ("5", ("i", 5)),
        ("-5", ("i", -5)),
        ("uint64 123456789", ("t", 123456789)),
        ("byte 0x10", ("y", 16)),
        ("1.5", ("d", 1.5)),
        ("@as []", ("as", [])),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[byte 1, 2]", ("ay", b"\1\2")),
        ("@at [1, 2]", ("at", [1, 2])),
        ("('a', uint32 3)", ("(su)", ("a", 3))),
        ("objectpath '/a'", ("o", "/a")),
    ],
)
def test_variants_as_text(text: str, value: tuple[str, Any]) -> None:
    assert dbus.parse_variant(text) == value


@pytest.mark.parametrize("text", ["", "'open", "[1", "5 6", "byte 300", "[]", "nonsense", "(1", "@as 5"])
def test_text_that_is_no_variant(text: str) -> None:
    with pytest.raises(InvalidArgument):
        dbus.parse_variant(text)


def test_addresses() -> None:
    text = "tcp:host=x;unix:path=/run/my%20bus,guid=1;unix:abstract=/x"
    assert dbus.addresses(text) == ["/run/my bus", "\0/x"]


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"connect to D-Bus at .*nobody: No such file .*systemd must be running"):
        dbus.Bus([str(tmp_path / "nobody")])


@pytest.mark.peer("dbus-daemon")
def test_a_conversation_with_a_real_daemon(tmp_path: Path) -> None:
    with fake_systemd(tmp_path, []), dbus.Bus([str(tmp_path / "bus")], timeout=10) as bus:
        driver = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        names = bus.call(*driver, "ListNames")[0]
        assert "org.freedesktop.systemd1" in names
        (credentials,) = bus.call(*driver, "GetConnectionCredentials", "s", "org.freedesktop.systemd1")
        assert credentials["ProcessID"][0] == "u"
        with pytest.raises(dbus.CallFailed) as caught:
            bus.call(*driver, "NoSuchMethod")
        assert caught.value.name == "org.freedesktop.DBus.Error.UnknownMethod"

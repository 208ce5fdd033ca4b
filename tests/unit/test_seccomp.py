"""Our seccomp compiler answers as libseccomp does, for every call number and the edges of every argument rule."""

import ctypes
import ctypes.util
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import InvalidArgument
from boxship.libcontainer import seccomp
from boxship.libcontainer.seccomp import assembler, cache, compiler
from boxship.libcontainer.seccomp.docker import docker_default
from boxship.linux.abi.syscalls import ARCHITECTURES, ARM_PRIVATE, X32_BIT, numbers

DEFAULT_CAPABILITIES = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"]
NATIVE = cache.native_architecture()  # libseccomp's filters are for this machine and those that are listed
OPERATOR_NUMBERS = {name: number for number, name in enumerate(compiler.OPERATORS, 1)}


class _ArgCmp(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


@pytest.fixture(scope="module")
def libseccomp() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("the peer library libseccomp is not installed")
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def reference(library: ctypes.CDLL, profile: dict[str, Any]) -> bytes:
    """What libseccomp compiles the profile to, driven the way runc drives it."""

    def action(entry: dict[str, Any], name: str, errno: str) -> int:
        return compiler._action(entry[name], entry.get(errno), "")

    default = action(profile, "defaultAction", "defaultErrnoRet")
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    for name in profile.get("architectures", []):
        token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        library.seccomp_arch_add(context, ctypes.c_uint32(token & 0xFFFFFFFF))
    for entry in profile["syscalls"]:
        answer = action(entry, "action", "errnoRet")
        if answer == default:
            continue
        for name in entry["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                continue
            args = entry.get("args", [])
            array = (_ArgCmp * max(1, len(args)))(
                *(_ArgCmp(a["index"], OPERATOR_NUMBERS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in args)
            )
            library.seccomp_rule_add_array(context, ctypes.c_uint32(answer), number, len(args), array)
    with tempfile.TemporaryFile() as f:
        assert library.seccomp_export_bpf(context, f.fileno()) == 0
        library.seccomp_release(context)
        f.seek(0)
        return f.read()


def known_to(library: ctypes.CDLL, architecture: str) -> dict[str, int]:
    return {
        name: number
        for name, number in numbers(architecture).items()
        if library.seccomp_syscall_resolve_name(name.encode()) != -1
    }


def edges(profile: dict[str, Any], name: str) -> list[tuple[int, ...]]:
    """Argument lists around every value that the rules of a call compare with."""
    values = {0, 1, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1}
    indices = {0}
    for entry in profile["syscalls"]:
        if name in entry["names"]:
            for arg in entry.get("args", []):
                indices.add(arg["index"])
                for value in (arg["value"], arg.get("valueTwo", 0)):
                    values |= {value, value - 1 & (1 << 64) - 1, value + 1 & (1 << 64) - 1, value ^ 1 << 32}
    lists = [tuple(value if i == index else 0 for i in range(6)) for index in indices for value in values]
    chooser = random.Random(name)
    ordered = sorted(values)
    lists += [tuple(chooser.choice(ordered) for _ in range(6)) for _ in range(10)]
    return lists


def assert_equal_answers(library: ctypes.CDLL, profile: dict[str, Any]) -> None:
    ours, theirs = compiler.assemble(profile).program, reference(library, profile)
    with_args = {name for entry in profile["syscalls"] if entry.get("args") for name in entry["names"]}
    for architecture in [NATIVE, *profile.get("architectures", [])]:
        audit, base = ARCHITECTURES[architecture][0], X32_BIT if architecture == "SCMP_ARCH_X32" else 0
        table = known_to(library, architecture)
        named = [table[name] for entry in profile["syscalls"] for name in entry["names"] if name in table]
        newest = max((number for number in named if number < ARM_PRIVATE), default=-1)
        for name, number in table.items():
            if newest < number < ARM_PRIVATE:
                continue  # those get ENOSYS from us and from runc, see below
            # libseccomp looks at 32 bits of an x32 argument, we at all 64, which refuses more.
            wide = architecture in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
            for args in edges(profile, name) if name in with_args else [(0,) * 6]:
                if not wide:
                    args = tuple(value & 0xFFFFFFFF for value in args)
                wanted = assembler.run(theirs, base + number, audit, args)
                assert assembler.run(ours, base + number, audit, args) == wanted, (architecture, name, args)


@pytest.mark.parametrize("capabilities", [DEFAULT_CAPABILITIES, ["CAP_SYS_ADMIN", "CAP_SYS_TIME"], []])
def test_dockers_policy_answers_as_libseccomp(libseccomp: ctypes.CDLL, capabilities: list[str]) -> None:
    assert_equal_answers(libseccomp, docker_default(capabilities, os.uname().machine))


def test_calls_of_32_bit_arm_answer_as_libseccomp(libseccomp: ctypes.CDLL) -> None:
    profile = docker_default(DEFAULT_CAPABILITIES, "aarch64")
    ours = compiler.assemble(profile, "SCMP_ARCH_AARCH64").program
    theirs = reference(libseccomp, profile)
    audit = ARCHITECTURES["SCMP_ARCH_ARM"][0]
    table = known_to(libseccomp, "SCMP_ARCH_ARM")
    allowed = {name for entry in profile["syscalls"] for name in entry["names"]}
    newest = max(number for name, number in numbers("SCMP_ARCH_ARM").items() if name in allowed and number < 0xF0000)
    with_args = {name for entry in profile["syscalls"] if entry.get("args") for name in entry["names"]}
    for name, number in table.items():
        if name not in with_args and (number <= newest or number >= 0xF0000):
            assert assembler.run(ours, number, audit) == assembler.run(theirs, number, audit), name
    for number in (newest + 1, 600, 0xEFFFF):
        assert assembler.run(ours, number, audit) == 0x50000 | 38  # newer than the profile: ENOSYS
    assert assembler.run(ours, 0xF0000, audit) == assembler.run(ours, 0xF0009, audit) == 0x50001
    assert assembler.run(ours, 0xF0002, audit) == 0x7FFF0000  # cacheflush


@pytest.mark.parametrize("operator", compiler.OPERATORS)
@pytest.mark.parametrize("value", [0, 7, 0xFFFFFFFF, 1 << 32, 0x1234567890ABCDEF])
def test_each_operator_answers_as_libseccomp(libseccomp: ctypes.CDLL, operator: str, value: int) -> None:
    arg = {"index": 1, "value": value, "valueTwo": value & 0xF00000003, "op": operator}
    second = {"index": 3, "value": 5, "op": "SCMP_CMP_NE"}
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [arg]},
            {"names": ["write", "openat"], "action": "SCMP_ACT_TRAP", "args": [arg, second]},
            {"names": ["close"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    }
    assert_equal_answers(libseccomp, profile)


def test_conditions_on_one_argument_are_alternatives_as_runc_has_them() -> None:
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    rule = {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}
    program = compiler.assemble({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, "SCMP_ARCH_X86_64").program
    nr, audit = numbers("SCMP_ARCH_X86_64")["personality"], ARCHITECTURES["SCMP_ARCH_X86_64"][0]
    allow = compiler.ACTIONS["SCMP_ACT_ALLOW"]
    assert [assembler.run(program, nr, audit, (v,)) == allow for v in (0, 1, 2, 3)] == [False, True, True, False]


def test_calls_newer_than_the_profile_get_enosys() -> None:
    rule = {"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}
    program = compiler.assemble({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, "SCMP_ARCH_X86_64").program
    audit = ARCHITECTURES["SCMP_ARCH_X86_64"][0]
    errno = compiler.ACTIONS["SCMP_ACT_ERRNO"]
    newest = numbers("SCMP_ARCH_X86_64")["openat2"]
    assert assembler.run(program, newest - 1, audit) == errno | 1
    assert assembler.run(program, newest + 1, audit) == errno | compiler.ENOSYS


def test_calls_of_an_architecture_that_is_not_listed_end_the_process() -> None:
    program = compiler.assemble({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, "SCMP_ARCH_X86_64").program
    assert assembler.run(program, 1, ARCHITECTURES["SCMP_ARCH_X86"][0]) == 0
    assert assembler.run(program, X32_BIT + 1, ARCHITECTURES["SCMP_ARCH_X86_64"][0]) == 0


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({}, r"defaultAction: unknown action None"),
        ({"defaultAction": "ALLOW"}, r"unknown action 'ALLOW'"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000}, r"errnoRet must be 0 to 65535"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, r"goes with ERRNO and TRACE"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, r"syscalls must be an array"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}, r"syscalls\[0\]\.names"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}, r"unknown 'x86'"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["TSYNC"]}, r"unknown flag 'TSYNC'"),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 9, "op": "x"}]}],
            },
            r"syscalls\[0\]\.args\[0\]\.index",
        ),
    ],
)
def test_what_is_wrong_in_a_profile_is_named_by_its_path(profile: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        compiler.assemble(profile)


def test_handing_calls_over_asks_for_a_listener_and_nothing_else_does() -> None:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [rule], "flags": flags}
    assert compiler.assemble(profile).flags == compiler.NEW_LISTENER | 32
    assert compiler.assemble({**profile, "syscalls": []}).flags == 0
    with pytest.raises(InvalidArgument, match="SCMP_ACT_NOTIFY needs"):
        compiler.assemble({**profile, "listenerPath": ""})


def test_names_can_be_checked() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    compiler.check_names(profile)
    profile["syscalls"].append({"names": ["read", "mkdirr"], "action": "SCMP_ACT_LOG"})  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgument, match="'mkdirr' is no system call"):
        compiler.check_names(profile)


def test_a_compiled_profile_is_found_again_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = docker_default(DEFAULT_CAPABILITIES, "x86_64")
    directory = str(tmp_path / "cache")
    monkeypatch.setattr(cache, "_compiled", {})
    first = seccomp.compile(profile, directory)
    monkeypatch.setattr(cache, "_compiled", {})
    monkeypatch.setattr(compiler, "assemble", None)
    assert seccomp.compile(profile, directory).program == first.program


def test_a_cache_that_others_can_write_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    directory.chmod(0o777)
    monkeypatch.setattr(cache, "_compiled", {})
    seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"}, str(directory))
    assert os.listdir(directory) == []

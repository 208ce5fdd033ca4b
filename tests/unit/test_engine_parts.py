"""The engine's small languages and views: parsing, filters, specs, streams, logs, events."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from boxship.api.engine.words import duration
from boxship.engine import clock, detach, events, filters, inspect, logs, names, parse, spec, stdio
from boxship.engine.config import EngineConfig
from boxship.engine.models import ContainerConfig, HostConfig, MountPoint, Record, RestartPolicy, State
from boxship.engine.routes.images import changes
from boxship.errors import FailedPrecondition, InvalidArgument

HOST = spec.HostFacts("x86_64", (6, 1), False, 4, 1 << 33, frozenset(spec.ALL_CAPABILITIES))


def record(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **more: Any) -> Record:
    return Record(
        Id="a" * 64, Name="web", Created="2026-01-02T03:04:05Z", Image="sha256:" + "b" * 64, ImageName="busybox",
        Config=ContainerConfig(Hostname="ship", **(config or {})), HostConfig=HostConfig(**(host or {})),
        Path="sh", Args=["-c", "echo hi"], **more,
    )  # fmt: skip


# -- parsing


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/a:/b", ("/a", "/b", [])),
        ("name:/b:ro", ("name", "/b", ["ro"])),
        ("/a:/b:ro,rshared", ("/a", "/b", ["ro", "rshared"])),
    ],
)
def test_binds(text: str, parts: tuple[str, str, list[str]]) -> None:
    assert parse.bind(text) == parts


@pytest.mark.parametrize("text", ["", "/a", ":/b", "/a:", "/a:b", "/a:/b:wo", "/a:/b:ro:x", "/a:/", "/a://"])
def test_broken_binds_name_themselves(text: str) -> None:
    with pytest.raises(InvalidArgument, match="volume specification"):
        parse.bind(text)


@pytest.mark.parametrize(("text", "number"), [("KILL", 9), ("SIGTERM", 15), ("int", 2), ("9", 9), ("RTMIN+1", 35)])
def test_signals(text: str, number: int) -> None:
    assert parse.signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOSUCH", "-9"])
def test_broken_signals(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid signal"):
        parse.signal_number(text)


def test_ports_and_ranges() -> None:
    assert parse.port("53/udp") == (53, "udp")
    assert parse.port("80") == (80, "tcp")
    assert parse.port_range("8000-8003") == (8000, 8003)
    assert parse.port_range("") == (0, 0)
    for text in ("0", "65536", "x", "80/xyz"):
        with pytest.raises(InvalidArgument):
            parse.port(text)
    with pytest.raises(InvalidArgument):
        parse.port_range("9-8")


def test_times_go_there_and_back() -> None:
    ns = 1_795_486_853_123_456_789
    assert clock.rfc3339(ns) == "2026-11-24T02:20:53.123456789Z"
    assert clock.parse_rfc3339(clock.rfc3339(ns)) == ns
    assert clock.parse_rfc3339("2026-11-24T03:20:53.5+01:00") == 1_795_486_853_500_000_000
    assert clock.parse_rfc3339(clock.ZERO) == 0
    assert clock.query_time("1795486853.25", "since") == 1_795_486_853_250_000_000


def test_names_are_docker_names_and_ids_are_no_numbers() -> None:
    taken = {names.new_name(lambda name: True) for _ in range(50)}
    assert all("_" in name for name in taken)
    assert names.new_name(lambda name: False) != ""
    assert not names.new_id()[:12].isdigit()


def test_changes_of_import_become_a_config() -> None:
    config = changes(
        ['CMD ["a", "b"]', "ENTRYPOINT echo hi", "ENV A=1 B=2", "ENV C three", "EXPOSE 80 53/udp", "LABEL x=y",
         "USER me", "WORKDIR /w", 'VOLUME ["/v"]']
    )  # fmt: skip
    assert config == {
        "Cmd": ["a", "b"],
        "Entrypoint": ["/bin/sh", "-c", "echo hi"],
        "Env": ["A=1", "B=2", "C=three"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"x": "y"},
        "User": "me",
        "WorkingDir": "/w",
        "Volumes": {"/v": {}},
    }
    with pytest.raises(InvalidArgument, match="run is not a valid change"):
        changes(["RUN true"])


# -- the OCI configuration


def test_a_default_container_has_dockers_defaults() -> None:
    document = spec.build(record(), HOST, spec.Surroundings())
    assert [n["type"] for n in document["linux"]["namespaces"]] == ["mount", "network", "uts", "pid", "ipc"]
    assert document["process"]["args"] == ["sh", "-c", "echo hi"]
    assert document["process"]["capabilities"]["effective"] == list(spec.DEFAULT_CAPABILITIES)
    assert document["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert "/proc/kcore" in document["linux"]["maskedPaths"]
    assert document["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert document["linux"]["cgroupsPath"] == "/boxship/" + "a" * 64
    assert document["hostname"] == "ship"


def test_cgroups_are_private_where_they_can_be() -> None:
    v2 = spec.HostFacts("x86_64", (6, 1), True, 4, 1 << 33, frozenset(spec.ALL_CAPABILITIES))
    kinds = [n["type"] for n in spec.build(record(), v2, spec.Surroundings())["linux"]["namespaces"]]
    assert "cgroup" in kinds


def test_privileged_takes_the_bars_away() -> None:
    document = spec.build(record(host={"Privileged": True}), HOST, spec.Surroundings())
    assert document["process"]["capabilities"]["effective"] == list(spec.ALL_CAPABILITIES)
    assert "seccomp" not in document["linux"]
    assert "maskedPaths" not in document["linux"]
    assert document["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    sys_mount = next(m for m in document["mounts"] if m["destination"] == "/sys")
    assert "ro" not in sys_mount["options"]


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["net_admin"], [], [*spec.DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"]),
        ([], ["ALL"], []),
        (["KILL"], ["all"], ["CAP_KILL"]),
        ([], ["CAP_CHOWN"], [c for c in spec.DEFAULT_CAPABILITIES if c != "CAP_CHOWN"]),
        (["ALL"], ["MKNOD"], [c for c in spec.ALL_CAPABILITIES if c != "CAP_MKNOD"]),
    ],
)
def test_capabilities_are_added_and_dropped(add: list[str], drop: list[str], expected: list[str]) -> None:
    assert spec.capability_list(record(host={"CapAdd": add, "CapDrop": drop}), HOST) == expected


def test_a_capability_that_the_engine_lacks_is_named() -> None:
    poor = spec.HostFacts("x86_64", (6, 1), False, 4, 1, frozenset(spec.DEFAULT_CAPABILITIES))
    with pytest.raises(FailedPrecondition, match="CAP_SYS_ADMIN"):
        spec.capabilities(record(host={"CapAdd": ["SYS_ADMIN"]}), poor)


def test_mounts_are_sorted_so_that_no_parent_hides_its_child() -> None:
    points = [
        MountPoint("bind", "/x", "/a/b/c", Mode="", RW=True, Propagation="rprivate"),
        MountPoint("volume", "/y", "/a", Mode="z", RW=False, Propagation=""),
    ]
    document = spec.build(record(host={"Tmpfs": {"/a/b": "size=1m"}}), HOST, spec.Surroundings(mounts=points))
    own = [m["destination"] for m in document["mounts"] if m["destination"].startswith("/a")]
    assert own == ["/a", "/a/b", "/a/b/c"]
    assert "ro" in next(m for m in document["mounts"] if m["destination"] == "/a")["options"]


def test_limits_are_translated() -> None:
    asked = {"Memory": 100, "NanoCpus": 1_500_000_000, "PidsLimit": 5, "CpuShares": 512, "CpusetCpus": "0-1"}
    found = spec.resources(record(host=asked), HOST)
    assert found["memory"] == {"limit": 100, "swap": 200}
    assert found["cpu"] == {"period": 100_000, "quota": 150_000, "shares": 512, "cpus": "0-1"}
    assert found["pids"] == {"limit": 5}


def test_environment_has_docker_order_and_overrides() -> None:
    config = {"Env": ["PATH=/mine", "A=1", "HOSTNAME"], "Tty": True}
    assert spec.environment(record(config), "/root") == ["TERM=xterm", "PATH=/mine", "A=1", "HOME=/root"]


# -- views


def test_select_lists_running_ones_unless_asked() -> None:
    running = record(State=State(Status="running", Running=True))
    exited = record(State=State(Status="exited", ExitCode=3, StartedAt="x", FinishedAt="y"), HasBeenStarted=True)
    both = [running, exited]
    assert inspect.select(both, {}, all=False, limit=0) == [running]
    assert inspect.select(both, {}, all=True, limit=0) == both
    assert inspect.select(both, {}, all=False, limit=1) == [running]
    assert inspect.select(both, {"exited": ["3"]}, all=False, limit=0) == [exited]
    assert inspect.select(both, {"status": ["exited"]}, all=False, limit=0) == [exited]
    assert inspect.select(both, {"name": ["we"], "label": ["x"]}, all=True, limit=0) == []
    with pytest.raises(InvalidArgument, match="status=flying"):
        inspect.select(both, {"status": ["flying"]}, all=True, limit=0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3600, "About an hour"), (7200, "2 hours"),
        (86400 * 3, "3 days"), (86400 * 21, "3 weeks"), (86400 * 90, "3 months"), (86400 * 900, "2 years"),
    ],
)  # fmt: skip
def test_durations_in_dockers_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_filters_of_old_and_new_clients() -> None:
    allowed = frozenset({"label"})
    assert filters.parse_filters('{"label":["a","b"]}', allowed) == {"label": ["a", "b"]}
    assert filters.parse_filters('{"label":{"a":true,"b":false}}', allowed) == {"label": ["a"]}
    with pytest.raises(InvalidArgument, match="invalid filter 'x'"):
        filters.parse_filters('{"x":["a"]}', allowed)


def test_a_record_survives_its_file() -> None:
    before = record(host={"RestartPolicy": RestartPolicy("always"), "Binds": ["/a:/b"]})
    assert msgspec.json.decode(msgspec.json.encode(before), type=Record) == before


async def test_events_are_replayed_followed_and_filtered() -> None:
    bus = events.EventBus()
    bus.publish("container", "create", "c1", {"name": "web", "image": "busybox:1", "x": "y"})
    bus.publish("volume", "create", "v1", {"driver": "local"})
    found = []

    async def follow() -> None:
        async for event in bus.follow(1, 0, {"type": ["container"], "image": ["busybox"]}):
            found.append(event["Action"])
            if len(found) == 2:
                return

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.01)
    bus.publish("container", "start", "c1", {"name": "web", "image": "busybox:1"})
    await asyncio.wait_for(task, 1)
    assert found == ["create", "start"]


# -- streams


@pytest.mark.parametrize("step", [1, 2, 100])
def test_detach_keys_are_found_in_any_segmentation(step: int) -> None:
    watcher = detach.DetachWatcher(detach.key_codes(""))
    data = b"ab\x10c\x10\x10\x11after"
    passed = b"".join(watcher.feed(data[i : i + step]) for i in range(0, len(data), step) if not watcher.detached)
    assert passed == b"ab\x10c\x10"
    assert watcher.detached


@pytest.mark.parametrize(
    ("text", "codes"), [("a", b"a"), ("ctrl-a,x", b"\x01x"), ("ctrl-[", b"\x1b"), ("ctrl-@", b"\0")]
)
def test_detach_keys_are_spelled_as_in_docker(text: str, codes: bytes) -> None:
    assert detach.key_codes(text) == codes


@pytest.fixture
def pipes(tmp_path: Path) -> stdio.Stdio:
    made = stdio.Stdio(tmp_path / "fifo", tty=False, stdin=True)
    made.create()
    return made


async def collect(client: stdio.Client) -> list[tuple[int, bytes]]:
    return [part async for part in client]


async def test_every_client_gets_every_byte_and_the_end(pipes: stdio.Stdio) -> None:
    clients = [pipes.attach(frozenset({1, 2})), pipes.attach(frozenset({2}))]
    out, err = (os.open(path, os.O_WRONLY) for path in (pipes.stdout, pipes.stderr))
    tasks = [asyncio.create_task(collect(client)) for client in clients]
    os.write(out, b"to out")
    await asyncio.sleep(0.02)
    os.write(err, b"to err")
    os.close(out)
    os.close(err)
    both, one = await asyncio.wait_for(asyncio.gather(*tasks), 2)
    assert both == [(1, b"to out"), (2, b"to err")]
    assert one == [(2, b"to err")]
    pipes.remove()
    assert not pipes.directory.exists()


async def test_finish_ends_the_clients_of_a_silent_process(pipes: stdio.Stdio) -> None:
    task = asyncio.create_task(collect(pipes.attach(frozenset({1, 2}))))
    await asyncio.sleep(0.01)
    await asyncio.wait_for(pipes.finish(), 2)
    assert await asyncio.wait_for(task, 1) == []


async def test_a_slow_client_stops_the_reading(pipes: stdio.Stdio) -> None:
    client = pipes.attach(frozenset({1}))
    out = os.open(pipes.stdout, os.O_WRONLY | os.O_NONBLOCK)
    written = 0
    for _ in range(400):
        try:
            written += os.write(out, bytes(65536))
        except BlockingIOError:
            await asyncio.sleep(0.002)
    assert client.waiting < stdio.HIGH_WATER + 2 * stdio.CHUNK
    os.close(out)
    total = 0
    async for _, data in client:
        total += len(data)
        if total == written:
            break
    assert total == written
    pipes.remove()


# -- logs


def write_log(path: Path, first: int, count: int) -> None:
    with open(path, "a") as f:
        for n in range(first, first + count):
            stream = "stderr" if n % 3 == 0 else "stdout"
            time = clock.rfc3339(1_700_000_000_000_000_000 + n)
            f.write(f'{{"log":"line {n}\\n","stream":"{stream}","time":"{time}"}}\n')


async def read_log(path: Path, **selection: Any) -> list[str]:
    parts: list[bytes] = []

    async def write(data: bytes) -> None:
        parts.append(data)

    chosen = logs.Selection(streams=frozenset({1, 2}), multiplexed=False, **selection)
    await logs.stream(path, chosen, write, None)
    return b"".join(parts).decode().splitlines()


async def test_a_rotated_log_reads_as_one(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    write_log(tmp_path / "c-json.log.2", 0, 10)
    write_log(tmp_path / "c-json.log.1", 10, 10)
    write_log(path, 20, 5)
    assert await read_log(path) == [f"line {n}" for n in range(25)]
    assert await read_log(path, tail=8) == [f"line {n}" for n in range(17, 25)]
    assert await read_log(path, tail=0) == []
    since = 1_700_000_000_000_000_000 + 22
    assert await read_log(path, since=since) == ["line 22", "line 23", "line 24"]


async def test_tail_counts_only_the_wanted_streams(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    write_log(path, 0, 30)
    parts: list[bytes] = []

    async def write(data: bytes) -> None:
        parts.append(data)

    await logs.stream(path, logs.Selection(frozenset({2}), tail=3, multiplexed=False), write, None)
    assert b"".join(parts) == b"line 21\nline 24\nline 27\n"


async def test_a_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    write_log(path, 0, 2)
    with open(path, "a") as f:
        f.write('{"log":"half')
    assert await read_log(path) == ["line 0", "line 1"]


async def test_following_sees_new_lines_and_rotation_and_the_end(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    write_log(path, 0, 3)
    ended = asyncio.Event()
    parts: list[bytes] = []

    async def write(data: bytes) -> None:
        parts.append(data)

    async def follow() -> None:
        await ended.wait()

    selection = logs.Selection(frozenset({1, 2}), multiplexed=False)
    task = asyncio.create_task(logs.stream(path, selection, write, follow))
    await asyncio.sleep(0.05)
    write_log(path, 3, 2)
    await asyncio.sleep(0.05)
    write_log(path, 5, 1)
    os.rename(path, tmp_path / "c-json.log.1")
    write_log(path, 6, 2)
    await asyncio.sleep(0.05)
    write_log(path, 8, 1)
    ended.set()
    await asyncio.wait_for(task, 5)
    assert b"".join(parts).decode().splitlines() == [f"line {n}" for n in range(9)]


def test_paths_of_an_engine_are_its_own() -> None:
    config = EngineConfig(data_root=Path("/d"), exec_root=Path("/e"))
    assert config.log_path("x") == Path("/d/containers/x/x-json.log")
    assert config.fifo_directory("x", "y") == Path("/e/fifo/x-y")

"""What CRIU is told, and how its answers are read: a scripted criu stands at the other end of the socket."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from boxship.api.criu import CgroupMode, Notify, Options, Request, RequestType, Swrk, version
from boxship.errors import FailedPrecondition, InvalidArgument, NotFound, PeerError
from boxship.libcontainer import making, state
from boxship.libcontainer.cgroups import Layout
from boxship.libcontainer.container import Container
from boxship.libcontainer.criu import Criu, common_options, config_file, external_mounts, inside, log_errors

SCRIPT = """#!{python}
import os, socket, sys
sys.path.insert(0, {source!r})
from boxship.api.criu.messages import *
peer = socket.socket(fileno=3)
assert sys.argv[1:] == ["swrk", "3"]
def receive():
    return Request.decode(peer.recv(65536))
def send(**fields):
    peer.sendall(Response(**fields).encode())
{body}
"""


@pytest.fixture
def scripted(tmp_path: Path) -> Any:
    """Makes a criu that does what ``body`` says; its path."""
    source = str(Path(__file__).parents[2] / "src")

    def make(body: str) -> str:
        path = tmp_path / "criu"
        path.write_text(SCRIPT.format(python=sys.executable, source=source, body=body))
        path.chmod(0o755)
        return str(path)

    return make


def test_the_version_is_asked_for(scripted: Any) -> None:
    body = """
assert receive().type == RequestType.VERSION
send(type=RequestType.VERSION, success=True, version=Version(major_number=4, minor_number=2))
"""
    assert version(scripted(body)) == 40200


def test_notifications_are_answered_and_their_descriptors_handed_on(scripted: Any) -> None:
    body = """
request = receive()
assert request.opts.images_dir_fd == 0 and request.opts.ext_mnt[0].key == "/x", request
read, write = os.pipe()
os.write(write, b"hello")
notify = Response(type=RequestType.NOTIFY, success=True, notify=Notify(script="orphan-pts-master", pid=7))
socket.send_fds(peer, [notify.encode()], [read])
answer = receive()
assert answer.type == RequestType.NOTIFY and answer.notify_success
send(type=RequestType.RESTORE, success=True, restore=Restored(pid=7))
"""
    from boxship.api.criu.messages import ExternalMount

    seen: list[tuple[str | None, bytes]] = []

    def notified(notify: Notify, handles: "list[int]") -> None:
        seen.extend((notify.script, os.read(handle, 10)) for handle in handles)
        for handle in handles:
            os.close(handle)

    # Zero is a descriptor and has to be sent.
    options = Options(images_dir_fd=0, ext_mnt=[ExternalMount(key="/x", val="/y")])
    with Swrk(scripted(body)) as criu:
        answer = criu.ask(Request(type=RequestType.RESTORE, opts=options), notified)
    assert answer.restore is not None
    assert answer.restore.pid == 7
    assert seen == [("orphan-pts-master", b"hello")]


def test_what_criu_refuses_is_said_with_its_words(scripted: Any) -> None:
    body = "receive(); send(type=RequestType.DUMP, success=False, cr_errno=1, cr_errmsg='not today')"
    with pytest.raises(FailedPrecondition, match="type DUMP errno 1: not today"), Swrk(scripted(body)) as criu:
        criu.ask(Request(type=RequestType.DUMP))


def test_a_criu_that_ends_is_a_broken_protocol(scripted: Any) -> None:
    with pytest.raises(PeerError, match="ended without an answer"), Swrk(scripted("receive()")) as criu:
        criu.ask(Request(type=RequestType.DUMP))
    with pytest.raises(NotFound, match="install CRIU"):
        Swrk("/nosuch/criu")


def test_extra_descriptors_follow_the_socket(scripted: Any, tmp_path: Path) -> None:
    body = """
receive()
text = os.read(4, 10) + os.read(0, 10)
send(type=1, success=text == b"extraours", cr_errmsg=repr(text))
"""
    files = [tmp_path / name for name in ("extra", "ours")]
    for file in files:
        file.write_text(file.name)
    extra, stdin = (os.open(file, os.O_RDONLY) for file in files)
    try:
        with Swrk(scripted(body), streams=(stdin, -1, -1), extra=[extra]) as criu:
            criu.ask(Request(type=RequestType.DUMP))
    finally:
        os.close(extra)
        os.close(stdin)


def test_options_are_refused_by_their_flags() -> None:
    with pytest.raises(InvalidArgument, match="--manage-cgroups-mode 'most'"):
        Criu("/images", manage_cgroups_mode="most")
    with pytest.raises(InvalidArgument, match="--parent-path /p: must be relative"):
        Criu("/images", parent="/p")
    with pytest.raises(NotFound, match="--parent-path p: no such directory"):
        Criu("/images", parent="p")


def test_directories_are_made_and_the_mode_is_handed_on(tmp_path: Path) -> None:
    criu = Criu(str(tmp_path / "i"), work=str(tmp_path / "w"), manage_cgroups_mode="ignore", shell_job=True)
    options, opened = common_options(criu, "dump.log")
    try:
        assert options.manage_cgroups_mode == CgroupMode.IGNORE
        assert [os.readlink(f"/proc/self/fd/{fd}") for fd in opened] == [criu.images, criu.work]
        assert (options.images_dir_fd, options.work_dir_fd, options.shell_job) == (*opened, True)
    finally:
        for fd in opened:
            os.close(fd)


def test_an_annotation_names_the_configuration_file() -> None:
    assert config_file({}) == "/etc/criu/runc.conf"
    assert config_file({"org.criu.config": "/x"}) == "/x"
    assert config_file({"org.criu.config": ""}) is None


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    (tmp_path / "real" / "conf").mkdir(parents=True)
    (tmp_path / "conf").symlink_to("/real/conf")
    (tmp_path / "up").symlink_to("../../../../real")
    (tmp_path / "loop").symlink_to("loop")
    root = str(tmp_path)
    assert inside(root, "/conf/new") == "/real/conf/new"
    assert inside(root, "/up/conf") == "/real/conf"
    assert inside(root, "/../nosuch/./x") == "/nosuch/x"
    with pytest.raises(FailedPrecondition, match="too many levels"):
        inside(root, "/loop")


def test_mounts_from_outside_are_the_binds_and_the_hosts_cgroups(tmp_path: Path) -> None:
    layout = Layout("v1", {"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "pids": "/c/pids"}, "", {})
    paths = {"cpu": "/c/cpu,cpuacct/x", "pids": "/c/pids/x"}
    spec: dict[str, Any] = {
        "mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/data", "source": "d", "options": ["rbind"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup"},
        ],
        "linux": {"namespaces": []},
    }
    found = list(external_mounts(spec, "/bundle", str(tmp_path), layout, paths))
    assert found == [
        ("/data", "/bundle/d"),
        ("/sys/fs/cgroup/cpu,cpuacct", "/c/cpu,cpuacct/x"),
        ("/sys/fs/cgroup/pids", "/c/pids/x"),
    ]
    spec["linux"]["namespaces"] = [{"type": "cgroup"}]
    assert list(external_mounts(spec, "/bundle", str(tmp_path), layout, paths)) == [("/data", "/bundle/d")]


def test_the_log_is_read_for_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text("fine\n(0.1) Error (tun.c:1): tun: Unable to create tun\n(0.2) Error (x.c:2): real reason\n")
    assert log_errors(str(tmp_path), "dump.log") == ["(0.2) Error (x.c:2): real reason"]
    assert log_errors(str(tmp_path), "nosuch.log") == []


def test_a_restored_container_is_written_down_as_running(tmp_path: Path) -> None:
    """What follows CRIU's part, where no CRIU works: a process in our own time namespace is restored."""
    (tmp_path / "c").mkdir()
    container = Container(str(tmp_path), {"id": "c", "status": "creating", "cgroups": {}}, None)
    making.restored(container, os.getpid())
    record = state.read(str(tmp_path), "c")
    assert (record["pid"], record["status"], record["own_time"]) == (os.getpid(), "created", False)
    assert container._record["status"] == "running"

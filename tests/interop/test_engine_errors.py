"""Bad input and full disks: one clear message, the right code, nothing half done."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from .engine_fixture import EngineProcess, busybox_rootfs

pytestmark = [pytest.mark.root, pytest.mark.peer("docker", "busybox")]

Entry = tuple[str, bytes, "bytes | str"]


def tar(entries: list[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if isinstance(content, str):
                entry.linkname = content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive(layer: bytes, diff_id: str = "") -> bytes:
    diff_id = diff_id or hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]}}
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["bad:1"], "Layers": ["l/layer.tar"]}]).encode()
    file = tarfile.REGTYPE
    return tar([(name, file, config), ("l/layer.tar", file, layer), ("manifest.json", file, manifest)])


FILE, LINK, SYMLINK = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
HARMLESS = tar([("a", FILE, b"text" * 5000)])
BROKEN = {
    "a wrong digest": (archive(HARMLESS, "0" * 64), "the image config expects sha256:0000"),
    "a path that climbs": (archive(tar([("../../../../tmp/bx-escape", FILE, b"x")])), "leads out of the root"),
    "a symlink that escapes": (
        archive(tar([("l", SYMLINK, "/tmp"), ("l/bx-escape", FILE, b"x")])),
        "'l' is not a directory",
    ),
    "a hard link that escapes": (archive(tar([("h", LINK, "../../etc/passwd")])), "leads out of the root"),
    "an archive cut short": (archive(HARMLESS)[:9000], "cut short"),
    "noise": (os.urandom(5000), "archive"),
    "nothing": (b"", "cut short"),
    "no image": (tar([("readme", FILE, b"hello")]), "not an image archive"),
}


def files(engine: EngineProcess) -> set[str]:
    content = engine.data_root / "containerd" / "content"
    snapshots = engine.data_root / "containerd" / "snapshotter" / "snapshots"
    return {str(path) for path in content.rglob("*") if path.is_file()} | {str(p) for p in snapshots.iterdir()}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_archive_is_refused_and_leaves_nothing(engine: EngineProcess, what: str) -> None:
    data, message = BROKEN[what]
    before = files(engine)
    done = engine.docker("load", input=data, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "bad" not in engine.docker("images", "--format", "{{.Repository}}").stdout.split()
    assert not Path("/tmp/bx-escape").exists()
    from .engine_fixture import wait_until

    wait_until(lambda: files(engine) == before, 10, f"left: {files(engine) - before}")


RUN_ERRORS = {
    "unknown image": (["--pull", "never", "nosuch"], 125, "No such image"),
    "a registry that is not there": (["127.0.0.1:1/nosuch"], 125, "Connection refused"),
    "unknown network": (["--network", "nonet", "busybox", "true"], 125, "network nonet not found"),
    "unknown runtime": (["--runtime", "nort", "busybox", "true"], 125, "unknown or invalid runtime name: nort"),
    "unknown user": (["-u", "nobody-here", "busybox", "true"], 125, "unable to find user nobody-here"),
    "unknown group": (["-u", "0:nogroup-here", "busybox", "true"], 125, "unable to find group nogroup-here"),
    "too little memory": (["-m", "1m", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
    "too many cpus": (["--cpus", "1000", "busybox", "true"], 125, "Range of CPUs is from 0.01 to"),
    "a cpu that is not there": (
        ["--cpuset-cpus", "4000", "busybox", "true"],
        125,
        "Requested CPUs are not available",
    ),
    "a bad volume name": (["-v", "a/b:/c", "busybox", "true"], 125, "includes invalid characters for a local volume"),
    "a relative target": (["-v", "/tmp:c", "busybox", "true"], 125, "mount path must be absolute"),
    "a missing bind source": (
        ["--mount", "type=bind,src=/nosuch,dst=/c", "busybox", "true"],
        125,
        "bind source path does not exist: /nosuch",
    ),
    "an unknown capability": (["--cap-add", "FLY", "busybox", "true"], 125, "invalid capability: "),
    "no AppArmor": (["--security-opt", "apparmor=x", "busybox", "true"], 125, "this host has no AppArmor"),
    "a bad seccomp profile": (["--security-opt", "seccomp=/dev/null", "busybox", "true"], 125, "seccomp profile"),
    "rm with restart": (["--rm", "--restart", "always", "busybox", "true"], 125, "onflict"),
    "a bad name": (["--name", "no/slash", "busybox", "true"], 125, "Invalid container name (no/slash)"),
    "a port that is none": (["-p", "99999:80", "busybox", "true"], 125, "nvalid"),
    "a foreign address": (["-p", "203.0.113.7:80:80", "busybox", "true"], 125, "does not have the address"),
    # 127 is the CLI's reading of "no such file or directory", with dockerd too
    "a missing device": (["--device", "/dev/nosuch", "busybox", "true"], 127, "/dev/nosuch"),
    "links": (["--link", "a:b", "busybox", "true"], 125, "HostConfig.Links is not supported"),
    "a chosen MAC": (["--mac-address", "02:42:00:00:00:09", "busybox", "true"], 125, "ddress"),
    "a block weight": (["--blkio-weight", "100", "busybox", "true"], 125, "BlkioWeight is not supported"),
    "an unknown sysctl": (["--sysctl", "net.nosuch=1", "busybox", "true"], 125, "net.nosuch"),
}


@pytest.mark.parametrize("what", RUN_ERRORS)
def test_a_run_that_cannot_be(engine: EngineProcess, what: str) -> None:
    words, code, message = RUN_ERRORS[what]
    done = engine.docker("run", *words, check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    left = engine.docker("ps", "-aq").stdout.split()
    if left:
        assert engine.docker("ps", "-a", "--format", "{{.State}}").stdout.split() == ["created"]
        engine.docker("rm", *left)
    assert not engine.shims()


def test_names_and_states_in_conflict(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "taken", "busybox", "sleep", "100")
    try:
        again = engine.docker("run", "--name", "taken", "busybox", "true", check=False)
        assert again.returncode == 125
        assert 'The container name "/taken" is already in use' in again.stderr
        refused = engine.docker("rm", "taken", check=False)
        assert refused.returncode == 1
        assert "container is running" in refused.stderr
        image = engine.docker("rmi", "busybox", check=False)
        assert "is using its referenced image" in image.stderr
    finally:
        engine.docker("rm", "-f", "taken")
    for words in (["logs", "gone"], ["start", "gone"], ["exec", "gone", "true"], ["inspect", "gone"]):
        done = engine.docker(*words, check=False)
        assert done.returncode == 1
        assert "No such" in done.stderr or "no such" in done.stderr


def test_exec_errors_have_their_codes(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "target", "busybox", "sleep", "100")
    try:
        assert engine.docker("exec", "target", "nosuch", check=False).returncode == 127
        assert engine.docker("exec", "target", "/etc", check=False).returncode == 126
        assert engine.docker("exec", "-u", "nobody-here", "target", "true", check=False).returncode != 0
        assert engine.docker("exec", "-w", "/nosuch", "target", "true", check=False).returncode != 0
    finally:
        engine.docker("rm", "-f", "target")


def request(engine: EngineProcess, text: bytes) -> tuple[int, str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(engine.socket))
        connection.settimeout(5)
        connection.sendall(text)
        data = b""
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/containers/create", "{bad", 400, "not valid JSON"),
        ("POST", "/containers/create", '{"Image": 5}', 400, "$.Image"),
        ("POST", "/containers/create", '{"Image": "a", "HostConfig": {"Memory": "1g"}}', 400, "HostConfig.Memory"),
        ("POST", "/containers/create", "[]", 400, "Expected `object`"),
        ("POST", "/containers/create", '{"Image": ""}', 400, "Image must be set"),
        ("POST", "/containers/create", '{"Image": "nosuch"}', 404, "No such image: nosuch:latest"),
        ("GET", "/v99.1/info", "", 400, "client version 99.1 is too new"),
        ("GET", "/v1.1/info", "", 400, "client version 1.1 is too old"),
        ("GET", "/nosuch", "", 404, "page not found"),
        ("PUT", "/info", "", 405, "PUT is not a method"),
        ("GET", "/containers/nosuch/json", "", 404, "No such container: nosuch"),
        ("GET", "/containers/json?filters=nonsense", "", 400, "invalid filters"),
        ("GET", "/containers/json?filters=%7B%22bad%22%3A%5B%22x%22%5D%7D", "", 400, "invalid filter 'bad'"),
        ("GET", "/containers/json?limit=many", "", 400, "limit='many'"),
        ("POST", "/containers/nosuch/wait?condition=never", "", 404, "No such container"),
        ("GET", "/images/nosuch/json", "", 404, "No such image: nosuch:latest"),
        ("GET", "/events?since=yesterday", "", 400, "since 'yesterday'"),
        ("DELETE", "/volumes/nosuch", "", 404, "no such volume"),
        ("POST", "/volumes/create", '{"Driver": "nfs"}', 404, 'plugin "nfs" not found'),
        ("POST", "/build", "", 501, "building images is not offered"),
        ("POST", "/networks/create", "{}", 501, "user-defined networks"),
        ("POST", "/containers/nosuch/checkpoints", "{}", 501, "checkpoint and restore"),
        ("GET", "/containers/nosuch/archive?path=/", "", 501, "copying files"),
        ("POST", "/swarm/init", "{}", 501, "swarm mode"),
        ("GET", "/services", "", 503, "This node is not a swarm manager"),
        ("GET", "/plugins/some/thing/json", "", 404, 'plugin "some/thing" not found'),
        ("DELETE", "/nodes/some", "", 501, "swarm mode"),
        ("GET", "/boxship/traces/../../etc/passwd", "", 404, "page not found"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_named(
    engine: EngineProcess, method: str, path: str, body: str, status: int, message: str
) -> None:
    text = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    found, answer = request(engine, text.encode())
    assert found == status, answer
    assert message in json.loads(answer)["message"]


@pytest.mark.parametrize(
    "text", [b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /" + b"a" * 100000]
)
def test_what_is_no_http_is_refused(engine: EngineProcess, text: bytes) -> None:
    status, answer = request(engine, text)
    assert status in (400, 431)
    assert "message" in json.loads(answer)


def test_a_full_disk_while_loading(engine: EngineProcess) -> None:
    """The data root on a tmpfs that is too small: an error that says so, and an engine that goes on."""
    root = Path(tempfile.mkdtemp(prefix="bxf", dir="/tmp"))
    data = root / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(data)], check=True)
    small = EngineProcess(root)
    try:
        small.start()
        layer = tar([("big", FILE, os.urandom(8 << 20))])
        done = small.docker("load", input=archive(layer), check=False)
        assert done.returncode == 1
        assert "no space left" in done.stderr.lower() or "disk is full" in done.stderr or "ENOSPC" in done.stderr
        assert small.docker("images", "-q").stdout == ""
        small.boxship("import", "-", "busybox", input=busybox_rootfs())
        assert small.docker("run", "--rm", "busybox", "echo", "goes on").stdout == "goes on\n"
    finally:
        small.remove_everything()
        subprocess.run(["umount", str(data)], check=False)
        if data.exists():
            data.rmdir()
            root.rmdir()


def test_without_root_it_says_what_to_do(tmp_path: Path) -> None:
    def as_nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)

    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "HOME": "/"}
    python = "/usr/bin/python3"
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True, check=False
    )
    if version.stdout.strip() != "True":
        python = sys.executable
    done = subprocess.run(
        [python, "-m", "boxship.cli", "ps"],
        preexec_fn=as_nobody, capture_output=True, text=True, env=environment, cwd="/", check=False,
    )  # fmt: skip
    if "Permission denied" in done.stderr and "boxship:" not in done.stderr:
        pytest.skip("needs an interpreter and a checkout that other users may read")
    assert done.returncode == 1
    assert "starting one needs root" in done.stderr or "permission denied while trying to connect" in done.stderr
    assert "Traceback" not in done.stderr

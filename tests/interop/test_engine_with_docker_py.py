"""docker-py against our engine."""

from __future__ import annotations

import threading

import docker
import docker.errors
import pytest

from .engine_fixture import EngineProcess

pytestmark = [pytest.mark.root, pytest.mark.peer("busybox")]


@pytest.fixture
def client(engine: EngineProcess) -> docker.DockerClient:
    return docker.DockerClient(base_url=engine.address)


def test_run_gives_output_and_errors(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    assert caught.value.exit_status == 3
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuchimage", "true")
    with pytest.raises(docker.errors.APIError, match="executable file not found"):
        client.containers.run("busybox", "nosuch", remove=True)


def test_a_detached_container(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo a; echo b >&2; sleep 60"], detach=True, name="py")
    try:
        assert b"a\n" in next(container.logs(stream=True))
        assert container.exec_run(["sh", "-c", "echo in; exit 4"]) == (4, b"in\n")
        assert container.exec_run("cat /etc/passwd", demux=True).output[0].startswith(b"root:")
        assert container.top()["Titles"][1] == "PID"
        assert container.stats(stream=False)["memory_stats"]["usage"] > 0
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
        container.reload()
        assert container.status == "exited"
    finally:
        container.remove(force=True)


def test_attach_socket_carries_both_ways(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True)
    try:
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        socket._sock.sendall(b"over a socket\n")
        assert socket._sock.recv(100).endswith(b"over a socket\n")
        socket.close()
    finally:
        container.remove(force=True)


def test_images_and_volumes(client: docker.DockerClient) -> None:
    image = client.images.get("busybox")
    data = b"".join(image.save(named=True))
    assert client.images.load(data)[0].id == image.id
    assert image.tag("py/tagged", "1")
    client.images.remove("py/tagged:1")
    volume = client.volumes.create("pyvolume", labels={"a": "b"})
    assert client.volumes.get("pyvolume").attrs["Labels"] == {"a": "b"}
    volume.remove()


def test_events_are_followed(client: docker.DockerClient) -> None:
    found: list[str] = []
    stream = client.events(decode=True, filters={"type": "container"})

    def follow() -> None:
        for event in stream:
            found.append(event["Action"])
            if event["Action"] == "destroy":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    client.containers.run("busybox", "true", remove=True)
    thread.join(10)
    assert found == ["create", "start", "die", "destroy"] or found[-4:] == ["create", "start", "die", "destroy"]

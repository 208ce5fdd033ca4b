"""containerd's filter language."""

import pytest

from boxship.api.containerd.containers import Container, ContainerRuntime
from boxship.api.containerd.types import Envelope
from boxship.api.task.events import TaskExit
from boxship.containerd.filters import message_lookup, parse
from boxship.errors import InvalidArgument
from boxship.protobuf import Any

CONTAINER = Container(
    id="web",
    image="docker.io/library/busybox:latest",
    labels={"tier": "front", "com.example/a.b": "x y"},
    runtime=ContainerRuntime(name="io.containerd.runc.v2"),
)
NAMES = {"runtime": "runtime.name"}


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ([], True),
        ([""], True),
        (["id==web"], True),
        (["image!=/a/b"], True),
        (["id==db"], False),
        (["id!=db"], True),
        (["id"], True),
        (["snapshotter"], False),
        (["image~=busybox"], True),
        (["image~=^busybox"], False),
        (["image~=/library\\/busy/"], True),
        (["id==web,labels.tier==front"], True),
        (["id==web,labels.tier==back"], False),
        (["id==db", "labels.tier==front"], True),
        (['labels."com.example/a.b"=="x y"'], True),
        (['labels."com.example/a.b"'], True),
        (["labels.absent"], False),
        (["labels.absent!=x"], True),
        (["runtime==io.containerd.runc.v2"], True),
        (["nonsense==1"], False),
    ],
)
def test_a_filter_selects_containers(filters: "list[str]", matches: bool) -> None:
    assert parse(filters)(message_lookup(CONTAINER, NAMES)) is matches


@pytest.mark.parametrize("text", ["==x", "id==", "id=x", "id==x,", "id==x y", "labels.", "id~=[", '"unclosed'])
def test_a_malformed_filter_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        parse([text])


def test_a_filter_looks_into_events() -> None:
    envelope = Envelope(
        namespace="moby", topic="/tasks/exit", event=Any.pack(TaskExit(container_id="web", exit_status=3))
    )
    look = message_lookup(envelope)
    assert parse(["namespace==moby,topic~=|^/tasks/|"])(look)
    assert parse(["event.container_id==web,event.exit_status==3"])(look)
    assert not parse(["event.container_id==db"])(look)

"""containerd's services, called in-process and over gRPC by the same client: one contract, two bindings."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from boxship import tracing
from boxship.api.containerd import Client, lease, namespace
from boxship.api.containerd import containers as containers_api
from boxship.api.containerd import content as content_api
from boxship.api.containerd import diff as diff_api
from boxship.api.containerd import events as events_api
from boxship.api.containerd import images as images_api
from boxship.api.containerd import introspection as introspection_api
from boxship.api.containerd import leases as leases_api
from boxship.api.containerd import namespaces as namespaces_api
from boxship.api.containerd import snapshots as snapshots_api
from boxship.api.containerd import tasks as tasks_api
from boxship.api.containerd.content import WriteAction, WriteContentRequest
from boxship.api.containerd.types import Descriptor, Envelope, Mount
from boxship.containerd.composition import ContainerdServices, open_services
from boxship.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Unimplemented,
)
from boxship.image.content import ContentStore
from boxship.image.store import gc_labels
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.protobuf import Any, Empty, FieldMask

from .layer_archives import archive, directory, member

pytestmark = pytest.mark.root

LAYER = archive([directory("bin"), member("bin/a", b"1" * 9000)])
OVERLAY = "overlayfs"


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[ContainerdServices]:
    async with open_services(str(tmp_path / "r"), str(tmp_path / "s"), str(tmp_path / "c.sock")) as opened:
        yield opened


@pytest.fixture(params=["in-process", "gRPC"])
async def client(
    request: pytest.FixtureRequest, services: ContainerdServices, tmp_path: Path
) -> AsyncIterator[Client]:
    made = Client.in_process(services)
    if request.param == "gRPC":
        made = Client.connect(f"unix://{tmp_path}/c.sock")
    async with made:
        yield made


@pytest.fixture(autouse=True)
def in_namespace() -> None:
    namespace.set("test")
    lease.set("")


async def put(client: Client, data: bytes, labels: "dict[str, str] | None" = None) -> str:
    async def requests() -> AsyncIterator[WriteContentRequest]:
        middle = len(data) // 2
        yield WriteContentRequest(action=WriteAction.WRITE, ref="r", data=data[:middle])
        yield WriteContentRequest(action=WriteAction.WRITE, ref="r", data=data[middle:], offset=middle)
        yield WriteContentRequest(
            action=WriteAction.COMMIT, ref="r", offset=len(data), total=len(data), labels=labels or {}
        )

    digest = ""
    async for response in client.content.Write(requests()):
        digest = response.digest
    return digest


async def write(client: Client, *requests: WriteContentRequest) -> "list[content_api.WriteContentResponse]":
    async def stream() -> AsyncIterator[WriteContentRequest]:
        for one in requests:
            yield one

    return [response async for response in client.content.Write(stream())]


async def read(client: Client, digest: str, offset: int = 0, size: int = 0) -> bytes:
    request = content_api.ReadContentRequest(digest=digest, offset=offset, size=size)
    return b"".join([part.data async for part in client.content.Read(request)])


async def content(client: Client) -> "set[str]":
    pages = [page async for page in client.content.List(content_api.ListContentRequest())]
    return {info.digest for page in pages for info in page.info}


def container(id: str = "web", **fields: object) -> containers_api.Container:
    return containers_api.Container(
        id=id,
        runtime=containers_api.ContainerRuntime(name="io.containerd.runc.v2"),
        spec=Any(type_url="types.containerd.io/spec", value=b"{}"),
        **fields,  # type: ignore[arg-type]  # as the test says
    )


async def test_a_container_is_created_found_updated_and_deleted(client: Client) -> None:
    service = client.containers
    created = await service.Create(
        containers_api.CreateContainerRequest(container=container(labels={"a": "1", "b": "2"}))
    )
    assert created.container is not None
    assert created.container.created_at is not None
    with pytest.raises(AlreadyExists, match="web"):
        await service.Create(containers_api.CreateContainerRequest(container=container()))
    updated = await service.Update(
        containers_api.UpdateContainerRequest(
            container=containers_api.Container(id="web", labels={"a": "3"}, image="img"),
            update_mask=FieldMask(paths=["labels.a", "labels.b"]),
        )
    )
    assert updated.container is not None
    assert (updated.container.labels, updated.container.image) == ({"a": "3"}, "")
    assert updated.container.spec == container().spec
    listed = await service.List(containers_api.ListContainersRequest(filters=["labels.a==3"]))
    streamed = [one async for one in service.ListStream(containers_api.ListContainersRequest())]
    assert [one.id for one in listed.containers] == ["web"]
    assert [one.container.id for one in streamed if one.container] == ["web"]
    token = namespace.set("other")
    assert (await service.List(containers_api.ListContainersRequest())).containers == []
    namespace.reset(token)
    await service.Delete(containers_api.DeleteContainerRequest(id="web"))
    with pytest.raises(NotFound):
        await service.Get(containers_api.GetContainerRequest(id="web"))


@pytest.mark.parametrize("id", ["", "../x", "a/b", ".", "a" * 77, "a b"])
async def test_a_container_id_that_is_no_identifier_is_refused(client: Client, id: str) -> None:
    with pytest.raises(InvalidArgument):
        await client.containers.Create(containers_api.CreateContainerRequest(container=container(id)))


async def test_a_call_without_a_namespace_is_refused(client: Client) -> None:
    namespace.set("")
    with pytest.raises(FailedPrecondition, match="namespace is required"):
        await client.images.List(images_api.ListImagesRequest())


async def test_namespaces_are_made_by_use_and_deleted_when_empty(client: Client) -> None:
    service = client.namespaces
    await client.containers.Create(containers_api.CreateContainerRequest(container=container()))
    listed = await service.List(namespaces_api.ListNamespacesRequest())
    assert [one.name for one in listed.namespaces] == ["test"]
    with pytest.raises(FailedPrecondition, match="containers"):
        await service.Delete(namespaces_api.DeleteNamespaceRequest(name="test"))
    await service.Create(
        namespaces_api.CreateNamespaceRequest(namespace=namespaces_api.Namespace(name="new", labels={"x": "y"}))
    )
    with pytest.raises(AlreadyExists):
        await service.Create(namespaces_api.CreateNamespaceRequest(namespace=namespaces_api.Namespace(name="new")))
    await service.Delete(namespaces_api.DeleteNamespaceRequest(name="new"))
    with pytest.raises(NotFound):
        await service.Delete(namespaces_api.DeleteNamespaceRequest(name="new"))
    unknown = (await service.Get(namespaces_api.GetNamespaceRequest(name="new"))).namespace
    assert unknown is not None, "containerd answers an unknown namespace with no labels"
    assert unknown.labels == {}


async def test_content_is_written_in_pieces_and_read_in_ranges(client: Client) -> None:
    data = os.urandom(3_000_000)
    digest = await put(client, data, {"k": "v"})
    assert digest == digests.of(data)
    assert await read(client, digest) == data
    assert await read(client, digest, 10, 20) == data[10:30]
    assert await read(client, digest, len(data) - 5, 100) == data[-5:]
    info = (await client.content.Info(content_api.InfoRequest(digest=digest))).info
    assert info is not None
    assert (info.size, info.labels) == (len(data), {"k": "v"})
    with pytest.raises(OutOfRange):
        await read(client, digest, len(data) + 1)
    with pytest.raises(AlreadyExists):
        await write(client, WriteContentRequest(ref="x", expected=digest))


async def test_an_upload_that_broke_off_goes_on_and_a_wrong_one_is_refused(client: Client) -> None:
    expected = digests.of(b"hello world")
    first = WriteContentRequest(action=WriteAction.WRITE, ref="up", data=b"hello ", total=11, expected=expected)
    await write(client, first)
    status = (await client.content.Status(content_api.StatusRequest(ref="up"))).status
    assert status is not None
    assert (status.ref, status.offset, status.total) == ("up", 6, 11)
    with pytest.raises(OutOfRange):
        await write(client, WriteContentRequest(action=WriteAction.WRITE, ref="up", offset=3, data=b"x"))
    with pytest.raises(DataLoss):
        await write(client, WriteContentRequest(action=WriteAction.COMMIT, ref="up", offset=6, data=b"there"))
    (answer,) = await write(client, WriteContentRequest(ref="up"))
    assert answer.offset == 11
    await client.content.Abort(content_api.AbortRequest(ref="up"))
    with pytest.raises(NotFound):
        await client.content.Status(content_api.StatusRequest(ref="up"))


async def test_content_belongs_to_namespaces_and_its_file_goes_with_the_last(
    client: Client, services: ContainerdServices
) -> None:
    digest = await put(client, b"shared")
    token = namespace.set("other")
    with pytest.raises(NotFound):
        await read(client, digest)
    assert await put(client, b"shared") == digest
    await client.content.Delete(content_api.DeleteContentRequest(digest=digest))
    namespace.reset(token)
    assert await read(client, digest) == b"shared"
    await client.content.Delete(content_api.DeleteContentRequest(digest=digest))
    with pytest.raises(NotFound):
        await client.content.Delete(content_api.DeleteContentRequest(digest=digest))


async def unpack(client: Client, layer: str, name: str) -> None:
    prepared = await client.snapshots.Prepare(snapshots_api.PrepareSnapshotRequest(snapshotter=OVERLAY, key="x"))
    applied = await client.diff.Apply(
        diff_api.ApplyRequest(
            diff=Descriptor(media_type=oci.MEDIA_LAYER, digest=layer, size=len(LAYER)), mounts=prepared.mounts
        )
    )
    assert applied.applied is not None
    assert applied.applied.digest == layer
    await client.snapshots.Commit(snapshots_api.CommitSnapshotRequest(snapshotter=OVERLAY, key="x", name=name))


async def test_a_layer_is_applied_and_its_difference_comes_back(client: Client) -> None:
    layer = await put(client, LAYER)
    await unpack(client, layer, "base")
    view = await client.snapshots.View(snapshots_api.ViewSnapshotRequest(snapshotter=OVERLAY, key="v", parent="base"))
    active = await client.snapshots.Prepare(
        snapshots_api.PrepareSnapshotRequest(snapshotter=OVERLAY, key="a", parent="base")
    )
    upper = next(o.partition("=")[2] for o in active.mounts[0].options if o.startswith("upperdir="))
    Path(upper, "new").write_text("x")
    for media_type in (oci.MEDIA_LAYER_GZIP, oci.MEDIA_LAYER):
        made = await client.diff.Diff(
            diff_api.DiffRequest(left=view.mounts, right=active.mounts, media_type=media_type)
        )
        assert made.diff is not None
        assert len(await read(client, made.diff.digest)) == made.diff.size
    usage = await client.snapshots.Usage(snapshots_api.UsageRequest(snapshotter=OVERLAY, key="base"))
    assert usage.inodes == 3
    with pytest.raises(InvalidArgument, match="not writable"):
        await client.diff.Apply(
            diff_api.ApplyRequest(diff=Descriptor(media_type=oci.MEDIA_LAYER, digest=layer), mounts=view.mounts)
        )
    with pytest.raises(InvalidArgument, match="not loaded"):
        await client.snapshots.Mounts(snapshots_api.MountsRequest(snapshotter="btrfs", key="a"))
    with pytest.raises(Unimplemented):
        await client.diff.Diff(diff_api.DiffRequest(left=[Mount(type="tmpfs")], right=[Mount(type="tmpfs")]))


async def image(client: Client, name: str) -> None:
    """An image of one layer with everything labelled as clients do it."""
    layer = await put(client, LAYER)
    config = b'{"rootfs":{"type":"layers","diff_ids":["%s"]}}' % layer.encode()
    config_digest = await put(client, config, {f"containerd.io/gc.ref.snapshot.{OVERLAY}": layer})
    manifest = oci.encode(
        oci.Manifest(
            2,
            oci.Descriptor(oci.MEDIA_CONFIG, config_digest, len(config)),
            [oci.Descriptor(oci.MEDIA_LAYER, layer, len(LAYER))],
            media_type=oci.MEDIA_MANIFEST,
        )
    )

    class Memory:
        def read(self, digest: str) -> bytes:
            return manifest

    descriptor = oci.Descriptor(oci.MEDIA_MANIFEST, digests.of(manifest), len(manifest))
    await put(client, manifest, gc_labels(Memory(), descriptor))  # type: ignore[arg-type]  # reads only
    await unpack(client, layer, layer)
    await client.images.Create(
        images_api.CreateImageRequest(
            image=images_api.Image(
                name=name,
                target=Descriptor(media_type=oci.MEDIA_MANIFEST, digest=descriptor.digest, size=descriptor.size),
            )
        )
    )


async def snapshots(client: Client) -> "set[str]":
    request = snapshots_api.ListSnapshotsRequest(snapshotter=OVERLAY)
    return {info.name async for page in client.snapshots.List(request) for info in page.info}


async def test_what_nothing_refers_to_is_collected_when_an_image_goes(
    client: Client, services: ContainerdServices, tmp_path: Path
) -> None:
    await image(client, "one")
    await client.snapshots.Prepare(
        snapshots_api.PrepareSnapshotRequest(snapshotter=OVERLAY, key="held", parent=digests.of(LAYER))
    )
    await client.containers.Create(
        containers_api.CreateContainerRequest(container=container(snapshotter=OVERLAY, snapshot_key="held"))
    )
    created = (await client.leases.Create(leases_api.CreateRequest(id="keep"))).lease
    assert created is not None
    token = lease.set("keep")
    leased = await put(client, b"leased")
    lease.reset(token)
    assert len(await content(client)) == 4
    with pytest.raises(NotFound):
        await client.images.Delete(
            images_api.DeleteImageRequest(name="one", target=Descriptor(digest=digests.of(b"x")))
        )
    await client.images.Delete(images_api.DeleteImageRequest(name="one", sync=True))
    assert await content(client) == {leased}
    assert await snapshots(client) == {"held", digests.of(LAYER)}
    listed = await client.leases.ListResources(leases_api.ListResourcesRequest(id="keep"))
    assert [(one.type, one.id) for one in listed.resources] == [("content", leased)]
    await client.containers.Delete(containers_api.DeleteContainerRequest(id="web"))
    await client.leases.Delete(leases_api.DeleteRequest(id="keep", sync=True))
    assert await content(client) == set()
    assert await snapshots(client) == set()
    assert os.listdir(tmp_path / "r" / "snapshotter" / "snapshots") == []
    assert os.listdir(tmp_path / "r" / "content" / "blobs" / "sha256") == []


async def test_a_lease_that_is_gone_protects_nothing(client: Client) -> None:
    lease.set("gone")
    with pytest.raises(NotFound, match="lease"):
        await put(client, b"x")
    with pytest.raises(NotFound, match="lease"):
        await client.snapshots.Prepare(snapshots_api.PrepareSnapshotRequest(snapshotter=OVERLAY, key="x"))
    lease.set("")
    assert await content(client) == set()
    assert await snapshots(client) == set()


async def test_an_expired_lease_keeps_nothing(client: Client) -> None:
    past = {"containerd.io/gc.expire": "2020-01-01T00:00:00Z"}
    await client.leases.Create(leases_api.CreateRequest(id="old", labels=past))
    await client.leases.Create(leases_api.CreateRequest(id="trigger"))
    lease.set("old")
    await put(client, b"leased")
    lease.set("")
    await client.leases.Delete(leases_api.DeleteRequest(id="trigger", sync=True))
    assert await content(client) == set()


async def test_a_subscriber_gets_what_its_filters_match_from_the_call_on(client: Client) -> None:
    events = client.events.Subscribe(events_api.SubscribeRequest(filters=["topic==/images/delete", "topic~=^/cont"]))
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.2)  # over gRPC the call has to arrive first
    await client.containers.Create(containers_api.CreateContainerRequest(container=container()))
    envelope = await asyncio.wait_for(waiting, 5)
    assert (envelope.topic, envelope.namespace) == ("/containers/create", "test")
    assert envelope.event is not None
    assert envelope.event.holds(type(envelope.event.unpack_known()))
    await client.events.Forward(
        events_api.ForwardRequest(
            envelope=Envelope(
                timestamp=envelope.timestamp, namespace="n", topic="/images/delete", event=envelope.event
            )
        )
    )
    assert (await asyncio.wait_for(anext(events), 5)).namespace == "n"


async def test_the_server_says_who_it_is_the_same_after_a_restart(client: Client) -> None:
    first = await client.introspection.Server(Empty())
    second = await client.introspection.Server(Empty())
    assert first.uuid == second.uuid
    assert first.pid == os.getpid()
    plugins = await client.introspection.Plugins(
        introspection_api.PluginsRequest(filters=["type==io.containerd.snapshotter.v1,id==overlayfs"])
    )
    assert [one.id for one in plugins.plugins] == ["overlayfs"]


async def test_tasks_of_unknown_containers_and_runtimes_are_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await client.tasks.Create(tasks_api.CreateTaskRequest(container_id="missing"))
    strange = container()
    assert strange.runtime is not None
    strange.runtime.name = "io.containerd.nosuch.v2"
    await client.containers.Create(containers_api.CreateContainerRequest(container=strange))
    with pytest.raises(NotFound, match="containerd-shim-nosuch-v2"):
        await client.tasks.Create(tasks_api.CreateTaskRequest(container_id="web"))
    assert os.listdir(tmp_path / "s" / "io.containerd.runtime.v2.task" / "test") == []
    for call, request in (
        (client.tasks.Get, tasks_api.GetRequest(container_id="web")),
        (client.tasks.Kill, tasks_api.KillRequest(container_id="web", signal=9)),
        (client.tasks.Delete, tasks_api.DeleteTaskRequest(container_id="web")),
    ):
        with pytest.raises(NotFound):
            await call(request)
    assert (await client.tasks.List(tasks_api.ListTasksRequest())).tasks == []


async def test_two_daemons_cannot_share_their_sockets(services: ContainerdServices, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="another process"):
        async with open_services(str(tmp_path / "r2"), str(tmp_path / "s"), str(tmp_path / "c.sock")):
            raise PermissionDenied("it was opened")
    assert (tmp_path / "c.sock").exists()
    assert (tmp_path / "c.sock").stat().st_mode & 0o777 == 0o660


async def test_a_blob_that_lost_its_record_is_swept_when_it_is_old(client: Client, tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "r" / "content"))
    young, old = store.put(b"young"), store.put(b"old")
    os.utime(store.path(old), (0, 0))
    await client.leases.Create(leases_api.CreateRequest(id="trigger"))
    await client.leases.Delete(leases_api.DeleteRequest(id="trigger", sync=True))
    assert [blob.digest for blob in store.walk()] == [young]


async def test_every_call_is_a_span_of_the_trace_that_it_carries(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.touch()
    token = tracing.current.set(tracing.Trace("a" * 32, str(path)))
    try:
        digest = await put(client, b"traced")
        await read(client, digest)
        with pytest.raises(NotFound):
            await client.tasks.Get(tasks_api.GetRequest(container_id="missing"))
    finally:
        tracing.current.reset(token)
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert {span["layer"] for span in spans} == {"containerd"}
    assert [span["call"] for span in spans] == ["content.Write", "content.Read", "tasks.Get"]
    assert "missing" in spans[-1]["error"]

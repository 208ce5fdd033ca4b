"""Our containerd client against the real containerd: the engine's other half when it does not embed ours."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from boxship.api.containerd import Client, lease, namespace
from boxship.api.containerd import content as content_api
from boxship.api.containerd import diff as diff_api
from boxship.api.containerd import events as events_api
from boxship.api.containerd import images as images_api
from boxship.api.containerd import leases as leases_api
from boxship.api.containerd import snapshots as snapshots_api
from boxship.api.containerd import tasks as tasks_api
from boxship.api.containerd.content import WriteAction, WriteContentRequest
from boxship.api.containerd.types import Descriptor
from boxship.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.protobuf import Empty

from ..kernel.layer_archives import archive, directory, member
from .containerd_fixture import containerd

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

LAYER = archive([directory("bin"), member("bin/a", os.urandom(3 << 20))])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with containerd() as socket:
        yield f"unix://{socket}"


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    namespace.set("ours")
    lease.set("")
    async with Client.connect(address) as connected:
        yield connected


async def put(client: Client, data: bytes) -> str:
    async def requests() -> AsyncIterator[WriteContentRequest]:
        for offset in range(0, len(data), 1 << 20):
            yield WriteContentRequest(
                action=WriteAction.WRITE, ref="r", data=data[offset : offset + (1 << 20)], offset=offset
            )
        yield WriteContentRequest(action=WriteAction.COMMIT, ref="r", offset=len(data), total=len(data))

    digest = ""
    async for response in client.content.Write(requests()):
        digest = response.digest or digest
    return digest


async def test_it_says_who_it_is(client: Client) -> None:
    assert (await client.version.Version(Empty())).version
    assert (await client.introspection.Server(Empty())).uuid


async def test_content_leases_snapshots_and_layers_work_as_with_ours(client: Client) -> None:
    created = (await client.leases.Create(leases_api.CreateRequest(id="hold"))).lease
    assert created is not None
    lease.set(created.id)
    digest = await put(client, LAYER)
    assert digest == digests.of(LAYER)
    parts = [part.data async for part in client.content.Read(content_api.ReadContentRequest(digest=digest))]
    assert b"".join(parts) == LAYER
    with pytest.raises(AlreadyExists):
        async for _ in client.content.Write(_one(WriteContentRequest(ref="again", expected=digest))):
            pass
    prepared = await client.snapshots.Prepare(
        snapshots_api.PrepareSnapshotRequest(snapshotter="overlayfs", key="active")
    )
    applied = await client.diff.Apply(
        diff_api.ApplyRequest(
            diff=Descriptor(media_type=oci.MEDIA_LAYER, digest=digest, size=len(LAYER)), mounts=prepared.mounts
        )
    )
    assert applied.applied is not None
    assert applied.applied.digest == digest
    await client.snapshots.Commit(
        snapshots_api.CommitSnapshotRequest(snapshotter="overlayfs", key="active", name="layer")
    )
    info = await client.snapshots.Stat(snapshots_api.StatSnapshotRequest(snapshotter="overlayfs", key="layer"))
    assert info.info is not None
    assert info.info.kind == snapshots_api.Kind.COMMITTED
    lease.set("")
    await client.leases.Delete(leases_api.DeleteRequest(id="hold", sync=True))
    with pytest.raises(NotFound):
        await client.content.Info(content_api.InfoRequest(digest=digest))


async def _one(request: WriteContentRequest) -> AsyncIterator[WriteContentRequest]:
    yield request


async def test_errors_and_events_arrive_as_ours_do(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.tasks.Get(tasks_api.GetRequest(container_id="missing"))
    with pytest.raises(InvalidArgument):
        await client.images.Create(images_api.CreateImageRequest(image=images_api.Image(name="x")))
    events = client.events.Subscribe(events_api.SubscribeRequest(filters=['topic=="/images/create"']))
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.3)
    await client.images.Create(
        images_api.CreateImageRequest(
            image=images_api.Image(
                name="named", target=Descriptor(media_type=oci.MEDIA_MANIFEST, digest=digests.of(b"x"), size=1)
            )
        )
    )
    envelope = await asyncio.wait_for(waiting, 5)
    assert (envelope.namespace, envelope.topic) == ("ours", "/images/create")
    await client.images.Delete(images_api.DeleteImageRequest(name="named", sync=True))


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    async with Client.connect(str(tmp_path / "nobody.sock")) as client:
        with pytest.raises(Unavailable):
            await client.version.Version(Empty())

"""Collection beside pushes: what was taken in stays whole, and who pushes as clients do is never refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.registry import collect as collecting
from boxship.registry.collect import collect
from boxship.registry.errors import SpecError
from boxship.registry.metadata import Metadata
from boxship.registry.registry import Registry

from .registry_server import image, serving
from .test_registry import Client, push

DAY = 24 * 3600 * 1_000_000_000


def put_blob(registry: Registry, repository: str, data: bytes) -> str:
    writer = registry.store.writer(f"upload {repository} {threading.get_ident()} {digests.of(data)}")
    writer.write(data)
    registry.add_blob(repository, writer, digests.of(data))
    return digests.of(data)


def put_image(registry: Registry, repository: str, tag: str, *layers: bytes) -> str:
    found = [oci.Descriptor("x/y", put_blob(registry, repository, one), len(one)) for one in (b"{}", *layers)]
    data = json.dumps(image(*found)).encode()
    registry.put_manifest(repository, data, "", digests.of(data), [tag], lambda _: None)
    return digests.of(data)


def age(registry: Registry, days: int = 2) -> None:
    """All that is there came so long ago."""
    database = registry.metadata._database
    with database.transaction():
        for table in ("blobs", "manifests"):
            database.run(f"UPDATE {table} SET created = created - ?", (days * DAY,))  # two constants


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    found = Registry(str(tmp_path / "registry"))
    yield found
    found.close()


def whole(registry: Registry, repository: str, tag: str) -> bool:
    """Whether the image can be pulled."""
    found, _ = registry.manifest(repository, tag)
    needs = registry.metadata._database.rows(
        "SELECT digest FROM needs WHERE repository = ? AND manifest = ?", (repository, found.digest)
    )
    return bool(needs) and all(
        registry.metadata.has_blob(repository, digest) and registry.store.exists(digest) for (digest,) in needs
    )


def test_pushes_beside_collections_that_spare_nothing_lose_nothing(registry: Registry) -> None:
    """With no grace at all a push may be refused, and then its client begins anew; what was accepted is whole."""
    began, stop = time.monotonic(), threading.Event()
    accepted, refused = 0, 0
    wrong: list[object] = []

    def gather() -> None:
        try:
            while not stop.is_set():
                collect(registry, age=-1, untagged=True)
        except Exception as error:
            wrong.append(error)

    def work(number: int) -> None:
        nonlocal accepted, refused
        turn = 0
        # For three seconds at least; on a busy machine until there is something to judge.
        while (took := time.monotonic() - began) < 3 or (took < 60 and not (accepted > 20 and refused)):
            turn += 1
            layers = [hashlib.sha256(b"%d" % (turn * one % 7)).digest() for one in (1, 2, 3)]
            try:
                put_image(registry, f"r{number % 2}", f"t{number}", *layers)
            except SpecError as error:
                if error.spec_code != "MANIFEST_BLOB_UNKNOWN":
                    wrong.append(error)
                refused += 1
                continue
            except Exception as error:
                wrong.append(error)
                return
            accepted += 1
            if not whole(registry, f"r{number % 2}", f"t{number}"):
                wrong.append(f"t{number} of turn {turn} is not whole")
            if turn % 3 == 0:
                registry.delete(f"r{number % 2}", f"t{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    collector = threading.Thread(target=gather)
    collector.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collector.join()
    assert not wrong
    assert accepted > 20
    assert refused > 0, "collections and pushes met"


@pytest.mark.parametrize("how", ["asked for", "pushed again", "mounted"])
def test_an_old_blob_that_a_push_counts_on_is_young_again(registry: Registry, how: str) -> None:
    digest = put_blob(registry, "a", b"old layer")
    other = put_blob(registry, "a", b"nobody's")
    age(registry)
    match how:
        case "asked for":
            registry.blob_size("a", digests.parse(digest))
        case "pushed again":
            put_blob(registry, "a", b"old layer")
        case "mounted":
            assert registry.mount("a", digests.parse(digest), "a")
    gone = collect(registry, age=3600)
    assert (gone.blobs, gone.freed) == (1, len(b"nobody's"))
    put_image(registry, "a", "v1", b"old layer")
    assert whole(registry, "a", "v1")
    with pytest.raises(SpecError):
        registry.blob_size("a", digests.parse(other))


def test_an_old_manifest_that_a_client_asks_for_is_young_again(tmp_path: Path) -> None:
    with serving(tmp_path / "registry") as client:
        digest = push(client, "a", "v1")
        client("DELETE", "/v2/a/manifests/v1")
    registry = Registry(str(tmp_path / "registry"))
    age(registry)
    registry.close()
    with serving(tmp_path / "registry") as client:
        assert client("HEAD", f"/v2/a/manifests/{digest}").status == 200
    registry = Registry(str(tmp_path / "registry"))
    try:
        assert collect(registry, age=3600, untagged=True).manifests == 0
        age(registry)
        assert collect(registry, age=3600, untagged=True).manifests == 1
    finally:
        registry.close()


def test_a_blob_that_comes_again_between_rows_and_content_stays(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blob(registry, "a", b"layer")
    sync = Metadata.sync

    def pushed_meanwhile(self: Metadata) -> None:
        sync(self)
        monkeypatch.undo()
        put_image(registry, "b", "v1", b"layer")

    monkeypatch.setattr(Metadata, "sync", pushed_meanwhile)
    gone = collecting.collect(registry, age=-1)
    assert (gone.blobs, gone.freed) == (1, 0)
    assert whole(registry, "b", "v1")


def test_a_served_registry_collects(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    first = Registry(str(root))
    put_image(first, "a", "v1", b"kept")
    old = put_blob(first, "a", b"left over")
    age(first)
    first.close()
    command = [sys.executable, "-m", "boxship.registry", "serve", str(root), "--listen", "127.0.0.1:0",
               "--gc-every", "1s", "--gc-older-than", "1h"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2])
        client = Client(port)
        young = client.push_blob("a", b"just came")
        said = process.stderr.readline()
        assert "collected 0 manifests and 1 blobs, 9 bytes" in said
        assert client("GET", f"/v2/a/blobs/{old}").status == 404
        assert client("GET", f"/v2/a/blobs/{young.digest}").status == 200
        assert client("GET", "/v2/a/manifests/v1").status == 200
        assert not os.path.exists(root / "blobs/sha256" / old.partition(":")[2])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0

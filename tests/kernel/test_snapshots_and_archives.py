"""The overlay snapshotter and image archives, on a real file system."""

import gzip
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxship.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from boxship.image import database as database_module
from boxship.image.apply import apply_layer
from boxship.image.content import ContentStore
from boxship.image.database import Database
from boxship.image.diff import write_diff, write_layer
from boxship.image.load import load_archive, load_layout
from boxship.image.rootfs import import_rootfs
from boxship.image.save import save, write_layout
from boxship.image.snapshots import Kind, Mount, OverlaySnapshotter
from boxship.image.store import gc_labels, resolve, tree
from boxship.oci import digest as digests
from boxship.oci import image as oci
from boxship.oci import platform as platforms

from .layer_archives import archive, directory, hard_link, member, symlink

pytestmark = pytest.mark.root

NS = "test"


@pytest.fixture
def snapshotter(tmp_path: Path) -> OverlaySnapshotter:
    return OverlaySnapshotter(str(tmp_path / "snap"), Database(str(tmp_path / "meta.db")))


def commit(snapshotter: OverlaySnapshotter, name: str, parent: str, data: bytes) -> None:
    snapshotter.prepare(NS, f"make {name}", parent)
    apply_layer(
        io.BytesIO(data),
        snapshotter.layer_directory(NS, f"make {name}"),
        parents=snapshotter.lower_directories(NS, f"make {name}"),
    )
    snapshotter.commit(NS, name, f"make {name}")


def test_a_first_snapshot_is_a_bind_mount_and_a_second_an_overlay(snapshotter: OverlaySnapshotter) -> None:
    (mount,) = snapshotter.prepare(NS, "one")
    assert (mount.type, mount.options) == ("bind", ("rw", "rbind"))
    Path(mount.source, "f").write_text("x")
    snapshotter.commit(NS, "layer", "one", {"a": "b"})
    (mount,) = snapshotter.prepare(NS, "two", "layer")
    assert mount.type == "overlay"
    assert any(option.startswith("upperdir=") for option in mount.options)
    assert snapshotter.mounts(NS, "two") == [mount]
    (view,) = snapshotter.view(NS, "look", "layer")
    assert (view.type, view.options) == ("bind", ("ro", "rbind"))
    assert snapshotter.stat(NS, "layer").kind is Kind.COMMITTED
    assert snapshotter.stat(NS, "layer").labels == {"a": "b"}
    assert snapshotter.usage(NS, "layer").inodes == 2
    assert [info.parent for info in snapshotter.walk(NS)] == ["", "layer", "layer"]
    assert snapshotter.walk("other") == []


def test_each_misuse_has_its_error(snapshotter: OverlaySnapshotter) -> None:
    snapshotter.prepare(NS, "active")
    commit(snapshotter, "base", "", archive([directory("d")]))
    snapshotter.view(NS, "child", "base")
    with pytest.raises(AlreadyExists):
        snapshotter.prepare(NS, "active")
    with pytest.raises(AlreadyExists):
        snapshotter.commit(NS, "base", "active")
    with pytest.raises(NotFound):
        snapshotter.prepare(NS, "x", "missing")
    with pytest.raises(NotFound):
        snapshotter.mounts("other", "active")
    with pytest.raises(InvalidArgument):
        snapshotter.prepare(NS, "x", "active")
    with pytest.raises(InvalidArgument):
        snapshotter.prepare(NS, "")
    with pytest.raises(FailedPrecondition):
        snapshotter.mounts(NS, "base")
    with pytest.raises(FailedPrecondition):
        snapshotter.commit(NS, "y", "child")
    with pytest.raises(FailedPrecondition, match="children"):
        snapshotter.remove(NS, "base")
    snapshotter.remove(NS, "child")
    snapshotter.remove(NS, "base")
    with pytest.raises(NotFound):
        snapshotter.remove(NS, "base")


def test_removing_can_be_finished_later_and_strays_are_cleaned_up(snapshotter: OverlaySnapshotter) -> None:
    snapshotter.prepare(NS, "one")
    aside = snapshotter.remove(NS, "one", defer=True)
    assert aside is not None
    assert os.path.isdir(aside)
    with pytest.raises(NotFound):
        snapshotter.stat(NS, "one")
    snapshotter.prepare(NS, "two")
    assert snapshotter.cleanup() == 1
    assert not os.path.exists(aside)
    snapshotter.discard(aside)
    assert os.path.isdir(snapshotter.layer_directory(NS, "two"))


def mounted(mounts: "list[Mount]", at: Path) -> None:
    (mount,) = mounts
    options = ",".join(option for option in mount.options if option != "rbind")
    bind = ["--rbind"] if mount.type == "bind" else ["-t", mount.type]
    subprocess.run(["mount", *bind, "-o", options, mount.source, str(at)], check=True)


def test_layers_with_whiteouts_show_what_the_image_spec_says_and_come_back_the_same(
    snapshotter: OverlaySnapshotter, tmp_path: Path
) -> None:
    base = archive([directory("keep"), member("keep/a", b"1"), member("keep/b", b"2"), directory("clear"),
                    member("clear/old"), member("gone"), symlink("link", "keep/a")])  # fmt: skip
    top = archive([member(".wh.gone"), member("keep/.wh.b"), member("keep/c", b"3"), directory("clear"),
                   member("clear/.wh..wh..opq"), member("clear/new"), hard_link("same", "keep/c")])  # fmt: skip
    commit(snapshotter, "base", "", base)
    commit(snapshotter, "top", "base", top)
    at = tmp_path / "mnt"
    at.mkdir()
    mounted(snapshotter.view(NS, "see", "top"), at)
    try:
        shown = sorted(str(path.relative_to(at)) for path in at.rglob("*"))
    finally:
        subprocess.run(["umount", str(at)], check=True)
    assert shown == ["clear", "clear/new", "keep", "keep/a", "keep/c", "link", "same"]
    out = io.BytesIO()
    write_diff(snapshotter.view(NS, "below", "base"), snapshotter.mounts(NS, "see"), out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as made:
        names = made.getnames()
    assert sorted(names) == [".wh.gone", "clear", "clear/.wh..wh..opq", "clear/new", "keep", "keep/.wh.b",
                             "keep/c", "same"]  # fmt: skip
    commit(snapshotter, "again", "base", out.getvalue())
    twice = io.BytesIO()
    write_layer(snapshotter_directory(snapshotter, "again"), twice.write)
    assert twice.getvalue() == out.getvalue()


def snapshotter_directory(snapshotter: OverlaySnapshotter, name: str) -> str:
    return snapshotter.layer_directory(NS, name)


# -- archives


def layers() -> "list[bytes]":
    return [archive([directory("bin"), member("bin/a", b"1" * 9000)]), archive([member("b", b"2")])]


def docker_archive(
    parts: "list[bytes]", *, compress: bool = False, diff_ids: "list[str] | None" = None, config_name: str = ""
) -> bytes:
    """What `docker save` wrote before 25: config and layers first, manifest.json last."""
    stored = [gzip.compress(part, mtime=0) if compress else part for part in parts]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids or
         [digests.of(part) for part in parts]}, "config": {"Cmd": ["/bin/a"]}}
    ).encode()  # fmt: skip
    name = (config_name or digests.of(config).removeprefix("sha256:")) + ".json"
    members = [member(f"l{number}/layer.tar", data) for number, data in enumerate(stored)]
    members += [symlink("again/layer.tar", "../l0/layer.tar"), member("l0/VERSION", b"1.0")]
    paths = [f"l{number}/layer.tar" for number in range(len(stored))]
    manifest = [{"Config": name, "RepoTags": ["app:1", "quay.io/x/app:2"], "Layers": paths}]
    members += [member(name, config), member("manifest.json", json.dumps(manifest).encode())]
    return archive(members)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "content"))


AMD64 = platforms.parse("linux/amd64")


@pytest.mark.parametrize("compress", [False, True])
def test_a_docker_archive_is_loaded_with_its_names(store: ContentStore, compress: bool) -> None:
    (image,) = load_archive(io.BytesIO(docker_archive(layers(), compress=compress)), store)
    assert image.names == ["docker.io/library/app:1", "quay.io/x/app:2"]
    assert image.config.config == {"Cmd": ["/bin/a"]}
    expected = oci.MEDIA_LAYER_GZIP if compress else oci.MEDIA_LAYER
    assert [layer.media_type for layer in image.manifest.layers] == [expected] * 2


def test_what_is_saved_is_loaded_the_same_compressed_or_not(store: ContentStore, tmp_path: Path) -> None:
    (image,) = load_archive(io.BytesIO(docker_archive(layers())), store)
    out = io.BytesIO()
    save(store, [image], out)
    for data in (out.getvalue(), gzip.compress(out.getvalue())):
        other = ContentStore(str(tmp_path / digests.of(data)[7:20]))
        (again,) = load_archive(io.BytesIO(data), other)
        assert (again.target, again.names) == (image.target, image.names)
        assert {blob.digest for blob in other.walk()} == {one.digest for one in tree(store, image.target)}
    twice = io.BytesIO()
    save(store, [image], twice)
    assert twice.getvalue() == out.getvalue()


def test_a_layout_is_written_and_loaded(store: ContentStore, tmp_path: Path) -> None:
    (image,) = load_archive(io.BytesIO(docker_archive(layers())), store)
    write_layout(store, [image], str(tmp_path / "layout"))
    other = ContentStore(str(tmp_path / "other"))
    (again,) = load_layout(str(tmp_path / "layout"), other)
    assert (again.target, again.names) == (image.target, image.names)


def test_garbage_collection_labels_name_every_child(store: ContentStore) -> None:
    (image,) = load_archive(io.BytesIO(docker_archive(layers())), store)
    labels = gc_labels(store, image.target)
    assert set(labels.values()) == {image.id, *(layer.digest for layer in image.manifest.layers)}
    assert labels["containerd.io/gc.ref.content.config"] == image.id


def test_an_index_gives_the_manifest_of_the_platform_asked_for(store: ContentStore) -> None:
    (image,) = load_archive(io.BytesIO(docker_archive(layers())), store)
    target = image.target
    entry = oci.Descriptor(
        target.media_type, target.digest, target.size, platform=oci.ImagePlatform("amd64", "linux")
    )
    missing = oci.Descriptor(
        target.media_type, digests.of(b"absent"), 6, platform=oci.ImagePlatform("arm64", "linux")
    )
    data = oci.encode(oci.Index(2, [missing, entry], media_type=oci.MEDIA_INDEX))
    index = oci.Descriptor(oci.MEDIA_INDEX, store.put(data), len(data))
    assert resolve(store, index, AMD64).manifest_descriptor.digest == target.digest
    with pytest.raises(NotFound, match="arm64"):
        resolve(store, index, platforms.parse("linux/arm64"))


def flipped(data: bytes, at: bytes) -> bytes:
    position = data.index(at)
    return data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]


def saved() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        store = ContentStore(scratch)
        out = io.BytesIO()
        save(store, load_archive(io.BytesIO(docker_archive(layers())), store), out)
        return out.getvalue()


BROKEN = {
    "a layer that is not what the config says": (docker_archive(layers(), diff_ids=[digests.of(b"x")] * 2), DataLoss),
    "more diff IDs than layers": (docker_archive(layers(), diff_ids=[digests.of(b"x")] * 3), InvalidArgument),
    "a config that is not its name": (docker_archive(layers(), config_name="a" * 64), DataLoss),
    "a blob with a flipped bit": (flipped(saved(), b"1" * 500), DataLoss),
    "an archive cut in half": (saved()[: len(saved()) // 2], DataLoss),
    "a compressed archive cut short": (gzip.compress(saved())[:-10], DataLoss),
    "a root file system": (layers()[0], InvalidArgument),
    "noise": (b"\x42" * 2048, InvalidArgument),
    "a manifest of a missing layer": (
        archive([member("manifest.json", b'[{"Config":"c.json","Layers":["x"]}]'),
                 member("c.json", b'{"rootfs":{"diff_ids":["sha256:x"]}}')]), InvalidArgument),
    "a manifest that is no JSON": (archive([member("manifest.json", b"[{]")]), InvalidArgument),
    "a blob outside its directory": (archive([member("blobs/sha256/../../../etc/x", b"x")]), InvalidArgument),
    "a blob whose name is no digest": (archive([member("blobs/sha256/short", b"x")]), InvalidArgument),
    "a member that climbs out": (archive([member("../x", b"x")]), InvalidArgument),
    "a symlink that climbs out": (archive([symlink("l/layer.tar", "../../../etc/passwd")]), InvalidArgument),
    "a layout of the future": (
        archive([member("oci-layout", b'{"imageLayoutVersion":"9"}'),
                 member("index.json", b'{"schemaVersion":2,"manifests":[]}')]), InvalidArgument),
    "a layout without images": (
        archive([member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
                 member("index.json", b'{"schemaVersion":2,"manifests":[]}')]), InvalidArgument),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_is_one_clear_error_and_leaves_nothing(store: ContentStore, name: str) -> None:
    data, error = BROKEN[name]
    kept = store.put(b"was here before")
    with pytest.raises(error):
        load_archive(io.BytesIO(data), store)
    assert [blob.digest for blob in store.walk()] == [kept]
    assert store.statuses() == []


def test_content_that_was_there_before_survives_a_failed_load(store: ContentStore) -> None:
    load_archive(io.BytesIO(docker_archive(layers())), store)
    before = {blob.digest for blob in store.walk()}
    with pytest.raises(DataLoss):
        load_archive(io.BytesIO(docker_archive(layers(), diff_ids=[digests.of(b"x")] * 2)), store)
    assert {blob.digest for blob in store.walk()} == before


@pytest.mark.parametrize("compress", [False, True])
def test_a_root_file_system_becomes_an_image_of_one_layer(store: ContentStore, compress: bool) -> None:
    data = gzip.compress(layers()[0]) if compress else layers()[0]
    image = import_rootfs(io.BytesIO(data), store, config={"Cmd": ["sh"]}, message="hello")
    assert image.config.diff_ids == [digests.of(layers()[0])]
    assert image.config.history is not None
    assert image.config.history[0].comment == "hello"
    assert image.manifest.layers[0].digest == digests.of(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [(layers()[0][:5000], DataLoss), (archive([member("../x")]), InvalidArgument), (archive([]), InvalidArgument),
     (archive([hard_link("l", "../../x")]), InvalidArgument), (b"BZh91AY" + bytes(600), InvalidArgument)],
)  # fmt: skip
def test_a_bad_root_file_system_leaves_nothing(store: ContentStore, data: bytes, error: "type[Exception]") -> None:
    with pytest.raises(error):
        import_rootfs(io.BytesIO(data), store)
    assert list(store.walk()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_while_loading_is_resource_exhausted_and_leaves_nothing(small_disk: Path) -> None:
    store = ContentStore(str(small_disk))
    parts = [archive([member("small", b"1" * 50_000)]), archive([member("big", os.urandom(1 << 20))])]
    with pytest.raises(ResourceExhausted, match="full"):
        load_archive(io.BytesIO(docker_archive(parts)), store)
    assert list(store.walk()) == []
    assert store.statuses() == []
    assert shutil.disk_usage(small_disk).used < 50_000


# -- a process killed in the middle

WRITER = """
    import sys, itertools
    from boxship.image.content import ContentStore
    from boxship.image.database import Database
    from boxship.image.snapshots import OverlaySnapshotter
    root = sys.argv[1]
    store, database = ContentStore(root + "/content"), Database(root + "/meta.db")
    snapshotter = OverlaySnapshotter(root + "/snap", database)
    print("go", flush=True)
    for number in itertools.count():
        store.put(b"%d" % number * 20000)
        with database.transaction():
            snapshotter.prepare("ns", f"a{number}")
            snapshotter.prepare("ns", f"b{number}")
        snapshotter.commit("ns", f"layer{number}", f"a{number}")
        if number % 3 == 0:
            snapshotter.remove("ns", f"b{number}")
"""


@pytest.mark.parametrize("after", [0.02, 0.05, 0.11, 0.23])
def test_a_killed_process_leaves_only_whole_content_and_consistent_metadata(tmp_path: Path, after: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = ContentStore(str(tmp_path / "content"))
    for blob in store.walk():
        assert digests.of(store.read(blob.digest)) == blob.digest
    store.expire(-1)
    assert store.statuses() == []
    snapshotter = OverlaySnapshotter(str(tmp_path / "snap"), Database(str(tmp_path / "meta.db")))
    snapshotter.cleanup()
    names = {info.name: info for info in snapshotter.walk("ns")}
    for name in names:
        assert os.path.isdir(snapshotter.layer_directory("ns", name))
        if name.startswith("a"):
            assert f"b{name[1:]}" in names, "a transaction was kept in half"
    assert len(os.listdir(tmp_path / "snap" / "snapshots")) == len(names)
    shutil.rmtree(tmp_path / "snap")


def test_a_sync_makes_the_log_durable_and_folds_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "FOLDED_AT", 1 << 16)
    database = Database(str(tmp_path / "meta.db"))
    database.script("CREATE TABLE t (n INTEGER, x BLOB)")
    synced: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for number in range(200):
        database.run("INSERT INTO t VALUES (?, ?)", (number, bytes(1000)))
    log = tmp_path / "meta.db-wal"
    before = log.stat().st_size
    database.sync()
    assert synced[0] == before > 1 << 16
    for _ in range(50):  # folded in: the log begins again and grows no further
        database.run("UPDATE t SET n = n + 1 WHERE n < 20")
        database.sync()
    assert log.stat().st_size < before + (1 << 17)
    other = sqlite3.connect(tmp_path / "meta.db")
    assert other.execute("SELECT count(*) FROM t").fetchone() == (200,)
    other.close()
    database.close()


def test_a_sync_waits_for_no_writer_and_no_writer_for_it(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "meta.db"))
    database.script("CREATE TABLE t (n INTEGER)")
    stop, errors = threading.Event(), list[BaseException]()

    def sync() -> None:
        while not stop.is_set():
            try:
                database.sync()
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=sync) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        with database.transaction():
            database.run("INSERT INTO t VALUES (?)", (number,))
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert database.row("SELECT count(*) FROM t") == (2000,)
    database.close()
    assert sqlite3.connect(tmp_path / "meta.db").execute("SELECT count(*) FROM t").fetchone() == (2000,)

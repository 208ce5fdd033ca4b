"""The parts that umoci's verbs are made of: owners, tar headers, mtree manifests, times, what people are shown."""

import io
import tarfile
from pathlib import Path

import pytest

from boxship.errors import InvalidArgument, ResourceExhausted
from boxship.image import mtree
from boxship.image.idmap import IdMap, Mapping, decode_owner, encode_owner, parse_mapping
from boxship.image.limits import Limits
from boxship.image.mutate import encode_config, parse_time
from boxship.image.named import is_valid_name
from boxship.image.tarwriter import BLOCK, DIRECTORY, END, SYMLINK, Header
from boxship.tools.umoci.statview import human_size, quote

# ── Owners ──


@pytest.mark.parametrize(
    ("uid", "gid", "message"),
    [(992, 123, "08e007107b"), (0xFFFFFFFF, 456, "08ffffffff0f10c803"), (98, 0xFFFFFFFF, "086210ffffffff0f")],
)
def test_recorded_owners_are_rootless_containers_messages(uid: int, gid: int, message: str) -> None:
    assert encode_owner(uid, gid).hex() == message
    assert decode_owner(bytes.fromhex(message)) == (uid, gid)


@pytest.mark.parametrize("message", [b"\x08", b"\x08\xff", b"\x18\x01", b"\x08" + b"\xff" * 6, b"text"])
def test_a_damaged_record_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidArgument, match="rootlesscontainers"):
        decode_owner(message)


def test_owners_go_to_the_host_and_back() -> None:
    idmap = IdMap((Mapping(0, 1000), Mapping(1, 100_000, 65_535)), (Mapping(0, 2000, 10),))
    assert idmap.to_host(0, 3) == (1000, 2003)
    assert idmap.to_host(5, 0) == (100_004, 2000)
    assert idmap.to_container(100_004, 2009) == (5, 9)
    with pytest.raises(InvalidArgument, match="gid 10"):
        idmap.to_host(0, 10)


def test_without_privileges_every_file_is_ours_and_its_owner_is_kept_beside_it() -> None:
    idmap = IdMap((Mapping(0, 1000),), (Mapping(0, 1000),), rootless=True)
    assert idmap.to_host(33, 0) == (1000, 1000)
    kept = idmap.record(33, 0)
    assert kept is not None
    assert idmap.to_container(1000, 1000, kept) == (33, 0)
    assert idmap.record(0, 0) is None


@pytest.mark.parametrize("text", ["", "1", "1:2:3:4", "a:b", "-1:0:1", "0:4294967295:2", "0:0:1.5"])
def test_a_mapping_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--uid-map"):
        parse_mapping(text, "--uid-map")


# ── Tar headers ──

HEADERS = {
    "a file": Header(b"etc/passwd", mode=0o644, uid=1, gid=2, mtime_ns=1_700_000_000_000_000_000),
    "a directory": Header(b"usr/share/", DIRECTORY, 0o755),
    "a name of exactly a hundred bytes": Header(b"n" * 100),
    "a name that is split": Header(b"d" * 90 + b"/" + b"e" * 60 + b"/f"),
    "a name that cannot be split": Header(b"n" * 240),
    "a directory whose name is long": Header(b"/".join([b"d" * 60] * 4) + b"/", DIRECTORY, 0o755),
    "a name that is no ASCII": Header("fünf/変な字".encode()),
    "a long link": Header(b"l", SYMLINK, 0o777, linkname=b"t" * 300),
    "large numbers": Header(b"big", uid=3_000_000, gid=4_000_000_000, size=0),
    "parts of a second": Header(b"now", mtime_ns=1_700_000_000_123_456_700),
    "a time before 1970": Header(b"old", mtime_ns=-1_500_000_000),
    "attributes": Header(b"x", xattrs={"user.b": b"2", "user.a": bytes(range(1, 256))}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_read_by_others_as_they_were_meant(name: str) -> None:
    header = HEADERS[name]
    encoded = header.encode()
    assert len(encoded) % BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(encoded + END), encoding="utf-8", errors="surrogateescape") as tar:
        (info,) = tar
    assert info.name.encode("utf-8", "surrogateescape") == header.name.rstrip(b"/")
    assert (info.mode, info.uid, info.gid) == (header.mode, header.uid, header.gid)
    assert info.linkname.encode() == header.linkname
    assert abs(float(info.mtime) - header.mtime_ns / 1e9) < 1e-5
    for key, value in header.xattrs.items():
        assert info.pax_headers[f"SCHILY.xattr.{key}"].encode("utf-8", "surrogateescape") == value


def test_a_plain_header_is_one_block_as_gos_archive_tar_writes_it() -> None:
    block = HEADERS["a file"].encode()
    assert len(block) == BLOCK
    assert (
        block[100:157] == b"0000644\x000000001\x000000002\x0000000000000\x0014524770400\x00" + block[148:156] + b"0"
    )
    assert block[257:265] == b"ustar\x0000"
    assert block[329:345] == b"0000000\x000000000\x00"


# ── mtree ──


@pytest.mark.parametrize(
    ("text", "encoded"),
    [("plain-1.0", "plain-1.0"), ("a b", "a\\040b"),
     ("[#*?", "\\133\\043\\052\\077"), ("a\\b", "a\\\\b"), ("ü", "\\303\\274")],
)  # fmt: skip
def test_names_are_written_as_vis_does_and_read_again(text: str, encoded: str) -> None:
    assert mtree.vis(text) == encoded
    assert mtree.unvis(encoded) == text


def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a dir" / "deeper").mkdir(parents=True)
    (root / "a dir" / "file#1").write_text("one")
    (root / "a dir" / "deeper" / "x").write_text("x")
    (root / "z").write_text("z")
    (root / "link").symlink_to("a dir/file#1")
    (root / "zz").mkdir()
    return root


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    files = mtree.scan(str(tree(tmp_path)))
    out = io.BytesIO()
    mtree.write(files, out.write)
    assert mtree.parse(out.getvalue().decode().splitlines()) == files
    assert mtree.compare(files, mtree.parse(out.getvalue().decode().splitlines())) == []


def test_changes_are_found_with_what_changed(tmp_path: Path) -> None:
    root = tree(tmp_path)
    before = mtree.scan(str(root), ("type", "sha256digest", "link", "mode"))
    (root / "z").write_text("other")
    (root / "link").unlink()
    (root / "new").mkdir()
    found = mtree.compare(before, mtree.scan(str(root), ("type", "sha256digest", "link", "mode")))
    assert [(one.path, one.kind) for one in found] == [("link", "missing"), ("new", "extra"), ("z", "modified")]
    assert str(found[0]) == '"link": missing path'
    assert str(found[2]).startswith('"z": keyword "sha256digest": expected ')


def test_an_archives_whole_seconds_equal_a_files_parts_of_them(tmp_path: Path) -> None:
    old = {"f": {"type": "file", "tar_time": "5.000000000"}}
    assert mtree.compare(old, {"f": {"type": "file", "time": "5.900000000"}}) == []
    assert mtree.compare(old, {"f": {"type": "file", "time": "6.000000000"}})[0].keys == (
        ("tar_time", "5.000000000", "6.000000000"),
    )


@pytest.mark.parametrize("line", ["f \\q type=file", "../f type=file", "f junk"])
def test_a_damaged_manifest_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(InvalidArgument, match="line 2"):
        mtree.parse([". type=dir", line])


# ── Documents, names, sizes ──


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2025-09-05T13:05:10.12345+10:00", "2025-09-05T13:05:10.12345+10:00"),
        ("1997-03-25T13:40:00+00:00", "1997-03-25T13:40:00Z"),
        ("1997-03-25T13:40:00.500000Z", "1997-03-25T13:40:00.5Z"),
    ],
)
def test_times_are_shown_as_go_shows_them(text: str, shown: str) -> None:
    assert parse_time(text, "--created") == shown


@pytest.mark.parametrize("text", ["", "invalid date", "2025-09-05", "2025-09-05T13:05:10", "2025-13-05T13:05:10Z"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="RFC 3339"):
        parse_time(text, "--created")


def test_configs_are_written_as_gos_tools_write_them() -> None:
    config = {"rootfs": {"type": "layers", "diff_ids": []}, "config": {"Cmd": [], "User": "a<b"}, "os": "linux"}
    config |= {"architecture": "amd64", "created": "2025-01-01T00:00:00Z", "ours": 1, "author": ""}
    assert encode_config(config) == (
        b'{"created":"2025-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"a\\u003cb"},'
        b'"rootfs":{"type":"layers","diff_ids":[]},"ours":1}\n'
    )


@pytest.mark.parametrize(("name", "valid"), [("latest", True), ("a/b:1", True), ("a--b", True), ("", False),
                                             (".AZ94n18s", False), ("a//b", False), ("a---b", False)])  # fmt: skip
def test_names_are_those_of_the_image_spec(name: str, valid: bool) -> None:
    assert is_valid_name(name) is valid


def test_sizes_and_texts_are_shown_as_umoci_shows_them() -> None:
    assert [human_size(n) for n in (0, 442, 1107, 1_093_000)] == ["0B", "442B", "1.107kB", "1.093MB"]
    assert quote("plain") == "plain"
    assert quote("a\tb") == '"a\\tb"'
    assert quote("", precise=True) == '""'
    assert quote("a b", precise=True) == '"a b"'
    assert quote("\x07\x7f") == '"\\a\\x7f"'


def test_a_limit_names_itself_and_its_remedy() -> None:
    with pytest.raises(ResourceExhausted, match=r"limit 'entries'.*raise Limits\(entries=\.\.\.\)"):
        Limits(entries=1).check_entries(2, "layer")

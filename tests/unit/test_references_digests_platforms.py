"""References, digests and platforms: tables of what goes in and what comes out."""

import io

import pytest

from boxship.errors import DataLoss, InvalidArgument
from boxship.oci import digest, platform, reference
from boxship.oci import image as oci

HEX = "a" * 64
SHA = f"sha256:{HEX}"

NORMALISED = [
    # given, complete, familiar
    ("busybox", "docker.io/library/busybox", "busybox"),
    ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
    ("library/busybox", "docker.io/library/busybox", "busybox"),
    ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
    ("index.docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
    ("user/app", "docker.io/user/app", "user/app"),
    ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
    ("localhost/app", "localhost/app", "localhost/app"),
    ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
    ("quay.io/a/b/c", "quay.io/a/b/c", "quay.io/a/b/c"),
    ("Host/app", "Host/app", "Host/app"),
    ("127.0.0.1:5000/app", "127.0.0.1:5000/app", "127.0.0.1:5000/app"),
    ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app"),
    (f"busybox@{SHA}", f"docker.io/library/busybox@{SHA}", f"busybox@{SHA}"),
    (f"busybox:1@{SHA}", f"docker.io/library/busybox:1@{SHA}", f"busybox:1@{SHA}"),
    ("a__b--c.d_e", "docker.io/library/a__b--c.d_e", "a__b--c.d_e"),
]


@pytest.mark.parametrize(("given", "complete", "familiar"), NORMALISED)
def test_a_reference_is_normalised_and_shortened_as_docker_does(given: str, complete: str, familiar: str) -> None:
    parsed = reference.parse(given)
    assert str(parsed) == complete
    assert parsed.familiar == familiar
    assert reference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    ["", ":tag", "@" + SHA, "Upper", "user/Upper", "a//b", "-a", "a-", "a:b:c", "a:" + "x" * 129, "a:!", HEX,
     "a@sha256:short", "a@md5:" + HEX, "a___b", "ex ample", "a/../b", "x" * 256],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        reference.parse(text)


def test_a_default_tag_is_added_only_when_nothing_else_pins_the_image() -> None:
    assert reference.normalise("busybox") == "docker.io/library/busybox:latest"
    assert reference.normalise(f"busybox@{SHA}") == f"docker.io/library/busybox@{SHA}"
    assert reference.familiar("not a reference") == "not a reference"


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, "sha256:../../etc",
     "../x:" + HEX, SHA + "\n"],
)  # fmt: skip
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        digest.parse(text)


def test_a_verifying_reader_raises_at_its_end_whatever_the_read_size() -> None:
    data = bytes(range(256)) * 10
    for size in (1, 7, 4096, -1):
        good = digest.VerifyingReader(io.BytesIO(data), digest.Verifier(digest.of(data), len(data)))
        while good.read(size):
            pass
        bad = digest.VerifyingReader(io.BytesIO(data + b"x"), digest.Verifier(digest.of(data)))
        with pytest.raises(DataLoss, match="digest"):
            bad.drain(size)


def test_a_stream_longer_than_its_size_is_refused_before_its_end() -> None:
    verifier = digest.Verifier(size=3)
    verifier.update(b"abc")
    with pytest.raises(DataLoss, match="longer"):
        verifier.update(b"d")
    with pytest.raises(DataLoss, match="cut short"):
        digest.Verifier(size=3).finish()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("linux/x86_64", "linux/amd64"), ("linux/aarch64", "linux/arm64"), ("linux/arm64/v8", "linux/arm64"),
     ("linux/armhf", "linux/arm/v7"), ("linux/arm", "linux/arm/v7"), ("linux/arm/v6", "linux/arm/v6"),
     ("linux/i686", "linux/386"), ("Linux/AMD64", "linux/amd64")],
)  # fmt: skip
def test_a_platform_is_spelled_as_go_does(given: str, expected: str) -> None:
    assert str(platform.parse(given)) == expected


def test_the_best_platform_is_the_exact_one_then_the_newest_that_runs() -> None:
    offered = [platform.parse(p) for p in ("linux/arm/v5", "linux/arm/v6", "linux/arm64")]
    assert platform.best(platform.parse("linux/arm/v7"), offered) == 1
    assert platform.best(platform.parse("linux/arm/v5"), offered) == 0
    assert platform.best(platform.parse("linux/amd64"), offered) is None


def test_chain_ids_are_those_of_the_image_spec() -> None:
    a, b = digest.of(b"a"), digest.of(b"b")
    assert oci.chain_ids([a, b]) == [a, digest.of(f"{a} {b}".encode())]
    assert oci.chain_ids([]) == []


def test_a_document_that_is_both_index_and_manifest_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="both"):
        oci.document_media_type(b'{"manifests":[],"layers":[]}', "document")
    assert oci.document_media_type(b'{"manifests":[]}', "document") == oci.MEDIA_INDEX

"""umoci's command line: what is said where, exit codes, and that nobody sees a traceback."""

import json
import os
from pathlib import Path

import pytest

from boxship.image.layout import Layout
from boxship.tools.umoci import RAW, VERBS
from boxship.tools.umoci.main import load, main, run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    assert main(["init", "--layout", str(path)]) == 0
    assert main(["new", "--image", f"{path}:base"]) == 0
    return path


def stat(capsys: pytest.CaptureFixture[str], image: str) -> dict[str, dict[str, dict[str, object]]]:
    capsys.readouterr()
    assert main(["stat", "--json", "--image", image]) == 0
    found: dict[str, dict[str, dict[str, object]]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([verb, "--help"], [verb, "-h"], ["help", verb]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("NAME:\n   umoci ")


@pytest.mark.parametrize("verb", RAW)
def test_every_raw_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["raw", verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith("NAME:\n   umoci raw ")


BAD = {
    "an unknown verb": ["frobnicate"],
    "an unknown flag": ["ls", "--frobnicate"],
    "no image": ["stat"],
    "an empty path": ["stat", "--image", ":x"],
    "an empty name": ["stat", "--image", "IMAGES:"],
    "a name that is none": ["stat", "--image", "IMAGES:.x"],
    "a name that is not there": ["stat", "--image", "IMAGES:other"],
    "a layout that is not there": ["ls", "--layout", "IMAGES-other"],
    "a layout with a colon": ["ls", "--layout", "IMAGES:base"],
    "a layout that exists": ["init", "--layout", "IMAGES"],
    "too many arguments": ["ls", "--layout", "IMAGES", "more"],
    "too few arguments": ["unpack", "--image", "IMAGES:base"],
    "an empty bundle": ["unpack", "--image", "IMAGES:base", ""],
    "no bundle": ["repack", "--image", "IMAGES:base", "IMAGES"],
    "a mapping that is none": ["unpack", "--image", "IMAGES:base", "--uid-map", "x", "IMAGES-bundle"],
    "a compression that is none": ["insert", "--image", "IMAGES:base", "--compress=lzma", "IMAGES", "/x"],
    "a whiteout of a whiteout": ["insert", "--image", "IMAGES:base", "--whiteout", "/.wh.x"],
    "history twice": ["config", "--image", "IMAGES:base", "--no-history", "--history.author", "me"],
    "a date that is none": ["config", "--image", "IMAGES:base", "--created", "today"],
    "a variable without a value": ["config", "--image", "IMAGES:base", "--config.env", "PATH"],
    "a field that cannot be cleared": ["config", "--image", "IMAGES:base", "--clear", "rootfs.diffids"],
    "a log level that is none": ["--log=loud", "ls", "--layout", "IMAGES"],
    "two log levels": ["--log=debug", "--verbose", "ls", "--layout", "IMAGES"],
    "a layer that is not there": ["raw", "add-layer", "--image", "IMAGES:base", "IMAGES-layer.tar"],
    "a layer that is a directory": ["raw", "add-layer", "--image", "IMAGES:base", "IMAGES"],
    "an unknown raw verb": ["raw", "frobnicate"],
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_exit_code_1(images: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    index = (images / "index.json").read_bytes()
    assert main([word.replace("IMAGES", str(images)) for word in BAD[name]]) == 1
    said = capsys.readouterr().err
    assert said.startswith("umoci: ")
    assert said.count("\n") == 1
    assert (images / "index.json").read_bytes() == index
    assert Layout(str(images)).sweep() == []


def test_flags_may_have_one_dash_and_stand_after_arguments(images: Path) -> None:
    assert main(["tag", "other", "-image", f"{images}:base"]) == 0
    assert [entry.name for entry in Layout(str(images)).entries()] == ["base", "other"]


def test_config_changes_every_field_and_clears(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--config.user 1:2 --config.cmd -c --config.cmd ls --config.env A=1 --config.env B=2 --config.label x=y"
    words += " --config.volume /v --config.exposedports 80/tcp --os linux --architecture riscv64 --author me"
    assert main(["config", "--image", f"{images}:base", "--tag", "new", *words.split()]) == 0
    assert main(["config", "--image", f"{images}:new", "--config.env", "A=3"]) == 0
    document = stat(capsys, f"{images}:new")["config"]["blob"]
    assert (document["author"], document["architecture"]) == ("me", "riscv64")
    assert document["config"] == {
        "User": "1:2", "Cmd": ["-c", "ls"], "Env": ["A=3", "B=2"], "Labels": {"x": "y"}, "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}},
    }  # fmt: skip
    assert main(["config", "--image", f"{images}:new", "--clear=config.env", "--clear", "config.volume"]) == 0
    assert "Env" not in stat(capsys, f"{images}:new")["config"]["blob"]["config"]  # type: ignore[operator]  # JSON


def test_fields_that_nobody_knows_survive_a_change(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(str(images))
    from boxship.image import mutate, named

    mutation = mutate.Mutation(layout, named.resolve(layout, "base"))
    mutation.config["vendor.note"] = {"kept": True}
    layout.tag("base", mutation.commit().root)
    assert main(["config", "--image", f"{images}:base", "--author", "me"]) == 0
    assert stat(capsys, f"{images}:base")["config"]["blob"]["vendor.note"] == {"kept": True}


def test_the_same_steps_give_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("x")
    digests = []
    for name in ("one", "two"):
        layout = str(tmp_path / name)
        os.utime(tmp_path / "tree" / "f")
        assert main(["init", "--layout", layout]) == 0
        assert main(["new", "--image", layout]) == 0
        assert main(["insert", "--image", layout, str(tmp_path / "tree"), "/srv"]) == 0
        digests.append(Layout(layout).find("latest")[0].digest)
    assert digests[0] == digests[1]


def test_gc_removes_what_no_name_leads_to_and_nothing_else(images: Path) -> None:
    assert main(["config", "--image", f"{images}:base", "--author", "me"]) == 0
    (images / "stray").mkdir()
    layout = Layout(str(images))
    assert len([*layout.blobs()]) == 4
    assert main(["gc", "--layout", str(images)]) == 0
    assert len([*layout.blobs()]) == 2
    assert sorted(os.listdir(images)) == ["blobs", "index.json", "oci-layout"]
    assert main(["stat", "--image", f"{images}:base"]) == 0


def test_verbs_are_found_without_importing_the_library() -> None:
    assert {load(verb).name for verb in VERBS} == {
        "config", "gc", "init", "insert", "list", "new", "raw", "remove", "repack", "stat", "tag", "unpack",
    }  # fmt: skip
    assert run(["help"]) == 0

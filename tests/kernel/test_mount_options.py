"""What the words of ``mounts[].options`` do, as a container sees it."""

import os
import stat
from collections.abc import Iterator

import pytest

from boxship.errors import InvalidArgument, StepFailed
from tests.kernel.bundle_fixture import Bundle, needs_root, new_bundle

pytestmark = needs_root
ROOT_MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


def mount(
    bundle: Bundle, destination: str, type: str, options: "list[str]", source: str = "", **more: object
) -> None:
    entry = {"destination": destination, "type": type, "source": source or type, "options": options, **more}
    bundle.spec["mounts"].append(entry)


def mounted(bundle: Bundle, point: str) -> "tuple[list[str], list[str]]":
    """(options of the mount, of its file system) that the container sees on a point."""
    code, text = bundle.output("cat", "/proc/self/mountinfo")
    assert code == 0
    for line in reversed(text.splitlines()):
        left, _, right = line.partition(" - ")
        if left.split()[4] == point:
            return left.split()[5].split(","), right.split()[2].split(",")
    raise AssertionError(f"nothing is mounted on {point}")


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        (["ro"], ["ro"], ["rw"]),
        (["ro", "rw"], ["rw"], ["ro"]),
        (["nosuid", "noexec", "nodev"], ["nosuid", "noexec", "nodev"], []),
        (["nosuid", "suid"], [], ["nosuid"]),
        (["noatime"], ["noatime"], ["relatime"]),
        (["strictatime"], [], ["relatime", "noatime"]),
        (["nodiratime"], ["nodiratime"], []),
        (["nosymfollow"], ["nosymfollow"], []),
    ],
)
@pytest.mark.parametrize("type", ["tmpfs", "bind"])
def test_words_that_are_attributes(
    bundle: Bundle, type: str, words: "list[str]", there: "list[str]", not_there: "list[str]"
) -> None:
    mount(bundle, "/m", type, words, str(bundle.path) if type == "bind" else "")
    options, _ = mounted(bundle, "/m")
    assert set(there) <= set(options)
    assert not set(not_there) & set(options)


def test_words_that_are_of_the_file_system(bundle: Bundle) -> None:
    mount(bundle, "/m", "tmpfs", ["size=64k", "nr_inodes=7", "mode=700", "sync", "x-for.another", "defaults"])
    data = mounted(bundle, "/m")[1]
    assert {"size=64k", "nr_inodes=7", "mode=700"} <= set(data)


def test_recursive_words_reach_what_is_mounted_below(bundle: Bundle) -> None:
    mount(bundle, "/m", "bind", ["rbind", "ro"], "/sys")
    assert "rw" in mounted(bundle, "/m/fs/cgroup")[0]
    bundle.spec["mounts"][-1]["options"] = ["rbind", "rro", "rnosuid"]
    options, _ = mounted(bundle, "/m/fs/cgroup")
    assert {"ro", "nosuid"} <= set(options)


@pytest.mark.parametrize(("words", "field"), [(["rslave"], "master:"), (["rshared"], "shared:"), (["rprivate"], "")])
def test_propagation(bundle: Bundle, words: "list[str]", field: str) -> None:
    mount(bundle, "/m", "bind", ["rbind", *words], str(bundle.path))
    _, text = bundle.output("grep", " /m ", "/proc/self/mountinfo")
    if field == "shared:":
        assert field in text
    elif not field:
        assert "shared:" not in text
        assert "master:" not in text


def test_a_tmpfs_has_the_mode_of_the_directory_that_it_covers(bundle: Bundle) -> None:
    place = bundle.path / "rootfs/kept"
    place.mkdir()
    place.chmod(0o1712)
    mount(bundle, "/kept", "tmpfs", ["ro"])
    mount(bundle, "/new", "tmpfs", [])
    _, text = bundle.output("ls", "-ld", "/kept", "/new")
    assert [line.split()[0] for line in text.splitlines()] == ["drwx--x-wT", "drwxrwxrwt"]


def test_a_tmpfs_that_is_read_only_is_so_only_once_all_is_in_it(bundle: Bundle) -> None:
    for entry in bundle.spec["mounts"]:
        if entry["destination"] == "/dev":
            entry["options"].append("ro")
    code, text = bundle.output("sh", "-c", "ls /dev; touch /dev/x")
    assert code == 1
    assert {"null", "pts", "shm", "fd"} <= set(text.split())
    assert "Read-only file system" in text


def test_tmpcopyup_brings_what_was_there(bundle: Bundle) -> None:
    place = bundle.path / "rootfs/data"
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("content " * 20000)
    (place / "sub/link").symlink_to("../file")
    os.mkfifo(place / "sub/fifo", 0o640)
    os.chown(place / "file", 7, 8)
    (place / "file").chmod(0o4755)
    os.chown(place / "sub", 9, 10)
    mount(bundle, "/data", "tmpfs", ["tmpcopyup", "ro"])
    script = "ls -ln /data | grep -v total; ls -l /data/sub; cat /data/sub/link | wc -c; touch /data/x"
    (bundle.path / "rootfs/bin/wc").symlink_to("busybox")
    code, text = bundle.output("sh", "-c", script)
    assert code == 1
    lines = text.splitlines()
    assert lines[0].split()[:5] == ["-rwsr-xr-x", "1", "7", "8", "160000"]
    assert lines[1].split()[:4] == ["drwxr-xr-x", "2", "9", "10"]
    assert any(line.startswith("prw-r-----") for line in lines)
    assert any(line.endswith("link -> ../file") for line in lines)
    assert "160000" in lines
    assert "Read-only" in lines[-1]
    mount(bundle, "/", "tmpfs", ["tmpcopyup"])
    with pytest.raises(InvalidArgument, match="tmpcopyup has nothing to copy"):
        bundle.create("true")


@pytest.mark.parametrize("word", ["idmap", "ridmap"])
@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_mount_with_id_maps_of_its_own(bundle: Bundle, word: str, user_namespace: bool) -> None:
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").touch()
    if user_namespace:
        bundle.spec["linux"]["namespaces"].append({"type": "user"})
        bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = ROOT_MAP
        bundle.path.chmod(0o755)
        os.chown(bundle.path / "rootfs", 100000, 100000)
    to = 100005 if user_namespace else 5
    maps = [{"containerID": 0, "hostID": to, "size": 10}]
    mount(bundle, "/m", "bind", ["rbind", word], str(source), uidMappings=maps, gidMappings=maps)
    _, text = bundle.output("ls", "-n", "/m/file")
    assert text.split()[2:4] == ["5", "5"]


def test_a_mount_takes_the_maps_of_the_container_or_those_of_its_option(bundle: Bundle) -> None:
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").touch()
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = ROOT_MAP
    bundle.path.chmod(0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    mount(bundle, "/m", "bind", ["bind", "idmap"], str(source))
    mount(bundle, "/n", "bind", ["bind", "idmap=uids=0-100007-1;gids=@0-8-1"], str(source))
    _, text = bundle.output("ls", "-n", "/m/file", "/n/file")
    assert [line.split()[2:4] for line in text.splitlines()] == [["0", "0"], ["7", "8"]]


@pytest.mark.parametrize("user_namespace", [None, "own", "joined"])
@pytest.mark.parametrize("word", ["idmap", "ridmap"])
def test_an_id_map_of_what_earlier_mounts_made(bundle: Bundle, word: str, user_namespace: "str | None") -> None:
    """Also when the container's root may not reach the source on the host, and through a link of the image."""
    linux, rootfs = bundle.spec["linux"], bundle.path / "rootfs"
    source = bundle.path / "source"
    for name in ("top", "below"):
        (source / name / "place").mkdir(parents=True)
        (source / name / "file").write_text(name)
    source.chmod(0o700)
    (rootfs / "link").symlink_to("/made")
    bundle.path.chmod(0o755)
    if user_namespace:
        os.chown(rootfs, 100000, 100000)
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = ROOT_MAP
    if user_namespace == "joined":
        holder = bundle.create("sleep", "100")
        holder.start()
        linux["namespaces"][-1]["path"] = f"/proc/{holder.pid}/ns/user"
        del linux["uidMappings"], linux["gidMappings"]
    to = 100005 if user_namespace else 5
    own = [{"containerID": 0, "hostID": to, "size": 10}]
    mount(bundle, "/made", "bind", ["rbind"], str(source / "top"))
    mount(bundle, "/made/place", "bind", ["rbind"], str(source / "below"))
    mount(bundle, "/own", "bind", ["rbind", word], str(rootfs / "link"), uidMappings=own, gidMappings=own)
    script = "cat /own/file /own/place/file; ls -n /own/file /own/place/file"
    if user_namespace:
        mount(bundle, "/container", "bind", ["bind", "idmap"], str(rootfs / "made/place"))
        script += "; ls -n /container/file"
    code, text = bundle.output("sh", "-c", script)
    assert code == 0, text
    assert text.startswith("topbelow")
    below = "5" if word == "ridmap" else "65534" if user_namespace else "0"
    owners = [line.split()[2] for line in text.removeprefix("topbelow").splitlines()]
    assert owners == ["5", below, *(["0"] if user_namespace else [])]


def test_an_id_map_of_a_source_that_nothing_made_says_where(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = ROOT_MAP
    bundle.path.chmod(0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    mount(bundle, "/m", "bind", ["bind", "idmap"], str(bundle.path / "rootfs/nosuch"))
    with pytest.raises(
        StepFailed, match=r"step \d+ of \d+: open /nosuch of the container, to be bind-mounted.*ENOENT"
    ):
        bundle.create("true")
    bundle.spec["mounts"][-1]["source"] = str(bundle.path / "rootfs/proc")  # procfs cannot be mapped
    with pytest.raises(StepFailed, match=r"mounts\[\d+\] on /m: map the ids of /proc of the container.*EINVAL"):
        bundle.create("true")


def test_an_id_map_that_makes_no_sense_is_refused(bundle: Bundle) -> None:
    mount(bundle, "/m", "tmpfs", ["idmap"])
    with pytest.raises(InvalidArgument, match="only a bind mount can be id-mapped"):
        bundle.create("true")
    bundle.spec["mounts"][-1] = {"destination": "/m", "source": "/", "options": ["bind", "idmap=uids=0-1"]}
    with pytest.raises(InvalidArgument, match="'0-1' is not FROM-TO-SIZE"):
        bundle.create("true")
    bundle.spec["mounts"][-1] = {"destination": "/m", "source": "/", "options": ["bind", "idmap"]}
    with pytest.raises(InvalidArgument, match="needs both uidMappings and gidMappings"):
        bundle.create("true")


def test_links_are_followed_kept_or_copied(bundle: Bundle) -> None:
    target, source = bundle.path / "target", bundle.path / "source"
    target.write_text("of the target\n")
    source.symlink_to(target)
    (bundle.path / "rootfs/place").symlink_to("nowhere")
    mount(bundle, "/place", "bind", ["bind", "dest-nofollow"], str(source))
    mount(bundle, "/kept", "bind", ["bind", "src-nofollow", "dest-nofollow"], str(source))
    mount(bundle, "/a/copy", "bind", ["bind", "copy-symlink"], str(source))
    script = "cat /place; ls -l /kept /a/copy | sed 's/.* -> //'"
    (bundle.path / "rootfs/bin/sed").symlink_to("busybox")
    code, text = bundle.output("sh", "-c", script)
    assert (code, text.splitlines()) == (0, ["of the target", str(target), str(target)])


def test_a_link_that_leads_to_nothing_gets_its_place_made_inside(bundle: Bundle) -> None:
    (bundle.path / "rootfs/etc").mkdir()
    (bundle.path / "rootfs/etc/conf").symlink_to("../../../far/away/conf")
    (bundle.path / "file").write_text("here\n")
    mount(bundle, "/etc/conf", "bind", ["bind"], str(bundle.path / "file"))
    code, text = bundle.output("cat", "/far/away/conf", "/etc/conf")
    assert (code, text) == (0, "here\nhere\n")


def test_relative_destinations_and_sources(bundle: Bundle) -> None:
    (bundle.path / "data").mkdir()
    (bundle.path / "data/file").write_text("here\n")
    mount(bundle, "relative//place/", "bind", ["bind"], "data")
    assert bundle.output("cat", "/relative/place/file") == (0, "here\n")


def test_a_mount_on_the_root_is_the_root(bundle: Bundle) -> None:
    other = bundle.path / "other"
    (bundle.path / "rootfs").rename(other)
    (bundle.path / "rootfs").mkdir()
    entry = {"destination": "/", "type": "bind", "source": str(other), "options": ["bind"]}
    bundle.spec["mounts"].insert(0, entry)
    assert bundle.output("echo", "there") == (0, "there\n")


def test_remount_changes_the_mount_that_is_there(bundle: Bundle) -> None:
    mount(bundle, "/m", "tmpfs", [])
    mount(bundle, "/m", "none", ["remount", "ro", "nosuid"])
    assert {"ro", "nosuid"} <= set(mounted(bundle, "/m")[0])


def test_devices_in_a_user_namespace_have_the_owners_and_modes_of_the_spec(bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = ROOT_MAP
    bundle.path.chmod(0o755)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    bundle.spec["linux"]["devices"] = [
        {"path": "/dev/not/on/the/host", "type": "c", "major": 1, "minor": 5, "uid": 3, "gid": 4, "fileMode": 0o644}
    ]
    bundle.spec["linux"]["resources"] = {
        "devices": [{"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}]
    }
    code, text = bundle.output("sh", "-c", "ls -ln /dev/not/on/the/host; head -c 3 /dev/not/on/the/host | od -c")
    assert code == 0, text
    assert text.split()[:6] == ["crw-r--r--", "1", "3", "4", "1,", "5"]
    assert "\\0" in text
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

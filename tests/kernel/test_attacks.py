"""Each test tries an attack that once worked on a container runtime, or that our own design would invite."""

import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from boxship.errors import InvalidArgument, StepFailed
from boxship.libcontainer.process import Stdio, Terminal
from boxship.libcontainer.spawning import executor_path
from boxship.linux.abi.process import CAPABILITIES
from tests.kernel.bundle_fixture import OWN_IDS, Bundle, needs_root, new_bundle, pipe, read_all

pytestmark = needs_root


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with new_bundle() as made:
        yield made


def _plain(_bundle: Bundle) -> "dict[str, Any]":
    return {}


def _in_a_user_namespace(bundle: Bundle) -> "dict[str, Any]":
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = OWN_IDS
    return {}


def _with_hooks(bundle: Bundle) -> "dict[str, Any]":
    bundle.spec["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
    return {}


def _with_a_mount_on_the_root(bundle: Bundle) -> "dict[str, Any]":
    bundle.spec["mounts"].insert(
        0, {"destination": "/", "type": "bind", "source": str(bundle.path / "rootfs"), "options": ["bind"]}
    )
    return {}


def _with_several_root_mounts(bundle: Bundle) -> "dict[str, Any]":
    rootfs = str(bundle.path / "rootfs")
    return {"rootfs_mounts": [("tmpfs", "tmpfs", []), ("bind", rootfs, ["bind"])]}


@pytest.mark.parametrize(
    "prepare",
    [_plain, _in_a_user_namespace, _with_hooks, _with_a_mount_on_the_root, _with_several_root_mounts],
    ids=lambda prepare: prepare.__name__[1:],
)
def test_nothing_of_the_host_lies_over_or_under_the_root(bundle: Bundle, prepare: Any) -> None:
    """setns(2) leads to what lies over the root: an old root that stayed there would be the host's whole tree."""
    options = prepare(bundle)
    container = bundle.create("sleep", "100", **options)
    container.start()
    points = [line.split()[4] for line in Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()]
    assert points.count("/") == 1
    outside = {"/" + name for name in ("tmp", "run", "mnt", "boot", "home", "root")}
    assert not outside.intersection(points)
    process = container.exec({"args": ["/bin/sh", "-c", "test ! -e /usr && test ! -e /etc/hostname"], "cwd": "/"})
    assert process.wait() == 0


def link(bundle: Bundle, name: str, target: str) -> None:
    path = bundle.path / "rootfs" / name
    if path.exists() and not path.is_symlink():
        shutil.rmtree(path)
    path.symlink_to(target)


def without_mount(bundle: Bundle, destination: str) -> None:
    bundle.spec["mounts"] = [m for m in bundle.spec["mounts"] if not m["destination"].startswith(destination)]


@contextmanager
def swapping(path: Path, outside: Path) -> "Iterator[None]":
    """Until the end another thread makes ``path`` a directory, then a link to ``outside``, as fast as it can."""
    stop = threading.Event()
    spare, other = path.with_name(path.name + ".dir"), path.with_name(path.name + ".link")
    spare.mkdir()
    other.symlink_to(outside)

    def swap() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        while not stop.is_set():
            for name in (spare, other):
                # renameat2(AT_FDCWD, ..., RENAME_EXCHANGE): there is always one of the two
                libc.renameat2(-100, bytes(name), -100, bytes(path), 2)

    path.mkdir()
    thread = threading.Thread(target=swap, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def names_below(path: Path) -> "list[str]":
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


# ── The process before it is the program ──


def test_cve_2016_9962_the_waiting_process_shows_nothing_to_the_container(bundle: Bundle) -> None:
    """Before the exec it has the creator's descriptors; who may trace it could take them."""
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    container = bundle.create("sleep", "100")
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "Uid:\t1000" in status
    assert os.stat(f"/proc/{container.pid}/status").st_uid == 0  # not dumpable: root's, not the user's
    script = "ls /proc/1/fd || echo refused; cat /proc/1/exe || echo refused"
    with pipe() as (read, write):
        user = {"uid": 1000, "gid": 1000}
        args = {"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": user}
        process = container.exec(args, stdio=Stdio(-1, write, -1))
        os.close(write)
        assert read_all(read) == "refused\nrefused\n"
    assert process.wait() == 0


def test_cve_2019_5736_the_runtime_on_the_host_cannot_be_overwritten(bundle: Bundle) -> None:
    """/proc/PID/exe of the waiting process is a sealed copy, even for a root with every capability."""
    executor = Path(executor_path())
    before = executor.read_bytes()
    every = list(CAPABILITIES)
    bundle.spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    container = bundle.create("sleep", "100")
    script = "echo pwned > /proc/1/exe; dd if=/bin/busybox of=/proc/1/exe 2>/dev/null; sha1sum /proc/1/exe; echo done"
    with pipe() as (read, write):
        args = {"args": ["/bin/busybox", "sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"]}
        process = container.exec(args, stdio=Stdio(-1, write, write))
        os.close(write)
        text = read_all(read)
    assert process.wait() == 0
    assert "done" in text
    assert executor.read_bytes() == before
    # The program may also be /proc/self/exe itself: then it is the copy, which finds nobody to talk to.
    code, _ = bundle.output("/proc/self/exe")
    assert code != 0
    assert executor.read_bytes() == before


def test_cve_2022_29162_no_capability_is_inheritable_by_default(bundle: Bundle) -> None:
    assert not bundle.spec["process"]["capabilities"].get("inheritable")
    bundle.spec["process"]["capabilities"]["inheritable"] = []
    code, text = bundle.output("sh", "-c", "grep -e CapInh -e CapAmb /proc/self/status")
    assert code == 0
    assert text.split() == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16]


def test_the_program_has_no_descriptor_that_it_was_not_given(bundle: Bundle) -> None:
    held = [os.open("/", os.O_RDONLY), os.open("/etc/passwd", os.O_RDONLY)]
    for fd in held:
        os.set_inheritable(fd, True)
    try:
        code, text = bundle.output("ls", "/proc/self/fd")
    finally:
        for fd in held:
            os.close(fd)
    assert (code, text.split()) == (0, ["0", "1", "2", "3"])  # 3 is ls's own


@pytest.mark.parametrize("number", range(3, 24))
def test_cve_2024_21626_the_working_directory_cannot_be_a_descriptor_of_the_host(bundle: Bundle, number: int) -> None:
    bundle.spec["process"]["cwd"] = f"/proc/self/fd/{number}"
    try:
        code, text = bundle.output("sh", "-c", "ls -a; ls -a ..; cat ../../../etc/hostname")
    except StepFailed:
        return  # refused: as it should be
    assert "etc" not in text.split()
    assert code != 0


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 100, 101, 102, 103, 104])
def test_cve_2024_21626_nor_that_of_an_exec(bundle: Bundle, number: int) -> None:
    container = bundle.create("sleep", "100")
    container.start()
    with pytest.raises(StepFailed):
        container.exec({"args": ["/bin/ls"], "cwd": f"/proc/self/fd/{number}"})


@contextmanager
def descriptor_3_of_the_host() -> "Iterator[None]":
    saved = os.dup(3) if os.path.exists("/proc/self/fd/3") else -1
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    if outside != 3:
        os.dup2(outside, 3)
    try:
        yield
    finally:
        if outside != 3:
            os.close(outside)
        if saved >= 0:
            os.dup2(saved, 3)
            os.close(saved)
        else:
            os.close(3)


@pytest.mark.parametrize("number", [3, *range(100, 112)])
def test_cve_2024_21626_nor_one_that_is_handed_on(bundle: Bundle, number: int) -> None:
    with descriptor_3_of_the_host():
        container = bundle.create("sleep", "100")
        container.start()
        with pytest.raises(StepFailed):
            container.exec({"args": ["/bin/ls"], "cwd": f"/proc/self/fd/{number}"}, preserve_fds=1)
        bundle.spec["process"]["cwd"] = f"/proc/self/fd/{number}"
        with pytest.raises(StepFailed):
            bundle.create("ls", preserve_fds=1)


# ── Links in the image, and links that change ──


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_cve_2019_19921_and_2023_27561_a_link_for_the_kernels_files_is_not_followed(
    bundle: Bundle, name: str
) -> None:
    (bundle.path / "rootfs/elsewhere").mkdir()
    link(bundle, name, "/elsewhere")
    with pytest.raises(StepFailed, match=f"/{name}.*EXDEV"):
        bundle.create("true")


def test_cve_2023_28642_a_link_leads_no_mount_into_proc(bundle: Bundle) -> None:
    link(bundle, "innocent", "/proc/self")
    bundle.spec["mounts"].append({"destination": "/innocent/attr", "type": "tmpfs", "source": "tmpfs"})
    with pytest.raises(StepFailed, match="a link in the image leads into /proc"):
        bundle.create("true")


@pytest.mark.parametrize("type", ["tmpfs", "bind"])
def test_cve_2019_16884_only_a_proc_file_system_may_be_proc(bundle: Bundle, type: str) -> None:
    fake = bundle.path / "fake"
    (fake / "self/attr").mkdir(parents=True)
    (fake / "self/attr/exec").touch()
    without_mount(bundle, "/proc")
    bundle.spec["mounts"].insert(0, {"destination": "/proc", "type": type, "source": str(fake), "options": []})
    with pytest.raises(InvalidArgument, match="only a proc file system may be there"):
        bundle.create("true")


def test_cve_2025_52881_a_setting_is_never_written_to_a_file_that_only_looks_like_it(bundle: Bundle) -> None:
    """Without a mount on /proc the image's own files are there: they, and where they lead, stay as they are."""
    without_mount(bundle, "/proc")
    victim = bundle.path / "victim"
    victim.write_text("as it was")
    place = bundle.path / "rootfs/proc/sys/net/ipv4"
    place.mkdir(parents=True)
    (place / "ip_forward").write_text("as it was")
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.spec["linux"]["maskedPaths"] = bundle.spec["linux"]["readonlyPaths"] = []
    with pytest.raises(StepFailed, match=r"set sysctl net\.ipv4\.ip_forward.*EXDEV"):
        bundle.create("true")
    assert (place / "ip_forward").read_text() == "as it was"
    # A mount over the one file is found, too.
    bundle.spec["mounts"].insert(0, {"destination": "/proc", "type": "proc", "source": "proc"})
    (bundle.path / "rootfs/over").mkdir()
    link(bundle, "over/sys", "/proc/sys")
    bundle.spec["mounts"].append(
        {"destination": "/over/sys/net/ipv4/ip_forward", "type": "bind", "source": str(victim), "options": ["bind"]}
    )
    with pytest.raises(StepFailed, match="EXDEV"):
        bundle.create("true")
    assert victim.read_text() == "as it was"


def test_cve_2025_52881_nor_to_what_was_mounted_over_it(bundle: Bundle) -> None:
    victim = bundle.path / "victim"
    victim.write_text("as it was")
    script = f"mount --bind {victim} ./proc/sys/net/ipv4/ip_forward"
    bundle.spec["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    with pytest.raises(StepFailed, match="something is mounted over that file"):
        bundle.create("true")
    assert victim.read_text() == "as it was"


def test_cve_2025_31133_paths_are_masked_by_the_null_device_and_nothing_else(bundle: Bundle) -> None:
    """Without a mount on /dev the image's /dev/null would be bound over what shall be hidden."""
    without_mount(bundle, "/dev")
    (bundle.path / "rootfs/dev").mkdir()
    link(bundle, "dev/null", "/proc/sys/kernel/core_pattern")
    core_pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    with pytest.raises(StepFailed, match=r"mask paths.*EXDEV"):
        bundle.create("true")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core_pattern


def test_masked_and_read_only_paths_are_the_container_s_whatever_links_the_image_has(bundle: Bundle) -> None:
    """A link that climbs out ends in the container's own root: what it names there is hidden, and nothing of ours."""
    directory = bundle.path / "rootfs/etc"
    directory.mkdir()
    for name in ("secret", "fixed"):
        (directory / name).write_text("as the image has it\n")
    link(bundle, "up", "/../../../../../../../../etc")
    (bundle.path / "rootfs/root").mkdir()
    link(bundle, "root/of", "../../../../../../../..")
    linux = bundle.spec["linux"]
    linux["maskedPaths"] = [*linux["maskedPaths"], "/up/secret", "/root/of/etc/nothing"]
    linux["readonlyPaths"] = [*linux["readonlyPaths"], "/root/of/etc/fixed"]
    script = "cat /etc/secret; (echo x > /etc/fixed) 2>&1; cat /etc/fixed; grep -c ' /etc/' /proc/self/mountinfo"
    before = Path("/proc/self/mountinfo").read_text()
    _, text = bundle.output("sh", "-c", script)
    lines = text.splitlines()
    assert "Read-only file system" in lines[0]
    assert lines[1:] == ["as the image has it", "2"]
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_a_link_to_the_root_directory_covers_no_root(bundle: Bundle, key: str) -> None:
    """What is mounted over the root would be what the pivot leaves there: such a container is not made."""
    link(bundle, "hidden", "/")
    bundle.spec["linux"][key].append("/hidden")
    with pytest.raises(StepFailed, match="pivot into the root file system"):
        bundle.create("true")


def test_cve_2025_52565_the_console_is_bound_on_no_other_place(bundle: Bundle) -> None:
    without_mount(bundle, "/dev/console")
    bundle.spec["mounts"] = [m for m in bundle.spec["mounts"] if m["destination"] != "/dev"]
    (bundle.path / "rootfs/dev").mkdir()
    link(bundle, "dev/console", "/proc/sys/kernel/core_pattern")
    bundle.spec["process"]["terminal"] = True
    container = bundle.create("sh", "-c", "cat /proc/self/mountinfo", stdio=Terminal())
    container.start()
    text = read_all(container.console)
    os.close(container.console)
    container.console = -1
    assert container.wait() == 0
    assert "core_pattern" not in text


@pytest.mark.parametrize("inside", ["ptmx", "pts", "node"])
def test_the_terminal_comes_from_a_devpts_of_the_container(bundle: Bundle, inside: str) -> None:
    """An image's /dev/pts that is a link, or whose ptmx is another file, gives no terminal of the host."""
    without_mount(bundle, "/dev")
    (bundle.path / "rootfs/dev").mkdir()
    if inside == "pts":
        link(bundle, "dev/pts", "/../../../../../../dev/pts")
    elif inside == "node":
        (bundle.path / "rootfs/dev/pts").mkdir()
        os.mknod(bundle.path / "rootfs/dev/pts/ptmx", 0o020666, os.makedev(5, 2))
    else:
        (bundle.path / "rootfs/dev/pts").mkdir()
        link(bundle, "dev/pts/ptmx", "/../../../../dev/null")
    bundle.spec["process"]["terminal"] = True
    with pytest.raises(StepFailed, match="open a terminal"):
        bundle.create("true", stdio=Terminal())


@pytest.mark.parametrize("made", [True, False])
def test_cve_2026_41579_a_link_for_dev_has_no_devices_made_where_it_leads(bundle: Bundle, made: bool) -> None:
    outside = bundle.path / "outside"
    outside.mkdir()
    (outside / "ptmx").write_text("as it was")
    if made:
        (bundle.path / "rootfs" / str(outside).lstrip("/")).mkdir(parents=True)
    without_mount(bundle, "/dev")
    link(bundle, "dev", str(outside))
    with pytest.raises(StepFailed):
        bundle.create("true")
    assert names_below(outside) == ["ptmx"]
    assert (outside / "ptmx").read_text() == "as it was"


def test_cve_2021_30465_a_mount_point_that_is_exchanged_leads_no_mount_out(bundle: Bundle) -> None:
    outside = bundle.path / "outside"
    outside.mkdir()
    shared = bundle.path / "rootfs/shared"
    shared.mkdir()
    bundle.spec["mounts"].append({"destination": "/shared/x/y", "type": "tmpfs", "source": "evil-tmpfs"})
    with swapping(shared / "x", outside):
        for _ in range(40):
            try:
                container = bundle.create("sleep", "100")
            except StepFailed:
                continue  # the exchange was noticed
            points = Path(f"/proc/{container.pid}/mountinfo").read_text()
            container.delete(force=True)
            mounted = [line.split()[4] for line in points.splitlines() if "evil-tmpfs" in line]
            assert all(point.startswith(("/shared/", str(outside))) for point in mounted)
            assert not any(str(bundle.path) in line and "evil-tmpfs" in line for line in points.splitlines()
                           if not line.split()[4].startswith(("/shared/", str(outside))))  # fmt: skip
    assert names_below(outside) == []
    assert "evil-tmpfs" not in Path("/proc/self/mountinfo").read_text()


def test_cve_2024_45310_no_file_or_directory_is_made_outside_for_a_mount_point(bundle: Bundle) -> None:
    outside, source = bundle.path / "outside", bundle.path / "source"
    outside.mkdir()
    source.touch()
    shared = bundle.path / "rootfs/shared"
    shared.mkdir()
    for name, what in (("a/b/c", bundle.path), ("d/file", source)):
        mount = {"destination": f"/shared/x/{name}", "type": "bind", "source": str(what), "options": ["bind"]}
        bundle.spec["mounts"].append(mount)
    with swapping(shared / "x", outside):
        for _ in range(40):
            try:
                bundle.create("true").delete(force=True)
            except StepFailed:
                continue  # the exchange was noticed
    assert names_below(outside) == []


# ── Numbers and ids ──


def test_cve_2021_43784_long_values_do_not_spill_over_into_others(bundle: Bundle) -> None:
    """Where a length does not fit into its field, what follows would be read as further settings."""
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    lines = [{"containerID": n, "hostID": 100000 + n, "size": 1} for n in range(5000)]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = lines
    with pytest.raises(InvalidArgument, match=r"linux\.uidMappings has 5000 entries: Linux takes 340 at most"):
        bundle.create("true")
    del bundle.spec["linux"]["uidMappings"], bundle.spec["linux"]["gidMappings"]
    bundle.spec["linux"]["namespaces"].pop()
    bundle.spec["hostname"] = ""
    bundle.spec["process"]["env"] = ["PATH=/bin", "LONG=" + "x" * 100_000]
    code, text = bundle.output("sh", "-c", "echo ${#LONG}; hostname 2>/dev/null; id -u")
    assert (code, text.split()[0], text.split()[-1]) == (0, "100000", "0")


def test_cve_2023_25809_the_hosts_cgroups_cannot_be_written_through_a_bound_sysfs(bundle: Bundle) -> None:
    """A user namespace without a network of its own gets the host's /sys, and nothing that is mounted below it."""
    bundle.spec["linux"]["namespaces"] = [
        namespace for namespace in bundle.spec["linux"]["namespaces"] if namespace["type"] != "network"
    ] + [{"type": "user"}]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = OWN_IDS
    bundle.spec["mounts"] = [m for m in bundle.spec["mounts"] if m["type"] not in ("cgroup", "cgroup2")]
    code, text = bundle.output(
        "sh", "-c", "grep ' /sys' /proc/self/mountinfo; touch /sys/fs/cgroup/x || echo refused"
    )
    assert code == 0
    assert "refused" in text
    assert [line.split()[4] for line in text.splitlines() if " - sysfs " in line] == ["/sys"]
    assert "cgroup" not in [line.partition(" - ")[2].split()[0] for line in text.splitlines() if " - " in line]

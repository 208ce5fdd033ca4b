"""What all tests share: the marks ``root`` and ``peer``, and the rule that a skip must be expected.

With ``--strict-skips`` (``make test`` in CI) a skip whose reason is not in EXPECTED fails the run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Reasons that a CI machine may give, each a fact about such machines and not about our code.
EXPECTED = (
    "no cgroup v2 hierarchy with controllers",
    "needs cgroup v1",
    "needs cgroup v2",
    "needs systemd as process 1",
    "no CRIU that works on this kernel",
    "another user may not read this installation",
    "this build of skopeo has sigstore signatures disabled",
)


# Cgroups above those of containers: a runtime leaves them for the next container, a test run does not.
BEFORE = pytest.StashKey["set[Path]"]()
PARENTS = ("boxship", "boxship-test", "default")


def cgroup_parents() -> "set[Path]":
    """The parents of containers' cgroups that there are now, in every hierarchy."""
    root = Path("/sys/fs/cgroup")
    return {path for name in PARENTS for path in (root / name, *root.glob(f"*/{name}")) if path.is_dir()}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="fail when a test is skipped unexpectedly")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        for mark in item.iter_markers("peer"):
            missing = [name for name in mark.args if shutil.which(name) is None]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


class _Skips:
    def __init__(self) -> None:
        self.unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not any(expected in reason for expected in EXPECTED):
                self.unexpected.append(f"{report.nodeid}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BEFORE] = cgroup_parents()
    if config.getoption("--strict-skips"):
        config.pluginmanager.register(_Skips(), "strict-skips")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    for path in cgroup_parents() - session.config.stash[BEFORE]:
        with contextlib.suppress(OSError):  # not empty: somebody's container, or a leak that shall be seen
            path.rmdir()
    plugin = session.config.pluginmanager.get_plugin("strict-skips")
    if plugin is not None and plugin.unexpected:
        print("\nskipped without being expected:\n  " + "\n  ".join(plugin.unexpected))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_engine_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests name the engine that they talk to; the caller's DOCKER_HOST is none of theirs."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    return

"""A test that takes the fixture ``door`` runs twice: its `boxship-runc` starts cold, and asks a plan server."""

from collections.abc import Iterator

import pytest

from .doors import DOORS, VARIABLE, Served, plan_server


@pytest.fixture(scope="session")
def session_plan_server() -> Iterator[Served]:
    with plan_server() as served:
        yield served


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which door commands of this test go through; they inherit it in their environment."""
    name: str = request.param
    path = request.getfixturevalue("session_plan_server").path if name == "warm" else "none"
    monkeypatch.setenv(VARIABLE, path)
    return name

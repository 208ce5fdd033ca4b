"""The documentation's links lead somewhere, and generated pages are what the code gives."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for _, target in LINK.findall(page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_follow_one_run_names_symbols_that_are_in_their_files() -> None:
    page = ROOT / "docs" / "follow-one-run.md"
    links = [(text.strip("`"), target) for text, target in LINK.findall(page.read_text())]
    assert len(links) > 15
    for name, target in links:
        text = (page.parent / target).read_text()
        word = re.escape(name)
        assert re.search(rf"(def|class|void) {word}\b|^{word} ?=|static .*\b{word}\(", text, re.MULTILINE) or (
            Path(target).stem == name
        ), f"{target} has no {name}"


def test_generated_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, make in module.PAGES.items():
        assert (ROOT / "docs" / "reference" / name).read_text() == make(), f"run `make docs`: {name}"

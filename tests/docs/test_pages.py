"""Links lead somewhere, and the pages that promise a command name one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links to {target}, a heading that does not exist"


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8")):
            if not re.match(r"[a-z]+:", target):
                waiting.append((page.parent / target).resolve())
    assert sorted(str(p.relative_to(ROOT)) for p in set(PAGES) - reached) == []


def test_the_readme_has_its_two_lines() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    lines = re.findall(r"^python3\.11 -m venv .*$", text, re.MULTILINE)
    assert len(lines) == 2
    assert lines[0].endswith("fedctl demo")
    assert "pytest" in lines[1]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_rooms_of_the_architecture_page_exist() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    rooms = re.findall(r"^\| `(fedd\.\w+)` \|", page, re.MULTILINE)
    there = {
        f"fedd.{path.stem}" for path in (ROOT / "fedd").iterdir() if path.is_dir() or path.suffix == ".py"
    }
    assert len(rooms) == len(set(rooms)) >= 10
    assert set(rooms) <= there
    packages = {f"fedd.{path.parent.name}" for path in (ROOT / "fedd").glob("*/__init__.py")}
    assert packages <= set(rooms)

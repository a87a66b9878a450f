"""What the README and the pages say is so: their code runs, their links and tables hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import beatstore
from beatstore import errors
from tests.unit.test_house import FLOORS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def named(page: Path) -> str:
    """Name a page for pytest."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file or folder of the project, and a heading in it."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose(page)):
        if "://" not in target:
            there = page.parent / target if target else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def prose(page: Path) -> str:
    """Return a page without its code."""
    return re.sub(r"^```.*?^```$|``.*?``|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    """docs/README.md has a line for each page beside it, and the README leads to it."""
    index = (ROOT / "docs" / "README.md").read_text()
    listed = re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\) \| \S.*\|$", index, re.MULTILINE)
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted(pages)
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()


def test_code_comes_before_line_thirty() -> None:
    """Whoever opens the README sees how it is used without scrolling."""
    lines = (ROOT / "README.md").read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if line == "```python")
    assert first < 30


def test_the_floors_are_those_of_the_house() -> None:
    """The table of files in CONTRIBUTING.md is the one that test_house.py holds them to."""
    listed = {
        int(row[1]): {name.rstrip("/") for name in re.findall(r"`(\w+/?)`", row[2])}
        for row in re.finditer(
            r"^\| (\d) \w+ \|(.*?)\|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
        )
    }
    assert listed == {floor: set(rooms.split()) for floor, rooms in FLOORS.items()}


def test_every_error_is_public_and_in_the_tree() -> None:
    """Every error can be imported from beatstore, and stands in the tree that errors.py shows."""
    for name in errors.__all__:
        assert getattr(beatstore, name) is getattr(errors, name)
        assert name in str(errors.__doc__)


def test_the_page_on_schedules_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Each example of the page, one after the other, prints the lines that its comments show."""
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs" / "schedules.md", "python"):
        exec(compile(block, "schedules.md", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        assert printed
        shown = re.findall("^# (.*)$", block, re.MULTILINE)
        assert len(printed) == len(shown)
        assert all(map(str.startswith, shown, printed))


def test_the_page_on_schedules_shows_specs_that_parse() -> None:
    """Every `spec` of the page's table can be stored."""
    from datetime import datetime, timezone

    from beatstore.schedules import parse

    kind = ""
    rows = re.findall(
        r"^\| (?:`(\w+)`)? ?\| `([^`]+)` \|", (ROOT / "docs/schedules.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 7
    for named, spec in rows:
        kind = named or kind
        if kind == "solar":
            pytest.importorskip("ephem", reason="Solar needs ephem, of the extra `solar`")
        assert parse(kind, spec, "Europe/Berlin", datetime.now(timezone.utc)).kind == kind

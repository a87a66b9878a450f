"""docs/architecture.md and the glossary name what there is."""

from __future__ import annotations

import re

from tests.support.pages import ROOT, blocks, rows
from tests.unit.test_house import FLOORS

PAGE = "docs/architecture.md"


def section(title: str) -> str:
    """Return a section of the page."""
    return (ROOT / PAGE).read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_firing_path_is_there() -> None:
    """Each file of the firing path exists, is named once, and its link is its name."""
    found = re.findall(
        r"^(\d+)\. \[`([\w/]+\.py)`\]\(\.\./beatstore/([\w/]+\.py)\): \S",
        section("The firing path, in reading order"),
        re.MULTILINE,
    )
    assert [int(number) for number, _, _ in found] == list(range(1, len(found) + 1))
    assert len({name for _, name, _ in found}) == len(found) >= 10
    for _, name, target in found:
        assert name == target
        assert (ROOT / "beatstore" / name).exists(), name


def test_the_floors_are_all_told() -> None:
    """The page has each floor of the house."""
    told = re.findall(r"^(\d+)\. \*\*", section("The floors of the code"), re.MULTILINE)
    assert [int(number) for number in told] == sorted(FLOORS)


def test_the_steps_are_told_in_their_order() -> None:
    """Text and diagram tell of look, claim, send and mark, in this order."""
    steps = ["look", "claim", "send", "mark"]
    told = re.findall(r"^\d\. \*\*(\w+)\.\*\*", section("A tick"), re.MULTILINE)
    assert [step.lower() for step in told] == steps
    [diagram] = [one.text for one in blocks(PAGE, "A tick") if one.language == "mermaid"]
    assert re.findall(r"B->>[DM]: (\w+)", diagram) == steps


def test_the_glossary_has_each_word_once() -> None:
    """The words are sorted, each has a meaning, and none is there twice."""
    found = rows("docs/glossary.md", "| word | meaning |")
    words = [row[0].strip("*") for row in found]
    assert words == sorted(words, key=str.lower)
    assert len(set(words)) == len(words)
    assert all(row[1] for row in found)

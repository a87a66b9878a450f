"""The README and the pages of docs/, taken apart into the blocks that people type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks", "commands", "rows"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: `python`, `console`, …; "" for what is printed.
        text: its lines.
        section: the heading of level 2 that it is under; "" before the first.
    """

    language: str
    text: str
    section: str

    @property
    def file(self) -> str | None:
        """The name that the first line gives to the file that it is saved as."""
        found = re.match(r"# (\w+\.py)\b", self.text)
        return found[1] if found else None


def blocks(page: str, section: str | None = None) -> list[Block]:
    """Return the blocks of a page, or those of one of its sections, from top to bottom."""
    found = []
    for part in re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)[0:]:
        heading = "" if part.startswith("# ") else part.partition("\n")[0]
        found += [
            Block(language, text, heading)
            for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", part, re.M | re.S)
        ]
    return [block for block in found if section in (None, block.section)]


def commands(block: Block) -> list[str]:
    """Return the lines of a console block, without their comments."""
    assert block.language == "console"
    return [line.partition("  #")[0].strip() for line in block.text.splitlines()]


def rows(page: str, header: str) -> list[list[str]]:
    """Return the rows of the table of a page that has this header, as cells."""
    _, _, after = (ROOT / page).read_text().partition(f"{header}\n")
    lines = after.partition("\n\n")[0].splitlines()[1:]
    assert lines, header
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]

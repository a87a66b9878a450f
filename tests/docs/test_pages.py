"""The pages on rules are run: their code, what it prints, and their tables of what is sent.

A page is gone through from top to bottom, each `##` section with an empty store of its own
and the clock at noon. Python blocks are executed as they stand, and the comments below a
`print` are what it prints. A table `| time | what happens | what is sent |` is played by a
beat without a broker.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
import types
import uuid
import weakref
from collections.abc import Iterator
from dataclasses import fields
from datetime import date, datetime, time, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state
from sqlalchemy import text

from beatstore import After, ManualClock, Store
from beatstore.definition.values import decoded, encoded
from beatstore.rules.decide import BURST, COUNT_LIMIT
from beatstore.store import shared
from beatstore.tick.beats import BeatFigures
from beatstore.tick.claims import Claim
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import report, tick
from tests.support.pages import rows

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

STEP = re.compile(r"`([\w-]+)` (succeeds|fails|is cancelled)")
ENDS = {"succeeds": "succeeded", "fails": "failed", "is cancelled": "cancelled"}
BLOCK = re.compile(r"^```(?:python|sql)\n.*?^```$|^\| time \|.*?(?=\n\n|\Z)", re.M | re.S)


class Section:
    """A store, a beat without a broker, a clock, and workers in a word."""

    def __init__(self, file: Path) -> None:
        self.clock = ManualClock(NOON)
        self.store = Store(f"sqlite:///{file}", clock=self.clock)
        self.store.migrate()
        self.queue = Queue(self.store.database, self.store.settings, "a-beat")
        self.queue.upkeep.introduce(host="here", pid=1, version="1", tzdata="2026a")
        self.held: dict[str, list[Claim]] = {}

    def close(self) -> None:
        self.queue.close()
        self.store.close()

    def play(self, table: str) -> None:
        """Do what a table says, row by row, and see that it is right about what is sent."""
        for row in table.strip().splitlines()[2:]:
            at, happens, sent = (cell.strip() for cell in row.strip("|").split("|"))
            found = []
            if at:
                hour, minute = map(int, at.split(":"))
                self.clock.set(NOON.replace(hour=hour, minute=minute))
                found += self.tick()
            assert re.sub(r"[,;]| and |then", "", STEP.sub("", happens)).strip() == "", happens
            for name, how in STEP.findall(happens):
                error = "RuntimeError: no" if how == "fails" else None
                report(self.store, ENDS[how], [self.held[name].pop(0)], error)
            found += self.tick()
            assert sorted(found) == sorted(re.findall(r"`([\w-]+)`", sent)), row

    def tick(self) -> list[str]:
        claims = tick(self.queue)
        self.queue.upkeep.heartbeat(BeatFigures(0.0, 0, 0))
        for claim in claims:
            self.held.setdefault(claim.name, []).append(claim)
        return [claim.name for claim in claims]


@pytest.fixture
def proj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Stand in for the reader's module."""
    module = types.ModuleType("proj")
    app: Any = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = f"sqlite:///{tmp_path / 'proj.db'}"

    @app.task(name="proj.load", shared=False)
    def load(batch: int) -> None:
        """Do nothing."""

    @app.task(name="proj.send_mail", shared=False)
    def send_mail(to: str) -> None:
        raise ConnectionError("the mail server does not answer")

    vars(module).update(app=app, load=load, send_mail=send_mail)
    monkeypatch.setitem(sys.modules, "proj", module)
    yield module
    app.close()


PLAYED = ["arguments", "dependencies", "far-future", "misfires", "retries"]


@pytest.mark.parametrize("page", PLAYED)
@pytest.mark.usefixtures("proj")
def test_the_page_is_true(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page's code prints, and what its tables say is sent, is so."""
    written = (DOCS / f"{page}.md").read_text()
    names: dict[str, Any] = {"__name__": "proj"}
    monkeypatch.setattr(_state._tls, "current_app", None)
    played = 0
    for number, part in enumerate(re.split(r"^(?=## )", written, flags=re.MULTILINE)):
        with contextlib.closing(Section(tmp_path / f"{number}.db")) as section:
            names |= {"store": section.store, "engine": section.store.database.engine}
            monkeypatch.setattr(shared, "_stores", weakref.WeakKeyDictionary())
            monkeypatch.setattr(Store, "from_app", lambda app, store=section.store: store)
            for block in BLOCK.findall(part):
                section.tick()
                if block.startswith("|"):
                    section.play(block)
                    played += 1
                elif block.startswith("```python"):
                    execute(block.removeprefix("```python\n").removesuffix("```"), names, page)
                else:
                    plain_sql(section.store, block.removeprefix("```sql\n").removesuffix("```"))
    assert played == written.count("| time | what happens | what is sent |")


def execute(block: str, names: dict[str, Any], page: str) -> None:
    """Run a block, and compare what it prints with the comments below its prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, f"{page}.md", "exec"), names)
    expected: list[str] = []
    printing = False
    for line in block.splitlines():
        printing = line.lstrip().startswith("print(") or (printing and line.startswith("#"))
        if printing and line.startswith("#"):
            expected.append(line.removeprefix("#").removeprefix(" "))
    assert said.getvalue().splitlines() == expected, said.getvalue()


def plain_sql(store: Store, script: str) -> None:
    """Run statements, each ended by a semicolon."""
    with store.database.engine.begin() as connection:
        for statement in filter(str.strip, script.split(";")):
            connection.execute(text(statement))


def test_every_argument_of_after_is_in_the_table() -> None:
    """The table of After's arguments has each of them, with its default."""
    listed = {
        row[0].strip("`"): row[1].strip("`")
        for row in rows("docs/dependencies.md", "| argument | default | meaning |")
    }
    assert listed == {
        field.name: "" if field.name == "name" else repr(field.default).replace("'", '"')
        for field in fields(After)
    }


def test_the_table_of_values_is_true() -> None:
    """Each value of the page on arguments is stored as it says, and the task gets what it says."""
    known = {"uuid": uuid, "Decimal": Decimal, "timezone": timezone}
    known |= {one.__name__: one for one in (date, datetime, time)}
    found = rows("docs/arguments.md", "| value | stored as | the task gets |")
    for value, stored, arrives in ((cell.strip("`") for cell in row) for row in found):
        held = encoded("args", eval(value, known))
        assert json.dumps(held, ensure_ascii=False) == stored
        assert repr(decoded("args", json.loads(stored))) == arrives


def test_the_limits_are_those_of_the_rule() -> None:
    """The page on misfires names the numbers that the rule has."""
    page = (DOCS / "misfires.md").read_text()
    assert f"at most {BURST} runs of one entry" in page
    assert f"up to {COUNT_LIMIT:,}" in page


@pytest.mark.parametrize("page", ["reliability", "architecture"])
def test_every_test_that_is_named_exists(page: str) -> None:
    """A test that a page calls as its witness stands in the file that it links to."""
    written = (DOCS / f"{page}.md").read_text()
    named = re.findall(r"\[`(test_\w+)`\]\(([^)#]+)\)", written)
    assert named
    for name, target in named:
        tree = ast.parse((DOCS / target).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in defined, f"{target} has no {name}"


def test_every_crash_point_has_its_witness() -> None:
    """Each row of the failure table names a test."""
    found = rows(
        "docs/reliability.md", "| What dies, and when | What is seen afterwards | Witness |"
    )
    assert len(found) >= 15
    for row in found:
        assert "test_" in row[-1], row
    header = "| cut off | what is left | who mends it, and how | witness |"
    for row in rows("docs/architecture.md", header):
        assert all(row), row
        assert "test_" in row[-1], row

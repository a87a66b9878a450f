"""Tables fit their terminal, and cut nothing that names something."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatstore.cli.table import Column, Layout, folded, width_of

COLUMNS = (
    Column("name", name=True),
    Column("task", least=12, tail=True, rank=1),
    Column("state"),
    Column("due_at", "due (Europe/Berlin)"),
    Column("tags", least=6, rank=2),
    Column("id", right=True),
    Column("reason", below=True),
)


def drawn(*rows: tuple[str, ...], room: int = 80, margin: str = "") -> list[str]:
    """Return the lines of a table, and what was left out at the end."""
    layout = Layout(COLUMNS, rows, room, "…")
    lines = [*layout.heading()]
    for cells in rows:
        lines += layout.lines(cells, margin, lambda column, cell, shown: shown)
    return [*lines, *([f"left out: {layout.left_out}"] if layout.left_out else [])]


def test_columns_without_a_value_go() -> None:
    """A table has the columns that have something to say, in one line for each row."""
    assert drawn(("a", "", "active", "", "", "7", ""), ("bcd", "", "paused", "", "", "12", "")) == [
        "name  state   id",
        "a     active   7",
        "bcd   paused  12",
    ]


def test_titles_are_broken_first() -> None:
    """A title wider than its column takes a second line where the table would be too wide."""
    row = ("n" * 20, "", "active", "11-28 02:00", "", "7", "why not")
    assert drawn(row, room=60) == [
        "name                  state   due              id  reason",
        "                              (Europe/Berlin)",
        f"{'n' * 20}  active  11-28 02:00       7  why not",
    ]


def test_a_reason_goes_below_its_row() -> None:
    """A text that is too long for a line is folded below its row, and none of it is lost."""
    reason = "it waits for another entry, which has not ended so far, " * 3
    row = ("name", "", "active", "", "", "7", reason.strip())
    _, first, *below = drawn(row)
    assert first == "name  active   7"
    assert " ".join(line.strip() for line in below) == reason.strip()
    assert all(line.startswith("    ") and len(line) <= 80 for line in below)


def test_a_long_name_has_a_line_of_its_own() -> None:
    """A name that is too long is whole, on a line of its own; what belongs to it stands below."""
    long = "n" * 60
    first = (long, "t.task", "active", "11-28 02:00, in 6 h", "", "7", "")
    heading, name, rest, second = drawn(first, ("b", "t.b", "paused", "", "", "8", ""))
    assert name == long
    assert rest.split() == ["t.task", "active", "11-28", "02:00,", "in", "6", "h", "7"]
    assert rest.index("t.task") == second.index("t.b") == heading.index("task")


def test_a_name_that_does_not_begin_the_row_stands_below_it() -> None:
    """Where something else comes first, a long name has the line after it."""
    columns = (Column("at"), Column("entry", name=True), Column("change", below=True))
    cells = ("11-28 02:00", "n" * 60, "paused → active")
    layout = Layout(columns, [cells], 60, "…")
    lines = list(layout.lines(cells, "", lambda column, cell, shown: shown))
    assert [line.strip() for line in lines] == list(cells)


def test_what_matters_least_is_left_out() -> None:
    """Where nothing else helps, columns are left out by their rank, and it is said which."""
    row = ("n" * 26, "project.app.tasks.run", "active", "11-28 02:00, in 6 h", "etl, it", "7", "")
    *_, shown, said = drawn(row, room=75)
    assert said == "left out: ['tags']"
    assert "…ect.app.tasks.run" in shown
    assert drawn(row, room=66)[-1] == "left out: ['task', 'tags']"


def test_lines_go_on_beside_what_stands_below() -> None:
    """The margin of a row stands before all that is written below its first line."""
    row = ("n" * 40, "", "active", "", "", "7", "why " * 30)
    lines = drawn(row, room=50, margin="│ │")
    assert lines[1] == "n" * 40
    assert all(line.startswith("│ │") for line in lines[2:])


CELL = st.text("aé日 -", max_size=70).map(lambda text: " ".join(text.split()))


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(*[CELL] * len(COLUMNS)), min_size=1, max_size=4),
    room=st.integers(20, 200),
)
def test_nothing_that_names_something_is_cut(rows: list[tuple[str, ...]], room: int) -> None:
    """However wide the terminal and whatever the cells: names, states, instants, ids are whole."""
    layout = Layout(COLUMNS, rows, room, "…")
    for cells in rows:
        lines = list(layout.lines(cells, "", lambda column, cell, shown: shown))
        text = "\n".join(lines)
        assert all(cells[at] in text for at in (0, 2, 3, 5))
        assert "".join(cells[6].split()) in "".join(text.split())


@settings(deadline=None)
@given(rows=st.lists(st.tuples(*[CELL] * len(COLUMNS)), min_size=1, max_size=4))
def test_a_line_is_as_wide_as_the_terminal(rows: list[tuple[str, ...]]) -> None:
    """Where what must not be cut leaves room, no line is wider than the terminal but a name."""
    whole = sum(max(10, *(width_of(cells[at]) for cells in rows)) for at in (2, 3, 5))
    room = whole + 26 + 12 + 20 + 3 * len(COLUMNS)
    layout = Layout(COLUMNS, rows, room, "…")
    for cells in rows:
        for line in layout.lines(cells, "", lambda column, cell, shown: shown):
            assert line == cells[0] or width_of(line) <= room


@pytest.mark.parametrize(
    "text", ["plain words in a row, many of them", "日本語テキスト" * 5, "x" * 70]
)
def test_a_folded_text_fits(text: str) -> None:
    """No line of a folded text is wider than asked for, and no character is lost."""
    lines = folded(text, 20)
    assert max(map(width_of, lines)) <= 20
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_an_instant_is_not_broken() -> None:
    """However a text is folded, the date and the time of an instant stay together."""
    said = "it has been due since 11-27 20:30:07 Europe/Berlin, or 2026-11-27 20:30"
    for width in range(20, 60):
        lines = folded(said, width)
        assert " ".join(lines) == said
        assert max(map(len, lines)) <= width
        assert any("11-27 20:30:07" in line for line in lines)
        assert any("2026-11-27 20:30" in line for line in lines)

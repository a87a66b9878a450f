"""The verb `list`, called with an app and without, on every database."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from sqlalchemy import update

from beatstore import Declared, Once, Store
from beatstore.models import EntryModel
from tests.support.command import Command, names
from tests.support.marks import both_ways, on_sqlite

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)


def cells(line: str) -> list[str]:
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


# -- list ----------------------------------------------------------------------------------


@both_ways
def test_list_shows_what_matters(call: Command, store: Store) -> None:
    """Name, task, schedule, next due time, state and tags stand in a line each."""
    store.add("nightly", "etl.run", "0 2 * * *", timezone="Europe/Berlin", tags=["etl", "b"])
    store.add("later", "mail.send", Once(FAR))
    done = call("list")
    assert done.code == 0
    title, later, nightly = map(cells, done.lines)
    assert title[:4] == ["name", "task", "schedule", "next due (UTC)"]
    assert later[:3] == ["later", "mail.send", "once 2525-11-11 09:30:00"]
    assert later[3].startswith("2525-11-11 09:30:00, in 49")
    assert nightly[:3] == ["nightly", "etl.run", "cron 0 2 * * * Europe/Berlin"]
    assert nightly[-2:] == ["active", "b, etl"]


def test_list_for_programs(call: Command, store: Store) -> None:
    """`--json` is an array with the columns of each entry, instants in UTC."""
    store.add("a", "t.a", Once(FAR), tags=["x"], description="hello")
    (row,) = call("list", "--json", "--timezone", "Asia/Tokyo").json
    assert row == {
        **{"name": "a", "task": "t.a", "kind": "once", "spec": "2525-11-11T09:30:00+00:00"},
        **{"timezone": "UTC", "next_due_at": "2525-11-11T09:30:00+00:00", "state": "active"},
        **{"last_run_at": None, "run_count": 0, "tags": ["x"], "edited": [], "source": "api"},
        "description": "hello",
    }


@on_sqlite
def test_list_in_another_zone(call: Command, store: Store) -> None:
    """Times are shown in the zone that is asked for, and the title names it."""
    store.add("a", "t.a", Once(FAR))
    done = call("list", "--timezone", "Asia/Tokyo")
    assert "next due (Asia/Tokyo)" in done.lines[0]
    assert "2525-11-11 18:30:00" in done.lines[1]


@on_sqlite
def test_the_zone_of_the_settings_is_shown(migrated_url: str, store: Store) -> None:
    """With an app, times are shown in its zone."""
    store.add("a", "t.a", Once(FAR))
    done = Command(migrated_url, "app", timezone="Asia/Tokyo")("list")
    assert "next due (Asia/Tokyo)" in done.lines[0]


@both_ways
def test_list_filters(call: Command, store: Store) -> None:
    """`--tag`, `--state`, `--name` with globs and `--source` narrow the list, together too."""
    store.add("etl_a", "t.a", "@daily", tags=["x"])
    store.add("etl_b", "t.b", "@daily", tags=["x", "y"], paused=True)
    store.add("Etl_c", "t.c", "@daily", source="mine")
    assert names(call("list", "--json", "--tag", "x")) == ["etl_a", "etl_b"]
    assert names(call("list", "--json", "--state", "paused")) == ["etl_b"]
    assert names(call("list", "--json", "--name", "etl_*")) == ["etl_a", "etl_b"]
    assert names(call("list", "--json", "--name", "?tl_?", "--tag", "y")) == ["etl_b"]
    assert names(call("list", "--json", "--source", "mine")) == ["Etl_c"]
    assert call("list", "--state", "asleep").code == 2


def test_list_goes_on_page_by_page(call: Command, store: Store) -> None:
    """A page ends with how to go on, which leads through all entries, once each."""
    for number in range(5):
        store.add(f"e{number}", "t.e", "@daily")
    found, after = [], ""
    for _ in range(3):
        done = call("list", "--json", "--limit", "2", "--after", after)
        found += names(done)
        after = found[-1]
        assert ("--after" in done.err) == (len(found) < 5)
    assert found == [f"e{number}" for number in range(5)]
    assert f"--after {found[1]}, or --all" in call("list", "--limit", "2").err


@on_sqlite
def test_list_all_reads_page_by_page(
    call: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--all` shows every entry, though no more than a page is read at a time."""
    monkeypatch.setattr("beatstore.cli.entries._PAGE", 2)
    for number in range(5):
        store.add(f"e{number}", "t.e", "@daily", tags=[f"t{number}"])
    done = call("list", "--all", "--json", "--limit", "1")
    assert [(row["name"], row["tags"]) for row in done.json] == [
        (f"e{number}", [f"t{number}"]) for number in range(5)
    ]
    assert done.err == ""
    assert len(call("list", "--all").lines) == 6


def test_what_differs_from_its_code_is_marked(call: Command, store: Store) -> None:
    """An entry that somebody edited or paused is listed with the fields that differ."""
    code = [Declared(name, "t.a", "@daily", tags=["x"]) for name in "abc"]
    store.sync(code, source="mine")
    store.change("a", grace=5, tags=["y"])
    store.pause("c")
    store.add("own", "t.a", "@daily")
    rows = {row["name"]: row["edited"] for row in call("list", "--json").json}
    assert {name: sorted(edited) for name, edited in rows.items()} == {
        **{"a": ["grace", "tags"], "b": [], "c": ["state"], "own": []},
    }
    assert call("list").lines[3].endswith(" x     state")
    (line,) = [line for line in call("show", "a").lines if line.startswith("differs")]
    assert line.partition(":")[2].strip() in ("grace, tags", "tags, grace")


@both_ways
def test_an_empty_list_says_so(call: Command) -> None:
    """Where there is nothing, people are told so beside the output, and programs get []."""
    done = call("list")
    assert (done.code, done.out) == (0, "")
    assert done.err == "beatstore: no entries\n"
    assert call("list", "--tag", "x").err == "beatstore: no entry matches\n"
    assert call("list", "--json").json == []


@on_sqlite
def test_no_cell_steers_the_terminal(call: Command, store: Store) -> None:
    """What a row holds that could move the cursor or break a line is shown harmlessly."""
    store.add("a", "t.a", "@daily", description="two\nlines")
    with store.database.session() as session:
        session.execute(update(EntryModel).values(task="\x1b[2Jt\nx"))
    done = call("list")
    assert len(done.lines) == 2
    assert "\\x1b[2Jt x" in done.lines[1]
    assert "\x1b" not in call("show", "a").out

"""What is asked of an entry, or of all, costs the same after a year of runs as after a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from beatstore import Run, Store
from beatstore.models import EntryModel, RunModel, TagModel, WorkerModel
from beatstore.store import history, searching
from beatstore.store.one_entry import one_entry
from tests.support.marks import on_mariadb
from tests.support.rowsread import rows_read
from tests.support.written import HOUR, MINUTE, alter, run, write

pytestmark = pytest.mark.every_database

#: How many runs each of the two entries has, and how many other entries there are.
SHORT, LONG = 200, 12_000
OTHERS = 500

#: How many more rows may be read of the long history: more than a page of any index has.
MARGIN = 600


@pytest.fixture
def real_store(migrated_url: str) -> Iterator[Store]:
    """Return a store with the database's own clock."""
    store = Store(migrated_url)
    yield store
    store.close()


def write_history(store: Store) -> None:
    """Write two entries, with a short and a long history, in a table with other entries."""
    now = datetime.now(timezone.utc)
    later = {"cursor_at": now, "wake_at": now + HOUR}
    names = [("short", "skip"), ("long", "skip")]
    names += [(f"other {number}", "allow") for number in range(OTHERS)]
    rows = [
        {"name": name, "task": "t", "kind": "every", "spec": "60", "overlap": overlap, **later}
        for name, overlap in names
    ]
    off = {"task": "t", "kind": "every", "spec": "60", "state": "paused", "wake_at": None}
    rows += [{"name": f"paused {number}", **off} for number in range(OTHERS)]
    write(store, EntryModel, *rows)
    write(store, WorkerModel, {"id": "1", "name": "w", "pid": 1, "version": "0"})
    for name, count in (("short", SHORT), ("long", LONG)):
        entry = store.get(name)
        write(store, RunModel, *(ended(entry, number, now) for number in range(count)))
    analyze = "ANALYZE TABLE" if store.database.kind.name == "mysql" else "ANALYZE"
    if store.database.kind.is_server:  # nobody does so for SQLite
        with store.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            for table in ("entry", "run"):
                connection.execute(text(f"{analyze} beatstore_{table}"))


def ended(entry: Any, number: int, now: datetime) -> dict[str, Any]:
    """Return a run that ended, one in ten in an error."""
    due_at = now - HOUR - (number + 1) * MINUTE
    state = "failed" if number % 10 == 0 else "succeeded"
    times = {"sent_at": due_at, "started_at": due_at, "finished_at": due_at}
    return run(entry, due_at, state=state, **times)


def write_newer(store: Store) -> None:
    """Write as many runs of another entry, each due after those of the first two."""
    later = datetime.now(timezone.utc) + 300 * HOUR
    other = store.get("other 1")
    write(store, RunModel, *(ended(other, number, later) for number in range(LONG)))


def test_an_explanation_reads_no_history(real_store: Store) -> None:
    """An entry with 12,000 runs is explained by as many rows as one with 200."""
    write_history(real_store)

    def explained(name: str) -> Callable[[Session], object]:
        return lambda session: real_store.explain(name, session=session)

    short, long = (rows_read(real_store, explained(name)) for name in ("short", "long"))
    assert long <= short + MARGIN


@pytest.mark.parametrize("asked", ["status", "health"])
def test_the_status_reads_no_history(real_store: Store, asked: str) -> None:
    """All entries are counted, but of 12,000 runs of an hour ago and before, few are read."""
    write_history(real_store)
    read = rows_read(real_store, lambda session: getattr(real_store, asked)(session=session))
    assert read < LONG // 2


@pytest.mark.parametrize("state", ["claimed", "lost"])
def test_runs_in_a_rare_state_are_found_by_an_index(real_store: Store, state: str) -> None:
    """Of one entry with 12,000 runs, one in ten in an error, those that succeeded are not read."""
    write_history(real_store)
    read = rows_read(
        real_store, lambda session: real_store.runs("long", state=[state], session=session)
    )
    assert read < MARGIN


@pytest.mark.parametrize("found", [1, 0])
def test_entries_of_a_rare_owner_are_found_by_an_index(real_store: Store, found: int) -> None:
    """Among a thousand of other owners, by pages of entries or of names, and by a sync."""
    write_history(real_store)
    source = ["nobody", "rare"][found]
    alter(real_store, "short", source="rare")

    def asked(session: Session) -> None:
        assert len(real_store.entries(source=source, session=session)) == found
        assert len(real_store.names(source=source, session=session)) == found
        real_store.sync([], source=source, dry_run=True, session=session)

    read = rows_read(real_store, asked)
    assert read < OTHERS


@on_mariadb
def test_runs_of_a_frequent_tag_are_found_at_the_end_of_the_history(real_store: Store) -> None:
    """The newest runs are searched first: MariaDB would read, and sort, all of the tag."""
    write_history(real_store)
    real_store.change("long", tags=["x"])
    for chosen in ({"tag": "x"}, {"tag": "x", "state": ["failed"]}):
        how: Any = {"limit": 10, **chosen}
        read = rows_read(
            real_store, lambda session, how=how: real_store.runs(**how, session=session)
        )
        assert read < LONG, chosen


@pytest.mark.parametrize(
    "chosen", [{}, {"state": "lost"}, {"tag": "x"}, {"task": "t.rare"}, {"worker": "w.rare"}]
)
def test_runs_since_a_time_are_found_by_it(
    real_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
) -> None:
    """A page that is not full reads the newest runs and those of the hour, not all before it."""
    monkeypatch.setattr(history, "_NEAR", (50, 200))
    write_history(real_store)
    real_store.change("paused 1", tags=["x"], task="t.rare")
    since = datetime.now(timezone.utc) - 2 * HOUR

    def asked(session: Session) -> None:
        found = real_store.runs(since=since, **chosen, limit=500, session=session)
        assert len(found) == (0 if chosen else 2 * 59)

    assert rows_read(real_store, asked) < 4 * MARGIN


@on_mariadb
@pytest.mark.parametrize(
    ("chosen", "most"),
    [({}, MARGIN), ({"state": ["succeeded", "lost"]}, MARGIN), ({"worker": "x"}, LONG + MARGIN)],
)
def test_the_runs_of_an_entry_are_read_without_those_of_others(
    real_store: Store, chosen: dict[str, Any], most: int
) -> None:
    """Those of another are newer, and as many: MariaDB would walk them too, or sort all."""
    write_history(real_store)
    write_newer(real_store)
    read = rows_read(real_store, lambda session: real_store.runs("long", **chosen, session=session))
    assert read < most


@on_mariadb
def test_the_page_of_an_entry_reads_no_runs_of_others(real_store: Store) -> None:
    """Nor does its explanation: its last runs are older than 12,000 of another."""

    def explained(session: Session) -> object:
        return real_store.explain("long", session=session)

    def shown(session: Session) -> object:
        return one_entry(real_store, "long", None, "UTC", session)

    write_history(real_store)
    before = [rows_read(real_store, asked) for asked in (explained, shown)]
    write_newer(real_store)
    after = [rows_read(real_store, asked) for asked in (explained, shown)]
    assert after[0] < before[0] + MARGIN
    assert after[1] < before[1] + MARGIN


@on_mariadb
def test_runs_with_the_same_due_time_are_all_found(store: Store) -> None:
    """Their ids sort them, page after page, whatever the order of their attempts."""
    entry = store.add("a", "t", 60)
    now = datetime.now(timezone.utc)
    rows = [(number * 7 % 5, number * 11 % 30) for number in range(30)]
    write(store, RunModel, *(run(entry, now - n * MINUTE, attempt=1 + one) for n, one in rows))
    everything = sorted(store.runs(), key=lambda one: (one.due_at, one.id), reverse=True)
    for limit in (1, 2, 4, 6, 7, 29, 30, 31):
        found: list[Run] = []
        more = True
        while more:
            page = store.runs("a", limit=limit, before_id=found[-1].id if found else None)
            found, more = [*found, *page], page.more
        assert found == everything


@pytest.mark.parametrize("chosen", [{"tag": "x"}, {"task": "t.rare"}])
def test_an_entry_without_the_tag_has_no_runs_of_it(
    real_store: Store, chosen: dict[str, Any]
) -> None:
    """Its runs are not searched for it."""
    write_history(real_store)
    read = rows_read(real_store, lambda session: real_store.runs("long", **chosen, session=session))
    assert read < MARGIN


@on_mariadb
def test_a_search_among_the_entries_of_a_tag_reads_a_page_of_them(
    real_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The condition is computed for the entries of the page, not for all that have the tag."""
    short = replace(searching.SEARCHED["failing"], page=10, pages=1)
    monkeypatch.setitem(searching.SEARCHED, "failing", short)  # type: ignore[arg-type]
    write_history(real_store)
    ids = [entry.id for entry in real_store.entries(limit=2 * OTHERS)][::3]
    write(real_store, TagModel, *({"entry_id": entry_id, "tag": "x"} for entry_id in ids))

    others = [{"entry_id": one, "tag": f"other {n}"} for one in ids[:100] for n in range(20)]
    write(real_store, TagModel, *others)
    with real_store.database.engine.connect() as connection:
        connection.execute(text("ANALYZE TABLE beatstore_tag"))

    def read(**chosen: Any) -> int:
        return rows_read(real_store, lambda session: real_store.names(**chosen, session=session))

    assert read(tag="x", only="failing", limit=10) <= read(tag="x", limit=10) + 100

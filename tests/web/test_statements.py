"""How many statements each page takes: at most 8, whatever is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from werkzeug.test import Client

from beatstore import After, Cron, Every, Store
from beatstore.database.tables import DEPENDENCY, ENTRY
from beatstore.models import BeatModel, DependencyModel, EntryModel, RunModel, WorkerModel
from beatstore.schedules.instants import EPOCH
from beatstore.web.dashboard import PAGES
from tests.support.written import HOUR, MINUTE, alter, run, write

#: How many statements a page, or an answer of the store, takes at most.
MOST = 8

PATHS = (
    "/",
    "/entries",
    "/entries?only=failing",
    "/entries?only=overdue",
    "/entries?only=waiting",
    "/entries?only=edited",
    "/entries/add",
    "/entry?name=load",
    "/entry?name=load&at=03:00",
    "/entry?name=load&at=2026-01-15T03:00:00Z",
    "/entry?name=load&at=2999-01-01",
    "/entry/edit?name=load",
    "/run?id=1",
    "/runs",
    "/runs?name=load",
    "/runs?state=failed",
    "/upcoming",
    "/upcoming?tag=etl",
    "/graph",
    "/graph?name=load",
    "/graph?tag=etl",
    "/audit",
    "/audit?name=load",
    "/processes",
)

#: Begins and ends a transaction.
_FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA ", "SET ", "START ", "SELECT SET_CONFIG")


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Collect the statements inside, but for those of the transaction."""
    seen: list[str] = []

    def note(*said: object) -> None:
        if not str(said[2]).upper().startswith(_FRAME):
            seen.append(str(said[2]))

    sa.event.listen(store.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(store.database.engine, "before_cursor_execute", note)


def statements(store: Store, browser: Client, path: str) -> list[str]:
    """Return the statements of a page."""
    with counted(store) as seen:
        response = browser.get(path)
        assert response.status_code == 200, response.text
    return seen


@pytest.mark.heavy
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("path", PATHS)
def test_a_page_takes_few_statements(store: Store, browser: Client, path: str) -> None:
    """As many with fifty entries and their edges as with three."""
    store.add("extract", "t.x", Every(60), tags=["etl"])
    store.add("clean", "t.x", Every(60), after=[After("extract", on="done")])
    store.add("load", "t.x", Every(60), after=["clean"], tags=["etl"])
    store.trigger("load")
    assert len(statements(store, browser, path)) <= MOST
    for number in range(47):
        store.add(f"more-{number}", "t.x", Every(60), after=["load"], tags=["etl"])
        store.trigger(f"more-{number}")
    assert len(statements(store, browser, path)) <= MOST


@pytest.mark.every_database
@pytest.mark.heavy
def test_a_page_takes_few_statements_in_the_worst_case(store: Store, browser: Client) -> None:
    """Whatever is wrong at once: see `spoil`."""
    now = store.now()
    spoil(store, now)
    for path in PATHS:
        seen = statements(store, browser, path)
        assert len(seen) <= MOST, (path, seen)
    for at in (now - HOUR, now - HOUR + MINUTE, now - 2 * HOUR, now + HOUR, now - 9999 * HOUR):
        seen = statements(store, browser, f"/entry?name=load&at={at:%Y-%m-%dT%H:%M:%SZ}")
        assert len(seen) <= MOST, (at, seen)
    shown = browser.get("/entry?name=load").text
    assert "all its 16 upstreams" in shown
    assert "which waits for" in shown
    assert "and 4,970 more" in shown
    warned = browser.get("/").text
    for part in ("broken", "cycle", "though a beat is alive", "has been waiting since", "NULL"):
        assert part in warned, part


@pytest.mark.every_database
@pytest.mark.heavy
def test_answers_take_few_statements_in_the_worst_case(store: Store) -> None:
    """What pages show is not cheaper than what the Python API returns."""
    now = store.now()
    spoil(store, now)
    for answer in (
        store.status,
        store.health,
        lambda: store.explain("load"),
        lambda: store.explain("load", now - HOUR),
        lambda: store.explain("load", now - HOUR + MINUTE),
        lambda: store.graph(name="load"),
        lambda: store.edges("load"),
        lambda: store.upcoming(limit=100),
    ):
        with counted(store) as seen:
            answer()
        assert len(seen) <= MOST, seen


def spoil(store: Store, now: datetime) -> None:
    """Fill a store with what costs most to explain.

    "load" waits for 16 upstreams, for the same due time, in every state and doing everything;
    one of them is the first of a long chain. 5,000 entries wait for it. 6,000 entries are overdue
    though a beat is alive, and have runs that failed. Rows written by hand are asleep, broken, in
    a cycle.
    """
    since = now - HOUR
    nightly = Cron("0 * * * *", "Europe/Berlin")
    states = ("active", "paused", "broken", "cancelled", "finished", "missed", "active", "active")
    ups = [store.add(f"up-{number}", "t.x", nightly) for number in range(16)]
    load = store.add("load", "t.x", nightly, tags=["etl"], overlap="skip")
    chain = [store.add(f"chain-{number}", "t.x", nightly) for number in range(9)]
    links = list(zip([ups[0], *chain], chain, strict=False))
    edges = [(up.id, load.id) for up in ups] + [(up.id, down.id) for down, up in links]
    waits = {"pending_since": since, "pending_due_at": since, "pending_reason": "waits for x"}
    waits |= {"wake_at": None, "created_at": now - 99 * HOUR}
    for number, up in enumerate(ups[1:], 1):
        alter(store, up.name, state=states[number % 8], error="bad" if number % 8 == 2 else None)
        doing = ("started", "sent", "claimed", "succeeded")[number % 4]
        write(store, RunModel, run(up, since, state=doing, sent_at=since, started_at=since))
    store.pause("chain-8")
    fan = _many(store, "fan", 5_000, wake_at=now + HOUR, next_due_at=now + HOUR)
    edges += [(load.id, entry_id) for entry_id in fan]
    _many(store, "late", 6_000, wake_at=now - HOUR, next_due_at=now - HOUR)
    _many(store, "asleep", 5, wake_at=None, next_due_at=None)
    _many(store, "bad", 5, wake_at=None, state="broken", error="no schedule")
    one, other = _many(store, "circle", 2, wake_at=now + HOUR, next_due_at=now + HOUR)
    edges += [(one, other), (other, one)]
    write(store, DependencyModel, *({"upstream_id": up, "downstream_id": to} for up, to in edges))
    with store.database.engine.begin() as connection:
        connection.execute(sa.update(DEPENDENCY).values(align="same", on="success"))
        woken = sa.update(ENTRY).where(ENTRY.c.wake_at == EPOCH)
        connection.execute(woken.values(wake_at=now + HOUR))
    # At last, since edges wake the entries that wait by them.
    for down, up in [*links, (load, ups[0])]:
        alter(store, down.name, **waits, blocked_by=up.id)
    attempts = [
        {"attempt": number, "state": "failed", "error": f"no {number}"} for number in (1, 2)
    ]
    attempts += [{"attempt": 3, "state": "claimed", "wake_at": now + HOUR, "tries": 3}]
    rows = [run(load, since + MINUTE, **each) for each in attempts]
    for number in range(40):
        due_at = since - number * HOUR
        rows.append(run(load, due_at, state="sent", sent_at=due_at, first_missed_at=due_at))
    write(store, RunModel, *rows)
    process = {"pid": 1, "version": "0", "heartbeat_at": now, "started_at": now}
    write(store, BeatModel, {"id": "b", "host": "h", "tzdata": "x", **process})
    write(store, WorkerModel, {"id": "w", "name": "celery@a", **process})
    for reason in range(30):
        store.by("anna", reason=f"try {reason}").change("load", description=f"{reason}")


def _many(store: Store, prefix: str, count: int, **columns: Any) -> list[int]:
    """Insert entries as plain SQL would; return their ids."""
    given = {"task": "t.x", "kind": "every", "spec": "3600", "created_at": EPOCH, **columns}
    rows = [{"name": f"{prefix}-{number}", **given} for number in range(count)]
    write(store, EntryModel, *rows)
    alike = ENTRY.c.name.like(f"{prefix}-%")
    with store.database.engine.begin() as connection:
        # What was just inserted is looked at at once, says the trigger.
        changed = {"wake_at": columns.get("wake_at"), "cursor_at": columns.get("next_due_at")}
        connection.execute(sa.update(ENTRY).where(alike).values(**changed))
        ids = connection.execute(sa.select(ENTRY.c.id).where(alike).order_by(ENTRY.c.id))
        return list(ids.scalars())


def test_every_page_is_counted() -> None:
    """A new page is counted here; the catalogue of a database takes what it takes."""
    counted_paths = {path.partition("?")[0] for path in PATHS}
    asked = {path for path, _, methods in PAGES.values() if "GET" in methods}
    assert asked - counted_paths == {"/static/<path:name>", "/database"}

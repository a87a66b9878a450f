"""How long do the pages of the dashboard take, and how many statements, with much stored?

Each page is asked for in this process, without a server: what is measured is the work of the
dashboard and of the database.
"""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa
from werkzeug.test import Client

from beatstore import Store
from beatstore.web import Actor, Dashboard
from benchmarks.cli import fill_history, median_of
from benchmarks.places import Places, server_of
from benchmarks.report import Table, ms, verdict

__all__ = ["measure"]

#: A page may take so long, in seconds, and so many statements.
TARGET = 0.2
STATEMENTS = 8

#: What every reading adds: its beginning and its end.
_FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "SET ", "PRAGMA ", "START ", "SELECT SET_CONFIG")

PAGES = (
    "/",
    "/entries",
    "/entries?after=far-7",
    "/entries?name=999",
    "/entries?only=failing",
    "/entries?only=overdue",
    "/entry?name=far-4711",
    "/entry?name=far-4711&at=03:00",
    "/entry/edit?name=far-4711",
    "/run?id=4711",
    "/runs",
    "/runs?name=far-1",
    "/runs?state=failed",
    "/upcoming",
    "/graph?name=far-1",
    "/graph?tag=few",
    "/audit",
    "/processes",
    "/database",
)


def measure(places: Places) -> list[Table]:
    """Measure on PostgreSQL and MariaDB."""
    stored = 20_000 if places.quick else 100_000
    table = Table(
        f"The dashboard: {stored:,} entries, {10 * stored:,} runs",
        ["page", "PostgreSQL", "MariaDB", "statements", f"< {TARGET:g} s, {STATEMENTS}"],
    )
    took: dict[str, list[float]] = {page: [] for page in PAGES}
    counts: dict[str, int] = {}
    for kind in ("postgresql", "mariadb"):
        with places.database(kind) as url:
            fill_history(url, stored, 10)
            table.notes.append(f"{server_of(url)}.")
            store = Store(url)
            client = Client(Dashboard(store, authorize=lambda _: Actor("bench", can_write=True)))
            for page in PAGES:
                took[page].append(median_of(partial(_ask, client, page)))
                counts[page] = _statements(store, client, page)
            store.close()
    for page, seconds in took.items():
        good = max(seconds) < TARGET and counts[page] <= STATEMENTS
        shown = verdict(max(seconds), TARGET) if counts[page] <= STATEMENTS else "statements"
        table.add(page, *map(ms, seconds), str(counts[page]), shown if not good else "yes")
    table.notes.append("The median of three calls after a first; what a reading adds is left out.")
    return [table]


def _ask(client: Client, page: str) -> None:
    response = client.get(page)
    assert response.status_code == 200, (page, response.text[:2000])


def _statements(store: Store, client: Client, page: str) -> int:
    """Return how many statements a page takes, without those of its transaction."""
    seen: list[str] = []

    def note(*said: object) -> None:
        seen.append(str(said[2]))

    sa.event.listen(store.database.engine, "before_cursor_execute", note)
    try:
        _ask(client, page)
    finally:
        sa.event.remove(store.database.engine, "before_cursor_execute", note)
    return sum(not one.upper().startswith(_FRAME) for one in seen)

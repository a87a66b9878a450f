"""Export entries as documents, a page at a time.

All pages are read from one snapshot of the database, so that the counters of edges agree with
those of their upstreams.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from beatstore.config import Settings
from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TAG
from beatstore.database.transaction import explained
from beatstore.store import links
from beatstore.store.entries import matching
from beatstore.store.transfer.documents import HEADER, VERSION, document

__all__ = ["documents", "export"]

_PAGE = 500


def export(
    database: Database, settings: Settings, chosen: Mapping[str, str | None], given: Any
) -> Generator[dict[str, Any], None, None]:
    """Yield a header and all chosen entries; see `Store.export`.

    Args:
        database: the database to read.
        settings: the settings in force.
        chosen: the filters, by name.
        given: the caller's session, or None.
    """
    with explained(database, own=given is None), _snapshot(database, settings, given) as tx:
        yield {HEADER: VERSION, "at": tx.now().isoformat(), "unsent_runs": _unsent(tx)}
        last_id = 0
        while True:
            # In the order of their creation: upstreams mostly come first, and an export of a
            # loaded database has the same order.
            page = matching(tx, select(ENTRY), chosen).where(ENTRY.c.id > last_id)
            entries = tx.execute(page.order_by(ENTRY.c.id).limit(_PAGE)).all()
            if not entries:
                return
            yield from documents(tx, entries)
            last_id = entries[-1].id


@contextmanager
def _snapshot(database: Database, settings: Settings, given: Any) -> Iterator[Transaction]:
    if given is not None:
        with database.session(given) as session:
            yield Transaction(session, database, settings)
        return
    with (
        database.engine.connect() as connection,
        dialect_of(connection.dialect).begin_reading(connection),
        Session(connection, expire_on_commit=False) as session,
    ):
        yield Transaction(session, database, settings)


def _unsent(tx: Transaction) -> int:
    """Count the unsent runs, including retries: they are not exported."""
    unsent = select(func.count()).where(RUN.c.wake_at.is_not(None), RUN.c.state == "claimed")
    return int(tx.execute(unsent).scalar_one())


def documents(tx: Transaction, entries: Sequence[Any]) -> Iterable[dict[str, Any]]:
    """Return a page of entries, or rows of all their columns, as documents."""
    ids = [entry.id for entry in entries]
    among = dialect_of(tx.dialect).among
    tags: dict[int, list[str]] = {}
    for row in tx.execute(select(TAG.c.entry_id, TAG.c.tag).where(among(TAG.c.entry_id, ids))):
        tags.setdefault(row.entry_id, []).append(row.tag)
    after = links.read_all(tx, among(DEPENDENCY.c.downstream_id, ids))
    used = _used(tx, list(after))
    return [
        document(
            entry,
            tags.get(entry.id, ()),
            after.get(entry.id, ()),
            used.get(entry.id, {}),
            tx.settings,
        )
        for entry in entries
    ]


def _used(tx: Transaction, ids: Sequence[int]) -> dict[int, dict[str, tuple[int, int]]]:
    """Return, by downstream and upstream, the completions that the edges have consumed."""
    if not ids:
        return {}
    edge = DEPENDENCY.c
    columns = (edge.downstream_id, ENTRY.c.name, edge.consumed_seq, edge.failure_seen)
    of_edges = select(*columns).join(ENTRY, ENTRY.c.id == edge.upstream_id)
    found: dict[int, dict[str, tuple[int, int]]] = {}
    chosen = dialect_of(tx.dialect).among(edge.downstream_id, ids)
    for row in tx.execute(of_edges.where(chosen)):
        pair = (row.consumed_seq, row.failure_seen)
        found.setdefault(row.downstream_id, {})[row.name] = pair
    return found

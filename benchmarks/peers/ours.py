"""beatstore itself, as it stands in this repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import TASK, Due, Peer, Writer

__all__ = ["PEER"]

_ROOT = Path(__file__).resolve().parents[2]


class _Writer(Writer):
    def __init__(self, url: str) -> None:
        import sqlalchemy as sa

        from beatstore import Store
        from beatstore.models import EntryModel, RunModel

        self._sa = sa
        self._store = Store(url)
        self._store.migrate()
        self._engine = self._store.database.engine
        self._entry: Any = EntryModel.__table__
        self._run: Any = RunModel.__table__

    def store_far(self, count: int) -> None:
        from beatstore import Cron

        now = datetime.now(timezone.utc)
        specs = [f"{minute} * 29 2 *" for minute in range(60)]
        due = [Cron(spec, "UTC").next_after(now) for spec in specs]
        self._insert(
            {
                "name": f"far-{n}",
                "kind": "cron",
                "spec": specs[n % 60],
                "timezone": "UTC",
                "wake_at": due[n % 60],
                "next_due_at": due[n % 60],
                "cursor_at": now,
                "created_at": now,
            }
            for n in range(count)
        )

    def store_due(self, due: Sequence[Due]) -> None:
        entry = self._entry
        with self._engine.begin() as connection:
            connection.execute(self._sa.delete(self._run))
            connection.execute(self._sa.delete(entry).where(~entry.c.name.like("far-%")))
        self._insert(
            {
                "name": f"due-{one.number}",
                "kind": "every",
                "spec": f"{one.period:g} from {one.last_at.isoformat()}",
                "args": [one.number],
                "wake_at": one.first_at,
                "created_at": one.last_at,
            }
            for one in due
        )

    def add(self, number: int) -> None:
        from beatstore import Once

        self._store.add(f"new-{number}", TASK, Once(datetime.now(timezone.utc)), args=[number])

    def _insert(self, rows: Iterator[dict[str, Any]]) -> None:
        while page := list(islice(rows, 10_000)):
            with self._engine.begin() as connection:
                same = {"task": TASK}
                connection.execute(self._sa.insert(self._entry), [same | row for row in page])


class _Ours(Peer):
    name = "beatstore"
    requirements = ("-e", f"{_ROOT}[postgres,mysql,redis]")
    scheduler = "beatstore:DBScheduler"

    def settings(self, where: str) -> dict[str, Any]:
        return {"beatstore_url": where}

    def writer(self, app: Any, where: str) -> Writer:
        return _Writer(where)


PEER = _Ours()

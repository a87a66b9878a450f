"""PersistentScheduler, Celery's own: `beat_schedule`, and a file of what ran when.

Its entries are the app's settings, so they can't change while it runs.
"""

from __future__ import annotations

import json
import shelve
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import TASK, Due, Peer, Writer

__all__ = ["PEER"]


def _schedule(far: int, due: Sequence[Due]) -> dict[str, dict[str, Any]]:
    """Return `beat_schedule` as a module of a project would have it."""
    from celery.schedules import crontab

    crons = [crontab(minute=m, day_of_month=29, month_of_year=2) for m in range(60)]
    found: dict[str, dict[str, Any]] = {
        f"far-{n}": {"task": TASK, "schedule": crons[n % 60]} for n in range(far)
    }
    for one in due:
        every = timedelta(seconds=one.period)
        found[f"due-{one.number}"] = {"task": TASK, "schedule": every, "args": [one.number]}
    return found


class _Writer(Writer):
    def __init__(self, app: Any, file: Path) -> None:
        self._app, self._file = app, file
        self._far = 0

    def store_far(self, count: int) -> None:
        self._far = count

    def store_due(self, due: Sequence[Due]) -> None:
        from celery import __version__
        from celery.beat import ScheduleEntry

        given = [[one.number, one.at, one.period] for one in due]
        self._file.with_suffix(".json").write_text(json.dumps({"far": self._far, "due": given}))
        for old in self._file.parent.glob(f"{self._file.name}*"):
            if old.suffix != ".json":
                old.unlink()
        last = {f"due-{one.number}": one.last_at for one in due}
        entries = {
            name: ScheduleEntry(
                name=name, last_run_at=last.get(name, self._app.now()), app=self._app, **fields
            )
            for name, fields in _schedule(self._far, due).items()
        }
        with shelve.open(str(self._file)) as store:
            known = {"__version__": __version__, "tz": "UTC", "utc_enabled": True}
            store.update(known | {"entries": entries})


class _Persistent(Peer):
    name = "PersistentScheduler"
    requirements = ()
    scheduler = "celery.beat:PersistentScheduler"
    options = ("--max-interval", "5")
    databases = ("file",)
    takes_changes = False

    def settings(self, where: str) -> dict[str, Any]:
        return {"beat_schedule_filename": where}

    def configure(self, app: Any, where: str) -> None:
        file = Path(where).with_suffix(".json")
        if file.exists():
            given = json.loads(file.read_text())
            app.conf.beat_schedule = _schedule(given["far"], [Due(*one) for one in given["due"]])

    def writer(self, app: Any, where: str) -> Writer:
        return _Writer(app, Path(where))


PEER = _Persistent()

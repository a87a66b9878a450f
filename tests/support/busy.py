"""A store with something on every page of the dashboard."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from beatstore import After, Cron, Entry, Every, Once, RRule, Store
from beatstore.models import BeatModel, RunModel, WorkerModel
from tests.support.written import DAY, HOUR, MINUTE, alter, run, write

__all__ = ["EXTRACT", "LOAD", "MAIL", "fill"]

#: The entries that tests name; `fill` adds its mark to each.
EXTRACT, LOAD, MAIL = "etl.extract", "etl.load", "mail"

_STATES = ("succeeded", "succeeded", "failed", "succeeded", "lost", "missed", "skipped")

_TRACEBACK = """Traceback (most recent call last):
  File "etl.py", line 3, in extract
    raise TimeoutError("no answer after 30 s")
"""


def fill(store: Store, mark: str = "") -> None:
    """Write entries in every state, runs in every state, edges, changes, beats and workers.

    Args:
        store: where.
        mark: a text that all names, arguments, descriptions and errors end with.
    """
    now = store.now()
    _add(store.by(f"anna{mark}", reason=f"for the new warehouse{mark}"), now, mark)
    extract, mail = store.get(EXTRACT + mark), store.get(MAIL + mark)
    store.by("bob").pause(f"newsletter{mark}")
    store.trigger(LOAD + mark)
    alter(store, f"sunset{mark}", state="broken", error=f"There is no such event{mark}")
    write(store, RunModel, *_runs(extract, now, mark), *_quick(mail, now))
    write(store, BeatModel, *(_process(now, at, host=f"beat-{at}{mark}") for at in range(2)))
    write(
        store,
        WorkerModel,
        *(_process(now, at, name=f"celery@worker-{at}{mark}", running=at) for at in range(2)),
    )


def _add(store: Store, now: datetime, mark: str) -> None:
    store.add(
        EXTRACT + mark,
        f"etl.extract{mark}",
        Cron("0 3 * * *"),
        timezone="Europe/Berlin",
        args=[mark, 1],
        kwargs={"day": f"monday{mark}", "token": "s3cr3t"},
        options={"queue": f"etl{mark}"},
        tags=["etl", f"n{mark}"[:64].strip()],
        description=f"Reads the orders of the day{mark}",
        max_retries=2,
    )
    store.add(LOAD + mark, "etl.load", None, after=[After(EXTRACT + mark)], tags=["etl"])
    store.add(
        f"etl.report{mark}",
        "etl.report",
        Cron("30 3 * * *"),
        after=[After(LOAD + mark, on="done", timeout=3600), After(EXTRACT + mark)],
    )
    store.add(MAIL + mark, f"mail.send{mark}", Every(60), kwargs={"big": 9007199254740993})
    store.add(f"newsletter{mark}", "mail.letter", RRule("FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9"))
    store.add(f"sunset{mark}", "lamps.on", Cron("0 18 * * *"))
    store.add(f"move{mark}", "ops.move", Once(now + 5 * DAY))


def _runs(entry: Entry, now: datetime, mark: str) -> Iterator[dict[str, Any]]:
    """Make a run for each of the last 40 hours, one of them with two attempts."""
    for number in range(40):
        state = _STATES[number % len(_STATES)]
        due = now - number * HOUR - MINUTE
        columns: dict[str, Any] = {"state": state, "worker": None, "finished_at": due}
        if state in ("succeeded", "failed", "lost"):
            columns |= {"sent_at": due + timedelta(seconds=number)}
            columns |= {"started_at": due + MINUTE, "finished_at": due + 2 * MINUTE}
            columns |= {"worker": f"celery@worker-1{mark}"}
        if state in ("failed", "lost"):
            error = f"TimeoutError: no answer after 30 s{mark}"
            columns |= {"error": error, "traceback": _TRACEBACK + mark}
        if state == "skipped":
            columns |= {"reason": f"it was paused{mark}"}
        yield run(entry, due, **columns)
        if number == 2:
            yield run(entry, due, **{**columns, "attempt": 2, "state": "succeeded", "error": None})


def _quick(entry: Entry, now: datetime) -> Iterator[dict[str, Any]]:
    """Make runs that are under way."""
    for number, state in enumerate(("claimed", "sent", "started")):
        yield run(entry, now - number * MINUTE, state=state, sent_at=now, started_at=now)


def _process(now: datetime, number: int, **columns: Any) -> dict[str, Any]:
    """Make a beat or a worker; the first is alive, and each further one silent for an hour more."""
    seen = now - number * HOUR
    row: dict[str, Any] = {"id": str(uuid.uuid4()), "pid": 4000 + number, "version": "1.0"}
    if "host" in columns:
        row |= {"tzdata": "2026a", "tick_s": 0.004, "planned": 1200, "sent": 1200}
        row |= {"step": "hooks: by apply_async for each message, since beatstore_send says so"}
    return row | {"started_at": now - DAY, "heartbeat_at": seen, **columns}

"""One-shots and single runs: schedule, trigger, rerun, end, cancel and reschedule.

Each function works in the open transaction it is given, under the invariants of
`beatstore.store.entries`.

On failure: arguments are refused before anything is written.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import func, select, update

from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY, RUN
from beatstore.definition import edits, fields
from beatstore.definition.calls import own_id, split_time
from beatstore.errors import EntryExistsError, InvalidEntryError
from beatstore.records import Entry, Run
from beatstore.rules.due import STEP
from beatstore.rules.reasons import BY_HAND, RERUN, RERUN_ANYWAY, TRIGGERED
from beatstore.rules.states import (
    FINAL,
    OVER,
    RECORDS,
    SENDS_NOTHING,
    STOPPED,
    UNFINISHED,
    WITH_WORKER,
)
from beatstore.schedules import Once
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit, entries, insertion
from beatstore.store.history import found_run
from beatstore.tick.claims import Ending
from beatstore.tick.endings import cancel_unsent, write_ending
from beatstore.types import EndState

__all__ = [
    "END_STATES",
    "ahead",
    "cancel",
    "end",
    "generated_name",
    "rerun",
    "reschedule",
    "schedule",
    "trigger",
]

#: The states in which `end` can end a run.
END_STATES: tuple[EndState, ...] = get_args(EndState)

#: How far after now the due times of triggered runs are searched.
_SOON = timedelta(seconds=1)

#: The most seconds that other fields take.
_LONG = 1e9

_ID_TAKEN = (
    "a task id can be used only once: leave task_id out, or create a new signature if this one "
    "was frozen or sent before"
)


def schedule(
    tx: Transaction, task: object, at: object, countdown: object, given: Mapping[str, Any]
) -> Entry:
    """Insert a one-shot; see `Store.schedule`."""
    task, own = split_time(task)
    times = {
        key: value for key, value in (("at", at), ("countdown", countdown)) if value is not None
    }
    once = _once(tx, times or own, after=given.get("after"))
    rest = {key: value for key, value in given.items() if key != "name"}
    named = {"task": task, "timezone": None, **once, **rest}
    task_id = own_id(task)
    if task_id is not None:
        named["options"] = {"task_id": task_id}
    if given["name"] is not None:
        return entries.add(tx, given["name"], named, "schedule")
    checked = edits.check(named, tx.settings)
    made = None
    if task_id is not None:
        made = insertion.insert(tx, "schedule", task_id, checked)
        if made is None:
            raise EntryExistsError(task_id, _ID_TAKEN)
    while made is None:
        made = insertion.insert(tx, "schedule", generated_name(checked.columns["task"]), checked)
    return made


def generated_name(task: str) -> str:
    """Return a new name for a one-shot of this task."""
    stem = task.rpartition(".")[2][:200].strip() or "task"
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def _once(tx: Transaction, times: Mapping[str, object], after: object) -> dict[str, Any]:
    """Return the arguments that say when a one-shot is due."""
    if not times and after:
        return {"schedule": None, "max_runs": 1}
    if len(times) != 1:
        raise InvalidEntryError(
            "at",
            times or None,
            "exactly one of at and countdown, or after=[…]",
            "at=datetime(…, tzinfo=…)",
        )
    [(field, value)] = times.items()
    if field == "countdown":
        return {"schedule": Once(ahead(tx.now(), value))}
    return {"schedule": Once(fields.instant(field, value))}


def ahead(now: datetime, countdown: object) -> datetime:
    """Return the instant after a countdown of seconds, up to thousands of years."""
    try:
        if isinstance(countdown, timedelta) and countdown >= timedelta(0):
            return now + countdown
        if isinstance(countdown, int | float) and countdown >= _LONG:
            return now + timedelta(seconds=countdown)
    except OverflowError:
        expected = "seconds that end before the year 10000"
        raise InvalidEntryError("countdown", countdown, expected) from None
    return now + timedelta(seconds=fields.seconds("countdown", countdown))


def trigger(tx: Transaction, name: str) -> Run:
    """Insert a run that beat sends at once; see `Store.trigger`."""
    entry = tx.get(name, lock=True)
    if entry.state in SENDS_NOTHING:
        why = f"{entry.state}: {entry.error}" if entry.error else entry.state
        write = f"store.resume({name!r})" if entry.state == "broken" else "another entry"
        raise InvalidEntryError("state", why, "an entry that can be sent", write)
    asked_at = tx.now()
    due_at = _free_instant(tx, asked_at)
    while not tx.insert(RUN, _triggered(entry, due_at)):
        due_at += STEP  # another transaction has taken it
    counted = {"run_count": ENTRY.c.run_count + 1, "last_run_at": asked_at}
    tx.execute(update(ENTRY).where(ENTRY.c.id == entry.id).values(counted))
    key = (RUN.c.entry_id == entry.id, RUN.c.due_at == due_at, RUN.c.attempt == 1)
    made = tx.all(Run, select(RUN).where(*key))[0]
    audit.record(tx, "trigger", name, None, {"run_id": made.id, "due_at": due_at})
    return made


def _free_instant(tx: Transaction, now: datetime) -> datetime:
    """Return an instant, now or shortly after, at which no run of any entry is due.

    Downstreams with `align="same"` identify runs by their due times, so each triggered run needs
    a due time of its own.
    """
    # A scheduled occurrence may be due at this very second.
    due_at = now if now.microsecond else now + STEP
    soon = (RUN.c.due_at >= due_at, RUN.c.due_at < due_at + _SOON)
    last = tx.execute(select(func.max(RUN.c.due_at)).where(*soon)).scalar()
    return last + STEP if isinstance(last, datetime) else due_at


def rerun(tx: Transaction, given: int | str) -> Run:
    """Insert the next attempt of an ended run; see `Store.rerun`."""
    run = found_run(tx, given)
    name = _name_of(tx, run)
    entry = tx.get(run.entry_name if name is None else name, lock=True)
    if name is None:
        raise InvalidEntryError("run", given, "a run whose entry still exists")
    if not isinstance(run.due_at, datetime):
        raise InvalidEntryError("run", given, "a run whose due time can be read")
    of_key = (RUN.c.entry_id == run.entry_id, RUN.c.due_at == run.due_at)
    attempts = tx.all(Run, select(RUN).where(*of_key).order_by(RUN.c.attempt))
    for one in attempts:
        if one.state in UNFINISHED:
            expected = f"a run that has ended; its attempt {one.attempt} is {one.state}"
            raise InvalidEntryError("run", given, expected)
    last = attempts[-1].attempt
    note = f"{RERUN_ANYWAY}," if entry.state == "cancelled" else RERUN
    again = {
        **_triggered(entry, run.due_at, last + 1),
        "reason": f"{note} of attempt {run.attempt}",
        # It waits since now, and not since its due time.
        "wake_at": tx.database.now_sql(),
        **_covered_by(run),
    }
    if not tx.insert(RUN, again):
        raise InvalidEntryError("run", given, "a run that nobody else is rerunning now")
    made = tx.all(Run, select(RUN).where(*of_key, RUN.c.attempt == last + 1))[0]
    audited = {"run_id": made.id, "due_at": made.due_at, "attempt": made.attempt}
    audit.record(tx, "rerun", entry.name, None, audited)
    return made


def end(tx: Transaction, given: int | str, state: EndState, reason: str | None) -> Run:
    """End a run that no worker will report; see `Store.end`."""
    fields.choice("state", state, END_STATES)
    note = fields.note("reason", reason)
    run = found_run(tx, given)
    words = f"{BY_HAND}: {note}" if note else BY_HAND
    ending = Ending(run.id, run.task_id, state, words)
    # Beat does the rest at its next tick: counters, downstreams, the next attempt.
    written = write_ending(tx, ending, tx.now(), WITH_WORKER, follow_up="end")
    made = found_run(tx, run.id)
    if not written:
        expected = f"a run that is sent or started; this one is {made.state}"
        write = "store.pause(…) or store.cancel(…)" if made.state == "claimed" else None
        raise InvalidEntryError("run", given, expected, write)
    name = _name_of(tx, run) or run.entry_name
    became = {"state": state, "run_id": run.id}
    audit.record(tx, "end", name, {"state": run.state}, became, reason=note)
    return made


def _name_of(tx: Transaction, run: Run) -> str | None:
    """Return the present name of a run's entry, which may have been renamed; None: removed."""
    return tx.execute(select(ENTRY.c.name).where(ENTRY.c.id == run.entry_id)).scalar()


def _covered_by(run: Run) -> dict[str, Any]:
    """Return the columns that say which earlier occurrences a run covers."""
    others = run.missed_count
    if run.state in RECORDS:
        others = max(0, others - 1)  # a record without a message counts its own due time, too
    return {"missed_count": others, "first_missed_at": run.first_missed_at if others else None}


def cancel(tx: Transaction, name: str) -> bool:
    """Cancel an entry unless it is too late; see `Store.cancel`."""
    old = tx.get(name, lock=True)
    why = "entry cancelled before it was sent"
    if old.state in OVER - {"cancelled"}:
        cancel_unsent(tx, [old.id], tx.now(), why, asked=True)
        return False
    if old.state != "cancelled":
        done = {
            "state": "cancelled",
            "wake_at": None,
            "next_due_at": None,
            **edits.NOTHING_PENDING,
            **tx.stamp(),
        }
        tx.execute(update(ENTRY).where(ENTRY.c.id == old.id).values(done))
        audit.record(tx, "cancel", name, {"state": old.state}, {"state": "cancelled"})
    # Also what was rerun after the entry had been cancelled.
    cancel_unsent(tx, [old.id], tx.now(), why)
    return True


def reschedule(tx: Transaction, name: str, at: object) -> bool:
    """Move a one-shot unless it is too late; see `Store.reschedule`."""
    due_at = fields.instant("at", at)
    old = tx.get(name, lock=True)
    if old.kind != "once":
        write = f"store.change({name!r}, schedule=…)"
        raise InvalidEntryError("name", name, f"a one-shot; this is {old.kind} {old.spec!r}", write)
    if old.state in FINAL:
        return False
    moved = {"spec": Once(entries.free_due_time(tx, old.id, due_at)).spec}
    if old.state in STOPPED and not edits.changes(old, moved):
        entries.write(tx, "reschedule", old, edits.mended(old, tx.now()))
    else:
        entries.edit(tx, "reschedule", old, edits.CheckedFields(moved))
    return True


def _triggered(entry: Entry, due_at: datetime, attempt: int = 1) -> dict[str, Any]:
    return {
        "entry_id": entry.id,
        "entry_name": entry.name,
        "due_at": due_at,
        "attempt": attempt,
        # Not derived from its key: a scheduled occurrence of this instant would have that id.
        "task_id": str(uuid.uuid4()),
        "state": "claimed",
        "reason": TRIGGERED,
        "wake_at": EPOCH,
    }

"""Write how runs ended to their rows.

Joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, bindparam, case, func, literal, or_, update

from beatstore.database.columns import Instant
from beatstore.database.connection import Executes
from beatstore.database.functions import begins_with
from beatstore.database.tables import RUN, chunks
from beatstore.rules.reasons import NOTES, RERUN, RERUN_ANYWAY, TRIGGERED, is_by_hand
from beatstore.tick.claims import Ending, legible

__all__ = [
    "ERROR_LENGTH",
    "HELD",
    "NO_RETRY",
    "SUSPECTED",
    "TAKEN_FOR_UNSENT",
    "UnwrittenEndings",
    "cancel_unsent",
    "is_reported",
    "reworded_reason",
    "texts_of",
    "write_ending",
]

#: The value of `claimed_by` for a stale run: no worker has reported on it for too long.
SUSPECTED = "suspected"

#: The maximum length of stored texts: the beginning of an error, the end of a traceback.
ERROR_LENGTH = 2000
TRACEBACK_LENGTH = 20_000

#: How long to wait before trying again when an entry is locked.
HELD = timedelta(seconds=1)


#: The run is no next attempt that beat made after a failure. Cancelled, it counts as nothing.
#: `beatstore.tick.attempts.is_retry` is the opposite in Python.
NO_RETRY = or_(RUN.c.attempt == 1, begins_with(RUN.c.reason, RERUN))

#: Beat took the run for unsent, and counts nothing. A worker that has the message corrects it.
TAKEN_FOR_UNSENT = and_(
    RUN.c.worker.is_(None),
    NO_RETRY,
    or_(
        and_(RUN.c.state == "skipped", RUN.c.claimed_by.is_not(None)),
        RUN.c.state == "cancelled",
    ),
)


def is_reported(run: Any) -> bool:
    """Return whether a worker has said how a run has ended, and not a user or beat."""
    return run.worker is not None and not is_by_hand(run.reason)


def reworded_reason(words: str | ColumnElement[str]) -> ColumnElement[str]:
    """Return a new reason for runs; `beatstore.rules.reasons.reworded` is the same in Python.

    NULL stays NULL.
    """
    new = literal(words, Text()) if isinstance(words, str) else words
    kept = ((begins_with(RUN.c.reason, note), literal(f"{note}; ", Text()) + new) for note in NOTES)
    return case(*kept, else_=new)


@dataclass(slots=True)
class UnwrittenEndings:
    """Endings that were not written.

    Attributes:
        held: their runs or entries are locked: write them again later.
        unknown: their runs have ended and lost their entry, or are not in this database.
    """

    held: list[Ending] = field(default_factory=list)
    unknown: list[Ending] = field(default_factory=list)


_WRITE = (
    update(RUN)
    .where(
        RUN.c.id == bindparam("b_id"),
        RUN.c.task_id == bindparam("b_task_id"),
        RUN.c.state.in_(bindparam("b_states", expanding=True)),
    )
    .values(
        {
            name: bindparam(f"b_{name}", type_=RUN.c[name].type)
            for name in ("state", "finished_at", "error", "traceback", "wake_at", "follow_up")
        }
        | {
            name: func.coalesce(bindparam(f"b_{name}", type_=RUN.c[name].type), RUN.c[name])
            for name in ("worker", "started_at")
        }
        | {
            "reason": func.coalesce(
                reworded_reason(bindparam("b_reason", type_=Text())), RUN.c.reason
            )
        }
    )
)


def write_ending(
    connection: Executes,
    ending: Ending,
    now: datetime,
    states: Collection[str],
    *,
    follow_up: str | None = None,
) -> bool:
    """Write an outcome to a run that is in one of `states`; return whether it was."""
    finished_at = now - _span(ending.age_s)
    given = {
        "b_id": ending.run_id,
        "b_task_id": ending.task_id,
        "b_states": list(states),
        "b_state": ending.state,
        "b_finished_at": finished_at,
        "b_wake_at": now + HELD if follow_up else None,
        "b_follow_up": follow_up,
        **{f"b_{name}": text for name, text in texts_of(ending).items()},
        "b_started_at": None if ending.ran_s is None else finished_at - _span(ending.ran_s),
    }
    return bool(connection.execute(_WRITE, given).rowcount == 1)


def cancel_unsent(
    connection: Executes,
    entries: Sequence[int],
    now: datetime,
    reason: str,
    *,
    held: bool = False,
    asked: bool = False,
) -> None:
    """Cancel the runs of entries, by their ids, that are not sent.

    With `held`, also those that a beat has claimed. Without it, the beat may send those now, but
    no beat claims them again. With `asked`, only what was triggered or rerun. Joins the caller's
    transaction.
    """
    # Without its retry, an occurrence has failed: beat counts it at the next tick.
    counted = case((RUN.c.attempt > 1, literal(now, Instant())))
    done = {"state": "cancelled", "wake_at": counted, "finished_at": now}
    done["reason"] = reworded_reason(reason)
    for some in chunks(entries):
        unsent = [RUN.c.entry_id.in_(some), RUN.c.state == "claimed"]
        if asked:
            unsent.append(begins_with(RUN.c.reason, TRIGGERED))
        if held:
            connection.execute(update(RUN).where(*unsent).values(done))
            continue
        connection.execute(update(RUN).where(*unsent, RUN.c.claimed_by.is_(None)).values(done))
        anyway = begins_with(RUN.c.reason, RERUN_ANYWAY)
        plain = {"reason": func.replace(RUN.c.reason, RERUN_ANYWAY, RERUN)}
        connection.execute(update(RUN).where(*unsent, anyway).values(plain))


def texts_of(ending: Ending) -> dict[str, str | None]:
    """Return the columns of an ending that are texts, in a form that can be stored."""
    return {
        "error": legible(ending.error, ERROR_LENGTH) if ending.error else None,
        "traceback": _end(ending.traceback),
        "reason": legible(ending.reason, ERROR_LENGTH) if ending.reason else None,
        "worker": legible(ending.worker, 255) if ending.worker else None,
    }


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=max(0.0, seconds))


def _end(text: str | None) -> str | None:
    """Return the last part of a traceback, which is the most useful."""
    if text is None:
        return None
    cut = "…" if len(text) > TRACEBACK_LENGTH else ""
    return cut + legible(text[-TRACEBACK_LENGTH:], TRACEBACK_LENGTH)

"""Write the ends that only count: no attempt follows, and nothing waits for them.

Most runs end so. One statement locks such runs and their entries, writes the ends and counts them,
where the database takes rows as one parameter. Whatever else a run, its entry or their locks say,
the end is left to `beatstore.tick.complete`.

Joins the caller's transaction.

Invariants:
    * What is locked elsewhere is left alone, so nothing waits for a lock.
    * A statement sees the edges of before its locks. Those that were written until then are read
      by a second one: later ones wait for the lock on the upstream, and see the count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import add
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Executable,
    Interval,
    String,
    Text,
    and_,
    any_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql.expression import null

from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.functions import NOW
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN
from beatstore.rules.outcomes import COUNTERS, counters_of
from beatstore.rules.states import UNFINISHED
from beatstore.tick.claims import Ending
from beatstore.tick.endings import reworded_reason, texts_of

__all__ = ["MOST_COUNT", "write_counted"]

#: The largest value of a counter; one that was set to it by hand stays there.
MOST_COUNT = 2**63 - 1

_TEXTS = ("error", "traceback", "reason", "worker")
_GIVEN: dict[str, Any] = {
    "b_id": BigInteger(),
    "b_task_id": String(),
    "b_state": String(),
    "b_age": Interval(),
    "b_ran": Interval(),
    **{f"b_{name}": Text() for name in _TEXTS},
}

#: No entry waits for an end of this one, as far as the statement sees edges.
_WAITED_FOR = select(DEPENDENCY.c.upstream_id).where(DEPENDENCY.c.upstream_id == ENTRY.c.id)
_NOT_WAITED_FOR: ColumnElement[bool] = and_(
    ~_WAITED_FOR.exists(), ENTRY.c.blocked_by.is_distinct_from(ENTRY.c.id)
)


@dataclass(frozen=True, slots=True)
class _Write:
    """The statement, and what makes its parameters."""

    statement: Executable
    parameters: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]


def write_counted(
    connection: Connection, database: Database, endings: Sequence[Ending]
) -> tuple[set[int], list[int]]:
    """Write and count the ends that only count.

    Args:
        connection: in the caller's transaction.
        database: provides the clock.
        endings: at most one for each run.

    Returns:
        The ids of the runs whose ends were written, and of those among them that have a downstream
        after all: these are to be woken.
    """
    write = _write(connection.dialect)
    if write is None or not endings:
        return set(), []
    given = write.parameters([_row(ending) for ending in endings])
    given |= {"ids": [ending.run_id for ending in endings], **database.given_now()}
    written = {row.id: row.entry_id for row in connection.execute(write.statement, given)}
    if not written:
        return set(), []
    among = dialect_of(connection.dialect).among(DEPENDENCY.c.upstream_id, set(written.values()))
    upstreams = set(connection.scalars(select(DEPENDENCY.c.upstream_id).where(among)))
    return set(written), [run for run, entry in written.items() if entry in upstreams]


def _row(ending: Ending) -> dict[str, Any]:
    return {
        "b_id": ending.run_id,
        "b_task_id": ending.task_id,
        "b_state": ending.state,
        "b_age": _interval(ending.age_s),
        "b_ran": None if ending.ran_s is None else _interval(ending.ran_s),
        **{f"b_{name}": text for name, text in texts_of(ending).items()},
    }


def _interval(seconds: float) -> str:
    return f"{max(0.0, seconds):.6f} seconds"


@lru_cache
def _write(dialect: Dialect) -> _Write | None:
    given = dialect_of(dialect).given_rows(dialect, _GIVEN)
    if given is None:
        return None
    one = given.table.c
    last = and_(one.b_state == "failed", RUN.c.attempt > ENTRY.c.max_retries)
    # The join alone would do, but where the server has no figures of a table yet, it may read all
    # unfinished runs for it.
    ids = bindparam("ids", type_=ARRAY(BigInteger()))
    locked = (
        select(RUN.c.id, NOW.label("now"), *(one[name] for name in _GIVEN))
        .join_from(given.table, RUN, and_(RUN.c.id == one.b_id, RUN.c.task_id == one.b_task_id))
        .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
        .where(RUN.c.id == any_(ids))
        .where(or_(*(RUN.c.state == state for state in sorted(UNFINISHED))))
        .where(or_(one.b_state == "succeeded", last), _NOT_WAITED_FOR)
        .order_by(ENTRY.c.id, RUN.c.id)
        .with_for_update(of=(RUN, ENTRY), skip_locked=True)
        .cte("locked")
    )
    ended = _ended(locked.c).cte("ended")
    successes = func.count().filter(ended.c.state == "succeeded")
    counts = {"success": successes, "failure": func.count() - successes}
    outcomes = (
        select(ended.c.entry_id, *(counts[name].label(name) for name in counts))
        .group_by(ended.c.entry_id)
        .subquery("outcomes")
    )
    counted = (
        update(ENTRY)
        .where(ENTRY.c.id == outcomes.c.entry_id)
        .values({name: _added(name, outcomes.c) for name in COUNTERS})
        .returning(ENTRY.c.id)
        .cte("counted")
    )
    return _Write(select(ended.c.id, ended.c.entry_id).add_cte(counted), given.parameters)


def _ended(given: Any) -> Any:
    """Return the statement that writes the ends of the locked runs."""
    finished_at = given.now - given.b_age
    kept = {"started_at": finished_at - given.b_ran, "reason": reworded_reason(given.b_reason)}
    values = {
        "state": given.b_state,
        "finished_at": finished_at,
        "error": given.b_error,
        "traceback": given.b_traceback,
        "wake_at": null(),
        "follow_up": null(),
        **{
            name: func.coalesce(value, RUN.c[name])
            for name, value in (kept | {"worker": given.b_worker}).items()
        },
    }
    ended = update(RUN).where(RUN.c.id == given.id).values(values)
    return ended.returning(RUN.c.id, RUN.c.entry_id, RUN.c.state)


def _added(counter: str, outcomes: Any) -> ColumnElement[int]:
    """Return a counter with these outcomes."""
    kinds = [outcomes[name] for name in ("success", "failure") if counter in counters_of(name)]
    added, column = reduce(add, kinds), ENTRY.c[counter]
    return case((column > literal(MOST_COUNT, BigInteger()) - added, column), else_=column + added)

"""What is on record of an entry around one instant."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, select

from beatstore.database.functions import is_word
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, RUN, WAIT
from beatstore.database.together import Question
from beatstore.errors import ScheduleError
from beatstore.records import Audit, Entry, Run
from beatstore.rules.due import DueTimes, just_before
from beatstore.store.explain.upstreams import changes, newest_first, runs
from beatstore.tick.tokens import OPEN

__all__ = ["CHANGES_READ", "Around", "run_of_removed"]

#: How many changes, and how many following runs, are searched.
CHANGES_READ = 1000
_RUNS_READ = 200

_SECOND = timedelta(seconds=1)


class Around:
    """What is on record of an entry around an instant.

    Args:
        entry: the entry.
        given: the instant.
    """

    def __init__(self, entry: Entry, given: datetime) -> None:
        self.given = given
        mine = select(RUN).where(RUN.c.entry_id == entry.id)
        own = mine.where(_of_then(RUN, given))
        self.own = runs(own.order_by(RUN.c.due_at, RUN.c.attempt).limit(_RUNS_READ))
        later = mine.where(RUN.c.due_at > given).order_by(RUN.c.due_at, RUN.c.id)
        self.later = runs(later.limit(_RUNS_READ))
        earlier = mine.where(RUN.c.due_at < given).order_by(RUN.c.due_at.desc())
        self.earlier = runs(earlier.limit(1))
        self.changes = changes(entry.name, AUDIT.c.at > given, limit=CHANGES_READ)
        open_waits = select(WAIT.c.due_at).where(
            WAIT.c.downstream_id == entry.id, WAIT.c.state.in_(OPEN), _of_then(WAIT, given)
        )
        #: The due times within the second that wait, and that an entry shares with its upstreams.
        self.waits = Question(open_waits, lambda rows: [row.due_at for row in rows])
        self.questions: list[Question[Any]] = [self.own, self.later, self.earlier, self.changes]
        self.questions.append(self.waits)

    def meant(self, tx: Transaction, entry: Entry) -> datetime:
        """Return the due time that was asked about; for a whole second, the first within it."""
        given = self.given
        if given.microsecond:
            return given
        found = [*(run.due_at for run in self.own.answer[-1:]), entry.pending_due_at]
        found += self.waits.answer
        if entry.kind != "after":
            with suppress(ScheduleError, TypeError, AttributeError):  # a row written by hand
                found.append(DueTimes.of(entry, tx.settings).next_after(just_before(given)))
        known = [at for at in found if isinstance(at, datetime) and given <= at < given + _SECOND]
        return min(known, default=given)

    def runs_at(self, at: datetime) -> list[Run]:
        """Return the attempts of the occurrence, in their order."""
        found = (run for run in self.own.answer if run.due_at == at)
        return sorted(found, key=lambda run: run.attempt)

    def runs_after(self, at: datetime) -> list[Run]:
        """Return the runs that follow, the earliest first."""
        return [run for run in reversed(self.later.answer) if run.due_at > at]

    def changes_after(self, at: datetime) -> list[Audit]:
        """Return the changes that were made later, newest first."""
        found = self.changes.answer
        return [one for one in found if not isinstance(one.at, datetime) or one.at > at]


def run_of_removed(tx: Transaction, name: str, at: datetime) -> Run | None:
    """Return the last attempt of an occurrence of an entry that is gone: runs keep its name."""
    of_then = select(RUN).where(RUN.c.due_at == at, is_word(RUN.c.entry_name, name))
    last = tx.execute(of_then.order_by(RUN.c.attempt.desc()).limit(1)).all()
    return next(iter(newest_first(last)), None)


def _of_then(table: Any, given: datetime) -> ColumnElement[bool]:
    """Return the condition for an instant; for a whole second, for all within it."""
    at: ColumnElement[datetime] = table.c.due_at
    return at == given if given.microsecond else and_(at >= given, at < given + _SECOND)

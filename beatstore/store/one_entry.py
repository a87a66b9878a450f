"""One entry with all that is on record of it, as a page about it shows it, in few statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from beatstore.database.rows import Transaction
from beatstore.database.together import Question
from beatstore.records import Audit, Entry, Run
from beatstore.rules.graph import Edge
from beatstore.store import Store, audit, extras, figures, graphs, history
from beatstore.store.explain.around import Around
from beatstore.store.explain.entry import Explanation, Facts, explained
from beatstore.store.explain.occurrence import explained_at
from beatstore.store.explain.wording import Wording
from beatstore.store.figures import FailureGroup, RunCount
from beatstore.types import Page, SessionLike

__all__ = ["Departed", "OneEntry", "departed", "one_entry"]

#: How far back the counts and the failures go, and how long each step of the counts is.
_BACK, _STEP = timedelta(days=90), timedelta(days=1)

#: How many runs, changes and edges are read.
_RUNS, _CHANGES, _EDGES = 30, 20, 30

#: How many groups of failures are read.
_FAILURES = 20


@dataclass(frozen=True, slots=True)
class OneEntry:
    """An entry, and what is on record of it.

    Attributes:
        entry: with its tags, upstreams and edited fields.
        why: why it has or has not run.
        asked: what happened at the instant that was asked about; None: none was.
        runs: the last ones, newest first.
        counts: how many runs were due in each of the last 90 days.
        failures: those of the last 90 days, grouped by error.
        changes: the last ones, newest first.
        upstreams: the first edges from upstreams, in the order of names.
        downstreams: the first edges to downstreams, in the order of names.
        further: how many upstreams and how many downstreams are left out.
    """

    entry: Entry
    why: Explanation
    asked: Explanation | None
    runs: Page[Run]
    counts: Sequence[RunCount]
    failures: Page[FailureGroup]
    changes: Page[Audit]
    upstreams: Sequence[Edge]
    downstreams: Sequence[Edge]
    further: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Departed:
    """What became of an entry that no longer has its name.

    Attributes:
        now: the name that it has now; None: it is gone.
        said: who renamed or removed it, and when, in a sentence.
    """

    now: str | None
    said: str


def departed(store: Store, name: str, timezone: str, session: SessionLike) -> Departed | None:
    """Return what became of the entry that had a name last, and has it no more.

    It joins the transaction of `session`, such as that of `Store.reading`.

    Args:
        store: where the entry was.
        name: the name that it had.
        timezone: the IANA zone for the time in the sentence.
        session: the caller's session.

    Returns:
        None: nothing is on record of that name.
    """

    def read(tx: Transaction) -> Departed | None:
        now, change = audit.followed(tx, name)
        if change is None:
            return None
        return Departed(now, Wording(timezone, tx.now()).gone(change))

    return store._read(session, read)


def one_entry(
    store: Store, name: str, at: datetime | None, timezone: str, session: SessionLike
) -> OneEntry:
    """Return an entry, and what is on record of it.

    It joins the transaction of `session`, such as that of `Store.reading`.

    Args:
        store: where the entry is.
        name: its name.
        at: the due time of one occurrence to explain as well.
        timezone: the IANA zone for times in the explanations.
        session: the caller's session.

    Raises:
        EntryNotFoundError: there is no such entry.
        UnavailableError: the database did not answer, or a statement took too long.
    """
    return store._read(session, lambda tx: _read(tx, name, at, timezone))


def _read(tx: Transaction, name: str, at: datetime | None, timezone: str) -> OneEntry:
    entry = tx.get(name)
    facts = Facts(tx, entry)
    around = None if at is None else Around(entry, at)
    runs = history.last(entry.id, _RUNS)
    neighbours = graphs.Neighbours(entry.id, name, _EDGES)
    further: list[Question[Any]] = [runs, *neighbours.questions]
    facts.read(tx, [*further, *(around.questions if around else ())])
    since = tx.now() - _BACK
    return OneEntry(
        extras.read(tx, [entry], set(extras.EXTRAS))[0],
        explained(tx, facts, timezone),
        None if around is None else explained_at(tx, facts, around, timezone),
        runs.answer,
        figures.run_counts(tx, name, since, tx.now(), _STEP),
        figures.failures(tx, name, since, _FAILURES),
        Page.cut(facts.changes.answer, _CHANGES),
        neighbours.upstreams,
        neighbours.downstreams,
        neighbours.further,
    )

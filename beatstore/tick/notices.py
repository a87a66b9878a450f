"""Log the events of a tick: one line for each batch and kind of event, not for each row.

The lines are made from data that the tick has already read, after its commit, without queries.
An event is logged when its row changes, so any number of beats together log it once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from beatstore.rules.decide import COUNT_LIMIT
from beatstore.rules.decision import Decision, PlannedRun
from beatstore.rules.reasons import MISFIRE, UPSTREAM
from beatstore.tick.claims import Claim, Outcome

__all__ = ["Notice", "log_notices", "log_sent", "notices_of"]

logger = logging.getLogger(__name__)

#: How many entries of a batch are named.
_NAMED = 3

#: The maximum length of a logged reason.
_LONGEST = 300

#: How long an entry may skip because of its own run before this is logged; then each day.
_SKIPPED_FOR = timedelta(minutes=10)
_DAY = timedelta(days=1)

#: The beginning of a line for one event and for many, by kind.
_KINDS = {
    "broken": (
        "an entry is broken and will not run until it is fixed",
        "{} entries are broken and will not run until they are fixed",
    ),
    "missed": ("an entry missed its due time", "{} entries missed their due times"),
    "coalesced": (
        "an entry is late, so one run covers several occurrences",
        "{} entries are late, so one run of each covers several occurrences",
    ),
    "skipped": (
        "an entry has skipped for a long time because its own run has not ended",
        "{} entries have skipped for a long time because their own runs have not ended",
    ),
    "given up": (
        "an occurrence was skipped because its dependencies were not met",
        "{} occurrences were skipped because their dependencies were not met",
    ),
    "upstream failed": (
        "an occurrence was skipped because its upstream failed",
        "{} occurrences were skipped because their upstreams failed",
    ),
    "claims": (
        "a claim expired before its message was marked as sent; sending it again with the same "
        "task id",
        "{} claims expired before their messages were marked as sent; sending them again with the "
        "same task ids",
    ),
    "own claims": (
        "this beat got no answer for a message that it claimed; sending it again with the same "
        "task id",
        "this beat got no answer for {} messages that it claimed; sending them again with the same "
        "task ids",
    ),
    "lost": ("a run is lost and counts as failed", "{} runs are lost and count as failed"),
    "refused": (
        "a run could not be sent and has failed",
        "{} runs could not be sent and have failed",
    ),
    "expired": (
        "a run expired in the queue before a worker started it",
        "{} runs expired in the queue before a worker started them",
    ),
    "cancelled": (
        "a run was cancelled before it was sent",
        "{} runs were cancelled before they were sent",
    ),
}

#: Events that somebody asked for are not warnings. Neither are those that each look finds
#: during an outage, which is logged itself.
_LEVELS = {
    "cancelled": logging.INFO,
    "upstream failed": logging.INFO,
    "own claims": logging.DEBUG,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One event to log.

    Attributes:
        kind: one of `_KINDS`.
        name: the entry's name.
        due_at: the due time of the occurrence, if any.
        reason: why it happened.
        run_id: the run's id, if it has one already.
    """

    kind: str
    name: Any
    due_at: Any = None
    reason: str | None = None
    run_id: int | None = None

    def __str__(self) -> str:
        due = f"due {_at(self.due_at)}" if isinstance(self.due_at, datetime) else None
        run = None if self.run_id is None else f"run {self.run_id}"
        marks = ", ".join(mark for mark in (run, due) if mark)
        which = f"{self.name!r} ({marks})" if marks else repr(self.name)
        why = " ".join((self.reason or "").split())[:_LONGEST]
        return f"{which}: {why}" if why else which


def notices_of(
    decided: Iterable[tuple[Any, Decision, str | None]], now: datetime
) -> Iterator[Notice]:
    """Yield the events to log for a batch of decided entries; mostly there are none.

    Args:
        decided: for each entry its row before the decision, the decision, and why it is broken,
            if it is.
        now: the database's time.
    """
    for entry, decision, problem in decided:
        if problem is not None:
            yield Notice("broken", entry.name, entry.next_due_at, problem)
        for run in decision.runs:
            if run.state != "claimed" or run.missed_count:
                notice = _notice_of_run(entry, run, now)
                if notice is not None:
                    yield notice


def _notice_of_run(entry: Any, run: PlannedRun, now: datetime) -> Notice | None:
    sent = run.state == "claimed"
    if sent:
        kind = "coalesced" if (run.reason or "").startswith(MISFIRE) else None
    elif run.state == "missed":
        kind = "missed"
    elif run.counts:
        kind = "upstream failed" if (run.reason or "").startswith(UPSTREAM) else "given up"
    else:
        kind = "skipped" if _is_skipped_for_long(entry, now) else None
    if kind is None:
        return None
    reason = run.reason
    if sent:
        reason = f"{_count(run.missed_count)} before it, {_since(run)}; {reason}"
    elif run.missed_count > 1:
        reason = f"{_count(run.missed_count)} occurrences, {_since(run)}; {reason}"
    return Notice(kind, entry.name, run.due_at, reason)


def _count(number: int) -> str:
    return f"{number:,}" if number <= COUNT_LIMIT else f"{COUNT_LIMIT:,}+"


def _since(run: PlannedRun) -> str:
    return f"the first due {_at(run.first_missed_at)}"


def _is_skipped_for_long(entry: Any, now: datetime) -> bool:
    """Return whether an entry that keeps skipping has reached the time to log it."""
    since, before = entry.last_run_at, entry.cursor_at
    if not isinstance(since, datetime):
        return False
    skips = now - since
    skipped = before - since if isinstance(before, datetime) else timedelta(0)
    return skips >= _SKIPPED_FOR and (skipped < _SKIPPED_FOR or skips // _DAY > skipped // _DAY)


def log_notices(notices: Iterable[Notice]) -> None:
    """Log the events of a committed batch, one line for each kind."""
    by_kind: dict[str, list[Notice]] = {}
    for notice in notices:
        by_kind.setdefault(notice.kind, []).append(notice)
    for kind, alike in by_kind.items():
        one, many = _KINDS[kind]
        more = len(alike) - _NAMED
        logger.log(
            _LEVELS.get(kind, logging.WARNING),
            "%s: %s%s",
            many.format(f"{len(alike):,}") if len(alike) > 1 else one,
            "; ".join(str(notice) for notice in alike[:_NAMED]),
            f"; and {more:,} more" if more > 0 else "",
        )


def log_sent(outcomes: Collection[Outcome], now: datetime) -> None:
    """Log each message that the broker has accepted.

    Args:
        outcomes: the outcomes of a batch.
        now: the database's time.
    """
    if not outcomes or not logger.isEnabledFor(logging.INFO):
        return
    for claim in _sent(outcomes):
        logger.info(
            "sent %r (%s): run %d, attempt %d, task id %s, due %s, %.3g s late",
            *(claim.name, claim.task, claim.run_id, claim.attempt, claim.task_id),
            *(_at(claim.due_at), max(0.0, (now - claim.due_at).total_seconds())),
        )


def _sent(outcomes: Iterable[Outcome]) -> Iterator[Claim]:
    return (outcome.claim for outcome in outcomes if outcome.state == "sent")


def _at(at: datetime | None) -> str:
    return "?" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"

"""Decisions that entries with equal rules share.

In a burst, most entries have a cron expression, nothing waits, and one occurrence is due in time.
Then the decision depends on the columns of the rule and on the cursor alone, and it is the same at
each instant until the next occurrence, or until the occurrence would be a misfire. It is made once,
and kept for the other entries and for later batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from beatstore.config import Settings
from beatstore.rules.decision import Decision, EntryRow, PlannedRun
from beatstore.rules.due import LATEST, just_before

if TYPE_CHECKING:
    from beatstore.rules.decide import Look

__all__ = ["keep", "kept", "rule_of"]

#: How many decisions are kept.
_MOST = 4096

#: The columns that the decision depends on, and the settings that replace those that are NULL.
_rule_of = attrgetter(
    *("spec", "timezone", "start_at", "end_at", "cursor_at"),
    *("misfire", "grace_s", "overlap", "run_timeout_s"),
)
_defaults_of = attrgetter("default_timezone", "default_misfire", "default_grace")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A decision, and from when until when it is that of any entry with its rule."""

    decision: Decision
    begin: datetime
    end: datetime


_known: dict[Any, _Kept] = {}


def rule_of(entry: EntryRow, settings: Settings) -> Any:
    """Return what the decision about an entry with an open gate depends on, beside the instant.

    None: it depends on more than its rule, so it is not shared.
    """
    return (_rule_of(entry), _defaults_of(settings)) if _is_plain(entry) else None


def kept(rule: Any, now: datetime) -> Decision | None:
    """Return the decision about an entry with this rule; None if none is kept for it."""
    found = _known.get(rule)
    return found.decision if found is not None and found.begin <= now <= found.end else None


def keep(rule: Any, look: Look, decision: Decision) -> None:
    """Keep the decision of a look, if it is one that other entries with the rule share."""
    window = look.window
    if rule is None or not window.is_due or decision.state != "active":
        return
    if decision.runs != (PlannedRun(window.first),) or window.following is None:
        return
    try:
        in_time = window.first + timedelta(seconds=look.grace_s)
    except OverflowError:
        in_time = LATEST
    end = min(in_time, just_before(window.following))
    if len(_known) >= _MOST:
        _known.clear()
    _known[rule] = _Kept(decision, window.first, end)


def _is_plain(entry: EntryRow) -> bool:
    """Return whether nothing but the columns of `_rule_of` matters, beside the instant."""
    return (
        entry.kind == "cron"  # which does not count from an instant of the entry's own
        and entry.cursor_at is not None
        and entry.pending_due_at is None
        and entry.pending_since is None
        and entry.max_runs is None
        and not entry.jitter_s
        and type(entry.run_count) is int
    )

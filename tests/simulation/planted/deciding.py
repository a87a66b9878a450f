"""Faults in what a due entry gets, and in what holds it back."""

from __future__ import annotations

from tests.simulation.planted.mutant import Mutant

__all__ = ["FAULTS"]

_PLAN = "beatstore/tick/plan.py"
_GATES = "beatstore/tick/gates.py"
_DECIDE = "beatstore/rules/decide.py"
_GATE = "beatstore/rules/gate.py"

FAULTS = (
    # -- planning --------------------------------------------------------------------------
    Mutant(
        "plan-no-consume",
        _PLAN,
        "            if through:\n                consume(",
        "            if not through:\n                consume(",
        "Each completion counts once.",
    ),
    Mutant(
        "plan-records-asleep",
        _PLAN,
        "        wake_at = expires_at if claimed else now if run.counts else None",
        "        wake_at = expires_at if claimed else None",
        "What is given up is a failure to the downstreams.",
    ),
    Mutant(
        "plan-claim-of-nobody",
        _PLAN,
        '            "claimed_by": self._beat_id if claimed else None,',
        '            "claimed_by": None,',
        "A claim names the beat that holds it.",
    ),
    Mutant(
        "plan-claim-never-expires",
        _PLAN,
        "        wake_at = expires_at if claimed else now if run.counts else None",
        "        wake_at = None if claimed else now if run.counts else None",
        "A claim of a beat that died is taken over.",
    ),
    Mutant(
        "plan-loses-message",
        _PLAN,
        "            if (key := (entry.id, run.due_at)) in written\n        ]",
        "            if (key := (entry.id, run.due_at)) in written\n        ][:1]",
        "Everything that is claimed is sent at once.",
    ),
    Mutant(
        "task-id-without-attempt",
        "beatstore/tick/claims.py",
        '    key = f"{entry_id}/{_micros(created_at)}/{_micros(due_at)}/{attempt}"',
        '    key = f"{entry_id}/{_micros(created_at)}/{_micros(due_at)}"',
        "Each attempt has a task id of its own.",
    ),
    Mutant(
        "wake-past-next",
        _DECIDE,
        "                wake_at=sent_from(due_at, self.offset),",
        "                wake_at=sent_from(due_at, self.offset) + timedelta(seconds=200),",
        "An entry is looked at when it is due.",
    ),
    Mutant(
        "cursor-to-now",
        _DECIDE,
        "        through = max(run.due_at for run in runs)\n",
        "        through = self.window.until\n",
        "The cursor is the last due time that is accounted for.",
    ),
    Mutant(
        "cursor-stays",
        _DECIDE,
        "        return self.next_due(runs, through, self.window.next_after(through))",
        "        return self.next_due(runs, self.entry.cursor_at, self.window.next_after(through))",
        "A due time that has a run is behind the cursor.",
    ),
    Mutant(
        "grace-inclusive",
        _DECIDE,
        "        if window.first >= self._deadline:",
        "        if window.first > self._deadline:",
        "An occurrence as late as its grace is none too late.",
    ),
    Mutant(
        "coalesce-miscounts",
        _DECIDE,
        "        others = len(window.times.between(window.after, latest, COUNT_LIMIT + 2)) - 1",
        "        others = len(window.times.between(window.after, latest, COUNT_LIMIT + 2))",
        "A coalesced run counts the others that it stands for.",
    ),
    Mutant(
        "skip-runs-late",
        _DECIDE,
        "        return [record, *self._each(before, BURST)]",
        "        return [record, *self._each(self.window.after, BURST)]",
        "What is too late is recorded, and not sent.",
    ),
    Mutant(
        "skip-drops-timely",
        _DECIDE,
        "        return [record, *self._each(before, BURST)]",
        "        return [record]",
        "What is within grace runs, whatever the policy.",
    ),
    Mutant(
        "coalesce-first",
        _DECIDE,
        "        return PlannedRun(latest, reason=reason, first_missed_at=oldest, "
        "missed_count=others)",
        "        return PlannedRun(oldest, reason=reason, first_missed_at=oldest, "
        "missed_count=others)",
        "A coalesced run is for the latest due time.",
    ),
    # -- gates -----------------------------------------------------------------------------
    Mutant(
        "edge-greater-equal",
        "beatstore/tick/edges.py",
        "    return and_(ANY_DUE_TIME, counter(up) <= _EDGE.consumed_seq)",
        "    return and_(ANY_DUE_TIME, counter(up) < _EDGE.consumed_seq)",
        "A completion that is used up satisfies no edge.",
    ),
    Mutant(
        "edge-wrong-counter",
        "beatstore/tick/edges.py",
        '        (_EDGE.on == "success", up.c.success_seq),',
        '        (_EDGE.on == "success", up.c.done_seq),',
        "An edge on success is not satisfied by a failure.",
    ),
    Mutant(
        "consume-all-edges-of-upstream",
        _GATES,
        "    mine: ColumnElement[bool] = dialect_of(connection.dialect)"
        ".among(_EDGE.downstream_id, ids)",
        "    mine: ColumnElement[bool] = _EDGE.downstream_id.is_not(None)",
        "Sending an entry uses up what its own edges saw.",
    ),
    Mutant(
        "overlap-ignores-claimed",
        _GATES,
        "        RUN.c.state.in_(UNFINISHED),\n        NOT_SUCCEEDED,",
        '        RUN.c.state.in_(UNFINISHED - {"claimed"}),\n        NOT_SUCCEEDED,',
        "A run whose retry is to come is in the way.",
    ),
    Mutant(
        "overlap-allowed",
        _GATE,
        '    if overlap != "allow" and gate.running is not None:',
        '    if overlap == "wait" and gate.running is not None:',
        "With `skip` no run begins beside another.",
    ),
    Mutant(
        "overlap-wait-blocked-by-nobody",
        _GATE,
        '            return Verdict(waits=f"waits: {words}", blocked_by=entry_id)',
        '            return Verdict(waits=f"waits: {words}")',
        "An entry that waits for its own run goes on when that ends.",
    ),
    Mutant(
        "overlap-skip-uses-nothing",
        _GATE,
        '        return Verdict(runs=(record(due, f"{OVERLAP} {words}, policy skip"),))',
        '        return Verdict(waits=f"{OVERLAP} {words}")',
        "What may not overlap is recorded as skipped.",
    ),
    Mutant(
        "timeout-never",
        _GATE,
        "        if ends_at is None or ends_at > now:\n            return None",
        "        if ends_at is None or ends_at > now or self.failed is None:\n"
        "            return None",
        "A wait ends with its timeout.",
    ),
    Mutant(
        "wait-no-timeout",
        _GATE,
        "    return Verdict(waits=missing.words, blocked_by=missing.upstream_id, wake_at=ends_at)",
        "    return Verdict(waits=missing.words, blocked_by=missing.upstream_id)",
        "An entry that waits with a timeout is looked at when that is over.",
    ),
    Mutant(
        "given-up-uses-nothing",
        _GATE,
        "        return Verdict(runs=(over,), consume=True, spares_free=True)",
        "        return Verdict(runs=(over,))",
        "What is given up has used up what its upstreams did.",
    ),
)

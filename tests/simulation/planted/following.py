"""Faults in what follows from the end of a run, in reports, and in what people do."""

from __future__ import annotations

from tests.simulation.planted.mutant import Mutant

__all__ = ["FAULTS"]

_COMPLETE = "beatstore/tick/complete.py"
_ATTEMPTS = "beatstore/tick/attempts.py"
_WAKE = "beatstore/tick/wake.py"
_TOKENS = "beatstore/tick/tokens.py"
_WAITS = "beatstore/tick/waits.py"
_REPORTS = "beatstore/tick/reports.py"
_ACTIONS = "beatstore/store/actions.py"

FAULTS = (
    # -- completion ------------------------------------------------------------------------
    Mutant(
        "count-twice",
        _WAKE,
        '    "late success": (counter_of("success"),),',
        '    "late success": counters_of("success"),',
        "An occurrence is counted once.",
    ),
    Mutant(
        "wake-nobody",
        _WAKE,
        "        and (row.blocked_by is None or row.blocked_by in tally.runs or row.id in eager)",
        "        and (row.blocked_by is None or row.id in eager)",
        "A completion wakes who waits for it.",
    ),
    Mutant(
        "wake-not-pending",
        _WAKE,
        '        and (row.kind == "after" or row.pending_due_at is not None)',
        '        and row.kind == "after"',
        "A completion wakes entries with a clock that wait, too.",
    ),
    Mutant(
        "wake-not-own",
        _WAKE,
        '        if run.blocked_by == run.entry_id and run.entry_state == "active":\n'
        "            self.unblocked.add(run.entry_id)",
        "        pass",
        "An entry that waits for its own run goes on when that ends.",
    ),
    Mutant(
        "failure-wakes-nobody",
        _WAKE,
        "        if outcome is not None:\n            self._add_outcome(",
        '        if outcome == "success":\n            self._add_outcome(',
        "A failure satisfies edges on failure and on done.",
    ),
    Mutant(
        "retry-lost",
        _COMPLETE,
        "            and add_attempt(connection, run, now + delay, ending)",
        "            and False",
        "A failed run gets its next attempt.",
    ),
    Mutant(
        "retry-at-once",
        _COMPLETE,
        "            and add_attempt(connection, run, now + delay, ending)",
        "            and add_attempt(connection, run, now, ending)",
        "A next attempt waits for `retry_delay`.",
    ),
    Mutant(
        "retry-one-more",
        "beatstore/rules/retries.py",
        "    if attempt > entry.max_retries:",
        "    if attempt > entry.max_retries + 1:",
        "There are no more attempts than `max_retries` says.",
    ),
    Mutant(
        "retry-counts-too",
        _COMPLETE,
        "        if not is_retried:",
        "        if True:",
        "Downstreams see the final outcome only.",
    ),
    Mutant(
        "cancelled-counts",
        _COMPLETE,
        'tally.add(run, "failure" if is_retry(run) else None)\n    else:',
        'tally.add(run, "failure")\n    else:',
        "A cancelled run counts for nobody.",
    ),
    Mutant(
        "cancelled-attempt-counts-not",
        _COMPLETE,
        'tally.add(run, "failure" if is_retry(run) else None)\n    else:',
        "tally.add(run, None)\n    else:",
        "A next attempt that is cancelled leaves the failure before it.",
    ),
    Mutant(
        "needless-attempt-counts",
        _COMPLETE,
        '    if state == "cancelled" and before is not None and has_cancelled_the_next(before):',
        "    if False:",
        "An attempt that a late success has cancelled counts nothing.",
    ),
    Mutant(
        "ends-seen-before",
        _COMPLETE,
        "        yield from _locked(connection, database, [row.id]) if known else [row]",
        "        yield row",
        "An end goes by what those before it in its transaction have written.",
    ),
    Mutant(
        "late-report-keeps-attempt",
        _ATTEMPTS,
        "    return connection.execute(taking.values(values)).rowcount == 1",
        "    found = select(RUN.c.id).where(taking.whereclause)\n"
        "    return connection.execute(found).first() is not None",
        "A late success cancels the attempt that is to come.",
    ),
    Mutant(
        "late-report-takes-what-is-sent",
        _ATTEMPTS,
        "    taking = update(RUN).where(RUN.c.id == following.id, or_(waits, dropped))",
        "    taking = update(RUN).where(RUN.c.id == following.id)",
        "An attempt that is under way decides.",
    ),
    Mutant(
        "marks-a-counted-attempt",
        "beatstore/tick/mark.py",
        '    on_its_way = and_(RUN.c.state == "cancelled", RUN.c.worker.is_(None), NO_RETRY)',
        '    on_its_way = and_(RUN.c.state == "cancelled", RUN.c.worker.is_(None))',
        "A next attempt that was cancelled counts as a failure, and stays so.",
    ),
    Mutant(
        "end-any-task-id",
        "beatstore/tick/endings.py",
        '        RUN.c.task_id == bindparam("b_task_id"),',
        '        bindparam("b_task_id").is_not(None),',
        "A report moves only the run it is of.",
    ),
    Mutant(
        "follow-up-forgotten",
        _COMPLETE,
        '        if row.follow_up == "end":',
        '        if row.follow_up == "never":',
        "What somebody ends by hand has its retries and its downstreams.",
    ),
    # -- reports ---------------------------------------------------------------------------
    Mutant(
        "start-any-run",
        _REPORTS,
        '_THIS = and_(RUN.c.id == bindparam("b_id"), RUN.c.task_id == bindparam("b_task_id"))',
        '_THIS = and_(RUN.c.id == bindparam("b_id"), bindparam("b_task_id").is_not(None))',
        "A report moves only the run it is of.",
    ),
    Mutant(
        "start-reopens-end",
        _REPORTS,
        "_STARTED = _START.where(\n    or_(\n        RUN.c.state.in_(NOT_STARTED),",
        "_STARTED = _START.where(\n    or_(\n        RUN.c.state.is_not(None),",
        "A run never goes back from its end.",
    ),
    Mutant(
        "start-no-deadline",
        _REPORTS,
        '            "b_wake_at": now + self._silence,\n        }',
        '            "b_wake_at": None,\n        }',
        "A started run whose worker is silent is found.",
    ),
    Mutant(
        "guard-lets-twice",
        _REPORTS,
        '        if run.state == "started":\n            if again and',
        '        if run.state == "started":\n            return None\n            if again and',
        "The start-once guard drops a second message.",
    ),
    Mutant(
        "heartbeat-of-nobody",
        "beatstore/tick/workers.py",
        '        living = update(RUN).where(*_among(alive), RUN.c.state == "started")',
        '        living = update(RUN).where(*_among(alive), RUN.c.state == "sent")',
        "A slow task is never lost while its worker lives.",
    ),
    # -- align="same" ----------------------------------------------------------------------
    Mutant(
        "same-any-outcome",
        "beatstore/rules/outcomes.py",
        '    return outcome is not None and on in ("done", outcome)',
        "    return outcome is not None",
        "An edge on success is not satisfied by a failure.",
    ),
    Mutant(
        "same-token-of-others",
        "beatstore/tick/edges.py",
        "        TOKEN.c.due_at == due_at,\n",
        "",
        "With `same`, only the run of the same due time counts.",
    ),
    Mutant(
        "same-never-taken",
        _WAITS,
        "    if taken:\n        _take(connection, taken)",
        "    if False:\n        _take(connection, taken)",
        "A due time is accounted for once.",
    ),
    Mutant(
        "same-blocked-wrongly",
        _WAITS,
        '        "b_blocked_by": None if missing is None else missing.upstream_id,',
        '        "b_blocked_by": entry_id,',
        "A due time is looked at when what it waits for has ended.",
    ),
    Mutant(
        "same-no-look",
        _TOKENS,
        "    _open_waits(connection, keys - there.keys(), now)\n    tokens = [",
        "    tokens = [",
        "A due time is looked at when an upstream has told of it.",
    ),
    Mutant(
        "same-late-success-lost",
        _TOKENS,
        "    return bool(connection.execute(late_success).rowcount)",
        "    return False",
        "A rerun that succeeds completes the due time that still waits for it.",
    ),
    # -- what people do --------------------------------------------------------------------
    Mutant(
        "cancel-keeps-claims",
        _ACTIONS,
        "    cancel_unsent(tx, [old.id], tx.now(), why)\n    return True",
        "    return True",
        "After a `cancel` that was in time nothing is sent.",
    ),
    Mutant(
        "trigger-asleep",
        _ACTIONS,
        '        "wake_at": EPOCH,',
        '        "wake_at": None,',
        "What is triggered is sent at once.",
    ),
    Mutant(
        "resume-keeps-completions",
        "beatstore/store/pausing.py",
        "        consume(tx, some, current=tx.reads_snapshot)\n        reset_account(tx, some)",
        "        pass",
        "Resuming runs nothing by itself.",
    ),
)

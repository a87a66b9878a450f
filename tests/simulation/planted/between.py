"""Faults between the parts: messages, edits, triggers, counting."""

from __future__ import annotations

from tests.simulation.planted.mutant import Mutant

__all__ = ["FAULTS"]

FAULTS = (
    Mutant(
        "message-own-id",
        "beatstore/beat/message.py",
        '        options["task_id"] = claim.task_id\n',
        '        options.pop("task_id", None)\n',
        "A message has the task id of its run, however often it is sent.",
    ),
    Mutant(
        "broker-outage-ends-beat",
        "beatstore/beat/scheduler.py",
        "        except BrokerError as error:\n            self._database.end()",
        "        except ZeroDivisionError as error:\n            self._database.end()",
        "Beat stays up while the broker is away.",
    ),
    Mutant(
        "each-statement-commits",
        "beatstore/database/dialects/sqlite.py",
        '        connection.exec_driver_sql("BEGIN IMMEDIATE")\n'
        "        try:\n"
        "            yield connection\n"
        "        except BaseException:\n"
        "            if not connection.invalidated:\n"
        '                connection.exec_driver_sql("ROLLBACK")\n'
        "            raise\n"
        "        else:\n"
        '            connection.exec_driver_sql("COMMIT")\n',
        "        try:\n            yield connection\n",
        "An outcome and all that follows from it are one transaction.",
    ),
    Mutant(
        "change-asleep",
        "beatstore/definition/edits.py",
        '        found["wake_at"] = _wake_at(row, first)\n',
        '        found["wake_at"] = None\n',
        "A new schedule counts at the next tick.",
    ),
    Mutant(
        "overlap-skip-spares-completions",
        "beatstore/rules/after.py",
        "        consume = verdict.consume or not verdict.runs[0].counts\n",
        "        consume = verdict.consume\n",
        "What is skipped for an overlap has used up what its upstreams did.",
    ),
    Mutant(
        "wait-moves-cursor",
        "beatstore/rules/decide.py",
        "            cursor_at=max((run.due_at for run in records), default=entry.cursor_at),",
        "            cursor_at=max((run.due_at for run in records), default=self.window.until),",
        "An occurrence that waits stays ahead of the cursor until it is sent.",
    ),
    Mutant(
        "end-exclusive",
        "beatstore/rules/due.py",
        "        if found is None or (self.end_at is not None and found > self.end_at):",
        "        if found is None or (self.end_at is not None and found >= self.end_at):",
        "An entry is due at its `end_at`, too.",
    ),
    Mutant(
        "latest-exclusive",
        "beatstore/rules/due.py",
        "        found = self.schedule.latest_before(until + STEP)",
        "        found = self.schedule.latest_before(until)",
        "A coalesced run is for the latest due time, also if that is this very moment.",
    ),
    Mutant(
        "fold-miscounts",
        "beatstore/rules/gate.py",
        "    count = len(others) + sum(run.missed_count for run in due)",
        "    count = len(due) + sum(run.missed_count for run in due)",
        "A run that others are folded into counts them, and not itself.",
    ),
    Mutant(
        "overlap-wait-sends-all",
        "beatstore/rules/gate.py",
        '    if not gate.edges and overlap == "allow":',
        '    if not gate.edges and overlap != "skip":',
        "With `wait`, due times that are found together become one run.",
    ),
    Mutant(
        "same-sends-unmet",
        "beatstore/rules/same.py",
        "for one in account.reported if one.missing is None and one.at >= start)",
        "for one in account.reported if one.at >= start)",
        "With `same`, each upstream must have ended for the due time.",
    ),
    Mutant(
        "cancelled-retry-uncounted",
        "beatstore/tick/endings.py",
        "    counted = case((RUN.c.attempt > 1, literal(now, Instant())))",
        "    counted = case((RUN.c.attempt > 2, literal(now, Instant())))",
        "An occurrence whose next attempt is cancelled has failed, and is counted.",
    ),
    Mutant(
        "release-claims-of-others",
        "beatstore/tick/beats.py",
        '            RUN.c.state == "claimed",\n            RUN.c.claimed_by == self._beat_id,\n',
        '            RUN.c.state == "claimed",\n',
        "A beat that ends frees its own claims only.",
    ),
    Mutant(
        "late-failure-succeeds",
        "beatstore/tick/complete.py",
        '            if ending.state == "succeeded":',
        "            if True:",
        "A lost run that reports a failure after all counts no success.",
    ),
    Mutant(
        "count-again",
        "beatstore/tick/complete.py",
        "        counted = update(RUN).where(RUN.c.id == row.id, RUN.c.wake_at.is_not(None))",
        "        counted = update(RUN).where(RUN.c.id == row.id)",
        "What two beats find uncounted is counted by one of them.",
    ),
    Mutant(
        "lost-despite-report",
        "beatstore/tick/complete.py",
        'one.state == "lost" and (one.run_id, one.wake_at) in silent]',
        'one.state == "lost"]',
        "A run that a worker has just reported on is not lost.",
    ),
    Mutant(
        "lost-by-another",
        "beatstore/tick/complete.py",
        "(one.run_id, one.wake_at) in silent]",
        "one.run_id in {number for number, _ in silent}]",
        "What a beat has found silent may be heard of, and found silent again by another one.",
    ),
    Mutant(
        "end-again",
        "beatstore/tick/endings.py",
        '        RUN.c.state.in_(bindparam("b_states", expanding=True)),',
        '        RUN.c.state.in_(bindparam("b_states", expanding=True)) '
        "| RUN.c.state.is_not(None),",
        "The end of a run is final, and a report that is written twice counts once.",
    ),
    Mutant(
        "consume-wrong-counter",
        "beatstore/tick/gates.py",
        "            consumed_seq=select(counter(_SEEN)).where(same_row).scalar_subquery(),",
        "            consumed_seq=select(_SEEN.c.success_seq).where(same_row).scalar_subquery(),",
        "An edge uses up the outcomes that it asks for.",
    ),
    Mutant(
        "collision-ignored",
        "beatstore/tick/plan.py",
        "            raise CollisionError\n",
        "            pass\n",
        "A due time that another run of the entry has already is decided anew, and not dropped.",
    ),
    Mutant(
        "sweep-before-expiry",
        "beatstore/tick/queue.py",
        "{rows: and_(rows.c.wake_at <= now, which) for",
        "{rows: and_(rows.c.wake_at.is_not(None), which) for",
        "A claim is taken over only when it has expired.",
    ),
    Mutant(
        "mark-before-send",
        "beatstore/tick/tick.py",
        "        marked = 0\n        try:\n",
        "        marked = 0\n"
        '        self.mark([Outcome(claim, "sent") for claim in claims])\n'
        "        try:\n",
        "A run is marked as sent after its message, and not before.",
    ),
    Mutant(
        "watch-forgotten",
        "beatstore/tick/watch.py",
        "        wake_at = next_check_at("
        "_waits_since(run, now), timeouts[run.entry_id], run.expires_at, now)",
        "        wake_at = None",
        "After an edit of its entry, a run that nobody reports is still lost after its timeout.",
    ),
    Mutant(
        "heartbeat-keeps-suspicion",
        "beatstore/tick/workers.py",
        "        connection.execute(living.values(wake_at=wake_at, claimed_by=NOT_SUSPECTED))",
        "        connection.execute(living.values(wake_at=wake_at))",
        "A worker that is heard of again has its 5 heartbeats anew.",
    ),
    Mutant(
        "sql-edit-asleep",
        "migrations/versions/0002_outcomes.py",
        "                UPDATE beatstore_entry SET wake_at = '{_EPOCH}', cursor_at = CASE",
        "                UPDATE beatstore_entry SET wake_at = NULL, cursor_at = CASE",
        "An edit by plain SQL counts at the next tick.",
    ),
    Mutant(
        "sql-unlink-asleep",
        "migrations/versions/0002_outcomes.py",
        '        f"BEGIN {wake_old} END"',
        '        "BEGIN SELECT 1; END"',
        "An entry that waits goes on when plain SQL takes away what it waits for.",
    ),
)

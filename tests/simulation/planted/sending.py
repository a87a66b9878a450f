"""Faults in claiming, sending, marking and sweeping."""

from __future__ import annotations

from tests.simulation.planted.mutant import Mutant

__all__ = ["FAULTS"]

_MARK = "beatstore/tick/mark.py"
_UNSENT = "beatstore/tick/unsent.py"
_SWEEP = "beatstore/tick/sweep.py"
_TICK = "beatstore/tick/tick.py"
_SENDER = "beatstore/beat/sender.py"
_ATTEMPT = "beatstore/beat/attempt.py"
_BATCHES = "beatstore/beat/batches.py"
_PUSH = "beatstore/beat/ladder/push.py"

FAULTS = (
    # -- claim, send, mark -----------------------------------------------------------------
    Mutant(
        "mark-any-claim",
        _MARK,
        '        RUN.c.claimed_by == bindparam("beat_id"),\n        RUN.c.sent_at.is_(None),',
        '        bindparam("beat_id").is_not(None),\n        RUN.c.sent_at.is_(None),',
        "A beat marks only runs that it holds.",
    ),
    Mutant(
        "mark-unsent-any-claim",
        _UNSENT,
        '    mine = (RUN.c.state == "claimed", RUN.c.claimed_by == beat_id)',
        '    mine = (RUN.c.state == "claimed",)',
        "A beat that was frozen frees no claim of another.",
    ),
    Mutant(
        "mark-undoes-start",
        _MARK,
        '        (RUN.c.state, case((first, "sent"), else_=RUN.c.state)),',
        '        (RUN.c.state, "sent"),',
        "A mark does not undo what a worker has reported.",
    ),
    Mutant(
        "mark-no-watch",
        _MARK,
        '        given["next_at"] = next_check_at(now, timeout, expires_at, now)',
        "        pass",
        "A run that nobody reports is lost after `run_timeout`.",
    ),
    Mutant(
        "mark-unsent-sleeps",
        _UNSENT,
        '        "wake_at": next_at,',
        '        "wake_at": None,',
        "What could not be sent is tried again, or counted.",
    ),
    Mutant(
        "send-before-claim",
        _TICK,
        '            outcomes += [Outcome(claim, "claimed") for claim in left.values()]',
        '            outcomes += [Outcome(claim, "sent") for claim in left.values()]',
        "Only what the broker has is sent.",
    ),
    Mutant(
        "send-past-claim",
        _TICK,
        "        until = self._looked_at + self._queue.settings.claim_ttl * TRUSTED",
        "        until = self._looked_at + self._queue.settings.claim_ttl * 100",
        "A beat that was frozen past its claim sends no more.",
    ),
    Mutant(
        "forget-unanswered",
        _ATTEMPT,
        "            else:\n                self.rest.append(claim)",
        '            else:\n                self.known.append(Outcome(claim, "sent"))',
        "A message without an answer is not taken for sent.",
    ),
    Mutant(
        "refused-is-sent",
        _ATTEMPT,
        "            elif outcome := refusal(connection, claim, fate):\n"
        "                self.refused = True\n"
        "                self.known.append(outcome)",
        "            elif outcome := refusal(connection, claim, fate):\n"
        "                self.refused = True\n"
        '                self.known.append(Outcome(claim, "sent"))',
        "A message that the broker refused is `failed`.",
    ),
    # -- the sweep -------------------------------------------------------------------------
    Mutant(
        "sweep-keeps-old-claim",
        _SWEEP,
        "        self._write(claimed, claimed_by=self.beat_id, wake_at=expires_at)",
        "        self._write(claimed, wake_at=expires_at)",
        "A claim that has expired is taken over before its message is sent.",
    ),
    Mutant(
        "sweep-no-new-expiry",
        _SWEEP,
        "        self._write(claimed, claimed_by=self.beat_id, wake_at=expires_at)",
        "        self._write(claimed, claimed_by=self.beat_id)",
        "A claim that was taken over is not taken again at once.",
    ),
    Mutant(
        "sweep-sends-paused",
        _SWEEP,
        "    if is_dropped(entry, run.reason):",
        '    if entry.state == "none":',
        "An attempt of a cancelled entry is not sent.",
    ),
    Mutant(
        "sweep-cancels-triggered",
        _SWEEP,
        "    if is_dropped(entry, run.reason):",
        '    if entry.state in ("paused", "cancelled"):',
        "What was triggered by hand is sent while the entry is paused.",
    ),
    Mutant(
        "sweep-sends-what-was-triggered",
        "beatstore/rules/reasons.py",
        '        return not ((reason or "").startswith(RERUN_ANYWAY) and entry.wake_at is None)',
        "        return not (is_triggered(reason) and entry.wake_at is None)",
        "What was triggered by hand is not sent once its entry is cancelled.",
    ),
    Mutant(
        "cancel-forgets-held-reruns",
        "beatstore/tick/endings.py",
        "        connection.execute(update(RUN).where(*unsent, anyway).values(plain))\n",
        "",
        "A rerun that a beat has claimed is not claimed again once its entry is cancelled again.",
    ),
    Mutant(
        "sweep-sends-what-sql-cancelled",
        _SWEEP,
        "    if is_dropped(entry, run.reason):",
        '    if entry.state in ("paused", "cancelled") and not run.reason.startswith("triggered"):',
        "What was triggered by hand is not sent if plain SQL has cancelled the entry since.",
    ),
    Mutant(
        "sweep-no-count",
        _SWEEP,
        '        over = {"wake_at": self.now, "finished_at": self.now}',
        '        over = {"wake_at": None, "finished_at": self.now}',
        "An attempt that was cancelled is a failure to the downstreams.",
    ),
    Mutant(
        "sweep-lost-at-once",
        _SWEEP,
        '        fresh = [run for run in runs if run.state == "started" '
        "and run.claimed_by != SUSPECTED]\n"
        '        stale = [run for run in runs if run.state != "started" '
        "or run.claimed_by == SUSPECTED]",
        "        fresh = []\n        stale = list(runs)",
        "A started run is lost only after 5 heartbeats.",
    ),
    Mutant(
        "sweep-never-lost",
        _SWEEP,
        "        self._write(stale, claimed_by=SUSPECTED, wake_at=again_at)",
        "        self._write(stale, claimed_by=None, wake_at=again_at)",
        "A run whose worker is gone is lost.",
    ),
    # -- batches ---------------------------------------------------------------------------
    Mutant(
        "push-unanswered-is-sent",
        _PUSH,
        '            return UnsureError("Redis did not answer")',
        "            return None",
        "What Redis has not answered is not sent, as far as beat knows.",
    ),
    Mutant(
        "push-refused-is-sent",
        _PUSH,
        "            return refused",
        "            return None",
        "What Redis has refused is not sent.",
    ),
    Mutant(
        "push-answers-of-others",
        _PUSH,
        "        return [self._fate(number) for number in self._in[: self.marked]]",
        "        return [self._fate(0) for number in self._in[: self.marked]]",
        "Each message has the fate of its own command.",
    ),
    Mutant(
        "pipeline-unanswered-is-sent",
        _BATCHES,
        '                return UnsureError("Redis did not answer")',
        "                return None",
        "What a pipeline has not answered is not sent, as far as beat knows.",
    ),
    Mutant(
        "pipeline-refused-is-sent",
        _BATCHES,
        "                return refused",
        "                return None",
        "What a pipeline has refused is not sent.",
    ),
    Mutant(
        "pipeline-forgets-marks",
        _BATCHES,
        "        self._ends.append(0 if pipeline is None else len(pipeline.command_stack))",
        "        self._ends.append(0)",
        "Each entry has the fate of its own commands.",
    ),
)

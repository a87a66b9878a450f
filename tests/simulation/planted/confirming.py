"""Faults in what beat makes of RabbitMQ's confirms."""

from __future__ import annotations

from tests.simulation.planted.mutant import Mutant

__all__ = ["FAULTS"]

_CONFIRMS = "beatstore/beat/confirms.py"
_BATCHES = "beatstore/beat/batches.py"
_ALARM = "beatstore/beat/alarm.py"
_ATTEMPT = "beatstore/beat/attempt.py"

FAULTS = (
    Mutant(
        "confirms-unanswered-is-sent",
        _CONFIRMS,
        '            return UnsureError("RabbitMQ did not confirm it")',
        "            return None",
        "What RabbitMQ has not confirmed is not sent, as far as beat knows.",
    ),
    Mutant(
        "confirms-refused-is-sent",
        _CONFIRMS,
        "                return self.refused[number]",
        "                return None",
        "What RabbitMQ did not accept is not sent.",
    ),
    Mutant(
        "confirms-one-of-several",
        _CONFIRMS,
        "            answered.append(open_number)",
        "            answered = [open_number]",
        "A confirm of several messages is one of each.",
    ),
    Mutant(
        "confirms-several-of-one",
        _CONFIRMS,
        "        if not multiple:",
        "        if False:",
        "A confirm of one message says nothing of those before it.",
    ),
    Mutant(
        "confirms-of-others",
        _BATCHES,
        "        return [range(start + 1, end + 1) for start, end in pairwise(self._ends)]",
        "        return [range(1, 2) for _ in pairwise(self._ends)]",
        "Each entry has the fate of its own messages.",
    ),
    Mutant(
        "confirms-not-awaited",
        _BATCHES,
        "            self.confirms.wait(ANSWER_TIMEOUT)\n            return",
        "            return",
        "A batch ends when all of it is confirmed.",
    ),
    Mutant(
        "alarm-sends-again",
        _ATTEMPT,
        "        return Unconfirmed(self.batch.confirms, unsure)",
        "        return Unconfirmed(self.batch.confirms, [])",
        "What was written during an alarm arrives at its end, and is not sent again.",
    ),
    Mutant(
        "alarm-forgets-answers",
        _ALARM,
        "        return known + self._extended_claims()",
        "        return self._extended_claims()",
        "What RabbitMQ confirms after its alarm is sent.",
    ),
)

"""One attempt to send a batch of claims, and what is known of each afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kombu import Connection
from kombu.exceptions import OperationalError

from beatstore.beat.batches import Batch, Confirmed, Fate, cause_of, is_full, is_refusal
from beatstore.beat.confirms import Unconfirmed
from beatstore.beat.ladder import Rendered
from beatstore.beat.message import BeatEntry, try_later
from beatstore.errors import NackedError, OutOfTimeError, UnroutableError, UnsureError
from beatstore.tick.claims import Claim, Outcome

__all__ = ["Attempt", "Sent", "refusal"]


#: A message that was passed to the transport: made by Celery, or from a template.
Sent = BeatEntry | Rendered


@dataclass
class Attempt:
    """One attempt to send claims in a batch, and its results.

    Attributes:
        claims: in the order in which they are sent.
        repeated: whether they were sent before without a clear answer.
        entries: the claims that were passed to the transport.
        batch: the batch that wrote them.
        failure: the error that ended the writing.
        known: the known outcomes.
        rest: claims whose messages the broker may not have.
        returned: claims whose messages RabbitMQ returned: no queue receives them.
        full: the broker's answer, if it accepts no messages at all.
        refused: whether the broker refused some claims for good.
        rendered: the messages from templates; None if Celery makes the messages.
    """

    claims: Sequence[Claim]
    repeated: bool = False
    entries: list[Sent] = field(default_factory=list)
    batch: Batch | None = None
    failure: Exception | None = None
    known: list[Outcome] = field(default_factory=list)
    rest: list[Claim] = field(default_factory=list)
    returned: list[Claim] = field(default_factory=list)
    full: Exception | None = None
    refused: bool = False
    rendered: Sequence[Rendered] | None = None

    @property
    def is_late(self) -> bool:
        """Return whether time ran out."""
        return isinstance(self.failure, OutOfTimeError)

    @property
    def is_hopeless(self) -> bool:
        """Return whether the last remaining claim has failed again."""
        return self.repeated and not self._made_progress and len(self.rest) == 1

    @property
    def _made_progress(self) -> bool:
        """Return whether fewer claims remain than before this attempt."""
        return self.refused or self.failure is None

    def fates(self) -> list[Fate]:
        """Return the fate of each claim; see `beatstore.beat.batches`."""
        fates = [] if self.batch is None else self.batch.fates()
        under_way = len(fates) < len(self.claims) and not self.is_late
        if self.batch is not None and self.failure is not None and under_way:
            fates.append(self.batch.blame(self.failure))
        return fates + [UnsureError("not sent")] * (len(self.claims) - len(fates))

    def accepted(self) -> list[Outcome]:
        """Return the outcomes of messages that the broker has, even in an aborted attempt."""
        fates = zip(self.entries, self.fates(), strict=False)
        return [entry.outcome() for entry, fate in fates if fate is None]

    def sort(self, connection: Connection) -> None:
        """Sort the claims into known outcomes and claims to send again."""
        for number, (claim, fate) in enumerate(zip(self.claims, self.fates(), strict=True)):
            if fate is None:
                self.known.append(self.entries[number].outcome())
            elif _is_full(connection, fate):
                self.full = fate
            elif isinstance(fate, UnroutableError) and not self.repeated:
                self.returned.append(claim)
            elif outcome := refusal(connection, claim, fate):
                self.refused = True
                self.known.append(outcome)
            else:
                self.rest.append(claim)

    def unconfirmed(self) -> Unconfirmed[Sent]:
        """Return the messages that RabbitMQ received but has not confirmed."""
        assert isinstance(self.batch, Confirmed)
        messages = zip(self.entries, self.batch.numbers(), self.batch.fates(), strict=True)
        unsure = [(entry, span) for entry, span, fate in messages if isinstance(fate, UnsureError)]
        return Unconfirmed(self.batch.confirms, unsure)

    def next_attempts(self) -> Iterator[Attempt]:
        """Yield the next attempts for the rest: together, together once more, then one by one."""
        if self.returned:
            yield Attempt(self.returned, repeated=True)
        if self.rest and self._made_progress:
            yield Attempt(self.rest, self.repeated)
        elif self.rest and not self.repeated:
            yield Attempt(self.rest, repeated=True)
        else:
            yield from (Attempt([claim], repeated=True) for claim in self.rest)


def refusal(connection: Connection, claim: Claim, fate: Exception) -> Outcome | None:
    """Return the outcome of a message that the broker refused, or None to send it again."""
    if isinstance(fate, NackedError):
        return try_later(claim, fate)
    if isinstance(fate, UnroutableError):
        return Outcome(claim, "failed", f"no queue receives it: {fate}")
    if not isinstance(fate, UnsureError) and is_refusal(connection, fate):
        cause = cause_of(fate)
        return Outcome(claim, "failed", f"{type(cause).__name__}: {cause}")
    return None


def _is_full(connection: Connection, fate: Exception) -> bool:
    # Errors of a task class's own Redis are not wrapped by kombu or celery.
    return isinstance(fate, OperationalError) and is_full(connection, fate.__cause__)

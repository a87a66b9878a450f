"""Applies the rules to one schedule, and keeps what they need to know of its past."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from tests.simulation.broker import Publication
from tests.simulation.kernel import BROKER, Process
from tests.simulation.oracle import commits, explaining, planning, rest, sending
from tests.simulation.oracle.change import Change, said
from tests.simulation.oracle.memory import Memory
from tests.simulation.virtual import BASE

if TYPE_CHECKING:
    from tests.simulation.play import World

__all__ = ["Judge"]

#: The share of `beatstore_claim_ttl` in which a beat sends: docs/reliability.md.
TRUSTED = 0.75

#: Of how many schedules one is asked to explain itself, which costs as much as some steps.
ASKED = 25

_BASE = int(BASE.timestamp()) * 1_000_000

#: What a user may do to an entry without changing what becomes of its due times.
_HARMLESS = {"trigger", "rerun", "end", "prune"}


class Judge(Memory):
    """The oracle of one schedule.

    Attributes:
        state: the tables, as of the latest commit.
        found: what broke a rule.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.state = world.book.read()
        self.found: list[str] = []

    # -- while it is played ----------------------------------------------------------------

    def commit(self, process: Process) -> None:
        """Judge a commit."""
        before, after = self.state, self.world.book.read()
        self.state = after
        change = Change(before, after, process, self.world, self.now, self._looked(process))
        self.note(change)
        for rule in (*commits.RULES, *planning.RULES):
            for sentence in rule(change):
                self.found.append(f"{rule.__name__}: {sentence}")

    def idle(self, process: Process) -> None:
        """Judge what a beat has left undone at the end of an operation."""
        if process.kind != "beat":
            return
        kernel, broker = self.world.kernel, self.world.broker
        claim = self.world.ground.store.settings.claim_ttl
        slow = kernel.monotonic() - process.began.at >= claim * TRUSTED
        # It keeps what was written during RabbitMQ's alarm, until that is confirmed.
        moved = any(one.to == BROKER for one in kernel.faults[process.began.faults :])
        excused = moved or not broker.up
        # Who waits for a lock on a server may hold others, and what those hold is marked later.
        excused = excused or (
            not self.world.ground.serial
            and any(one.blocked for one in self.world.processes.values())
        )
        # What a slow operation has given back lies ahead of a clock that was set back since.
        excused = excused or slow or self.world.virtual.stepped
        for run in self.state.runs.values():
            name, began = self.claimers.get(run.id, ("", process.began))
            if name != process.name or run.state != "claimed" or run.tries:
                continue
            harmed = kernel.harmed(name, began, kernel.now())
            if broker.alarm and not harmed:
                continue  # it answers for it still
            # What RabbitMQ refused at the end of its alarm is sent when the beat tries it again.
            refused = run.claimed_by is None and began != process.began
            if not (excused or harmed or refused):
                self.found.append(f"idle: {process.name} has claimed {said(run)} and left it")
            del self.claimers[run.id]  # whoever claims it again answers for it

    def message(self, sent: Publication) -> None:
        """Judge a message that the broker has taken."""
        for sentence in sending.message(self, sent):
            self.found.append(f"message: {sentence}")

    def midway(self) -> None:
        """Judge what people are told before everything is made healthy, of some schedules."""
        if self.world.plan.seed % ASKED == 0:
            self.found += [f"midway, ahead: {sentence}" for sentence in explaining.ahead(self)]

    def rest(self) -> None:
        """Judge what is left at the end."""
        self.state = self.world.book.read()
        self.state.runs.update(self.pruned)
        rules = list(rest.RULES)
        if self.world.plan.seed % ASKED == 0:
            rules.append(explaining.explained)
        for rule in rules:
            for sentence in rule(self):
                self.found.append(f"at rest, {rule.__name__}: {sentence}")

    def _looked(self, process: Process) -> int:
        looked: Any = getattr(self.world.bodies.get(process.name), "looked", None)
        return self.now if looked is None else int(looked.timestamp() * 1_000_000)

    # -- what the rules ask ----------------------------------------------------------------

    @property
    def now(self) -> int:
        """The database's time, as microseconds since 1970."""
        return _BASE + round(self.world.virtual.wall * 1e6)

    @property
    def published(self) -> set[str]:
        """The ids of all tasks whose messages the broker has taken."""
        return {one.message.task_id for one in self.world.broker.published}

    @property
    def touched(self) -> set[str]:
        """The names of the entries that somebody has changed."""
        names: set[str] = set()
        for call in self.world.calls:
            if call.verb not in _HARMLESS:
                names |= {call.name, str(call.given.get("value", ""))}
                names |= {str(call.given.get(key, "")) for key in ("upstream", "other")}
                names |= set(call.given.get("after", ()))
                for name, given in call.given.get("entries", {}).items():
                    names |= {name, *given.get("after", ())}
        return names

    def untouched(self, entry_id: int) -> bool:
        """Say whether nobody has changed an entry, or any that it waits for."""
        entry = self.state.entries.get(entry_id)
        ups = self.state.upstreams(entry_id)
        calm = entry is not None and entry.name not in self.touched
        return calm and all(self.untouched(edge.upstream_id) for edge in ups)

    def circles(self) -> bool:
        """Say whether entries without a schedule wait for each other in a circle."""
        waits = TopologicalSorter[int]()
        for edge in self.state.edges.values():
            entry = self.state.entries.get(edge.downstream_id)
            if entry is not None and entry.kind == "after":
                waits.add(entry.id, edge.upstream_id)
        try:
            waits.prepare()
        except CycleError:
            return True
        return False

    def waits(self, entry_id: int) -> bool:
        """Say whether an entry has edges, and so may still wait at the end."""
        return bool(self.state.upstreams(entry_id))

"""Play one schedule: the steps of a plan, and then, with everything healthy, until it rests."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from tests.simulation.beats import Beat
from tests.simulation.broker import Broker
from tests.simulation.channels import channels_of
from tests.simulation.ground import Ground, ground
from tests.simulation.kernel import BROKER, Fault, Kernel, Process
from tests.simulation.ledger import Book
from tests.simulation.lists import lists_of
from tests.simulation.oracle import Judge
from tests.simulation.plan import Plan, Step
from tests.simulation.users import Call, User, add
from tests.simulation.virtual import BASE, installed, micros
from tests.simulation.workers import Deed, Ends, Worker

__all__ = ["World", "play"]

#: How long the end may take, in rounds of all processes, and in seconds of the schedule.
ROUNDS, LONGEST = 400, 1_500.0

#: In how many seconds each beat has looked for entries that no trigger has woken.
WAKE_CHECK = 120.0

#: How many points an operation may pass before it is taken for an endless one.
POINTS = 3_000


class ViolationError(Exception):
    """A schedule broke a rule; the schedule ends there."""


class World:
    """Everything of one schedule.

    Attributes:
        judge: the oracle, once everything is set up.
    """

    def __init__(self, ground: Ground, plan: Plan) -> None:
        self.ground, self.plan = ground, plan
        self.virtual = ground.virtual
        self.virtual.reset(plan.seed)
        self.kernel = Kernel(lambda: self.virtual.monotonic)
        self.broker = Broker(chance=self.virtual.random)
        self.ends = Ends(plan.ends)
        self.processes: dict[str, Process] = {}
        self.bodies: dict[str, Any] = {}
        self.wires: dict[str, list[Any]] = {}
        self.deeds: list[Deed] = []
        self.calls: list[Call] = []
        self.beats: dict[str, str] = {}
        self.book: Book = ground.fresh(self)
        self.judge: Judge
        self.judging = False
        self.commits = 0
        #: What happened, for who reads a failure; None if nobody does.
        self.lines: list[str] | None = None

    # -- processes -------------------------------------------------------------------------

    def set_up(self) -> None:
        """Add the entries of the plan, and start its processes."""
        store = self.ground.store
        with Session(store.database.engine) as session, session.begin():
            for name, given in self.plan.entries.items():
                add(store, name, given, session)
        for number in range(self.plan.beats):
            self.start(f"beat-{number + 1}")
        for number in range(self.plan.workers):
            self.start(f"worker-{number + 1}")
        for number in (1, 2):
            self.start(f"user-{number}")
        self.judge, self.judging = Judge(self), True
        self.broker.judge = self.judge.message

    def start(self, name: str) -> None:
        """Start a process, or another one in its place."""
        process = self.processes[name] = Process(self.kernel, name)
        ground = self.ground
        if process.kind == "beat":
            beat = Beat(
                *ground.beats[self.plan.sends],
                self.broker,
                heartbeats=self.plan.heartbeats,
                wake_checks=not ground.cascades_fire,
            )
            self.beats[beat.id] = name
            self.bodies[name] = beat
        elif process.kind == "worker":
            worker = Worker(
                name,
                ground.store,
                self.broker,
                clock=self.virtual,
                ends=self.ends,
                patience=self.plan.patience,
            )
            worker.deeds = self.deeds
            self.bodies[name] = worker
        else:
            user = User(ground.store)
            user.calls = self.calls
            self.bodies[name] = user

    def commit(self, process: Process) -> None:
        """Have a commit judged."""
        self.commits += 1
        if self.judging:
            self.judge.commit(process)

    def step(self, step: Step) -> None:
        """Do what a step says, if it makes sense here."""
        verb, *given = step
        if verb == "time":
            self._pass(given[0])
        elif verb == "clock":
            self.virtual.step(given[0])
            self.ground.time_moved()
        elif verb == "broker":
            self._fail(*given)
        elif given[0] in self.processes:
            process = self.processes[given[0]]
            getattr(self, f"_{verb}")(process, *given[1:])
            self._look_after(process)
        if self.lines is not None:
            self.lines.append(self._written(step))

    def _fail(self, what: str, number: int) -> None:
        broker = self.broker
        was = broker.up, broker.alarm
        broker.fail(what, number, self.virtual.monotonic)
        if was != (broker.up, broker.alarm):
            self.kernel.faults.append(Fault(what, BROKER))

    def _pass(self, seconds: float) -> None:
        self.virtual.advance(seconds)
        self.ground.time_moved()

    def _go(self, process: Process, points: int) -> None:
        if process.idle and not self._begin(process):
            return
        for _ in range(points or POINTS):
            if process.idle:
                return
            process.go()
            if process.blocked:
                return
        if not points:
            raise ViolationError(f"endless: {process.name} never ends its operation: {process.at}")

    def _to(self, process: Process, kind: str) -> None:
        if process.idle and not self._begin(process):
            return
        for _ in range(POINTS):
            if process.idle or process.blocked or (process.at and process.at[0] == kind):
                return
            process.go()

    def _order(self, process: Process, order: str) -> None:
        if process.idle or process.blocked or not _fits(process, order):
            return
        self.kernel.faults.append(Fault(order, process.name))
        if order == "term":
            self.bodies[process.name].ending = True
        process.go(order)

    def _kill(self, process: Process) -> None:
        if process.blocked and not self.ground.serial:
            return  # its statement waits in a thread of its own
        self.kernel.faults.append(Fault("kill", process.name))
        process.kill()
        self._bury(process.name)
        self.broker.give_back(process.name, self.virtual.monotonic)
        self.start(process.name)

    def _call(self, process: Process, verb: str, name: str, given: dict[str, Any]) -> None:
        if process.idle:
            user: User = self.bodies[process.name]
            process.begin(user.begin(verb, name, given, self.virtual.wall))

    def _do(self, process: Process, verb: str, name: str, given: dict[str, Any]) -> None:
        if process.idle:
            self._call(process, verb, name, given)
            self._go(process, 0)

    def _begin(self, process: Process) -> bool:
        if process.kind == "user":
            return False
        work = self.bodies[process.name].next()
        if work is None:
            return False
        process.begin(work)
        return True

    def _look_after(self, process: Process) -> None:
        """Raise what a process ended with, and start a beat that has ended anew."""
        if process.error is not None:
            error, process.error = process.error, None
            raise ViolationError(
                f"{process.kind} crashed: {type(error).__name__}: {error}"
            ) from error
        if process.idle:
            self.judge.idle(process)
        if process.idle and process.kind == "beat" and self.bodies[process.name].stopped:
            self._bury(process.name)
            self.start(process.name)

    # -- to rest ---------------------------------------------------------------------------

    def heal(self) -> None:
        """Make everything healthy: what was frozen goes on, and the broker is there."""
        self._fail("up", 0)
        self._fail("calm", 0)
        for message in self.broker.queue:
            message.visible_at = min(message.visible_at, self.virtual.monotonic)

    def settle(self) -> bool:
        """Let everybody work until nothing is left to do, and time pass in between.

        Returns:
            Whether there is rest: entries without a schedule that wait for each other in a circle
            go on for ever, as they were asked to.
        """
        self.heal()
        ends_at = self.virtual.monotonic + LONGEST
        checked = self.ground.cascades_fire
        for _ in range(ROUNDS):
            moved = self._round()
            if moved:
                continue
            wait = self._wait()
            if wait is None or self.virtual.monotonic > ends_at:
                if checked:
                    return True
                checked = True
                self._check_wakes()
            else:
                self._pass(wait)
        if self.judge.circles():
            return False
        raise ViolationError(f"no rest: something is done again and again, for {ROUNDS} rounds")

    def _check_wakes(self) -> None:
        """Let each beat find whom no trigger has woken."""
        self._pass(WAKE_CHECK)
        for name, process in list(self.processes.items()):
            if process.kind == "beat":
                self._go(process, 0)
                self._look_after(self.processes[name])

    def _round(self) -> bool:
        """Let each process that has something to do do it; return whether anything came of it."""
        before = self._done()
        for process in list(self.processes.values()):
            if process.idle and not self._has_work(process):
                continue
            self._go(process, 0)
            self._look_after(process)
        return self._done() != before

    def _done(self) -> tuple[int, ...]:
        queued = len(self.broker.queue), len(self.broker.published)
        return self.commits, len(self.deeds), len(self.calls), *queued

    def _has_work(self, process: Process) -> bool:
        if process.kind == "worker":
            return self.bodies[process.name].next() is not None
        return process.kind == "beat" and self._until_due() <= 0

    def _until_due(self) -> float:
        """Return in how many seconds a beat has something to do, by the tables."""
        at = self.book.next_wake()
        return LONGEST if at is None else (micros(at) - _BASE) / 1e6 - self.virtual.wall

    def _wait(self) -> float | None:
        """Return for how long nothing happens; None if nothing will."""
        due = self._until_due()
        if due <= 0:  # a beat waits before it tries again
            due = min(body.wait for name, body in self.bodies.items() if name.startswith("beat"))
        workers = [body for name, body in self.bodies.items() if name.startswith("worker")]
        ends = [body.ends_next() for body in workers]
        waits = [due, *(end - self.virtual.monotonic for end in ends if end is not None)]
        if self.broker.queue:
            waits.append(1.0)
        if any(body.busy for body in workers):
            waits.append(10.0)  # heartbeats, which keep alive what runs
        wait = min(waits)
        return None if wait >= LONGEST else max(0.001, wait)

    def close(self) -> None:
        """End everything, as kill -9 does."""
        for name, process in self.processes.items():
            process.kill()
            self._bury(name)
        self.book.close()

    def _bury(self, name: str) -> None:
        """Have the database roll back what a dead process has begun, and close what it had open."""
        for wire in self.wires.pop(name, []):
            wire.cut()
        self.bodies[name].close()

    def _written(self, step: Step) -> str:
        where = {name: one.at for name, one in self.processes.items() if one.at}
        at = f"+{self.virtual.wall:g} s"
        return f"{at:>10}  {step}   {_brief(where)}"


_BASE = int(BASE.timestamp() * 1e6)


def play(plan: Plan, *, backend: str = "sqlite", trace: list[str] | None = None) -> list[str]:
    """Play a plan to its end; return what broke a rule, the first first.

    Args:
        plan: the plan.
        backend: the kind of database.
        trace: where to write what happened, if anybody wants to read it.
    """
    given = ground(backend)
    with installed(given.virtual):
        world = World(given, plan)
        world.lines = trace
        try:
            with lists_of(world.broker), channels_of(world.broker):
                return _played(world)
        except ViolationError as error:
            return [str(error)]
        finally:
            world.close()


def _brief(where: dict[str, tuple[str, str]]) -> str:
    return ", ".join(
        f"{name} at {kind}: {' '.join(what.split())[:60]}" for name, (kind, what) in where.items()
    )


def _fits(process: Process, order: str) -> bool:
    """Say whether an order makes sense where a process has stopped."""
    kind = process.at[0] if process.at else ""
    if order == "refuse":
        return kind == "publish"
    if order == "term":
        return process.kind == "beat"
    if order == "undo":
        return kind not in ("acknowledge", "begin")
    return kind != "acknowledge"


def _played(world: World) -> list[str]:
    world.set_up()
    found = world.judge.found
    for step in world.plan.steps:
        world.step(step)
        if found:
            return found
    world.judge.midway()
    if world.settle() and not found:
        world.judge.rest()
    return found

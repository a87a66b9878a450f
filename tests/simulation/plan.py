"""What a schedule is made of, as data that can be printed, and how a seed makes one.

No step needs another one: a step that makes no sense where it comes, since its process is idle
or gone or its entry is not there, does nothing. So any part of a plan is a plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.simulation.broker import CHAIN, EXPIRES, GROUP
from tests.simulation.users import SQL
from tests.simulation.workers import GUARDED, LATE, PLAIN

__all__ = ["HORIZON", "Plan", "Step", "drawn", "printed"]

#: A step: its verb, and what it is given.
#:
#:     ("go", process, points)   let it pass so many points; 0: to the end of its operation
#:     ("to", process, kind)     let it go on until it stops at a point of this kind
#:     ("order", process, order) let it pass one point as `kernel.Order` says
#:     ("kill", process)         end it with -9; another one is started in its place
#:     ("time", seconds)         let time pass
#:     ("clock", seconds)        set the database's clock
#:     ("broker", what, number)  see `Broker.fail`
#:     ("call", process, verb, entry, given)   have a user call something
#:     ("do", process, verb, entry, given)     the same, and let it end
Step = tuple[Any, ...]

#: No clock of an entry goes on after so many seconds.
HORIZON = 125.0

_STEPS = 60
_NAMES = ("a", "b", "c", "d")
_ENDS = (
    *("succeeded", "succeeded", "succeeded", "failed", "failed", "cancelled"),
    *("again", "revoked"),
)
_TASKS = (*(PLAIN, GUARDED, GUARDED, LATE), *(PLAIN, GUARDED, GUARDED, LATE), GROUP, CHAIN)


@dataclass(frozen=True)
class Plan:
    """One schedule.

    Attributes:
        seed: of what beatstore itself leaves to chance.
        beats: how many there are.
        workers: how many there are.
        patience: how many reports a worker writes together while there is other work.
        sends: how the beats send: `each` message alone; to Redis in a `pipeline` or by `push`; to
            RabbitMQ by Celery (`confirms`) or by `publish`.
        heartbeats: whether the beats write that they live.
        entries: what is there at the beginning, by name; the arguments of `users.add`.
        ends: how the tasks of an entry end, and how long they take; see `workers.Ends`.
        steps: what happens.
    """

    seed: int
    beats: int = 1
    workers: int = 1
    patience: int = 1
    sends: str = "each"
    heartbeats: bool = False
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class _Taste(NamedTuple):
    """What the entries of a plan have in common.

    Attributes:
        periods: how often they are due.
        same: how many of the edges ask for the same due time, of one.
        ups: how many upstreams an entry has.
        urgent: how many have a priority, and so another queue on Redis, of one.
    """

    periods: tuple[int, ...] = (30, 60, 90)
    same: float = 0.25
    ups: tuple[int, ...] = (1, 1, 2)
    urgent: float = 0.2


#: That of entries which people add or change later.
_LATER = _Taste()


def drawn(seed: int) -> Plan:
    """Make the plan of a seed."""
    chance = random.Random(seed)
    names = _NAMES[: chance.choice((1, 1, 2, 2, 3, 3, 4))]
    entries: dict[str, dict[str, Any]] = {}
    periods = chance.choice(((30, 60, 60, 90, 90), (30, 60, 60, 90, 90), (60,)))
    taste = _Taste(periods, urgent=chance.choice((0.0, 0.2, 0.5)))
    if periods == (60,):
        taste = taste._replace(same=chance.choice((0.25, 1.0)), ups=(1, 2))
    for name in names:
        entries[name] = _entry(chance, list(entries), taste)
    ends = {name: [_end(chance) for _ in range(chance.randrange(4))] for name in names}
    beats, workers = chance.choice((1, 2, 2, 3)), chance.choice((1, 1, 2))
    patience = chance.choice((1, 1, 2, 4))
    sends = chance.choice(("each", "pipeline", "push", "push", "confirms", "publish", "publish"))
    plan = Plan(seed, beats, workers, patience, sends, chance.random() < 0.1, entries, ends)
    mood = _Mood(chance, plan)
    return replace(plan, steps=tuple(mood.step() for _ in range(_STEPS)))


def _entry(chance: random.Random, others: list[str], taste: _Taste) -> dict[str, Any]:
    given: dict[str, Any] = {"task": chance.choice(_TASKS)}
    kind = chance.choice(("every", "every", "cron", "once", "after", "after"))
    if kind == "after" and not others:
        kind = "every"
    given |= _clock(chance, kind, taste.periods)
    if kind == "after" or (others and chance.random() < 0.25):
        ups = chance.sample(others, min(chance.choice(taste.ups), len(others)))
        given["after"] = {up: _edge(chance, taste.same) for up in ups}
    if chance.random() < 0.35:
        given["overlap"] = chance.choice(("skip", "wait"))
    if chance.random() < 0.4:
        given |= {"max_retries": chance.choice((1, 2)), "retry_delay": chance.choice((0, 10, 30))}
    if kind != "once" and chance.random() < 0.15:
        given["max_runs"] = chance.choice((1, 2))
    if kind != "once" and chance.random() < 0.15:
        given["start_at"] = chance.choice((15.0, 30.0, 60.0))
    if kind != "after" and chance.random() < 0.1:
        given["jitter"] = chance.choice((5.0, 20.0, 60.0))
    options: dict[str, Any] = {"expires": EXPIRES} if chance.random() < 0.15 else {}
    if chance.random() < taste.urgent:
        options["priority"] = 6
    if options:
        given["options"] = options
    given["run_timeout"] = chance.choice((20, 60, 120))
    return given


def _clock(chance: random.Random, kind: str, periods: tuple[int, ...]) -> dict[str, Any]:
    if kind == "once":
        return {"schedule": f"once {chance.choice((0, 30, 60, 90))}"}
    if kind == "after":
        return {}
    every = f"every {chance.choice(periods)}"
    return {
        "schedule": every if kind == "every" else "*/1 * * * *",
        "end_at": chance.choice((HORIZON, HORIZON, HORIZON, 120.0, 90.0)),
        "misfire": chance.choice(("coalesce", "coalesce", "skip", "all")),
        "grace": chance.choice((5, 20, 60)),
    }


def _edge(chance: random.Random, same: float) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if (draw := chance.random()) < 2 * same:
        made["align"] = "same" if draw < same else "latest"
    if chance.random() < 0.4:
        made["on"] = chance.choice(("done", "failure"))
    elif chance.random() < 0.3:
        made["on_upstream_failure"] = "skip"
    if chance.random() < 0.2:
        made["first_free"] = True
    if chance.random() < 0.2:
        made["timeout"] = chance.choice((20, 60))
    return made


def _end(chance: random.Random) -> tuple[str, float]:
    state = chance.choice(_ENDS)
    return state, float(chance.choice((0, 0, 0, 1, 10, 40)))


class _Mood:
    """Draws steps; each plan has its own taste for faults and for edits.

    Where all kinds of calls come, of all entries, two that matter to each other are seldom next to
    each other. So most plans have few kinds, and many stay with an entry.
    """

    def __init__(self, chance: random.Random, plan: Plan) -> None:
        self._chance = chance
        self._plan = plan
        self._names = [*plan.entries, "new"]
        self._beats = [f"beat-{number + 1}" for number in range(plan.beats)]
        self._workers = [f"worker-{number + 1}" for number in range(plan.workers)]
        self._users = ["user-1", "user-2"]
        self._kinds = ["publish", "commit"]
        self._broken = ["down", "up", "up", "lose", "double", "delay", "turn", "foreign"]
        #: What comes as a whole, and how often.
        self._scenes: dict[Callable[[], Step], float] = {}
        if plan.sends in ("confirms", "publish"):
            self._kinds += ["answer"]
            self._broken += ["alarm", "alarm", "calm", "calm", "calm"]
            self._scenes[self._alarmed] = chance.choice((0.0, 0.05, 0.2))
        if plan.sends != "each":
            self._scenes[self._picked] = chance.choice((0.0, 0.05, 0.1))
        faults = chance.choice((0.0, 0.1, 0.3))
        calls = chance.choice((0.0, 0.5, 1.5, 4.0))
        self._verbs = _some(chance)
        #: How often a call is of the same entry as the one before, and follows it at once.
        self._faithful = chance.choice((0.0, 0.5, 0.9))
        self._hasty = chance.choice((0.0, 0.0, 0.5))
        self._called = False
        self._last = chance.choice(self._names)
        self._draws = {
            self._go: 10.0,
            self._time: 3.0,
            self._call: 3.0 * calls,
            self._order: 12.0 * faults,
            self._kill: 4.0 * faults,
            self._broker: 6.0 * faults,
            self._clock: 1.5 * faults * (chance.random() < 0.3),
        }
        #: How often a process goes on to where a fault matters most.
        self._stops = chance.choice((0.0, 0.3)) if faults else 0.0
        self._stands: tuple[str, str] | None = None
        #: How often a message is refused where it would break otherwise.
        self._refusals = chance.choice((1, 1, 8))
        #: How often somebody has something sent and stops it when a beat is about to.
        self._stops_it = chance.choice((0.0, 0.0, 0.3)) if faults and calls else 0.0
        self._planned: list[Step] = []
        #: How often somebody calls something before that fault.
        self._meddles = chance.choice((0.0, 0.3, 0.6)) if calls else 0.0
        #: How long steps are: whole operations, or single points.
        self._points = chance.choice(((0,), (0, 0, 1, 2), (1, 2, 3, 5, 8), (0, 1, 2, 5, 12)))

    def step(self) -> Step:
        """Draw one."""
        if self._planned:
            return self._planned.pop(0)
        if self._called and self._chance.random() < self._hasty:
            return self._call(of_another=0.0)
        self._called = False
        for scene, often in self._scenes.items():
            if self._chance.random() < often:
                return scene()
        if self._stands is not None:
            if self._verbs and self._chance.random() < self._meddles:
                return self._call(of_another=0.5)
            (process, kind), self._stands = self._stands, None
            return self._fault(process, kind)
        draw = self._chance.choices(list(self._draws), list(self._draws.values()))[0]
        return draw()

    def _go(self) -> Step:
        pool = self._beats * 3 + self._workers * 3 + self._users
        if self._chance.random() < self._stops:
            return self._to(self._chance.choice(pool))
        return "go", self._chance.choice(pool), self._chance.choice(self._points)

    def _time(self) -> Step:
        return "time", self._chance.choice((0.0, 0.5, 5.0, 10.0, 25.0, 30.0, 30.0, 60.0))

    def _clock(self) -> Step:
        return "clock", self._chance.choice((-40.0, -5.0, 5.0, 40.0))

    def _to(self, process: str) -> Step:
        """Let a process come to where a fault matters most; the next step is one."""
        kind = self._chance.choice(self._kinds if process in self._beats else ["commit"])
        self._stands = process, kind
        return "to", process, kind

    def _fault(self, process: str, kind: str) -> Step:
        orders = ["cut", "lost", "undo", "kill", "stand"]
        if process in self._beats:
            orders += ["term"]
        elif process in self._users:
            orders.remove("kill")
        if kind == "publish":
            orders += ["refuse"] * self._refusals
        order = self._chance.choice(orders)
        if order == "stand":
            return self._time()
        return ("kill", process) if order == "kill" else ("order", process, order)

    def _kill(self) -> Step:
        return "kill", self._chance.choice(self._beats * 2 + self._workers)

    def _order(self) -> Step:
        order = self._chance.choice(("cut", "lost", "lost", "undo", "refuse", "term"))
        pool = self._beats if order in ("refuse", "term") else self._beats * 2 + self._workers * 2
        pool = pool if order in ("refuse", "term") else pool + self._users
        return "order", self._chance.choice(pool), order

    def _broker(self) -> Step:
        what = self._chance.choice(self._broken)
        return "broker", what, self._chance.randrange(4)

    def _call(self, of_another: float = 1.0) -> Step:
        if self._chance.random() < self._stops_it:
            return self._stopped()
        verb, user = self._chance.choice(self._verbs), self._chance.choice(self._users)
        if self._chance.random() < of_another * (1.0 - self._faithful):
            self._last = self._chance.choice(self._names)
        self._called = True
        return self._chance.choice(("call", "do")), user, verb, self._last, self._given(verb)

    def _stopped(self) -> Step:
        """Have something sent, stop it when a beat is about to, and have that beat fail."""
        choice, name = self._chance.choice, self._chance.choice(self._names)
        beat, user = choice(self._beats), choice(self._users)
        first, then = choice(_SENDING), choice(_STOPPING)
        failing = choice((self._fault(beat, "publish"), ("broker", "down", 0), ("kill", beat)))
        self._planned = [
            ("to", beat, "publish"),
            ("do", user, then, name, self._given(then)),
            failing,
        ]
        return "do", user, first, name, self._given(first)

    def _alarmed(self) -> Step:
        """Have something sent while the alarm is on, perhaps by several ticks, and end it."""
        choice, name = self._chance.choice, self._chance.choice(self._names)
        beat, user, verb = choice(self._beats), choice(self._users), choice(_SENDING)
        tick: Step = ("go", beat, 0)
        more: list[Step] = choice(([], [("time", 10.0), tick], [("time", 30.0), tick]))
        self._planned = [("broker", "alarm", 0), tick, *more, ("broker", "calm", 0), tick]
        return "do", user, verb, name, self._given(verb)

    def _picked(self) -> Step:
        """Have several entries become due, and one of their messages refused."""
        beat = self._chance.choice(self._beats)
        self._planned = [("to", beat, "publish"), ("order", beat, "refuse"), ("go", beat, 0)]
        return "time", self._chance.choice((30.0, 60.0))

    def _given(self, verb: str) -> dict[str, Any]:
        choice, other = self._chance.choice, self._chance.choice(self._names)
        given: dict[str, Callable[[], dict[str, Any]]] = {
            "add": lambda: _entry(self._chance, list(self._plan.entries), _LATER),
            "put": lambda: _entry(self._chance, list(self._plan.entries), _LATER),
            "pause_many": lambda: {"other": other},
            "resume_many": lambda: {"other": other},
            "sync": lambda: {"entries": self._declared()},
            "schedule": lambda: {"task": choice((PLAIN, GUARDED)), "at": float(choice((0, 60)))},
            "prune": lambda: {"age": float(choice((0, 0, 0, 30)))},
            "change": self._change,
            "reschedule": lambda: {"at": float(choice((0, 60, 120)))},
            "end": lambda: {"state": choice(("succeeded", "failed", "cancelled"))},
            "link": lambda: {"upstream": other, "on": choice(("success", "done"))},
            "unlink": lambda: {"upstream": other},
            "sql_rename": lambda: {"value": other},
            "sql_link": lambda: {"value": other},
            "sql_policy": lambda: {"value": choice(("skip", "coalesce", "all"))},
        }
        return given.get(verb, dict)()

    def _declared(self) -> dict[str, dict[str, Any]]:
        names = self._chance.sample(
            self._names, self._chance.choice((0, 1, 1, 2)) % len(self._names)
        )
        return {name: _entry(self._chance, list(self._plan.entries), _LATER) for name in names}

    def _change(self) -> dict[str, Any]:
        return self._chance.choice(
            (
                {"schedule": f"every {self._chance.choice((30, 60))}", "end_at": HORIZON},
                {"overlap": self._chance.choice(("allow", "skip", "wait"))},
                {"max_retries": self._chance.choice((0, 1, 2))},
                {"misfire": self._chance.choice(("coalesce", "skip", "all"))},
                {"grace": self._chance.choice((5, 60))},
                {"run_timeout": self._chance.choice((20, 60))},
                {"args": [1]},
            )
        )


#: What people call, as often as it stands here.
_CALLS = (
    *("trigger", "trigger", "trigger", "pause", "resume", "resume", "cancel", "remove", "add"),
    *("rerun", "end", "link", "unlink", "change", "change", "reschedule", "put"),
    *("pause_many", "resume_many", "prune", "prune", "prune"),
    *("sync", "sync", "schedule"),
)


#: What has an entry sent, and what stops it.
_SENDING = ("trigger", "rerun", "rerun", "reschedule", "resume", "put")
_STOPPING = ("cancel", "cancel", "pause", "remove", "end", "sql_cancel", "sql_pause", "change")


#: What belongs together, since it moves the same rows.
_KINDS = (
    ("trigger", "rerun", "end", "prune"),
    ("pause", "resume", "cancel", "pause_many", "resume_many"),
    ("sql_pause", "sql_resume", "sql_cancel"),
    ("rerun", "cancel", "trigger"),
    ("link", "unlink", "sql_link", "sql_unlink"),
    ("add", "put", "remove", "sync", "schedule", "sql_remove", "sql_rename"),
    ("change", "put", "reschedule", "sql_policy"),
)


def _some(chance: random.Random) -> list[str]:
    """Return what the people of one plan call: all, a few, or what belongs together."""
    every = [*_CALLS, *SQL]
    few = set(every)
    number = chance.choice((0, 0, 2, 2, 3, 6))
    if number > 2:
        few = set(chance.sample(sorted(few), number))
    elif number:
        few = {verb for kind in chance.sample(_KINDS, number) for verb in kind}
    return [verb for verb in every if verb in few]


def printed(plan: Plan, violation: str) -> str:
    """Write a plan as a test that can be pasted in."""
    steps = "".join(f"            {step!r},\n" for step in plan.steps)
    entries = "".join(f"            {name!r}: {given!r},\n" for name, given in plan.entries.items())
    return (
        "def test_a_schedule_that_was_wrong() -> None:\n"
        f'    """{violation}"""\n'
        "    plan = Plan(\n"
        f"        seed={plan.seed},\n"
        f"        beats={plan.beats},\n"
        f"        workers={plan.workers},\n"
        f"        patience={plan.patience},\n"
        f"        sends={plan.sends!r},\n"
        f"        heartbeats={plan.heartbeats},\n"
        f"        entries={{\n{entries}        }},\n"
        f"        ends={plan.ends!r},\n"
        f"        steps=(\n{steps}        ),\n"
        "    )\n"
        "    assert play(plan) == []\n"
    )

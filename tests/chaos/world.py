"""The entries of a chaos run, and what the checker may know of them.

Periods are seconds, and occurrences lie on multiples of them since 1970, so that anybody can
work out when what is due. Names say what an entry is for. `STABLE` entries are never edited in
a way that a rule depends on, so everything about them can be reckoned up; `EDITED` ones are
what the user of the run plays with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import chain, chord, group

from beatstore import After, Cron, Every, RRule, Schedule
from tests.chaos.app import app
from tests.chaos.ledger import Life
from tests.chaos.witnessed import ASKED

__all__ = ["EDITED", "SETTINGS", "STABLE", "Spec", "instant", "schedule_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: Whatever is silent, or held by who died, is noticed within seconds.
SETTINGS: dict[str, Any] = {
    "beatstore_heartbeat": 1.5,
    "beatstore_claim_ttl": 6,
    # A busy machine must not keep the guard from answering: the checker counts what it lets by.
    "beatstore_report_wait": ASKED,
    "beatstore_default_grace": 60,
    "beat_max_loop_interval": 0.5,
    "worker_prefetch_multiplier": 1,
    "result_expires": 3600,
}

#: No run is left for ever that nobody reports.
RUN_TIMEOUT = 15.0


def instant(at: float) -> datetime:
    """Return seconds since 1970 as an aware datetime, to the microsecond."""
    return _EPOCH + timedelta(microseconds=round(at * 1e6))


@dataclass(frozen=True)
class Spec:
    """One entry to add.

    Attributes:
        name: of the entry.
        task: the task of `tests.chaos.app`, or a key of `_CANVASES`.
        period: None where it has no clock.
        seconds: how long its task works at most.
        failing: how often its task fails, 0 to 1.
        after: its upstreams.
        form: how the schedule is written: `every`, `rrule` or `cron`.
        policies: further arguments of `Store.add`.
    """

    name: str
    task: str = "plain"
    period: float | None = None
    seconds: float = 0.1
    failing: float = 0.0
    after: tuple[After, ...] = ()
    form: str = "every"
    policies: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `Store.add` after the name."""
        called: dict[str, Any] = {"task": _signature(self)}
        if self.period is not None:
            called["schedule"] = schedule_of(self.period, self.form)
        if self.after:
            called["after"] = self.after
        return {"run_timeout": RUN_TIMEOUT, "retry_delay": 1, **self.policies, **called}

    def life(self, entry_id: int, *, stable: bool) -> Life:
        """Return what the checker may know of the entry that was made of this."""
        return Life(
            entry_id,
            self.name,
            self.period,
            None,
            float(self.policies.get("jitter", 0.0)),
            self.policies.get("overlap", "allow"),
            self.policies.get("max_retries", 0),
            self.task in ("guarded", "late", "retrying"),
            self.task == "late",
            _PARTS.get(self.task, ()),
            stable,
        )


def schedule_of(period: float, form: str = "every") -> Schedule:
    """Return a schedule that is due on the multiples of a period since 1970."""
    if form == "rrule":
        # A day is a multiple of the period.
        return RRule(f"DTSTART:20260101T000000Z\nRRULE:FREQ=SECONDLY;INTERVAL={period:g}")
    if form == "cron":
        return Cron("* * * * *")
    return Every(period, anchor=_EPOCH)


#: The parts of each canvas; a run succeeds when all of them have.
_PARTS = {
    "chain": ("a", "b", "c"),
    "group": ("a", "b", "c"),
    "chord": ("a", "b", "body"),
    "chain-group": ("a", "b", "c"),
    "group-chain": ("a", "b", "c"),
    "swap": ("swap", "first", "second"),
}


def _signature(spec: Spec) -> Any:
    if spec.task not in _PARTS or spec.task == "swap":
        task = app.tasks[f"chaos.{spec.task}"]
        return task.si(spec.seconds, spec.failing)
    a, b, c = (
        app.tasks["chaos.part"].si(spec.seconds, spec.failing, part=name)
        for name in _PARTS[spec.task]
    )
    if spec.task == "chain":
        return chain(a, b, c)
    if spec.task == "group":
        return group(a, b, c)
    if spec.task == "chord":
        return chord([a, b], c)
    if spec.task == "chain-group":
        return chain(a, group(b, c))
    return group(a, chain(b, c))


def _same(*names: str, **more: Any) -> tuple[After, ...]:
    return tuple(After(name, align="same", **more) for name in names)


def _latest(*names: str, **more: Any) -> tuple[After, ...]:
    return tuple(After(name, align="latest", **more) for name in names)


_RETRIED = {"max_retries": 2}

#: In the order in which they can be added.
STABLE: tuple[Spec, ...] = (
    Spec("tick", "plain", 2),
    Spec("tick-guarded", "guarded", 3, failing=0.2, policies=_RETRIED),
    Spec("tick-rrule", "guarded", 4, form="rrule", policies=_RETRIED),
    Spec("tick-cron", "plain", 60, form="cron", policies=_RETRIED),
    Spec("tick-late", "late", 4, 0.5, policies=_RETRIED),
    Spec("tick-jitter", "guarded", 5, policies={"jitter": 2}),
    Spec("celery-retry", "retrying", 5, policies={"max_retries": 1}),
    Spec("swap", "swap", 10),
    Spec("misfire-skip", "guarded", 2, policies={"misfire": "skip", "grace": 3}),
    Spec("misfire-coalesce", "plain", 2, policies={"misfire": "coalesce", "grace": 3}),
    Spec("misfire-all", "plain", 4, policies={"misfire": "all", "grace": 3}),
    Spec("overlap-skip", "guarded", 3, 4.0, policies={"overlap": "skip"}),
    Spec("overlap-wait", "guarded", 3, 4.0, 0.1, policies={"overlap": "wait", **_RETRIED}),
    Spec("chain", "chain", 10, 0.3, 0.05, policies=_RETRIED),
    Spec("group", "group", 10, 1.0, 0.05, policies=_RETRIED),
    Spec("chord", "chord", 12, 0.5, 0.05, policies=_RETRIED),
    Spec("chain-group", "chain-group", 12, 0.5, policies=_RETRIED),
    Spec("group-chain", "group-chain", 15, 0.5, policies=_RETRIED),
    Spec("flaky", "plain", 5, 0.2, 0.4),
    # A source, a diamond on its due times, and another on whatever comes.
    Spec("src", "guarded", 5, 0.3, 0.15, policies={"max_retries": 1}),
    Spec("same-left", "guarded", None, 0.5, 0.1, _same("src"), policies=_RETRIED),
    Spec("same-right", "plain", None, 0.1, 0.0, _same("src"), policies=_RETRIED),
    Spec("same-join", "guarded", None, 0.1, 0.1, _same("same-left", "same-right")),
    Spec("same-tail", "plain", None, 0.1, 0.0, _same("same-join", on="done")),
    Spec("latest-left", "guarded", None, 0.5, 0.1, _latest("src")),
    Spec("latest-right", "plain", None, 0.1, 0.0, _latest("src")),
    Spec("latest-join", "guarded", None, 0.1, 0.0, _latest("latest-left", "latest-right")),
    # Failures go on.
    Spec("alarm", "plain", None, 0.1, 0.0, _latest("flaky", on="failure")),
    Spec("cleanup", "guarded", None, 0.1, 0.0, _latest("flaky", on="done")),
    Spec("skip-one", "plain", None, 0.1, 0.0, _latest("flaky", on_upstream_failure="skip")),
    Spec("skip-two", "plain", None, 0.1, 0.0, _latest("skip-one", on_upstream_failure="skip")),
    Spec("skip-alarm", "plain", None, 0.1, 0.0, _latest("skip-two", on="failure")),
    Spec("same-skip", "plain", None, 0.1, 0.0, _same("flaky", on_upstream_failure="skip")),
    Spec("same-timeout", "plain", None, 0.1, 0.0, _same("flaky", "src", timeout=8)),
    # Two conditions at once: a clock, or several upstreams that end when they like.
    Spec("clock-latest", "guarded", 7, 0.1, 0.0, _latest("src")),
    Spec("clock-same", "plain", 10, 0.1, 0.0, _same("src")),
    Spec("first-free", "plain", 6, 0.1, 0.0, _latest("flaky", first_free=True)),
    Spec("fan-in", "guarded", None, 0.1, 0.0, _latest("tick-guarded", "src", "overlap-wait")),
    Spec("fan-in-timeout", "plain", None, 0.1, 0.0, _latest("group", "chord", timeout=6)),
)

EDITED: tuple[Spec, ...] = (
    Spec("edited-1", "guarded", 3, policies=_RETRIED),
    Spec("edited-2", "plain", 4, 0.5, 0.1, policies=_RETRIED),
    Spec("edited-3", "guarded", 2, 3.0, policies={"overlap": "wait"}),
    Spec("edited-4", "plain", 5),
    Spec("edited-down", "guarded", None, 0.1, 0.0, _latest("edited-1")),
    Spec("edited-join", "plain", None, 0.1, 0.0, _latest("edited-2", "edited-4", on="done")),
)

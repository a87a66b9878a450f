"""Somebody who edits, triggers and schedules while everything is going on, and notes it all.

Each call of the API is tried again until its outcome is known, if doing it twice is the same as
doing it once; else it is noted as unknown. What is noted is all that the checker believes.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from beatstore import (
    After,
    BeatstoreError,
    EntryExistsError,
    EntryNotFoundError,
    InvalidEntryError,
    Once,
    Store,
    UnavailableError,
)
from beatstore.types import RunState
from tests.chaos.ledger import Act, Event, Life
from tests.chaos.world import EDITED, STABLE, Spec, instant, schedule_of

__all__ = ["User"]

#: How often each act is drawn, compared with the others.
_WEIGHTS = {
    "pause": 4,
    "resume": 6,
    "change": 3,
    "rename": 2,
    "remove": 2,
    "add": 4,
    "touch": 3,
    "sql": 2,
    "link": 2,
    "unlink": 2,
    "trigger": 6,
    "rerun": 4,
    "schedule": 4,
    "cancel": 2,
    "reschedule": 2,
    "pipeline": 1,
    "hold": 6,
}

#: Seconds between two acts.
_PAUSE = (0.3, 2.0)

#: How long an application's transaction stays open.
_HELD = (5.0, 20.0)

#: Edges that the user links to `edited-join` and removes again.
_LINKED = ("src", "tick", "edited-1")

#: Entries that are triggered, their downstreams with them.
_TRIGGERED = ("tick-guarded", "src", "flaky", "chain", "group", "swap", "edited-1", "edited-2")


@dataclass
class _Held:
    """What the user knows of one entry that it plays with."""

    id: int
    spec: Spec
    name: str
    period: float | None
    paused: bool = False


class User(threading.Thread):
    """Does one thing after the other.

    Args:
        store: of its own.
        rng: what is drawn from.
        over: set to end it.
    """

    def __init__(self, store: Store, rng: random.Random, over: threading.Event) -> None:
        super().__init__(name="user", daemon=True)
        self.store = store.by("chaos")
        self.rng = rng
        self.over = over
        self.acts: list[Act] = []
        self.lives: list[Life] = []
        self.transactions: list[Event] = []
        self.error: BaseException | None = None
        self._held: dict[str, _Held] = {}
        self._gone: list[Spec] = []
        self._one_shots: dict[str, float] = {}
        self._number = 0
        self._holding: list[threading.Thread] = []

    def run(self) -> None:
        """Act until it is over."""
        kinds: dict[str, Callable[[], None]] = {
            name: getattr(self, f"_{name}") for name in _WEIGHTS
        }
        try:
            while not self.over.wait(self.rng.uniform(*_PAUSE)):
                [name] = self.rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
                kinds[name]()
            for thread in self._holding:
                thread.join(60)
        except BaseException as error:  # noqa: BLE001  (told by the thread that waits)
            self.error = error

    def set_up(self) -> None:
        """Add all entries of the world."""
        for spec in STABLE:
            self._add_spec(spec, stable=True)
        for spec in EDITED:
            self._add_spec(spec, stable=False)

    def stop_clocks(self) -> float:
        """Give every clock an end, and return it; what waits goes on."""
        at: float = self._asked(self.store.now).timestamp()
        for entry in self._asked(partial(self.store.entries, limit=1000)):
            if entry.kind not in ("after", "once") and entry.state not in ("cancelled", "finished"):
                self._asked(partial(self.store.change, entry.name, end_at=instant(at)))
        return at

    # -- calling -------------------------------------------------------------------------------

    def _call(
        self,
        verb: str,
        name: str,
        call: Callable[[], Any],
        entry_id: int | None = None,
        *,
        again: bool = True,
        value: Callable[[Any], Mapping[str, Any]] = lambda _: {},
    ) -> Any:
        """Call the API, note it, and return what it returned; None where it was refused.

        Args:
            verb: for the note.
            name: of the entry.
            call: the call.
            entry_id: of the entry, where it is known already.
            again: whether to try again until the outcome is known.
            value: what of the answer to note.
        """
        begun, answer, outcome, noted = time.time(), None, "unknown", {}
        tries = 0
        while outcome == "unknown" and tries < (60 if again else 1):
            tries += 1
            try:
                answer = call()
                outcome, noted = "ok", dict(value(answer))
            except (UnavailableError, SQLAlchemyError) as error:
                noted = {"error": repr(error)[:300]}
                self._start_afresh()
            except (EntryExistsError, EntryNotFoundError) as error:
                # After an unknown outcome it may have been our own doing.
                done = tries > 1 and verb in ("add", "remove", "rename")
                outcome, noted = "ok" if done else "refused", {"error": str(error)[:300]}
            except InvalidEntryError as error:
                outcome, noted = "refused", {"error": str(error)[:300]}
        self.acts.append(Act(verb, name, begun, time.time(), outcome, entry_id, noted))
        return answer if outcome == "ok" else None

    def _asked(self, call: Callable[[], Any]) -> Any:
        """Return what a harmless call says, however often it must be made."""
        for _ in range(120):
            try:
                return call()
            except (UnavailableError, SQLAlchemyError):
                self._start_afresh()
        return call()

    def _start_afresh(self) -> None:
        """Let go of connections that may be no good any more, and wait for a moment."""
        self.store.close()
        time.sleep(0.5)

    def _a(self, names: Sequence[str]) -> str:
        return self.rng.choice(list(names))

    def _one_held(self, *, clock: bool = False, paused: bool | None = None) -> _Held | None:
        fitting = [
            held
            for held in self._held.values()
            if (not clock or held.period is not None) and (paused is None or held.paused == paused)
        ]
        return self.rng.choice(fitting) if fitting else None

    # -- entries -------------------------------------------------------------------------------

    def _add_spec(self, spec: Spec, *, stable: bool) -> None:
        begun = time.time()
        if self._call_add(spec) is None:
            return
        entry = self._asked(lambda: self.store.get(spec.name))
        self.lives.append(spec.life(entry.id, stable=stable))
        self.acts.append(Act("add", spec.name, begun, time.time(), "ok", entry.id))
        if not stable:
            self._held[spec.name] = _Held(entry.id, spec, spec.name, spec.period)

    def _call_add(self, spec: Spec) -> Any:
        self._call("adding", spec.name, lambda: self.store.add(spec.name, **spec.arguments()))
        done = self.acts[-1].outcome == "ok"
        return self.acts[-1] if done else None

    def _add(self) -> None:
        if self._gone:
            self._add_spec(self._gone.pop(self.rng.randrange(len(self._gone))), stable=False)

    def _remove(self) -> None:
        held = self._one_held()
        if held is None or any(held.spec.name in up for up in ("edited-down", "edited-join")):
            return
        self._call("remove", held.name, lambda: self.store.remove(held.name), held.id)
        del self._held[held.spec.name]
        self._gone.append(held.spec)

    def _rename(self) -> None:
        held = self._one_held()
        if held is None:
            return
        name = f"{held.spec.name}+" if held.name == held.spec.name else held.spec.name
        self._call(
            "rename", held.name, lambda: self.store.change(held.name, new_name=name), held.id
        )
        held.name = self._asked(lambda: self._named(held.id, (held.name, name)))

    def _named(self, entry_id: int, names: Sequence[str]) -> str:
        for name in names:
            try:
                if self.store.get(name).id == entry_id:
                    return name
            except EntryNotFoundError:
                continue
        raise AssertionError(f"entry {entry_id} has none of the names {names}")

    def _pause(self) -> None:
        held = self._one_held(paused=False)
        if held is not None:
            self._call("pause", held.name, lambda: self.store.pause(held.name), held.id)
            held.paused = True

    def _resume(self) -> None:
        held = self._one_held(paused=True)
        if held is not None:
            self._call("resume", held.name, lambda: self.store.resume(held.name), held.id)
            held.paused = False

    def _change(self) -> None:
        held = self._one_held(clock=True)
        if held is None:
            return
        period = float(
            self.rng.choice([period for period in (2, 3, 4, 5) if period != held.period])
        )
        noted = {"period": period, "paused": held.paused}
        self._call(
            "change",
            held.name,
            lambda: self.store.change(held.name, schedule=schedule_of(period)),
            held.id,
            value=lambda _: noted,
        )
        held.period = period

    def _touch(self) -> None:
        """Change what no rule reads, of any entry."""
        name = self._a([spec.name for spec in STABLE])
        note = f"touched {self.rng.random():.6f}"
        self._call("touch", name, lambda: self.store.change(name, description=note))

    def _sql(self) -> None:
        """Change a row by plain SQL, so that beat looks at it at a time of no importance."""
        name, seconds = self._a([spec.name for spec in STABLE]), self.rng.uniform(60, 90)
        if name.startswith("misfire"):
            return
        begun, outcome = time.time(), "ok"
        update = "UPDATE beatstore_entry SET grace_s = :seconds WHERE name = :name"
        try:
            with self.store.database.engine.begin() as connection:
                connection.execute(text(update), {"seconds": seconds, "name": name})
        except SQLAlchemyError:
            outcome = "unknown"
        self.acts.append(Act("sql", name, begun, time.time(), outcome))

    def _link(self) -> None:
        held = self._held.get("edited-join")
        if held is not None:
            up = After(self._a(_LINKED), on="done", align="latest")
            self._call("link", held.name, lambda: self.store.link(held.name, up), held.id)

    def _unlink(self) -> None:
        held = self._held.get("edited-join")
        if held is not None:
            up = self._a(_LINKED)
            self._call("unlink", held.name, lambda: self.store.unlink(held.name, up), held.id)

    # -- runs ------------------------------------------------------------------------------------

    def _trigger(self) -> None:
        name = self._a(_TRIGGERED)
        self._call(
            "trigger",
            name,
            lambda: self.store.trigger(name),
            again=False,
            value=lambda run: {"run_id": run.id},
        )

    def _rerun(self) -> None:
        name = self._a(_TRIGGERED)
        over: tuple[RunState, ...] = ("succeeded", "failed", "lost")
        try:
            runs = self.store.runs(name, state=over, limit=20)
        except (BeatstoreError, SQLAlchemyError):
            return
        if runs:
            run = self.rng.choice(runs)
            self._call(
                "rerun",
                name,
                lambda: self.store.rerun(run.id),
                again=False,
                value=lambda made: {"run_id": made.id},
            )

    # -- one-shots ---------------------------------------------------------------------------------

    def _schedule(self) -> None:
        self._number += 1
        name, at = f"once-{self._number}", time.time() + self.rng.uniform(1, 12)
        self._one_shot(Spec(name, "guarded", policies={"max_retries": 1}), at, ())

    def _pipeline(self) -> None:
        """Store a pipeline that runs once: each step after the one before."""
        self._number += 1
        at = time.time() + 3
        first = f"pipe-{self._number}-a"
        if self._one_shot(Spec(first, "plain"), at, ()):
            spec = Spec(f"pipe-{self._number}-b", "plain", None, after=(After(first, on="done"),))
            self._add_spec(Spec(**{**vars(spec), "policies": {"max_runs": 1}}), stable=True)

    def _one_shot(self, spec: Spec, at: float, after: Sequence[After]) -> bool:
        arguments = {**spec.arguments(), "schedule": Once(instant(at))}
        begun = time.time()
        self._call("adding", spec.name, lambda: self.store.add(spec.name, **arguments))
        if self.acts[-1].outcome != "ok":
            return False
        entry = self._asked(lambda: self.store.get(spec.name))
        life = spec.life(entry.id, stable=True)
        self.lives.append(Life(**{**vars(life), "at": at}))
        self.acts.append(Act("add", spec.name, begun, time.time(), "ok", entry.id))
        if spec.name.startswith("once"):
            self._one_shots[spec.name] = at
        return True

    def _id_of(self, name: str) -> int:
        return next(life.id for life in self.lives if life.name == name)

    def _cancel(self) -> None:
        if self._one_shots:
            name = self._a(list(self._one_shots))
            del self._one_shots[name]
            self._call(
                "cancel",
                name,
                lambda: self.store.cancel(name),
                self._id_of(name),
                value=lambda in_time: {"in_time": in_time},
            )

    def _reschedule(self) -> None:
        if self._one_shots:
            name, at = self._a(list(self._one_shots)), time.time() + self.rng.uniform(1, 12)
            self._call(
                "reschedule",
                name,
                lambda: self.store.reschedule(name, instant(at)),
                self._id_of(name),
                value=lambda in_time: {"in_time": in_time, "at": at},
            )

    # -- an application's transaction ----------------------------------------------------------

    def _hold(self) -> None:
        """Change an entry in a transaction that stays open."""
        if self.store.database.engine.dialect.name == "sqlite":
            return  # where a writer keeps all others waiting, whatever it writes
        self._holding = [thread for thread in self._holding if thread.is_alive()]
        if self._holding:
            return
        names = [spec.name for spec in STABLE if spec.after or spec.period]
        given = (self._a(names), self.rng.uniform(*_HELD), self.rng.random() < 0.5)
        self._holding.append(threading.Thread(target=self._open, args=given, daemon=True))
        self._holding[-1].start()

    def _open(self, name: str, seconds: float, commit: bool) -> None:
        begun = time.time()
        try:
            with Session(self.store.database.engine) as session:
                self.store.change(name, description=f"held {begun:.3f}", session=session)
                locked = time.time()
                self.over.wait(seconds)
                (session.commit if commit else session.rollback)()
        except (BeatstoreError, SQLAlchemyError):
            return
        finally:
            self.transactions.append(Event("open transaction", begun, time.time(), name))
        self.acts.append(Act("hold", name, locked, time.time()))

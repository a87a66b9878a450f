"""People, who change entries by the API and by plain SQL.

A call is data: a verb, and what it is given. `Deed` says what came of it, and when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from beatstore import After, Declared, Every, Once, Store
from beatstore.errors import BeatstoreError, UnavailableError
from beatstore.rules.states import UNFINISHED
from tests.simulation.virtual import BASE

__all__ = ["SQL", "Call", "User", "schedule_of"]

#: Statements of people who write SQL, by their verb: the entry is `:name`.
SQL = {
    "sql_pause": "UPDATE beatstore_entry SET state = 'paused' WHERE name = :name",
    "sql_resume": "UPDATE beatstore_entry SET state = 'active' WHERE name = :name",
    "sql_cancel": "UPDATE beatstore_entry SET state = 'cancelled' WHERE name = :name",
    "sql_policy": "UPDATE beatstore_entry SET misfire = :value WHERE name = :name",
    "sql_rename": "UPDATE beatstore_entry SET name = :value WHERE name = :name",
    "sql_remove": "DELETE FROM beatstore_entry WHERE name = :name",
    "sql_unlink": "DELETE FROM beatstore_dependency WHERE downstream_id = "
    "(SELECT id FROM beatstore_entry WHERE name = :name)",
    "sql_link": "INSERT OR IGNORE INTO beatstore_dependency (upstream_id, downstream_id) "
    "SELECT up.id, down.id FROM beatstore_entry up, beatstore_entry down "
    "WHERE up.name = :value AND down.name = :name AND up.id < down.id",
}


@dataclass
class Call:
    """One call: what was asked, when, and what came of it.

    `outcome` is `ok`, `refused`, `unknown` (no answer), or `open` while it lasts.
    """

    verb: str
    name: str
    given: dict[str, Any]
    begun: float
    outcome: str = "open"
    answer: Any = None
    notes: list[str] = field(default_factory=list)


class User:
    """One person."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[Call] = []
        #: What it calls now, or called last, and with which name.
        self.verb = self.name = ""

    def begin(self, verb: str, name: str, given: dict[str, Any], now: float) -> Callable[[], None]:
        """Return the call as an operation."""
        call = Call(verb, name, given, now)
        self.calls.append(call)
        self.verb, self.name = verb, name
        return lambda: self._make(call)

    def close(self) -> None:
        """Do nothing: a call has closed its connection when it ends, however it does."""

    def _make(self, call: Call) -> None:
        try:
            call.answer = self._do(call)
        except UnavailableError:
            call.outcome = "unknown"
        except BeatstoreError as error:
            call.outcome = "refused"
            call.notes.append(f"{type(error).__name__}: {error}")
        except sa.exc.DBAPIError as error:  # of SQL that was cut, or undone
            call.outcome = "unknown"
            call.notes.append(str(error.orig))
        else:
            call.outcome = "ok"

    def _do(self, call: Call) -> Any:
        store, name, given = self._store, call.name, call.given
        if call.verb in SQL:
            return self._sql(SQL[call.verb], {"name": name, **given})
        if call.verb in ("rerun", "end"):
            return self._of_a_run(call.verb, name, given)
        verbs: dict[str, Callable[[], Any]] = {
            "add": lambda: add(store, name, given),
            "trigger": lambda: store.trigger(name),
            "unlink": lambda: store.unlink(name, given["upstream"]),
            "link": lambda: store.link(name, After(given["upstream"], on=given["on"])),
            "change": lambda: store.change(name, **changes(given)),
            "reschedule": lambda: store.reschedule(name, BASE + timedelta(seconds=given["at"])),
            "put": lambda: add(store, name, given, by=store.put),
            "pause_many": lambda: store.pause_many([name, given["other"]]),
            "resume_many": lambda: store.resume_many([name, given["other"]]),
            "prune": lambda: store.prune(given["age"]),
            "sync": lambda: sync(store, given["entries"]),
            "schedule": lambda: store.schedule(
                given["task"], at=BASE + timedelta(seconds=given["at"]), name=name, run_timeout=60
            ),
        }
        return verbs.get(call.verb, lambda: getattr(store, call.verb)(name))()

    def _of_a_run(self, verb: str, name: str, given: dict[str, Any]) -> Any:
        runs = self._store.runs(name)
        if verb == "rerun":
            over = [run for run in runs if run.state not in UNFINISHED]
            return self._store.rerun(over[0]) if over else None
        still = [run for run in runs if run.state in UNFINISHED]
        return self._store.end(still[0], given["state"]) if still else None

    def _sql(self, statement: str, given: dict[str, Any]) -> int:
        with self._store.database.engine.connect() as connection:
            by_itself = connection.execution_options(isolation_level="AUTOCOMMIT")
            return by_itself.execute(sa.text(statement), given).rowcount


def add(
    store: Store,
    name: str,
    given: dict[str, Any],
    session: Session | None = None,
    by: Callable[..., Any] | None = None,
) -> Any:
    """Add an entry as a plan describes it, in a transaction of its own or in the one given."""
    options = changes(given)
    after = [After(up, **asked) for up, asked in given.get("after", {}).items()]
    schedule = options.pop("schedule", None)
    write = by or store.add
    return write(name, given["task"], schedule, after=after, session=session, **options)


def sync(store: Store, entries: dict[str, dict[str, Any]]) -> Any:
    """Declare these entries, and none else, as the code of an app does."""

    def declare(*given: Any, session: None, **options: Any) -> Declared:
        return Declared(*given, **options)

    declared = [add(store, name, given, by=declare) for name, given in entries.items()]
    return store.sync(declared, source="code")


def changes(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `add` and `change` that a plan's data stands for."""
    made = {key: value for key, value in given.items() if key not in ("task", "after")}
    if "schedule" in made:
        made["schedule"] = schedule_of(made["schedule"])
    for bound in made.keys() & {"start_at", "end_at"}:
        made[bound] = BASE + timedelta(seconds=made[bound])
    return made


def schedule_of(text: str) -> Any:
    """Return the schedule that a plan writes as `every 60`, `once 30` or a cron expression."""
    kind, _, number = text.partition(" ")
    if kind == "every":
        return Every(float(number), anchor=BASE)
    if kind == "once":
        return Once(BASE + timedelta(seconds=float(number)))
    return text

"""A nightly entry at 03:05, when it should have run at 03:00, and what may have happened to it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from beatstore import Cron, Entry, Store
from beatstore.clock import ManualClock
from beatstore.models import BeatModel, DependencyModel, RunModel, WorkerModel
from beatstore.schedules.instants import EPOCH
from tests.support.written import DAY, HOUR, MINUTE, UTC, alter, run, write

__all__ = [
    "ACTIVE",
    "ASKED",
    "AT",
    "EXTRACT_NEXT",
    "NEVER",
    "NEXT",
    "NIGHTLY",
    "THREE",
    "WAITS",
    "Night",
    "broken",
    "cancelled",
    "claimed",
    "ended",
    "finished",
    "folded",
    "gone_wrong",
    "jittered",
    "never",
    "no_beat",
    "no_beat_ever",
    "no_setup",
    "other_reason",
    "overdue",
    "own_run",
    "paused",
    "paused_by_hand",
    "ran",
    "retried",
    "running",
    "several",
    "silent",
    "silent_workers",
    "skipped",
    "suspected",
    "up_broken",
    "up_cancelled",
    "up_failed",
    "up_never",
    "up_paused",
    "up_removed",
    "up_retried",
    "up_running",
    "up_same",
    "up_sent",
    "up_used",
    "up_vanished",
    "up_waits",
    "written_by_hand",
]


#: The person who asks does so at 03:05 in Berlin, where it is winter.
THREE = datetime(2026, 1, 15, 2, tzinfo=UTC)
ASKED = THREE + 5 * MINUTE

NIGHTLY = Cron("0 3 * * *", "Europe/Berlin")
ACTIVE = "'load' is active: cron '0 3 * * *' in Europe/Berlin."
NEXT = "'load' is due next at 2026-01-16 03:00 Europe/Berlin (02:00 UTC), in 23 h 55 min."
NEVER = "'load' has never run."


class Night:
    """A store at 03:05, with a beat and a worker that are alive, and a nightly entry."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        clock.set(THREE - 15 * HOUR)
        self.load = store.add("load", "etl.load", NIGHTLY)
        self.ask_at(ASKED)

    def ask_at(self, at: datetime) -> None:
        """Move the clock, and with it the heartbeats."""
        self.clock.set(at)
        self.beat()
        self.worker()
        self.looked()

    def looked(self, name: str = "load", **columns: Any) -> None:
        """Have the entry looked at: what was due until now is accounted for."""
        wake_at = THREE + DAY
        looked = {"cursor_at": THREE, "wake_at": wake_at, "next_due_at": wake_at}
        alter(self.store, name, **{**looked, **columns})

    def beat(self, seconds: float = 0) -> None:
        """Put a beat on record that was heard of so long ago; the only one."""
        self.delete(BeatModel)
        row = {"id": "b", "host": "h", "pid": 1, "version": "0", "tzdata": "x"}
        write(self.store, BeatModel, {**row, "heartbeat_at": self.ago(seconds)})

    def worker(self, seconds: float = 0) -> None:
        """Put a worker on record likewise."""
        self.delete(WorkerModel)
        row = {"id": "w", "name": "celery@a", "pid": 1, "version": "0"}
        write(self.store, WorkerModel, {**row, "heartbeat_at": self.ago(seconds)})

    def delete(self, table: type[Any]) -> None:
        """Delete all rows of a table."""
        with self.store.database.engine.begin() as connection:
            connection.execute(table.__table__.delete())

    def ago(self, seconds: float) -> datetime:
        """Return the instant so many seconds ago."""
        return self.clock.now() - timedelta(seconds=seconds)

    def run(self, due_at: datetime = THREE, name: str = "load", **columns: Any) -> None:
        """Write a run."""
        write(self.store, RunModel, run(self.store.get(name), due_at, **columns))

    def upstream(self, name: str = "extract", **columns: Any) -> Entry:
        """Add an upstream that the entry waits for since 03:00:01."""
        on = columns.pop("on", "success")
        align = columns.pop("align", "latest")
        self.clock.set(THREE - 12 * HOUR)
        up = self.store.add(name, "etl.extract", Cron("0 2 * * *", "Europe/Berlin"))
        self.clock.set(ASKED)
        self.looked(
            name,
            cursor_at=THREE - HOUR,
            wake_at=THREE + 23 * HOUR,
            next_due_at=THREE + 23 * HOUR,
            **columns,
        )
        edge = {"upstream_id": up.id, "downstream_id": self.load.id, "on": on, "align": align}
        write(self.store, DependencyModel, {**edge, "consumed_seq": 5})
        self.wait(up.id)
        return up

    def wait(self, blocked_by: int, reason: str = "waits for 'extract' to succeed") -> None:
        """Park the occurrence of 03:00."""
        self.looked(
            cursor_at=THREE - DAY,
            wake_at=None,
            blocked_by=blocked_by,
            pending_due_at=THREE,
            pending_since=THREE + timedelta(seconds=1),
            pending_reason=reason,
        )

    def said(self, at: datetime | None = None) -> list[str]:
        """Ask."""
        return self.store.by("nobody").explain("load", at).sentences


# -- an entry ----------------------------------------------------------------------------


def never(night: Night) -> None:
    """Leave it as it is: added yesterday, and not due yet."""


def ran(night: Night) -> None:
    """Three runs: one was missed with others, one failed, one went well."""
    sent_at = THREE + timedelta(seconds=2)
    started_at = THREE + timedelta(seconds=3)
    times: dict[str, Any] = {
        "sent_at": sent_at,
        "started_at": started_at,
        "finished_at": THREE + 3 * MINUTE,
    }
    night.run(state="succeeded", **times, worker="celery@a")
    error: dict[str, Any] = {
        "error": "ValueError: boom\nin two lines",
        "finished_at": THREE - DAY + MINUTE,
    }
    night.run(THREE - DAY, state="failed", **error)
    reason = "misfire: first seen 2 h late, grace is 60 s, policy skip"
    since: dict[str, Any] = {"first_missed_at": THREE - 5 * DAY, "missed_count": 4}
    night.run(THREE - 2 * DAY, state="missed", reason=reason, **since)


def folded(night: Night) -> None:
    """A run that stands for others before it."""
    times: dict[str, Any] = {"sent_at": THREE + 4 * MINUTE, "finished_at": THREE + 5 * MINUTE}
    others: dict[str, Any] = {"first_missed_at": THREE - 3 * DAY, "missed_count": 3}
    reason = "misfire: first seen 3 d late, grace is 60 s, policy coalesce"
    night.run(state="succeeded", reason=reason, **times, **others)


def skipped(night: Night) -> None:
    """An occurrence that was given up for its upstream."""
    one: dict[str, Any] = {"first_missed_at": THREE, "missed_count": 1}
    night.run(state="skipped", reason="upstream 'extract' failed", **one)


def gone_wrong(night: Night) -> None:
    """One lost, one cancelled, and one that somebody asked for."""
    night.run(
        state="lost",
        reason="worker celery@a stopped sending heartbeats",
        finished_at=ASKED - MINUTE,
    )
    night.run(THREE - DAY, state="cancelled", reason="revoked", finished_at=THREE - DAY)
    night.run(THREE - HOUR, state="succeeded", reason="triggered", finished_at=THREE - HOUR)


def paused(night: Night) -> None:
    """By ann, ten minutes before three."""
    night.clock.set(THREE - 10 * MINUTE)
    night.looked(cursor_at=THREE - DAY)
    night.store.pause("load")
    night.clock.set(ASKED)


def paused_by_hand(night: Night) -> None:
    """By plain SQL, so that nobody knows who and when."""
    alter(night.store, "load", state="paused", wake_at=None)


def broken(night: Night) -> None:
    """By a row that could not be decided."""
    alter(night.store, "load", state="broken", error="spec: nonsense.", wake_at=None)


def finished(night: Night) -> None:
    """All that was to run did."""
    alter(night.store, "load", state="finished", max_runs=3, run_count=3, wake_at=None)


def ended(night: Night) -> None:
    """Its end has passed."""
    alter(night.store, "load", state="finished", end_at=THREE - HOUR, wake_at=None)


def cancelled(night: Night) -> None:
    """By bob, two hours before."""
    night.clock.set(THREE - 2 * HOUR)
    night.store.by("bob").cancel("load")
    night.clock.set(ASKED)


def overdue(night: Night) -> None:
    """No beat has looked at it; one is alive."""
    night.looked(cursor_at=THREE - DAY, wake_at=THREE)


def written_by_hand(night: Night) -> None:
    """Nobody has looked at it since it was written, an hour ago."""
    at: dict[str, Any] = {"created_at": THREE - HOUR, "updated_at": THREE - HOUR}
    night.looked(cursor_at=None, wake_at=EPOCH, **at)


def no_beat(night: Night) -> None:
    """Nor is there one."""
    overdue(night)
    night.beat(7200)


def no_beat_ever(night: Night) -> None:
    """Nothing is due, and nobody is there to look."""
    night.delete(BeatModel)


def running(night: Night) -> None:
    """For five minutes."""
    started_at = THREE + timedelta(seconds=2)
    times: dict[str, Any] = {"sent_at": THREE, "started_at": started_at, "wake_at": ASKED + MINUTE}
    night.run(state="started", worker="celery@a", **times)


def suspected(night: Night) -> None:
    """By a worker that has fallen silent."""
    times: dict[str, Any] = {"sent_at": THREE, "started_at": THREE, "wake_at": ASKED + MINUTE}
    night.run(state="started", worker="celery@a", claimed_by="suspected", **times)


def silent(night: Night) -> None:
    """Sent to a queue, and never heard of."""
    alter(night.store, "load", options={"queue": "etl"}, wake_at=THREE + DAY)
    night.run(sent_at=THREE + timedelta(seconds=1))


def silent_workers(night: Night) -> None:
    """The same with a timeout, and no worker alive."""
    alter(night.store, "load", run_timeout_s=3600.0, wake_at=THREE + DAY)
    night.run(sent_at=THREE, wake_at=THREE + HOUR)
    night.worker(300)


def no_setup(night: Night) -> None:
    """Nobody reports outcomes here."""
    night.delete(WorkerModel)
    night.run(sent_at=THREE)


def retried(night: Night) -> None:
    """The first attempt failed, and the second is to follow."""
    error = "ValueError: boom"
    night.run(state="failed", error=error, sent_at=THREE, finished_at=THREE + MINUTE)
    reason = f"attempt 2, after: {error}"
    night.run(attempt=2, state="claimed", wake_at=ASKED + 5 * MINUTE, reason=reason)


def claimed(night: Night) -> None:
    """A beat is at it."""
    night.run(state="claimed", claimed_by="b", wake_at=ASKED + MINUTE)


def jittered(night: Night) -> None:
    """Sent some time after its due time, always the same."""
    alter(night.store, "load", jitter_s=60.0, id=7, wake_at=THREE + DAY)


WAITS = (
    "Its occurrence of 2026-01-15 03:00 Europe/Berlin (02:00 UTC) has been waiting "
    "since 03:00:01 (4 min 59 s) for"
)
EXTRACT_NEXT = "it is due next at 2026-01-16 02:00 Europe/Berlin (01:00 UTC)."


def up_never(night: Night) -> None:
    """An upstream that never ran."""
    night.upstream()


def up_failed(night: Night) -> None:
    """An upstream that failed."""
    night.upstream(run_count=1)
    failed = {"state": "failed", "error": "OSError: disk full", "finished_at": THREE - 50 * MINUTE}
    night.run(THREE - HOUR, "extract", **failed)


def up_used(night: Night) -> None:
    """An upstream whose last success was used already."""
    night.upstream(on="done", run_count=1)
    night.run(THREE - DAY - HOUR, "extract", state="succeeded", finished_at=THREE - DAY)


def up_running(night: Night) -> None:
    """An upstream that is at it."""
    night.upstream()
    started = {"state": "started", "started_at": THREE - HOUR, "worker": "celery@b"}
    night.run(THREE - HOUR, "extract", **started)


def up_sent(night: Night) -> None:
    """An upstream that was sent and is not heard of."""
    night.upstream(on="failure")
    night.run(THREE - HOUR, "extract", sent_at=THREE - HOUR)


def up_retried(night: Night) -> None:
    """An upstream that is tried again."""
    night.upstream()
    again = {"state": "claimed", "wake_at": ASKED + MINUTE, "reason": "attempt 2, after: boom"}
    night.run(THREE - HOUR, "extract", attempt=2, **again)


def up_paused(night: Night) -> None:
    """An upstream that bob paused."""
    night.upstream()
    night.clock.set(THREE - 2 * HOUR)
    night.store.by("bob").pause("extract")
    night.clock.set(ASKED)


def up_broken(night: Night) -> None:
    """An upstream that is broken."""
    night.upstream(state="broken", error="args: expected a JSON list, got 7")


def up_cancelled(night: Night) -> None:
    """An upstream that will never run again."""
    night.upstream()
    night.store.cancel("extract")


def up_waits(night: Night) -> None:
    """An upstream that waits itself."""
    since = THREE - HOUR
    night.upstream(
        pending_since=since,
        pending_due_at=since,
        blocked_by=99,
        pending_reason="waits for 'fetch' to succeed",
    )


def up_same(night: Night) -> None:
    """An upstream that has succeeded, but for another due time."""
    night.upstream(align="same", success_seq=9)
    night.run(THREE - HOUR, "extract", state="succeeded", finished_at=THREE - 50 * MINUTE)


def up_removed(night: Night) -> None:
    """An upstream that was removed; a beat has not looked since."""
    night.upstream()
    night.store.remove("extract")


def up_vanished(night: Night) -> None:
    """An upstream whose row was deleted past all keys."""
    up = night.upstream()
    night.run(THREE - HOUR, "extract", state="succeeded")
    with night.store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(f"DELETE FROM beatstore_entry WHERE id = {up.id}")
        connection.commit()
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def several(night: Night) -> None:
    """Three upstreams, of which one has done its part and one needs a hand; with a timeout."""
    night.upstream("audit", run_count=1, success_seq=6)
    night.upstream("zip", state="broken", error="no")
    night.upstream("extract")
    alter(night.store, "load", wake_at=ASKED + 10 * MINUTE)


def own_run(night: Night) -> None:
    """Its own run of yesterday has not ended."""
    times: dict[str, Any] = {
        "sent_at": THREE - DAY,
        "started_at": THREE - DAY,
        "worker": "celery@a",
    }
    night.run(THREE - DAY, state="started", **times)
    night.wait(night.load.id, "waits: its run due 2026-01-14T02:00:00+00:00 has not ended")


def other_reason(night: Night) -> None:
    """A reason that no edge explains."""
    night.wait(99, "waits for 'ghost' to succeed")


# -- an occurrence -----------------------------------------------------------------------


AT = "The occurrence of 'load' at 2026-01-15 03:00 Europe/Berlin (02:00 UTC)"

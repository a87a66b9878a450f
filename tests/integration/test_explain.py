"""Why has it not run? Situations, and what is said of them, on every database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, update

from beatstore import Cron, Entry, RRule, Store
from beatstore.clock import ManualClock
from beatstore.errors import EntryNotFoundError, InvalidEntryError, ScheduleError
from beatstore.models import BeatModel, DependencyModel, EntryModel, RunModel, WorkerModel
from beatstore.schedules import zone
from beatstore.schedules.instants import EPOCH
from beatstore.store.explain.wording import Wording
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.written import DAY, HOUR, MINUTE, alter, run, write

UTC = timezone.utc

#: The person who asks does so at 03:05 in Berlin, where it is winter.
THREE = datetime(2026, 1, 15, 2, tzinfo=UTC)
ASKED = THREE + 5 * MINUTE

NIGHTLY = Cron("0 3 * * *", "Europe/Berlin")
ACTIVE = "'load' is active: cron '0 3 * * *' in Europe/Berlin."
NEXT = "'load' is due next at 2026-01-16 03:00 Europe/Berlin (02:00 UTC), in 23 h 55 min."
NEVER = "'load' has never run."


class Scene:
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


@pytest.fixture
def scene(migrated_url: str, clock: ManualClock) -> Iterator[Scene]:
    """Return the scene at 03:05; changes are made by ann."""
    store = Store(migrated_url, clock=clock, actor="ann")
    yield Scene(store, clock)
    store.close()


# -- an entry ----------------------------------------------------------------------------


def never(scene: Scene) -> None:
    """Leave it as it is: added yesterday, and not due yet."""


def ran(scene: Scene) -> None:
    """Three runs: one was missed with others, one failed, one went well."""
    sent_at = THREE + timedelta(seconds=2)
    started_at = THREE + timedelta(seconds=3)
    times = {"sent_at": sent_at, "started_at": started_at, "finished_at": THREE + 3 * MINUTE}
    scene.run(state="succeeded", **times, worker="celery@a")
    error = {"error": "ValueError: boom\nin two lines", "finished_at": THREE - DAY + MINUTE}
    scene.run(THREE - DAY, state="failed", **error)
    reason = "misfire: first seen 2 h late, grace is 60 s, policy skip"
    since = {"first_missed_at": THREE - 5 * DAY, "missed_count": 4}
    scene.run(THREE - 2 * DAY, state="missed", reason=reason, **since)


def folded(scene: Scene) -> None:
    """A run that stands for others before it."""
    times = {"sent_at": THREE + 4 * MINUTE, "finished_at": THREE + 5 * MINUTE}
    others = {"first_missed_at": THREE - 3 * DAY, "missed_count": 3}
    reason = "misfire: first seen 3 d late, grace is 60 s, policy coalesce"
    scene.run(state="succeeded", reason=reason, **times, **others)


def skipped(scene: Scene) -> None:
    """An occurrence that was given up for its upstream."""
    one = {"first_missed_at": THREE, "missed_count": 1}
    scene.run(state="skipped", reason="upstream 'extract' failed", **one)


def gone_wrong(scene: Scene) -> None:
    """One lost, one cancelled, and one that somebody asked for."""
    scene.run(
        state="lost",
        reason="worker celery@a stopped sending heartbeats",
        finished_at=ASKED - MINUTE,
    )
    scene.run(THREE - DAY, state="cancelled", reason="revoked", finished_at=THREE - DAY)
    scene.run(THREE - HOUR, state="succeeded", reason="triggered", finished_at=THREE - HOUR)


def paused(scene: Scene) -> None:
    """By ann, ten minutes before three."""
    scene.clock.set(THREE - 10 * MINUTE)
    scene.looked(cursor_at=THREE - DAY)
    scene.store.pause("load")
    scene.clock.set(ASKED)


def paused_by_hand(scene: Scene) -> None:
    """By plain SQL, so that nobody knows who and when."""
    alter(scene.store, "load", state="paused", wake_at=None)


def broken(scene: Scene) -> None:
    """By a row that could not be decided."""
    alter(scene.store, "load", state="broken", error="spec: nonsense.", wake_at=None)


def finished(scene: Scene) -> None:
    """All that was to run did."""
    alter(scene.store, "load", state="finished", max_runs=3, run_count=3, wake_at=None)


def ended(scene: Scene) -> None:
    """Its end has passed."""
    alter(scene.store, "load", state="finished", end_at=THREE - HOUR, wake_at=None)


def cancelled(scene: Scene) -> None:
    """By bob, two hours before."""
    scene.clock.set(THREE - 2 * HOUR)
    scene.store.by("bob").cancel("load")
    scene.clock.set(ASKED)


def overdue(scene: Scene) -> None:
    """No beat has looked at it; one is alive."""
    scene.looked(cursor_at=THREE - DAY, wake_at=THREE)


def written_by_hand(scene: Scene) -> None:
    """Nobody has looked at it since it was written, an hour ago."""
    at = {"created_at": THREE - HOUR, "updated_at": THREE - HOUR}
    scene.looked(cursor_at=None, wake_at=EPOCH, **at)


def no_beat(scene: Scene) -> None:
    """Nor is there one."""
    overdue(scene)
    scene.beat(7200)


def no_beat_ever(scene: Scene) -> None:
    """Nothing is due, and nobody is there to look."""
    scene.delete(BeatModel)


def running(scene: Scene) -> None:
    """For five minutes."""
    started_at = THREE + timedelta(seconds=2)
    times = {"sent_at": THREE, "started_at": started_at, "wake_at": ASKED + MINUTE}
    scene.run(state="started", worker="celery@a", **times)


def suspected(scene: Scene) -> None:
    """By a worker that has fallen silent."""
    times = {"sent_at": THREE, "started_at": THREE, "wake_at": ASKED + MINUTE}
    scene.run(state="started", worker="celery@a", claimed_by="suspected", **times)


def silent(scene: Scene) -> None:
    """Sent to a queue, and never heard of."""
    alter(scene.store, "load", options={"queue": "etl"}, wake_at=THREE + DAY)
    scene.run(sent_at=THREE + timedelta(seconds=1))


def silent_workers(scene: Scene) -> None:
    """The same with a timeout, and no worker alive."""
    alter(scene.store, "load", run_timeout_s=3600.0, wake_at=THREE + DAY)
    scene.run(sent_at=THREE, wake_at=THREE + HOUR)
    scene.worker(300)


def no_setup(scene: Scene) -> None:
    """Nobody reports outcomes here."""
    scene.delete(WorkerModel)
    scene.run(sent_at=THREE)


def retried(scene: Scene) -> None:
    """The first attempt failed, and the second is to follow."""
    error = "ValueError: boom"
    scene.run(state="failed", error=error, sent_at=THREE, finished_at=THREE + MINUTE)
    reason = f"attempt 2, after: {error}"
    scene.run(attempt=2, state="claimed", wake_at=ASKED + 5 * MINUTE, reason=reason)


def claimed(scene: Scene) -> None:
    """A beat is at it."""
    scene.run(state="claimed", claimed_by="b", wake_at=ASKED + MINUTE)


def jittered(scene: Scene) -> None:
    """Sent some time after its due time, always the same."""
    alter(scene.store, "load", jitter_s=60.0, id=7, wake_at=THREE + DAY)


WAITS = (
    "Its occurrence of 2026-01-15 03:00 Europe/Berlin (02:00 UTC) has been waiting "
    "since 03:00:01 (4 min 59 s) for"
)
EXTRACT_NEXT = "it is due next at 2026-01-16 02:00 Europe/Berlin (01:00 UTC)."


def up_never(scene: Scene) -> None:
    """An upstream that never ran."""
    scene.upstream()


def up_failed(scene: Scene) -> None:
    """An upstream that failed."""
    scene.upstream(run_count=1)
    failed = {"state": "failed", "error": "OSError: disk full", "finished_at": THREE - 50 * MINUTE}
    scene.run(THREE - HOUR, "extract", **failed)


def up_used(scene: Scene) -> None:
    """An upstream whose last success was used already."""
    scene.upstream(on="done", run_count=1)
    scene.run(THREE - DAY - HOUR, "extract", state="succeeded", finished_at=THREE - DAY)


def up_running(scene: Scene) -> None:
    """An upstream that is at it."""
    scene.upstream()
    started = {"state": "started", "started_at": THREE - HOUR, "worker": "celery@b"}
    scene.run(THREE - HOUR, "extract", **started)


def up_sent(scene: Scene) -> None:
    """An upstream that was sent and is not heard of."""
    scene.upstream(on="failure")
    scene.run(THREE - HOUR, "extract", sent_at=THREE - HOUR)


def up_retried(scene: Scene) -> None:
    """An upstream that is tried again."""
    scene.upstream()
    again = {"state": "claimed", "wake_at": ASKED + MINUTE, "reason": "attempt 2, after: boom"}
    scene.run(THREE - HOUR, "extract", attempt=2, **again)


def up_paused(scene: Scene) -> None:
    """An upstream that bob paused."""
    scene.upstream()
    scene.clock.set(THREE - 2 * HOUR)
    scene.store.by("bob").pause("extract")
    scene.clock.set(ASKED)


def up_broken(scene: Scene) -> None:
    """An upstream that is broken."""
    scene.upstream(state="broken", error="args: expected a JSON list, got 7")


def up_cancelled(scene: Scene) -> None:
    """An upstream that will never run again."""
    scene.upstream()
    scene.store.cancel("extract")


def up_waits(scene: Scene) -> None:
    """An upstream that waits itself."""
    since = THREE - HOUR
    scene.upstream(
        pending_since=since,
        pending_due_at=since,
        blocked_by=99,
        pending_reason="waits for 'fetch' to succeed",
    )


def up_same(scene: Scene) -> None:
    """An upstream that has succeeded, but for another due time."""
    scene.upstream(align="same", success_seq=9)
    scene.run(THREE - HOUR, "extract", state="succeeded", finished_at=THREE - 50 * MINUTE)


def up_removed(scene: Scene) -> None:
    """An upstream that was removed; a beat has not looked since."""
    scene.upstream()
    scene.store.remove("extract")


def up_vanished(scene: Scene) -> None:
    """An upstream whose row was deleted past all keys."""
    up = scene.upstream()
    scene.run(THREE - HOUR, "extract", state="succeeded")
    with scene.store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(f"DELETE FROM beatstore_entry WHERE id = {up.id}")
        connection.commit()
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def several(scene: Scene) -> None:
    """Three upstreams, of which one has done its part and one needs a hand; with a timeout."""
    scene.upstream("audit", run_count=1, success_seq=6)
    scene.upstream("zip", state="broken", error="no")
    scene.upstream("extract")
    alter(scene.store, "load", wake_at=ASKED + 10 * MINUTE)


def own_run(scene: Scene) -> None:
    """Its own run of yesterday has not ended."""
    times = {"sent_at": THREE - DAY, "started_at": THREE - DAY, "worker": "celery@a"}
    scene.run(THREE - DAY, state="started", **times)
    scene.wait(scene.load.id, "waits: its run due 2026-01-14T02:00:00+00:00 has not ended")


def other_reason(scene: Scene) -> None:
    """A reason that no edge explains."""
    scene.wait(99, "waits for 'ghost' to succeed")


SITUATIONS: list[tuple[Callable[[Scene], None], list[str]]] = [
    (never, [ACTIVE, NEXT, NEVER]),
    (
        ran,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 succeeded at 03:03:00, sent 2 s late, after 2 min 57 s, "
            "on celery@a.",
            "The run due 2026-01-14 03:00:00 failed at 2026-01-14 03:01:00: ValueError: boom.",
            "4 occurrences, from 2026-01-10 03:00:00 to 2026-01-13 03:00:00, were missed: misfire: "
            "first seen 2 h late, grace is 60 s, policy skip.",
        ],
    ),
    (
        folded,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 succeeded at 03:05:00, sent 4 min late. It also covers "
            "3 earlier occurrences, from 2026-01-12 03:00:00: misfire: first seen 3 d late, "
            "grace is 60 s, policy coalesce.",
        ],
    ),
    (skipped, [ACTIVE, NEXT, "The occurrence of 03:00:00 was skipped: upstream 'extract' failed."]),
    (
        gone_wrong,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 was lost at 03:04:00: worker celery@a stopped sending "
            "heartbeats.",
            "The run triggered at 02:00:00 succeeded at 02:00:00.",
            "The run due 2026-01-14 03:00:00 was cancelled at 2026-01-14 03:00:00: revoked.",
        ],
    ),
    (
        paused,
        [
            "'load' is paused since 02:50:00, by ann. It sends nothing until store.resume('load').",
            "If it were resumed now, it would be due next at "
            "2026-01-16 03:00 Europe/Berlin (02:00 UTC).",
            NEVER,
        ],
    ),
    (
        paused_by_hand,
        [
            "'load' is paused. It sends nothing until store.resume('load').",
            "If it were resumed now, it would be due next at "
            "2026-01-16 03:00 Europe/Berlin (02:00 UTC).",
            NEVER,
        ],
    ),
    (
        broken,
        [
            "'load' is broken: spec: nonsense.",
            "Fix it with store.change('load', …), or try again with store.resume('load').",
            NEVER,
        ],
    ),
    (finished, ["'load' is finished: all its 3 runs were sent.", NEVER]),
    (
        ended,
        [
            "'load' is finished: nothing is due after its end, "
            "2026-01-15 02:00 Europe/Berlin (01:00 UTC).",
            NEVER,
        ],
    ),
    (cancelled, ["'load' is cancelled since 01:00:00, by bob.", NEVER]),
    (
        overdue,
        [
            ACTIVE,
            "It has been overdue since 03:00:00 (5 min): no beat has picked it up.",
            "One beat is alive, but may be busy or stuck: see store.status().",
            NEXT,
            NEVER,
        ],
    ),
    (
        written_by_hand,
        [
            ACTIVE,
            "It has been overdue since 03:00:00 (5 min): no beat has picked it up.",
            "One beat is alive, but may be busy or stuck: see store.status().",
            NEXT,
            NEVER,
        ],
    ),
    (
        no_beat,
        [
            ACTIVE,
            "It has been overdue since 03:00:00 (5 min): no beat has picked it up.",
            "No beat is alive: the last heartbeat was at 01:05:00.",
            NEXT,
            NEVER,
        ],
    ),
    (
        no_beat_ever,
        [
            ACTIVE,
            "No beat is alive, and none is on record: start one with "
            "`celery -A … beat --scheduler beatstore:DBScheduler`.",
            NEXT,
            NEVER,
        ],
    ),
    (
        running,
        [
            ACTIVE,
            "The run due 03:00:00 has been running since 03:00:02 (4 min 58 s), on celery@a.",
            NEXT,
        ],
    ),
    (
        suspected,
        [
            ACTIVE,
            "The run due 03:00:00 has been running since 03:00:00 (5 min), on celery@a, "
            "which has stopped reporting.",
            NEXT,
        ],
    ),
    (
        silent,
        [
            ACTIVE,
            "The run due 03:00:00 was sent at 03:00:01 (4 min 59 s ago), "
            "and no worker has reported it.",
            "Perhaps no worker listens to queue 'etl', or the one that took it lacks "
            "beatstore.setup(app).",
            "It has no run_timeout, so it is never marked lost.",
            NEXT,
        ],
    ),
    (
        silent_workers,
        [
            ACTIVE,
            "The run due 03:00:00 was sent at 03:00:00 (5 min ago), and no worker has reported it.",
            "Perhaps no worker listens to its queue, or the one that took it lacks "
            "beatstore.setup(app).",
            "If no worker reports by 04:00:00, it is marked lost.",
            "No worker that reports outcomes is alive.",
            NEXT,
        ],
    ),
    (
        no_setup,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 was sent at 03:00:00 (5 min ago), and no worker has reported it.",
            "Outcomes of sent runs are unknown: no worker has ever reported one; "
            "call beatstore.setup(app) in the module of the Celery app.",
        ],
    ),
    (
        retried,
        [
            ACTIVE,
            "Attempt 2 of the run due 03:00:00 will be sent at 03:10:00, in 5 min, "
            "after ValueError: boom.",
            NEXT,
            "The run due 03:00:00 failed at 03:01:00: ValueError: boom.",
        ],
    ),
    (claimed, [ACTIVE, "The run due 03:00:00 is about to be sent.", NEXT]),
    (jittered, [ACTIVE, f"{NEXT[:-1]}; it is sent 25 s later (jitter).", NEVER]),
    (
        up_never,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            f"'extract' must succeed: it has never run; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_failed,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: its last run due 02:00:00 failed at 02:10:00: "
            f"OSError: disk full; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_used,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must end: its last run due 2026-01-14 02:00:00 succeeded at "
            f"2026-01-14 03:00:00; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_running,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: its run due 02:00:00 has been running since 02:00:00 "
            f"(1 h 5 min), on celery@b; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_sent,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must fail: its run due 02:00:00 was sent at 02:00:00 (1 h 5 min ago), and "
            f"no worker has reported it; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_retried,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: attempt 2 of its run due 02:00:00 will be sent at 03:06:00, "
            f"in 1 min, after boom; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_paused,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it is paused since 01:00:00, by bob.",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_broken,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it is broken (args: expected a JSON list, got 7).",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_cancelled,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it is cancelled since 03:05:00, by ann, "
            "and will not run again.",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_waits,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it waits for 'fetch' to succeed (for 1 h 5 min); "
            f"{EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_same,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed, for the same due time: its last run due 02:00:00 succeeded "
            f"at 02:10:00; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_removed,
        [
            ACTIVE,
            "Nothing blocks its occurrence of 2026-01-15 03:00 Europe/Berlin (02:00 UTC) "
            "any more: a beat is about to pick it up.",
            NEXT,
            NEVER,
        ],
    ),
    (
        several,
        [
            ACTIVE,
            f"{WAITS} 2 of its 3 upstreams.",
            "'zip' must succeed: it is broken (no).",
            f"'extract' must succeed: it has never run; {EXTRACT_NEXT}",
            "It gives up waiting at 03:15:00.",
            NEXT,
            NEVER,
        ],
    ),
    (
        own_run,
        [
            ACTIVE,
            f"{WAITS} its own run to end (overlap: wait).",
            "The run due 2026-01-14 03:00:00 has been running since 2026-01-14 03:00:00 "
            "(1 d 5 min), on celery@a.",
            NEXT,
        ],
    ),
    (other_reason, [ACTIVE, f"{WAITS} 'ghost' to succeed.", NEXT, NEVER]),
]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("arrange", "sentences"), SITUATIONS, ids=[arrange.__name__ for arrange, _ in SITUATIONS]
)
def test_an_entry_is_explained(
    scene: Scene, arrange: Callable[[Scene], None], sentences: list[str]
) -> None:
    """Each situation in whole sentences, in the order in which a person asks."""
    arrange(scene)
    assert scene.said() == sentences
    assert str(scene.store.explain("load")) == " ".join(sentences)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_upstream_whose_row_vanished_is_named_by_its_runs(scene: Scene) -> None:
    """SQLite keeps an edge to nowhere where foreign keys are off; the others don't."""
    up_vanished(scene)
    assert scene.said()[1:3] == [
        f"{WAITS} its upstream.",
        "'extract' must succeed: it was removed.",
    ]


def test_ten_of_many_upstreams_are_told(scene: Scene) -> None:
    """The rest is counted, in one question."""
    rows = [{"name": f"up{number:05}", "task": "t", "kind": "after"} for number in range(10_000)]
    write(scene.store, EntryModel, *({**row, "spec": ""} for row in rows))
    with scene.store.database.session() as session:
        ids = session.scalars(select(EntryModel.id).where(EntryModel.kind == "after")).all()
    edges = [{"upstream_id": up, "downstream_id": scene.load.id} for up in ids]
    write(scene.store, DependencyModel, *edges)
    scene.wait(ids[-1])
    found = scene.store.explain("load")
    assert found.sentences[1:3] == [
        f"{WAITS} all its 10,000 upstreams.",
        "'up00000' must succeed: it has never run.",
    ]
    assert found.sentences[12:] == ["And 9,990 more.", NEXT, NEVER]
    assert (found.waits_for_count, len(found.waits_for)) == (10_000, 10)


def test_more_runs_than_are_told(scene: Scene) -> None:
    """Three of those that have not ended, the ones that run first, and that there are more."""
    for number in range(5):
        at = THREE - number * HOUR
        scene.run(at, state="started", sent_at=at, started_at=at, worker="celery@a")
    scene.run(THREE - MINUTE, sent_at=THREE - MINUTE)
    said = scene.said()
    assert [sentence[:21] for sentence in said[1:4]] == [
        "The run due 03:00:00 ",
        "The run due 02:00:00 ",
        "The run due 01:00:00 ",
    ]
    assert said[4] == "It has more runs that have not ended."


def test_an_entry_without_a_schedule_is_explained(scene: Scene) -> None:
    """It sleeps until all its upstreams have done what they must; there is no next time."""
    scene.store.add("report", "t", after=["load"])
    assert scene.store.explain("report").sentences == [
        "'report' is active: after its upstreams, without a schedule.",
        "'report' waits for its upstream.",
        "'load' must succeed, for the same due time: it has never run; it is due next at "
        "2026-01-16 02:00 UTC.",
        "'report' has never run.",
    ]
    scene.store.unlink("report", "load")
    with scene.store.database.session() as session:
        reason = {"pending_reason": "it has no upstreams; link some", "wake_at": None}
        session.execute(update(EntryModel).where(EntryModel.name == "report").values(**reason))
    assert scene.store.explain("report").sentences[1] == (
        "'report' waits because it has no upstreams; link some."
    )


def test_times_are_told_in_the_zone_asked_for(scene: Scene) -> None:
    """With `timezone=` due times are given there and in the entry's zone, reasons included."""
    store = scene.store
    entry = store.add("skips", "t", "*/30 * * * *", timezone="Europe/Berlin", overlap="skip")
    at, before = ASKED - HOUR, ASKED - 2 * HOUR
    reason = f"overlap: its run due {before.isoformat()} has not ended, policy skip"
    write(store, RunModel, run(entry, at, state="skipped", reason=reason))
    said = store.explain("skips", at, timezone="Asia/Tokyo").sentences
    there = at.astimezone(zone("Asia/Tokyo"))
    assert said[0].startswith(f"The occurrence of 'skips' at {there:%Y-%m-%d %H:%M} Asia/Tokyo (")
    assert " Europe/Berlin) was skipped." in said[0]
    earlier = before.astimezone(zone("Asia/Tokyo"))
    assert f"its run due {earlier:%Y-%m-%d %H:%M} Asia/Tokyo (" in said[1]
    assert "+00:00" not in " ".join(said)
    assert store.runs("skips")[0].reason == reason
    with pytest.raises(ScheduleError, match="Asia/Tokio"):
        store.explain("skips", timezone="Asia/Tokio")


def test_an_hour_that_is_shown_twice(scene: Scene) -> None:
    """Of an instant in the hour that a clock repeats, the offset is told."""
    wording = Wording("Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=timezone.utc))
    first = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    assert wording.moment(first) == "02:30:00+02:00"
    assert wording.moment(first + HOUR) == "02:30:00+01:00"
    assert wording.moment(first + 2 * HOUR) == "03:30:00"
    assert wording.when(first) == "2026-10-25 02:30 Europe/Berlin (00:30 UTC)"


def test_an_occurrence_is_found_by_its_second(scene: Scene) -> None:
    """An instant to the second is the occurrence due within it; an exact one is only itself."""
    store = scene.store
    entry = store.add("a", "t", "@daily")
    at = (ASKED - HOUR).replace(microsecond=250_000)
    write(store, RunModel, run(entry, at, state="succeeded"))
    assert store.explain("a", at.replace(microsecond=0)).verdict == "ran"
    assert store.explain("a", at).verdict == "ran"
    assert store.explain("a", at.replace(microsecond=1)).run is None


def test_other_schedules_are_told(scene: Scene) -> None:
    """Intervals, one-shots and rules of each kind, in UTC as elsewhere."""
    store, soon = scene.store, ASKED + HOUR
    store.add("often", "t", 90)
    store.schedule("t", at=soon, name="once")
    store.add("rule", "t", RRule("FREQ=YEARLY;BYMONTH=6;BYMONTHDAY=1;BYHOUR=0", "UTC"))
    said = {name: store.explain(name).sentences for name in ("often", "once", "rule")}
    assert said["often"][0] == "'often' is active: every 1 min 30 s."
    assert said["often"][1] == "'often' is due next at 2026-01-15 02:06:30 UTC, in 1 min 30 s."
    assert said["once"][0] == "'once' is active: once, at 2026-01-15 03:05 UTC."
    assert said["once"][1] == "'once' is due next at 2026-01-15 03:05 UTC, in 1 h."
    assert said["rule"][0].startswith("'rule' is active: rrule 'FREQ=YEARLY;")
    alter(store, "once", state="finished", run_count=1, wake_at=None)
    assert store.explain("once").sentences[0] == "'once' is finished: its only run was sent."
    alter(store, "once", state="missed", run_count=0, wake_at=None)
    assert store.explain("once").sentences[0] == (
        "'once' is missed: its only run was not sent in time."
    )
    alter(store, "rule", state="finished", wake_at=None)
    assert store.explain("rule").sentences[0] == "'rule' is finished: nothing more will be due."


def test_a_removed_entry_is_explained(scene: Scene) -> None:
    """By the audit: who removed or renamed it, and when; a name that never was is an error."""
    scene.store.change("load", new_name="load2")
    assert scene.said() == ["'load' was renamed to 'load2' at 02:05:00, by ann."]
    scene.run(name="load2", state="succeeded")
    scene.store.by("bob").remove("load2")
    found = scene.store.explain("load2")
    assert found.sentences == ["'load2' was removed at 02:05:00, by bob."]
    assert (found.state, found.by, found.since) == ("removed", "bob", ASKED)
    then = scene.store.explain("load2", THREE)
    assert then.sentences[1] == "Its run due then is on record: succeeded."
    assert (then.verdict, scene.store.explain("load2", ASKED).verdict) == ("ran", "removed")
    with pytest.raises(EntryNotFoundError):
        scene.store.explain("lod")


def test_an_explanation_is_facts_too(scene: Scene) -> None:
    """What the sentences say stands in fields, for programs."""
    scene.upstream("extract", state="broken", error="no")
    running(scene)
    found = scene.store.explain("load")
    assert (found.name, found.now, found.state) == ("load", ASKED, "active")
    assert (found.next_due_at, found.beats_alive) == (THREE + DAY, 1)
    assert (found.waits_due_at, found.waits_since) == (THREE, THREE + timedelta(seconds=1))
    [up] = found.waits_for
    assert (up.name, up.on, up.state, up.next_due_at) == ("extract", "success", "broken", None)
    assert [item.state for item in found.unfinished] == ["started"]
    assert [item.due_at for item in found.runs] == [THREE]
    assert (found.at, found.verdict, found.run, found.overdue_since) == (None,) * 4


def test_rows_written_by_hand_are_explained(scene: Scene) -> None:
    """A schedule or zone that can't be read, and options that are none, are no error here."""
    alter(scene.store, "load", spec="nonsense", options=[1], wake_at=None)
    scene.run(sent_at=THREE - HOUR)
    assert "cron 'nonsense'" in scene.said()[0]
    assert scene.store.explain("load").next_due_at is None
    found = scene.store.explain("load", THREE + MINUTE)
    assert found.sentences == ["The schedule of 'load' can't be read."]
    error = "timezone: expected an IANA zone, got 'Mars/Phobos'"
    alter(scene.store, "load", timezone="Mars/Phobos", state="broken", error=error, wake_at=None)
    assert scene.said()[0] == f"'load' is broken: {error}."
    assert scene.said(THREE + MINUTE)[0] == f"The schedule of 'load' can't be read: {error}."


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_instants_that_are_none_are_explained(scene: Scene) -> None:
    """Where a database stores anything, an answer leaves out what can't be read."""
    scene.upstream()
    running(scene)
    scene.run(THREE - HOUR, sent_at=THREE - HOUR)
    retried_at = {"attempt": 3, "state": "failed", "error": "boom"}
    scene.run(**retried_at)
    with scene.store.database.engine.begin() as connection:
        for statement in (
            "UPDATE beatstore_entry SET pending_since = 'x', next_due_at = 'x', created_at = 'x'",
            "UPDATE beatstore_entry SET cursor_at = 'x', start_at = 'x', args = 'x'",
            "UPDATE beatstore_run SET finished_at = 'x', sent_at = 'x', started_at = 'x'",
            "UPDATE beatstore_entry SET wake_at = '1999', updated_at = 'x'",
        ):
            connection.exec_driver_sql(statement)
    assert scene.said()
    assert scene.said(THREE)
    assert scene.said(THREE + MINUTE)
    assert scene.store.status().overdue == 2
    assert scene.store.graph().nodes


# -- an occurrence -----------------------------------------------------------------------

AT = "The occurrence of 'load' at 2026-01-15 03:00 Europe/Berlin (02:00 UTC)"
YESTERDAY = "The occurrence of 'load' at 2026-01-14 03:00 Europe/Berlin (02:00 UTC)"
TOMORROW = "The occurrence of 'load' at 2026-01-16 03:00 Europe/Berlin (02:00 UTC)"


def old(scene: Scene) -> None:
    """The entry has been there for a month."""
    alter(scene.store, "load", created_at=THREE - 30 * DAY, wake_at=THREE + DAY)


def late(scene: Scene) -> None:
    """It waited, and ran four minutes late."""
    times = {"sent_at": THREE + 4 * MINUTE, "finished_at": THREE + 5 * MINUTE}
    scene.run(state="succeeded", reason="waited 3 min 59 s", **times)


def cleared(scene: Scene) -> None:
    """Its record is gone with the others of that age."""
    alter(scene.store, "load", created_at=THREE - 90 * DAY, wake_at=THREE + DAY)


def resumed(scene: Scene) -> None:
    """Paused by ann before, and resumed by bob after."""
    paused(scene)
    scene.clock.set(THREE + 2 * MINUTE)
    scene.store.by("bob").resume("load")
    scene.clock.set(ASKED)


def edited_late(scene: Scene) -> None:
    """No beat had looked when ann edited the schedule."""
    scene.looked(cursor_at=THREE - DAY, wake_at=THREE)
    scene.clock.set(THREE + MINUTE)
    scene.store.change("load", schedule=Cron("0 4 * * *", "Europe/Berlin"))
    scene.clock.set(ASKED)


def edited_before(scene: Scene) -> None:
    """Ann moved it to four o'clock in time."""
    scene.looked(cursor_at=THREE - DAY, wake_at=THREE)
    scene.clock.set(THREE - HOUR)
    scene.store.change("load", schedule=Cron("0 4 * * *", "Europe/Berlin"))
    scene.clock.set(ASKED)


def mended(scene: Scene) -> None:
    """Broken when it was due, and mended by bob since."""
    broken(scene)
    alter(scene.store, "load", cursor_at=THREE - DAY, wake_at=None)
    scene.clock.set(THREE + 2 * MINUTE)
    scene.store.by("bob").resume("load")
    scene.clock.set(ASKED)


def not_begun(scene: Scene) -> None:
    """It starts next week."""
    alter(scene.store, "load", start_at=THREE + 7 * DAY, wake_at=THREE + DAY)


def over(scene: Scene) -> None:
    """It ended an hour before."""
    alter(scene.store, "load", end_at=THREE - HOUR, created_at=THREE - 3 * DAY, wake_at=None)


def clockless(scene: Scene) -> None:
    """It has no schedule; it ran before and after."""
    alter(scene.store, "load", kind="after", spec="", wake_at=None)
    scene.run(THREE - HOUR, state="succeeded")
    scene.run(THREE + MINUTE, state="succeeded")


OCCURRENCES: list[tuple[Callable[[Scene], None], datetime, str, list[str]]] = [
    (
        ran,
        THREE,
        "ran",
        [
            f"{AT} ran.",
            "The run due 03:00:00 succeeded at 03:03:00, sent 2 s late, after 2 min 57 s, "
            "on celery@a.",
        ],
    ),
    (
        late,
        THREE,
        "late",
        [
            f"{AT} ran, 4 min late.",
            "The run due 03:00:00 succeeded at 03:05:00, sent 4 min late.",
            "Its record says: waited 3 min 59 s.",
        ],
    ),
    (
        ran,
        THREE - DAY,
        "failed",
        [
            f"{YESTERDAY} failed.",
            "The run due 2026-01-14 03:00:00 failed at 2026-01-14 03:01:00: ValueError: boom.",
        ],
    ),
    (
        ran,
        THREE - 3 * DAY,
        "missed",
        [
            "The occurrence of 'load' at 2026-01-12 03:00 Europe/Berlin (02:00 UTC) was missed, "
            "together with others.",
            "4 occurrences, from 2026-01-10 03:00:00 to 2026-01-13 03:00:00, were missed: misfire: "
            "first seen 2 h late, grace is 60 s, policy skip.",
        ],
    ),
    (
        folded,
        THREE - DAY,
        "coalesced",
        [
            f"{YESTERDAY} was coalesced into the run due 03:00:00.",
            "The run due 03:00:00 succeeded at 03:05:00, sent 4 min late. It also covers "
            "3 earlier occurrences, from 2026-01-12 03:00:00: misfire: first seen 3 d late, "
            "grace is 60 s, policy coalesce.",
        ],
    ),
    (
        skipped,
        THREE,
        "skipped",
        [
            f"{AT} was skipped.",
            "The occurrence of 03:00:00 was skipped: upstream 'extract' failed.",
        ],
    ),
    (
        retried,
        THREE,
        "retrying",
        [
            f"{AT} failed, and will be retried.",
            "The run due 03:00:00 failed at 03:01:00: ValueError: boom.",
            "Attempt 2 of the run due 03:00:00 will be sent at 03:10:00, in 5 min, "
            "after ValueError: boom.",
        ],
    ),
    (
        running,
        THREE,
        "running",
        [
            f"{AT} is running.",
            "The run due 03:00:00 has been running since 03:00:02 (4 min 58 s), on celery@a.",
        ],
    ),
    (
        silent,
        THREE,
        "sent",
        [
            f"{AT} was sent.",
            "The run due 03:00:00 was sent at 03:00:01 (4 min 59 s ago), "
            "and no worker has reported it.",
            "Perhaps no worker listens to queue 'etl', or the one that took it lacks "
            "beatstore.setup(app).",
            "It has no run_timeout, so it is never marked lost.",
        ],
    ),
    (
        no_setup,
        THREE,
        "sent",
        [
            f"{AT} was sent.",
            "The run due 03:00:00 was sent at 03:00:00 (5 min ago), and no worker has reported it.",
            "Outcomes of sent runs are unknown: no worker has ever reported one; "
            "call beatstore.setup(app) in the module of the Celery app.",
        ],
    ),
    (
        gone_wrong,
        THREE,
        "lost",
        [
            f"{AT} was sent and lost.",
            "The run due 03:00:00 was lost at 03:04:00: worker celery@a stopped sending "
            "heartbeats.",
        ],
    ),
    (
        never,
        THREE - 3 * DAY,
        "not created",
        ["'load' did not exist then: it was added at 2026-01-14 12:00:00, by ann."],
    ),
    (
        never,
        THREE + MINUTE,
        "not an occurrence",
        [
            "2026-01-15 03:01 Europe/Berlin (02:01 UTC) is not an occurrence of 'load' "
            "(cron '0 3 * * *' in Europe/Berlin).",
            "The previous one is 2026-01-15 03:00 Europe/Berlin (02:00 UTC).",
            "The next one is 2026-01-16 03:00 Europe/Berlin (02:00 UTC).",
        ],
    ),
    (
        edited_before,
        THREE,
        "not an occurrence",
        [
            "2026-01-15 03:00 Europe/Berlin (02:00 UTC) is not an occurrence of 'load' "
            "(cron '0 4 * * *' in Europe/Berlin).",
            "It was one (cron '0 3 * * *' in Europe/Berlin) until ann changed the entry at "
            "02:00:00.",
            "The next one is 2026-01-15 04:00 Europe/Berlin (03:00 UTC).",
        ],
    ),
    (
        clockless,
        THREE,
        "not an occurrence",
        [
            "'load' has no schedule: it was not due at 2026-01-15 03:00 Europe/Berlin (02:00 UTC).",
            "The previous one is 2026-01-15 02:00 Europe/Berlin (01:00 UTC).",
            "The next one is 2026-01-15 03:01 Europe/Berlin (02:01 UTC).",
        ],
    ),
    (never, THREE + DAY, "future", [f"{TOMORROW} is still to come, in 23 h 55 min."]),
    (
        cancelled,
        THREE + DAY,
        "future",
        [
            f"{TOMORROW} is still to come, in 23 h 55 min, but will not run while the entry is "
            "cancelled.",
            "'load' is cancelled since 01:00:00, by bob.",
        ],
    ),
    (
        up_never,
        THREE,
        "waiting",
        [
            f"{AT} waits.",
            f"{WAITS} its upstream.",
            f"'extract' must succeed: it has never run; {EXTRACT_NEXT}",
        ],
    ),
    (
        paused,
        THREE,
        "paused",
        [
            f"{AT} did not run.",
            "'load' is paused since 02:50:00, by ann. It sends nothing until store.resume('load').",
        ],
    ),
    (
        resumed,
        THREE,
        "paused",
        [
            f"{AT} did not run: it was paused then, since 02:50:00, by ann. "
            "bob resumed it at 03:02:00."
        ],
    ),
    (
        mended,
        THREE,
        "broken",
        [
            f"{AT} did not run: it was broken then (spec: nonsense). bob resumed it at 03:02:00.",
        ],
    ),
    (
        not_begun,
        THREE,
        "not an occurrence",
        [
            "2026-01-15 03:00 Europe/Berlin (02:00 UTC) is not an occurrence of 'load' "
            "(cron '0 3 * * *' in Europe/Berlin).",
            "It is not due before 2026-01-22 03:00 Europe/Berlin (02:00 UTC).",
            "The next one is 2026-01-22 03:00 Europe/Berlin (02:00 UTC).",
        ],
    ),
    (
        over,
        THREE,
        "not an occurrence",
        [
            "2026-01-15 03:00 Europe/Berlin (02:00 UTC) is not an occurrence of 'load' "
            "(cron '0 3 * * *' in Europe/Berlin).",
            "It is not due after 2026-01-15 02:00 Europe/Berlin (01:00 UTC).",
            "The previous one is 2026-01-14 03:00 Europe/Berlin (02:00 UTC).",
        ],
    ),
    (
        edited_late,
        THREE,
        "passed over",
        [
            f"{AT} did not run: no beat had picked it up when ann changed the entry at 03:01:00, "
            "and a changed entry counts from its change."
        ],
    ),
    (
        overdue,
        THREE,
        "due",
        [
            f"{AT} has been overdue for 5 min: no beat has picked it up.",
            "One beat is alive, but may be busy or stuck: see store.status().",
        ],
    ),
    (
        old,
        THREE,
        "unknown",
        [
            f"{AT} has no record.",
            "Its row was deleted, or the entry was edited without the API.",
        ],
    ),
    (
        cleared,
        THREE - 60 * DAY,
        "unknown",
        [
            "The occurrence of 'load' at 2025-11-16 03:00 Europe/Berlin (02:00 UTC) has no record.",
            "Records are kept for 30 d.",
        ],
    ),
]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("arrange", "at", "verdict", "sentences"),
    OCCURRENCES,
    ids=[f"{arrange.__name__}-{verdict}" for arrange, _, verdict, _ in OCCURRENCES],
)
def test_an_occurrence_is_accounted_for(
    scene: Scene, arrange: Callable[[Scene], None], at: datetime, verdict: str, sentences: list[str]
) -> None:
    """What became of 03:00, in a word and in sentences."""
    arrange(scene)
    found = scene.store.explain("load", at)
    assert found.sentences == sentences
    assert (found.verdict, found.at) == (verdict, at)


def test_an_occurrence_is_asked_for_by_an_aware_instant(scene: Scene) -> None:
    """In any zone; a naive one is refused."""
    berlin = timezone(timedelta(hours=1))
    assert scene.store.explain("load", THREE.astimezone(berlin)).at == THREE
    with pytest.raises(InvalidEntryError, match="at: expected"):
        scene.store.explain("load", datetime(2026, 1, 15, 3))


@pytest.mark.parametrize("missed_by", ["beat", "upstream"])
def test_the_real_planner_is_explained(
    migrated_url: str, clock: ManualClock, missed_by: str
) -> None:
    """What beat itself wrote is told like what these tests write."""
    store = Store(migrated_url, clock=clock)
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    clock.set(THREE - HOUR)
    queue.upkeep.introduce(host="h", pid=1, version="0", tzdata="x")
    store.add("extract", "t", Cron("0 2 * * *", "Europe/Berlin"))
    after = ["extract"] if missed_by == "upstream" else []
    store.add("load", "t", NIGHTLY, after=after, grace=60)
    clock.set(THREE if missed_by == "upstream" else THREE + 2 * MINUTE)
    queue.settle([Outcome(claim, "sent") for claim in queue.plan(clock.now())[0]])
    clock.advance(10)
    found = store.explain("load", THREE)
    queue.close()
    store.close()
    if missed_by == "upstream":
        assert found.verdict == "waiting"
        assert found.sentences[-1].startswith("'extract' must succeed: ")
    else:
        assert (found.verdict, found.sentences[0]) == ("sent", f"{AT} was sent, 2 min late.")

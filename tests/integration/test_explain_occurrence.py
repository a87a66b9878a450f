"""What became of one due time? Each verdict, and what is said of it, on every database."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from beatstore import Cron, Store
from beatstore.clock import ManualClock
from beatstore.errors import InvalidEntryError
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.nights import (
    ASKED,
    AT,
    EXTRACT_NEXT,
    NIGHTLY,
    THREE,
    WAITS,
    Night,
    broken,
    cancelled,
    folded,
    gone_wrong,
    never,
    no_setup,
    overdue,
    paused,
    ran,
    retried,
    running,
    silent,
    skipped,
    up_never,
)
from tests.support.written import DAY, HOUR, MINUTE, alter

YESTERDAY = "The occurrence of 'load' at 2026-01-14 03:00 Europe/Berlin (02:00 UTC)"
TOMORROW = "The occurrence of 'load' at 2026-01-16 03:00 Europe/Berlin (02:00 UTC)"


def old(night: Night) -> None:
    """The entry has been there for a month."""
    alter(night.store, "load", created_at=THREE - 30 * DAY, wake_at=THREE + DAY)


def late(night: Night) -> None:
    """It waited, and ran four minutes late."""
    times = {"sent_at": THREE + 4 * MINUTE, "finished_at": THREE + 5 * MINUTE}
    night.run(state="succeeded", reason="waited 3 min 59 s", **times)


def cleared(night: Night) -> None:
    """Its record is gone with the others of that age."""
    alter(night.store, "load", created_at=THREE - 90 * DAY, wake_at=THREE + DAY)


def resumed(night: Night) -> None:
    """Paused by ann before, and resumed by bob after."""
    paused(night)
    night.clock.set(THREE + 2 * MINUTE)
    night.store.by("bob").resume("load")
    night.clock.set(ASKED)


def paused_late(night: Night) -> None:
    """No beat had looked when ann paused it."""
    night.looked(cursor_at=THREE - DAY, wake_at=THREE)
    night.clock.set(THREE + MINUTE)
    night.store.by("ann").pause("load")
    night.clock.set(ASKED)


def edited_late(night: Night) -> None:
    """No beat had looked when ann edited the schedule."""
    night.looked(cursor_at=THREE - DAY, wake_at=THREE)
    night.clock.set(THREE + MINUTE)
    night.store.change("load", schedule=Cron("0 4 * * *", "Europe/Berlin"))
    night.clock.set(ASKED)


def edited_before(night: Night) -> None:
    """Ann moved it to four o'clock in time."""
    night.looked(cursor_at=THREE - DAY, wake_at=THREE)
    night.clock.set(THREE - HOUR)
    night.store.change("load", schedule=Cron("0 4 * * *", "Europe/Berlin"))
    night.clock.set(ASKED)


def mended(night: Night) -> None:
    """Broken when it was due, and mended by bob since."""
    broken(night)
    alter(night.store, "load", cursor_at=THREE - DAY, wake_at=None)
    night.clock.set(THREE + 2 * MINUTE)
    night.store.by("bob").resume("load")
    night.clock.set(ASKED)


def not_begun(night: Night) -> None:
    """It starts next week."""
    alter(night.store, "load", start_at=THREE + 7 * DAY, wake_at=THREE + DAY)


def over(night: Night) -> None:
    """It ended an hour before."""
    alter(night.store, "load", end_at=THREE - HOUR, created_at=THREE - 3 * DAY, wake_at=None)


def clockless(night: Night) -> None:
    """It has no schedule; it ran before and after."""
    alter(night.store, "load", kind="after", spec="", wake_at=None)
    night.run(THREE - HOUR, state="succeeded")
    night.run(THREE + MINUTE, state="succeeded")


OCCURRENCES: list[tuple[Callable[[Night], None], datetime, str, list[str]]] = [
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
            "call beatstore.setup(app) in the module of the Celery app, or start a worker.",
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
        paused_late,
        THREE,
        "paused",
        [
            f"{AT} did not run: no beat had picked it up when the entry was paused.",
            "'load' is paused since 03:01:00, by ann. It sends nothing until store.resume('load').",
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
            "Its row was deleted, or the entry was renamed since, or edited without the API.",
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
    night: Night, arrange: Callable[[Night], None], at: datetime, verdict: str, sentences: list[str]
) -> None:
    """What became of 03:00, in a word and in sentences."""
    arrange(night)
    found = night.store.explain("load", at)
    assert found.sentences == sentences
    assert (found.verdict, found.at) == (verdict, at)


def test_an_occurrence_is_asked_for_by_an_aware_instant(night: Night) -> None:
    """In any zone; a naive one is refused."""
    berlin = timezone(timedelta(hours=1))
    assert night.store.explain("load", THREE.astimezone(berlin)).at == THREE
    with pytest.raises(InvalidEntryError, match="at: expected"):
        night.store.explain("load", datetime(2026, 1, 15, 3))


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
    queue.mark([Outcome(claim, "sent") for claim in queue.plan(clock.now())[0]])
    clock.advance(10)
    found = store.explain("load", THREE)
    queue.close()
    store.close()
    if missed_by == "upstream":
        assert found.verdict == "waiting"
        assert found.sentences[-1].startswith("'extract' must succeed: ")
    else:
        assert (found.verdict, found.sentences[0]) == ("sent", f"{AT} was sent, 2 min late.")

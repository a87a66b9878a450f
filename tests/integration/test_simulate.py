"""Stories told in virtual time, as users tell them in tests of their own schedules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore import After, Store, testing
from beatstore.testing import ManualClock, Outcome, Work, simulate
from tests.support.stories import MIDNIGHT, at, diamond, times

UTC = timezone.utc
DAY = timedelta(days=1)


# -- stories, on every database ------------------------------------------------------------


def test_a_diamond_with_a_branch_that_is_retried(migrated_url: str) -> None:
    """`load` runs once a night, when both branches have ended well, however often one was tried."""
    store = Store(migrated_url, clock=ManualClock(MIDNIGHT))
    diamond(store)
    ledger = simulate(
        store,
        DAY,
        outcome={"enrich": ["failed", ConnectionError("away")]},
        duration={"extract": 1800, "clean": 60, "enrich": 120},
    )
    assert [(row.name, f"{row.at:%H:%M}", row.attempt, row.state) for row in ledger] == [
        ("extract", "02:00", 1, "succeeded"),
        ("clean", "02:30", 1, "succeeded"),
        ("enrich", "02:30", 1, "failed"),
        ("enrich", "02:42", 2, "failed"),
        ("enrich", "02:54", 3, "succeeded"),
        ("load", "02:56", 1, "succeeded"),
    ]
    assert ledger[3].error == "ConnectionError: away"
    assert ledger[0].finished_at == at("2:30")
    assert ledger.waiting == ()
    assert store.database.clock is not None
    assert store.database.clock.now() == MIDNIGHT + DAY
    assert {run.state for run in store.runs()} == {"failed", "succeeded"}
    store.close()


def test_a_branch_that_fails_for_good(migrated_url: str) -> None:
    """`load` is left waiting, and the ledger says for whom; the next night is not held up."""
    store = Store(migrated_url, clock=ManualClock(MIDNIGHT))
    diamond(store)
    first = simulate(store, DAY, outcome={"enrich": "failed"})
    assert first.of("load").sent.names == []
    (left,) = first.waiting
    assert (left.name, left.why) == ("load", "waits for 'enrich' to succeed for the same due time")
    second = simulate(store, DAY)
    assert second.names == ["extract", "clean", "enrich", "load"]
    assert [(one.name, one.due_at) for one in second.waiting] == [("load", at("2:00"))]
    store.close()


def test_a_worker_that_dies(migrated_url: str) -> None:
    """A run whose worker says no more is lost after five heartbeats, and tried again."""
    store = Store(migrated_url, clock=ManualClock(MIDNIGHT))
    store.add("job", "a.job", "0 2 * * *", max_retries=1, retry_delay=60)
    store.add("alarm", "an.alarm", after=[After("job", on="failure")])
    ledger = simulate(store, DAY, outcome={"job": ["lost", "lost"]}, duration=600)
    assert [(row.name, row.state, f"{row.at:%H:%M:%S}") for row in ledger] == [
        ("job", "lost", "02:00:00"),
        ("job", "lost", "02:11:50"),
        ("alarm", "succeeded", "02:22:40"),
    ]
    assert ledger[0].finished_at == at("2:10") + timedelta(seconds=50)
    assert "stopped sending heartbeats" in (ledger[0].reason or "")
    store.close()


def test_any_cut_of_time_tells_the_same(migrated_url: str) -> None:
    """Two calls in a row go on where one would have gone, also in the middle of runs."""
    store = Store(migrated_url, clock=ManualClock(MIDNIGHT))
    diamond(store)
    store.add("slow", "a.slow", "*/10 * * * *", overlap="skip", run_timeout=30)

    def fate(work: Work) -> Outcome:
        dies = work.name == "slow" and work.due_at.hour == 2
        return Outcome("lost" if dies else "succeeded", duration=900 if work.name == "slow" else 60)

    ends = [at("1:00"), at("2:00"), at("2:05"), at("2:16"), at("2:20"), at("2:55"), at("4:00")]
    seen = {
        (row.name, row.due_at, row.attempt): row
        for end in ends
        for row in simulate(store, end, outcome=fate)
    }
    store.close()
    whole = testing.store(MIDNIGHT)
    diamond(whole)
    whole.add("slow", "a.slow", "*/10 * * * *", overlap="skip", run_timeout=30)
    expected = simulate(whole, at("4:00"), outcome=fate)
    whole.close()
    assert [tell(row) for row in expected] == [
        tell(row) for row in sorted(seen.values(), key=lambda row: (row.at, row.due_at, row.run_id))
    ]


def tell(row: testing.Row) -> tuple[Any, ...]:
    """Return what must be the same in two simulations."""
    return row.at, row.name, row.due_at, row.attempt, row.state, row.finished_at, row.reason


# -- stories -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "sent", "skipped"),
    [
        ("allow", ["01:00", "02:00", "03:00", "04:00"], []),
        ("skip", ["01:00", "04:00"], ["02:00", "03:00"]),
        ("wait", ["01:00", "03:00", "04:00"], []),
    ],
)
def test_a_run_that_takes_too_long(
    quick: Store, overlap: str, sent: list[str], skipped: list[str]
) -> None:
    """What was due during a run of two and a half hours runs beside it, never, or once after it."""
    quick.add("import", "etl.import_", "0 * * * *", overlap=overlap)
    ledger = simulate(quick, at("4:30"), duration={"import": [9000, 60, 60, 60]})
    assert times(ledger.sent) == sent
    assert [f"{row.due_at:%H:%M}" for row in ledger if row.state == "skipped"] == skipped
    if overlap == "wait":
        assert (ledger[1].at, ledger[1].missed_count) == (at("3:30"), 1)


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [
        ("skip", [("03:00", "missed", 3), ("04:00", "succeeded", 0)]),
        ("coalesce", [("03:00", "succeeded", 2), ("04:00", "succeeded", 0)]),
        (
            "all",
            [
                ("01:00", "succeeded", 0),
                ("02:00", "succeeded", 0),
                ("03:00", "succeeded", 0),
                ("04:00", "succeeded", 0),
            ],
        ),
    ],
)
def test_beat_is_down_for_three_hours(
    quick: Store, misfire: str, expected: list[tuple[str, str, int]]
) -> None:
    """Each misfire policy does with three missed hours what its name says."""
    quick.add("report", "a.report", "0 * * * *", misfire=misfire)
    away = [(at("0:30"), at("3:30"))]
    ledger = simulate(quick, at("4:30"), downtime=away)
    assert [(f"{row.due_at:%H:%M}", row.state, row.missed_count) for row in ledger] == expected
    assert ledger[0].at == at("3:30")


def test_the_night_the_clocks_go_forward(quick: Store) -> None:
    """What is due in the hour that Berlin skips runs once, and what is due every hour each hour."""
    clock = quick.database.clock
    assert isinstance(clock, ManualClock)
    clock.set(datetime(2026, 3, 28, 12, tzinfo=UTC))
    quick.add("nightly", "a.nightly", "30 2 * * *", timezone="Europe/Berlin")
    quick.add("hourly", "an.hourly", "0 * * * *", timezone="Europe/Berlin")
    ledger = simulate(quick, datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert len(ledger.of("nightly")) == 1
    assert ledger.of("nightly")[0].at.day == 29
    assert len(ledger.of("hourly")) == 23


def test_the_night_the_clocks_go_back(quick: Store) -> None:
    """What is due in the hour that Berlin repeats runs once."""
    clock = quick.database.clock
    assert isinstance(clock, ManualClock)
    clock.set(datetime(2026, 10, 24, 12, tzinfo=UTC))
    quick.add("nightly", "a.nightly", "30 2 * * *", timezone="Europe/Berlin")
    ledger = simulate(quick, datetime(2026, 10, 25, 12, tzinfo=UTC))
    assert [row.due_at for row in ledger] == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


def test_a_week_around_the_end_of_a_month(quick: Store) -> None:
    """The close runs once, on the last day, when that day's import is in, and the letter after."""
    quick.add("import", "acc.import_", "0 20 * * *")
    quick.add("close", "acc.close", "0 21 L * *", after=["import"], timezone="Europe/Berlin")
    quick.add("letter", "acc.letter", after=["close"])
    ledger = simulate(quick, at("0:00", 28) + timedelta(days=7), duration={"import": 1800})
    assert len(ledger.of("import")) == 20
    closed = [(row.name, f"{row.at:%d. %H:%M}") for row in ledger.of("close", "letter")]
    assert closed == [("close", "31. 20:00"), ("letter", "31. 20:00")]


def test_an_upstream_that_fails_ends_the_wait(quick: Store) -> None:
    """With on_upstream_failure="skip" the rest of the pipeline is given up, and the alarm goes."""
    quick.add("extract", "etl.extract", "0 2 * * *")
    give_up = {"on_upstream_failure": "skip"}
    quick.add("clean", "etl.clean", after=[After("extract", **give_up)])  # type: ignore[arg-type]
    quick.add("load", "etl.load", after=[After("clean", **give_up)])  # type: ignore[arg-type]
    quick.add("alarm", "etl.alarm", after=[After("load", on="failure")])
    ledger = simulate(quick, DAY, outcome={"extract": RuntimeError("no disk")})
    assert [(row.name, row.state) for row in ledger] == [
        ("extract", "failed"),
        ("clean", "skipped"),
        ("load", "skipped"),
        ("alarm", "succeeded"),
    ]
    assert ledger.waiting == ()


def test_one_worker_does_one_thing_after_the_other(quick: Store) -> None:
    """With concurrency=1 runs begin when the one before has ended, in the order of sending."""
    for name in ("a", "b", "c"):
        quick.add(name, f"a.{name}", "0 1 * * *")
    ledger = simulate(quick, DAY, duration=60, concurrency=1)
    assert {row.at for row in ledger} == {at("1:00")}
    assert [row.started_at for row in ledger] == [at("1:00"), at("1:01"), at("1:02")]


def test_what_is_under_way_at_the_end(quick: Store) -> None:
    """A run that has not ended is told as started, one that waits for a worker as sent."""
    quick.add("a", "a.a", "0 1 * * *")
    quick.add("b", "a.b", "0 1 * * *")
    ledger = simulate(quick, at("1:30"), duration=3600, concurrency=1)
    assert ledger.states() == {"sent": 1, "started": 1}
    assert ledger[0].started_at == at("1:00")
    later = simulate(quick, at("4:00"), duration=3600, concurrency=1)
    assert [row.finished_at for row in later] == [at("2:00"), at("3:00")]
    assert [row.run_id for row in later] == [row.run_id for row in ledger]


def test_a_retry_that_is_still_to_come_is_left(quick: Store) -> None:
    """The ledger says when it is due, and why."""
    quick.add("a", "a.a", "0 1 * * *", max_retries=1, retry_delay=7200)
    ledger = simulate(quick, at("2:00"), outcome="failed")
    assert ledger.states() == {"failed": 1}
    (left,) = ledger.waiting
    assert (left.name, left.since) == ("a", at("3:00") + timedelta(seconds=1))
    assert left.why.startswith("attempt 2, after: ")


def test_a_broken_entry_is_left(quick: Store) -> None:
    """A row that can't be run is told, with what is wrong with it."""
    from sqlalchemy import text

    quick.add("a", "a.a", "0 1 * * *")
    with quick.database.session() as session:
        session.execute(text("UPDATE beatstore_entry SET spec = '99 99 * * *'"))
    ledger = simulate(quick, DAY)
    assert [left.name for left in ledger.waiting] == ["a"]
    assert ledger.waiting[0].why.startswith("it is broken: ")


def test_two_simulations_tell_the_same() -> None:
    """The ledger is made of the arguments and of nothing else."""
    told = []
    for _ in range(2):
        store = testing.store(MIDNIGHT)
        diamond(store)
        said = simulate(store, 3 * DAY, outcome={"enrich": lambda work: Outcome("lost", 7.3)})
        told.append(str(said))
        store.close()
    assert told[0] == told[1]
    assert "worker simulated stopped sending heartbeats" in told[0]


def test_entries_can_be_edited_meanwhile(quick: Store) -> None:
    """A callable may use the store, as a task may: what it commits counts at the next look."""
    quick.add("a", "a.a", "0 * * * *")

    def stop(work: Work) -> None:
        if work.number == 3:
            quick.pause("a")

    assert len(simulate(quick, DAY, outcome=stop)) == 3


def test_the_store_tells_of_it_too(quick: Store) -> None:
    """Afterwards `status` and `explain` speak of what was simulated as of what has happened."""
    diamond(quick)
    simulate(quick, at("3:00"), outcome={"enrich": "failed"}, duration={"clean": 7200})
    status = quick.status()
    assert len(status.beats) == len(status.workers) == 1
    assert status.warnings == []
    explained = quick.explain("load")
    assert {upstream.name for upstream in explained.waits_for} == {"enrich", "clean"}
    assert explained.beats_alive == 1


def test_a_run_whose_entry_was_removed_ends(quick: Store) -> None:
    """What is under way when its entry is removed goes on, in the next simulation too."""
    quick.add("a", "a.a", "0 1 * * *")
    simulate(quick, at("1:30"), duration=7200)
    quick.remove("a")
    assert [row.finished_at for row in simulate(quick, at("4:00"), duration=7200)] == [at("3:00")]

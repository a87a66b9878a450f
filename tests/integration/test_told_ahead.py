"""What people are told of what comes agrees with what beat then does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from beatstore import After, Store, testing
from beatstore.store.today import today
from beatstore.testing import simulate


def at(hour: int, minute: int = 0, day: int = 15) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=timezone.utc)


@pytest.fixture
def store() -> Iterator[Store]:
    store = testing.store(at(11))
    yield store
    store.close()


def coming(store: Store, day: int) -> tuple[int, ...]:
    """Return how many occurrences are counted on each of three days."""
    found = store.upcoming_counts(start=at(0, day=day), until=at(0, day=day + 3), step=86400)
    return found.counts


# -- jitter ------------------------------------------------------------------------------------


def test_what_jitter_puts_off_is_not_overdue(store: Store) -> None:
    """Between its due time and its sending, an occurrence is still to come."""
    store.add("j", "t", "0 12 * * *", jitter=7200, max_runs=1)
    simulate(store, at(12, 5))
    (coming,) = store.upcoming()
    sent = f"is sent at {coming.send_at:%H:%M:%S}"
    answer = store.explain("j", at(12))
    assert (answer.verdict, sent in str(answer)) == ("future", True)
    assert f"'j' was due at 2026-01-15 12:00 UTC, and {sent}" in str(store.explain("j"))
    simulate(store, at(16))
    (run,) = store.runs("j")
    assert run.sent_at is not None
    assert 0 <= (run.sent_at - coming.send_at).total_seconds() < 2
    assert store.explain("j", at(12)).verdict == "ran"


def test_what_jitter_puts_off_is_not_late(store: Store) -> None:
    """The time by which an entry is put off on purpose does not count."""
    store.add("j", "t", "*/5 * * * *", jitter=3600)
    store.add("plain", "t", "*/5 * * * *")
    simulate(store, at(13))
    late = store.status().lateness_p99_s
    assert late is not None
    assert late < 2
    assert sum(one.late for one in store.run_counts(since=at(11), until=at(13), step=600)) == 0
    assert " late" not in str(store.explain("j"))


# -- start and end -----------------------------------------------------------------------------


def test_an_entry_without_a_schedule_says_when_it_starts(store: Store) -> None:
    """It waits for its start, whatever its upstreams do, and runs then."""
    store.add("up", "t", "0 12 * * *")
    store.add("x", "t", after=["up"], start_at=at(18))
    simulate(store, at(13))
    assert "It does not run before its start, 2026-01-15 18:00 UTC." in str(store.explain("x"))
    simulate(store, at(18, 1))
    assert len(store.runs("x")) == 1


@pytest.mark.parametrize("began", [False, True])
def test_an_entry_without_a_schedule_is_finished_after_its_end(store: Store, began: bool) -> None:
    """Beat looks at it then, even if nothing else wakes it."""
    store.add("a", "t", "0 12 * * *")
    store.add("b", "t", "0 20 * * *")
    edges = [After("a", align="latest"), After("b", align="latest")] if began else ["b"]
    store.add("z", "t", after=edges, end_at=at(18))
    simulate(store, at(17))
    assert store.get("z").state == "active"
    simulate(store, at(18, 1))
    assert store.get("z").state == "finished"
    simulate(store, at(21))
    assert not store.runs("z")


# -- max_runs ----------------------------------------------------------------------------------


def test_nothing_is_told_after_the_last_run(store: Store) -> None:
    """The runs that come before the time in question are counted against `max_runs`."""
    store.add("m", "t", "0 12 * * *", max_runs=2)
    assert store.preview("m", 3, at(0, day=16)) == [at(12, day=16)]
    assert [one.due_at for one in store.upcoming(start=at(0, day=16))] == [at(12, day=16)]
    assert coming(store, 16) == (1, 0, 0)
    assert coming(store, 17) == (0, 0, 0)
    assert store.preview("m", 3, at(0, day=17)) == []
    assert store.explain("m", at(12, day=16)).verdict == "future"
    assert "max_runs ends the entry before it" in str(store.explain("m", at(12, day=17)))


@pytest.mark.parametrize("held", ["upstream", "jitter"])
def test_what_waits_uses_up_a_run(store: Store, held: str) -> None:
    """An occurrence that is due, and waits or is put off, is the last one."""
    store.add("up", "t", "0 20 * * *")
    how = {"after": ["up"]} if held == "upstream" else {"jitter": 36000}
    store.add("w", "t", "0 12 * * *", max_runs=1, **how)  # type: ignore[arg-type]
    simulate(store, at(12, 1))
    assert store.preview("w", 2) == []
    assert coming(store, 16) == (1, 1, 1)  # of its upstream
    assert "2026-01-16 12:00" not in str(store.explain("w"))


def test_the_load_of_a_day_counts_each_run_once(store: Store) -> None:
    """A run that comes in the first steps is not counted in the others again."""
    store.add("ten", "t", "*/10 * * * *", max_runs=1)
    with store.reading() as session:
        load = today(store, session).load
    assert sum(step.coming for step in load.steps) <= 1


def test_nothing_is_missed_after_the_last_run(store: Store) -> None:
    """`max_runs` ends the entry; what would have been due later is no occurrence."""
    store.add("a", "t", "* * * * *", misfire="all", max_runs=2)
    simulate(store, at(23), downtime=[(at(11), at(21))])
    assert [run.state for run in store.runs("a")] == ["succeeded"] * 2
    assert store.get("a").state == "finished"


# -- what is overdue ---------------------------------------------------------------------------


@pytest.mark.parametrize("misfire", ["all", "skip", "coalesce"])
def test_what_is_overdue_is_told_as_it_is_sent(store: Store, misfire: str) -> None:
    """Each that the policy will send, and none that it will not."""
    store.add("a", "t", "0 * * * *", misfire=misfire, max_runs=3, grace=900)  # type: ignore[arg-type]
    simulate(store, at(14, 5), downtime=[(at(11), at(14, 5))])
    told = [one.due_at for one in store.upcoming(limit=10)]
    simulate(store, at(20))
    sent = [run.first_missed_at or run.due_at for run in store.runs("a") if run.sent_at]
    assert told == sent[::-1]


# -- states ------------------------------------------------------------------------------------


def test_a_retry_of_a_paused_entry_is_told_as_cancelled(store: Store) -> None:
    """The answer about the occurrence agrees with the one about the entry."""
    store.add("r", "t", "0 12 * * *", max_retries=2, retry_delay=7200)
    simulate(store, at(12, 30), outcome={"r": "failed"})
    store.pause("r")
    assert "failed, and its retry will be cancelled." in str(store.explain("r", at(12)))
    store.resume("r")
    assert "failed, and will be retried." in str(store.explain("r", at(12)))


def test_the_zone_is_that_of_the_entry(store: Store) -> None:
    """A rule is told in the zone in which it is read, whatever zone was asked for."""
    store.add("z", "t", "0 9 * * *")
    with store.database.session() as session:
        session.connection().exec_driver_sql("UPDATE beatstore_entry SET timezone = NULL")
    assert "cron '0 9 * * *' in UTC" in str(store.explain("z", timezone="Asia/Tokyo"))

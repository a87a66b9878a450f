"""What beat does beside sending: old rows, runs that nobody reports on, forgotten entries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from beatstore import Every, ManualClock, Once, Run
from beatstore.beat.scheduler import DBScheduler
from tests.support.brokers import Broker
from tests.support.harness.inprocess import at_clock, note_app, running, tick_until_idle
from tests.support.marks import on_sqlite
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.fixture
def asking(
    memory_broker: Broker, migrated_url: str, clock: ManualClock, tmp_path: Path
) -> Iterator[DBScheduler]:
    """Return a beat that has a result backend."""
    backend = f"file://{tmp_path}"
    app = note_app(
        memory_broker,
        migrated_url,
        result_backend=backend,
        result_expires=None,
        beatstore_listen=False,
    )
    with running(app) as scheduler:
        yield at_clock(scheduler, clock)


def ended(scheduler: DBScheduler) -> Run:
    """Tick until the one run there is has ended, and return it."""

    def run() -> Run | None:
        scheduler.tick()
        [found] = scheduler.store.runs()
        return found if found.state not in ("claimed", "sent", "started") else None

    found = wait_until(run, 10, "the end of the run")
    assert found is not None
    return found


def send_one(scheduler: DBScheduler) -> Run:
    """Send a one-shot that is to be heard of within ten seconds."""
    scheduler.store.schedule("tests.note", at=NOON, run_timeout=10)
    tick_until_idle(scheduler)
    [run] = scheduler.store.runs()
    assert run.state == "sent"
    return run


def test_old_rows_are_cleared_in_the_breaks(
    scheduler: DBScheduler, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat with nothing to send deletes what is over for longer than the retention."""
    monkeypatch.setattr("beatstore.beat.housekeeping.PRUNE_PAUSE_S", 0.0)
    for number in range(3):
        scheduler.store.add(f"once-{number}", "tests.note", Once(NOON + timedelta(seconds=number)))
    scheduler.store.add("daily", "tests.note", Every(86400, NOON + timedelta(seconds=5)))
    clock.advance(10)
    tick_until_idle(scheduler)
    assert len(scheduler.store.runs()) == 4
    clock.advance(40 * 86400)
    tick_until_idle(scheduler)
    scheduler.housekeeping._prune_due = 0.0
    for _ in range(6):
        scheduler.tick()
    assert [entry.name for entry in scheduler.store.entries()] == ["daily"]
    assert [run.entry_name for run in scheduler.store.runs()] == ["daily"]


def test_the_status_says_how_a_beat_sends(scheduler: DBScheduler, clock: ManualClock) -> None:
    """Each heartbeat tells on which step the latest batch was sent, and why on no higher one."""
    scheduler.tick()
    assert [beat.step for beat in scheduler.store.status().beats] == [None]
    send_one(scheduler)
    scheduler.housekeeping._heartbeat_due = 0.0
    scheduler.tick()
    [beat] = scheduler.store.status().beats
    expected = "the broker is neither Redis nor RabbitMQ, but memory"
    assert beat.step == f"hooks: by apply_async for each message, since {expected}"


def test_a_run_nobody_knows_of_is_lost(
    scheduler: DBScheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no result backend, a run that goes unreported for so long is lost."""
    send_one(scheduler)
    clock.advance(9)
    scheduler.tick()
    assert scheduler.store.runs()[0].state == "sent"
    clock.advance(2)
    with caplog.at_level(logging.WARNING, logger="beatstore"):
        run = ended(scheduler)
    assert (run.state, run.reason) == ("lost", "no worker reported it within 11 s of sending")
    assert "is lost" in caplog.text


@on_sqlite
@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [
        ("SUCCESS", 3, ("succeeded", None)),
        ("FAILURE", ValueError("no"), ("failed", "ValueError: no")),
        ("REVOKED", None, ("cancelled", None)),
        (None, None, ("lost", "no worker reported it within 11 s of sending")),
    ],
)
def test_the_result_backend_is_asked_first(
    asking: DBScheduler,
    clock: ManualClock,
    status: str | None,
    result: Any,
    expected: tuple[str, str | None],
) -> None:
    """What the result backend knows of an unreported run is believed."""
    run = send_one(asking)
    app: Celery = asking.app
    if status:
        app.backend.store_result(run.task_id, result, status)
    clock.advance(11)
    run = ended(asking)
    assert (run.state, run.error) == expected


@on_sqlite
def test_a_backend_that_is_away_makes_nothing_lost(
    asking: DBScheduler, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the result backend can't say, the run is left as it is, and asked after again."""
    run = send_one(asking)
    asked: list[str] = []

    def away(self: Any, task_id: str) -> Any:
        asked.append(task_id)
        raise ConnectionError("the backend is away")

    with monkeypatch.context() as patch:
        patch.setattr(type(asking.app.backend), "get_task_meta", away)
        clock.advance(11)
        wait_until(lambda: (asking.tick(), asked)[1], 10, "the question")
        assert asking.store.runs()[0].state == "sent"
    asking.app.backend.store_result(run.task_id, None, "SUCCESS")
    clock.advance(61)
    assert ended(asking).state == "succeeded"

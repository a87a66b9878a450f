"""A beat's own row, and what beats notice of the zones, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import delete, text

from beatstore import Cron, Once, Store
from beatstore.clock import ManualClock
from beatstore.models import BeatModel
from beatstore.tick.beats import BeatFigures
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import MakeQueue, plan
from tests.support.written import NOON

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]


def test_a_beat_is_known_by_its_heartbeat(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A beat writes its row, and other zone data than the last beat's is noticed."""
    assert queue.upkeep.introduce(host="h", pid=7, version="1", tzdata="2026a") is False
    (beat,) = store.status().beats
    assert (beat.host, beat.pid, beat.alive) == ("h", 7, True)
    clock.advance(3600)
    assert store.status().beats[0].alive is False


def test_other_zone_data_is_noticed_at_start(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A beat that starts under other zone data than the last one learns so."""
    make_queue().upkeep.introduce(host="h", pid=7, version="1", tzdata="2026a")
    clock.advance(1)
    assert make_queue().upkeep.introduce(host="h", pid=8, version="1", tzdata="2026a") is False
    clock.advance(1)
    assert make_queue().upkeep.introduce(host="h", pid=9, version="1", tzdata="2026b") is True


def test_other_zone_data_is_noticed_after_an_orderly_end(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """Whoever upgrades stops beat in order first: what it knew of the zones is still on record."""
    stopped = make_queue()
    stopped.upkeep.introduce(host="h", pid=7, version="1", tzdata="2026a")
    stopped.upkeep.withdraw()
    clock.advance(90_000)
    assert make_queue().upkeep.introduce(host="h", pid=8, version="1", tzdata="2026b") is True


def test_replanning_looks_at_entries_with_a_zone_again(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """After a change of zone data cached due times are made anew, in batches; nothing fires."""
    for number in range(5):
        store.add(f"e{number}", "t", Cron("0 9 * * *", "Europe/Berlin"))
    store.add("once", "t", Once(NOON + timedelta(days=1)))
    plan(queue)
    with store.database.session() as session:
        session.execute(text("UPDATE beatstore_entry SET next_due_at = NULL, wake_at = wake_at"))
    after: int | None = 0
    rounds = 0
    while after is not None:
        after = queue.upkeep.replan_zones(after, limit=2)
        rounds += 1
    assert rounds == 4
    assert plan(queue) == []
    assert store.get("e4").next_due_at == datetime(2026, 1, 16, 8, 0, tzinfo=timezone.utc)


# -- tries, expiry, and many outcomes ------------------------------------------------------


def test_a_beat_whose_row_was_deleted_knows(store: Store, queue: Queue) -> None:
    """A heartbeat says whether there was a row to write it to."""
    queue.upkeep.introduce(host="h", pid=1, version="1", tzdata="2026a")
    assert queue.upkeep.heartbeat(BeatFigures(None, 0, 0))
    with store.database.engine.begin() as connection:
        connection.execute(delete(BeatModel))
    assert not queue.upkeep.heartbeat(BeatFigures(None, 0, 0))

"""On PostgreSQL plain edits have the time of their statement; triggers have the clock's."""

from __future__ import annotations

import re
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from beatstore import Cron, Once, Store
from beatstore.database.functions import db_now
from beatstore.database.tables import ENTRY
from beatstore.tick import complete
from beatstore.tick.claims import Ending
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import plan, sent, sweep
from tests.support.marks import on_postgresql
from tests.support.wait import wait_until

pytestmark = [pytest.mark.every_database, on_postgresql]

#: Functions whose value may change within a statement. Citus refuses an UPDATE that has one.
VOLATILE = re.compile(r"clock_timestamp|random\(|gen_random_uuid|nextval", re.IGNORECASE)


def test_no_edit_is_volatile(store: Store, queue: Queue) -> None:
    """No statement that changes rows has a function whose value may change within it."""
    edits: list[str] = []

    @sa.event.listens_for(store.database.engine, "before_cursor_execute")
    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(("UPDATE", "INSERT", "DELETE")):
            edits.append(statement)

    store.add("up", "t", Cron("0 3 * * *"), tags=["x"])
    store.add("down", "t", after=["up"])
    store.add("once", "t", Once(store.now()))
    store.change("up", schedule=Cron("0 4 * * *"), tags=["y"])
    store.pause("up")
    store.resume("up")
    store.trigger("up")
    store.unlink("down", "up")
    claims = plan(queue)
    claims += sweep(queue)
    queue.mark(sent(claims))
    ended = [Ending(claim.run_id, claim.task_id, "succeeded") for claim in claims]
    complete.finish_kept(queue._kept, ended)
    store.cancel("up")
    assert {claim.name for claim in claims} == {"up", "once"}
    assert len([edit for edit in edits if "statement_timestamp" in edit]) > 5
    assert [edit for edit in edits if VOLATILE.search(edit)] == []


def test_time_goes_on_within_a_transaction(store: Store) -> None:
    """The time within a caller's long transaction is that of each statement, not of its start."""
    with Session(store.database.engine) as session:
        begin = session.scalar(sa.select(db_now()))
        session.execute(sa.text("SELECT pg_sleep(0.2)"))
        end = session.scalar(sa.select(db_now()))
    assert begin is not None
    assert end is not None
    assert end - begin >= timedelta(seconds=0.2)


def test_an_edit_that_waited_does_not_turn_the_cursor_back(store: Store) -> None:
    """An edit by plain SQL that waited for a beat has the time of after it, not of before it."""
    store.add("e", "t", Cron("* * * * *"))
    edited = threading.Thread(target=_edit, args=(store,))
    with store.database.engine.begin() as beat:
        beat.execute(sa.select(ENTRY.c.id).with_for_update())
        edited.start()
        wait_until(lambda: _waiting(store), 30, "the edit does not wait for the row")
        time.sleep(0.05)
        cursor_at = beat.scalar(sa.select(db_now()))
        beat.execute(sa.update(ENTRY).values(cursor_at=cursor_at, wake_at=cursor_at))
    edited.join()
    assert cursor_at is not None
    found = store.get("e").cursor_at
    assert found is not None
    assert found > cursor_at


def _edit(store: Store) -> None:
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE beatstore_entry SET spec = '0 3 * * *'")


def _waiting(store: Store) -> bool:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with store.database.engine.connect() as connection:
        found = connection.exec_driver_sql(f"{asked} AND wait_event_type = 'Lock'").scalar()
    return bool(found)

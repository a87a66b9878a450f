"""What users have edited, paused or cancelled of the entries that code declares."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from beatstore import Declared, Every, Store
from tests.support.harness.play import NOON, Play
from tests.support.synced import NIGHTLY, one, sync

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("edit", "code", "field"),
    [
        ({"schedule": "0 5 * * *"}, {"schedule": "0 4 * * *"}, "schedule"),
        ({"timezone": "Asia/Tokyo"}, {"timezone": "Europe/Berlin"}, "timezone"),
        ({"args": [2]}, {"args": [3]}, "args"),
        ({"args": [True]}, {"args": [3]}, "args"),
        ({"kwargs": {"a": 2}}, {"kwargs": {"a": 3}}, "kwargs"),
        ({"options": {"queue": "mine"}}, {"options": {"queue": "theirs"}}, "options"),
        ({"task": "mine"}, {"task": "theirs"}, "task"),
        ({"grace": 2}, {"grace": 3}, "grace"),
        ({"misfire": "all"}, {"misfire": "skip"}, "misfire"),
        ({"overlap": "skip"}, {"overlap": "wait"}, "overlap"),
        ({"max_retries": 2}, {"max_retries": 3}, "max_retries"),
        ({"end_at": NOON + timedelta(days=9)}, {"end_at": NOON + timedelta(days=8)}, "end_at"),
        ({"tags": ["mine"]}, {"tags": ["theirs"]}, "tags"),
        ({"after": ["up"]}, {"after": ["down"]}, "after"),
        ({"description": "mine"}, {"description": "theirs"}, "description"),
    ],
)
def test_a_users_edit_stays(
    store: Store, edit: dict[str, Any], code: dict[str, Any], field: str
) -> None:
    """A field that was edited keeps the edit when code changes it, and the report says so."""
    base = {"task": "t", "schedule": NIGHTLY, "args": [1]}
    others = [one("up"), one("down")]
    sync(store, Declared("a", **base), *others)
    store.change("a", **edit)
    assert (store.get("a").edited, store.get("up").edited) == ((field,), ())
    kept = sync(store, Declared("a", **base), *others)
    assert (kept.unchanged, kept.kept) == (("a", "down", "up"), {"a": (field,)})

    # Code changes that field, and another one.
    was = _seen(store, field)
    changed = {**base, "run_timeout": 7, **code}
    report = sync(store, Declared("a", **changed), *others)
    assert (report.updated, report.kept) == (("a",), {"a": (field,)})
    assert store.get("a").run_timeout_s == 7
    assert _seen(store, field) == was
    assert sync(store, Declared("a", **changed), *others).unchanged == ("a", "down", "up")

    # The user takes the code's value: that ends it, and the field follows the code again.
    store.change("a", **code)
    assert store.get("a").edited == ()
    assert sync(store, Declared("a", **base), *others).updated == ("a",)
    assert store.get("a").edited == ()


def _seen(store: Store, field: str) -> Any:
    columns = {"schedule": "spec", "grace": "grace_s"}
    if field == "tags":
        return store.get("a").tags
    if field == "after":
        return [edge.upstream for edge in store.graph(name="a").edges]
    return getattr(store.get("a"), columns.get(field, field))


def test_an_edit_by_sql_stays_too(store: Store) -> None:
    """What was edited past the API is an edit like any other."""
    sync(store, one())
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_entry SET spec = '0 5 * * *' WHERE name = 'a'"))
    assert sync(store, one()).kept == {"a": ("schedule",)}
    assert sync(store, one(schedule="0 6 * * *")).kept == {"a": ("schedule",)}
    assert store.get("a").spec == "0 5 * * *"


def test_when_it_is_due_is_one_thing(store: Store) -> None:
    """A schedule that was edited is not mixed with a zone, or a start, of the code's next one."""
    sync(store, one())
    store.change("a", timezone="Asia/Tokyo")
    start = NOON + timedelta(days=3)
    report = sync(store, one(schedule=Every(3600), start_at=start, timezone="Europe/Berlin"))
    assert report.kept == {"a": ("schedule", "timezone", "start_at")}
    entry = store.get("a")
    assert (entry.kind, entry.timezone, entry.start_at) == ("cron", "Asia/Tokyo", None)


def test_a_pause_stays_whatever_the_code_does(play: Play) -> None:
    """A paused entry stays paused through updates of its code, and says so."""
    store = play.store
    sync(store, one("a", "0 13 * * *"))
    store.pause("a")
    for given in (one("a", "0 13 * * *"), one("a", "0 14 * * *"), one("a", "0 14 * * *", grace=1)):
        assert sync(store, given).kept == {"a": ("state",)}
        assert store.get("a").state == "paused"
    assert play.at("15:00") == []
    store.resume("a")
    assert sync(store, one("a", "0 14 * * *", grace=1)).kept == {}


def test_code_pauses_and_resumes(store: Store) -> None:
    """`paused=True` in code pauses, its end resumes; one that a user resumed stays active."""
    sync(store, one(paused=True))
    assert store.get("a").state == "paused"
    assert sync(store, one()).updated == ("a",)
    assert (store.get("a").state, store.get("a").wake_at is None) == ("active", False)
    sync(store, one(paused=True))
    assert store.get("a").state == "paused"
    store.resume("a")
    assert sync(store, one(paused=True)).kept == {"a": ("state",)}
    assert sync(store, one(paused=True, schedule="0 3 * * *")).kept == {"a": ("state",)}
    assert store.get("a").state == "active"


def test_a_cancelled_entry_stays_cancelled(play: Play) -> None:
    """What a user cancelled is not put back by a sync, even where its schedule changes."""
    store = play.store
    sync(store, one("a", "0 13 * * *"))
    store.cancel("a")
    report = sync(store, one("a", "0 14 * * *", args=[7]))
    assert (report.updated, report.kept) == (("a",), {"a": ("state",)})
    entry = store.get("a")
    assert (entry.state, entry.spec, entry.args) == ("cancelled", "0 14 * * *", [7])
    assert play.at("15:00") == []
    assert store.get("a").state == "cancelled"


def test_a_finished_entry_stays_so_until_its_schedule_changes(play: Play) -> None:
    """A one-shot that has run does not run again; with another time in code it does, once."""
    store = play.store
    sync(store, one("a", NOON + timedelta(hours=1)))
    assert play.at("13:00") == ["a"]
    assert sync(store, one("a", NOON + timedelta(hours=1))).unchanged == ("a",)
    assert sync(store, one("a", NOON + timedelta(hours=1), grace=5)).updated == ("a",)
    assert (store.get("a").state, play.at("13:30")) == ("finished", [])
    sync(store, one("a", NOON + timedelta(hours=2), grace=5))
    assert (play.at("13:59"), play.at("14:00"), play.at("15:00")) == ([], ["a"], [])
    sync(store, one("a", NOON + timedelta(hours=4), paused=True))
    assert (store.get("a").state, play.at("17:00")) == ("paused", [])


def test_a_finished_one_shot_is_kept_while_code_declares_it(play: Play) -> None:
    """Clearing leaves it, since the next sync would make it anew and run it once more."""
    store = play.store
    sync(store, one("a", NOON + timedelta(hours=1)), one("b", NOON + timedelta(hours=1)))
    assert sorted(play.at("13:00")) == ["a", "b"]
    play.end("a"), play.end("b")
    sync(store, one("a", NOON + timedelta(hours=1)))
    play.clock.set(NOON + timedelta(days=99))
    store.prune(86400)
    assert [entry.name for entry in store.entries()] == ["a"]
    assert sync(store, one("a", NOON + timedelta(hours=1))).unchanged == ("a",)


def test_a_broken_entry_is_mended_by_its_code(store: Store) -> None:
    """What code changes of a broken entry puts it back into service."""
    sync(store, one())
    with store.database.engine.begin() as connection:
        spoil = "UPDATE beatstore_entry SET state = 'broken', error = 'x', wake_at = NULL"
        connection.execute(text(spoil))
    assert sync(store, one()).unchanged == ("a",)
    assert store.get("a").state == "broken"
    assert sync(store, one(grace=5)).updated == ("a",)
    assert (store.get("a").state, store.get("a").error) == ("active", None)

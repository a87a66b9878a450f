"""Entries that code declares, on every database: what a sync makes of them, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from celery.schedules import crontab, schedule
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from beatstore import After, Declared, Every, Settings, Store
from beatstore.database.tables import ENTRY
from beatstore.definition import edits
from beatstore.errors import InvalidEntryError
from tests.support.play import NOON, Play

UTC = timezone.utc
NIGHTLY = "0 2 * * *"


@pytest.fixture
def store(play: Play) -> Store:
    """Return the store of the play."""
    return play.store


def one(name: str = "a", schedule: Any = NIGHTLY, **given: Any) -> Declared:
    """Return a declaration."""
    return Declared(name, "t", schedule, **given)


def sync(store: Store, *given: Declared, **options: Any) -> Any:
    """Sync what is given as the source `app`."""
    return store.sync(given, source="app", **options)


def verdicts(report: Any) -> dict[str, str]:
    """Return what a report says of each entry."""
    kinds = ("created", "updated", "deactivated", "unchanged", "refused")
    found = [(name, kind) for kind in kinds for name in getattr(report, kind)]
    assert len(found) == len(dict(found)), "an entry is reported once"
    return dict(found)


# -- what code says --------------------------------------------------------------------


def test_what_is_declared_becomes_entries(store: Store) -> None:
    """A declared entry is stored as `add` would store it, with its tags and edges."""
    given = {"args": [1], "kwargs": {"b": 2}, "options": {"queue": "q"}, "grace": 5}
    given |= {"timezone": "Europe/Berlin", "tags": ["y", "x"], "description": "d"}
    report = sync(store, one("b", after=["a", After("c", on="done")], **given), one("a"), one("c"))
    assert report.created == ("a", "b", "c")
    store.add("as_b", "t", NIGHTLY, after=["a", After("c", on="done")], source="app", **given)
    ours, added = store.get("b"), store.get("as_b")
    beside = {"id", "name", "declared", "created_at", "updated_at"}
    for column in set(ENTRY.columns.keys()) - beside:
        assert getattr(ours, column) == getattr(added, column), column
    assert store.get("b").tags == ("x", "y")
    graph = {(edge.upstream, edge.downstream, edge.on) for edge in store.graph(name="b").edges}
    assert graph >= {("a", "b", "success"), ("c", "b", "done")}


def test_a_sync_counts_at_the_next_tick(play: Play) -> None:
    """What was created runs at its time, and what was updated at its new time."""
    sync(play.store, one("a", "0 13 * * *"), one("b", "0 14 * * *"))
    assert play.at("13:00") == ["a"]
    sync(play.store, one("a", "0 13 * * *"), one("b", "30 13 * * *"))
    assert play.at("13:30") == ["b"]


def test_the_same_code_changes_nothing(store: Store) -> None:
    """Synced again, no entry is written, none is audited, and the report says so."""
    given = [
        *(one("a", args=[1], tags=["x"]), one("b", None, after=["a"])),
        *(one("c", timedelta(minutes=5)), one("d", crontab(hour=3)), one("e", schedule(30))),
    ]
    sync(store, *given)
    before = [(entry.version, entry.updated_at) for entry in store.entries()]
    store.database.clock.set(NOON + timedelta(hours=1))  # type: ignore[union-attr]
    again = sync(store, *given)
    assert again.unchanged == ("a", "b", "c", "d", "e")
    assert (again.created, again.updated, again.deactivated, again.kept) == ((), (), (), {})
    assert [(entry.version, entry.updated_at) for entry in store.entries()] == before
    assert len(store.audit()) == 5


def test_unchanged_entries_are_not_read_in_full(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule that is declared as it was is not parsed again, celery's included."""
    given = [one("a"), one("b", crontab(minute="*/5")), one("c", Every(5)), one("d", 60)]
    sync(store, *given)

    def check(*_: object) -> None:
        raise AssertionError("read in full")

    monkeypatch.setattr(edits, "check", check)
    assert sync(store, *given).unchanged == ("a", "b", "c", "d")


def test_an_interval_keeps_its_phase(play: Play) -> None:
    """However often it is synced, an interval counts from when it was first stored."""
    sync(play.store, one("a", Every(600)))
    for minutes in (7, 13, 19):
        play.clock.set(NOON + timedelta(minutes=minutes))
        sync(play.store, one("a", Every(600)), one(f"b{minutes}"))
        play.tick()
    assert [due for due, *_ in play.runs("a")] == ["12:10"]
    assert play.store.preview("a", 1) == [NOON + timedelta(minutes=20)]


def test_what_changed_in_code_is_updated(store: Store) -> None:
    """Each field follows the code where nobody has edited it, and only what changed is written."""
    sync(store, one(args=[1], tags=["x"], grace=5), one("b"))
    report = sync(
        store,
        one(schedule="0 3 * * *", args=[True], tags=["y"], after=["b"], max_retries=2),
        one("b"),
    )
    assert verdicts(report) == {"a": "updated", "b": "unchanged"}
    entry = store.get("a")
    assert (entry.spec, entry.args, entry.grace_s, entry.max_retries) == (
        "0 3 * * *",
        [True],
        None,
        2,
    )
    assert entry.next_due_at == datetime(2026, 1, 16, 3, tzinfo=UTC)
    assert store.get("a").tags == ("y",)
    assert [edge.upstream for edge in store.graph(name="a").edges] == ["b"]
    assert (store.get("a").edited, store.get("b").edited) == ((), ())


def test_other_defaults_change_what_is_stored(store: Store) -> None:
    """What the settings decide for an entry is decided anew when they change."""
    sync(store, one())
    store.settings = Settings(default_timezone="Asia/Tokyo")
    assert sync(store, one()).updated == ("a",)
    assert store.get("a").timezone == "Asia/Tokyo"
    store.settings = Settings(default_timezone="Asia/Tokyo", allowed_tasks=("reports.*",))
    assert "beatstore_allowed_tasks" in sync(store, one()).refused["a"]
    assert store.get("a").state == "active"


# -- what users say --------------------------------------------------------------------


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


# -- leaving and coming back -----------------------------------------------------------


def test_what_left_the_code_is_cancelled(play: Play) -> None:
    """It sends nothing more, runs not sent yet are cancelled, and its history stays."""
    store = play.store
    sync(store, one("a", "0 13 * * *"), one("b"))
    assert play.at("13:00") == ["a"]
    store.trigger("a")
    report = sync(store, one("b"))
    assert verdicts(report) == {"a": "deactivated", "b": "unchanged"}
    assert play.at("14:00") == []
    assert store.get("a").state == "cancelled"
    assert {run.state for run in store.runs("a")} == {"sent", "cancelled"}
    assert verdicts(sync(store, one("b"))) == {"b": "unchanged"}
    assert [row.action for row in store.audit("a")] == ["sync", "trigger", "sync"]


def test_what_comes_back_goes_on(play: Play) -> None:
    """It is in service again from now on, with what users had edited."""
    store = play.store
    sync(store, one("a", "0 * * * *"))
    store.change("a", args=[7])
    assert play.at("13:00") == ["a"]
    sync(store)
    assert play.at("15:30") == []
    report = sync(store, one("a", "0 * * * *"))
    assert (report.updated, report.kept) == (("a",), {"a": ("args",)})
    assert store.get("a").args == [7]
    assert (play.at("15:59"), play.at("16:00")) == ([], ["a"])
    assert play.runs("a") == [("13:00", "sent", 0), ("16:00", "sent", 0)]
    assert sync(store, one("a", "0 * * * *")).unchanged == ("a",)


@pytest.mark.parametrize("schedule", ["0 * * * *", "30 * * * *"])
def test_what_was_paused_comes_back_paused(play: Play, schedule: str) -> None:
    """A pause outlasts the absence of the entry, whatever its schedule is afterwards."""
    store = play.store
    sync(store, one("a", "0 * * * *"))
    store.pause("a")
    sync(store)
    assert store.get("a").state == "cancelled"
    assert sync(store, one("a", schedule)).updated == ("a",)
    entry = store.get("a")
    assert (entry.state, entry.wake_at) == ("paused", None)
    assert play.at("15:30") == []
    store.resume("a")
    assert play.at("16:30") == ["a"]


def test_what_was_cancelled_comes_back_cancelled(store: Store) -> None:
    """A user's cancel outlasts the absence of the entry."""
    sync(store, one())
    store.cancel("a")
    assert sync(store).deactivated == ()
    assert sync(store, one()).kept == {"a": ("state",)}
    assert store.get("a").state == "cancelled"


def test_what_a_user_revived_is_left_alone(store: Store) -> None:
    """An entry that left the code and was put back by hand stays in service."""
    sync(store, one())
    sync(store)
    store.change("a", schedule="0 5 * * *")
    assert store.get("a").state == "active"
    assert sync(store).deactivated == ()
    assert store.get("a").edited == ()
    assert sync(store, one()).kept == {"a": ("schedule",)}
    assert (store.get("a").state, store.get("a").spec) == ("active", "0 5 * * *")


def test_a_passed_one_shot_that_comes_back_is_missed(play: Play) -> None:
    """One-shots are no exception: what fell into the absence is not made up for."""
    sync(play.store, one("a", NOON + timedelta(hours=1)))
    sync(play.store)
    play.clock.set(NOON + timedelta(hours=2))
    sync(play.store, one("a", NOON + timedelta(hours=1)))
    assert play.tick() == []
    assert play.store.get("a").state == "missed"


def test_an_entry_that_waits_comes_back_waiting(play: Play) -> None:
    """What its upstream did while an entry was out of the code starts nothing."""
    store = play.store
    both = one("up", "0 * * * *"), one("a", None, after=["up"])
    sync(store, *both)
    assert play.at("13:00") == ["up"]
    sync(store, both[0])
    assert play.end("up") == []
    sync(store, *both)
    assert play.tick() == []
    assert play.at("14:00") == ["up"]
    assert play.end("up") == ["a"]


def test_a_removed_entry_is_made_anew(store: Store) -> None:
    """To be rid of a declared entry for good takes a pause, a cancel, or an edit of the code."""
    sync(store, one())
    store.remove("a")
    assert sync(store, one()).created == ("a",)


# -- whose row it is -------------------------------------------------------------------


def test_other_sources_are_left_alone(store: Store) -> None:
    """A name that is somebody else's is refused for this one, and their entries stay."""
    store.add("a", "mine", 60)
    store.sync([one("b")], source="other")
    report = sync(store, one("a"), one("b"), one("c"))
    assert report.created == ("c",)
    assert report.refused == {
        "a": "belongs to 'api'; rename one of them, or remove that entry",
        "b": "belongs to 'other'; rename one of them, or remove that entry",
    }
    sync(store)
    assert [store.get(name).state for name in "abc"] == ["active", "active", "cancelled"]
    assert store.get("a").task == "mine"


def test_what_other_code_let_go_of_may_be_taken(store: Store) -> None:
    """An entry that moves to another source goes on there, with its edits and history."""
    store.sync([one("a")], source="old")
    store.change("a", args=[7])
    store.sync([], source="old")
    assert sync(store, one("a")).updated == ("a",)
    entry = store.get("a")
    assert (entry.source, entry.state, entry.args) == ("app", "active", [7])
    assert store.sync([], source="old").deactivated == ()


def test_several_sources_at_once(store: Store) -> None:
    """Entries wait for those of other sources, move between them, and sources disappear."""
    first = {"m:a": ([one("a"), one("b")], {}), "m:c": ([one("c", None, after=["a"])], {})}
    reports = store.sync_all(first, owned="m:")
    assert [verdicts(one) for one in reports] == [
        {"a": "created", "b": "created"},
        {"c": "created"},
    ]
    second = {"m:b": ([one("b"), one("c", None, after=["a"])], {}), "n": ([one("b")], {"x": "no"})}
    told = {report.source: verdicts(report) for report in store.sync_all(second, owned="m:")}
    assert told == {
        "m:b": {"b": "updated", "c": "updated"},
        "n": {"b": "refused", "x": "refused"},
        "m:a": {"a": "deactivated"},
    }
    assert [store.get(name).source for name in "abc"] == ["m:a", "m:b", "m:b"]
    dry = store.sync_all(first, owned="m:", dry_run=True)
    assert [verdicts(one) for one in dry] == [{"a": "updated", "b": "updated"}, {"c": "updated"}]
    assert store.get("b").source == "m:b"


@pytest.mark.parametrize("source", ["api", "", 7])
def test_a_source_is_code(store: Store, source: Any) -> None:
    """What users own can't be synced away."""
    with pytest.raises(InvalidEntryError, match="source"):
        store.sync([], source=source)


# -- what can't be done ----------------------------------------------------------------


def test_what_cant_be_stored_is_refused_alone(store: Store) -> None:
    """Each is reported with its reason, and the others go on."""
    report = sync(
        store,
        *(one("cron", "nonsense"), one("zone", timezone="Nowhere/None"), one("args", args=[{1}])),
        *(one("", NIGHTLY), one("never", None), one("over", end_at=NOON), one("up", after=["no"])),
        *(one("good"), one("waits", after=["up"]), one("own", after=["own"])),
        *(one(7), one("a\0b"), one("\ud800")),  # type: ignore[arg-type]
        refused={"elsewhere": "unreadable"},
    )
    assert report.created == ("good",)
    words = {
        **{"cron": "expression", "zone": "Nowhere/None", "args": "args[0]", "": "name"},
        **{"never": "schedule", "over": "end_at", "up": "no entry is named 'no'", "7": "name"},
        **{"waits": "no entry is named 'up', because it was refused", "own": "first_free=True"},
        **{"elsewhere": "unreadable", repr("a\0b"): "name", repr("\ud800"): "name"},
    }
    assert report.refused.keys() == words.keys()
    for name, word in words.items():
        assert word in report.refused[name], name


def test_a_refused_entry_stays_as_it_is(store: Store) -> None:
    """What code can't say properly any more goes on as it said it last."""
    sync(store, one("a"), one("b"), one("c"), one("d"))
    report = sync(
        store,
        *(one("a", "nonsense"), one("c", after=["d"]), one("d", after=["c"])),
        refused={"b": "unreadable"},
    )
    assert verdicts(report) == dict.fromkeys("abcd", "refused")
    assert [(entry.state, entry.version, entry.spec) for entry in store.entries()] == [
        ("active", 1, NIGHTLY)
    ] * 4


def test_a_cycle_is_refused_with_all_its_members(store: Store) -> None:
    """Edges are judged by what all of them become: a turned edge is none, a new cycle is."""
    sync(store, one("a"), one("b", after=["a"]), one("c"))
    turned = sync(store, one("a", after=["b"]), one("b"), one("c"))
    assert verdicts(turned) == {"a": "updated", "b": "updated", "c": "unchanged"}
    cycle = sync(store, one("a", after=["b"]), one("b", after=["c"]), one("c", after=["a"]))
    assert verdicts(cycle) == {"a": "unchanged", "b": "refused", "c": "refused"}
    assert "'a' would create a dependency cycle: 'a' → 'c' → 'b' → 'a'" in cycle.refused["c"]
    free = After("a", first_free=True)
    fine = sync(store, one("a", after=["b"]), one("b", after=["c"]), one("c", after=[free]))
    assert verdicts(fine) == {"a": "unchanged", "b": "updated", "c": "updated"}


def test_declared_twice(store: Store) -> None:
    """Twice the same is once; two of one name that differ are refused."""
    sync(store, one("b"))
    odd = object()
    report = sync(
        store,
        *(one("a"), one("a"), one("b"), one("b", grace=5), one("c", 60), one("c", 60.0)),
        *(one("d", args=[odd]), one("d", args=[odd])),
    )
    assert (report.created, sorted(report.refused)) == (("a", "c"), ["b", "d"])
    assert report.refused["b"] == "is declared twice, with different options"
    assert store.get("b").grace_s is None


def test_an_edit_that_the_code_leaves_impossible_is_refused(store: Store) -> None:
    """Where only the two together are impossible, the row stays and the reason is given."""
    end = NOON + timedelta(days=30)
    sync(store, one("a", end_at=end), one("b", after=["a"]))
    store.change("a", start_at=NOON + timedelta(days=20))
    store.unlink("b", "a")
    report = sync(store, one("a", end_at=NOON + timedelta(days=10)), one("b", None, after=["a"]))
    assert "start_at" in report.refused["a"]
    assert "removed all" in report.refused["b"]
    assert store.get("a").end_at == end


def test_only_declared_entries_are_taken(store: Store) -> None:
    """What is no `Declared` is a mistake of the caller's."""
    with pytest.raises(InvalidEntryError, match="Declared"):
        sync(store, "a")  # type: ignore[arg-type]


# -- how it is told --------------------------------------------------------------------


def test_a_dry_run_says_the_same_and_writes_nothing(store: Store) -> None:
    """The report of a dry run is that of the sync, and the database is as it was."""
    sync(store, one("a"), one("b"), one("c"), one("d"))
    store.change("c", grace=7)
    now = [one("a", args=[1]), one("c", grace=5), one("d"), one("e", after=["a"]), one("f", "x")]

    def everything() -> list[Any]:
        with store.database.engine.connect() as connection:
            tables = ("entry", "dependency", "audit", "tag", "run")
            return [
                connection.execute(text(f"SELECT * FROM beatstore_{name}")).all() for name in tables
            ]

    before = everything()
    dry = sync(store, *now, dry_run=True)
    assert everything() == before
    assert dry == sync(store, *now)
    assert verdicts(dry) == {
        **{"a": "updated", "b": "deactivated", "c": "unchanged"},
        **{"d": "unchanged", "e": "created", "f": "refused"},
    }


def test_a_report_is_read_by_people(store: Store) -> None:
    """A report prints a line for each entry that needs a look, and counts the others."""
    sync(store, one("a"), one("b"), one("c"))
    store.change("c", grace=7)
    many = [one(f"e{number:02}") for number in range(25)]
    said = str(sync(store, one("a", args=[1]), one("c"), *many, refused={"x": "no"}))
    lines = said.splitlines()
    assert lines[0] == "app: 25 created, 1 updated, 1 deactivated, 1 unchanged"
    assert "  created: e19" in lines
    assert lines[21:] == [
        *("  created: 5 more", "  updated: a", "  deactivated: b"),
        *("  kept as edited: c (grace)", "  refused: x: no"),
    ]


def test_the_audit_tells_what_a_sync_did(store: Store) -> None:
    """Each entry that a sync changed has a row that says how, and by whom."""
    sync(store.by("deploy"), one("a", tags=["x"]), one("b"))
    sync(store.by("deploy"), one("a", "0 3 * * *", tags=["y"], after=["up"]), one("up"))
    told = {(row.entry, row.action, row.actor): (row.before, row.after) for row in store.audit()}
    assert {key[1:] for key in told} == {("sync", "deploy")}
    rows = store.audit("a")
    assert len(rows) == 2
    before, after = rows[0].before, rows[0].after
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert (before["spec"], after["spec"]) == (NIGHTLY, "0 3 * * *")
    assert (before["tags"], after["tags"]) == (["x"], ["y"])
    assert (before["after"], after["after"]) == ([], [{"name": "up"}])
    first = rows[1]
    assert first.before is None
    assert isinstance(first.after, dict)
    assert (first.after["task"], first.after["tags"], first.after["state"]) == (
        "t",
        ["x"],
        "active",
    )
    [gone] = store.audit("b", limit=1)
    assert (gone.before, gone.after) == ({"state": "active"}, {"state": "cancelled"})


def test_a_sync_takes_part_in_the_callers_transaction(store: Store) -> None:
    """Nothing is seen before the caller's commit, and all is undone by their rollback."""
    sync(store, one("old"))
    with Session(store.database.engine) as session:
        report = sync(store, one("a"), session=session)
        assert verdicts(report) == {"a": "created", "old": "deactivated"}
        assert store.get("a", session=session).state == "active"
        session.rollback()
    assert [(entry.name, entry.state) for entry in store.entries()] == [("old", "active")]
    with Session(store.database.engine) as session:
        assert verdicts(sync(store, one("a"), session=session, dry_run=True))["a"] == "created"
        sync(store, one("a"), session=session)
        session.commit()
    assert [(entry.name, entry.state) for entry in store.entries()] == [
        ("a", "active"),
        ("old", "cancelled"),
    ]


def test_lists_that_can_be_read_once(store: Store) -> None:
    """What is declared with generators is stored as with lists."""
    given = Declared("a", "t", NIGHTLY, tags=(tag for tag in "xy"), after=iter(["b"]))
    store.sync((each for each in [given, one("b")]), source="app")
    assert store.get("a").tags == ("x", "y")
    assert [edge.upstream for edge in store.graph(name="a").edges] == ["b"]


def test_statements_do_not_grow_with_the_entries(store: Store) -> None:
    """A sync, and `edited`, ask the database as often about 200 entries as about 20."""

    def count(work: Callable[[], object]) -> int:
        asked: list[str] = []

        def note(*given: Any) -> None:
            asked.append(given[2])

        event.listen(store.database.engine, "before_cursor_execute", note)
        work()
        event.remove(store.database.engine, "before_cursor_execute", note)
        return len(asked)

    counts: dict[int, list[int]] = {}
    for size in (20, 200):
        names = [f"{size}-{number}" for number in range(size)]

        source = f"source{size}"

        def declare(names: list[str] = names, source: str = source, **given: Any) -> None:
            declared = [one(name, tags=["x"], after=["up"], **given) for name in names]
            assert not store.sync(declared, source=source).refused

        store.put("up", "t", 60)
        steps: list[Callable[[], object]] = [
            *(declare, declare, partial(declare, grace=5)),
            *(partial(store.sync, [], source=source), declare),
            partial(store.entries, source=source, limit=1000, include="edited"),
        ]
        counts[size] = [count(step) for step in steps]
    assert counts[20] == counts[200]


def test_edited_names_what_differs(store: Store) -> None:
    """Each of many entries has the fields in which it differs from its code."""
    names = [f"e{number:03}" for number in range(10)]
    sync(store, *(one(name) for name in names))
    for name in names[::2]:
        store.change(name, tags=["x"])
    edited = {entry.name: entry.edited for entry in store.entries(include="edited")}
    assert edited == {name: ("tags",) if name in names[::2] else () for name in names}


def test_rows_that_no_sync_has_seen_are_taken_over(store: Store) -> None:
    """A row of the source without a word of its code follows the code, but for a pause."""
    store.add("a", "old", 60, source="app")
    store.add("b", "old", 60, source="app", paused=True)
    report = sync(store, one("a"), one("b"))
    assert (report.updated, report.kept) == (("a", "b"), {"b": ("state",)})
    assert [(entry.task, entry.state) for entry in store.entries()] == [
        ("t", "active"),
        ("t", "paused"),
    ]


def test_an_entry_that_waits_no_longer_goes_on(play: Play) -> None:
    """Where code drops the edge that an entry waits for, it runs at the next tick."""
    up = one("up", "0 20 * * *")
    sync(play.store, up, one("a", "0 13 * * *", after=["up"]))
    assert play.at("13:00") == []
    sync(play.store, up, one("a", "0 13 * * *"))
    assert play.tick() == ["a"]


def test_an_edge_that_code_adds_waits_from_now(play: Play) -> None:
    """An edge added to an entry that has run waits for the upstream's next completion."""
    up = one("up", "0 * * * *")
    sync(play.store, up, one("a", "5 13-20 * * *"))
    assert play.at("13:00") == ["up"]
    assert play.end("up") == []
    assert play.at("13:05") == ["a"]
    sync(play.store, up, one("a", "5 13-20 * * *", after=["up"]))
    assert play.at("14:00") == ["up"]
    assert play.at("14:05") == []
    assert play.end("up") == ["a"]


def test_plans_are_made_for_the_tables_as_they_are(store: Store) -> None:
    """PostgreSQL is not held to plans that it made while the table was empty."""
    if store.database.url.get_backend_name() != "postgresql":
        pytest.skip("only PostgreSQL keeps plans for us")
    with Session(store.database.engine) as session:
        store.sync([Declared("one", "t", "0 2 * * *")], source="app", session=session)
        assert session.execute(text("SHOW plan_cache_mode")).scalar() == "force_custom_plan"
        session.commit()
        assert session.execute(text("SHOW plan_cache_mode")).scalar() == "auto"

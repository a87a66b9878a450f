"""Entries that leave the code and come back, or belong to other sources."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from beatstore import After, Store
from beatstore.errors import InvalidEntryError
from tests.support.harness.play import NOON, Play
from tests.support.synced import one, sync, verdicts

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


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
    assert play.history("a") == [("13:00", "sent", 0), ("16:00", "sent", 0)]
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


def test_what_waited_for_a_renamed_entry_goes_on(play: Play) -> None:
    """A rename of an upstream is no edit of its downstreams, which wait for the one made anew."""
    declared = [
        one("a", "0 * * * *"),
        one("b", None, after=[After("a", timeout=9999)]),
        one("c", "30 * * * *", after=["a"]),
    ]
    store = play.store
    sync(store, *declared)
    store.change("a", new_name="z")
    assert verdicts(sync(store, *declared)) == {
        "a": "created",
        "b": "updated",
        "c": "updated",
        "z": "deactivated",
    }
    assert [edge.name for edge in store.get("b").after] == ["a"]
    assert play.at("13:00") == ["a"]
    assert sorted(play.end("a")) == ["b", "c"]
    assert verdicts(sync(store, *declared)) == dict.fromkeys("abc", "unchanged")


def test_what_waited_for_a_removed_entry_waits_again(play: Play) -> None:
    """A removal took the edges along, which is no edit of the downstreams either."""
    declared = [
        one("a", "0 * * * *"),
        one("b", None, after=[After("a", timeout=9999)]),
        one("c", "30 * * * *", after=["a", "e"]),
        one("d", "0 * * * *", after=["a"]),
        one("e", "0 * * * *"),
    ]
    store = play.store
    store.add("mine", "t", 86400)
    sync(store, *declared)
    store.link("d", "mine")
    store.change("e", new_name="z")
    store.remove("a")
    dry = sync(store, *declared, dry_run=True)
    report = sync(store, *declared)
    assert report == dry
    assert verdicts(report) == {
        **{"a": "created", "e": "created", "z": "deactivated"},
        **{"b": "updated", "c": "updated", "d": "unchanged"},
    }
    # Somebody has edited those of this one.
    assert report.kept == {"d": ("after",)}
    assert [edge.name for edge in store.get("c").after] == ["a", "e"]
    assert play.at("13:00") == ["a", "e"]
    assert play.end("a") == ["b"]
    assert verdicts(sync(store, *declared)) == dict.fromkeys("abcde", "unchanged")


def test_a_removed_upstream_that_is_not_made_anew(store: Store) -> None:
    """What somebody has unlinked stays so, and so does what waited for an entry by hand."""
    store.add("mine", "t", 60)
    declared = [one("a"), one("b", None, after=["a"]), one("c", after=["mine"])]
    sync(store, *declared)
    store.unlink("b", "a")
    store.remove("mine")
    report = sync(store, *declared)
    assert report.unchanged == ("a", "b", "c")
    assert report.kept == {"b": ("after",), "c": ("after",)}


def test_a_renamed_upstream_of_edges_that_were_edited(play: Play) -> None:
    """Edges that somebody has edited keep the edit, whatever becomes of their upstreams."""
    declared = [one("a", "0 * * * *"), one("b", None, after=["a"])]
    store = play.store
    store.add("mine", "t", 60)
    sync(store, *declared)
    store.link("b", "mine")
    store.change("a", new_name="z")
    report = sync(store, *declared)
    assert report.kept["b"] == ("after",)
    assert [edge.name for edge in store.get("b").after] == ["mine", "z"]


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

"""An entry that was renamed, or has the name of one that is gone, is explained as it is."""

from __future__ import annotations

import pytest

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.testing import simulate
from tests.support.written import HOUR, MINUTE, NOON, sql

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


def test_a_due_time_of_an_entry_that_is_gone_is_not_denied(store: Store) -> None:
    """Another entry has its name now; what became of the old one is told, and its run."""
    ann = store.by("ann")
    ann.add("load", "t", "0 * * * *")
    simulate(store, HOUR + MINUTE)
    ann.remove("load")
    simulate(store, HOUR)
    store.by("bob").add("load", "t", "30 * * * *")
    simulate(store, 2 * HOUR)
    of_then = (
        "The 'load' of then was removed at 13:01:00, by ann; another one was added at 14:01:00, "
        "by bob."
    )
    found = store.explain("load", NOON + HOUR)
    assert found.sentences == [of_then, "Its run due then is on record: succeeded."]
    assert found.verdict == "ran"
    assert found.run is not None
    found = store.explain("load", NOON + 20 * MINUTE)
    assert (found.verdict, found.run, found.sentences) == ("removed", None, [of_then])
    # Between the two there was none.
    found = store.explain("load", NOON + HOUR + 20 * MINUTE)
    assert found.verdict == "not created"
    assert str(found).startswith("'load' did not exist then: it was added at 14:01:00, by bob.")
    # What the old one was due at is no change of the new one.
    assert "until" not in str(store.explain("load", NOON + 3 * HOUR))


def test_a_run_that_was_triggered_is_no_sign_of_an_entry_that_was_added(store: Store) -> None:
    """The entry of then was there before it was triggered, and who added it added no other one."""
    ann = store.by("ann")
    ann.add("load", "t", "0 * * * *")
    simulate(store, HOUR + MINUTE)
    ann.trigger("load")
    simulate(store, MINUTE)
    ann.remove("load")
    simulate(store, HOUR)
    store.by("bob").add("load", "t", "30 * * * *")
    found = store.explain("load", NOON + HOUR)
    assert found.verdict == "ran"
    assert found.sentences[0].startswith("The 'load' of then was removed at 13:02:00, by ann")
    found = store.explain("load", NOON - HOUR)
    assert str(found).startswith("'load' did not exist then: it was added at 14:02:00, by bob.")


def test_a_due_time_before_a_rename_is_not_called_lost(store: Store, clock: ManualClock) -> None:
    """The audit has what happened before under the old name, so nothing certain is said."""
    store.add("old", "t", "0 * * * *")
    store.pause("old")
    clock.set(NOON + HOUR + MINUTE)
    store.resume("old")
    store.change("old", new_name="new")
    simulate(store, 2 * MINUTE)
    found = store.explain("new", NOON + HOUR)
    assert found.verdict == "unknown"
    assert "or the entry was renamed since" in str(found)
    store.pause("new")
    # An entry that was renamed, and has changes since, had no other one before it.
    assert store.explain("new", NOON - HOUR).verdict == "not created"


def test_a_name_that_a_rename_has_freed_tells_of_it(store: Store, clock: ManualClock) -> None:
    """The entry of then has another name now."""
    store.add("load", "t", "0 * * * *")
    clock.advance(3600)
    store.by("ann").change("load", new_name="old")
    store.add("load", "t", "0 * * * *")
    said = str(store.explain("load", NOON + 30 * MINUTE))
    assert said.startswith("The 'load' of then was renamed to 'old' at 13:00:00, by ann; another")


def test_what_is_gone_was_not_removed_by_whoever_changed_it_last(store: Store) -> None:
    """If plain SQL deleted the row, nobody in the audit did, and the entry has no other name."""
    store.by("ann").add("load", "t", "0 * * * *")
    sql(store, "DELETE FROM beatstore_entry")
    said = "'load' was removed without the API; its last change on record was {} at {}, by {}."
    found = store.explain("load")
    assert found.sentences == [said.format("'add'", "12:00:00", "ann")]
    assert (found.state, found.by, found.since) == ("removed", None, None)
    store.by("ann").add("load", "t", "0 * * * *")
    store.by("bob").pause("load")
    sql(store, "DELETE FROM beatstore_entry")
    assert store.explain("load").sentences == [said.format("'pause'", "12:00:00", "bob")]


def test_who_ends_a_run_of_a_removed_entry_has_not_removed_it(store: Store) -> None:
    """The run has the name of the entry, and so has the change."""
    store.add("load", "t", "0 * * * *")
    run_id = store.trigger("load").id
    sql(store, "UPDATE beatstore_run SET state = 'sent'")
    store.by("ann").remove("load")
    store.by("bob").end(run_id, "failed")
    found = store.explain("load")
    assert found.sentences == ["'load' was removed at 12:00:00, by ann."]
    assert found.by == "ann"


def test_a_run_that_a_user_ends_does_not_change_its_entry(store: Store, clock: ManualClock) -> None:
    """Its state is in the audit under the same word as that of the entry."""
    store.add("load", "t", "0 * * * *")
    run = store.trigger("load")
    sql(store, "UPDATE beatstore_run SET state = 'sent'")
    clock.set(NOON + HOUR + MINUTE)
    store.by("ann").change("load", schedule="30 * * * *")
    store.by("ann").pause("load")
    paused, due_then = (
        "'load' is paused since 13:01:00, by ann.",
        store.explain("load", NOON + HOUR),
    )
    assert paused in str(store.explain("load"))
    assert "no beat had picked it up when ann changed the entry at 13:01:00" in str(due_then)
    store.by("bob").end(run, "failed")
    assert paused in str(store.explain("load"))
    assert store.explain("load", NOON + HOUR) == due_then

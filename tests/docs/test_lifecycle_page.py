"""The states and moves of docs/lifecycle.md are those that rows go through.

A trigger of the test notes each change of a state. The stories below make all that the page
draws, and nothing that it does not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import text

from beatstore import ManualClock, Once, Store
from beatstore.tick.claims import Claim, Outcome
from beatstore.types import EntryState, RunState
from tests.support.harness.play import NOON, Play
from tests.support.harness.ticks import report
from tests.support.pages import blocks, rows

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

PAGE = "docs/lifecycle.md"
HOUR = timedelta(hours=1)

Move = tuple[str, str]


def drawn(section: str) -> set[Move]:
    """Return the moves of a diagram; "—" is where a row begins and ends."""
    [diagram] = [one.text for one in blocks(PAGE, section) if one.language == "mermaid"]
    return set(re.findall(r"^ +(\S+) --> (\S+)$", diagram.replace("[*]", "—"), re.M))


def listed(header: str) -> set[Move]:
    """Return the moves of a table."""
    found = rows(PAGE, header)
    assert all(all(row) for row in found), "each move says who makes it, and when"
    return {(row[0].strip("`"), row[1].strip("`")) for row in found}


OF_ENTRIES = listed("| from | to | who | when |")
GONE = {(old, new) for old, new in OF_ENTRIES if new == "—"}
OF_RUNS = listed("| from | to | who | in which transaction |")
OF_LATE_RUNS = listed("| from | to | who | why |")


@pytest.fixture
def play(migrated_url: str) -> Iterator[Play]:
    """Return a store, and a beat without a broker, whose changes of states are noted."""
    play = Play(migrated_url, ManualClock(NOON))
    with play.store.database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE moves (of TEXT, old TEXT, new TEXT)"))
        for of in ("entry", "run"):
            for event, old, new in (
                ("INSERT", "'—'", "NEW.state"),
                ("UPDATE", "OLD.state", "NEW.state"),
                ("DELETE", "OLD.state", "'—'"),
            ):
                trigger = f"CREATE TRIGGER note_{of}_{event} AFTER {event} ON beatstore_{of}"
                note = f"INSERT INTO moves VALUES ('{of}', {old}, {new})"
                connection.execute(text(f"{trigger} BEGIN {note}; END"))
    yield play
    play.close()


def moves(play: Play, of: str) -> set[Move]:
    """Return the changes of states so far."""
    with play.store.database.session() as session:
        found = session.execute(text("SELECT old, new FROM moves WHERE of = :of"), {"of": of})
        return {(old, new) for old, new in found if old != new}


def test_the_states_are_those_of_the_code(backend: str) -> None:
    """Both diagrams, and both tables of states, have all states and no others."""
    for section, states, header in (
        ("An entry", get_args(EntryState), "| state | what it means |"),
        ("A run", get_args(RunState), "| state | what it means | over |"),
    ):
        assert {state for move in drawn(section) for state in move} == {*states, "—"}
        assert [row[0].strip("`") for row in rows(PAGE, header)] == list(states)


def test_each_move_that_is_drawn_is_explained(backend: str) -> None:
    """The tables say of each arrow who makes the move, and when; and draw no other."""
    assert drawn("An entry") == OF_ENTRIES
    assert drawn("A run") == OF_RUNS
    assert not OF_RUNS & OF_LATE_RUNS


def test_entries_move_so(play: Play) -> None:
    """Entries make each move of the page, by the calls that it names."""
    store = play.store
    store.add("recurs", "t", 60)
    for turn in (store.pause, store.resume, store.pause, store.cancel):
        turn("recurs")
    store.change("recurs", schedule=120)
    store.cancel("recurs")
    store.add("paused", "t", 60, paused=True)
    store.add("once", "t", Once(NOON))
    store.add("late", "t", Once(NOON - HOUR), misfire="skip")
    for name in ("bad", "worse"):
        store.add(name, "t", 60)
        spoil(store, name)
    assert play.tick() == ["once"]
    states = {entry.name: entry.state for entry in store.entries()}
    assert states["once"] == "finished"
    assert states["late"] == "missed"
    assert states["bad"] == states["worse"] == "broken"
    store.change("bad", schedule=60)
    store.cancel("worse")
    store.change("once", schedule=Once(NOON + HOUR))
    store.reschedule("late", NOON + HOUR)
    assert moves(play, "entry") == OF_ENTRIES - GONE
    play.tick()
    for name, state in (("bad", "active"), ("worse", "cancelled"), ("late", "missed")):
        if state == "missed":
            store.pause(name)
            play.clock.set(NOON + 2 * HOUR)
            store.resume(name)
            play.tick()
        assert store.get(name).state == state
        store.remove(name)
    play.end("once")
    assert store.get("once").state == "finished"
    play.clock.advance(3600)
    assert store.prune(0) >= 1
    assert "once" not in store.names()
    assert moves(play, "entry") - {("active", "—")} == OF_ENTRIES


def spoil(store: Store, name: str) -> None:
    """Give an entry a schedule that nobody can read."""
    with store.database.engine.begin() as connection:
        spoiling = text("UPDATE beatstore_entry SET spec = 'soon' WHERE name = :name")
        connection.execute(spoiling, {"name": name})


def test_runs_move_so(play: Play) -> None:
    """Runs make each move of the page, by what beat and workers do."""
    store = play.store
    ends = ("succeeded", "failed", "cancelled")
    for number, (started, end) in enumerate((a, b) for a in (False, True) for b in ends):
        store.schedule("t", at=NOON, name=f"{number}")
        play.tick()
        if started:
            report(store, "started", play.held[f"{number}"])
        play.end(f"{number}", end)
    again = [one for number in range(2) for one in sent(play, f"again-{number}", run_timeout=60)]
    report(store, "started", again)
    play.clock.advance(1)
    report(store, "sent", again[:1])
    store.add("late", "t", 3600, misfire="skip")
    store.add("alone", "t", 3600, overlap="skip")
    play.clock.advance(3630)
    play.tick()
    play.clock.advance(3720)
    play.tick()
    for state in ("skipped", "failed"):
        play.queue.mark([Outcome(claimed(play, f"not-{state}"), state)])
    claimed(play, "removed")
    store.remove("removed")
    assert moves(play, "run") == OF_RUNS


def sent(play: Play, name: str, **given: Any) -> list[Claim]:
    """Send a one-shot."""
    play.store.schedule("t", at=NOON, name=name, **given)
    play.tick()
    return play.held.pop(name)


def claimed(play: Play, name: str) -> Claim:
    """Claim a one-shot, and send nothing."""
    play.store.schedule("t", at=NOON, name=name)
    [claim], _ = play.queue.plan(play.queue.look().now)
    return claim


def test_workers_are_believed(play: Play) -> None:
    """Runs make each of the rare moves of the page, and no move that the page has not."""
    store, queue = play.store, play.queue
    for state in ("started", "succeeded"):
        report(store, state, [claimed(play, f"quick-{state}")])
    for state in ("sent", "started", "succeeded"):
        claim = claimed(play, f"cancelled-{state}")
        store.remove(f"cancelled-{state}")
        if state == "sent":
            queue.mark([Outcome(claim, "sent")])
        else:
            report(store, state, [claim])
    skipped = [("skipped", state) for state in ("sent", "started", "succeeded")]
    for unsent, state in (*skipped, ("failed", "succeeded")):
        claim = claimed(play, f"{unsent}-{state}")
        queue.mark([Outcome(claim, unsent)])
        play.tick()
        report(store, state, [claim])
    lost = sent(play, "lost", run_timeout=60)
    play.clock.advance(3600)
    play.tick()
    report(store, "succeeded", lost)
    made = moves(play, "run")
    assert made >= OF_LATE_RUNS
    assert made <= OF_RUNS | OF_LATE_RUNS

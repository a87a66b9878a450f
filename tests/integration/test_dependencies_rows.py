"""Edges that are edited, or written by plain SQL, and cycles of them, on every database."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy import create_engine, func, select, text

from beatstore import After, DependencyCycleError, InvalidEntryError, Store
from beatstore.database.tables import TOKEN, WAIT
from tests.support.harness.play import Play
from tests.support.marks import on_sqlite

HOURLY = "0 * * * *"


def test_a_cycle_is_refused(play: Play) -> None:
    """An edge that would create a cycle is refused, unless a first run in it is free."""
    play.add("a", HOURLY)
    play.add("b", after=["a"])
    play.add("c", after=["b"])
    with pytest.raises(DependencyCycleError) as caught:
        play.store.link("a", "c")
    assert (caught.value.given, caught.value.cycle) == ("c", "'a' → 'b' → 'c' → 'a'")
    assert str(caught.value) == (
        "after: 'c' would create a dependency cycle: 'a' → 'b' → 'c' → 'a'; "
        "write first_free=True on one edge"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(InvalidEntryError, match="overlap='wait'"):
        play.store.link("a", "a")
    assert play.store.link("a", After("c", first_free=True)).name == "a"


def test_a_cycle_by_plain_sql_is_taken_out_of_service(play: Play) -> None:
    """Rows that form a cycle are broken, with its members on each; the others go on."""
    for name in ("a", "b", "c"):
        play.add(name, HOURLY)
    play.add("other", HOURLY, after=["a"])
    ids = {name: play.store.get(name).id for name in ("a", "b", "c")}
    with play.store.database.engine.begin() as connection:
        for up, down in (("a", "b"), ("b", "c"), ("c", "a")):
            connection.execute(
                text(
                    "INSERT INTO beatstore_dependency (upstream_id, downstream_id) VALUES (:u, :d)"
                ),
                {"u": ids[up], "d": ids[down]},
            )
    assert play.tick() == []
    for name in ("a", "b", "c"):
        entry = play.store.get(name)
        assert entry.state == "broken"
        assert "dependency cycle: " in (entry.error or "")
    play.store.unlink("a", "c")
    for name in ("a", "b", "c"):
        play.store.resume(name)
    assert play.at("13:00") == ["a"]
    play.end("a")
    assert play.store.get("c").pending_reason == "waits for 'b' to succeed"


def test_an_edge_by_plain_sql_counts_at_the_next_tick(play: Play) -> None:
    """An edge that is inserted holds back, and one that is deleted lets go."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY)
    ids = {name: play.store.get(name).id for name in ("up", "down")}
    with play.store.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO beatstore_dependency (upstream_id, downstream_id) VALUES (:up, :down)"
            ),
            ids,
        )
    assert play.at("13:00") == []
    with play.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_dependency"))
    assert play.tick() == ["down"]


def test_what_no_trigger_told_of_is_found(play: Play) -> None:
    """An entry that sleeps beside its satisfied edges is woken by the beats' patrol."""
    play.add("up", "0 13 * * *")
    play.add("down", HOURLY, after=["up"])
    play.at("13:00")
    with play.store.database.engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_entry SET success_seq = 1 WHERE name = 'up'"))
    assert play.tick() == []
    assert play.queue.upkeep.wake_forgotten() == 1
    assert play.tick() == ["down"]
    assert play.queue.upkeep.wake_forgotten() == 0


def test_nothing_can_be_said_of_when_without_a_clock(play: Play) -> None:
    """An entry that follows others has no due times of its own to show."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    assert play.store.preview("down") == []
    assert play.store.get("down").next_due_at is None


def test_an_edit_keeps_what_it_does_not_name(play: Play) -> None:
    """put() makes the upstreams those named, change() leaves them alone where it names none."""
    for name in ("a", "b"):
        play.add(name, HOURLY)
    play.add("down", after=["a"])
    play.store.change("down", max_retries=3)
    assert play.store.put("down", "tests.down", after=["a"], max_retries=3).version == 2
    assert play.store.put("down", "tests.down", after=["a", "b"], max_retries=3).version == 3
    play.store.change("down", after=["b"])
    play.at("13:00")
    assert play.end("b") == ["down"]
    with pytest.raises(InvalidEntryError, match="after=\\[…\\]"):
        play.store.put("down", "tests.down")


def test_a_free_first_run_by_plain_sql(play: Play) -> None:
    """An edge inserted with only its obvious columns lets the first run go, and no other."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY)
    ids = {name: play.store.get(name).id for name in ("up", "down")}
    with play.store.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO beatstore_dependency (upstream_id, downstream_id, first_free) "
                "VALUES (:up, :down, true)"
            ),
            ids,
        )
    assert play.at("13:00") == ["down"]
    assert play.at("14:00") == []


@on_sqlite
def test_what_a_removed_entry_leaves_without_foreign_keys(play: Play) -> None:
    """An engine of the application's own has them off; nothing of an entry stays all the same."""
    play.add("up", "0 * * * *")
    play.add("down", after=["up"])
    play.add("last", after=["down"])
    play.at("13:00")
    play.end("up")
    engine = create_engine(play.store.database.url)

    def left() -> list[int]:
        with engine.connect() as connection:
            tables = [select(func.count()).select_from(one) for one in (TOKEN, WAIT)]
            return [connection.scalar(one) or 0 for one in tables]

    assert any(left())
    theirs = Store(engine)
    for name in ("down", "last"):
        theirs.remove(name)
    assert left() == [0, 0]
    engine.dispose()


def test_an_upstream_deleted_by_plain_sql(play: Play) -> None:
    """Its edges go with it, and who waited for it goes on; on MySQL a patrol finds out."""
    play.add("up", "0 20 * * *")
    play.add("down", HOURLY, after=["up"])
    assert play.at("13:00") == []
    with play.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_entry WHERE name = 'up'"))
    play.queue.upkeep.wake_forgotten()
    assert play.tick() == ["down"]


def test_a_due_time_from_before_it_was_made_is_none_of_its_own(play: Play) -> None:
    """Without a clock, an entry runs for the due times its upstreams share from then on."""
    play.add("up", HOURLY)
    play.at("13:00")
    play.end("up")
    play.at("13:30")
    play.add("down", after=[After("up", align="same")])
    assert play.tick() == []
    play.at("14:00")
    assert play.end("up") == ["down"]
    assert play.history("down") == [("14:00", "sent", 0)]

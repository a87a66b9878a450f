"""Syncs at the same time as others, on every database: one of them does it, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import update

from beatstore import After, Declared, Store, SyncReport
from beatstore.database.tables import ENTRY
from beatstore.store.sync import sync
from tests.support.marks import on_servers
from tests.support.wait import wait_until

pytestmark = pytest.mark.every_database

NIGHTLY = "0 2 * * *"


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls in as many threads at the same moment; return what they return."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def project(count: int, hour: int = 2) -> list[Declared]:
    """Return declarations of which each waits for the one before it, with tags."""
    return [
        Declared(
            f"e{number}",
            "t",
            f"0 {hour} * * *",
            after=[f"e{number - 1}"] if number else [],
            tags=["x", str(number)],
        )
        for number in range(count)
    ]


def test_two_that_start_together_do_it_once(store: Store) -> None:
    """However many sync the same at once, one of them does it, and the others find it done."""
    for turn in range(6):
        given = project(20 - turn, hour=turn)
        found: list[SyncReport] = at_once(*[partial(store.sync, given, source="app")] * 4)
        busy = [one for one in found if one.created or one.updated or one.deactivated]
        assert len(busy) == 1
        idle = [one for one in found if one not in busy]
        assert [len(one.unchanged) for one in idle] == [20 - turn] * 3
        assert not any(one.refused for one in found)
    assert len(store.audit(limit=1000)) == sum(20 - turn + (turn > 0) for turn in range(6))


def test_syncs_and_edits_and_completions_go_on_together(store: Store) -> None:
    """Edits that come between are kept, and nobody is refused for a lock."""
    store.sync(project(12), source="app")

    def edit() -> None:
        for turn in range(10):
            store.change("e5", grace=turn + 1)
            store.link("e7", After("e3", on="done"))
            store.unlink("e7", "e3")

    def declare() -> None:
        for turn in range(10):
            report = store.sync(project(12, hour=turn), source="app")
            assert not report.refused

    def pause() -> None:
        for number in range(12):
            store.pause(f"e{number}")

    at_once(edit, declare, pause)
    assert store.get("e5").grace_s == 10
    assert {entry.state for entry in store.entries()} == {"paused"}
    assert {entry.spec for entry in store.entries()} == {"0 9 * * *"}


def test_two_sources_that_want_one_name(store: Store) -> None:
    """One of them gets it, and the other is told whose it is."""
    for turn in range(5):
        given = [Declared(f"a{turn}", "t", NIGHTLY)]
        reports = at_once(
            *[
                lambda given=given, source=source: store.sync(given, source=source)
                for source in "xyz"
            ]
        )
        assert sorted(len(one.created) for one in reports) == [0, 0, 1]
        store_says = store.get(f"a{turn}").source
        for report in reports:
            if report.source != store_says:
                assert report.refused[f"a{turn}"].startswith(f"belongs to {store_says!r}")


@on_servers
def test_a_name_that_is_taken_while_it_is_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry added by hand between the look and the insert is left to its owner."""
    merge_all = sync._Sync.merge_all

    def interrupted(self: Any) -> None:
        merge_all(self)
        store.add("b", "mine", 60)

    monkeypatch.setattr(sync._Sync, "merge_all", interrupted)
    given = [Declared("a", "t", NIGHTLY), Declared("b", "t", NIGHTLY, tags=["x"])]
    report = store.sync([*given, Declared("c", "t", None, after=["b"])], source="app")
    assert (report.created, list(report.refused)) == (("a", "c"), ["b"])
    assert (store.get("b").task, store.get("b").source, store.get("b").tags) == ("mine", "api", ())
    assert [edge.upstream for edge in store.graph(name="c").edges] == ["b"]


@on_servers
def test_an_edit_under_way_is_waited_for(store: Store) -> None:
    """An edit that commits while a sync waits for its row is seen by that sync."""
    store.sync([Declared("a", "t", NIGHTLY)], source="app")
    begun = Event()
    with ThreadPoolExecutor(1) as pool, store.database.engine.connect() as editor:
        editor.execute(update(ENTRY).values(grace_s=7))

        def declare() -> SyncReport:
            begun.set()
            return store.sync([Declared("a", "t", NIGHTLY, grace=5)], source="app")

        waiting = pool.submit(declare)
        assert begun.wait(30)
        # MariaDB answers anew only when nobody has asked for a tenth of a second.
        wait_until(lambda: _waiting(store), message="the sync waits for the row", interval=0.3)
        editor.commit()
        report = waiting.result(30)
    assert (report.kept, store.get("a").grace_s) == ({"a": ("grace",)}, 7)


def _waiting(store: Store) -> bool:
    """Say whether a session of this database waits for a lock."""
    asked = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    kind = store.database.url.get_backend_name().replace("mariadb", "mysql")
    with store.database.engine.connect() as connection:
        return bool(connection.exec_driver_sql(asked[kind]).scalar())

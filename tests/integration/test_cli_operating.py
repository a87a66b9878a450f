"""The verbs of those who run it: migrate, status, check, tick, prune."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from beatstore import Once, Store
from beatstore.database.models import REVISION
from beatstore.models import RunModel, WorkerModel
from beatstore.tick.beats import BeatFigures
from beatstore.tick.queue import Queue
from tests.support.brokers import Broker
from tests.support.command import Command
from tests.support.harness.inprocess import new_app
from tests.support.marks import both_ways, on_sqlite
from tests.support.processes import ROOT
from tests.support.written import DAY, HOUR, MINUTE, alter, run, write

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

HEALTHY = "healthy: 1 beat is alive, no entry is overdue, and nothing is stuck"


@pytest.fixture
def beat(store: Store) -> Iterator[Queue]:
    """Let a beat be alive, that has looked at everything so far."""
    queue = Queue(store.database, store.settings, "a-beat")
    queue.upkeep.introduce(host="here", pid=7, version="1", tzdata="2026a")
    yield queue
    queue.close()


# -- migrate -------------------------------------------------------------------------------


@both_ways
def test_migrate_says_what_it_did(database_url: str, way: str) -> None:
    """The tables are made once; the second time there is nothing to do."""
    call = Command(database_url, way)
    done = call("migrate")
    assert done.code == 0
    assert done.out.endswith(f"is now at revision {REVISION}\n")
    assert call("migrate").out.endswith(f"is already at revision {REVISION}\n")


# -- status --------------------------------------------------------------------------------


@both_ways
def test_status_shows_how_things_stand(call: Command, store: Store, beat: Queue) -> None:
    """Entries and runs by state, lateness, beats and workers stand under their titles."""
    now = store.now()
    entry = store.add("a", "t.a", 3600)
    store.add("b", "t.b", 3600, paused=True)
    sent = {"due_at": now - MINUTE, "sent_at": now - MINUTE + timedelta(seconds=2)}
    write(store, RunModel, run(entry, **sent))
    done = call("status")
    assert done.code == 0
    said = {title: rest.strip() for title, _, rest in (line.partition(": ") for line in done.lines)}
    assert said["entries"] == "1 active, 1 paused"
    assert said["unfinished runs"] == "1 sent"
    assert said["sent late by"] == "2 s (median), 2 s (99th percentile)"
    assert said["beats"].startswith("here pid 7: alive, 0 sent")
    assert said["workers"] == "none has reported"
    assert "attention" not in said
    found = call("status", "--json").json
    assert found["entries"] == {"active": 1, "paused": 1}
    assert found["beats"][0]["host"] == "here"
    assert found["database"] == store.url


def test_status_says_what_is_counted_and_how_a_beat_sends(
    call: Command, store: Store, beat: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since when runs are counted, if there are too many, and the step of each beat."""
    entry, now = store.add("a", "t.a", 3600), store.now()
    write(store, RunModel, *(run(entry, now - n * MINUTE) for n in (1, 2, 3)))
    beat.upkeep.heartbeat(BeatFigures(None, 3, 3, step="hooks: by hand"))
    monkeypatch.setattr("beatstore.store.status._COUNTED", 1)
    said = call("status").out
    assert "2 sent; of the newest, due since 20" in said
    assert "; hooks: by hand" in said
    assert "2 sent; of the newest" in call("top", "--once").out
    assert call("status", "--json").json["beats"][0]["step"] == "hooks: by hand"


def test_status_shows_the_last_of_those_that_were_stopped(call: Command, store: Store) -> None:
    """A worker for each hour of the day does not fill the screen; those that live stand first."""
    now = store.now()
    same = {"pid": 1, "version": "0", "heartbeat_at": now - HOUR, "stopped_at": now - HOUR}
    names = [f"celery@{number}" for number in range(9)]
    rows = [{"id": name, "name": name, "started_at": now - DAY, **same} for name in names]
    write(
        store, WorkerModel, *rows, {**rows[0], "id": "x", "name": "celery@here", "stopped_at": None}
    )
    lines = call("status").lines
    start = next(number for number, line in enumerate(lines) if line.startswith("workers:"))
    assert "celery@here pid 1: silent since " in lines[start]
    assert [("stopped at" in line) for line in lines[start + 1 : start + 4]] == [True] * 3
    assert lines[start + 4].strip() == "and 6 more, stopped"


def test_status_says_what_to_mend(call: Command, store: Store) -> None:
    """Broken entries, and beats that are not there, are among what should be mended."""
    store.add("bad", "t", 60)
    alter(store, "bad", state="broken", error="no", wake_at=None)
    store.add("late", "t", Once(store.now() - HOUR))
    said = call("status").out
    assert "1 entry is broken and will not run: 'bad'" in said
    assert "beats:                 none on record" in said


# -- check ---------------------------------------------------------------------------------


@both_ways
def test_check_is_healthy_with_a_beat(call: Command, store: Store, beat: Queue) -> None:
    """A beat that is alive, and nothing overdue, is exit code 0 and one line."""
    store.add("a", "t.a", 3600)
    done = call("check")
    assert (done.code, done.out) == (0, f"{HEALTHY}\n")
    found = call("check", "--json")
    assert (found.code, found.json["healthy"], found.json["reasons"]) == (0, True, [])


def test_check_without_a_beat(call: Command, store: Store) -> None:
    """No beat is exit code 1, but where none is meant to be."""
    done = call("check")
    assert (done.code, done.err) == (1, "")
    assert done.out == "no beat is alive: no heartbeat in the last minute\n"
    assert call("check", "--no-beat").code == 0


def test_check_says_when_beat_was_stopped(call: Command, store: Store, beat: Queue) -> None:
    """Somebody who stopped it in order has a reason, or has forgotten it."""
    beat.upkeep.withdraw()
    done = call("check")
    assert done.code == 1
    assert done.out.startswith("no beat is alive: the last one was shut down 0 s ago\n")
    assert "here pid 7: stopped at " in call("status").out


def test_check_fails_on_what_is_broken_or_stands_still(
    call: Command, store: Store, beat: Queue
) -> None:
    """Each is exit code 1, with a sentence that says what to do."""
    store.add("bad", "t", 3600)
    alter(store, "bad", state="broken", error="no", wake_at=None)
    store.add("lost", "t", 3600)
    alter(store, "lost", wake_at=None)
    done = call("check")
    assert done.code == 1
    assert done.lines == [
        "1 entry is broken and will not run: 'bad'; see `why`.",
        "'lost' is active, but no beat will ever process it, because its wake_at is NULL: write "
        "`pause lost`, then `resume lost`.",
    ]
    found = call("check", "--json").json
    assert (found["broken"], len(found["reasons"])) == (1, 2)
    store.remove("bad")
    store.pause("lost")
    store.resume("lost")
    assert call("check").out == f"{HEALTHY}\n"


def test_check_finds_what_is_overdue(call: Command, store: Store, beat: Queue) -> None:
    """An entry, or a run, that nobody looks at for too long is exit code 1."""
    now = store.now()
    alter(store, store.add("late", "t.a", 3600).name, wake_at=now - 5 * MINUTE)
    done = call("check")
    assert done.code == 1
    assert done.out.startswith("'late' has been due for 5 min")
    assert "and no beat has picked it up" in done.out
    assert done.out.endswith(" (1 min allowed)\n")
    assert call("check", "--max-overdue", "10m").code == 0
    found = call("check", "--json").json
    assert 299 < found["overdue_s"] < 360
    assert (found["overdue_name"], found["overdue_run"]) == ("late", None)
    store.pause("late")
    assert call("check").code == 0
    write(
        store,
        RunModel,
        run(store.get("late"), now - HOUR, state="claimed", wake_at=now - 2 * MINUTE),
    )
    which = f"run {store.runs('late')[0].id} of 'late'"
    assert f"{which} has been waiting for a beat for 2 min" in call("check").out


def test_check_can_not_tell(database_url: str, tmp_path: Path) -> None:
    """Without tables, or without the database, it is exit code 3."""
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    done = Command(database_url)("check")
    assert (done.code, done.out) == (3, "")
    assert "migrate" in done.err
    assert Command(f"sqlite:///{tmp_path}/no/such")("check").code == 3


# -- tick ----------------------------------------------------------------------------------


@pytest.fixture
def of_app(app: Celery) -> Command:
    """Hand out the command line of that app."""
    call = Command("", "app")
    call.context = SimpleNamespace(app=app, no_color=False)
    return call


def test_tick_sends_what_is_due(of_app: Command, store: Store, memory_broker: Broker) -> None:
    """It sends once what is due, of one tag or of all, and says how much that was."""
    for name in ("a", "b", "c"):
        store.add(name, "tests.note", Once(store.now() - MINUTE), args=[name], tags=[name])
    done = of_app("tick", "--tag", "a")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("1 sent, in ")
    found = of_app("tick", "--json").json
    assert {key: found[key] for key in ("sent", "skipped", "failed", "left")} == {
        **{"sent": 2, "skipped": 0},
        **{"failed": 0, "left": 0},
    }
    assert sorted(message.args[0] for message in memory_broker.drain()) == ["a", "b", "c"]


@on_sqlite
def test_tick_tells_what_it_could_not_send(of_app: Command, app: Celery, store: Store) -> None:
    """A message that can't be made is one line on stderr, and exit code 1."""

    @app.task(name="t.two", shared=False)
    def two(x: int, y: int) -> None:
        """Take two arguments."""

    store.add("bad", "t.two", Once(store.now() - MINUTE))
    done = of_app("tick")
    assert done.code == 1
    assert done.out.startswith("0 sent, 1 failed, in ")
    [line] = done.err.splitlines()
    assert line.startswith("beatstore: could not send 'bad': TypeError: two() missing 2 required")
    assert logging.getLogger("beatstore").handlers == []


@on_sqlite
def test_tick_tells_that_more_is_due(of_app: Command, store: Store) -> None:
    """A tick whose time is over before all is sent ends with exit code 1, and says why."""
    for number in range(120):
        store.add(f"e{number}", "tests.note", Once(store.now() - MINUTE))
    done = of_app("tick", "--timeout", "0")
    assert done.code == 1
    assert done.out.startswith("100 sent, more is due, in ")
    done = of_app("tick")
    assert done.code == 0
    assert done.out.startswith("20 sent, in ")


@on_sqlite
def test_tick_without_a_broker(of_app: Command, app: Celery, store: Store) -> None:
    """A broker that is away is exit code 3 at once, and what is due stays due."""
    app.conf.broker_url = "redis://:s3cr3t@127.0.0.1:1/0"
    store.add("a", "tests.note", Once(store.now() - MINUTE))
    done = of_app("tick")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("beatstore: cannot reach the broker: ")
    assert "s3cr3t" not in done.err
    assert len(done.err.splitlines()) == 1
    assert store.runs() == []


@on_sqlite
def test_tick_on_the_database_that_is_named(
    memory_broker: Broker, migrated_url: str, store: Store, tmp_path: Path
) -> None:
    """`celery -A proj beatstore --url … tick` takes the app's broker, and the other database."""
    store.add("a", "t.a", Once(store.now() - MINUTE))
    app = new_app(memory_broker, f"sqlite:///{tmp_path / 'other.db'}", result_expires=None)
    call = Command("", "app")
    call.context = SimpleNamespace(app=app, no_color=False)
    call.arguments = ["--url", migrated_url]
    assert call("tick", "--json").json["sent"] == 1
    app.close()


@on_sqlite
def test_tick_needs_an_app(call: Command) -> None:
    """Without an app there are no tasks and no broker, and the message says what to write."""
    done = call("tick")
    assert done.code == 2
    assert "celery -A proj beatstore tick" in done.err


# -- prune ---------------------------------------------------------------------------------


def old_runs(store: Store) -> None:
    """Store an entry with three runs, of today, of ten days ago and of forty."""
    entry = store.add("a", "t.a", 60)
    for age in (0, 10, 40):
        at = store.now() - age * DAY
        write(store, RunModel, run(entry, at, state="succeeded", sent_at=at, finished_at=at))


@both_ways
def test_prune_deletes_what_is_old(call: Command, store: Store) -> None:
    """What is older than the setting, or than `--days`, goes, and the number is said."""
    old_runs(store)
    done = call("prune", "--yes")
    assert done.code == 0
    assert done.out.startswith("deleted 1 entry or run older than ")
    assert call("prune", "--yes", "--days", "5", "--json").json["deleted"] == 1
    assert len(store.runs("a")) == 1


@on_sqlite
def test_prune_asks_first(call: Command, store: Store) -> None:
    """Where nobody can answer, nothing is deleted without `--yes`."""
    old_runs(store)
    done = call("prune", "--days", "5")
    assert (done.code, done.out) == (1, "")
    assert "--yes" in done.err
    assert len(store.runs("a")) == 3
    assert call("prune", "--days", "-1", "--yes").code == 2


@on_sqlite
def test_prune_shows_a_bar_on_a_terminal(store: Store, migrated_url: str) -> None:
    """A person sees how far it has come, and is asked before."""
    old_runs(store)
    main, end = pty.openpty()
    code = "import sys; from beatstore.cli import main; sys.argv[0] = 'beatstore'; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--url", migrated_url, "prune", "--days", "5"],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )
    os.close(end)
    said = os.read(main, 1000).decode()
    assert said.startswith("Delete what is older than 5 d?")
    os.write(main, b"y\n")
    while "deleted" not in said:
        said += os.read(main, 1000).decode()
    assert process.wait(30) == 0
    os.close(main)
    assert "old runs" in said
    assert "2/2" in said
    assert len(store.runs("a")) == 1


@pytest.mark.parametrize("pages", [1, 2])
def test_pruning_tells_how_far_it_is(
    store: Store, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`progress` is called after each page, and at the end all old runs were looked at."""
    if pages > 1:
        monkeypatch.setattr("beatstore.store.retention._PAGE", 1)
    old_runs(store)
    told: list[tuple[int, int]] = []
    assert store.prune(5 * DAY, progress=lambda done, total: told.append((done, total))) == 2
    assert told[-1] == (2, 2)
    assert [done for done, _ in told] == sorted(done for done, _ in told)

"""Real `celery beat`, `celery worker -B` and `celery beatstore` processes, from the outside."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chain, chord, group
from celery.beat import Service
from sqlalchemy import create_engine, insert, inspect, make_url, text

from beatstore import Every, Once, Store
from beatstore.beat.pulse import DIRECTORY
from beatstore.database.models import REVISION
from beatstore.models import EntryModel
from beatstore.tick.tick import BATCH
from tests.support import canvas_app
from tests.support.brokers import Broker
from tests.support.command import Command
from tests.support.entrypoints import announce, entry_points
from tests.support.inprocess import Ear
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.servers import PrivatePostgreSQL
from tests.support.ticks import running_beats
from tests.support.wait import wait_until

NewProject = Callable[..., Project]

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


def sent_entries(broker: Broker) -> list[str]:
    """Take all messages, and return the entries they are of."""
    return [message.headers["beatstore_entry"] for message in broker.drain()]


def wait_for_rows(store: Store, count: int = 1) -> None:
    """Wait until so many beats have written their rows."""
    wait_until(lambda: len(running_beats(store)) == count, 30, f"{count} beats")


def refused(process: Process) -> str:
    """Wait until a process has ended with an error, and return the line in which it says why."""
    assert process.wait() not in (0, None)
    output = process.output()
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if "beatstore: " in line]
    return line.partition("beatstore: ")[2]


# -- starting ------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("scheduler", ["beatstore", "beatstore:DBScheduler"])
def test_beat_loads_us_by_either_name(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store, scheduler: str
) -> None:
    """`-S beatstore`, which installing provides, and the full name start the same scheduler."""
    project = new_project(redis_broker, migrated_url)
    announce(project.directory)
    store.add("a", "tests.note", Once(NOON))
    beat = project.beat(scheduler=scheduler)
    wait_until(redis_broker.count, 30, beat.output)
    assert sent_entries(redis_broker) == ["a"]
    assert "scheduler -> beatstore.beat.scheduler.DBScheduler" in beat.output()
    assert beat.terminate() == 0


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_beat_of_green_threads_ends_in_order(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store, library: str
) -> None:
    """SIGTERM ends a beat that is patched by gevent or eventlet with 0, and takes its row away."""
    pytest.importorskip(library)
    project = new_project(redis_broker, migrated_url, app="green_app")
    patch = {
        "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
        "eventlet": "import eventlet\neventlet.monkey_patch()\n",
    }
    app = "from tests.support.app import app\n"
    (project.directory / "green_app.py").write_text(patch[library] + app)
    beat = project.beat()
    beat.wait_for_output("beat: Starting")
    wait_for_rows(store)
    assert beat.terminate() == 0, beat.output()
    assert not beat.failed(), beat.output()
    assert running_beats(store) == []


def test_the_entry_points_are_those_of_celery() -> None:
    """What is installed goes by the names that celery looks for."""
    assert entry_points() == {
        "celery.beat_schedulers": ["beatstore = beatstore:DBScheduler"],
        "celery.commands": ["beatstore = beatstore.cli:beatstore"],
    }


@on_postgresql
@pytest.mark.parametrize("by", ["option", "setting"])
def test_the_banner_tells_the_interval_and_hides_the_password(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store, by: str
) -> None:
    """`--max-interval`, or `beat_max_loop_interval`, is used; a password is never shown."""
    url = make_url(migrated_url).set(password="secret").render_as_string(hide_password=False)
    settings = {"beat_max_loop_interval": 7} if by == "setting" else {}
    project = new_project(redis_broker, url, settings)
    beat = project.beat(*(["--max-interval", "7"] if by == "option" else []), "-l", "DEBUG")
    beat.wait_for_output("Ticking with max interval")
    wait_for_rows(store)
    output = beat.output()
    assert "maxinterval -> 7.00 seconds (7s)" in output
    assert "Ticking with max interval->7.00 seconds" in output
    assert "secret" not in output
    assert ":***@" in output
    assert beat.terminate() == 0


def test_a_new_sqlite_file_is_migrated(
    filesystem_broker: Broker, tmp_path: Path, new_project: NewProject
) -> None:
    """On SQLite beat makes its tables itself, so that a first try needs no step before it."""
    url = f"sqlite:///{tmp_path}/new.db"
    project = new_project(filesystem_broker, url)
    beat = project.beat()
    store = Store(url)
    wait_until(lambda: (tmp_path / "new.db").exists() and is_migrated(url), 30, beat.output)
    store.add("a", "tests.note", Once(NOON))
    wait_until(filesystem_broker.count, 30, beat.output)
    assert sent_entries(filesystem_broker) == ["a"]
    assert beat.terminate() == 0
    store.close()


def tables(url: str) -> list[str]:
    """Return the names of all tables of a database."""
    engine = create_engine(url)
    found = inspect(engine).get_table_names()
    engine.dispose()
    return sorted(found)


def is_migrated(url: str) -> bool:
    """Say whether the tables are there."""
    return "beatstore_entry" in tables(url)


@on_postgresql
def test_beat_migrates_where_it_is_told_to(
    redis_broker: Broker, database_url: str, new_project: NewProject
) -> None:
    """With `beatstore_auto_migrate`, beat makes its tables on PostgreSQL too."""
    project = new_project(redis_broker, database_url, {"beatstore_auto_migrate": True})
    beat = project.beat()
    wait_until(lambda: is_migrated(database_url), 30, beat.output)
    assert beat.terminate() == 0


def set_revision(url: str, revision: str) -> None:
    """Write another revision into a migrated database."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_version SET version_num = :n"), {"n": revision})
    engine.dispose()


@on_postgresql
def test_beat_makes_no_tables_unasked(
    redis_broker: Broker, database_url: str, new_project: NewProject
) -> None:
    """Without its tables beat ends with the command to run, and leaves the database alone."""
    line = refused(new_project(redis_broker, database_url).beat())
    assert "no beatstore tables here" in line
    assert "celery -A proj beatstore migrate" in line
    assert tables(database_url) == []


@on_postgresql
@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_beat_refuses_tables_of_another_version(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, revision: str
) -> None:
    """Tables of an older or a newer beatstore are left as they are, and what to do is said."""
    before = tables(migrated_url)
    set_revision(migrated_url, revision)
    line = refused(new_project(redis_broker, migrated_url).beat())
    assert f"revision {revision}" in line
    assert ("upgrade beatstore" if revision > REVISION else "beatstore migrate") in line
    assert tables(migrated_url) == before
    set_revision(migrated_url, REVISION)


def test_beat_refuses_a_setting_it_does_not_know(
    filesystem_broker: Broker, tmp_path: Path, new_project: NewProject
) -> None:
    """A misspelt setting ends beat in one line, with the name that was probably meant."""
    url = f"sqlite:///{tmp_path}/x.db"
    project = new_project(filesystem_broker, url, {"beatstore_batchsize": 5})
    line = refused(project.beat())
    assert "beatstore_batchsize" in line
    assert "beatstore_batch_size" in line
    assert not (tmp_path / "x.db").exists()


@on_postgresql
def test_beat_waits_for_its_database(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """Started before its database, beat says so once, waits, and then does its work."""
    store.add("a", "tests.note", Once(NOON))
    with Proxy(make_url(migrated_url).port or 5432) as relay:
        relay.refuse = True
        url = make_url(migrated_url).set(host="127.0.0.1", port=relay.port)
        project = new_project(redis_broker, url.render_as_string(hide_password=False))
        beat = project.beat()
        beat.wait_for_output("lost connection to the database")
        relay.refuse = False
        wait_until(redis_broker.count, 30, beat.output)
        beat.wait_for_output("connected to the database again")
        assert sent_entries(redis_broker) == ["a"]
        output = beat.output()
        assert output.count("lost connection to the database") == 1
        assert "Traceback" not in output
        assert beat.terminate() == 0


# -- whether it hangs ------------------------------------------------------------------------


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Return what a liveness probe asks, of the beats of this test."""
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "pulses"))
    call = Command("")
    call.arguments = []
    return lambda: call("check", "--self", "--max-silence", "8s").code


@on_postgresql
def test_a_beat_that_hangs_is_found_and_an_outage_is_none(
    redis_broker: Broker,
    migrated_url: str,
    new_project: NewProject,
    check: Callable[[], int],
) -> None:
    """The probe fails while the process stands still, and not while its database is away."""
    assert check() == 1
    url = make_url(migrated_url)
    with Proxy(url.port or 5432) as relay:
        through = url.set(host="127.0.0.1", port=relay.port)
        database = through.render_as_string(hide_password=False)
        beat = new_project(redis_broker, database).beat()
        wait_until(lambda: check() == 0, 30, beat.output)
        relay.refuse = True
        relay.cut()
        beat.wait_for_output("lost connection to the database")
        since = time.monotonic()
        wait_until(lambda: check() == 1 or time.monotonic() > since + 12, 20, "12 s of an outage")
        assert check() == 0, beat.output()
        beat.pause()
        wait_until(lambda: check() == 1, 30, "the probe to fail")
        beat.resume()
        wait_until(lambda: check() == 0, 30, "the probe to be content again")
        assert beat.terminate() == 0
    assert check() == 1


# -- ending --------------------------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_beat_ends_at_once(
    redis_broker: Broker,
    migrated_url: str,
    new_project: NewProject,
    store: Store,
    number: signal.Signals,
) -> None:
    """SIGTERM and SIGINT end a sleeping beat within moments, and its row says when."""
    beat = new_project(redis_broker, migrated_url).beat("--max-interval", "60")
    wait_for_rows(store)
    assert beat.terminate(10, number) == 0
    assert running_beats(store) == []
    assert not beat.failed(), beat.output()


@on_postgresql
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_beat_that_is_sending_ends_and_leaves_the_rest(
    broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """SIGTERM, twice, among thousands of messages loses none, and doubles one batch at most."""
    names = add_once(store, 3000)
    project = new_project(broker, migrated_url)
    beat = project.beat()
    wait_until(lambda: broker.count() > 200, 60, beat.output, interval=0.002)
    beat.send(signal.SIGTERM)
    assert beat.terminate() == 0
    assert running_beats(store) == []
    assert 0 < len(store.runs(state="sent", limit=3000)) < 3000
    before = time.monotonic()
    heir = project.beat()
    wait_until(lambda: len(store.runs(state="sent", limit=3000)) == 3000, 60, heir.output)
    assert time.monotonic() - before < 20, "the rest waited for claims to expire"
    assert heir.terminate() == 0
    runs = {run.entry_name: run.task_id for run in store.runs(limit=3001)}
    assert sorted(runs) == names
    ids = Counter(message.id for message in broker.drain())
    assert set(ids) == set(runs.values())
    assert ids.total() - len(ids) <= BATCH


def add_once(store: Store, count: int) -> list[str]:
    """Store one-shots that are due, as a program with SQL of its own would; return their names."""
    names = [f"once-{number:05}" for number in range(count)]
    columns = {"task": "tests.note", "kind": "once", "spec": Once(NOON).spec, "misfire": "all"}
    with store.database.session() as session:
        session.execute(insert(EntryModel), [{"name": name, **columns} for name in names])
    return names


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_beat_that_waits_for_a_silent_database_ends(
    redis_broker: Broker, new_project: NewProject, scheme: str
) -> None:
    """A database that takes connections and says nothing does not keep beat from ending."""
    with Ear() as ear:
        url = f"{scheme}://user@127.0.0.1:{ear.port}/db"
        beat = new_project(redis_broker, url).beat()
        wait_until(lambda: ear.heard, 30, beat.output)
        before = time.monotonic()
        assert beat.terminate(30) == 0
        assert time.monotonic() - before < 8


def test_a_beat_whose_database_stands_still_ends(
    private_postgresql: PrivatePostgreSQL, redis_broker: Broker, new_project: NewProject
) -> None:
    """A server that stops answering in the middle of its work does not keep beat from ending."""
    store = Store(private_postgresql.url)
    store.migrate()
    beat = new_project(redis_broker, private_postgresql.url).beat()
    wait_for_rows(store)
    store.close()
    private_postgresql.pause()
    assert beat.terminate(25) == 0


# -- remote control ------------------------------------------------------------------------


@on_sqlite
@pytest.mark.skipif(
    "remote_control" not in Service.__init__.__code__.co_varnames,
    reason=f"celery {celery.__version__} has no remote control of beat",
)
def test_beat_answers_a_ping(
    redis_broker: Broker, migrated_url: str, new_project: NewProject
) -> None:
    """`celery inspect ping` is answered by beat, while it waits and while it works."""
    project = new_project(redis_broker, migrated_url)
    beat = project.beat("--enable-remote-control", "-n", "beat@test")

    def answered() -> bool:
        with project.app() as app:
            found = app.control.inspect(destination=["beat@test"], timeout=1).ping()
        return bool(found) and found["beat@test"] == {"ok": "pong"}

    wait_until(answered, 30, beat.output)
    assert beat.terminate() == 0


# -- inside a worker -----------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_a_worker_with_beat_inside(
    redis_broker: Broker,
    migrated_url: str,
    new_project: NewProject,
    store: Store,
    check: Callable[[], int],
    *,
    pool: str,
) -> None:
    """`worker -B` sends and runs, whatever its pool, and takes its beat along when it ends."""
    store.add("a", "tests.note", Once(NOON), args=[1])
    project = new_project(redis_broker, migrated_url)
    worker = project.worker("-B", "--scheduler", "beatstore:DBScheduler", "--pool", pool)
    wait_until(project.runs, 40, worker.output)
    (run,) = project.runs()
    assert (run.task, run.args, run.headers["beatstore_entry"]) == ("tests.note", [1], "a")
    assert check() == 0
    assert worker.terminate() == 0
    wait_until(lambda: not running_beats(store), 15, "the beat to be stopped")
    assert check() == 1


@on_postgresql
def test_two_workers_with_beat_inside_send_once(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """Two workers with `-B` are two beats: they share the work, and nothing runs twice."""
    project = new_project(redis_broker, migrated_url)
    inside = ["-B", "--scheduler", "beatstore:DBScheduler"]
    workers = [project.worker(*inside) for _ in range(2)]
    wait_for_rows(store, 2)
    for n in range(200):
        store.add(f"once-{n}", "tests.note", Once(NOON))
    store.add("often", "tests.note", Every(0.5), max_runs=4)
    wait_until(
        lambda: len(project.runs()) >= 204,
        40,
        lambda: f"{len(project.runs())} runs\n{workers[0].output()[-2000:]}",
    )
    for worker in workers:
        assert worker.terminate() == 0
    ran = Counter(run.id for run in project.runs())
    assert set(ran.values()) == {1}
    assert set(ran) == {run.task_id for run in store.runs(limit=300)}
    assert len(ran) == 204


# -- as a daemon ---------------------------------------------------------------------------


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Path]:
    """Return where daemons leave their pid; they end with the test."""
    yield tmp_path / "beat.pid"
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((tmp_path / "beat.pid").read_text()), signal.SIGKILL)


def detach(project: Project, pid: Path, *before: str) -> Path:
    """Start a daemon, wait until it has left its parent, and return the path of its log."""
    log = pid.with_name("beat.log")
    files = ["--pidfile", str(pid), "--logfile", str(log), "--loglevel", "INFO"]
    command = ["-m", "celery", *before, "-A", project.app_name, "beat", "--detach", *files]
    starter = project.start([sys.executable, *command, "-S", "beatstore:DBScheduler"])
    assert starter.wait() == 0, starter.output()
    return log


@on_sqlite
def test_a_daemon_sends(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store, daemons: Path
) -> None:
    """`--detach` works with an absolute URL, also where the daemon stands in `/`."""
    store.add("a", "tests.note", Once(NOON))
    project = new_project(redis_broker, migrated_url)
    detach(project, daemons, "--workdir=/")
    wait_until(redis_broker.count, 30, "a message")
    assert sent_entries(redis_broker) == ["a"]
    os.kill(int(daemons.read_text()), signal.SIGTERM)
    wait_until(lambda: not daemons.exists(), 15, "the daemon to end")
    assert running_beats(store) == []


def test_a_daemon_refuses_a_relative_file(
    redis_broker: Broker, new_project: NewProject, daemons: Path
) -> None:
    """In `/` a relative SQLite URL would name another file: the log says so in one line."""
    project = new_project(redis_broker, "sqlite:///relative.db")
    log = detach(project, daemons, "--workdir=/")
    wait_until(lambda: log.exists() and "beatstore: " in log.read_text(), 30, "the reason")
    wait_until(lambda: not daemons.exists(), 15, "the daemon to end")
    (line,) = [line for line in log.read_text().splitlines() if "beatstore" in line]
    assert "an absolute path" in line
    assert "'sqlite:///relative.db'" in line
    assert "Traceback" not in log.read_text()
    assert not Path("/relative.db").exists()


# -- the command line ----------------------------------------------------------------------


def migrate(project: Project) -> tuple[int, str]:
    """Run `celery beatstore migrate`, and return its exit status and what it says of itself."""
    process = project.celery("beatstore", "migrate")
    status = process.wait()
    assert "Traceback" not in process.output(), process.output()
    lines = [line for line in process.output().splitlines() if line.startswith("beatstore: ")]
    assert len(lines) == 1, process.output()
    return status, lines[0].removeprefix("beatstore: ")


@on_postgresql
def test_the_migrate_command(
    redis_broker: Broker, database_url: str, new_project: NewProject
) -> None:
    """`celery beatstore migrate` makes the tables, says so, and can be run again."""
    project = new_project(redis_broker, database_url)
    announce(project.directory)
    shown = make_url(database_url).render_as_string(hide_password=True)
    assert migrate(project) == (0, f"{shown} is now at revision {REVISION}")
    assert is_migrated(database_url)
    assert migrate(project) == (0, f"{shown} is already at revision {REVISION}")
    set_revision(database_url, "9999")
    status, line = migrate(project)
    assert status == 3
    assert "newer than this beatstore knows" in line


def test_the_migrate_command_without_a_database(
    filesystem_broker: Broker, new_project: NewProject
) -> None:
    """With the database away, or a wrong setting, the command says so in one line."""
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/db"
    project = new_project(filesystem_broker, url)
    announce(project.directory)
    status, line = migrate(project)
    assert status == 3
    assert "refused" in line
    assert "secret" not in line
    project.settings["beatstore_batchsize"] = 5
    status, line = migrate(project)
    assert status == 2
    assert "beatstore_batch_size" in line


# -- canvases ------------------------------------------------------------------------------


@on_sqlite
def test_canvases_run_as_celery_runs_them(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """Chains, groups, chords, maps and chunks run, and are one run that ends with their last task.

    The result is kept under the run's own id.
    """
    add, total = canvas_app.add, canvas_app.total
    canvases: dict[str, tuple[Any, Any]] = {
        "task": (add.s(1, 1), 2),
        "chain": (chain(add.s(2, 2), add.s(4), add.s(8)), 16),
        "chord": (chord([add.s(1, 1), add.s(2, 2)], total.s()), 6),
        "chain into chord": (chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()), 7),
        "map": (total.map([[1, 2], [3, 4]]), [3, 7]),
        "starmap": (add.starmap([(1, 2), (3, 4)]), [3, 7]),
        "group": (group(add.s(10, 1), add.s(20, 2)), None),
        "chunks": (add.chunks([(n, 100) for n in range(4)], 2), None),
    }
    project = new_project(
        redis_broker, migrated_url, {"result_backend": redis_broker.url}, canvas_app.APP
    )
    for name, (canvas, _) in canvases.items():
        store.schedule(canvas, at=NOON, name=name)
    worker = project.worker()
    beat = project.beat()
    wait_until(
        lambda: sum(run.sent_at is not None for run in store.runs()) == len(canvases),
        40,
        lambda: beat.output()[-3000:],
    )
    ids = {run.entry_name: run.task_id for run in store.runs()}
    with project.app() as app:
        for name, (_, expected) in canvases.items():
            if expected is not None:
                result = app.AsyncResult(ids[name])
                wait_until(result.ready, 30, lambda name=name: f"{name}\n{worker.output()[-3000:]}")
                assert result.result == expected, name
    expected_sums = [[10, 1], [20, 2], *([n, 100] for n in range(4))]
    wait_until(
        lambda: all(args in [run.args for run in project.runs()] for args in expected_sums[:2]),
        30,
        "the members of the group",
    )
    with project.app() as app:
        wait_until(lambda: chunk_results(app) >= 4, 30, "the chunks")
    members = [run for run in project.runs() if run.args in expected_sums[:2]]
    assert {run.headers["beatstore_entry"] for run in members} == {"group"}
    assert {run.headers["beatstore_run_id"] for run in members} == {
        run.id for run in store.runs("group")
    }
    wait_until(
        lambda: {run.state for run in store.runs()} == {"succeeded"},
        30,
        lambda: str([(run.entry_name, run.state, run.error, run.parts) for run in store.runs()]),
    )
    assert all(run.parts is None for run in store.runs())
    assert beat.terminate() == 0
    assert worker.terminate() == 0


def chunk_results(app: celery.Celery) -> int:
    """Count the sums above 100, which only the chunks make."""
    backend: Any = app.backend
    keys = backend.client.keys("celery-task-meta-*")
    found = (backend.get_task_meta(key.decode().removeprefix("celery-task-meta-")) for key in keys)
    results = [meta["result"] for meta in found]
    return sum(n >= 100 for value in results if isinstance(value, list) for n in value)


# -- time ----------------------------------------------------------------------------------


@on_postgresql
def test_a_row_written_while_beat_sleeps_is_sent_soon(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """However long the interval, beat looks when a row that is due is committed."""
    beat = new_project(redis_broker, migrated_url).beat("--max-interval", "60")
    wait_for_rows(store)
    store.add("a", "tests.note", Once(NOON))
    run = wait_until(lambda: store.runs(state="sent"), 10, beat.output)[0]
    assert run.sent_at is not None
    assert run.sent_at - store.get("a").created_at < timedelta(seconds=5)
    assert sent_entries(redis_broker) == ["a"]
    assert beat.terminate() == 0

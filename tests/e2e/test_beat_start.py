"""`celery beat` starts: by which name, with which tables and settings."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from sqlalchemy import make_url

from beatstore import Once, Store
from beatstore.database.models import REVISION
from tests.support.brokers import Broker
from tests.support.entrypoints import announce, entry_points
from tests.support.harness.inprocess import names
from tests.support.harness.ticks import running_beats, wait_for_beats
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.processes import Process
from tests.support.project import NewProject, Project
from tests.support.proxy import Proxy
from tests.support.revisions import set_revision, tables
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


def refused(process: Process) -> str:
    """Wait until a process has ended with an error, and return the line in which it says why."""
    assert process.wait() not in (0, None)
    output = process.output()
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if "beatstore: " in line]
    return line.partition("beatstore: ")[2]


def is_migrated(url: str) -> bool:
    """Say whether the tables are there."""
    return "beatstore_entry" in tables(url)


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
    assert names(redis_broker.drain()) == ["a"]
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
    wait_for_beats(store)
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
    wait_for_beats(store)
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
    assert names(filesystem_broker.drain()) == ["a"]
    assert beat.terminate() == 0
    store.close()


@on_postgresql
def test_beat_migrates_where_it_is_told_to(
    redis_broker: Broker, database_url: str, new_project: NewProject
) -> None:
    """With `beatstore_auto_migrate`, beat makes its tables on PostgreSQL too."""
    project = new_project(redis_broker, database_url, {"beatstore_auto_migrate": True})
    beat = project.beat()
    wait_until(lambda: is_migrated(database_url), 30, beat.output)
    assert beat.terminate() == 0


@on_postgresql
def test_beat_makes_no_tables_unasked(
    redis_broker: Broker, database_url: str, new_project: NewProject
) -> None:
    """Without its tables beat ends with the command to run, and leaves the database alone."""
    line = refused(new_project(redis_broker, database_url).beat())
    assert "no beatstore tables here" in line
    assert "celery -A proj beatstore migrate" in line
    assert tables(database_url) == set()


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
        assert names(redis_broker.drain()) == ["a"]
        output = beat.output()
        assert output.count("lost connection to the database") == 1
        assert "Traceback" not in output
        assert beat.terminate() == 0


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

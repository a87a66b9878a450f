"""What `beatstore import` says besides its report: unknown tasks, a missing driver."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from beatstore import Store
from beatstore.cli import beatstore

TABLES = """
CREATE TABLE django_celery_beat_intervalschedule (id INTEGER, every INTEGER, period TEXT);
INSERT INTO django_celery_beat_intervalschedule VALUES (1, 60, 'seconds');
CREATE TABLE django_celery_beat_periodictask
    (id INTEGER, name TEXT, task TEXT, interval_id INTEGER);
INSERT INTO django_celery_beat_periodictask VALUES
    (1, 'a', 'proj.build', 1), (2, 'b', 'proj.biuld', 1), (3, 'c', 'proj.biuld', 1),
    (4, 'd', 'elsewhere.purge', 1);
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """Hand out an app with one task, whose database also has the tables of django-celery-beat."""
    path = tmp_path / "both.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(TABLES)
    connection.close()
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = f"sqlite:///{path}"

    @app.task(name="proj.build", shared=False)
    def build() -> None:
        """Do nothing."""

    store = Store.from_app(app)
    store.migrate()
    store.close()
    yield app
    app.close()


def imported(app: Celery, *arguments: str) -> Result:
    """Call the verb as `celery -A … beatstore import …`."""
    context = SimpleNamespace(app=app, no_color=True)
    given = ["import", "--from", "django-celery-beat", *arguments]
    return CliRunner().invoke(beatstore, given, obj=context)


def test_unknown_tasks_are_named(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """Before anything is written, each task that the app does not have is named once."""
    with caplog.at_level(logging.WARNING, "beatstore.store.unknown_tasks"):
        assert imported(app, "--dry-run").exit_code == 0
    runs_on = "it runs only on workers that have it"
    assert [record.getMessage() for record in caplog.records] == [
        f"this app has no task 'proj.biuld': {runs_on}; did you mean 'proj.build'?",
        f"this app has no task 'elsewhere.purge': {runs_on}",
    ]


@pytest.mark.parametrize(
    ("module", "driver", "hint"),
    [
        ("psycopg", "postgresql+psycopg", "pip install 'beatstore[postgres]'"),
        ("pymysql", "mysql+pymysql", "pip install 'beatstore[mysql]'"),
        ("MySQLdb", "mysql", "pip install mysqlclient; or mysql+pymysql:// for the usual driver"),
    ],
)
def test_a_driver_that_is_not_installed(
    app: Celery, module: str, driver: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the driver of the other database, the error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    done = imported(app, "--url", f"{driver}://u@127.0.0.1:1/db")
    assert done.exit_code == 2
    assert f"write {hint}" in done.output

"""A worker whose database has no tables of beatstore yet, or those of another version."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest
from celery import Celery

from beatstore import Store
from beatstore.config import Settings
from beatstore.errors import SchemaError
from beatstore.worker.tracker import Heartbeat, OwnReports
from tests.support.wait import wait_until
from tests.support.written import sql


def test_it_is_told_once_and_goes_on_after_the_migration(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what to run, without a traceback; the heartbeat works once it was run."""
    settings = Settings.read({"beatstore_url": database_url, "beatstore_heartbeat": 0.1})
    app = Celery("tests", set_as_current=False)
    heartbeat = Heartbeat("w@h", lambda: (OwnReports(settings), settings), lambda: app)
    with caplog.at_level(logging.DEBUG, "beatstore"), closing(Store(database_url)) as store:
        heartbeat.start()
        try:
            wait_until(lambda: caplog.text.count("still retrying") >= 2)
            store.migrate()
            wait_until(lambda: [one.name for one in store.status().workers] == ["w@h"])
        finally:
            heartbeat.end()
            heartbeat.join(10)
    [told] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "run `celery -A proj beatstore migrate`" in told.getMessage()
    assert told.exc_info is None
    assert "\n" not in told.getMessage()


def test_a_column_that_is_not_there_yet(store: Store, migrated_url: str) -> None:
    """In the middle of a migration the tables are those of another version, too."""
    sql(store, "ALTER TABLE beatstore_worker RENAME COLUMN stopped_at TO ended_at")
    settings = Settings.read({"beatstore_url": migrated_url})
    with closing(OwnReports(settings)) as reports, pytest.raises(SchemaError, match="migrate"):
        reports.heartbeat("1", "w@h", 1, [])
